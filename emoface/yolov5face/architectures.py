"""Defines the published YOLOv5-Face networks; this is the only module that holds their architecture numbers.

A network is a numbered list of layers, and its parameters are called ``model.{number}...``. The layer numbers are
therefore part of the weight files' format, and layers without parameters (upsampling, concatenation) are numbered too.

Source: the structures of deepcam-cn/yolov5-face@84ef013, models/*.yaml. All those files share the structure of the
neck, so it is derived here from the widths of the pyramid levels instead of being written out for each network.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from emoface.errors import SettingsError, did_you_mean

Anchors = tuple[tuple[tuple[int, int], ...], ...]

PREVIOUS = -1

BN_EPS = 1e-3
"""The number that every BatchNorm adds to the variance."""
BLAZE_MIDDLE = 24
"""Channels between the two 5x5 convolutions of a ``double_blaze``."""
SPP_WINDOWS = (3, 5, 7)
"""Windows of the poolings of an ``spp``: those of YOLOv5-Face, smaller than YOLOv5's."""

_ANCHORS_P5: Anchors = (
    ((4, 5), (8, 10), (13, 16)),
    ((23, 29), (43, 55), (73, 105)),
    ((146, 217), (231, 300), (335, 433)),
)
_ANCHORS_P6: Anchors = (
    ((6, 7), (9, 11), (13, 16)),
    ((18, 23), (26, 33), (37, 47)),
    ((54, 67), (77, 104), (112, 154)),
    ((174, 238), (258, 355), (445, 568)),
)
_ANCHORS_BLAZE: Anchors = (
    ((5, 6), (10, 13), (21, 26)),
    ((55, 72), (225, 304), (438, 553)),
)


@dataclass(frozen=True)
class Layer:
    """One numbered layer of a network.

    Attributes:
        block: Type of the layer: ``stem``, ``conv``, ``c3``, ``spp``, ``shuffle``, ``blaze``, ``double_blaze``,
            ``upsample``, ``pool``, ``concat`` or ``detect``.
        channels: Number of output channels; 0 where they follow from the inputs.
        sources: Numbers of the layers whose outputs are its inputs; ``PREVIOUS`` is the layer before it.
        repeats: Number of repetitions of the block in sequence (of its bottlenecks, for ``c3``).
        kernel: Side of the convolution's kernel.
        stride: Stride of its first convolution or of its pooling.
        shortcut: Whether the bottlenecks of a ``c3`` add their input to their output.
    """

    block: str
    channels: int = 0
    sources: tuple[int, ...] = (PREVIOUS,)
    repeats: int = 1
    kernel: int = 1
    stride: int = 1
    shortcut: bool = True


@dataclass(frozen=True)
class Architecture:
    """A network's layers, and the strides and anchors of its heads.

    Attributes:
        name: Name of the network as in weight files, such as ``yolov5n-face``.
        layers: The layers in their numbered order; the last one is ``detect``.
        strides: Pixels per cell of each head, finest first.
        anchors: Width and height in pixels of each anchor, per head.
    """

    name: str
    layers: tuple[Layer, ...]
    strides: tuple[int, ...]
    anchors: Anchors


@dataclass(frozen=True)
class Pyramid:
    """The numbers from which one network of a family (``n``, or ``s``, ``m`` and ``l``) is derived.

    Attributes:
        stage_channels: Channels of each backbone stage from stride 8 on, before ``width_multiple``.
        stage_repeats: Blocks per backbone stage, before ``depth_multiple``.
        neck_channels: Input channels of each head, before ``width_multiple``.
        neck_repeats: Bottlenecks per neck block, before ``depth_multiple``.
        anchors: Width and height in pixels of each anchor, per head.
        width_multiple: Factor on all channel numbers; the results are rounded up to a multiple of 8.
        depth_multiple: Factor on all repeats above 1.
    """

    stage_channels: tuple[int, ...]
    stage_repeats: tuple[int, ...]
    neck_channels: tuple[int, ...]
    neck_repeats: int
    anchors: Anchors
    width_multiple: float = 1.0
    depth_multiple: float = 1.0

    def width(self, channels: int) -> int:
        """Scales a number of channels by ``width_multiple``, rounded up to a multiple of 8."""
        return math.ceil(channels * self.width_multiple / 8) * 8

    def depth(self, repeats: int) -> int:
        """Scales a number of repeats by ``depth_multiple``; 1 stays 1."""
        return max(round(repeats * self.depth_multiple), 1) if repeats > 1 else repeats


@dataclass
class _LayerList:
    """Layers under construction; ``add`` appends a layer and returns its number."""

    layers: list[Layer] = field(default_factory=list)

    def add(self, layer: Layer) -> int:
        self.layers.append(layer)
        return len(self.layers) - 1


def _shuffle_architecture(name: str, pyramid: Pyramid) -> Architecture:
    """Builds a network with a ShuffleNetV2 backbone: the networks named ``n``."""
    built = _LayerList()
    built.add(Layer("stem", pyramid.width(32), kernel=3, stride=2))
    stages = []
    for channels, repeats in zip(pyramid.stage_channels, pyramid.stage_repeats, strict=True):
        width = pyramid.width(channels)
        built.add(Layer("shuffle", width, stride=2))
        stages.append(built.add(Layer("shuffle", width, repeats=pyramid.depth(repeats))))
    return _add_neck_and_heads(name, pyramid, built, stages)


def _c3_architecture(name: str, pyramid: Pyramid) -> Architecture:
    """Builds a network with a cross-stage-partial backbone: the networks named ``s``, ``m`` and ``l``."""
    built = _LayerList()
    built.add(Layer("stem", pyramid.width(64), kernel=3, stride=2))
    built.add(Layer("c3", pyramid.width(128), repeats=pyramid.depth(3)))
    stages: list[int] = []
    for channels, repeats in zip(pyramid.stage_channels, pyramid.stage_repeats, strict=True):
        width = pyramid.width(channels)
        is_last = len(stages) == len(pyramid.stage_channels) - 1
        built.add(Layer("conv", width, kernel=3, stride=2))
        if is_last:
            built.add(Layer("spp", width))
        block = Layer("c3", width, repeats=pyramid.depth(repeats), shortcut=not is_last)
        stages.append(built.add(block))
    return _add_neck_and_heads(name, pyramid, built, stages)


def _add_neck_and_heads(name: str, pyramid: Pyramid, built: _LayerList, stages: list[int]) -> Architecture:
    """Adds the neck (coarse to fine, then fine to coarse) and the heads to a backbone.

    Args:
        name: Name of the network.
        pyramid: Numbers of the network.
        built: The backbone's layers; the new layers are appended.
        stages: Layer number of each backbone stage's output, finest first.
    """
    neck_repeats = pyramid.depth(pyramid.neck_repeats)

    def add_block(channels: int) -> int:
        return built.add(Layer("c3", pyramid.width(channels), repeats=neck_repeats, shortcut=False))

    laterals = []
    for level in reversed(range(len(stages) - 1)):
        channels = pyramid.neck_channels[level]
        laterals.append(built.add(Layer("conv", pyramid.width(channels))))
        built.add(Layer("upsample"))
        built.add(Layer("concat", sources=(PREVIOUS, stages[level])))
        head = add_block(channels)
    heads = [head]
    for level, lateral in enumerate(reversed(laterals)):
        built.add(Layer("conv", pyramid.width(pyramid.neck_channels[level]), kernel=3, stride=2))
        built.add(Layer("concat", sources=(PREVIOUS, lateral)))
        heads.append(add_block(pyramid.neck_channels[level + 1]))
    built.add(Layer("detect", sources=tuple(heads)))
    strides = tuple(8 * 2**level for level in range(len(heads)))
    return Architecture(name, tuple(built.layers), strides, pyramid.anchors)


_BLAZE_BACKBONE = (
    Layer("conv", 24, kernel=3, stride=2),
    Layer("blaze", 24, repeats=2),
    Layer("blaze", 48, stride=2),
    Layer("blaze", 48, repeats=2),
    Layer("double_blaze", 96, stride=2),
    Layer("double_blaze", 96, repeats=2),
    Layer("double_blaze", 96, stride=2),
    Layer("double_blaze", 96, repeats=2),
)

_BLAZE = Architecture(
    "yolov5-blazeface",
    (
        *_BLAZE_BACKBONE,
        Layer("conv", 64),
        Layer("upsample"),
        Layer("concat", sources=(PREVIOUS, 5)),
        Layer("conv", 64),
        Layer("detect", sources=(11, 8)),
    ),
    (8, 16),
    _ANCHORS_BLAZE,
)

_BLAZE_FPN = Architecture(
    "yolov5-blazeface-fpn",
    (
        *_BLAZE_BACKBONE,
        Layer("conv", 48),
        Layer("upsample"),
        Layer("concat", sources=(PREVIOUS, 5)),
        Layer("conv", 48),
        Layer("pool", kernel=3, stride=2),
        Layer("concat", sources=(PREVIOUS, 7)),
        Layer("conv", 48),
        Layer("detect", sources=(11, 14)),
    ),
    (8, 16),
    _ANCHORS_BLAZE,
)


def _shuffle_pyramid(width_multiple: float) -> Pyramid:
    return Pyramid((128, 256, 512), (3, 7, 3), (128, 128, 128), 1, _ANCHORS_P5, width_multiple)


def _c3_pyramid(width_multiple: float, depth_multiple: float) -> Pyramid:
    channels = (256, 512, 1024)
    return Pyramid(channels, (9, 9, 3), channels, 3, _ANCHORS_P5, width_multiple, depth_multiple)


def _c3_p6_pyramid(width_multiple: float, depth_multiple: float) -> Pyramid:
    channels = (256, 512, 768, 1024)
    return Pyramid(channels, (9, 9, 3, 3), channels, 3, _ANCHORS_P6, width_multiple, depth_multiple)


_ARCHITECTURES = (
    _shuffle_architecture("yolov5n-0.5-face", _shuffle_pyramid(0.5)),
    _shuffle_architecture("yolov5n-face", _shuffle_pyramid(1.0)),
    _c3_architecture("yolov5s-face", _c3_pyramid(0.5, 0.33)),
    _c3_architecture("yolov5m-face", _c3_pyramid(0.75, 0.67)),
    _c3_architecture("yolov5l-face", _c3_pyramid(1.0, 1.0)),
    _shuffle_architecture("yolov5n6-face", Pyramid((128, 256, 384, 512), (3, 7, 3, 3), (128,) * 4, 1, _ANCHORS_P6)),
    _c3_architecture("yolov5s6-face", _c3_p6_pyramid(0.5, 0.33)),
    _c3_architecture("yolov5m6-face", _c3_p6_pyramid(0.75, 0.67)),
    _c3_architecture("yolov5l6-face", _c3_p6_pyramid(1.0, 1.0)),
    _BLAZE,
    _BLAZE_FPN,
)

ARCHITECTURES = {architecture.name: architecture for architecture in _ARCHITECTURES}


def find_architecture(name: str) -> Architecture:
    """Finds the architecture of a network by its name.

    Raises:
        SettingsError: No network has this name.

    Example:
        >>> find_architecture("yolov5n-face").strides
        (8, 16, 32)
    """
    if name not in ARCHITECTURES:
        raise SettingsError(f"no YOLOv5-Face network is called {name!r}{did_you_mean(name, ARCHITECTURES)}")
    return ARCHITECTURES[name]
