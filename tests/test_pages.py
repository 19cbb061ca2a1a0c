"""Pages: which files decide one, and how numbers are written."""

from __future__ import annotations

from pathlib import Path

import pytest

from emoface.reporting import pages
from emoface.reporting.pages import (
    format_percent,
    format_share,
    format_signed_percent,
    hash_template,
    list_template_files,
    render_page,
    to_percent,
)
from emoface.storage.csv_files import csv_text
from emoface.storage.files import file_sha256


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of templates: a page that includes a part, which includes a style."""
    (tmp_path / "page.html").write_text('{% include "part.html" %}{% include "part.html" %} {{ x }}')
    (tmp_path / "part.html").write_text('{% include "style.css" %}')
    (tmp_path / "style.css").write_text("b")
    (tmp_path / "alone.html").write_text("nothing")
    monkeypatch.setattr(pages, "TEMPLATES_DIR", tmp_path)
    return tmp_path


def test_files_of_a_template_are_found_through_what_it_includes(folder: Path) -> None:
    assert list_template_files("page.html") == [folder / name for name in ("page.html", "part.html", "style.css")]
    assert list_template_files("alone.html") == [folder / "alone.html"]
    assert render_page("page.html", {}, x=1) == "bb 1"


def test_changed_style_changes_what_inputs_say(folder: Path) -> None:
    before = hash_template("page.html")
    assert before[str(folder / "style.css")] == file_sha256(folder / "style.css")
    (folder / "style.css").write_text("i")
    after = hash_template("page.html")
    assert [name for name in before if before[name] != after[name]] == [str(folder / "style.css")]


def test_templates_of_the_package_are_whole() -> None:
    names = {path.name: [part.name for part in list_template_files(path.name)] for path in _package_templates()}
    assert names == {
        "audit.html.j2": ["audit.html.j2", "audit_photos.html.j2", "audit_people.html.j2", "audit.css"],
        "audit_people.html.j2": ["audit_people.html.j2"],
        "audit_photos.html.j2": ["audit_photos.html.j2"],
        "comparison.html.j2": ["comparison.html.j2", "results.css"],
        "evaluation.html.j2": ["evaluation.html.j2", "results.css"],
    }


def _package_templates() -> list[Path]:
    return sorted(pages.TEMPLATES_DIR.glob("*.j2"))


def test_include_that_is_missing_or_worked_out_is_an_error(folder: Path) -> None:
    (folder / "style.css").unlink()
    with pytest.raises(ValueError, match=r"style\.css: no such template"):
        list_template_files("page.html")
    (folder / "part.html").write_text("{% include name %}")
    with pytest.raises(ValueError, match=r"part\.html: includes a file whose name is no plain text"):
        list_template_files("page.html")


def test_numbers_as_pages_write_them() -> None:
    assert [format_percent(value) for value in (0.1234, 0.0, None, float("nan"))] == ["12.3", "0.0", "–", "–"]
    assert (format_percent(0.1234, 2), format_percent(None, undefined="undefined")) == ("12.34", "undefined")
    assert [format_share(value) for value in (0.1234, None)] == ["12.3%", "–"]
    assert [format_signed_percent(value) for value in (0.012, -0.012, 0.0, None)] == ["+1.2", "-1.2", "+0.0", "–"]
    assert [to_percent(value) for value in (0.123456, None)] == [12.35, None]


def test_csv_without_rows_is_its_head() -> None:
    assert csv_text(("a", "b"), []) == "a,b\n"
    assert csv_text(("a", "b"), [(1, None), ("x,y", 0.5)]) == 'a,b\n1,\n"x,y",0.5\n'
