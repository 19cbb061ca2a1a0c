"""The pose job: finds the points of every annotated person's body; ``people.parquet`` to ``pose.parquet``.

Photos are processed in shards, see ``emoface.datasets.photo_arrays``, so an interrupted run continues.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Self

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pydantic import model_validator

from emoface.datasets.photo_arrays import PhotoArrays, PhotoBodies, digest_bodies, list_bodies
from emoface.datasets.photos import PhotoFolder, UprightPhoto, check_photos
from emoface.errors import SettingsError, TableError
from emoface.inference.pose import (
    LANDMARKS,
    PoseProvider,
    find_people,
    load_pose_provider,
    points_of_faces,
    round_points,
)
from emoface.progress import SILENT, Progress
from emoface.schema import FACES_SCHEMA, LIST_LENGTHS, PEOPLE_SCHEMA, POINTS_FILE, POSE_SCHEMA, POSE_TABLE
from emoface.storage.files import file_sha256
from emoface.storage.locks import locked
from emoface.storage.photo_stores import PhotoStates
from emoface.storage.records import JobRecord, code_fingerprint, finish_job
from emoface.storage.settings import File, Folder, FolderOrUrl, Settings
from emoface.storage.tables import read_table, vectors_to_array, write_table
from emoface.vision.arrays import Float32Array
from emoface.vision.whole_body import N_POINTS

_SHARDS_NAME = "pose_shards"
_REMEDY = "rebuild it with 'emoface parse EMOTIC_ROOT --out DIR'"
_POINTS_SCHEMA = pa.schema([pa.field("person_id", pa.string()), pa.field("points", pa.list_(pa.float32()))])
_ROWS_AT_A_TIME = 10_000


class PoseConfig(Settings):
    """Settings of the pose job."""

    dir: Folder
    """Folder with ``people.parquet``; ``pose.parquet`` is written to it."""
    provider: str = LANDMARKS
    """What finds the points: landmarks takes those of the face detector from faces.parquet, without a pose; any other
    is the name of the weights of a model, such as movenet-lightning (17 joints)."""
    weights: File | None = None
    """A model file, instead of looking the provider up: MoveNet for one person (.tflite), or RTMPose or RTMW (.onnx, 17
    or 133 points)."""
    points: File | None = None
    """A parquet file with the columns person_id and points, found by something else: 133 times x, y and confidence, in
    the frame of body_bbox. The ground_truth.parquet of a simulation is one."""
    images: FolderOrUrl | None = None
    """Folder of the photos, or its URL, if they are no longer where parse found them."""
    allow_missing: bool = False
    """Go on although at least 95 % of the photos are missing."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        given = [
            name
            for name, is_given in (
                ("provider", self.provider != LANDMARKS),
                ("weights", self.weights is not None),
                ("points", self.points is not None),
            )
            if is_given
        ]
        if "points" in given and len(given) > 1:
            raise SettingsError(f"points is given together with {' and '.join(given[:-1])}; give only one of them")
        return self


@locked("dir")
def run_pose(config: PoseConfig, progress: Progress = SILENT) -> JobRecord:
    """Finds the points of every person's body.

    Args:
        config: Settings of the job.
        progress: Receives one step per photo that is read.

    Returns:
        The job's record. The job writes ``pose.parquet``, one row per row of ``people.parquet``.

    Raises:
        TableError: A table is missing or damaged.
        ImageError: All photos are missing, or nearly all, and ``allow_missing`` is not set. Nothing is replaced.
        WeightsError: The model is missing, damaged, or finds no body points.
    """
    people_path = config.dir / "people.parquet"
    columns = ["index", "person_id", "image", "image_wh", "body_bbox"]
    people = read_table(people_path, PEOPLE_SCHEMA, _REMEDY, columns)
    inputs = {str(people_path): file_sha256(people_path)}
    sha256: str | None = None
    if config.points is not None:
        name, sha256 = POINTS_FILE, file_sha256(config.points)
        inputs[str(config.points)] = sha256
        points = _read_points(config.points, people)
    elif config.provider == LANDMARKS and config.weights is None:
        name, faces_path = LANDMARKS, config.dir / "faces.parquet"
        points = _take_landmarks(faces_path, people)
        inputs[str(faces_path)] = file_sha256(faces_path)
    else:
        provider = load_pose_provider(config.provider, config.weights)
        name, sha256 = provider.name, provider.sha256
        folder = PhotoFolder.of_data_set(config.dir, config.images)
        photos = list_bodies(people)
        states = folder.read_states(photo.image for photo in photos)
        check_photos(folder.root, states, config.allow_missing)
        points, photo_inputs = _find_points(config.dir, photos, folder, states, provider, progress)
        inputs |= photo_inputs | folder.record_inputs(config.dir, config.images)
    path = config.dir / POSE_TABLE
    _write_points(path, people, points, name, sha256)
    return finish_job(
        "pose",
        config,
        config.dir,
        module=__name__,
        inputs=inputs,
        outputs=[path],
        counts=_count(points),
        info={"provider": name, "provider_sha256": sha256},
    )


def _find_points(
    out: Path,
    photos: list[PhotoBodies],
    folder: PhotoFolder,
    states: PhotoStates,
    provider: PoseProvider,
    progress: Progress,
) -> tuple[Float32Array, dict[str, str]]:
    """Finds the points of all people, (n, 133, 3), nan without a photo; also the photos as an input of the job."""

    def compute(photo: PhotoBodies, upright: UprightPhoto) -> NDArray[Any]:
        found = find_people(provider, upright.pixels, upright.turn.to_upright(photo.body_xyxy))
        found[..., :2] = upright.turn.points_to_stored(found[..., :2])
        found[found[..., 2] <= 0] = 0
        return found

    key = [provider.sha256, folder.undecided_frame, digest_bodies(photos), code_fingerprint(__name__)]
    arrays = PhotoArrays.below(out / _SHARDS_NAME, key, folder, compute, (N_POINTS, 3), np.float32)
    photo_inputs = arrays.complete_and_note("pose", photos, states, progress)
    n_people = sum(len(photo.rows) for photo in photos)
    points = np.full((n_people, N_POINTS, 3), np.nan, np.float32)
    for photo, status, rows in arrays.read(photos):
        if not status:
            points[photo.rows] = rows
            points[photo.rows[~np.isfinite(photo.body_xyxy).all(axis=1)]] = np.nan
    arrays.shards.remove_other_keys()
    return points, photo_inputs


def _take_landmarks(path: Path, people: pa.Table) -> Float32Array:
    """The points of the detector's landmarks, (n, 133, 3); of a person without a face ``no_points``."""
    faces = read_table(path, FACES_SCHEMA, "run 'emoface faces' first", ["person_id", "landmarks", "conf"])
    if faces["person_id"].to_pylist() != people["person_id"].to_pylist():
        raise TableError(f"{path}: lists other people than people.parquet; run 'emoface faces' again")
    landmarks = vectors_to_array(faces["landmarks"], LIST_LENGTHS["landmarks"]).reshape(-1, 5, 2)
    return points_of_faces(landmarks, faces["conf"].to_numpy())


def _read_points(path: Path, people: pa.Table) -> Float32Array:
    """The points of a table that something else wrote, (n, 133, 3); nan for a person that it does not have."""
    remedy = "give a parquet file with person_id and 399 values of points per person"
    table = read_table(path, _POINTS_SCHEMA, remedy, ["person_id", "points"])
    known = table.filter(table["person_id"].is_valid())
    row_of = {person: row for row, person in enumerate(known["person_id"].to_pylist())}
    rows = [row_of.get(person, -1) for person in people["person_id"].to_pylist()]
    if people.num_rows and max(rows) < 0:
        first = people["person_id"][0].as_py()
        raise TableError(f"{path}: has nobody of people.parquet, such as {first!r}; {remedy} of this data set")
    values = vectors_to_array(known["points"], N_POINTS * 3).reshape(-1, N_POINTS, 3)
    points = np.full((people.num_rows, N_POINTS, 3), np.nan, np.float32)
    is_known = np.array(rows, np.int64) >= 0
    points[is_known] = values[np.array(rows, np.int64)[is_known]]
    return points


def _write_points(path: Path, people: pa.Table, points: Float32Array, name: str, sha256: str | None) -> None:
    """Writes ``pose.parquet``; rounded values halve the file."""
    is_known = np.asarray(np.isfinite(points).all(axis=(1, 2)), np.bool_)
    rounded = round_points(points).reshape(len(points), -1)
    lists = [row if known else None for row, known in zip(rounded, is_known, strict=True)]
    table = pa.table(
        {
            "index": people["index"],
            "person_id": people["person_id"],
            "points": pa.array(lists, POSE_SCHEMA.field("points").type),
            "provider": pa.array([name] * len(lists), pa.string()),
            "provider_sha256": pa.array([sha256] * len(lists), pa.string()),
        }
    )
    write_table(path, table, POSE_SCHEMA, _ROWS_AT_A_TIME)


def _count(points: Float32Array) -> dict[str, int]:
    """Counts people, those without points, and those of whom something was found."""
    is_known = np.asarray(np.isfinite(points).all(axis=(1, 2)), np.bool_)
    confident = np.where(is_known[:, None], points[..., 2] > 0, False)
    return {
        "people": len(points),
        "without_points": int((~is_known).sum()),
        "with_joints": int(confident[:, :17].any(axis=1).sum()),
        "with_face_points": int(confident[:, 23:91].any(axis=1).sum()),
    }
