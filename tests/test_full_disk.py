"""Disks that are full, in every stage: one Error line that names the file, nothing half-written, and going on works.

A limit on the size of files (``RLIMIT_FSIZE``) takes the place of a full disk.
"""

from __future__ import annotations

import errno
import os
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from mter_data import write_photos_and_tables
from run_data import write_finished_run

from emoface.datasets.manifest import read_manifest
from emoface.datasets.stream_cache import open_stream_cache
from emoface.errors import EmofaceError
from emoface.learning.checkpoints import load_checkpoint, save_checkpoint
from emoface.mter.runs import read_weights, write_weights
from emoface.storage.files import atomic_path, naming_path, write_bytes

BIG = np.zeros(100_000, np.float32)
KIB = 1024


def _write_array(path: Path) -> None:
    with atomic_path(path) as temporary:
        np.save(temporary, BIG)


def _write_table(path: Path) -> None:
    with atomic_path(path) as temporary:
        pq.write_table(pa.table({"a": np.random.default_rng(0).random(100_000)}), temporary)


WRITERS: dict[str, Callable[[Path], None]] = {
    "a.bin": lambda path: write_bytes(path, bytes(400_000)),
    "a.npy": _write_array,
    "a.parquet": _write_table,
    "a.pt": lambda path: save_checkpoint(path, {"a": torch.from_numpy(BIG)}),
    "a.safetensors": lambda path: write_weights(path, torch.nn.Linear(1000, 100)),
}


@pytest.mark.parametrize("name", WRITERS)
def test_every_writer_names_the_file_and_keeps_the_old_one(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_text("old")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (40 * KIB, before[1]))
    try:
        with pytest.raises(OSError) as full:
            WRITERS[name](path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert full.value.filename == str(path)
    assert full.value.errno in (errno.EFBIG, errno.EIO)
    assert [(one.name, one.read_text()) for one in tmp_path.iterdir()] == [(name, "old")]
    WRITERS[name](path)
    assert path.stat().st_size > 40 * KIB


def test_weights_and_checkpoints_are_read_back(tmp_path: Path) -> None:
    network = torch.nn.Linear(3, 2)
    write_weights(tmp_path / "a.safetensors", network)
    save_checkpoint(tmp_path / "a.pt", {"a": network.state_dict(), "n": 3})
    assert torch.equal(read_weights(tmp_path / "a.safetensors")["weight"], network.weight)
    assert torch.equal(load_checkpoint(tmp_path / "a.pt", ("a", "n"))["a"]["bias"], network.bias)


def test_only_errors_of_the_written_file_are_renamed(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError) as other, atomic_path(tmp_path / "a.txt"):
        (tmp_path / "source.txt").read_text()
    assert other.value.filename == str(tmp_path / "source.txt")
    with pytest.raises(RuntimeError, match="unexpected pos"), naming_path(tmp_path / "a.txt"):
        raise RuntimeError("unexpected pos")
    with pytest.raises(FileExistsError) as not_a_folder:
        (tmp_path / "file").write_text("")
        write_bytes(tmp_path / "file" / "a.txt", b"")
    assert str(not_a_folder.value.filename) == str(tmp_path / "file")

    class DownloadError(OSError):
        pass

    with pytest.raises(DownloadError), atomic_path(tmp_path / "a.txt"):
        raise DownloadError("no route to host")


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_photos_and_tables(tmp_path_factory.mktemp("data"), 16)


def _emoface(*arguments: Any, limit: int | None = None) -> subprocess.CompletedProcess[str]:
    """Runs a command that may not write files of more than ``limit`` bytes."""

    def set_limit() -> None:
        if limit is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    return subprocess.run(
        [sys.executable, "-m", "emoface", *map(str, arguments)],
        capture_output=True,
        text=True,
        preexec_fn=set_limit,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        check=False,
    )


def test_training_names_the_full_disk_and_goes_on(manifest: Path, tmp_path: Path) -> None:
    small = ("--batch-size", "8", "--epochs", "1", "--person-size", "32", "--context-size", "32", "--workers", "0")
    same = ("--manifest", manifest, "--model", "task1", "--pretrained", "none", "--device", "cpu")
    command = ("train", *same, *small, "--out", tmp_path / "run")
    full = _emoface(*command, limit=2 * KIB * KIB)
    assert full.returncode == 1
    last = full.stderr.splitlines()[-1]
    assert last == (
        f"Error: {tmp_path / 'run' / 'best.safetensors'}: File too large; allow this process larger files (ulimit -f) "
        "and run the same command again, which goes on from what is finished"
    )
    assert "Traceback" not in full.stderr
    assert not list(tmp_path.rglob(".*"))
    again = _emoface(*command)
    assert again.returncode == 0, again.stderr


@pytest.mark.parametrize(
    ("command", "limit", "name"),
    [
        (["split"], 1500, "test.parquet"),  # the last of three tables that are written together
        (["report"], 20 * KIB, "report/"),
    ],
)
def test_stages_name_the_file(manifest: Path, command: list[str], limit: int, name: str) -> None:
    before = {path.name: path.read_bytes() for path in manifest.parent.glob("*.parquet")}
    full = _emoface(*command, manifest.parent, limit=limit)
    assert full.returncode == 1
    assert full.stderr.splitlines()[-1].startswith(f"Error: {manifest.parent / name}"), full.stderr
    assert "File too large" in full.stderr and "Traceback" not in full.stderr
    assert {path.name: path.read_bytes() for path in manifest.parent.glob("*.parquet")} == before
    assert not list(manifest.parent.rglob(".*"))
    assert _emoface(*command, manifest.parent).returncode == 0


def test_error_line_says_what_to_do() -> None:
    from emoface.cli.console import _error_line

    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "work/faces.parquet")
    assert _error_line(full) == (
        "work/faces.parquet: No space left on device; make room on the disk and run the same command again, which goes "
        "on from what is finished"
    )
    assert _error_line(PermissionError(errno.EACCES, "Permission denied", "a.csv")).startswith(
        "a.csv: Permission denied; check the permissions"
    )
    assert _error_line(EmofaceError("two\nlines")) == "two lines"


@pytest.mark.parametrize(("limit", "name"), [(3 * KIB, "eval/test/"), (64 * KIB, "eval/test/")])
def test_evaluation_names_the_file_and_goes_on(manifest: Path, tmp_path: Path, limit: int, name: str) -> None:
    run = write_finished_run(tmp_path / "run", manifest, "task2")
    open_stream_cache(read_manifest(manifest), "test")  # its shards are larger than the limit
    full = _emoface("evaluate", run, "--draws", "5", "--device", "cpu", limit=limit)
    assert full.returncode == 1
    assert full.stderr.splitlines()[-1].startswith(f"Error: {run / name}"), full.stderr
    assert "File too large" in full.stderr and "Traceback" not in full.stderr
    assert not list(tmp_path.rglob(".*")) and not (run / "eval" / "test" / "records").exists()
    again = _emoface("evaluate", run, "--draws", "5", "--device", "cpu")
    assert again.returncode == 0, again.stderr
