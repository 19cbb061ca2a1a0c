"""EmotiCon: sizes and parameters of its branches, the joint graph, fusion and depth graph by hand, missing inputs."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from branch_inputs import draw_inputs, everybody, n_parameters, narrow_resnets, sides, wake
from torch import Tensor, nn
from torch.nn import functional

from emoface.errors import SettingsError
from emoface.mter import build_model
from emoface.mter.attention_branch import AttentionBranch, AttentionResNet18
from emoface.mter.base import ModalityLogits
from emoface.mter.cost import count_macs, empty_inputs, trace_shapes
from emoface.mter.depth_branch import DepthCnn, ProximityGcn, proximity
from emoface.mter.emoticon import Emoticon, FaceBranch, fuse_modalities
from emoface.mter.inputs import DEPTH, FACE_LANDMARKS, PEOPLE, POSE, REGIONS, model_array_inputs
from emoface.mter.losses import BranchLosses, label_losses
from emoface.mter.networks import build_recipe_model
from emoface.mter.pose_graph import BODY_25_BONES, JointSum, PoseBranch, PoseUnit, spatial_partition
from emoface.mter.pretrained import take_weights
from emoface.mter.recipe import PRESETS, Recipe
from emoface.mter.resnet import ResNet18

MASKS = {"face_landmarks": "has_landmarks", "pose": "has_pose", "depth": "has_depth", "people": "has_place"}


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


@pytest.fixture
def narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    narrow_resnets(monkeypatch)


def build(**settings: Any) -> Emoticon:
    model = build_model("emoticon", **settings)
    assert isinstance(model, Emoticon)
    return model


# Inputs


def test_inputs_are_those_of_the_depth_form(narrow: None) -> None:
    assert model_array_inputs("emoticon") == {"face_landmarks": FACE_LANDMARKS, "pose": POSE, "depth": DEPTH}
    assert list(model_array_inputs("emoticon", depth_form="gcn")) == ["face_landmarks", "pose", "people"]
    assert list(model_array_inputs("affective-graph")) == ["regions"]
    assert model_array_inputs("affective-graph", region_source="grid") == {} == model_array_inputs("mter2")
    shapes = [form.shape for form in (FACE_LANDMARKS, POSE, DEPTH, PEOPLE, REGIONS)]
    assert shapes == [(136,), (3, 25), (1, 224, 224), (16, 5), (10, 1028)]
    model = build()
    assert model.streams == ("context",) and model.context_input.masks_body and not model.context_input.masks_face
    assert model.context_input.body_fill == "black"


def test_absent_inputs_are_zeros_and_false(narrow: None) -> None:
    values, is_present = DEPTH.absent(3, {"context": 32})
    assert values.shape == (3, 1, 32, 32) and values.dtype == np.float32 and not values.any()
    assert is_present.shape == (3,) and is_present.dtype == np.bool_ and not is_present.any()
    assert PEOPLE.absent(0)[1].shape == (0, 16)
    shapes = {name: tuple(x.shape) for name, x in empty_inputs(build(), 2, sides(32)).items()}
    assert shapes["depth"] == (2, 1, 32, 32) and shapes["pose"] == (2, 3, 25) and shapes["has_pose"] == (2,)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"pose": None}, r"emoticon needs the input 'pose' \(x, y and confidence of the 25 joints"),
        ({"has_depth": None}, r"emoticon needs the input 'has_depth' \(who has 'depth'\), not among \['context'"),
        ({"pose": torch.zeros(2, 25, 3)}, r"'pose' is torch.float32 of shape \(2, 25, 3\), expected .*\(2, 3, 25\)"),
        ({"depth": torch.zeros(2, 1, 64, 64)}, r"'depth' is .* expected floating point of \(2, 1, 32, 32\)"),
        ({"pose": torch.zeros(2, 3, 25, dtype=torch.int64)}, "'pose' is torch.int64"),
        ({"has_pose": torch.ones(2)}, r"'has_pose' is torch.float32 of shape \(2,\), expected bool of \(2,\)"),
        ({"has_pose": everybody(3)}, r"'has_pose' is torch.bool of shape \(3,\), expected bool of \(2,\)"),
    ],
)
def test_inputs_that_do_not_fit_are_named(narrow: None, changes: dict[str, Tensor | None], message: str) -> None:
    model = build()
    given = {**draw_inputs(model, 2), **changes}
    with pytest.raises(ValueError, match=message):
        model({name: x for name, x in given.items() if x is not None}, everybody(2))


# Face


def test_face_branch_layer_by_layer() -> None:
    branch = FaceBranch()
    convolutions = [part for part in branch.modules() if isinstance(part, nn.Conv1d)]
    assert [(one.in_channels, one.out_channels, one.kernel_size) for one in convolutions] == [
        (136, 256, (1,)),
        (256, 512, (1,)),
        (512, 1024, (1,)),
    ]
    layers = [part for part in branch.modules() if isinstance(part, nn.Linear)]
    assert [(one.in_features, one.out_features) for one in layers] == [(1024, 512), (512, 256), (256, 26)]
    by_hand = 136 * 256 + 256 * 512 + 512 * 1024 + 2 * (256 + 512 + 1024)
    by_hand += 1024 * 512 + 512 + 512 * 256 + 256 + 256 * 26 + 26
    assert n_parameters(branch) == by_hand
    assert branch(torch.zeros(1, 136)).shape == (1, 26)  # one person, in training


# Pose


def test_partition_of_a_joint_by_hand() -> None:
    adjacency = spatial_partition()
    assert adjacency.shape == (3, 25, 25) and adjacency.dtype == np.float32
    itself, nearer, further = adjacency
    # the nose (0) receives from itself, the neck (1), and the eyes (15, 16): four with the same weight
    assert itself[0, 0] == nearer[1, 0] == further[15, 0] == further[16, 0] == 0.25
    assert itself[:, 0].sum() == nearer[:, 0].sum() == 0.25 and further[:, 0].sum() == 0.5
    # the neck is the centre: its neighbours 0, 2, 5, 8 are all further, a fifth each
    assert itself[1, 1] == pytest.approx(0.2) and not nearer[:, 1].any()
    assert np.flatnonzero(further[:, 1]).tolist() == [0, 2, 5, 8]
    assert further[[0, 2, 5, 8], 1].tolist() == pytest.approx([0.2] * 4)
    # the right wrist (4) is an end: itself and the elbow (3), a half each; the elbow receives a third from it
    assert (itself[4, 4], nearer[3, 4]) == (0.5, 0.5) and not further[:, 4].any()
    assert further[4, 3] == pytest.approx(1 / 3) and nearer[2, 3] == pytest.approx(1 / 3)
    # the middle of the hips (8) receives from the neck inwards and from both hips (9, 12) outwards
    assert nearer[1, 8] == 0.25 and further[9, 8] == further[12, 8] == 0.25


def test_partition_is_a_tree_whose_columns_sum_to_1() -> None:
    adjacency = spatial_partition()
    np.testing.assert_allclose(adjacency.sum(axis=(0, 1)), 1, rtol=1e-6)
    assert (adjacency > 0).sum(axis=(1, 2)).tolist() == [25, 24, 24]
    assert len(BODY_25_BONES) == 24 and {joint for bone in BODY_25_BONES for joint in bone} == set(range(25))
    assert ((adjacency > 0).sum(axis=0) <= 1).all()  # no entry is in two subsets
    ring = spatial_partition(3, ((0, 1), (1, 2), (2, 0)), center=0)  # 1 and 2 are equally far: with the joint itself
    assert ring[0, :, 1].tolist() == pytest.approx([0, 1 / 3, 1 / 3])


def test_sum_over_joints_agrees_with_loops() -> None:
    joints = JointSum(spatial_partition(3, ((0, 1), (1, 2)), center=0))
    nn.init.normal_(joints.edge_weights)
    x = torch.randn(2, 3 * 4, 3)
    expected = torch.zeros(2, 4, 3)
    for subset in range(3):
        for channel in range(4):
            for to in range(3):
                for from_ in range(3):
                    weight = joints.get_buffer("adjacency")[subset, from_, to] * joints.edge_weights[subset, from_, to]
                    expected[:, channel, to] += weight * x[:, 4 * subset + channel, from_]
    torch.testing.assert_close(joints(x), expected)
    assert count_macs(joints, (12, 3), (4, 3)) == 12 * 3 * 3


def test_on_one_frame_the_temporal_convolution_is_its_centre_tap() -> None:
    temporal = nn.Conv2d(4, 4, (9, 1), padding=(4, 0), bias=False)
    unit = PoseUnit(3, 4, spatial_partition(), dropout=0.5)
    with torch.no_grad():
        unit.temporal.weight.copy_(temporal.weight[:, :, 4, :])
    x = torch.randn(2, 4, 25)
    torch.testing.assert_close(unit.temporal(x), temporal(x[:, :, None])[:, :, 0])


def test_pose_branch_layer_by_layer() -> None:
    branch = PoseBranch()
    units = [unit for unit in branch.units if isinstance(unit, PoseUnit)]
    assert [unit.temporal.out_channels for unit in units] == [64, 64, 64, 128, 128, 128, 256, 256, 256]
    assert [unit.has_shortcut for unit in units] == [False] + 8 * [True]
    grows = [isinstance(unit.shortcut, nn.Sequential) for unit in units]
    assert grows == [False, False, False, True, False, False, True, False, False]
    assert all(unit.dropout.p == 0.5 for unit in units)
    by_hand = 2 * 75 + 256 * 26 + 26
    before = 3
    for unit, grown in zip(units, grows, strict=True):
        width = unit.temporal.out_channels
        by_hand += before * 3 * width + 3 * width + 3 * 25 * 25 + 2 * width + width * width + 2 * width
        by_hand += before * width + 2 * width if grown else 0
        before = width
    assert n_parameters(branch) == by_hand
    assert branch.eval()(torch.zeros(2, 3, 25)).shape == (2, 26)


def test_place_of_an_unknown_joint_is_ignored() -> None:
    branch, pose = PoseBranch(dropout=0, widths=(8, 8)).eval(), torch.rand(2, 3, 25)
    pose[0, 2, 7] = 0
    other = pose.clone()
    other[0, :2, 7] = torch.tensor([math.nan, 9.0])
    assert torch.equal(branch(pose), branch(other))
    other[1, 0, 7] = 9
    assert not torch.equal(branch(pose)[1], branch(other)[1])


# Context


def test_attention_branch_layer_by_layer() -> None:
    branch = AttentionBranch().eval()
    blocks = 256 * 512 * 9 + 512 * 512 * 9 + 2 * 1024 + 256 * 512 + 1024 + 2 * 512 * 512 * 9 + 2 * 1024
    assert n_parameters(branch) == blocks + 1024 + 512 * 26 + 52 + 26 * 26 + 26 * 9 + 2
    logits, attention = branch(torch.randn(2, 256, 4, 6))  # stride 1: the map keeps its size
    assert logits.shape == (2, 26) and attention.shape == (2, 1, 4, 6)
    assert bool(((attention >= 0) & (attention <= 1)).all())
    assert n_parameters(AttentionResNet18()) == n_parameters(ResNet18(n_features=26)) + n_parameters(branch)
    model = build()
    calls = trace_shapes(model, empty_inputs(model, 1))
    assert calls["context.layer3"].output_shape == (256, 14, 14)
    assert calls["context.attention.stage"].output_shape == (512, 14, 14)
    assert calls["context.attention.to_labels"].output_shape == (26, 14, 14)
    assert calls["context.attention.to_attention"].output_shape == (1, 14, 14)
    assert calls["context.layer4"].output_shape == (512, 7, 7)
    assert calls["depth.layers"].output_shape == calls["depth.pool"].output_shape == (512, 7, 7)
    assert (calls["reduce"].input_shape, calls["reduce"].output_shape) == ((78,), (52,))
    assert calls["head"].output_shape == (26,)


def test_fourth_stage_sees_the_map_and_the_weighted_map() -> None:
    network = AttentionResNet18().eval()
    wake(network)
    nn.init.zeros_(network.attention.attention_norm.weight)
    nn.init.constant_(network.attention.attention_norm.bias, math.log(3))  # a sigmoid of 3/4 everywhere
    x = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        logits, attention_logits = network.attend(x)
        expected = network.pool(network.layer4(1.75 * network.to_third_stage(x)))
        torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-5)
        assert torch.equal(network(x), logits) and not torch.allclose(attention_logits, logits)


def test_weights_of_resnet18_fill_all_but_the_new_layers() -> None:
    source, network = ResNet18(), AttentionResNet18()
    report = take_weights(network, source.state_dict(), "context")
    left = {one.name.split(".")[0] for one in report.not_taken}
    assert left == {"attention", "fc"} and report.n_tensors == 100
    assert torch.equal(network.layer4[1].conv2.weight, source.layer4[1].conv2.weight)


# Depth


def test_depth_cnn_layer_by_layer() -> None:
    branch = DepthCnn()
    convolutions = [part for part in branch.modules() if isinstance(part, nn.Conv2d)]
    assert [(one.out_channels, one.kernel_size[0]) for one in convolutions] == [
        (32, 5),
        (64, 3),
        (128, 3),
        (256, 3),
        (512, 3),
    ]
    assert sum(isinstance(part, nn.MaxPool2d) for part in branch.modules()) == 5
    widths = [1, 32, 64, 128, 256, 512]
    by_hand = 25 * 32 + 32 + sum(9 * one * other + other for one, other in pairwise(widths[1:]))
    assert n_parameters(branch) == by_hand + 512 * 49 * 1000 + 1000 + 1000 * 26 + 26


def test_graph_of_people_by_hand() -> None:
    # two people at a distance of 0.3 (0.1, 0.2, 0.2), a third too far away from both, a fourth that is nobody
    places = torch.tensor([[[0.0, 0.0, 0.0], [0.1, 0.2, 0.2], [5.0, 0.0, 0.0], [0.0, 0.0, 0.0]]])
    is_present = torch.tensor([[True, True, True, False]])
    link = math.exp(-0.3)
    expected = torch.zeros(1, 4, 4)
    expected[0, 0, 0] = expected[0, 1, 1] = 1 / (1 + link)
    expected[0, 0, 1] = expected[0, 1, 0] = link / (1 + link)
    expected[0, 2, 2] = 1
    torch.testing.assert_close(proximity(places, is_present, 1.0), expected)
    alone = torch.diag(torch.tensor([1.0, 1.0, 1.0, 0.0]))
    torch.testing.assert_close(proximity(places, is_present, 0.3)[0], alone)  # d < mu, not d <= mu


def test_graph_network_of_people() -> None:
    branch = ProximityGcn(limit=2.0).eval()
    assert n_parameters(branch) == (5 * 256 + 256) + (256 * 256 + 256) + (256 * 26 + 26)
    people, is_present = torch.rand(3, 16, 5), torch.zeros(3, 16, dtype=torch.bool)
    is_present[0, :4] = is_present[1, :1] = True
    with torch.no_grad():
        out = branch(people, is_present)
        assert not out[2].any() and out[0].any()
        moved = people + torch.tensor([0.2, -0.1, 0.0, 0.0, 0.05])  # all people alike, in x, y and depth
        torch.testing.assert_close(branch(moved, is_present), out, rtol=1e-4, atol=1e-5)
        order = torch.tensor([0, 3, 1, 2, *range(4, 16)])
        torch.testing.assert_close(branch(people[:, order], is_present), out, rtol=1e-4, atol=1e-5)
        other = people.clone()
        other[:, 4:] = math.nan
        other[2] = math.nan
        torch.testing.assert_close(branch(other, is_present), out, rtol=0, atol=0)
        other[0, 1, 0] += 0.1
        assert not torch.allclose(branch(other, is_present)[0], out[0])
        own = torch.tensor([0.0, 0.0, 0.0, people[1, 0, 2], people[1, 0, 3]])  # width and height of the only person
        by_hand = branch.head(functional.relu(branch.second(functional.relu(branch.first(own)))))
        torch.testing.assert_close(out[1], by_hand)


# Fusion


def test_fusion_by_hand() -> None:
    face, pose = torch.zeros(4, 26), torch.zeros(4, 26)
    face[:, 0], pose[:, 1] = math.log(25), math.log(2)
    has_face, has_pose = torch.tensor([True, True, False, False]), torch.tensor([True, False, True, False])
    fused = fuse_modalities(ModalityLogits({"face": face, "pose": pose}, {"face": has_face, "pose": has_pose}))
    assert fused[0, :3].tolist() == pytest.approx([25 / 51, 2 / 51, 1 / 51])
    assert fused[1, :3].tolist() == pytest.approx([25 / 50, 1 / 50, 1 / 50])  # the face alone
    assert fused[2, :3].tolist() == pytest.approx([1 / 27, 2 / 27, 1 / 27])
    assert fused[3].tolist() == pytest.approx([1 / 26] * 26)
    assert fused.sum(dim=1).tolist() == pytest.approx([1] * 4)


# The whole network


@pytest.mark.parametrize("depth_form", ["cnn", "gcn"])
@pytest.mark.parametrize("training", [True, False])
def test_what_stands_in_a_missing_input_changes_nothing(narrow: None, depth_form: str, training: bool) -> None:
    model = build(depth_form=depth_form, dropout=0).train(training)
    inputs = draw_inputs(model, 3)
    for number, name in enumerate(model.array_inputs):
        inputs[MASKS[name]][number] = False  # each person lacks another input
    other = {name: x.clone() for name, x in inputs.items()}
    for number, name in enumerate(model.array_inputs):
        other[name][number] = math.nan
    with torch.no_grad():
        state = {name: value.clone() for name, value in model.state_dict().items()}
        outputs = []
        for given in (inputs, other):
            model.load_state_dict(state)
            outputs.append(model(given, everybody(3)))
        assert torch.equal(outputs[0].logits, outputs[1].logits)
        assert bool(outputs[0].logits.isfinite().all())
        # and what stands in a present one does
        changed = {**inputs, "pose": inputs["pose"] + 5 * torch.rand_like(inputs["pose"])}
        model.load_state_dict(state)
        assert not torch.equal(model(changed, everybody(3)).logits[0], outputs[0].logits[0])


def test_nobody_has_anything_and_gradients_are_zero(narrow: None) -> None:
    for depth_form in ("cnn", "gcn"):
        model = build(depth_form=depth_form, predicts_vad=True).train()
        inputs = draw_inputs(model, 2)
        for name in model.array_inputs:
            inputs[MASKS[name]][:] = False
        output = model(inputs, everybody(2))
        assert output.vad_unit is not None and output.attention_logits is not None
        terms = label_losses(
            output,
            torch.ones(2, 26),
            has_face=everybody(2),
            kind="soft_margin",
            vad_unit=torch.zeros(2, 3),
            branches=BranchLosses(1.0, 1.0, 1.0),
        )
        assert terms["multiplicative"] == 0
        torch.stack(list(terms.values())).sum().backward()
        for name, parameter in model.named_parameters():
            assert parameter.grad is not None and bool(parameter.grad.isfinite().all()), name
            if name.startswith(("face.", "pose.", "depth.")):
                assert not bool(parameter.grad.any()), name


@pytest.mark.parametrize("depth_form", ["cnn", "gcn"])
def test_gradients_reach_every_parameter(narrow: None, depth_form: str) -> None:
    model = build(depth_form=depth_form, dropout=0).train()
    wake(model)
    inputs = draw_inputs(model, 4)
    output = model(inputs, everybody(4))
    labels = (torch.rand(4, 26) < 0.5).float()
    terms = label_losses(
        output, labels, has_face=everybody(4), kind="soft_margin", branches=BranchLosses(1.0, 1.0, 1.0)
    )
    assert set(terms) == {"labels", "multiplicative", "attention"}
    torch.stack(list(terms.values())).sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and bool(parameter.grad.any()), name


def test_people_are_independent_of_each_other_and_nobody_is_an_input(narrow: None) -> None:
    model = build(depth_form="gcn").eval()
    inputs = draw_inputs(model, 3)
    inputs["has_pose"][1] = False
    with torch.no_grad():
        together = model(inputs, everybody(3))
        for row in range(3):
            alone = model({name: x[row : row + 1] for name, x in inputs.items()}, everybody(1))
            torch.testing.assert_close(alone.logits[0], together.logits[row], rtol=1e-3, atol=1e-4)
        nobody = model({name: x[:0] for name, x in inputs.items()}, everybody(0))
        assert nobody.logits.shape == (0, 26) and nobody.modalities is not None
        assert {name: len(x) for name, x in nobody.modalities.logits.items()} == {"face": 0, "pose": 0}
    one = model.train()(draw_inputs(model, 1, side=64), everybody(1))
    assert bool(one.logits.isfinite().all())


def test_half_precision_and_channels_last(narrow: None) -> None:
    model = build().eval()
    inputs = draw_inputs(model, 2)
    inputs["has_depth"][0] = inputs["has_landmarks"][1] = False
    with torch.no_grad():
        expected = model(inputs, everybody(2)).logits
        with torch.autocast("cpu", torch.bfloat16):
            torch.testing.assert_close(model(inputs, everybody(2)).logits.float(), expected, rtol=0.1, atol=0.05)
        last = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        torch.testing.assert_close(last(inputs, everybody(2)).logits, expected, rtol=1e-3, atol=1e-4)
        half = {name: x.bfloat16() if x.is_floating_point() else x for name, x in inputs.items()}
        logits = model.bfloat16()(half, everybody(2)).logits
        assert logits.dtype == torch.bfloat16
        torch.testing.assert_close(logits.float(), expected, rtol=0.2, atol=0.1)


def test_learns_16_people_by_heart(narrow: None) -> None:
    model = build(depth_form="gcn").train()
    model.pose = PoseBranch(dropout=0, widths=(32, 64))
    inputs, labels = draw_inputs(model, 16), (torch.rand(16, 26) < 0.2).float()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    losses = []
    for _ in range(28):
        terms = label_losses(
            model(inputs, everybody(16)),
            labels,
            has_face=everybody(16),
            kind="soft_margin",
            branches=BranchLosses.of_recipe(PRESETS["emoticon"].recipe),
        )
        optimizer.zero_grad()
        torch.stack(list(terms.values())).sum().backward()
        optimizer.step()
        losses.append(terms["labels"].item())
    assert losses[0] > 0.5 and losses[-1] < 0.2, losses


def test_depth_map_tells_16_people_apart() -> None:
    branch = DepthCnn(widths=(4, 8, 8, 16, 16), n_hidden=64)
    depth, labels = torch.rand(16, 1, 32, 32), (torch.rand(16, 26) < 0.2).float()
    optimizer = torch.optim.Adam(branch.parameters(), lr=0.005)
    for _ in range(60):
        loss = functional.multilabel_soft_margin_loss(branch(depth), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.05


# Settings


def test_preset_has_the_settings_of_the_paper(narrow: None) -> None:
    preset = PRESETS["emoticon"]
    recipe = preset.recipe
    assert (recipe.optimizer, recipe.learning_rate, recipe.batch_size, recipe.epochs) == ("adam", 1e-4, 32, 75)
    assert (recipe.loss, recipe.labels_weight, recipe.multiplicative_weight) == ("soft_margin", 1, 1)
    assert (recipe.multiplicative_beta, recipe.attention_weight, recipe.depth_form) == (1, 1, "cnn")
    assert preset.models == ("emoticon",) and recipe.decay_steps == () and recipe.warmup_epochs == 0
    assert build_recipe_model("emoticon", recipe).name == "emoticon"


@pytest.mark.parametrize(
    ("name", "settings", "part"),
    [
        ("mter2", {"depth_form": "gcn"}, "depth branch"),
        ("kosti", {"multiplicative_weight": 1.0}, "modalities fused by their product"),
        ("affective-graph", {"attention_weight": 1.0}, "attention branch"),
        ("emoticon", {"proximity_limit": 2.0}, "graph of people"),
        ("emoticon", {"region_source": "grid"}, "graph of regions"),
        ("emoticon", {"face_fill": "black"}, "blanked face"),
    ],
)
def test_settings_of_parts_that_a_model_lacks_are_refused(
    narrow: None, name: str, settings: dict[str, Any], part: str
) -> None:
    with pytest.raises(SettingsError, match=f"{name} has no {part}, which a setting changes"):
        build_recipe_model(name, Recipe(**settings))
