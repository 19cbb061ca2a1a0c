"""The faces job: detect, assign to people, crop; ``people.parquet`` to ``faces.parquet``.

Photos are worked off in shards. A shard's table is written first and its summary last, each in one step, so
the summary is itself the mark that the shard is done; a later run takes over every shard whose settings,
detector, code and photos are unchanged. The shards are then merged in the order of ``people.parquet``.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
import shutil
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from emoface.errors import ImageError, SettingsError, did_you_mean
from emoface.prefetch import in_batches, map_ahead
from emoface.progress import SILENT, Progress
from emoface.schema import EMPTY_FACE_COLUMNS, FACE_FOUND, FACE_STATUSES, FACES_SCHEMA, PEOPLE_SCHEMA
from emoface.storage.files import atomic_path, file_sha256, remove_leftovers, stat_digest, write_text
from emoface.storage.records import (
    JobRecord,
    code_fingerprint,
    hash_outputs,
    need_record,
    photo_inputs,
    record_path,
    to_settings,
    write_record,
)
from emoface.storage.tables import read_table, vectors_to_array, write_table
from emoface.storage.weights import WeightsFile, find_weights
from emoface.vision.assignment import UNASSIGNED, assign_faces
from emoface.vision.boxes import clip_boxes
from emoface.vision.crops import Photo, align_face, crop_square, square_box
from emoface.vision.detections import Detections
from emoface.vision.images import encode_jpeg, needs_exif_turn, read_photo, read_photo_size

if TYPE_CHECKING:
    from emoface.yolov5face import Detector

ENGINES = ("local", "ray")
_REMEDY = "rebuild it with 'emoface parse EMOTIC_ROOT --out DIR'"
_ROWS_PER_GROUP = 1000


@dataclass(frozen=True)
class FacesConfig:
    """What the faces job is told.

    Attributes:
        dir: The folder with ``people.parquet``.
        detector: Name of the detector's weights.
        weights: A weight file that is used instead of looking the name up.
        backend: ``auto``, ``onnx``, ``torch`` or ``hub``.
        conf_threshold: Faces scored lower are dropped, 0-1.
        iou_threshold: Non-maximum suppression drops a face that overlaps a better one by more, 0-1.
        image_size: Longer side of the network's input, pixels.
        margin: Share of the face's longer side that the crop gains on every side.
        align: Turn and scale the crop by the five landmarks.
        min_face_size: A face whose shorter side is below this is ``too_small``, original pixels.
        engine: ``local`` or ``ray``.
        batch_size: Photos that go through the network together.
        shard_size: Photos per shard, the unit that a resumed run keeps.
    """

    dir: Path
    detector: str = "yolov5n-face"
    weights: Path | None = None
    backend: str = "auto"
    conf_threshold: float = 0.5
    iou_threshold: float = 0.5
    image_size: int = 640
    margin: float = 0.15
    align: bool = False
    min_face_size: float = 10.0
    engine: str = "local"
    batch_size: int = 8
    shard_size: int = 256

    def __post_init__(self) -> None:
        if self.engine not in ENGINES:
            raise SettingsError(f"engine is '{self.engine}'{did_you_mean(self.engine, ENGINES)}")
        for name in ("conf_threshold", "iou_threshold"):
            if not 0 <= getattr(self, name) <= 1:
                raise SettingsError(f"{name} is {getattr(self, name)}, expected a number from 0 to 1")
        for name in ("batch_size", "shard_size", "image_size"):
            if getattr(self, name) < 1:
                raise SettingsError(f"{name} is {getattr(self, name)}, expected 1 or more")
        if self.margin < 0:
            raise SettingsError(f"margin is {self.margin}, expected 0 or more")


@dataclass(frozen=True)
class AnnotatedPhoto:
    """One photo with its annotated people.

    Attributes:
        image: Path below the image root.
        image_wh: Size that the boxes refer to.
        rows: (n,) the people's rows in ``people.parquet``.
        person_ids: Their ids.
        body_xyxy: (n, 4) their body boxes, nan where a person has none.
    """

    image: str
    image_wh: tuple[int, int]
    rows: list[int]
    person_ids: list[str]
    body_xyxy: NDArray[np.float32]


@dataclass
class PhotoFaces:
    """What came of one photo: a row of ``faces.parquet`` for each person, and what to count."""

    rows: list[dict[str, Any]]
    counts: Counter[str] = field(default_factory=Counter)


def run_faces(config: FacesConfig, progress: Progress = SILENT) -> JobRecord:
    """Detects the faces of every photo, gives each person theirs, and crops them.

    Args:
        config: What to do.
        progress: Told of each photo.

    Returns:
        The job's record; ``faces.parquet`` and ``empty_faces.csv`` are written, one row per person.

    Raises:
        TableError: ``people.parquet`` is missing or has other columns.
        WeightsError: The detector's weights are missing or damaged.
    """
    people_path = config.dir / "people.parquet"
    columns = ["index", "person_id", "image", "image_wh", "body_bbox"]
    people = read_table(people_path, PEOPLE_SCHEMA, _REMEDY, columns)
    image_root = Path(need_record(config.dir, "parse").info["image_root"])
    weights = find_weights(config.detector, config.weights)
    photos = _group_photos(people)
    people_sha256 = file_sha256(people_path)
    inputs = {
        str(people_path): people_sha256,
        str(weights.path): weights.sha256,
        **photo_inputs(image_root, (photo.image for photo in photos)),
    }
    shards = [photos[start : start + config.shard_size] for start in range(0, len(photos), config.shard_size)]
    code = code_fingerprint(__name__)
    shards_dir = config.dir / "faces_shards" / _shards_key(config, weights.sha256, people_sha256, code)
    work = ShardWork(config, image_root, weights, shards_dir)

    tables = [config.dir / "faces.parquet", config.dir / "empty_faces.csv"]
    for path in (*tables, record_path(config.dir, "faces"), shards_dir / "*.parquet", shards_dir / "*.json"):
        remove_leftovers(path)
    progress.start("faces", len(photos))
    pending = []
    for number, shard in enumerate(shards):
        if _is_shard_done(shards_dir, number, _photo_digest(image_root, shard)):
            progress.advance(len(shard))
        else:
            pending.append((number, shard))
    run_shards = _run_shards_ray if config.engine == "ray" else _run_shards_local
    if pending:
        run_shards(work, pending, progress)

    record_path(config.dir, "faces").unlink(missing_ok=True)  # it must not describe tables of two runs
    _merge_shards(config.dir / "faces.parquet", shards_dir, shards)
    statuses = _write_empty_faces(config.dir, people)
    for other in (config.dir / "faces_shards").glob("*"):
        if other != shards_dir:
            shutil.rmtree(other)
    record = JobRecord(
        job="faces",
        settings=to_settings(config),
        inputs=inputs,
        outputs=hash_outputs(config.dir, tables),
        counts={"people": people.num_rows, **_sum_counts(shards_dir, len(shards)), "face_status": statuses},
        info={
            "detector": weights.name,
            "weights_sha256": weights.sha256,
            **{
                name: getattr(config, name)
                for name in ("backend", "conf_threshold", "iou_threshold", "image_size", "margin", "align")
            },
        },
        code=code,
    )
    write_record(config.dir, record)
    return record


@dataclass(frozen=True)
class ShardWork:
    """What every shard of one run has in common."""

    config: FacesConfig
    image_root: Path
    weights: WeightsFile
    shards_dir: Path


def _group_photos(people: pa.Table) -> list[AnnotatedPhoto]:
    """The photos in order of first appearance, each with all of its people."""
    body_xyxy = vectors_to_array(people["body_bbox"], 4)
    image_wh = vectors_to_array(people["image_wh"], 2)
    person_ids = people["person_id"].to_pylist()
    rows_of: dict[str, list[int]] = {}
    for row, image in enumerate(people["image"].to_pylist()):
        rows_of.setdefault(image, []).append(row)
    return [
        AnnotatedPhoto(
            image=image,
            image_wh=(int(image_wh[rows[0], 0]), int(image_wh[rows[0], 1])),
            rows=rows,
            person_ids=[person_ids[row] for row in rows],
            body_xyxy=body_xyxy[rows],
        )
        for image, rows in rows_of.items()
    ]


def _shards_key(config: FacesConfig, weights_sha256: str, people_sha256: str, code: str) -> str:
    """Names everything but the photos that decides what a shard holds."""
    settings = {name: value for name, value in asdict(config).items() if name not in ("dir", "weights", "engine")}
    told = json.dumps([settings, weights_sha256, people_sha256, code], sort_keys=True)
    return hashlib.sha256(told.encode()).hexdigest()[:16]


def _photo_digest(image_root: Path, photos: list[AnnotatedPhoto]) -> str:
    """Changes when a photo of the shard comes, goes or is replaced (by size and time of change)."""
    return stat_digest(image_root, (photo.image for photo in photos))


def _table_path(shards_dir: Path, number: int) -> Path:
    return shards_dir / f"{number:05d}.parquet"


def _summary_path(shards_dir: Path, number: int) -> Path:
    return shards_dir / f"{number:05d}.json"


def _is_shard_done(shards_dir: Path, number: int, photo_digest: str) -> bool:
    table_path, summary_path = _table_path(shards_dir, number), _summary_path(shards_dir, number)
    if not (table_path.is_file() and summary_path.is_file()):
        return False
    summary: dict[str, Any] = json.loads(summary_path.read_text(encoding="utf-8"))
    return bool(summary["photo_digest"] == photo_digest and summary["table_sha256"] == file_sha256(table_path))


def _run_shards_local(work: ShardWork, pending: list[tuple[int, list[AnnotatedPhoto]]], progress: Progress) -> None:
    detector = _load_detector(work)
    for number, shard in pending:
        _write_shard(work, detector, number, shard, progress)


def _run_shards_ray(work: ShardWork, pending: list[tuple[int, list[AnnotatedPhoto]]], progress: Progress) -> None:
    """Spreads the shards over a Ray cluster whose nodes see the same files."""
    try:
        import ray
    except ImportError as error:
        raise SettingsError("--engine ray needs the package ray; install it with pip install 'emoface[ray]'") from error
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
    """The run's detector; a worker that gets several shards loads it once, and torch with it."""
    from emoface.yolov5face import load_detector

    config = work.config
    return load_detector(
        work.weights.path,
        network=work.weights.network,
        backend=config.backend,
        image_size=config.image_size,
        conf_threshold=config.conf_threshold,
        iou_threshold=config.iou_threshold,
    )


def _write_shard(
    work: ShardWork, detector: Detector, number: int, shard: list[AnnotatedPhoto], progress: Progress
) -> None:
    """Works off one shard: its table first, its summary last."""
    photo_digest = _photo_digest(work.image_root, shard)
    counts: Counter[str] = Counter(photos=len(shard))
    rows: list[dict[str, Any]] = []
    for faces in _find_faces(work, detector, shard):
        rows += faces.rows
        counts += faces.counts
        progress.advance()
    table_path = _table_path(work.shards_dir, number)
    write_table(table_path, pa.Table.from_pylist(rows, schema=FACES_SCHEMA), FACES_SCHEMA)
    summary = {"photo_digest": photo_digest, "table_sha256": file_sha256(table_path), "counts": dict(counts)}
    write_text(_summary_path(work.shards_dir, number), json.dumps(summary, indent=1) + "\n")


def _find_faces(work: ShardWork, detector: Detector, shard: list[AnnotatedPhoto]) -> Iterator[PhotoFaces]:
    """Decodes and crops on all cores while the network runs; yields in the shard's order."""
    config = work.config
    n_threads = os.cpu_count() or 1
    with ThreadPoolExecutor(n_threads) as pool:
        read = functools.partial(_read_annotated_photo, work.image_root)
        ahead = 2 * config.batch_size
        crops: list[Future[PhotoFaces]] = []
        for batch in in_batches(map_ahead(pool, read, shard, ahead), config.batch_size):
            readable = [one for one in batch if one.pixels is not None]
            found = iter(detector.detect([one.pixels for one in readable if one.pixels is not None]))
            for one in batch:
                detections = Detections.empty() if one.pixels is None else next(found)
                crops.append(pool.submit(_assign_and_crop, config, one, detections))
            while len(crops) > ahead:
                yield crops.pop(0).result()
        for crop in crops:
            yield crop.result()


@dataclass(frozen=True)
class DecodedPhoto:
    """A photo's pixels in the frame of its boxes, or the status that says why there are none."""

    photo: AnnotatedPhoto
    pixels: Photo | None
    status: str = ""
    exif: str = ""


def _read_annotated_photo(image_root: Path, photo: AnnotatedPhoto) -> DecodedPhoto:
    """The per-photo boundary: what is wrong with a photo becomes the status of its rows."""
    path = image_root / photo.image
    if not path.is_file():
        return DecodedPhoto(photo, None, "image_missing")
    try:
        size = read_photo_size(path)
        turn = needs_exif_turn(size, photo.image_wh)
        exif = "" if size.exif_orientation == 1 else "exif_applied" if turn else "exif_ignored"
        return DecodedPhoto(photo, read_photo(path, apply_exif=turn), exif=exif)
    except ImageError:
        return DecodedPhoto(photo, None, "image_unreadable")


def _assign_and_crop(config: FacesConfig, one: DecodedPhoto, detections: Detections) -> PhotoFaces:
    """Rows of ``faces.parquet`` for the people of one photo."""
    photo = one.photo
    blank: dict[str, Any] = {"face": None, "face_bbox": None, "landmarks": None, "conf": None}
    keys = [{"index": row, "person_id": name} for row, name in zip(photo.rows, photo.person_ids, strict=True)]
    if one.pixels is None:
        counts = Counter({f"photos_{one.status.removeprefix('image_')}": 1})
        return PhotoFaces([{**key, **blank, "face_status": one.status} for key in keys], counts)

    height, width = one.pixels.shape[:2]
    counts = Counter(faces_detected=len(detections))
    if one.exif:
        counts[f"photos_{one.exif}"] = 1
    if (width, height) != photo.image_wh:
        counts["photos_of_other_size"] = 1
    face_xyxy = clip_boxes(detections.xyxy, (width, height))
    face_index, lost_to_other = assign_faces(photo.body_xyxy, face_xyxy)
    rows: list[dict[str, Any]] = []
    for key, chosen, lost in zip(keys, face_index, lost_to_other, strict=True):
        if chosen == UNASSIGNED:
            rows.append({**key, **blank, "face_status": "other_person" if lost else "no_face"})
        elif min(face_xyxy[chosen, 2:] - face_xyxy[chosen, :2]) < config.min_face_size:
            rows.append({**key, **blank, "face_status": "too_small"})
        else:
            crop = _crop_face(config, one.pixels, face_xyxy[chosen], detections.landmarks[chosen])
            rows.append(
                {
                    **key,
                    "face": {"bytes": encode_jpeg(crop), "path": f"{key['person_id']}.jpg"},
                    "face_bbox": face_xyxy[chosen].tolist(),
                    "landmarks": detections.landmarks[chosen].ravel().tolist(),
                    "conf": float(detections.conf[chosen]),
                    "face_status": FACE_FOUND,
                }
            )
    return PhotoFaces(rows, counts)


def _crop_face(
    config: FacesConfig, pixels: Photo, face_xyxy: NDArray[np.float32], landmarks: NDArray[np.float32]
) -> Photo:
    left, top, side = square_box(face_xyxy, config.margin)
    if config.align:
        return align_face(pixels, landmarks, side, config.margin)
    return crop_square(pixels, left, top, side)


def _merge_shards(path: Path, shards_dir: Path, shards: list[list[AnnotatedPhoto]]) -> None:
    """Writes the rows of all shards in order of ``index``, a row group at a time.

    A photo that EMOTIC lists in two places has all of its rows in one shard, so a row group may need rows
    of several shards.
    """
    rows_of = [np.array([row for photo in shard for row in photo.rows], dtype=np.int64) for shard in shards]
    n_people = sum(len(rows) for rows in rows_of)
    shard_of, place_in_shard = np.zeros(n_people, np.int64), np.zeros(n_people, np.int64)
    for number, rows in enumerate(rows_of):
        shard_of[rows], place_in_shard[rows] = number, np.arange(len(rows))

    @functools.lru_cache(maxsize=4)
    def read_shard(number: int) -> pa.Table:
        return read_table(_table_path(shards_dir, number), FACES_SCHEMA, "delete 'faces_shards' and run again")

    with (
        atomic_path(path) as temporary,
        pq.ParquetWriter(temporary, FACES_SCHEMA, compression="zstd") as writer,
    ):
        for start in range(0, n_people, _ROWS_PER_GROUP):
            part = slice(start, start + _ROWS_PER_GROUP)
            needed = np.unique(shard_of[part])
            tables = [read_shard(int(number)) for number in needed]
            first_row = np.concatenate([[0], np.cumsum([table.num_rows for table in tables])[:-1]])
            place = first_row[np.searchsorted(needed, shard_of[part])] + place_in_shard[part]
            writer.write_table(pa.concat_tables(tables).take(place))


def _write_empty_faces(out: Path, people: pa.Table) -> dict[str, int]:
    """Writes ``empty_faces.csv`` and counts the rows of each status."""
    remedy = "rebuild it with 'emoface faces DIR'"
    status = read_table(out / "faces.parquet", FACES_SCHEMA, remedy, ["face_status"])["face_status"]
    table = pd.DataFrame(
        {
            "index": people["index"].to_numpy(),
            "person_id": people["person_id"].to_pylist(),
            "image": people["image"].to_pylist(),
            "face_status": status.to_pylist(),
        }
    )
    empty = table.loc[table["face_status"] != FACE_FOUND, list(EMPTY_FACE_COLUMNS)]
    write_text(out / "empty_faces.csv", empty.to_csv(index=False, lineterminator="\n"))
    return {name: int((table["face_status"] == name).sum()) for name in FACE_STATUSES}


def _sum_counts(shards_dir: Path, n_shards: int) -> dict[str, int]:
    counts: Counter[str] = Counter()
    for number in range(n_shards):
        counts += Counter(json.loads(_summary_path(shards_dir, number).read_text(encoding="utf-8"))["counts"])
    return dict(sorted(counts.items()))


def forget_faces(out: Path) -> None:
    """Removes the shards of ``out``, so that the next run starts over; finished tables stay until then."""
    shutil.rmtree(out / "faces_shards", ignore_errors=True)
