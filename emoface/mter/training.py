"""How MTER is trained: recipes, the learning rate of every step, who is in which batch, one epoch, one measurement.

Everything that chance decides follows from the seed and the epoch, so that a run that is broken off between two
epochs goes on as if it had not been.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields, replace
from functools import partial

import numpy as np
import torch
from lightning_fabric import Fabric
from numpy.typing import NDArray
from torch import Tensor, nn

from emoface.datasets.stream_cache import People
from emoface.errors import SettingsError, TrainingError, did_you_mean
from emoface.metrics.multilabel import average_precision, mean_average_precision
from emoface.mter.base import Mter, MterOutput
from emoface.mter.dataset import Augmentation, Batch, Draw, PeopleDataset, iterate_batches
from emoface.mter.losses import LOSS_KINDS, kosti_label_weights, label_losses
from emoface.progress import Progress

OPTIMIZERS = ("sgd", "adamw")
SCHEDULES = ("steps", "cosine")
LABEL_WEIGHTS = ("none", "kosti", "root")
_DECAY_FACTOR = 0.1
_COSINE_FLOOR = 0.01


@dataclass(frozen=True)
class Recipe:
    """All that decides how weights change; the defaults are section 4.4 of the thesis.

    Attributes:
        epochs: Rounds through the training people.
        batch_size: People per step, over all processes.
        optimizer: ``sgd`` or ``adamw``.
        learning_rate: After the warm-up.
        momentum: Of SGD.
        weight_decay: Of the optimizer.
        decays_norms: Whether biases and the parameters of normalisation decay too, as the thesis has it.
        warmup_epochs: Rounds over which the rate grows linearly from 0 to ``learning_rate``.
        schedule: ``steps`` divides the rate by 10 after each of ``decay_epochs``; ``cosine`` falls to a hundredth.
        decay_epochs: Finished rounds after which ``steps`` divides.
        clip_norm: Largest norm of a step's gradient; 0 leaves it as it is.
        loss: ``bce``, ``weighted_euclidean`` (Kosti et al.) or ``asymmetric``.
        stream_weight: Of each stream's own head beside the fusion.
        label_weights: ``none``; ``kosti``, 1 / ln(1.2 + p) of a label's share p in train; ``root``, 1 / sqrt(p) scaled
            to a mean of 1.
        ohem_ratio: Hardest absent labels that count per present one; 0 counts all.
        dropout: Before the last layer of the fusion.
        ema_decay: Of averaged weights, which then are the ones measured and kept; 0 averages nothing.
        freezes_norms: BatchNorm keeps its statistics; for small batches on pretrained weights.
        crop_shares: See ``Augmentation``.
        context_crop_shares: See ``Augmentation``.
        mirror_probability: See ``Augmentation``.
        distort_probability: See ``Augmentation``.
        predicts_vad: A second head learns valence, arousal and dominance.
        vad_weight: Of their loss.
    """

    epochs: int = 120
    batch_size: int = 16
    optimizer: str = "sgd"
    learning_rate: float = 0.001
    momentum: float = 0.9
    weight_decay: float = 0.0005
    decays_norms: bool = True
    warmup_epochs: float = 10.0
    schedule: str = "steps"
    decay_epochs: tuple[float, ...] = (75.0, 100.0, 115.0)
    clip_norm: float = 0.0
    loss: str = "bce"
    stream_weight: float = 0.3
    label_weights: str = "none"
    ohem_ratio: float = 0.0
    dropout: float = 0.5
    ema_decay: float = 0.0
    freezes_norms: bool = False
    crop_shares: tuple[float, float] = (0.3, 1.0)
    context_crop_shares: tuple[float, float] = (1.0, 1.0)
    mirror_probability: float = 0.5
    distort_probability: float = 0.5
    predicts_vad: bool = False
    vad_weight: float = 0.5

    def __post_init__(self) -> None:
        for name in ("decay_epochs", "crop_shares", "context_crop_shares"):
            object.__setattr__(self, name, tuple(float(value) for value in getattr(self, name)))
        for name, least in (("epochs", 1), ("batch_size", 1), ("warmup_epochs", 0), ("ohem_ratio", 0)):
            if getattr(self, name) < least:
                raise SettingsError(f"{name} is {getattr(self, name)}, expected {least} or more")
        for name in ("stream_weight", "clip_norm", "weight_decay", "vad_weight"):
            if not 0 <= getattr(self, name) < math.inf:
                raise SettingsError(f"{name} is {getattr(self, name)}, expected 0 or more")
        if not 0 < self.learning_rate < math.inf:
            raise SettingsError(f"learning_rate is {self.learning_rate}, expected more than 0")
        for name in ("momentum", "dropout", "ema_decay"):
            if not 0 <= getattr(self, name) < 1:
                raise SettingsError(f"{name} is {getattr(self, name)}, expected 0 or more and less than 1")
        for name in ("mirror_probability", "distort_probability"):
            if not 0 <= getattr(self, name) <= 1:
                raise SettingsError(f"{name} is {getattr(self, name)}, expected 0 to 1")
        for name in ("crop_shares", "context_crop_shares"):
            shares = getattr(self, name)
            if len(shares) != 2 or not 0 < shares[0] <= shares[1] <= 1:
                raise SettingsError(f"{name} are {shares}, expected two shares, 0 < smallest <= largest <= 1")
        for name, known in _WORDS.items():
            if getattr(self, name) not in known:
                raise SettingsError(f"{name} is '{getattr(self, name)}'{did_you_mean(getattr(self, name), known)}")
        if self.loss == "weighted_euclidean" and self.label_weights == "none":
            raise SettingsError("loss weighted_euclidean needs label_weights, expected kosti or root, found none")

    @property
    def augmentation(self) -> Augmentation:
        """How inputs are varied."""
        return Augmentation(**{part.name: getattr(self, part.name) for part in fields(Augmentation)})

    def over(self, epochs: int) -> Recipe:
        """The same recipe over another number of rounds: warm-up and steps keep their share of it.

        Example:
            >>> PRESETS["thesis"].over(12).decay_epochs
            (7.5, 10.0, 11.5)
        """
        scale = epochs / self.epochs
        return replace(
            self,
            epochs=epochs,
            warmup_epochs=self.warmup_epochs * scale,
            decay_epochs=tuple(value * scale for value in self.decay_epochs),
        )


_WORDS = {"optimizer": OPTIMIZERS, "schedule": SCHEDULES, "loss": LOSS_KINDS, "label_weights": LABEL_WEIGHTS}

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
"""``thesis``: section 4.4 to the letter. ``modern``: fewer rounds, see ``docs/mter.md`` for what was tried."""


def learning_rate(recipe: Recipe, epoch: int, step: int, n_steps: int) -> float:
    """The rate of one step.

    Args:
        recipe: Its schedule.
        epoch: From 0.
        step: From 0, within the epoch.
        n_steps: Of an epoch.

    Example:
        >>> thesis = PRESETS["thesis"]
        >>> [round(learning_rate(thesis, epoch, 99, 100), 8) for epoch in (0, 9, 74, 75, 100, 115)]
        [0.0001, 0.001, 0.001, 0.0001, 1e-05, 1e-06]
    """
    place = epoch + (step + 1) / n_steps
    if place < recipe.warmup_epochs:
        return recipe.learning_rate * place / recipe.warmup_epochs
    if recipe.schedule == "steps":
        n_decays = sum(place > decay for decay in recipe.decay_epochs)
        return recipe.learning_rate * _DECAY_FACTOR**n_decays
    done = (place - recipe.warmup_epochs) / max(recipe.epochs - recipe.warmup_epochs, 1 / n_steps)
    cosine = 0.5 * (1 + math.cos(math.pi * min(1.0, done)))
    return recipe.learning_rate * (_COSINE_FLOOR + (1 - _COSINE_FLOOR) * cosine)


def build_optimizer(model: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    """The recipe's optimizer over all parameters of a model."""
    parameters = list(model.parameters())
    stays = [] if recipe.decays_norms else [value for value in parameters if value.ndim <= 1]
    decays = parameters if recipe.decays_norms else [value for value in parameters if value.ndim > 1]
    groups = [{"params": decays, "weight_decay": recipe.weight_decay}, {"params": stays, "weight_decay": 0.0}]
    groups = [group for group in groups if group["params"]]
    if recipe.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=recipe.learning_rate, momentum=recipe.momentum)
    return torch.optim.AdamW(groups, lr=recipe.learning_rate)


def weigh_labels(kind: str, indicator: NDArray[np.uint8]) -> NDArray[np.float32] | None:
    """What each label counts in the loss.

    Args:
        kind: See ``Recipe.label_weights``.
        indicator: (n, 26) of the training people, which decides the shares p.

    Returns:
        (26,), or None for ``none``.

    Example:
        >>> weights = weigh_labels("root", np.array([[1, 1], [0, 1], [0, 1], [0, 1]], np.uint8))
        >>> [round(weight, 4) for weight in weights.tolist()]
        [1.3333, 0.6667]
    """
    if kind == "none":
        return None
    share = np.maximum(indicator.sum(axis=0), 1) / max(len(indicator), 1)
    if kind == "kosti":
        return kosti_label_weights(torch.from_numpy(share)).numpy().astype(np.float32)
    return np.asarray(np.sqrt(1 / share) / np.sqrt(1 / share).mean(), np.float32)


def shuffle_labels(people: People, seed: int) -> People:
    """Deals labels, valence, arousal and dominance out among people anew, each person's together.

    What a model learns from such people holds for nobody, so on the true labels it can only guess. One that does better
    has seen them some other way.

    Args:
        people: n of them.
        seed: Decides who gets whose.

    Source: Zhang et al. 2017, randomization tests.
    """
    order = np.random.default_rng(seed).permutation(len(people))
    return replace(people, labels=people.labels[order], vad=people.vad[order])


def draw_epoch(
    positions: NDArray[np.int64], weights: NDArray[np.float64] | None, seed: int, epoch: int
) -> NDArray[np.int64]:
    """The people of an epoch in their order: each once, or drawn by weight with replacement.

    Args:
        positions: (n,) of the people who may be drawn.
        weights: (n,) how often each is drawn, by comparison; None draws each once.
        seed: Of the run.
        epoch: From 0.

    Returns:
        (n,).
    """
    rng = np.random.default_rng((seed, epoch))
    if weights is None:
        return rng.permutation(positions)
    return rng.choice(positions, size=len(positions), p=weights / weights.sum())


def plan_batches(
    drawn: NDArray[np.int64], epoch: int, batch_size: int, rank: int = 0, n_processes: int = 1
) -> list[list[Draw]]:
    """What one process reads in an epoch: its part of every batch.

    The last batch is left out where it is not full, so that every step weighs the same; the order of the next epoch
    leaves out others.

    Args:
        drawn: (n,) the people of the epoch in their order.
        epoch: From 0.
        batch_size: People per step, over all processes.
        rank: Which process.
        n_processes: How many there are; together they read the batches of one.

    Example:
        >>> [[draw.position for draw in batch] for batch in plan_batches(np.arange(9), 0, 4, rank=1, n_processes=2)]
        [[2, 3], [6, 7]]
    """
    part = batch_size // n_processes
    starts = range(rank * part, len(drawn) - batch_size + 1 + rank * part, batch_size)
    return [[Draw(epoch, k, int(drawn[k])) for k in range(start, start + part)] for start in starts]


class AveragedWeights:
    """An exponential moving average of a model, its BatchNorm statistics included.

    The decay grows from 0.1 to its value over the first steps, so that fresh weights are forgotten soon.

    Attributes:
        model: The averaged model, in evaluation mode.
        n_updates: Steps taken.
    """

    def __init__(self, model: Mter, decay: float) -> None:
        self.model = copy.deepcopy(model).eval().requires_grad_(False)
        self.decay = decay
        self.n_updates = 0

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Takes in a model's weights after a step."""
        decay = min(self.decay, (1 + self.n_updates) / (10 + self.n_updates))
        self.n_updates += 1
        ours, theirs = list(self.model.state_dict().values()), list(model.state_dict().values())
        is_float = [value.is_floating_point() for value in ours]
        floats = [[value for value, yes in zip(side, is_float, strict=True) if yes] for side in (ours, theirs)]
        torch._foreach_lerp_(floats[0], floats[1], 1 - decay)
        for mine, other, yes in zip(ours, theirs, is_float, strict=True):
            if not yes:
                mine.copy_(other)


@dataclass(frozen=True)
class LossTerms:
    """The loss of a recipe as a function of answers and truth.

    Attributes:
        recipe: Kind and weights.
        label_weights: (26,), or None.
    """

    recipe: Recipe
    label_weights: Tensor | None

    def __call__(self, output: MterOutput, batch: Batch) -> dict[str, Tensor]:
        """The terms by name; their sum is the loss."""
        recipe = self.recipe
        return label_losses(
            output,
            batch.labels,
            kind=recipe.loss,
            stream_weight=recipe.stream_weight,
            label_weights=self.label_weights,
            ohem_ratio=recipe.ohem_ratio or None,
            has_face=batch.has_face,
            vad_unit=batch.vad_unit if recipe.predicts_vad else None,
            vad_weight=recipe.vad_weight,
        )


def set_training_mode(model: Mter, freezes_norms: bool) -> None:
    """Training mode; BatchNorm stays in evaluation mode where it is frozen."""
    model.train()
    if freezes_norms:
        for part in model.modules():
            if isinstance(part, nn.modules.batchnorm._BatchNorm):
                part.eval()


def train_one_epoch(
    fabric: Fabric,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    averaged: AveragedWeights | None,
    batches: Iterable[Batch],
    rates: Sequence[float],
    terms: LossTerms,
    epoch: int,
    progress: Progress,
    best: str = "",
) -> dict[str, float]:
    """Goes through the training people once.

    Args:
        fabric: Where it runs.
        model: As ``fabric.setup`` gave it, in training mode.
        optimizer: As ``fabric.setup`` gave it.
        averaged: Takes in every step's weights.
        batches: This process's part of every batch.
        rates: The learning rate of each step.
        terms: The loss.
        epoch: From 0, for messages.
        progress: Told of each person, over all processes.
        best: Said behind the loss: what was reached so far.

    Returns:
        The mean of each term of the loss, and of their sum ``loss``.

    Raises:
        TrainingError: A loss is not finite.
    """
    sums: dict[str, float] = {}
    n_steps = 0
    for batch, rate in zip((one.to(fabric.device) for one in batches), rates, strict=True):
        for group in optimizer.param_groups:
            group["lr"] = rate
        losses = terms(model(batch.inputs, batch.has_face), batch)
        total = torch.stack(list(losses.values())).sum()
        values = {"loss": total.item(), **{name: value.item() for name, value in losses.items()}}
        if not math.isfinite(values["loss"]):
            raise TrainingError(_describe_failure(values, batch, epoch, n_steps, rate))
        optimizer.zero_grad()
        fabric.backward(total)
        if terms.recipe.clip_norm:
            fabric.clip_gradients(model, optimizer, max_norm=terms.recipe.clip_norm, error_if_nonfinite=False)
        optimizer.step()
        if averaged is not None:
            averaged.update(_plain(model))
        n_steps += 1
        for name, value in values.items():
            sums[name] = sums.get(name, 0.0) + value
        progress.describe(f"epoch {epoch + 1} of {terms.recipe.epochs}, loss {sums['loss'] / n_steps:.4f}{best}")
        progress.advance(len(batch) * fabric.world_size)
    means = torch.tensor([sums[name] / n_steps for name in sums], dtype=torch.float64)
    means = mean_over_processes(fabric, means)
    return dict(zip(sums, means.tolist(), strict=True))


def mean_over_processes(fabric: Fabric, values: Tensor) -> Tensor:
    """The mean of every process's values; on one process the values themselves."""
    if fabric.world_size == 1:
        return values
    return torch.as_tensor(fabric.all_reduce(values.to(fabric.device), reduce_op="mean")).cpu()


def share_buffers(fabric: Fabric, model: nn.Module) -> None:
    """Gives every process the BatchNorm statistics of the first, where each has counted its own."""
    if fabric.world_size > 1:
        for buffer in model.buffers():
            torch.distributed.broadcast(buffer, src=0)


@dataclass(frozen=True)
class ValMeasures:
    """What a model makes of the people of val.

    Attributes:
        losses: The terms of the loss and their sum ``loss``.
        average_precision: (26,), nan where nobody has the label.
        mean_average_precision: Over the labels that somebody has; nan where there is none.
        average_absolute_error: Of valence, arousal, dominance on 1-10; empty without such a head, nan without truth.
    """

    losses: dict[str, float]
    average_precision: NDArray[np.float64]
    mean_average_precision: float
    average_absolute_error: tuple[float, ...]


@torch.no_grad()
def measure_model(
    fabric: Fabric,
    model: Mter,
    dataset: PeopleDataset,
    positions: NDArray[np.int64],
    terms: LossTerms,
    workers: int,
    progress: Progress,
) -> ValMeasures:
    """Measures a model on people who are not varied; the processes share the work and all know the outcome.

    Args:
        fabric: Where it runs.
        model: In evaluation mode, not wrapped.
        dataset: The people.
        positions: (n,) which of them, n of 1 or more.
        terms: The loss, taken over all n people at once.
        workers: Threads that read.
        progress: Told of each person.
    """
    size, n = terms.recipe.batch_size, len(positions)
    per_process = -(-n // fabric.world_size)
    padded = np.resize(positions, per_process * fabric.world_size)
    own = padded[fabric.global_rank * per_process :][:per_process].tolist()
    outputs: list[MterOutput] = []
    truths: list[Batch] = []
    for batch in iterate_batches(dataset, [own[i : i + size] for i in range(0, len(own), size)], workers):
        on_device = batch.to(fabric.device)
        with fabric.autocast():
            outputs.append(model(on_device.inputs, on_device.has_face))
        truths.append(replace(on_device, pixels={}))
        progress.advance(len(batch) * fabric.world_size)
    gather = partial(_gather, fabric, n)
    output = MterOutput(
        logits=gather([one.logits for one in outputs]),
        stream_logits={name: gather([one.stream_logits[name] for one in outputs]) for name in outputs[0].stream_logits},
        vad_unit=None
        if outputs[0].vad_unit is None
        else gather([one.vad_unit for one in outputs if one.vad_unit is not None]),
    )
    truth = Batch(
        pixels={},
        has_face=gather([one.has_face for one in truths]),
        labels=gather([one.labels for one in truths]),
        vad=gather([one.vad for one in truths]),
        index=gather([one.index.to(fabric.device) for one in truths]),
    )
    losses = {name: value.item() for name, value in terms(output, truth).items()}
    precision = average_precision(truth.labels.cpu().numpy(), output.logits.cpu().numpy())
    return ValMeasures(
        losses={"loss": sum(losses.values()), **losses},
        average_precision=precision,
        mean_average_precision=mean_average_precision(precision),
        average_absolute_error=_vad_errors(output, truth),
    )


def _gather(fabric: Fabric, n: int, parts: list[Tensor]) -> Tensor:
    """All processes' rows, (n, ...), without the padding; in float32, so that half precision does not tie scores."""
    rows = torch.cat([part.float() if part.is_floating_point() else part for part in parts])
    if fabric.world_size > 1:
        parts = [torch.empty_like(rows) for _ in range(fabric.world_size)]
        torch.distributed.all_gather(parts, rows)
        rows = torch.cat(parts)
    return rows[:n]


def _vad_errors(output: MterOutput, truth: Batch) -> tuple[float, ...]:
    if output.vad_unit is None:
        return ()
    errors = (output.vad_unit * 9 + 1 - truth.vad).abs()
    return tuple(errors.nanmean(dim=0).tolist())


def _describe_failure(values: dict[str, float], batch: Batch, epoch: int, step: int, rate: float) -> str:
    terms = ", ".join(f"{name} {value:g}" for name, value in values.items())
    people = " ".join(str(index) for index in batch.index.tolist())
    return (
        f"the loss is not finite in epoch {epoch + 1}, step {step + 1}: {terms}; learning rate {rate:g}; people by "
        f"index: {people}; the weights before this epoch are kept; try a lower --learning-rate or --precision 32"
    )


def _plain(model: nn.Module) -> nn.Module:
    """The network inside what ``fabric.setup`` gave."""
    inner = model.module
    return inner if isinstance(inner, nn.Module) else model
