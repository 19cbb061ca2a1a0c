"""Opens the ONNX files of others with ONNX Runtime."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from emoface.errors import WeightsError


def open_session(
    path: Path, remedy: str, *, n_threads: int | None = None, providers: Sequence[str] = ("CPUExecutionProvider",)
) -> Any:
    """Opens an ONNX file.

    Args:
        path: The file.
        remedy: What was expected, or what the user can do, for the error.
        n_threads: Threads of one call; 1 where several threads call it at the same time, None is ONNX Runtime's choice.
        providers: What runs the network, as ONNX Runtime names it; the first that can.

    Returns:
        An ``onnxruntime.InferenceSession``.

    Raises:
        WeightsError: The file cannot be read as an ONNX model.
    """
    import onnxruntime
    from onnxruntime.capi import onnxruntime_pybind11_state as errors

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    if n_threads is not None:
        options.intra_op_num_threads = n_threads
    try:
        return onnxruntime.InferenceSession(path, options, providers=list(providers))
    except (errors.Fail, errors.InvalidProtobuf, errors.InvalidGraph, errors.NotImplemented) as error:
        raise WeightsError(f"{path}: not a readable ONNX model ({error}); {remedy}") from error
