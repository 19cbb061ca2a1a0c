"""Draws photos for training a face detector, far more varied than those of a simulated EMOTIC.

A detector trained on a few places and one kind of light learns the drawing style and not the face. Here half of the
backgrounds are textures instead of places, people have unusual colours and proportions, blank heads and other round
objects are distractors, and the whole photo may be grey, dark, blurred, low in contrast or noisy.
"""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np

from emoface.simulator.brush import Brush, Color, new_canvas, paste, shade
from emoface.simulator.causes import PLACES
from emoface.simulator.faces import HAIRS, SKINS, FaceStyle
from emoface.simulator.photos import DrawnPhoto, draw_photo
from emoface.simulator.plans import PersonPlan, PhotoPlan, draw_plan
from emoface.simulator.scenes import draw_object, draw_place
from emoface.vision.crops import Photo

_EMPTY_SHARE = 0.12


def draw_varied_photo(rng: np.random.Generator) -> DrawnPhoto:
    """Draws a photo for training a detector; one in eight photos has no people."""
    plan = draw_plan(rng)
    people = () if rng.random() < _EMPTY_SHARE else tuple(_vary_person(rng, person) for person in plan.people)
    plan = replace(
        plan,
        people=people,
        exposure=float(rng.uniform(0.4, 1.35)),
        warmth=float(rng.normal(0, 1.2)),
        blur=float(rng.choice((0.0, rng.uniform(0, 0.002)))) * max(plan.width, plan.height),
        noise=float(rng.choice((rng.uniform(0, 4), rng.uniform(4, 18)))),
    )
    background = _draw_background(rng, plan)
    for _ in range(int(rng.integers(0, 6))):
        _draw_distractor(rng, background)
    drawn = draw_photo(rng, plan, background)
    return replace(drawn, photo=_vary_tones(rng, drawn.photo))


def _vary_person(rng: np.random.Generator, person: PersonPlan) -> PersonPlan:
    return replace(person, face=_vary_face(rng, person.face))


def _vary_face(rng: np.random.Generator, face: FaceStyle) -> FaceStyle:
    skin = np.clip(np.array(face.skin) * rng.uniform(0.75, 1.15) + rng.normal(0, 9, 3), 15, 255)
    return replace(
        face,
        skin=(float(skin[0]), float(skin[1]), float(skin[2])),
        hair=_random_color(rng) if rng.random() < 0.15 else face.hair,
        half_width=face.half_width * float(rng.uniform(0.88, 1.12)),
        jaw=float(np.clip(face.jaw * rng.uniform(0.8, 1.3), 0.45, 0.95)),
        eye_size=face.eye_size * float(rng.uniform(0.75, 1.3)),
        nose_size=face.nose_size * float(rng.uniform(0.7, 1.3)),
        brow_width=face.brow_width * float(rng.uniform(0.5, 1.5)),
        yaw=float(np.clip(face.yaw * 1.5, -1, 1)),
        roll=face.roll * 1.8,
    )


def _draw_background(rng: np.random.Generator, plan: PhotoPlan) -> Photo:
    if rng.random() < 0.5:
        photo = draw_place(rng, str(rng.choice(list(PLACES))), plan.width, plan.height)
        draw_object(rng, photo, plan.object)
        return photo
    height, width = plan.height, plan.width
    base = np.array(_random_color(rng))
    photo = np.full((height, width, 3), base, np.float32)
    for cells in (3, 9, 27, 81):
        coarse = rng.normal(0, rng.uniform(4, 45), (cells, cells, 3)).astype(np.float32)
        photo += np.asarray(cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC), np.float32)
    out = np.clip(photo, 0, 255).astype(np.uint8)
    canvas = new_canvas(width, height)
    brush = Brush(canvas, np.array([[float(height), 0, 0], [0, float(height), 0]]))
    aspect = width / height
    for _ in range(int(rng.integers(0, 14))):
        x, y, size = rng.uniform(0, aspect), rng.uniform(0, 1), rng.uniform(0.03, 0.4)
        corners = rng.normal(0, size, (int(rng.integers(3, 7)), 2)) + np.array((x, y))
        if rng.random() < 0.5:
            brush.polygon(corners, _random_color(rng))
        else:
            brush.line(corners, float(rng.uniform(0.004, 0.05)), _random_color(rng))
    paste(out, canvas, 0, 0)
    return out


def _draw_distractor(rng: np.random.Generator, photo: Photo) -> None:
    """Draws a round or skin-coloured object that is not a face."""
    height, width = photo.shape[:2]
    size = float(rng.uniform(0.03, 0.2)) * height
    x, y = float(rng.uniform(0, width)), float(rng.uniform(0, height))
    canvas = new_canvas(width, height)
    brush = Brush(canvas, np.array([[size, 0.0, x], [0.0, size, y]])).moved(0, 0, float(rng.uniform(-40, 40)))
    color = SKINS[int(rng.integers(len(SKINS)))] if rng.random() < 0.6 else _random_color(rng)
    kind = int(rng.integers(6))
    if kind == 0:  # a blank head
        brush.ellipse(0, -0.1, 0.45, 0.55, HAIRS[int(rng.integers(len(HAIRS)))])
        brush.ellipse(0, 0, 0.38, 0.5, color)
    elif kind == 1:  # a dial
        brush.ellipse(0, 0, 0.5, 0.5, color)
        for angle in np.arange(0, 2 * np.pi, np.pi / 6):
            brush.line(
                [(0.4 * np.cos(angle), 0.4 * np.sin(angle)), (0.46 * np.cos(angle), 0.46 * np.sin(angle))],
                0.03,
                (20, 20, 20),
            )
        brush.line([(0, 0), (0.1, -0.35)], 0.03, (20, 20, 20))
    elif kind == 2:  # a hand
        brush.ellipse(0, 0, 0.3, 0.35, color)
        for k in range(4):
            brush.limb([(-0.2 + 0.13 * k, -0.2), (-0.24 + 0.16 * k, -0.7)], [0.13, 0.1], shade(color, 0.95))
    elif kind == 3:  # random dots
        brush.ellipse(0, 0, 0.5, 0.5, color)
        for _ in range(int(rng.integers(2, 7))):
            dot_x, dot_y = rng.uniform(-0.35, 0.35, 2).tolist()
            brush.ellipse(dot_x, dot_y, 0.06, 0.06, _random_color(rng))
    elif kind == 4:  # stripes
        for k in range(5):
            brush.line([(-0.5, -0.4 + 0.2 * k), (0.5, -0.4 + 0.2 * k)], 0.08, shade(color, 0.6 + 0.15 * k))
    else:  # a ball
        for radius in (0.5, 0.4, 0.28, 0.14):
            brush.ellipse(-0.3 * (0.5 - radius), -0.4 * (0.5 - radius), radius, radius, shade(color, 1.5 - radius))
    paste(photo, canvas, 0, 0)


def _vary_tones(rng: np.random.Generator, photo: Photo) -> Photo:
    """Makes some photos grey, and changes the gamma of all."""
    if rng.random() < 0.12:
        grey = cv2.cvtColor(photo, cv2.COLOR_RGB2GRAY)
        photo = np.asarray(cv2.cvtColor(grey, cv2.COLOR_GRAY2RGB), np.uint8)
    gamma = float(rng.uniform(0.6, 1.6))
    levels = np.clip(255 * (np.arange(256) / 255) ** gamma, 0, 255).astype(np.uint8)
    return np.asarray(cv2.LUT(photo, levels), np.uint8)


def _random_color(rng: np.random.Generator) -> Color:
    red, green, blue = rng.uniform(10, 245, 3)
    return float(red), float(green), float(blue)
