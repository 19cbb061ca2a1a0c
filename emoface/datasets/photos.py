"""The photos of a data set: the people of each photo, a digest that detects changed photos, and the pixels.

Boxes are in the frame that the annotations describe: the stored pixels, or the photo rotated by its EXIF orientation;
``vision.images.needs_exif_turn`` decides which. This is the only module that reads a photo in that frame.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from emoface.errors import ImageError
from emoface.storage.files import stat_digest
from emoface.vision.crops import Photo
from emoface.vision.images import needs_exif_turn, read_photo, read_photo_size

IMAGE_MISSING, IMAGE_UNREADABLE = "image_missing", "image_unreadable"
"""Why a photo has no pixels: the file does not exist, or it exists but cannot be decoded."""


@dataclass(frozen=True)
class PhotoRows:
    """One photo and the rows of its people in a table.

    Attributes:
        image: Path below the image root.
        image_wh: Width and height of the frame of the boxes, pixels.
        rows: (n,) row numbers in the table, ascending.
    """

    image: str
    image_wh: tuple[int, int]
    rows: NDArray[np.int64]


def group_photos(images: Sequence[str], image_wh: NDArray[np.float32]) -> list[PhotoRows]:
    """Lists the photos of a table in order of first appearance, each with the rows of all its people.

    Args:
        images: The photo of each row, n paths.
        image_wh: (n, 2) width and height of each row's photo, pixels; the first row of a photo is used.

    Example:
        >>> wh = np.array([[60, 40], [30, 20], [60, 40]], np.float32)
        >>> [(photo.image, photo.image_wh, photo.rows.tolist()) for photo in group_photos(["b", "a", "b"], wh)]
        [('b', (60, 40), [0, 2]), ('a', (30, 20), [1])]
    """
    rows_of: dict[str, list[int]] = {}
    for row, image in enumerate(images):
        rows_of.setdefault(image, []).append(row)
    return [
        PhotoRows(image, (int(image_wh[rows[0], 0]), int(image_wh[rows[0], 1])), np.array(rows, np.int64))
        for image, rows in rows_of.items()
    ]


def photo_digest(image_root: Path, photos: Iterable[PhotoRows]) -> str:
    """Computes a digest that changes when a photo is added, removed or replaced.

    Only the size and the modification time of each file are read.

    Args:
        image_root: The folder that the ``image`` paths are relative to.
        photos: The photos, in order.

    Returns:
        64 hexadecimal digits.
    """
    return stat_digest(image_root, (photo.image for photo in photos))


@dataclass(frozen=True)
class FramedPhoto:
    """The pixels of a photo in the frame of its boxes.

    Attributes:
        pixels: (height, width, 3), RGB.
        exif: Whether the EXIF orientation was ``applied`` or ``ignored``; empty if the photo has none.
    """

    pixels: Photo
    exif: str


def read_in_frame(path: Path, image_wh: tuple[int, int]) -> FramedPhoto:
    """Reads a photo in the frame of its boxes.

    Args:
        path: Path of the photo.
        image_wh: Width and height of the frame of the boxes, pixels.

    Raises:
        ImageError: The photo is missing or cannot be read.
    """
    size = read_photo_size(path)
    turn = needs_exif_turn(size, image_wh)
    exif = "" if size.exif_orientation == 1 else "applied" if turn else "ignored"
    return FramedPhoto(read_photo(path, apply_exif=turn), exif)


@dataclass(frozen=True)
class PhotoOrStatus:
    """A photo, or the status that explains why it could not be read.

    Attributes:
        photo: The photo; None if it cannot be read.
        status: ``image_missing`` or ``image_unreadable`` if there is no photo, else empty.
    """

    photo: FramedPhoto | None
    status: str = ""


def try_in_frame(path: Path, image_wh: tuple[int, int]) -> PhotoOrStatus:
    """Reads a photo in the frame of its boxes; a photo that cannot be read gives a status instead of an error.

    Args:
        path: Path of the photo.
        image_wh: Width and height of the frame of the boxes, pixels.
    """
    if not path.is_file():
        return PhotoOrStatus(None, IMAGE_MISSING)
    try:
        return PhotoOrStatus(read_in_frame(path, image_wh))
    except ImageError:
        return PhotoOrStatus(None, IMAGE_UNREADABLE)
