"""Folds BatchNorms into their convolutions, the form of deployed weight files and of inference, and unfolds them.

Deployed files list convolutions without the names of the state dict. The convolutions are matched to those of a network
in the order in which they run, and every weight shape, stride and number of groups must agree.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from emoface.yolov5face.network import YoloV5Face


@dataclass(frozen=True)
class ConvForm:
    """Weight shape, stride and groups of a convolution: all that distinguishes it but the values of its weights."""

    weight_shape: tuple[int, ...]
    stride: int
    groups: int

    def __str__(self) -> str:
        out, per_group, height, width = self.weight_shape
        return f"{out}x{per_group}x{height}x{width} stride {self.stride} groups {self.groups}"


@dataclass(frozen=True)
class FoldedConv:
    """One convolution of a deployed file.

    Attributes:
        label: Name of the convolution in the file.
        weight: (out, in / groups, k, k) float32.
        bias: (out,) float32.
        stride: Stride, equal for both axes.
        groups: 1, or the number of channels for a depthwise convolution.
    """

    label: str
    weight: Tensor
    bias: Tensor
    stride: int
    groups: int

    @property
    def form(self) -> ConvForm:
        """Weight shape, stride and groups of the convolution."""
        return ConvForm(tuple(self.weight.shape), self.stride, self.groups)


@dataclass(frozen=True)
class ConvSlot:
    """A convolution of a network and the BatchNorm that follows it, if any.

    Attributes:
        name: Name of the convolution in the network.
        conv: The convolution.
        norm_name: Name of the BatchNorm in the network; empty where there is none.
        norm: The BatchNorm that follows; None where there is none.
    """

    name: str
    conv: nn.Conv2d
    norm_name: str
    norm: nn.BatchNorm2d | None

    @property
    def form(self) -> ConvForm:
        """Weight shape, stride and groups of the convolution."""
        return ConvForm(tuple(self.conv.weight.shape), self.conv.stride[0], self.conv.groups)


def conv_slots(network: YoloV5Face) -> list[ConvSlot]:
    """Lists the convolutions of a network in the order in which they run."""
    leaves = [(n, m) for n, m in network.named_modules() if isinstance(m, nn.Conv2d | nn.BatchNorm2d)]
    slots = []
    for (name, module), (next_name, following) in zip(leaves, [*leaves[1:], ("", None)], strict=True):
        if isinstance(module, nn.Conv2d):
            norm = following if isinstance(following, nn.BatchNorm2d) else None
            slots.append(ConvSlot(name, module, next_name if norm else "", norm))
    return slots


@torch.no_grad()
def fill_folded(network: YoloV5Face, convs: list[FoldedConv]) -> None:
    """Copies folded convolutions into a network that keeps its BatchNorms.

    Each BatchNorm is set to the identity plus the folded bias, so the network computes the same outputs and can be
    trained further.

    Args:
        network: Network to fill; changed in place.
        convs: One per convolution of the network, in the same order and with the same forms.
    """
    for slot, folded in zip(conv_slots(network), convs, strict=True):
        slot.conv.weight.copy_(folded.weight)
        if slot.norm is None:
            _bias_of(slot.conv).copy_(folded.bias)
            continue
        if slot.conv.bias is not None:
            slot.conv.bias.zero_()
        slot.norm.weight.fill_(1)
        slot.norm.bias.copy_(folded.bias)
        _buffer(slot.norm.running_mean).zero_()
        _buffer(slot.norm.running_var).fill_(1 - slot.norm.eps)


@torch.no_grad()
def fold_batch_norms(network: YoloV5Face) -> YoloV5Face:
    """Copies a network for inference: BatchNorms folded into their convolutions, in evaluation mode.

    Args:
        network: In training or evaluation mode; not changed.

    Returns:
        A network with the same outputs as ``network.eval()``, up to rounding.
    """
    folded = copy.deepcopy(network).eval()
    for slot in conv_slots(folded):
        if slot.norm is None:
            continue
        weight, bias = _fold(slot)
        slot.conv.weight.copy_(weight)
        slot.conv.bias = nn.Parameter(bias)
        parent, _, child = slot.norm_name.rpartition(".")
        setattr(folded.get_submodule(parent), child, nn.Identity())
    return folded.requires_grad_(False)


def _fold(slot: ConvSlot) -> tuple[Tensor, Tensor]:
    """Computes the folded weight and bias of one convolution in float64; returns them as float32."""
    norm = slot.norm
    if norm is None:
        return slot.conv.weight, _bias_of(slot.conv)
    mean, variance = _buffer(norm.running_mean).double(), _buffer(norm.running_var).double()
    scale = norm.weight.double() / (variance + norm.eps).sqrt()
    bias = torch.zeros_like(mean) if slot.conv.bias is None else slot.conv.bias.double()
    weight = slot.conv.weight.double() * scale[:, None, None, None]
    return weight.float(), (norm.bias.double() + (bias - mean) * scale).float()


def _bias_of(conv: nn.Conv2d) -> Tensor:
    if conv.bias is None:
        raise ValueError("a convolution without BatchNorm has no bias to hold the folded one")
    return conv.bias


def _buffer(value: Tensor | None) -> Tensor:
    if value is None:
        raise ValueError("a BatchNorm without running statistics cannot be folded")
    return value
