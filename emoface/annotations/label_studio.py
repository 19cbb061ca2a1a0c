"""Label Studio's JSON export: per task the results of an annotator, whose boxes are in percent of the photo.

Choices, ratings, numbers and texts belong to the box with the same ``id``. Of several annotators of a task, one is
read: the one that is marked as ground truth, or else the first who did not cancel.

Source: https://labelstud.io/guide/export#Label-Studio-JSON-format-of-annotated-tasks
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from emoface.annotations.people import AnnotatedBox, BoxedPhoto, find_split
from emoface.emotic.annotations import to_image_wh
from emoface.errors import AnnotationsError
from emoface.storage.settings import describe_fault

_EXPECTED = "expected the 'JSON' export of Label Studio: a list of tasks with data and annotations"
_UPLOAD = re.compile(r"^/?data/upload/(?:\d+/)?")
UPLOAD_PREFIX = re.compile(r"^[0-9a-f]{8}-")
"""What Label Studio puts before the name of an uploaded photo."""
_PERCENT = 100.0


class _Entry(BaseModel):
    model_config = ConfigDict(extra="allow")


class _Result(_Entry):
    id: str = ""
    type: str = ""
    from_name: str = ""
    original_width: float = 0
    original_height: float = 0
    value: dict[str, Any] = {}


class _Annotation(_Entry):
    result: list[_Result] = []
    was_cancelled: bool = False
    ground_truth: bool = False


class _Task(_Entry):
    data: dict[str, Any]
    annotations: list[_Annotation] = Field(default=[])


def is_label_studio(content: object) -> bool:
    """Whether the content of a JSON file looks like Label Studio's."""
    return isinstance(content, list) and any(isinstance(one, Mapping) and "data" in one for one in content[:1])


def read_label_studio(path: Path, content: object) -> list[BoxedPhoto]:
    """Reads the content of a JSON export of Label Studio.

    Args:
        path: The file, for messages and for its split.
        content: The JSON value.

    Raises:
        AnnotationsError: It is of another form, or a task has no photo.
    """
    try:
        tasks = TypeAdapter(list[_Task]).validate_python(content)
    except ValidationError as error:
        raise AnnotationsError(f"{path}: {describe_fault(error)}; {_EXPECTED}") from error
    photos = []
    for number, task in enumerate(tasks):
        image = _find_image(task.data)
        if image is None:
            raise AnnotationsError(f"{path}: {number}.data has no path of a photo, found {task.data}; {_EXPECTED}")
        results = _choose_annotation(task).result
        sizes = [(one.original_width, one.original_height) for one in results if one.original_width]
        image_wh = to_image_wh(*sizes[0]) if sizes else None
        photos.append(BoxedPhoto(image, image_wh, _find_boxes(path, results), find_split(image, path.name)))
    return photos


def _choose_annotation(task: _Task) -> _Annotation:
    kept = [one for one in task.annotations if not one.was_cancelled]
    return next((one for one in kept if one.ground_truth), kept[0] if kept else _Annotation())


def _find_image(data: Mapping[str, Any]) -> str | None:
    """The path of a task's photo: of a file that Label Studio serves, the part below its folder; of a URL its path."""
    texts = [value for value in data.values() if isinstance(value, str)]
    text = next((data[key] for key in ("image", "img", "photo") if isinstance(data.get(key), str)), None)
    text = text if text is not None else next((one for one in texts if "/" in one or "." in one), None)
    if not text:
        return None
    parts = urlsplit(text)
    if served := parse_qs(parts.query).get("d"):
        return served[0].lstrip("/")
    return unquote(_UPLOAD.sub("", parts.path)).lstrip("/")


def _find_boxes(path: Path, results: list[_Result]) -> list[AnnotatedBox]:
    boxes: dict[str, tuple[str, tuple[float, ...]]] = {}
    attributes: dict[str, dict[str, object]] = {}
    for number, one in enumerate(results):
        key = one.id or f"result {number}"
        said = attributes.setdefault(key, {})
        if "x" in one.value and "width" in one.value:
            boxes[key] = (boxes.get(key, ("", ()))[0], _to_xyxy(path, one))
        for kind, value in one.value.items():
            if kind == "rectanglelabels" and isinstance(value, list):
                class_name, *others = map(str, value) if value else [""]
                boxes[key] = (class_name, boxes.get(key, ("", ()))[1])
                if others:
                    said["labels"] = others
            elif kind in ("choices", "labels", "taxonomy", "text") or kind in ("number", "rating"):
                said[one.from_name] = value
    return [AnnotatedBox(name, xyxy, attributes[key]) for key, (name, xyxy) in boxes.items()]


def _to_xyxy(path: Path, one: _Result) -> tuple[float, ...]:
    try:
        x, y, width, height = (float(one.value[name]) for name in ("x", "y", "width", "height"))
    except (KeyError, TypeError, ValueError):
        raise AnnotationsError(f"{path}: the box {one.value} has no numbers x, y, width, height; {_EXPECTED}") from None
    w, h = one.original_width / _PERCENT, one.original_height / _PERCENT
    return (x * w, y * h, (x + width) * w, (y + height) * h)
