"""Crops, mirroring and colours for training, as section 4.4 of the thesis describes them."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from emoface.metrics.detection import LabelledFaces
from emoface.vision.boxes import box_areas, box_intersections
from emoface.vision.crops import Photo

CROP_SHARES = (0.3, 1.0)
"""Side of a random square crop, in shares of the photo's shorter side."""

_MIRRORED_LANDMARKS = np.array([1, 0, 2, 4, 3])
_MIN_SHARE_INSIDE = 0.6
_PAINT = 114
_MAX_TRIES = 20


def crop_faces_square(
    rng: np.random.Generator, photo: Photo, faces: LabelledFaces, size: int
) -> tuple[Photo, LabelledFaces]:
    """Cuts a random square, scales it, and takes the faces along.

    A square without the centre of a face that counts is drawn again, up to 20 times: most squares would hold none.
    Faces of which less than 60 % is inside go to the ignored ones, if anything of them is inside.

    Args:
        rng: Decides side and place.
        photo: (height, width, 3).
        faces: Its faces.
        size: Side of the result, pixels.

    Returns:
        (size, size, 3) and its faces.

    Source:
        Section 4.4 of the thesis for the sides; the centre inside is FaceBoxes' and RetinaFace's.
    """
    height, width = photo.shape[:2]
    for _ in range(_MAX_TRIES):
        side = max(2, round(min(height, width) * float(rng.uniform(*CROP_SHARES))))
        left, top = int(rng.integers(0, width - side + 1)), int(rng.integers(0, height - side + 1))
        if faces.ignored.all() or _holds_centre(faces, left, top, side):
            break
    scale = size / side
    interpolation = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    cut = np.asarray(
        cv2.resize(photo[top : top + side, left : left + side], (size, size), interpolation=interpolation), np.uint8
    )
    shift = np.array([left, top], np.float32)
    square = np.array([[left, top, left + side, top + side]], np.float32)
    inside = box_intersections(faces.xyxy, square)[:, 0] / np.maximum(box_areas(faces.xyxy), 1e-6)
    touches = inside > 0
    xyxy = np.clip((faces.xyxy[touches] - np.tile(shift, 2)) * np.float32(scale), 0, size)
    landmarks = (faces.landmarks[touches] - shift) * np.float32(scale)
    ignored = faces.ignored[touches] | (inside[touches] < _MIN_SHARE_INSIDE)
    return cut, LabelledFaces(xyxy, landmarks, ignored)


def _holds_centre(faces: LabelledFaces, left: int, top: int, side: int) -> bool:
    counted = faces.xyxy[~faces.ignored]
    offset = (counted[:, :2] + counted[:, 2:]) / 2 - np.array([left, top], np.float32)
    return bool(((offset >= 0) & (offset < side)).all(axis=1).any())


def mirror_faces(photo: Photo, faces: LabelledFaces) -> tuple[Photo, LabelledFaces]:
    """Mirrors a photo; the landmarks swap sides, so that left stays what the viewer sees on the left."""
    width = photo.shape[1]
    xyxy = faces.xyxy.copy()
    xyxy[:, [0, 2]] = width - faces.xyxy[:, [2, 0]]
    landmarks = faces.landmarks[:, _MIRRORED_LANDMARKS].copy()
    landmarks[..., 0] = width - landmarks[..., 0]
    return np.ascontiguousarray(photo[:, ::-1]), LabelledFaces(xyxy, landmarks, faces.ignored)


def distort_colors(rng: np.random.Generator, photo: Photo) -> Photo:
    """Changes brightness, contrast, saturation and hue; one photo in eight turns grey.

    Args:
        rng: Decides how far.
        photo: (height, width, 3), RGB.
    """
    out = photo.astype(np.float32)
    grey = out @ np.array([0.299, 0.587, 0.114], np.float32)
    saturation = 0.0 if rng.random() < 0.125 else float(rng.uniform(0.5, 1.5))
    out = grey[..., None] + (out - grey[..., None]) * saturation
    contrast = float(rng.uniform(0.6, 1.4))
    out = (out - out.mean()) * contrast + out.mean() + float(rng.uniform(-36, 36))
    tint: NDArray[np.float32] = rng.uniform(0.88, 1.12, 3).astype(np.float32)
    return np.asarray(np.clip(out * tint, 0, 255), np.uint8)


def paint_ignored(photo: Photo, faces: LabelledFaces) -> tuple[Photo, LabelledFaces]:
    """Paints ignored faces grey and drops them, so that they are neither to be found nor wrong to find.

    What an ignored face shares with one that counts is left as it is.

    Args:
        photo: (height, width, 3).
        faces: Its faces.
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
