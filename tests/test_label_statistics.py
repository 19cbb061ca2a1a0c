from __future__ import annotations

import math

import numpy as np
import pytest

from emoface.labels.statistics import (
    co_occurrence,
    imbalance_ratio_cv,
    imbalance_ratios,
    label_cardinality,
    label_counts,
    label_density,
    mean_imbalance_ratio,
    scumble,
)

ROWS = np.array([[1, 1, 0], [1, 0, 0], [1, 0, 1], [1, 1, 0]], dtype=np.uint8)


def _slow_ratios(rows: list[list[int]]) -> list[float]:
    counts = [sum(row[label] for row in rows) for label in range(len(rows[0]))]
    return [max(counts) / count if count else math.nan for count in counts]


def _slow_scumble(rows: list[list[int]]) -> float:
    ratios = _slow_ratios(rows)
    total = 0.0
    for row in rows:
        own = [ratios[label] for label in range(len(row)) if row[label]]
        if own:
            total += 1 - math.prod(own) ** (1 / len(own)) / (sum(own) / len(own))
    return total / len(rows)


def _slow_cv(rows: list[list[int]]) -> float:
    ratios = [ratio for ratio in _slow_ratios(rows) if not math.isnan(ratio)]
    mean = sum(ratios) / len(ratios)
    return math.sqrt(sum((ratio - mean) ** 2 for ratio in ratios) / (len(ratios) - 1)) / mean


def test_published_vector() -> None:
    assert label_counts(ROWS).tolist() == [4, 2, 1]
    assert label_cardinality(ROWS) == 1.75
    assert label_density(ROWS) == pytest.approx(0.58333, abs=5e-6)
    assert imbalance_ratios(ROWS).tolist() == [1, 2, 4]
    assert mean_imbalance_ratio(ROWS) == pytest.approx(2.33333, abs=5e-6)
    assert scumble(ROWS) == pytest.approx(0.0785955, abs=5e-8)
    assert co_occurrence(ROWS).tolist() == [[4, 2, 1], [2, 2, 0], [1, 0, 1]]


@pytest.mark.parametrize("seed", range(5))
def test_agrees_with_the_formulas_written_out(seed: int) -> None:
    random = np.random.default_rng(seed)
    indicator = (random.random((60, 9)) < np.linspace(0.6, 0.02, 9)).astype(np.uint8)
    indicator[:, 8] = 0
    rows = indicator.tolist()
    assert imbalance_ratios(indicator) == pytest.approx(_slow_ratios(rows), nan_ok=True)
    assert imbalance_ratio_cv(indicator) == pytest.approx(_slow_cv(rows))
    assert scumble(indicator) == pytest.approx(_slow_scumble(rows))
    pairs = [[sum(row[a] and row[b] for row in rows) for b in range(9)] for a in range(9)]
    assert co_occurrence(indicator).tolist() == pairs


def test_absent_labels_and_people_without_labels() -> None:
    wider = np.zeros((5, 4), dtype=bool)
    wider[:4, :3] = ROWS
    assert math.isnan(imbalance_ratios(wider)[3])
    assert mean_imbalance_ratio(wider) == mean_imbalance_ratio(ROWS)
    assert scumble(wider) == pytest.approx(scumble(ROWS) * 4 / 5)
    assert label_cardinality(wider) == 1.4


def test_measures_do_not_depend_on_the_order_of_people() -> None:
    indicator = np.random.default_rng(1).random((100, 6)) < 0.3
    for measure in (mean_imbalance_ratio, imbalance_ratio_cv, scumble, label_density):
        assert measure(indicator[::-1]) == pytest.approx(measure(indicator))


@pytest.mark.parametrize("n", [0, 3])
def test_nobody_has_a_label(n: int) -> None:
    indicator = np.zeros((n, 26), dtype=np.uint8)
    assert label_counts(indicator).tolist() == [0] * 26
    assert co_occurrence(indicator).shape == (26, 26)
    assert np.isnan(imbalance_ratios(indicator)).all()
    assert math.isnan(mean_imbalance_ratio(indicator)) and math.isnan(imbalance_ratio_cv(indicator))
    assert math.isnan(label_cardinality(indicator)) == (n == 0)
    assert math.isnan(scumble(indicator)) == (n == 0)


def test_large_counts_do_not_overflow_small_integers() -> None:
    assert co_occurrence(np.ones((300, 2), dtype=np.uint8)).tolist() == [[300, 300], [300, 300]]


def test_one_axis_is_refused() -> None:
    with pytest.raises(ValueError, match=r"two axes \(people, labels\), got shape \(3,\)"):
        label_counts([1, 0, 1])
