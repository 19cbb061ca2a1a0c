"""The base of every job's configuration: typed settings with their ranges, choices and descriptions in one place.

The command line builds its options from the fields of a configuration, pipeline files are checked against the fields,
and a job's record contains their values.
"""

from __future__ import annotations

import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    ValidatorFunctionWrapHandler,
    model_validator,
)
from pydantic.fields import FieldInfo

from emoface.errors import SettingsError, did_you_mean
from emoface.storage.urls import Place, to_place

_MOST_SHOWN = 60
"""Number of characters of a wrong value that an error message shows."""


@dataclass(frozen=True)
class PathKind:
    """States whether a path of a configuration is a folder or a file, for the command line.

    Attributes:
        is_folder: True for a folder, False for a file, None for either.
        may_be_url: Whether the URL of an object store may be given as well.
    """

    is_folder: bool | None
    may_be_url: bool = False


@dataclass(frozen=True)
class TextForm:
    """Marks a field whose value the command line accepts as one text, which the configuration parses.

    Attributes:
        default: The default value as text.
    """

    default: str


Folder = Annotated[Path, PathKind(is_folder=True)]
File = Annotated[Path, PathKind(is_folder=False)]
FolderOrUrl = Annotated[Place, BeforeValidator(to_place), PathKind(is_folder=True, may_be_url=True)]
FileOrUrl = Annotated[Place, BeforeValidator(to_place), PathKind(is_folder=False, may_be_url=True)]
PathOrUrl = Annotated[Place, BeforeValidator(to_place), PathKind(is_folder=None, may_be_url=True)]
Share = Annotated[float, Field(ge=0, le=1)]
"""A number from 0 to 1."""
Count = Annotated[int, Field(ge=1)]
"""A whole number of 1 or more."""
Seed = Annotated[int, Field(ge=0)]
Line = Annotated[str, Field(pattern=r"^[^\n\r]+$")]
"""A line of text that is not empty."""
Device = Literal["auto", "cpu", "cuda"]
Split = Literal["train", "val", "test"]


class Settings(BaseModel):
    """Base class of every configuration: immutable, checked on construction, with one-line error messages.

    The docstring below a field is its description, which the command line shows as the help of the option.

    Raises:
        SettingsError: A value has the wrong type, is out of range or is not a known choice; or a setting is unknown or
            missing.

    Example:
        >>> class Crop(Settings):
        ...     margin: Annotated[float, Field(ge=0)] = 0.15
        >>> Crop(margin=0.5).to_json()
        {'margin': 0.5}
        >>> Crop(margin=-1)
        Traceback (most recent call last):
        emoface.errors.SettingsError: margin is -1, expected 0 or more
    """

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False)

    @model_validator(mode="wrap")
    @classmethod
    def _raise_settings_error(cls, values: Any, handler: ValidatorFunctionWrapHandler) -> Self:
        try:
            checked: Self = handler(values)
        except ValidationError as error:
            raise SettingsError(describe_error(cls, error)) from None
        return checked

    def replace(self, **changes: Any) -> Self:
        """Returns a copy with some settings changed; the new values are checked."""
        return type(self)(**{**{name: getattr(self, name) for name in type(self).model_fields}, **changes})

    def to_json(self) -> dict[str, Any]:
        """Returns the settings as JSON values; paths become strings."""
        return self.model_dump(mode="json")


def describe_fault(error: ValueError) -> str:
    """Says which value of a JSON file is wrong, what was found and what was expected."""
    if not isinstance(error, ValidationError):
        return f"not JSON: {error}"
    fault = error.errors(include_url=False)[0]
    name = ".".join(str(part) for part in fault["loc"])
    message = fault["msg"][:1].lower() + fault["msg"][1:]
    if fault["type"] == "missing":
        return f"{name} is missing"
    found = repr(fault["input"])
    shown = found if len(found) <= _MOST_SHOWN else f"{found[:_MOST_SHOWN]}..."
    return f"{name} is {shown}: {message}" if name else f"{shown}: {message}"


def describe_error(config: type[BaseModel], error: ValidationError) -> str:
    """Describes the first error that pydantic found, with the setting names of the command line.

    Args:
        config: The configuration whose settings are invalid.
        error: The error from pydantic.

    Returns:
        A phrase such as ``"conf_threshold is 1.5, expected a number from 0 to 1"``.
    """
    fault = error.errors(include_url=False)[0]
    kind, value, where = fault["type"], fault["input"], fault["loc"]
    if kind in ("value_error", "assertion_error"):
        return str(fault["ctx"]["error"])
    name = str(where[0]) if where else config.__name__
    if kind == "extra_forbidden":
        return f"there is no setting '{name}'{did_you_mean(name, config.model_fields)}"
    if kind == "missing" and len(where) == 1:
        return f"'{name}' is not set"
    field = config.model_fields[name]
    shape = FieldShape.of(field)
    if kind == "literal_error":
        return f"{name} is '{value}'{did_you_mean(str(value), map(str, shape.choices))}"
    if kind in ("missing", "too_long", "too_short") and shape.length:
        given = getattr(value, "__len__", lambda: 0)()
        return f"{name} has {given} values, expected {shape.length}"
    return f"{name} is {_show(value)}, expected {shape.expected or fault['msg'].lower()}"


def _show(value: Any) -> str:
    return repr(value) if isinstance(value, str) else str(value)


@dataclass(frozen=True)
class FieldShape:
    """The components of a field's type.

    Attributes:
        kind: ``int``, ``float``, ``bool``, ``str``, ``Path``, ``Mapping`` or another class; for a sequence, the type of
            its elements, which may be a tuple such as ``Box``.
        is_optional: Whether None is allowed.
        is_sequence: Whether the value is a tuple of ``kind``.
        length: Number of values in a sequence; None if any number is allowed.
        choices: The allowed values; empty if every value of the kind is allowed.
        path_kind: Whether a path is a folder or a file; None for other kinds and for paths that may be either.
        text_form: The text form of the value on the command line; None if the value needs no such form.
        least: Smallest value; None if there is no lower bound.
        most: Largest value; None if there is no upper bound.
        excludes_least: Whether ``least`` itself is not allowed.
        excludes_most: Whether ``most`` itself is not allowed.
    """

    kind: Any
    is_optional: bool
    is_sequence: bool
    length: int | None
    choices: tuple[Any, ...]
    path_kind: PathKind | None
    text_form: TextForm | None
    least: float | None
    most: float | None
    excludes_least: bool
    excludes_most: bool

    @classmethod
    def of(cls, field: FieldInfo) -> FieldShape:
        """Reads the components of a field's annotation."""
        hint: Any = field.annotation
        marks = list(field.metadata)
        is_optional = is_sequence = False
        length = None
        choices: tuple[Any, ...] = ()
        while origin := typing.get_origin(hint):
            parts = typing.get_args(hint)
            if origin is Annotated:
                hint, marks = parts[0], [*marks, *parts[1:]]
            elif origin in (types.UnionType, typing.Union):
                is_optional = is_optional or types.NoneType in parts
                hint = next(part for part in parts if part is not types.NoneType)
            elif origin is tuple and is_sequence:
                break
            elif origin is tuple:
                is_sequence = True
                length = None if parts[-1] is Ellipsis else len(parts)
                hint = parts[0]
            elif origin is Literal:
                choices, hint = parts, type(parts[0])
            else:
                hint = Mapping if issubclass(origin, Mapping) else origin
        marks = [part for mark in marks for part in (mark.metadata if isinstance(mark, FieldInfo) else [mark])]
        bounds = {
            name: getattr(mark, name) for mark in marks for name in ("ge", "gt", "le", "lt") if hasattr(mark, name)
        }
        return cls(
            kind=hint,
            is_optional=is_optional,
            is_sequence=is_sequence,
            length=length,
            choices=choices,
            path_kind=next((mark for mark in marks if isinstance(mark, PathKind)), None),
            text_form=next((mark for mark in marks if isinstance(mark, TextForm)), None),
            least=bounds.get("ge", bounds.get("gt")),
            most=bounds.get("le", bounds.get("lt")),
            excludes_least="gt" in bounds,
            excludes_most="lt" in bounds,
        )

    @property
    def expected(self) -> str:
        """Describes the allowed values as text; empty for kinds without a description.

        Example:
            >>> class Crop(Settings):
            ...     top: Annotated[int, Field(ge=1, le=26)] = 5
            >>> FieldShape.of(Crop.model_fields["top"]).expected
            '1 to 26'
        """
        if self.least is not None or self.most is not None:
            return self._describe_bounds()
        named = {int: "a whole number", float: "a number", bool: "true or false", str: "text", Path: "a path"}
        word = named.get(self.kind, "")
        if typing.get_origin(self.kind) is tuple:
            word = f"{len(typing.get_args(self.kind))} numbers"
        return f"a list; each part {word}" if self.is_sequence and word else word

    def _describe_bounds(self) -> str:
        low = "" if self.least is None else f"{'more than ' if self.excludes_least else ''}{self.least:,g}"
        high = "" if self.most is None else f"{'less than ' if self.excludes_most else ''}{self.most:,g}"
        if low and high and not (self.excludes_least or self.excludes_most):
            return f"{'a number from ' if self.kind is float else ''}{low} to {high}"
        low += " or more" if low and not self.excludes_least else ""
        high += " or less" if high and not self.excludes_most else ""
        return " and ".join(part for part in (low, high) if part)
