"""MTER's losses: numbers worked out by hand, an independent reference, whom a term concerns, halves of a batch."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from emoface.mter.base import ModalityLogits, MterOutput, join_outputs
from emoface.mter.losses import (
    BranchLosses,
    asymmetric_terms,
    hardest_labels,
    kosti_label_weights,
    label_losses,
    label_terms,
    multiplicative_loss,
    vad_loss,
)

FACES = torch.tensor([True, False])


def logit(probability: float) -> float:
    return math.log(probability / (1 - probability))


def labels_of(*rows: list[int]) -> Tensor:
    """(b, 26) with the given labels present."""
    out = torch.zeros(len(rows), 26)
    for row, present in enumerate(rows):
        out[row, present] = 1
    return out


def flat_logits(n_people: int, probability: float = 0.5) -> Tensor:
    return torch.full((n_people, 26), logit(probability))


def test_cross_entropy_by_hand() -> None:
    logits = flat_logits(2)
    logits[0, 3] = logit(0.8)  # present: -ln 0.8; the other 25: ln 2
    logits[1, 0] = logit(0.9)  # absent: -ln 0.1
    labels = labels_of([3], [])
    losses = label_losses(MterOutput(logits, {}, None), labels, has_face=FACES)
    expected = ((-math.log(0.8) + 25 * math.log(2)) + (-math.log(0.1) + 25 * math.log(2))) / 2
    assert list(losses) == ["labels"]
    assert losses["labels"].item() == pytest.approx(expected, rel=1e-6)


def test_label_weights_count_each_label() -> None:
    weights = torch.zeros(26)
    weights[3], weights[4] = 2.0, 0.5
    logits = flat_logits(1)
    logits[0, 3] = logit(0.8)
    losses = label_losses(MterOutput(logits, {}, None), labels_of([3]), has_face=FACES[:1], label_weights=weights)
    assert losses["labels"].item() == pytest.approx(-2 * math.log(0.8) + 0.5 * math.log(2), rel=1e-6)


def test_weighted_euclidean_by_hand() -> None:
    logits = flat_logits(1, 0.25)
    logits[0, 0] = logit(0.6)
    prevalences = torch.full((26,), 0.1)
    prevalences[0] = 0.4
    weights = kosti_label_weights(prevalences)
    assert weights[0].item() == pytest.approx(1 / math.log(1.6), rel=1e-6)
    assert weights[1].item() == pytest.approx(1 / math.log(1.3), rel=1e-6)
    losses = label_losses(
        MterOutput(logits, {}, None),
        labels_of([0]),
        has_face=FACES[:1],
        kind="weighted_euclidean",
        label_weights=weights,
    )
    expected = 0.4**2 / math.log(1.6) + 25 * 0.25**2 / math.log(1.3)
    assert losses["labels"].item() == pytest.approx(expected, rel=1e-5)


def test_kosti_weights_at_the_ends_and_bad_settings() -> None:
    weights = kosti_label_weights(torch.tensor([0.0, 1.0]))
    assert weights.tolist() == pytest.approx([1 / math.log(1.2), 1 / math.log(2.2)], rel=1e-6)
    with pytest.raises(ValueError, match="c is 1"):
        kosti_label_weights(torch.tensor([0.5]), c=1)
    with pytest.raises(ValueError, match="outside 0-1"):
        kosti_label_weights(torch.tensor([1.5]))
    with pytest.raises(ValueError, match="outside 0-1"):
        kosti_label_weights(torch.tensor([float("nan")]))
    with pytest.raises(ValueError, match="weighted_euclidean needs label_weights"):
        label_losses(
            MterOutput(flat_logits(1), {}, None), labels_of([0]), has_face=FACES[:1], kind="weighted_euclidean"
        )


def test_asymmetric_by_hand() -> None:
    logits = torch.tensor([[logit(0.8), logit(0.8), logit(0.04), logit(0.3)]])
    labels = torch.tensor([[1.0, 0.0, 0.0, 0.0]])
    terms = asymmetric_terms(logits, labels)[0].tolist()
    assert terms[0] == pytest.approx(-0.2 * math.log(0.8), rel=1e-5)
    assert terms[1] == pytest.approx(-(0.75**4) * math.log(0.25), rel=1e-5)
    assert terms[2] == 0  # below the clip: not looked at
    assert terms[3] == pytest.approx(-(0.25**4) * math.log(0.75), rel=1e-5)


def test_asymmetric_without_powers_and_clip_is_cross_entropy() -> None:
    torch.manual_seed(0)
    logits, labels = 3 * torch.randn(5, 26), (torch.rand(5, 26) < 0.3).float()
    terms = asymmetric_terms(logits, labels, gamma_pos=0, gamma_neg=0, clip=0)
    torch.testing.assert_close(terms, label_terms(logits, labels, "bce"))


@pytest.mark.parametrize("kind", ["bce", "weighted_euclidean", "asymmetric"])
def test_extreme_logits_keep_loss_and_gradient_finite(kind: str) -> None:
    logits = torch.tensor([[-120.0, 120.0, 120.0, -120.0, 0.0]], requires_grad=True)
    label_terms(logits, torch.tensor([[1.0, 0.0, 1.0, 0.0, 1.0]]), kind).sum().backward()
    assert logits.grad is not None
    assert bool(logits.grad.isfinite().all())


@pytest.mark.parametrize("kind", ["bce", "weighted_euclidean", "asymmetric"])
def test_gradient_agrees_with_finite_differences(kind: str) -> None:
    torch.manual_seed(3)
    logits = torch.randn(2, 6).mul(1.5)
    labels = (torch.rand(2, 6) < 0.5).float()
    given = logits.clone().requires_grad_()
    label_terms(given, labels, kind).sum().backward()
    assert given.grad is not None
    step = 1e-2
    for row in range(2):
        for column in range(6):
            moved = torch.zeros_like(logits)
            moved[row, column] = step
            slope = (label_terms(logits + moved, labels, kind) - label_terms(logits - moved, labels, kind)).sum()
            assert given.grad[row, column].item() == pytest.approx(slope.item() / (2 * step), abs=2e-3)


def test_half_precision_logits_are_reckoned_in_single() -> None:
    logits = torch.full((1, 26), -12.0, dtype=torch.bfloat16)
    terms = label_terms(logits, labels_of([0]), "bce")
    assert terms.dtype == torch.float32
    assert torch.equal(terms, label_terms(logits.float(), labels_of([0]), "bce"))
    assert terms[0, 0].item() == pytest.approx(12, abs=1e-4)


def test_each_stream_has_its_term_and_the_face_only_people_with_one() -> None:
    face, body = flat_logits(2), flat_logits(2, 0.25)
    face[1] = 50.0  # nobody's face: must not count
    output = MterOutput(flat_logits(2), {"face": face, "body": body}, None)
    losses = label_losses(output, labels_of([], []), has_face=FACES, stream_weight=0.5)
    assert list(losses) == ["labels", "labels_face", "labels_body"]
    assert losses["labels"].item() == pytest.approx(26 * math.log(2), rel=1e-6)
    assert losses["labels_face"].item() == pytest.approx(0.5 * 26 * math.log(2) / 2, rel=1e-6)  # one of two people
    assert losses["labels_body"].item() == pytest.approx(-0.5 * 26 * math.log(0.75), rel=1e-6)


def test_one_stream_counts_once_and_a_face_stream_only_faces() -> None:
    logits = flat_logits(2)
    logits[1] = 50.0
    for stream, expected in (("face", 26 * math.log(2) / 2), ("body", (26 * math.log(2) + 26 * 50) / 2)):
        losses = label_losses(MterOutput(logits, {stream: logits}, None), labels_of([], []), has_face=FACES)
        assert list(losses) == ["labels"]
        assert losses["labels"].item() == pytest.approx(expected, rel=1e-6)


def test_no_face_and_nobody_give_zero_with_a_gradient() -> None:
    logits = flat_logits(2).requires_grad_()
    output = MterOutput(logits, {"face": logits}, None)
    loss = label_losses(output, labels_of([0], [1]), has_face=torch.tensor([False, False]))["labels"]
    loss.backward()
    assert loss.item() == 0
    assert logits.grad is not None
    assert not bool(logits.grad.any())
    empty = label_losses(MterOutput(flat_logits(0), {}, None), labels_of(), has_face=FACES[:0])
    assert empty["labels"].item() == 0


@pytest.mark.parametrize("kind", ["bce", "asymmetric"])
@pytest.mark.parametrize("ohem_ratio", [None, 3.0])
def test_halves_of_a_batch_average_to_the_whole(kind: str, ohem_ratio: float | None) -> None:
    torch.manual_seed(1)
    has_face = torch.tensor([True, True, True, False, False, True, False, False])
    labels = (torch.rand(8, 26) < 0.2).float()
    parts = {name: torch.randn(8, 26) for name in ("all", "face", "body")}
    predicted, target = torch.rand(8, 3), torch.rand(8, 3)
    target[2] = float("nan")

    def losses(rows: slice) -> dict[str, Tensor]:
        output = MterOutput(parts["all"][rows], {name: parts[name][rows] for name in ("face", "body")}, predicted[rows])
        return label_losses(
            output,
            labels[rows],
            has_face=has_face[rows],
            kind=kind,
            ohem_ratio=ohem_ratio,
            vad_unit=target[rows],
        )

    whole, first, second = losses(slice(None)), losses(slice(0, 4)), losses(slice(4, 8))
    assert list(whole) == ["labels", "labels_face", "labels_body", "vad"]
    for name, value in whole.items():
        assert value.item() == pytest.approx((first[name] + second[name]).item() / 2, rel=1e-5)
        assert value.item() > 0


def test_hard_mining_keeps_present_labels_and_the_hardest_absent_ones() -> None:
    terms = torch.tensor([[0.9, 0.1, 0.5, 0.3, 0.7], [0.2, 0.4, 0.6, 0.8, 1.0], [0.1, 0.2, 0.3, 0.4, 0.5]])
    labels = torch.tensor([[0, 1, 0, 0, 0], [1, 1, 0, 0, 0], [0, 0, 0, 0, 0]])
    assert hardest_labels(terms, labels, ratio=2).tolist() == [
        [1, 1, 0, 0, 1],
        [1, 1, 1, 1, 1],  # four asked for, three there
        [0, 0, 0, 1, 1],  # no label counts as one
    ]
    assert hardest_labels(terms, labels, ratio=0.5).sum(dim=1).tolist() == [2, 3, 1]  # rounded up
    assert hardest_labels(terms, labels, ratio=26).tolist() == torch.ones(3, 5).tolist()
    for ratio in (0.0, -1.0, float("inf"), float("nan")):
        with pytest.raises(ValueError, match="expected more than 0"):
            hardest_labels(terms, labels, ratio)


def test_equally_hard_labels_are_kept_in_number_not_all() -> None:
    kept = hardest_labels(torch.full((1, 26), 0.5), labels_of([4]), ratio=3)
    assert kept.sum().item() == 4
    assert kept[0, 4].item() == 1


def test_hard_mining_in_the_loss_by_hand() -> None:
    logits = flat_logits(1, 0.1)
    logits[0, 2], logits[0, 5], logits[0, 9] = logit(0.5), logit(0.9), logit(0.6)
    output = MterOutput(logits, {}, None)
    loss = label_losses(output, labels_of([2]), has_face=FACES[:1], ohem_ratio=2)["labels"]
    assert loss.item() == pytest.approx(-math.log(0.5) - math.log(0.1) - math.log(0.4), rel=1e-5)


def test_ratings_by_hand() -> None:
    predicted = torch.tensor([[0.5, 0.5, 0.5], [0.0, 0.0, 1.0]], requires_grad=True)
    target = torch.tensor([[0.5, 0.55, 0.8], [float("nan"), 1.0, float("nan")]])
    # on the scale of 1-10 the differences are 0, 0.45, 2.7 and 9: 0 + 0.45^2 / 2 + 2.2 and 8.5
    loss = vad_loss(predicted, target, torch.tensor([True, True]))
    assert loss.item() == pytest.approx((0.45**2 / 2 + 2.2 + 8.5) / 2, rel=1e-5)
    loss.backward()
    assert predicted.grad is not None
    assert bool(predicted.grad.isfinite().all())
    assert predicted.grad[1].tolist() == [0.0, -4.5, 0.0]


def test_ratings_are_weighted_and_needed_where_there_is_a_head() -> None:
    output = MterOutput(flat_logits(2), {}, torch.full((2, 3), 0.5))
    target = torch.tensor([[0.5, 0.5, 0.5 + 2 / 9], [0.5, 0.5, 0.5]])
    losses = label_losses(output, labels_of([0], [0]), has_face=FACES, vad_unit=target, vad_weight=0.25)
    assert losses["vad"].item() == pytest.approx(0.25 * 1.5 / 2, rel=1e-5)
    with pytest.raises(ValueError, match="no ratings were given"):
        label_losses(output, labels_of([0], [0]), has_face=FACES)
    without_head = label_losses(
        MterOutput(flat_logits(2), {}, None), labels_of([0], [0]), has_face=FACES, vad_unit=target
    )
    assert "vad" not in without_head


def test_unknown_loss_is_named() -> None:
    with pytest.raises(ValueError, match="no loss is called 'hinge'; known: bce, weighted_euclidean, asymmetric"):
        label_losses(MterOutput(flat_logits(1), {}, None), labels_of([0]), has_face=FACES[:1], kind="hinge")


# Losses of single networks


def _modalities() -> ModalityLogits:
    """Face: probability 1/2 for label 0 and 1/50 for the others; pose: 1/26 for all; present as said below."""
    face, pose = torch.zeros(4, 26), torch.zeros(4, 26, requires_grad=True)
    face[:, 0] = math.log(25)
    has_face, has_pose = torch.tensor([True, True, False, True]), torch.tensor([True, False, False, True])
    return ModalityLogits({"face": face, "pose": pose}, {"face": has_face, "pose": has_pose})


def _true_labels() -> torch.Tensor:
    labels = torch.zeros(4, 26)
    labels[0, 0] = labels[1, 0] = labels[1, 3] = labels[2, 0] = 1  # the last person has none
    return labels


@pytest.mark.parametrize("beta", [0.0, 1.0, 2.0])
def test_multiplicative_loss_by_hand(beta: float) -> None:
    both = (1 / 2) ** beta * math.log(2) + (1 / 26) ** beta * math.log(26)  # two modalities: beta / 1
    face_alone = (math.log(2) + math.log(50)) / 2  # the mean over two labels, without a factor
    loss = multiplicative_loss(_modalities(), _true_labels(), beta)
    assert loss.item() == pytest.approx((both + face_alone) / 4)


def test_multiplicative_loss_shares_beta_among_the_other_modalities() -> None:
    logits = torch.zeros(1, 26)
    three = ModalityLogits(dict.fromkeys("abc", logits), dict.fromkeys("abc", torch.tensor([True])))
    labels = torch.zeros(1, 26)
    labels[0, 5] = 1
    assert multiplicative_loss(three, labels, 1.0).item() == pytest.approx(3 * 26**-0.5 * math.log(26))
    nobody = ModalityLogits({"a": logits[:0]}, {"a": torch.zeros(0, dtype=torch.bool)})
    assert multiplicative_loss(nobody, labels[:0]).item() == 0


def test_multiplicative_loss_raises_a_true_label_that_is_unlikely_and_ignores_absent_modalities() -> None:
    modalities = _modalities()
    multiplicative_loss(modalities, _true_labels(), 1.0).backward()
    gradient = modalities.logits["pose"].grad
    assert gradient is not None
    # weight 1/26 of -log softmax, over 4 people: (1 / 26 - 1) for the true label, 1 / 26 for each other one
    assert gradient[0, 0].item() == pytest.approx((1 / 26 - 1) / 26 / 4)
    assert gradient[0, 1].item() == pytest.approx(1 / 26 / 26 / 4)
    assert not gradient[1:].any()
    other = {name: logits.detach().clone() for name, logits in modalities.logits.items()}
    other["pose"][1:3] = other["face"][2] = math.nan
    changed = multiplicative_loss(ModalityLogits(other, modalities.is_present), _true_labels())
    assert torch.equal(changed, multiplicative_loss(modalities, _true_labels()))


def test_soft_margin_is_torchs() -> None:
    logits, labels = torch.randn(5, 26), (torch.rand(5, 26) < 0.3).float()
    output = MterOutput(logits, {}, None, attention_logits=2 * logits)
    branches = BranchLosses(attention_weight=0.5)
    has_face = torch.zeros(5, dtype=torch.bool)  # which has no effect: these are of all people
    losses = label_losses(output, labels, has_face=has_face, kind="soft_margin", branches=branches)
    expected = torch.nn.functional.multilabel_soft_margin_loss
    torch.testing.assert_close(losses["labels"], expected(logits, labels))
    torch.testing.assert_close(losses["attention"], 0.5 * expected(2 * logits, labels))
    assert set(losses) == {"labels", "attention"}


def test_losses_of_parts_that_an_output_lacks_are_refused() -> None:
    output = MterOutput(torch.zeros(1, 26), {}, None)
    for branches, message in (
        (BranchLosses(multiplicative_weight=1), "the multiplicative fusion loss needs the logits of modalities"),
        (BranchLosses(attention_weight=1), "the attention loss needs the logits of an attention branch"),
    ):
        with pytest.raises(ValueError, match=message):
            label_losses(output, torch.zeros(1, 26), has_face=torch.tensor([True]), branches=branches)


def test_terms_of_half_batches_average_to_those_of_the_whole() -> None:
    modalities, labels = _modalities(), _true_labels()
    halves = [
        ModalityLogits(*({name: x[rows] for name, x in part.items()} for part in modalities))
        for rows in (slice(0, 2), slice(2, 4))
    ]
    mean = (multiplicative_loss(halves[0], labels[:2]) + multiplicative_loss(halves[1], labels[2:])) / 2
    torch.testing.assert_close(multiplicative_loss(modalities, labels), mean)
    joined = join_outputs([MterOutput(x.logits["face"], {}, None, x) for x in halves], torch.cat)
    assert joined.modalities is not None and joined.attention_logits is None
    torch.testing.assert_close(multiplicative_loss(joined.modalities, labels), mean)
