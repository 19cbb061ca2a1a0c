"""Training a detector: targets, losses and schedule by hand; a run that learns, stops, resumes and is refused."""

from __future__ import annotations

import copy
import json
import math
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from click.testing import CliRunner

from emoface.cli import main
from emoface.datasets.face_labels import LabelledPhoto, read_whole_photos
from emoface.errors import ImageError, SettingsError
from emoface.jobs import train_detector
from emoface.jobs.simulate import SimulateConfig, run_simulate
from emoface.jobs.train_detector import TrainDetectorConfig, run_train_detector
from emoface.learning.ema import AveragedWeights, exponential_warmup
from emoface.metrics.detection import LabelledFaces
from emoface.progress import SILENT, Silent
from emoface.storage.files import file_sha256
from emoface.storage.records import read_record
from emoface.storage.weights import DEMONSTRATION_DETECTOR, find_weights
from emoface.vision.crops import Photo
from emoface.yolov5face import YoloV5Face, build_network, load_network, save_network, trainer
from emoface.yolov5face.batches import PhotoBatch, TrainingCrops
from emoface.yolov5face.losses import (
    FaceTargets,
    LossWeights,
    _objectness_loss,
    complete_iou,
    detection_losses,
    masked_wing_loss,
)
from emoface.yolov5face.targets import IGNORED, NEGATIVE, AnchorGrid, match_anchors
from emoface.yolov5face.training import (
    NonFiniteLossError,
    has_folded_norms,
    restore_norms,
    train_one_epoch,
)

TINY = "yolov5n-0.5-face"


def _grid(side: float, stride: int, net_wh: tuple[int, int]) -> AnchorGrid:
    return AnchorGrid.build([torch.tensor([[side, side]])], (stride,), net_wh)


def test_anchor_grid_of_a_wide_input_goes_row_by_row() -> None:
    grid = _grid(10, 8, (24, 16))
    assert grid.xywh_net[:, :2].tolist() == [[4, 4], [12, 4], [20, 4], [4, 12], [12, 12], [20, 12]]


def test_anchors_are_positive_above_half_negative_below_three_tenths_and_ignored_between() -> None:
    # anchors of 16 at x centres 8, 16, 24...: a face moved by d overlaps an anchor with (16 - d) / (16 + d)
    grid = AnchorGrid.build([torch.tensor([[16.0, 16.0]])], (8,), (64, 8))
    face = torch.tensor([[2.0, -4.0, 18.0, 12.0]])  # centre 10, 4; anchors' centres 4, 12, 20...
    overlaps = [max(16 - shift, 0) / (16 + shift) for shift in (6, 2, 10, 18, 26, 34, 42, 50)]
    expected = [0 if iou >= 0.5 else IGNORED if iou >= 0.3 else NEGATIVE for iou in overlaps]
    assert expected[:3] == [IGNORED, 0, NEGATIVE]
    assert match_anchors(grid, face).tolist() == expected


def test_anchor_that_cannot_reach_a_face_is_negative_however_well_it_overlaps() -> None:
    grid = AnchorGrid.build([torch.tensor([[64.0, 64.0]])], (8,), (48, 8))
    # on the first anchor; the second overlaps it by 56 / 72, the third by 48 / 80
    face = torch.tensor([[-28.0, -28.0, 36.0, 36.0]])
    assert match_anchors(grid, face).tolist() == [0, NEGATIVE, NEGATIVE, NEGATIVE, NEGATIVE, NEGATIVE]


def test_small_face_that_no_anchor_fits_gets_its_best_anchor() -> None:
    matched = match_anchors(_grid(32, 16, (64, 32)), torch.tensor([[21.0, 5.0, 27.0, 11.0]]))
    assert matched.tolist() == [NEGATIVE, 0, *[NEGATIVE] * 6]


def test_no_face_makes_every_anchor_negative_and_two_faces_keep_their_own() -> None:
    grid = _grid(16, 16, (48, 32))
    assert match_anchors(grid, torch.zeros(0, 4)).tolist() == [NEGATIVE] * 6
    both = torch.tensor([[0.0, 0.0, 16.0, 16.0], [32.0, 16.0, 48.0, 32.0]])
    assert match_anchors(grid, both).tolist() == [0, NEGATIVE, NEGATIVE, NEGATIVE, NEGATIVE, 1]


def test_complete_iou_by_hand() -> None:
    a, b = torch.tensor([[0.0, 0.0, 4.0, 2.0]]), torch.tensor([[2.0, 0.0, 4.0, 4.0]])
    iou, distance = 4 / 12, (1**2 + 1**2) / (4**2 + 4**2)
    shape = 4 / math.pi**2 * (math.atan(2 / 4) - math.atan(4 / 2)) ** 2
    expected = iou - distance - shape**2 / (1 - iou + shape)
    assert complete_iou(a, b).item() == pytest.approx(expected, abs=1e-6)
    far = torch.tensor([[100.0, 0.0, 104.0, 2.0]])
    assert complete_iou(a, far).item() == pytest.approx(-(100**2) / (104**2 + 2**2), abs=1e-6)


def test_wing_loss_by_hand_and_only_where_landmarks_are() -> None:
    found = torch.zeros(2, 5, 2, requires_grad=True)
    wanted = torch.full((2, 5, 2), math.nan)
    wanted[0] = 0.0
    wanted[0, 0, 0], wanted[0, 0, 1] = 0.1, -1.0
    curved = 0.2 * math.log(1 + 0.1 / 0.04)
    straight = 1 - (0.2 - 0.2 * math.log(1 + 0.2 / 0.04))
    loss = masked_wing_loss(found, wanted)
    assert loss.item() == pytest.approx((curved + straight) / 10, abs=1e-6)
    loss.backward()
    assert found.grad is not None and torch.isfinite(found.grad).all() and (found.grad[1] == 0).all()
    assert masked_wing_loss(found, torch.full((2, 5, 2), math.nan)).item() == 0


def test_mining_counts_the_positives_and_the_hardest_negatives_of_each_photo() -> None:
    logits = torch.tensor([[0.0, 3.0, 2.0, 1.0, -1.0, 9.0], [5.0, 4.0, 0.0, 0.0, 0.0, 0.0]])
    matched = torch.tensor([[0, -1, -1, -1, -1, IGNORED], [-1] * 6])
    weights = LossWeights(negatives_per_positive=2.0, min_negatives=1)
    right = [math.log(1 + math.exp(value)) for value in (3.0, 2.0, 5.0)]
    expected = (math.log(2) + sum(right)) / 2  # 2 negatives of photo 1, 1 of photo 2; a photo counts as 1 positive
    assert _objectness_loss(logits, matched, weights).item() == pytest.approx(expected, abs=1e-6)


def test_outputs_that_say_the_truth_have_no_box_and_landmark_loss() -> None:
    network = build_network(TINY)
    box = torch.tensor([[20.0, 24.0, 52.0, 64.0]])
    points = torch.tensor([[[28.0, 36.0], [44.0, 36.0], [36.0, 46.0], [30.0, 55.0], [42.0, 55.0]]])
    net_wh = (128, 64)
    heads, grid_anchors = [], [one[0, :, 0, 0] for one in network.detect.anchor_grid]
    for anchors, stride in zip(grid_anchors, network.strides, strict=True):
        rows, columns = net_wh[1] // stride, net_wh[0] // stride
        head = torch.zeros(1, len(anchors), rows, columns, 16)
        for a, wh in enumerate(anchors.tolist()):
            for row in range(rows):
                for column in range(columns):
                    cell = torch.tensor([column * stride, row * stride], dtype=torch.float32)
                    centre = ((torch.tensor([36.0, 44.0]) - cell) / stride + 0.5) / 2
                    size = (torch.tensor([32.0, 40.0]) / torch.tensor(wh)).sqrt() / 2
                    head[0, a, row, column, :4] = torch.logit(torch.cat((centre, size)).clamp(1e-6, 1 - 1e-6))
                    head[0, a, row, column, 5:15] = ((points[0] - cell) / torch.tensor(wh)).flatten()
        heads.append(head)
    terms = detection_losses(network, heads, FaceTargets([box], [points]), LossWeights())
    assert terms["box"].item() == pytest.approx(0, abs=1e-4)
    assert terms["landmarks"].item() == pytest.approx(0, abs=1e-4)
    moved = detection_losses(network, heads, FaceTargets([box + 4], [points + 4]), LossWeights())
    assert moved["box"].item() > 0.1 and moved["landmarks"].item() > 0.1


def test_average_follows_the_weights_quickly_at_first() -> None:
    network = build_network(TINY)
    averaged = AveragedWeights(network, exponential_warmup(0.9))
    before = next(averaged.model.parameters()).clone()
    with torch.no_grad():
        for value in network.parameters():
            value += 1
    averaged.update(network)
    decay = 0.9 * (1 - math.exp(-1 / 500))
    assert next(averaged.model.parameters()) == pytest.approx(before + 1 - decay, abs=1e-5)


def test_folded_norms_get_statistics_back_without_a_change_of_what_the_network_says(
    random_network: Callable[..., YoloV5Face], tmp_path: Path
) -> None:
    network = random_network(TINY)
    assert not has_folded_norms(network)
    save_network(network, tmp_path / "folded.onnx")
    folded = load_network(tmp_path / "folded.onnx")
    assert has_folded_norms(folded)
    images = torch.rand(4, 3, 64, 128, generator=torch.Generator().manual_seed(0))
    before = folded.heads(images)
    spoiled = copy.deepcopy(folded).train().heads(images)
    restore_norms(folded.eval(), [images[:2], images[2:]])
    assert not has_folded_norms(folded)
    again = folded.eval().heads(images)
    in_training = folded.train().heads(images)
    for a, b, c, d in zip(before, again, in_training, spoiled, strict=True):
        tolerance = 1e-3 * a.abs().max().item()
        assert torch.allclose(a, b, atol=tolerance) and torch.allclose(a, c, atol=10 * tolerance)
        assert (a - d).abs().max() > 100 * tolerance


def test_rate_grows_linearly_then_falls_by_ten_at_each_step() -> None:
    config = TrainDetectorConfig(
        train=(Path("t"),), val=Path("v"), out=Path("o"), epochs=10, batch_size=2, learning_rate=1.0, warmup_steps=4
    )
    rates = [list(train_detector._learning_rates(config, epoch, 5)) for epoch in range(10)]
    assert rates[0] == pytest.approx([0.25, 0.5, 0.75])
    assert rates[1] == pytest.approx([1.0] * 3)
    assert [row[0] for row in rates[6:]] == pytest.approx([1.0, 0.1, 0.1, 0.01])


def test_loss_that_is_no_number_stops_the_epoch() -> None:
    network = build_network(TINY)
    with torch.no_grad():
        next(network.parameters()).fill_(math.nan)
    faces = LabelledFaces(np.zeros((0, 4), np.float32), np.zeros((0, 5, 2), np.float32), np.zeros(0, bool))
    batch = PhotoBatch(torch.zeros(1, 3, 64, 64), [faces])
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    with pytest.raises(NonFiniteLossError, match=r"the loss is nan at step 0 .*lower the learning rate"):
        train_one_epoch(
            network, AveragedWeights(network, exponential_warmup(0.9)), optimizer, [batch], LossWeights(), [0.1], SILENT
        )


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A simulation of twelve photos."""
    folder = tmp_path_factory.mktemp("drawn")
    run_simulate(SimulateConfig(out=folder, images=12, seed=3, varied=True))
    return folder


def _config(drawn: Path, out: Path, epochs: int = 2) -> TrainDetectorConfig:
    return TrainDetectorConfig(
        train=(drawn,), val=drawn, out=out, image_size=64, epochs=epochs, batch_size=4, warmup_steps=2, device="cpu"
    )


def test_killed_and_resumed_run_ends_at_the_bytes_of_an_unbroken_one(
    drawn: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    run_train_detector(_config(drawn, whole))
    calls = 0

    def stop_in_epoch_two(*arguments: object, **named: object) -> dict[str, float]:
        nonlocal calls
        calls += 1
        if calls == 2:
            raise KeyboardInterrupt
        return train_one_epoch(*arguments, **named)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(trainer, "train_one_epoch", stop_in_epoch_two)
        with pytest.raises(KeyboardInterrupt):
            run_train_detector(_config(drawn, broken))
    assert read_record(broken, "train_detector") is None
    assert len((broken / "log.jsonl").read_text(encoding="utf-8").splitlines()) == 1
    run_train_detector(_config(drawn, broken))
    for name in ("best.safetensors", "log.jsonl"):
        assert (whole / name).read_bytes() == (broken / name).read_bytes()
    states = [torch.load(folder / "last.pt", weights_only=True)["network"] for folder in (whole, broken)]
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


def test_photo_that_vanishes_during_the_training_is_named_and_going_on_works(drawn: Path, tmp_path: Path) -> None:
    folder, out = tmp_path / "drawn", tmp_path / "out"
    shutil.copytree(drawn, folder)
    photo = next((folder / "emotic").rglob("*.jpg"))

    class Remover(Silent):
        def start(self, description: str, total: int) -> None:
            if description == "epoch 2 of 2":
                photo.rename(folder / "kept.jpg")

    with pytest.raises(ImageError, match=f"^{re.escape(str(photo))}: no such photo"):
        run_train_detector(_config(folder, out, epochs=2), Remover())
    assert len((out / "log.jsonl").read_text(encoding="utf-8").splitlines()) == 1 and not list(out.rglob(".*"))
    (folder / "kept.jpg").rename(photo)
    run_train_detector(_config(folder, out, epochs=2))
    assert len((out / "log.jsonl").read_text(encoding="utf-8").splitlines()) == 2


def test_run_leaves_log_record_and_the_averaged_network(drawn: Path, tmp_path: Path) -> None:
    record = run_train_detector(_config(drawn, tmp_path, epochs=1))
    (line,) = [json.loads(text) for text in (tmp_path / "log.jsonl").read_text(encoding="utf-8").splitlines()]
    assert line["loss"] == pytest.approx(sum(line[name] for name in ("box", "objectness", "category", "landmarks")))
    assert line["epoch"] == 1 and record.counts["best_epoch"] == 1
    assert record.inputs == {str(drawn / "ground_truth.parquet"): file_sha256(drawn / "ground_truth.parquet")}
    network = load_network(tmp_path / "best.safetensors")
    averaged = torch.load(tmp_path / "last.pt", weights_only=True)["averaged"]
    numbers = {name: value for name, value in network.state_dict().items() if value.is_floating_point()}
    assert all(torch.equal(value, averaged[name]) for name, value in numbers.items())


def test_run_of_other_settings_is_refused(drawn: Path, tmp_path: Path) -> None:
    config = _config(drawn, tmp_path, epochs=1)
    run_train_detector(config)
    with pytest.raises(SettingsError, match="a run of other settings, labels or initial weights"):
        run_train_detector(config.replace(seed=1))
    with pytest.raises(SettingsError, match="image_size is 100, expected a positive multiple of 64"):
        config.replace(image_size=100)


def test_training_on_one_batch_learns_its_faces() -> None:
    """Four grey squares, each with a bright one for a face: every term of the loss falls to a fraction."""
    torch.manual_seed(0)
    images, faces = torch.full((4, 3, 64, 96), 0.3), []
    for k in range(4):
        x, y = 8 + 12 * k, 8 + 6 * k
        images[k, :, y : y + 24, x : x + 20] = 0.9
        xyxy = np.array([[x, y, x + 20, y + 24]], np.float32)
        landmarks = np.array([[[x + 5, y + 8], [x + 15, y + 8], [x + 10, y + 13], [x + 6, y + 18], [x + 14, y + 18]]])
        faces.append(LabelledFaces(xyxy, landmarks.astype(np.float32), np.zeros(1, np.bool_)))
    network = build_network(TINY)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.01, momentum=0.9, nesterov=True)
    averaged, batch = AveragedWeights(network, exponential_warmup(0.9)), PhotoBatch(images, faces)

    def train(rates: list[float]) -> dict[str, float]:
        return train_one_epoch(network, averaged, optimizer, [batch] * len(rates), LossWeights(), rates, SILENT)

    first = train([1e-6])
    train([0.01 * min(1, (step + 1) / 20) for step in range(100)])
    last = train([0.01] * 5)
    assert last["loss"] < 0.3 * first["loss"]
    assert last["box"] < 0.5 * first["box"] and last["landmarks"] < 0.5 * first["landmarks"]


def test_fine_tuning_starts_from_the_given_file(drawn: Path, tmp_path: Path) -> None:
    first = tmp_path / "first"
    run_train_detector(_config(drawn, first, epochs=1))
    config = _config(drawn, tmp_path / "second", epochs=1).replace(
        weights=str(first / "best.safetensors"), learning_rate=1e-9
    )
    record = run_train_detector(config)
    assert record.inputs[str(first / "best.safetensors")] == file_sha256(first / "best.safetensors")
    before, after = (load_network(folder / "best.safetensors") for folder in (first, tmp_path / "second"))
    assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(before.parameters(), after.parameters(), strict=True))


def test_commands_train_and_evaluate_and_their_errors(drawn: Path, tmp_path: Path) -> None:
    def call(*words: object) -> tuple[int, str]:
        answer = CliRunner().invoke(main, ["detector", *map(str, words)])
        return answer.exit_code, answer.output

    settings = ("--image-size", 64, "--epochs", 1, "--batch-size", 4, "--device", "cpu")
    code, output = call("train", drawn, "--val", drawn, "--out", tmp_path / "run", *settings)
    assert code == 0 and "average precision" in output
    weights = tmp_path / "run" / "best.safetensors"
    measured = tmp_path / "measured"
    code, output = call("evaluate", drawn, "--weights", weights, "--image-size", 128, "--out", measured)
    assert code == 0 and "landmark error" in output
    measures = json.loads((measured / "detector.json").read_text(encoding="utf-8"))
    n_faces = sum(int((~photo.faces.ignored).sum()) for photo in read_whole_photos(drawn)[0])
    assert measures["photos"] == 12 and measures["faces"] == n_faces
    assert sum(part["faces"] for part in measures["by_size"].values()) == n_faces
    code, output = call("evaluate", tmp_path / "nothing.txt", "--weights", weights, "--out", measured)
    assert code == 1 and output.startswith("Error: ") and "no such file or folder" in output
    code, output = call("train", drawn, "--val", drawn, "--out", tmp_path / "run", *settings, "--seed", 7)
    assert code == 1 and "a run of other settings" in output
    code, output = call("train", drawn, "--val", drawn, "--out", tmp_path / "x", "--network", "yolov9-face")
    assert code == 1 and output.splitlines()[-1].startswith("Error: ") and "Traceback" not in output
    assert call("train", drawn)[0] == 2


def test_packaged_weights_are_those_of_their_card_and_load() -> None:
    found = find_weights(DEMONSTRATION_DETECTOR)
    network = load_network(found.path, found.network)
    assert network.name == TINY
    assert {value.dtype for value in network.parameters()} == {torch.float32}
    assert found.path.stat().st_size < 1_200_000


def test_half_precision_file_is_half_as_large_and_loads_as_float32(tmp_path: Path) -> None:
    network = build_network(TINY)
    save_network(network, tmp_path / "whole.safetensors")
    save_network(network, tmp_path / "half.safetensors", half=True)
    sizes = [(tmp_path / f"{name}.safetensors").stat().st_size for name in ("whole", "half")]
    assert sizes[1] < 0.6 * sizes[0]
    loaded = load_network(tmp_path / "half.safetensors")
    for a, b in zip(network.parameters(), loaded.parameters(), strict=True):
        assert b.dtype == torch.float32 and torch.equal(b, a.half().float())
    with pytest.raises(SettingsError, match=r"float16 is written as \.safetensors alone"):
        save_network(network, tmp_path / "half.pt", half=True)


def test_packaged_detector_finds_drawn_faces_and_its_use_is_warned_of_in_one_line(tmp_path: Path) -> None:
    run_simulate(SimulateConfig(out=tmp_path / "held-out", images=24, seed=2002))
    out = tmp_path / "measured"
    words = [
        "detector",
        "evaluate",
        str(tmp_path / "held-out"),
        "--detector",
        DEMONSTRATION_DETECTOR,
        "--out",
        str(out),
    ]
    answer = CliRunner().invoke(main, words)
    assert answer.exit_code == 0, answer.output
    (line,) = [line for line in answer.stderr.splitlines() if line.startswith("Warning: ")]
    assert "demonstration detector" in line and "emoface weights fetch yolov5n-face" in line
    measures = json.loads((out / "detector.json").read_text(encoding="utf-8"))
    assert measures["recall"] > 0.9 and measures["average_precision"] > 0.9
    assert "Warning" not in answer.stdout


def test_crops_do_not_depend_on_the_number_of_threads_and_opencv_starts_none_meanwhile(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    opencv_threads = set()

    class Counted(LabelledPhoto):
        def read(self) -> Photo:
            opencv_threads.add(cv2.getNumThreads())
            return super().read()

    photos = []
    for number in range(5):
        path = tmp_path / f"{number}.png"
        cv2.imwrite(str(path), rng.integers(0, 256, (90, 120, 3), np.uint8))
        box = np.array([[20, 20, 60, 70]], np.float32)
        photos.append(Counted(path, LabelledFaces(box, np.full((1, 5, 2), np.nan, np.float32), np.array([False]))))
    crops = TrainingCrops(photos, image_size=64, batch_size=2, seed=3)
    before = cv2.getNumThreads()
    cv2.setNumThreads(3)
    try:
        one, three = (list(crops.iterate_batches(1, n_threads)) for n_threads in (1, 3))
        assert opencv_threads == {1} and cv2.getNumThreads() == 3
    finally:
        cv2.setNumThreads(before)
    assert [len(batch.images) for batch in one] == [2, 2, 1]
    assert all(torch.equal(a.images, b.images) for a, b in zip(one, three, strict=True))
