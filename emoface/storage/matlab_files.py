"""MATLAB files (``.mat`` up to version 7), read in a child process.

A few changed bytes in a ``.mat`` file can make scipy's reader crash the interpreter or ask for any amount of memory.
So scipy reads the file in a Python process of its own, with limits on memory and time, which converts the variables to
what the caller needs and sends that back. If the child dies, the caller gets an error like that of any damaged file.

The limit on memory needs the module ``resource`` (Linux; macOS does not always keep to it); elsewhere only the time is
limited. A child that crashes does no harm on any system. It is no sandbox: it may do whatever the user may do.
"""

from __future__ import annotations

import gc
import json
import os
import pickle
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, TypeVar

from emoface.errors import EmofaceError

T = TypeVar("T")

MEMORY_BYTES, MEMORY_PER_BYTE = 1 << 30, 512
"""Address space of the child: this many bytes, and this many times the size of the file. The annotations of all 23,450
photos of EMOTIC, compressed to 2.2 MiB, need 730 MiB."""
TIME_SECONDS, SECONDS_PER_MIB = 60.0, 60.0
"""Time of the child: this many seconds, and this many per MiB of the file. The same annotations need 20 s."""

_HDF5 = b"\x89HDF\r\n\x1a\n"
_HDF5_OFFSETS = (0, 512)
_BYTE_ORDER = slice(126, 128)
"""Where a file of version 5 to 7 says in which order its bytes are."""
_START = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]); "
    "from emoface.storage.matlab_files import run_child; run_child()"
)
_OK, _REFUSED, _DAMAGED, _MEMORY = "ok", "refused", "damaged", "memory"


def read_matlab(
    path: Path,
    convert: Callable[[dict[str, Any]], T],
    error: type[EmofaceError],
    remedy: str,
    names: Sequence[str] | None = None,
) -> T:
    """Reads a MATLAB file in a child process.

    Args:
        path: The file.
        convert: Makes the result from the variables by name, in the child; a function of a module, whose result can be
            pickled. A result of few large values costs little; 1,000,000 small arrays take longer than the reading.
        error: The error to raise.
        remedy: What the user can do about a damaged file, as the end of an error message.
        names: The variables to read, all of which the file must have; None for all variables.

    Raises:
        EmofaceError: Of the class ``error``: the file is missing or damaged, is a MATLAB 7.3 file or no MATLAB file at
            all, lacks a variable, or crashed the child or exceeded its limits. ``convert`` may raise it with what is
            wrong with the variables; the path and the remedy are added. Its other errors count as damage.
    """
    if not path.is_file():
        raise error(f"{path}: no such file; {remedy}")
    try:
        with path.open("rb") as stream:
            head = stream.read(max(_HDF5_OFFSETS) + len(_HDF5))
        n_bytes = path.stat().st_size
    except OSError as fault:
        raise error(f"{path}: cannot be read ({fault.strerror})") from fault
    _check_start(path, head, error, remedy)
    limit = MEMORY_BYTES + MEMORY_PER_BYTE * n_bytes
    request = {
        "path": str(path),
        "convert": convert,
        "error": error,
        "names": None if names is None else list(names),
        "memory_bytes": limit,
    }
    outcome, content = _ask_child(path, request, TIME_SECONDS + SECONDS_PER_MIB * n_bytes / 2**20, error)
    match outcome:
        case "ok":
            result: T = content
            return result
        case "refused":
            raise error(f"{path}: {content}; {remedy}")
        case "memory":
            raise error(
                f"{path}: damaged: its {n_bytes} bytes ask for more than {limit / 2**30:.1f} GiB of memory; {remedy}"
            )
        case _:  # damaged
            raise error(f"{path}: damaged or cut off, not a readable MATLAB file ({content}); {remedy}")


def _check_start(path: Path, head: bytes, error: type[EmofaceError], remedy: str) -> None:
    if any(head.startswith(_HDF5, offset) for offset in _HDF5_OFFSETS) or head.startswith(b"MATLAB 7.3"):
        raise error(f"{path}: a MATLAB 7.3 (HDF5) file, expected version 7 or older; save it in MATLAB with '-v7'")
    is_version_4 = 0 in head[:4]
    if not is_version_4 and head[_BYTE_ORDER] not in (b"IM", b"MI"):
        raise error(
            f"{path}: starts with {head[:16]!r}, cut off or of another format, expected a MATLAB file of version 7 or "
            f"older; {remedy}"
        )


def _ask_child(path: Path, request: Mapping[str, Any], seconds: float, error: type[EmofaceError]) -> tuple[str, Any]:
    """Runs a child and returns how it ended, and the result or what is wrong."""
    search_path = json.dumps([entry for entry in sys.path if isinstance(entry, str)])
    environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
    with tempfile.TemporaryFile() as messages:
        try:
            child = subprocess.Popen(
                [sys.executable, "-c", _START, search_path],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=messages,
                env=environment,
            )
        except OSError as fault:
            raise error(f"{path}: no Python process can be started to read it ({fault}); try again") from fault
        is_late = threading.Event()

        def stop() -> None:
            is_late.set()
            child.kill()

        timer = threading.Timer(seconds, stop)
        timer.start()
        try:
            with child:
                answer = _exchange(child, request)
        finally:
            timer.cancel()
        if answer is not None:
            return answer
        if is_late.is_set():
            return _DAMAGED, f"not read after {seconds:.0f} s"
        messages.seek(0)
        last = messages.read().decode("utf-8", "replace").strip().splitlines()[-1:]
        return _DAMAGED, f"its reader ended with exit code {child.returncode}" + "".join(f": {line}" for line in last)


def _exchange(child: subprocess.Popen[bytes], request: Mapping[str, Any]) -> tuple[str, Any] | None:
    """Sends the request and reads the answer; None if the child ended without one."""
    assert child.stdin is not None and child.stdout is not None
    try:
        pickle.dump(request, child.stdin)
        child.stdin.close()
        answer: tuple[str, Any] = _load(child.stdout)
    except (BrokenPipeError, EOFError, pickle.UnpicklingError):  # the child died before its answer was complete
        return None
    except BaseException:
        child.kill()
        raise
    return answer


def _load(stream: IO[bytes]) -> Any:
    """Unpickles with the cyclic garbage collector paused, which would otherwise search the many new objects again."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        return pickle.load(stream)
    finally:
        if was_enabled:
            gc.enable()


def run_child() -> None:
    """Reads one file as the child process: the request comes from the standard input, the answer goes to the output."""
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # so that nothing but the answer is among the answers
    request = pickle.load(sys.stdin.buffer)
    gc.disable()
    try:
        answer = _read(**request)
    except MemoryError:
        answer = (_MEMORY, None)
    with answers:
        pickle.dump(answer, answers, protocol=5)


def _read(
    path: str,
    convert: Callable[[dict[str, Any]], Any],
    error: type[EmofaceError],
    names: list[str] | None,
    memory_bytes: int,
) -> tuple[str, Any]:
    import scipy.io  # only the child needs it

    _limit_memory(memory_bytes)
    try:
        with Path(path).open("rb") as stream:
            variables: dict[str, Any] = scipy.io.loadmat(stream, variable_names=names)
            missing = [name for name in names or () if name not in variables]
            if missing:
                stream.seek(0)
                found = ", ".join(name for name, *_ in scipy.io.whosmat(stream)) or "none"
                return _REFUSED, f"variables {', '.join(missing)} are missing, found {found}"
        return _OK, convert({name: value for name, value in variables.items() if not name.startswith("__")})
    except error as fault:
        return _REFUSED, str(fault)
    except MemoryError:
        raise
    except Exception as fault:  # noqa: BLE001 scipy raises errors of many kinds on damaged files
        return _DAMAGED, " ".join(str(fault).split()) or type(fault).__name__


def _limit_memory(n_bytes: int) -> None:
    """Limits the address space of this process, and lets it die without a core dump, where the system can do so."""
    try:
        import resource
    except ImportError:  # Windows
        return
    for kind, limit in ((resource.RLIMIT_AS, n_bytes), (resource.RLIMIT_CORE, 0)):
        _, most = resource.getrlimit(kind)
        limit = limit if most == resource.RLIM_INFINITY else min(limit, most)
        try:
            resource.setrlimit(kind, (limit, most))
        except (ValueError, OSError):  # macOS refuses a limit below what the process already uses
            continue
