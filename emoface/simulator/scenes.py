"""Draws places, and the objects in them."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from emoface.simulator.brush import Brush, Color, bend, mix, new_canvas, paste, shade


def draw_place(rng: np.random.Generator, place: str, width: int, height: int) -> NDArray[np.uint8]:
    """Draws a place without people.

    Returns:
        (height, width, 3), RGB.
    """
    canvas = new_canvas(width, height)
    aspect = width / height
    brush = Brush(canvas, np.array([[height, 0.0, 0.0], [0.0, height, 0.0]]))  # unit: the photo's height
    horizon = float(rng.uniform(0.42, 0.6))
    _DRAWERS[place](rng, brush, aspect, horizon)
    photo = canvas[..., :3].copy()
    if place in ("park", "sports_field", "beach", "graveyard"):
        _speckle(rng, photo, int(horizon * height))
    return photo


def draw_object(rng: np.random.Generator, photo: NDArray[np.uint8], thing: str) -> None:
    """Draws the object of a scene on a photo, in place, where people rarely stand: low at a side, or high."""
    height, width = photo.shape[:2]
    aspect = width / height
    canvas = new_canvas(width, height)
    brush = Brush(canvas, np.array([[height, 0.0, 0.0], [0.0, height, 0.0]]))
    side = aspect * float(rng.choice((rng.uniform(0.08, 0.22), rng.uniform(0.78, 0.92))))
    size = float(rng.uniform(0.13, 0.2))
    if thing in _THINGS:
        _THINGS[thing](rng, brush, aspect, side, size)
        left, top, wide, high = cv2.boundingRect(np.ascontiguousarray(canvas[..., 3]))
        paste(photo, canvas[top : top + high, left : left + wide], left, top)


def _fill(brush: Brush, aspect: float, top: float, bottom: float, upper: Color, lower: Color) -> None:
    """Draws a vertical gradient between two heights."""
    height = brush.canvas.shape[0]
    y1, y2 = round(top * height), round(bottom * height)
    t = np.linspace(0, 1, max(y2 - y1, 1))[:, None]
    rows = np.array(upper) * (1 - t) + np.array(lower) * t
    brush.canvas[y1:y2, :, :3] = rows[: y2 - y1, None]
    brush.canvas[y1:y2, :, 3] = 255


def _rectangle(left: float, top: float, right: float, bottom: float) -> list[tuple[float, float]]:
    return [(left, top), (right, top), (right, bottom), (left, bottom)]


def _speckle(rng: np.random.Generator, photo: NDArray[np.uint8], horizon: int) -> None:
    """Adds blotches below the horizon that look like grass or sand."""
    ground = photo[horizon:]
    coarse = rng.normal(0, 14, (max(ground.shape[0] // 6, 1), max(ground.shape[1] // 6, 1))).astype(np.float32)
    blotches = cv2.resize(coarse, (ground.shape[1], ground.shape[0]), interpolation=cv2.INTER_LINEAR)
    ground[:] = np.clip(ground + blotches[..., None], 0, 255).astype(np.uint8)


def _draw_sky(rng: np.random.Generator, brush: Brush, aspect: float, horizon: float) -> None:
    blue = shade((120, 176, 226), float(rng.uniform(0.85, 1.1)))
    _fill(brush, aspect, 0, horizon, blue, mix(blue, (240, 244, 248), 0.7))
    for _ in range(int(rng.integers(2, 6))):
        x, y = rng.uniform(0, aspect), rng.uniform(0.04, horizon * 0.6)
        for _ in range(5):
            size = rng.uniform(0.03, 0.07)
            brush.ellipse(x + rng.normal(0, 0.06), y + rng.normal(0, 0.012), size * 1.6, size * 0.6, (246, 248, 250))


def _draw_tree(rng: np.random.Generator, brush: Brush, x: float, foot: float, size: float) -> None:
    brush.limb([(x, foot), (x, foot - size * 0.6)], [size * 0.14, size * 0.09], (92, 66, 46))
    green = shade((64, 118, 54), float(rng.uniform(0.75, 1.15)))
    for _ in range(9):
        dx, dy = rng.normal(0, size * 0.2), rng.normal(0, size * 0.16)
        leaf = shade(green, float(rng.uniform(0.8, 1.15)))
        brush.ellipse(x + dx, foot - size * 0.85 + dy, size * 0.2, size * 0.17, leaf)


def _draw_park(rng: np.random.Generator, brush: Brush, aspect: float, horizon: float) -> None:
    _draw_sky(rng, brush, aspect, horizon)
    _fill(brush, aspect, horizon, 1, (116, 158, 82), (74, 118, 56))
    for _ in range(int(rng.integers(4, 9))):
        _draw_tree(rng, brush, float(rng.uniform(0, aspect)), horizon + 0.03, float(rng.uniform(0.25, 0.5)))
    path = [(aspect * 0.45, horizon), (aspect * 0.55, horizon), (aspect * 0.8, 1), (aspect * 0.2, 1)]
    brush.polygon(path, (196, 178, 144))


def _draw_beach(rng: np.random.Generator, brush: Brush, aspect: float, horizon: float) -> None:
    _draw_sky(rng, brush, aspect, horizon * 0.8)
    sea = shade((40, 120, 170), float(rng.uniform(0.9, 1.15)))
    _fill(brush, aspect, horizon * 0.8, horizon * 1.15, sea, mix(sea, (160, 214, 220), 0.6))
    _fill(brush, aspect, horizon * 1.15, 1, (236, 214, 168), (214, 186, 136))
    for _ in range(8):
        x, y = rng.uniform(0, aspect), rng.uniform(horizon * 0.86, horizon * 1.15)
        brush.curve([(x, y), (x + 0.08, y - 0.008), (x + 0.16, y)], 0.006, (240, 248, 250))


def _draw_room(brush: Brush, aspect: float, floor: float, wall: Color, ground: Color) -> None:
    _fill(brush, aspect, 0, floor, shade(wall, 1.08), shade(wall, 0.9))
    _fill(brush, aspect, floor, 1, ground, shade(ground, 0.7))
    brush.line([(0, floor), (aspect, floor)], 0.012, shade(wall, 0.6))


def _draw_party(rng: np.random.Generator, brush: Brush, aspect: float, horizon: float) -> None:
    wall = ((206, 150, 190), (240, 196, 120), (150, 170, 220))[int(rng.integers(3))]
    _draw_room(brush, aspect, horizon + 0.2, wall, (150, 106, 76))
    colors: tuple[Color, ...] = ((236, 60, 80), (250, 200, 50), (60, 160, 220), (90, 190, 100), (180, 90, 200))
    y = float(rng.uniform(0.04, 0.12))
    for k in range(int(aspect / 0.09) + 1):
        x = k * 0.09
        sag = y + 0.04 * np.sin(np.pi * (x % 0.6) / 0.6)
        brush.polygon([(x, sag), (x + 0.08, sag), (x + 0.04, sag + 0.09)], colors[k % 5])
    for _ in range(40):
        x, dot_y = rng.uniform(0, aspect), rng.uniform(0.15, 0.95)
        brush.ellipse(x, dot_y, 0.006, 0.006, colors[int(rng.integers(5))])


def _draw_office(rng: np.random.Generator, brush: Brush, aspect: float, horizon: float) -> None:
    _draw_room(brush, aspect, horizon + 0.22, (204, 208, 212), (120, 122, 128))
    for x in np.arange(float(rng.uniform(0.02, 0.12)), aspect, 0.42):
        brush.polygon([(x, 0.08), (x + 0.3, 0.08), (x + 0.3, 0.45), (x, 0.45)], (176, 206, 226))
        brush.line([(x + 0.15, 0.08), (x + 0.15, 0.45)], 0.01, (236, 238, 240))
        for y in np.arange(0.1, 0.3, 0.03):
            brush.line([(x, y), (x + 0.3, y)], 0.006, (222, 226, 230))
    brush.polygon([(0, 0.8), (aspect, 0.8), (aspect, 0.88), (0, 0.88)], (152, 116, 82))


def _draw_sports_field(rng: np.random.Generator, brush: Brush, aspect: float, horizon: float) -> None:
    _fill(brush, aspect, 0, horizon, (92, 100, 122), (130, 136, 150))
    rows = int(rng.integers(5, 8))
    for row in range(rows):
        y = horizon * (0.15 + 0.8 * row / rows)
        for x in np.arange(0, aspect, 0.035):
            brush.ellipse(x + 0.01 * (row % 2), y, 0.011, 0.014, tuple(rng.uniform(60, 220, 3)))
    _fill(brush, aspect, horizon, 1, (70, 150, 66), (50, 120, 50))
    for k in range(0, 8, 2):
        left, right = aspect * k / 8, aspect * (k + 1) / 8
        middle = aspect / 2
        strip = [(middle + (left - middle) * 0.5, horizon), (middle + (right - middle) * 0.5, horizon)]
        brush.polygon(
            [*strip, (middle + (right - middle) * 1.5, 1), (middle + (left - middle) * 1.5, 1)], (86, 166, 76)
        )
    brush.line([(0, horizon + 0.07), (aspect, horizon + 0.05)], 0.012, (240, 244, 240))


def _draw_hospital(rng: np.random.Generator, brush: Brush, aspect: float, horizon: float) -> None:
    _draw_room(brush, aspect, horizon + 0.25, (198, 224, 220), (206, 214, 214))
    x = float(rng.uniform(0.1, 0.7)) * aspect
    brush.polygon([(x, 0.08), (x + 0.2, 0.08), (x + 0.2, 0.28), (x, 0.28)], (250, 250, 250))
    brush.line([(x + 0.1, 0.11), (x + 0.1, 0.25)], 0.045, (210, 40, 46))
    brush.line([(x + 0.03, 0.18), (x + 0.17, 0.18)], 0.045, (210, 40, 46))
    for stand in rng.uniform(0, aspect, 2):
        brush.line([(stand, 0.25), (stand, 0.92)], 0.012, (150, 156, 160))
        brush.ellipse(stand + 0.03, 0.3, 0.03, 0.06, (214, 236, 244))


def _draw_graveyard(rng: np.random.Generator, brush: Brush, aspect: float, horizon: float) -> None:
    _fill(brush, aspect, 0, horizon, (120, 126, 136), (176, 178, 182))
    _fill(brush, aspect, horizon, 1, (92, 108, 82), (64, 76, 58))
    for _ in range(3):
        x = float(rng.uniform(0, aspect))
        brush.limb([(x, horizon + 0.05), (x, horizon - 0.3)], [0.05, 0.02], (66, 58, 54))
        for angle in rng.uniform(-1.1, 1.1, 5):
            brush.line(
                [(x, horizon - 0.2), (x + 0.16 * np.sin(angle), horizon - 0.2 - 0.16 * np.cos(angle))],
                0.01,
                (66, 58, 54),
            )
    for x in np.arange(float(rng.uniform(0, 0.12)), aspect, 0.24):
        y, size = horizon + float(rng.uniform(0.06, 0.16)), float(rng.uniform(0.06, 0.09))
        gray = shade((150, 150, 150), float(rng.uniform(0.8, 1.1)))
        brush.ellipse(x, y - size * 1.2, size * 0.6, size * 0.5, gray)
        brush.polygon(_rectangle(x - size * 0.6, y - size * 1.2, x + size * 0.6, y + size * 0.4), gray)


def _draw_night_street(rng: np.random.Generator, brush: Brush, aspect: float, horizon: float) -> None:
    _fill(brush, aspect, 0, horizon + 0.15, (14, 18, 36), (40, 42, 62))
    _fill(brush, aspect, horizon + 0.15, 1, (46, 46, 54), (26, 26, 32))
    x = 0.0
    while x < aspect:
        wide, top = float(rng.uniform(0.15, 0.3)), float(rng.uniform(0.05, 0.35))
        brush.polygon([(x, top), (x + wide, top), (x + wide, horizon + 0.15), (x, horizon + 0.15)], (30, 30, 42))
        for wx in np.arange(x + 0.02, x + wide - 0.03, 0.05):
            for wy in np.arange(top + 0.03, horizon + 0.05, 0.07):
                if rng.random() < 0.35:
                    brush.polygon(
                        [(wx, wy), (wx + 0.025, wy), (wx + 0.025, wy + 0.035), (wx, wy + 0.035)], (240, 206, 120)
                    )
        x += wide
    lamp = float(rng.uniform(0.1, 0.9)) * aspect
    brush.line([(lamp, 0.95), (lamp, 0.2)], 0.014, (70, 70, 76))
    brush.ellipse(lamp, 0.19, 0.04, 0.03, (255, 236, 170))


def _draw_kitchen(rng: np.random.Generator, brush: Brush, aspect: float, horizon: float) -> None:
    tint = ((226, 214, 190), (206, 220, 206), (222, 206, 200))[int(rng.integers(3))]
    _draw_room(brush, aspect, horizon + 0.25, tint, (170, 142, 112))
    for x in np.arange(0, aspect, 0.3):
        brush.polygon([(x + 0.01, 0.02), (x + 0.28, 0.02), (x + 0.28, 0.3), (x + 0.01, 0.3)], (150, 104, 66))
        brush.ellipse(x + 0.25, 0.17, 0.008, 0.02, (220, 200, 150))
    brush.polygon([(0, 0.62), (aspect, 0.62), (aspect, 0.68), (0, 0.68)], (230, 230, 228))
    for x in np.arange(0, aspect, 0.08):
        brush.line([(x, 0.34), (x, 0.6)], 0.004, shade(tint, 0.85))


_DRAWERS = {
    "park": _draw_park,
    "beach": _draw_beach,
    "party": _draw_party,
    "office": _draw_office,
    "sports_field": _draw_sports_field,
    "hospital": _draw_hospital,
    "graveyard": _draw_graveyard,
    "night_street": _draw_night_street,
    "kitchen": _draw_kitchen,
}


def _draw_balloons(rng: np.random.Generator, brush: Brush, aspect: float, x: float, size: float) -> None:
    colors: tuple[Color, ...] = ((230, 50, 70), (250, 196, 40), (60, 150, 226), (110, 200, 90), (190, 90, 210))
    for k in range(7):
        bx, by = x + float(rng.normal(0, size * 0.7)), float(rng.uniform(0.08, 0.3))
        brush.line([(bx, by), (x, 0.6)], 0.003, (230, 230, 230))
        brush.ellipse(bx, by, size * 0.34, size * 0.42, colors[k % 5])
        brush.ellipse(bx - size * 0.1, by - size * 0.14, size * 0.07, size * 0.1, shade(colors[k % 5], 1.6))


def _draw_cake(rng: np.random.Generator, brush: Brush, aspect: float, x: float, size: float) -> None:
    y = 0.86
    for k, color in enumerate(((236, 200, 214), (250, 236, 220))):
        wide, top = size * (1 - 0.3 * k), y - size * 0.5 * k
        brush.polygon(
            [(x - wide, top), (x + wide, top), (x + wide, top + size * 0.5), (x - wide, top + size * 0.5)], color
        )
        brush.line(bend([(x - wide, top), (x, top + 0.02), (x + wide, top)]), 0.02, (196, 80, 110))
    for k in range(4):
        cx = x - size * 0.45 + size * 0.3 * k
        brush.line([(cx, y - size * 0.5), (cx, y - size * 0.8)], 0.012, (90, 160, 220))
        brush.ellipse(cx, y - size * 0.88, 0.01, 0.02, (255, 200, 60))


def _draw_flowers(rng: np.random.Generator, brush: Brush, aspect: float, x: float, size: float) -> None:
    y = 0.93
    for _ in range(9):
        dx, dy = float(rng.normal(0, size * 0.45)), float(rng.uniform(size * 0.5, size * 1.4))
        brush.line([(x, y), (x + dx, y - dy)], 0.008, (60, 130, 60))
        petal = ((236, 90, 120), (250, 220, 90), (240, 240, 250), (170, 90, 200))[int(rng.integers(4))]
        for angle in np.arange(0, 2 * np.pi, 1.05):
            brush.ellipse(x + dx + 0.02 * np.cos(angle), y - dy + 0.02 * np.sin(angle), 0.014, 0.014, petal)
        brush.ellipse(x + dx, y - dy, 0.01, 0.01, (250, 200, 60))


def _draw_bench(rng: np.random.Generator, brush: Brush, aspect: float, x: float, size: float) -> None:
    y = 0.8
    for k in range(4):
        brush.line([(x - size * 1.2, y - 0.035 * k), (x + size * 1.2, y - 0.035 * k)], 0.022, (138, 92, 54))
    for side in (-1, 1):
        brush.line([(x + side * size, y - 0.12), (x + side * size, y + 0.12)], 0.02, (60, 60, 64))


def _draw_sunset(rng: np.random.Generator, brush: Brush, aspect: float, x: float, size: float) -> None:
    for radius, color in ((1.3, (250, 190, 120)), (1.0, (254, 206, 96)), (0.75, (255, 236, 160))):
        brush.ellipse(x, 0.26, size * radius, size * radius, color)
    for k in range(5):
        brush.line([(x - size, 0.46 + 0.02 * k), (x + size, 0.46 + 0.02 * k)], 0.006, (255, 210, 130))


def _draw_ball(rng: np.random.Generator, brush: Brush, aspect: float, x: float, size: float) -> None:
    r = size * 0.45
    brush.ellipse(x, 0.9, r, r, (246, 246, 246))
    for angle in np.arange(0.3, 2 * np.pi, 1.26):
        brush.ellipse(x + 0.62 * r * np.cos(angle), 0.9 + 0.62 * r * np.sin(angle), r * 0.22, r * 0.22, (40, 40, 44))
    brush.ellipse(x, 0.9, r * 0.24, r * 0.24, (40, 40, 44))


def _draw_trophy(rng: np.random.Generator, brush: Brush, aspect: float, x: float, size: float) -> None:
    gold, y = (236, 190, 60), 0.75
    brush.polygon(
        [(x - size * 0.5, y - size), (x + size * 0.5, y - size), (x + size * 0.25, y), (x - size * 0.25, y)], gold
    )
    brush.ellipse(x, y, size * 0.25, size * 0.18, gold)
    brush.line([(x, y), (x, y + size * 0.6)], 0.03, shade(gold, 0.8))
    brush.polygon(
        [(x - 0.08, y + size * 0.6), (x + 0.08, y + size * 0.6), (x + 0.1, y + size), (x - 0.1, y + size)], (60, 46, 40)
    )
    brush.line([(x - size * 0.3, y - size * 0.9), (x - size * 0.16, y - size * 0.1)], 0.02, shade(gold, 1.5))


def _draw_laptop(rng: np.random.Generator, brush: Brush, aspect: float, x: float, size: float) -> None:
    y = 0.8
    brush.polygon(_rectangle(x - size, y - size * 1.1, x + size, y), (52, 54, 60))
    brush.polygon(_rectangle(x - size * 0.92, y - size, x + size * 0.92, y - 0.02), (120, 190, 236))
    for k in range(4):
        brush.line(
            [(x - size * 0.7, y - size * 0.85 + 0.03 * k), (x + size * 0.3, y - size * 0.85 + 0.03 * k)],
            0.01,
            (240, 246, 250),
        )
    brush.polygon(
        [(x - size, y), (x + size, y), (x + size * 1.2, y + 0.06), (x - size * 1.2, y + 0.06)], (176, 180, 186)
    )


def _draw_bed(rng: np.random.Generator, brush: Brush, aspect: float, x: float, size: float) -> None:
    left = 0.0 if x < aspect / 2 else aspect * 0.55
    right = left + aspect * 0.45
    brush.polygon([(left, 0.8), (right, 0.8), (right, 0.96), (left, 0.96)], (160, 196, 214))
    brush.ellipse(left + 0.12, 0.79, 0.12, 0.045, (248, 250, 252))
    brush.line([(left, 0.7), (left, 1.0)], 0.025, (150, 154, 160))
    brush.line([(right, 0.74), (right, 1.0)], 0.025, (150, 154, 160))


def _draw_candles(rng: np.random.Generator, brush: Brush, aspect: float, x: float, size: float) -> None:
    for k in range(5):
        cx, top = x - size + size * 0.5 * k, 0.84 - float(rng.uniform(0, 0.06))
        brush.line([(cx, 0.97), (cx, top)], 0.03, (244, 236, 214))
        brush.ellipse(cx, top - 0.05, 0.034, 0.05, (150, 110, 50))
        brush.ellipse(cx, top - 0.035, 0.013, 0.028, (255, 226, 120))


def _draw_fire(rng: np.random.Generator, brush: Brush, aspect: float, x: float, size: float) -> None:
    for k, color in enumerate(((214, 70, 24), (246, 140, 30), (255, 222, 110))):
        for _ in range(6):
            dx, tall = float(rng.normal(0, size * 0.4)), size * float(rng.uniform(0.8, 1.8)) * (1 - 0.28 * k)
            wide = size * 0.3 * (1 - 0.2 * k)
            brush.polygon([(x + dx - wide, 0.95), (x + dx + wide, 0.95), (x + dx + 0.02, 0.95 - tall)], color)


_THINGS = {
    "balloons": _draw_balloons,
    "cake": _draw_cake,
    "flowers": _draw_flowers,
    "bench": _draw_bench,
    "sunset": _draw_sunset,
    "ball": _draw_ball,
    "trophy": _draw_trophy,
    "laptop": _draw_laptop,
    "bed": _draw_bed,
    "candles": _draw_candles,
    "fire": _draw_fire,
}
