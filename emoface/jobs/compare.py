"""The compare job: several runs side by side: curves of training, average precision per label, differences of mAP.

It reads what the runs wrote and runs no network: the log of epochs, and the predictions of those that were evaluated.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import model_validator

from emoface.errors import SettingsError, TableError
from emoface.metrics.multilabel import (
    average_precision,
    bootstrap_average_precision,
    mean_average_precision,
    mean_over_labels,
    percentile_interval,
)
from emoface.mter.cost import measure_cost
from emoface.mter.networks import build_model
from emoface.mter.runs import LOG_NAME, RUN_NAME, Run, read_run
from emoface.progress import SILENT, Progress
from emoface.reporting.charts import Bars, write_precision_bars, write_training_curves
from emoface.reporting.pages import format_count, render_page, svg_address
from emoface.schema import CATEGORIES, N_CATEGORIES, PREDICTIONS_SCHEMA
from emoface.storage.files import file_sha256, write_text
from emoface.storage.records import JobRecord, code_fingerprint, hash_outputs, to_json_number, to_settings, write_record
from emoface.storage.settings import Count, Folder, Seed, Settings, Split
from emoface.storage.tables import read_table, vectors_to_array
from emoface.version import __version__

PAGE_NAME = "comparison.html"
INTERVAL_LEVEL = 0.95

_TEMPLATE = "comparison.html.j2"
_PREDICTIONS_NAME = "predictions.parquet"


class CompareConfig(Settings):
    """Settings of the compare job."""

    runs: tuple[Folder, ...]
    """Folders of two or more training runs; an unfinished run is compared as far as it came."""
    out: Folder | None = None
    """Folder for the comparison; by default the folder comparison beside the first run."""
    split: Split = "test"
    """Which split's predictions to compare."""
    draws: Count = 1000
    """Number of bootstrap resamples for the confidence intervals."""
    seed: Seed = 0
    """Seed of the bootstrap."""

    @model_validator(mode="after")
    def _check_runs(self) -> Self:
        if len(self.runs) < 2:
            raise SettingsError(f"runs are {len(self.runs)}, expected two or more to compare")
        return self

    @property
    def folder(self) -> Path:
        """Where the comparison goes."""
        return self.out or self.runs[0].parent / "comparison"


@dataclass(frozen=True)
class Scored:
    """A run's predictions of a split.

    Attributes:
        person_ids: Who, n of them.
        labels: (n, 26) 0 or 1.
        probabilities: (n, 26).
    """

    person_ids: list[str]
    labels: NDArray[np.uint8]
    probabilities: NDArray[np.float32]


def run_compare(config: CompareConfig, progress: Progress = SILENT) -> JobRecord:
    """Puts runs side by side.

    Args:
        config: Which runs.
        progress: Told of each step.

    Returns:
        The job's record. ``OUT/`` holds ``comparison.json``, ``runs.csv``, ``per_label.csv``, ``comparison.html`` and
        its charts.

    Raises:
        SettingsError: A folder is no run.
        TableError: Two runs give the same person different labels.
    """
    names = short_names(config.runs)
    runs = {name: read_run(path, needs_finished=False) for name, path in zip(names, config.runs, strict=True)}
    progress.start("compare", 4)
    scored = {name: one for name, run in runs.items() if (one := _read_scored(run, config.split)) is not None}
    for name in runs.keys() - scored.keys():
        progress.note(f"{runs[name].path}: not evaluated on {config.split}; 'emoface evaluate' adds its precision")
    drawn = {
        name: bootstrap_average_precision(one.labels, one.probabilities, config.draws, config.seed)
        for name, one in scored.items()
    }
    precision = {name: average_precision(one.labels, one.probabilities) for name, one in scored.items()}
    progress.advance()
    described = {
        name: _describe(run, scored.get(name), precision.get(name), drawn.get(name)) for name, run in runs.items()
    }
    comparison: dict[str, Any] = {
        "emoface_version": __version__,
        "split": config.split,
        "bootstrap": {"draws": config.draws, "seed": config.seed, "level": INTERVAL_LEVEL},
        "runs": described,
        "differences": [
            pair
            for first, second in combinations(scored, 2)
            if (pair := compare_pair(config, first, second, scored[first], scored[second])) is not None
        ],
    }
    progress.advance()
    outputs = _write_results(config, comparison, runs, precision, drawn)
    progress.advance()
    record = JobRecord(
        job="compare",
        settings=to_settings(config),
        inputs={str(path): file_sha256(path) for run in runs.values() for path in _inputs(run, config.split)},
        outputs=hash_outputs(config.folder, outputs),
        counts={name: _count(one) for name, one in comparison["runs"].items()},
        code=code_fingerprint(__name__),
    )
    write_record(config.folder, record)
    progress.advance()
    return record


def short_names(paths: Sequence[Path]) -> list[str]:
    """The folders' own names, with as much of what is above them as tells them apart.

    Example:
        >>> short_names([Path("a/mter2"), Path("b/mter2"), Path("a/task2")])
        ['a/mter2', 'b/mter2', 'task2']

    Raises:
        SettingsError: A folder is there twice.
    """
    resolved = [path.resolve() for path in paths]
    for path in resolved:
        if resolved.count(path) > 1:
            raise SettingsError(f"{path}: the same run twice; name each once")
    names = []
    for path in resolved:
        length = 1
        while sum(other.parts[-length:] == path.parts[-length:] for other in resolved) > 1:
            length += 1
        names.append("/".join(path.parts[-length:]))
    return names


def compare_pair(config: CompareConfig, first: str, second: str, one: Scored, other: Scored) -> dict[str, Any] | None:
    """The difference of two runs' mAP on the people that both predicted, by a paired bootstrap.

    Args:
        config: Draws and seed.
        first: Name of the one run.
        second: Name of the other.
        one: Its predictions.
        other: The other's.

    Returns:
        ``difference`` is the second's mAP minus the first's; None where they have no people in common.

    Raises:
        TableError: They give the same person different labels.
    """
    row_of = {person_id: row for row, person_id in enumerate(other.person_ids)}
    common = [(row, row_of[person_id]) for row, person_id in enumerate(one.person_ids) if person_id in row_of]
    if not common:
        return None
    rows, other_rows = (np.array(side) for side in zip(*common, strict=True))
    labels = one.labels[rows]
    differs = (labels != other.labels[other_rows]).any(axis=1)
    if differs.any():
        person_id = one.person_ids[int(rows[np.flatnonzero(differs)[0]])]
        raise TableError(
            f"{person_id} has other labels in {first} than in {second}; expected the same data set: evaluate both "
            "with the same --manifest"
        )
    sides = [one.probabilities[rows], other.probabilities[other_rows]]
    values = [mean_average_precision(average_precision(labels, side)) for side in sides]
    # The same seed and number of people draw the same people for both.
    draws = [mean_over_labels(bootstrap_average_precision(labels, side, config.draws, config.seed)) for side in sides]
    differences = draws[1] - draws[0]
    low, high = percentile_interval(differences, INTERVAL_LEVEL)
    return {
        "first": first,
        "second": second,
        "people": len(rows),
        "difference": to_json_number(values[1] - values[0]),
        "interval": [to_json_number(low), to_json_number(high)],
        "share_above_zero": to_json_number(float(np.mean(differences[np.isfinite(differences)] > 0))),
    }


def _read_scored(run: Run, split: str) -> Scored | None:
    path = _predictions_path(run, split)
    if not path.is_file():
        return None
    columns = ["person_id", "labels", "probabilities"]
    table = read_table(path, PREDICTIONS_SCHEMA, "delete it and run 'emoface evaluate' again", columns)
    return Scored(
        table["person_id"].to_pylist(),
        vectors_to_array(table["labels"], N_CATEGORIES).astype(np.uint8),
        vectors_to_array(table["probabilities"], N_CATEGORIES),
    )


def _predictions_path(run: Run, split: str) -> Path:
    return run.path / "eval" / split / _PREDICTIONS_NAME


def _inputs(run: Run, split: str) -> list[Path]:
    paths = [run.path / RUN_NAME, run.path / LOG_NAME, _predictions_path(run, split)]
    return [path for path in paths if path.is_file()]


def _describe(
    run: Run, scored: Scored | None, precision: NDArray[np.float64] | None, drawn: NDArray[np.float64] | None
) -> dict[str, Any]:
    """What a run is, costs and came to."""
    cost = measure_cost(build_model(run.model_name, predicts_vad=run.predicts_vad), run.stream_sizes)
    lines = run.log()
    known = [line for line in lines if line["val_map"] is not None]
    best = max(known, key=lambda line: float(line["val_map"])) if known else None
    described: dict[str, Any] = {
        "model": run.model_name,
        "path": str(run.path),
        "is_finished": run.is_finished,
        "has_shuffled_labels": run.has_shuffled_labels,
        "epochs": len(lines),
        "seconds": to_json_number(sum(line["seconds"] for line in lines)) if lines else None,
        "loss": run.settings["recipe"]["loss"],
        "n_parameters": cost.n_parameters,
        "n_macs": cost.n_macs,
        "best_epoch": None if best is None else best["epoch"],
        "best_val_map": None if best is None else best["val_map"],
        "people": None if scored is None else len(scored.person_ids),
        "mean_average_precision": None,
        "interval": [None, None],
        "labels_defined": None,
        "average_precision": None,
    }
    if precision is not None and drawn is not None:
        interval = percentile_interval(mean_over_labels(drawn), INTERVAL_LEVEL)
        described |= {
            "mean_average_precision": to_json_number(mean_average_precision(precision)),
            "interval": [to_json_number(value) for value in interval],
            "labels_defined": int(np.isfinite(precision).sum()),
            "average_precision": {
                name: to_json_number(value) for name, value in zip(CATEGORIES, precision, strict=True)
            },
        }
    return described


def _write_results(
    config: CompareConfig,
    comparison: dict[str, Any],
    runs: Mapping[str, Run],
    precision: Mapping[str, NDArray[np.float64]],
    drawn: Mapping[str, NDArray[np.float64]],
) -> list[Path]:
    out = config.folder
    charts = _write_curves(out, runs)
    if precision:
        bars = {}
        for name, values in precision.items():
            low, high = percentile_interval(drawn[name], INTERVAL_LEVEL)
            bars[f"{name}: mAP {_format_percent(mean_average_precision(values))}"] = Bars(values, low, high)
        charts += write_precision_bars(
            out / "average_precision", f"Average precision on {config.split}", CATEGORIES, bars
        )
    pictures = {path.stem: path for path in charts if path.suffix == ".svg"}
    page = _render_page(comparison, {name: svg_address(path) for name, path in pictures.items()})
    texts = {
        "comparison.json": json.dumps(comparison, indent=2, ensure_ascii=False, allow_nan=False) + "\n",
        "runs.csv": _runs_csv(comparison),
        "per_label.csv": _per_label_csv(comparison),
        PAGE_NAME: page,
    }
    for name, text in texts.items():
        write_text(out / name, text)
    return [*(out / name for name in texts), *charts]


def _write_curves(out: Path, runs: Mapping[str, Run]) -> list[Path]:
    """Loss over the labels and mAP on val, against rounds (figure 4-7).

    The loss is the term of the answer alone: the sum also holds the streams' own heads, which models have more or
    fewer of.
    """
    logs = {name: run.log() for name, run in runs.items()}
    panels = {
        "loss on train": {
            name: _curve(lines, lambda line: line["train_losses"]["labels"]) for name, lines in logs.items()
        },
        "loss on val": {name: _curve(lines, lambda line: line["val_losses"]["labels"]) for name, lines in logs.items()},
        "mAP on val": {name: _curve(lines, lambda line: line["val_map"]) for name, lines in logs.items()},
    }
    return write_training_curves(out / "training", "Training, round by round", panels, "round")


def _curve(lines: list[dict[str, Any]], read: Any) -> tuple[list[int], list[float]]:
    values = [read(line) for line in lines]
    return [line["epoch"] for line in lines], [float("nan") if value is None else float(value) for value in values]


_RUN_COLUMNS = (
    *("model", "epochs", "best_epoch", "best_val_map", "people", "mean_average_precision", "low", "high"),
    *("labels_defined", "n_parameters", "n_macs", "loss", "seconds"),
)


def _runs_csv(comparison: Mapping[str, Any]) -> str:
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(["run", *_RUN_COLUMNS])
    for name, run in comparison["runs"].items():
        values = {**run, "low": run["interval"][0], "high": run["interval"][1]}
        writer.writerow([name, *("" if values[column] is None else values[column] for column in _RUN_COLUMNS)])
    return stream.getvalue()


def _per_label_csv(comparison: Mapping[str, Any]) -> str:
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    evaluated = {name: run for name, run in comparison["runs"].items() if run["average_precision"] is not None}
    writer.writerow(["label", *evaluated])
    for label in CATEGORIES:
        values = [run["average_precision"][label] for run in evaluated.values()]
        writer.writerow([label, *("" if value is None else value for value in values)])
    return stream.getvalue()


def _render_page(comparison: Mapping[str, Any], pictures: Mapping[str, str]) -> str:
    filters = {"percent": _format_percent, "count": format_count, "signed": _format_signed}
    return render_page(_TEMPLATE, filters, comparison=comparison, pictures=pictures, labels=CATEGORIES)


def _count(run: Mapping[str, Any]) -> dict[str, Any]:
    names = ("epochs", "best_val_map", "mean_average_precision")
    return {name: run[name] if run[name] is not None else "unknown" for name in names}


def _format_percent(value: float | None, digits: int = 1) -> str:
    return "–" if value is None or np.isnan(value) else f"{100 * value:.{digits}f}"


def _format_signed(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:+.1f}"
