"""Uploads to the Hugging Face Hub, against a server of this machine: what is sent, what never is, and refusals."""

from __future__ import annotations

import io
import json
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from hub_server import HubServer
from mter_data import write_photos_and_tables
from run_data import write_finished_run

from emoface.cli import main
from emoface.datasets.manifest import read_manifest
from emoface.errors import SettingsError, UploadError
from emoface.jobs.export import ExportConfig, run_export
from emoface.jobs.push import PushConfig, run_push
from emoface.storage.files import file_sha256

pytest.importorskip("huggingface_hub", reason="the package huggingface_hub is not installed: emoface[hub]")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A data set and an exported model; to be read only."""
    root = tmp_path_factory.mktemp("push")
    manifest = write_photos_and_tables(root, 8)
    run = write_finished_run(root / "run", manifest, "task2")
    run_export(ExportConfig(run=run, format="folder", out=root / "model"))
    return {"root": root, "manifest": manifest, "work": manifest.parent, "run": run, "model": root / "model"}


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    server = HubServer()
    monkeypatch.setenv("HF_ENDPOINT", server.address)
    monkeypatch.setenv("HF_TOKEN", "hf_test")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    yield server
    server.stop()


def _table(hub: HubServer, name: str) -> pa.Table:
    return pq.read_table(io.BytesIO(hub.files[name]))


@pytest.mark.parametrize("large", [(), (".safetensors",)], ids=["in the commit", "by LFS"])
def test_model_is_uploaded_with_its_card(data: dict[str, Path], hub: HubServer, large: tuple[str, ...]) -> None:
    hub.large = large
    record = run_push(PushConfig(folder=data["model"], repo="me/task2"))
    assert hub.repositories == {"model/me/task2": True} and "Bearer hf_test" in hub.tokens
    assert hub.files == {path.name: path.read_bytes() for path in data["model"].iterdir()}
    assert record.counts["kind"] == "model" and record.counts["repository"].endswith("/me/task2")


def test_data_set_is_uploaded_without_crops_and_without_paths(data: dict[str, Path], hub: HubServer) -> None:
    run_push(PushConfig(folder=data["work"], repo="me/drawings"))
    assert hub.repositories == {"dataset/me/drawings": True}
    tables = {f"{split}.parquet" for split in ("train", "val", "test")}
    assert hub.files.keys() == {*tables, "manifest.json", "README.md", "croissant.json", "left_out.csv"}
    assert not any(str(data["root"]).encode() in content for content in hub.files.values())
    ours, sent = pq.read_table(data["work"] / "train.parquet"), _table(hub, "train.parquet")
    assert sent.schema.equals(ours.schema, check_metadata=True) and sent.drop(["face"]).equals(ours.drop(["face"]))
    assert ours["face"].null_count < len(ours) and sent["face"].null_count == len(sent)
    card = hub.files["README.md"].decode()
    assert "and no crops of faces. **The photos are not included**" in card and 'pretty_name: "drawings"' in card


def test_uploaded_data_set_is_one_that_emoface_and_datasets_read(
    data: dict[str, Path], hub: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    datasets = pytest.importorskip("datasets")
    run_push(PushConfig(folder=data["work"], repo="me/drawings"))
    for name, content in hub.files.items():
        (tmp_path / "copy" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "copy" / name).write_bytes(content)
    manifest = read_manifest(tmp_path / "copy" / "manifest.json", check_sha256=True)
    described = json.loads(hub.files["croissant.json"])
    sha256 = {one["contentUrl"]: one["sha256"] for one in described["distribution"]}
    assert sha256 == {one.file: one.sha256 for one in manifest.splits.values()}
    assert [one["@id"] for one in described["recordSet"]] == ["splits", "train", "val", "test"]
    assert "train/face" not in {field["@id"] for field in described["recordSet"][1]["field"]}
    loaded = datasets.load_dataset(str(tmp_path / "copy"), cache_dir=str(tmp_path / "cache"))
    assert {name: len(split) for name, split in loaded.items()} == {
        name: one.rows for name, one in manifest.splits.items()
    }
    assert loaded["train"][0]["face"] is None


def test_crops_a_card_of_ones_own_and_the_public_are_asked_for(
    data: dict[str, Path], hub: HubServer, tmp_path: Path
) -> None:
    work = tmp_path / "work"
    shutil.copytree(data["work"], work)
    (work / "README.md").write_text("My photos.")
    words = ["push", str(work), "me/drawings", "--with-crops", "--public", "--license", "cc0-1.0"]
    answer = CliRunner().invoke(main, words)
    assert answer.exit_code == 0, answer.stderr
    assert hub.repositories == {"dataset/me/drawings": False} and hub.files["README.md"] == b"My photos."
    assert hub.files["train.parquet"] == (work / "train.parquet").read_bytes()
    assert json.loads(hub.files["croissant.json"])["license"] == "cc0-1.0"
    assert "train/face" in {field["@id"] for field in json.loads(hub.files["croissant.json"])["recordSet"][1]["field"]}


@pytest.mark.parametrize(
    ("status", "message"),
    [
        (401, r"answered 401 .*log in with 'hf auth login', or set HF_TOKEN"),
        (403, r"answered 403 .*the token has no write access"),
        (404, r"answered 404 .*no such owner or repository for this token"),
    ],
)
def test_refusal_is_one_line(data: dict[str, Path], hub: HubServer, status: int, message: str) -> None:
    hub.refusal = status
    with pytest.raises(UploadError, match=rf"^me/task2: http://127\.0\.0\.1:\d+ {message}"):
        run_push(PushConfig(folder=data["model"], repo="me/task2"))
    assert hub.files == {}


def test_hub_that_cannot_be_reached_is_one_line(data: dict[str, Path], hub: HubServer) -> None:
    hub.stop()
    answer = CliRunner().invoke(main, ["push", str(data["model"]), "me/task2"])
    assert answer.exit_code == 1
    lines = [line for line in answer.stderr.splitlines() if line.startswith("Error: ")]
    assert len(lines) == 1 and "nothing was uploaded to" in lines[0] and "check the network and HF_ENDPOINT" in lines[0]


def test_folders_and_names_that_are_none(data: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"has neither config\.json and model\.safetensors nor manifest\.json; exp"):
        run_push(PushConfig(folder=data["run"], repo="me/task2"))
    with pytest.raises(SettingsError, match="repo is 'task2'"):
        PushConfig(folder=data["model"], repo="task2")
    changed = tmp_path / "model"
    shutil.copytree(data["model"], changed)
    (changed / "README.md").unlink()
    with pytest.raises(SettingsError, match=r"README\.md: no such file; export the run again"):
        run_push(PushConfig(folder=changed, repo="me/task2"))


def test_package_that_is_missing_is_named(data: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    answer = CliRunner().invoke(main, ["push", str(data["model"]), "me/task2"])
    assert answer.stderr.splitlines()[-1].endswith("install it with pip install 'emoface[hub]'")


def test_copy_has_the_sha256_of_its_own_tables(data: dict[str, Path], hub: HubServer, tmp_path: Path) -> None:
    before = {path.name: file_sha256(path) for path in data["work"].glob("*.parquet")}
    run_push(PushConfig(folder=data["work"], repo="me/drawings"))
    assert {path.name: file_sha256(path) for path in data["work"].glob("*.parquet")} == before
    sent = json.loads(hub.files["manifest.json"])
    assert sent["image_root"] == "photos" and sent["splits"]["train"]["sha256"] != before["train.parquet"]
