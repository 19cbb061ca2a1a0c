"""Writes networks as ONNX models of any batch and image size, and reads ONNX weights; torch is not needed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from emoface.errors import WeightsError
from emoface.yolov5face.graph import INPUT_NAME, Operation, describe_graph
from emoface.yolov5face.network_weights import FoldedConv, NetworkWeights, fold_convs

_OPSET = 17
_DAMAGE = (OSError, ValueError, TypeError, LookupError, AttributeError, RuntimeError, OverflowError, MemoryError)
"""The errors that onnx and numpy raise on a damaged model."""
_IR_VERSION = 8
"""The version of the file format that belongs to the opset, so that programs of its time read the file too."""


def to_onnx(weights: NetworkWeights) -> bytes:
    """Converts a network to an ONNX model with folded BatchNorms.

    Input ``images``: (batch, 3, height, width) float32, RGB, 0-1; height and width multiples of the coarsest
    stride. Outputs ``stride8``, ``stride16``...: (batch, anchors * 16, height / stride, width / stride), before any
    sigmoid. The network's name is in the metadata.
    """
    from onnx import helper, numpy_helper

    graph = describe_graph(weights.name)
    arrays = dict(graph.constants)
    for conv in fold_convs(weights):
        arrays |= {f"{conv.label}.weight": conv.weight, f"{conv.label}.bias": conv.bias}
    model = helper.make_model(
        helper.make_graph(
            [_to_node(one) for one in graph.operations],
            weights.name,
            [_float_value(INPUT_NAME, 3)],
            [_float_value(name, n_channels) for name, n_channels in graph.outputs.items()],
            [numpy_helper.from_array(array, name) for name, array in arrays.items()],
        ),
        opset_imports=[helper.make_opsetid("", _OPSET)],
        ir_version=_IR_VERSION,
        producer_name="emoface",
    )
    helper.set_model_props(model, {"network": weights.name})
    written: bytes = model.SerializeToString()
    return written


def _to_node(operation: Operation) -> Any:
    from onnx import helper

    settings: dict[str, Any] = dict(operation.attributes)
    return helper.make_node(operation.kind, operation.inputs, operation.outputs, **settings)


def _float_value(name: str, n_channels: int) -> Any:
    """Describes an input or output of any batch, height and width."""
    from onnx import TensorProto, helper

    return helper.make_tensor_value_info(
        name, TensorProto.FLOAT, ["batch", n_channels, f"height_{name}", f"width_{name}"]
    )


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
    weight = np.asarray(values[node.input[1]], np.float32)
    has_bias = len(node.input) > 2
    bias = np.asarray(values[node.input[2]] if has_bias else np.zeros(len(weight)), np.float32)
    return FoldedConv(label, weight, bias, attributes.get("strides", [1])[0], attributes.get("group", 1))
