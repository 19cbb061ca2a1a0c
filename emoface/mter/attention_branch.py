"""The context branch of ``emoticon``: an attention branch network on ResNet18.

Source: Fukui et al. 2019, "Attention Branch Network: Learning of Attention Mechanism for Visual Explanation".
"""

from __future__ import annotations

from torch import Tensor, nn

from emoface.mter.blocks import BasicBlock, MapNorm
from emoface.mter.resnet import WIDTHS, ResNet18
from emoface.schema import N_CATEGORIES


class AttentionBranch(nn.Module):
    """From the map of the third stage to logits of its own and an attention map.

    A 512-channel stage of two blocks and stride 1, BatchNorm, and a 1x1 convolution to one map per label with BatchNorm
    and ReLU. The logits are the global averages of a further 1x1 convolution of these maps; the attention map is a 3x3
    convolution of them to one channel, with BatchNorm and sigmoid.

    Source: Fukui et al. 2019. The paper leaves to its code the convolution behind the logits, and the
    3x3 of the attention map; both are as we know them from that code.
    """

    def __init__(self, n_labels: int = N_CATEGORIES) -> None:
        super().__init__()
        self.stage = nn.Sequential(BasicBlock(WIDTHS[2], WIDTHS[3], 1), BasicBlock(WIDTHS[3], WIDTHS[3], 1))
        self.stage_norm = MapNorm(WIDTHS[3])
        self.to_labels = nn.Conv2d(WIDTHS[3], n_labels, 1, bias=False)
        self.label_norm = MapNorm(n_labels)
        self.act = nn.ReLU()
        self.to_logits = nn.Conv2d(n_labels, n_labels, 1, bias=False)
        self.to_attention = nn.Conv2d(n_labels, 1, 3, padding=1, bias=False)
        self.attention_norm = MapNorm(1)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, maps: Tensor) -> tuple[Tensor, Tensor]:
        """Computes logits, (b, 26), and attention, (b, 1, h, w) of 0-1, from maps, (b, 256, h, w)."""
        by_label = self.act(self.label_norm(self.to_labels(self.stage_norm(self.stage(maps)))))
        logits = self.to_logits(by_label).mean(dim=(2, 3))
        return logits, self.attention_norm(self.to_attention(by_label)).sigmoid()


class AttentionResNet18(ResNet18):
    """ResNet18 whose fourth stage sees the map of the third, weighted by 1 + attention; (b, 3, h, w) to (b, 26) logits.

    All layers but those of the attention branch have the names of torchvision's ``resnet18``.
    """

    def __init__(self, n_labels: int = N_CATEGORIES) -> None:
        super().__init__(n_features=n_labels)
        self.attention = AttentionBranch(n_labels)

    def forward(self, x: Tensor) -> Tensor:
        return self.attend(x)[0]

    def attend(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Computes the logits of the network and those of its attention branch, each (b, 26)."""
        maps = self.to_third_stage(x)
        attention_logits, attention = self.attention(maps)
        return self.pool(self.layer4(maps + maps * attention)), attention_logits
