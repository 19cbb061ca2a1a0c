"""Grad-CAM: where in each stream's input the evidence for a label is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from emoface.mter.base import Mter, MterOutput


def grad_cam(
    model: Mter, inputs: Mapping[str, Tensor], has_face: Tensor, labels: Sequence[int]
) -> dict[str, NDArray[np.float32]]:
    """Computes Grad-CAM maps of labels for one person, from the last feature map of each stream.

    A label's logit is differentiated with respect to a stream's last feature map, and the channels are summed with the
    means of their gradients as weights. Negative values, which are evidence against the label, are set to 0. Maps are
    not scaled, so the maps of different labels can be compared within a stream.

    Args:
        model: The model, in evaluation mode; its weights and gradients do not change.
        inputs: Per stream (1, 3, side, side), normalised.
        has_face: (1,) bool; without a face there is no map of the face stream.
        labels: Indices of k labels.

    Returns:
        Per stream that ran, (k, height, width), 0 or more.

    Raises:
        ValueError: There is more than one person.

    Source: Selvaraju et al. 2017, "Grad-CAM", equations 1 and 2.
    """
    if has_face.shape != (1,):
        raise ValueError(f"has_face has shape {tuple(has_face.shape)}, expected (1,): one person at a time")
    maps: dict[str, Tensor] = {}

    def record_map(stream: str) -> object:
        def hook(_module: torch.nn.Module, _inputs: object, result: Tensor) -> Tensor:
            # Pass a copy on, so that a later in-place layer cannot change the map used for differentiation.
            maps[stream] = result if result.requires_grad else result.detach().requires_grad_()
            return maps[stream].clone()

        return hook

    handles = [layer.register_forward_hook(record_map(stream)) for stream, layer in model.last_maps().items()]  # type: ignore[arg-type]
    found: dict[str, list[NDArray[np.float32]]] = {}
    with torch.enable_grad():
        try:
            output: MterOutput = model(inputs, has_face)
        finally:
            for handle in handles:
                handle.remove()
        streams = list(maps)
        for label in labels if streams else ():
            gradients = torch.autograd.grad(
                output.logits[0, label], [maps[stream] for stream in streams], retain_graph=True, materialize_grads=True
            )
            for stream, gradient in zip(streams, gradients, strict=True):
                found.setdefault(stream, []).append(_combine_channels(maps[stream].detach()[0], gradient[0]))
    return {stream: np.stack(values) for stream, values in found.items()}


def _combine_channels(feature_map: Tensor, gradient: Tensor) -> NDArray[np.float32]:
    """Sums the channels weighted by their mean gradients and clamps at 0; two (c, h, w) to (h, w)."""
    weights = gradient.mean(dim=(1, 2), keepdim=True)
    return (weights * feature_map).sum(dim=0).clamp(min=0).float().cpu().numpy()
