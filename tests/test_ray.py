"""Shards on a Ray cluster of local node processes: the same bytes, though workers and nodes are killed."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from click.testing import CliRunner

from emoface.cli import main
from emoface.errors import ClusterError, SettingsError
from emoface.jobs import faces as faces_job
from emoface.jobs.faces import FacesConfig, run_faces
from emoface.jobs.parse import ParseConfig, run_parse
from emoface.jobs.simulate import SimulateConfig, run_simulate
from emoface.prefetch import count_usable_cpus
from emoface.progress import Silent
from emoface.ray_tasks import MAX_RETRIES, run_on_ray
from emoface.storage.files import file_sha256

os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
ray = pytest.importorskip("ray", reason="the package ray is not installed: emoface[ray]")
cluster_utils = pytest.importorskip("ray.cluster_utils")

N_PHOTOS = 10
SETTINGS: dict[str, Any] = {"detector": "emoface-yolov5n-0.5", "image_size": 320, "shard_size": 2}
N_SHARDS = N_PHOTOS // 2


class Steps(Silent):
    """Remembers how far the job was at each step, and calls ``at_step`` after each."""

    def __init__(self, out: Path) -> None:
        self.out, self.seen = out, [0]

    def advance(self, n: int = 1) -> None:
        assert not (self.out / "faces.parquet").exists()  # it is written after the last step
        self.seen.append(self.seen[-1] + n)
        self.at_step()

    def at_step(self) -> None:
        """Does nothing."""


@pytest.fixture(scope="module")
def parsed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A parsed simulation beside its photos, see ``_copy``."""
    base = tmp_path_factory.mktemp("parsed")
    root, out = base / "simulation", base / "work"
    run_simulate(SimulateConfig(out=root, images=N_PHOTOS, seed=3))
    run_parse(ParseConfig(emotic_root=root, out=out))
    return out


@pytest.fixture(scope="module")
def local(parsed: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The tables of ``--engine local``."""
    out = _copy(parsed, tmp_path_factory.mktemp("local"))
    record = run_faces(FacesConfig(dir=out, **SETTINGS))
    assert record.counts["face_status"]["found"] >= 5
    return _tables(out)


@pytest.fixture
def work(parsed: Path, tmp_path: Path) -> Path:
    return _copy(parsed, tmp_path)


def _copy(parsed: Path, folder: Path) -> Path:
    """Copies the tables to a folder, with a link to the photos beside them."""
    (folder / "simulation").symlink_to(parsed.parent / "simulation")
    return Path(shutil.copytree(parsed, folder / "work"))


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """Two nodes on this machine, the head without CPU."""
    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
    head = {"num_cpus": 0, "object_store_memory": 100 * 2**20, "include_dashboard": False}
    cluster = cluster_utils.Cluster(initialize_head=True, head_node_args=head)
    try:
        cluster.add_node(num_cpus=1, object_store_memory=100 * 2**20)
        ray.init(address=cluster.address, log_to_driver=False)
        yield cluster
    finally:
        ray.shutdown()
        cluster.shutdown()


def _tables(out: Path) -> dict[str, str]:
    return {name: file_sha256(out / name) for name in ("faces.parquet", "empty_faces.csv")}


def _shard_files(out: Path) -> list[str]:
    return sorted(path.name for path in out.glob("faces_shards/*/*"))


WHOLE = sorted(f"{number:05d}.{ending}" for number in range(N_SHARDS) for ending in ("json", "parquet"))


def test_same_bytes_as_local_with_steps_while_it_runs(
    cluster: Any, work: Path, local: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(work.parent)  # the workers run in another folder
    steps = Steps(work)
    run_faces(FacesConfig(dir=Path("work"), engine="ray", **SETTINGS), steps)
    assert _tables(work) == local
    assert steps.seen == list(range(0, N_PHOTOS + 1, 2))
    assert _shard_files(work) == WHOLE


def _write_shard_killed_once(work: faces_job.ShardWork, shard: Any) -> None:
    """Dies by SIGKILL the first time that it renames the table or the summary of shard 1."""
    from emoface.jobs import faces

    def rename(path: Path, target: Path) -> Path:
        kind = target.suffix.removeprefix(".")
        mark = work.config.dir / f"killed-{kind}"
        if target.stem == "00001" and not mark.exists():
            mark.write_text(str(os.getpid()))
            os.kill(os.getpid(), signal.SIGKILL)
        return replace(path, target)

    replace = Path.replace
    with mock.patch.object(Path, "replace", rename):
        faces._write_shard_remotely(work, shard)


def test_worker_killed_while_it_writes_leaves_no_trace(
    cluster: Any, work: Path, local: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(faces_job, "_write_shard_remotely", _write_shard_killed_once)
    run_faces(FacesConfig(dir=work, engine="ray", **SETTINGS))
    killed = {(work / f"killed-{kind}").read_text() for kind in ("parquet", "json")}
    assert len(killed) == 2 and str(os.getpid()) not in killed
    assert _tables(work) == local
    assert _shard_files(work) == WHOLE
    assert not list(work.glob("faces_shards/*/.*"))


def _write_shard_held_once(work: faces_job.ShardWork, shard: Any) -> None:
    """Shard 3 never ends on the first node that gets it."""
    from emoface.jobs import faces

    mark = work.config.dir / "held"
    if shard.number == 3 and not mark.exists():
        mark.write_text(ray.get_runtime_context().get_node_id())
        time.sleep(600)
    faces._write_shard_remotely(work, shard)


def test_node_removed_while_it_runs_is_replaced_by_the_other(
    cluster: Any, work: Path, local: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster.add_node(num_cpus=1, object_store_memory=100 * 2**20)
    removed = []

    class RemoveNode(Steps):
        def at_step(self) -> None:
            if removed:
                return
            deadline = time.monotonic() + 60
            while not (work / "held").is_file() and time.monotonic() < deadline:
                time.sleep(0.05)
            sockets = {node["NodeID"]: node["RayletSocketName"] for node in ray.nodes()}
            held = sockets[(work / "held").read_text()]
            removed.extend(node for node in cluster.worker_nodes if node.raylet_socket_name == held)
            cluster.remove_node(removed[0], allow_graceful=False)

    monkeypatch.setattr(faces_job, "_write_shard_remotely", _write_shard_held_once)
    steps = RemoveNode(work)
    run_faces(FacesConfig(dir=work, engine="ray", **SETTINGS), steps)
    assert len(removed) == 1 and len(cluster.worker_nodes) == 1
    assert _tables(work) == local
    assert steps.seen[-1] == N_PHOTOS and _shard_files(work) == WHOLE


def test_task_that_kills_its_worker_each_time_is_one_error(cluster: Any, tmp_path: Path) -> None:
    def die(folder: Path, item: int) -> None:
        (folder / f"{time.time_ns()}").touch()
        os.kill(os.getpid(), signal.SIGKILL)

    with pytest.raises(ClusterError, match=r"shard 7: its Ray worker process or node died 6 times, .*WorkerCrashed"):
        run_on_ray(die, tmp_path, [7], lambda _: None, lambda item: f"shard {item}")
    assert len(list(tmp_path.iterdir())) == MAX_RETRIES + 1


def test_task_has_as_many_threads_as_cpus(cluster: Any, tmp_path: Path) -> None:
    def count(folder: Path, item: int) -> None:
        import cv2

        (folder / str(item)).write_text(f"{count_usable_cpus()} {cv2.getNumThreads()}")

    done: list[int] = []
    run_on_ray(count, tmp_path, iter(range(7)), done.append, str)
    assert sorted(done) == list(range(7))
    assert {path.read_text() for path in tmp_path.iterdir()} == {"1 1"}


def test_errors_of_the_system_are_tried_again_and_others_are_not(cluster: Any, tmp_path: Path) -> None:
    def fail(folder: Path, item: int) -> None:
        with (folder / str(item)).open("a") as stream:
            stream.write("x")
        if item == 1 and (folder / "1").stat().st_size < 3:
            raise OSError(116, "Stale file handle", "photos")
        if item == 2:
            raise SettingsError("no such setting")

    run_on_ray(fail, tmp_path, [1], lambda _: None, str)
    assert (tmp_path / "1").read_text() == "xxx"
    with pytest.raises(SettingsError, match=r"^no such setting$") as raised:
        run_on_ray(fail, tmp_path, [2], lambda _: None, str)
    assert type(raised.value) is SettingsError and (tmp_path / "2").read_text() == "x"


def _call(out: Path, *options: str) -> list[str]:
    settings = ["--image-size", "320", "--shard-size", "2", "--engine", "ray"]
    return ["faces", str(out), *settings, *(options or ("--detector", SETTINGS["detector"]))]


def test_damaged_weights_are_one_error_line(cluster: Any, work: Path, tmp_path: Path) -> None:
    (tmp_path / "bad.safetensors").write_bytes(b"no weights")
    ended = CliRunner().invoke(main, _call(work, "--weights", str(tmp_path / "bad.safetensors")))
    assert ended.exit_code == 1
    error = ended.stderr.splitlines()[-1]
    assert error.startswith(f"Error: {tmp_path}/bad.safetensors: ")
    assert "Traceback" not in ended.stderr and "ray::" not in ended.stderr


@pytest.mark.parametrize("what", ["photo", "weights", "code"])
def test_node_that_sees_other_files_is_named(
    cluster: Any, work: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    """Without a check, all people of a node that lacks the photos would silently be image_missing."""
    if what == "photo":
        digest_here = faces_job._digest_files
        monkeypatch.setattr(faces_job, "_digest_files", lambda *given: dict.fromkeys(digest_here(*given), "0"))
        message = r"node .*: files of .*people\.parquet are missing or different there \(shard 0, .* to .*\); all nodes"
    elif what == "weights":
        find = faces_job.find_detector_weights
        monkeypatch.setattr(
            faces_job, "find_detector_weights", lambda config: faces_job.replace(find(config), sha256="0" * 64)
        )
        message = r"node .*: .*safetensors is missing or different there; copy the file to all nodes"
    else:
        monkeypatch.setattr(faces_job, "code_fingerprint", lambda _: "0" * 16)
        message = r"node .*: another version of emoface is installed there"
    with pytest.raises(ClusterError, match=message):
        run_faces(FacesConfig(dir=work, engine="ray", **SETTINGS))
    assert _shard_files(work) == [] and not (work / "faces.parquet").exists()


def test_ctrl_c_keeps_the_finished_shards_and_stops_the_tasks(cluster: Any, work: Path, local: dict[str, str]) -> None:
    environment = {**os.environ, "RAY_ADDRESS": cluster.address}
    call = [sys.executable, "-m", "emoface", *_call(work)]
    started = subprocess.Popen(call, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 120
    while not list(work.glob("faces_shards/*/*.json")) and started.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    started.send_signal(signal.SIGINT)
    _, stderr = started.communicate(timeout=60)
    assert started.returncode == 130, stderr
    assert stderr.splitlines()[-1].startswith("Interrupted: the finished shards of photos are kept; run the same")
    assert "Traceback" not in stderr
    kept = _shard_files(work)
    assert 2 <= len(kept) < 2 * N_SHARDS and not (work / "faces.parquet").exists()
    time.sleep(3)  # longer than a shard takes
    assert _shard_files(work) == kept and not list(work.glob("faces_shards/*/.*.parquet"))
    times = {path: path.stat().st_mtime_ns for path in work.glob("faces_shards/*/*.json")}
    run_faces(FacesConfig(dir=work, **SETTINGS))
    assert _tables(work) == local
    assert {path: path.stat().st_mtime_ns for path in times} == times


def test_unreachable_cluster_is_one_error_line(work: Path) -> None:
    environment = {**os.environ, "RAY_ADDRESS": "127.0.0.1:1"}
    call = [sys.executable, "-m", "emoface", *_call(work)]
    ended = subprocess.run(call, env=environment, capture_output=True, text=True, check=False)
    assert ended.returncode == 1
    assert ended.stderr.splitlines()[-1] == (
        "Error: cannot connect to Ray: 127.0.0.1:1: Connection refused; check 'ray status' and the environment "
        "variable RAY_ADDRESS, or unset RAY_ADDRESS to start Ray on this machine"
    )
    assert "Traceback" not in ended.stderr
