"""Inputs of models beside the photo streams: read for the right people, augmented with the photos, and trained on."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from branch_inputs import narrow_resnets
from mter_data import LABELS, PHOTO_WH, write_photos_and_tables
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score

from emoface.datasets.manifest import Manifest, read_manifest
from emoface.datasets.stream_cache import StreamCache, default_cache_dir, open_stream_cache
from emoface.errors import SettingsError, TableError
from emoface.inference.predictor import load_predictor
from emoface.jobs.evaluate import EvaluateConfig, run_evaluate
from emoface.jobs.train import TrainConfig, run_train
from emoface.mter.array_inputs import PhotoChanges
from emoface.mter.base import ContextInput
from emoface.mter.dataset import Augmentation, PeopleDataset, load_batch, load_training_batch
from emoface.mter.inputs import DEPTH, FACE_LANDMARKS, PEOPLE, POSE, REGIONS
from emoface.mter.person_arrays import PersonArrays
from emoface.mter.sampling import SampleKey
from emoface.schema import DEPTH_SCHEMA, POSE_SCHEMA
from emoface.storage.files import parse_json
from emoface.vision.whole_body import BODY_25, FACE_PART, POINT_INDEX, mirror_points, no_points

WITHOUT_POINTS, WITHOUT_FACE_POINTS = 4, 6
"""Indices of people whose points are unknown altogether, and of whom only the body is known."""


def _points(body: NDArray[np.float64], face: NDArray[np.float64]) -> NDArray[np.float32]:
    """The left wrist in a quarter of the body box, the nose in its middle, all face points at one place."""
    points = no_points()
    sides = body[2:] - body[:2]
    points[POINT_INDEX["left_wrist"]] = (*(body[:2] + sides / 4), 0.5)
    points[POINT_INDEX["nose"]] = (*(body[:2] + sides / 2), 1.0)
    points[FACE_PART] = (*(face[:2] + (face[2:] - face[:2]) * (0.25, 0.75)), 0.9)
    return points


def write_pose_and_depth(work: Path) -> None:
    """Tables of points and of depth: the right half of every photo is nearest; the last photo has no map."""
    people = pq.read_table(work / "people.parquet").to_pylist()
    faces = pq.read_table(work / "faces.parquet", columns=["face_bbox"])["face_bbox"].to_pylist()
    rows = []
    for person, face in zip(people, faces, strict=True):
        body = np.array(person["body_bbox"])
        points = _points(body, np.array([0.0, 0, 1, 1] if face is None else face))
        if person["index"] == WITHOUT_FACE_POINTS:
            points[FACE_PART] = 0
        is_known = person["index"] != WITHOUT_POINTS
        rows.append(
            {
                "index": person["index"],
                "person_id": person["person_id"],
                "points": points.ravel().tolist() if is_known else None,
                "provider": "landmarks",
            }
        )
    pq.write_table(pa.Table.from_pylist(rows, schema=POSE_SCHEMA), work / "pose.parquet")
    nearness = np.zeros((256, 256), np.uint8)
    nearness[:, 128:] = 255
    png = cv2.imencode(".png", nearness)[1].tobytes()
    images = list(dict.fromkeys(person["image"] for person in people))
    maps = [
        {"image": image, "nearness": {"bytes": png, "path": None} if image != images[-1] else None, "provider": "boxes"}
        for image in images
    ]
    pq.write_table(pa.Table.from_pylist(maps, schema=DEPTH_SCHEMA), work / "depth.parquet")


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    path = write_photos_and_tables(tmp_path_factory.mktemp("arrays"), 12)
    write_pose_and_depth(path.parent)
    return read_manifest(path)


@pytest.fixture(scope="module")
def cache(manifest: Manifest) -> StreamCache:
    return open_stream_cache(manifest, "train")


def _open(manifest: Manifest, cache: StreamCache) -> PersonArrays:
    forms = {"face_landmarks": FACE_LANDMARKS, "pose": POSE, "depth": DEPTH, "people": PEOPLE}
    return PersonArrays(manifest, cache.people, forms, default_cache_dir(manifest))


SIZES = {"face": 32, "body": 32, "context": 64}


def test_points_are_shares_of_each_persons_own_boxes(manifest: Manifest, cache: StreamCache) -> None:
    loaded = _open(manifest, cache).load(range(len(cache)), SIZES)
    index = cache.people.index
    has_points = index != WITHOUT_POINTS
    assert loaded["has_pose"].tolist() == has_points.tolist()
    has_landmarks = cache.people.has_face & has_points & (index != WITHOUT_FACE_POINTS)
    assert loaded["has_landmarks"].tolist() == has_landmarks.tolist() and not has_landmarks.all()
    wrist, nose = BODY_25.index("left_wrist"), BODY_25.index("nose")
    pose = loaded["pose"][has_points]
    np.testing.assert_allclose(pose[:, :, wrist], np.tile([0.25, 0.25, 0.5], (len(pose), 1)), atol=1e-5)
    np.testing.assert_allclose(pose[:, :, nose], np.tile([0.5, 0.5, 1.0], (len(pose), 1)), atol=1e-5)
    others = [joint for joint in range(25) if joint not in (wrist, nose)]
    assert not pose[:, :, others].any() and not loaded["pose"][~has_points].any()
    landmarks = loaded["face_landmarks"][has_landmarks].reshape(-1, 68, 2)
    np.testing.assert_allclose(landmarks, np.broadcast_to([0.25, 0.75], landmarks.shape), atol=1e-4)


def test_depth_is_cropped_and_mirrored_like_the_photo(manifest: Manifest, cache: StreamCache) -> None:
    arrays = _open(manifest, cache)
    plain = arrays.load([0, 1], SIZES)
    assert plain["depth"].shape == (2, 1, 64, 64) and plain["has_depth"].all()
    assert not plain["depth"][..., :31].any() and (plain["depth"][..., 33:] == 1).all()
    crops = np.array([[128, 0, 64], [0, 10, 192]])
    changed = arrays.load([0, 1], SIZES, changes=PhotoChanges(np.array([False, True]), crops))
    assert (changed["depth"][0] == 1).all()  # the crop lies in the near half
    near = changed["depth"][1, 0, 0] > 0.5  # columns 128 to 191 of 0 to 191, mirrored to the left third
    assert near[:20].all() and not near[23:].any()
    central = arrays.load([0], SIZES, center_share=0.25)["depth"][0, 0, 0]
    assert not central[:31].any() and (central[33:] == 1).all()


def test_places_list_the_person_first_and_mirror_with_the_photo(manifest: Manifest, cache: StreamCache) -> None:
    arrays = _open(manifest, cache)
    width = PHOTO_WH[0] / PHOTO_WH[1]
    for person in (0, 1):  # two people in a photo of 200 x 120, boxes 10-80 and 110-180, 10-115
        loaded = arrays.load([person], SIZES)
        assert loaded["has_place"][0].tolist() == [True, True, *[False] * 14]
        own, other = loaded["people"][0, :2]
        left, right = (45 / 120, 62.5 / 120, 70 / 120, 105 / 120), (145 / 120, 62.5 / 120, 70 / 120, 105 / 120)
        np.testing.assert_allclose(own[:4], (left, right)[person], atol=1e-5)
        np.testing.assert_allclose(other[:4], (right, left)[person], atol=1e-5)
        assert own[4] == pytest.approx(person) and other[4] == pytest.approx(1 - person)  # the right half is near
        changes = PhotoChanges(np.array([True]), np.array([[0, 0, 256]]))
        mirrored = arrays.load([person], SIZES, changes=changes)["people"][0]
        np.testing.assert_allclose(mirrored[:2, 0], width - loaded["people"][0, :2, 0], atol=1e-5)
        np.testing.assert_allclose(mirrored[:2, 1:], loaded["people"][0, :2, 1:])


def test_mirroring_exchanges_left_and_right(manifest: Manifest, cache: StreamCache) -> None:
    arrays = _open(manifest, cache)
    person = int(np.flatnonzero(cache.people.index == 0)[0])
    changes = PhotoChanges(np.array([True]), np.array([[0, 0, 256]]))
    pose = arrays.load([person], SIZES, changes=changes)["pose"][0]
    np.testing.assert_allclose(pose[:, BODY_25.index("right_wrist")], [0.75, 0.25, 0.5], atol=1e-5)
    assert not pose[:, BODY_25.index("left_wrist")].any()
    points = np.zeros((1, 133, 3), np.float32)
    points[0, :, 0], points[0, :, 1], points[0, :, 2] = 0.25, np.arange(133), 1
    mirrored = mirror_points(points)
    assert (mirrored[..., 0] == 0.75).all() and (np.sort(mirrored[0, :, 1]) == np.arange(133)).all()
    np.testing.assert_array_equal(mirror_points(mirrored), points)
    order = mirrored[0, :, 1].astype(int)
    face = order[FACE_PART] - 23
    assert face[[0, 8, 17, 30, 36, 48, 51, 60]].tolist() == [16, 8, 26, 30, 45, 54, 51, 64]
    assert order[POINT_INDEX["left_eye"]] == POINT_INDEX["right_eye"] and order[91] == 112


def test_batches_hold_the_arrays_and_a_context_without_the_person(manifest: Manifest, cache: StreamCache) -> None:
    masked = ContextInput(masks_body=True)
    dataset = PeopleDataset(
        cache,
        ("context",),
        sizes=SIZES,
        context_input=masked,
        arrays=_open(manifest, cache),
        augmentation=Augmentation((1.0, 1.0), (1.0, 1.0), 0.0, 0.0),
    )
    batch = load_batch(dataset, [0, 1])
    assert set(batch.inputs) == {
        "context",
        *("face_landmarks", "has_landmarks", "pose", "has_pose", "depth", "has_depth", "people", "has_place"),
    }
    columns = slice(int(64 * 10 / 200) + 2, int(64 * 80 / 200) - 2)  # the first person's body box
    assert not batch.pixels["context"][0, 10:55, columns].any() and batch.pixels["context"][1, 10:55, columns].any()
    trained = load_training_batch(dataset, [SampleKey(0, 0, 0), SampleKey(0, 1, 1)])
    for name, values in batch.arrays.items():
        np.testing.assert_allclose(trained.arrays[name], values, atol=1e-6, err_msg=name)
    assert not trained.pixels["context"][0, 40:220, 20:95].any()


def test_tables_that_are_missing_or_of_other_people_are_named(tmp_path: Path) -> None:
    path = write_photos_and_tables(tmp_path, 4)
    manifest = read_manifest(path)
    cache = open_stream_cache(manifest, "train")
    folder = default_cache_dir(manifest)
    with pytest.raises(TableError, match=r"pose\.parquet: no such file; run 'emoface pose DIR' first"):
        PersonArrays(manifest, cache.people, {"pose": POSE}, folder)
    with pytest.raises(TableError, match=r"depth\.parquet: no such file; run 'emoface depth DIR' first"):
        PersonArrays(manifest, cache.people, {"depth": DEPTH}, folder)
    with pytest.raises(SettingsError, match=r"the input 'sound' .* is in no table of a data set"):
        PersonArrays(manifest, cache.people, {"sound": POSE}, folder)
    with pytest.raises(TableError, match=r"regions\.parquet: no such file; run 'emoface regions DIR' first"):
        PersonArrays(manifest, cache.people, {"regions": REGIONS}, folder)
    write_pose_and_depth(path.parent)
    table = pq.read_table(path.parent / "pose.parquet")
    pq.write_table(table.slice(1), path.parent / "pose.parquet")
    with pytest.raises(TableError, match=r"pose\.parquet: lacks the person with index 0"):
        PersonArrays(manifest, cache.people, {"pose": POSE}, folder)
    table = pq.read_table(path.parent / "depth.parquet")
    pq.write_table(table.slice(1), path.parent / "depth.parquet")
    with pytest.raises(TableError, match=r"depth\.parquet: lacks the photo framesdb/images/000\.jpg"):
        PersonArrays(manifest, cache.people, {"depth": DEPTH}, folder)


def test_arrays_tell_of_other_people_what_the_tables_tell(tmp_path: Path) -> None:
    path = write_photos_and_tables(tmp_path, 48)
    write_pose_and_depth(path.parent)
    _tell_labels(path.parent)
    manifest = read_manifest(path)
    arrays, labels = {}, {}
    for split in ("train", "val"):
        people = open_stream_cache(manifest, split).people
        forms = {"face_landmarks": FACE_LANDMARKS, "pose": POSE}
        read = PersonArrays(manifest, people, forms, default_cache_dir(manifest))
        arrays[split], labels[split] = read.load(range(len(people)), SIZES), people.labels
    for name, mask, told, other in (
        ("face_landmarks", "has_landmarks", *LABELS[:2]),
        ("pose", "has_pose", LABELS[1], LABELS[0]),
    ):
        rows = {split: loaded[mask] for split, loaded in arrays.items()}
        values = {split: loaded[name][rows[split]].reshape(rows[split].sum(), -1) for split, loaded in arrays.items()}
        truth = {split: labels[split][rows[split]] for split in arrays}
        found = {
            label: average_precision_score(
                truth["val"][:, label],
                LogisticRegression(C=100.0)
                .fit(values["train"], truth["train"][:, label])
                .decision_function(values["val"]),
            )
            for label in (told, other)
        }
        assert found[told] > 0.99 and found[other] < 0.9, (name, found)


def test_emoticon_is_trained_and_evaluated_and_says_who_provided_its_inputs(
    manifest: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    narrow_resnets(monkeypatch)
    config = TrainConfig(
        manifest=manifest.path,
        model="emoticon",
        preset="emoticon",
        recipe={"epochs": 1, "batch_size": 4, "depth_form": "gcn"},
        out=tmp_path / "run",
        device="cpu",
        context_size=32,
        pretrained="none",
    )
    assert run_train(config).counts["epochs"] == 1
    run = parse_json((tmp_path / "run" / "run.json").read_text(encoding="utf-8"))
    assert {name: table["providers"] for name, table in run["array_tables"].items()} == {
        "depth.parquet": ["boxes"],
        "pose.parquet": ["landmarks"],
    }
    assert not any(table["provider_sha256"] for table in run["array_tables"].values())
    log = [parse_json(line) for line in (tmp_path / "run" / "log.jsonl").read_text(encoding="utf-8").splitlines()]
    assert {"labels", "multiplicative", "attention"} <= log[0]["train_losses"].keys()
    run_evaluate(EvaluateConfig(run=tmp_path / "run", split="test", device="cpu", draws=10))
    folder = tmp_path / "run" / "eval" / "test"
    metrics = parse_json((folder / "metrics.json").read_text(encoding="utf-8"))
    assert metrics["other_inputs"]["pose.parquet"] == "landmarks, built in: the face detector's five points, no pose"
    page = (folder / "evaluation.html").read_text(encoding="utf-8")
    assert "built in: the height of the people&#39;s body boxes, no depth" in page
    assert load_predictor(tmp_path / "run", device="cpu").other_inputs == metrics["other_inputs"]


def _tell_labels(work: Path) -> None:
    """Moves all face points of those with the label of the face, and the wrist of those with the label of the body."""
    people = pq.read_table(work / "people.parquet", columns=["labels", "body_bbox"]).to_pylist()
    table = pq.read_table(work / "pose.parquet")
    rows = table.to_pylist()
    for row, person in zip(rows, people, strict=True):
        points = no_points() if row["points"] is None else np.array(row["points"], np.float32).reshape(-1, 3)
        points[points[:, 2] == 0] = 0
        left, top, right, bottom = person["body_bbox"]
        wrist = top + (bottom - top) * (0.9 if person["labels"][LABELS[1]] else 0.1)
        points[POINT_INDEX["left_wrist"]] = (left + (right - left) / 2, wrist, 1)
        smile = left + 20 + (20 if person["labels"][LABELS[0]] else 2)
        points[FACE_PART] = (smile, 30, 1)
        row["points"] = points.ravel().tolist()
    pq.write_table(pa.Table.from_pylist(rows, schema=POSE_SCHEMA), work / "pose.parquet")
