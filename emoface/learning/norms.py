"""The running statistics of BatchNorm layers that start untrained, over the first steps of a training."""

from __future__ import annotations

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm


class NormWarmup:
    """Makes the running statistics of untrained BatchNorm layers the plain average of their first batches.

    PyTorch starts the running statistics at mean 0 and variance 1 and moves them by a tenth per step, so that after n
    steps 0.9^n of these invented values are left: a third after 10 steps, 1 % after 44. In a deep network of small
    activations each layer then divides by far too large a variance, and in evaluation the output is the same for every
    input, while in training, which uses the batch's own statistics, the loss falls. With a momentum of 1 / n at the
    n-th update, until that is below the layer's own momentum, nothing of the initial values is left from the first
    update on. Layers with statistics of pretrained weights are left alone. The statistics after many steps are the same
    with and without it.

    Args:
        model: The network with its initial weights, before any step and before a state is resumed.
    """

    def __init__(self, model: nn.Module) -> None:
        self._momentum_of = {
            part: float(part.momentum)
            for part in model.modules()
            if isinstance(part, _BatchNorm) and part.momentum is not None and _is_untrained(part)
        }

    @property
    def is_finished(self) -> bool:
        """Whether all layers have their own momentum, so that ``set_momentum`` changes nothing any more."""
        return not self._momentum_of

    def set_momentum(self) -> None:
        """Sets the momentum of the next update; to be called before each training step."""
        for norm, momentum in list(self._momentum_of.items()):
            assert norm.num_batches_tracked is not None
            norm.momentum = max(momentum, 1 / (int(norm.num_batches_tracked) + 1))
            if norm.momentum == momentum:
                del self._momentum_of[norm]


def _is_untrained(norm: _BatchNorm) -> bool:
    """Whether the running statistics are the initial ones, mean 0 and variance 1."""
    mean, variance = norm.running_mean, norm.running_var
    return mean is not None and variance is not None and not bool(mean.any()) and bool((variance == 1).all())
