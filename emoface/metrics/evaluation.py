"""Metrics of a set of predictions: average precision with bootstrap intervals, at thresholds, by group and by stream.

Every function takes arrays and returns numbers. A metric that is undefined is nan, see ``multilabel``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from emoface.metrics.multilabel import (
    average_precision,
    basic_interval,
    bootstrap_average_precision,
    f1_scores,
    hamming_loss,
    interpolated_average_precision,
    jaccard_indices,
    mean_average_precision,
    mean_of_defined,
    mean_over_labels,
    micro_f1_score,
    predict_labels,
    roc_auc_scores,
)
from emoface.metrics.vad import VadErrors, measure_vad
from emoface.progress import SILENT, Progress
from emoface.vision.arrays import Float64Array

INTERVAL_LEVEL = 0.95
"""Share of the bootstrap resamples that are inside an interval."""


@dataclass(frozen=True)
class Bootstrap:
    """Bootstrap resamples: how many, and the seed that they depend on.

    Attributes:
        n_resamples: Number of resamples.
        seed: Seed of the random generator; with the same photos, the same seed gives the same resamples.
    """

    n_resamples: int
    seed: int = 0

    def resample(
        self, labels: NDArray[np.uint8], scores: NDArray[np.float32], photo: NDArray[np.int64] | None
    ) -> Float64Array:
        """Computes the average precision of each resample, see ``bootstrap_average_precision``.

        Args:
            labels: (n, k) true labels, 0 or 1.
            scores: (n, k) logits or probabilities.
            photo: (n,) any number of each person's photo; None if each person has another one.

        Returns:
            (n_resamples, k).
        """
        numbers = None if photo is None else np.unique(photo, return_inverse=True)[1]
        return bootstrap_average_precision(labels, scores, self.n_resamples, self.seed, numbers)


NO_BOOTSTRAP = Bootstrap(0)


@dataclass(frozen=True)
class PrecisionMetrics:
    """Average precision of n people and k labels.

    Attributes:
        n_people: Number of people, n.
        average_precision: (k,) 0-1.
        prevalence: (k,) share of the people who have the label, 0-1: the average precision of chance.
        interval: (2, k) low and high end for the average precision; nan without bootstrap.
        mean_interval: (2,) low and high end for the mean average precision; nan without bootstrap.
    """

    n_people: int
    average_precision: Float64Array
    prevalence: Float64Array
    interval: Float64Array
    mean_interval: Float64Array

    @property
    def is_defined(self) -> NDArray[np.bool_]:
        """(k,) whether at least one person has the label."""
        return np.isfinite(self.average_precision)

    @property
    def labels_defined(self) -> int:
        """The number of labels whose average precision is defined; the means are taken over these."""
        return int(self.is_defined.sum())

    @property
    def mean_average_precision(self) -> float:
        """The mean of the average precision over the labels where it is defined, 0-1."""
        return mean_average_precision(self.average_precision)

    @property
    def mean_prevalence(self) -> float:
        """The mean prevalence of the labels whose average precision is defined: the chance level of the mAP."""
        return mean_of_defined(np.where(self.is_defined, self.prevalence, np.nan))

    @property
    def n_with_label(self) -> NDArray[np.int64]:
        """(k,) number of people who have each label."""
        counts: NDArray[np.int64] = np.rint(np.nan_to_num(self.prevalence) * self.n_people).astype(np.int64)
        return counts

    @property
    def lift(self) -> Float64Array:
        """(k,) average precision less prevalence: the lift over chance of each label."""
        return self.average_precision - self.prevalence

    @property
    def mean_lift(self) -> float:
        """Mean average precision less mean prevalence: the lift over chance."""
        return self.mean_average_precision - self.mean_prevalence


@dataclass(frozen=True)
class ThresholdMetrics:
    """Metrics of the predicted labels, those whose score reaches their threshold, for n people and k labels.

    Attributes:
        n_with_label: (k,) number of people who have the label.
        n_predicted: (k,) number of people for whom the label is predicted.
        precision: (k,) share of the people predicted to have the label who have it; nan where there are none.
        recall: (k,) share of the people with the label for whom it is predicted; nan where there are none.
        f1: (k,) F1 score of each label.
        jaccard: (n,) Jaccard index of each person.
        micro_f1: F1 score over all pairs of a person and a label; nan where nothing is true or predicted.
        hamming_loss: Share of these pairs that are predicted wrongly; nan without people.
    """

    n_with_label: NDArray[np.int64]
    n_predicted: NDArray[np.int64]
    precision: Float64Array
    recall: Float64Array
    f1: Float64Array
    jaccard: Float64Array
    micro_f1: float
    hamming_loss: float

    @property
    def mean_f1(self) -> float:
        """The mean F1 score over the labels that at least one person has."""
        return mean_of_defined(self.f1)

    @property
    def mean_jaccard(self) -> float:
        """The mean Jaccard index over the people who have a label or are predicted one."""
        return mean_of_defined(self.jaccard)


@dataclass(frozen=True)
class Evaluation:
    """All metrics of a set of predictions.

    Attributes:
        overall: Average precision for all people, with intervals.
        interpolated: (k,) 11-point interpolated average precision for all people.
        roc_auc: (k,) area under the receiver operating characteristic curve for all people.
        at_thresholds: Precision, recall, F1, Jaccard index and Hamming loss for all people, at each kind of thresholds.
        groups: Average precision for groups of people, with intervals, by kind of group and name.
        streams: Average precision of each stream's own head for the people who have its input, without intervals.
        vad: Errors of valence, arousal and dominance; None where the model does not predict them.
    """

    overall: PrecisionMetrics
    interpolated: Float64Array
    roc_auc: Float64Array
    at_thresholds: dict[str, ThresholdMetrics]
    groups: dict[str, dict[str, PrecisionMetrics]]
    streams: dict[str, PrecisionMetrics]
    vad: VadErrors | None


NO_DIFFERENCE = "no difference shown"
"""The verdict on two models where the interval of their difference holds 0."""


@dataclass(frozen=True)
class PrecisionDifference:
    """The difference of two models' mean average precision on the same people.

    Attributes:
        value: The mean average precision of the second model minus that of the first.
        interval: (2,) low and high end of the bootstrap interval of the difference.
        share_above_zero: Share of the bootstrap resamples in which the second model is better; nan where the
            difference is defined in none.
    """

    value: float
    interval: Float64Array
    share_above_zero: float

    @property
    def verdict(self) -> str:
        """Whether the interval shows a difference: ``second is better``, ``first is better`` or ``NO_DIFFERENCE``.

        An interval with an end at 0 holds it, and one that is undefined shows nothing.
        """
        low, high = self.interval
        if low > 0:
            return "second is better"
        return "first is better" if high < 0 else NO_DIFFERENCE


def measure_predictions(
    labels: NDArray[np.uint8],
    probabilities: NDArray[np.float32],
    thresholds: Mapping[str, Float64Array],
    *,
    stream_probabilities: Mapping[str, NDArray[np.float32]],
    vad: NDArray[np.float32],
    predicted_vad: NDArray[np.float32],
    groups: Mapping[str, Mapping[str, NDArray[np.bool_]]],
    photo: NDArray[np.int64],
    bootstrap: Bootstrap,
    progress: Progress = SILENT,
) -> Evaluation:
    """Computes all metrics of a model's predictions for n people, k labels and d dimensions.

    Args:
        labels: (n, k) true labels, 0 or 1.
        probabilities: (n, k) predicted probabilities, 0-1.
        thresholds: (k,) by kind: a label is predicted from this probability on; with nan it is predicted for no person.
        stream_probabilities: (n, k) for each stream with a head of its own; nan for a person without input for it.
        vad: (n, d) true ratings, nan where unknown.
        predicted_vad: (n, d) predicted ratings, nan throughout where the model does not predict them.
        groups: (n,) whether each person is in the group, by kind of group and name.
        photo: (n,) number of each person's photo; the bootstrap samples photos.
        bootstrap: Resamples of the intervals.
        progress: Advances by 1 when all people are evaluated and by 1 when the groups are.
    """
    overall = measure_precision(labels, probabilities, photo, bootstrap)
    progress.advance()
    of_groups = {
        kind: {
            name: measure_precision(labels[chosen], probabilities[chosen], photo[chosen], bootstrap)
            for name, chosen in parts.items()
        }
        for kind, parts in groups.items()
    }
    progress.advance()
    return Evaluation(
        overall=overall,
        interpolated=interpolated_average_precision(labels, probabilities),
        roc_auc=roc_auc_scores(labels, probabilities),
        at_thresholds={
            kind: measure_at_thresholds(labels, probabilities, values) for kind, values in thresholds.items()
        },
        groups=of_groups,
        streams={name: _measure_stream(labels, values) for name, values in stream_probabilities.items()},
        vad=None if np.isnan(predicted_vad).all() else measure_vad(vad, predicted_vad),
    )


def measure_precision(
    labels: NDArray[np.uint8],
    probabilities: NDArray[np.float32],
    photo: NDArray[np.int64] | None = None,
    bootstrap: Bootstrap = NO_BOOTSTRAP,
) -> PrecisionMetrics:
    """Computes the average precision of each label, its mean, and the bootstrap intervals of both.

    Args:
        labels: (n, k) true labels, 0 or 1.
        probabilities: (n, k) predicted probabilities.
        photo: (n,) number of each person's photo; None if each person has another one.
        bootstrap: Resamples of the intervals; with none the intervals are nan.

    Example:
        >>> measure_precision(np.array([[1], [0], [1]]), np.array([[0.9], [0.8], [0.7]])).average_precision.round(4)
        array([0.8333])
    """
    precision = average_precision(labels, probabilities)
    resampled = bootstrap.resample(labels, probabilities, photo)
    mean = mean_average_precision(precision)
    return PrecisionMetrics(
        n_people=len(labels),
        average_precision=precision,
        prevalence=labels.sum(axis=0) / len(labels) if len(labels) else np.full(labels.shape[1], np.nan),
        interval=basic_interval(precision, resampled, INTERVAL_LEVEL).clip(0, 1),
        mean_interval=basic_interval(mean, mean_over_labels(resampled), INTERVAL_LEVEL).clip(0, 1),
    )


def measure_at_thresholds(
    labels: NDArray[np.uint8], probabilities: NDArray[np.float32], thresholds: Float64Array
) -> ThresholdMetrics:
    """Computes precision, recall, F1, Jaccard index and Hamming loss of the labels predicted at given thresholds.

    Args:
        labels: (n, k) true labels, 0 or 1.
        probabilities: (n, k) predicted probabilities.
        thresholds: (k,) a label is predicted from this probability on; with nan it is predicted for no person.
    """
    predicted = predict_labels(probabilities, thresholds)
    n_with_label, n_predicted = labels.sum(axis=0).astype(np.int64), predicted.sum(axis=0)
    n_right = (labels.astype(bool) & predicted).sum(axis=0)
    return ThresholdMetrics(
        n_with_label=n_with_label,
        n_predicted=n_predicted,
        precision=_divide(n_right, n_predicted),
        recall=_divide(n_right, n_with_label),
        f1=f1_scores(labels, predicted),
        jaccard=jaccard_indices(labels, predicted),
        micro_f1=micro_f1_score(labels, predicted),
        hamming_loss=hamming_loss(labels, predicted),
    )


def measure_difference(
    labels: NDArray[np.uint8],
    first: NDArray[np.float32],
    second: NDArray[np.float32],
    photo: NDArray[np.int64],
    bootstrap: Bootstrap,
) -> PrecisionDifference:
    """Computes the difference of two models' mean average precision on the same people, with a paired bootstrap.

    Args:
        labels: (n, k) true labels, 0 or 1.
        first: (n, k) probabilities of the first model.
        second: (n, k) probabilities of the second model.
        photo: (n,) number of each person's photo.
        bootstrap: Resamples of the interval, the same for both models.
    """
    models = (first, second)
    values = [mean_average_precision(average_precision(labels, scores)) for scores in models]
    resampled = [mean_over_labels(bootstrap.resample(labels, scores, photo)) for scores in models]
    differences = resampled[1] - resampled[0]
    defined = differences[np.isfinite(differences)]
    return PrecisionDifference(
        value=values[1] - values[0],
        interval=basic_interval(values[1] - values[0], differences, INTERVAL_LEVEL),
        share_above_zero=float(np.mean(defined > 0)) if len(defined) else float("nan"),
    )


def _measure_stream(labels: NDArray[np.uint8], probabilities: NDArray[np.float32]) -> PrecisionMetrics:
    has_input = np.isfinite(probabilities).all(axis=1)
    return measure_precision(labels[has_input], probabilities[has_input])


def _divide(part: NDArray[np.int64], whole: NDArray[np.int64]) -> Float64Array:
    shares: Float64Array = np.divide(part, whole, out=np.full(len(whole), np.nan), where=whole > 0)
    return shares
