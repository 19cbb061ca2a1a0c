"""The causes of a simulated person's labels: expression, posture, clothing, place and object.

The log-odds of each category are a bias plus the weights of the person's causes. Face, body and scene are drawn
independently of each other, so each carries information that the others lack. The biases are chosen so that each
category is as frequent as among EMOTIC's people.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

from emoface.schema import CATEGORIES, CATEGORY_INDEX, DIMENSIONS

STREAMS: tuple[str, ...] = ("face", "body", "context")

EXPRESSIONS: dict[str, float] = {
    "neutral": 0.16,
    "smile": 0.17,
    "laugh": 0.11,
    "sad": 0.08,
    "angry": 0.07,
    "surprised": 0.07,
    "fearful": 0.05,
    "disgusted": 0.05,
    "pained": 0.04,
    "tired": 0.06,
    "serene": 0.07,
    "sceptical": 0.07,
}
"""Expressions of a face, with their share of people."""

POSTURES: dict[str, float] = {
    "standing": 0.22,
    "arms_raised": 0.13,
    "arms_crossed": 0.12,
    "slumped": 0.12,
    "running": 0.14,
    "hands_on_hips": 0.1,
    "hand_on_head": 0.07,
    "reaching": 0.1,
}
CLOTHES: dict[str, float] = {
    "casual": 0.4,
    "sport": 0.2,
    "formal": 0.2,
    "bandaged": 0.06,
    "festive": 0.14,
}
"""Postures and clothes of a body, with their share of people."""

PLACES: dict[str, float] = {
    "park": 0.13,
    "beach": 0.12,
    "party": 0.14,
    "office": 0.15,
    "sports_field": 0.15,
    "hospital": 0.09,
    "graveyard": 0.07,
    "night_street": 0.08,
    "kitchen": 0.07,
}
"""Places of a photo, with their share of photos."""

OBJECTS: dict[str, tuple[str, ...]] = {
    "park": ("none", "flowers", "bench"),
    "beach": ("none", "sunset", "ball"),
    "party": ("balloons", "cake", "none"),
    "office": ("laptop", "none", "flowers"),
    "sports_field": ("ball", "trophy", "none"),
    "hospital": ("bed", "flowers", "none"),
    "graveyard": ("flowers", "candles", "none"),
    "night_street": ("none", "fire", "bench"),
    "kitchen": ("none", "cake", "candles"),
}
"""Objects that may be in a place; the first is as likely as the other two together."""

_OBJECT_SHARES = (0.5, 0.25, 0.25)

_WEIGHTS: dict[str, dict[str, float]] = {
    # The face.
    "smile": {"Happiness": 2.6, "Affection": 1.3, "Pleasure": 1.4, "Esteem": 0.8, "Sadness": -1.5, "Annoyance": -1.0},
    "laugh": {"Happiness": 3.0, "Excitement": 2.0, "Pleasure": 2.0, "Sadness": -2.0, "Disconnection": -1.5},
    "sad": {"Sadness": 3.4, "Suffering": 1.8, "Happiness": -2.4, "Yearning": 1.4, "Sympathy": 1.2, "Pleasure": -1.5},
    "angry": {"Anger": 4.0, "Annoyance": 2.6, "Disapproval": 2.6, "Happiness": -2.4, "Peace": -1.5},
    "surprised": {"Surprise": 4.0, "Excitement": 1.0, "Anticipation": 0.8, "Doubt/Confusion": 0.8},
    "fearful": {"Fear": 4.0, "Disquietment": 2.2, "Happiness": -2.2, "Peace": -1.5},
    "disgusted": {"Aversion": 4.0, "Disapproval": 1.8, "Annoyance": 1.2, "Happiness": -2.0},
    "pained": {"Pain": 3.6, "Suffering": 2.8, "Disquietment": 1.2, "Happiness": -2.0},
    "tired": {"Fatigue": 3.4, "Disconnection": 1.6, "Excitement": -1.6, "Engagement": -1.2},
    "serene": {"Peace": 2.8, "Sensitivity": 1.2, "Affection": 1.2, "Yearning": 1.0, "Excitement": -1.0},
    "sceptical": {"Doubt/Confusion": 3.0, "Disapproval": 1.2, "Disquietment": 1.0, "Embarrassment": 1.5},
    "neutral": {"Disconnection": 0.8, "Engagement": 0.4, "Happiness": -0.8},
    # The body.
    "arms_raised": {"Excitement": 2.4, "Happiness": 1.2, "Surprise": 0.8, "Peace": -1.0, "Engagement": 0.8},
    "arms_crossed": {"Disconnection": 1.4, "Disapproval": 1.4, "Confidence": 0.8, "Annoyance": 0.8},
    "slumped": {"Sadness": 1.6, "Fatigue": 2.2, "Suffering": 1.4, "Confidence": -2.0, "Excitement": -1.6},
    "running": {"Anticipation": 2.2, "Excitement": 1.4, "Engagement": 1.2, "Confidence": 0.8, "Peace": -1.6},
    "hands_on_hips": {"Confidence": 2.2, "Annoyance": 1.0, "Esteem": 0.8},
    "hand_on_head": {
        "Doubt/Confusion": 1.8,
        "Disquietment": 1.6,
        "Embarrassment": 2.0,
        "Pain": 1.0,
        "Confidence": -1.0,
    },
    "reaching": {"Affection": 2.0, "Sympathy": 1.8, "Anticipation": 1.0, "Yearning": 1.4, "Sensitivity": 0.8},
    "standing": {"Peace": 0.4},
    "sport": {"Confidence": 1.8, "Anticipation": 1.0, "Excitement": 0.8},
    "formal": {"Esteem": 1.8, "Confidence": 1.2, "Engagement": 0.6},
    "bandaged": {"Pain": 2.6, "Suffering": 2.2, "Sympathy": 1.0, "Sensitivity": 1.6, "Confidence": -1.0},
    "festive": {"Happiness": 1.0, "Pleasure": 1.4, "Excitement": 0.8, "Affection": 0.6},
    "casual": {},
    # The scene.
    "park": {"Peace": 1.4, "Pleasure": 0.8, "Affection": 0.6},
    "beach": {"Pleasure": 2.0, "Peace": 1.4, "Happiness": 0.8, "Engagement": -0.6},
    "party": {"Happiness": 1.4, "Affection": 1.2, "Pleasure": 1.0, "Excitement": 0.8, "Disconnection": -0.8},
    "office": {"Engagement": 2.2, "Anticipation": 0.6, "Disconnection": 0.6, "Pleasure": -1.2},
    "sports_field": {"Anticipation": 2.2, "Confidence": 1.8, "Excitement": 1.6, "Engagement": 1.6, "Peace": -1.2},
    "hospital": {
        "Sympathy": 2.2,
        "Suffering": 2.0,
        "Pain": 1.6,
        "Sensitivity": 1.6,
        "Disquietment": 1.0,
        "Pleasure": -1.4,
    },
    "graveyard": {"Sadness": 2.4, "Sympathy": 1.4, "Yearning": 1.8, "Happiness": -1.6, "Excitement": -1.4},
    "night_street": {"Disquietment": 1.8, "Fear": 1.8, "Disconnection": 1.4, "Doubt/Confusion": 0.6},
    "kitchen": {"Engagement": 0.8, "Peace": 0.4, "Pleasure": 0.6},
    "flowers": {"Affection": 1.0, "Sensitivity": 1.0, "Esteem": 0.6},
    "balloons": {"Happiness": 0.8, "Excitement": 0.8},
    "cake": {"Pleasure": 1.0, "Yearning": 0.8},
    "ball": {"Anticipation": 0.8, "Engagement": 0.6},
    "trophy": {"Esteem": 2.2, "Confidence": 1.0, "Happiness": 0.6},
    "laptop": {"Engagement": 1.2, "Fatigue": 0.8},
    "bed": {"Fatigue": 1.2, "Suffering": 0.6},
    "candles": {"Peace": 0.8, "Sympathy": 0.6},
    "fire": {"Fear": 1.6, "Surprise": 1.0, "Disquietment": 1.0},
    "bench": {"Disconnection": 0.8, "Peace": 0.4},
    "sunset": {"Peace": 0.8, "Yearning": 1.0},
    "none": {},
}
"""Weight that each cause adds to the log-odds of categories, before the factor ``_STRENGTH``."""

_STRENGTH = 2.0
"""Factor for all weights: the larger it is, the more the causes decide the labels and the less chance does."""

FREQUENCIES: dict[str, float] = {
    "Affection": 0.079,
    "Anger": 0.015,
    "Annoyance": 0.029,
    "Anticipation": 0.346,
    "Aversion": 0.017,
    "Confidence": 0.278,
    "Disapproval": 0.026,
    "Disconnection": 0.101,
    "Disquietment": 0.053,
    "Doubt/Confusion": 0.062,
    "Embarrassment": 0.013,
    "Engagement": 0.638,
    "Esteem": 0.075,
    "Excitement": 0.291,
    "Fatigue": 0.035,
    "Fear": 0.017,
    "Happiness": 0.337,
    "Pain": 0.015,
    "Peace": 0.100,
    "Pleasure": 0.157,
    "Sadness": 0.028,
    "Sensitivity": 0.021,
    "Suffering": 0.019,
    "Surprise": 0.034,
    "Sympathy": 0.060,
    "Yearning": 0.046,
}
"""Share of EMOTIC's people with each category, counted on the 33,784 rows that circulate as CSV."""

_DIMENSION_WEIGHTS: dict[str, dict[str, float]] = {
    "valence": {"Happiness": 1.6, "Pleasure": 1.0, "Peace": 0.8, "Affection": 0.8, "Sadness": -1.8, "Anger": -1.5}
    | {"Suffering": -1.6, "Pain": -1.6, "Fear": -1.4, "Annoyance": -1.2, "Aversion": -1.2, "Disquietment": -1.0},
    "arousal": {"Excitement": 2.2, "Anger": 1.5, "Surprise": 1.4, "Fear": 1.4, "Anticipation": 0.8}
    | {"Peace": -1.6, "Fatigue": -1.8, "Disconnection": -1.0, "Sadness": -0.8},
    "dominance": {"Confidence": 2.0, "Esteem": 0.8, "Anger": 0.8, "Fear": -2.0, "Pain": -1.4, "Embarrassment": -1.4}
    | {"Suffering": -1.4, "Doubt/Confusion": -0.8},
}


@dataclass(frozen=True)
class Cause:
    """What causes a person's labels; all of it is drawn in the photo, but the face may be hidden.

    Attributes:
        expression: One of ``EXPRESSIONS``.
        posture: One of ``POSTURES``.
        clothes: One of ``CLOTHES``.
        place: One of ``PLACES``; the same for all people of a photo.
        object: One of the place's ``OBJECTS``.
    """

    expression: str
    posture: str
    clothes: str
    place: str
    object: str


def draw_scene(rng: np.random.Generator) -> tuple[str, str]:
    """Draws a place and an object in it at random."""
    place = _pick(rng, PLACES)
    return place, OBJECTS[place][int(rng.choice(3, p=_OBJECT_SHARES))]


def draw_cause(rng: np.random.Generator, place: str, thing: str) -> Cause:
    """Draws the causes of one person in a scene at random."""
    return Cause(_pick(rng, EXPRESSIONS), _pick(rng, POSTURES), _pick(rng, CLOTHES), place, thing)


def label_probabilities(cause: Cause, streams: Collection[str] = STREAMS) -> NDArray[np.float64]:
    """Probability of each category given some streams of a person, averaged over the distribution of the others.

    These are the best possible predictions of a network whose inputs are these streams.

    Args:
        cause: What causes the person's labels.
        streams: The streams that are given, some of ``STREAMS``.

    Returns:
        (26,) 0-1, in the order of ``CATEGORIES``.

    Example:
        >>> laughing = Cause("laugh", "arms_raised", "festive", "party", "balloons")
        >>> happiness = CATEGORY_INDEX["Happiness"]
        >>> bool(label_probabilities(laughing)[happiness] > 0.99)
        True
        >>> bool(label_probabilities(laughing, ())[happiness].round(3) == FREQUENCIES["Happiness"])
        True
    """
    weights = _weight_table()
    logits = label_biases().copy()
    shown = {
        "face": (cause.expression,),
        "body": (cause.posture, cause.clothes),
        "context": (cause.place, cause.object),
    }
    for stream in streams:
        for name in shown[stream]:
            logits += weights[name]
    unseen, shares = _unseen_weights(tuple(stream for stream in STREAMS if stream not in streams))
    return np.asarray(shares @ _sigmoid(logits + unseen))


def draw_labels(rng: np.random.Generator, probabilities: NDArray[np.float64]) -> NDArray[np.uint8]:
    """Draws the categories of one person at random.

    A person without any category gets the most probable one, because every person of EMOTIC has at least one.

    Returns:
        (26,) indicator.
    """
    labels = (rng.random(len(probabilities)) < probabilities).astype(np.uint8)
    if not labels.any():
        labels[int(np.argmax(probabilities))] = 1
    return labels


def draw_dimensions(rng: np.random.Generator, labels: NDArray[np.uint8]) -> tuple[float, float, float]:
    """Draws valence, arousal and dominance that suit the labels: whole numbers from 1 to 10 as in EMOTIC."""
    values = []
    for dimension in DIMENSIONS:
        weights = _DIMENSION_WEIGHTS[dimension]
        mean = 5.5 + sum(weight for name, weight in weights.items() if labels[CATEGORY_INDEX[name]])
        values.append(float(np.clip(round(mean + rng.normal(0, 1.0)), 1, 10)))
    return values[0], values[1], values[2]


@cache
def label_biases() -> NDArray[np.float64]:
    """(26,) biases for which the expected share of people per category is ``FREQUENCIES``, found by bisection."""
    weights, shares = _unseen_weights(STREAMS)
    wanted = np.array([FREQUENCIES[name] for name in CATEGORIES])
    low, high = np.full(len(CATEGORIES), -40.0), np.full(len(CATEGORIES), 40.0)
    for _ in range(40):
        middle = (low + high) / 2
        too_many = np.asarray(shares @ _sigmoid(weights + middle) > wanted)
        low, high = np.where(too_many, low, middle), np.where(too_many, middle, high)
    return np.asarray((low + high) / 2)


@cache
def _unseen_weights(streams: tuple[str, ...]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """All n combinations of causes in some streams: (n, 26) sums of weights, and (n,) shares of people."""
    table = _weight_table()
    scenes: dict[tuple[str, ...], float] = {
        (place, thing): share * _OBJECT_SHARES[k]
        for place, share in PLACES.items()
        for k, thing in enumerate(OBJECTS[place])
    }
    groups: dict[str, tuple[dict[tuple[str, ...], float], ...]] = {
        "face": ({(name,): share for name, share in EXPRESSIONS.items()},),
        "body": tuple({(name,): share for name, share in group.items()} for group in (POSTURES, CLOTHES)),
        "context": (scenes,),
    }
    weights, shares = np.zeros((1, len(CATEGORIES))), np.ones(1)
    for group in (group for stream in streams for group in groups[stream]):
        rows = np.stack([sum((table[name] for name in names), np.zeros(len(CATEGORIES))) for names in group])
        weights = (weights[:, None] + rows[None]).reshape(-1, len(CATEGORIES))
        shares = np.outer(shares, list(group.values())).ravel()
    return weights, shares / shares.sum()


@cache
def _weight_table() -> dict[str, NDArray[np.float64]]:
    table = {}
    for cause, weights in _WEIGHTS.items():
        row = np.zeros(len(CATEGORIES))
        for name, weight in weights.items():
            row[CATEGORY_INDEX[name]] = weight * _STRENGTH
        table[cause] = row
    return table


def _pick(rng: np.random.Generator, shares: dict[str, float]) -> str:
    p = np.array(list(shares.values()))
    return str(list(shares)[int(rng.choice(len(p), p=p / p.sum()))])


def _sigmoid(x: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(1 / (1 + np.exp(-x)))
