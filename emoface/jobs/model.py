"""The model job: a model's layers beside the thesis' tables, and what it costs beside the baselines."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from emoface.progress import SILENT, Progress
from emoface.storage.cards import read_card
from emoface.storage.settings import Count, Settings

if TYPE_CHECKING:
    from emoface.mter.cost import LayerRow

BASELINES = ("kosti", "task2+task3")


class ModelConfig(Settings):
    """Settings of the model job."""

    name: str
    """The model to describe."""
    against: tuple[str, ...] = BASELINES
    """A model to compare it with; repeat the option for more."""
    batch_size: Count = 1
    """Number of people in each timed batch."""
    runs: Annotated[int, Field(ge=1, le=10_000)] = 20
    """Number of timed batches."""
    device: str = "cpu"
    """Device on which the latency is measured: cpu, cuda, cuda:1..."""


@dataclass(frozen=True)
class PrintedLayer:
    """A row of the layer table, sizes as ``c x h x w``.

    Attributes:
        part: The stream, or ``fusion``.
        operator: In words.
        input: What goes in.
        output: What comes out.
        thesis: What the thesis prints of the sizes; empty where it prints none.
        parameters: Of the row.
        multiply_adds: For one person.
    """

    part: str
    operator: str
    input: str
    output: str
    thesis: str
    parameters: int
    multiply_adds: int


@dataclass(frozen=True)
class Cost:
    """One model's figures.

    Attributes:
        model: Its name.
        parameters: Trainable numbers.
        multiply_adds: For one person with a face.
        latency_ms: Time of the fastest batch, which whatever else the machine does disturbs least.
    """

    model: str
    parameters: int
    multiply_adds: int
    latency_ms: float


@dataclass(frozen=True)
class Ratio:
    """The model over another one; below 1 it is the smaller, cheaper or faster.

    Attributes:
        other: The other model's figures.
        parameters: Ratio of parameters.
        multiply_adds: Ratio of multiply-adds.
        latency: Ratio of latencies.
    """

    other: Cost
    parameters: float
    multiply_adds: float
    latency: float


@dataclass(frozen=True)
class ModelReport:
    """What the model job found.

    Attributes:
        cost: The model's figures.
        streams: What it reads.
        layers: Its layer table.
        ratios: Against each other model.
        batch_size: Of the timed batches.
        device: Where it was timed.
        n_threads: That torch used on the CPU.
    """

    cost: Cost
    streams: tuple[str, ...]
    layers: tuple[PrintedLayer, ...]
    ratios: tuple[Ratio, ...]
    batch_size: int
    device: str
    n_threads: int


def run_model(config: ModelConfig, progress: Progress = SILENT) -> ModelReport:
    """Measures a model and the ones it is set beside; writes nothing.

    Raises:
        SettingsError: A name is unknown, a setting is out of range, or the device is not there.
    """
    from emoface.learning.devices import pick_device
    from emoface.mter.cost import measure_cost, measure_latencies
    from emoface.mter.networks import build_model

    device = str(pick_device(config.device))
    names = [config.name, *(name for name in dict.fromkeys(config.against) if name != config.name)]
    models = [build_model(name) for name in names]
    progress.start("measure", len(models))
    counted = []
    for model in models:
        counted.append(measure_cost(model))
        progress.advance()
    timed = measure_latencies(models, batch_size=config.batch_size, n_runs=config.runs, device=device)
    own, *others = (
        Cost(count.model, count.n_parameters, count.n_macs, time.fastest_ms)
        for count, time in zip(counted, timed, strict=True)
    )
    return ModelReport(
        cost=own,
        streams=models[0].streams,
        layers=tuple(_to_layer(row) for row in counted[0].rows),
        ratios=tuple(_to_ratio(own, other) for other in others),
        batch_size=config.batch_size,
        device=timed[0].device,
        n_threads=timed[0].n_threads,
    )


def printed_sizes(table: str, row: int) -> str:
    """The sizes that the thesis prints in a row of its table 3-1 (input alone) or 3-2 (both).

    Args:
        table: ``table_3_1`` or ``table_3_2``.
        row: From 0.

    Example:
        >>> printed_sizes("table_3_1", 0), printed_sizes("table_3_2", 0)
        ('3x128x128', '3x224x224 > 64x112x112')
    """
    line = read_card("thesis_layers")[table]["rows"][row]
    return f"{line['input']} > {line['output']}" if "output" in line else str(line["input"])


def _to_layer(row: LayerRow) -> PrintedLayer:
    return PrintedLayer(
        part=row.part,
        operator=row.operator,
        input=_size(row.input_shape),
        output=_size(row.output_shape),
        thesis="" if row.table_row is None else printed_sizes(*row.table_row),
        parameters=row.n_parameters,
        multiply_adds=row.n_macs,
    )


def _size(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape))


def _to_ratio(own: Cost, other: Cost) -> Ratio:
    return Ratio(
        other=other,
        parameters=own.parameters / other.parameters,
        multiply_adds=own.multiply_adds / other.multiply_adds,
        latency=own.latency_ms / other.latency_ms,
    )
