"""Writes ``docs/commands.md`` from the help texts of the commands; a test checks that the page is up to date.

Run it with ``make docs``.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import click

from emoface.cli import main

COMMANDS_PATH = Path(__file__).with_name("commands.md")

_HEAD = """# Commands

Every command exits 0 on success, 1 with one `Error: ...` line on bad data, files or settings (`--debug` shows the
traceback), and 2 on bad usage. Every command that writes files can be interrupted and run again. `make docs` writes
this page from the help texts of the commands.
"""


def render_commands() -> str:
    """Renders the whole page."""
    parts = [_HEAD]
    for name, command in _walk("emoface", main):
        context = click.Context(
            command, info_name=name, terminal_width=100, max_content_width=100, **main.context_settings
        )
        parts.append(f"## {name}\n\n```text\n{command.get_help(context)}\n```\n")
    return "\n".join(parts)


def _walk(name: str, command: click.Command) -> Iterator[tuple[str, click.Command]]:
    yield name, command
    if isinstance(command, click.Group):
        for child_name, child in sorted(command.commands.items()):
            yield from _walk(f"{name} {child_name}", child)


if __name__ == "__main__":
    COMMANDS_PATH.write_text(render_commands(), encoding="utf-8")
