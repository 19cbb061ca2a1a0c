"""Reads weights of any known format, most without torch; errors name the tensor that does not fit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from emoface.errors import WeightsError, describe_missing_package
from emoface.storage.downloads import is_web_page
from emoface.yolov5face.architectures import ARCHITECTURES, find_architecture
from emoface.yolov5face.graph import describe_graph
from emoface.yolov5face.ncnn import ncnn_pair, read_ncnn
from emoface.yolov5face.network_weights import FoldedConv, NetworkWeights, tensor_shapes, unfold_convs, unfold_state

_NCNN = (".param", ".bin")
_PICKLES = (".pt", ".pth")
_SAFETENSORS = ".safetensors"
_ONNX = ".onnx"
SUFFIXES = (*_NCNN, _ONNX, _SAFETENSORS, *_PICKLES)

_COUNTER_SUFFIX = "num_batches_tracked"
_DTYPES = {"F64": np.float64, "F32": np.float32, "F16": np.float16, "I64": np.int64, "I32": np.int32}
_BFLOAT16 = "BF16"


def read_weights(path: Path, network: str | None = None) -> NetworkWeights:
    """Reads a weight file; only ``.pt`` and ``.pth`` files need torch.

    Args:
        path: ncnn (``.param`` or ``.bin``), ``.onnx``, ``.safetensors``, or ``.pt`` / ``.pth``: a plain state dict
            or an official checkpoint, whose code is not run.
        network: Name of the network; None recognises it by the shapes of the weights.

    Raises:
        WeightsError: The file is missing, damaged or unsafe, its weights belong to another network, or torch, which
            its format needs, is not installed.
        SettingsError: No network is called ``network``.
    """
    if network is not None:
        find_architecture(network)
    if not path.is_file():
        raise WeightsError(f"{path}: no such weight file")
    with path.open("rb") as stream:
        if is_web_page(stream.read(256)):
            raise WeightsError(f"{path}: a web page, not weights; a proxy or login page was saved, download it again")
    if path.suffix in _NCNN:
        return _weights_from_convs(path, read_ncnn(path), network)
    if path.suffix == _ONNX:
        from emoface.yolov5face.onnx_files import read_onnx

        return _weights_from_convs(path, read_onnx(path), network)
    if path.suffix == _SAFETENSORS:
        state, recorded_name = _read_safetensors(path)
        return _weights_from_state(path, state, network or recorded_name)
    if path.suffix in _PICKLES:
        return _weights_from_state(path, _read_pickle(path), network)
    raise WeightsError(f"{path}: weights of type {path.suffix!r} are not read; known: {', '.join(SUFFIXES)}")


def hashed_path(path: Path) -> Path:
    """Returns the file whose sha256 identifies the weights: the ``.bin`` of an ncnn pair, else the file itself."""
    return ncnn_pair(path)[1] if path.suffix in _NCNN else path


def _read_safetensors(path: Path) -> tuple[dict[str, NDArray[Any]], str | None]:
    """Reads the state dict, and the network's name where the metadata has a known one."""
    from safetensors import SafetensorError, deserialize, safe_open

    try:
        with safe_open(path, framework="np") as opened:
            recorded_name = (opened.metadata() or {}).get("network")
        stored = deserialize(path.read_bytes())  # type: ignore[no-untyped-call]
    except (SafetensorError, OSError) as error:
        raise WeightsError(f"{path}: not a readable safetensors file ({error})") from error
    state = {name: _to_array(path, name, one) for name, one in stored}
    return state, recorded_name if recorded_name in ARCHITECTURES else None


def _to_array(path: Path, name: str, stored: Mapping[str, Any]) -> NDArray[Any]:
    """Converts a stored tensor to numpy, which has no bfloat16: the upper half of a float32."""
    data, shape, kind = stored["data"], stored["shape"], stored["dtype"]
    if kind == _BFLOAT16:
        return (np.frombuffer(data, "<u2").astype(np.uint32) << 16).view(np.float32).reshape(shape)
    if kind not in _DTYPES:
        raise WeightsError(f"{path}: tensor {name} is of type {kind}, expected one of {', '.join(_DTYPES)}, BF16")
    return np.frombuffer(data, np.dtype(_DTYPES[kind]).newbyteorder("<")).reshape(shape)


def _read_pickle(path: Path) -> dict[str, NDArray[Any]]:
    try:
        from emoface.yolov5face.checkpoint import read_checkpoint
    except ModuleNotFoundError as error:
        if (message := describe_missing_package(error)) is None:
            raise
        raise WeightsError(
            f"{path}: {message}, or convert the file with 'emoface detector export' where torch is installed"
        ) from error
    return {name: tensor.float().numpy() for name, tensor in read_checkpoint(path).items()}


def _weights_from_convs(path: Path, convs: Sequence[FoldedConv], name: str | None) -> NetworkWeights:
    network = name or _recognise_by_forms(path, convs)
    expected = describe_graph(network).convs
    for spec, conv in zip(expected, convs, strict=False):
        if spec.form != conv.form:
            raise WeightsError(
                f"{path}: convolution {conv.label} is {conv.form}, expected {spec.form} ({spec.name} of "
                f"{network}); give the network that the file was made for"
            )
    if len(expected) != len(convs):
        raise WeightsError(
            f"{path}: {len(convs)} convolutions, expected {len(expected)} of {network}; "
            "give the network that the file was made for"
        )
    return unfold_convs(find_architecture(network), convs)


def _recognise_by_forms(path: Path, convs: Sequence[FoldedConv]) -> str:
    forms = [conv.form for conv in convs]
    for name in ARCHITECTURES:
        if [spec.form for spec in describe_graph(name).convs] == forms:
            return name
    raise WeightsError(
        f"{path}: its {len(convs)} convolutions fit none of the networks {', '.join(ARCHITECTURES)}; "
        "give the network's name to see where it differs"
    )


def _weights_from_state(path: Path, state: Mapping[str, NDArray[Any]], name: str | None) -> NetworkWeights:
    state = {key: value for key, value in state.items() if not key.endswith(_COUNTER_SUFFIX)}
    architecture = find_architecture(name or _recognise_by_shapes(path, state))
    expected = tensor_shapes(architecture)
    found = unfold_state(architecture, state)
    for key in sorted(expected.keys() | found.keys()):
        if key not in found:
            raise WeightsError(f"{path}: tensor {key} of {architecture.name} is missing")
        if key not in expected:
            raise WeightsError(f"{path}: tensor {key} is not one of {architecture.name}'s")
        if found[key].shape != expected[key]:
            raise WeightsError(
                f"{path}: tensor {key} has shape {found[key].shape}, expected {expected[key]} of {architecture.name}"
            )
    return NetworkWeights(architecture, {key: value.astype(np.float32) for key, value in found.items()})


def _recognise_by_shapes(path: Path, state: Mapping[str, NDArray[Any]]) -> str:
    for name, architecture in ARCHITECTURES.items():
        found = {key: value.shape for key, value in unfold_state(architecture, state).items()}
        if found == tensor_shapes(architecture):
            return name
    raise WeightsError(
        f"{path}: its {len(state)} tensors fit none of the networks {', '.join(ARCHITECTURES)}; "
        "give the network's name to see where it differs"
    )
