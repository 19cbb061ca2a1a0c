"""The photos of a data set: their people, their digest, and their pixels in the frame of the boxes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from emoface.datasets.photos import PhotoFolder, group_photos, photo_digest
from emoface.errors import ImageError
from emoface.storage.files import stat_digest
from emoface.vision.orientation import Frame


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
    ("orientation", "image_wh", "undecided", "frame"),
    [
        (1, (60, 40), "upright", None),
        (6, (60, 40), "upright", "stored"),
        (6, (40, 60), "stored", "upright"),
        (6, (99, 99), "stored", "stored"),
        (6, (99, 99), "upright", "upright"),
        (3, (60, 40), "upright", "upright"),
    ],
)
def test_photo_is_always_upright_and_its_boxes_are_turned_from_their_frame(
    tmp_path: Path, orientation: int, image_wh: tuple[int, int], undecided: Frame, frame: Frame | None
) -> None:
    _write(tmp_path / "a.jpg", orientation)
    photo = PhotoFolder(tmp_path, undecided).read("a.jpg", image_wh)
    assert photo.boxes_frame == frame
    white = {1: photo.pixels[:, :30], 3: photo.pixels[:, 30:], 6: photo.pixels[:30]}[orientation]
    assert white.mean() > 240 and photo.pixels.mean() < 140
    half = np.array([0, 0, 30, 40], np.float32)  # the white half, stored
    turned = {1: [0, 0, 30, 40], 3: [30, 0, 60, 40], 6: [0, 0, 40, 30]}[orientation]
    if frame == "upright":
        half = np.array(turned, np.float32)
    assert photo.turn.to_upright(half).tolist() == turned
    assert photo.turn.to_stored(np.array(turned, np.float32)).tolist() == half.tolist()


def test_photos_that_cannot_be_read_raise_or_have_a_status_and_a_reason(tmp_path: Path) -> None:
    (tmp_path / "broken.jpg").write_bytes(b"no photo")
    photos = PhotoFolder(tmp_path)
    with pytest.raises(ImageError, match=r"broken\.jpg: not a readable photo"):
        photos.read("broken.jpg", (60, 40))
    with pytest.raises(ImageError, match=r"missing\.jpg: no such photo"):
        photos.read("missing.jpg", (60, 40))
    attempts = {name: photos.try_read(name, (60, 40)) for name in ("broken.jpg", "missing.jpg")}
    assert [(one.photo, one.status) for one in attempts.values()] == [
        (None, "image_unreadable"), (None, "image_missing"),
    ]  # fmt: skip
    assert attempts["broken.jpg"].reason.startswith("not a readable photo (starts with b'no photo'")
    _write(tmp_path / "a.jpg")
    attempt = photos.try_read("a.jpg", (60, 40))
    assert attempt.photo is not None and attempt.status == attempt.reason == ""


def test_folder_of_an_older_record_takes_the_stored_frame(tmp_path: Path) -> None:
    assert PhotoFolder.of_record({"image_root": str(tmp_path)}, Path("work")) == PhotoFolder(tmp_path, "stored")
    info = {"image_root": str(tmp_path), "undecided_frame": "upright"}
    assert PhotoFolder.of_record(info, Path("work")) == PhotoFolder(tmp_path, "upright")
    relative = {"image_root": "../photos"}
    assert PhotoFolder.of_record(relative, tmp_path / "work") == PhotoFolder(tmp_path / "photos")
