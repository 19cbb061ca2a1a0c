"""The number of threads that OpenCV uses within one call."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import cv2


@contextmanager
def one_opencv_thread() -> Iterator[None]:
    """Keeps OpenCV from starting threads of its own, for work that already occupies every core with a thread.

    The number is one of the whole process; at the end it is again what it was.
    """
    n_threads = cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        yield
    finally:
        cv2.setNumThreads(n_threads)
