"""Labels that are probably wrong, by confident learning from a model's predictions; needs the package cleanlab."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from emoface.auditing.data_set import DataSet
from emoface.datasets.predictions import Predictions, find_scored, predictions_path, read_predictions
from emoface.errors import PredictionsError, install_command
from emoface.storage.records import to_json_number

SPLITS_TO_JUDGE = ("val", "test")
"""Splits whose predictions of a run are used: on train a model repeats the labels that it learnt, right or wrong."""

_N_SHOWN = 24


def find_prediction_files(run: Path | None, predictions: Path | None) -> list[Path]:
    """Lists the files of predictions to judge the labels by.

    Args:
        run: Folder of an evaluated run, or None.
        predictions: A file in the form of ``predictions.parquet``, or None.

    Raises:
        PredictionsError: The run has not been evaluated on val or test.
    """
    files = [] if predictions is None else [predictions]
    if run is None:
        return files
    scored = find_scored(run)
    paths = [run / "predictions.parquet"] if scored else [predictions_path(run, name) for name in SPLITS_TO_JUDGE]
    found = [path for path in paths if path.is_file()]
    if not found:
        raise PredictionsError(f"{run}: no predictions of val or test; write them with 'emoface evaluate {run}'")
    return files + found


def audit_label_errors(data: DataSet, files: Sequence[Path]) -> dict[str, Any] | None:
    """Finds labels that a model's predictions contradict, by cleanlab's confident learning, each label by itself.

    Args:
        data: The data set.
        files: The predictions.

    Returns:
        None without files; ``reason`` says why nothing was computed.

    Raises:
        PredictionsError: A predicted person is not in the data set.
        TableError: A file of predictions is missing or has other columns.

    Source: Northcutt et al., "Confident Learning: Estimating Uncertainty in Dataset Labels", JAIR 70, 2021.
    """
    if not files:
        return None
    rows, probabilities = _join(data, [(path, read_predictions(path)) for path in files])
    if importlib.util.find_spec("cleanlab") is None:
        return {
            "reason": f"This needs the package cleanlab, which is not installed; install it with "
            f"{install_command('cleanlab')}."
        }
    labels = data.indicator[rows]
    per_label, found = {}, []
    for k, name in enumerate(data.label_names):
        issues = _find_issues(labels[:, k], probabilities[:, k])
        is_marked = labels[issues, k] > 0
        per_label[name] = {"marked": int(is_marked.sum()), "not_marked": int((~is_marked).sum())}
        found += [(float(probabilities[i, k]), int(rows[i]), k, bool(labels[i, k])) for i in issues.tolist()]
    ranked = sorted(found, key=lambda one: (one[0] if one[3] else 1 - one[0], one[1], one[2]))
    return {
        "reason": None,
        "people": len(rows),
        "people_with_issues": len({row for _, row, _, _ in found}),
        "labels": per_label,
        "shown": [
            {
                "index": row,
                "label": data.label_names[k],
                "is_marked": marked,
                "probability": to_json_number(probability),
            }
            for probability, row, k, marked in ranked[:_N_SHOWN]
        ],
    }


def _join(data: DataSet, read: Sequence[tuple[Path, Predictions]]) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """(n,) rows of the predicted people in ``people.parquet``, each once, and (n, n_labels) their probabilities."""
    row_of = {person_id: row for row, person_id in enumerate(data.people["person_id"].to_pylist())}
    of_row: dict[int, NDArray[np.float32]] = {}
    for path, predictions in read:
        for person_id, values in zip(predictions.person_ids, predictions.probabilities, strict=True):
            if person_id not in row_of:
                raise PredictionsError(
                    f"{path}: {person_id} is not in {data.dir / 'people.parquet'}; give predictions of this data set"
                )
            of_row[row_of[person_id]] = values
        if predictions.probabilities.size and not (
            0 <= predictions.probabilities.min() <= predictions.probabilities.max() <= 1
        ):
            raise PredictionsError(f"{path}: scores outside 0 to 1, expected probabilities")
    rows = np.array(sorted(of_row), np.int64)
    values = [of_row[row] for row in rows.tolist()]
    return rows, np.array(values, np.float64).reshape(-1, len(data.label_names))


def _find_issues(marked: NDArray[np.uint8], probability: NDArray[np.float64]) -> NDArray[np.int64]:
    """Positions of the people whose mark is probably wrong; none for a label that nobody or everybody has."""
    from cleanlab.filter import find_label_issues

    if not 0 < marked.sum() < len(marked):
        return np.zeros(0, np.int64)
    both = np.stack([1 - probability, probability], axis=1)
    found = find_label_issues(marked.astype(int), both, return_indices_ranked_by="self_confidence", n_jobs=1)
    return np.asarray(found, np.int64)
