"""Compares the search for near-duplicate photos with comparing every photo with every other.

    python docs/benchmarks/near_duplicates.py FOLDER_OF_PHOTOS [--photos 23500 235000]

The hashes of the folder's photos are computed once. For each size as many of them are drawn at random, and up to a
third of each one's bits are flipped, so that the bits are as unevenly distributed as those of photos, and some pairs
are near. Prints processor seconds; both must find the same pairs. Above 50,000 photos comparing all is not run.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from emoface.errors import ImageError
from emoface.vision.images import read_small_photo
from emoface.vision.photo_checks import HASH_BITS, MOST_DIFFERENT_BITS, find_near_duplicates, photo_hash

MOST_FOR_ALL = 50_000
ROWS_AT_ONCE = 1024


def read_hashes(folder: Path) -> NDArray[np.uint8]:
    """The hashes of all photos that can be read."""
    hashes = []
    for path in sorted(folder.rglob("*.jpg")):
        try:
            hashes.append(photo_hash(read_small_photo(path, 36)))
        except ImageError as error:
            print(f"left out: {error}")
    return np.stack([one for one in hashes if one is not None])


def compare_all(hashes: NDArray[np.uint8]) -> NDArray[np.int64]:
    """All near pairs by matrix products of 1024 hashes at a time; bits are -1 and 1."""
    signs = np.unpackbits(hashes, axis=1).astype(np.float32) * 2 - 1
    found = []
    for start in range(0, len(signs), ROWS_AT_ONCE):
        different = (HASH_BITS - signs[start : start + ROWS_AT_ONCE] @ signs[start:].T) / 2
        first, second = np.nonzero(different <= MOST_DIFFERENT_BITS)
        is_pair = first < second
        found.append(np.stack([first[is_pair], second[is_pair]], axis=1) + start)
    pairs = np.concatenate(found)
    return pairs[np.lexsort((pairs[:, 1], pairs[:, 0]))]


def timed(work: Any, hashes: NDArray[np.uint8]) -> tuple[Any, float]:
    """The result and the processor seconds of a call."""
    start = time.process_time()
    result = work(hashes)
    return result, time.process_time() - start


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--photos", type=int, nargs="+", default=[23_500, 235_000])
    options = parser.parse_args()
    real, random = read_hashes(options.folder), np.random.default_rng(0)
    print(f"hashes of {len(real)} photos\n\n| photos | pairs | search, s | comparing all, s |\n|---:|---:|---:|---:|")
    for n_photos in options.photos:
        shares = random.random((n_photos, 1)) / 3
        flipped = np.packbits(random.random((n_photos, HASH_BITS)) < shares, axis=1)
        hashes = real[random.integers(0, len(real), n_photos)] ^ flipped
        (pairs, _), seconds = timed(find_near_duplicates, hashes)
        of_all = "-"
        if n_photos <= MOST_FOR_ALL:
            expected, slow = timed(compare_all, hashes)
            assert np.array_equal(pairs, expected)
            of_all = f"{slow:.2f}"
        print(f"| {n_photos:,} | {len(pairs):,} | {seconds:.2f} | {of_all} |", flush=True)


if __name__ == "__main__":
    main()
