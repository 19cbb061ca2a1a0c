"""A trained model exported to ONNX, on ONNX Runtime; torch is not needed."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from emoface.errors import SettingsError
from emoface.inference.onnx_sessions import open_session
from emoface.mter.exported import METADATA_KEY, to_run
from emoface.mter.runs import Run
from emoface.prefetch import count_usable_cpus

_REMEDY = "give a file that 'emoface export' wrote"
_PROVIDERS = {"cpu": ["CPUExecutionProvider"], "cuda": ["CUDAExecutionProvider", "CPUExecutionProvider"]}


class OnnxModel:
    """An ONNX file that ``emoface export`` wrote.

    Attributes:
        run: The description in its metadata; the weights are the file itself.

    Raises:
        WeightsError: The file is not an ONNX model.
        SettingsError: Another program wrote it, or ONNX Runtime has no such device.
    """

    def __init__(self, path: Path, device: str = "cpu") -> None:
        import onnxruntime

        providers = _pick_providers(device, onnxruntime.get_available_providers())
        self._session: Any = open_session(path, _REMEDY, n_threads=count_usable_cpus(), providers=providers)
        metadata = self._session.get_modelmeta().custom_metadata_map
        if METADATA_KEY not in metadata:
            raise SettingsError(f"{path}: an ONNX model without the description of an emotion model; {_REMEDY}")
        self.run: Run = to_run(metadata[METADATA_KEY], path)
        self._input_names = [one.name for one in self._session.get_inputs()]
        self._output_names = [one.name for one in self._session.get_outputs()]

    def compute(self, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[np.float32]]:
        """Computes the outputs for b people, one or more.

        Args:
            inputs: Per name of an input its values, see ``emoface.mter.onnx_files.write_onnx``; others are ignored.

        Returns:
            Per name of an output its values: ``logits`` and ``probabilities`` (b, 26), ``vad`` (b, 3)...
        """
        values = self._session.run(None, {name: inputs[name] for name in self._input_names})
        return dict(zip(self._output_names, values, strict=True))


def _pick_providers(device: str, available: list[str]) -> list[str]:
    """Selects the providers of ONNX Runtime for a device; ``auto`` is CUDA where ONNX Runtime has it."""
    has_cuda = _PROVIDERS["cuda"][0] in available
    if device == "auto":
        return _PROVIDERS["cuda" if has_cuda else "cpu"]
    if device not in _PROVIDERS:
        raise SettingsError(f"device is '{device}', expected auto, cpu or cuda")
    if device == "cuda" and not has_cuda:
        raise SettingsError(
            "device is 'cuda', but this ONNX Runtime runs on the CPU alone; use cpu, or install onnxruntime-gpu"
        )
    return _PROVIDERS[device]
