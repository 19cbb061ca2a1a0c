"""The export job: a trained model as an ONNX file, or as a folder with its weights, settings and model card."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import model_validator

from emoface.errors import SettingsError
from emoface.mter.exported import CARD_NAME, CONFIG_NAME, WEIGHTS_NAME, describe_model, read_model_folder, write_config
from emoface.mter.run_card import describe_results
from emoface.mter.runs import Run
from emoface.progress import SILENT, Progress
from emoface.reporting.model_card import render_model_card
from emoface.storage.files import atomic_path, file_sha256, write_text
from emoface.storage.records import JobRecord, code_fingerprint, to_settings
from emoface.storage.settings import Folder, Settings

ONNX_SUFFIX = ".onnx"


class ExportConfig(Settings):
    """Settings of the export job."""

    run: Folder
    """Folder of the finished training run, or a folder that was exported from one."""
    format: Literal["onnx", "folder"] = "onnx"
    """What is written: onnx is one file that runs without torch, folder has the weights as safetensors, the settings,
    and a model card for the Hugging Face Hub."""
    out: Path
    """File or folder to write; a file's name ends in .onnx."""

    @model_validator(mode="after")
    def _check_out(self) -> Self:
        is_file = self.out.suffix == ONNX_SUFFIX
        if self.format == "onnx" and not is_file:
            raise SettingsError(f"{self.out}: expected a name that ends in {ONNX_SUFFIX} for format onnx")
        if self.format == "folder" and (is_file or self.out.is_file()):
            raise SettingsError(f"{self.out}: expected a folder for format folder, found a file")
        return self


def run_export(config: ExportConfig, progress: Progress = SILENT) -> JobRecord:
    """Exports the best weights of a run.

    Args:
        config: Settings of the job.
        progress: Receives one step.

    Returns:
        The job's record; it is not written to disk, the exported files are the only output.

    Raises:
        SettingsError: The folder is not a finished run, or the folder to write to holds something else.
        WeightsError: The weights cannot be read, or ONNX Runtime computes other outputs than torch.
    """
    progress.start("export", 1)
    run = read_model_folder(config.run)
    counts: dict[str, Any] = {"model": run.model_name}
    if config.format == "onnx":
        counts |= _write_onnx(run, config.out)
        outputs = [config.out]
    else:
        counts |= _write_folder(run, config.out)
        outputs = [config.out / name for name in (WEIGHTS_NAME, CARD_NAME, CONFIG_NAME)]
    progress.advance()
    return JobRecord(
        job="export",
        settings=to_settings(config),
        inputs={str(run.weights_path): file_sha256(run.weights_path)},
        outputs={path.name: file_sha256(path) for path in outputs},
        counts={**counts, "bytes": sum(path.stat().st_size for path in outputs), "written": str(config.out)},
        code=code_fingerprint(__name__),
    )


def _write_onnx(run: Run, path: Path) -> dict[str, Any]:
    from emoface.mter.onnx_files import write_onnx

    model = run.load_model()
    config = describe_model(run, model) | describe_results(run)
    return {"largest_difference_of_logits": write_onnx(path, model, run.stream_sizes, config)}


def _write_folder(run: Run, folder: Path) -> dict[str, Any]:
    """Writes weights, model card and, last, the settings."""
    if folder.is_dir() and not (folder / CONFIG_NAME).is_file() and any(folder.iterdir()):
        raise SettingsError(f"{folder}: holds files that are no exported model; choose an empty or a new folder")
    if folder.resolve() == run.path.resolve():
        raise SettingsError(f"{folder}: is the folder to export; choose another folder to write to")
    model = run.load_model()  # an error if the weights do not fit the network
    config = describe_model(run, model) | describe_results(run)
    (folder / CONFIG_NAME).unlink(missing_ok=True)
    with atomic_path(folder / WEIGHTS_NAME) as temporary:
        shutil.copyfile(run.weights_path, temporary)
    write_text(folder / CARD_NAME, render_model_card(config))
    write_config(folder, config)
    return {"evaluated_splits": len(config["evaluations"])}
