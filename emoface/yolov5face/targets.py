"""Matches anchors to true faces: the training targets of the detector.

Section 4.4 of the thesis: an anchor whose IoU with a face is above 0.5 is positive, below 0.3 it is negative, and
between them it is ignored. Two rules are added here:

- A face that no anchor overlaps by an IoU of 0.5 is matched to its best anchors, because small faces would otherwise
  never be learned.
- A positive anchor must be near its face. The network can move a box by at most one cell, and rarely moves it that
  far, so an anchor whose centre is more than three quarters of a cell from the centre of the face, in x or in y, is
  negative, whatever its IoU. When such anchors were ignored, a trained detector found one face in seven twice, with
  the second box beside the face.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

POSITIVE_IOU, NEGATIVE_IOU = 0.5, 0.3
NEGATIVE, IGNORED = -1, -2
_BEST_SHARE = 0.95  # of a face's best IoU, for the anchors of a face that no anchor overlaps well
_REACH = 0.75  # largest distance between the centres of an anchor and its face, in cells


@dataclass(frozen=True)
class AnchorGrid:
    """All anchors for one input size, in the order of the flattened heads.

    Attributes:
        xywh_net: (k, 4) centre x, centre y, width and height, network pixels.
        stride: (k,) pixels per cell of each anchor's level.
    """

    xywh_net: Tensor
    stride: Tensor

    @classmethod
    def build(cls, anchors_net: list[Tensor], strides: tuple[int, ...], net_wh: tuple[int, int]) -> AnchorGrid:
        """Places the anchors on every cell of every level.

        Args:
            anchors_net: Per level (anchors, 2) width and height, network pixels.
            strides: Pixels per cell of each level.
            net_wh: Width and height of the input, network pixels.
        """
        boxes, steps = [], []
        for anchors, stride in zip(anchors_net, strides, strict=True):
            columns, rows = net_wh[0] // stride, net_wh[1] // stride
            y, x = torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij")
            centre = ((torch.stack((x, y), dim=-1) + 0.5) * stride).float().to(anchors.device)  # (gh, gw, 2)
            n = len(anchors)
            level = torch.cat(
                (centre[None].expand(n, -1, -1, -1), anchors[:, None, None].expand(-1, rows, columns, -1)), dim=-1
            )
            boxes.append(level.reshape(-1, 4))
            steps.append(torch.full((n * rows * columns,), float(stride), device=anchors.device))
        return cls(torch.cat(boxes), torch.cat(steps))


def match_anchors(grid: AnchorGrid, face_xyxy: Tensor) -> Tensor:
    """Matches each anchor to the face that it should predict.

    Args:
        grid: The k anchors.
        face_xyxy: (n, 4) boxes of the true faces, network pixels.

    Returns:
        (k,) position of the matched face in ``face_xyxy``, ``NEGATIVE`` or ``IGNORED``.

    Example:
        >>> anchors = [torch.tensor([[16.0, 16.0], [64.0, 64.0]])]
        >>> grid = AnchorGrid.build(anchors, (16,), (32, 32))
        >>> match_anchors(grid, torch.tensor([[0.0, 0.0, 16.0, 16.0]])).tolist()
        [0, -1, -1, -1, -1, -1, -1, -1]
    """
    matched = torch.full((len(grid.xywh_net),), NEGATIVE, dtype=torch.long, device=grid.xywh_net.device)
    if len(face_xyxy) == 0:
        return matched
    iou = paired_iou(to_xyxy(grid.xywh_net)[:, None], face_xyxy[None])  # (k, n)
    centre = (face_xyxy[:, :2] + face_xyxy[:, 2:]) / 2
    offset = (centre[None] - grid.xywh_net[:, None, :2]).abs() / grid.stride[:, None, None]  # (k, n, 2)
    can_reach = (offset <= _REACH).all(dim=-1)
    reachable = torch.where(can_reach, iou, iou.new_tensor(-1.0))
    best, face = reachable.max(dim=1)
    matched[best >= NEGATIVE_IOU] = IGNORED
    positive = best >= POSITIVE_IOU
    best_of_face = reachable.max(dim=0).values  # (n,)
    fits_best = (reachable >= best_of_face * _BEST_SHARE) & (best_of_face < POSITIVE_IOU) & (reachable > 0)
    for number in torch.nonzero(fits_best.any(dim=0)).flatten().tolist():
        matched[fits_best[:, number]] = number
    matched[positive] = face[positive]
    return matched


def to_xyxy(xywh: Tensor) -> Tensor:
    """Converts boxes (..., 4) from centre, width and height to corners."""
    half = xywh[..., 2:] / 2
    return torch.cat((xywh[..., :2] - half, xywh[..., :2] + half), dim=-1)


def paired_iou(a_xyxy: Tensor, b_xyxy: Tensor) -> Tensor:
    """Computes the intersection over union of boxes with broadcasting: (..., 4) and (..., 4) to (...)."""
    sides = (torch.minimum(a_xyxy[..., 2:], b_xyxy[..., 2:]) - torch.maximum(a_xyxy[..., :2], b_xyxy[..., :2])).clamp(0)
    shared = sides[..., 0] * sides[..., 1]
    areas = [(box[..., 2] - box[..., 0]) * (box[..., 3] - box[..., 1]) for box in (a_xyxy, b_xyxy)]
    return shared / (areas[0] + areas[1] - shared).clamp(min=1e-9)
