"""The affective graph by name: a graph network on regions of the photo, beside a CNN on the body.

Only the paper's abstract and the settings of a re-run are public. The layers are our choice, and ``docs/mter.md`` says
so; what the abstract states is that region proposals are the nodes of a graph, that a network learns their affective
relation, that a CNN sees the body, and that both together give the 26 categories and valence, arousal and dominance.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from emoface.mter.base import ContextInput, Mter, MterOutput, check_inputs
from emoface.mter.blocks import Backbone, FeatureNorm, GridPool
from emoface.mter.inputs import N_BOX_VALUES, REGIONS, model_array_inputs
from emoface.mter.names import RegionSource
from emoface.mter.resnet import ResNet18
from emoface.schema import N_CATEGORIES

NODE_WIDTH = 256
JOINED_WIDTH = 256
GRID_SIDE = 3
N_VAD = 3


def grid_boxes(side: int = GRID_SIDE) -> Tensor:
    """The boxes of the built-in regions: the cells of a square grid, row by row, and then the whole photo.

    Returns:
        (side * side + 1, 4), x1, y1, x2, y2 as shares of the photo.

    Example:
        >>> grid_boxes(2)[[1, 4]].tolist()
        [[0.5, 0.0, 1.0, 0.5], [0.0, 0.0, 1.0, 1.0]]
    """
    edges = torch.linspace(0, 1, side + 1)
    top, left = (index.flatten() for index in torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij"))
    cells = torch.stack((edges[left], edges[top], edges[left + 1], edges[top + 1]), dim=1)
    return torch.cat((cells, torch.tensor([[0.0, 0.0, 1.0, 1.0]])))


class GridRegions(nn.Module):
    """Ten regions of the last map of the context network: the cells of a 3x3 grid and the whole photo.

    A cell's features are the mean of the map over it, where cells overlap if the map's side is no multiple of 3.
    """

    def __init__(self) -> None:
        super().__init__()
        self.pool = GridPool(GRID_SIDE)
        self.register_buffer("boxes", grid_boxes(), persistent=False)

    def forward(self, maps: Tensor) -> Tensor:
        """Computes the regions, (b, 10, 512 + 4), from the last map, (b, 512, h, w)."""
        cells = self.pool(maps).flatten(2)  # (b, 512, 9)
        features = torch.cat((cells, maps.mean(dim=(2, 3))[:, :, None]), dim=2).transpose(1, 2)
        boxes = self.get_buffer("boxes").to(features.dtype).expand(features.shape[0], -1, -1)
        return torch.cat((features, boxes), dim=2)


class RegionGraph(nn.Module):
    """Two graph layers on the regions of a photo, and the mean over them; (b, n, c) to (b, 256).

    The adjacency is the softmax over j of theta(x_i) . phi(x_j) / sqrt(256), plus the identity, with rows divided by
    their sums. It is computed once, from the first node features, and both layers use it.

    Args:
        n_values: Numbers of a region, its box among them.
        width: Features of a node.
    """

    def __init__(self, n_values: int, width: int = NODE_WIDTH) -> None:
        super().__init__()
        self.width = width
        self.embed = nn.Linear(n_values, width)
        self.theta = nn.Linear(width, width)
        self.phi = nn.Linear(width, width, bias=False)  # one would add the same to all scores of a row
        self.first = nn.Linear(width, width)
        self.second = nn.Linear(width, width)
        self.act = nn.ReLU()

    def forward(self, regions: Tensor, is_present: Tensor) -> Tensor:
        """Computes the features of b photos.

        Args:
            regions: (b, n, c).
            is_present: (b, n) bool; the values of other regions are ignored. Without any region the features are 0.

        Returns:
            (b, 256), the same for any order of the regions.
        """
        nodes = self.embed(regions.masked_fill(~is_present[:, :, None], 0))  # (b, n, 256)
        adjacency = self.relate(nodes, is_present)
        nodes = self.second(adjacency @ self.act(self.first(adjacency @ nodes)))
        weights = is_present / is_present.sum(dim=1, keepdim=True).clamp(min=1)  # (b, n)
        mean: Tensor = (nodes * weights[:, :, None].to(nodes.dtype)).sum(dim=1)
        return mean

    def relate(self, nodes: Tensor, is_present: Tensor) -> Tensor:
        """Computes the adjacency, (b, n, n) with rows of sum 1; columns of absent regions are 0 but for themselves."""
        scores = (self.theta(nodes) @ self.phi(nodes).transpose(1, 2)).float() / self.width**0.5
        lowest = torch.finfo(scores.dtype).min  # not -inf: the rows of a photo without any region stay finite
        adjacency = scores.masked_fill(~is_present[:, None], lowest).softmax(dim=2)
        adjacency = adjacency + torch.eye(nodes.shape[1], device=nodes.device)
        normalised: Tensor = (adjacency / adjacency.sum(dim=2, keepdim=True)).to(nodes.dtype)
        return normalised


class AffectiveGraph(Mter):
    """The affective graph: body features of 512 and graph features of 256, joined at 256.

    Args:
        dropout: Dropout probability before the last layers.
        predicts_vad: Whether the network has a head for valence, arousal and dominance; the paper's has.
        has_linear_outputs: See ``Mter``.
        region_source: ``proposals`` for regions that are given as input; ``grid`` for the built-in ones, a fixed grid
            over the last map of a ResNet18 on the photo, which is no part of the paper.
        context_center_share: See ``ContextInput``.
        n_labels: Number of labels.

    Source: Zhang, Liang and Ma 2019, "Context-Aware Affective Graph Reasoning for Emotion Recognition", abstract.
    """

    def __init__(
        self,
        *,
        dropout: float = 0.5,
        predicts_vad: bool = False,
        has_linear_outputs: bool = False,
        region_source: RegionSource = "proposals",
        context_center_share: float = 1.0,
        n_labels: int = N_CATEGORIES,
    ) -> None:
        is_grid = region_source == "grid"
        super().__init__(
            "affective-graph",
            ("body", "context") if is_grid else ("body",),
            context_input=ContextInput(center_share=context_center_share),
            array_inputs=model_array_inputs("affective-graph", region_source=region_source),
            has_linear_outputs=has_linear_outputs,
            n_labels=n_labels,
        )
        self.body = ResNet18(n_features=None)
        self.grid = None
        n_values = REGIONS.shape[-1]
        if is_grid:
            self.context = ResNet18(n_features=None)
            self.grid = GridRegions()
            n_values = self.context.n_features + N_BOX_VALUES
        self.graph = RegionGraph(n_values)
        self.reduce = nn.Linear(self.body.n_features + NODE_WIDTH, JOINED_WIDTH)
        self.norm = FeatureNorm(JOINED_WIDTH)
        self.act = nn.ReLU()
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(JOINED_WIDTH, n_labels)
        self.vad_head = nn.Linear(JOINED_WIDTH, N_VAD) if predicts_vad else None

    @property
    def parts(self) -> tuple[str, ...]:
        return (*self.streams, "graph")

    def backbones(self) -> dict[str, Backbone]:
        return {"body": self.body} if self.grid is None else {"body": self.body, "context": self.context}

    def forward(self, inputs: Mapping[str, Tensor], has_face: Tensor) -> MterOutput:
        check_inputs(self, inputs, has_face)
        body = self.body(inputs["body"])
        if self.grid is None:
            regions, is_present = inputs["regions"], inputs[REGIONS.presence]
        else:
            regions = self.grid(self.context.layer4(self.context.to_third_stage(inputs["context"])))
            is_present = torch.ones(regions.shape[:2], dtype=torch.bool, device=regions.device)
        features = torch.cat((body, self.graph(regions, is_present).to(body.dtype)), dim=1)  # (b, 768)
        joined = self.dropout(self.act(self.norm(self.reduce(features))))
        vad_unit = None if self.vad_head is None else self.to_vad_unit(self.vad_head(joined))
        return MterOutput(self.head(joined), {}, vad_unit)
