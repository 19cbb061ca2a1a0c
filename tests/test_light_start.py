"""emoface without the extras: what runs without torch, what says which package is missing, what help loads."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from test_cli import COMMANDS

from emoface.storage.files import file_sha256
from emoface.storage.weights import DEMONSTRATION_DETECTOR

_RUN = """
import importlib.abc, json, sys

class Missing(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("torch", "lightning_fabric", "tensorboard", "fsspec", "s3fs"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Missing())
from click.testing import CliRunner
from emoface.cli import main

results = []
for line in json.loads(sys.argv[1]):
    result = CliRunner().invoke(main, line.split())
    results.append({"exit_code": result.exit_code, "stdout": result.stdout, "stderr": result.stderr})
print(json.dumps(results))
"""
"""Runs command lines one after the other in a process without the packages of the extras ``train`` and ``s3``."""

_BUILD = (
    "simulate sim --images 12",
    "parse sim --out work",
    f"detector export {DEMONSTRATION_DETECTOR} --format onnx --out faces.onnx",
    "faces work --weights faces.onnx --image-size 320",
    "split work",
    "report work",
    "verify work",
)
_SCORE = (
    "score predictions.npz --manifest work/manifest.json --split train --name random --out scored --draws 20",
    "score predictions.npz --manifest work/manifest.json --split train --name again --out again --draws 20",
    "compare scored again --split train --out compared --draws 20",
    "export-predictions scored --split train --out exported.csv",
    f"detector evaluate sim --detector {DEMONSTRATION_DETECTOR} --image-size 320 --out evaluated",
    "status emotic_face --set emotic_root=sim --set out=work",
    "weights list",
)


def _run(lines: tuple[str, ...], folder: Path) -> list[dict[str, Any]]:
    call = [sys.executable, "-c", _RUN, json.dumps(lines)]
    answer = subprocess.run(call, cwd=folder, capture_output=True, text=True)
    assert answer.returncode == 0, answer.stderr
    results: list[dict[str, Any]] = json.loads(answer.stdout.splitlines()[-1])
    return results


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which every light command has run without torch."""
    folder = tmp_path_factory.mktemp("light")
    _run_all(_BUILD, folder)
    people = pd.read_parquet(folder / "work/train.parquet", columns=["person_id"])
    scores = np.random.default_rng(0).random((len(people), 26))
    np.savez(folder / "predictions.npz", person_id=people["person_id"].to_numpy(str), probabilities=scores)
    _run_all(_SCORE, folder)
    return folder


def _run_all(lines: tuple[str, ...], folder: Path) -> None:
    for line, result in zip(lines, _run(lines, folder), strict=True):
        assert result["exit_code"] == 0, f"{line}: {result}"


def test_data_set_is_built_scored_and_compared_without_torch(folder: Path) -> None:
    records = {path.stem for path in (folder / "work/records").glob("*.json")}
    assert {"parse", "faces", "split", "report"} <= records
    counts = json.loads((folder / "work/records/faces.json").read_text())["counts"]
    assert counts["face_status"]["found"] > 0 and counts["photos"] == 12
    assert (folder / "work/report/audit.html").is_file()
    assert (folder / "scored/metrics.json").is_file() and (folder / "compared/comparison.html").is_file()
    assert len((folder / "exported.csv").read_text().splitlines()) > 1


def test_detector_finds_the_same_faces_with_torch_and_without(folder: Path) -> None:
    pytest.importorskip("torch", reason="torch is not installed (make test-light)")
    import pyarrow.parquet as pq

    from emoface.inference.faces import DetectorSettings, load_face_detector
    from emoface.vision.images import read_photo

    people = pq.read_table(folder / "work/people.parquet").to_pylist()
    faces = pq.read_table(folder / "work/faces.parquet").to_pylist()
    settings = DetectorSettings(detector=DEMONSTRATION_DETECTOR, backend="torch", image_size=320)
    detector = load_face_detector(settings)
    n_compared = 0
    for person, face in zip(people, faces, strict=True):
        if face["face_status"] != "found":
            continue
        found = detector.detect([read_photo(folder / "sim/emotic" / person["image"])])[0]
        distance = abs(found.xyxy - face["face_bbox"]).max(axis=1)
        assert distance.min() < 0.1
        assert found.conf[distance.argmin()] == pytest.approx(face["conf"], abs=1e-3)
        n_compared += 1
    assert n_compared > 3


def test_commands_that_need_torch_say_how_to_install_it(folder: Path) -> None:
    run = folder / "run"
    run.mkdir(exist_ok=True)
    settings = {
        "model": "task1",
        "manifest": {"path": str(folder / "work/manifest.json"), "sha256": file_sha256(folder / "work/manifest.json")},
        "detector": {},
        "recipe": {},
        "stream_sizes": {"face": 64},
        "shuffle_labels": False,
    }
    (run / "run.json").write_text(json.dumps(settings))
    (run / "best.safetensors").write_bytes(b"weights that are not read without torch")
    (run / "records").mkdir(exist_ok=True)
    record = {"job": "train", "settings": {}, "inputs": {}, "outputs": {}, "counts": {}}
    (run / "records/train.json").write_text(json.dumps(record))
    photo = next((folder / "sim/emotic").rglob("*.jpg"))
    lines = (
        "train --manifest work/manifest.json --model task1 --out new",
        "evaluate run --split train",
        f"predict run {photo}",
        f"explain run {photo}",
        "model task1",
        f"faces work --detector {DEMONSTRATION_DETECTOR} --backend torch",
        f"detector export {DEMONSTRATION_DETECTOR} --format pt --out weights.pt",
        "detector train sim --val sim --out detector",
        "demo --out demo",
    )
    (folder / "weights.pth").write_bytes(b"PK\3\4")
    *results, of_file = _run((*lines, "faces work --weights weights.pth"), folder)
    for line, result in zip(lines, results, strict=True):
        assert result["exit_code"] == 1, f"{line}: {result}"
        last = result["stderr"].splitlines()[-1]
        assert last.startswith("Error: this needs the package "), f"{line}: {result['stderr']}"
        assert last.endswith("which is not installed; install it with pip install 'emoface[train]'")
    assert not (folder / "demo").exists()  # it says so before it draws anything
    assert of_file["stderr"].splitlines()[-1] == (
        "Error: weights.pth: this needs the package torch, which is not installed; install it with "
        "pip install 'emoface[train]', or convert the file with 'emoface detector export' where torch is installed"
    )


_HELP = """
import json, sys
from click.testing import CliRunner
from emoface.cli import main

loaded = {}
for words in json.loads(sys.argv[1]):
    assert CliRunner().invoke(main, [*words, "--help"]).exit_code == 0
    loaded[" ".join(words)] = sorted({name.partition(".")[0] for name in sys.modules})
print(json.dumps(loaded))
"""
_HEAVY = {
    *("torch", "lightning_fabric", "tensorboard", "safetensors", "onnx", "onnxruntime", "ray", "fsspec", "s3fs"),
    *("pandas", "scipy", "sklearn", "matplotlib", "rich", "jinja2"),
}
_NOT_FOR_THE_LIST = {*_HEAVY, "numpy", "pyarrow", "pydantic", "cv2", "PIL"}


def _modules_loaded_by_help(commands: list[tuple[str, ...]]) -> dict[str, set[str]]:
    call = [sys.executable, "-c", _HELP, json.dumps(commands)]
    answer = subprocess.run(call, capture_output=True, text=True, check=True)
    return {words: set(names) for words, names in json.loads(answer.stdout).items()}


def test_list_of_commands_loads_no_package_of_numbers() -> None:
    groups: list[tuple[str, ...]] = [(), ("run",), ("status",), ("weights",), ("detector",)]
    for words, names in _modules_loaded_by_help(groups).items():
        assert not names & _NOT_FOR_THE_LIST, words


def test_help_of_every_command_loads_no_heavy_package() -> None:
    for words, names in _modules_loaded_by_help([words for words, _ in COMMANDS]).items():
        assert not names & _HEAVY, f"emoface {words} --help loads {sorted(names & _HEAVY)}"
