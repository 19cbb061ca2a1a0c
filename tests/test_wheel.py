"""The wheel and the source archive hold what an installed emoface needs."""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

REPO = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with both archives, built from this checkout."""
    folder = tmp_path_factory.mktemp("dist")
    build = [sys.executable, "-m", "hatchling", "build", "--directory", str(folder)]
    answer = subprocess.run(build, cwd=REPO, capture_output=True, text=True)
    assert answer.returncode == 0, answer.stderr
    return folder


def _files_below(folder: str, pattern: str) -> set[str]:
    return {path.relative_to(REPO).as_posix() for path in (REPO / folder).rglob(pattern)}


def test_wheel_holds_code_cards_pipelines_and_templates_and_nothing_else(dist: Path) -> None:
    (wheel,) = dist.glob("*.whl")
    with zipfile.ZipFile(wheel) as opened:
        names = set(opened.namelist())
    inside = {name for name in names if ".dist-info/" not in name}
    assert _files_below("emoface", "*.py") | {"emoface/py.typed", "emoface/reporting/templates/audit.html.j2"} <= inside
    assert _files_below("emoface/weights_data", "*.safetensors") & inside
    data = _files_below("manifests", "*.toml") | _files_below("pipelines", "*.toml")
    assert {f"emoface/{name}" for name in data} <= inside
    assert all(name.startswith("emoface/") and "__pycache__" not in name for name in inside)
    assert any(name.endswith("licenses/LICENSE") for name in names)


def test_source_archive_can_test_itself(dist: Path) -> None:
    (archive,) = dist.glob("*.tar.gz")
    with tarfile.open(archive) as opened:
        names = {name.partition("/")[2] for name in opened.getnames()}
    wanted = {"README.md", "CONTRIBUTING.md", "CITATION.cff", "LICENSE", "Makefile", "constraints.txt", "hubconf.py"}
    wanted |= {"pyproject.toml", "mkdocs.yml"} | _files_below("docs/images", "*.webp")
    for folder, pattern in (("emoface", "*.py"), ("manifests", "*.toml"), ("pipelines", "*.toml"), ("docs", "*.md")):
        wanted |= _files_below(folder, pattern)
    assert wanted | _files_below("tests", "*.py") <= names


def test_installed_wheel_finds_its_cards_pipelines_and_template(dist: Path, tmp_path: Path) -> None:
    (wheel,) = dist.glob("*.whl")
    site = tmp_path / "site"
    with zipfile.ZipFile(wheel) as opened:
        opened.extractall(site)
    code = (
        "import emoface; from emoface.storage.cards import manifests_dir, pipelines_dir, read_card; "
        "from emoface.pipeline.definition import read_pipeline_file; "
        "print(emoface.__file__, manifests_dir(), pipelines_dir(), read_card('emotic')['published']['people'], "
        "len(read_pipeline_file('demo').stages), sep='\\n')"
    )
    environment = {**os.environ, "PYTHONPATH": str(site)}
    call = [sys.executable, "-c", code]
    answer = subprocess.run(call, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert answer.returncode == 0, answer.stderr
    inside = site / "emoface"
    assert answer.stdout.split() == [
        *(str(inside / name) for name in ("__init__.py", "manifests", "pipelines")),
        "34320",
        "7",
    ]
    call = [sys.executable, "-m", "emoface", "status", "demo"]
    answer = subprocess.run(call, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert answer.returncode == 0, answer.stderr
    assert [line.split("\t")[1] for line in answer.stdout.splitlines()[1:]] == ["missing"] * 7
