"""The face detector on a GPU: both engines of torch find what ONNX Runtime finds, and it trains, stops and resumes."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from hub_repository import write_repository

from emoface.jobs.evaluate_detector import EvaluateDetectorConfig, run_evaluate_detector
from emoface.jobs.faces import FacesConfig, run_faces
from emoface.jobs.parse import ParseConfig, run_parse
from emoface.jobs.simulate import SimulateConfig, run_simulate
from emoface.jobs.train_detector import TrainDetectorConfig, run_train_detector
from emoface.progress import Silent
from emoface.storage.records import read_record
from emoface.storage.weights import DEMONSTRATION_DETECTOR, find_weights
from emoface.vision.boxes import box_iou
from emoface.vision.images import read_photo
from emoface.yolov5face import load_detector, load_network

N_PHOTOS = 12


@pytest.fixture(scope="module")
def drawn(device: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A simulation of twelve photos."""
    folder = tmp_path_factory.mktemp("drawn")
    run_simulate(SimulateConfig(out=folder, images=N_PHOTOS, seed=3, varied=True))
    return folder


@pytest.mark.parametrize("backend", ["torch", "hub"])
@pytest.mark.parametrize("n_at_once", [1, N_PHOTOS])
def test_engines_find_the_faces_that_onnx_runtime_finds(
    device: str, drawn: Path, tmp_path: Path, backend: str, n_at_once: int
) -> None:
    photos = [read_photo(path) for path in sorted(drawn.rglob("*.jpg"))]
    assert len(photos) == N_PHOTOS
    weights = find_weights(DEMONSTRATION_DETECTOR)
    settings: dict[str, Any] = {"network": weights.network, "image_size": 320, "conf_threshold": 0.3}
    repository = str(write_repository(tmp_path / "yolov5-face"))
    detector = load_detector(weights.path, backend=backend, device=device, hub_repo=repository, **settings)
    expected = load_detector(weights.path, backend="onnx", **settings).detect(photos)
    found = [one for k in range(0, N_PHOTOS, n_at_once) for one in detector.detect(photos[k : k + n_at_once])]
    assert sum(len(one) for one in expected) >= N_PHOTOS
    for one, other in zip(found, expected, strict=True):
        assert len(one) == len(other)
        if len(one):
            overlaps = box_iou(one.xyxy, other.xyxy)
            best = overlaps.argmax(axis=1)
            assert overlaps.max(axis=1).min() > 0.99 and len(set(best.tolist())) == len(one)
            np.testing.assert_allclose(one.conf, other.conf[best], atol=2e-3)
            assert np.abs(one.landmarks - other.landmarks[best]).max() < 0.5


def test_the_faces_job_finds_the_same_people(device: str, drawn: Path, tmp_path: Path) -> None:
    statuses = {}
    for backend in ("torch", "onnx"):  # the backend torch takes CUDA where there is one
        out = tmp_path / backend
        run_parse(ParseConfig(emotic_root=drawn, out=out))
        run_faces(FacesConfig(dir=out, detector=DEMONSTRATION_DETECTOR, backend=backend))
        statuses[backend] = pq.read_table(out / "faces.parquet", columns=["face_status"])["face_status"].to_pylist()
    assert statuses["torch"] == statuses["onnx"] and "found" in statuses["torch"]


class _StopAfterEpoch(Silent):
    def start(self, task: str, total: int | None) -> None:
        if task.startswith("epoch 2 of"):
            raise KeyboardInterrupt


def test_detector_trains_stops_resumes_and_is_evaluated(device: str, drawn: Path, tmp_path: Path) -> None:
    config = TrainDetectorConfig(
        train=(drawn,), val=drawn, out=tmp_path / "run", image_size=128, epochs=3, batch_size=4, warmup_steps=2
    ).replace(device=device)
    with pytest.raises(KeyboardInterrupt):
        run_train_detector(config, _StopAfterEpoch())
    assert read_record(config.out, "train_detector") is None
    record = run_train_detector(config)
    lines = [json.loads(line) for line in (config.out / "log.jsonl").read_text().splitlines()]
    assert [line["epoch"] for line in lines] == [1, 2, 3] and record.counts["epochs"] == 3
    assert all(math.isfinite(line["loss"]) for line in lines)
    weights = config.out / "best.safetensors"
    assert all(value.device.type == "cpu" for value in load_network(weights).state_dict().values())
    evaluated = run_evaluate_detector(
        EvaluateDetectorConfig(photos=drawn, out=tmp_path / "eval", weights=weights, backend="torch", image_size=128)
    )
    assert evaluated.counts["photos"] == N_PHOTOS
