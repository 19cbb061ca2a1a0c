"""The one reader of photos: size, orientation, colours and pixels; and the encoding of crops as JPEG.

Every command reads photos with this module, so that all agree on what a file shows. Pillow reads the header and the
orientation of every format (EXIF, XMP, TIFF's tag, AVIF's and HEIC's box) and decodes all formats but JPEG. JPEGs are
decoded by libjpeg-turbo through simplejpeg: the same pixels as Pillow's and OpenCV's, at least as fast as OpenCV, and
the only one of the three that reports libjpeg's warnings, which are the only sign of a damaged JPEG.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import cv2
import numpy as np
import simplejpeg
from numpy.typing import NDArray
from PIL import (
    AvifImagePlugin,
    BmpImagePlugin,
    ExifTags,
    GifImagePlugin,
    Image,
    Jpeg2KImagePlugin,
    JpegImagePlugin,
    PngImagePlugin,
    PpmImagePlugin,
    TiffImagePlugin,
    WebPImagePlugin,
)

from emoface.errors import ImageError, install_command
from emoface.vision.crops import Photo
from emoface.vision.orientation import NO_TURN, PhotoSize, Turn
from emoface.vision.photo_names import describe_missing

MAX_PIXELS = 16384 * 12288
"""Pixels of the largest photo that is read: the 200 megapixels of the largest phone cameras."""

_MAX_PIXELS_PER_BYTE = 10_000
"""A PNG of one colour has about 1,000 pixels per byte, one of black and white 8,000; a photo has fewer than 100."""

READ_FORMATS = "JPEG, PNG, WebP, AVIF, TIFF, BMP, GIF, JPEG 2000 or PNM"

_END_MARK = b"\xff\xd9"
_HARMLESS_BYTES = 16
_EXTRANEOUS = re.compile(r"(\d+) extraneous bytes before marker 0xd9")
_HEIC_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")
_AVIF_BRANDS = (b"avif", b"avis")
_GREY_16_MODES = ("I;16", "I;16L", "I;16B", "I;16N")
_GREY_16_FORMATS = ("PNG", "PPM")
"""Formats whose mode ``I`` is a grey of 16 bits: they have none of 32 bits."""


@dataclass(frozen=True)
class _Format:
    """How one format is recognised, and Pillow's class that opens it.

    The class is called itself, because ``Image.open`` warns of photos of 90 megapixels without their name, refuses 180
    megapixels, and tries formats that run other programs (EPS).
    """

    name: str
    starts: tuple[bytes, ...]
    open: Callable[[IO[bytes]], Image.Image]


_FORMATS = (
    _Format("JPEG", (b"\xff\xd8\xff",), JpegImagePlugin.JpegImageFile),
    _Format("PNG", (b"\x89PNG\r\n\x1a\n",), PngImagePlugin.PngImageFile),
    _Format("TIFF", (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"), TiffImagePlugin.TiffImageFile),
    _Format("BMP", (b"BM",), BmpImagePlugin.BmpImageFile),
    _Format("GIF", (b"GIF87a", b"GIF89a"), GifImagePlugin.GifImageFile),
    _Format("JPEG 2000", (b"\xff\x4f\xff\x51", b"\0\0\0\x0cjP  "), Jpeg2KImagePlugin.Jpeg2KImageFile),
    _Format(
        "PNM", tuple(b"P%d%c" % (n, space) for n in range(1, 7) for space in b" \t\n\r"), PpmImagePlugin.PpmImageFile
    ),
)
_WEBP = _Format("WebP", (), WebPImagePlugin.WebPImageFile)
_AVIF = _Format("AVIF", (), AvifImagePlugin.AvifImageFile)


def read_photo_size(path: Path) -> PhotoSize:
    """Reads the size and orientation from a photo's header, without decoding its pixels.

    Raises:
        ImageError: The file is missing or is not a readable photo.
    """
    try:
        with path.open("rb") as opened:
            return read_header(opened, str(path))
    except OSError as error:
        raise _cannot_read(path, error) from error


def read_header(opened: IO[bytes], name: str) -> PhotoSize:
    """Reads the size and orientation from the header of an open photo.

    Args:
        opened: The photo, from its first byte; of most formats only the first bytes are read.
        name: Name of the photo in error messages.

    Raises:
        ImageError: It is not a readable photo.
    """
    return _open(opened, name)[1]


def read_photo(path: Path) -> Photo:
    """Reads a photo upright: turned by its orientation, as a viewer shows it.

    Args:
        path: A photo in one of ``READ_FORMATS``, or HEIC if pillow-heif is installed. A grey photo gets three equal
            channels; transparency is dropped.

    Returns:
        (height, width, 3) uint8, RGB.

    Raises:
        ImageError: The file is missing, damaged, too large or not a photo.
    """
    return read_photo_and_size(path)[0]


def read_photo_and_size(path: Path) -> tuple[Photo, PhotoSize]:
    """Reads a photo upright, see ``read_photo``, together with its stored size and its orientation.

    Raises:
        ImageError: The file is missing, damaged, too large or not a photo.
    """
    return decode_photo_and_size(_read_bytes(path), str(path))


def read_small_photo(path: Path, side: int) -> Photo:
    """Reads a photo upright and scaled down, see ``decode_small_photo``.

    Raises:
        ImageError: The file is missing, damaged, too large or not a photo.
    """
    return decode_small_photo(_read_bytes(path), str(path), side)


def decode_small_photo(data: bytes, name: str, side: int) -> Photo:
    """Decodes a photo that needs no detail: libjpeg scales a JPEG down while decoding it, which is much faster.

    Other formats are decoded whole. Damage that libjpeg only warns of is passed over.

    Args:
        data: The encoded photo.
        name: Name of the photo in error messages.
        side: Smallest width and height of the result in pixels, if the photo is not smaller itself.

    Returns:
        (height, width, 3) uint8, RGB, upright.

    Raises:
        ImageError: The bytes are not a photo, or it is damaged or too large.
    """
    image, size = _open(io.BytesIO(data), name)
    if not isinstance(image, JpegImagePlugin.JpegImageFile):
        return decode_photo(data, name)
    try:
        pixels = simplejpeg.decode_jpeg(data, "RGB", min_height=side, min_width=side, strict=False)
    except ValueError:
        return decode_photo(data, name)  # colours that only Pillow reads, or the error with its reason
    upright: Photo = Turn(size.orientation, pixels.shape[1::-1]).turn_pixels(np.asarray(pixels, np.uint8))
    return upright


def decode_photo(data: bytes, name: str) -> Photo:
    """Decodes the bytes of an encoded photo, see ``read_photo``.

    Args:
        data: The encoded photo.
        name: Name of the photo in error messages.

    Returns:
        (height, width, 3) uint8, RGB.

    Raises:
        ImageError: The bytes are not a photo, or it is damaged or too large.
    """
    return decode_photo_and_size(data, name)[0]


def convert_photo(image: Image.Image, name: str) -> Photo:
    """Converts an image of Pillow to a photo, upright.

    Args:
        image: An image of any mode; 16-bit greys are scaled to 8 bits.
        name: Name of the photo in error messages.

    Returns:
        (height, width, 3) uint8, RGB.

    Raises:
        ImageError: The image is damaged or too large, or its mode has no defined white.
    """
    _check_pixels(image.size, name)
    try:
        pixels = _to_rgb(image, name)  # Pillow turns a TIFF while loading it, and takes its orientation away
        return Turn(_read_orientation(image), image.size).turn_pixels(pixels)
    except ImageError:
        raise
    except Exception as error:  # a decoder may raise anything: it becomes the photo's reason
        raise _damaged(name, error) from error


def why_unreadable(path: Path) -> str | None:
    """Tells why a photo cannot be read, after decoding it; None if it can."""
    try:
        read_photo(path)
    except ImageError as error:
        return str(error)
    return None


def encode_jpeg(photo: Photo, quality: int = 95) -> bytes:
    """Encodes an RGB photo as JPEG.

    Args:
        photo: (height, width, 3), RGB.
        quality: JPEG quality, 1-100.
    """
    written, data = cv2.imencode(".jpg", cv2.cvtColor(photo, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, quality])
    if not written:
        raise ValueError(f"a photo of shape {photo.shape} cannot be encoded as JPEG")
    return data.tobytes()


def decode_photo_and_size(data: bytes, name: str) -> tuple[Photo, PhotoSize]:
    """Decodes the bytes of a photo, see ``decode_photo``, together with its stored size and its orientation."""
    image, size = _open(io.BytesIO(data), name)
    try:
        if isinstance(image, TiffImagePlugin.TiffImageFile):
            return _to_rgb(image, name), size  # turned by Pillow
        stored = _decode_jpeg(data) if isinstance(image, JpegImagePlugin.JpegImageFile) else None
        if stored is None:
            stored = _to_rgb(image, name)
        if stored.shape[1::-1] != size.stored_wh:
            raise ValueError(f"a header of {size.stored_wh}, pixels of {stored.shape[1::-1]}")
        return size.turn_from("stored").turn_pixels(stored), size
    except ImageError:
        raise
    except Exception as error:  # a decoder may raise anything: it becomes the photo's reason
        raise _damaged(name, error) from error


def _open(opened: IO[bytes], name: str) -> tuple[Image.Image, PhotoSize]:
    """Reads a photo's header."""
    start = opened.read(64)
    opened.seek(0)
    photo_format = _find_format(start, name)
    try:
        image = photo_format.open(opened)
    except Exception as error:  # a decoder may raise anything: it becomes the photo's reason
        raise ImageError(f"{name}: not a readable photo ({photo_format.name}: {_describe(error)})") from error
    _check_pixels(image.size, name)
    _check_density(image.size, opened, name)
    orientation = _read_orientation(image)  # only now, because it decodes some photos
    size = PhotoSize(image.size, orientation)
    if photo_format.name == "TIFF":  # Pillow gives the size of the upright photo
        size = PhotoSize(size.upright_wh, orientation)
    return image, size


def _find_format(start: bytes, name: str) -> _Format:
    for known in _FORMATS:
        if start.startswith(known.starts):
            return known
    if start[:4] == b"RIFF" and start[8:12] == b"WEBP":
        return _WEBP
    if start[4:8] == b"ftyp":
        brands = [start[8:12], *(start[at : at + 4] for at in range(16, min(len(start), start[3]), 4))]
        if any(brand in _AVIF_BRANDS for brand in brands):
            return _AVIF
        if any(brand in _HEIC_BRANDS for brand in brands):
            return _find_heic(name)
    found = f"starts with {start[:12]!r}" if start else "the file is empty"
    raise ImageError(f"{name}: not a readable photo ({found}, expected {READ_FORMATS})")


def _find_heic(name: str) -> _Format:
    """Pillow reads HEIC by the package pillow-heif alone, which turns a photo upright itself."""
    try:
        from pillow_heif import HeifImageFile
    except ImportError as error:
        raise ImageError(
            f"{name}: a HEIC photo, which is read only with the package pillow-heif; install it with "
            f"{install_command('pillow_heif')}, or convert the photo to JPEG"
        ) from error
    return _Format("HEIC", (), HeifImageFile)


def _read_orientation(image: Image.Image) -> int:
    """Reads the orientation, 1-8; metadata that are damaged count as none, as in a viewer."""
    try:
        if isinstance(image, TiffImagePlugin.TiffImageFile):
            orientation = image.tag_v2.get(ExifTags.Base.Orientation, NO_TURN)
        else:
            orientation = image.getexif().get(ExifTags.Base.Orientation, NO_TURN)
        return int(orientation) if orientation in range(1, 9) else NO_TURN
    except Exception:  # noqa: BLE001 damaged EXIF raises errors of many kinds
        return NO_TURN


def _check_pixels(wh: tuple[int, int], name: str) -> None:
    width, height = wh
    if not 0 < width * height <= MAX_PIXELS:
        raise ImageError(
            f"{name}: {width} x {height} pixels ({width * height / 1e6:.0f} megapixels), expected 1 pixel to "
            f"{MAX_PIXELS / 1e6:.0f} megapixels; scale the photo down"
        )


def _check_density(wh: tuple[int, int], opened: IO[bytes], name: str) -> None:
    """Refuses a header that claims many more pixels than the bytes of the file can hold, before memory is taken.

    Only the last of the bytes that it needs is read, which are 20 kB at most: to find the end of a photo in an object
    store takes a request.
    """
    position = opened.tell()
    opened.seek((wh[0] * wh[1] - 1) // _MAX_PIXELS_PER_BYTE)
    has_enough = bool(opened.read(1))
    n_bytes = 0 if has_enough else opened.seek(0, io.SEEK_END)
    opened.seek(position)
    if not has_enough:
        raise ImageError(f"{name}: a damaged photo ({wh[0]} x {wh[1]} pixels in {n_bytes} bytes); fetch it again")


def _decode_jpeg(data: bytes) -> Photo | None:
    """Decodes a JPEG; None if only Pillow reads it, because its colours are sampled in an unusual way.

    Bytes after the end mark are ignored (motion photos, padding), and the end mark itself may be missing. Everything
    else that libjpeg warns of means lost pixels, which it fills with grey, but for a few bytes before the end mark.

    Raises:
        ValueError: The JPEG is damaged; the message is libjpeg's.
    """
    try:
        return _turbo(data)
    except ValueError as error:
        problem = str(error)
        if "Could not determine subsampling" in problem:
            return None
        if "Premature end of JPEG file" in problem:
            return _turbo(data + _END_MARK)
        found = _EXTRANEOUS.search(problem)
        if found is None or int(found[1]) > _HARMLESS_BYTES:
            raise
        return _turbo(data, is_strict=False)


def _turbo(data: bytes, is_strict: bool = True) -> Photo:
    return np.asarray(simplejpeg.decode_jpeg(data, "RGB", strict=is_strict), np.uint8)


def _to_rgb(image: Image.Image, name: str) -> Photo:
    """Converts an image to (height, width, 3) uint8, RGB, as it is stored."""
    image.load()  # before its size and mode are asked for: loading a TIFF may change its sides
    if image.mode in _GREY_16_MODES or (image.mode == "I" and image.format in _GREY_16_FORMATS):
        grey: NDArray[np.uint8] = (np.asarray(image).astype(np.int64) >> 8).clip(0, 255).astype(np.uint8)
        return np.repeat(grey[..., None], 3, axis=2)
    if image.mode in ("I", "F"):
        raise ImageError(
            f"{name}: a grey photo of 32 bits per pixel (mode {image.mode}), whose white is not defined; save it with "
            "8 or 16 bits"
        )
    if image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")
    return np.asarray(image.convert("RGB"), np.uint8)


def _read_bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise _cannot_read(path, error) from error


def _cannot_read(path: Path, error: OSError) -> ImageError:
    if isinstance(error, FileNotFoundError):
        return ImageError(f"{path}: {describe_missing(path)}")
    return ImageError(f"{path}: cannot be read ({error.strerror})")


def _damaged(name: str, error: Exception) -> ImageError:
    return ImageError(f"{name}: a damaged photo ({_describe(error)}); fetch it again")


def _describe(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
