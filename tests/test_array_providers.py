"""Models with inputs beside the photo on photos of a user: the same inputs as in an evaluation, or one clear error."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from branch_inputs import narrow_resnets
from click.testing import CliRunner
from mter_data import write_photos_and_tables
from numpy.typing import NDArray
from run_data import write_finished_run
from stand_in_models import write_depth, write_simcc

import emoface
from emoface.cli import main
from emoface.datasets.manifest import read_manifest
from emoface.datasets.people import find_annotated_people, read_annotated_photo
from emoface.datasets.predictions import read_predictions
from emoface.datasets.stream_cache import default_cache_dir, open_stream_cache
from emoface.errors import EmofaceError, SettingsError, WeightsError
from emoface.inference import regions
from emoface.inference.array_providers import ArrayProviders, PhotoPeople
from emoface.inference.depth import load_depth_provider
from emoface.inference.pose import load_pose_provider
from emoface.inference.predictor import Person, Predictor, from_annotation
from emoface.jobs.depth import DepthConfig, run_depth
from emoface.jobs.evaluate import EvaluateConfig, run_evaluate
from emoface.jobs.explain import ExplainConfig, run_explain
from emoface.jobs.export import ExportConfig, run_export
from emoface.jobs.pose import PoseConfig, run_pose
from emoface.jobs.predict import PredictConfig, run_predict
from emoface.jobs.regions import RegionsConfig, run_regions
from emoface.jobs.split import SplitConfig, run_split
from emoface.mter.inputs import DEPTH, FACE_LANDMARKS, PEOPLE, POSE, REGIONS
from emoface.mter.person_arrays import PersonArrays
from emoface.schema import FACES_SCHEMA
from emoface.vision.crops import Photo

TOLERANCE = 2e-6
"""Largest difference of probabilities; what is read beside the photo changes them by more than five times as much."""
SIZES = {"face": 32, "body": 32, "context": 64}


class CellRegions:
    """Eight cells of the photo, in the place of Faster R-CNN; each feature is the mean of one colour."""

    def __init__(self, path: Path, name: str, sha256: str) -> None:
        self.name, self.sha256 = name, sha256

    def find(self, photo: Photo) -> NDArray[np.float32]:
        rows = []
        for number in range(8):
            top, left = number // 4 / 2, number % 4 / 4
            part = photo[int(60 * 2 * top) : int(60 * 2 * top) + 60, int(200 * left) : int(200 * left) + 50]
            rows.append([*np.resize(part.mean(axis=(0, 1)) / 255, 1024), left, top, left + 0.25, top + 0.5])
        return np.array(rows, np.float32)


@pytest.fixture(scope="module")
def patch() -> Iterator[pytest.MonkeyPatch]:
    with pytest.MonkeyPatch.context() as patched:
        narrow_resnets(patched)
        patched.setattr(regions, "FasterRcnn", CellRegions)
        patched.setenv("EMOFACE_WEIGHTS", "")
        yield patched


@pytest.fixture(scope="module")
def built_in(tmp_path_factory: pytest.TempPathFactory, patch: pytest.MonkeyPatch) -> Path:
    """The manifest of a data set with the built-in points and depth, and regions of a stand-in; to be read only."""
    torch.set_num_threads(1)
    manifest = _write_data(tmp_path_factory.mktemp("built_in"))
    work = manifest.parent
    run_pose(PoseConfig(dir=work))
    run_depth(DepthConfig(dir=work))
    (work / "rcnn.pth").write_bytes(b"stand-in")
    run_regions(RegionsConfig(dir=work, weights=work / "rcnn.pth"))
    return manifest


@pytest.fixture(scope="module")
def modelled(tmp_path_factory: pytest.TempPathFactory, patch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    """A run of emoticon on points and depth of models, and its manifest; to be read only."""
    folder = tmp_path_factory.mktemp("modelled")
    manifest = _write_data(folder)
    write_simcc(folder / "standpose.onnx", (48, 64), 133)
    write_depth(folder / "standdepth.onnx")
    run_pose(PoseConfig(dir=manifest.parent, weights=folder / "standpose.onnx"))
    run_depth(DepthConfig(dir=manifest.parent, weights=folder / "standdepth.onnx"))
    return write_finished_run(folder / "run", manifest, "emoticon", reads_tables=True), manifest


def _write_data(root: Path) -> Path:
    """Photos of two people, whose faces have landmarks at places and with scores of their own."""
    manifest = write_photos_and_tables(root, 8)
    path = manifest.parent / "faces.parquet"
    rows = pq.read_table(path).to_pylist()
    rng = np.random.default_rng(3)
    for row in rows:
        if row["face_bbox"] is not None:
            left, top, right, bottom = row["face_bbox"]
            shares = np.array([[0.3, 0.3], [0.7, 0.3], [0.5, 0.6], [0.3, 0.8], [0.7, 0.8]])
            shares += rng.normal(0, 0.05, shares.shape)
            row["landmarks"] = (shares * (right - left, bottom - top) + (left, top)).ravel().tolist()
            row["conf"] = float(rng.uniform(0.5, 1))
    pq.write_table(pa.Table.from_pylist(rows, schema=FACES_SCHEMA), path)
    run_split(SplitConfig(dir=manifest.parent, by="emotic"))
    return manifest


def _evaluate(run: Path) -> dict[str, NDArray[np.float32]]:
    """The probabilities of an evaluation of test, by person."""
    run_evaluate(EvaluateConfig(run=run, split="test", device="cpu", draws=2))
    stored = read_predictions(run / "eval" / "test" / "predictions.parquet")
    return dict(zip(stored.person_ids, stored.probabilities, strict=True))


def _read_people(manifest_path: Path) -> tuple[Photo, list[Person]]:
    """The first photo of test and its people."""
    manifest = read_manifest(manifest_path)
    first = pq.read_table(manifest.split_path("test"), columns=["image"])["image"][0].as_py()
    photo, annotated = read_annotated_photo(manifest, find_annotated_people(manifest, "image", [first]))
    people = [person for one in annotated if (person := from_annotation(one)) is not None]
    assert len(people) == 2
    return photo, people


def _values(predictor: Predictor, photo: Photo, people: list[Person], **others: Any) -> NDArray[np.float64]:
    predictions = predictor.predict_people(photo, people, **others)
    return np.array([list((one.probabilities or {}).values()) for one in predictions])


def _change_run(run: Path, copy: Path, table: str, **facts: Any) -> Path:
    """A copy of a run that describes a table in another way."""
    shutil.copytree(run, copy)
    settings = json.loads((copy / "run.json").read_text(encoding="utf-8"))
    settings["array_tables"][table] |= facts
    (copy / "run.json").write_text(json.dumps(settings), encoding="utf-8")
    return copy


@pytest.mark.parametrize("of_models", [False, True])
def test_inputs_of_a_photo_are_those_of_the_tables(
    built_in: Path, modelled: tuple[Path, Path], of_models: bool
) -> None:
    forms = {"face_landmarks": FACE_LANDMARKS, "pose": POSE, "depth": DEPTH, "people": PEOPLE}
    if of_models:
        folder, path = modelled[0].parent, modelled[1]
        pose = load_pose_provider("any", folder / "standpose.onnx")
        providers = ArrayProviders(forms, pose=pose, depth=load_depth_provider("any", folder / "standdepth.onnx"))
    else:
        path, forms = built_in, forms | {"regions": REGIONS}
        providers = ArrayProviders(forms, regions=CellRegions(path, "rcnn", ""))
    manifest = read_manifest(path)
    stored = open_stream_cache(manifest, "test").people
    photo, people = _read_people(path)
    rows = [row for row, image in enumerate(stored.images) if image == stored.images[0]]
    expected = PersonArrays(manifest, stored, forms, default_cache_dir(manifest)).load(rows, SIZES, center_share=0.8)
    found = providers.compute(photo, _place(people), SIZES, 0.8)
    assert found.keys() == expected.keys() and all(values.any() for values in found.values())
    for name, values in expected.items():
        np.testing.assert_allclose(found[name], values, atol=1e-5, err_msg=name)


def _place(people: list[Person]) -> PhotoPeople:
    assert all(one.face_xyxy is not None and one.landmarks is not None and one.face_conf for one in people)
    body, face, landmarks, conf = (
        np.array([getattr(one, name) for one in people], np.float32)
        for name in ("body_xyxy", "face_xyxy", "landmarks", "face_conf")
    )
    return PhotoPeople(body, face, landmarks, conf)


def test_commands_predict_and_explain_say_who_provided_the_inputs(built_in: Path, tmp_path: Path) -> None:
    run = write_finished_run(tmp_path / "run", built_in, "emoticon", reads_tables=True, depth_form="gcn")
    manifest = read_manifest(built_in)
    person = find_annotated_people(manifest, "index", [6])[0]
    image = Path(manifest.image_root) / person.image
    run_predict(PredictConfig(run=run, images=(image,), manifest=built_in, device="cpu"))
    told = json.loads((run / "predict" / f"{image.stem}.json").read_text(encoding="utf-8"))
    assert told["other_inputs"] == {
        "depth.parquet": "boxes, built in: the height of the people's body boxes, no depth",
        "pose.parquet": "landmarks, built in: the face detector's five points, no pose",
    }
    (predicted,) = (one for one in told["people"] if one["person_id"] == person.person_id)
    run_explain(ExplainConfig(run=run, index=(6,), labels=("Peace",), device="cpu"))
    explained = json.loads((run / "explain" / "person-000006.json").read_text(encoding="utf-8"))
    assert explained["other_inputs"] == told["other_inputs"]
    probability = explained["labels"]["Peace"]["probability"]
    assert probability == pytest.approx(predicted["probabilities"]["Peace"], abs=TOLERANCE)
    assert set(explained["labels"]["Peace"]["streams"]) == {"context"}


def test_exported_folders_take_the_files_of_models(modelled: tuple[Path, Path], tmp_path: Path) -> None:
    run, manifest = modelled
    photo, people = _read_people(manifest)
    expected = _values(emoface.load(run, "cpu"), photo, people)  # the files are where the jobs read them
    folder = tmp_path / "exported"
    run_export(ExportConfig(run=run, format="folder", out=folder))
    files = {"pose_weights": run.parent / "standpose.onnx", "depth_weights": str(run.parent / "standdepth.onnx")}
    np.testing.assert_allclose(_values(emoface.load(folder, "cpu", **files), photo, people), expected, atol=TOLERANCE)
    card = (folder / "README.md").read_text(encoding="utf-8")
    assert (
        "provided by standdepth, standpose; of these, models must be on the machine" in card and "emoface.load" in card
    )


def test_models_are_looked_up_by_name_and_must_be_the_same(
    modelled: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, _ = modelled
    folder, weights = tmp_path / "exported", tmp_path / "weights"
    run_export(ExportConfig(run=run, format="folder", out=folder))
    monkeypatch.setenv("EMOFACE_WEIGHTS", str(weights))
    with pytest.raises(WeightsError) as error:
        emoface.load(folder, "cpu")
    needs = "emoticon reads points of people as the model 'standpose' finds them, and it is not here"
    assert needs in str(error.value) and str(weights) in str(error.value)
    assert str(error.value).endswith("or give its file with --pose-weights FILE") and "\n" not in str(error.value)
    weights.mkdir()
    for name in ("standpose.onnx", "standdepth.onnx"):
        shutil.copy(run.parent / name, weights)
    assert emoface.load(folder, "cpu").other_inputs == {
        "depth.parquet": "standdepth",
        "pose.parquet": "standpose",
    }
    write_depth(weights / "standdepth.onnx", 32)
    with pytest.raises(WeightsError, match=r"not here: .*standdepth\.onnx: sha256 is .* expected .* --depth-weights"):
        emoface.load(folder, "cpu")
    with pytest.raises(WeightsError, match=r"standdepth\.onnx: sha256 is .*; emoticon reads the depth of the photo"):
        emoface.load(folder, "cpu", depth_weights=weights / "standdepth.onnx")
    answer = CliRunner().invoke(main, ["predict", str(folder), str(tmp_path / "a.jpg"), "--out", str(tmp_path / "out")])
    assert answer.exit_code == 1 and answer.stderr.count("Error: ") == 1


def test_inputs_without_a_provider_are_refused(built_in: Path, tmp_path: Path) -> None:
    run = write_finished_run(tmp_path / "run", built_in, "emoticon", reads_tables=True)
    cases: list[tuple[str, dict[str, Any], str]] = [
        ("pose.parquet", {"providers": ["points file"], "provider_sha256": {"points file": "0"}}, "from a points file"),
        ("depth.parquet", {"providers": ["maps folder"]}, "read from a maps folder and have no provider"),
        ("depth.parquet", {"providers": ["boxes", "midas"]}, "expected is one provider of them, found boxes, midas"),
        ("pose.parquet", {"providers": ["movenet"]}, "does not say which file of 'movenet' found points of people"),
    ]
    for number, (table, facts, message) in enumerate(cases):
        changed = _change_run(run, tmp_path / str(number), table, **facts)
        with pytest.raises(SettingsError, match=message):
            emoface.load(changed, "cpu")
    with pytest.raises(EmofaceError, match=r"array_tables\.pose\.parquet\.providers is 'movenet'"):
        emoface.load(_change_run(run, tmp_path / "wrong", "pose.parquet", providers="movenet"), "cpu")
    with pytest.raises(SettingsError, match=r"given as pose_weights, but .*run\.json says that emoticon"):
        emoface.load(run, "cpu", pose_weights=tmp_path / "pose.onnx")


@pytest.mark.parametrize(
    ("model", "recipe"),
    [
        ("emoticon", {"depth_form": "cnn"}),
        ("emoticon", {"depth_form": "gcn"}),
        ("affective-graph", {"region_source": "grid"}),
    ],
)
def test_people_of_a_data_set_get_the_probabilities_of_an_evaluation(
    built_in: Path, tmp_path: Path, model: str, recipe: dict[str, Any]
) -> None:
    run = write_finished_run(tmp_path / "run", built_in, model, reads_tables=True, **recipe)
    evaluated = _evaluate(run)
    predictor = emoface.load(run, "cpu")
    photo, people = _read_people(built_in)
    expected = np.array([evaluated[str(one.person_id)] for one in people])
    np.testing.assert_allclose(_values(predictor, photo, people), expected, atol=TOLERANCE)
    np.testing.assert_allclose(_values(predictor, photo, people[:1], others=people[1:]), expected[:1], atol=TOLERANCE)
    if model == "emoticon":
        alone = _values(predictor, photo, people[:1])
        assert np.abs(alone - expected[:1]).max() > 5 * TOLERANCE
        without = [Person(one.body_xyxy, one.face_xyxy, one.face, "box") for one in people]
        assert np.abs(_values(predictor, photo, without) - expected).max() > 5 * TOLERANCE  # the landmarks are read
