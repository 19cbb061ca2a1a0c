"""Compares plain arrays with JPEG for the stream cache, and times how fast training samples are read.

    python docs/benchmarks/stream_cache.py DIR/manifest.json

Packs the train split into a temporary folder and prints a Markdown table: bytes of each kind of crop as stored and as
JPEG of quality 95, time to decode and error of the JPEG. Then prints the people per second that training and evaluation
read on one thread.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np

from emoface.datasets.manifest import read_manifest
from emoface.datasets.stream_cache import CACHE_SIZES, StreamCache, open_stream_cache
from emoface.mter.dataset import PeopleDataset, load_training_batch
from emoface.mter.sampling import SampleKey
from emoface.vision.images import decode_photo, encode_jpeg

N_PEOPLE = 300


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("manifest", type=Path)
    options = parser.parse_args()
    cv2.setNumThreads(1)
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        cache = open_stream_cache(read_manifest(options.manifest), "train", Path(folder))
        packing = time.perf_counter() - start
        print(f"{len(cache)} people of {len(set(cache.people.images))} photos packed in {packing:.1f} s\n")
        print("| stream | bytes stored | JPEG | decode, ms | mean error, of 255 |")
        print("|---|---|---|---|---|")
        for stream in CACHE_SIZES:
            print(_compare_formats(cache, stream))
        dataset = PeopleDataset(cache)
        n = min(N_PEOPLE, len(cache))
        print(f"\nevaluation reads {_rate(lambda k: dataset[k], n):,.0f} people per second on one thread,")
        print(
            f"training {_rate(lambda k: load_training_batch(dataset, [SampleKey(0, k, k)]), n):,.0f}, not augmented yet"
        )


def _compare_formats(cache: StreamCache, stream: str) -> str:
    kept = [cache.read(position, stream) for position in range(min(N_PEOPLE, len(cache)))]
    crops = [np.array(one) for one in kept if one is not None]
    encoded = [encode_jpeg(one) for one in crops]
    start = time.perf_counter()
    decoded = [decode_photo(data, stream) for data in encoded]
    milliseconds = 1000 * (time.perf_counter() - start) / len(crops)
    error = np.mean([np.abs(one.astype(int) - other).mean() for one, other in zip(crops, decoded, strict=True)])
    n_bytes = np.mean([len(data) for data in encoded])
    return f"| {stream} | {crops[0].nbytes:,} | {n_bytes:,.0f} | {milliseconds:.2f} | {error:.1f} |"


def _rate(read: Callable[[int], object], n: int) -> float:
    start = time.perf_counter()
    for position in range(n):
        read(position)
    return n / (time.perf_counter() - start)


if __name__ == "__main__":
    main()
