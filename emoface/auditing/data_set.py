"""Reads the files of a data set that an audit is about; ``people.parquet`` is enough."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from emoface.datasets.manifest import MANIFEST_NAME, Manifest, read_manifest
from emoface.datasets.people import find_first_rows
from emoface.datasets.photos import IMAGE_MISSING, IMAGE_ROOT, PhotoFolder
from emoface.errors import TableError
from emoface.schema import (
    CAPPED_COLUMNS,
    CATEGORIES,
    FACE_FOUND,
    FACES_SCHEMA,
    PARSE_NOTE_COLUMNS,
    PEOPLE_SCHEMA,
    SAMPLING_WEIGHTS_SCHEMA,
    SOURCES,
    SPLIT_SCHEMA,
    SPLITS,
    label_names_of,
)
from emoface.storage.csv_files import restore
from emoface.storage.files import read_text
from emoface.storage.records import read_record
from emoface.storage.tables import open_table, read_table, vectors_to_array

READ_NAMES = (
    "people.parquet",
    "faces.parquet",
    MANIFEST_NAME,
    "parse_notes.csv",
    "capped.csv",
    "sampling_weights.parquet",
)
"""Files that the audit reads if they exist."""
_FACES_REMEDY = "rebuild it with 'emoface faces DIR'"

_MANY_MISSING = 0.5  # share of missing photos from which the page says so first
_PEOPLE_REMEDY = "rebuild it with 'emoface parse EMOTIC_ROOT --out DIR'"
_SPLIT_REMEDY = "rebuild it with 'emoface split DIR'"


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
        rows_of: Row numbers of the people of each split, after train was balanced.
        selected_rows_of: The same before train was balanced: with the people whom a cap left out.
        sampling_weights: (t,) weight of each row of train in ``rows_of``, mean 1; None where train is not weighted.
        photos: The folder of the photos; None if it is not known.
        n_missing_photos: Number of photos that are missing, as the last job that looked for them counted; None if
            none looked.
        manifest: Manifest of the splits; None before ``split`` ran, the splits are then those of the
            annotations.
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
    selected_rows_of: Mapping[str, NDArray[np.int64]]
    sampling_weights: NDArray[np.float64] | None
    photos: PhotoFolder | None
    n_missing_photos: int | None
    manifest: Manifest | None
    notes: list[dict[str, str]] | None
    gaps: list[dict[str, str]]

    @property
    def has_emotic_labels(self) -> bool:
        """Whether the labels are EMOTIC's 26, so that what is published of EMOTIC can stand beside them."""
        return self.label_names == CATEGORIES

    @property
    def sources(self) -> list[str]:
        """The collections of the photos: EMOTIC's four, or those that a data set with labels of its own has."""
        return list(SOURCES) if self.has_emotic_labels else sorted(set(self.people["source"].to_pylist()))

    @property
    def once(self) -> NDArray[np.int64]:
        """The first row of each person, ascending: people who are annotated more than once count once."""
        return np.flatnonzero(self.first_row == np.arange(len(self.first_row)))

    @property
    def images(self) -> list[str]:
        """The photos, in order of first appearance, each once."""
        return list(dict.fromkeys(self.people["image"].to_pylist()))


def read_data_set(folder: Path) -> DataSet:
    """Reads the tables and records of a data set that exist; what is missing is named in ``gaps``.

    Raises:
        TableError: ``people.parquet`` is missing, or a table does not have the expected columns or people.
    """
    people = read_table(folder / "people.parquet", PEOPLE_SCHEMA, _PEOPLE_REMEDY)
    gaps: list[dict[str, str]] = []
    faces = _read_faces(folder, people, gaps)
    statuses = None if faces is None else np.array(faces["face_status"].to_pylist(), dtype=object)
    manifest = _read_manifest(folder, gaps)
    rows_of = source_splits(people) if manifest is None else _read_splits(manifest, people, statuses, gaps)
    record = read_record(folder, "parse")
    n_missing = _count_missing_photos(people, statuses, {} if record is None else record.counts)
    photos = _find_photos(folder)
    n_photos = len(set(people["image"].to_pylist()))
    if n_missing and n_missing >= _MANY_MISSING * n_photos:
        gaps.append(_describe_missing(folder, photos, n_missing, n_photos))
    label_names = label_names_of(people.schema)
    return DataSet(
        dir=folder,
        people=people,
        label_names=label_names,
        indicator=np.nan_to_num(vectors_to_array(people["labels"], len(label_names))).astype(np.uint8),
        first_row=find_first_rows(people),
        faces=faces,
        has_face=None if statuses is None else statuses == FACE_FOUND,
        rows_of=rows_of,
        selected_rows_of=rows_of if manifest is None else _add_capped(manifest, people, rows_of),
        sampling_weights=None if manifest is None else _read_weights(manifest, people, rows_of["train"]),
        photos=photos,
        n_missing_photos=n_missing,
        manifest=manifest,
        notes=_read_notes(folder, gaps),
        gaps=gaps,
    )


def _find_photos(folder: Path) -> PhotoFolder | None:
    """The photos where faces read them, or else where parse did; None if no record says it."""
    records = [read_record(folder, job) for job in ("parse", "faces")]
    facts = {name: value for record in records if record for name, value in record.info.items()}
    return PhotoFolder.of_record(facts, folder) if IMAGE_ROOT in facts else None


def _count_missing_photos(
    people: pa.Table, statuses: NDArray[np.object_] | None, parse_counts: Mapping[str, object]
) -> int | None:
    if statuses is not None:
        return len(set(np.array(people["image"].to_pylist(), dtype=object)[statuses == IMAGE_MISSING]))
    counted = parse_counts.get("photos_missing")
    return counted if isinstance(counted, int) else None


def _describe_missing(folder: Path, photos: PhotoFolder | None, n_missing: int, n_photos: int) -> dict[str, str]:
    place = "" if photos is None else f" of {photos.root}"
    return {
        "what": f"{n_missing:,} of {n_photos:,} photos{place} are missing.",
        "command": f"emoface parse EMOTIC_ROOT --images DIR --out {folder.name}",
    }


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


def read_crops(folder: Path, rows: NDArray[np.int64]) -> Iterator[bytes | None]:
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
    manifest: Manifest, people: pa.Table, statuses: NDArray[np.object_] | None, gaps: list[dict[str, str]]
) -> dict[str, NDArray[np.int64]]:
    """Row numbers of each split; unknown people in a split are an error, outdated faces in it are a gap."""
    rows_of: dict[str, NDArray[np.int64]] = {}
    is_stale = False
    for name in SPLITS:
        path = manifest.split_path(name)
        table = read_table(path, SPLIT_SCHEMA, _SPLIT_REMEDY, ["person_id", "face_status"])
        rows_of[name] = _find_rows(people, table["person_id"].to_pylist(), path)
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


def _find_rows(people: pa.Table, person_ids: list[str], path: Path) -> NDArray[np.int64]:
    row_of = {person_id: row for row, person_id in enumerate(people["person_id"].to_pylist())}
    rows = [row_of.get(person_id, -1) for person_id in person_ids]
    if -1 in rows:
        raise TableError(f"{path}: {person_ids[rows.index(-1)]} is not in people.parquet; {_SPLIT_REMEDY}")
    return np.array(rows, dtype=np.int64)


def _add_capped(
    manifest: Manifest, people: pa.Table, rows_of: Mapping[str, NDArray[np.int64]]
) -> Mapping[str, NDArray[np.int64]]:
    """The rows of each split before balancing: those whom a cap left out of train are in ``capped.csv``."""
    if "capped" not in manifest.balance:
        return rows_of
    path = manifest.path.parent / manifest.balance["file"]
    person_ids = [row["person_id"] for row in _read_csv(path, CAPPED_COLUMNS, _SPLIT_REMEDY)]
    train = np.concatenate([rows_of["train"], _find_rows(people, person_ids, path)])
    return {**rows_of, "train": np.sort(train)}


def _read_weights(manifest: Manifest, people: pa.Table, train: NDArray[np.int64]) -> NDArray[np.float64] | None:
    if manifest.balance.get("rule") != "weights":
        return None
    path = manifest.path.parent / manifest.balance["file"]
    table = read_table(path, SAMPLING_WEIGHTS_SCHEMA, _SPLIT_REMEDY)
    if table["index"].to_pylist() != people["index"].take(pa.array(train)).to_pylist():
        raise TableError(f"{path}: its {table.num_rows} people are not those of train; {_SPLIT_REMEDY}")
    return np.asarray(table["weight"].to_numpy(), np.float64)


def source_splits(people: pa.Table) -> dict[str, NDArray[np.int64]]:
    """The row numbers of the splits of the annotations; for EMOTIC its own."""
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
    return _read_csv(path, PARSE_NOTE_COLUMNS, _PEOPLE_REMEDY)


def _read_csv(path: Path, columns: Sequence[str], remedy: str) -> list[dict[str, str]]:
    with io.StringIO(read_text(path, TableError), newline="") as stream:
        rows = csv.DictReader(stream)
        if not set(columns) <= set(rows.fieldnames or ()):
            raise TableError(
                f"{path}: expected the columns {', '.join(columns)}, found "
                f"{', '.join(rows.fieldnames or ()) or 'none'}; {remedy}"
            )
        return [{name: restore(row[name] or "") for name in columns} for row in rows]
