"""The file that an interrupted training goes on from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from emoface.storage.files import atomic_path


def save_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Writes the state of a training in one step.

    Args:
        path: The file.
        state: State dicts, numbers, text, and lists and dictionaries of them.
    """
    with atomic_path(path) as temporary:
        torch.save(state, temporary)


def load_checkpoint(path: Path, device: torch.device | str = "cpu") -> dict[str, Any]:
    """Reads what ``save_checkpoint`` wrote; nothing that the file names is run.

    Args:
        path: The file.
        device: Where its tensors go.
    """
    state: dict[str, Any] = torch.load(path, map_location=device, weights_only=True)
    return state
