"""The export job: a detector's weights, of whatever format, written as one file that other programs run."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, Self

from pydantic import model_validator

from emoface.errors import SettingsError
from emoface.storage.files import file_sha256
from emoface.storage.records import JobRecord, code_fingerprint, to_settings
from emoface.storage.settings import File, Settings
from emoface.storage.weights import find_weights
from emoface.yolov5face import load_network, save_network

FORMAT_SUFFIXES = {"onnx": ".onnx", "safetensors": ".safetensors", "pt": ".pt", "torchscript": ".torchscript"}


class ExportConfig(Settings):
    """Settings of the export job."""

    weights: str
    """A weight file, or the name of weights."""
    format: Literal["onnx", "safetensors", "pt", "torchscript"] = "onnx"
    """Format of the file: onnx and torchscript take any batch and size; safetensors and pt are plain state dicts."""
    out: File
    """The file to write, with the format's suffix."""
    half: bool = False
    """Write float16 weights, half as large; for safetensors alone."""

    @model_validator(mode="after")
    def _check_suffix(self) -> Self:
        wanted = FORMAT_SUFFIXES[self.format]
        if self.out.suffix != wanted:
            raise SettingsError(f"{self.out}: expected a name that ends in {wanted} for format {self.format}")
        return self


def run_export(config: ExportConfig) -> JobRecord:
    """Writes the file in one step.

    Args:
        config: What to export, and how.

    Returns:
        The job's record; it is not kept, the file is all there is.

    Raises:
        WeightsError: The weights are nowhere, damaged, or of no known network.
    """
    path = Path(config.weights)
    found = find_weights(path.stem, path) if path.is_file() else find_weights(config.weights)
    network = load_network(found.path, found.network)
    save_network(network, config.out, config.half)
    return JobRecord(
        job="export",
        settings=to_settings(config),
        inputs={str(found.path): found.sha256},
        outputs={config.out.name: file_sha256(config.out)},
        counts={
            "network": network.name,
            "parameters": sum(parameter.numel() for parameter in network.parameters()),
            "bytes": config.out.stat().st_size,
            "file": str(config.out),
        },
        code=code_fingerprint(__name__),
    )
