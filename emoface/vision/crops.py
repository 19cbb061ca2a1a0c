"""Face crops: square with a margin, or aligned by the five landmarks."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

Photo = NDArray[np.uint8]
"""(height, width, 3), RGB."""

ALIGNED_LANDMARKS = np.array(
    [[0.3419, 0.4616], [0.6565, 0.4598], [0.5002, 0.6405], [0.3710, 0.8247], [0.6315, 0.8232]],
    dtype=np.float64,
)
"""Positions of the eyes, the nose and the corners of the mouth in an aligned face, in shares of the crop's side.

Source: the 112 x 112 template of ArcFace (Deng et al. 2019), divided by 112.
"""


def square_box(xyxy: NDArray[np.float32], margin: float) -> tuple[int, int, int]:
    """Computes the square around a box, in whole pixels.

    Args:
        xyxy: (4,) box.
        margin: Share of the box's longer side that is added on every side.

    Returns:
        Left, top and side; the square may reach beyond the photo.

    Example:
        >>> square_box(np.array([10, 20, 30, 60], np.float32), margin=0.25)
        (-10, 10, 60)
    """
    x1, y1, x2, y2 = (float(value) for value in xyxy)
    side = max(1, round(max(x2 - x1, y2 - y1) * (1 + 2 * margin)))
    return round((x1 + x2 - side) / 2), round((y1 + y2 - side) / 2), side


def crop_square(photo: Photo, left: int, top: int, side: int) -> Photo:
    """Crops a square of a photo; outside the photo the nearest border pixel is repeated.

    Args:
        photo: (height, width, 3).
        left: Left edge in pixels, may be negative.
        top: Top edge in pixels, may be negative.
        side: Side in pixels; the square must touch the photo.

    Returns:
        (side, side, 3), a copy.
    """
    height, width = photo.shape[:2]
    if left >= 0 and top >= 0 and left + side <= width and top + side <= height:
        return photo[top : top + side, left : left + side].copy()
    rows = np.clip(np.arange(top, top + side), 0, height - 1)
    columns = np.clip(np.arange(left, left + side), 0, width - 1)
    square: Photo = photo[rows[:, None], columns[None, :]]
    return square


def crop_face(
    photo: Photo, xyxy: NDArray[np.float32], landmarks: NDArray[np.float32], *, margin: float, align: bool
) -> Photo:
    """Crops a face: the square around its box, or a crop of the same side that is aligned by the landmarks.

    Args:
        photo: (height, width, 3).
        xyxy: (4,) box of the face, original pixels.
        landmarks: (5, 2), original pixels.
        margin: Share of the face's longer side that is added on every side.
        align: Whether to rotate and scale the face by its landmarks, see ``align_face``.

    Returns:
        (side, side, 3).
    """
    left, top, side = square_box(xyxy, margin)
    return align_face(photo, landmarks, side, margin) if align else crop_square(photo, left, top, side)


def align_face(photo: Photo, landmarks: NDArray[np.float32], side: int, margin: float) -> Photo:
    """Rotates, scales and shifts a face so that its landmarks are as near as possible to the standard template.

    Args:
        photo: (height, width, 3).
        landmarks: (5, 2), original pixels.
        side: Side of the crop in pixels.
        margin: Margin around the template on every side, in shares of the template's side.

    Returns:
        (side, side, 3).
    """
    template = (ALIGNED_LANDMARKS + margin) / (1 + 2 * margin) * side
    matrix = similarity_transform(landmarks.astype(np.float64), template)
    aligned = cv2.warpAffine(photo, matrix, (side, side), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return np.asarray(aligned, dtype=np.uint8)


def similarity_transform(points: NDArray[np.float64], targets: NDArray[np.float64]) -> NDArray[np.float64]:
    """Computes the rotation, uniform scale and shift that map points to their targets with least squared error.

    Args:
        points: (n, 2), at least two different points.
        targets: (n, 2), the target of each point.

    Returns:
        (2, 3) matrix that is multiplied with ``[x, y, 1]``.

    Source:
        Umeyama, "Least-squares estimation of transformation parameters between two point patterns", 1991, in two
        dimensions, where one complex number represents rotation and scale; reflections are excluded.
    """
    from_x = points - points.mean(axis=0)
    to_x = targets - targets.mean(axis=0)
    z = from_x[:, 0] + 1j * from_x[:, 1]
    w = to_x[:, 0] + 1j * to_x[:, 1]
    spread = float(np.square(np.abs(z)).sum())
    turn = complex(np.conj(z) @ w) / spread if spread > 0 else 1 + 0j
    rotation = np.array([[turn.real, -turn.imag], [turn.imag, turn.real]])
    shift = targets.mean(axis=0) - rotation @ points.mean(axis=0)
    return np.hstack([rotation, shift[:, None]])
