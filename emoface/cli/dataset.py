"""The commands that build and audit a data set: simulate, parse, faces, split, report."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from emoface.cli.console import ANY, FOLDER, command, print_record, terminal_progress, warn_of_demonstration
from emoface.cli.options import job_command

if TYPE_CHECKING:
    from emoface.jobs.faces import FacesConfig
    from emoface.jobs.simulate import SimulateConfig


@job_command(config="emoface.jobs.simulate:SimulateConfig", arguments=("out",))
def simulate(config: SimulateConfig) -> None:
    """Draws a simulated EMOTIC into OUT, with ground truth.

    \b
    Example:
      emoface simulate sim --images 1000 --seed 7
    """
    from emoface.jobs.simulate import run_simulate

    with terminal_progress() as progress:
        record = run_simulate(config, progress)
    print_record(record)


@command()
@click.argument("emotic_root", type=FOLDER)
@click.option("--out", required=True, type=FOLDER, help="Folder for people.parquet.")
@click.option(
    "--annotations",
    type=ANY,
    help="Annotation file (.mat, .csv) or folder of CSV files, where it is elsewhere.",
)
@click.option("--images", type=FOLDER, help="Image root (holds mscoco/images...), where it is elsewhere.")
def parse(emotic_root: Path, out: Path, annotations: Path | None, images: Path | None) -> None:
    """Reads EMOTIC's annotations into OUT/people.parquet, one row per person.

    \b
    Example:
      emoface parse EMOTIC --out work
      emoface parse EMOTIC --out work --annotations EMOTIC/CVPR17_Annotations.mat
    """
    from emoface.jobs.parse import ParseConfig, run_parse

    with terminal_progress() as progress:
        record = run_parse(
            ParseConfig(emotic_root=emotic_root, out=out, annotations=annotations, images=images), progress
        )
    print_record(record)


@job_command(config="emoface.jobs.faces:FacesConfig", arguments=("dir",))
@click.option("--rebuild", is_flag=True, help="Forget finished shards and start over.")
def faces(config: FacesConfig, rebuild: bool) -> None:
    """Detects faces, gives each person theirs, and crops: DIR/faces.parquet, DIR/empty_faces.csv.

    \b
    Example:
      emoface faces work
      emoface faces work --weights yolov5s-face.pt --align
    """
    from emoface.jobs.faces import forget_faces, run_faces

    if rebuild:
        forget_faces(config.dir)
    warn_of_demonstration(config.detector, config.weights)
    with terminal_progress() as progress:
        record = run_faces(config, progress)
    print_record(record)


@command()
@click.argument("dir", type=FOLDER)
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
    with terminal_progress() as progress:
        record = run_split(config, progress)
    print_record(record)


@command()
@click.argument("dir", type=FOLDER)
@click.option("--seed", default=0, show_default=True, help="Draws the faces of the contact sheet.")
def report(dir: Path, seed: int) -> None:
    """Writes label histograms and the audit: DIR/report/audit.html.

    \b
    Example:
      emoface report work
    """
    from emoface.jobs.report import ReportConfig, run_report

    with terminal_progress() as progress:
        record = run_report(ReportConfig(dir=dir, seed=seed), progress)
    print_record(record)
    click.echo(f"audit: {dir / 'report' / 'audit.html'}")
