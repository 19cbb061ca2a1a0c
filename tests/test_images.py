"""The reader of photos: formats, orientations, depths, and every way in which a file is whole, damaged or no photo."""

from __future__ import annotations

import io
import sys
import warnings
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image, ImageOps

from emoface.errors import ImageError
from emoface.vision import images
from emoface.vision.images import (
    MAX_PIXELS,
    convert_photo,
    decode_photo,
    encode_jpeg,
    read_photo,
    read_photo_size,
    why_unreadable,
)
from emoface.vision.orientation import PhotoSize, Turn, find_usual_frame

ORIENTATIONS = range(1, 9)
FORMATS = ("JPEG", "PNG", "WEBP", "AVIF", "TIFF")
RED, GREEN, BLUE, GREY = (230, 20, 20), (20, 200, 20), (20, 20, 230), (128, 128, 128)


def corners_photo() -> np.ndarray[Any, np.dtype[np.uint8]]:
    """Upright, 96 high and 64 wide: a red, a green and a blue corner, so that every turn and flip shows."""
    pixels = np.full((96, 64, 3), GREY, np.uint8)
    pixels[:32, :32], pixels[:32, 32:], pixels[64:, :32] = RED, GREEN, BLUE
    return pixels


def store(upright: np.ndarray[Any, np.dtype[np.uint8]], orientation: int) -> Image.Image:
    """The stored pixels of an upright photo; Pillow's own transpositions, reversed, are the reference."""
    undo = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}  # Pillow's Transpose: FLIP_LEFT_RIGHT is 0 ... TRANSVERSE is 6
    image = Image.fromarray(upright)
    return image if orientation == 1 else image.transpose(Image.Transpose(undo[orientation]))


def encode(image: Image.Image, kind: str, orientation: int, where: str = "exif") -> bytes:
    """Encodes stored pixels with an orientation in EXIF, or in XMP alone; of a TIFF in its own tag."""
    fast: dict[str, dict[str, Any]] = {"AVIF": {"speed": 10}, "WEBP": {"method": 0}, "PNG": {"compress_level": 1}}
    stream, options = io.BytesIO(), {"quality": 95, **fast.get(kind, {})}
    exif = Image.Exif()
    exif[0x0112] = orientation
    xmp = f'<x:xmpmeta xmlns:x="adobe:ns:meta/"><d tiff:Orientation="{orientation}"/></x:xmpmeta>'.encode()
    if kind == "TIFF":
        options = {"tiffinfo": {0x0112: orientation}}
    elif where == "exif":
        options["exif"] = exif
    elif kind == "PNG":
        from PIL.PngImagePlugin import PngInfo

        options["pnginfo"] = PngInfo()
        options["pnginfo"].add_itxt("XML:com.adobe.xmp", xmp.decode())
    else:
        options["xmp"] = xmp
    image.save(stream, kind, **options)
    return stream.getvalue()


def read_bytes(tmp_path: Path, data: bytes) -> tuple[np.ndarray[Any, np.dtype[np.uint8]], PhotoSize]:
    path = tmp_path / "photo"
    path.write_bytes(data)
    return read_photo(path), read_photo_size(path)


@pytest.mark.parametrize("orientation", ORIENTATIONS)
@pytest.mark.parametrize(("kind", "where"), [*((kind, "exif") for kind in FORMATS), ("JPEG", "xmp"), ("PNG", "xmp")])
def test_every_format_is_read_upright(tmp_path: Path, kind: str, where: str, orientation: int) -> None:
    stored = store(corners_photo(), orientation)
    data = encode(stored, kind, orientation, where)
    photo, size = read_bytes(tmp_path, data)
    assert size == PhotoSize(stored.size, orientation) and size.upright_wh == (64, 96)
    assert photo.shape == (96, 64, 3) and photo.flags.c_contiguous
    assert np.abs(photo.astype(int) - corners_photo()).mean() < 4  # lossy formats smear the edges
    assert np.array_equal(decode_photo(data, "photo"), photo)
    assert np.array_equal(convert_photo(Image.open(io.BytesIO(data)), "photo"), photo)  # as the hub gets it


@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_turn_agrees_with_pillow_and_takes_boxes_along_and_back(orientation: int) -> None:
    pixels = np.random.default_rng(orientation).integers(0, 255, (40, 60, 3), dtype=np.uint8)
    image = Image.fromarray(pixels)
    image.getexif()[0x0112] = orientation
    turn = Turn(orientation, (60, 40))
    upright = turn.turn_pixels(pixels)
    assert np.array_equal(upright, np.asarray(ImageOps.exif_transpose(image)))
    assert turn.upright_wh == upright.shape[1::-1]
    boxes = np.array([[3, 5, 17, 11], [0, 0, 60, 40], [np.nan] * 4], np.float32)
    x1, y1, x2, y2 = turn.to_upright(boxes)[0].astype(int)
    # one corner of the crop tells flips, its shape tells a quarter turn: compare as sets of pixels
    assert sorted(map(tuple, upright[y1:y2, x1:x2].reshape(-1, 3))) == sorted(
        map(tuple, pixels[5:11, 3:17].reshape(-1, 3))
    )
    assert turn.to_upright(boxes)[1].tolist() == [0, 0, *turn.upright_wh]
    assert np.array_equal(turn.to_stored(turn.to_upright(boxes)), boxes, equal_nan=True)
    points = np.array([[[3.5, 5.5], [59.5, 0.5]]], np.float32)
    (x, y), _ = turn.points_to_upright(points)[0]
    assert np.array_equal(upright[int(y), int(x)], pixels[5, 3])
    assert np.array_equal(turn.points_to_stored(turn.points_to_upright(points)), points)
    assert turn.to_upright(np.zeros((0, 4), np.float32)).shape == (0, 4)


@pytest.mark.parametrize(
    ("size", "annotated_wh", "frame"),
    [
        (PhotoSize((60, 40)), (60, 40), "stored"),
        (PhotoSize((60, 40)), (1, 1), "stored"),
        *((PhotoSize((60, 40), turned), (60, 40), "stored") for turned in (5, 6, 7, 8)),
        *((PhotoSize((60, 40), turned), (40, 60), "upright") for turned in (5, 6, 7, 8)),
        *((PhotoSize((60, 40), flipped), (60, 40), None) for flipped in (2, 3, 4)),
        *((PhotoSize((50, 50), square), (50, 50), None) for square in range(2, 9)),
        (PhotoSize((60, 40), 6), (99, 98), None),
        (PhotoSize((60, 40), 6), None, None),
    ],
)
def test_frame_of_the_annotations_is_told_by_their_size(
    size: PhotoSize, annotated_wh: tuple[int, int] | None, frame: str | None
) -> None:
    assert size.find_frame(annotated_wh) == frame


def test_usual_frame_is_that_of_most_photos_whose_size_tells() -> None:
    assert find_usual_frame([]) == find_usual_frame(["stored", "upright", None]) == "stored"
    assert find_usual_frame(["upright", "upright", "stored", None, None, None]) == "upright"


def test_orientation_that_is_none_counts_as_none(tmp_path: Path) -> None:
    stored = store(corners_photo(), 1)
    for orientation in (0, 9, 77):
        assert read_bytes(tmp_path, encode(stored, "JPEG", orientation))[1] == PhotoSize((64, 96))
    stream = io.BytesIO()
    stored.save(stream, "JPEG", exif=b"Exif\0\0II*\0garbage that is no directory")
    assert read_bytes(tmp_path, stream.getvalue())[1] == PhotoSize((64, 96))


def test_plain_jpegs_have_the_pixels_that_opencv_decodes(shared_dir: Path) -> None:
    paths = [path for path in sorted((shared_dir / "photos").rglob("*.jp*g")) if why_unreadable(path) is None]
    assert len(paths) > 25
    for path in paths:
        stored = cv2.imread(str(path), cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
        size = read_photo_size(path)
        expected = size.turn_from("stored").turn_pixels(cv2.cvtColor(stored, cv2.COLOR_BGR2RGB))
        assert np.array_equal(read_photo(path), expected), path.name


def test_greys_of_8_and_16_bits_and_transparent_photos(tmp_path: Path) -> None:
    grey = np.tile(np.arange(0, 240, 10, np.uint8), (8, 1))
    for image in (Image.fromarray(grey), Image.fromarray(grey.astype(np.uint16) * 257)):
        for kind in ("PNG", "TIFF"):
            stream = io.BytesIO()
            image.save(stream, kind)
            photo, size = read_bytes(tmp_path, stream.getvalue())
            assert photo.shape == (8, 24, 3) and size.stored_wh == (24, 8)
            assert (photo == grey[..., None]).all(), (kind, image.mode)
        assert (convert_photo(image, "grey") == grey[..., None]).all()
    rgba = np.dstack([corners_photo(), np.full((96, 64), 9, np.uint8)])
    Image.fromarray(rgba).save(tmp_path / "rgba.png")
    assert np.array_equal(read_photo(tmp_path / "rgba.png"), corners_photo())
    big_endian = b"P5 3 1 65535\n" + np.array([0, 128 << 8, 65535], ">u2").tobytes()
    assert read_bytes(tmp_path, big_endian)[0][0, :, 0].tolist() == [0, 128, 255]


@pytest.mark.parametrize("mode", ["I", "F"])
def test_greys_of_32_bits_are_refused_with_words(tmp_path: Path, mode: str) -> None:
    image = Image.new(mode, (30, 20), 300)
    with pytest.raises(ImageError, match=rf"photo 0: a grey photo of 32 bits per pixel \(mode {mode}\)"):
        convert_photo(image, "photo 0")
    image.save(tmp_path / "grey.tif")
    with pytest.raises(ImageError, match=r"grey\.tif: a grey photo of 32 bits per pixel"):
        read_photo(tmp_path / "grey.tif")


def test_encoded_jpeg_keeps_the_colour_order(tmp_path: Path) -> None:
    red = np.zeros((16, 24, 3), np.uint8)
    red[..., 0] = 230
    assert np.abs(read_bytes(tmp_path, encode_jpeg(red))[0].astype(int) - red).max() < 12


@pytest.fixture(scope="module")
def noise_jpeg() -> bytes:
    return encode_jpeg(np.random.default_rng(0).integers(0, 255, (200, 300, 3), dtype=np.uint8))


@pytest.mark.parametrize(
    "tail",
    [
        b"MotionPhoto_Data" + b"\0\0\0\x18ftypmp42" + bytes(range(256)) * 80,  # as Samsung's and Google's phones do
        bytes(8192),  # padded to a block
        b"x" * 1000,
    ],
)
def test_bytes_after_the_end_mark_do_not_matter(tmp_path: Path, noise_jpeg: bytes, tail: bytes) -> None:
    photo = decode_photo(noise_jpeg, "noise")
    assert np.array_equal(read_bytes(tmp_path, noise_jpeg + tail)[0], photo)
    assert np.array_equal(read_bytes(tmp_path, noise_jpeg[:-2])[0], photo)  # without its end mark
    assert np.array_equal(read_bytes(tmp_path, noise_jpeg[:-2] + b"\0\xff\xd9")[0], photo)  # a byte too much before it


def _damage(data: bytes, how: str) -> bytes:
    half = len(data) // 2
    return {
        "cut": data[:half],
        "cut, end mark kept": data[:half] + b"\xff\xd9",
        "last bytes lost": data[:-100],
        "middle lost": data[:half] + data[half + 3000 :],
        "middle zeroed": data[:half] + bytes(3000) + data[half + 3000 :],
    }[how]


@pytest.mark.parametrize("how", ["cut", "cut, end mark kept", "last bytes lost", "middle lost", "middle zeroed"])
def test_damaged_jpeg_is_named_instead_of_filled_with_grey(tmp_path: Path, noise_jpeg: bytes, how: str) -> None:
    path = tmp_path / "damaged.jpg"
    path.write_bytes(_damage(noise_jpeg, how))
    reason = r"damaged\.jpg: a damaged photo \(Corrupt JPEG data: .*\); fetch it again"
    with pytest.raises(ImageError, match=reason):
        read_photo(path)
    assert str(path) in (why_unreadable(path) or "")


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "AVIF", "TIFF", "BMP", "GIF"])
def test_cut_files_of_other_formats_are_named(tmp_path: Path, kind: str) -> None:
    stream = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (90, 120, 3), dtype=np.uint8)).save(stream, kind)
    data = stream.getvalue()
    for n_bytes in (20, len(data) // 3, len(data) // 2):
        path = tmp_path / "cut.x"
        path.write_bytes(data[:n_bytes])
        with pytest.raises(ImageError, match=r"cut\.x: (not a readable|a damaged) photo"):
            read_photo(path)


@pytest.mark.parametrize(("name", "data"), [("empty.jpg", b""), ("text.jpg", b"no photo at all"), ("a.eps", b"%!PS-")])
def test_what_is_no_photo_is_an_image_error_with_its_name(tmp_path: Path, name: str, data: bytes) -> None:
    (tmp_path / name).write_bytes(data)
    for read in (read_photo, read_photo_size):
        with pytest.raises(ImageError, match=f"{name}: not a readable photo .*expected JPEG, PNG"):
            read(tmp_path / name)
        with pytest.raises(ImageError, match=r"gone\.jpg: no such photo"):
            read(tmp_path / "gone.jpg")
        with pytest.raises(ImageError, match=r"cannot be read \(Is a directory\)"):
            read(tmp_path)


@pytest.mark.parametrize("error", [RuntimeError("odd"), MemoryError(), KeyError("x"), SyntaxError("not a PNG")])
def test_whatever_a_decoder_raises_is_the_photos_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    (tmp_path / "a.png").write_bytes(encode(store(corners_photo(), 1), "PNG", 1))

    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(images, "_to_rgb", fail)
    with pytest.raises(ImageError, match=r"a\.png: a damaged photo \(.+\)"):
        read_photo(tmp_path / "a.png")


def _large_png(wh: tuple[int, int]) -> bytes:
    """A photo of 1 bit per pixel, so that the file is small."""
    stream = io.BytesIO()
    Image.new("1", wh).save(stream, "PNG")
    return stream.getvalue()


def test_photos_of_200_megapixels_are_read_without_a_warning(tmp_path: Path) -> None:
    (tmp_path / "large.png").write_bytes(_large_png((14000, 13000)))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert read_photo_size(tmp_path / "large.png") == PhotoSize((14000, 13000))
        assert read_photo(tmp_path / "large.png").shape == (13000, 14000, 3)
    assert MAX_PIXELS >= 200e6 and Image.MAX_IMAGE_PIXELS is not None


def test_larger_photos_are_refused_with_words_by_their_header(tmp_path: Path) -> None:
    (tmp_path / "huge.png").write_bytes(_large_png((15000, 14000)))
    for read in (read_photo, read_photo_size):
        message = r"huge\.png: 15000 x 14000 pixels \(210 megapixels\), expected 1 pixel to 201 megapixels"
        with pytest.raises(ImageError, match=message):
            read(tmp_path / "huge.png")


HEIC_START = b"\0\0\0\x1cftypheic\0\0\0\0mif1heicmiaf\0\0\1\xbemeta\0\0\0\0"


def test_heic_without_its_package_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    (tmp_path / "a.heic").write_bytes(HEIC_START)
    for read in (read_photo, read_photo_size):
        with pytest.raises(ImageError, match=r"a\.heic: a HEIC photo, .*pip install 'emoface\[heic\]'.*convert .*JPEG"):
            read(tmp_path / "a.heic")


def test_heic_is_read_with_its_package(tmp_path: Path) -> None:
    pillow_heif = pytest.importorskip("pillow_heif", reason="the package pillow-heif is not installed: emoface[heic]")
    path = tmp_path / "a.heic"
    pillow_heif.from_pillow(Image.fromarray(corners_photo())).save(path, quality=95)
    assert read_photo_size(path) == PhotoSize((64, 96))
    assert np.abs(read_photo(path).astype(int) - corners_photo()).mean() < 6
    path.write_bytes(path.read_bytes()[:400])
    with pytest.raises(ImageError, match=r"a\.heic: "):
        read_photo(path)
