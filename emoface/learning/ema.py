"""An exponential moving average of a network's weights, and how its decay grows over the first steps."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Generic, TypeVar

import torch
from torch import nn

Network = TypeVar("Network", bound=nn.Module)
Decay = Callable[[int], float]
"""The decay of the n-th update, n from 1: the weight of the previous average."""


class AveragedWeights(Generic[Network]):
    """An exponential moving average of a network, its BatchNorm statistics included.

    ``torch.optim.swa_utils.AveragedModel`` is not used for two reasons. Its first update replaces the average by the
    network, while here the initial weights contribute too, with a decay that grows. And its state dict has other names
    than the network, so that its checkpoints could not be loaded into the network.

    Attributes:
        model: The averaged network, in evaluation mode.
        n_updates: Number of updates so far.
    """

    def __init__(self, model: Network, decay: Decay) -> None:
        self.model: Network = copy.deepcopy(model).eval().requires_grad_(False)
        self.n_updates = 0
        self._decay = decay

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Moves the average toward a network; integers, such as BatchNorm's counter of batches, are copied.

        Args:
            model: The network after a step.
        """
        self.n_updates += 1
        averages: list[torch.Tensor] = []
        currents: list[torch.Tensor] = []
        for average, current in zip(self.model.state_dict().values(), model.state_dict().values(), strict=True):
            if average.is_floating_point():
                averages.append(average)
                currents.append(current)
            else:
                average.copy_(current)
        torch._foreach_lerp_(averages, currents, 1 - self._decay(self.n_updates))


def ratio_warmup(decay: float) -> Decay:
    """Builds a decay of n / (9 + n), at most ``decay``, which is 0.1 at the first update; for trainings of few steps.

    Example:
        >>> [round(ratio_warmup(0.9)(n), 3) for n in (1, 2, 1000)]
        [0.1, 0.182, 0.9]

    Source: TensorFlow's ``ExponentialMovingAverage`` with ``num_updates``.
    """
    return lambda n: min(decay, n / (9 + n))


def exponential_warmup(decay: float, n_steps: float = 500) -> Decay:
    """Builds a decay of ``decay`` * (1 - exp(-n / n_steps)), for trainings of many steps.

    Example:
        >>> [round(exponential_warmup(0.9)(n), 3) for n in (1, 500, 5000)]
        [0.002, 0.569, 0.9]

    Source: ``ModelEMA`` of ultralytics/yolov5, which takes 2000 steps.
    """
    return lambda n: decay * (1 - math.exp(-n / n_steps))
