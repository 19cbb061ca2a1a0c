"""Detectors of people: files of three forms by hand-made stand-ins, and the job that predicts the people they find."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import onnx
import pytest
import torch
from mter_data import write_photos_and_tables
from onnx import TensorProto, helper, numpy_helper
from run_data import write_finished_run

from emoface.errors import SettingsError, WeightsError
from emoface.inference.person_detectors import RtDetr, RtDetrWithSizes, YoloxDetector, load_person_detector
from emoface.inference.predictor import Predictor
from emoface.jobs.predict import PredictConfig, run_predict
from emoface.vision.crops import Photo
from emoface.vision.detections import Detections

WH = (96, 64)
RED = (255, 0, 0)
_SHARES = np.array([[0.25, 0.5, 0.3, 0.8], [0.5, 0.5, 0.2, 0.2], [0.75, 0.5, 0.2, 0.6]], np.float32)


def _save(path: Path, nodes: list[onnx.NodeProto], constants: dict[str, np.ndarray], **shapes: list[int | str]) -> Path:
    """Saves a network; ``shapes`` of inputs begin with ``in_``, those of outputs with ``out_``."""
    kinds = {"orig_target_sizes": TensorProto.INT64, "labels": TensorProto.INT64}
    values = {
        side: [
            helper.make_tensor_value_info(name.removeprefix(side), kinds.get(name.removeprefix(side), 1), shape)
            for name, shape in shapes.items()
            if name.startswith(side)
        ]
        for side in ("in_", "out_")
    }
    arrays = [numpy_helper.from_array(array, name) for name, array in constants.items()]
    graph = helper.make_graph(nodes, "stand_in", values["in_"], values["out_"], arrays)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8), path)
    return path


def _write_yolox(
    path: Path, *, decoded: bool, side: float = 2.0, person: float = 0.9, n_categories: int = 80, drop: int = 0
) -> Path:
    """Writes a stand-in for YOLOX: a cell of stride 8 with a red pixel is a person of ``side`` cells, score 0.9.

    Args:
        path: The file.
        decoded: Whether the file decodes its boxes.
        side: Sides of the boxes in cells.
        person: Score of the category person.
        n_categories: Number of categories.
        drop: Number of rows that are left out.
    """
    places, strides = [], []
    for stride in (8, 16, 32):
        columns, rows = np.meshgrid(np.arange(WH[0] // stride), np.arange(WH[1] // stride))
        places.append(np.stack([columns.ravel(), rows.ravel()], axis=1))
        strides.append(np.full((columns.size, 1), stride))
    place, stride_of = np.concatenate(places), np.concatenate(strides)
    n, n_fine = len(place), len(places[0])
    boxes = np.concatenate([np.full((n, 2), 0.5), np.full((n, 2), np.log(side))], axis=1)
    if decoded:
        boxes = np.concatenate([(place + 0.5) * stride_of, np.repeat(side * stride_of, 2, axis=1)], axis=1)
    categories = np.full((1, n, n_categories), 0.95, np.float32)
    categories[..., 0] = person
    constants = {
        "red": np.array([2], np.int64),  # of BGR
        "lowest": np.array([200], np.float32),
        "range": np.array([50], np.float32),
        "zero": np.array(0, np.float32),
        "one": np.array(1, np.float32),
        "fine": np.array([1, n_fine, 1], np.int64),
        "coarse": np.zeros((1, n - n_fine, 1), np.float32),
        "boxes": boxes[None].astype(np.float32),
        "categories": categories,
        "kept": np.arange(n - drop),
    }
    nodes = [
        helper.make_node("Gather", ["images", "red"], ["red_plane"], axis=1),
        helper.make_node("MaxPool", ["red_plane"], ["cells"], kernel_shape=[8, 8], strides=[8, 8]),
        helper.make_node("Sub", ["cells", "lowest"], ["above"]),
        helper.make_node("Div", ["above", "range"], ["scaled"]),
        helper.make_node("Clip", ["scaled", "zero", "one"], ["scores"]),
        helper.make_node("Reshape", ["scores", "fine"], ["fine_scores"]),
        helper.make_node("Concat", ["fine_scores", "coarse"], ["objects"], axis=1),
        helper.make_node("Concat", ["boxes", "objects", "categories"], ["all_rows"], axis=2),
        helper.make_node("Gather", ["all_rows", "kept"], ["output"], axis=1),
    ]
    return _save(path, nodes, constants, in_images=[1, 3, WH[1], WH[0]], out_output=[1, n - drop, 5 + n_categories])


def _red_score(image: str) -> tuple[list[onnx.NodeProto], dict[str, np.ndarray]]:
    """Nodes whose output ``score`` is 1 if the largest red value of an RGB image is 1, and at most 0.5 if it is not."""
    constants = {
        "first": np.array([0], np.int64),
        "sides": np.array([1, 2, 3], np.int64),
        "one": np.array(1, np.float32),
        "half": np.array(0.5, np.float32),
    }
    nodes = [
        helper.make_node("Gather", [image, "first"], ["red_plane"], axis=1),
        helper.make_node("ReduceMax", ["red_plane", "sides"], ["largest"], keepdims=0),
        helper.make_node("Sub", ["largest", "one"], ["difference"]),
        helper.make_node("Abs", ["difference"], ["distance"]),
        helper.make_node("Mul", ["distance", "half"], ["half_distance"]),
        helper.make_node("Sub", ["one", "half_distance"], ["score"]),
    ]
    return nodes, constants


def _write_rt_detr(path: Path, n_categories: int = 80, height: int | str = WH[1]) -> Path:
    """Writes a stand-in for RT-DETR of Hugging Face: a person, a bus, and a person of little score."""
    logits = np.full((1, 3, n_categories), -9, np.float32)
    logits[0, 0, 0], logits[0, 1, 5 % n_categories], logits[0, 2, 0] = 4, 8, -1
    nodes, constants = _red_score("pixel_values")
    nodes += [
        helper.make_node("Mul", ["all_logits", "score"], ["logits"]),
        helper.make_node("Identity", ["all_boxes"], ["pred_boxes"]),
    ]
    constants |= {"all_logits": logits, "all_boxes": _SHARES[None]}
    width = WH[0] if isinstance(height, int) else "width"
    shapes: dict[str, list[int | str]] = {"out_logits": [1, 3, n_categories], "out_pred_boxes": [1, 3, 4]}
    return _save(path, nodes, constants, in_pixel_values=[1, 3, height, width], **shapes)


def _write_rt_detr_with_sizes(path: Path) -> Path:
    """Writes a stand-in for RT-DETR of its authors: the same boxes and scores, in pixels of the photo."""
    nodes, constants = _red_score("images")
    shares = np.concatenate([_SHARES[:, :2] - _SHARES[:, 2:] / 2, _SHARES[:, :2] + _SHARES[:, 2:] / 2], axis=1)
    constants |= {
        "shares": shares[None],
        "all_scores": np.array([[0.98, 0.99, 0.27]], np.float32),
        "all_labels": np.array([[0, 5, 0]], np.int64),
    }
    nodes += [
        helper.make_node("Cast", ["orig_target_sizes"], ["sizes"], to=TensorProto.FLOAT),
        helper.make_node("Concat", ["sizes", "sizes"], ["corners"], axis=1),
        helper.make_node("Mul", ["shares", "corners"], ["boxes"]),
        helper.make_node("Mul", ["all_scores", "score"], ["scores"]),
        helper.make_node("Identity", ["all_labels"], ["labels"]),
    ]
    shapes: dict[str, list[int | str]] = {"out_labels": [1, 3], "out_boxes": [1, 3, 4], "out_scores": [1, 3]}
    return _save(path, nodes, constants, in_images=[1, 3, WH[1], WH[0]], in_orig_target_sizes=[1, 2], **shapes)


def _photo(*spots: tuple[int, int], color: tuple[int, int, int] = RED) -> Photo:
    """A dark photo of 300 x 100 with spots of 12 pixels; in the 96 x 64 input it is 96 x 32."""
    photo = np.full((100, 300, 3), 20, np.uint8)
    for x, y in spots:
        photo[y : y + 12, x : x + 12] = color
    return photo


@pytest.mark.parametrize("decoded", [False, True])
@pytest.mark.parametrize("n_categories", [80, 1])
def test_yolox_by_hand(tmp_path: Path, decoded: bool, n_categories: int) -> None:
    path = _write_yolox(tmp_path / "yolox.onnx", decoded=decoded, n_categories=n_categories)
    detector = load_person_detector(str(path), 0.5)
    assert isinstance(detector, YoloxDetector) and detector.name == "yolox"
    found = detector.find(_photo((200, 25), (150, 50)))
    # The spot at (150, 50) is at (48, 16) of the input, in the cell with the centre (52, 20): box (44, 12, 60, 28).
    # That at (200, 25) is at (64, 8), with the centre (68, 12).
    expected = np.array([[44, 12, 60, 28], [60, 4, 76, 20]]) / 0.32
    assert found.xyxy == pytest.approx(expected) and found.conf == pytest.approx([0.9, 0.9])
    assert len(detector.find(_photo((150, 50), color=(0, 0, 255))).conf) == 0
    assert detector.find(_photo()).xyxy.shape == (0, 4)


def test_yolox_keeps_one_of_overlapping_boxes_inside_the_photo(tmp_path: Path) -> None:
    path = _write_yolox(tmp_path / "yolox.onnx", decoded=False, side=4.0)
    found = load_person_detector(str(path), 0.5).find(_photo((0, 0), (25, 0), (150, 50)))
    # Boxes of 32 pixels around (4, 4) and (12, 4) overlap by 24 of 40; the first is cut at the border of the photo.
    assert found.xyxy == pytest.approx(np.array([[0, 0, 20, 20], [36, 4, 68, 32]]) / 0.32, abs=1)
    assert found.xyxy[0].tolist() == [0, 0, 62.5, 62.5]


def test_other_categories_and_low_scores_are_left_out(tmp_path: Path) -> None:
    path = str(_write_yolox(tmp_path / "bus.onnx", decoded=True, person=0.4))
    assert len(load_person_detector(path, 0.5).find(_photo((150, 50))).conf) == 0
    assert load_person_detector(path, 0.3).find(_photo((150, 50))).conf == pytest.approx([0.4])


@pytest.mark.parametrize("height", [WH[1], "height"])
def test_rt_detr_of_hugging_face_by_hand(tmp_path: Path, height: int | str) -> None:
    detector = load_person_detector(str(_write_rt_detr(tmp_path / "r.onnx", height=height)), 0.5)
    assert isinstance(detector, RtDetr)
    found = detector.find(_photo((150, 50)))
    assert found.xyxy == pytest.approx(np.array([[30, 10, 120, 90]]), abs=1e-3)
    assert found.conf == pytest.approx([1 / (1 + np.exp(-4))])
    low = load_person_detector(str(tmp_path / "r.onnx"), 0.2).find(_photo((150, 50)))
    assert low.xyxy == pytest.approx(np.array([[30, 10, 120, 90], [195, 20, 255, 80]]), abs=1e-3)


def test_rt_detr_of_its_authors_by_hand(tmp_path: Path) -> None:
    detector = load_person_detector(str(_write_rt_detr_with_sizes(tmp_path / "r.onnx")), 0.9)
    assert isinstance(detector, RtDetrWithSizes)
    found = detector.find(_photo((150, 50)))
    assert found.xyxy == pytest.approx(np.array([[30, 10, 120, 90]]), abs=1e-3)
    assert found.conf == pytest.approx([0.98])
    assert len(detector.find(_photo((150, 50), color=(0, 0, 255))).conf) == 0  # red is the first channel


def test_files_that_are_no_detector_of_people_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.onnx").write_bytes(b"no network")
    with pytest.raises(WeightsError, match=r"a\.onnx: not a readable ONNX model"):
        load_person_detector(str(tmp_path / "a.onnx"), 0.5)
    with pytest.raises(WeightsError, match=r"gone\.onnx: no such weight file"):
        load_person_detector(str(tmp_path / "gone.onnx"), 0.5)
    _write_yolox(tmp_path / "b.onnx", decoded=True, drop=1)
    with pytest.raises(WeightsError, match=r"b\.onnx: returns 125 boxes for an input of 96 x 64 pixels; expected"):
        load_person_detector(str(tmp_path / "b.onnx"), 0.5)
    _write_yolox(tmp_path / "c.onnx", decoded=True, n_categories=20)
    with pytest.raises(WeightsError, match=r"c\.onnx: has 20 categories, expected the 80 of COCO"):
        load_person_detector(str(tmp_path / "c.onnx"), 0.5)
    _write_rt_detr(tmp_path / "d.onnx", n_categories=92)
    with pytest.raises(WeightsError, match=r"d\.onnx: has 92 categories"):
        load_person_detector(str(tmp_path / "d.onnx"), 0.5)
    nodes = [helper.make_node("Identity", ["x"], ["y"])]
    _save(tmp_path / "e.onnx", nodes, {}, in_x=[1, 3, 8, 8], out_y=[1, 3, 8, 8])
    with pytest.raises(WeightsError, match=r"e\.onnx: inputs x \[1, 3, 8, 8\], outputs y \[1, 3, 8, 8\]; expected"):
        load_person_detector(str(tmp_path / "e.onnx"), 0.5)
    with pytest.raises(WeightsError, match="no weights 'yolox-s' in"):
        load_person_detector("yolox-s", 0.5)


class _OneFace:
    uses_one_core = True

    def detect(self, images: list[Photo]) -> list[Detections]:
        face = np.array([[60, 14, 90, 44]], np.float32)
        return [Detections(face, np.ones((1, 5, 2), np.float32), np.full(1, 0.9, np.float32)) for _ in images]


def test_detected_people_get_their_faces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.set_num_threads(1)
    run = write_finished_run(tmp_path / "run", write_photos_and_tables(tmp_path, 4))
    monkeypatch.setattr(Predictor, "detector", _OneFace())
    image = tmp_path / "photo.png"
    assert cv2.imwrite(str(image), _photo((150, 50))[..., ::-1])
    path = _write_rt_detr(tmp_path / "r.onnx")
    config = PredictConfig(
        run=run,
        images=(image,),
        people="detector",
        person_detector=str(path),
        person_conf_threshold=0.2,
        out=tmp_path / "out",
    )
    run_predict(config)
    people = json.loads((tmp_path / "out" / "photo.json").read_text(encoding="utf-8"))["people"]
    assert [one["body_bbox"] for one in people] == [
        pytest.approx([30, 10, 120, 90], abs=1e-3),
        pytest.approx([195, 20, 255, 80], abs=1e-3),
    ]
    assert [one["face_bbox"] for one in people] == [[60, 14, 90, 44], None]
    assert {one["body_from"] for one in people} == {"detector"} and all(one["probabilities"] for one in people)


def test_settings_that_contradict_each_other() -> None:
    image = (Path("a.jpg"),)
    with pytest.raises(SettingsError, match="people is detector without a person_detector"):
        PredictConfig(run="run", images=image, people="detector")
    with pytest.raises(SettingsError, match="person_detector is given, but people are found by faces"):
        PredictConfig(run="run", images=image, person_detector="yolox.onnx")
    with pytest.raises(SettingsError, match="people are given by boxes and found by a detector"):
        PredictConfig(run="run", images=image, boxes=((0, 0, 5, 5),), people="detector", person_detector="x.onnx")
