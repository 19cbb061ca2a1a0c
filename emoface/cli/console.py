"""What all commands share: option types, one-line error messages, progress bars, tables.

Rich and the rest of emoface are imported only when a command runs, so that ``--help`` starts fast.
"""

from __future__ import annotations

import errno
import functools
import io
import os
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from emoface.errors import EmofaceError, describe_missing_package
from emoface.progress import Progress
from emoface.storage.urls import is_url

if TYPE_CHECKING:
    from emoface.cli.terminal import TerminalProgress
    from emoface.storage.records import JobRecord

C = TypeVar("C")


class PathType(click.Path):
    """A path of this machine, or also the URL of an object store, which stays text.

    Args:
        may_be_url: Whether a URL is accepted.
        kwargs: See ``click.Path``.
    """

    def __init__(self, may_be_url: bool = False, **kwargs: Any) -> None:
        super().__init__(path_type=Path, **kwargs)
        self._may_be_url = may_be_url
        if may_be_url:
            self.name = f"{self.name} or url"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Reads a path or URL."""
        if not is_url(value):
            return super().convert(value, param, ctx)
        if not self._may_be_url:
            self.fail(f"'{value}' is a URL, expected a {self.name} of this machine", param, ctx)
        return value


FOLDER = PathType(file_okay=False)
FILE = PathType(dir_okay=False)
ANY = PathType()
FOLDER_OR_URL = PathType(may_be_url=True, file_okay=False)
FILE_OR_URL = PathType(may_be_url=True, dir_okay=False)
ANY_OR_URL = PathType(may_be_url=True)


def write_any_character() -> None:
    r"""Lets standard output and error write characters that their encoding lacks, as ``\\u`` escapes, not as errors."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def set_debug(context: click.Context, _: click.Parameter, value: bool) -> None:
    """Remembers that the user asked for a traceback."""
    if value:
        context.find_root().meta["emoface.debug"] = True


def set_quiet(context: click.Context, _: click.Parameter, value: bool) -> None:
    """Remembers that the user wants no progress."""
    if value:
        context.find_root().meta["emoface.quiet"] = True


def is_quiet() -> bool:
    """Whether the user wants no progress."""
    context = click.get_current_context(silent=True)
    return context is not None and bool(context.find_root().meta.get("emoface.quiet"))


QUIET_HELP = "Show no progress and no notes, only results, warnings and errors."
_QUIET = click.Option(["-q", "--quiet"], is_flag=True, expose_value=False, callback=set_quiet, help=QUIET_HELP)
_DEBUG = click.Option(
    ["--debug"], is_flag=True, expose_value=False, callback=set_debug, help="Show the traceback of an error."
)


class EmofaceCommand(click.Command):
    """A command with the options ``--quiet`` and ``--debug``."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.params += [_QUIET, _DEBUG]


class EmofaceGroup(click.Group):
    """A group that turns an error into one line ``Error: ...`` and exit code 1; no other code does this.

    Ctrl-C becomes one line that says what is kept, and exit code 130.
    """

    command_class = EmofaceCommand

    def invoke(self, ctx: click.Context) -> Any:
        """Runs the command; shows an error that a user can fix as one line."""
        try:
            return super().invoke(ctx)
        except (EmofaceError, OSError, ModuleNotFoundError) as error:
            if isinstance(error, BrokenPipeError):
                raise
            if isinstance(error, ModuleNotFoundError) and describe_missing_package(error) is None:
                raise
            if ctx.find_root().meta.get("emoface.debug"):
                click.echo(traceback.format_exc(), err=True)
            raise click.ClickException(_error_line(error)) from error
        except KeyboardInterrupt:
            click.echo(f"Interrupted: {_describe_kept(ctx)}", err=True)
            raise click.exceptions.Exit(_INTERRUPTED) from None


EmofaceGroup.group_class = EmofaceGroup

_INTERRUPTED = 130
"""The exit code of a program that Ctrl-C ended: 128 and the number of the signal."""
_SHARDS = "the finished shards of photos are kept"
_EPOCHS = "the finished epochs are kept"
_STAGES = "the finished stages are kept, and what the last one can resume from"
_KEPT = {
    "simulate": _SHARDS,
    "faces": _SHARDS,
    "pose": _SHARDS,
    "depth": _SHARDS,
    "regions": _SHARDS,
    "run": _STAGES,
    "demo": _STAGES,
    "train": _EPOCHS,
    "detector train": _EPOCHS,
    "features": "the finished blocks of features are kept",
    "probe": "the features that were computed are kept",
    "evaluate": "the crops of photos are kept, and the predictions once they were all there",
    "predict": "of several photos the finished ones are kept",
    "upload": "the files that were sent as a whole are kept",
    "weights fetch": "the files that were downloaded as a whole are kept",
}
"""What a command keeps when it is interrupted, and goes on from when it runs again."""


def _describe_kept(ctx: click.Context) -> str:
    """Says what an interrupted command has kept, and how to go on."""
    words = [ctx.invoked_subcommand or ""]
    while ctx.parent is not None:
        words, ctx = [ctx.info_name or "", *words], ctx.parent
    kept = _KEPT.get(" ".join(words))
    if kept is None:
        return "nothing unfinished is taken for finished; run the same command again, which starts anew"
    again = "the same command again, without --rebuild," if words[-1] in ("run", "faces") else "the same command again"
    return f"{kept}; run {again} to go on from there"


_AGAIN = "run the same command again, which goes on from what is finished"
_PERMISSION = "; check the permissions of the file and of its folder, or choose another folder"
_REMEDIES = {
    errno.ENOSPC: f"; make room on the disk and {_AGAIN}",
    errno.EDQUOT: f"; make room in your quota and {_AGAIN}",
    errno.EFBIG: f"; allow this process larger files (ulimit -f) and {_AGAIN}",
    errno.EACCES: _PERMISSION,
    errno.EPERM: _PERMISSION,
    errno.EROFS: "; choose a folder on a disk that can be written to",
    errno.ENAMETOOLONG: "; choose a shorter path",
}
"""What a user can do about an error of the operating system, by its number."""


def _error_line(error: EmofaceError | OSError | ModuleNotFoundError) -> str:
    if isinstance(error, ModuleNotFoundError):
        return describe_missing_package(error) or str(error)
    if isinstance(error, OSError) and error.filename:
        return f"{os.fsdecode(error.filename)}: {error.strerror}{_REMEDIES.get(error.errno or 0, '')}"
    return " ".join(str(error).split())


command = functools.partial(click.command, cls=EmofaceCommand)
"""Declares a command; ``emoface.cli`` adds it to its group."""


@contextmanager
def terminal_progress() -> Iterator[TerminalProgress]:
    """Shows a job's progress on standard error until the job ends."""
    from rich.console import Console

    from emoface.cli.terminal import TerminalProgress

    progress = TerminalProgress(Console(stderr=True, quiet=is_quiet()))
    try:
        yield progress
    finally:
        progress.close()


def print_pairs(title: str, pairs: Mapping[str, Any]) -> None:
    """Prints a two-column table on a terminal, ``name: value`` lines elsewhere."""
    from rich.console import Console
    from rich.table import Table

    console = Console()
    flat = list(_flatten(pairs))
    if not console.is_terminal:
        for name, value in flat:
            click.echo(f"{name}: {value}")
        return
    table = Table(title=title, title_justify="left", show_header=False)
    table.add_column(style="bold")
    table.add_column(justify="right")
    for name, value in flat:
        table.add_row(name, value)
    console.print(table)


def _flatten(pairs: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    for key, value in pairs.items():
        name = f"{prefix}{key}".replace("_", " ")
        if isinstance(value, Mapping):
            yield from _flatten(value, f"{name}: ")
        elif isinstance(value, float):
            yield name, f"{value:,.4g}"
        elif isinstance(value, int):
            yield name, f"{value:,}"
        else:
            yield name, str(value)


def warn_of_demonstration(detector: str, weights: Path | None) -> None:
    """Warns on standard error if a command uses the demonstration detector, which was trained on drawings alone."""
    from emoface.storage.weights import DEMONSTRATION_DETECTOR, DEMONSTRATION_NOTE

    if detector == DEMONSTRATION_DETECTOR and weights is None:
        click.echo(f"Warning: {DEMONSTRATION_NOTE}", err=True)


def print_record(record: JobRecord) -> None:
    """Prints the counts of a job's record."""
    print_pairs(record.job, record.counts)


def run_job(run: Callable[[C, Progress], JobRecord], config: C) -> JobRecord:
    """Runs a job with a progress bar and prints the counts of its record."""
    with terminal_progress() as progress:
        record = run(config, progress)
    print_record(record)
    return record


def print_rows(title: str, columns: list[str], rows: list[list[str]]) -> None:
    """Prints a table on a terminal, tab-separated lines elsewhere."""
    from rich.console import Console
    from rich.table import Table

    console = Console()
    if not console.is_terminal:
        click.echo("\t".join(columns))
        for row in rows:
            click.echo("\t".join(row))
        return
    table = Table(*columns, title=title, title_justify="left")
    for row in rows:
        table.add_row(*row)
    console.print(table)
