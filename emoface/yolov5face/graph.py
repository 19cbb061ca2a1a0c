"""The operations of a network in the order in which they run, described without torch.

The description has two uses: it lists the convolutions with the names and shapes of their tensors, which the readers of
weight files need, and it is the graph that ``onnx_files`` writes. The torch modules in ``blocks`` and ``network``
compute the same function; tests compare both for every network.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from emoface.yolov5face.architectures import BLAZE_MIDDLE, PREVIOUS, SPP_WINDOWS, Architecture, Layer, find_architecture
from emoface.yolov5face.decoding import N_OUTPUTS

INPUT_NAME = "images"


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
class ConvSpec:
    """A convolution of a network and the BatchNorm that follows it, if any.

    Attributes:
        name: Name of the convolution in the state dict.
        form: Weight shape, stride and groups.
        has_bias: Whether the convolution itself has a bias.
        norm_name: Name of the BatchNorm in the state dict; empty where there is none.
    """

    name: str
    form: ConvForm
    has_bias: bool
    norm_name: str


@dataclass(frozen=True)
class Operation:
    """An operation of the graph, named and parametrised as in ONNX.

    Attributes:
        kind: Type of the ONNX operator.
        inputs: Names of the values that it reads; a convolution also reads ``NAME.weight`` and ``NAME.bias``.
        outputs: Names of the values that it computes.
        attributes: Attributes of the ONNX operator.
    """

    kind: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: dict[str, int | str | list[int]]


@dataclass
class NetworkGraph:
    """The graph of a network from ``images`` to the raw outputs of its heads; complete after ``describe_graph``.

    Attributes:
        convs: The convolutions in the order in which they run.
        operations: The operations in the order in which they run.
        constants: Values that operations read besides tensors of the state dict, by name.
        outputs: Number of channels of the heads' raw outputs by name, finest level first.
    """

    convs: list[ConvSpec] = field(default_factory=list)
    operations: list[Operation] = field(default_factory=list)
    constants: dict[str, NDArray[np.generic]] = field(default_factory=dict)
    outputs: dict[str, int] = field(default_factory=dict)

    def add(self, kind: str, *inputs: str, output: str = "", **attributes: int | str | list[int]) -> str:
        """Adds an operation with one output; returns the output's name, ``output`` or a new one."""
        output = output or f"value{len(self.operations)}"
        self.operations.append(Operation(kind, inputs, (output,), attributes))
        return output

    def add_constant(self, name: str, values: Sequence[float], kind: type[np.generic]) -> str:
        """Adds a constant, unless it is there already; returns its name."""
        self.constants.setdefault(name, np.array(values, kind))
        return name

    def add_conv(
        self, x: str, name: str, channels: tuple[int, int], norm_name: str = "", *, output: str = "", **settings: int
    ) -> str:
        """Adds a convolution, with the BatchNorm that follows it folded in.

        Args:
            x: The input.
            name: Name of the convolution in the state dict.
            channels: Number of input and of output channels.
            norm_name: Name of the BatchNorm in the state dict; empty where there is none.
            output: Name of the output; a new one if empty.
            settings: ``kernel``, ``stride``, ``groups`` (1 if not given) and ``has_bias`` (False if not given).
        """
        kernel, stride, groups = (settings.get(key, 1) for key in ("kernel", "stride", "groups"))
        form = ConvForm((channels[1], channels[0] // groups, kernel, kernel), stride, groups)
        self.convs.append(ConvSpec(name, form, bool(settings.get("has_bias", False)), norm_name))
        return self.add(
            "Conv",
            *(x, f"{name}.weight", f"{name}.bias"),
            output=output,
            kernel_shape=[kernel, kernel],
            strides=[stride, stride],
            pads=[kernel // 2] * 4,
            dilations=[1, 1],
            group=groups,
        )

    def add_silu(self, x: str) -> str:
        """Adds the activation ``x * sigmoid(x)``."""
        return self.add("Mul", x, self.add("Sigmoid", x))

    def add_max_pool(self, x: str, window: int, stride: int, pad: int = 0, ceil_mode: int = 0) -> str:
        """Adds max pooling with a square window."""
        return self.add(
            "MaxPool",
            x,
            kernel_shape=[window, window],
            strides=[stride, stride],
            pads=[pad] * 4,
            ceil_mode=ceil_mode,
        )

    def add_conv_block(self, x: str, name: str, channels: tuple[int, int], kernel: int = 1, stride: int = 1) -> str:
        """Adds ``blocks.Conv``: convolution, BatchNorm, SiLU."""
        x = self.add_conv(x, f"{name}.conv", channels, f"{name}.bn", kernel=kernel, stride=stride)
        return self.add_silu(x)


@functools.cache
def describe_graph(network: str) -> NetworkGraph:
    """Describes a network.

    Args:
        network: Name of the network, as in ``architectures``.

    Raises:
        SettingsError: No network has this name.

    Example:
        >>> describe_graph("yolov5n-face").convs[0]
        ConvSpec(name='model.0.stem_1.conv', form=ConvForm(weight_shape=(32, 3, 3, 3), stride=2, groups=1), \
has_bias=False, norm_name='model.0.stem_1.bn')
    """
    architecture = find_architecture(network)
    graph = NetworkGraph()
    values: list[str] = []
    channels: list[int] = []
    for number, layer in enumerate(architecture.layers):
        numbers = [number - 1 if source == PREVIOUS else source for source in layer.sources]
        inputs = [values[source] for source in numbers] if number else [INPUT_NAME]
        in_channels = [channels[source] for source in numbers] if number else [3]
        if layer.block == "detect":
            _add_heads(graph, inputs, f"model.{number}", in_channels, architecture)
        else:
            values.append(_add_layer(graph, inputs, f"model.{number}", in_channels, layer))
        channels.append(sum(in_channels) if layer.channels == 0 else layer.channels)
    return graph


def _add_heads(
    graph: NetworkGraph, inputs: list[str], name: str, in_channels: list[int], architecture: Architecture
) -> None:
    for level, (x, channels, stride) in enumerate(zip(inputs, in_channels, architecture.strides, strict=True)):
        n_outputs = len(architecture.anchors[level]) * N_OUTPUTS
        output = graph.add_conv(x, f"{name}.m.{level}", (channels, n_outputs), output=f"stride{stride}", has_bias=True)
        graph.outputs[output] = n_outputs


def _add_layer(graph: NetworkGraph, inputs: list[str], name: str, in_channels: list[int], layer: Layer) -> str:
    x, channels = inputs[0], (in_channels[0], layer.channels)
    match layer.block:
        case "stem":
            return _add_stem(graph, x, name, channels)
        case "conv":
            return graph.add_conv_block(x, name, channels, layer.kernel, layer.stride)
        case "c3":
            return _add_c3(graph, x, name, channels, layer)
        case "spp":
            return _add_spp(graph, x, name, channels)
        case "shuffle":
            return _add_repeated(_add_shuffle, graph, x, name, channels, layer)
        case "blaze":
            return _add_repeated(_add_blaze, graph, x, name, channels, layer)
        case "double_blaze":
            return _add_repeated(_add_double_blaze, graph, x, name, channels, layer)
        case "upsample":
            scales = graph.add_constant("upsample.scales", [1, 1, 2, 2], np.float32)
            settings = {"coordinate_transformation_mode": "asymmetric", "mode": "nearest", "nearest_mode": "floor"}
            return graph.add("Resize", x, "", scales, **settings)
        case "pool":
            return graph.add_max_pool(x, layer.kernel, layer.stride, layer.kernel // 2)
        case "concat":
            return graph.add("Concat", *inputs, axis=1)
    raise ValueError(f"no block is called {layer.block!r}")


_AddBlock = Callable[[NetworkGraph, str, str, tuple[int, int], int], str]


def _add_repeated(
    add_block: _AddBlock, graph: NetworkGraph, x: str, name: str, channels: tuple[int, int], layer: Layer
) -> str:
    """Adds one block, or several in sequence; the names in the state dict differ between both."""
    if layer.repeats == 1:
        return add_block(graph, x, name, channels, layer.stride)
    for number in range(layer.repeats):
        x = add_block(graph, x, f"{name}.{number}", (layer.channels, layer.channels), layer.stride)
    return x


def _add_stem(graph: NetworkGraph, x: str, name: str, channels: tuple[int, int]) -> str:
    out = channels[1]
    x = graph.add_conv_block(x, f"{name}.stem_1", channels, 3, 2)
    strided = graph.add_conv_block(x, f"{name}.stem_2a", (out, out // 2))
    strided = graph.add_conv_block(strided, f"{name}.stem_2b", (out // 2, out), 3, 2)
    pooled = graph.add_max_pool(x, 2, 2, ceil_mode=1)
    return graph.add_conv_block(graph.add("Concat", strided, pooled, axis=1), f"{name}.stem_3", (2 * out, out))


def _add_c3(graph: NetworkGraph, x: str, name: str, channels: tuple[int, int], layer: Layer) -> str:
    hidden = channels[1] // 2
    left = graph.add_conv_block(x, f"{name}.cv1", (channels[0], hidden))
    for number in range(layer.repeats):
        inner = graph.add_conv_block(left, f"{name}.m.{number}.cv1", (hidden, hidden))
        inner = graph.add_conv_block(inner, f"{name}.m.{number}.cv2", (hidden, hidden), 3)
        left = graph.add("Add", left, inner) if layer.shortcut else inner
    right = graph.add_conv_block(x, f"{name}.cv2", (channels[0], hidden))
    return graph.add_conv_block(graph.add("Concat", left, right, axis=1), f"{name}.cv3", (2 * hidden, channels[1]))


def _add_spp(graph: NetworkGraph, x: str, name: str, channels: tuple[int, int]) -> str:
    hidden = channels[0] // 2
    x = graph.add_conv_block(x, f"{name}.cv1", (channels[0], hidden))
    pooled = [graph.add_max_pool(x, window, 1, window // 2) for window in SPP_WINDOWS]
    together = graph.add("Concat", x, *pooled, axis=1)
    return graph.add_conv_block(together, f"{name}.cv2", (hidden * (len(pooled) + 1), channels[1]))


def _add_shuffle(graph: NetworkGraph, x: str, name: str, channels: tuple[int, int], stride: int) -> str:
    half = channels[1] // 2
    left = right = x
    if stride > 1:
        left = _add_depthwise(graph, x, f"{name}.branch1.0", channels[0], 3, stride, norm_name=f"{name}.branch1.1")
        left = graph.add_conv(left, f"{name}.branch1.2", (channels[0], half), f"{name}.branch1.3")
        left = graph.add_silu(left)
    else:
        left, right = f"{name}.left", f"{name}.right"
        graph.operations.append(Operation("Split", (x,), (left, right), {"axis": 1}))
    right = graph.add_conv(right, f"{name}.branch2.0", (channels[0] if stride > 1 else half, half), f"{name}.branch2.1")
    right = graph.add_silu(right)
    right = _add_depthwise(graph, right, f"{name}.branch2.3", half, 3, stride, norm_name=f"{name}.branch2.4")
    right = graph.add_silu(graph.add_conv(right, f"{name}.branch2.5", (half, half), f"{name}.branch2.6"))
    return _add_channel_shuffle(graph, left, right, 2 * half)


def _add_channel_shuffle(graph: NetworkGraph, left: str, right: str, n_channels: int) -> str:
    """Joins two values so that their channels alternate, left first; height and width may be any."""
    axis = graph.add_constant("shuffle.axis", [2], np.int64)
    pairs = graph.add("Concat", graph.add("Unsqueeze", left, axis), graph.add("Unsqueeze", right, axis), axis=2)
    start = graph.add_constant(f"shuffle.start{n_channels}", [0, n_channels], np.int64)  # 0 keeps the batch axis
    shape = graph.add("Concat", start, graph.add("Shape", left, start=2), axis=0)
    return graph.add("Reshape", pairs, shape)


def _add_blaze(graph: NetworkGraph, x: str, name: str, channels: tuple[int, int], stride: int) -> str:
    branch = _add_depthwise(
        graph, x, f"{name}.branch1.0", channels[0], 5, stride, norm_name=f"{name}.branch1.1", has_bias=True
    )
    branch = graph.add_conv(branch, f"{name}.branch1.2", channels, f"{name}.branch1.3", has_bias=True)
    return graph.add_silu(graph.add("Add", branch, _add_pooled_shortcut(graph, x, name, channels, stride)))


def _add_double_blaze(graph: NetworkGraph, x: str, name: str, channels: tuple[int, int], stride: int) -> str:
    part, middle = f"{name}.branch1", BLAZE_MIDDLE
    branch = _add_depthwise(graph, x, f"{part}.0", channels[0], 5, stride, norm_name=f"{part}.1", has_bias=True)
    branch = graph.add_conv(branch, f"{part}.2", (channels[0], middle), f"{part}.3", has_bias=True)
    branch = graph.add_silu(branch)
    branch = graph.add_conv(branch, f"{part}.5", (middle, middle), f"{part}.6", kernel=5, has_bias=True)
    branch = graph.add_conv(branch, f"{part}.7", (middle, channels[1]), f"{part}.8", has_bias=True)
    return graph.add_silu(graph.add("Add", branch, _add_pooled_shortcut(graph, x, name, channels, stride)))


def _add_pooled_shortcut(graph: NetworkGraph, x: str, name: str, channels: tuple[int, int], stride: int) -> str:
    if stride == 1:
        return x
    pooled = graph.add_max_pool(x, stride, stride)
    return graph.add_conv(pooled, f"{name}.shortcut.1", channels, f"{name}.shortcut.2", has_bias=True)


def _add_depthwise(
    graph: NetworkGraph,
    x: str,
    name: str,
    channels: int,
    kernel: int,
    stride: int,
    *,
    norm_name: str,
    has_bias: bool = False,
) -> str:
    return graph.add_conv(
        x,
        name,
        (channels, channels),
        norm_name,
        kernel=kernel,
        stride=stride,
        groups=channels,
        has_bias=has_bias,
    )
