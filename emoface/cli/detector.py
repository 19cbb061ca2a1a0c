"""The commands of the face detector itself: detector export, and what trains and measures it."""

from __future__ import annotations

from pathlib import Path

import click

from emoface.cli.console import FILE, EmofaceGroup, print_record


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
def export(weights: str, format: str, out: Path) -> None:
    """Writes WEIGHTS, a file or the name of weights, as one file for other programs.

    \b
    Example:
      emoface detector export yolov5n-face --format onnx --out yolov5n-face.onnx
      emoface detector export yolov5s-face.pt --format safetensors --out yolov5s-face.safetensors
    """
    from emoface.jobs.export import ExportConfig, run_export

    print_record(run_export(ExportConfig(weights=weights, format=format, out=out)))
