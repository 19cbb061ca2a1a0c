"""Files of JSON lines that are written line by line, and to which an interrupted job adds what is missing."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from emoface.errors import TableError
from emoface.storage.files import atomic_path, parse_json, read_text, stat_state, write_text
from emoface.storage.urls import Place


def keep_lines(path: Path, key_path: Path, key: str, is_kept: Callable[[dict[str, Any]], bool]) -> None:
    """Prepares a file of JSON lines for a job that adds lines: removes the lines that the job has to write again.

    Args:
        path: The file of lines, which may be missing; a last line that was cut off is removed.
        key_path: A file that contains the key of the job that wrote the lines.
        key: Whatever decides the content of the lines; if it is another one, all lines are removed.
        is_kept: Whether a line with this content stays.
    """
    if _read_key(key_path) != key:
        path.unlink(missing_ok=True)
        write_text(key_path, json.dumps({"key": key}) + "\n")
    with atomic_path(path) as temporary, open_lines(temporary, adds=False) as write:
        for line in read_lines(path):
            if is_kept(line):
                write(line)


def digest_key(content: Mapping[str, Any]) -> str:
    """The key of a job for ``keep_lines``: a digest of all that decides the content of its lines, as JSON values."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode("utf-8", "backslashreplace")).hexdigest()


def photo_entries(place: Place) -> dict[str, str | None]:
    """The entries of a line about a photo by which ``is_of_photo`` knows it again; a URL has no state."""
    return {"image": str(place), "image_state": stat_state(place) if isinstance(place, Path) else None}


def is_of_photo(line: Mapping[str, Any], place: Place) -> bool:
    """Whether a line is about a photo, which has not changed since."""
    entries = photo_entries(place)
    return entries["image_state"] is not None and all(line.get(name) == value for name, value in entries.items())


def read_lines(path: Path) -> Iterator[dict[str, Any]]:
    """Reads the objects of a file of JSON lines; lines that are none are left out."""
    if not path.is_file():
        return
    with path.open(encoding="utf-8", errors="replace") as lines:
        for text in lines:
            try:
                line = parse_json(text)
            except ValueError:
                continue
            if isinstance(line, dict):
                yield line


@contextmanager
def open_lines(path: Path, *, adds: bool) -> Iterator[Callable[[Mapping[str, Any]], None]]:
    """Opens a file of JSON lines for writing.

    Args:
        path: The file.
        adds: Whether lines are added to those of the file, instead of replacing it.

    Yields:
        A function that writes an object as a line, which is in the file when the function returns.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a" if adds else "w", encoding="utf-8", errors="backslashreplace", newline="\n") as lines:

        def write(content: Mapping[str, Any]) -> None:
            lines.write(json.dumps(content, ensure_ascii=False, allow_nan=False) + "\n")
            lines.flush()

        yield write


def _read_key(path: Path) -> str | None:
    if not path.is_file():
        return None
    try:
        content = parse_json(read_text(path, TableError))
    except (ValueError, TableError):  # damaged: the lines are written again
        return None
    key = content.get("key") if isinstance(content, dict) else None
    return key if isinstance(key, str) else None
