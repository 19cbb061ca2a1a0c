"""The commands that look at trained models: evaluate, compare, predict, explain."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from emoface.cli.console import FILE, FOLDER, command, print_record, terminal_progress
from emoface.cli.options import job_command

if TYPE_CHECKING:
    from emoface.jobs.explain import ExplainConfig
    from emoface.jobs.predict import PredictConfig

_DEVICE = click.option(
    "--device",
    type=click.Choice(["auto", "cpu", "cuda"]),
    default="auto",
    show_default=True,
    help="Where the network runs.",
)


@command()
@click.argument("run", type=FOLDER)
@click.option("--split", type=click.Choice(["train", "val", "test"]), default="test", show_default=True, help="Whom.")
@click.option("--manifest", type=FILE, help="Another data set's manifest.json.  [default: the run's own]")
@click.option("--draws", default=1000, show_default=True, help="Of the bootstrap that gives the intervals.")
@click.option("--seed", default=0, show_default=True, help="Of the bootstrap.")
@_DEVICE
@click.option("--batch-size", default=64, show_default=True, help="People per step.")
@click.option("--workers", default=1, show_default=True, help="Threads that read ahead.")
@click.option("--cache", type=FOLDER, help="For decoded photos.  [default: stream_cache beside manifest]")
def evaluate(**options: Any) -> None:
    """Measures a trained model on a split: RUN/eval/SPLIT/evaluation.html, metrics.json.

    \b
    Example:
      emoface evaluate runs/mter2
      emoface evaluate runs/mter2 --split val --draws 2000
    """
    from emoface.jobs.evaluate import PAGE_NAME, EvaluateConfig, run_evaluate

    config = EvaluateConfig(**options)
    with terminal_progress() as progress:
        record = run_evaluate(config, progress)
    print_record(record)
    click.echo(f"evaluation: {config.out / PAGE_NAME}")


@command()
@click.argument("runs", nargs=-1, required=True, type=FOLDER)
@click.option("--out", type=FOLDER, help="Where it goes.  [default: comparison, beside the first run]")
@click.option("--split", type=click.Choice(["train", "val", "test"]), default="test", show_default=True, help="Whose.")
@click.option("--draws", default=1000, show_default=True, help="Of the bootstrap that gives the intervals.")
@click.option("--seed", default=0, show_default=True, help="Of the bootstrap.")
def compare(**options: Any) -> None:
    """Puts RUNS side by side: curves of training, average precision, differences with intervals.

    \b
    Example:
      emoface compare runs/task2 runs/mter2
      emoface compare runs/kosti runs/mter1 runs/mter2 --out runs/ablation
    """
    from emoface.jobs.compare import PAGE_NAME, CompareConfig, run_compare

    config = CompareConfig(**options)
    with terminal_progress() as progress:
        record = run_compare(config, progress)
    print_record(record)
    click.echo(f"comparison: {config.folder / PAGE_NAME}")


@job_command(config="emoface.jobs.predict:PredictConfig", arguments=("run", "images"))
def predict(config: PredictConfig) -> None:
    """Finds the people of photos and draws what they feel: OUT/PHOTO.png, OUT/PHOTO.json.

    \b
    Example:
      emoface predict runs/mter2 party.jpg
      emoface predict runs/mter2 party.jpg --boxes 10,20,200,400 --boxes 220,30,400,400
      emoface predict runs/mter2 EMOTIC/emotic/framesdb/images/a.jpg --manifest work/manifest.json
    """
    from emoface.jobs.predict import run_predict

    with terminal_progress() as progress:
        record = run_predict(config, progress)
    print_record(record)
    click.echo(f"predictions: {config.folder}")


@job_command(config="emoface.jobs.explain:ExplainConfig", arguments=("run", "images"), flags={"labels": "--label"})
def explain(config: ExplainConfig) -> None:
    """Draws Grad-CAM maps on the photo, for each stream and label.

    \b
    Example:
      emoface explain runs/mter2 --index 120 --index 121
      emoface explain runs/mter2 party.jpg --label Happiness --label Peace
    """
    from emoface.jobs.explain import run_explain

    with terminal_progress() as progress:
        record = run_explain(config, progress)
    print_record(record)
    click.echo(f"explanations: {config.folder}")
