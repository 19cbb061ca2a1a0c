"""Values of a pipeline file or of the command line, as the field of a job's configuration wants them."""

from __future__ import annotations

import tomllib
import types
import typing
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from emoface.errors import SettingsError
from emoface.pipeline.definition import Text


def to_value(where: str, value: Any, hint: Any) -> Any:
    """A value of the file or the command line as its field wants it.

    Where a field may be None, empty text means None.

    Args:
        where: The file, stage and key, for the message.
        value: What was written; bare ``Text`` where the type is still open.
        hint: The field's type.

    Raises:
        SettingsError: It is of another type.
    """
    choices = hint_choices(hint)
    if value == "" and types.NoneType in choices:
        return None
    kind = next(choice for choice in choices if choice is not types.NoneType)
    if typing.get_origin(kind) in (tuple, list):
        return _to_sequence(where, value, kind)
    if typing.get_origin(kind) is Mapping:
        return _to_mapping(where, value)
    if kind not in _READERS:
        raise SettingsError(f"{where} cannot be set in a pipeline; leave it out")
    expected, accepted, read = _READERS[kind]
    try:
        if isinstance(value, Text | accepted) and not (isinstance(value, bool) and kind is not bool):
            return read(value)
        raise ValueError(value)
    except ValueError as error:
        raise SettingsError(f"{where} is {value!r}, expected {expected}") from error


def _to_sequence(where: str, value: Any, kind: Any) -> Any:
    """Lists are written as TOML lists or as text with ``/`` or ``,`` between the parts."""
    parts = typing.get_args(kind)
    if isinstance(value, str):
        value = [Text(part.strip()) for part in value.replace("/", ",").split(",")]
    if not isinstance(value, list):
        raise SettingsError(f"{where} is {value!r}, expected a list")
    is_open = len(parts) == 1 or (len(parts) == 2 and parts[1] is Ellipsis)
    if not is_open and len(value) != len(parts):
        raise SettingsError(f"{where} has {len(value)} values, expected {len(parts)}")
    part_types = [parts[0]] * len(value) if is_open else parts
    read = [to_value(where, part, part_type) for part, part_type in zip(value, part_types, strict=True)]
    return tuple(read) if typing.get_origin(kind) is tuple else read


def _to_mapping(where: str, value: Any) -> dict[str, Any]:
    """A table whose values the job checks itself; bare text is a number, true or a list where it reads as one."""
    if not isinstance(value, dict):
        raise SettingsError(
            f"{where} is {value!r}, expected a table; one value of it is set as {where.split(': ')[-1]}.KEY"
        )
    return {key: _guess(part) if isinstance(part, Text) else part for key, part in value.items()}


def _guess(text: str) -> Any:
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return str(text)


def _to_bool(value: bool | str) -> bool:
    if isinstance(value, bool):
        return value
    if value not in ("true", "false"):
        raise ValueError(value)
    return value == "true"


def _to_path(value: str) -> Path:
    if not value:
        raise ValueError("a path needs a name")
    return Path(value).expanduser().resolve()


_READERS: dict[Any, tuple[str, Any, Callable[[Any], Any]]] = {
    str: ("text", str, str),
    int: ("a whole number", int, int),
    float: ("a number", int | float, float),
    bool: ("true or false", bool, _to_bool),
    Path: ("a path", str, _to_path),
}
"""By type of a field: what to call it, the TOML types that it takes, and how it is read."""


def hint_choices(hint: Any) -> tuple[Any, ...]:
    """The types of ``X | None``, of ``X`` alone otherwise."""
    return typing.get_args(hint) if typing.get_origin(hint) in (types.UnionType, typing.Union) else (hint,)
