"""The model job: a model's layers beside the thesis's tables, and its cost beside that of the baselines."""

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
    """Name of the model to describe."""
    against: tuple[str, ...] = BASELINES
    """Name of a model to compare it with; repeat the option for more."""
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
        operator: Description of the layer as text.
        input: Size of the input.
        output: Size of the output.
        thesis: Sizes printed in the thesis; empty where it prints none.
        parameters: Number of parameters of the row.
        multiply_adds: MACs for one person.
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
    """The cost of one model.

    Attributes:
        model: Name of the model.
        parameters: Number of trainable parameters.
        multiply_adds: MACs for one person with a face.
        latency_ms: Time of the fastest batch, which other load of the machine affects least.
    """

    model: str
    parameters: int
    multiply_adds: int
    latency_ms: float


@dataclass(frozen=True)
class Ratio:
    """Ratios of the model's cost to that of another model; below 1 the model is smaller, cheaper or faster.

    Attributes:
        other: Cost of the other model.
        parameters: Ratio of parameters.
        multiply_adds: Ratio of MACs.
        latency: Ratio of latencies.
    """

    other: Cost
    parameters: float
    multiply_adds: float
    latency: float


@dataclass(frozen=True)
class ModelReport:
    """The result of the model job.

    Attributes:
        cost: Cost of the model.
        streams: Input streams of the model.
        layers: Layer table of the model.
        ratios: Ratios to each of the other models.
        batch_size: Number of people in each timed batch.
        device: Device on which the latency was measured.
        n_threads: Number of threads that torch used on the CPU.
    """

    cost: Cost
    streams: tuple[str, ...]
    layers: tuple[PrintedLayer, ...]
    ratios: tuple[Ratio, ...]
    batch_size: int
    device: str
    n_threads: int


def run_model(config: ModelConfig, progress: Progress = SILENT) -> ModelReport:
    """Measures a model and the models to compare it with; writes no files.

    Raises:
        SettingsError: A name is unknown, a setting is out of range, or there is no such device.
    """
    from emoface.learning.devices import pick_device
    from emoface.mter.cost import measure_cost, measure_latencies
    from emoface.mter.networks import build_model

    device = str(pick_device(config.device))
    names = [config.name, *(name for name in dict.fromkeys(config.against) if name != config.name)]
    models = [build_model(name) for name in names]
    progress.start("measure", len(models))
    costs = []
    for model in models:
        costs.append(measure_cost(model))
        progress.advance()
    latencies = measure_latencies(models, batch_size=config.batch_size, n_runs=config.runs, device=device)
    own, *others = (
        Cost(cost.model, cost.n_parameters, cost.n_macs, latency.fastest_ms)
        for cost, latency in zip(costs, latencies, strict=True)
    )
    return ModelReport(
        cost=own,
        streams=models[0].streams,
        layers=tuple(_to_layer(row) for row in costs[0].rows),
        ratios=tuple(_to_ratio(own, other) for other in others),
        batch_size=config.batch_size,
        device=latencies[0].device,
        n_threads=latencies[0].n_threads,
    )


def printed_sizes(table: str, row: int) -> str:
    """Formats the sizes that the thesis prints in a row of table 3-1 (input only) or 3-2 (input and output).

    Args:
        table: ``table_3_1`` or ``table_3_2``.
        row: Index of the row, from 0.

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
