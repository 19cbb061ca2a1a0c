"""The weights of a network as numpy arrays, with and without BatchNorms: what engines without torch run.

Deployed files hold convolutions whose BatchNorms are folded in, without the names of the state dict. They are matched
to the convolutions of a network in the order in which they run, and every weight shape, stride and number of groups
must agree.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from emoface.vision.arrays import Float32Array
from emoface.yolov5face.architectures import BN_EPS, Architecture
from emoface.yolov5face.decoding import HeadLevel
from emoface.yolov5face.graph import ConvForm, ConvSpec, describe_graph

_NORM_PARTS = ("weight", "bias", "running_mean", "running_var")
_BUFFERS = ("running_mean", "running_var", "anchors", "anchor_grid")


@dataclass(frozen=True)
class FoldedConv:
    """One convolution of a deployed file.

    Attributes:
        label: Name of the convolution in the file.
        weight: (out, in / groups, k, k).
        bias: (out,).
        stride: Stride, equal for both axes.
        groups: 1, or the number of channels for a depthwise convolution.
    """

    label: str
    weight: Float32Array
    bias: Float32Array
    stride: int
    groups: int

    @property
    def form(self) -> ConvForm:
        """Weight shape, stride and groups of the convolution."""
        return ConvForm(self.weight.shape, self.stride, self.groups)


@dataclass(frozen=True)
class NetworkWeights:
    """A network's complete weights.

    Attributes:
        architecture: The network.
        state: The tensors by their names in the state dict, as float32; those of BatchNorms may be missing if they are
            folded into their convolutions. The counters of BatchNorms, which only training reads, are left out.
    """

    architecture: Architecture
    state: Mapping[str, Float32Array]

    @property
    def name(self) -> str:
        """Name of the network."""
        return self.architecture.name

    @property
    def n_parameters(self) -> int:
        """Number of trainable parameters."""
        return sum(value.size for name, value in self.state.items() if name.rpartition(".")[2] not in _BUFFERS)

    @property
    def levels(self) -> tuple[HeadLevel, ...]:
        """Stride and anchors of each head; the anchors of a file replace those of the architecture."""
        anchors_net = self.state[f"{_detect_name(self.architecture)}.anchor_grid"][:, 0, :, 0, 0]
        return tuple(HeadLevel(*pair) for pair in zip(self.architecture.strides, anchors_net, strict=True))


def tensor_shapes(architecture: Architecture) -> dict[str, tuple[int, ...]]:
    """Lists the shapes of a network's tensors by their names in the state dict, without the counters of BatchNorms."""
    shapes: dict[str, tuple[int, ...]] = {}
    for conv in describe_graph(architecture.name).convs:
        channels = conv.form.weight_shape[:1]
        shapes[f"{conv.name}.weight"] = conv.form.weight_shape
        if conv.has_bias:
            shapes[f"{conv.name}.bias"] = channels
        if conv.norm_name:
            shapes |= {f"{conv.norm_name}.{part}": channels for part in _NORM_PARTS}
    return shapes | {name: value.shape for name, value in _anchor_tensors(architecture).items()}


def unfold_convs(architecture: Architecture, convs: Sequence[FoldedConv]) -> NetworkWeights:
    """Makes the weights of a network from folded convolutions, so that it can be trained further.

    Each BatchNorm is the identity plus the folded bias, so the network computes the same outputs.

    Args:
        architecture: The network.
        convs: One per convolution of the network, in the same order and with the same forms.
    """
    state: dict[str, Float32Array] = {}
    for conv, folded in zip(describe_graph(architecture.name).convs, convs, strict=True):
        state[f"{conv.name}.weight"] = folded.weight
        if not conv.norm_name:
            state[f"{conv.name}.bias"] = folded.bias
            continue
        if conv.has_bias:
            state[f"{conv.name}.bias"] = np.zeros_like(folded.bias)
        state |= _identity_norm(conv, folded.bias)
    return NetworkWeights(architecture, state | _anchor_tensors(architecture))


def unfold_state(architecture: Architecture, state: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    """Adds BatchNorms (identity plus the folded bias) to a state dict that was saved after folding them."""
    unfolded = dict(state)
    for conv in describe_graph(architecture.name).convs:
        bias_name = f"{conv.name}.bias"
        if not conv.norm_name or f"{conv.norm_name}.weight" in state or bias_name not in state:
            continue
        bias = unfolded.pop(bias_name)
        if conv.has_bias:
            unfolded[bias_name] = np.zeros_like(bias)
        unfolded |= _identity_norm(conv, bias)
    return unfolded


def fold_convs(weights: NetworkWeights) -> Iterator[FoldedConv]:
    """Folds the BatchNorms of a network into its convolutions, in the order in which these run.

    The folded values are computed in float64.
    """
    for conv in describe_graph(weights.name).convs:
        weight, bias = weights.state[f"{conv.name}.weight"], weights.state.get(f"{conv.name}.bias")
        if f"{conv.norm_name}.weight" in weights.state:
            weight, bias = _fold(weights.state, conv, weight, bias)
        if bias is None:
            raise ValueError(f"convolution {conv.name} has neither a bias nor a BatchNorm")
        yield FoldedConv(conv.name, weight, bias, conv.form.stride, conv.form.groups)


def _fold(
    state: Mapping[str, Float32Array], conv: ConvSpec, weight: Float32Array, bias: Float32Array | None
) -> tuple[Float32Array, Float32Array]:
    gamma, beta, mean, variance = (state[f"{conv.norm_name}.{part}"].astype(np.float64) for part in _NORM_PARTS)
    scale = gamma / np.sqrt(variance + BN_EPS)
    own = 0.0 if bias is None else bias.astype(np.float64)
    folded = weight.astype(np.float64) * scale[:, None, None, None]
    return folded.astype(np.float32), (beta + (own - mean) * scale).astype(np.float32)


def _identity_norm(conv: ConvSpec, bias: NDArray[Any]) -> dict[str, NDArray[Any]]:
    """The tensors of a BatchNorm that only adds a bias."""
    one, zero = np.ones_like(bias), np.zeros_like(bias)
    variance = np.full(bias.shape, 1 - BN_EPS, np.float32)
    return {
        f"{conv.norm_name}.{part}": value for part, value in zip(_NORM_PARTS, (one, bias, zero, variance), strict=True)
    }


def _anchor_tensors(architecture: Architecture) -> dict[str, Float32Array]:
    """The buffers of the heads: the anchors in cells and in pixels."""
    pixels = np.array(architecture.anchors, np.float32)  # (levels, anchors, 2)
    name = _detect_name(architecture)
    return {
        f"{name}.anchors": pixels / np.array(architecture.strides, np.float32)[:, None, None],
        f"{name}.anchor_grid": pixels[:, None, :, None, None],
    }


def _detect_name(architecture: Architecture) -> str:
    return f"model.{len(architecture.layers) - 1}"
