"""EMOTIC's annotations as its release stores them: the value objects and the writer of ``Annotations.mat``.

Layout of the release: variables ``train``, ``val`` and ``test``, each a 1 x photos struct array. A person of train has
one annotator; a person of val or test has several, and their combined view beside them.

Source: github.com/rkosti/emotic, and the field order that Tandon-A/emotic's ``mat2py.py`` counts on.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.io

from emoface.files import write_bytes
from emoface.schema import DIMENSIONS, SPLITS

_HEADER = b"MATLAB 5.0 MAT-file, EMOTIC annotations"
_HEADER_BYTES = 116
"""The free text that a .mat file starts with; scipy writes the time of day there."""


@dataclass(frozen=True)
class PersonAnnotation:
    """What EMOTIC says of one person, unmended.

    Attributes:
        body_bbox: The body's box, xyxy in photo pixels, as stored: it may be swapped or leave the photo.
        annotator_categories: The category words of each annotator; empty where they are not known.
        annotator_vad: Valence, arousal and dominance of each annotator, 1-10 or NaN.
        categories: The words that count: the only annotator's (train) or the combined ones (val, test).
        vad: Valence, arousal and dominance that count, 1-10 or NaN.
        gender: EMOTIC's word, None where absent.
        age: EMOTIC's word, None where absent.
    """

    body_bbox: tuple[float, ...]
    annotator_categories: tuple[tuple[str, ...], ...]
    annotator_vad: tuple[tuple[float, ...], ...]
    categories: tuple[str, ...]
    vad: tuple[float, ...]
    gender: str | None
    age: str | None


@dataclass(frozen=True)
class PhotoAnnotation:
    """What EMOTIC says of one photo, unmended.

    Attributes:
        filename: The photo's file name.
        folder: Its folder below the image root, for example ``mscoco/images``.
        image_wh: Width and height in pixels as stored; None where absent.
        source_split: EMOTIC's split: train, val or test.
        database_name: The collection that the photo came from.
        database_info: What the release says of its place there.
        people: The annotated people, in the stored order.
    """

    filename: str
    folder: str
    image_wh: tuple[float, float] | None
    source_split: str
    database_name: str
    database_info: Mapping[str, Any]
    people: tuple[PersonAnnotation, ...]


def write_annotations_mat(path: Path, photos: Sequence[PhotoAnnotation]) -> None:
    """Writes photos as an ``Annotations.mat``; the same photos give the same bytes.

    Args:
        path: The file to write.
        photos: In any order; each split keeps the order given.

    Raises:
        ValueError: A photo's split is none of train, val and test.
    """
    unknown = {photo.source_split for photo in photos} - set(SPLITS)
    if unknown:
        raise ValueError(f"source_split is {sorted(unknown)}, expected one of {', '.join(SPLITS)}")
    variables = {
        split: _to_struct_array(
            [_to_photo_record(photo) for photo in photos if photo.source_split == split],
            ("filename", "folder", "image_size", "original_database", "person"),
        )
        for split in SPLITS
    }
    stream = io.BytesIO()
    scipy.io.savemat(stream, variables, do_compression=True)
    write_bytes(path, _HEADER.ljust(_HEADER_BYTES) + stream.getvalue()[_HEADER_BYTES:])


def _to_photo_record(photo: PhotoAnnotation) -> dict[str, Any]:
    is_train = photo.source_split == "train"
    combined = () if is_train else ("combined_categories", "combined_continuous")
    fields = ("body_bbox", "annotations_categories", "annotations_continuous", *combined, "gender", "age")
    size = {} if photo.image_wh is None else {"n_col": photo.image_wh[0], "n_row": photo.image_wh[1]}
    return {
        "filename": photo.filename,
        "folder": photo.folder,
        "image_size": _to_struct(size) if size else np.zeros((0, 0)),
        "original_database": _to_struct(
            {
                "name": photo.database_name,
                "info": _to_struct(photo.database_info) if photo.database_info else np.zeros((0, 0)),
            }
        ),
        "person": _to_struct_array([_to_person_record(person, is_train) for person in photo.people], fields),
    }


def _to_person_record(person: PersonAnnotation, is_train: bool) -> dict[str, Any]:
    sets = (person.categories,) if is_train else person.annotator_categories
    vads = (person.vad,) if is_train else person.annotator_vad
    record: dict[str, Any] = {
        "body_bbox": np.array([person.body_bbox], dtype=np.float64),
        "annotations_categories": _to_struct_array([{"categories": _to_cell(words)} for words in sets], ("categories",)),
        "annotations_continuous": _to_struct_array([_to_vad_record(vad) for vad in vads], DIMENSIONS),
    }
    if not is_train:
        record["combined_categories"] = _to_cell(person.categories)
        record["combined_continuous"] = _to_struct(_to_vad_record(person.vad))
    return {**record, "gender": person.gender or "", "age": person.age or ""}


def _to_vad_record(vad: Sequence[float]) -> dict[str, float]:
    return dict(zip(DIMENSIONS, map(float, vad), strict=True))


def _to_struct(fields: Mapping[str, Any]) -> npt.NDArray[np.void]:
    return _to_struct_array([fields], tuple(fields))


def _to_struct_array(records: Sequence[Mapping[str, Any]], fields: Sequence[str]) -> npt.NDArray[np.void]:
    """A MATLAB 1 x n struct array; its fields are there even with n = 0."""
    array = np.empty((1, len(records)), dtype=[(name, object) for name in fields])
    for position, record in enumerate(records):
        for name in fields:
            array[name][0, position] = record[name]
    return array


def _to_cell(words: Sequence[str]) -> npt.NDArray[np.object_]:
    cell = np.empty((1, len(words)), dtype=object)
    cell[0, :] = list(words)
    return cell
