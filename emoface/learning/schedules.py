"""How learning rates fall, as factors of the rate after the warm-up; without torch.

Warm-ups are each training's own: MTER's is counted in epochs, the detector's in steps and together with the decay.
"""

from __future__ import annotations

import math

STEP_FACTOR = 0.1
COSINE_FLOOR = 0.01


def step_factor(n_passed: int) -> float:
    """Divides by 10 at each step of the schedule.

    Args:
        n_passed: Steps of the schedule that lie behind.

    Example:
        >>> [round(step_factor(n), 3) for n in (0, 1, 2)]
        [1.0, 0.1, 0.01]
    """
    return float(STEP_FACTOR**n_passed)


def cosine_factor(progress: float) -> float:
    """Falls from 1 to a hundredth along half a cosine.

    Args:
        progress: Share of the schedule that lies behind, 0-1; more counts as 1.

    Example:
        >>> [round(cosine_factor(share), 3) for share in (0, 0.5, 1)]
        [1.0, 0.505, 0.01]

    Source: Loshchilov and Hutter 2017, "SGDR", equation 5, without restarts.
    """
    cosine = 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))
    return COSINE_FLOOR + (1 - COSINE_FLOOR) * cosine
