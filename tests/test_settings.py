"""Configurations: what is refused and in which words, and the options that commands make from them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import click
import pytest
from click.testing import CliRunner
from pydantic import BeforeValidator, Field

from emoface.cli.options import JobCommand
from emoface.errors import SettingsError
from emoface.storage.settings import Count, FieldShape, File, Folder, Seed, Settings, Share, TextForm


def _read_parts(parts: str | tuple[float, ...]) -> tuple[float, ...]:
    return tuple(float(part) / 100 for part in parts.split("/")) if isinstance(parts, str) else parts


class BakeConfig(Settings):
    """Settings of a job that bakes."""

    oven: Folder
    """The oven."""
    recipe: Mapping[str, Any] = {}
    """What replaces the preset."""
    style: Literal["bread", "cake"] = "bread"
    """What to bake."""
    salt: Share = 0.5
    """Share of salt."""
    rise: Annotated[float, Field(ge=0, lt=1)] = 0.2
    """How much it rises."""
    loaves: Count = 1
    """Number of loaves."""
    rack: Annotated[int, Field(ge=1, le=26)] = 5
    """Which rack."""
    seed: Seed = 0
    """Seed of the crumbs."""
    sizes: tuple[float, float] = (1.0, 2.0)
    """Width and height."""
    parts: Annotated[tuple[float, ...], BeforeValidator(_read_parts), TextForm("70/30")] = (0.7, 0.3)
    """How it is cut."""
    tins: tuple[File, ...] = ()
    """Tins; repeat the option."""
    note: str | None = None
    """A note, longer than
    one line."""
    is_warm: bool = False
    """Serve it warm."""


class DoughConfig(Settings):
    """Part of the recipe."""

    flour: Share = 0.6
    """Share of flour."""
    turns: tuple[float, float] | None = None
    """Turns."""


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"salt": 1.5}, "salt is 1.5, expected a number from 0 to 1"),
        ({"salt": float("nan")}, "salt is nan, expected a number from 0 to 1"),
        ({"salt": "much"}, "salt is 'much', expected a number from 0 to 1"),
        ({"rise": 1.0}, "rise is 1.0, expected 0 or more and less than 1"),
        ({"loaves": 0}, "loaves is 0, expected 1 or more"),
        ({"loaves": 1.5}, "loaves is 1.5, expected 1 or more"),
        ({"rack": 27}, "rack is 27, expected 1 to 26"),
        ({"style": "cakes"}, "style is 'cakes'; did you mean 'cake'?"),
        ({"style": 3}, "style is '3'; known: bread, cake"),
        ({"sizes": (1.0,)}, "sizes has 1 values, expected 2"),
        ({"sizes": (1.0, 2.0, 3.0)}, "sizes has 3 values, expected 2"),
        ({"note": 3}, "note is 3, expected text"),
        ({"is_warm": "tepid"}, "is_warm is 'tepid', expected true or false"),
        ({"oven": 3}, "oven is 3, expected a path"),
        ({"stile": "cake"}, "there is no setting 'stile'; did you mean 'style'?"),
    ],
)
def test_refused_settings_are_named_with_what_was_expected(change: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingsError) as refused:
        BakeConfig(**{"oven": Path("oven"), **change})
    assert str(refused.value) == message


def test_a_setting_that_is_missing_is_named() -> None:
    with pytest.raises(SettingsError, match=r"^'oven' is not set$"):
        BakeConfig()  # type: ignore[call-arg]


def test_a_changed_copy_is_checked_anew_and_the_original_stays() -> None:
    config = BakeConfig(oven=Path("oven"), note="soft")
    assert config.replace(loaves=3) == BakeConfig(oven=Path("oven"), note="soft", loaves=3)
    assert config.loaves == 1
    with pytest.raises(SettingsError, match="loaves is 0"):
        config.replace(loaves=0)


def test_settings_as_json() -> None:
    told = BakeConfig(oven=Path("a/oven"), recipe={"flour": 1}, tins=(Path("t"),)).to_json()
    assert told["oven"] == "a/oven" and told["tins"] == ["t"] and told["sizes"] == [1.0, 2.0]
    assert told["recipe"] == {"flour": 1} and told["note"] is None
    assert list(told) == list(BakeConfig.model_fields)


def test_shape_of_a_field_that_is_wrapped_several_times() -> None:
    shape = FieldShape.of(BakeConfig.model_fields["tins"])
    assert (shape.kind, shape.is_sequence, shape.length) == (Path, True, None)
    assert shape.path_kind is not None and not shape.path_kind.is_folder


COMMAND = JobCommand(
    "bake",
    config=f"{__name__}:BakeConfig",
    arguments=("oven",),
    recipe=f"{__name__}:DoughConfig",
    flags={"tins": "--tin", "is_warm": "--warm"},
    callback=lambda config: click.echo(repr(config)),
)


def test_options_have_the_fields_defaults_choices_and_descriptions() -> None:
    answer = CliRunner().invoke(COMMAND, ["--help"], terminal_width=200)
    lines = {line.split()[0]: " ".join(line.split()) for line in answer.output.splitlines() if line.startswith("  --")}
    assert lines["--style"] == "--style [bread|cake] What to bake. [default: bread]"
    assert lines["--sizes"] == "--sizes FLOAT... Width and height. [default: 1.0, 2.0]"
    assert lines["--parts"] == "--parts TEXT How it is cut. [default: 70/30]"
    assert lines["--tin"] == "--tin FILE Tins; repeat the option."
    assert lines["--note"] == "--note TEXT A note, longer than one line."
    assert lines["--warm"] == "--warm Serve it warm."
    assert lines["--flour"] == "--flour FLOAT Share of flour. [default: the preset's]"
    assert "--recipe" not in lines and "OVEN" in answer.output


def test_the_function_gets_the_configuration() -> None:
    words = ["hot", "--salt", "0.25", "--tin", "a", "--tin", "b", "--warm", "--flour", "0.5", "--turns", "1", "2"]
    answer = CliRunner().invoke(COMMAND, words)
    expected = BakeConfig(
        oven=Path("hot"),
        salt=0.25,
        tins=(Path("a"), Path("b")),
        is_warm=True,
        recipe={"flour": 0.5, "turns": (1.0, 2.0)},
    )
    assert answer.output == repr(expected) + "\n"


def test_recipe_holds_only_what_was_given() -> None:
    assert "recipe={}" in CliRunner().invoke(COMMAND, ["hot"]).output
