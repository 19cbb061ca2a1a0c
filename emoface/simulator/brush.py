"""Anti-aliased drawing on a transparent canvas, in coordinates of the drawn object."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import cv2
import numpy as np
from numpy.typing import NDArray

Color = tuple[float, float, float]
"""Red, green, blue, 0-255."""

_SHIFT = 4
_ONE = 1 << _SHIFT
_ROUND = np.linspace(0, 2 * np.pi, 48, endpoint=False)


@dataclass
class Brush:
    """Draws polygons, ellipses and lines.

    Attributes:
        canvas: (height, width, 4) uint8: red, green and blue multiplied by alpha, and alpha.
        matrix: (2, 3) affine matrix from the object's coordinates to pixels of the canvas.
    """

    canvas: NDArray[np.uint8]
    matrix: NDArray[np.float64]

    def moved(self, x: float, y: float, degrees: float = 0.0, scale_x: float = 1.0, scale_y: float = 1.0) -> Brush:
        """Returns a brush on the same canvas whose origin is (x, y), turned clockwise and scaled."""
        turn = np.deg2rad(degrees)
        linear = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]]) @ np.diag([scale_x, scale_y])
        to_parent = np.column_stack([linear, (x, y)])
        matrix = self.matrix[:, :2] @ to_parent
        matrix[:, 2] += self.matrix[:, 2]
        return Brush(self.canvas, matrix)

    @property
    def scale(self) -> float:
        """Pixels per unit."""
        return float(np.sqrt(abs(np.linalg.det(self.matrix[:, :2]))))

    def to_canvas(self, points: NDArray[np.float64]) -> NDArray[np.float64]:
        """Converts (n, 2) points to pixels of the canvas."""
        return np.asarray(points @ self.matrix[:, :2].T + self.matrix[:, 2])

    def polygon(self, points: list[tuple[float, float]] | NDArray[np.float64], color: Color) -> None:
        """Fills a polygon."""
        pixels = np.round(self.to_canvas(np.asarray(points, np.float64)) * _ONE).astype(np.int32)
        cv2.fillPoly(self.canvas, [pixels], (*color, 255), cv2.LINE_AA, _SHIFT)

    def ellipse(self, x: float, y: float, rx: float, ry: float, color: Color, degrees: float = 0.0) -> None:
        """Fills an ellipse; ``rx`` and ``ry`` are its half axes."""
        self.moved(x, y, degrees).polygon(np.column_stack([rx * np.cos(_ROUND), ry * np.sin(_ROUND)]), color)

    def line(self, points: list[tuple[float, float]] | NDArray[np.float64], width: float, color: Color) -> None:
        """Draws a line with round ends; it is at least one pixel wide, and lines below 0.35 pixels are not drawn."""
        pixels = self.to_canvas(np.asarray(points, np.float64))
        wide = width * self.scale
        pixel_width = max(1, round(wide))
        if wide < 0.35:
            return
        whole = np.round(pixels * _ONE).astype(np.int32)
        cv2.polylines(self.canvas, [whole], False, (*color, 255), pixel_width, cv2.LINE_AA, _SHIFT)
        if pixel_width > 2:
            for end in (whole[0], whole[-1]):
                cv2.circle(
                    self.canvas,
                    (int(end[0]), int(end[1])),
                    round(wide / 2 * _ONE),
                    (*color, 255),
                    -1,
                    cv2.LINE_AA,
                    _SHIFT,
                )

    def limb(self, points: list[tuple[float, float]], widths: list[float], color: Color) -> None:
        """Draws a bent, tapering limb with round joints.

        Args:
            points: Two or more joints.
            widths: Full width at each joint.
            color: Colour of the limb.
        """
        joints = np.asarray(points, np.float64)
        for (a, b), (wa, wb) in zip(pairwise(joints), pairwise(widths), strict=True):
            along = b - a
            length = float(np.hypot(*along)) or 1.0
            across = np.array([-along[1], along[0]]) / length / 2
            self.polygon(np.array([a + across * wa, b + across * wb, b - across * wb, a - across * wa]), color)
        for (x, y), width in zip(points, widths, strict=True):
            self.ellipse(x, y, width / 2, width / 2, color)

    def curve(self, points: list[tuple[float, float]], width: float, color: Color) -> None:
        """Draws a smooth line through three points: start, middle, end."""
        self.line(bend(points), width, color)


def bend(points: list[tuple[float, float]]) -> NDArray[np.float64]:
    """(17, 2) points of the parabola through a start, a middle and an end.

    Example:
        >>> bend([(0, 0), (1, 1), (2, 0)])[[0, 8, 16]].tolist()
        [[0.0, 0.0], [1.0, 1.0], [2.0, 0.0]]
    """
    start, middle, end = (np.asarray(point, np.float64) for point in points)
    t = np.linspace(0, 1, 17)[:, None]
    return np.asarray(start * (1 - t) * (1 - 2 * t) + middle * 4 * t * (1 - t) + end * t * (2 * t - 1))


def shade(color: Color, factor: float) -> Color:
    """Makes a colour darker (factor below 1) or lighter (factor above 1)."""
    if factor <= 1:
        return color[0] * factor, color[1] * factor, color[2] * factor
    rest = factor - 1
    return tuple(value + (255 - value) * rest for value in color)  # type: ignore[return-value]


def mix(a: Color, b: Color, share: float) -> Color:
    """Mixes two colours; ``share`` is the share of colour ``b``, 0-1."""
    return tuple(x * (1 - share) + y * share for x, y in zip(a, b, strict=True))  # type: ignore[return-value]


def new_canvas(width: int, height: int) -> NDArray[np.uint8]:
    """Makes a transparent canvas, (height, width, 4)."""
    return np.zeros((height, width, 4), np.uint8)


def paste(photo: NDArray[np.uint8], canvas: NDArray[np.uint8], left: int, top: int) -> None:
    """Pastes a canvas on a photo, in place; parts outside the photo are clipped."""
    height, width = photo.shape[:2]
    x1, y1 = max(left, 0), max(top, 0)
    x2, y2 = min(left + canvas.shape[1], width), min(top + canvas.shape[0], height)
    if x1 >= x2 or y1 >= y2:
        return
    part = canvas[y1 - top : y2 - top, x1 - left : x2 - left]
    under = photo[y1:y2, x1:x2]
    through = under * (255 - part[..., 3:].astype(np.uint16)) + 128
    kept = (through + (through >> 8)) >> 8  # divided by 255, rounded
    under[:] = np.minimum(part[..., :3] + kept, 255)
