"""Draws predictions on photos: boxes, labels of each person beside the photo, heat maps."""

from __future__ import annotations

import functools
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from emoface.reporting.charts import SERIES_COLORS
from emoface.storage.files import write_bytes
from emoface.storage.urls import Place, name_of
from emoface.vision.crops import Photo

_LONGEST, _SHORTEST = 1280, 640
_INK, _SOFT, _PAPER, _TRACK = "#17202b", "#55616f", "#ffffff", "#e4e9ef"
_CARD_WIDTH, _PAD, _ROW = 330, 14, 24
_TEXT, _SMALL = 16, 13


@dataclass(frozen=True)
class LabelBar:
    """One label of a person.

    Attributes:
        name: The label.
        probability: Predicted probability, 0-1.
        is_true: Whether the person has the label; None if the truth is unknown.
    """

    name: str
    probability: float
    is_true: bool | None = None


@dataclass(frozen=True)
class DrawnPerson:
    """What to draw for one person.

    Attributes:
        title: Short text that names the person.
        body_xyxy: Body box, original pixels.
        face_xyxy: Face box, original pixels; None if no face was found.
        bars: The labels to show, top to bottom.
        notes: Lines below the labels, such as the true labels.
    """

    title: str
    body_xyxy: tuple[float, float, float, float]
    face_xyxy: tuple[float, float, float, float] | None
    bars: tuple[LabelBar, ...]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class DrawnTrack:
    """What to draw for one person of a frame of a video.

    Attributes:
        number: Number of the person's track, from 1; it decides the colour.
        body_xyxy: Body box, original pixels.
        face_xyxy: Face box, original pixels; None if no face was found.
        lines: Text below the number.
    """

    number: int
    body_xyxy: tuple[float, float, float, float]
    face_xyxy: tuple[float, float, float, float] | None
    lines: tuple[str, ...]


def draw_people(photo: Photo, people: Sequence[DrawnPerson]) -> Photo:
    """Draws a numbered box per person on the photo, and a card with the labels of each person beside it (figure 4-8).

    Args:
        photo: (height, width, 3), RGB; not changed.
        people: The people in the order of their numbers.

    Returns:
        (height, width, 3), RGB; the photo is scaled so that boxes and text can be read.
    """
    shown, scale = fit_photo(photo)
    height, width = shown.shape[:2]
    cards = [_card_height(person) for person in people]
    columns = _stack_in_columns(cards, max(height, *cards, 0) if cards else height)
    canvas_height = max(height, max((top + cards[k] for k, (_, top) in enumerate(columns)), default=0))
    n_columns = 1 + max((column for column, _ in columns), default=-1)
    canvas = Image.new(
        "RGB", (width + n_columns * (_CARD_WIDTH + _PAD) + (_PAD if n_columns else 0), canvas_height), _PAPER
    )
    canvas.paste(Image.fromarray(shown), (0, 0))
    pen = ImageDraw.Draw(canvas)
    for number, person in enumerate(people):
        _draw_box(pen, person, number, scale)
    for number, (person, (column, top)) in enumerate(zip(people, columns, strict=True)):
        _draw_card(pen, person, number, width + _PAD + column * (_CARD_WIDTH + _PAD), top)
    return np.asarray(canvas, np.uint8)


def draw_tracks(photo: Photo, tracks: Sequence[DrawnTrack]) -> Photo:
    """Draws the people of a frame: boxes, the number of each track, and its lines of text inside the body box.

    Args:
        photo: (height, width, 3), RGB; not changed.
        tracks: The people; the last ones are drawn over the others.

    Returns:
        (height, width, 3), RGB, even sides; the same for all frames of a video, scaled so that text can be read.
    """
    shown, scale = fit_photo(photo)
    height, width = (side // 2 * 2 or 2 for side in shown.shape[:2])
    canvas = Image.new("RGB", (width, height))
    canvas.paste(Image.fromarray(shown), (0, 0))
    pen = ImageDraw.Draw(canvas)
    for track in tracks:
        color = _color(track.number - 1)
        body = tuple(value * scale for value in track.body_xyxy)
        draw_outline(pen, body, color)
        if track.face_xyxy is not None:
            draw_outline(pen, tuple(value * scale for value in track.face_xyxy), color, width=2)
    for track in tracks:
        x, y = (max(0.0, value * scale) for value in track.body_xyxy[:2])
        for number, line in enumerate((str(track.number), *track.lines)):
            font = _font(_SMALL if number else _TEXT, bold=not number)
            _, _, right, bottom = pen.textbbox((x + 4, y + 2), line, font)
            pen.rectangle((x, y, right + 4, bottom + 3), fill=_color(track.number - 1))
            pen.text((x + 4, y + 2), line, "#ffffff", font)
            y = bottom + 3
    return np.asarray(canvas, np.uint8)


def draw_heat(photo: Photo, heat: NDArray[np.float32], xyxy: tuple[float, float, float, float], scale: float) -> Photo:
    """Draws a heat map over a part of a photo: grey where there is no heat, yellow at the largest values.

    The part loses its own colours, so that the heat's stand out on any photo; ``draw_color_bar`` explains them.

    Args:
        photo: (height, width, 3), RGB; not changed.
        heat: (h, w), 0 or more; stretched to the whole box, whatever the shape of the box.
        xyxy: The box of the photo that the map belongs to, pixels; the part outside the photo is clipped.
        scale: The value that is drawn with full strength; 0 draws nothing.

    Returns:
        (height, width, 3), RGB.
    """
    height, width = photo.shape[:2]
    left, top = (int(np.floor(value)) for value in xyxy[:2])
    right, bottom = (int(np.ceil(value)) for value in xyxy[2:])
    drawn = photo.copy()
    if scale <= 0 or right <= left or bottom <= top:
        return drawn
    x1, y1, x2, y2 = max(0, left), max(0, top), min(width, right), min(height, bottom)
    if x2 <= x1 or y2 <= y1:
        return drawn
    spread = cv2.resize(heat, (right - left, bottom - top), interpolation=cv2.INTER_LINEAR)
    strength = np.clip(spread[y1 - top : y2 - top, x1 - left : x2 - left] / scale, 0, 1)[..., None]
    color = _heat_colors()[(strength[..., 0] * 255).astype(np.uint8)]
    alpha = 0.15 * (strength > 0.02) + 0.5 * strength
    part = np.repeat(cv2.cvtColor(photo[y1:y2, x1:x2], cv2.COLOR_RGB2GRAY)[..., None], 3, axis=2)
    drawn[y1:y2, x1:x2] = (part * (1 - alpha) + color * alpha).round().astype(np.uint8)
    return drawn


def draw_caption(photo: Photo, lines: Sequence[str], boxes: Sequence[tuple[float, float, float, float]] = ()) -> Photo:
    """Scales a photo to a readable size, draws boxes on it and a caption below it.

    Args:
        photo: (height, width, 3), RGB; not changed.
        lines: Lines of the caption; the first is written larger.
        boxes: xyxy, original pixels.

    Returns:
        (height, width, 3), RGB.
    """
    shown, scale = fit_photo(photo)
    height, width = shown.shape[:2]
    canvas = Image.new("RGB", (width, height + _PAD + _ROW * len(lines) + _PAD // 2), _PAPER)
    canvas.paste(Image.fromarray(shown), (0, 0))
    pen = ImageDraw.Draw(canvas)
    for box in boxes:
        draw_outline(pen, tuple(value * scale for value in box), SERIES_COLORS[0])
    for number, line in enumerate(lines):
        font = _font(_SMALL if number else _TEXT, bold=not number)
        place = (_PAD, height + _PAD // 2 + _ROW * number)
        pen.text(place, _fit_text(pen, line, font, width - 2 * _PAD), _SOFT if number else _INK, font)
    return np.asarray(canvas, np.uint8)


def draw_color_bar(width: int, low: str, high: str) -> Photo:
    """Draws the colours of a heat map as a strip, with a word for each end.

    Args:
        width: Width of the picture, pixels.
        low: Text at the left end, no heat.
        high: Text at the right end, the most heat.

    Returns:
        (height, width, 3), RGB.
    """
    canvas = Image.new("RGB", (width, _PAD + _ROW), _PAPER)
    pen, font = ImageDraw.Draw(canvas), _font(_SMALL)
    left, right = _PAD + pen.textlength(low, font) + 8, width - _PAD - pen.textlength(high, font) - 8
    pen.text((_PAD, _PAD // 2), low, _SOFT, font)
    pen.text((right + 8, _PAD // 2), high, _SOFT, font)
    for x in range(int(left), int(right)):
        red, green, blue = (round(value) for value in _heat_colors()[int(255 * (x - left) / max(right - left, 1))])
        pen.line((x, _PAD // 2 + 2, x, _PAD // 2 + 14), fill=(red, green, blue))
    return np.asarray(canvas, np.uint8)


def fit_photo(photo: Photo) -> tuple[Photo, float]:
    """Scales a photo so that its longer side has 640 to 1280 pixels.

    Args:
        photo: (height, width, 3).

    Returns:
        The scaled photo, and the scale in scaled pixels per original pixel.
    """
    height, width = photo.shape[:2]
    longest = max(height, width)
    scale = min(max(longest, _SHORTEST), _LONGEST) / longest
    if scale == 1:
        return photo, 1.0
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    interpolation = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    return np.asarray(cv2.resize(photo, size, interpolation=interpolation), np.uint8), scale


def write_png(path: Path, photo: Photo) -> None:
    """Writes a drawn photo as PNG in one step; a low compression level is enough for photos of EMOTIC's size."""
    stream = io.BytesIO()
    Image.fromarray(photo).save(stream, "PNG", compress_level=3)
    write_bytes(path, stream.getvalue())


def unique_stems(places: Sequence[Place]) -> list[str]:
    """File names of paths or URLs, without suffix; a number is added to names that occur more than once.

    Example:
        >>> unique_stems([Path("a/x.jpg"), Path("b/x.png"), Path("y.jpg")])
        ['x', 'x-2', 'y']
    """
    stems: dict[str, None] = {}
    for place in places:
        name = PurePosixPath(name_of(place)).stem
        stem, number = name, 2
        while stem in stems:
            stem, number = f"{name}-{number}", number + 1
        stems[stem] = None
    return list(stems)


@functools.cache
def _font(size: int, bold: bool = False) -> ImageFont.FreeTypeFont:
    import matplotlib as mpl

    name = "DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"
    return ImageFont.truetype(str(Path(mpl.get_data_path()) / "fonts" / "ttf" / name), size)


@functools.cache
def _heat_colors() -> NDArray[np.float64]:
    """(256, 3) RGB, from dark violet to bright yellow: equal steps look equal, also to colour-blind people."""
    import matplotlib as mpl

    return np.asarray(mpl.colormaps["plasma"](np.linspace(0, 1, 256))[:, :3] * 255)


def _color(number: int) -> str:
    return SERIES_COLORS[number % len(SERIES_COLORS)]


def draw_outline(pen: ImageDraw.ImageDraw, xyxy: tuple[float, ...], color: str, width: int = 3) -> None:
    """Draws a box with a thin white edge on both sides, which is visible on any background."""
    left, top, right, bottom = xyxy
    if right - left < 1 or bottom - top < 1:
        return
    pen.rectangle((left - 1, top - 1, right + 1, bottom + 1), outline="#ffffff", width=width + 2)
    pen.rectangle((left, top, right, bottom), outline=color, width=width)


def _draw_box(pen: ImageDraw.ImageDraw, person: DrawnPerson, number: int, scale: float) -> None:
    body = tuple(value * scale for value in person.body_xyxy)
    draw_outline(pen, body, _color(number))
    if person.face_xyxy is not None:
        draw_outline(pen, tuple(value * scale for value in person.face_xyxy), _color(number), width=2)
    tag, font = f" {number + 1} ", _font(_TEXT, bold=True)
    left, top, right, bottom = pen.textbbox((0, 0), tag, font)
    x, y = max(0.0, body[0]), max(0.0, body[1])
    pen.rectangle((x, y, x + right - left + 4, y + bottom - top + 8), fill=_color(number))
    pen.text((x + 2 - left, y + 4 - top), tag, "#ffffff", font)


def _card_height(person: DrawnPerson) -> int:
    return _PAD * 2 + _ROW * (1 + len(person.bars)) + (_ROW - 4) * sum(len(_wrap(note)) for note in person.notes)


def _stack_in_columns(heights: Sequence[int], available: int) -> list[tuple[int, int]]:
    """Column and top of each card; a column is filled from top to bottom before the next begins."""
    places, column, top = [], 0, 0
    for height in heights:
        if top and top + height > available:
            column, top = column + 1, 0
        places.append((column, top))
        top += height
    return places


def _draw_card(pen: ImageDraw.ImageDraw, person: DrawnPerson, number: int, left: int, top: int) -> None:
    y = top + _PAD
    pen.rectangle((left, y + 2, left + 12, y + 14), fill=_color(number))
    bold = _font(_TEXT, bold=True)
    pen.text((left + 20, y - 2), _fit_text(pen, f"{number + 1}  {person.title}", bold, _CARD_WIDTH - 20), _INK, bold)
    y += _ROW
    for bar in person.bars:
        font = _font(_SMALL, bold=bool(bar.is_true))
        mark = {True: "✓ ", False: "", None: ""}[bar.is_true]
        pen.text((left, y + 1), f"{mark}{bar.name}", _INK, font)
        x = left + 165
        pen.rectangle((x, y + 5, x + 110, y + 13), fill=_TRACK)
        if bar.probability > 0:
            pen.rectangle((x, y + 5, x + max(1, round(110 * bar.probability)), y + 13), fill=_color(number))
        pen.text((x + 118, y + 1), f"{100 * bar.probability:.0f} %", _SOFT, _font(_SMALL))
        y += _ROW
    for note in person.notes:
        for line in _wrap(note):
            pen.text((left, y), line, _SOFT, _font(_SMALL))
            y += _ROW - 4


def _wrap(text: str) -> list[str]:
    """Wraps a text into lines of at most a card's width."""
    font, lines, line = _font(_SMALL), [], ""
    for word in text.split(" "):
        longer = f"{line} {word}".strip()
        if line and font.getlength(longer) > _CARD_WIDTH:
            lines.append(line)
            longer = word
        line = longer
    return [*lines, line]


def _fit_text(pen: ImageDraw.ImageDraw, text: str, font: ImageFont.FreeTypeFont, width: float) -> str:
    """Shortens a text to a width by removing its beginning: the ends of ids and paths are the most informative."""
    if pen.textlength(text, font) <= width:
        return text
    while len(text) > 1 and pen.textlength(f"…{text}", font) > width:
        text = text[1:]
    return f"…{text}"
