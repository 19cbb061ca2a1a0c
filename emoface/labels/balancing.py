"""Two ways to balance the labels of the training split: leave people out, or sample some people more often."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from emoface.labels.statistics import imbalance_ratios, label_counts


def cap_people(indicator: ArrayLike, limit: int, random: np.random.Generator) -> NDArray[np.bool_]:
    """Chooses people so that no label has more than ``limit`` of them.

    People are processed in the order of their rarest label, the rarest first and at random within a label. A person is
    kept if none of their labels has reached the limit. So rare labels keep as many people as the frequent labels of the
    same people allow, and frequent labels lose the people who have no other label. A person without labels is kept.

    Args:
        indicator: (n, k), non-zero where a person has a label.
        limit: Largest number of people per label, 1 or more.
        random: Random generator that shuffles the people within a label.

    Returns:
        (n,) True for the people to keep.

    Example:
        >>> indicator = [[1, 0], [1, 0], [1, 0], [1, 1]]
        >>> keep = cap_people(indicator, 2, np.random.default_rng(0))
        >>> bool(keep[3]), int(keep.sum())
        (True, 2)
    """
    present = np.asarray(indicator).astype(bool)
    n_people = label_counts(present)
    rarest = np.where(present, n_people, len(present) + 1).min(axis=1, initial=len(present) + 1)
    keep = np.zeros(len(present), dtype=bool)
    room = np.full(present.shape[1], limit)
    for person in np.lexsort((random.random(len(present)), rarest)):
        if (room[present[person]] > 0).all():
            keep[person] = True
            room -= present[person]
    return keep


def sampling_weights(indicator: ArrayLike) -> NDArray[np.float64]:
    """Computes the sampling weight of each person, so that training samples rare labels more often.

    A person's weight is the mean IRLbl of their labels; a person without labels has weight 1, the IRLbl of the most
    frequent label. The weights are then scaled to a mean of 1. The mean over a person's labels is used rather than the
    maximum, so that the few people with a very rare label do not fill every batch.

    Args:
        indicator: (n, k), non-zero where a person has a label.

    Returns:
        (n,) weights above 0, with a mean of 1.

    Source: IRLbl is defined by Charte et al. 2015 (see ``imbalance_ratios``); the weight is our own.

    Example:
        >>> sampling_weights([[1, 0], [1, 0], [1, 0], [1, 1]]).round(3).tolist()
        [0.727, 0.727, 0.727, 1.818]
    """
    present = np.asarray(indicator).astype(bool)
    ratios = np.nan_to_num(imbalance_ratios(present), nan=1.0)
    n_labels = present.sum(axis=1)
    weights = np.where(n_labels > 0, present @ ratios / np.maximum(n_labels, 1), 1.0)
    return np.asarray(weights / weights.mean() if len(weights) else weights)
