"""Writes the files of an evaluation that people look at: charts, the table per label and one page."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from emoface.metrics.multilabel import precision_recall_curve
from emoface.reporting.charts import Bars, write_precision_bars, write_precision_recall
from emoface.reporting.pages import (
    format_count,
    format_number,
    format_percent,
    format_signed_percent,
    render_page,
    svg_address,
    to_percent,
)
from emoface.reporting.published import PublishedResult, choose_shown
from emoface.schema import DIMENSIONS
from emoface.storage.csv_files import csv_text
from emoface.storage.files import write_text

TEMPLATE = "evaluation.html.j2"

_MOST_NAMED = 6

_format_percent = partial(format_percent, undefined="undefined")


def write_evaluation_charts(
    out: Path, metrics: Mapping[str, Any], labels: NDArray[np.uint8], probabilities: NDArray[np.float32]
) -> list[Path]:
    """Draws average precision per label, and precision-recall curves.

    Args:
        out: Folder to write to.
        metrics: The content of ``metrics.json``.
        labels: (n, 26) true labels, 0 or 1.
        probabilities: (n, 26) predicted probabilities.

    Returns:
        The files written: ``average_precision`` and ``precision_recall``, each as PNG and SVG.
    """
    per_label = metrics["per_label"]
    title = f"{metrics['model']} on {metrics['split']}: mAP {_format_percent(metrics['mean_average_precision'])}"
    bars = Bars(*(_numbers([one(values) for values in per_label.values()]) for one in _BAR_PARTS))
    curves, captions = {}, {}
    for k, name in enumerate(per_label):
        curve = precision_recall_curve(labels[:, k], probabilities[:, k])
        curves[name] = (curve.recall, curve.precision)
        value = per_label[name]["average_precision"]
        captions[name] = "undefined" if value is None else f"AP {_format_percent(value)}"
    prevalence = {name: values["prevalence"] for name, values in per_label.items()}
    return [
        *write_precision_bars(out / "average_precision", title, list(per_label), {metrics["model"]: bars}),
        *write_precision_recall(out / "precision_recall", title, curves, captions, prevalence),
    ]


def write_evaluation_table(path: Path, metrics: Mapping[str, Any]) -> None:
    """Writes a CSV file with one row per label and one for the mean; in percent where published results are.

    Published results on the same people are the last columns.

    Args:
        path: File to write.
        metrics: The content of ``metrics.json``.
    """
    published = _published_columns(metrics)
    percents = ("average_precision_percent", "low_percent", "high_percent", "prevalence_percent")
    heads = (f"{stream}_head_percent" for stream in metrics["streams"])
    rows = [
        [
            *(name, values["people"]),
            *map(to_percent, (values["average_precision"], *values["interval"], values["prevalence"])),
            *(values["threshold"], values["f1"], values["break_even"]["threshold"], values["break_even"]["f1"]),
            *map(to_percent, (values["lift"], values["interpolated_average_precision"])),
            values["roc_auc"],
            *(to_percent(one["average_precision"][name]) for one in metrics["streams"].values()),
            *(column[name] for _, column in published),
        ]
        for name, values in metrics["per_label"].items()
    ]
    means = (metrics["mean_average_precision"], *metrics["interval"], metrics["mean_prevalence"])
    rows.append(
        [
            *("mean", metrics["people"]["evaluated"], *map(to_percent, means), None, metrics["mean_f1"]),
            *(None, metrics["break_even"]["mean_f1"]),
            *map(to_percent, (metrics["lift"], metrics["mean_interpolated_average_precision"])),
            metrics["mean_roc_auc"],
            *(to_percent(one["mean_average_precision"]) for one in metrics["streams"].values()),
            *(result.mean_average_precision for result, _ in published),
        ]
    )
    more = ("break_even_threshold", "break_even_f1", "lift_percent", "interpolated_percent", "roc_auc")
    names = (result.name for result, _ in published)
    write_text(path, csv_text(["label", "people", *percents, "threshold", "f1", *more, *heads, *names], rows))


def write_evaluation_page(path: Path, metrics: Mapping[str, Any], charts: list[Path]) -> None:
    """Writes the page of an evaluation.

    Args:
        path: File to write.
        metrics: The content of ``metrics.json``.
        charts: The files that ``write_evaluation_charts`` wrote; the SVG files are embedded in the page.
    """
    page = render_page(
        TEMPLATE,
        {
            "percent": _format_percent,
            "count": format_count,
            "number": format_number,
            "signed": format_signed_percent,
        },
        metrics=metrics,
        rows=_metric_rows(metrics),
        initial_weights=describe_initial_weights(metrics["initial_weights"]),
        published=choose_shown(metrics["published"]),
        columns=_published_columns(metrics),
        pictures={chart.stem: svg_address(chart) for chart in charts if chart.suffix == ".svg"},
        order=sorted(metrics["per_label"], key=lambda name: -(metrics["per_label"][name]["average_precision"] or 0)),
    )
    write_text(path, page)


def describe_initial_weights(initial: Mapping[str, Any] | None) -> str:
    """Says in one sentence what a training started from.

    Args:
        initial: ``initial_weights`` of ``metrics.json``; None where it is unknown.

    Example:
        >>> face = {"source": "mobilenet_v2.pth", "sha256": "7ebf99e0c5ad"}
        >>> describe_initial_weights({"streams": {"face": face, "context": {"source": None, "sha256": None}}})
        'The training started from pretrained weights: face from mobilenet_v2.pth; randomly initialised: context.'
    """
    if initial is None:
        return "What the training started from is not known."
    streams = initial["streams"]
    taken = [f"{name} from {one['source']}" for name, one in streams.items() if one["source"]]
    random = ", ".join(name for name, one in streams.items() if not one["source"])
    if not taken:
        return f"The training started from randomly initialised weights, without pretrained ones: {random}."
    beside = f"; randomly initialised: {random}" if random else ""
    return f"The training started from pretrained weights: {', '.join(taken)}{beside}."


@dataclass(frozen=True)
class _MetricRow:
    """A row of the table of metrics: texts as they are shown."""

    name: str
    value: str
    chance: str
    constant: str
    annotator: str = ""


def _metric_rows(metrics: Mapping[str, Any]) -> list[_MetricRow]:
    """Rows of all metrics over all labels, each beside its chance level and the prediction that has it."""
    chance, annotators = metrics["chance"], metrics["annotators"]
    same = "the same score for everybody"
    percents = (
        ("mAP, scikit-learn's AP, %", "mean_average_precision", annotators["mean_average_precision"]),
        ("mAP, 11-point AP, %", "mean_interpolated_average_precision", None),
    )
    rows = [
        _MetricRow(name, _format_percent(metrics[key]), _format_percent(chance[key]), same, _or_empty(one, 100, 1))
        for name, key, one in percents
    ]
    rows.append(
        _MetricRow("mean ROC-AUC", format_number(metrics["mean_roc_auc"], 3), f"{chance['mean_roc_auc']:.3f}", same)
    )
    if metrics["thresholds"] is not None:
        for kind, at in (("best F1", metrics), ("precision = recall", metrics["break_even"])):
            rows += _threshold_rows(kind, at, chance, annotators)
    if metrics["average_absolute_error"] is not None:
        rows += _vad_rows(metrics, chance)
    return rows


def _threshold_rows(
    kind: str, at: Mapping[str, Any], chance: Mapping[str, Any], annotators: Mapping[str, Any]
) -> list[_MetricRow]:
    values = (
        ("Jaccard index", "jaccard", at["jaccard"]["mean"], annotators["jaccard"]),
        ("macro F1", "mean_f1", at["mean_f1"], None),
        ("micro F1", "micro_f1", at["micro_f1"], None),
        ("Hamming loss", "hamming_loss", at["hamming_loss"], None),
    )
    return [
        _MetricRow(
            f"{name}, {kind}",
            format_number(value, 3),
            format_number(chance[key]["value"], 3),
            _name_constant(chance[key]["always"]),
            _or_empty(annotator, 1, 3),
        )
        for name, key, value, annotator in values
    ]


def _vad_rows(metrics: Mapping[str, Any], chance: Mapping[str, Any]) -> list[_MetricRow]:
    names = {
        "average_absolute_error": "average absolute error",
        "root_mean_squared_error": "root mean squared error",
        "concordance_correlation": "concordance correlation",
    }
    means = ", ".join(format_number(value, 2) for value in chance["mean_vad_of_train"].values())
    return [
        _MetricRow(
            f"{name}, {dimension}",
            format_number(metrics[key][dimension], 3),
            format_number(chance[key][dimension], 3),
            f"the mean of train: {means}",
        )
        for key, name in names.items()
        for dimension in (*DIMENSIONS, "mean")
    ]


def _name_constant(always: list[str]) -> str:
    if not always:
        return "no label for anybody"
    if len(always) > _MOST_NAMED:
        return f"the {len(always)} most frequent labels of train for everybody"
    return f"for everybody: {', '.join(always)}"


def _or_empty(value: float | None, factor: float, digits: int) -> str:
    return "" if value is None else f"{factor * value:.{digits}f}"


_BAR_PARTS: tuple[Callable[[Mapping[str, Any]], float | None], ...] = (
    lambda values: values["average_precision"],
    lambda values: values["interval"][0],
    lambda values: values["interval"][1],
)


def _numbers(values: list[float | None]) -> NDArray[np.float64]:
    return np.array([np.nan if value is None else value for value in values], np.float64)


def _published_columns(metrics: Mapping[str, Any]) -> list[tuple[PublishedResult, dict[str, float]]]:
    """The published results on the same people that are published per label, with these values, in percent."""
    shown = choose_shown(metrics["published"])
    return [(result, result.average_precision) for result in shown if result.average_precision is not None]
