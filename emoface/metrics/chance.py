"""Chance levels: what a constant prediction reaches that knows train alone and never looks at a person.

A metric says little without them. The chance level of average precision is the label's prevalence among the people who
are evaluated, because a score that is the same for everybody has exactly that average precision; that of ROC-AUC is
0.5. For metrics of predicted labels the constant prediction is the k most frequent labels of train, with the k that is
best for the same metric on train; for valence, arousal and dominance it is the mean of train.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from emoface.metrics.multilabel import f1_scores, hamming_loss, jaccard_indices, mean_of_defined, micro_f1_score
from emoface.metrics.vad import VadErrors, measure_vad
from emoface.vision.arrays import Float64Array

ROC_AUC_CHANCE = 0.5
"""ROC-AUC of a score that is the same for everybody."""


@dataclass(frozen=True)
class ConstantLabels:
    """A metric of predicting the same labels for everybody.

    Attributes:
        labels: Positions of the predicted labels, the most frequent of train first.
        value: The metric on the evaluated people; nan where undefined.
    """

    labels: tuple[int, ...]
    value: float


@dataclass(frozen=True)
class ChanceLevels:
    """Chance levels of the metrics that need train, for n evaluated people and k labels.

    Attributes:
        n_train: Number of people of train.
        mean_jaccard: Of the mean Jaccard index over people.
        mean_f1: Of the mean F1 score over labels (macro F1).
        micro_f1: Of the F1 score over all pairs of a person and a label.
        hamming_loss: Of the Hamming loss.
        vad_means: (3,) mean valence, arousal and dominance of train; nan where train has none.
        vad: Metrics of predicting ``vad_means`` for everybody.
    """

    n_train: int
    mean_jaccard: ConstantLabels
    mean_f1: ConstantLabels
    micro_f1: ConstantLabels
    hamming_loss: ConstantLabels
    vad_means: Float64Array
    vad: VadErrors


LabelMetric = Callable[[NDArray[np.uint8], NDArray[np.bool_]], float]
"""A metric of true (n, k) and predicted (n, k) labels."""


def measure_chance(
    train_labels: NDArray[np.uint8],
    train_vad: NDArray[np.float32],
    labels: NDArray[np.uint8],
    vad: NDArray[np.float32],
) -> ChanceLevels:
    """Computes the chance levels of evaluated people from train.

    Args:
        train_labels: (m, k) labels of train, 0 or 1.
        train_vad: (m, 3) ratings of train, nan where unknown.
        labels: (n, k) true labels of the evaluated people.
        vad: (n, 3) true ratings of the evaluated people, nan where unknown.
    """
    means = np.array([mean_of_defined(column) for column in train_vad.T], np.float64)
    return ChanceLevels(
        n_train=len(train_labels),
        mean_jaccard=always_most_frequent(train_labels, labels, _mean_jaccard),
        mean_f1=_always_all(train_labels, labels),
        micro_f1=always_most_frequent(train_labels, labels, micro_f1_score),
        hamming_loss=always_most_frequent(train_labels, labels, hamming_loss, is_better=min),
        vad_means=means,
        vad=measure_vad(vad, np.tile(means, (len(vad), 1))),
    )


def always_most_frequent(
    train_labels: NDArray[np.uint8],
    labels: NDArray[np.uint8],
    metric: LabelMetric,
    is_better: Callable[..., float] = max,
) -> ConstantLabels:
    """Predicts the k most frequent labels of train for everybody, k being the best for a metric on train.

    Every k from 0 to the number of labels is tried on train; of equally good ones the smallest is taken, and of equally
    frequent labels the first. The evaluated people are not looked at. Train has one annotator for a person where
    EMOTIC's val and test unite several, so another k may be better there: a prediction must know them to use it.

    Args:
        train_labels: (m, k) labels of train, 0 or 1.
        labels: (n, k) true labels of the evaluated people.
        metric: The metric.
        is_better: ``max`` if a higher value is better, ``min`` if a lower one is.

    Example:
        >>> train = np.array([[1, 0, 1], [1, 0, 0], [1, 1, 0]], np.uint8)
        >>> always_most_frequent(train, np.array([[1, 1, 0]], np.uint8), micro_f1_score)
        ConstantLabels(labels=(0,), value=0.6666666666666666)
    """
    order = _by_frequency(train_labels)
    on_train = [metric(train_labels, _constant(train_labels, order[:k])) for k in range(len(order) + 1)]
    defined = [value for value in on_train if np.isfinite(value)]
    n_best = on_train.index(is_better(defined)) if defined else 0
    return ConstantLabels(tuple(order[:n_best]), metric(labels, _constant(labels, order[:n_best])))


def _always_all(train_labels: NDArray[np.uint8], labels: NDArray[np.uint8]) -> ConstantLabels:
    """Mean F1 of predicting every label that train has, which is the best k: another label never lowers the mean."""
    order = [k for k in _by_frequency(train_labels) if train_labels[:, k].any()]
    return ConstantLabels(tuple(order), mean_of_defined(f1_scores(labels, _constant(labels, order))))


def _by_frequency(train_labels: NDArray[np.uint8]) -> list[int]:
    counts = train_labels.sum(axis=0, dtype=np.int64)
    order: list[int] = np.argsort(-counts, kind="stable").tolist()
    return order


def _constant(labels: NDArray[np.uint8], chosen: list[int]) -> NDArray[np.bool_]:
    """(n, k) the same labels for everybody."""
    predicted = np.zeros(labels.shape, np.bool_)
    predicted[:, chosen] = True
    return predicted


def _mean_jaccard(labels: NDArray[np.uint8], predicted: NDArray[np.bool_]) -> float:
    return mean_of_defined(jaccard_indices(labels, predicted))
