"""Reads ncnn weights: a text file (``.param``) that lists the layers and a binary file (``.bin``) of their weights.

In a ``.param`` line, after type, name and blobs, ``0=`` is the output channels, ``1=`` the kernel, ``3=`` the stride,
``5=`` whether there is a bias, ``6=`` the number of weights and ``7=`` the groups. For each convolution the ``.bin``
holds a tag, the weights and the bias as float32; fp16 weights are padded to a multiple of 4 bytes.

Source: the file format of Tencent/ncnn, docs/developer-guide (param-and-model-file-structure).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from emoface.errors import WeightsError
from emoface.yolov5face.network_weights import FoldedConv

_MAGIC = "7767517"
_CONVOLUTIONS = ("Convolution", "ConvolutionDepthWise")
_LAYERS_WITHOUT_WEIGHTS = frozenset(
    (
        *("BinaryOp", "Concat", "Eltwise", "Input", "Interp", "Noop", "Permute", "Pooling"),
        *("Reshape", "ShuffleChannel", "Sigmoid", "Slice", "Split", "Swish", "UnaryOp"),
    )
)
_FP16_TAG, _FP32_TAG = 0x01306B47, 0


@dataclass(frozen=True)
class _ConvLine:
    """A convolution as described in the ``.param``."""

    name: str
    out_channels: int
    kernel: int
    stride: int
    has_bias: bool
    n_weights: int
    groups: int

    @property
    def weight_shape(self) -> tuple[int, int, int, int]:
        per_group = self.n_weights // (self.out_channels * self.kernel * self.kernel)
        return self.out_channels, per_group, self.kernel, self.kernel


def ncnn_pair(path: Path) -> tuple[Path, Path]:
    """Returns the paths of the ``.param`` and the ``.bin`` that belong together.

    Args:
        path: Either of the two files.

    Raises:
        WeightsError: One of them is missing.
    """
    pair = path.with_suffix(".param"), path.with_suffix(".bin")
    for part in pair:
        if not part.is_file():
            raise WeightsError(f"{part}: no such file; ncnn weights are a .param and a .bin of the same name")
    return pair


def read_ncnn(path: Path) -> list[FoldedConv]:
    """Reads all convolutions, in the order of the ``.param`` file.

    Args:
        path: The ``.param`` or the ``.bin``.

    Raises:
        WeightsError: A file is missing or damaged, or has layers that are not part of YOLOv5-Face.
    """
    param_path, bin_path = ncnn_pair(path)
    lines = _read_param(param_path)
    reader = _BinReader(bin_path, bin_path.read_bytes())
    convs = []
    for line in lines:
        weight = reader.take_weights(line)
        bias = reader.take_floats(line.out_channels, line.name) if line.has_bias else np.zeros(line.out_channels)
        convs.append(
            FoldedConv(
                line.name,
                weight.astype(np.float32).reshape(line.weight_shape),
                bias.astype(np.float32),
                line.stride,
                line.groups,
            )
        )
    reader.finish(param_path)
    return convs


def _read_param(path: Path) -> list[_ConvLine]:
    try:
        rows = [row.split() for row in path.read_text(encoding="ascii").splitlines() if row.strip()]
    except UnicodeDecodeError as error:
        raise WeightsError(f"{path}: not a text file; binary .param.bin files are not read") from error
    if not rows or rows[0] != [_MAGIC]:
        start = " ".join(rows[0])[:40] if rows else ""
        raise WeightsError(f"{path}: starts with {start!r}, expected the ncnn mark {_MAGIC}; fetch the file again")
    layers = rows[2:]
    try:
        n_layers = int(rows[1][0])
    except (IndexError, ValueError) as error:
        raise WeightsError(f"{path}: line 2 has no number of layers") from error
    if len(layers) != n_layers:
        raise WeightsError(f"{path}: {len(layers)} layers, expected {n_layers} as line 2 says; is it cut off?")
    convs = []
    for row in layers:
        if row[0] in _CONVOLUTIONS:
            convs.append(_parse_convolution(path, row))
        elif row[0] not in _LAYERS_WITHOUT_WEIGHTS:
            raise WeightsError(f"{path}: layer type {row[0]} is not one of a YOLOv5-Face network")
    return convs


def _parse_convolution(path: Path, row: list[str]) -> _ConvLine:
    """Parses the words of a line ``type name n_in n_out in... out... key=value...``."""
    try:
        values = {key: value for key, _, value in (word.partition("=") for word in row[4:] if "=" in word)}
        out_channels, kernel, n_weights = int(values["0"]), int(values["1"]), int(values["6"])
        line = _ConvLine(
            name=row[1],
            out_channels=out_channels,
            kernel=kernel,
            stride=int(values.get("3", "1")),
            has_bias=values.get("5", "0") == "1",
            n_weights=n_weights,
            groups=int(values.get("7", "1")),
        )
    except (IndexError, KeyError, ValueError) as error:
        raise WeightsError(f"{path}: cannot read the convolution {' '.join(row)!r}") from error
    unit = out_channels * kernel * kernel
    if unit <= 0 or n_weights <= 0 or n_weights % unit:
        raise WeightsError(f"{path}: {line.name} has {n_weights} weights, expected a multiple of {unit}")
    return line


@dataclass
class _BinReader:
    """Reads the values of a ``.bin`` one after the other."""

    path: Path
    data: bytes
    position: int = 0

    def take_weights(self, line: _ConvLine) -> NDArray[np.generic]:
        tag = int(self._take(np.uint32, 1, line.name)[0])
        if tag == _FP32_TAG:
            return self._take(np.float32, line.n_weights, line.name)
        if tag == _FP16_TAG:
            weights = self._take(np.float16, line.n_weights, line.name)
            self.position += -self.position % 4
            return weights
        raise WeightsError(
            f"{self.path}: {line.name} has storage tag {tag:#010x}, expected fp32 ({_FP32_TAG:#010x}) or "
            f"fp16 ({_FP16_TAG:#010x}); quantised weights are not read"
        )

    def take_floats(self, count: int, name: str) -> NDArray[np.generic]:
        return self._take(np.float32, count, name)

    def finish(self, param_path: Path) -> None:
        if self.position != len(self.data):
            left = len(self.data) - self.position
            raise WeightsError(f"{self.path}: {left} bytes too many for {param_path.name}; are they one pair?")

    def _take(self, kind: type[np.generic], count: int, name: str) -> NDArray[np.generic]:
        n_bytes = count * np.dtype(kind).itemsize
        if self.position + n_bytes > len(self.data):
            raise WeightsError(
                f"{self.path}: ends inside {name} at byte {len(self.data)}, expected {n_bytes} bytes from "
                f"{self.position} on; the file is cut off or belongs to another .param"
            )
        values = np.frombuffer(self.data, np.dtype(kind).newbyteorder("<"), count, self.position)
        self.position += n_bytes
        return values
