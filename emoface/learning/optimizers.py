"""Optimizers over all parameters of a network: parameter groups with weight decay, construction, learning rate."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import nn


def parameter_groups(model: nn.Module, weight_decay: float, decays_norms: bool = False) -> list[dict[str, Any]]:
    """Splits the parameters into those with weight decay and those without.

    Weights of convolutions and fully connected layers always decay.

    Args:
        model: The network.
        weight_decay: Weight decay of the parameters that decay.
        decays_norms: Whether biases and normalisation parameters, which have one dimension, decay too.

    Returns:
        One or two non-empty groups for a torch optimizer.
    """
    parameters = list(model.parameters())
    decay = [value for value in parameters if decays_norms or value.ndim > 1]
    keep = [value for value in parameters if not (decays_norms or value.ndim > 1)]
    groups = [{"params": decay, "weight_decay": weight_decay}, {"params": keep, "weight_decay": 0.0}]
    return [group for group in groups if group["params"]]


def build_optimizer(
    model: nn.Module,
    kind: Literal["sgd", "adam", "adamw"] = "sgd",
    *,
    learning_rate: float,
    weight_decay: float,
    momentum: float = 0.9,
    nesterov: bool = False,
    decays_norms: bool = False,
) -> torch.optim.Optimizer:
    """Builds an optimizer over all parameters of a network.

    Args:
        model: The network.
        kind: Kind of optimizer. ``adam`` adds the weight decay to the gradient, ``adamw`` shrinks the weights by it.
        learning_rate: Initial learning rate; see ``set_learning_rate``.
        weight_decay: See ``parameter_groups``.
        momentum: SGD momentum.
        nesterov: Whether SGD uses Nesterov momentum.
        decays_norms: See ``parameter_groups``.
    """
    groups = parameter_groups(model, weight_decay, decays_norms)
    if kind == "sgd":
        return torch.optim.SGD(groups, lr=learning_rate, momentum=momentum, nesterov=nesterov)
    return (torch.optim.Adam if kind == "adam" else torch.optim.AdamW)(groups, lr=learning_rate)


def set_learning_rate(optimizer: torch.optim.Optimizer, learning_rate: float) -> None:
    """Sets the learning rate of the next steps, for all parameters."""
    for group in optimizer.param_groups:
        group["lr"] = learning_rate
