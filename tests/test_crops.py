"""Crops: whole-pixel squares, repeated borders, and alignment that undoes a known transform."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from emoface.vision.crops import ALIGNED_LANDMARKS, align_face, crop_square, similarity_transform, square_box


def test_square_is_centred_and_gains_the_margin_on_every_side() -> None:
    assert square_box(np.array([100, 40, 140, 120], np.float32), margin=0.25) == (60, 20, 120)
    assert square_box(np.array([5, 5, 5, 5], np.float32), margin=0.5) == (4, 4, 1)


def test_crop_inside_is_the_photo_itself_and_a_copy() -> None:
    photo = np.arange(4 * 6 * 3, dtype=np.uint8).reshape(4, 6, 3)
    crop = crop_square(photo, left=2, top=1, side=3)
    assert np.array_equal(crop, photo[1:4, 2:5])
    crop[:] = 0
    assert photo[1:4, 2:5].any()


def test_crop_beyond_the_border_repeats_the_nearest_pixel() -> None:
    photo = np.zeros((2, 3, 3), np.uint8)
    photo[..., 0] = [[1, 2, 3], [4, 5, 6]]
    assert crop_square(photo, left=1, top=-1, side=4)[..., 0].tolist() == [
        [2, 3, 3, 3],
        [2, 3, 3, 3],
        [5, 6, 6, 6],
        [5, 6, 6, 6],
    ]


def test_similarity_transform_recovers_turn_scale_and_shift() -> None:
    generator = np.random.default_rng(0)
    points = generator.uniform(0, 50, (5, 2))
    angle, scale, shift = 0.4, 1.7, np.array([12.0, -3.0])
    turn = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    matrix = similarity_transform(points, points @ turn.T + shift)
    assert matrix == pytest.approx(np.hstack([turn, shift[:, None]]))


def test_aligned_face_has_its_landmarks_on_the_template() -> None:
    side, margin = 80, 0.1
    template = (ALIGNED_LANDMARKS + margin) / (1 + 2 * margin) * side
    turn = cv2.getRotationMatrix2D((40, 40), 25, 1.5)
    landmarks = (np.hstack([template, np.ones((5, 1))]) @ turn.T + [60, 30]).astype(np.float32)
    photo = np.zeros((160, 220, 3), np.uint8)
    for x, y in landmarks:
        cv2.circle(photo, (round(float(x)), round(float(y))), 2, (255, 255, 255), -1)
    aligned = align_face(photo, landmarks, side, margin)
    assert aligned.shape == (side, side, 3)
    for x, y in template:
        assert aligned[round(y), round(x), 0] > 200
