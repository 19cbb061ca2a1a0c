"""The documentation as a test subject: commands, links, and words that must not be there."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from types import ModuleType

import pytest

REPO = Path(__file__).parents[1]
PAGES = [REPO / "README.md", *sorted((REPO / "docs").glob("*.md"))]


def _generator() -> ModuleType:
    spec = importlib.util.spec_from_file_location("generate_commands", REPO / "docs" / "generate_commands.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_commands_page_is_the_commands_own_help() -> None:
    generator = _generator()
    assert generator.COMMANDS_PATH.read_text(encoding="utf-8") == generator.render_commands(), "run 'make docs'"


def test_every_command_has_an_example() -> None:
    for section in _generator().render_commands().split("\n## ")[1:]:
        assert "Example:" in section, section.splitlines()[0]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_to_files(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#\s]+)", page.read_text(encoding="utf-8")):
        if "://" not in target:
            assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_every_column_is_documented() -> None:
    from emoface import schema

    text = (REPO / "docs" / "data-format.md").read_text(encoding="utf-8")
    for table in (schema.PEOPLE_SCHEMA, schema.FACES_SCHEMA, schema.SPLIT_SCHEMA):
        for name in table.names:
            assert f"`{name}`" in text, name
    for status in schema.FACE_STATUSES:
        assert f"`{status}`" in text, status
