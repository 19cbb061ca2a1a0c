"""Writes networks for other programs, as ONNX and TorchScript of any batch and image size; reads ONNX weights."""

from __future__ import annotations

import io
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from emoface.errors import WeightsError
from emoface.storage.files import write_bytes
from emoface.yolov5face.folding import FoldedConv, fold_batch_norms
from emoface.yolov5face.network import YoloV5Face

INPUT_NAME = "images"
_OPSET = 17
_DAMAGE = (OSError, ValueError, TypeError, LookupError, AttributeError, RuntimeError, OverflowError, MemoryError)
"""The errors that onnx and numpy raise on a damaged model."""


class _RawHeads(nn.Module):
    """The part of a network that an engine runs; decoding is not part of it, so all engines share one decoding."""

    def __init__(self, network: YoloV5Face) -> None:
        super().__init__()
        self.network = fold_batch_norms(network)

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        return tuple(self.network.raw_heads(images))


def to_onnx(network: YoloV5Face) -> bytes:
    """Converts a network to an ONNX model with folded BatchNorms.

    Input ``images``: (batch, 3, height, width) float32, RGB, 0-1; height and width multiples of the coarsest
    stride. Outputs ``stride8``, ``stride16``...: (batch, anchors * 16, height / stride, width / stride), before any
    sigmoid. The network's name is in the metadata.
    """
    import onnx

    outputs = [f"stride{stride}" for stride in network.strides]
    axes = {name: {0: "batch", 2: f"height_{name}", 3: f"width_{name}"} for name in (INPUT_NAME, *outputs)}
    stream: Any = io.BytesIO()  # the exporter accepts a stream, but its annotation only names paths
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # only the deprecated exporter works without a further package
        torch.onnx.export(
            _RawHeads(network),
            (_example_images(network),),
            stream,
            dynamo=False,
            opset_version=_OPSET,
            input_names=[INPUT_NAME],
            output_names=outputs,
            dynamic_axes=axes,
        )
    model = onnx.load_model_from_string(stream.getvalue())
    onnx.helper.set_model_props(model, {"network": network.name})
    written: bytes = model.SerializeToString()
    return written


def to_torchscript(network: YoloV5Face) -> bytes:
    """Converts a network to a TorchScript program; input and outputs as in ``to_onnx``, the outputs as a tuple."""
    stream = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # TorchScript is no longer developed, but still in use
        traced = torch.jit.trace(_RawHeads(network), _example_images(network))
        torch.jit.save(traced, stream)
    return stream.getvalue()


def _example_images(network: YoloV5Face) -> Tensor:
    """Makes a small input that is not square, so that an exchange of height and width would be noticed."""
    side = max(network.strides)
    return torch.zeros(1, 3, 2 * side, 3 * side)


def export_onnx(network: YoloV5Face, path: Path) -> None:
    """Writes a network as an ``.onnx`` file atomically, see ``to_onnx``."""
    write_bytes(path, to_onnx(network))


def read_onnx(path: Path) -> list[FoldedConv]:
    """Reads all convolutions of an ONNX file, in the order of its graph.

    Args:
        path: An ``.onnx`` file with folded BatchNorms.

    Raises:
        WeightsError: The file is not an ONNX model, a file with its data is missing, it is quantised, or has BatchNorms
            that are not folded.
    """
    import onnx
    from google.protobuf.message import DecodeError

    try:
        model = onnx.load_model(path, load_external_data=False)
        _load_outside_arrays(path, model)
        return _read_convs(path, model)
    except (DecodeError, onnx.checker.ValidationError, *_DAMAGE) as error:
        raise WeightsError(f"{path}: not a readable ONNX model ({error}); save it again") from error


def _read_convs(path: Path, model: Any) -> list[FoldedConv]:
    values = _constants(model.graph)
    foreign = {"BatchNormalization", "QLinearConv", "ConvInteger"} & {node.op_type for node in model.graph.node}
    if foreign:
        raise WeightsError(
            f"{path}: has {', '.join(sorted(foreign))} nodes, expected plain convolutions with BatchNorm folded in"
        )
    return [_read_conv(path, node, values) for node in model.graph.node if node.op_type == "Conv"]


def _load_outside_arrays(path: Path, model: Any) -> None:
    """Loads the arrays that a model keeps in files beside it.

    Raises:
        WeightsError: A file is missing, outside the folder of the model, or shorter than the model says.
    """
    import onnx

    tensors = [*model.graph.initializer]
    tensors += [one.t for node in model.graph.node for one in node.attribute if one.HasField("t")]
    outside = [tensor for tensor in tensors if onnx.external_data_helper.uses_external_data(tensor)]
    places = [{entry.key: entry.value for entry in tensor.external_data} for tensor in outside]
    _check_data_files(path, {place.get("location", "") for place in places})
    for tensor, place in zip(outside, places, strict=True):
        offset, length = int(place.get("offset", 0)), int(place.get("length", 0))
        n_bytes = (path.parent / place["location"]).stat().st_size
        if not 0 <= offset <= offset + length <= n_bytes:
            raise WeightsError(
                f"{path}: the array {tensor.name} is {length} bytes from {offset} on in {place['location']}, which has "
                f"{n_bytes}; copy the two files together again"
            )
        onnx.external_data_helper.load_external_data_for_tensor(tensor, str(path.parent))


def _check_data_files(path: Path, names: set[str]) -> None:
    folder = path.parent.resolve()
    for name in sorted(names):
        if not name:
            raise WeightsError(f"{path}: an array is in a file without a name; save the model again as a single file")
        data_path = (folder / name).resolve()
        if not data_path.is_relative_to(folder):
            raise WeightsError(f"{path}: its arrays are in '{name}', outside its folder; nothing of it was read")
        if not data_path.is_file():
            raise WeightsError(
                f"{data_path}: no such file, but {path.name} keeps its arrays in it; copy the two files together, or "
                "save the model again as a single file"
            )


def _constants(graph: Any) -> dict[str, Any]:
    """Collects the constant arrays by name; exporters write equal arrays once and refer to them by Identity nodes."""
    import onnx

    values = {one.name: onnx.numpy_helper.to_array(one) for one in graph.initializer}
    for node in graph.node:
        if node.op_type == "Constant":
            arrays = [onnx.numpy_helper.to_array(one.t) for one in node.attribute if one.name == "value"]
            values |= dict(zip(node.output, arrays, strict=False))
        elif node.op_type == "Identity" and node.input[0] in values:
            values[node.output[0]] = values[node.input[0]]
    return values


def _read_conv(path: Path, node: Any, values: dict[str, Any]) -> FoldedConv:
    import onnx

    label = node.name or node.output[0]
    for name in node.input[1:]:
        if name not in values:
            raise WeightsError(f"{path}: {name} of convolution {label} is computed at run time, expected a constant")
    attributes = {one.name: onnx.helper.get_attribute_value(one) for one in node.attribute}
    weight = torch.tensor(values[node.input[1]], dtype=torch.float32)
    has_bias = len(node.input) > 2
    bias = torch.tensor(values[node.input[2]], dtype=torch.float32) if has_bias else torch.zeros(len(weight))
    return FoldedConv(label, weight, bias, attributes.get("strides", [1])[0], attributes.get("group", 1))
