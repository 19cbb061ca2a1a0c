"""Whose row is whose in a file of predictions: its rows are matched with the people of a split.

The rows are named by the file itself (``person_id`` or ``index``), by a list in a second file, or by a stated order. In
any case each row becomes an ``index`` of ``people.parquet``, and the true labels that the other program wrote, where
there are any, are compared with those of the data set.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from emoface.datasets.manifest import Manifest
from emoface.datasets.prediction_files import KEYS, PredictionFile
from emoface.emotic.annotations import PhotoAnnotation
from emoface.emotic.csv_files import COLUMNS, read_annotations_csv
from emoface.errors import AnnotationsError, PredictionsError
from emoface.schema import CATEGORIES, DIMENSIONS, PEOPLE_SCHEMA, SPLIT_SCHEMA, SPLITS
from emoface.storage.array_files import read_arrays
from emoface.storage.files import read_text
from emoface.storage.tables import read_table, vectors_to_array
from emoface.vision.boxes import box_iou

RowOrder = Literal["manifest", "emotic"]
"""``manifest``: the rows of the split's table; ``emotic``: all people of EMOTIC's own split, as EMOTIC stores them."""

PEOPLE_NAME = "people.parquet"

_SPLIT_REMEDY = "rebuild it with 'emoface split DIR'"
_PEOPLE_REMEDY = "'emoface parse' writes it into the folder of the manifest"
_BOX_COLUMNS = ("Folder", "Filename", "BBox")
_SMALLEST_IOU = 0.5


@dataclass(frozen=True)
class SplitPeople:
    """The people of a split with all that predictions are measured against, n rows in the order of its table.

    Attributes:
        path: The split's table.
        index: (n,) ``index`` in ``people.parquet``.
        person_ids: ``person_id`` of each person.
        images: Path of each person's photo below the image root.
        sources: (n,) the collection of each person's photo, None where unknown.
        people_in_photo: (n,) number of people of the split in the same photo.
        has_face: (n,) whether the person's face was found.
        labels: (n, 26) true labels, 0 or 1.
        vad: (n, 3) true valence, arousal, dominance, 1-10, nan where EMOTIC has none.
        label_names: The names of the labels, in their order.
    """

    path: Path
    index: NDArray[np.int64]
    person_ids: list[str]
    images: list[str]
    sources: NDArray[np.object_]
    people_in_photo: NDArray[np.int64]
    has_face: NDArray[np.bool_]
    labels: NDArray[np.uint8]
    vad: NDArray[np.float32]
    label_names: tuple[str, ...] = CATEGORIES

    def __len__(self) -> int:
        return len(self.person_ids)


@dataclass(frozen=True)
class MatchedRows:
    """The people of a split who have a row in a file of predictions, m of n, in the order of the split.

    Attributes:
        people: (m,) positions in the split.
        rows: (m,) rows of the file.
        n_outside: Number of rows of the file whose person the split leaves out because another row is the same person,
            or because the labels of train were balanced.
    """

    people: NDArray[np.int64]
    rows: NDArray[np.int64]
    n_outside: int


def read_split_people(manifest: Manifest, split: str) -> SplitPeople:
    """Reads the people of a split.

    Raises:
        TableError: The split's table is missing or has other columns.
    """
    path = manifest.split_path(split)
    columns = ["index", "person_id", "image", "source", "labels", *DIMENSIONS, "face_bbox"]
    table = read_table(path, SPLIT_SCHEMA, _SPLIT_REMEDY, columns)
    images = table["image"].to_pylist()
    n_of_image = Counter(images)
    vad = [table[name].to_numpy().astype(np.float32) for name in DIMENSIONS]
    return SplitPeople(
        path=path,
        index=table["index"].to_numpy(),
        person_ids=table["person_id"].to_pylist(),
        images=images,
        sources=np.array(table["source"].to_pylist(), dtype=object),
        people_in_photo=np.array([n_of_image[image] for image in images], np.int64),
        has_face=np.asarray(np.isfinite(vectors_to_array(table["face_bbox"], 4)).all(axis=1), np.bool_),
        labels=vectors_to_array(table["labels"], len(manifest.label_names)).astype(np.uint8),
        vad=np.stack(vad, axis=1),
        label_names=manifest.label_names,
    )


def find_rows(
    file: PredictionFile,
    manifest: Manifest,
    split: str,
    *,
    order: RowOrder | None = None,
    list_path: Path | None = None,
) -> NDArray[np.int64]:
    """Finds the person of each row of a file of predictions.

    Args:
        file: The file, n rows.
        manifest: The data set.
        split: The split that was predicted.
        order: The order of the rows, for a file that does not name its people.
        list_path: A list of the people in the order of the rows, for a file that does not name them: a table with the
            column ``person_id`` or ``index``, a text file with one of either per line, or a CSV file of the form that
            Tandon's ``mat2py.py`` writes (``Folder``, ``Filename``, ``BBox``).

    Returns:
        (n,) ``index`` of each row's person in ``people.parquet``.

    Raises:
        PredictionsError: The file neither names its people nor is their order given, or both; the number of people
            differs; a person is unknown or is there twice.
        TableError: ``people.parquet`` is needed and is missing.
    """
    key, keys = file.keys
    given = [f"--{name}" for name, value in (("order", order), ("people", list_path)) if value is not None]
    if key and given:
        raise PredictionsError(f"{file.path}: names its people by {key}; leave out {' and '.join(given)}")
    if not key and len(given) != 1:
        problem = "does not name its people" if not given else "two orders of its rows are given"
        raise PredictionsError(
            f"{file.path}: {problem}; give one of --people FILE, a list of person_id or index in the order of its "
            "rows, --order manifest, the order of the split's table, or --order emotic, EMOTIC's own order of the split"
        )
    if order is not None:
        index = _read_index(manifest, split, order)
        _check_count(file.path, len(file), manifest, split, order, len(index))
    elif list_path is not None:
        index = _read_people_list(list_path, manifest, split)
        if len(index) != len(file):
            raise PredictionsError(f"{list_path}: {len(index):,} people for the {len(file):,} rows of {file.path}")
    else:
        index = _to_index(file.path, key, keys, manifest)
    values, counts = np.unique(index, return_counts=True)
    if (counts > 1).any():
        raise PredictionsError(
            f"{list_path or file.path}: {int((counts > 1).sum())} people are there more than once, the first is "
            f"{_name_person(manifest, int(values[counts > 1][0]))}; keep one row of each"
        )
    return index


def match_rows(
    path: Path, index: NDArray[np.int64], people: SplitPeople, manifest: Manifest, split: str
) -> MatchedRows:
    """Matches rows with the people of a split.

    Args:
        path: The file of predictions, for the error message.
        index: (m,) ``index`` of each row's person, each once.
        people: The people of the split.
        manifest: The data set.
        split: The name of the split.

    Raises:
        PredictionsError: A row's person is in another split of the data set.
    """
    position_of = {one: position for position, one in enumerate(people.index.tolist())}
    positions = np.array([position_of.get(one, -1) for one in index.tolist()], np.int64)
    outside = positions < 0
    for other in SPLITS:
        if other == split or not outside.any():
            continue
        there = outside & np.isin(index, _read_index_of_table(manifest, other))
        if there.any():
            first = _name_person(manifest, int(index[there][0]))
            which = "" if manifest.split.get("by") == "emotic" else " of a data set of 'emoface split --by emotic'"
            raise PredictionsError(
                f"{path}: {int(there.sum()):,} of {len(index):,} people are in {other} of {manifest.path}, the first "
                f"is {first}; expected people of {split}: choose the split that was predicted{which}"
            )
    rows = np.flatnonzero(~outside)
    rows = rows[np.argsort(positions[rows], kind="stable")]
    return MatchedRows(positions[rows], rows, int(outside.sum()))


def check_truth(
    path: Path, truth: NDArray[np.uint8], index: NDArray[np.int64], people: SplitPeople, matched: MatchedRows
) -> None:
    """Checks the true labels that another program wrote against those of the data set.

    Args:
        path: The file of the true labels, for the error message.
        truth: (m, 26) true labels in the order of the file of predictions.
        index: (m,) ``index`` of each row's person.
        people: The people of the split.
        matched: The rows of people of the split.

    Raises:
        PredictionsError: The number of rows differs, or a person has other labels.
    """
    if len(truth) != len(index):
        raise PredictionsError(f"{path}: true labels of {len(truth):,} people for {len(index):,} predictions")
    found, expected = truth[matched.rows], people.labels[matched.people]
    differs = (found != expected).any(axis=1)
    if differs.any():
        first = int(np.argmax(differs))
        person = people.person_ids[int(matched.people[first])]
        raise PredictionsError(
            f"{path}: {int(differs.sum()):,} of {len(found):,} people have other true labels than in {people.path}, "
            f"the first is {person}: {_list_labels(found[first], people)}, not "
            f"{_list_labels(expected[first], people)}; the rows or the labels are in another order, or the "
            "annotations differ"
        )


def _list_labels(indicator: NDArray[np.uint8], people: SplitPeople) -> str:
    return ", ".join(people.label_names[k] for k in np.flatnonzero(indicator)) or "no label"


def _read_index(manifest: Manifest, split: str, order: RowOrder) -> NDArray[np.int64]:
    import pyarrow.compute as pc

    if order == "manifest":
        return _read_index_of_table(manifest, split)
    people = _read_people(manifest, ["index", "source_split"])
    return np.asarray(people.filter(pc.equal(people["source_split"], split))["index"].to_numpy())


def _read_index_of_table(manifest: Manifest, split: str) -> NDArray[np.int64]:
    table = read_table(manifest.split_path(split), SPLIT_SCHEMA, _SPLIT_REMEDY, ["index"])
    return np.asarray(table["index"].to_numpy())


def _read_people(manifest: Manifest, columns: list[str]) -> pa.Table:
    return read_table(manifest.path.parent / PEOPLE_NAME, PEOPLE_SCHEMA, _PEOPLE_REMEDY, columns)


def _check_count(path: Path, found: int, manifest: Manifest, split: str, order: RowOrder, expected: int) -> None:
    if found == expected:
        return
    has_people = (manifest.path.parent / PEOPLE_NAME).is_file()
    orders: tuple[RowOrder, ...] = ("manifest", "emotic") if has_people else ("manifest",)
    others = [(one, part) for part in (split, *SPLITS) for one in orders if (one, part) != (order, split)]
    fitting = next((other for other in others if len(_read_index(manifest, other[1], other[0])) == found), None)
    hint = "give the people of its rows with --people FILE"
    if fitting is not None:
        hint = f"{fitting[1]} in the order '{fitting[0]}' has this number"
    raise PredictionsError(
        f"{path}: {found:,} people, expected {expected:,}, those of {split} of {manifest.path} in the order '{order}'; "
        f"{hint}"
    )


def _to_index(path: Path, key: str, keys: Sequence[Any] | NDArray[Any], manifest: Manifest) -> NDArray[np.int64]:
    """Looks people up by ``person_id`` or ``index``; the splits are enough if ``people.parquet`` is missing."""
    tables = [read_table(manifest.split_path(split), SPLIT_SCHEMA, _SPLIT_REMEDY, [*KEYS]) for split in SPLITS]
    if (manifest.path.parent / PEOPLE_NAME).is_file():
        tables.append(_read_people(manifest, [*KEYS]))
    index_of: dict[Any, int] = {}
    for table in tables:
        index_of |= dict(zip(table[key].to_pylist(), table["index"].to_pylist(), strict=True))
    listed = np.asarray(keys).tolist()
    if unknown := [one for one in listed if one not in index_of]:
        raise PredictionsError(
            f"{path}: {len(unknown):,} of {len(listed):,} people are not in {manifest.path}, the first has the {key} "
            f"{unknown[0]!r}, known is for example {next(iter(index_of), None)!r}; give the data set that was predicted"
        )
    return np.array([index_of[one] for one in listed], np.int64)


def _name_person(manifest: Manifest, index: int) -> str:
    import pyarrow.compute as pc

    for split in SPLITS:
        table = read_table(manifest.split_path(split), SPLIT_SCHEMA, _SPLIT_REMEDY, [*KEYS])
        found = table.filter(pc.equal(table["index"], index))["person_id"].to_pylist()
        if found:
            return str(found[0])
    return f"index {index}"


def _read_people_list(path: Path, manifest: Manifest, split: str) -> NDArray[np.int64]:
    """Reads a list of people in the order of the rows of a file of predictions."""
    if path.suffix.lower() in ("", ".txt"):
        return _read_text_list(path, manifest)
    arrays = read_arrays(path)
    for key in KEYS:
        if key in arrays:
            return _to_index(path, key, arrays[key].ravel(), manifest)
    if all(name in arrays for name in _BOX_COLUMNS):
        return _find_by_box(path, manifest, split)
    raise PredictionsError(
        f"{path}: expected a column 'person_id' or 'index', or {', '.join(COLUMNS[1:])}, found {', '.join(arrays)}"
    )


def _read_text_list(path: Path, manifest: Manifest) -> NDArray[np.int64]:
    lines = [line.strip() for line in read_text(path, PredictionsError).splitlines()]
    names = [line for line in lines if line]
    if names and all(name.isdigit() for name in names):
        return _to_index(path, "index", [int(name) for name in names], manifest)
    return _to_index(path, "person_id", names, manifest)


def _find_by_box(path: Path, manifest: Manifest, split: str) -> NDArray[np.int64]:
    """Finds the people of a CSV file of annotations by photo and body box.

    Where the file has as many people of a photo as EMOTIC's split, they are in EMOTIC's order; where it has fewer,
    the boxes with the largest overlap in total are matched.
    """
    import pyarrow.compute as pc

    try:
        photos = read_annotations_csv({split: path})
    except AnnotationsError as error:
        raise PredictionsError(str(error)) from error
    people = _read_people(manifest, ["index", "image", "source_split", "body_bbox"])
    people = people.filter(pc.equal(people["source_split"], split))
    index, boxes = people["index"].to_numpy(), vectors_to_array(people["body_bbox"], 4)
    rows_of: dict[str, list[int]] = {}
    for row, image in enumerate(people["image"].to_pylist()):
        rows_of.setdefault(image, []).append(row)
    found: list[int] = []
    _check_consecutive(path, photos)
    for photo in photos:
        rows = rows_of.get(photo.image, [])
        if len(rows) == len(photo.people):
            found += rows
        else:
            found += [rows[k] for k in _match_boxes(path, photo, boxes[rows], split)]
    return np.asarray(index[found], np.int64)


def _check_consecutive(path: Path, photos: Sequence[PhotoAnnotation]) -> None:
    """Checks that the people of each photo are in consecutive rows, as ``mat2py.py`` writes them."""
    images = Counter(photo.image for photo in photos)
    for image, times in images.items():
        if times > 1:
            raise PredictionsError(f"{path}: the people of {image} are not in consecutive rows; list them by person_id")


def _match_boxes(path: Path, photo: PhotoAnnotation, boxes: NDArray[np.float32], split: str) -> list[int]:
    from scipy.optimize import linear_sum_assignment

    if not len(boxes):
        raise PredictionsError(
            f"{path}: EMOTIC has nobody of {split} in {photo.image}; give the list of the split that was predicted"
        )
    stored = [person.body_bbox if len(person.body_bbox) == 4 else (np.nan,) * 4 for person in photo.people]
    overlap = np.nan_to_num(box_iou(np.array(stored, np.float32).reshape(-1, 4), boxes))
    places, matches = linear_sum_assignment(-overlap)
    if len(places) < len(stored) or overlap[places, matches].min(initial=1) < _SMALLEST_IOU:
        raise PredictionsError(
            f"{path}: {len(stored)} people of {photo.image}, but EMOTIC has {len(boxes)} there and not all boxes fit; "
            "give a list by person_id"
        )
    return [int(match) for match in matches]
