"""The modified MobileNetV2 of table 3-1: squeeze and excitation in every bottleneck, 1000 features at the end."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from emoface.mter.blocks import Backbone, ConvBNReLU6, InvertedResidual
from emoface.mter.names import Gate

STEM_CHANNELS = 32
N_FEATURES = 1000


@dataclass(frozen=True)
class Stage:
    """A row of table 3-1.

    Attributes:
        expansion: ``t``, ratio of the hidden width of a bottleneck to its input channels.
        channels: ``c``, output channels.
        repeats: ``n``, number of bottlenecks in sequence.
        stride: ``s``, stride of the first bottleneck.
        reduction: ``r`` of the squeeze-and-excitation units; the thesis states no value. None for no such units, as in
            the public MobileNetV2.
    """

    expansion: int
    channels: int
    repeats: int
    stride: int
    reduction: int | None = 16


STAGES = (
    Stage(1, 16, 1, 1),
    Stage(6, 24, 2, 2),
    Stage(6, 32, 3, 2),
    Stage(6, 64, 4, 2),
    Stage(6, 96, 3, 1),
    Stage(6, 160, 3, 2),
    Stage(6, 320, 1, 1),
)
"""The bottlenecks of table 3-1.

The table prints strides 2, 1, 2 for the last three rows, which contradict its own map sizes (8, 8, 4, 4); the sizes and
MobileNetV2 have 1, 2, 1.
"""


class MobileNetV2SE(Backbone):
    """A feature extractor: photos (b, 3, h, w), sides multiples of 32, to features (b, 1000).

    All layers but squeeze and excitation have the names of torchvision's ``mobilenet_v2``.

    Args:
        stages: Rows of table 3-1.
        gate: Gate of the squeeze-and-excitation units.
        n_features: Channels of the last convolution.

    Source: thesis, table 3-1.
    """

    def __init__(
        self, stages: tuple[Stage, ...] = STAGES, gate: Gate = "sigmoid", n_features: int = N_FEATURES
    ) -> None:
        super().__init__()
        layers: list[nn.Module] = [ConvBNReLU6(3, STEM_CHANNELS, stride=2)]
        channels = STEM_CHANNELS
        for stage in stages:
            for repeat in range(stage.repeats):
                stride = stage.stride if repeat == 0 else 1
                layers.append(
                    InvertedResidual(channels, stage.channels, stride, stage.expansion, stage.reduction, gate)
                )
                channels = stage.channels
        layers.append(ConvBNReLU6(channels, n_features, kernel=1))
        self.features = nn.Sequential(*layers)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.n_features = n_features
        self.stages = stages
        _initialise(self)

    @property
    def last_map(self) -> nn.Module:
        return self.features[-1]

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.pool(self.features(x)).flatten(1)
        return out


def _initialise(network: nn.Module) -> None:
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out")
