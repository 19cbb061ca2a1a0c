"""Reads the size of a photo from its header, decodes photos, and encodes crops as JPEG.

OpenCV uses BGR; the conversions between BGR and RGB happen only in this module.

EMOTIC's boxes are in the frame that its ``image_size`` describes. EMOTIC's annotation tool and MATLAB's ``imread``
ignored the EXIF orientation tag, so this is the frame of the stored pixels, unless ``image_size`` only fits the photo
after the EXIF orientation is applied; ``needs_exif_turn`` implements this rule.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, UnidentifiedImageError

from emoface.errors import ImageError
from emoface.vision.crops import Photo

_EXIF_ORIENTATION = 0x0112
_EXIF_SWAPS_SIDES = (5, 6, 7, 8)


@dataclass(frozen=True)
class PhotoSize:
    """Size and orientation of a photo, from its header.

    Attributes:
        stored_wh: Width and height of the stored pixels.
        exif_orientation: Value of the EXIF orientation tag, 1-8; 1 if there is none.
    """

    stored_wh: tuple[int, int]
    exif_orientation: int = 1

    @property
    def oriented_wh(self) -> tuple[int, int]:
        """Width and height after the EXIF orientation is applied."""
        width, height = self.stored_wh
        return (height, width) if self.exif_orientation in _EXIF_SWAPS_SIDES else (width, height)


def read_photo_size(path: Path) -> PhotoSize:
    """Reads the size and orientation from a photo's header, without decoding its pixels.

    Raises:
        ImageError: The file is missing or is not a readable photo.
    """
    try:
        with Image.open(path) as photo:
            orientation = photo.getexif().get(_EXIF_ORIENTATION, 1)
            return PhotoSize(photo.size, orientation if orientation in range(1, 9) else 1)
    except FileNotFoundError as error:
        raise ImageError(f"{path}: no such photo") from error
    except (OSError, UnidentifiedImageError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise ImageError(f"{path}: not a readable photo ({error})") from error


def needs_exif_turn(size: PhotoSize, annotated_wh: tuple[int, int]) -> bool:
    """Tells whether annotated coordinates are in the frame of the photo after its EXIF orientation is applied.

    Args:
        size: Size and orientation from the photo's header.
        annotated_wh: Width and height of the photo in the annotations.

    Returns:
        True only if the annotated size is that of the oriented photo and not that of the stored pixels.

    Example:
        >>> needs_exif_turn(PhotoSize((640, 480), 6), (480, 640))
        True
        >>> needs_exif_turn(PhotoSize((640, 480), 6), (640, 480))
        False
    """
    return annotated_wh != size.stored_wh and annotated_wh == size.oriented_wh


def read_photo(path: Path, apply_exif: bool = False) -> Photo:
    """Decodes a photo.

    Args:
        path: A photo in any format that OpenCV reads; a grey photo gets three equal channels.
        apply_exif: Whether to apply the EXIF orientation; otherwise the stored pixels are returned.

    Returns:
        (height, width, 3) uint8, RGB.

    Raises:
        ImageError: The file is missing, truncated or not a photo.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ImageError(f"{path}: cannot be read ({error.strerror})") from error
    if _is_truncated_jpeg(data):
        raise ImageError(f"{path}: the JPEG ends before its end mark; fetch the photo again")
    return decode_photo(data, str(path), apply_exif)


def decode_photo(data: bytes, name: str, apply_exif: bool = False) -> Photo:
    """Decodes the bytes of an encoded photo, see ``read_photo``.

    Args:
        data: The encoded photo.
        name: Name of the photo in error messages.
        apply_exif: Whether to apply the EXIF orientation; otherwise the stored pixels are returned.

    Returns:
        (height, width, 3) uint8, RGB.

    Raises:
        ImageError: The bytes are not a photo.
    """
    flags = cv2.IMREAD_COLOR if apply_exif else cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION
    try:
        bgr = cv2.imdecode(np.frombuffer(data, np.uint8), flags) if data else None
    except cv2.error as error:
        raise ImageError(f"{name}: not a readable photo ({error.err})") from error
    if bgr is None:
        raise ImageError(f"{name}: not a readable photo")
    return np.asarray(cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB), dtype=np.uint8)


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


def is_whole_photo(path: Path) -> bool:
    """Tells whether a photo's header is readable and, for a JPEG, its end mark exists; the pixels are not decoded."""
    try:
        read_photo_size(path)
        return not _is_truncated_jpeg(path.read_bytes())
    except (ImageError, OSError):
        return False


def _is_truncated_jpeg(data: bytes) -> bool:
    """Tells whether data is a JPEG without an end mark; OpenCV fills the missing part with grey without an error."""
    return data.startswith(b"\xff\xd8") and b"\xff\xd9" not in data[-4096:]
