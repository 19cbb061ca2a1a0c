"""Objects below the URL of an object store (S3, Google Cloud and others), read and written by fsspec.

fsspec and the package of the store are imported only for a URL. Their filesystem objects belong to one process and must
not be shared with a child, so an ``ObjectFolder`` has only its URL, and each process makes its own filesystem.
"""

from __future__ import annotations

import errno
import io
import logging
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from pathlib import Path
from typing import Any

from emoface.errors import EmofaceError, SettingsError, StoreError, describe_missing_package
from emoface.storage.files import atomic_path

_BLOCK_BYTES = 2**16
"""Bytes of one request for a part of an object; the header of nearly every photo is in its first block."""
_COPIED_BYTES = 2**26
"""Bytes of one request where an object is copied to a file."""
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
class ObjectFolder:
    """The objects below a URL. The methods may be called by several threads at once.

    ``name`` is always the path of an object below the URL. A store that does not answer, or refuses to, is a
    ``StoreError``; an object that is missing is not, unless its bucket is missing too.

    Attributes:
        url: The URL, without a slash at its end.
    """

    url: str

    def place(self, name: str) -> str:
        """The URL of an object, for messages."""
        return f"{self.url}/{name}"

    def is_folder(self) -> bool:
        """Whether there is a folder: an object store has one where an object is below its URL."""
        self._check_bucket()
        with self._naming_store():
            return bool(_find_filesystem(self.url).exists(self._path()))

    def ask(self, name: str) -> Mapping[str, Any] | None:
        """Asks for what the store knows of an object; None if there is none."""
        try:
            with self._naming_store():
                info: dict[str, Any] = _find_filesystem(self.url).info(self._path(name))
        except FileNotFoundError:
            return None
        return info if info["type"] == "file" else None

    def list_folder(self, folder: str) -> dict[str, Mapping[str, Any]]:
        """Lists the objects of a folder, by their path below the URL; the pages of a listing are fetched in turn."""
        try:
            with self._naming_store():
                infos: list[dict[str, Any]] = _find_filesystem(self.url).ls(self._path(folder), detail=True)
        except FileNotFoundError:
            infos = []
        prefix = f"{folder}/" if folder else ""
        found: dict[str, Mapping[str, Any]] = {
            f"{prefix}{one['name'].rpartition('/')[2]}": one for one in infos if one["type"] == "file"
        }
        FOLDER_SIZES[self.url, folder] = len(found)
        return found

    def fetch(self, name: str, start: int | None = None, end: int | None = None) -> bytes:
        """Fetches the bytes of an object, all or from ``start`` up to ``end``.

        Raises:
            FileNotFoundError: There is no such object, but the bucket is there.
            StoreError: The store does not answer, or refuses to.
        """
        with self._naming_store():
            data: bytes = _find_filesystem(self.url).cat_file(self._path(name), start=start, end=end)
            return data

    def fetch_file(self, name: str, path: Path) -> None:
        """Copies an object to a file of this machine in one step, some of its bytes at a time.

        Raises:
            FileNotFoundError: There is no such object.
        """
        n_bytes = self.count_object_bytes(name)
        with atomic_path(path) as temporary, temporary.open("wb") as file:
            for start in range(0, n_bytes, _COPIED_BYTES):
                file.write(self.fetch(name, start, min(start + _COPIED_BYTES, n_bytes)))

    def count_object_bytes(self, name: str) -> int:
        """Asks for the size of an object.

        Raises:
            FileNotFoundError: There is no such object.
        """
        info = self.ask(name)
        if info is None:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), self.place(name))
        return int(info["size"])

    def put(self, name: str, data: bytes) -> None:
        """Writes an object in one step: a reader finds either the old or the new one, whole."""
        with self._naming_store():
            _find_filesystem(self.url).pipe_file(self._path(name), data)

    def put_file(self, name: str, path: Path, advance: Callable[[int], None] = lambda _: None) -> None:
        """Writes a file of this machine as an object, some of its bytes at a time; the object appears in one step.

        Args:
            name: The path of the object below the URL.
            path: The file.
            advance: Receives the number of bytes that were sent since the last call; by another thread.
        """
        n_sent = 0

        def report(_: int, value: int, **__: object) -> None:
            nonlocal n_sent
            advance(value - n_sent)
            n_sent = value

        with self._naming_store():
            from fsspec.callbacks import Callback

            _find_filesystem(self.url).put_file(str(path), self._path(name), callback=Callback(hooks={"n": report}))

    def copy(self, name: str, new_name: str) -> None:
        """Copies an object within the store, in one step.

        Raises:
            FileNotFoundError: There is no such object.
        """
        with self._naming_store():
            _find_filesystem(self.url).cp_file(self._path(name), self._path(new_name))

    def remove(self, name: str) -> None:
        """Removes an object, if it is there."""
        with self._naming_store(), suppress(FileNotFoundError):
            _find_filesystem(self.url).rm_file(self._path(name))

    def _path(self, name: str = "") -> str:
        try:
            name.encode()
        except UnicodeEncodeError as error:  # no name of an object, so there is none
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), self.place(name)) from error
        root = str(_find_filesystem(self.url)._strip_protocol(self.url))
        return f"{root}/{name}" if name else root

    def _check_bucket(self) -> None:
        """Raises an error if the bucket itself is missing; a missing object is told in the same way by many stores."""
        if self.url in _SEEN_BUCKETS:
            return
        bucket = self._path().lstrip("/").partition("/")[0]
        with self._naming_store():
            try:
                _find_filesystem(self.url).info(bucket)  # unlike exists, which is False for a bucket of others, too
            except FileNotFoundError as error:
                raise StoreError(
                    f"{self.url}: there is no bucket '{bucket}'; check the URL, or create the bucket"
                ) from error
        _SEEN_BUCKETS.add(self.url)

    @contextmanager
    def _naming_store(self) -> Iterator[None]:
        """Makes one error of what the packages of stores raise, but for a missing object.

        Raises:
            FileNotFoundError: There is no such object, but the bucket is there.
            StoreError: Anything else went wrong, or the bucket is missing.
        """
        try:
            yield
        except FileNotFoundError:
            self._check_bucket()
            raise
        except EmofaceError:
            raise
        except Exception as error:  # the packages of stores have error families of their own, which are no OSError
            words = " ".join(str(error).split()) or type(error).__name__
            if _is_refusal(error, words):
                raise StoreError(
                    f"{self.url}: access denied ({words}); check the name of the bucket and the credentials in the "
                    "environment, see docs/scale.md"
                ) from error
            raise StoreError(
                f"{self.url}: the store does not answer as expected ({words}); check the URL, the network and the "
                "store's address, then run the same command again, which goes on from what is finished"
            ) from error


def _is_refusal(error: Exception, words: str) -> bool:
    """Whether a store refuses the credentials, or there are none; s3fs and gcsfs have different errors for it."""
    if isinstance(error, PermissionError) or getattr(error, "code", None) in (401, 403):
        return True
    return words.startswith("Forbidden: ") or "credentials" in words.lower()


FOLDER_SIZES: dict[tuple[str, str], int] = {}
"""Number of objects in each folder that this process has listed, by URL and folder."""
_SEEN_BUCKETS: set[str] = set()
"""URLs whose bucket is known to be there."""


def to_state(info: Mapping[str, Any] | None) -> str | None:
    """The size and version of an object as text, from what its store knows of it; None if it is missing."""
    if info is None:
        return None
    version = next((info[key] for key in _VERSION_KEYS if info.get(key) is not None), "")
    if isinstance(version, datetime):  # some stores tell a time as a number when they list, and as a date when asked
        version = version.timestamp()
    return f"{info['size']} {version}"


class ObjectReader(io.RawIOBase):
    """Reads an object in blocks, each fetched once and only when it is needed.

    Attributes:
        failure: The error of the store, if a block could not be fetched.
    """

    def __init__(self, store: ObjectFolder, name: str) -> None:
        self._store = store
        self._name = name
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
            return self._store.fetch(self._name, start, start + _BLOCK_BYTES)
        except StoreError:
            if self._count_bytes():  # no range of an empty object can be asked for
                raise
            return b""

    def _count_bytes(self) -> int:
        if self._size is None:
            self._size = self._store.count_object_bytes(self._name)
        return self._size


def _find_filesystem(url: str) -> Any:
    return _make_filesystem(url.partition("://")[0], os.getpid())


@lru_cache(maxsize=8)
def _make_filesystem(protocol: str, _: int) -> Any:
    """Makes the filesystem of one process; settings and credentials are those of its environment.

    Raises:
        SettingsError: The package that reads this kind of URL is not installed, or there is none.
    """
    logging.getLogger("gcsfs").addHandler(logging.NullHandler())  # what it logs, with a traceback, is our error, too
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
