"""Boxes as arrays: float32 (n, 4), xyxy, x to the right and y down, in pixels of one frame."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from emoface.vision.arrays import Float32Array

Box = tuple[float, float, float, float]
"""One box: x1, y1, x2, y2."""


def box_areas(xyxy: Float32Array) -> Float32Array:
    """Computes the areas of boxes; the area is 0 for a box with x2 < x1 or y2 < y1.

    Args:
        xyxy: (n, 4).

    Returns:
        (n,), square pixels.
    """
    sides = np.clip(xyxy[:, 2:] - xyxy[:, :2], 0, None)
    areas: Float32Array = sides[:, 0] * sides[:, 1]
    return areas


def box_intersections(a_xyxy: Float32Array, b_xyxy: Float32Array) -> Float32Array:
    """Computes the area of the intersection of each box of one set with each box of another.

    Args:
        a_xyxy: (n, 4).
        b_xyxy: (m, 4), same frame.

    Returns:
        (n, m), square pixels.
    """
    top_left = np.maximum(a_xyxy[:, None, :2], b_xyxy[None, :, :2])
    bottom_right = np.minimum(a_xyxy[:, None, 2:], b_xyxy[None, :, 2:])
    sides = np.clip(bottom_right - top_left, 0, None)
    shared: Float32Array = sides[..., 0] * sides[..., 1]
    return shared


def box_iou(a_xyxy: Float32Array, b_xyxy: Float32Array) -> Float32Array:
    """Computes the intersection over union (IoU) of every pair of boxes.

    Args:
        a_xyxy: (n, 4).
        b_xyxy: (m, 4), same frame.

    Returns:
        (n, m), 0-1; 0 where both boxes are empty.

    Example:
        >>> a = np.array([[0, 0, 4, 2]], np.float32)
        >>> box_iou(a, np.array([[0, 0, 4, 2], [2, 0, 6, 2]], np.float32)).round(3).tolist()
        [[1.0, 0.3330000042915344]]
    """
    shared = box_intersections(a_xyxy, b_xyxy)
    union = box_areas(a_xyxy)[:, None] + box_areas(b_xyxy)[None, :] - shared
    iou: Float32Array = np.divide(shared, union, out=np.zeros_like(shared), where=union > 0)
    return iou


def clip_boxes(xyxy: Float32Array, image_wh: tuple[int, int]) -> Float32Array:
    """Clips boxes to the borders of their photo.

    Args:
        xyxy: (n, 4).
        image_wh: Width and height of the photo.

    Returns:
        (n, 4), a new array.
    """
    width, height = image_wh
    limits = np.array([width, height, width, height], dtype=np.float32)
    clipped: Float32Array = np.clip(xyxy, 0, limits)
    return clipped


_MIN_BOXES = 5
"""Fewer boxes do not tell a convention: the corners of a few may have been swapped."""


def find_other_convention(boxes: NDArray[np.floating], image_wh: NDArray[np.floating]) -> str | None:
    """Finds the convention of boxes that most probably are not xyxy in pixels.

    Boxes are relative where at least nine of ten lie within 0 to 1. They are not xyxy where in at least half of five or
    more boxes the third number is below the first or the fourth below the second; then they are x, y, width, height
    where nine of ten such boxes fit into their photo, else centre, width and height where nine of ten of those do.

    Args:
        boxes: (n, 4) finite numbers.
        image_wh: (n, 2) width and height of each box's photo, pixels; nan where it is not known.

    Returns:
        ``"relative numbers, 0 to 1"``, ``"x, y, width, height"`` or ``"centre x, centre y, width, height"``; None where
        nothing speaks against xyxy.

    Example:
        >>> find_other_convention(np.array([[0.1, 0.2, 0.5, 0.9]]), np.array([[640, 480]]))
        'relative numbers, 0 to 1'
        >>> find_other_convention(np.array([[300, 200, 50, 90]] * 5), np.array([[640, 480]] * 5))
        'x, y, width, height'
    """
    if not len(boxes):
        return None
    if (((boxes >= 0) & (boxes <= 1)).all(axis=1) & (boxes[:, 2:] > 0).all(axis=1)).mean() >= 0.9:
        return "relative numbers, 0 to 1"
    start, size = boxes[:, :2], boxes[:, 2:]
    if len(boxes) < _MIN_BOXES or (size < start).any(axis=1).mean() < 0.5 or (size <= 0).any(axis=1).mean() > 0.1:
        return None
    known = np.isfinite(image_wh).all(axis=1)
    if not known.any():
        return None
    start, size, side = start[known], size[known], image_wh[known]
    if ((start >= 0) & (start + size <= side + 1)).all(axis=1).mean() >= 0.9:
        return "x, y, width, height"
    if ((start - size / 2 >= -1) & (start + size / 2 <= side + 1)).all(axis=1).mean() >= 0.9:
        return "centre x, centre y, width, height"
    return None


def nms_boxes(xyxy: Float32Array, conf: Float32Array, iou_threshold: float) -> NDArray[np.int64]:
    """Applies greedy non-maximum suppression.

    Args:
        xyxy: (n, 4).
        conf: (n,) scores; boxes of equal score keep their order, so the result is deterministic.
        iou_threshold: A box whose IoU with a box of higher score is above this is dropped.

    Returns:
        (k,) positions of the boxes that are kept, by descending score.
    """
    order = np.argsort(-conf, kind="stable")
    keep: list[int] = []
    while order.size:
        best, rest = order[0], order[1:]
        keep.append(int(best))
        if not rest.size:
            break
        order = rest[box_iou(xyxy[best : best + 1], xyxy[rest])[0] <= iou_threshold]
    return np.array(keep, dtype=np.int64)
