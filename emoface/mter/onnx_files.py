"""Writes a trained network as an ONNX file of any batch size from 1, and checks it against torch with ONNX Runtime."""

from __future__ import annotations

import json
import tempfile
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.onnx.errors import OnnxExporterError

from emoface.errors import WeightsError
from emoface.mter.base import Mter
from emoface.mter.cost import empty_inputs
from emoface.mter.exported import METADATA_KEY
from emoface.mter.forward import to_probabilities
from emoface.mter.vad import from_vad_unit
from emoface.storage.files import write_bytes

HAS_FACE = "has_face"
LOGITS, PROBABILITIES, VAD = "logits", "probabilities", "vad"
_STREAM = "stream_"
OPSET = 17
TOLERANCE = 1e-4
"""Largest difference to torch's outputs, absolute for outputs up to 1 and else as a share of the largest output."""
_CHECKED_MASKS = ((True,), (False, False), (True, False, True, False, False))
"""Who has a face or another input, in the batches of the check."""


class _OnnxForm(nn.Module):
    """A network whose inputs and outputs are in an order, as ONNX needs them.

    Attributes:
        input_names: Names of the inputs, in order.
        output_names: Names of the outputs, in order.
    """

    def __init__(self, model: Mter) -> None:
        super().__init__()
        self.model = model
        masks = [form.presence for form in model.array_inputs.values()]
        arrays = [name for pair in zip(model.array_inputs, masks, strict=True) for name in pair]
        self.input_names = [*model.streams, *([HAS_FACE] if "face" in model.streams else []), *arrays]
        self.output_names: list[str] = []

    def forward(self, *values: Tensor) -> tuple[Tensor, ...]:
        inputs = dict(zip(self.input_names, values, strict=True))
        first = values[0]
        has_face = inputs.pop(HAS_FACE, None)
        everybody = torch.ones(first.shape[0], dtype=torch.bool, device=first.device)
        output = self.model(inputs, everybody if has_face is None else has_face)
        named = {
            LOGITS: output.logits,
            PROBABILITIES: to_probabilities(output.logits, self.model.has_linear_outputs),
            **{f"{_STREAM}{stream}": logits for stream, logits in output.stream_logits.items()},
        }
        if output.vad_unit is not None:
            named[VAD] = from_vad_unit(output.vad_unit)
        if self.model.reads_face_alone and has_face is not None:
            for name in {PROBABILITIES, VAD} & named.keys():
                named[name] = torch.where(has_face[:, None], named[name], torch.nan)
        self.output_names = list(named)
        return tuple(named.values())


def write_onnx(path: Path, model: Mter, sizes: Mapping[str, int], config: Mapping[str, Any]) -> float:
    """Writes a network as ONNX; the file is only kept if ONNX Runtime computes the outputs of torch.

    Inputs: per stream (batch, 3, side, side) float32, RGB, normalised; ``has_face`` (batch,) bool where the network
    reads the face; per array input the values, (batch, *shape) float32, and its mask. Outputs: ``logits`` and
    ``probabilities`` (batch, 26); ``stream_NAME`` (batch, 26), the logits of each stream's own head; ``vad`` (batch,
    3), 1-10. Probabilities and vad of a person whom the network cannot use are nan.

    Args:
        path: The file.
        model: The network on the CPU, in evaluation mode.
        sizes: Side of each stream's input, pixels.
        config: The description of the model, which becomes metadata.

    Returns:
        The largest difference of a logit between ONNX Runtime and torch.

    Raises:
        WeightsError: The outputs differ from torch's, or ONNX lacks a layer of the network; nothing is written.
    """
    form = _OnnxForm(model).eval()
    try:
        converted = _convert(form, _draw_inputs(form, sizes, _CHECKED_MASKS[-1]))
    except OnnxExporterError as error:
        raise WeightsError(
            f"{path}: not written: torch {torch.__version__} cannot write a layer of this network as ONNX "
            f"({str(error).splitlines()[0]}); export it as a folder (--format folder)"
        ) from error
    content = _add_metadata(converted, config)
    worst = _compare(path, content, form, sizes)
    write_bytes(path, content)
    return worst


def _convert(form: _OnnxForm, values: tuple[Tensor, ...]) -> bytes:
    """Converts a network by tracing it; the exporter that needs no further package."""
    with torch.inference_mode():
        form(*values)  # names the outputs
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        written = Path(folder) / "model.onnx"
        warnings.simplefilter("ignore")  # of the checks of shapes, which are constants here, and of the exporter's age
        torch.onnx.export(
            form,
            values,
            str(written),
            input_names=form.input_names,
            output_names=form.output_names,
            dynamic_axes={name: {0: "batch"} for name in (*form.input_names, *form.output_names)},
            opset_version=OPSET,
            dynamo=False,
        )
        return written.read_bytes()


def _add_metadata(content: bytes, config: Mapping[str, Any]) -> bytes:
    """Adds the description of the model: the whole of it, and its main values one by one for other programs."""
    import onnx

    model = onnx.load_model_from_string(content)
    shown = ("model", "label_names", "stream_sizes", "normalisation", "preprocessing", "array_inputs", "weights_sha256")
    values = {name: config[name] for name in shown} | {"exported_by": config["exported_by"]}
    texts = {name: value if isinstance(value, str) else json.dumps(value) for name, value in values.items()}
    onnx.helper.set_model_props(model, {**texts, METADATA_KEY: json.dumps(config)})
    model.producer_name = "emoface"
    onnx.checker.check_model(model)
    written: bytes = model.SerializeToString()
    return written


def _compare(path: Path, content: bytes, form: _OnnxForm, sizes: Mapping[str, int]) -> float:
    """Compares the outputs of ONNX Runtime and torch for random inputs of people with and without each input."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    worst = 0.0
    for mask in _CHECKED_MASKS:
        values = _draw_inputs(form, sizes, mask)
        with torch.inference_mode():
            expected = [output.numpy() for output in form(*values)]
        feed = {name: value.numpy() for name, value in zip(form.input_names, values, strict=True)}
        found = session.run(form.output_names, feed)
        for name, one, other in zip(form.output_names, found, expected, strict=True):
            is_number = ~np.isnan(other)
            size = max(1.0, float(np.abs(other[is_number]).max(initial=0)))
            difference = float(np.abs(one - other)[is_number].max(initial=0))
            if one.shape != other.shape or (np.isnan(one) == is_number).any() or not difference <= TOLERANCE * size:
                raise WeightsError(
                    f"{path}: not written: '{name}' of ONNX Runtime {onnxruntime.__version__} differs from that of "
                    f"torch {torch.__version__} by {difference:.2g}, expected {TOLERANCE * size:.2g} or less; export "
                    "with other versions of these, or as a folder (--format folder)"
                )
            if name == LOGITS:
                worst = max(worst, difference)
    return worst


def _draw_inputs(form: _OnnxForm, sizes: Mapping[str, int], mask: tuple[bool, ...]) -> tuple[Tensor, ...]:
    """Draws random inputs of people of whom ``mask`` says who has a face and the other inputs."""
    generator = torch.Generator().manual_seed(len(mask))
    has_input = torch.tensor(mask)
    inputs = {**empty_inputs(form.model, len(mask), sizes), HAS_FACE: has_input}
    for name, x in inputs.items():
        if name in form.model.streams:
            inputs[name] = torch.randn(x.shape, generator=generator)
        elif x.is_floating_point():
            inputs[name] = torch.rand(x.shape, generator=generator)
        elif x.ndim == 1:
            inputs[name] = has_input
        else:
            inputs[name] = has_input[:, None] & (torch.rand(x.shape, generator=generator) < 0.7)
    return tuple(inputs[name] for name in form.input_names)
