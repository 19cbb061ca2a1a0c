"""Average precision as the JSON files of several jobs give it."""

from __future__ import annotations

from typing import Any

from emoface.metrics.evaluation import PrecisionMetrics
from emoface.storage.records import to_json_number


def precision_to_json(measures: PrecisionMetrics) -> dict[str, Any]:
    """The mean average precision, its interval, and the number of labels it is the mean of; null where undefined."""
    return {
        "mean_average_precision": to_json_number(measures.mean_average_precision),
        "interval": [to_json_number(end) for end in measures.mean_interval],
        "labels_defined": measures.labels_defined,
    }
