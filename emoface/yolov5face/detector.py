"""The detector: photos in, faces in the photos' own pixels out, the same faces whatever engine runs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from emoface.errors import SettingsError, did_you_mean
from emoface.learning.devices import pick_device
from emoface.storage.files import file_sha256
from emoface.vision.detections import Detections
from emoface.vision.letterbox import Letterbox
from emoface.yolov5face.decoding import HeadLevel, Thresholds, decode_photo
from emoface.yolov5face.engines import Engine, HubEngine, OnnxEngine, TorchEngine
from emoface.yolov5face.loading import load_network, numbers_path
from emoface.yolov5face.network import YoloV5Face

BACKENDS = ("auto", "onnx", "torch", "hub")


class Detector:
    """Finds faces. A photo's faces do not depend on the photos that it is batched with.

    Attributes:
        name: The network's name.
        backend: What runs it: ``onnx``, ``torch`` or ``hub``.
        weights_sha256: Of the weight file.
    """

    def __init__(
        self,
        network: YoloV5Face,
        engine: Engine,
        *,
        backend: str,
        weights_sha256: str,
        image_size: int,
        thresholds: Thresholds,
    ) -> None:
        self.name = network.name
        self.backend = backend
        self.weights_sha256 = weights_sha256
        self.image_size = image_size
        self.thresholds = thresholds
        self._stride = max(network.strides)
        anchors_net = network.detect.anchor_grid[:, 0, :, 0, 0].cpu().numpy()
        self._levels = tuple(
            HeadLevel(stride, anchors) for stride, anchors in zip(network.strides, anchors_net, strict=True)
        )
        self._engine = engine

    def detect(self, images: Sequence[NDArray[np.uint8]]) -> list[Detections]:
        """Finds the faces of each photo.

        Args:
            images: Each (height, width, 3), RGB, of any size.

        Returns:
            One ``Detections`` per photo, in order, best face first, in pixels of the photo.
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
                heads = self._engine.run(to_network_input([letterboxes[k].apply(images[k]) for k in batch]))
                for place, position in enumerate(batch):
                    own = [head[place] for head in heads]
                    found[position] = decode_photo(own, self._levels, letterboxes[position], self.thresholds)
        return found


def to_network_input(images: Sequence[NDArray[np.uint8]]) -> NDArray[np.float32]:
    """Stacks letterboxed photos of one size, 0-255 (h, w, 3), to 0-1 (b, 3, h, w)."""
    stacked = np.stack(images).transpose(0, 3, 1, 2)
    return np.ascontiguousarray(stacked, dtype=np.float32) / np.float32(255)


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
    """Loads weights of any known format and readies an engine for them.

    Args:
        weights_path: See ``load_network``.
        network: The network's name; found from the weights where it is not given.
        backend: ``onnx`` (ONNX Runtime, CPU), ``torch``, ``hub`` (the reference repository's network), or ``auto``:
            torch where there is CUDA, else onnx.
        image_size: Longer side of the network's input, a multiple of its coarsest stride (32, or 64 for P6 forms).
        conf_threshold: Least objectness x class of a face, 0-1.
        iou_threshold: A face that overlaps a better one by more goes, 0-1.
        device: For torch and hub, see ``learning.devices.pick_device``; None picks CUDA where there is one.
        n_threads: Threads of ONNX Runtime; None leaves it to the library.
        hub_repo: For ``hub``, see ``hub.load_reference_network``.

    Raises:
        WeightsError: The file cannot be read into the network.
        SettingsError: A setting is unknown or out of its range.
    """
    return build_detector(
        load_network(weights_path, network),
        weights_sha256=file_sha256(numbers_path(weights_path)),
        backend=backend,
        image_size=image_size,
        conf_threshold=conf_threshold,
        iou_threshold=iou_threshold,
        device=device,
        n_threads=n_threads,
        hub_repo=hub_repo,
    )


def build_detector(
    network: YoloV5Face,
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
    """Readies an engine for a network that is loaded already; settings as in ``load_detector``.

    Raises:
        SettingsError: A setting is unknown or out of its range.
        WeightsError: The backend cannot take the network.
    """
    if backend not in BACKENDS:
        raise SettingsError(f"backend is {backend!r}{did_you_mean(backend, BACKENDS)}")
    stride = max(network.strides)
    if image_size < stride or image_size % stride:
        raise SettingsError(f"image_size is {image_size}, expected a positive multiple of {stride} for {network.name}")
    for name, value in (("conf_threshold", conf_threshold), ("iou_threshold", iou_threshold)):
        if not 0 <= value <= 1:
            raise SettingsError(f"{name} is {value}, expected 0 to 1")
    if backend == "auto":
        backend = "onnx" if pick_device(device).type == "cpu" else "torch"
    engine: Engine
    if backend == "onnx":
        engine = OnnxEngine(network, n_threads)
    elif backend == "torch":
        engine = TorchEngine(network, pick_device(device))
    else:
        from emoface.yolov5face.hub import load_reference_network

        engine = HubEngine(load_reference_network(network, hub_repo), pick_device(device))
    return Detector(
        network,
        engine,
        backend=backend,
        weights_sha256=weights_sha256,
        image_size=image_size,
        thresholds=Thresholds(conf_threshold, iou_threshold),
    )
