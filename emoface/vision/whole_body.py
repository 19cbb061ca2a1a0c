"""The 133 points of a whole body, and the parts of it that other formats and models use.

The order is that of COCO-WholeBody: 17 joints, 6 points of the feet, 68 points of the face and 21 of each hand. Left
and right are those of the person, but the points of the face run from the viewer's left to the right, as in 300-W.

Source: Jin et al. 2020, "Whole-Body Human Pose Estimation in the Wild"; Sagonas et al. 2013, "300 Faces in-the-Wild".
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from emoface.vision.arrays import Float32Array

JOINTS: tuple[str, ...] = (
    "nose",
    "left_eye",
    "right_eye",
    "left_ear",
    "right_ear",
    "left_shoulder",
    "right_shoulder",
    "left_elbow",
    "right_elbow",
    "left_wrist",
    "right_wrist",
    "left_hip",
    "right_hip",
    "left_knee",
    "right_knee",
    "left_ankle",
    "right_ankle",
)
"""The 17 joints of COCO, the first of the 133 points."""
FEET: tuple[str, ...] = (
    "left_big_toe",
    "left_small_toe",
    "left_heel",
    "right_big_toe",
    "right_small_toe",
    "right_heel",
)
N_POINTS = 133
N_FACE_POINTS = 68
FACE_START = len(JOINTS) + len(FEET)
FACE_PART = slice(FACE_START, FACE_START + N_FACE_POINTS)
"""The 68 points of the face among the 133."""
POINT_INDEX: dict[str, int] = {name: number for number, name in enumerate((*JOINTS, *FEET))}

BODY_25: tuple[str, ...] = (
    "nose",
    "neck",
    *("right_shoulder", "right_elbow", "right_wrist"),
    *("left_shoulder", "left_elbow", "left_wrist"),
    "mid_hip",
    *("right_hip", "right_knee", "right_ankle"),
    *("left_hip", "left_knee", "left_ankle"),
    *("right_eye", "left_eye", "right_ear", "left_ear"),
    *("left_big_toe", "left_small_toe", "left_heel"),
    *("right_big_toe", "right_small_toe", "right_heel"),
)
"""The 25 joints of OpenPose, in its order."""

_MIDDLES = {"neck": ("left_shoulder", "right_shoulder"), "mid_hip": ("left_hip", "right_hip")}
_MIRRORED_FACE = (
    *range(16, -1, -1),  # jaw
    *range(26, 16, -1),  # brows
    *(27, 28, 29, 30, 35, 34, 33, 32, 31),  # nose
    *(45, 44, 43, 42, 47, 46, 39, 38, 37, 36, 41, 40),  # eyes
    *(54, 53, 52, 51, 50, 49, 48, 59, 58, 57, 56, 55),  # outer lips
    *(64, 63, 62, 61, 60, 67, 66, 65),  # inner lips
)
"""The point of a face that is at the place of each of the 68 after mirroring."""
_LANDMARK_POINTS = (range(36, 42), range(42, 48), (30,), (48,), (54,))
"""Of the 68 points those of a detector's five landmarks: eye on the viewer's left, other eye, tip of the nose, corners
of the mouth."""


def _mirrored_order() -> NDArray[np.int64]:
    """The point that is at the place of each of the 133 after mirroring."""
    names = (*JOINTS, *FEET)
    swapped = [name.replace("left", "*").replace("right", "left").replace("*", "right") for name in names]
    joints = [POINT_INDEX[name] for name in swapped]
    face = [FACE_START + point for point in _MIRRORED_FACE]
    left_hand, right_hand = range(FACE_PART.stop, FACE_PART.stop + 21), range(FACE_PART.stop + 21, N_POINTS)
    return np.array([*joints, *face, *right_hand, *left_hand], np.int64)


_MIRRORED = _mirrored_order()


def no_points() -> Float32Array:
    """Returns the points of a person of whom nothing was found: (133, 3) zeros, so that every confidence is 0."""
    return np.zeros((N_POINTS, 3), np.float32)


def points_of_joints(joints: Float32Array) -> Float32Array:
    """Completes 17 joints to 133 points; the others have confidence 0.

    Args:
        joints: (17, 3) x, y and confidence in the order of ``JOINTS``.
    """
    points = no_points()
    points[: len(JOINTS)] = joints
    return points


def points_of_landmarks(landmarks: Float32Array, conf: float) -> Float32Array:
    """Places the five landmarks of a face detector among the 133 points; the others have confidence 0.

    All six points of an eye are put at its centre, because the landmark is the centre; the eyes and the nose are also
    joints.

    Args:
        landmarks: (5, 2) eyes, nose, corners of the mouth, left and right as the viewer sees them.
        conf: Score of the detector, 0-1, which becomes the confidence of the points.
    """
    points = no_points()
    face = points[FACE_PART]
    for numbers, (x, y) in zip(_LANDMARK_POINTS, landmarks, strict=True):
        face[list(numbers)] = (x, y, conf)
    points[POINT_INDEX["right_eye"]] = (*landmarks[0], conf)  # a person who faces the viewer has it on the left
    points[POINT_INDEX["left_eye"]] = (*landmarks[1], conf)
    points[POINT_INDEX["nose"]] = (*landmarks[2], conf)
    return points


def to_body_25(points: Float32Array) -> Float32Array:
    """Takes the 25 joints of OpenPose from whole bodies.

    Neck and middle of the hips are the middles of both sides, with the lower of their confidences.

    Args:
        points: (n, 133, 3) x, y and confidence.

    Returns:
        (n, 25, 3); x and y are 0 where the confidence is 0.

    Example:
        >>> points = no_points()[None]
        >>> points[0, POINT_INDEX["left_hip"]], points[0, POINT_INDEX["right_hip"]] = (8, 6, 0.5), (4, 2, 1.0)
        >>> to_body_25(points)[0, BODY_25.index("mid_hip")].tolist()
        [6.0, 4.0, 0.5]
    """
    joints = np.zeros((len(points), len(BODY_25), 3), np.float32)
    for number, name in enumerate(BODY_25):
        if name in _MIDDLES:
            left, right = (points[:, POINT_INDEX[side]] for side in _MIDDLES[name])
            joints[:, number, :2] = (left[:, :2] + right[:, :2]) / 2
            joints[:, number, 2] = np.minimum(left[:, 2], right[:, 2])
        else:
            joints[:, number] = points[:, POINT_INDEX[name]]
    joints[joints[..., 2] <= 0] = 0
    return joints


def mirror_points(points: Float32Array) -> Float32Array:
    """Mirrors points that are shares of a photo; left and right of the person are exchanged.

    Args:
        points: (n, 133, 3) x and y as shares of the photo, and confidence.

    Returns:
        (n, 133, 3); x and y of points of confidence 0 are 0.
    """
    mirrored: Float32Array = points[:, _MIRRORED].copy()
    mirrored[..., 0] = 1 - mirrored[..., 0]
    mirrored[mirrored[..., 2] <= 0] = 0
    return mirrored


def to_box_shares(points: Float32Array, xyxy: Float32Array) -> Float32Array:
    """Converts x and y from pixels to shares of each person's box; points of confidence 0 become 0.

    Args:
        points: (n, k, 3) x, y and confidence.
        xyxy: (n, 4) a box for each person, pixels; the points of a box that is not finite or empty become 0.

    Returns:
        (n, k, 3); x and y are 0 at the left and upper side of the box, 1 at the others, and may be outside.

    Example:
        >>> to_box_shares(np.array([[[30, 20, 0.5]]], np.float32), np.array([[20, 10, 40, 50]], np.float32)).tolist()
        [[[0.5, 0.25, 0.5]]]
    """
    sides = xyxy[:, 2:] - xyxy[:, :2]
    is_box = np.asarray(np.isfinite(xyxy).all(axis=1) & (sides > 0).all(axis=1), np.bool_)
    corner, sides = np.where(is_box[:, None], xyxy[:, :2], 0), np.where(is_box[:, None], sides, 1)
    shares = points.astype(np.float32, copy=True)
    shares[..., :2] = (points[..., :2] - corner[:, None]) / sides[:, None]
    shares[~is_box] = 0
    shares[shares[..., 2] <= 0] = 0
    return shares
