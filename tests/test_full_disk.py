"""Disks that are full, in every stage: one Error line that names the file, nothing half-written, and going on works.

A limit on the size of files (``RLIMIT_FSIZE``) takes the place of a full disk.
"""

from __future__ import annotations

import ctypes
import errno
import os
import resource
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from click.testing import CliRunner, Result
from command_process import Ended, run_commands
from mter_data import write_photos_and_tables
from run_data import write_finished_run

from emoface.cli import main
from emoface.datasets.manifest import read_manifest
from emoface.datasets.stream_cache import open_stream_cache
from emoface.errors import EmofaceError
from emoface.jobs.simulate import SimulateConfig, run_simulate
from emoface.learning.checkpoints import load_checkpoint, save_checkpoint
from emoface.mter.weight_files import read_weights, write_weights
from emoface.storage.files import atomic_path, naming_path, write_bytes

BIG = np.zeros(100_000, np.float32)
KIB = 1024
_PR_CAPBSET_DROP = 24
_MODE_CAPABILITIES = (1, 2)  # CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH


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


def _emoface(*arguments: Any, limit: int | None = None) -> Result:
    """Runs a command that may not write files of more than ``limit`` bytes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    if limit is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
    try:
        return CliRunner().invoke(main, list(map(str, arguments)))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def _obey_modes() -> None:
    """Takes from root what lets it ignore the modes of files."""
    if os.geteuid() == 0:
        for capability in _MODE_CAPABILITIES:
            if ctypes.CDLL(None).prctl(_PR_CAPBSET_DROP, capability, 0, 0, 0):
                raise OSError("capability cannot be dropped")


def test_training_names_the_full_disk_and_goes_on(manifest: Path, tmp_path: Path) -> None:
    small = ("--batch-size", "8", "--epochs", "1", "--person-size", "32", "--context-size", "32", "--workers", "0")
    same = ("--manifest", manifest, "--model", "task1", "--pretrained", "none", "--device", "cpu")
    command = ("train", *same, *small, "--out", tmp_path / "run")
    full = _emoface(*command, limit=2 * KIB * KIB)
    assert full.exit_code == 1
    last = full.stderr.splitlines()[-1]
    assert last == (
        f"Error: {tmp_path / 'run' / 'best.safetensors'}: File too large; allow this process larger files (ulimit -f) "
        "and run the same command again, which goes on from what is finished"
    )
    assert "Traceback" not in full.stderr
    assert not list(tmp_path.rglob(".*"))
    again = _emoface(*command)
    assert again.exit_code == 0, again.stderr


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
    assert full.exit_code == 1
    assert full.stderr.splitlines()[-1].startswith(f"Error: {manifest.parent / name}"), full.stderr
    assert "File too large" in full.stderr and "Traceback" not in full.stderr
    assert {path.name: path.read_bytes() for path in manifest.parent.glob("*.parquet")} == before
    assert not list(manifest.parent.rglob(".*"))
    assert _emoface(*command, manifest.parent).exit_code == 0


def test_faces_name_the_full_disk_and_go_on(tmp_path: Path) -> None:
    run_simulate(SimulateConfig(out=tmp_path / "drawn", images=6, seed=3))
    work, faces = tmp_path / "work", ("faces", tmp_path / "work", "--conf-threshold", "0.01")
    assert _emoface("parse", tmp_path / "drawn", "--out", work).exit_code == 0
    full = _emoface(*faces, limit=3 * KIB)
    assert full.exit_code == 1 and "Traceback" not in full.stderr
    assert full.stderr.splitlines()[-1].startswith(f"Error: {work / 'faces_shards'}"), full.stderr
    assert "File too large; allow this process larger files" in full.stderr
    assert not list(work.rglob(".*")) and not (work / "faces.parquet").exists()
    again = _emoface(*faces)
    assert again.exit_code == 0, again.stderr


def test_training_a_detector_names_the_full_disk_and_goes_on(tmp_path: Path) -> None:
    run_simulate(SimulateConfig(out=tmp_path / "drawn", images=6, seed=3, varied=True))
    train = ("detector", "train", tmp_path / "drawn", "--val", tmp_path / "drawn", "--out", tmp_path / "run")
    small = ("--image-size", "64", "--epochs", "1", "--batch-size", "4", "--device", "cpu")
    for limit, name in ((KIB * KIB, "best.safetensors"), (3 * KIB * KIB, "last.pt")):
        full = _emoface(*train, *small, limit=limit)
        assert full.exit_code == 1 and "Traceback" not in full.stderr
        assert full.stderr.splitlines()[-1].startswith(f"Error: {tmp_path / 'run' / name}: File too large"), full.stderr
        assert not list((tmp_path / "run").rglob(".*")) and not (tmp_path / "run" / "log.jsonl").exists()
    again = _emoface(*train, *small)
    assert again.exit_code == 0, again.stderr


_SMALL = ("--batch-size", "8", "--epochs", "1", "--person-size", "32", "--context-size", "32", "--workers", "0")
_JOBS = ("split", "report", "train", "evaluate", "faces", "detector train", "simulate", "parse", "predict")


class _Refused(NamedTuple):
    """A command that may not write to its folder: how it ended, and the folder's files before and after."""

    folder: Path
    ended: Ended
    before: dict[Path, bytes]
    after: dict[Path, bytes]


def _prepare(job: str, root: Path, data: Path, run: Path, drawn: Path) -> tuple[Path, tuple[object, ...]]:
    """Makes the folder that a job writes to, and what it reads; returns the folder and the command line."""
    out = root / "out"
    if job in ("split", "report", "faces"):
        out = Path(shutil.copytree(data / "work", root / "work", ignore=shutil.ignore_patterns("stream_cache")))
    elif job == "evaluate":
        shutil.copytree(run, out)
    else:
        out.mkdir()
    manifest, photo = data / "work" / "manifest.json", next((data / "photos").rglob("*.jpg"))
    words: dict[str, tuple[object, ...]] = {
        "split": (out,),
        "report": (out,),
        "faces": (out,),
        "train": ("--manifest", manifest, "--model", "task1", "--pretrained", "none", *_SMALL, "--out", out),
        "evaluate": (out, "--draws", "5"),
        "simulate": (out, "--images", "2"),
        "parse": (drawn, "--out", out),
        "detector train": (drawn, "--val", drawn, "--out", out, "--epochs", "1"),
        "predict": (run, photo, "--detector", "emoface-yolov5n-0.5", "--boxes", "10,10,80,115", "--out", out),
    }
    return out, (*job.split(), *words[job])


@pytest.fixture(scope="module")
def refused(tmp_path_factory: pytest.TempPathFactory) -> dict[str, _Refused]:
    """All jobs, each in a folder without permission to write, in one process that starts once."""
    root = tmp_path_factory.mktemp("refused")
    manifest = write_photos_and_tables(root / "data", 16)
    run = write_finished_run(root / "run", manifest, "task2")
    run_simulate(SimulateConfig(out=root / "drawn", images=3, seed=3, varied=True))
    prepared = {}
    for job in _JOBS:
        place = root / job.replace(" ", "-")
        place.mkdir()
        prepared[job] = _prepare(job, place, root / "data", run, root / "drawn")
    before = {job: _read_files(folder) for job, (folder, _) in prepared.items()}
    try:
        for folder, _ in prepared.values():
            folder.chmod(0o500)
        ended = run_commands([words for _, words in prepared.values()], preexec_fn=_obey_modes)
    finally:
        for folder, _ in prepared.values():
            folder.chmod(0o700)
    return {
        job: _Refused(folder, one, before[job], _read_files(folder))
        for (job, (folder, _)), one in zip(prepared.items(), ended, strict=True)
    }


def _read_files(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.skipif(sys.platform != "linux", reason="capabilities of root")
@pytest.mark.parametrize("job", _JOBS)
def test_folder_without_permission_to_write_is_named(job: str, refused: dict[str, _Refused]) -> None:
    folder, ended, before, after = refused[job]
    last = ended.stderr.splitlines()[-1]
    assert ended.returncode == 1 and last.startswith(f"Error: {folder}"), ended.stderr
    assert last.endswith(
        "Permission denied; check the permissions of the file and of its folder, or choose another folder"
    )
    assert "Traceback" not in ended.stderr
    assert after == before


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


def test_evaluation_names_the_file_and_goes_on(manifest: Path, tmp_path: Path) -> None:
    run = write_finished_run(tmp_path / "run", manifest, "task2")
    for split in ("val", "test"):
        open_stream_cache(read_manifest(manifest), split)  # its shards are larger than the limit
    full = _emoface("evaluate", run, "--draws", "5", "--device", "cpu", limit=64 * KIB)
    assert full.exit_code == 1
    assert full.stderr.splitlines()[-1].startswith(f"Error: {run / 'eval/test/'}"), full.stderr
    assert "File too large" in full.stderr and "Traceback" not in full.stderr
    assert not list(tmp_path.rglob(".*")) and not (run / "eval" / "test" / "records").exists()
    again = _emoface("evaluate", run, "--draws", "5", "--device", "cpu")
    assert again.exit_code == 0, again.stderr
