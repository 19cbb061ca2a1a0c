"""The names of MTER's streams, models and losses, and the form of their inputs; importable without torch."""

from __future__ import annotations

import typing
from typing import Literal

STREAMS = ("face", "body", "context")
STREAM_SIZES: dict[str, int] = {"face": 128, "body": 128, "context": 224}
"""Side of each stream's square input, pixels."""
IMAGENET_MEAN = (0.485, 0.456, 0.406)
"""RGB, 0-1: subtracted from a photo before the network, as the public checkpoints expect."""
IMAGENET_STD = (0.229, 0.224, 0.225)
"""RGB, 0-1: the photo is divided by it after the subtraction."""

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
    "affective-graph",
    "emoticon",
]
MODEL_NAMES: tuple[str, ...] = typing.get_args(ModelName)

LossKind = Literal["bce", "weighted_euclidean", "asymmetric", "soft_margin"]
LOSS_KINDS: tuple[str, ...] = typing.get_args(LossKind)

LabelWeighting = Literal["none", "kosti", "root", "count", "batch_count", "batch_share"]
"""How the labels are weighted in the loss, see ``Recipe.label_weights``."""
BATCH_WEIGHTINGS: tuple[LabelWeighting, ...] = ("batch_count", "batch_share")
"""Those whose weights are computed from the people of each batch."""

VadLossKind = Literal["smooth_l1", "margin_l2"]
Gate = Literal["sigmoid", "relu", "hard_sigmoid"]
"""Gate of a squeeze-and-excitation unit."""
FaceFill = Literal["mean", "black"]
"""Colour of the blanked face or body in the context: the mean of ImageNet, which is 0 after normalisation, or black."""

DepthForm = Literal["cnn", "gcn"]
"""Network of the depth branch of ``emoticon``: a CNN on the depth map, or a graph network on the photo's people."""
RegionSource = Literal["proposals", "grid"]
"""Where the nodes of ``affective-graph`` come from: region proposals, or a fixed grid over the context stream's map."""

PresetName = Literal["thesis", "modern", "kosti", "caer", "author", "affective-graph", "emoticon"]
"""Names of the training recipes, see ``recipe.PRESETS``."""
