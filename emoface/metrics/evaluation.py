"""Measuring a set of predictions: average precision with bootstrap intervals, thresholds, groups, streams, ratings.

Everything here takes arrays and gives numbers. A measure that is undefined is nan, see ``multilabel``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from emoface.metrics.multilabel import (
    average_absolute_error,
    average_precision,
    bootstrap_average_precision,
    f1_scores,
    jaccard_indices,
    mean_average_precision,
    mean_over_labels,
    percentile_interval,
    predict_labels,
)
from emoface.progress import SILENT, Progress

FloatArray = NDArray[np.float64]

INTERVAL_LEVEL = 0.95
"""Share of the bootstrap resamples that lies inside an interval."""


@dataclass(frozen=True)
class PrecisionMeasures:
    """Average precision of n people and k labels.

    Attributes:
        n_people: n.
        average_precision: (k,) 0-1.
        prevalence: (k,) share of the people with the label, 0-1: what guessing comes to.
        interval: (2, k) low and high of the average precision; nan without bootstrap.
        mean_interval: (2,) low and high of the mean average precision; nan without bootstrap.
    """

    n_people: int
    average_precision: FloatArray
    prevalence: FloatArray
    interval: FloatArray
    mean_interval: FloatArray

    @property
    def is_defined(self) -> NDArray[np.bool_]:
        """(k,) whether anybody has the label."""
        return np.isfinite(self.average_precision)

    @property
    def labels_defined(self) -> int:
        """Labels that the means are taken over."""
        return int(self.is_defined.sum())

    @property
    def mean_average_precision(self) -> float:
        """Over the labels that are defined, 0-1."""
        return mean_average_precision(self.average_precision)

    @property
    def mean_prevalence(self) -> float:
        """The mean prevalence of the labels that are defined."""
        return mean_average_precision(np.where(self.is_defined, self.prevalence, np.nan))


@dataclass(frozen=True)
class ThresholdMeasures:
    """What comes of predicting the labels whose score reaches their threshold; n people, k labels.

    Attributes:
        n_with_label: (k,) people who have the label.
        n_predicted: (k,) people for whom it is predicted.
        precision: (k,) of those predicted, the share who have it; nan where nobody is.
        recall: (k,) of those who have it, the share predicted; nan where nobody has it.
        f1: (k,)
        jaccard: (n,) of each person.
    """

    n_with_label: NDArray[np.int64]
    n_predicted: NDArray[np.int64]
    precision: FloatArray
    recall: FloatArray
    f1: FloatArray
    jaccard: FloatArray

    @property
    def mean_f1(self) -> float:
        """Over the labels that somebody has."""
        return mean_average_precision(self.f1)

    @property
    def mean_jaccard(self) -> float:
        """Over the people who have a label or are predicted one."""
        return mean_average_precision(self.jaccard)


@dataclass(frozen=True)
class VadErrors:
    """Average absolute error of valence, arousal and dominance, on their own scale.

    Attributes:
        errors: (3,)
        n_people: (3,) whose truth is known.
    """

    errors: FloatArray
    n_people: NDArray[np.int64]

    @property
    def mean(self) -> float:
        """Over the dimensions that are defined."""
        return mean_average_precision(self.errors)


@dataclass(frozen=True)
class Evaluation:
    """All measures of a set of predictions.

    Attributes:
        everybody: Of all people, with intervals.
        at_thresholds: Of all people, at the thresholds given.
        groups: Of parts of the people, with intervals, by kind and name.
        streams: Of each stream's own head, on the people of whom it sees something; without intervals.
        vad: None where nothing is predicted.
    """

    everybody: PrecisionMeasures
    at_thresholds: ThresholdMeasures
    groups: dict[str, dict[str, PrecisionMeasures]]
    streams: dict[str, PrecisionMeasures]
    vad: VadErrors | None


@dataclass(frozen=True)
class PrecisionDifference:
    """How far one model's mean average precision is above another's on the same people.

    Attributes:
        value: The second's minus the first's.
        interval: (2,) low and high.
        share_above_zero: Of the bootstrap resamples, those in which the second is better; nan where none is defined.
    """

    value: float
    interval: FloatArray
    share_above_zero: float


def measure_predictions(
    labels: NDArray[np.uint8],
    probabilities: NDArray[np.float32],
    thresholds: FloatArray,
    *,
    stream_probabilities: Mapping[str, NDArray[np.float32]],
    vad: NDArray[np.float32],
    predicted_vad: NDArray[np.float32],
    groups: Mapping[str, Mapping[str, NDArray[np.bool_]]],
    n_resamples: int,
    seed: int,
    progress: Progress = SILENT,
) -> Evaluation:
    """Measures what a model says of n people against k labels and d ratings.

    Args:
        labels: (n, k), 0 or 1.
        probabilities: (n, k), 0-1.
        thresholds: (k,) a label is predicted from here on; nan for nobody.
        stream_probabilities: Of each stream's own head, (n, k), nan for a person of whom it sees nothing.
        vad: (n, d), nan where unknown.
        predicted_vad: (n, d), nan throughout where the model rates nobody.
        groups: (n,) who is in each group, by kind and name.
        n_resamples: Bootstrap resamples.
        seed: Of the bootstrap.
        progress: Told twice: when everybody is measured and when the groups are.
    """
    everybody = measure_precision(labels, probabilities, n_resamples=n_resamples, seed=seed)
    progress.advance()
    of_groups = {
        kind: {
            name: measure_precision(labels[chosen], probabilities[chosen], n_resamples=n_resamples, seed=seed)
            for name, chosen in parts.items()
        }
        for kind, parts in groups.items()
    }
    progress.advance()
    return Evaluation(
        everybody=everybody,
        at_thresholds=measure_at_thresholds(labels, probabilities, thresholds),
        groups=of_groups,
        streams={name: _measure_stream(labels, values) for name, values in stream_probabilities.items()},
        vad=None if np.isnan(predicted_vad).all() else _measure_vad(vad, predicted_vad),
    )


def measure_precision(
    labels: NDArray[np.uint8], probabilities: NDArray[np.float32], *, n_resamples: int = 0, seed: int = 0
) -> PrecisionMeasures:
    """Average precision of each label, its mean, and the intervals of both.

    Args:
        labels: (n, k), 0 or 1.
        probabilities: (n, k).
        n_resamples: Bootstrap resamples; 0 leaves the intervals nan.
        seed: Of the bootstrap.

    Example:
        >>> measure_precision(np.array([[1], [0], [1]]), np.array([[0.9], [0.8], [0.7]])).average_precision.round(4)
        array([0.8333])
    """
    resampled = bootstrap_average_precision(labels, probabilities, n_resamples, seed)
    return PrecisionMeasures(
        n_people=len(labels),
        average_precision=average_precision(labels, probabilities),
        prevalence=labels.sum(axis=0) / len(labels) if len(labels) else np.full(labels.shape[1], np.nan),
        interval=percentile_interval(resampled, INTERVAL_LEVEL),
        mean_interval=percentile_interval(mean_over_labels(resampled), INTERVAL_LEVEL),
    )


def measure_at_thresholds(
    labels: NDArray[np.uint8], probabilities: NDArray[np.float32], thresholds: FloatArray
) -> ThresholdMeasures:
    """Counts who is predicted what, and how right that is.

    Args:
        labels: (n, k), 0 or 1.
        probabilities: (n, k).
        thresholds: (k,) nan predicts nobody.
    """
    predicted = predict_labels(probabilities, thresholds)
    n_with_label, n_predicted = labels.sum(axis=0).astype(np.int64), predicted.sum(axis=0)
    n_right = (labels.astype(bool) & predicted).sum(axis=0)
    return ThresholdMeasures(
        n_with_label=n_with_label,
        n_predicted=n_predicted,
        precision=_divide(n_right, n_predicted),
        recall=_divide(n_right, n_with_label),
        f1=f1_scores(labels, predicted),
        jaccard=jaccard_indices(labels, predicted),
    )


def measure_difference(
    labels: NDArray[np.uint8],
    first: NDArray[np.float32],
    second: NDArray[np.float32],
    *,
    n_resamples: int,
    seed: int,
) -> PrecisionDifference:
    """The difference of two models' mean average precision on the same people, by a paired bootstrap.

    Args:
        labels: (n, k), 0 or 1.
        first: (n, k) the one model's probabilities.
        second: (n, k) the other's.
        n_resamples: Bootstrap resamples.
        seed: Of the bootstrap.
    """
    sides = (first, second)
    values = [mean_average_precision(average_precision(labels, side)) for side in sides]
    # The same seed and number of people draw the same people for both.
    resampled = [mean_over_labels(bootstrap_average_precision(labels, side, n_resamples, seed)) for side in sides]
    differences = resampled[1] - resampled[0]
    defined = differences[np.isfinite(differences)]
    return PrecisionDifference(
        value=values[1] - values[0],
        interval=percentile_interval(differences, INTERVAL_LEVEL),
        share_above_zero=float(np.mean(defined > 0)) if len(defined) else float("nan"),
    )


def _measure_stream(labels: NDArray[np.uint8], probabilities: NDArray[np.float32]) -> PrecisionMeasures:
    seen = np.isfinite(probabilities).all(axis=1)
    return measure_precision(labels[seen], probabilities[seen])


def _measure_vad(vad: NDArray[np.float32], predicted_vad: NDArray[np.float32]) -> VadErrors:
    return VadErrors(average_absolute_error(vad, predicted_vad), np.isfinite(vad).sum(axis=0))


def _divide(part: NDArray[np.int64], whole: NDArray[np.int64]) -> FloatArray:
    shares: FloatArray = np.divide(part, whole, out=np.full(len(whole), np.nan), where=whole > 0)
    return shares
