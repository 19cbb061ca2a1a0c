"""Job records: how a job ends, when its last run is current, and what counts as a change of code."""

from __future__ import annotations

import ast
import io
import subprocess
import sys
import tokenize
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from emoface.storage.files import file_sha256, write_text
from emoface.storage.records import (
    ABSENT,
    PHOTOS,
    JobRecord,
    _parse_code,
    code_fingerprint,
    find_current,
    finish_job,
    hash_inputs,
    list_changes,
    read_record,
    record_path,
    to_json_numbers,
    to_settings,
)

CODE = """
def greet(name):
    if name:
        return f"hello {name!r:>4} {{}}" + ", you"
    return None
"""

ODD_CODE = r'''
x = [1.5e-3, .5, 0x1F, 1_0j, a<<b, \
  ...]  # """
y = rb'\'' + b"#\"" + """a
"b\"""" ""  ; z = r"\""
if x :

	y**=1

 # less indented
else: w = "" if x != 1. else u'(' ""
"alone"
def f(x): return -1
class A:
    def g(self) -> None:
        "only" \
        " a docstring"
z'''
"""Every kind of token, a tab for an indent, strings that look like other things, and no line break at the end."""


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


def _read_by_standard_library(source: str) -> tuple[list[str], set[str]]:
    """The tokens of a module that affect its behaviour and the modules that it may import, by tokenize and ast."""
    nodes = list(ast.walk(ast.parse(source)))
    docstring_lines = {
        number
        for node in nodes
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
        for number in range(node.lineno, (node.end_lineno or node.lineno) + 1)
    }
    tokens = ["NEWLINE"]
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        kind = tokenize.tok_name[token.type]
        is_docstring = kind == "STRING" and token.start[0] in docstring_lines
        is_blank = kind == "NEWLINE" and tokens[-1] in ("NEWLINE", "INDENT", "DEDENT")
        if not (is_docstring or is_blank or kind in ("COMMENT", "NL", "ENDMARKER")):
            tokens.append(kind if kind in ("NEWLINE", "INDENT", "DEDENT") else token.string)
    imports = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    for node in nodes:
        if isinstance(node, ast.ImportFrom) and node.module:
            imports |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return tokens[1:], imports


@pytest.mark.skipif(sys.version_info >= (3, 12), reason="tokenize splits f-strings from Python 3.12 on")
def test_tokens_and_imports_of_modules_are_those_of_the_standard_library() -> None:
    folder = Path(__file__).parent
    paths = [*sorted((folder.parent / "emoface").rglob("*.py"))[::4], folder / "test_records.py"]
    for path in (*paths, None):
        source = ODD_CODE if path is None else path.read_text(encoding="utf-8")
        code, (tokens, imports) = _parse_code(source), _read_by_standard_library(source)
        assert (code.tokens, set(code.imports)) == ("\0".join(tokens), imports), path


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


@dataclass(frozen=True)
class GreetConfig:
    out: Path
    times: int = 1
    shares: tuple[float, ...] = (0.5, 0.5)
    recipe: Mapping[str, Any] = field(default_factory=dict)


MODULE = "emoface.version"


def _greet(config: GreetConfig, inputs: Mapping[str, str]) -> JobRecord:
    path = config.out / "a/hello.txt"
    write_text(path, "hello" * config.times)
    return finish_job("greet", config, config.out, module=MODULE, inputs=inputs, outputs=[path], counts={"n": 1})


def test_finished_job_leaves_a_record_of_all_that_it_was(tmp_path: Path) -> None:
    config = GreetConfig(tmp_path, recipe={"from": tmp_path, "steps": (1, 2)})
    record = _greet(config, {"x": "ab"})
    assert record == read_record(tmp_path, "greet")
    assert record.settings == {
        "out": str(tmp_path),
        "times": 1,
        "shares": [0.5, 0.5],
        "recipe": {"from": str(tmp_path), "steps": [1, 2]},
    }
    assert record.outputs == {"a/hello.txt": file_sha256(tmp_path / "a/hello.txt")}
    assert (record.inputs, record.counts, record.info) == ({"x": "ab"}, {"n": 1}, {})
    assert record.code == code_fingerprint(MODULE)


def test_run_is_current_until_something_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config, inputs = GreetConfig(tmp_path), {"x": "ab"}

    def find(config: GreetConfig = config, inputs: Mapping[str, str] = inputs) -> JobRecord | None:
        return find_current("greet", config, tmp_path, module=MODULE, inputs=inputs)

    assert find() is None
    record = _greet(config, inputs)
    assert find() == record
    assert find(GreetConfig(tmp_path, times=2)) is None
    assert find(inputs={"x": "cd"}) is None and find(inputs={}) is None and find(inputs={**inputs, "y": "1"}) is None
    (tmp_path / "a/hello.txt").write_text("hallo!")
    assert find() is None
    (tmp_path / "a/hello.txt").unlink()
    assert find() is None
    record = _greet(config, inputs)
    assert find() == record
    monkeypatch.setattr("emoface.storage.records.code_fingerprint", lambda module: "another")
    assert find() is None


def test_changes_are_named(tmp_path: Path) -> None:
    record = _greet(GreetConfig(tmp_path), {"d/a": "1", "d/b": "2", "d/c": ABSENT, "d/e": "3", "p": f"{PHOTOS}4"})
    settings = {**to_settings(GreetConfig(tmp_path, times=2)), "mark": None}
    del settings["shares"]
    now = {"d/a": "9", "d/b": ABSENT, "d/c": "5", "p": f"{PHOTOS}9", "d/f": "6"}
    assert list_changes(record, tmp_path, settings, now, record.code) == [
        "times was 1, is 2",
        "mark is new, none",
        "shares is no setting any more, was [0.5, 0.5]",
        "a changed",
        "d/b is gone",
        "c is new",
        "d/e is not read any more",
        "photos below p changed",
        "f is new",
    ]
    assert list_changes(record, tmp_path, record.settings, record.inputs, "other") == ["code changed"]
    assert list_changes(record, tmp_path / "elsewhere", record.settings, record.inputs, record.code) == [
        "a/hello.txt is gone"
    ]
    write_text(tmp_path / "a/hello.txt", "")
    assert list_changes(record, tmp_path, record.settings, record.inputs, record.code) == [
        "a/hello.txt is not what greet wrote"
    ]


def test_job_without_inputs_and_outputs_is_current_once_it_ended(tmp_path: Path) -> None:
    config = GreetConfig(tmp_path)
    finish_job("greet", config, tmp_path, module=MODULE, inputs={}, outputs=[], counts={})
    assert record_path(tmp_path, "greet").is_file()
    assert find_current("greet", config, tmp_path, module=MODULE, inputs={}) is not None


def test_inputs_that_are_not_there_are_absent(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("a")
    assert hash_inputs([tmp_path / "a", tmp_path / "b"]) == {
        str(tmp_path / "a"): file_sha256(tmp_path / "a"),
        str(tmp_path / "b"): ABSENT,
    }
    assert hash_inputs([]) == {}


def test_numbers_by_name_keep_whole_numbers_whole() -> None:
    assert to_json_numbers("ab", np.array([3, 4])) == {"a": 3, "b": 4}
    assert isinstance(to_json_numbers("a", np.array([3]))["a"], int)
    assert to_json_numbers([], []) == {}
    with pytest.raises(ValueError, match="shorter"):
        to_json_numbers("ab", [1.0])
