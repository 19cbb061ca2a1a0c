"""Work in several processes: all results, errors of a task as if it had run here, and dead workers in one line."""

from __future__ import annotations

import os
import signal

import pytest

from emoface.errors import ImageError, WorkerError
from emoface.worker_processes import run_in_processes


def _square(number: int) -> tuple[int, int]:
    return number * number, os.getpid()


def _fail(number: int) -> int:
    if number == 3:
        raise ImageError("photo 3: damaged")
    return number


def _die(number: int) -> int:
    if number == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return number


def test_results_come_from_other_processes() -> None:
    results: list[tuple[int, int]] = []
    run_in_processes(_square, range(6), 2, results.append)
    assert sorted(square for square, _ in results) == [0, 1, 4, 9, 16, 25]
    assert os.getpid() not in {process for _, process in results}


def test_error_of_a_task_is_raised_here() -> None:
    with pytest.raises(ImageError, match=r"^photo 3: damaged$"):
        run_in_processes(_fail, range(6), 2, lambda _: None)


def test_process_that_is_killed_is_one_error() -> None:
    with pytest.raises(WorkerError, match=r"a worker process ended without a word: it was killed, .* what is finished"):
        run_in_processes(_die, range(6), 2, lambda _: None)
