"""The commands of the face detector itself: detector export, and what trains and measures it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from emoface.cli.console import ANY, FILE, FOLDER, EmofaceGroup, print_record, terminal_progress, warn_of_demonstration
from emoface.cli.options import JobCommand

if TYPE_CHECKING:
    from emoface.jobs.train_detector import TrainDetectorConfig


@click.group(cls=EmofaceGroup)
def detector() -> None:
    """Trains, measures and exports YOLOv5-Face.

    \b
    Example:
      emoface detector export yolov5n-face --format onnx --out yolov5n-face.onnx
    """


@detector.command()
@click.argument("weights")
@click.option(
    "--format",
    type=click.Choice(["onnx", "safetensors", "pt", "torchscript"]),
    default="onnx",
    show_default=True,
    help="onnx and torchscript take any batch and size; safetensors and pt are state dicts.",
)
@click.option("--out", required=True, type=FILE, help="The file to write.")
@click.option("--half", is_flag=True, help="Write float16, half as large; safetensors alone.")
def export(weights: str, format: str, out: Path, half: bool) -> None:
    """Writes WEIGHTS, a file or the name of weights, as one file for other programs.

    \b
    Example:
      emoface detector export yolov5n-face --format onnx --out yolov5n-face.onnx
      emoface detector export yolov5s-face.pt --format safetensors --out yolov5s-face.safetensors
    """
    from emoface.jobs.export import ExportConfig, run_export

    print_record(run_export(ExportConfig(weights=weights, format=format, out=out, half=half)))


@detector.command(
    cls=JobCommand,
    config="emoface.jobs.train_detector:TrainDetectorConfig",
    arguments=("train",),
    hidden=("momentum", "weight_decay", "decay_at", "ema_decay"),
)
def train(config: TrainDetectorConfig) -> None:
    """Trains YOLOv5-Face on labelled photos, or goes on with a run that was broken off.

    TRAIN and --val are folders written by 'emoface simulate', label texts of WIDER FACE, or RetinaFace's texts with
    landmarks; their photos lie beside them in images/.

    \b
    Example:
      emoface detector train widerface/train/label.txt --val widerface/val/label.txt --out run
      emoface detector train faces/label.txt --val more/label.txt --weights yolov5n-face --learning-rate 0.002 --out run
    """
    from emoface.jobs.train_detector import run_train_detector

    with terminal_progress() as progress:
        record = run_train_detector(config, progress)
    print_record(record)


@detector.command()
@click.argument("photos", type=ANY)
@click.option("--out", required=True, type=FOLDER, help="Folder for detector.json.")
@click.option("--detector", default="yolov5n-face", show_default=True, help="Name of the detector's weights.")
@click.option("--weights", type=FILE, help="A weight file, instead of looking the name up.")
@click.option("--images", type=FOLDER, help="Folder of the photos, where it is not beside the labels.")
@click.option(
    "--backend", type=click.Choice(["auto", "onnx", "torch", "hub"]), default="auto", show_default=True, help="Engine."
)
@click.option("--image-size", default=640, show_default=True, help="Longer side of the network's input.")
@click.option("--conf-threshold", default=0.5, show_default=True, help="For recall and false faces.")
@click.option("--iou-threshold", default=0.5, show_default=True, help="Of non-maximum suppression.")
@click.option("--max-photos", type=int, help="Measure only the first so many.")
@click.option("--wider-truth", type=FOLDER, help="Folder of WIDER FACE's .mat files, for easy, medium and hard.")
def evaluate(photos: Path, **options: Any) -> None:
    """Measures a detector on labelled photos: average precision, recall by size, landmark error.

    \b
    Example:
      emoface detector evaluate simulation --detector yolov5n-face --out measured
      emoface detector evaluate widerface/val/label.txt --weights run/best.safetensors --out measured
    """
    from emoface.jobs.evaluate_detector import EvaluateDetectorConfig, run_evaluate_detector

    config = EvaluateDetectorConfig(photos=photos, **options)
    warn_of_demonstration(config.detector, config.weights)
    with terminal_progress() as progress:
        record = run_evaluate_detector(config, progress)
    print_record(record)
