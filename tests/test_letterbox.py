"""Photos inside a network's input, there and back."""

from __future__ import annotations

import numpy as np
import pytest

from emoface.vision.detections import Detections
from emoface.vision.letterbox import PAD_VALUE, Letterbox


def _inside(letterbox: Letterbox, photo: np.ndarray) -> np.ndarray:
    """The network's input for a photo, as (net_height, net_width, 3) of 0-255."""
    net_width, net_height = letterbox.net_wh
    planes = np.full((3, net_height, net_width), np.nan, np.float32)
    letterbox.write_input(photo, planes)
    return np.rint(255 * planes.transpose(1, 2, 0)).astype(np.int64)


@pytest.mark.parametrize(
    ("image_wh", "scaled_wh", "net_wh", "offset"),
    [
        ((1280, 720), (640, 360), (640, 384), (0, 12)),
        ((720, 1280), (360, 640), (384, 640), (12, 0)),
        ((640, 640), (640, 640), (640, 640), (0, 0)),
        ((100, 50), (640, 320), (640, 320), (0, 0)),
        ((1001, 333), (640, 213), (640, 224), (0, 5)),
        ((5000, 3), (640, 1), (640, 32), (0, 15)),
        ((1, 1), (640, 640), (640, 640), (0, 0)),
    ],
)
def test_longer_side_fits_and_padding_reaches_the_next_stride(
    image_wh: tuple[int, int], scaled_wh: tuple[int, int], net_wh: tuple[int, int], offset: tuple[int, int]
) -> None:
    letterbox = Letterbox.fit(image_wh, image_size=640, stride=32)
    assert letterbox == Letterbox(image_wh, scaled_wh, net_wh, offset)


@pytest.mark.parametrize("image_wh", [(1280, 720), (333, 1001), (37, 19)])
def test_coordinates_come_back_as_they_were(image_wh: tuple[int, int]) -> None:
    letterbox = Letterbox.fit(image_wh, image_size=320, stride=32)
    points = np.random.default_rng(0).uniform(-50, 1500, (4, 5, 2)).astype(np.float32)
    back = letterbox.to_image(letterbox.to_net(points))
    assert back.shape == points.shape and back.dtype == np.float32
    np.testing.assert_allclose(back, points, rtol=1e-5, atol=1e-3)


def test_corners_of_the_photo_become_corners_of_the_picture_inside() -> None:
    letterbox = Letterbox.fit((1001, 333), image_size=640, stride=32)
    corners = letterbox.to_net(np.array([[0, 0, 1001, 333]], np.float32))
    np.testing.assert_allclose(corners, [[0, 5, 640, 218]], rtol=1e-6)


def test_a_spot_of_the_photo_lies_where_the_coordinates_say() -> None:
    photo = np.zeros((120, 300, 3), np.uint8)
    photo[60:80, 200:240] = (10, 200, 90)
    letterbox = Letterbox.fit((300, 120), image_size=160, stride=32)
    inside = _inside(letterbox, photo)
    assert inside.shape == (64, 160, 3) and letterbox.offset == (0, 0)
    x, y = letterbox.to_net(np.array([[220, 70]], np.float32))[0]
    assert inside[round(float(y)), round(float(x))].tolist() == [10, 200, 90]


def test_padding_is_grey_and_a_photo_of_the_right_size_is_copied() -> None:
    photo = np.random.default_rng(0).integers(0, 256, (40, 64, 3), dtype=np.uint8)
    inside = _inside(Letterbox.fit((64, 40), image_size=64, stride=32), photo)
    assert inside.shape == (64, 64, 3)
    assert (inside[12:52] == photo).all()
    assert (inside[:12] == PAD_VALUE).all() and (inside[52:] == PAD_VALUE).all()


def test_shrinking_averages_over_areas() -> None:
    stripes = np.zeros((64, 128, 3), np.uint8)
    stripes[:, ::2] = 200
    assert (_inside(Letterbox.fit((128, 64), image_size=64, stride=32), stripes) == 100).all()


@pytest.mark.parametrize(
    ("image_wh", "n_halvings", "covered_wh"),
    [
        ((320, 160), 0, (320, 160)),  # enlarged
        ((2559, 1400), 0, (2559, 1400)),
        ((2560, 1440), 1, (2560, 1440)),
        ((2563, 1443), 1, (2562, 1442)),
        ((5123, 3843), 2, (5120, 3840)),
        ((5000, 3), 0, (5000, 3)),  # the shorter side has one pixel inside the network's input
        ((5000, 5), 1, (5000, 4)),
    ],
)
def test_large_photos_are_halved_as_long_as_they_stay_large_enough(
    image_wh: tuple[int, int], n_halvings: int, covered_wh: tuple[int, int]
) -> None:
    letterbox = Letterbox.fit(image_wh, image_size=640, stride=32)
    assert (letterbox.n_halvings, letterbox.covered_wh) == (n_halvings, covered_wh)


@pytest.mark.parametrize("wh", [(2602, 1733), (1941, 2913), (5139, 1283)])
def test_halving_first_averages_over_the_same_areas(wh: tuple[int, int]) -> None:
    """The mean colour and the middle of a smooth spot are those of the photo, to a fraction of a network pixel."""
    x, y = np.meshgrid(np.arange(wh[0]) + 0.5, np.arange(wh[1]) + 0.5)
    middle = np.array([[0.93 * wh[0], 0.8 * wh[1]]], np.float32)
    spot = np.exp(-((x - middle[0, 0]) ** 2 + (y - middle[0, 1]) ** 2) / (2 * (0.01 * max(wh)) ** 2))
    photo = np.repeat(np.rint(250 * spot).astype(np.uint8)[..., None], 3, axis=2)
    letterbox = Letterbox.fit(wh, image_size=640, stride=32)
    assert letterbox.n_halvings > 0
    (left, top), (width, height) = letterbox.offset, letterbox.scaled_wh
    inside = _inside(letterbox, photo)[top : top + height, left : left + width, 0]
    x, y = np.meshgrid(np.arange(width) + 0.5 + left, np.arange(height) + 0.5 + top)
    found = [(x * inside).sum() / inside.sum(), (y * inside).sum() / inside.sum()]
    np.testing.assert_allclose(found, letterbox.to_net(middle)[0], atol=0.05)
    assert inside.mean() == pytest.approx(photo.mean(), rel=0.01)


def test_nothing_goes_through_as_nothing() -> None:
    letterbox = Letterbox.fit((300, 120), image_size=160, stride=32)
    assert letterbox.to_image(np.zeros((0, 4), np.float32)).shape == (0, 4)
    assert letterbox.to_net(np.zeros((0, 5, 2), np.float32)).shape == (0, 5, 2)


@pytest.mark.parametrize(
    ("image_wh", "image_size", "message"),
    [((0, 10), 640, "sides of at least 1"), ((10, 10), 600, "multiple of 32"), ((10, 10), 0, "multiple of 32")],
)
def test_sizes_that_cannot_be_are_refused(image_wh: tuple[int, int], image_size: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Letterbox.fit(image_wh, image_size, stride=32)


def test_a_photo_of_another_size_is_refused() -> None:
    letterbox = Letterbox.fit((300, 120), 160, 32)
    planes = np.zeros((3, 64, 160), np.float32)
    with pytest.raises(ValueError, match=r"image has shape \(300, 120, 3\), expected \(120, 300, 3\)"):
        letterbox.write_input(np.zeros((300, 120, 3), np.uint8), planes)
    with pytest.raises(ValueError, match=r"planes has shape \(64, 160, 3\), expected \(3, 64, 160\)"):
        letterbox.write_input(np.zeros((120, 300, 3), np.uint8), planes.transpose(1, 2, 0))


def test_detections_are_subset_together_and_check_their_shapes() -> None:
    xyxy = np.arange(12, dtype=np.float32).reshape(3, 4)
    landmarks = np.arange(30, dtype=np.float32).reshape(3, 5, 2)
    faces = Detections(xyxy, landmarks, np.array([0.9, 0.5, 0.7], np.float32))
    picked = faces[faces.conf > 0.6]
    assert len(faces) == 3 and len(picked) == 2 and len(Detections.empty()) == 0
    assert picked.xyxy.tolist() == [xyxy[0].tolist(), xyxy[2].tolist()]
    assert picked.landmarks.tolist() == [landmarks[0].tolist(), landmarks[2].tolist()]
    with pytest.raises(ValueError, match=r"landmarks has shape \(2, 5, 2\), expected \(3, 5, 2\)"):
        Detections(xyxy, landmarks[:2], faces.conf)
