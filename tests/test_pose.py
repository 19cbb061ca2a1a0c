"""Points of bodies: the order of the points, the providers, and the job that writes pose.parquet."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from stand_in_models import write_simcc

from emoface.errors import SettingsError, TableError, WeightsError
from emoface.inference.pose import SimccPose, crop_matrix, find_people, from_crop, load_pose_provider
from emoface.jobs.parse import ParseConfig, run_parse
from emoface.jobs.pose import PoseConfig, run_pose
from emoface.jobs.simulate import SimulateConfig, run_simulate
from emoface.schema import FACES_SCHEMA, POSE_SCHEMA
from emoface.storage.records import read_record
from emoface.vision.images import read_photo
from emoface.vision.whole_body import (
    BODY_25,
    FACE_PART,
    JOINTS,
    N_POINTS,
    POINT_INDEX,
    no_points,
    points_of_landmarks,
    to_body_25,
    to_box_shares,
)


def test_neck_and_hips_are_between_both_sides_and_unknown_joints_are_zero() -> None:
    points = no_points()
    points[POINT_INDEX["left_shoulder"]] = (30, 10, 0.9)
    points[POINT_INDEX["right_shoulder"]] = (10, 20, 0.6)
    points[POINT_INDEX["left_hip"]] = (7, 7, 0.5)  # the right one is unknown, so the middle is unknown
    points[POINT_INDEX["right_wrist"]] = (3, 4, 0.0)
    joints = to_body_25(points[None])[0]
    assert joints[BODY_25.index("neck")].tolist() == [20, 15, pytest.approx(0.6)]
    assert joints[BODY_25.index("left_hip")].tolist() == [7, 7, 0.5]
    assert joints[BODY_25.index("mid_hip")].tolist() == [0, 0, 0]
    assert joints[BODY_25.index("right_wrist")].tolist() == [0, 0, 0]
    assert len(BODY_25) == len(set(BODY_25)) == 25


def test_landmarks_are_put_at_eyes_nose_and_mouth_alone() -> None:
    landmarks = np.array([[10, 20], [30, 21], [20, 30], [12, 40], [28, 41]], np.float32)
    points = points_of_landmarks(landmarks, 0.8)
    face = points[FACE_PART]
    assert np.flatnonzero(face[:, 2]).tolist() == [30, *range(36, 48), 48, 54]
    assert (face[36:42, :2] == [10, 20]).all() and (face[42:48, :2] == [30, 21]).all()
    assert face[54].tolist() == [28, 41, pytest.approx(0.8)]
    named = {JOINTS[k] for k in np.flatnonzero(points[: len(JOINTS), 2])}
    assert named == {"nose", "left_eye", "right_eye"}
    assert points[POINT_INDEX["left_eye"], :2].tolist() == [30, 21]  # the person's left is the viewer's right


def test_box_shares_leave_out_people_without_a_box() -> None:
    points = np.array([[[20, 30, 1], [99, 99, 0]], [[20, 30, 1], [1, 1, 1]]], np.float32)
    boxes = np.array([[10, 10, 30, 50], [np.nan] * 4], np.float32)
    assert to_box_shares(points, boxes).tolist() == [[[0.5, 0.5, 1], [0, 0, 0]], [[0, 0, 0], [0, 0, 0]]]


def test_crop_keeps_the_aspect_ratio_and_maps_back() -> None:
    to_crop = crop_matrix(np.array([100, 50, 140, 150], np.float32), (192, 256))
    corners = np.array([[100.0, 50.0], [140.0, 150.0], [120.0, 100.0]])
    inside = corners * to_crop[0, 0] + to_crop[:, 2]
    assert inside[2].tolist() == [96, 128]  # the centre
    assert inside[1, 1] - inside[0, 1] == pytest.approx(256 / 1.25)  # the height, which is the tighter side
    np.testing.assert_allclose(from_crop(inside, to_crop), corners)


@pytest.mark.parametrize("n_points", [17, 133])
def test_simcc_network_finds_the_place_of_its_largest_values(tmp_path: Path, n_points: int) -> None:
    path = tmp_path / "pose.onnx"
    write_simcc(path, (48, 64), n_points)
    provider = load_pose_provider("any", path)
    assert isinstance(provider, SimccPose)
    photo = np.zeros((200, 300, 3), np.uint8)
    photo[88:92, 148:152, 0] = 255  # a red spot around (150, 90) inside the box
    boxes = np.array([[130, 50, 170, 130], [np.nan] * 4], np.float32)
    found = find_people(provider, photo, boxes)
    assert found.shape == (2, N_POINTS, 3) and not found[1].any() and not found[0, n_points:].any()
    assert found[0, :n_points, :2] == pytest.approx(np.tile([150, 90], (n_points, 1)), abs=2.0)
    assert (found[0, :n_points, 2] > 0.8).all()


def test_files_that_are_no_model_of_body_points_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.onnx").write_bytes(b"not a model")
    with pytest.raises(WeightsError, match=r"a\.onnx: not a readable ONNX model"):
        load_pose_provider("any", tmp_path / "a.onnx")
    write_simcc(tmp_path / "b.onnx", (48, 64), 17, names=("x", "simcc_y"))
    with pytest.raises(WeightsError, match=r"b\.onnx: input .* outputs x, simcc_y; expected MoveNet"):
        load_pose_provider("any", tmp_path / "b.onnx")
    write_simcc(tmp_path / "c.onnx", (48, 64), 21)
    with pytest.raises(WeightsError, match=r"c\.onnx: finds 21 points, expected 17 or 133"):
        load_pose_provider("any", tmp_path / "c.onnx")
    (tmp_path / "d.safetensors").write_bytes(b"")
    with pytest.raises(WeightsError, match=r"d\.safetensors: type '\.safetensors' holds no model of body points"):
        load_pose_provider("any", tmp_path / "d.safetensors")


needs_litert = pytest.mark.skipif(
    importlib.util.find_spec("ai_edge_litert") is None, reason="ai-edge-litert is not installed"
)


@needs_litert
def test_movenet_finds_the_joints_of_two_men_in_a_real_photo(weights_dir: Path, shared_dir: Path) -> None:
    provider = load_pose_provider("movenet", weights_dir / "movenet_single_pose_lightning_ptq.tflite")
    photo = read_photo(shared_dir / "photos" / "zidane.jpg")
    boxes = np.array([[747, 41, 1142, 712], [120, 200, 1110, 713]], np.float32)
    found = provider.find(photo, boxes)
    faces = np.array([[895, 60, 1075, 330], [480, 200, 670, 460]])  # by eye: the faces of both
    for person, (x1, y1, x2, y2) in zip(found, faces, strict=True):
        for name in ("nose", "left_eye", "right_eye"):
            x, y, conf = person[POINT_INDEX[name]]
            assert x1 <= x <= x2 and y1 <= y <= y2 and conf > 0.3
        assert person[POINT_INDEX["left_eye"], 0] > person[POINT_INDEX["right_eye"], 0]
        assert not person[len(JOINTS) :].any()


@needs_litert
def test_a_damaged_tflite_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "movenet.tflite"
    path.write_bytes(b"TFL3" + bytes(100))
    with pytest.raises(WeightsError, match=r"movenet\.tflite: not a readable TFLite model"):
        load_pose_provider("movenet", path)


@pytest.fixture(scope="module")
def parsed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A parsed simulation: its root and the folder of its tables."""
    folder = tmp_path_factory.mktemp("pose")
    root = folder / "EMOTIC"
    run_simulate(SimulateConfig(out=root, images=14, seed=5))
    run_parse(ParseConfig(emotic_root=root, out=folder / "work"))
    return root, folder / "work"


def _read(work: Path) -> pa.Table:
    return pq.read_table(work / "pose.parquet")


def test_true_points_of_a_simulation_are_inside_the_bodies(parsed: tuple[Path, Path]) -> None:
    root, work = parsed
    record = run_pose(PoseConfig(dir=work, points=root / "ground_truth.parquet"))
    table, people = _read(work), pq.read_table(work / "people.parquet")
    assert table.schema.equals(POSE_SCHEMA) and table["person_id"].equals(people["person_id"])
    assert set(table["provider"].to_pylist()) == {"points file"} and record.counts["people"] == people.num_rows
    assert record.counts["without_points"] == 0
    n_inside = n_known = 0
    for points, box, truth in zip(
        table["points"].to_pylist(), people["body_bbox"].to_pylist(), range(people.num_rows), strict=True
    ):
        assert truth >= 0
        found = np.array(points).reshape(-1, 3)
        x, y = found[found[:, 2] > 0, :2].T
        n_known += len(x)
        n_inside += int(((x > box[0] - 9) & (x < box[2] + 9) & (y > box[1] - 9) & (y < box[3] + 9)).sum())
    assert n_known > 500 and n_inside > 0.98 * n_known


def test_landmarks_of_the_detector_become_points_of_those_with_a_face(parsed: tuple[Path, Path]) -> None:
    _, work = parsed
    people = pq.read_table(work / "people.parquet")
    (work / "faces.parquet").unlink(missing_ok=True)
    with pytest.raises(TableError, match=r"faces\.parquet: no such file; run 'emoface faces' first"):
        run_pose(PoseConfig(dir=work))
    rows = [
        {"index": row, "person_id": person, "face_status": "no_face"}
        for row, person in enumerate(people["person_id"].to_pylist())
    ]
    rows[2] |= {"landmarks": [10.0, 20, 30, 21, 20, 30, 12, 40, 28, 41], "conf": 0.75, "face_status": "found"}
    pq.write_table(pa.Table.from_pylist(rows, schema=FACES_SCHEMA), work / "faces.parquet")
    record = run_pose(PoseConfig(dir=work))
    points = np.array(_read(work)["points"].to_pylist()).reshape(-1, N_POINTS, 3)
    assert np.flatnonzero(points.any(axis=(1, 2))).tolist() == [2]
    np.testing.assert_allclose(points[2], points_of_landmarks(np.array(rows[2]["landmarks"]).reshape(5, 2), 0.75))
    assert record.info == {"provider": "landmarks", "provider_sha256": None}
    assert record.counts["with_face_points"] == 1 and record.counts["with_joints"] == 1


def test_a_model_reads_each_photo_once_and_a_second_run_reads_none(
    parsed: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, work = parsed
    path = tmp_path / "pose.onnx"
    write_simcc(path, (48, 64), 17)
    record = run_pose(PoseConfig(dir=work, weights=path))
    first = _read(work)
    people = pq.read_table(work / "people.parquet")
    assert record.counts["with_joints"] == people.num_rows - record.counts["without_points"]
    assert set(first["provider"].to_pylist()) == {"pose"}

    def fail(*_: object) -> None:
        raise AssertionError("a photo was read again")

    monkeypatch.setattr(SimccPose, "find", fail)
    (work / "pose.parquet").unlink()
    run_pose(PoseConfig(dir=work, weights=path))
    assert _read(work).equals(first)
    monkeypatch.undo()
    shard = next((work / "pose_shards").glob("*/00000.npy"))
    shard.write_bytes(shard.read_bytes()[:-8])  # a damaged shard is computed again
    run_pose(PoseConfig(dir=work, weights=path))
    assert _read(work).equals(first)
    again = read_record(work, "pose")
    assert again is not None and again.inputs == record.inputs


def test_wrong_points_files_are_named(parsed: tuple[Path, Path], tmp_path: Path) -> None:
    _, work = parsed
    path = tmp_path / "points.parquet"
    pq.write_table(pa.table({"person_id": ["x"], "points": [[0.0] * 399]}), path)
    with pytest.raises(TableError, match=r"points\.parquet: .*'points'"):
        run_pose(PoseConfig(dir=work, points=path))
    narrow = pa.schema([("person_id", pa.string()), ("points", pa.list_(pa.float32()))])
    pq.write_table(pa.table({"person_id": ["x"], "points": [[0.0] * 399]}, narrow), path)
    with pytest.raises(TableError, match=r"points\.parquet: has nobody of people\.parquet"):
        run_pose(PoseConfig(dir=work, points=path))
    pq.write_table(pa.table({"person_id": ["x"], "points": [[0.0] * 51]}, narrow), path)
    with pytest.raises(TableError, match=r"points\.parquet: column 'points' has a list of 51 values, expected 399"):
        run_pose(PoseConfig(dir=work, points=path))
    with pytest.raises(SettingsError, match="points is given together with weights"):
        PoseConfig(dir=work, points=path, weights=path)
