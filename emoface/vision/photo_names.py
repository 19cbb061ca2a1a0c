"""Files whose names look like that of a missing photo."""

from __future__ import annotations

import unicodedata
from functools import lru_cache
from pathlib import Path


def find_similar(path: Path) -> Path | None:
    """Finds a file whose path differs from that of a missing one only in case or in the form of Unicode.

    Operating systems differ in whether these are the same file, and archives are often unpacked on another one.
    The file is only for a message: it may be another one, so it is never taken instead.

    Args:
        path: A path that does not exist.

    Returns:
        The path that exists; None if there is none.
    """
    found = Path(path.anchor)
    for part in path.parts[1 if path.anchor else 0 :]:
        if (found / part).exists():
            found = found / part
            continue
        try:
            names = _list_by_fold(found, found.stat().st_mtime_ns)
        except OSError:
            return None
        if (name := names.get(_fold(part))) is None:
            return None
        found = found / name
    return found if found.is_file() else None


@lru_cache(maxsize=32)
def _list_by_fold(folder: Path, _: int) -> dict[str, str]:
    return {_fold(path.name): path.name for path in sorted(folder.iterdir(), reverse=True)}


def _fold(name: str) -> str:
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())


def describe_missing(path: Path) -> str:
    """Says that a photo is missing, and which file is there instead whose name only looks the same."""
    similar = find_similar(path)
    return "no such photo" if similar is None else f"no such photo, only '{similar}', in another case or Unicode form"
