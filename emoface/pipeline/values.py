"""Converts values of a pipeline file or of ``--set`` to the types of a job's configuration.

Values from TOML have a type, which must be that of the field; bare ``Text`` is converted to the type of the field.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError
from pydantic.fields import FieldInfo

from emoface.errors import SettingsError, did_you_mean
from emoface.pipeline.definition import Text
from emoface.storage.settings import FieldShape, Settings
from emoface.storage.urls import is_url, resolve_place


def build_config(where: str, job: str, config_class: type[Settings], values: Mapping[str, Any]) -> Settings:
    """Builds a job's configuration from the values of a stage.

    Args:
        where: The file and the stage, as every error message begins.
        job: Name of the job.
        config_class: Configuration class of the job.
        values: Values by field; bare ``Text`` if the type is still open. Relative paths become absolute.

    Raises:
        SettingsError: A field is unknown or missing, or a value has the wrong type or is refused by the configuration.
    """
    fields = config_class.model_fields
    for key in values:
        if key not in fields:
            raise SettingsError(f"{where}: {job} has no setting '{key}'{did_you_mean(key, fields)}")
    for name, field in fields.items():
        if field.is_required() and name not in values:
            raise SettingsError(f"{where}: {job} needs '{name}', and the stage does not set it")
    read = {key: _to_value(f"{where}: {key}", value, fields[key]) for key, value in values.items()}
    try:
        return config_class(**read)
    except SettingsError as error:
        raise SettingsError(f"{where}: {error}") from error


def to_absolute(config_class: type[Settings], name: str, value: Any) -> Any:
    """Makes the paths of a recorded setting absolute, as ``build_config`` does.

    Args:
        config_class: Configuration class of the job.
        name: Name of the setting; settings that the configuration does not have are returned unchanged.
        value: The recorded JSON value.
    """
    field = config_class.model_fields.get(name)
    if field is None or FieldShape.of(field).kind is not Path:
        return value
    if isinstance(value, list):
        return [str(resolve_place(part)) for part in value]
    return str(resolve_place(value)) if isinstance(value, str) else value


def _to_value(where: str, value: Any, field: FieldInfo) -> Any:
    """Converts one value; empty text means None if the field may be None."""
    shape = FieldShape.of(field)
    if value == "" and shape.is_optional:
        return None
    if shape.kind is Mapping:
        return _to_mapping(where, value)
    if shape.text_form is not None and isinstance(value, str):
        return str(value)
    if not shape.is_sequence:
        return _to_scalar(where, value, shape)
    if isinstance(value, str):  # a list may be written as text with / or , between its parts
        value = [Text(part.strip()) for part in value.replace("/", ",").split(",")]
    if not isinstance(value, list):
        raise SettingsError(f"{where} is {value!r}, expected a list")
    return tuple(_to_scalar(where, part, shape) for part in value)


def _to_scalar(where: str, value: Any, shape: FieldShape) -> Any:
    if shape.kind not in _EXPECTED:
        raise SettingsError(f"{where} cannot be set in a pipeline; leave it out")
    expected = f"{where} is {value!r}, expected {_EXPECTED[shape.kind]}"
    if shape.kind is Path:
        if not isinstance(value, str) or not value:
            raise SettingsError(expected)
        if not is_url(value):
            return Path(value).expanduser().resolve()
        if shape.path_kind is None or not shape.path_kind.may_be_url:
            raise SettingsError(f"{where} is the URL {value!r}, expected a path of this machine")
        return str(value)
    adapter = TypeAdapter(shape.kind)
    try:
        if not isinstance(value, Text):
            return adapter.validate_python(value, strict=True)
        if shape.kind is bool:  # pydantic would read yes, on and 1 as well
            return adapter.validate_json(value, strict=True)
        return adapter.validate_strings(value)
    except ValidationError as error:
        raise SettingsError(expected) from error


_EXPECTED = {str: "text", int: "a whole number", float: "a number", bool: "true or false", Path: "a path"}


def _to_mapping(where: str, value: Any) -> dict[str, Any]:
    """Reads a table whose values the job checks itself; bare text that is valid TOML becomes that TOML value.

    Empty text leaves the value out, so that the job's own applies.
    """
    if not isinstance(value, dict):
        raise SettingsError(
            f"{where} is {value!r}, expected a table; one value of it is set as {where.split(': ')[-1]}.KEY"
        )
    return {key: _read_as_toml(part) if isinstance(part, Text) else part for key, part in value.items() if part != ""}


def _read_as_toml(text: str) -> Any:
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except (ValueError, RecursionError):
        return str(text)
