"""Cards: small TOML files of facts and addresses that are part of the repository and of the wheel."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

from emoface.errors import SettingsError

_PACKAGE_DIR = Path(__file__).parents[1]


def manifests_dir() -> Path:
    """The folder of cards: inside the package if it is installed, beside the package in a checkout."""
    return _data_dir("manifests")


def pipelines_dir() -> Path:
    """The folder of pipeline files that come with emoface."""
    return _data_dir("pipelines")


def read_card(name: str) -> dict[str, Any]:
    """Reads a card.

    Args:
        name: Name of the file without ``.toml``: ``emotic``, ``published``, ``thesis``, ``thesis_layers``, ``weights``.

    Example:
        >>> read_card("emotic")["published"]["people"]
        34320
    """
    return tomllib.loads((manifests_dir() / f"{name}.toml").read_text(encoding="utf-8"))


def _data_dir(name: str) -> Path:
    for folder in (_PACKAGE_DIR / name, _PACKAGE_DIR.parent / name):
        if folder.is_dir():
            return folder
    raise SettingsError(f"{_PACKAGE_DIR / name}: no such folder; install emoface again, its files are incomplete")
