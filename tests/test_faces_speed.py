"""The benchmark of the faces job: its loop over photos is a fair one, which finds the faces of the detector."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from scripts_of_docs import load_script

from emoface.inference.faces import load_face_detector
from emoface.schema import PEOPLE_SCHEMA
from emoface.storage.records import JobRecord, write_record
from emoface.storage.tables import write_table
from emoface.storage.weights import WeightsFile
from emoface.vision.boxes import nms_boxes
from emoface.vision.images import read_photo


@pytest.fixture(scope="module")
def benchmark() -> ModuleType:
    return load_script("benchmarks/faces_speed.py")


def test_loop_finds_the_faces_of_the_detector_and_writes_them(
    benchmark: ModuleType, shared_dir: Path, weights_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = WeightsFile("yolov5n-face", "yolov5n-face", weights_dir / "yolov5n-face.bin", "", "option")
    monkeypatch.setattr(benchmark, "find_detector_weights", lambda _: weights)
    photos = [shared_dir / "photos" / name for name in ("zidane.jpg", "bus.jpg", "1.jpg")]
    n_threads = torch.get_num_threads()
    looped = benchmark.run_loop(photos, 1, tmp_path)()
    torch.set_num_threads(n_threads)
    detector = load_face_detector(benchmark.SETTINGS, weights)
    job = [
        {"photo": number, "box": box.tolist(), "score": float(score)}
        for number, path in enumerate(photos)
        for found in detector.detect([read_photo(path)])
        for box, score in zip(found.xyxy, found.conf, strict=True)
    ]
    n_faces = sum(len(one["scores"]) for one in looped)
    assert n_faces == len(job) > 10
    assert benchmark.describe_agreement(looped, job).startswith(f"{n_faces} of the {n_faces} faces that people got")
    job[0]["score"] += 0.03
    job[1]["box"][0] -= 40
    assert benchmark.describe_agreement(looped, job).startswith(f"{n_faces - 2} of the {n_faces} faces")
    assert 2 <= len(list(tmp_path.glob("*.jpg"))) <= n_faces  # smaller faces than 10 pixels are not cropped


def test_suppression_of_the_loop_is_that_of_the_detector(benchmark: ModuleType) -> None:
    rng = np.random.default_rng(0)
    corner, wh = rng.uniform(0, 100, (60, 2)), rng.uniform(10, 40, (60, 2))
    boxes, scores = np.hstack((corner, corner + wh)).astype(np.float32), rng.permutation(60).astype(np.float32)
    kept = benchmark.suppress(torch.from_numpy(boxes), torch.from_numpy(scores), 0.4)
    assert kept.tolist() == nms_boxes(boxes, scores, 0.4).tolist() and 5 < len(kept) < 60
    none = benchmark.suppress(torch.zeros(0, 4), torch.zeros(0), 0.4)
    assert none.tolist() == []


def test_first_photos_keep_all_their_people_and_who_is_the_same(benchmark: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "few").mkdir()
    same_as = {3: 0, 4: 1}
    rows = [
        {
            "index": index,
            "person_id": str(index),
            "image": image,
            "image_wh": (30, 20),
            "body_bbox": [0.0, 0.0, 9.0, 9.0],
            "categories": [],
            "labels": [0] * 26,
            "annotator_votes": [0] * 26,
            "same_person_as": same_as.get(index),
        }
        for index, image in enumerate(["a", "c", "b", "a", "c", "b"])
    ]
    rows[5]["same_person_as"] = 2
    write_table(tmp_path / "people.parquet", pa.Table.from_pylist(rows, schema=PEOPLE_SCHEMA), PEOPLE_SCHEMA)
    write_record(tmp_path, JobRecord("parse", {}, {}, {}, {}, info={"image_root": str(tmp_path)}))
    benchmark.take_first_photos(tmp_path, 2, tmp_path / "few")
    few = pq.read_table(tmp_path / "few/people.parquet").to_pylist()
    assert [(one["index"], one["person_id"], one["same_person_as"]) for one in few] == [
        (0, "0", None), (1, "1", None), (2, "3", 0), (3, "4", 1),
    ]  # fmt: skip
    assert benchmark.list_photos(tmp_path / "few") == [tmp_path / "a", tmp_path / "c"]


def test_start_of_the_job_is_not_counted_per_photo(benchmark: ModuleType) -> None:
    job = {"n_photos": 101, "seconds": 12.0, "processor": 22.0}
    start = {"n_photos": 1, "seconds": 2.0, "processor": 2.0}
    assert benchmark.without_start(job, start) == {"n_photos": 100, "seconds": 10.0, "processor": 20.0}
