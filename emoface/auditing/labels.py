"""Label statistics of all people and of those with a face."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from emoface.auditing.data_set import DataSet
from emoface.labels.statistics import (
    co_occurrence,
    imbalance_ratio_cv,
    imbalance_ratios,
    label_cardinality,
    label_counts,
    label_density,
    mean_imbalance_ratio,
    scumble,
)
from emoface.storage.records import to_json_number, to_json_numbers


def compute_before_and_after(data: DataSet, rows: NDArray[np.int64]) -> dict[str, Any]:
    """Label statistics of all people in some rows, and of those of them with a face."""
    kept = None if data.has_face is None else rows[data.has_face[rows]]
    return {
        "before": compute_label_statistics(data.indicator[rows], data.label_names),
        "after": None if kept is None else compute_label_statistics(data.indicator[kept], data.label_names),
    }


def compute_label_statistics(indicator: NDArray[np.uint8], label_names: tuple[str, ...]) -> dict[str, Any]:
    """Computes the label statistics of (n, n_labels) people as they are in ``audit.json``."""
    counts = label_counts(indicator)
    shares = counts / len(indicator) if len(indicator) else np.full(len(counts), np.nan)
    return {
        "people": len(indicator),
        "people_without_labels": int((~indicator.any(axis=1)).sum()),
        "label_counts": to_json_numbers(label_names, counts),
        "label_shares": to_json_numbers(label_names, shares),
        "label_cardinality": to_json_number(label_cardinality(indicator)),
        "label_density": to_json_number(label_density(indicator)),
        "imbalance_ratios": to_json_numbers(label_names, imbalance_ratios(indicator)),
        "mean_imbalance_ratio": to_json_number(mean_imbalance_ratio(indicator)),
        "imbalance_ratio_cv": to_json_number(imbalance_ratio_cv(indicator)),
        "scumble": to_json_number(scumble(indicator)),
        "co_occurrence": co_occurrence(indicator).tolist(),
    }
