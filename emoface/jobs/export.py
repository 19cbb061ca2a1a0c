"""The export job: writes a detector's weights, of any known format, as one file for other programs."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, Self

from pydantic import model_validator

from emoface.errors import SettingsError
from emoface.storage.files import file_sha256
from emoface.storage.records import JobRecord, code_fingerprint, to_settings
from emoface.storage.settings import File, Settings
from emoface.storage.weights import find_weights

FORMAT_SUFFIXES = {"onnx": ".onnx", "safetensors": ".safetensors", "pt": ".pt", "torchscript": ".torchscript"}


class ExportConfig(Settings):
    """Settings of the export job."""

    weights: str
    """Weight file, or name of weights."""
    format: Literal["onnx", "safetensors", "pt", "torchscript"] = "onnx"
    """Format of the file: onnx and torchscript are models that accept any batch and image size; safetensors and pt are
    plain state dicts."""
    out: File
    """File to write; its suffix must be that of the format."""
    half: bool = False
    """Write float16 weights, which halves the size of the file; only for safetensors."""

    @model_validator(mode="after")
    def _check_suffix(self) -> Self:
        expected = FORMAT_SUFFIXES[self.format]
        if self.out.suffix != expected:
            raise SettingsError(f"{self.out}: expected a name that ends in {expected} for format {self.format}")
        return self


def run_export(config: ExportConfig) -> JobRecord:
    """Loads the weights and writes them atomically as one file.

    Args:
        config: Settings of the job.

    Returns:
        The job's record; it is not written to disk, the exported file is the only output.

    Raises:
        WeightsError: The weights are not found, are damaged, or belong to no known network.
    """
    from emoface.yolov5face import load_network, save_network

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
