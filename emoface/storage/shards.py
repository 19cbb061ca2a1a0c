"""Work that is kept in shards, so that a run that was broken off goes on where it was.

The content of a shard (a table, arrays, photos) is written first and its summary last, each file in one step, so the
summary is itself the mark that the shard is done. A later run takes over every shard whose summary still agrees with
its content and with what it was made from. Where a folder of shards is named by a key, the key tells everything but
the photos that decides what the shards hold; folders of other keys are removed.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from emoface.progress import SILENT, Progress
from emoface.storage.files import remove_leftovers, write_text

Shard = TypeVar("Shard", bound=Sequence[Any])
Summary = dict[str, Any]


def shards_key(parts: Sequence[Any]) -> str:
    """A short name for everything that decides what the shards of a folder hold.

    Args:
        parts: JSON values: settings, hashes of files, the code's fingerprint.

    Returns:
        16 hexadecimal digits.

    Example:
        >>> shards_key([{"margin": 0.15, "align": False}]) == shards_key([{"align": False, "margin": 0.15}])
        True
    """
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]


@dataclass(frozen=True)
class ShardFolder:
    """The shards of one run: ``00007.json`` is the summary of shard 7, and the names of its files begin alike.

    Attributes:
        path: The folder; its first file makes it.
    """

    path: Path

    def file_path(self, number: int, ending: str) -> Path:
        """A file of a shard: ``00007.parquet`` for the ending ``parquet``."""
        return self.path / f"{number:05d}.{ending}"

    def summary_path(self, number: int) -> Path:
        """The summary of a shard."""
        return self.file_path(number, "json")

    def read_summary(self, number: int) -> Summary:
        """The summary of a finished shard."""
        summary: Summary = json.loads(self.summary_path(number).read_text(encoding="utf-8"))
        return summary

    def find_pending(
        self,
        shards: Sequence[Shard],
        is_whole: Callable[[int, Shard, Summary], bool],
        progress: Progress = SILENT,
    ) -> list[tuple[int, Shard]]:
        """The shards that are yet to be done, each with its number.

        Args:
            shards: All shards of the run, in order.
            is_whole: Called with the number of a shard, the shard and its summary: does the summary agree with the
                content on disk and with what the shard would be made from now?
            progress: Told of the items of each finished shard.
        """
        pending = []
        for number, shard in enumerate(shards):
            if self.summary_path(number).is_file() and is_whole(number, shard, self.read_summary(number)):
                progress.advance(len(shard))
            else:
                pending.append((number, shard))
        return pending

    def unmark(self, number: int) -> None:
        """Removes the summary of a shard whose content is about to be replaced, if it has one."""
        self.summary_path(number).unlink(missing_ok=True)

    def mark_done(self, number: int, summary_json: str) -> None:
        """Writes the summary of a shard whose content is complete.

        Args:
            number: Which shard.
            summary_json: The text of the summary, a JSON object.
        """
        write_text(self.summary_path(number), summary_json)

    def remove_leftovers(self, *endings: str) -> None:
        """Removes the half-written files of runs that were killed; no other process may be writing here now.

        Args:
            endings: Of the files besides the summaries.
        """
        for ending in ("json", *endings):
            remove_leftovers(self.path / f"*.{ending}")

    def remove_other_keys(self, pattern: str = "*") -> None:
        """Removes the folders beside this one that hold shards of other keys.

        Args:
            pattern: What their names look like.
        """
        for other in self.path.parent.glob(pattern):
            if other != self.path:
                shutil.rmtree(other)
