"""The log of a training epoch: a line of ``log.jsonl``, a sentence, and points of curves."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from emoface.schema import DIMENSIONS


@dataclass(frozen=True)
class ValMetrics:
    """Losses and metrics of a model on the people of val.

    Attributes:
        losses: The terms of the loss and their sum ``loss``.
        average_precision: (n_labels,), nan for a label that no person has.
        mean_average_precision: Mean over the labels that at least one person has; nan where there is no such label.
        chance: Chance level of the mean average precision: the mean prevalence of the same labels.
        label_names: The names of the labels.
        average_absolute_error: Errors of valence, arousal, dominance on 1-10; empty if the model has no head for them,
            nan where EMOTIC has no rating.
    """

    losses: dict[str, float]
    average_precision: NDArray[np.float64]
    mean_average_precision: float
    chance: float
    label_names: tuple[str, ...]
    average_absolute_error: tuple[float, ...]


def to_line(epoch: int, learning_rate: float, losses: Mapping[str, float], metrics: ValMetrics) -> dict[str, Any]:
    """Builds an epoch's line of ``log.jsonl``; undefined values are null. The trainer adds the duration of the epoch.

    Args:
        epoch: Index of the epoch, from 0.
        learning_rate: Learning rate of the epoch's last step.
        losses: Mean of each term of the training loss, and their sum ``loss``.
        metrics: Losses and metrics on val.
    """
    line: dict[str, Any] = {
        "epoch": epoch + 1,
        "learning_rate": learning_rate,
        "train_loss": losses["loss"],
        "train_losses": {name: value for name, value in losses.items() if name != "loss"},
        "val_loss": metrics.losses["loss"],
        "val_losses": {name: value for name, value in metrics.losses.items() if name != "loss"},
        "val_map": _or_none(metrics.mean_average_precision),
        "val_chance": _or_none(metrics.chance),
        "val_average_precision": dict(
            zip(metrics.label_names, map(_or_none, metrics.average_precision.tolist()), strict=True)
        ),
    }
    if metrics.average_absolute_error:
        errors = map(_or_none, metrics.average_absolute_error)
        line["val_average_absolute_error"] = dict(zip(DIMENSIONS, errors, strict=True))
    return line


def score_line(line: Mapping[str, Any]) -> float:
    """Scores an epoch, higher is better: mAP on val, or minus the loss on val where the mAP is undefined.

    Example:
        >>> score_line({"val_map": 0.25, "val_loss": 7.0}), score_line({"val_map": None, "val_loss": 7.0})
        (0.25, -7.0)
    """
    precision = line["val_map"]
    return -float(line["val_loss"]) if precision is None else float(precision)


def describe_line(line: Mapping[str, Any], epochs: int) -> str:
    """Summarises an epoch in one sentence; the mAP on val stands beside its chance level."""
    precision = "undefined"
    if line["val_map"] is not None:
        precision = f"{100 * line['val_map']:.2f} (chance {100 * line['val_chance']:.2f})"
    return (
        f"epoch {line['epoch']}/{epochs}: loss {line['train_loss']:.4f}, val loss {line['val_loss']:.4f}, "
        f"val mAP {precision}, {line['images_per_second']:.1f} images/s"
    )


def describe_best(lines: Sequence[Mapping[str, Any]]) -> str:
    """Latest and best mAP on val so far with the chance level, as the end of a sentence; empty before the first epoch.

    Lines of runs that were begun with an earlier version have no chance level.
    """
    reached = [line["val_map"] for line in lines if line["val_map"] is not None]
    chance = lines[-1].get("val_chance") if lines else None
    beside = "" if chance is None else f", chance {100 * chance:.2f}"
    return f", val mAP {100 * reached[-1]:.2f}, best {100 * max(reached):.2f}{beside}" if reached else ""


def to_points(line: Mapping[str, Any]) -> dict[str, float]:
    """Converts an epoch to points of curves, by the name of the curve; undefined values have none."""
    points: dict[str, float | None] = {}
    for side in ("train", "val"):
        points[f"loss/{side}"] = line[f"{side}_loss"]
        points |= {f"loss_terms_{side}/{name}": value for name, value in line[f"{side}_losses"].items()}
    if line["val_map"] is not None:
        points |= {"val/mean_average_precision": line["val_map"], "val/chance_level": line["val_chance"]}
    for name, value in line["val_average_precision"].items():
        points[f"val_average_precision/{name.replace('/', '_')}"] = value
    for name, value in line.get("val_average_absolute_error", {}).items():
        points[f"val_average_absolute_error/{name}"] = value
    points |= {name: line[name] for name in ("learning_rate", "images_per_second")}
    return {name: value for name, value in points.items() if value is not None}


def _or_none(value: float) -> float | None:
    return value if math.isfinite(value) else None
