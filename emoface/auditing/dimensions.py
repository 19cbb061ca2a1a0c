"""Valence, arousal and dominance: how they are distributed, by split and with or without a face."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from emoface.auditing.data_set import DataSet
from emoface.labels.association import LEVEL
from emoface.schema import DIMENSIONS
from emoface.storage.records import to_json_number

EVERYBODY, WITH_FACE, WITHOUT_FACE = "everybody", "with a face", "without a face"
_LOWEST, _HIGHEST = 1, 10


def audit_dimensions(data: DataSet) -> dict[str, Any]:
    """Describes each dimension for everybody, for each split, and for people with and without a face.

    The mean of several annotators is no whole number: a histogram's bin k has the values from k - 0.5 to below k + 0.5.
    """
    groups: dict[str, NDArray[np.int64]] = {EVERYBODY: np.arange(data.people.num_rows), **data.rows_of}
    if data.has_face is not None:
        groups |= {WITH_FACE: np.flatnonzero(data.has_face), WITHOUT_FACE: np.flatnonzero(~data.has_face)}
    return {name: _audit_dimension(_read_values(data, name), groups) for name in DIMENSIONS}


def _read_values(data: DataSet, name: str) -> NDArray[np.float64]:
    return np.asarray(data.people[name].to_numpy(zero_copy_only=False), np.float64)


def _audit_dimension(values: NDArray[np.float64], groups: dict[str, NDArray[np.int64]]) -> dict[str, Any]:
    known = {name: values[rows][~np.isnan(values[rows])] for name, rows in groups.items()}
    return {
        "groups": {name: _describe(kept, len(groups[name])) for name, kept in known.items()},
        "face_difference": _compare(known[WITH_FACE], known[WITHOUT_FACE]) if WITH_FACE in known else None,
    }


def _describe(values: NDArray[np.float64], n_people: int) -> dict[str, Any]:
    bins = np.clip(np.floor(values + 0.5), _LOWEST, _HIGHEST).astype(np.int64) - _LOWEST
    return {
        "known": len(values),
        "unknown": n_people - len(values),
        "mean": to_json_number(values.mean()) if len(values) else None,
        "standard_deviation": to_json_number(values.std(ddof=1)) if len(values) > 1 else None,
        "histogram": np.bincount(bins, minlength=_HIGHEST - _LOWEST + 1).tolist(),
    }


def _compare(with_face: NDArray[np.float64], without: NDArray[np.float64]) -> dict[str, Any] | None:
    """The difference of the means, with its interval by Welch's t-test; None where it cannot be computed."""
    from scipy.stats import ttest_ind

    if min(len(with_face), len(without)) < 2 or with_face.std() + without.std() == 0:
        return None
    result = ttest_ind(with_face, without, equal_var=False)
    interval = result.confidence_interval(LEVEL)
    return {
        "difference": to_json_number(with_face.mean() - without.mean()),
        "interval": [to_json_number(interval.low), to_json_number(interval.high)],
        "p_value": to_json_number(result.pvalue),
    }
