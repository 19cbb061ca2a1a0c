"""Photos that are moved, missing or wrongly named: no finished result is lost, and a data set can move."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from emoface.datasets.manifest import Manifest, read_manifest
from emoface.datasets.stream_cache import open_stream_cache
from emoface.errors import ImageError, SettingsError
from emoface.jobs.depth import DepthConfig, run_depth
from emoface.jobs.faces import FacesConfig, run_faces
from emoface.jobs.parse import ParseConfig, run_parse
from emoface.jobs.pipeline import PipelineConfig, check_pipeline, run_pipeline
from emoface.jobs.simulate import SimulateConfig, run_simulate
from emoface.jobs.split import SplitConfig, run_split
from emoface.progress import Silent
from emoface.storage.files import file_sha256
from emoface.storage.records import need_record
from emoface.storage.urls import from_portable, to_portable

DETECTOR = "emoface-yolov5n-0.5"
PIPELINE = """
[settings]
emotic_root = "EMOTIC"
images = ""
out = "work"
allow_missing = false

[[stage]]
job = "parse"
emotic_root = "${emotic_root}"
images = "${images}"
out = "${out}"
allow_missing = "${allow_missing}"

[[stage]]
job = "faces"
dir = "${out}"
detector = "emoface-yolov5n-0.5"
allow_missing = "${allow_missing}"

[[stage]]
job = "split"
dir = "${out}"
"""
FINISHED = ("people.parquet", "faces.parquet", "train.parquet", "manifest.json")


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with EMOTIC (simulated), work (finished) and p.toml."""
    folder = tmp_path_factory.mktemp("built")
    run_simulate(SimulateConfig(out=folder / "EMOTIC", images=6, seed=3))
    (folder / "p.toml").write_text(PIPELINE)
    run_pipeline(_config(folder))
    return folder


@pytest.fixture
def place(built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy at another place, as if the whole folder had been moved; the times of the files are kept."""
    folder = tmp_path / "moved"
    shutil.copytree(built, folder)
    monkeypatch.chdir(folder)
    return folder


def _config(folder: Path, **settings: str) -> PipelineConfig:
    places = {"emotic_root": str(folder / "EMOTIC"), "out": str(folder / "work")}
    return PipelineConfig(str(folder / "p.toml"), places | settings)


def _states(config: PipelineConfig) -> dict[str, str]:
    return {status.stage.name: status.state for status in check_pipeline(config)}


def _hash_finished(folder: Path) -> dict[str, str]:
    return {name: file_sha256(folder / "work" / name) for name in FINISHED}


def test_wrong_image_root_that_is_corrected_is_seen_by_every_stage(place: Path) -> None:
    (place / "empty").mkdir()
    right = need_record(place / "work", "faces").counts["face_status"]
    wrong = _config(place, images=str(place / "empty"), allow_missing="true")
    records = run_pipeline(wrong)
    assert records["faces"].counts["face_status"] == dict.fromkeys(right, 0) | {"image_missing": sum(right.values())}
    assert _states(wrong) == {"parse": "current", "faces": "current", "split": "current"}
    assert _states(_config(place)) == {"parse": "stale", "faces": "stale", "split": "stale"}
    assert run_pipeline(_config(place))["faces"].counts["face_status"] == right
    assert read_manifest(place / "work/manifest.json").photos.root == place / "EMOTIC/emotic"


def test_renamed_emotic_folder_reaches_the_manifest_and_keeps_the_faces(place: Path) -> None:
    before = _hash_finished(place)
    (place / "EMOTIC").rename(place / "E2")
    run_pipeline(_config(place, emotic_root=str(place / "E2")))
    after = _hash_finished(place)
    assert {name for name in FINISHED if before[name] != after[name]} == {"manifest.json"}
    assert json.loads((place / "work/manifest.json").read_text())["image_root"] == "../E2/emotic"


def test_nothing_is_replaced_when_the_photos_are_away(place: Path) -> None:
    before = _hash_finished(place)
    (place / "EMOTIC/emotic").rename(place / "away")
    (place / "EMOTIC/emotic").mkdir()  # a disk that is not mounted
    with pytest.raises(ImageError, match=r"of \d+ photos are missing.*was made with the photos; nothing was replaced"):
        run_pipeline(_config(place))
    with pytest.raises(ImageError, match=r"nothing was replaced\. Mount the disk"):
        run_faces(FacesConfig(dir=place / "work", detector=DETECTOR))
    with pytest.raises(ImageError, match=r"nothing was replaced\. Mount the disk"):
        run_depth(DepthConfig(dir=place / "work"))
    assert _hash_finished(place) == before and not (place / "work/depth.parquet").exists()
    assert run_depth(DepthConfig(dir=place / "work", images=place / "away")).counts["without_depth"] == 0
    assert run_depth(DepthConfig(dir=place / "work", allow_missing=True)).counts["without_depth"] > 0


def test_parse_warns_without_photos_and_refuses_a_folder_that_has_none(place: Path, tmp_path: Path) -> None:
    class Notes(Silent):
        def __init__(self) -> None:
            self.said: list[str] = []

        def note(self, text: str) -> None:
            self.said.append(text)

    (place / "EMOTIC/emotic").rename(place / "away")
    root, progress = place / "EMOTIC", Notes()
    record = run_parse(ParseConfig(emotic_root=root, out=tmp_path / "rows"), progress)
    assert record.counts["photos_missing"] == record.counts["photos"]
    n = record.counts["photos"]
    assert progress.said[0].startswith(f"Warning: {root / 'emotic'}: {n} of {n} photos are missing, such as ")
    (place / "empty").mkdir()
    with pytest.raises(ImageError, match=rf"empty: {n} of {n} photos are missing, such as .*; nothing was written"):
        run_parse(ParseConfig(emotic_root=root, out=tmp_path / "other", images=place / "empty"))
    assert not (tmp_path / "other/people.parquet").exists()
    one = next(path for path in (place / "away").rglob("*.jpg"))
    (place / "empty" / one.relative_to(place / "away")).parent.mkdir(parents=True)
    shutil.copy(one, place / "empty" / one.relative_to(place / "away"))
    run_parse(ParseConfig(emotic_root=root, out=tmp_path / "some", images=place / "empty"))  # a sample of the photos


def test_moved_data_set_is_read_where_it_is(place: Path, built: Path) -> None:
    (built / "EMOTIC").rename(built / "gone")  # nothing may be read at the old place
    try:
        before = _hash_finished(place)
        manifest = read_manifest(place / "work/manifest.json", check_sha256=True)
        assert manifest.photos.root == place / "EMOTIC/emotic"
        run_faces(FacesConfig(dir=place / "work", detector=DETECTOR))
        run_split(SplitConfig(dir=place / "work"))
        assert _hash_finished(place) == before
    finally:
        (built / "gone").rename(built / "EMOTIC")


def test_manifest_with_an_absolute_image_root_is_still_read(place: Path) -> None:
    path = place / "work/manifest.json"
    card = json.loads(path.read_text())
    path.write_text(json.dumps(card | {"image_root": str(place / "EMOTIC/emotic")}))
    assert read_manifest(path).photos.root == place / "EMOTIC/emotic"
    path.write_text(json.dumps(card | {"image_root": "s3://bucket/photos"}))
    assert read_manifest(path).photos.root == "s3://bucket/photos"


def test_other_place_of_the_photos(place: Path) -> None:
    (place / "EMOTIC/emotic").rename(place / "away")
    path = place / "work/manifest.json"
    assert len(open_stream_cache(read_manifest(path, images=place / "away"), "train"))
    with pytest.raises(SettingsError, match=r"nowhere: no such folder, expected the one that holds mscoco/images"):
        read_manifest(path, images=place / "nowhere")
    with pytest.raises(SettingsError, match="nowhere: no such folder"):
        run_faces(FacesConfig(dir=place / "work", detector=DETECTOR, images=place / "nowhere"))
    run_faces(FacesConfig(dir=place / "work", detector=DETECTOR, images=place / "away"))
    run_split(SplitConfig(dir=place / "work"))
    assert read_manifest(path).photos.root == place / "away"


def test_moved_stream_cache_is_not_packed_again(built: Path, tmp_path: Path) -> None:
    class Phases(Silent):
        def __init__(self) -> None:
            self.started: list[str] = []

        def start(self, description: str, total: int) -> None:
            self.started.append(description)

    def open_cache(manifest: Manifest) -> list[str]:
        phases = Phases()
        open_stream_cache(manifest, "train", progress=phases)
        return phases.started

    assert open_cache(read_manifest(built / "work/manifest.json")) == ["pack train"]
    shutil.copytree(built, tmp_path / "moved")
    assert open_cache(read_manifest(tmp_path / "moved/work/manifest.json")) == []
    (tmp_path / "moved/EMOTIC/emotic").rename(tmp_path / "photos")
    assert open_cache(read_manifest(tmp_path / "moved/work/manifest.json", images=tmp_path / "photos")) == []


@pytest.mark.parametrize(
    ("photos", "text"),
    [
        ("data/work/emotic", "emotic"),
        ("data/emotic", "../emotic"),
        ("data", ".."),
        ("other/emotic", "{root}/other/emotic"),
    ],
)
def test_places_below_and_beside_are_relative(photos: str, text: str, tmp_path: Path) -> None:
    folder = tmp_path / "data/work"
    written = to_portable(tmp_path / photos, folder)
    assert written == text.format(root=tmp_path)
    assert from_portable(written, folder) == tmp_path / photos
    assert to_portable(Path("/photos"), Path("/work")) == "/photos"  # all disks are beside /work
