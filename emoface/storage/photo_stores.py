"""Where photos are stored: a folder of this machine, or a URL of an object store that fsspec reads (S3, Google Cloud).

Every reader of photos asks a ``PhotoStore``, so that all commands work with both. fsspec and the package of the store
are imported only for a URL. Their filesystem objects belong to one process and must not be shared with a child, so a
store has only its URL, and each process makes its own filesystem.
"""

from __future__ import annotations

import errno
import io
import os
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import Any, Protocol, TypeVar

from emoface.errors import EmofaceError, ImageError, SettingsError, StoreError, describe_missing_package
from emoface.storage.files import digest_states, stat_state
from emoface.storage.urls import Place
from emoface.vision.crops import Photo
from emoface.vision.images import decode_photo_and_size, read_header, read_photo_and_size, read_photo_size
from emoface.vision.orientation import PhotoSize
from emoface.vision.photo_names import describe_missing, find_similar

P = TypeVar("P")

_BLOCK_BYTES = 2**16
"""Bytes of one request for a part of a photo; the header of nearly every photo is in its first block."""
_LISTED_PER_PHOTO = 10
"""A folder with more objects per photo that is asked for is not listed; each photo is asked for by itself."""
_ASKING_THREADS = 32
_FETCHED_AHEAD = 32
"""Number of photos whose bytes are on their way before they are needed; as many threads hide 30 ms per request."""
_VERSION_KEYS = (
    "ETag",
    "etag",
    "md5Hash",
    "content_md5",
    "LastModified",
    "last_modified",
    "updated",
    "mtime",
    "created",
)
"""What tells an object from one that replaced it, by store; the first that a store gives is used."""


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

    def read_states(self, images: Iterable[str]) -> PhotoStates:
        """Reads the present state of photos, without reading the photos."""


def open_store(root: Place) -> PhotoStore:
    """Returns the store of an image root; nothing is read yet.

    Args:
        root: A folder, or the URL of one.
    """
    return LocalStore(root) if isinstance(root, Path) else UrlStore(root)


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

    def read_states(self, images: Iterable[str]) -> PhotoStates:
        """See ``PhotoStore``; size and modification time of each file."""
        return PhotoStates({image: stat_state(self.root / image) for image in images})


@dataclass(frozen=True)
class UrlStore:
    """Photos below a URL, read by fsspec.

    Attributes:
        url: The URL, without a slash at its end.
    """

    url: str

    def place(self, image: str) -> str:
        """See ``PhotoStore``."""
        return f"{self.url}/{image}"

    def is_folder(self) -> bool:
        """See ``PhotoStore``; an object store has a folder where an object is below its URL."""
        self._check_bucket()
        with self._naming_store():
            return bool(_find_filesystem(self.url).exists(self._path()))

    def has(self, image: str) -> bool:
        """See ``PhotoStore``; one request."""
        return self._ask(image) is not None

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
        reader = _ObjectReader(self, image)
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

    def read_states(self, images: Iterable[str]) -> PhotoStates:
        """See ``PhotoStore``; one listing per folder, or one request per photo where most of a folder is not needed."""
        folders: dict[str, list[str]] = defaultdict(list)
        for image in images:
            folders[image.rpartition("/")[0]].append(image)
        found: dict[str, str | None] = {}
        for folder, wanted in folders.items():
            n_listed = _FOLDER_SIZES.get((self.url, folder), 0)
            if n_listed > _LISTED_PER_PHOTO * len(wanted):
                with ThreadPoolExecutor(min(_ASKING_THREADS, len(wanted))) as pool:
                    found |= zip(wanted, map(_to_state, pool.map(self._ask, wanted)), strict=True)
            else:
                infos = self._list(folder)
                found |= {image: _to_state(infos.get(image)) for image in wanted}
        return PhotoStates({image: found[image] for images in folders.values() for image in images})

    def fetch(self, image: str, start: int | None = None, end: int | None = None) -> bytes:
        """Fetches the bytes of an object, all or from ``start`` up to ``end``.

        Raises:
            FileNotFoundError: There is no such object, but the bucket is there.
            StoreError: The store does not answer, or refuses to.
        """
        with self._naming_store():
            try:
                data: bytes = _find_filesystem(self.url).cat_file(self._path(image), start=start, end=end)
                return data
            except FileNotFoundError:
                self._check_bucket()
                raise

    def count_object_bytes(self, image: str) -> int:
        """Asks for the size of an object.

        Raises:
            FileNotFoundError: There is no such object.
        """
        info = self._ask(image)
        if info is None:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), self.place(image))
        return int(info["size"])

    def _path(self, image: str = "") -> str:
        root = str(_find_filesystem(self.url)._strip_protocol(self.url))
        return f"{root}/{image}" if image else root

    def _ask(self, image: str) -> Mapping[str, Any] | None:
        """Asks for what the store knows of an object; None if there is none."""
        with self._naming_store():
            try:
                info: dict[str, Any] = _find_filesystem(self.url).info(self._path(image))
            except FileNotFoundError:
                self._check_bucket()
                return None
            return info if info["type"] == "file" else None

    def _list(self, folder: str) -> dict[str, Mapping[str, Any]]:
        """Lists the objects of a folder, by their path below the URL; the pages of a listing are fetched in turn."""
        path = self._path(folder)
        with self._naming_store():
            try:
                infos: list[dict[str, Any]] = _find_filesystem(self.url).ls(path, detail=True)
            except FileNotFoundError:
                self._check_bucket()
                infos = []
        prefix = f"{folder}/" if folder else ""
        found: dict[str, Mapping[str, Any]] = {
            f"{prefix}{one['name'].rpartition('/')[2]}": one for one in infos if one["type"] == "file"
        }
        _FOLDER_SIZES[self.url, folder] = len(found)
        return found

    def _check_bucket(self) -> None:
        """Raises an error if the bucket itself is missing; a missing object is told in the same way by many stores."""
        if self.url in _SEEN_BUCKETS:
            return
        bucket = self._path().lstrip("/").partition("/")[0]
        with self._naming_store():
            if not _find_filesystem(self.url).exists(bucket):
                raise StoreError(f"{self.url}: there is no bucket '{bucket}'; check the URL, or create the bucket")
        _SEEN_BUCKETS.add(self.url)

    @contextmanager
    def naming_missing(self, image: str) -> Iterator[None]:
        """Makes an ``ImageError`` of the error that there is no such object."""
        try:
            yield
        except FileNotFoundError as error:
            raise ImageError(f"{self.place(image)}: {self.describe_missing(image)}") from error

    @contextmanager
    def _naming_store(self) -> Iterator[None]:
        """Makes one error of what the packages of stores raise, but for a missing object.

        Raises:
            StoreError: Anything else went wrong.
        """
        try:
            yield
        except (FileNotFoundError, EmofaceError):
            raise
        except Exception as error:  # the packages of stores have error families of their own, which are no OSError
            words = " ".join(str(error).split()) or type(error).__name__
            if isinstance(error, PermissionError) or "credentials" in words.lower():
                raise StoreError(
                    f"{self.url}: access denied ({words}); check the name of the bucket and the credentials in the "
                    "environment, see docs/scale.md"
                ) from error
            raise StoreError(
                f"{self.url}: the store does not answer as expected ({words}); check the URL, the network and the "
                "store's address, then run the same command again, which goes on from what is finished"
            ) from error


_FOLDER_SIZES: dict[tuple[str, str], int] = {}
"""Number of objects in each folder that this process has listed, by URL and folder."""
_SEEN_BUCKETS: set[str] = set()
"""URLs whose bucket is known to be there."""


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


def _find_filesystem(url: str) -> Any:
    return _make_filesystem(url.partition("://")[0], os.getpid())


@lru_cache(maxsize=8)
def _make_filesystem(protocol: str, _: int) -> Any:
    """Makes the filesystem of one process; settings and credentials are those of its environment.

    Raises:
        SettingsError: The package that reads this kind of URL is not installed, or there is none.
    """
    try:
        import fsspec

        return fsspec.filesystem(protocol, use_listings_cache=False)
    except ImportError as error:
        missing = error if isinstance(error, ModuleNotFoundError) else error.__cause__
        package = {"s3": "s3fs", "s3a": "s3fs", "gs": "gcsfs", "gcs": "gcsfs"}.get(protocol)
        if package is not None:
            missing = ModuleNotFoundError(name=package)
        said = describe_missing_package(missing) if isinstance(missing, ModuleNotFoundError) else None
        raise SettingsError(f"{protocol}://: {said or error}") from error
    except ValueError as error:
        raise SettingsError(
            f"{protocol}://: no such kind of store; expected s3://, gs:// or another kind that fsspec knows"
        ) from error


def _to_state(info: Mapping[str, Any] | None) -> str | None:
    if info is None:
        return None
    version = next((str(info[key]) for key in _VERSION_KEYS if info.get(key) is not None), "")
    return f"{info['size']} {version}"


class _ObjectReader(io.RawIOBase):
    """Reads an object in blocks, each fetched once and only when it is needed.

    Attributes:
        failure: The error of the store, if a block could not be fetched.
    """

    def __init__(self, store: UrlStore, image: str) -> None:
        self._store = store
        self._image = image
        self._blocks: dict[int, bytes] = {}
        self._position = 0
        self._size: int | None = None
        self.failure: Exception | None = None

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._position}.get(whence)
        self._position = max(0, offset + (self._count_bytes() if start is None else start))
        return self._position

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer).cast("B")
        n_read = 0
        while n_read < len(view):
            number, start = divmod(self._position, _BLOCK_BYTES)
            part = self._block(number)[start : start + len(view) - n_read]
            if not part:
                break
            view[n_read : n_read + len(part)] = part
            n_read += len(part)
            self._position += len(part)
        return n_read

    def _block(self, number: int) -> bytes:
        if number not in self._blocks:
            try:
                self._blocks[number] = self._fetch_block(number)
            except (StoreError, FileNotFoundError) as error:
                self.failure = error
                raise
        return self._blocks[number]

    def _fetch_block(self, number: int) -> bytes:
        start = number * _BLOCK_BYTES
        if number and start >= self._count_bytes():
            return b""
        try:
            return self._store.fetch(self._image, start, start + _BLOCK_BYTES)
        except StoreError:
            if self._count_bytes():  # no range of an empty object can be asked for
                raise
            return b""

    def _count_bytes(self) -> int:
        if self._size is None:
            self._size = self._store.count_object_bytes(self._image)
        return self._size
