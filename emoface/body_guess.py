"""Where a person's body probably is when only the face is known."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from emoface.boxes import clip_boxes

WIDTH_IN_FACES = 1 / 0.42
"""Width of a body box in face heights: what ``assignment.expected_face_heights`` says, turned round."""

GAP_IN_FACES = 0.35
"""From the top of a body box to the top of the face, in face heights: ``HeadPrior.gap_mean``."""

HEIGHT_IN_FACES = 7.0
"""Height of a body box in face heights.

A standing adult is 7.5 heads high, and a face from chin to hair line is four fifths of a head, which makes 9.4; most
people in photos sit, or are cut by the border or by something in front. 7 reaches to the knees of somebody who
stands, and the photo's border cuts the rest.
"""


def bodies_from_faces(face_xyxy: NDArray[np.float32], image_wh: tuple[int, int]) -> NDArray[np.float32]:
    """A body box for each face: upright, below the face and centred on it, cut at the photo's borders.

    Args:
        face_xyxy: (n, 4) faces that lie at least partly in the photo.
        image_wh: Width, height.

    Returns:
        (n, 4), same frame.

    Example:
        >>> bodies_from_faces(np.array([[90, 40, 120, 82]], np.float32), (400, 300)).round().tolist()
        [[55.0, 25.0, 155.0, 300.0]]
    """
    heights = face_xyxy[:, 3] - face_xyxy[:, 1]
    middle = (face_xyxy[:, 0] + face_xyxy[:, 2]) / 2
    half = np.maximum(heights * WIDTH_IN_FACES, face_xyxy[:, 2] - face_xyxy[:, 0]) / 2
    top = face_xyxy[:, 1] - GAP_IN_FACES * heights
    boxes = np.stack([middle - half, top, middle + half, top + HEIGHT_IN_FACES * heights], axis=1)
    return clip_boxes(boxes.astype(np.float32), image_wh)
