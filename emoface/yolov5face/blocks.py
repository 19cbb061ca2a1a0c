"""The building blocks of YOLOv5-Face; attribute names are those of the official state dicts.

Child modules are registered in the order in which they run, so a network's modules list its convolutions in the same
order as an exported graph. The readers of weight files without tensor names rely on this.

Every block is ``Block(in_channels, out_channels, ...)`` and maps (b, in, h, w) to (b, out, h / stride, w / stride).

Source: structure of deepcam-cn/yolov5-face@84ef013, models/common.py. ShuffleNetV2: Ma et al. 2018; BlazeFace:
Bazarevsky et al. 2019; CSP: Wang et al. 2020. Differences: no code is shared, and BatchNorm's eps and momentum are
set when the layer is created.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from emoface.yolov5face.architectures import BLAZE_MIDDLE, BN_EPS, SPP_WINDOWS

BN_MOMENTUM = 0.03


def _batch_norm(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, eps=BN_EPS, momentum=BN_MOMENTUM)


def _depthwise(channels: int, kernel: int, stride: int, bias: bool) -> nn.Conv2d:
    return nn.Conv2d(channels, channels, kernel, stride, kernel // 2, groups=channels, bias=bias)


class Conv(nn.Module):
    """Convolution, BatchNorm, SiLU."""

    def __init__(self, in_channels: int, out_channels: int, kernel: int = 1, stride: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, kernel, stride, kernel // 2, bias=False)
        self.bn = _batch_norm(out_channels)
        self.act = nn.SiLU()

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.act(self.bn(self.conv(x)))
        return out


class Stem(nn.Module):
    """First block, stride 4: a strided convolution beside max pooling."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.stem_1 = Conv(in_channels, out_channels, 3, 2)
        self.stem_2a = Conv(out_channels, out_channels // 2)
        self.stem_2b = Conv(out_channels // 2, out_channels, 3, 2)
        self.stem_2p = nn.MaxPool2d(2, 2, ceil_mode=True)
        self.stem_3 = Conv(out_channels * 2, out_channels)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem_1(x)
        out: Tensor = self.stem_3(torch.cat((self.stem_2b(self.stem_2a(x)), self.stem_2p(x)), dim=1))
        return out


class Bottleneck(nn.Module):
    """1x1 then 3x3 convolution with equal numbers of channels; ``shortcut`` adds the input to the output."""

    def __init__(self, channels: int, shortcut: bool) -> None:
        super().__init__()
        self.cv1 = Conv(channels, channels)
        self.cv2 = Conv(channels, channels, 3)
        self.shortcut = shortcut

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.cv2(self.cv1(x))
        return x + out if self.shortcut else out


class C3(nn.Module):
    """Cross-stage-partial block: three convolutions around a sequence of bottlenecks."""

    def __init__(self, in_channels: int, out_channels: int, repeats: int, shortcut: bool) -> None:
        super().__init__()
        hidden = out_channels // 2
        self.cv1 = Conv(in_channels, hidden)
        self.m = nn.Sequential(*(Bottleneck(hidden, shortcut) for _ in range(repeats)))
        self.cv2 = Conv(in_channels, hidden)
        self.cv3 = Conv(2 * hidden, out_channels)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.cv3(torch.cat((self.m(self.cv1(x)), self.cv2(x)), dim=1))
        return out


class SPP(nn.Module):
    """Spatial pyramid pooling with the windows ``SPP_WINDOWS``."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        hidden = in_channels // 2
        self.cv1 = Conv(in_channels, hidden)
        self.m = nn.ModuleList(nn.MaxPool2d(window, 1, window // 2) for window in SPP_WINDOWS)
        self.cv2 = Conv(hidden * (len(SPP_WINDOWS) + 1), out_channels)

    def forward(self, x: Tensor) -> Tensor:
        x = self.cv1(x)
        out: Tensor = self.cv2(torch.cat([x, *(pool(x) for pool in self.m)], dim=1))
        return out


class Shuffle(nn.Module):
    """ShuffleNetV2 unit; with stride 1, half of the channels pass unchanged."""

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        half = out_channels // 2
        self.stride = stride
        self.branch1 = nn.Sequential()
        if stride > 1:
            self.branch1 = nn.Sequential(
                _depthwise(in_channels, 3, stride, bias=False),
                _batch_norm(in_channels),
                nn.Conv2d(in_channels, half, 1, bias=False),
                _batch_norm(half),
                nn.SiLU(),
            )
        self.branch2 = nn.Sequential(
            nn.Conv2d(in_channels if stride > 1 else half, half, 1, bias=False),
            _batch_norm(half),
            nn.SiLU(),
            _depthwise(half, 3, stride, bias=False),
            _batch_norm(half),
            nn.Conv2d(half, half, 1, bias=False),
            _batch_norm(half),
            nn.SiLU(),
        )

    def forward(self, x: Tensor) -> Tensor:
        left, right = (x, x) if self.stride > 1 else x.chunk(2, dim=1)
        # Channel shuffle with two groups: the channels of the two halves alternate, left first.
        return torch.stack((self.branch1(left), self.branch2(right)), dim=2).flatten(1, 2)


class Blaze(nn.Module):
    """BlazeFace unit: a 5x5 depthwise separable convolution with a residual connection."""

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.branch1 = nn.Sequential(
            _depthwise(in_channels, 5, stride, bias=True),
            _batch_norm(in_channels),
            nn.Conv2d(in_channels, out_channels, 1),
            _batch_norm(out_channels),
        )
        self.shortcut = _pooled_shortcut(in_channels, out_channels, stride)
        self.relu = nn.SiLU()

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.relu(self.branch1(x) + self.shortcut(x))
        return out


class DoubleBlaze(nn.Module):
    """BlazeFace unit of two 5x5 convolutions with a bottleneck of ``BLAZE_MIDDLE`` channels between them.

    The second 5x5 convolution is a full one, as in the published weights; the BlazeFace paper has a depthwise one.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.branch1 = nn.Sequential(
            _depthwise(in_channels, 5, stride, bias=True),
            _batch_norm(in_channels),
            nn.Conv2d(in_channels, BLAZE_MIDDLE, 1),
            _batch_norm(BLAZE_MIDDLE),
            nn.SiLU(),
            nn.Conv2d(BLAZE_MIDDLE, BLAZE_MIDDLE, 5, padding=2),
            _batch_norm(BLAZE_MIDDLE),
            nn.Conv2d(BLAZE_MIDDLE, out_channels, 1),
            _batch_norm(out_channels),
        )
        self.shortcut = _pooled_shortcut(in_channels, out_channels, stride)
        self.relu = nn.SiLU()

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.relu(self.branch1(x) + self.shortcut(x))
        return out


def _pooled_shortcut(in_channels: int, out_channels: int, stride: int) -> nn.Module:
    if stride == 1:
        return nn.Identity()
    return nn.Sequential(
        nn.MaxPool2d(stride, stride), nn.Conv2d(in_channels, out_channels, 1), _batch_norm(out_channels)
    )
