"""Checks of photos and faces for an audit: near-duplicate photos by a hash of what they show, sharpness, brightness."""

from __future__ import annotations

from collections.abc import Iterator

import cv2
import numpy as np
from numpy.typing import NDArray

from emoface.vision.crops import Photo

HASH_BITS = 128
"""Bits of ``photo_hash``: 8 rows of 8 comparisons to the right, and 8 rows of 8 comparisons downwards."""

MOST_DIFFERENT_BITS = 12
"""Photos whose hashes differ in at most this many bits count as near-duplicates."""

_SIDE = 9
_FACE_SIDE = 64
_ROWS_AT_ONCE = 1024
_LEAST_CONTRAST = 8.0


def photo_hash(photo: Photo) -> NDArray[np.uint8] | None:
    """Computes the difference hash of a photo, which hardly changes when the photo is scaled or compressed again.

    The photo is scaled to 9 x 9 grey pixels; a bit tells whether a pixel is darker than the one to its right, or the
    one below it. Comparisons in one direction alone (64 bits) take too many different photos for the same.

    Args:
        photo: (height, width, 3), RGB.

    Returns:
        (16,) bytes; None for a photo of nearly one colour, whose hash would be noise.

    Source: Krawetz, "Kind of Like That", 2013 (hackerfactor.com); rows and columns as in the package imagehash.
    """
    grey = cv2.cvtColor(photo, cv2.COLOR_RGB2GRAY)
    small = cv2.resize(grey, (_SIDE, _SIDE), interpolation=cv2.INTER_AREA).astype(np.int16)
    if small.std() < _LEAST_CONTRAST:
        return None
    rightwards = small[:-1, :-1] < small[:-1, 1:]
    downwards = small[:-1, :-1] < small[1:, :-1]
    return np.packbits(np.concatenate([rightwards.ravel(), downwards.ravel()]))


def find_near_duplicates(
    hashes: NDArray[np.uint8], most_bits: int = MOST_DIFFERENT_BITS
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Finds all pairs of photos whose hashes differ in few bits; every photo is compared with every other.

    23,500 photos take about 5 seconds on one core, and the time grows with the square of the number.

    Args:
        hashes: (n, 16) from ``photo_hash``.
        most_bits: Largest number of different bits.

    Returns:
        (m, 2) positions of the photos of each pair, the smaller first, in ascending order; and (m,) different bits.

    Example:
        >>> hashes = np.zeros((3, 16), np.uint8)
        >>> hashes[1] = 255
        >>> pairs, bits = find_near_duplicates(hashes)
        >>> pairs.tolist(), bits.tolist()
        ([[0, 2]], [0])
    """
    found = list(_compare_blocks(hashes, most_bits))
    pairs = np.concatenate([pairs for pairs, _ in found]) if found else np.zeros((0, 2), np.int64)
    bits = np.concatenate([bits for _, bits in found]) if found else np.zeros(0, np.int64)
    order = np.lexsort((pairs[:, 1], pairs[:, 0]))
    return pairs[order], bits[order]


def _compare_blocks(hashes: NDArray[np.uint8], most_bits: int) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """With bits as -1 and 1, the product of two hashes is the number of their bits less twice the different ones."""
    signs = np.unpackbits(hashes, axis=1).astype(np.float32) * 2 - 1
    for start in range(0, len(signs), _ROWS_AT_ONCE):
        different = (HASH_BITS - signs[start : start + _ROWS_AT_ONCE] @ signs[start:].T) / 2
        first, second = np.nonzero(different <= most_bits)
        is_pair = first < second
        bits = different[first[is_pair], second[is_pair]].round().astype(np.int64)
        yield np.stack([first[is_pair], second[is_pair]], axis=1).astype(np.int64) + start, bits


def sharpness(face: Photo) -> float:
    """Computes the variance of the Laplacian of a face's grey pixels: low for blurred faces.

    Larger faces are scaled down to 64 pixels first, because the measure depends on the scale; smaller ones stay.

    Source: Pech-Pacheco et al., "Diatom autofocusing in brightfield microscopy: a comparative study", ICPR 2000.
    """
    return float(cv2.Laplacian(_to_small_grey(face), cv2.CV_64F).var())


def brightness(face: Photo) -> float:
    """Computes the mean of a face's grey pixels, from 0 (black) to 255 (white)."""
    return float(_to_small_grey(face).mean())


def _to_small_grey(face: Photo) -> NDArray[np.uint8]:
    grey = cv2.cvtColor(face, cv2.COLOR_RGB2GRAY)
    scale = _FACE_SIDE / max(grey.shape)
    if scale >= 1:
        return np.asarray(grey, np.uint8)
    size = (max(1, round(grey.shape[1] * scale)), max(1, round(grey.shape[0] * scale)))
    return np.asarray(cv2.resize(grey, size, interpolation=cv2.INTER_AREA), np.uint8)
