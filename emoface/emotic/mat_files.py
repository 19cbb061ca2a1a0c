"""``Annotations.mat`` and ``CVPR17_Annotations.mat``, read and written by field name, never by position.

The file contains the variables ``train``, ``val`` and ``test``, each a 1 x photos struct array with ``filename``,
``folder``, ``image_size`` {``n_col``, ``n_row``}, ``original_database`` {``name``, ``info``} and ``person``, a
1 x people struct array. A person has ``body_bbox``, ``annotations_categories`` {``categories``},
``annotations_continuous`` {``valence``, ``arousal``, ``dominance``}, ``gender`` and ``age``; in val and test the two
annotations are 1 x annotators, and ``combined_categories`` and ``combined_continuous`` are the combined annotations.

MATLAB stores a one-element cell, struct array or vector in several shapes, so every value is read in any shape.

Source: the released files, as described by Kosti et al. 2019 and read by Tandon-A/emotic, ``mat2py.py``.
"""

from __future__ import annotations

import io
import math
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from emoface.emotic.annotations import PersonAnnotation, PhotoAnnotation, Vad, to_folder, to_image_wh
from emoface.errors import AnnotationsError
from emoface.schema import DIMENSIONS, SPLITS
from emoface.storage.files import write_bytes
from emoface.storage.matlab_files import read_matlab

_HEADER = b"MATLAB 5.0 MAT-file, annotations in the layout of EMOTIC"
_HEADER_BYTES = 116
_REMEDY = "download it again, or name another file with --annotations"


def read_annotations_mat(path: Path) -> list[PhotoAnnotation]:
    """Reads a released annotation file.

    Args:
        path: ``Annotations.mat`` (PAMI) or ``CVPR17_Annotations.mat``.

    Returns:
        The photos of train, val and test, in that order and as stored, including those without people.

    Raises:
        AnnotationsError: The file is missing, is not a MATLAB 5 file, or has another layout.
    """
    return read_matlab(path, _to_photos, AnnotationsError, _REMEDY, SPLITS)


def _to_photos(variables: dict[str, Any]) -> list[PhotoAnnotation]:
    for name in SPLITS:
        if variables[name].dtype.names is None and variables[name].size:
            raise AnnotationsError(f"variable {name} is an array of {variables[name].dtype}, expected structs")
    return [_to_photo(photo, split) for split in SPLITS for photo in _elements(variables[split])]


def _to_photo(photo: Any, split: str) -> PhotoAnnotation:
    database = _first(_field(photo, "original_database"))
    return PhotoAnnotation(
        filename=_text(_field(photo, "filename")) or "",
        folder=to_folder(_text(_field(photo, "folder")) or ""),
        image_wh=_to_image_wh(_first(_field(photo, "image_size"))),
        source_split=split,
        database_name=(_text(_field(database, "name")) if database is not None else None) or "",
        people=tuple(_to_person(person, split) for person in _elements(_field(photo, "person"))),
    )


def _to_image_wh(size: Any) -> tuple[int, int] | None:
    if size is None:
        return None
    width, height = _number(_field(size, "n_col")), _number(_field(size, "n_row"))
    return to_image_wh(width, height)


def _to_person(person: Any, split: str) -> PersonAnnotation:
    squeezed: list[str] = []
    categories = _to_annotator_categories(_field(person, "annotations_categories"), squeezed)
    vads = [_to_vad(one) for one in _elements(_field(person, "annotations_continuous"))]
    if split == "train" and len(categories) <= 1:
        combined, vad = (categories[0] if categories else ()), (vads[0] if vads else _NO_VAD)
    else:
        combined = _texts(_field(person, "combined_categories"), "combined_categories", squeezed)
        one = _first(_field(person, "combined_continuous"))
        vad = _NO_VAD if one is None else _to_vad(one)
    return PersonAnnotation(
        body_bbox=_numbers(_field(person, "body_bbox")),
        annotator_categories=tuple(categories),
        annotator_vad=tuple(vads),
        categories=combined,
        vad=vad,
        gender=_text(_field(person, "gender")),
        age=_text(_field(person, "age")),
        squeezed=tuple(dict.fromkeys(squeezed)),
    )


def _to_annotator_categories(value: Any, squeezed: list[str]) -> list[tuple[str, ...]]:
    """Reads the categories of each annotator; a cell of words without a struct around it belongs to one annotator."""
    structs = list(_elements(value))
    if structs:
        return [_texts(_field(one, "categories"), "annotations_categories", squeezed) for one in structs]
    words = _texts(value, "annotations_categories", squeezed)
    return [words] if words else []


_NO_VAD: Vad = (math.nan,) * len(DIMENSIONS)


def _to_vad(one: Any) -> Vad:
    return tuple(_number(_field(one, name)) for name in DIMENSIONS)


def _field(struct: Any, name: str) -> Any:
    """Returns a field of one struct; None if it has no such field."""
    names = getattr(getattr(struct, "dtype", None), "names", None)
    return struct[name] if names and name in names else None


def _elements(value: Any) -> Iterator[Any]:
    """The structs of a struct array of any shape, of a cell of structs, or of a lone struct; none of anything else."""
    if value is None:
        return
    if isinstance(value, np.void):
        yield value
        return
    array = np.asarray(value)
    if array.dtype.names is not None:
        yield from array.ravel()
    elif array.dtype == object:
        for one in array.ravel():
            yield from _elements(one)


def _first(value: Any) -> Any:
    return next(_elements(value), None) if value is not None else None


def _numbers(value: Any) -> tuple[float, ...]:
    if value is None:
        return ()
    array = np.asarray(value)
    if array.dtype == object:
        return tuple(number for one in array.ravel() for number in _numbers(one))
    if array.dtype.kind not in "iufb":
        return ()
    return tuple(float(number) for number in array.ravel())


def _number(value: Any) -> float:
    numbers = _numbers(value)
    return numbers[0] if numbers else math.nan


def _texts(value: Any, name: str, squeezed: list[str]) -> tuple[str, ...]:
    """Reads the strings of a cell; a cell that was stored as its only string is listed in ``squeezed``."""
    if value is None:
        return ()
    array = np.asarray(value)
    if array.dtype.kind in "US":
        if array.size:
            squeezed.append(name)
        return tuple(str(one) for one in array.ravel())
    if array.dtype != object:
        return ()
    texts: list[str] = []
    for one in array.ravel():
        inner = np.asarray(one)
        texts += _texts(inner, name, squeezed) if inner.dtype == object else [str(text) for text in inner.ravel()]
    return tuple(texts)


def _text(value: Any) -> str | None:
    """Reads one string; None if there is none or it is empty."""
    texts = _texts(value, "", [])
    return texts[0].strip() or None if texts else None


def write_annotations_mat(path: Path, photos: Iterable[PhotoAnnotation]) -> None:
    """Writes annotations in the layout of the released ``Annotations.mat``, in one step.

    The same photos give the same bytes, because the file's header contains no time.

    Args:
        path: The file to write.
        photos: The photos in any order; each is written to the variable of its ``source_split``.
    """
    import scipy.io

    rows: dict[str, list[dict[str, Any]]] = {name: [] for name in SPLITS}
    for photo in photos:
        rows[photo.source_split].append(_from_photo(photo))
    fields = ("filename", "folder", "image_size", "original_database", "person")
    stream = io.BytesIO()
    scipy.io.savemat(
        stream, {name: _struct_array(rows[name], fields) for name in SPLITS}, do_compression=True, oned_as="row"
    )
    data = bytearray(stream.getvalue())
    data[:_HEADER_BYTES] = _HEADER.ljust(_HEADER_BYTES)
    write_bytes(path, bytes(data))


_TRAIN_FIELDS = ("body_bbox", "annotations_categories", "annotations_continuous", "gender", "age")
_VAL_TEST_FIELDS = (
    *("body_bbox", "annotations_categories", "combined_categories", "annotations_continuous", "combined_continuous"),
    *("gender", "age"),
)
"""The fields in the order of the release, for parsers that read fields by position."""


def _from_photo(photo: PhotoAnnotation) -> dict[str, Any]:
    is_train = photo.source_split == "train"
    fields = _TRAIN_FIELDS if is_train else _VAL_TEST_FIELDS
    size = [] if photo.image_wh is None else [dict(zip(("n_col", "n_row"), map(float, photo.image_wh), strict=True))]
    return {
        "filename": photo.filename,
        "folder": photo.folder,
        "image_size": _struct_array(size, ("n_col", "n_row")),
        "original_database": _struct_array(
            [{"name": photo.database_name, "info": _struct_array([photo.database_info], tuple(photo.database_info))}],
            ("name", "info"),
        ),
        "person": _struct_array([_from_person(person, is_train) for person in photo.people], fields),
    }


def _from_person(person: PersonAnnotation, is_train: bool) -> dict[str, Any]:
    annotated: dict[str, Any] = {
        "body_bbox": np.array(person.body_bbox, dtype=np.float64).reshape(1, -1),
        "annotations_categories": _struct_array(
            [{"categories": _cell(names)} for names in person.annotator_categories], ("categories",)
        ),
        "annotations_continuous": _struct_array([_from_vad(vad) for vad in person.annotator_vad], DIMENSIONS),
        "gender": person.gender or "",
        "age": person.age or "",
    }
    if not is_train:
        annotated["combined_categories"] = _cell(person.categories)
        annotated["combined_continuous"] = _struct_array([_from_vad(person.vad)], DIMENSIONS)
    return annotated


def _from_vad(vad: Vad) -> dict[str, Any]:
    return dict(zip(DIMENSIONS, vad, strict=True))


def _cell(texts: Sequence[str]) -> Any:
    cell = np.empty((1, len(texts)), dtype=object)
    cell[0] = texts
    return cell


def _struct_array(rows: Sequence[dict[str, Any]], fields: Sequence[str]) -> Any:
    """Builds a 1 x n struct array; without fields an empty array, as scipy cannot write a struct without fields."""
    if not fields:
        return np.zeros((0, 0))
    array = np.empty((1, len(rows)), dtype=[(name, object) for name in fields])
    for number, row in enumerate(rows):
        array[0, number] = tuple(row[name] for name in fields)
    return array
