"""The photos of a data set: the people of each photo, a digest that detects changed photos, and the pixels.

Boxes are in the frame of the annotations: the stored pixels, or the upright photo; ``PhotoSize.find_frame`` tells
which. Detection and all crops happen on the upright photo; ``UprightPhoto.turn`` takes boxes to it and back.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray

from emoface.errors import ImageError, TableError
from emoface.storage.files import stat_digest
from emoface.vision.crops import Photo
from emoface.vision.images import read_photo_and_size, read_photo_size
from emoface.vision.orientation import NO_TURN, Frame, Turn
from emoface.vision.photo_names import describe_missing

IMAGE_MISSING, IMAGE_UNREADABLE = "image_missing", "image_unreadable"
"""Why a photo has no pixels: the file does not exist, or it exists but cannot be decoded."""
UNREADABLE_PHOTOS = "unreadable_photos"
"""Entry of ``info`` in the record of faces: by image, what is wrong with each photo that is ``image_unreadable``."""
_NEARLY_ALL = 0.95  # share of missing photos from which the folder, not the single photo, is taken to be the fault


@dataclass(frozen=True, slots=True)
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


def describe_missing_photos(image_root: Path, missing: Sequence[str], n_photos: int) -> str:
    """Says that so many photos are missing that their folder was probably moved, or its disk is not mounted.

    Args:
        image_root: The folder that the ``image`` paths are relative to.
        missing: The photos that are missing, each once.
        n_photos: Number of all photos.

    Returns:
        How many photos are missing, and one of them; empty if fewer than 95 % are missing.
    """
    if not missing or len(missing) < _NEARLY_ALL * n_photos:
        return ""
    return f"{image_root}: {len(missing):,} of {n_photos:,} photos are missing, such as {missing[0]}"


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


CHANGED_DIGEST = "changed while they were read"
"""What stands for the digest of photos that changed, or were away for a moment, while a job read them."""


def confirm_digest(before: str, image_root: Path, photos: Sequence[PhotoRows], missing: Iterable[str]) -> str:
    """Returns the digest of photos that were read, or ``CHANGED_DIGEST``, which no digest equals, if they changed.

    Args:
        before: ``photo_digest`` of the photos before they were read.
        image_root: The folder that the ``image`` paths are relative to.
        photos: The photos, in order.
        missing: ``image`` of the photos that were found missing; one that is here again was away only for a moment.
    """
    is_same = photo_digest(image_root, photos) == before
    return before if is_same and not any((image_root / image).is_file() for image in missing) else CHANGED_DIGEST


@dataclass(frozen=True)
class UprightPhoto:
    """The upright pixels of a photo, and the way to them from the frame of its boxes.

    Attributes:
        pixels: (height, width, 3), RGB, as a viewer shows the photo.
        turn: From the frame of the boxes to ``pixels``: ``turn.to_upright`` takes boxes there, ``turn.to_stored`` back.
        boxes_frame: The frame of the boxes, ``stored`` or ``upright``; None if the photo has no orientation.
    """

    pixels: Photo
    turn: Turn
    boxes_frame: Frame | None = None


@dataclass(frozen=True)
class PhotoOrStatus:
    """A photo, or the status that explains why it could not be read.

    Attributes:
        photo: The photo; None if it cannot be read.
        status: ``image_missing`` or ``image_unreadable`` if there is no photo, else empty.
        reason: What is wrong with the file, in words, without its path; empty if there is a photo.
    """

    photo: UprightPhoto | None
    status: str = ""
    reason: str = ""


@dataclass(frozen=True)
class PhotoFolder:
    """The folder of a data set's photos, and the frame of their boxes where sizes do not tell it.

    Attributes:
        root: The folder that the ``image`` paths are relative to.
        undecided_frame: Frame of the boxes of photos whose size fits both frames or neither, see
            ``PhotoSize.find_frame``.
    """

    root: Path
    undecided_frame: Frame = "stored"

    @classmethod
    def of_record(cls, info: Mapping[str, Any]) -> PhotoFolder:
        """The photos of a data set, from the ``info`` of its parse record; older records have no frame: ``stored``.

        Raises:
            TableError: A value is missing or of another type.
        """
        root, frame = info.get("image_root"), info.get("undecided_frame", "stored")
        if not isinstance(root, str) or frame not in get_args(Frame):
            raise TableError(
                f"records/parse.json: image_root is {root!r} and undecided_frame {frame!r}, expected text and "
                f"{' or '.join(get_args(Frame))}; run 'emoface parse' again"
            )
        return cls(Path(root), frame)

    def count_bytes(self, image: str) -> int:
        """Reads from a photo's header how many bytes its pixels take; 0 if the photo is missing or cannot be read."""
        try:
            width, height = read_photo_size(self.root / image).stored_wh
        except ImageError:
            return 0
        return 3 * width * height

    def read(self, image: str, image_wh: tuple[int, int]) -> UprightPhoto:
        """Reads a photo upright.

        Args:
            image: Path below the folder.
            image_wh: Width and height of the frame of the photo's boxes, pixels.

        Raises:
            ImageError: The photo is missing or cannot be read.
        """
        pixels, size = read_photo_and_size(self.root / image)
        frame = size.find_frame(image_wh) or self.undecided_frame
        return UprightPhoto(pixels, size.turn_from(frame), None if size.orientation == NO_TURN else frame)

    def try_read(self, image: str, image_wh: tuple[int, int]) -> PhotoOrStatus:
        """Reads a photo upright, see ``read``; one that cannot be read gives a status instead of an error."""
        if not (self.root / image).is_file():
            return PhotoOrStatus(None, IMAGE_MISSING, describe_missing(self.root / image))
        try:
            return PhotoOrStatus(self.read(image, image_wh))
        except ImageError as error:
            if isinstance(error.__cause__, FileNotFoundError):  # it has vanished since the line above
                return PhotoOrStatus(None, IMAGE_MISSING, describe_missing(self.root / image))
            return PhotoOrStatus(None, IMAGE_UNREADABLE, str(error).removeprefix(f"{self.root / image}: "))
