"""ONNX files of YOLOv5-Face: written with any batch and size, read back as a network."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from emoface.errors import WeightsError
from emoface.files import write_bytes
from emoface.yolov5face.folding import FoldedConv, fold_batch_norms
from emoface.yolov5face.network import YoloV5Face

INPUT_NAME = "images"
_OPSET = 17


class _RawHeads(nn.Module):
    """The part of a network that an engine runs; decoding stays outside, the same for every engine."""

    def __init__(self, network: YoloV5Face) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> list[Tensor]:
        return self.network.raw_heads(images)


def to_onnx(network: YoloV5Face) -> bytes:
    """A network as an ONNX model, BatchNorms folded.

    Input ``images``: (batch, 3, height, width) float32, RGB, 0-1; height and width multiples of the coarsest
    stride. Outputs ``stride8``, ``stride16``...: (batch, anchors * 16, height / stride, width / stride), before any
    sigmoid. The network's name is in the metadata.
    """
    import io

    import onnx

    folded = _RawHeads(fold_batch_norms(network))
    outputs = [f"stride{stride}" for stride in network.strides]
    axes = {name: {0: "batch", 2: f"height_{name}", 3: f"width_{name}"} for name in (INPUT_NAME, *outputs)}
    side = 2 * max(network.strides)
    stream = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter that needs no further package is the older one
        torch.onnx.export(
            folded,
            (torch.zeros(1, 3, side, side + max(network.strides)),),
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


def export_onnx(network: YoloV5Face, path: Path) -> None:
    """Writes a network as an ``.onnx`` file in one step, see ``to_onnx``."""
    write_bytes(path, to_onnx(network))


def read_onnx(path: Path) -> list[FoldedConv]:
    """Reads all convolutions of an ONNX file, in the order of its graph.

    Args:
        path: An ``.onnx`` file, BatchNorms folded.

    Raises:
        WeightsError: The file is no ONNX model, is quantised, or keeps its BatchNorms.
    """
    import onnx
    from google.protobuf.message import DecodeError

    try:
        model = onnx.load_model(path)
    except (DecodeError, OSError, ValueError) as error:
        raise WeightsError(f"{path}: not a readable ONNX model ({error})") from error
    values = {one.name: onnx.numpy_helper.to_array(one) for one in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type == "Constant":
            values[node.output[0]] = onnx.numpy_helper.to_array(node.attribute[0].t)
    foreign = {"BatchNormalization", "QLinearConv", "ConvInteger"} & {node.op_type for node in model.graph.node}
    if foreign:
        raise WeightsError(
            f"{path}: has {', '.join(sorted(foreign))} nodes, expected plain convolutions with BatchNorm folded in"
        )
    return [_read_conv(path, node, values) for node in model.graph.node if node.op_type == "Conv"]


def _read_conv(path: Path, node: Any, values: dict[str, Any]) -> FoldedConv:
    import onnx

    label = node.name or node.output[0]
    if node.input[1] not in values:
        raise WeightsError(f"{path}: the weights of convolution {label} are not in the file")
    attributes = {one.name: onnx.helper.get_attribute_value(one) for one in node.attribute}
    weight = torch.tensor(values[node.input[1]], dtype=torch.float32)
    has_bias = len(node.input) > 2 and node.input[2] in values
    bias = torch.tensor(values[node.input[2]], dtype=torch.float32) if has_bias else torch.zeros(len(weight))
    return FoldedConv(label, weight, bias, attributes.get("strides", [1])[0], attributes.get("group", 1))
