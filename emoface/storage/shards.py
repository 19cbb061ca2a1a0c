"""Work that is stored in shards, so that an interrupted run continues from the shards that are finished.

The content of a shard (a table, arrays, photos) is written first and its summary last, each file in one step, so the
existence of the summary means that the shard is finished. A later run reuses every shard whose summary still agrees
with its content and with its inputs. If a folder of shards is named by a key, the key is a hash of everything except
the photos that the content of the shards depends on; folders with other keys are removed unless a process reads them.
Shards lie in a folder of this machine, or as objects in a store.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict

from emoface.errors import TableError
from emoface.progress import SILENT, Progress
from emoface.storage.files import file_sha256, parse_json, remove_leftovers, write_bytes
from emoface.storage.locks import is_in_use
from emoface.storage.objects import ObjectFolder
from emoface.storage.settings import describe_fault

Shard = TypeVar("Shard", bound=Sequence[Any])
Summary = dict[str, Any]


def shards_key(parts: Sequence[Any]) -> str:
    """Computes a short hash of everything that the content of a folder of shards depends on.

    Args:
        parts: JSON values: settings, hashes of files, the code's fingerprint.

    Returns:
        16 hexadecimal digits.

    Example:
        >>> shards_key([{"margin": 0.15, "align": False}]) == shards_key([{"align": False, "margin": 0.15}])
        True
    """
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]


class SummaryModel(BaseModel):
    """Base class of the descriptions of summaries: the types of the values that are read back, without conversion."""

    model_config = ConfigDict(strict=True)


class Shards(ABC):
    """The shards of one run: ``00007.json`` is the summary of shard 7, and its other files begin with ``00007`` too.

    Attributes:
        kind: The values that a summary must have, with their types.
    """

    kind: type[SummaryModel]

    @abstractmethod
    def place(self, number: int, ending: str) -> str:
        """The path or URL of a file of a shard: ``00007.parquet`` for the ending ``parquet``."""

    @abstractmethod
    def read_file(self, number: int, ending: str) -> bytes | None:
        """Reads a file of a shard; None if there is none."""

    @abstractmethod
    def write_file(self, number: int, ending: str, data: bytes) -> None:
        """Writes a file of a shard in one step."""

    @abstractmethod
    def remove_file(self, number: int, ending: str) -> None:
        """Removes a file of a shard, if it is there."""

    @abstractmethod
    def remove(self) -> None:
        """Removes all files of these shards."""

    @abstractmethod
    def remove_leftovers(self, *endings: str) -> None:
        """Removes the partially written files of killed runs; no other process may be writing to the folder.

        Args:
            endings: Endings of the shards' files other than the summaries.
        """

    @abstractmethod
    def remove_other_keys(self, pattern: str = "*", progress: Progress = SILENT) -> None:
        """Removes the folders beside this one that contain shards with other keys, except those that a process reads.

        Args:
            pattern: Glob pattern of the folder names.
            progress: Receives a note for each folder that is left because a process reads it, see ``FolderInUse``.
        """

    def hash_file(self, number: int, ending: str) -> str | None:
        """Computes the sha256 of a file of a shard; None if there is none."""
        data = self.read_file(number, ending)
        return None if data is None else hashlib.sha256(data).hexdigest()

    def read_summary(self, number: int) -> Summary:
        """Reads the summary of a finished shard.

        Raises:
            TableError: The summary is damaged: cut, or a value is missing or of another type.
        """
        summary = self._read_summary(number)
        if summary is None:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), self.place(number, "json"))
        return summary

    def _read_summary(self, number: int) -> Summary | None:
        data = self.read_file(number, "json")
        if data is None:
            return None
        try:
            summary: Summary = parse_json(data.decode("utf-8"))
            self.kind.model_validate(summary)
        except ValueError as error:
            place = self.place(number, "json")
            raise TableError(
                f"{place}: not the summary of a shard ({describe_fault(error)}); delete '{place.rpartition('/')[0]}' "
                "and run again"
            ) from error
        return summary

    def find_pending(
        self,
        shards: Sequence[Shard],
        is_current: Callable[[int, Shard, Summary], bool],
        progress: Progress = SILENT,
    ) -> list[tuple[int, Shard]]:
        """Finds the shards that are not finished, each with its number; a damaged summary means not finished.

        Args:
            shards: All shards of the run, in order.
            is_current: Called with the number of a shard, the shard and its summary; returns whether the summary agrees
                with the content that is stored and with the present inputs of the shard.
            progress: Advances by the number of items of each finished shard.
        """
        pending = []
        for number, shard in enumerate(shards):
            summary = self.find_summary(number)
            if summary is not None and is_current(number, shard, summary):
                progress.advance(len(shard))
            else:
                pending.append((number, shard))
        return pending

    def find_summary(self, number: int) -> Summary | None:
        """Reads the summary of a shard; None if there is none, or if it is damaged."""
        try:
            return self._read_summary(number)
        except TableError:
            return None

    def unmark(self, number: int) -> None:
        """Removes the summary of a shard, if there is one, before the content of the shard is replaced."""
        self.remove_file(number, "json")

    def mark_done(self, number: int, summary_json: str) -> None:
        """Writes the summary of a shard whose content is complete.

        Args:
            number: The number of the shard.
            summary_json: The summary, a JSON object as text.
        """
        self.write_file(number, "json", summary_json.encode("utf-8", "backslashreplace"))


@dataclass(frozen=True)
class ShardFolder(Shards):
    """Shards in a folder of this machine.

    Attributes:
        path: The folder; it is created when its first file is written.
        kind: The values that a summary must have, with their types.
    """

    path: Path
    kind: type[SummaryModel]

    def file_path(self, number: int, ending: str) -> Path:
        """Returns the path of a file of a shard: ``00007.parquet`` for the ending ``parquet``."""
        return self.path / _file_name(number, ending)

    def summary_path(self, number: int) -> Path:
        """Returns the path of the summary of a shard."""
        return self.file_path(number, "json")

    def place(self, number: int, ending: str) -> str:
        """See ``Shards``."""
        return str(self.file_path(number, ending))

    def read_file(self, number: int, ending: str) -> bytes | None:
        """See ``Shards``."""
        path = self.file_path(number, ending)
        return path.read_bytes() if path.is_file() else None

    def write_file(self, number: int, ending: str, data: bytes) -> None:
        """See ``Shards``."""
        write_bytes(self.file_path(number, ending), data)

    def remove_file(self, number: int, ending: str) -> None:
        """See ``Shards``."""
        self.file_path(number, ending).unlink(missing_ok=True)

    def remove(self) -> None:
        """See ``Shards``."""
        shutil.rmtree(self.path, ignore_errors=True)

    def remove_leftovers(self, *endings: str) -> None:
        """See ``Shards``."""
        for ending in ("json", *endings):
            remove_leftovers(self.path / f"*.{ending}")

    def remove_other_keys(self, pattern: str = "*", progress: Progress = SILENT) -> None:
        """See ``Shards``."""
        for other in self.path.parent.glob(pattern):
            if other == self.path or not other.is_dir():
                continue
            if is_in_use(other):
                progress.note(f"{other}: of other data or code, left because a running process reads it")
            else:
                shutil.rmtree(other)


@dataclass(frozen=True)
class ShardObjects(Shards):
    """Shards in an object store, where several machines without a common disk find them.

    An object appears in one step, so nothing is ever left half written. There are no locks: two runs may write the same
    shard at once, so whoever reads one compares its sha256 with its summary. Shards with other keys stay, because
    another data set may have put them there.

    Attributes:
        url: The URL below which the objects are.
        kind: The values that a summary must have, with their types.
    """

    url: str
    kind: type[SummaryModel]

    def place(self, number: int, ending: str) -> str:
        """See ``Shards``."""
        return ObjectFolder(self.url).place(_file_name(number, ending))

    def read_file(self, number: int, ending: str) -> bytes | None:
        """See ``Shards``."""
        try:
            return ObjectFolder(self.url).fetch(_file_name(number, ending))
        except FileNotFoundError:
            return None

    def write_file(self, number: int, ending: str, data: bytes) -> None:
        """See ``Shards``."""
        ObjectFolder(self.url).put(_file_name(number, ending), data)

    def remove_file(self, number: int, ending: str) -> None:
        """See ``Shards``."""
        ObjectFolder(self.url).remove(_file_name(number, ending))

    def remove_leftovers(self, *endings: str) -> None:
        """See ``Shards``; there are none."""

    def remove_other_keys(self, pattern: str = "*", progress: Progress = SILENT) -> None:
        """See ``Shards``; they stay."""

    def remove(self) -> None:
        """See ``Shards``."""
        folder = ObjectFolder(self.url)
        for name in folder.list_folder(""):
            folder.remove(name)


def _file_name(number: int, ending: str) -> str:
    return f"{number:05d}.{ending}"


class _CopiedShard(SummaryModel):
    """The summary of a copy: the sha256 of its files by their endings, and the summary of the shard itself."""

    sha256: dict[str, str]
    summary: dict[str, Any]


class ShardCopies:
    """Copies in an object store of the shards in a folder of this machine, which other machines fetch.

    The summary of a copy is put last, and has the sha256 of each of its files. As with ``ShardObjects`` there are no
    locks: if two machines put the same shard at once, a copy that is a mixture of both is found when it is fetched.

    Args:
        folder: The shards of this machine.
        url: URL of the copies.
        endings: Endings of the files of a shard other than the summary.
    """

    def __init__(self, folder: ShardFolder, url: str, endings: Sequence[str]) -> None:
        self._folder = folder
        self._copies = ShardObjects(url, _CopiedShard)
        self._store = ObjectFolder(url)
        self._endings = tuple(endings)

    def find_missing(self, numbers: Iterable[int]) -> list[int]:
        """Finds which of these shards have no copy; one listing."""
        names = self._store.list_folder("")
        return [number for number in numbers if _file_name(number, "json") not in names]

    def fetch(self, number: int, is_wanted: Callable[[Summary], bool], progress: Progress = SILENT) -> bool:
        """Fetches a shard: its files first, its summary last.

        Args:
            number: The number of the shard.
            is_wanted: Called with the summary of the shard; returns whether it agrees with the present inputs.
            progress: Receives a note if the copy is damaged.

        Returns:
            Whether there is a whole copy of this shard that is wanted.
        """
        copied = self._copies.find_summary(number)
        if copied is None or not (self._is_of_kind(copied["summary"]) and is_wanted(copied["summary"])):
            return False
        self._folder.unmark(number)
        for ending in self._endings:
            path = self._folder.file_path(number, ending)
            try:
                self._store.fetch_file(_file_name(number, ending), path)
            except FileNotFoundError:
                return False
            if file_sha256(path) != copied["sha256"].get(ending):
                progress.note(f"{self._copies.place(number, ending)}: damaged or replaced by another run; made again")
                return False
        self._folder.mark_done(number, json.dumps(copied["summary"]) + "\n")
        return True

    def put(self, number: int) -> None:
        """Puts a copy of a finished shard: its files first, its summary last."""
        paths = {ending: self._folder.file_path(number, ending) for ending in self._endings}
        copied = {
            "sha256": {ending: file_sha256(path) for ending, path in paths.items()},
            "summary": self._folder.read_summary(number),
        }
        self._copies.unmark(number)
        for ending, path in paths.items():
            self._store.put_file(_file_name(number, ending), path)
        self._copies.mark_done(number, json.dumps(copied) + "\n")

    def _is_of_kind(self, summary: Summary) -> bool:
        try:
            self._folder.kind.model_validate(summary)
        except ValueError:
            return False
        return True
