"""What trainings share: averaged weights, devices, optimizers, schedules, checkpoints; and MTER's own small rules."""

from __future__ import annotations

import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from emoface.errors import SettingsError
from emoface.learning.checkpoints import load_checkpoint, save_checkpoint
from emoface.learning.devices import pick_device
from emoface.learning.ema import AveragedWeights, Decay, exponential_warmup, ratio_warmup
from emoface.learning.norms import NormWarmup
from emoface.learning.optimizers import build_optimizer, parameter_groups, set_learning_rate
from emoface.learning.schedules import cosine_factor, step_factor
from emoface.mter import build_model
from emoface.mter.names import MODEL_NAMES
from emoface.mter.networks import _BACKBONES
from emoface.mter.recipe import PRESETS, Recipe, resolve_recipe
from emoface.mter.vad import from_vad_unit, to_vad_unit


def _network() -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))


@pytest.mark.parametrize(
    ("decay", "expected"),
    [
        (ratio_warmup(0.15), [0.1, 0.15, 0.15]),
        (exponential_warmup(0.9, 2), [0.9 * (1 - math.exp(-n / 2)) for n in (1, 2, 3)]),
    ],
)
def test_average_by_hand_and_its_whole_numbers_are_copied(decay: Decay, expected: list[float]) -> None:
    network = _network()
    averaged = AveragedWeights(network, decay)
    assert not averaged.model.training and not any(value.requires_grad for value in averaged.model.parameters())
    bias, mean = network[0].bias, network[1].running_mean
    by_hand = bias.detach().clone(), mean.clone()
    for share in expected:
        with torch.no_grad():
            bias += 1
            mean += 2
            network[1].num_batches_tracked += 3
        averaged.update(network)
        by_hand = by_hand[0] * share + bias.detach() * (1 - share), by_hand[1] * share + mean * (1 - share)
        assert torch.allclose(averaged.model[0].bias, by_hand[0])
        assert torch.allclose(averaged.model[1].running_mean, by_hand[1])
    assert averaged.n_updates == 3 and averaged.model[1].num_batches_tracked == 9


def test_average_goes_on_from_its_state() -> None:
    torch.manual_seed(0)
    steps = [_network() for _ in range(4)]
    whole, broken = (AveragedWeights(steps[0], ratio_warmup(0.9)) for _ in range(2))
    for network in steps[1:]:
        whole.update(network)
    broken.update(steps[1])
    resumed = AveragedWeights(steps[2], ratio_warmup(0.9))
    resumed.model.load_state_dict(broken.model.state_dict())
    resumed.n_updates = broken.n_updates
    for network in steps[2:]:
        resumed.update(network)
    state = resumed.model.state_dict()
    assert all(torch.equal(value, state[name]) for name, value in whole.model.state_dict().items())


def test_device_is_the_cpu_where_there_is_no_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    assert pick_device() == pick_device(None) == pick_device("cpu") == torch.device("cpu")
    with pytest.raises(SettingsError, match=r"^device is 'cuda', but torch sees 0 CUDA devices; use another, or cpu$"):
        pick_device("cuda")


def test_device_is_one_of_several_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert pick_device() == pick_device(None) == pick_device("auto") == pick_device("cuda") == torch.device("cuda")
    assert pick_device("cuda:1") == torch.device("cuda:1") and pick_device("cpu") == torch.device("cpu")
    with pytest.raises(SettingsError, match=r"^device is 'cuda:2', but torch sees 2 CUDA devices; use"):
        pick_device("cuda:2")


@pytest.mark.parametrize("name", ["gpu", "cuda:x", "meta", ""])
def test_unknown_device_is_named(name: str) -> None:
    with pytest.raises(SettingsError, match=f"^device is '{name}', expected cpu, cuda or cuda:N$"):
        pick_device(name)


def test_biases_and_norms_decay_only_if_asked_for() -> None:
    network = _network()
    decay, keep = parameter_groups(network, 0.1)
    assert [value.shape for value in decay["params"]] == [(4, 3, 1, 1)] and decay["weight_decay"] == 0.1
    assert [tuple(value.shape) for value in keep["params"]] == [(4,)] * 3 and keep["weight_decay"] == 0
    (everything,) = parameter_groups(network, 0.1, decays_norms=True)
    assert all(a is b for a, b in zip(everything["params"], network.parameters(), strict=True))
    assert parameter_groups(nn.ReLU(), 0.1) == []


def test_optimizers_are_torchs_with_one_learning_rate() -> None:
    sgd = build_optimizer(_network(), learning_rate=0.1, weight_decay=0.2, momentum=0.3, nesterov=True)
    assert isinstance(sgd, torch.optim.SGD)
    assert all((one["momentum"], one["nesterov"], one["lr"]) == (0.3, True, 0.1) for one in sgd.param_groups)
    adamw = build_optimizer(_network(), "adamw", learning_rate=0.1, weight_decay=0.2)
    assert isinstance(adamw, torch.optim.AdamW)
    adam = build_optimizer(_network(), "adam", learning_rate=0.1, weight_decay=0.2)
    assert type(adam) is torch.optim.Adam and adam.param_groups[0]["weight_decay"] == 0.2
    set_learning_rate(adamw, 0.01)
    assert [one["lr"] for one in adamw.param_groups] == [0.01, 0.01]


def test_schedules_fall_from_one() -> None:
    assert [step_factor(n) for n in (0, 1, 2)] == pytest.approx([1, 0.1, 0.01])
    assert [cosine_factor(share) for share in (0, 0.5, 1, 2)] == pytest.approx([1, 0.505, 0.01, 0.01])


def test_checkpoint_comes_back_and_leaves_nothing_beside_it(tmp_path: Path) -> None:
    state = {"model": _network().state_dict(), "lines": [{"epoch": 1, "loss": 0.5}], "averaged": None}
    save_checkpoint(tmp_path / "run" / "last.pt", state)
    again = load_checkpoint(tmp_path / "run" / "last.pt", ("model", "lines"))
    assert again["lines"] == state["lines"] and again["averaged"] is None
    assert all(torch.equal(value, again["model"][name]) for name, value in state["model"].items())
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["last.pt"]


def test_ratings_go_there_and_back() -> None:
    vad = torch.tensor([[1.0, 5.5, 10.0], [math.nan, 2.0, 9.0]])
    assert to_vad_unit(vad)[0].tolist() == [0, 0.5, 1]
    assert torch.allclose(from_vad_unit(to_vad_unit(vad)), vad, equal_nan=True)
    assert to_vad_unit(torch.zeros(0, 3)).shape == (0, 3)


def test_model_of_the_face_alone_sees_people_with_a_face() -> None:
    has_face = np.array([True, False, True])
    face, fused = build_model("task1"), build_model("task1+task2")
    assert face.reads_face_alone and face.select_people(has_face).tolist() == has_face.tolist()
    assert not fused.reads_face_alone and fused.select_people(has_face).all()
    assert not len(face.select_people(has_face[:0])) and not len(fused.select_people(has_face[:0]))


def test_names_are_those_of_the_networks() -> None:
    assert (*_BACKBONES, "kosti", "caer-net-s", "affective-graph", "emoticon") == MODEL_NAMES


def test_recipe_takes_any_number_of_epochs_with_its_schedule() -> None:
    assert PRESETS["thesis"].recipe.with_epochs(120) == Recipe()
    assert resolve_recipe("modern", {"epochs": 20}).warmup_epochs == 1
    assert resolve_recipe("modern", {}) == PRESETS["modern"].recipe
    with pytest.raises(SettingsError, match="epochs is 'many', expected 1 or more"):
        resolve_recipe("thesis", {"epochs": "many"})
    with pytest.raises(SettingsError, match="crop_shares has 3 values, expected 2"):
        resolve_recipe("thesis", {"crop_shares": (0.1, 0.5, 1.0)})


def test_recipes_and_names_are_read_without_torch() -> None:
    code = "import sys, emoface.mter.recipe, emoface.mter.epoch_log; print('torch' in sys.modules)"
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "False"


def test_statistics_of_an_untrained_norm_are_the_plain_average_of_its_first_batches() -> None:
    """Against means worked out here: 1, then (1 + 4) / 2, then (1 + 4 + 1) / 3; from the tenth on a tenth each."""
    norm = nn.BatchNorm1d(1)
    warmup = NormWarmup(norm)
    values = [1.0, 4.0, 1.0, *([7.0] * 8)]
    means = []
    for value in values:
        warmup.set_momentum()
        norm(torch.tensor([[value - 1], [value + 1]]))
        means.append(float(norm.running_mean))
    assert means[:3] == pytest.approx([1, 2.5, 2]) and means[9] == pytest.approx(np.mean(values[:10]))
    assert means[10] == pytest.approx(0.9 * means[9] + 0.1 * 7) and norm.momentum == 0.1
    assert float(norm.running_var) == pytest.approx(2)  # of each batch, unbiased: nothing is left of the initial 1


def test_statistics_of_pretrained_norms_are_moved_as_ever() -> None:
    pretrained, plain = nn.BatchNorm1d(1), nn.BatchNorm1d(1)
    for norm in (pretrained, plain):
        norm.running_mean.fill_(5.0)
    NormWarmup(pretrained).set_momentum()
    for norm in (pretrained, plain):
        norm(torch.tensor([[0.0], [2.0]]))
    assert pretrained.running_mean.tolist() == plain.running_mean.tolist() == [pytest.approx(0.9 * 5 + 0.1 * 1)]


def test_a_deep_network_tells_inputs_apart_after_few_steps() -> None:
    """Without the warm-up the outputs of a deep network of small activations are the same for all inputs."""
    ranges = {}
    for warms_up in (False, True):
        torch.manual_seed(0)
        model = build_model("task2")
        warmup = NormWarmup(model)
        pixels, has_face = torch.randn(8, 3, 32, 32), torch.ones(8, dtype=torch.bool)
        model.train()
        with torch.no_grad():
            for _ in range(6):
                if warms_up:
                    warmup.set_momentum()
                model({"body": pixels}, has_face)
            logits = model.eval()({"body": pixels}, has_face).logits
        ranges[warms_up] = float((logits.amax(dim=0) - logits.amin(dim=0)).max())
    assert ranges[False] < 1e-3 < 0.05 < ranges[True]
