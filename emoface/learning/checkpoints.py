"""Files of torch: the checkpoint from which a training resumes, and reading any of them as tensors only."""

from __future__ import annotations

import pickle
import re
import struct
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from emoface.errors import WeightsError
from emoface.storage.files import atomic_path

_DAMAGE = (
    *(RuntimeError, EOFError, ValueError, LookupError, TypeError, AttributeError, OSError),
    *(MemoryError, OverflowError, AssertionError, struct.error),
)
"""The errors that torch raises on a damaged file."""


def save_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Writes the state of a training in one step.

    Args:
        path: Path of the file.
        state: State dicts, numbers, strings, and lists and dictionaries of them.
    """
    # given a stream, torch passes on the error of a full disk, which it swallows if it opens the file itself
    with atomic_path(path) as temporary, temporary.open("wb") as stream:
        torch.save(state, stream)


def load_checkpoint(path: Path, keys: Sequence[str], device: torch.device | str = "cpu") -> dict[str, Any]:
    """Reads a state that ``save_checkpoint`` wrote, without executing code from the file.

    Args:
        path: Path of the file.
        keys: The entries that the state must have.
        device: Device to load the tensors to.

    Raises:
        WeightsError: The file is missing or damaged, contains anything but tensors and plain values, or lacks an entry.
    """
    remedy = "remove the file to train again from the first epoch"
    state = read_tensors(path, remedy, device)
    if not isinstance(state, dict) or not state.keys() >= set(keys):
        found = ", ".join(sorted(key for key in state if isinstance(key, str))) if isinstance(state, dict) else ""
        expected = ", ".join(keys)
        raise WeightsError(
            f"{path}: not the state of a training: expected {expected}, found {found[:200] or 'no entries'}; {remedy}"
        )
    return state


@contextmanager
def loading_state(path: Path) -> Iterator[None]:
    """Makes errors of a state that fits neither network nor optimizer name its file.

    Args:
        path: The file of the state that the block loads.

    Raises:
        WeightsError: The block raised an error of a missing entry, or of other names, shapes or types.
    """
    try:
        yield
    except (RuntimeError, ValueError, LookupError, TypeError, AttributeError) as error:
        if isinstance(error, torch.OutOfMemoryError):
            raise
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        reason = " ".join(lines[:2]) or type(error).__name__
        raise WeightsError(
            f"{path}: not the state of this training ({type(error).__name__}: {reason}); remove the file to train "
            "again from the first epoch"
        ) from error


def read_tensors(path: Path, remedy: str, device: torch.device | str = "cpu") -> Any:
    """Reads a file of torch that contains only tensors and plain values; no code in it is executed.

    Args:
        path: Path of the file.
        remedy: What the user can do about a damaged file, as the end of an error message.
        device: Device to load the tensors to.

    Raises:
        WeightsError: The file is missing or damaged, or contains anything else.
    """
    try:
        return torch.load(path, map_location=device, weights_only=True)
    except FileNotFoundError as error:
        raise WeightsError(f"{path}: no such file; {remedy}") from error
    except pickle.UnpicklingError as error:
        raise WeightsError(
            f"{path}: not a file of plain weights ({_first_line(error)}); nothing of it was run; {remedy}"
        ) from error
    except _DAMAGE as error:
        raise WeightsError(f"{path}: not a readable torch file ({_first_line(error)}); {remedy}") from error


def _first_line(error: Exception) -> str:
    if named := re.search(r"Unsupported global: GLOBAL (\S+)", str(error)):
        return f"it asks for {named[1][:100]}"
    return (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")[:200] or type(error).__name__
