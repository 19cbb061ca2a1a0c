"""The command line: each command calls one job, and each option is one field of the job's configuration.

This package is the only one that prints or exits. A job is imported only when its command runs, so that ``--help``
starts fast and without torch.
"""

from __future__ import annotations

import os

import click

from emoface.cli import dataset, detector, evaluate, model, pipelines, publish, train, weights
from emoface.cli.console import QUIET_HELP, EmofaceGroup, set_debug, set_quiet, write_any_character
from emoface.version import __version__


@click.group(cls=EmofaceGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="emoface")
@click.option("-q", "--quiet", is_flag=True, expose_value=False, callback=set_quiet, help=QUIET_HELP)
@click.option("--debug", is_flag=True, expose_value=False, callback=set_debug, help="Show the traceback of an error.")
def main() -> None:
    """Builds EMOTIC_Face from raw EMOTIC, audits its label balance, and trains and evaluates MTER on it.

    \b
    Example:
      emoface demo
      emoface run pipelines/emotic_face.toml --set emotic_root=EMOTIC
    """
    write_any_character()
    # OpenMP reads it when torch is loaded, which no command has done yet. Its threads then sleep while they wait for
    # each other; beside other work on the machine, waiting actively makes them many times slower.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


for _command in (dataset.simulate, dataset.parse, dataset.faces, dataset.pose, dataset.depth, dataset.regions):
    main.add_command(_command)
for _command in (dataset.split, dataset.report, dataset.card, dataset.verify, dataset.export_coco):
    main.add_command(_command)
for _command in (pipelines.run, pipelines.status, pipelines.demo):
    main.add_command(_command)
for _command in (train.train, train.features, train.probe):
    main.add_command(_command)
for _command in (evaluate.evaluate, evaluate.score, evaluate.export, evaluate.export_predictions):
    main.add_command(_command)
for _command in (evaluate.compare, evaluate.predict, evaluate.explain, evaluate.crop):
    main.add_command(_command)
for _command in (publish.push, publish.upload, publish.export_fiftyone):
    main.add_command(_command)
main.add_command(model.model)
main.add_command(detector.detector)
main.add_command(weights.weights)
