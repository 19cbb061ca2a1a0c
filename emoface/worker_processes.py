"""Work in several processes of this machine, which end when the process that started them ends."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.process import BaseProcess
from typing import TypeVar

from emoface.errors import WorkerError

T = TypeVar("T")
R = TypeVar("R")


def run_in_processes(
    task: Callable[[T], R], items: Iterable[T], n_processes: int, on_done: Callable[[R], object]
) -> None:
    """Runs ``task(item)`` for every item, on so many processes of this machine.

    Args:
        task: An importable function, or a partial one.
        items: Its arguments; they are sent to the processes.
        n_processes: Number of processes.
        on_done: Called in this process with each result, in the order in which the tasks end.

    Raises:
        WorkerError: A process died. What a task raises is raised here, too.
    """
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(n_processes, mp_context=context, initializer=_initialize) as pool:
        try:
            for future in as_completed([pool.submit(task, item) for item in items]):
                on_done(future.result())
        except BrokenProcessPool as error:
            raise WorkerError(
                "a worker process ended without a word: it was killed, perhaps because the machine had no memory left "
                "(then allow fewer cores, such as 'taskset -c 0-3 emoface ...'); a script of your own must start the "
                "work below 'if __name__ == \"__main__\":'. Run the same command again: it goes on from what is "
                "finished"
            ) from error
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _initialize() -> None:
    """Limits OpenCV to one thread in a worker process, and makes the process exit at Ctrl-C or when its parent dies."""
    import cv2

    cv2.setNumThreads(1)
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # otherwise it is ignored, as under nohup
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # ends without a traceback
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_exit_with, args=(parent,), daemon=True).start()


def _exit_with(parent: BaseProcess) -> None:
    parent.join()
    os.kill(os.getpid(), signal.SIGTERM)
