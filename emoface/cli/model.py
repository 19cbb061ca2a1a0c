"""The command for the layers and the cost of a model: model."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from emoface.cli.console import print_rows, terminal_progress
from emoface.cli.options import job_command

if TYPE_CHECKING:
    from emoface.jobs.model import ModelConfig, ModelReport

GIGA = 1e9


@job_command(config="emoface.jobs.model:ModelConfig", arguments=("name",))
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of tables.")
def model(config: ModelConfig, as_json: bool) -> None:
    """Shows the layers of model NAME beside the thesis's tables, and its cost beside that of the baselines.

    NAME is task1, task2, task3, two of them joined by +, mter1, mter2, kosti, caer-net-s, affective-graph or emoticon.
    MACs (multiply-accumulate operations, in G = 10^9) are those of convolutions and fully connected layers, for one
    person who lacks none of the inputs; latency is the fastest of --runs batches on this machine. A ratio below 1 means
    that NAME is smaller, cheaper or faster.

    \b
    Example:
      emoface model mter2
      emoface model mter1 --against mter2 --against kosti --json
    """
    from emoface.jobs.model import run_model

    with terminal_progress() as progress:
        report = run_model(config, progress)
    if as_json:
        click.echo(json.dumps(asdict(report), indent=2))
    else:
        _print_layers(report)
        _print_costs(report)


def _print_layers(report: ModelReport) -> None:
    columns = ["part", "operator", "input", "output", "thesis", "parameters", "MACs, G"]
    rows = [
        [
            layer.part,
            layer.operator,
            layer.input,
            layer.output,
            layer.thesis,
            f"{layer.parameters:,}",
            f"{layer.multiply_adds / GIGA:.6f}",
        ]
        for layer in report.layers
    ]
    print_rows(f"Layers of {report.cost.model}", columns, rows)


def _print_costs(report: ModelReport) -> None:
    people = "person" if report.batch_size == 1 else "people"
    threads = f", {report.n_threads} threads" if report.device == "cpu" else ""
    title = f"Cost; latency of {report.batch_size} {people} on {report.device}{threads}"
    columns = ["model", "parameters", "MACs, G", "latency, ms", "ratio of parameters", "MACs", "latency"]
    own = report.cost
    rows = [[own.model, f"{own.parameters:,}", f"{own.multiply_adds / GIGA:.3f}", f"{own.latency_ms:.1f}", "", "", ""]]
    for ratio in report.ratios:
        other = ratio.other
        rows.append(
            [
                other.model,
                f"{other.parameters:,}",
                f"{other.multiply_adds / GIGA:.3f}",
                f"{other.latency_ms:.1f}",
                f"{ratio.parameters:.2f}",
                f"{ratio.multiply_adds:.2f}",
                f"{ratio.latency:.2f}",
            ]
        )
    print_rows(title, columns, rows)
