"""The faces job with the real detector on a small simulation, held against the ground truth."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from scripts_of_docs import load_script

from emoface.jobs import faces as faces_job
from emoface.jobs import simulate as simulate_job
from emoface.jobs.faces import FacesConfig, run_faces
from emoface.jobs.parse import ParseConfig, run_parse
from emoface.jobs.simulate import SimulateConfig, run_simulate
from emoface.jobs.split import SplitConfig, run_split
from emoface.schema import SPLITS
from emoface.storage.files import file_sha256
from emoface.vision.images import decode_photo
from emoface.worker_processes import run_in_processes

WEIGHTS = "yolov5n-face.param"


@pytest.fixture(scope="module")
def benchmark() -> ModuleType:
    return load_script("benchmarks/faces_on_simulator.py")


@pytest.fixture(scope="module")
def simulation(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    root, out = tmp_path_factory.mktemp("simulation"), tmp_path_factory.mktemp("work")
    run_simulate(SimulateConfig(out=root, images=60, seed=31))
    run_parse(ParseConfig(emotic_root=root, out=out))
    return root, out


def test_visible_faces_go_to_their_own_people_and_hidden_ones_to_nobody(
    simulation: tuple[Path, Path], weights_dir: Path, benchmark: ModuleType
) -> None:
    root, out = simulation
    record = run_faces(FacesConfig(dir=out, weights=weights_dir / WEIGHTS))
    score = benchmark.score_faces(root / "ground_truth.parquet", out / "faces.parquet")
    assert score.visible.total() > 50
    assert score.visible["own"] >= 0.95 * score.visible.total()
    assert score.n_wrong_person <= 0.02 * score.visible.total()
    hidden = [counts for counts in score.hidden.values() if counts.total() != counts["empty"]]
    assert len(score.hidden) >= 3 and hidden == []
    assert 0.15 < sum(counts.total() for counts in score.hidden.values()) / record.counts["people"] < 0.35
    assert np.median(score.landmark_errors) < 0.05
    n_found = record.counts["face_status"]["found"]
    assert n_found == score.n_assigned and n_found + record.counts["face_status"]["no_face"] <= record.counts["people"]


def test_a_repeated_person_is_scored_once_per_row_and_has_one_true_face(tmp_path: Path, benchmark: ModuleType) -> None:
    """Two rows of one person, and another person who has the first one's face."""
    box, other = [10.0, 10.0, 30.0, 34.0], [50.0, 10.0, 70.0, 34.0]
    landmarks = [15.0, 18.0, 25.0, 18.0, 20.0, 22.0, 16.0, 28.0, 24.0, 28.0]
    people = [("a#0", box), ("a#1", other), ("a#2", box)]
    truths = [
        {
            "image": "a",
            "person_id": person_id,
            "annotated": True,
            "face_visible": True,
            "hidden_by": "",
            "face_bbox": true_box,
            "landmarks": landmarks,
        }
        for person_id, true_box in people
    ]
    faces = [
        {"person_id": person_id, "face_bbox": box, "landmarks": landmarks, "face_status": "found"}
        for person_id, _ in people
    ]
    for name, rows in (("truth", truths), ("faces", faces)):
        pq.write_table(pa.Table.from_pylist(rows), tmp_path / f"{name}.parquet")
    score = benchmark.score_faces(tmp_path / "truth.parquet", tmp_path / "faces.parquet")
    assert score.visible == {"own": 2, "other": 1} and score.landmark_errors == [0.0, 0.0]


def test_smaller_shards_on_several_processes_give_the_same_tables(
    simulation: tuple[Path, Path], weights_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ten cores, so two processes of five threads; the 60 photos are in three shards."""
    _, out = simulation
    started: list[int] = []
    monkeypatch.setattr(faces_job, "run_in_processes", lambda *a: (started.append(a[2]), run_in_processes(*a)))
    digests = []
    for shard_size, n_cpus in ((256, 2), (25, 10)):
        monkeypatch.setattr(faces_job, "count_usable_cpus", lambda n_cpus=n_cpus: n_cpus)
        run_faces(FacesConfig(dir=out, weights=weights_dir / WEIGHTS, shard_size=shard_size))
        digests.append([file_sha256(out / name) for name in ("faces.parquet", "empty_faces.csv")])
    assert digests[0] == digests[1] and started == [2]


def test_aligned_crops_have_their_eyes_on_one_line(simulation: tuple[Path, Path], weights_dir: Path) -> None:
    """A second look at the aligned crops finds the eyes level, wherever they were in the photo."""
    from emoface.yolov5face import load_detector

    _, out = simulation
    run_faces(FacesConfig(dir=out, weights=weights_dir / WEIGHTS, align=True, margin=0.5))
    rows = [row for row in pq.read_table(out / "faces.parquet").to_pylist() if row["face"]]
    tilted = sorted(rows, key=lambda row: -abs(_tilt(np.array(row["landmarks"]))))[:8]
    assert all(abs(_tilt(np.array(row["landmarks"]))) > 4 for row in tilted)
    detector = load_detector(weights_dir / WEIGHTS, image_size=320)
    found = detector.detect([decode_photo(row["face"]["bytes"], row["person_id"]) for row in tilted])
    tilts = [abs(_tilt(faces.landmarks[0].ravel())) for faces in found if len(faces)]
    assert len(tilts) >= 6 and np.mean(tilts) < 4


def test_no_person_of_a_photo_listed_again_is_in_two_splits(
    tmp_path: Path, weights_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Parse, faces and split on a simulation that lists most photos of train again in val."""
    monkeypatch.setattr(simulate_job, "PHOTO_IRREGULARITIES", {"listed_again": 0.8})
    run_simulate(SimulateConfig(out=tmp_path / "root", images=24, seed=6))
    run_parse(ParseConfig(emotic_root=tmp_path / "root", out=tmp_path))
    run_faces(FacesConfig(dir=tmp_path, weights=weights_dir / WEIGHTS))
    rows = pq.read_table(tmp_path / "people.parquet").to_pylist()
    faces = pq.read_table(tmp_path / "faces.parquet").to_pylist()
    again = [row for row in rows if row["same_person_as"] is not None]
    assert len(again) > 10 and all(row["source_split"] == "val" for row in again)
    for row in again:
        face, first = faces[row["index"]], faces[row["same_person_as"]]
        assert (face["face_bbox"], face["face_status"]) == (first["face_bbox"], first["face_status"])
    for by in ("stratified", "emotic"):
        run_split(SplitConfig(dir=tmp_path, by=by))
        train, val, test = _people_of_splits(tmp_path)
        assert train and val and not train & val and not (train | val) & test
    run_split(SplitConfig(dir=tmp_path, by="emotic", leaks="keep"))
    train, val, _ = _people_of_splits(tmp_path)
    assert len(train & val) == len(again)


def _people_of_splits(out: Path) -> list[set[tuple[str, tuple[float, ...]]]]:
    """The people of train, val and test, known by photo and body box."""
    columns = ["image", "body_bbox"]
    tables = [pq.read_table(out / f"{name}.parquet", columns=columns).to_pylist() for name in SPLITS]
    return [{(row["image"], tuple(row["body_bbox"])) for row in rows} for rows in tables]


def _tilt(landmarks: np.ndarray) -> float:
    """Degrees between the line through both eyes and the horizontal."""
    across, down = landmarks[2:4] - landmarks[:2]
    return float(np.degrees(np.arctan2(down, across)))
