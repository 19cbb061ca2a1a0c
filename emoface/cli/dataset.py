"""The commands that build and audit a data set: simulate, parse, faces, split, report."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from emoface.cli.console import FILE, FOLDER, command, run_job, warn_of_demonstration
from emoface.cli.options import job_command

if TYPE_CHECKING:
    from emoface.jobs.parse import ParseConfig
    from emoface.jobs.report import ReportConfig
    from emoface.jobs.simulate import SimulateConfig
    from emoface.jobs.split import SplitConfig


@job_command(config="emoface.jobs.simulate:SimulateConfig", arguments=("out",))
def simulate(config: SimulateConfig) -> None:
    """Draws a simulated EMOTIC into OUT, with ground truth.

    \b
    Example:
      emoface simulate sim --images 1000 --seed 7
    """
    from emoface.jobs.simulate import run_simulate

    run_job(run_simulate, config)


@job_command(config="emoface.jobs.parse:ParseConfig", arguments=("emotic_root",))
def parse(config: ParseConfig) -> None:
    """Reads EMOTIC's annotations into OUT/people.parquet, one row per person.

    \b
    Example:
      emoface parse EMOTIC --out work
      emoface parse EMOTIC --out work --annotations EMOTIC/CVPR17_Annotations.mat
    """
    from emoface.jobs.parse import run_parse

    run_job(run_parse, config)


@command()
@click.argument("dir", type=FOLDER)
@click.option("--detector", default="yolov5n-face", show_default=True, help="Name of the detector's weights.")
@click.option("--weights", type=FILE, help="A weight file, instead of looking the name up.")
@click.option(
    "--backend",
    type=click.Choice(["auto", "onnx", "torch", "hub"]),
    default="auto",
    show_default=True,
    help="auto: ONNX Runtime on the CPU, torch on CUDA. hub: the network of deepcam-cn/yolov5-face, from GitHub or "
    "from the clone that EMOFACE_HUB_REPO names.",
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
    warn_of_demonstration(config.detector, config.weights)
    run_job(run_faces, config)


@job_command(config="emoface.jobs.split:SplitConfig", arguments=("dir",))
def split(config: SplitConfig) -> None:
    """Writes train, val and test parquet files and the manifest.

    \b
    Example:
      emoface split work
      emoface split work --by emotic --balance cap:3000
    """
    from emoface.jobs.split import run_split

    run_job(run_split, config)


@job_command(config="emoface.jobs.report:ReportConfig", arguments=("dir",))
def report(config: ReportConfig) -> None:
    """Writes label histograms and the audit: DIR/report/audit.html.

    \b
    Example:
      emoface report work
    """
    from emoface.jobs.report import run_report

    run_job(run_report, config)
    click.echo(f"audit: {config.dir / 'report' / 'audit.html'}")
