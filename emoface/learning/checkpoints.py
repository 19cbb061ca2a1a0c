"""The checkpoint file from which an interrupted training resumes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch

from emoface.errors import WeightsError
from emoface.storage.files import atomic_path

_WRONG_STATE = (
    *(UnpicklingError, RuntimeError, LookupError, TypeError, ValueError, AttributeError, EOFError),
    OSError,  # torch reports a file that was cut off as an invalid argument of the system, without its name
)


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

    Raises:
        WeightsError: The file is damaged, or holds more than tensors, numbers, texts, lists and dictionaries.
    """
    with restoring(path):
        state: dict[str, Any] = torch.load(path, map_location=device, weights_only=True)
    return state


@contextmanager
def restoring(path: Path) -> Iterator[None]:
    """Names the file if the block, which sets the state of a training, finds a value missing or of another type.

    Raises:
        WeightsError: The block raised an error of a missing key, a wrong type or another shape.
    """
    try:
        yield
    except _WRONG_STATE as error:
        if isinstance(error, torch.OutOfMemoryError) or getattr(error, "filename", None) is not None:
            raise
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        reason = " ".join(lines[:2]) or type(error).__name__
        raise WeightsError(
            f"{path}: not the state of this training ({type(error).__name__}: {reason}); remove the file to train "
            "again from the first epoch"
        ) from error
