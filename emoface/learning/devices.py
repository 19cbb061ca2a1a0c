"""Selection of the device that a network runs on."""

from __future__ import annotations

import torch

from emoface.errors import SettingsError


def pick_device(name: str | None = "auto") -> torch.device:
    """Selects a device by name.

    Args:
        name: ``auto`` or None for CUDA where there is one, else the CPU; ``cpu``; ``cuda``; ``cuda:1`` for the second
            of several GPUs.

    Raises:
        SettingsError: The name is unknown, or there is no such device.

    Example:
        >>> pick_device("cpu")
        device(type='cpu')
    """
    if name is None or name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise _unknown(name) from error
    if device.type not in ("cpu", "cuda"):
        raise _unknown(name)
    n_gpus = torch.cuda.device_count()
    if device.type == "cuda" and (device.index or 0) >= n_gpus:
        raise SettingsError(f"device is '{name}', but torch sees {n_gpus} CUDA devices; use another, or cpu")
    return device


def _unknown(name: str) -> SettingsError:
    return SettingsError(f"device is '{name}', expected cpu, cuda or cuda:N")
