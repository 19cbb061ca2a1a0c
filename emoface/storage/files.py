"""Files written in one step, so that a reader finds either the old or the new file and never a partial one."""

from __future__ import annotations

import hashlib
import os
import re
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

OUTSIDE_PATTERN = r"^/|^[A-Za-z]:[/\\]|\x00|(^|[/\\])\.\.([/\\]|$)"
"""Regular expression that finds a path that does not stay below the folder it is relative to."""


def is_below(name: str) -> bool:
    r"""Whether a relative path read from a file stays below the folder that it is relative to.

    Example:
        >>> [is_below(name) for name in ("a/b.jpg", "a/../../b", "/etc/passwd", "C:\\b.jpg", "..a/b..jpg", "")]
        [True, False, False, False, True, False]
    """
    return bool(name) and re.search(OUTSIDE_PATTERN, name) is None


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Gives a temporary path beside ``path`` and renames it to ``path`` when the block ends without an error.

    Args:
        path: The file to write; its folder is created if it is missing.

    Yields:
        The temporary file to write, with the same suffix; it is removed if the block raises.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.stem}-", suffix=path.suffix)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        mask = os.umask(0)
        os.umask(mask)
        temporary.chmod(0o666 & ~mask)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def remove_leftovers(path: Path) -> None:
    """Removes the temporary files that killed processes left beside ``path`` during ``atomic_path``.

    Args:
        path: A file that no other process is writing now; its name may contain wildcards, as in ``*.jpg``.
    """
    for leftover in path.parent.glob(f".{path.stem}-????????{path.suffix}"):
        leftover.unlink(missing_ok=True)


def write_bytes(path: Path, data: bytes) -> None:
    """Writes a whole file in one step."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(data)


def write_text(path: Path, text: str) -> None:
    """Writes a whole UTF-8 text file in one step, with the same line endings on every system."""
    write_bytes(path, text.encode("utf-8"))


def file_sha256(path: Path) -> str:
    """The sha256 of a file, as hexadecimal digits."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def stat_digest(root: Path, names: Iterable[str]) -> str:
    """Computes a digest of files that changes when a file is added, removed or replaced.

    Only the size and the modification time of each file are read, not its content.

    Args:
        root: The folder that contains the files.
        names: Paths of the files relative to ``root``.

    Returns:
        64 hexadecimal digits.
    """
    digest = hashlib.sha256()
    for name in names:
        path = root / name
        found = path.stat() if path.is_file() else None
        state = f"{found.st_size} {found.st_mtime_ns}" if found else "missing"
        digest.update(f"{name}\0{state}\0".encode())
    return digest.hexdigest()
