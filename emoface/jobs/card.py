"""The card job: writes the card of a data set, and its description in the Croissant format, beside its manifest."""

from __future__ import annotations

from emoface.datasets.manifest import MANIFEST_NAME, read_manifest
from emoface.progress import SILENT, Progress
from emoface.reporting.data_card import DataCard, write_data_card
from emoface.storage.locks import locked
from emoface.storage.records import JobRecord, code_fingerprint, hash_inputs, hash_outputs, to_settings
from emoface.storage.settings import Folder, Line, Settings


class CardConfig(Settings):
    """Settings of the card job."""

    dir: Folder
    """Folder of the data set, with manifest.json; README.md and croissant.json are written there."""
    name: Line | None = None
    """Name of the data set; by default that of its folder."""
    license: Line = "other"
    """Licence of the data set, as an identifier of the Hugging Face Hub such as cc-by-4.0; other says that it is not
    known to emoface."""


@locked("dir")
def run_card(config: CardConfig, progress: Progress = SILENT) -> JobRecord:
    """Writes ``README.md`` and ``croissant.json`` of a data set, from what its manifest says.

    Args:
        config: Settings of the job.
        progress: Receives one step.

    Returns:
        The job's record; it is not written to disk, the two files are the only output.

    Raises:
        TableError: The manifest or a table is missing, or a table is not what the manifest says.
        SettingsError: ``README.md`` is there and was not written by this job.
    """
    progress.start("card", 1)
    manifest = read_manifest(config.dir / MANIFEST_NAME, check_sha256=True)
    audit = config.dir / "report" / "audit.html"
    card = DataCard(config.name or config.dir.resolve().name, config.license, has_audit=audit.is_file())
    written = write_data_card(manifest, card)
    progress.advance()
    return JobRecord(
        job="card",
        settings=to_settings(config),
        inputs=hash_inputs([manifest.path]),
        outputs=hash_outputs(config.dir, written),
        counts={"people": sum(one.rows for one in manifest.splits.values()), "written": ", ".join(map(str, written))},
        code=code_fingerprint(__name__),
    )
