"""MTER and the models of its ablation by name: streams, each with its own head, and the fusion network.

The face and body streams are the modified MobileNetV2 of table 3-1, the context stream is ResNet18 of table 3-2 (in
``mter1`` the modified MobileNetV2). The state dict has the names ``stream.face.backbone...`` and
``stream.face.head...``, so the weights of ``task1`` are a part of those of ``mter2``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

from emoface.errors import SettingsError, did_you_mean
from emoface.learning.initialisation import WithoutRandomParameters
from emoface.mter.affective_graph import AffectiveGraph
from emoface.mter.base import ContextInput, Mter, MterOutput, check_inputs, masked_features
from emoface.mter.baselines import CaerNetS, Kosti
from emoface.mter.blocks import Backbone, FeatureNorm
from emoface.mter.emoticon import Emoticon
from emoface.mter.mobilenet import STAGES, MobileNetV2SE, Stage
from emoface.mter.names import MODEL_NAMES, DepthForm, FaceFill, Gate, RegionSource
from emoface.mter.recipe import Recipe
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
STREAMS_MODELS: dict[str, tuple[str, ...]] = {name: tuple(kinds) for name, kinds in _BACKBONES.items()}
"""The streams of the models whose backbones can be replaced, see ``build_model``."""


class Stream(nn.Module):
    """A backbone and the stream's own head, of a logit per label."""

    def __init__(self, backbone: Backbone, n_labels: int = N_CATEGORIES) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = nn.Linear(backbone.n_features, n_labels)


class Fusion(nn.Module):
    """Fuses the concatenated features of all streams, (b, n), to logits and optionally valence, arousal, dominance.

    Args:
        n_features: Width of the concatenated features.
        dropout: Dropout probability before the heads.
        predicts_vad: Whether there is a head for valence, arousal and dominance, whose outputs are linear.
        prelu_per_channel: Whether each of the 256 channels has a slope of its own; else all share one.
        n_labels: Number of labels.

    Source: thesis, section 3.2.4: concatenation, PReLU with an initial slope of 0.25. Figure 3-3 is not in the text;
    width, BatchNorm and dropout are our choice.
    """

    def __init__(
        self,
        n_features: int,
        dropout: float,
        predicts_vad: bool,
        *,
        prelu_per_channel: bool = False,
        n_labels: int = N_CATEGORIES,
    ) -> None:
        super().__init__()
        self.reduce = nn.Linear(n_features, FUSION_WIDTH)
        self.norm = FeatureNorm(FUSION_WIDTH)
        self.act = nn.PReLU(FUSION_WIDTH if prelu_per_channel else 1, init=PRELU_START)
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(FUSION_WIDTH, n_labels)
        self.vad_head = nn.Linear(FUSION_WIDTH, N_VAD) if predicts_vad else None

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor | None]:
        fused = self.dropout(self.act(self.norm(self.reduce(features))))
        return self.head(fused), None if self.vad_head is None else self.vad_head(fused)


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
        has_linear_outputs: See ``Mter``.
        prelu_per_channel: See ``Fusion``.
        context_input: How the photo becomes the input of the context stream.
        n_labels: Number of labels.
    """

    def __init__(
        self,
        name: str,
        backbones: Mapping[str, Backbone],
        dropout: float,
        predicts_vad: bool,
        *,
        has_linear_outputs: bool = False,
        prelu_per_channel: bool = False,
        context_input: ContextInput | None = None,
        n_labels: int = N_CATEGORIES,
    ) -> None:
        super().__init__(
            name,
            tuple(backbones),
            context_input=context_input,
            has_linear_outputs=has_linear_outputs,
            n_labels=n_labels,
        )
        self.stream = nn.ModuleDict({stream: Stream(backbones[stream], n_labels) for stream in self.streams})
        n_features = sum(backbones[stream].n_features for stream in self.streams)
        self.fusion = None
        if len(self.streams) > 1:
            self.fusion = Fusion(
                n_features, dropout, predicts_vad, prelu_per_channel=prelu_per_channel, n_labels=n_labels
            )
        self.vad_head = nn.Linear(n_features, N_VAD) if predicts_vad and self.fusion is None else None

    def backbones(self) -> dict[str, Backbone]:
        return {stream: self._stream(stream).backbone for stream in self.streams}

    def forward(self, inputs: Mapping[str, Tensor], has_face: Tensor) -> MterOutput:
        check_inputs(self, inputs, has_face)
        features = {stream: self._features(stream, inputs[stream], has_face) for stream in self.streams}
        stream_logits = {stream: self._stream(stream).head(features[stream]) for stream in self.streams}
        if self.fusion is not None:
            logits, vad = self.fusion(torch.cat(list(features.values()), dim=1))  # (b, 1000 per stream)
        else:
            (stream,) = self.streams
            logits = stream_logits[stream]
            vad = None if self.vad_head is None else self.vad_head(features[stream])
        return MterOutput(logits, stream_logits, None if vad is None else self.to_vad_unit(vad))

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
    linear_outputs: bool = False,
    prelu_per_channel: bool = False,
    normalises_features: bool = False,
    averages_attention: bool = False,
    face_fill: FaceFill = "mean",
    context_center_share: float = 1.0,
    depth_form: DepthForm = "cnn",
    proximity_limit: float = 1.0,
    region_source: RegionSource = "proposals",
    n_labels: int = N_CATEGORIES,
    backbones: Mapping[str, Backbone] | None = None,
) -> Mter:
    """Builds a model with randomly initialised weights.

    Args:
        name: One of ``MODEL_NAMES``.
        predicts_vad: Adds a head for valence, arousal and dominance.
        dropout: Dropout probability before the last layer of the fusion network; of ``emoticon`` that within the units
            of its pose branch.
        reductions: Reductions of the squeeze-and-excitation units, one for each stage of table 3-1; None is 16 for all.
        gate: Gate of the squeeze-and-excitation units; ``relu`` is exactly as in the thesis.
        linear_outputs: Uses the outputs as they are, without a sigmoid.
        prelu_per_channel: Gives each channel of the fusion network's PReLU a slope of its own.
        normalises_features: Adds BatchNorm to the pooled features of each stream of ``caer-net-s``.
        averages_attention: Averages the weighted map of the attention of ``caer-net-s`` over its positions.
        face_fill: Colour of the blanked face in the context of ``caer-net-s``.
        context_center_share: Side of the central square of the photo that the context stream sees in evaluation.
        depth_form: Network of the depth branch of ``emoticon``.
        proximity_limit: Distance up to which two people are joined in the graph of the depth form ``gcn``.
        region_source: Where the nodes of ``affective-graph`` come from.
        n_labels: Number of labels.
        backbones: By stream, a network in place of the model's own, for ``STREAMS_MODELS``.

    Raises:
        SettingsError: No model has that name, a setting is out of range, or the model lacks the part that a setting
            changes.

    Example:
        >>> build_model("mter2").streams
        ('face', 'body', 'context')
    """
    if name not in MODEL_NAMES:
        raise SettingsError(f"no model is called '{name}'{did_you_mean(name, MODEL_NAMES)}")
    if not 0 <= dropout < 1:
        raise SettingsError(f"dropout is {dropout}, expected 0 or more and less than 1")
    given = dict(backbones or {})
    if unknown := sorted(given.keys() - set(STREAMS_MODELS.get(name, ()))):
        raise SettingsError(f"a backbone is given for '{unknown[0]}', a stream whose network {name} cannot replace")
    stages = _stages(reductions)
    is_caer = name == "caer-net-s"
    common: dict[str, Any] = {
        "dropout": dropout,
        "predicts_vad": predicts_vad,
        "has_linear_outputs": linear_outputs,
        "n_labels": n_labels,
    }
    share: dict[str, Any] = {"context_center_share": context_center_share}
    form = ContextInput(masks_face=is_caer, face_fill=face_fill, center_share=context_center_share)
    if name == "emoticon":
        model: Mter = Emoticon(**common, **share, depth_form=depth_form, proximity_limit=proximity_limit)
    elif name == "affective-graph":
        model = AffectiveGraph(**common, **share, region_source=region_source)
    elif name == "kosti":
        model = Kosti(**common, context_input=form)
    elif is_caer:
        model = CaerNetS(
            **common,
            context_input=form,
            normalises_features=normalises_features,
            averages_attention=averages_attention,
        )
    else:
        for stream, kind in _BACKBONES[name].items():
            if stream not in given:
                given[stream] = MobileNetV2SE(stages, gate) if kind == "mobilenet" else ResNet18()
        model = StreamsModel(name, given, **common, context_input=form, prelu_per_channel=prelu_per_channel)
    kinds = [kind for stream, kind in _BACKBONES.get(name, {}).items() if stream not in (backbones or {})]
    _check_parts(
        name,
        {
            "squeeze-and-excitation units": ("mobilenet" in kinds, reductions is not None or gate != "sigmoid"),
            "PReLU": (name in STREAMS_MODELS and len(model.streams) > 1, prelu_per_channel),
            "BatchNorm on pooled features": (is_caer, normalises_features),
            "attention over positions": (is_caer, averages_attention),
            "blanked face": (is_caer, face_fill != "mean"),
            "context stream": ("context" in model.streams, context_center_share != 1),
            "depth branch": (name == "emoticon", depth_form != "cnn"),
            "graph of people": (name == "emoticon" and depth_form == "gcn", proximity_limit != 1),
            "graph of regions": (name == "affective-graph", region_source != "proposals"),
        },
    )
    return model


def build_recipe_model(
    name: str, recipe: Recipe, n_labels: int = N_CATEGORIES, backbones: Mapping[str, Backbone] | None = None
) -> Mter:
    """Builds a model as a recipe asks for it, with randomly initialised weights.

    Args:
        name: One of ``MODEL_NAMES``.
        recipe: The training recipe, whose settings of the architecture are used.
        n_labels: Number of labels.
        backbones: See ``build_model``.

    Raises:
        SettingsError: No model has that name, or the model lacks a part that the recipe changes.
    """
    is_emoticon = name == "emoticon"
    _check_parts(
        name,
        {
            "modalities fused by their product": (is_emoticon, recipe.multiplicative_weight > 0),
            "attention branch": (is_emoticon, recipe.attention_weight > 0),
        },
    )
    has_own_reduction = recipe.se_reduction != Recipe.model_fields["se_reduction"].default
    return build_model(
        name,
        predicts_vad=recipe.predicts_vad,
        dropout=recipe.dropout,
        reductions=(recipe.se_reduction,) * len(STAGES) if has_own_reduction else None,
        gate=recipe.se_gate,
        linear_outputs=recipe.linear_outputs,
        prelu_per_channel=recipe.prelu_per_channel,
        normalises_features=recipe.normalises_features,
        averages_attention=recipe.averages_attention,
        face_fill=recipe.face_fill,
        context_center_share=recipe.context_center_share,
        depth_form=recipe.depth_form,
        proximity_limit=recipe.proximity_limit,
        region_source=recipe.region_source,
        n_labels=n_labels,
        backbones=backbones,
    )


@cache
def model_streams(name: str) -> tuple[str, ...]:
    """The streams of a model, in its own order.

    Args:
        name: One of ``MODEL_NAMES``.

    Raises:
        SettingsError: No model has that name.

    Example:
        >>> model_streams("task2")
        ('body',)
    """
    with torch.device("meta"), WithoutRandomParameters():
        return build_model(name).streams


def _check_parts(name: str, parts: Mapping[str, tuple[bool, bool]]) -> None:
    """Raises an error if a setting changes a part that the model lacks.

    Args:
        name: Name of the model.
        parts: By the name of a part, whether the model has it and whether a setting changes it.
    """
    for part, (is_there, is_changed) in parts.items():
        if is_changed and not is_there:
            raise SettingsError(f"{name} has no {part}, which a setting changes; leave that setting at its default")


def _stages(reductions: tuple[int, ...] | None) -> tuple[Stage, ...]:
    if reductions is None:
        return STAGES
    if len(reductions) != len(STAGES) or min(reductions) < 1:
        raise SettingsError(f"reductions are {reductions}, expected {len(STAGES)} whole numbers of 1 or more")
    return tuple(replace(stage, reduction=reduction) for stage, reduction in zip(STAGES, reductions, strict=True))
