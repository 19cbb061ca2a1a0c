"""MTER's networks: sizes as the thesis prints them, masked faces, stable names, batches of one and of no face."""

from __future__ import annotations

import re

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from emoface.errors import SettingsError
from emoface.mter import MODEL_NAMES, STREAM_SIZES, STREAMS, Mter, build_model
from emoface.mter.baselines import CaerNetS
from emoface.mter.blocks import BasicBlock, FeatureNorm, InvertedResidual, MapNorm, SqueezeExcitation
from emoface.mter.cost import empty_inputs, measure_cost, trace_shapes
from emoface.mter.mobilenet import STAGES, MobileNetV2SE
from emoface.mter.networks import StreamsModel
from emoface.mter.resnet import ResNet18
from emoface.storage.cards import read_card

STREAMS_OF = {
    "task1": ("face",),
    "task2": ("body",),
    "task3": ("context",),
    "task1+task2": ("face", "body"),
    "task1+task3": ("face", "context"),
    "task2+task3": ("body", "context"),
    "mter1": ("face", "body", "context"),
    "mter2": ("face", "body", "context"),
    "kosti": ("body", "context"),
    "caer-net-s": ("face", "context"),
    "affective-graph": ("body",),
    "emoticon": ("context",),
}
WITH_FACE = ["task1", "mter2", "caer-net-s"]  # one stream, fusion, and the baseline's own way


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


SIDE = 64
"""Side of the inputs in pixels."""


def draw_inputs(model: Mter, n_people: int, side: int = SIDE) -> dict[str, Tensor]:
    """Noise, smaller than the inputs of the thesis, on whose sizes nothing here depends but what ``cost`` counts."""
    empty = empty_inputs(model, n_people, dict.fromkeys(STREAMS, side))
    return {name: torch.randn_like(x) if x.is_floating_point() else x for name, x in empty.items()}


def settle(model: Mter) -> Mter:
    """Gives BatchNorm the statistics of some people, without which a fresh network's features vanish."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            module.momentum = None
    with torch.no_grad():
        model.train()(draw_inputs(model, 4), torch.ones(4, dtype=torch.bool))
    return model.eval()


def size(printed: str) -> tuple[int, ...]:
    return tuple(int(number) for number in printed.split("x"))


@pytest.mark.parametrize("stream", ["face", "body"])
def test_table_3_1_line_by_line(stream: str) -> None:
    printed = read_card("thesis_layers")["table_3_1"]["rows"]
    rows = [row for row in measure_cost(build_model("mter2")).rows if row.part == stream]
    assert [row.table_row for row in rows] == [("table_3_1", number) for number in range(11)]
    assert [row.input_shape for row in rows[:-1]] == [size(line["input"]) for line in printed[:-1]]
    assert rows[-1].input_shape == (1000,)  # printed as 1000x1x1
    assert [row.output_shape[0] for row in rows[:-1]] == [line["c"] for line in printed[:-1]]
    assert rows[-1].output_shape == (26,)
    # each row hands the next what the next says it gets
    assert [row.output_shape for row in rows[:-2]] == [row.input_shape for row in rows[1:-1]]


def test_table_3_1_expansion_repeats_and_strides() -> None:
    printed = read_card("thesis_layers")["table_3_1"]["rows"][1:8]
    assert [(stage.expansion, stage.channels, stage.repeats) for stage in STAGES] == [
        (line["t"], line["c"], line["n"]) for line in printed
    ]
    # the printed strides of the last three rows contradict the printed sizes; the sizes are followed
    assert [line["s"] for line in printed] == [1, 2, 2, 2, 2, 1, 2]
    assert [stage.stride for stage in STAGES] == [1, 2, 2, 2, 1, 2, 1]
    blocks = [block for block in MobileNetV2SE().features if isinstance(block, InvertedResidual)]
    assert len(blocks) == sum(line["n"] for line in printed) == 17
    depthwise = [next(layer for layer in block.modules() if is_depthwise(layer)) for block in blocks]
    assert [layer.stride[0] for layer in depthwise] == [1, 2, 1, 2, 1, 1, 2, 1, 1, 1, 1, 1, 1, 2, 1, 1, 1]
    assert [layer.in_channels for layer in depthwise[:4]] == [32, 96, 144, 144]
    # the input is added where stride is 1 and the width stays: all but the first block of each stage
    assert [block.adds_input for block in blocks] == [repeat > 0 for stage in STAGES for repeat in range(stage.repeats)]


def is_depthwise(layer: nn.Module) -> bool:
    return isinstance(layer, nn.Conv2d) and layer.groups > 1


def test_table_3_2_line_by_line() -> None:
    printed = read_card("thesis_layers")["table_3_2"]["rows"]
    model = build_model("task3")
    rows = [row for row in measure_cost(model).rows if row.table_row is not None]
    assert [row.table_row for row in rows] == [("table_3_2", number) for number in range(20)]
    assert [row.input_shape for row in rows[:-1]] == [size(line["input"]) for line in printed[:-1]]
    assert [row.output_shape for row in rows[:-1]] == [size(line["output"]) for line in printed[:-1]]
    assert (rows[-1].input_shape, rows[-1].output_shape) == ((512,), (1000,))
    for row, line in zip(rows, printed, strict=True):
        if found := re.match(r"(Conv|Maxpool)\(kernel_size=(\d), .*stride=(\d)", line["operator"]):
            kind = "conv" if found[1] == "Conv" else "max pooling"
            assert row.operator == f"{kind} {found[2]}x{found[2]} s={found[3]}"
    (context,) = model.backbones().values()
    padding = {layer.kernel_size: layer.padding for layer in context.modules() if isinstance(layer, nn.Conv2d)}
    assert padding == {(7, 7): (3, 3), (3, 3): (1, 1), (1, 1): (0, 0)}


def test_every_model_reads_its_streams_and_answers_for_each_person() -> None:
    assert set(MODEL_NAMES) == set(STREAMS_OF)
    for name in MODEL_NAMES:
        model = build_model(name, predicts_vad=True).eval()
        assert model.name == name
        assert model.streams == STREAMS_OF[name]
        output = model(draw_inputs(model, 2), torch.tensor([True, False]))
        assert output.logits.shape == (2, 26)
        assert output.vad_unit is not None
        assert output.vad_unit.shape == (2, 3)
        assert bool(((output.vad_unit >= 0) & (output.vad_unit <= 1)).all())
        heads = () if name in ("kosti", "caer-net-s", "affective-graph", "emoticon") else model.streams
        assert tuple(output.stream_logits) == heads
        assert tuple(model.last_maps()) == model.streams
        assert model.context_input.masks_face == (name == "caer-net-s")
        assert model.context_input.masks_body == (name == "emoticon")
        assert not any("vad" in key for key in build_model(name).state_dict())


def test_mter1_has_three_modified_mobilenets_and_mter2_a_resnet_for_the_context() -> None:
    def kinds(name: str) -> list[type]:
        return [type(backbone) for backbone in build_model(name).backbones().values()]

    assert kinds("mter1") == [MobileNetV2SE, MobileNetV2SE, MobileNetV2SE]
    assert kinds("mter2") == [MobileNetV2SE, MobileNetV2SE, ResNet18]
    assert STREAM_SIZES == {"face": 128, "body": 128, "context": 224}
    calls = trace_shapes(model := build_model("mter1"), empty_inputs(model, 1))
    assert calls["stream.context.backbone.pool"].input_shape == (1000, 7, 7)


def test_fusion_is_3000_to_256_norm_prelu_dropout_26() -> None:
    model = build_model("mter2", dropout=0.3)
    assert isinstance(model, StreamsModel)
    fusion = model.fusion
    assert fusion is not None
    assert (fusion.reduce.in_features, fusion.reduce.out_features) == (3000, 256)
    assert (fusion.norm.num_features, fusion.dropout.p) == (256, 0.3)
    assert fusion.act.weight.tolist() == [0.25]
    assert (fusion.head.in_features, fusion.head.out_features) == (256, 26)
    assert build_model("task2").fusion is None


@pytest.mark.parametrize("name", WITH_FACE)
@pytest.mark.parametrize("training", [True, False])
def test_what_stands_in_an_absent_face_changes_nothing(name: str, training: bool) -> None:
    inputs = draw_inputs(build_model(name), 4)
    has_face = torch.tensor([True, False, True, False])
    other = {**inputs, "face": inputs["face"].clone()}
    other["face"][~has_face] = 1000.0
    outputs, states = [], []
    for given in (inputs, other):
        torch.manual_seed(1)
        model = settle(build_model(name)).train(training)
        outputs.append(model(given, has_face))
        states.append(model.state_dict())
    assert torch.equal(outputs[0].logits, outputs[1].logits)
    for stream, logits in outputs[0].stream_logits.items():
        assert torch.equal(logits, outputs[1].stream_logits[stream])
    for key, value in states[0].items():  # BatchNorm's running statistics among them
        assert torch.equal(value, states[1][key]), key


def test_face_statistics_are_those_of_the_rows_with_a_face_alone() -> None:
    model, alone = (build_model("mter2").train() for _ in range(2))
    alone.load_state_dict(model.state_dict())
    inputs = draw_inputs(model, 5)
    has_face = torch.tensor([False, True, True, False, True])
    model(inputs, has_face)
    alone.backbones()["face"](inputs["face"][has_face])
    for key, value in alone.backbones()["face"].state_dict().items():
        assert torch.equal(value, model.backbones()["face"].state_dict()[key]), key


def test_an_absent_face_adds_nothing_to_the_fusion() -> None:
    model = settle(build_model("mter2"))
    assert isinstance(model, StreamsModel)
    assert model.fusion is not None
    inputs = draw_inputs(model, 2)
    output = model(inputs, torch.tensor([True, False]))
    with torch.no_grad():
        body = model.backbones()["body"](inputs["body"])
        context = model.backbones()["context"](inputs["context"])
        reduce = model.fusion.reduce
        # the columns of the face left out altogether
        rest = functional.linear(torch.cat((body, context), 1), reduce.weight[:, 1000:], reduce.bias)
        logits = model.fusion.head(model.fusion.act(model.fusion.norm(rest)))
    torch.testing.assert_close(output.logits[1], logits[1])
    assert not torch.allclose(output.logits[0], logits[0], atol=1e-4)


def test_face_stream_alone_answers_with_its_bias_for_a_person_without_a_face() -> None:
    model = settle(build_model("task1"))
    output = model(draw_inputs(model, 3), torch.tensor([False, True, False]))
    bias = model.get_parameter("stream.face.head.bias")
    assert torch.equal(output.logits[0], bias)
    assert torch.equal(output.logits[2], bias)
    assert not torch.equal(output.logits[1], bias)


def test_caer_weighs_streams_to_one_and_an_absent_face_to_zero() -> None:
    model = build_model("caer-net-s").eval()
    assert isinstance(model, CaerNetS)
    weights = model.stream_weights(torch.randn(3, 256), torch.randn(3, 256), torch.tensor([True, False, True]))
    torch.testing.assert_close(weights.sum(dim=1), torch.ones(3))
    assert weights[1].tolist() == [0.0, 1.0]
    assert bool((weights[0] > 0).all())


def test_caer_attention_is_a_weighted_mean_over_positions() -> None:
    context = build_model("caer-net-s").backbones()["context"].eval()
    x = torch.randn(2, 3, 64, 96)  # not square
    with torch.no_grad():
        maps = context.encoder(x)
        scores = context.attention(maps)
        assert maps.shape == (2, 256, 4, 6)
        expected = torch.zeros(2, 256)
        for row in range(2):
            total = sum(float(scores[row, 0, i, j].exp()) for i in range(4) for j in range(6))
            for i in range(4):
                for j in range(6):
                    expected[row] += maps[row, :, i, j] * float(scores[row, 0, i, j].exp()) / total
        torch.testing.assert_close(context(x), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", WITH_FACE)
def test_batch_without_any_face_trains_with_gradients_of_zero(name: str) -> None:
    model = build_model(name, predicts_vad=True).train()
    before = {key: value.clone() for key, value in model.backbones()["face"].state_dict().items()}
    output = model(draw_inputs(model, 3), torch.zeros(3, dtype=torch.bool))
    assert output.vad_unit is not None
    (output.logits.sum() + output.vad_unit.sum() + sum(x.sum() for x in output.stream_logits.values())).backward()
    for key, parameter in model.named_parameters():
        assert parameter.grad is not None, key  # or a distributed run would wait for it forever
        assert bool(parameter.grad.isfinite().all()), key
        if key.startswith(("stream.face.backbone.", "face.")):
            assert not bool(parameter.grad.any()), key
    for key, value in model.backbones()["face"].state_dict().items():
        assert torch.equal(value, before[key]), key


@pytest.mark.parametrize("name", MODEL_NAMES)
def test_one_person_and_one_face_train(name: str) -> None:
    model = build_model(name).train()
    for has_face in ([True], [False, True, False]):
        inputs = draw_inputs(model, len(has_face), side=32)  # the last maps of most networks are single positions
        output = model(inputs, torch.tensor(has_face))
        output.logits.square().sum().backward()
        assert bool(output.logits.isfinite().all())


def test_norm_of_one_row_uses_the_running_statistics_and_keeps_them() -> None:
    norm = FeatureNorm(2).train()
    norm.running_mean = torch.tensor([1.0, 2.0])
    norm.running_var = torch.tensor([4.0, 9.0])
    out = norm(torch.tensor([[5.0, -1.0]]))  # (5 - 1) / 2, (-1 - 2) / 3
    torch.testing.assert_close(out, torch.tensor([[2.0, -1.0]]), rtol=1e-5, atol=1e-5)
    assert norm.running_mean.tolist() == [1.0, 2.0]
    maps = MapNorm(2).train()
    maps.load_state_dict(norm.state_dict())
    out = maps(torch.tensor([[5.0, -1.0]])[:, :, None, None])
    torch.testing.assert_close(out[0, :, 0, 0], torch.tensor([2.0, -1.0]), rtol=1e-5, atol=1e-5)
    assert maps.running_mean is not None and maps.running_mean.tolist() == [1.0, 2.0]
    norm(torch.tensor([[0.0, 0.0], [4.0, 8.0]]))  # moves a tenth of the way to the means 2 and 4
    torch.testing.assert_close(norm.running_mean, torch.tensor([1.1, 2.2]))


def test_nobody_is_an_ordinary_input() -> None:
    model = build_model("mter2").eval()
    output = model(empty_inputs(model, 0), torch.zeros(0, dtype=torch.bool))
    assert output.logits.shape == (0, 26)


def test_answers_do_not_depend_on_the_rest_of_the_batch() -> None:
    model = settle(build_model("mter2"))
    inputs, has_face = draw_inputs(model, 3), torch.tensor([True, False, True])
    with torch.no_grad():
        together = model(inputs, has_face).logits
        single = [model({key: x[i : i + 1] for key, x in inputs.items()}, has_face[i : i + 1]).logits for i in range(3)]
    torch.testing.assert_close(together, torch.cat(single), rtol=1e-3, atol=1e-4)


def test_squeeze_and_excitation_by_hand() -> None:
    unit = SqueezeExcitation(8, reduction=16)
    assert (unit.fc1.out_features, unit.fc2.in_features) == (8, 8)  # never below 8
    assert SqueezeExcitation(960, reduction=16).fc1.out_features == 60
    nn.init.eye_(unit.fc1.weight)
    nn.init.zeros_(unit.fc1.bias)
    nn.init.eye_(unit.fc2.weight)
    nn.init.zeros_(unit.fc2.bias)
    x = torch.zeros(1, 8, 1, 2)
    x[0, 0] = torch.tensor([1.0, 3.0])  # mean 2, gate sigmoid(2)
    x[0, 1] = torch.tensor([-4.0, 2.0])  # mean -1, ReLU 0, gate 1/2
    out = unit(x)
    torch.testing.assert_close(out[0, 0, 0], torch.tensor([1.0, 3.0]) / (1 + torch.tensor(-2.0).exp()))
    torch.testing.assert_close(out[0, 1, 0], torch.tensor([-2.0, 1.0]))
    unit.gate = SqueezeExcitation(8, 16, "relu").gate
    out = unit(x)  # the thesis to the letter: gates 2 and 0
    assert out[0, 0, 0].tolist() == [2.0, 6.0]
    assert out[0, 1, 0].tolist() == [0.0, 0.0]


def test_unit_stands_after_the_depthwise_activation_and_before_the_projection() -> None:
    block = InvertedResidual(8, 8, stride=1, expansion=6, reduction=16).eval()
    order: list[str] = []
    for name, module in block.named_modules():
        module.register_forward_hook(lambda *_, name=name: order.append(name))
    x = torch.randn(2, 8, 6, 4)
    out = block(x)
    assert [name for name in order if name in ("conv.0", "conv.1", "se", "conv.2", "conv.3")] == [
        "conv.0",
        "conv.1",
        "se",
        "conv.2",
        "conv.3",
    ]
    assert torch.equal(out, x)  # a fresh linear bottleneck adds 0 to the shortcut, untouched by any activation
    nn.init.ones_(block.conv[3].weight)
    assert not torch.equal(block(x), x)


def test_fresh_residual_branches_add_nothing_and_learn() -> None:
    x = torch.randn(4, 64, 6, 4)
    block = BasicBlock(64, 64, stride=1)
    assert torch.equal(block(x), x.relu())
    wider = BasicBlock(64, 128, stride=2)
    assert wider.downsample is not None and torch.equal(wider(x), wider.downsample(x).relu())
    optimizer = torch.optim.SGD(block.parameters(), lr=0.1)
    for _ in range(2):
        optimizer.zero_grad()
        block(x).square().mean().backward()
        optimizer.step()
    assert block.conv1.weight.grad is not None and bool(block.conv1.weight.grad.abs().sum() > 0)
    assert not torch.equal(block(x), x.relu())
    shrinking = InvertedResidual(64, 64, stride=2, expansion=6, reduction=16)
    assert bool(shrinking(x).abs().sum() > 0)  # no shortcut, so nothing is held back


def test_reductions_differ_by_stage_and_settings_are_checked() -> None:
    model = build_model("task2", reductions=(4, 8, 8, 16, 16, 32, 32), gate="relu")
    units = [unit for unit in model.modules() if isinstance(unit, SqueezeExcitation)]
    assert [unit.fc1.out_features for unit in units][:5] == [8, 12, 18, 18, 24]
    assert units[-1].fc1.out_features == 960 // 32
    assert all(isinstance(unit.gate, nn.ReLU) for unit in units)
    with pytest.raises(SettingsError, match="no model is called 'mter3'; did you mean 'mter"):
        build_model("mter3")
    with pytest.raises(SettingsError, match="expected 7 whole numbers"):
        build_model("task2", reductions=(16, 16))
    with pytest.raises(SettingsError, match="dropout is 1"):
        build_model("mter2", dropout=1)


def test_wrong_inputs_are_named() -> None:
    model = build_model("task2+task3")
    inputs = draw_inputs(model, 2)
    has_face = torch.tensor([True, True])
    with pytest.raises(ValueError, match="task2\\+task3 reads body, context; no 'context' among \\['body'\\]"):
        model({"body": inputs["body"]}, has_face)
    with pytest.raises(ValueError, match="'body' has shape"):
        model({**inputs, "body": inputs["body"][:1]}, has_face)
    with pytest.raises(ValueError, match="expected bool"):
        model(inputs, has_face.float())


def test_state_dict_names_are_stable() -> None:
    names = set(build_model("mter2", predicts_vad=True).state_dict())
    assert {
        "stream.face.backbone.features.0.0.weight",
        "stream.face.backbone.features.2.conv.1.0.weight",
        "stream.face.backbone.features.2.se.fc1.weight",
        "stream.face.head.weight",
        "stream.body.backbone.features.18.1.running_var",
        "stream.context.backbone.layer2.0.downsample.0.weight",
        "stream.context.backbone.fc.bias",
        "stream.context.head.bias",
        "fusion.reduce.weight",
        "fusion.norm.running_mean",
        "fusion.act.weight",
        "fusion.head.weight",
        "fusion.vad_head.weight",
    } <= names
    assert set(build_model("task1").state_dict()) < names
    assert STREAMS == ("face", "body", "context")


@pytest.mark.parametrize("name", ["mter2", "caer-net-s"])
def test_half_precision_and_gradients_flow(name: str) -> None:
    model = build_model(name).train()
    for has_face in ([True, False], [False, False]):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            output = model(draw_inputs(model, 2), torch.tensor(has_face))
        heads = [output.logits, *output.stream_logits.values()]
        sum(logits.float().square().sum() for logits in heads).backward()
    for key, parameter in model.named_parameters():
        assert parameter.grad is not None, key
        assert bool(parameter.grad.isfinite().all()), key
