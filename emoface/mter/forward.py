"""A model's outputs as numbers: probabilities of the 26 labels, and valence, arousal and dominance."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from emoface.mter.base import Mter, MterOutput
from emoface.mter.dataset import PeopleDataset, iterate_batches, move_ahead
from emoface.mter.vad import from_vad_unit
from emoface.progress import SILENT, Progress
from emoface.schema import DIMENSIONS

_LINEAR_TAIL = 0.02
"""Linear outputs below this, or above 1 minus this, are drawn towards 0 and 1."""


@dataclass(frozen=True)
class ModelOutputs:
    """A model's outputs for n people.

    Attributes:
        probabilities: (n, 26), 0-1; nan for a person that the model cannot use. Those of linear outputs are
            ``linear_to_probabilities`` of the outputs.
        stream_probabilities: Per stream with its own head, (n, 26); those of the face are nan without a face.
        vad: (n, 3) valence, arousal, dominance, 1-10; None where the model has no head for them.
    """

    probabilities: NDArray[np.float32]
    stream_probabilities: dict[str, NDArray[np.float32]]
    vad: NDArray[np.float32] | None


@torch.inference_mode()
def forward_batch(model: Mter, inputs: Mapping[str, Tensor], has_face: Tensor) -> ModelOutputs:
    """Computes the outputs of a model for one batch.

    Args:
        model: The model, in evaluation mode.
        inputs: Per stream (b, 3, side, side), normalised, on the model's device.
        has_face: (b,) bool.
    """
    output: MterOutput = model(inputs, has_face)
    face = has_face.cpu().numpy()
    streams = {
        name: to_probabilities(logits, model.has_linear_outputs).cpu().numpy()
        for name, logits in output.stream_logits.items()
    }
    if "face" in streams:
        streams["face"][~face] = np.nan
    probabilities = to_probabilities(output.logits, model.has_linear_outputs).cpu().numpy()
    vad = None if output.vad_unit is None else from_vad_unit(output.vad_unit.float()).cpu().numpy()
    unusable = ~model.select_people(face)
    probabilities[unusable] = np.nan
    if vad is not None:
        vad[unusable] = np.nan
    return ModelOutputs(probabilities, streams, vad)


def forward_people(
    model: Mter,
    dataset: PeopleDataset,
    positions: NDArray[np.int64],
    *,
    batch_size: int = 64,
    workers: int = 0,
    progress: Progress = SILENT,
) -> ModelOutputs:
    """Computes the outputs of a model for people of a data set, without augmentation.

    Args:
        model: The model, in evaluation mode.
        dataset: The people, with the input streams of the model.
        positions: (n,) positions of the people in ``dataset``.
        batch_size: People per batch.
        workers: Number of threads that read ahead.
        progress: Receives one step per person.
    """
    device = next(model.parameters()).device
    chosen = positions.tolist()
    plan = [chosen[start : start + batch_size] for start in range(0, len(chosen), batch_size)]
    parts = []
    batches = iterate_batches(dataset, plan, workers, pins_memory=device.type == "cuda")
    for batch in move_ahead(batches, device):
        parts.append(forward_batch(model, batch.inputs, batch.has_face))
        progress.advance(len(batch))
    if not parts:
        return ModelOutputs(np.zeros((0, model.n_labels), np.float32), {}, None)
    vads = [part.vad for part in parts if part.vad is not None]
    return ModelOutputs(
        probabilities=np.concatenate([part.probabilities for part in parts]),
        stream_probabilities={
            name: np.concatenate([part.stream_probabilities[name] for part in parts])
            for name in parts[0].stream_probabilities
        },
        vad=np.concatenate(vads).reshape(-1, len(DIMENSIONS)) if vads else None,
    )


def linear_to_probabilities(outputs: Tensor) -> NDArray[np.float32]:
    """Converts linear outputs, which estimate a label's 0 or 1 and may be outside, to probabilities between 0 and 1.

    An output of 0.02-0.98 is the probability itself. Beyond, the probability approaches 0 or 1 as ``0.02^2 / (0.04 -
    x)`` does and never reaches it, so that the order of the outputs, on which average precision depends, is kept.
    Clipping would give all outputs below 0 the same probability.

    Args:
        outputs: (b, 26).

    Returns:
        (b, 26).

    Example:
        >>> [round(value, 4) for value in linear_to_probabilities(torch.tensor([-0.36, 0.0, 0.5, 1.0])).tolist()]
        [0.001, 0.01, 0.5, 0.99]
    """
    return to_probabilities(outputs, is_linear=True).cpu().numpy()


def to_probabilities(logits: Tensor, is_linear: bool) -> Tensor:
    """Converts outputs to probabilities.

    They are computed in double precision, so that the probabilities of large logits differ for as long as float32 can
    represent it.

    Args:
        logits: (b, 26), see ``MterOutput.logits``.
        is_linear: Whether they are linear outputs, see ``linear_to_probabilities``; else logits.

    Returns:
        (b, 26) float32, 0-1.
    """
    x = logits.double()
    if not is_linear:
        return x.sigmoid().float()
    low = _LINEAR_TAIL**2 / (2 * _LINEAR_TAIL - x.clamp(max=_LINEAR_TAIL))
    high = 1 - _LINEAR_TAIL**2 / (2 * _LINEAR_TAIL - (1 - x).clamp(max=_LINEAR_TAIL))
    inside = torch.where(x > 1 - _LINEAR_TAIL, high, x)
    return torch.where(x < _LINEAR_TAIL, low, inside).float()
