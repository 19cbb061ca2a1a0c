"""The commands for trained models: evaluate, compare, predict, explain."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from emoface.cli.console import run_job
from emoface.cli.options import job_command

if TYPE_CHECKING:
    from emoface.jobs.compare import CompareConfig
    from emoface.jobs.evaluate import EvaluateConfig
    from emoface.jobs.explain import ExplainConfig
    from emoface.jobs.predict import PredictConfig


@job_command(config="emoface.jobs.evaluate:EvaluateConfig", arguments=("run",))
def evaluate(config: EvaluateConfig) -> None:
    """Evaluates a trained model on a split: RUN/eval/SPLIT/evaluation.html, metrics.json.

    \b
    Example:
      emoface evaluate runs/mter2
      emoface evaluate runs/mter2 --split val --draws 2000
    """
    from emoface.jobs.evaluate import run_evaluate
    from emoface.reporting.evaluation import PAGE_NAME

    run_job(run_evaluate, config)
    click.echo(f"evaluation: {config.out / PAGE_NAME}")


@job_command(config="emoface.jobs.compare:CompareConfig", arguments=("runs",))
def compare(config: CompareConfig) -> None:
    """Compares RUNS: training curves, average precision, differences of mAP with intervals.

    \b
    Example:
      emoface compare runs/task2 runs/mter2
      emoface compare runs/kosti runs/mter1 runs/mter2 --out runs/ablation
    """
    from emoface.jobs.compare import PAGE_NAME, run_compare

    run_job(run_compare, config)
    click.echo(f"comparison: {config.folder / PAGE_NAME}")


@job_command(config="emoface.jobs.predict:PredictConfig", arguments=("run", "images"))
def predict(config: PredictConfig) -> None:
    """Finds the people of photos and predicts their emotions: OUT/PHOTO.png, OUT/PHOTO.json.

    \b
    Example:
      emoface predict runs/mter2 party.jpg
      emoface predict runs/mter2 party.jpg --boxes 10,20,200,400 --boxes 220,30,400,400
      emoface predict runs/mter2 EMOTIC/emotic/framesdb/images/a.jpg --manifest work/manifest.json
    """
    from emoface.jobs.predict import run_predict

    run_job(run_predict, config)
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

    run_job(run_explain, config)
    click.echo(f"explanations: {config.folder}")
