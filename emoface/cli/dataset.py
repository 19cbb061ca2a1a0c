"""The commands for a data set: simulate, parse, faces, pose, depth, regions, split, report, card, verify, export."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from emoface.cli.console import run_job, warn_of_demonstration
from emoface.cli.options import job_command

if TYPE_CHECKING:
    from emoface.jobs.card import CardConfig
    from emoface.jobs.depth import DepthConfig
    from emoface.jobs.export_coco import ExportCocoConfig
    from emoface.jobs.faces import FacesConfig
    from emoface.jobs.parse import ParseConfig
    from emoface.jobs.pose import PoseConfig
    from emoface.jobs.regions import RegionsConfig
    from emoface.jobs.report import ReportConfig
    from emoface.jobs.simulate import SimulateConfig
    from emoface.jobs.split import SplitConfig
    from emoface.jobs.verify import VerifyConfig


@job_command(config="emoface.jobs.simulate:SimulateConfig", arguments=("out",))
def simulate(config: SimulateConfig) -> None:
    """Draws a simulated EMOTIC data set into OUT, with its ground truth.

    \b
    Example:
      emoface simulate sim --images 1000 --seed 7
    """
    from emoface.jobs.simulate import run_simulate

    run_job(run_simulate, config)


@job_command(config="emoface.jobs.parse:ParseConfig", arguments=("emotic_root",))
def parse(config: ParseConfig) -> None:
    """Reads EMOTIC's annotations, or those of another program, into OUT/people.parquet, one row per person.

    COCO JSON, CVAT, Label Studio, YOLO and Pascal VOC are known by their content.

    \b
    Example:
      emoface parse EMOTIC --out work
      emoface parse EMOTIC --out work --annotations EMOTIC/CVPR17_Annotations.mat
      emoface parse photos --annotations people.json --labels labels.txt --out work
      emoface parse photos --people from-faces --out work
    """
    from emoface.jobs.parse import run_parse

    if config.people == "from-faces":
        warn_of_demonstration(config.detector, config.weights)
    run_job(run_parse, config)


@job_command(config="emoface.jobs.export_coco:ExportCocoConfig", arguments=("dir",))
def export_coco(config: ExportCocoConfig) -> None:
    """Writes the people of DIR as COCO JSON: boxes, labels, valence, arousal, dominance, gender and age.

    'emoface parse' reads the file back, and so do annotation programs, in which labels can be filled in.

    \b
    Example:
      emoface export-coco work
      emoface export-coco work --out people.json
    """
    from emoface.jobs.export_coco import run_export_coco

    run_job(run_export_coco, config)


@job_command(config="emoface.jobs.faces:FacesConfig", arguments=("dir",))
@click.option("--rebuild", is_flag=True, help="Delete finished shards and start from the beginning.")
def faces(config: FacesConfig, rebuild: bool) -> None:
    """Detects faces, assigns them to people and crops them: writes DIR/faces.parquet and DIR/empty_faces.csv.

    \b
    Example:
      emoface faces work
      emoface faces work --weights yolov5s-face.pt --align
    """
    from emoface.jobs.faces import remove_shards, run_faces

    if rebuild:
        remove_shards(config)
    warn_of_demonstration(config.detector, config.weights)
    run_job(run_faces, config)


@job_command(config="emoface.jobs.pose:PoseConfig", arguments=("dir",))
def pose(config: PoseConfig) -> None:
    """Finds the points of every person's body, face and feet: writes DIR/pose.parquet.

    It is an input of the model emoticon. Without a model the points are the five landmarks of the face detector.

    \b
    Example:
      emoface pose work --provider movenet-lightning
      emoface pose work --weights rtmw-l-256x192.onnx
    """
    from emoface.jobs.pose import run_pose

    run_job(run_pose, config)


@job_command(config="emoface.jobs.depth:DepthConfig", arguments=("dir",))
def depth(config: DepthConfig) -> None:
    """Finds how near each part of every photo is: writes DIR/depth.parquet.

    It is an input of the model emoticon. Without a model it is drawn from the people's body boxes.

    \b
    Example:
      emoface depth work --weights depth_anything_v2_vits.onnx
    """
    from emoface.jobs.depth import run_depth

    run_job(run_depth, config)


@job_command(config="emoface.jobs.regions:RegionsConfig", arguments=("dir",))
def regions(config: RegionsConfig) -> None:
    """Finds region proposals of every photo, with their features: writes DIR/regions.parquet.

    It is an input of the model affective-graph and needs torchvision.

    \b
    Example:
      emoface regions work --weights fasterrcnn_resnet50_fpn_coco-258fb6c6.pth
    """
    from emoface.jobs.regions import run_regions

    run_job(run_regions, config)


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
    """Writes label histograms and the label balance audit, DIR/report/audit.html.

    With --check, exits 1 with one line per limit that is broken.

    \b
    Example:
      emoface report work
      emoface report work --run runs/mter2 --check limits.toml
    """
    from emoface.jobs.report import run_report

    record = run_job(run_report, config)
    click.echo(f"audit: {config.dir / 'report' / 'audit.html'}")
    for broken in record.info["broken_limits"] or ():
        click.echo(f"Broken limit: {broken}")
    if record.info["broken_limits"]:
        raise click.exceptions.Exit(1)


@job_command(config="emoface.jobs.card:CardConfig", arguments=("dir",))
def card(config: CardConfig) -> None:
    """Writes the card of the data set in DIR: README.md, a datasheet, and croissant.json.

    Both say only what the manifest says. With README.md, 'datasets.load_dataset("DIR")' in Python finds the splits.

    \b
    Example:
      emoface card work
      emoface card mine-work --name "Street photos" --license cc-by-4.0
    """
    from emoface.jobs.card import run_card

    run_job(run_card, config)


@job_command(config="emoface.jobs.verify:VerifyConfig", arguments=("dir",))
def verify(config: VerifyConfig) -> None:
    """Compares a data set or a training run in DIR with its manifest and records, and names every difference.

    Exits 0 if all agree, and 1 with one line per difference. Nothing is written.

    \b
    Example:
      emoface verify work
      emoface verify runs/mter2
    """
    from emoface.jobs.verify import run_verify

    record = run_job(run_verify, config)
    for difference in record.info["differences"]:
        click.echo(f"Difference: {difference}")
    if record.info["differences"]:
        raise click.exceptions.Exit(1)
