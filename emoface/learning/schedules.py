"""Learning-rate schedules, as factors of the learning rate after the warm-up; importable without torch.

Each training has its own warm-up: that of MTER is counted in epochs, that of the detector in steps and
multiplied with the decay.
"""

from __future__ import annotations

import math

STEP_FACTOR = 0.1
COSINE_FLOOR = 0.01


def step_factor(n_passed: int, decay_factor: float = STEP_FACTOR) -> float:
    """Computes the factor of a step schedule, which divides by 10 at each decay step unless another factor is given.

    Args:
        n_passed: Number of decay steps passed.
        decay_factor: Factor of each decay step.

    Example:
        >>> [round(step_factor(n), 3) for n in (0, 1, 2)]
        [1.0, 0.1, 0.01]
        >>> step_factor(2, 0.5)
        0.25
    """
    return float(decay_factor**n_passed)


def cosine_factor(progress: float) -> float:
    """Computes the factor of a cosine schedule, which falls from 1 to 0.01 along half a cosine.

    Args:
        progress: Finished share of the schedule, 0-1; more counts as 1.

    Example:
        >>> [round(cosine_factor(share), 3) for share in (0, 0.5, 1)]
        [1.0, 0.505, 0.01]

    Source: Loshchilov and Hutter 2017, "SGDR", equation 5, without restarts.
    """
    cosine = 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))
    return COSINE_FLOOR + (1 - COSINE_FLOOR) * cosine
