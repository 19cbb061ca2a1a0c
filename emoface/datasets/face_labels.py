"""Photos with labelled faces, for training and evaluating a detector.

Three formats are read: the text file of WIDER FACE (``wider_face_train_bbx_gt.txt``), the text file of RetinaFace for
the same photos with five landmarks per face (``label.txt``), and the simulator's ground truth.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from emoface.errors import AnnotationsError
from emoface.metrics.detection import LabelledFaces
from emoface.progress import SILENT, Progress
from emoface.schema import GROUND_TRUTH_SCHEMA
from emoface.storage.files import is_below, read_text
from emoface.storage.tables import read_table
from emoface.vision.crops import Photo
from emoface.vision.images import read_photo, why_unreadable

_TRUTH_NAME = "ground_truth.parquet"
MIN_SIDE = 3.0
"""Faces whose shorter side is below this many pixels are ignored: they do not count, whether found or not."""


@dataclass(frozen=True)
class LabelledPhoto:
    """One photo and its true faces.

    Attributes:
        path: Path of the photo.
        faces: The true faces, in pixels of the photo turned upright by its orientation.
    """

    path: Path
    faces: LabelledFaces

    def read(self) -> Photo:
        """Reads the photo upright, the frame of its faces, (height, width, 3), RGB."""
        return read_photo(self.path)


def read_face_labels(source: Path, images: Path | None = None) -> list[LabelledPhoto]:
    """Reads labelled photos in any of the three formats.

    Args:
        source: A folder written by ``emoface simulate``, or a label file of WIDER FACE or RetinaFace.
        images: Folder of the photos; None is ``emotic/`` of a simulation, else ``images/`` beside the label file.

    Raises:
        AnnotationsError: The source is missing or its format is unknown, or a line cannot be read.
    """
    if source.is_dir():
        return _read_simulation(source, images or source / "emotic")
    if not source.is_file():
        raise AnnotationsError(
            f"{source}: no such file or folder; expected a simulation's folder or a label text of WIDER FACE"
        )
    lines = read_text(source, AnnotationsError).splitlines()
    first = next((line for line in lines if line.strip()), "")
    photos_dir = images or source.parent / "images"
    return (
        _read_retinaface(source, lines, photos_dir) if first.startswith("#") else _read_wider(source, lines, photos_dir)
    )


def read_whole_photos(
    source: Path, images: Path | None = None, progress: Progress = SILENT
) -> tuple[list[LabelledPhoto], int]:
    """Reads labelled photos and leaves out those whose file cannot be read.

    Args:
        source: See ``read_face_labels``.
        images: See ``read_face_labels``.
        progress: Receives one step per photo, and why a photo is left out.

    Returns:
        The photos, and the number of photos left out because their file is missing or damaged.

    Raises:
        AnnotationsError: No photo can be read.
    """
    photos = read_face_labels(source, images)
    progress.start("check photos", len(photos))
    reasons = []
    with ThreadPoolExecutor() as pool:
        for photo, reason in zip(photos, pool.map(why_unreadable, [photo.path for photo in photos]), strict=True):
            reasons.append(reason)
            if reason is not None and photo.path.is_file():
                progress.note(f"left out: {reason}")
            progress.advance()
    readable = [photo for photo, reason in zip(photos, reasons, strict=True) if reason is None]
    if not readable:
        reason = reasons[0] if reasons else "it labels none"
        raise AnnotationsError(
            f"{source}: none of its {len(photos)} photos can be read ({reason}); put them beside the labels, in images/"
        )
    return readable, len(photos) - len(readable)


def label_file(source: Path) -> Path:
    """The file that contains the labels of a source: the ground truth of a simulation, else the source itself."""
    return source / _TRUTH_NAME if source.is_dir() else source


def to_labelled_faces(boxes: list[list[float]], landmarks: list[list[float]], is_ignored: list[bool]) -> LabelledFaces:
    """Converts lists to arrays; boxes with a side below ``MIN_SIDE`` are marked as ignored.

    Args:
        boxes: xyxy of each face, pixels.
        landmarks: Ten numbers for each face, nan where it has no landmarks.
        is_ignored: Whether each face is ignored.
    """
    xyxy = np.array(boxes, np.float32).reshape(-1, 4)
    too_small = (xyxy[:, 2:] - xyxy[:, :2] < MIN_SIDE).any(axis=1)
    return LabelledFaces(
        xyxy, np.array(landmarks, np.float32).reshape(-1, 5, 2), np.array(is_ignored, np.bool_) | too_small
    )


def _read_simulation(folder: Path, photos_dir: Path) -> list[LabelledPhoto]:
    """Reads the ground truth of a simulation; visible faces count.

    Faces that are too small or cut off by the border are ignored: a detector may find them or not. A face that
    is turned away or covered is not listed, so that a detection there is a false positive. A photo without rows shows
    no person, so that every detection in it is a false positive.
    """
    table = read_table(label_file(folder), GROUND_TRUTH_SCHEMA, "write it with 'emoface simulate'")
    drawn = sorted(path for path in photos_dir.glob("*/images/*") if path.suffix in (".jpg", ".png"))
    groups: dict[str, list[dict[str, object]]] = {path.relative_to(photos_dir).as_posix(): [] for path in drawn}
    for row in table.select(["image", "face_bbox", "landmarks", "face_visible", "hidden_by"]).to_pylist():
        groups.setdefault(row["image"], []).append(row)
    photos = []
    for image, rows in groups.items():
        counted = [r for r in rows if r["face_visible"] or r["hidden_by"] in ("too_small", "cut_by_border")]
        photos.append(
            LabelledPhoto(
                photos_dir / image,
                to_labelled_faces(
                    [r["face_bbox"] for r in counted],  # type: ignore[misc]
                    [r["landmarks"] for r in counted],  # type: ignore[misc]
                    [not r["face_visible"] for r in counted],
                ),
            )
        )
    return photos


def _read_wider(source: Path, lines: list[str], photos_dir: Path) -> list[LabelledPhoto]:
    """Reads WIDER FACE: path, count, then x, y, width, height and six flags per face; the fourth is ``invalid``."""
    photos, at = [], 0
    lines = [line.strip() for line in lines if line.strip()]
    while at < len(lines):
        name = lines[at]
        try:
            count = int(lines[at + 1])
            rows = [_numbers(line) for line in lines[at + 2 : at + 2 + count]]
            if len(rows) != count or any(len(row) < 4 for row in rows):
                raise ValueError(f"{len(rows)} of {count} rows, or a row of less than 4 numbers")
        except (IndexError, ValueError) as error:
            raise AnnotationsError(
                f"{source}: cannot read the faces of '{name}' ({error}); expected a count, then x y w h ... per face"
            ) from error
        at += 2 + count
        if count == 0 and at < len(lines) and _is_row_of_zeros(lines[at]):
            at += 1  # the released file has this row where a photo has no faces
        photos.append(
            LabelledPhoto(
                _photo_path(source, photos_dir, name),
                to_labelled_faces(
                    [_to_corners(row) for row in rows],
                    [[np.nan] * 10 for _ in rows],
                    [len(row) >= 8 and row[7] == 1 for row in rows],
                ),
            )
        )
    return photos


def _read_retinaface(source: Path, lines: list[str], photos_dir: Path) -> list[LabelledPhoto]:
    """Reads RetinaFace: ``# path``, then per face x, y, width, height and five times x, y, flag; -1 is no landmark."""
    photos: list[LabelledPhoto] = []
    name, rows = "", list[NDArray[np.float64]]()

    def finish() -> None:
        if name:
            landmarks = [_to_landmarks(row) for row in rows]
            faces = to_labelled_faces([_to_corners(row) for row in rows], landmarks, [False] * len(rows))
            photos.append(LabelledPhoto(_photo_path(source, photos_dir, name), faces))

    for number, line in enumerate(lines, start=1):
        if line.startswith("#"):
            finish()
            name, rows = line[1:].strip(), []
        elif line.strip():
            try:
                row = np.array(_numbers(line))
            except ValueError as error:
                raise AnnotationsError(f"{source}: line {number} is not a row of numbers ({error})") from error
            if len(row) not in (4, 19, 20):
                raise AnnotationsError(
                    f"{source}: line {number} has {len(row)} numbers, expected x y w h, or these and 5 times x y flag"
                )
            rows.append(row)
    finish()
    return photos


def _photo_path(source: Path, photos_dir: Path, name: str) -> Path:
    if not is_below(name):
        raise AnnotationsError(
            f"{source}: the photo {name!r} is outside the folder of the photos; expected one below '{photos_dir}'"
        )
    return photos_dir / name


def _is_row_of_zeros(line: str) -> bool:
    return set(line.split()) == {"0"}


def _numbers(line: str) -> list[float]:
    return [float(word) for word in line.split()]


def _to_corners(row: list[float] | NDArray[np.float64]) -> list[float]:
    return [row[0], row[1], row[0] + row[2], row[1] + row[3]]


def _to_landmarks(row: NDArray[np.float64]) -> list[float]:
    if len(row) < 19 or row[4] < 0:
        return [np.nan] * 10
    return [float(value) for value in row[4:19].reshape(5, 3)[:, :2].ravel()]
