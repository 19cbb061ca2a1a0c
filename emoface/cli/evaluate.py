"""The commands that look at trained models: evaluate, compare, predict, explain."""

from __future__ import annotations

from typing import Any

import click

from emoface.cli.console import FILE, FOLDER, command, print_record, terminal_progress

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


class BoxType(click.ParamType):  # type: ignore[type-arg]  # generic in newer versions alone
    """``x1,y1,x2,y2`` in pixels."""

    name = "x1,y1,x2,y2"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[float, float, float, float]:
        """Four numbers from text."""
        try:
            x1, y1, x2, y2 = (float(part) for part in str(value).split(","))
        except ValueError:
            self.fail(f"'{value}' is no box, expected four numbers x1,y1,x2,y2", param, ctx)
        return x1, y1, x2, y2


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
    with terminal_progress() as progress:
        record = run_predict(config, progress)
    print_record(record)
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
    with terminal_progress() as progress:
        record = run_explain(config, progress)
    print_record(record)
    click.echo(f"explanations: {config.folder}")
