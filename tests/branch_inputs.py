"""Random inputs of models with inputs beside the photo streams, at small sizes, and their training on few people."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from emoface.mter import attention_branch, resnet
from emoface.mter.base import Mter
from emoface.mter.cost import empty_inputs

NARROW = (8, 16, 32, 64)


def sides(side: int = 32) -> dict[str, int]:
    return dict.fromkeys(("face", "body", "context"), side)


def draw_inputs(model: Mter, n_people: int, side: int = 32) -> dict[str, Tensor]:
    """Draws inputs of people who lack nothing: normal values, and values of 0-1 for arrays."""
    generator = torch.Generator().manual_seed(0)
    inputs = empty_inputs(model, n_people, sides(side))
    for name, x in inputs.items():
        if name in model.streams:
            inputs[name] = torch.randn(x.shape, generator=generator)
        elif x.is_floating_point():
            inputs[name] = torch.rand(x.shape, generator=generator)
    return inputs


def everybody(n_people: int) -> Tensor:
    return torch.ones(n_people, dtype=torch.bool)


def wake(model: nn.Module) -> None:
    """Sets the residual branches, which start at 0 and keep gradients from what is in them, to 1."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d) and not bool(module.weight.any()):
            nn.init.ones_(module.weight)


def narrow_resnets(patch: pytest.MonkeyPatch) -> None:
    """Gives every ResNet18 that is built an eighth of its channels, to train it in seconds."""
    patch.setattr(resnet, "WIDTHS", NARROW)
    patch.setattr(attention_branch, "WIDTHS", NARROW)


def n_parameters(module: nn.Module) -> int:
    return sum(one.numel() for one in module.parameters())
