"""The model job and command: counts by hand and by published totals, the layer table, ratios, errors."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner
from torch import Tensor, nn

from emoface.cli import main
from emoface.errors import SettingsError
from emoface.jobs.model import ModelConfig, printed_sizes, run_model
from emoface.mter import MODEL_NAMES, build_model
from emoface.mter.base import Mter, MterOutput
from emoface.mter.blocks import Backbone, BasicBlock
from emoface.mter.cost import count_macs, empty_inputs, measure_cost, measure_latencies, trace_shapes
from emoface.mter.mobilenet import MobileNetV2SE
from emoface.mter.resnet import ResNet18
from emoface.storage.cards import read_card


class OneBackbone(Mter):
    """A backbone as a model, to run it through the same counting; ``size`` is its input's height and width."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__("one", ("context",))
        self.network = network

    def backbones(self) -> dict[str, Backbone]:
        return {}

    def forward(self, inputs: dict[str, Tensor], has_face: Tensor) -> MterOutput:
        return MterOutput(self.network(inputs["context"]), {}, None)


def test_macs_of_small_layers_by_hand() -> None:
    assert count_macs(nn.Conv2d(3, 8, 3), (3, 6, 9), (8, 4, 7)) == 8 * 4 * 7 * 27
    assert count_macs(nn.Conv2d(8, 8, 3, groups=8), (8, 6, 9), (8, 4, 7)) == 8 * 4 * 7 * 9
    assert count_macs(nn.Conv2d(8, 4, (1, 3), groups=2), (8, 6, 9), (4, 6, 7)) == 4 * 6 * 7 * 4 * 3
    assert count_macs(nn.Linear(5, 3), (5,), (3,)) == 15
    for module in (nn.BatchNorm2d(8), nn.ReLU(), nn.PReLU(), nn.AdaptiveAvgPool2d(1), nn.Sequential(nn.Linear(5, 3))):
        assert count_macs(module, (8, 4, 4), (8, 4, 4)) == 0


def test_a_network_on_a_photo_that_is_not_square_by_hand() -> None:
    network = OneBackbone(nn.Sequential(nn.Conv2d(3, 4, 3, 2, 1), nn.BatchNorm2d(4), BasicBlock(4, 8, 2)))
    calls = trace_shapes(network, {"context": torch.zeros(2, 3, 16, 24)})
    assert calls["network.0"].input_shape == (3, 16, 24)
    assert calls["network.0"].output_shape == (4, 8, 12)
    assert calls["network.2"].output_shape == (8, 4, 6)
    by_hand = 4 * 8 * 12 * 27 + 8 * 4 * 6 * 36 + 8 * 4 * 6 * 72 + 8 * 4 * 6 * 4
    assert sum(call.n_macs for call in calls.values()) == by_hand


def test_published_totals_of_resnet18_and_mobilenet_v2() -> None:
    """Torchvision states 1.814 and 0.301 GMACs at 224 pixels for 1000 classes."""
    resnet = measure_cost(OneBackbone(ResNet18()))
    assert round(resnet.n_macs / 1e9, 3) == 1.814
    assert resnet.n_parameters == 11_689_512
    plain = MobileNetV2SE(n_features=1280)
    for module in plain.modules():
        if hasattr(module, "se"):
            module.se = nn.Identity()
    mobilenet = measure_cost(OneBackbone(nn.Sequential(plain, nn.Linear(1280, 1000))))
    assert round(mobilenet.n_macs / 1e9, 3) == 0.301
    assert mobilenet.n_parameters == 3_504_872


@pytest.mark.parametrize("name", MODEL_NAMES)
def test_rows_add_up_to_the_model(name: str) -> None:
    model = build_model(name, predicts_vad=True)
    cost = measure_cost(model)
    assert sum(row.n_macs for row in cost.rows) == cost.n_macs
    assert sum(row.n_parameters for row in cost.rows) == cost.n_parameters
    assert cost.n_parameters == sum(one.numel() for one in model.parameters())
    assert {row.part for row in cost.rows} <= {*model.parts, "fusion"}


def test_counting_leaves_the_model_as_it_was() -> None:
    model = build_model("task2").train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    measure_cost(model)
    assert model.training
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_hooks_are_gone_after_an_error() -> None:
    model = build_model("task2").train()
    with pytest.raises(ValueError, match="'body' has shape"):
        trace_shapes(model, {"body": torch.zeros(1, 1, 128, 128)})
    assert model.training
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


def test_latency_is_of_the_runs_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    model, n_calls = build_model("task1"), 0
    forward = model.forward

    def counted(inputs: dict[str, Tensor], has_face: Tensor) -> MterOutput:
        nonlocal n_calls
        n_calls += 1
        assert len(has_face) == 2
        return forward(inputs, has_face)

    monkeypatch.setattr(model, "forward", counted)
    clock = iter([0.0, 1.0, 1.010, 2.0, 2.030, 3.0, 3.020])  # one warm-up, then 10, 30 and 20 ms
    monkeypatch.setattr("emoface.mter.cost.time.perf_counter", lambda: next(clock))
    (latency,) = measure_latencies([model], batch_size=2, n_runs=3)
    assert n_calls == 4
    assert latency.median_ms == pytest.approx(20)
    assert latency.fastest_ms == pytest.approx(10)
    assert (latency.batch_size, latency.n_runs, latency.device) == (2, 3, "cpu")


def test_models_take_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[str] = []
    models = [build_model("task1"), build_model("task2")]
    for model in models:
        monkeypatch.setattr(model, "forward", lambda *_, name=model.name: order.append(name))
    latencies = measure_latencies(models, n_runs=2)
    assert order == ["task1", "task2"] * 3
    assert len(latencies) == 2


def test_sizes_of_every_stream() -> None:
    shapes = {name: tuple(x.shape) for name, x in empty_inputs(build_model("mter2"), 3).items()}
    assert shapes == {"face": (3, 3, 128, 128), "body": (3, 3, 128, 128), "context": (3, 3, 224, 224)}


def test_report_of_mter2_shows_all_rows_of_both_tables_and_agrees_with_them() -> None:
    report = run_model(ModelConfig(name="mter2", against=("task2+task3", "mter2", "task2+task3"), runs=1))
    assert report.streams == ("face", "body", "context")
    assert [ratio.other.model for ratio in report.ratios] == ["task2+task3"]
    tables = read_card("thesis_layers")
    for part, n_rows in (("face", 11), ("body", 11), ("context", 20)):
        printed = [layer for layer in report.layers if layer.part == part and layer.thesis]
        assert len(printed) == n_rows == len(tables["table_3_2" if part == "context" else "table_3_1"]["rows"])
        for layer in printed[:-1]:
            assert layer.thesis in (layer.input, f"{layer.input} > {layer.output}")
        assert printed[-1].thesis in ("1000x1x1", "512x1x1 > 1x1000")
    assert [layer.operator for layer in report.layers if layer.part == "fusion"] == [
        "fully connected",
        "BatchNorm",
        "PReLU",
        "fully connected",
    ]
    ratio = report.ratios[0]
    assert ratio.parameters == report.cost.parameters / ratio.other.parameters
    assert ratio.multiply_adds == report.cost.multiply_adds / ratio.other.multiply_adds
    assert ratio.latency == report.cost.latency_ms / ratio.other.latency_ms
    # one stream and 1000 x 256 columns of the fusion more
    face = measure_cost(build_model("task1"))
    assert report.cost.parameters - ratio.other.parameters == face.n_parameters + 256_000
    assert report.cost.multiply_adds - ratio.other.multiply_adds == face.n_macs + 256_000


def test_cards_tables_are_whole() -> None:
    assert printed_sizes("table_3_1", 10) == "1000x1x1"
    assert printed_sizes("table_3_2", 19) == "512x1x1 > 1x1000"
    rows = read_card("thesis_layers")["table_3_2"]["rows"]
    # each row of table 3-2 takes what the one before it gives
    assert [row["input"] for row in rows[1:]] == [row["output"] for row in rows[:-1]]


def test_command_prints_both_tables() -> None:
    answer = CliRunner().invoke(main, ["model", "task2", "--against", "task1", "--runs", "1"])
    assert answer.exit_code == 0, answer.output
    lines = [line.split("\t") for line in answer.stdout.splitlines()]
    assert lines[0] == ["part", "operator", "input", "output", "thesis", "parameters", "MACs, G"]
    assert lines[1] == ["body", "conv 3x3 s=2", "3x128x128", "32x64x64", "3x128x128", "928", "0.003539"]
    assert lines[11][:5] == ["body", "fully connected", "1000", "26", "1000x1x1"]
    assert lines[12][:3] == ["model", "parameters", "MACs, G"]
    assert lines[13][:3] == ["task2", "2,732,128", "0.097"]
    assert lines[14][:3] == ["task1", "2,732,128", "0.097"]
    assert lines[14][4:6] == ["1.00", "1.00"]
    assert len(lines) == 15


def test_command_as_json_is_the_report() -> None:
    answer = CliRunner().invoke(main, ["model", "task1", "--against", "task1", "--runs", "1", "--json"])
    assert answer.exit_code == 0, answer.output
    report = json.loads(answer.stdout)
    assert report["cost"]["parameters"] == 2_732_128
    assert report["ratios"] == []
    assert len(report["layers"]) == 11


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"name": "mter9"}, "no model is called 'mter9'; did you mean 'mter"),
        ({"name": "task1", "against": ("kost",)}, "no model is called 'kost'; did you mean 'kosti'"),
        ({"name": "task1", "batch_size": 0}, "batch_size is 0, expected 1 or more"),
        ({"name": "task1", "runs": 0}, "runs is 0, expected 1 to 10,000"),
        ({"name": "task1", "device": "tpu:x"}, "device is 'tpu:x', expected cpu"),
        ({"name": "task1", "device": "cuda:99"}, "device is 'cuda:99', but torch sees"),
        ({"name": "task1", "device": "meta"}, "device is 'meta', expected cpu"),
    ],
)
def test_settings_that_cannot_be_used_are_named(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        run_model(ModelConfig(**settings))


def test_command_says_an_error_in_one_line(tmp_path: Path) -> None:
    answer = CliRunner().invoke(main, ["model", "mter9"])
    assert answer.exit_code == 1
    assert answer.stderr == "Error: no model is called 'mter9'; did you mean 'mter2'?\n"
    assert not list(tmp_path.iterdir())
