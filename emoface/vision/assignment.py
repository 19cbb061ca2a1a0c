"""Faces and bodies that belong together: which face is whose, and where the body of a lone face probably is.

Which detected face belongs to which annotated person is decided for a whole photo at once. A body box says where its
person's head should be. Each pair of person and face gets a cost: how far the face is from where a head is in that
box, in natural logarithms of odds. One-to-one assignment of least total cost (Kuhn-Munkres) then keeps two people who
overlap from sharing a face, and the price of having no face keeps a bystander's face from an annotated person.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from emoface.vision.boxes import box_areas, box_intersections, clip_boxes

UNASSIGNED = -1

WIDTH_IN_FACES = 1 / 0.42
"""Width of a body box in face heights."""

GAP_IN_FACES = 0.35
"""From the top of a body box to the top of the face, in face heights: the median over people of EMOTIC."""

HEIGHT_IN_FACES = 7.0
"""Height of a body box in face heights.

A standing adult is 7.5 heads high, and a face from chin to hair line is four fifths of a head, which makes 9.4; most
people in photos sit, or are cut by the border or by something in front. 7 reaches to the knees of somebody who
stands, and the photo's border cuts the rest.
"""


@dataclass(frozen=True)
class HeadPrior:
    """Where a face is in its person's body box, and how strictly.

    The cost of a pair is minus the logarithm of the odds that the face is the person's own, up to a constant. Its
    weights are those of a logistic regression on real people of EMOTIC whose faces were labelled by eye, together with
    people who are alone in their photo; ``docs/benchmarks/head_prior.py`` fits and cross-validates them.

    Attributes:
        side: Weight of ``head_features``' side.
        above: Weight of above.
        below: Weight of below.
        smaller: Weight of smaller.
        min_inside: Share of the face box that must be inside the body box.
        max_cost: Price of having no face.
    """

    side: float = 20.0
    above: float = 320.0
    below: float = 3.7
    smaller: float = 2.7
    min_inside: float = 0.5
    max_cost: float = 5.5


DEFAULT_HEAD_PRIOR = HeadPrior()


@dataclass(frozen=True)
class FaceAssignment:
    """Which face each person of a photo has.

    Attributes:
        face_index: (n,) position of each person's face, ``UNASSIGNED`` where there is none.
        lost_to_other: (n,) whether a face was near enough to this person's head but belongs to another person.
        margin: (n,) how much the least total cost of the photo grows if this person may not have this face: the cost of
            the next best assignment; nan without a face. Small values are uncertain.
    """

    face_index: NDArray[np.int64]
    lost_to_other: NDArray[np.bool_]
    margin: NDArray[np.float64]

    def take(self, rows: NDArray[np.int64]) -> FaceAssignment:
        """The assignment of some of the people, or of people repeated."""
        return FaceAssignment(self.face_index[rows], self.lost_to_other[rows], self.margin[rows])


def head_features(body_xyxy: NDArray[np.float32], face_xyxy: NDArray[np.float32]) -> NDArray[np.float64]:
    """Measures how far each face is from where the head is in each body box: the terms that ``HeadPrior`` weights.

    Args:
        body_xyxy: (n, 4) body boxes, original pixels; a row of nan is a person without a box.
        face_xyxy: (m, 4) face boxes, same frame.

    Returns:
        (n, m, 4), not finite where a box has no area:

        - side: square of the distance of the face's centre from the box's vertical middle line, in box widths
        - above: square of how far the top of the face is above 2 % of the box's height, in box heights
        - below: how far it is below 8 % of the box's height, in shorter sides of the box
        - smaller: natural logarithm of the expected face width over the face's, 0 where the face is as wide or wider
    """
    body, face = body_xyxy[:, None].astype(np.float64), face_xyxy[None].astype(np.float64)
    body_w, body_h = body[..., 2] - body[..., 0], body[..., 3] - body[..., 1]
    drop = face[..., 1] - body[..., 1]
    with np.errstate(divide="ignore", invalid="ignore"):
        side = np.square((face[..., 0] + face[..., 2] - body[..., 0] - body[..., 2]) / 2 / body_w)
        above = np.square(np.maximum(0.02 - drop / body_h, 0))
        below = np.maximum(drop - 0.08 * body_h, 0) / np.minimum(body_w, body_h)
        smaller = np.maximum(np.log(expected_face_widths(body_w, body_h) / (face[..., 2] - face[..., 0])), 0)
    return np.stack([side, above, below, smaller], axis=-1)


def face_costs(
    body_xyxy: NDArray[np.float32], face_xyxy: NDArray[np.float32], prior: HeadPrior = DEFAULT_HEAD_PRIOR
) -> NDArray[np.float64]:
    """How badly each face fits the head region of each body box.

    Args:
        body_xyxy: (n, 4) body boxes, original pixels; a row of nan is a person without a box.
        face_xyxy: (m, 4) face boxes, same frame.
        prior: Where a face should be.

    Returns:
        (n, m) costs; 0 is perfect, infinity is impossible.
    """
    inside = box_intersections(body_xyxy, face_xyxy) / np.maximum(box_areas(face_xyxy), 1e-6)[None, :]
    costs = head_features(body_xyxy, face_xyxy) @ np.array([prior.side, prior.above, prior.below, prior.smaller])
    possible = (inside >= prior.min_inside) & np.isfinite(costs)
    return np.where(possible, costs, np.inf)


def expected_face_widths(body_w: NDArray[np.float64], body_h: NDArray[np.float64]) -> NDArray[np.float64]:
    """The width of the face box that a body box of this size suggests.

    A standing body is 7.5 heads high and about 2.5 heads wide; a box cut at the waist or chest is as wide, but lower.
    The width therefore decides, unless the box is wider than it is high.

    Args:
        body_w: Box widths.
        body_h: Box heights.

    Returns:
        Widths of the face box, same shape and unit. Medians over people of EMOTIC who are alone in their photo.
    """
    return np.asarray(np.minimum(body_w * 0.34, body_h * 0.37))


def assign_faces(
    body_xyxy: NDArray[np.float32], face_xyxy: NDArray[np.float32], prior: HeadPrior = DEFAULT_HEAD_PRIOR
) -> FaceAssignment:
    """Gives each person of one photo at most one face, and each face to at most one person.

    Args:
        body_xyxy: (n, 4) body boxes of the annotated people, each person once; a row of nan is a person without a box.
        face_xyxy: (m, 4) detected faces, same frame.
        prior: Where a face should be, and the price of having none.

    Example:
        >>> bodies = np.array([[0, 0, 100, 300], [60, 0, 160, 300]], np.float32)
        >>> faces = np.array([[92, 12, 128, 57]], np.float32)
        >>> found = assign_faces(bodies, faces)
        >>> found.face_index.tolist(), found.lost_to_other.tolist()
        ([-1, 0], [False, False])
    """
    n_people, n_faces = len(body_xyxy), len(face_xyxy)
    if n_people == 0 or n_faces == 0:
        nobody = np.full(n_people, UNASSIGNED, dtype=np.int64)
        return FaceAssignment(nobody, np.zeros(n_people, np.bool_), np.full(n_people, np.nan))
    costs = face_costs(body_xyxy, face_xyxy, prior)
    admissible = costs <= prior.max_cost
    costs[~admissible] = np.inf
    face_index, total = _solve(costs, prior.max_cost)
    margin = np.full(n_people, np.nan)
    for person in np.flatnonzero(face_index != UNASSIGNED):
        without = costs.copy()
        without[person, face_index[person]] = np.inf
        margin[person] = _solve(without, prior.max_cost)[1] - total
    return FaceAssignment(face_index, admissible.any(axis=1) & (face_index == UNASSIGNED), margin)


def _solve(costs: NDArray[np.float64], price: float) -> tuple[NDArray[np.int64], float]:
    """The assignment of least total cost, and that cost; (n, m) costs, infinite where a pair is impossible."""
    from scipy.optimize import linear_sum_assignment

    n_people, n_faces = costs.shape
    alone = np.full((n_people, n_people), price)  # one column of "no face" for each person
    beyond_any_sum = price * (n_people + 1)
    table = np.hstack([np.where(np.isfinite(costs), costs, beyond_any_sum), alone])
    people, columns = linear_sum_assignment(table)
    face_index = np.full(n_people, UNASSIGNED, dtype=np.int64)
    given = columns < n_faces
    face_index[people[given]] = columns[given]
    return face_index, float(table[people, columns].sum())


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
