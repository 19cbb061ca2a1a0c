"""The interface of the engines that run a network, and ONNX Runtime's; those of torch are in ``torch_engines``.

An engine only maps images to the raw outputs of the heads, so that all engines share one decoding.
"""

from __future__ import annotations

from typing import Any, Protocol

from emoface.prefetch import count_usable_cpus
from emoface.vision.arrays import Float32Array
from emoface.yolov5face.graph import INPUT_NAME
from emoface.yolov5face.network_weights import NetworkWeights
from emoface.yolov5face.onnx_files import to_onnx


class Engine(Protocol):
    """Interface of an engine: runs a network on batches of images.

    Attributes:
        max_batch: Maximum number of images per batch; 1 where larger batches gain no speed, as on CPUs.
        uses_one_core: Whether a call uses one core, so that several threads may call ``run`` at the same time.
    """

    max_batch: int
    uses_one_core: bool

    def run(self, images: Float32Array) -> list[Float32Array]:
        """Computes the raw outputs of the heads.

        Args:
            images: (b, 3, h, w), RGB, 0-1, b of at most ``max_batch``.

        Returns:
            Per level (b, anchors * N_OUTPUTS, h / stride, w / stride), before any sigmoid.
        """
        ...


class OnnxEngine:
    """Runs a network with ONNX Runtime on the CPU; torch is not needed. Several threads may call ``run`` at once."""

    max_batch = 1

    def __init__(self, weights: NetworkWeights, n_threads: int | None) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        # Threads that wait actively (spinning) would take CPU time from the threads that decode photos.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.intra_op_num_threads = count_usable_cpus() if n_threads is None else n_threads
        self.uses_one_core = options.intra_op_num_threads == 1
        self._session: Any = onnxruntime.InferenceSession(to_onnx(weights), options, providers=["CPUExecutionProvider"])

    def run(self, images: Float32Array) -> list[Float32Array]:
        """Computes the raw outputs of the heads, see ``Engine.run``."""
        heads: list[Float32Array] = self._session.run(None, {INPUT_NAME: images})
        return heads
