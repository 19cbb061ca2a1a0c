"""``labels.txt``: the label names of a data set, one a line."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from emoface.emotic.corrections import plain_name
from emoface.errors import SettingsError
from emoface.schema import FEWEST_LABELS
from emoface.storage.files import read_text

MOST_LABELS = 1000
"""More are taken to be a file of another kind."""


def read_data_labels(path: Path) -> tuple[str, ...]:
    """Reads the names of a data set's labels; empty lines do not count.

    Raises:
        SettingsError: The file is missing, has fewer than two names, or has one twice, be it in another spelling.
    """
    names = tuple(line.strip() for line in read_text(path, SettingsError).splitlines() if line.strip())
    if not FEWEST_LABELS <= len(names) <= MOST_LABELS:
        raise SettingsError(f"{path}: {len(names)} labels, expected {FEWEST_LABELS} to {MOST_LABELS}, one a line")
    if nameless := [name for name in names if not plain_name(name)]:
        raise SettingsError(f"{path}: the label '{nameless[0]}' has no letter and no digit; give it a name")
    twice = [name for name, n in Counter(map(plain_name, names)).items() if n > 1]
    if twice:
        same = [name for name in names if plain_name(name) == twice[0]]
        raise SettingsError(f"{path}: '{same[0]}' and '{same[1]}' are the same label; expected each once")
    return names
