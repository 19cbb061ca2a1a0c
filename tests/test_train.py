"""Training: recipes by hand, runs that are broken off, resumed, refused, shared by processes, and that learn."""

from __future__ import annotations

import json
import math
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from click.testing import CliRunner
from mter_data import LABELS, write_photos_and_tables
from sklearn.metrics import average_precision_score
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from emoface.cli import main
from emoface.datasets.manifest import read_manifest
from emoface.datasets.stream_cache import open_stream_cache
from emoface.errors import SettingsError, TableError, TrainingError, WeightsError
from emoface.jobs.train import TrainConfig, _share_gpus, run_train
from emoface.jobs.verify import VerifyConfig, run_verify
from emoface.learning.ema import AveragedWeights, ratio_warmup
from emoface.mter import build_model, trainer
from emoface.mter.dataset import PeopleDataset, PersonBatch, load_batch
from emoface.mter.losses import weigh_labels
from emoface.mter.names import PresetName
from emoface.mter.recipe import PRESETS, Recipe, learning_rate, resolve_recipe
from emoface.mter.runs import EpochPlan, extend_run, read_run
from emoface.mter.sampling import plan_batches, sample_epoch, shuffle_labels
from emoface.mter.trainer import Trainer, build_recipe_optimizer
from emoface.mter.weight_files import load_weights, write_weights
from emoface.progress import Silent
from emoface.schema import CATEGORIES, SPLITS
from emoface.storage.files import file_sha256
from emoface.storage.locks import lock_folder

SMALL = {"epochs": 3, "batch_size": 8}
AVERAGING = {**SMALL, "epochs": 2, "ema_decay": 0.9}
SMALL_STREAMS = ("--person-size", "64", "--context-size", "64")


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_photos_and_tables(tmp_path_factory.mktemp("data"), 16)


def _config(manifest: Path, out: Path, model: str = "task2", **changes: Any) -> TrainConfig:
    config = TrainConfig(
        manifest=manifest, model=model, out=out, recipe=SMALL, pretrained="none", workers=0, device="cpu"
    )
    return config.replace(**{"person_size": 64, "context_size": 64, **changes})


def _weights(run: Path) -> dict[str, torch.Tensor]:
    return read_run(run, needs_finished=False).load_model().state_dict()


def _log_without_times(run: Path) -> list[dict[str, Any]]:
    lines = read_run(run, needs_finished=False).log()
    return [{k: v for k, v in line.items() if k not in ("seconds", "images_per_second")} for line in lines]


# Recipes


def test_preset_thesis_is_section_4_4() -> None:
    thesis = PRESETS["thesis"].recipe
    assert (thesis.optimizer, thesis.momentum, thesis.weight_decay, thesis.batch_size) == ("sgd", 0.9, 0.0005, 16)
    assert (thesis.learning_rate, thesis.warmup_epochs, thesis.epochs) == (0.001, 10, 120)
    assert thesis.decay_epochs == (75, 100, 115) and thesis.crop_shares == (0.3, 1.0)
    assert (thesis.mirror_probability, thesis.distort_probability, thesis.ohem_ratio) == (0.5, 0.5, 0)
    optimizer = build_recipe_optimizer(build_model("task2"), thesis)
    assert isinstance(optimizer, torch.optim.SGD) and len(optimizer.param_groups) == 1
    assert optimizer.param_groups[0]["momentum"] == 0.9 and optimizer.param_groups[0]["weight_decay"] == 0.0005


def test_rate_warms_up_step_by_step_and_falls_at_its_epochs() -> None:
    thesis = PRESETS["thesis"].recipe
    assert [learning_rate(thesis, 0, step, 4) for step in range(4)] == pytest.approx([2.5e-5, 5e-5, 7.5e-5, 1e-4])
    ends = {0: 1e-4, 9: 1e-3, 74: 1e-3, 75: 1e-4, 99: 1e-4, 100: 1e-5, 114: 1e-5, 115: 1e-6, 119: 1e-6}
    for epoch, rate in ends.items():
        assert learning_rate(thesis, epoch, 9, 10) == pytest.approx(rate), epoch
    assert learning_rate(thesis, 75, 0, 10) == pytest.approx(1e-4)


def test_cosine_is_half_way_down_in_the_middle_and_a_hundredth_at_the_end() -> None:
    recipe = Recipe(epochs=11, warmup_epochs=1, schedule="cosine", learning_rate=1.0)
    rates = [learning_rate(recipe, epoch, 99, 100) for epoch in range(11)]
    assert rates[0] == 1.0 and rates[5] == pytest.approx(0.505) and rates[10] == pytest.approx(0.01)
    assert rates == sorted(rates, reverse=True)


def test_fewer_epochs_shorten_the_whole_schedule_unless_given() -> None:
    recipe = resolve_recipe("thesis", {"epochs": 12})
    assert (recipe.warmup_epochs, recipe.decay_epochs) == (1.0, (7.5, 10.0, 11.5))
    assert resolve_recipe("thesis", {"epochs": 12, "warmup_epochs": 3.0}).warmup_epochs == 3
    assert resolve_recipe("thesis", {"epochs": 120}) == PRESETS["thesis"].recipe
    assert resolve_recipe("thesis", {"loss": "weighted_euclidean"}).label_weights == "kosti"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"loss": "bse"}, "loss is 'bse'; did you mean 'bce'"),
        ({"epochs": 0}, "epochs is 0, expected 1 or more"),
        ({"learning_rate": math.nan}, "learning_rate is nan, expected more than 0"),
        ({"dropout": 1.0}, "dropout is 1.0, expected 0 or more and less than 1"),
        ({"crop_shares": (0.9, 0.3)}, "crop_shares are (0.9, 0.3), expected two shares"),
        ({"mirror_probability": 2.0}, "mirror_probability is 2.0, expected a number from 0 to 1"),
        ({"loss": "weighted_euclidean", "label_weights": "none"}, "weighted_euclidean needs label_weights"),
        ({"bach_size": 4}, "a recipe has no 'bach_size'; did you mean 'batch_size'"),
    ],
)
def test_bad_recipes_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingsError) as refused:
        resolve_recipe("thesis", changes)
    assert message in str(refused.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": "mter"}, "model is 'mter'; did you mean 'mter"),
        ({"preset": "modem"}, "preset is 'modem'; did you mean 'modern'"),
        ({"seed": -1}, "seed is -1, expected 0 or more"),
        ({"context_size": 8}, "context_size is 8, expected 32 or more"),
        ({"person_size": 31}, "person_size is 31, expected 32 or more"),
    ],
)
def test_bad_settings_are_refused(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingsError) as refused:
        _config(tmp_path / "manifest.json", tmp_path, **changes)
    assert message in str(refused.value)


# Sampling


def test_epoch_samples_each_person_once_in_its_own_order() -> None:
    positions = np.arange(10, 60)
    first, second = (sample_epoch(positions, None, 0, epoch) for epoch in (0, 1))
    assert sorted(first) == sorted(second) == positions.tolist() and first.tolist() != second.tolist()
    assert sample_epoch(positions, None, 0, 1).tolist() == second.tolist()
    assert sample_epoch(positions, None, 1, 1).tolist() != second.tolist()


def test_weights_decide_how_often_a_person_is_sampled() -> None:
    weights = np.array([0.0, 1.0, 3.0])
    sampled = np.concatenate([sample_epoch(np.array([4, 5, 6]), weights, 0, epoch) for epoch in range(1000)])
    counts = np.bincount(sampled, minlength=7)[4:]
    assert counts[0] == 0 and counts.sum() == 3000
    assert abs(counts[2] - 2250) < 4 * math.sqrt(3000 * 0.75 * 0.25)


@pytest.mark.parametrize("n_processes", [1, 2, 3])
def test_processes_share_every_batch_of_one(n_processes: int) -> None:
    order = np.random.default_rng(0).permutation(40)
    plans = [plan_batches(order, 7, 12, rank, n_processes) for rank in range(n_processes)]
    assert [len(plan) for plan in plans] == [3] * n_processes
    for step in range(3):
        together = [key for plan in plans for key in plan[step]]
        assert [key.position for key in together] == order[12 * step : 12 * step + 12].tolist()
        assert [key.number for key in together] == list(range(12 * step, 12 * step + 12))
        assert {key.epoch for key in together} == {7}


def test_label_weights_by_hand() -> None:
    indicator = np.array([[1, 0, 1], [1, 0, 0], [1, 0, 0], [1, 1, 0]], np.uint8)
    assert weigh_labels("none", indicator) is None
    kosti = weigh_labels("kosti", indicator)
    assert kosti is not None and kosti.tolist() == pytest.approx([1 / math.log(2.2), *[1 / math.log(1.45)] * 2])
    root = weigh_labels("root", indicator)
    assert root is not None and root.tolist() == pytest.approx([0.6, 1.2, 1.2])


def test_shuffled_people_keep_all_but_their_labels(manifest: Path) -> None:
    people = open_stream_cache(read_manifest(manifest), "train").people
    shuffled = shuffle_labels(people, 3)
    assert shuffled.images == people.images and (shuffled.has_face == people.has_face).all()
    rows, dealt = (
        [(tuple(labels), tuple(np.nan_to_num(vad))) for labels, vad in zip(one.labels, one.vad, strict=True)]
        for one in (people, shuffled)
    )
    assert rows != dealt and sorted(rows) == sorted(dealt)
    assert (shuffle_labels(people, 3).labels == shuffled.labels).all()
    assert (shuffle_labels(people, 4).labels != shuffled.labels).any()


def test_averaged_weights_against_a_slow_reference() -> None:
    model = build_model("task2")
    averaged = AveragedWeights(model, ratio_warmup(0.3))
    expected = {name: value.double().clone() for name, value in model.state_dict().items()}
    for step in range(4):
        decay = min(0.3, (1 + step) / (10 + step))
        with torch.no_grad():
            for value in model.state_dict().values():
                value.add_(torch.ones_like(value) * (step + 1))
        averaged.update(model)
        for name, value in model.state_dict().items():
            expected[name] = decay * expected[name] + (1 - decay) * value if value.is_floating_point() else value
    for name, value in averaged.model.state_dict().items():
        assert torch.allclose(value.double(), expected[name].double(), atol=1e-5), name


# Runs


class _Killed(BaseException):
    pass


class _KillAfterEpoch(Silent):
    """Stops the run when an epoch has been written."""

    def __init__(self, epoch: int) -> None:
        self.epoch = epoch

    def note(self, text: str) -> None:
        if text.startswith(f"epoch {self.epoch}/"):
            raise _Killed


@pytest.mark.parametrize("preset", ["thesis", "modern"])
def test_killed_and_resumed_ends_at_the_bytes_of_an_unbroken_run(manifest: Path, tmp_path: Path, preset: str) -> None:
    config = _config(manifest, tmp_path / "whole", preset=preset)
    run_train(config)
    broken = config.replace(out=tmp_path / "broken", workers=2)
    with pytest.raises(_Killed):
        run_train(broken, _KillAfterEpoch(1))
    assert len(read_run(broken.out, needs_finished=False).log()) == 1 and not (broken.out / "records").exists()
    with pytest.raises(SettingsError, match="the run of task2 is unfinished after 1 epochs; go on with 'emoface train"):
        read_run(broken.out)
    run_train(broken)
    assert file_sha256(broken.out / "best.safetensors") == file_sha256(config.out / "best.safetensors")
    last, other = (torch.load(out / "last.pt", weights_only=True) for out in (config.out, broken.out))
    for part in ("model", "averaged"):
        if last[part] is not None:
            assert all(torch.equal(value, other[part][name]) for name, value in last[part].items())
    assert _log_without_times(broken.out) == _log_without_times(config.out)


@pytest.fixture(scope="module")
def whole(manifest: Path, tmp_path_factory: pytest.TempPathFactory) -> TrainConfig:
    """An unbroken run of two epochs."""
    config = _config(manifest, tmp_path_factory.mktemp("whole") / "run", recipe={**SMALL, "epochs": 2})
    run_train(config)
    return config


@pytest.mark.parametrize("file", ["best.safetensors", "last.pt", "log.jsonl"])
def test_kill_between_any_two_files_of_an_epoch_changes_nothing(
    whole: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, file: str
) -> None:
    config = whole
    broken = config.replace(out=tmp_path / "broken")
    writer = {"best.safetensors": "write_weights", "last.pt": "save_checkpoint", "log.jsonl": "write_log"}[file]
    write, calls = getattr(trainer, writer), []

    def write_and_die(path: Path, *content: Any) -> None:
        write(path, *content)
        calls.append(path)
        if len(calls) == (2 if writer == "write_log" else 1):  # the log is written at the start too
            raise _Killed

    with monkeypatch.context() as patched, pytest.raises(_Killed):
        patched.setattr(trainer, writer, write_and_die)
        run_train(broken)
    run_train(broken)
    assert file_sha256(broken.out / "best.safetensors") == file_sha256(config.out / "best.safetensors")
    assert _log_without_times(broken.out) == _log_without_times(config.out)
    assert not list(broken.out.glob(".*"))


@pytest.fixture(scope="module")
def finished(manifest: Path, tmp_path_factory: pytest.TempPathFactory) -> TrainConfig:
    """A finished run of task1 with ratings."""
    config = _config(manifest, tmp_path_factory.mktemp("run"), "task1", recipe={**SMALL, "predicts_vad": True})
    run_train(config)
    return config


def test_finished_run_is_left_alone_and_says_so(finished: TrainConfig) -> None:
    notes: list[str] = []

    class Listening(Silent):
        def note(self, text: str) -> None:
            notes.append(text)

    before = {path: path.stat().st_mtime_ns for path in finished.out.rglob("*")}
    record = run_train(finished, Listening())
    assert {path: path.stat().st_mtime_ns for path in finished.out.rglob("*")} == before
    assert notes == [f"{finished.out}: this run is finished; nothing to do"] and record.counts["epochs"] == 3


def test_run_of_other_settings_is_refused_and_says_which(finished: TrainConfig) -> None:
    other = finished.replace(seed=5, recipe={**finished.recipe, "dropout": 0.1}, device="auto", workers=1)
    with pytest.raises(SettingsError) as refused:
        run_train(other)
    message = str(refused.value)
    assert "recipe.dropout was 0.5, now 0.1; seed was 0, now 5; use the same settings, or choose another" in message


def test_patience_stops_by_the_best_epoch_or_by_the_epoch_of_an_extension() -> None:
    plan = EpochPlan(100, patience=3)
    scores = [0.1, 0.4, 0.2, 0.4, 0.3]  # an equal score is no better one
    assert [plan.stops_early(scores[:n]) for n in range(6)] == [False] * 5 + [True]
    assert not EpochPlan(100, 3, counted_from=3).stops_early(scores)
    assert EpochPlan(100, 3, counted_from=3).stops_early([*scores, 0.4])
    assert not EpochPlan(100).stops_early([0.1] * 50)


@pytest.mark.parametrize("preset", ["thesis", "modern"])
def test_epochs_after_those_of_the_recipe_have_its_last_rate(preset: PresetName) -> None:
    recipe = PRESETS[preset].recipe
    last = learning_rate(recipe, recipe.epochs - 1, 9, 10)
    assert last == pytest.approx(recipe.learning_rate * (0.001 if preset == "thesis" else 0.01))
    assert {learning_rate(recipe, recipe.epochs + more, step, 10) for more in (0, 7) for step in (0, 9)} == {last}
    rising = Recipe(epochs=2, warmup_epochs=4)
    assert learning_rate(rising, 5, 0, 10) == learning_rate(rising, 1, 9, 10) == rising.learning_rate / 2


def test_run_that_stops_early_is_finished_and_goes_on_when_it_is_extended(
    manifest: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The score falls with every epoch, so patience 1 stops after the second, and after the first of an extension."""
    monkeypatch.setattr(trainer, "score_line", lambda line: -line["epoch"])
    config = _config(manifest, tmp_path / "run", recipe={**SMALL, "epochs": 5, "patience": 1})
    with pytest.raises(_Killed):
        run_train(config, _KillAfterEpoch(2))  # between the epoch that stops the run and its record
    record = run_train(config)
    assert (record.counts["epochs"], record.counts["stopped_early"]) == (2, True)
    assert read_run(config.out).settings["recipe"]["patience"] == 1 and run_train(config) == record
    assert _differences(config.out) == []

    longer = config.replace(extend_to=4)
    with pytest.raises(_Killed):
        run_train(longer, _KillAfterEpoch(3))
    record = run_train(config)  # an extension is resumed without the option, too
    assert (record.counts["epochs"], record.counts["stopped_early"]) == (3, True)
    run = read_run(config.out)
    assert run.settings["extensions"] == [{"after_epoch": 2, "epochs": 4}] and run.epoch_plan == EpochPlan(4, 1, 2)
    rates = [learning_rate(run.recipe, epoch, 4, 5) for epoch in range(3)]  # those of the schedule of five epochs
    assert [line["learning_rate"] for line in run.log()] == pytest.approx(rates)


def test_extended_run_ends_at_the_bytes_of_one_that_was_longer_from_the_start(
    whole: TrainConfig, tmp_path: Path
) -> None:
    long = whole.replace(out=tmp_path / "long", extend_to=3)
    run_train(long)
    extended = whole.replace(out=tmp_path / "extended", extend_to=3)
    shutil.copytree(whole.out, extended.out)
    with pytest.raises(SettingsError, match="extend_to is 1, but this run trains 3 epochs anyway; choose a larger"):
        (long.out / "records" / "train.json").unlink()
        run_train(long.replace(extend_to=1))
    assert run_train(extended.replace(extend_to=2)).counts["epochs"] == 2
    record = run_train(extended)
    assert (record.counts["epochs"], record.counts["stopped_early"]) == (3, False)
    assert "- epochs: 3; schedule of 2, the others at the" in (extended.out / "README.md").read_text(encoding="utf-8")
    assert file_sha256(extended.out / "best.safetensors") == file_sha256(long.out / "best.safetensors")
    assert _log_without_times(extended.out) == _log_without_times(long.out)
    assert run_train(extended) == record


def test_kill_between_the_two_files_of_an_extension_changes_nothing(
    whole: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = whole.replace(out=tmp_path / "run", extend_to=3)
    shutil.copytree(whole.out, config.out)

    def die(*_: Any, **__: Any) -> None:
        raise _Killed

    with monkeypatch.context() as patched, pytest.raises(_Killed):
        patched.setattr(Path, "unlink", die)
        extend_run(read_run(config.out), 3)
    assert run_train(config.replace(extend_to=None)).counts["epochs"] == 2  # still the finished run
    assert run_train(config).counts["epochs"] == 3
    assert read_run(config.out).settings["extensions"] == [{"after_epoch": 2, "epochs": 3}]


def _differences(folder: Path) -> list[str]:
    return list(run_verify(VerifyConfig(dir=folder)).info["differences"])


def test_run_that_started_from_a_face_goes_on_only_with_it(
    finished: TrainConfig, manifest: Path, tmp_path: Path
) -> None:
    config = _config(manifest, tmp_path / "run", "task1", init_face=finished.out)
    with pytest.raises(_Killed):
        run_train(config, _KillAfterEpoch(1))
    with pytest.raises(SettingsError, match=r"init_face\.sha256 was '[0-9a-f]{64}', now None; use the same settings"):
        run_train(config.replace(init_face=None))
    assert len(read_run(config.out, needs_finished=False).log()) == 1


def test_task1_uses_people_with_a_face_only(finished: TrainConfig) -> None:
    record = run_train(finished)
    manifest = read_manifest(finished.manifest)
    for split in ("train", "val"):
        n, n_faces = manifest.splits[split].rows, manifest.splits[split].faces
        assert 0 < n_faces < n
        assert record.counts[f"{split}_people"] == n_faces and record.counts[f"{split}_left_out"] == n - n_faces


def test_run_records_settings_and_environment(finished: TrainConfig) -> None:
    run = read_run(finished.out)
    assert run.model_name == "task1" and run.predicts_vad and run.is_finished
    assert run.manifest_path == finished.manifest.resolve()
    assert run.settings["manifest"]["sha256"] == file_sha256(finished.manifest)
    assert run.settings["recipe"]["epochs"] == 3 and run.settings["recipe"]["momentum"] == 0.9
    assert run.settings["normalisation"]["mean"] == [0.485, 0.456, 0.406]
    assert set(run.settings["environment"]) == {"os", "python", "cpu", "gpu", "cuda", "ram", "framework"}
    assert run.settings["people"]["train"]["usable"] == run.settings["people"]["train"]["people"] == 16
    assert not run.load_model("last").training


def test_log_is_one_line_per_epoch_with_every_loss_and_precision(finished: TrainConfig) -> None:
    lines = read_run(finished.out).log()
    assert [line["epoch"] for line in lines] == [1, 2, 3]
    for line in lines:
        assert line["train_losses"].keys() == line["val_losses"].keys() == {"labels", "vad"}
        assert sum(line["train_losses"].values()) == pytest.approx(line["train_loss"], rel=1e-5)
        defined = {name for name, value in line["val_average_precision"].items() if value is not None}
        assert defined == {CATEGORIES[label] for label in LABELS}
        precision = [line["val_average_precision"][name] for name in defined]
        assert line["val_map"] == pytest.approx(np.mean(precision))
        assert 0 < line["val_chance"] < 1
        assert all(0 <= line["val_average_absolute_error"][name] < 9 for name in ("valence", "arousal", "dominance"))
        assert line["images_per_second"] > 0 and line["seconds"] > 0


def test_best_weights_give_the_best_line_again(finished: TrainConfig) -> None:
    run = read_run(finished.out)
    best = max(run.log(), key=lambda line: line["val_map"])
    cache = open_stream_cache(read_manifest(run.manifest_path), "val")
    batch = load_batch(
        PeopleDataset(cache, ("face",), sizes=run.stream_sizes), np.flatnonzero(cache.people.has_face).tolist()
    )
    with torch.no_grad():
        output = run.load_model()(batch.inputs, batch.has_face)
    scores, truth = output.logits.numpy(), batch.labels.numpy()
    expected = np.mean([average_precision_score(truth[:, label], scores[:, label]) for label in LABELS])
    assert best["val_map"] == pytest.approx(expected)
    assert output.vad_unit is not None
    error = (output.vad_unit * 9 + 1 - batch.vad).abs().nanmean(dim=0).tolist()
    assert list(best["val_average_absolute_error"].values()) == pytest.approx(error, rel=1e-4)


def test_tensorboard_has_the_losses_of_every_epoch(finished: TrainConfig) -> None:
    events = EventAccumulator(str(finished.out / "tensorboard"))
    events.Reload()
    shown = [(one.step, one.value) for one in events.Scalars("loss/val")]
    assert shown == [(line["epoch"], pytest.approx(line["val_loss"])) for line in read_run(finished.out).log()]
    assert {"val/mean_average_precision", "val_average_absolute_error/valence"} <= set(events.Tags()["scalars"])


def test_face_stream_starts_from_a_run_of_task1(finished: TrainConfig, manifest: Path, tmp_path: Path) -> None:
    still = {**SMALL, "epochs": 1, "learning_rate": 1e-30, "weight_decay": 0.0}
    config = _config(manifest, tmp_path / "mter2", "mter2", recipe=still, init_face=finished.out)
    run_train(config)
    ours, theirs = _weights(config.out), _weights(finished.out)
    names = [name for name in theirs if name.startswith("stream.face.") and name.endswith(("weight", "bias"))]
    assert len(names) > 100 and all(torch.allclose(ours[name], theirs[name], atol=1e-20) for name in names)
    (taken,) = read_run(config.out).settings["started_from"]
    assert taken["network"] == "face" and taken["not_taken"] == []
    with pytest.raises(WeightsError, match="no stream of task2"):
        run_train(_config(manifest, tmp_path / "task2", init_face=finished.out))


def test_absent_pretrained_weights_stop_the_training_with_what_to_do(
    manifest: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EMOFACE_WEIGHTS", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    recipe = {**SMALL, "epochs": 1}

    def refuse(name: str, *_: object) -> None:
        raise WeightsError(f"{name}: no network here")

    monkeypatch.setattr("emoface.mter.pretrained.fetch_weights", refuse)
    advice = (
        r"no network here\. The body stream of task2 starts from 'auto': give a file with --pretrained body=FILE, or"
    )
    with pytest.raises(WeightsError, match=f"mobilenet_v2.*{advice}"):
        run_train(_config(manifest, tmp_path / "missing", pretrained="auto", recipe=recipe))
    with pytest.raises(WeightsError, match=r"mobilenet_v2.*starts from 'imagenet'"):
        run_train(_config(manifest, tmp_path / "missing", pretrained="imagenet", recipe=recipe))
    with pytest.raises(SettingsError, match="weights are given for 'face', task2 has body"):
        run_train(_config(manifest, tmp_path / "missing", pretrained="face=none,none", recipe=recipe))
    assert not (tmp_path / "missing").exists()


def test_a_stream_starts_from_a_file_of_ones_own(manifest: Path, tmp_path: Path) -> None:
    torch.manual_seed(5)
    source = build_model("task2").backbones()["body"]
    torch.save(source.state_dict(), tmp_path / "own.pth")
    config = _config(
        manifest, tmp_path / "run", model="task2+task3", recipe={**SMALL, "epochs": 1, "learning_rate": 1e-30}
    )
    config = config.replace(pretrained=f"body={tmp_path}/own.pth,context=none")
    run_train(config)
    run = read_run(config.out)
    (taken,) = run.settings["started_from"]
    assert (taken["network"], taken["source"], taken["not_taken"]) == ("body", "own.pth", [])
    assert run.settings["pretrained"] == f"body={file_sha256(tmp_path / 'own.pth')},context=none"
    theirs = run.load_model().backbones()["body"].state_dict()
    weights = [name for name, value in source.state_dict().items() if value.ndim > 1]
    assert all(torch.allclose(theirs[name], source.state_dict()[name], atol=1e-6) for name in weights)
    torch.save(build_model("task2").backbones()["body"].state_dict(), tmp_path / "own.pth")
    with pytest.raises(SettingsError, match="pretrained was 'body="):
        run_train(config)


def test_loss_that_is_not_finite_stops_the_run_with_what_was_happening(manifest: Path, tmp_path: Path) -> None:
    recipe = {**SMALL, "learning_rate": 1e30, "warmup_epochs": 2.0, "clip_norm": 0.0}
    with pytest.raises(TrainingError) as stopped:
        run_train(_config(manifest, tmp_path / "run", recipe=recipe))
    message = str(stopped.value)
    for part in ("the loss is not finite in epoch 1, step 2: loss ", "labels ", "learning rate ", "people by index: "):
        assert part in message
    assert len(message.split("people by index: ")[1].split(";")[0].split()) == 8
    assert not (tmp_path / "run/last.pt").exists()
    with pytest.raises(WeightsError, match=r"best\.safetensors: no such file; no epoch has finished"):
        read_run(tmp_path / "run", needs_finished=False).load_model()


def test_step_after_a_loss_that_is_not_finite_hides_nothing(
    manifest: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[tuple[int, int]] = []
    take_step = Trainer._take_step

    def spoil_step_six(self: Trainer, batch: PersonBatch, epoch: int, step: int) -> Any:
        started.append((epoch, step))
        if (epoch, step) == (1, 1):
            batch.labels.fill_(math.inf)
        return take_step(self, batch, epoch, step)

    monkeypatch.setattr(Trainer, "_take_step", spoil_step_six)
    config = _config(manifest, tmp_path / "run", recipe={**SMALL, "batch_size": 4, "ema_decay": 0.9})
    with pytest.raises(TrainingError, match=r"not finite in epoch 2, step 2: .*people by index: \d+ \d+ \d+ \d+;"):
        run_train(config)
    assert started == [(0, 0), (0, 1), (0, 2), (0, 3), (1, 0), (1, 1), (1, 2)]  # one more, never two
    assert len(read_run(config.out, needs_finished=False).log()) == 1
    assert all(value.isfinite().all() for value in _weights(config.out).values())


def test_compiled_network_keeps_the_names_and_bytes_of_its_weights(
    manifest: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the backend ``eager``, which runs the same operations and needs no C++ compiler."""
    recipe = {**SMALL, "epochs": 1, "freezes_norms": True}
    config = _config(manifest, tmp_path / "plain", "caer-net-s", preset="caer", recipe=recipe)
    run_train(config)
    compile_module, compiled = torch.nn.Module.compile, []

    def compile_eagerly(self: torch.nn.Module) -> None:
        compiled.append(self)
        compile_module(self, backend="eager")

    monkeypatch.setattr(torch.nn.Module, "compile", compile_eagerly)
    monkeypatch.setattr("emoface.learning.compiling.check_compiler", lambda device: None)
    run_train(config.replace(out=tmp_path / "compiled", compile=True))
    assert len(compiled) == 1 and compiled[0]._compiled_call_impl is not None
    assert file_sha256(tmp_path / "compiled/best.safetensors") == file_sha256(config.out / "best.safetensors")
    plain, other = (torch.load(out / "last.pt", weights_only=True) for out in (config.out, tmp_path / "compiled"))
    assert plain["model"].keys() == other["model"].keys()
    with pytest.raises(SettingsError, match="compile was True, now False"):
        run_train(config.replace(out=tmp_path / "compiled"))


def test_missing_compiler_is_one_line_before_the_training(
    manifest: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inductor = pytest.importorskip("torch._inductor.config")
    monkeypatch.setattr(inductor.cpp, "cxx", (None, "/nowhere/g++"))
    with pytest.raises(
        SettingsError, match=r"--compile: torch\.compile does not work on this machine's cpu"
    ) as refused:
        run_train(_config(manifest, tmp_path / "run", compile=True))
    assert "\n" not in str(refused.value) and "install a C++ compiler such as g++, or" in str(refused.value)
    assert not (tmp_path / "run").exists()


def test_processes_share_gpus_in_turn() -> None:
    strategy = _share_gpus(3, 2)
    assert [str(device) for device in strategy.parallel_devices or []] == ["cuda:0", "cuda:1", "cuda:0"]
    assert strategy.process_group_backend == "gloo"


def test_sampling_weights_of_the_manifest_decide_the_sampling(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    manifest = write_photos_and_tables(tmp_path, 16, balance="weights")
    given: list[Any] = []

    def sample(positions: Any, weights: Any, seed: int, epoch: int) -> Any:
        given.append(weights)
        return sample_epoch(positions, weights, seed, epoch)

    monkeypatch.setattr(trainer, "sample_epoch", sample)
    recipe = {**SMALL, "epochs": 1}
    run_train(_config(manifest, tmp_path / "balanced", recipe=recipe))
    run_train(_config(manifest, tmp_path / "plain", balance="none", recipe=recipe))
    table = pd.read_parquet(manifest.parent / "sampling_weights.parquet")
    assert given[0].tolist() == table["weight"].tolist() and given[1] is None
    table.assign(weight=1.0).to_parquet(manifest.parent / "sampling_weights.parquet")
    with pytest.raises(TableError, match="sampling_weights"):
        run_train(_config(manifest, tmp_path / "other"))


def test_data_too_small_to_train_on_is_refused(manifest: Path, tmp_path: Path) -> None:
    with pytest.raises(
        SettingsError, match="16 people in train, expected a batch of 17 or more; use a smaller --batch"
    ):
        run_train(_config(manifest, tmp_path / "run", recipe={"batch_size": 17}))
    small = write_photos_and_tables(tmp_path / "small", 2)
    with pytest.raises(TableError, match="no people in val, expected some to pick the best epoch by"):
        run_train(_config(small, tmp_path / "run", recipe={"batch_size": 4}))
    assert not (tmp_path / "run").exists()


def test_people_without_a_photo_are_said_and_counted(tmp_path: Path) -> None:
    manifest = write_photos_and_tables(tmp_path, 16)
    (tmp_path / "photos/framesdb/images/004.jpg").unlink()  # one of train, with two people
    notes: list[str] = []

    class Listening(Silent):
        def note(self, text: str) -> None:
            notes.append(text)

    record = run_train(_config(manifest, tmp_path / "run", recipe={**SMALL, "epochs": 1}), Listening())
    assert notes[0] == "train: 2 of 16 people cannot be used: 2 image_missing, 0 image_unreadable, 0 no_body"
    assert (record.counts["train_people"], record.counts["train_left_out"], record.counts["val_left_out"]) == (14, 2, 0)
    assert read_run(tmp_path / "run").settings["people"]["train"]["image_missing"] == 2


def test_half_precision_trains_and_keeps_full_weights(manifest: Path, tmp_path: Path) -> None:
    run_train(_config(manifest, tmp_path / "run", precision="bf16", recipe={**SMALL, "epochs": 1}))
    assert {value.dtype for value in _weights(tmp_path / "run").values()} == {torch.float32, torch.int64}
    assert math.isfinite(read_run(tmp_path / "run").log()[0]["val_loss"])


def test_missing_and_foreign_folders_are_no_runs(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"run\.json: no such file; .* is not a training run"):
        read_run(tmp_path)
    (tmp_path / "run.json").write_text("{}")
    with pytest.raises(SettingsError, match=r"run\.json: not the description of a run"):
        read_run(tmp_path)
    write_weights(tmp_path / "task2.safetensors", build_model("task2"))
    with pytest.raises(WeightsError, match=r"task2\.safetensors: the weights do not fit"):
        load_weights(build_model("task3"), build_model("task2").state_dict(), tmp_path / "task2.safetensors")


_RUN = {
    "model": "task2",
    "manifest": {"path": "manifest.json", "sha256": "ab"},
    "detector": {},
    "recipe": {},
    "stream_sizes": {"face": 32},
    "shuffle_labels": False,
}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": 5}, "model is 5: input should be a valid string"),
        ({"model": None}, "model is None: input should be a valid string"),
        ({"manifest": "m.json"}, "manifest is 'm.json': input should be a valid dictionary"),
        ({"manifest": {"path": "m.json"}}, "manifest.sha256 is missing"),
        ({"manifest": {"path": ["x"], "sha256": "a"}}, r"manifest.path is \['x'\]: input should be a valid string"),
        ({"detector": []}, r"detector is \[\]: input should be a valid dictionary"),
        ({"recipe": 1}, "recipe is 1: input should be a valid dictionary"),
        ({"stream_sizes": {"face": "32"}}, "stream_sizes.face is '32': input should be a valid integer"),
        ({"stream_sizes": {"face": 10**9}}, "stream_sizes.face is 1000000000: input should be less than"),
        ({"shuffle_labels": "no"}, "shuffle_labels is 'no': input should be a valid boolean"),
        ({"started_from": [{"network": 1}]}, "started_from.0.network is 1: input should be a valid string"),
        ({"versions": "1"}, "versions is '1': input should be a valid dictionary"),
    ],
)
def test_wrong_types_in_the_description_of_a_run_are_named(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    path = tmp_path / "run.json"
    path.write_text(json.dumps(_RUN))
    assert read_run(tmp_path, needs_finished=False).stream_sizes == {"face": 32}
    path.write_text(json.dumps(_RUN | changes))
    with pytest.raises(
        SettingsError, match=rf"run\.json: not the description of a run \({message}.*\); restore the file"
    ):
        read_run(tmp_path)


@pytest.mark.parametrize("text", ["[]", "null", "3", '"x"', "{", "", "\ufeff{}"])
def test_descriptions_of_runs_that_are_none(tmp_path: Path, text: str) -> None:
    (tmp_path / "run.json").write_text(text, encoding="utf-8")
    with pytest.raises(SettingsError, match=r"run\.json: not the description of a run"):
        read_run(tmp_path)


@pytest.mark.parametrize("recipe", [{"epochs": "many"}, {"epochs": -1}, {"unknown": 1}, {"loss": ["bce"]}])
def test_wrong_values_in_the_recipe_of_a_run_are_named(tmp_path: Path, recipe: dict[str, Any]) -> None:
    (tmp_path / "run.json").write_text(json.dumps(_RUN | {"recipe": recipe}))
    with pytest.raises(SettingsError, match=rf"run\.json: recipe: .*{next(iter(recipe))}"):
        read_run(tmp_path)


_EPOCH = {"epoch": 1, "train_losses": {"labels": 1.0}, "val_losses": {"labels": 1.0}, "val_map": None, "seconds": 2}


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (json.dumps(_EPOCH | {"val_map": "0.5"}), "val_map is '0.5': input should be a valid number"),
        (json.dumps(_EPOCH | {"train_losses": [1.0]}), r"train_losses is \[1.0\]: input should be a valid dictionary"),
        (json.dumps({"epoch": 1}), "train_losses is missing"),
        ("[1]", r"\[1\]: input should be a valid dictionary"),
        ('{"epoch": 1, "tra', "not JSON"),
    ],
)
def test_wrong_types_in_the_log_are_named(tmp_path: Path, line: str, message: str) -> None:
    (tmp_path / "run.json").write_text(json.dumps(_RUN))
    (tmp_path / "log.jsonl").write_text(f"{json.dumps(_EPOCH)}\n{line}\n")
    with pytest.raises(SettingsError, match=rf"log\.jsonl: line 2 is not the description of an epoch \({message}"):
        read_run(tmp_path, needs_finished=False).log()


@pytest.mark.parametrize(
    "change",
    [
        lambda state: state.pop("model"),
        lambda state: state.update(model=3),
        lambda state: state.update(model={"stream.face.head.bias": torch.zeros(3)}),
        lambda state: state.update(optimizer=[]),
        lambda state: state["optimizer"]["param_groups"].pop(),
        lambda state: state.update(averaged=None),
        lambda state: state.update(n_updates="x"),
        lambda state: state.update(lines=[{"epoch": "1"}]),
        lambda state: state.update(lines=3),
    ],
)
def test_wrong_values_in_the_state_of_a_training_are_one_line(
    one_epoch: Path, manifest: Path, tmp_path: Path, change: Any
) -> None:
    out = tmp_path / "run"
    shutil.copytree(one_epoch, out)
    state = torch.load(out / "last.pt", weights_only=True)
    change(state)
    torch.save(state, out / "last.pt")
    config = _config(manifest, out, recipe=AVERAGING)
    with pytest.raises(WeightsError, match=r"last\.pt: not the state of (this|a) training.*remove the file to train"):
        run_train(config)
    (out / "last.pt").write_bytes((one_epoch / "last.pt").read_bytes()[:5000])
    with pytest.raises(WeightsError, match=r"last\.pt: not a readable torch file .*remove the file to train"):
        run_train(config)


@pytest.fixture(scope="module")
def one_epoch(manifest: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two epochs that was interrupted before its record; to be copied."""
    out = tmp_path_factory.mktemp("one") / "run"
    run_train(_config(manifest, out, recipe=AVERAGING))
    (out / "records" / "train.json").unlink()
    return out


PROGRAMS = Path(sys.executable).parent
LAUNCHERS = {
    "none": [sys.executable, "-m", "emoface"],
    "torchrun": [str(PROGRAMS / "torchrun"), "--standalone", "--nproc-per-node", "2", "-m", "emoface"],
    "fabric": [str(PROGRAMS / "fabric"), "run", "--accelerator", "cpu", "--devices", "2", str(PROGRAMS / "emoface")],
}


def _shared_words(manifest: Path, out: Path) -> list[str]:
    """The words of a command that trains with ``SHARED``."""
    words = ["train", "--manifest", str(manifest), "--model", "mter2", "--out", str(out), "--pretrained", "none"]
    return [*words, "--batch-size", "8", *SMALL_STREAMS, "--device", "cpu", *SHARED]


def _train_by(launcher: str, manifest: Path, out: Path) -> subprocess.CompletedProcess[str]:
    call = [*LAUNCHERS[launcher], *_shared_words(manifest, out)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(call, capture_output=True, text=True, env=environment, check=False)


# BatchNorm is frozen and dropout off: on the CPU each process counts its own part of a batch. The label weights are of
# the whole batch, not of each process's part.
SHARED = ("--epochs", "2", "--freeze-norms", "--dropout", "0", "--learning-rate", "0.01", "--predict-vad")
SHARED += ("--label-weights", "batch_count")


@pytest.fixture(scope="module")
def trained_alone(manifest: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of one process with ``SHARED``."""
    out = tmp_path_factory.mktemp("alone") / "run"
    ended = CliRunner().invoke(main, _shared_words(manifest, out))
    assert ended.exit_code == 0, ended.stderr
    return out


def _assert_same_training(alone: Path, shared: Path) -> None:
    """The weights, losses and mAP of two runs differ by less than a thousandth of what the training has changed."""
    torch.manual_seed(0)
    start = build_model("mter2", predicts_vad=True).state_dict()
    ours, theirs = _weights(alone), _weights(shared)
    trained = [name for name, _ in build_model("mter2", predicts_vad=True).named_parameters()]
    moved = {name: float((ours[name] - start[name]).abs().max()) for name in trained}
    apart = {name: float((ours[name] - theirs[name]).abs().max()) for name in trained}
    assert all(apart[name] <= 1e-3 * moved[name] + 1e-8 for name in trained)
    assert sum(value > 1e-5 for value in moved.values()) > 150 and moved["stream.face.head.bias"] > 5e-4
    for a, b in zip(_log_without_times(alone), _log_without_times(shared), strict=True):
        assert a["val_losses"] == pytest.approx(b["val_losses"], rel=1e-4)
        assert a["train_losses"] == pytest.approx(b["train_losses"], rel=1e-4)
        assert a["val_map"] == pytest.approx(b["val_map"])


def test_two_processes_give_the_weights_of_one(manifest: Path, trained_alone: Path, tmp_path: Path) -> None:
    two = _train_by("torchrun", manifest, tmp_path / "two")
    assert two.returncode == 0, two.stderr
    _assert_same_training(trained_alone, tmp_path / "two")
    assert two.stdout.count("best epoch") == 1  # only the first process prints
    again = _train_by("fabric", manifest, tmp_path / "again")
    assert again.returncode == 0, again.stderr
    assert file_sha256(tmp_path / "again/best.safetensors") == file_sha256(tmp_path / "two/best.safetensors")


@pytest.fixture
def two_nodes() -> Iterator[list[str]]:
    """Two network namespaces, joined by one cable, in which processes reach each other at 10.77.0.1 and 10.77.0.2.

    The name of a namespace is that of its end of the cable.
    """
    names = [f"emo{os.getpid()}{end}" for end in "ab"]

    def ip(*words: str) -> None:
        subprocess.run(["ip", *words], check=True, capture_output=True, text=True)

    try:
        for name in names:
            ip("netns", "add", name)
        ip("link", "add", names[0], "netns", names[0], "type", "veth", "peer", "name", names[1], "netns", names[1])
        for number, name in enumerate(names, start=1):
            ip("-n", name, "address", "add", f"10.77.0.{number}/24", "dev", name)
            ip("-n", name, "link", "set", name, "up")
            ip("-n", name, "link", "set", "lo", "up")
        yield names
    except FileNotFoundError:
        pytest.skip("the program ip is not installed: Debian's iproute2")
    except subprocess.CalledProcessError as error:
        pytest.skip(f"network namespaces are not permitted, they need root: {error.stderr.strip()}")
    finally:
        if shutil.which("ip"):
            for name in names:
                subprocess.run(["ip", "netns", "delete", name], capture_output=True, check=False)


def _start_node(names: list[str], number: int, arguments: list[str]) -> subprocess.Popen[str]:
    """Starts the torchrun of one node in its namespace."""
    torchrun = [str(PROGRAMS / "torchrun"), "--nnodes", "2", "--node-rank", str(number), "--nproc-per-node", "1"]
    torchrun += ["--master-addr", "10.77.0.1", "--master-port", "29511", "-m", "emoface"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": names[number]}
    call = ["ip", "netns", "exec", names[number], *torchrun, *arguments]
    return subprocess.Popen(call, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_two_nodes_give_the_weights_of_one(
    manifest: Path, trained_alone: Path, two_nodes: list[str], tmp_path: Path
) -> None:
    words = _shared_words(manifest, tmp_path / "run")
    nodes = [_start_node(two_nodes, number, words) for number in (0, 1)]
    try:
        ended = [node.communicate(timeout=300) for node in nodes]
    finally:
        for node in nodes:
            node.kill()
    assert [node.returncode for node in nodes] == [0, 0], ended
    _assert_same_training(trained_alone, tmp_path / "run")
    assert ["best epoch" in stdout for stdout, _ in ended] == [True, False]  # only the first node prints


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="looks for processes in /proc")
@pytest.mark.parametrize("launcher", ["none", "torchrun"])
def test_no_process_outlives_a_killed_training(manifest: Path, tmp_path: Path, launcher: str) -> None:
    out = tmp_path / "run"
    call = [*LAUNCHERS[launcher], "train", "--manifest", str(manifest), "--model", "task2", "--out", str(out)]
    call += ["--pretrained", "none", "--batch-size", "8", *SMALL_STREAMS, "--device", "cpu", "--workers", "2"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    started = subprocess.Popen([*call, "--epochs", "5000"], env=environment, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 120
        while not (out / "log.jsonl").is_file() and started.poll() is None and time.monotonic() < deadline:
            time.sleep(0.2)
        assert len(_processes_of(out)) == (1 if launcher == "none" else 3)
    finally:
        started.kill()
        started.wait()
    deadline = time.monotonic() + 10
    while (left := _processes_of(out)) and time.monotonic() < deadline:
        time.sleep(0.2)
    for process in left:
        os.kill(process, signal.SIGKILL)
    assert not left
    with lock_folder(out):  # its memory is freed before its lock
        pass


def _processes_of(out: Path) -> list[int]:
    """The processes with this folder among their arguments."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            if str(out).encode() in path.read_bytes().split(b"\0"):
                found.append(int(path.parent.name))
    return found


def test_command_says_how_it_goes_and_errors_in_one_line(manifest: Path, tmp_path: Path) -> None:
    words = ["train", "--manifest", str(manifest), "--model", "task2", "--out", str(tmp_path / "run"), *SMALL_STREAMS]
    words += ["--pretrained", "none", "--batch-size", "8", "--workers", "0", "--device", "cpu", "--epochs"]
    ended = CliRunner().invoke(main, [*words, "1"])
    assert ended.exit_code == 0, ended.stderr
    assert re.search(r"epoch 1/1: loss .* val mAP [0-9.]+ \(chance [0-9.]+\)", ended.stderr), ended.stderr
    assert "best epoch: 1" in ended.stdout
    ended = CliRunner().invoke(main, [*words, "2"])
    assert ended.exit_code == 1
    assert "recipe.epochs was 1, now 2" in ended.stderr and "Traceback" not in ended.stderr
    assert json.loads((tmp_path / "run/log.jsonl").read_text())["epoch"] == 1


def test_training_learns_what_the_body_shows_and_nothing_from_shuffled_labels(tmp_path: Path) -> None:
    manifest = write_photos_and_tables(tmp_path, 48)
    recipe = {"epochs": 12, "batch_size": 8, "learning_rate": 0.002, "distort_probability": 0.0, "ema_decay": 0.0}
    config = _config(manifest, tmp_path / "run", preset="modern", recipe=recipe)
    run_train(config)
    lines = read_run(tmp_path / "run").log()
    assert lines[-1]["train_loss"] < 0.5 * lines[0]["train_loss"]
    assert max(line["val_average_precision"][CATEGORIES[LABELS[1]]] for line in lines) > 0.95

    run_train(config.replace(out=tmp_path / "shuffled", shuffle_labels=True))
    assert read_run(tmp_path / "shuffled").has_shuffled_labels
    shown, hidden = _body_probabilities(manifest, tmp_path / "run")
    assert shown.min() > hidden.max() and shown.mean() - hidden.mean() > 0.3
    shown, hidden = _body_probabilities(manifest, tmp_path / "shuffled")
    assert abs(shown.mean() - hidden.mean()) < 0.1
    with pytest.raises(SettingsError, match="shuffle_labels was True, now False"):
        run_train(config.replace(out=tmp_path / "shuffled"))


def _body_probabilities(manifest: Path, out: Path) -> tuple[torch.Tensor, torch.Tensor]:
    """Probabilities of the label that the body shows, of all people who have it and of the others."""
    run, truths, probabilities = read_run(out), [], []
    model = run.load_model()
    for split in SPLITS:
        cache = open_stream_cache(read_manifest(manifest), split)
        batch = load_batch(PeopleDataset.of_model(cache, model, sizes=run.stream_sizes), range(len(cache)))
        with torch.no_grad():
            probabilities.append(model(batch.inputs, batch.has_face).logits[:, LABELS[1]].sigmoid())
        truths.append(batch.labels[:, LABELS[1]] == 1)
    is_shown, all_probabilities = torch.cat(truths), torch.cat(probabilities)
    return all_probabilities[is_shown], all_probabilities[~is_shown]
