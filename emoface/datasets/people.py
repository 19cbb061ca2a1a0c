"""Single people of a data set, found by their index, id or photo, with their annotations."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from emoface.datasets.manifest import Manifest
from emoface.errors import TableError
from emoface.schema import DIMENSIONS, SPLIT_SCHEMA, SPLITS
from emoface.storage.tables import open_table
from emoface.vision.crops import Photo
from emoface.vision.images import decode_photo

_REMEDY = "rebuild it with 'emoface split DIR'"
_COLUMNS = [
    *("index", "person_id", "image", "image_wh", "body_bbox", "categories", *DIMENSIONS),
    *("face", "face_bbox", "landmarks", "conf", "face_status"),
]


@dataclass(frozen=True)
class AnnotatedPerson:
    """One person of a data set.

    Attributes:
        index: ``index`` of the person in ``people.parquet``.
        person_id: ``person_id`` of the person in ``people.parquet``.
        image: Path of the photo below the image root.
        image_wh: Width and height of the frame of the boxes, pixels.
        split: ``train``, ``val`` or ``test``.
        body_xyxy: (4,) body box, original pixels; None where the annotations have no usable box.
        face_xyxy: (4,) face box, original pixels; None without a face.
        face: The face crop that the faces job stored, RGB; None without a face.
        landmarks: (5, 2) landmarks of the face, original pixels; None where there are none.
        face_conf: Score of the face, 0-1; None where there is none.
        categories: The true labels.
        vad: True valence, arousal, dominance, 1-10, by name; None where EMOTIC has none.
    """

    index: int
    person_id: str
    image: str
    image_wh: tuple[int, int]
    split: str
    body_xyxy: NDArray[np.float32] | None
    face_xyxy: NDArray[np.float32] | None
    face: Photo | None
    landmarks: NDArray[np.float32] | None
    face_conf: float | None
    categories: tuple[str, ...]
    vad: dict[str, float | None]


def find_first_rows(people: pa.Table) -> NDArray[np.int64]:
    """The first row of the same person, because a person may be annotated more than once.

    Args:
        people: n rows of ``people.parquet`` with ``same_person_as``.

    Returns:
        (n,) row numbers; the row itself where it is the first or only one of its person.

    Raises:
        TableError: A value is not a row of the table.

    Example:
        >>> find_first_rows(pa.table({"same_person_as": pa.array([None, None, 0], pa.int64())})).tolist()
        [0, 1, 0]
    """
    same_as = people["same_person_as"].fill_null(-1).to_numpy()
    if len(same_as) and same_as.max() >= len(same_as):
        raise TableError(
            f"people.parquet: same_person_as is {same_as.max()}, but there are {len(same_as)} rows; rebuild the table "
            "with 'emoface parse EMOTIC_ROOT --out DIR'"
        )
    return np.asarray(np.where(same_as < 0, np.arange(people.num_rows), same_as), np.int64)


def find_annotated_people(manifest: Manifest, column: str, values: Sequence[int | str]) -> list[AnnotatedPerson]:
    """Finds the people of a data set whose ``column`` is one of ``values``, in the order of their index.

    Args:
        manifest: The data set.
        column: ``index``, ``person_id`` or ``image``.
        values: The values to search for.

    Raises:
        TableError: No person has one of the values, or a table does not follow its schema.
    """
    people = []
    for split in SPLITS:
        path = manifest.split_path(split)
        with open_table(path, SPLIT_SCHEMA, _REMEDY) as opened:
            rows = opened.read_where(column, values, _COLUMNS)
        people += [_to_person(row, split) for row in rows.to_pylist()]
    found = {getattr(person, column) for person in people}
    missing = [value for value in values if value not in found]
    if missing:
        raise TableError(f"{manifest.path}: no person in its splits has the {column} {missing[0]!r}")
    return sorted(people, key=lambda person: person.index)


def read_annotated_photo(manifest: Manifest, people: Sequence[AnnotatedPerson]) -> tuple[Photo, list[AnnotatedPerson]]:
    """Reads a photo of a data set upright, and takes the boxes of its people there.

    Args:
        manifest: The data set.
        people: People of one photo, at least one.

    Returns:
        The photo, (height, width, 3), RGB, and the people in their order with boxes in its pixels.

    Raises:
        ImageError: The photo is missing or cannot be read.
    """
    photo = manifest.photos.read(people[0].image, people[0].image_wh)

    def to_upright(xyxy: NDArray[np.float32] | None) -> NDArray[np.float32] | None:
        return None if xyxy is None else photo.turn.to_upright(xyxy)

    return photo.pixels, [
        replace(
            one,
            image_wh=photo.turn.upright_wh,
            body_xyxy=to_upright(one.body_xyxy),
            face_xyxy=to_upright(one.face_xyxy),
            landmarks=None if one.landmarks is None else photo.turn.points_to_upright(one.landmarks),
        )
        for one in people
    ]


def _to_person(row: dict[str, Any], split: str) -> AnnotatedPerson:
    width, height = row["image_wh"]
    face = row["face"]
    return AnnotatedPerson(
        index=row["index"],
        person_id=row["person_id"],
        image=row["image"],
        image_wh=(width, height),
        split=split,
        body_xyxy=_to_box(row["body_bbox"]),
        face_xyxy=_to_box(row["face_bbox"]),
        face=None if face is None else decode_photo(face["bytes"], f"face of {row['person_id']}"),
        landmarks=None if row["landmarks"] is None else np.array(row["landmarks"], np.float32).reshape(-1, 2),
        face_conf=row["conf"],
        categories=tuple(row["categories"]),
        vad={name: row[name] for name in DIMENSIONS},
    )


def _to_box(values: list[float] | None) -> NDArray[np.float32] | None:
    return None if values is None else np.array(values, np.float32)
