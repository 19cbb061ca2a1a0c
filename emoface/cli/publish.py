"""The commands that hand a data set or a model to other programs and people: push, upload, export-fiftyone."""

from __future__ import annotations

from typing import TYPE_CHECKING

from emoface.cli.console import run_job
from emoface.cli.options import job_command

if TYPE_CHECKING:
    from emoface.jobs.export_fiftyone import ExportFiftyoneConfig
    from emoface.jobs.push import PushConfig
    from emoface.jobs.upload import UploadConfig


@job_command(config="emoface.jobs.push:PushConfig", arguments=("folder", "repo"))
def push(config: PushConfig) -> None:
    """Uploads FOLDER, an exported model or a data set, to the repository REPO of the Hugging Face Hub.

    Photos are never uploaded, and crops of faces only with --with-crops. EMOTIC's licence does not allow to pass on its
    annotations: keep repositories with EMOTIC private, and for yourself.

    \b
    Example:
      emoface push mter2 me/mter2
      emoface push mine-work me/street-photos --license cc-by-4.0 --public
    """
    from emoface.jobs.push import run_push

    run_job(run_push, config)


@job_command(config="emoface.jobs.upload:UploadConfig", arguments=("dir", "url"))
def upload(config: UploadConfig) -> None:
    """Copies the finished data set in DIR to URL in an object store, so that other machines train on it.

    The tables are copied as they are, with the crops of faces: the store has to be your own. Photos are not copied.
    What is there already is not sent again. Afterwards, train --manifest URL/manifest.json reads the copy.

    \b
    Example:
      emoface upload work s3://bucket/emotic_face
      emoface upload work s3://bucket/emotic_face --images s3://bucket/emotic
    """
    from emoface.jobs.upload import run_upload

    run_job(run_upload, config)


@job_command(config="emoface.jobs.export_fiftyone:ExportFiftyoneConfig", arguments=("dir",))
def export_fiftyone(config: ExportFiftyoneConfig) -> None:
    """Writes the data set in DIR for FiftyOne: people, faces and labels, and the predictions of a run.

    The photos stay where they are. In Python, fiftyone.Dataset.from_dir("OUT", fiftyone.types.FiftyOneDataset) opens
    what was written.

    \b
    Example:
      emoface export-fiftyone work --out work-fiftyone
      emoface export-fiftyone work --out work-fiftyone --run runs/mter2
    """
    from emoface.jobs.export_fiftyone import run_export_fiftyone

    run_job(run_export_fiftyone, config)
