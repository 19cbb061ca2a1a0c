"""The weights of a network as a safetensors file."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save

from emoface.errors import WeightsError
from emoface.storage.files import write_bytes


def write_weights(path: Path, model: torch.nn.Module) -> None:
    """Writes a network's weights as safetensors, in one step."""
    write_bytes(path, save({name: value.detach().cpu().contiguous() for name, value in model.state_dict().items()}))


def read_weights(path: Path) -> dict[str, torch.Tensor]:
    """Reads weights that ``write_weights`` wrote.

    Raises:
        WeightsError: The file is damaged.
    """
    try:
        return load(path.read_bytes())
    except SafetensorError as error:
        raise WeightsError(f"{path}: not a readable safetensors file ({error}); train again") from error


def load_weights(model: torch.nn.Module, weights: dict[str, torch.Tensor], path: Path) -> None:
    """Loads weights into a network that must have the same names and shapes.

    Raises:
        WeightsError: The weights belong to another network.
    """
    try:
        model.load_state_dict(weights)
    except (RuntimeError, TypeError, AttributeError) as error:  # the latter two: not tensors by name
        first = str(error).splitlines()[1].strip() if "\n" in str(error) else str(error)
        raise WeightsError(f"{path}: the weights do not fit the network ({first}); train again") from error
