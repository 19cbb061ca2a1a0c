"""The checkpoint file from which an interrupted training resumes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from emoface.storage.files import atomic_path


def save_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Writes the state of a training in one step.

    Args:
        path: Path of the file.
        state: State dicts, numbers, strings, and lists and dictionaries of them.
    """
    # given a stream, torch passes on the error of a full disk, which it swallows if it opens the file itself
    with atomic_path(path) as temporary, temporary.open("wb") as stream:
        torch.save(state, stream)


def load_checkpoint(path: Path, device: torch.device | str = "cpu") -> dict[str, Any]:
    """Reads a state that ``save_checkpoint`` wrote, without executing code from the file.

    Args:
        path: Path of the file.
        device: Device to load the tensors to.
    """
    state: dict[str, Any] = torch.load(path, map_location=device, weights_only=True)
    return state
