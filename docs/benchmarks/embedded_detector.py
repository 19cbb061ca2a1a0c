"""Measures a detector where the package's own must hold: held-out drawings, and real photos beside another detector.

    python docs/benchmarks/embedded_detector.py --out DIR [--images 250] [--seed 2001] [--detector NAME]
        [--weights FILE] [--reference PHOTOS/reference.json]

Draws ordinary simulator photos of a seed that no training saw, and prints recall of the visible faces of 24 px and
more, false faces and landmark error at 0.5, and average precision. A detection on a face that is too small or cut by
the border counts nowhere; one on a covered head, or on one seen from behind, is false.
"""

from __future__ import annotations

import argparse
import json
import math
from pathlib import Path

import numpy as np

from emoface.datasets.face_labels import read_whole_photos
from emoface.jobs.simulate import SimulateConfig, run_simulate
from emoface.metrics.detection import LabelledFaces, keep_sizes, measure_detections
from emoface.storage.weights import DEMONSTRATION_DETECTOR, find_weights
from emoface.vision.images import read_photo
from emoface.yolov5face import Detector, load_detector

MIN_SIZE = 24.0
CONF = 0.5


def measure_on_drawings(detector: Detector, out: Path, images: int, seed: int) -> None:
    """Prints one row for held-out simulator photos."""
    run_simulate(SimulateConfig(out=out, images=images, seed=seed))
    photos, _ = read_whole_photos(out)
    found = [detector.detect([photo.read()])[0] for photo in photos]
    truth = [photo.faces for photo in photos]
    sure = [one[one.conf >= CONF] for one in found]
    seen = [keep_sizes(f, t, MIN_SIZE, math.inf) for f, t in zip(sure, truth, strict=True)]
    large = measure_detections([f for f, _ in seen], [t for _, t in seen])
    whole = measure_detections(sure, truth)
    print(f"drawn photos, seed {seed}: {len(photos)}")
    print(f"visible faces of {MIN_SIZE:g} px and more: {large.n_faces}, found at {CONF:g}: {large.recall:.2%}")
    print(f"visible faces of any size: {whole.n_faces}, found at {CONF:g}: {whole.recall:.2%}")
    print(f"false faces: {whole.false_per_photo * len(photos):.0f}, one in {_inverse(whole.false_per_photo)} photos")
    print(f"landmark error: {whole.landmark_error:.3f} of the face's size")
    print(f"average precision at IoU 0.5: {measure_detections(found, truth).average_precision:.4f}")


def measure_on_photos(detector: Detector, reference_path: Path) -> None:
    """Prints agreement with the faces that another detector found in real photos."""
    reference = json.loads(reference_path.read_text(encoding="utf-8"))
    found, truth = [], []
    for name, entry in reference.items():
        if "yolov5n-face" not in entry:
            continue
        rows = entry["yolov5n-face"]
        xyxy = np.array([row["face_bbox"] for row in rows], np.float32).reshape(-1, 4)
        landmarks = np.array([row["landmarks"] for row in rows], np.float32).reshape(-1, 5, 2)
        truth.append(LabelledFaces(xyxy, landmarks, np.zeros(len(xyxy), np.bool_)))
        found.append(detector.detect([read_photo(reference_path.parent / name, apply_exif=True)])[0])
    sure = [one[one.conf >= CONF] for one in found]
    measures = measure_detections(sure, truth)
    n_found = sum(len(one) for one in sure)
    n_true = round(measures.recall * measures.n_faces)
    print(f"real photos: {len(truth)}, faces of yolov5n-face in them: {measures.n_faces}")
    print(f"found at {CONF:g}: {n_true} of {measures.n_faces}; of its {n_found} detections {n_true} are faces")


def _inverse(share: float) -> str:
    return f"{1 / share:.0f}" if share else "none of the"


def main() -> None:
    """Reads the options and prints the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="where held-out photos are drawn")
    parser.add_argument("--images", type=int, default=250)
    parser.add_argument("--seed", type=int, default=2001)
    parser.add_argument("--detector", default=DEMONSTRATION_DETECTOR)
    parser.add_argument("--weights", type=Path)
    parser.add_argument("--reference", type=Path, help="reference.json beside real photos")
    told = parser.parse_args()
    weights = find_weights(told.detector, told.weights)
    detector = load_detector(weights.path, network=weights.network, conf_threshold=0.02)
    measure_on_drawings(detector, told.out, told.images, told.seed)
    if told.reference is not None:
        measure_on_photos(detector, told.reference)


if __name__ == "__main__":
    main()
