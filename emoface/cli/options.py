"""Commands whose arguments and options are made from the fields of a job's configuration.

Types, defaults, ranges, choices and descriptions are written once, in the configuration. It is imported only when its
command runs or shows its help, so that ``emoface --help`` starts fast.
"""

from __future__ import annotations

import importlib
import inspect
import typing
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from emoface.cli.console import ANY, ANY_OR_URL, FILE, FILE_OR_URL, FOLDER, FOLDER_OR_URL, EmofaceCommand
from emoface.errors import NothingGivenError

if TYPE_CHECKING:
    from pydantic.fields import FieldInfo

    from emoface.storage.settings import FieldShape, Settings


class BoxType(click.ParamType):  # type: ignore[type-arg]  # generic in newer versions alone
    """``x1,y1,x2,y2`` in pixels."""

    name = "x1,y1,x2,y2"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[float, float, float, float]:
        """Reads four numbers from text."""
        try:
            x1, y1, x2, y2 = (float(part) for part in str(value).split(","))
        except ValueError:
            self.fail(f"'{value}' is no box, expected four numbers x1,y1,x2,y2", param, ctx)
        return x1, y1, x2, y2


class JobCommand(EmofaceCommand):
    """A command whose function receives one ``config``, built from the command line.

    Args:
        config: Place of the configuration class, as ``module:Class``.
        arguments: Names of the fields that are positional arguments; all others are options.
        hidden: Names of the fields that have no option.
        flags: Option names by field, for options that are not named after their field.
        recipe: Place of a second configuration class, as ``module:Class``, whose fields are options too; the options
            that the user gives become the mapping ``recipe`` of ``config``.
        kwargs: Further arguments of ``click.Command``.
    """

    def __init__(
        self,
        *args: Any,
        config: str,
        arguments: Sequence[str] = (),
        hidden: Sequence[str] = (),
        flags: Mapping[str, str] | None = None,
        recipe: str | None = None,
        **kwargs: Any,
    ) -> None:
        self._config = ""
        self._is_complete = False
        self._params: list[click.Parameter] = []
        super().__init__(*args, **kwargs)
        self._config = config
        self._arguments = tuple(arguments)
        self._hidden = tuple(hidden)
        self._flags = dict(flags or {})
        self._recipe = recipe

    @property
    def params(self) -> list[click.Parameter]:
        """The command's arguments and options; those of the configuration come first."""
        if self._config and not self._is_complete:
            self._is_complete = True
            self._params = [*self._config_params(), *self._params]
        return self._params

    @params.setter
    def params(self, params: list[click.Parameter]) -> None:
        self._params = params

    def invoke(self, ctx: click.Context) -> Any:
        """Builds the configuration and calls the command's function with it."""
        config = _import_settings(self._config)
        values = {name: ctx.params.pop(name) for name in [*ctx.params] if name in config.model_fields}
        if self._recipe is not None:
            names = _import_settings(self._recipe).model_fields
            options = {name: ctx.params.pop(name) for name in [*ctx.params] if name in names}
            values["recipe"] = {name: value for name, value in options.items() if value is not None}
        try:
            ctx.params["config"] = config(**values)
        except NothingGivenError as error:
            raise click.UsageError(str(error), ctx) from error
        return super().invoke(ctx)

    def _config_params(self) -> list[click.Parameter]:
        fields = _import_settings(self._config).model_fields
        shown = {name: field for name, field in fields.items() if name not in (*self._hidden, "recipe")}
        params: list[click.Parameter] = [_to_argument(name, shown.pop(name)) for name in self._arguments]
        params += [_to_option(name, field, self._flags.get(name)) for name, field in shown.items()]
        if self._recipe is not None:
            recipe = _import_settings(self._recipe).model_fields
            params += [
                _to_option(name, field, self._flags.get(name), is_override=True)
                for name, field in recipe.items()
                if name not in self._hidden
            ]
        return params


_URL_TYPES = {True: FOLDER_OR_URL, False: FILE_OR_URL, None: ANY_OR_URL}
"""Types of paths that may be URLs, by ``PathKind.is_folder``."""


def job_command(**kwargs: Any) -> Callable[[Callable[..., Any]], JobCommand]:
    """Declares the command of a job; see ``JobCommand`` for the keyword arguments."""
    return click.command(cls=JobCommand, **kwargs)


def _import_settings(place: str) -> type[Settings]:
    module, _, name = place.partition(":")
    config: type[Settings] = getattr(importlib.import_module(module), name)
    return config


def _to_argument(name: str, field: FieldInfo) -> click.Argument:
    from emoface.storage.settings import FieldShape

    shape = FieldShape.of(field)
    many = shape.is_sequence and shape.length is None
    return click.Argument([name], type=_click_type(shape), nargs=-1 if many else 1, required=field.is_required())


def _to_option(name: str, field: FieldInfo, flag: str | None, is_override: bool = False) -> click.Option:
    """Makes the option of a field.

    Args:
        name: Name of the field.
        field: The field.
        flag: Name of the option; None if it is named after the field.
        is_override: Whether a preset gives the value if the option is not used; the help then shows no default.
    """
    from emoface.storage.settings import FieldShape

    shape = FieldShape.of(field)
    flag = flag or f"--{name.replace('_', '-')}"
    help_text = inspect.cleandoc(field.description or "").replace("``", "").replace("\n", " ")
    required = field.is_required() and not is_override
    default = None if is_override or field.is_required() else field.get_default(call_default_factory=True)
    if is_override:
        help_text += "  [default: the preset's]"
    if shape.text_form is not None:
        return click.Option([flag, name], default=shape.text_form.default, show_default=True, help=help_text)
    if shape.kind is bool and is_override:
        return click.Option([f"{flag}/--no-{flag[2:]}", name], default=None, help=help_text)
    if shape.kind is bool and default is not True:
        return click.Option([flag, name], is_flag=True, default=default, help=help_text)
    options: dict[str, Any] = {"type": _click_type(shape), "required": required, "help": help_text}
    if shape.is_sequence and shape.length is None:
        options["multiple"] = True
        default = default or None
    elif shape.is_sequence:
        options["nargs"] = shape.length
    if default is not None:
        options |= {"default": default, "show_default": True}
    return click.Option([flag, name], **options)


def _click_type(shape: FieldShape) -> Any:
    """The type that click checks when it reads a value; the configuration checks ranges."""
    if shape.choices:
        return click.Choice([str(choice) for choice in shape.choices])
    if shape.kind is Path:
        if shape.path_kind is None:
            return ANY
        if shape.path_kind.may_be_url:
            return _URL_TYPES[shape.path_kind.is_folder]
        return FOLDER if shape.path_kind.is_folder else FILE
    return BoxType() if typing.get_origin(shape.kind) is tuple else shape.kind
