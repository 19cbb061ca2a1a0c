"""Plans a simulated photo: where people stand, what causes their labels, and which faces are hidden by what."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from emoface.simulator.bodies import SLUMPED_DROOP, BodyStyle, draw_body_style
from emoface.simulator.causes import Cause, draw_cause, draw_scene
from emoface.simulator.faces import FaceStyle, draw_face_style

HIDDEN_SHARES: dict[str, float] = {
    "turned_away": 0.09,
    "covered": 0.06,
    "too_small": 0.035,
    "cut_by_border": 0.04,
}
"""Share of people whose face is planned to be hidden, by what hides it; ``OTHER_PERSON_SHARE`` is in addition."""

OTHER_PERSON_SHARE = 0.06
"""Share of people who have another person of the photo standing half behind them."""

BYSTANDER_SHARE = 0.22
"""Share of photos that also show people without annotations."""

_TOO_SMALL = (0.0055, 0.008)
"""Range of heights of faces that are too small to detect, as shares of the photo's longer side: a detector whose input
is resized to 640 pixels gets 4 to 6 pixels of them."""

_ABOVE_BORDER = (0.5, 0.64)
"""Range of distances of a cropped face's middle above the upper edge, in face heights: the neck stays visible."""

_PEOPLE_SHARES = (0.68, 0.2, 0.07, 0.03, 0.013, 0.007)
_COVERS = ("box", "placard", "umbrella")


@dataclass(frozen=True)
class PersonPlan:
    """One person to draw.

    Attributes:
        is_annotated: Whether the person is annotated; False for a bystander.
        cause: What causes the person's labels.
        gender: Gender as EMOTIC names it.
        age: Age group as EMOTIC names it.
        face: Look of the head.
        body: Look of the body.
        x: Middle of the face, pixels.
        y: Middle of the face, pixels.
        face_height: Distance from forehead to chin, pixels.
        hidden_by: What is planned to hide the face; empty if nothing is.
        cover: Object in front of the face if ``hidden_by`` is ``covered``.
    """

    is_annotated: bool
    cause: Cause
    gender: str
    age: str
    face: FaceStyle
    body: BodyStyle
    x: float
    y: float
    face_height: float
    hidden_by: str
    cover: str


@dataclass(frozen=True)
class PhotoPlan:
    """One photo to draw.

    Attributes:
        width: Pixels.
        height: Pixels.
        place: One of ``causes.PLACES``.
        object: One of the place's ``causes.OBJECTS``.
        light: Direction that the light comes from, -1 (left) to 1 (right).
        exposure: Factor for the brightness of the photo.
        warmth: Shift between blue and red, -1 to 1.
        blur: Standard deviation of the blur, pixels.
        noise: Standard deviation of the sensor's noise, 0-255.
        people: The people in drawing order, from back to front.
    """

    width: int
    height: int
    place: str
    object: str
    light: float
    exposure: float
    warmth: float
    blur: float
    noise: float
    people: tuple[PersonPlan, ...]


def draw_plan(rng: np.random.Generator) -> PhotoPlan:
    """Plans a photo at random."""
    width, height = _draw_size(rng)
    place, thing = draw_scene(rng)
    people = _draw_people(rng, width, height, place, thing)
    long_side = max(width, height)
    return PhotoPlan(
        width=width,
        height=height,
        place=place,
        object=thing,
        light=float(rng.uniform(-1, 1)),
        exposure=float(rng.uniform(0.72, 1.15)) * (0.8 if place == "night_street" else 1.0),
        warmth=float(rng.normal(0, 0.4)),
        blur=float(rng.uniform(0, 0.0011)) * long_side,
        noise=float(rng.uniform(1, 7)),
        people=people,
    )


def _draw_size(rng: np.random.Generator) -> tuple[int, int]:
    kind = rng.random()
    if kind < 0.5:
        long_side = 640
    elif kind < 0.75:
        long_side = int(rng.integers(320, 640))
    elif kind < 0.93:
        long_side = int(rng.integers(641, 1100))
    else:
        long_side = int(rng.integers(1100, 2001))
    short_side = max(240, round(long_side * float(rng.choice((0.6667, 0.75, 0.75, 0.8)))))
    return (short_side, long_side) if rng.random() < 0.22 else (long_side, short_side)


def _draw_people(rng: np.random.Generator, width: int, height: int, place: str, thing: str) -> tuple[PersonPlan, ...]:
    n_annotated = 1 + int(rng.choice(len(_PEOPLE_SHARES), p=_PEOPLE_SHARES))
    n_bystanders = int(rng.integers(1, 4)) if rng.random() < BYSTANDER_SHARE else 0
    n_people = n_annotated + n_bystanders
    base = _draw_face_height(rng, width, height, n_people)
    slot = width / n_people
    order = rng.permutation(n_people)
    people = []
    for k in range(n_people):
        face_height = base * float(rng.uniform(0.85, 1.15)) * (1.0 if order[k] < n_annotated else 0.85)
        x = slot * (k + 0.5) + float(rng.uniform(-0.5, 0.5)) * max(slot - 1.9 * face_height, 0)
        y = float(rng.uniform(max(0.85 * face_height, 0.14 * height), max(0.9 * face_height, 0.42 * height)))
        person = _draw_person(rng, order[k] < n_annotated, draw_cause(rng, place, thing), x, y, face_height)
        people.append(_hide_face(rng, person, width, height))
    people += _draw_people_behind(rng, people, place, thing)
    return tuple(sorted(people, key=lambda person: person.face_height))


def _draw_face_height(rng: np.random.Generator, width: int, height: int, n_people: int) -> float:
    """Draws the photo's typical face height in pixels: close, medium or far, and so small that heads do not touch."""
    low, high = ((0.24, 0.38), (0.12, 0.22), (0.07, 0.11))[int(rng.choice(3, p=(0.2, 0.45, 0.35)))]
    face_height = float(rng.uniform(low, high)) * min(height, width * 1.2)
    least = 0.036 * max(width, height)
    return max(min(face_height, width / n_people / 1.75), least)


def _draw_person(
    rng: np.random.Generator, is_annotated: bool, cause: Cause, x: float, y: float, face_height: float
) -> PersonPlan:
    is_male = bool(rng.random() < 0.6)
    age = str(rng.choice(("Adult", "Teenager", "Kid"), p=(0.8, 0.1, 0.1)))
    return PersonPlan(
        is_annotated=is_annotated,
        cause=cause,
        gender="Male" if is_male else "Female",
        age=age,
        face=draw_face_style(rng, is_male and age != "Kid"),
        body=draw_body_style(rng, cause.clothes, is_male, age == "Kid"),
        x=x,
        y=y,
        face_height=face_height,
        hidden_by="",
        cover=_COVERS[int(rng.integers(len(_COVERS)))],
    )


def _hide_face(rng: np.random.Generator, person: PersonPlan, width: int, height: int) -> PersonPlan:
    """Decides whether and how a face is hidden, and moves or resizes the person if that requires it."""
    reasons = ("", *HIDDEN_SHARES)
    reason = str(rng.choice(reasons, p=(1 - sum(HIDDEN_SHARES.values()), *HIDDEN_SHARES.values())))
    person = replace(person, hidden_by=reason)
    if reason == "too_small":
        face_height = float(rng.uniform(*_TOO_SMALL)) * max(width, height)
        return replace(person, face_height=face_height, y=float(rng.uniform(0.4, 0.6)) * height)
    if reason == "cut_by_border":
        face_height = max(person.face_height, 0.12 * height)
        above = float(rng.uniform(*_ABOVE_BORDER)) + (SLUMPED_DROOP if person.cause.posture == "slumped" else 0.0)
        return replace(person, face_height=face_height, y=-above * face_height)
    return person


def _draw_people_behind(rng: np.random.Generator, people: list[PersonPlan], place: str, thing: str) -> list[PersonPlan]:
    """Plans shorter people whose face is behind the chest of another person."""
    behind = []
    for front in people:
        reaches = front.hidden_by in ("", "turned_away") and front.face_height > 20
        if front.is_annotated and reaches and rng.random() < OTHER_PERSON_SHARE:
            face_height = 0.6 * front.face_height
            x = front.x + float(rng.choice((-1, 1))) * 0.42 * front.body.build * front.face_height
            person = _draw_person(
                rng, True, draw_cause(rng, place, thing), x, front.y + 1.75 * front.face_height, face_height
            )
            behind.append(replace(person, hidden_by="other_person"))
    return behind
