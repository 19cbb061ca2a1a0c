"""Photos and shards in an object store: against a local S3 server, and in memory. Same bytes as with folders."""

from __future__ import annotations

import hashlib
import io
import itertools
import json
import logging
import pickle
import shutil
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from http import HTTPStatus
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from fsspec.implementations.memory import MemoryFileSystem
from moto import settings as moto_settings
from PIL import Image
from s3_server import S3Server, forget_clients, upload
from s3fs import S3FileSystem
from watching import Watching

from emoface.cli import main
from emoface.datasets import mirror
from emoface.datasets.manifest import Manifest, read_manifest
from emoface.datasets.photos import IMAGE_MISSING, IMAGE_UNREADABLE, PhotoFolder, group_photos, photo_digest
from emoface.datasets.stream_cache import CACHE_SIZES, open_stream_cache, scale_square
from emoface.errors import ImageError, SettingsError, StoreError, TableError, UploadError
from emoface.jobs import faces as faces_job
from emoface.jobs.evaluate import EvaluateConfig, run_evaluate
from emoface.jobs.faces import FacesConfig, run_faces
from emoface.jobs.parse import ParseConfig, run_parse
from emoface.jobs.predict import PredictConfig, _predict_annotated
from emoface.jobs.simulate import SimulateConfig, run_simulate
from emoface.jobs.split import SplitConfig, run_split
from emoface.jobs.train import TrainConfig, run_train
from emoface.jobs.upload import UploadConfig, run_upload
from emoface.jobs.verify import VerifyConfig, run_verify
from emoface.mter.runs import read_run
from emoface.progress import Silent
from emoface.reporting.thumbnails import thumbnail_of_body
from emoface.storage.objects import ObjectFolder
from emoface.storage.photo_stores import PhotoStore, UrlStore, hash_photos, open_ahead, open_store, read_photo_at
from emoface.storage.shards import ShardObjects
from emoface.vision.crops import Photo

N_PHOTOS = 8
URL = "s3://photos/emotic"
SETTINGS: dict[str, Any] = {"detector": "emoface-yolov5n-0.5", "image_size": 320, "shard_size": 2}


@pytest.fixture(scope="module")
def server() -> Iterator[S3Server]:
    server = S3Server()
    yield server
    server.stop()


@pytest.fixture(scope="module")
def simulation(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A simulation; ``parsed`` and ``faces`` beside it were made from the local folder."""
    root = tmp_path_factory.mktemp("simulation")
    run_simulate(SimulateConfig(out=root / "sim", images=N_PHOTOS, seed=3))
    run_parse(ParseConfig(emotic_root=root / "sim", out=root / "local"))
    run_faces(FacesConfig(dir=root / "local", **SETTINGS))
    return root


@pytest.fixture(scope="module")
def bucket(server: S3Server, simulation: Path) -> Iterator[S3FileSystem]:
    """The photos of the simulation in a bucket, and a client that changes them."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in server.environment.items():
            patch.setenv(name, value)
        forget_clients()
        upload(simulation / "sim/emotic", URL)
        run_parse(ParseConfig(emotic_root=simulation / "sim", out=simulation / "parsed", images=URL))
        yield S3FileSystem(use_listings_cache=False)
    forget_clients()


@pytest.fixture
def s3(bucket: S3FileSystem, server: S3Server, simulation: Path) -> Iterator[S3FileSystem]:
    """The bucket; what a test has changed in it is undone."""
    server.take_requests()
    yield bucket
    upload(simulation / "sim/emotic", URL)


@pytest.fixture
def work(s3: S3FileSystem, simulation: Path, tmp_path: Path) -> Path:
    """A data set folder that was parsed from the bucket."""
    return Path(shutil.copytree(simulation / "parsed", tmp_path / "work"))


def _jpeg(width: int = 60, height: int = 40, orientation: int = 1, n_filler: int = 0) -> bytes:
    """A JPEG, its left half white; ``n_filler`` bytes of a comment are in front of its size."""
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[:, : width // 2] = 255
    exif = Image.Exif()
    exif[0x0112] = orientation
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "JPEG", exif=exif, quality=95)
    data = stream.getvalue()
    comments = b"".join(b"\xff\xfe\x80\x02" + b" " * 0x8000 for _ in range(n_filler // 0x8000))
    return data[:2] + comments + data[2:]


def _error(*words: str) -> str:
    """The one line of standard error with which a command fails."""
    result = CliRunner().invoke(main, list(words))
    assert result.exit_code == 1, result.output
    assert isinstance(result.exception, SystemExit)
    (line,) = [line for line in result.stderr.splitlines() if line.startswith("Error")]
    assert "Traceback" not in result.stderr
    return line


@pytest.fixture
def memory() -> Iterator[MemoryFileSystem]:
    filesystem = MemoryFileSystem()
    filesystem.store.clear()
    yield filesystem
    filesystem.store.clear()


def _stores(memory: MemoryFileSystem, folder: Path, files: dict[str, bytes]) -> tuple[PhotoStore, PhotoStore]:
    """The same files in a folder and in a store."""
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
        memory.pipe_file(f"/bucket/photos/{name}", data)
    return open_store(folder), open_store("memory://bucket/photos")


def test_folder_and_store_read_the_same_sizes_pixels_and_reasons(memory: MemoryFileSystem, tmp_path: Path) -> None:
    files = {
        "a/upright.jpg": _jpeg(),
        "a/turned photo.jpg": _jpeg(orientation=6),
        "a/late header.jpg": _jpeg(n_filler=200_000),
        "b/broken.jpg": b"no photo",
        "b/empty.jpg": b"",
        "c.jpg": _jpeg(31, 17),
    }
    local, remote = _stores(memory, tmp_path, files)
    for name in ("a/upright.jpg", "a/turned photo.jpg", "a/late header.jpg", "c.jpg"):
        assert remote.read_size(name) == local.read_size(name)
        (here, here_size), (there, there_size) = local.read(name), remote.read(name)
        assert np.array_equal(here, there) and here_size == there_size
    for name in ("b/broken.jpg", "b/empty.jpg", "b/none.jpg"):
        for read in ("read", "read_size"):
            with pytest.raises(ImageError) as here_error:
                getattr(local, read)(name)
            with pytest.raises(ImageError) as there_error:
                getattr(remote, read)(name)
            assert str(here_error.value).replace(str(tmp_path), "memory://bucket/photos") == str(there_error.value)
            assert local.is_missing(name, here_error.value) == remote.is_missing(name, there_error.value)
    statuses = [
        PhotoFolder(root).try_read(name, (60, 40)).status
        for root in (tmp_path, "memory://bucket/photos")
        for name in ("a/upright.jpg", "b/broken.jpg", "b/none.jpg", "a")
    ]
    assert statuses == ["", IMAGE_UNREADABLE, IMAGE_MISSING, IMAGE_MISSING] * 2


def test_states_change_with_each_photo_whether_listed_or_asked_one_by_one(
    memory: MemoryFileSystem, tmp_path: Path
) -> None:
    names = [f"a/{number}.jpg" for number in range(25)]
    _, remote = _stores(memory, tmp_path, {name: name.encode() for name in [*names, "root.jpg"]})
    images = ["a/1.jpg", "a/none.jpg", "root.jpg", "b/none.jpg", "a/2.jpg"]
    first = remote.read_states(images)
    assert first.missing == ["a/none.jpg", "b/none.jpg"]
    alone = remote.read_states(["a/1.jpg"])  # of the 25 that are listed now
    assert alone.of["a/1.jpg"] == first.of["a/1.jpg"]
    assert remote.read_states(images).digest(images) == first.digest(images)
    photos = group_photos(images, np.full((len(images), 2), 9, np.float32))
    assert photo_digest("memory://bucket/photos", photos) == first.digest(images)
    memory.pipe_file("/bucket/photos/a/2.jpg", b"longer than before")
    assert remote.read_states(images).digest(images) != first.digest(images)
    assert remote.read_states(["a/2.jpg"]).of["a/2.jpg"] != first.of["a/2.jpg"]
    memory.rm_file("/bucket/photos/a/1.jpg")
    assert remote.read_states(["a/1.jpg"]).missing == ["a/1.jpg"]


def test_photos_are_fetched_ahead_once_in_order_and_dropped(
    memory: MemoryFileSystem, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = [f"{number}.jpg" for number in range(100)]
    _, remote = _stores(memory, tmp_path, {name: _jpeg(20 + number, 9) for number, name in enumerate(names)})
    fetched: list[str] = []
    fetch = UrlStore.fetch

    def count(store: UrlStore, name: str, start: int | None = None, end: int | None = None) -> bytes:
        fetched.append(name)
        return fetch(store, name, start, end)

    monkeypatch.setattr(UrlStore, "fetch", count)
    with open_ahead(remote) as ahead:
        widths = []
        for name in ahead.fetch_ahead(names, str):  # type: ignore[attr-defined]
            assert len(fetched) <= len(widths) + 33
            assert ahead.read_size(name).stored_wh == ahead.read(name)[0].shape[1::-1]
            widths.append(ahead.read_size("0.jpg").stored_wh[0] if name == "0.jpg" else 20 + len(widths))
        assert not ahead._fetched  # type: ignore[attr-defined]
    assert sorted(fetched) == sorted([*names, "0.jpg"])  # 0.jpg again, after it was dropped


def test_store_goes_to_other_processes_as_its_url(memory: MemoryFileSystem, tmp_path: Path) -> None:
    _, remote = _stores(memory, tmp_path, {"a.jpg": _jpeg()})
    remote.read("a.jpg")
    copied = pickle.loads(pickle.dumps(PhotoFolder("memory://bucket/photos", "upright")))
    assert copied == PhotoFolder("memory://bucket/photos", "upright")
    assert len(pickle.dumps(remote)) < 200 and copied.read("a.jpg", (60, 40)).pixels.shape == (40, 60, 3)


def test_url_whose_package_is_missing_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    forget_clients()
    monkeypatch.setitem(__import__("sys").modules, "s3fs", None)
    with pytest.raises(
        SettingsError, match=r"s3fs, which is not installed; install it with pip install 'emoface\[s3\]"
    ):
        open_store("s3://photos/emotic").is_folder()
    with pytest.raises(SettingsError, match=r"^zz://: no such kind of store; expected s3://, gs://"):
        open_store("zz://photos").has("a.jpg")
    forget_clients()


def test_only_some_settings_may_be_urls() -> None:
    result = CliRunner().invoke(main, ["parse", "s3://photos/EMOTIC", "--out", "work"])
    assert result.exit_code == 2
    assert "'s3://photos/EMOTIC' is a URL, expected a directory of this machine" in result.stderr
    with pytest.raises(SettingsError, match="a URL as a path has lost a slash; give it as the text 's3://photos/a'"):
        ParseConfig(emotic_root="sim", out="work", images=Path("s3://photos/a"))
    config = ParseConfig(emotic_root="sim", out="work", images="s3://photos/a/")
    assert config.images == "s3://photos/a" and config.to_json()["images"] == "s3://photos/a"
    assert ParseConfig(emotic_root="sim", out="work", images="photos").images == Path("photos")


TABLES = ("people.parquet", "parse_notes.csv", "faces.parquet", "empty_faces.csv")


def test_same_bytes_as_from_a_folder_with_one_request_per_photo(
    s3: S3FileSystem, server: S3Server, simulation: Path, tmp_path: Path
) -> None:
    work = tmp_path / "work"
    run_parse(ParseConfig(emotic_root=simulation / "sim", out=work, images=f"{URL}/"))
    requests = server.take_requests()
    assert requests["GET"] == N_PHOTOS and requests["HEAD"] <= 6 and requests["LIST"] <= 8  # 4 folders
    record = run_faces(FacesConfig(dir=work, **SETTINGS))
    requests = server.take_requests()
    assert requests["GET"] == N_PHOTOS and requests["HEAD"] + requests["LIST"] <= 4 + 2 * N_PHOTOS
    assert record.counts["face_status"]["found"] > 5
    for name in TABLES:
        assert (work / name).read_bytes() == (simulation / "local" / name).read_bytes(), name
    assert json.loads((work / "records/parse.json").read_text())["info"]["image_root"] == URL


def _read_in_child(image: str) -> tuple[int, ...]:
    return PhotoFolder(URL).read(image, (9, 9)).pixels.shape


def test_child_process_that_was_forked_makes_its_own_connection(s3: S3FileSystem) -> None:
    image = s3.find(URL)[0].removeprefix("photos/emotic/")
    shape = _read_in_child(image)  # this process has a connection and a thread before it forks
    with ProcessPoolExecutor(1, get_context("fork")) as pool:
        assert pool.submit(_read_in_child, image).result(timeout=60) == shape


class _ShapeOnly:
    """A predictor that predicts nothing."""

    def predict_people(self, photo: Photo, people: list[Any]) -> list[Any]:
        assert people
        return []


def test_later_commands_read_photos_from_the_store(s3: S3FileSystem, work: Path) -> None:
    run_faces(FacesConfig(dir=work, **SETTINGS))
    run_split(SplitConfig(dir=work))
    manifest = read_manifest(work / "manifest.json")
    assert manifest.photos == PhotoFolder(URL)
    assert not run_verify(VerifyConfig(dir=work)).info["differences"]
    cache = open_stream_cache(manifest, "train")
    table = pq.read_table(work / "train.parquet").to_pylist()
    assert cache.counts["usable"] == len(table) > 0
    photo = read_photo_at(f"{URL}/{table[0]['image']}")
    assert np.array_equal(cache.read_person(0).context, scale_square(photo, CACHE_SIZES["context"]))
    url = f"{URL}/{table[0]['image']}"
    assert PredictConfig(run="run", images=(url, "a.jpg")).images == (url, Path("a.jpg"))
    assert _predict_annotated(_ShapeOnly(), manifest, url)[0].shape == photo.shape  # type: ignore[arg-type]
    with pytest.raises(TableError, match=f"^s3://other/a.jpg: not below '{URL}', the image root of"):
        _predict_annotated(_ShapeOnly(), manifest, "s3://other/a.jpg")  # type: ignore[arg-type]
    assert hash_photos([url, f"{URL}/none.jpg"]) == {url: hashlib.sha256(s3.cat_file(url)).hexdigest()}
    s3.rm_file(url)
    (changed, missing) = run_verify(VerifyConfig(dir=work)).info["differences"][-2:]
    assert changed.endswith(f"photos below {URL} changed")
    assert f"{URL}: 1 of {N_PHOTOS} photos are missing, first {table[0]['image']}" in missing
    assert open_stream_cache(manifest, "train").counts["image_missing"] >= 1
    person, other = (next(one for one in table if (one["image"] == table[0]["image"]) == is_gone) for is_gone in (1, 0))
    assert thumbnail_of_body(person, manifest.photos) == {"problem": "photo not here"}
    assert "picture" in thumbnail_of_body(other, manifest.photos)


def test_pipeline_runs_only_what_is_out_of_date(s3: S3FileSystem, simulation: Path, tmp_path: Path) -> None:
    path = tmp_path / "pipeline.toml"
    path.write_text(
        f"""
[[stage]]
job = "parse"
emotic_root = "{simulation / "sim"}"
images = "{URL}"
out = "{tmp_path / "work"}"
"""
    )
    states = []
    for _ in range(2):
        states.append(CliRunner().invoke(main, ["status", str(path)]).output)
        result = CliRunner().invoke(main, ["run", str(path)])
        assert result.exit_code == 0, result.output
    assert "missing" in states[0] and "current" in states[1]
    s3.pipe_file(s3.find(URL)[0], b"another photo")
    assert f"photos below {URL} changed" in CliRunner().invoke(main, ["status", str(path)]).output


def test_changed_and_deleted_photos_make_their_shards_pending_again(
    s3: S3FileSystem, server: S3Server, work: Path
) -> None:
    run_faces(FacesConfig(dir=work, **SETTINGS))
    server.take_requests()
    run_faces(FacesConfig(dir=work, **SETTINGS))
    assert server.take_requests()["GET"] == 0
    images = [path.removeprefix("photos/emotic/") for path in s3.find(URL)]
    s3.rm_file(f"{URL}/{images[0]}")
    s3.pipe_file(f"{URL}/{images[1]}", b"no photo any more")
    record = run_faces(FacesConfig(dir=work, **SETTINGS))
    assert 0 < server.take_requests()["GET"] <= 2 * SETTINGS["shard_size"]
    assert (record.counts["photos_missing"], record.counts["photos_unreadable"]) == (1, 1)
    assert list(record.info["unreadable_photos"]) == [images[1]]


class _StopServer(Silent):
    """Takes the photos away after some steps, as if the server were gone."""

    def __init__(self, n_steps: int, stop: Any) -> None:
        self.n_steps, self.stop = n_steps, stop

    def advance(self, n: int = 1) -> None:
        self.n_steps -= n
        if self.n_steps == 0:
            self.stop()


def test_server_that_stops_ends_the_run_and_the_next_one_goes_on(
    server: S3Server, work: Path, simulation: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = S3Server()  # shares the buckets of this process
    monkeypatch.setenv("AWS_ENDPOINT_URL", other.environment["AWS_ENDPOINT_URL"])
    forget_clients()
    with pytest.raises(StoreError, match=f"^{URL}: the store does not answer as expected"):
        run_faces(FacesConfig(dir=work, **SETTINGS), _StopServer(3, other.stop))
    assert len(list(work.glob("faces_shards/*/*.json"))) == 1 and not (work / "faces.parquet").exists()
    line = _error("faces", str(work), "--detector", SETTINGS["detector"], "--image-size", "320", "--shard-size", "2")
    assert line.startswith(f"Error: {URL}: the store does not answer as expected (Could not connect to the endpoint")
    assert line.endswith("then run the same command again, which goes on from what is finished")
    monkeypatch.setenv("AWS_ENDPOINT_URL", server.environment["AWS_ENDPOINT_URL"])
    forget_clients()
    server.take_requests()
    run_faces(FacesConfig(dir=work, **SETTINGS))
    assert server.take_requests()["GET"] == N_PHOTOS - SETTINGS["shard_size"]
    for name in TABLES:
        assert (work / name).read_bytes() == (simulation / "local" / name).read_bytes(), name


def test_missing_bucket_missing_folder_and_refused_credentials_are_one_line(
    s3: S3FileSystem, simulation: Path, work: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parse = ("parse", str(simulation / "sim"), "--out", str(tmp_path / "other"), "--images")
    assert _error(*parse, "s3://fotos/emotic") == (
        "Error: s3://fotos/emotic: there is no bucket 'fotos'; check the URL, or create the bucket"
    )
    assert _error(*parse, "s3://photos/emotc").startswith("Error: s3://photos/emotc: no such folder, expected the one")
    shutil.rmtree(tmp_path / "other", ignore_errors=True)
    s3.rm(URL, recursive=True)
    assert f"Error: {URL}: 8 of 8 photos are missing, such as" in _error("faces", str(work))


def test_refused_credentials_name_the_bucket_and_write_nothing(
    s3: S3FileSystem, simulation: Path, work: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(moto_settings, "INITIAL_NO_AUTH_ACTION_COUNT", 0)  # from now on credentials are checked
        forget_clients()
        out = tmp_path / "other"
        line = _error("parse", str(simulation / "sim"), "--out", str(out), "--images", URL)
        assert line.startswith(f"Error: {URL}: access denied") and line.endswith("see docs/scale.md")
        assert not out.exists()
        assert _error("faces", str(work)).startswith(f"Error: {URL}: access denied")
        assert not (work / "faces.parquet").exists()
    forget_clients()


SHARDS = "s3://photos/shards"


def test_shards_in_a_store_serve_a_second_machine(
    s3: S3FileSystem, server: S3Server, work: Path, simulation: Path, tmp_path: Path
) -> None:
    config = FacesConfig(dir=work, shards=f"{SHARDS}/", **SETTINGS)
    with pytest.raises(KeyboardInterrupt):
        run_faces(config, _StopServer(3, _interrupt))
    names = sorted(path.rpartition("/")[2] for path in s3.find(SHARDS))
    assert names == ["00000.json", "00000.parquet"]  # of two photos each
    other = Path(shutil.copytree(work, tmp_path / "other"))
    server.take_requests()
    run_faces(config.replace(dir=other))
    assert server.take_requests()["PUT"] == 6
    for name in TABLES:
        assert (other / name).read_bytes() == (simulation / "local" / name).read_bytes(), name
    assert not (other / "faces_shards").exists()

    (table,) = [path for path in s3.find(SHARDS) if path.endswith("00002.parquet")]
    s3.pipe_file(table, s3.cat_file(table)[:-1])  # as another run might leave it that writes at the same time
    server.take_requests()
    run_faces(config)
    assert server.take_requests()["PUT"] == 2
    for name in TABLES:
        assert (work / name).read_bytes() == (simulation / "local" / name).read_bytes(), name

    faces_job.remove_shards(config.replace(margin=0.3))  # others
    assert len(s3.find(SHARDS)) == 8
    faces_job.remove_shards(config)
    assert s3.find(SHARDS) == []


def test_shard_that_another_run_replaces_while_it_is_merged_is_an_error(memory: MemoryFileSystem) -> None:
    shards = ShardObjects("memory://bucket/shards", faces_job._FacesSummary)
    summary = {"photo_digest": "a", "table_sha256": "b" * 64, "counts": {}, "unreadable": {}}
    shards.write_file(0, "parquet", b"of another run")
    shards.mark_done(0, json.dumps(summary))
    with pytest.raises(TableError, match=r"^memory://bucket/shards/00000\.parquet: changed while it was read; run"):
        faces_job._read_shard(shards, 0)


def test_shards_are_a_url() -> None:
    with pytest.raises(SettingsError, match="shards is 'here', expected a URL in an object store"):
        FacesConfig(dir="work", shards="here")


def _interrupt() -> None:
    raise KeyboardInterrupt


# Google Cloud Storage

GS_URL = "gs://photos/emotic"


@pytest.fixture(scope="module")
def gcs_client(simulation: Path) -> Iterator[Any]:
    """A client of an emulator of Google Cloud Storage, which has the photos of the simulation."""
    gcsfs = pytest.importorskip("gcsfs", reason="the package gcsfs is not installed: emoface[dev]")
    pytest.importorskip("gcp_storage_emulator", reason="gcp-storage-emulator is not installed: emoface[dev]")
    import gcs_server

    server = gcs_server.GcsServer()
    with pytest.MonkeyPatch.context() as patch:
        for name, value in server.environment.items():
            patch.setenv(name, value)
        patch.delenv("GOOGLE_APPLICATION_CREDENTIALS", raising=False)
        gcs_server.forget_clients()
        gcs_server.upload(simulation / "sim/emotic", GS_URL)
        yield gcsfs.GCSFileSystem(use_listings_cache=False)
    server.stop()
    gcs_server.forget_clients()


@pytest.fixture
def gcs(gcs_client: Any, simulation: Path) -> Iterator[Any]:
    """The client; the photos that a test has changed are put back."""
    import gcs_server

    yield gcs_client
    gcs_server.upload(simulation / "sim/emotic", GS_URL)


def test_google_cloud_gives_the_same_bytes_as_a_folder(
    gcs: Any, simulation: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("EMOFACE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(logging.getLogger(), "handlers", [])  # as in a program: pytest has handlers of its own
    work, shards = tmp_path / "work", "gs://photos/shards"
    run_parse(ParseConfig(emotic_root=simulation / "sim", out=work, images=GS_URL))
    run_faces(FacesConfig(dir=work, shards=shards, **SETTINGS))
    for name in TABLES:
        assert (work / name).read_bytes() == (simulation / "local" / name).read_bytes(), name
    assert not (work / "faces_shards").exists() and len(gcs.find(shards)) == N_PHOTOS  # two files of two photos each
    for ratios in ((40, 30, 30), (60, 20, 20)):  # the second upload replaces tables
        run_split(SplitConfig(dir=work, ratios=ratios))
        assert run_upload(UploadConfig(dir=work, url="gs://photos/set")).counts["files sent"] == 4
        manifest = read_manifest("gs://photos/set/manifest.json", check_sha256=True)
    assert manifest.photos == PhotoFolder(GS_URL) and not gcs.find("gs://photos/set/new")
    open_stream_cache(read_manifest(work / "manifest.json"), "train", "gs://photos/cache")
    monkeypatch.setattr(faces_job.PhotoFolder, "try_read", None)  # all crops are in the shared cache
    cache = open_stream_cache(manifest, "train", "gs://photos/cache")
    table = pq.read_table(work / "train.parquet").to_pylist()
    photo = read_photo_at(f"{GS_URL}/{table[0]['image']}")
    assert np.array_equal(cache.read_person(0).context, scale_square(photo, CACHE_SIZES["context"]))
    assert capfd.readouterr().err == ""  # gcsfs warns of the credentials that the emulator does not need


def test_changed_and_deleted_photos_of_google_cloud_make_their_shards_pending_again(
    gcs: Any, simulation: Path, tmp_path: Path
) -> None:
    work = tmp_path / "work"
    run_parse(ParseConfig(emotic_root=simulation / "sim", out=work, images=GS_URL))
    run_faces(FacesConfig(dir=work, **SETTINGS))
    images = [path.removeprefix("photos/emotic/") for path in gcs.find(GS_URL)]
    gcs.rm_file(f"{GS_URL}/{images[0]}")
    gcs.pipe_file(f"{GS_URL}/{images[1]}", b"no photo any more")
    record = run_faces(FacesConfig(dir=work, **SETTINGS))
    assert (record.counts["photos_missing"], record.counts["photos_unreadable"]) == (1, 1)
    assert list(record.info["unreadable_photos"]) == [images[1]]


@pytest.mark.parametrize("status", [HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN])
def test_google_cloud_that_refuses_or_has_no_such_bucket_is_one_line(
    gcs: Any, simulation: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, status: HTTPStatus
) -> None:
    import gcs_server

    parse = ("parse", str(simulation / "sim"), "--out", str(tmp_path / "other"), "--images")
    assert _error(*parse, "gs://fotos/emotic") == (
        "Error: gs://fotos/emotic: there is no bucket 'fotos'; check the URL, or create the bucket"
    )
    gcs_server.refuse(monkeypatch, status)
    gcs_server.forget_clients()
    line = _error(*parse, GS_URL)
    assert line.startswith(f"Error: {GS_URL}: access denied (") and line.endswith("see docs/scale.md")
    assert not (tmp_path / "other").exists()


# data sets


def _upload_tree(folder: Path, root: str) -> None:
    files = MemoryFileSystem()
    for path in folder.rglob("*"):
        if path.is_file() and "faces_shards" not in path.parts:
            files.pipe_file(f"{root}/{path.relative_to(folder).as_posix()}", path.read_bytes())


@pytest.fixture
def uploaded(
    simulation: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[Path, MemoryFileSystem]]:
    """A finished data set in a folder, and the same in the store that is at memory://data."""
    monkeypatch.setenv("EMOFACE_CACHE", str(tmp_path / "cache"))
    shutil.copytree(simulation / "local", tmp_path / "work")
    run_split(SplitConfig(dir=tmp_path / "work", ratios=(40, 30, 30), balance="weights"))
    files = MemoryFileSystem()
    _upload_tree(tmp_path / "work", "/data/work")
    yield tmp_path / "work", files
    files.rm("/data", recursive=True)


def test_data_set_is_copied_once_and_again_only_where_it_changed(uploaded: tuple[Path, MemoryFileSystem]) -> None:
    work, files = uploaded
    url = "memory://data/work/manifest.json"
    manifest = read_manifest(url, check_sha256=True)
    local = read_manifest(work / "manifest.json", check_sha256=True)
    assert manifest.splits == local.splits and manifest.path.read_bytes() == local.path.read_bytes()
    copied = manifest.path.parent
    assert {path.name for path in copied.iterdir() if path.suffix == ".parquet"} == {
        *(f"{split}.parquet" for split in ("train", "val", "test")),
        "sampling_weights.parquet",
    }
    times = {path: path.stat().st_mtime_ns for path in copied.glob("*.parquet")}
    (copied / "val.parquet").write_bytes(b"damaged")
    read_manifest(url, check_sha256=True)
    assert (copied / "val.parquet").read_bytes() == (work / "val.parquet").read_bytes()
    assert all(path.stat().st_mtime_ns == time for path, time in times.items() if path.name != "val.parquet")
    files.pipe_file("/data/work/pose.parquet", b"one")
    read_manifest(url)
    assert (copied / "pose.parquet").read_bytes() == b"one"
    files.rm("/data/work/pose.parquet")
    read_manifest(url)
    assert not (copied / "pose.parquet").exists()


def test_faults_of_a_data_set_in_a_store_are_named(uploaded: tuple[Path, MemoryFileSystem]) -> None:
    work, files = uploaded
    with pytest.raises(TableError, match=r"memory://data/work/other\.json: no such object"):
        read_manifest("memory://data/work/other.json")
    url = "memory://data/work/manifest.json"
    files.pipe_file("/data/work/test.parquet", b"other")
    with pytest.raises(
        TableError, match=r"memory://data/work/test\.parquet: sha256 is .*, the manifest beside it says"
    ):
        read_manifest(url)
    files.rm("/data/work/test.parquet")
    with pytest.raises(TableError, match=r"memory://data/work/test\.parquet: no such object, but the manifest"):
        read_manifest(url)
    card = json.loads((work / "manifest.json").read_text(encoding="utf-8"))
    card["splits"]["val"]["file"] = "../../val.parquet"
    files.pipe_file("/data/work/manifest.json", json.dumps(card).encode())
    with pytest.raises(TableError, match=r"the file of a split is '\.\./\.\./val\.parquet'"):
        read_manifest(url)
    files.pipe_file("/data/work/manifest.json", b"{}")
    with pytest.raises(TableError, match=r"manifest\.json: not a manifest \('splits'\)"):
        read_manifest(url)


SET_URL = "s3://photos/sets/mine"
SMALL: dict[str, Any] = {"device": "cpu", "person_size": 32, "context_size": 32, "pretrained": "none"}


def test_data_set_is_uploaded_once_and_a_model_is_trained_and_evaluated_on_it(
    uploaded: tuple[Path, MemoryFileSystem],
    s3: S3FileSystem,
    server: S3Server,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    work, _ = uploaded
    config = UploadConfig(dir=work, url=f"{SET_URL}/", images=URL)
    record = run_upload(config)
    tables = ("train.parquet", "val.parquet", "test.parquet", "sampling_weights.parquet")
    names = sorted(path.removeprefix("photos/sets/mine/") for path in s3.find(SET_URL))
    assert names == sorted([*tables, "manifest.json", "uploaded.json"])
    assert all(s3.cat_file(f"{SET_URL}/{name}") == (work / name).read_bytes() for name in tables)
    assert record.counts["files"] == record.counts["files sent"] == 5
    assert record.counts["bytes sent"] == sum(s3.size(f"{SET_URL}/{name}") for name in (*tables, "manifest.json"))
    server.take_requests()
    assert run_upload(config).counts["files sent"] == 0 and server.take_requests()["PUT"] == 0
    s3.pipe_file(f"{SET_URL}/val.parquet", b"damaged")
    with pytest.raises(TableError, match=r"/val\.parquet: sha256 is .*; upload both again with 'emoface upload'"):
        read_manifest(f"{SET_URL}/manifest.json")
    assert run_upload(config).counts["files sent"] == 1
    url = f"{SET_URL}/manifest.json"
    recipe = {"epochs": 1, "batch_size": 2}
    shared = "s3://photos/cache"
    run_train(TrainConfig(manifest=url, model="task2", recipe=recipe, out=tmp_path / "run", cache=shared, **SMALL))
    run = read_run(tmp_path / "run")
    assert run.manifest_path == url and read_manifest(url, check_sha256=True).photos.root == URL
    monkeypatch.setenv("EMOFACE_CACHE", str(tmp_path / "cache of another machine"))
    monkeypatch.delattr(UrlStore, "read")  # which has all crops of val from the shared cache
    record = run_evaluate(EvaluateConfig(run=tmp_path / "run", split="val", device="cpu", draws=5, cache=shared))
    assert record.counts["evaluated"] == read_manifest(url).splits["val"].rows


class _Killed(Exception):
    pass


def _kill_at(patch: pytest.MonkeyPatch, number: int) -> None:
    """Lets the writing of an object with this number, counted from 0, raise an error instead."""
    counted = itertools.count()

    def wrap(name: str) -> None:
        write = getattr(ObjectFolder, name)

        def write_or_die(*arguments: Any) -> None:
            if next(counted) >= number:
                raise _Killed
            write(*arguments)

        patch.setattr(ObjectFolder, name, write_or_die)

    for name in ("put", "put_file", "copy", "remove"):
        wrap(name)


def _split_anew(work: Path) -> Path:
    """A copy of a data set that is split in another way, and has no file of weights."""
    other = work.with_name("other")
    shutil.copytree(work, other, ignore=shutil.ignore_patterns("faces_shards"))
    run_split(SplitConfig(dir=other, ratios=(50, 30, 20), seed=5))
    return other


def _hashes(manifest: Manifest) -> dict[str, str]:
    return {name: one.sha256 for name, one in manifest.splits.items()}


def test_upload_that_is_killed_anywhere_leaves_one_whole_data_set_and_goes_on(
    uploaded: tuple[Path, MemoryFileSystem], monkeypatch: pytest.MonkeyPatch
) -> None:
    work, files = uploaded
    url = "memory://data/set"
    other = _split_anew(work)
    old, new = (_hashes(read_manifest(folder / "manifest.json")) for folder in (work, other))
    assert all(old[split] != new[split] for split in old)
    run_upload(UploadConfig(dir=work, url=url))
    before = {name: files.cat_file(name) for name in files.find("/data/set")}
    found = []
    for number in itertools.count():
        files.rm("/data/set", recursive=True)
        files.pipe(before)
        with pytest.MonkeyPatch.context() as patch:
            _kill_at(patch, number)
            try:
                run_upload(UploadConfig(dir=other, url=url))
                break
            except _Killed:
                pass
        found.append(_hashes(read_manifest(f"{url}/manifest.json", check_sha256=True)))
        if number % 4 == 3:
            run_upload(UploadConfig(dir=other, url=url))
            assert _hashes(read_manifest(f"{url}/manifest.json", check_sha256=True)) == new
            assert len(files.find("/data/set")) == 5  # nothing of the upload before is left
    n_old = found.count(old)
    assert n_old >= 6 and len(found) - n_old >= 6 and found == [old] * n_old + [new] * (len(found) - n_old)
    assert len(files.find("/data/set")) == 5


def test_upload_that_was_killed_does_not_send_a_file_twice(
    uploaded: tuple[Path, MemoryFileSystem], monkeypatch: pytest.MonkeyPatch
) -> None:
    work, _ = uploaded
    config = UploadConfig(dir=work, url="memory://data/set")
    with monkeypatch.context() as patch:
        _kill_at(patch, 4)  # two files, and after each the list of them
        with pytest.raises(_Killed):
            run_upload(config)
    with pytest.raises(TableError, match=r"set/manifest\.json: no such object; upload the folder"):
        read_manifest("memory://data/set/manifest.json")
    assert run_upload(config).counts["files sent"] == 3


def test_reader_that_has_the_manifest_of_before_starts_again(
    uploaded: tuple[Path, MemoryFileSystem], monkeypatch: pytest.MonkeyPatch
) -> None:
    work, _ = uploaded
    other = _split_anew(work)
    run_upload(UploadConfig(dir=work, url="memory://data/set"))
    fetch = mirror._fetch_tables_of

    def replace_first(*arguments: Any) -> None:
        monkeypatch.setattr(mirror, "_fetch_tables_of", fetch)
        run_upload(UploadConfig(dir=other, url="memory://data/set"))
        fetch(*arguments)

    monkeypatch.setattr(mirror, "_fetch_tables_of", replace_first)
    manifest = read_manifest("memory://data/set/manifest.json", check_sha256=True)
    assert _hashes(manifest) == _hashes(read_manifest(other / "manifest.json"))


def test_upload_that_another_one_disturbs_is_an_error(
    uploaded: tuple[Path, MemoryFileSystem], monkeypatch: pytest.MonkeyPatch
) -> None:
    work, files = uploaded
    other = _split_anew(work)
    run_upload(UploadConfig(dir=work, url="memory://data/set"))
    copy = ObjectFolder.copy

    def copy_late(*arguments: Any) -> None:
        files.pipe_file("/data/set/manifest.json", b"of another upload")
        copy(*arguments)

    monkeypatch.setattr(ObjectFolder, "copy", copy_late)
    with pytest.raises(UploadError, match=r"^memory://data/set: changed by somebody else during the upload; make sure"):
        run_upload(UploadConfig(dir=other, url="memory://data/set"))


def test_upload_counts_bytes_removes_old_inputs_and_notes_photos_of_this_machine(
    uploaded: tuple[Path, MemoryFileSystem], simulation: Path, tmp_path: Path
) -> None:
    work, files = uploaded
    (tmp_path / "sim").symlink_to(simulation / "sim")
    (work / "pose.parquet").write_bytes(b"pose")
    files.pipe_file("/data/set/depth.parquet", b"of a data set before")
    progress = Watching()
    record = run_upload(UploadConfig(dir=work, url="memory://data/set"), progress)
    photos = str((simulation / "sim/emotic").resolve())
    assert record.counts["image root"] == photos
    assert json.loads(files.cat_file("/data/set/manifest.json"))["image_root"] == photos
    assert len(progress.notes) == 1 and f"the photos are in {photos} on this machine" in progress.notes[0]
    manifest_bytes = files.size("/data/set/manifest.json")
    assert progress.totals == {"upload": progress.n_steps}
    assert progress.n_steps == record.counts["bytes sent"] - manifest_bytes > 0
    assert files.cat_file("/data/set/pose.parquet") == b"pose" and not files.exists("/data/set/depth.parquet")
    files.pipe_file("/data/sim/emotic/mscoco/images/a.jpg", _jpeg())
    progress = Watching()
    run_upload(UploadConfig(dir=work, url="memory://data/set", images="memory://data/sim/emotic"), progress)
    assert not progress.notes and read_manifest("memory://data/set/manifest.json").image_root.startswith("memory://")


def test_faults_of_an_upload_are_one_line(
    uploaded: tuple[Path, MemoryFileSystem], s3: S3FileSystem, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    work, _ = uploaded
    assert _error("upload", str(work), "s3://fotos/set").startswith("Error: s3://fotos/set: there is no bucket 'fotos'")
    assert _error("upload", str(work), str(tmp_path / "copy")) == (
        f"Error: url is '{tmp_path / 'copy'}', expected the URL of a folder in an object store, such as "
        "s3://bucket/emotic_face"
    )
    assert "manifest.json: no such file; write it with 'emoface split DIR'" in _error("upload", str(tmp_path), SET_URL)
    with monkeypatch.context() as patch:
        patch.setattr(moto_settings, "INITIAL_NO_AUTH_ACTION_COUNT", 0)  # from now on credentials are checked
        forget_clients()
        assert _error("upload", str(work), "s3://photos/refused").startswith(
            "Error: s3://photos/refused: access denied"
        )
    forget_clients()
    assert not s3.exists("s3://photos/refused")
