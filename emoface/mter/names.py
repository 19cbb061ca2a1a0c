"""The names of MTER's streams, models and losses, and the sizes of inputs; importable without torch."""

from __future__ import annotations

import typing
from typing import Literal

STREAMS = ("face", "body", "context")
STREAM_SIZES: dict[str, int] = {"face": 128, "body": 128, "context": 224}
"""Side of each stream's square input, pixels."""

ModelName = Literal[
    "task1",
    "task2",
    "task3",
    "task1+task2",
    "task1+task3",
    "task2+task3",
    "mter1",
    "mter2",
    "kosti",
    "caer-net-s",
]
MODEL_NAMES: tuple[str, ...] = typing.get_args(ModelName)

LossKind = Literal["bce", "weighted_euclidean", "asymmetric"]
LOSS_KINDS: tuple[str, ...] = typing.get_args(LossKind)
