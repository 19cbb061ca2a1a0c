"""How well scores predict labels: average precision, its bootstrap interval, thresholds, F1, Jaccard index, curves.

A label that nobody has is undefined: its measures are nan, never 0 or 1, and means are taken over the defined ones.
Average precision ranks: scores may be logits or probabilities. Thresholds are on the scale of the scores given.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import sklearn.metrics
from numpy.typing import ArrayLike, NDArray

FloatArray = NDArray[np.float64]

_DRAWS_AT_ONCE = 64


def average_precision(labels: ArrayLike, scores: ArrayLike) -> FloatArray:
    """Average precision of each label: the sum of precision times the step in recall, ties in one step.

    Computed as in ``bootstrap_average_precision``, with everybody there once, so that a measure and its interval agree
    to the last digit; scikit-learn's may differ there, and takes a label that nobody has for 0.

    Args:
        labels: (n, k), 0 or 1.
        scores: (n, k), higher is more certain.

    Returns:
        (k,), 0-1, higher is better; nan for a label that nobody has.

    Example:
        >>> average_precision([[1], [0], [1]], [[0.9], [0.8], [0.7]]).round(4).tolist()
        [0.8333]

    Source: the formula of scikit-learn's ``average_precision_score``.
    """
    indicator, ranked = _check(labels, scores)
    everybody_once = np.ones((1, len(indicator)), np.int32)
    return np.array(
        [_weighted_precision(indicator[:, k], ranked[:, k], everybody_once)[0] for k in range(indicator.shape[1])]
    )


def mean_average_precision(precision: ArrayLike) -> float:
    """The plain mean over the labels whose average precision is defined.

    Args:
        precision: (k,), nan where undefined.

    Returns:
        0-1; nan where none is defined.

    Example:
        >>> mean_average_precision([0.5, float("nan"), 0.25])
        0.375
    """
    defined = np.asarray(precision, np.float64)
    defined = defined[np.isfinite(defined)]
    return float(defined.mean()) if len(defined) else float("nan")


def bootstrap_average_precision(labels: ArrayLike, scores: ArrayLike, n_draws: int = 1000, seed: int = 0) -> FloatArray:
    """Average precision on people drawn anew, with replacement, as often as there are people.

    The draws depend on the seed and the number of people alone: two models with the same people in the same order get
    the same draws, so the difference of their rows is a paired bootstrap.

    Args:
        labels: (n, k), 0 or 1.
        scores: (n, k).
        n_draws: How often all people are drawn.
        seed: Decides who is drawn.

    Returns:
        (n_draws, k); nan where nobody who was drawn has the label.

    Source: Efron 1979.
    """
    indicator, ranked = _check(labels, scores)
    n, k = indicator.shape
    rng = np.random.default_rng(seed)
    drawn = np.full((n_draws, k), np.nan)
    for start in range(0, n_draws, _DRAWS_AT_ONCE):
        size = min(_DRAWS_AT_ONCE, n_draws - start)
        times = np.zeros((size, n), np.int32)
        if n:
            for row in times:
                row[:] = np.bincount(rng.integers(0, n, n), minlength=n)
        for label in range(k):
            drawn[start : start + size, label] = _weighted_precision(indicator[:, label], ranked[:, label], times)
    return drawn


def percentile_interval(values: FloatArray, level: float = 0.95) -> FloatArray:
    """The middle share of drawn values.

    Args:
        values: (n_draws,) or (n_draws, k); nan is left out.
        level: Share that lies inside, 0-1.

    Returns:
        (2,) or (2, k), low and high; nan where no draw is defined.

    Example:
        >>> percentile_interval(np.arange(101.0), 0.9).round(6).tolist()
        [5.0, 95.0]
    """
    columns = values if values.ndim == 2 else values[:, None]
    ends = np.full((2, columns.shape[1]), np.nan)
    for position, column in enumerate(columns.T):
        defined = column[np.isfinite(column)]
        if len(defined):
            ends[:, position] = np.quantile(defined, ((1 - level) / 2, (1 + level) / 2))
    return ends if values.ndim == 2 else ends[:, 0]


def mean_over_labels(precision: FloatArray) -> FloatArray:
    """``mean_average_precision`` of each draw.

    Args:
        precision: (n_draws, k).

    Returns:
        (n_draws,).
    """
    defined = np.isfinite(precision)
    n_defined = defined.sum(axis=1)
    total = np.where(defined, precision, 0.0).sum(axis=1)
    mean: FloatArray = np.divide(total, n_defined, out=np.full(len(precision), np.nan), where=n_defined > 0)
    return mean


@dataclass(frozen=True)
class PrecisionRecallCurve:
    """One label's curve, from the highest threshold to the lowest, each different score once.

    Attributes:
        recall: (m,) 0-1, never falling.
        precision: (m,) 0-1.
        threshold: (m,) a person is predicted where the score is this or higher.
    """

    recall: FloatArray
    precision: FloatArray
    threshold: FloatArray


def precision_recall_curve(label: ArrayLike, score: ArrayLike) -> PrecisionRecallCurve:
    """Precision against recall at each different score of one label.

    Args:
        label: (n,) 0 or 1.
        score: (n,), finite.

    Returns:
        The curve; empty for a label that nobody has.

    Example:
        >>> precision_recall_curve([1, 0, 1], [0.9, 0.8, 0.8]).precision.round(3).tolist()
        [1.0, 0.667]
    """
    truth, values = np.asarray(label).astype(bool), np.asarray(score, np.float64)
    if not truth.any():
        return PrecisionRecallCurve(*(np.zeros(0) for _ in range(3)))
    precision, recall, threshold = sklearn.metrics.precision_recall_curve(truth, values)
    # scikit-learn begins with the lowest threshold, and ends with a point that has none.
    return PrecisionRecallCurve(recall[-2::-1], precision[-2::-1], threshold[::-1])


def fit_thresholds(labels: ArrayLike, scores: ArrayLike) -> FloatArray:
    """For each label the threshold with the best F1; of equals the highest.

    Args:
        labels: (n, k), 0 or 1.
        scores: (n, k), finite.

    Returns:
        (k,) a label is predicted where its score is this or higher; nan, which predicts it for nobody, for a label
        that nobody has.

    Example:
        >>> fit_thresholds([[1], [1], [0]], [[0.9], [0.4], [0.2]]).tolist()
        [0.4]
    """
    indicator, ranked = _check(labels, scores)
    thresholds = np.full(indicator.shape[1], np.nan)
    for k in range(indicator.shape[1]):
        curve = precision_recall_curve(indicator[:, k], ranked[:, k])
        if len(curve.threshold):
            sums = np.maximum(curve.precision + curve.recall, np.finfo(np.float64).tiny)
            thresholds[k] = curve.threshold[np.argmax(2 * curve.precision * curve.recall / sums)]
    return thresholds


def predict_labels(scores: ArrayLike, thresholds: ArrayLike) -> NDArray[np.bool_]:
    """Who is predicted to have which label.

    Args:
        scores: (n, k).
        thresholds: (k,); nan predicts nobody.

    Returns:
        (n, k).
    """
    predicted: NDArray[np.bool_] = np.asarray(scores, np.float64) >= np.asarray(thresholds, np.float64)
    return predicted


def f1_scores(labels: ArrayLike, predicted: NDArray[np.bool_]) -> FloatArray:
    """F1 of each label, the harmonic mean of precision and recall.

    Args:
        labels: (n, k), 0 or 1.
        predicted: (n, k).

    Returns:
        (k,), 0-1, higher is better; nan for a label that nobody has.

    Example:
        >>> f1_scores([[1], [1], [0]], np.array([[True], [False], [True]])).tolist()
        [0.5]
    """
    pairs = zip(np.asarray(labels).astype(bool).T, predicted.T, strict=True)
    f1 = [sklearn.metrics.f1_score(truth, found) if truth.any() else np.nan for truth, found in pairs]
    return np.array(f1, np.float64)


def jaccard_indices(labels: ArrayLike, predicted: NDArray[np.bool_]) -> FloatArray:
    """Per person: labels that are both true and predicted over labels that are either.

    scikit-learn's ``jaccard_score`` has the mean over people alone, and people with neither count in it.

    Args:
        labels: (n, k), 0 or 1.
        predicted: (n, k).

    Returns:
        (n,), 0-1, higher is better; nan for a person with neither.

    Example:
        >>> jaccard_indices([[1, 1, 0]], np.array([[True, False, True]])).round(4).tolist()
        [0.3333]

    Source: Kosti et al. 2019, section 5, "Jaccard coefficient".
    """
    has_label = np.asarray(labels).astype(bool)
    both, either = (has_label & predicted).sum(axis=1), (has_label | predicted).sum(axis=1)
    index: FloatArray = np.divide(both, either, out=np.full(len(either), np.nan), where=either > 0)
    return index


def average_absolute_error(truth: ArrayLike, predicted: ArrayLike) -> FloatArray:
    """Mean absolute error of each dimension over the people whose truth is known.

    Args:
        truth: (n, d), nan where unknown.
        predicted: (n, d), same scale.

    Returns:
        (d,), lower is better; nan where no truth is known.

    Example:
        >>> average_absolute_error([[1.0], [float("nan")], [4.0]], [[2.0], [9.0], [1.0]]).tolist()
        [2.0]
    """
    errors = np.abs(np.asarray(predicted, np.float64) - np.asarray(truth, np.float64))
    known = np.isfinite(errors)
    n_known = known.sum(axis=0)
    total = np.where(known, errors, 0.0).sum(axis=0)
    mean: FloatArray = np.divide(total, n_known, out=np.full(total.shape, np.nan), where=n_known > 0)
    return mean


def _check(labels: ArrayLike, scores: ArrayLike) -> tuple[NDArray[np.bool_], FloatArray]:
    indicator, ranked = np.asarray(labels).astype(bool), np.asarray(scores, np.float64)
    if indicator.ndim != 2 or indicator.shape != ranked.shape:
        raise ValueError(f"labels have shape {indicator.shape}, scores {ranked.shape}, expected both (n, k)")
    if np.isnan(ranked).any():
        raise ValueError(f"{int(np.isnan(ranked).any(axis=1).sum())} rows of scores hold nan")
    return indicator, ranked


def _weighted_precision(label: NDArray[np.bool_], score: FloatArray, times: NDArray[np.int32]) -> FloatArray:
    """Average precision of one label where person i is there ``times[:, i]`` times, for each row of ``times``.

    Args:
        label: (n,).
        score: (n,).
        times: (draws, n).

    Returns:
        (draws,), nan where nobody with the label is there.
    """
    order = np.argsort(-score, kind="stable")
    positives = np.flatnonzero(label[order])
    if not len(positives):
        return np.full(len(times), np.nan)
    # Precision counts only where somebody has the label; people of equal scores come in together.
    last_of_tie = np.flatnonzero(np.append(np.diff(score[order]) != 0, True))
    ends = last_of_tie[np.searchsorted(last_of_tie, positives)]
    last_positive = np.searchsorted(positives, ends, side="right") - 1
    weights = times[:, order[positives]]
    # Sums run along rows, which numpy does several times as fast as along columns.
    seen = np.cumsum(times[:, order], axis=1, dtype=np.int32)[:, ends]
    true = np.cumsum(weights, axis=1, dtype=np.int32)
    total = true[:, -1]
    precision = true[:, last_positive] / np.maximum(seen, 1)
    summed = np.einsum("dn,dn->d", precision, weights)
    averaged: FloatArray = np.divide(summed, total, out=np.full(len(total), np.nan), where=total > 0)
    return averaged
