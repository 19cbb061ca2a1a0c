"""Writes predictions in the file forms that ``prediction_files`` reads, for other programs and other evaluations."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from emoface.datasets.prediction_files import LABEL_NAMES
from emoface.datasets.predictions import PREDICTED_DIMENSIONS, Predictions
from emoface.errors import PredictionsError
from emoface.storage.csv_files import csv_text
from emoface.storage.files import atomic_path, write_text
from emoface.storage.tables import open_bytes

if TYPE_CHECKING:
    import pandas as pd


def write_prediction_file(path: Path, predictions: Predictions) -> list[Path]:
    """Writes the predictions of n people; the suffix gives the form.

    - ``.npy``: the probabilities alone, n x 26, and beside them ``NAME.people.csv`` with the ``person_id`` of each row.
    - ``.npz``, ``.mat``, ``.json``: ``person_id``, ``label_names``, ``probabilities`` (n x 26), ``labels`` (n x 26, the
      true ones) and, where the model predicts them, ``predicted_vad`` (n x 3).
    - ``.csv``, ``.tsv``, ``.parquet``: one column ``person_id``, one per label with its probability and, where the
      model predicts them, ``predicted_valence``, ``predicted_arousal`` and ``predicted_dominance``.

    Args:
        path: The file.
        predictions: The predictions.

    Returns:
        The files written.

    Raises:
        PredictionsError: The suffix is none of these.
    """
    suffix = path.suffix.lower()
    if suffix not in WRITERS:
        raise PredictionsError(f"{path}: the name ends in '{path.suffix}', expected one of {', '.join(WRITERS)}")
    with atomic_path(path) as temporary:
        WRITERS[suffix](temporary, predictions)
    if suffix != ".npy":
        return [path]
    list_path = path.with_suffix(".people.csv")
    write_text(list_path, csv_text(["person_id"], ([person_id] for person_id in predictions.person_ids)))
    return [path, list_path]


def _predicts_vad(predictions: Predictions) -> bool:
    return bool(np.isfinite(predictions.predicted_vad).any())


def _to_arrays(predictions: Predictions) -> dict[str, Any]:
    arrays = {
        "person_id": np.array(predictions.person_ids, dtype=str),
        LABEL_NAMES: np.array(predictions.label_names, dtype=str),
        "probabilities": predictions.probabilities,
        "labels": predictions.labels,
    }
    return {**arrays, "predicted_vad": predictions.predicted_vad} if _predicts_vad(predictions) else arrays


def _to_table(predictions: Predictions) -> pd.DataFrame:
    import pandas as pd

    columns: dict[str, Any] = {"person_id": predictions.person_ids}
    columns |= dict(zip(predictions.label_names, predictions.probabilities.T, strict=True))
    if _predicts_vad(predictions):
        columns |= dict(zip(PREDICTED_DIMENSIONS, predictions.predicted_vad.T, strict=True))
    return pd.DataFrame(columns)


def _write_npy(path: Path, predictions: Predictions) -> None:
    np.save(path, predictions.probabilities, allow_pickle=False)


def _write_npz(path: Path, predictions: Predictions) -> None:
    np.savez_compressed(path, **_to_arrays(predictions))


def _write_mat(path: Path, predictions: Predictions) -> None:
    import scipy.io

    # A cell array of texts; a char matrix would pad them.
    arrays = _to_arrays(predictions)
    texts = {name: values.astype(object) for name, values in arrays.items() if values.dtype.kind == "U"}
    scipy.io.savemat(path, arrays | texts, do_compression=True)


def _write_csv(path: Path, predictions: Predictions) -> None:
    separator = "\t" if path.suffix.lower() == ".tsv" else ","
    table = _to_table(predictions)
    texts = table.astype(str).astype(object).where(table.notna(), None)  # the fewest digits of a 32-bit number
    text = csv_text(list(table.columns), texts.itertuples(index=False), separator)
    path.write_text(text, encoding="utf-8", errors="backslashreplace", newline="\n")


def _write_parquet(path: Path, predictions: Predictions) -> None:
    with open_bytes(path, "wb") as sink:
        pq.write_table(pa.Table.from_pandas(_to_table(predictions), preserve_index=False), sink, compression="zstd")


def _write_json(path: Path, predictions: Predictions) -> None:
    arrays = {name: _to_json_rows(values) for name, values in _to_arrays(predictions).items()}
    path.write_text(json.dumps(arrays, ensure_ascii=False, allow_nan=False) + "\n", encoding="utf-8")


def _to_json_rows(values: Any) -> Any:
    rows = values.tolist()
    if values.ndim == 1:
        return rows
    return [[None if math.isnan(value) else value for value in row] for row in rows]


WRITERS: dict[str, Callable[[Path, Predictions], None]] = {
    ".npy": _write_npy,
    ".npz": _write_npz,
    ".mat": _write_mat,
    ".csv": _write_csv,
    ".tsv": _write_csv,
    ".parquet": _write_parquet,
    ".json": _write_json,
}
"""The function that writes each form, by suffix."""
