"""Work ahead of its use: batches by bytes, and threads that share a budget of bytes."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from emoface.prefetch import ByteBudget, in_light_batches


def test_batches_are_limited_by_number_and_bytes_and_keep_the_order() -> None:
    sizes = [3, 3, 3, 9, 50, 0, 0, 0, 0, 10]
    batches = list(in_light_batches(enumerate(sizes), size=3, max_bytes=10))
    assert batches == [([0, 1, 2], 9), ([3], 9), ([4], 50), ([5, 6, 7], 0), ([8, 9], 10)]
    assert list(in_light_batches([], size=3, max_bytes=10)) == []


def test_threads_hold_no_more_than_the_budget_or_one_large_item_alone() -> None:
    budget, lock = ByteBudget(10), threading.Lock()
    held: list[int] = []
    seen: list[list[int]] = []

    def work(n_bytes: int) -> None:
        with budget.hold(n_bytes):
            with lock:
                held.append(n_bytes)
                seen.append(sorted(held))
            time.sleep(0.005)
            with lock:
                held.remove(n_bytes)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, [4, 4, 25, 4, 6, 10, 0, 3, 30, 2] * 3))
    assert all(sum(one) <= 10 or len([n for n in one if n]) == 1 for one in seen)
    assert max(sum(one) for one in seen if max(one) <= 10) > 6  # several at once


def test_budget_is_given_back_after_an_error() -> None:
    budget = ByteBudget(10)
    with pytest.raises(RuntimeError), budget.hold(10):
        raise RuntimeError
    with budget.hold(10):
        pass
