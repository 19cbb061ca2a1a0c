"""The order of the people in the batches of an epoch, which is determined by the seed and the epoch."""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from emoface.datasets.stream_cache import UsablePeople


class SampleKey(NamedTuple):
    """Identifies a training sample: its epoch, its number in the epoch, and its person.

    Attributes:
        epoch: Index of the epoch, from 0.
        number: Index of the sample among all batches and processes of the epoch, from 0.
        position: Position of the person in the stream cache.
    """

    epoch: int
    number: int
    position: int


def sample_epoch(
    positions: NDArray[np.int64], weights: NDArray[np.float64] | None, seed: int, epoch: int
) -> NDArray[np.int64]:
    """Samples the people of an epoch in random order: each once, or by weight with replacement.

    Args:
        positions: (n,) positions of the people to sample from.
        weights: (n,) relative sampling weights; None samples each person once.
        seed: Seed of the run.
        epoch: Index of the epoch, from 0.

    Returns:
        (n,) positions.
    """
    rng = np.random.default_rng((seed, epoch))
    if weights is None:
        return rng.permutation(positions)
    return rng.choice(positions, size=len(positions), p=weights / weights.sum())


def plan_batches(
    sampled: NDArray[np.int64], epoch: int, batch_size: int, rank: int = 0, n_processes: int = 1
) -> list[list[SampleKey]]:
    """Plans the samples that one process reads in an epoch: its part of every batch.

    An incomplete last batch is left out, so that every step has the same weight; as the order changes with the epoch,
    other people are left out in the next one.

    Args:
        sampled: (n,) positions of the people of the epoch in order.
        epoch: Index of the epoch, from 0.
        batch_size: People per step, over all processes.
        rank: Index of this process, from 0.
        n_processes: Number of processes; together they read the same batches as a single process.

    Returns:
        Per step, the samples of this process.

    Example:
        >>> [[key.position for key in batch] for batch in plan_batches(np.arange(9), 0, 4, rank=1, n_processes=2)]
        [[2, 3], [6, 7]]
    """
    part = batch_size // n_processes
    starts = range(rank * part, len(sampled) - batch_size + 1 + rank * part, batch_size)
    return [[SampleKey(epoch, k, int(sampled[k])) for k in range(start, start + part)] for start in starts]


def shuffle_labels(people: UsablePeople, seed: int) -> UsablePeople:
    """Shuffles labels, valence, arousal and dominance among people; those of one person stay together.

    A model trained on such people can only reach chance level on the true labels. A better result means that true
    labels leak into training in some other way.

    Args:
        people: n people.
        seed: Seed of the permutation.

    Returns:
        The same people with shuffled labels.

    Source: Zhang et al. 2017, randomization tests.
    """
    order = np.random.default_rng(seed).permutation(len(people))
    return replace(people, labels=people.labels[order], vad=people.vad[order])
