"""Job records: the settings of a job, the files it read and wrote, and what it counted.

A record is written last and in one step, so its existence means that the job finished. A finished run is current
while its settings, inputs and code are the same and every file it wrote still has its sha256.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from emoface.errors import TableError
from emoface.storage.files import file_sha256, is_below, parse_json, read_text, write_text
from emoface.storage.photo_stores import PhotoStates, open_store
from emoface.storage.settings import Settings
from emoface.storage.urls import Place
from emoface.version import __version__

_PACKAGE_DIR = Path(__file__).parents[1]

ABSENT = "absent"
"""The value in ``inputs`` of a file that the job would have read if it had existed."""

PHOTOS = "photos "
"""Prefix of the value in ``inputs`` of a folder of photos: a digest of sizes and modification times, not of pixels."""

FACTS = "facts "
"""Prefix of the value in ``inputs`` of another job's record: the names of what was read from it, and its digest."""

ALL_INFO = "info"
"""The name of all of a record's ``info`` among the facts that are read from it."""


@dataclass(frozen=True)
class JobRecord:
    """One finished run of one job.

    Attributes:
        job: The job's name (``parse``, ``faces``...).
        settings: Every setting of its configuration, as JSON values.
        inputs: sha256 of each file that the result depends on, by path; ``ABSENT`` if the file did not exist; for a
            folder of photos the value from ``photo_inputs``, for another job's record that of ``fact_inputs``.
        outputs: sha256 of each file that the job wrote, by path relative to the job's folder.
        counts: The numbers that the job counted, flat or nested, ready to print.
        info: Facts that later jobs need (``image_root``, detector name...).
        code: Fingerprint of the code that ran, see ``code_fingerprint``.
        version: The version of emoface.
    """

    job: str
    settings: dict[str, Any]
    inputs: dict[str, str]
    outputs: dict[str, str]
    counts: dict[str, Any]
    info: dict[str, Any] = field(default_factory=dict)
    code: str = ""
    version: str = __version__

    @property
    def files(self) -> dict[str, str]:
        """The files among ``inputs`` that existed: sha256 by path."""
        others = (PHOTOS, FACTS, ABSENT)
        return {path: value for path, value in self.inputs.items() if not value.startswith(others)}


def record_path(out: Path, job: str) -> Path:
    """The path of a job's record: ``OUT/records/JOB.json``."""
    return out / "records" / f"{job}.json"


def write_record(out: Path, record: JobRecord) -> None:
    """Writes ``OUT/records/JOB.json`` in one step; the last step of a job."""
    text = json.dumps(asdict(record), indent=2, ensure_ascii=False)
    write_text(record_path(out, record.job), text + "\n")


def read_record(out: Path, job: str) -> JobRecord | None:
    """Reads the record of a job's last finished run in ``out``; None if the job never finished there.

    Raises:
        TableError: The file exists but is not a record.
    """
    path = record_path(out, job)
    if not path.is_file():
        return None
    try:
        record = JobRecord(**parse_json(read_text(path, TableError)))
    except (ValueError, TypeError) as error:
        raise TableError(f"{path}: not a job record ({error}); delete it and run 'emoface {job}' again") from error
    tables = ("settings", "inputs", "outputs", "counts", "info")
    wrong = [name for name in tables if not isinstance(getattr(record, name), dict)]
    wrong += [name for name in ("inputs", "outputs") if name not in wrong and not _are_texts(getattr(record, name))]
    wrong += [f"outputs: {name}" for name in record.outputs if "outputs" not in wrong and not is_below(name)]
    if wrong:
        raise TableError(f"{path}: not a job record ({wrong[0]}); delete it and run 'emoface {job}' again")
    return record


def _are_texts(values: dict[str, Any]) -> bool:
    return all(isinstance(value, str) for value in values.values())


def need_record(out: Path, job: str) -> JobRecord:
    """Reads the record of a job that must have finished before the current job.

    Raises:
        TableError: The job has not finished, or its record is damaged.
    """
    record = read_record(out, job)
    if record is None:
        raise TableError(f"{record_path(out, job)}: no such file; run 'emoface {job}' first")
    return record


def finish_job(
    job: str,
    config: Any,
    out: Path,
    *,
    module: str,
    inputs: Mapping[str, str],
    outputs: Iterable[Path],
    counts: Mapping[str, Any],
    info: Mapping[str, Any] | None = None,
) -> JobRecord:
    """Writes the record of a job after all of its files are written; the last step of a job.

    Args:
        job: The job's name.
        config: The configuration of the job.
        out: The job's folder, in which the record is written.
        module: Dotted name of the job's module, whose code is hashed.
        inputs: See ``JobRecord``.
        outputs: The files that the job wrote, all below ``out``.
        counts: See ``JobRecord``.
        info: See ``JobRecord``.

    Returns:
        The record.
    """
    record = JobRecord(
        job=job,
        settings=to_settings(config),
        inputs=dict(inputs),
        outputs=hash_outputs(out, outputs),
        counts=dict(counts),
        info=dict(info or {}),
        code=code_fingerprint(module),
    )
    write_record(out, record)
    return record


def find_current(job: str, config: Any, out: Path, *, module: str, inputs: Mapping[str, str]) -> JobRecord | None:
    """Finds the record of a job's last run in ``out`` if that run is current and need not be repeated.

    Args:
        job: The job's name.
        config: The configuration with which the job would run now.
        out: The job's folder.
        module: Dotted name of the job's module.
        inputs: The inputs that the job would read now, see ``JobRecord``.

    Returns:
        The record; None if the job never finished or its last run is out of date.

    Raises:
        TableError: The record is damaged.
    """
    record = read_record(out, job)
    if record is None or list_changes(record, out, to_settings(config), inputs, code_fingerprint(module)):
        return None
    return record


def list_changes(
    record: JobRecord, out: Path, settings: Mapping[str, Any], inputs: Mapping[str, str], code: str
) -> list[str]:
    """Lists the reasons why a finished run is not current.

    Args:
        record: The record of the run.
        out: The folder that the run wrote to.
        settings: The settings with which the job would run now, as JSON values.
        inputs: The inputs that the job would read now; ``ABSENT`` for a file that does not exist.
        code: The fingerprint of the job's code now.

    Returns:
        One phrase for each setting, input and output that changed, and one for the code; empty if the run is current.
    """
    return [
        *_changed_settings(record.settings, settings),
        *_changed_inputs(record.inputs, inputs),
        *_changed_outputs(record, out),
        *(["code changed"] if record.code != code else []),
    ]


def _changed_settings(before: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[str]:
    for name in [*now, *(name for name in before if name not in now)]:
        if name not in before:
            yield f"{name} is new, {_format_value(now[name])}"
        elif name not in now:
            yield f"{name} is no setting any more, was {_format_value(before[name])}"
        elif before[name] != now[name]:
            yield f"{name} was {_format_value(before[name])}, is {_format_value(now[name])}"


def _format_value(value: Any) -> str:
    return "none" if value is None else str(value)


def _changed_inputs(before: Mapping[str, str], now: Mapping[str, str]) -> Iterator[str]:
    for name in [*before, *(name for name in now if name not in before)]:
        was, found = before.get(name), now.get(name)
        if was == found:
            continue
        if found is None:
            yield f"{name} is not read any more"
        elif (was or found).startswith(PHOTOS):
            yield f"photos below {name} changed"
        elif (was or found).startswith(FACTS):
            yield f"{' or '.join(_fact_names(was or found))} in {Path(name).name} changed"
        elif was in (None, ABSENT):
            yield f"{Path(name).name} is new"
        elif found == ABSENT:
            yield f"{name} is gone"
        else:
            yield f"{Path(name).name} changed"


def _changed_outputs(record: JobRecord, out: Path) -> Iterator[str]:
    for name, sha256 in record.outputs.items():
        path = out / name
        if not path.is_file():
            yield f"{name} is gone"
        elif cached_sha256(path) != sha256:
            yield f"{name} is not what {record.job} wrote"


def cached_sha256(path: Path) -> str:
    """Computes the sha256 of a file; cached while its inode, size and modification time stay the same.

    A file may be the output of one stage and the input of another; the cache lets one check of a pipeline read it once.
    """
    found = path.stat()
    return _sha256_of(path, found.st_ino, found.st_size, found.st_mtime_ns)


@lru_cache(maxsize=4096)
def _sha256_of(path: Path, *_: int) -> str:
    return file_sha256(path)


def to_settings(config: Any) -> dict[str, Any]:
    """Converts a job's configuration to JSON values; paths become strings.

    Args:
        config: A ``Settings`` object or a configuration dataclass.
    """
    if isinstance(config, Settings):
        return config.to_json()
    return {name: _to_json_value(value) for name, value in asdict(config).items()}


def _to_json_value(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _to_json_value(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_to_json_value(one) for one in value]
    return str(value) if isinstance(value, Path) else value


def to_json_number(value: Any) -> Any:
    """Converts a number to a JSON value, rounded to six decimal places; nan becomes null."""
    if value is None or isinstance(value, int):
        return value
    return None if math.isnan(value) else round(float(value), 6)


def to_json_numbers(names: Sequence[str], values: ArrayLike) -> dict[str, Any]:
    """Converts named numbers to JSON values, each by ``to_json_number``.

    Args:
        names: k names.
        values: (k,) Python or numpy numbers.

    Example:
        >>> to_json_numbers(["a", "b"], [1 / 3, float("nan")])
        {'a': 0.333333, 'b': None}
    """
    return {name: to_json_number(value) for name, value in zip(names, np.asarray(values).tolist(), strict=True)}


def hash_inputs(paths: Iterable[Path]) -> dict[str, str]:
    """Computes the entries of ``inputs`` for files: the sha256 of each by its path, ``ABSENT`` if it does not exist."""
    return {str(path): file_sha256(path) if path.is_file() else ABSENT for path in paths}


def fact_inputs(out: Path, job: str, names: Sequence[str]) -> dict[str, str]:
    """Computes the entry of ``inputs`` for what a job reads from the record of another.

    Args:
        out: The folder of the other job.
        job: The other job's name.
        names: What is read: attributes of the record, such as ``counts`` or all its ``info``, or names in ``info``.

    Raises:
        TableError: The record is damaged.
    """
    record = read_record(out, job)
    path = str(record_path(out, job))
    return {path: ABSENT if record is None else f"{FACTS}{','.join(names)} {_digest_facts(record, names)}"}


def present_facts(path: Path, value: str) -> str:
    """Computes what ``fact_inputs`` gives now for an entry that it gave before, by the path of the other record.

    Raises:
        TableError: The record is damaged.
    """
    return next(iter(fact_inputs(path.parent.parent, path.stem, _fact_names(value)).values()))


def _fact_names(value: str) -> list[str]:
    return value.removeprefix(FACTS).partition(" ")[0].split(",")


def _digest_facts(record: JobRecord, names: Sequence[str]) -> str:
    whole = {**vars(record), "files": record.files}
    facts = {name: whole[name] if name in whole else record.info.get(name) for name in names}
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def hash_outputs(out: Path, paths: Iterable[Path]) -> dict[str, str]:
    """Computes the sha256 of each file, by its path relative to ``out``."""
    return {path.relative_to(out).as_posix(): file_sha256(path) for path in paths}


def photo_inputs(image_root: Place, images: Iterable[str]) -> dict[str, str]:
    """Computes the entry of ``inputs`` for photos: it changes when a photo is added, removed or replaced.

    The photos are too many to hash their content, so their sizes and modification times, or versions, are hashed.

    Args:
        image_root: The folder that the ``image`` paths are relative to, or its URL.
        images: The photos that the job read, in the order of ``people.parquet``.
    """
    names = list(dict.fromkeys(images))
    return state_inputs(image_root, open_store(image_root).read_states(names), names)


def state_inputs(image_root: Place, states: PhotoStates, images: Iterable[str]) -> dict[str, str]:
    """Computes the entry of ``inputs`` for photos whose states have been read, see ``photo_inputs``."""
    return {str(image_root): PHOTOS + states.digest(dict.fromkeys(images))}


_STRING = "|".join(
    rf"{q * 3}[^{q}\\]*(?:(?:\\.|{q}(?!{q * 2}))[^{q}\\]*)*{q * 3}|{q}[^{q}\\\n]*(?:\\.[^{q}\\\n]*)*{q}" for q in "\"'"
)
_TOKEN = re.compile(
    rf"""
    (?: [ \t\f] | \\\n )* (?: \#[^\n]* )?  # blanks, lines that go on after a backslash, and a comment
    (?:
        (?P<newline> \n )
      | (?P<text> [rRuU]? (?:{_STRING}) )
      | (?P<code>
            [bBfFrR]{{1,2}} (?:{_STRING})
          | 0[xXoObB]\w+ | (?: \d[\d_]*\.?[\d_]* | \.\d[\d_]* ) (?: [eE][+-]?[\d_]+ )? [jJ]?
          | \w+
          | \*\*=? | //=? | >>=? | <<=? | \.\.\. | -> | := | [-+*/%&@|^=<>!]= | [^\s\w]
        )
    )
    """,
    re.VERBOSE | re.DOTALL,
)


@cache
def code_fingerprint(module: str) -> str:
    """Computes a hash of a module's code and of all emoface code that it imports.

    Comments, docstrings and layout are left out, so that only a change of the code itself makes a finished job out of
    date. The tokens are hashed rather than ``ast.dump``, whose text differs between versions of Python.

    Args:
        module: Dotted name of a module of emoface, such as ``emoface.jobs.parse``, or of another module that is already
            imported.

    Returns:
        16 hexadecimal digits.

    Raises:
        ValueError: There is no such module.
    """
    seen: dict[str, str] = {}
    waiting: list[tuple[str, Path | None]] = [(module, _find_module(module))]
    while waiting:
        name, path = waiting.pop()
        if name in seen or path is None:
            continue
        code = _parse_code(path.read_text(encoding="utf-8"))
        waiting.extend((imported, _module_path(imported)) for imported in code.imports)
        seen[name] = code.tokens
    digest = hashlib.sha256()
    for name in sorted(seen):
        digest.update(f"{name}\0{seen[name]}\0".encode())
    return digest.hexdigest()[:16]


@dataclass(frozen=True)
class _ModuleCode:
    """The tokens of a module that affect its behaviour, and the names of the modules that it imports."""

    tokens: str
    imports: tuple[str, ...]


@cache
def _parse_code(source: str) -> _ModuleCode:
    """Parses the source of a module; most modules are part of several fingerprints."""
    tokens: list[str] = []
    imports: list[str] = []
    for line in _logical_lines(source):
        if line[0] in ("import", "from"):
            imports += _imported_modules(line)
        tokens += line
    return _ModuleCode("\0".join(tokens), tuple(imports))


def _find_module(name: str) -> Path:
    path = _module_path(name)
    if path is None and not name.startswith("emoface.") and (loaded := sys.modules.get(name)) is not None:
        path = Path(loaded.__file__) if loaded.__file__ else None
    if path is None:
        raise ValueError(f"no module is called '{name}', so its code cannot be hashed")
    return path


def _module_path(name: str) -> Path | None:
    parts = name.split(".")
    if parts[0] != "emoface":
        return None
    base = _PACKAGE_DIR.joinpath(*parts[1:])
    for path in (base.with_suffix(".py"), base / "__init__.py"):
        if len(parts) > 1 and path.is_file():
            return path
    return None


def _imported_modules(line: list[str]) -> list[str]:
    """Lists the modules that an import statement may import, from its tokens."""
    at = line.index("import")
    module = "".join(line[1:at])  # of 'from module import name', otherwise nothing
    names = "".join(" as " if token == "as" else token for token in line[at + 1 : -1]).strip("()").split(",")
    imported = [name.partition(" ")[0] for name in names if name]
    return [module, *(f"{module}.{name}" for name in imported)] if module else imported


def _logical_lines(source: str) -> Iterator[list[str]]:
    """Yields the tokens of each line that affects the behaviour of a module, the same in every version of Python.

    They are the tokens of ``tokenize``, which would take as long as all imports of a command. Docstrings, comments and
    blank lines are left out, and a change of the indent is a line of its own that says only how the depth changes. An
    f-string is one token, as before Python 3.12.
    """
    indents = [0]
    line: list[str] = []
    n_open, has_code = 0, False
    for match in _TOKEN.finditer(source):
        kind = match.lastgroup or ""
        token = match[kind]
        if kind == "newline":
            if line and not n_open:
                if has_code:
                    yield [*line, "NEWLINE"]
                line, has_code = [], False
            continue
        if not line:
            yield from _change_indent(indents, match.start(kind) - match.start())
        line.append(token)
        has_code = has_code or kind != "text"
        n_open += (token in "([{") - (token in ")]}")
    if has_code:
        yield [*line, "NEWLINE"]
    yield from _change_indent(indents, 0)


def _change_indent(indents: list[int], width: int) -> Iterator[list[str]]:
    """Yields what changes between the last of the indents that are open and one of this width, and updates them."""
    if width > indents[-1]:
        indents.append(width)
        yield ["INDENT"]
    while width < indents[-1]:
        indents.pop()
        yield ["DEDENT"]
