"""MATLAB files are read in a child process: what happens when it crashes, takes too long or needs too much memory."""

from __future__ import annotations

import multiprocessing
import os
import signal
import struct
import subprocess
import sys
import time
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.io

from emoface.errors import AnnotationsError
from emoface.storage import matlab_files
from emoface.storage.array_files import read_arrays
from emoface.storage.matlab_files import read_matlab

REMEDY = "fetch it again"


@pytest.fixture
def mat(tmp_path: Path) -> Path:
    scipy.io.savemat(tmp_path / "a.mat", {"x": np.arange(6.0).reshape(2, 3), "name": "text"})
    return tmp_path / "a.mat"


def get_x(variables: dict[str, Any]) -> list[list[float]]:
    rows: list[list[float]] = variables["x"].tolist()
    return rows


def die(_: dict[str, Any]) -> None:
    os.kill(os.getpid(), signal.SIGSEGV)


def sleep(_: dict[str, Any]) -> None:
    time.sleep(600)


def fill(_: dict[str, Any]) -> int:
    return len(np.ones(10**9))  # 8 GB


def refuse(_: dict[str, Any]) -> None:
    raise AnnotationsError("variable x has no people")


def stumble(_: dict[str, Any]) -> None:
    raise IndexError("list index out of range")


def talk(variables: dict[str, Any]) -> int:
    print("printed by a library")
    return len(variables["x"])


def test_variables_are_converted_in_the_child(mat: Path) -> None:
    assert read_matlab(mat, get_x, AnnotationsError, REMEDY, ("x",)) == [[0.0, 1.0, 2.0], [3.0, 4.0, 5.0]]
    assert read_matlab(mat, talk, AnnotationsError, REMEDY) == 2


@pytest.mark.parametrize(
    ("convert", "message"),
    [
        pytest.param(die, r".*its reader ended with exit code -11\); fetch it again$", id="crash"),
        pytest.param(sleep, r".*not read after 1 s\); fetch it again$", id="slow"),
        pytest.param(fill, r".*its \d+ bytes ask for more than 1\.0 GiB of memory; fetch it again$", id="memory"),
        pytest.param(refuse, r"variable x has no people; fetch it again$", id="refused"),
        pytest.param(stumble, r"damaged .*\(list index out of range\); fetch it again$", id="bug"),
    ],
)
@pytest.mark.skipif(sys.platform != "linux", reason="signals and limits of Linux")
def test_failure_of_the_child_is_an_error_that_names_the_file(
    mat: Path, convert: Any, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if convert is sleep:
        monkeypatch.setattr(matlab_files, "TIME_SECONDS", 1.0)
        monkeypatch.setattr(matlab_files, "SECONDS_PER_MIB", 0.0)
    with pytest.raises(AnnotationsError, match=rf"{mat}: {message}"):
        read_matlab(mat, convert, AnnotationsError, REMEDY)


def test_compressed_zeros_do_not_fill_the_memory(tmp_path: Path) -> None:
    # one compressed variable of 100 kB that says it is an array of 4 GB, and unpacks to the first 100 MB of it
    n_bytes = 4 * 10**9
    flags, sides = struct.pack("<IIII", 6, 8, 6, 0), struct.pack("<IIii", 5, 8, 1, n_bytes // 8)
    name, tag = struct.pack("<II8s", 1, 1, b"x"), struct.pack("<II", 9, n_bytes)
    array = struct.pack("<II", 14, n_bytes + 56) + flags + sides + name + tag
    packed = zlib.compress(array + bytes(10**8), 9)
    header = b"MATLAB 5.0 MAT-file".ljust(124) + b"\x00\x01IM"
    path = tmp_path / "bomb.mat"
    path.write_bytes(header + struct.pack("<II", 15, len(packed)) + packed)
    with pytest.raises(AnnotationsError, match=r"bomb\.mat: damaged"):
        read_matlab(path, get_x, AnnotationsError, REMEDY, ("x",))


def _read_elsewhere(path: Path, answers: Any) -> None:
    answers.put(read_arrays(path)["x"].tolist())


def test_daemon_processes_can_read_too(mat: Path) -> None:
    context = multiprocessing.get_context("spawn")
    answers = context.Queue()
    process = context.Process(target=_read_elsewhere, args=(mat, answers), daemon=True)
    process.start()
    assert answers.get(timeout=60) == [[0.0, 1.0, 2.0], [3.0, 4.0, 5.0]]
    process.join(60)


def test_script_is_not_run_again_by_the_child(mat: Path, tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        "import sys; from pathlib import Path; from emoface.storage.array_files import read_arrays\n"
        "print('started'); print(read_arrays(Path(sys.argv[1]))['x'].sum())\n"
    )
    answer = subprocess.run([sys.executable, str(script), str(mat)], capture_output=True, text=True, check=True)
    assert answer.stdout.splitlines() == ["started", "15.0"]
