"""The depth branch of ``emoticon``: a CNN on the depth map, or a graph network on the places of the photo's people.

Source: Mittal et al. 2020, "EmotiCon: Context-Aware Multimodal Emotion Recognition using Frege's Principle", context 3.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from emoface.mter.blocks import GridPool
from emoface.mter.inputs import N_PLACE_VALUES
from emoface.schema import N_CATEGORIES

DEPTH_WIDTHS = (32, 64, 128, 256, 512)
DEPTH_HIDDEN = 1000
GRAPH_WIDTH = 256
_GRID = 7
"""Side of the last map at an input of 224 pixels."""


class DepthCnn(nn.Module):
    """Five convolutions with ReLU and max pooling, 1000 features, and a layer to 26; (b, 1, h, w) to (b, 26).

    The first convolution is 5x5, the others 3x3. The last map, 7x7 at 224 pixels, is flattened; at another size it is
    averaged to 7x7 first. ReLU, padding and pooling of 2x2 are our choice.

    Args:
        widths: Channels of the convolutions.
        n_hidden: Width of the fully connected layer.
        n_labels: Number of labels.
    """

    def __init__(
        self,
        widths: tuple[int, ...] = DEPTH_WIDTHS,
        n_hidden: int = DEPTH_HIDDEN,
        n_labels: int = N_CATEGORIES,
    ) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        channels = 1
        for number, width in enumerate(widths):
            kernel = 5 if number == 0 else 3
            layers += [nn.Conv2d(channels, width, kernel, padding=kernel // 2), nn.ReLU(), nn.MaxPool2d(2)]
            channels = width
        self.layers = nn.Sequential(*layers)
        self.pool = GridPool(_GRID)
        self.reduce = nn.Linear(channels * _GRID**2, n_hidden)
        self.act = nn.ReLU()
        self.head = nn.Linear(n_hidden, n_labels)
        for module in self.layers:
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")

    def forward(self, depth: Tensor) -> Tensor:
        maps = self.pool(self.layers(depth))
        out: Tensor = self.head(self.act(self.reduce(maps.flatten(1))))
        return out


def proximity(places: Tensor, is_present: Tensor, limit: float) -> Tensor:
    """Computes the normalised adjacency of the graph of a photo's people.

    Two people at a distance d below the limit are joined with exp(-d), and everybody with itself with 1; the sum is
    normalised by D^-1/2 A D^-1/2 for the sums D of its rows.

    Args:
        places: (b, n, 3) places of people.
        is_present: (b, n) bool; rows that are False are nobody and joined with nobody.
        limit: The limit of the distance, in the unit of the places.

    Returns:
        (b, n, n), symmetric, float32; rows and columns of nobody are 0.

    Source: Mittal et al. 2020, "EmotiCon"; Kipf and Welling 2017 for the normalisation.
    """
    points = places.detach().float()
    distances = (points[:, :, None] - points[:, None]).square().sum(dim=3).sqrt()
    joined = (distances < limit) & is_present[:, :, None] & is_present[:, None]
    adjacency = torch.where(joined, torch.exp(-distances), 0.0)
    scale = adjacency.sum(dim=2).clamp(min=1).rsqrt()  # the sum of a present person is at least 1, its own
    return adjacency * scale[:, :, None] * scale[:, None]


class ProximityGcn(nn.Module):
    """Two graph convolutions on the people of a photo, and a layer from the person's own node to 26.

    Args:
        limit: Distance up to which two people are joined, see ``proximity``; the paper gives no value.
        width: Features of a node after each convolution; the paper gives none.
        n_labels: Number of labels.
    """

    def __init__(self, limit: float = 1.0, width: int = GRAPH_WIDTH, n_labels: int = N_CATEGORIES) -> None:
        super().__init__()
        self.limit = limit
        self.first = nn.Linear(N_PLACE_VALUES, width)
        self.second = nn.Linear(width, width)
        self.act = nn.ReLU()
        self.head = nn.Linear(width, n_labels)

    def forward(self, people: Tensor, is_present: Tensor) -> Tensor:
        """Computes the output of b people.

        Args:
            people: (b, n, 5), see ``inputs.PEOPLE``; x, y and depth enter relative to the person's own, so that moving
                all people alike changes nothing.
            is_present: (b, n) bool; the output of people without a place of their own is 0.

        Returns:
            (b, 26).
        """
        known = people.masked_fill(~is_present[:, :, None], 0)
        x, y, width, height, depth = known.unbind(dim=2)
        places = torch.stack((x, y, depth), dim=2)
        relative = (places - places[:, :1]).masked_fill(~is_present[:, :, None], 0)
        nodes = torch.cat((relative, torch.stack((width, height), dim=2)), dim=2)
        adjacency = proximity(places, is_present, self.limit).to(nodes.dtype)
        nodes = self.act(adjacency @ self.first(nodes))
        nodes = self.act(adjacency @ self.second(nodes))
        out: Tensor = self.head(nodes[:, 0]).masked_fill(~is_present[:, :1], 0)
        return out
