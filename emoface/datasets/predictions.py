"""Predictions of a model for the people of a split, in memory and as ``predictions.parquet``."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from pydantic import TypeAdapter

from emoface.errors import PredictionsError
from emoface.schema import CATEGORIES, DIMENSIONS, PREDICTIONS_SCHEMA, label_names_of, with_labels
from emoface.storage.files import parse_json
from emoface.storage.records import read_record
from emoface.storage.tables import open_bytes, read_table, vectors_to_array, write_table

PREDICTIONS_NAME = "predictions.parquet"

_KEY = b"emoface_predictions"
_STREAMS = ("face", "body", "context")
PREDICTED_DIMENSIONS = tuple(f"predicted_{name}" for name in DIMENSIONS)
"""Columns of predicted valence, arousal and dominance."""
_REMEDY = "delete it and run 'emoface evaluate' again"


@dataclass(frozen=True)
class Predictions:
    """Predictions of a model for n people, with the true labels; shapes are checked.

    Attributes:
        index: (n,) row of each person in ``people.parquet``.
        person_ids: ``person_id`` of each person.
        images: Path of each person's photo below the image root.
        sources: (n,) the collection of each person's photo, None where unknown.
        people_in_photo: (n,) number of annotated people of the split in the same photo.
        has_face: (n,) whether the person's face was found.
        labels: (n, n_labels) true labels, 0 or 1; n_labels is 26 for EMOTIC.
        probabilities: (n, n_labels) predicted probabilities, 0-1; scores of another program may be on any other scale.
        stream_probabilities: (n, n_labels) probabilities of each stream with a head of its own, nan without a face.
        vad: (n, 3) true valence, arousal, dominance, 1-10, nan where EMOTIC has none.
        predicted_vad: (n, 3) predicted valence, arousal, dominance, 1-10, nan where the model has no head for them.
        label_names: The names of the labels, in their order.

    Raises:
        ValueError: An array has another shape, or a stream is unknown.
    """

    index: NDArray[np.int64]
    person_ids: list[str]
    images: list[str]
    sources: NDArray[np.object_]
    people_in_photo: NDArray[np.int64]
    has_face: NDArray[np.bool_]
    labels: NDArray[np.uint8]
    probabilities: NDArray[np.float32]
    stream_probabilities: dict[str, NDArray[np.float32]]
    vad: NDArray[np.float32]
    predicted_vad: NDArray[np.float32]
    label_names: tuple[str, ...] = CATEGORIES

    def __post_init__(self) -> None:
        n, n_labels = len(self.person_ids), len(self.label_names)
        if len(self.images) != n:
            raise ValueError(f"{len(self.images)} images for {n} people, expected one for each")
        shape_of: dict[str, tuple[int, ...]] = {
            **dict.fromkeys(("index", "sources", "people_in_photo", "has_face"), (n,)),
            **dict.fromkeys(("labels", "probabilities"), (n, n_labels)),
            **dict.fromkeys(("vad", "predicted_vad"), (n, len(DIMENSIONS))),
        }
        arrays = {name: getattr(self, name) for name in shape_of}
        for stream, values in self.stream_probabilities.items():
            if stream not in _STREAMS:
                raise ValueError(f"no stream is called '{stream}', expected {', '.join(_STREAMS)}")
            name = f"{stream}_probabilities"
            arrays[name], shape_of[name] = values, (n, n_labels)
        for name, values in arrays.items():
            if values.shape != shape_of[name]:
                raise ValueError(f"{name} has shape {values.shape}, expected {shape_of[name]} for {n} people")

    def __len__(self) -> int:
        return len(self.person_ids)

    @property
    def photo(self) -> NDArray[np.int64]:
        """(n,) a number for each person's photo, the same for people of one photo."""
        return np.unique(np.array(self.images, dtype=object).astype(str), return_inverse=True)[1].astype(np.int64)

    def take(self, rows: NDArray[np.int64] | NDArray[np.bool_]) -> Predictions:
        """Selects some of the people, in the order of ``rows``.

        Args:
            rows: (m,) positions, or an (n,) boolean mask.
        """
        chosen = np.arange(len(self))[rows]
        taken = {one.name: _take(getattr(self, one.name), chosen) for one in fields(self)}
        return Predictions(**taken)


def predictions_path(run_dir: Path, split: str) -> Path:
    """The path of a run's predictions for a split: ``RUN/eval/SPLIT/predictions.parquet``."""
    return run_dir / "eval" / split / PREDICTIONS_NAME


def find_predictions(folder: Path, split: str) -> Path:
    """Finds the predictions of an evaluated run, or of a folder of scored predictions, for a split.

    Raises:
        PredictionsError: There are none.
    """
    path = predictions_path(folder, split)
    if path.is_file():
        return path
    if (scored := find_scored(folder)) is None:
        raise PredictionsError(f"{path}: no such file; write it with 'emoface evaluate {folder} --split {split}'")
    if scored.split != split:
        raise PredictionsError(
            f"{folder}: predictions of {scored.split}, expected {split}; give --split {scored.split}"
        )
    return folder / PREDICTIONS_NAME


@dataclass(frozen=True)
class Scored:
    """A folder that the score job wrote: predictions of another program, measured.

    Attributes:
        path: The folder.
        name: Name of the predictions.
        split: The split that was predicted.
    """

    path: Path
    name: str
    split: str


def find_scored(folder: Path) -> Scored | None:
    """Reads what a folder of scored predictions is; None if the score job did not finish there.

    Raises:
        TableError: The job's record is damaged.
    """
    record = read_record(folder, "score")
    return None if record is None else Scored(folder, str(record.info["name"]), str(record.info["split"]))


def read_predictions(path: Path) -> Predictions:
    """Reads ``predictions.parquet``.

    Raises:
        TableError: The file is missing or has other columns.
    """
    table = read_table(path, PREDICTIONS_SCHEMA, _REMEDY)
    names = label_names_of(table.schema)
    streams = {name: vectors_to_array(table[f"{name}_probabilities"], len(names)) for name in _STREAMS}
    return Predictions(
        index=table["index"].to_numpy(),
        person_ids=table["person_id"].to_pylist(),
        images=table["image"].to_pylist(),
        sources=np.array(table["source"].to_pylist(), dtype=object),
        people_in_photo=table["people_in_photo"].to_numpy().astype(np.int64),
        has_face=table["has_face"].to_numpy(),
        labels=vectors_to_array(table["labels"], len(names)).astype(np.uint8),
        probabilities=vectors_to_array(table["probabilities"], len(names)),
        stream_probabilities={name: values for name, values in streams.items() if np.isfinite(values).any()},
        vad=_stack(table, DIMENSIONS),
        predicted_vad=_stack(table, PREDICTED_DIMENSIONS),
        label_names=names,
    )


def write_predictions(path: Path, predictions: Predictions, *, key: str, left_out: Mapping[str, int]) -> None:
    """Writes ``predictions.parquet`` in one step.

    Args:
        path: The file to write.
        predictions: The rows of the file.
        key: Hash of everything that the predictions depend on, without spaces; ``read_kept_predictions`` compares it.
        left_out: Number of people of the split without a row, by reason.
    """
    n = len(predictions)
    columns: dict[str, Any] = {
        "index": predictions.index,
        "person_id": predictions.person_ids,
        "image": predictions.images,
        "source": pa.array(predictions.sources.tolist(), pa.string()),
        "people_in_photo": predictions.people_in_photo,
        "has_face": predictions.has_face,
        "labels": _to_fixed_lists(predictions.labels, pa.uint8()),
        "probabilities": _to_fixed_lists(predictions.probabilities, pa.float32()),
    }
    for stream in _STREAMS:
        unknown = np.full((n, len(predictions.label_names)), np.nan, np.float32)
        values = predictions.stream_probabilities.get(stream, unknown)
        columns[f"{stream}_probabilities"] = _to_nullable_lists(values, pa.float32())
    for names, values in ((DIMENSIONS, predictions.vad), (PREDICTED_DIMENSIONS, predictions.predicted_vad)):
        for number, name in enumerate(names):
            columns[name] = pa.array(values[:, number], pa.float32(), from_pandas=True)
    table = pa.table({name: columns[name] for name in PREDICTIONS_SCHEMA.names})
    note = f"{key} {json.dumps(dict(left_out))}"
    schema = with_labels(PREDICTIONS_SCHEMA.with_metadata({_KEY: note.encode()}), predictions.label_names)
    write_table(path, table, schema)


def read_kept_predictions(path: Path, key: str) -> tuple[Predictions, dict[str, int]] | None:
    """Reads the predictions of a file if they were written with this key.

    Returns:
        The predictions and the numbers of people left out, as given to ``write_predictions``; None if the file is
        missing or damaged or its key is another one.

    Raises:
        TableError: The key is the same, but the columns differ.
    """
    if not path.is_file():
        return None
    try:
        with open_bytes(path) as source:
            metadata = pq.read_schema(source).metadata or {}
        kept_key, _, text = metadata.get(_KEY, b"").decode().partition(" ")
        left_out = TypeAdapter(dict[str, int]).validate_python(parse_json(text), strict=True)
    except (pa.ArrowException, OSError, ValueError):
        return None
    return (read_predictions(path), left_out) if kept_key == key else None


def _take(values: Any, rows: NDArray[np.int64]) -> Any:
    if isinstance(values, tuple):
        return values
    if isinstance(values, dict):
        return {name: part[rows] for name, part in values.items()}
    return [values[row] for row in rows] if isinstance(values, list) else values[rows]


def _stack(table: pa.Table, names: Sequence[str]) -> NDArray[np.float32]:
    return np.stack([table[name].to_numpy() for name in names], axis=1).astype(np.float32)


def _to_fixed_lists(values: NDArray[Any], kind: pa.DataType) -> pa.Array:
    """Converts rows to lists of one length; nan stays nan."""
    return pa.FixedSizeListArray.from_arrays(pa.array(values.ravel(), kind), values.shape[1])


def _to_nullable_lists(values: NDArray[Any], kind: pa.DataType) -> pa.Array:
    """Converts rows to lists; a row with nan becomes null."""
    unknown = np.isnan(values).any(axis=1)
    return pa.array([None if missing else row for row, missing in zip(values, unknown, strict=True)], pa.list_(kind))
