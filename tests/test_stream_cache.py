"""The stream cache: geometry by hand, every person against a slow reference, people who cannot be shown, resuming."""

from __future__ import annotations

import json
import pickle
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from json_damage import damage
from mter_data import PHOTO_WH, write_photos_and_tables
from PIL import Image

from emoface.datasets import stream_cache
from emoface.datasets.manifest import Manifest, read_manifest
from emoface.datasets.photos import PhotoFolder, UprightPhoto
from emoface.datasets.stream_cache import StreamCache, crop_box, crop_person, open_stream_cache, scale_square
from emoface.errors import ImageError, TableError
from emoface.jobs.split import SplitConfig, run_split
from emoface.schema import FACES_SCHEMA, PEOPLE_SCHEMA
from emoface.storage.files import file_sha256
from emoface.storage.tables import write_table
from emoface.vision.images import decode_photo, read_photo


@pytest.fixture
def manifest(tmp_path: Path) -> Manifest:
    return read_manifest(write_photos_and_tables(tmp_path, 8))


def _photo(manifest: Manifest, image: str) -> Path:
    return Path(manifest.image_root) / image


def _change_table(manifest: Manifest, name: str, column: str, values: list[object]) -> Manifest:
    """Replaces a column of people or faces and splits again."""
    schema = PEOPLE_SCHEMA if name == "people" else FACES_SCHEMA
    path = manifest.path.parent / f"{name}.parquet"
    table = pq.read_table(path)
    position = table.schema.get_field_index(column)
    changed = table.set_column(position, column, pa.array(values, schema.field(column).type))
    write_table(path, changed, schema)
    run_split(SplitConfig(dir=manifest.path.parent, by="emotic"))
    return read_manifest(manifest.path)


def _tree(manifest: Manifest) -> dict[str, str]:
    folder = manifest.path.parent / "stream_cache"
    return {path.relative_to(folder).as_posix(): file_sha256(path) for path in folder.rglob("*") if path.is_file()}


def test_body_is_every_pixel_its_box_touches() -> None:
    photo = np.arange(5 * 7 * 3, dtype=np.uint8).reshape(5, 7, 3)
    cut = crop_box(photo, np.array([1.2, 0.5, 3.1, 4.0], np.float32))
    assert cut is not None and cut.tolist() == photo[0:4, 1:4].tolist()
    whole = crop_box(photo, np.array([-3, -2, 99, 99], np.float32))
    assert whole is not None and whole.shape == photo.shape


@pytest.mark.parametrize("xyxy", [[3, 1, 3, 4], [7, 0, 9, 5], [4, 1, 2, 3], [0, 0, np.nan, 3]])
def test_box_without_pixels_is_none(xyxy: list[float]) -> None:
    assert crop_box(np.zeros((5, 7, 3), np.uint8), np.array(xyxy, np.float32)) is None


def test_shrinking_averages_and_growing_interpolates_each_side_for_itself() -> None:
    photo = np.zeros((2, 8, 3), np.uint8)
    photo[0] = np.repeat(np.array([[0, 80, 160, 240]]), 2, axis=1).T  # pairs of columns
    photo[0, 1::2] += 8
    photo[1] = photo[0]
    scaled = scale_square(photo, 4)  # 8 wide shrinks to 4, 2 high grows to 4
    assert scaled[..., 0].tolist() == [[4, 84, 164, 244]] * 4
    column = np.array([[0], [100]], np.uint8)[..., None].repeat(3, axis=2)  # 1 wide, 2 high
    assert scale_square(column, 4)[:, 0, 0].tolist() == [0, 25, 75, 100]


def test_cut_knows_where_the_face_is_in_the_photo() -> None:
    photo = np.zeros((100, 200, 3), np.uint8)
    cut = crop_person(photo, np.array([0, 0, 50, 100]), photo[:9, :9], np.array([20, 10, 40, 35]))
    assert cut.face_in_context is not None
    assert cut.face_in_context.tolist() == pytest.approx([0.1, 0.1, 0.2, 0.35])
    with pytest.raises(ValueError, match="both or neither"):
        crop_person(photo, np.array([0, 0, 50, 100]), None, np.array([20, 10, 40, 35]))
    with pytest.raises(ValueError, match=r"nothing of the body box .* is inside a photo of \(200, 100\)"):
        crop_person(photo, np.array([200, 0, 250, 100]), None, None)


def _assert_is_reference(cache: StreamCache, manifest: Manifest, split: str) -> None:
    """Every usable person, read again one by one with pandas-like code that knows nothing of shards."""
    rows = [row for row in pq.read_table(manifest.split_path(split)).to_pylist() if row["index"] in cache.people.index]
    assert [row["index"] for row in rows] == cache.people.index.tolist()
    for position, row in enumerate(rows):
        face = row["face"] and decode_photo(row["face"]["bytes"], "face")
        box = None if row["face"] is None else np.array(row["face_bbox"], np.float32)
        photo = read_photo(_photo(manifest, row["image"]))
        expected = crop_person(photo, np.array(row["body_bbox"], np.float32), face, box)
        kept = cache.read_person(position)
        assert np.array_equal(kept.body, expected.body) and np.array_equal(kept.context, expected.context)
        assert (kept.face is None) == (expected.face is None) == (not cache.people.has_face[position])
        if kept.face is not None and expected.face is not None:
            assert np.array_equal(kept.face, expected.face)
            assert np.array_equal(kept.face_in_context, expected.face_in_context)
        assert cache.people.labels[position].tolist() == row["labels"]
        vad = [np.nan if row[name] is None else row[name] for name in ("valence", "arousal", "dominance")]
        assert np.array_equal(cache.people.vad[position], np.array(vad, np.float32), equal_nan=True)
        assert cache.people.images[position] == row["image"]


@pytest.mark.parametrize("photos_per_shard", [1, 3, 256])
def test_every_person_is_what_their_photo_and_tables_say(
    manifest: Manifest, monkeypatch: pytest.MonkeyPatch, photos_per_shard: int
) -> None:
    monkeypatch.setattr(stream_cache, "_PHOTOS_PER_SHARD", photos_per_shard)
    for split in ("train", "val", "test"):
        cache = open_stream_cache(manifest, split)
        assert cache.counts["usable"] == cache.counts["people"] == manifest.splits[split].rows == len(cache)
        _assert_is_reference(cache, manifest, split)


def test_people_who_cannot_be_shown_are_left_out_and_counted(manifest: Manifest) -> None:
    people = pq.read_table(manifest.path.parent / "people.parquet").to_pylist()
    bodies = [row["body_bbox"] for row in people]
    bodies[0] = None
    bodies[3] = [PHOTO_WH[0] + 5.0, 0.0, PHOTO_WH[0] + 9.0, 50.0]
    manifest = _change_table(manifest, "people", "body_bbox", bodies)
    _photo(manifest, "framesdb/images/004.jpg").unlink()
    _photo(manifest, "framesdb/images/005.jpg").write_bytes(b"no photo")
    cache = open_stream_cache(manifest, "train")  # photos 0, 1, 4, 5
    assert cache.counts == {"people": 8, "usable": 2, "image_missing": 2, "image_unreadable": 2, "no_body": 2}
    assert cache.people.index.tolist() == [1, 2]
    _assert_is_reference(cache, manifest, "train")


def test_no_readable_photo_at_all_is_an_error_that_names_the_image_root(manifest: Manifest, tmp_path: Path) -> None:
    (tmp_path / "photos").rename(tmp_path / "elsewhere")
    with pytest.raises(ImageError, match=r"photos: 4 of 4 photos are missing, such as .*; nothing was replaced\."):
        open_stream_cache(manifest, "train")
    with pytest.raises(TableError, match=r"none of its 8 people can be used \(8 image_missing\); expected .*photos'"):
        open_stream_cache(manifest, "train", allow_missing=True)


def test_nobody_in_a_split_is_an_empty_cache(tmp_path: Path) -> None:
    manifest = read_manifest(write_photos_and_tables(tmp_path, 2))
    cache = open_stream_cache(manifest, "test")
    assert len(cache) == 0 and cache.counts["people"] == 0 and cache.people.labels.shape == (0, 26)


def _boxes(manifest: Manifest, row: int) -> list[list[float]]:
    """Body box and face box of one person of train."""
    table = pq.read_table(manifest.split_path("train"), columns=["body_bbox", "face_bbox"])
    return [table[name][row].as_py() for name in ("body_bbox", "face_bbox")]


def test_crops_are_of_the_upright_photo_in_whichever_frame_the_boxes_are(manifest: Manifest) -> None:
    path = _photo(manifest, "framesdb/images/000.jpg")
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(read_photo(path)).save(path, exif=exif, quality=95)  # 200 x 120 stored, 120 x 200 turned
    upright = read_photo(path)
    assert upright.shape == (200, 120, 3)
    sizes: list[object] = [list(PHOTO_WH)] * 16
    for wh in (PHOTO_WH, PHOTO_WH[::-1]):
        sizes[:2] = [list(wh)] * 2
        changed = _change_table(manifest, "people", "image_wh", sizes)
        cache, (body, face) = open_stream_cache(changed, "train"), _boxes(changed, 0)
        assert np.array_equal(cache.read_person(0).context, scale_square(upright, 256))
        if wh == PHOTO_WH:  # boxes of the stored photo go with it: x' = height - y, y' = x
            body, face = ([120 - box[3], box[0], 120 - box[1], box[2]] for box in (body, face))
        expected = crop_box(upright, np.array(body, np.float32))
        assert expected is not None and np.array_equal(cache.read_person(0).body, scale_square(expected, 144))
        assert cache.people.face_in_context[0] == pytest.approx(np.array(face) / (120, 200, 120, 200), abs=1e-6)


def test_photo_listed_in_two_places_is_kept_once(manifest: Manifest) -> None:
    images: list[object] = [row["image"] for row in pq.read_table(manifest.path.parent / "people.parquet").to_pylist()]
    images[10] = images[0]  # person 10 of photo 5 moves to photo 0
    manifest = _change_table(manifest, "people", "image", images)
    cache = open_stream_cache(manifest, "train")
    _assert_is_reference(cache, manifest, "train")
    (context,) = (manifest.path.parent / "stream_cache").rglob("*.context.npy")
    assert len(np.load(context)) == 4


def test_second_opening_writes_nothing_and_another_process_reads_the_same(manifest: Manifest) -> None:
    first = open_stream_cache(manifest, "train")
    first.read_person(0)
    times = {path: path.stat().st_mtime_ns for path in (manifest.path.parent / "stream_cache").rglob("*")}
    second = open_stream_cache(manifest, "train")
    assert {path: path.stat().st_mtime_ns for path in times} == times
    sent = pickle.dumps(first)
    assert len(sent) < 20_000 < first.read_person(0).body.nbytes
    for cache in (second, pickle.loads(sent)):
        for position in range(len(first)):
            assert np.array_equal(cache.read_person(position).body, first.read_person(position).body)


class _Killed(BaseException):
    pass


class _KillingProgress:
    """Stops the work after a number of photos."""

    def __init__(self, n: int) -> None:
        self.left = n

    def start(self, description: str, total: int) -> None:
        self.total = total

    def advance(self, n: int = 1) -> None:
        self.left -= n
        if self.left == 0:
            raise _Killed

    def describe(self, text: str) -> None: ...

    def note(self, text: str) -> None: ...


@pytest.mark.parametrize("n_before_the_kill", [1, 2, 3, 4])
def test_killed_and_resumed_gives_the_bytes_of_an_unbroken_run(
    manifest: Manifest, monkeypatch: pytest.MonkeyPatch, n_before_the_kill: int
) -> None:
    monkeypatch.setattr(stream_cache, "_PHOTOS_PER_SHARD", 1)
    with pytest.raises(_Killed):
        open_stream_cache(manifest, "train", progress=_KillingProgress(n_before_the_kill))
    rest = _KillingProgress(-1)
    open_stream_cache(manifest, "train", progress=rest)
    assert rest.total == 4 - (n_before_the_kill - 1)  # the shard that was being written is done again
    resumed = _tree(manifest)
    for path in (manifest.path.parent / "stream_cache").rglob("*.*"):
        path.unlink()
    open_stream_cache(manifest, "train")
    assert _tree(manifest) == resumed and len(resumed) == 16


def test_changed_photo_makes_only_its_shard_again(manifest: Manifest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream_cache, "_PHOTOS_PER_SHARD", 2)
    open_stream_cache(manifest, "train")
    path = _photo(manifest, "framesdb/images/004.jpg")
    Image.fromarray(255 - read_photo(path)).save(path, quality=95)
    watched = _KillingProgress(-1)
    cache = open_stream_cache(manifest, "train", progress=watched)
    assert watched.total == 2
    _assert_is_reference(cache, manifest, "train")
    (path.parent / "005.jpg").unlink()
    assert open_stream_cache(manifest, "train").counts["image_missing"] == 2


def test_array_that_was_cut_off_is_made_again(manifest: Manifest) -> None:
    open_stream_cache(manifest, "train")
    (body,) = (manifest.path.parent / "stream_cache").rglob("*.body.npy")
    whole = body.read_bytes()
    body.write_bytes(whole[:-100])
    open_stream_cache(manifest, "train")
    assert body.read_bytes() == whole


def test_damaged_summary_makes_its_shard_again(manifest: Manifest) -> None:
    counts = open_stream_cache(manifest, "train").counts
    (summary,) = (manifest.path.parent / "stream_cache").rglob("*.json")
    before = _tree(manifest)
    for name, content in damage(summary.read_text()):
        summary.write_bytes(content)
        assert open_stream_cache(manifest, "train").counts == counts, name
        assert _tree(manifest) == before, name


def test_photo_that_vanishes_while_the_cache_is_filled_is_missing_until_it_is_back(
    manifest: Manifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = open_stream_cache(manifest, "train").counts
    before = _tree(manifest)
    shutil.rmtree(manifest.path.parent / "stream_cache")
    photo, read = _photo(manifest, "framesdb/images/005.jpg"), PhotoFolder.read
    shutil.copy2(photo, manifest.path.parent / "kept.jpg")

    def read_vanished(folder: PhotoFolder, image: str, image_wh: tuple[int, int]) -> UprightPhoto:
        photo.unlink(missing_ok=True)
        return read(folder, image, image_wh)

    with monkeypatch.context() as patch:
        patch.setattr(PhotoFolder, "read", read_vanished)
        counts = open_stream_cache(manifest, "train").counts
    assert counts == {**whole, "usable": whole["usable"] - 2, "image_missing": 2}
    shutil.copy2(manifest.path.parent / "kept.jpg", photo)
    assert open_stream_cache(manifest, "train").counts == whole and _tree(manifest) == before


def test_array_of_another_form_is_made_again(manifest: Manifest) -> None:
    open_stream_cache(manifest, "train")
    (body,) = (manifest.path.parent / "stream_cache").rglob("*.body.npy")
    whole = body.read_bytes()
    for old, new in ((b"|u1", b"|i1"), (b"NUMPY", b"NUMPI"), (b"144, 144", b"072, 288"), (b"(8,", b"(4,")):
        assert old in whole
        body.write_bytes(whole.replace(old, new, 1))
        open_stream_cache(manifest, "train")
        assert body.read_bytes() == whole


def test_changed_table_makes_another_cache_and_drops_only_its_own_old_one(manifest: Manifest, tmp_path: Path) -> None:
    other = read_manifest(write_photos_and_tables(tmp_path / "second", 8))
    shared = tmp_path / "cache"
    (shared / "train-set-of-mine").mkdir(parents=True)
    open_stream_cache(manifest, "train", shared)
    open_stream_cache(other, "train", shared)
    before = {path.name for path in shared.iterdir()}
    labels: list[object] = [[1] + [0] * 25] * 16
    manifest = _change_table(manifest, "people", "labels", labels)
    cache = open_stream_cache(manifest, "train", shared)
    assert cache.people.labels[:, 0].tolist() == [1] * 8
    after = {path.name for path in shared.iterdir()}
    assert len(before) == len(after) == 3 and len(before & after) == 2 and "train-set-of-mine" in after


def test_face_without_its_box_is_refused(manifest: Manifest) -> None:
    boxes: list[object] = [
        row["face_bbox"] for row in pq.read_table(manifest.path.parent / "faces.parquet").to_pylist()
    ]
    boxes[2] = None
    manifest = _change_table(manifest, "faces", "face_bbox", boxes)
    with pytest.raises(TableError, match=r"train\.parquet: framesdb/images/001\.jpg#0 has only one of face and face_b"):
        open_stream_cache(manifest, "train")


def test_face_that_is_no_photo_is_refused(manifest: Manifest) -> None:
    faces: list[object] = pq.read_table(manifest.path.parent / "faces.parquet")["face"].to_pylist()
    faces[2] = {"bytes": b"nothing", "path": None}
    manifest = _change_table(manifest, "faces", "face", faces)
    with pytest.raises(TableError, match=r"train\.parquet: face of framesdb/images/001\.jpg#0: not a readable photo"):
        open_stream_cache(manifest, "train")


def test_rows_of_faces_are_found_in_any_row_group(manifest: Manifest) -> None:
    path = manifest.split_path("train")
    table = pq.read_table(path)
    pq.write_table(table, path, row_group_size=3)
    assert pc.sum(pc.is_null(table["face"])).as_py() == 2
    _assert_is_reference(open_stream_cache(manifest, "train"), manifest, "train")


def test_summary_is_plain_json(manifest: Manifest) -> None:
    open_stream_cache(manifest, "train")
    (summary,) = (manifest.path.parent / "stream_cache").rglob("*.json")
    described = json.loads(summary.read_text())
    assert described["photos"][0] == {
        "turn": {"orientation": 1, "wh": list(PHOTO_WH)},
        "statuses": ["usable", "usable"],
    }
