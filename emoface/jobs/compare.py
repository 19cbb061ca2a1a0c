"""The compare job: compares runs by training curves, average precision per label and differences of mAP.

It reads only files of the runs: the logs of epochs, and the predictions of evaluated runs. Scored predictions of other
programs take part without a log and a cost. Networks run only where latencies are asked for, all on this machine and in
turns, because times from different machines or hours cannot be compared.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

import numpy as np
from pydantic import model_validator

from emoface.datasets.predictions import (
    PREDICTIONS_NAME,
    Predictions,
    Scored,
    find_scored,
    predictions_path,
    read_predictions,
)
from emoface.errors import SettingsError, TableError, WeightsError
from emoface.metrics.evaluation import Bootstrap, PrecisionMetrics, measure_difference, measure_precision
from emoface.mter.runs import LOG_NAME, RUN_NAME, Run, read_run
from emoface.progress import SILENT, Progress
from emoface.reporting.charts import Bars, write_precision_bars, write_training_curves
from emoface.reporting.pages import (
    format_count,
    format_duration,
    format_number,
    format_percent,
    format_si,
    format_signed_percent,
    hash_template,
    render_page,
    svg_address,
)
from emoface.reporting.precision import describe_bootstrap, precision_to_json
from emoface.schema import CATEGORIES
from emoface.storage.csv_files import csv_text
from emoface.storage.files import write_text
from emoface.storage.locks import locked
from emoface.storage.records import (
    JobRecord,
    finish_job,
    hash_inputs,
    record_path,
    to_json_number,
    to_json_numbers,
)
from emoface.storage.settings import Count, Folder, Seed, Settings, Split
from emoface.version import __version__

if TYPE_CHECKING:
    from emoface.mter.base import Mter

PAGE_NAME = "comparison.html"

_TEMPLATE = "comparison.html.j2"
_LATENCY_RUNS = 20
"""Timed runs of each network."""


class CompareConfig(Settings):
    """Settings of the compare job."""

    runs: tuple[Folder, ...]
    """Folders of two or more training runs or scored predictions; of an unfinished run the finished epochs are
    compared."""
    out: Folder | None = None
    """Folder for the comparison; by default the folder comparison beside the first run."""
    split: Split = "test"
    """Split whose predictions are compared."""
    draws: Count = 1000
    """Number of bootstrap resamples for the confidence intervals."""
    seed: Seed = 0
    """Seed of the bootstrap."""
    latency: Literal["cpu", "cuda"] | None = None
    """Device on which the latency of each network is measured, for one person; by default it is not measured, so that
    the same comparison always gives the same files."""

    @model_validator(mode="after")
    def _check_runs(self) -> Self:
        if len(self.runs) < 2:
            raise SettingsError(f"runs are {len(self.runs)}, expected two or more to compare")
        return self

    @property
    def folder(self) -> Path:
        """Folder of the comparison."""
        return self.out or self.runs[0].parent / "comparison"


@locked("folder")
def run_compare(config: CompareConfig, progress: Progress = SILENT) -> JobRecord:
    """Compares runs.

    Args:
        config: Settings of the job.
        progress: Receives one step per part of the comparison.

    Returns:
        The job's record. ``OUT/`` holds ``comparison.json``, ``runs.csv``, ``per_label.csv``, ``comparison.html`` and
        its charts.

    Raises:
        SettingsError: A folder is neither a training run nor one of scored predictions, or two have other labels.
        TableError: Two runs give the same person different labels.
    """
    names = short_names(config.runs)
    runs = {name: _read_compared(path) for name, path in zip(names, config.runs, strict=True)}
    progress.start("compare", 4)
    predictions = {name: one for name, run in runs.items() if (one := _read_predictions(run, config.split)) is not None}
    for name in runs.keys() - predictions.keys():
        job = "score" if isinstance(runs[name], Scored) else "evaluate"
        progress.note(f"{runs[name].path}: not evaluated on {config.split}; 'emoface {job}' adds its precision")
    label_names = _find_label_names(runs, predictions)
    precisions = {
        name: measure_precision(one.labels, one.probabilities, one.photo, Bootstrap(config.draws, config.seed))
        for name, one in predictions.items()
    }
    progress.advance()
    comparison: dict[str, Any] = {
        "emoface_version": __version__,
        "split": config.split,
        "bootstrap": describe_bootstrap(config.draws, config.seed),
        "latency": None,
        "label_names": list(label_names),
        "runs": {name: _describe(run, precisions.get(name), label_names) for name, run in runs.items()},
        "differences": [
            pair
            for first, second in combinations(predictions, 2)
            if (pair := compare_pair(config, first, second, predictions[first], predictions[second])) is not None
        ],
    }
    for name, rank in rank_runs(precisions, predictions).items():
        comparison["runs"][name]["rank"] = rank
    if config.latency is not None:
        comparison["latency"] = _add_latencies(comparison["runs"], runs, config.latency)
    for name, run in comparison["runs"].items():
        for note in run["notes"]:
            progress.note(f"{runs[name].path}: {note}")
    progress.advance()
    outputs = _write_results(config, comparison, runs, precisions)
    progress.advance()
    record = finish_job(
        "compare",
        config,
        config.folder,
        module=__name__,
        inputs={
            **hash_inputs(path for run in runs.values() for path in _list_inputs(run, config.split)),
            **hash_template(_TEMPLATE),
        },
        outputs=outputs,
        counts={
            **{name: _to_counts(one) for name, one in comparison["runs"].items()},
            **{
                f"{one['second']} against {one['first']}": describe_difference(one) for one in comparison["differences"]
            },
        },
    )
    progress.advance()
    return record


def short_names(paths: Sequence[Path]) -> list[str]:
    """Shortens the folders' paths to their names, with as many parent folders as are needed to make them unique.

    Example:
        >>> short_names([Path("a/mter2"), Path("b/mter2"), Path("a/task2")])
        ['a/mter2', 'b/mter2', 'task2']

    Raises:
        SettingsError: A folder is given twice.
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


def compare_pair(
    config: CompareConfig, first: str, second: str, one: Predictions, other: Predictions
) -> dict[str, Any] | None:
    """Computes the difference of two runs' mAP on the people that both predicted, with a paired bootstrap.

    Args:
        config: Settings with the number of bootstrap resamples and the seed.
        first: Name of the first run.
        second: Name of the second run.
        one: Predictions of the first run.
        other: Predictions of the second run.

    Returns:
        ``difference`` is the second's mAP minus the first's; None where they have no people in common.

    Raises:
        TableError: The two runs give the same person different labels.
    """
    row_of = {person_id: row for row, person_id in enumerate(other.person_ids)}
    common = [(row, row_of[person_id]) for row, person_id in enumerate(one.person_ids) if person_id in row_of]
    if not common:
        return None
    rows, other_rows = (np.array(side) for side in zip(*common, strict=True))
    one, other = one.take(rows), other.take(other_rows)
    differs = (one.labels != other.labels).any(axis=1)
    if differs.any():
        raise TableError(
            f"{one.person_ids[int(np.argmax(differs))]} has other labels in {first} than in {second}; expected the "
            "same data set: evaluate both with the same --manifest"
        )
    bootstrap = Bootstrap(config.draws, config.seed)
    difference = measure_difference(one.labels, one.probabilities, other.probabilities, one.photo, bootstrap)
    return {
        "first": first,
        "second": second,
        "people": len(one),
        "difference": to_json_number(difference.value),
        "interval": [to_json_number(end) for end in difference.interval],
        "share_above_zero": to_json_number(difference.share_above_zero),
        "verdict": difference.verdict,
    }


def rank_runs(
    precisions: Mapping[str, PrecisionMetrics], predictions: Mapping[str, Predictions]
) -> dict[str, int | None]:
    """Ranks runs by mAP among those that were evaluated on the same people, 1 for the best.

    An mAP cannot be compared with one measured on other people. Where the runs have different people, those whom most
    runs share count, and of equally many those of the first run.

    Args:
        precisions: Per evaluated run, its metrics.
        predictions: Per evaluated run, its predictions.

    Returns:
        Per evaluated run its rank; None if it has other people, or no other run has the same, or no label is defined.
    """
    people = {name: frozenset(one.person_ids) for name, one in predictions.items()}
    counts = Counter(people.values())
    shared = max(counts, key=lambda one: counts[one], default=None)
    values = {
        name: precisions[name].mean_average_precision
        for name, one in people.items()
        if one == shared and counts[one] > 1 and not np.isnan(precisions[name].mean_average_precision)
    }
    ranks = {name: 1 + sum(other > value for other in values.values()) for name, value in values.items()}
    return {name: ranks.get(name) for name in people}


def describe_difference(difference: Mapping[str, Any]) -> str:
    """Says what the interval of a difference shows.

    Args:
        difference: As ``compare_pair`` returns it.

    Example:
        >>> found = {"first": "a", "second": "b", "difference": 0.012, "interval": [-0.004, 0.03]}
        >>> describe_difference({**found, "verdict": "no difference shown"})
        'no difference shown (+1.2, interval -0.4 to +3.0)'
        >>> describe_difference({**found, "interval": [0.002, 0.02], "verdict": "second is better"})
        'b is better (+1.2, interval +0.2 to +2.0)'
    """
    low, high = map(format_signed_percent, difference["interval"])
    return f"{_name_better(difference)} ({format_signed_percent(difference['difference'])}, interval {low} to {high})"


def _name_better(difference: Mapping[str, Any]) -> str:
    """The verdict with the name of the better run in it."""
    verdict = str(difference["verdict"])
    for place in ("first", "second"):
        if verdict == f"{place} is better":
            return f"{difference[place]} is better"
    return verdict


def _find_label_names(runs: Mapping[str, Run | Scored], predictions: Mapping[str, Predictions]) -> tuple[str, ...]:
    """The labels that all runs predict."""
    names_of = {name: run.label_names for name, run in runs.items() if isinstance(run, Run)}
    names_of |= {name: one.label_names for name, one in predictions.items()}
    first = next(iter(names_of), "")
    for name, label_names in names_of.items():
        if label_names != names_of[first]:
            raise SettingsError(
                f"{name} predicts {len(label_names)} labels, which are not the {len(names_of[first])} of {first}; "
                "compare runs of data sets with the same labels in the same order"
            )
    return names_of.get(first, CATEGORIES)


def _read_compared(path: Path) -> Run | Scored:
    """Reads a folder of scored predictions, or else a run."""
    return find_scored(path) or read_run(path, needs_finished=False)


def _read_predictions(run: Run | Scored, split: str) -> Predictions | None:
    if isinstance(run, Scored) and run.split != split:
        return None
    path = _predictions_path(run, split)
    return read_predictions(path) if path.is_file() else None


def _predictions_path(run: Run | Scored, split: str) -> Path:
    return run.path / PREDICTIONS_NAME if isinstance(run, Scored) else predictions_path(run.path, split)


def _list_inputs(run: Run | Scored, split: str) -> list[Path]:
    """Lists the input files of a run; a log or predictions that are written later make the comparison out of date."""
    if isinstance(run, Scored):
        return [record_path(run.path, "score"), _predictions_path(run, split)]
    if run.is_probe:
        return [run.path / RUN_NAME, _predictions_path(run, split)]
    return [run.path / RUN_NAME, run.path / LOG_NAME, _predictions_path(run, split)]


def _describe(run: Run | Scored, precision: PrecisionMetrics | None, label_names: Sequence[str]) -> dict[str, Any]:
    """Describes a run or scored predictions: settings, cost and results; what predictions do not have is null."""
    described = _describe_scored(run) if isinstance(run, Scored) else _describe_run(run)
    described |= {
        "rank": None,
        "latency_ms": None,
        "people": None if precision is None else precision.n_people,
        "mean_average_precision": None,
        "interval": [None, None],
        "labels_defined": None,
        "mean_prevalence": None,
        "lift": None,
        "average_precision": None,
        "lift_by_label": None,
    }
    if precision is not None:
        described |= {
            **precision_to_json(precision),
            "average_precision": to_json_numbers(label_names, precision.average_precision),
            "lift_by_label": to_json_numbers(label_names, precision.lift),
        }
    return described


def _describe_scored(scored: Scored) -> dict[str, Any]:
    unknown = ("epochs", "seconds", "loss", "n_parameters", "n_macs", "best_epoch", "best_val_map")
    return {
        "model": scored.name,
        "path": str(scored.path),
        "is_scored": True,
        "is_finished": True,
        "has_shuffled_labels": False,
        "notes": [],
        **dict.fromkeys(unknown),
    }


def _describe_run(run: Run) -> dict[str, Any]:
    from emoface.mter.cost import measure_cost

    if run.is_probe:
        return _describe_probe(run)
    cost = measure_cost(run.build_model(), run.stream_sizes)
    lines = run.log()
    known = [line for line in lines if line["val_map"] is not None]
    best = max(known, key=lambda line: float(line["val_map"])) if known else None
    return {
        "model": run.title,
        "path": str(run.path),
        "is_scored": False,
        "is_finished": run.is_finished,
        "has_shuffled_labels": run.has_shuffled_labels,
        "notes": [],
        "epochs": len(lines),
        "seconds": to_json_number(sum(line["seconds"] for line in lines)) if lines else None,
        "loss": run.settings["recipe"]["loss"],
        "n_parameters": cost.n_parameters,
        "n_macs": cost.n_macs,
        "best_epoch": None if best is None else best["epoch"],
        "best_val_map": None if best is None else best["val_map"],
    }


def _describe_probe(run: Run) -> dict[str, Any]:
    """Describes a probe: its MACs are those of the backbone on each stream and of the head; it has no best epoch."""
    probe, backbone = run.settings["probe"], run.backbone
    n_macs, notes = None, []
    if backbone.n_macs is None:
        notes = ["its MACs are unknown, because an older emoface fitted it; fit it again with 'emoface probe'"]
    else:
        n_macs = len(run.stream_sizes) * backbone.n_macs + probe["head_parameters"]
    return {
        "model": run.title,
        "path": str(run.path),
        "is_scored": False,
        "is_finished": run.is_finished,
        "has_shuffled_labels": run.has_shuffled_labels,
        "notes": notes,
        "epochs": probe.get("epochs"),
        "seconds": probe["seconds"],
        "loss": "bce",
        "n_parameters": backbone.n_parameters + probe["head_parameters"],
        "n_macs": n_macs,
        "best_epoch": None,
        "best_val_map": probe["val_map"],
    }


def _add_latencies(
    described: Mapping[str, dict[str, Any]], runs: Mapping[str, Run | Scored], device: str
) -> dict[str, Any]:
    """Measures the latency of each network, in turns, and enters it into the descriptions of the runs.

    Weights do not change it, so that none are read. A run whose network cannot be built has no latency, but a note.

    Returns:
        How it was measured: ``device``, ``threads``, ``batch_size``, ``runs``.
    """
    from emoface.mter.cost import measure_latencies

    networks: dict[str, Mter] = {}
    sizes = []
    for name, run in runs.items():
        if isinstance(run, Run):
            try:
                networks[name] = _build_network(run)
            except (ModuleNotFoundError, SettingsError, WeightsError) as error:
                described[name]["notes"].append(f"its latency is unknown ({error})")
            else:
                sizes.append(run.stream_sizes)
    latencies = measure_latencies(list(networks.values()), sizes=sizes, n_runs=_LATENCY_RUNS, device=device)
    for name, latency in zip(networks, latencies, strict=True):
        described[name]["latency_ms"] = to_json_number(latency.median_ms)
    if not latencies:
        return {"device": device, "threads": None, "batch_size": 1, "runs": _LATENCY_RUNS}
    return {
        "device": latencies[0].device,
        "threads": latencies[0].n_threads,
        "batch_size": latencies[0].batch_size,
        "runs": latencies[0].n_runs,
    }


def _build_network(run: Run) -> Mter:
    """The network of a run, with random weights; of a probe its backbone and head."""
    if not run.is_probe:
        return run.build_model()
    from emoface.mter.backbones import load_backbone
    from emoface.mter.features import RANDOM
    from emoface.mter.probe import read_probe
    from emoface.mter.probe_model import ProbeModel

    return ProbeModel(load_backbone(run.backbone.name, RANDOM), *read_probe(run.weights_path))


def _write_results(
    config: CompareConfig,
    comparison: dict[str, Any],
    runs: Mapping[str, Run | Scored],
    precisions: Mapping[str, PrecisionMetrics],
) -> list[Path]:
    out = config.folder
    charts = _write_curves(out, {name: run for name, run in runs.items() if isinstance(run, Run) and not run.is_probe})
    if precisions:
        bars = {
            f"{name}: mAP {format_percent(one.mean_average_precision)}": Bars(one.average_precision, *one.interval)
            for name, one in precisions.items()
        }
        charts += write_precision_bars(
            out / "average_precision", f"Average precision on {config.split}", comparison["label_names"], bars
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
    """Draws the label loss on train and val and the mAP on val against epochs (figure 4-7); nothing without runs.

    The loss is the term of the model's final logits alone: the total loss also contains the terms of the streams' own
    heads, whose number differs between models.
    """
    if not runs:
        return []
    logs = {name: run.log() for name, run in runs.items()}
    panels = {
        "loss on train": {
            name: _curve(lines, lambda line: line["train_losses"]["labels"]) for name, lines in logs.items()
        },
        "loss on val": {name: _curve(lines, lambda line: line["val_losses"]["labels"]) for name, lines in logs.items()},
        "mAP on val": {name: _curve(lines, lambda line: line["val_map"]) for name, lines in logs.items()},
    }
    return write_training_curves(out / "training", "Training by epoch", panels, "epoch")


def _curve(lines: list[dict[str, Any]], read: Any) -> tuple[list[int], list[float]]:
    values = [read(line) for line in lines]
    return [line["epoch"] for line in lines], [float("nan") if value is None else float(value) for value in values]


_RUN_COLUMNS = (
    *("rank", "model", "mean_average_precision", "low", "high", "mean_prevalence", "lift", "people", "n_parameters"),
    *("n_macs", "latency_ms", "epochs", "seconds", "labels_defined", "best_val_map", "best_epoch", "loss"),
)


def _order_runs(comparison: Mapping[str, Any]) -> list[str]:
    """The names of the runs, best mAP first, those that were not evaluated last; of equal ones the order is kept."""
    values = {name: run["mean_average_precision"] for name, run in comparison["runs"].items()}
    return sorted(values, key=lambda name: np.inf if values[name] is None else -values[name])


def _runs_csv(comparison: Mapping[str, Any]) -> str:
    rows = []
    for name in _order_runs(comparison):
        run = comparison["runs"][name]
        values = {**run, "low": run["interval"][0], "high": run["interval"][1]}
        rows.append([name, *(values[column] for column in _RUN_COLUMNS)])
    return csv_text(["run", *_RUN_COLUMNS], rows)


def _per_label_csv(comparison: Mapping[str, Any]) -> str:
    evaluated = {name: run for name, run in comparison["runs"].items() if run["average_precision"] is not None}
    parts = ("average_precision", "lift_by_label")
    rows = (
        [label, *(run[part][label] for part in parts for run in evaluated.values())]
        for label in comparison["label_names"]
    )
    return csv_text(["label", *evaluated, *(f"{name} lift" for name in evaluated)], rows)


def _render_page(comparison: Mapping[str, Any], pictures: Mapping[str, str]) -> str:
    filters = {
        "percent": format_percent,
        "count": format_count,
        "signed": format_signed_percent,
        "number": format_number,
        "si": format_si,
        "duration": format_duration,
    }
    return render_page(
        _TEMPLATE,
        filters,
        comparison=comparison,
        pictures=pictures,
        order=_order_runs(comparison),
        labels=comparison["label_names"],
        results=[_name_better(one) for one in comparison["differences"]],
    )


def _to_counts(run: Mapping[str, Any]) -> dict[str, Any]:
    names = ("rank", "epochs", "best_val_map", "mean_average_precision", "lift")
    return {name: run[name] if run[name] is not None else "unknown" for name in names}
