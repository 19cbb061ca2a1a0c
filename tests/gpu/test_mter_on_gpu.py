"""Training, evaluation and prediction on a GPU: close to the CPU's, resumed, shared by processes, never waiting."""

from __future__ import annotations

import json
import math
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from mter_data import write_photos_and_tables

from emoface.datasets.manifest import read_manifest
from emoface.datasets.predictions import predictions_path, read_predictions
from emoface.datasets.stream_cache import open_stream_cache
from emoface.errors import TrainingError
from emoface.inference.predictor import load_predictor
from emoface.jobs.evaluate import EvaluateConfig, run_evaluate
from emoface.jobs.predict import PredictConfig, run_predict
from emoface.jobs.train import TrainConfig, run_train
from emoface.mter.dataset import PeopleDataset, iterate_training_batches, load_training_batch, move_ahead
from emoface.mter.runs import read_run
from emoface.mter.sampling import SampleKey
from emoface.mter.trainer import Trainer
from emoface.progress import Silent
from emoface.storage.weights import DEMONSTRATION_DETECTOR
from emoface.vision.images import read_photo

SIZES = {"face": 32, "body": 32, "context": 64}
STEADY: dict[str, Any] = {"epochs": 2, "batch_size": 8, "freezes_norms": True, "dropout": 0.0, "learning_rate": 0.01}
"""A recipe whose results two processes, or another device, give again to a few digits."""


@pytest.fixture(scope="module")
def manifest(device: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_photos_and_tables(tmp_path_factory.mktemp("data"), 24)


@pytest.fixture(scope="module")
def trained(device: str, manifest: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of mter2 on the device; to be read only."""
    out = tmp_path_factory.mktemp("runs") / "mter2"
    run_train(_config(manifest, out, device, recipe={**STEADY, "predicts_vad": True}))
    return out


def _config(manifest: Path, out: Path, device: str, model: str = "mter2", **changes: Any) -> TrainConfig:
    config = TrainConfig(
        manifest=manifest, model=model, out=out, recipe=STEADY, pretrained="none", device=device, workers=1
    )
    return config.replace(**{"context_size": 64, "person_size": 32, **changes})


def _losses(run: Path) -> list[float]:
    return [line[name] for line in read_run(run, needs_finished=False).log() for name in ("train_loss", "val_loss")]


@contextmanager
def _refusing_to_wait(device: str) -> Iterator[None]:
    """Where there is CUDA, everything that makes the CPU wait for the GPU raises an error."""
    if device == "cuda":
        torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        if device == "cuda":
            torch.cuda.set_sync_debug_mode("default")


def test_augmentation_is_that_of_the_cpu(device: str, manifest: Path) -> None:
    cache = open_stream_cache(read_manifest(manifest), "train")
    dataset = PeopleDataset(cache, sizes={"face": 64, "body": 96, "context": 112})
    plan = [[SampleKey(0, 8 * step + k, (step + k) % len(cache)) for k in range(8)] for step in range(4)]
    batches = iterate_training_batches(dataset, plan, workers=2, pins_memory=device == "cuda")
    for keys, batch in zip(plan, move_ahead(batches, torch.device(device)), strict=True):
        expected = load_training_batch(dataset, keys)
        assert batch.index.tolist() == expected.index.tolist() and batch.labels.device.type == device
        for stream, inputs in batch.inputs.items():
            assert inputs.device.type == device and inputs.is_contiguous(memory_format=torch.channels_last)
            assert (inputs.cpu() - expected.inputs[stream]).abs().max() < 1e-3


def test_training_is_that_of_the_cpu(device: str, manifest: Path, trained: Path, tmp_path: Path) -> None:
    run_train(_config(manifest, tmp_path / "cpu", "cpu", recipe={**STEADY, "predicts_vad": True}))
    assert _losses(trained) == pytest.approx(_losses(tmp_path / "cpu"), rel=5e-3)
    weights = read_run(trained).load_model().state_dict()
    assert {value.device.type for value in weights.values()} == {"cpu"}
    assert not [name for name in weights if "_orig_mod" in name]


def test_a_step_does_not_wait_for_the_gpu(
    device: str, manifest: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    take_step, n_steps = Trainer._take_step, 0

    def take_step_without_waiting(self: Trainer, batch: Any, epoch: int, step: int) -> Any:
        nonlocal n_steps
        n_steps += 1
        if epoch < 4:  # the first steps make constants on the GPU and read counters of BatchNorm
            return take_step(self, batch, epoch, step)
        with _refusing_to_wait(device):
            return take_step(self, batch, epoch, step)

    monkeypatch.setattr(Trainer, "_take_step", take_step_without_waiting)
    recipe = {"epochs": 6, "batch_size": 8, "ema_decay": 0.9, "predicts_vad": True, "label_weights": "batch_share"}
    run_train(_config(manifest, tmp_path / "run", device, recipe=recipe))
    assert n_steps == 18


def test_half_precision_learns_too(device: str, manifest: Path, tmp_path: Path) -> None:
    run_train(_config(manifest, tmp_path / "run", device, precision="bf16", recipe={**STEADY, "epochs": 3}))
    lines = read_run(tmp_path / "run").log()
    assert lines[-1]["train_loss"] < lines[0]["train_loss"] and math.isfinite(lines[-1]["val_loss"])
    weights = read_run(tmp_path / "run").load_model().state_dict()
    assert {value.dtype for value in weights.values()} == {torch.float32, torch.int64}


def test_compiled_training_is_that_of_the_plain_network(device: str, manifest: Path, tmp_path: Path) -> None:
    config = _config(manifest, tmp_path / "plain", device, "caer-net-s", preset="caer", recipe={**STEADY, "epochs": 1})
    run_train(config)
    run_train(config.replace(out=tmp_path / "compiled", compile=True))
    assert _losses(tmp_path / "compiled") == pytest.approx(_losses(tmp_path / "plain"), rel=5e-3)
    assert not [name for name in torch.load(tmp_path / "compiled/last.pt")["model"] if "_orig_mod" in name]
    assert read_run(tmp_path / "compiled").settings["compile"] is True


class _StopAfterEpoch(Silent):
    def note(self, text: str) -> None:
        if text.startswith("epoch 1/"):
            raise KeyboardInterrupt


def test_a_stopped_training_resumes_where_it_was(device: str, manifest: Path, trained: Path, tmp_path: Path) -> None:
    config = _config(manifest, tmp_path / "run", device, recipe={**STEADY, "predicts_vad": True})
    with pytest.raises(KeyboardInterrupt):
        run_train(config, _StopAfterEpoch())
    assert len(read_run(config.out, needs_finished=False).log()) == 1
    run_train(config)
    assert _losses(config.out) == pytest.approx(_losses(trained), rel=1e-3)


def test_a_loss_that_is_not_finite_is_named_and_nothing_is_saved(device: str, manifest: Path, tmp_path: Path) -> None:
    recipe = {"epochs": 3, "batch_size": 4, "learning_rate": 1e30, "warmup_epochs": 2.0, "clip_norm": 0.0}
    with pytest.raises(TrainingError, match=r"not finite in epoch 1, step 2: .*people by index: \d+ \d+ \d+ \d+;"):
        run_train(_config(manifest, tmp_path / "run", device, recipe=recipe))
    assert not (tmp_path / "run/last.pt").exists()


def test_predictions_are_those_of_the_cpu(device: str, trained: Path, tmp_path: Path) -> None:
    found = []
    for name, place in (("ours", device), ("theirs", "cpu")):
        run = shutil.copytree(trained, tmp_path / name)
        run_evaluate(EvaluateConfig(run=run, draws=20, device=place, workers=2, batch_size=5))
        found.append(read_predictions(predictions_path(run, "test")))
    assert np.abs(found[0].probabilities - found[1].probabilities).max() < 2e-3
    assert np.abs(found[0].predicted_vad - found[1].predicted_vad).max() < 2e-2


def test_a_photo_is_predicted_as_on_the_cpu(device: str, manifest: Path, trained: Path, tmp_path: Path) -> None:
    photo = Path(read_manifest(manifest).image_root) / "framesdb/images/000.jpg"
    run_predict(
        PredictConfig(
            run=trained,
            images=(photo,),
            out=tmp_path,
            manifest=manifest,
            detector=DEMONSTRATION_DETECTOR,
            device=device,
            backend="torch",
        )
    )
    told = json.loads((tmp_path / "000.json").read_text())
    assert len(told["people"]) == 2
    box = np.array([[10, 10, 80, 115]], np.float32)
    ours, theirs = (
        load_predictor(trained, place, detector=DEMONSTRATION_DETECTOR)
        .predict(read_photo(photo), boxes=box)[0]
        .probabilities
        or {}
        for place in (device, "cpu")
    )
    assert list(ours.values()) == pytest.approx(list(theirs.values()), abs=2e-3)


def test_two_processes_share_one_card(device: str, manifest: Path, trained: Path, tmp_path: Path) -> None:
    program = str(Path(sys.executable).parent / "torchrun")
    call = [program, "--standalone", "--nproc-per-node", "2", "-m", "emoface", "train", "--manifest", str(manifest)]
    call += ["--model", "mter2", "--out", str(tmp_path / "run"), "--pretrained", "none", "--device", device]
    call += ["--context-size", "64", "--person-size", "32", "--epochs", "2", "--batch-size", "8", "--freeze-norms"]
    call += ["--dropout", "0", "--learning-rate", "0.01", "--predict-vad"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    if device == "cuda":
        environment["CUDA_VISIBLE_DEVICES"] = os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0]
    ended = subprocess.run(call, capture_output=True, text=True, env=environment, check=False)
    assert ended.returncode == 0, ended.stderr
    assert _losses(tmp_path / "run") == pytest.approx(_losses(trained), rel=5e-3)
