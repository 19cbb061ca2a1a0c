"""The faces job, on drawn photos where a stand-in detector finds every magenta rectangle.

The stand-in makes the right answer known to the pixel; the real detector is tested with real weights in
``test_faces_on_simulator.py``.
"""

from __future__ import annotations

import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import cv2
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from json_damage import damage
from PIL import Image

from emoface.datasets.photos import PhotoFolder, UprightPhoto
from emoface.errors import ImageError, SettingsError, TableError
from emoface.inference import faces as faces_inference
from emoface.jobs import faces as faces_job
from emoface.jobs.faces import FacesConfig, remove_shards, run_faces
from emoface.schema import FACES_SCHEMA, PEOPLE_SCHEMA
from emoface.storage.files import file_sha256
from emoface.storage.records import JobRecord, code_fingerprint, need_record, write_record
from emoface.storage.tables import write_table
from emoface.storage.weights import WeightsFile
from emoface.vision.detections import Detections
from emoface.vision.images import decode_photo

MAGENTA = (255, 0, 255)


class MagentaDetector:
    """Finds magenta rectangles; counts the photos it was shown, and notes how many threads OpenCV would use."""

    def __init__(self) -> None:
        self.n_photos = 0
        self.uses_one_core = True
        self.opencv_threads: set[int] = set()
        self._lock = threading.Lock()

    def detect(self, images: Sequence[np.ndarray]) -> list[Detections]:
        with self._lock:
            self.n_photos += len(images)
            self.opencv_threads.add(cv2.getNumThreads())
        return [self._detect_one(image) for image in images]

    def _detect_one(self, image: np.ndarray) -> Detections:
        mask = (image[..., 0] > 200) & (image[..., 1] < 60) & (image[..., 2] > 200)
        _, _, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8))
        boxes = np.array([(x, y, x + w, y + h) for x, y, w, h, _ in stats[1:]], np.float32).reshape(-1, 4)
        middles = (boxes[:, :2] + boxes[:, 2:]) / 2
        landmarks = np.repeat(middles[:, None], 5, axis=1).astype(np.float32)
        return Detections(boxes, landmarks, np.full(len(boxes), 0.75, np.float32))


@pytest.fixture
def detector(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> MagentaDetector:
    stand_in = MagentaDetector()
    monkeypatch.setattr(faces_inference, "find_weights", lambda *_: _stand_in_weights(tmp_path))
    monkeypatch.setattr(faces_job, "load_face_detector", lambda *_, n_threads: stand_in)
    faces_job._load_detector.cache_clear()
    return stand_in


def _stand_in_weights(folder: Path) -> WeightsFile:
    path = folder / "magenta.bin"
    path.write_bytes(b"weights")
    return WeightsFile("magenta", "magenta", path, file_sha256(path), "option")


def _write_photo(
    root: Path, image: str, wh: tuple[int, int], boxes: list[tuple[int, int, int, int]], orientation: int = 1
) -> None:
    pixels = np.full((wh[1], wh[0], 3), 40, np.uint8)
    for x1, y1, x2, y2 in boxes:
        pixels[y1:y2, x1:x2] = MAGENTA
    exif = Image.Exif()
    exif[0x0112] = orientation
    (root / image).parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(root / image, exif=exif, quality=100, subsampling=0)


def _write_people(
    out: Path,
    root: Path,
    people: list[tuple[str, tuple[int, int], list[float] | None]],
    same_as: dict[int, int] | None = None,
) -> None:
    """``same_as`` names, for some rows, the earlier row of the same person."""
    rows = [
        {
            "index": index,
            "person_id": f"{image}#{index}",
            "image": image,
            "image_wh": wh,
            "body_bbox": body,
            "categories": [],
            "labels": [0] * 26,
            "annotator_votes": [0] * 26,
            "same_person_as": (same_as or {}).get(index),
        }
        for index, (image, wh, body) in enumerate(people)
    ]
    write_table(out / "people.parquet", pa.Table.from_pylist(rows, schema=PEOPLE_SCHEMA), PEOPLE_SCHEMA)
    write_record(out, JobRecord("parse", {}, {}, {}, {}, info={"image_root": str(root)}))


BODY = [100.0, 20.0, 180.0, 290.0]
FACE = (124, 30, 156, 70)


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    """See ``_write_dataset``."""
    return _write_dataset(tmp_path)


def _write_dataset(folder: Path) -> Path:
    """Eight photos of 300 x 300, one person each, a face on every second one; one is missing, one broken."""
    root, out = folder / "photos", folder / "work"
    people = []
    for number in range(8):
        image = f"mscoco/images/{number}.png"
        people.append((image, (300, 300), BODY))
        _write_photo(root, image, (300, 300), [FACE] if number % 2 == 0 else [])
    (root / "mscoco/images/3.png").unlink()
    (root / "mscoco/images/5.png").write_bytes(b"no photo")
    _write_people(out, root, people)
    return out


def _tables(out: Path) -> dict[str, str]:
    return {name: file_sha256(out / name) for name in ("faces.parquet", "empty_faces.csv")}


def test_every_person_has_a_row_with_a_face_or_a_reason(dataset: Path, detector: MagentaDetector) -> None:
    record = run_faces(FacesConfig(dir=dataset, margin=0.25, shard_size=3, batch_size=2))
    table = pq.read_table(dataset / "faces.parquet")
    assert table.schema.equals(FACES_SCHEMA)
    rows = table.to_pylist()
    assert [row["index"] for row in rows] == list(range(8))
    assert [row["face_status"] for row in rows] == [
        "found", "no_face", "found", "image_missing", "found", "image_unreadable", "found", "no_face",
    ]  # fmt: skip
    assert rows[0]["face_bbox"] == list(FACE) and rows[0]["conf"] == 0.75
    crop = decode_photo(rows[0]["face"]["bytes"], "crop")
    assert crop.shape == (60, 60, 3)  # 40 px high, a quarter of that on every side
    assert crop[30, 30, 0] > 200 and crop[2, 2, 0] < 90
    assert all(rows[1][name] is None for name in ("face", "face_bbox", "landmarks", "conf"))
    empty = pd.read_csv(dataset / "empty_faces.csv")
    assert empty["index"].tolist() == [1, 3, 5, 7]
    assert list(empty.columns) == ["index", "person_id", "image", "face_status"]
    assert record.counts["face_status"]["found"] == 4 and record.counts["photos_missing"] == 1
    assert record.counts["photos_unreadable"] == 1


def test_photos_that_are_all_away_replace_nothing(dataset: Path, detector: MagentaDetector) -> None:
    """An image root that is not mounted: https://github.com/ultralytics/ultralytics/issues/22101."""
    run_faces(FacesConfig(dir=dataset))
    whole = _tables(dataset)
    root = dataset.parent / "photos"
    root.rename(dataset.parent / "elsewhere")
    with pytest.raises(
        ImageError, match=r"photos: 8 of 8 photos are missing, such as mscoco/images/0\.png; nothing was"
    ):
        run_faces(FacesConfig(dir=dataset))
    assert _tables(dataset) == whole and need_record(dataset, "faces").counts["photos_missing"] == 1
    record = run_faces(FacesConfig(dir=dataset, allow_missing=True))
    assert record.counts["face_status"]["image_missing"] == 8


def test_batch_and_shard_size_do_not_change_the_tables(dataset: Path, detector: MagentaDetector) -> None:
    run_faces(FacesConfig(dir=dataset, shard_size=8, batch_size=8))
    whole = _tables(dataset)
    run_faces(FacesConfig(dir=dataset, shard_size=1, batch_size=1))
    assert _tables(dataset) == whole


def test_detector_of_one_core_and_of_batches_give_the_same_tables(dataset: Path, detector: MagentaDetector) -> None:
    run_faces(FacesConfig(dir=dataset, shard_size=3))
    whole, n_photos = _tables(dataset), detector.n_photos
    detector.uses_one_core = False
    for batch_size in (1, 2, 8):
        faces_job.remove_shards(FacesConfig(dir=dataset))
        run_faces(FacesConfig(dir=dataset, shard_size=3, batch_size=batch_size))
        assert _tables(dataset) == whole
    assert detector.n_photos == 4 * n_photos == 4 * 6


def test_opencv_starts_no_threads_beside_the_jobs(dataset: Path, detector: MagentaDetector) -> None:
    before = cv2.getNumThreads()
    cv2.setNumThreads(3)
    try:
        run_faces(FacesConfig(dir=dataset))
        assert detector.opencv_threads == {1} and cv2.getNumThreads() == 3
    finally:
        cv2.setNumThreads(before)


class _BytesInUse:
    """Counts the bytes of the photos that ``PhotoFolder.read`` returned and that are still in use."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = self.most = self.n_read = 0
        self._lock = threading.RLock()
        read = PhotoFolder.read

        def read_and_count(folder: PhotoFolder, image: str, image_wh: tuple[int, int]) -> UprightPhoto:
            photo = read(folder, image, image_wh)
            self._add(photo.pixels.nbytes)
            self.n_read += 1
            weakref.finalize(photo.pixels, self._add, -photo.pixels.nbytes)
            return photo

        monkeypatch.setattr(PhotoFolder, "read", read_and_count)

    def _add(self, n_bytes: int) -> None:
        with self._lock:
            self.now += n_bytes
            self.most = max(self.most, self.now)


@pytest.mark.parametrize("uses_one_core", [True, False])
@pytest.mark.parametrize(
    ("n_photos", "budget", "most"),
    [(12, 4, 4), (40, 4, 4), (12, 0.5, 1)],  # in photos of 300 x 200; more photos or larger ones take no more memory
)
def test_memory_of_decoded_photos_is_bounded(
    tmp_path: Path,
    detector: MagentaDetector,
    monkeypatch: pytest.MonkeyPatch,
    uses_one_core: bool,
    n_photos: int,
    budget: float,
    most: int,
) -> None:
    root, out = tmp_path / "photos", tmp_path / "work"
    for number in range(n_photos):
        _write_photo(root, f"{number}.png", (300, 200), [FACE])
    _write_people(out, root, [(f"{number}.png", (300, 200), BODY) for number in range(n_photos)])
    detector.uses_one_core = uses_one_core
    n_bytes = 300 * 200 * 3
    monkeypatch.setattr(faces_job, "_BYTES_IN_FLIGHT", int(budget * n_bytes))
    monkeypatch.setattr(faces_job, "count_usable_cpus", lambda: 16)
    monkeypatch.setattr(faces_job, "_THREADS_PER_PROCESS", 16)
    crop = faces_job.crop_assigned_faces
    monkeypatch.setattr(faces_job, "crop_assigned_faces", lambda *args: (time.sleep(0.002), crop(*args))[1])
    in_use = _BytesInUse(monkeypatch)
    record = run_faces(FacesConfig(dir=out, shard_size=7))
    assert record.counts["face_status"]["found"] == in_use.n_read == n_photos
    assert in_use.now == 0 and (most > 1) * n_bytes < in_use.most <= most * n_bytes


def test_second_run_shows_the_detector_nothing(dataset: Path, detector: MagentaDetector) -> None:
    run_faces(FacesConfig(dir=dataset, shard_size=2))
    first, shown = _tables(dataset), detector.n_photos
    run_faces(FacesConfig(dir=dataset, shard_size=2))
    assert detector.n_photos == shown and _tables(dataset) == first


@pytest.mark.parametrize("n_before_the_kill", [1, 4, 7])
def test_killed_and_resumed_gives_the_tables_of_an_unbroken_run(
    dataset: Path, detector: MagentaDetector, n_before_the_kill: int
) -> None:
    class Killed(BaseException):
        pass

    class KillingProgress:
        seen = 0

        def start(self, description: str, total: int) -> None:
            pass

        def advance(self, n: int = 1) -> None:
            self.seen += n
            if self.seen == n_before_the_kill:
                raise Killed

    config = FacesConfig(dir=dataset, shard_size=2, batch_size=1)
    with pytest.raises(Killed):
        run_faces(config, KillingProgress())
    assert not (dataset / "faces.parquet").exists() and not (dataset / "records/faces.json").exists()
    shown = detector.n_photos
    run_faces(config)
    resumed = _tables(dataset)
    readable_of_done_shards = {1: 0, 4: 2, 7: 4}[n_before_the_kill]  # a shard is done once its summary is written
    assert detector.n_photos - shown == 6 - readable_of_done_shards
    faces_job.remove_shards(FacesConfig(dir=dataset))
    run_faces(config)
    assert _tables(dataset) == resumed


KILLED_AFTER = (0, 1, 4, 6, 7, 8)


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    """Data sets whose job died by a real SIGKILL, by the number of files that were in place by then.

    The processes that die are forks of one that has the modules loaded.
    """
    datasets = {n_files: _write_dataset(tmp_path_factory.mktemp("killed")) for n_files in KILLED_AFTER}
    given = {str(folder): n_files for n_files, folder in datasets.items()}
    script = f"import test_faces; test_faces.run_and_kill_each({given!r})"
    ended = subprocess.run(
        [sys.executable, "-c", script], cwd=Path(__file__).parent, stdout=subprocess.PIPE, check=True
    )
    assert json.loads(ended.stdout) == [-signal.SIGKILL] * len(KILLED_AFTER)
    return datasets


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks the processes that it kills")
@pytest.mark.parametrize("n_files_before_the_kill", KILLED_AFTER)
def test_kill_between_any_two_files_leaves_no_trace(
    killed: dict[int, Path], detector: MagentaDetector, monkeypatch: pytest.MonkeyPatch, n_files_before_the_kill: int
) -> None:
    """Three shards are a table and a summary each, then come two tables and the record."""
    dataset = killed[n_files_before_the_kill]
    monkeypatch.setattr(faces_inference, "find_weights", lambda *_: _stand_in_weights(dataset.parent))
    assert not (dataset / "records/faces.json").exists()
    config = FacesConfig(dir=dataset, shard_size=3, batch_size=2)
    run_faces(config)
    resumed = _tree(dataset)
    assert not [name for name in resumed if Path(name).name.startswith(".")]
    assert detector.n_photos == {0: 6, 1: 6, 4: 2}.get(n_files_before_the_kill, 0)  # of six that can be read
    shutil.rmtree(dataset / "faces_shards")
    run_faces(config)
    assert _tree(dataset) == resumed


def run_and_kill_each(datasets: dict[str, int]) -> None:
    """Runs the jobs one after the other, each in a fork of this process, and prints how they ended."""
    code_fingerprint(faces_job.__name__)  # kept for all forks
    ends = []
    for out, n_files in datasets.items():
        process = os.fork()
        if not process:
            try:
                run_and_kill(out, n_files)
            finally:
                os._exit(1)
        ends.append(os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]))
    print(json.dumps(ends))


def run_and_kill(out: str, n_files: int) -> None:
    """Runs the job in this process, which dies after so many files are in place; the lock's file is none."""
    weights = _stand_in_weights(Path(out).parent)
    rename, n_done = Path.replace, itertools.count()

    def replace(path: Path, target: Path) -> Path:
        if not target.name.startswith(".") and next(n_done) == n_files:
            os.kill(os.getpid(), signal.SIGKILL)
        return rename(path, target)

    with (
        mock.patch.object(faces_inference, "find_weights", lambda *_: weights),
        mock.patch.object(faces_job, "_load_detector", lambda _: MagentaDetector()),
        mock.patch.object(Path, "replace", replace),
    ):
        run_faces(FacesConfig(dir=Path(out), shard_size=3, batch_size=2))


def _tree(folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): file_sha256(path) for path in folder.rglob("*") if path.is_file()}


def test_damaged_shard_and_changed_photo_are_done_again(dataset: Path, detector: MagentaDetector) -> None:
    config = FacesConfig(dir=dataset, shard_size=2)
    run_faces(config)
    whole, shown = _tables(dataset), detector.n_photos
    shard = next((dataset / "faces_shards").glob("*/00003.parquet"))
    shard.write_bytes(shard.read_bytes()[:-9])
    run_faces(config)
    assert _tables(dataset) == whole and detector.n_photos == shown + 2
    root = Path(json.loads((dataset / "records/parse.json").read_text())["info"]["image_root"])
    _write_photo(root, "mscoco/images/3.png", (300, 300), [FACE])
    record = run_faces(config)
    assert record.counts["face_status"]["found"] == 5 and detector.n_photos == shown + 4


def test_damaged_summary_makes_its_shard_again(dataset: Path, detector: MagentaDetector) -> None:
    config = FacesConfig(dir=dataset, shard_size=4)
    run_faces(config)
    whole, shown = _tables(dataset), detector.n_photos
    summary = next((dataset / "faces_shards").glob("*/00001.json"))
    before, n_damaged = summary.read_bytes(), 0
    for name, content in damage(before.decode()):
        if name.startswith(("counts.", "unreadable.")) and name.endswith("removed"):
            continue  # any number of counts and photos is as good as another
        summary.write_bytes(content)
        record = run_faces(config)
        n_damaged += 1
        assert _tables(dataset) == whole and summary.read_bytes() == before, name
        assert record.counts["photos"] == 8
    assert detector.n_photos == shown + 3 * n_damaged  # one photo of the shard is broken


@pytest.mark.parametrize("moment", ["after the check", "while it is read"])
def test_photo_that_vanishes_during_the_job_is_missing_and_done_again_when_it_is_back(
    dataset: Path, detector: MagentaDetector, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    config = FacesConfig(dir=dataset, shard_size=2, batch_size=1)
    whole = run_faces(config)
    expected = _tables(dataset)
    remove_shards(FacesConfig(dir=dataset))
    photo, kept = dataset.parent / "photos/mscoco/images/6.png", dataset / "kept.png"
    shutil.copy2(photo, kept)
    read = PhotoFolder.read

    def detect(images: Sequence[np.ndarray]) -> list[Detections]:
        photo.unlink(missing_ok=True)
        return MagentaDetector.detect(detector, images)

    def read_vanished(folder: PhotoFolder, image: str, image_wh: tuple[int, int]) -> UprightPhoto:
        if image.endswith("6.png"):
            photo.unlink(missing_ok=True)
        return read(folder, image, image_wh)

    with monkeypatch.context() as patch:
        if moment == "after the check":
            patch.setattr(detector, "detect", detect)
        else:
            patch.setattr(PhotoFolder, "read", read_vanished)
        record = run_faces(config)
    assert record.counts["face_status"]["image_missing"] == whole.counts["face_status"]["image_missing"] + 1
    assert record.counts["face_status"]["found"] == whole.counts["face_status"]["found"] - 1
    shutil.copy2(kept, photo)
    assert run_faces(config).counts == whole.counts and _tables(dataset) == expected


def test_table_that_vanishes_during_the_job_is_named(
    dataset: Path, detector: MagentaDetector, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = FacesConfig(dir=dataset, shard_size=2)
    merge = faces_job._merge_shards

    def lose_a_shard(path: Path, folder: Any, shards: Any) -> None:
        folder.file_path(1, "parquet").unlink()
        merge(path, folder, shards)

    with monkeypatch.context() as patch:
        patch.setattr(faces_job, "_merge_shards", lose_a_shard)
        with pytest.raises(TableError, match=r"00001\.parquet: no such file any more; run 'emoface faces' again"):
            run_faces(config)
    assert not (dataset / "faces.parquet").exists() and not list(dataset.rglob(".*"))
    run_faces(config)
    assert (dataset / "faces.parquet").is_file()


def test_changed_setting_starts_over_and_drops_the_old_shards(dataset: Path, detector: MagentaDetector) -> None:
    run_faces(FacesConfig(dir=dataset))
    run_faces(FacesConfig(dir=dataset, margin=0.5))
    assert len(list((dataset / "faces_shards").iterdir())) == 1
    assert detector.n_photos == 12


def test_small_faces_people_without_a_box_and_shared_faces_have_their_reasons(
    tmp_path: Path, detector: MagentaDetector
) -> None:
    root, out = tmp_path / "photos", tmp_path / "work"
    _write_photo(root, "framesdb/images/a.png", (400, 300), [FACE])
    _write_photo(root, "framesdb/images/b.png", (200, 300), [(48, 23, 53, 29)])
    _write_people(
        out,
        root,
        [
            ("framesdb/images/a.png", (400, 300), BODY),
            ("framesdb/images/b.png", (200, 300), [42.0, 20.0, 58.0, 60.0]),
            ("framesdb/images/a.png", (400, 300), None),
            ("framesdb/images/a.png", (400, 300), [112.0, 16.0, 190.0, 290.0]),
        ],
    )
    run_faces(FacesConfig(dir=out, shard_size=1))
    rows = pq.read_table(out / "faces.parquet").to_pylist()
    assert [row["face_status"] for row in rows] == ["found", "too_small", "no_face", "other_person"]
    assert [row["person_id"] for row in rows] == [
        "framesdb/images/a.png#0",
        "framesdb/images/b.png#1",
        "framesdb/images/a.png#2",
        "framesdb/images/a.png#3",
    ]


def test_all_rows_of_a_person_have_the_same_face_and_other_people_keep_theirs(
    tmp_path: Path, detector: MagentaDetector
) -> None:
    """Photo a: a person with three rows between the rows of others; photo b: one with two rows and too small a face."""
    root, out = tmp_path / "photos", tmp_path / "work"
    _write_photo(root, "framesdb/images/a.png", (600, 300), [FACE, (324, 30, 356, 70)])
    _write_photo(root, "framesdb/images/b.png", (200, 300), [(48, 23, 53, 29)])
    a, b, wh = "framesdb/images/a.png", "framesdb/images/b.png", (600, 300)
    beside, small = [300.0, 20.0, 380.0, 290.0], [42.0, 20.0, 58.0, 60.0]
    people = [
        *((a, wh, BODY), (b, (200, 300), small), (a, wh, beside), (a, wh, BODY)),
        *((b, (200, 300), small), (a, wh, [105.0, 20.0, 185.0, 290.0]), (a, wh, [99.0, 20.0, 180.0, 290.0])),
    ]
    _write_people(out, root, people, same_as={3: 0, 4: 1, 6: 0})
    run_faces(FacesConfig(dir=out, shard_size=1))
    rows = pq.read_table(out / "faces.parquet").to_pylist()
    statuses = ["found", "too_small", "found", "found", "too_small", "other_person", "found"]
    assert [row["face_status"] for row in rows] == statuses
    for again in (3, 6):
        for name in ("face_bbox", "landmarks", "conf", "assignment_margin"):
            assert rows[again][name] == rows[0][name]
        assert rows[again]["face"]["bytes"] == rows[0]["face"]["bytes"]
    assert rows[0]["face_bbox"] == list(FACE) and rows[2]["face_bbox"] == [324, 30, 356, 70]
    assert all((row["assignment_margin"] is None) == (row["face_status"] != "found") for row in rows)

    _write_people(tmp_path / "once", root, [people[row] for row in (0, 1, 2, 5)])
    run_faces(FacesConfig(dir=tmp_path / "once", shard_size=1))
    once = pq.read_table(tmp_path / "once/faces.parquet").to_pylist()
    for row, expected in zip((0, 1, 2, 5), once, strict=True):
        for name in ("face_bbox", "conf", "assignment_margin", "face_status"):
            assert rows[row][name] == expected[name]


@pytest.mark.parametrize(("annotated_wh", "turned"), [((300, 200), False), ((200, 300), True)])
def test_face_box_is_in_the_frame_of_the_annotated_boxes_and_the_crop_is_upright(
    tmp_path: Path, detector: MagentaDetector, annotated_wh: tuple[int, int], turned: bool
) -> None:
    root, out = tmp_path / "photos", tmp_path / "work"
    stored_face = (30, 60, 70, 90)  # in the stored photo, 300 x 200; upright 200 x 300: x' = 200 - y, y' = x
    _write_photo(root, "mscoco/images/a.jpg", (300, 200), [stored_face], orientation=6)
    body = [90.0, 20.0, 165.0, 290.0] if turned else [20.0, 35.0, 290.0, 110.0]
    _write_people(out, root, [("mscoco/images/a.jpg", annotated_wh, body)])
    record = run_faces(FacesConfig(dir=out))
    row = pq.read_table(out / "faces.parquet").to_pylist()[0]
    assert row["face_bbox"] == pytest.approx([110, 30, 140, 70] if turned else stored_face, abs=1)
    nose = np.array(row["landmarks"]).reshape(5, 2)[2]
    x1, y1, x2, y2 = row["face_bbox"]
    assert x1 < nose[0] < x2 and y1 < nose[1] < y2
    crop = decode_photo(row["face"]["bytes"], "crop").astype(int)
    magenta = crop[..., 0] > 150
    assert magenta.any(axis=1).sum() > 1.2 * magenta.any(axis=0).sum()  # 30 wide and 40 high: an upright face
    assert record.counts["photos_oriented_boxes_upright" if turned else "photos_oriented_boxes_stored"] == 1


def test_what_is_wrong_with_each_unreadable_photo_is_in_the_record(tmp_path: Path, detector: MagentaDetector) -> None:
    root, out = tmp_path / "photos", tmp_path / "work"
    _write_photo(root, "mscoco/images/a_1.jpg", (300, 200), [])
    data = (root / "mscoco/images/a_1.jpg").read_bytes()
    (root / "mscoco/images/a_1.jpg").write_bytes(data[:-300])
    _write_people(out, root, [("mscoco/images/a_1.jpg", (300, 200), BODY), ("mscoco/images/b.jpg", (300, 200), BODY)])
    record = run_faces(FacesConfig(dir=out))
    assert list(record.info["unreadable_photos"]) == ["mscoco/images/a_1.jpg"]  # the missing one has its own status
    assert record.info["unreadable_photos"]["mscoco/images/a_1.jpg"].startswith("a damaged photo (Corrupt JPEG data")
    assert run_faces(FacesConfig(dir=out)).info == record.info  # from finished shards


def test_no_people_at_all_gives_empty_tables(tmp_path: Path, detector: MagentaDetector) -> None:
    _write_people(tmp_path / "work", tmp_path, [])
    record = run_faces(FacesConfig(dir=tmp_path / "work"))
    assert record.counts["people"] == 0
    assert pq.read_table(tmp_path / "work/faces.parquet").num_rows == 0


def test_bad_folders_and_settings_are_named(tmp_path: Path, detector: MagentaDetector) -> None:
    with pytest.raises(TableError, match=r"people\.parquet: no such file; rebuild it with 'emoface parse"):
        run_faces(FacesConfig(dir=tmp_path))
    with pytest.raises(SettingsError, match="engine is 'rey'; did you mean 'ray'"):
        FacesConfig(dir=tmp_path, engine="rey")
    with pytest.raises(SettingsError, match="conf_threshold is 50, expected a number from 0 to 1"):
        FacesConfig(dir=tmp_path, conf_threshold=50)
