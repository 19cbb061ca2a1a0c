"""Training recipes: the settings of training, the presets, and the learning rate of every step.

Importable without torch, so that the command line can show a recipe's settings as options without delay.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from emoface.errors import SettingsError, did_you_mean
from emoface.learning.schedules import cosine_factor, step_factor
from emoface.mter.names import LossKind
from emoface.storage.settings import Count, Settings, Share

NotNegative = Annotated[float, Field(ge=0)]
"""A number of 0 or more."""
ShareBelowOne = Annotated[float, Field(ge=0, lt=1)]
"""A share of 0 or more and less than 1."""


class Recipe(Settings):
    """The settings that determine how training changes the weights; the defaults are section 4.4 of the thesis."""

    epochs: Count = 120
    """Number of epochs; warm-up and decay steps are scaled with it."""
    batch_size: Count = 16
    """People per step, over all processes."""
    optimizer: Literal["sgd", "adamw"] = "sgd"
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
    """How the learning rate falls: divided by 10 at each decay step, or along a cosine to a hundredth."""
    decay_epochs: tuple[float, ...] = (75.0, 100.0, 115.0)
    """Numbers of finished epochs after which the step schedule divides the learning rate."""
    clip_norm: NotNegative = 0.0
    """Largest norm of a step's gradient; 0 does not clip gradients."""
    loss: LossKind = "bce"
    """Loss over the 26 labels; weighted_euclidean is that of Kosti et al."""
    stream_weight: NotNegative = 0.3
    """Weight of each stream's own head in the loss."""
    label_weights: Literal["none", "kosti", "root"] = "none"
    """Weights of the labels in the loss, for the share p of people with a label: none weighs all equally, kosti by
    1 / ln(1.2 + p), root by 1 / sqrt(p)."""
    ohem_ratio: NotNegative = 0.0
    """Number of hardest absent labels per present label that count in the loss; 0 counts all absent labels."""
    dropout: ShareBelowOne = 0.5
    """Dropout before the last layer of the fusion network."""
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

    @model_validator(mode="after")
    def _check(self) -> Self:
        for name in ("crop_shares", "context_crop_shares"):
            shares = getattr(self, name)
            if not 0 < shares[0] <= shares[1] <= 1:
                raise SettingsError(f"{name} are {shares}, expected two shares, 0 < smallest <= largest <= 1")
        if self.loss == "weighted_euclidean" and self.label_weights == "none":
            raise SettingsError("loss weighted_euclidean needs label_weights, expected kosti or root, found none")
        return self

    def with_epochs(self, epochs: int) -> Recipe:
        """The same recipe with another number of epochs; warm-up and decay steps are scaled with it.

        Args:
            epochs: Number of epochs, 1 or more.

        Example:
            >>> PRESETS["thesis"].with_epochs(12).decay_epochs
            (7.5, 10.0, 11.5)
        """
        scale = epochs / self.epochs
        return self.replace(
            epochs=epochs,
            warmup_epochs=self.warmup_epochs * scale,
            decay_epochs=tuple(value * scale for value in self.decay_epochs),
        )


PRESETS: dict[str, Recipe] = {
    "thesis": Recipe(),
    "modern": Recipe(
        epochs=30,
        batch_size=32,
        optimizer="adamw",
        learning_rate=0.002,
        weight_decay=0.02,
        decays_norms=False,
        warmup_epochs=1.5,
        schedule="cosine",
        decay_epochs=(),
        clip_norm=5.0,
        loss="bce",
        ema_decay=0.995,
        crop_shares=(0.9, 1.0),
        context_crop_shares=(0.8, 1.0),
    ),
}
"""``thesis``: exactly section 4.4. ``modern``: fewer epochs; ``docs/mter.md`` has the experiments."""


def resolve_recipe(preset: str, changes: Mapping[str, Any]) -> Recipe:
    """Builds a recipe from a preset and changed values.

    Args:
        preset: ``thesis`` or ``modern``.
        changes: Values by name. ``epochs`` also scales warm-up and decay steps, unless these are given too; the loss
            ``weighted_euclidean`` also sets the label weights ``kosti``, unless others are given.

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
    base = PRESETS[preset]
    if "epochs" in values:
        base = base.with_epochs(base.replace(epochs=values.pop("epochs")).epochs)
    if values.get("loss") == "weighted_euclidean":
        values.setdefault("label_weights", "kosti")
    return base.replace(**values)


def learning_rate(recipe: Recipe, epoch: int, step: int, n_steps: int) -> float:
    """Computes the learning rate of one step.

    Args:
        recipe: The recipe with its schedule.
        epoch: Index of the epoch, from 0.
        step: Index of the step in the epoch, from 0.
        n_steps: Steps per epoch.

    Example:
        >>> thesis = PRESETS["thesis"]
        >>> [round(learning_rate(thesis, epoch, 99, 100), 8) for epoch in (0, 9, 74, 75, 100, 115)]
        [0.0001, 0.001, 0.001, 0.0001, 1e-05, 1e-06]
    """
    place = epoch + (step + 1) / n_steps
    if place < recipe.warmup_epochs:
        return recipe.learning_rate * place / recipe.warmup_epochs
    if recipe.schedule == "steps":
        return recipe.learning_rate * step_factor(sum(place > decay for decay in recipe.decay_epochs))
    done = (place - recipe.warmup_epochs) / max(recipe.epochs - recipe.warmup_epochs, 1 / n_steps)
    return recipe.learning_rate * cosine_factor(done)
