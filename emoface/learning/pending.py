"""Reading of values from a GPU without stopping it."""

from __future__ import annotations

import torch
from torch import Tensor


class PendingValues:
    """Values that are copied from a device to the CPU while the device computes on.

    ``Tensor.item`` waits until the device has finished all work that was given to it, and meanwhile gives it no more.
    If the values of a step are read after the next step has been started, the device always has work.

    Args:
        values: (n,) on any device; their present values are copied.

    Example:
        >>> pending = PendingValues(torch.tensor([0.5, 2.0]))
        >>> pending.read()
        [0.5, 2.0]
    """

    def __init__(self, values: Tensor) -> None:
        is_on_gpu = values.device.type == "cuda"
        self._copied = torch.empty(values.shape, dtype=values.dtype, pin_memory=is_on_gpu)
        self._copied.copy_(values.detach(), non_blocking=True)
        self._done = torch.cuda.current_stream(values.device).record_event() if is_on_gpu else None

    def read(self) -> list[float]:
        """Returns the values; waits until they are copied."""
        if self._done is not None:
            self._done.synchronize()
        values: list[float] = self._copied.tolist()
        return values
