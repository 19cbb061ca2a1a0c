"""Who has a face: numbers by reason, source and split, sizes, scores and assignment margins."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from emoface.auditing.data_set import DataSet, source_splits
from emoface.schema import EMPTY_FACE_REASONS, FACE_FOUND
from emoface.storage.records import to_json_number
from emoface.storage.tables import vectors_to_array

QUANTILES: tuple[float, ...] = (0, 0.05, 0.25, 0.5, 0.75, 0.95, 1)
UNCERTAIN_MARGIN = 1.0
"""Assignments with a smaller margin count as uncertain."""

_N_UNCERTAIN = 24
_MARGIN_EDGES: tuple[float, ...] = (0, 1, 2, 3, 4, 5, 6)
"""Bins of the histogram of assignment margins; none is above ``HeadPrior.max_cost``."""


def audit_faces(data: DataSet) -> dict[str, Any] | None:
    """Numbers of people with and without a face, by reason, source and split; quantiles of face size and score."""
    if data.faces is None:
        return None
    statuses = np.array(data.faces["face_status"].to_pylist(), dtype=object)
    sources = np.array(data.people["source"].to_pylist(), dtype=object)
    all_rows = np.arange(len(statuses))
    box_wh = np.diff(vectors_to_array(data.faces["face_bbox"], 4).reshape(-1, 2, 2), axis=1)[:, 0]
    conf = data.faces["conf"].to_numpy(zero_copy_only=False).astype(np.float64)
    return {
        **_count_empties(statuses, all_rows),
        "by_source": {name: _count_empties(statuses, np.flatnonzero(sources == name)) for name in data.sources},
        "by_source_split": {name: _count_empties(statuses, rows) for name, rows in source_splits(data.people).items()},
        "by_split": {name: _count_empties(statuses, rows) for name, rows in data.rows_of.items()},
        "shorter_side_quantiles": quantiles(box_wh.min(axis=1)),
        "shorter_side_by_label": _describe_sides(box_wh.min(axis=1), data),
        "conf_quantiles": quantiles(conf),
        "assignment_margin": _audit_margins(data.faces["assignment_margin"], data.first_row),
    }


def _audit_margins(column: pa.ChunkedArray, first_row: NDArray[np.int64]) -> dict[str, Any]:
    """Distribution of the assignment margins, and the people whose assignment is least certain, each once."""
    margins = column.to_numpy(zero_copy_only=False).astype(np.float64)
    n_known = int((~np.isnan(margins)).sum())
    n_uncertain = int((margins < UNCERTAIN_MARGIN).sum())
    counts, edges = np.histogram(margins[~np.isnan(margins)], _MARGIN_EDGES)
    is_once = (first_row == np.arange(len(margins))) & ~np.isnan(margins)
    ranked = np.flatnonzero(is_once)[np.argsort(margins[is_once], kind="stable")][:_N_UNCERTAIN]
    return {
        "quantiles": quantiles(margins),
        "uncertain_below": UNCERTAIN_MARGIN,
        "uncertain": n_uncertain,
        "uncertain_share": to_json_number(n_uncertain / n_known) if n_known else None,
        "histogram": [
            {"from": to_json_number(low), "to": to_json_number(high), "people": int(n)}
            for low, high, n in zip(edges[:-1], edges[1:], counts, strict=True)
        ],
        "least_certain": [{"index": row, "margin": to_json_number(margins[row])} for row in ranked.tolist()],
    }


def _count_empties(statuses: NDArray[np.object_], rows: NDArray[np.int64]) -> dict[str, Any]:
    by_status = Counter(statuses[rows].tolist())
    found = by_status[FACE_FOUND]
    return {
        "people": len(rows),
        "found": found,
        "empty": len(rows) - found,
        "empty_share": to_json_number((len(rows) - found) / len(rows)) if len(rows) else None,
        "by_reason": {reason: by_status[reason] for reason in EMPTY_FACE_REASONS},
    }


def _describe_sides(sides: NDArray[np.float32], data: DataSet) -> dict[str, dict[str, Any]]:
    """Quartiles of the shorter side of the faces of each label's people, pixels."""
    described = {}
    for name, column in zip(data.label_names, data.indicator.T, strict=True):
        known = sides[(column > 0) & ~np.isnan(sides)]
        quartiles = np.quantile(known, (0.25, 0.5, 0.75)) if len(known) else (None, None, None)
        low, median, high = map(to_json_number, quartiles)
        described[name] = {"faces": len(known), "lower_quartile": low, "median": median, "upper_quartile": high}
    return described


def quantiles(values: NDArray[Any]) -> dict[str, float | None]:
    """The quantiles ``QUANTILES`` of the values that are no nan, by their share."""
    known = values[~np.isnan(values)]
    numbers = np.quantile(known, QUANTILES) if len(known) else np.full(len(QUANTILES), np.nan)
    return {f"{share:g}": to_json_number(number) for share, number in zip(QUANTILES, numbers, strict=True)}
