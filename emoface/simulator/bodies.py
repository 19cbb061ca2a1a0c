"""Bodies: posture and clothing.

The coordinates are those of the head: the unit is the height of the face, the origin is the middle of the face. A
standing body reaches 6.4 face heights below the origin.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from emoface.simulator.brush import Brush, Color, bend, shade
from emoface.simulator.faces import FaceStyle

SHOULDER_X, SHOULDER_Y, HIP_Y, FOOT_Y = 0.86, 1.0, 3.1, 6.4

SLUMPED_DROOP = 0.16
"""How much lower the head of a slumped body is, in face heights."""

_CLOTH: tuple[Color, ...] = (
    (58, 84, 126),
    (120, 62, 60),
    (86, 110, 82),
    (150, 146, 138),
    (92, 76, 104),
    (178, 140, 96),
    (66, 70, 78),
    (196, 188, 172),
    (64, 116, 122),
)
_SPORT: tuple[Color, ...] = ((210, 40, 44), (30, 92, 200), (32, 150, 76), (246, 196, 30), (240, 110, 30))
_FORMAL: tuple[Color, ...] = ((34, 36, 44), (46, 52, 72), (70, 70, 76))
_FESTIVE: tuple[Color, ...] = ((214, 60, 130), (130, 60, 190), (238, 170, 50), (50, 170, 190))
_TROUSERS: tuple[Color, ...] = ((52, 64, 92), (60, 54, 50), (110, 100, 84), (40, 42, 48))

Points = list[tuple[float, float]]


@dataclass(frozen=True)
class BodyStyle:
    """The look of a body, independent of its posture.

    Attributes:
        upper: Colour of the upper garment.
        lower: Colour of trousers or skirt.
        has_skirt: Whether the lower garment is a skirt.
        build: Factor for the width.
        height: Factor for the height below the neck; smaller for children.
        number: Number on a sport shirt.
    """

    upper: Color
    lower: Color
    has_skirt: bool
    build: float
    height: float
    number: int


def draw_body_style(rng: np.random.Generator, clothes: str, is_male: bool, is_kid: bool) -> BodyStyle:
    """Draws the look of a body that wears ``clothes`` at random."""
    palette = {"sport": _SPORT, "formal": _FORMAL, "festive": _FESTIVE, "bandaged": ((206, 220, 226),)}.get(
        clothes, _CLOTH
    )
    upper = palette[int(rng.integers(len(palette)))]
    lower = upper if clothes in ("formal", "bandaged") else _TROUSERS[int(rng.integers(len(_TROUSERS)))]
    return BodyStyle(
        upper=shade(upper, float(rng.uniform(0.85, 1.12))),
        lower=shade(lower, float(rng.uniform(0.85, 1.1))),
        has_skirt=not is_male and clothes in ("casual", "festive", "formal") and bool(rng.random() < 0.5),
        build=float(rng.uniform(0.86, 1.14)) * (0.85 if is_kid else 1.0),
        height=float(rng.uniform(0.94, 1.06)) * (0.72 if is_kid else 1.0),
        number=int(rng.integers(1, 99)),
    )


def arm_joints(posture: str, side: int) -> Points:
    """Positions of shoulder, elbow and wrist.

    Args:
        posture: One of ``causes.POSTURES``.
        side: -1 for the viewer's left, 1 for the viewer's right.
    """
    shoulder = (side * (SHOULDER_X - 0.07), SHOULDER_Y + 0.22)
    bent: dict[str, tuple[tuple[float, float], tuple[float, float]]] = {
        "standing": ((1.05, 2.1), (1.02, 3.05)),
        "arms_raised": ((1.45, 0.25), (1.25, -1.0)),
        "arms_crossed": ((1.12, 1.95), (-0.45, 1.78)),
        "slumped": ((0.98, 2.15), (0.5, 3.1)),
        "running": ((1.4, 1.75), (1.0, 0.85)) if side > 0 else ((1.35, 1.9), (1.1, 2.8)),
        "hands_on_hips": ((1.72, 2.05), (0.85, 2.85)),
        "hand_on_head": ((1.5, 0.45), (0.55, -0.42)) if side > 0 else ((1.05, 2.1), (1.0, 3.05)),
        "reaching": ((1.6, 1.35), (2.4, 1.05)) if side > 0 else ((1.2, 1.7), (1.75, 1.15)),
    }
    (ex, ey), (wx, wy) = bent[posture]
    return [shoulder, (side * ex, ey), (side * wx, wy)]


def leg_joints(posture: str, side: int, height: float) -> Points:
    """Positions of hip, knee and ankle; ``height`` is the factor of the body's height."""
    hip = (side * 0.36, HIP_Y * height)
    if posture == "running":
        knee, ankle = ((0.75, 4.4), (0.55, 5.6)) if side > 0 else ((-0.55, 4.7), (-1.5, 5.5))
    elif posture == "slumped":
        knee, ankle = (side * 0.42, 4.6), (side * 0.36, FOOT_Y - 0.15)
    else:
        knee, ankle = (side * 0.4, 4.7), (side * 0.42, FOOT_Y - 0.15)
    return [hip, (knee[0], knee[1] * height), (ankle[0], ankle[1] * height)]


def draw_body(brush: Brush, style: BodyStyle, posture: str, clothes: str, face: FaceStyle, is_turned: bool) -> None:
    """Draws everything below the chin, legs first.

    Args:
        brush: Brush whose origin is the middle of the face.
        style: Look of the body.
        posture: One of ``causes.POSTURES``.
        clothes: One of ``causes.CLOTHES``.
        face: Look of the head, which gives the colour of the skin.
        is_turned: Whether the person is seen from behind.
    """
    skin, upper, build, height = face.skin, style.upper, style.build, style.height
    for side in (-1, 1):
        _draw_leg(brush, style, posture, side, skin)
    lean = 0.18 if posture == "slumped" else 0.0
    shoulder, hip = SHOULDER_X * build, 0.62 * build
    top = SHOULDER_Y + lean
    torso = np.vstack(
        [
            bend([(-shoulder, top + 0.12), (0, top - 0.22), (shoulder, top + 0.12)]),
            bend([(shoulder, top + 0.2), (hip * 1.02, 2.2 * height), (hip, HIP_Y * height)]),
            bend([(-hip, HIP_Y * height), (-hip * 1.02, 2.2 * height), (-shoulder, top + 0.2)]),
        ]
    )
    brush.limb([(0, 0.35), (0, 0.95)], [0.34, 0.42], shade(skin, 0.84))
    brush.polygon(torso, upper)
    for side in (-1, 1):
        fold = [
            (side * shoulder * 0.75, top + 0.3),
            (side * hip * 0.8, 2.0 * height),
            (side * hip * 0.88, 2.95 * height),
        ]
        brush.curve(fold, 0.06, shade(upper, 0.84))
    _draw_garment(brush, style, clothes, skin, top, is_turned)
    for side in (-1, 1):
        if posture != "hand_on_head" or side < 0:
            draw_arm(brush, style, posture, clothes, side, skin)


def draw_arm(brush: Brush, style: BodyStyle, posture: str, clothes: str, side: int, skin: Color) -> None:
    """Draws one arm; the raised arm of ``hand_on_head`` is in front of the head, so it is drawn after the head."""
    joints = [(x * style.build, y) for x, y in arm_joints(posture, side)]
    sleeve = shade(style.upper, 0.92 if side > 0 else 1.05)
    bare = clothes == "sport" or style.number % 3 == 0
    if bare:
        brush.limb(joints, [0.34, 0.27, 0.2], skin)
        middle = tuple((np.array(joints[0]) + 0.45 * (np.array(joints[1]) - np.array(joints[0]))).tolist())
        brush.limb([joints[0], middle], [0.42, 0.38], sleeve)
    else:
        brush.limb(joints, [0.42, 0.34, 0.26], sleeve)
    x, y = joints[-1]
    brush.ellipse(x, y, 0.17, 0.19, skin)
    for k in range(3):
        brush.line([(x - 0.08 + 0.07 * k, y + 0.02), (x - 0.08 + 0.07 * k, y + 0.15)], 0.02, shade(skin, 0.75))
    if clothes == "bandaged" and side > 0:
        brush.limb([joints[1], joints[2]], [0.36, 0.3], (246, 244, 238))
        for t in (0.25, 0.5, 0.75):
            px, py = (np.array(joints[1]) * (1 - t) + np.array(joints[2]) * t).tolist()
            brush.line([(px - 0.15, py - 0.05), (px + 0.15, py + 0.05)], 0.025, (200, 186, 176))


def draw_headwear(brush: Brush, clothes: str, style: BodyStyle) -> None:
    """Draws a bandage, a party hat or a sweatband on the head; the brush includes the head's tilt."""
    if clothes == "bandaged":
        band = np.vstack(
            [bend([(-0.42, -0.3), (0, -0.42), (0.42, -0.3)]), bend([(0.43, -0.45), (0, -0.6), (-0.43, -0.45)])]
        )
        brush.polygon(band, (247, 245, 240))
        brush.line([(-0.2, -0.5), (0.1, -0.41)], 0.02, (196, 180, 172))
        brush.ellipse(0.22, -0.46, 0.05, 0.035, (190, 60, 56))
    elif clothes == "festive":
        brush.polygon([(-0.27, -0.53), (0.27, -0.53), (0.03, -1.2)], style.upper)
        for k, y in enumerate((-0.68, -0.88, -1.05)):
            brush.line([(-0.2 + 0.06 * k, y + 0.03), (0.2 - 0.05 * k, y)], 0.05, (252, 240, 190))
        brush.ellipse(0.03, -1.2, 0.08, 0.08, (255, 246, 200))
    elif clothes == "sport":
        brush.line(bend([(-0.42, -0.36), (0, -0.48), (0.42, -0.36)]), 0.09, style.upper)


def _draw_leg(brush: Brush, style: BodyStyle, posture: str, side: int, skin: Color) -> None:
    joints = [(x * style.build, y) for x, y in leg_joints(posture, side, style.height)]
    cloth = shade(style.lower, 0.9 if side > 0 else 1.0)
    brush.limb(joints, [0.62, 0.44, 0.3], skin if style.has_skirt else cloth)
    x, y = joints[-1]
    brush.ellipse(x + side * 0.1, y + 0.12, 0.26, 0.13, (38, 34, 34))
    if style.has_skirt:
        hip, low = HIP_Y * style.height, 4.3 * style.height
        brush.polygon([(-0.58, hip - 0.1), (0.58, hip - 0.1), (0.85, low), (-0.85, low)], style.lower)


def _draw_garment(brush: Brush, style: BodyStyle, clothes: str, skin: Color, top: float, is_turned: bool) -> None:
    """Draws details of the upper garment; from behind it has stripes, numbers and dots, but no tie and no collar."""
    upper, build = style.upper, style.build
    if is_turned and clothes not in ("sport", "festive"):
        brush.line([(0, top + 0.2), (0, 2.8 * style.height)], 0.03, shade(upper, 0.86))
    elif clothes == "formal":
        brush.polygon([(-0.24, top - 0.12), (0.24, top - 0.12), (0, top + 1.15)], (244, 244, 246))
        tie = (150.0, 36.0, 44.0) if style.number % 2 else (40.0, 60.0, 120.0)
        brush.polygon([(-0.07, top), (0.07, top), (0.1, top + 0.95), (0, top + 1.1), (-0.1, top + 0.95)], tie)
        for side in (-1, 1):
            brush.polygon([(side * 0.26, top - 0.14), (side * 0.46, top + 0.2), (0, top + 1.2)], shade(upper, 1.12))
    elif clothes == "sport":
        for side in (-1, 1):
            brush.line(
                [(side * 0.62 * build, top + 0.15), (side * 0.56 * build, 2.9 * style.height)], 0.12, (250, 250, 250)
            )
        _draw_number(brush, style.number, top + 0.75)
        if not is_turned:
            brush.polygon(bend([(-0.24, top - 0.14), (0, top + 0.22), (0.24, top - 0.14)]), shade(skin, 0.9))
    elif clothes == "festive":
        for k in range(14):
            x, y = ((k * 37) % 100 - 50) / 62 * build, top + 0.3 + ((k * 53) % 100) / 60
            brush.ellipse(x, y, 0.06, 0.06, ((255, 236, 150), (250, 250, 250), (120, 220, 220))[k % 3])
    elif clothes == "bandaged":
        brush.line([(-0.3, top), (0.05, top + 1.2)], 0.025, shade(upper, 0.7))
        for k in range(5):
            brush.ellipse(0.0, top + 0.3 + 0.35 * k, 0.03, 0.03, shade(upper, 0.6))
    else:
        brush.polygon(bend([(-0.26, top - 0.15), (0, top + 0.24), (0.26, top - 0.15)]), shade(skin, 0.9))


def _draw_number(brush: Brush, number: int, y: float) -> None:
    """Draws two digits of simple strokes and rings that look like a number from a distance."""
    for k, digit in enumerate(divmod(number, 10)):
        x = -0.22 + 0.44 * k
        if digit % 3 == 0:
            ring = np.linspace(0, 2 * np.pi, 25)
            brush.line(np.column_stack([x + 0.14 * np.cos(ring), y + 0.26 * np.sin(ring)]), 0.09, (252, 252, 252))
        elif digit % 3 == 1:
            brush.line([(x - 0.08, y - 0.18), (x + 0.04, y - 0.28), (x + 0.04, y + 0.28)], 0.09, (252, 252, 252))
        else:
            zig = [(x - 0.14, y - 0.24), (x + 0.14, y - 0.24), (x - 0.1, y + 0.26), (x + 0.16, y + 0.26)]
            brush.line(zig, 0.09, (252, 252, 252))
