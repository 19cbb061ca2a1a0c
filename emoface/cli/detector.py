"""The commands of the face detector itself: detector export, and what trains and measures it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from emoface.cli.console import (
    ANY,
    FOLDER,
    EmofaceGroup,
    print_record,
    run_job,
    terminal_progress,
    warn_of_demonstration,
)
from emoface.cli.options import JobCommand

if TYPE_CHECKING:
    from emoface.jobs.evaluate_detector import EvaluateDetectorConfig
    from emoface.jobs.export import ExportConfig


@click.group(cls=EmofaceGroup)
def detector() -> None:
    """Trains, measures and exports YOLOv5-Face.

    \b
    Example:
      emoface detector export yolov5n-face --format onnx --out yolov5n-face.onnx
    """


@detector.command(cls=JobCommand, config="emoface.jobs.export:ExportConfig", arguments=("weights",))
def export(config: ExportConfig) -> None:
    """Writes WEIGHTS, a file or the name of weights, as one file for other programs.

    \b
    Example:
      emoface detector export yolov5n-face --format onnx --out yolov5n-face.onnx
      emoface detector export yolov5s-face.pt --format safetensors --out yolov5s-face.safetensors
    """
    from emoface.jobs.export import run_export

    print_record(run_export(config))


@detector.command()
@click.argument("train", nargs=-1, required=True, type=ANY)
@click.option("--val", required=True, type=ANY, help="Labelled photos that pick the best epoch.")
@click.option("--out", required=True, type=FOLDER, help="The run's folder.")
@click.option("--network", default="yolov5n-0.5-face", show_default=True, help="The network to train from scratch.")
@click.option("--weights", help="Fine-tune this file, or weights of this name, instead.")
@click.option("--image-size", default=320, show_default=True, help="Side of the training crops, px.")
@click.option("--epochs", default=30, show_default=True, help="Rounds through the photos.")
@click.option("--batch-size", default=16, show_default=True, help="Crops per step.")
@click.option("--learning-rate", default=0.02, show_default=True, help="After the warm-up.")
@click.option("--warmup-steps", default=300, show_default=True, help="Steps over which the rate grows.")
@click.option("--negatives-per-positive", default=300.0, show_default=True, help="Hardest negatives per positive.")
@click.option("--seed", default=0, show_default=True, help="Decides first weights, crops and order.")
@click.option("--device", help="cpu, cuda, cuda:1...; CUDA where there is one.")
def train(train: tuple[Path, ...], **options: Any) -> None:
    """Trains YOLOv5-Face on labelled photos, or goes on with a run that was broken off.

    TRAIN and --val are folders written by 'emoface simulate', label texts of WIDER FACE, or RetinaFace's texts with
    landmarks; their photos lie beside them in images/.

    \b
    Example:
      emoface detector train widerface/train/label.txt --val widerface/val/label.txt --out run
      emoface detector train faces/label.txt --val more/label.txt --weights yolov5n-face --learning-rate 0.002 --out run
    """
    from emoface.jobs.train_detector import TrainDetectorConfig, run_train_detector

    with terminal_progress() as progress:
        record = run_train_detector(TrainDetectorConfig(train=train, **options), progress)
    print_record(record)


@detector.command(cls=JobCommand, config="emoface.jobs.evaluate_detector:EvaluateDetectorConfig", arguments=("photos",))
def evaluate(config: EvaluateDetectorConfig) -> None:
    """Measures a detector on labelled photos: average precision, recall by size, landmark error.

    \b
    Example:
      emoface detector evaluate simulation --detector yolov5n-face --out measured
      emoface detector evaluate widerface/val/label.txt --weights run/best.safetensors --out measured
    """
    from emoface.jobs.evaluate_detector import run_evaluate_detector

    warn_of_demonstration(config.detector, config.weights)
    run_job(run_evaluate_detector, config)
