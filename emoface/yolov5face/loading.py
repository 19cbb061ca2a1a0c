"""Loads weight files into networks of torch, and writes networks as weight files."""

from __future__ import annotations

import io
import warnings
from pathlib import Path

import torch
from torch import Tensor, nn

from emoface.errors import SettingsError
from emoface.learning.initialisation import WithoutRandomParameters
from emoface.storage.files import write_bytes
from emoface.yolov5face.folding import fold_batch_norms, network_weights
from emoface.yolov5face.network import YoloV5Face
from emoface.yolov5face.network_weights import NetworkWeights
from emoface.yolov5face.onnx_files import to_onnx
from emoface.yolov5face.weight_files import read_weights

_SAFETENSORS = ".safetensors"


def load_network(path: Path, network: str | None = None) -> YoloV5Face:
    """Loads a weight file into its network; the network keeps its BatchNorms and is in evaluation mode.

    Args:
        path: A weight file of any known format, see ``read_weights``.
        network: Name of the network; None recognises it by the shapes of the weights.

    Raises:
        WeightsError: The file is missing, damaged or unsafe, or its weights belong to another network.
        SettingsError: No network is called ``network``.
    """
    return to_network(read_weights(path, network))


def to_network(weights: NetworkWeights) -> YoloV5Face:
    """Builds the network of complete weights, in evaluation mode."""
    with WithoutRandomParameters():
        network = YoloV5Face(weights.architecture)
    state = {name: torch.tensor(value) for name, value in weights.state.items()}
    network.load_state_dict(state, strict=False)  # the counters of BatchNorms stay as they are
    return network.eval()


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
            data = to_onnx(network_weights(network))
        case ".torchscript":
            data = _to_torchscript(network)
        case _:
            raise SettingsError(f"{path}: weights are written as .safetensors, .pt, .onnx or .torchscript")
    write_bytes(path, data)


def export_onnx(network: YoloV5Face, path: Path) -> None:
    """Writes a network as an ``.onnx`` file atomically, see ``to_onnx``."""
    write_bytes(path, to_onnx(network_weights(network)))


def _to_safetensors(network: YoloV5Face, half: bool) -> bytes:
    from safetensors.torch import save

    state = {key: value.contiguous() for key, value in network.state_dict().items()}
    if half:
        state = {key: value.half() if value.is_floating_point() else value for key, value in state.items()}
    data: bytes = save(state, metadata={"network": network.name})
    return data


class _RawHeads(nn.Module):
    """The part of a network that other programs run; decoding is not part of it."""

    def __init__(self, network: YoloV5Face) -> None:
        super().__init__()
        self.network = fold_batch_norms(network)

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        return tuple(self.network.raw_heads(images))


def _to_torchscript(network: YoloV5Face) -> bytes:
    """Converts a network to a TorchScript program; input and outputs as in ``to_onnx``, the outputs as a tuple."""
    side = max(network.strides)
    images = torch.zeros(1, 3, 2 * side, 3 * side)  # not square, so that an exchange of the sides would be noticed
    stream = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # TorchScript is no longer developed, but still in use
        torch.jit.save(torch.jit.trace(_RawHeads(network), images), stream)
    return stream.getvalue()
