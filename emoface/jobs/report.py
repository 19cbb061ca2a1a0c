"""The report job: audits the balance of the labels, of all people and of those with a face, as charts and one page.

It reports on the files that exist: ``people.parquet`` is enough; faces, splits and parse notes are included if their
job has run. The numbers are computed in ``emoface.auditing``, one file per subject.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from emoface.auditing.agreement import audit_agreement
from emoface.auditing.data_set import READ_NAMES, DataSet, read_data_set
from emoface.auditing.dimensions import audit_dimensions
from emoface.auditing.faces import audit_faces
from emoface.auditing.groups import audit_face_loss, audit_groups
from emoface.auditing.label_errors import audit_label_errors, find_prediction_files
from emoface.auditing.labels import compute_before_and_after
from emoface.auditing.limits import find_broken_limits, read_limits
from emoface.auditing.origin import PROVENANCE, SHOWN_FACTS, compare_with_published, describe_provenance
from emoface.auditing.photos import HASHES_NAME, audit_face_quality, audit_near_duplicates
from emoface.auditing.sheets import draw_sheets
from emoface.auditing.splits import audit_annotated_again, audit_split
from emoface.progress import SILENT, Progress
from emoface.reporting.audit_page import TEMPLATE, name_groups, write_audit_figures, write_audit_page
from emoface.reporting.pages import hash_template
from emoface.schema import SPLITS
from emoface.storage.files import write_text
from emoface.storage.locks import locked
from emoface.storage.records import JobRecord, fact_inputs, finish_job, hash_inputs
from emoface.storage.settings import File, Folder, Seed, Settings
from emoface.version import __version__


class ReportConfig(Settings):
    """Settings of the report job."""

    dir: Folder
    """The folder with ``people.parquet``."""
    seed: Seed = 0
    """Random seed for the choice of people on the contact sheets."""
    photo_checks: bool = True
    """Compare all photos for near-duplicates, and measure how sharp and bright every face is; EMOTIC takes a minute or
    two, and less when it is repeated."""
    run: Folder | None = None
    """Folder of an evaluated run of this data set: labels that its predictions of val and test contradict are listed
    as likely errors. Needs the package cleanlab."""
    predictions: File | None = None
    """A predictions.parquet of people of this data set, to list likely label errors by. Needs the package cleanlab."""
    check: File | None = None
    """A TOML file of limits, such as max_share_without_face = 0.3; the command names every limit that is broken and
    exits with 1."""


@locked("dir")
def run_report(config: ReportConfig, progress: Progress = SILENT) -> JobRecord:
    """Computes the audit of a data set, and writes the charts and the audit page.

    Args:
        config: Settings of the report.
        progress: Receives one step per part of the work, and one per photo that is compared.

    Returns:
        The job's record; ``DIR/report/`` holds the label histograms and the co-occurrence as PNG, SVG and CSV,
        ``audit.json`` and the self-contained ``audit.html``; ``info["broken_limits"]`` names the broken limits.

    Raises:
        TableError: ``people.parquet`` is missing, or a table does not have the expected columns or people.
        PredictionsError: The predictions are missing, or are not of people of the data set.
        SettingsError: The limits cannot be read.
    """
    limits = None if config.check is None else read_limits(config.check)
    prediction_files = find_prediction_files(config.run, config.predictions)
    report_dir = config.dir / "report"
    data = read_data_set(config.dir)
    near_duplicates = audit_near_duplicates(data, report_dir, progress) if config.photo_checks else None
    progress.start("report", 3)
    audit = {
        **_audit(data),
        "photo_checks": config.photo_checks,
        "near_duplicates": near_duplicates,
        "face_quality": audit_face_quality(data) if config.photo_checks else None,
        "label_errors": audit_label_errors(data, prediction_files),
    }
    audit["broken_limits"] = None if limits is None else find_broken_limits(limits, audit)
    progress.advance()
    outputs = write_audit_figures(report_dir, audit["labels"])
    progress.advance()
    json_path, page_path = report_dir / "audit.json", report_dir / "audit.html"
    write_text(json_path, json.dumps(audit, indent=2, ensure_ascii=False, allow_nan=False) + "\n")
    sheets = draw_sheets(data, audit, np.random.default_rng(config.seed))
    write_audit_page(page_path, audit, sheets, data.notes or [])
    progress.advance()
    kept = [] if near_duplicates is None else [report_dir / HASHES_NAME]
    given = [*prediction_files, *([] if config.check is None else [config.check])]
    return finish_job(
        "report",
        config,
        config.dir,
        module=__name__,
        inputs={
            **hash_inputs([*(config.dir / name for name in READ_NAMES), *given]),
            **hash_template(TEMPLATE),
            **{path: value for job in PROVENANCE for path, value in fact_inputs(config.dir, job, SHOWN_FACTS).items()},
        },
        outputs=[*outputs, *kept, json_path, page_path],
        counts=_count(audit),
        info={"broken_limits": audit["broken_limits"]},
    )


def _audit(data: DataSet) -> dict[str, Any]:
    """The content of ``audit.json`` that the tables alone decide."""
    all_rows = np.arange(data.people.num_rows)
    return {
        "emoface_version": __version__,
        "label_names": list(data.label_names),
        "gaps": data.gaps,
        "people": {
            "people": data.people.num_rows,
            "photos": len(data.images),
            "photos_missing": data.n_missing_photos,
            "by_source": _count_values(data.people["source"], data.sources),
            "by_source_split": _count_values(data.people["source_split"], SPLITS),
        },
        "faces": audit_faces(data),
        "face_loss": audit_face_loss(data),
        "groups": audit_groups(data),
        "dimensions": audit_dimensions(data),
        "agreement": audit_agreement(data),
        "labels": {
            **compute_before_and_after(data, all_rows),
            "splits": {name: compute_before_and_after(data, rows) for name, rows in data.rows_of.items()},
        },
        "split": audit_split(data),
        "annotated_again": audit_annotated_again(data),
        "parse_notes": None
        if data.notes is None
        else {
            "notes": len(data.notes),
            "by_kind": dict(Counter(note["what"] for note in data.notes).most_common()),
        },
        "published": compare_with_published(data),
        "provenance": describe_provenance(data),
    }


def _count_values(column: pa.ChunkedArray, names: Sequence[str]) -> dict[str, int]:
    counts = Counter(column.to_pylist())
    return {name: counts[name] for name in names}


def _count(audit: dict[str, Any]) -> dict[str, Any]:
    """The counts of the job's record, which the command line shows."""
    labels, faces = audit["labels"], audit["faces"]
    counts: dict[str, Any] = {"people": audit["people"]["people"], "photos": audit["people"]["photos"]}
    if faces is not None:
        counts |= {"faces": faces["found"], "empty": faces["empty"]}
    metrics = ("label_cardinality", "label_density", "mean_imbalance_ratio", "imbalance_ratio_cv", "scumble")
    for name, group in name_groups(labels):
        counts[name] = {metric: group[metric] for metric in metrics}
    return counts
