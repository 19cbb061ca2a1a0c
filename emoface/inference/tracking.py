"""People between the frames of a video: whose box is whose, and probabilities averaged over a time window."""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from emoface.vision.boxes import box_iou


@dataclass
class _Track:
    xyxy: NDArray[np.float32]
    last_frame: int


class Tracker:
    """Gives people the same number in each frame, by the overlap (IoU) of their boxes.

    The boxes of a frame are matched with the last box of each track by the one-to-one assignment of greatest total IoU
    (Kuhn-Munkres). There is no model of motion: where people move by more than their width between two frames, more
    frames must be read.

    Args:
        iou_threshold: Boxes that overlap less than this are not the same person.
        max_age: Number of frames that a person may be missing; after more, the person gets a new number.

    Example:
        >>> tracker = Tracker(iou_threshold=0.3, max_age=5)
        >>> tracker.update(np.array([[0, 0, 10, 20], [40, 0, 50, 20]], np.float32))
        [1, 2]
        >>> tracker.update(np.array([[42, 0, 52, 20], [80, 0, 90, 20]], np.float32))
        [2, 3]
    """

    def __init__(self, iou_threshold: float, max_age: int) -> None:
        self._iou_threshold = iou_threshold
        self._max_age = max_age
        self._tracks: dict[int, _Track] = {}
        self._frame = 0
        self.n_tracks = 0

    def update(self, xyxy: NDArray[np.float32]) -> list[int]:
        """Takes the boxes of the next frame.

        Args:
            xyxy: (n, 4) boxes, pixels.

        Returns:
            The number of each box's track, from 1; a number is never given twice.
        """
        self._frame += 1
        oldest = self._frame - 1 - self._max_age
        self._tracks = {number: track for number, track in self._tracks.items() if track.last_frame >= oldest}
        known = list(self._tracks)
        before = np.array([self._tracks[number].xyxy for number in known], np.float32).reshape(-1, 4)
        chosen = _match(before, xyxy, self._iou_threshold)
        numbers = []
        for k, box in enumerate(xyxy):
            if k in chosen:
                number = known[chosen[k]]
            else:
                self.n_tracks += 1
                number = self.n_tracks
            self._tracks[number] = _Track(box, self._frame)
            numbers.append(number)
        return numbers


def _match(before: NDArray[np.float32], now: NDArray[np.float32], iou_threshold: float) -> dict[int, int]:
    """Matches boxes one to one: the position before of each position now that has one."""
    from scipy.optimize import linear_sum_assignment

    iou = box_iou(before, now).astype(np.float64)
    is_possible = (iou >= iou_threshold) & (iou > 0)
    rows, columns = linear_sum_assignment(np.where(is_possible, iou, 0.0), maximize=True)
    return {int(k): int(row) for row, k in zip(rows, columns, strict=True) if is_possible[row, k]}


class Smoother:
    """Moving average of the probabilities of each track.

    Args:
        window_seconds: Length of the window, which ends at the present frame; 0 averages nothing.

    Example:
        >>> smoother = Smoother(window_seconds=1.0)
        >>> [smoother.update(seconds, {1: {"Peace": p}})[1] for seconds, p in ((0.0, 0.25), (0.5, 0.5), (1.0, 1.0))]
        [{'Peace': 0.25}, {'Peace': 0.375}, {'Peace': 0.75}]
    """

    def __init__(self, window_seconds: float) -> None:
        self._window_seconds = window_seconds
        self._values: defaultdict[int, deque[tuple[float, dict[str, float]]]] = defaultdict(deque)

    def update(
        self, seconds: float, probabilities_of: Mapping[int, Mapping[str, float] | None]
    ) -> dict[int, dict[str, float] | None]:
        """Adds the probabilities of a frame, and averages those of the window.

        Args:
            seconds: Time of the frame; never less than in the call before.
            probabilities_of: Probabilities by label, by the number of the track; None if the model has none for this
                person in this frame.

        Returns:
            By track, the mean over the frames of the last ``window_seconds``, the start of the window excluded and this
            frame included; None if there are no probabilities in it.
        """
        for track in list(self._values):
            values = self._values[track]
            while values and values[0][0] <= seconds - self._window_seconds:
                values.popleft()
            if not values:
                del self._values[track]
        for track, probabilities in probabilities_of.items():
            if probabilities is not None:
                self._values[track].append((seconds, dict(probabilities)))
        return {track: self._mean(track) for track in probabilities_of}

    def _mean(self, track: int) -> dict[str, float] | None:
        if track not in self._values:
            return None
        values = [one for _, one in self._values[track]]
        return {name: float(np.mean([one[name] for one in values])) for name in values[-1]}
