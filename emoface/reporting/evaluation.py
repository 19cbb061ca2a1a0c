"""Measures predictions of any origin and writes the results: ``metrics.json``, a table per label, charts and one page.

``evaluate`` calls it for the predictions of a run; predictions of other programs take the same way, so that the numbers
of both are comparable. Thresholds are fitted beforehand, on people who are not the ones evaluated.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from emoface.datasets.manifest import Manifest
from emoface.datasets.predictions import Predictions
from emoface.datasets.truth import PeopleFacts, read_people_facts, read_train_truth
from emoface.emotic.corrections import AGES, GENDERS
from emoface.metrics.agreement import AnnotatorAgreement, measure_annotators
from emoface.metrics.chance import ROC_AUC_CHANCE, ChanceLevels, ConstantLabels, measure_chance
from emoface.metrics.constant_outputs import is_same_for_everybody, output_ranges
from emoface.metrics.evaluation import Bootstrap, Evaluation, ThresholdMetrics, measure_predictions
from emoface.metrics.multilabel import break_even_thresholds, fit_thresholds, mean_of_defined
from emoface.metrics.vad import VadErrors
from emoface.progress import SILENT, Progress
from emoface.reporting.evaluation_page import (
    write_evaluation_charts,
    write_evaluation_page,
    write_evaluation_table,
)
from emoface.reporting.precision import describe_bootstrap, precision_to_json
from emoface.reporting.published import describe_comparison
from emoface.schema import CATEGORIES, DIMENSIONS, SOURCES
from emoface.storage.files import file_sha256, write_text
from emoface.storage.records import to_json_number, to_json_numbers
from emoface.version import __version__
from emoface.vision.arrays import Float64Array

METRICS_NAME = "metrics.json"
THRESHOLDS_NAME = "thresholds.json"
"""Name of the file of thresholds, in the folder of the evaluations of all splits."""
TABLE_NAME = "per_label.csv"
PAGE_NAME = "evaluation.html"

BEST_F1, BREAK_EVEN = "best_f1", "break_even"
"""The two kinds of thresholds."""

FEW_PEOPLE = 10
"""A label of fewer evaluated people is named: its average precision depends on single people."""

NO_PREDICTION = "no_prediction"
"""The reason in ``left_out`` for a person of whom another program's predictions have none."""

STEPS = 5
"""Steps that ``build_metrics`` and ``write_evaluation`` report together."""

_CROWD = 4
_UNKNOWN = "unknown"


@dataclass(frozen=True)
class Thresholds:
    """The thresholds from which labels are predicted, and the people that they were fitted on.

    Attributes:
        best_f1: (26,) thresholds with the best F1 score; nan for a label that nobody of these people has.
        break_even: (26,) thresholds at which precision equals recall; nan likewise.
        fitted_on: ``manifest``, ``split``, ``people``, and ``is_own``, whether it is the data set that the model was
            trained on; stands in ``metrics.json``.
    """

    best_f1: Float64Array
    break_even: Float64Array
    fitted_on: dict[str, Any]

    def by_kind(self) -> dict[str, Float64Array]:
        """Both kinds by name."""
        return {BEST_F1: self.best_f1, BREAK_EVEN: self.break_even}


def fit_both_thresholds(
    labels: NDArray[np.uint8], probabilities: NDArray[np.float32], fitted_on: dict[str, Any]
) -> Thresholds:
    """Fits both kinds of thresholds.

    Args:
        labels: (n, 26) true labels of the people to fit on, 0 or 1.
        probabilities: (n, 26) predicted probabilities.
        fitted_on: See ``Thresholds``.
    """
    return Thresholds(fit_thresholds(labels, probabilities), break_even_thresholds(labels, probabilities), fitted_on)


@dataclass(frozen=True)
class EvaluationContext:
    """What is reported beside the metrics of predictions.

    Attributes:
        model: Name of the model, for titles.
        run: Folder of the training run, or file of the predictions, that is evaluated.
        split: The split of the predicted people.
        manifest: The data set of the predicted people; chance levels are computed from its train split.
        n_people: Number of people of the split, whether predicted or not.
        left_out: Number of people of the split without predictions, by reason.
        trained_on: Number of predicted people that the model was trained on; None where that is unknown.
        thresholds: Thresholds of predicted labels; None if there are no people to fit them on.
        bootstrap: Resamples of the intervals.
        weights_sha256: sha256 of the model's weights; None where they are unknown.
        initial_weights: What the training started from, see ``Run.describe_initial_weights``; None where unknown.
        has_shuffled_labels: Whether the model was trained on shuffled labels, as a check for leaks.
        other_inputs: By name, who provided what the model reads beside the photos; empty for most models.
        predictions_sha256: sha256 of the file of another program's predictions; None for those of a run.
        protocol: The protocol that the evaluation keeps, see ``stamp_protocol``; None if none was checked.
    """

    model: str
    run: str
    split: str
    manifest: Manifest
    n_people: int
    left_out: dict[str, int]
    trained_on: int | None
    thresholds: Thresholds | None
    bootstrap: Bootstrap
    weights_sha256: str | None = None
    initial_weights: dict[str, Any] | None = None
    has_shuffled_labels: bool = False
    other_inputs: dict[str, str] = field(default_factory=dict)
    predictions_sha256: str | None = None
    protocol: dict[str, Any] | None = None


def build_metrics(predictions: Predictions, context: EvaluationContext, progress: Progress = SILENT) -> dict[str, Any]:
    """Computes all metrics of predictions, as the content of ``metrics.json``.

    Args:
        predictions: The predicted people.
        context: What is reported beside the metrics.
        progress: Advances by 1 when all people are evaluated and by 1 when the groups are; receives each warning as a
            note.

    Raises:
        TableError: A predicted person is not in the data set, or a table of it is missing.
    """
    facts = read_people_facts(context.manifest, context.split, predictions.person_ids)
    train = read_train_truth(context.manifest)
    thresholds = context.thresholds
    evaluation = measure_predictions(
        predictions.labels,
        predictions.probabilities,
        {} if thresholds is None else thresholds.by_kind(),
        stream_probabilities=predictions.stream_probabilities,
        vad=predictions.vad,
        predicted_vad=predictions.predicted_vad,
        groups=group_people(predictions, facts),
        photo=predictions.photo,
        bootstrap=context.bootstrap,
        progress=progress,
    )
    chance = measure_chance(train.labels, train.vad, predictions.labels, predictions.vad)
    outputs = _describe_outputs(predictions)
    metrics = {
        **_describe_context(predictions, context),
        **_to_metrics(evaluation, thresholds, predictions.label_names),
        "chance": _chance_to_json(evaluation, chance, predictions.label_names),
        "annotators": _describe_annotators(facts, predictions.label_names),
        "outputs": outputs,
        "rare_labels": _find_rare_labels(predictions),
    }
    metrics["warnings"] = list_warnings(metrics)
    for warning in metrics["warnings"]:
        progress.note(f"{context.run}: {warning}")
    return metrics


def write_evaluation(
    out: Path, metrics: dict[str, Any], predictions: Predictions, progress: Progress = SILENT
) -> list[Path]:
    """Writes ``metrics.json``, ``per_label.csv``, ``evaluation.html`` and the charts of the page.

    Args:
        out: Folder to write to.
        metrics: As ``build_metrics`` returns them.
        predictions: The predicted people, for the precision-recall curves.
        progress: Advances by 3.

    Returns:
        The files written.
    """
    charts = write_evaluation_charts(out, metrics, predictions.labels, predictions.probabilities)
    progress.advance()
    write_text(out / METRICS_NAME, json.dumps(metrics, indent=2, ensure_ascii=False, allow_nan=False) + "\n")
    write_evaluation_table(out / TABLE_NAME, metrics)
    progress.advance()
    write_evaluation_page(out / PAGE_NAME, metrics, charts)
    progress.advance()
    return [*(out / name for name in (METRICS_NAME, TABLE_NAME, PAGE_NAME)), *charts]


def select_counts(metrics: dict[str, Any]) -> dict[str, Any]:
    """Selects the numbers of ``metrics.json`` that the command line shows."""
    people, chance = metrics["people"], metrics["chance"]
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
        "lift_over_chance": metrics["lift"],
        "mean_interpolated_average_precision": metrics["mean_interpolated_average_precision"],
        "mean_f1": metrics["mean_f1"],
        "mean_f1_of_chance": chance["mean_f1"]["value"],
        "jaccard": metrics["jaccard"]["mean"],
        "jaccard_of_chance": chance["jaccard"]["value"],
    }
    if metrics["average_absolute_error"] is not None:
        counts["average_absolute_error"] = metrics["average_absolute_error"]["mean"]
        counts["average_absolute_error_of_chance"] = chance["average_absolute_error"]["mean"]
    return counts


def group_people(predictions: Predictions, facts: PeopleFacts) -> dict[str, dict[str, NDArray[np.bool_]]]:
    """Groups people by face, collection, number of people in the photo, gender and age; (n,) masks per group.

    The groups of a kind have no person in common and together hold everybody.
    """
    n, sources = predictions.people_in_photo, predictions.sources
    expected = SOURCES if predictions.label_names == CATEGORIES else ()
    known_first = [*expected, *sorted({str(name) for name in sources} - set(expected))]
    return {
        "face": {"with a face": predictions.has_face, "without a face": ~predictions.has_face},
        "source": {name: sources == name for name in known_first},
        "people in the photo": {
            **{f"{count}": n == count for count in range(1, _CROWD)},
            f"{_CROWD} or more": n >= _CROWD,
        },
        "gender": _group_by_word(facts.gender, GENDERS),
        "age": _group_by_word(facts.age, AGES),
    }


def _group_by_word(words: NDArray[np.object_], known: tuple[str, ...]) -> dict[str, NDArray[np.bool_]]:
    groups = {word: words == word for word in known}
    is_known = np.logical_or.reduce(list(groups.values()))
    return {**groups, _UNKNOWN: ~is_known}


def list_warnings(metrics: dict[str, Any]) -> list[str]:
    """Lists what a reader of the metrics must know first: missing people, dead outputs, labels of very few people.

    Args:
        metrics: The content of ``metrics.json``, but for the warnings.
    """
    outputs, people = metrics["outputs"], metrics["people"]
    warnings = []
    if n_missing := people["left_out"].get(NO_PREDICTION):
        warnings.append(
            f"{n_missing:,} of {people['people']:,} people have no prediction: these metrics are those of the other "
            f"{people['evaluated']:,} and cannot be compared with metrics of all"
        )
    if outputs["fused"]["is_same_for_everybody"]:
        warnings.append(
            "the output of the model is the same for everybody: it does not look at its input, and its mAP says nothing"
        )
    dead = [name for name, one in outputs["streams"].items() if one["is_same_for_everybody"]]
    if dead:
        streams = f"the {dead[0]} stream" if len(dead) == 1 else f"the streams {', '.join(dead)}"
        warnings.append(f"the output of {streams} is the same for everybody: it does not look at its input")
    if metrics["rare_labels"]:
        named = ", ".join(f"{name} ({count})" for name, count in metrics["rare_labels"].items())
        warnings.append(
            f"labels of fewer than {FEW_PEOPLE} people, whose average precision depends on single people: {named}"
        )
    return warnings


def _find_rare_labels(predictions: Predictions) -> dict[str, int]:
    counts = predictions.labels.sum(axis=0, dtype=np.int64).tolist()
    return {name: count for name, count in zip(predictions.label_names, counts, strict=True) if count < FEW_PEOPLE}


def _describe_context(predictions: Predictions, context: EvaluationContext) -> dict[str, Any]:
    manifest, thresholds = context.manifest, context.thresholds
    return {
        "emoface_version": __version__,
        "model": context.model,
        "label_names": list(predictions.label_names),
        "run": context.run,
        "has_shuffled_labels": context.has_shuffled_labels,
        "other_inputs": context.other_inputs,
        "split": context.split,
        "manifest": {"path": str(manifest.path), "sha256": file_sha256(manifest.path)},
        "weights_sha256": context.weights_sha256,
        "predictions_sha256": context.predictions_sha256,
        "initial_weights": context.initial_weights,
        "protocol": context.protocol,
        "bootstrap": describe_bootstrap(context.bootstrap.n_resamples, context.bootstrap.seed),
        "people": {
            "people": context.n_people,
            "evaluated": len(predictions),
            "with_face": int(predictions.has_face.sum()),
            "left_out": context.left_out,
            "trained_on": context.trained_on,
        },
        **describe_comparison(manifest, context.split, len(predictions)),
        "thresholds": None if thresholds is None else thresholds.fitted_on,
    }


def _describe_outputs(predictions: Predictions) -> dict[str, Any]:
    """Describes how much the outputs differ between people, for the fused output and for each stream's own head."""
    return {
        "fused": _describe_range(predictions.probabilities),
        "streams": {name: _describe_range(values) for name, values in predictions.stream_probabilities.items()},
    }


def _describe_range(probabilities: NDArray[np.float32]) -> dict[str, Any]:
    ranges = output_ranges(probabilities)
    return {
        "is_same_for_everybody": is_same_for_everybody(probabilities),
        "largest_range": to_json_number(ranges.max()),
        "mean_range": to_json_number(ranges.mean()),
    }


def _describe_annotators(facts: PeopleFacts, label_names: tuple[str, ...]) -> dict[str, Any]:
    """Describes how well one annotator agrees with the others; ``reason`` says why there is nothing to compute."""
    agreement = measure_annotators(facts.annotator_votes, facts.n_annotators)
    reason = None
    if not agreement.n_people:
        n_single, n_unknown = int((facts.n_annotators == 1).sum()), int((facts.n_annotators == 0).sum())
        parts = [
            f"{n_single:,} people have one annotator, who has nobody to agree with" if n_single else "",
            _describe_unknown_annotators(n_unknown, label_names) if n_unknown else "",
        ]
        reason = "; ".join(part for part in parts if part) or "nobody is evaluated"
    return {"reason": reason, "people": agreement.n_people, **_agreement_to_json(agreement, label_names)}


def _describe_unknown_annotators(n_people: int, label_names: tuple[str, ...]) -> str:
    known_by = ", which EMOTIC's .mat has and its CSV form has not" if label_names == CATEGORIES else ""
    return f"of {n_people:,} people only the united labels are known, not what each annotator chose{known_by}"


def _agreement_to_json(agreement: AnnotatorAgreement, label_names: tuple[str, ...]) -> dict[str, Any]:
    return {
        "mean_annotators": to_json_number(agreement.mean_annotators),
        "mean_average_precision": to_json_number(agreement.mean_average_precision),
        "mean_prevalence": to_json_number(agreement.mean_prevalence),
        "lift": to_json_number(agreement.mean_average_precision - agreement.mean_prevalence),
        "jaccard": to_json_number(agreement.mean_jaccard),
        "average_precision": to_json_numbers(label_names, agreement.average_precision),
    }


def _chance_to_json(evaluation: Evaluation, chance: ChanceLevels, label_names: tuple[str, ...]) -> dict[str, Any]:
    """Converts the chance level of every metric; each constant prediction is named by the labels it predicts."""
    prevalence = to_json_number(evaluation.overall.mean_prevalence)
    return {
        "train_people": chance.n_train,
        "mean_average_precision": prevalence,
        "mean_interpolated_average_precision": prevalence,
        "mean_roc_auc": ROC_AUC_CHANCE,
        "jaccard": _constant_to_json(chance.mean_jaccard, label_names),
        "mean_f1": _constant_to_json(chance.mean_f1, label_names),
        "micro_f1": _constant_to_json(chance.micro_f1, label_names),
        "hamming_loss": _constant_to_json(chance.hamming_loss, label_names),
        "mean_vad_of_train": to_json_numbers(DIMENSIONS, chance.vad_means),
        **_vad_to_json(chance.vad),
    }


def _constant_to_json(constant: ConstantLabels, label_names: tuple[str, ...]) -> dict[str, Any]:
    return {"value": to_json_number(constant.value), "always": [label_names[k] for k in constant.labels]}


def _to_metrics(evaluation: Evaluation, thresholds: Thresholds | None, label_names: tuple[str, ...]) -> dict[str, Any]:
    """Converts all metrics for ``metrics.json``."""
    groups = ((by, name, one) for by, parts in evaluation.groups.items() for name, one in parts.items())
    no_vad = dict.fromkeys(("average_absolute_error", "root_mean_squared_error", "concordance_correlation"))
    return {
        **precision_to_json(evaluation.overall),
        "mean_interpolated_average_precision": to_json_number(mean_of_defined(evaluation.interpolated)),
        "mean_roc_auc": to_json_number(mean_of_defined(evaluation.roc_auc)),
        **_thresholds_to_json(evaluation.at_thresholds.get(BEST_F1)),
        BREAK_EVEN: _thresholds_to_json(evaluation.at_thresholds.get(BREAK_EVEN)),
        **(no_vad if evaluation.vad is None else _vad_to_json(evaluation.vad)),
        "per_label": {name: _label_to_json(evaluation, thresholds, k) for k, name in enumerate(label_names)},
        "streams": {
            stream: {
                "people": one.n_people,
                "mean_average_precision": to_json_number(one.mean_average_precision),
                "mean_prevalence": to_json_number(one.mean_prevalence),
                "lift": to_json_number(one.mean_lift),
                "labels_defined": one.labels_defined,
                "average_precision": to_json_numbers(label_names, one.average_precision),
            }
            for stream, one in evaluation.streams.items()
        },
        "subgroups": [
            {
                "by": by,
                "group": name,
                "people": one.n_people,
                **precision_to_json(one),
                "average_precision": to_json_numbers(label_names, one.average_precision),
            }
            for by, name, one in groups
        ],
    }


def _thresholds_to_json(at_thresholds: ThresholdMetrics | None) -> dict[str, Any]:
    """Converts the metrics over all labels at one kind of thresholds; all are null without thresholds."""
    if at_thresholds is None:
        return {"mean_f1": None, "micro_f1": None, "hamming_loss": None, "jaccard": {"mean": None, "people": 0}}
    return {
        "mean_f1": to_json_number(at_thresholds.mean_f1),
        "micro_f1": to_json_number(at_thresholds.micro_f1),
        "hamming_loss": to_json_number(at_thresholds.hamming_loss),
        "jaccard": {
            "mean": to_json_number(at_thresholds.mean_jaccard),
            "people": int(np.isfinite(at_thresholds.jaccard).sum()),
        },
    }


def _label_to_json(evaluation: Evaluation, thresholds: Thresholds | None, k: int) -> dict[str, Any]:
    overall = evaluation.overall
    at_label = {
        kind: _threshold_to_json(
            None if thresholds is None else thresholds.by_kind()[kind], evaluation.at_thresholds.get(kind), k
        )
        for kind in (BEST_F1, BREAK_EVEN)
    }
    return {
        "people": int(overall.n_with_label[k]),
        "prevalence": to_json_number(overall.prevalence[k]),
        "average_precision": to_json_number(overall.average_precision[k]),
        "interval": [to_json_number(end) for end in overall.interval[:, k]],
        "lift": to_json_number(overall.lift[k]),
        "interpolated_average_precision": to_json_number(evaluation.interpolated[k]),
        "roc_auc": to_json_number(evaluation.roc_auc[k]),
        **at_label[BEST_F1],
        BREAK_EVEN: at_label[BREAK_EVEN],
    }


def _threshold_to_json(
    thresholds: Float64Array | None, at_thresholds: ThresholdMetrics | None, k: int
) -> dict[str, Any]:
    if thresholds is None or at_thresholds is None:
        return dict.fromkeys(("threshold", "predicted", "precision", "recall", "f1"))
    return {
        "threshold": to_json_number(thresholds[k]),
        "predicted": int(at_thresholds.n_predicted[k]),
        "precision": to_json_number(at_thresholds.precision[k]),
        "recall": to_json_number(at_thresholds.recall[k]),
        "f1": to_json_number(at_thresholds.f1[k]),
    }


def _vad_to_json(vad: VadErrors) -> dict[str, Any]:
    people = dict(zip(DIMENSIONS, vad.n_people.tolist(), strict=True))
    columns = {
        "average_absolute_error": vad.errors,
        "root_mean_squared_error": vad.root_mean_squared,
        "concordance_correlation": vad.concordance,
    }
    return {
        name: {
            **to_json_numbers(DIMENSIONS, values),
            "mean": to_json_number(mean_of_defined(values)),
            "people": people,
        }
        for name, values in columns.items()
    }
