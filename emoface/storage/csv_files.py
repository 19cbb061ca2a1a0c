"""CSV text that is the same on every operating system, and in which no text of others is a formula."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Sequence
from typing import Any

_FORMULA = re.compile(r"'*[=+\-@\t\r\n\uff1d\uff0b\uff0d\uff20]")
"""Start of a text that spreadsheets take for a formula; full-width signs count for some of them."""
_NUMBERS = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?(?: [+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)*")


def csv_text(columns: Sequence[str], rows: Iterable[Iterable[Any]], separator: str = ",") -> str:
    r"""Formats a table as CSV; lines end with a line feed, and texts are those of ``defuse``.

    Args:
        columns: Names of the columns, the first line.
        rows: One value per column; None becomes an empty field.
        separator: What separates the fields.

    Example:
        >>> print(csv_text(["label", "people"], [["Anger", 2], ["Doubt/Confusion, both", None], ["=1+1", -1]]), end="")
        label,people
        Anger,2
        "Doubt/Confusion, both",
        '=1+1,-1
    """
    stream = io.StringIO()
    usual = csv.writer(stream, delimiter=separator, lineterminator="\n")
    quoting = csv.writer(stream, delimiter=separator, lineterminator="\n", quoting=csv.QUOTE_ALL)
    for row in (columns, *rows):
        values = [defuse(value) if isinstance(value, str) else value for value in row]
        has_return = any(isinstance(value, str) and "\r" in value for value in values)  # which csv does not quote
        (quoting if has_return else usual).writerow(values)
    return stream.getvalue()


def defuse(text: str) -> str:
    """Puts an apostrophe before a text that a spreadsheet would run as a formula; numbers are left as they are.

    A text that already begins with apostrophes and such a sign gets another one, so that ``restore`` gives every text
    back. Source: OWASP, CSV injection.

    Example:
        >>> [defuse(text) for text in ("=1+1", "'=1+1", "-5 -6.5 700", "-a.jpg", "it's")]
        ["'=1+1", "''=1+1", '-5 -6.5 700', "'-a.jpg", "it's"]
    """
    return f"'{text}" if _FORMULA.match(text) and not _NUMBERS.fullmatch(text) else text


def restore(text: str) -> str:
    """Takes the apostrophe of ``defuse`` away again; other texts are left as they are.

    Example:
        >>> [restore(text) for text in ("'=1+1", "''=1+1", "-5 -6.5 700", "=1+1", "'it's'")]
        ['=1+1', "'=1+1", '-5 -6.5 700', '=1+1', "'it's'"]
    """
    return text[1:] if text.startswith("'") and _FORMULA.match(text) else text
