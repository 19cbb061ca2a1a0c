"""Files written in one step, so that a reader finds either the old or the new file and never a partial one."""

from __future__ import annotations

import codecs
import errno
import hashlib
import json
import os
import re
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from emoface.errors import EmofaceError

_UTF32_MARKS = (codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE)

OUTSIDE_PATTERN = r"^[/\\]|^[A-Za-z]:|\x00|(^|[/\\])\.\.([/\\]|$)"
"""Regular expression that finds a path that does not stay below the folder it is relative to.

It may be absolute, on Linux or Windows, begin with the letter of a drive, or climb by ``..`` with slashes of
either kind; a zero byte ends a path for the operating system. Links are followed: whoever put one there decided where
it leads.
"""


def is_below(name: str) -> bool:
    r"""Whether a relative path read from a file stays below the folder that it is relative to.

    Example:
        >>> [is_below(name) for name in ("a/b.jpg", "..a/b..jpg", "a/../../b", "/etc/passwd", "C:b.jpg", "")]
        [True, True, False, False, False, False]
    """
    return bool(name) and re.search(OUTSIDE_PATTERN, name) is None


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Gives a temporary path beside ``path`` and renames it to ``path`` when the block ends without an error.

    Args:
        path: The file to write; its folder is created if it is missing.

    Yields:
        The temporary file to write, with the same suffix; it is removed if the block raises.

    Raises:
        OSError: The file cannot be written; the error names ``path``.
    """
    with naming_path(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    with naming_path(path, f"{path.parent}{os.sep}.{path.stem}-"):
        suffix = f"-{os.getpid()}{path.suffix}"
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.stem}-", suffix=suffix)
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


@contextmanager
def naming_path(path: Path, also: str | None = None) -> Iterator[None]:
    """Makes errors of the operating system name the file that was written, which many libraries leave out.

    torch hides the error of the operating system behind a ``RuntimeError``; it is looked for there too.

    Args:
        path: The file that the block writes.
        also: Start of the names of temporary files, in place of which ``path`` is named.

    Raises:
        OSError: The block raised one that names no file, or a temporary one.
    """
    try:
        yield
    except (OSError, RuntimeError) as error:
        cause = _find_os_error(error)
        if cause is None or not (cause.filename is None or (also and str(cause.filename).startswith(also))):
            raise
        if cause.errno is None and type(cause) is not OSError:  # such as an error of a download
            raise
        text = os.strerror(cause.errno) if cause.errno else str(cause)
        raise OSError(cause.errno or errno.EIO, text, str(path)) from error


def _find_os_error(error: BaseException | None) -> OSError | None:
    """Finds the first error of the operating system among an error and those that it followed from."""
    while error is not None and not isinstance(error, OSError):
        error = error.__cause__ or error.__context__
    return error


def remove_leftovers(path: Path) -> None:
    """Removes the temporary files that killed processes left beside ``path`` during ``atomic_path``.

    Args:
        path: A file that no other process is writing now; its name may contain wildcards, as in ``*.jpg``.
    """
    for leftover in path.parent.glob(f".{path.stem}-????????-*{path.suffix}"):
        leftover.unlink(missing_ok=True)


def list_leftovers(folder: Path, process: int) -> list[Path]:
    """Lists the temporary files of ``atomic_path`` that a killed process left in a folder and in the folders below.

    Args:
        folder: The folder.
        process: The process id of the killed process.
    """
    is_leftover = re.compile(rf"\..+-[a-z0-9_]{{8}}-{process}(\.[^.]*)?").fullmatch
    return [path for path in folder.rglob(f".*-{process}*") if is_leftover(path.name) and path.is_file()]


def write_bytes(path: Path, data: bytes) -> None:
    """Writes a whole file in one step."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(data)


def write_text(path: Path, text: str) -> None:
    r"""Writes a whole UTF-8 text file in one step, with the same line endings on every system.

    The bytes of a file name that is no UTF-8 are written as ``\\udcXX``, which JSON reads back as the same name.
    """
    write_bytes(path, text.encode("utf-8", "backslashreplace"))


def read_text(path: Path, error: type[EmofaceError], kind: str = "text file") -> str:
    """Reads a text file that another program may have written: UTF-8, or UTF-16 and UTF-32 with a byte order mark.

    Other encodings cannot be told from each other, so they are refused and not guessed.

    Args:
        path: The file.
        error: The error to raise.
        kind: What the file should be, for the error message.

    Returns:
        The text without its byte order mark; line endings are those of the file.

    Raises:
        EmofaceError: Of the class ``error``: the file is missing or in another encoding.
    """
    if not path.is_file():
        raise error(f"{path}: no such file")
    content = path.read_bytes()
    marks = (*_UTF32_MARKS, codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)  # the mark of UTF-32 begins with that of UTF-16
    mark = next((mark for mark in marks if content.startswith(mark)), b"")
    encoding = "utf-8-sig" if not mark else "utf-32" if mark in _UTF32_MARKS else "utf-16"
    try:
        text = content.decode(encoding)
    except UnicodeDecodeError as fault:
        line = content[: fault.start].count(b"\n") + 1
        raise error(
            f"{path}: not a readable {kind} (line {line} is not {encoding.removesuffix('-sig').upper()} text, byte "
            f"0x{content[fault.start]:02x}, as if saved in latin-1 or GBK); save the file as UTF-8"
        ) from fault
    if "\0" in text:
        raise error(f"{path}: not a readable {kind} (zero bytes, as in UTF-16 without mark); save the file as UTF-8")
    return text


def parse_json(text: str) -> Any:
    """Parses JSON of unknown origin.

    Raises:
        ValueError: The text is not JSON, or its lists and objects are nested too deeply for Python's parser.
    """
    try:
        return json.loads(text)
    except RecursionError as error:
        raise ValueError("lists or objects are nested too deeply") from error


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
    return digest_states((name, stat_state(root / name)) for name in names)


def stat_state(path: Path) -> str | None:
    """Reads the size and the modification time of a file, as text; None if it is missing."""
    found = None
    if path.is_file():
        with suppress(FileNotFoundError):  # it vanishes at this moment
            found = path.stat()
    return f"{found.st_size} {found.st_mtime_ns}" if found else None


def digest_states(states: Iterable[tuple[str, str | None]]) -> str:
    """Computes a digest of the names and states of files.

    Args:
        states: The name of each file, and its state as text; None if it is missing.

    Returns:
        64 hexadecimal digits.
    """
    digest = hashlib.sha256()
    for name, state in states:
        digest.update(f"{name}\0{state or 'missing'}\0".encode("utf-8", "surrogatepass"))
    return digest.hexdigest()
