"""Grad-CAM by hand and against plain autograd, and its drawings."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from mter_data import PHOTO_WH, write_photos_and_tables
from run_data import write_finished_run
from torch import Tensor, nn

from emoface.cli import main
from emoface.datasets.manifest import read_manifest
from emoface.datasets.people import find_annotated_people
from emoface.errors import ImageError, SettingsError, TableError
from emoface.inference.predictor import Person
from emoface.jobs.explain import ExplainConfig, run_explain, stream_box
from emoface.mter import build_model
from emoface.mter.base import Mter, MterOutput
from emoface.mter.blocks import Backbone
from emoface.mter.grad_cam import grad_cam
from emoface.reporting.drawing import draw_heat

FACE = torch.ones(1, dtype=torch.bool)


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


class _Colors(Backbone):
    """The feature map is the photo at half its size; the feature is each colour's mean."""

    n_features = 3

    def __init__(self) -> None:
        super().__init__()
        self.halve = nn.AvgPool2d(2)

    @property
    def last_map(self) -> nn.Module:
        return self.halve

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.halve(x).mean(dim=(2, 3))
        return out


class _ColorModel(Mter):
    """Label k speaks for the weights given of red, green and blue."""

    def __init__(self, weights: list[list[float]]) -> None:
        super().__init__("colors", ("body",))
        self.body = _Colors()
        self.head = nn.Linear(3, len(weights), bias=False)
        self.head.weight.data = torch.tensor(weights)

    def backbones(self) -> dict[str, Backbone]:
        return {"body": self.body}

    def forward(self, inputs: Mapping[str, Tensor], has_face: Tensor) -> MterOutput:
        return MterOutput(self.head(self.body(inputs["body"])), {}, None)


def test_by_hand() -> None:
    # The gradient of a mean over 2 x 3 places is weight / 6 everywhere, so the map is relu(sum of weight x colour) / 6.
    photo = torch.zeros(1, 3, 4, 6)
    photo[0, 0, :2, :2] = 6.0  # red at the upper left place
    photo[0, 2, 2:, 4:] = 12.0  # blue at the lower right place
    model = _ColorModel([[1.0, 0.0, 0.0], [0.0, 0.0, 0.5], [1.0, 0.0, -1.0], [0.0, 5.0, 0.0]])
    maps = grad_cam(model, {"body": photo}, FACE, [0, 1, 2, 3])["body"]
    assert maps[0].tolist() == [[1, 0, 0], [0, 0, 0]]
    assert maps[1].tolist() == [[0, 0, 0], [0, 0, 1]]
    assert maps[2].tolist() == [[1, 0, 0], [0, 0, 0]]  # what speaks against is cut
    assert maps[3].tolist() == [[0, 0, 0], [0, 0, 0]]


def test_map_is_where_the_evidence_is() -> None:
    model = _ColorModel([[0.0, 1.0, 0.0]])
    for row, column in ((0, 0), (3, 7), (5, 2)):
        photo = torch.rand(1, 3, 12, 20) * 0.1
        photo[0, 1, 2 * row : 2 * row + 2, 2 * column : 2 * column + 2] = 5.0
        heat = grad_cam(model, {"body": photo}, FACE, [0])["body"][0]
        assert np.unravel_index(heat.argmax(), heat.shape) == (row, column)


@pytest.mark.parametrize("name", ["mter2", "kosti", "caer-net-s"])
def test_real_networks_against_plain_autograd(name: str) -> None:
    torch.manual_seed(1)
    model = build_model(name).eval()
    inputs = {stream: torch.randn(1, 3, 64, 64) for stream in model.streams}
    maps = grad_cam(model, inputs, FACE, [4, 16])
    assert set(maps) == set(model.streams)
    # A change of the last map by a small step along one channel's mean gradient, told by the logit itself.
    for stream, layer in model.last_maps().items():
        kept: list[Tensor] = []
        handle = layer.register_forward_hook(lambda _m, _g, result, kept=kept: kept.append(result.clone()) or kept[-1])
        logit = model(inputs, FACE).logits[0, 16]
        handle.remove()
        (gradient,) = torch.autograd.grad(logit, kept)
        expected = (gradient.mean(dim=(2, 3), keepdim=True) * kept[0]).sum(dim=1).clamp(min=0)[0]
        assert maps[stream][1] == pytest.approx(expected.detach().numpy(), abs=1e-6)
        assert maps[stream].shape == (2, *expected.shape)


def test_network_is_left_as_it_was() -> None:
    model = build_model("task2").eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    inputs = {"body": torch.randn(1, 3, 64, 64)}
    with torch.no_grad():
        logits = model(inputs, FACE).logits
        grad_cam(model, inputs, FACE, [0])
        assert torch.equal(model(inputs, FACE).logits, logits)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())
    assert not any(layer._forward_hooks for layer in model.modules())


def test_frozen_weights_give_the_same_maps() -> None:
    torch.manual_seed(0)
    model = build_model("task2").eval()
    inputs = {"body": torch.randn(1, 3, 64, 64)}
    maps = grad_cam(model, inputs, FACE, [0, 1])
    frozen = grad_cam(model.requires_grad_(False), inputs, FACE, [0, 1])
    assert frozen["body"] == pytest.approx(maps["body"], abs=1e-7)


def test_without_a_face_there_is_no_map_of_it() -> None:
    model = build_model("mter2").eval()
    inputs = {stream: torch.randn(1, 3, 64, 64) for stream in model.streams}
    assert set(grad_cam(model, inputs, ~FACE, [0])) == {"body", "context"}
    alone = build_model("task1").eval()
    assert grad_cam(alone, {"face": inputs["face"]}, ~FACE, [0]) == {}
    assert grad_cam(alone, {"face": inputs["face"]}, FACE, []) == {}
    with pytest.raises(ValueError, match="one person at a time"):
        grad_cam(alone, {"face": torch.zeros(2, 3, 64, 64)}, torch.ones(2, dtype=torch.bool), [0])


def test_parts_of_the_photo_by_hand() -> None:
    body, face = np.array([10, 20, 60, 110], np.float32), np.array([20, 30, 40, 60], np.float32)
    person = Person(body, face, np.zeros((30, 30, 3), np.uint8), "box")
    assert stream_box("context", person, 0.5, (200, 120)) == (0, 0, 200, 120)
    assert stream_box("body", person, 0.5, (200, 120)) == (10, 20, 60, 110)
    assert stream_box("face", person, 0.5, (200, 120)) == (0, 15, 60, 75)  # side 30 x 2 around (30, 45)
    with pytest.raises(ValueError, match="without a face"):
        stream_box("face", Person(body, None, None, "box"), 0.5, (200, 120))


def test_heat_is_drawn_in_its_own_part_alone() -> None:
    photo = np.full((60, 100, 3), 100, np.uint8)
    heat = np.array([[1, 0], [0, 0]], np.float32)
    drawn = draw_heat(photo, heat, (40, 20, 80, 40), 1.0).astype(int)
    changed = (drawn != 100).any(axis=2)
    assert changed[20:30, 40:50].all() and not changed[:20].any() and not changed[40:].any()
    assert not changed[:, :40].any() and not changed[:, 80:].any() and not changed[35:40, 70:80].any()
    assert drawn[21, 42, 0] > drawn[21, 42, 2]  # red, not blue
    assert np.array_equal(draw_heat(photo, heat, (40, 20, 80, 40), 0.0), photo)
    assert (photo == 100).all()


def test_heat_beyond_the_border_is_cut_not_squeezed() -> None:
    photo = np.full((60, 100, 3), 100, np.uint8)
    heat = np.zeros((4, 4), np.float32)
    heat[2:, 2:] = 1
    drawn = draw_heat(photo, heat, (-40, -40, 40, 40), 1.0)
    assert (drawn[15:40, 15:40] != 100).any(axis=2).all() and (drawn[41:] == 100).all() and (drawn[:, 41:] == 100).all()
    assert np.array_equal(draw_heat(photo, heat, (200, 0, 240, 40), 1.0), photo)


# The job


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    root = tmp_path_factory.mktemp("explain")
    manifest = write_photos_and_tables(root, 8)
    return write_finished_run(root / "mter2", manifest), manifest


def _told(path: Path) -> dict[str, Any]:
    told: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return told


def test_people_of_the_data_set_are_drawn(data: tuple[Path, Path], tmp_path: Path) -> None:
    record = run_explain(ExplainConfig(run=data[0], index=(0, 3), labels=("Fear", "Doubt/Confusion"), out=tmp_path))
    assert record.counts == {"people": 2, "photos_left_out": 0, "drawings": 2 * (3 + 2)}
    names = {path.name for path in tmp_path.glob("*.png")}
    labels = ("fear", "doubt-confusion")
    with_face = {f"person-000000_{label}_{stream}.png" for label in labels for stream in ("face", "body", "context")}
    assert names == with_face | {
        f"person-000003_{label}_{part}.png" for label in labels for part in ("body", "context")
    }
    told = _told(tmp_path / "person-000000.json")
    (annotated,) = find_annotated_people(read_manifest(data[1]), "index", [0])
    assert told["person_id"] == annotated.person_id and tuple(told["true_labels"]) == annotated.categories
    assert list(told["labels"]) == ["Fear", "Doubt/Confusion"]
    streams = told["labels"]["Fear"]["streams"]
    assert streams["body"]["box"] == [10, 10, 80, 115] and streams["context"]["box"] == [0, 0, *PHOTO_WH]
    assert streams["face"]["box"] == [30, 15, 54, 39]
    for part in streams.values():
        heat = np.array(part["map"])
        if heat.max() == 0:
            assert part["peak"] is None
            continue
        row, column = np.unravel_index(heat.argmax(), heat.shape)
        x1, y1, x2, y2 = part["box"]
        expected = [x1 + (column + 0.5) * (x2 - x1) / heat.shape[1], y1 + (row + 0.5) * (y2 - y1) / heat.shape[0]]
        assert part["peak"] == pytest.approx(expected, abs=0.01)


def test_most_probable_labels_are_taken_where_none_are_named(data: tuple[Path, Path], tmp_path: Path) -> None:
    person_id = find_annotated_people(read_manifest(data[1]), "index", [5])[0].person_id
    run_explain(ExplainConfig(run=data[0], person_id=(person_id,), index=(5,), top=2, out=tmp_path))
    told = _told(tmp_path / "person-000005.json")["labels"]
    first, second = (one["probability"] for one in told.values())
    assert len(told) == 2 and first >= second
    assert len(list(tmp_path.glob("*.json"))) == 1  # named twice, drawn once


def test_errors_say_what_to_do(data: tuple[Path, Path], tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="no people to explain; give photos, an index or a person_id"):
        ExplainConfig(run=data[0])
    with pytest.raises(SettingsError, match=r"no label is called 'Hapiness'; did you mean 'Happiness'\?"):
        run_explain(ExplainConfig(run=data[0], index=(0,), labels=("Hapiness",), out=tmp_path))
    with pytest.raises(TableError, match="no person in its splits has the index 12345"):
        run_explain(ExplainConfig(run=data[0], index=(12345,), out=tmp_path))
    with pytest.raises(ImageError, match=r"1 photos could not be read: .*gone\.jpg"):
        run_explain(
            ExplainConfig(run=data[0], images=(tmp_path / "gone.jpg",), index=(0,), labels=("Fear",), out=tmp_path)
        )
    assert (tmp_path / "person-000000.json").is_file()


def test_command(data: tuple[Path, Path], tmp_path: Path) -> None:
    words = ["explain", str(data[0]), "--index", "1", "--label", "Peace", "--out", str(tmp_path)]
    answer = CliRunner().invoke(main, words)
    assert answer.exit_code == 0, answer.output
    assert "drawings: 3" in answer.stdout and (tmp_path / "person-000001_peace_face.png").is_file()
