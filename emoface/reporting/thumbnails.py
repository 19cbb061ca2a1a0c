"""Thumbnails of faces and bodies for a page; an unreadable picture gives a reason instead of an error."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from typing import Any

import cv2
import numpy as np
from PIL import Image, ImageDraw

from emoface.datasets.photos import PhotoFolder, UprightPhoto
from emoface.errors import ImageError
from emoface.reporting.charts import SERIES_COLORS
from emoface.reporting.drawing import draw_outline
from emoface.vision.crops import Photo
from emoface.vision.images import decode_photo, encode_jpeg

_SIDE = 192
_QUALITY = 82


def thumbnail_of_face(data: bytes | None, side: int = _SIDE) -> dict[str, str]:
    """Makes a thumbnail of a face crop of ``faces.parquet``.

    Args:
        data: The encoded crop.
        side: Longest side of the thumbnail, pixels.

    Returns:
        ``picture``, a data URL with the thumbnail, or ``problem``, the reason why there is none.
    """
    if data is None:
        return {"problem": "the crop is missing"}
    try:
        return _to_thumbnail(decode_photo(data, "face"), side)
    except ImageError:
        return {"problem": "the crop cannot be decoded"}


def thumbnail_of_body(
    person: Mapping[str, Any],
    photos: PhotoFolder | None,
    face_xyxy: Sequence[float] | None = None,
    side: int = _SIDE,
) -> dict[str, str]:
    """Crops a person's body box from the photo and makes a thumbnail of it.

    Args:
        person: ``image``, ``image_wh`` and ``body_bbox`` of ``people.parquet``.
        photos: The folder that ``image`` is relative to; None if it is unknown.
        face_xyxy: A face box in original pixels to draw on the thumbnail; the crop is extended to show all of it.
        side: Longest side of the thumbnail, pixels.

    Returns:
        ``picture``, a data URL with the thumbnail, or ``problem``, the reason why there is none.
    """
    if photos is None or not photos.has(person["image"]):
        return {"problem": "photo not here"}
    if person["body_bbox"] is None:
        return {"problem": "no body box"}
    try:
        photo = photos.read(person["image"], tuple(person["image_wh"]))
    except ImageError:
        return {"problem": "photo cannot be read"}
    x1, y1, x2, y2 = _to_upright(photo, person["body_bbox"])
    if face_xyxy is not None:
        face_xyxy = _to_upright(photo, face_xyxy)
        x1, y1, x2, y2 = min(x1, face_xyxy[0]), min(y1, face_xyxy[1]), max(x2, face_xyxy[2]), max(y2, face_xyxy[3])
    left, top = max(0, int(x1)), max(0, int(y1))
    body = photo.pixels[top : int(np.ceil(y2)), left : int(np.ceil(x2))]
    if not body.size:
        return {"problem": "body box outside the photo"}
    if face_xyxy is None:
        return _to_thumbnail(body, side)
    return _to_thumbnail(body, side, [value - start for value, start in zip(face_xyxy, (left, top) * 2, strict=True)])


def thumbnail_of_photo(image: str, photos: PhotoFolder | None, side: int = _SIDE) -> dict[str, str]:
    """Makes a thumbnail of a whole photo.

    Args:
        image: Path of the photo below the folder.
        photos: The folder of the photos; None if it is unknown.
        side: Longest side of the thumbnail, pixels.

    Returns:
        ``picture``, a data URL with the thumbnail, or ``problem``, the reason why there is none.
    """
    if photos is None or not photos.has(image):
        return {"problem": "photo not here"}
    try:
        return _to_thumbnail(photos.store.read_small(image, side), side)
    except ImageError:
        return {"problem": "photo cannot be read"}


def _to_upright(photo: UprightPhoto, xyxy: Sequence[float]) -> list[float]:
    return [float(value) for value in photo.turn.to_upright(np.array(xyxy, np.float32))]


def _to_thumbnail(photo: Photo, side: int, box_xyxy: Sequence[float] | None = None) -> dict[str, str]:
    """Scales a picture down to at most ``side`` pixels and draws a box, given in its original pixels, on it."""
    height, width = photo.shape[:2]
    scale = min(1.0, side / max(height, width))
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    small = np.asarray(cv2.resize(photo, size, interpolation=cv2.INTER_AREA), dtype=np.uint8)
    if box_xyxy is not None:
        canvas = Image.fromarray(small)
        draw_outline(ImageDraw.Draw(canvas), tuple(scale * value for value in box_xyxy), SERIES_COLORS[0], width=1)
        small = np.asarray(canvas, np.uint8)
    return {"picture": "data:image/jpeg;base64," + base64.b64encode(encode_jpeg(small, _QUALITY)).decode("ascii")}
