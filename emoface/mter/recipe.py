"""Training recipes: the settings of training, the presets, and the learning rate of every step.

Importable without torch, so that the command line can show a recipe's settings as options without delay.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from emoface.errors import SettingsError, did_you_mean
from emoface.learning.schedules import cosine_factor, step_factor
from emoface.mter.names import (
    MODEL_NAMES,
    STREAM_SIZES,
    DepthForm,
    FaceFill,
    Gate,
    LabelWeighting,
    LossKind,
    PresetName,
    RegionSource,
    VadLossKind,
)
from emoface.storage.settings import Count, Settings, Share

NotNegativeInt = Annotated[int, Field(ge=0)]
"""A whole number of 0 or more."""
NotNegative = Annotated[float, Field(ge=0)]
"""A number of 0 or more."""
ShareBelowOne = Annotated[float, Field(ge=0, lt=1)]
"""A share of 0 or more and less than 1."""
ShareAboveZero = Annotated[float, Field(gt=0, le=1)]
"""A share of more than 0, up to 1."""


class Recipe(Settings):
    """The settings that determine how training changes the weights; the defaults are section 4.4 of the thesis."""

    epochs: Count = 120
    """Number of epochs; warm-up, decay steps and the interval between them are scaled with it."""
    patience: NotNegativeInt = 0
    """Number of epochs in a row without a higher mAP on val after which training stops early; 0 never stops early. The
    learning rate follows the schedule of all epochs, so a run that stops early does not reach the schedule's end."""
    batch_size: Count = 16
    """People per step, over all processes."""
    optimizer: Literal["sgd", "adam", "adamw"] = "sgd"
    """Optimizer that changes the weights."""
    learning_rate: Annotated[float, Field(gt=0)] = 0.001
    """Learning rate after the warm-up."""
    momentum: ShareBelowOne = 0.9
    """SGD momentum."""
    weight_decay: NotNegative = 0.0005
    """Weight decay of the optimizer."""
    decays_norms: bool = True
    """Apply weight decay to biases and normalisation parameters too, as the thesis does."""
    warmup_epochs: NotNegative = 10.0
    """Epochs over which the learning rate grows linearly from 0."""
    schedule: Literal["steps", "cosine"] = "steps"
    """How the learning rate falls: multiplied by the decay factor at each decay step, or along a cosine to a
    hundredth."""
    decay_epochs: tuple[float, ...] = (75.0, 100.0, 115.0)
    """Numbers of finished epochs after which the step schedule lowers the learning rate."""
    decay_every: NotNegative = 0.0
    """Number of epochs between two decay steps, in place of the decay epochs; 0 takes the decay epochs."""
    decay_factor: Annotated[float, Field(gt=0, le=1)] = 0.1
    """Factor of the learning rate at each decay step."""
    clip_norm: NotNegative = 0.0
    """Largest norm of a step's gradient; 0 does not clip gradients."""
    loss: LossKind = "bce"
    """Loss over the 26 labels; weighted_euclidean is that of Kosti et al., soft_margin is bce averaged over the labels
    in place of summed."""
    linear_outputs: bool = False
    """Use the outputs of the labels and of valence, arousal and dominance as they are, without a sigmoid, as Kosti et
    al. do; needs the loss weighted_euclidean."""
    labels_weight: NotNegative = 1.0
    """Weight of the whole model's 26 labels in the loss."""
    stream_weight: NotNegative = 0.3
    """Weight of each stream's own head in the loss."""
    multiplicative_weight: NotNegative = 0.0
    """Weight of the multiplicative fusion loss of face and pose of emoticon in the loss."""
    multiplicative_beta: NotNegative = 1.0
    """Exponent beta of the multiplicative fusion loss; 0 is the cross-entropy of each modality."""
    attention_weight: NotNegative = 0.0
    """Weight of the attention branch's own loss of emoticon in the loss."""
    label_weights: LabelWeighting = "none"
    """Weights of the labels in the loss, for the number n and the share p of training people with a label: none weighs
    all equally, kosti by 1 / ln(1.2 + p), root by 1 / sqrt(p), count by 1 / ln(1.2 + n). batch_share and batch_count
    are kosti and count for n and p of each batch."""
    ohem_ratio: NotNegative = 0.0
    """Number of hardest absent labels per present label that count in the loss; 0 counts all absent labels."""
    dropout: ShareBelowOne = 0.5
    """Dropout before the last layer of the fusion network; of emoticon within the units of its pose branch."""
    ema_decay: ShareBelowOne = 0.0
    """Decay of the moving average of the weights, which is then evaluated and saved; 0 averages nothing."""
    freezes_norms: bool = False
    """Keep the BatchNorm statistics of the initial weights, for small batches on pretrained weights."""
    crop_shares: tuple[float, float] = (0.3, 1.0)
    """Smallest and largest side of a random crop of face and body, as a share of the side of the face or body."""
    context_crop_shares: tuple[float, float] = (1.0, 1.0)
    """Smallest and largest side of a random crop of the whole photo, as a share of the side of the photo."""
    mirror_probability: Share = 0.5
    """Probability of mirroring a person."""
    distort_probability: Share = 0.5
    """Probability of changing a person's colours."""
    predicts_vad: bool = False
    """Add a second head that predicts valence, arousal and dominance."""
    vad_weight: NotNegative = 0.5
    """Weight of valence, arousal and dominance in the loss."""
    vad_loss: VadLossKind = "smooth_l1"
    """Loss of valence, arousal and dominance: smooth_l1, or margin_l2, the squared error of a point or more."""
    se_reduction: Count = 16
    """Reduction of the squeeze-and-excitation units of MobileNetV2."""
    se_gate: Gate = "sigmoid"
    """Gate of the squeeze-and-excitation units; relu is that of the thesis."""
    prelu_per_channel: bool = False
    """Give each channel of the fusion network's PReLU a slope of its own."""
    normalises_features: bool = False
    """Add BatchNorm to the pooled features of each stream of caer-net-s."""
    averages_attention: bool = False
    """Average the weighted map of the attention of caer-net-s over its positions, in place of the sum."""
    face_fill: FaceFill = "mean"
    """Colour of the blanked face in the context of caer-net-s: the mean colour of photos, or black."""
    context_center_share: ShareAboveZero = 1.0
    """Side of the central square of the photo that the network sees in evaluation, as a share of the photo's side."""
    depth_form: DepthForm = "cnn"
    """Network of the depth branch of emoticon: cnn on the depth map, gcn on the places of the photo's people."""
    proximity_limit: Annotated[float, Field(gt=0)] = 1.0
    """Distance up to which two people of a photo are joined in the graph of the depth form gcn, in heights of the
    photo."""
    region_source: RegionSource = "proposals"
    """Nodes of affective-graph: proposals reads regions that were found before; grid is the built-in replacement, a
    fixed grid over the last map of the context stream."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        for name in ("crop_shares", "context_crop_shares"):
            shares = getattr(self, name)
            if not 0 < shares[0] <= shares[1] <= 1:
                raise SettingsError(f"{name} are {shares}, expected two shares, 0 < smallest <= largest <= 1")
        if self.loss == "weighted_euclidean" and self.label_weights == "none":
            raise SettingsError("loss weighted_euclidean needs label_weights, expected kosti or root, found none")
        if self.linear_outputs and self.loss != "weighted_euclidean":
            raise SettingsError(f"linear_outputs needs the loss weighted_euclidean, found {self.loss}")
        return self

    @property
    def decay_steps(self) -> tuple[float, ...]:
        """Numbers of finished epochs after which the step schedule lowers the learning rate.

        Example:
            >>> PRESETS["kosti"].recipe.decay_steps
            (7.0, 14.0)
        """
        if not self.decay_every:
            return self.decay_epochs
        n_steps = math.ceil(round(self.epochs / self.decay_every, 6)) - 1
        return tuple(k * self.decay_every for k in range(1, n_steps + 1))

    def with_epochs(self, epochs: int) -> Recipe:
        """The same recipe with another number of epochs; warm-up, decay steps and their interval are scaled with it.

        Args:
            epochs: Number of epochs, 1 or more.

        Example:
            >>> PRESETS["thesis"].recipe.with_epochs(12).decay_epochs
            (7.5, 10.0, 11.5)
            >>> PRESETS["kosti"].recipe.with_epochs(6).decay_steps
            (2.0, 4.0)
        """
        scale = epochs / self.epochs
        return self.replace(
            epochs=epochs,
            warmup_epochs=self.warmup_epochs * scale,
            decay_epochs=tuple(value * scale for value in self.decay_epochs),
            decay_every=self.decay_every * scale,
        )


@dataclass(frozen=True)
class Preset:
    """A named training recipe, with the inputs and the initial weights that belong to it.

    Attributes:
        phrase: What the recipe is, for the help of the command line.
        recipe: The settings.
        models: Names of the models that it can train.
        person_size: Side of the face and body streams' inputs in pixels, unless another is given.
        context_size: Side of the context stream's input in pixels, unless another is given.
        auto_weights: By stream, the source that the initial weights ``auto`` stand for; ``imagenet`` for streams that
            are not named. See ``emoface.mter.initial_weights``.
    """

    phrase: str
    recipe: Recipe
    models: tuple[str, ...] = MODEL_NAMES
    person_size: int = STREAM_SIZES["face"]
    context_size: int = STREAM_SIZES["context"]
    auto_weights: Mapping[str, str] = field(default_factory=dict)


_NO_CROPS: dict[str, Any] = {"crop_shares": (1.0, 1.0), "context_crop_shares": (1.0, 1.0)}
_NO_AUGMENTATION: dict[str, Any] = {**_NO_CROPS, "mirror_probability": 0.0, "distort_probability": 0.0}
_HALF_AND_HALF: dict[str, Any] = {"predicts_vad": True, "labels_weight": 0.5, "vad_weight": 0.5}
_CAER_SHARE = 112 / 128
_WITH_SE_AND_RESNET = ("task1+task3", "task2+task3", "mter2")

_MODERN = Recipe(
    epochs=10,
    batch_size=32,
    optimizer="adamw",
    learning_rate=0.0005,
    weight_decay=0.02,
    decays_norms=False,
    warmup_epochs=0.5,
    schedule="cosine",
    decay_epochs=(),
    clip_norm=5.0,
    loss="bce",
    ema_decay=0.995,
    crop_shares=(0.9, 1.0),
    context_crop_shares=(0.8, 1.0),
)

PRESETS: dict[PresetName, Preset] = {
    "thesis": Preset("exactly section 4.4 of the thesis, 120 epochs", Recipe()),
    "modern": Preset("fine-tunes pretrained weights in fewer epochs, 10", _MODERN),
    "kosti": Preset(
        "Kosti et al. 2019 on EMOTIC, 21 epochs, with valence, arousal and dominance",
        Recipe(
            epochs=21,
            batch_size=52,
            learning_rate=0.01,
            warmup_epochs=0,
            decay_epochs=(),
            decay_every=7,
            loss="weighted_euclidean",
            linear_outputs=True,
            label_weights="batch_count",
            vad_loss="margin_l2",
            **_HALF_AND_HALF,
            **_NO_AUGMENTATION,
        ),
        auto_weights={"context": "places365"},
    ),
    "caer": Preset(
        "Lee et al. 2019, for caer-net-s alone, 12 epochs from random values, faces of 96 and photos of 112 pixels",
        Recipe(
            epochs=12,
            batch_size=32,
            learning_rate=0.005,
            warmup_epochs=0,
            decay_epochs=(),
            decay_every=4,
            normalises_features=True,
            averages_attention=True,
            face_fill="black",
            context_center_share=_CAER_SHARE,
            **{**_NO_AUGMENTATION, "context_crop_shares": (_CAER_SHARE, _CAER_SHARE)},
        ),
        models=("caer-net-s",),
        person_size=96,
        context_size=112,
        auto_weights=dict.fromkeys(("face", "context"), "none"),
    ),
    "author": Preset(
        f"code under the name of the thesis's author, for {', '.join(_WITH_SE_AND_RESNET)}, 28 epochs",
        Recipe(
            epochs=28,
            batch_size=52,
            warmup_epochs=0,
            decay_epochs=(),
            decay_every=7,
            decay_factor=0.5,
            loss="weighted_euclidean",
            linear_outputs=True,
            label_weights="batch_count",
            **_HALF_AND_HALF,
            **_NO_CROPS,
            se_reduction=4,
            se_gate="hard_sigmoid",
            prelu_per_channel=True,
        ),
        models=_WITH_SE_AND_RESNET,
        auto_weights={"context": "places365"},
    ),
    "affective-graph": Preset(
        "Zhang et al. 2019, for affective-graph alone, 60 epochs, with valence, arousal and dominance",
        Recipe(
            epochs=60,
            batch_size=64,
            warmup_epochs=0,
            decay_epochs=(),
            loss="weighted_euclidean",
            linear_outputs=True,
            label_weights="kosti",
            **_HALF_AND_HALF,
            **_NO_AUGMENTATION,
        ),
        models=("affective-graph",),
    ),
    "emoticon": Preset(
        "Mittal et al. 2020, for emoticon alone, 75 epochs",
        Recipe(
            epochs=75,
            batch_size=32,
            optimizer="adam",
            learning_rate=0.0001,
            weight_decay=0,
            warmup_epochs=0,
            decay_epochs=(),
            loss="soft_margin",
            multiplicative_weight=1.0,
            attention_weight=1.0,
            **_NO_AUGMENTATION,
        ),
        models=("emoticon",),
    ),
}
"""``docs/mter.md`` says where each setting is from, and what differs from the papers and their code."""


def describe_presets() -> str:
    """Describes every preset in a phrase, as text of one line."""
    return "; ".join(f"{name}: {preset.phrase}" for name, preset in PRESETS.items())


def resolve_recipe(preset: PresetName, changes: Mapping[str, Any]) -> Recipe:
    """Builds a recipe from a preset and changed values.

    Args:
        preset: Name of the preset.
        changes: Values by name. Some also change others, unless these are given too: ``epochs`` scales warm-up and
            decay steps; ``decay_epochs`` replaces ``decay_every``; the loss ``weighted_euclidean`` sets the label
            weights ``kosti`` if the preset has none, and any other loss turns ``linear_outputs`` off.

    Raises:
        SettingsError: A name is unknown or a value out of range.

    Example:
        >>> resolve_recipe("thesis", {"epochs": 12, "loss": "asymmetric"}).warmup_epochs
        1.0
    """
    for name in changes:
        if name not in Recipe.model_fields:
            raise SettingsError(f"a recipe has no '{name}'{did_you_mean(name, Recipe.model_fields)}")
    values = dict(changes)
    base = PRESETS[preset].recipe
    if "epochs" in values:
        base = base.with_epochs(base.replace(epochs=values.pop("epochs")).epochs)
    if values.get("decay_epochs"):
        values.setdefault("decay_every", 0.0)
    loss = values.get("loss", base.loss)
    if loss != "weighted_euclidean":
        values.setdefault("linear_outputs", False)
    elif base.label_weights == "none":
        values.setdefault("label_weights", "kosti")
    return base.replace(**values)


def learning_rate(recipe: Recipe, epoch: int, step: int, n_steps: int) -> float:
    """Computes the learning rate of one step.

    Args:
        recipe: The recipe with its schedule.
        epoch: Index of the epoch, from 0; epochs after those of the recipe have the rate of the recipe's last step.
        step: Index of the step in the epoch, from 0.
        n_steps: Steps per epoch.

    Example:
        >>> thesis = PRESETS["thesis"].recipe
        >>> [round(learning_rate(thesis, epoch, 99, 100), 8) for epoch in (0, 9, 74, 75, 100, 115)]
        [0.0001, 0.001, 0.001, 0.0001, 1e-05, 1e-06]
    """
    place = min(epoch + (step + 1) / n_steps, float(recipe.epochs))
    if place < recipe.warmup_epochs:
        return recipe.learning_rate * place / recipe.warmup_epochs
    if recipe.schedule == "steps":
        n_passed = sum(place > decay for decay in recipe.decay_steps)
        return recipe.learning_rate * step_factor(n_passed, recipe.decay_factor)
    done = (place - recipe.warmup_epochs) / max(recipe.epochs - recipe.warmup_epochs, 1 / n_steps)
    return recipe.learning_rate * cosine_factor(done)
