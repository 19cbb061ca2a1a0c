"""The commands that run several jobs from a pipeline file: run, status, demo."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from emoface.cli.console import command, is_quiet, print_pairs, print_rows, terminal_progress
from emoface.cli.options import job_command
from emoface.progress import Progress

if TYPE_CHECKING:
    from emoface.jobs.demo import DemoConfig
    from emoface.jobs.pipeline import PipelineConfig
    from emoface.pipeline.stages import Stage, StageStatus
    from emoface.storage.records import JobRecord

_SET = click.option(
    "--set",
    "overrides",
    multiple=True,
    metavar="KEY=VALUE",
    help="Set a setting of the pipeline (out=work) or of one stage (split.seed=7); may be repeated.",
)


@command()
@click.argument("pipeline")
@_SET
@click.option(
    "--rebuild",
    multiple=True,
    metavar="STAGE",
    help="Run this stage from the start even if it is current; may be repeated.",
)
def run(pipeline: str, overrides: tuple[str, ...], rebuild: tuple[str, ...]) -> None:
    """Runs the stages of a pipeline that are out of date, and shows the results and what to do next.

    PIPELINE is the path of a TOML file, or the bare name of one that comes with emoface.

    \b
    Example:
      emoface run emotic_face --set emotic_root=EMOTIC --set out=work
      emoface run mine.toml --set out=work --rebuild faces
    """
    from emoface.jobs.pipeline import run_pipeline

    lines = StageLines()
    run_pipeline(_to_config(pipeline, overrides, rebuild), lines)
    _print_results(pipeline, lines.done)


@command()
@click.argument("pipeline")
@_SET
@click.option("--json", "as_json", is_flag=True, help="Print a JSON list of stages, each with its state and reasons.")
def status(pipeline: str, overrides: tuple[str, ...], as_json: bool) -> None:
    """Shows which stages of a pipeline are current, stale, unfinished or missing, and why.

    \b
    Example:
      emoface status emotic_face --set emotic_root=EMOTIC --set out=work
      emoface status emotic_face --set emotic_root=EMOTIC --set out=work --json
    """
    from emoface.jobs.pipeline import check_pipeline

    statuses = check_pipeline(_to_config(pipeline, overrides))
    if as_json:
        found = [{"stage": one.stage.name, "state": one.state, "reasons": list(one.reasons)} for one in statuses]
        click.echo(json.dumps(found, indent=2, ensure_ascii=False))
        return
    rows = [[one.stage.name, one.state, "; ".join(one.reasons)] for one in statuses]
    print_rows(f"Stages of {pipeline}", ["stage", "state", "why"], rows)


@job_command(config="emoface.jobs.demo:DemoConfig")
def demo(config: DemoConfig) -> None:
    """Builds and audits EMOTIC_Face from photos that emoface draws itself, then trains and evaluates mter2 on it.

    It needs no download and no account, and takes about 11 minutes on two cores, nearly all of it for the training. The
    path of the audit page is printed as soon as the page is written. With few people and few epochs the model learns
    little: the demo shows that all steps work, not how accurate MTER can be.

    \b
    Example:
      emoface demo
      emoface demo --out demo-out --images 1000
    """
    from emoface.jobs.demo import PAGES, run_demo

    record = run_demo(config, _DemoLines(config.out))
    print_rows("Data set", ["split", "people", "photos", "faces"], _split_rows(record.counts))
    print_pairs("EMOTIC_Face from a simulated EMOTIC", _demo_lines(record.counts))
    print_pairs("mter2 on the test people", _training_lines(record.counts))
    if note := record.info["detector_note"]:
        click.echo(f"Note: {note}", err=True)
    for stage in reversed(PAGES):
        click.secho(_describe_page(config.out, stage), bold=True)


def _print_results(pipeline: str, done: list[tuple[Stage, JobRecord]]) -> None:
    """Prints what a pipeline found, the paths of its pages, and the commands to go on with."""
    from emoface.pipeline.results import collect_results

    results = collect_results(done)
    if results.numbers:
        print_pairs(f"Results of {pipeline}", results.numbers)
    for name, path in results.pages:
        click.echo(f"{name}: {path}")
    for line in results.next_commands:
        click.echo(f"next: {line}")


def _to_config(pipeline: str, overrides: tuple[str, ...], rebuild: tuple[str, ...] = ()) -> PipelineConfig:
    from emoface.jobs.pipeline import PipelineConfig
    from emoface.pipeline.definition import parse_overrides

    return PipelineConfig(pipeline, parse_overrides(overrides), rebuild)


def _split_rows(counts: Mapping[str, Any]) -> list[list[str]]:
    from emoface.schema import SPLITS

    rows = [[name, *(f"{counts[name][key]:,}" for key in ("rows", "photos", "faces"))] for name in SPLITS]
    return [*rows, ["all", *(f"{counts[key]:,}" for key in ("people", "photos", "faces_found"))]]


def _demo_lines(counts: Mapping[str, Any]) -> dict[str, str]:
    """Results of the data set's stages as text; each share names the number that it is a share of."""
    truth, measured = counts["against_the_truth"], counts["mean_imbalance_ratio"]
    reasons = ", ".join(f"{number:,} {reason.replace('_', ' ')}" for reason, number in counts["empty"].items())
    return {
        "detector": counts["detector"],
        "people with a face": f"{counts['faces_found']:,} of {counts['people']:,}",
        "without": reasons or "none",
        "visible faces found": _share(truth["recall"], truth["visible_faces"]),
        "faces given to the wrong person": _share(truth["wrong_faces"], truth["visible_faces"]),
        "false faces where the face is hidden": _share(truth["false_faces"], truth["hidden_faces"]),
        "label share furthest from its target": f"{100 * counts['largest_label_deviation']:.2f} %",
        "mean imbalance ratio": ", ".join(f"{name} {value:.2f}" for name, value in measured.items()),
    }


def _training_lines(counts: Mapping[str, Any]) -> dict[str, str]:
    """Results of the training as text, with the chance level beside the mAP."""
    trained, found = counts["training"], counts["evaluation"]
    low, high = found["interval_low"], found["interval_high"]
    return {
        "trained": f"{trained['epochs']} epochs of {trained['train_people']:,} people",
        "mean average precision": f"{100 * found['mean_average_precision']:.2f} % of {found['evaluated']:,} people, "
        f"95 % interval {100 * low:.2f}-{100 * high:.2f}",
        "chance level (mean prevalence)": f"{100 * found['mean_prevalence']:.2f} %",
    }


def _share(share: float | None, n: int) -> str:
    return "no such faces" if share is None else f"{100 * share:.1f} % of {n:,}"


class StageLines:
    """Prints one line per stage on standard error: that it is current, or why it runs and how long it took.

    Each running stage has a progress bar.

    Attributes:
        done: The stages that are finished, each with its record.
    """

    def __init__(self) -> None:
        from rich.console import Console

        self._console = Console(stderr=True, highlight=False, soft_wrap=True, quiet=is_quiet())
        self._started = 0.0
        self.done: list[tuple[Stage, JobRecord]] = []

    def note(self, text: str) -> None:
        """Prints why a stage waits."""
        self._console.print(text, markup=False)

    def skip(self, status: StageStatus) -> None:
        """Prints that a stage is current."""
        self._console.print(f"[green]{status.stage.name}[/]: current")
        if status.record is not None:
            self.done.append((status.stage, status.record))

    def begin(self, status: StageStatus) -> AbstractContextManager[Progress]:
        """Prints why a stage runs, and returns its progress bar."""
        self._console.print(f"[bold]{status.stage.name}[/]: runs, {status.state}: ", end="")
        self._console.print("; ".join(status.reasons), markup=False)
        self._started = time.monotonic()
        return terminal_progress()

    def end(self, stage: Stage, record: JobRecord) -> None:
        """Prints how long a stage took."""
        seconds = time.monotonic() - self._started
        self._console.print(f"[green]{stage.name}[/]: done in {seconds:,.1f} s")
        self.done.append((stage, record))


class _DemoLines(StageLines):
    """The lines of the demo's stages, with the path of each page as soon as it is written."""

    def __init__(self, out: Path) -> None:
        super().__init__()
        self._out = out

    def end(self, stage: Stage, record: JobRecord) -> None:
        """Prints how long a stage took, and where its page is if it has one."""
        from emoface.jobs.demo import PAGES

        super().end(stage, record)
        if stage.name in PAGES:
            self.note(_describe_page(self._out, stage.name))


def _describe_page(out: Path, stage: str) -> str:
    from emoface.jobs.demo import PAGES

    name, path = PAGES[stage]
    return f"{name}: {out / path}"
