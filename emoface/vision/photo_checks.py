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
_PAIRS_AT_ONCE = 1 << 20
_LEAST_CONTRAST = 8.0
_BITS_OF_WORD = np.unpackbits(np.arange(1 << 16, dtype=np.uint16).view(np.uint8)).reshape(-1, 16).sum(1, dtype=np.uint8)


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
    """Finds all pairs of photos whose hashes differ in few bits.

    The 128 bits are dealt out to parts. Of two hashes that differ in at most ``most_bits`` bits, at least one part
    differs in at most one bit, so only hashes with such a part in common are compared; no pair is missed.

    Args:
        hashes: (n, 16) from ``photo_hash``.
        most_bits: Largest number of different bits, 0 to 127.

    Returns:
        (m, 2) positions of the photos of each pair, the smaller first, in ascending order; and (m,) different bits.

    Source: Norouzi et al., "Fast Search in Hamming Space with Multi-Index Hashing", CVPR 2012.

    Example:
        >>> hashes = np.zeros((3, 16), np.uint8)
        >>> hashes[1] = 255
        >>> pairs, bits = find_near_duplicates(hashes)
        >>> pairs.tolist(), bits.tolist()
        ([[0, 2]], [0])
    """
    words = np.ascontiguousarray(hashes).view(np.uint16)
    found = [np.zeros((0, 3), np.int64)]
    for first, second in _find_candidates(hashes, most_bits // 2 + 1):
        different = _BITS_OF_WORD[words[first] ^ words[second]].sum(axis=1, dtype=np.int64)
        is_near = different <= most_bits
        found.append(np.stack([first[is_near], second[is_near], different[is_near]], axis=1))
    rows = np.unique(np.concatenate(found), axis=0)  # a pair may have several parts in common
    return rows[:, :2], rows[:, 2]


def _find_candidates(hashes: NDArray[np.uint8], n_parts: int) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Yields pairs of positions, the smaller first, of hashes of which one of the parts differs in at most one bit.

    Every ``n_parts``-th bit belongs to the same part, because neighbouring bits of a photo are often alike.
    """
    bits = np.unpackbits(hashes, axis=1)
    for part in range(n_parts):
        own = bits[:, part::n_parts]
        keys = own @ (1 << np.arange(own.shape[1], dtype=np.int64))
        order = np.argsort(keys, kind="stable")
        ordered = keys[order]
        for flipped in (0, *(1 << np.arange(own.shape[1]))):
            starts, ends = (np.searchsorted(ordered, ordered ^ flipped, side) for side in ("left", "right"))
            for rows, partners in _expand_ranges(starts, ends):
                first, second = order[rows], order[partners]
                is_pair = first < second  # each pair is found from both sides
                yield first[is_pair], second[is_pair]


def _expand_ranges(
    starts: NDArray[np.int64], ends: NDArray[np.int64]
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Yields each row with every number of its range, not too many at a time unless one range is that long."""
    counts = ends - starts
    blocks = np.cumsum(counts) // _PAIRS_AT_ONCE
    for rows in np.split(np.arange(len(counts)), np.flatnonzero(np.diff(blocks)) + 1):
        own = counts[rows]
        before = np.cumsum(own) - own
        yield np.repeat(rows, own), np.arange(own.sum()) + np.repeat(starts[rows] - before, own)


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
