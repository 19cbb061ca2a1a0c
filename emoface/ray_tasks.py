"""Tasks on a Ray cluster, retried where a worker process or a node dies, with one clear error for what still fails."""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from itertools import islice
from types import ModuleType
from typing import Any, TypeVar

from emoface.errors import ClusterError, SettingsError, install_command
from emoface.prefetch import limit_cpus
from emoface.progress import SILENT, Progress

S = TypeVar("S")
T = TypeVar("T")

CPUS_PER_TASK = 1
"""One, because single-threaded networks side by side process more photos than one network with many threads."""
MAX_RETRIES = 5
_TASKS_PER_CPU = 2  # submitted ahead, so that no CPU waits for the driver
_LOOK_SECONDS = 10.0
_CANCEL_SECONDS = 30.0


def run_on_ray(
    task: Callable[[S, T], object],
    shared: S,
    items: Iterable[T],
    on_done: Callable[[T], object],
    describe: Callable[[T], str],
    progress: Progress = SILENT,
) -> None:
    """Runs ``task(shared, item)`` for every item on the Ray cluster that ``RAY_ADDRESS`` names, or on this machine.

    Each task has one CPU, and libraries that ask ``count_usable_cpus`` start as many threads. A task whose process or
    node dies, or that raises ``OSError``, is repeated up to 5 times; any other error ends the run. When the run ends
    in any way, no task of it is left running.

    Args:
        task: An importable function; emoface has to be installed on every node.
        shared: The argument that all tasks share; it is sent to each node once.
        items: The other argument of each task; a further one is read only when a CPU will soon be free.
        on_done: Called in this process with each item whose task has ended, in the order in which they end.
        describe: Describes an item for error messages.
        progress: Receives a note if the cluster has no CPU.

    Raises:
        SettingsError: Ray is not installed, or the cluster cannot be reached.
        ClusterError: A task failed again and again because its process or node died.
    """
    ray = _import_ray()
    with _connected(ray):
        remote = ray.remote(num_cpus=CPUS_PER_TASK, num_gpus=0, max_retries=MAX_RETRIES, retry_exceptions=[OSError])(
            _run_task
        )
        shared_reference = ray.put(shared)
        source = iter(items)
        running: dict[Any, T] = {}
        is_noted = False
        try:
            while True:
                n_cpus = int(ray.cluster_resources().get("CPU", 0))
                for item in islice(source, max(0, max(1, n_cpus) * _TASKS_PER_CPU - len(running))):
                    running[remote.remote(task, shared_reference, item)] = item
                if not running:
                    return
                done, _ = ray.wait(list(running), timeout=_LOOK_SECONDS)
                for reference in done:
                    item = running.pop(reference)
                    _take_result(ray, reference, item, describe)
                    on_done(item)
                if not done and not n_cpus and not is_noted:
                    progress.note("the Ray cluster has no CPU; waiting for a node with one")
                    is_noted = True
        finally:
            _cancel(ray, list(running))


def _import_ray() -> ModuleType:
    try:
        import ray
    except ImportError as error:
        raise SettingsError(f"--engine ray needs the package ray; install it with {install_command('ray')}") from error
    module: ModuleType = ray
    return module


@contextmanager
def _connected(ray: ModuleType) -> Iterator[None]:
    """Connects to Ray for the block, unless this process is connected already."""
    if ray.is_initialized():
        yield
        return
    try:
        _try_address(os.environ.get("RAY_ADDRESS", ""))
        ray.init(log_to_driver=False, logging_level=logging.WARNING)
    except (OSError, RuntimeError, ValueError, SystemExit) as error:
        raise SettingsError(
            f"cannot connect to Ray: {error}; check 'ray status' and the environment variable RAY_ADDRESS, or unset "
            "RAY_ADDRESS to start Ray on this machine"
        ) from error
    try:
        yield
    finally:
        ray.shutdown()


def _try_address(address: str) -> None:
    """Connects to ``host:port`` and closes the connection; otherwise Ray tries for 80 s and then ends the process.

    Raises:
        ConnectionError: Nothing answers there.
    """
    host, _, port = address.rpartition(":")
    if host and port.isdecimal() and "/" not in host:
        try:
            socket.create_connection((host, int(port)), timeout=_LOOK_SECONDS).close()
        except OSError as error:
            raise ConnectionError(f"{address}: {error.strerror or error}") from error


def _run_task(task: Callable[[S, T], object], shared: S, item: T) -> None:
    """Runs in a worker process, with as many threads as the task has CPUs."""
    import cv2

    cv2.setNumThreads(CPUS_PER_TASK)
    with limit_cpus(CPUS_PER_TASK):
        task(shared, item)


def _take_result(ray: ModuleType, reference: Any, item: T, describe: Callable[[T], str]) -> None:
    """Raises what a task raised as if it had run in this process."""
    try:
        ray.get(reference)
    except ray.exceptions.RayTaskError as error:
        raise error.cause from error
    except ray.exceptions.RayError as error:
        raise ClusterError(
            f"{describe(item)}: its Ray worker process or node died {MAX_RETRIES + 1} times, last with "
            f"{type(error).__name__}; run the same command with '--engine local', which goes on from what is finished "
            "and shows an error of this process, or give the nodes more memory"
        ) from error


def _cancel(ray: ModuleType, references: list[Any]) -> None:
    """Stops the tasks that have not ended, and waits until nothing of them is running."""
    for reference in references:
        ray.cancel(reference, force=True)
    if references:
        ray.wait(references, num_returns=len(references), timeout=_CANCEL_SECONDS)
