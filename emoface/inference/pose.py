"""Providers of the points of people's bodies: which model finds them, and how its input is cropped from the photo.

All of them return the 133 points of ``emoface.vision.whole_body``; those that a provider does not know have confidence
0.
"""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any, Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from emoface.errors import WeightsError
from emoface.inference.onnx_sessions import open_session
from emoface.storage.weights import find_weights
from emoface.vision.arrays import Float32Array
from emoface.vision.crops import Photo
from emoface.vision.whole_body import JOINTS, N_POINTS, no_points, points_of_joints, points_of_landmarks

LANDMARKS = "landmarks"
"""The built-in provider: the five landmarks of the face detector, no pose."""
MARGIN = 1.25
"""Side of the crop of a model, in sides of the body box; of the box's larger side where the input is square."""

_MEAN = np.array([123.675, 116.28, 103.53], np.float32)
_STD = np.array([58.395, 57.12, 57.375], np.float32)
_NO_MODEL = (
    "expected MoveNet for one person (.tflite), or a network with outputs simcc_x and simcc_y such as RTMPose (.onnx)"
)


class PoseProvider(Protocol):
    """Interface of a provider; several threads may call ``find`` at the same time.

    Attributes:
        name: Name of the provider, for the table and for the pages of results.
        sha256: Digest of its model file.
    """

    name: str
    sha256: str

    def find(self, photo: Photo, body_xyxy: Float32Array) -> Float32Array:
        """Finds the points of people.

        Args:
            photo: (height, width, 3), RGB.
            body_xyxy: (n, 4) finite body boxes, pixels.

        Returns:
            (n, 133, 3) x and y in pixels of the photo, and confidence 0-1.
        """
        ...


class MoveNet:
    """MoveNet for one person: 17 joints.

    Source: https://www.tensorflow.org/hub/tutorials/movenet; the model takes RGB and returns y, x and score.
    """

    def __init__(self, path: Path, name: str, sha256: str) -> None:
        self.name, self.sha256 = name, sha256
        self._path = path
        self._local = threading.local()  # an interpreter is not for several threads
        self._check(self._interpreter())

    def find(self, photo: Photo, body_xyxy: Float32Array) -> Float32Array:
        """Finds the joints of people, see ``PoseProvider.find``."""
        interpreter = self._interpreter()
        entry = interpreter.get_input_details()[0]
        size = int(entry["shape"][1])
        found = np.zeros((len(body_xyxy), N_POINTS, 3), np.float32)
        for person, box in enumerate(body_xyxy):
            to_crop = crop_matrix(box, (size, size))
            crop = cv2.warpAffine(photo, to_crop, (size, size), flags=cv2.INTER_LINEAR)
            interpreter.set_tensor(entry["index"], crop[None].astype(entry["dtype"]))
            interpreter.invoke()
            y, x, score = interpreter.get_tensor(interpreter.get_output_details()[0]["index"])[0, 0].T
            joints = np.column_stack([from_crop(np.column_stack([x, y]) * size, to_crop), score])
            found[person] = points_of_joints(joints.astype(np.float32))
        return found

    def _interpreter(self) -> Any:
        if not hasattr(self._local, "interpreter"):
            from ai_edge_litert.interpreter import Interpreter

            try:
                interpreter = Interpreter(str(self._path), num_threads=1)
                interpreter.allocate_tensors()
            except (ValueError, RuntimeError) as error:
                raise WeightsError(f"{self._path}: not a readable TFLite model ({error}); {_NO_MODEL}") from error
            self._local.interpreter = interpreter
        return self._local.interpreter

    def _check(self, interpreter: Any) -> None:
        inputs, outputs = interpreter.get_input_details(), interpreter.get_output_details()
        shapes = [tuple(int(side) for side in one["shape"]) for one in (*inputs, *outputs)]
        is_square = len(shapes) == 2 and len(shapes[0]) == 4 and shapes[0][1] == shapes[0][2] and shapes[0][3] == 3
        if not is_square or shapes[1] != (1, 1, len(JOINTS), 3):
            raise WeightsError(f"{self._path}: inputs and outputs have shapes {shapes}; {_NO_MODEL}")


class SimccPose:
    """A top-down network on ONNX Runtime with one output per axis (SimCC): RTMPose or RTMW, 17 or 133 points.

    Source: Jiang et al. 2023, "RTMPose"; crop, mean and deviation are those of mmpose's configurations. The confidence
    is the lower of both axes' largest values.
    """

    def __init__(self, path: Path, name: str, sha256: str) -> None:
        self.name, self.sha256 = name, sha256
        self._session: Any = open_session(path, _NO_MODEL, n_threads=1)  # one photo per core
        inputs, outputs = self._session.get_inputs(), self._session.get_outputs()
        shape = inputs[0].shape
        has_sides = len(shape) == 4 and all(isinstance(side, int) for side in shape[2:])
        if len(inputs) != 1 or not has_sides or {one.name for one in outputs} != {"simcc_x", "simcc_y"}:
            raise WeightsError(
                f"{path}: input {shape}, outputs {', '.join(one.name for one in outputs)}; {_NO_MODEL} and a fixed "
                "height and width"
            )
        self._n_points = outputs[0].shape[1]
        if self._n_points not in (len(JOINTS), N_POINTS):
            raise WeightsError(f"{path}: finds {self._n_points} points, expected {len(JOINTS)} or {N_POINTS}")
        self._input_name = inputs[0].name
        self._wh = (shape[3], shape[2])

    def find(self, photo: Photo, body_xyxy: Float32Array) -> Float32Array:
        """Finds the points of people, see ``PoseProvider.find``."""
        found = np.zeros((len(body_xyxy), N_POINTS, 3), np.float32)
        for person, box in enumerate(body_xyxy):
            to_crop = crop_matrix(box, self._wh)
            crop = cv2.warpAffine(photo, to_crop, self._wh, flags=cv2.INTER_LINEAR)
            pixels = ((crop.astype(np.float32) - _MEAN) / _STD).transpose(2, 0, 1)[None]
            x, y = self._session.run(["simcc_x", "simcc_y"], {self._input_name: np.ascontiguousarray(pixels)})
            found[person, : self._n_points] = self._decode(x[0], y[0], to_crop)
        return found

    def _decode(self, x: Float32Array, y: Float32Array, to_crop: NDArray[np.float64]) -> Float32Array:
        """Decodes the outputs of one person, (k, width * split) and (k, height * split), to (k, 3)."""
        split = x.shape[1] / self._wh[0]
        places = np.column_stack([x.argmax(axis=1), y.argmax(axis=1)]) / split
        conf = np.clip(np.minimum(x.max(axis=1), y.max(axis=1)), 0, 1)
        points = np.column_stack([from_crop(places, to_crop), conf]).astype(np.float32)
        points[conf <= 0] = 0
        return points


def crop_matrix(xyxy: Float32Array, wh: tuple[int, int], margin: float = MARGIN) -> NDArray[np.float64]:
    """The affine map from a photo to the input of a network: the box with a margin, centred, without distortion.

    Args:
        xyxy: (4,) body box, pixels.
        wh: Width and height of the input.
        margin: Factor for the box before it is completed to the input's aspect ratio.

    Returns:
        (2, 3) matrix for ``cv2.warpAffine``.

    Example:
        >>> crop_matrix(np.array([10, 10, 20, 30], np.float32), (40, 80), margin=2.0).tolist()
        [[2.0, 0.0, -10.0], [0.0, 2.0, 0.0]]
    """
    sides = np.maximum(xyxy[2:] - xyxy[:2], 1).astype(np.float64)
    scale = float((np.array(wh) / (margin * sides)).min())
    shift = np.array(wh) / 2 - scale * (xyxy[:2] + xyxy[2:]).astype(np.float64) / 2
    return np.array([[scale, 0.0, shift[0]], [0.0, scale, shift[1]]])


def from_crop(points: NDArray[Any], to_crop: NDArray[np.float64]) -> NDArray[np.float64]:
    """Maps points (k, 2) from a network's input back to the photo."""
    return np.asarray((points - to_crop[:, 2]) / to_crop[0, 0], np.float64)


def load_pose_provider(name: str, path: Path | None = None) -> PoseProvider:
    """Loads a provider.

    Args:
        name: Name of weights, such as ``movenet-lightning``.
        path: A model file to use instead, a ``.tflite`` or an ``.onnx``.

    Raises:
        WeightsError: The file is missing, damaged, or no model of body points.
    """
    weights = find_weights(name, path)
    kinds: dict[str, type[MoveNet] | type[SimccPose]] = {".tflite": MoveNet, ".onnx": SimccPose}
    kind = kinds.get(weights.path.suffix)
    if kind is None:
        raise WeightsError(f"{weights.path}: type '{weights.path.suffix}' holds no model of body points; {_NO_MODEL}")
    return kind(weights.path, weights.name, weights.sha256)


def find_people(provider: PoseProvider, photo: Photo, body_xyxy: Float32Array) -> Float32Array:
    """Finds the points of all people of a photo; a person without a finite box gets ``no_points``.

    Args:
        provider: The provider.
        photo: (height, width, 3), RGB.
        body_xyxy: (n, 4) body boxes, pixels; nan where a person has none.

    Returns:
        (n, 133, 3).
    """
    points = np.tile(no_points(), (len(body_xyxy), 1, 1))
    has_box = np.isfinite(body_xyxy).all(axis=1)
    if has_box.any():
        points[has_box] = provider.find(photo, body_xyxy[has_box])
    return points


def points_of_faces(landmarks: Float32Array, conf: Float32Array) -> Float32Array:
    """Takes the points of the built-in provider from people's faces; a person without landmarks gets ``no_points``.

    Args:
        landmarks: (n, 5, 2) landmarks of the face detector, pixels; nan where a person has none.
        conf: (n,) score of each face, 0-1; ignored where a person has no landmarks.

    Returns:
        (n, 133, 3).
    """
    points = np.tile(no_points(), (len(landmarks), 1, 1))
    for person in np.flatnonzero(np.isfinite(landmarks).all(axis=(1, 2))).tolist():
        points[person] = points_of_landmarks(landmarks[person], float(conf[person]))
    return points


def round_points(points: Float32Array) -> Float32Array:
    """Rounds x, y and confidence to a hundredth, as ``pose.parquet`` has them."""
    return np.asarray(np.round(points, 2), np.float32)
