"""Parallel work whose results are computed ahead of their use, in order and in bounded memory."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor
from itertools import islice
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")


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


def count_usable_cpus() -> int:
    """Counts the CPU cores that this process may use, which are fewer than the machine has in many batch systems."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
