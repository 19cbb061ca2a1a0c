"""Draws a planned photo and returns the truth about it."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import cv2
import numpy as np
from numpy.typing import NDArray

from emoface.simulator.bodies import SLUMPED_DROOP, draw_arm, draw_body, draw_headwear
from emoface.simulator.brush import Brush, new_canvas, paste, shade
from emoface.simulator.faces import FACES, draw_hair_behind, draw_head, draw_head_from_behind, face_points
from emoface.simulator.joints import whole_body_points
from emoface.simulator.plans import PersonPlan, PhotoPlan
from emoface.simulator.scenes import draw_object, draw_place
from emoface.vision.crops import Photo

MAX_COVERED = 0.15
"""A face is visible if at most this share of it is covered by another person or outside the photo."""

MIN_HIDDEN = 0.75
"""A face is clearly hidden if at least this share of it is covered or outside the photo."""

_LEAST_SCALE = 56
_HORIZON, _NEAREST_GROUND, _NEAREST_FACE = 0.45, 0.4, 0.5
_REACH_X, _REACH_UP, _REACH_DOWN = 2.9, 1.35, 6.9


@dataclass(frozen=True)
class DrawnPerson:
    """The truth about one person of a photo, in pixels of the photo.

    Attributes:
        plan: The plan of the person.
        body_xyxy: Box around everything that is drawn of the person, clipped to the photo.
        face_xyxy: Box of the face, forehead to chin, not clipped; None if no face is drawn.
        landmarks: (5, 2) points; None if no face is drawn.
        points: (133, 3) x, y and confidence of the points of the body, see ``joints``; 0 for those outside the photo.
        hidden_by: What hides the face; empty if it is visible.
        is_clear: Whether the face is clearly visible or clearly hidden.
    """

    plan: PersonPlan
    body_xyxy: tuple[float, float, float, float]
    face_xyxy: tuple[float, float, float, float] | None
    landmarks: NDArray[np.float64] | None
    points: NDArray[np.float64]
    hidden_by: str
    is_clear: bool


@dataclass(frozen=True)
class DrawnPhoto:
    """A photo and the truth about it.

    Attributes:
        photo: (height, width, 3), RGB.
        nearness: (height, width) uint8, how near what is drawn is: 0 is the horizon, 255 is a person whose face is half
            as high as the photo, and proportional to the height of the face between both.
        people: The people in the order of the plan.
    """

    photo: Photo
    nearness: NDArray[np.uint8]
    people: tuple[DrawnPerson, ...]


@dataclass
class _Layer:
    """One person, drawn on a separate canvas.

    Attributes:
        canvas: (h, w, 4) pixels with alpha.
        left: Left edge of the canvas in the photo, pixels.
        top: Top edge of the canvas in the photo, pixels.
        face: (h, w) alpha of the visible part of the face, 0-1.
        face_area: Sum of ``face`` if nothing covers the face and all of it is in the photo.
        outline: (n, 2) outline of the face in pixels of the photo.
        landmarks: (5, 2) landmarks of the face in pixels of the photo.
        points: (133, 3) points of the body in pixels of the photo, with confidence.
    """

    canvas: NDArray[np.uint8]
    left: int
    top: int
    face: NDArray[np.float32]
    face_area: float
    outline: NDArray[np.float64]
    landmarks: NDArray[np.float64]
    points: NDArray[np.float64]


def draw_photo(rng: np.random.Generator, plan: PhotoPlan, background: Photo | None = None) -> DrawnPhoto:
    """Draws a photo.

    Args:
        rng: Random generator for details that the plan does not set: clouds, trees, noise.
        plan: Plan of the photo and its people.
        background: (height, width, 3) to draw on, changed in place; None draws the plan's place and object.
    """
    photo = background
    if photo is None:
        photo = draw_place(rng, plan.place, plan.width, plan.height)
        draw_object(rng, photo, plan.object)
    nearness = _ground_nearness(plan.width, plan.height)
    layers: list[_Layer | None] = []
    for person in plan.people:
        layer = _draw_layer(plan, person)
        for earlier in layers:
            if layer is not None and earlier is not None:
                _cover(earlier, layer)
        if layer is not None:
            paste(photo, layer.canvas, layer.left, layer.top)
            _paste_nearness(nearness, layer, person.face_height / (_NEAREST_FACE * plan.height))
        layers.append(layer)
    finished = _finish(rng, photo, plan)
    drawn = [_to_truth(plan, person, layer) for person, layer in zip(plan.people, layers, strict=True)]
    return DrawnPhoto(finished, nearness, tuple(person for person in drawn if person is not None))


def _draw_layer(plan: PhotoPlan, person: PersonPlan) -> _Layer | None:
    """Draws one person, small people at a finer scale; None if no part of the person is in the photo."""
    unit = person.face_height
    finer = max(1, -(-_LEAST_SCALE // max(int(unit), 1)))
    left = max(int(person.x - _REACH_X * unit), 0)
    top = max(int(person.y - _REACH_UP * unit), 0)
    right = min(int(person.x + _REACH_X * unit) + 1, plan.width)
    bottom = min(int(person.y + _REACH_DOWN * unit) + 1, plan.height)
    if right - left < 2 or bottom - top < 2:
        return None
    canvas = new_canvas((right - left) * finer, (bottom - top) * finer)
    offset = ((person.x - left) * finer, (person.y - top) * finer)
    brush = Brush(canvas, np.array([[unit * finer, 0.0, offset[0]], [0.0, unit * finer, offset[1]]]))
    head = _draw_person(brush, person, plan.light)
    outline, landmarks = (head.to_canvas(points) / finer + (left, top) for points in face_points(person.face))
    body_points = whole_body_points(person, brush, head)
    body_points[:, :2] = body_points[:, :2] / finer + (left, top)
    is_inside = ((body_points[:, :2] >= 0) & (body_points[:, :2] < (plan.width, plan.height))).all(axis=1)
    body_points[~is_inside | (body_points[:, 2] == 0)] = 0
    part = cv2.boundingRect(np.ascontiguousarray(canvas[..., 3]))
    x1, y1, x2, y2 = (
        part[0] // finer,
        part[1] // finer,
        -(-(part[0] + part[2]) // finer),
        -(-(part[1] + part[3]) // finer),
    )
    canvas = canvas[y1 * finer : y2 * finer, x1 * finer : x2 * finer]
    left, top, size = left + x1, top + y1, (x2 - x1, y2 - y1)
    if min(size) < 2:
        return None
    canvas = _light_from_side(canvas, plan.light)
    pixels = (outline - (left, top)) * finer
    face = np.zeros(canvas.shape[:2], np.uint8)
    cv2.fillPoly(face, [np.round(pixels).astype(np.int32)], 255)
    if finer > 1:
        canvas = np.asarray(cv2.resize(canvas, size, interpolation=cv2.INTER_AREA), np.uint8)
        face = np.asarray(cv2.resize(face, size, interpolation=cv2.INTER_AREA), np.uint8)
    return _Layer(
        canvas=canvas,
        left=left,
        top=top,
        face=np.divide(face, 255, dtype=np.float32),
        face_area=max(float(cv2.contourArea(outline.astype(np.float32))), 1e-6),
        outline=outline,
        landmarks=landmarks,
        points=body_points,
    )


def _ground_nearness(width: int, height: int) -> NDArray[np.uint8]:
    """The nearness of an empty scene: 0 above the horizon, from there growing to the lower border."""
    rows = np.linspace(0, 1, height)
    nearness = np.clip((rows - _HORIZON) / (1 - _HORIZON), 0, 1) * _NEAREST_GROUND
    return np.tile(np.round(255 * nearness).astype(np.uint8)[:, None], (1, width))


def _paste_nearness(nearness: NDArray[np.uint8], layer: _Layer, value: float) -> None:
    """Sets the nearness of a person's pixels."""
    height, width = layer.canvas.shape[:2]
    part = nearness[layer.top : layer.top + height, layer.left : layer.left + width]
    part[layer.canvas[..., 3] > 127] = round(255 * min(1.0, value))


def _draw_person(brush: Brush, person: PersonPlan, light: float) -> Brush:
    """Draws body and head; returns the brush of the head."""
    cause, posture = person.cause, person.cause.posture
    droop = SLUMPED_DROOP if posture == "slumped" else 0.0
    head = brush.moved(0.0, droop, person.face.roll + (6 if posture == "slumped" else 0))
    is_turned = person.hidden_by == "turned_away"
    if not is_turned:
        draw_hair_behind(head, person.face)
    draw_body(brush, person.body, posture, cause.clothes, person.face, is_turned)
    if is_turned:
        draw_head_from_behind(head, person.face)
    else:
        draw_head(head, person.face, FACES[cause.expression], light)
    draw_headwear(head, cause.clothes, person.body)
    if posture == "hand_on_head":
        draw_arm(brush, person.body, posture, cause.clothes, 1, person.face.skin)
    if person.hidden_by == "covered":
        _draw_cover(head, person)
    return head


def _draw_cover(head: Brush, person: PersonPlan) -> None:
    """Draws the object that covers a person's whole face."""
    tint = shade(person.body.lower, 1.25)
    if person.cover == "box":
        head.polygon([(-0.6, -0.7), (0.6, -0.7), (0.6, 0.95), (-0.6, 0.95)], (176, 138, 92))
        head.polygon([(-0.6, -0.7), (-0.4, -0.84), (0.8, -0.84), (0.6, -0.7)], (206, 170, 122))
        head.polygon([(0.6, -0.7), (0.8, -0.84), (0.8, 0.78), (0.6, 0.95)], (136, 104, 68))
        head.polygon([(-0.09, -0.7), (0.09, -0.7), (0.09, 0.95), (-0.09, 0.95)], (214, 190, 150))
    elif person.cover == "placard":
        head.line([(0, 0.6), (0, 2.4)], 0.1, (150, 112, 74))
        head.polygon([(-0.66, -0.66), (0.66, -0.66), (0.66, 0.64), (-0.66, 0.64)], (248, 246, 240))
        head.polygon([(-0.34, 0.36), (0.0, -0.4), (0.34, 0.36)], (36, 96, 170))
    else:  # an umbrella tilted towards the viewer
        ribs = np.linspace(0, 2 * np.pi, 9)
        for k, (start, end) in enumerate(pairwise(ribs)):
            rim = [(1.02 * np.cos(angle), 0.02 + 0.84 * np.sin(angle)) for angle in (start, (start + end) / 2, end)]
            head.polygon([(0.0, -0.08), *rim], shade(tint, 1.2 if k % 2 else 0.8))
        head.ellipse(0.0, -0.08, 0.05, 0.05, (40, 40, 44))


def _light_from_side(canvas: NDArray[np.uint8], light: float) -> NDArray[np.uint8]:
    """Makes a canvas brighter on the side that the light comes from."""
    across = np.linspace(-1, 1, canvas.shape[1])
    in_128ths = np.full((canvas.shape[1], 4), 128, np.uint16)
    in_128ths[:, :3] = np.round(128 * (0.94 + 0.12 * light * across))[:, None]
    return np.asarray(np.minimum((canvas * in_128ths) >> 7, canvas[..., 3:]), np.uint8)


def _cover(earlier: _Layer, later: _Layer) -> None:
    """Removes from the earlier person's face the part that the later person covers."""
    x1, y1 = max(earlier.left, later.left), max(earlier.top, later.top)
    x2 = min(earlier.left + earlier.face.shape[1], later.left + later.canvas.shape[1])
    y2 = min(earlier.top + earlier.face.shape[0], later.top + later.canvas.shape[0])
    if x1 >= x2 or y1 >= y2:
        return
    alpha = later.canvas[y1 - later.top : y2 - later.top, x1 - later.left : x2 - later.left, 3]
    through = 1 - alpha.astype(np.float32) / 255
    earlier.face[y1 - earlier.top : y2 - earlier.top, x1 - earlier.left : x2 - earlier.left] *= through


def _finish(rng: np.random.Generator, photo: Photo, plan: PhotoPlan) -> Photo:
    """Applies exposure, colour of the light, blur and noise."""
    gains = plan.exposure * np.array([1 + 0.07 * plan.warmth, 1.0, 1 - 0.07 * plan.warmth])
    levels = np.clip(np.arange(256)[:, None] * gains + 3, 0, 255).astype(np.uint8)
    photo = np.asarray(cv2.LUT(photo, levels[None]), np.uint8)
    if plan.blur > 0.25:
        photo = np.asarray(cv2.GaussianBlur(photo, (0, 0), plan.blur), np.uint8)
    tile = rng.normal(0, plan.noise, (256, 256, 3)).astype(np.int16)
    repeats = (-(-photo.shape[0] // 256), -(-photo.shape[1] // 256), 1)
    noise = np.tile(tile, repeats)[: photo.shape[0], : photo.shape[1]]
    return np.asarray(np.clip(photo + noise, 0, 255), np.uint8)


def _to_truth(plan: PhotoPlan, person: PersonPlan, layer: _Layer | None) -> DrawnPerson | None:
    """The truth about a drawn person; None if too little of the person is in the photo."""
    if layer is None:
        return None
    rows = np.flatnonzero((layer.canvas[..., 3] > 127).any(axis=1))
    columns = np.flatnonzero((layer.canvas[..., 3] > 127).any(axis=0))
    if len(rows) < 8 or len(columns) < 4:
        return None
    body = (layer.left + columns[0], layer.top + rows[0], layer.left + columns[-1] + 1, layer.top + rows[-1] + 1)
    covered = 1 - float(layer.face.sum()) / layer.face_area
    hidden_by = person.hidden_by
    if hidden_by in ("", "other_person"):
        hidden_by = "other_person" if covered > MAX_COVERED else ""
    is_clear = covered <= MAX_COVERED or covered >= MIN_HIDDEN or hidden_by in ("turned_away", "covered", "too_small")
    has_face = person.hidden_by != "turned_away"
    (x1, y1), (x2, y2) = layer.outline.min(axis=0), layer.outline.max(axis=0)
    return DrawnPerson(
        plan=person,
        body_xyxy=tuple(float(value) for value in body),  # type: ignore[arg-type]
        face_xyxy=(float(x1), float(y1), float(x2), float(y2)) if has_face else None,
        landmarks=layer.landmarks if has_face else None,
        points=layer.points,
        hidden_by=hidden_by,
        is_clear=is_clear,
    )
