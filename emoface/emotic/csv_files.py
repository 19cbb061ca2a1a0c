"""The CSV files in which EMOTIC's annotations are shared: one row per person, combined annotations only.

Columns: Index, Folder, Filename, Image Size ``[width, height]``, BBox ``[x1, y1, x2, y2]``, Categorical_Labels,
Continuous_Labels ``[valence, arousal, dominance]``, Gender, Age.
"""

from __future__ import annotations

import ast
import csv
import math
import re
import sys
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path

from emoface.emotic.annotations import PersonAnnotation, PhotoAnnotation, is_most, to_folder, to_image_wh
from emoface.emotic.corrections import find_label
from emoface.errors import AnnotationsError
from emoface.schema import CATEGORIES, DIMENSIONS, SPLITS
from emoface.storage.files import read_text

COLUMNS = (
    *("Index", "Folder", "Filename", "Image Size", "BBox", "Categorical_Labels", "Continuous_Labels", "Gender", "Age"),
)
_EXPECTED = {
    "BBox": "[x1, y1, x2, y2]",
    "Categorical_Labels": "a list of EMOTIC's categories, such as ['Engagement', 'Happiness']",
    "Continuous_Labels": "[valence, arousal, dominance]",
}
_TRANSPOSED_SOURCE = "emodb_small"
"""The collection whose ``Image Size`` is [height, width] in this form; its boxes were clipped by the wrong side."""

_CALL = re.compile(r"^(?:\w+\.)?(?:array|tensor|list|tuple|set)\(([\[({].*[\])}])(?:,\s*dtype=[^\[\]]*)?\)$", re.DOTALL)
"""A list as numpy, torch or Python prints it with the name of its type."""
_NUMPY_SCALAR = re.compile(r"\b(?:np|numpy)\.(?:float|int|uint|str)\d*_?\(([^()]*)\)")
_STRING = re.compile(r"'([^']*)'|\"([^\"]*)\"")
_STRINGS = re.compile(r"\[\s*(?:'[^']*'|\"[^\"]*\")(?:[\s,]+(?:'[^']*'|\"[^\"]*\"))*[\s,]*\]")
"""A printed list of texts, with commas or as numpy prints it, without."""
_NUMBERS = re.compile(r"\[\s*[-+.\deE]+(?:\s+(?:[-+.\deE]+|nan))*\s*\]|\[\s*nan(?:\s+(?:[-+.\deE]+|nan))*\s*\]")
"""A list of numbers as numpy prints it, without commas."""

_BARE_NUMBER = r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?"
_BARE_NUMBERS = re.compile(
    rf"{_BARE_NUMBER}(?:(?:\s*,\s*{_BARE_NUMBER})+|(?:\s*;\s*{_BARE_NUMBER})+|(?:\s+{_BARE_NUMBER})+)"
)
"""Numbers without brackets between which there is one and the same separator."""

_NAN = re.compile(r"\bnan\b", re.IGNORECASE)
_NUMBER = r"\s*(?:-?(?:0|[1-9]\d*)\.\d+|0|-?[1-9]\d*)\s*"
_PLAIN_NUMBERS = re.compile(rf"\[({_NUMBER}(?:,{_NUMBER})*)\]", re.ASCII)
"""A list of numbers as Python prints it, without exponents: nearly all lists of numbers."""
_LINE = re.compile(r"[^\r\n]*(?:\r\n|\r|\n)|[^\r\n]+")


def read_annotations_csv(paths: dict[str, Path], label_names: tuple[str, ...] = CATEGORIES) -> list[PhotoAnnotation]:
    """Reads annotations from CSV files.

    Such a file contains the combined annotations. In train, where each person has one annotator, these are the choices
    of that annotator; in val and test the choices of the single annotators are not known. Consecutive rows with the
    same photo become one photo.

    Args:
        paths: The CSV file of each split; a split without a file has no photos.
        label_names: The labels of the data set.

    Returns:
        The photos of train, val and test, in that order and as stored.

    Raises:
        AnnotationsError: A file is not a CSV file, or has other columns.
    """
    photos = []
    for split in SPLITS:
        if split in paths:
            of_split = list(_read_split(paths[split], split, label_names))
            _check_columns(paths[split], of_split)
            photos += of_split
    return photos


def _check_columns(path: Path, photos: list[PhotoAnnotation]) -> None:
    """Refuses a file in which most values of a column cannot be read, which is no matter of single rows."""
    people = [person for photo in photos for person in photo.people]
    faults: dict[str, list[str]] = {"BBox": [], "Categorical_Labels": [], "Continuous_Labels": []}
    for person in people:
        for column, found in faults.items():
            found += [text for text in person.unreadable if text.startswith(f"{column} ")][:1]
    for column, found in faults.items():
        if is_most(len(found), len(people)):
            raise AnnotationsError(
                f"{path}: {len(found):,} of {len(people):,} values of the column '{column}' cannot be read, such as "
                f"{found[0].removeprefix(column).strip()}; expected {_EXPECTED[column]}"
            )


def _read_split(path: Path, split: str, label_names: tuple[str, ...]) -> Iterator[PhotoAnnotation]:
    try:
        text = read_text(path, AnnotationsError, "CSV file")
        rows = csv.DictReader((line[0] for line in _LINE.finditer(text)), restval="")
        found = rows.fieldnames or ()
        if missing := [name for name in COLUMNS[1:] if name not in found]:
            raise AnnotationsError(
                f"{path}: columns {', '.join(missing)} are missing, found {', '.join(found) or 'none'}; "
                f"expected {', '.join(COLUMNS)}"
            )
        for (folder, filename), rows_of_photo in groupby(rows, _photo_key):
            people_rows = list(rows_of_photo)
            size = _to_numbers(people_rows[0]["Image Size"], "Image Size", [])
            is_transposed = folder.split("/")[0] == _TRANSPOSED_SOURCE
            if is_transposed:
                size = size[::-1]
            yield PhotoAnnotation(
                filename=filename,
                folder=folder,
                image_wh=to_image_wh(*size) if len(size) == 2 else None,
                source_split=split,
                database_name=sys.intern(folder.split("/")[0]),
                people=tuple(_to_person(row, split, label_names) for row in people_rows),
                is_size_doubtful=is_transposed,
            )
    except (OSError, csv.Error) as error:
        raise AnnotationsError(f"{path}: not a readable CSV file ({error})") from error


def _photo_key(row: dict[str, str]) -> tuple[str, str]:
    return sys.intern(to_folder(row["Folder"])), row["Filename"].strip()


def _to_person(row: dict[str, str], split: str, label_names: tuple[str, ...]) -> PersonAnnotation:
    unreadable: list[str] = []
    labels = _to_list(row["Categorical_Labels"], "Categorical_Labels", unreadable, label_names)
    categories = tuple(sys.intern(str(name)) for name in labels)
    vad = _to_numbers(row["Continuous_Labels"], "Continuous_Labels", unreadable)
    vad = vad if len(vad) == len(DIMENSIONS) else (math.nan,) * len(DIMENSIONS)
    return PersonAnnotation(
        body_bbox=_to_numbers(row["BBox"], "BBox", unreadable),
        annotator_categories=(categories,) if split == "train" else (),
        annotator_vad=(vad,) if split == "train" else (),
        categories=categories,
        vad=vad,
        gender=sys.intern(row["Gender"].strip()) or None,
        age=sys.intern(row["Age"].strip()) or None,
        unreadable=tuple(unreadable),
    )


def _to_list(text: str, column: str, unreadable: list[str], label_names: tuple[str, ...] = CATEGORIES) -> list[object]:
    """Parses a printed list; a value that is not a list is added to ``unreadable`` and gives an empty list."""
    if not text.strip():
        return []
    printed = _NUMPY_SCALAR.sub(r"\1", _CALL.sub(r"\1", text.strip()))
    if _STRINGS.fullmatch(printed):
        return [first or second for first, second in _STRING.findall(printed)]
    if _NUMBERS.fullmatch(printed):
        printed = "[" + ", ".join(printed.strip("[] \n").split()) + "]"
    elif _BARE_NUMBERS.fullmatch(printed):
        printed = "[" + ", ".join(re.split(r"[\s,;]+", printed)) + "]"
    try:
        value = ast.literal_eval(_NAN.sub("None", printed))
    except (ValueError, SyntaxError, TypeError, RecursionError):
        value = None
    if not isinstance(value, list | tuple):
        if column == "Categorical_Labels" and (words := _to_words(printed, label_names)):
            return list(words)
        unreadable.append(f"{column} {text}")
        return []
    return list(value)


def _to_words(text: str, label_names: tuple[str, ...] = CATEGORIES) -> list[str]:
    """Reads labels without brackets or quotes, if they are unmistakable; otherwise an empty list.

    Example:
        >>> _to_words("Engagement; joy"), _to_words("[Peace Pleasure]"), _to_words("joy"), _to_words("Peace maybe")
        (['Engagement', 'joy'], ['Peace', 'Pleasure'], [], [])
    """
    inner = re.sub(r"^(?:\[(.*)\]|\((.*)\)|\{(.*)\})$", r"\1\2\3", text.strip(), flags=re.DOTALL)
    if any(bracket in inner for bracket in "[](){}"):
        return []
    words = [word.strip().strip("'\"").strip() for word in re.split(r"[|;,]", inner)]
    words = [word for word in words if word]
    if any(find_label(word, label_names) for word in words):
        return words
    words = [word.strip("'\"") for word in inner.split()]
    return words if all(find_label(word, label_names) for word in words) else []


def _to_numbers(text: str, column: str, unreadable: list[str]) -> tuple[float, ...]:
    if plain := _PLAIN_NUMBERS.fullmatch(text.strip()):
        return tuple(map(float, plain[1].split(",")))
    values = _to_list(text, column, unreadable)
    if any(not isinstance(value, int | float | None) for value in values):
        unreadable.append(f"{column} {text}")
        return ()
    return tuple(math.nan if value is None else float(value) for value in values)  # type: ignore[arg-type]
