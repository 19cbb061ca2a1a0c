"""The building blocks of MTER; attribute names are those of the public ImageNet checkpoints.

Modules that those checkpoints do not contain, such as the squeeze-and-excitation unit, are separate attributes and
never entries of the named sequences, so that no layer index shifts and a checkpoint loads without a map of names.

Source: Sandler et al. 2018 (inverted residual), Hu et al. 2018 (squeeze and excitation), He et al. 2016 (basic
block); names as in torchvision's mobilenet_v2 and resnet18.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from emoface.mter.names import Gate

MIN_SQUEEZED = 8
"""Least width of the squeezed layer, for any reduction."""

_GATES: dict[Gate, type[nn.Module]] = {"sigmoid": nn.Sigmoid, "relu": nn.ReLU, "hard_sigmoid": nn.Hardsigmoid}


def start_as_identity(last_norm: nn.Module) -> None:
    """Sets the last normalisation of a residual branch to 0, so that the block starts as an identity.

    A randomly initialised network is then effectively shallow and learns faster; ``docs/mter.md`` has the measurements.
    Loading a checkpoint overwrites these values.

    Source: Goyal et al. 2017, section 5.1.
    """
    assert isinstance(last_norm, nn.BatchNorm2d)
    nn.init.zeros_(last_norm.weight)


class ConvBNReLU6(nn.Sequential):
    """Convolution, BatchNorm, ReLU6; (b, in, h, w) to (b, out, h / stride, w / stride)."""

    def __init__(
        self, in_channels: int, out_channels: int, kernel: int = 3, stride: int = 1, *, groups: int = 1
    ) -> None:
        super().__init__(
            nn.Conv2d(in_channels, out_channels, kernel, stride, kernel // 2, groups=groups, bias=False),
            MapNorm(out_channels),
            nn.ReLU6(inplace=True),
        )


class SqueezeExcitation(nn.Module):
    """Scales the channels of a feature map by gates computed from their global averages; (b, c, h, w), same shape out.

    The thesis puts a ReLU after both layers; a ReLU gate is unbounded, and a channel whose gate is 0 stops learning.
    The paper that it cites uses a sigmoid, which is the default here.

    Args:
        channels: Channels of the feature map.
        reduction: The squeezed width is ``channels / reduction``, at least ``MIN_SQUEEZED``.
        gate: ``sigmoid``; ``relu`` exactly as in the thesis; or ``hard_sigmoid``, which is min(max(x + 3, 0), 6) / 6.

    Source: thesis, section 3.3 and figure 3-5; Hu et al. 2018; Howard et al. 2019 (MobileNetV3) for the hard sigmoid.
    """

    def __init__(self, channels: int, reduction: int, gate: Gate = "sigmoid") -> None:
        super().__init__()
        squeezed = max(channels // reduction, MIN_SQUEEZED)
        self.fc1 = nn.Linear(channels, squeezed)
        self.fc2 = nn.Linear(squeezed, channels)
        self.act = nn.ReLU(inplace=True)
        self.gate = _GATES[gate]()

    def forward(self, x: Tensor) -> Tensor:
        weights: Tensor = self.gate(self.fc2(self.act(self.fc1(x.mean(dim=(2, 3))))))  # (b, c)
        return x * weights[:, :, None, None]


class InvertedResidual(nn.Module):
    """Inverted residual with a linear bottleneck and squeeze and excitation before the projection.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output; the input is added where the shapes are equal.
        stride: Stride of the depthwise convolution.
        expansion: Ratio of the hidden width to ``in_channels``; with 1 there is no expanding convolution.
        reduction: Reduction of the squeeze-and-excitation unit; None for a block without one.
        gate: Gate of the squeeze-and-excitation unit.

    Source: thesis, figure 3-5.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        stride: int,
        expansion: int,
        reduction: int | None,
        gate: Gate = "sigmoid",
    ) -> None:
        super().__init__()
        hidden = in_channels * expansion
        expand = [] if expansion == 1 else [ConvBNReLU6(in_channels, hidden, kernel=1)]
        self.conv = nn.Sequential(
            *expand,
            ConvBNReLU6(hidden, hidden, stride=stride, groups=hidden),
            nn.Conv2d(hidden, out_channels, 1, bias=False),
            MapNorm(out_channels),
        )
        self.se = nn.Identity() if reduction is None else SqueezeExcitation(hidden, reduction, gate)
        self.adds_input = stride == 1 and in_channels == out_channels
        if self.adds_input:
            start_as_identity(self.conv[-1])

    def forward(self, x: Tensor) -> Tensor:
        *widen, project, norm = self.conv
        out: Tensor = x
        for layer in widen:
            out = layer(out)
        out = norm(project(self.se(out)))
        return x + out if self.adds_input else out


class BasicBlock(nn.Module):
    """Two 3x3 convolutions around a shortcut; the shortcut is a 1x1 convolution where shapes differ."""

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, stride, 1, bias=False)
        self.bn1 = MapNorm(out_channels)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, 1, 1, bias=False)
        self.bn2 = MapNorm(out_channels)
        self.downsample = None
        if stride != 1 or in_channels != out_channels:
            self.downsample = nn.Sequential(
                nn.Conv2d(in_channels, out_channels, 1, stride, bias=False), MapNorm(out_channels)
            )
        start_as_identity(self.bn2)

    def forward(self, x: Tensor) -> Tensor:
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        shortcut = x if self.downsample is None else self.downsample(x)
        summed: Tensor = self.relu(out + shortcut)
        return summed


class Backbone(nn.Module):
    """A feature extractor: photos (b, 3, h, w) to features (b, ``n_features``)."""

    n_features: int

    @property
    def last_map(self) -> nn.Module:
        """The layer whose output is the last feature map, for class activation maps."""
        raise NotImplementedError


class MapNorm(nn.BatchNorm2d):
    """BatchNorm over maps (b, c, h, w) that accepts a single position: one row whose map has shrunk to 1 x 1.

    That happens with small inputs if only one person of a batch has a face. Like ``FeatureNorm``, it then normalises by
    the running statistics and does not change them.
    """

    def forward(self, x: Tensor) -> Tensor:
        if self.training and x.shape[0] * x.shape[2] * x.shape[3] < 2:
            return _normalise_by_running(self, x)
        return super().forward(x)


class FeatureNorm(nn.BatchNorm1d):
    """BatchNorm over features (b, c) that accepts a batch of one.

    A single row has no variance to normalise by: it is normalised by the running statistics, as in evaluation, and does
    not change them.
    """

    def forward(self, x: Tensor) -> Tensor:
        if self.training and x.shape[0] < 2:
            return _normalise_by_running(self, x)
        return super().forward(x)


def _normalise_by_running(norm: nn.BatchNorm1d | nn.BatchNorm2d, x: Tensor) -> Tensor:
    return functional.batch_norm(
        x, norm.running_mean, norm.running_var, norm.weight, norm.bias, training=False, eps=norm.eps
    )


class GridPool(nn.AdaptiveAvgPool2d):
    """Averages a map over the cells of a square grid, (b, c, h, w) to (b, c, side, side).

    Cells overlap if the side of the map is no multiple of that of the grid. ONNX has no such operator: in an export the
    averages are two products with constant matrices, which differ from the operator's by rounding alone.

    Args:
        side: Cells per side.
    """

    def __init__(self, side: int) -> None:
        super().__init__(side)
        self.side = side

    def forward(self, maps: Tensor) -> Tensor:
        if not torch.onnx.is_in_onnx_export():
            return super().forward(maps)
        rows, columns = (cell_weights(int(size), self.side) for size in maps.shape[-2:])
        return torch.matmul(torch.matmul(rows, maps), columns.T)


def cell_weights(size: int, n_cells: int) -> Tensor:
    """Builds the weights that average a line of pixels over cells, as PyTorch's adaptive pooling does.

    Returns:
        (n_cells, size), each row of sum 1.

    Example:
        >>> cell_weights(4, 3).tolist()
        [[0.5, 0.5, 0.0, 0.0], [0.0, 0.5, 0.5, 0.0], [0.0, 0.0, 0.5, 0.5]]
    """
    weights = torch.zeros(n_cells, size)
    for cell in range(n_cells):
        first, end = cell * size // n_cells, -(-(cell + 1) * size // n_cells)
        weights[cell, first:end] = 1 / (end - first)
    return weights
