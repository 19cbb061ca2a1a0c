"""The commands that look at trained models: evaluate, compare, predict, explain."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from emoface.cli.console import FILE, FOLDER, command, run_job
from emoface.cli.options import BoxType, job_command

if TYPE_CHECKING:
    from emoface.jobs.compare import CompareConfig
    from emoface.jobs.evaluate import EvaluateConfig

_DEVICE = click.option(
    "--device",
    type=click.Choice(["auto", "cpu", "cuda"]),
    default="auto",
    show_default=True,
    help="Where the network runs.",
)


@job_command(config="emoface.jobs.evaluate:EvaluateConfig", arguments=("run",))
def evaluate(config: EvaluateConfig) -> None:
    """Measures a trained model on a split: RUN/eval/SPLIT/evaluation.html, metrics.json.

    \b
    Example:
      emoface evaluate runs/mter2
      emoface evaluate runs/mter2 --split val --draws 2000
    """
    from emoface.jobs.evaluate import PAGE_NAME, run_evaluate

    run_job(run_evaluate, config)
    click.echo(f"evaluation: {config.out / PAGE_NAME}")


@job_command(config="emoface.jobs.compare:CompareConfig", arguments=("runs",))
def compare(config: CompareConfig) -> None:
    """Puts RUNS side by side: curves of training, average precision, differences with intervals.

    \b
    Example:
      emoface compare runs/task2 runs/mter2
      emoface compare runs/kosti runs/mter1 runs/mter2 --out runs/ablation
    """
    from emoface.jobs.compare import PAGE_NAME, run_compare

    run_job(run_compare, config)
    click.echo(f"comparison: {config.folder / PAGE_NAME}")


_BOXES = click.option("--boxes", multiple=True, type=BoxType(), help="A body box in pixels; repeat it per person.")
_DETECTOR = click.option("--detector", help="Name of the face detector's weights.  [default: that of the data set]")
_WEIGHTS = click.option("--weights", type=FILE, help="A weight file of the detector, instead of a name.")


@command()
@click.argument("run", type=FOLDER)
@click.argument("images", nargs=-1, required=True, type=FILE)
@click.option("--out", type=FOLDER, help="For drawings and JSON.  [default: RUN/predict]")
@_BOXES
@click.option("--boxes-file", type=FILE, help="JSON of body boxes: a list, or lists by the photos' file names.")
@click.option("--manifest", type=FILE, help="A data set with these photos: its people are taken, the truth is drawn.")
@click.option("--top", default=5, show_default=True, help="Labels to draw per person.")
@_DETECTOR
@_WEIGHTS
@click.option("--backend", type=click.Choice(["auto", "onnx", "torch", "hub"]), help="What runs the detector.")
@click.option("--conf-threshold", type=float, help="Drop faces scored lower.  [default: that of the data set]")
@_DEVICE
def predict(**options: Any) -> None:
    """Finds the people of photos and draws what they feel: OUT/PHOTO.png, OUT/PHOTO.json.

    \b
    Example:
      emoface predict runs/mter2 party.jpg
      emoface predict runs/mter2 party.jpg --boxes 10,20,200,400 --boxes 220,30,400,400
      emoface predict runs/mter2 EMOTIC/emotic/framesdb/images/a.jpg --manifest work/manifest.json
    """
    from emoface.jobs.predict import PredictConfig, run_predict

    config = PredictConfig(**options)
    run_job(run_predict, config)
    click.echo(f"predictions: {config.folder}")


@command()
@click.argument("run", type=FOLDER)
@click.argument("images", nargs=-1, type=FILE)
@click.option("--index", multiple=True, type=int, help="A person of the data set; repeat it per person.")
@click.option("--person-id", multiple=True, help="A person of the data set; repeat it per person.")
@click.option("--manifest", type=FILE, help="Their data set's manifest.json.  [default: the run's own]")
@_BOXES
@click.option("--label", "labels", multiple=True, help="Which label; repeat it.  [default: the most probable]")
@click.option("--top", default=3, show_default=True, help="How many of the most probable labels.")
@click.option("--out", type=FOLDER, help="For drawings and JSON.  [default: RUN/explain]")
@_DETECTOR
@_WEIGHTS
@_DEVICE
def explain(**options: Any) -> None:
    """Draws Grad-CAM maps on the photo, for each stream and label.

    \b
    Example:
      emoface explain runs/mter2 --index 120 --index 121
      emoface explain runs/mter2 party.jpg --label Happiness --label Peace
    """
    from emoface.jobs.explain import ExplainConfig, run_explain

    config = ExplainConfig(**options)
    run_job(run_explain, config)
    click.echo(f"explanations: {config.folder}")
