"""The documentation as a test subject: its commands run, its links lead somewhere, its tables are complete."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import click
import pytest
from click.testing import CliRunner
from test_layers import LAYERS

from emoface.cli import main

REPO = Path(__file__).parents[1]
PAGES = [REPO / "README.md", *sorted((REPO / "docs").glob("*.md"))]
_NOT_HERE = ("make ", "python3 -m venv", ".venv/bin/pip", "source ", "emoface weights fetch", "emoface demo")
"""Lines that set up a machine, need a network, or are tested elsewhere."""


def _load(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    spec.loader.exec_module(module)
    return module


def _blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


def _shell_lines(page: Path) -> list[str]:
    lines = "\n".join(_blocks(page, "sh")).replace("\\\n", " ").splitlines()
    return [line.partition(" #")[0].strip() for line in lines if line.strip() and not line.startswith("#")]


def test_commands_page_is_the_commands_own_help() -> None:
    generator = _load(REPO / "docs" / "generate_commands.py")
    assert generator.COMMANDS_PATH.read_text(encoding="utf-8") == generator.render_commands(), "run 'make docs'"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_to_files(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#\s]+)", page.read_text(encoding="utf-8")):
        if "://" not in target:
            assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_every_page_is_listed() -> None:
    listed = set(re.findall(r"\]\(([^)#/]+\.md)", (REPO / "docs" / "index.md").read_text(encoding="utf-8")))
    assert listed == {page.name for page in (REPO / "docs").glob("*.md")} - {"index.md"}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_shell_lines_are_commands_that_exist(page: Path) -> None:
    targets = re.findall(r"^([a-z-]+):", (REPO / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    for line in _shell_lines(page):
        words = [word for word in shlex.split(line) if not re.fullmatch(r"[A-Z_]+=\S+", word)]
        if words[0] == "make":
            assert set(words[1:]) <= set(targets), line
        elif words[0] == "emoface":
            command: click.Command = main
            rest = words[1:]
            while isinstance(command, click.Group):
                assert rest and rest[0] in command.commands, f"{page.name}: {line}"
                command = command.commands[rest.pop(0)]
            command.make_context(words[1], rest)


@pytest.fixture(scope="module")
def folder(weights_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working folder with a drawn EMOTIC in it, as the tutorial offers it."""
    folder = tmp_path_factory.mktemp("docs")
    _run_line("emoface simulate EMOTIC --images 16", folder, weights_dir)
    return folder


def _run_line(line: str, folder: Path, weights_dir: Path) -> str:
    """Runs a command line of emoface in this process, which saves the time to start; returns all that it prints."""
    program, *words = shlex.split(line)
    assert program == "emoface" and not re.search(r"[|&;<>$*?`~]", line), f"{line}: needs a shell"
    environment = {"EMOFACE_WEIGHTS": str(weights_dir), "EMOFACE_CACHE": str(folder / "cache")}
    with contextlib.chdir(folder):
        answer = CliRunner(env=environment).invoke(main, words)
    assert answer.exit_code == 0, f"{line}\n{answer.stderr}"
    return answer.stdout + answer.stderr


@pytest.mark.usefixtures("plain_charts")
def test_tutorial_runs_line_by_line(folder: Path, weights_dir: Path) -> None:
    page = REPO / "docs" / "tutorial.md"
    lines = [line for line in _shell_lines(page) if not line.startswith(_NOT_HERE)]
    said = {line: _run_line(line, folder, weights_dir) for line in lines}
    (status,) = (text for line, text in said.items() if line.startswith("emoface status"))
    states = [line.split("\t") for line in status.splitlines()[1:]]
    assert states == [
        ["parse", "current", ""],
        ["faces", "current", ""],
        ["split", "stale", "by was stratified, is emotic"],
        ["report", "stale", "reads what split will write"],
    ]
    (again,) = (text for line, text in said.items() if line.startswith("emoface run") and "by=emotic" in line)
    assert [line.split(": ")[0] for line in again.splitlines() if "current" in line] == ["parse", "faces"]
    (code,) = _blocks(page, "python")
    offline = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(folder / "cache")}
    answer = subprocess.run([sys.executable, "-c", code], cwd=folder, env=offline, capture_output=True, text=True)
    assert answer.returncode == 0, answer.stderr
    assert re.search(r"\d+ people of train have a face; \w+/images/.*#\d+ shows\n\['.+'\] \(\d+, \d+\)", answer.stdout)


@pytest.mark.usefixtures("plain_charts")
def test_readme_runs_line_by_line(folder: Path, weights_dir: Path) -> None:
    recipe = [f"{stage}.recipe.{value}" for stage in ("task1", "mter2") for value in ("epochs=1", "batch_size=4")]
    small = "".join(
        f" --set {setting}" for setting in ("person_size=64", "context_size=64", "pretrained=none", *recipe)
    )
    photo = next((folder / "EMOTIC/emotic/mscoco/images").glob("*.jpg"))
    shutil.copy(photo, folder / "photo.jpg")
    for line in _shell_lines(REPO / "README.md"):
        if not line.startswith(_NOT_HERE):
            _run_line(line + small if line.startswith("emoface run mter2") else line, folder, weights_dir)
    assert (folder / "runs/mter2/eval/test/evaluation.html").is_file()
    assert (folder / "runs/mter2/predict/photo.png").is_file()


def test_every_column_is_documented() -> None:
    from emoface import schema

    text = (REPO / "docs" / "data-format.md").read_text(encoding="utf-8")
    for table in (schema.PEOPLE_SCHEMA, schema.FACES_SCHEMA, schema.SPLIT_SCHEMA):
        for name in table.names:
            assert f"`{name}`" in text, name
    for status in schema.FACE_STATUSES:
        assert f"`{status}`" in text, status


def test_architecture_page_names_every_package() -> None:
    text = (REPO / "docs" / "architecture.md").read_text(encoding="utf-8")
    packages = {path.parent.name for path in (REPO / "emoface").glob("*/__init__.py")}
    assert set(re.findall(r"^\*\*`emoface/(\w+)/`\*\*", text, re.MULTILINE)) == packages
    modules = {path.stem for path in (REPO / "emoface").glob("*.py")} - {"__init__", "__main__"}
    for module in modules:
        assert f"`{module}`" in text, module


def test_architecture_picture_shows_the_layers_that_are_tested() -> None:
    drawing = _load(REPO / "docs" / "draw_architecture.py")
    drawn = [set(layer.names) for layer in reversed(drawing.LAYERS)]
    assert drawn == [set(names) - {"__main__"} for names in LAYERS]
    assert drawing.SVG_PATH.read_text(encoding="utf-8") == drawing.render_architecture(), "run 'make docs'"
