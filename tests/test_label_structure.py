"""The benchmark of correlations between labels: its targets, graphs and losses, by hand."""

from __future__ import annotations

from types import ModuleType

import numpy as np
import pytest
import torch
from scripts_of_docs import load_script
from torch.nn import functional

from emoface.mter.losses import asymmetric_terms


@pytest.fixture(scope="module")
def benchmark() -> ModuleType:
    return load_script("benchmarks/label_structure.py")


def test_conditional_shares_are_drawn_to_the_prevalence_by_ten_people(benchmark: ModuleType) -> None:
    labels = torch.tensor([[1.0, 0], [1, 1], [0, 1], [1, 0]])
    expected = torch.tensor([[1, (1 + 10 * 0.5) / (3 + 10)], [(1 + 10 * 0.75) / (2 + 10), 1]])
    torch.testing.assert_close(benchmark.conditional_shares(labels), expected)


def test_targets_move_towards_the_mean_of_the_persons_labels(benchmark: ModuleType) -> None:
    shares = torch.tensor([[1, 0.5], [0.25, 1]])
    labels = torch.tensor([[1.0, 0], [1, 1], [0, 0]])
    smoothed = benchmark.smooth_targets(labels, shares, 0.2)
    torch.testing.assert_close(smoothed, torch.tensor([[1, 0.1], [0.925, 0.95], [0, 0]]))
    torch.testing.assert_close(benchmark.smooth_targets(labels, shares, 0.0), labels)


def test_graph_joins_labels_from_the_smallest_share_on(benchmark: ModuleType) -> None:
    shares = torch.tensor([[1, 0.4, 0.05], [0.1, 1, 0.3], [0, 0.02, 1]])
    expected = torch.tensor([[0.8, 0.2, 0], [0.1, 0.8, 0.1], [0, 0, 1]])
    torch.testing.assert_close(benchmark.build_graph(shares, 0.1, 0.2), expected)


def test_refined_logits_add_the_weighted_mean_of_the_others(benchmark: ModuleType) -> None:
    shares = torch.tensor([[1, 0.3, 0.1], [0.2, 1, 0.2], [0.1, 0.1, 1]])
    logits = torch.tensor([[1.0, 2, 4]])
    refined = torch.from_numpy(benchmark.refine(logits.sigmoid()[None], shares, 0.5))
    expected = torch.tensor([[1 + 0.5 * 2.5, 2 + 0.5 * 2.5, 4 + 0.5 * 1.5]])
    torch.testing.assert_close(refined.logit(), expected, rtol=1e-4, atol=1e-4)


def test_loss_of_soft_targets(benchmark: ModuleType) -> None:
    logits, soft = torch.tensor([[0.3, -1.2]]), torch.tensor([[0.9, 0.25]])
    cross_entropy = functional.binary_cross_entropy_with_logits(logits, soft, reduction="none")
    torch.testing.assert_close(benchmark.loss_terms(logits, soft, None), cross_entropy)
    torch.testing.assert_close(benchmark.loss_terms(logits, soft, (0.0, 0.0, 0.0)), cross_entropy)
    hard = torch.tensor([[1.0, 0.0]])
    torch.testing.assert_close(benchmark.loss_terms(logits, hard, (1.0, 4.0, 0.05)), asymmetric_terms(logits, hard))


@pytest.mark.parametrize("graph", [None, (0.1, 0.2)])
def test_heads_learn_what_the_columns_tell(benchmark: ModuleType, graph: tuple[float, float] | None) -> None:
    columns = torch.randn(400, 4, generator=torch.Generator().manual_seed(0))
    part = benchmark.Part(columns, (columns > 0.5).float(), np.arange(400))
    way = benchmark.Way(learning_rate=0.05, graph=graph)
    chosen = benchmark.train_heads(way, 0, part, part, n_seeds=2, epochs=8)
    assert chosen.val_map > 0.95
    assert benchmark.measure_map(part.indicator, chosen.heads.probabilities(part.columns)) == chosen.val_map
    assert benchmark.measure_map(part.indicator, chosen.heads.probabilities(-part.columns)) < 0.3
