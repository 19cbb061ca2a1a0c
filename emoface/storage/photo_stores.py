"""Where photos are stored: a folder of this machine, or a URL of an object store that fsspec reads (S3, Google Cloud).

Every reader of photos asks a ``PhotoStore``, so that all commands work with both.
"""

from __future__ import annotations

import hashlib
import io
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Protocol, TypeVar

from emoface.errors import ImageError
from emoface.storage.files import digest_states, file_sha256, stat_state
from emoface.storage.objects import FOLDER_SIZES, ObjectFolder, ObjectReader, to_state
from emoface.storage.urls import Place, name_of, parent_of
from emoface.vision.crops import Photo
from emoface.vision.images import (
    decode_photo_and_size,
    decode_small_photo,
    read_header,
    read_photo,
    read_photo_and_size,
    read_photo_size,
    read_small_photo,
)
from emoface.vision.orientation import PhotoSize
from emoface.vision.photo_names import describe_missing, find_similar

P = TypeVar("P")

_LISTED_PER_PHOTO = 10
"""A folder with more objects per photo that is asked for is not listed; each photo is asked for by itself."""
_ASKING_THREADS = 32
_FETCHED_AHEAD = 32
"""Number of photos whose bytes are on their way before they are needed; as many threads hide 30 ms per request."""


@dataclass(frozen=True)
class PhotoStates:
    """The states of photos at one moment, which change when a photo is replaced.

    Attributes:
        of: By ``image``, its size and its time or version as text; None if the photo is missing.
    """

    of: Mapping[str, str | None]

    @property
    def missing(self) -> list[str]:
        """The photos that are missing."""
        return [image for image, state in self.of.items() if state is None]

    def digest(self, images: Iterable[str]) -> str:
        """Computes a digest of some of the photos, which changes when one is added, removed or replaced.

        Returns:
            64 hexadecimal digits.
        """
        return digest_states((image, self.of[image]) for image in images)


class PhotoStore(Protocol):
    """A folder of photos. Its methods may be called by several threads at once.

    ``image`` is always the path of a photo below the folder. A photo that is missing or damaged is an ``ImageError``;
    a store that does not answer, or refuses to, is a ``StoreError``.
    """

    def place(self, image: str) -> str:
        """The path or URL of a photo, for messages."""

    def is_folder(self) -> bool:
        """Whether there is a folder at all."""

    def has(self, image: str) -> bool:
        """Whether a photo is there."""

    def is_missing(self, image: str, error: ImageError) -> bool:
        """Whether reading a photo failed with this error because it is missing, not because it is damaged."""

    def describe_missing(self, image: str) -> str:
        """Says that a photo is missing, and which other name is there that only looks the same."""

    def find_similar(self, image: str) -> str | None:
        """Finds a file whose name differs from that of a missing photo only in case or Unicode form."""

    def read_size(self, image: str) -> PhotoSize:
        """Reads the size and orientation from a photo's header alone."""

    def read(self, image: str) -> tuple[Photo, PhotoSize]:
        """Reads a photo upright, with its stored size and its orientation."""

    def read_small(self, image: str, side: int) -> Photo:
        """Reads a photo upright, both sides at least ``side`` if the photo's are; see ``decode_small_photo``."""

    def read_states(self, images: Iterable[str]) -> PhotoStates:
        """Reads the present state of photos, without reading the photos."""


def open_store(root: Place) -> PhotoStore:
    """Returns the store of an image root; nothing is read yet.

    Args:
        root: A folder, or the URL of one.
    """
    return LocalStore(root) if isinstance(root, Path) else UrlStore(root)


def read_photo_at(place: Place) -> Photo:
    """Reads one photo upright, from a path or a URL.

    Returns:
        (height, width, 3) uint8, RGB.

    Raises:
        ImageError: The photo is missing or cannot be read.
        StoreError: It is in an object store, which does not answer or refuses to.
    """
    return read_photo(place) if isinstance(place, Path) else UrlStore(str(parent_of(place))).read(name_of(place))[0]


def hash_photos(places: Iterable[Place]) -> dict[str, str]:
    """Computes the sha256 of photos by their path or URL; photos that are missing are left out."""
    hashes = {}
    for place in places:
        if isinstance(place, Path):
            if place.is_file():
                hashes[str(place)] = file_sha256(place)
            continue
        with suppress(FileNotFoundError):
            hashes[place] = hashlib.sha256(UrlStore(str(parent_of(place))).fetch(name_of(place))).hexdigest()
    return hashes


@dataclass(frozen=True)
class LocalStore:
    """Photos in a folder of this machine.

    Attributes:
        root: The folder.
    """

    root: Path

    def place(self, image: str) -> str:
        """See ``PhotoStore``."""
        return str(self.root / image)

    def is_folder(self) -> bool:
        """See ``PhotoStore``."""
        return self.root.is_dir()

    def has(self, image: str) -> bool:
        """See ``PhotoStore``."""
        return (self.root / image).is_file()

    def is_missing(self, image: str, error: ImageError) -> bool:
        """See ``PhotoStore``; a folder of this name is no photo."""
        return isinstance(error.__cause__, FileNotFoundError) or not self.has(image)

    def describe_missing(self, image: str) -> str:
        """See ``PhotoStore``."""
        return describe_missing(self.root / image)

    def find_similar(self, image: str) -> str | None:
        """See ``PhotoStore``."""
        similar = find_similar(self.root / image)
        return None if similar is None else str(similar)

    def read_size(self, image: str) -> PhotoSize:
        """See ``PhotoStore``."""
        return read_photo_size(self.root / image)

    def read(self, image: str) -> tuple[Photo, PhotoSize]:
        """See ``PhotoStore``."""
        return read_photo_and_size(self.root / image)

    def read_small(self, image: str, side: int) -> Photo:
        """See ``PhotoStore``."""
        return read_small_photo(self.root / image, side)

    def read_states(self, images: Iterable[str]) -> PhotoStates:
        """See ``PhotoStore``; size and modification time of each file."""
        return PhotoStates({image: stat_state(self.root / image) for image in images})


@dataclass(frozen=True)
class UrlStore(ObjectFolder):
    """Photos below a URL; see ``PhotoStore``."""

    def has(self, image: str) -> bool:
        """See ``PhotoStore``; one request."""
        return self.ask(image) is not None

    def is_missing(self, image: str, error: ImageError) -> bool:
        """See ``PhotoStore``."""
        return isinstance(error.__cause__, FileNotFoundError)

    def describe_missing(self, image: str) -> str:
        """See ``PhotoStore``; similar names are not looked for."""
        return "no such photo"

    def find_similar(self, image: str) -> str | None:
        """See ``PhotoStore``; similar names are not looked for."""
        return None

    def read_size(self, image: str) -> PhotoSize:
        """See ``PhotoStore``; one request for most photos."""
        reader = ObjectReader(self, image)
        with self.naming_missing(image):
            try:
                return read_header(io.BufferedReader(reader), self.place(image))
            finally:
                if reader.failure is not None:  # the reader of a format may have taken it for damage of the photo
                    raise reader.failure

    def read(self, image: str) -> tuple[Photo, PhotoSize]:
        """See ``PhotoStore``; one request."""
        with self.naming_missing(image):
            data = self.fetch(image)
        return decode_photo_and_size(data, self.place(image))

    def read_small(self, image: str, side: int) -> Photo:
        """See ``PhotoStore``; one request."""
        with self.naming_missing(image):
            data = self.fetch(image)
        return decode_small_photo(data, self.place(image), side)

    def read_states(self, images: Iterable[str]) -> PhotoStates:
        """See ``PhotoStore``; one listing per folder, or one request per photo where most of a folder is not needed."""
        folders: dict[str, list[str]] = defaultdict(list)
        for image in images:
            folders[image.rpartition("/")[0]].append(image)
        found: dict[str, str | None] = {}
        for folder, wanted in folders.items():
            n_listed = FOLDER_SIZES.get((self.url, folder), 0)
            if n_listed > _LISTED_PER_PHOTO * len(wanted):
                with ThreadPoolExecutor(min(_ASKING_THREADS, len(wanted))) as pool:
                    found |= zip(wanted, map(to_state, pool.map(self.ask, wanted)), strict=True)
            else:
                infos = self.list_folder(folder)
                found |= {image: to_state(infos.get(image)) for image in wanted}
        return PhotoStates({image: found[image] for images in folders.values() for image in images})

    @contextmanager
    def naming_missing(self, image: str) -> Iterator[None]:
        """Makes an ``ImageError`` of the error that there is no such object."""
        try:
            yield
        except FileNotFoundError as error:
            raise ImageError(f"{self.place(image)}: {self.describe_missing(image)}") from error


@contextmanager
def open_ahead(store: PhotoStore) -> Iterator[PhotoStore]:
    """Gives a store whose photos are fetched ahead, see ``ReadAheadStore``; a local folder needs none and stays."""
    if not isinstance(store, UrlStore):
        yield store
        return
    pool = ThreadPoolExecutor(_FETCHED_AHEAD)
    try:
        yield ReadAheadStore(store.url, pool=pool)
    finally:
        pool.shutdown(cancel_futures=True)


@dataclass(frozen=True)
class ReadAheadStore(UrlStore):
    """Photos below a URL whose bytes are fetched before they are read, while others are decoded.

    Attributes:
        pool: The threads that fetch.
    """

    pool: Executor = field(compare=False, kw_only=True)
    _fetched: dict[str, Future[bytes]] = field(default_factory=dict, init=False, repr=False, compare=False)

    def fetch_ahead(self, photos: Iterable[P], image_of: Callable[[P], str]) -> Iterator[P]:
        """Yields photos unchanged, while the bytes of the next ones are fetched, each for one call of ``read``.

        Args:
            photos: The photos, each once.
            image_of: Gives the path of a photo below the URL.
        """

        def start(photo: P) -> P:
            self._fetched[image_of(photo)] = self.pool.submit(super(ReadAheadStore, self).fetch, image_of(photo))
            return photo

        started = map(start, photos)
        waiting = deque(islice(started, _FETCHED_AHEAD))
        while waiting:
            yield waiting.popleft()
            waiting.extend(islice(started, 1))

    def fetch(self, image: str, start: int | None = None, end: int | None = None) -> bytes:
        """See ``UrlStore``; waits for the bytes if they are on their way."""
        future = self._fetched.get(image)
        return super().fetch(image, start, end) if future is None else future.result()[start:end]

    def count_object_bytes(self, image: str) -> int:
        """See ``UrlStore``."""
        future = self._fetched.get(image)
        return super().count_object_bytes(image) if future is None else len(future.result())

    def read(self, image: str) -> tuple[Photo, PhotoSize]:
        """See ``PhotoStore``; the fetched bytes are dropped."""
        try:
            return super().read(image)
        finally:
            self._fetched.pop(image, None)

    def read_small(self, image: str, side: int) -> Photo:
        """See ``PhotoStore``; the fetched bytes are dropped."""
        try:
            return super().read_small(image, side)
        finally:
            self._fetched.pop(image, None)
