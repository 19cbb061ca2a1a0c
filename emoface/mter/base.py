"""The interface of every emotion model: its streams, its inputs and its outputs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from emoface.mter.blocks import Backbone
from emoface.mter.names import STREAMS, FaceFill


@dataclass(frozen=True)
class ContextInput:
    """How the photo becomes the input of a model's context stream.

    Attributes:
        masks_face: Whether the person's face is blanked.
        face_fill: Colour of the blanked face.
        center_share: Side of the central square that the network sees in evaluation, as a share of the photo's side;
            with 1 it is the whole photo. In training the recipe's random crop takes its place.
    """

    masks_face: bool = False
    face_fill: FaceFill = "mean"
    center_share: float = 1.0


class MterOutput(NamedTuple):
    """A model's output for b people.

    Attributes:
        logits: (b, 26), logits of the whole model; of a model with linear outputs, estimates of the 0 or 1 themselves.
        stream_logits: Per stream with its own head, (b, 26) logits of that head, in the same sense.
        vad_unit: (b, 3), valence, arousal, dominance, where 0 is a rating of 1 and 1 a rating of 10; linear outputs can
            be outside. None where the model has no head for them.
    """

    logits: Tensor
    stream_logits: dict[str, Tensor]
    vad_unit: Tensor | None


class Mter(nn.Module):
    """A model that takes some of the three streams as input and returns logits of a person's 26 categories.

    Attributes:
        name: One of ``names.MODEL_NAMES``.
        streams: The streams that it takes as input, in the order of ``STREAMS``.
        context_input: How the photo becomes the input of the context stream.
        has_linear_outputs: Whether the outputs are used as they are, without a sigmoid, in training and in evaluation.
    """

    def __init__(
        self,
        name: str,
        streams: tuple[str, ...],
        *,
        context_input: ContextInput | None = None,
        has_linear_outputs: bool = False,
    ) -> None:
        super().__init__()
        self.name = name
        self.streams = tuple(stream for stream in STREAMS if stream in streams)
        self.context_input = context_input or ContextInput()
        self.has_linear_outputs = has_linear_outputs

    def forward(self, inputs: Mapping[str, Tensor], has_face: Tensor) -> MterOutput:
        """Computes the output for b people.

        Args:
            inputs: Per stream (b, 3, s, s), RGB, normalised by ``IMAGENET_MEAN`` and ``IMAGENET_STD``.
            has_face: (b,) bool; where False the face input is ignored, in training and in evaluation. On the CPU the
                call does not wait for a GPU; on the GPU it does.
        """
        raise NotImplementedError

    def to_vad_unit(self, vad_output: Tensor) -> Tensor:
        """Converts the outputs of the head for valence, arousal and dominance, (b, 3), to ``MterOutput.vad_unit``."""
        return vad_output if self.has_linear_outputs else vad_output.sigmoid()

    @property
    def reads_face_alone(self) -> bool:
        """Whether the face is its only input, so that it cannot use people without a face."""
        return self.streams == ("face",)

    def select_people(self, has_face: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Selects the people that the model can be trained and evaluated on.

        These are the people with a face if the face is the only input, else all people.

        Args:
            has_face: (n,) bool.

        Returns:
            (n,) bool.
        """
        return has_face if self.reads_face_alone else np.ones_like(has_face)

    def backbones(self) -> dict[str, Backbone]:
        """Per stream, the network that computes the stream's features."""
        raise NotImplementedError

    def last_maps(self) -> dict[str, nn.Module]:
        """Per stream, the layer whose output is the last feature map, for class activation maps."""
        return {stream: backbone.last_map for stream, backbone in self.backbones().items()}


def check_inputs(model: Mter, inputs: Mapping[str, Tensor], has_face: Tensor) -> None:
    """Checks the inputs of a model.

    Raises:
        ValueError: A stream is missing, or a shape or type is wrong.
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
    """Computes the features of the people with a face; the features of the others are zeros.

    The backbone runs only on rows with a face, so the other rows affect neither its BatchNorm statistics nor its
    gradients. If no person of a training batch has a face, the parameters stay in the graph with gradients of zero, so
    that all processes of a distributed run reduce the same tensors.

    Args:
        backbone: Network from (n, 3, s, s) to (n, n_features).
        x: (b, 3, s, s).
        has_face: (b,) bool.

    Returns:
        (b, n_features).
    """
    if bool(has_face.all()):
        features: Tensor = backbone(x) if len(x) else x.new_zeros(0, backbone.n_features)
        return features
    rows = has_face.nonzero().squeeze(1).to(x.device, non_blocking=True)
    if len(rows):
        found = backbone(x[rows])
        return torch.zeros(len(x), found.shape[1], dtype=found.dtype, device=found.device).index_copy(0, rows, found)
    features = x.new_zeros(len(x), backbone.n_features)
    if backbone.training and torch.is_grad_enabled():
        features = features + 0.0 * torch.stack([one.sum() for one in backbone.parameters()]).sum()
    return features
