"""From the heads' raw numbers to faces: the part of detection that all backends share."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from emoface.arrays import Float32Array
from emoface.vision.boxes import box_areas, clip_boxes, nms_boxes
from emoface.vision.detections import Detections
from emoface.vision.letterbox import Letterbox

N_OUTPUTS = 16
_OBJECTNESS, _LANDMARKS, _CLASS = 4, slice(5, 15), 15


@dataclass(frozen=True)
class HeadLevel:
    """What the numbers of one head are relative to.

    Attributes:
        stride: Network pixels per cell.
        anchors_net: (anchors, 2) width and height in network pixels.
    """

    stride: int
    anchors_net: Float32Array


@dataclass(frozen=True)
class Thresholds:
    """Which predictions become detections.

    Attributes:
        conf: Least objectness x class that counts.
        iou: A box that overlaps a better one by more goes.
    """

    conf: float
    iou: float


def decode_level(head: Float32Array, level: HeadLevel, conf_threshold: float) -> Detections:
    """Decodes the cells of one head that are sure enough; the others are never computed.

    Args:
        head: (anchors * N_OUTPUTS, gh, gw), one photo, before any sigmoid.
        level: The head's stride and anchors.
        conf_threshold: Least objectness x class.

    Returns:
        Faces in network pixels, before suppression, in the order anchor, row, column.
    """
    planes = head.reshape(len(level.anchors_net), N_OUTPUTS, *head.shape[1:])
    objectness = sigmoid(planes[:, _OBJECTNESS])  # (anchors, gh, gw)
    anchor, row, column = np.nonzero(objectness >= conf_threshold)
    raw = planes[anchor, :, row, column]  # (n, N_OUTPUTS)
    conf = objectness[anchor, row, column] * sigmoid(raw[:, _CLASS])
    sure = conf >= conf_threshold
    raw, conf = raw[sure], conf[sure]
    cell = np.stack((column[sure], row[sure]), axis=1).astype(np.float32)
    anchor_wh = level.anchors_net[anchor[sure]]
    stride = np.float32(level.stride)
    centre = (sigmoid(raw[:, 0:2]) * 2 - np.float32(0.5) + cell) * stride
    half = (sigmoid(raw[:, 2:4]) * 2) ** 2 * anchor_wh / 2
    landmarks = raw[:, _LANDMARKS].reshape(-1, 5, 2) * anchor_wh[:, None] + (cell * stride)[:, None]
    return Detections(np.concatenate((centre - half, centre + half), axis=1), landmarks, conf)


def decode_photo(
    heads: list[Float32Array], levels: tuple[HeadLevel, ...], letterbox: Letterbox, thresholds: Thresholds
) -> Detections:
    """Turns one photo's heads into its faces.

    Boxes are cut at the photo's border, and those wholly in the padding go; landmarks are the network's word, and
    may lie outside.

    Args:
        heads: Per level (anchors * N_OUTPUTS, gh, gw).
        levels: The same order.
        letterbox: How the photo was put into the network's input.
        thresholds: Which faces count.

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


def sigmoid(x: Float32Array) -> Float32Array:
    """The logistic function, without overflow.

    Example:
        >>> sigmoid(np.array([-1000, 0, 1000], np.float32)).tolist()
        [0.0, 0.5, 1.0]
    """
    e = np.exp(-np.abs(x))
    y: Float32Array = np.where(x >= 0, 1 / (1 + e), e / (1 + e))
    return y
