"""Providers of depth: how near each part of a photo is, relative to its other parts."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol

import cv2
import numpy as np

from emoface.errors import WeightsError
from emoface.inference.onnx_sessions import open_session
from emoface.schema import NEARNESS_SIDE
from emoface.storage.weights import find_weights
from emoface.vision.arrays import Float32Array
from emoface.vision.crops import Photo

BOXES = "boxes"
"""The built-in provider: the height of the people's body boxes, nothing between them."""

_USUAL_SIDE = 518  # of Depth Anything, for models of any height and width; a multiple of 14
_MEAN = np.array([0.485, 0.456, 0.406], np.float32)
_STD = np.array([0.229, 0.224, 0.225], np.float32)
_NO_MODEL = (
    "expected a network that takes (1, 3, height, width) and returns one map of inverse depth, such as "
    "Depth-Anything-V2-Small or MiDaS-small (.onnx)"
)


class DepthProvider(Protocol):
    """Interface of a provider; several threads may call ``find`` at the same time.

    Attributes:
        name: Name of the provider, for the table and for the pages of results.
        sha256: Digest of its model file.
    """

    name: str
    sha256: str

    def find(self, photo: Photo) -> Float32Array:
        """Finds the inverse depth of a photo, (height, width, 3) RGB to (h, w) of any size: larger is nearer."""
        ...


class OnnxDepth:
    """A network of relative inverse depth on ONNX Runtime: Depth Anything V2 or MiDaS.

    Source: Yang et al. 2024, "Depth Anything V2"; Ranftl et al. 2020, "Towards Robust Monocular Depth Estimation". Both
    normalise by ImageNet's mean and deviation. The photo is scaled to the network's square input.
    """

    def __init__(self, path: Path, name: str, sha256: str) -> None:
        self.name, self.sha256 = name, sha256
        self._session: Any = open_session(path, _NO_MODEL, n_threads=1)  # one photo per core
        inputs, outputs = self._session.get_inputs(), self._session.get_outputs()
        shape = inputs[0].shape
        is_map = len(outputs) >= 1 and len(outputs[0].shape) in (3, 4)
        if len(inputs) != 1 or len(shape) != 4 or shape[1] != 3 or not is_map:
            raise WeightsError(f"{path}: input {shape}, output {outputs[0].shape}; {_NO_MODEL}")
        self._input_name, self._output_name = inputs[0].name, outputs[0].name
        height, width = (side if isinstance(side, int) else _USUAL_SIDE for side in shape[2:])
        self._wh = (width, height)

    def find(self, photo: Photo) -> Float32Array:
        """Finds the inverse depth of a photo, see ``DepthProvider.find``."""
        is_smaller = photo.shape[0] > self._wh[1] and photo.shape[1] > self._wh[0]
        interpolation = cv2.INTER_AREA if is_smaller else cv2.INTER_CUBIC
        scaled = cv2.resize(photo, self._wh, interpolation=interpolation)
        pixels = (scaled.astype(np.float32) / 255 - _MEAN) / _STD
        inputs = {self._input_name: np.ascontiguousarray(pixels.transpose(2, 0, 1)[None], np.float32)}
        found: Float32Array = np.squeeze(self._session.run([self._output_name], inputs)[0]).astype(np.float32)
        if found.ndim != 2 or not np.isfinite(found).all():
            raise WeightsError(f"{self.name}: returned an array of shape {found.shape} or values that are not finite")
        return found


def load_depth_provider(name: str, path: Path | None = None) -> DepthProvider:
    """Loads a model of depth.

    Args:
        name: Name of weights on this machine.
        path: An ``.onnx`` file to use instead.

    Raises:
        WeightsError: The file is missing, damaged, or no model of depth.
    """
    weights = find_weights(name, path)
    if weights.path.suffix != ".onnx":
        raise WeightsError(f"{weights.path}: type '{weights.path.suffix}' holds no model of depth; {_NO_MODEL}")
    return OnnxDepth(weights.path, weights.name, weights.sha256)


def to_nearness(inverse_depth: Float32Array) -> Photo:
    """Scales a map to 256 x 256 pixels of 8 bits, from 0 for its farthest to 255 for its nearest point.

    Args:
        inverse_depth: (h, w), larger is nearer; a map of one value becomes 0.

    Example:
        >>> to_nearness(np.array([[1.0, 3.0], [1.0, 2.0]], np.float32))[[0, 0, -1], [0, -1, -1]].tolist()
        [0, 255, 128]
    """
    low, high = float(inverse_depth.min()), float(inverse_depth.max())
    shares = (inverse_depth - low) / (high - low) if high > low else np.zeros_like(inverse_depth)
    return scale_map(np.round(255 * shares).astype(np.uint8))


def scale_map(nearness: Photo) -> Photo:
    """Scales a map of 8 bits, (h, w), to 256 x 256 pixels."""
    side = NEARNESS_SIDE
    is_larger = nearness.shape[0] > side and nearness.shape[1] > side
    interpolation = cv2.INTER_AREA if is_larger else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(nearness, (side, side), interpolation=interpolation), np.uint8)


def nearness_of_boxes(body_xyxy: Float32Array, wh: tuple[int, int]) -> Photo:
    """Draws body boxes as a map: the height of a box as a share of the photo's is its nearness, taller ones in front.

    Args:
        body_xyxy: (n, 4) body boxes, pixels; nan where a person has none.
        wh: Width and height of the photo, pixels.

    Returns:
        (256, 256) uint8; 0 outside the boxes.

    Example:
        >>> nearness = nearness_of_boxes(np.array([[0, 0, 50, 50], [40, 0, 80, 100]], np.float32), (100, 100))
        >>> nearness[10, [0, 110, 250]].tolist()
        [128, 255, 0]
    """
    nearness = np.zeros((NEARNESS_SIDE, NEARNESS_SIDE), np.uint8)
    boxes = body_xyxy[np.isfinite(body_xyxy).all(axis=1)]
    heights = (boxes[:, 3] - boxes[:, 1]) / wh[1]
    for number in np.argsort(heights, kind="stable").tolist():
        x1, y1, x2, y2 = np.clip(boxes[number] / np.array([*wh, *wh]), 0, 1) * NEARNESS_SIDE
        rows, columns = slice(int(y1), int(np.ceil(y2))), slice(int(x1), int(np.ceil(x2)))
        nearness[rows, columns] = round(255 * float(np.clip(heights[number], 0, 1)))
    return nearness
