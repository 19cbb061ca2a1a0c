"""Decodes the raw outputs of the heads to faces: the part of detection that all backends share."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from emoface.vision.arrays import Float32Array
from emoface.vision.boxes import box_areas, clip_boxes, nms_boxes
from emoface.vision.detections import Detections
from emoface.vision.letterbox import Letterbox

N_OUTPUTS = 16
_OBJECTNESS, _LANDMARKS, _CLASS = 4, slice(5, 15), 15


@dataclass(frozen=True)
class HeadLevel:
    """Stride and anchors of one head, to which its outputs are relative.

    Attributes:
        stride: Network pixels per cell.
        anchors_net: (anchors, 2) width and height in network pixels.
    """

    stride: int
    anchors_net: Float32Array


@dataclass(frozen=True)
class Thresholds:
    """Thresholds that decide which predictions become detections.

    Attributes:
        conf: Minimum score of a face, 0-1; the score is objectness times class probability.
        iou: Non-maximum suppression drops a box whose IoU with a box of higher score is above this, 0-1.
    """

    conf: float
    iou: float


def decode_level(head: Float32Array, level: HeadLevel, conf_threshold: float) -> Detections:
    """Decodes the predictions of one head whose score reaches the threshold; the others are not decoded.

    Args:
        head: (anchors * N_OUTPUTS, gh, gw), raw outputs for one photo, before any sigmoid.
        level: The head's stride and anchors.
        conf_threshold: Minimum score (objectness times class probability), 0-1.

    Returns:
        Faces in network pixels, before non-maximum suppression, ordered by anchor, row and column.
    """
    planes = head.reshape(len(level.anchors_net), N_OUTPUTS, *head.shape[1:])
    anchor, row, column = np.nonzero(planes[:, _OBJECTNESS] >= _lowest_logit(conf_threshold))
    raw = planes[anchor, :, row, column]  # (n, N_OUTPUTS)
    conf = sigmoid(raw[:, _OBJECTNESS]) * sigmoid(raw[:, _CLASS])
    is_confident = conf >= conf_threshold
    raw, conf = raw[is_confident], conf[is_confident]
    cell = np.stack((column[is_confident], row[is_confident]), axis=1).astype(np.float32)
    anchor_wh = level.anchors_net[anchor[is_confident]]
    stride = np.float32(level.stride)
    centre = (sigmoid(raw[:, 0:2]) * 2 - np.float32(0.5) + cell) * stride
    half = (sigmoid(raw[:, 2:4]) * 2) ** 2 * anchor_wh / 2
    landmarks = raw[:, _LANDMARKS].reshape(-1, 5, 2) * anchor_wh[:, None] + (cell * stride)[:, None]
    return Detections(np.concatenate((centre - half, centre + half), axis=1), landmarks, conf)


def decode_photo(
    heads: list[Float32Array], levels: tuple[HeadLevel, ...], letterbox: Letterbox, thresholds: Thresholds
) -> Detections:
    """Decodes the raw outputs of all heads for one photo to its faces.

    Boxes are clipped to the photo, and boxes that are entirely in the padding are dropped. Landmarks are not clipped,
    so they may be outside the photo.

    Args:
        heads: Per level (anchors * N_OUTPUTS, gh, gw), before any sigmoid.
        levels: Stride and anchors of each level, in the same order.
        letterbox: How the photo was scaled and padded to the network's input.
        thresholds: Minimum score and suppression overlap.

    Returns:
        Faces in pixels of the photo, best first.
    """
    found = [decode_level(head, level, thresholds.conf) for head, level in zip(heads, levels, strict=True)]
    xyxy_net = np.concatenate([one.xyxy for one in found])
    conf = np.concatenate([one.conf for one in found])
    keep = nms_boxes(xyxy_net, conf, thresholds.iou)
    landmarks_net = np.concatenate([one.landmarks for one in found])[keep]
    xyxy = clip_boxes(letterbox.to_image(xyxy_net[keep]), letterbox.image_wh)
    faces = Detections(xyxy, letterbox.to_image(landmarks_net), conf[keep])
    return faces[box_areas(xyxy) > 0]


def _lowest_logit(probability: float) -> float:
    """A number that no logit of at least this probability lies below, in spite of rounding."""
    if probability <= 0:
        return -math.inf
    below = min(probability, 1 - 1e-6)  # sigmoid rounds large logits to 1
    return math.log(below / (1 - below)) - 0.1


def sigmoid(x: Float32Array) -> Float32Array:
    """Computes the logistic function without overflow.

    Example:
        >>> sigmoid(np.array([-1000, 0, 1000], np.float32)).tolist()
        [0.0, 0.5, 1.0]
    """
    e = np.exp(-np.abs(x))
    y: Float32Array = np.where(x >= 0, 1 / (1 + e), e / (1 + e))
    return y
