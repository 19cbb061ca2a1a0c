"""The photos of a data set: the people of each photo, a digest that detects changed photos, and the pixels.

Boxes are in the frame of the annotations: the stored pixels, or the upright photo; ``PhotoSize.find_frame`` tells
which. Detection and all crops happen on the upright photo; ``UprightPhoto.turn`` takes boxes to it and back.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar, get_args

import numpy as np
from numpy.typing import NDArray

from emoface.errors import ImageError, SettingsError, TableError
from emoface.schema import SOURCES
from emoface.storage.photo_stores import PhotoStates, PhotoStore, ReadAheadStore, open_ahead, open_store
from emoface.storage.records import fact_inputs, need_record
from emoface.storage.urls import Place, from_portable, resolve_place
from emoface.vision.crops import Photo
from emoface.vision.orientation import NO_TURN, Frame, Turn

P = TypeVar("P", bound="PhotoRows")

IMAGE_MISSING, IMAGE_UNREADABLE = "image_missing", "image_unreadable"
"""Why a photo has no pixels: the file does not exist, or it exists but cannot be decoded."""
UNREADABLE_PHOTOS = "unreadable_photos"
"""Entry of ``info`` in the record of faces: by image, what is wrong with each photo that is ``image_unreadable``."""
IMAGE_ROOT = "image_root"
"""Entry of ``info`` in the records of parse and faces: where the photos are, see ``to_portable``."""
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


def is_nearly_all(n_missing: int, n_photos: int) -> bool:
    """Whether so many photos are missing, 95 % or more, that their folder is at fault, not the single photos."""
    return n_missing > 0 and n_missing >= _NEARLY_ALL * n_photos


def describe_missing_photos(image_root: Place, missing: Sequence[str], n_photos: int) -> str:
    """Says that so many photos are missing that their folder was probably moved, or its disk is not mounted.

    Args:
        image_root: The folder that the ``image`` paths are relative to.
        missing: The photos that are missing, each once.
        n_photos: Number of all photos.

    Returns:
        How many photos are missing, and one of them; empty if fewer than 95 % are missing.
    """
    if not is_nearly_all(len(missing), n_photos):
        return ""
    return f"{image_root}: {len(missing):,} of {n_photos:,} photos are missing, such as {missing[0]}"


def check_photos(image_root: Place, states: PhotoStates, allow_missing: bool) -> None:
    """Refuses to work on photos of which all, or nearly all, are missing, before a result is replaced.

    Args:
        image_root: The folder that the ``image`` paths are relative to.
        states: The present states of all photos that the job reads.
        allow_missing: Whether the user means it.

    Raises:
        ImageError: At least 95 % of the photos are missing, and ``allow_missing`` is not set.
    """
    said = describe_missing_photos(image_root, states.missing, len(states.of))
    if said and not allow_missing:
        raise ImageError(
            f"{said}; nothing was replaced. Mount the disk, or name the folder of the photos with '--images DIR' if "
            "they have moved; '--allow-missing' goes on without them"
        )


def check_image_root(images: Place) -> None:
    """Refuses an image root that a user gave and that is no folder.

    Raises:
        SettingsError: There is no such folder.
        StoreError: It is in an object store, which does not answer or refuses to.
    """
    if not open_store(images).is_folder():
        folders = ", ".join(f"{source}/images" for source in SOURCES)
        raise SettingsError(f"{images}: no such folder, expected the one that holds {folders}; see --images")


def photo_digest(image_root: Place, photos: Iterable[PhotoRows]) -> str:
    """Computes a digest that changes when a photo is added, removed or replaced.

    Only the size and the modification time, or the version, of each photo are read.

    Args:
        image_root: The folder that the ``image`` paths are relative to.
        photos: The photos, in order.

    Returns:
        64 hexadecimal digits.
    """
    images = [photo.image for photo in photos]
    return open_store(image_root).read_states(images).digest(images)


CHANGED_DIGEST = "changed while they were read"
"""What stands for the digest of photos that changed, or were away for a moment, while a job read them."""


def confirm_digest(before: str, image_root: Place, photos: Sequence[PhotoRows], missing: Iterable[str]) -> str:
    """Returns the digest of photos that were read, or ``CHANGED_DIGEST``, which no digest equals, if they changed.

    Args:
        before: ``photo_digest`` of the photos before they were read.
        image_root: The folder that the ``image`` paths are relative to.
        photos: The photos, in order.
        missing: ``image`` of the photos that were found missing; one that is here again was away only for a moment.
    """
    images = [photo.image for photo in photos]
    now = open_store(image_root).read_states(images)
    is_same = now.digest(images) == before
    return before if is_same and not any(now.of[image] is not None for image in missing) else CHANGED_DIGEST


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
        root: The folder that the ``image`` paths are relative to, or its URL in an object store.
        undecided_frame: Frame of the boxes of photos whose size fits both frames or neither, see
            ``PhotoSize.find_frame``.
        ahead: Photos that are fetched ahead, see ``read_ahead``; None if they are read when they are needed.
    """

    root: Place
    undecided_frame: Frame = "stored"
    ahead: ReadAheadStore | None = field(default=None, repr=False, compare=False)

    @classmethod
    def of_data_set(cls, folder: Path, images: Place | None = None) -> PhotoFolder:
        """The photos of the data set in a folder, where ``parse`` found them.

        Args:
            folder: The data set's folder.
            images: Another place of the photos.

        Raises:
            SettingsError: ``images`` is no folder.
            TableError: The record of ``parse`` is missing, or has a value of another type.
        """
        found = cls.of_record(need_record(folder, "parse").info, folder)
        if images is None:
            return found
        check_image_root(images)
        return replace(found, root=resolve_place(images))

    @classmethod
    def of_record(cls, info: Mapping[str, Any], folder: Path) -> PhotoFolder:
        """The photos of a data set, from the ``info`` of its parse record; older records have no frame: ``stored``.

        Args:
            info: See ``JobRecord.info``.
            folder: The data set's folder, where a relative image root starts.

        Raises:
            TableError: A value is missing or of another type.
        """
        root, frame = info.get(IMAGE_ROOT), info.get("undecided_frame", "stored")
        if not isinstance(root, str) or frame not in get_args(Frame):
            raise TableError(
                f"records/parse.json: image_root is {root!r} and undecided_frame {frame!r}, expected text and "
                f"{' or '.join(get_args(Frame))}; run 'emoface parse' again"
            )
        return cls(from_portable(root, folder), frame)

    @staticmethod
    def record_inputs(folder: Path, images: Place | None = None) -> dict[str, str]:
        """The entry of ``inputs`` for what ``of_data_set`` reads from the record of ``parse``."""
        return fact_inputs(folder, "parse", [*([] if images else [IMAGE_ROOT]), "undecided_frame"])

    @property
    def store(self) -> PhotoStore:
        """The store that the photos are read from."""
        return self.ahead or open_store(self.root)

    def has(self, image: str) -> bool:
        """Whether a photo is there; in an object store this takes a request."""
        return self.store.has(image)

    def read_states(self, images: Iterable[str]) -> PhotoStates:
        """Reads the present state of photos: the size and the modification time, or the version, of each."""
        return self.store.read_states(images)

    def digest_before(self, photos: Sequence[PhotoRows], known: PhotoStates) -> str:
        """Computes the digest of photos that are going to be read.

        Files are looked at again. Of an object store the states that were read earlier will do: it costs requests, and
        a photo that has changed since is found when the digest is confirmed.

        Args:
            photos: The photos, in order.
            known: States that were read earlier.
        """
        if isinstance(self.root, Path):
            return photo_digest(self.root, photos)
        return known.digest(photo.image for photo in photos)

    def count_bytes(self, image: str) -> int:
        """Reads from a photo's header how many bytes its pixels take; 0 if the photo is missing or cannot be read."""
        try:
            width, height = self.store.read_size(image).stored_wh
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
            StoreError: The photos are in an object store, which does not answer or refuses to.
        """
        pixels, size = self.store.read(image)
        frame = size.find_frame(image_wh) or self.undecided_frame
        return UprightPhoto(pixels, size.turn_from(frame), None if size.orientation == NO_TURN else frame)

    def try_read(self, image: str, image_wh: tuple[int, int]) -> PhotoOrStatus:
        """Reads a photo upright, see ``read``; one that cannot be read gives a status instead of an ``ImageError``."""
        try:
            return PhotoOrStatus(self.read(image, image_wh))
        except ImageError as error:
            if self.store.is_missing(image, error):
                return PhotoOrStatus(None, IMAGE_MISSING, self.store.describe_missing(image))
            return PhotoOrStatus(None, IMAGE_UNREADABLE, str(error).removeprefix(f"{self.store.place(image)}: "))


@contextmanager
def read_ahead(folder: PhotoFolder, photos: Iterable[P]) -> Iterator[tuple[PhotoFolder, Iterable[P]]]:
    """Fetches the photos of an object store ahead of their use; photos in a folder of this machine need no such help.

    Args:
        folder: The folder of the photos.
        photos: The photos in the order in which they will be read, each once.

    Yields:
        The folder to read from, which holds what has been fetched, and the photos to iterate over.
    """
    with open_ahead(folder.store) as store:
        if isinstance(store, ReadAheadStore):
            yield replace(folder, ahead=store), store.fetch_ahead(photos, lambda photo: photo.image)
        else:
            yield folder, photos
