"""The face detector: finds the faces of photos, in pixels of the photos; all engines share one decoding.

Torch is imported only by the engines that run on it, and to look for a GPU.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from emoface.errors import SettingsError, describe_missing_package, did_you_mean
from emoface.storage.files import file_sha256
from emoface.vision.detections import Detections
from emoface.vision.letterbox import Letterbox
from emoface.yolov5face.decoding import Thresholds, decode_photo
from emoface.yolov5face.engines import Engine, OnnxEngine
from emoface.yolov5face.network_weights import NetworkWeights
from emoface.yolov5face.weight_files import hashed_path, read_weights

if TYPE_CHECKING:
    from emoface.yolov5face.network import YoloV5Face

BACKENDS = ("auto", "onnx", "torch", "hub")


class Detector:
    """Finds faces in photos. The result for a photo does not depend on the other photos of its batch.

    Attributes:
        name: Name of the network.
        backend: What runs the network: ``onnx``, ``torch`` or ``hub``.
        weights_sha256: sha256 of the weight file.
        image_size: Longer side of the network's input in pixels.
        thresholds: Minimum score and suppression overlap.
        uses_one_core: Whether a call uses one core, so that several threads may call it at the same time.
    """

    def __init__(
        self,
        weights: NetworkWeights,
        engine: Engine,
        *,
        backend: str,
        weights_sha256: str,
        image_size: int,
        thresholds: Thresholds,
    ) -> None:
        self.name = weights.name
        self.backend = backend
        self.weights_sha256 = weights_sha256
        self.image_size = image_size
        self.thresholds = thresholds
        self.uses_one_core = engine.uses_one_core
        self._stride = max(weights.architecture.strides)
        self._levels = weights.levels
        self._engine = engine

    def detect(self, images: Sequence[NDArray[np.uint8]]) -> list[Detections]:
        """Finds the faces of each photo.

        Args:
            images: Each (height, width, 3), RGB, 0-255, of any size.

        Returns:
            One ``Detections`` per photo, in the order of the photos; faces by descending score, in pixels of the photo.
        """
        letterboxes = [
            Letterbox.fit((image.shape[1], image.shape[0]), self.image_size, self._stride) for image in images
        ]
        same_size: dict[tuple[int, int], list[int]] = {}
        for position, letterbox in enumerate(letterboxes):
            same_size.setdefault(letterbox.net_wh, []).append(position)
        found = [Detections.empty()] * len(images)
        for positions in same_size.values():
            for start in range(0, len(positions), self._engine.max_batch):
                batch = positions[start : start + self._engine.max_batch]
                heads = self._engine.run(to_network_input([(letterboxes[k], images[k]) for k in batch]))
                for place, position in enumerate(batch):
                    own = [head[place] for head in heads]
                    found[position] = decode_photo(own, self._levels, letterboxes[position], self.thresholds)
        return found


def to_network_input(images: Sequence[tuple[Letterbox, NDArray[np.uint8]]]) -> NDArray[np.float32]:
    """Letterboxes photos, each (height, width, 3) and 0-255, to one array (b, 3, h, w) in 0-1.

    Args:
        images: At least one photo with its letterbox; the letterboxes have the same ``net_wh``.
    """
    net_width, net_height = images[0][0].net_wh
    stacked = np.empty((len(images), 3, net_height, net_width), np.float32)
    for (letterbox, image), planes in zip(images, stacked, strict=True):
        letterbox.write_input(image, planes)
    return stacked


def load_detector(
    weights_path: Path,
    *,
    network: str | None = None,
    backend: str = "auto",
    image_size: int = 640,
    conf_threshold: float = 0.5,
    iou_threshold: float = 0.5,
    device: str | None = None,
    n_threads: int | None = None,
    hub_repo: str | None = None,
) -> Detector:
    """Loads a weight file of any known format and builds a detector with it.

    Args:
        weights_path: Weight file, see ``read_weights``.
        network: Name of the network; None recognises it by the shapes of the weights.
        backend: ``onnx`` (ONNX Runtime, CPU), ``torch``, ``hub`` (the reference repository's network), or ``auto``:
            torch if it is installed and CUDA is available, else onnx.
        image_size: Longer side of the network's input in pixels, a multiple of its coarsest stride (32, or 64 for
            networks with a P6 level).
        conf_threshold: Minimum score of a face (objectness times class probability), 0-1.
        iou_threshold: Non-maximum suppression drops a face whose IoU with a face of higher score is above this, 0-1.
        device: Device of the backends torch and hub, see ``learning.devices.pick_device``; None is CUDA if available.
        n_threads: Threads of ONNX Runtime; None is one per CPU that this process may use.
        hub_repo: Repository for the backend ``hub``, see ``hub.load_reference_network``.

    Raises:
        WeightsError: The file cannot be read into the network.
        SettingsError: A setting is unknown or out of its range.
    """
    return build_detector(
        read_weights(weights_path, network),
        weights_sha256=file_sha256(hashed_path(weights_path)),
        backend=backend,
        image_size=image_size,
        conf_threshold=conf_threshold,
        iou_threshold=iou_threshold,
        device=device,
        n_threads=n_threads,
        hub_repo=hub_repo,
    )


def build_detector(
    network: YoloV5Face | NetworkWeights,
    *,
    weights_sha256: str = "",
    backend: str = "auto",
    image_size: int = 640,
    conf_threshold: float = 0.5,
    iou_threshold: float = 0.5,
    device: str | None = None,
    n_threads: int | None = None,
    hub_repo: str | None = None,
) -> Detector:
    """Builds a detector from a network that is already loaded; the settings are those of ``load_detector``.

    Instead of the network its weights may be given, with which the backend ``onnx`` needs no torch.

    Raises:
        SettingsError: A setting is unknown or out of its range.
        WeightsError: The backend cannot run the network.
    """
    if backend not in BACKENDS:
        raise SettingsError(f"backend is {backend!r}{did_you_mean(backend, BACKENDS)}")
    weights = _to_weights(network)
    stride = max(weights.architecture.strides)
    if image_size < stride or image_size % stride:
        raise SettingsError(f"image_size is {image_size}, expected a positive multiple of {stride} for {weights.name}")
    for name, value in (("conf_threshold", conf_threshold), ("iou_threshold", iou_threshold)):
        if not 0 <= value <= 1:
            raise SettingsError(f"{name} is {value}, expected 0 to 1")
    if backend == "auto":
        backend = _choose_backend(device)
    engine = (
        OnnxEngine(weights, n_threads) if backend == "onnx" else _build_torch_engine(weights, backend, device, hub_repo)
    )
    return Detector(
        weights,
        engine,
        backend=backend,
        weights_sha256=weights_sha256,
        image_size=image_size,
        thresholds=Thresholds(conf_threshold, iou_threshold),
    )


def _to_weights(network: YoloV5Face | NetworkWeights) -> NetworkWeights:
    if isinstance(network, NetworkWeights):
        return network
    from emoface.yolov5face.folding import network_weights

    return network_weights(network)


def _choose_backend(device: str | None) -> str:
    """Chooses torch on a GPU, else onnx; a machine without torch has no GPU that could be used."""
    try:
        from emoface.learning.devices import pick_device
    except ModuleNotFoundError as error:
        if describe_missing_package(error) is None or device not in (None, "auto", "cpu"):
            raise
        return "onnx"
    return "onnx" if pick_device(device).type == "cpu" else "torch"


def _build_torch_engine(weights: NetworkWeights, backend: str, device: str | None, hub_repo: str | None) -> Engine:
    from emoface.learning.devices import pick_device
    from emoface.yolov5face.loading import to_network
    from emoface.yolov5face.torch_engines import HubEngine, TorchEngine

    network = to_network(weights)
    if backend == "torch":
        return TorchEngine(network, pick_device(device))
    from emoface.yolov5face.hub import load_reference_network

    return HubEngine(load_reference_network(network, hub_repo), pick_device(device))
