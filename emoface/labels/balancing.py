"""What may be done about unbalanced labels in the training split: leave people out, or draw some more often."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from emoface.labels.statistics import imbalance_ratios, label_counts


def cap_people(indicator: ArrayLike, limit: int, random: np.random.Generator) -> NDArray[np.bool_]:
    """Chooses people so that no label has more than ``limit`` of them.

    People are taken by their rarest label, the rarest first and at random within a label; each is kept if
    none of their labels is full. So rare labels keep their people as far as the frequent labels that go with
    them allow, and frequent labels lose those who have nothing else. A person without labels is kept.

    Args:
        indicator: (n, k), non-zero where a person has a label.
        limit: Most people per label, 1 or more.
        random: Draws the order within a label.

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
    """How often to draw each person in training, so that rare labels are seen more often.

    A person's weight is the mean IRLbl of their labels; without labels it is 1, that of the most frequent
    label. The weights are scaled to a mean of 1. The mean over a person's labels, rather than the greatest,
    keeps the few people with a very rare label from filling every batch.

    Args:
        indicator: (n, k), non-zero where a person has a label.

    Returns:
        (n,), above 0, with a mean of 1.

    Source: IRLbl is that of Charte et al. 2015 (see ``imbalance_ratios``); the weight is ours.

    Example:
        >>> sampling_weights([[1, 0], [1, 0], [1, 0], [1, 1]]).round(3).tolist()
        [0.727, 0.727, 0.727, 1.818]
    """
    present = np.asarray(indicator).astype(bool)
    ratios = np.nan_to_num(imbalance_ratios(present), nan=1.0)
    n_labels = present.sum(axis=1)
    weights = np.where(n_labels > 0, present @ ratios / np.maximum(n_labels, 1), 1.0)
    return np.asarray(weights / weights.mean() if len(weights) else weights)
