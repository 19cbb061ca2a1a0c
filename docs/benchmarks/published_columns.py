"""Checks on which of EMOTIC's splits a published column was measured, and converts it to other people.

    python docs/benchmarks/published_columns.py
    python docs/benchmarks/published_columns.py --annotations DIR

DIR holds ``train.csv``, ``val.csv`` and ``test.csv``, or ``Annotations.mat``; without it the label counts of the rows
that circulate as CSV are taken, which ``manifests/emotic.toml`` has. Prints Markdown tables.

The check: a label that everybody gets the same score for has an average precision equal to its prevalence, and even
the worst possible ranking has an average precision above 0. So a column of a model that learned anything is above the
prevalences of the people it was measured on, and a value below that of the worst ranking cannot be of these people.
Among splits that this leaves, the column's logits correlate most with those of the prevalences of its own.

The conversion: per label, scores of people with and without the label are normal with the same variance (equal-variance
binormal model), the distance of the means is fitted to the published average precision, and average precision is
computed at the prevalence of the other people.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import scipy.optimize
import scipy.special
import scipy.stats
from numpy.typing import NDArray

from emoface.emotic import correct_person, find_annotations, read_annotations
from emoface.emotic.split_counts import emotic_label_counts, emotic_people
from emoface.errors import AnnotationsError
from emoface.reporting.published import PublishedResult, read_published_results
from emoface.schema import CATEGORIES, SPLITS

MARGIN = 0.5
"""Percentage points below prevalence from which a label counts as below."""

EVALUATED = ("val", "test")
POOLED = "all people"
_MAX_DISTANCE = 12.0


@dataclass(frozen=True)
class SplitLabels:
    """The labels of the people of one split.

    Attributes:
        n_people: Number of people.
        counts: (26,) number of people with each label.
    """

    n_people: int
    counts: NDArray[np.int64]

    @property
    def prevalence(self) -> NDArray[np.float64]:
        """(26,) share of people with each label, 0-1."""
        return self.counts / self.n_people


@dataclass(frozen=True)
class ColumnCheck:
    """How a published column fits the people of a split.

    Attributes:
        n_below_prevalence: Number of labels whose average precision is below prevalence by more than ``MARGIN`` points.
        n_impossible: Number of labels whose average precision is below that of the worst possible ranking.
        correlation: Pearson's correlation of the logits of the average precisions with those of the prevalences.
        furthest_label: The label whose average precision is furthest from its prevalence.
        furthest: How far that is, in percentage points.
    """

    n_below_prevalence: int
    n_impossible: int
    correlation: float
    furthest_label: str
    furthest: float


def read_stored_labels() -> dict[str, SplitLabels]:
    """The labels of each split as ``manifests/emotic.toml`` counts them."""
    return {split: SplitLabels(emotic_people(split), emotic_label_counts(split)) for split in SPLITS}


def count_labels(annotations: Path) -> dict[str, SplitLabels]:
    """Counts the labels of each split in annotation files.

    Args:
        annotations: A file or folder of EMOTIC's annotations.

    Raises:
        AnnotationsError: There are no annotations, they cannot be read, or a split has no people.
    """
    counts = {split: np.zeros(len(CATEGORIES), np.int64) for split in SPLITS}
    n_people = dict.fromkeys(SPLITS, 0)
    for photo in read_annotations(find_annotations(annotations, annotations)):
        for person in photo.people:
            corrected, _ = correct_person(person, photo.filename, photo.image_wh)
            counts[photo.source_split] += np.asarray(corrected.labels, np.int64)
            n_people[photo.source_split] += 1
    if missing := [split for split in SPLITS if not n_people[split]]:
        raise AnnotationsError(f"{annotations}: no people of {', '.join(missing)}; expected all three splits of EMOTIC")
    return {split: SplitLabels(n_people[split], counts[split]) for split in SPLITS}


def pool_labels(splits: dict[str, SplitLabels]) -> SplitLabels:
    """All people together, whose prevalences a stratified split has."""
    return SplitLabels(sum(one.n_people for one in splits.values()), sum(one.counts for one in splits.values()))


def lowest_average_precision(n_with_label: int, n_people: int) -> float:
    """Average precision of the worst possible ranking: everybody without the label first.

    Args:
        n_with_label: Number of people with the label, 1 or more.
        n_people: Number of all people.

    Returns:
        0-1. Of two people, one with the label, it is 1/2.
    """
    ranks = np.arange(1, n_with_label + 1)
    return float(np.mean(ranks / (n_people - n_with_label + ranks)))


def check_column(average_precision: NDArray[np.float64], labels: SplitLabels) -> ColumnCheck:
    """Compares a published column with the labels of a split.

    Args:
        average_precision: (26,) in percent.
        labels: The labels of the split.
    """
    prevalence = 100 * labels.prevalence
    lowest = [100 * lowest_average_precision(int(count), labels.n_people) for count in labels.counts]
    distances = np.abs(average_precision - prevalence)
    furthest = int(distances.argmax())
    logits = scipy.special.logit(np.stack([average_precision, prevalence]) / 100)
    return ColumnCheck(
        n_below_prevalence=int((average_precision < prevalence - MARGIN).sum()),
        n_impossible=int((average_precision < lowest).sum()),
        correlation=float(np.corrcoef(logits)[0, 1]),
        furthest_label=CATEGORIES[furthest],
        furthest=float(distances[furthest]),
    )


def binormal_average_precision(distance: float, prevalence: float) -> float:
    """Average precision where scores are normal with variance 1 and the means of the two groups differ.

    Args:
        distance: Mean score of people with the label, minus that of people without.
        prevalence: Share of people with the label, 0-1.

    Returns:
        0-1; the prevalence for a distance of 0.
    """
    thresholds = np.linspace(min(0.0, distance) - 9, max(0.0, distance) + 9, 8001)
    found = prevalence * scipy.stats.norm.sf(thresholds - distance)
    wrong = (1 - prevalence) * scipy.stats.norm.sf(thresholds)
    density = scipy.stats.norm.pdf(thresholds - distance)
    return float(np.trapezoid(density * found / (found + wrong), thresholds))


def convert_average_precision(average_precision: float, prevalence: float, to_prevalence: float) -> float:
    """What an average precision at one prevalence is worth at another by the equal-variance binormal model.

    Args:
        average_precision: 0-1, at ``prevalence``.
        prevalence: Share of people with the label where it was measured.
        to_prevalence: Share of people with the label elsewhere.

    Returns:
        0-1; nan for an average precision that no distance of the two groups gives.
    """

    def excess(distance: float) -> float:
        return binormal_average_precision(distance, prevalence) - average_precision

    if excess(-_MAX_DISTANCE) * excess(_MAX_DISTANCE) > 0:
        return float("nan")
    distance = scipy.optimize.brentq(excess, -_MAX_DISTANCE, _MAX_DISTANCE)
    return binormal_average_precision(distance, to_prevalence)


def convert_column(
    average_precision: NDArray[np.float64], measured_on: SplitLabels, to: SplitLabels
) -> NDArray[np.float64]:
    """Converts a published column to other people.

    Args:
        average_precision: (26,) in percent.
        measured_on: The labels of the people of the column.
        to: The labels of other people.

    Returns:
        (26,) in percent; nan where the model fits no average precision.
    """
    rows = zip(average_precision / 100, measured_on.prevalence, to.prevalence, strict=True)
    return np.array([100 * convert_average_precision(*row) for row in rows])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--annotations", type=Path, help="folder or file of EMOTIC's annotations")
    options = parser.parse_args()
    splits = read_stored_labels() if options.annotations is None else count_labels(options.annotations)
    columns = [result for result in read_published_results() if result.average_precision is not None]
    print_chance({**splits, POOLED: pool_labels(splits)})
    print_checks(columns, splits)
    print_conversions(columns, splits)


def print_chance(splits: dict[str, SplitLabels]) -> None:
    print("\n| people | number | labels a person | mAP of guessing |\n|---|---:|---:|---:|")
    for name, one in splits.items():
        print(f"| {name} | {one.n_people:,} | {one.prevalence.sum():.2f} | {100 * one.prevalence.mean():.2f} |")


def print_checks(columns: list[PublishedResult], splits: dict[str, SplitLabels]) -> None:
    print("\n| column | mAP | below prevalence: val / test | impossible: val / test | correlation: val / test | val |")
    print("|---|---:|---|---|---|---|")
    for result in columns:
        val, test = (check_column(_values(result), splits[split]) for split in EVALUATED)
        print(
            f"| {result.name} | {result.mean_average_precision:.2f} "
            f"| {val.n_below_prevalence} / {test.n_below_prevalence} | {val.n_impossible} / {test.n_impossible} "
            f"| {val.correlation:.3f} / {test.correlation:.3f} | {val.furthest_label} {val.furthest:.1f} points off |"
        )


def print_conversions(columns: list[PublishedResult], splits: dict[str, SplitLabels]) -> None:
    people = {**splits, POOLED: pool_labels(splits)}
    names = (*EVALUATED, POOLED)
    print(f"\n| column | measured on | {' | '.join(names)} |\n|---|---|{'---:|' * len(names)}")
    for result in columns:
        if result.split == "unknown":
            continue
        means = [convert_column(_values(result), people[result.split], people[name]).mean() for name in names]
        print(f"| {result.name} | {result.split} | {' | '.join(f'{mean:.1f}' for mean in means)} |")


def _values(result: PublishedResult) -> NDArray[np.float64]:
    if result.average_precision is None:
        raise ValueError(f"{result.name} is not published per label")
    return np.array([result.average_precision[name] for name in CATEGORIES])


if __name__ == "__main__":
    main()
