"""The export-coco job: writes the people of a data set as COCO JSON, for annotation programs and for others."""

from __future__ import annotations

from emoface.annotations import write_coco
from emoface.progress import SILENT, Progress
from emoface.schema import PEOPLE_SCHEMA
from emoface.storage.records import JobRecord, code_fingerprint, hash_inputs, hash_outputs, to_settings
from emoface.storage.settings import File, Folder, Settings
from emoface.storage.tables import open_table

_REMEDY = "write it with 'emoface parse'"
_COLUMNS = [
    *("image", "source", "source_split", "image_wh", "body_bbox", "annotator_votes", "n_annotators"),
    *("valence", "arousal", "dominance", "gender", "age"),
]


class ExportCocoConfig(Settings):
    """Settings of the export-coco job."""

    dir: Folder
    """The folder with ``people.parquet``."""
    out: File | None = None
    """The JSON file to write; by default people.json in DIR."""


def run_export_coco(config: ExportCocoConfig, progress: Progress = SILENT) -> JobRecord:
    """Writes the people of ``people.parquet`` as COCO JSON, which the parse job reads back.

    Args:
        config: Settings of the job.
        progress: Receives one step.

    Returns:
        The job's record; it is not written to disk, the exported file is the only output.

    Raises:
        TableError: The table is missing or has other columns.
    """
    progress.start("export", 1)
    people_path, out = config.dir / "people.parquet", config.out or config.dir / "people.json"
    with open_table(people_path, PEOPLE_SCHEMA, _REMEDY) as opened:
        label_names = opened.label_names
        columns = [*_COLUMNS, *([] if opened.is_unlabelled else ["categories"])]
        people = opened.read(columns).to_pylist()
    n_written = write_coco(out, [{"categories": None, **row} for row in people], label_names)
    progress.advance()
    return JobRecord(
        job="export-coco",
        settings=to_settings(config),
        inputs=hash_inputs([people_path]),
        outputs=hash_outputs(out.parent, [out]),
        counts={"people": n_written, "people_without_box": len(people) - n_written, "file": str(out)},
        code=code_fingerprint(__name__),
    )
