"""The recipes of the papers: their settings, schedules, losses and network parts by hand, and two steps of each."""

from __future__ import annotations

import json
import math
import typing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from mter_data import to_pixels, write_photos_and_tables
from torch import Tensor, nn

from emoface.cli import main
from emoface.datasets.manifest import read_manifest
from emoface.datasets.stream_cache import StreamCache, open_stream_cache
from emoface.errors import SettingsError
from emoface.jobs.explain import stream_box
from emoface.jobs.train import TrainConfig, run_train
from emoface.mter import build_model, pretrained, trainer
from emoface.mter.augmentation import Augmentation
from emoface.mter.base import ContextInput, MterOutput
from emoface.mter.baselines import CaerNetS
from emoface.mter.blocks import FeatureNorm, SqueezeExcitation
from emoface.mter.dataset import PeopleDataset, load_batch, load_training_batch
from emoface.mter.forward import forward_people, linear_to_probabilities
from emoface.mter.losses import (
    count_label_weights,
    label_losses,
    label_terms,
    vad_loss,
    weigh_batch_labels,
    weigh_labels,
)
from emoface.mter.mobilenet import STAGES
from emoface.mter.names import MODEL_NAMES, PresetName
from emoface.mter.networks import build_recipe_model
from emoface.mter.pixels import crop_center_square, fit_input
from emoface.mter.pretrained import load_initial_weights
from emoface.mter.recipe import PRESETS, Recipe, learning_rate, resolve_recipe
from emoface.mter.runs import read_run
from emoface.mter.sampling import SampleKey, plan_batches, sample_epoch
from emoface.storage.weights import WeightsFile, find_weights

STEPS: dict[str, Any] = {"epochs": 1, "batch_size": 8}
SYSTEMS: list[tuple[PresetName, str]] = [("kosti", "kosti"), ("caer", "caer-net-s"), ("author", "task2+task3")]
NEW_SETTINGS = {
    *("decay_every", "decay_factor", "linear_outputs", "labels_weight", "vad_loss", "se_reduction", "se_gate"),
    *("prelu_per_channel", "normalises_features", "averages_attention", "face_fill", "context_center_share"),
}


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_photos_and_tables(tmp_path_factory.mktemp("data"), 16)


@pytest.fixture(scope="module")
def cache(manifest: Path) -> StreamCache:
    return open_stream_cache(read_manifest(manifest), "train")


def _config(manifest: Path, out: Path, preset: str, model: str, **changes: Any) -> TrainConfig:
    values = {"pretrained": "none", "context_size": 64, "person_size": 32, "recipe": STEPS, **changes}
    return TrainConfig(manifest=manifest, out=out, preset=preset, model=model, workers=0, device="cpu", **values)


# Settings


def test_preset_kosti_has_the_settings_of_the_paper() -> None:
    preset = PRESETS["kosti"]
    recipe = preset.recipe
    assert (recipe.optimizer, recipe.learning_rate, recipe.momentum, recipe.weight_decay) == ("sgd", 0.01, 0.9, 5e-4)
    assert (recipe.batch_size, recipe.epochs, recipe.decay_every, recipe.decay_factor) == (52, 21, 7, 0.1)
    assert (recipe.loss, recipe.label_weights, recipe.vad_loss) == ("weighted_euclidean", "batch_count", "margin_l2")
    assert recipe.predicts_vad and recipe.linear_outputs and recipe.warmup_epochs == 0
    assert (recipe.labels_weight, recipe.vad_weight) == (0.5, 0.5)
    assert (recipe.mirror_probability, recipe.distort_probability) == (0, 0)
    assert recipe.crop_shares == recipe.context_crop_shares == (1, 1)
    assert (preset.person_size, preset.context_size) == (128, 224)
    assert preset.auto_weights == {"context": "places365"} and preset.models == MODEL_NAMES


def test_preset_caer_has_the_settings_of_the_paper_and_of_its_port() -> None:
    preset = PRESETS["caer"]
    recipe = preset.recipe
    assert (recipe.learning_rate, recipe.decay_every, recipe.decay_factor, recipe.batch_size) == (0.005, 4, 0.1, 32)
    assert (preset.person_size, preset.context_size, preset.models) == (96, 112, ("caer-net-s",))
    assert recipe.context_crop_shares == (0.875, 0.875) and recipe.context_center_share == 0.875  # 112 of 128
    assert recipe.face_fill == "black" and recipe.normalises_features and recipe.averages_attention
    assert recipe.loss == "bce" and not recipe.predicts_vad and not recipe.linear_outputs
    assert recipe.crop_shares == (1, 1) and recipe.mirror_probability == recipe.distort_probability == 0
    assert preset.auto_weights == {"face": "none", "context": "none"}


def test_preset_author_has_the_settings_of_the_code() -> None:
    preset = PRESETS["author"]
    recipe = preset.recipe
    assert (recipe.batch_size, recipe.decay_every, recipe.decay_factor) == (52, 7, 0.5)
    assert (recipe.loss, recipe.vad_loss, recipe.labels_weight, recipe.vad_weight) == (
        "weighted_euclidean",
        "smooth_l1",
        0.5,
        0.5,
    )
    assert recipe.prelu_per_channel and (recipe.se_reduction, recipe.se_gate) == (4, "hard_sigmoid")
    assert preset.auto_weights == {"context": "places365"} and recipe.predicts_vad and recipe.linear_outputs


def test_presets_of_the_thesis_and_ours_use_none_of_the_new_settings() -> None:
    plain = Recipe()
    for name in ("thesis", "modern"):
        for setting in NEW_SETTINGS:
            assert getattr(PRESETS[name].recipe, setting) == getattr(plain, setting)
    assert (plain.labels_weight, plain.decay_factor, plain.se_reduction, plain.context_center_share) == (1, 0.1, 16, 1)


def test_help_has_a_phrase_for_every_preset() -> None:
    assert set(PRESETS) == set(typing.get_args(PresetName))
    words = " ".join(CliRunner().invoke(main, ["train", "--help"], terminal_width=1000).output.split())
    for name, preset in PRESETS.items():
        assert f"{name}: {preset.phrase}" in words


@pytest.mark.parametrize(
    ("preset", "model", "message"),
    [
        ("caer", "kosti", "preset caer cannot train kosti, expected one of caer-net-s"),
        ("author", "mter1", "preset author cannot train mter1, expected one of task1+task3, task2+task3, mter2"),
    ],
)
def test_preset_of_some_models_refuses_the_others(tmp_path: Path, preset: str, model: str, message: str) -> None:
    with pytest.raises(SettingsError) as refused:
        _config(tmp_path / "manifest.json", tmp_path, preset, model)
    assert message in str(refused.value)


@pytest.mark.parametrize(
    ("preset", "sources", "cards"),
    [
        ("thesis", ("auto",), ["resnet18-f37072fd", "resnet18-f37072fd"]),
        ("kosti", ("auto",), ["resnet18-f37072fd", "resnet18_places365"]),
        ("kosti", ("context=imagenet",), ["resnet18-f37072fd", "resnet18-f37072fd"]),
        ("kosti", ("body=none",), ["resnet18_places365"]),
        ("kosti", ("none",), []),
    ],
)
def test_auto_weights_are_the_presets(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, preset: PresetName, sources: tuple[str, ...], cards: list[str]
) -> None:
    asked: list[str] = []
    model = build_model("kosti")
    torch.save(model.backbones()["body"].state_dict(), tmp_path / "weights.pth")

    def find(card: str) -> WeightsFile:
        asked.append(card)
        return find_weights("weights", tmp_path / "weights.pth")

    monkeypatch.setattr(pretrained, "find_weights", find)
    load_initial_weights(model, sources, auto_weights=PRESETS[preset].auto_weights)
    assert asked == cards


def test_sizes_are_the_presets_unless_given(tmp_path: Path) -> None:
    for preset, model, sizes in (("thesis", "task1", (128, 224)), ("caer", "caer-net-s", (96, 112))):
        config = TrainConfig(manifest=tmp_path, out=tmp_path, preset=preset, model=model)
        assert config.stream_sizes == {"face": sizes[0], "body": sizes[0], "context": sizes[1]}
        assert config.replace(person_size=64).stream_sizes == {"face": 64, "body": 64, "context": sizes[1]}


# Schedules


def test_step_schedule_falls_after_every_interval() -> None:
    kosti, author = PRESETS["kosti"].recipe, PRESETS["author"].recipe
    rates = [learning_rate(kosti, epoch, 9, 10) for epoch in range(21)]
    assert rates == pytest.approx([0.01] * 7 + [0.001] * 7 + [0.0001] * 7)
    assert learning_rate(kosti, 0, 0, 10) == 0.01 and learning_rate(kosti, 7, 0, 10) == pytest.approx(0.001)
    rates = [learning_rate(author, epoch, 0, 10) for epoch in (0, 6, 7, 13, 14, 21, 27)]
    assert rates == pytest.approx([0.001, 0.001, 0.0005, 0.0005, 0.00025, 0.000125, 0.000125])
    assert PRESETS["caer"].recipe.decay_steps == (4, 8)


def test_step_schedule_agrees_with_torch() -> None:
    recipe = Recipe(epochs=9, warmup_epochs=0, decay_epochs=(), decay_every=2, decay_factor=0.3, learning_rate=0.1)
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.1)
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, step_size=2, gamma=0.3)
    for epoch in range(9):
        for step in range(3):
            assert learning_rate(recipe, epoch, step, 3) == pytest.approx(schedule.get_last_lr()[0])
        optimizer.step()
        schedule.step()


def test_interval_is_scaled_with_the_epochs_unless_given() -> None:
    short = resolve_recipe("kosti", {"epochs": 6})
    assert (short.decay_every, short.decay_steps) == (2, (2, 4))
    assert resolve_recipe("kosti", {"epochs": 10}).decay_steps == pytest.approx((10 / 3, 20 / 3))
    assert resolve_recipe("author", {"epochs": 56}).decay_steps == (14, 28, 42)
    assert resolve_recipe("kosti", {"epochs": 1}).decay_steps == pytest.approx((1 / 3, 2 / 3))
    assert resolve_recipe("kosti", {"epochs": 6, "decay_every": 7.0}).decay_steps == ()
    assert resolve_recipe("kosti", {"decay_epochs": (3.0, 5.0)}).decay_steps == (3, 5)


def test_another_loss_takes_logits_again() -> None:
    assert not resolve_recipe("kosti", {"loss": "bce"}).linear_outputs
    assert resolve_recipe("kosti", {"loss": "weighted_euclidean"}).label_weights == "batch_count"
    with pytest.raises(SettingsError, match="linear_outputs needs the loss weighted_euclidean, found bce"):
        resolve_recipe("thesis", {"linear_outputs": True})
    with pytest.raises(SettingsError, match="linear_outputs needs the loss weighted_euclidean, found asymmetric"):
        resolve_recipe("kosti", {"loss": "asymmetric", "linear_outputs": True})


# Losses


def test_linear_outputs_are_compared_with_the_labels_themselves() -> None:
    outputs, labels = torch.tensor([[0.25, 1.5, -2.0]]), torch.tensor([[1.0, 1.0, 0.0]])
    assert label_terms(outputs, labels, "weighted_euclidean", is_linear=True).tolist() == [[0.5625, 0.25, 4.0]]
    with pytest.raises(ValueError, match="the loss 'bce' needs logits"):
        label_terms(outputs, labels, "bce", is_linear=True)


def test_weighted_euclidean_of_linear_outputs_by_hand() -> None:
    outputs, labels = torch.zeros(2, 26), torch.zeros(2, 26)
    outputs[0, 3], outputs[1, 5] = 0.5, -0.5
    labels[:, 3] = 1  # twice in the batch: weight 1 / ln 3.2; label 5 never: 0.0001
    weights = weigh_batch_labels("batch_count", labels.sum(dim=0), 2)
    losses = label_losses(
        MterOutput(outputs, {}, None),
        labels,
        has_face=torch.tensor([True, True]),
        kind="weighted_euclidean",
        is_linear=True,
        labels_weight=0.5,
        label_weights=weights,
    )
    expected = 0.5 * ((0.25 + 1.0) / math.log(3.2) + 0.25 * 0.0001) / 2
    assert losses["labels"].item() == pytest.approx(expected, rel=1e-6)


def test_counts_on_emotics_train_give_the_constants_of_a_public_port() -> None:
    # people of EMOTIC's train with Affection, Anger, Engagement, Embarrassment; Tandon-A/emotic prints the weights
    weights = count_label_weights(torch.tensor([1063.0, 209.0, 12814.0, 152.0]))
    assert weights.tolist() == pytest.approx([0.1435, 0.1870, 0.1057, 0.1987], abs=5e-5)


def test_label_weights_of_a_batch_by_hand() -> None:
    counts = torch.tensor([0.0, 1.0, 4.0])
    by_count = weigh_batch_labels("batch_count", counts, 8)
    assert by_count.tolist() == pytest.approx([0.0001, 1 / math.log(2.2), 1 / math.log(5.2)])
    by_share = weigh_batch_labels("batch_share", counts, 8)
    assert by_share.tolist() == pytest.approx([1 / math.log(1.2), 1 / math.log(1.325), 1 / math.log(1.7)])
    with pytest.raises(ValueError, match="label weights 'kosti' do not depend on the batch"):
        weigh_batch_labels("kosti", counts, 8)


def test_val_is_weighted_as_an_average_batch() -> None:
    indicator = np.array([[1, 0, 1], [1, 0, 0], [1, 0, 0], [1, 0, 0]], np.uint8)
    count, batch_count, share = (weigh_labels(kind, indicator, 8) for kind in ("count", "batch_count", "batch_share"))
    assert count is not None and batch_count is not None and share is not None
    assert count.tolist() == pytest.approx([1 / math.log(5.2), 0.0001, 1 / math.log(2.2)])
    assert batch_count.tolist() == pytest.approx([1 / math.log(9.2), 0.0001, 1 / math.log(3.2)])
    assert share.tolist() == pytest.approx(weigh_labels("kosti", indicator).tolist())  # type: ignore[union-attr]
    assert weigh_labels("count", np.zeros((0, 3), np.uint8)).tolist() == pytest.approx([0.0001] * 3)  # type: ignore[union-attr]


def test_margin_loss_of_ratings_by_hand() -> None:
    predicted = torch.tensor([[0.5, 0.5, 0.5], [0.0, 0.0, 1.2]], requires_grad=True)
    target = torch.tensor([[0.5 + 0.9 / 9, 0.5 + 1.1 / 9, 0.5 - 3 / 9], [float("nan"), 0.5, 1.0]])
    # errors in points: 0.9 (below 1), 1.1, 3; not rated, 4.5, 1.8: squares of tenths of a point
    loss = vad_loss(predicted, target, torch.tensor([True, True]), "margin_l2")
    assert loss.item() == pytest.approx((0.11**2 + 0.3**2 + 0.45**2 + 0.18**2) / 2, rel=1e-5)
    loss.backward()
    assert predicted.grad is not None and predicted.grad[0, 0] == predicted.grad[1, 0] == 0
    assert predicted.grad[0, 2].item() == pytest.approx(0.3 * 0.9, rel=1e-5)
    assert vad_loss(torch.zeros(0, 3), torch.zeros(0, 3), torch.zeros(0, dtype=torch.bool), "margin_l2") == 0


def test_linear_outputs_as_probabilities_keep_their_order_between_0_and_1() -> None:
    outputs = torch.linspace(-3, 4, 701)
    probabilities = linear_to_probabilities(outputs)
    assert (np.diff(probabilities) > 0).all() and probabilities.min() > 0 and probabilities.max() < 1
    inside = (outputs >= 0.02) & (outputs <= 0.98)
    assert probabilities[inside.numpy()].tolist() == pytest.approx(outputs[inside].tolist())
    mirrored = linear_to_probabilities(1 - outputs)
    assert (probabilities + mirrored).tolist() == pytest.approx([1.0] * 701)
    assert linear_to_probabilities(torch.zeros(0, 26)).shape == (0, 26)


# Networks


def _n_parameters(model: nn.Module) -> int:
    return sum(value.numel() for value in model.parameters())


def test_networks_of_the_author_have_their_gates_and_slopes() -> None:
    plain, author = build_model("task2+task3"), build_recipe_model("task2+task3", PRESETS["author"].recipe)
    units = [unit for unit in author.modules() if isinstance(unit, SqueezeExcitation)]
    assert [unit.fc1.in_features for unit in units] == [
        32,
        *(96, 144),
        *(144, 192, 192),
        *(192, 384, 384, 384),
        *(384, 576, 576),
        *(576, 960, 960),
        960,
    ]
    assert len(units) == sum(stage.repeats for stage in STAGES) == 17
    assert all(unit.fc1.out_features == max(unit.fc1.in_features // 4, 8) for unit in units)
    assert all(isinstance(unit.gate, nn.Hardsigmoid) for unit in units)
    slopes = author.get_parameter("fusion.act.weight")
    assert slopes.shape == (256,) and (slopes == 0.25).all() and plain.get_parameter("fusion.act.weight").shape == (1,)
    widths = [unit.fc1.in_features for unit in units]
    grown = sum((2 * c + 1) * (max(c // 4, 8) - max(c // 16, 8)) for c in widths)
    vad_head = 256 * 3 + 3
    assert _n_parameters(author) - _n_parameters(plain) == grown + 255 + vad_head


def test_hard_sigmoid_gate_by_hand() -> None:
    gate = SqueezeExcitation(8, 4, "hard_sigmoid").gate
    assert gate(torch.tensor([-4.0, -3.0, 0.0, 1.5, 3.0, 9.0])).tolist() == [0, 0, 0.5, 0.75, 1, 1]


def test_caer_of_the_port_normalises_features_and_averages_the_attention() -> None:
    recipe = PRESETS["caer"].recipe
    plain, caer = build_model("caer-net-s"), build_recipe_model("caer-net-s", recipe)
    assert isinstance(caer, CaerNetS)
    assert isinstance(caer.face.norm, FeatureNorm) and isinstance(caer.context.norm, FeatureNorm)
    assert _n_parameters(caer) - _n_parameters(plain) == 2 * 2 * 256
    assert not any("norm" in name for name in plain.state_dict())
    assert caer.context_input == ContextInput(masks_face=True, face_fill="black", center_share=0.875)
    x = torch.randn(2, 3, 64, 96)  # not square: 4 x 6 positions
    context, summed = caer.eval().context, plain.eval().context
    summed.load_state_dict(context.state_dict(), strict=False)
    with torch.no_grad():  # BatchNorm of running mean 0 and variance 1 only divides by sqrt(1 + eps)
        torch.testing.assert_close(context(x) * math.sqrt(1 + 1e-5), summed(x) / 24)


def test_features_of_people_without_a_face_do_not_change_the_norm() -> None:
    caer, other = (build_recipe_model("caer-net-s", PRESETS["caer"].recipe).train() for _ in range(2))
    assert isinstance(caer, CaerNetS) and isinstance(other, CaerNetS)
    other.load_state_dict(caer.state_dict())
    inputs = {"face": torch.randn(4, 3, 32, 32), "context": torch.randn(4, 3, 32, 32)}
    caer(inputs, torch.tensor([True, False, True, False]))
    other.face(inputs["face"][[0, 2]])
    means = [model.face.norm.running_mean for model in (caer, other)]
    assert isinstance(means[0], Tensor) and isinstance(means[1], Tensor) and means[0].abs().sum() > 0
    torch.testing.assert_close(means[0], means[1])


@pytest.mark.parametrize("name", ["task1", "mter2", "kosti", "caer-net-s"])
def test_linear_outputs_are_the_same_networks_without_the_sigmoid(name: str) -> None:
    model, linear = (build_model(name, predicts_vad=True, linear_outputs=is_linear).eval() for is_linear in (0, 1))
    linear.load_state_dict(model.state_dict())
    inputs = {stream: torch.randn(2, 3, 32, 32) for stream in model.streams}
    has_face = torch.tensor([True, True])
    with torch.no_grad():
        one, other = model(inputs, has_face), linear(inputs, has_face)
    assert torch.equal(one.logits, other.logits) and one.vad_unit is not None and other.vad_unit is not None
    torch.testing.assert_close(other.vad_unit.sigmoid(), one.vad_unit)
    assert linear.has_linear_outputs and not model.has_linear_outputs


@pytest.mark.parametrize(
    ("name", "setting", "part"),
    [
        ("kosti", {"gate": "hard_sigmoid"}, "squeeze-and-excitation units"),
        ("task3", {"reductions": (4,) * 7}, "squeeze-and-excitation units"),
        ("task1", {"prelu_per_channel": True}, "PReLU"),
        ("kosti", {"normalises_features": True}, "BatchNorm on pooled features"),
        ("mter2", {"averages_attention": True}, "attention over positions"),
        ("mter2", {"face_fill": "black"}, "blanked face"),
        ("task1", {"context_center_share": 0.5}, "context stream"),
    ],
)
def test_settings_of_parts_that_a_model_lacks_are_refused(name: str, setting: dict[str, Any], part: str) -> None:
    with pytest.raises(SettingsError, match=f"{name} has no {part}, which a setting changes"):
        build_model(name, **setting)


# Inputs


def test_context_is_cropped_at_random_in_training_and_at_the_centre_in_evaluation(cache: StreamCache) -> None:
    plain = Augmentation((1.0, 1.0), (0.875, 0.875), mirror_probability=0.0, distort_probability=0.0)
    form = ContextInput(center_share=0.875)
    dataset = PeopleDataset(cache, ("context",), sizes={"context": 224}, augmentation=plain, context_input=form)
    whole = cache.read(0, "context")
    assert whole is not None and whole.shape == (256, 256, 3)
    assert np.array_equal(dataset[0]["context"], whole[16:240, 16:240])
    corners = set()
    for number in range(20):
        inputs = load_training_batch(dataset, [SampleKey(0, number, 0)]).inputs["context"]
        crop = to_pixels(inputs)[0]
        places = [
            (top, left)
            for top in range(33)
            for left in range(33)
            if np.array_equal(crop[::37, ::37], whole[top : top + 224, left : left + 224][::37, ::37])
        ]
        assert places
        corners.add(places[0])
    assert len(corners) > 5


def test_central_square_by_hand() -> None:
    photo = np.arange(6 * 8 * 3, dtype=np.uint8).reshape(6, 8, 3)
    assert np.array_equal(crop_center_square(photo, 0.5), photo[1:4, 2:5])
    square = photo[:, 1:7]
    assert np.array_equal(crop_center_square(square, 1.0), square)
    assert fit_input(crop_center_square(square, 0.01), 4).shape == (4, 4, 3)


def test_face_is_black_in_the_context_of_the_recipe(cache: StreamCache) -> None:
    dataset = PeopleDataset(cache, ("context",), context_input=ContextInput(masks_face=True, face_fill="black"))
    position = int(np.argmax(cache.people.has_face))
    left, top, right, bottom = (cache.people.face_in_context[position] * 224).tolist()
    dataset.augmentation = Augmentation((1.0, 1.0), mirror_probability=0.0, distort_probability=0.0)
    for batch in (load_batch(dataset, [position]), load_training_batch(dataset, [SampleKey(0, 0, position)])):
        pixels = to_pixels(batch.inputs["context"])[0]
        assert not pixels[int(top) + 2 : int(bottom) - 1, int(left) + 2 : int(right) - 1].any() and pixels.any()


def test_heat_is_drawn_where_the_network_looks() -> None:
    box = stream_box("context", None, 0.0, (200, 120), 0.875)  # type: ignore[arg-type]
    assert box == (12.5, 7.5, 187.5, 112.5)


# Runs


@pytest.mark.parametrize(("preset", "model"), SYSTEMS)
def test_preset_trains_two_steps_and_is_evaluated(
    manifest: Path, cache: StreamCache, tmp_path: Path, preset: PresetName, model: str
) -> None:
    source = "auto" if preset == "caer" else "none"  # the paper starts from random values, so nothing is needed
    run_train(_config(manifest, tmp_path / "run", preset, model, pretrained=source))
    run = read_run(tmp_path / "run")
    expected = PRESETS[preset].recipe
    (line,) = run.log()
    n_decays = {"kosti": 2, "caer": 2, "author": 3}[preset]  # in proportion, all within the one epoch
    assert line["learning_rate"] == pytest.approx(expected.learning_rate * expected.decay_factor**n_decays)
    assert run.recipe == resolve_recipe(preset, STEPS) and run.settings["preset"] == preset
    assert run.settings["started_from"] == [] and math.isfinite(line["train_loss"])
    assert ("vad" in line["train_losses"]) == (preset != "caer")
    start = build_recipe_model(model, run.recipe).state_dict()
    trained = run.load_model()
    assert trained.state_dict().keys() == start.keys()
    dataset = PeopleDataset.of_model(cache, trained, sizes=run.stream_sizes)
    outputs = forward_people(trained, dataset, np.arange(5))
    assert ((outputs.probabilities > 0) & (outputs.probabilities < 1)).all()
    assert len(np.unique(outputs.probabilities[:, 0])) > 1
    assert (outputs.vad is None) == (preset == "caer")


def test_weights_of_the_labels_are_those_of_each_batch(
    manifest: Path, cache: StreamCache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[list[float], int]] = []

    def record(kind: Any, counts: torch.Tensor, n_people: int) -> torch.Tensor:
        seen.append((counts.tolist(), n_people))
        return weigh_batch_labels(kind, counts, n_people)

    monkeypatch.setattr(trainer, "weigh_batch_labels", record)
    run_train(_config(manifest, tmp_path / "run", "kosti", "task2"))
    sampled = sample_epoch(np.arange(len(cache)), None, 0, 0)
    batches = [[key.position for key in batch] for batch in plan_batches(sampled, 0, 8)]
    assert seen == [(cache.people.labels[batch].sum(axis=0).tolist(), 8) for batch in batches] and len(seen) == 2


def test_run_of_before_the_new_settings_is_read_and_resumed(manifest: Path, tmp_path: Path) -> None:
    config = _config(manifest, tmp_path / "run", "thesis", "task2")
    run_train(config)
    path = config.out / "run.json"
    settings = json.loads(path.read_text())
    assert settings["recipe"].keys() > NEW_SETTINGS
    settings["recipe"] = {name: value for name, value in settings["recipe"].items() if name not in NEW_SETTINGS}
    path.write_text(json.dumps(settings))
    run = read_run(config.out)
    assert run.recipe == resolve_recipe("thesis", STEPS)
    assert run.load_model().state_dict().keys() == build_model("task2").state_dict().keys()
    assert run_train(config).counts["epochs"] == 1  # it is finished: no error about other settings
    with pytest.raises(SettingsError, match=r"recipe\.decay_factor was 0\.1, now 0\.5"):
        run_train(config.replace(recipe={**STEPS, "decay_factor": 0.5}))
    settings["recipe"]["se_rediction"] = 4
    settings["versions"]["emoface"] = "99.0"
    path.write_text(json.dumps(settings))
    with pytest.raises(SettingsError, match=r"run\.json: recipe: there is no setting 'se_rediction'.*emoface 99\.0"):
        read_run(config.out)
