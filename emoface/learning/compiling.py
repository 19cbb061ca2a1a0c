"""The check whether ``torch.compile`` works on this machine."""

from __future__ import annotations

import torch
from torch import Tensor

from emoface.errors import SettingsError


def check_compiler(device: torch.device) -> None:
    """Compiles and runs a small function, so that a missing compiler is known before a training begins.

    Args:
        device: The device that the compiled code would run on.

    Raises:
        SettingsError: Nothing can be compiled; for the CPU it needs a C++ compiler, for a GPU Triton and a C compiler.
    """

    def halve(x: Tensor) -> Tensor:
        return x / 2

    try:
        with torch.no_grad():
            torch.compile(halve)(torch.ones(2, device=device))
    except (RuntimeError, OSError) as error:  # torch's own errors are RuntimeErrors, whatever the cause
        reason = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
        needed = "a C++ compiler such as g++" if device.type == "cpu" else "Triton and a C compiler such as gcc"
        raise SettingsError(
            f"--compile: torch.compile does not work on this machine's {device.type}: {reason}; install {needed}, or "
            "train without --compile"
        ) from error
