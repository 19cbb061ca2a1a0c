"""Photos: their size from the header alone, their pixels, and crops as JPEG bytes.

OpenCV speaks BGR; the change to RGB and back happens here and nowhere else.

EMOTIC's boxes are in the frame that its ``image_size`` describes. Its annotation tool and MATLAB's ``imread``
knew nothing of the EXIF orientation tag, so that frame is the stored one, unless ``image_size`` fits only the
turned photo; ``needs_exif_turn`` is that rule.
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
    """What a photo's header says.

    Attributes:
        stored_wh: Width and height of the stored pixels.
        exif_orientation: The EXIF tag, 1-8; 1 where there is none.
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
        ImageError: ``image_missing`` or ``image_unreadable``, with the path.
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
    """Whether annotated coordinates are those of the photo after its EXIF orientation is applied.

    Args:
        size: What the photo's header says.
        annotated_wh: Width and height in the annotations.

    Returns:
        True only where the annotated size is the turned one and not the stored one.

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
        path: Any format that OpenCV reads; a grey photo comes back with three equal channels.
        apply_exif: Turn it as its EXIF orientation says; without it the stored pixels come back.

    Returns:
        (height, width, 3) uint8, RGB.

    Raises:
        ImageError: The file is missing, cut off or no photo.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ImageError(f"{path}: cannot be read ({error.strerror})") from error
    if _is_cut_jpeg(data):
        raise ImageError(f"{path}: the JPEG ends before its end mark; fetch the photo again")
    return decode_photo(data, str(path), apply_exif)


def decode_photo(data: bytes, name: str, apply_exif: bool = False) -> Photo:
    """Decodes the bytes of an encoded photo, see ``read_photo``.

    Args:
        data: An encoded photo.
        name: What an error calls it.
        apply_exif: Turn it as its EXIF orientation says.

    Raises:
        ImageError: The bytes are no photo.
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
        quality: 1-100.
    """
    written, data = cv2.imencode(".jpg", cv2.cvtColor(photo, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, quality])
    if not written:
        raise ValueError(f"a photo of shape {photo.shape} cannot be encoded as JPEG")
    return data.tobytes()


def is_whole_photo(path: Path) -> bool:
    """Whether a photo's header can be read and, of a JPEG, its end mark is there; the pixels are not decoded."""
    try:
        read_photo_size(path)
        return not _is_cut_jpeg(path.read_bytes())
    except (ImageError, OSError):
        return False


def _is_cut_jpeg(data: bytes) -> bool:
    """A JPEG without an end mark: OpenCV would fill the missing part with grey and say nothing."""
    return data.startswith(b"\xff\xd8") and b"\xff\xd9" not in data[-4096:]
