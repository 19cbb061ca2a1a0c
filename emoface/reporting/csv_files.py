"""CSV text, the same on every system."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from typing import Any


def csv_text(columns: Sequence[str], rows: Iterable[Iterable[Any]]) -> str:
    r"""A table as CSV, lines ended by a line feed.

    Args:
        columns: Its head.
        rows: One value per column; None is an empty field.

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
    """A share of 0-1 in percent with two digits, as tables give it; None stays None.

    Example:
        >>> to_percent(0.123456)
        12.35
    """
    return None if share is None else round(100 * share, 2)
