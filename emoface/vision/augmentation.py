"""Data augmentation for the detector's training, as in section 4.4 of the thesis: crops, mirroring and colours."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from emoface.metrics.detection import LabelledFaces
from emoface.vision.boxes import box_areas, box_intersections
from emoface.vision.crops import Photo

CROP_SHARES = (0.3, 1.0)
"""Range of the side of a random square crop, in shares of the photo's shorter side."""
GREY_PROBABILITY = 0.125
"""Probability that a photo whose colours change becomes grey."""
SATURATIONS = (0.5, 1.5)
"""Range of the factor of the distance of each pixel from its grey value."""
CONTRASTS = (0.6, 1.4)
"""Range of the factor of the distance of each value from the mean of the photo."""
BRIGHTNESSES = (-36.0, 36.0)
"""Range of what is added to each value, of 0-255."""
TINTS = (0.88, 1.12)
"""Range of the factors of red, green and blue."""
GREY_WEIGHTS = (0.299, 0.587, 0.114)
"""Weights of red, green and blue in the grey value."""

_MIRRORED_LANDMARKS = np.array([1, 0, 2, 4, 3])
_MIN_SHARE_INSIDE = 0.6
_PAINT = 114
_MAX_TRIES = 20


def crop_faces_square(
    rng: np.random.Generator, photo: Photo, faces: LabelledFaces, size: int
) -> tuple[Photo, LabelledFaces]:
    """Crops a random square of a photo, scales it, and moves its faces to the frame of the crop.

    A square that does not contain the centre of a face that is not ignored is sampled again, up to 20 times, because
    most random squares contain no face. Faces that are partly inside, by less than 60 % of their area, become ignored.

    Args:
        rng: Random generator for the side and the position of the square.
        photo: (height, width, 3).
        faces: Faces of the photo.
        size: Side of the result in pixels.

    Returns:
        The crop (size, size, 3) and its faces, in pixels of the crop.

    Source:
        Section 4.4 of the thesis for the range of the side; the rule of the centre is from FaceBoxes and RetinaFace.
    """
    height, width = photo.shape[:2]
    for _ in range(_MAX_TRIES):
        side = max(2, round(min(height, width) * float(rng.uniform(*CROP_SHARES))))
        left, top = int(rng.integers(0, width - side + 1)), int(rng.integers(0, height - side + 1))
        if faces.ignored.all() or _has_face_centre(faces, left, top, side):
            break
    scale = size / side
    interpolation = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    crop = np.asarray(
        cv2.resize(photo[top : top + side, left : left + side], (size, size), interpolation=interpolation), np.uint8
    )
    shift = np.array([left, top], np.float32)
    square = np.array([[left, top, left + side, top + side]], np.float32)
    inside = box_intersections(faces.xyxy, square)[:, 0] / np.maximum(box_areas(faces.xyxy), 1e-6)
    touches = inside > 0
    xyxy = np.clip((faces.xyxy[touches] - np.tile(shift, 2)) * np.float32(scale), 0, size)
    landmarks = (faces.landmarks[touches] - shift) * np.float32(scale)
    ignored = faces.ignored[touches] | (inside[touches] < _MIN_SHARE_INSIDE)
    return crop, LabelledFaces(xyxy, landmarks, ignored)


def _has_face_centre(faces: LabelledFaces, left: int, top: int, side: int) -> bool:
    """Tells whether a square contains the centre of a face that is not ignored."""
    counted = faces.xyxy[~faces.ignored]
    offset = (counted[:, :2] + counted[:, 2:]) / 2 - np.array([left, top], np.float32)
    return bool(((offset >= 0) & (offset < side)).all(axis=1).any())


def mirror_faces(photo: Photo, faces: LabelledFaces) -> tuple[Photo, LabelledFaces]:
    """Mirrors a photo; left and right landmarks are exchanged, so that left is still left as the viewer sees it."""
    width = photo.shape[1]
    xyxy = faces.xyxy.copy()
    xyxy[:, [0, 2]] = width - faces.xyxy[:, [2, 0]]
    landmarks = faces.landmarks[:, _MIRRORED_LANDMARKS].copy()
    landmarks[..., 0] = width - landmarks[..., 0]
    return np.ascontiguousarray(photo[:, ::-1]), LabelledFaces(xyxy, landmarks, faces.ignored)


def distort_colors(rng: np.random.Generator, photo: Photo) -> Photo:
    """Changes brightness, contrast, saturation and hue at random; one photo in eight becomes grey.

    Args:
        rng: Random generator for the size of the changes.
        photo: (height, width, 3), RGB, 0-255.
    """
    out = photo.astype(np.float32)
    grey = out @ np.array(GREY_WEIGHTS, np.float32)
    saturation = 0.0 if rng.random() < GREY_PROBABILITY else float(rng.uniform(*SATURATIONS))
    out = grey[..., None] + (out - grey[..., None]) * saturation
    contrast = float(rng.uniform(*CONTRASTS))
    out = (out - out.mean()) * contrast + out.mean() + float(rng.uniform(*BRIGHTNESSES))
    tint: NDArray[np.float32] = rng.uniform(*TINTS, 3).astype(np.float32)
    return np.asarray(np.clip(out * tint, 0, 255), np.uint8)


def paint_ignored(photo: Photo, faces: LabelledFaces) -> tuple[Photo, LabelledFaces]:
    """Paints ignored faces grey and removes them from the labels, so that they are neither positives nor negatives.

    Pixels of an ignored face that are also inside the box of a face that is not ignored are not painted.

    Args:
        photo: (height, width, 3).
        faces: Faces of the photo.

    Returns:
        The painted photo, a copy if any face is ignored, and the faces that are not ignored.
    """
    if not faces.ignored.any():
        return photo, faces
    kept = ~faces.ignored
    painted = photo.copy()
    for x1, y1, x2, y2 in np.round(np.maximum(faces.xyxy[faces.ignored], 0)).astype(int):
        painted[y1 : y2 + 1, x1 : x2 + 1] = _PAINT
    for x1, y1, x2, y2 in np.round(np.maximum(faces.xyxy[kept], 0)).astype(int):
        painted[y1 : y2 + 1, x1 : x2 + 1] = photo[y1 : y2 + 1, x1 : x2 + 1]
    return painted, LabelledFaces(faces.xyxy[kept], faces.landmarks[kept], faces.ignored[kept])
