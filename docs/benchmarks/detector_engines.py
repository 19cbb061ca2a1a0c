"""Measures the speed of the detector's engines on photos; the engines take turns on each photo, under the same load.

    python docs/benchmarks/detector_engines.py WEIGHTS PHOTOS [--hub-repo CLONE] [--rounds N] [--threads N]

WEIGHTS is a weight file, PHOTOS a folder of JPEG files. With ``--hub-repo``, the folder of a clone of
deepcam-cn/yolov5-face, the reference network is measured too. Prints a Markdown table of each engine's photos per
second (from the decoded photo to the faces), its speed relative to torch, and the number of faces that it found. The
time of a photo is the shortest of all repetitions.
"""

from __future__ import annotations

import argparse
import math
import time
from pathlib import Path

import torch

from emoface.vision.images import read_photo
from emoface.yolov5face import load_detector


def main() -> None:
    """Reads the options, measures each engine and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("weights", type=Path)
    parser.add_argument("photos", type=Path)
    parser.add_argument("--hub-repo", help="folder of a clone of the reference repository")
    parser.add_argument("--rounds", type=int, default=10, help="number of repetitions")
    parser.add_argument("--threads", type=int, default=1, help="number of threads of each engine")
    parser.add_argument("--image-size", type=int, default=640)
    options = parser.parse_args()

    torch.set_num_threads(options.threads)
    backends = ["torch", "onnx", *(["hub"] if options.hub_repo else [])]
    detectors = {
        backend: load_detector(
            options.weights,
            backend=backend,
            device="cpu",
            image_size=options.image_size,
            n_threads=options.threads,
            hub_repo=options.hub_repo,
        )
        for backend in backends
    }
    photos = [read_photo(path) for path in sorted(options.photos.glob("*.jpg"))]
    if not photos:
        parser.error(f"{options.photos}: no .jpg files")

    n_faces = dict.fromkeys(backends, 0)
    for backend, detector in detectors.items():  # also warms up each engine for every photo size
        n_faces[backend] = sum(len(faces) for faces in detector.detect(photos))
    best = {backend: [math.inf] * len(photos) for backend in backends}
    for _ in range(options.rounds):
        for number, photo in enumerate(photos):
            for backend, detector in detectors.items():
                start = time.perf_counter()
                detector.detect([photo])
                best[backend][number] = min(best[backend][number], time.perf_counter() - start)

    per_photo = {backend: sum(taken) / len(photos) for backend, taken in best.items()}
    print(f"{detectors['torch'].name}, {len(photos)} photos, {options.rounds} repetitions, {options.threads} threads\n")
    print("| engine | photos per second | speed relative to torch | faces |\n|---|---:|---:|---:|")
    for backend in backends:
        ratio = per_photo["torch"] / per_photo[backend]
        print(f"| {backend} | {1 / per_photo[backend]:.1f} | {ratio:.2f} | {n_faces[backend]} |")


if __name__ == "__main__":
    main()
