"""Tracks of people between frames, by hand-made boxes, and the moving average of their probabilities."""

from __future__ import annotations

import numpy as np
import pytest

from emoface.inference.tracking import Smoother, Tracker


def _boxes(*boxes: tuple[float, float, float, float]) -> np.ndarray:
    return np.array(boxes, np.float32).reshape(-1, 4)


def test_crossing_people_keep_their_numbers() -> None:
    """A tall person walks to the right and a small one to the left; in the middle one is in front of the other."""
    tracker = Tracker(iou_threshold=0.3, max_age=5)
    numbers = []
    for frame in range(11):
        tall, small = 4.0 * frame, 40 - 4.0 * frame
        people = [(tall, 0, tall + 20, 100), (small, 40, small + 20, 90)]
        order = (0, 1) if frame % 2 == 0 else (1, 0)  # the order of the boxes says nothing
        found = tracker.update(_boxes(*(people[k] for k in order)))
        numbers.append([found[order.index(k)] for k in (0, 1)])
    assert numbers == [[1, 2]] * 11 and tracker.n_tracks == 2


def test_the_greatest_total_overlap_is_chosen_and_not_the_greatest_single_one() -> None:
    tracker = Tracker(iou_threshold=0.1, max_age=0)
    tracker.update(_boxes((0, 0, 10, 10), (4, 0, 14, 10)))
    # The first box overlaps with both: by 6/14 = 0.43 with track 1, 1.0 with track 2. The second overlaps with track 2
    # alone, by 2/18 = 0.11. The totals are 0.43 + 0.11, and 1.0 with nothing for the second box.
    assert tracker.update(_boxes((4, 0, 14, 10), (12, 0, 22, 10))) == [2, 3]
    tracker = Tracker(iou_threshold=0.1, max_age=0)
    tracker.update(_boxes((0, 0, 10, 10), (4, 0, 14, 10)))
    # (3, 0, 13, 10) overlaps by 7/13 = 0.54 with track 1 and by 9/11 = 0.82 with track 2; (8, 0, 18, 10) by 2/18 and by
    # 6/14 = 0.43. The greedy choice 0.82 + 0.11 is less than 0.54 + 0.43.
    assert tracker.update(_boxes((3, 0, 13, 10), (8, 0, 18, 10))) == [1, 2]


@pytest.mark.parametrize(("n_missing", "expected"), [(0, 1), (3, 1), (4, 2), (9, 2)])
def test_missing_people_keep_their_number_up_to_the_maximal_age(n_missing: int, expected: int) -> None:
    tracker = Tracker(iou_threshold=0.3, max_age=3)
    box = _boxes((10, 10, 30, 60))
    assert tracker.update(box) == [1]
    for _ in range(n_missing):
        assert tracker.update(_boxes()) == []
    assert tracker.update(box) == [expected]


def test_numbers_are_never_given_twice() -> None:
    tracker = Tracker(iou_threshold=0.5, max_age=1)
    seen: list[int] = []
    for frame in range(8):  # nobody overlaps with the frame before
        left = 100.0 * frame
        seen += tracker.update(_boxes((left, 0, left + 10, 10), (left, 50, left + 10, 60)))
    assert seen == list(range(1, 17)) and tracker.n_tracks == 16


def test_threshold_is_the_least_overlap() -> None:
    for threshold, expected in ((1 / 3, 1), (0.34, 2)):
        tracker = Tracker(threshold, max_age=1)
        tracker.update(_boxes((0, 0, 4, 2)))
        assert tracker.update(_boxes((2, 0, 6, 2))) == [expected]  # 4 of 12 square pixels
    tracker = Tracker(0.0, max_age=1)
    tracker.update(_boxes((0, 0, 4, 2)))
    assert tracker.update(_boxes((4, 0, 8, 2))) == [2]  # they touch


def test_average_of_the_window_by_hand() -> None:
    smoother = Smoother(window_seconds=1.0)
    first = smoother.update(0.0, {1: {"Fear": 0.0}, 2: {"Fear": 0.75}})
    assert first == {1: {"Fear": 0.0}, 2: {"Fear": 0.75}}
    assert smoother.update(0.5, {1: {"Fear": 0.5}}) == {1: {"Fear": 0.25}}
    assert smoother.update(0.9, {1: {"Fear": 1.0}, 2: None}) == {1: {"Fear": 0.5}, 2: {"Fear": 0.75}}
    assert smoother.update(1.5, {1: {"Fear": 0.0}}) == {1: {"Fear": 0.5}}  # those at 0.9 and 1.5
    assert smoother.update(5.0, {2: None}) == {2: None}
    assert smoother.update(5.0, {}) == {}


def test_window_of_zero_averages_nothing() -> None:
    smoother = Smoother(window_seconds=0.0)
    for seconds, value in ((0.0, 0.1), (0.0, 0.7), (0.1, 0.3)):
        assert smoother.update(seconds, {4: {"Peace": value}}) == {4: {"Peace": value}}
