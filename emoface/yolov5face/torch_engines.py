"""Engines of torch: our network on any device, or the reference repository's network."""

from __future__ import annotations

from contextlib import AbstractContextManager

import torch
from torch import nn

from emoface.vision.arrays import Float32Array
from emoface.yolov5face.folding import fold_batch_norms
from emoface.yolov5face.network import YoloV5Face


class TorchEngine:
    """Runs a network with torch, on any of its devices, in float32."""

    uses_one_core = False

    def __init__(self, network: YoloV5Face, device: torch.device) -> None:
        self._device = device
        self.max_batch = 1 if self._device.type == "cpu" else 16
        self._network = fold_batch_norms(network).to(self._device)

    @torch.inference_mode()
    def run(self, images: Float32Array) -> list[Float32Array]:
        """Computes the raw outputs of the heads, see ``Engine.run``."""
        with _full_precision():
            heads = self._network.raw_heads(torch.from_numpy(images).to(self._device))
        return [head.cpu().numpy() for head in heads]


class HubEngine:
    """Runs the reference repository's own network, see ``hub.load_reference_network``."""

    uses_one_core = False

    def __init__(self, reference: nn.Module, device: torch.device) -> None:
        self._device = device
        self.max_batch = 1 if self._device.type == "cpu" else 16
        self._reference = reference.eval().to(self._device)

    @torch.inference_mode()
    def run(self, images: Float32Array) -> list[Float32Array]:
        """Computes the raw outputs of the heads, see ``Engine.run``."""
        with _full_precision():
            _, heads = self._reference(torch.from_numpy(images).to(self._device))  # (b, anchors, gh, gw, N_OUTPUTS)
        return [head.permute(0, 1, 4, 2, 3).flatten(1, 2).float().cpu().numpy() for head in heads]


def _full_precision() -> AbstractContextManager[None]:
    """Convolutions of CUDA in float32; TensorFloat-32, which torch takes by default, would shift small boxes."""
    flags: AbstractContextManager[None] = torch.backends.cudnn.flags(enabled=True, allow_tf32=False)
    return flags
