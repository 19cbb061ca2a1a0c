"""Who is read in which batch of which epoch; all of it follows from the seed and the epoch."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from emoface.datasets.stream_cache import UsablePeople
from emoface.mter.dataset import Draw


def draw_epoch(
    positions: NDArray[np.int64], weights: NDArray[np.float64] | None, seed: int, epoch: int
) -> NDArray[np.int64]:
    """The people of an epoch in their order: each once, or drawn by weight with replacement.

    Args:
        positions: (n,) of the people who may be drawn.
        weights: (n,) how often each is drawn, by comparison; None draws each once.
        seed: Of the run.
        epoch: From 0.

    Returns:
        (n,).
    """
    rng = np.random.default_rng((seed, epoch))
    if weights is None:
        return rng.permutation(positions)
    return rng.choice(positions, size=len(positions), p=weights / weights.sum())


def plan_batches(
    drawn: NDArray[np.int64], epoch: int, batch_size: int, rank: int = 0, n_processes: int = 1
) -> list[list[Draw]]:
    """What one process reads in an epoch: its part of every batch.

    The last batch is left out where it is not full, so that every step weighs the same; the order of the next epoch
    leaves out others.

    Args:
        drawn: (n,) the people of the epoch in their order.
        epoch: From 0.
        batch_size: People per step, over all processes.
        rank: Which process.
        n_processes: How many there are; together they read the batches of one.

    Example:
        >>> [[draw.position for draw in batch] for batch in plan_batches(np.arange(9), 0, 4, rank=1, n_processes=2)]
        [[2, 3], [6, 7]]
    """
    part = batch_size // n_processes
    starts = range(rank * part, len(drawn) - batch_size + 1 + rank * part, batch_size)
    return [[Draw(epoch, k, int(drawn[k])) for k in range(start, start + part)] for start in starts]


def shuffle_labels(people: UsablePeople, seed: int) -> UsablePeople:
    """Deals labels, valence, arousal and dominance out among people anew, each person's together.

    What a model learns from such people holds for nobody, so on the true labels it can only guess. One that does better
    has seen them some other way.

    Args:
        people: n of them.
        seed: Decides who gets whose.

    Source: Zhang et al. 2017, randomization tests.
    """
    order = np.random.default_rng(seed).permutation(len(people))
    return replace(people, labels=people.labels[order], vad=people.vad[order])
