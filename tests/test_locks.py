"""Locks of folders, held by real processes: waiting, refusing, killed holders, trainings and stream caches."""

from __future__ import annotations

import json
import os
import pickle
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from json_damage import damage
from mter_data import write_photos_and_tables

from emoface.datasets import stream_cache
from emoface.datasets.manifest import read_manifest
from emoface.datasets.stream_cache import open_stream_cache
from emoface.errors import LockedError
from emoface.progress import Silent
from emoface.storage.files import atomic_path
from emoface.storage.locks import _read_owner, lock_folder, locked
from emoface.storage.settings import Folder, Settings

HOLD = """
import sys, time
from pathlib import Path
from emoface.storage.files import atomic_path
from emoface.storage.locks import lock_folder

folder, name, half = Path(sys.argv[1]), sys.argv[2], sys.argv[3:]
with lock_folder(folder, name=name):
    for path in half:
        atomic_path(Path(path)).__enter__().write_text("half")
    print("held", flush=True)
    sys.stdin.readline()
    (folder / "order.txt").open("a").write("first\\n")
"""


class Notes(Silent):
    def __init__(self) -> None:
        self.lines: list[str] = []

    def note(self, text: str) -> None:
        self.lines.append(text)


def _hold(folder: Path, name: str = "emoface", *half: Path) -> subprocess.Popen[str]:
    """Starts a process that holds the lock of a folder until a line is written to it."""
    command = [sys.executable, "-c", HOLD, str(folder), name, *map(str, half)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdout.readline() == "held\n"
    return process


def _let_go(process: subprocess.Popen[str]) -> None:
    process.communicate("\n", timeout=30)
    assert process.returncode == 0


def test_second_process_is_refused_and_told_who_holds_the_folder(tmp_path: Path) -> None:
    holder = _hold(tmp_path)
    with pytest.raises(LockedError) as refused, lock_folder(tmp_path, waits=False):
        raise AssertionError("two holders")
    owner = json.loads((tmp_path / ".emoface.lock.json").read_text())
    assert owner["process"] == holder.pid and owner["host"] == os.uname().nodename
    expected = rf"process {holder.pid} on {re.escape(owner['host'])} since 20\d\d-\d\d-\d\dT\S+ \(-c {tmp_path}"
    assert re.search(expected, str(refused.value)), refused.value
    assert str(refused.value).endswith("; wait until it ends, or choose another folder")
    _let_go(holder)
    with lock_folder(tmp_path, waits=False):
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["order.txt"]


def test_second_process_waits_and_says_for_whom(tmp_path: Path) -> None:
    holder, notes = _hold(tmp_path), Notes()

    class LettingGo(Notes):
        def note(self, text: str) -> None:
            notes.note(text)
            assert holder.stdin is not None
            holder.stdin.write("\n")
            holder.stdin.flush()

    with lock_folder(tmp_path, LettingGo()):
        (tmp_path / "order.txt").open("a").write("second\n")
    holder.communicate(timeout=30)
    assert len(notes.lines) == 1 and f"in use by process {holder.pid} on" in notes.lines[0]
    assert notes.lines[0].endswith("waiting until it ends")
    assert (tmp_path / "order.txt").read_text() == "first\nsecond\n"


def test_lock_of_a_killed_process_holds_nobody_up_and_its_half_written_files_go(tmp_path: Path) -> None:
    other = tmp_path / "below" / "other.txt"
    holder = _hold(tmp_path, "emoface", tmp_path / "table.parquet", tmp_path / "below" / "chart.png")
    with atomic_path(other) as of_this_process:
        of_this_process.write_text("whole")
        holder.kill()
        holder.wait(30)
        assert len(list(tmp_path.rglob(f".*-{holder.pid}.*"))) == 2
        started = time.monotonic()
        with lock_folder(tmp_path, waits=False):
            assert not list(tmp_path.rglob(f".*-{holder.pid}.*"))
        assert time.monotonic() - started < 5
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [other]


def test_damaged_owner_file_names_nobody_and_removes_nothing(tmp_path: Path) -> None:
    owner, file = tmp_path / ".emoface.lock.json", tmp_path / ".other-abcdefgh-12.txt"
    whole = json.dumps({"process": 2**22 + 1, "host": "h", "command": "c", "since": "s"})
    file.write_text("kept")
    processes = [json.dumps({**json.loads(whole), "process": one}) for one in (".*", "12", -1, 0, 10**30, 12.0, True)]
    for content in [content for _, content in damage(whole)] + [one.encode() for one in processes]:
        owner.write_bytes(content)
        assert _read_owner(owner) is None, content
        with lock_folder(tmp_path, waits=False):
            assert file.read_text() == "kept"
    owner.write_text(whole)
    found = _read_owner(owner)
    assert found is not None and str(found) == f"process {2**22 + 1} on h since s (c)"


def test_thread_that_holds_a_folder_passes_and_nothing_is_left(tmp_path: Path) -> None:
    folder = tmp_path / "a" / "b"
    with lock_folder(folder, waits=False):
        with lock_folder(tmp_path / "a" / ".." / "a" / "b", waits=False):
            assert (folder / ".emoface.lock").is_file()
        assert (folder / ".emoface.lock").is_file()
    assert not list(tmp_path.iterdir())


def test_block_that_fails_releases_the_lock_and_keeps_what_was_written(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), lock_folder(tmp_path / "new"):
        (tmp_path / "new" / "kept.txt").write_text("kept")
        raise ZeroDivisionError
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["kept.txt"]


def test_two_names_in_one_folder_are_two_locks(tmp_path: Path) -> None:
    holder = _hold(tmp_path, "val")
    with lock_folder(tmp_path, name="train", waits=False):
        pass
    _let_go(holder)


def test_many_processes_pass_one_after_the_other(tmp_path: Path) -> None:
    """Each adds one to a number in a file that all of them read and write; none is lost, though the lock file goes."""
    code = """
import sys
from pathlib import Path
from emoface.storage.locks import lock_folder
number = Path(sys.argv[1]) / "number.txt"
for _ in range(40):
    with lock_folder(Path(sys.argv[1])):
        number.write_text(str(int(number.read_text()) + 1))
"""
    (tmp_path / "number.txt").write_text("0")
    processes = [subprocess.Popen([sys.executable, "-c", code, str(tmp_path)]) for _ in range(3)]
    assert [process.wait(60) for process in processes] == [0, 0, 0]
    assert (tmp_path / "number.txt").read_text() == "120"
    assert [path.name for path in tmp_path.iterdir()] == ["number.txt"]


def test_decorated_job_holds_its_folder(tmp_path: Path) -> None:
    class WriteConfig(Settings):
        out: Folder

    @locked("out")
    def run_write(config: WriteConfig, progress: Silent) -> bool:
        return (config.out / ".emoface.lock").is_file()

    assert run_write(WriteConfig(out=tmp_path / "out"), progress=Silent())
    assert not (tmp_path / "out").exists()


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_photos_and_tables(tmp_path_factory.mktemp("data"), 16)


def _emoface(*arguments: str | Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "emoface", *map(str, arguments)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)


def _train(manifest: Path, out: Path) -> subprocess.Popen[str]:
    small = ("--batch-size", "8", "--epochs", "1", "--person-size", "32", "--context-size", "32", "--workers", "0")
    same = ("--manifest", manifest, "--model", "task2", "--pretrained", "none", "--device", "cpu")
    return _emoface("train", *same, *small, "--out", out)


def test_second_training_of_a_run_is_refused_in_one_line(manifest: Path, tmp_path: Path) -> None:
    holder = _hold(tmp_path / "run")
    second = _train(manifest, tmp_path / "run")
    _, errors = second.communicate(timeout=120)
    assert second.returncode == 1
    assert errors.splitlines()[-1].startswith(f"Error: {tmp_path / 'run'}: in use by process {holder.pid} on ")
    assert "Traceback" not in errors and not (tmp_path / "run" / "run.json").exists()
    _let_go(holder)


OPEN_CACHE = """
import sys
from pathlib import Path
from emoface.datasets import stream_cache
from emoface.datasets.manifest import read_manifest
from emoface.datasets.stream_cache import open_stream_cache
from emoface.progress import Silent

class Lines(Silent):
    def start(self, description, total):
        print(description, flush=True)

    def note(self, text):
        print(text, flush=True)

print(len(open_stream_cache(read_manifest(Path(sys.argv[1])), "train", progress=Lines())))
"""


def test_two_processes_on_one_stream_cache_fill_it_once(manifest: Path, tmp_path: Path) -> None:
    """Both start while a third process holds the lock and say so; then one fills the cache and the other reuses it."""
    folder = manifest.parent / "stream_cache"
    holder = _hold(folder, _cache_name(manifest, "train"))
    command = [sys.executable, "-c", OPEN_CACHE, str(manifest)]
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    for process in processes:
        assert process.stdout is not None
        assert f"stream_cache: in use by process {holder.pid} on" in process.stdout.readline()
    _let_go(holder)
    printed = [process.communicate(timeout=120)[0] for process in processes]
    assert sorted(printed) == ["16\n", "pack train\n16\n"]
    assert not list(folder.rglob(".*"))


def _cache_name(manifest: Path, split: str) -> str:
    """The name of a split's lock, which is the name of its folder without the key."""
    assert len(open_stream_cache(read_manifest(manifest), split, manifest.parent / "other_cache"))
    (folder,) = (manifest.parent / "other_cache").glob(f"{split}-*")
    return folder.name.rpartition("-")[0]


READ = """
import hashlib, sys
from pathlib import Path
from emoface.datasets import stream_cache
from emoface.datasets.manifest import read_manifest
from emoface.datasets.stream_cache import CACHE_SIZES, open_stream_cache

cache = open_stream_cache(read_manifest(Path(sys.argv[1])), "train")
print("opened", flush=True)
sys.stdin.readline()
digest = hashlib.sha256()
for position in range(len(cache)):
    for stream in CACHE_SIZES:
        crop = cache.read(position, stream)
        digest.update(b"none" if crop is None else crop.tobytes())
print(digest.hexdigest(), flush=True)
"""


def test_stream_cache_of_other_code_stays_while_a_process_reads_it(
    manifest: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A training maps its arrays when it needs them, so all of them must stay until it ends."""
    command = [sys.executable, "-c", READ, str(manifest)]
    undisturbed = subprocess.run(command, input="\n", capture_output=True, text=True, check=True).stdout.split()
    reader = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert reader.stdout is not None and reader.stdout.readline() == "opened\n"
    described = read_manifest(manifest)
    (own,) = (manifest.parent / "stream_cache").glob("train-*")
    monkeypatch.setattr(stream_cache, "_cache_key", lambda *_: "other-code")
    notes = Notes()
    open_stream_cache(described, "train", progress=notes)
    assert notes.lines == [f"{own}: of other data or code, left because a running process reads it"]
    assert reader.communicate("\n", timeout=60)[0] == undisturbed[1] + "\n" and reader.returncode == 0
    monkeypatch.undo()
    again, of_copy = open_stream_cache(described, "train"), Notes()
    copy = pickle.loads(pickle.dumps(again))
    del again
    monkeypatch.setattr(stream_cache, "_cache_key", lambda *_: "third-code")
    open_stream_cache(described, "train", progress=of_copy)
    assert len(of_copy.lines) == 1 and own.is_dir() and copy.read(0, "body") is not None
    del copy
    open_stream_cache(described, "train")
    assert [path.name.endswith("third-code") for path in own.parent.glob("train-*")] == [True]


def test_interrupt_ends_the_wait(tmp_path: Path) -> None:
    holder = _hold(tmp_path / "photos")
    waiting = _emoface("simulate", tmp_path / "photos", "--images", "1")
    assert waiting.stderr is not None
    assert f"in use by process {holder.pid} on" in waiting.stderr.readline()
    waiting.send_signal(signal.SIGINT)
    _, stderr = waiting.communicate(timeout=30)
    assert waiting.returncode == 130 and stderr.splitlines()[-1].startswith(
        "Interrupted: the finished shards of photos"
    )
    _let_go(holder)
