"""The folder of a training run: its settings, its weights, and its log of epochs.

``RUN/run.json`` has the settings and the environment; ``RUN/last.pt`` has the state for resuming;
``RUN/best.safetensors`` has the weights of the epoch with the best mAP on val; ``RUN/log.jsonl`` has one line per
epoch; ``RUN/records/train.json`` is written last and marks a finished run. A probe has the same folder, without
``last.pt`` and log, and with ``RUN/records/probe.json``; its ``best.safetensors`` has the head alone.

The settings and the log are read without torch, which is imported when weights are.
"""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from emoface.errors import SettingsError, WeightsError
from emoface.mter.features import BackboneFacts
from emoface.mter.inputs import InputForm, model_array_inputs
from emoface.mter.names import IMAGENET_MEAN, IMAGENET_STD, STREAM_SIZES
from emoface.mter.probe import PROBE
from emoface.mter.recipe import Recipe
from emoface.mter.stream_backbones import StreamBackbone, describe_backbones
from emoface.schema import CATEGORIES, FEWEST_LABELS, check_label_names
from emoface.storage.files import file_sha256, parse_json, read_text, write_text
from emoface.storage.records import read_record, record_path
from emoface.storage.settings import describe_fault
from emoface.storage.urls import Place, to_place
from emoface.version import __version__

if TYPE_CHECKING:
    from emoface.mter.base import Mter

RUN_NAME = "run.json"
BEST_NAME = "best.safetensors"
LAST_NAME = "last.pt"
LOG_NAME = "log.jsonl"
_LARGEST_SIDE = 4096
"""Side of a stream's input, pixels, above which a network would not fit into memory."""
_PACKAGES = ("torch", "lightning-fabric", "numpy", "opencv-python-headless")


class _Described(BaseModel):
    """A part of ``run.json`` that jobs use; a later emoface may write more."""

    model_config = ConfigDict(strict=True, extra="allow")


def _check_label_names(names: list[str]) -> list[str]:
    return list(check_label_names(names))


LabelNames = Annotated[list[str], Field(min_length=FEWEST_LABELS), AfterValidator(_check_label_names)]
"""The labels that a model predicts."""


class _DataSet(_Described):
    sha256: str


class _ManifestFile(_DataSet):
    path: str


class _Source(_Described):
    network: str
    source: str | None
    sha256: str | None


class _ProbePart(_Described):
    features: str
    backbone: BackboneFacts
    val_map: float
    head_parameters: int
    seconds: float


class _ArrayTable(_Described):
    providers: list[str]
    provider_sha256: dict[str, str] = {}


class RunDescription(_Described):
    """What ``run.json`` and the description of an exported model have in common."""

    model: str
    manifest: _DataSet
    detector: dict[str, Any]
    recipe: dict[str, Any]
    stream_sizes: dict[str, Annotated[int, Field(ge=1, le=_LARGEST_SIDE)]]
    shuffle_labels: bool
    seed: int = 0
    versions: dict[str, str] = {}
    started_from: list[_Source] = []
    backbones: dict[str, StreamBackbone] = {}
    array_tables: dict[str, _ArrayTable] = {}
    probe: _ProbePart | None = None
    label_names: LabelNames = list(CATEGORIES)

    @model_validator(mode="after")
    def _check_probe(self) -> Self:
        if (self.model == PROBE) != (self.probe is not None):
            raise ValueError(f"the model is {self.model!r}, which fits no entry 'probe' or lacks one")
        return self


class _Extension(_Described):
    after_epoch: Annotated[int, Field(ge=0)]
    epochs: Annotated[int, Field(ge=1)]


class _RunFile(RunDescription):
    manifest: _ManifestFile
    images: str | None = None
    extensions: list[_Extension] = []


class _Epoch(_Described):
    """The values of a line of the log that jobs use."""

    epoch: Annotated[int, Field(ge=1)]
    train_losses: dict[str, float | None]
    val_losses: dict[str, float | None]
    val_map: float | None
    seconds: float


@dataclass(frozen=True)
class EpochPlan:
    """How many epochs a run trains.

    Attributes:
        epochs: Number of epochs, those that are finished included.
        patience: Number of epochs in a row without a better one after which training stops early; 0 never does.
        counted_from: Number of finished epochs from which patience is counted: 0, or those that were finished when the
            run was last extended.
    """

    epochs: int
    patience: int = 0
    counted_from: int = 0

    def stops_early(self, scores: Sequence[float]) -> bool:
        """Whether none of the last epochs was better than all before it.

        Args:
            scores: Score of each finished epoch, higher is better.

        Example:
            >>> EpochPlan(9, patience=2).stops_early([0.1, 0.3, 0.3, 0.2])
            True
            >>> EpochPlan(9, patience=2, counted_from=3).stops_early([0.1, 0.3, 0.3, 0.2])
            False
        """
        best_epoch = scores.index(max(scores)) + 1 if scores else 0
        return self.patience > 0 and len(scores) - max(best_epoch, self.counted_from) >= self.patience


@dataclass(frozen=True)
class Run:
    """A training run on disk, or a model that was exported from one, see ``emoface.mter.exported``.

    Attributes:
        path: Folder of the run.
        settings: Content of ``run.json``: ``model``, ``manifest`` (path and sha256), ``detector``, ``recipe``,
            ``stream_sizes``, ``normalisation``, ``seed``, ``versions``, ``environment``...
        settings_name: Name of the file that has the settings.
        weights_name: Name of the file that has the best weights.
    """

    path: Path
    settings: dict[str, Any]
    settings_name: str = RUN_NAME
    weights_name: str = BEST_NAME

    @property
    def model_name(self) -> str:
        """Name of the model, one of ``names.MODEL_NAMES``, or ``probe``."""
        return str(self.settings["model"])

    @property
    def is_probe(self) -> bool:
        """Whether it is a head on frozen features, which 'emoface probe' fitted."""
        return self.model_name == PROBE

    @property
    def backbone(self) -> BackboneFacts:
        """The frozen backbone of a probe."""
        return BackboneFacts(**self.settings["probe"]["backbone"])

    @property
    def title(self) -> str:
        """Name of the model for pages and tables; of a probe, and where streams have networks by name, with these.

        Random weights of a probe's backbone are called so.
        """
        if self.is_probe:
            return f"{PROBE} of {self.backbone.describe()}"
        return f"{self.model_name} ({describe_backbones(self.backbones)})" if self.backbones else self.model_name

    @property
    def backbones(self) -> dict[str, StreamBackbone]:
        """By stream, the network by name that takes the place of the model's own."""
        return {name: StreamBackbone(**facts) for name, facts in self.settings.get("backbones", {}).items()}

    @property
    def manifest_path(self) -> Place:
        """Path or URL of the manifest of the training data set.

        Raises:
            SettingsError: The model was exported, and an exported model does not know where its data set is.
        """
        if "path" not in self.settings["manifest"]:
            raise SettingsError(
                f"{self.path / self.settings_name}: an exported model does not say where its data set is; give the "
                "manifest of the data set with --manifest"
            )
        place: Place = to_place(self.settings["manifest"]["path"])
        return place

    @property
    def images(self) -> Place | None:
        """Where the training read the photos, if not where the manifest says."""
        place: Place | None = to_place(self.settings.get("images"))
        return place

    @property
    def weights_path(self) -> Path:
        """Path of the best weights."""
        return self.path / self.weights_name

    @cached_property
    def weights_sha256(self) -> str:
        """The sha256 of the file of the best weights when it was first asked for."""
        return file_sha256(self.weights_path)

    @property
    def detector(self) -> dict[str, Any]:
        """How the faces of the training data set were found and cropped; see ``Manifest.detector``."""
        return dict(self.settings["detector"])

    @property
    def array_inputs(self) -> dict[str, InputForm]:
        """The inputs of the model beside the photo streams, by name."""
        recipe = self.recipe
        return model_array_inputs(self.model_name, depth_form=recipe.depth_form, region_source=recipe.region_source)

    @property
    def array_tables(self) -> dict[str, dict[str, Any]]:
        """The tables of the model's inputs beside the photo streams, see ``person_arrays.describe_array_tables``."""
        return dict(self.settings.get("array_tables", {}))

    @property
    def recipe(self) -> Recipe:
        """The training recipe; settings that the emoface of the run did not have yet are at their defaults.

        Raises:
            SettingsError: A setting is unknown to this emoface, or out of range.
        """
        try:
            return Recipe(**self.settings["recipe"])
        except SettingsError as error:
            run_version = self.settings.get("versions", {}).get("emoface", "unknown")
            raise SettingsError(
                f"{self.path / self.settings_name}: recipe: {error}; the run is of emoface {run_version} and this one "
                f"is {__version__}; use that version, or train again in another folder"
            ) from error

    @property
    def epoch_plan(self) -> EpochPlan:
        """How many epochs the run trains: those of its recipe, or those that it was extended to."""
        recipe, extensions = self.recipe, self.settings.get("extensions")
        if not extensions:
            return EpochPlan(recipe.epochs, recipe.patience)
        return EpochPlan(extensions[-1]["epochs"], recipe.patience, extensions[-1]["after_epoch"])

    @property
    def predicts_vad(self) -> bool:
        """Whether the model has a second head for valence, arousal and dominance."""
        return self.recipe.predicts_vad

    @property
    def label_names(self) -> tuple[str, ...]:
        """The labels that the model predicts, in the order of its outputs."""
        return tuple(self.settings.get("label_names", CATEGORIES))

    @property
    def stream_sizes(self) -> dict[str, int]:
        """Side of each stream's input, pixels."""
        return dict(self.settings["stream_sizes"])

    @property
    def has_shuffled_labels(self) -> bool:
        """Whether it was trained on shuffled labels, as a check for leaks."""
        return bool(self.settings["shuffle_labels"])

    @property
    def is_finished(self) -> bool:
        """Whether the last epoch has finished, or the probe is fitted."""
        return read_record(self.path, PROBE if self.is_probe else "train") is not None

    def build_model(self) -> Mter:
        """Builds the network of the run, with randomly initialised weights.

        Raises:
            ModuleNotFoundError: The library of a stream's network is not installed.
            SettingsError: The run is a probe, which is no network of its own; or a library does not build a network.
        """
        from emoface.mter.networks import build_recipe_model

        if self.is_probe:
            raise SettingsError(f"{self.path}: a probe has no network of its own; expected a run of 'emoface train'")
        backbones = None
        if self.backbones:
            from emoface.mter.stream_networks import rebuild_backbones

            backbones = rebuild_backbones(self.backbones)
        return build_recipe_model(self.model_name, self.recipe, len(self.label_names), backbones)

    def load_model(self, which: Literal["best", "last"] = "best") -> Mter:
        """Loads the trained network, in evaluation mode, on the CPU.

        Args:
            which: ``best`` for the epoch with the best mAP on val, ``last`` for the last epoch.

        Raises:
            SettingsError: The run is a probe whose backbone cannot be built.
            WeightsError: No epoch has finished yet, or the file does not fit the network; or the run is a probe, and
                the weights of its backbone are missing or have changed.
        """
        from emoface.learning.initialisation import WithoutRandomParameters
        from emoface.mter.weight_files import load_weights, read_weights

        if self.is_probe:
            return self._load_probe()
        path = self.weights_path if which == "best" else self.path / LAST_NAME
        if not path.is_file():
            raise WeightsError(f"{path}: no such file; no epoch has finished, go on with 'emoface train'")
        if which == "best":
            weights = read_weights(path)
        else:
            from emoface.learning.checkpoints import load_checkpoint, loading_state

            state = load_checkpoint(path, ("averaged", "model"))
            with loading_state(path):
                weights = dict(state["averaged"] or state["model"])
        with WithoutRandomParameters():
            model = self.build_model()
        load_weights(model, weights, path)
        return model.eval()

    def _load_probe(self) -> Mter:
        from emoface.mter.backbones import reload_backbone
        from emoface.mter.probe import read_probe
        from emoface.mter.probe_model import ProbeModel

        return ProbeModel(reload_backbone(self.backbone), *read_probe(self.path / BEST_NAME)).eval()

    def describe_initial_weights(self) -> dict[str, Any] | None:
        """Describes what the training started from, as JSON; None for runs that did not record it.

        ``pretrained`` is the setting; ``streams`` has, for each stream of the model, ``source``, the name of a file or
        run, and ``sha256``; both are None where the stream was randomly initialised, and ``sha256`` where the weights
        are those of a run. Weights that a library provided have the name of the network and the library for a source.
        """
        if self.is_probe:
            facts = self.backbone
            source: dict[str, str | None] = {"source": None, "sha256": None}
            if not facts.is_random:
                source = {"source": f"{facts.describe()} (frozen)", "sha256": facts.sha256}
            return {"pretrained": facts.weights, "streams": dict.fromkeys(self.stream_sizes, source)}
        if "started_from" not in self.settings:
            return None
        from emoface.mter.networks import model_streams

        nothing = {"source": None, "sha256": None}
        taken = {
            one["network"]: {"source": one["source"], "sha256": one["sha256"] or None}
            for one in self.settings["started_from"]
        }
        return {
            "pretrained": self.settings.get("pretrained"),
            "streams": {stream: taken.get(stream, nothing) for stream in model_streams(self.model_name)},
        }

    def log(self) -> list[dict[str, Any]]:
        """Reads the log: one dictionary per finished epoch, see ``docs/mter.md``.

        Raises:
            SettingsError: A line is not the description of an epoch.
        """
        path = self.path / LOG_NAME
        if not path.is_file():
            return []
        lines: list[dict[str, Any]] = []
        for number, text in enumerate(read_text(path, SettingsError).splitlines(), start=1):
            try:
                lines += check_epochs([parse_json(text)])
            except ValueError as error:
                raise SettingsError(
                    f"{path}: line {number} is not the description of an epoch ({describe_fault(error)}); restore the "
                    "file, or train again in another folder"
                ) from error
        return lines


def read_run(run_dir: Path, needs_finished: bool = True) -> Run:
    """Reads the settings of a run.

    Args:
        run_dir: Folder of the run.
        needs_finished: Whether an unfinished run is an error.

    Raises:
        SettingsError: The folder is not a training run, its ``run.json`` is not valid, or the run is unfinished.
    """
    path = run_dir / RUN_NAME
    if not path.is_file():
        raise SettingsError(f"{path}: no such file; '{run_dir}' is not a training run, make one with 'emoface train'")
    try:
        settings = parse_json(read_text(path, SettingsError))
        _RunFile.model_validate(settings)
    except ValueError as error:
        raise SettingsError(
            f"{path}: not the description of a run ({describe_fault(error)}); restore the file, or train again in "
            "another folder"
        ) from error
    run = Run(run_dir, settings)
    run.recipe  # noqa: B018  raises an error that names the setting
    if needs_finished and not run.is_finished and run.is_probe:
        raise SettingsError(f"{run_dir}: the probe is unfinished; run 'emoface probe' again with --out {run_dir}")
    if needs_finished and not run.is_finished:
        raise SettingsError(
            f"{run_dir}: the run of {run.model_name} is unfinished after {len(run.log())} epochs; go on with "
            f"'emoface train --manifest {run.manifest_path} --model {run.model_name} --out {run_dir}'"
        )
    return run


def write_run(run_dir: Path, settings: dict[str, Any]) -> Run:
    """Writes ``RUN/run.json`` in one step.

    Args:
        run_dir: Folder of the run.
        settings: The settings of the run, see ``Run``; versions and environment are added, and EMOTIC's label names
            if it has no others.
    """
    described = {
        **settings,
        "label_names": list(settings.get("label_names", CATEGORIES)),
        "normalisation": settings.get("normalisation", {"mean": list(IMAGENET_MEAN), "std": list(IMAGENET_STD)}),
        "stream_sizes": settings.get("stream_sizes", dict(STREAM_SIZES)),
        "versions": {"emoface": __version__, **{name: version(name) for name in _PACKAGES}},
        "environment": describe_environment(),
    }
    return _write_settings(run_dir, described)


def extend_run(run: Run, epochs: int) -> Run:
    """Notes in ``run.json`` that a run goes on up to a number of epochs; a finished run is unfinished then.

    Args:
        run: The run.
        epochs: Number of epochs, those that are finished included.
    """
    extension = {"after_epoch": len(run.log()), "epochs": epochs}
    earlier = run.settings.get("extensions", [])
    if earlier[-1:] != [extension]:  # else it was interrupted here
        run = _write_settings(run.path, {**run.settings, "extensions": [*earlier, extension]})
    record_path(run.path, "train").unlink(missing_ok=True)
    return run


def _write_settings(run_dir: Path, settings: dict[str, Any]) -> Run:
    write_text(run_dir / RUN_NAME, json.dumps(settings, indent=2, ensure_ascii=False) + "\n")
    return Run(run_dir, settings)


def check_epochs(lines: Sequence[Any]) -> list[dict[str, Any]]:
    """Checks that values are lines of the log of a run.

    Args:
        lines: The values, such as those in a file.

    Returns:
        The lines.

    Raises:
        ValueError: A value that jobs use is missing or of another type.
    """
    for line in lines:
        _Epoch.model_validate(line)
    return list(lines)


def write_log(path: Path, lines: Sequence[Mapping[str, Any]]) -> None:
    """Writes the log of a run, one line of JSON per epoch, in one step."""
    write_text(path, "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines))


def describe_environment() -> dict[str, str]:
    """Describes the environment as table 4-1 of the thesis does: system, processor, GPU, CUDA, memory and framework."""
    import torch

    has_gpu = torch.cuda.is_available()
    return {
        "os": platform.platform(),
        "python": platform.python_version(),
        "cpu": f"{_processor_name()}, {os.cpu_count()} cores",
        "gpu": ", ".join(torch.cuda.get_device_name(n) for n in range(torch.cuda.device_count())) or "none",
        "cuda": str(torch.version.cuda) if has_gpu else "none",
        "ram": _memory(),
        "framework": f"PyTorch {torch.__version__}",
    }


def _processor_name() -> str:
    info = Path("/proc/cpuinfo")
    if info.is_file():
        for line in info.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _memory() -> str:
    if "SC_PHYS_PAGES" not in getattr(os, "sysconf_names", {}):
        return "unknown"
    return f"{os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE') / 2**30:.1f} GiB"
