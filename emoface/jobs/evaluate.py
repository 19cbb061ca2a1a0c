"""The evaluate job: what a trained model makes of a split, as figures, tables and one page.

Predictions are kept with a key of all that decides them (weights, people, photos, code), so that a second evaluation,
or one with other measures, does not run the network again. Thresholds are fitted on val and never on the people that
are measured, unless these are val itself.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from pydantic import Field

from emoface.datasets.manifest import Manifest, read_manifest
from emoface.datasets.stream_cache import open_stream_cache
from emoface.errors import SettingsError, TableError
from emoface.metrics.multilabel import (
    average_absolute_error,
    average_precision,
    bootstrap_average_precision,
    f1_scores,
    fit_thresholds,
    jaccard_indices,
    mean_average_precision,
    mean_over_labels,
    percentile_interval,
    precision_recall_curve,
    predict_labels,
)
from emoface.mter.dataset import PeopleDataset
from emoface.mter.predicting import Answers, answer_for_people, pick_device, sees
from emoface.mter.runs import BEST_NAME, RUN_NAME, Run, read_run
from emoface.progress import SILENT, Progress
from emoface.reporting.charts import Bars, write_precision_bars, write_precision_recall
from emoface.reporting.pages import TEMPLATES_DIR, format_count, format_number, render_page, svg_address
from emoface.schema import CATEGORIES, DIMENSIONS, N_CATEGORIES, PREDICTIONS_SCHEMA, SOURCES, SPLIT_SCHEMA
from emoface.storage.cards import read_card
from emoface.storage.files import file_sha256, stat_digest, write_text
from emoface.storage.records import (
    JobRecord,
    code_fingerprint,
    hash_outputs,
    photo_inputs,
    read_record,
    to_json_number,
    to_settings,
    write_record,
)
from emoface.storage.settings import Count, Device, File, Folder, Seed, Settings, Split
from emoface.storage.tables import read_table, vectors_to_array, write_table
from emoface.version import __version__

PREDICTIONS_NAME = "predictions.parquet"
METRICS_NAME = "metrics.json"
PAGE_NAME = "evaluation.html"
THRESHOLDS_NAME = "thresholds.json"
INTERVAL_LEVEL = 0.95

_TEMPLATE = "evaluation.html.j2"
_KEY = b"emoface_predictions"
_STREAMS = ("face", "body", "context")
_CROWD = 4
_SPLIT_REMEDY = "rebuild it with 'emoface split DIR'"
_REMEDY = "delete it and run 'emoface evaluate' again"


class EvaluateConfig(Settings):
    """Settings of the evaluate job."""

    run: Folder
    """Folder of the training run."""
    split: Split = "test"
    """Which split to evaluate."""
    manifest: File | None = None
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
    cache: Folder | None = None
    """Folder of the cache of decoded photos; by default stream_cache beside the manifest."""

    @property
    def out(self) -> Path:
        """Where everything is written."""
        return self.run / "eval" / self.split


@dataclass(frozen=True)
class Predictions:
    """``predictions.parquet`` as arrays; n people.

    Attributes:
        person_ids: Who.
        sources: The collection of each person's photo.
        people_in_photo: (n,) annotated people of the split in the same photo.
        has_face: (n,)
        labels: (n, 26) 0 or 1.
        probabilities: (n, 26)
        stream_probabilities: Of each stream with a head of its own, (n, 26), nan without a face.
        vad: (n, 3) valence, arousal, dominance, nan where EMOTIC has none.
        predicted_vad: (n, 3), nan where the model has no head for them.
    """

    person_ids: list[str]
    sources: NDArray[np.object_]
    people_in_photo: NDArray[np.int64]
    has_face: NDArray[np.bool_]
    labels: NDArray[np.uint8]
    probabilities: NDArray[np.float32]
    stream_probabilities: dict[str, NDArray[np.float32]]
    vad: NDArray[np.float32]
    predicted_vad: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.person_ids)


def run_evaluate(config: EvaluateConfig, progress: Progress = SILENT) -> JobRecord:
    """Predicts the people of a split and measures the predictions.

    Args:
        config: What to evaluate.
        progress: Told of each person.

    Returns:
        The job's record. ``RUN/eval/SPLIT/`` holds ``metrics.json``, ``predictions.parquet``, ``per_label.csv``,
        ``evaluation.html`` and its charts.

    Raises:
        SettingsError: The run is none, or unfinished, or its data set is no longer the one it was trained on.
        TableError: The data set is not what its manifest says, or the model sees nobody of the split.
    """
    run = read_run(config.run)
    manifest = _find_manifest(config, run)
    rows = _read_rows(manifest, config.split)
    if not rows.num_rows:
        raise TableError(f"{manifest.split_path(config.split)}: no people to evaluate; choose another --split")
    record = JobRecord(
        job="evaluate",
        settings=to_settings(config),
        inputs={
            **{str(path): file_sha256(path) for path in (run.path / RUN_NAME, run.path / BEST_NAME, manifest.path)},
            str(manifest.split_path(config.split)): manifest.splits[config.split].sha256,
            str(_template_path()): file_sha256(_template_path()),
            **photo_inputs(Path(manifest.image_root), rows["image"].to_pylist()),
        },
        outputs={},
        counts={},
        code=code_fingerprint(__name__),
    )
    done = read_record(config.out, "evaluate")
    if done is not None and _is_current(config.out, done, record):
        progress.note(f"{config.out}: this evaluation is current; nothing to do")
        return done

    predictions, left_out = _predict_split(config, run, manifest, config.split, rows, config.out, progress)
    thresholds, fitted_on = _find_thresholds(config, run, manifest, predictions, progress)
    progress.start(f"measure {config.split}", 5)
    metrics = {
        "emoface_version": __version__,
        "model": run.model_name,
        "run": str(run.path),
        "has_shuffled_labels": run.has_shuffled_labels,
        "split": config.split,
        "manifest": {"path": str(manifest.path), "sha256": file_sha256(manifest.path)},
        "weights_sha256": file_sha256(run.path / BEST_NAME),
        "bootstrap": {"draws": config.draws, "seed": config.seed, "level": INTERVAL_LEVEL},
        "people": {
            "people": rows.num_rows,
            "evaluated": len(predictions),
            "with_face": int(predictions.has_face.sum()),
            "left_out": left_out,
            "trained_on": _count_trained_on(run, manifest, config.split, predictions.person_ids),
        },
        "thresholds": fitted_on,
        **_measure(config, predictions, thresholds, progress),
    }
    outputs = _write_results(config, metrics, predictions, progress)
    finished = JobRecord(
        **{
            **record.__dict__,
            "outputs": hash_outputs(config.out, outputs),
            "counts": _count(metrics),
            "info": {"model": run.model_name, "split": config.split},
        }
    )
    write_record(config.out, finished)
    return finished


def find_split_table(config: EvaluateConfig) -> Path:
    """The table whose photos are predicted, whether or not it is there."""
    return read_manifest(config.manifest or read_run(config.run).manifest_path).split_path(config.split)


def read_predictions(path: Path) -> Predictions:
    """Reads ``predictions.parquet``.

    Raises:
        TableError: It is missing or has other columns.
    """
    return _to_predictions(read_table(path, PREDICTIONS_SCHEMA, _REMEDY))


def _to_predictions(table: pa.Table) -> Predictions:
    streams = {name: vectors_to_array(table[f"{name}_probabilities"], N_CATEGORIES) for name in _STREAMS}
    return Predictions(
        person_ids=table["person_id"].to_pylist(),
        sources=np.array(table["source"].to_pylist(), dtype=object),
        people_in_photo=table["people_in_photo"].to_numpy().astype(np.int64),
        has_face=table["has_face"].to_numpy(),
        labels=vectors_to_array(table["labels"], N_CATEGORIES).astype(np.uint8),
        probabilities=vectors_to_array(table["probabilities"], N_CATEGORIES),
        stream_probabilities={name: values for name, values in streams.items() if np.isfinite(values).any()},
        vad=_columns(table, DIMENSIONS),
        predicted_vad=_columns(table, [f"predicted_{name}" for name in DIMENSIONS]),
    )


def _columns(table: pa.Table, names: Any) -> NDArray[np.float32]:
    return np.stack([table[name].to_numpy() for name in names], axis=1).astype(np.float32)


def _find_manifest(config: EvaluateConfig, run: Run) -> Manifest:
    """The data set that is asked for, or the one of the training if it is still the same."""
    manifest = read_manifest(config.manifest or run.manifest_path, check_sha256=True)
    trained = run.settings["manifest"]["sha256"]
    if config.manifest is None and (found := file_sha256(manifest.path)) != trained:
        raise SettingsError(
            f"{manifest.path}: sha256 is {found[:12]}..., but the run was trained on {trained[:12]}...; people of "
            "its test split may be among those trained on: train again, or give the data set with --manifest"
        )
    return manifest


def _read_rows(manifest: Manifest, split: str) -> pa.Table:
    columns = ["index", "person_id", "image", "source"]
    return read_table(manifest.split_path(split), SPLIT_SCHEMA, _SPLIT_REMEDY, columns)


def _is_current(out: Path, done: JobRecord, now: JobRecord) -> bool:
    same = (done.settings, done.inputs, done.code) == (now.settings, now.inputs, now.code)
    return same and all((out / name).is_file() and file_sha256(out / name) == sha for name, sha in done.outputs.items())


def _predict_split(
    config: EvaluateConfig, run: Run, manifest: Manifest, split: str, rows: pa.Table, out: Path, progress: Progress
) -> tuple[Predictions, dict[str, int]]:
    """The predictions of a split and who is left out; the network runs only where none of the same key are kept."""
    path = out / PREDICTIONS_NAME
    key = _predictions_key(run, manifest, split, rows)
    kept = pq.read_schema(path).metadata if path.is_file() else None
    if kept is not None and kept.get(_KEY, b"").startswith(key.encode()):
        left_out: dict[str, int] = json.loads(kept[_KEY].decode().partition(" ")[2])
        return read_predictions(path), left_out
    table, left_out = _predict(config, run, manifest, split, rows, progress)
    marked = PREDICTIONS_SCHEMA.with_metadata({_KEY: f"{key} {json.dumps(left_out)}".encode()})
    write_table(path, table, marked)
    return read_predictions(path), left_out


def _predictions_key(run: Run, manifest: Manifest, split: str, rows: pa.Table) -> str:
    """Names all that decides a split's predictions."""
    told = [
        file_sha256(run.path / BEST_NAME),
        run.stream_sizes,
        manifest.splits[split].sha256,
        manifest.image_root,
        stat_digest(Path(manifest.image_root), dict.fromkeys(rows["image"].to_pylist())),
        code_fingerprint("emoface.mter.predicting"),
        code_fingerprint("emoface.datasets.stream_cache"),
    ]
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()


def _predict(
    config: EvaluateConfig, run: Run, manifest: Manifest, split: str, rows: pa.Table, progress: Progress
) -> tuple[pa.Table, dict[str, int]]:
    cache = open_stream_cache(manifest, split, config.cache, progress)
    model = run.load_model().to(pick_device(config.device))
    seen = sees(model, cache.people.has_face)
    positions = np.flatnonzero(seen)
    left_out = {reason: cache.counts[reason] for reason in cache.counts if reason not in ("people", "usable")}
    if not seen.all() or model.streams == ("face",):
        left_out["no_face"] = int((~seen).sum())
    if not len(positions):
        told = ", ".join(f"{count} {reason}" for reason, count in left_out.items() if count)
        raise TableError(f"{manifest.split_path(split)}: {run.model_name} sees nobody of its people ({told})")
    progress.start(f"predict {split}", len(positions))
    dataset = PeopleDataset.of_model(cache, model, sizes=run.stream_sizes)
    answers = answer_for_people(
        model, dataset, positions, batch_size=config.batch_size, workers=config.workers, progress=progress
    )
    people = cache.people
    n_of_image = Counter(rows["image"].to_pylist())
    row_of = {index: row for row, index in enumerate(rows["index"].to_pylist())}
    chosen = rows.take([row_of[index] for index in people.index[positions].tolist()])
    return _to_table(
        answers, chosen, n_of_image, people.labels[positions], people.vad[positions], people.has_face[positions]
    ), left_out


def _to_table(
    answers: Answers,
    rows: pa.Table,
    n_of_image: Mapping[str, int],
    labels: NDArray[np.uint8],
    vad: NDArray[np.float32],
    has_face: NDArray[np.bool_],
) -> pa.Table:
    predicted = np.full_like(vad, np.nan) if answers.vad is None else answers.vad
    columns: dict[str, Any] = {
        **{name: rows[name] for name in ("index", "person_id", "image", "source")},
        "people_in_photo": [n_of_image[image] for image in rows["image"].to_pylist()],
        "has_face": has_face,
        "labels": _to_vectors(labels, pa.uint8()),
        "probabilities": _to_vectors(answers.probabilities, pa.float32()),
    }
    for stream in _STREAMS:
        values = answers.stream_probabilities.get(stream, np.full(answers.probabilities.shape, np.nan, np.float32))
        columns[f"{stream}_probabilities"] = _to_vectors(values, pa.float32())
    for number, name in enumerate(DIMENSIONS):
        columns[name] = pa.array(vad[:, number], pa.float32(), from_pandas=True)
        columns[f"predicted_{name}"] = pa.array(predicted[:, number], pa.float32(), from_pandas=True)
    return pa.table({name: columns[name] for name in PREDICTIONS_SCHEMA.names})


def _to_vectors(values: NDArray[Any], kind: pa.DataType) -> pa.Array:
    """Rows as fixed-size lists; a row with nan is null."""
    unknown = np.isnan(values).any(axis=1) if values.dtype.kind == "f" else np.zeros(len(values), bool)
    flat = pa.array(values.ravel(), kind)
    return pa.FixedSizeListArray.from_arrays(flat, values.shape[1], mask=pa.array(unknown))


def _find_thresholds(
    config: EvaluateConfig, run: Run, manifest: Manifest, predictions: Predictions, progress: Progress
) -> tuple[NDArray[np.float64], dict[str, Any]]:
    """Each label's threshold, and what it was fitted on: val of the run's own data set, if that is still there."""
    own = _own_manifest(run, manifest)
    fitted_on = {"manifest": str(own.path), "split": "val", "is_own": _is_own(run, own)}
    if not fitted_on["is_own"]:
        progress.note(
            f"{run.manifest_path}: the run's own data set is not there or has changed; thresholds are fitted on val "
            f"of {own.path}"
        )
    rows = _read_rows(own, "val")
    key = _predictions_key(run, own, "val", rows)
    path = run.path / "eval" / THRESHOLDS_NAME
    if path.is_file():
        kept = json.loads(path.read_text(encoding="utf-8"))
        if kept["key"] == key:
            values = [kept["thresholds"][name] for name in CATEGORIES]
            return np.array(values, np.float64), {**fitted_on, "people": kept["people"]}
    if config.split == "val" and own.path == manifest.path:
        val = predictions
    else:
        val = _to_predictions(_predict(config, run, own, "val", rows, progress)[0])
    thresholds = fit_thresholds(val.labels, val.probabilities)
    by_label = {name: None if np.isnan(value) else value for name, value in zip(CATEGORIES, thresholds, strict=True)}
    told = {"key": key, **fitted_on, "people": len(val), "thresholds": by_label}
    write_text(path, json.dumps(told, indent=2, ensure_ascii=False, allow_nan=False) + "\n")
    return thresholds, {**fitted_on, "people": len(val)}


def _own_manifest(run: Run, manifest: Manifest) -> Manifest:
    if _is_own(run, manifest) or not run.manifest_path.is_file():
        return manifest
    own = read_manifest(run.manifest_path)
    return own if _is_own(run, own) else manifest


def _is_own(run: Run, manifest: Manifest) -> bool:
    return bool(file_sha256(manifest.path) == run.settings["manifest"]["sha256"])


def _count_trained_on(run: Run, manifest: Manifest, split: str, person_ids: list[str]) -> int | None:
    """How many of the people the run was trained on; None where that cannot be told.

    People have the same ids in two data sets only if both come from the same annotations.
    """
    own = _own_manifest(run, manifest)
    if not _is_own(run, own):
        return None
    if own.path != manifest.path and own.annotations.get("files") != manifest.annotations.get("files"):
        return 0
    trained = read_table(own.split_path("train"), SPLIT_SCHEMA, _SPLIT_REMEDY, ["person_id"])["person_id"]
    return len(set(person_ids) & set(trained.to_pylist()))


def _measure(
    config: EvaluateConfig, predictions: Predictions, thresholds: NDArray[np.float64], progress: Progress
) -> dict[str, Any]:
    """All measures of ``metrics.json``."""
    labels, probabilities = predictions.labels, predictions.probabilities
    precision = average_precision(labels, probabilities)
    drawn = bootstrap_average_precision(labels, probabilities, config.draws, config.seed)
    progress.advance()
    low, high = percentile_interval(drawn, INTERVAL_LEVEL)
    predicted = predict_labels(probabilities, thresholds)
    f1 = f1_scores(labels, predicted)
    jaccard = jaccard_indices(labels, predicted)
    counts, true = labels.sum(axis=0), (labels.astype(bool) & predicted).sum(axis=0)
    per_label = {
        name: {
            "people": int(counts[k]),
            "prevalence": to_json_number(counts[k] / len(labels)),
            "average_precision": to_json_number(precision[k]),
            "interval": [to_json_number(low[k]), to_json_number(high[k])],
            "threshold": to_json_number(thresholds[k]),
            "predicted": int(predicted[:, k].sum()),
            "precision": _share(true[k], predicted[:, k].sum()),
            "recall": _share(true[k], counts[k]),
            "f1": to_json_number(f1[k]),
        }
        for k, name in enumerate(CATEGORIES)
    }
    subgroups = _measure_subgroups(config, predictions)
    progress.advance()
    return {
        **_mean_precision(labels, precision, drawn),
        "mean_f1": to_json_number(mean_average_precision(f1)),
        "jaccard": {"mean": to_json_number(mean_average_precision(jaccard)), "people": int(np.isfinite(jaccard).sum())},
        "average_absolute_error": _measure_vad(predictions),
        "per_label": per_label,
        "streams": _measure_streams(predictions),
        "subgroups": subgroups,
    }


def _mean_precision(
    labels: NDArray[np.uint8], precision: NDArray[np.float64], drawn: NDArray[np.float64]
) -> dict[str, Any]:
    """mAP, its interval, over how many labels, and what guessing would come to on the same labels."""
    defined = np.isfinite(precision)
    interval = percentile_interval(mean_over_labels(drawn), INTERVAL_LEVEL)
    prevalence = np.where(defined, labels.sum(axis=0) / max(len(labels), 1), np.nan)
    return {
        "mean_average_precision": to_json_number(mean_average_precision(precision)),
        "interval": [to_json_number(value) for value in interval],
        "labels_defined": int(defined.sum()),
        "mean_prevalence": to_json_number(mean_average_precision(prevalence)),
    }


def _measure_subgroups(config: EvaluateConfig, predictions: Predictions) -> list[dict[str, Any]]:
    """The same measures for parts of the people: by face, by collection, by how many are in the photo."""
    n = predictions.people_in_photo
    groups: dict[str, dict[str, NDArray[np.bool_]]] = {
        "face": {"with a face": predictions.has_face, "without a face": ~predictions.has_face},
        "source": {name: predictions.sources == name for name in _known_first(predictions.sources)},
        "people in the photo": {
            **{f"{count}": n == count for count in range(1, _CROWD)},
            f"{_CROWD} or more": n >= _CROWD,
        },
    }
    measured = []
    for kind, parts in groups.items():
        for name, chosen in parts.items():
            labels, probabilities = predictions.labels[chosen], predictions.probabilities[chosen]
            precision = average_precision(labels, probabilities)
            drawn = bootstrap_average_precision(labels, probabilities, config.draws, config.seed)
            by_label = {label: to_json_number(value) for label, value in zip(CATEGORIES, precision, strict=True)}
            measures = _mean_precision(labels, precision, drawn)
            measured.append(
                {"by": kind, "group": name, "people": len(labels), **measures, "average_precision": by_label}
            )
    return measured


def _known_first(sources: NDArray[np.object_]) -> list[str]:
    return [*SOURCES, *sorted({str(name) for name in sources} - set(SOURCES))]


def _measure_streams(predictions: Predictions) -> dict[str, Any]:
    """Each stream's own head, on the people of whom it sees something."""
    measured = {}
    for stream, probabilities in predictions.stream_probabilities.items():
        seen = np.isfinite(probabilities).all(axis=1)
        precision = average_precision(predictions.labels[seen], probabilities[seen])
        measured[stream] = {
            "people": int(seen.sum()),
            "mean_average_precision": to_json_number(mean_average_precision(precision)),
            "labels_defined": int(np.isfinite(precision).sum()),
            "average_precision": {
                name: to_json_number(value) for name, value in zip(CATEGORIES, precision, strict=True)
            },
        }
    return measured


def _measure_vad(predictions: Predictions) -> dict[str, Any] | None:
    if np.isnan(predictions.predicted_vad).all():
        return None
    errors = average_absolute_error(predictions.vad, predictions.predicted_vad)
    known = np.isfinite(predictions.vad).sum(axis=0)
    return {
        **{name: to_json_number(error) for name, error in zip(DIMENSIONS, errors, strict=True)},
        "mean": to_json_number(mean_average_precision(errors)),
        "people": {name: int(count) for name, count in zip(DIMENSIONS, known, strict=True)},
    }


def _write_results(
    config: EvaluateConfig, metrics: dict[str, Any], predictions: Predictions, progress: Progress
) -> list[Path]:
    out = config.out
    published = _published_columns()
    charts = _write_charts(out, metrics, predictions)
    progress.advance()
    write_text(out / METRICS_NAME, json.dumps(metrics, indent=2, ensure_ascii=False, allow_nan=False) + "\n")
    write_text(out / "per_label.csv", _per_label_csv(metrics, published))
    progress.advance()
    pictures = {path.stem: path for path in charts if path.suffix == ".svg"}
    write_text(out / PAGE_NAME, _render_page(metrics, published, pictures))
    progress.advance()
    return [out / PREDICTIONS_NAME, out / METRICS_NAME, out / "per_label.csv", out / PAGE_NAME, *charts]


def _write_charts(out: Path, metrics: dict[str, Any], predictions: Predictions) -> list[Path]:
    per_label = metrics["per_label"]
    title = f"{metrics['model']} on {metrics['split']}: mAP {_format_percent(metrics['mean_average_precision'])}"
    bars = Bars(*(_numbers([one(measures) for measures in per_label.values()]) for one in _BAR_PARTS))
    curves, captions = {}, {}
    for k, name in enumerate(CATEGORIES):
        curve = precision_recall_curve(predictions.labels[:, k], predictions.probabilities[:, k])
        curves[name] = (curve.recall, curve.precision)
        value = per_label[name]["average_precision"]
        captions[name] = "undefined" if value is None else f"AP {_format_percent(value)}"
    prevalence = {name: measures["prevalence"] for name, measures in per_label.items()}
    return [
        *write_precision_bars(out / "average_precision", title, CATEGORIES, {metrics["model"]: bars}),
        *write_precision_recall(out / "precision_recall", title, curves, captions, prevalence),
    ]


_BAR_PARTS: tuple[Callable[[Mapping[str, Any]], float | None], ...] = (
    lambda measures: measures["average_precision"],
    lambda measures: measures["interval"][0],
    lambda measures: measures["interval"][1],
)


def _numbers(values: list[float | None]) -> NDArray[np.float64]:
    return np.array([np.nan if value is None else value for value in values], np.float64)


def _published_columns() -> dict[str, dict[str, Any]]:
    """The thesis's columns by ``table 4-2: mter2``; average precision and its mean in percent."""
    columns = {}
    for key, table in read_card("thesis").items():
        for name, column in table.get("columns", {}).items():
            number = key.removeprefix("table_").replace("_", "-")
            columns[f"table {number}: {name}"] = {**column, "table": f"table {number}", "name": name}
    return columns


def _per_label_csv(metrics: dict[str, Any], published: Mapping[str, Mapping[str, Any]]) -> str:
    """One row per label and one for the mean; percent wherever the thesis prints percent."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    heads = ["average_precision_percent", "low_percent", "high_percent", "prevalence_percent"]
    writer.writerow(
        ["label", "people", *heads, "threshold", "f1", *(f"{s}_head_percent" for s in metrics["streams"]), *published]
    )
    for name, measures in metrics["per_label"].items():
        writer.writerow(
            [
                *(name, measures["people"]),
                *map(_percent, (measures["average_precision"], *measures["interval"], measures["prevalence"])),
                *(_blank(measures["threshold"]), _blank(measures["f1"])),
                *(_percent(one["average_precision"][name]) for one in metrics["streams"].values()),
                *(column["average_precision"][name] for column in published.values()),
            ]
        )
    mean = (metrics["mean_average_precision"], *metrics["interval"], metrics["mean_prevalence"])
    streams = [_percent(one["mean_average_precision"]) for one in metrics["streams"].values()]
    writer.writerow(
        [
            *("mean", metrics["people"]["evaluated"], *map(_percent, mean), "", _blank(metrics["mean_f1"])),
            *(*streams, *(column["mean_average_precision"] for column in published.values())),
        ]
    )
    return stream.getvalue()


def _render_page(
    metrics: dict[str, Any], published: Mapping[str, Mapping[str, Any]], pictures: Mapping[str, Path]
) -> str:
    filters = {"percent": _format_percent, "count": format_count, "number": format_number}
    return render_page(
        _TEMPLATE,
        filters,
        metrics=metrics,
        published={name: column for name, column in published.items() if name != "table 4-3: mter2"},
        pictures={name: svg_address(path) for name, path in pictures.items()},
        order=sorted(CATEGORIES, key=lambda name: -(metrics["per_label"][name]["average_precision"] or 0)),
    )


def _count(metrics: dict[str, Any]) -> dict[str, Any]:
    """What the command line shows."""
    people = metrics["people"]
    low, high = metrics["interval"]
    counts = {
        "people": people["people"],
        "evaluated": people["evaluated"],
        "left_out": {reason: count for reason, count in people["left_out"].items() if count},
        "mean_average_precision": metrics["mean_average_precision"],
        "interval_low": low,
        "interval_high": high,
        "labels_defined": metrics["labels_defined"],
        "mean_prevalence": metrics["mean_prevalence"],
        "mean_f1": metrics["mean_f1"],
        "jaccard": metrics["jaccard"]["mean"],
    }
    if metrics["average_absolute_error"] is not None:
        counts["average_absolute_error"] = metrics["average_absolute_error"]["mean"]
    return counts


def _share(part: Any, whole: Any) -> float | None:
    return to_json_number(part / whole) if whole else None


def _percent(value: float | None) -> Any:
    return "" if value is None else round(100 * value, 2)


def _blank(value: float | None) -> Any:
    return "" if value is None else value


def _format_percent(value: float | None, digits: int = 1) -> str:
    return "undefined" if value is None else f"{100 * value:.{digits}f}"


def _template_path() -> Path:
    return TEMPLATES_DIR / _TEMPLATE
