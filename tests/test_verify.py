"""``emoface verify``: whole data sets and runs agree, and every kind of change is named in a line."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pyarrow as pa
import pytest
from click.testing import CliRunner
from mter_data import write_photos_and_tables
from run_data import write_finished_run

from emoface.cli import main
from emoface.errors import TableError
from emoface.jobs.verify import VerifyConfig, run_verify
from emoface.schema import FACES_SCHEMA
from emoface.storage.files import file_sha256
from emoface.storage.records import JobRecord, hash_outputs, photo_inputs, write_record
from emoface.storage.tables import read_table, write_table


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set of 16 people on 8 photos, whose faces record names the photos."""
    root = tmp_path_factory.mktemp("data")
    work = write_photos_and_tables(root, 8).parent
    images = read_table(work / "faces.parquet", FACES_SCHEMA, "", ["person_id"])["person_id"].to_pylist()
    photos = photo_inputs(root / "photos", [name.partition("#")[0] for name in images])
    inputs = {str(work / "people.parquet"): file_sha256(work / "people.parquet"), **photos}
    outputs = hash_outputs(work, [work / "faces.parquet"])
    info = {"detector": "drawn", "margin": 0.0}
    write_record(work, JobRecord("faces", {"dir": str(work)}, inputs, outputs, {}, info=info))
    return root


@pytest.fixture
def work(original: Path, tmp_path: Path) -> Path:
    """A copy in which files may be changed; its faces record names the photos of the original."""
    for name in ("work", "photos"):
        shutil.copytree(original / name, tmp_path / name)
    return tmp_path / "work"


def _differences(folder: Path) -> list[str]:
    record = run_verify(VerifyConfig(dir=folder))
    found: list[str] = record.info["differences"]
    assert record.counts["differences"] == len(found)
    return found


def test_whole_data_set_agrees_wherever_it_lies(original: Path, work: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in work.rglob("*")}
    assert _differences(original / "work") == [] and _differences(work) == []
    assert {path: path.stat().st_mtime_ns for path in work.rglob("*")} == before
    answer = CliRunner().invoke(main, ["verify", str(work)])
    assert (answer.exit_code, answer.stdout) == (0, "records: 3\ndifferences: 0\n")


def test_changed_table_is_named_by_record_and_manifest(work: Path) -> None:
    shutil.copy(work / "val.parquet", work / "train.parquet")
    answer = CliRunner().invoke(main, ["verify", str(work)])
    assert answer.exit_code == 1
    lines = [line for line in answer.stdout.splitlines() if line.startswith("Difference: ")]
    manifest, train = work / "manifest.json", work / "train.parquet"
    card = json.loads(manifest.read_text())["splits"]
    assert lines[:4] == [
        f"Difference: {work / 'records' / 'split.json'}: train.parquet is not what split wrote",
        f"Difference: {train}: sha256 is {card['val']['sha256']}, {manifest} says {card['train']['sha256']}",
        f"Difference: {train}: rows is 4, {manifest} says 8",
        f"Difference: {train}: photos is 2, {manifest} says 4",
    ]
    assert lines[-1] == f"Difference: {manifest}: 4 people are in more than one split or more than once in a split"
    assert f"differences: {len(lines)}" in answer.stdout


def test_missing_and_replaced_photos_are_named(original: Path, work: Path, tmp_path: Path) -> None:
    for path in (work / "manifest.json", work / "records" / "faces.json"):
        path.write_text(path.read_text().replace(str(original / "photos"), str(tmp_path / "photos")))
    split_record = work / "records" / "split.json"
    split_record.write_text(split_record.read_text().replace(*_sha256_before_and_after(original, work)))
    assert _differences(work) == []
    photo = tmp_path / "photos" / "framesdb" / "images" / "000.jpg"
    os.utime(photo, ns=(1, 1))
    changed = f"{work / 'records' / 'faces.json'}: photos below {tmp_path / 'photos'} changed"
    assert _differences(work) == [changed]
    photo.unlink()
    assert _differences(work) == [
        changed,
        f"{tmp_path / 'photos'}: 1 of 8 photos are missing, first framesdb/images/000.jpg; {work / 'manifest.json'} "
        "names this folder as the image root",
    ]


def _sha256_before_and_after(original: Path, work: Path) -> tuple[str, str]:
    return file_sha256(original / "work" / "manifest.json"), file_sha256(work / "manifest.json")


def test_tables_that_do_not_fit_each_other(work: Path) -> None:
    faces = read_table(work / "faces.parquet", FACES_SCHEMA, "")
    write_table(work / "faces.parquet", faces.slice(1), FACES_SCHEMA)
    assert _differences(work)[2:] == [f"{work / 'faces.parquet'}: 15 rows, but people.parquet has 16"]
    statuses = pa.array(["no_face", *faces["face_status"].to_pylist()[1:]])
    write_table(work / "faces.parquet", faces.set_column(7, "face_status", statuses), FACES_SCHEMA)
    assert _differences(work)[2:] == [
        f"{work / 'faces.parquet'}: 1 rows have a face_bbox without the status 'found', or the status without a box"
    ]


def test_damaged_record_and_table_are_differences_not_tracebacks(work: Path) -> None:
    (work / "records" / "split.json").write_text("{")
    (work / "people.parquet").write_bytes(b"PAR1")
    found = _differences(work)
    assert any(line.startswith(f"{work / 'records' / 'split.json'}: not a job record") for line in found)
    assert any(line.startswith(f"{work / 'people.parquet'}: not a readable parquet file") for line in found)


def test_record_that_names_files_outside_its_folder(work: Path) -> None:
    path = work / "records" / "faces.json"
    record = json.loads(path.read_text())
    path.write_text(json.dumps({**record, "outputs": {"../secret.txt": "0" * 64}}))
    assert _differences(work) == [
        f"{path}: not a job record (outputs: ../secret.txt); delete it and run 'emoface faces' again"
    ]


def test_run_agrees_until_its_weights_log_or_data_set_change(work: Path, tmp_path: Path) -> None:
    run = write_finished_run(tmp_path / "run", work / "manifest.json", "task1")
    card = json.loads((run / "run.json").read_text())
    (run / "run.json").write_text(json.dumps({**card, "recipe": {**card["recipe"], "epochs": 2}}))
    outputs = hash_outputs(run, [run / "best.safetensors", run / "log.jsonl"])
    write_record(run, JobRecord("train", {"out": str(run)}, {}, outputs, {}))
    assert _differences(run) == []
    lines = (run / "log.jsonl").read_text().splitlines(keepends=True)
    (run / "log.jsonl").write_text(lines[0])
    assert _differences(run) == [
        f"{run / 'records' / 'train.json'}: log.jsonl is not what train wrote",
        f"{run / 'log.jsonl'}: 1 epochs, expected 2",
    ]
    (run / "log.jsonl").write_text("".join(lines))
    weights = (run / "best.safetensors").read_bytes()
    (run / "best.safetensors").write_bytes(weights[:-1])
    found = _differences(run)
    assert found[0] == f"{run / 'records' / 'train.json'}: best.safetensors is not what train wrote"
    assert found[1].startswith(f"{run / 'best.safetensors'}: not a readable safetensors file") and len(found) == 2
    (run / "best.safetensors").write_bytes(weights)
    (work / "manifest.json").unlink()
    assert _differences(run) == [
        f"{work / 'manifest.json'}: no such file, but {run / 'run.json'} says that the run was trained on it"
    ]


def test_unfinished_run_and_empty_folder(work: Path, tmp_path: Path) -> None:
    run = write_finished_run(tmp_path / "run", work / "manifest.json", "task1", finished=False)
    assert _differences(run) == [f"{run}: the run is unfinished after 2 of 120 epochs"]
    with pytest.raises(TableError, match=r"has no manifest\.json, run\.json or records; expected a data set"):
        run_verify(VerifyConfig(dir=tmp_path / "nothing"))
    assert not (tmp_path / "nothing").exists()
