"""Chance levels, the annotators' agreement, and outputs that are the same for everybody; by hand and by slow twins."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, f1_score, jaccard_score
from sklearn.metrics import hamming_loss as sklearn_hamming_loss

from emoface.metrics.agreement import measure_annotators
from emoface.metrics.chance import always_most_frequent, measure_chance
from emoface.metrics.constant_outputs import SAME_WITHIN, is_same_for_everybody, output_ranges
from emoface.metrics.multilabel import hamming_loss, micro_f1_score

TRAIN = np.array([[1, 1, 0, 0], [1, 1, 0, 0], [1, 0, 0, 0], [0, 0, 1, 0]], np.uint8)
"""Labels by frequency: 0 (3 of 4 people), 1 (2), 2 (1), 3 (nobody)."""
PEOPLE = np.array([[1, 0, 0, 1], [0, 1, 0, 0]], np.uint8)
VAD = np.array([[5, 5, np.nan], [7, 5, np.nan], [6, np.nan, np.nan], [6, 5, np.nan]], np.float32)
OF_PEOPLE = np.array([[4, 5, 5], [6, 8, 5]], np.float32)


def test_chance_levels_by_hand() -> None:
    # On train, the mean Jaccard index for k = 0, 1, 2, 3, 4 is 0, (1/2 + 1/2 + 1) / 4, (1 + 1 + 1/2) / 4,
    # (2/3 + 2/3 + 1/3 + 1/3) / 4 and less: k is 2. Of the people, 0 and 1 give 1/3 and 1/2.
    chance = measure_chance(TRAIN, VAD, PEOPLE, OF_PEOPLE)
    assert chance.n_train == 4
    assert chance.mean_jaccard.labels == (0, 1) and chance.mean_jaccard.value == pytest.approx((1 / 3 + 1 / 2) / 2)
    # Micro F1 on train for k = 1, 2, 3 is 6 / 10, 10 / 14, 12 / 18, so k is 2; of the people 2 * 2 / (4 + 3).
    assert chance.micro_f1.labels == (0, 1) and chance.micro_f1.value == pytest.approx(4 / 7)
    # Wrong pairs on train for k = 0, 1, 2, 3: 6, 4, 4, 6, of which the smallest k is taken; of the people 1 and 2 of 4.
    assert chance.hamming_loss.labels == (0,) and chance.hamming_loss.value == pytest.approx(3 / 8)
    # Macro F1: every label of train, 2 p / (1 + p) with p = 1/2, 1/2, undefined; label 3 is never predicted: 0.
    assert chance.mean_f1.labels == (0, 1, 2) and chance.mean_f1.value == pytest.approx((2 / 3 + 2 / 3 + 0) / 3)
    assert chance.vad_means == pytest.approx([6, 5, np.nan], nan_ok=True)
    assert chance.vad.errors == pytest.approx([1, 1.5, np.nan], nan_ok=True)
    assert chance.vad.root_mean_squared == pytest.approx([2**0.5, 4.5**0.5, np.nan], nan_ok=True)
    assert chance.vad.concordance[:2].tolist() == [0, 0]


def test_chance_is_the_best_constant_of_train_by_a_slow_search() -> None:
    rng = np.random.default_rng(3)
    train, people = ((rng.random((n, 6)) < [0.7, 0.5, 0.3, 0.2, 0.1, 0.02]).astype(np.uint8) for n in (200, 80))
    order = np.argsort(-train.sum(axis=0), kind="stable")

    def slow(labels: np.ndarray, k: int, name: str) -> float:
        predicted = np.isin(np.arange(6), order[:k]) * np.ones_like(labels)
        if name == "micro":
            return float(f1_score(labels, predicted, average="micro", zero_division=0))
        if name == "hamming":
            return -float(sklearn_hamming_loss(labels, predicted))
        has_any = (labels | predicted).any(axis=1)
        return float(jaccard_score(labels[has_any], predicted[has_any], average="samples", zero_division=0))

    chance = measure_chance(train, np.full((200, 3), 5, np.float32), people, np.full((80, 3), 4, np.float32))
    for name, found in (("micro", chance.micro_f1), ("hamming", chance.hamming_loss), ("jaccard", chance.mean_jaccard)):
        best = max(range(7), key=lambda k, name=name: slow(train, k, name))
        assert found.labels == tuple(order[:best]), name
        assert found.value == pytest.approx(abs(slow(people, best, name))), name


def test_chance_of_nobody_is_undefined() -> None:
    nobody, no_vad = TRAIN[:0], VAD[:0]
    chance = measure_chance(TRAIN, VAD, nobody, no_vad)
    assert all(np.isnan(one.value) for one in (chance.mean_jaccard, chance.mean_f1, chance.hamming_loss))
    chance = measure_chance(nobody, no_vad, PEOPLE, OF_PEOPLE)
    assert chance.micro_f1.labels == () and np.isnan(chance.vad.errors).all() and chance.micro_f1.value == 0
    assert always_most_frequent(TRAIN, PEOPLE, hamming_loss, is_better=min).labels == (0,)
    assert always_most_frequent(TRAIN, PEOPLE, micro_f1_score).labels == (0, 1)


def test_annotators_by_hand() -> None:
    # Person 0: A chose {0}, B chose {0, 1}. Person 1: A {0}, B {1}. Person 2 has one annotator and is left out.
    votes, n = np.array([[2, 1, 0], [1, 1, 0], [1, 0, 0]], np.uint8), np.array([2, 2, 1], np.uint8)
    found = measure_annotators(votes, n)
    assert found.n_people == 2 and found.mean_annotators == 2
    assert found.mean_jaccard == pytest.approx((1 / 2 + 0) / 2)
    # Label 0, turns (chosen, true): (1, 1), (1, 1), (1, 0), (0, 1): AP = 2/3 * 2/3 + 3/4 * 1/3.
    # Label 1, turns: (0, 1), (1, 0), (0, 1), (1, 0): AP = 2/4. Nobody chose label 2.
    assert found.average_precision == pytest.approx([4 / 9 + 1 / 4, 1 / 2, np.nan], nan_ok=True)
    assert found.prevalence.tolist() == [3 / 4, 2 / 4, 0]
    assert found.mean_average_precision == pytest.approx((4 / 9 + 3 / 4) / 2) and found.mean_prevalence == 5 / 8


def test_annotators_from_votes_are_those_of_single_annotators() -> None:
    """Against a reference that knows who chose what, with two to five annotators for a person."""
    rng = np.random.default_rng(0)
    counts = rng.integers(1, 6, 60)
    single = [(rng.random((n, 8)) < rng.uniform(0.05, 0.7, 8)).astype(np.uint8) for n in counts]
    truth, score, weight, jaccard = [], [], [], []
    for choices in single:
        if len(choices) < 2:
            continue
        of_person = []
        for one in range(len(choices)):
            others = np.delete(choices, one, axis=0).any(axis=0)
            truth.append(others)
            score.append(choices[one])
            weight.append(1 / len(choices))
            either = (others | choices[one].astype(bool)).sum()
            of_person.append((others & choices[one].astype(bool)).sum() / either if either else np.nan)
        jaccard.append(np.mean(of_person))
    found = measure_annotators(np.array([choices.sum(axis=0) for choices in single]), counts)
    for k in range(8):
        expected = average_precision_score(np.array(truth)[:, k], np.array(score)[:, k], sample_weight=weight)
        assert found.average_precision[k] == pytest.approx(expected)
    assert found.mean_jaccard == pytest.approx(np.nanmean(jaccard)) and found.n_people == len(jaccard)


def test_annotators_of_nobody_are_undefined() -> None:
    found = measure_annotators(np.ones((3, 2), np.uint8), np.array([0, 1, 1]))
    assert found.n_people == 0 and np.isnan(found.average_precision).all() and np.isnan(found.mean_jaccard)
    assert np.isnan(found.mean_annotators) and np.isnan(found.prevalence).all()


def test_an_output_that_is_the_same_for_everybody_is_found() -> None:
    same = np.full((4, 2), 0.25, np.float32)
    nearly = same + np.linspace(0, 0.9 * SAME_WITHIN, 4, dtype=np.float32)[:, None]
    one_label = same.copy()
    one_label[2, 1] += 2 * SAME_WITHIN
    assert is_same_for_everybody(same) and is_same_for_everybody(nearly) and not is_same_for_everybody(one_label)
    without_face = np.vstack([one_label, np.full((1, 2), np.nan)]).astype(np.float32)
    assert output_ranges(without_face) == pytest.approx([0, 2 * SAME_WITHIN], rel=1e-4)
    assert not is_same_for_everybody(same[:1]) and not is_same_for_everybody(same[:0])
    assert np.isnan(output_ranges(same[:1])).all()
