"""The command line: each command is one library call, and each option one field of its configuration.

This is the only file that prints or exits. Jobs are imported when their command runs, so that ``--help``
starts at once and without torch.
"""

from __future__ import annotations

import sys
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import click
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    ProgressColumn,
    SpinnerColumn,
    Task,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.progress import Progress as RichProgress
from rich.table import Table
from rich.text import Text

from emoface import __version__
from emoface.errors import EmofaceError
from emoface.records import JobRecord

F = TypeVar("F", bound=Callable[..., Any])

_FOLDER = click.Path(file_okay=False, path_type=Path)
_FILE = click.Path(dir_okay=False, path_type=Path)
_ANY = click.Path(path_type=Path)


def _set_debug(context: click.Context, _: click.Parameter, value: bool) -> None:
    if value:
        context.find_root().meta["emoface.debug"] = True


_DEBUG = click.Option(
    ["--debug"], is_flag=True, expose_value=False, callback=_set_debug, help="Show the traceback of an error."
)


class EmofaceCommand(click.Command):
    """A command with ``--debug``."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.params.append(_DEBUG)


class EmofaceGroup(click.Group):
    """The one place that turns an error into ``Error: ...`` and exit code 1."""

    command_class = EmofaceCommand

    def invoke(self, ctx: click.Context) -> Any:
        """Runs the command; what a user can mend is said in one line."""
        try:
            return super().invoke(ctx)
        except (EmofaceError, OSError) as error:
            if isinstance(error, BrokenPipeError):
                raise
            if ctx.find_root().meta.get("emoface.debug"):
                click.echo(traceback.format_exc(), err=True)
            raise click.ClickException(_error_line(error)) from error


EmofaceGroup.group_class = EmofaceGroup


def _error_line(error: EmofaceError | OSError) -> str:
    if isinstance(error, OSError) and error.filename:
        return f"{error.filename}: {error.strerror}"
    return " ".join(str(error).split())


class _RateColumn(ProgressColumn):
    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text("" if speed is None else f"{speed:,.1f}/s", style="progress.data.speed")


class TerminalProgress:
    """Shows a job's progress on a terminal: bar, count, rate, time left; one plain line elsewhere."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._bar: RichProgress | None = None
        self._task: TaskID | None = None
        if console.is_terminal:
            self._bar = RichProgress(
                SpinnerColumn(),
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                _RateColumn(),
                TimeElapsedColumn(),
                TextColumn("left"),
                TimeRemainingColumn(),
                console=console,
            )

    def start(self, description: str, total: int) -> None:
        """Begins one stretch of work."""
        if self._bar is None:
            self._console.print(f"{description}: {total:,}", highlight=False)
            return
        self._bar.start()
        if self._task is not None:
            self._bar.update(self._task, visible=False)
        self._task = self._bar.add_task(description, total=total)

    def advance(self, n: int = 1) -> None:
        """Moves the bar on."""
        if self._bar is not None and self._task is not None:
            self._bar.advance(self._task, n)

    def close(self) -> None:
        """Takes the bar off the terminal."""
        if self._bar is not None:
            self._bar.stop()


@contextmanager
def _progress() -> Iterator[TerminalProgress]:
    progress = TerminalProgress(Console(stderr=True))
    try:
        yield progress
    finally:
        progress.close()


def _print_pairs(title: str, pairs: Mapping[str, Any]) -> None:
    """A two-column table on a terminal, ``name: value`` lines elsewhere."""
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


def _print_record(record: JobRecord) -> None:
    _print_pairs(record.job, record.counts)


def _print_rows(title: str, columns: list[str], rows: list[list[str]]) -> None:
    """A table on a terminal, tab-separated lines elsewhere."""
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


@click.group(cls=EmofaceGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="emoface")
@click.option("--debug", is_flag=True, expose_value=False, callback=_set_debug, help="Show the traceback of an error.")
def main() -> None:
    """Builds EMOTIC_Face from raw EMOTIC and audits its label balance.

    \b
    Example:
      emoface demo
      emoface run pipelines/emotic_face.toml --set emotic_root=EMOTIC
    """


@main.command()
@click.argument("out", type=_FOLDER)
@click.option("--images", default=200, show_default=True, help="Photos to draw.")
@click.option("--seed", default=0, show_default=True, help="The same seed gives the same bytes.")
def simulate(out: Path, images: int, seed: int) -> None:
    """Draws a simulated EMOTIC into OUT, with ground truth.

    \b
    Example:
      emoface simulate sim --images 1000 --seed 7
    """
    from emoface.jobs.simulate import SimulateConfig, run_simulate

    with _progress() as progress:
        record = run_simulate(SimulateConfig(out=out, images=images, seed=seed), progress)
    _print_record(record)


@main.command()
@click.argument("emotic_root", type=_FOLDER)
@click.option("--out", required=True, type=_FOLDER, help="Folder for people.parquet.")
@click.option(
    "--annotations",
    type=_ANY,
    help="Annotation file (.mat, .csv) or folder of CSV files, where it is elsewhere.",
)
@click.option("--images", type=_FOLDER, help="Image root (holds mscoco/images...), where it is elsewhere.")
def parse(emotic_root: Path, out: Path, annotations: Path | None, images: Path | None) -> None:
    """Reads EMOTIC's annotations into OUT/people.parquet, one row per person.

    \b
    Example:
      emoface parse EMOTIC --out work
      emoface parse EMOTIC --out work --annotations EMOTIC/CVPR17_Annotations.mat
    """
    from emoface.jobs.parse import ParseConfig, run_parse

    with _progress() as progress:
        record = run_parse(
            ParseConfig(emotic_root=emotic_root, out=out, annotations=annotations, images=images), progress
        )
    _print_record(record)


@main.command()
@click.argument("dir", type=_FOLDER)
@click.option("--detector", default="yolov5n-face", show_default=True, help="Name of the detector's weights.")
@click.option("--weights", type=_FILE, help="A weight file, instead of looking the name up.")
@click.option(
    "--backend",
    type=click.Choice(["auto", "onnx", "torch", "hub"]),
    default="auto",
    show_default=True,
    help="auto: ONNX Runtime on the CPU, torch on CUDA.",
)
@click.option("--conf-threshold", default=0.5, show_default=True, help="Drop faces scored lower.")
@click.option("--iou-threshold", default=0.5, show_default=True, help="Non-maximum suppression above this overlap.")
@click.option("--image-size", default=640, show_default=True, help="Longer side of the network's input.")
@click.option("--margin", default=0.15, show_default=True, help="Share of the face's longer side added on every side.")
@click.option("--align", is_flag=True, help="Turn and scale the crops by the five landmarks.")
@click.option(
    "--min-face-size",
    default=10.0,
    show_default=True,
    help="Shorter side below which a face is too small, px.",
)
@click.option(
    "--engine",
    type=click.Choice(["local", "ray"]),
    default="local",
    show_default=True,
    help="Where shards run.",
)
@click.option("--batch-size", default=8, show_default=True, help="Photos that go through the network together.")
@click.option("--shard-size", default=256, show_default=True, help="Photos per shard, the unit a resumed run keeps.")
@click.option("--rebuild", is_flag=True, help="Forget finished shards and start over.")
def faces(rebuild: bool, **options: Any) -> None:
    """Detects faces, gives each person theirs, and crops: DIR/faces.parquet, DIR/empty_faces.csv.

    \b
    Example:
      emoface faces work
      emoface faces work --weights yolov5s-face.pt --align
    """
    from emoface.jobs.faces import FacesConfig, forget_faces, run_faces

    config = FacesConfig(**options)
    if rebuild:
        forget_faces(config.dir)
    with _progress() as progress:
        record = run_faces(config, progress)
    _print_record(record)


@main.command()
@click.argument("dir", type=_FOLDER)
@click.option(
    "--by",
    type=click.Choice(["stratified", "emotic"]),
    default="stratified",
    show_default=True,
    help="Draw a new split by photo, or keep EMOTIC's own.",
)
@click.option("--ratios", default="70/10/20", show_default=True, help="Shares of train, val and test.")
@click.option("--seed", default=0, show_default=True, help="The same seed gives the same split.")
@click.option(
    "--balance", default="none", show_default=True, help="none, cap:N (people per label in train) or weights."
)
def split(dir: Path, by: str, ratios: str, seed: int, balance: str) -> None:
    """Writes train, val and test parquet files and the manifest.

    \b
    Example:
      emoface split work
      emoface split work --by emotic --balance cap:3000
    """
    from emoface.jobs.split import SplitConfig, parse_ratios, run_split

    config = SplitConfig(dir=dir, by=by, ratios=parse_ratios(ratios), seed=seed, balance=balance)
    with _progress() as progress:
        record = run_split(config, progress)
    _print_record(record)


@main.command()
@click.argument("dir", type=_FOLDER)
@click.option("--seed", default=0, show_default=True, help="Draws the faces of the contact sheet.")
def report(dir: Path, seed: int) -> None:
    """Writes label histograms and the audit: DIR/report/audit.html.

    \b
    Example:
      emoface report work
    """
    from emoface.jobs.report import ReportConfig, run_report

    with _progress() as progress:
        record = run_report(ReportConfig(dir=dir, seed=seed), progress)
    _print_record(record)
    click.echo(f"audit: {dir / 'report' / 'audit.html'}")


if __name__ == "__main__":
    sys.exit(main())
