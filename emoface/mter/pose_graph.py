"""The pose branch of ``emoticon``: ST-GCN of one frame on the graph of the 25 joints of BODY_25.

A photo is one frame. Of the nine taps of ST-GCN's temporal convolution all but the centre see padding there, so each
unit has the centre tap alone, which is the same function; its strides along time have no effect and are left out.

Source: Yan et al. 2018, "Spatial Temporal Graph Convolutional Networks for Skeleton-Based Action Recognition".
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from emoface.mter.blocks import FeatureNorm
from emoface.mter.inputs import N_JOINTS
from emoface.schema import N_CATEGORIES

NECK = 1
BODY_25_BONES = (
    *((0, 1), (1, 8)),  # nose, neck, middle of the hips
    *((1, 2), (2, 3), (3, 4)),  # right arm
    *((1, 5), (5, 6), (6, 7)),  # left arm
    *((8, 9), (9, 10), (10, 11)),  # right leg
    *((8, 12), (12, 13), (13, 14)),  # left leg
    *((0, 15), (15, 17), (0, 16), (16, 18)),  # right eye and ear, left eye and ear
    *((14, 19), (19, 20), (14, 21)),  # left foot: big toe, small toe, heel
    *((11, 22), (22, 23), (11, 24)),  # right foot
)
"""Pairs of joints that are connected, numbered as in OpenPose."""
N_SUBSETS = 3
POSE_WIDTHS = (64, 64, 64, 128, 128, 128, 256, 256, 256)
_POSE_CHANNELS = 3


def spatial_partition(
    n_joints: int = N_JOINTS, bones: tuple[tuple[int, int], ...] = BODY_25_BONES, center: int = NECK
) -> NDArray[np.float32]:
    """Builds the normalised adjacency of a joint graph, in three subsets by distance from the centre.

    Subset 0 has the joint itself and neighbours at the same distance from the centre, subset 1 the neighbours nearer to
    the centre, subset 2 those further from it. Each entry is divided by the number of neighbours of the receiving
    joint, itself included, so that the columns of the sum of the subsets sum to 1.

    Args:
        n_joints: Number of joints.
        bones: Connected pairs; every joint is connected with the centre by some path.
        center: The joint from which distances are counted; ST-GCN takes the neck of OpenPose's joints.

    Returns:
        (3, n_joints, n_joints); row is the joint that gives, column the joint that receives.

    Example:
        >>> chain = spatial_partition(3, ((0, 1), (1, 2)), center=0)
        >>> (3 * chain[:, :, 1]).tolist()  # thirds that the middle joint receives: from itself, from 0, from 2
        [[0.0, 1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]]

    Source: Yan et al. 2018, "spatial configuration partitioning".
    """
    linked = np.eye(n_joints, dtype=bool)
    for one, other in bones:
        linked[one, other] = linked[other, one] = True
    distance = np.full(n_joints, n_joints)
    distance[center] = 0
    for _ in range(n_joints):
        distance = np.minimum(distance, np.where(linked, distance[:, None], n_joints).min(axis=0) + 1)
    weights = linked / linked.sum(axis=0)  # (from, to)
    nearer = distance[:, None] < distance
    further = distance[:, None] > distance
    return np.stack([weights * ~(nearer | further), weights * nearer, weights * further]).astype(np.float32)


class JointSum(nn.Module):
    """Sums features over neighbouring joints, by subset and then over subsets; (b, 3 * c, v) to (b, c, v).

    The entries of the adjacency are multiplied by learned weights, which start at 1.
    """

    def __init__(self, adjacency: NDArray[np.float32]) -> None:
        super().__init__()
        self.register_buffer("adjacency", torch.from_numpy(adjacency), persistent=False)
        self.edge_weights = nn.Parameter(torch.ones(adjacency.shape))

    def forward(self, x: Tensor) -> Tensor:
        by_subset = x.unflatten(1, (len(self.edge_weights), -1))  # (b, 3, c, v)
        return torch.einsum("bkcv,kvw->bcw", by_subset, self.get_buffer("adjacency") * self.edge_weights)


class PoseUnit(nn.Module):
    """One unit of ST-GCN on one frame: graph convolution, then the centre tap of the temporal one, around a shortcut.

    Args:
        in_channels: Features of a joint.
        out_channels: Features of a joint after the unit; the shortcut is a convolution where the two differ.
        adjacency: (3, v, v), see ``spatial_partition``.
        dropout: Dropout probability before the shortcut is added.
        has_shortcut: Whether the unit has a shortcut; the first one has none.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        adjacency: NDArray[np.float32],
        dropout: float,
        has_shortcut: bool = True,
    ) -> None:
        super().__init__()
        self.spatial = nn.Conv1d(in_channels, N_SUBSETS * out_channels, 1)
        self.joints = JointSum(adjacency)
        self.spatial_norm = nn.BatchNorm1d(out_channels)
        self.act = nn.ReLU()
        self.temporal = nn.Conv1d(out_channels, out_channels, 1, bias=False)
        self.temporal_norm = nn.BatchNorm1d(out_channels)
        self.dropout = nn.Dropout(dropout)
        self.has_shortcut = has_shortcut
        self.shortcut: nn.Module = nn.Identity()
        if has_shortcut and in_channels != out_channels:
            self.shortcut = nn.Sequential(
                nn.Conv1d(in_channels, out_channels, 1, bias=False), nn.BatchNorm1d(out_channels)
            )

    def forward(self, x: Tensor) -> Tensor:
        out = self.act(self.spatial_norm(self.joints(self.spatial(x))))
        out = self.dropout(self.temporal_norm(self.temporal(out)))
        if self.has_shortcut:
            out = out + self.shortcut(x)
        summed: Tensor = self.act(out)
        return summed


class PoseBranch(nn.Module):
    """Nine units of ST-GCN, the mean over the joints, and a layer to 26; (b, 3, 25) to (b, 26).

    The x and y of a joint of confidence 0 are ignored.

    Args:
        dropout: Dropout probability within each unit.
        widths: Features of a joint after each unit.
        n_labels: Number of labels.
    """

    def __init__(
        self, dropout: float = 0.5, widths: tuple[int, ...] = POSE_WIDTHS, n_labels: int = N_CATEGORIES
    ) -> None:
        super().__init__()
        adjacency = spatial_partition()
        self.norm = FeatureNorm(_POSE_CHANNELS * N_JOINTS)
        before = (_POSE_CHANNELS, *widths[:-1])
        self.units = nn.Sequential(
            *(
                PoseUnit(one, other, adjacency, dropout, has_shortcut=number > 0)
                for number, (one, other) in enumerate(zip(before, widths, strict=True))
            )
        )
        self.head = nn.Linear(widths[-1], n_labels)

    def forward(self, pose: Tensor) -> Tensor:
        known = pose.masked_fill(pose[:, 2:] <= 0, 0)
        joints = self.norm(known.flatten(1)).view_as(known)
        out: Tensor = self.head(self.units(joints).mean(dim=2))
        return out
