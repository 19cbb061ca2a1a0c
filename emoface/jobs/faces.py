"""The faces job: detects faces, assigns them to people and crops them; ``people.parquet`` to ``faces.parquet``.

Photos are processed in shards, each written as a table with a summary. A later run reuses every shard whose settings,
detector, code and photos are unchanged. The shards are then merged in the order of ``people.parquet``.
"""

from __future__ import annotations

import functools
import hashlib
import itertools
import json
import shutil
import socket
from collections import Counter, deque
from collections.abc import Generator, Iterable, Iterator
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from pydantic import InstanceOf, model_validator

from emoface.datasets.people import find_first_rows
from emoface.datasets.photos import (
    CHANGED_DIGEST,
    IMAGE_ROOT,
    IMAGE_UNREADABLE,
    UNREADABLE_PHOTOS,
    PhotoFolder,
    PhotoOrStatus,
    PhotoRows,
    check_photos,
    confirm_digest,
    group_photos,
    read_ahead,
)
from emoface.errors import ClusterError, SettingsError, StoreError, TableError
from emoface.inference.faces import (
    FaceSettings,
    PersonFace,
    crop_assigned_faces,
    describe_faces,
    find_detector_weights,
    load_face_detector,
)
from emoface.prefetch import ByteBudget, count_usable_cpus, in_batches, in_light_batches, limit_cpus, map_ahead
from emoface.progress import SILENT, Progress
from emoface.ray_tasks import run_on_ray
from emoface.schema import EMPTY_FACE_COLUMNS, FACE_FOUND, FACE_STATUSES, FACES_SCHEMA, PEOPLE_SCHEMA
from emoface.storage.csv_files import csv_text
from emoface.storage.files import atomic_path, file_sha256, remove_leftovers, stat_digest, write_text
from emoface.storage.locks import lock_folder, locked
from emoface.storage.photo_stores import PhotoStates
from emoface.storage.records import (
    PHOTOS,
    JobRecord,
    code_fingerprint,
    finish_job,
    record_path,
    state_inputs,
)
from emoface.storage.settings import Count, Folder, FolderOrUrl, Settings
from emoface.storage.shards import ShardFolder, ShardObjects, Shards, Summary, SummaryModel, shards_key
from emoface.storage.tables import bytes_to_table, open_bytes, read_table, table_to_bytes, vectors_to_array
from emoface.storage.urls import is_url, to_portable
from emoface.storage.weights import WeightsFile
from emoface.vision.detections import Detections
from emoface.vision.orientation import NO_TURN, Turn
from emoface.vision.threads import one_opencv_thread
from emoface.worker_processes import run_in_processes

if TYPE_CHECKING:
    from emoface.yolov5face import Detector

_SHARDS_NAME = "faces_shards"
_TABLE = "parquet"
_REMEDY = "rebuild it with 'emoface parse EMOTIC_ROOT --out DIR'"
_ROWS_PER_GROUP = 1000
_THREADS_PER_PROCESS = 8
_BYTES_IN_FLIGHT = 256 * 2**20  # of decoded photos at the same time in a process, unless a single photo has more
_NOT_IN_KEY = ("dir", "weights", "engine", "shards", "images", "allow_missing")
"""Settings that do not change the content of a shard."""


class _DataSetFolder(Settings):
    """The setting that precedes the face settings in the help text: the data set's folder."""

    dir: Folder
    """Folder with ``people.parquet``; ``faces.parquet`` is written to it."""


class FacesConfig(FaceSettings, _DataSetFolder):
    """Settings of the faces job."""

    engine: Literal["local", "ray"] = "local"
    """Where shards are processed: on this machine, or on a Ray cluster whose nodes share the same files."""
    batch_size: Count = 8
    """Number of photos that a detector on torch receives at a time; ONNX Runtime gets one photo per core."""
    shard_size: Count = 256
    """Number of photos per shard; a resumed run keeps the finished shards."""
    shards: str | None = None
    """URL in an object store for the shards, such as s3://bucket/shards, where machines without a common disk share
    them; by default they are in DIR/faces_shards."""
    images: FolderOrUrl | None = None
    """Folder of the photos, or its URL, if they are no longer where parse found them; split writes it into the
    manifest."""
    allow_missing: bool = False
    """Go on although at least 95 % of the photos are missing; their people get the status image_missing."""

    @model_validator(mode="after")
    def _check_shards(self) -> Self:
        if self.shards is not None and not is_url(self.shards):
            raise SettingsError(
                f"shards is '{self.shards}', expected a URL in an object store such as s3://bucket/shards"
            )
        return self


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


class _FacesSummary(SummaryModel):
    """The summary of a shard; names of photos may be no UTF-8, which pydantic's own texts must be."""

    photo_digest: str
    table_sha256: str
    counts: dict[str, int]
    unreadable: dict[InstanceOf[str], InstanceOf[str]]


@dataclass(frozen=True)
class ShardWork:
    """Settings, photos, weights and shard folder, which all shards of one run share."""

    config: FacesConfig
    folder: PhotoFolder
    weights: WeightsFile
    shards: Shards


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
        SettingsError: ``images`` is no folder.
        ImageError: All photos are missing, or nearly all, and ``allow_missing`` is not set. Nothing is replaced.
        StoreError: The photos are in an object store, which does not answer or refuses to; the finished shards stay.
    """
    people_path = config.dir / "people.parquet"
    people = read_table(
        people_path, PEOPLE_SCHEMA, _REMEDY, ["index", "person_id", "image", "image_wh", "body_bbox", "same_person_as"]
    )
    folder = PhotoFolder.of_data_set(config.dir, config.images)
    weights = find_detector_weights(config)
    photos = list_photos(people)
    states = folder.read_states(photo.image for photo in photos)
    check_photos(folder.root, states, config.allow_missing)
    people_sha256 = file_sha256(people_path)
    inputs = {
        str(people_path): people_sha256,
        str(weights.path): weights.sha256,
        **folder.record_inputs(config.dir, config.images),
        **state_inputs(folder.root, states, (photo.image for photo in photos)),
    }
    code = code_fingerprint(__name__)
    key = _shards_key(config, folder, weights.sha256, people_sha256, code)
    work = ShardWork(config, folder, weights, _open_shards(config, key))
    shards = list(in_batches(photos, config.shard_size))
    tables = [config.dir / "faces.parquet", config.dir / "empty_faces.csv"]

    work.shards.remove_leftovers(_TABLE)
    for path in (*tables, record_path(config.dir, "faces")):
        remove_leftovers(path)
    progress.start("faces", len(photos))
    pending = work.shards.find_pending(shards, functools.partial(_is_whole, work, states), progress)
    if pending:
        run_shards = _run_shards_ray if config.engine == "ray" else _run_shards_local
        run_shards(work, pending, states, progress)

    if any(work.shards.read_summary(number)["photo_digest"] == CHANGED_DIGEST for number in range(len(shards))):
        inputs[str(folder.root)] = PHOTOS + CHANGED_DIGEST
        progress.note(f"{folder.root}: photos {CHANGED_DIGEST}; run 'emoface faces' again for them")
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
        info={
            **describe_faces(config, weights),
            IMAGE_ROOT: to_portable(folder.root, config.dir),
            **_list_unreadable(work.shards, len(shards), progress),
        },
    )


def remove_shards(config: FacesConfig) -> None:
    """Removes the shards of a run, so that it starts from the beginning; finished tables are kept.

    In an object store only the shards of these settings, this data set and this code are removed.
    """
    with lock_folder(config.dir):
        people_path = config.dir / "people.parquet"
        if config.shards is None:
            shutil.rmtree(config.dir / _SHARDS_NAME, ignore_errors=True)
        elif people_path.is_file():
            folder = PhotoFolder.of_data_set(config.dir, config.images)
            sha256 = find_detector_weights(config).sha256
            key = _shards_key(config, folder, sha256, file_sha256(people_path), code_fingerprint(__name__))
            _open_shards(config, key).remove()


def _open_shards(config: FacesConfig, key: str) -> Shards:
    if config.shards is None:
        return ShardFolder(config.dir / _SHARDS_NAME / key, _FacesSummary)
    return ShardObjects(f"{config.shards.rstrip('/')}/{key}", _FacesSummary)


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


def _is_whole(work: ShardWork, states: PhotoStates, number: int, shard: list[AnnotatedPhoto], summary: Summary) -> bool:
    """Tells whether a finished shard's photos are unchanged and its table is the one that its summary describes."""
    if summary["photo_digest"] != states.digest(photo.image for photo in shard):
        return False
    return bool(summary["table_sha256"] == work.shards.hash_file(number, _TABLE))


def _run_shards_local(
    work: ShardWork, pending: list[tuple[int, list[AnnotatedPhoto]]], states: PhotoStates, progress: Progress
) -> None:
    """Processes the shards in threads of this process, and on machines with many cores in several processes.

    Python runs in one thread of a process at a time, and it takes about 1/30 of the time that a photo takes, so more
    threads than that would wait for each other.
    """
    n_cpus = count_usable_cpus()
    n_processes = min(-(-n_cpus // _THREADS_PER_PROCESS), len(pending))
    if n_processes <= 1 or not _load_detector(work).uses_one_core:
        _write_shards(work, pending, states, progress)
        return
    shards = (
        _LocalShard(number, photos, PhotoStates({one.image: states.of[one.image] for one in photos}))
        for number, photos in pending
    )
    task = functools.partial(_write_shard_in_process, work, -(-n_cpus // n_processes))
    try:
        run_in_processes(task, shards, n_processes, progress.advance)
    finally:
        work.shards.remove_leftovers(_TABLE)  # of processes that died while they wrote


@dataclass(frozen=True)
class _LocalShard:
    """A shard for another process of this machine, with the states of its photos."""

    number: int
    photos: list[AnnotatedPhoto]
    states: PhotoStates


def _write_shard_in_process(work: ShardWork, n_threads: int, shard: _LocalShard) -> int:
    """Writes a shard in a process of its own; returns the number of its photos."""
    with limit_cpus(n_threads):
        _write_shards(work, [(shard.number, shard.photos)], shard.states, SILENT)
    return len(shard.photos)


@dataclass(frozen=True)
class _RemoteShard:
    """A shard for another machine, and what must be the same there.

    Attributes:
        number: The number of the shard.
        photos: The photos of the shard.
        code: Fingerprint of the code.
        files: Digests of the files that all machines share, see ``_digest_files``.
    """

    number: int
    photos: list[AnnotatedPhoto]
    code: str
    files: dict[str, str]


def _run_shards_ray(
    work: ShardWork, pending: list[tuple[int, list[AnnotatedPhoto]]], states: PhotoStates, progress: Progress
) -> None:
    """Distributes the shards over a Ray cluster whose nodes share the same files."""
    work = ShardWork(
        work.config.replace(dir=work.config.dir.absolute(), weights=None),
        work.folder,
        replace(work.weights, path=work.weights.path.absolute()),
        work.shards if not isinstance(work.shards, ShardFolder) else _absolute(work.shards),
    )
    code = code_fingerprint(__name__)
    try:
        run_on_ray(
            _write_shard_remotely,
            work,
            (_RemoteShard(number, photos, code, _digest_files(work, photos, states)) for number, photos in pending),
            lambda shard: progress.advance(len(shard.photos)),
            lambda shard: f"shard {shard.number} ({shard.photos[0].image} to {shard.photos[-1].image})",
            progress,
        )
    finally:
        work.shards.remove_leftovers(_TABLE)  # of worker processes that died while they wrote


def _write_shard_remotely(work: ShardWork, shard: _RemoteShard) -> None:
    """Writes a shard on any machine of a cluster.

    Raises:
        ClusterError: This machine has other code or other files than the one where the job was started.
        StoreError: An object store does not answer to this machine, or refuses to.
    """
    node = socket.gethostname()
    if _own_code() != shard.code:
        raise ClusterError(f"node {node}: another version of emoface is installed there; install the same on all nodes")
    weights = work.weights
    if not weights.path.is_file() or file_sha256(weights.path) != weights.sha256:
        raise ClusterError(f"node {node}: {weights.path} is missing or different there; copy the file to all nodes")
    try:
        _write_same_shard(work, shard, node)
    except StoreError as error:
        raise StoreError(f"node {node}: {error}") from error


def _write_same_shard(work: ShardWork, shard: _RemoteShard, node: str) -> None:
    """Writes a shard if this machine has the same files."""
    states = work.folder.read_states(photo.image for photo in shard.photos)
    here = _digest_files(work, shard.photos, states)
    for path, digest in shard.files.items():
        if here[path] != digest:
            raise ClusterError(
                f"node {node}: files of {path} are missing or different there (shard {shard.number}, "
                f"{shard.photos[0].image} to {shard.photos[-1].image}); all nodes must mount the same folders at the "
                "same paths, and no file may change while the job runs"
            )
    _write_shards(work, [(shard.number, shard.photos)], states, SILENT)


_own_code = functools.cache(functools.partial(code_fingerprint, __name__))


def _digest_files(work: ShardWork, photos: list[AnnotatedPhoto], states: PhotoStates) -> dict[str, str]:
    """Digests of size and time of a shard's files by their folder or path, the same on machines that share them.

    Machines that share shards and photos by an object store need no file of the data set's folder.
    """
    people = work.config.dir / "people.parquet"
    is_shared = isinstance(work.shards, ShardFolder)
    tables = {str(people): stat_digest(people.parent, [people.name])} if is_shared else {}
    return {**tables, str(work.folder.root): work.folder.digest_before(photos, states)}


def _absolute(shards: ShardFolder) -> ShardFolder:
    return ShardFolder(shards.path.absolute(), shards.kind)


@functools.lru_cache(maxsize=1)
def _load_detector(work: ShardWork) -> Detector:
    """Loads the run's detector; a worker that processes several shards loads it only once."""
    return load_face_detector(work.config, work.weights, n_threads=1)


def _write_shards(
    work: ShardWork,
    pending: list[tuple[int, list[AnnotatedPhoto]]],
    states: PhotoStates,
    progress: Progress,
) -> None:
    """Processes shards one after the other; the photos are one sequence, so that no core waits between two shards."""
    digests: dict[int, str] = {}

    def list_photos() -> Iterator[AnnotatedPhoto]:
        for number, shard in pending:
            digests[number] = work.folder.digest_before(shard, states)  # before the first of its photos is read
            yield from shard

    with closing(_find_faces(work, _load_detector(work), list_photos(), count_usable_cpus())) as found:
        for number, shard in pending:
            faces = []
            for one in itertools.islice(found, len(shard)):
                faces.append(one)
                progress.advance()
            _write_shard(work, number, shard, digests[number], faces)


def _write_shard(
    work: ShardWork, number: int, shard: list[AnnotatedPhoto], digest: str, faces: list[PhotoFaces]
) -> None:
    """Writes a shard's table first and its summary last, which marks the shard as finished."""
    counts: Counter[str] = Counter(photos=len(faces))
    unreadable: dict[str, str] = {}
    rows: list[dict[str, Any]] = []
    missing: list[str] = []
    for photo, one in zip(shard, faces, strict=True):
        missing += [photo.image] if one.counts["photos_missing"] else []
        rows += one.rows
        counts += one.counts
        unreadable |= one.unreadable
    digest = confirm_digest(digest, work.folder.root, shard, missing)
    _store_shard(work.shards, number, rows, photo_digest=digest, counts=dict(counts), unreadable=unreadable)


def _store_shard(shards: Shards, number: int, rows: list[dict[str, Any]], **facts: Any) -> None:
    """Writes the table of a shard, and then its summary: the table's sha256 and the other facts."""
    table = table_to_bytes(pa.Table.from_pylist(rows, schema=FACES_SCHEMA), FACES_SCHEMA)
    shards.unmark(number)
    shards.write_file(number, _TABLE, table)
    summary = {"table_sha256": hashlib.sha256(table).hexdigest(), **facts}
    shards.mark_done(number, json.dumps(summary, indent=1) + "\n")


def _find_faces(
    work: ShardWork, detector: Detector, photos: Iterable[AnnotatedPhoto], n_workers: int
) -> Generator[PhotoFaces]:
    """Finds the faces of photos, in order, on ``n_workers`` threads.

    A detector that uses one core is called by all of the threads at once. Any other gets batches from one thread, while
    the others decode and crop.
    """
    with one_opencv_thread(), ThreadPoolExecutor(n_workers) as pool, read_ahead(work.folder, photos) as (folder, ahead):
        work = replace(work, folder=folder)
        if detector.uses_one_core:
            yield from _find_in_workers(work, detector, ahead, pool, 4 * n_workers)
        else:
            yield from _find_in_batches(work, detector, ahead, pool)


def _find_in_workers(
    work: ShardWork, detector: Detector, photos: Iterable[AnnotatedPhoto], pool: Executor, ahead: int
) -> Iterator[PhotoFaces]:
    """Finds the faces of each photo in a thread of the pool, from reading the photo to encoding the crops."""
    budget = ByteBudget(_BYTES_IN_FLIGHT)

    def find(photo: AnnotatedPhoto) -> PhotoFaces:
        with budget.hold(work.folder.count_bytes(photo.image)):
            return find_held(photo)

    def find_held(photo: AnnotatedPhoto) -> PhotoFaces:  # its pixels are gone when it returns, before others may start
        one = work.folder.try_read(photo.image, photo.image_wh)
        found = Detections.empty() if one.photo is None else detector.detect([one.photo.pixels])[0]
        return _crop_people(work.config, photo, one, found)

    return map_ahead(pool, find, photos, ahead)


def _find_in_batches(
    work: ShardWork, detector: Detector, photos: Iterable[AnnotatedPhoto], pool: Executor
) -> Iterator[PhotoFaces]:
    """Finds the faces in batches; meanwhile the next batch is decoded and the last one is cropped.

    The batches depend on the photos alone, so a detector whose last digits depend on the batch gives the same results
    in every run.
    """
    config, folder = work.config, work.folder

    def weigh(photo: AnnotatedPhoto) -> tuple[AnnotatedPhoto, int]:
        return photo, folder.count_bytes(photo.image)

    def detect(batch: list[tuple[AnnotatedPhoto, Future[PhotoOrStatus]]]) -> list[Future[PhotoFaces]]:
        read = [(photo, future.result()) for photo, future in batch]
        found = iter(detector.detect([one.photo.pixels for _, one in read if one.photo is not None]))
        return [
            pool.submit(_crop_people, config, photo, one, Detections.empty() if one.photo is None else next(found))
            for photo, one in read
        ]

    weighed = map_ahead(pool, weigh, photos, 2 * config.batch_size)
    batches = in_light_batches(weighed, config.batch_size, _BYTES_IN_FLIGHT // 3)
    following = next(batches, None)
    decoding: deque[tuple[list[tuple[AnnotatedPhoto, Future[PhotoOrStatus]]], int]] = deque()
    cropping: deque[tuple[list[Future[PhotoFaces]], int]] = deque()
    n_held = 0
    while following or decoding or cropping:
        while following and len(decoding) < 2 and (n_held == 0 or n_held + following[1] <= _BYTES_IN_FLIGHT):
            batch, n_bytes = following
            decoding.append(
                ([(photo, pool.submit(folder.try_read, photo.image, photo.image_wh)) for photo in batch], n_bytes)
            )
            n_held += n_bytes
            following = next(batches, None)
        if decoding:
            cropping.append((detect(decoding[0][0]), decoding.popleft()[1]))
        while cropping and (len(cropping) > 1 or not decoding):
            crops, n_bytes = cropping.popleft()
            for crop in crops:
                yield crop.result()
            n_held -= n_bytes


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


def _merge_shards(path: Path, folder: Shards, shards: list[list[AnnotatedPhoto]]) -> None:
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
        return _read_shard(folder, number)

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


def _read_shard(shards: Shards, number: int) -> pa.Table:
    """Reads the table of a shard, which another run may have replaced since in an object store."""
    place, data = shards.place(number, _TABLE), shards.read_file(number, _TABLE)
    if data is None:
        raise TableError(f"{place}: no such file any more; run 'emoface faces' again")
    if hashlib.sha256(data).hexdigest() != shards.read_summary(number)["table_sha256"]:
        raise TableError(f"{place}: changed while it was read; run 'emoface faces' again, one run at a time")
    return bytes_to_table(data, place, FACES_SCHEMA, f"delete '{place.rpartition('/')[0]}' and run again")


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


def _sum_counts(shards: Shards, n_shards: int) -> dict[str, int]:
    counts: Counter[str] = Counter()
    for number in range(n_shards):
        counts += Counter(shards.read_summary(number)["counts"])
    return dict(sorted(counts.items()))


def _list_unreadable(shards: Shards, n_shards: int, progress: Progress) -> dict[str, dict[str, str]]:
    """Lists what is wrong with each photo that is there and cannot be read, by image; nothing if there is none."""
    unreadable: dict[str, str] = {}
    for number in range(n_shards):
        unreadable |= shards.read_summary(number)["unreadable"]
    for image, reason in unreadable.items():
        progress.note(f"{image}: {reason}")
    return {UNREADABLE_PHOTOS: unreadable} if unreadable else {}
