"""Prediction on any photo: whose people, which face, what is drawn; and the Python API."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from mter_data import PHOTO_WH, write_photos_and_tables
from run_data import write_finished_run

import emoface
from emoface.cli import main
from emoface.datasets.manifest import read_manifest
from emoface.datasets.people import find_annotated_people
from emoface.datasets.predictions import read_predictions
from emoface.errors import ImageError, SettingsError, TableError
from emoface.inference.predictor import PersonPrediction, Predictor, load_predictor
from emoface.jobs.evaluate import EvaluateConfig, run_evaluate
from emoface.jobs.faces import FacesConfig, run_faces
from emoface.jobs.predict import PredictConfig, run_predict, to_drawn
from emoface.jobs.split import SplitConfig, run_split
from emoface.jobs.train import TrainConfig, run_train
from emoface.mter.dataset import to_stream_inputs
from emoface.reporting.drawing import DrawnPerson, LabelBar, draw_people, fit_photo, unique_stems
from emoface.schema import CATEGORIES
from emoface.storage.weights import WeightsFile
from emoface.vision.assignment import assign_faces, bodies_from_faces
from emoface.vision.crops import Photo, crop_square, square_box
from emoface.vision.detections import Detections
from emoface.vision.images import decode_photo, encode_jpeg, read_photo

FACES = np.array([[130, 15, 154, 39], [30, 15, 54, 39]], np.float32)  # as write_photos_and_tables draws them
BODIES = np.array([[10, 10, 80, 115], [110, 10, 180, 115]], np.float32)


class _Detector:
    """Finds the same faces in every photo."""

    uses_one_core = True

    def __init__(self, xyxy: np.ndarray) -> None:
        self.xyxy = xyxy

    def detect(self, images: list[Photo]) -> list[Detections]:
        n = len(self.xyxy)
        return [Detections(self.xyxy, np.ones((n, 5, 2), np.float32), np.full(n, 0.9, np.float32)) for _ in images]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A run and its manifest; to be read only."""
    torch.set_num_threads(1)
    root = tmp_path_factory.mktemp("predict")
    manifest = write_photos_and_tables(root, 12)
    return write_finished_run(root / "mter2", manifest, predicts_vad=True), manifest


@pytest.fixture
def predictor(data: tuple[Path, Path]) -> Predictor:
    loaded = load_predictor(data[0], "cpu")
    loaded.__dict__["detector"] = _Detector(FACES)
    return loaded


@pytest.fixture
def finds_faces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Predictor, "detector", _Detector(FACES))


def _photo_paths(manifest: Path) -> list[Path]:
    return sorted((Path(read_manifest(manifest).image_root) / "framesdb" / "images").glob("*.jpg"))


def _told(path: Path) -> dict[str, Any]:
    told: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return told


# Bodies from faces


def test_body_from_face_by_hand() -> None:
    # A face of 42 px height: 100 px wide body, 14.7 px above the face, 294 px high.
    box = bodies_from_faces(np.array([[290, 100, 310, 142]], np.float32), (900, 600))[0]
    assert box.tolist() == pytest.approx([250, 85.3, 350, 379.3], abs=1e-3)


def test_body_is_cut_at_the_border_and_no_face_has_none() -> None:
    box = bodies_from_faces(np.array([[0, 0, 40, 60]], np.float32), (300, 200))[0]
    assert box.tolist() == pytest.approx([0, 0, 20 + 60 / 0.42 / 2, 200], abs=1e-3)
    assert bodies_from_faces(np.zeros((0, 4), np.float32), (300, 200)).shape == (0, 4)


@pytest.mark.parametrize("height", [12.0, 40.0, 120.0])
def test_a_guessed_body_is_given_its_own_face(height: float) -> None:
    left = np.array([40, 40 + 4 * height], np.float32)
    faces = np.stack([left, np.full(2, 60), left + 0.8 * height, np.full(2, 60 + height)], axis=1).astype(np.float32)
    face_index = assign_faces(bodies_from_faces(faces, (1400, 1000)), faces).face_index
    assert face_index.tolist() == [0, 1]


# The predictor


def test_boxes_get_their_faces_in_their_own_order(data: tuple[Path, Path], predictor: Predictor) -> None:
    photo = read_photo(_photo_paths(data[1])[0])
    right, left = predictor.predict(photo, boxes=BODIES[::-1])
    assert right.body_bbox == tuple(BODIES[1].tolist()) and right.face_bbox == tuple(FACES[0].tolist())
    assert left.face_bbox == tuple(FACES[1].tolist()) and left.body_from == "box"
    assert list(left.probabilities or {}) == list(CATEGORIES) and 1 <= (left.valence or 0) <= 10


def test_probabilities_are_those_of_the_network_by_hand(data: tuple[Path, Path], predictor: Predictor) -> None:
    photo = read_photo(_photo_paths(data[1])[0])
    crop = decode_photo(encode_jpeg(crop_square(photo, *square_box(FACES[1], 0.0))), "face")
    inputs, has_face = to_stream_inputs(photo, BODIES[0], crop, FACES[1], sizes=predictor.run.stream_sizes)
    with torch.no_grad():
        expected = predictor.model(inputs, has_face).logits[0].sigmoid()
    (found,) = predictor.predict(photo, boxes=BODIES[:1])
    assert predictor.faces.margin == 0.0
    assert list((found.probabilities or {}).values()) == pytest.approx(expected.tolist(), abs=1e-6)


def test_people_from_faces_are_read_left_to_right(data: tuple[Path, Path], predictor: Predictor) -> None:
    found = predictor.predict(_photo_paths(data[1])[0])
    assert [one.face_bbox for one in found] == [tuple(FACES[1].tolist()), tuple(FACES[0].tolist())]
    expected = bodies_from_faces(FACES[::-1], PHOTO_WH)
    assert [list(one.body_bbox) for one in found] == [pytest.approx(box) for box in expected.tolist()]
    assert {one.body_from for one in found} == {"face"} and found[0].true_labels is None


def test_small_faces_and_empty_photos(predictor: Predictor) -> None:
    photo = np.zeros((120, 200, 3), np.uint8)
    predictor.__dict__["detector"] = _Detector(np.array([[30, 15, 38, 24]], np.float32))
    assert predictor.predict(photo) == []
    (found,) = predictor.predict(photo, boxes=BODIES[:1])
    assert found.face_bbox is None and found.probabilities is not None
    assert predictor.predict(photo, boxes=[]) == []


def test_face_alone_says_nothing_without_a_face(data: tuple[Path, Path], tmp_path: Path) -> None:
    loaded = load_predictor(write_finished_run(tmp_path / "task1", data[1], "task1"), "cpu")
    loaded.__dict__["detector"] = _Detector(FACES[:1])
    without, with_face = loaded.predict(np.zeros((120, 200, 3), np.uint8), boxes=BODIES)
    assert without.probabilities is None and without.top(3) == []
    assert with_face.probabilities is not None and len(with_face.top(3)) == 3


def test_top_is_ordered() -> None:
    one = PersonPrediction((0, 0, 1, 1), None, "box", {"Anger": 0.2, "Peace": 0.9, "Fear": 0.4})
    assert one.top(2) == [("Peace", 0.9), ("Fear", 0.4)]


@pytest.mark.parametrize("box", [[50, 10, 40, 90], [300, 10, 400, 90], [0, 0, np.nan, 5]])
def test_boxes_outside_are_refused(predictor: Predictor, box: list[float]) -> None:
    with pytest.raises(SettingsError, match="has no area inside the photo of 200 x 120"):
        predictor.predict(np.zeros((120, 200, 3), np.uint8), boxes=[box])


def test_other_arrays_are_refused(predictor: Predictor) -> None:
    with pytest.raises(ValueError, match="image is float64 of shape"):
        predictor.predict(np.zeros((120, 200, 3)))
    with pytest.raises(ImageError, match="no such photo"):
        predictor.predict("nowhere.jpg")


def test_load_is_the_api_and_costs_no_torch_at_import(data: tuple[Path, Path]) -> None:
    assert emoface.load(data[0], min_face_size=3.0).faces == load_predictor(data[0]).faces.replace(min_face_size=3.0)
    code = "import sys, emoface; print('torch' in sys.modules, callable(emoface.load))"
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert answer.stdout.split() == ["False", "True"]


def test_a_run_without_its_data_set_cuts_faces_as_it_was_trained(data: tuple[Path, Path], tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(data[0], run)
    settings = _told(run / "run.json")
    settings["manifest"]["path"] = str(tmp_path / "gone.json")
    settings["detector"]["margin"] = 0.25
    (run / "run.json").write_text(json.dumps(settings))
    loaded = load_predictor(run)
    assert (loaded.faces.margin, loaded.faces.detector) == (0.25, "drawn")


def test_faces_are_as_large_as_in_the_data_set_of_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From the faces job over the manifest and training to prediction: a face of 24 pixels, and one of 40."""
    manifest = write_photos_and_tables(tmp_path, 8)
    dir, found = manifest.parent, np.array([[30, 15, 54, 39], [125, 15, 165, 55]], np.float32)
    weights = WeightsFile("drawn", "drawn", manifest, "0" * 64, "option")
    monkeypatch.setattr("emoface.inference.faces.find_weights", lambda *_: weights)
    monkeypatch.setattr("emoface.yolov5face.load_detector", lambda *_, **__: _Detector(found))
    runs = {}
    for size in (10.0, 30.0):
        record = run_faces(FacesConfig(dir=dir, min_face_size=size, shard_size=3))
        assert record.info["min_face_size"] == size
        assert record.counts["face_status"]["too_small"] == (8 if size == 30 else 0)
        run_split(SplitConfig(dir=dir, by="emotic"))
        runs[size] = tmp_path / f"run-{size:g}"
        recipe = {"epochs": 1, "batch_size": 4}
        small = {"pretrained": "none", "workers": 0, "device": "cpu", "person_size": 32, "context_size": 64}
        run_train(TrainConfig(manifest=manifest, model="task1", out=runs[size], recipe=recipe, **small))
        assert _told(manifest)["detector"]["min_face_size"] == size
        assert _told(runs[size] / "run.json")["detector"]["min_face_size"] == size
    photo = _photo_paths(manifest)[0]
    expected = [tuple(box) for box in found.tolist()]
    assert [one.face_bbox for one in load_predictor(runs[10.0], "cpu").predict(photo)] == expected
    assert [one.face_bbox for one in load_predictor(runs[30.0], "cpu").predict(photo)] == expected[1:]
    in_boxes = load_predictor(runs[30.0], "cpu").predict(photo, boxes=BODIES)
    assert [one.face_bbox for one in in_boxes] == [None, expected[1]]
    run_predict(PredictConfig(run=runs[30.0], images=(photo,), out=tmp_path / "out"))
    assert len(_told(tmp_path / "out" / f"{photo.stem}.json")["people"]) == 1


# The job


@pytest.mark.usefixtures("plain_charts")
def test_annotated_people_are_predicted_as_evaluation_does(data: tuple[Path, Path], tmp_path: Path) -> None:
    run, manifest = data
    run_evaluate(EvaluateConfig(run=run, draws=3))
    evaluated = read_predictions(run / "eval" / "test" / "predictions.parquet")
    annotated = find_annotated_people(read_manifest(manifest), "person_id", evaluated.person_ids)
    images = tuple(dict.fromkeys(Path(read_manifest(manifest).image_root) / one.image for one in annotated))
    run_predict(PredictConfig(run=run, images=images, out=tmp_path, manifest=manifest))
    found = {
        person["person_id"]: person for image in images for person in _told(tmp_path / f"{image.stem}.json")["people"]
    }
    truth = {one.person_id: one for one in annotated}
    assert set(evaluated.person_ids) == set(found)
    for person_id, expected in zip(evaluated.person_ids, evaluated.probabilities, strict=True):
        assert list(found[person_id]["probabilities"].values()) == pytest.approx(expected.tolist(), abs=1e-5)
        assert tuple(found[person_id]["true_labels"]) == truth[person_id].categories
        assert (found[person_id]["face_bbox"] is None) == (truth[person_id].face is None)
        assert found[person_id]["true_vad"] == truth[person_id].vad


@pytest.mark.usefixtures("finds_faces")
def test_unreadable_photos_do_not_stop_the_others(data: tuple[Path, Path], tmp_path: Path) -> None:
    good = _photo_paths(data[1])[:2]
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"no photo")
    out = tmp_path / "out"
    words = ["predict", str(data[0]), str(good[0]), str(broken), str(tmp_path / "gone.jpg"), str(good[1])]
    answer = CliRunner().invoke(main, [*words, "--out", str(out)])
    assert answer.exit_code == 1
    last = answer.stderr.splitlines()[-1]
    assert (
        last.startswith("Error: 2 of 4 photos could not be processed: ") and "broken.jpg: not a readable photo" in last
    )
    assert "gone.jpg: no such photo" in last and f"the other 2 are in {out}" in last
    assert sorted(path.stem for path in out.glob("*.png")) == [path.stem for path in good]
    counts = _told(out / "records" / "predict.json")["counts"]
    assert counts == {"photos": 2, "photos_left_out": 2, "people": 4, "faces": 4}


@pytest.mark.usefixtures("finds_faces")
def test_boxes_from_the_command_line_and_from_a_file_are_the_same(data: tuple[Path, Path], tmp_path: Path) -> None:
    image = _photo_paths(data[1])[0]
    words = ["predict", str(data[0]), str(image), "--out"]
    answer = CliRunner().invoke(
        main, [*words, str(tmp_path / "a"), "--boxes", "10,10,80,115", "--boxes", "110,10,180,115"]
    )
    assert answer.exit_code == 0, answer.output
    boxes_path = tmp_path / "boxes.json"
    for told in (BODIES.tolist(), {image.name: BODIES.tolist(), "other.jpg": []}):
        boxes_path.write_text(json.dumps(told))
        assert CliRunner().invoke(main, [*words, str(tmp_path / "b"), "--boxes-file", str(boxes_path)]).exit_code == 0
        assert _told(tmp_path / "a" / f"{image.stem}.json") == _told(tmp_path / "b" / f"{image.stem}.json")
    people = _told(tmp_path / "a" / f"{image.stem}.json")["people"]
    assert [person["number"] for person in people] == [1, 2] and people[0]["body_from"] == "box"
    assert CliRunner().invoke(main, [*words, str(tmp_path), "--boxes", "1,2,3"]).exit_code == 2


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[", "not JSON"),
        ("3", "holds a int for 1 photos"),
        ("[[1, 2, 3]]", r"holds \[1, 2, 3\]; expected a list of"),
        ('{"a.jpg": [[0, 0, 9, "x"]]}', r"'a.jpg' holds \[0, 0, 9, \"x\"\]"),
    ],
)
def test_boxes_files_that_cannot_be_read(data: tuple[Path, Path], tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "boxes.json"
    path.write_text(text)
    with pytest.raises(SettingsError, match=message):
        run_predict(PredictConfig(run=data[0], images=(_photo_paths(data[1])[0],), out=tmp_path, boxes_file=path))


def test_settings_and_strangers_are_refused(data: tuple[Path, Path], tmp_path: Path) -> None:
    image = _photo_paths(data[1])[0]
    with pytest.raises(SettingsError, match="boxes and manifest; expected one of them"):
        PredictConfig(run=data[0], images=(image,), boxes=((0, 0, 5, 5),), manifest=data[1])
    with pytest.raises(SettingsError, match="boxes need exactly one photo, found 2"):
        PredictConfig(run=data[0], images=(image, image), boxes=((0, 0, 5, 5),))
    with pytest.raises(SettingsError, match=r"boxes is \(1, 2, 3\), expected a list; each part 4 numbers"):
        PredictConfig(run=data[0], images=(image,), boxes=((1, 2, 3),))
    with pytest.raises(SettingsError, match="conf_threshold is 2, expected a number from 0 to 1"):
        PredictConfig(run=data[0], images=(image,), conf_threshold=2)
    with pytest.raises(SettingsError, match="no images; give one or more photos"):
        PredictConfig(run=data[0], images=())
    stranger = tmp_path / "stranger.jpg"
    shutil.copy(image, stranger)
    with pytest.raises(ImageError, match=r"stranger\.jpg: not below .*, the image root of"):
        run_predict(PredictConfig(run=data[0], images=(stranger,), out=tmp_path / "out", manifest=data[1]))
    with pytest.raises(TableError, match="no person in its splits has the index 999"):
        find_annotated_people(read_manifest(data[1]), "index", [999])


def test_names_of_drawings_do_not_clash() -> None:
    assert unique_stems([Path("a/x.jpg"), Path("x.png"), Path("x-2.jpg")]) == ["x", "x-2", "x-2-2"]


# Drawings


def test_boxes_are_drawn_where_they_are_and_the_photo_is_scaled() -> None:
    photo = np.full((150, 400, 3), 128, np.uint8)  # drawn at 640 px: 1.6 as large
    person = DrawnPerson(
        "x", (100, 50, 200, 125), (120, 60, 140, 80), (LabelBar("Peace", 0.5, True),), ("true: Peace",)
    )
    drawn = draw_people(photo, [person])
    blue = np.abs(drawn.astype(int) - [0x00, 0x72, 0xB2]).sum(axis=2) < 12
    assert drawn.shape[0] >= 240 and drawn.shape[1] > 640
    assert blue[150, 161] and blue[150, 319] and blue[199, 240] and not blue[150, 240]  # sides, bottom, inside
    assert blue[110, 193] and (drawn[:240, :100] == 128).all()
    track = blue[:, 640:].sum(axis=1).max()
    assert track == pytest.approx(110 / 2, abs=2)  # half of the bar


def test_nobody_is_drawn_as_the_photo_alone() -> None:
    photo = np.random.default_rng(0).integers(0, 255, (700, 500, 3)).astype(np.uint8)
    assert np.array_equal(draw_people(photo, []), photo)


def test_many_people_stay_readable() -> None:
    bars = tuple(LabelBar(name, 0.3) for name in CATEGORIES[:5])
    person = DrawnPerson(
        "a very long title that does not fit into the card at all", (0, 0, 5, 5), None, bars, ("n " * 90,)
    )
    drawn = draw_people(np.zeros((300, 640, 3), np.uint8), [person] * 12)
    assert drawn.shape[0] < 600 and (drawn[:, -5:] == 255).all()


@pytest.mark.parametrize(
    ("wh", "expected"), [((4000, 1000), (1280, 320)), ((100, 200), (320, 640)), ((900, 600), (900, 600))]
)
def test_photos_are_scaled_to_be_looked_at(wh: tuple[int, int], expected: tuple[int, int]) -> None:
    shown, scale = fit_photo(np.zeros((wh[1], wh[0], 3), np.uint8))
    assert (shown.shape[1], shown.shape[0]) == expected and scale == pytest.approx(expected[0] / wh[0])


def test_drawn_labels_say_what_is_true() -> None:
    one = PersonPrediction(
        (0, 0, 9, 9), None, "annotation", {"Anger": 0.2, "Peace": 0.9}, 4.0, 5.0, 6.0,
        true_labels=("Anger",), true_vad={"valence": 3.0, "arousal": None, "dominance": 7.0},
    )  # fmt: skip
    drawn = to_drawn(one, 2)
    assert [(bar.name, bar.is_true) for bar in drawn.bars] == [("Peace", False), ("Anger", True)]
    assert drawn.title == "annotated, no face"
    assert drawn.notes == (
        "valence 4.0, arousal 5.0, dominance 6.0",
        "true: Anger",
        "true: valence 3, dominance 7",
    )


def test_real_photo_with_the_real_detector(
    data: tuple[Path, Path], weights_dir: Path, shared_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EMOFACE_WEIGHTS", str(weights_dir))
    found = emoface.load(data[0], detector="yolov5n-face").predict(shared_dir / "photos" / "zidane.jpg")
    photo = read_photo(shared_dir / "photos" / "zidane.jpg")
    assert len(found) == 2
    for one in found:
        assert one.face_bbox is not None
        x1, y1, x2, y2 = one.body_bbox
        assert 0 <= x1 < one.face_bbox[0] and one.face_bbox[2] < x2 <= photo.shape[1]
        assert y1 <= one.face_bbox[1] and y2 == photo.shape[0]
