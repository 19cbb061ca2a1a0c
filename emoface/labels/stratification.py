"""Splits photos so that every label keeps its share in every split.

Whole photos are assigned to splits, so that two people of one photo are never in different splits. The labels of a
photo are counts: how many of its people have each label.
"""

from __future__ import annotations

from itertools import combinations

import numpy as np
from numpy.typing import ArrayLike, NDArray

MIN_PEOPLE = 50
"""Labels with at least this many people should keep their share within ``TOLERANCE``."""

TOLERANCE = 0.01
"""Largest deviation of a split's share of a label's people from its target."""

_TRIES = 8
_SAMPLE = 256
_MAX_SWAPS = 1000
_SAME = 1e-9


def stratify_people(
    photo: ArrayLike, indicator: ArrayLike, ratios: ArrayLike, random: np.random.Generator
) -> NDArray[np.int64]:
    """Splits people by photo with iterative stratification, followed by swaps where a share misses its target.

    The number of people is treated as an additional label, which each person has. So the splits get their share of
    people as well as of photos, and photos whose people have no labels are distributed too.

    Where a share of a label with 50 people or more still deviates by more than 1 %, the split is repeated, up to eight
    times in all, and the split with the fewest such shares is returned. With few people per label no split may be
    within 1 %: 70, 10 and 20 % of 52 people are 36.4, 5.2 and 10.4, which round to 51 people, and wherever the last
    person goes, the share deviates by more than 0.52 people.

    Args:
        photo: (n,) number of each person's photo, from 0 to the number of photos - 1.
        indicator: (n, k), non-zero where a person has a label.
        ratios: (s,) share of each split, summing to 1.
        random: Random generator for ties and orders; the same state gives the same split.

    Returns:
        (n,) the split of each person, 0 to s - 1. The number of photos of each split is its share, rounded up or down
        to a whole number.

    Example:
        >>> photo, indicator = [0, 0, 1, 2, 3], [[1], [1], [0], [1], [1]]
        >>> split = stratify_people(photo, indicator, [0.5, 0.5], np.random.default_rng(0))
        >>> np.bincount(split, [1, 1, 0, 1, 1]).tolist()
        [2.0, 2.0]
    """
    photos = np.asarray(photo, dtype=np.int64)
    labels = np.asarray(indicator).astype(bool)
    counts = np.zeros((int(photos.max(initial=-1)) + 1, labels.shape[1] + 1), dtype=np.int64)
    np.add.at(counts, photos, np.column_stack([labels, np.ones(len(labels), dtype=bool)]))
    best, fewest = np.zeros(len(counts), dtype=np.int64), counts.size + 1
    for _ in range(_TRIES):
        split = swap_groups(counts, stratify_groups(counts, ratios, random), ratios, random)
        missed = _count_missed(counts, split, ratios)
        if missed < fewest:
            best, fewest = split, missed
        if not missed:
            break
    return best[photos]


def _count_missed(counts: NDArray[np.int64], split: NDArray[np.int64], ratios: ArrayLike) -> int:
    """Counts the shares, over all splits and all labels with enough people, that deviate by more than allowed."""
    wanted = np.asarray(ratios, dtype=np.float64)
    totals = counts.sum(axis=0)
    people = np.array([counts[split == number].sum(axis=0) for number in range(len(wanted))])
    is_off = np.abs(people - np.outer(wanted, totals)) > TOLERANCE * totals + _SAME
    return int(is_off[:, totals >= MIN_PEOPLE].sum())


def stratify_groups(counts: ArrayLike, ratios: ArrayLike, random: np.random.Generator) -> NDArray[np.int64]:
    """Assigns groups to splits by iterative stratification.

    The label with the fewest people not yet assigned is processed next (the first one if there are several). Each group
    that has this label goes to the split that lacks most people of the label; if there are several such splits, to the
    one that lacks most groups; if there are still several, to a random one of them. Groups without any label go to the
    split that lacks most groups.

    Args:
        counts: (g, k) how often each group has each label.
        ratios: (s,) share of each split, summing to 1.
        random: Random generator that shuffles the groups, then breaks ties.

    Returns:
        (g,) the split of each group; ``group_quotas`` gives the number of groups per split.

    Source: Sechidis et al., "On the Stratification of Multi-Label Data", ECML PKDD 2011, algorithm 1. Two
    differences: an example is a group with counts in place of 0 and 1, and a split that has reached its number of
    groups gets no more, so that the ratios are exact.

    Example:
        >>> stratify_groups([[1], [1], [0], [0]], [0.5, 0.5], np.random.default_rng(0)).tolist()
        [0, 1, 0, 1]
    """
    table = np.asarray(counts, dtype=np.int64)
    targets = np.outer(np.asarray(ratios), table.sum(axis=0))  # (s, k)
    given = np.zeros(targets.shape, dtype=np.int64)
    room = group_quotas(len(table), ratios)
    order = random.permutation(len(table))
    split = np.full(len(table), -1, dtype=np.int64)

    def place(group: int, lacking: NDArray[np.float64]) -> None:
        best = _greatest(lacking, np.flatnonzero(room))
        best = _greatest(room, best)
        chosen = best[0] if len(best) == 1 else best[random.integers(len(best))]
        split[group] = chosen
        room[chosen] -= 1
        given[chosen] += table[group]

    while True:
        waiting = order[split[order] < 0]
        left = table[waiting].sum(axis=0)
        if not left.any():
            break
        label = int(np.argmin(np.where(left > 0, left, np.iinfo(np.int64).max)))
        for group in waiting[table[waiting, label] > 0]:
            place(group, targets[:, label] - given[:, label])
    for group in waiting:
        place(group, room.astype(np.float64))
    return split


def group_quotas(n: int, ratios: ArrayLike) -> NDArray[np.int64]:
    """Distributes n groups over the splits by largest remainder; of equal remainders the first one wins.

    Args:
        n: Number of groups.
        ratios: (s,) share of each split, summing to 1.

    Returns:
        (s,) number of groups of each split, summing to n, each less than 1 from its exact share.

    Example:
        >>> group_quotas(11, [0.7, 0.1, 0.2]).tolist()
        [8, 1, 2]
    """
    exact = n * np.asarray(ratios, dtype=np.float64)
    quotas = np.floor(exact + _SAME).astype(np.int64)
    first = np.argsort(-np.round(exact - quotas, 9), kind="stable")
    quotas[first[: n - int(quotas.sum())]] += 1
    return quotas


def swap_groups(
    counts: ArrayLike, split: ArrayLike, ratios: ArrayLike, random: np.random.Generator
) -> NDArray[np.int64]:
    """Swaps groups between splits as long as this brings the labels closer to their shares.

    This differs from Sechidis et al., whose algorithm only adds groups. The groups that are left for the most frequent
    labels, and groups of several people, may then miss a share. For two splits at a time, the best swap between a
    sample of groups of each is made, as long as it lowers the sum over splits and labels of
    ``(people - target)^2 / tolerance^2``. The tolerance is 1 % of the label's people; for labels with fewer than 50
    people, where one person is more than 1 %, it is two people.

    Args:
        counts: (g, k) how often each group has each label.
        split: (g,) the split of each group.
        ratios: (s,) share of each split, summing to 1.
        random: Random generator that samples the groups.

    Returns:
        (g,) a new split, with as many groups in each as before.

    Example:
        >>> swap_groups([[1], [1], [0], [0]], [0, 0, 1, 1], [0.5, 0.5], np.random.default_rng(0)).sum()
        np.int64(2)
    """
    table = np.asarray(counts, dtype=np.float64)
    swapped = np.array(split, dtype=np.int64)
    totals = table.sum(axis=0)
    scaled = table / np.where(totals >= MIN_PEOPLE, TOLERANCE * totals, 2)
    n_splits = len(np.asarray(ratios))
    targets = np.outer(np.asarray(ratios), scaled.sum(axis=0))
    excess = np.array([scaled[swapped == number].sum(axis=0) for number in range(n_splits)]) - targets
    pairs = list(combinations(range(n_splits), 2))
    n_fruitless = 0
    for turn in range(_MAX_SWAPS):
        one, other = pairs[turn % len(pairs)] if pairs else (0, 0)
        gain, first, second = _best_swap(scaled, swapped, (one, other), excess[one] - excess[other], random)
        n_fruitless = 0 if gain > _SAME else n_fruitless + 1
        if n_fruitless >= len(pairs):
            break
        if gain > _SAME:
            change = scaled[second] - scaled[first]
            excess[one] += change
            excess[other] -= change
            swapped[first], swapped[second] = other, one
    return swapped


def label_shares(indicator: ArrayLike, split: ArrayLike, n_splits: int) -> NDArray[np.float64]:
    """Computes the share of each label's people that is in each split.

    Args:
        indicator: (n, k), non-zero where a person has a label.
        split: (n,) the split of each person, 0 to ``n_splits`` - 1.
        n_splits: Number of splits.

    Returns:
        (n_splits, k), each column summing to 1; nan for a label that no person has.

    Example:
        >>> label_shares([[1, 0], [1, 0]], [0, 1], 2).tolist()
        [[0.5, nan], [0.5, nan]]
    """
    present, numbers = np.asarray(indicator).astype(bool), np.asarray(split)
    people = np.array([present[numbers == number].sum(axis=0) for number in range(n_splits)], dtype=np.float64)
    totals = people.sum(axis=0)
    totals[totals == 0] = np.nan
    return np.asarray(people / totals)


def _best_swap(
    scaled: NDArray[np.float64],
    split: NDArray[np.int64],
    pair: tuple[int, int],
    difference: NDArray[np.float64],
    random: np.random.Generator,
) -> tuple[float, int, int]:
    """Finds the best swap in a sample: how much it lowers the squared excess, and the two groups.

    If the first split gains ``c`` by a swap, and the excess is ``e`` in the first split and ``f`` in the other, the sum
    of squares changes by ``2 (e - f) c + 2 c c``.
    """
    firsts, seconds = (_sample_groups(np.flatnonzero(split == number), random) for number in pair)
    if not len(firsts) or not len(seconds):
        return 0.0, 0, 0
    a, b = scaled[firsts], scaled[seconds]
    squares = (a**2).sum(axis=1)[:, None] + (b**2).sum(axis=1) - 2 * a @ b.T
    gains = 2 * ((a @ difference)[:, None] - b @ difference - squares)
    best = int(np.argmax(gains))
    row, column = divmod(best, len(seconds))
    return float(gains[row, column]), int(firsts[row]), int(seconds[column])


def _sample_groups(groups: NDArray[np.int64], random: np.random.Generator) -> NDArray[np.int64]:
    if len(groups) <= _SAMPLE:
        return groups
    return np.asarray(random.choice(groups, _SAMPLE, replace=False))


def _greatest(values: NDArray[np.generic], candidates: NDArray[np.int64]) -> NDArray[np.int64]:
    """Selects the candidates with the greatest value; rounding differences are ignored."""
    compared = np.asarray(values, dtype=np.float64)[candidates]
    return np.asarray(candidates[compared >= compared.max() - _SAME])
