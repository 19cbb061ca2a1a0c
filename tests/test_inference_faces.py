"""Finding faces: settings and what a data set keeps of them, the detector that is loaded, and who gets which crop."""

from __future__ import annotations

import typing
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from emoface.errors import SettingsError
from emoface.inference import faces
from emoface.inference.faces import (
    Backend,
    DetectorSettings,
    FaceSettings,
    crop_all_faces,
    crop_assigned_faces,
    describe_faces,
    load_face_detector,
    read_face_settings,
)
from emoface.storage.weights import WeightsFile
from emoface.vision.crops import crop_face
from emoface.vision.detections import Detections
from emoface.vision.images import decode_photo

WEIGHTS = WeightsFile("drawn", "yolov5n-face", Path("drawn.bin"), "ab" * 32, "option")
KEPT = {
    "detector": "drawn",
    "weights_sha256": "ab" * 32,
    "backend": "onnx",
    "conf_threshold": 0.4,
    "iou_threshold": 0.5,
    "image_size": 320,
    "margin": 0.25,
    "align": True,
    "min_face_size": 30.0,
}
PHOTO_WH = (200, 120)
FACES = np.array([[130, 15, 154, 39], [30, 15, 54, 39], [-6, 50, 8, 64]], np.float32)
BODIES = np.array([[10, 10, 80, 115], [110, 10, 180, 115], [0, 60, 10, 70]], np.float32)


def _found(xyxy: np.ndarray) -> Detections:
    n = len(xyxy)
    return Detections(xyxy, np.ones((n, 5, 2), np.float32), np.linspace(0.9, 0.5, n).astype(np.float32))


def _photo() -> np.ndarray:
    photo = np.full((PHOTO_WH[1], PHOTO_WH[0], 3), 40, np.uint8)
    photo[15:39, 130:154] = 200
    return photo


def test_a_data_set_keeps_every_setting_and_gives_all_but_the_engine_back() -> None:
    settings = FaceSettings(
        detector="drawn", backend="onnx", conf_threshold=0.4, image_size=320, margin=0.25, align=True, min_face_size=30
    )
    assert describe_faces(settings, WEIGHTS) == KEPT and list(describe_faces(settings, WEIGHTS)) == list(KEPT)
    manifest = {("name" if name == "detector" else name): value for name, value in KEPT.items()}
    assert read_face_settings(manifest) == settings.replace(backend="auto")


def test_what_an_older_data_set_does_not_tell_is_the_default() -> None:
    assert read_face_settings({"name": "drawn", "margin": 0.0}) == FaceSettings(detector="drawn", margin=0.0)
    assert read_face_settings({}) == FaceSettings() and FaceSettings().min_face_size == 10


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"backend": "onx"}, "backend is 'onx'; did you mean 'onnx'"),
        ({"conf_threshold": 1.5}, "conf_threshold is 1.5, expected a number from 0 to 1"),
        ({"iou_threshold": -1}, "iou_threshold is -1, expected a number from 0 to 1"),
        ({"image_size": 0}, "image_size is 0, expected 1 or more"),
        ({"margin": -0.1}, "margin is -0.1, expected 0 or more"),
        ({"min_face_size": -1}, "min_face_size is -1, expected 0 or more"),
        ({"min_face": 5}, "there is no setting 'min_face'; did you mean 'min_face_size'"),
    ],
)
def test_settings_out_of_range_are_named(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        FaceSettings(**changes)


def test_backends_are_those_of_the_detector() -> None:
    from emoface.yolov5face import BACKENDS

    assert typing.get_args(Backend) == BACKENDS


def test_detector_is_loaded_as_the_settings_say(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[tuple[Any, ...], dict[str, Any]]] = []
    monkeypatch.setattr("emoface.yolov5face.load_detector", lambda *args, **kwargs: calls.append((args, kwargs)))
    monkeypatch.setattr(faces, "find_weights", lambda name, path: WEIGHTS if (name, path) == ("drawn", None) else None)
    settings = DetectorSettings(detector="drawn", backend="torch", conf_threshold=0.1, iou_threshold=0.3, image_size=64)
    load_face_detector(settings)
    load_face_detector(settings.replace(detector="elsewhere"), WEIGHTS)
    expected = {"network": "yolov5n-face", "backend": "torch", "image_size": 64}
    expected = {**expected, "conf_threshold": 0.1, "iou_threshold": 0.3, "n_threads": None}
    assert calls == [((Path("drawn.bin"),), expected)] * 2
    load_face_detector(settings, WEIGHTS, n_threads=3)
    assert calls[2] == ((Path("drawn.bin"),), expected | {"n_threads": 3})


def test_people_get_their_faces_or_the_reason() -> None:
    settings = FaceSettings(margin=0.25)
    left, right, nobody = crop_assigned_faces(_photo(), BODIES, _found(FACES), settings)
    assert (left.status, right.status, nobody.status) == ("found", "found", "no_face") and nobody.face is None
    assert right.face is not None and right.face.xyxy.tolist() == [130, 15, 154, 39]
    assert right.face.conf == pytest.approx(0.9) and right.face.landmarks.shape == (5, 2)
    crop = decode_photo(right.face.jpeg, "crop")
    assert crop.shape == (36, 36, 3) and crop[18, 18, 0] > 180 and crop[2, 2, 0] < 60
    small = crop_assigned_faces(_photo(), BODIES, _found(FACES), settings.replace(min_face_size=24.5))
    assert [one.status for one in small] == ["too_small", "too_small", "no_face"]
    shared = crop_assigned_faces(_photo(), BODIES[[1, 1]], _found(FACES), settings)
    assert sorted(one.status for one in shared) == ["found", "other_person"]


def test_nobody_and_no_face_are_ordinary() -> None:
    none = np.zeros((0, 4), np.float32)
    assert crop_assigned_faces(_photo(), none, _found(FACES), FaceSettings()) == []
    assert [one.status for one in crop_assigned_faces(_photo(), BODIES, _found(none), FaceSettings())] == [
        "no_face"
    ] * 3
    assert crop_all_faces(_photo(), _found(none), FaceSettings()) == []


def test_all_faces_come_from_left_to_right_cut_at_the_border_and_large_enough() -> None:
    every = crop_all_faces(_photo(), _found(FACES), FaceSettings(min_face_size=8))
    assert [face.xyxy.tolist() for face in every] == [[0, 50, 8, 64], [30, 15, 54, 39], [130, 15, 154, 39]]
    assert len(crop_all_faces(_photo(), _found(FACES), FaceSettings(min_face_size=8.5))) == 2


def test_crop_is_the_square_around_the_box_or_turned_by_the_landmarks() -> None:
    photo = np.random.default_rng(0).integers(0, 255, (80, 120, 3)).astype(np.uint8)
    landmarks = np.array([[40, 30], [52, 36], [44, 40], [36, 44], [46, 49]], np.float32)
    box = np.array([30, 20, 60, 50], np.float32)
    plain = crop_face(photo, box, landmarks, margin=0.0, align=False)
    assert np.array_equal(plain, photo[20:50, 30:60])
    turned = crop_face(photo, box, landmarks, margin=0.5, align=True)
    upright = crop_face(photo, box, landmarks, margin=0.5, align=False)
    assert turned.shape == upright.shape == (60, 60, 3) and not np.array_equal(turned, upright)
