"""A model's outputs as numbers: probabilities of the 26 labels, and valence, arousal and dominance."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from emoface.mter.base import Mter, MterOutput
from emoface.mter.dataset import PeopleDataset, iterate_batches
from emoface.mter.vad import from_vad_unit
from emoface.progress import SILENT, Progress
from emoface.schema import DIMENSIONS, N_CATEGORIES


@dataclass(frozen=True)
class ModelOutputs:
    """A model's outputs for n people.

    Attributes:
        probabilities: (n, 26), 0-1; nan for a person whom the model does not see.
        stream_probabilities: Of each stream with a head of its own, (n, 26); the face's is nan without a face.
        vad: (n, 3) valence, arousal, dominance, 1-10; None where the model has no such head.
    """

    probabilities: NDArray[np.float32]
    stream_probabilities: dict[str, NDArray[np.float32]]
    vad: NDArray[np.float32] | None


@torch.inference_mode()
def forward_batch(model: Mter, inputs: Mapping[str, Tensor], has_face: Tensor) -> ModelOutputs:
    """A model's outputs for one batch.

    Args:
        model: In evaluation mode.
        inputs: Per stream (b, 3, side, side), normalised, on the model's device.
        has_face: (b,) bool.
    """
    output: MterOutput = model(inputs, has_face)
    face = has_face.cpu().numpy()
    streams = {name: _to_probabilities(logits) for name, logits in output.stream_logits.items()}
    if "face" in streams:
        streams["face"][~face] = np.nan
    probabilities = _to_probabilities(output.logits)
    vad = None if output.vad_unit is None else from_vad_unit(output.vad_unit.float()).cpu().numpy()
    unseen = ~model.sees_people(face)
    probabilities[unseen] = np.nan
    if vad is not None:
        vad[unseen] = np.nan
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
    """A model's outputs for people of a data set, not augmented.

    Args:
        model: In evaluation mode.
        dataset: The people as the model reads them.
        positions: (n,) which of them.
        batch_size: People per step.
        workers: Threads that read ahead.
        progress: Told of each person.
    """
    device = next(model.parameters()).device
    chosen = positions.tolist()
    plan = [chosen[start : start + batch_size] for start in range(0, len(chosen), batch_size)]
    parts = []
    for batch in iterate_batches(dataset, plan, workers):
        moved = batch.to(device)
        parts.append(forward_batch(model, moved.inputs, moved.has_face))
        progress.advance(len(batch))
    if not parts:
        return ModelOutputs(np.zeros((0, N_CATEGORIES), np.float32), {}, None)
    vads = [part.vad for part in parts if part.vad is not None]
    return ModelOutputs(
        probabilities=np.concatenate([part.probabilities for part in parts]),
        stream_probabilities={
            name: np.concatenate([part.stream_probabilities[name] for part in parts])
            for name in parts[0].stream_probabilities
        },
        vad=np.concatenate(vads).reshape(-1, len(DIMENSIONS)) if vads else None,
    )


def _to_probabilities(logits: Tensor) -> NDArray[np.float32]:
    # In double precision, so that large logits stay apart for as long as float32 can tell them apart from 1.
    return logits.double().sigmoid().float().cpu().numpy()
