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
    """Maps of what speaks for labels of one person, from the last feature map of each stream.

    A label's logit is differentiated with respect to a stream's last feature map; each channel is weighed by the mean
    of its gradients; what is negative speaks against the label and is cut. Maps are not scaled, so those of one label
    can be held against each other within a stream.

    Args:
        model: In evaluation mode; its weights and gradients are left as they are.
        inputs: Per stream (1, 3, side, side), normalised.
        has_face: (1,) bool; without a face there is no map of the face.
        labels: Positions of k labels.

    Returns:
        Per stream that the model sees something in, (k, height, width), 0 or more.

    Raises:
        ValueError: There is more than one person.

    Source: Selvaraju et al. 2017, "Grad-CAM", equations 1 and 2.
    """
    if has_face.shape != (1,):
        raise ValueError(f"has_face has shape {tuple(has_face.shape)}, expected (1,): one person at a time")
    maps: dict[str, Tensor] = {}

    def keep(stream: str) -> object:
        def hook(_module: torch.nn.Module, _given: object, result: Tensor) -> Tensor:
            # A copy, so that a layer that works in place cannot change the map that is differentiated by.
            maps[stream] = result if result.requires_grad else result.detach().requires_grad_()
            return maps[stream].clone()

        return hook

    handles = [layer.register_forward_hook(keep(stream)) for stream, layer in model.last_maps().items()]  # type: ignore[arg-type]
    found: dict[str, list[NDArray[np.float32]]] = {}
    with torch.enable_grad():
        try:
            output: MterOutput = model(inputs, has_face)
        finally:
            for handle in handles:
                handle.remove()
        seen = list(maps)
        for label in labels if seen else ():
            gradients = torch.autograd.grad(
                output.logits[0, label], [maps[stream] for stream in seen], retain_graph=True, materialize_grads=True
            )
            for stream, gradient in zip(seen, gradients, strict=True):
                found.setdefault(stream, []).append(_weigh(maps[stream].detach()[0], gradient[0]))
    return {stream: np.stack(values) for stream, values in found.items()}


def _weigh(feature_map: Tensor, gradient: Tensor) -> NDArray[np.float32]:
    """Sum over channels, each by its mean gradient, cut at 0; two (c, h, w) to (h, w)."""
    weights = gradient.mean(dim=(1, 2), keepdim=True)
    return (weights * feature_map).sum(dim=0).clamp(min=0).float().cpu().numpy()
