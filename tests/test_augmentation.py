"""Crops, mirror and colours: faces stay on what they were drawn on, on photos that are not square."""

from __future__ import annotations

import numpy as np
import pytest

from emoface.metrics.detection import LabelledFaces
from emoface.vision.augmentation import crop_faces_square, distort_colors, mirror_faces, paint_ignored
from emoface.vision.crops import Photo


def _faces(*boxes: tuple[float, float, float, float], ignored: tuple[int, ...] = ()) -> LabelledFaces:
    xyxy = np.array(boxes, np.float32).reshape(-1, 4)
    x1, y1, x2, y2 = xyxy.T[:, :, None]
    places = np.array([[0.3, 0.4], [0.7, 0.4], [0.5, 0.6], [0.35, 0.8], [0.65, 0.8]], np.float32)
    landmarks = np.stack([x1 + (x2 - x1) * places[:, 0], y1 + (y2 - y1) * places[:, 1]], axis=2)
    return LabelledFaces(xyxy, landmarks.astype(np.float32), np.isin(np.arange(len(xyxy)), ignored))


def _photo(faces: LabelledFaces, width: int = 200, height: int = 120) -> Photo:
    """Grey, each face a red box."""
    photo = np.full((height, width, 3), 90, np.uint8)
    for x1, y1, x2, y2 in faces.xyxy.astype(int):
        photo[y1:y2, x1:x2] = (250, 0, 0)
    return photo


@pytest.mark.parametrize("seed", range(25))
def test_crop_takes_the_faces_along(seed: int) -> None:
    faces = _faces((20, 30, 60, 80), (130, 10, 180, 70))
    cut, inside = crop_faces_square(np.random.default_rng(seed), _photo(faces), faces, 96)
    assert cut.shape == (96, 96, 3)
    is_red = cut[..., 0] > 200
    expected = np.zeros((96, 96), bool)
    for x1, y1, x2, y2 in inside.xyxy:
        expected[round(y1) : round(y2), round(x1) : round(x2)] = True
    near_edge = 2 * sum(2 * (box[2] - box[0] + box[3] - box[1]) for box in inside.xyxy) + 1
    assert (is_red ^ expected).sum() <= near_edge
    for box, landmarks, is_ignored in zip(inside.xyxy, inside.landmarks, inside.ignored, strict=True):
        if not is_ignored and box[0] > 0 and box[2] < 96 and box[1] > 0 and box[3] < 96:
            assert landmarks[0] == pytest.approx([box[0] + 0.3 * (box[2] - box[0]), box[1] + 0.4 * (box[3] - box[1])])


def test_crop_ignores_faces_that_are_mostly_outside() -> None:
    faces = _faces((0, 0, 200, 120))
    _, inside = crop_faces_square(np.random.default_rng(0), _photo(faces), faces, 64)
    assert inside.ignored.tolist() == [True] and inside.xyxy.tolist() == [[0, 0, 64, 64]]


def test_crop_holds_the_centre_of_a_face_that_counts() -> None:
    faces = _faces((50, 40, 70, 64), (170, 90, 196, 116), ignored=(1,))
    n_with = sum(
        bool((~crop_faces_square(np.random.default_rng(seed), _photo(faces), faces, 64)[1].ignored).any())
        for seed in range(60)
    )
    assert n_with >= 55


def test_crop_of_a_photo_without_faces() -> None:
    cut, inside = crop_faces_square(np.random.default_rng(0), _photo(_faces()), _faces(), 64)
    assert cut.shape == (64, 64, 3) and len(inside) == 0


def test_mirror_swaps_sides_of_boxes_and_landmarks_and_undoes_itself() -> None:
    faces = _faces((20, 30, 60, 80))
    photo = _photo(faces)
    mirrored, turned = mirror_faces(photo, faces)
    assert turned.xyxy.tolist() == [[140, 30, 180, 80]]
    assert (mirrored[30:80, 140:180] == (250, 0, 0)).all()
    left_eye, right_eye, _, left_mouth, right_mouth = turned.landmarks[0]
    assert left_eye == pytest.approx([200 - 48, 50]) and right_eye == pytest.approx([200 - 32, 50])
    assert left_mouth[0] < right_mouth[0]
    again, back = mirror_faces(mirrored, turned)
    assert (again == photo).all() and back.landmarks == pytest.approx(faces.landmarks)


def test_mirror_leaves_missing_landmarks_missing() -> None:
    faces = LabelledFaces(np.ones((1, 4), np.float32), np.full((1, 5, 2), np.nan, np.float32), np.zeros(1, bool))
    assert np.isnan(mirror_faces(np.zeros((4, 9, 3), np.uint8), faces)[1].landmarks).all()


def test_colours_change_with_the_generator_alone_and_stay_in_range() -> None:
    photo = np.random.default_rng(0).integers(0, 256, (20, 30, 3)).astype(np.uint8)
    first, second, other = (distort_colors(np.random.default_rng(seed), photo) for seed in (1, 1, 2))
    assert (first == second).all() and (first != other).any() and first.dtype == np.uint8
    assert first.shape == photo.shape and (first != photo).any()


def test_ignored_faces_are_painted_but_not_over_a_face_that_counts() -> None:
    faces = _faces((20, 30, 60, 80), (50, 30, 90, 80), ignored=(1,))
    painted, kept = paint_ignored(_photo(faces), faces)
    assert kept.xyxy.tolist() == [[20, 30, 60, 80]]
    assert (painted[31:79, 21:60] == (250, 0, 0)).all() and (painted[31:79, 62:90] == 114).all()
    same, _ = paint_ignored(painted, kept)
    assert same is painted
