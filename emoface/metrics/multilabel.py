"""Multi-label metrics: average precision, its bootstrap interval, thresholds, F1, Jaccard index, ROC-AUC and curves.

The metrics of a label that no person has are undefined: they are nan, never 0 or 1, and means are taken over the
defined values. Average precision depends on the order of the scores alone, so scores may be logits or probabilities.
Thresholds are on the scale of the given scores.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from emoface.vision.arrays import Float64Array

_RESAMPLES_AT_ONCE = 64


def average_precision(labels: ArrayLike, scores: ArrayLike) -> Float64Array:
    """Computes the average precision of each label: the sum of precision times the step in recall.

    People with equal scores enter in one step. The computation is that of ``bootstrap_average_precision`` with each
    person counted once, so that the value and its interval agree to the last digit. scikit-learn's value may differ in
    the last digit, and is 0 for a label that no person has.

    Args:
        labels: (n, k) true labels, 0 or 1.
        scores: (n, k) logits or probabilities; a higher score is more certain.

    Returns:
        (k,), 0-1, higher is better; nan for a label that no person has.

    Example:
        >>> average_precision([[1], [0], [1]], [[0.9], [0.8], [0.7]]).round(4).tolist()
        [0.8333]

    Source: the formula of scikit-learn's ``average_precision_score``.
    """
    indicator, checked_scores = _check(labels, scores)
    once_each = np.ones((1, len(indicator)), np.int32)
    return np.array(
        [_weighted_precision(indicator[:, k], checked_scores[:, k], once_each)[0] for k in range(indicator.shape[1])]
    )


def interpolated_average_precision(labels: ArrayLike, scores: ArrayLike) -> Float64Array:
    """Computes the 11-point interpolated average precision of each label, as PASCAL VOC did until 2009.

    It is the mean, over the recall levels 0, 0.1, ... 1, of the highest precision at that recall or a higher one. On
    EMOTIC it is 2 to 3 points higher than ``average_precision``, so values of the two must not be compared.

    Two details differ from the code of EMOTIC's authors, which ranks people with equal scores in the order of its sort
    and adds up the levels in floating point: here people with equal scores enter in one step, so that the order of the
    people does not matter, and a level of t tenths is reached where 10 times the number of people found is at least t
    times the number of all people with the label.

    Args:
        labels: (n, k) true labels, 0 or 1.
        scores: (n, k) logits or probabilities; a higher score is more certain.

    Returns:
        (k,), 0-1, higher is better; nan for a label that no person has.

    Example:
        >>> interpolated_average_precision([[1], [0], [1]], [[0.9], [0.8], [0.7]]).round(4).tolist()
        [0.8485]

    Source: Everingham et al., "The PASCAL Visual Object Classes (VOC) Challenge", 2010, section 4.2; EMOTIC's authors'
    rkosti/emotic@e72f6d1, src/funcs.lua, function ``precisionrecallvector``.
    """
    indicator, checked_scores = _check(labels, scores)
    values = np.full(indicator.shape[1], np.nan)
    for k in range(indicator.shape[1]):
        n_positive = int(indicator[:, k].sum())
        if not n_positive:
            continue
        curve = precision_recall_curve(indicator[:, k], checked_scores[:, k])
        n_found = np.rint(curve.recall * n_positive)
        best_from_here_on = np.maximum.accumulate(curve.precision[::-1])[::-1]
        first = [int(np.argmax(10 * n_found >= level * n_positive)) for level in range(11)]
        values[k] = best_from_here_on[first].mean()
    return values


def roc_auc_scores(labels: ArrayLike, scores: ArrayLike) -> Float64Array:
    """Computes the area under the receiver operating characteristic curve of each label.

    It is the probability that a person with the label has a higher score than one without it; equal scores count half.

    Args:
        labels: (n, k) true labels, 0 or 1.
        scores: (n, k) logits or probabilities; a higher score is more certain.

    Returns:
        (k,), 0-1, higher is better, 0.5 is chance; nan for a label that no person or every person has.

    Example:
        >>> roc_auc_scores([[1, 1], [0, 1], [1, 1]], [[0.9, 0.1], [0.8, 0.2], [0.7, 0.3]]).tolist()
        [0.5, nan]
    """
    from sklearn.metrics import roc_auc_score

    indicator, checked_scores = _check(labels, scores)
    pairs = zip(indicator.T, checked_scores.T, strict=True)
    areas = [roc_auc_score(truth, values) if truth.any() and not truth.all() else np.nan for truth, values in pairs]
    return np.array(areas, np.float64)


def mean_of_defined(values: ArrayLike) -> float:
    """Computes the plain mean of the values that are defined.

    Args:
        values: (k,) any metric, nan where it is undefined.

    Returns:
        The mean; nan where no value is defined.

    Example:
        >>> mean_of_defined([3.0, float("nan"), 1.0])
        2.0
    """
    defined = np.asarray(values, np.float64)
    defined = defined[np.isfinite(defined)]
    return float(defined.mean()) if len(defined) else float("nan")


def mean_average_precision(precision: ArrayLike) -> float:
    """Computes the mean average precision (mAP): the mean over the labels whose average precision is defined.

    Args:
        precision: (k,) average precision of each label, nan where undefined.

    Returns:
        0-1, higher is better; nan where no average precision is defined.

    Example:
        >>> mean_average_precision([0.5, float("nan"), 0.25])
        0.375
    """
    return mean_of_defined(precision)


def bootstrap_average_precision(
    labels: ArrayLike, scores: ArrayLike, n_resamples: int = 1000, seed: int = 0, photo: ArrayLike | None = None
) -> Float64Array:
    """Computes the average precision of bootstrap resamples: as many photos, sampled with replacement.

    People of one photo share its context and are not independent, so photos are sampled and not people. The resamples
    depend on the seed and the photos alone: two models with the same people in the same order get the same resamples,
    so the difference of their rows is a paired bootstrap.

    Args:
        labels: (n, k) true labels, 0 or 1.
        scores: (n, k) logits or probabilities.
        n_resamples: Number of bootstrap resamples.
        seed: Seed of the random generator that samples the photos.
        photo: (n,) number of each person's photo, 0 to the number of photos less one; None if each person has another.

    Returns:
        (n_resamples, k), 0-1; nan where no person of the resample has the label.

    Source: Efron, "Bootstrap Methods: Another Look at the Jackknife", 1979; Davison and Hinkley, "Bootstrap Methods and
    their Application", 1997, section 3.8 on clustered data.
    """
    indicator, checked_scores = _check(labels, scores)
    n, k = indicator.shape
    photo_of = np.arange(n) if photo is None else np.asarray(photo, np.int64)
    n_photos = int(photo_of.max(initial=-1)) + 1
    rng = np.random.default_rng(seed)
    resampled = np.full((n_resamples, k), np.nan)
    for start in range(0, n_resamples, _RESAMPLES_AT_ONCE):
        size = min(_RESAMPLES_AT_ONCE, n_resamples - start)
        times = np.zeros((size, n), np.int32)
        if n:
            for row in times:
                row[:] = np.bincount(rng.integers(0, n_photos, n_photos), minlength=n_photos)[photo_of]
        for label in range(k):
            precision = _weighted_precision(indicator[:, label], checked_scores[:, label], times)
            resampled[start : start + size, label] = precision
    return resampled


def basic_interval(value: ArrayLike, resampled: Float64Array, level: float = 0.95) -> Float64Array:
    """Computes the basic bootstrap interval, 2 times the value minus the percentiles of the resamples.

    Average precision rises where the same people are repeated, so its resamples lie above the value, and the value of a
    small sample lies above that of all people by about as much. Percentiles of the resamples would add the two; the
    basic interval takes one off the other. ``docs/benchmarks/interval_coverage.py`` measures how often each holds the
    true value.

    Args:
        value: () or (k,) the value of the sample itself; nan where undefined.
        resampled: (n_resamples,) or (n_resamples, k), one value or one row per resample; nan is left out.
        level: Share of the resamples inside the interval, 0-1.

    Returns:
        (2,) or (2, k), low and high end, not limited to 0-1; nan where no value is defined.

    Example:
        >>> basic_interval(48.0, np.arange(101.0), 0.9).round(6).tolist()
        [1.0, 91.0]

    Source: Davison and Hinkley, "Bootstrap Methods and their Application", 1997, section 5.2.1.
    """
    columns = resampled if resampled.ndim == 2 else resampled[:, None]
    values = np.atleast_1d(np.asarray(value, np.float64))
    ends = np.full((2, columns.shape[1]), np.nan)
    for position, column in enumerate(columns.T):
        defined = column[np.isfinite(column)]
        if len(defined):
            percentiles = np.quantile(defined, ((1 + level) / 2, (1 - level) / 2))
            ends[:, position] = 2 * values[position] - percentiles
    return ends if resampled.ndim == 2 else ends[:, 0]


def mean_over_labels(precision: Float64Array) -> Float64Array:
    """Computes the mean average precision of each bootstrap resample.

    Args:
        precision: (n_resamples, k), nan where undefined.

    Returns:
        (n_resamples,), 0-1; nan where no average precision of the resample is defined.
    """
    defined = np.isfinite(precision)
    n_defined = defined.sum(axis=1)
    total = np.where(defined, precision, 0.0).sum(axis=1)
    mean: Float64Array = np.divide(total, n_defined, out=np.full(len(precision), np.nan), where=n_defined > 0)
    return mean


@dataclass(frozen=True)
class PrecisionRecallCurve:
    """The precision-recall curve of one label, from the highest threshold to the lowest; m distinct scores.

    Attributes:
        recall: (m,) 0-1, never decreasing.
        precision: (m,) 0-1.
        threshold: (m,) distinct scores; the label is predicted where the score is this or higher.
    """

    recall: Float64Array
    precision: Float64Array
    threshold: Float64Array


def precision_recall_curve(label: ArrayLike, score: ArrayLike) -> PrecisionRecallCurve:
    """Computes precision and recall of one label at each distinct score.

    Args:
        label: (n,) true label, 0 or 1.
        score: (n,) logit or probability, finite.

    Returns:
        The curve; empty for a label that no person has.

    Example:
        >>> precision_recall_curve([1, 0, 1], [0.9, 0.8, 0.8]).precision.round(3).tolist()
        [1.0, 0.667]
    """
    from sklearn.metrics import precision_recall_curve as sklearn_curve

    truth, values = np.asarray(label).astype(bool), np.asarray(score, np.float64)
    if not truth.any():
        return PrecisionRecallCurve(*(np.zeros(0) for _ in range(3)))
    precision, recall, threshold = sklearn_curve(truth, values)
    # scikit-learn begins with the lowest threshold, and ends with a point that has no threshold.
    return PrecisionRecallCurve(recall[-2::-1], precision[-2::-1], threshold[::-1])


def fit_thresholds(labels: ArrayLike, scores: ArrayLike) -> Float64Array:
    """Finds the threshold of each label with the best F1 score; the highest one where several are equally good.

    Args:
        labels: (n, k) true labels, 0 or 1.
        scores: (n, k) logits or probabilities, finite.

    Returns:
        (k,) a label is predicted where its score is this or higher. The threshold of a label that no person has is
        nan, which predicts the label for no person.

    Example:
        >>> fit_thresholds([[1], [1], [0]], [[0.9], [0.4], [0.2]]).tolist()
        [0.4]
    """
    indicator, checked_scores = _check(labels, scores)
    thresholds = np.full(indicator.shape[1], np.nan)
    for k in range(indicator.shape[1]):
        curve = precision_recall_curve(indicator[:, k], checked_scores[:, k])
        if len(curve.threshold):
            sums = np.maximum(curve.precision + curve.recall, np.finfo(np.float64).tiny)
            thresholds[k] = curve.threshold[np.argmax(2 * curve.precision * curve.recall / sums)]
    return thresholds


def break_even_thresholds(labels: ArrayLike, scores: ArrayLike) -> Float64Array:
    """Finds the threshold of each label at which precision equals recall.

    The two are equal where the label is predicted for as many people as have it. Where equal scores allow no such
    threshold, the numbers are as near to each other as possible; of two thresholds equally near, the higher is taken.

    Args:
        labels: (n, k) true labels, 0 or 1.
        scores: (n, k) logits or probabilities, finite.

    Returns:
        (k,) a label is predicted where its score is this or higher. The threshold of a label that no person has is
        nan, which predicts the label for no person.

    Example:
        >>> break_even_thresholds([[1], [0], [1], [0]], [[0.9], [0.8], [0.7], [0.1]]).tolist()
        [0.8]

    Source: Kosti et al. 2019, section 5, where the Jaccard index is taken at this threshold of val; Tandon-A/emotic,
    ``get_thresholds``, which takes the lowest score with equal values.
    """
    indicator, checked_scores = _check(labels, scores)
    thresholds = np.full(indicator.shape[1], np.nan)
    for k in range(indicator.shape[1]):
        n_positive = int(indicator[:, k].sum())
        if n_positive:
            values, counts = np.unique(-checked_scores[:, k], return_counts=True)
            thresholds[k] = -values[np.argmin(np.abs(np.cumsum(counts) - n_positive))]
    return thresholds


def predict_labels(scores: ArrayLike, thresholds: ArrayLike) -> NDArray[np.bool_]:
    """Predicts the labels whose score reaches their threshold.

    Args:
        scores: (n, k) logits or probabilities.
        thresholds: (k,) on the scale of the scores; nan predicts a label for no person.

    Returns:
        (n, k), True where the label is predicted.
    """
    predicted: NDArray[np.bool_] = np.asarray(scores, np.float64) >= np.asarray(thresholds, np.float64)
    return predicted


def f1_scores(labels: ArrayLike, predicted: NDArray[np.bool_]) -> Float64Array:
    """Computes the F1 score of each label, the harmonic mean of precision and recall.

    It is scikit-learn's ``f1_score`` of each label, which takes a hundred times as long for the labels of few people.

    Args:
        labels: (n, k) true labels, 0 or 1.
        predicted: (n, k) predicted labels.

    Returns:
        (k,), 0-1, higher is better; nan for a label that no person has.

    Example:
        >>> f1_scores([[1], [1], [0]], np.array([[True], [False], [True]])).tolist()
        [0.5]
    """
    has_label = np.asarray(labels).astype(bool)
    n_true, n_predicted, n_both = (part.sum(axis=0) for part in (has_label, predicted, has_label & predicted))
    f1: Float64Array = np.divide(2 * n_both, n_true + n_predicted, out=np.full(len(n_true), np.nan), where=n_true > 0)
    return f1


def micro_f1_score(labels: ArrayLike, predicted: NDArray[np.bool_]) -> float:
    """Computes the F1 score over all pairs of a person and a label, so that frequent labels count more.

    It is scikit-learn's ``f1_score`` of all pairs, which takes seconds for millions of them.

    Args:
        labels: (n, k) true labels, 0 or 1.
        predicted: (n, k) predicted labels.

    Returns:
        0-1, higher is better; nan where nothing is true and nothing is predicted.

    Example:
        >>> micro_f1_score([[1, 0], [1, 1]], np.array([[True, True], [False, True]]))
        0.6666666666666666
    """
    has_label = np.asarray(labels).astype(bool)
    n_both, n_true, n_predicted = (int(part.sum()) for part in (has_label & predicted, has_label, predicted))
    return 2 * n_both / (n_true + n_predicted) if n_true + n_predicted else float("nan")


def hamming_loss(labels: ArrayLike, predicted: NDArray[np.bool_]) -> float:
    """Computes the share of the pairs of a person and a label that are predicted wrongly.

    Args:
        labels: (n, k) true labels, 0 or 1.
        predicted: (n, k) predicted labels.

    Returns:
        0-1, lower is better; nan where there are no people.

    Example:
        >>> hamming_loss([[1, 0], [1, 1]], np.array([[True, True], [False, True]]))
        0.5
    """
    has_label = np.asarray(labels).astype(bool)
    if not has_label.size:
        return float("nan")
    return float((has_label != predicted).mean())


def jaccard_indices(labels: ArrayLike, predicted: NDArray[np.bool_]) -> Float64Array:
    """Computes the Jaccard index of each person: labels both true and predicted over labels true or predicted.

    scikit-learn's ``jaccard_score`` gives only the mean over people, and includes people without any true or predicted
    label in it.

    Args:
        labels: (n, k) true labels, 0 or 1.
        predicted: (n, k) predicted labels.

    Returns:
        (n,), 0-1, higher is better; nan for a person without any true or predicted label.

    Example:
        >>> jaccard_indices([[1, 1, 0]], np.array([[True, False, True]])).round(4).tolist()
        [0.3333]

    Source: Kosti et al. 2019, section 5, "Jaccard coefficient".
    """
    has_label = np.asarray(labels).astype(bool)
    both, either = (has_label & predicted).sum(axis=1), (has_label | predicted).sum(axis=1)
    index: Float64Array = np.divide(both, either, out=np.full(len(either), np.nan), where=either > 0)
    return index


def _check(labels: ArrayLike, scores: ArrayLike) -> tuple[NDArray[np.bool_], Float64Array]:
    indicator, as_floats = np.asarray(labels).astype(bool), np.asarray(scores, np.float64)
    if indicator.ndim != 2 or indicator.shape != as_floats.shape:
        raise ValueError(f"labels have shape {indicator.shape}, scores {as_floats.shape}, expected both (n, k)")
    if np.isnan(as_floats).any():
        raise ValueError(f"{int(np.isnan(as_floats).any(axis=1).sum())} rows of scores hold nan")
    return indicator, as_floats


def _weighted_precision(label: NDArray[np.bool_], score: Float64Array, times: NDArray[np.int32]) -> Float64Array:
    """Computes the average precision of one label for each resample.

    Args:
        label: (n,) whether each person has the label.
        score: (n,) logit or probability.
        times: (resamples, n) how often each resample contains each person.

    Returns:
        (resamples,), 0-1; nan where the resample contains no person with the label.
    """
    order = np.argsort(-score, kind="stable")
    positives = np.flatnonzero(label[order])
    if not len(positives):
        return np.full(len(times), np.nan)
    # Precision is needed only at people with the label; people with equal scores enter together.
    last_of_tie = np.flatnonzero(np.append(np.diff(score[order]) != 0, True))
    ends = last_of_tie[np.searchsorted(last_of_tie, positives)]
    last_positive = np.searchsorted(positives, ends, side="right") - 1
    weights = times[:, order[positives]]
    # Sums run along rows, which is several times as fast in numpy as along columns.
    n_above = np.cumsum(times[:, order], axis=1, dtype=np.int32)[:, ends]
    n_true = np.cumsum(weights, axis=1, dtype=np.int32)
    total = n_true[:, -1]
    precision = n_true[:, last_positive] / np.maximum(n_above, 1)
    summed = np.einsum("dn,dn->d", precision, weights)
    averaged: Float64Array = np.divide(summed, total, out=np.full(len(total), np.nan), where=total > 0)
    return averaged
