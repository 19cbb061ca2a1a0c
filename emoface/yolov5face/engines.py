"""Engines that run a network: ONNX Runtime on the CPU, torch on any device, or the reference repository's network.

An engine only maps images to the raw outputs of the heads, so that all engines share one decoding.
"""

from __future__ import annotations

from typing import Any, Protocol

import torch
from torch import nn

from emoface.prefetch import count_usable_cpus
from emoface.vision.arrays import Float32Array
from emoface.yolov5face.folding import fold_batch_norms
from emoface.yolov5face.network import YoloV5Face
from emoface.yolov5face.onnx_files import INPUT_NAME, to_onnx


class Engine(Protocol):
    """Interface of an engine: runs a network on batches of images.

    Attributes:
        max_batch: Maximum number of images per batch; 1 where larger batches gain no speed, as on CPUs.
    """

    max_batch: int

    def run(self, images: Float32Array) -> list[Float32Array]:
        """Computes the raw outputs of the heads.

        Args:
            images: (b, 3, h, w), RGB, 0-1, b of at most ``max_batch``.

        Returns:
            Per level (b, anchors * N_OUTPUTS, h / stride, w / stride), before any sigmoid.
        """
        ...


class OnnxEngine:
    """Runs a network with ONNX Runtime on the CPU."""

    max_batch = 1

    def __init__(self, network: YoloV5Face, n_threads: int | None) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        # Threads that wait actively (spinning) would take CPU time from the threads that decode photos.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.intra_op_num_threads = count_usable_cpus() if n_threads is None else n_threads
        self._session: Any = onnxruntime.InferenceSession(to_onnx(network), options, providers=["CPUExecutionProvider"])

    def run(self, images: Float32Array) -> list[Float32Array]:
        """Computes the raw outputs of the heads, see ``Engine.run``."""
        heads: list[Float32Array] = self._session.run(None, {INPUT_NAME: images})
        return heads


class TorchEngine:
    """Runs a network with torch, on any of its devices, in float32."""

    def __init__(self, network: YoloV5Face, device: torch.device) -> None:
        self._device = device
        self.max_batch = 1 if self._device.type == "cpu" else 16
        self._network = fold_batch_norms(network).to(self._device)

    @torch.inference_mode()
    def run(self, images: Float32Array) -> list[Float32Array]:
        """Computes the raw outputs of the heads, see ``Engine.run``."""
        with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):  # TF32 would shift small boxes
            heads = self._network.raw_heads(torch.from_numpy(images).to(self._device))
        return [head.cpu().numpy() for head in heads]


class HubEngine:
    """Runs the reference repository's own network, see ``hub.load_reference_network``."""

    def __init__(self, reference: nn.Module, device: torch.device) -> None:
        self._device = device
        self.max_batch = 1 if self._device.type == "cpu" else 16
        self._reference = reference.eval().to(self._device)

    @torch.inference_mode()
    def run(self, images: Float32Array) -> list[Float32Array]:
        """Computes the raw outputs of the heads, see ``Engine.run``."""
        _, heads = self._reference(torch.from_numpy(images).to(self._device))  # (b, anchors, gh, gw, N_OUTPUTS)
        return [head.permute(0, 1, 4, 2, 3).flatten(1, 2).float().cpu().numpy() for head in heads]
