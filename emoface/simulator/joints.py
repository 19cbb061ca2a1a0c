"""The true points of drawn people, in the order of ``emoface.vision.whole_body``; hands are drawn without fingers."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from emoface.simulator.bodies import BodyStyle, arm_joints, leg_joints
from emoface.simulator.brush import Brush, bend
from emoface.simulator.faces import (
    EYE_Y,
    FACES,
    LOWER_LIP,
    NOSE_Y,
    UPPER_LIP,
    Expression,
    FaceStyle,
    brow_curve,
    ear_x,
    eye_ellipse,
    face_outline,
    mouth_curves,
    nose_x,
)
from emoface.simulator.plans import PersonPlan
from emoface.vision.whole_body import FACE_PART, N_POINTS, POINT_INDEX

_SIDES = (-1, 1)
_FEET = {"big_toe": (0.02, 0.2), "small_toe": (0.28, 0.16), "heel": (0.0, 0.02)}
"""Points of a foot from its ankle, outwards and down, in face heights."""


def whole_body_points(person: PersonPlan, body: Brush, head: Brush) -> NDArray[np.float64]:
    """The points of a drawn person.

    Args:
        person: Plan of the person.
        body: Brush with which the body was drawn.
        head: Brush with which the head was drawn.

    Returns:
        (133, 3) x and y in the frame of the brushes' canvas, and confidence: 1 for what is drawn, even if something
        covers it, and 0 for hands and, of a person who is turned away, for the face.
    """
    points = np.zeros((N_POINTS, 3))
    is_turned = person.hidden_by == "turned_away"

    def put(brush: Brush, name: str, side: int, x: float, y: float) -> None:
        own_side = "left" if (side > 0) != is_turned else "right"  # left and right are those of the person
        points[POINT_INDEX[f"{own_side}_{name}"]] = (*brush.to_canvas(np.array([[x, y]]))[0], 1)

    for side in _SIDES:
        put(head, "ear", side, ear_x(person.face, side), 0.02)
        for name, (x, y) in limb_joints(person.body, person.cause.posture, side).items():
            put(body, name, side, x, y)
    if not is_turned:
        expression = FACES[person.cause.expression]
        for side in _SIDES:
            put(head, "eye", side, eye_ellipse(person.face, expression, side)[0], EYE_Y)
        face = head.to_canvas(face_points_68(person.face, expression))
        points[FACE_PART, :2], points[FACE_PART, 2] = face, 1
        nose = head.to_canvas(np.array([[nose_x(person.face), NOSE_Y]]))[0]
        points[POINT_INDEX["nose"]] = (*nose, 1)
    return points


def limb_joints(style: BodyStyle, posture: str, side: int) -> dict[str, tuple[float, float]]:
    """The joints of one arm, leg and foot by name, in face heights from the middle of the face.

    Args:
        style: Look of the body.
        posture: One of ``causes.POSTURES``.
        side: -1 for the viewer's left, 1 for the viewer's right.
    """
    arm = zip(("shoulder", "elbow", "wrist"), arm_joints(posture, side), strict=True)
    leg = zip(("hip", "knee", "ankle"), leg_joints(posture, side, style.height), strict=True)
    joints = {name: (x * style.build, y) for name, (x, y) in (*arm, *leg)}
    x, y = joints["ankle"]
    return joints | {name: (x + side * outwards, y + down) for name, (outwards, down) in _FEET.items()}


def face_points_68(style: FaceStyle, expression: Expression) -> NDArray[np.float64]:
    """The 68 points of a face with an expression, before the head is tilted.

    Returns:
        (68, 2) in face heights from the middle of the face: jaw, brows, nose, eyes, outer and inner lips.

    Source: the markup of 300-W.
    """
    jaw = face_outline(style, np.linspace(np.pi, 0, 17))
    brows = [bend(brow_curve(style, expression, side))[[0, 4, 8, 12, 16]] for side in _SIDES]  # inner end first
    x = nose_x(style)
    bridge = [(x, y) for y in np.linspace(-0.06, NOSE_Y, 4)]
    nostrils = [(x + 0.055 * style.nose_size * k, NOSE_Y + 0.036 - 0.016 * abs(k)) for k in (-1, -0.5, 0, 0.5, 1)]
    eyes = [_eye(*eye_ellipse(style, expression, side)) for side in _SIDES]
    outer, inner = _lips(style, expression)
    return np.vstack([jaw, brows[0][::-1], brows[1], bridge, nostrils, *eyes, outer, inner])


def _eye(x: float, half_width: float, half_height: float) -> NDArray[np.float64]:
    """The six points of an eye: left corner, upper lid, right corner, lower lid, clockwise as the viewer sees them."""
    third, lid = half_width / 3, 8 / 9 * half_height  # a parabola, one third of its width from the middle
    above = [(x - third, EYE_Y - lid), (x + third, EYE_Y - lid)]
    below = [(x + third, EYE_Y + 0.85 * lid), (x - third, EYE_Y + 0.85 * lid)]
    return np.array([(x - half_width, EYE_Y), *above, (x + half_width, EYE_Y), *below])


def _lips(style: FaceStyle, expression: Expression) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The 12 outer and the 8 inner points of the lips, from the viewer's left corner clockwise."""
    above, below = mouth_curves(style, expression)
    upper, lower = bend(above), bend(below)
    outer_upper = bend([above[0], (above[1][0], above[1][1] - UPPER_LIP), above[2]])
    outer_lower = bend([below[0], (below[1][0], below[1][1] + LOWER_LIP), below[2]])
    at_sixths, at_eighths = [3, 5, 8, 11, 13], [4, 8, 12]  # of the 17 points of a curve, without the corners
    outer = [outer_upper[[0]], outer_upper[at_sixths], outer_upper[[16]], outer_lower[at_sixths[::-1]]]
    inner = [(0.85 * upper[0] + 0.15 * upper[8])[None], upper[at_eighths], (0.85 * upper[16] + 0.15 * upper[8])[None]]
    return np.vstack(outer), np.vstack([*inner, lower[at_eighths[::-1]]])
