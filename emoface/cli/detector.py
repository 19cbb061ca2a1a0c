"""The commands that train, evaluate and export the face detector: detector train, evaluate and export."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from emoface.cli.console import (
    EmofaceGroup,
    print_record,
    run_job,
    warn_of_demonstration,
)
from emoface.cli.options import JobCommand

if TYPE_CHECKING:
    from emoface.jobs.evaluate_detector import EvaluateDetectorConfig
    from emoface.jobs.export_detector import ExportDetectorConfig
    from emoface.jobs.train_detector import TrainDetectorConfig


@click.group(cls=EmofaceGroup)
def detector() -> None:
    """Trains, evaluates and exports the face detector YOLOv5-Face.

    \b
    Example:
      emoface detector export yolov5n-face --format onnx --out yolov5n-face.onnx
    """


@detector.command(cls=JobCommand, config="emoface.jobs.export_detector:ExportDetectorConfig", arguments=("weights",))
def export(config: ExportDetectorConfig) -> None:
    """Exports WEIGHTS (a weight file, or the name of weights) as one file for other programs.

    \b
    Example:
      emoface detector export yolov5n-face --format onnx --out yolov5n-face.onnx
      emoface detector export yolov5s-face.pt --format safetensors --out yolov5s-face.safetensors
    """
    from emoface.jobs.export_detector import run_export_detector

    print_record(run_export_detector(config))


@detector.command(
    cls=JobCommand,
    config="emoface.jobs.train_detector:TrainDetectorConfig",
    arguments=("train",),
    hidden=("momentum", "weight_decay", "decay_at", "ema_decay"),
)
def train(config: TrainDetectorConfig) -> None:
    """Trains YOLOv5-Face on labelled photos, or resumes an interrupted run.

    TRAIN and --val are folders written by 'emoface simulate', label files of WIDER FACE, or RetinaFace's label files
    with landmarks. The photos of a label file must be in the folder images/ beside it.

    \b
    Example:
      emoface detector train widerface/train/label.txt --val widerface/val/label.txt --out run
      emoface detector train faces/label.txt --val more/label.txt --weights yolov5n-face --learning-rate 0.002 --out run
    """
    from emoface.jobs.train_detector import run_train_detector

    run_job(run_train_detector, config)


@detector.command(cls=JobCommand, config="emoface.jobs.evaluate_detector:EvaluateDetectorConfig", arguments=("photos",))
def evaluate(config: EvaluateDetectorConfig) -> None:
    """Evaluates a detector on labelled PHOTOS: average precision, recall by face size, landmark error.

    PHOTOS is a folder written by 'emoface simulate', or a label file of WIDER FACE or RetinaFace.

    \b
    Example:
      emoface detector evaluate simulation --detector yolov5n-face --out measured
      emoface detector evaluate widerface/val/label.txt --weights run/best.safetensors --out measured
    """
    from emoface.jobs.evaluate_detector import run_evaluate_detector

    warn_of_demonstration(config.detector, config.weights)
    run_job(run_evaluate_detector, config)
