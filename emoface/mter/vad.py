"""Conversion of valence, arousal and dominance between EMOTIC's scale of 1-10 and the network's scale of 0-1."""

from __future__ import annotations

from torch import Tensor

VAD_LEAST = 1.0
VAD_SPAN = 9.0
"""Difference of the highest and the lowest rating."""


def to_vad_unit(vad: Tensor) -> Tensor:
    """Converts ratings of 1-10 to 0-1; nan stays nan.

    Example:
        >>> import torch
        >>> to_vad_unit(torch.tensor([1.0, 5.5, 10.0])).tolist()
        [0.0, 0.5, 1.0]
    """
    return (vad - VAD_LEAST) / VAD_SPAN


def from_vad_unit(vad_unit: Tensor) -> Tensor:
    """Converts ratings of 0-1 to 1-10; nan stays nan.

    Example:
        >>> import torch
        >>> from_vad_unit(torch.tensor([0.0, 0.5, 1.0])).tolist()
        [1.0, 5.5, 10.0]
    """
    return vad_unit * VAD_SPAN + VAD_LEAST
