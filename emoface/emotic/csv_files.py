"""The CSV form in which EMOTIC's annotations circulate: one row per person, combined annotations only.

Columns: Index, Folder, Filename, Image Size ``[width, height]``, BBox ``[x1, y1, x2, y2]``, Categorical_Labels,
Continuous_Labels ``[valence, arousal, dominance]``, Gender, Age.
"""

from __future__ import annotations

import ast
import csv
import math
import re
from collections.abc import Iterator
from pathlib import Path

from emoface.emotic.annotations import PersonAnnotation, PhotoAnnotation
from emoface.errors import AnnotationsError
from emoface.schema import SPLITS

COLUMNS = (
    *("Index", "Folder", "Filename", "Image Size", "BBox", "Categorical_Labels", "Continuous_Labels", "Gender", "Age"),
)
_NAN = re.compile(r"\bnan\b", re.IGNORECASE)


def read_annotations_csv(paths: dict[str, Path]) -> list[PhotoAnnotation]:
    """Reads annotations from CSV files.

    Such a file holds what the annotators' choices come to, not the choices: they count as one annotator's. Rows of
    one photo are one photo, wherever they stand in the file; it takes the place of the first.

    Args:
        paths: The file of each split; a split without a file has no photos.

    Returns:
        The photos of train, val and test, in that order.

    Raises:
        AnnotationsError: A file has other columns, or a row cannot be read.
    """
    photos: list[PhotoAnnotation] = []
    for split in SPLITS:
        if split in paths:
            photos += _read_split(paths[split], split)
    return photos


def _read_split(path: Path, split: str) -> Iterator[PhotoAnnotation]:
    people_of: dict[tuple[str, str], list[PersonAnnotation]] = {}
    size_of: dict[tuple[str, str], tuple[int, int] | None] = {}
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            rows = csv.DictReader(stream)
            missing = [name for name in COLUMNS[1:] if name not in (rows.fieldnames or ())]
            if missing:
                raise AnnotationsError(
                    f"{path}: columns {', '.join(missing)} are missing, found "
                    f"{', '.join(rows.fieldnames or ()) or 'none'}; expected {', '.join(COLUMNS)}"
                )
            for row in rows:
                try:
                    key, image_wh, person = _to_person(row)
                except (ValueError, SyntaxError, TypeError, KeyError) as error:
                    raise AnnotationsError(
                        f"{path}: line {rows.line_num} cannot be read ({error}); expected "
                        "Folder, Filename, [width, height], [x1, y1, x2, y2], ['Category', ...], [valence, arousal, "
                        "dominance], Gender, Age"
                    ) from error
                people_of.setdefault(key, []).append(person)
                size_of.setdefault(key, image_wh)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise AnnotationsError(f"{path}: not a readable CSV file ({error})") from error
    for (folder, filename), people in people_of.items():
        yield PhotoAnnotation(
            filename=filename,
            folder=folder,
            image_wh=size_of[folder, filename],
            source_split=split,
            database_name=folder.split("/")[0],
            people=tuple(people),
        )


def _to_person(row: dict[str, str]) -> tuple[tuple[str, str], tuple[int, int] | None, PersonAnnotation]:
    folder, filename = row["Folder"].strip().strip("/"), row["Filename"].strip()
    if not filename:
        raise ValueError("no Filename")
    categories = tuple(str(name) for name in _to_list(row["Categorical_Labels"]))
    vad = _to_numbers(row["Continuous_Labels"])
    vad = vad if len(vad) == 3 else (math.nan,) * 3
    size = _to_numbers(row["Image Size"])
    image_wh = (int(size[0]), int(size[1])) if len(size) == 2 and not math.isnan(sum(size)) else None
    person = PersonAnnotation(
        body_bbox=_to_numbers(row["BBox"]),
        annotator_categories=(categories,),
        annotator_vad=(vad,),
        categories=categories,
        vad=vad,
        gender=row["Gender"].strip() or None,
        age=row["Age"].strip() or None,
    )
    return (folder, filename), image_wh, person


def _to_list(text: str) -> list[object]:
    value = ast.literal_eval(_NAN.sub("None", text)) if text.strip() else []
    if not isinstance(value, list | tuple):
        raise ValueError(f"{text!r} is no list")
    return list(value)


def _to_numbers(text: str) -> tuple[float, ...]:
    return tuple(math.nan if value is None else float(value) for value in _to_list(text))  # type: ignore[arg-type]
