"""Faces and bodies that belong together: which face is whose, and where the body of a lone face probably is.

Which detected face belongs to which annotated person is decided for a whole photo at once.

A body box says where its person's head should be. Each pair of person and face gets a cost: how far the
face lies from where a head sits in that body box, in standard deviations. One-to-one assignment of least
total cost (Kuhn-Munkres) then keeps two people who overlap from sharing a face, and the price of staying
without a face keeps a bystander's face from an annotated person.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from emoface.vision.boxes import box_areas, box_intersections, clip_boxes

UNASSIGNED = -1

WIDTH_IN_FACES = 1 / 0.42
"""Width of a body box in face heights: what ``expected_face_heights`` says, turned round."""

GAP_IN_FACES = 0.35
"""From the top of a body box to the top of the face, in face heights: ``HeadPrior.gap_mean``."""

HEIGHT_IN_FACES = 7.0
"""Height of a body box in face heights.

A standing adult is 7.5 heads high, and a face from chin to hair line is four fifths of a head, which makes 9.4; most
people in photos sit, or are cut by the border or by something in front. 7 reaches to the knees of somebody who
stands, and the photo's border cuts the rest.
"""


@dataclass(frozen=True)
class HeadPrior:
    """Where a face sits in its person's body box, and how strictly.

    Means and standard deviations, in units of the body box, were read off people whose boxes hold the whole
    body down to head and shoulders. The width of a body box says little about the head when arms are spread,
    so the spreads are wide.

    Attributes:
        side_std: Distance of the face's centre from the box's vertical middle line, in box widths.
        gap_mean: Gap between the top of the box and the top of the face, in face heights.
        gap_std: Its spread.
        size_mean: Natural logarithm of face height over the box's expected head height.
        size_std: Its spread.
        min_inside: Share of the face box that must lie inside the body box.
        max_cost: Price of staying without a face, in squared standard deviations.
    """

    side_std: float = 0.16
    gap_mean: float = 0.35
    gap_std: float = 0.45
    size_mean: float = 0.0
    size_std: float = 0.5
    min_inside: float = 0.6
    max_cost: float = 9.0


DEFAULT_HEAD_PRIOR = HeadPrior()


def face_costs(
    body_xyxy: NDArray[np.float32], face_xyxy: NDArray[np.float32], prior: HeadPrior = DEFAULT_HEAD_PRIOR
) -> NDArray[np.float64]:
    """How badly each face sits in the head region of each body box.

    Args:
        body_xyxy: (n, 4) body boxes, original pixels; a row of nan is a person without a box.
        face_xyxy: (m, 4) face boxes, same frame.
        prior: Where a face should be.

    Returns:
        (n, m) sums of squared standard deviations; 0 is perfect, infinity is impossible.
    """
    inside = box_intersections(body_xyxy, face_xyxy) / np.maximum(box_areas(face_xyxy), 1e-6)[None, :]
    body_w, body_h = (body_xyxy[:, 2:] - body_xyxy[:, :2]).T.astype(np.float64)[:, :, None]
    face_h = (face_xyxy[:, 3] - face_xyxy[:, 1]).astype(np.float64)[None, :]
    face_h = np.maximum(face_h, 1e-6)
    body_middle = (body_xyxy[:, 0] + body_xyxy[:, 2])[:, None] / 2
    face_middle = (face_xyxy[:, 0] + face_xyxy[:, 2])[None, :] / 2
    with np.errstate(divide="ignore", invalid="ignore"):
        side = (face_middle - body_middle) / body_w
        gap = (face_xyxy[None, :, 1] - body_xyxy[:, None, 1]) / face_h
        size = np.log(face_h / expected_face_heights(body_w, body_h))
        costs = (
            np.square(side / prior.side_std)
            + np.square((gap - prior.gap_mean) / prior.gap_std)
            + np.square((size - prior.size_mean) / prior.size_std)
        )
    possible = (inside >= prior.min_inside) & np.isfinite(costs)
    return np.where(possible, costs, np.inf)


def expected_face_heights(body_w: NDArray[np.float64], body_h: NDArray[np.float64]) -> NDArray[np.float64]:
    """The face height that a body box of this size suggests.

    A standing body is 7.5 heads high and about 2.5 heads wide; a box cut at the waist or chest is as wide,
    but lower. The width therefore decides, unless the box is wider than it is high.

    Args:
        body_w: Box widths.
        body_h: Box heights.

    Returns:
        Heights of the face box (chin to hair line), same shape and unit.
    """
    return np.asarray(np.minimum(body_w * 0.42, body_h * 0.45))


def assign_faces(
    body_xyxy: NDArray[np.float32], face_xyxy: NDArray[np.float32], prior: HeadPrior = DEFAULT_HEAD_PRIOR
) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Gives each person of one photo at most one face, and each face to at most one person.

    Args:
        body_xyxy: (n, 4) body boxes of the annotated people; a row of nan is a person without a box.
        face_xyxy: (m, 4) detected faces, same frame.
        prior: Where a face should be, and the price of staying without one.

    Returns:
        (n,) position of each person's face, ``UNASSIGNED`` where there is none; and (n,) whether a face sat
        well enough in that person's head region but went to somebody else.

    Example:
        >>> bodies = np.array([[0, 0, 100, 300], [60, 0, 160, 300]], np.float32)
        >>> faces = np.array([[92, 12, 128, 57]], np.float32)
        >>> face_index, lost_to_other = assign_faces(bodies, faces)
        >>> face_index.tolist(), lost_to_other.tolist()
        ([-1, 0], [False, False])
    """
    n_people, n_faces = len(body_xyxy), len(face_xyxy)
    face_index = np.full(n_people, UNASSIGNED, dtype=np.int64)
    if n_people == 0 or n_faces == 0:
        return face_index, np.zeros(n_people, dtype=np.bool_)
    costs = face_costs(body_xyxy, face_xyxy, prior)
    admissible = costs <= prior.max_cost
    alone = np.full((n_people, n_people), prior.max_cost)  # one column of "no face" for each person
    beyond_any_sum = prior.max_cost * (n_people + 1)
    people, columns = linear_sum_assignment(np.hstack([np.where(admissible, costs, beyond_any_sum), alone]))
    given = columns < n_faces
    face_index[people[given]] = columns[given]
    return face_index, admissible.any(axis=1) & (face_index == UNASSIGNED)


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
