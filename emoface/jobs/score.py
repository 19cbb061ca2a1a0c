"""The score job: measures predictions of any other program as ``evaluate`` measures those of a run."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from emoface.datasets.manifest import Manifest, read_manifest
from emoface.datasets.prediction_files import (
    Layout,
    PredictionFile,
    PredictionForm,
    check_vad_scale,
    read_label_names,
    read_prediction_file,
    read_truth_file,
    read_vad_file,
)
from emoface.datasets.prediction_people import (
    PEOPLE_NAME,
    RowOrder,
    SplitPeople,
    check_truth,
    find_rows,
    match_rows,
    read_split_people,
)
from emoface.datasets.predictions import PREDICTIONS_NAME, Predictions, write_predictions
from emoface.datasets.protocols import EvaluationFacts, ProtocolName, stamp_protocol
from emoface.errors import PredictionsError, SettingsError
from emoface.metrics.evaluation import Bootstrap
from emoface.progress import SILENT, Progress
from emoface.reporting.evaluation import (
    NO_PREDICTION,
    STEPS,
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
from emoface.schema import DIMENSIONS
from emoface.storage.files import file_sha256
from emoface.storage.locks import locked
from emoface.storage.records import JobRecord, find_current, finish_job, hash_inputs
from emoface.storage.settings import Count, File, FileOrUrl, Folder, Seed, Settings, Split
from emoface.vision.arrays import Float64Array


class ScoreConfig(Settings):
    """Settings of the score job."""

    file: File
    """File of the predictions: .npy, .npz, .mat (up to v7), .csv, .tsv, .parquet or .json."""
    manifest: FileOrUrl
    """The manifest.json of the data set that was predicted."""
    split: Split = "test"
    """The split that was predicted."""
    protocol: ProtocolName | None = None
    """Protocol whose rules are checked, so that the result can be compared with others; if one is broken, nothing is
    written. docs/protocol.md has the rules."""
    trained_on: Literal["train", "unknown"] = "unknown"
    """Who the model was trained on: train of this data set alone, or unknown. A protocol takes your word for it."""
    epoch_chosen_on: Literal["train", "val", "test", "unknown"] = "unknown"
    """The split on which the epoch and the settings of the model were chosen. A protocol takes your word for it."""
    out: Folder | None = None
    """Folder for the results; by default a folder beside FILE with its name."""
    name: str | None = None
    """Name of the predictions in the results; by default that of the file."""
    order: RowOrder | None = None
    """Order of the people, if the file does not name them: manifest for the rows of the split's table, emotic for
    EMOTIC's own order of all people of the split."""
    people: File | None = None
    """List of the people in the order of the rows, if the file does not name them: person_id or index, one per line or
    as a column, or the CSV file of mat2py.py of Tandon-A/emotic."""
    labels: File | None = None
    """Text file with the labels in the order of an array without names; by default the order of the data set, which is
    alphabetical for EMOTIC."""
    array: str | None = None
    """Name of the array of scores, if the file has several that it may be."""
    layout: Layout = "auto"
    """Which side of an array is the people; auto finds out, unless there are as many people as labels."""
    truth: File | None = None
    """File of the true labels that the other program wrote in the same rows; they are compared with the data set's."""
    vad: File | None = None
    """File of the predicted valence, arousal and dominance in the same rows, if FILE does not hold them."""
    vad_factor: Annotated[float, Field(gt=0)] = 1.0
    """Number by which predicted valence, arousal and dominance are multiplied to be on EMOTIC's scale of 1 to 10."""
    val: File | None = None
    """File of the predictions for val, of the same form, on which thresholds are fitted; without it the metrics at
    thresholds are undefined."""
    val_people: File | None = None
    """List of the people of --val, as --people."""
    allow_missing: bool = False
    """Measure the people who have a prediction if others of the split have none; their number is shown."""
    draws: Count = 1000
    """Number of bootstrap resamples for the confidence intervals."""
    seed: Seed = 0
    """Seed of the bootstrap."""

    @model_validator(mode="after")
    def _check_val(self) -> Self:
        if self.val is not None and self.split == "val":
            raise SettingsError("val is set, but the split is val itself; leave it out")
        if self.val_people is not None and self.val is None:
            raise SettingsError("val_people is set, but val is not; give the predictions for val too")
        return self

    @property
    def folder(self) -> Path:
        """Folder of all output files."""
        return self.out or self.file.parent / self.file.stem

    @property
    def title(self) -> str:
        """Name of the predictions."""
        return self.name or self.file.stem


@dataclass(frozen=True)
class _Source:
    """One file of predictions with all that belongs to it.

    Attributes:
        path: The file.
        split: The split that was predicted.
        people: List of the people in the order of the rows.
        truth: File of the true labels.
        vad: File of predicted valence, arousal and dominance.
    """

    path: Path
    split: Split
    people: Path | None
    truth: Path | None = None
    vad: Path | None = None


@locked("folder")
def run_score(config: ScoreConfig, progress: Progress = SILENT) -> JobRecord:
    """Reads the predictions, matches them with the people of the split and computes their metrics.

    Args:
        config: Settings of the job.
        progress: Receives one step per step of the metrics.

    Returns:
        The job's record. ``OUT/`` holds ``metrics.json``, ``predictions.parquet``, ``per_label.csv``,
        ``evaluation.html`` and its charts, as ``RUN/eval/SPLIT/`` of a run does.

    Raises:
        PredictionsError: A file cannot be read, or its rows are not the people of the split.
        TableError: The data set does not match its manifest.
        ProtocolError: A rule of the protocol is broken.
    """
    manifest = read_manifest(config.manifest, check_sha256=True)
    inputs = {
        **hash_inputs([manifest.path, manifest.path.parent / PEOPLE_NAME, *_list_files(config)]),
        **{str(manifest.split_path(name)): one.sha256 for name, one in manifest.splits.items()},
        **hash_template(TEMPLATE),
        **hash_published_cards(),
    }
    current = find_current("score", config, config.folder, module=__name__, inputs=inputs)
    if current is not None:
        progress.note(f"{config.folder}: these scores are current; nothing to do")
        return current

    source = _Source(config.file, config.split, config.people, config.truth, config.vad)
    predictions, n_missing = _read_predictions(config, manifest, source, progress)
    facts = _gather_facts(config, manifest, len(predictions), n_missing)
    protocol = stamp_protocol(config.protocol, manifest, facts)
    thresholds = _find_thresholds(config, manifest, predictions, progress)
    context = EvaluationContext(
        model=config.title,
        run=str(config.file),
        split=config.split,
        manifest=manifest,
        n_people=manifest.splits[config.split].rows,
        left_out=dict(facts.left_out),
        trained_on=facts.n_trained_on,
        thresholds=thresholds,
        bootstrap=Bootstrap(config.draws, config.seed),
        predictions_sha256=file_sha256(config.file),
        protocol=protocol,
    )
    progress.start(f"metrics on {config.split}", STEPS)
    metrics = build_metrics(predictions, context, progress)
    path = config.folder / PREDICTIONS_NAME
    write_predictions(path, predictions, key=file_sha256(config.file), left_out=context.left_out)
    outputs = write_evaluation(config.folder, metrics, predictions, progress)
    return finish_job(
        "score",
        config,
        config.folder,
        module=__name__,
        inputs=inputs,
        outputs=[path, *outputs],
        counts={name: "undefined" if one is None else one for name, one in select_counts(metrics).items()},
        info={
            "name": config.title,
            "split": config.split,
            "file": str(config.file),
            "published": metrics["published"],
        },
    )


def _gather_facts(config: ScoreConfig, manifest: Manifest, n_evaluated: int, n_missing: int) -> EvaluationFacts:
    """Gathers the facts that the rules of a protocol are about; how the model was made is what the settings state."""
    is_trained_on_train = config.trained_on == "train"
    leaks_dropped = manifest.split["leaks"]["rule"] == "drop"
    return EvaluationFacts(
        split=config.split,
        n_evaluated=n_evaluated,
        left_out={NO_PREDICTION: n_missing},
        epoch_chosen_on=None if config.epoch_chosen_on == "unknown" else config.epoch_chosen_on,
        thresholds_fitted_on=None if config.val is None else "val",
        is_own_data=True if is_trained_on_train else None,
        n_trained_on=0 if is_trained_on_train and leaks_dropped and config.split != "train" else None,
        is_stated=True,
    )


def _list_files(config: ScoreConfig) -> Iterator[Path]:
    files = (config.people, config.labels, config.truth, config.vad, config.val, config.val_people)
    yield config.file
    yield from (path for path in files if path is not None)


def _read_predictions(
    config: ScoreConfig, manifest: Manifest, source: _Source, progress: Progress
) -> tuple[Predictions, int]:
    """Reads the predictions of one split, in the order of its table, and counts the people without one."""
    labels = None if config.labels is None else read_label_names(config.labels)
    form = PredictionForm(config.array, config.layout, labels, manifest.label_names)
    file = read_prediction_file(source.path, form)
    _note_content(file, progress)
    vad = _read_vad(config, source, file)
    people = read_split_people(manifest, source.split)
    index = find_rows(file, manifest, source.split, order=config.order, list_path=source.people)
    matched = match_rows(file.path, index, people, manifest, source.split)
    if file.truth is not None:
        check_truth(file.path, file.truth, index, people, matched)
    if source.truth is not None:
        check_truth(source.truth, read_truth_file(source.truth, form, file), index, people, matched)
    if matched.n_outside:
        progress.note(
            f"{file.path}: {matched.n_outside:,} rows are not used: their people are left out of the splits of "
            f"{manifest.path}"
        )
    has_scores = np.isfinite(file.scores[matched.rows]).all(axis=1)
    rows, chosen = matched.rows[has_scores], matched.people[has_scores]
    _check_missing(config, file.path, people, chosen, source.split)
    return Predictions(
        index=people.index[chosen],
        person_ids=[people.person_ids[k] for k in chosen],
        images=[people.images[k] for k in chosen],
        sources=people.sources[chosen],
        people_in_photo=people.people_in_photo[chosen],
        has_face=people.has_face[chosen],
        labels=people.labels[chosen],
        probabilities=_to_float32(file.path, file.scores[rows], progress),
        stream_probabilities={},
        vad=people.vad[chosen],
        predicted_vad=_take_vad(file.path, vad, rows),
        label_names=people.label_names,
    ), len(people) - len(chosen)


def _check_missing(config: ScoreConfig, path: Path, people: SplitPeople, chosen: NDArray[np.int64], split: str) -> None:
    """Checks that all people of a split have a prediction, or some of them if people may be missing."""
    missing = np.setdiff1d(np.arange(len(people)), chosen)
    if len(missing) and not config.allow_missing:
        raise PredictionsError(
            f"{path}: {len(missing):,} of {len(people):,} people of {split} have no prediction, the first is "
            f"{people.person_ids[int(missing[0])]}; predict all people, or give --allow-missing to measure the others"
        )
    if not len(chosen):
        raise PredictionsError(f"{path}: nobody of {split} has a prediction; expected people of {config.manifest}")


def _note_content(file: PredictionFile, progress: Progress) -> None:
    """Notes what of a file is not used, and rows that look as if nothing had been written to them."""
    if file.unused:
        progress.note(f"{file.path}: not used: {', '.join(file.unused)}")
    n_zero = int((file.scores == 0).all(axis=1).sum())
    if n_zero:
        progress.note(
            f"{file.path}: the scores of {n_zero:,} rows are 0 throughout; a program that skips its last batch leaves "
            "such rows, and they are measured as they are"
        )


def _read_vad(config: ScoreConfig, source: _Source, file: PredictionFile) -> Float64Array | None:
    if source.vad is not None and file.vad is not None:
        raise PredictionsError(f"{file.path}: holds predicted valence, arousal and dominance; leave out --vad")
    path = source.vad or file.path
    vad = file.vad if source.vad is None else read_vad_file(source.vad, config.layout, file)
    if vad is None:
        return None
    scaled = config.vad_factor * vad
    check_vad_scale(path, scaled)
    return scaled


def _take_vad(path: Path, vad: Float64Array | None, rows: NDArray[np.int64]) -> NDArray[np.float32]:
    if vad is None:
        return np.full((len(rows), len(DIMENSIONS)), np.nan, np.float32)
    chosen = vad[rows].astype(np.float32)
    if (unknown := np.isnan(chosen).any(axis=1)).any():
        raise PredictionsError(
            f"{path}: {int(unknown.sum()):,} people have scores but no valence, arousal or dominance"
        )
    return chosen


def _to_float32(path: Path, scores: Float64Array, progress: Progress) -> NDArray[np.float32]:
    """Rounds the scores to those of ``predictions.parquet``; notes people who then have equal scores."""
    rounded = scores.astype(np.float32)
    n_merged = sum(
        len(np.unique(before)) - len(np.unique(after)) for before, after in zip(scores.T, rounded.T, strict=True)
    )
    if n_merged:
        progress.note(f"{path}: {n_merged:,} scores differ from others only beyond float32, and count as equal to them")
    return rounded


def _find_thresholds(
    config: ScoreConfig, manifest: Manifest, predictions: Predictions, progress: Progress
) -> Thresholds | None:
    """Fits the thresholds on the predictions of val; None without them."""
    if config.split == "val":
        val = predictions
    elif config.val is None:
        progress.note(f"{config.file}: no predictions of val are given, so metrics at thresholds are undefined")
        return None
    else:
        val, _ = _read_predictions(config, manifest, _Source(config.val, "val", config.val_people), progress)
    fitted_on = {"manifest": str(manifest.path), "split": "val", "is_own": True, "people": len(val)}
    return fit_both_thresholds(val.labels, val.probabilities, fitted_on)
