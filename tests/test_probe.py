"""Frozen features and the probe on them: backbones by name, the arrays and their resumption, the head, the commands."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result
from library_networks import N_FEATURES, SIDE, Tiny, install_libraries
from mter_data import LABELS, write_photos_and_tables
from safetensors.torch import save_file
from scipy.special import expit
from sklearn.linear_model import LogisticRegression
from torch import nn

from emoface.cli import main
from emoface.datasets.manifest import read_manifest
from emoface.datasets.stream_cache import open_stream_cache
from emoface.errors import SettingsError, TableError, WeightsError
from emoface.jobs.evaluate import EvaluateConfig, run_evaluate
from emoface.jobs.features import FeaturesConfig, run_features
from emoface.jobs.probe import ProbeConfig, run_probe
from emoface.jobs.split import SplitConfig, run_split
from emoface.metrics.multilabel import average_precision, mean_average_precision
from emoface.mter import features as feature_files
from emoface.mter import logistic
from emoface.mter.backbones import FrozenBackbone, load_backbone, reload_backbone
from emoface.mter.dataset import PeopleDataset, fit_input
from emoface.mter.forward import forward_people
from emoface.mter.names import IMAGENET_MEAN, IMAGENET_STD
from emoface.mter.probe import FeatureScaler, ProbePeople, fit_probe, predict_probabilities, read_probe, write_probe
from emoface.mter.resnet import ResNet18
from emoface.mter.runs import BEST_NAME, read_run
from emoface.pipeline.stages import CURRENT, JOBS, Stage, check_stage
from emoface.storage.records import read_record
from emoface.vision.arrays import Float32Array
from emoface.vision.crops import Photo


@pytest.fixture(autouse=True)
def libraries(monkeypatch: pytest.MonkeyPatch) -> None:
    install_libraries(monkeypatch)


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_photos_and_tables(tmp_path_factory.mktemp("data"), 64)


def _tiny_file(path: Path, seed: int = 0) -> Path:
    torch.manual_seed(seed)
    torch.save(Tiny(10).state_dict(), path)
    return path


def _call(*words: str | Path) -> Result:
    return CliRunner().invoke(main, [str(word) for word in words])


def test_features_are_the_networks_own_outputs(tmp_path: Path) -> None:
    manifest = write_photos_and_tables(tmp_path, 4)
    torch.manual_seed(3)
    network = ResNet18(n_features=None).eval()
    nn.init.normal_(network.conv1.weight)
    torch.save({**network.state_dict(), "fc.weight": torch.zeros(1000, 512)}, tmp_path / "resnet18.pth")
    config = FeaturesConfig(
        manifest=manifest, backbone="resnet18", weights=str(tmp_path / "resnet18.pth"), streams="face,context"
    )
    record = run_features(config)
    folder = Path(record.info["folder"])
    assert folder.parent == tmp_path / "work" / "stream_cache" and folder.name.startswith("features-")
    cache = open_stream_cache(read_manifest(manifest), "train")
    assert np.load(folder / "train.index.npy").tolist() == cache.people.index.tolist()
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (IMAGENET_MEAN, IMAGENET_STD))
    for stream in ("face", "context"):
        found = np.load(folder / f"train.{stream}.npy")
        assert found.shape == (len(cache), 512) and found.dtype == np.float32
        for position in range(len(cache)):
            square = cache.read(position, stream)
            if square is None:
                assert stream == "face" and not cache.people.has_face[position] and not found[position].any()
                continue
            x = torch.from_numpy(fit_input(square, 224)).permute(2, 0, 1).float() / 255
            with torch.inference_mode():
                expected = network(((x - mean) / std)[None])[0].numpy()
            np.testing.assert_allclose(found[position], expected, rtol=1e-4, atol=1e-4)
    assert not cache.people.has_face.all() and np.load(folder / "train.face.npy").std() > 0
    assert record.info["backbone"]["sha256"] and record.counts["features"] == 512
    assert not (folder / "blocks").exists()


class _Counting:
    """An encoder that counts the squares that it encodes, and stops after some."""

    def __init__(self, encoder: FrozenBackbone, most: int = 10**9) -> None:
        self.encoder, self.most, self.n_squares = encoder, most, 0

    def compute(self, photos: list[Photo]) -> Float32Array:
        if self.n_squares + len(photos) > self.most:
            raise KeyboardInterrupt
        self.n_squares += len(photos)
        return self.encoder.compute(photos)


def test_interrupted_features_continue_and_end_with_the_same_bytes(
    manifest: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feature_files, "BLOCK_SIZE", 8)
    backbone = load_backbone("timm:tiny", "random")
    data = read_manifest(manifest)

    def complete(cache_dir: Path, encoder: _Counting) -> dict[str, bytes]:
        folder = feature_files.find_feature_folder(data, backbone.facts, cache_dir)
        feature_files.complete_features(folder, data, ["train"], ["body", "context"], lambda: encoder)
        return {path.name: path.read_bytes() for path in folder.list_files()}

    whole = _Counting(backbone)
    expected = complete(tmp_path / "whole", whole)
    n_people, n_photos = 64, 32
    assert whole.n_squares == n_people + n_photos  # a context is computed once per photo
    killed = _Counting(backbone, 24)
    with pytest.raises(KeyboardInterrupt):
        complete(tmp_path / "killed", killed)
    block = next((tmp_path / "killed").glob("features-*/blocks/train.body/00001.npy"))
    block.write_bytes(block.read_bytes()[:-4])  # a damaged block is computed again
    resumed = _Counting(backbone)
    assert complete(tmp_path / "killed", resumed) == expected
    assert resumed.n_squares == n_people + n_photos - 24 + 8
    assert sorted(expected) == ["train.body.npy", "train.context.npy", "train.index.npy"]
    again = _Counting(backbone)
    assert complete(tmp_path / "killed", again) == expected and again.n_squares == 0


def test_other_weights_or_another_split_give_other_features(tmp_path: Path) -> None:
    manifest = write_photos_and_tables(tmp_path, 12)

    def run(weights: Path) -> tuple[Path, str]:
        config = FeaturesConfig(manifest=manifest, backbone="timm:tiny", weights=str(weights), streams="body")
        folder = Path(run_features(config).info["folder"])
        return folder, (folder / "train.body.npy").read_bytes().hex()

    first, other = _tiny_file(tmp_path / "a.pth"), _tiny_file(tmp_path / "b.pth", seed=1)
    assert run(first) == run(first)
    assert run(other)[0] != run(first)[0] and run(other)[1] != run(first)[1]
    before = run(first)[0]
    run_split(SplitConfig(dir=tmp_path / "work", by="stratified"))
    assert run(first)[0] != before
    with pytest.raises(TableError, match=r"are not those of .*manifest.json as it is now.*; run 'emoface features'"):
        run_probe(ProbeConfig(manifest=manifest, features=before, out=tmp_path / "run"))


def test_linear_head_is_scikit_learns_logistic_regression() -> None:
    rng = np.random.default_rng(0)
    n, strength = 120, 0.05
    has_face = rng.random(n) < 0.7
    features = {name: rng.normal(2, 3, (n, 5)).astype(np.float32) for name in ("body", "face")}
    features["face"][~has_face] = 0
    labels = np.zeros((n, 26), np.uint8)
    labels[:, 0] = features["body"][:, 1] + rng.normal(0, 3, n) > 2
    labels[:, 7] = has_face ^ (rng.random(n) < 0.1)
    people = ProbePeople(features, has_face, labels)
    probe = fit_probe(people, people, strengths=[strength])
    face, body = features["face"][has_face].astype(float), features["body"].astype(float)
    columns = np.zeros((n, 11))
    columns[has_face, :5] = (face - face.mean(axis=0)) / face.std(axis=0)
    columns[:, 5:10] = (body - body.mean(axis=0)) / body.std(axis=0)
    columns[:, 10] = (has_face - has_face.mean()) / has_face.std()
    np.testing.assert_allclose(probe.scaler.transform(features, has_face), columns, atol=1e-6)
    found = probe.probabilities(features, has_face)
    for label in (0, 7):
        reference = LogisticRegression(C=1 / (strength * n), tol=1e-8, max_iter=1000).fit(columns, labels[:, label])
        np.testing.assert_allclose(found[:, label], reference.predict_proba(columns)[:, 1], atol=1e-4)
    assert found[:, 3].max() < 0.01  # nobody has it


@pytest.mark.parametrize(("n", "width"), [(100, 200), (200, 40)], ids=["more columns than people", "fewer"])
def test_heads_of_uneven_columns_are_the_solutions_at_every_strength(
    n: int, width: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logistic, "_N_DIRECTIONS", 20)  # most directions count as one
    rng = np.random.default_rng(6)
    columns = rng.normal(size=(n, width)) * np.geomspace(10, 0.03, width)
    columns = columns @ np.linalg.qr(rng.normal(size=(width, width)))[0]
    columns -= columns.mean(axis=0)
    truth = (columns[:, :3] + rng.normal(0, 2, (n, 3)) > 1).astype(float)
    strengths = (1.0, 0.03, 0.003)
    for strength, fit in zip(strengths, logistic.fit_logistic(columns, truth, strengths), strict=True):
        assert fit.has_converged and fit.n_iterations < 100
        for label in range(3):
            reference = LogisticRegression(C=1 / (strength * n), solver="newton-cholesky", tol=1e-10, max_iter=100).fit(
                columns, truth[:, label]
            )
            found = expit(columns @ fit.weights[:, label] + fit.biases[label])
            np.testing.assert_allclose(found, reference.predict_proba(columns)[:, 1], atol=5e-4)


def test_head_that_has_not_converged_is_told(manifest: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logistic, "MAX_ITERATIONS", 2)
    words = ("--backbone", "timm:tiny", "--weights", "random", "--cache", tmp_path / "cache", "--out", tmp_path / "run")
    answer = _call("probe", "--manifest", manifest, *words, "--strengths", "1e-6")
    assert answer.exit_code == 0, answer.output
    assert re.search(r"strength 1e-06 has not converged after 2 iterations \(gradient \d\.\de-\d\d", answer.output)
    (trial,) = read_run(tmp_path / "run").settings["probe"]["trials"]
    assert (trial["iterations"], trial["has_converged"]) == (2, False) and trial["gradient"] > 1e-5


def _people(rng: np.random.Generator, n: int, noise: float, width: int = 40) -> ProbePeople:
    body = rng.normal(size=(n, width)).astype(np.float32)
    labels = np.zeros((n, 26), np.uint8)
    labels[:, 4] = body[:, :3].sum(axis=1) + rng.normal(0, noise, n) > 0.5
    labels[:, 9] = rng.random(n) < 0.3
    return ProbePeople({"body": body}, np.ones(n, bool), labels)


def test_strength_with_the_best_map_on_val_is_chosen() -> None:
    rng = np.random.default_rng(1)
    train, val = _people(rng, 60, 1.0), _people(rng, 300, 1.0)
    strengths = [1e-4, 0.1, 100.0, 0.1]
    probe = fit_probe(train, val, strengths=strengths)
    assert [one.strength for one in probe.trials] == [100.0, 0.1, 1e-4]
    for trial in probe.trials:
        alone = fit_probe(train, val, strengths=[trial.strength])
        assert alone.trials[0].val_map == pytest.approx(trial.val_map, abs=0.01)  # whatever was fitted before it
    best = max(probe.trials, key=lambda one: one.val_map)
    assert probe.strength == best.strength and probe.is_at_edge == (best.strength != 0.1)
    precision = average_precision(val.labels, probe.probabilities(val.features, val.has_face))
    assert mean_average_precision(precision) == pytest.approx(best.val_map, abs=1e-6)
    assert probe.trials[0].train_loss > probe.trials[-1].train_loss


@pytest.mark.parametrize("kind", ["linear", "mlp"])
def test_probe_finds_what_the_features_hold_and_nothing_else(kind: Any) -> None:
    rng = np.random.default_rng(2)
    train, val, test = (_people(rng, n, 0.1) for n in (500, 200, 1000))
    probe = fit_probe(train, val, strengths=[0.1, 0.01], kind=kind, hidden=64, epochs=60)
    precision = average_precision(test.labels, probe.probabilities(test.features, test.has_face))
    assert precision[4] > 0.93
    assert precision[9] == pytest.approx(test.labels[:, 9].mean(), abs=0.06)
    mixed = ProbePeople(train.features, train.has_face, train.labels[rng.permutation(500)])
    shuffled = fit_probe(mixed, val, strengths=[0.1, 0.01], kind=kind, hidden=64, epochs=60)
    by_chance = average_precision(test.labels, shuffled.probabilities(test.features, test.has_face))
    assert by_chance[4] < test.labels[:, 4].mean() + 0.2 < precision[4]


def test_probe_is_read_as_it_was_written_and_damage_is_named(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    people = _people(rng, 50, 0.5)
    both = ProbePeople({**people.features, "face": people.features["body"][:, :4]}, rng.random(50) < 0.5, people.labels)
    probe = fit_probe(both, both, strengths=[0.1])
    write_probe(tmp_path / "head.safetensors", probe.scaler, probe.head)
    scaler, head = read_probe(tmp_path / "head.safetensors")
    columns = scaler.transform(both.features, both.has_face)
    np.testing.assert_array_equal(columns, probe.scaler.transform(both.features, both.has_face))
    np.testing.assert_array_equal(head.logits(columns), probe.head.logits(columns))
    save_file({"scaler.body.mean": torch.zeros(4)}, tmp_path / "other.safetensors")
    with pytest.raises(WeightsError, match=r"other.safetensors: not the head of a probe"):
        read_probe(tmp_path / "other.safetensors")
    (tmp_path / "cut.safetensors").write_bytes((tmp_path / "head.safetensors").read_bytes()[:100])
    with pytest.raises(WeightsError, match=r"cut.safetensors: not a readable safetensors file"):
        read_probe(tmp_path / "cut.safetensors")


def test_nobody_and_constant_columns_are_ordinary() -> None:
    scaler = FeatureScaler.fit({"body": np.full((3, 2), 7, np.float32)}, np.zeros(3, bool))
    assert scaler.transform({"body": np.full((2, 2), 8, np.float32)}, np.zeros(2, bool)).tolist() == [[1, 1], [1, 1]]
    assert scaler.transform({"body": np.zeros((0, 2), np.float32)}, np.zeros(0, bool)).shape == (0, 2)
    people = _people(np.random.default_rng(0), 20, 1.0)
    with pytest.raises(TableError, match="nobody of val has a label"):
        fit_probe(people, ProbePeople(people.features, people.has_face, np.zeros((20, 26), np.uint8)))


@pytest.mark.usefixtures("plain_charts")
def test_probe_run_is_evaluated_compared_verified_and_not_predicted(manifest: Path, tmp_path: Path) -> None:
    weights = _tiny_file(tmp_path / "tiny.pth")
    answer = _call("features", "--manifest", manifest, "--backbone", "timm:tiny", "--weights", weights)
    assert answer.exit_code == 0, answer.output
    features = Path(answer.stdout.splitlines()[-1].removeprefix("features: "))
    weights.unlink()  # the stored features are enough
    for name, more in (("probe", ()), ("shuffled", ("--shuffle-labels",)), ("face", ("--streams", "face"))):
        out = tmp_path / name
        answer = _call("probe", "--manifest", manifest, "--features", features, "--out", out, *more)
        assert answer.exit_code == 0, answer.output
        if name != "shuffled":
            answer = _call("evaluate", out, "--draws", "20")
            assert answer.exit_code == 0, answer.output
    metrics = {name: json.loads((tmp_path / name / "eval/test/metrics.json").read_text()) for name in ("probe", "face")}
    val_maps = {name: read_run(tmp_path / name).settings["probe"]["val_map"] for name in ("probe", "shuffled")}
    per_label = list(metrics["probe"]["per_label"].values())
    assert all(per_label[label]["average_precision"] > 0.9 for label in LABELS)
    assert val_maps["shuffled"] < val_maps["probe"] - 0.1
    assert metrics["face"]["people"]["left_out"]["no_face"] > 0 and not metrics["probe"]["people"]["left_out"].get(
        "no_face"
    )
    assert metrics["probe"]["model"] == "probe of timm:tiny, weights tiny.pth"
    answer = _call(
        "compare", tmp_path / "probe", tmp_path / "shuffled", "--out", tmp_path / "compared", "--draws", "20"
    )
    assert answer.exit_code == 0, answer.output
    assert "probe of timm:tiny, weights tiny.pth" in (tmp_path / "compared/comparison.html").read_text()
    assert _call("verify", tmp_path / "probe").output.count("Difference") == 0
    assert (
        "this probe is current"
        in _call("probe", "--manifest", manifest, "--features", features, "--out", tmp_path / "probe").output
    )
    answer = _call("predict", tmp_path / "probe", "photo.jpg", "--boxes", "10,10,80,115")
    assert answer.exit_code == 1 and "tiny.pth: no such weight file" in answer.stderr


@pytest.mark.parametrize("streams", ["all", "face", "body,context"])
def test_probe_on_photos_is_the_probe_on_features(streams: str, manifest: Path, tmp_path: Path) -> None:
    weights = _tiny_file(tmp_path / "tiny.pth")
    config = ProbeConfig(
        manifest=manifest,
        backbone="timm:tiny",
        weights=str(weights),
        streams=streams,
        out=tmp_path / "run",
        cache=tmp_path / "cache",
        head="mlp" if streams == "all" else "linear",
        hidden=5,
        strengths="0.01",
    )
    run_probe(config)
    run = read_run(tmp_path / "run")
    data = read_manifest(manifest)
    model = run.load_model()
    cache = open_stream_cache(data, "val", tmp_path / "cache")
    positions = np.flatnonzero(model.select_people(cache.people.has_face))
    found = forward_people(model, PeopleDataset.of_model(cache, model, sizes=run.stream_sizes), positions)
    folder = feature_files.find_feature_folder(data, run.backbone, tmp_path / "cache")
    features = folder.read("val", model.streams, cache.people)
    expected = predict_probabilities(
        *read_probe(tmp_path / "run" / BEST_NAME),
        {stream: array[positions] for stream, array in features.items()},
        cache.people.has_face[positions],
    )
    np.testing.assert_allclose(found.probabilities, expected, atol=1e-4)
    assert expected.std(axis=0).max() > 0.05 and len(positions) > 5
    image = data.photos.root / cache.people.images[0]
    answer = _call("predict", tmp_path / "run", image, "--boxes", "10,10,80,115", "--out", tmp_path / "predicted")
    assert answer.exit_code == 0 or "no weights" in answer.stderr, answer.output
    answer = _call("explain", tmp_path / "run", "--index", cache.people.index[positions[0]], "--out", tmp_path / "maps")
    assert answer.exit_code == 1 and "a probe has no last feature map that is known" in answer.stderr


@pytest.mark.usefixtures("plain_charts")
def test_random_weights_are_named_everywhere(manifest: Path, tmp_path: Path) -> None:
    config = FeaturesConfig(manifest=manifest, backbone="timm:tiny", weights="random", cache=tmp_path / "cache")
    record = run_features(config)
    assert record.counts["backbone"] == "timm:tiny, random weights"
    out = tmp_path / "run"
    source = {"backbone": "timm:tiny", "weights": "random", "cache": tmp_path / "cache"}
    config_of_probe = ProbeConfig(manifest=manifest, out=out, strengths="1,0.1", **source)
    run_probe(config_of_probe)
    stage = Stage("probe", "probe", JOBS["probe"], config_of_probe, out)
    assert check_stage(stage).state == CURRENT
    changed = Stage("probe", "probe", JOBS["probe"], config_of_probe.replace(strengths=(1,)), out)
    assert check_stage(changed).reasons == ("strengths was [1.0, 0.1], is [1.0]",)
    assert len(list((tmp_path / "cache").glob("features-*"))) == 1  # the backbone's features were there
    assert _call("evaluate", out, "--draws", "20").exit_code == 0
    page = (out / "eval/test/evaluation.html").read_text()
    assert "timm:tiny, random weights" in page and "randomly initialised weights" in page
    assert json.loads((out / "eval/test/metrics.json").read_text())["model"] == "probe of timm:tiny, random weights"
    run = read_run(out)
    assert run.settings["probe"]["strength"] in (1, 0.1) and len(run.settings["probe"]["trials"]) == 2
    assert read_record(out, "probe") is not None and run.is_finished
    run_features(config.replace(seed=1))
    assert len(list((tmp_path / "cache").glob("features-*"))) == 2


def test_libraries_give_input_size_normalisation_and_features(tmp_path: Path) -> None:
    torch.manual_seed(5)
    whole = Tiny(1000)
    torch.save(whole.state_dict(), tmp_path / "tiny.pth")
    save_file({f"visual.{name}": value for name, value in whole.state_dict().items()}, tmp_path / "clip.safetensors")
    photo = np.random.default_rng(0).integers(0, 256, (SIDE, SIDE, 3), np.uint8)
    expected: dict[str, tuple[str, tuple[float, ...], tuple[float, ...]]] = {
        "timm:tiny": ("tiny.pth", (0.5,) * 3, (0.25,) * 3),
        "torchvision:tiny": ("tiny.pth", (0.1, 0.2, 0.3), (1, 2, 4)),
        "open_clip:ViT-T": ("clip.safetensors", (0.4,) * 3, (0.3,) * 3),
    }
    for name, (file, mean, std) in expected.items():
        backbone = load_backbone(name, str(tmp_path / file))
        facts = backbone.facts
        assert (facts.input_size, facts.mean, facts.std, facts.n_features) == (SIDE, mean, std, N_FEATURES)
        x = torch.from_numpy(photo).permute(2, 0, 1).float() / 255
        x = (x - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(std).view(3, 1, 1)
        with torch.inference_mode():
            features = whole.mix(whole.pool(x[None]).flatten(1)).numpy()
        np.testing.assert_allclose(backbone.compute([photo]), features, rtol=1e-5)
        assert reload_backbone(facts).facts == facts
    before = load_backbone("timm:tiny", str(tmp_path / "tiny.pth")).facts
    torch.save(Tiny(3).state_dict(), tmp_path / "tiny.pth")
    with pytest.raises(WeightsError, match=r"tiny.pth: the weights or the settings of timm:tiny have changed since"):
        reload_backbone(before)


@pytest.mark.usefixtures("plain_charts")
def test_probe_is_evaluated_on_another_data_set_with_the_same_backbone_alone(manifest: Path, tmp_path: Path) -> None:
    weights, run = _tiny_file(tmp_path / "tiny.pth"), tmp_path / "run"
    run_probe(
        ProbeConfig(
            manifest=manifest, backbone="timm:tiny", weights=str(weights), streams="body", strengths="0.01", out=run
        )
    )
    other = write_photos_and_tables(tmp_path, 12)
    record = run_evaluate(EvaluateConfig(run=run, manifest=other, draws=1))
    assert record.counts["people"] == 6
    (folder,) = (other.parent / "stream_cache").glob("features-*")
    assert sorted(path.name for path in folder.iterdir()) == ["test.body.npy", "test.index.npy"]
    assert json.loads((run / "eval/thresholds.json").read_text())["is_own"] is True
    _tiny_file(weights, seed=1)
    with pytest.raises(WeightsError, match=r"tiny.pth: the weights or the settings of timm:tiny have changed since"):
        run_evaluate(EvaluateConfig(run=run, manifest=other, split="val", draws=1))


def test_random_weights_depend_on_the_seed_alone() -> None:
    torch.manual_seed(8)
    state = torch.get_rng_state()
    first, again, other = (load_backbone("timm:tiny", "random", seed=seed).facts for seed in (0, 0, 1))
    assert first == again and first.sha256 != other.sha256
    assert torch.equal(torch.get_rng_state(), state)


def test_public_mobilenet_fills_the_whole_network(shared_dir: Path) -> None:
    path = shared_dir / "weights/imagenet/mobilenet_v2-imagenet-int8.pth"
    if not path.is_file():
        pytest.skip("the public weights are not here")
    backbone = load_backbone("mobilenet_v2", str(path))
    assert backbone.facts.n_features == 1280 and backbone.facts.n_parameters == 2_223_872
    photo = np.random.default_rng(0).integers(0, 256, (224, 224, 3), np.uint8)
    features = backbone.compute([photo, photo[:, ::-1]])
    assert features.shape == (2, 1280) and features.min() >= 0 and 0.1 < features.std() < 2


@pytest.mark.parametrize(
    ("backbone", "weights", "message"),
    [
        ("resnet19", "random", "no backbone is called 'resnet19'; did you mean 'resnet18'?"),
        ("keras:x", "random", "no backbone is called 'keras:x'"),
        ("timm:", "random", "no backbone is called 'timm:'"),
        ("timm:huge", "random", "does not build 'huge' (Unknown model (huge)); check the name"),
        ("torchvision:huge", "random", "does not build 'huge' (Unknown model huge)"),
        ("open_clip:ViT-T", "library", "does not say which weights; name their tag"),
        ("timm:tiny", "nowhere.pth", "nowhere.pth: no such weight file; give a file, or 'library' or 'random'"),
        ("resnet18", "tiny.pth", "tiny.pth: the tensor conv1.weight of resnet18 is missing, expected (64, 3, 7, 7)"),
    ],
)
def test_wrong_backbones_are_one_error_line(
    backbone: str, weights: str, message: str, manifest: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    _tiny_file(tmp_path / "tiny.pth")
    answer = _call("features", "--manifest", manifest, "--backbone", backbone, "--weights", weights)
    assert answer.exit_code == 1
    assert answer.stderr.splitlines()[-1].startswith("Error: ") and message in answer.stderr


@pytest.mark.parametrize(("library", "extra"), [("timm", "timm"), ("torchvision", "timm"), ("open_clip", "clip")])
def test_missing_or_broken_library_is_one_error_line(
    library: str, extra: str, manifest: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ("features", "--manifest", manifest, "--backbone", f"{library}:x", "--weights", "random")
    monkeypatch.setitem(sys.modules, library, None)
    answer = _call(*words)
    assert answer.exit_code == 1
    assert answer.stderr.splitlines()[-1] == (
        f"Error: this needs the package {library}, which is not installed; install it with pip install "
        f"'emoface[{extra}]'"
    )
    (tmp_path / f"{library}.py").write_text("raise RuntimeError('operator torchvision::nms does not exist')")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, library)
    answer = _call(*words)
    assert answer.exit_code == 1 and "cannot be imported beside torch" in answer.stderr
    assert "operator torchvision::nms does not exist" in answer.stderr


def test_wrong_settings_of_a_probe_are_named(manifest: Path, tmp_path: Path) -> None:
    config: Callable[..., ProbeConfig] = lambda **more: ProbeConfig(  # noqa: E731
        **{"manifest": manifest, "features": tmp_path, "out": tmp_path / "run", **more}
    )
    with pytest.raises(SettingsError, match=r"has no finished features; make them with 'emoface features'"):
        run_probe(config())
    with pytest.raises(SettingsError, match=r"strengths are '1,-2', expected numbers above 0"):
        config(strengths="1,-2")
    with pytest.raises(SettingsError, match=r"no stream is called 'hand'"):
        config(streams="hand")
    with pytest.raises(SettingsError, match="give either the folder of the features, or a backbone together with its"):
        config(backbone="timm:tiny")
    with pytest.raises(SettingsError, match="give either the folder of the features, or a backbone together with its"):
        config(features=None, backbone="timm:tiny")
    record = run_features(
        FeaturesConfig(
            manifest=manifest, backbone="timm:tiny", weights="random", streams="body", cache=tmp_path / "cache"
        )
    )
    with pytest.raises(SettingsError, match=r"has no features of face, found body"):
        run_probe(config(features=record.info["folder"], streams="face,body"))
    (tmp_path / "run").mkdir()
    (tmp_path / "run/log.jsonl").write_text("")
    with pytest.raises(SettingsError, match=r"run: holds the run of a training; choose another --out"):
        run_probe(config(features=record.info["folder"]))
    path = Path(record.info["folder"]) / "train.body.npy"
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(TableError, match=r"train.body.npy: not a readable NumPy file .*delete it"):
        run_probe(config(features=record.info["folder"], out=tmp_path / "other"))
