"""COCO JSON: boxes ``[x, y, width, height]`` with a category and, as CVAT and others write them, attributes.

Source: https://cocodataset.org/#format-data
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from emoface.annotations.people import ANNOTATORS, VOTES, AnnotatedBox, BoxedPhoto, find_split
from emoface.emotic.annotations import to_image_wh
from emoface.errors import AnnotationsError
from emoface.schema import DIMENSIONS, SPLITS
from emoface.storage.files import write_text
from emoface.storage.settings import describe_fault

_STANDARD = frozenset(("segmentation", "area", "keypoints", "num_keypoints", "caption", "score"))
"""Entries of an annotation that say nothing about emotions."""
_EXPECTED = "expected COCO JSON with images, annotations (image_id, category_id, bbox) and categories (id, name)"


class _Entry(BaseModel):
    model_config = ConfigDict(extra="allow")


class _Image(_Entry):
    id: int | str
    file_name: str
    width: float = 0
    height: float = 0
    source_split: str = ""
    source: str = ""


class _Category(_Entry):
    id: int | str
    name: str


class _Annotation(_Entry):
    image_id: int | str
    category_id: int | str
    bbox: list[float] = []
    iscrowd: int = 0
    attributes: dict[str, Any] = {}


class _Coco(_Entry):
    images: list[_Image]
    annotations: list[_Annotation]
    categories: list[_Category]


def is_coco(content: object) -> bool:
    """Whether the content of a JSON file looks like COCO's."""
    return isinstance(content, Mapping) and "images" in content and "annotations" in content


def read_coco(path: Path, content: object) -> list[BoxedPhoto]:
    """Reads the content of a COCO JSON file.

    Args:
        path: The file, for messages and for its split, if it is named after one.
        content: The JSON value.

    Returns:
        The photos in the order of ``images``, each with its boxes in the order of ``annotations``.

    Raises:
        AnnotationsError: It is not COCO's form, or an annotation refers to nothing.
    """
    try:
        coco = _Coco.model_validate(content)
    except ValidationError as error:
        raise AnnotationsError(f"{path}: {describe_fault(error)}; {_EXPECTED}") from error
    names = {category.id: category.name for category in coco.categories}
    boxes: dict[int | str, list[AnnotatedBox]] = {image.id: [] for image in coco.images}
    for number, one in enumerate(coco.annotations):
        if one.image_id not in boxes or one.category_id not in names:
            what = "image" if one.image_id not in boxes else "category"
            wrong = one.image_id if what == "image" else one.category_id
            raise AnnotationsError(f"{path}: annotations.{number} is of {what} {wrong!r}, which is not listed")
        extra = {name: value for name, value in (one.model_extra or {}).items() if name not in _STANDARD}
        name = names[one.category_id] + (" (crowd)" if one.iscrowd else "")  # such a box is of many people
        boxes[one.image_id].append(AnnotatedBox(name, _to_xyxy(one.bbox), extra | one.attributes))
    return [
        BoxedPhoto(
            image=image.file_name,
            image_wh=to_image_wh(image.width, image.height),
            boxes=boxes[image.id],
            split=image.source_split if image.source_split in SPLITS else find_split(image.file_name, path.name),
            source=image.source,
        )
        for image in coco.images
    ]


def write_coco(path: Path, people: Sequence[Mapping[str, Any]], label_names: Sequence[str]) -> int:
    """Writes people as a COCO JSON file that ``read_coco`` reads back, in one step.

    Everybody is of the category ``person``; labels and all else are attributes. Valence, arousal and dominance are
    1-10. People without a box cannot be in such a file.

    Args:
        path: The file to write.
        people: Rows of ``people.parquet``; ``categories`` may be null.
        label_names: The labels of the data set, for whoever fills them in.

    Returns:
        Number of people written.
    """
    ids: dict[str, int] = {}
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for row in people:
        if row["body_bbox"] is None:
            continue
        if row["image"] not in ids:
            ids[row["image"]] = len(ids) + 1
            width, height = row["image_wh"]
            entry = {"id": ids[row["image"]], "file_name": row["image"], "width": width, "height": height}
            images.append({**entry, "source": row["source"], "source_split": row["source_split"]})
        x1, y1, x2, y2 = row["body_bbox"]
        bbox = [x1, y1, x2 - x1, y2 - y1]
        annotations.append(
            {
                "id": len(annotations) + 1,
                "image_id": ids[row["image"]],
                "category_id": 1,
                "bbox": bbox,
                "area": bbox[2] * bbox[3],
                "iscrowd": 0,
                "attributes": _to_attributes(row, label_names),
            }
        )
    content = {
        "info": {"description": "People and their labels, written by emoface", "label_names": list(label_names)},
        "images": images,
        "annotations": annotations,
        "categories": [{"id": 1, "name": "person", "supercategory": "person"}],
    }
    write_text(path, json.dumps(content, indent=1, ensure_ascii=False) + "\n")
    return len(annotations)


def _to_attributes(row: Mapping[str, Any], label_names: Sequence[str]) -> dict[str, Any]:
    attributes: dict[str, Any] = {"labels": list(row["categories"] or [])}
    attributes |= {name: row[name] for name in (*DIMENSIONS, "gender", "age") if row[name] is not None}
    if row.get("annotator_votes") is not None:
        votes = {name: n for name, n in zip(label_names, row["annotator_votes"], strict=True) if n}
        attributes |= {ANNOTATORS: row["n_annotators"], VOTES: votes}
    return attributes


def _to_xyxy(bbox: Sequence[float]) -> tuple[float, ...]:
    if len(bbox) != 4:
        return tuple(bbox)
    x, y, width, height = bbox
    return (x, y, x + width, y + height)
