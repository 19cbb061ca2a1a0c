"""The training loss: label terms of the whole model and of each stream's own head, and valence-arousal-dominance.

Every term is summed over its labels and averaged over all people of the batch; people to whom a term does not apply
(no face, no rating) contribute 0 to it. Therefore the mean of the terms of two half batches equals the terms of the
whole batch, regardless of who has a face; distributed training relies on this.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from emoface.mter.base import ModalityLogits, MterOutput
from emoface.mter.names import BATCH_WEIGHTINGS, LOSS_KINDS, LabelWeighting, VadLossKind
from emoface.mter.recipe import Recipe
from emoface.mter.vad import VAD_SPAN

_KOSTI_C = 1.2
_ABSENT_WEIGHT = 1e-4
_AUTHORS_SCALE = 10.0
"""The authors of EMOTIC train on ratings that are divided by 10."""
VAD_MARGIN = 1.0
"""Errors below it, in points of EMOTIC's scale of 1-10, do not count in the loss ``margin_l2``."""


@dataclass(frozen=True)
class BranchLosses:
    """The weights of losses that belong to a part of one network, beside those that all networks have.

    Attributes:
        multiplicative_weight: Weight of the multiplicative fusion loss; 0 leaves it out.
        multiplicative_beta: See ``multiplicative_loss``.
        attention_weight: Weight of the loss of an attention branch's own logits, which is of the same kind as that of
            the whole model's; 0 leaves it out.
    """

    multiplicative_weight: float = 0.0
    multiplicative_beta: float = 1.0
    attention_weight: float = 0.0

    @classmethod
    def of_recipe(cls, recipe: Recipe) -> BranchLosses:
        """The weights of a recipe."""
        return cls(recipe.multiplicative_weight, recipe.multiplicative_beta, recipe.attention_weight)


def kosti_label_weights(prevalences: Tensor, c: float = _KOSTI_C) -> Tensor:
    """Computes the label weights of the discrete loss: the rarer a label, the higher its weight.

    Args:
        prevalences: (26,) share of the training people with each label, 0-1.
        c: Keeps the weights finite; with 1.2 they are between 1.27 and 5.48.

    Returns:
        (26,) ``1 / ln(c + p)``.

    Raises:
        ValueError: ``c`` is 1 or less, or a share is outside 0-1.

    Example:
        >>> [round(weight, 3) for weight in kosti_label_weights(torch.tensor([0.0, 1.0])).tolist()]
        [5.485, 1.268]

    Source: Kosti et al. 2019, section 4.1.
    """
    if c <= 1:
        raise ValueError(f"c is {c}, expected more than 1")
    if not bool(((prevalences >= 0) & (prevalences <= 1)).all()):
        raise ValueError(f"prevalences are outside 0-1: {prevalences.tolist()}")
    return 1 / torch.log(c + prevalences)


def count_label_weights(counts: Tensor, c: float = _KOSTI_C) -> Tensor:
    """Computes the label weights of the released code of EMOTIC's authors, from counts in place of shares.

    Args:
        counts: (26,) number of people with each label, of a batch or of the training people.
        c: Keeps the weight of a label of one person finite.

    Returns:
        (26,) ``1 / ln(c + count)``; 0.0001 for a label that nobody has.

    Example:
        >>> [round(weight, 4) for weight in count_label_weights(torch.tensor([0.0, 1.0, 1063.0])).tolist()]
        [0.0001, 1.2683, 0.1435]

    Source: rkosti/emotic @ 69c3a51, src/funcs.lua, getWeightNormalization.
    """
    return torch.where(counts > 0, 1 / torch.log(c + counts), torch.full_like(counts, _ABSENT_WEIGHT))


def weigh_labels(kind: LabelWeighting, indicator: NDArray[np.uint8], batch_size: int = 1) -> NDArray[np.float32] | None:
    """Computes the weight of each label in the loss from the training people.

    For the kinds whose weights change with the batch, these are the weights of an average batch, by which the loss on
    val is weighted; ``weigh_batch_labels`` computes those of a training batch.

    Args:
        kind: See ``Recipe.label_weights``.
        indicator: (n, 26) labels of the training people, from which the prevalences p are computed.
        batch_size: People per batch, for ``batch_count``.

    Returns:
        (26,), or None for ``none``; for ``root`` scaled to a mean of 1.

    Example:
        >>> weights = weigh_labels("root", np.array([[1, 1], [0, 1], [0, 1], [0, 1]], np.uint8))
        >>> [round(weight, 4) for weight in weights.tolist()]
        [1.3333, 0.6667]
    """
    if kind == "none":
        return None
    if kind in ("count", "batch_count"):
        counts = torch.from_numpy(indicator.sum(axis=0, dtype=np.float64))
        expected = counts if kind == "count" else counts * batch_size / max(len(indicator), 1)
        return count_label_weights(expected).numpy().astype(np.float32)
    share = np.maximum(indicator.sum(axis=0), 1) / max(len(indicator), 1)
    if kind in ("kosti", "batch_share"):
        return kosti_label_weights(torch.from_numpy(share)).numpy().astype(np.float32)
    return np.asarray(np.sqrt(1 / share) / np.sqrt(1 / share).mean(), np.float32)


def weigh_batch_labels(kind: LabelWeighting, counts: Tensor, n_people: int) -> Tensor:
    """Computes the weight of each label in the loss from the people of one training batch.

    Args:
        kind: ``batch_count`` or ``batch_share``.
        counts: (26,) number of people of the batch with each label, over all processes.
        n_people: Number of people of the batch, over all processes.

    Returns:
        (26,).

    Raises:
        ValueError: The kind does not depend on the batch.

    Example:
        >>> counts = torch.tensor([0.0, 4.0])
        >>> [round(weight, 4) for weight in weigh_batch_labels("batch_count", counts, 8).tolist()]
        [0.0001, 0.6066]
        >>> [round(weight, 4) for weight in weigh_batch_labels("batch_share", counts, 8).tolist()]
        [5.4848, 1.8846]
    """
    if kind not in BATCH_WEIGHTINGS:
        raise ValueError(f"label weights '{kind}' do not depend on the batch, expected {' or '.join(BATCH_WEIGHTINGS)}")
    if kind == "batch_count":
        return count_label_weights(counts)
    return 1 / torch.log(_KOSTI_C + counts / max(n_people, 1))  # kosti_label_weights without its check of the values


def label_losses(
    output: MterOutput,
    labels: Tensor,
    *,
    has_face: Tensor,
    kind: str = "bce",
    is_linear: bool = False,
    labels_weight: float = 1.0,
    stream_weight: float = 0.3,
    label_weights: Tensor | None = None,
    ohem_ratio: float | None = None,
    vad_unit: Tensor | None = None,
    vad_kind: VadLossKind = "smooth_l1",
    vad_weight: float = 0.5,
    branches: BranchLosses | None = None,
) -> dict[str, Tensor]:
    """Computes the weighted loss terms of a batch by name; training minimises their sum.

    ``labels`` is the term of the whole model; ``labels_face``, ``labels_body`` and ``labels_context`` are those of the
    streams' own heads, if the model has more than one stream; ``vad`` is the term of valence, arousal and dominance, if
    the model has a head for them; ``multiplicative`` and ``attention`` are those of ``branches``.

    Args:
        output: Output of a model for b people.
        labels: (b, 26), 0 or 1.
        has_face: (b,) bool; the term of the face head applies only to people with a face.
        kind: The label loss, one of ``LOSS_KINDS``.
        is_linear: Whether the model's outputs are linear, see ``label_terms``.
        labels_weight: Weight of the term of the whole model.
        stream_weight: Weight of the term of each stream's own head.
        label_weights: (26,) weight of each label; None weighs all labels by 1. ``weighted_euclidean`` needs them.
        ohem_ratio: Number of hardest absent labels per present label that contribute for each person; None takes all.
        vad_unit: (b, 3) ratings 0-1, nan where EMOTIC has none; required if the model has a head for them.
        vad_kind: The loss of valence, arousal and dominance: ``smooth_l1`` or ``margin_l2``, see ``vad_loss``.
        vad_weight: Weight of the ``vad`` term.
        branches: Losses of parts that only some networks have; None has none.

    Returns:
        Scalars by name.

    Raises:
        ValueError: Weights, ratings or the output of a part are missing, or a setting is out of range.
    """
    all_people = torch.ones_like(has_face)
    applies_to = {"face": has_face}

    def label_term(logits: Tensor, applies: Tensor, is_linear: bool = is_linear) -> Tensor:
        terms = label_terms(logits, labels, kind, is_linear)  # (b, 26)
        if label_weights is not None:
            terms = terms * label_weights
        if ohem_ratio is not None:
            terms = terms * hardest_labels(terms, labels, ohem_ratio)
        return _mean_over_people(terms.sum(dim=1), applies)

    if kind == "weighted_euclidean" and label_weights is None:
        raise ValueError("weighted_euclidean needs label_weights, see kosti_label_weights")
    streams = output.stream_logits
    single_stream = next(iter(streams)) if len(streams) == 1 else ""
    losses = {"labels": labels_weight * label_term(output.logits, applies_to.get(single_stream, all_people))}
    if len(streams) > 1:
        for stream, logits in streams.items():
            losses[f"labels_{stream}"] = stream_weight * label_term(logits, applies_to.get(stream, all_people))
    if output.vad_unit is not None:
        if vad_unit is None:
            raise ValueError("the model has a head for valence, arousal and dominance, and no ratings were given")
        applies = applies_to.get(single_stream, all_people)
        losses["vad"] = vad_weight * vad_loss(output.vad_unit, vad_unit, applies, vad_kind)
    branches = branches or BranchLosses()
    if branches.multiplicative_weight:
        if output.modalities is None:
            raise ValueError("the multiplicative fusion loss needs the logits of modalities, the output has none")
        term = multiplicative_loss(output.modalities, labels, branches.multiplicative_beta)
        losses["multiplicative"] = branches.multiplicative_weight * term
    if branches.attention_weight:
        if output.attention_logits is None:
            raise ValueError("the attention loss needs the logits of an attention branch, the output has none")
        losses["attention"] = branches.attention_weight * label_term(output.attention_logits, all_people, False)
    return losses


def multiplicative_loss(modalities: ModalityLogits, labels: Tensor, beta: float = 1.0) -> Tensor:
    """Computes the multiplicative fusion loss, in which the modalities that are surer of a true label count more.

    For a person with n modalities it is the sum over these and the mean over the true labels of ``-p^(beta / (n - 1))
    log p``, where p is the softmax of the modality's logits over the 26 labels. For n = 1 it is ``-log p``. People
    without a modality or without a label have 0.

    The factor ``p^(beta / (n - 1))`` is a weight and gets no gradient. With a gradient the term of a label would fall
    towards p = 0 wherever p is below 1 / e, so that a modality would unlearn the labels that it is not yet sure of.

    Args:
        modalities: Logits of each modality, and who has it.
        labels: (b, 26), 0 or 1.
        beta: 0 or more.

    Returns:
        Scalar, averaged over all b people.

    Source: Mittal et al. 2020, "M3ER", for one label per sample. The mean over several labels, the softmax and the
    weight without gradient are our choice.
    """
    is_present = torch.stack([modalities.is_present[name] for name in modalities.logits])  # (m, b)
    logits = torch.stack([one.float() for one in modalities.logits.values()])  # (m, b, 26)
    is_absent = ~is_present[:, :, None]
    log_p = logits.masked_fill(is_absent, 0).log_softmax(dim=2).masked_fill(is_absent, 0)
    n_others = is_present.sum(dim=0) - 1  # (b,)
    exponent = torch.where(n_others > 0, beta / n_others.clamp(min=1), 0.0)
    weights = (exponent[:, None] * log_p.detach()).exp()
    terms = -(weights * log_p).sum(dim=0) * labels  # (b, 26)
    per_person = terms.sum(dim=1) / labels.sum(dim=1).clamp(min=1)
    return _mean_over_people(per_person, torch.ones_like(n_others, dtype=torch.bool))


def label_terms(logits: Tensor, labels: Tensor, kind: str, is_linear: bool = False) -> Tensor:
    """Computes the unweighted loss of each label of each person, (b, 26).

    Args:
        logits: (b, 26).
        labels: (b, 26), 0 or 1.
        kind: One of ``LOSS_KINDS``.
        is_linear: Whether the logits are estimates of the labels themselves, without a sigmoid, as the outputs of
            EMOTIC's authors are; only ``weighted_euclidean`` is defined for these.

    Raises:
        ValueError: The kind is unknown, or not defined for linear outputs.
    """
    logits, labels = logits.float(), labels.float()
    if is_linear:
        if kind != "weighted_euclidean":
            raise ValueError(f"the loss '{kind}' needs logits; for linear outputs use weighted_euclidean")
        return (logits - labels).square()
    if kind in ("bce", "soft_margin"):
        terms = functional.binary_cross_entropy_with_logits(logits, labels, reduction="none")
        return terms if kind == "bce" else terms / labels.shape[1]
    if kind == "weighted_euclidean":
        return (logits.sigmoid() - labels).square()
    if kind == "asymmetric":
        return asymmetric_terms(logits, labels)
    raise ValueError(f"no loss is called '{kind}'; known: {', '.join(LOSS_KINDS)}")


def asymmetric_terms(
    logits: Tensor, labels: Tensor, *, gamma_pos: float = 1.0, gamma_neg: float = 4.0, clip: float = 0.05
) -> Tensor:
    """Computes the asymmetric loss, which reduces the terms of easy absent labels and drops those below ``clip``.

    With both exponents and ``clip`` at 0 it is binary cross-entropy.

    Args:
        logits: (b, 26).
        labels: (b, 26), 0 or 1.
        gamma_pos: Exponent of ``1 - p`` for a present label.
        gamma_neg: Exponent of the shifted probability for an absent label.
        clip: Amount by which the probability of an absent label is lowered, 0 or more and less than 1.

    Returns:
        (b, 26).

    Source: Ben-Baruch et al. 2021, "Asymmetric Loss for Multi-Label Classification", equations 4-7.
    """
    probabilities = logits.sigmoid()
    present = -((1 - probabilities) ** gamma_pos) * functional.logsigmoid(logits)
    shifted = (probabilities - clip).clamp(min=0)
    log_absent = functional.logsigmoid(-logits) if clip == 0 else ((-logits).sigmoid() + clip).clamp(max=1).log()
    absent = -(shifted**gamma_neg) * log_absent
    return torch.where(labels > 0, present, absent)


def hardest_labels(terms: Tensor, labels: Tensor, ratio: float) -> Tensor:
    """Selects the terms for online hard example mining: all present labels and the hardest absent ones of each person.

    Mining per person instead of per batch keeps the loss of a person independent of the other people of the batch.

    Args:
        terms: (b, 26).
        labels: (b, 26), 0 or 1.
        ratio: Absent labels per present one, rounded up; a person without labels counts as having one.

    Returns:
        (b, 26), 1 for selected terms and 0 for the others.

    Raises:
        ValueError: ``ratio`` is not above 0.

    Example:
        >>> terms, labels = torch.tensor([[0.1, 0.9, 0.5, 0.7]]), torch.tensor([[1.0, 0.0, 0.0, 0.0]])
        >>> hardest_labels(terms, labels, ratio=2).tolist()
        [[1.0, 1.0, 0.0, 1.0]]

    Source: thesis, section 4.4 (2), where it mines anchors; MTER has none, so it mines labels.
    """
    if not ratio > 0 or math.isinf(ratio):
        raise ValueError(f"ohem_ratio is {ratio}, expected more than 0")
    is_present = labels > 0
    n_kept = torch.ceil(ratio * is_present.sum(dim=1, keepdim=True).clamp(min=1))  # (b, 1)
    hardness = terms.detach().masked_fill(is_present, -math.inf)
    rank = hardness.argsort(dim=1, descending=True, stable=True).argsort(dim=1)
    return (is_present | (rank < n_kept)).to(terms.dtype)


def vad_loss(predicted_unit: Tensor, vad_unit: Tensor, applies: Tensor, kind: VadLossKind = "smooth_l1") -> Tensor:
    """Computes the loss of valence, arousal and dominance, summed over the three dimensions.

    ``smooth_l1`` is computed on EMOTIC's scale of 1-10 and changes from square to linear at an error of 1.
    ``margin_l2`` is the squared error, or 0 for an error below 1 on that scale. Its square is that of errors divided by
    10, as in the released code: squares of whole points are so steep that SGD at the authors' learning rate diverges.

    Args:
        predicted_unit: (b, 3), 0-1.
        vad_unit: (b, 3), 0-1, nan where there is no rating.
        applies: (b,) bool, the people to whom the term applies.
        kind: ``smooth_l1`` or ``margin_l2``.

    Returns:
        Scalar, averaged over all b people.

    Source: Kosti et al. 2019, section 4.1; for ``margin_l2`` rkosti/emotic @ 69c3a51, src/opts.lua (mMargin, contNorm).
    """
    is_rated = ~vad_unit.isnan()
    target = torch.where(is_rated, vad_unit, predicted_unit.detach())
    predicted, true = VAD_SPAN * predicted_unit.float(), VAD_SPAN * target.float()
    if kind == "margin_l2":
        errors = predicted - true
        terms = (errors / _AUTHORS_SCALE).square() * (errors.abs() >= VAD_MARGIN)
    else:
        terms = functional.smooth_l1_loss(predicted, true, reduction="none", beta=1.0)
    return _mean_over_people((terms * is_rated).sum(dim=1), applies)


def _mean_over_people(per_person: Tensor, applies: Tensor) -> Tensor:
    """Averages over all people, (b,) to scalar, with 0 where the term does not apply; 0 for no people."""
    return (per_person * applies).sum() / max(len(applies), 1)
