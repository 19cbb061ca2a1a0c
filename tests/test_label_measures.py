"""Measures of labels: by hand, against scikit-learn, and on resampled people."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, f1_score, jaccard_score, roc_auc_score
from sklearn.metrics import hamming_loss as sklearn_hamming_loss

from emoface.metrics.multilabel import (
    average_precision,
    basic_interval,
    bootstrap_average_precision,
    break_even_thresholds,
    f1_scores,
    fit_thresholds,
    hamming_loss,
    interpolated_average_precision,
    jaccard_indices,
    mean_average_precision,
    mean_over_labels,
    micro_f1_score,
    precision_recall_curve,
    predict_labels,
    roc_auc_scores,
)
from emoface.metrics.vad import (
    average_absolute_error,
    concordance_correlation,
    measure_vad,
    root_mean_squared_error,
)

LABELS = np.array([[1, 0, 0], [0, 1, 0], [1, 1, 0], [0, 1, 0]])
SCORES = np.array([[0.9, 0.1, 0.3], [0.8, 0.7, 0.2], [0.7, 0.7, 0.9], [0.1, 0.7, 0.4]])


def _random_people(seed: int, n: int, k: int, digits: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    labels = (rng.random((n, k)) < rng.uniform(0.02, 0.6, k)).astype(np.uint8)
    return labels, (rng.normal(size=(n, k)) + labels).round(digits)


def test_average_precision_by_hand() -> None:
    # Label 0: ranks 1 and 3 are true: (1/1 + 2/3) / 2. Label 1: three tied at the top, all true: 1. Label 2: nobody.
    precision = average_precision(LABELS, SCORES)
    assert precision[:2] == pytest.approx([(1 + 2 / 3) / 2, 1.0]) and np.isnan(precision[2])
    assert mean_average_precision(precision) == pytest.approx((5 / 6 + 1) / 2)


def test_ties_come_in_together() -> None:
    # One true person among four equal scores: precision is 1/4 wherever they stand.
    for place in range(4):
        assert average_precision(np.eye(4, dtype=int)[:, [place]], np.ones((4, 1)))[0] == 0.25


@pytest.mark.parametrize("digits", [0, 1, 9])
def test_average_precision_is_that_of_scikit_learn(digits: int) -> None:
    labels, scores = _random_people(1, 300, 8, digits)
    expected = [average_precision_score(labels[:, k], scores[:, k]) for k in range(8)]
    assert average_precision(labels, scores) == pytest.approx(expected, abs=1e-12)


def test_order_of_people_does_not_matter() -> None:
    labels, scores = _random_people(2, 100, 4, 1)
    order = np.random.default_rng(0).permutation(100)
    assert average_precision(labels[order], scores[order]) == pytest.approx(
        average_precision(labels, scores), abs=1e-12
    )


def test_nobody_at_all_is_undefined() -> None:
    empty = np.zeros((0, 3))
    assert np.isnan(average_precision(empty, empty)).all()
    assert np.isnan(mean_average_precision(average_precision(empty, empty)))
    resampled = bootstrap_average_precision(empty, empty, n_resamples=5)
    assert np.isnan(basic_interval(average_precision(empty, empty), resampled)).all()
    assert np.isnan(fit_thresholds(empty, empty)).all()
    assert jaccard_indices(empty, empty.astype(bool)).shape == (0,)


def test_shapes_and_nan_are_refused() -> None:
    with pytest.raises(ValueError, match=r"labels have shape \(2, 3\), scores \(2, 2\)"):
        average_precision(np.zeros((2, 3)), np.zeros((2, 2)))
    with pytest.raises(ValueError, match="1 rows of scores hold nan"):
        average_precision(np.zeros((2, 1)), np.array([[np.nan], [0.0]]))


def test_bootstrap_is_average_precision_of_the_people_drawn() -> None:
    labels, scores = _random_people(3, 60, 5, 1)
    drawn = bootstrap_average_precision(labels, scores, n_resamples=70, seed=4)
    rng = np.random.default_rng(4)
    for row in drawn:
        people = rng.integers(0, 60, 60)
        for k in range(5):
            truth = labels[people, k]
            if truth.any():
                assert row[k] == pytest.approx(average_precision_score(truth, scores[people, k]), abs=1e-12)
            else:
                assert np.isnan(row[k])


def test_bootstrap_follows_its_seed_and_pairs_models() -> None:
    labels, scores = _random_people(5, 80, 4, 2)
    first = bootstrap_average_precision(labels, scores, n_resamples=20, seed=1)
    assert np.array_equal(first, bootstrap_average_precision(labels, scores, n_resamples=20, seed=1), equal_nan=True)
    assert not np.array_equal(
        first, bootstrap_average_precision(labels, scores, n_resamples=20, seed=2), equal_nan=True
    )
    # Any increasing change of the scores is the same model: each draw differs by 0, not only their means.
    assert np.nanmax(np.abs(first - bootstrap_average_precision(labels, 3 * scores + 1, n_resamples=20, seed=1))) == 0


def test_bootstrap_samples_photos_with_all_their_people() -> None:
    labels, scores = _random_people(3, 12, 2, 1)
    photo = np.array([0, 0, 0, 1, 2, 2, 3, 3, 3, 3, 4, 5])
    resampled = bootstrap_average_precision(labels, scores, n_resamples=30, seed=4, photo=photo)
    rng = np.random.default_rng(4)
    for row in resampled:
        people = np.concatenate([np.flatnonzero(photo == one) for one in rng.integers(0, 6, 6)])
        expected = average_precision(labels[people], scores[people])
        np.testing.assert_allclose(row, expected, atol=1e-12)


def test_interval_covers_the_truth_as_often_as_it_says() -> None:
    """The truth is the average precision of 40,000 photos; samples of 150 photos must hold it in about 95 of 100."""
    labels, scores, _ = _photos_with_people(np.random.default_rng(6), 40_000)
    truth = mean_average_precision(average_precision(labels, scores))
    n_hits = n_hits_of_percentiles = 0
    for seed in range(100):
        labels, scores, photo = _photos_with_people(np.random.default_rng(1000 + seed), 150)
        resampled = mean_over_labels(bootstrap_average_precision(labels, scores, 200, seed, photo))
        value = mean_average_precision(average_precision(labels, scores))
        low, high = basic_interval(value, resampled)
        n_hits += low <= truth <= high
        low, high = np.quantile(resampled, (0.025, 0.975))
        n_hits_of_percentiles += low <= truth <= high
    assert 0.85 <= n_hits / 100 <= 1.0
    assert n_hits_of_percentiles <= n_hits - 10


def _photos_with_people(rng: np.random.Generator, n_photos: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """People of 1 to 3 a photo who share a part of their labels and of their scores; six labels, some rare."""
    photo = np.repeat(np.arange(n_photos), rng.integers(1, 4, n_photos))
    shared, own = rng.normal(size=(n_photos, 6))[photo], rng.normal(size=(len(photo), 6))
    chance = 1 / (1 + np.exp(-(np.linspace(-4, 0, 6) + shared + 0.6 * own)))
    labels = (rng.random((len(photo), 6)) < chance).astype(np.uint8)
    return labels, 0.5 * shared + 0.4 * own + rng.normal(size=(len(photo), 6)), photo


def test_interval_is_quantiles_of_the_defined_draws() -> None:
    values = np.stack([np.arange(101.0), np.full(101, np.nan)], axis=1)
    values[50, 0] = np.nan
    low, high = basic_interval([48.0, np.nan], values)
    assert low[0] == pytest.approx(96 - np.quantile(np.delete(np.arange(101.0), 50), 0.975))
    assert high[0] == pytest.approx(96 - np.quantile(np.delete(np.arange(101.0), 50), 0.025))
    assert np.isnan([low[1], high[1]]).all()


def test_mean_of_each_draw_skips_undefined_labels() -> None:
    means = mean_over_labels(np.array([[0.5, np.nan], [0.2, 0.6], [np.nan, np.nan]]))
    assert means[:2] == pytest.approx([0.5, 0.4]) and np.isnan(means[2])


def test_curve_by_hand() -> None:
    curve = precision_recall_curve(LABELS[:, 0], SCORES[:, 0])
    assert curve.threshold.tolist() == [0.9, 0.8, 0.7, 0.1]
    assert curve.recall.tolist() == [0.5, 0.5, 1.0, 1.0]
    assert curve.precision == pytest.approx([1.0, 0.5, 2 / 3, 0.5])
    for nobody in (precision_recall_curve([0, 0], [0.1, 0.2]), precision_recall_curve([], [])):
        assert [len(part) for part in (nobody.recall, nobody.precision, nobody.threshold)] == [0, 0, 0]


def test_equal_scores_are_one_point_of_the_curve() -> None:
    # Two at 0.6, one of them true; everybody at or above 0.2 has recall 1, and the curve goes on to the lowest.
    curve = precision_recall_curve([0, 1, 1, 0, 0], [0.6, 0.6, 0.2, 0.1, 0.1])
    assert curve.threshold.tolist() == [0.6, 0.2, 0.1]
    assert curve.recall.tolist() == [0.5, 1.0, 1.0]
    assert curve.precision == pytest.approx([1 / 2, 2 / 3, 2 / 5])
    everybody = precision_recall_curve([1, 1], [0.3, 0.3])
    assert (everybody.threshold.tolist(), everybody.recall.tolist(), everybody.precision.tolist()) == ([0.3], [1], [1])


def test_a_curve_of_nan_is_refused() -> None:
    with pytest.raises(ValueError, match="NaN"):
        precision_recall_curve([1, 0], [float("nan"), 0.1])


def test_area_in_steps_under_the_curve_is_average_precision() -> None:
    labels, scores = _random_people(7, 200, 3, 1)
    for k in range(3):
        curve = precision_recall_curve(labels[:, k], scores[:, k])
        area = (np.diff(curve.recall, prepend=0) * curve.precision).sum()
        assert area == pytest.approx(average_precision(labels, scores)[k])


def test_thresholds_by_hand() -> None:
    # Label 0: F1 at 0.9 is 2/3, at 0.8 1/2, at 0.7 4/5, at 0.1 2/3. Label 1: all three at 0.7. Label 2: nobody.
    thresholds = fit_thresholds(LABELS, SCORES)
    assert thresholds[:2].tolist() == [0.7, 0.7] and np.isnan(thresholds[2])
    predicted = predict_labels(SCORES, thresholds)
    assert predicted[:, 2].tolist() == [False] * 4
    f1 = f1_scores(LABELS, predicted)
    assert f1[:2] == pytest.approx([0.8, 1.0]) and np.isnan(f1[2])


def test_thresholds_are_the_best_of_all() -> None:
    labels, scores = _random_people(8, 120, 4, 1)
    f1 = f1_scores(labels, predict_labels(scores, fit_thresholds(labels, scores)))
    for k in range(4):
        assert f1[k] == pytest.approx(max(_f1(labels[:, k], scores[:, k] >= cut) for cut in np.unique(scores[:, k])))


def _f1(truth: np.ndarray, predicted: np.ndarray) -> float:
    return float(2 * (truth.astype(bool) & predicted).sum() / (truth.sum() + predicted.sum()))


def test_f1_by_hand() -> None:
    # Label 0: 2 of 3 predicted are true, of 4: 4/7. Label 1: all right. Label 2: predicted for others alone.
    truth = np.array([[1, 1, 0], [1, 0, 1], [1, 0, 0], [1, 0, 0], [0, 0, 0]])
    predicted = np.array([[1, 1, 1], [1, 0, 0], [0, 0, 0], [0, 0, 0], [1, 0, 1]], bool)
    assert f1_scores(truth, predicted) == pytest.approx([4 / 7, 1.0, 0.0])


def test_f1_of_a_label_never_predicted_is_0_and_of_one_never_true_undefined() -> None:
    f1 = f1_scores(np.array([[1, 0, 0], [0, 0, 0]]), np.array([[False, True, False], [False, False, False]]))
    assert f1[0] == 0 and np.isnan(f1[1:]).all()


@pytest.mark.parametrize("shape", [(0, 3), (4, 0), (0, 0)])
def test_f1_and_jaccard_of_nobody_or_of_no_labels_are_undefined(shape: tuple[int, int]) -> None:
    labels, predicted = np.zeros(shape, np.uint8), np.zeros(shape, bool)
    f1, jaccard = f1_scores(labels, predicted), jaccard_indices(labels, predicted)
    assert f1.shape == (shape[1],) and f1.dtype == np.float64 and np.isnan(f1).all()
    assert jaccard.shape == (shape[0],) and np.isnan(jaccard).all()


def test_jaccard_by_hand_and_against_scikit_learn() -> None:
    truth = np.array([[1, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 0], [0, 0, 0, 0]])
    predicted = np.array([[1, 0, 1, 0], [0, 0, 1, 0], [0, 1, 0, 0], [0, 0, 0, 0]], bool)
    index = jaccard_indices(truth, predicted)
    assert index[:3] == pytest.approx([1 / 3, 1.0, 0.0]) and np.isnan(index[3])
    labels, scores = _random_people(9, 50, 6, 2)
    answered = scores > 0
    defined = (labels.astype(bool) | answered).any(axis=1)
    expected = jaccard_score(labels[defined], answered[defined], average="samples")
    assert np.nanmean(jaccard_indices(labels, answered)) == pytest.approx(expected)


def test_average_absolute_error_by_hand() -> None:
    truth = np.array([[1.0, 5.0, np.nan], [4.0, np.nan, np.nan]])
    error = average_absolute_error(truth, np.array([[2.0, 5.5, 3.0], [1.0, 9.0, 4.0]]))
    assert error[:2] == pytest.approx([2.0, 0.5]) and np.isnan(error[2])


def _slow_interpolated(label: np.ndarray, score: np.ndarray) -> float:
    """The definition of VOC 2007 for scores without ties: the highest precision at each of 11 recalls or above."""
    order = np.argsort(-score)
    n_found = np.cumsum(label[order])
    precision = n_found / np.arange(1, len(label) + 1)
    recall = n_found / n_found[-1]
    return float(np.mean([precision[recall >= level / 10 - 1e-9].max() for level in range(11)]))


def test_interpolated_precision_by_hand() -> None:
    # Label 0: recall 1/2 at precision 1, recall 1 at 2/3: 6 levels up to 0.5 have 1, the 5 above have 2/3.
    precision = interpolated_average_precision(LABELS, SCORES)
    assert precision[:2] == pytest.approx([(6 + 5 * 2 / 3) / 11, 1.0]) and np.isnan(precision[2])
    # A later rank with a higher precision counts for all recalls before it: 0/1, 1/2, 2/3 gives 2/3 everywhere.
    rising = interpolated_average_precision([[0], [1], [1]], [[0.9], [0.8], [0.7]])
    assert rising == pytest.approx([2 / 3])


def test_interpolated_precision_of_one_score_for_everybody_is_the_prevalence() -> None:
    assert interpolated_average_precision([[1], [0], [0], [1], [0]], np.full((5, 1), 0.3)).tolist() == [0.4]


def test_interpolated_precision_reaches_each_tenth_exactly() -> None:
    # 10 people with the label, each followed by one without: recall 0.3 is reached by exactly the third of them.
    labels = np.tile([1, 0], 10)[:, None]
    found = interpolated_average_precision(labels, -np.arange(20.0)[:, None])
    expected = np.mean([1, *(n / (2 * n - 1) for n in range(1, 11))])
    assert found == pytest.approx([expected])


def test_interpolated_precision_is_that_of_a_slow_reference() -> None:
    labels, scores = _random_people(4, 300, 8, 9)
    expected = [_slow_interpolated(labels[:, k], scores[:, k]) for k in range(8)]
    assert interpolated_average_precision(labels, scores) == pytest.approx(expected)


def test_roc_auc_is_that_of_scikit_learn() -> None:
    labels, scores = _random_people(5, 200, 6, 1)
    assert roc_auc_scores(labels, scores) == pytest.approx(roc_auc_score(labels, scores, average=None))
    everybody_or_nobody = roc_auc_scores([[1, 0], [1, 0]], [[0.1, 0.2], [0.3, 0.4]])
    assert np.isnan(everybody_or_nobody).all() and np.isnan(roc_auc_scores(LABELS[:0], SCORES[:0])).all()


def test_break_even_thresholds_by_hand() -> None:
    # Label 0: two people have it, the second highest score is 0.8. Label 1: three, but the scores are 0.7 x 3 and 0.1.
    thresholds = break_even_thresholds(LABELS, SCORES)
    assert thresholds[:2].tolist() == [0.8, 0.7] and np.isnan(thresholds[2])
    # One person has it, the two highest scores are equal: predicting nobody is no threshold, so it is for two.
    assert break_even_thresholds([[1], [0], [0]], [[0.5], [0.5], [0.1]]).tolist() == [0.5]
    # Two have it; for one or for three people is equally near: the higher threshold is taken.
    assert break_even_thresholds([[1], [1], [0]], [[0.9], [0.2], [0.2]]).tolist() == [0.9]
    assert np.isnan(break_even_thresholds(LABELS[:0], SCORES[:0])).all()


def test_precision_equals_recall_at_the_break_even_threshold() -> None:
    labels, scores = _random_people(6, 400, 5, 9)
    predicted = predict_labels(scores, break_even_thresholds(labels, scores))
    assert predicted.sum(axis=0).tolist() == labels.sum(axis=0).tolist()


def test_micro_f1_and_hamming_loss_are_those_of_scikit_learn() -> None:
    labels, scores = _random_people(7, 150, 6, 3)
    predicted = scores >= 0.5
    assert micro_f1_score(labels, predicted) == pytest.approx(f1_score(labels, predicted, average="micro"))
    assert hamming_loss(labels, predicted) == pytest.approx(sklearn_hamming_loss(labels, predicted))
    none = np.zeros((2, 3), bool)
    assert np.isnan(micro_f1_score(none, none)) and hamming_loss(none, none) == 0
    assert np.isnan(hamming_loss(none[:0], none[:0]))


def test_ratings_by_hand() -> None:
    nan = float("nan")
    truth = np.array([[1.0, nan, 2.0], [3.0, nan, nan], [5.0, nan, nan]])
    predicted = np.array([[2.0, 1.0, 2.0], [2.0, 1.0, 3.0], [8.0, 1.0, 3.0]])
    # Dimension 0: errors 1, 1, 3. Means 3 and 4, variances 8/3 and 8, covariance (-2 * -2 + 0 + 2 * 4) / 3 = 4.
    assert average_absolute_error(truth, predicted) == pytest.approx([5 / 3, nan, 0], nan_ok=True)
    assert root_mean_squared_error(truth, predicted) == pytest.approx([(11 / 3) ** 0.5, nan, 0], nan_ok=True)
    assert concordance_correlation(truth, predicted) == pytest.approx([8 / (8 / 3 + 8 + 1), nan, nan], nan_ok=True)
    found = measure_vad(truth, predicted)
    assert found.n_people.tolist() == [3, 0, 1] and found.mean == pytest.approx(5 / 6)


def test_concordance_is_pearson_times_the_bias_factor() -> None:
    rng = np.random.default_rng(2)
    truth = rng.normal(5, 1.5, (400, 3))
    predicted = 0.6 * truth + rng.normal(1, [0.5, 1, 3], (400, 3))
    for k, found in enumerate(concordance_correlation(truth, predicted)):
        pearson = np.corrcoef(truth[:, k], predicted[:, k])[0, 1]
        ratio, shift = truth[:, k].std() / predicted[:, k].std(), truth[:, k].mean() - predicted[:, k].mean()
        bias = 2 / (ratio + 1 / ratio + shift**2 / (truth[:, k].std() * predicted[:, k].std()))
        assert found == pytest.approx(pearson * bias)
    assert concordance_correlation(truth, np.full((400, 3), 5.1)).tolist() == [0, 0, 0]
    with pytest.raises(ValueError, match=r"truth has shape \(400, 3\), predicted \(2, 3\)"):
        concordance_correlation(truth, truth[:2])
