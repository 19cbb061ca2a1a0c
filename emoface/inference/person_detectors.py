"""Detectors of people: networks on ONNX Runtime that find the body boxes of a photo.

Three forms of files are known by their inputs and outputs: YOLOX, and RT-DETR as its authors and as Hugging Face export
it. All were trained on COCO, whose first category is the person; the other categories are not used.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import cv2
import numpy as np

from emoface.errors import WeightsError
from emoface.inference.onnx_sessions import open_session
from emoface.storage.weights import find_weights
from emoface.vision.arrays import Float32Array
from emoface.vision.boxes import box_areas, clip_boxes, nms_boxes
from emoface.vision.crops import Photo
from emoface.vision.letterbox import PAD_VALUE

_USUAL_SIDE = 640  # of files for any height and width
_PERSON = 0
_N_CATEGORIES = (80, 1)  # of COCO, or people alone
_STRIDES = ((8, 16, 32), (8, 16, 32, 64))
_NMS_IOU = 0.45
_NO_MODEL = (
    "expected YOLOX (one output of 85 columns), or RT-DETR (inputs images and orig_target_sizes, outputs labels, boxes "
    "and scores; or outputs logits and pred_boxes), trained on COCO (.onnx)"
)


@dataclass(frozen=True)
class FoundPeople:
    """The people of one photo.

    Attributes:
        xyxy: (n, 4) body boxes inside the photo, pixels; from left to right.
        conf: (n,) scores, 0-1.
    """

    xyxy: Float32Array
    conf: Float32Array


class PersonDetector(Protocol):
    """Interface of a detector of people.

    Attributes:
        name: Name of its weights.
        sha256: Digest of its file.
    """

    name: str
    sha256: str

    def find(self, photo: Photo) -> FoundPeople:
        """Finds the people of a photo, (height, width, 3) RGB."""
        ...


class _OnnxDetector:
    """What the detectors share: the session, and the choice of the boxes."""

    def __init__(self, session: Any, path: Path, name: str, sha256: str, conf_threshold: float) -> None:
        self.name, self.sha256 = name, sha256
        self._session = session
        self._path = path
        self._conf_threshold = conf_threshold
        shape = session.get_inputs()[0].shape
        height, width = (side if isinstance(side, int) else _USUAL_SIDE for side in shape[2:])
        self._wh = (width, height)

    def _run(self, inputs: dict[str, Any]) -> dict[str, Any]:
        """Runs the network on one photo; returns the outputs of that photo by name."""
        outputs = self._session.run(None, inputs)
        return {one.name: array[0] for one, array in zip(self._session.get_outputs(), outputs, strict=True)}

    def _choose(self, photo: Photo, xyxy: Float32Array, conf: Float32Array, nms_iou: float | None) -> FoundPeople:
        """Chooses the boxes of enough score, in pixels of the photo, and sorts them."""
        boxes = clip_boxes(np.asarray(xyxy, np.float32), (photo.shape[1], photo.shape[0]))
        is_person = (conf >= self._conf_threshold) & np.isfinite(boxes).all(axis=1) & (box_areas(boxes) > 0)
        boxes, conf = boxes[is_person], np.asarray(conf[is_person], np.float32)
        if nms_iou is not None:
            kept = nms_boxes(boxes, conf, nms_iou)
            boxes, conf = boxes[kept], conf[kept]
        order = np.argsort(boxes[:, 0], kind="stable")
        return FoundPeople(boxes[order], conf[order])

    def _check_categories(self, n_categories: int) -> None:
        if n_categories not in _N_CATEGORIES:
            raise WeightsError(f"{self._path}: has {n_categories} categories, expected the 80 of COCO; {_NO_MODEL}")


class YoloxDetector(_OnnxDetector):
    """YOLOX, with or without the decoding of its boxes in the file.

    The photo is scaled into the upper left corner of the input, BGR of 0-255, on a ground of 114. Whether the boxes are
    decoded is seen from the output for an empty photo: decoded boxes lie near the places of their grids.

    Source: Ge et al. 2021, "YOLOX"; Megvii-BaseDetection/YOLOX, demo/ONNXRuntime. There each category is chosen by its
    score before non-maximum suppression; here people alone are looked at.
    """

    def __init__(self, session: Any, path: Path, name: str, sha256: str, conf_threshold: float) -> None:
        super().__init__(session, path, name, sha256, conf_threshold)
        rows = self._rows(np.full((self._wh[1], self._wh[0], 3), PAD_VALUE, np.uint8))
        if rows.ndim != 2 or rows.shape[1] < 6:
            raise WeightsError(f"{path}: returns an array of shape {(1, *rows.shape)}; {_NO_MODEL}")
        self._check_categories(rows.shape[1] - 5)
        self._places, self._strides = _grid(self._wh, len(rows), path)
        as_decoded = np.abs(rows[:, :2] / self._strides - self._places)
        self._is_decoded = bool(np.median(as_decoded) < np.median(np.abs(rows[:, :2])))

    def find(self, photo: Photo) -> FoundPeople:
        """Finds the people of a photo, see ``PersonDetector.find``."""
        height, width = photo.shape[:2]
        scale = min(self._wh[0] / width, self._wh[1] / height)
        scaled_wh = (max(1, int(width * scale)), max(1, int(height * scale)))
        canvas = np.full((self._wh[1], self._wh[0], 3), PAD_VALUE, np.uint8)
        canvas[: scaled_wh[1], : scaled_wh[0]] = cv2.resize(photo, scaled_wh, interpolation=cv2.INTER_LINEAR)
        rows = self._rows(canvas)
        centres, sides = rows[:, :2], rows[:, 2:4]
        if not self._is_decoded:
            with np.errstate(over="ignore"):  # an infinite box is left out
                centres, sides = (centres + self._places) * self._strides, np.exp(sides) * self._strides
        corners = np.concatenate([centres - sides / 2, centres + sides / 2], axis=1) / scale
        return self._choose(photo, corners, rows[:, 4] * rows[:, 5 + _PERSON], _NMS_IOU)

    def _rows(self, canvas: Photo) -> Float32Array:
        """Runs the network on an RGB input of its size; returns (n, 5 + categories)."""
        pixels = np.ascontiguousarray(canvas[..., ::-1].transpose(2, 0, 1)[None], np.float32)
        (rows,) = self._run({self._session.get_inputs()[0].name: pixels}).values()
        return np.asarray(rows, np.float32)


class RtDetr(_OnnxDetector):
    """RT-DETR as Hugging Face exports it: outputs ``logits`` and ``pred_boxes``, centre and sides as shares.

    The photo is stretched to the input, RGB of 0-1.

    Source: Zhao et al. 2024, "DETRs Beat YOLOs on Real-time Object Detection"; transformers, RTDetrImageProcessor.
    """

    def __init__(self, session: Any, path: Path, name: str, sha256: str, conf_threshold: float) -> None:
        super().__init__(session, path, name, sha256, conf_threshold)
        n_categories = {one.name: one.shape for one in session.get_outputs()}["logits"][-1]
        if isinstance(n_categories, int):
            self._check_categories(n_categories)

    def find(self, photo: Photo) -> FoundPeople:
        """Finds the people of a photo, see ``PersonDetector.find``."""
        found = self._run({self._session.get_inputs()[0].name: _stretch(photo, self._wh)})
        self._check_categories(found["logits"].shape[-1])
        with np.errstate(over="ignore"):  # the score of a logit far below 0 is 0
            conf = 1 / (1 + np.exp(-found["logits"][:, _PERSON]))
        centres, sides = found["pred_boxes"][:, :2], found["pred_boxes"][:, 2:]
        shares = np.concatenate([centres - sides / 2, centres + sides / 2], axis=1)
        height, width = photo.shape[:2]
        return self._choose(photo, shares * np.array([width, height] * 2, np.float32), conf, None)


class RtDetrWithSizes(_OnnxDetector):
    """RT-DETR as its authors export it: the second input is the photo's size, the boxes are in its pixels.

    Source: lyuwenyu/RT-DETR, rtdetr_pytorch/tools/export_onnx.py; its labels are positions among COCO's 80 categories.
    """

    def find(self, photo: Photo) -> FoundPeople:
        """Finds the people of a photo, see ``PersonDetector.find``."""
        size = np.array([[photo.shape[1], photo.shape[0]]], np.int64)
        found = self._run({"images": _stretch(photo, self._wh), "orig_target_sizes": size})
        is_person = found["labels"] == _PERSON
        return self._choose(photo, found["boxes"][is_person], found["scores"][is_person], None)


def load_person_detector(name_or_path: str, conf_threshold: float) -> PersonDetector:
    """Loads a detector of people.

    Args:
        name_or_path: Name of weights on this machine, or an ``.onnx`` file.
        conf_threshold: People with a lower score than this are left out.

    Raises:
        WeightsError: The file is missing, damaged, or no detector of people.
    """
    is_path = name_or_path.endswith(".onnx")
    weights = find_weights(name_or_path, Path(name_or_path) if is_path else None)
    if weights.path.suffix != ".onnx":
        raise WeightsError(f"{weights.path}: type '{weights.path.suffix}' holds no detector of people; {_NO_MODEL}")
    session = open_session(weights.path, _NO_MODEL)
    inputs = {one.name: one.shape for one in session.get_inputs()}
    outputs = {one.name: one.shape for one in session.get_outputs()}
    kind = _kind_of(inputs, outputs)
    first = session.get_inputs()[0].shape
    if kind is None or len(first) != 4 or (isinstance(first[1], int) and first[1] != 3):
        raise WeightsError(f"{weights.path}: inputs {_describe(inputs)}, outputs {_describe(outputs)}; {_NO_MODEL}")
    return kind(session, weights.path, weights.name, weights.sha256, conf_threshold)


def _kind_of(
    inputs: dict[str, Sequence[Any]], outputs: dict[str, Sequence[Any]]
) -> type[YoloxDetector] | type[RtDetr] | type[RtDetrWithSizes] | None:
    if len(inputs) == 1 and {"logits", "pred_boxes"} <= outputs.keys():
        return RtDetr
    if [*inputs] == ["images", "orig_target_sizes"] and {"labels", "boxes", "scores"} <= outputs.keys():
        return RtDetrWithSizes
    if len(inputs) == 1 and len(outputs) == 1 and len(next(iter(outputs.values()))) == 3:
        return YoloxDetector
    return None


def _grid(wh: tuple[int, int], n_rows: int, path: Path) -> tuple[Float32Array, Float32Array]:
    """The column and row of each of YOLOX's outputs in its grid, (n, 2), and the stride of the grid, (n, 1)."""
    for strides in _STRIDES:
        places, sizes = [], []
        for stride in strides:
            columns, rows = np.meshgrid(np.arange(wh[0] // stride), np.arange(wh[1] // stride))
            places.append(np.stack([columns.ravel(), rows.ravel()], axis=1))
            sizes.append(np.full((columns.size, 1), stride))
        if sum(map(len, places)) == n_rows:
            return np.concatenate(places).astype(np.float32), np.concatenate(sizes).astype(np.float32)
    raise WeightsError(f"{path}: returns {n_rows} boxes for an input of {wh[0]} x {wh[1]} pixels; {_NO_MODEL}")


def _stretch(photo: Photo, wh: tuple[int, int]) -> Float32Array:
    """Stretches a photo to the input of a network, (1, 3, height, width), RGB of 0-1."""
    scaled = cv2.resize(photo, wh, interpolation=cv2.INTER_LINEAR)
    return np.ascontiguousarray(scaled.transpose(2, 0, 1)[None], np.float32) / np.float32(255)


def _describe(arrays: dict[str, Sequence[Any]]) -> str:
    return ", ".join(f"{name} {list(shape)}" for name, shape in arrays.items())
