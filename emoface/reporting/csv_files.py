"""CSV text that is the same on every operating system."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from typing import Any


def csv_text(columns: Sequence[str], rows: Iterable[Iterable[Any]]) -> str:
    r"""Formats a table as CSV; lines end with a line feed.

    Args:
        columns: Names of the columns, the first line.
        rows: One value per column; None becomes an empty field.

    Example:
        >>> csv_text(["label", "people"], [["Anger", 2], ["Doubt/Confusion, both", None]])
        'label,people\nAnger,2\n"Doubt/Confusion, both",\n'
    """
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(rows)
    return stream.getvalue()


def to_percent(share: float | None) -> float | None:
    """Converts a share (0-1) to percent, rounded to two decimals; None stays None.

    Example:
        >>> to_percent(0.123456)
        12.35
    """
    return None if share is None else round(100 * share, 2)
