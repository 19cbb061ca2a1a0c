"""What every model of people's emotions has in common: its streams, its inputs and its outputs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from emoface.mter.blocks import Backbone
from emoface.mter.names import STREAMS

IMAGENET_MEAN = (0.485, 0.456, 0.406)
"""RGB, 0-1: subtracted from a photo before it goes in, as the public checkpoints expect."""
IMAGENET_STD = (0.229, 0.224, 0.225)
"""RGB, 0-1: what the photo is divided by then."""


class MterOutput(NamedTuple):
    """A model's output for b people.

    Attributes:
        logits: (b, 26), of the whole system.
        stream_logits: Of each stream that has a head of its own, (b, 26).
        vad_unit: (b, 3), valence, arousal, dominance 0-1; None where the model has no such head.
    """

    logits: Tensor
    stream_logits: dict[str, Tensor]
    vad_unit: Tensor | None


class Mter(nn.Module):
    """A model that reads some of the three streams and gives the logits of a person's 26 categories.

    Attributes:
        name: As in ``names.MODEL_NAMES``.
        streams: The inputs that it reads, in the order of ``STREAMS``.
        masks_face_in_context: Whether the context input must come with the person's face blanked.
    """

    def __init__(self, name: str, streams: tuple[str, ...], *, masks_face_in_context: bool = False) -> None:
        super().__init__()
        self.name = name
        self.streams = tuple(stream for stream in STREAMS if stream in streams)
        self.masks_face_in_context = masks_face_in_context

    def forward(self, inputs: Mapping[str, Tensor], has_face: Tensor) -> MterOutput:
        """The output for b people.

        Args:
            inputs: Per stream (b, 3, s, s), RGB, normalised by ``IMAGENET_MEAN`` and ``IMAGENET_STD``.
            has_face: (b,) bool; where False the face input is not looked at, in training and in evaluation.
        """
        raise NotImplementedError

    @property
    def reads_face_alone(self) -> bool:
        """Whether it sees nothing of a person without a face."""
        return self.streams == ("face",)

    def sees_people(self, has_face: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Which people it is trained and measured on: those with a face if it reads the face alone, else everybody.

        Args:
            has_face: (n,).

        Returns:
            (n,).
        """
        return has_face if self.reads_face_alone else np.ones_like(has_face)

    def backbones(self) -> dict[str, Backbone]:
        """The network of each stream up to its feature."""
        raise NotImplementedError

    def last_maps(self) -> dict[str, nn.Module]:
        """Per stream the layer whose output is its last feature map, for class activation maps."""
        return {stream: backbone.last_map for stream, backbone in self.backbones().items()}


def need_inputs(model: Mter, inputs: Mapping[str, Tensor], has_face: Tensor) -> None:
    """Checks what a model is given.

    Raises:
        ValueError: A stream is missing, or shapes or types do not fit.
    """
    for stream in model.streams:
        if stream not in inputs:
            raise ValueError(f"{model.name} reads {', '.join(model.streams)}; no '{stream}' among {sorted(inputs)}")
        x = inputs[stream]
        if x.ndim != 4 or x.shape[1] != 3 or x.shape[0] != has_face.shape[0]:
            raise ValueError(f"'{stream}' has shape {tuple(x.shape)}, expected ({has_face.shape[0]}, 3, side, side)")
    if has_face.dtype != torch.bool or has_face.ndim != 1:
        raise ValueError(f"has_face is {has_face.dtype} of shape {tuple(has_face.shape)}, expected bool of (b,)")


def masked_features(backbone: Backbone, x: Tensor, has_face: Tensor) -> Tensor:
    """Features of the people with a face, zeros for the others.

    The backbone runs on rows with a face alone, so the others reach neither its BatchNorm statistics nor its
    gradients. With none in the batch, its parameters stay in the graph with gradients of zero while training: all
    processes of a distributed run then reduce the same tensors.

    Args:
        backbone: (n, 3, s, s) to (n, n_features).
        x: (b, 3, s, s).
        has_face: (b,) bool.

    Returns:
        (b, n_features).
    """
    if bool(has_face.all()):
        features: Tensor = backbone(x) if len(x) else x.new_zeros(0, backbone.n_features)
        return features
    rows = has_face.nonzero().squeeze(1)
    if len(rows):
        seen = backbone(x[rows])
        return torch.zeros(len(x), seen.shape[1], dtype=seen.dtype, device=seen.device).index_copy(0, rows, seen)
    features = x.new_zeros(len(x), backbone.n_features)
    if backbone.training and torch.is_grad_enabled():
        features = features + 0.0 * torch.stack([one.sum() for one in backbone.parameters()]).sum()
    return features
