"""Heads: seen from the front with an expression, or from behind.

The unit of the coordinates is the height of the face, forehead to chin, as in the boxes of face detectors. The origin
is the middle of the face.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from emoface.simulator.brush import Brush, Color, bend, mix, shade

SKINS: tuple[Color, ...] = (
    (255, 224, 196),
    (246, 208, 177),
    (236, 188, 150),
    (225, 172, 134),
    (205, 150, 110),
    (180, 124, 86),
    (150, 100, 68),
    (120, 78, 52),
    (94, 60, 42),
)
HAIRS: tuple[Color, ...] = (
    (28, 22, 20),
    (52, 36, 26),
    (86, 58, 36),
    (122, 82, 46),
    (178, 136, 80),
    (214, 182, 122),
    (128, 52, 30),
    (176, 174, 170),
)
HAIR_STYLES = ("short", "long", "bob", "bun", "curly", "bald", "fringe")
IRISES: tuple[Color, ...] = ((60, 40, 26), (90, 62, 34), (74, 96, 60), (70, 104, 140), (60, 60, 64))

EYE_X, EYE_Y, NOSE_Y, MOUTH_Y, MOUTH_X = 0.175, -0.09, 0.12, 0.285, 0.13
UPPER_LIP, LOWER_LIP = 0.038, 0.055
_ALL_AROUND = np.linspace(0, 2 * np.pi, 64, endpoint=False)
_LEAST_OPEN = 0.015
"""A mouth that is open less than this is drawn closed."""


@dataclass(frozen=True)
class FaceStyle:
    """The look of a person's head, independent of the expression.

    Attributes:
        skin: Colour of the skin.
        hair: Colour of the hair.
        hair_style: One of ``HAIR_STYLES``.
        iris: Colour of the eyes.
        half_width: Half the width of the face, in face heights.
        jaw: Width of the jaw, as a share of the width of the face.
        eye_size: Factor for the size of the eyes.
        nose_size: Factor for the size of the nose.
        brow_width: Thickness of the brows, in face heights.
        lips: Colour of the lips.
        beard: Density of the beard, 0 (none) to 1 (full).
        has_glasses: Whether the person wears glasses.
        yaw: How far the head is turned to the viewer's right, -1 to 1; 1 is about 40 degrees.
        roll: Clockwise tilt of the head, degrees.
    """

    skin: Color
    hair: Color
    hair_style: str
    iris: Color
    half_width: float
    jaw: float
    eye_size: float
    nose_size: float
    brow_width: float
    lips: Color
    beard: float
    has_glasses: bool
    yaw: float
    roll: float


@dataclass(frozen=True)
class Expression:
    """Positions of the movable parts of a face.

    Attributes:
        eye_open: Opening of the eyes: 0 closed, 1 normal, 1.6 wide open.
        brow_height: How far the brows are raised, in face heights.
        brow_tilt: Positive raises the inner ends of the brows (sad), negative lowers them (angry).
        brow_skew: How far one brow is raised and the other lowered, in face heights.
        mouth_curve: Curve of the mouth, in face heights; positive is a smile.
        mouth_open: Height of the open mouth, in face heights.
        mouth_width: Factor for the width of the mouth.
        mouth_skew: How far one corner of the mouth is raised and the other lowered, in face heights.
        shows_teeth: Whether an open mouth shows teeth.
        gaze: Direction of the gaze, x and y, -1 to 1.
        blush: Redness of the cheeks, 0-1.
        has_tears: Whether the eyes shed tears.
        has_wrinkles: Whether nose and brow are wrinkled.
        eye_bags: Visibility of bags under the eyes, 0-1.
    """

    eye_open: float = 1.0
    brow_height: float = 0.0
    brow_tilt: float = 0.0
    brow_skew: float = 0.0
    mouth_curve: float = 0.0
    mouth_open: float = 0.0
    mouth_width: float = 1.0
    mouth_skew: float = 0.0
    shows_teeth: bool = False
    gaze: tuple[float, float] = (0.0, 0.0)
    blush: float = 0.0
    has_tears: bool = False
    has_wrinkles: bool = False
    eye_bags: float = 0.0


FACES: dict[str, Expression] = {
    "neutral": Expression(),
    "smile": Expression(mouth_curve=0.075, mouth_width=1.2, eye_open=0.85, blush=0.2),
    "laugh": Expression(
        mouth_curve=0.1, mouth_open=0.12, mouth_width=1.25, shows_teeth=True, eye_open=0.5, brow_height=0.02, blush=0.35
    ),
    "sad": Expression(
        mouth_curve=-0.07, mouth_width=0.9, brow_tilt=0.065, brow_height=0.01, eye_open=0.75, gaze=(0, 0.6),
        has_tears=True,
    ),
    "angry": Expression(
        mouth_curve=-0.04, brow_tilt=-0.075, brow_height=-0.03, eye_open=0.8, has_wrinkles=True, blush=0.3
    ),
    "surprised": Expression(mouth_open=0.15, mouth_width=0.65, brow_height=0.075, eye_open=1.6),
    "fearful": Expression(
        mouth_open=0.06, mouth_width=1.15, mouth_curve=-0.03, shows_teeth=True, brow_height=0.05, brow_tilt=0.05,
        eye_open=1.5,
    ),
    "disgusted": Expression(
        mouth_curve=-0.05, mouth_skew=0.045, mouth_open=0.02, eye_open=0.45, brow_tilt=-0.03, brow_height=-0.02,
        has_wrinkles=True,
    ),
    "pained": Expression(
        mouth_open=0.07, mouth_width=1.15, shows_teeth=True, mouth_curve=-0.035, eye_open=0.0, brow_tilt=0.03,
        brow_height=-0.03, has_wrinkles=True,
    ),
    "tired": Expression(eye_open=0.35, brow_height=-0.005, mouth_curve=-0.015, eye_bags=1.0, gaze=(0, 0.5)),
    "serene": Expression(eye_open=0.0, mouth_curve=0.04, mouth_width=1.05),
    "sceptical": Expression(brow_skew=0.05, mouth_skew=0.05, mouth_width=0.85, gaze=(0.8, -0.2), eye_open=0.85),
}  # fmt: skip
"""The face drawn for each of ``causes.EXPRESSIONS``."""


def draw_face_style(rng: np.random.Generator, is_male: bool) -> FaceStyle:
    """Draws the look of a head at random."""
    tone = int(rng.integers(len(SKINS)))
    skin = SKINS[tone]
    style = HAIR_STYLES[int(rng.integers(len(HAIR_STYLES)))]
    if not is_male and style == "bald":
        style = "long"
    if is_male and style in ("bun", "bob"):
        style = "short"
    hairs = (*HAIRS[:3], HAIRS[-1]) if tone > len(SKINS) // 2 and rng.random() < 0.85 else HAIRS
    jitter = rng.normal(0, 8) + rng.normal(0, 2.5, 3)
    return FaceStyle(
        skin=tuple(float(v) for v in np.clip(np.array(skin) + jitter, 20, 255)),  # type: ignore[arg-type]
        hair=hairs[int(rng.integers(len(hairs)))],
        hair_style=style,
        iris=IRISES[int(rng.integers(len(IRISES)))],
        half_width=float(rng.uniform(0.36, 0.42)),
        jaw=float(rng.uniform(0.62, 0.78) if is_male else rng.uniform(0.52, 0.66)),
        eye_size=float(rng.uniform(0.88, 1.15)),
        nose_size=float(rng.uniform(0.85, 1.2)),
        brow_width=float(rng.uniform(0.03, 0.045) if is_male else rng.uniform(0.018, 0.03)),
        lips=mix(shade(skin, 0.8), (190, 70, 80), float(rng.uniform(0.2, 0.4) if is_male else rng.uniform(0.4, 0.8))),
        beard=float(rng.uniform(0.5, 1.0)) if is_male and rng.random() < 0.22 else 0.0,
        has_glasses=bool(rng.random() < 0.12),
        yaw=float(np.clip(rng.normal(0, 0.35), -0.8, 0.8)),
        roll=float(np.clip(rng.normal(0, 7), -18, 18)),
    )


def face_points(style: FaceStyle) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Outline and landmarks of a face, before the head is tilted.

    Returns:
        (n, 2) outline, forehead to chin, and (5, 2) landmarks: eyes, nose, corners of the mouth, left to right.
    """
    x = _turned_x(style)
    landmarks = np.array(
        [
            (x(-EYE_X), EYE_Y),
            (x(EYE_X), EYE_Y),
            (nose_x(style), NOSE_Y),
            (x(-MOUTH_X), MOUTH_Y),
            (x(MOUTH_X), MOUTH_Y),
        ]
    )
    return face_outline(style, _ALL_AROUND), landmarks


def draw_head(brush: Brush, style: FaceStyle, expression: Expression, light: float) -> None:
    """Draws a head that faces the viewer; call ``draw_hair_behind`` before it.

    Args:
        brush: Brush with the middle of the face as origin and its height as unit; it includes the head's tilt.
        style: Look of the head.
        expression: Expression of the face.
        light: Direction that the light comes from, -1 (viewer's left) to 1 (viewer's right).
    """
    for side in (-1, 1):
        x = ear_x(style, side)
        if side * style.yaw < 0.5:
            brush.ellipse(x, 0.02, 0.055, 0.11, shade(style.skin, 0.86))
            brush.ellipse(x, 0.02, 0.03, 0.07, shade(style.skin, 0.72))
    outline = face_outline(style, _ALL_AROUND)
    brush.polygon(outline, style.skin)
    if style.beard:
        _draw_beard(brush, style)
    if expression.blush:
        for side in (-1, 1):
            tint = mix(style.skin, (225, 90, 90), 0.35 * expression.blush)
            brush.ellipse(_turned_x(style)(side * 0.23), 0.12, 0.075, 0.05, tint)
    _draw_nose(brush, style, expression)
    _shade_face(brush, style, light)
    _draw_mouth(brush, style, expression)
    for side in (-1, 1):
        _draw_eye(brush, style, expression, side)
        _draw_brow(brush, style, expression, side)
    if style.has_glasses:
        _draw_glasses(brush, style)
    _draw_hair_in_front(brush, style)


def draw_head_from_behind(brush: Brush, style: FaceStyle) -> None:
    """Draws the back of a head: hair and ears, no face."""
    hair, width = shade(style.hair, 0.85), style.half_width + 0.06
    is_long = style.hair_style in ("long", "bob", "curly")
    bottom = {"long": 1.0, "bob": 0.55, "curly": 0.5}.get(style.hair_style, 0.3)
    flare = 1.12 if is_long else 0.8
    if not is_long:
        for side in (-1, 1):
            brush.ellipse(side * (style.half_width + 0.04), 0.02, 0.06, 0.11, shade(style.skin, 0.85))
    brush.ellipse(0, -0.1, width, 0.55, hair)
    brush.polygon([(-width, -0.1), (width, -0.1), (width * flare, bottom), (-width * flare, bottom)], hair)
    crown = (0.1, -0.36)
    for k, across in enumerate(np.linspace(-0.92, 0.92, 19)):
        end = (width * flare * across, bottom * (1 - 0.25 * across**2) if is_long else 0.42 * np.sqrt(1 - across**2))
        middle = ((crown[0] + end[0]) * 0.6 + 0.1 * across, (crown[1] + end[1]) * 0.45)
        brush.curve([crown, middle, end], 0.02, shade(hair, (0.68, 1.1, 0.85)[k % 3]))
    for k, angle in enumerate(np.linspace(np.pi, 2 * np.pi, 15)):
        rim = (width * 0.94 * np.cos(angle), -0.1 + 0.52 * np.sin(angle))
        brush.line([crown, rim], 0.016, shade(hair, (0.68, 1.1, 0.85)[k % 3]))
    if style.hair_style == "bun":
        brush.ellipse(0, -0.4, 0.2, 0.19, shade(hair, 0.75))
        brush.ellipse(0.02, -0.42, 0.14, 0.13, shade(hair, 1.1))


def _turned_x(style: FaceStyle) -> Callable[[float], float]:
    """Returns the function that converts the x of a facial feature to its x on the turned head."""

    def turned(x: float) -> float:
        angle = np.arcsin(np.clip(x / (style.half_width * 1.15), -1, 1)) + style.yaw * 0.62
        return float(style.half_width * 1.15 * np.sin(angle) * 0.97 - style.yaw * 0.05)

    return turned


def nose_x(style: FaceStyle) -> float:
    """The x of the tip of the nose."""
    return _turned_x(style)(0) + style.yaw * 0.05


def ear_x(style: FaceStyle, side: int) -> float:
    """The x of the middle of an ear; ``side`` is -1 for the viewer's left, 1 for the viewer's right."""
    return side * (style.half_width + 0.01) - style.yaw * 0.06


def face_outline(style: FaceStyle, angles: NDArray[np.float64]) -> NDArray[np.float64]:
    """Points (n, 2) on the outline of a face: angle 0 is on the viewer's right, a quarter turn further is the chin."""
    x, y = np.cos(angles), np.sin(angles)
    narrowing = np.where(y > 0, 1 - (1 - style.jaw) * np.clip(y, 0, 1) ** 1.7, 1.0)
    squared = np.sign(x) * np.abs(x) ** 0.9
    return np.column_stack([squared * narrowing * style.half_width + style.yaw * 0.03 * np.clip(y, 0, 1), y * 0.5])


def _shade_face(brush: Brush, style: FaceStyle, light: float) -> None:
    """Shades the face so that it looks round: darker away from the light and towards the edges."""
    outline = brush.to_canvas(face_outline(style, _ALL_AROUND))
    height, width = brush.canvas.shape[:2]
    x1, y1 = np.maximum(np.floor(outline.min(axis=0)).astype(int), 0)
    x2, y2 = np.minimum(np.ceil(outline.max(axis=0)).astype(int) + 1, (width, height))
    if x1 >= x2 or y1 >= y2:
        return
    mask = np.zeros((y2 - y1, x2 - x1), np.uint8)
    cv2.fillPoly(mask, [np.round((outline - (x1, y1)) * 16).astype(np.int32)], 255, cv2.LINE_AA, 4)
    inverse = np.linalg.inv(brush.matrix[:, :2])
    xs, ys = np.meshgrid(np.arange(x1, x2) - brush.matrix[0, 2], np.arange(y1, y2) - brush.matrix[1, 2])
    u = (xs * inverse[0, 0] + ys * inverse[0, 1]) / style.half_width
    v = (xs * inverse[1, 0] + ys * inverse[1, 1]) / 0.5
    falloff = 0.3 * np.clip((u - 0.45 * light) ** 2 + 0.55 * (v + 0.25) ** 2, 0, 1.6)
    sockets = sum(
        0.16 * np.exp(-(((u - side * 0.46) / 0.24) ** 2) - ((v + 0.2) / 0.16) ** 2) for side in (-1, 1)
    ) + 0.1 * np.exp(-((u / 0.3) ** 2) - ((v - 0.78) / 0.1) ** 2)
    gloss = 0.1 * np.exp(-(((u - 0.35 * light) / 0.4) ** 2) - ((v + 0.55) / 0.25) ** 2)
    factor = np.clip(1.06 - falloff - sockets + gloss, 0.4, 1.2)[..., None]
    part = brush.canvas[y1:y2, x1:x2, :3]
    inside = (mask[..., None] / 255.0).astype(np.float32)
    part[:] = np.clip(part * (1 + (factor - 1) * inside), 0, 255).astype(np.uint8)


def eye_ellipse(style: FaceStyle, expression: Expression, side: int) -> tuple[float, float, float]:
    """The x of the centre of an eye, whose y is ``EYE_Y``, half its width, and half its height.

    Args:
        style: Look of the head.
        expression: Expression of the face.
        side: -1 for the viewer's left, 1 for the viewer's right.
    """
    squeeze = 1 - 0.35 * max(0.0, side * style.yaw)
    half_width, half_height = 0.085 * style.eye_size * squeeze, 0.042 * style.eye_size * expression.eye_open
    return _turned_x(style)(side * EYE_X), half_width, half_height


def brow_curve(style: FaceStyle, expression: Expression, side: int) -> list[tuple[float, float]]:
    """Inner end, middle and outer end of a brow; ``side`` as in ``eye_ellipse``."""
    turned = _turned_x(style)
    y = EYE_Y - 0.105 - expression.brow_height + side * expression.brow_skew * -1
    inner, outer = turned(side * 0.085), turned(side * 0.285)
    middle = turned(side * 0.19)
    tilt = expression.brow_tilt
    return [(inner, y - tilt + 0.012), (middle, y - 0.022 - tilt * 0.15), (outer, y + 0.02 + tilt * 0.5)]


def mouth_curves(
    style: FaceStyle, expression: Expression
) -> tuple[list[tuple[float, float]], list[tuple[float, float]]]:
    """Left corner, middle and right corner of the line between the lips: its upper and its lower part.

    They differ where the mouth is open.
    """
    turned = _turned_x(style)
    half = MOUTH_X * expression.mouth_width
    left, right = turned(-half), turned(half)
    middle = (left + right) / 2
    curve, skew = expression.mouth_curve, expression.mouth_skew
    opening = expression.mouth_open if expression.mouth_open > _LEAST_OPEN else 0.0
    ends = (left, MOUTH_Y - curve * 0.6 + skew), (right, MOUTH_Y - curve * 0.6 - skew)
    low_y = MOUTH_Y + curve * 0.6
    upper = [ends[0], (middle, low_y - opening * 0.35), ends[1]]
    return upper, [ends[0], (middle, low_y + opening * 0.75), ends[1]]


def _draw_eye(brush: Brush, style: FaceStyle, expression: Expression, side: int) -> None:
    x, rx, ry = eye_ellipse(style, expression, side)
    lid = shade(style.skin, 0.55)
    dark = (30.0, 22.0, 20.0)
    if expression.eye_bags:
        brush.curve(
            [(x - rx, EYE_Y + 0.05), (x, EYE_Y + 0.085), (x + rx, EYE_Y + 0.05)], 0.018, shade(style.skin, 0.66)
        )
    if ry < 0.012:
        bow = 0.02 if expression.mouth_curve >= 0 else -0.005
        brush.curve([(x - rx, EYE_Y), (x, EYE_Y + bow), (x + rx, EYE_Y)], 0.022, dark)
        for end in (-1, 1):
            brush.line([(x + end * rx, EYE_Y), (x + end * rx * 1.15, EYE_Y - 0.012)], 0.014, dark)
        return
    brush.ellipse(x, EYE_Y, rx * 1.1, ry * 1.3 + 0.008, shade(style.skin, 0.72))
    almond = bend([(x - rx, EYE_Y + 0.004), (x, EYE_Y - ry), (x + rx, EYE_Y)])
    below = bend([(x + rx, EYE_Y), (x, EYE_Y + ry * 0.85), (x - rx, EYE_Y + 0.004)])
    brush.polygon(np.vstack([almond, below]), (244, 241, 236))
    gx = x + expression.gaze[0] * rx * 0.4
    gy = EYE_Y + expression.gaze[1] * ry * 0.35
    iris = min(0.04 * style.eye_size, ry * 1.05)
    brush.ellipse(gx, gy, min(iris, rx * 0.6), iris, style.iris)
    brush.ellipse(gx, gy, iris * 0.5, iris * 0.5, (12, 10, 10))
    brush.ellipse(gx - 0.012, gy - 0.012, 0.008, 0.008, (250, 250, 250))
    brush.line(almond, 0.02, dark)
    brush.line(below, 0.009, lid)
    if expression.has_tears:
        brush.ellipse(x + side * 0.01, EYE_Y + 0.13, 0.014, 0.07, (196, 222, 240))


def _draw_brow(brush: Brush, style: FaceStyle, expression: Expression, side: int) -> None:
    points = brow_curve(style, expression, side)
    brush.curve(points, style.brow_width, mix(style.hair, (40, 28, 22), 0.45))


def _draw_nose(brush: Brush, style: FaceStyle, expression: Expression) -> None:
    x = nose_x(style)
    size = style.nose_size
    dark, light = shade(style.skin, 0.66), shade(style.skin, 1.18)
    side = -1 if style.yaw > 0 else 1
    brush.curve(
        [(x + side * 0.03, -0.05), (x + side * 0.035, 0.04), (x + side * 0.05, NOSE_Y)], 0.014, shade(style.skin, 0.8)
    )
    brush.line([(x, -0.03), (x, NOSE_Y - 0.03)], 0.026, light)
    brush.ellipse(x, NOSE_Y + 0.005, 0.05 * size, 0.034 * size, shade(style.skin, 0.92))
    brush.ellipse(x, NOSE_Y - 0.01, 0.03 * size, 0.02 * size, light)
    brush.curve(
        [(x - 0.055 * size, NOSE_Y + 0.02), (x, NOSE_Y + 0.052), (x + 0.055 * size, NOSE_Y + 0.02)], 0.014, dark
    )
    for end in (-1, 1):
        brush.ellipse(x + end * 0.027 * size, NOSE_Y + 0.03, 0.014, 0.009, shade(style.skin, 0.4))
    if expression.has_wrinkles:
        for end in (-1, 1):
            brush.line([(x + end * 0.022, -0.17), (x + end * 0.028, -0.1)], 0.013, shade(style.skin, 0.62))
            brush.line([(x + end * 0.03, 0.0), (x + end * 0.06, 0.02)], 0.011, shade(style.skin, 0.68))


def _draw_mouth(brush: Brush, style: FaceStyle, expression: Expression) -> None:
    above, below = mouth_curves(style, expression)
    (left, left_y), (middle, _), (right, right_y) = above
    curve, opening = expression.mouth_curve, expression.mouth_open
    half = MOUTH_X * expression.mouth_width
    low_y = MOUTH_Y + curve * 0.6
    dark = (70.0, 24.0, 26.0)
    if opening > _LEAST_OPEN:
        top, bottom = bend(above), bend(below[::-1])
        brush.polygon(np.vstack([top, bottom]), dark)
        if expression.shows_teeth:
            inner = bend([(left + 0.02, left_y), (middle, low_y - opening * 0.32), (right - 0.02, right_y)])
            teeth = bend([(right - 0.02, right_y), (middle, low_y + opening * 0.16), (left + 0.02, left_y)])
            brush.polygon(np.vstack([inner, teeth]), (246, 242, 234))
        else:
            brush.ellipse(middle, low_y + opening * 0.4, half * 0.5, opening * 0.2, (176, 76, 80))
        brush.line(top, 0.024, style.lips)
        brush.line(bottom, 0.03, style.lips)
    else:
        line = bend(above)
        lower = bend([(right, right_y), (middle, low_y + LOWER_LIP), (left, left_y)])
        upper = bend([(right, right_y), (middle, low_y - UPPER_LIP), (left, left_y)])
        brush.polygon(np.vstack([line, upper]), shade(style.lips, 0.9))
        brush.polygon(np.vstack([line, lower]), style.lips)
        brush.line(line, 0.014, shade(style.lips, 0.42))
    chin_y = min(low_y + 0.085 + opening * 0.5, 0.43)
    crease = [(middle - 0.05, chin_y), (middle, chin_y + 0.01), (middle + 0.05, chin_y)]
    brush.curve(crease, 0.012, shade(style.skin, 0.76))
    if curve > 0.05:
        for side, x, y in ((-1, left, left_y), (1, right, right_y)):
            brush.curve([(x + side * 0.02, y - 0.12), (x + side * 0.045, y - 0.05), (x + side * 0.03, y + 0.02)], 0.012,
                        shade(style.skin, 0.74))  # fmt: skip


def _draw_beard(brush: Brush, style: FaceStyle) -> None:
    outline = face_outline(style, _ALL_AROUND)
    low = outline[outline[:, 1] > 0.2]
    low = low[np.argsort(-low[:, 0])]
    color = mix(style.skin, style.hair, 0.35 + 0.5 * style.beard)
    top = bend([(float(low[-1, 0]), 0.2), (0, 0.24), (float(low[0, 0]), 0.2)])
    brush.polygon(np.vstack([top, low]), color)
    brush.curve([(-0.13, 0.245), (0, 0.195), (0.13, 0.245)], 0.045 * style.beard + 0.01, color)


def _draw_glasses(brush: Brush, style: FaceStyle) -> None:
    turned, frame = _turned_x(style), (36.0, 34.0, 38.0)
    for side in (-1, 1):
        x = turned(side * EYE_X)
        ring = np.linspace(0, 2 * np.pi, 33)
        brush.line(np.column_stack([x + 0.115 * np.cos(ring), EYE_Y + 0.01 + 0.085 * np.sin(ring)]), 0.014, frame)
    brush.line([(turned(-0.06), EYE_Y), (turned(0.06), EYE_Y)], 0.014, frame)


def draw_hair_behind(brush: Brush, style: FaceStyle) -> None:
    """Draws the hair behind the head; long hair is also behind the neck and the shoulders."""
    width = style.half_width
    dark = shade(style.hair, 0.8)
    if style.hair_style == "bald":
        brush.ellipse(0, -0.1, width + 0.005, 0.5, style.skin)
        return
    brush.ellipse(0, -0.13, width + 0.05, 0.53, dark)
    bottom = {"long": 0.95, "bob": 0.42}.get(style.hair_style)
    if bottom:
        sides = [(-width - 0.06, -0.15), (width + 0.06, -0.15), (width + 0.1, bottom), (-width - 0.1, bottom)]
        brush.polygon(sides, dark)
    if style.hair_style == "bun":
        brush.ellipse(0, -0.68, 0.17, 0.15, style.hair)
    if style.hair_style == "curly":
        for angle in np.linspace(np.pi * 0.92, np.pi * 2.08, 15):
            x, y = (width + 0.05) * np.cos(angle), -0.12 + 0.52 * np.sin(angle)
            brush.ellipse(x, y, 0.11, 0.11, shade(style.hair, 0.85 + 0.15 * np.cos(9 * angle)))


def _draw_hair_in_front(brush: Brush, style: FaceStyle) -> None:
    if style.hair_style == "bald":
        return
    width, hair = style.half_width, style.hair
    line_y = {"fringe": -0.27, "curly": -0.36, "short": -0.4}.get(style.hair_style, -0.37)
    angles = np.linspace(np.pi, 2 * np.pi, 25)
    cap = np.column_stack([(width + 0.045) * np.cos(angles), -0.13 + 0.53 * np.sin(angles)])
    part = 0.12 if style.yaw < 0 else -0.12
    front = bend(
        [(width * 0.98, -0.1), (part, line_y - 0.1 if style.hair_style != "fringe" else line_y), (-width * 0.98, -0.1)]
    )
    brush.polygon(np.vstack([cap, front]), hair)
    for k, x in enumerate(np.linspace(-0.8, 0.8, 9)):
        strand = shade(hair, 0.78 if k % 2 else 1.16)
        brush.curve(
            [(part, -0.64), (x * width * 0.8, -0.58), (x * width * 1.05, line_y - 0.06 + 0.2 * abs(x) ** 3)],
            0.014,
            strand,
        )
    if style.hair_style in ("long", "bob"):
        bottom = 0.8 if style.hair_style == "long" else 0.38
        for side in (-1, 1):
            lock = [(side * width * 0.98, -0.25), (side * (width + 0.08), -0.2)]
            lock += [(side * (width + 0.1), bottom), (side * width * 0.92, bottom - 0.1)]
            brush.polygon(lock, hair)
