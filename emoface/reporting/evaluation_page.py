"""Writes the files of an evaluation that people look at: charts, the table per label and one page."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from emoface.metrics.multilabel import precision_recall_curve
from emoface.reporting.charts import Bars, write_precision_bars, write_precision_recall
from emoface.reporting.csv_files import csv_text, to_percent
from emoface.reporting.pages import format_count, format_number, format_percent, render_page, svg_address
from emoface.reporting.published import PublishedResult, choose_shown
from emoface.schema import CATEGORIES
from emoface.storage.files import write_text

TEMPLATE = "evaluation.html.j2"

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
    for k, name in enumerate(CATEGORIES):
        curve = precision_recall_curve(labels[:, k], probabilities[:, k])
        curves[name] = (curve.recall, curve.precision)
        value = per_label[name]["average_precision"]
        captions[name] = "undefined" if value is None else f"AP {_format_percent(value)}"
    prevalence = {name: values["prevalence"] for name, values in per_label.items()}
    return [
        *write_precision_bars(out / "average_precision", title, CATEGORIES, {metrics["model"]: bars}),
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
            *(values["threshold"], values["f1"]),
            *(to_percent(one["average_precision"][name]) for one in metrics["streams"].values()),
            *(column[name] for _, column in published),
        ]
        for name, values in metrics["per_label"].items()
    ]
    means = (metrics["mean_average_precision"], *metrics["interval"], metrics["mean_prevalence"])
    rows.append(
        [
            *("mean", metrics["people"]["evaluated"], *map(to_percent, means), None, metrics["mean_f1"]),
            *(to_percent(one["mean_average_precision"]) for one in metrics["streams"].values()),
            *(result.mean_average_precision for result, _ in published),
        ]
    )
    write_text(
        path,
        csv_text(
            ["label", "people", *percents, "threshold", "f1", *heads, *(result.name for result, _ in published)], rows
        ),
    )


def write_evaluation_page(path: Path, metrics: Mapping[str, Any], charts: list[Path]) -> None:
    """Writes the page of an evaluation.

    Args:
        path: File to write.
        metrics: The content of ``metrics.json``.
        charts: The files that ``write_evaluation_charts`` wrote; the SVG files are embedded in the page.
    """
    page = render_page(
        TEMPLATE,
        {"percent": _format_percent, "count": format_count, "number": format_number},
        metrics=metrics,
        published=choose_shown(metrics["published"]),
        columns=_published_columns(metrics),
        pictures={chart.stem: svg_address(chart) for chart in charts if chart.suffix == ".svg"},
        order=sorted(CATEGORIES, key=lambda name: -(metrics["per_label"][name]["average_precision"] or 0)),
    )
    write_text(path, page)


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
