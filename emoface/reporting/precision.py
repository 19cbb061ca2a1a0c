"""Mean average precision in the form in which several jobs write it to their JSON files."""

from __future__ import annotations

from typing import Any

from emoface.metrics.evaluation import INTERVAL_LEVEL, PrecisionMetrics
from emoface.storage.records import to_json_number


def precision_to_json(measures: PrecisionMetrics) -> dict[str, Any]:
    """Converts mAP, its interval, the number of its labels, their chance level and the lift; undefined is null."""
    return {
        "mean_average_precision": to_json_number(measures.mean_average_precision),
        "interval": [to_json_number(end) for end in measures.mean_interval],
        "labels_defined": measures.labels_defined,
        "mean_prevalence": to_json_number(measures.mean_prevalence),
        "lift": to_json_number(measures.mean_lift),
    }


def describe_bootstrap(n_resamples: int, seed: int) -> dict[str, Any]:
    """Describes how the intervals were computed, as JSON."""
    return {"draws": n_resamples, "seed": seed, "level": INTERVAL_LEVEL, "interval": "basic", "resampled": "photos"}
