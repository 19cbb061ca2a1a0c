"""Label statistics: how many labels people have, how imbalanced the labels are, and which occur together.

Every function takes an indicator (n, k): n people, k labels, non-zero where a person has the label.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray


def label_counts(indicator: ArrayLike) -> NDArray[np.int64]:
    """Counts the people who have each label.

    Args:
        indicator: (n, k), non-zero where a person has a label.

    Returns:
        (k,), each from 0 to n.

    Example:
        >>> label_counts([[1, 1, 0], [1, 0, 0]]).tolist()
        [2, 1, 0]
    """
    return np.asarray(_to_bool(indicator).sum(axis=0), dtype=np.int64)


def label_cardinality(indicator: ArrayLike) -> float:
    """Computes the label cardinality: the mean number of labels per person.

    ``Card = (1 / n) sum_i |Y_i|``.

    Args:
        indicator: (n, k), non-zero where a person has a label.

    Returns:
        From 0 to k; nan for n = 0.

    Source: Tsoumakas and Katakis, "Multi-Label Classification: An Overview", 2007, section 4.

    Example:
        >>> label_cardinality([[1, 1, 0], [1, 0, 0], [1, 0, 1], [1, 1, 0]])
        1.75
    """
    present = _to_bool(indicator)
    return float(present.sum() / len(present)) if len(present) else float("nan")


def label_density(indicator: ArrayLike) -> float:
    """Computes the label density: the label cardinality as a share of all labels, ``Dens = Card / k``.

    Args:
        indicator: (n, k), non-zero where a person has a label.

    Returns:
        From 0 to 1; nan for n = 0 or k = 0.

    Source: Tsoumakas and Katakis, "Multi-Label Classification: An Overview", 2007, section 4.

    Example:
        >>> round(label_density([[1, 1, 0], [1, 0, 0], [1, 0, 1], [1, 1, 0]]), 5)
        0.58333
    """
    present = _to_bool(indicator)
    return float(present.mean()) if present.size else float("nan")


def imbalance_ratios(indicator: ArrayLike) -> NDArray[np.float64]:
    """Computes IRLbl: how many times rarer each label is than the most frequent one.

    ``IRLbl(y) = max_y' count(y') / count(y)``. The ratio of a label that no person has would be infinite and
    dominate every mean: it is nan here, and left out of ``mean_imbalance_ratio``, ``imbalance_ratio_cv`` and
    ``scumble``.

    Args:
        indicator: (n, k), non-zero where a person has a label.

    Returns:
        (k,), 1 for the most frequent label, more for rarer ones, nan for absent ones.

    Source: Charte et al., "Addressing imbalance in multilabel classification: Measures and random
    resampling algorithms", Neurocomputing 163, 2015, equation 1.

    Example:
        >>> imbalance_ratios([[1, 1, 0], [1, 0, 0], [1, 0, 1], [1, 1, 0]]).tolist()
        [1.0, 2.0, 4.0]
    """
    counts = label_counts(indicator)
    ratios = np.full(len(counts), np.nan)
    present = counts > 0
    ratios[present] = counts.max(initial=0) / counts[present]
    return ratios


def mean_imbalance_ratio(indicator: ArrayLike) -> float:
    """Computes MeanIR: the mean of IRLbl over the labels that at least one person has.

    Args:
        indicator: (n, k), non-zero where a person has a label.

    Returns:
        1 where all labels are equally frequent, more where they are not; nan where there are no labels.

    Source: Charte et al. 2015 (see ``imbalance_ratios``), equation 2.

    Example:
        >>> round(mean_imbalance_ratio([[1, 1, 0], [1, 0, 0], [1, 0, 1], [1, 1, 0]]), 5)
        2.33333
    """
    ratios = _present_ratios(indicator)
    return float(ratios.mean()) if len(ratios) else float("nan")


def imbalance_ratio_cv(indicator: ArrayLike) -> float:
    """Computes CVIR: the coefficient of variation of IRLbl over the labels that at least one person has.

    ``CVIR = sqrt(sum_y (IRLbl(y) - MeanIR)^2 / (k - 1)) / MeanIR``.

    Args:
        indicator: (n, k), non-zero where a person has a label.

    Returns:
        0 where all labels are equally frequent; nan with fewer than two labels.

    Source: Charte et al. 2015 (see ``imbalance_ratios``), equations 3 and 4.

    Example:
        >>> round(imbalance_ratio_cv([[1, 1, 0], [1, 0, 0], [1, 0, 1], [1, 1, 0]]), 5)
        0.65465
    """
    ratios = _present_ratios(indicator)
    return float(ratios.std(ddof=1) / ratios.mean()) if len(ratios) > 1 else float("nan")


def scumble(indicator: ArrayLike) -> float:
    """Computes SCUMBLE: how strongly frequent and rare labels occur in the same people.

    The mean over people of ``1 - geometric mean / arithmetic mean`` of the IRLbl of the person's labels.
    Resampling people helps little where SCUMBLE is high, because people with a rare label have frequent labels too. The
    product in the paper runs over a person's own labels, not over all k (which would make it zero for every person); a
    person without labels counts as 0, as in the authors' mldr.

    Args:
        indicator: (n, k), non-zero where a person has a label.

    Returns:
        From 0 (a person's labels are equally frequent) to below 1; nan for n = 0.

    Source: Charte et al., "Concurrence among Imbalanced Labels and Its Influence on Multilabel Resampling
    Algorithms", HAIS 2014, equation 3.

    Example:
        >>> round(scumble([[1, 1, 0], [1, 0, 0], [1, 0, 1], [1, 1, 0]]), 7)
        0.0785955
    """
    has_label = _to_bool(indicator)
    if not len(has_label):
        return float("nan")
    present = has_label[has_label.any(axis=1)]
    ratios = np.nan_to_num(imbalance_ratios(indicator), nan=1.0)
    n_labels = present.sum(axis=1)
    arithmetic = present @ ratios / n_labels
    geometric = np.exp(present @ np.log(ratios) / n_labels)
    return float((1 - geometric / arithmetic).sum() / len(has_label))


def co_occurrence(indicator: ArrayLike) -> NDArray[np.int64]:
    """Counts the people who have both labels of each pair.

    Args:
        indicator: (n, k), non-zero where a person has a label.

    Returns:
        (k, k), symmetric; the diagonal contains ``label_counts``.

    Example:
        >>> co_occurrence([[1, 1, 0], [1, 0, 0], [1, 0, 1], [1, 1, 0]]).tolist()
        [[4, 2, 1], [2, 2, 0], [1, 0, 1]]
    """
    # A float product is exact below 2**53 people, and fast where an integer product is not.
    present = _to_bool(indicator).astype(np.float64)
    return (present.T @ present).astype(np.int64)


def _present_ratios(indicator: ArrayLike) -> NDArray[np.float64]:
    ratios = imbalance_ratios(indicator)
    return ratios[~np.isnan(ratios)]


def _to_bool(indicator: ArrayLike) -> NDArray[np.bool_]:
    array = np.asarray(indicator)
    if array.ndim != 2:
        raise ValueError(f"an indicator has two axes (people, labels), got shape {array.shape}")
    return array.astype(bool)
