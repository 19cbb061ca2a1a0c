"""The evaluate job: metrics of a trained model on a split, as figures, tables and one page.

Predictions are stored with a key of all that determines them (weights, people, photos, code), so that a second
evaluation, or one with other metrics, does not run the network again. Thresholds are fitted on val and never on the
evaluated people, unless the evaluated split is val itself.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from emoface.datasets.manifest import Manifest, read_manifest
from emoface.datasets.predictions import (
    PREDICTIONS_NAME,
    Predictions,
    predictions_path,
    read_kept_predictions,
    read_predictions,
    write_predictions,
)
from emoface.datasets.protocols import EvaluationFacts, ProtocolName, stamp_protocol
from emoface.datasets.stream_cache import StreamCache, UsablePeople, find_cache_dir, open_stream_cache
from emoface.errors import SettingsError, TableError
from emoface.metrics.evaluation import Bootstrap
from emoface.mter.features import complete_features, find_feature_folder
from emoface.mter.inputs import describe_other_inputs
from emoface.mter.probe import predict_probabilities, read_probe
from emoface.mter.run_card import write_run_card
from emoface.mter.runs import BEST_NAME, RUN_NAME, Run, read_run
from emoface.progress import SILENT, Progress
from emoface.reporting.evaluation import (
    STEPS,
    THRESHOLDS_NAME,
    EvaluationContext,
    Thresholds,
    build_metrics,
    fit_both_thresholds,
    select_counts,
    write_evaluation,
)
from emoface.reporting.evaluation_page import TEMPLATE
from emoface.reporting.pages import hash_template
from emoface.reporting.published import hash_published_cards
from emoface.schema import SPLIT_SCHEMA
from emoface.storage.files import file_sha256, parse_json, write_text
from emoface.storage.locks import locked
from emoface.storage.records import (
    JobRecord,
    code_fingerprint,
    find_current,
    finish_job,
    hash_inputs,
    photo_inputs,
)
from emoface.storage.settings import Count, Device, FileOrUrl, Folder, FolderOrUrl, Seed, Settings, Split
from emoface.storage.tables import read_table

CHOOSING_SPLIT: Split = "val"
"""The split on which training chooses the epoch and ``evaluate`` fits the thresholds."""

_PREDICTING_MODULES = ("emoface.mter.forward", open_stream_cache.__module__)
"""Modules whose code determines the predictions."""
_PROBING_MODULES = (predict_probabilities.__module__, find_feature_folder.__module__)
"""The same for those of a probe."""
_SPLIT_REMEDY = "rebuild it with 'emoface split DIR'"


class EvaluateConfig(Settings):
    """Settings of the evaluate job."""

    run: Folder
    """Folder of the training run."""
    split: Split = "test"
    """Which split to evaluate."""
    protocol: ProtocolName | None = None
    """Protocol whose rules are checked, so that the result can be compared with others; if one is broken, nothing is
    written. docs/protocol.md has the rules."""
    manifest: FileOrUrl | None = None
    """The manifest.json of another data set; by default the one that the run was trained on."""
    draws: Count = 1000
    """Number of bootstrap resamples for the confidence intervals."""
    seed: Seed = 0
    """Seed of the bootstrap."""
    device: Device = "auto"
    """Device on which the network runs; auto takes CUDA where there is one."""
    batch_size: Count = 64
    """Number of people in each batch."""
    workers: Annotated[int, Field(ge=0)] = 1
    """Number of threads that read photos ahead."""
    images: FolderOrUrl | None = None
    """Folder of the photos, or its URL, if they are no longer where the manifest says."""
    allow_missing: bool = False
    """Go on although at least 95 % of the photos of a split are missing."""
    cache: FolderOrUrl | None = None
    """Folder of the cache of decoded photos, or the URL of one that several machines share; by default stream_cache
    beside the manifest."""

    @property
    def out(self) -> Path:
        """Folder of all output files."""
        return predictions_path(self.run, self.split).parent

    @property
    def eval_dir(self) -> Path:
        """Folder of the evaluations of all splits, which share the thresholds."""
        return self.out.parent


@locked("eval_dir")
def run_evaluate(config: EvaluateConfig, progress: Progress = SILENT) -> JobRecord:
    """Predicts the people of a split and computes the metrics of the predictions.

    Args:
        config: Settings of the job.
        progress: Receives one step per person, then one per step of the metrics.

    Returns:
        The job's record. ``RUN/eval/SPLIT/`` holds ``metrics.json``, ``predictions.parquet``, ``per_label.csv``,
        ``evaluation.html`` and its charts.

    Raises:
        SettingsError: The folder is not a training run, or the run is unfinished, or its data set has changed since the
            training.
        ImageError: The photos are missing, or nearly all, and ``allow_missing`` is not set. Nothing is replaced.
        TableError: The data set does not match its manifest, or the model cannot use any person of the split.
        ProtocolError: A rule of the protocol is broken.
    """
    run = read_run(config.run)
    manifest = _find_manifest(config, run)
    rows = _read_rows(manifest, config.split)
    if not rows.num_rows:
        raise TableError(f"{manifest.split_path(config.split)}: no people to evaluate; choose another --split")
    inputs = {
        **hash_inputs([run.path / RUN_NAME, manifest.path]),
        str(run.weights_path): run.weights_sha256,
        str(manifest.split_path(config.split)): manifest.splits[config.split].sha256,
        **hash_template(TEMPLATE),
        **hash_published_cards(),
        **photo_inputs(manifest.photos.root, rows["image"].to_pylist()),
        **{str(manifest.path.parent / name): one["sha256"] for name, one in _describe_arrays(run, manifest).items()},
    }
    current = find_current("evaluate", config, config.out, module=__name__, inputs=inputs)
    if current is not None:
        progress.note(f"{config.out}: this evaluation is current; nothing to do")
        return current

    if config.protocol is not None:  # what is known before the network runs
        all_ids = rows["person_id"].to_pylist()
        stamp_protocol(config.protocol, manifest, _gather_facts(config, run, manifest, all_ids, {}))
    predictions, left_out = _predict_split(config, run, manifest, rows, progress)
    facts = _gather_facts(config, run, manifest, predictions.person_ids, left_out)
    protocol = stamp_protocol(config.protocol, manifest, facts)
    context = EvaluationContext(
        model=run.title,
        run=str(run.path),
        split=config.split,
        manifest=manifest,
        n_people=rows.num_rows,
        left_out=left_out,
        trained_on=facts.n_trained_on,
        thresholds=_find_thresholds(config, run, manifest, predictions, progress),
        bootstrap=Bootstrap(config.draws, config.seed),
        weights_sha256=run.weights_sha256,
        initial_weights=run.describe_initial_weights(),
        has_shuffled_labels=run.has_shuffled_labels,
        other_inputs=_describe_other_inputs(run, manifest),
        protocol=protocol,
    )
    progress.start(f"metrics on {config.split}", STEPS)
    metrics = build_metrics(predictions, context, progress)
    outputs = write_evaluation(config.out, metrics, predictions, progress)
    write_run_card(run)
    return finish_job(
        "evaluate",
        config,
        config.out,
        module=__name__,
        inputs=inputs,
        outputs=[config.out / PREDICTIONS_NAME, *outputs],
        counts=select_counts(metrics),
        info={"model": run.model_name, "split": config.split, "published": metrics["published"]},
    )


def _gather_facts(
    config: EvaluateConfig, run: Run, manifest: Manifest, person_ids: list[str], left_out: dict[str, int]
) -> EvaluationFacts:
    """Gathers the facts that the rules of a protocol are about, for the people with these ids."""
    return EvaluationFacts(
        split=config.split,
        n_evaluated=len(person_ids),
        left_out=left_out,
        epoch_chosen_on=CHOOSING_SPLIT,
        thresholds_fitted_on=CHOOSING_SPLIT,
        is_own_data=_is_own(run, manifest),
        n_trained_on=_count_trained_on(run, manifest, config.split, person_ids),
        has_shuffled_labels=run.has_shuffled_labels,
    )


def find_split_table(config: EvaluateConfig) -> Path:
    """Finds the path of the split table whose photos are predicted; the file may be missing."""
    return read_manifest(config.manifest or read_run(config.run).manifest_path).split_path(config.split)


def _find_manifest(config: EvaluateConfig, run: Run) -> Manifest:
    """Reads the manifest of the settings, or that of the training if it has not changed."""
    images = config.images or (run.images if config.manifest is None else None)
    manifest = read_manifest(config.manifest or run.manifest_path, check_sha256=True, images=images)
    trained = run.settings["manifest"]["sha256"]
    if config.manifest is None and (found := file_sha256(manifest.path)) != trained:
        raise SettingsError(
            f"{manifest.path}: sha256 is {found[:12]}..., but the run was trained on {trained[:12]}...; people of "
            "its test split may be among those trained on: train again, or give the data set with --manifest"
        )
    if manifest.label_names != run.label_names:
        raise SettingsError(
            f"{manifest.path}: its {len(manifest.label_names)} labels are not the {len(run.label_names)} that the run "
            "predicts; give the manifest of a data set with the same labels in the same order"
        )
    return manifest


def _read_rows(manifest: Manifest, split: str) -> pa.Table:
    columns = ["index", "person_id", "image", "source"]
    return read_table(manifest.split_path(split), SPLIT_SCHEMA, _SPLIT_REMEDY, columns)


def _predict_split(
    config: EvaluateConfig, run: Run, manifest: Manifest, rows: pa.Table, progress: Progress
) -> tuple[Predictions, dict[str, int]]:
    """Predicts a split and counts the people left out; stored predictions with the same key are used again."""
    path = predictions_path(config.run, config.split)
    key = _predictions_key(run, manifest, config.split, rows)
    if (stored := read_kept_predictions(path, key)) is not None:
        return stored
    predictions, left_out = _predict(config, run, manifest, config.split, rows, progress)
    write_predictions(path, predictions, key=key, left_out=left_out)
    return read_predictions(path), left_out


def _predictions_key(run: Run, manifest: Manifest, split: str, rows: pa.Table) -> str:
    """Computes a key of all that determines the predictions of a split."""
    images = list(dict.fromkeys(rows["image"].to_pylist()))
    parts = [
        run.weights_sha256,
        run.stream_sizes,
        manifest.splits[split].sha256,
        manifest.undecided_frame,
        manifest.photos.read_states(images).digest(images),
        _describe_arrays(run, manifest),
        *([run.backbone.identity()] if run.is_probe else []),
        *map(code_fingerprint, _PROBING_MODULES if run.is_probe else _PREDICTING_MODULES),
    ]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def _describe_arrays(run: Run, manifest: Manifest) -> dict[str, dict[str, Any]]:
    """Describes the tables of the model's inputs beside the photo streams, see ``describe_array_tables``."""
    from emoface.mter.person_arrays import describe_array_tables

    return describe_array_tables(manifest, run.array_inputs)


def _describe_other_inputs(run: Run, manifest: Manifest) -> dict[str, str]:
    """Describes what the model reads beside the photos, or in place of them the features of a probe."""
    if run.is_probe:
        return {"frozen features": run.backbone.describe()}
    return describe_other_inputs(run.model_name, run.recipe.region_source, _describe_arrays(run, manifest))


def _predict(
    config: EvaluateConfig, run: Run, manifest: Manifest, split: str, rows: pa.Table, progress: Progress
) -> tuple[Predictions, dict[str, int]]:
    """Predicts the people of a split that the model can use: by its network, or a probe from stored features."""
    if run.is_probe:
        return _predict_probe(config, run, manifest, split, rows, progress)
    from emoface.learning.devices import pick_device
    from emoface.mter.dataset import PeopleDataset
    from emoface.mter.forward import forward_people
    from emoface.mter.person_arrays import PersonArrays

    cache = open_stream_cache(manifest, split, config.cache, progress, allow_missing=config.allow_missing)
    model = run.load_model().to(pick_device(config.device))
    positions = np.flatnonzero(model.select_people(cache.people.has_face))
    left_out = _count_left_out(cache, len(positions), model.reads_face_alone)
    if not len(positions):
        raise TableError(_describe_nobody(run, manifest.split_path(split), left_out))
    progress.start(f"predict {split}", len(positions))
    arrays = None
    if model.array_inputs:
        arrays = PersonArrays(manifest, cache.people, model.array_inputs, find_cache_dir(manifest, config.cache))
    dataset = PeopleDataset.of_model(cache, model, sizes=run.stream_sizes, arrays=arrays)
    outputs = forward_people(
        model, dataset, positions, batch_size=config.batch_size, workers=config.workers, progress=progress
    )
    return _join_outputs(
        run, outputs.probabilities, outputs.stream_probabilities, outputs.vad, rows, cache.people, positions
    ), left_out


def _predict_probe(
    config: EvaluateConfig, run: Run, manifest: Manifest, split: str, rows: pa.Table, progress: Progress
) -> tuple[Predictions, dict[str, int]]:
    """Predicts the people of a split from their features, which are computed first if they are not stored."""
    from emoface.learning.devices import pick_device
    from emoface.mter.backbones import reload_backbone

    facts, streams = run.backbone, tuple(run.stream_sizes)
    scaler, head = read_probe(run.path / BEST_NAME)
    stored_in = Path(run.settings["probe"]["features"]).parent
    is_there = _is_own(run, manifest) and stored_in.is_dir()
    cache_dir = stored_in if is_there and not isinstance(config.cache, Path) else find_cache_dir(manifest, config.cache)
    folder = find_feature_folder(manifest, facts, cache_dir)
    device = pick_device(config.device)
    load = partial(reload_backbone, facts, device=device, progress=progress)
    caches = complete_features(
        folder,
        manifest,
        [split],
        streams,
        load,
        cache=config.cache,
        allow_missing=config.allow_missing,
        progress=progress,
    )
    cache = caches[split]
    people = cache.people
    positions = np.flatnonzero(people.has_face) if streams == ("face",) else np.arange(len(people))
    left_out = _count_left_out(cache, len(positions), streams == ("face",))
    if not len(positions):
        raise TableError(_describe_nobody(run, manifest.split_path(split), left_out))
    progress.start(f"predict {split}", 1)
    features = {stream: array[positions] for stream, array in folder.read(split, streams, people).items()}
    probabilities = predict_probabilities(scaler, head, features, people.has_face[positions])
    progress.advance()
    return _join_outputs(run, probabilities, {}, None, rows, people, positions), left_out


def _count_left_out(cache: StreamCache, n_predicted: int, reads_face_alone: bool) -> dict[str, int]:
    """Counts the people of a split without predictions, by reason."""
    left_out = {reason: cache.counts[reason] for reason in cache.counts if reason not in ("people", "usable")}
    return {**left_out, "no_face": len(cache) - n_predicted} if reads_face_alone else left_out


def _describe_nobody(run: Run, path: Path, left_out: Mapping[str, int]) -> str:
    reasons = ", ".join(f"{count} {reason}" for reason, count in left_out.items() if count)
    return f"{path}: {run.model_name} cannot use any of its people ({reasons})"


def _join_outputs(
    run: Run,
    probabilities: NDArray[np.float32],
    stream_probabilities: dict[str, NDArray[np.float32]],
    predicted_vad: NDArray[np.float32] | None,
    rows: pa.Table,
    people: UsablePeople,
    positions: NDArray[np.int64],
) -> Predictions:
    """Joins the outputs of a model for the people at ``positions`` and the truth; ``rows`` are the whole split."""
    row_of = {index: row for row, index in enumerate(rows["index"].to_pylist())}
    n_of_image = Counter(rows["image"].to_pylist())
    rows = rows.take([row_of[index] for index in people.index[positions].tolist()])
    images, vad = rows["image"].to_pylist(), people.vad[positions]
    return Predictions(
        index=people.index[positions],
        person_ids=rows["person_id"].to_pylist(),
        images=images,
        sources=np.array(rows["source"].to_pylist(), dtype=object),
        people_in_photo=np.array([n_of_image[image] for image in images], np.int64),
        has_face=people.has_face[positions],
        labels=people.labels[positions],
        probabilities=probabilities,
        stream_probabilities=stream_probabilities,
        vad=vad,
        predicted_vad=np.full_like(vad, np.nan) if predicted_vad is None else predicted_vad,
        label_names=run.label_names,
    )


def _find_thresholds(
    config: EvaluateConfig, run: Run, manifest: Manifest, predictions: Predictions, progress: Progress
) -> Thresholds:
    """Fits the thresholds on val of the run's own data set, if it still exists, and says on which data."""
    own = _own_manifest(run, manifest)
    fitted_on: dict[str, Any] = {"manifest": str(own.path), "split": CHOOSING_SPLIT, "is_own": _is_own(run, own)}
    if not fitted_on["is_own"]:
        progress.note(
            f"{run.manifest_path}: the run's own data set is missing or has changed; thresholds are fitted on val "
            f"of {own.path}"
        )
    rows = _read_rows(own, CHOOSING_SPLIT)
    key = _predictions_key(run, own, CHOOSING_SPLIT, rows)
    path = config.eval_dir / THRESHOLDS_NAME
    if (kept := _read_kept_thresholds(path, key, fitted_on, run.label_names)) is not None:
        return kept
    if config.split == CHOOSING_SPLIT and own.path == manifest.path:
        val = predictions
    else:
        val, _ = _predict(config, run, own, CHOOSING_SPLIT, rows, progress)
    thresholds = fit_both_thresholds(val.labels, val.probabilities, {**fitted_on, "people": len(val)})
    content = {
        "key": key,
        **thresholds.fitted_on,
        "thresholds": _by_label(run, thresholds.best_f1),
        "break_even_thresholds": _by_label(run, thresholds.break_even),
    }
    write_text(path, json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n")
    return thresholds


class _KeptThresholds(BaseModel):
    """The values of ``thresholds.json`` that are read back; a threshold of None is one that could not be fitted."""

    model_config = ConfigDict(strict=True, allow_inf_nan=False)

    key: str
    people: int
    thresholds: dict[str, float | None]
    break_even_thresholds: dict[str, float | None]


def _read_kept_thresholds(
    path: Path, key: str, fitted_on: dict[str, Any], label_names: tuple[str, ...]
) -> Thresholds | None:
    """Reads thresholds that were fitted on the same predictions; None where there are none, or the file is damaged."""
    if not path.is_file():
        return None
    try:
        stored = _KeptThresholds.model_validate(parse_json(path.read_text(encoding="utf-8")))
    except ValueError:
        return None
    kinds = (stored.thresholds, stored.break_even_thresholds)
    if stored.key != key or not all(set(label_names) <= kind.keys() for kind in kinds):
        return None
    best_f1, break_even = (np.array([kind[name] for name in label_names], np.float64) for kind in kinds)
    return Thresholds(best_f1, break_even, {**fitted_on, "people": stored.people})


def _by_label(run: Run, thresholds: NDArray[np.float64]) -> dict[str, float | None]:
    """Thresholds by label, not rounded, so that they predict the same labels when they are read again."""
    pairs = zip(run.label_names, thresholds.tolist(), strict=True)
    return {name: None if np.isnan(value) else value for name, value in pairs}


def _own_manifest(run: Run, manifest: Manifest) -> Manifest:
    place = run.manifest_path
    if _is_own(run, manifest) or (isinstance(place, Path) and not place.is_file()):
        return manifest
    own = read_manifest(place)
    return own if _is_own(run, own) else manifest


def _is_own(run: Run, manifest: Manifest) -> bool:
    return bool(file_sha256(manifest.path) == run.settings["manifest"]["sha256"])


def _hash_annotations(manifest: Manifest) -> list[str]:
    """The sha256 of a data set's annotation files, wherever they were."""
    return sorted(manifest.annotations.get("files", {}).values())


def _count_trained_on(run: Run, manifest: Manifest, split: str, person_ids: list[str]) -> int | None:
    """Counts the people that the run was trained on; None where that is unknown.

    People have the same ids in two data sets only if both come from the same annotations.
    """
    own = _own_manifest(run, manifest)
    if not _is_own(run, own):
        return None
    if own.path != manifest.path and _hash_annotations(own) != _hash_annotations(manifest):
        return 0
    trained = read_table(own.split_path("train"), SPLIT_SCHEMA, _SPLIT_REMEDY, ["person_id"])["person_id"]
    return len(set(person_ids) & set(trained.to_pylist()))
