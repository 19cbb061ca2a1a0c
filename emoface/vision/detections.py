"""The faces found in one photo, as one value object."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Detections:
    """Faces of one photo, in original-image pixels; indexing selects rows of all fields together.

    Attributes:
        xyxy: (n, 4) float32 boxes.
        landmarks: (n, 5, 2) float32: left eye, right eye, nose, left and right corner of the mouth,
            left and right as the viewer sees them.
        conf: (n,) float32 scores of the detector, 0-1.
    """

    xyxy: NDArray[np.float32]
    landmarks: NDArray[np.float32]
    conf: NDArray[np.float32]

    def __post_init__(self) -> None:
        n = len(self.conf)
        for name, expected in (("xyxy", (n, 4)), ("landmarks", (n, 5, 2)), ("conf", (n,))):
            found = getattr(self, name).shape
            if found != expected:
                raise ValueError(f"Detections.{name} has shape {found}, expected {expected}")

    def __len__(self) -> int:
        return len(self.conf)

    def __getitem__(self, which: NDArray[np.bool_] | NDArray[np.int64] | slice) -> Detections:
        """Returns the detections that a mask, positions or a slice selects."""
        return Detections(self.xyxy[which], self.landmarks[which], self.conf[which])

    @classmethod
    def empty(cls) -> Detections:
        """Returns detections without any face (n = 0)."""
        return cls(np.zeros((0, 4), np.float32), np.zeros((0, 5, 2), np.float32), np.zeros(0, np.float32))
