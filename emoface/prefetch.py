"""Parallel work whose results are computed ahead of their use, in order and in bounded memory."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor
from contextlib import contextmanager
from contextvars import ContextVar
from itertools import islice
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")

_CPU_LIMIT: ContextVar[int | None] = ContextVar("cpu_limit", default=None)


def map_ahead(pool: Executor, work: Callable[[T], R], items: Iterable[T], ahead: int) -> Iterator[R]:
    """Maps ``work`` over items on a pool, in order, at most ``ahead`` results before they are used.

    Args:
        pool: The threads or processes that run ``work``.
        work: The function that is applied to each item.
        items: The inputs; a further one is read only when a result is taken.
        ahead: Largest number of results that are computed before they are taken.

    Example:
        >>> from concurrent.futures import ThreadPoolExecutor
        >>> with ThreadPoolExecutor(2) as pool:
        ...     list(map_ahead(pool, abs, [-3, 1, -2], ahead=2))
        [3, 1, 2]
    """
    source = iter(items)
    waiting = deque(pool.submit(work, item) for item in islice(source, ahead))
    while waiting:
        first = waiting.popleft()
        waiting.extend(pool.submit(work, item) for item in islice(source, 1))
        yield first.result()


def in_batches(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """Groups consecutive items into batches of ``size``; the last batch may be smaller.

    Example:
        >>> list(in_batches("abcde", 2))
        [['a', 'b'], ['c', 'd'], ['e']]
    """
    source = iter(items)
    while batch := list(islice(source, size)):
        yield batch


def in_light_batches(items: Iterable[tuple[T, int]], size: int, max_bytes: int) -> Iterator[tuple[list[T], int]]:
    """Groups consecutive items into batches of at most ``size`` items and ``max_bytes``, or one item that has more.

    Args:
        items: Each item with its number of bytes.
        size: Largest number of items of a batch.
        max_bytes: Largest number of bytes of a batch of several items.

    Returns:
        Each batch with its number of bytes.

    Example:
        >>> list(in_light_batches([("a", 1), ("b", 2), ("c", 9), ("d", 0), ("e", 1)], size=2, max_bytes=3))
        [(['a', 'b'], 3), (['c'], 9), (['d', 'e'], 1)]
    """
    batch: list[T] = []
    total = 0
    for item, n_bytes in items:
        if batch and (len(batch) == size or total + n_bytes > max_bytes):
            yield batch, total
            batch, total = [], 0
        batch.append(item)
        total += n_bytes
    if batch:
        yield batch, total


class ByteBudget:
    """Limits the bytes that several threads hold at the same time.

    Attributes:
        max_bytes: Largest number of bytes that are held at the same time, unless one thread alone holds more.
    """

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self._n_held = 0
        self._changed = threading.Condition()

    @contextmanager
    def hold(self, n_bytes: int) -> Iterator[None]:
        """Waits until so many bytes are free, or none are held, and holds them within the ``with`` block."""
        with self._changed:
            self._changed.wait_for(lambda: self._n_held == 0 or self._n_held + n_bytes <= self.max_bytes)
            self._n_held += n_bytes
        try:
            yield
        finally:
            with self._changed:
                self._n_held -= n_bytes
                self._changed.notify_all()


def count_usable_cpus() -> int:
    """Counts the CPU cores that this process may use, which are fewer than the machine has in many batch systems.

    The CPU mask of the process counts, the CPU quota of a container, and ``LOKY_MAX_CPU_COUNT``, see
    ``joblib.cpu_count``.
    """
    from joblib import cpu_count  # takes a third of a second

    n_cpus: int = cpu_count()
    limit = _CPU_LIMIT.get()
    return n_cpus if limit is None else min(limit, n_cpus)


@contextmanager
def limit_cpus(n_cpus: int) -> Iterator[None]:
    """Makes ``count_usable_cpus`` count at most ``n_cpus`` in the block, where other tasks use the other cores.

    Example:
        >>> with limit_cpus(1):
        ...     count_usable_cpus()
        1
    """
    token = _CPU_LIMIT.set(n_cpus)
    try:
        yield
    finally:
        _CPU_LIMIT.reset(token)
