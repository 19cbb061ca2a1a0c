"""A stream cache that machines share by an object store: fetched instead of made, and never trusted if damaged."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from mter_data import write_photos_and_tables
from watching import Watching

from emoface.cli import main
from emoface.datasets import stream_cache
from emoface.datasets.manifest import Manifest, read_manifest
from emoface.datasets.stream_cache import StreamCache, open_stream_cache
from emoface.errors import SettingsError, StoreError
from emoface.jobs.train import TrainConfig
from emoface.storage.files import file_sha256
from emoface.storage.objects import ObjectFolder
from emoface.storage.photo_stores import UrlStore

fsspec = pytest.importorskip("fsspec", reason="the package fsspec is not installed: emoface[s3]")

PHOTOS = "memory://data/emotic"
CACHE = "memory://data/cache"
N_SHARDS = 4


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A store with the photos; in ``work`` beside them are the tables, four photos of which are of train."""
    monkeypatch.setattr(stream_cache, "_PHOTOS_PER_SHARD", 1)
    files = fsspec.filesystem("memory")
    files.store.clear()
    work = write_photos_and_tables(tmp_path, 8).parent
    (root,) = [path.parents[1] for path in tmp_path.rglob("framesdb/images")]
    for path in root.rglob("*.jpg"):
        files.pipe_file(f"/data/emotic/{path.relative_to(root).as_posix()}", path.read_bytes())
    shutil.copytree(work, tmp_path / "tables", ignore=shutil.ignore_patterns("framesdb"))
    yield files
    files.store.clear()


def _machine(tmp_path: Path, name: str) -> Manifest:
    """The data set on another machine, which has no cache."""
    shutil.copytree(tmp_path / "tables", tmp_path / name)
    return read_manifest(tmp_path / name / "manifest.json", images=PHOTOS)


def _tree(manifest: Manifest) -> dict[str, str]:
    folder = manifest.path.parent / "stream_cache"
    return {path.name: file_sha256(path) for path in folder.rglob("0*")}


def _assert_same(cache: StreamCache, other: StreamCache) -> None:
    assert cache.counts == other.counts
    for position in range(len(other)):
        for stream in ("face", "body", "context"):
            assert np.array_equal(cache.read(position, stream), other.read(position, stream))


def _refuse(*_: object) -> bytes:
    raise AssertionError("a photo was read")


def test_second_machine_reads_no_photo_and_has_the_same_bytes(
    store: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, alone, second = (_machine(tmp_path, name) for name in ("first", "alone", "second"))
    filled = open_stream_cache(first, "train", CACHE)
    (folder,) = store.ls("/data/cache", detail=False)
    assert folder.rpartition("/")[2].startswith("train-")
    assert len(store.find("/data/cache")) == 4 * N_SHARDS  # three arrays and a summary each
    open_stream_cache(alone, "train")
    assert _tree(first) == _tree(alone) and len(_tree(first)) == 4 * N_SHARDS
    monkeypatch.setattr(UrlStore, "read", _refuse)
    watched = Watching()
    _assert_same(open_stream_cache(second, "train", CACHE, watched), filled)
    assert _tree(second) == _tree(first) and watched.totals == {"fetch train": 4} and not watched.notes
    monkeypatch.setattr(ObjectFolder, "fetch_file", _refuse)
    monkeypatch.setattr(ObjectFolder, "put_file", _refuse)
    _assert_same(open_stream_cache(second, "train", CACHE), filled)  # nothing moves once it is there


@pytest.mark.parametrize("damage", ["cut", "gone", "summary", "summary of others"])
def test_damaged_copy_is_made_again_and_replaced(store: Any, tmp_path: Path, damage: str) -> None:
    first, second = (_machine(tmp_path, name) for name in ("first", "second"))
    filled = open_stream_cache(first, "train", CACHE)
    whole = {name: store.cat_file(name) for name in store.find("/data/cache")}
    (body,) = [name for name in whole if name.endswith("00002.body.npy")]
    summary = body.replace("body.npy", "json")
    if damage == "cut":
        store.pipe_file(body, whole[body][:-1] + b"x")
    elif damage == "gone":
        store.rm_file(body)
    else:
        store.pipe_file(summary, b'{"sha256": {}, "summary": {}}' if damage == "summary of others" else b"{")
    watched = Watching()
    _assert_same(open_stream_cache(second, "train", CACHE, watched), filled)
    assert watched.totals == {"fetch train": 4, "pack train": 1}
    assert _tree(second) == _tree(first)
    assert {name: store.cat_file(name) for name in store.find("/data/cache")} == whole
    place = f"{CACHE}/{body.removeprefix('/data/cache/')}: damaged or replaced by another run; made again"
    assert watched.notes == ([place] if damage == "cut" else [])


def test_changed_photo_makes_its_shard_again_and_replaces_the_copy(store: Any, tmp_path: Path) -> None:
    open_stream_cache(_machine(tmp_path, "first"), "train", CACHE)
    store.pipe_file("/data/emotic/framesdb/images/000.jpg", store.cat_file("/data/emotic/framesdb/images/001.jpg"))
    watched = Watching()
    changed = open_stream_cache(_machine(tmp_path, "second"), "train", CACHE, watched)
    assert watched.totals == {"fetch train": 4, "pack train": 1}
    watched = Watching()
    _assert_same(open_stream_cache(_machine(tmp_path, "third"), "train", CACHE, watched), changed)
    assert watched.totals == {"fetch train": 4}


def test_cache_that_was_made_alone_or_only_partly_put_is_put_later(
    store: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest = _machine(tmp_path, "first")
    open_stream_cache(manifest, "train")
    put = ObjectFolder.put_file

    def put_some(folder: ObjectFolder, name: str, path: Path) -> None:
        if name.startswith("00002.context"):
            raise StoreError("the network is gone")
        put(folder, name, path)

    with monkeypatch.context() as patch:
        patch.setattr(ObjectFolder, "put_file", put_some)
        with pytest.raises(StoreError, match="the network is gone"):
            open_stream_cache(manifest, "train", CACHE)
    assert sum(name.endswith(".json") for name in store.find("/data/cache")) == 2
    open_stream_cache(manifest, "train", CACHE)
    assert sum(name.endswith(".json") for name in store.find("/data/cache")) == N_SHARDS


def test_two_machines_at_once_have_the_same_bytes(store: Any, tmp_path: Path) -> None:
    machines = [_machine(tmp_path, name) for name in ("first", "second")]
    with ThreadPoolExecutor(2) as pool:
        caches = list(pool.map(lambda one: open_stream_cache(one, "train", CACHE), machines))
    _assert_same(caches[0], caches[1])
    assert _tree(machines[0]) == _tree(machines[1])
    watched = Watching()
    open_stream_cache(_machine(tmp_path, "third"), "train", CACHE, watched)
    assert watched.totals == {"fetch train": 4}


def test_faults_of_the_store_are_one_line(store: Any, tmp_path: Path) -> None:
    words = ["evaluate", str(tmp_path), "--cache"]
    result = CliRunner().invoke(main, [*words, "s3:/bucket/cache"])
    assert result.exit_code == 1 and "a URL as a path has lost a slash" in result.stderr
    with pytest.raises(SettingsError, match=r"^zz://: no such kind of store; expected s3://, gs://"):
        open_stream_cache(_machine(tmp_path, "first"), "train", "zz://cache")
    config = TrainConfig(manifest="m.json", model="task2", out="run", cache=f"{CACHE}/")
    assert config.cache == CACHE and config.to_json()["cache"] == CACHE
