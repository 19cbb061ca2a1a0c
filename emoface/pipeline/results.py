"""What the stages of a pipeline found: the numbers, the pages to look at, and the commands to go on with."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from emoface.pipeline.stages import Stage
from emoface.schema import FACE_FOUND, SPLITS
from emoface.storage.records import JobRecord


@dataclass(frozen=True)
class PipelineResults:
    """The results of the stages of a pipeline.

    Attributes:
        numbers: What was found, by name, in the order of the stages.
        pages: The name of each HTML page and its path.
        next_commands: Commands that go on from here, one to three.
    """

    numbers: dict[str, str]
    pages: tuple[tuple[str, Path], ...]
    next_commands: tuple[str, ...]


def collect_results(done: Sequence[tuple[Stage, JobRecord]]) -> PipelineResults:
    """Collects the results of stages that are finished.

    Args:
        done: Each stage with the record of its last run, in the order of the pipeline.
    """
    numbers: dict[str, str] = {}
    for stage, record in done:
        if stage.job_name in _NUMBERS:
            numbers |= _NUMBERS[stage.job_name](stage.name, record.counts)
    pages = [
        (Path(name).stem if stage.name == stage.job_name else f"{stage.name}, {Path(name).stem}", stage.out / name)
        for stage, record in done
        for name in record.outputs
        if name.endswith(".html")
    ]
    return PipelineResults(numbers, tuple(pages), tuple(_next_commands([stage for stage, _ in done])))


def _parse_numbers(_: str, counts: Mapping[str, Any]) -> dict[str, str]:
    missing = f", of which {counts['photos_missing']:,} are missing" if counts["photos_missing"] else ""
    return {"people": f"{counts['people']:,} in {counts['photos']:,} photos{missing}"}


def _faces_numbers(_: str, counts: Mapping[str, Any]) -> dict[str, str]:
    statuses = counts["face_status"]
    empty = [f"{n:,} {reason.replace('_', ' ')}" for reason, n in statuses.items() if n and reason != FACE_FOUND]
    return {
        "people with a face": f"{statuses[FACE_FOUND]:,} of {counts['people']:,}",
        "people without a face": ", ".join(empty) or "none",
    }


def _split_numbers(_: str, counts: Mapping[str, Any]) -> dict[str, str]:
    return {name: f"{counts[name]['rows']:,} people, {counts[name]['faces']:,} with a face" for name in SPLITS}


def _train_numbers(name: str, counts: Mapping[str, Any]) -> dict[str, str]:
    best = f"best epoch {counts['best_epoch']} of {counts['epochs']}"
    return {name: f"{best}, mAP on val {_percent(counts['val_map'])}"}


def _evaluate_numbers(name: str, counts: Mapping[str, Any]) -> dict[str, str]:
    low, high = (_percent(counts[key]) for key in ("interval_low", "interval_high"))
    found = f"mAP {_percent(counts['mean_average_precision'])} of {counts['evaluated']:,} people"
    chance = f"chance level {_percent(counts['mean_prevalence'])}"
    return {name: f"{found}, 95 % interval {low} to {high}, {chance}"}


_NUMBERS: dict[str, Callable[[str, Mapping[str, Any]], dict[str, str]]] = {
    "parse": _parse_numbers,
    "faces": _faces_numbers,
    "split": _split_numbers,
    "train": _train_numbers,
    "evaluate": _evaluate_numbers,
}
"""What a stage of each job found, from its name and the counts of its record."""


def _percent(share: float | None) -> str:
    return "not defined" if share is None else f"{100 * share:.2f} %"


def _next_commands(stages: Sequence[Stage]) -> Iterator[str]:
    """Yields the commands that go on from the last of the jobs that a data set and its models go through."""
    of_job: dict[str, list[Stage]] = {}
    for stage in stages:
        of_job.setdefault(stage.job_name, []).append(stage)
    if "evaluate" in of_job:
        runs = list(dict.fromkeys(shlex.quote(str(stage.config.run)) for stage in of_job["evaluate"]))
        if len(runs) > 1 and "compare" not in of_job:
            yield f"emoface compare {' '.join(runs)}"
        yield f"emoface predict {runs[0]} PHOTO.jpg"
    elif "train" in of_job:
        yield from (f"emoface evaluate {shlex.quote(str(stage.out))}" for stage in of_job["train"][:3])
    elif "split" in of_job:
        for stage in of_job["split"][:3]:
            manifest = shlex.quote(str(stage.out / "manifest.json"))
            yield f"emoface train --manifest {manifest} --model mter2 --out runs/mter2"
