"""The affective graph: sizes, the graph by hand, regions in any order, missing regions, the built-in grid, training."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from branch_inputs import draw_inputs, everybody, n_parameters, narrow_resnets, wake
from click.testing import CliRunner
from mter_data import write_photos_and_tables
from torch import nn

from emoface.cli import main
from emoface.jobs.train import TrainConfig, run_train
from emoface.mter import build_model
from emoface.mter.affective_graph import AffectiveGraph, GridRegions, RegionGraph, grid_boxes
from emoface.mter.cost import empty_inputs, trace_shapes
from emoface.mter.losses import label_losses, weigh_labels
from emoface.mter.recipe import PRESETS
from emoface.mter.runs import read_run

SOURCES = ["proposals", "grid"]


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


@pytest.fixture
def narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    narrow_resnets(monkeypatch)


def build(**settings: Any) -> AffectiveGraph:
    model = build_model("affective-graph", **{"predicts_vad": True, **settings})
    assert isinstance(model, AffectiveGraph)
    return model


def test_layers_and_sizes() -> None:
    model = build()
    assert model.streams == ("body",) and list(model.array_inputs) == ["regions"]
    graph = (1028 * 256 + 256) + (256 * 256 + 256) + 256 * 256 + 2 * (256 * 256 + 256)
    assert n_parameters(model.graph) == graph
    joined = 768 * 256 + 256 + 2 * 256 + 256 * 26 + 26 + 256 * 3 + 3
    assert n_parameters(model) == n_parameters(model.body) + graph + joined
    calls = trace_shapes(model, empty_inputs(model, 1))
    assert calls["body.layer4"].output_shape == (512, 4, 4)
    assert (calls["graph.embed"].input_shape, calls["graph.embed"].output_shape) == ((10, 1028), (10, 256))
    assert (calls["reduce"].input_shape, calls["reduce"].output_shape) == ((768,), (256,))
    assert calls["head"].output_shape == (26,) and calls["vad_head"].output_shape == (3,)
    assert model.dropout.p == 0.5


def test_built_in_regions_are_a_setting() -> None:
    model = build(region_source="grid")
    assert model.streams == ("body", "context") and not model.array_inputs
    assert tuple(model.backbones()) == ("body", "context") == tuple(model.last_maps())
    assert model.graph.embed.in_features == 516
    keys = list(model.state_dict())
    assert len(keys) == len(set(keys)) and not any(key.startswith("grid") for key in keys)
    calls = trace_shapes(model, empty_inputs(model, 1))
    assert calls["grid"].input_shape == (512, 7, 7) and calls["grid"].output_shape == (10, 516)


def test_grid_regions_by_hand() -> None:
    maps = torch.zeros(1, 2, 6, 6)
    maps[0, 1] = torch.arange(36.0).view(6, 6)
    regions = GridRegions()(maps)
    assert regions.shape == (1, 10, 6)
    # the cell in the middle has the values 14, 15, 20, 21; the last region is the whole map
    assert regions[0, 4].tolist() == pytest.approx([0, 17.5, 1 / 3, 1 / 3, 2 / 3, 2 / 3])
    assert regions[0, 9].tolist() == [0, 17.5, 0, 0, 1, 1]
    # the second cell is right of the first one, the fourth below it
    assert regions[0, 1, 1] == pytest.approx((2 + 3 + 8 + 9) / 4) and regions[0, 3, 1] == (12 + 13 + 18 + 19) / 4
    assert grid_boxes()[5].tolist() == pytest.approx([2 / 3, 1 / 3, 1, 2 / 3])


def _identity(layer: nn.Linear) -> None:
    nn.init.eye_(layer.weight)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)


def test_graph_by_hand() -> None:
    graph = RegionGraph(n_values=2, width=2)
    for layer in (graph.embed, graph.theta, graph.phi, graph.first, graph.second):
        _identity(layer)
    nodes = torch.tensor([[[1.0, 0.0], [0.0, 2.0]]])
    is_present = torch.tensor([[True, True]])
    # scores 1 and 0 of the first node, 0 and 4 of the second, over the root of 2; half of a row is the identity
    first, second = (1 / (1 + math.exp(-score / math.sqrt(2))) for score in (1, 4))
    rows = [[(1 + first) / 2, (1 - first) / 2], [(1 - second) / 2, (1 + second) / 2]]
    torch.testing.assert_close(graph.relate(nodes, is_present)[0], torch.tensor(rows))
    adjacency = np.array(rows)
    by_hand = (adjacency @ np.maximum(adjacency @ nodes[0].numpy(), 0)).mean(axis=0)
    assert graph(nodes, is_present)[0].tolist() == pytest.approx(by_hand.tolist(), rel=1e-5)


def test_order_of_the_regions_does_not_matter(narrow: None) -> None:
    model = build().eval()
    inputs = draw_inputs(model, 2)
    inputs["has_region"][0, 3:6] = False
    order = torch.randperm(10)
    shuffled = {**inputs, "regions": inputs["regions"][:, order], "has_region": inputs["has_region"][:, order]}
    with torch.no_grad():
        one, other = model(inputs, everybody(2)), model(shuffled, everybody(2))
        torch.testing.assert_close(one.logits, other.logits, rtol=1e-4, atol=1e-5)
        assert one.vad_unit is not None and other.vad_unit is not None
        torch.testing.assert_close(one.vad_unit, other.vad_unit, rtol=1e-4, atol=1e-5)


def test_absent_regions_are_ignored_and_without_any_the_graph_adds_nothing(narrow: None) -> None:
    model = build().eval()
    inputs = draw_inputs(model, 3)
    inputs["has_region"][0, 4:] = inputs["has_region"][1] = False
    other = {**inputs, "regions": inputs["regions"].clone()}
    other["regions"][0, 4:] = other["regions"][1] = math.nan
    with torch.no_grad():
        assert torch.equal(model(inputs, everybody(3)).logits, model(other, everybody(3)).logits)
        features = model.graph(other["regions"], inputs["has_region"])
        assert not features[1].any() and features[0].any()
        four = model.graph(inputs["regions"][:1, :4], torch.ones(1, 4, dtype=torch.bool))
        torch.testing.assert_close(features[:1], four)
        changed = inputs["regions"].clone()
        changed[0, 3] += 1
        assert not torch.allclose(model.graph(changed, inputs["has_region"])[0], features[0])


def test_batch_without_any_region_has_gradients_of_zero(narrow: None) -> None:
    model = build().train()
    inputs = draw_inputs(model, 2)
    inputs["has_region"][:] = False
    output = model(inputs, everybody(2))
    assert output.vad_unit is not None
    (output.logits.square().sum() + output.vad_unit.sum()).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and bool(parameter.grad.isfinite().all()), name
        assert not (name.startswith("graph.") and bool(parameter.grad.any())), name


@pytest.mark.parametrize("source", SOURCES)
def test_gradients_reach_every_parameter(narrow: None, source: str) -> None:
    model = build(region_source=source).train()
    wake(model)
    output = model(draw_inputs(model, 4), everybody(4))
    assert output.vad_unit is not None
    (output.logits * torch.randn(4, 26)).sum().add((output.vad_unit * torch.randn(4, 3)).sum()).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and bool(parameter.grad.any()), name


@pytest.mark.parametrize("source", SOURCES)
def test_one_person_nobody_half_precision_and_channels_last(narrow: None, source: str) -> None:
    model = build(region_source=source).train()
    inputs = draw_inputs(model, 2)
    assert bool(model(draw_inputs(model, 1, side=64), everybody(1)).logits.isfinite().all())
    model.eval()
    with torch.no_grad():
        assert model({name: x[:0] for name, x in inputs.items()}, everybody(0)).logits.shape == (0, 26)
        expected = model(inputs, everybody(2)).logits
        alone = model({name: x[1:] for name, x in inputs.items()}, everybody(1)).logits
        torch.testing.assert_close(alone, expected[1:], rtol=1e-3, atol=1e-4)
        with torch.autocast("cpu", torch.bfloat16):
            torch.testing.assert_close(model(inputs, everybody(2)).logits.float(), expected, rtol=0.1, atol=0.1)
        last = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        torch.testing.assert_close(last(inputs, everybody(2)).logits, expected, rtol=1e-3, atol=1e-4)
        half = {name: x.bfloat16() if x.is_floating_point() else x for name, x in inputs.items()}
        assert model.bfloat16()(half, everybody(2)).logits.dtype == torch.bfloat16


def test_learns_16_people_by_heart(narrow: None) -> None:
    recipe = PRESETS["affective-graph"].recipe
    model = build(dropout=0, linear_outputs=True).train()
    inputs, labels, vad = draw_inputs(model, 16), (torch.rand(16, 26) < 0.2).float(), torch.rand(16, 3)
    weights = weigh_labels(recipe.label_weights, labels.numpy().astype(np.uint8))
    assert weights is not None
    optimizer = torch.optim.Adam(model.parameters(), lr=0.005)
    losses: list[dict[str, float]] = []
    for _ in range(25):
        terms = label_losses(
            model(inputs, everybody(16)),
            labels,
            has_face=everybody(16),
            kind=recipe.loss,
            is_linear=True,
            labels_weight=0.5,
            label_weights=torch.from_numpy(weights),
            vad_unit=vad,
            vad_weight=0.5,
        )
        optimizer.zero_grad()
        torch.stack(list(terms.values())).sum().backward()
        optimizer.step()
        losses.append({name: value.item() for name, value in terms.items()})
    assert losses[-1]["labels"] < 0.2 * losses[0]["labels"] and losses[-1]["vad"] < 0.2 * losses[0]["vad"], losses


def test_preset_has_the_published_settings() -> None:
    preset = PRESETS["affective-graph"]
    recipe = preset.recipe
    assert (recipe.optimizer, recipe.momentum, recipe.learning_rate, recipe.weight_decay) == ("sgd", 0.9, 1e-3, 5e-4)
    assert (recipe.batch_size, recipe.epochs, recipe.dropout) == (64, 60, 0.5)
    assert (recipe.loss, recipe.label_weights, recipe.vad_loss) == ("weighted_euclidean", "kosti", "smooth_l1")
    assert (recipe.labels_weight, recipe.vad_weight) == (0.5, 0.5) and recipe.predicts_vad
    assert preset.models == ("affective-graph",) and recipe.region_source == "proposals"


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ("emoticon", "depth.parquet: no such file; run 'emoface depth DIR' first"),
        ("affective-graph", "regions.parquet: no such file; run 'emoface regions DIR' first"),
    ],
)
def test_training_without_the_inputs_is_refused_in_one_line(tmp_path: Path, model: str, message: str) -> None:
    manifest = write_photos_and_tables(tmp_path / "data", 4)
    options = ["--manifest", str(manifest), "--model", model, "--preset", model]
    answer = CliRunner().invoke(main, ["train", *options, "--out", str(tmp_path / "run")])
    assert answer.exit_code == 1 and message in answer.stderr and answer.stderr.count("\n") == 1
    assert not (tmp_path / "run" / "run.json").exists()


def test_built_in_regions_train(narrow: None, tmp_path: Path) -> None:
    manifest = write_photos_and_tables(tmp_path / "data", 8)
    changes = {"epochs": 1, "batch_size": 8, "region_source": "grid"}
    config = TrainConfig(
        manifest=manifest,
        out=tmp_path / "run",
        model="affective-graph",
        preset="affective-graph",
        recipe=changes,
        pretrained="none",
        context_size=32,
        person_size=32,
        workers=0,
        device="cpu",
    )
    run_train(config)
    run = read_run(tmp_path / "run")
    assert set(run.log()[0]["train_losses"]) >= {"labels", "vad"}
    model = run.load_model()
    assert isinstance(model, AffectiveGraph) and model.grid is not None and model.has_linear_outputs
