"""A YOLOv5-Face network: its layers run in their numbered order, its heads predict faces per cell and anchor.

The ``N_OUTPUTS`` outputs per cell and anchor are the box (0-3), the objectness (4), five landmarks as x, y pairs (5-14)
and the class "face" (15). ``Detect.decode`` converts them to pixels; ``emoface.yolov5face.decoding`` does the same for
numpy arrays.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from emoface.yolov5face.architectures import PREVIOUS, Architecture, Layer, find_architecture
from emoface.yolov5face.blocks import C3, SPP, Blaze, Conv, DoubleBlaze, Shuffle, Stem
from emoface.yolov5face.decoding import N_OUTPUTS


class Detect(nn.Module):
    """The heads: a 1x1 convolution per level.

    Attributes:
        anchors: (levels, anchors, 2) width and height in cells of the level; kept because the official state dicts
            have it.
        anchor_grid: (levels, 1, anchors, 1, 1, 2) the same in pixels; ``decode`` uses it.
    """

    anchors: Tensor
    anchor_grid: Tensor

    def __init__(self, in_channels: list[int], architecture: Architecture) -> None:
        super().__init__()
        pixels = torch.tensor(architecture.anchors, dtype=torch.float32)
        strides = torch.tensor(architecture.strides, dtype=torch.float32)
        n_levels, self.n_anchors = pixels.shape[:2]
        self.strides = architecture.strides
        self.register_buffer("anchors", pixels / strides[:, None, None])
        self.register_buffer("anchor_grid", pixels.reshape(n_levels, 1, self.n_anchors, 1, 1, 2).clone())
        self.m = nn.ModuleList(nn.Conv2d(channels, self.n_anchors * N_OUTPUTS, 1) for channels in in_channels)

    def forward(self, features: list[Tensor]) -> list[Tensor]:
        """Returns the raw outputs, per level (b, anchors * N_OUTPUTS, gh, gw), before any sigmoid."""
        return [head(feature) for head, feature in zip(self.m, features, strict=True)]

    def decode(self, heads: list[Tensor]) -> Tensor:
        """Decodes raw outputs to predictions in network pixels.

        Args:
            heads: Output of ``YoloV5Face.heads``, per level (b, anchors, gh, gw, N_OUTPUTS).

        Returns:
            (b, cells * anchors of all levels, N_OUTPUTS): centre x, y, width, height, objectness, five landmarks
            as x, y pairs, class; objectness and class in 0-1.
        """
        flat = []
        for head, stride, anchors_net in zip(heads, self.strides, self.anchor_grid, strict=True):
            rows, columns = head.shape[2:4]
            y, x = torch.meshgrid(
                torch.arange(rows, device=head.device),
                torch.arange(columns, device=head.device),
                indexing="ij",
            )
            cell = torch.stack((x, y), dim=-1).to(head.dtype)[None, None]  # (1, 1, gh, gw, 2)
            xy = (head[..., 0:2].sigmoid() * 2 - 0.5 + cell) * stride
            wh = (head[..., 2:4].sigmoid() * 2) ** 2 * anchors_net
            landmarks = head[..., 5:15] * anchors_net.repeat(1, 1, 1, 1, 5) + cell.repeat(1, 1, 1, 1, 5) * stride
            scores = head[..., [4, 15]].sigmoid()
            decoded = torch.cat((xy, wh, scores[..., :1], landmarks, scores[..., 1:]), dim=-1)
            flat.append(decoded.flatten(1, 3))
        return torch.cat(flat, dim=1)


class YoloV5Face(nn.Module):
    """One of the published networks.

    Attributes:
        name: Name of the network, as in ``architectures``.
        strides: Pixels per cell of each head, finest first.
        model: The numbered layers.
    """

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        self.name = architecture.name
        self.strides = architecture.strides
        self.sources = [layer.sources for layer in architecture.layers]
        self.kept = {source for sources in self.sources for source in sources if source != PREVIOUS}
        self.model = nn.Sequential(*_build_layers(architecture))
        _initialise(self)

    @property
    def detect(self) -> Detect:
        """The layer with the heads."""
        detect = self.model[-1]
        if not isinstance(detect, Detect):
            raise TypeError(f"the last layer is {type(detect).__name__}, expected Detect")
        return detect

    def raw_heads(self, images: Tensor) -> list[Tensor]:
        """Computes the outputs of the heads' convolutions, in the form that inference engines return.

        Args:
            images: (b, 3, h, w), RGB, 0-1, h and w multiples of the coarsest stride.

        Returns:
            Per level (b, anchors * N_OUTPUTS, h / stride, w / stride), before any sigmoid.
        """
        outputs: dict[int, Tensor] = {}
        x = images
        for number, (layer, sources) in enumerate(zip(self.model, self.sources, strict=True)):
            inputs = [x if source == PREVIOUS else outputs[source] for source in sources]
            x = layer(inputs) if isinstance(layer, Concat | Detect) else layer(inputs[0])
            if number in self.kept:
                outputs[number] = x
        heads: list[Tensor] = list(x)
        return heads

    def heads(self, images: Tensor) -> list[Tensor]:
        """Computes the raw outputs with one axis per cell, anchor and output, in the form that the loss reads.

        Args:
            images: (b, 3, h, w), as in ``raw_heads``.

        Returns:
            Per level (b, anchors, gh, gw, N_OUTPUTS), before any sigmoid.
        """
        n_anchors = self.detect.n_anchors
        return [
            head.unflatten(1, (n_anchors, N_OUTPUTS)).permute(0, 1, 3, 4, 2).contiguous()
            for head in self.raw_heads(images)
        ]

    def forward(self, images: Tensor) -> list[Tensor] | Tensor:
        """Returns the raw outputs ``heads`` in training mode, the decoded predictions in evaluation mode."""
        heads = self.heads(images)
        return heads if self.training else self.detect.decode(heads)


class Concat(nn.Module):
    """Concatenates feature maps along their channels."""

    def forward(self, features: list[Tensor]) -> Tensor:
        """Returns (b, sum of the channels, h, w)."""
        return torch.cat(features, dim=1)


def build_network(name: str) -> YoloV5Face:
    """Builds a network with randomly initialised weights, in training mode.

    Args:
        name: ``yolov5n-0.5-face``, ``yolov5n-face``, ``yolov5s-face``, ``yolov5m-face``, ``yolov5l-face``, the
            networks with a P6 level ``yolov5n6-face`` to ``yolov5l6-face``, ``yolov5-blazeface`` or
            ``yolov5-blazeface-fpn``.

    Raises:
        SettingsError: No network has this name.

    Example:
        >>> network = build_network("yolov5n-face")
        >>> sum(parameter.numel() for parameter in network.parameters())
        1725744
    """
    return YoloV5Face(find_architecture(name))


def _build_layers(architecture: Architecture) -> list[nn.Module]:
    modules: list[nn.Module] = []
    channels: list[int] = []
    for number, layer in enumerate(architecture.layers):
        numbers = [number - 1 if source == PREVIOUS else source for source in layer.sources]
        in_channels = [channels[source] for source in numbers] if number else [3]
        modules.append(_build_layer(layer, in_channels, architecture))
        channels.append(sum(in_channels) if layer.channels == 0 else layer.channels)
    return modules


def _build_layer(layer: Layer, in_channels: list[int], architecture: Architecture) -> nn.Module:
    first, out = in_channels[0], layer.channels
    match layer.block:
        case "stem":
            return Stem(first, out)
        case "conv":
            return Conv(first, out, layer.kernel, layer.stride)
        case "c3":
            return C3(first, out, layer.repeats, layer.shortcut)
        case "spp":
            return SPP(first, out)
        case "shuffle":
            return _repeat(Shuffle, first, layer)
        case "blaze":
            return _repeat(Blaze, first, layer)
        case "double_blaze":
            return _repeat(DoubleBlaze, first, layer)
        case "upsample":
            return nn.Upsample(scale_factor=2.0, mode="nearest")
        case "pool":
            return nn.MaxPool2d(layer.kernel, layer.stride, layer.kernel // 2)
        case "concat":
            return Concat()
        case "detect":
            return Detect(in_channels, architecture)
    raise ValueError(f"no block is called {layer.block!r}")


def _repeat(block: type[Shuffle] | type[Blaze] | type[DoubleBlaze], in_channels: int, layer: Layer) -> nn.Module:
    """Builds one block, or several in an ``nn.Sequential``; the tensor names of the state dicts differ between both."""
    if layer.repeats == 1:
        return block(in_channels, layer.channels, layer.stride)
    return nn.Sequential(*(block(layer.channels, layer.channels, layer.stride) for _ in range(layer.repeats)))


def _initialise(network: YoloV5Face) -> None:
    """Initialises the heads' biases to predict about eight faces per 640 x 640 photo.

    Without it, the loss of the background would dominate early training. The landmarks keep the default initialisation.

    Source: Lin et al. 2017 (focal loss), section 3.3, as in the reference repository.
    """
    with torch.no_grad():
        for head, stride in zip(network.detect.m, network.strides, strict=True):
            if isinstance(head, nn.Conv2d) and head.bias is not None:
                bias = head.bias.view(network.detect.n_anchors, N_OUTPUTS)
                bias[:, 4] += math.log(8 / (640 / stride) ** 2)
                bias[:, 15] += math.log(0.6 / 0.01)
