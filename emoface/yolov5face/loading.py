"""Reads weights of any known format into one of our networks; errors name the tensor that does not fit."""

from __future__ import annotations

import functools
import io
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from emoface.errors import SettingsError, WeightsError
from emoface.storage.downloads import is_web_page
from emoface.storage.files import write_bytes
from emoface.yolov5face.architectures import ARCHITECTURES, find_architecture
from emoface.yolov5face.checkpoint import read_checkpoint
from emoface.yolov5face.folding import FoldedConv, conv_slots, fill_folded
from emoface.yolov5face.ncnn import ncnn_pair, read_ncnn
from emoface.yolov5face.network import YoloV5Face

_NCNN = (".param", ".bin")
_PICKLES = (".pt", ".pth")
_SAFETENSORS = ".safetensors"
_ONNX = ".onnx"
SUFFIXES = (*_NCNN, _ONNX, _SAFETENSORS, *_PICKLES)

_COUNTER_SUFFIX = "num_batches_tracked"


def load_network(path: Path, network: str | None = None) -> YoloV5Face:
    """Loads a weight file into its network; the network keeps its BatchNorms and is in evaluation mode.

    Args:
        path: ncnn (``.param`` or ``.bin``), ``.onnx``, ``.safetensors``, or ``.pt`` / ``.pth``: a plain state dict
            or an official checkpoint, whose code is not run.
        network: Name of the network; None recognises it by the shapes of the weights.

    Raises:
        WeightsError: The file is missing, damaged or unsafe, or its weights belong to another network.
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
        built = _network_from_convs(path, read_ncnn(path), network)
    elif path.suffix == _ONNX:
        from emoface.yolov5face.onnx_files import read_onnx

        built = _network_from_convs(path, read_onnx(path), network)
    elif path.suffix == _SAFETENSORS:
        state, recorded_name = _read_safetensors(path)
        built = _network_from_state(path, state, network or recorded_name)
    elif path.suffix in _PICKLES:
        built = _network_from_state(path, read_checkpoint(path), network)
    else:
        raise WeightsError(f"{path}: weights of type {path.suffix!r} are not read; known: {', '.join(SUFFIXES)}")
    return built.eval()


def save_network(network: YoloV5Face, path: Path, half: bool = False) -> None:
    """Writes a network atomically, in the format of the path's suffix.

    Args:
        network: In training or evaluation mode; not changed.
        path: ``.safetensors`` (state dict, the network's name in the metadata), ``.pt`` (plain state dict), ``.onnx``
            or ``.torchscript`` (both for inference only: BatchNorms folded, any batch and image size).
        half: Write float16 weights, only for ``.safetensors``; ``load_network`` converts them to float32.

    Raises:
        SettingsError: The suffix is unknown, or ``half`` is set for another suffix than ``.safetensors``.
    """
    from emoface.yolov5face.onnx_files import to_onnx, to_torchscript

    if half and path.suffix != _SAFETENSORS:
        raise SettingsError(f"{path}: float16 is written as {_SAFETENSORS} alone")
    match path.suffix:
        case ".safetensors":
            data = _to_safetensors(network, half)
        case ".pt":
            stream = io.BytesIO()
            torch.save(network.state_dict(), stream)
            data = stream.getvalue()
        case ".onnx":
            data = to_onnx(network)
        case ".torchscript":
            data = to_torchscript(network)
        case _:
            raise SettingsError(f"{path}: weights are written as .safetensors, .pt, .onnx or .torchscript")
    write_bytes(path, data)


def _to_safetensors(network: YoloV5Face, half: bool) -> bytes:
    from safetensors.torch import save

    state = {key: value.contiguous() for key, value in network.state_dict().items()}
    if half:
        state = {key: value.half() if value.is_floating_point() else value for key, value in state.items()}
    data: bytes = save(state, metadata={"network": network.name})
    return data


def hashed_path(path: Path) -> Path:
    """Returns the file whose sha256 identifies the weights: the ``.bin`` of an ncnn pair, else the file itself."""
    return ncnn_pair(path)[1] if path.suffix in _NCNN else path


def _read_safetensors(path: Path) -> tuple[dict[str, Tensor], str | None]:
    """Reads the state dict, and the network's name where the metadata has a known one."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as opened:
            recorded_name = (opened.metadata() or {}).get("network")
            state = {key: opened.get_tensor(key) for key in opened.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise WeightsError(f"{path}: not a readable safetensors file ({error})") from error
    return state, recorded_name if recorded_name in ARCHITECTURES else None


def _network_from_convs(path: Path, convs: list[FoldedConv], name: str | None) -> YoloV5Face:
    network = YoloV5Face(find_architecture(name or _recognise_by_forms(path, convs)))
    slots = conv_slots(network)
    for slot, conv in zip(slots, convs, strict=False):
        if slot.form != conv.form:
            raise WeightsError(
                f"{path}: convolution {conv.label} is {conv.form}, expected {slot.form} ({slot.name} of "
                f"{network.name}); give the network that the file was made for"
            )
    if len(slots) != len(convs):
        raise WeightsError(
            f"{path}: {len(convs)} convolutions, expected {len(slots)} of {network.name}; "
            "give the network that the file was made for"
        )
    fill_folded(network, convs)
    return network


def _recognise_by_forms(path: Path, convs: list[FoldedConv]) -> str:
    forms = [conv.form for conv in convs]
    for name in ARCHITECTURES:
        if [slot.form for slot in conv_slots(_build_shapes_only(name))] == forms:
            return name
    raise WeightsError(
        f"{path}: its {len(convs)} convolutions fit none of the networks {', '.join(ARCHITECTURES)}; "
        "give the network's name to see where it differs"
    )


def _network_from_state(path: Path, state: Mapping[str, Tensor], name: str | None) -> YoloV5Face:
    network = YoloV5Face(find_architecture(name or _recognise_by_shapes(path, state)))
    expected = _without_counters(network.state_dict())
    found = _without_counters(_unfold_state(network, state))
    for key in sorted(expected.keys() | found.keys()):
        if key not in found:
            raise WeightsError(f"{path}: tensor {key} of {network.name} is missing")
        if key not in expected:
            raise WeightsError(f"{path}: tensor {key} is not one of {network.name}'s")
        if found[key].shape != expected[key].shape:
            raise WeightsError(
                f"{path}: tensor {key} has shape {tuple(found[key].shape)}, expected "
                f"{tuple(expected[key].shape)} of {network.name}"
            )
    network.load_state_dict({key: value.float() for key, value in found.items()}, strict=False)
    return network


def _recognise_by_shapes(path: Path, state: Mapping[str, Tensor]) -> str:
    for name in ARCHITECTURES:
        network = _build_shapes_only(name)
        found = _without_counters(_unfold_state(network, state))
        expected = _without_counters(network.state_dict())
        if {key: value.shape for key, value in found.items()} == {k: v.shape for k, v in expected.items()}:
            return name
    raise WeightsError(
        f"{path}: its {len(state)} tensors fit none of the networks {', '.join(ARCHITECTURES)}; "
        "give the network's name to see where it differs"
    )


def _without_counters(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Drops the batch counters of BatchNorms, which only training reads and which old files lack."""
    return {key: value for key, value in state.items() if not key.endswith(_COUNTER_SUFFIX)}


def _unfold_state(network: YoloV5Face, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Adds BatchNorms (identity plus the folded bias) to a state dict that was saved after folding them."""
    unfolded = dict(state)
    for slot in conv_slots(network):
        bias_name = f"{slot.name}.bias"
        if slot.norm is None or f"{slot.norm_name}.weight" in state or bias_name not in state:
            continue
        bias = state[bias_name]
        if slot.conv.bias is None:
            del unfolded[bias_name]
        else:
            unfolded[bias_name] = torch.zeros_like(bias)
        unfolded[f"{slot.norm_name}.weight"] = torch.ones_like(bias)
        unfolded[f"{slot.norm_name}.bias"] = bias
        unfolded[f"{slot.norm_name}.running_mean"] = torch.zeros_like(bias)
        unfolded[f"{slot.norm_name}.running_var"] = torch.full_like(bias, 1 - slot.norm.eps, dtype=torch.float32)
    return unfolded


@functools.cache
def _build_shapes_only(name: str) -> YoloV5Face:
    """Builds a network whose tensors have shapes but no values, for comparisons of shapes."""
    with torch.device("meta"):
        return YoloV5Face(find_architecture(name))
