"""The verify job: holds a data set or a training run against its manifest and records, and names every difference.

Nothing is written. Records say which bytes each job read and wrote; the manifest says how many people, photos and faces
each split has. Photos are compared by their sizes and modification times, as everywhere.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from emoface.datasets.manifest import MANIFEST_NAME, Manifest, read_manifest
from emoface.datasets.mirror import fetch_data_set
from emoface.datasets.photos import PhotoFolder
from emoface.errors import EmofaceError, TableError
from emoface.progress import SILENT, Progress
from emoface.schema import FACE_FOUND, FACES_SCHEMA, PEOPLE_SCHEMA, SPLIT_SCHEMA, label_names_of
from emoface.storage.records import (
    ABSENT,
    FACTS,
    PHOTOS,
    JobRecord,
    cached_sha256,
    code_fingerprint,
    list_changes,
    photo_inputs,
    present_facts,
    read_record,
    to_settings,
)
from emoface.storage.settings import Folder, Settings
from emoface.storage.tables import read_table
from emoface.storage.urls import is_url

_PEOPLE, _FACES, _RUN = "people.parquet", "faces.parquet", "run.json"
_PACKAGE_DIR = Path(__file__).parents[1]
_IDENTITY = ["index", "person_id"]


class VerifyConfig(Settings):
    """Settings of the verify job."""

    dir: Folder
    """Folder of a data set or of a training run."""


def run_verify(config: VerifyConfig, progress: Progress = SILENT) -> JobRecord:
    """Compares a data set or a training run with its manifest and records.

    Args:
        config: Settings of the job.
        progress: Receives one step per record, table and run.

    Returns:
        The job's record; it is not written to disk. ``info["differences"]`` has one line per difference.

    Raises:
        TableError: The folder has neither a manifest nor a run nor any record.
    """
    record_paths = sorted(config.dir.rglob("records/*.json"))
    has_run = (config.dir / _RUN).is_file()
    has_tables = any((config.dir / name).is_file() for name in (MANIFEST_NAME, _PEOPLE))
    if not (record_paths or has_run or has_tables):
        raise TableError(
            f"{config.dir}: has no {MANIFEST_NAME}, {_RUN} or records; expected a data set or a training run"
        )
    progress.start("verify", len(record_paths) + has_run + 2 * has_tables)
    differences: list[str] = []
    for path in record_paths:
        differences += _collect(path, _check_record(path))
        progress.advance()
    if has_tables:
        differences += _collect(config.dir / _PEOPLE, _check_tables(config.dir))
        progress.advance()
        differences += _collect(config.dir / MANIFEST_NAME, _check_manifest(config.dir / MANIFEST_NAME))
        progress.advance()
    if has_run:
        differences += _collect(config.dir / _RUN, _check_run(config.dir))
        progress.advance()
    differences = list(dict.fromkeys(differences))  # a damaged record is also found by those that read from it
    return JobRecord(
        job="verify",
        settings=to_settings(config),
        inputs={},
        outputs={},
        counts={"records": len(record_paths), "differences": len(differences)},
        info={"differences": differences},
        code=code_fingerprint(__name__),
    )


def _collect(path: Path, found: Iterator[str]) -> list[str]:
    """Lists the differences of one subject; a file of it that cannot be read at all is one."""
    lines: list[str] = []
    try:
        lines.extend(found)
    except EmofaceError as error:
        lines.append(str(error))
    except OSError as error:
        lines.append(f"{error.filename or path}: {error.strerror or error}")
    return lines


def _check_record(path: Path) -> Iterator[str]:
    """Compares the files that a job wrote and read with its record."""
    out = path.parent.parent
    record = read_record(out, path.stem)
    if record is None:
        return
    recorded = {name: value for name, value in record.inputs.items() if not Path(name).is_relative_to(_PACKAGE_DIR)}
    present = {name: _present_value(record, out, name, value) for name, value in recorded.items()}
    described = JobRecord(**{**vars(record), "inputs": recorded})
    for change in list_changes(described, out, record.settings, present, record.code):
        yield f"{path}: {change}"


def _present_value(record: JobRecord, out: Path, name: str, value: str) -> str:
    """The value that an input would have in a record now, see ``JobRecord.inputs``."""
    if value.startswith(PHOTOS):
        images = _list_images(record, out)
        root = name if is_url(name) else _locate(record, out, name)
        return value if images is None else photo_inputs(root, images)[str(root)]
    path = _locate(record, out, name)
    if value.startswith(FACTS):
        return present_facts(path, value)
    return cached_sha256(path) if path.is_file() else ABSENT


def _locate(record: JobRecord, out: Path, name: str) -> Path:
    """The present path of an input; inputs inside the job's folder have moved with it."""
    settings, path = record.settings, Path(name)
    places = {"dir": out, "out": out, "run": out.parents[1] if len(out.parents) > 1 else out}
    for setting, present in places.items():
        folder = settings.get(setting)
        if folder and path.is_relative_to(folder):
            return present / path.relative_to(folder)
    return path


def _list_images(record: JobRecord, out: Path) -> list[str] | None:
    """The photos that a job read; None if the table that lists them is not there."""
    path, schema = out / _PEOPLE, PEOPLE_SCHEMA
    if record.job == "evaluate":
        names = (str(_locate(record, out, name)) for name in record.inputs)
        path, schema = Path(next((name for name in names if name.endswith(".parquet")), "")), SPLIT_SCHEMA
    if not path.is_file():
        return None
    images: list[str] = read_table(path, schema, "restore it", ["image"])["image"].to_pylist()
    return images


def _check_tables(folder: Path) -> Iterator[str]:
    """Compares ``people.parquet`` and ``faces.parquet`` with each other."""
    people = read_table(folder / _PEOPLE, PEOPLE_SCHEMA, "rebuild it with 'emoface parse'", _IDENTITY)
    if people["index"].to_pylist() != list(range(people.num_rows)):
        yield f"{folder / _PEOPLE}: column 'index' is not 0 to {people.num_rows - 1} in order"
    for person_id, n_rows in Counter(people["person_id"].to_pylist()).items():
        if n_rows > 1:
            yield f"{folder / _PEOPLE}: person_id '{person_id}' is there {n_rows} times"
    path = folder / _FACES
    if not path.is_file():
        return
    faces = read_table(path, FACES_SCHEMA, "rebuild it with 'emoface faces'", [*_IDENTITY, "face_bbox", "face_status"])
    if faces.num_rows != people.num_rows:
        yield f"{path}: {faces.num_rows} rows, but {_PEOPLE} has {people.num_rows}"
    elif not all(faces[name].equals(people[name]) for name in _IDENTITY):
        yield f"{path}: its people or their order are not those of {_PEOPLE}"
    is_found = np.array([status == FACE_FOUND for status in faces["face_status"].to_pylist()], bool)
    n_wrong = int((is_found != faces["face_bbox"].is_valid().to_numpy()).sum())
    if n_wrong:
        yield f"{path}: {n_wrong} rows have a face_bbox without the status '{FACE_FOUND}', or the status without a box"


def _check_manifest(path: Path) -> Iterator[str]:
    """Compares the split tables and the photos with the manifest."""
    if not path.is_file():
        return
    manifest = read_manifest(path)
    seen: Counter[int] = Counter()
    images: dict[str, None] = {}
    for split, described in manifest.splits.items():
        table_path = manifest.split_path(split)
        if (found := cached_sha256(table_path)) != described.sha256:
            yield f"{table_path}: sha256 is {found}, {path} says {described.sha256}"
        columns = [*_IDENTITY, "image", "labels", "face_bbox"]
        table = read_table(table_path, SPLIT_SCHEMA, "rebuild it with 'emoface split'", columns)
        for name, value in _count_split(table).items():
            if value != getattr(described, name):
                yield f"{table_path}: {name} is {value}, {path} says {getattr(described, name)}"
        yield from _check_people(table_path, table)
        seen.update(table["index"].to_pylist())
        images |= dict.fromkeys(table["image"].to_pylist())
    if n_twice := sum(n_rows > 1 for n_rows in seen.values()):
        yield f"{path}: {n_twice} people are in more than one split or more than once in a split"
    if "file" in manifest.balance:
        yield from _check_balance(path, manifest)
    yield from _check_photos(path, manifest.photos, list(images))


def _count_split(table: pa.Table) -> dict[str, Any]:
    """Counts a split as its manifest does."""
    names = label_names_of(table.schema)
    labels = table["labels"].combine_chunks().flatten().to_numpy(zero_copy_only=False).reshape(-1, len(names))
    return {
        "rows": table.num_rows,
        "photos": len(set(table["image"].to_pylist())),
        "faces": table.num_rows - table["face_bbox"].null_count,
        "label_counts": dict(zip(names, labels.sum(axis=0, dtype=np.int64).tolist(), strict=True)),
    }


def _check_people(table_path: Path, table: pa.Table) -> Iterator[str]:
    """Compares the people of a split with ``people.parquet``, if it is beside the split."""
    people_path = table_path.parent / _PEOPLE
    if not people_path.is_file():
        return
    people = read_table(people_path, PEOPLE_SCHEMA, "rebuild it with 'emoface parse'", _IDENTITY)
    id_of = dict(zip(*(people[name].to_pylist() for name in _IDENTITY), strict=True))
    rows = zip(*(table[name].to_pylist() for name in _IDENTITY), strict=True)
    n_other = sum(id_of.get(index) != person_id for index, person_id in rows)
    if n_other:
        yield f"{table_path}: {n_other} people have another index or person_id in {people_path}"


def _check_balance(path: Path, manifest: Manifest) -> Iterator[str]:
    file = path.parent / manifest.balance["file"]
    found = cached_sha256(file) if file.is_file() else "missing"
    if found != manifest.balance["sha256"]:
        yield f"{file}: sha256 is {found}, {path} says {manifest.balance['sha256']}"


def _check_photos(path: Path, photos: PhotoFolder, images: list[str]) -> Iterator[str]:
    missing = photos.read_states(images).missing
    if missing:
        yield (
            f"{photos.root}: {len(missing)} of {len(images)} photos are missing, first {missing[0]}; {path} names this "
            "folder as the image root"
        )


def _check_run(folder: Path) -> Iterator[str]:
    """Compares a run with its settings: weights, log, and the data set that it was trained on."""
    from emoface.mter.probe import read_probe
    from emoface.mter.runs import BEST_NAME, LOG_NAME, read_run

    run = read_run(folder, needs_finished=False)
    place, expected = run.manifest_path, run.settings["manifest"]["sha256"]
    manifest = fetch_data_set(place) if isinstance(place, str) else place
    if not manifest.is_file():
        yield f"{manifest}: no such file, but {folder / _RUN} says that the run was trained on it"
    elif (found := cached_sha256(manifest)) != expected:
        yield f"{manifest}: sha256 is {found}, {folder / _RUN} says {expected}: the data set has changed since"
    if run.is_probe:
        if not run.is_finished:
            yield f"{folder}: the probe is unfinished"
        read_probe(folder / BEST_NAME)
        return
    n_epochs, planned, record = len(run.log()), run.epoch_plan.epochs, read_record(folder, "train")
    if record is None:
        yield f"{folder}: the run is unfinished after {n_epochs} of {planned} epochs"
    elif n_epochs != (expected := record.counts.get("epochs", planned)):
        yield f"{folder / LOG_NAME}: {n_epochs} epochs, expected {expected}"
    if run.is_finished or (folder / BEST_NAME).is_file():
        run.load_model()
