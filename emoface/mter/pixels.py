"""A person's pixels as the inputs of a network: blanked, cut and scaled; importable without torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from emoface.datasets.stream_cache import PersonPixels
from emoface.mter.inputs import ContextInput
from emoface.mter.names import IMAGENET_MEAN, IMAGENET_STD, FaceFill
from emoface.vision.crops import Photo

BLANK = tuple(round(255 * value) for value in IMAGENET_MEAN)
"""The usual colour of a blanked face: after normalisation as close to 0 as 8 bits allow."""
FILLS: dict[FaceFill, tuple[int, ...]] = {"mean": BLANK, "black": (0, 0, 0)}
AVERAGE_FROM = 2.0
"""A square of at least so many times the side of a network's input is scaled by averaging, a smaller one linearly."""


def person_pixels(
    person: PersonPixels, streams: Sequence[str], sizes: Mapping[str, int], context_input: ContextInput
) -> dict[str, Photo]:
    """Scales a person's pixels to the input sizes of a network, without augmentation.

    Returns:
        Per stream (side, side, 3); black where there is no face.
    """
    context = person.context
    if context_input.masks_body:
        context = blank_box(context, person.body_in_context, FILLS[context_input.body_fill])
    if context_input.masks_face and person.face_in_context is not None:
        context = blank_box(context, person.face_in_context, FILLS[context_input.face_fill])
    context = crop_center_square(context, context_input.center_share)
    face = black_square(sizes["face"]) if person.face is None else person.face
    pixels = {"face": face, "body": person.body, "context": context}
    return {stream: fit_input(pixels[stream], sizes[stream]) for stream in streams}


def crop_center_square(photo: Photo, share: float) -> Photo:
    """Crops the central square of a photo.

    Args:
        photo: (height, width, 3).
        share: Side of the square, as a share of the photo's shorter side.

    Returns:
        (side, side, 3), a view; the photo itself if it is square and the share is 1.

    Example:
        >>> crop_center_square(np.zeros((256, 256, 3), np.uint8), 0.875).shape
        (224, 224, 3)
    """
    height, width = photo.shape[:2]
    side = max(1, round(min(height, width) * share))
    left, top = (width - side) // 2, (height - side) // 2
    return photo[top : top + side, left : left + side]


def fit_input(photo: Photo, size: int) -> Photo:
    """Scales a square to the input size of a network.

    It averages pixels where the square shrinks to half or less, and else interpolates linearly, which is faster.

    Args:
        photo: (side, side, 3).
        size: Side of the result, pixels.
    """
    if photo.shape[0] == size:
        return np.ascontiguousarray(photo)
    interpolation = cv2.INTER_AREA if photo.shape[0] >= AVERAGE_FROM * size else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(photo, (size, size), interpolation=interpolation), np.uint8)


def blank_box(photo: Photo, shares_xyxy: NDArray[np.float32], fill: tuple[int, ...] = BLANK) -> Photo:
    """Fills a box with one colour, in a copy of the photo.

    Args:
        photo: (height, width, 3).
        shares_xyxy: (4,) the box as shares of width and height, 0-1.
        fill: The colour, RGB.
    """
    painted = photo.copy()
    paint_box(painted, shares_xyxy, fill)
    return painted


def paint_box(photo: Photo, shares_xyxy: NDArray[np.float32], fill: tuple[int, ...]) -> None:
    """Fills a box of a photo with one colour in place, see ``blank_box``."""
    height, width = photo.shape[:2]
    left, top, right, bottom = shares_xyxy * np.array([width, height, width, height])
    rows, columns = slice(int(max(0, top)), int(np.ceil(bottom))), slice(int(max(0, left)), int(np.ceil(right)))
    photo[rows, columns] = fill


def black_square(size: int) -> Photo:
    """Makes the face input of a person without a face: black pixels, (size, size, 3)."""
    return np.zeros((size, size, 3), np.uint8)


def normalise_arrays(pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Normalises pixels for a network that runs without torch, as ``augmentation.normalise_pixels`` does with it.

    Args:
        pixels: (b, height, width, 3), RGB, 0-255.

    Returns:
        (b, 3, height, width), (pixels / 255 - ``IMAGENET_MEAN``) / ``IMAGENET_STD``.

    Example:
        >>> [f"{value:.3f}" for value in normalise_arrays(np.full((2, 4, 4, 3), 255, np.uint8))[1, :, 0, 0]]
        ['2.249', '2.429', '2.640']
    """
    mean, std = np.array(IMAGENET_MEAN, np.float32), np.array(IMAGENET_STD, np.float32)
    scaled = (pixels.astype(np.float32) / np.float32(255) - mean) / std
    return np.ascontiguousarray(scaled.transpose(0, 3, 1, 2))
