"""Shares with intervals, and how far a label is associated with a yes or no such as whether a person has a face.

All functions take people as independent of each other. People of one photo are not quite, so that the intervals are
somewhat too narrow and the p-values somewhat too small.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

LEVEL = 0.95
"""Level of all intervals of this module."""

_FEW_EXPECTED = 5
"""Where the smallest expected count of a table is below this number, Fisher's exact test replaces the chi-square test.

Source: Cochran, "Some Methods for Strengthening the Common chi-square Tests", Biometrics 10, 1954.
"""


@dataclass(frozen=True)
class Association:
    """How shares differ between people with and without something, one row per label.

    Attributes:
        n_with: (k,) people with the label.
        n_without: (k,) people without the label.
        share_with: (k,) share of "yes" among the people with the label; nan where there are none.
        share_without: (k,) share of "yes" among those without the label; nan where there are none.
        difference: (k,) ``share_with`` less ``share_without``.
        low: (k,) lower end of the interval of the difference; nan where there is no difference.
        high: (k,) upper end.
        p_value: (k,) of the test that both shares are equal; nan where a test cannot be made.
    """

    n_with: NDArray[np.int64]
    n_without: NDArray[np.int64]
    share_with: NDArray[np.float64]
    share_without: NDArray[np.float64]
    difference: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]
    p_value: NDArray[np.float64]


def wilson_interval(yes: ArrayLike, n: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Computes Wilson's interval of a share, which holds its level also for shares near 0 and 1 and for few people.

    Args:
        yes: Number of people with "yes".
        n: Number of people.

    Returns:
        The lower and upper ends, 0-1; nan for n = 0.

    Source: Wilson, "Probable Inference, the Law of Succession, and Statistical Inference", 1927.

    Example:
        >>> low, high = wilson_interval(1, 10)
        >>> round(float(low), 4), round(float(high), 4)
        (0.0179, 0.4042)
    """
    from scipy.stats import norm

    z = float(norm.ppf((1 + LEVEL) / 2))
    count, total = np.asarray(yes, np.float64), np.asarray(n, np.float64)
    with np.errstate(invalid="ignore", divide="ignore"):
        share = count / total
        center = (share + z**2 / (2 * total)) / (1 + z**2 / total)
        half = z * np.sqrt(share * (1 - share) / total + z**2 / (4 * total**2)) / (1 + z**2 / total)
    return np.maximum(center - half, 0), np.minimum(center + half, 1)


def difference_interval(
    yes: ArrayLike, n: ArrayLike, other_yes: ArrayLike, other_n: ArrayLike
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Computes Newcombe's interval of the difference of two shares, which is built from the Wilson interval of each.

    Args:
        yes: Number of people with "yes" in the first group.
        n: Number of people of the first group.
        other_yes: Number of people with "yes" in the second group.
        other_n: Number of people of the second group.

    Returns:
        The lower and upper ends of the first share less the second, -1 to 1; nan where a group is empty.

    Source: Newcombe, "Interval estimation for the difference between independent proportions: comparison of eleven
    methods", Statistics in Medicine 17, 1998, method 10.

    Example:
        >>> low, high = difference_interval(56, 70, 48, 80)  # the example of the paper, table II (a)
        >>> round(float(low), 4), round(float(high), 4)
        (0.0524, 0.3339)
    """
    low, high = wilson_interval(yes, n)
    other_low, other_high = wilson_interval(other_yes, other_n)
    with np.errstate(invalid="ignore", divide="ignore"):
        share = np.asarray(yes, np.float64) / np.asarray(n, np.float64)
        other = np.asarray(other_yes, np.float64) / np.asarray(other_n, np.float64)
    below = np.sqrt((share - low) ** 2 + (other_high - other) ** 2)
    above = np.sqrt((high - share) ** 2 + (other - other_low) ** 2)
    return share - other - below, share - other + above


def associate(labels: ArrayLike, outcome: ArrayLike) -> Association:
    """Compares the share of people with an outcome, such as a face, between people with and without each label.

    The p-value is of Pearson's chi-square test of the 2 x 2 table without continuity correction, or of Fisher's exact
    test where an expected count is below 5. It is not corrected for the number of labels; see ``holm``.

    Args:
        labels: (n, k), non-zero where a person has a label.
        outcome: (n,), non-zero where a person has the outcome.

    Example:
        >>> found = associate([[1], [1], [1], [0], [0]], [1, 1, 0, 1, 0])
        >>> found.n_with.tolist(), found.share_with.round(3).tolist(), found.share_without.tolist()
        ([3], [0.667], [0.5])
    """
    present, yes = np.asarray(labels).astype(bool), np.asarray(outcome).astype(bool)
    n_with, n_yes = present.sum(axis=0), int(yes.sum())
    yes_with = (present & yes[:, None]).sum(axis=0)
    n_without, yes_without = len(present) - n_with, n_yes - yes_with
    with np.errstate(invalid="ignore"):
        share_with, share_without = yes_with / n_with, yes_without / n_without
    low, high = difference_interval(yes_with, n_with, yes_without, n_without)
    tables = np.stack([yes_with, n_with - yes_with, yes_without, n_without - yes_without], axis=1).reshape(-1, 2, 2)
    return Association(
        n_with=n_with.astype(np.int64),
        n_without=n_without.astype(np.int64),
        share_with=share_with,
        share_without=share_without,
        difference=share_with - share_without,
        low=low,
        high=high,
        p_value=np.array([_test_table(table) for table in tables], np.float64),
    )


def _test_table(table: NDArray[np.int64]) -> float:
    """p-value of a 2 x 2 table; nan where a row or a column is empty, so that nothing can be compared."""
    from scipy.stats import chi2_contingency, fisher_exact
    from scipy.stats.contingency import expected_freq

    if not (table.sum(axis=0).all() and table.sum(axis=1).all()):
        return float("nan")
    if expected_freq(table).min() < _FEW_EXPECTED:
        return float(fisher_exact(table).pvalue)
    return float(chi2_contingency(table, correction=False).pvalue)


def holm(p_values: ArrayLike) -> NDArray[np.float64]:
    """Corrects p-values for their number by Holm's method: the chance of any false finding stays below the level.

    The i-th smallest of m p-values is multiplied by m - i + 1, and no corrected value is below that of a smaller one.

    Args:
        p_values: (m,); nan is left out and stays nan.

    Returns:
        (m,) corrected p-values, at most 1.

    Source: Holm, "A Simple Sequentially Rejective Multiple Test Procedure", Scandinavian Journal of Statistics 6, 1979.

    Example:
        >>> holm([0.01, 0.04, float("nan"), 0.03]).round(3).tolist()
        [0.03, 0.06, nan, 0.06]
    """
    values = np.asarray(p_values, np.float64)
    corrected = np.full(values.shape, np.nan)
    known = np.flatnonzero(~np.isnan(values))
    order = known[np.argsort(values[known], kind="stable")]
    factors = np.arange(len(order), 0, -1)
    corrected[order] = np.minimum(np.maximum.accumulate(values[order] * factors), 1) if len(order) else 0
    return corrected
