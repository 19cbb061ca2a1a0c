"""People and labels of EMOTIC's own splits, in the rows that circulate as CSV; the card ``emotic`` has the numbers."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from emoface.schema import CATEGORIES
from emoface.storage.cards import read_card
from emoface.vision.arrays import Float64Array


def emotic_people(split: str) -> int:
    """The number of people of one of EMOTIC's own splits.

    Args:
        split: ``train``, ``val`` or ``test``.

    Example:
        >>> emotic_people("test")
        7203
    """
    return int(_rows()[split])


def emotic_label_counts(split: str) -> NDArray[np.int64]:
    """The number of people with each label in one of EMOTIC's own splits, (26,).

    Args:
        split: ``train``, ``val`` or ``test``.
    """
    counts = _rows()["label_counts"][split]
    return np.array([counts[name] for name in CATEGORIES], np.int64)


def emotic_prevalence(split: str) -> Float64Array:
    """The prevalence of each label in one of EMOTIC's own splits; its mean is the mAP of guessing.

    Args:
        split: ``train``, ``val`` or ``test``.

    Returns:
        (26,), 0-1.

    Example:
        >>> [round(100 * float(emotic_prevalence(split).mean()), 2) for split in ("train", "val", "test")]
        [7.52, 23.67, 16.98]
    """
    return emotic_label_counts(split) / emotic_people(split)


def emotic_val_in_train() -> int:
    """The number of people of EMOTIC's val who are people of its train too."""
    return int(_rows()["val_in_train"])


def _rows() -> dict[str, Any]:
    rows: dict[str, Any] = read_card("emotic")["circulating_rows"]
    return rows
