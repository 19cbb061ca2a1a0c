"""Reads a pipeline file: TOML that names stages and their settings, with its variables replaced by their values.

    [settings]
    out = "work"

    [[stage]]
    job = "split"
    dir = "${out}"
    ratios = "70/10/20"

``${out}`` in a stage takes the value from ``[settings]``, which ``--set out=elsewhere`` overrides; ``--set
split.seed=7`` sets one value of one stage. Relative paths start where the command runs. Whether a stage names a known
job and valid settings is checked later, see ``emoface.pipeline.stages.to_stage``.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from dataclasses import field as dataclass_field
from pathlib import Path
from typing import Any

from emoface.errors import SettingsError, did_you_mean
from emoface.storage.cards import pipelines_dir
from emoface.storage.files import read_text

_VARIABLE = re.compile(r"\$\{([^}]*)\}")
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_+-]*")


class Text(str):
    """A value given as bare text on the command line; the type of the field that takes it decides how it is read."""

    __slots__ = ()


@dataclass(frozen=True)
class StageTable:
    """One ``[[stage]]`` table of a pipeline file, its variables replaced by their values.

    Attributes:
        name: Name of the stage, unique in the file; the job's name if the file gives none.
        job: Name of the job, such as ``split``.
        values: Values for the fields of the job's configuration, by field; bare ``Text`` if the type is still open.
        variables: The variable of the pipeline file that alone gives a field its value, by field.
    """

    name: str
    job: str
    values: dict[str, Any]
    variables: dict[str, str] = dataclass_field(default_factory=dict)


@dataclass(frozen=True)
class PipelineFile:
    """A pipeline file that was read.

    Attributes:
        path: Path of the file.
        settings: Value of each variable, command-line values included.
        stages: The stages in the order of the file, which is the order they run in.
    """

    path: Path
    settings: dict[str, Any]
    stages: tuple[StageTable, ...]


def find_pipeline_file(name: str) -> Path:
    """Finds a pipeline file by its path, or by the bare name of one that comes with emoface.

    Raises:
        SettingsError: There is no such file, and no such file comes with emoface.

    Example:
        >>> find_pipeline_file("emotic_face").name
        'emotic_face.toml'
    """
    path = Path(name)
    if path.is_file():
        return path
    bundled = {one.stem: one for one in sorted(pipelines_dir().glob("*.toml"))}
    if path.name == name and path.stem in bundled and path.suffix in ("", ".toml"):
        return bundled[path.stem]
    raise SettingsError(f"{name}: no such pipeline file, and none of emoface's own{did_you_mean(path.stem, bundled)}")


def read_pipeline_file(name: str, overrides: Mapping[str, str] | None = None) -> PipelineFile:
    """Reads a pipeline file and replaces its variables by their values.

    Args:
        name: A path or a bare name, see ``find_pipeline_file``.
        overrides: Values given as text, by variable (``out``), or by stage and field (``split.seed``,
            ``train.recipe.epochs``); they replace those of the file.

    Raises:
        SettingsError: The file is missing or is not TOML; or a key, a variable or a stage is unknown.
    """
    path = find_pipeline_file(name)
    document = _read_toml(path)
    settings = _table(path, "settings", document.get("settings", {}))
    tables = document.get("stage", [])
    if not isinstance(tables, list) or not tables:
        raise SettingsError(f'{path}: no stages; expected one [[stage]] table for each, with job = "..."')
    stages = [_read_stage(path, number, table) for number, table in enumerate(tables, 1)]
    _check_names(path, stages)
    _check_all_used(path, settings, stages)
    settings, stages = _override(path, settings, stages, overrides or {})
    filled = tuple(
        StageTable(
            stage.name,
            stage.job,
            {
                key: _fill(f"{path}: stage '{stage.name}': {key}", value, settings)
                for key, value in stage.values.items()
            },
            {
                key: alone[1]
                for key, value in stage.values.items()
                if isinstance(value, str) and (alone := _VARIABLE.fullmatch(value))
            },
        )
        for stage in stages
    )
    return PipelineFile(path, settings, filled)


def parse_overrides(texts: Iterable[str]) -> dict[str, str]:
    """Reads the ``KEY=VALUE`` texts of ``--set``.

    Raises:
        SettingsError: A text has no ``=`` or no key.

    Example:
        >>> parse_overrides(["out=work", "split.ratios=80/10/10"])
        {'out': 'work', 'split.ratios': '80/10/10'}
    """
    overrides = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not equals or not key.strip():
            raise SettingsError(f"--set {text}: expected KEY=VALUE, such as --set out=work")
        overrides[key.strip()] = value.strip()
    return overrides


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        document = tomllib.loads(read_text(path, SettingsError).replace("\r\n", "\n"))
    except (ValueError, RecursionError) as error:  # also a number of too many digits, lists in lists in lists
        raise SettingsError(f"{path}: not TOML ({error})") from error
    for key in document:
        if key not in ("settings", "stage"):
            raise SettingsError(f"{path}: '{key}' is not known here{did_you_mean(key, ('settings', 'stage'))}")
    return document


def _table(path: Path, where: str, table: Any, may_nest: bool = False) -> dict[str, Any]:
    """Checks a table of plain values; with ``may_nest`` a value may itself be a table of plain values."""
    if not isinstance(table, dict):
        raise SettingsError(f"{path}: {where} is {table!r}, expected a table of KEY = VALUE lines")
    for key, value in table.items():
        if may_nest and isinstance(value, dict):
            _table(path, f"{where}: {key}", value)
        elif not isinstance(value, str | bool | int | float | list):
            raise SettingsError(f"{path}: {where}: {key} is {value!r}, expected text, a number, true, false or a list")
    return table


def _read_stage(path: Path, number: int, table: Any) -> StageTable:
    values = dict(_table(path, f"stage {number}", table, may_nest=True))
    if "job" not in values:
        raise SettingsError(f'{path}: stage {number} names no job; expected job = "parse" or another, found {values}')
    job = values.pop("job")
    name = values.pop("name", job)
    for key, value in (("job", job), ("name", name)):
        if not isinstance(value, str) or not _NAME.fullmatch(value):
            raise SettingsError(f"{path}: stage {number}: {key} is {value!r}, expected a word of letters and digits")
    return StageTable(name, job, values)


def _check_names(path: Path, stages: list[StageTable]) -> None:
    names = [stage.name for stage in stages]
    for name in names:
        if names.count(name) > 1:
            raise SettingsError(f"{path}: two stages are called '{name}'; give each a name = \"...\" of its own")


def _check_all_used(path: Path, settings: dict[str, Any], stages: list[StageTable]) -> None:
    used = {name for stage in stages for name in _variables(stage.values)}
    for name in settings:
        if name not in used:
            raise SettingsError(f"{path}: setting '{name}' is used by no stage; write ${{{name}}} where it belongs")


def _variables(value: Any) -> list[str]:
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list):
        return [name for part in value for name in _variables(part)]
    return _VARIABLE.findall(value) if isinstance(value, str) else []


def _override(
    path: Path, settings: dict[str, Any], stages: list[StageTable], overrides: Mapping[str, str]
) -> tuple[dict[str, Any], list[StageTable]]:
    """Replaces values of the settings and stages by those of the command line."""
    settings = dict(settings)
    values_of = {stage.name: dict(stage.values) for stage in stages}
    for key, text in overrides.items():
        stage, dot, field = key.partition(".")
        if dot and stage in values_of:
            field, nested, part = field.partition(".")
            before = values_of[stage].get(field)
            inner = dict(before) if isinstance(before, dict) else {}
            values_of[stage][field] = {**inner, part: Text(text)} if nested else Text(text)
        elif key in settings:
            settings[key] = Text(text)
        elif dot:
            raise SettingsError(f"--set {key}: {path} has no stage '{stage}'{did_you_mean(stage, values_of)}")
        else:
            raise SettingsError(f"--set {key}: {path} has no setting '{key}'{did_you_mean(key, settings)}")
    return settings, [StageTable(stage.name, stage.job, values_of[stage.name]) for stage in stages]


def _fill(where: str, value: Any, settings: Mapping[str, Any]) -> Any:
    """Replaces the variables in a value; a value that is one variable and nothing else takes the variable's type."""
    if isinstance(value, dict):
        return {key: _fill(f"{where}.{key}", part, settings) for key, part in value.items()}
    if isinstance(value, list):
        return [_fill(where, part, settings) for part in value]
    if not isinstance(value, str):
        return value
    for name in _VARIABLE.findall(value):
        if name not in settings:
            raise SettingsError(
                f"{where} uses ${{{name}}}, which [settings] does not set{did_you_mean(name, settings)}"
            )
    if alone := _VARIABLE.fullmatch(value):
        return settings[alone[1]]
    return type(value)(_VARIABLE.sub(lambda found: str(settings[found[1]]), value))
