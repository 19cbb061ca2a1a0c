"""EMOTIC's categories, splits and dimensions, and the schema of every table; column names are defined only here."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa

CATEGORIES: tuple[str, ...] = (
    "Affection",
    "Anger",
    "Annoyance",
    "Anticipation",
    "Aversion",
    "Confidence",
    "Disapproval",
    "Disconnection",
    "Disquietment",
    "Doubt/Confusion",
    "Embarrassment",
    "Engagement",
    "Esteem",
    "Excitement",
    "Fatigue",
    "Fear",
    "Happiness",
    "Pain",
    "Peace",
    "Pleasure",
    "Sadness",
    "Sensitivity",
    "Suffering",
    "Surprise",
    "Sympathy",
    "Yearning",
)
"""EMOTIC's 26 emotion categories in its spelling and in alphabetical order, the order of every indicator.

Source: Kosti et al., "Context Based Emotion Recognition using EMOTIC Dataset", 2019, table 1.
"""

CATEGORY_INDEX: dict[str, int] = {name: position for position, name in enumerate(CATEGORIES)}

SOURCES: tuple[str, ...] = ("mscoco", "ade20k", "emodb_small", "framesdb")
"""The first folder of an EMOTIC image path: the collection that the photo is from."""

SPLITS: tuple[str, ...] = ("train", "val", "test")

SIMULATION_NAME = "simulation.json"
"""The file that marks a folder as written by ``emoface simulate``."""

DIMENSIONS: tuple[str, ...] = ("valence", "arousal", "dominance")
"""EMOTIC's continuous dimensions, each 1-10."""

FACE_FOUND = "found"

EMPTY_FACE_REASONS: dict[str, str] = {
    "no_face": "the detector found no face near this person's head",
    "other_person": "the only faces nearby belong to another person",
    "too_small": "a face was found, but it is smaller than the size limit",
    "image_missing": "the photo is not below the image root",
    "image_unreadable": "the photo is there but cannot be decoded",
}
"""Every ``face_status`` except ``found``, with its meaning."""

FACE_STATUSES: tuple[str, ...] = (FACE_FOUND, *EMPTY_FACE_REASONS)

N_CATEGORIES = len(CATEGORIES)


_STREAMS = ("face", "body", "context")


LIST_LENGTHS: dict[str, int] = {
    "body_bbox": 4,
    "face_bbox": 4,
    "landmarks": 10,
    "points": 399,
    "annotator_votes": N_CATEGORIES,
    **{f"{stream}_probabilities": N_CATEGORIES for stream in _STREAMS},
}
"""The number of values in each list of a column that can be null.

The parquet type of these columns is a variable-size list, because fixed-size lists with nulls cannot be read by pyarrow
before 26. Source: https://github.com/apache/arrow/issues/35692
"""

_LARGEST = float(np.finfo(np.float32).max)

FINITE: tuple[float, float] = (-_LARGEST, _LARGEST)
"""The range of a float32 that is neither infinite nor nan."""

VALUE_RANGES: dict[str, tuple[float, float]] = {
    "index": (0, 2**63 - 1),
    "same_person_as": (0, 2**63 - 1),
    "labels": (0, 1),
    "image_wh": (0, 2**31 - 1),
    **dict.fromkeys(("body_bbox", "face_bbox", "landmarks", "points", "conf"), FINITE),
    **dict.fromkeys(DIMENSIONS, (1, 10)),
    "weight": (0, _LARGEST),
}
"""The smallest and the largest value of columns of numbers, also inside lists; nan and infinity are outside."""

VALUE_CHOICES: dict[str, tuple[str, ...]] = {
    "categories": CATEGORIES,
    "face_status": FACE_STATUSES,
    "split": SPLITS,
}
"""The allowed words of columns of text, also inside lists."""

NEVER_NULL: frozenset[str] = frozenset(
    ("image", "image_wh", "source_split", "categories", "labels", "face_status", "split")
)
"""Columns that have a value in every row of every table that contains them, besides those declared as not nullable."""


def _vector(value: pa.DataType, length: int) -> pa.DataType:
    """The type of a column of lists of one length that is never null."""
    return pa.list_(value, length)


def _nullable_vector(value: pa.DataType) -> pa.DataType:
    """The type of a column of lists that can be null; their length is in ``LIST_LENGTHS``."""
    return pa.list_(value)


_PERSON_KEY = [
    pa.field("index", pa.int64(), nullable=False),
    pa.field("person_id", pa.string(), nullable=False),
]

PEOPLE_SCHEMA = pa.schema(
    [
        *_PERSON_KEY,
        pa.field("image", pa.string()),
        pa.field("source", pa.string()),
        pa.field("source_split", pa.string()),
        pa.field("image_wh", _vector(pa.int32(), 2)),
        pa.field("body_bbox", _nullable_vector(pa.float32())),
        pa.field("categories", pa.list_(pa.string())),
        pa.field("labels", _vector(pa.uint8(), N_CATEGORIES)),
        pa.field("annotator_votes", _nullable_vector(pa.uint8())),
        pa.field("n_annotators", pa.uint8()),
        pa.field("valence", pa.float32()),
        pa.field("arousal", pa.float32()),
        pa.field("dominance", pa.float32()),
        pa.field("gender", pa.string()),
        pa.field("age", pa.string()),
        pa.field("same_person_as", pa.int64()),
    ]
)
"""``people.parquet``: one row per annotated person, in EMOTIC's order."""

FACE_IMAGE = pa.struct([pa.field("bytes", pa.binary()), pa.field("path", pa.string())])
"""An encoded image, in the Hugging Face ``Image`` convention."""

FACES_SCHEMA = pa.schema(
    [
        *_PERSON_KEY,
        pa.field("face", FACE_IMAGE),
        pa.field("face_bbox", _nullable_vector(pa.float32())),
        pa.field("landmarks", _nullable_vector(pa.float32())),
        pa.field("conf", pa.float32()),
        pa.field("assignment_margin", pa.float32()),
        pa.field("face_status", pa.string()),
    ]
)
"""``faces.parquet``: one row per row of ``people.parquet``, in the same order, none left out."""

_SPLIT_FIELDS = [*PEOPLE_SCHEMA, *list(FACES_SCHEMA)[2:], pa.field("split", pa.string())]


def _hugging_face_feature(name: str, column: pa.DataType, label_names: Sequence[str]) -> dict[str, Any]:
    if name == "face":
        return {"_type": "Image"}
    if name == "categories":
        return {"feature": {"names": list(label_names), "_type": "ClassLabel"}, "_type": "Sequence"}
    if pa.types.is_fixed_size_list(column):
        value = _hugging_face_feature("", column.value_type, label_names)
        length = len(label_names) if name == "labels" else column.list_size
        return {"feature": value, "length": length, "_type": "Sequence"}
    if pa.types.is_list(column):
        return {"feature": _hugging_face_feature("", column.value_type, label_names), "_type": "Sequence"}
    # Arrow calls the type "float", Hugging Face calls it "float32".
    return {"dtype": "float32" if pa.types.is_float32(column) else str(column), "_type": "Value"}


def hugging_face_features(label_names: Sequence[str]) -> dict[str, Any]:
    """The columns of the split tables for ``datasets.Features.from_dict``: the face is an image, a category a class."""
    return {field.name: _hugging_face_feature(field.name, field.type, label_names) for field in _SPLIT_FIELDS}


def _hugging_face_metadata(label_names: Sequence[str]) -> dict[bytes, bytes]:
    return {b"huggingface": json.dumps({"info": {"features": hugging_face_features(label_names)}}).encode()}


HUGGING_FACE_FEATURES: dict[str, Any] = hugging_face_features(CATEGORIES)
"""The columns of the split tables of EMOTIC's categories, see ``hugging_face_features``."""

SPLIT_SCHEMA = pa.schema(_SPLIT_FIELDS, metadata=_hugging_face_metadata(CATEGORIES))
"""``train.parquet``, ``val.parquet``, ``test.parquet``: the columns of people and faces, plus the split.

The library ``datasets`` reads its features from the metadata.
"""

POSE_TABLE, DEPTH_TABLE, REGIONS_TABLE = "pose.parquet", "depth.parquet", "regions.parquet"
"""The tables of models' inputs beside the photo streams. They are beside the manifest, which does not describe them."""

POINTS_FILE, MAPS_FOLDER = "points file", "maps folder"
"""Names of the providers of points and of maps that something else wrote, so that other photos have none."""

NEARNESS_SIDE = 256
"""Side of the square maps of ``depth.parquet`` in pixels, that of the photos in the stream cache."""

POSE_SCHEMA = pa.schema(
    [
        *_PERSON_KEY,
        pa.field("points", _nullable_vector(pa.float32())),
        pa.field("provider", pa.string(), nullable=False),
        pa.field("provider_sha256", pa.string()),
    ]
)
"""``pose.parquet``: the points of each person's body, in the order of ``people.parquet``, none left out.

``points`` are 133 times x, y and confidence in the order of ``emoface.vision.whole_body`` and the frame of
``body_bbox``; null where the photo cannot be read or the person has no box. ``provider`` is the name of what found
them, ``provider_sha256`` the digest of its model file, null for a provider without one.
"""

DEPTH_SCHEMA = pa.schema(
    [
        pa.field("image", pa.string(), nullable=False),
        pa.field("nearness", FACE_IMAGE),
        pa.field("provider", pa.string(), nullable=False),
        pa.field("provider_sha256", pa.string()),
    ]
)
"""``depth.parquet``: one row per photo of ``people.parquet``, in order of first appearance.

``nearness`` is a PNG of 256 x 256 pixels with 8 bits, the whole upright photo scaled to a square: 0 is the farthest
point of the photo and 255 the nearest; null where the photo cannot be read. ``provider`` as in ``pose.parquet``.
"""

REGIONS_SCHEMA = pa.schema(
    [
        pa.field("image", pa.string(), nullable=False),
        pa.field("boxes", pa.list_(pa.float32()), nullable=False),
        pa.field("features", pa.binary(), nullable=False),
        pa.field("provider", pa.string(), nullable=False),
        pa.field("provider_sha256", pa.string()),
    ]
)
"""``regions.parquet``: one row per photo of ``people.parquet``, in order of first appearance, its regions best first.

``boxes`` are k times x1, y1, x2, y2 as shares of the upright photo, ``features`` the bytes of k times 1024 float16,
little-endian; both are empty where the photo cannot be read.
"""

CROPS_SCHEMA = pa.schema(
    [
        pa.field("file", pa.string(), nullable=False),
        pa.field("photo", pa.string(), nullable=False),
        pa.field("face", pa.int32(), nullable=False),
        pa.field("face_bbox", _vector(pa.float32(), 4), nullable=False),
        pa.field("landmarks", _vector(pa.float32(), 10), nullable=False),
        pa.field("conf", pa.float32(), nullable=False),
    ]
)
"""``crops.parquet`` of the crop job: one row per face. Its ``photo`` is the path or URL as the user named it.

Box and landmarks are in pixels of the upright photo; ``face`` is the number of the face, from left to right.
"""

PHOTO_HASHES_SCHEMA = pa.schema(
    [
        pa.field("image", pa.string(), nullable=False),
        pa.field("state", pa.string(), nullable=False),
        pa.field("hash", pa.binary()),
    ]
)
"""``report/photo_hashes.parquet``: the hash of what each photo shows, kept so that it is computed once.

``state`` is the photo's size and time, or its version; ``hash`` has 16 bytes and is null for a photo that cannot be
read or is of nearly one colour.
"""

SAMPLING_WEIGHTS_SCHEMA = pa.schema(
    [pa.field("index", pa.int64(), nullable=False), pa.field("weight", pa.float64(), nullable=False)]
)
"""``sampling_weights.parquet``: the sampling weight of each person of the train split, with a mean of 1."""

LEFT_OUT_COLUMNS: tuple[str, ...] = ("index", "person_id", "image", "kept_index")
"""``left_out.csv``: every row that the split leaves out because its person is in the splits by another row."""

CAPPED_COLUMNS: tuple[str, ...] = ("index", "person_id", "image")
"""``capped.csv``: every person left out of the train split because one of their labels had reached the limit."""

EMPTY_FACE_COLUMNS: tuple[str, ...] = ("index", "person_id", "image", "face_status")
"""``empty_faces.csv``: every row whose face is null."""

PARSE_NOTE_COLUMNS: tuple[str, ...] = ("person_id", "what", "before", "after")
"""``parse_notes.csv``: every irregularity of the annotations, with the value before and after the correction."""

PREDICTIONS_SCHEMA = pa.schema(
    [
        *_PERSON_KEY,
        pa.field("image", pa.string(), nullable=False),
        pa.field("source", pa.string()),
        pa.field("people_in_photo", pa.int32(), nullable=False),
        pa.field("has_face", pa.bool_(), nullable=False),
        pa.field("labels", _vector(pa.uint8(), N_CATEGORIES)),
        pa.field("probabilities", _vector(pa.float32(), N_CATEGORIES)),
        *(pa.field(f"{stream}_probabilities", _nullable_vector(pa.float32())) for stream in _STREAMS),
        *(pa.field(name, pa.float32()) for name in DIMENSIONS),
        *(pa.field(f"predicted_{name}", pa.float32()) for name in DIMENSIONS),
    ]
)
"""``predictions.parquet``: a model's predictions for each person of a split that the model can use.

``face_probabilities``, ``body_probabilities`` and ``context_probabilities`` are the output of each stream's own head,
null where the model has no such head or the person has no face. Valence, arousal and dominance are 1-10; the true
values are null where EMOTIC has none, the predicted values where the model has no head for them.
"""

GROUND_TRUTH_SCHEMA = pa.schema(
    [
        pa.field("image", pa.string(), nullable=False),
        pa.field("person_id", pa.string()),
        pa.field("annotated", pa.bool_(), nullable=False),
        pa.field("body_bbox", _nullable_vector(pa.float32())),
        pa.field("face_bbox", _nullable_vector(pa.float32())),
        pa.field("landmarks", _nullable_vector(pa.float32())),
        pa.field("points", _nullable_vector(pa.float32())),
        pa.field("face_visible", pa.bool_(), nullable=False),
        pa.field("hidden_by", pa.string()),
        pa.field("expression", pa.string()),
        pa.field("posture", pa.string()),
        pa.field("clothes", pa.string()),
        pa.field("place", pa.string()),
        pa.field("object", pa.string()),
        pa.field("label_probabilities", _vector(pa.float32(), N_CATEGORIES)),
    ]
)
"""``ground_truth.parquet``: one row per person drawn by the simulator; ``person_id`` is null for a bystander."""


_LABELS_KEY = b"emoface_label_names"
_UNLABELLED_KEY = b"emoface_unlabelled"
_LABEL_VECTORS = ("labels", "probabilities", "label_probabilities")
_LABEL_LISTS = frozenset(name for name, length in LIST_LENGTHS.items() if length == N_CATEGORIES)


def with_labels(schema: pa.Schema, label_names: tuple[str, ...]) -> pa.Schema:
    """The schema of a table whose labels are those of a data set of its own; that of EMOTIC's categories is unchanged.

    Columns with one value per label get the new length, and the names are in the metadata, where
    ``label_names_of`` finds them.

    Example:
        >>> own = with_labels(PEOPLE_SCHEMA, ("calm", "tense"))
        >>> own.field("labels").type.list_size, label_names_of(own), with_labels(own, CATEGORIES) == PEOPLE_SCHEMA
        (2, ('calm', 'tense'), True)
    """
    if label_names == label_names_of(schema):
        return schema
    fields = [
        field.with_type(_vector(field.type.value_type, len(label_names))) if field.name in _LABEL_VECTORS else field
        for field in schema
    ]
    metadata = {key: value for key, value in (schema.metadata or {}).items() if key != _LABELS_KEY}
    if b"huggingface" in metadata:
        metadata |= _hugging_face_metadata(label_names)
    if label_names != CATEGORIES:
        metadata[_LABELS_KEY] = json.dumps(label_names, ensure_ascii=False).encode()
    return pa.schema(fields, metadata=metadata or None)


def label_names_of(schema: pa.Schema) -> tuple[str, ...]:
    """The names of a table's labels, in their order: those in its metadata, EMOTIC's categories where it has none.

    Raises:
        ValueError: The metadata is not a list of names.
    """
    text = (schema.metadata or {}).get(_LABELS_KEY)
    try:
        return CATEGORIES if text is None else check_label_names(json.loads(text))
    except RecursionError as error:
        raise ValueError("label_names are nested too deeply, expected a list of names") from error


def without_labels(schema: pa.Schema) -> pa.Schema:
    """The schema of ``people.parquet`` before anybody is annotated: ``labels`` and ``categories`` are null."""
    position = schema.get_field_index("labels")
    if position >= 0:
        schema = schema.set(position, pa.field("labels", _nullable_vector(pa.uint8())))
    return schema.with_metadata({**(schema.metadata or {}), _UNLABELLED_KEY: b"1"})


def is_unlabelled(schema: pa.Schema) -> bool:
    """Whether a table has people whom nobody has annotated yet, see ``without_labels``."""
    return _UNLABELLED_KEY in (schema.metadata or {})


def check_label_names(names: object) -> tuple[str, ...]:
    """Checks that a value read from a file is a list of two or more different names.

    Raises:
        ValueError: It is not.
    """
    if not isinstance(names, list | tuple) or not all(isinstance(name, str) and name.strip() for name in names):
        raise ValueError(f"label_names are {names!r}, expected a list of names")
    if len(names) < FEWEST_LABELS or len(set(names)) != len(names):
        raise ValueError(f"label_names are {len(names)} names, {len(set(names))} different, expected 2 or more")
    return tuple(names)


FEWEST_LABELS = 2
"""A data set with fewer labels has nothing to compare."""


def list_length(column: str, label_names: Sequence[str]) -> int | None:
    """The number of values in each list of a column that can be null; None for a column without such lists."""
    return len(label_names) if column in _LABEL_LISTS else LIST_LENGTHS.get(column)


def value_choices(column: str, label_names: Sequence[str]) -> tuple[str, ...] | None:
    """The allowed words of a column of text, also inside lists; None for a column that may hold anything."""
    return tuple(label_names) if column == "categories" else VALUE_CHOICES.get(column)
