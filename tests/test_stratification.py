from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

from emoface.labels.stratification import group_quotas, stratify_groups, stratify_people, swap_groups

RATIOS = (0.7, 0.1, 0.2)
EXACT_RATIOS = (Fraction(7, 10), Fraction(1, 10), Fraction(2, 10))


def _random_counts(seed: int, n: int, k: int) -> np.ndarray:
    random = np.random.default_rng(seed)
    people = random.integers(1, 4, n)
    rates = np.linspace(0.02, 0.7, k)[random.permutation(k)]
    return random.binomial(people[:, None], rates)


def _slow_stratification(counts: list[list[int]], seed: int) -> list[int]:
    """Sechidis et al. 2011, algorithm 1, in fractions and lists; draws as the fast one says it does."""
    random = np.random.default_rng(seed)
    n, k, s = len(counts), len(counts[0]), len(EXACT_RATIOS)
    room = group_quotas(n, RATIOS).tolist()
    wanted = [[ratio * sum(row[label] for row in counts) for label in range(k)] for ratio in EXACT_RATIOS]
    waiting = random.permutation(n).tolist()
    split = [-1] * n

    def give(group: int, label: int | None) -> None:
        choices = [j for j in range(s) if room[j] > 0]
        if label is not None:
            most = max(wanted[j][label] for j in choices)
            choices = [j for j in choices if wanted[j][label] == most]
        most_room = max(room[j] for j in choices)
        choices = [j for j in choices if room[j] == most_room]
        chosen = choices[0] if len(choices) == 1 else choices[int(random.integers(len(choices)))]
        split[group] = chosen
        room[chosen] -= 1
        for other in range(k):
            wanted[chosen][other] -= counts[group][other]

    while True:
        left = {label: sum(counts[group][label] for group in waiting) for label in range(k)}
        left = {label: n_left for label, n_left in left.items() if n_left}
        if not left:
            break
        rarest = min(left, key=lambda label: (left[label], label))
        for group in [group for group in waiting if counts[group][rarest]]:
            give(group, rarest)
            waiting.remove(group)
    for group in waiting:
        give(group, None)
    return split


@pytest.mark.parametrize("seed", range(8))
def test_agrees_with_the_algorithm_written_out(seed: int) -> None:
    counts = _random_counts(seed, 120, 6)
    counts[:10] = 0
    fast = stratify_groups(counts, RATIOS, np.random.default_rng(seed))
    assert fast.tolist() == _slow_stratification(counts.tolist(), seed)


def test_rare_label_is_shared_out_by_hand() -> None:
    # Ten photos have the rare label: 7, 1 and 2 of them, whatever the frequent one does.
    counts = np.ones((100, 2), dtype=int)
    counts[10:, 1] = 0
    split = stratify_groups(counts, RATIOS, np.random.default_rng(3))
    assert np.bincount(split).tolist() == [70, 10, 20]
    assert np.bincount(split[:10]).tolist() == [7, 1, 2]


@pytest.mark.parametrize(
    ("n", "expected"),
    [(0, [0, 0, 0]), (1, [1, 0, 0]), (2, [2, 0, 0]), (5, [4, 0, 1]), (10, [7, 1, 2]), (15, [11, 1, 3])],
)
def test_quotas_by_largest_remainder(n: int, expected: list[int]) -> None:
    assert group_quotas(n, RATIOS).tolist() == expected  # 15: 10.5, 1.5, 3.0; the first half wins


@pytest.mark.parametrize("seed", range(6))
def test_every_share_is_within_one_percent_and_no_photo_is_in_two_splits(seed: int) -> None:
    random = np.random.default_rng(seed)
    photo = random.integers(0, 900, 1500)
    photo = np.unique(photo, return_inverse=True)[1]
    scene = random.random((photo.max() + 1, 12))[photo]  # people of one photo are alike
    indicator = scene < np.geomspace(0.04, 0.8, 12)
    split = stratify_people(photo, indicator, RATIOS, np.random.default_rng(seed))
    photos_of = [set(photo[split == number]) for number in range(3)]
    assert sum(map(len, photos_of)) == photo.max() + 1
    assert np.abs([len(photos) for photos in photos_of] - (photo.max() + 1) * np.array(RATIOS)).max() < 1
    totals = indicator.sum(axis=0)
    for number, ratio in enumerate(RATIOS):
        people = indicator[split == number].sum(axis=0)
        # With 50 to 100 people the nearest whole number of people may be further off than 1 %.
        assert (np.abs(people - ratio * totals) <= np.maximum(0.01 * totals, 1))[totals >= 50].all()
        assert abs((split == number).sum() - ratio * len(photo)) <= 2


def test_swaps_only_improve_and_keep_the_numbers_of_groups() -> None:
    counts = _random_counts(4, 600, 8)
    start = np.random.default_rng(0).permutation(np.repeat([0, 1, 2], [420, 60, 120]))
    after = swap_groups(counts, start, RATIOS, np.random.default_rng(1))
    totals = counts.sum(axis=0)

    def cost(split: np.ndarray) -> float:
        people = np.array([counts[split == number].sum(axis=0) for number in range(3)])
        return float((((people - np.outer(RATIOS, totals)) / np.maximum(0.01 * totals, 1)) ** 2).sum())

    assert np.bincount(after).tolist() == np.bincount(start).tolist()
    assert cost(after) < 0.05 * cost(start)
    assert cost(swap_groups(counts, after, RATIOS, np.random.default_rng(2))) <= cost(after)


def test_swaps_find_the_only_answer() -> None:
    # 3 + 1 against 2 + 2 people: one swap of a 2 with a 1 makes 5:3 into 4:4.
    after = swap_groups([[3], [2], [2], [1]], [0, 0, 1, 1], [0.5, 0.5], np.random.default_rng(0))
    assert np.bincount(after, [3, 2, 2, 1]).tolist() == [4, 4]


def test_same_seed_same_split_and_another_seed_another() -> None:
    counts = _random_counts(0, 300, 5)
    photo = np.repeat(np.arange(300), 2)
    indicator = np.repeat(counts > 0, 2, axis=0)
    splits = [stratify_people(photo, indicator, RATIOS, np.random.default_rng(seed)) for seed in (5, 5, 6)]
    assert (splits[0] == splits[1]).all() and (splits[0] != splits[2]).any()


@pytest.mark.parametrize("n", [0, 1, 2, 3])
def test_few_people(n: int) -> None:
    split = stratify_people(np.arange(n), np.ones((n, 26), np.uint8), RATIOS, np.random.default_rng(0))
    assert len(split) == n and np.bincount(split, minlength=3).tolist() == group_quotas(n, RATIOS).tolist()


def test_people_without_labels_are_spread_too() -> None:
    split = stratify_people(np.arange(50), np.zeros((50, 26)), RATIOS, np.random.default_rng(0))
    assert np.bincount(split).tolist() == [35, 5, 10]


def test_split_of_no_share_stays_empty() -> None:
    split = stratify_people(np.arange(20), np.ones((20, 3)), (0.8, 0.0, 0.2), np.random.default_rng(0))
    assert np.bincount(split, minlength=3).tolist() == [16, 0, 4]
