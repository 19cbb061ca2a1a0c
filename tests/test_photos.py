"""The photos of a data set: their people, their digest, and their pixels in the frame of the boxes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from emoface.datasets.photos import group_photos, photo_digest, read_in_frame, try_in_frame
from emoface.errors import ImageError
from emoface.storage.files import stat_digest


def _write(path: Path, orientation: int = 1) -> Path:
    """A photo of 60 x 40, its left half white."""
    pixels = np.zeros((40, 60, 3), np.uint8)
    pixels[:, :30] = 255
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(pixels).save(path, exif=exif, quality=95)
    return path


def test_photos_come_in_order_of_first_appearance_with_all_of_their_rows() -> None:
    wh = np.array([[60, 40], [30, 20], [60, 40], [8, 9]], np.float32)
    photos = group_photos(["b", "a", "b", "c"], wh)
    assert [(one.image, one.image_wh, one.rows.tolist()) for one in photos] == [
        ("b", (60, 40), [0, 2]), ("a", (30, 20), [1]), ("c", (8, 9), [3]),
    ]  # fmt: skip
    assert photos[0].rows.dtype == np.int64
    assert group_photos([], np.zeros((0, 2), np.float32)) == []


def test_digest_is_of_the_photos_alone_and_changes_with_each(tmp_path: Path) -> None:
    for name in ("a.jpg", "b.jpg"):
        _write(tmp_path / name)
    photos = group_photos(["a.jpg", "b.jpg", "a.jpg"], np.full((3, 2), 60, np.float32))
    before = photo_digest(tmp_path, photos)
    assert before == stat_digest(tmp_path, ["a.jpg", "b.jpg"]) != photo_digest(tmp_path, photos[:1])
    (tmp_path / "b.jpg").unlink()
    assert photo_digest(tmp_path, photos) != before


@pytest.mark.parametrize(
    ("orientation", "image_wh", "shape", "exif"),
    [
        (1, (60, 40), (40, 60, 3), ""),
        (6, (60, 40), (40, 60, 3), "ignored"),
        (6, (40, 60), (60, 40, 3), "applied"),
        (6, (99, 99), (40, 60, 3), "ignored"),
    ],
)
def test_photo_is_turned_only_where_the_boxes_are_of_the_turned_photo(
    tmp_path: Path, orientation: int, image_wh: tuple[int, int], shape: tuple[int, ...], exif: str
) -> None:
    photo = read_in_frame(_write(tmp_path / "a.jpg", orientation), image_wh)
    assert photo.pixels.shape == shape and photo.exif == exif
    white = photo.pixels[:30] if exif == "applied" else photo.pixels[:, :30]  # a quarter turn clockwise: left is on top
    assert white.mean() > 240 and photo.pixels.mean() < 140


def test_photos_that_cannot_be_read_raise_or_have_a_status(tmp_path: Path) -> None:
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"no photo")
    missing = tmp_path / "missing.jpg"
    with pytest.raises(ImageError, match=r"broken\.jpg: not a readable photo"):
        read_in_frame(broken, (60, 40))
    with pytest.raises(ImageError, match=r"missing\.jpg: no such photo"):
        read_in_frame(missing, (60, 40))
    for path, status in ((broken, "image_unreadable"), (missing, "image_missing")):
        attempt = try_in_frame(path, (60, 40))
        assert attempt.photo is None and attempt.status == status
    attempt = try_in_frame(_write(tmp_path / "a.jpg"), (60, 40))
    assert attempt.photo is not None and attempt.status == ""
