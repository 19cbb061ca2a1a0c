"""Writes the files of an audit that people look at: label histograms, co-occurrence charts and one page."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from emoface.labels.stratification import MIN_PEOPLE
from emoface.reporting.charts import write_co_occurrence, write_label_histogram
from emoface.reporting.pages import (
    format_count,
    format_number,
    format_p_value,
    format_percent,
    format_share,
    format_signed_percent,
    render_page,
)
from emoface.schema import CATEGORIES, EMPTY_FACE_REASONS
from emoface.storage.csv_files import csv_text
from emoface.storage.files import write_text

TEMPLATE = "audit.html.j2"

BEFORE, AFTER = "EMOTIC", "EMOTIC_Face"
"""Names of the two groups of people that the audit compares: all annotated people, and those whose face was found."""

OWN_BEFORE, OWN_AFTER = "all people", "people with a face"
"""The same of a data set with labels of its own."""

_N_NOTES, _N_PAIRS = 12, 10
_EMPTY_MEANING = {
    "train": "No model can be trained on this data set.",
    "val": "Training can choose no epoch by it, and evaluation no thresholds.",
    "test": "No model can be evaluated on it.",
}


def name_groups(statistics: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yields name and label statistics of all people, then of those with a face if faces were searched for.

    Args:
        statistics: ``before`` and ``after`` of ``audit.json``.
    """
    before, after = _group_names(_label_names(statistics))
    yield before, statistics["before"]
    if statistics["after"] is not None:
        yield after, statistics["after"]


def _label_names(statistics: Mapping[str, Any]) -> tuple[str, ...]:
    """The labels of the data set, in their order."""
    return tuple(statistics["before"]["label_counts"])


def _group_names(label_names: tuple[str, ...]) -> tuple[str, str]:
    return (BEFORE, AFTER) if label_names == CATEGORIES else (OWN_BEFORE, OWN_AFTER)


def write_audit_figures(report_dir: Path, labels: dict[str, Any]) -> list[Path]:
    """Writes the label histograms and the co-occurrence of labels as PNG, SVG and CSV.

    Args:
        report_dir: Folder to write to.
        labels: ``labels`` of ``audit.json``.

    Returns:
        The files written.
    """
    names = _label_names(labels)
    paths = _write_histogram(report_dir / "label_histogram", "People per label", labels)
    for name, statistics in labels["splits"].items():
        paths += _write_histogram(report_dir / f"label_histogram_{name}", f"People per label, {name}", statistics)
    counts_of = {title: np.array(group["co_occurrence"]) for title, group in name_groups(labels)}
    title = "Share of the people with the row's label who also have the column's label"
    shares_of = {title: _co_occurrence_shares(counts) for title, counts in counts_of.items()}
    paths += write_co_occurrence(report_dir / "co_occurrence", title, names, shares_of)
    rows = [
        [label, other, *(counts[i, j] for counts in counts_of.values())]
        for i, label in enumerate(names)
        for j, other in enumerate(names)
    ]
    table_path = report_dir / "co_occurrence.csv"
    write_text(table_path, csv_text(["label", "other", *counts_of], rows))
    return [*paths, table_path]


def write_audit_page(
    path: Path, audit: Mapping[str, Any], sheets: Mapping[str, Any], notes: Sequence[Mapping[str, str]]
) -> None:
    """Writes the audit page.

    Args:
        path: File to write.
        audit: The content of ``audit.json``.
        sheets: The cards of the contact sheets, see ``auditing.sheets.draw_sheets``.
        notes: The rows of ``parse_notes.csv``.
    """
    labels = audit["labels"]
    has_faces = labels["after"] is not None and labels["after"]["people"] > 0
    judged = labels["after"] if has_faces else labels["before"]
    label_names = _label_names(labels)
    before_name, after_name = _group_names(label_names)
    page = render_page(
        TEMPLATE,
        {
            "count": format_count,
            "share": format_share,
            "number": format_number,
            "percent": format_percent,
            "points": format_signed_percent,
            "p_value": format_p_value,
        },
        audit=audit,
        labels=labels,
        is_emotic=label_names == CATEGORIES,
        before_name=before_name,
        after_name=after_name,
        judged=judged,
        judged_name=after_name if has_faces else before_name,
        order=_by_frequency(labels["before"]["label_counts"]),
        order_by_loss=_by_loss(audit["face_loss"], label_names),
        order_by_side=_by_side(audit["faces"], label_names),
        empty_meaning=_EMPTY_MEANING,
        heat=_co_occurrence_shares(np.array(judged["co_occurrence"])),
        pairs=_frequent_pairs(judged),
        reasons=EMPTY_FACE_REASONS,
        min_people=MIN_PEOPLE,
        sheets=sheets,
        notes=notes[:_N_NOTES],
    )
    write_text(path, page)


def _write_histogram(stem: Path, title: str, statistics: dict[str, Any]) -> list[Path]:
    """Draws labels by their frequency in EMOTIC, as in the thesis's figure 4-1; the CSV keeps the order of labels."""
    order = _by_frequency(statistics["before"]["label_counts"])
    groups = dict(name_groups(statistics))
    counts_of = {
        f"{name} · {group['people']:,} people": [group["label_counts"][label] for label in order]
        for name, group in groups.items()
    }
    paths = write_label_histogram(stem, title, order, counts_of)
    rows = ([label, *(group["label_counts"][label] for group in groups.values())] for label in _label_names(statistics))
    table_path = stem.with_name(f"{stem.name}.csv")
    write_text(table_path, csv_text(["label", *groups], rows))
    return [*paths, table_path]


def _by_frequency(counts: Mapping[str, int]) -> list[str]:
    return sorted(counts, key=lambda name: (-counts[name], name))


def _by_loss(face_loss: Mapping[str, Any] | None, label_names: tuple[str, ...]) -> list[str]:
    """The labels whose people lose their face most often first; labels without a comparison last."""
    if face_loss is None:
        return list(label_names)
    differences = {name: one["difference"] for name, one in face_loss["labels"].items()}
    return sorted(label_names, key=lambda name: (differences[name] is None, differences[name] or 0.0))


def _by_side(faces: Mapping[str, Any] | None, label_names: tuple[str, ...]) -> list[str]:
    """The labels with the smallest faces first; labels without faces last."""
    if faces is None:
        return list(label_names)
    medians = {name: one["median"] for name, one in faces["shorter_side_by_label"].items()}
    return sorted(label_names, key=lambda name: (medians[name] is None, medians[name] or 0.0))


def _co_occurrence_shares(counts: NDArray[np.int64]) -> NDArray[np.float64]:
    """(26, 26) shares of the people with the row's label who also have the column's label; nan on the diagonal."""
    people = np.diag(counts).astype(np.float64)
    shares = np.full(counts.shape, np.nan)
    np.divide(counts, people[:, None], out=shares, where=people[:, None] > 0)
    np.fill_diagonal(shares, np.nan)
    return shares


def _frequent_pairs(statistics: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The pairs of labels that most people have together, most frequent first."""
    counts, names = np.array(statistics["co_occurrence"]), list(statistics["label_counts"])
    pairs = [
        {
            "labels": (names[i], names[j]),
            "people": int(counts[i, j]),
            "share_of_rarer": counts[i, j] / min(counts[i, i], counts[j, j]),
        }
        for i, j in combinations(range(len(counts)), 2)
        if counts[i, j]
    ]
    return sorted(pairs, key=lambda pair: -pair["people"])[:_N_PAIRS]
