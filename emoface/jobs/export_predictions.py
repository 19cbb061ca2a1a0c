"""The export-predictions job: writes the predictions of an evaluated run as one file for other programs."""

from __future__ import annotations

from typing import Self

from pydantic import model_validator

from emoface.datasets.prediction_export import WRITERS, write_prediction_file
from emoface.datasets.predictions import find_predictions, read_predictions
from emoface.errors import SettingsError
from emoface.progress import SILENT, Progress
from emoface.storage.records import JobRecord, code_fingerprint, hash_inputs, hash_outputs, to_settings
from emoface.storage.settings import File, Folder, Settings, Split


class ExportPredictionsConfig(Settings):
    """Settings of the export-predictions job."""

    run: Folder
    """Folder of an evaluated run, or of scored predictions."""
    split: Split = "test"
    """Split whose predictions are written; it must have been evaluated."""
    out: File
    """File to write; the end of its name gives the form: .npy, .npz, .mat, .csv, .tsv, .parquet or .json."""

    @model_validator(mode="after")
    def _check_suffix(self) -> Self:
        if self.out.suffix.lower() not in WRITERS:
            raise SettingsError(f"{self.out}: expected a name that ends in one of {', '.join(WRITERS)}")
        return self


def run_export_predictions(config: ExportPredictionsConfig, progress: Progress = SILENT) -> JobRecord:
    """Writes the stored predictions of a split in another form; no network runs.

    Args:
        config: Settings of the job.
        progress: Receives one step.

    Returns:
        The job's record; it is not written to disk, the exported files are the only output.

    Raises:
        PredictionsError: The split has not been evaluated.
    """
    progress.start("export", 1)
    path = find_predictions(config.run, config.split)
    predictions = read_predictions(path)
    written = write_prediction_file(config.out, predictions)
    progress.advance()
    return JobRecord(
        job="export-predictions",
        settings=to_settings(config),
        inputs=hash_inputs([path]),
        outputs=hash_outputs(config.out.parent, written),
        counts={"people": len(predictions), "files": ", ".join(map(str, written))},
        code=code_fingerprint(__name__),
    )
