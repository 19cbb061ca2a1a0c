"""The faces job: detects faces, assigns them to people and crops them; ``people.parquet`` to ``faces.parquet``.

Photos are processed in shards, each written as a table with a summary. A later run reuses every shard whose settings,
detector, code and photos are unchanged. The shards are then merged in the order of ``people.parquet``.
"""

from __future__ import annotations

import functools
import json
import shutil
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from emoface.datasets.people import find_first_rows
from emoface.datasets.photos import (
    IMAGE_UNREADABLE,
    UNREADABLE_PHOTOS,
    PhotoFolder,
    PhotoOrStatus,
    PhotoRows,
    describe_missing_photos,
    group_photos,
    photo_digest,
)
from emoface.errors import ImageError, SettingsError, install_command
from emoface.inference.faces import (
    FaceSettings,
    PersonFace,
    crop_assigned_faces,
    describe_faces,
    find_detector_weights,
    load_face_detector,
)
from emoface.prefetch import count_usable_cpus, in_batches, map_ahead
from emoface.progress import SILENT, Progress
from emoface.schema import EMPTY_FACE_COLUMNS, FACE_FOUND, FACE_STATUSES, FACES_SCHEMA, PEOPLE_SCHEMA
from emoface.storage.csv_files import csv_text
from emoface.storage.files import atomic_path, file_sha256, remove_leftovers, write_text
from emoface.storage.locks import lock_folder, locked
from emoface.storage.records import (
    JobRecord,
    code_fingerprint,
    finish_job,
    need_record,
    photo_inputs,
    record_path,
)
from emoface.storage.settings import Count, Folder, Settings
from emoface.storage.shards import ShardFolder, Summary, shards_key
from emoface.storage.tables import open_bytes, read_table, vectors_to_array, write_table
from emoface.storage.weights import WeightsFile
from emoface.vision.detections import Detections
from emoface.vision.orientation import NO_TURN, Turn

if TYPE_CHECKING:
    from emoface.yolov5face import Detector

_SHARDS_NAME = "faces_shards"
_REMEDY = "rebuild it with 'emoface parse EMOTIC_ROOT --out DIR'"
_ROWS_PER_GROUP = 1000
_NOT_IN_KEY = ("dir", "weights", "engine", "allow_missing")  # settings that do not change the content of a shard


class _DataSetFolder(Settings):
    """The setting that precedes the face settings in the help text: the data set's folder."""

    dir: Folder
    """Folder with ``people.parquet``; ``faces.parquet`` is written to it."""


class FacesConfig(FaceSettings, _DataSetFolder):
    """Settings of the faces job."""

    engine: Literal["local", "ray"] = "local"
    """Where shards are processed: in this process, or on a Ray cluster whose nodes share the same files."""
    batch_size: Count = 8
    """Number of photos that the detector receives at a time."""
    shard_size: Count = 256
    """Number of photos per shard; a resumed run keeps the finished shards."""
    allow_missing: bool = False
    """Go on although at least 95 % of the photos are missing; their people get the status image_missing."""


@dataclass(frozen=True, slots=True)
class AnnotatedPhoto(PhotoRows):
    """One photo with its annotated people.

    Attributes:
        person_ids: Identifiers of the n people.
        body_xyxy: (n, 4) body boxes of the people in original pixels, nan where a person has none.
        first_row: (n,) the first row of the same person, 0 to n - 1, because a person may be annotated more than once.
    """

    person_ids: list[str]
    body_xyxy: NDArray[np.float32]
    first_row: NDArray[np.int64]


@dataclass
class PhotoFaces:
    """Result for one photo: a row of ``faces.parquet`` for each person, counts, and what is wrong with its file."""

    rows: list[dict[str, Any]]
    counts: Counter[str] = field(default_factory=Counter)
    unreadable: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class ShardWork:
    """Settings, photos, weights and shard folder, which all shards of one run share."""

    config: FacesConfig
    folder: PhotoFolder
    weights: WeightsFile
    shards: ShardFolder


@locked("dir")
def run_faces(config: FacesConfig, progress: Progress = SILENT) -> JobRecord:
    """Detects the faces of every photo, assigns them to the people, and crops them.

    Args:
        config: Settings of the job.
        progress: Receives one step per photo.

    Returns:
        The job's record. The job writes ``faces.parquet``, one row per person, and ``empty_faces.csv``, one row per
        person without a face.

    Raises:
        TableError: ``people.parquet`` is missing or has other columns.
        WeightsError: The detector's weights are missing or damaged.
        ImageError: All photos are missing, or nearly all, and ``allow_missing`` is not set. Nothing is replaced.
    """
    people_path = config.dir / "people.parquet"
    people = read_table(
        people_path, PEOPLE_SCHEMA, _REMEDY, ["index", "person_id", "image", "image_wh", "body_bbox", "same_person_as"]
    )
    folder = PhotoFolder.of_record(need_record(config.dir, "parse").info)
    weights = find_detector_weights(config)
    photos = list_photos(people)
    missing = describe_missing_photos(folder.root, [photo.image for photo in photos])
    if missing and not config.allow_missing:
        raise ImageError(
            f"{missing}; nothing was replaced. Mount the disk, or run 'emoface parse' again with '--images DIR' if the "
            "photos have moved; '--allow-missing' goes on without them"
        )
    people_sha256 = file_sha256(people_path)
    inputs = {
        str(people_path): people_sha256,
        str(weights.path): weights.sha256,
        **photo_inputs(folder.root, (photo.image for photo in photos)),
    }
    code = code_fingerprint(__name__)
    key = _shards_key(config, folder, weights.sha256, people_sha256, code)
    work = ShardWork(config, folder, weights, ShardFolder(config.dir / _SHARDS_NAME / key))
    shards = list(in_batches(photos, config.shard_size))
    tables = [config.dir / "faces.parquet", config.dir / "empty_faces.csv"]

    work.shards.remove_leftovers("parquet")
    for path in (*tables, record_path(config.dir, "faces")):
        remove_leftovers(path)
    progress.start("faces", len(photos))
    pending = work.shards.find_pending(shards, functools.partial(_is_whole, work), progress)
    if pending:
        run_shards = _run_shards_ray if config.engine == "ray" else _run_shards_local
        run_shards(work, pending, progress)

    record_path(config.dir, "faces").unlink(missing_ok=True)  # an old record must not describe tables of two runs
    _merge_shards(config.dir / "faces.parquet", work.shards, shards)
    statuses = _write_empty_faces(config.dir, people)
    work.shards.remove_other_keys()
    return finish_job(
        "faces",
        config,
        config.dir,
        module=__name__,
        inputs=inputs,
        outputs=tables,
        counts={
            "people": people.num_rows,
            **_sum_counts(work.shards, len(shards)),
            "face_status": statuses,
        },
        info=describe_faces(config, weights) | _list_unreadable(work.shards, len(shards), progress),
    )


def remove_shards(out: Path) -> None:
    """Removes the shards in ``out``, so that the next run starts from the beginning; finished tables are kept."""
    with lock_folder(out):
        shutil.rmtree(out / _SHARDS_NAME, ignore_errors=True)


def list_photos(people: pa.Table) -> list[AnnotatedPhoto]:
    """Lists the photos of ``people.parquet``, each with all of its people.

    Args:
        people: Columns ``person_id``, ``image``, ``image_wh``, ``body_bbox`` and ``same_person_as``.
    """
    body_xyxy = vectors_to_array(people["body_bbox"], 4)
    person_ids = people["person_id"].to_pylist()
    first_row = find_first_rows(people)
    return [
        AnnotatedPhoto(
            photo.image,
            photo.image_wh,
            photo.rows,
            [person_ids[row] for row in photo.rows],
            body_xyxy[photo.rows],
            np.searchsorted(photo.rows, first_row[photo.rows]),
        )
        for photo in group_photos(people["image"].to_pylist(), vectors_to_array(people["image_wh"], 2))
    ]


def _shards_key(config: FacesConfig, folder: PhotoFolder, weights_sha256: str, people_sha256: str, code: str) -> str:
    """Computes the key of a run's shards from everything that determines their content, except the photos."""
    settings = {name: value for name, value in config.to_json().items() if name not in _NOT_IN_KEY}
    return shards_key([settings, folder.undecided_frame, weights_sha256, people_sha256, code])


def _is_whole(work: ShardWork, number: int, shard: list[AnnotatedPhoto], summary: Summary) -> bool:
    """Tells whether a finished shard's photos are unchanged and its table is the one that its summary describes."""
    if summary["photo_digest"] != photo_digest(work.folder.root, shard):
        return False
    path = _table_path(work.shards, number)
    return path.is_file() and bool(summary["table_sha256"] == file_sha256(path))


def _table_path(shards: ShardFolder, number: int) -> Path:
    return shards.file_path(number, "parquet")


def _run_shards_local(work: ShardWork, pending: list[tuple[int, list[AnnotatedPhoto]]], progress: Progress) -> None:
    detector = _load_detector(work)
    for number, shard in pending:
        _write_shard(work, detector, number, shard, progress)


def _run_shards_ray(work: ShardWork, pending: list[tuple[int, list[AnnotatedPhoto]]], progress: Progress) -> None:
    """Distributes the shards over a Ray cluster whose nodes share the same files."""
    try:
        import ray
    except ImportError as error:
        raise SettingsError(f"--engine ray needs the package ray; install it with {install_command('ray')}") from error
    if not ray.is_initialized():
        ray.init(log_to_driver=False)
    remote = ray.remote(_write_shard_remotely)
    sizes = {remote.remote(work, number, shard): len(shard) for number, shard in pending}
    waiting = list(sizes)
    while waiting:
        done, waiting = ray.wait(waiting)
        for task in done:
            ray.get(task)
            progress.advance(sizes[task])


def _write_shard_remotely(work: ShardWork, number: int, shard: list[AnnotatedPhoto]) -> None:
    _write_shard(work, _load_detector(work), number, shard, SILENT)


@functools.lru_cache(maxsize=1)
def _load_detector(work: ShardWork) -> Detector:
    """Loads the run's detector; a worker that processes several shards loads it only once."""
    return load_face_detector(work.config, work.weights)


def _write_shard(
    work: ShardWork, detector: Detector, number: int, shard: list[AnnotatedPhoto], progress: Progress
) -> None:
    """Processes one shard; writes its table first and its summary last, which marks the shard as finished."""
    digest = photo_digest(work.folder.root, shard)
    counts: Counter[str] = Counter(photos=len(shard))
    unreadable: dict[str, str] = {}
    rows: list[dict[str, Any]] = []
    for faces in _find_faces(work, detector, shard):
        rows += faces.rows
        counts += faces.counts
        unreadable |= faces.unreadable
        progress.advance()
    table_path = _table_path(work.shards, number)
    work.shards.unmark(number)
    write_table(table_path, pa.Table.from_pylist(rows, schema=FACES_SCHEMA), FACES_SCHEMA)
    summary = {
        "photo_digest": digest,
        "table_sha256": file_sha256(table_path),
        "counts": dict(counts),
        "unreadable": unreadable,
    }
    work.shards.mark_done(number, json.dumps(summary, indent=1) + "\n")


def _find_faces(work: ShardWork, detector: Detector, shard: list[AnnotatedPhoto]) -> Iterator[PhotoFaces]:
    """Finds the faces of a shard's photos, in order; photos are decoded and cropped on all cores meanwhile."""
    config = work.config
    ahead = 2 * config.batch_size

    def read(photo: AnnotatedPhoto) -> tuple[AnnotatedPhoto, PhotoOrStatus]:
        return photo, work.folder.try_read(photo.image, photo.image_wh)

    with ThreadPoolExecutor(count_usable_cpus()) as pool:
        crops: list[Future[PhotoFaces]] = []
        for batch in in_batches(map_ahead(pool, read, shard, ahead), config.batch_size):
            found = iter(detector.detect([one.photo.pixels for _, one in batch if one.photo is not None]))
            for photo, one in batch:
                detections = Detections.empty() if one.photo is None else next(found)
                crops.append(pool.submit(_crop_people, config, photo, one, detections))
            while len(crops) > ahead:
                yield crops.pop(0).result()
        for crop in crops:
            yield crop.result()


def _crop_people(config: FacesConfig, photo: AnnotatedPhoto, one: PhotoOrStatus, found: Detections) -> PhotoFaces:
    """Assigns the detections of one photo to its people and makes their rows of ``faces.parquet``."""
    if one.photo is None:
        people = [PersonFace(one.status) for _ in photo.person_ids]
        counts = Counter({f"photos_{one.status.removeprefix('image_')}": 1})
        unreadable = {photo.image: one.reason} if one.status == IMAGE_UNREADABLE else {}
        turn = Turn(NO_TURN, photo.image_wh)
    else:
        turn, unreadable = one.photo.turn, {}
        bodies = turn.to_upright(photo.body_xyxy)
        people = crop_assigned_faces(one.photo.pixels, bodies, found, config, photo.first_row)
        counts = Counter(faces_detected=len(found))
        if one.photo.boxes_frame is not None:
            counts[f"photos_oriented_boxes_{one.photo.boxes_frame}"] = 1
        if turn.stored_wh != photo.image_wh:
            counts["photos_of_other_size"] = 1
    rows = [_to_row(*person, turn) for person in zip(photo.rows.tolist(), photo.person_ids, people, strict=True)]
    return PhotoFaces(rows, counts, unreadable)


def _to_row(row: int, person_id: str, person: PersonFace, turn: Turn) -> dict[str, Any]:
    """Makes a row of ``faces.parquet``, with box and landmarks in the frame of the photo's annotated boxes."""
    face = person.face
    return {
        "index": row,
        "person_id": person_id,
        "face": None if face is None else {"bytes": face.jpeg, "path": f"{person_id}.jpg"},
        "face_bbox": None if face is None else turn.to_stored(face.xyxy).tolist(),
        "landmarks": None if face is None else turn.points_to_stored(face.landmarks).ravel().tolist(),
        "conf": None if face is None else face.conf,
        "assignment_margin": person.margin,
        "face_status": person.status,
    }


def _merge_shards(path: Path, folder: ShardFolder, shards: list[list[AnnotatedPhoto]]) -> None:
    """Writes the rows of all shards in the order of ``index``, one row group at a time.

    All people of a photo are in one shard, even if EMOTIC lists the photo in two places, so a row group may need rows
    of several shards.
    """
    rows_of = [np.concatenate([photo.rows for photo in shard]) for shard in shards]
    n_people = sum(len(rows) for rows in rows_of)
    shard_of, place_in_shard = np.zeros(n_people, np.int64), np.zeros(n_people, np.int64)
    for number, rows in enumerate(rows_of):
        shard_of[rows], place_in_shard[rows] = number, np.arange(len(rows))

    @functools.lru_cache(maxsize=4)
    def read_shard(number: int) -> pa.Table:
        return read_table(_table_path(folder, number), FACES_SCHEMA, f"delete '{_SHARDS_NAME}' and run again")

    with (
        atomic_path(path) as temporary,
        open_bytes(temporary, "wb") as sink,
        pq.ParquetWriter(sink, FACES_SCHEMA, compression="zstd") as writer,
    ):
        for start in range(0, n_people, _ROWS_PER_GROUP):
            part = slice(start, start + _ROWS_PER_GROUP)
            by_shard = np.argsort(shard_of[part], kind="stable")
            numbers, starts = np.unique(shard_of[part][by_shard], return_index=True)
            places = np.split(place_in_shard[part][by_shard], starts[1:])
            # Only the rows that are needed are kept of each shard, as they may be of all shards.
            taken = [read_shard(int(number)).take(place) for number, place in zip(numbers, places, strict=True)]
            writer.write_table(pa.concat_tables(taken).take(np.argsort(by_shard)))


def _write_empty_faces(out: Path, people: pa.Table) -> dict[str, int]:
    """Writes ``empty_faces.csv`` and counts the rows of each status."""
    import pyarrow.compute as pc

    remedy = "rebuild it with 'emoface faces DIR'"
    status = read_table(out / "faces.parquet", FACES_SCHEMA, remedy, ["face_status"])["face_status"]
    table = people.append_column("face_status", status)
    empty = table.select(EMPTY_FACE_COLUMNS).filter(pc.not_equal(status, FACE_FOUND))
    rows = zip(*(empty[name].to_pylist() for name in EMPTY_FACE_COLUMNS), strict=True)
    write_text(out / "empty_faces.csv", csv_text(EMPTY_FACE_COLUMNS, rows))
    n_of = {one["values"]: one["counts"] for one in pc.value_counts(status).to_pylist()}
    return {name: n_of.get(name, 0) for name in FACE_STATUSES}


def _sum_counts(shards: ShardFolder, n_shards: int) -> dict[str, int]:
    counts: Counter[str] = Counter()
    for number in range(n_shards):
        counts += Counter(shards.read_summary(number)["counts"])
    return dict(sorted(counts.items()))


def _list_unreadable(shards: ShardFolder, n_shards: int, progress: Progress) -> dict[str, dict[str, str]]:
    """Lists what is wrong with each photo that is there and cannot be read, by image; nothing if there is none."""
    unreadable: dict[str, str] = {}
    for number in range(n_shards):
        unreadable |= shards.read_summary(number)["unreadable"]
    for image, reason in unreadable.items():
        progress.note(f"{image}: {reason}")
    return {UNREADABLE_PHOTOS: unreadable} if unreadable else {}
