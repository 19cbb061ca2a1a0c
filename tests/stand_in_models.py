"""Stand-ins for models of body points and of depth: small ONNX files with the same inputs and outputs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper


def write_simcc(
    path: Path, wh: tuple[int, int], n_points: int, names: tuple[str, str] = ("simcc_x", "simcc_y")
) -> None:
    """Writes a stand-in for RTMPose: every point is at the column and the row with the most red, at twice the scale."""
    ones = {"axis": [1], "of_rows": [2], "of_columns": [3]}
    arrays = [numpy_helper.from_array(np.array(value, np.int64), name) for name, value in ones.items()]
    scales = [numpy_helper.from_array(np.array([1, 1, 2], np.float32), "scales")]
    repeats = [numpy_helper.from_array(np.array([1, n_points, 1], np.int64), "repeats")]
    first = [numpy_helper.from_array(np.array([0], np.int64), "first")]
    nodes = [
        helper.make_node("Gather", ["input", "first"], ["red"], axis=1),
        helper.make_node("ReduceMax", ["red", "of_rows"], ["by_column4"], keepdims=0),
        helper.make_node("ReduceMax", ["red", "of_columns"], ["by_row4"], keepdims=0),
    ]
    for axis, name in (("column", names[0]), ("row", names[1])):
        nodes += [
            helper.make_node("Resize", [f"by_{axis}4", "", "scales"], [f"wide_{axis}"], mode="nearest"),
            helper.make_node("Sigmoid", [f"wide_{axis}"], [f"score_{axis}"]),
            helper.make_node("Tile", [f"score_{axis}", "repeats"], [name]),
        ]
    graph = helper.make_graph(
        nodes,
        "stand_in",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, [1, 3, wh[1], wh[0]])],
        [
            helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, n_points, 2 * side])
            for name, side in zip(names, wh, strict=True)
        ],
        [*arrays, *scales, *repeats, *first],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8), path)


def write_depth(path: Path, height: int | str = 64, channels: int = 3) -> None:
    """Writes a stand-in for a model of depth, whose inverse depth is the sum of the normalised channels."""
    node = helper.make_node("ReduceSum", ["image", "axes"], ["depth"], keepdims=0)
    graph = helper.make_graph(
        [node],
        "stand_in",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, channels, height, height])],
        [helper.make_tensor_value_info("depth", TensorProto.FLOAT, [1, height, height])],
        [numpy_helper.from_array(np.array([1], np.int64), "axes")],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
