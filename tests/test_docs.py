"""The documentation as a test subject: its commands run, its links lead somewhere, its tables are complete."""

from __future__ import annotations

import ast
import contextlib
import importlib
import importlib.util
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest
import yaml
from click.testing import CliRunner
from scripts_of_docs import load_script
from test_layers import LAYERS

from emoface.cli import main
from emoface.pipeline.definition import find_pipeline_file
from emoface.version import __version__

REPO = Path(__file__).parents[1]
PAGES = [REPO / "README.md", REPO / "CONTRIBUTING.md", *sorted((REPO / "docs").glob("*.md"))]
PROJECT = tomllib.loads((REPO / "pyproject.toml").read_text(encoding="utf-8"))["project"]
_NOT_HERE = ("make ", "python3 -m venv", ".venv/bin/pip", "pip ", "source ", "emoface weights fetch", "emoface demo")
"""Lines that set up a machine, need a network, or are tested elsewhere."""


def _blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


def _shell_lines(page: Path) -> list[str]:
    lines = "\n".join(_blocks(page, "sh")).replace("\\\n", " ").splitlines()
    return [line.partition(" #")[0].strip() for line in lines if line.strip() and not line.startswith("#")]


def test_commands_page_is_the_commands_own_help() -> None:
    generator = load_script("generate_commands.py")
    assert generator.COMMANDS_PATH.read_text(encoding="utf-8") == generator.render_commands(), "run 'make docs'"


def _anchors(page: Path) -> set[str]:
    """The anchors of the headings of a page."""
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_to_files_and_headings(page: Path) -> None:
    for target, anchor in re.findall(r"\]\(([^)#\s]*)#?([^)\s]*)", page.read_text(encoding="utf-8")):
        if "://" not in target:
            linked = page.parent / target if target else page
            assert linked.exists(), f"{page.name}: {target}"
            assert not anchor or anchor in _anchors(linked), f"{page.name}: {target}#{anchor}"


class _SiteLoader(yaml.SafeLoader):
    """Reads ``mkdocs.yml``, in which tags name functions of Python."""


_SiteLoader.add_multi_constructor("tag:yaml.org,2002:python/", lambda *_: None)


def _leaves(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
        return
    for one in value.values() if isinstance(value, dict) else value:
        yield from _leaves(one)


def test_site_has_every_page_once_and_no_other() -> None:
    site = yaml.load((REPO / "mkdocs.yml").read_text(encoding="utf-8"), _SiteLoader)
    assert sorted(_leaves(site["nav"])) == sorted(path.name for path in (REPO / "docs").glob("*.md"))


def test_site_indents_lists_and_tables_inside_items_but_no_code() -> None:
    hooks = load_script("site_hooks.py")
    page = "- a\n  - b\n    goes on\n\n  | c |\n\n```sh\n  - d\n```\n"
    assert hooks.on_page_markdown(page, page=None) == page.replace("  - b", "    - b").replace("  | c", "    | c")


def test_commands_of_pages_become_one_script() -> None:
    checker = load_script("check_commands.py")
    pages = ["```sh\ninstall\n```\n", "```sh\nemoface weights fetch a\nemoface b\n```\n```python\nc\n```\n"]
    begin, end = ["set -ex", "install", "emoface simulate EMOTIC --images 40"], ["END_OF_PROGRAM"]
    with_weights = checker.render_script(pages, has_weights=True).splitlines()
    assert with_weights == [*begin, "emoface b", "python - <<'END_OF_PROGRAM'", "c", *end]
    assert "emoface weights fetch a" in checker.render_script(pages, has_weights=False).splitlines()


def test_every_name_of_the_python_api_exists() -> None:
    page = (REPO / "docs" / "python-api.md").read_text(encoding="utf-8")
    names = re.findall(r"^::: (\S+)$", page, re.MULTILINE)
    assert "emoface.load" in names
    for name in names:
        assert _find(name), name


def _find(name: str) -> Any:
    """The module or the object of a dotted name; None where there is none."""
    with contextlib.suppress(ModuleNotFoundError):
        return importlib.import_module(name)
    module, _, attribute = name.rpartition(".")
    return getattr(importlib.import_module(module), attribute, None)


def test_pictures_are_small_and_shown() -> None:
    pictures = list((REPO / "docs" / "images").iterdir())
    drawn = {picture.name for picture in load_script("draw_pages.py").PICTURES}
    assert {path.name for path in pictures} == drawn
    assert all(path.stat().st_size <= 150_000 for path in pictures)
    assert sum(path.stat().st_size for path in pictures) <= 1_000_000
    shown = {name for page in PAGES for name in re.findall(r"images/([\w.-]+)\)", page.read_text(encoding="utf-8"))}
    assert shown == drawn


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


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_pipelines_of_shell_lines_come_with_emoface(page: Path) -> None:
    for line in _shell_lines(page):
        if words := re.match(r"emoface (?:run|status) (\S+)", line):
            assert find_pipeline_file(words.group(1)).parent == REPO / "pipelines", f"{page.name}: {line}"
            assert "/" not in words.group(1), f"{page.name}: {line}: there is no such path after pip install"


def _commands(group: click.Group) -> Iterator[click.Command]:
    for command in group.commands.values():
        if isinstance(command, click.Group):
            yield from _commands(command)
        else:
            yield command


def test_examples_of_help_texts_are_commands_that_exist() -> None:
    n_examples = 0
    for command in _commands(main):
        for line in re.findall(r"^ +(emoface .+)$", command.help or "", re.MULTILINE):
            _check_words(line, shlex.split(line)[1:])
            assert not re.match(r"emoface (run|status) \S+/", line), f"{line}: there is no such path after pip install"
            n_examples += 1
    assert n_examples > 30


def _check_words(where: str, words: list[str]) -> None:
    """Checks that the command and the options of a command line exist, also where placeholders stand for values."""
    command: click.Command = main
    while isinstance(command, click.Group) and words and words[0][0].islower():
        assert words[0] in command.commands, where
        command = command.commands[words.pop(0)]
    known = {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)}
    for word in words:
        if word.startswith("--"):
            assert word.partition("=")[0] in known | {"--help", "--version", "--debug"}, where


@pytest.mark.parametrize("page", [page for page in PAGES if page.name != "changelog.md"], ids=lambda page: page.name)
def test_commands_in_sentences_exist(page: Path) -> None:
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    for line in re.findall(r"`(emoface [a-z][^`]*)`", text):
        _check_words(f"{page.name}: {line}", line.split()[1:])


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_extras_and_scripts_exist(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for extras in re.findall(r"(?:emoface|')\.?\[([\w,-]+)\]'", text):
        assert set(extras.split(",")) <= set(PROJECT["optional-dependencies"]), f"{page.name}: {extras}"
    for script in re.findall(r"(?:python|pytest) ((?:docs|tests)/\S+\.py)", text):
        assert (REPO / script).is_file(), f"{page.name}: {script}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_python_blocks_import_what_the_page_installs(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    installed = set(re.findall(r"^(?:.*`)?pip install ([a-z]\w+)", text, re.MULTILINE)) | {"emoface"}
    for code in _blocks(page, "python"):
        for node in ast.walk(ast.parse(code)):
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                names = [f"{node.module}.{alias.name}" for alias in node.names]
            else:
                continue
            for name in names:
                package = name.partition(".")[0]
                assert package in installed or package in sys.stdlib_module_names, f"{page.name}: {name}"
                assert package != "emoface" or _find(name) is not None, f"{page.name}: {name}"


def test_citation_agrees_with_the_package() -> None:
    citation = yaml.safe_load((REPO / "CITATION.cff").read_text(encoding="utf-8"))
    assert (citation["title"], citation["version"], citation["license"]) == (
        PROJECT["name"],
        __version__,
        PROJECT["license"],
    )
    assert citation["version"] == PROJECT["version"]
    assert citation["authors"] == PROJECT["authors"]


@pytest.fixture(scope="module")
def folder(weights_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working folder with a drawn EMOTIC in it, as the tutorial offers it."""
    folder = tmp_path_factory.mktemp("docs")
    _run_line("emoface simulate EMOTIC --images 16", folder, weights_dir)
    return folder


def _run_line(line: str, folder: Path, weights_dir: Path) -> str:
    """Runs a command line of emoface in this process, which saves the time to start; returns all that it prints."""
    program, *words = shlex.split(line)
    if program == "python":
        return subprocess.run([sys.executable, *words], check=True, capture_output=True, text=True).stdout
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
def test_readme_runs_line_by_line(
    folder: Path, weights_dir: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
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
    monkeypatch.setenv("EMOFACE_WEIGHTS", str(weights_dir))
    monkeypatch.chdir(folder)
    of_faces, of_people = _blocks(REPO / "README.md", "python")
    exec(of_faces, {})
    assert "x1" in capsys.readouterr().out
    exec(of_people, {})
    predicted = json.loads((folder / "runs/mter2/predict/photo.json").read_text())["people"]
    assert len(capsys.readouterr().out.splitlines()) == len(predicted)


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
    drawing = load_script("draw_architecture.py")
    drawn = [set(layer.names) for layer in reversed(drawing.LAYERS)]
    assert drawn == [set(names) - {"__main__"} for names in LAYERS]
    assert drawing.SVG_PATH.read_text(encoding="utf-8") == drawing.render_architecture(), "run 'make docs'"
