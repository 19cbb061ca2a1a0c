"""The cost of a model: parameters, MACs (multiply-accumulate operations) and latency, and its layer table."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from emoface.learning.devices import pick_device
from emoface.mter.base import Mter
from emoface.mter.blocks import Backbone
from emoface.mter.library_backbone import LibraryBackbone
from emoface.mter.mobilenet import MobileNetV2SE
from emoface.mter.names import STREAM_SIZES
from emoface.mter.networks import StreamsModel
from emoface.mter.pose_graph import JointSum
from emoface.mter.resnet import ResNet18

_ROWS = (nn.Conv1d, nn.Conv2d, nn.Linear, nn.BatchNorm1d, nn.BatchNorm2d, nn.PReLU, JointSum, LibraryBackbone)
"""Layers with weights, and networks of a library; those that are in no row of the thesis's tables have a row each."""

_SHORTCUT = "shortcut"
_TABLES: dict[tuple[str, type[Backbone]], str] = {
    ("face", MobileNetV2SE): "table_3_1",
    ("body", MobileNetV2SE): "table_3_1",
    ("context", ResNet18): "table_3_2",
}


@dataclass(frozen=True)
class LayerRow:
    """A row of the layer table: one layer, or a stage of blocks as in the thesis.

    Attributes:
        part: The branch, see ``Mter.parts``, or ``fusion``.
        operator: Description of the layer as text, such as ``conv 3x3 s=2``.
        input_shape: (c, h, w) or (c,) for one person.
        output_shape: (c, h, w) or (c,) for one person.
        n_parameters: Parameters of all modules of the row.
        n_macs: MACs for one person.
        table_row: Table of the thesis and index of the row in it, from 0; None where the thesis has no such row.
    """

    part: str
    operator: str
    input_shape: tuple[int, ...]
    output_shape: tuple[int, ...]
    n_parameters: int
    n_macs: int
    table_row: tuple[str, int] | None = None


@dataclass(frozen=True)
class ModelCost:
    """The cost of a model for one person with a face.

    Attributes:
        model: Name of the model.
        n_parameters: Number of trainable parameters.
        n_macs: MACs of convolutions, fully connected layers and sums over joints; BatchNorm (which can be folded into
            them), activations, pooling and the scaling by a gate are not counted, as is usual. Neither are the products
            of nodes and adjacency in the graphs of regions and of people, a ten-thousandth of the models that have
            them. Of the network of a library the products of attention are counted too, by torch's own counter.
        rows: The layer table, in the order in which layers run.
    """

    model: str
    n_parameters: int
    n_macs: int
    rows: tuple[LayerRow, ...]


@dataclass(frozen=True)
class Latency:
    """The time that one batch takes on this machine.

    Attributes:
        median_ms: Median time of the runs, milliseconds.
        fastest_ms: Time of the fastest run, milliseconds.
        batch_size: People per batch.
        n_runs: Number of timed runs, which follow untimed warm-up runs.
        device: ``cpu``, or the name of the GPU.
        n_threads: Number of threads that torch uses on the CPU.
    """

    median_ms: float
    fastest_ms: float
    batch_size: int
    n_runs: int
    device: str
    n_threads: int


@dataclass(frozen=True)
class LayerCall:
    """The traced forward call of one module.

    Attributes:
        input_shape: Shape of the input without the batch dimension.
        output_shape: Shape of the output without the batch dimension.
        n_macs: MACs of this module without its submodules.
    """

    input_shape: tuple[int, ...]
    output_shape: tuple[int, ...]
    n_macs: int


def measure_cost(model: Mter, sizes: Mapping[str, int] = STREAM_SIZES) -> ModelCost:
    """Counts a model's parameters and MACs by running it once on inputs of zeros.

    The mode and the weights of the model do not change.

    Args:
        model: The model.
        sizes: Side of each stream's input, pixels.

    Example:
        >>> from emoface.mter import build_model
        >>> measure_cost(build_model("task3")).n_parameters
        11715538
    """
    calls = trace_shapes(model, empty_inputs(model, 1, sizes))
    groups = [group for group in _table_groups(model) if group.names[0] in calls]
    groups += _loose_groups(model, calls, {name for group in groups for name in group.names})
    order = list(calls)
    return ModelCost(
        model=model.name,
        n_parameters=_n_parameters(model),
        n_macs=sum(call.n_macs for call in calls.values()),
        rows=tuple(
            _to_row(model, calls, group) for group in sorted(groups, key=lambda group: order.index(group.names[0]))
        ),
    )


def trace_shapes(model: Mter, inputs: dict[str, Tensor]) -> dict[str, LayerCall]:
    """Runs a model once and records every module call, in the order of execution; the network of a library is one call.

    Args:
        model: The model; its mode does not change.
        inputs: See ``Mter.forward``, for b people who all count as having a face.

    Returns:
        The calls by module name.
    """
    first = next(iter(inputs.values()))
    calls: dict[str, LayerCall] = {}
    order: list[str] = []
    inside = {part for one in model.modules() if isinstance(one, LibraryBackbone) for part in one.network.modules()}
    names = {module: name for name, module in model.named_modules() if module not in inside}

    def before(module: nn.Module, _: object) -> None:
        order.append(names[module])

    def after(module: nn.Module, arguments: tuple[Tensor, ...], result: object) -> None:
        if arguments and isinstance(arguments[0], Tensor) and isinstance(result, Tensor):
            shapes = tuple(arguments[0].shape[1:]), tuple(result.shape[1:])
            calls[names[module]] = LayerCall(*shapes, count_macs(module, *shapes))

    was_training = {module: module.training for module in model.modules()}
    handles = [module.register_forward_pre_hook(before) for module in names]
    handles += [module.register_forward_hook(after) for module in names]
    try:
        with torch.inference_mode():
            model.eval()(inputs, torch.ones(len(first), dtype=torch.bool, device=first.device))
    finally:
        for handle in handles:
            handle.remove()
        for module, training in was_training.items():
            module.training = training
    return {name: calls[name] for name in order if name in calls}


def count_macs(module: nn.Module, input_shape: tuple[int, ...], output_shape: tuple[int, ...]) -> int:
    """Counts the MACs of one layer for one input.

    Args:
        module: The layer; all but convolutions, fully connected layers, sums over joints and whole networks of a
            library count 0.
        input_shape: Shape without the batch dimension.
        output_shape: Shape without the batch dimension.

    Example:
        >>> count_macs(nn.Conv2d(3, 8, 3, padding=1), (3, 4, 5), (8, 4, 5))  # 8 * 4 * 5 values of 3 * 3 * 3
        4320
        >>> count_macs(nn.Linear(10, 4), (10,), (4,))
        40
    """
    if isinstance(module, nn.Conv1d | nn.Conv2d):
        return math.prod(output_shape) * (input_shape[0] // module.groups) * math.prod(module.kernel_size)
    if isinstance(module, nn.Linear | JointSum):
        n_summed = input_shape[-1] if isinstance(module, nn.Linear) else math.prod(module.edge_weights.shape[:2])
        return math.prod(output_shape) * n_summed
    return module.count_macs(input_shape) if isinstance(module, LibraryBackbone) else 0


def measure_latencies(
    models: Sequence[Mter],
    *,
    sizes: Sequence[Mapping[str, int]] | None = None,
    batch_size: int = 1,
    n_runs: int = 20,
    device: str | None = "cpu",
) -> tuple[Latency, ...]:
    """Times models in evaluation mode on inputs of zeros, for people with a face.

    The models take turns, so that other load of the machine affects all of them alike.

    Args:
        models: The models; they are moved to the device and stay in evaluation mode.
        sizes: Per model, the side of each stream's input, pixels; by default ``STREAM_SIZES`` for all.
        batch_size: People per batch.
        n_runs: Timed runs of each model; a quarter as many untimed warm-up runs come first.
        device: See ``learning.devices.pick_device``.

    Returns:
        One latency per model, in that order.

    Raises:
        SettingsError: There is no such device.
    """
    place = pick_device(device)
    models = [model.to(place).eval() for model in models]
    sizes = [STREAM_SIZES] * len(models) if sizes is None else sizes
    inputs = [empty_inputs(model, batch_size, one) for model, one in zip(models, sizes, strict=True)]
    has_face = torch.ones(batch_size, dtype=torch.bool, device=place)
    times_ms: list[list[float]] = [[] for _ in models]
    with torch.inference_mode():
        for run in range(-max(n_runs // 4, 1), n_runs):
            for model, zeros, times in zip(models, inputs, times_ms, strict=True):
                start = time.perf_counter()
                model(zeros, has_face)
                if place.type == "cuda":
                    torch.cuda.synchronize(place)
                if run >= 0:
                    times.append(1000 * (time.perf_counter() - start))
    return tuple(
        Latency(
            median_ms=statistics.median(times),
            fastest_ms=min(times),
            batch_size=batch_size,
            n_runs=n_runs,
            device=torch.cuda.get_device_name(place) if place.type == "cuda" else place.type,
            n_threads=torch.get_num_threads(),
        )
        for times in times_ms
    )


def empty_inputs(model: Mter, n_people: int, sizes: Mapping[str, int] = STREAM_SIZES) -> dict[str, Tensor]:
    """Builds inputs of zeros for people who lack nothing, on the device of the model.

    Returns:
        Per stream (n_people, 3, side, side); per array input the values, and the mask, which is True throughout.
    """
    device = next(model.parameters()).device
    inputs = {stream: torch.zeros(n_people, 3, sizes[stream], sizes[stream], device=device) for stream in model.streams}
    for name, form in model.array_inputs.items():
        values, is_present = (torch.from_numpy(part).to(device) for part in form.absent(n_people, sizes))
        inputs |= {name: values, form.presence: ~is_present}
    return inputs


class _Group(NamedTuple):
    """The modules of one row of the layer table, in the order of execution."""

    part: str
    operator: str
    names: tuple[str, ...]
    table_row: tuple[str, int] | None


def _to_row(model: Mter, calls: Mapping[str, LayerCall], group: _Group) -> LayerRow:
    prefixes = tuple(f"{name}." for name in group.names)
    return LayerRow(
        part=group.part,
        operator=group.operator,
        input_shape=calls[group.names[0]].input_shape,
        output_shape=calls[group.names[-1]].output_shape,
        n_parameters=sum(_n_parameters(model.get_submodule(name)) for name in group.names),
        n_macs=sum(call.n_macs for name, call in calls.items() if name in group.names or name.startswith(prefixes)),
        table_row=group.table_row,
    )


def _loose_groups(model: Mter, calls: Mapping[str, LayerCall], grouped: set[str]) -> Iterator[_Group]:
    """Groups for the layers with weights that are in no row of the thesis's tables, one row per layer."""
    prefixes = tuple(f"{name}." for name in grouped)
    for name in calls:
        module = model.get_submodule(name)
        if isinstance(module, _ROWS) and name not in grouped and not name.startswith(prefixes):
            part = next((part for part in model.parts if f".{part}." in f".{name}."), "fusion")
            yield _Group(part, _operator(module), (name,), None)


def _table_groups(model: Mter) -> Iterator[_Group]:
    """Groups for the rows of the thesis's tables.

    Table 3-1 is for the face and the body, table 3-2 for the context; the shortcuts of ResNet18 are in neither table.
    """
    names = {module: name for name, module in model.named_modules()}
    is_ours = isinstance(model, StreamsModel)
    for stream, backbone in model.backbones().items():
        table = _TABLES.get((stream, type(backbone))) if is_ours else None
        number = 0
        for operator, inside in _backbone_rows(backbone):
            table_row = None if table is None or operator.startswith(_SHORTCUT) else (table, number)
            yield _Group(stream, operator, tuple(f"{names[backbone]}.{name}" for name in inside), table_row)
            number += table_row is not None
        if table == "table_3_1":
            yield _Group(stream, "fully connected", (f"stream.{stream}.head",), (table, number))


def _backbone_rows(backbone: Backbone) -> Iterator[tuple[str, tuple[str, ...]]]:
    if isinstance(backbone, MobileNetV2SE):
        yield from _mobilenet_rows(backbone)
    elif isinstance(backbone, ResNet18):
        yield from _resnet_rows(backbone)


def _mobilenet_rows(backbone: MobileNetV2SE) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Rows of table 3-1: one per stage."""
    yield _operator(backbone.features[0]), ("features.0",)
    first = 1
    for stage in backbone.stages:
        inside = tuple(f"features.{number}" for number in range(first, first + stage.repeats))
        yield f"bottleneck t={stage.expansion} n={stage.repeats} s={stage.stride}", inside
        first += stage.repeats
    yield _operator(backbone.features[first]), (f"features.{first}",)
    yield "average pooling", ("pool",)


def _resnet_rows(backbone: ResNet18) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Rows of table 3-2: one per convolution, together with the BatchNorm after it."""
    yield _operator(backbone.conv1), ("conv1", "bn1")
    yield "max pooling 3x3 s=2", ("maxpool",)
    for layer in ("layer1", "layer2", "layer3", "layer4"):
        for block in ("0", "1"):
            for conv, norm in (("conv1", "bn1"), ("conv2", "bn2")):
                name = f"{layer}.{block}.{conv}"
                yield _operator(backbone.get_submodule(name)), (name, f"{layer}.{block}.{norm}")
        if layer != "layer1":
            name = f"{layer}.0.downsample"
            yield f"{_SHORTCUT} {_operator(backbone.get_submodule(f'{name}.0'))}", (name,)
    yield "average pooling", ("avgpool",)
    if isinstance(backbone.fc, nn.Linear):
        yield _operator(backbone.fc), ("fc",)


def _operator(module: nn.Module) -> str:
    if isinstance(module, nn.Sequential):
        return _operator(module[0])
    if isinstance(module, nn.Conv1d | nn.Conv2d):
        return f"conv {'x'.join(map(str, module.kernel_size))} s={module.stride[0]}"
    if isinstance(module, LibraryBackbone):
        return module.name
    if isinstance(module, JointSum):
        return "sum over joints"
    if isinstance(module, nn.Linear):
        return "fully connected"
    return "BatchNorm" if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d) else type(module).__name__


def _n_parameters(module: nn.Module) -> int:
    return sum(one.numel() for one in module.parameters())
