"""Networks of libraries as backbones of streams: setting, weights, training, what is rebuilt from a run, errors."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from click.testing import CliRunner, Result
from library_networks import N_FEATURES, PRETRAINED_WEIGHT, SIDE, Tiny, install_libraries
from mter_data import write_photos_and_tables
from torch import nn

from emoface.cli import main
from emoface.datasets.manifest import read_manifest
from emoface.datasets.stream_cache import open_stream_cache
from emoface.errors import SettingsError, WeightsError
from emoface.jobs.evaluate import EvaluateConfig, run_evaluate
from emoface.jobs.export import ExportConfig, run_export
from emoface.jobs.train import TrainConfig, run_train
from emoface.mter.cost import measure_cost
from emoface.mter.dataset import PeopleDataset
from emoface.mter.exported import read_model_folder
from emoface.mter.forward import forward_people
from emoface.mter.library_backbone import LibraryBackbone
from emoface.mter.names import IMAGENET_MEAN, IMAGENET_STD
from emoface.mter.networks import build_model, build_recipe_model
from emoface.mter.onnx_files import write_onnx
from emoface.mter.recipe import Recipe
from emoface.mter.resnet import ResNet18
from emoface.mter.runs import read_run
from emoface.mter.stream_networks import load_stream_networks
from emoface.pipeline.definition import read_pipeline_file
from emoface.pipeline.stages import to_stage
from emoface.schema import CATEGORIES
from emoface.storage.files import file_sha256

BOTH = ("face=timm:tiny_norm", "context=open_clip:ViT-T")


@pytest.fixture(autouse=True)
def libraries(monkeypatch: pytest.MonkeyPatch) -> None:
    install_libraries(monkeypatch)


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_photos_and_tables(tmp_path_factory.mktemp("data"), 16)


def _config(manifest: Path, out: Path, **changes: Any) -> TrainConfig:
    config = TrainConfig(
        manifest=manifest,
        model="task1+task3",
        backbone=BOTH,
        out=out,
        recipe={"epochs": 1, "batch_size": 8, "learning_rate": 0.1, "warmup_epochs": 0},
        pretrained=("none",),
        workers=0,
        device="cpu",
    )
    return config.replace(**changes)


@pytest.fixture(scope="module")
def trained(manifest: Path, tmp_path_factory: pytest.TempPathFactory) -> TrainConfig:
    """A finished run; to be read only."""
    torch.set_num_threads(1)
    config = _config(manifest, tmp_path_factory.mktemp("runs") / "run")
    with pytest.MonkeyPatch.context() as patch:
        install_libraries(patch)
        run_train(config)
    return config


def _call(*words: str | Path) -> Result:
    return CliRunner().invoke(main, [str(word) for word in words])


def test_photo_is_normalised_as_the_library_does() -> None:
    mean, std = (0.4, 0.5, 0.6), (0.1, 0.2, 0.3)
    backbone = LibraryBackbone("x", nn.Flatten(), 3 * 4, mean, std)
    photo = torch.rand(2, 3, 2, 2)

    def normalise(means: tuple[float, ...], deviations: tuple[float, ...]) -> torch.Tensor:
        shape = (1, 3, 1, 1)
        return (photo - torch.tensor(means).view(shape)) / torch.tensor(deviations).view(shape)

    ours = normalise(IMAGENET_MEAN, IMAGENET_STD)
    torch.testing.assert_close(backbone(ours), normalise(mean, std).flatten(1), rtol=0, atol=1e-5)
    assert torch.equal(LibraryBackbone("x", nn.Flatten(), 12, IMAGENET_MEAN, IMAGENET_STD)(ours), ours.flatten(1))
    assert not backbone.state_dict()


def test_one_person_alone_trains_with_running_statistics() -> None:
    torch.manual_seed(0)
    (one,) = load_stream_networks("task3", {"context": "timm:tiny_norm"}, ("none",)).values()
    backbone = one.backbone.train()
    norm = backbone.get_submodule("network.norm")
    x = torch.rand(1, 3, SIDE, SIDE)
    assert torch.isfinite(backbone(x)).all() and norm.training and not norm.running_mean.any()
    backbone(torch.rand(2, 3, SIDE, SIDE))
    assert norm.running_mean.any()


class _TwoOutputs(nn.Flatten):
    """A network with a second output in training, as Inception has."""

    def forward(self, x: torch.Tensor) -> Any:
        features = super().forward(x)
        return (features, features) if self.training else features


def test_network_with_two_outputs_in_training_is_refused() -> None:
    backbone = LibraryBackbone("x", _TwoOutputs(), 12, IMAGENET_MEAN, IMAGENET_STD)
    with pytest.raises(SettingsError, match="x returns tuple in training, expected one row of features per photo"):
        backbone.train()(torch.rand(2, 3, 2, 2))


def test_training_changes_every_part_and_the_run_says_what_it_was(trained: TrainConfig) -> None:
    run = read_run(trained.out)
    start = load_stream_networks(
        "task1+task3", {"face": "timm:tiny_norm", "context": "open_clip:ViT-T"}, ("none",), seed=trained.seed
    )
    model = run.load_model()
    for stream, one in start.items():
        now = model.backbones()[stream].state_dict()
        before = one.backbone.state_dict()
        assert now.keys() == before.keys()
        assert not any(torch.equal(now[name], before[name]) for name in before), stream
    assert run.settings["backbones"]["face"] == {
        "name": "timm:tiny_norm",
        "software": run.settings["backbones"]["face"]["software"],
        "input_size": SIDE,
        "mean": [0.5] * 3,
        "std": [0.25] * 3,
        "n_features": N_FEATURES,
    }
    assert run.settings["backbones"]["face"]["software"].startswith("timm ")
    assert run.stream_sizes == {"face": SIDE, "body": 128, "context": SIDE}
    assert run.title == "task1+task3 (face timm:tiny_norm, context open_clip:ViT-T)"
    assert run.settings["started_from"] == []
    fusion = model.get_submodule("fusion.reduce")
    assert isinstance(fusion, nn.Linear) and fusion.in_features == 2 * N_FEATURES


def test_evaluation_and_export_rebuild_the_trained_network(
    trained: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("emoface.reporting.evaluation.write_evaluation_charts", lambda *_: [])
    monkeypatch.setattr("emoface.reporting.evaluation.write_evaluation_page", lambda path, *_: path.write_text(""))
    run = read_run(shutil.copytree(trained.out, tmp_path / "run"))
    run_evaluate(EvaluateConfig(run=run.path, draws=1, device="cpu"))
    (predictions,) = run.path.glob("eval/**/predictions.parquet")
    table = pd.read_parquet(predictions).sort_values("index")
    cache = open_stream_cache(read_manifest(trained.manifest), "test")
    model = run.load_model()
    dataset = PeopleDataset.of_model(cache, model, sizes=run.stream_sizes)
    positions = np.arange(len(cache))
    expected = forward_people(model, dataset, positions).probabilities[np.argsort(cache.people.index)]
    np.testing.assert_allclose(np.stack(table["probabilities"]), expected, rtol=0, atol=1e-6)
    assert expected.std(axis=0).max() > 1e-4

    run_export(ExportConfig(run=run.path, format="folder", out=tmp_path / "folder"))
    exported = read_model_folder(tmp_path / "folder")
    assert exported.backbones == run.backbones
    found = forward_people(exported.load_model(), dataset, positions).probabilities
    np.testing.assert_array_equal(found[np.argsort(cache.people.index)], expected)
    card = (tmp_path / "folder/README.md").read_text()
    assert "Network of the face: `timm:tiny_norm`, built by timm " in card
    run_export(ExportConfig(run=run.path, out=tmp_path / "model.onnx"))


def test_finished_run_is_left_alone_and_another_network_is_refused(trained: TrainConfig) -> None:
    before = file_sha256(trained.out / "run.json")
    run_train(trained)
    assert file_sha256(trained.out / "run.json") == before
    with pytest.raises(SettingsError, match=r"backbones.face.name was 'timm:tiny_norm', now 'timm:tiny'"):
        run_train(trained.replace(backbone=("face=timm:tiny", BOTH[1])))
    with pytest.raises(SettingsError, match=r"backbones.face.name was 'timm:tiny_norm', now None"):
        run_train(trained.replace(backbone=(BOTH[1],)))


def test_missing_library_and_unknown_maps_are_one_line(trained: TrainConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    answer = _call("explain", trained.out, "--index", "0", "--device", "cpu")
    assert answer.exit_code == 1 and len(answer.stderr.splitlines()) == 1
    assert "which layer of timm:tiny_norm has its last feature map is not known" in answer.stderr
    monkeypatch.setitem(sys.modules, "open_clip", None)
    answer = _call("evaluate", trained.out, "--device", "cpu")
    assert answer.exit_code == 1 and answer.stderr.splitlines()[-1] == (
        "Error: this needs the package open_clip, which is not installed; install it with pip install 'emoface[clip]'"
    )


def test_weights_are_of_the_library_of_a_file_or_random(tmp_path: Path) -> None:
    names = {"context": "timm:tiny"}
    torch.save(Tiny(10).state_dict(), tmp_path / "tiny.pth")
    wanted = torch.load(tmp_path / "tiny.pth")
    for source in ("auto", "library", "context=library"):
        (one,) = load_stream_networks("task3", names, (source,)).values()
        assert (one.backbone.get_parameter("network.mix.weight") == PRETRAINED_WEIGHT).all()
        assert one.taken is not None and one.taken.source.startswith("timm:tiny, weights of timm ")
        assert len(one.taken.sha256) == 64 and one.taken.n_parameters == N_FEATURES * (N_FEATURES + 1)
    (one,) = load_stream_networks("task3", names, (f"context={tmp_path / 'tiny.pth'}",)).values()
    assert torch.equal(one.backbone.get_parameter("network.mix.weight"), wanted["mix.weight"])
    assert one.taken is not None and one.taken.source == "tiny.pth"
    assert one.taken.sha256 == file_sha256(tmp_path / "tiny.pth")
    assert one.taken.unused == ("head.bias", "head.weight") and one.taken.not_taken == ()
    weights = [
        load_stream_networks("task3", names, ("none",), seed=seed)["context"].backbone.get_parameter("network.mix.bias")
        for seed in (0, 0, 1)
    ]
    assert torch.equal(weights[0], weights[1]) and not torch.equal(weights[0], weights[2])


def test_own_networks_by_name_keep_their_maps_sizes_and_public_weights() -> None:
    networks = load_stream_networks("task1+task3", {"face": "resnet18"}, ("none",))
    assert networks["face"].facts.input_size is None and networks["face"].taken is None
    model = build_recipe_model("task1+task3", Recipe(), backbones={"face": networks["face"].backbone})
    backbone = model.backbones()["face"]
    assert isinstance(backbone, ResNet18) and backbone.n_features == 512
    assert model.last_maps()["face"] is backbone.layer4
    (fusion,) = (part for name, part in model.named_modules() if name == "fusion.reduce")
    assert isinstance(fusion, nn.Linear) and fusion.in_features == 512 + 1000


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--backbone", "timm:tiny"), "backbone is 'timm:tiny', expected STREAM=NAME such as context=timm:resnet50"),
        (("--backbone", "hand=timm:tiny"), "backbone is 'hand=timm:tiny', expected STREAM=NAME"),
        (
            ("--backbone", "context=timm:tiny", "--backbone", "context=resnet18"),
            "gives the context stream two networks",
        ),
        (("--backbone", "context=timm:huge"), "does not build 'huge' (Unknown model (huge)); check the name"),
        (("--backbone", "context=resnet19"), "no backbone is called 'resnet19'; did you mean 'resnet18'?"),
        (("--backbone", "face=timm:tiny"), "backbone is face=timm:tiny, but task3 has the streams context"),
        (("--backbone", "context=timm:tiny", "--model", "kosti"), "the networks of kosti cannot be replaced"),
        (
            ("--backbone", "context=timm:tiny_fixed", "--context-size", "64"),
            "timm:tiny_fixed does not take inputs of 64 x 64 pixels (Input height (64) doesn't match model (16).); "
            "leave out --context-size: its own side is 16",
        ),
        (("--backbone", "context=timm:tiny", "--pretrained", "imagenet"), "which the imagenet files of emoface do not"),
        (("--backbone", "context=timm:tiny", "--pretrained", "context=no.pth"), "no.pth: no such weight file"),
        (
            ("--backbone", "context=timm:tiny_norm", "--pretrained", "context=tiny.pth"),
            "tiny.pth: the tensor norm.weight",
        ),
        (("--backbone", "context=open_clip:ViT-T"), "does not say which weights; name their tag"),
        (
            ("--backbone", "context=open_clip:ViT-T@openai"),
            "open_clip:ViT-T@openai without the library's weights is another network than with them",
        ),
    ],
)
def test_what_does_not_fit_is_one_error_line(
    words: tuple[str, ...], message: str, manifest: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save(Tiny(10).state_dict(), tmp_path / "tiny.pth")
    answer = _call("train", "--manifest", manifest, "--model", "task3", "--out", "run", "--device", "cpu", *words)
    assert answer.exit_code == 1
    assert answer.stderr.splitlines()[-1].startswith("Error: ") and message in answer.stderr
    assert not (tmp_path / "run/run.json").exists()


def test_backbones_that_a_model_cannot_take_are_refused() -> None:
    with pytest.raises(SettingsError, match="a backbone is given for 'body', a stream whose network kosti cannot"):
        build_model("kosti", backbones={"body": ResNet18()})
    with pytest.raises(SettingsError, match="task1 has no squeeze-and-excitation units"):
        build_model("task1", gate="relu", backbones={"face": ResNet18()})


def test_pipeline_file_names_backbones_as_a_list(tmp_path: Path) -> None:
    (tmp_path / "own.toml").write_text(
        '[[stage]]\njob = "train"\nmanifest = "manifest.json"\nmodel = "task3"\nout = "run"\n'
        'backbone = ["context=timm:tiny"]\n'
    )
    pipeline = read_pipeline_file(str(tmp_path / "own.toml"))
    assert to_stage(pipeline, pipeline.stages[0]).config.backbone == ("context=timm:tiny",)


class _Attention(nn.Module):
    """Attention over the pixels of a photo as tokens of 3 values, then their mean."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(3, 1, batch_first=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        tokens = x.flatten(2).transpose(1, 2)
        mixed: torch.Tensor = self.attention(tokens, tokens, tokens, need_weights=False)[0]
        return mixed.mean(1)


def test_macs_of_a_library_network_are_those_of_its_products() -> None:
    (one,) = load_stream_networks("task3", {"context": "timm:tiny"}, ("none",)).values()
    cost = measure_cost(build_model("task3", backbones={"context": one.backbone}), {"context": SIDE})
    head = N_FEATURES * len(CATEGORIES)
    assert [(row.operator, row.n_macs) for row in cost.rows] == [
        ("timm:tiny", N_FEATURES * N_FEATURES),
        ("fully connected", head),
    ]
    assert cost.n_macs == N_FEATURES * N_FEATURES + head
    assert cost.n_parameters == N_FEATURES * (N_FEATURES + 1) + head + len(CATEGORIES)
    n, width = 4 * 4, 3  # tokens, values of each
    attention = 4 * n * width * width + 2 * n * n * width
    assert LibraryBackbone("x", _Attention().eval(), 3, IMAGENET_MEAN, IMAGENET_STD).count_macs((3, 4, 4)) == attention


class _Bessel(nn.Module):
    """A network with a function that ONNX does not have."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.special.bessel_j0(x).mean((2, 3))


def test_network_that_onnx_cannot_have_is_one_error(tmp_path: Path) -> None:
    backbone = LibraryBackbone("x", _Bessel(), 3, IMAGENET_MEAN, IMAGENET_STD)
    model = build_model("task3", backbones={"context": backbone}).eval()
    with pytest.raises(WeightsError, match=r"model.onnx: not written: torch .* cannot write a layer .*bessel_j0"):
        write_onnx(tmp_path / "model.onnx", model, {"context": SIDE}, {})
    assert not (tmp_path / "model.onnx").exists()


def test_backbones_in_the_record_of_a_run_are_checked(trained: TrainConfig, tmp_path: Path) -> None:
    settings = json.loads((trained.out / "run.json").read_text())
    settings["backbones"]["face"]["n_features"] = "wide"
    (tmp_path / "run.json").write_text(json.dumps(settings))
    with pytest.raises(SettingsError, match=r"run.json: not the description of a run \(backbones.face.n_features is"):
        read_run(tmp_path)
    del settings["backbones"]
    (tmp_path / "run.json").write_text(json.dumps(settings))
    assert read_run(tmp_path, needs_finished=False).backbones == {}
