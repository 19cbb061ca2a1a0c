"""The report job: audits the balance of the labels, of all people and of those with a face, as charts and one page.

It reports on the files that exist: ``people.parquet`` is enough; faces, splits and parse notes are included if their
job has run.
"""

from __future__ import annotations

import csv
import io
import json
import platform
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from emoface.datasets.manifest import MANIFEST_NAME, Manifest, read_manifest
from emoface.datasets.people import find_first_rows
from emoface.datasets.photos import IMAGE_ROOT, PhotoFolder
from emoface.errors import TableError
from emoface.labels.repeated import count_split_pairs, find_leaks
from emoface.labels.statistics import (
    co_occurrence,
    imbalance_ratio_cv,
    imbalance_ratios,
    label_cardinality,
    label_counts,
    label_density,
    mean_imbalance_ratio,
    scumble,
)
from emoface.labels.stratification import MIN_PEOPLE
from emoface.progress import SILENT, Progress
from emoface.reporting.audit_page import TEMPLATE, name_groups, write_audit_figures, write_audit_page
from emoface.reporting.pages import hash_template
from emoface.reporting.thumbnails import thumbnail_of_body, thumbnail_of_face
from emoface.schema import (
    CATEGORIES,
    EMPTY_FACE_REASONS,
    FACE_FOUND,
    FACES_SCHEMA,
    PARSE_NOTE_COLUMNS,
    PEOPLE_SCHEMA,
    SOURCES,
    SPLIT_SCHEMA,
    SPLITS,
    label_names_of,
)
from emoface.storage.cards import read_card
from emoface.storage.csv_files import restore
from emoface.storage.files import read_text, write_text
from emoface.storage.locks import locked
from emoface.storage.records import (
    ALL_INFO,
    JobRecord,
    fact_inputs,
    finish_job,
    hash_inputs,
    read_record,
    to_json_number,
    to_json_numbers,
)
from emoface.storage.settings import Folder, Seed, Settings
from emoface.storage.tables import open_table, read_table, vectors_to_array
from emoface.version import __version__

QUANTILES: tuple[float, ...] = (0, 0.05, 0.25, 0.5, 0.75, 0.95, 1)
_N_FACES, _N_EMPTIES, _N_UNCERTAIN = 24, 12, 24
_MARGIN_EDGES: tuple[float, ...] = (0, 1, 2, 3, 4, 5, 6)
"""Bins of the histogram of assignment margins; none is above ``HeadPrior.max_cost``."""
_READ_NAMES = ("people.parquet", "faces.parquet", MANIFEST_NAME, "parse_notes.csv")
"""Files that the audit reads if they exist."""
_PROVENANCE = ("parse", "faces", "split")
"""Jobs whose records the audit shows."""
_SHOWN_FACTS = ("version", "code", "inputs", ALL_INFO)
"""What it shows of each record."""
_PEOPLE_COLUMNS = [
    *("index", "person_id", "image", "source", "source_split", "image_wh"),
    *("body_bbox", "categories", "labels", "gender", "age", "same_person_as"),
]
_TRAIN = SPLITS.index("train")
_PEOPLE_REMEDY = "rebuild it with 'emoface parse EMOTIC_ROOT --out DIR'"
_FACES_REMEDY = "rebuild it with 'emoface faces DIR'"
_SPLIT_REMEDY = "rebuild it with 'emoface split DIR'"


class ReportConfig(Settings):
    """Settings of the report job."""

    dir: Folder
    """The folder with ``people.parquet``."""
    seed: Seed = 0
    """Random seed for the choice of people on the contact sheets."""


@dataclass(frozen=True)
class DataSet:
    """The data set to report on; people are identified by their row in ``people.parquet``.

    Attributes:
        dir: Folder of the data set.
        people: n rows of ``people.parquet``, only the columns that the audit needs.
        label_names: The names of the labels.
        indicator: (n, n_labels) labels, 0 or 1.
        first_row: (n,) the first row of the same person, because a person may be annotated more than once.
        faces: n rows of ``faces.parquet`` without the pixels; None before ``faces`` ran.
        has_face: (n,) whether the face was found; None before ``faces`` ran.
        rows_of: Row numbers of the people of each split.
        manifest: Manifest of the splits; None before ``split`` ran, the splits are then EMOTIC's own.
        notes: The rows of ``parse_notes.csv``; None if there is no such file.
        gaps: What is missing or out of date, each with the command that fixes it.
    """

    dir: Path
    people: pa.Table
    label_names: tuple[str, ...]
    indicator: NDArray[np.uint8]
    first_row: NDArray[np.int64]
    faces: pa.Table | None
    has_face: NDArray[np.bool_] | None
    rows_of: Mapping[str, NDArray[np.int64]]
    manifest: Manifest | None
    notes: list[dict[str, str]] | None
    gaps: list[dict[str, str]]


@locked("dir")
def run_report(config: ReportConfig, progress: Progress = SILENT) -> JobRecord:
    """Computes label statistics and face counts of a data set, and writes the charts and the audit page.

    Args:
        config: Settings of the report.
        progress: Receives one step per part of the work.

    Returns:
        The job's record; ``DIR/report/`` holds the label histograms and the co-occurrence as PNG, SVG and CSV,
        ``audit.json`` and the self-contained ``audit.html``.

    Raises:
        TableError: ``people.parquet`` is missing, or a table does not have the expected columns or people.
    """
    progress.start("report", 5)
    data = _read_data_set(config.dir)
    progress.advance()
    audit = _audit(data)
    progress.advance()
    report_dir = config.dir / "report"
    outputs = write_audit_figures(report_dir, audit["labels"])
    progress.advance()
    least_certain = [] if audit["faces"] is None else audit["faces"]["assignment_margin"]["least_certain"]
    sheets = _draw_sheets(data, least_certain, np.random.default_rng(config.seed))
    progress.advance()
    json_path, page_path = report_dir / "audit.json", report_dir / "audit.html"
    write_text(json_path, json.dumps(audit, indent=2, ensure_ascii=False, allow_nan=False) + "\n")
    write_audit_page(page_path, audit, sheets, data.notes or [])
    progress.advance()
    return finish_job(
        "report",
        config,
        config.dir,
        module=__name__,
        inputs={
            **hash_inputs(config.dir / name for name in _READ_NAMES),
            **hash_template(TEMPLATE),
            **{
                path: value for job in _PROVENANCE for path, value in fact_inputs(config.dir, job, _SHOWN_FACTS).items()
            },
        },
        outputs=[*outputs, json_path, page_path],
        counts=_count(audit),
    )


def _read_data_set(folder: Path) -> DataSet:
    people = read_table(folder / "people.parquet", PEOPLE_SCHEMA, _PEOPLE_REMEDY, _PEOPLE_COLUMNS)
    gaps: list[dict[str, str]] = []
    faces = _read_faces(folder, people, gaps)
    has_face = None if faces is None else np.array(faces["face_status"].to_pylist(), dtype=object) == FACE_FOUND
    manifest = _read_manifest(folder, gaps)
    label_names = label_names_of(people.schema)
    indicator = np.nan_to_num(vectors_to_array(people["labels"], len(label_names))).astype(np.uint8)
    return DataSet(
        dir=folder,
        people=people,
        label_names=label_names,
        indicator=indicator,
        first_row=find_first_rows(people),
        faces=faces,
        has_face=has_face,
        rows_of=_source_splits(people) if manifest is None else _read_splits(manifest, people, faces, gaps),
        manifest=manifest,
        notes=_read_notes(folder, gaps),
        gaps=gaps,
    )


def _read_faces(folder: Path, people: pa.Table, gaps: list[dict[str, str]]) -> pa.Table | None:
    path = folder / "faces.parquet"
    if not path.is_file():
        gaps.append({"what": "The faces have not been detected yet.", "command": f"emoface faces {folder.name}"})
        return None
    faces = read_table(path, FACES_SCHEMA, _FACES_REMEDY, [name for name in FACES_SCHEMA.names if name != "face"])
    if not faces["person_id"].equals(people["person_id"]):
        raise TableError(
            f"{path}: its {faces.num_rows} rows are not the {people.num_rows} people of people.parquet, in that "
            f"order; {_FACES_REMEDY}"
        )
    return faces


def _read_manifest(folder: Path, gaps: list[dict[str, str]]) -> Manifest | None:
    """Reads the manifest; without it the splits are ignored, because it is written after them."""
    if (folder / MANIFEST_NAME).is_file():
        return read_manifest(folder / MANIFEST_NAME)
    gaps.append(
        {
            "what": "The people have not been split yet; the splits shown here are those of the annotations.",
            "command": f"emoface split {folder.name}",
        }
    )
    return None


def _read_splits(
    manifest: Manifest, people: pa.Table, faces: pa.Table | None, gaps: list[dict[str, str]]
) -> dict[str, NDArray[np.int64]]:
    """Row numbers of each split; unknown people in a split are an error, outdated faces in it are a gap."""
    row_of = {person_id: row for row, person_id in enumerate(people["person_id"].to_pylist())}
    statuses = None if faces is None else np.array(faces["face_status"].to_pylist(), dtype=object)
    rows_of: dict[str, NDArray[np.int64]] = {}
    is_stale = False
    for name in SPLITS:
        path = manifest.split_path(name)
        table = read_table(path, SPLIT_SCHEMA, _SPLIT_REMEDY, ["person_id", "face_status"])
        rows = [row_of.get(person_id, -1) for person_id in table["person_id"].to_pylist()]
        if -1 in rows:
            unknown_id = table["person_id"][rows.index(-1)].as_py()
            raise TableError(f"{path}: {unknown_id} is not in people.parquet; {_SPLIT_REMEDY}")
        rows_of[name] = np.array(rows, dtype=np.int64)
        is_stale |= statuses is not None and table["face_status"].to_pylist() != statuses[rows_of[name]].tolist()
    if is_stale:
        gaps.append(
            {
                "what": "The faces were detected again after the splits were written; this page uses the people of "
                "those splits and the new faces.",
                "command": f"emoface split {manifest.path.parent.name}",
            }
        )
    return rows_of


def _source_splits(people: pa.Table) -> dict[str, NDArray[np.int64]]:
    names = np.array(people["source_split"].to_pylist(), dtype=object)
    return {name: np.flatnonzero(names == name) for name in SPLITS}


def _read_notes(folder: Path, gaps: list[dict[str, str]]) -> list[dict[str, str]] | None:
    path = folder / "parse_notes.csv"
    if not path.is_file():
        gaps.append(
            {
                "what": "The list of irregular annotations (parse_notes.csv) is missing.",
                "command": f"emoface parse EMOTIC_ROOT --out {folder.name}",
            }
        )
        return None
    with io.StringIO(read_text(path, TableError), newline="") as stream:
        notes = csv.DictReader(stream)
        if not set(PARSE_NOTE_COLUMNS) <= set(notes.fieldnames or ()):
            raise TableError(
                f"{path}: expected the columns {', '.join(PARSE_NOTE_COLUMNS)}, found "
                f"{', '.join(notes.fieldnames or ()) or 'none'}; {_PEOPLE_REMEDY}"
            )
        return [{name: restore(note[name] or "") for name in PARSE_NOTE_COLUMNS} for note in notes]


def _audit(data: DataSet) -> dict[str, Any]:
    """The content of ``audit.json``."""
    all_rows = np.arange(data.people.num_rows)
    splits = {name: _compute_before_and_after(data, rows) for name, rows in data.rows_of.items()}
    return {
        "emoface_version": __version__,
        "label_names": list(data.label_names),
        "gaps": data.gaps,
        "people": {
            "people": data.people.num_rows,
            "photos": len(set(data.people["image"].to_pylist())),
            "by_source": _count_values(data.people["source"], _list_sources(data)),
            "by_source_split": _count_values(data.people["source_split"], SPLITS),
        },
        "faces": _audit_faces(data),
        "labels": {**_compute_before_and_after(data, all_rows), "splits": splits},
        "split": _audit_split(data),
        "annotated_again": _audit_annotated_again(data),
        "parse_notes": None
        if data.notes is None
        else {
            "notes": len(data.notes),
            "by_kind": dict(Counter(note["what"] for note in data.notes).most_common()),
        },
        "published": _compare_with_published(data),
        "provenance": _describe_provenance(data),
    }


def _list_sources(data: DataSet) -> list[str]:
    """The collections of the photos: EMOTIC's four, or those that a data set with labels of its own has."""
    return list(SOURCES) if data.label_names == CATEGORIES else sorted(set(data.people["source"].to_pylist()))


def _compute_before_and_after(data: DataSet, rows: NDArray[np.int64]) -> dict[str, Any]:
    """Label statistics of all people in some rows, and of those of them with a face."""
    kept = None if data.has_face is None else rows[data.has_face[rows]]
    return {
        "before": _compute_label_statistics(data.indicator[rows], data.label_names),
        "after": None if kept is None else _compute_label_statistics(data.indicator[kept], data.label_names),
    }


def _compute_label_statistics(indicator: NDArray[np.uint8], label_names: tuple[str, ...]) -> dict[str, Any]:
    counts = label_counts(indicator)
    shares = counts / len(indicator) if len(indicator) else np.full(len(counts), np.nan)
    return {
        "people": len(indicator),
        "people_without_labels": int((~indicator.any(axis=1)).sum()),
        "label_counts": to_json_numbers(label_names, counts),
        "label_shares": to_json_numbers(label_names, shares),
        "label_cardinality": to_json_number(label_cardinality(indicator)),
        "label_density": to_json_number(label_density(indicator)),
        "imbalance_ratios": to_json_numbers(label_names, imbalance_ratios(indicator)),
        "mean_imbalance_ratio": to_json_number(mean_imbalance_ratio(indicator)),
        "imbalance_ratio_cv": to_json_number(imbalance_ratio_cv(indicator)),
        "scumble": to_json_number(scumble(indicator)),
        "co_occurrence": co_occurrence(indicator).tolist(),
    }


def _audit_faces(data: DataSet) -> dict[str, Any] | None:
    """Numbers of people with and without a face, by reason, source and split; quantiles of face size and score."""
    if data.faces is None:
        return None
    statuses = np.array(data.faces["face_status"].to_pylist(), dtype=object)
    sources = np.array(data.people["source"].to_pylist(), dtype=object)
    all_rows = np.arange(len(statuses))
    box_wh = np.diff(vectors_to_array(data.faces["face_bbox"], 4).reshape(-1, 2, 2), axis=1)[:, 0]
    conf = data.faces["conf"].to_numpy(zero_copy_only=False).astype(np.float64)
    return {
        **_count_empties(statuses, all_rows),
        "by_source": {name: _count_empties(statuses, np.flatnonzero(sources == name)) for name in _list_sources(data)},
        "by_source_split": {name: _count_empties(statuses, rows) for name, rows in _source_splits(data.people).items()},
        "by_split": {name: _count_empties(statuses, rows) for name, rows in data.rows_of.items()},
        "shorter_side_quantiles": _quantiles(box_wh.min(axis=1)),
        "conf_quantiles": _quantiles(conf),
        "assignment_margin": _audit_margins(data.faces["assignment_margin"], data.first_row),
    }


def _audit_margins(column: pa.ChunkedArray, first_row: NDArray[np.int64]) -> dict[str, Any]:
    """Distribution of the assignment margins, and the people whose assignment is least certain, each once."""
    margins = column.to_numpy(zero_copy_only=False).astype(np.float64)
    counts, edges = np.histogram(margins[~np.isnan(margins)], _MARGIN_EDGES)
    is_once = (first_row == np.arange(len(margins))) & ~np.isnan(margins)
    ranked = np.flatnonzero(is_once)[np.argsort(margins[is_once], kind="stable")][:_N_UNCERTAIN]
    return {
        "quantiles": _quantiles(margins),
        "histogram": [
            {"from": to_json_number(low), "to": to_json_number(high), "people": int(n)}
            for low, high, n in zip(edges[:-1], edges[1:], counts, strict=True)
        ],
        "least_certain": [{"index": row, "margin": to_json_number(margins[row])} for row in ranked.tolist()],
    }


def _count_empties(statuses: NDArray[np.object_], rows: NDArray[np.int64]) -> dict[str, Any]:
    by_status = Counter(statuses[rows].tolist())
    found = by_status[FACE_FOUND]
    return {
        "people": len(rows),
        "found": found,
        "empty": len(rows) - found,
        "empty_share": to_json_number((len(rows) - found) / len(rows)) if len(rows) else None,
        "by_reason": {reason: by_status[reason] for reason in EMPTY_FACE_REASONS},
    }


def _quantiles(values: NDArray[Any]) -> dict[str, float | None]:
    known = values[~np.isnan(values)]
    numbers = np.quantile(known, QUANTILES) if len(known) else np.full(len(QUANTILES), np.nan)
    return {f"{share:g}": to_json_number(number) for share, number in zip(QUANTILES, numbers, strict=True)}


def _audit_split(data: DataSet) -> dict[str, Any]:
    """Shares of people and of every label in each split beside their targets, and the largest deviation."""
    described = {} if data.manifest is None else data.manifest.split
    targets = described.get("ratios") or read_card("emotic")["published"]["split_shares"]
    target = np.array([targets[name] for name in SPLITS])
    counts = np.array([label_counts(data.indicator[data.rows_of[name]]) for name in SPLITS])
    totals = counts.sum(axis=0)
    n_people = np.array([len(data.rows_of[name]) for name in SPLITS])
    images = np.array(data.people["image"].to_pylist(), dtype=object)
    photos_of = [set(images[data.rows_of[name]]) for name in SPLITS]
    with np.errstate(invalid="ignore"):
        label_shares = counts / totals
        people_shares = n_people / n_people.sum()
    deviations = np.abs(label_shares - target[:, None])
    deviations[:, totals < MIN_PEOPLE] = np.nan
    worst = None
    if not np.isnan(deviations).all():
        split, label = np.unravel_index(int(np.nanargmax(deviations)), deviations.shape)
        worst = {
            "label": data.label_names[label],
            "split": SPLITS[split],
            "share": to_json_number(label_shares[split, label]),
            "target": to_json_number(target[split]),
            "deviation": to_json_number(deviations[split, label]),
        }
    return {
        "is_own": data.manifest is not None,
        "by": described.get("by", "emotic"),
        "seed": described.get("seed"),
        "balance": None if data.manifest is None else data.manifest.balance,
        "targets": to_json_numbers(SPLITS, target),
        "people": to_json_numbers(SPLITS, n_people),
        "people_shares": to_json_numbers(SPLITS, people_shares),
        "photos": to_json_numbers(SPLITS, [len(photos) for photos in photos_of]),
        "photos_in_two_splits": sum(map(len, photos_of)) - len(set().union(*photos_of)),
        "label_shares": {
            name: to_json_numbers(SPLITS, column) for name, column in zip(data.label_names, label_shares.T, strict=True)
        },
        "largest_deviation": worst,
    }


def _audit_annotated_again(data: DataSet) -> dict[str, Any]:
    """People with more than one row: in which splits, and what the split did about them or would do."""
    rows = np.arange(data.people.num_rows)
    again = np.flatnonzero(data.first_row != rows)
    boxes = vectors_to_array(data.people["body_bbox"], 4)
    own_rows = _source_splits(data.people)
    return {
        "rows": len(again),
        "people": len(np.unique(data.first_row[again])),
        "nearly_equal_boxes": int((boxes[again] != boxes[data.first_row[again]]).any(axis=1).sum()),
        "by_source_splits": count_split_pairs(data.first_row, data.people["source_split"].to_pylist()),
        "source_splits": _count_also_in_train(data.first_row, own_rows),
        "split": None if data.manifest is None else _audit_leaks(data, data.manifest),
        "would_leave_out": {
            "stratified": len(again),
            "emotic": int((find_leaks(data.first_row, _number_splits(own_rows, len(rows)), _TRAIN) >= 0).sum()),
        },
    }


def _audit_leaks(data: DataSet, manifest: Manifest) -> dict[str, Any]:
    """What the split did about the people with more than one row, and who is still in two splits or twice in one."""
    described = manifest.split.get("leaks", {})
    n_twice = sum(len(rows) - len(np.unique(data.first_row[rows])) for rows in data.rows_of.values())
    return {
        "by": manifest.split["by"],
        **{key: described.get(key) for key in ("rule", "labels", "rows_left_out", "file")},
        "splits": _count_also_in_train(data.first_row, data.rows_of),
        "rows_again_in_their_split": n_twice,
    }


def _count_also_in_train(
    first_row: NDArray[np.int64], rows_of: Mapping[str, NDArray[np.int64]]
) -> dict[str, dict[str, Any]]:
    """For each split but train: its rows, and how many of them are people of train."""
    counts: dict[str, dict[str, Any]] = {}
    for name in SPLITS[:_TRAIN] + SPLITS[_TRAIN + 1 :]:
        rows = rows_of[name]
        n_in_train = int(np.isin(first_row[rows], first_row[rows_of["train"]]).sum())
        share = to_json_number(n_in_train / len(rows)) if len(rows) else None
        counts[name] = {"people": len(rows), "in_train": n_in_train, "share": share}
    return counts


def _number_splits(rows_of: Mapping[str, NDArray[np.int64]], n: int) -> NDArray[np.int64]:
    """(n,) position in ``SPLITS`` of each row's split; train for rows in none."""
    numbers = np.full(n, _TRAIN, np.int64)
    for number, name in enumerate(SPLITS):
        numbers[rows_of[name]] = number
    return numbers


def _compare_with_published(data: DataSet) -> dict[str, Any]:
    """Counts and shares published about EMOTIC beside those of this data set; none if its labels are of its own."""
    card = read_card("emotic")
    if data.label_names != CATEGORIES:
        return {"rows": [], "circulating_rows": None}
    source_splits = _source_splits(data.people)
    n_people = data.people.num_rows
    found: dict[str, Any] = {
        "photos": len(set(data.people["image"].to_pylist())),
        "people": n_people,
        "categories": len(CATEGORIES),
    }
    rows = [
        {"what": what, "published": card["published"][what], "found": found[what], "unit": "count"} for what in found
    ]
    for name in SPLITS:
        share = len(source_splits[name]) / n_people if n_people else None
        published = card["published"]["split_shares"][name]
        rows.append(
            {"what": f"share of {name}", "published": published, "found": to_json_number(share), "unit": "share"}
        )
    return {"rows": rows, "circulating_rows": card["circulating_rows"]}


def _describe_provenance(data: DataSet) -> dict[str, Any]:
    """Where the data come from: the records of parse, faces and split, and the versions of the packages used."""
    import matplotlib

    records = {job: read_record(data.dir, job) for job in _PROVENANCE}
    return {
        **{
            job: {name: getattr(record, name) for name in _SHOWN_FACTS}
            for job, record in records.items()
            if record is not None
        },
        "versions": {
            "emoface": __version__,
            "python": platform.python_version(),
            **{package.__name__: package.__version__ for package in (np, pa, cv2, matplotlib)},
        },
    }


def _draw_sheets(
    data: DataSet, least_certain: Sequence[Mapping[str, Any]], random: np.random.Generator
) -> dict[str, list[dict[str, Any]]]:
    """Cards of random people with a face, of random people without, and of the least certain assignments.

    Each card has a thumbnail or the reason why there is none.
    """
    if data.faces is None or data.has_face is None:
        return {"faces": [], "empties": [], "uncertain": []}
    with_face, without = np.flatnonzero(data.has_face), np.flatnonzero(~data.has_face)
    face_rows = np.sort(random.choice(with_face, min(_N_FACES, len(with_face)), replace=False))
    empty_rows = np.sort(random.choice(without, min(_N_EMPTIES, len(without)), replace=False))
    photos = _find_photos(data.dir)
    return {
        "faces": [
            {**_caption(data, row), "conf": data.faces["conf"][row].as_py(), **thumbnail_of_face(face)}
            for row, face in zip(face_rows, _read_crops(data.dir, face_rows), strict=True)
        ],
        "empties": [
            {
                **_caption(data, row),
                "reason": data.faces["face_status"][row].as_py(),
                **thumbnail_of_body(data.people.slice(row, 1).to_pylist()[0], photos),
            }
            for row in empty_rows.tolist()
        ],
        "uncertain": [
            {
                **_caption(data, one["index"]),
                "margin": one["margin"],
                **thumbnail_of_body(
                    data.people.slice(one["index"], 1).to_pylist()[0],
                    photos,
                    data.faces["face_bbox"][one["index"]].as_py(),
                ),
            }
            for one in least_certain
        ],
    }


def _find_photos(folder: Path) -> PhotoFolder | None:
    """The photos where faces read them, or else where parse did; None if no record says it."""
    records = [read_record(folder, job) for job in ("parse", "faces")]
    facts = {name: value for record in records if record for name, value in record.info.items()}
    return PhotoFolder.of_record(facts, folder) if IMAGE_ROOT in facts else None


def _caption(data: DataSet, row: int) -> dict[str, Any]:
    person = data.people.slice(row, 1).to_pylist()[0]
    return {name: person[name] for name in ("person_id", "categories", "source_split")}


def _read_crops(folder: Path, rows: NDArray[np.int64]) -> Iterator[bytes | None]:
    """Yields the encoded faces of some rows (ascending); reads only the row groups that hold them, one at a time."""
    with open_table(folder / "faces.parquet", FACES_SCHEMA, _FACES_REMEDY) as opened:
        start = 0
        for number, size in enumerate(opened.row_group_sizes):
            end = start + size
            wanted = rows[(rows >= start) & (rows < end)] - start
            if len(wanted):
                faces = opened.read_row_group(number, ["face"])["face"].take(wanted).to_pylist()
                yield from (None if face is None else face["bytes"] for face in faces)
            start = end


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
