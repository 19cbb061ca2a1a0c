"""The probe job: fits a head on the frozen features of a data set and writes it as a run, as training does.

The run has ``run.json``, ``best.safetensors`` (the head and the standardisation of its inputs) and
``records/probe.json``. It has no log of epochs: ``run.json`` lists the strengths of the regularisation that were tried.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated, Any, Self

import numpy as np
from pydantic import BeforeValidator, model_validator

from emoface.datasets.manifest import Manifest, read_manifest
from emoface.datasets.stream_cache import find_cache_dir, open_stream_cache
from emoface.errors import SettingsError, TableError
from emoface.mter.features import (
    BackboneFacts,
    FeatureFolder,
    complete_features,
    find_feature_folder,
    parse_streams,
)
from emoface.mter.logistic import TOLERANCE
from emoface.mter.names import STREAMS
from emoface.mter.probe import PROBE, STRENGTHS, FittedProbe, HeadKind, ProbePeople, fit_probe, write_probe
from emoface.mter.runs import BEST_NAME, LOG_NAME, write_run
from emoface.progress import SILENT, Progress
from emoface.storage.files import file_sha256
from emoface.storage.locks import locked
from emoface.storage.records import (
    JobRecord,
    fact_inputs,
    find_current,
    finish_job,
    hash_inputs,
    read_record,
    record_path,
    to_json_number,
)
from emoface.storage.settings import Count, Device, File, Folder, FolderOrUrl, Seed, Settings, TextForm, describe_fault
from emoface.storage.urls import resolve_place

_FITTED_ON, _CHOSEN_ON = "train", "val"


def parse_strengths(value: Any) -> tuple[float, ...]:
    """Reads strengths of the regularisation.

    Args:
        value: As a list, or as one text with commas between the numbers.

    Raises:
        SettingsError: A part is not a number above 0, or there is none.

    Example:
        >>> parse_strengths("1, 0.1")
        (1.0, 0.1)
    """
    parts = [part.strip() for part in value.split(",")] if isinstance(value, str) else list(value)
    try:
        strengths = tuple(float(part) for part in parts)
    except (TypeError, ValueError):
        strengths = ()
    if not strengths or not all(0 < strength < float("inf") for strength in strengths):
        raise SettingsError(
            f"strengths are {value!r}, expected numbers above 0 with commas between, such as 1,0.1,0.01"
        )
    return strengths


def _parse_some(value: Any) -> tuple[str, ...] | None:
    return None if value in (None, "all") else parse_streams(value)


class ProbeConfig(Settings):
    """Settings of the probe job."""

    manifest: File
    """The data set's ``manifest.json``."""
    features: Folder | None = None
    """Folder of the features, which 'emoface features' names; or give --backbone and --weights."""
    backbone: str | None = None
    """Name of the backbone, in place of a folder of features: those of train and val are computed if they are not
    there. For the names see 'emoface features'."""
    weights: str | None = None
    """Weights of that backbone: a file, library or random."""
    out: Folder
    """Folder of the run."""
    streams: Annotated[tuple[str, ...] | None, BeforeValidator(_parse_some), TextForm("all")] = None
    """Streams whose features the head gets, separated by commas; all takes every stream that the folder has, and of a
    backbone all three."""
    head: HeadKind = "linear"
    """Kind of head: linear for a logistic regression per label, mlp for a perceptron of one hidden layer."""
    strengths: Annotated[
        tuple[float, ...], BeforeValidator(parse_strengths), TextForm(",".join(f"{one:g}" for one in STRENGTHS))
    ] = STRENGTHS
    """Strengths of the L2 regularisation to try, separated by commas; the one with the best mAP on val is kept. In
    scikit-learn's terms C is 1 / (strength * number of people)."""
    hidden: Count = 256
    """Width of the hidden layer; only for --head mlp."""
    epochs: Count = 30
    """Epochs for each strength; only for --head mlp."""
    seed: Seed = 0
    """Seed of the perceptron, of the shuffled labels, and of random weights of the backbone."""
    shuffle_labels: bool = False
    """Shuffle the labels of train and of val among their people, as a check for leaks."""
    device: Device = "auto"
    """Device on which features are computed; auto takes CUDA where there is one."""
    images: FolderOrUrl | None = None
    """Folder of the photos, or its URL, if they are no longer where the manifest says."""
    allow_missing: bool = False
    """Go on although at least 95 % of the photos of a split are missing."""
    cache: FolderOrUrl | None = None
    """Folder of the caches, for --backbone, or the URL of a cache of decoded photos that several machines share; by
    default stream_cache beside the manifest."""

    @model_validator(mode="after")
    def _check_source(self) -> Self:
        if (self.features is None) == (self.backbone is None) or (self.backbone is None) != (self.weights is None):
            raise SettingsError("give either the folder of the features, or a backbone together with its weights")
        return self


@locked("out")
def run_probe(config: ProbeConfig, progress: Progress = SILENT) -> JobRecord:
    """Fits a head on frozen features and writes the run.

    Args:
        config: Settings of the job.
        progress: Receives one step per strength of the regularisation.

    Returns:
        The job's record.

    Raises:
        SettingsError: The folder has no finished features, or not those of a stream; or ``out`` holds a training run.
        TableError: The features are of another data set, or a split has nobody to fit or choose on.
    """
    manifest = read_manifest(config.manifest, check_sha256=True, images=config.images)
    folder, facts = _open_features(config, manifest, progress)
    streams = _choose_streams(config, folder)
    used = [folder.array_path(split, stream) for split in (_FITTED_ON, _CHOSEN_ON) for stream in streams]
    weights = [Path(facts.path)] if config.backbone is not None and facts.path is not None else []
    inputs = hash_inputs([manifest.path, *weights, *used])
    if config.features is not None:
        inputs |= fact_inputs(config.features, "features", ["backbone"])
    current = find_current(PROBE, config, config.out, module=__name__, inputs=inputs)
    if current is not None:
        progress.note(f"{config.out}: this probe is current; nothing to do")
        return current
    _check_out(config.out)
    started = time.perf_counter()
    train, val = (
        _open_people(config, manifest, folder, split, streams, progress) for split in (_FITTED_ON, _CHOSEN_ON)
    )
    probe = fit_probe(
        train,
        val,
        strengths=config.strengths,
        kind=config.head,
        hidden=config.hidden,
        epochs=config.epochs,
        seed=config.seed,
        progress=progress,
    )
    if probe.is_at_edge:
        progress.note(f"the best strength, {probe.strength:g}, is the first or last of those tried; try others too")
    for trial in probe.unconverged:
        progress.note(
            f"strength {trial.strength:g} has not converged after {trial.n_iterations} iterations (gradient "
            f"{trial.gradient:.1e} of that at the start, expected {TOLERANCE:g}): its head is not the solution; leave "
            "the strength out, or give fewer --streams"
        )
    settings = _describe(config, manifest, folder, facts, probe, time.perf_counter() - started)
    record_path(config.out, PROBE).unlink(missing_ok=True)
    write_probe(config.out / BEST_NAME, probe.scaler, probe.head)
    write_run(config.out, settings)
    counts = {
        "backbone": facts.describe(),
        "streams": ", ".join(streams),
        "columns": probe.scaler.n_columns,
        "train_people": len(train.labels),
        "val_people": len(val.labels),
        "strength": probe.strength,
        "val_map": settings["probe"]["val_map"],
    }
    outputs = [config.out / BEST_NAME]
    return finish_job(PROBE, config, config.out, module=__name__, inputs=inputs, outputs=outputs, counts=counts)


def _open_features(config: ProbeConfig, manifest: Manifest, progress: Progress) -> tuple[FeatureFolder, BackboneFacts]:
    """Opens the folder of the settings, or that of their backbone, whose missing features are computed."""
    if config.features is not None:
        facts = _read_facts(config.features, manifest)
        return FeatureFolder(config.features, facts.n_features), facts
    from emoface.learning.devices import pick_device
    from emoface.mter.backbones import load_backbone

    assert config.backbone is not None and config.weights is not None
    device = pick_device(config.device)
    backbone = load_backbone(config.backbone, config.weights, seed=config.seed, device=device, progress=progress)
    folder = find_feature_folder(manifest, backbone.facts, find_cache_dir(manifest, config.cache))
    splits, streams = (_FITTED_ON, _CHOSEN_ON), config.streams or STREAMS
    complete_features(
        folder,
        manifest,
        splits,
        streams,
        lambda: backbone,
        cache=config.cache,
        allow_missing=config.allow_missing,
        progress=progress,
    )
    return folder, backbone.facts


def _read_facts(path: Path, manifest: Manifest) -> BackboneFacts:
    """Reads which backbone finished features are of, and checks that they are of the data set as it is now."""
    remedy = "run 'emoface features' for this manifest"
    record = read_record(path, "features")
    if record is None:
        raise SettingsError(f"{path}: has no finished features; make them with 'emoface features'")
    try:
        facts = BackboneFacts.model_validate(record.info.get("backbone"))
    except ValueError as error:
        place = record_path(path, "features")
        raise TableError(f"{place}: not the record of features ({describe_fault(error)}); {remedy}") from error
    now = find_feature_folder(manifest, facts, path.parent)
    if now.path.name != path.resolve().name:
        raise TableError(
            f"{path}: the features are not those of {manifest.path} as it is now: its tables or photos, or the code, "
            f"are others; {remedy}"
        )
    return facts


def _choose_streams(config: ProbeConfig, folder: FeatureFolder) -> tuple[str, ...]:
    there = tuple(stream for stream in STREAMS if folder.has(_FITTED_ON, stream) and folder.has(_CHOSEN_ON, stream))
    missing = [stream for stream in config.streams or () if stream not in there]
    if missing or not there:
        raise SettingsError(
            f"{folder.path}: has no features of {missing[0] if missing else 'any stream'}, found "
            f"{', '.join(there) or 'none'}; run 'emoface features' with these --streams"
        )
    return config.streams or there


def _check_out(out: Path) -> None:
    """Refuses a folder with the run of a training, whose weights a probe would replace."""
    if (out / LOG_NAME).is_file() or read_record(out, "train") is not None:
        raise SettingsError(f"{out}: holds the run of a training; choose another --out")


def _open_people(
    config: ProbeConfig,
    manifest: Manifest,
    folder: FeatureFolder,
    split: str,
    streams: tuple[str, ...],
    progress: Progress,
) -> ProbePeople:
    """The people of a split that a probe of these streams can use, with their features."""
    from emoface.mter.sampling import shuffle_labels

    crops = folder.find_crops(config.cache)
    people = open_stream_cache(manifest, split, crops, progress, allow_missing=config.allow_missing).people
    features = folder.read(split, streams, people)
    if config.shuffle_labels:
        people = shuffle_labels(people, config.seed)
    chosen = people.has_face if streams == ("face",) else np.ones_like(people.has_face)
    if not chosen.any():
        who = "people with a face" if streams == ("face",) else "people"
        raise TableError(f"{manifest.split_path(split)}: no {who}, expected some to fit a probe on")
    features = {stream: array[chosen] for stream, array in features.items()}
    return ProbePeople(features, people.has_face[chosen], people.labels[chosen])


def _describe(
    config: ProbeConfig,
    manifest: Manifest,
    folder: FeatureFolder,
    facts: BackboneFacts,
    probe: FittedProbe,
    seconds: float,
) -> dict[str, Any]:
    """The content of ``run.json``."""
    n_parameters = sum(weights.size + biases.size for weights, biases in probe.head.layers)
    best = max(probe.trials, key=lambda one: one.val_map)
    return {
        "model": PROBE,
        "manifest": {"path": str(manifest.path.resolve()), "sha256": file_sha256(manifest.path)},
        "images": None if config.images is None else str(resolve_place(config.images)),
        "detector": manifest.detector,
        "recipe": {},
        "seed": config.seed,
        "stream_sizes": dict.fromkeys(probe.scaler.streams, facts.input_size),
        "normalisation": {"mean": list(facts.mean), "std": list(facts.std)},
        "shuffle_labels": config.shuffle_labels,
        "label_names": list(manifest.label_names),
        "probe": {
            "features": str(folder.path.resolve()),
            "backbone": facts.model_dump(mode="json"),
            "head": config.head,
            "hidden": config.hidden if config.head == "mlp" else None,
            "epochs": config.epochs if config.head == "mlp" else None,
            "strength": probe.strength,
            "val_map": to_json_number(best.val_map),
            "trials": [
                {
                    "strength": one.strength,
                    "train_loss": to_json_number(one.train_loss),
                    "val_map": to_json_number(one.val_map),
                    "iterations": one.n_iterations,
                    "gradient": one.gradient,
                    "has_converged": one.has_converged,
                }
                for one in probe.trials
            ],
            "head_parameters": n_parameters,
            "seconds": to_json_number(seconds),
        },
    }
