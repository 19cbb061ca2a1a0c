"""Writes a data set in the form that FiftyOne exports and opens, ``FiftyOneDataset``: metadata.json and samples.json.

FiftyOne itself, which brings a database along, is not needed for it. Boxes are [left, top, width, height] as shares of
the upright photo, as FiftyOne shows it. Source: ``fiftyone/utils/data/exporters.py`` of FiftyOne 1.22; the version
below is the first whose form of the files this is, and later ones convert it when they open it.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from emoface.storage.files import atomic_path, write_text

METADATA_NAME, SAMPLES_NAME = "metadata.json", "samples.json"
_VERSION = "1.0.0"
_FIELDS = "fiftyone.core.fields"
_LIST, _DICT, _DOCUMENT = f"{_FIELDS}.ListField", f"{_FIELDS}.DictField", f"{_FIELDS}.EmbeddedDocumentField"
_TEXT, _NUMBER, _INTEGER, _ID = (f"{_FIELDS}.{kind}Field" for kind in ("String", "Float", "Int", "ObjectId"))
_DETECTION = "fiftyone.core.labels.Detection"
_OWN_FIELDS: dict[str, dict[str, tuple[str, str | None]]] = {
    "people": {
        "person_id": (_TEXT, None),
        "split": (_TEXT, None),
        "categories": (_LIST, _TEXT),
        **dict.fromkeys(("valence", "arousal", "dominance"), (_NUMBER, None)),
        **dict.fromkeys(("gender", "age", "face_status"), (_TEXT, None)),
    },
    "faces": {"person_id": (_TEXT, None)},
    "predictions": {"person_id": (_TEXT, None), "categories": (_LIST, _TEXT), "probabilities": (_DICT, _NUMBER)},
}
"""The fields of each kind of box that FiftyOne does not have itself, with the types of the field and its values."""


def to_share_box(xyxy: Sequence[float], image_wh: Sequence[int]) -> list[float]:
    """Converts x1, y1, x2, y2 in pixels to left, top, width, height as shares of the photo's sides.

    Example:
        >>> to_share_box([20, 10, 120, 40], (200, 100))
        [0.1, 0.1, 0.5, 0.3]
    """
    (x1, y1, x2, y2), (width, height) = map(float, xyxy), image_wh
    return [round(value, 6) for value in (x1 / width, y1 / height, (x2 - x1) / width, (y2 - y1) / height)]


def detection(label: str, box: list[float], index: int, **values: Any) -> dict[str, Any]:
    """Describes a box of a person.

    Args:
        label: What FiftyOne shows beside the box.
        box: See ``to_share_box``.
        index: Row of the person in ``people.parquet``; boxes of the same person have the same.
        values: Values of the fields of this kind of box, and ``confidence``; None and nan are left out.
    """
    defined = {name: value for name, value in values.items() if not _is_undefined(value)}
    key = f"{values.get('person_id')} {label} {box}"
    return {
        "_id": _to_id(key),
        "_cls": "Detection",
        "attributes": {},
        "tags": [],
        "label": label,
        "bounding_box": box,
        "index": index,
        **defined,
    }


def sample(path: str, tags: Sequence[str], boxes: Mapping[str, list[dict[str, Any]]]) -> dict[str, Any]:
    """Describes a photo.

    Args:
        path: Path of the file, or its URL.
        tags: Words by which FiftyOne filters photos.
        boxes: The detections by kind: ``people``, ``faces``, ``predictions``.
    """
    found = {kind: {"_cls": "Detections", "detections": detections} for kind, detections in boxes.items()}
    order = int(_to_id(path)["$oid"], 16) / 16**24  # FiftyOne takes a random sample of the photos by it
    return {"_id": _to_id(path), "filepath": path, "tags": list(tags), "_media_type": "image", "_rand": order, **found}


def write_fiftyone(folder: Path, name: str, samples: Iterable[Mapping[str, Any]], kinds: Sequence[str]) -> list[Path]:
    """Writes a data set for FiftyOne.

    Args:
        folder: Folder to write to.
        name: Name of the data set.
        samples: The photos, see ``sample``.
        kinds: The kinds of boxes of the samples.

    Returns:
        The two files; ``metadata.json``, without which FiftyOne opens nothing, is written last.
    """
    metadata_path, samples_path = folder / METADATA_NAME, folder / SAMPLES_NAME
    metadata_path.unlink(missing_ok=True)
    with atomic_path(samples_path) as temporary, temporary.open("w", encoding="utf-8") as stream:
        stream.write('{"samples": [')
        for number, one in enumerate(samples):
            stream.write(f"{',' * (number > 0)}\n{json.dumps(one, ensure_ascii=False)}")
        stream.write("\n]}\n")
    write_text(metadata_path, json.dumps(_describe(name, kinds), indent=1) + "\n")
    return [metadata_path, samples_path]


def _describe(name: str, kinds: Sequence[str]) -> dict[str, Any]:
    fields = [
        _field("id", _ID, db_field="_id"),
        _field("filepath", _TEXT),
        _field("tags", _LIST, subfield=_TEXT),
        _field("metadata", _DOCUMENT, document="fiftyone.core.metadata.ImageMetadata"),
        *(_describe_boxes(kind) for kind in kinds),
    ]
    empty = ("info", "classes", "mask_targets", "skeletons", "group_media_types", "default_mask_targets")
    return {
        "name": name,
        "version": _VERSION,
        "media_type": "image",
        "persistent": False,
        "tags": [],
        "default_classes": [],
        **{key: {} for key in empty},
        "sample_fields": fields,
        "frame_fields": [],
    }


def _describe_boxes(kind: str) -> dict[str, Any]:
    inner = [
        _field("id", _ID, db_field="_id"),
        _field("tags", _LIST, subfield=_TEXT),
        _field("label", _TEXT),
        _field("bounding_box", _LIST, subfield=_NUMBER),
        _field("confidence", _NUMBER),
        _field("index", _INTEGER),
        *(_field(name, form, subfield=values) for name, (form, values) in _OWN_FIELDS[kind].items()),
    ]
    boxes = _field("detections", _LIST, subfield=_DOCUMENT, document=_DETECTION, fields=inner)
    return _field(kind, _DOCUMENT, document=f"{_DETECTION}s", fields=[boxes])


def _field(
    name: str,
    form: str,
    *,
    subfield: str | None = None,
    document: str | None = None,
    fields: Sequence[Mapping[str, Any]] = (),
    db_field: str | None = None,
) -> dict[str, Any]:
    return {
        "name": name,
        "ftype": form,
        "embedded_doc_type": document,
        "subfield": subfield,
        "fields": list(fields),
        "db_field": db_field or name,
        "description": None,
        "info": None,
        "read_only": False,
    }


def _to_id(text: str) -> dict[str, str]:
    """An id of 24 hexadecimal digits, the same for the same text."""
    return {"$oid": hashlib.sha256(text.encode()).hexdigest()[:24]}


def _is_undefined(value: Any) -> bool:
    return value is None or (isinstance(value, float) and math.isnan(value))
