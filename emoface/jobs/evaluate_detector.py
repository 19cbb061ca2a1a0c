"""The evaluate_detector job: evaluates a face detector on labelled photos."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from emoface.datasets.face_labels import LabelledPhoto, label_file, read_whole_photos
from emoface.datasets.wider_truth import read_wider_truth
from emoface.inference.faces import DetectorSettings, find_detector_weights, load_face_detector
from emoface.metrics.detection import keep_sizes, measure_detections
from emoface.metrics.wider_face import SETTINGS, WiderTruth, wider_average_precision
from emoface.progress import SILENT, Progress
from emoface.storage.files import file_sha256, write_text
from emoface.storage.locks import locked
from emoface.storage.records import JobRecord, finish_job
from emoface.storage.settings import Count, Folder, Settings, Share
from emoface.vision.detections import Detections

FACE_SIZES: dict[str, tuple[float, float]] = {
    "under_16": (0, 16),
    "16_to_32": (16, 32),
    "32_to_96": (32, 96),
    "over_96": (96, math.inf),
}
"""Ranges of face sizes in pixels; the size of a face is the square root of its box's area."""

_CURVE_CONF = 0.02
_WIDER_CONF = 0.002


class _LabelledPhotos(Settings):
    """The settings that precede those of the detector in the help text."""

    photos: Path
    """Labelled photos: a folder written by 'emoface simulate', or a label file of WIDER FACE or RetinaFace."""
    out: Folder
    """Folder for ``detector.json``."""


class EvaluateDetectorConfig(DetectorSettings, _LabelledPhotos):
    """Settings of the evaluate_detector job."""

    conf_threshold: Share = 0.5
    """Minimum score of the faces from which recall, false faces and landmark error are computed; average precision uses
    the faces of all scores."""
    images: Folder | None = None
    """Folder of the photos; by default images/ beside the label file, or emotic/ of a simulation."""
    max_photos: Count | None = None
    """Evaluate only this many photos, the first ones."""
    wider_truth: Folder | None = None
    """Folder with WIDER FACE's ground truth ``wider_face_val.mat``, ``wider_easy_val.mat`` and so on; adds the easy,
    medium and hard average precision of its protocol."""


@locked("out")
def run_evaluate_detector(config: EvaluateDetectorConfig, progress: Progress = SILENT) -> JobRecord:
    """Evaluates a detector on labelled photos.

    Args:
        config: Settings of the job.
        progress: Receives one step per photo.

    Returns:
        The job's record. ``OUT/detector.json`` contains average precision over all faces and by face size, and recall,
        false faces and landmark error at ``conf_threshold``.

    Raises:
        AnnotationsError: There are no labelled photos, or WIDER FACE's ground truth cannot be read.
        WeightsError: The detector's weights are not found or are damaged.
    """
    photos, n_left_out = read_whole_photos(config.photos, config.images, progress)
    photos = photos[: config.max_photos]
    weights = find_detector_weights(config)
    inputs = {str(weights.path): weights.sha256, str(label_file(config.photos)): file_sha256(label_file(config.photos))}
    protocol = None if config.wider_truth is None else read_wider_truth(config.wider_truth)
    lowest_conf = _WIDER_CONF if protocol else min(_CURVE_CONF, config.conf_threshold)
    detector = load_face_detector(config.replace(conf_threshold=lowest_conf), weights)
    progress.start("evaluate detector", len(photos))
    found = []
    for photo in photos:
        found += detector.detect([photo.read()])
        progress.advance()
    metrics: dict[str, Any] = {"photos": len(photos), "photos_left_out": n_left_out}
    metrics |= _compute_metrics(found, photos, config.conf_threshold)
    if protocol is not None:
        metrics["wider"] = _compute_wider_metrics(found, photos, protocol)
    path = config.out / "detector.json"
    write_text(path, json.dumps(metrics, indent=2) + "\n")
    return finish_job(
        "evaluate_detector",
        config,
        config.out,
        module=__name__,
        inputs=inputs,
        outputs=[path],
        counts=metrics,
        info={"detector": weights.name, "weights_sha256": weights.sha256, "backend": detector.backend},
    )


def _compute_metrics(
    found: Sequence[Detections], photos: Sequence[LabelledPhoto], conf_threshold: float
) -> dict[str, Any]:
    """Computes average precision, and recall, false faces and landmark error at the threshold; also by face size."""
    truth = [photo.faces for photo in photos]
    confident = [one[one.conf >= conf_threshold] for one in found]
    at_threshold = measure_detections(confident, truth)
    by_size = {}
    for name, (low, high) in FACE_SIZES.items():
        all_of_size = [keep_sizes(f, t, low, high) for f, t in zip(found, truth, strict=True)]
        confident_of_size = [keep_sizes(f, t, low, high) for f, t in zip(confident, truth, strict=True)]
        curve = measure_detections([f for f, _ in all_of_size], [t for _, t in all_of_size])
        point = measure_detections([f for f, _ in confident_of_size], [t for _, t in confident_of_size])
        by_size[name] = {
            "average_precision": _none_for_nan(curve.average_precision),
            "recall": _none_for_nan(point.recall),
            "faces": point.n_faces,
        }
    return {
        "faces": at_threshold.n_faces,
        "average_precision": _none_for_nan(measure_detections(found, truth).average_precision),
        "conf_threshold": conf_threshold,
        "recall": _none_for_nan(at_threshold.recall),
        "false_faces_per_photo": _none_for_nan(at_threshold.false_per_photo),
        "landmark_error": _none_for_nan(at_threshold.landmark_error),
        "by_size": by_size,
    }


def _compute_wider_metrics(
    found: Sequence[Detections], photos: Sequence[LabelledPhoto], truth: WiderTruth
) -> dict[str, float | None]:
    """Computes average precision by WIDER FACE's protocol; photos not evaluated count as without faces."""
    by_image = {f"{one.path.parent.name}/{one.path.stem}": f for one, f in zip(photos, found, strict=True)}
    found_per_image = [by_image.get(image, Detections.empty()) for image in truth.images]
    return {name: _none_for_nan(wider_average_precision(found_per_image, truth, name)) for name in SETTINGS}


def _none_for_nan(value: float) -> float | None:
    """Replaces nan, an undefined metric, by None, because JSON has no nan."""
    return None if math.isnan(value) else value
