"""The export-detector job: writes a detector's weights, of any known format, as one file for other programs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal, Self

from pydantic import model_validator

from emoface.errors import SettingsError
from emoface.storage.files import file_sha256, write_bytes
from emoface.storage.records import JobRecord, code_fingerprint, to_settings
from emoface.storage.settings import File, Settings
from emoface.storage.weights import find_weights

if TYPE_CHECKING:
    from emoface.yolov5face import NetworkWeights

FORMAT_SUFFIXES = {"onnx": ".onnx", "safetensors": ".safetensors", "pt": ".pt", "torchscript": ".torchscript"}


class ExportDetectorConfig(Settings):
    """Settings of the export-detector job."""

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


def run_export_detector(config: ExportDetectorConfig) -> JobRecord:
    """Loads the weights and writes them atomically as one file.

    Args:
        config: Settings of the job.

    Returns:
        The job's record; it is not written to disk, the exported file is the only output.

    Raises:
        WeightsError: The weights are not found, are damaged, or belong to no known network.
    """
    from emoface.yolov5face import read_weights

    path = Path(config.weights)
    found = find_weights(path.stem, path) if path.is_file() else find_weights(config.weights)
    weights = read_weights(found.path, found.network)
    _write(weights, config)
    return JobRecord(
        job="export",
        settings=to_settings(config),
        inputs={str(found.path): found.sha256},
        outputs={config.out.name: file_sha256(config.out)},
        counts={
            "network": weights.name,
            "parameters": weights.n_parameters,
            "bytes": config.out.stat().st_size,
            "file": str(config.out),
        },
        code=code_fingerprint(__name__),
    )


def _write(weights: NetworkWeights, config: ExportDetectorConfig) -> None:
    """Writes the file; ONNX is written without torch."""
    if config.format == "onnx" and not config.half:
        from emoface.yolov5face.onnx_files import to_onnx

        write_bytes(config.out, to_onnx(weights))
        return
    from emoface.yolov5face.loading import save_network, to_network

    save_network(to_network(weights), config.out, config.half)
