"""The ResNet18 of table 3-2, with global average pooling and a fully connected layer of 1000."""

from __future__ import annotations

from torch import Tensor, nn

from emoface.mter.blocks import Backbone, BasicBlock, MapNorm

WIDTHS = (64, 128, 256, 512)
N_FEATURES = 1000


class ResNet18(Backbone):
    """A feature extractor: photos (b, 3, h, w) to features (b, n_features).

    The layers have the names of torchvision's ``resnet18``.

    Args:
        n_features: Width of the fully connected layer; None omits the layer, and the 512 pooled channels are the
            features.

    Source: thesis, table 3-2. What differs: the table omits the 1x1 convolutions of the shortcuts, which ResNet18 has
    wherever the map shrinks.
    """

    def __init__(self, n_features: int | None = N_FEATURES) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, WIDTHS[0], 7, 2, 3, bias=False)
        self.bn1 = MapNorm(WIDTHS[0])
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, 2, 1)
        self.layer1 = _layer(WIDTHS[0], WIDTHS[0], stride=1)
        self.layer2 = _layer(WIDTHS[0], WIDTHS[1], stride=2)
        self.layer3 = _layer(WIDTHS[1], WIDTHS[2], stride=2)
        self.layer4 = _layer(WIDTHS[2], WIDTHS[3], stride=2)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Identity() if n_features is None else nn.Linear(WIDTHS[3], n_features)
        self.n_features = WIDTHS[3] if n_features is None else n_features
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    @property
    def last_map(self) -> nn.Module:
        return self.layer4

    def forward(self, x: Tensor) -> Tensor:
        return self.pool(self.layer4(self.to_third_stage(x)))

    def to_third_stage(self, x: Tensor) -> Tensor:
        """Computes the map of the third of the four stages, (b, 3, h, w) to (b, 256, h / 16, w / 16)."""
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        out: Tensor = self.layer3(self.layer2(self.layer1(x)))
        return out

    def pool(self, maps: Tensor) -> Tensor:
        """Computes the features from the last map, (b, 512, h, w) to (b, n_features)."""
        out: Tensor = self.fc(self.avgpool(maps).flatten(1))
        return out


def _layer(in_channels: int, out_channels: int, stride: int) -> nn.Sequential:
    return nn.Sequential(BasicBlock(in_channels, out_channels, stride), BasicBlock(out_channels, out_channels, 1))
