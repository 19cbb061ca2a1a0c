"""Locks of output folders: two jobs never write into one folder at the same time, and each says whom it waits for.

The operating system holds a lock for a process and releases it when the process ends in any way, so a lock of a dead
process holds nobody up. Beside the lock lies a file that says who holds it. If a new holder finds this file of another
process, that process was killed, and the files that it had half written are removed.
"""

from __future__ import annotations

import errno
import functools
import json
import os
import re
import shlex
import socket
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, ParamSpec, Self, TypeVar

from filelock import FileLock, Timeout

if sys.platform != "win32":
    import fcntl

from emoface.errors import LockedError
from emoface.progress import SILENT, Progress
from emoface.storage.files import list_leftovers, parse_json, remove_leftovers, write_text

P = ParamSpec("P")
R = TypeVar("R")

_POLL_SECONDS = 0.2
_OWNER_SECONDS = 2.0
_MAX_COMMAND = 200
_MAX_PROCESS = 2**31 - 1  # process ids are 32-bit numbers on every system
_NOT_WRITABLE = (errno.EACCES, errno.EPERM, errno.EROFS)


@dataclass(frozen=True)
class LockOwner:
    """The process that holds a lock.

    Attributes:
        process: Its process id.
        host: Name of its machine.
        command: Its command line.
        since: When it took the lock, ISO 8601 with the time zone.
    """

    process: int
    host: str
    command: str
    since: str

    @classmethod
    def of_this_process(cls) -> Self:
        """Describes this process."""
        return cls(
            os.getpid(), socket.gethostname(), _command_line(), datetime.now().astimezone().isoformat("T", "seconds")
        )

    def __str__(self) -> str:
        return f"process {self.process} on {self.host} since {self.since} ({self.command})"


class _Held(threading.local):
    """The locks that this thread holds; a job that runs other jobs in its folder holds the lock only once."""

    def __init__(self) -> None:
        self.paths: set[Path] = set()


_HELD = _Held()


@contextmanager
def lock_folder(
    folder: Path, progress: Progress = SILENT, *, waits: bool = True, name: str = "emoface"
) -> Iterator[None]:
    """Holds the lock of a folder during the block; the thread that holds it already passes.

    A folder that does not exist is created, and removed again if nothing was written to it. A folder that this process
    may not write to has no lock: whoever cannot write there disturbs nobody.

    Args:
        folder: The folder that is written to.
        progress: Receives a note that says whom this process waits for.
        waits: Whether to wait while another process holds the lock, instead of raising an error.
        name: Name of the lock, if parts of the folder are locked on their own.

    Raises:
        LockedError: Another process holds the lock, and ``waits`` is false.
    """
    path = folder.resolve() / f".{name}.lock"
    if path in _HELD.paths:
        yield
        return
    created = [one for one in (path.parent, *path.parent.parents) if not one.exists()]
    lock = FileLock(path)
    if not _acquire(lock, path, folder, progress, waits):
        yield
        return
    _HELD.paths.add(path)
    owner_path = path.with_name(f"{path.name}.json")
    try:
        _remove_half_written(owner_path)
        write_text(owner_path, json.dumps(asdict(LockOwner.of_this_process())) + "\n")
        yield
    finally:
        _HELD.paths.discard(path)
        with suppress(OSError):  # a folder that has become read-only or has vanished; on Windows also the open file
            owner_path.unlink(missing_ok=True)
            path.unlink(missing_ok=True)
        lock.release()
        with suppress(OSError):  # the folders that are not empty
            for one in created:
                one.rmdir()


class FolderInUse:
    """Says that this process reads a folder of files which others may otherwise remove, until the object is deleted.

    The operating system holds a shared lock of the folder itself, so nothing is written, and any number of processes
    may read. Processes that are forked from this one share the lock. On Windows there is none, as files that are open
    cannot be removed there.

    Args:
        folder: The folder.
    """

    def __init__(self, folder: Path) -> None:
        if sys.platform == "win32":
            return
        descriptor = os.open(folder, os.O_RDONLY)
        weakref.finalize(self, os.close, descriptor)
        with suppress(OSError):  # a file system without locks, where no process removes the folder, see is_in_use
            fcntl.flock(descriptor, fcntl.LOCK_SH)


def is_in_use(folder: Path) -> bool:
    """Whether a process, this one included, reads a folder, see ``FolderInUse``; also where it cannot be told."""
    if sys.platform == "win32":
        return False
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return True
    else:
        return False
    finally:
        os.close(descriptor)


def locked(field: str) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Makes a job hold the lock of its folder while it runs; a second job waits, and says for whom.

    Args:
        field: The field or property of the job's configuration that gives the folder.

    Returns:
        A decorator of ``run_x(config, progress)``.
    """

    def decorate(run: Callable[P, R]) -> Callable[P, R]:
        @functools.wraps(run)
        def run_locked(*args: P.args, **kwargs: P.kwargs) -> R:
            given: dict[str, Any] = dict(zip(("config", "progress"), args, strict=False)) | kwargs
            with lock_folder(getattr(given["config"], field), given.get("progress", SILENT)):
                return run(*args, **kwargs)

        return run_locked

    return decorate


def _acquire(lock: FileLock, path: Path, folder: Path, progress: Progress, waits: bool) -> bool:
    """Acquires a lock; False if the folder cannot be written to."""
    is_noted = False
    while True:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            lock.acquire(timeout=0 if not is_noted else _OWNER_SECONDS, poll_interval=_POLL_SECONDS)
            return True
        except Timeout:
            if is_noted:
                continue
            owner = _find_owner(path.with_name(f"{path.name}.json"))
            if not waits:
                raise LockedError(
                    f"{folder}: in use by {owner}; wait until it ends, or choose another folder"
                ) from None
            progress.note(f"{folder}: in use by {owner}; waiting until it ends")
            is_noted = True
        except FileNotFoundError:  # the last holder has just removed the folder, which was empty
            continue
        except OSError as error:
            if error.errno not in _NOT_WRITABLE:
                raise
            return False


def _find_owner(path: Path) -> str:
    """Describes the holder of a lock; it may have taken the lock a moment ago and not have said yet who it is."""
    deadline = time.monotonic() + _OWNER_SECONDS
    while time.monotonic() < deadline:
        owner = _read_owner(path)
        if owner is not None and (owner.host != socket.gethostname() or _is_running(owner.process)):
            return str(owner)
        time.sleep(_POLL_SECONDS)
    return "another process"


def _read_owner(path: Path) -> LockOwner | None:
    try:
        owner = LockOwner(**parse_json(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None
    is_process = type(owner.process) is int and 0 < owner.process <= _MAX_PROCESS
    are_texts = all(isinstance(one, str) for one in (owner.host, owner.command, owner.since))
    return owner if is_process and are_texts else None


def _is_running(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:  # it runs, under another user
        return True
    return True


def _remove_half_written(owner_path: Path) -> None:
    """Removes the temporary files of a process that was killed while it held the lock."""
    remove_leftovers(owner_path)
    if (killed := _read_owner(owner_path)) is not None:
        for path in list_leftovers(owner_path.parent, killed.process):
            path.unlink(missing_ok=True)


def _command_line() -> str:
    program = Path(sys.argv[0]).name
    words = ["python", "-m", "emoface"] if program == "__main__.py" else [program]
    command = re.sub(r"\s+", " ", shlex.join([*words, *sys.argv[1:]]))
    return command if len(command) <= _MAX_COMMAND else f"{command[:_MAX_COMMAND]}..."
