"""Measuring a set of predictions, on four people and three labels worked out by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from emoface.metrics.evaluation import (
    INTERVAL_LEVEL,
    NO_DIFFERENCE,
    Bootstrap,
    Evaluation,
    PrecisionDifference,
    measure_at_thresholds,
    measure_difference,
    measure_precision,
    measure_predictions,
)
from emoface.metrics.multilabel import basic_interval, bootstrap_average_precision, mean_over_labels
from emoface.progress import Silent

NAN = float("nan")
LABELS = np.array([[1, 0, 0], [0, 1, 0], [1, 1, 0], [0, 1, 0]], np.uint8)
SCORES = np.array([[0.9, 0.2, 0.1], [0.8, 0.9, 0.2], [0.7, 0.8, 0.3], [0.1, 0.7, 0.4]], np.float32)
"""Label 0: ranks 1 and 3 of its two people, AP (1 + 2/3) / 2; label 1: AP 1; nobody has label 2."""


def _measure(**changes: Any) -> Evaluation:
    told: dict[str, Any] = {
        "labels": LABELS,
        "probabilities": SCORES,
        "thresholds": {"chosen": np.array([0.75, 0.75, NAN])},
        "stream_probabilities": {"face": np.where([[True], [False], [True], [True]], SCORES, np.nan)},
        "vad": np.array([[5, NAN], [5, 1], [5, 1], [5, 1]], np.float32),
        "predicted_vad": np.array([[6, 1], [4, 1], [8, 1], [5, 3]], np.float32),
        "groups": {"face": {"with": np.array([True, False, True, True]), "none": np.zeros(4, bool)}},
        "photo": np.array([5, 5, 7, 8]),
        "bootstrap": Bootstrap(20, 3),
    }
    told |= changes
    return measure_predictions(told.pop("labels"), told.pop("probabilities"), told.pop("thresholds"), **told)


def test_overall_metrics_by_hand() -> None:
    overall = _measure().overall
    assert overall.average_precision == pytest.approx([5 / 6, 1, NAN], nan_ok=True)
    assert overall.prevalence.tolist() == [0.5, 0.75, 0] and overall.n_people == 4
    assert overall.mean_average_precision == pytest.approx(11 / 12) and overall.labels_defined == 2
    assert overall.mean_prevalence == 0.625 and overall.n_with_label.tolist() == [2, 3, 0]
    assert overall.lift == pytest.approx([5 / 6 - 1 / 2, 1 / 4, NAN], nan_ok=True)
    assert overall.mean_lift == pytest.approx(11 / 12 - 0.625)
    assert _measure().interpolated == pytest.approx([(6 + 5 * 2 / 3) / 11, 1, NAN], nan_ok=True)
    assert _measure().roc_auc == pytest.approx([3 / 4, 1, NAN], nan_ok=True)
    resampled = bootstrap_average_precision(LABELS, SCORES, 20, 3, [0, 0, 1, 2])
    expected = basic_interval(overall.average_precision, resampled, INTERVAL_LEVEL)
    np.testing.assert_array_equal(overall.interval, expected.clip(0, 1))
    expected = basic_interval(11 / 12, mean_over_labels(resampled), INTERVAL_LEVEL)
    np.testing.assert_allclose(overall.mean_interval, expected.clip(0, 1))


def test_thresholds_by_hand() -> None:
    # Label 0 is predicted for people 0 and 1, label 1 for 1 and 2, label 2 for nobody.
    found = _measure().at_thresholds["chosen"]
    assert found.n_with_label.tolist() == [2, 3, 0] and found.n_predicted.tolist() == [2, 2, 0]
    assert found.precision == pytest.approx([0.5, 1, NAN], nan_ok=True)
    assert found.recall == pytest.approx([0.5, 2 / 3, NAN], nan_ok=True)
    assert found.f1 == pytest.approx([0.5, 0.8, NAN], nan_ok=True) and found.mean_f1 == pytest.approx(0.65)
    assert found.jaccard.tolist() == [1, 0.5, 0.5, 0] and found.mean_jaccard == 0.5
    # True and predicted are 3 of 5 true and 4 predicted pairs; 1 is predicted wrongly and 2 are missed, of 12.
    assert found.micro_f1 == pytest.approx(2 * 3 / 9) and found.hamming_loss == pytest.approx(3 / 12)


def test_groups_and_streams_see_only_their_people() -> None:
    evaluation = _measure()
    kept = [0, 2, 3]
    with_face, none = (evaluation.groups["face"][name] for name in ("with", "none"))
    expected = measure_precision(LABELS[kept], SCORES[kept], np.array([0, 1, 2]), Bootstrap(20, 3))
    assert with_face.average_precision.tolist()[:2] == expected.average_precision.tolist()[:2] == [1, 1]
    np.testing.assert_array_equal(with_face.interval, expected.interval)
    assert none.n_people == 0 and none.labels_defined == 0 and np.isnan(none.mean_average_precision)
    stream = evaluation.streams["face"]
    assert stream.n_people == 3 and stream.average_precision.tolist()[:2] == [1, 1]
    assert np.isnan(stream.interval).all() and np.isnan(stream.mean_interval).all()


def test_ratings_count_where_the_truth_is_known() -> None:
    vad = _measure().vad
    assert vad is not None and vad.errors == pytest.approx([1.25, 2 / 3]) and vad.n_people.tolist() == [4, 3]
    assert vad.mean == pytest.approx((1.25 + 2 / 3) / 2)
    assert _measure(predicted_vad=np.full((4, 2), np.nan, np.float32)).vad is None


def test_nobody_is_measured_without_complaint() -> None:
    nobody = np.zeros(0, bool)
    evaluation = _measure(
        labels=LABELS[:0],
        probabilities=SCORES[:0],
        stream_probabilities={"face": SCORES[:0]},
        vad=np.zeros((0, 3), np.float32),
        predicted_vad=np.zeros((0, 3), np.float32),
        groups={"face": {"with": nobody}},
        photo=np.zeros(0, np.int64),
    )
    assert evaluation.overall.n_people == 0 and np.isnan(evaluation.overall.prevalence).all()
    assert np.isnan(evaluation.overall.mean_prevalence) and evaluation.vad is None
    assert evaluation.at_thresholds["chosen"].n_predicted.tolist() == [0, 0, 0]
    assert len(measure_at_thresholds(LABELS[:0], SCORES[:0], np.full(3, NAN)).jaccard) == 0


def test_progress_is_told_twice() -> None:
    class Counter(Silent):
        n = 0

        def advance(self, n: int = 1) -> None:
            self.n += n

    progress = Counter()
    _measure(progress=progress)
    assert progress.n == 2


def test_difference_is_paired() -> None:
    same = measure_difference(LABELS, SCORES, SCORES, np.arange(4), Bootstrap(30))
    assert (same.value, same.interval.tolist(), same.share_above_zero) == (0, [0, 0], 0)
    assert same.verdict == NO_DIFFERENCE
    better = measure_difference(LABELS, SCORES, LABELS.astype(np.float32), np.arange(4), Bootstrap(200))
    assert better.value == pytest.approx(1 - 11 / 12) and 0 < better.share_above_zero < 1
    assert better.interval[0] < better.value < better.interval[1] == pytest.approx(2 * better.value)
    nobody = measure_difference(LABELS[:0], SCORES[:0], SCORES[:0], np.arange(0), Bootstrap(5))
    assert nobody.verdict == NO_DIFFERENCE
    assert np.isnan(nobody.value) and np.isnan(nobody.share_above_zero) and np.isnan(nobody.interval).all()


@pytest.mark.parametrize(
    ("interval", "verdict"),
    [
        ((0.01, 0.05), "second is better"),
        ((-0.05, -0.01), "first is better"),
        ((-0.01, 0.05), NO_DIFFERENCE),
        ((0.0, 0.05), NO_DIFFERENCE),
        ((NAN, NAN), NO_DIFFERENCE),
    ],
)
def test_a_difference_is_shown_only_where_the_interval_leaves_out_0(
    interval: tuple[float, float], verdict: str
) -> None:
    assert PrecisionDifference(0.03, np.array(interval), 1.0).verdict == verdict
