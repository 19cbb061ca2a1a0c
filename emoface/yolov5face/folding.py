"""Folds the BatchNorms of a torch network into its convolutions, the form of inference."""

from __future__ import annotations

import copy
from dataclasses import dataclass

import torch
from torch import nn

from emoface.yolov5face.architectures import find_architecture
from emoface.yolov5face.network import YoloV5Face
from emoface.yolov5face.network_weights import NetworkWeights, fold_convs


@dataclass(frozen=True)
class ConvSlot:
    """A convolution of a network and the BatchNorm that follows it, if any.

    Attributes:
        name: Name of the convolution in the network.
        conv: The convolution.
        norm_name: Name of the BatchNorm in the network; empty where there is none.
    """

    name: str
    conv: nn.Conv2d
    norm_name: str


def conv_slots(network: YoloV5Face) -> list[ConvSlot]:
    """Lists the convolutions of a network in the order in which they run."""
    leaves = [(n, m) for n, m in network.named_modules() if isinstance(m, nn.Conv2d | nn.BatchNorm2d)]
    return [
        ConvSlot(name, module, next_name if isinstance(following, nn.BatchNorm2d) else "")
        for (name, module), (next_name, following) in zip(leaves, [*leaves[1:], ("", None)], strict=True)
        if isinstance(module, nn.Conv2d)
    ]


def network_weights(network: YoloV5Face) -> NetworkWeights:
    """Copies the weights of a network, on any device and of any type, to numpy."""
    state = {
        name: value.detach().float().cpu().numpy()
        for name, value in network.state_dict().items()
        if value.is_floating_point()
    }
    return NetworkWeights(find_architecture(network.name), state)


@torch.no_grad()
def fold_batch_norms(network: YoloV5Face) -> YoloV5Face:
    """Copies a network for inference: BatchNorms folded into their convolutions, in evaluation mode.

    Args:
        network: In training or evaluation mode; not changed.

    Returns:
        A network with the same outputs as ``network.eval()``, up to rounding.
    """
    folded = copy.deepcopy(network).eval()
    for slot, conv in zip(conv_slots(folded), fold_convs(network_weights(network)), strict=True):
        if not slot.norm_name:
            continue
        slot.conv.weight.copy_(torch.tensor(conv.weight))
        slot.conv.bias = nn.Parameter(torch.tensor(conv.bias).to(slot.conv.weight))
        parent, _, child = slot.norm_name.rpartition(".")
        setattr(folded.get_submodule(parent), child, nn.Identity())
    return folded.requires_grad_(False)
