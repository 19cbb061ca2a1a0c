"""Finds outputs that are the same for everybody: a stream or a model that does not look at its input."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from emoface.vision.arrays import Float64Array

SAME_WITHIN = 0.001
"""Outputs are the same for everybody if no probability differs by more than this between any two people."""


def output_ranges(probabilities: NDArray[np.float32]) -> Float64Array:
    """Computes how far apart the probabilities of a label are: the highest of any person less the lowest.

    Args:
        probabilities: (n, k), a row of nan for a person without input, who is left out.

    Returns:
        (k,), 0 or more; nan with fewer than two people.

    Example:
        >>> output_ranges(np.array([[0.25, 0.5], [0.75, 0.5]], np.float32)).tolist()
        [0.5, 0.0]
    """
    known = probabilities[np.isfinite(probabilities).all(axis=1)].astype(np.float64)
    if len(known) < 2:
        return np.full(probabilities.shape[1], np.nan)
    ranges: Float64Array = np.ptp(known, axis=0)
    return ranges


def is_same_for_everybody(probabilities: NDArray[np.float32]) -> bool:
    """Whether no label's probability differs between people by more than ``SAME_WITHIN``.

    Args:
        probabilities: (n, k), a row of nan for a person without input, who is left out.

    Returns:
        False with fewer than two people, of whom nothing can be said.
    """
    return bool((output_ranges(probabilities) <= SAME_WITHIN).all())
