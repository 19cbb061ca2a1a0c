"""Models exported from a run: what describes them, as a folder or within an ONNX file; importable without torch.

A folder holds ``model.safetensors``, ``README.md``, which is its model card, and ``config.json``, which has all that
prediction needs without the data set, and no path of the machine that it was written on. The same description is in the
metadata of an ONNX file.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from emoface.datasets.publication import last_name
from emoface.errors import SettingsError, WeightsError
from emoface.mter.inputs import ContextInput
from emoface.mter.names import IMAGENET_MEAN, IMAGENET_STD, STREAMS, FaceFill
from emoface.mter.runs import RUN_NAME, LabelNames, Run, RunDescription, read_run
from emoface.storage.files import file_sha256, parse_json, read_text, write_text
from emoface.storage.settings import describe_fault
from emoface.version import __version__

if TYPE_CHECKING:
    from emoface.mter.base import Mter

CONFIG_NAME = "config.json"
WEIGHTS_NAME = "model.safetensors"
CARD_NAME = "README.md"
FORMAT: Literal["emoface model 1"] = "emoface model 1"
"""Name and version of the description, its first value."""
METADATA_KEY = "emoface"
"""Key of the whole description in the metadata of an ONNX file."""
_REMEDY = "export the run again with 'emoface export'"

_SOURCES = {
    "face": "the crop of the face",
    "body": "the body box, clipped to the photo and scaled to a square",
    "context": "the whole photo, scaled to a square",
}


class _ContextForm(BaseModel):
    """The values of ``ContextInput``."""

    model_config = ConfigDict(strict=True, extra="forbid")

    masks_face: bool
    face_fill: FaceFill
    center_share: Annotated[float, Field(gt=0, le=1)]
    masks_body: bool
    body_fill: FaceFill


class _Config(RunDescription):
    """The values of ``config.json`` that prediction needs; a later emoface may write more."""

    format: Literal["emoface model 1"]
    streams: Annotated[list[str], Field(min_length=1)]
    context_input: _ContextForm
    label_names: LabelNames
    weights_sha256: str


def describe_model(run: Run, model: Mter) -> dict[str, Any]:
    """Describes a trained model for ``config.json``.

    Args:
        run: The run, or an exported model.
        model: Its network, of which no weights are read.
    """
    settings = run.settings
    sizes = {stream: run.stream_sizes[stream] for stream in STREAMS}
    return {
        "format": FORMAT,
        "model": run.model_name,
        "streams": list(model.streams),
        "backbones": {stream: one.model_dump(mode="json") for stream, one in run.backbones.items()},
        "stream_sizes": sizes,
        "context_input": asdict(model.context_input),
        "array_inputs": {
            name: {
                "shape": list(form.shape_at(sizes)),
                "meaning": form.meaning,
                "mask": form.presence,
                "mask_shape": list(form.presence_shape),
            }
            for name, form in model.array_inputs.items()
        },
        "array_tables": run.array_tables,
        "has_linear_outputs": model.has_linear_outputs,
        "label_names": list(run.label_names),
        "normalisation": {"mean": list(IMAGENET_MEAN), "std": list(IMAGENET_STD)},
        "preprocessing": describe_preprocessing(model),
        "detector": run.detector,
        "recipe": dict(settings["recipe"]),
        "preset": settings.get("preset"),
        "seed": settings.get("seed", 0),
        "shuffle_labels": run.has_shuffled_labels,
        "manifest": {"sha256": settings["manifest"]["sha256"]},
        "people": settings.get("people"),
        "epochs_trained": settings.get("epochs_trained", len(run.log()) or None),
        **_describe_initial_weights(run),
        "weights_sha256": run.weights_sha256,
        "versions": dict(settings.get("versions", {})),
        "exported_by": f"emoface {__version__}",
    }


def _describe_initial_weights(run: Run) -> dict[str, Any]:
    """Describes what the training started from, without the folders; empty for a run that did not record it."""
    described = run.describe_initial_weights()
    if described is None:
        return {}
    return {
        "started_from": [{**one, "source": _last_name(one["source"])} for one in run.settings["started_from"]],
        "initial_weights": {
            stream: {**one, "source": _last_name(one["source"])} for stream, one in described["streams"].items()
        },
    }


def describe_preprocessing(model: Mter) -> dict[str, str]:
    """Describes how a photo becomes each stream's input, as phrases; the code of it is ``mter/pixels.py``."""
    described = {stream: _SOURCES[stream] for stream in model.streams}
    form = model.context_input
    if "context" in described:
        fills = {"mean": "the mean colour", "black": "black"}
        described["context"] += f"; the person's body box is filled with {fills[form.body_fill]}" * form.masks_body
        described["context"] += f"; the person's face box is filled with {fills[form.face_fill]}" * form.masks_face
        if form.center_share != 1:
            described["context"] += f"; of it the central square of {form.center_share:g} of the side"
    for stream in described:
        described[stream] += "; RGB of 0-1, minus the mean, divided by the deviation of its channel"
    return described


def write_config(folder: Path, config: Mapping[str, Any]) -> None:
    """Writes ``config.json`` in one step; it is written last, so that a folder which has it is complete."""
    write_text(folder / CONFIG_NAME, json.dumps(config, indent=2, ensure_ascii=False) + "\n")


def read_model_folder(folder: Path) -> Run:
    """Reads a training run or an exported folder.

    Raises:
        SettingsError: The folder is neither, or the run is unfinished.
        WeightsError: The weights of an exported folder are missing, or are others than it says.
    """
    if (folder / RUN_NAME).is_file() or not (folder / CONFIG_NAME).is_file():
        return read_run(folder)
    path = folder / CONFIG_NAME
    run = to_run(read_text(path, SettingsError), path, weights_name=WEIGHTS_NAME)
    if not run.weights_path.is_file():
        raise WeightsError(f"{run.weights_path}: no such file, but {path} describes it; copy the whole folder again")
    if (found := file_sha256(run.weights_path)) != run.settings["weights_sha256"]:
        raise WeightsError(
            f"{run.weights_path}: sha256 is {found[:12]}..., expected {run.settings['weights_sha256'][:12]}... as in "
            f"{path}; copy the whole folder again, or {_REMEDY}"
        )
    return run


def to_run(text: str, path: Path, *, weights_name: str | None = None) -> Run:
    """Reads the description of an exported model.

    Args:
        text: The description as JSON.
        path: The file that has it.
        weights_name: Name of the file of weights beside it; None if the file itself has the weights.

    Raises:
        SettingsError: It is not the description of a model, or of a later version.
    """
    try:
        settings = parse_json(text)
        config = _Config.model_validate(settings)
    except ValueError as error:
        raise SettingsError(
            f"{path}: not the description of a model that emoface can load ({describe_fault(error)}); {_REMEDY}"
        ) from error
    if unknown := [name for name in config.streams if name not in STREAMS or name not in config.stream_sizes]:
        raise SettingsError(f"{path}: no size of the stream '{unknown[0]}', expected some of {STREAMS}; {_REMEDY}")
    run = Run(path.parent, settings, settings_name=path.name, weights_name=weights_name or path.name)
    run.recipe  # noqa: B018  raises an error that names the setting
    return run


def read_context_input(run: Run) -> ContextInput:
    """How the photo becomes the context of an exported model, which ``to_run`` has checked."""
    return ContextInput(**run.settings["context_input"])


def _last_name(source: str | None) -> str | None:
    """The last part of a path; a folder of the user's machine is nothing to publish."""
    return None if source is None else last_name(source)
