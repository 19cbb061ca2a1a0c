"""Photos: EXIF, colour order, and every way in which a file is no photo."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from emoface.errors import ImageError
from emoface.vision.images import PhotoSize, encode_jpeg, needs_exif_turn, read_photo, read_photo_size


def _write_photo(path: Path, orientation: int | None = None) -> None:
    pixels = np.zeros((40, 60, 3), np.uint8)
    pixels[:20, :30] = (250, 10, 10)  # the top left quarter is red
    exif = Image.Exif()
    if orientation is not None:
        exif[0x0112] = orientation
    Image.fromarray(pixels).save(path, exif=exif, quality=95)


def test_size_comes_from_the_header_with_its_orientation(tmp_path: Path) -> None:
    _write_photo(tmp_path / "plain.jpg")
    _write_photo(tmp_path / "turned.jpg", orientation=6)
    _write_photo(tmp_path / "odd.jpg", orientation=77)
    assert read_photo_size(tmp_path / "plain.jpg") == PhotoSize((60, 40), 1)
    assert read_photo_size(tmp_path / "turned.jpg").oriented_wh == (40, 60)
    assert read_photo_size(tmp_path / "odd.jpg") == PhotoSize((60, 40), 1)


@pytest.mark.parametrize("orientation", [1, 3])
def test_orientations_that_keep_the_sides_never_ask_for_a_turn(orientation: int) -> None:
    assert not needs_exif_turn(PhotoSize((60, 40), orientation), (60, 40))
    assert not needs_exif_turn(PhotoSize((60, 40), orientation), (40, 60))


def test_stored_pixels_come_back_in_rgb_unless_a_turn_is_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "turned.jpg"
    _write_photo(path, orientation=6)  # 6: the stored photo is to be turned clockwise
    stored, turned = read_photo(path), read_photo(path, apply_exif=True)
    assert stored.shape == (40, 60, 3) and turned.shape == (60, 40, 3)
    assert stored[5, 5, 0] > 200 and stored[5, 5, 2] < 60
    assert turned[5, 35, 0] > 200 and turned[5, 5, 0] < 60


def test_grey_photo_comes_back_with_three_channels(tmp_path: Path) -> None:
    Image.fromarray(np.full((8, 12), 90, np.uint8)).save(tmp_path / "grey.png")
    photo = read_photo(tmp_path / "grey.png")
    assert photo.shape == (8, 12, 3) and (photo == 90).all()


def test_encoded_jpeg_keeps_the_colour_order(tmp_path: Path) -> None:
    red = np.zeros((16, 24, 3), np.uint8)
    red[..., 0] = 230
    (tmp_path / "red.jpg").write_bytes(encode_jpeg(red))
    assert np.abs(read_photo(tmp_path / "red.jpg").astype(int) - red).max() < 12


@pytest.mark.parametrize(("name", "data"), [("empty.jpg", b""), ("text.jpg", b"no photo at all")])
def test_what_is_no_photo_is_an_image_error_with_its_name(tmp_path: Path, name: str, data: bytes) -> None:
    (tmp_path / name).write_bytes(data)
    for read in (read_photo, read_photo_size):
        with pytest.raises(ImageError, match=name):
            read(tmp_path / name)
    with pytest.raises(ImageError, match=r"gone\.jpg"):
        read_photo(tmp_path / "gone.jpg")


def test_jpeg_that_was_cut_off_is_refused_instead_of_filled_with_grey(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (200, 300, 3), dtype=np.uint8)
    data = encode_jpeg(noise)
    (tmp_path / "cut.jpg").write_bytes(data[: len(data) // 2])
    with pytest.raises(ImageError, match="ends before its end mark"):
        read_photo(tmp_path / "cut.jpg")
