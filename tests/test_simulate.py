"""The simulate job: the same bytes whatever happens on the way, the layout of the release, and a true ground truth."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from json_damage import damage
from PIL import Image
from scipy.io import loadmat

from emoface.emotic import read_annotations_mat
from emoface.errors import ImageError, SettingsError, TableError
from emoface.jobs import simulate as simulate_job
from emoface.jobs.simulate import PERSON_IRREGULARITIES, PHOTO_IRREGULARITIES, SimulateConfig, run_simulate
from emoface.schema import CATEGORIES, GROUND_TRUTH_SCHEMA, SIMULATION_NAME, SOURCES
from emoface.storage.files import file_sha256
from emoface.storage.records import read_record
from emoface.vision.images import read_photo, read_photo_size
from emoface.worker_processes import run_in_processes

N_PHOTOS = 24


def _tree(root: Path) -> dict[str, str]:
    """Everything but the record, which names the folder."""
    paths = (path for path in root.rglob("*") if path.is_file() and path.parent.name != "records")
    return {str(path.relative_to(root)): file_sha256(path) for path in paths}


@pytest.fixture(scope="module")
def simulation(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("simulation") / "emotic_root"
    run_simulate(SimulateConfig(out=out, images=N_PHOTOS, seed=5))
    return out


@pytest.fixture(scope="module")
def odd(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A simulation whose irregularities are as frequent as regular people and photos; to be read only."""
    out = tmp_path_factory.mktemp("odd")
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(simulate_job, "PERSON_IRREGULARITIES", dict.fromkeys(PERSON_IRREGULARITIES, 0.1))
        patched.setattr(simulate_job, "PHOTO_IRREGULARITIES", dict.fromkeys(PHOTO_IRREGULARITIES, 0.12))
        run_simulate(SimulateConfig(out=out, images=36, seed=3))
    return out


def test_layout_is_that_of_the_release(simulation: Path) -> None:
    annotations = loadmat(simulation / "Annotations" / "Annotations.mat", squeeze_me=False)
    photos = [photo for split in ("train", "val", "test") for photo in annotations[split].ravel()]
    assert len({photo["filename"].item() for photo in photos}) == N_PHOTOS
    names = {f"{photo['folder'].item()}/{photo['filename'].item()}" for photo in photos}
    truth = pq.read_table(simulation / "ground_truth.parquet")
    assert truth.schema.equals(GROUND_TRUTH_SCHEMA)
    assert set(truth["image"].to_pylist()) <= names
    assert {name.split("/")[0] for name in names} <= set(SOURCES)
    for name in names:
        assert name.split("/")[1] == "images"
        assert (simulation / "emotic" / name).is_file()  # seed 5 misses none
    person_ids = [name for name in truth["person_id"].to_pylist() if name]
    n_people = sum(photo["person"].size for photo in photos)
    assert len(person_ids) == len(set(person_ids)) == n_people
    train_person = next(photo["person"].ravel()[0] for photo in annotations["train"].ravel())
    assert {"body_bbox", "annotations_categories", "annotations_continuous", "gender", "age"} <= set(
        train_person.dtype.names
    )


def test_record_counts_what_is_in_the_ground_truth(simulation: Path) -> None:
    record = read_record(simulation, "simulate")
    assert record is not None
    truth = pq.read_table(simulation / "ground_truth.parquet").to_pylist()
    annotated = [row for row in truth if row["annotated"]]
    assert record.counts["photos"] == N_PHOTOS and record.counts["people"] == len(annotated)
    assert record.counts["bystanders"] == len(truth) - len(annotated)
    assert record.counts["visible_faces"] == sum(row["face_visible"] for row in annotated)
    assert record.counts["hidden_faces"] == dict(
        sorted(Counter(row["hidden_by"] for row in annotated if not row["face_visible"]).items())
    )
    assert all((row["hidden_by"] is None) == row["face_visible"] for row in truth)
    assert all((row["person_id"] is None) != row["annotated"] for row in truth)


def test_true_boxes_lie_where_the_photos_have_people(simulation: Path) -> None:
    """Skin is red before it is blue, for every skin and light that is drawn."""
    n_checked = 0
    for row in pq.read_table(simulation / "ground_truth.parquet").to_pylist():
        try:
            photo = read_photo(simulation / "emotic" / row["image"])
        except ImageError:
            continue
        height, width = photo.shape[:2]
        x1, y1, x2, y2 = row["body_bbox"]
        assert 0 <= x1 < x2 <= width and 0 <= y1 < y2 <= height
        if row["face_visible"]:
            x1, y1, x2, y2 = row["face_bbox"]
            cheeks = photo[round(y1 + 0.5 * (y2 - y1)) : round(y1 + 0.75 * (y2 - y1)), round(x1 + 2) : round(x2 - 2)]
            assert cheeks[..., 0].mean() > cheeks[..., 2].mean() + 4
            landmarks = np.array(row["landmarks"]).reshape(5, 2)
            assert (landmarks >= (x1, y1)).all() and (landmarks <= (x2, y2)).all()
            n_checked += 1
    assert n_checked > 15


def test_number_of_processes_and_shards_change_no_byte(
    simulation: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(simulate_job, "_PHOTOS_PER_SHARD", 7)
    started: list[int] = []
    monkeypatch.setattr(simulate_job, "run_in_processes", lambda *a: (started.append(a[2]), run_in_processes(*a)))
    monkeypatch.setattr(simulate_job, "count_usable_cpus", lambda: 2)
    run_simulate(SimulateConfig(out=tmp_path / "two", images=N_PHOTOS, seed=5))
    monkeypatch.setattr(simulate_job, "count_usable_cpus", lambda: 1)
    run_simulate(SimulateConfig(out=tmp_path / "one", images=N_PHOTOS, seed=5))
    assert started == [2]
    assert _tree(tmp_path / "two") == _tree(tmp_path / "one")
    shared = {name: digest for name, digest in _tree(tmp_path / "one").items() if "shards" not in name}
    assert shared == {name: digest for name, digest in _tree(simulation).items() if "shards" not in name}


def test_photos_of_a_smaller_simulation_are_the_first_of_a_larger(simulation: Path, tmp_path: Path) -> None:
    run_simulate(SimulateConfig(out=tmp_path, images=4, seed=5))
    smaller, larger = _tree(tmp_path / "emotic"), _tree(simulation / "emotic")
    assert len(smaller) == 4 and smaller.items() <= larger.items()
    rows = pq.read_table(tmp_path / "ground_truth.parquet")
    assert rows.equals(pq.read_table(simulation / "ground_truth.parquet").slice(0, rows.num_rows))


def test_second_run_draws_nothing_and_a_lost_photo_is_drawn_again(
    simulation: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, before = SimulateConfig(out=simulation, images=N_PHOTOS, seed=5), _tree(simulation)
    with monkeypatch.context() as patched:
        patched.setattr(simulate_job, "_draw_shard", lambda *_: pytest.fail("drew a finished shard"))
        run_simulate(config)
    next((simulation / "emotic").rglob("*.jpg")).unlink()
    run_simulate(config)
    assert _tree(simulation) == before


def test_killed_and_resumed_equals_unbroken(simulation: Path, tmp_path: Path) -> None:
    """A real SIGKILL while two processes draw: photos and half of the shards are there, the record is not."""
    out = tmp_path / "killed"
    script = f"import test_simulate; test_simulate.simulate_in_small_shards({str(out)!r})"
    process = subprocess.Popen([sys.executable, "-c", script], cwd=Path(__file__).parent, stdout=subprocess.PIPE)
    deadline = time.monotonic() + 60
    while len(list((out / "simulate_shards").glob("[0-9]*.json"))) < 2:
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=30)  # ends only when every worker has closed the pipe it inherited
    assert process.returncode == -signal.SIGKILL
    assert not (out / "ground_truth.parquet").exists() and read_record(out, "simulate") is None
    simulate_in_small_shards(str(out))
    resumed = {name: digest for name, digest in _tree(out).items() if "shards" not in name}
    assert resumed == {name: digest for name, digest in _tree(simulation).items() if "shards" not in name}
    assert not list(out.rglob(".*"))


def simulate_in_small_shards(out: str) -> None:
    """What is killed: four photos to a shard, on two processes."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(simulate_job, "_PHOTOS_PER_SHARD", 4)
        patched.setattr(simulate_job, "count_usable_cpus", lambda: 2)
        run_simulate(SimulateConfig(out=Path(out), images=N_PHOTOS, seed=5))


def test_other_settings_start_over_and_foreign_folders_are_left_alone(tmp_path: Path) -> None:
    run_simulate(SimulateConfig(out=tmp_path / "a", images=3, seed=1))
    run_simulate(SimulateConfig(out=tmp_path / "a", images=2, seed=2))
    run_simulate(SimulateConfig(out=tmp_path / "b", images=2, seed=2))
    assert _tree(tmp_path / "a") == _tree(tmp_path / "b")
    photo = tmp_path / "real" / "emotic" / "mscoco" / "images" / "a.jpg"
    photo.parent.mkdir(parents=True)
    photo.write_bytes(b"precious")
    with pytest.raises(SettingsError, match=r"real: holds an 'emotic' .* that no simulation wrote; choose an empty"):
        run_simulate(SimulateConfig(out=tmp_path / "real"))
    assert photo.read_bytes() == b"precious"
    with pytest.raises(SettingsError, match="images is 0, expected 1 or more"):
        SimulateConfig(out=tmp_path, images=0)
    with pytest.raises(SettingsError, match="seed is -1, expected 0 or more"):
        SimulateConfig(out=tmp_path, seed=-1)


def test_damaged_summary_makes_its_shard_again_and_a_foreign_marker_replaces_nothing(tmp_path: Path) -> None:
    config = SimulateConfig(out=tmp_path, images=2, seed=2)
    run_simulate(config)
    before, summary = _tree(tmp_path), tmp_path / "simulate_shards" / "00000.json"
    folder = simulate_job.ShardFolder(summary.parent, simulate_job._DrawnShard)
    for name, content in damage(summary.read_text()):
        if re.match(r"(irregularities|photos.0.people.0.(gender|age))", name):
            continue  # counts of any names, and texts that may be null
        summary.write_bytes(content)
        if name.startswith(("'", "b'", "truths: removed", "photos.0.people.0.vad.0: removed")):
            run_simulate(config)
            assert _tree(tmp_path) == before, name
        else:
            try:
                read = folder.read_summary(0)
            except TableError:
                continue
            [simulate_job._to_annotation(photo) for photo in read["photos"]]
            simulate_job._count([], read["truths"], Counter(read["irregularities"]))
    marker = tmp_path / SIMULATION_NAME
    for content in (b"", b"[]", b"{}", b'{"key": 3}', b"\xff", b"[" * 100_000):
        marker.write_bytes(content)
        with pytest.raises(SettingsError, match=f"^{re.escape(str(marker))}: not"):
            run_simulate(config)
        assert (tmp_path / "emotic").is_dir()


def test_irregularities_are_in_the_files_as_often_as_the_record_says(odd: Path) -> None:
    record = read_record(odd, "simulate")
    assert record is not None
    counts = record.counts["irregularities"]
    assert set(counts) == {*PERSON_IRREGULARITIES, *PHOTO_IRREGULARITIES} and min(counts.values()) > 0
    annotations = loadmat(odd / "Annotations" / "Annotations.mat", squeeze_me=False)
    found: Counter[str] = Counter()
    listed: set[Path] = set()
    for photo in (photo for split in ("train", "val", "test") for photo in annotations[split].ravel()):
        path = odd / "emotic" / photo["folder"].item() / photo["filename"].item()
        if path in listed:
            found["listed_again"] += 1
            continue
        listed.add(path)
        true_wh = annotated_wh = tuple(int(photo["image_size"][name].item().item()) for name in ("n_col", "n_row"))
        found["no_people"] += photo["person"].size == 0
        found["photo_missing"] += not path.exists()
        if path.exists():
            size = read_photo_size(path)
            turned = size.find_frame(annotated_wh) == "upright"
            found["exif_turned"] += turned
            true_wh = annotated_wh if turned else size.stored_wh
            found["wrong_image_size"] += not turned and size.stored_wh != annotated_wh
            try:
                read_photo(path)
            except ImageError:
                found["photo_broken"] += 1
        for person in photo["person"].ravel():
            x1, y1, x2, y2 = box = person["body_bbox"].ravel().astype(float)
            found["swapped_box"] += x1 > x2
            found["box_beyond_photo"] += min(x1, y1) < 0 or x2 > true_wh[0] or y2 > true_wh[1]
            found["float_box"] += not np.array_equal(box, np.round(box))
            found["no_gender"] += person["gender"].size == 0
    for name in found:
        assert found[name] == counts[name], name


def test_irregularities_are_rare() -> None:
    assert sum(PERSON_IRREGULARITIES.values()) < 0.06
    assert sum(share for name, share in PHOTO_IRREGULARITIES.items() if name != "listed_again") < 0.03
    # 376 of EMOTIC's 23,571 photos are listed again; here those of train alone can be, which are 70 %.
    assert 0.7 * PHOTO_IRREGULARITIES["listed_again"] == pytest.approx(376 / 23_571, rel=0.05)


def test_a_photo_listed_again_has_the_same_people_in_train_and_val(odd: Path) -> None:
    listings: dict[str, list[tuple[str, Any]]] = {}
    for photo in read_annotations_mat(odd / "Annotations" / "Annotations.mat"):
        listings.setdefault(photo.image, []).append((photo.source_split, photo.people))
    again = [listed for listed in listings.values() if len(listed) > 1]
    assert again
    for (train, people), (val, same) in again:
        assert (train, val) == ("train", "val")
        assert [person.body_bbox for person in people] == [person.body_bbox for person in same]
        assert all(len(person.annotator_categories) == 5 for person in same)
    truth = pq.read_table(odd / "ground_truth.parquet").to_pylist()
    boxes = {row["person_id"]: row["face_bbox"] for row in truth if row["person_id"]}
    for image, listed in listings.items():
        if len(listed) > 1:
            n = len(listed[0][1])
            assert [boxes[f"{image}#{k}"] for k in range(n)] == [boxes[f"{image}#{n + k}"] for k in range(n)]


def test_turned_photo_is_upright_for_who_follows_its_exif(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(simulate_job, "PHOTO_IRREGULARITIES", {"exif_turned": 1.0})
    run_simulate(SimulateConfig(out=tmp_path / "turned", images=2, seed=8))
    monkeypatch.setattr(simulate_job, "PHOTO_IRREGULARITIES", {"exif_turned": 0.0})
    run_simulate(SimulateConfig(out=tmp_path / "plain", images=2, seed=8))
    for path in (tmp_path / "turned" / "emotic").rglob("*.jpg"):
        plain = read_photo(tmp_path / "plain" / path.relative_to(tmp_path / "turned"))
        upright = read_photo(path)
        with Image.open(path) as stored:
            assert stored.size == plain.shape[:2]  # height and width have changed places
        assert upright.shape == plain.shape
        assert np.abs(upright.astype(int) - plain).mean() < 4  # two JPEG encoders


def test_annotators_of_val_and_test_agree_more_or_less(tmp_path: Path) -> None:
    run_simulate(SimulateConfig(out=tmp_path, images=30, seed=2))
    annotations = loadmat(tmp_path / "Annotations" / "Annotations.mat", squeeze_me=False)
    n_annotators = {"train": 1, "val": 5, "test": 3}
    for split, expected in n_annotators.items():
        for photo in annotations[split].ravel():
            for person in photo["person"].ravel():
                assert person["annotations_categories"].size == expected
                if split == "train":
                    continue
                chosen = [set(_names(one["categories"])) for one in person["annotations_categories"].ravel()]
                assert set().union(*chosen) == set(_names(person["combined_categories"]))
                assert all(chosen) and set().union(*chosen) <= set(CATEGORIES) | {"Boredom"}


def _names(cell: np.ndarray) -> list[str]:
    return [str(name.item()) for name in cell.ravel()]
