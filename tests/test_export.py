"""Exported models: the graph of an ONNX file, the folder with its card, and what ``emoface.load`` accepts."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import huggingface_hub
import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from branch_inputs import draw_inputs, everybody, narrow_resnets, wake
from click.testing import CliRunner
from mter_data import write_photos_and_tables
from run_data import SIZES, write_finished_run
from torch.nn import functional

import emoface
from emoface.cli import main
from emoface.errors import SettingsError, WeightsError, describe_missing_package
from emoface.inference.predictor import Predictor
from emoface.jobs.evaluate import EvaluateConfig, run_evaluate
from emoface.jobs.export import ExportConfig, run_export
from emoface.mter import build_model, onnx_files
from emoface.mter.base import Mter
from emoface.mter.blocks import GridPool, cell_weights
from emoface.mter.depth_branch import DepthCnn
from emoface.mter.exported import describe_model, describe_preprocessing
from emoface.mter.forward import forward_batch
from emoface.mter.onnx_files import write_onnx
from emoface.mter.run_card import write_run_card
from emoface.mter.runs import read_run
from emoface.schema import CATEGORIES
from emoface.storage.files import file_sha256
from emoface.vision.detections import Detections

FACES = np.array([[130, 15, 154, 39], [30, 15, 54, 39]], np.float32)
BODIES = np.array([[10, 10, 80, 115], [60, 10, 100, 115], [110, 10, 180, 115]], np.float32)
"""Three people of whom the second has no face."""
CONFIG = {
    **{key: {} for key in ("label_names", "stream_sizes", "normalisation", "preprocessing", "array_inputs")},
    **dict.fromkeys(("model", "weights_sha256", "exported_by"), "test"),
}


class _Detector:
    """Finds the same faces in every photo."""

    uses_one_core = True

    def detect(self, images: list[np.ndarray]) -> list[Detections]:
        return [Detections(FACES, np.ones((2, 5, 2), np.float32), np.full(2, 0.9, np.float32)) for _ in images]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """An evaluated run and what is exported from it; to be read only."""
    torch.set_num_threads(1)
    root = tmp_path_factory.mktemp("export")
    manifest = write_photos_and_tables(root, 12)
    run = write_finished_run(root / "run", manifest, "caer-net-s", predicts_vad=True)
    with pytest.MonkeyPatch.context() as patch:  # metrics.json is needed, its page is not
        patch.setattr("emoface.reporting.evaluation.write_evaluation_charts", lambda *_: [])
        patch.setattr("emoface.reporting.evaluation.write_evaluation_page", lambda path, *_: path.write_text(""))
        run_evaluate(EvaluateConfig(run=run, draws=20, device="cpu"))
    run_export(ExportConfig(run=run, format="folder", out=root / "folder"))
    run_export(ExportConfig(run=run, out=root / "model.onnx"))
    return {"root": root, "manifest": manifest, "run": run, "folder": root / "folder", "onnx": root / "model.onnx"}


@pytest.fixture
def finds_faces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Predictor, "detector", _Detector())


def _photo() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (120, 200, 3), np.uint8)


def _read(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return content


# The graph


def _compute(path: Path, inputs: dict[str, torch.Tensor]) -> dict[str, np.ndarray]:
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    names = [one.name for one in session.get_inputs()]
    outputs = session.run(None, {name: inputs[name].numpy() for name in names})
    return dict(zip([one.name for one in session.get_outputs()], outputs, strict=True))


def _narrow(patch: pytest.MonkeyPatch) -> None:
    """Makes the large networks small: every ResNet18, and the depth branch of emoticon."""
    narrow_resnets(patch)
    patch.setattr("emoface.mter.emoticon.DepthCnn", partial(DepthCnn, widths=(4, 8, 8, 8, 8), n_hidden=16))


def _build(name: str, settings: dict[str, Any], patch: pytest.MonkeyPatch) -> Mter:
    _narrow(patch)
    torch.manual_seed(0)
    model = build_model(name, **settings)
    wake(model)
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm1d | torch.nn.BatchNorm2d):
            module.momentum = 1.0
    with torch.no_grad():  # statistics with which people differ
        model(draw_inputs(model, 4, 64), everybody(4))
    return model.eval()


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("task2", {}),
        ("mter1", {"predicts_vad": True}),
        ("kosti", {"predicts_vad": True, "linear_outputs": True}),
        ("caer-net-s", {}),
        ("affective-graph", {"region_source": "grid"}),
        ("affective-graph", {}),
        ("emoticon", {}),
        ("emoticon", {"depth_form": "gcn"}),
    ],
    ids=str,
)
def test_graph_computes_each_person_as_torch_does_alone(
    name: str, settings: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of five people some lack the face or an array, whose values are then nan; torch sees one person at a time."""
    model = _build(name, settings, monkeypatch)
    path, n, side = tmp_path / "model.onnx", 5, 32 if name == "mter1" else 64
    write_onnx(path, model, dict.fromkeys(SIZES, side), CONFIG)
    inputs = draw_inputs(model, n, side)
    has_face = torch.tensor([True, False, False, True, True])
    if "face" in model.streams:
        inputs["face"][~has_face] = torch.nan
    for k, (array, form) in enumerate(model.array_inputs.items()):
        is_present = torch.rand((n, *form.presence_shape), generator=torch.Generator().manual_seed(k)) < 0.6
        is_present[0], is_present[1] = True, False
        inputs[form.presence] = is_present
        inputs[array][~is_present] = torch.nan
    outputs = _compute(path, {**inputs, "has_face": has_face})
    for row in range(n):
        one = {key: value[row : row + 1] for key, value in inputs.items()}
        with torch.no_grad():
            expected = model(one, has_face[row : row + 1])
        assert outputs["logits"][row] == pytest.approx(expected.logits[0].numpy(), abs=1e-4)
        for stream, logits in expected.stream_logits.items():
            assert outputs[f"stream_{stream}"][row] == pytest.approx(logits[0].numpy(), abs=1e-4)
        forwarded = forward_batch(model, one, has_face[row : row + 1])
        assert outputs["probabilities"][row] == pytest.approx(forwarded.probabilities[0], abs=3e-5, nan_ok=True)
        assert ("vad" in outputs) == (forwarded.vad is not None)
        if forwarded.vad is not None:
            assert outputs["vad"][row] == pytest.approx(forwarded.vad[0], abs=1e-4, nan_ok=True)
    assert np.ptp(outputs["logits"], axis=0).max() > 1e-3


def test_file_that_computes_something_else_is_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = _build("kosti", {}, monkeypatch)
    convert = onnx_files._convert

    def convert_another(form: torch.nn.Module, values: Any) -> bytes:
        with torch.no_grad():
            model.head.bias[3] += 0.001
            content = convert(form, values)
            model.head.bias[3] -= 0.001
        return content

    monkeypatch.setattr(onnx_files, "_convert", convert_another)
    with pytest.raises(
        WeightsError, match=r"model\.onnx: not written: 'logits' of ONNX Runtime .* differs .* by 0\.001"
    ):
        write_onnx(tmp_path / "model.onnx", model, dict.fromkeys(SIZES, 32), CONFIG)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("size", "side"), [(7, 3), (2, 7), (4, 2), (3, 3), (1, 3)])
def test_cells_of_a_grid_are_those_of_adaptive_pooling(size: int, side: int) -> None:
    maps = torch.rand(2, 3, size, size + 1, generator=torch.Generator().manual_seed(size))
    expected = functional.adaptive_avg_pool2d(maps, side)
    found = cell_weights(size, side) @ maps @ cell_weights(size + 1, side).T
    assert torch.allclose(found, expected, atol=1e-6) and torch.equal(GridPool(side)(maps), expected)


def test_metadata_tell_other_programs_how_to_use_the_file(data: dict[str, Path]) -> None:
    model = onnx.load(data["onnx"])
    told = {one.key: one.value for one in model.metadata_props}
    assert json.loads(told["label_names"]) == list(CATEGORIES) and told["model"] == "caer-net-s"
    assert json.loads(told["normalisation"]) == {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}
    assert json.loads(told["stream_sizes"]) == SIZES and told["weights_sha256"] == file_sha256(
        data["run"] / "best.safetensors"
    )
    assert told["exported_by"] == f"emoface {emoface.__version__}"
    shapes = {
        one.name: [d.dim_param or d.dim_value for d in one.type.tensor_type.shape.dim] for one in model.graph.input
    }
    assert shapes == {
        "face": ["batch", 3, 32, 32],
        "context": ["batch", 3, 64, 64],
        "has_face": ["batch"],
    }
    assert str(data["root"]).encode() not in data["onnx"].read_bytes()


def test_preprocessing_names_what_is_blanked_and_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    caer = describe_preprocessing(build_model("caer-net-s", face_fill="black", context_center_share=0.875))
    assert list(caer) == ["face", "context"]
    assert "face box is filled with black; of it the central square of 0.875 of the side" in caer["context"]
    _narrow(monkeypatch)
    assert "body box is filled with black" in describe_preprocessing(build_model("emoticon"))["context"]


# The folder


def test_folder_has_no_path_of_the_machine(data: dict[str, Path]) -> None:
    assert {path.name for path in data["folder"].iterdir()} == {"config.json", "model.safetensors", "README.md"}
    for name in ("config.json", "README.md"):
        text = (data["folder"] / name).read_text(encoding="utf-8")
        assert str(data["root"]) not in text and data["root"].name not in text
    config = _read(data["folder"] / "config.json")
    assert config["stream_sizes"] == SIZES and config["label_names"] == list(CATEGORIES)
    assert config["thresholds"]["thresholds"] == _read(data["run"] / "eval" / "thresholds.json")["thresholds"]


def test_sources_of_initial_weights_lose_their_folders(data: dict[str, Path], tmp_path: Path) -> None:
    shutil.copytree(data["run"], tmp_path / "run")
    settings = _read(tmp_path / "run" / "run.json")
    sources = {"face": "/home/me/runs/task1", "body": r"C:\me\mobilenet.pth", "context": "places365"}
    settings["started_from"] = [{"network": k, "source": v, "sha256": "0" * 64} for k, v in sources.items()]
    (tmp_path / "run" / "run.json").write_text(json.dumps(settings))
    run = read_run(tmp_path / "run")
    told = describe_model(run, run.build_model())
    assert [one["source"] for one in told["started_from"]] == ["task1", "mobilenet.pth", "places365"]
    assert {k: one["source"] for k, one in told["initial_weights"].items()} == {
        "face": "task1",
        "context": "places365",
    }


def test_run_has_a_card_which_evaluate_writes_again_and_a_readme_of_ones_own_is_kept(
    data: dict[str, Path], tmp_path: Path
) -> None:
    card = (data["run"] / "README.md").read_text(encoding="utf-8")
    metrics = _read(data["run"] / "eval" / "test" / "metrics.json")
    assert f"| test | {metrics['people']['evaluated']} | {metrics['mean_average_precision']:.3f} |" in card
    assert f"sha256 of `best.safetensors`: `{metrics['weights_sha256']}`" in card and "`run.json` has the" in card
    assert str(data["root"]) not in card
    run = write_finished_run(tmp_path / "run", data["manifest"], "task2")
    write_run_card(read_run(run))
    assert "This model has not been evaluated" in (run / "README.md").read_text(encoding="utf-8")
    (run / "README.md").write_text("my notes")
    write_run_card(read_run(run))
    assert (run / "README.md").read_text() == "my notes"


def test_model_card_has_the_metrics_beside_chance(data: dict[str, Path]) -> None:
    metrics = _read(data["run"] / "eval" / "test" / "metrics.json")
    card = huggingface_hub.ModelCard.load(data["folder"] / "README.md")
    found = {one.metric_type: one.metric_value for one in card.data.eval_results}
    low, high = metrics["interval"]
    assert found == {
        "mean_average_precision": metrics["mean_average_precision"],
        "interval_low": low,
        "interval_high": high,
        "chance_level": metrics["mean_prevalence"],
        "lift": metrics["lift"],
    }
    assert card.data.license == "other" and "datasets" not in card.data.to_dict()  # it is not known to be EMOTIC
    titles = [line[3:] for line in card.text.splitlines() if line.startswith("## ")]
    assert titles == [
        *("What it is not for", "Known biases", "Training data and protocol", "Metrics", "Initial weights"),
        *("How to load it", "Licence"),
    ]
    row = next(line for line in card.text.splitlines() if line.startswith("| test"))
    chance = metrics["chance"]["average_absolute_error"]["mean"]
    assert f"{metrics['mean_average_precision']:.3f}" in row and f"({chance:.3f})" in row


def test_run_that_was_not_evaluated_says_so(data: dict[str, Path], tmp_path: Path) -> None:
    shutil.copytree(data["run"], tmp_path / "run")
    metrics = _read(tmp_path / "run" / "eval" / "test" / "metrics.json") | {"weights_sha256": "0" * 64}
    (tmp_path / "run" / "eval" / "test" / "metrics.json").write_text(json.dumps(metrics))  # of other weights
    run_export(ExportConfig(run=tmp_path / "run", format="folder", out=tmp_path / "out"))
    assert "This model has not been evaluated" in (tmp_path / "out" / "README.md").read_text()
    assert "thresholds" not in _read(tmp_path / "out" / "config.json")


def test_folder_exports_to_the_same_folder_again(data: dict[str, Path], tmp_path: Path) -> None:
    for _ in range(2):  # the second time over the first
        run_export(ExportConfig(run=data["folder"], format="folder", out=tmp_path / "again"))
    for name in ("config.json", "model.safetensors", "README.md"):
        assert (tmp_path / "again" / name).read_bytes() == (data["folder"] / name).read_bytes()


def test_other_files_are_not_mixed_with_an_export(data: dict[str, Path]) -> None:
    for out, message in ((data["run"], "holds files that are no exported model"), (data["folder"], "is the folder to")):
        with pytest.raises(SettingsError, match=message):
            run_export(ExportConfig(run=data["folder"], format="folder", out=out))
    with pytest.raises(SettingsError, match=r"model: expected a name that ends in \.onnx"):
        ExportConfig(run=data["run"], out="model")
    with pytest.raises(SettingsError, match="expected a folder for format folder"):
        ExportConfig(run=data["run"], format="folder", out=data["onnx"])


# Loading


def test_predictions_of_run_folder_file_and_onnx_are_equal(data: dict[str, Path], finds_faces: None) -> None:
    expected = emoface.load(data["run"], "cpu").predict(_photo(), BODIES)
    assert [one.face_bbox is None for one in expected] == [False, True, False]
    for source in (
        data["folder"],
        data["folder"] / "model.safetensors",
        data["run"] / "best.safetensors",
        data["onnx"],
    ):
        loaded = emoface.load(str(source), "cpu")
        assert loaded.faces == emoface.load(data["run"], "cpu").faces
        for one, other in zip(loaded.predict(_photo(), BODIES), expected, strict=True):
            assert one.probabilities == pytest.approx(other.probabilities, abs=1e-5)
            assert one.valence == pytest.approx(other.valence, abs=1e-4)
            assert (one.face_bbox, one.body_bbox) == (other.face_bbox, other.body_bbox)


def test_face_alone_says_nothing_without_a_face_in_onnx_too(
    data: dict[str, Path], tmp_path: Path, finds_faces: None
) -> None:
    run = write_finished_run(tmp_path / "task1", data["manifest"], "task1", predicts_vad=True)
    run_export(ExportConfig(run=run, out=tmp_path / "task1.onnx"))
    left, middle, right = emoface.load(tmp_path / "task1.onnx").predict(_photo(), BODIES)
    assert middle.probabilities is None and middle.valence is None
    assert left.probabilities is not None and right.valence is not None


def test_onnx_file_needs_no_torch(data: dict[str, Path]) -> None:
    code = f"""
import sys
sys.modules["torch"] = None
import numpy as np
import emoface
from emoface.inference.predictor import Person
photo = np.random.default_rng(0).integers(0, 256, (120, 200, 3), np.uint8)
loaded = emoface.load({str(data["onnx"])!r})
person = Person(np.array([10, 10, 80, 115], np.float32), None, None, "box")
print(list(loaded.predict_people(photo, [person])[0].probabilities.values()))
"""
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = emoface.load(data["run"], "cpu")
    person = loaded.find_people(_photo(), np.zeros((0, 4), np.float32))
    assert person == []
    from emoface.inference.predictor import Person

    (expected,) = loaded.predict_people(_photo(), [Person(BODIES[0], None, None, "box")])
    assert json.loads(answer.stdout) == pytest.approx(list((expected.probabilities or {}).values()), abs=1e-5)


def test_command_exports_what_predict_reads(data: dict[str, Path], tmp_path: Path, finds_faces: None) -> None:
    answer = CliRunner().invoke(main, ["export", str(data["run"]), "--format", "folder", "--out", str(tmp_path / "m")])
    assert answer.exit_code == 0 and "evaluated splits: 1" in answer.stdout
    photo = sorted((data["root"] / "photos" / "framesdb" / "images").glob("*.jpg"))[0]
    predicted = ["predict", str(tmp_path / "m"), str(photo), "--out", str(tmp_path / "out"), "--device", "cpu"]
    assert CliRunner().invoke(main, predicted).exit_code == 0 and (tmp_path / "out" / f"{photo.stem}.json").is_file()
    answer = CliRunner().invoke(main, ["explain", str(tmp_path / "m"), "--index", "0", "--out", str(tmp_path / "out")])
    assert (
        answer.exit_code == 1 and "config.json: an exported model does not say where its data set is" in answer.stderr
    )


def test_layers_of_an_onnx_file_cannot_be_explained(data: dict[str, Path], finds_faces: None) -> None:
    loaded = emoface.load(data["onnx"])
    with pytest.raises(SettingsError, match=r"model\.onnx: this needs the layers of the network"):
        loaded.explain(_photo(), loaded.find_people(_photo())[0], ["Peace"])


@pytest.mark.parametrize("form", ["folder", "onnx"])
def test_models_of_more_than_photos_are_refused_where_nothing_provides_it(
    form: str, data: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    narrow_resnets(monkeypatch)
    run = write_finished_run(tmp_path / "run", data["manifest"], "affective-graph")
    out = tmp_path / ("model.onnx" if form == "onnx" else "model")
    run_export(ExportConfig(run=run, format=form, out=out))
    reasons = {
        "onnx": r"model\.onnx: affective-graph reads more than the photo \(regions\)",
        "folder": r"config\.json: affective-graph reads regions of the photo, and expected is one .* found none",
    }
    with pytest.raises(SettingsError, match=reasons[form]):
        emoface.load(out)
    if form == "folder":
        told = _read(out / "config.json")["array_inputs"]
        assert list(told) == ["regions"] and told["regions"]["shape"] == [10, 1028]


# Errors


def test_damaged_folders_are_named(data: dict[str, Path], tmp_path: Path) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(data["folder"], folder)
    config = _read(folder / "config.json")
    faults: list[tuple[dict[str, Any], str]] = [
        ({"format": "emoface model 2"}, r"config\.json: not the description of a model .*format is 'emoface model 2'"),
        ({"streams": ["hand"]}, r"config\.json: no size of the stream 'hand'"),
        ({"label_names": ["Joy"]}, r"label_names is \['Joy'\]: list should have at least 2 items"),
        ({"recipe": {"epoch": 3}}, r"config\.json: recipe: there is no setting 'epoch'; did you mean 'epochs'"),
        ({"context_input": {"masks_face": 1}}, r"context_input\.masks_face is 1"),
    ]
    for change, message in faults:
        (folder / "config.json").write_text(json.dumps({**config, **change}))
        with pytest.raises(SettingsError, match=message):
            emoface.load(folder)
    (folder / "config.json").write_text(json.dumps({**config, "weights_sha256": "0" * 64}))
    with pytest.raises(WeightsError, match=r"model\.safetensors: sha256 is .* expected 000000000000"):
        emoface.load(folder)
    (folder / "model.safetensors").unlink()
    with pytest.raises(WeightsError, match=r"model\.safetensors: no such file, but .*config\.json describes it"):
        emoface.load(folder)


def test_all_else_is_one_clear_error(data: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").mkdir()
    (tmp_path / "photo.jpg").write_bytes(b"x")
    shutil.copy(data["folder"] / "model.safetensors", tmp_path / "model.safetensors")
    node = onnx.helper.make_node("Identity", ["x"], ["y"])
    x, y = (onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [1]) for name in "xy")
    foreign = onnx.helper.make_model(
        onnx.helper.make_graph([node], "g", [x], [y]), opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8
    )
    onnx.save(foreign, tmp_path / "foreign.onnx")
    (tmp_path / "damaged.onnx").write_bytes(data["onnx"].read_bytes()[:1000])
    for source, message in {
        "runs": r"runs: neither run\.json nor config\.json is in this folder; expected the folder of a run",
        "runs/mter2": "runs/mter2: no such file or folder; expected",  # not a repository: there is a folder runs
        "mter2.onnx": r"mter2\.onnx: no such file or folder",
        "photo.jpg": r"photo\.jpg: not the weights of a run",
        "model.safetensors": r"model\.safetensors: not the weights of a run or of an exported folder",
        "foreign.onnx": r"foreign\.onnx: an ONNX model without the description of an emotion model",
    }.items():
        with pytest.raises(SettingsError, match=message):
            emoface.load(source)
    with pytest.raises(WeightsError, match=r"damaged\.onnx: not a readable ONNX model"):
        emoface.load("damaged.onnx")
    with pytest.raises(SettingsError, match="device is 'tpu', expected auto, cpu or cuda"):
        emoface.load(data["onnx"], "tpu")


# The Hugging Face Hub


def test_repository_is_read_from_the_local_cache(
    data: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, finds_faces: None
) -> None:
    """The cache has the layout that huggingface_hub writes; the package is told to be offline."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    commit, repository = "a" * 40, tmp_path / "cache" / "models--me--mter2"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text(commit)
    shutil.copytree(data["folder"], repository / "snapshots" / commit)
    found = emoface.load("me/mter2").predict(_photo(), BODIES)
    expected = emoface.load(data["run"]).predict(_photo(), BODIES)
    assert [one.probabilities for one in found] == [one.probabilities for one in expected]
    with pytest.raises(
        WeightsError, match="me/other: no such file or folder here, and it cannot be read from the Hugg"
    ):
        emoface.load("me/other")


def test_missing_files_of_the_cache_are_downloaded(
    data: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "part").mkdir()
    calls: list[dict[str, Any]] = []

    def download(name: str, **options: Any) -> str:
        calls.append({"name": name, **options})
        return str(tmp_path / "part" if options.get("local_files_only") else data["folder"])

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    assert emoface.load("me/mter2").run.model_name == "caer-net-s"
    assert [one.get("local_files_only", False) for one in calls] == [True, False]
    assert {one["name"] for one in calls} == {"me/mter2"}
    monkeypatch.setattr("huggingface_hub.snapshot_download", lambda *_, **__: str(tmp_path / "part"))
    with pytest.raises(SettingsError, match=r"me/mter2\.5: this repository .* has no config\.json and no model\.safe"):
        emoface.load("me/mter2.5")


def test_without_huggingface_hub_its_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(ModuleNotFoundError) as raised:
        emoface.load("me/mter2")
    assert "pip install 'emoface[hub]'" in (describe_missing_package(raised.value) or "")
