"""Detector measures: hand-worked photos and a slow implementation that walks every threshold."""

from __future__ import annotations

import math

import numpy as np
import pytest

from emoface.metrics.detection import (
    FALSE,
    IGNORED,
    TRUE,
    LabelledFaces,
    average_precision,
    keep_sizes,
    match_detections,
    measure_detections,
)
from emoface.vision.detections import Detections


def _truth(*boxes: tuple[float, float, float, float], ignored: tuple[int, ...] = ()) -> LabelledFaces:
    xyxy = np.array(boxes, np.float32).reshape(-1, 4)
    landmarks = np.full((len(xyxy), 5, 2), np.nan, np.float32)
    return LabelledFaces(xyxy, landmarks, np.isin(np.arange(len(xyxy)), ignored))


def _found(*rows: tuple[float, float, float, float, float]) -> Detections:
    table = np.array(rows, np.float32).reshape(-1, 5)
    return Detections(table[:, :4], np.zeros((len(table), 5, 2), np.float32), table[:, 4])


def test_first_detection_of_a_face_is_true_and_the_second_false() -> None:
    match = match_detections(_found((0, 0, 10, 10, 0.6), (0, 0, 10, 9, 0.9)), _truth((0, 0, 10, 10)))
    assert match.conf.tolist() == pytest.approx([0.9, 0.6])
    assert match.outcome.tolist() == [TRUE, FALSE]
    assert match.detection_index.tolist() == [1, 0]


def test_ignored_face_takes_its_detection_out_of_the_count() -> None:
    truth = _truth((0, 0, 10, 10), (50, 0, 60, 20), ignored=(1,))
    match = match_detections(_found((50, 0, 60, 20, 0.9), (0, 0, 10, 10, 0.5)), truth)
    assert match.outcome.tolist() == [IGNORED, TRUE]
    measures = measure_detections([_found((50, 0, 60, 20, 0.9), (0, 0, 10, 10, 0.5))], [truth])
    assert measures.average_precision == 1.0 and measures.n_faces == 1 and measures.false_per_photo == 0


def test_no_photos_no_faces_and_no_detections() -> None:
    assert math.isnan(measure_detections([], []).average_precision)
    assert math.isnan(measure_detections([_found((0, 0, 5, 5, 0.9))], [_truth()]).recall)
    nothing = measure_detections([_found()], [_truth((0, 0, 5, 5))])
    assert nothing.average_precision == 0 and nothing.recall == 0 and nothing.false_per_photo == 0


def test_landmark_error_is_in_shares_of_the_face_size() -> None:
    truth = _truth((0, 0, 40, 10), (100, 0, 120, 20))
    truth.landmarks[0] = 5.0
    found = _found((0, 0, 40, 10, 0.9), (100, 0, 120, 20, 0.8))
    found.landmarks[0] = [8.0, 9.0]  # 3, 4 away: 5 px; the face's size is sqrt(400) = 20
    assert measure_detections([found], [truth]).landmark_error == pytest.approx(0.25)


def test_size_range_ignores_other_faces_and_stray_detections_of_other_sizes() -> None:
    truth = _truth((0, 0, 10, 10), (50, 50, 150, 150))
    found = _found((0, 0, 10, 10, 0.9), (50, 50, 150, 150, 0.8), (200, 0, 300, 100, 0.7), (300, 0, 310, 10, 0.6))
    small = measure_detections(*([side] for side in keep_sizes(found, truth, 0, 32)))
    assert small.n_faces == 1 and small.recall == 1 and small.false_per_photo == 1
    large = measure_detections(*([side] for side in keep_sizes(found, truth, 32, math.inf)))
    assert large.n_faces == 1 and large.recall == 1 and large.false_per_photo == 1


def _slow_average_precision(conf: np.ndarray, is_true: np.ndarray, n_faces: int) -> float:
    """For each step of recall, the best precision at any threshold that reaches it."""
    points = []
    for threshold in sorted(set(conf.tolist()), reverse=True):
        kept = conf >= threshold
        points.append((is_true[kept].sum() / n_faces, is_true[kept].sum() / kept.sum()))
    total, last = 0.0, 0.0
    for recall in sorted({recall for recall, _ in points}):
        total += (recall - last) * max(precision for other, precision in points if other >= recall)
        last = recall
    return total


@pytest.mark.parametrize("seed", range(20))
def test_average_precision_agrees_with_a_slow_walk_over_thresholds(seed: int) -> None:
    generator = np.random.default_rng(seed)
    n = int(generator.integers(1, 40))
    conf = generator.integers(0, 12, n).astype(np.float32) / 12  # with ties
    is_true = generator.random(n) < 0.5
    n_faces = int(is_true.sum() + generator.integers(1, 5))
    assert average_precision(conf, is_true, n_faces) == pytest.approx(_slow_average_precision(conf, is_true, n_faces))
    order = generator.permutation(n)
    assert average_precision(conf[order], is_true[order], n_faces) == average_precision(conf, is_true, n_faces)
