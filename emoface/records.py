"""Job records: what a job was told, what it read, what it wrote and what it counted.

A record is written last and in one step, so it is itself the mark that its job finished.
"""

from __future__ import annotations

import ast
import hashlib
import json
import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from emoface import __version__
from emoface.errors import TableError
from emoface.files import file_sha256, stat_digest, write_text

_PACKAGE_DIR = Path(__file__).parent

ABSENT = "absent"
"""What ``inputs`` say of a file that a job would have read, had it been there."""

PHOTOS = "photos "
"""Begins what ``inputs`` say of a folder of photos: a digest of sizes and times of change, not of pixels."""


@dataclass(frozen=True)
class JobRecord:
    """One finished run of one job.

    Attributes:
        job: The job's word (``parse``, ``faces``...).
        settings: Every setting of its configuration, as JSON values.
        inputs: sha256 of each file that decided the outcome, by path; ``ABSENT`` where it was not there; of a
            folder of photos what ``photo_inputs`` gives.
        outputs: sha256 of each file it wrote, by path relative to the job's folder.
        counts: What it counted, flat or nested, ready to print.
        info: Facts that later jobs need (``image_root``, detector name...).
        code: Fingerprint of the code that ran, see ``code_fingerprint``.
        version: emoface's version.
    """

    job: str
    settings: dict[str, Any]
    inputs: dict[str, str]
    outputs: dict[str, str]
    counts: dict[str, Any]
    info: dict[str, Any] = field(default_factory=dict)
    code: str = ""
    version: str = __version__


def record_path(out: Path, job: str) -> Path:
    """Where the record of a job lies: ``OUT/records/JOB.json``."""
    return out / "records" / f"{job}.json"


def write_record(out: Path, record: JobRecord) -> None:
    """Writes ``OUT/records/JOB.json`` in one step; the last thing a job does."""
    text = json.dumps(asdict(record), indent=2, ensure_ascii=False)
    write_text(record_path(out, record.job), text + "\n")


def read_record(out: Path, job: str) -> JobRecord | None:
    """The record of a job's last finished run in ``out``, or None where it never finished.

    Raises:
        TableError: The file is there but is no record.
    """
    path = record_path(out, job)
    if not path.is_file():
        return None
    try:
        return JobRecord(**json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, TypeError) as error:
        raise TableError(f"{path}: not a job record ({error}); delete it and run 'emoface {job}' again") from error


def need_record(out: Path, job: str) -> JobRecord:
    """The record of a job that must have finished before this one.

    Raises:
        TableError: It has not.
    """
    record = read_record(out, job)
    if record is None:
        raise TableError(f"{record_path(out, job)}: no such file; run 'emoface {job}' first")
    return record


def to_settings(config: Any) -> dict[str, Any]:
    """A job's configuration as JSON values; paths become strings.

    Args:
        config: A configuration dataclass.
    """
    return {name: _to_json_value(value) for name, value in asdict(config).items()}


def _to_json_value(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return [_to_json_value(one) for one in value]
    return str(value) if isinstance(value, Path) else value


def to_json_number(value: Any) -> Any:
    """A number as JSON knows it: six digits after the point are enough, and nan is null."""
    if value is None or isinstance(value, int):
        return value
    return None if math.isnan(value) else round(float(value), 6)


def hash_outputs(out: Path, paths: list[Path]) -> dict[str, str]:
    """sha256 of each file, by its path relative to ``out``."""
    return {path.relative_to(out).as_posix(): file_sha256(path) for path in paths}


def photo_inputs(image_root: Path, images: Iterable[str]) -> dict[str, str]:
    """The entry of ``inputs`` for photos, which are too many to hash: any that comes, goes or is replaced changes it.

    Args:
        image_root: The folder below which ``image`` paths start.
        images: The photos that the job read, in the order of ``people.parquet``.
    """
    return {str(image_root): PHOTOS + stat_digest(image_root, dict.fromkeys(images))}


@cache
def code_fingerprint(module: str) -> str:
    """A hash of a module's code and of all emoface code it imports.

    Comments, docstrings and layout do not count, so only a change of behaviour makes a job stale.

    Args:
        module: Dotted name, such as ``emoface.jobs.parse``.

    Returns:
        16 hexadecimal digits.
    """
    seen: dict[str, str] = {}
    waiting = [module]
    while waiting:
        name = waiting.pop()
        path = _module_path(name)
        if name in seen or path is None:
            continue
        tree = ast.parse(path.read_text(encoding="utf-8"))
        waiting.extend(_imported_modules(tree))
        seen[name] = ast.dump(_without_docstrings(tree))
    digest = hashlib.sha256()
    for name in sorted(seen):
        digest.update(f"{name}\0{seen[name]}\0".encode())
    return digest.hexdigest()[:16]


def _module_path(name: str) -> Path | None:
    parts = name.split(".")
    if parts[0] != "emoface":
        return None
    base = _PACKAGE_DIR.joinpath(*parts[1:])
    for path in (base.with_suffix(".py"), base / "__init__.py"):
        if len(parts) > 1 and path.is_file():
            return path
    return None


def _imported_modules(tree: ast.Module) -> list[str]:
    names: list[str] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names += [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
    return names


def _without_docstrings(tree: ast.Module) -> ast.Module:
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if not isinstance(body, list):
            continue
        node.body = [  # type: ignore[attr-defined]
            statement
            for statement in body
            if not (isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant))
        ]
    return tree
