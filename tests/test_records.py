"""Job records: what counts as a change of code."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from emoface.storage.records import code_fingerprint

CODE = """
def greet(name):
    if name:
        return f"hello {name!r:>4} {{}}" + ", you"
    return None
"""


def _fingerprint(folder: Path, code: str, monkeypatch: pytest.MonkeyPatch) -> str:
    path = folder / "greeting.py"
    path.write_text(code, encoding="utf-8")
    module = ModuleType("greeting")
    module.__file__ = str(path)
    monkeypatch.setitem(sys.modules, "greeting", module)
    code_fingerprint.cache_clear()
    return code_fingerprint("greeting")


@pytest.mark.parametrize(
    ("change", "is_same"),
    [
        (("def greet(name):\n", 'def greet(name):\n    """Says hello."""\n\n'), True),
        (("    if name:", "    # a comment\n\n    if name:  # another"), True),
        (("    ", "  "), True),
        (("if name", "if not name"), False),
        (("{name!r:>4}", "{name!s:>4}"), False),
        (("hello ", "hallo "), False),
        (("    return None", "        return None"), False),
    ],
)
def test_only_code_counts_not_comments_docstrings_or_layout(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: tuple[str, str], is_same: bool
) -> None:
    changed = CODE.replace(*change)
    assert changed != CODE
    before = _fingerprint(tmp_path, CODE, monkeypatch)
    assert (_fingerprint(tmp_path, changed, monkeypatch) == before) is is_same


def test_fingerprint_does_not_depend_on_the_version_of_python(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The value was computed once by Python 3.11; CI of any other version must come to the same."""
    assert _fingerprint(tmp_path, CODE, monkeypatch) == "e33ae95899351a18"


def test_a_change_below_an_imported_module_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with_import = "from emoface.vision.boxes import box_areas\n" + CODE
    assert _fingerprint(tmp_path, with_import, monkeypatch) != _fingerprint(tmp_path, CODE, monkeypatch)


@pytest.mark.parametrize("name", ["emoface.jobs.pares", "emoface.storge", "nobody", "emoface.schema.CATEGORIES"])
def test_unknown_module_is_an_error(name: str) -> None:
    with pytest.raises(ValueError, match=f"no module is called '{name}'"):
        code_fingerprint(name)


def test_every_module_has_a_fingerprint() -> None:
    package = Path(__file__).parents[1] / "emoface"
    for path in package.rglob("*.py"):
        name = ".".join(path.relative_to(package.parent).with_suffix("").parts).removesuffix(".__init__")
        if name != "emoface":
            assert len(code_fingerprint(name)) == 16


def test_two_processes_agree() -> None:
    code = "from emoface.storage.records import code_fingerprint; print(code_fingerprint('emoface.jobs.evaluate'))"
    runs = [subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True) for _ in "ab"]
    assert runs[0].stdout == runs[1].stdout != ""
