"""Evaluates the package's own detector, or another one, on held-out simulated photos and on real photos.

    python docs/benchmarks/embedded_detector.py --out DIR [--images 250] [--seed 2001] [--detector NAME]
        [--weights FILE] [--reference PHOTOS/reference.json]

Simulates ordinary photos of a seed that was not used in training, and prints average precision, and at a score
threshold of 0.5 the recall of the visible faces of 24 px and more, the number of false faces and the landmark error. A
detection on a face that is too small or cut off by the border is not counted; a detection on a covered head, or on a
head seen from behind, is false. On real photos it prints the agreement with the detections of yolov5n-face.
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


def evaluate_on_simulated_photos(detector: Detector, out: Path, images: int, seed: int) -> None:
    """Simulates photos of a seed, detects their faces and prints the metrics."""
    run_simulate(SimulateConfig(out=out, images=images, seed=seed))
    photos, _ = read_whole_photos(out)
    found = [detector.detect([photo.read()])[0] for photo in photos]
    truth = [photo.faces for photo in photos]
    confident = [one[one.conf >= CONF] for one in found]
    large_pairs = [keep_sizes(f, t, MIN_SIZE, math.inf) for f, t in zip(confident, truth, strict=True)]
    large = measure_detections([f for f, _ in large_pairs], [t for _, t in large_pairs])
    whole = measure_detections(confident, truth)
    print(f"simulated photos, seed {seed}: {len(photos)}")
    print(f"visible faces of {MIN_SIZE:g} px and more: {large.n_faces}, found at {CONF:g}: {large.recall:.2%}")
    print(f"visible faces of any size: {whole.n_faces}, found at {CONF:g}: {whole.recall:.2%}")
    print(f"false faces: {whole.false_per_photo * len(photos):.0f}, one in {_inverse(whole.false_per_photo)} photos")
    print(f"landmark error: {whole.landmark_error:.3f} of the face's size")
    print(f"average precision at IoU 0.5: {measure_detections(found, truth).average_precision:.4f}")


def evaluate_on_real_photos(detector: Detector, reference_path: Path) -> None:
    """Prints the agreement with the faces that yolov5n-face found in real photos."""
    reference = json.loads(reference_path.read_text(encoding="utf-8"))
    found, truth = [], []
    for name, entry in reference.items():
        if "yolov5n-face" not in entry:
            continue
        rows = entry["yolov5n-face"]
        xyxy = np.array([row["face_bbox"] for row in rows], np.float32).reshape(-1, 4)
        landmarks = np.array([row["landmarks"] for row in rows], np.float32).reshape(-1, 5, 2)
        truth.append(LabelledFaces(xyxy, landmarks, np.zeros(len(xyxy), np.bool_)))
        found.append(detector.detect([read_photo(reference_path.parent / name)])[0])
    confident = [one[one.conf >= CONF] for one in found]
    metrics = measure_detections(confident, truth)
    n_found = sum(len(one) for one in confident)
    n_true = round(metrics.recall * metrics.n_faces)
    print(f"real photos: {len(truth)}, faces that yolov5n-face found in them: {metrics.n_faces}")
    print(f"found at {CONF:g}: {n_true} of {metrics.n_faces}; {n_true} of the {n_found} detections are faces")


def _inverse(share: float) -> str:
    return f"{1 / share:.0f}" if share else "none of the"


def main() -> None:
    """Reads the options, evaluates the detector and prints the metrics."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder for the simulated photos")
    parser.add_argument("--images", type=int, default=250)
    parser.add_argument("--seed", type=int, default=2001)
    parser.add_argument("--detector", default=DEMONSTRATION_DETECTOR)
    parser.add_argument("--weights", type=Path)
    parser.add_argument("--reference", type=Path, help="reference.json beside the real photos")
    options = parser.parse_args()
    weights = find_weights(options.detector, options.weights)
    detector = load_detector(weights.path, network=weights.network, conf_threshold=0.02)
    evaluate_on_simulated_photos(detector, options.out, options.images, options.seed)
    if options.reference is not None:
        evaluate_on_real_photos(detector, options.reference)


if __name__ == "__main__":
    main()
