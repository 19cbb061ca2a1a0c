"""MTER and the models of its ablation by name: streams, each with its own head, and the fusion network.

The face and body streams are the modified MobileNetV2 of table 3-1, the context stream is ResNet18 of table 3-2 (in
``mter1`` the modified MobileNetV2). The state dict has the names ``stream.face.backbone...`` and
``stream.face.head...``, so the weights of ``task1`` are a part of those of ``mter2``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor, nn

from emoface.errors import SettingsError, did_you_mean
from emoface.mter.base import Mter, MterOutput, check_inputs, masked_features
from emoface.mter.baselines import CaerNetS, Kosti
from emoface.mter.blocks import Backbone, FeatureNorm, Gate
from emoface.mter.mobilenet import STAGES, MobileNetV2SE, Stage
from emoface.mter.names import MODEL_NAMES
from emoface.mter.resnet import ResNet18
from emoface.schema import N_CATEGORIES

FUSION_WIDTH = 256
PRELU_START = 0.25
N_VAD = 3

_BACKBONES: dict[str, dict[str, str]] = {
    "task1": {"face": "mobilenet"},
    "task2": {"body": "mobilenet"},
    "task3": {"context": "resnet"},
    "task1+task2": {"face": "mobilenet", "body": "mobilenet"},
    "task1+task3": {"face": "mobilenet", "context": "resnet"},
    "task2+task3": {"body": "mobilenet", "context": "resnet"},
    "mter1": {"face": "mobilenet", "body": "mobilenet", "context": "mobilenet"},
    "mter2": {"face": "mobilenet", "body": "mobilenet", "context": "resnet"},
}


class Stream(nn.Module):
    """A backbone and the stream's own head of 26 logits."""

    def __init__(self, backbone: Backbone) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = nn.Linear(backbone.n_features, N_CATEGORIES)


class Fusion(nn.Module):
    """Fuses the concatenated features of all streams, (b, n), to 26 logits and optionally valence, arousal, dominance.

    Source: thesis, section 3.2.4: concatenation, PReLU with an initial slope of 0.25. Figure 3-3 is not in the text;
    width, BatchNorm and dropout are our choice.
    """

    def __init__(self, n_features: int, dropout: float, predicts_vad: bool) -> None:
        super().__init__()
        self.reduce = nn.Linear(n_features, FUSION_WIDTH)
        self.norm = FeatureNorm(FUSION_WIDTH)
        self.act = nn.PReLU(init=PRELU_START)
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(FUSION_WIDTH, N_CATEGORIES)
        self.vad_head = nn.Linear(FUSION_WIDTH, N_VAD) if predicts_vad else None

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor | None]:
        fused = self.dropout(self.act(self.norm(self.reduce(features))))
        return self.head(fused), None if self.vad_head is None else self.vad_head(fused).sigmoid()


class StreamsModel(Mter):
    """A model of one to three streams; two or more are combined by the fusion network.

    The logits of a model of one stream are those of the stream's own head. The face features of a person without a face
    are 0: the face contributes nothing to the fusion, and the logits of ``task1`` are the bias of its head, the same
    for every such person.

    Args:
        name: One of ``MODEL_NAMES``.
        backbones: Feature extractors by stream.
        dropout: Dropout probability of the fusion network; a model of one stream has none, as in tables 3-1 and 3-2.
        predicts_vad: Whether the model has a head for valence, arousal and dominance.
    """

    def __init__(self, name: str, backbones: Mapping[str, Backbone], dropout: float, predicts_vad: bool) -> None:
        super().__init__(name, tuple(backbones))
        self.stream = nn.ModuleDict({stream: Stream(backbones[stream]) for stream in self.streams})
        n_features = sum(backbones[stream].n_features for stream in self.streams)
        self.fusion = Fusion(n_features, dropout, predicts_vad) if len(self.streams) > 1 else None
        self.vad_head = nn.Linear(n_features, N_VAD) if predicts_vad and self.fusion is None else None

    def backbones(self) -> dict[str, Backbone]:
        return {stream: self._stream(stream).backbone for stream in self.streams}

    def forward(self, inputs: Mapping[str, Tensor], has_face: Tensor) -> MterOutput:
        check_inputs(self, inputs, has_face)
        features = {stream: self._features(stream, inputs[stream], has_face) for stream in self.streams}
        stream_logits = {stream: self._stream(stream).head(features[stream]) for stream in self.streams}
        if self.fusion is not None:
            logits, vad_unit = self.fusion(torch.cat(list(features.values()), dim=1))  # (b, 1000 per stream)
            return MterOutput(logits, stream_logits, vad_unit)
        (stream,) = self.streams
        vad_unit = None if self.vad_head is None else self.vad_head(features[stream]).sigmoid()
        return MterOutput(stream_logits[stream], stream_logits, vad_unit)

    def _stream(self, stream: str) -> Stream:
        network = self.stream[stream]
        assert isinstance(network, Stream)
        return network

    def _features(self, stream: str, x: Tensor, has_face: Tensor) -> Tensor:
        backbone = self._stream(stream).backbone
        if stream == "face":
            return masked_features(backbone, x, has_face)
        features: Tensor = backbone(x)
        return features


def build_model(
    name: str,
    *,
    predicts_vad: bool = False,
    dropout: float = 0.5,
    reductions: tuple[int, ...] | None = None,
    gate: Gate = "sigmoid",
) -> Mter:
    """Builds a model with randomly initialised weights.

    Args:
        name: One of ``MODEL_NAMES``.
        predicts_vad: Adds a head for valence, arousal and dominance.
        dropout: Dropout probability before the last layer of the fusion network.
        reductions: Reductions of the squeeze-and-excitation units, one for each stage of table 3-1; None is 16 for all.
        gate: Gate of the squeeze-and-excitation units; ``relu`` is exactly as in the thesis.

    Raises:
        SettingsError: No model has that name, or a setting is out of range.

    Example:
        >>> build_model("mter2").streams
        ('face', 'body', 'context')
    """
    if name not in MODEL_NAMES:
        raise SettingsError(f"no model is called '{name}'{did_you_mean(name, MODEL_NAMES)}")
    if not 0 <= dropout < 1:
        raise SettingsError(f"dropout is {dropout}, expected 0 or more and less than 1")
    stages = _stages(reductions)
    if name == "kosti":
        return Kosti(dropout=dropout, predicts_vad=predicts_vad)
    if name == "caer-net-s":
        return CaerNetS(dropout=dropout, predicts_vad=predicts_vad)
    backbones: dict[str, Backbone] = {
        stream: MobileNetV2SE(stages, gate) if kind == "mobilenet" else ResNet18()
        for stream, kind in _BACKBONES[name].items()
    }
    return StreamsModel(name, backbones, dropout, predicts_vad)


def _stages(reductions: tuple[int, ...] | None) -> tuple[Stage, ...]:
    if reductions is None:
        return STAGES
    if len(reductions) != len(STAGES) or min(reductions) < 1:
        raise SettingsError(f"reductions are {reductions}, expected {len(STAGES)} whole numbers of 1 or more")
    return tuple(replace(stage, reduction=reduction) for stage, reduction in zip(STAGES, reductions, strict=True))
