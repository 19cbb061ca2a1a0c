"""The crop job: every face of any photos as a file, with a table of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Self

import cv2
import numpy as np
import pyarrow as pa
from pydantic import Field, model_validator

from emoface.errors import ImageError, SettingsError, name_first
from emoface.inference.faces import (
    DetectorSettings,
    FaceSettings,
    find_detector_weights,
    load_face_detector,
    select_faces,
)
from emoface.progress import SILENT, Progress
from emoface.reporting.drawing import unique_stems
from emoface.schema import CROPS_SCHEMA
from emoface.storage.csv_files import csv_text
from emoface.storage.files import write_bytes, write_text
from emoface.storage.json_lines import digest_key, is_of_photo, keep_lines, open_lines, photo_entries, read_lines
from emoface.storage.locks import locked
from emoface.storage.media import list_media
from emoface.storage.photo_stores import hash_photos, read_photo_at
from emoface.storage.records import JobRecord, finish_job
from emoface.storage.settings import Count, Folder, PathOrUrl
from emoface.storage.tables import write_table
from emoface.storage.urls import Place
from emoface.storage.weights import WeightsFile
from emoface.version import __version__
from emoface.vision.crops import Photo, align_face, crop_face
from emoface.vision.detections import Detections
from emoface.vision.images import encode_jpeg

if TYPE_CHECKING:
    from emoface.yolov5face import Detector

LINES_NAME = "crops.jsonl"
TABLE_NAME = "crops"
FACES_NAME = "faces"
ARCFACE_SIDE = 112
_KEY_NAME = "crops.key.json"
_POINTS = ("left_eye", "right_eye", "nose", "left_mouth", "right_mouth")
_MOST_NAMED = 5


class CropConfig(DetectorSettings):
    """Settings of the crop job."""

    images: tuple[PathOrUrl, ...] = ()
    """Photos whose faces are cropped: files; folders, which stand for the photos in them and below; patterns such as
    'photos/*.jpg'; photos also as URLs in an object store such as s3://bucket/photo.jpg."""
    out: Folder
    """Folder for the crops and the table."""
    align: bool = False
    """Turn and scale each face by its five landmarks to ArcFace's template of 112 x 112 pixels, without a margin."""
    margin: Annotated[float, Field(ge=0)] | None = None
    """Margin on every side of the crop, as a share of the face's longer side; by default 0.15 as in EMOTIC_Face, and 0
    with --align."""
    size: Count | None = None
    """Side of every crop in pixels; by default 112 with --align, else the side that the face has in the photo."""
    min_face_size: Annotated[float, Field(ge=0)] = FaceSettings.model_fields["min_face_size"].default
    """A face whose shorter side is below this many pixels of the photo is left out."""

    @model_validator(mode="after")
    def _check_images(self) -> Self:
        if not self.images:
            raise SettingsError("no images; give one or more photos or folders")
        return self

    @property
    def faces(self) -> FaceSettings:
        """The settings of the crops in the form that other jobs use."""
        default: float = FaceSettings.model_fields["margin"].default
        margin = (0.0 if self.align else default) if self.margin is None else self.margin
        return FaceSettings(align=self.align, margin=margin, min_face_size=self.min_face_size)


@dataclass(frozen=True)
class _Job:
    """What all photos share."""

    config: CropConfig
    weights: WeightsFile
    detector: Detector
    progress: Progress


@locked("out")
def run_crop(config: CropConfig, progress: Progress = SILENT) -> JobRecord:
    """Finds every face of photos, and writes each as a JPEG file and as a row of a table.

    An interrupted job goes on with the photos that it has not finished, if the settings are the same.

    Args:
        config: Settings of the job.
        progress: Receives one step per photo.

    Returns:
        The job's record. ``OUT/faces/`` has the crops, ``OUT/crops.csv`` and ``OUT/crops.parquet`` have one row per
        face: file, photo, number of the face from left to right, box, landmarks and score, in pixels of the upright
        photo.

    Raises:
        ImageError: Some photos could not be read; the crops of the others and the record are written.
        SettingsError: A folder has no photos.
        WeightsError: The weights of the detector are missing or damaged.
    """
    photos = list(list_media(config.images, config.out).photos)
    weights = find_detector_weights(config)
    job = _Job(config, weights, load_face_detector(config, weights), progress)
    failures = _crop_photos(job, dict(zip(unique_stems(photos), photos, strict=True)))
    lines = {str(line["image"]): line for line in read_lines(config.out / LINES_NAME)}
    rows = [row for place in photos if str(place) in lines for row in lines[str(place)]["faces"]]
    tables = _write_tables(config.out, rows)
    record = finish_job(
        "crop",
        config,
        config.out,
        module=__name__,
        inputs=hash_photos((weights.path, *photos)),
        outputs=[*tables, *(config.out / row["file"] for row in rows)],
        counts={"photos": len(lines), "photos_left_out": len(failures), "faces": len(rows)},
        info={"detector": weights.name, "weights_sha256": weights.sha256},
    )
    if failures:
        raise ImageError(
            f"{len(failures)} of {len(photos)} photos could not be read: {name_first(failures, _MOST_NAMED)}; "
            f"the faces of the others are in {config.out}"
        )
    return record


def _crop_photos(job: _Job, photo_of: Mapping[str, Place]) -> list[str]:
    """Crops the faces of the photos that are not finished yet; returns what could not be read, and why."""
    out = job.config.out
    done = _keep_done(job, photo_of)
    failures: list[str] = []
    job.progress.start("crop", len(photo_of))
    with open_lines(out / LINES_NAME, adds=True) as write:
        for stem, place in photo_of.items():
            if stem not in done:
                try:
                    photo = read_photo_at(place)
                except ImageError as error:
                    failures.append(str(error))
                else:
                    faces = list(_crop_faces(job, photo, stem, place))
                    write({**photo_entries(place), "name": stem, "faces": faces})
            job.progress.advance()
    return failures


def _keep_done(job: _Job, photo_of: Mapping[str, Place]) -> set[str]:
    """Keeps the lines of photos that an earlier job finished with the same settings; returns their names."""
    out = job.config.out
    done: set[str] = set()

    def is_done(line: dict[str, Any]) -> bool:
        stem, faces = line.get("name"), line.get("faces")
        if not isinstance(stem, str) or stem in done or stem not in photo_of or not isinstance(faces, list):
            return False
        if not is_of_photo(line, photo_of[stem]):
            return False
        if not all(isinstance(row, dict) and (out / str(row.get("file"))).is_file() for row in faces):
            return False
        done.add(stem)
        return True

    settings = {name: value for name, value in job.config.to_json().items() if name not in ("images", "out", "weights")}
    key = digest_key({"version": __version__, "settings": settings, "weights": job.weights.sha256})
    keep_lines(out / LINES_NAME, out / _KEY_NAME, key, is_done)
    if done:
        job.progress.note(f"{len(done)} of {len(photo_of)} photos are finished already, with the same settings")
    return done


def _crop_faces(job: _Job, photo: Photo, stem: str, place: Place) -> Iterator[dict[str, Any]]:
    """Writes the crops of a photo's faces, and yields their rows."""
    found = select_faces((photo.shape[1], photo.shape[0]), job.detector.detect([photo])[0], job.config.faces)
    for k in range(len(found)):
        file = f"{FACES_NAME}/{stem}_{k}.jpg"
        write_bytes(job.config.out / file, encode_jpeg(crop_one_face(photo, found, k, job.config)))
        yield {
            "file": file,
            "photo": str(place),
            "face": k,
            "face_bbox": found.xyxy[k].tolist(),
            "landmarks": found.landmarks[k].ravel().tolist(),
            "conf": float(found.conf[k]),
        }


def crop_one_face(photo: Photo, found: Detections, k: int, config: CropConfig) -> Photo:
    """Crops a face as the settings say, (side, side, 3).

    Args:
        photo: (height, width, 3), RGB.
        found: The faces of the photo.
        k: Which of them.
        config: The settings.
    """
    margin = config.faces.margin
    if config.align:
        return align_face(photo, found.landmarks[k], config.size or ARCFACE_SIDE, margin)
    crop = crop_face(photo, found.xyxy[k], found.landmarks[k], margin=margin, align=False)
    if config.size is None:
        return crop
    way = cv2.INTER_AREA if config.size < len(crop) else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(crop, (config.size, config.size), interpolation=way), np.uint8)


def _write_tables(out: Path, rows: Sequence[Mapping[str, Any]]) -> list[Path]:
    csv_path, parquet_path = out / f"{TABLE_NAME}.csv", out / f"{TABLE_NAME}.parquet"
    points = [f"{name}_{axis}" for name in _POINTS for axis in "xy"]
    columns = ["file", "photo", "face", "x1", "y1", "x2", "y2", "conf", *points]
    flat = ([row["file"], row["photo"], row["face"], *row["face_bbox"], row["conf"], *row["landmarks"]] for row in rows)
    write_text(csv_path, csv_text(columns, flat))
    write_table(parquet_path, pa.Table.from_pylist(list(rows), schema=CROPS_SCHEMA), CROPS_SCHEMA)
    return [csv_path, parquet_path]
