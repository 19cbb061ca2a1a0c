"""How well single annotators agree with the other annotators of the same person: what a model can hope for at best."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from emoface.metrics.multilabel import mean_average_precision, mean_of_defined
from emoface.vision.arrays import Float64Array


@dataclass(frozen=True)
class AnnotatorAgreement:
    """Metrics of one annotator against the union of the others, for people with two annotators or more.

    Attributes:
        n_people: Number of people with two annotators or more.
        mean_annotators: Mean number of annotators of these people; nan without people.
        average_precision: (k,) of the annotator's yes or no as a score; nan for a label that no other annotator chose.
        prevalence: (k,) share of the cases in which the others chose the label: the chance level.
        mean_jaccard: Mean Jaccard index; nan without people.
    """

    n_people: int
    mean_annotators: float
    average_precision: Float64Array
    prevalence: Float64Array
    mean_jaccard: float

    @property
    def mean_average_precision(self) -> float:
        """The mean average precision over the labels where it is defined."""
        return mean_average_precision(self.average_precision)

    @property
    def mean_prevalence(self) -> float:
        """The mean prevalence of the labels whose average precision is defined."""
        return mean_of_defined(np.where(np.isfinite(self.average_precision), self.prevalence, np.nan))


def measure_annotators(votes: NDArray[np.integer], n_annotators: NDArray[np.integer]) -> AnnotatorAgreement:
    """Measures each annotator of a person as if they were a model, against the union of the person's other annotators.

    Every annotator of a person takes a turn, and each person counts once, whatever their number of annotators. The
    numbers of votes are enough for this, it need not be known who chose what: of a label with v votes of n annotators,
    v of the n turns have it chosen, and true if v is 2 or more; the other n - v turns have it not chosen, and true if v
    is 1 or more. Likewise the labels chosen by the one or by the others are always all labels with a vote, and those
    chosen by both are, summed over the turns, v for each label with 2 votes or more.

    Args:
        votes: (n, k) number of annotators who chose each label.
        n_annotators: (n,) number of annotators of each person; people with fewer than two are left out.

    Example:
        >>> measure_annotators(np.array([[2, 1, 0], [1, 1, 0]]), np.array([2, 2])).mean_jaccard
        0.25
    """
    from sklearn.metrics import average_precision_score

    kept = n_annotators >= 2
    counts, n = votes[kept].astype(np.int64), n_annotators[kept].astype(np.int64)
    chosen = counts / n[:, None]
    weight = np.concatenate([chosen, 1 - chosen])
    truth = np.concatenate([counts >= 2, counts >= 1])
    score = np.concatenate([np.ones(len(n)), np.zeros(len(n))])
    n_labels = votes.shape[1]
    precision = [
        average_precision_score(truth[:, k], score, sample_weight=weight[:, k])
        if (weight[:, k] * truth[:, k]).any()
        else np.nan
        for k in range(n_labels)
    ]
    n_any = (counts >= 1).sum(axis=1)
    agreed = np.where(counts >= 2, chosen, 0).sum(axis=1)
    jaccard = np.divide(agreed, n_any, out=np.full(len(n), np.nan), where=n_any > 0)
    return AnnotatorAgreement(
        n_people=len(n),
        mean_annotators=mean_of_defined(n),
        average_precision=np.array(precision, np.float64),
        prevalence=(weight * truth).sum(axis=0) / len(n) if len(n) else np.full(n_labels, np.nan),
        mean_jaccard=mean_of_defined(jaccard),
    )


def krippendorff_alpha(votes: NDArray[np.integer], n_annotators: NDArray[np.integer]) -> Float64Array:
    """Computes Krippendorff's alpha of each label, for the yes or no of every annotator (nominal, two values).

    ``alpha = 1 - observed / expected`` disagreement. With v of a person's m annotators for a label, the observed part
    is ``sum 2 v (m - v) / (m - 1)`` over the people, and the expected part is ``2 n1 n0 / (n - 1)``, where n1 and n0
    are the numbers of all yes and all no, and n is their sum. People with fewer than two annotators are left out.

    Args:
        votes: (n, k) number of annotators who chose each label.
        n_annotators: (n,) number of annotators of each person.

    Returns:
        (k,), 1 where all agree, 0 where annotators agree as often as by chance, below 0 where they agree less; nan
        where nobody or everybody chose the label, because there is nothing to disagree about.

    Source: Krippendorff, "Computing Krippendorff's Alpha-Reliability", 2011, sections A and D; the example is its data
    of section A, two observers and ten cases.

    Example:
        >>> meg, owen = [0, 1, 0, 0, 0, 0, 0, 0, 1, 0], [1, 1, 1, 0, 0, 1, 0, 0, 0, 0]
        >>> votes = np.add(meg, owen)[:, None]
        >>> krippendorff_alpha(votes, np.full(10, 2)).round(3).tolist()
        [0.095]
    """
    kept = n_annotators >= 2
    counts, n = votes[kept].astype(np.float64), n_annotators[kept].astype(np.float64)[:, None]
    observed = (2 * counts * (n - counts) / (n - 1)).sum(axis=0)
    n_yes, n_all = counts.sum(axis=0), n.sum()
    expected = 2 * n_yes * (n_all - n_yes) / max(n_all - 1, 1)
    ratio = np.divide(observed, expected, out=np.full(len(expected), np.nan), where=expected > 0)
    return np.asarray(1 - ratio, np.float64)
