"""A data set with labels of its own, from its annotations to predictions, and what is refused about it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from mter_data import PHOTO_WH, write_photos_and_tables
from plain_charts import without_drawing
from run_data import SIZES, write_finished_run

import emoface
from emoface.datasets.manifest import read_manifest
from emoface.datasets.predictions import predictions_path, read_predictions
from emoface.errors import SettingsError, TableError
from emoface.jobs.compare import CompareConfig, run_compare
from emoface.jobs.evaluate import EvaluateConfig, run_evaluate
from emoface.jobs.explain import ExplainConfig, run_explain
from emoface.jobs.export import ExportConfig, run_export
from emoface.jobs.export_coco import ExportCocoConfig, run_export_coco
from emoface.jobs.export_predictions import ExportPredictionsConfig, run_export_predictions
from emoface.jobs.parse import ParseConfig, run_parse
from emoface.jobs.report import ReportConfig, run_report
from emoface.jobs.score import ScoreConfig, run_score
from emoface.jobs.split import SplitConfig, run_split
from emoface.jobs.train import TrainConfig, run_train
from emoface.jobs.verify import VerifyConfig, run_verify
from emoface.mter import build_model
from emoface.mter.names import MODEL_NAMES
from emoface.mter.runs import read_run
from emoface.schema import CATEGORIES, PEOPLE_SCHEMA, SPLIT_SCHEMA, label_names_of
from emoface.storage.tables import read_table
from emoface.storage.weights import DEMONSTRATION_DETECTOR

NAMES = ("Tense", "calm today", "Böse 1")
"""In place of EMOTIC's Affection, Confidence and Happiness, which are those of the drawn people."""


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def emotic(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_photos_and_tables(tmp_path_factory.mktemp("emotic"), 16)


@pytest.fixture(scope="module")
def work(emotic: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same people with three labels of their own, parsed from COCO JSON, split and reported."""
    root = tmp_path_factory.mktemp("own")
    run_export_coco(ExportCocoConfig(dir=emotic.parent, out=root / "people.json"))
    text = (root / "people.json").read_text(encoding="utf-8")
    for name, own in zip(("Affection", "Confidence", "Happiness"), NAMES, strict=True):
        text = text.replace(f'"{name}"', f'"{own.upper()}"')
    (root / "people.json").write_text(text, encoding="utf-8")
    (root / "labels.txt").write_text("\n".join(NAMES), encoding="utf-8")
    out = root / "work"
    config = ParseConfig(emotic_root=root, images=emotic.parent.parent / "photos", labels=root / "labels.txt", out=out)
    record = run_parse(config)
    assert record.info["label_names"] == list(NAMES) and "published" not in record.counts
    for name in ("faces.parquet", "records/faces.json"):
        shutil.copy(emotic.parent / name, out / name)
    run_split(SplitConfig(dir=out, by="emotic"))
    with without_drawing():
        run_report(ReportConfig(dir=out))
    return out


@pytest.fixture(scope="module")
def run(work: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A trained and evaluated run."""
    out = tmp_path_factory.mktemp("runs") / "own"
    recipe = {"epochs": 1, "batch_size": 8}
    config = TrainConfig(manifest=work / "manifest.json", model="task1+task2", out=out, recipe=recipe, device="cpu")
    run_train(config.replace(pretrained="none", workers=0, person_size=SIZES["body"], context_size=SIZES["context"]))
    with without_drawing():
        run_evaluate(EvaluateConfig(run=out, draws=20))
    return out


def _json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def test_tables_and_manifest_have_the_labels(work: Path, emotic: Path) -> None:
    people = read_table(work / "people.parquet", PEOPLE_SCHEMA, "")
    expected = read_table(emotic.parent / "people.parquet", PEOPLE_SCHEMA, "")
    assert label_names_of(people.schema) == NAMES
    labels = np.array(people["labels"].to_pylist())
    assert labels.shape == (32, 3)
    np.testing.assert_array_equal(labels, np.array(expected["labels"].to_pylist())[:, [0, 5, 16]])
    manifest = read_manifest(work / "manifest.json", check_sha256=True)
    assert manifest.label_names == NAMES and tuple(manifest.splits["train"].label_counts) == NAMES
    assert manifest.features["labels"]["length"] == 3
    assert manifest.features["categories"]["feature"]["names"] == list(NAMES)
    train = read_table(manifest.split_path("train"), SPLIT_SCHEMA, "")
    assert json.loads(train.schema.metadata[b"huggingface"])["info"]["features"] == manifest.features
    assert run_verify(VerifyConfig(dir=work)).info["differences"] == []


def test_audit_speaks_of_the_data_set(work: Path) -> None:
    audit = _json(work / "report" / "audit.json")
    assert audit["label_names"] == list(NAMES) and audit["published"]["rows"] == []
    assert set(audit["labels"]["before"]["label_counts"]) == set(NAMES)
    page = (work / "report" / "audit.html").read_text(encoding="utf-8")
    assert "EMOTIC" not in page and "Böse 1" in page


def test_people_without_the_names_are_refused(work: Path) -> None:
    with pytest.raises(TableError, match="label_names are 1 names"):
        manifest = _json(work / "manifest.json")
        path = work / "other.json"
        path.write_text(json.dumps(manifest | {"label_names": ["a"]}))
        read_manifest(path)


def test_run_and_metrics_have_the_labels(run: Path, work: Path) -> None:
    assert read_run(run).label_names == NAMES
    assert set(read_run(run).log()[0]["val_average_precision"]) == set(NAMES)
    predictions = read_predictions(predictions_path(run, "test"))
    assert predictions.label_names == NAMES and predictions.probabilities.shape[1] == 3
    metrics = _json(run / "eval" / "test" / "metrics.json")
    assert list(metrics["per_label"]) == metrics["label_names"] == list(NAMES)
    counts = read_manifest(work / "manifest.json").splits["test"].label_counts
    assert {name: one["people"] for name, one in metrics["per_label"].items()} == counts
    assert (
        metrics["published"]["shown"] == [] and "labels are those of the data set" in metrics["published"]["why_none"]
    )
    page = (run / "eval" / "test" / "evaluation.html").read_text(encoding="utf-8")
    assert "Böse 1" in page and "EMOTIC" not in page
    with without_drawing():
        assert (
            run_evaluate(EvaluateConfig(run=run, draws=20)).counts
            == run_evaluate(EvaluateConfig(run=run, draws=20)).counts
        )


def test_predictions_go_out_and_are_scored_again(run: Path, work: Path, tmp_path: Path) -> None:
    path = tmp_path / "own.csv"
    run_export_predictions(ExportPredictionsConfig(run=run, out=path))
    assert list(pd.read_csv(path).columns) == ["person_id", *NAMES]
    with without_drawing():
        record = run_score(ScoreConfig(file=path, manifest=work / "manifest.json", draws=20))
    expected = _json(run / "eval" / "test" / "metrics.json")["mean_average_precision"]
    assert record.counts["mean_average_precision"] == pytest.approx(expected, abs=1e-6)
    with without_drawing():
        run_compare(CompareConfig(runs=(run, tmp_path / "own"), draws=20, out=tmp_path / "both"))
    assert list(pd.read_csv(tmp_path / "both" / "per_label.csv")["label"]) == list(NAMES)


def test_exported_model_predicts_the_labels(run: Path, tmp_path: Path) -> None:
    run_export(ExportConfig(run=run, format="folder", out=tmp_path / "model"))
    run_export(ExportConfig(run=run, out=tmp_path / "model.onnx"))
    card = (tmp_path / "model" / "README.md").read_text(encoding="utf-8")
    assert (
        "EMOTIC's photos" not in card
        and "the probabilities of 3 labels of its data set" in card
        and "Categories: Tense, calm today, Böse 1." in card
    )
    photo = np.random.default_rng(0).integers(0, 255, (PHOTO_WH[1], PHOTO_WH[0], 3), np.uint8)
    found = [
        emoface.load(path, device="cpu", detector=DEMONSTRATION_DETECTOR)
        .predict(photo, boxes=[[10, 10, 80, 115]])[0]
        .probabilities
        for path in (run, tmp_path / "model", tmp_path / "model.onnx")
    ]
    for probabilities in found:
        assert probabilities is not None and tuple(probabilities) == NAMES
        assert list(probabilities.values()) == pytest.approx(list((found[0] or {}).values()), abs=1e-4)


def test_labels_of_another_data_set_are_refused(run: Path, emotic: Path, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="its 26 labels are not the 3 that the run predicts"):
        run_evaluate(EvaluateConfig(run=run, manifest=emotic))
    other = write_finished_run(tmp_path / "other", emotic, "task2")
    with pytest.raises(SettingsError, match="other predicts 26 labels, which are not the 3 of own"):
        run_compare(CompareConfig(runs=(run, other)))
    with pytest.raises(SettingsError, match="no label is called 'calm'; known: Böse 1, Tense, calm today"):
        run_explain(ExplainConfig(run=run, index=(0,), labels=("calm",)))


@pytest.mark.parametrize("name", MODEL_NAMES)
def test_every_model_has_a_head_of_any_width(name: str) -> None:
    """The parameters of 5 labels and of 26 differ in layers of these widths alone."""
    with torch.device("meta"):
        few, usual = build_model(name, n_labels=5), build_model(name)
    shapes = {key: tuple(value.shape) for key, value in few.state_dict().items()}
    for key, value in usual.state_dict().items():
        before, now = tuple(value.shape), shapes.pop(key)
        assert before == now or all(
            one == other or (one % 26, other % 5) == (0, 0) for one, other in zip(before, now, strict=True)
        )
    assert not shapes and few.n_labels == 5 and usual.n_labels == len(CATEGORIES)
