"""The published baselines of the thesis that need no additional data: Kosti et al. and CAER-Net-S."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from emoface.mter.base import ContextInput, Mter, MterOutput, check_inputs, masked_features
from emoface.mter.blocks import Backbone, FeatureNorm, MapNorm
from emoface.mter.resnet import ResNet18
from emoface.schema import N_CATEGORIES

KOSTI_WIDTH = 256
CAER_CHANNELS = (32, 64, 128, 256, 256)
CAER_HIDDEN = 128
N_VAD = 3


class Kosti(Mter):
    """The two-branch network of EMOTIC's authors: body and whole photo, fused at 256.

    Args:
        dropout: Dropout probability before the last layer.
        predicts_vad: Whether the network has a head for valence, arousal and dominance; the paper's always has.
        has_linear_outputs: See ``Mter``; the paper's outputs are linear.
        context_input: How the photo becomes the input of the context branch.

    Source: Kosti et al. 2019, "Context Based Emotion Recognition Using EMOTIC Dataset". What differs: their branches
    are networks of one-dimensional filters, 16 convolutions to 640 features for the photo and 6 to 128 for the body,
    with weights in the format of Torch7; ours are ResNet18 without its last layer, as in third-party implementations.
    The heads, the fusion layers and the input sizes (body 128, photo 224) are the paper's. ``docs/mter.md`` lists every
    difference.
    """

    def __init__(
        self,
        *,
        dropout: float = 0.5,
        predicts_vad: bool = False,
        has_linear_outputs: bool = False,
        context_input: ContextInput | None = None,
        n_labels: int = N_CATEGORIES,
    ) -> None:
        super().__init__(
            "kosti",
            ("body", "context"),
            context_input=context_input,
            has_linear_outputs=has_linear_outputs,
            n_labels=n_labels,
        )
        self.body = ResNet18(n_features=None)
        self.context = ResNet18(n_features=None)
        self.reduce = nn.Linear(self.body.n_features + self.context.n_features, KOSTI_WIDTH)
        self.norm = FeatureNorm(KOSTI_WIDTH)
        self.act = nn.ReLU()
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(KOSTI_WIDTH, n_labels)
        self.vad_head = nn.Linear(KOSTI_WIDTH, N_VAD) if predicts_vad else None

    def backbones(self) -> dict[str, Backbone]:
        return {"body": self.body, "context": self.context}

    def forward(self, inputs: Mapping[str, Tensor], has_face: Tensor) -> MterOutput:
        check_inputs(self, inputs, has_face)
        features = torch.cat((self.body(inputs["body"]), self.context(inputs["context"])), dim=1)  # (b, 1024)
        fused = self.dropout(self.act(self.norm(self.reduce(features))))
        vad_unit = None if self.vad_head is None else self.to_vad_unit(self.vad_head(fused))
        return MterOutput(self.head(fused), {}, vad_unit)


class CaerEncoder(nn.Module):
    """Five 3x3 convolutions with BatchNorm and ReLU, max pooling after the first four: (b, 3, h, w) to /16."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        channels = 3
        for number, width in enumerate(CAER_CHANNELS):
            layers += [nn.Conv2d(channels, width, 3, padding=1, bias=False), MapNorm(width), nn.ReLU()]
            if number < len(CAER_CHANNELS) - 1:
                layers.append(nn.MaxPool2d(2))
            channels = width
        self.layers = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.layers(x)
        return out


class CaerFace(Backbone):
    """The face stream: encoder and global average pooling, (b, 3, h, w) to (b, 256).

    Args:
        normalises_features: Whether BatchNorm follows the pooling.
    """

    def __init__(self, normalises_features: bool = False) -> None:
        super().__init__()
        self.encoder = CaerEncoder()
        self.n_features = CAER_CHANNELS[-1]
        self.norm = FeatureNorm(self.n_features) if normalises_features else nn.Identity()

    @property
    def last_map(self) -> nn.Module:
        return self.encoder

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.norm(self.encoder(x).mean(dim=(2, 3)))
        return out


class CaerContext(Backbone):
    """The context stream: encoder and attention-weighted pooling (weights of sum 1), (b, 3, h, w) to (b, 256).

    Args:
        normalises_features: Whether BatchNorm follows the pooling.
        averages_attention: Whether the weighted map is averaged over the positions in place of summed: the features are
            then those of the sum divided by the number of positions.
    """

    def __init__(self, normalises_features: bool = False, averages_attention: bool = False) -> None:
        super().__init__()
        self.encoder = CaerEncoder()
        self.n_features = CAER_CHANNELS[-1]
        self.norm = FeatureNorm(self.n_features) if normalises_features else nn.Identity()
        self.averages_attention = averages_attention
        self.attention = nn.Sequential(
            nn.Conv2d(CAER_CHANNELS[-1], CAER_HIDDEN, 3, padding=1, bias=False),
            MapNorm(CAER_HIDDEN),
            nn.ReLU(),
            nn.Conv2d(CAER_HIDDEN, 1, 3, padding=1),
        )

    @property
    def last_map(self) -> nn.Module:
        return self.encoder

    def forward(self, x: Tensor) -> Tensor:
        maps = self.encoder(x)  # (b, 256, h, w)
        weights = self.attention(maps).flatten(2).softmax(dim=2)  # (b, 1, h * w)
        weighted = maps.flatten(2) * weights
        pooled: Tensor = self.norm(weighted.mean(dim=2) if self.averages_attention else weighted.sum(dim=2))
        return pooled


class CaerNetS(Mter):
    """CAER-Net-S: the face, and the photo with that face blanked, fused by attention weights.

    For a person without a face the weight of the face is 0 and that of the context 1.

    Args:
        dropout: Dropout probability before the last layer.
        predicts_vad: Adds a head for valence, arousal and dominance, which the paper does not have.
        has_linear_outputs: See ``Mter``.
        context_input: How the photo becomes the input of the context stream; None blanks the face with the mean colour.
        normalises_features: Whether BatchNorm follows the pooling of each stream.
        averages_attention: See ``CaerContext``.

    Source: Lee et al. 2019, "Context-Aware Emotion Recognition Networks". What differs: 26 independent logits in
    place of 7 classes, inputs of 128 and 224 pixels as in MTER, and support for people without a face, which the
    paper's data does not contain. The last two arguments are those of github.com/ndkhanh360/CAER @ 93d2582;
    ``docs/mter.md`` lists every difference.
    """

    def __init__(
        self,
        *,
        dropout: float = 0.5,
        predicts_vad: bool = False,
        has_linear_outputs: bool = False,
        context_input: ContextInput | None = None,
        normalises_features: bool = False,
        averages_attention: bool = False,
        n_labels: int = N_CATEGORIES,
    ) -> None:
        super().__init__(
            "caer-net-s",
            ("face", "context"),
            context_input=context_input or ContextInput(masks_face=True),
            has_linear_outputs=has_linear_outputs,
            n_labels=n_labels,
        )
        width = CAER_CHANNELS[-1]
        self.face = CaerFace(normalises_features)
        self.context = CaerContext(normalises_features, averages_attention)
        self.face_weight = _scorer(width)
        self.context_weight = _scorer(width)
        self.reduce = nn.Linear(2 * width, CAER_HIDDEN)
        self.act = nn.ReLU()
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(CAER_HIDDEN, n_labels)
        self.vad_head = nn.Linear(CAER_HIDDEN, N_VAD) if predicts_vad else None

    def backbones(self) -> dict[str, Backbone]:
        return {"face": self.face, "context": self.context}

    def forward(self, inputs: Mapping[str, Tensor], has_face: Tensor) -> MterOutput:
        check_inputs(self, inputs, has_face)
        face = masked_features(self.face, inputs["face"], has_face)
        context = self.context(inputs["context"])
        weights = self.stream_weights(face, context, has_face)  # (b, 2)
        fused = torch.cat((face * weights[:, :1], context * weights[:, 1:]), dim=1)
        fused = self.dropout(self.act(self.reduce(fused)))
        vad_unit = None if self.vad_head is None else self.to_vad_unit(self.vad_head(fused))
        return MterOutput(self.head(fused), {}, vad_unit)

    def stream_weights(self, face: Tensor, context: Tensor, has_face: Tensor) -> Tensor:
        """Computes the attention weights of face and context, (b, 2) with sum 1 per person."""
        face_score = self.face_weight(face).masked_fill(~has_face[:, None].to(face.device), float("-inf"))
        return torch.cat((face_score, self.context_weight(context)), dim=1).softmax(dim=1)


def _scorer(width: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(width, CAER_HIDDEN), nn.ReLU(), nn.Linear(CAER_HIDDEN, 1))
