"""Loss terms of the detector's training: box, objectness, class and landmarks.

Source: Qi et al., "YOLO5Face", 2021, section 3 (Wing loss for landmarks); Zheng et al., "Distance-IoU Loss", 2020
(CIoU); Shrivastava et al., "Online Hard Example Mining", 2016, as in section 4.4 of the thesis.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from emoface.yolov5face.network import YoloV5Face
from emoface.yolov5face.targets import NEGATIVE, AnchorGrid, match_anchors, paired_iou, to_xyxy


@dataclass(frozen=True)
class LossWeights:
    """Weights of the loss terms, and the numbers of hard negative mining.

    Attributes:
        box: Weight of 1 - CIoU, mean over the positive anchors.
        objectness: Weight of the binary cross-entropy of the objectness, summed over the positive and the mined
            negative anchors and divided by the number of positives.
        category: Weight of the binary cross-entropy of the class, mean over the positive anchors.
        landmarks: Weight of the Wing loss, mean over the positive anchors whose faces have landmarks.
        negatives_per_positive: Number of the hardest negatives that enter the loss, per positive of the photo. With a
            ratio of 3, as used with a pretrained backbone, a randomly initialised network learned constant outputs.
        min_negatives: Minimum number of negatives per photo, so that photos without faces contribute to the loss.
    """

    box: float = 2.0
    objectness: float = 1.0
    category: float = 0.1
    landmarks: float = 0.5
    negatives_per_positive: float = 300.0
    min_negatives: int = 512


@dataclass(frozen=True)
class FaceTargets:
    """The true faces of a batch, in network pixels.

    Attributes:
        xyxy: Boxes, per photo (n, 4).
        landmarks: Landmarks, per photo (n, 5, 2); nan where a face has none.
    """

    xyxy: list[Tensor]
    landmarks: list[Tensor]


def detection_losses(
    network: YoloV5Face, heads: list[Tensor], targets: FaceTargets, weights: LossWeights
) -> dict[str, Tensor]:
    """Computes the weighted loss terms of a batch; training minimises their sum.

    Args:
        network: Network that computed the heads; its anchors and strides are used.
        heads: Raw outputs ``network.heads(images)``, per level (b, anchors, gh, gw, 16).
        targets: True faces of the batch.
        weights: Weights of the loss terms.

    Returns:
        Weighted scalars named ``box``, ``objectness``, ``category`` and ``landmarks``; 0 is best.
    """
    net_wh = (heads[0].shape[3] * network.strides[0], heads[0].shape[2] * network.strides[0])
    anchors_net = [one[0, :, 0, 0] for one in network.detect.anchor_grid]
    grid = AnchorGrid.build(anchors_net, network.strides, net_wh)
    flat = torch.cat([head.flatten(1, 3) for head in heads], dim=1).float()  # (b, k, 16)
    matched = torch.stack([match_anchors(grid, xyxy) for xyxy in targets.xyxy])  # (b, k)
    photo, anchor = torch.nonzero(matched >= 0, as_tuple=True)
    raw = flat[photo, anchor]  # (p, 16)
    zero = flat.sum() * 0
    objectness = _objectness_loss(flat[..., 4], matched, weights)
    terms = {"box": zero, "objectness": weights.objectness * objectness, "category": zero, "landmarks": zero}
    if len(photo) == 0:
        return terms
    face = matched[photo, anchor]
    true_xyxy = torch.stack([targets.xyxy[p][f] for p, f in zip(photo.tolist(), face.tolist(), strict=True)])
    true_landmarks = torch.stack([targets.landmarks[p][f] for p, f in zip(photo.tolist(), face.tolist(), strict=True)])
    cell = grid.xywh_net[anchor, :2] - grid.stride[anchor, None] / 2
    anchor_wh = grid.xywh_net[anchor, 2:]
    centre = (raw[:, 0:2].sigmoid() * 2 - 0.5) * grid.stride[anchor, None] + cell
    wh = (raw[:, 2:4].sigmoid() * 2) ** 2 * anchor_wh
    terms["box"] = weights.box * (1 - complete_iou(to_xyxy(torch.cat((centre, wh), dim=1)), true_xyxy)).mean()
    terms["category"] = weights.category * F.binary_cross_entropy_with_logits(raw[:, 15], torch.ones_like(raw[:, 15]))
    expected = (true_landmarks - cell[:, None]) / anchor_wh[:, None]  # (p, 5, 2), encoded as the network's outputs
    terms["landmarks"] = weights.landmarks * masked_wing_loss(raw[:, 5:15].reshape(-1, 5, 2), expected)
    return terms


def _objectness_loss(logits: Tensor, matched: Tensor, weights: LossWeights) -> Tensor:
    """Computes the binary cross-entropy over the positives and the hardest negatives of each photo, per positive.

    Args:
        logits: (b, k) objectness of each anchor.
        matched: (b, k) matched face of each anchor, see ``match_anchors``.
        weights: How many negatives enter the loss.

    Returns:
        A scalar: the sum over all photos, divided by the number of positives (by b if there are fewer).
    """
    is_positive, is_negative = matched >= 0, matched == NEGATIVE
    losses = F.binary_cross_entropy_with_logits(logits, is_positive.float(), reduction="none")
    hardest = torch.where(is_negative, losses.detach(), losses.new_tensor(-1.0)).argsort(dim=1, descending=True)
    n_wanted = (is_positive.sum(dim=1).float() * weights.negatives_per_positive).clamp(min=weights.min_negatives)
    rank = torch.empty_like(hardest).scatter_(
        1, hardest, torch.arange(hardest.shape[1], device=logits.device).expand_as(hardest)
    )
    counts = is_positive | (is_negative & (rank < n_wanted[:, None]))
    return (losses * counts).sum() / is_positive.sum().clamp(min=len(logits))


def complete_iou(a_xyxy: Tensor, b_xyxy: Tensor) -> Tensor:
    """Computes the CIoU of paired boxes: their IoU minus penalties for distant centres and different aspect ratios.

    Args:
        a_xyxy: (n, 4).
        b_xyxy: (n, 4), same frame.

    Returns:
        (n,), at most 1, which is best.

    Example:
        >>> box = torch.tensor([[0.0, 0.0, 4.0, 2.0]])
        >>> round(complete_iou(box, box).item(), 4)
        1.0
    """
    iou = paired_iou(a_xyxy, b_xyxy)
    around = torch.maximum(a_xyxy[:, 2:], b_xyxy[:, 2:]) - torch.minimum(a_xyxy[:, :2], b_xyxy[:, :2])
    diagonal = around.square().sum(dim=1).clamp(min=1e-9)
    shift = ((a_xyxy[:, :2] + a_xyxy[:, 2:]) - (b_xyxy[:, :2] + b_xyxy[:, 2:])) / 2
    distance = shift.square().sum(dim=1) / diagonal
    a_wh, b_wh = ((box[:, 2:] - box[:, :2]).clamp(min=1e-6) for box in (a_xyxy, b_xyxy))
    shape = (4 / math.pi**2) * (torch.atan(b_wh[:, 0] / b_wh[:, 1]) - torch.atan(a_wh[:, 0] / a_wh[:, 1])).square()
    with torch.no_grad():
        trade_off = shape / (1 - iou + shape).clamp(min=1e-9)
    return iou - distance - trade_off * shape


def masked_wing_loss(predicted: Tensor, expected: Tensor, width: float = 0.2, curvature: float = 0.04) -> Tensor:
    """Computes the Wing loss, mean over the labelled landmark coordinates.

    Args:
        predicted: (n, 5, 2), in shares of the anchor's width and height.
        expected: (n, 5, 2), in the same unit; nan where a face has no landmarks.
        width: Error below which the loss is logarithmic and above which it is linear.
        curvature: Curvature of the logarithmic part; a smaller value makes it steeper near zero.

    Returns:
        A scalar, 0 if no face has landmarks.

    Source:
        Feng et al., "Wing Loss", 2018, equation 5; the errors there are in pixels, here in shares of the anchor.
    """
    is_labelled = torch.isfinite(expected)
    error = torch.where(is_labelled, predicted - torch.nan_to_num(expected), predicted.new_tensor(0.0)).abs()
    constant = width - width * math.log(1 + width / curvature)
    loss = torch.where(error < width, width * torch.log1p(error / curvature), error - constant)
    return (loss * is_labelled).sum() / is_labelled.sum().clamp(min=1)
