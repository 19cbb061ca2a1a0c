"""The evaluate job: predictions against the network itself, measures against scikit-learn, and what is kept."""

from __future__ import annotations

import csv
import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from click.testing import CliRunner
from json_damage import damage
from mter_data import LABELS, write_photos_and_tables
from run_data import write_finished_run
from safetensors.torch import save_file
from sklearn.metrics import average_precision_score
from watching import Watching

from emoface.cli import main
from emoface.datasets.manifest import read_manifest
from emoface.datasets.predictions import _KEY, read_kept_predictions, read_predictions
from emoface.datasets.stream_cache import open_stream_cache
from emoface.datasets.truth import read_people_facts
from emoface.errors import ProtocolError, SettingsError, TableError
from emoface.jobs import evaluate as evaluate_job
from emoface.jobs.evaluate import EvaluateConfig, _read_kept_thresholds, run_evaluate
from emoface.jobs.split import SplitConfig, run_split
from emoface.metrics.evaluation import Bootstrap
from emoface.metrics.multilabel import fit_thresholds
from emoface.mter.dataset import PeopleDataset, load_batch
from emoface.mter.runs import read_run
from emoface.mter.weight_files import read_weights
from emoface.reporting import evaluation, pages
from emoface.reporting.evaluation import list_warnings
from emoface.reporting.evaluation_page import describe_initial_weights
from emoface.schema import CATEGORIES
from emoface.storage.files import file_sha256

N_PHOTOS = 24


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_photos_and_tables(tmp_path_factory.mktemp("data"), N_PHOTOS)


@pytest.fixture(scope="module")
def evaluated(manifest: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that was evaluated on test, to be read only."""
    run = write_finished_run(tmp_path_factory.mktemp("runs") / "mter2", manifest, predicts_vad=True)
    run_evaluate(EvaluateConfig(run=run, draws=50))
    return run


def _metrics(run: Path, split: str = "test") -> dict[str, Any]:
    metrics: dict[str, Any] = json.loads((run / "eval" / split / "metrics.json").read_text(encoding="utf-8"))
    return metrics


def _bytes(run: Path) -> dict[str, bytes]:
    out = run / "eval" / "test"
    return {path.name: path.read_bytes() for path in sorted(out.iterdir()) if path.is_file()}


def _refuse(*_: object, **__: object) -> None:
    raise AssertionError("the network ran")


def test_predictions_are_the_networks_own(manifest: Path, evaluated: Path) -> None:
    run = read_run(evaluated)
    model = run.load_model()
    cache = open_stream_cache(read_manifest(manifest), "test")
    dataset = PeopleDataset.of_model(cache, model, sizes=run.stream_sizes)
    table = pd.read_parquet(evaluated / "eval" / "test" / "predictions.parquet")
    assert table["index"].tolist() == cache.people.index.tolist() and len(table) == N_PHOTOS // 4 * 2
    for position, row in table.iterrows():
        batch = load_batch(dataset, [position])
        with torch.no_grad():
            output = model(batch.inputs, batch.has_face)
        assert row["labels"].tolist() == batch.labels[0].tolist()
        assert row["probabilities"] == pytest.approx(output.logits[0].sigmoid().numpy(), abs=1e-5)
        assert row["context_probabilities"] == pytest.approx(
            output.stream_logits["context"][0].sigmoid().numpy(), abs=1e-5
        )
        assert (row["face_probabilities"] is None) == (not row["has_face"])
        assert output.vad_unit is not None
        assert row["predicted_valence"] == pytest.approx(1 + 9 * output.vad_unit[0, 0].item(), abs=1e-4)
    assert table["dominance"].isna().sum() == len(table) // 2  # every second person has none


@pytest.mark.usefixtures("plain_charts")
def test_batches_do_not_matter(manifest: Path, evaluated: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(evaluated, run, ignore=shutil.ignore_patterns("eval"))
    run_evaluate(EvaluateConfig(run=run, draws=5, batch_size=3, workers=2))
    ours, theirs = (read_predictions(path / "eval" / "test" / "predictions.parquet") for path in (run, evaluated))
    assert ours.person_ids == theirs.person_ids
    assert ours.probabilities == pytest.approx(theirs.probabilities, abs=1e-5)


def test_measures_are_those_of_scikit_learn(evaluated: Path) -> None:
    metrics = _metrics(evaluated)
    predictions = read_predictions(evaluated / "eval" / "test" / "predictions.parquet")
    precisions = []
    for k, name in enumerate(CATEGORIES):
        truth, told = predictions.labels[:, k], metrics["per_label"][name]
        assert told["people"] == truth.sum() and told["prevalence"] == pytest.approx(truth.mean(), abs=1e-6)
        if k not in LABELS:
            assert told["average_precision"] is None and told["f1"] is None and told["interval"] == [None, None]
            continue
        precisions.append(average_precision_score(truth, predictions.probabilities[:, k]))
        assert told["average_precision"] == pytest.approx(precisions[-1], abs=1e-6)
        predicted = predictions.probabilities[:, k] >= np.float32(told["threshold"]) - 1e-6
        f1 = 2 * (truth.astype(bool) & predicted).sum() / (truth.sum() + predicted.sum())
        assert told["f1"] == pytest.approx(f1, abs=1e-6)
        assert told["interval"][0] <= told["interval"][1]
    assert metrics["labels_defined"] == len(LABELS)
    assert metrics["mean_average_precision"] == pytest.approx(np.mean(precisions), abs=1e-6)
    prevalence = predictions.labels[:, list(LABELS)].mean()
    assert metrics["mean_prevalence"] == pytest.approx(prevalence, abs=1e-6)


@pytest.mark.usefixtures("plain_charts")
def test_thresholds_come_from_val(evaluated: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(evaluated, run)
    run_evaluate(EvaluateConfig(run=run, split="val", draws=5))
    val = read_predictions(run / "eval" / "val" / "predictions.parquet")
    expected = fit_thresholds(val.labels, val.probabilities)
    found = [_metrics(run)["per_label"][name]["threshold"] for name in CATEGORIES]
    assert [value is None for value in found] == np.isnan(expected).tolist()
    assert [value for value in found if value is not None] == pytest.approx(expected[~np.isnan(expected)], abs=1e-6)
    assert _metrics(run)["thresholds"]["is_own"] and _metrics(run)["thresholds"]["people"] == len(val)


@pytest.mark.usefixtures("plain_charts")
def test_damaged_thresholds_and_predictions_are_made_again(
    evaluated: Path, manifest: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "run"
    shutil.copytree(evaluated, run)
    thresholds, predictions = run / "eval" / "thresholds.json", run / "eval" / "test" / "predictions.parquet"
    whole = thresholds.read_bytes()
    key = json.loads(whole)["key"]
    for name, content in damage(whole.decode()):
        thresholds.write_bytes(content)
        kept = _read_kept_thresholds(thresholds, key, {}, CATEGORIES)
        if kept is not None:  # a threshold of another value, a part that is not read back, or one that may be null
            assert name.startswith(("manifest", "split", "is_own")) or re.search(
                r"thresholds\..*: (None|7.5)$", name
            ), name
            assert len(kept.best_f1) == len(CATEGORIES)
    thresholds.write_bytes(whole[:-20])
    table = predictions.read_bytes()
    for content in (b"", table[:-9], table[:4] + b"\xff" * (len(table) - 8) + table[-4:], b"PAR1"):
        predictions.write_bytes(content)
        assert read_kept_predictions(predictions, "key") is None
    record = run_evaluate(EvaluateConfig(run=run, draws=50))
    assert record.counts["people"] and thresholds.read_bytes() == whole
    assert (
        read_predictions(predictions).person_ids
        == read_predictions(evaluated / "eval/test/predictions.parquet").person_ids
    )
    unreadable = pq.read_table(predictions)
    for note in (b"key {", b"key [1]", b'key {"a": "b"}', b"\xff\xff {}", b"key"):
        pq.write_table(unreadable.replace_schema_metadata({**unreadable.schema.metadata, _KEY: note}), predictions)
        assert read_kept_predictions(predictions, "key") is None


def test_groups_part_the_people(evaluated: Path) -> None:
    metrics = _metrics(evaluated)
    predictions = read_predictions(evaluated / "eval" / "test" / "predictions.parquet")
    of = {(one["by"], one["group"]): one for one in metrics["subgroups"]}
    for kind in {by for by, _ in of}:
        assert sum(one["people"] for (by, _), one in of.items() if by == kind) == len(predictions)
    with_face = of["face", "with a face"]
    assert with_face["people"] == predictions.has_face.sum() == metrics["people"]["with_face"]
    k = LABELS[0]
    expected = average_precision_score(
        predictions.labels[predictions.has_face, k], predictions.probabilities[predictions.has_face, k]
    )
    assert with_face["average_precision"][CATEGORIES[k]] == pytest.approx(expected, abs=1e-6)
    assert of["people in the photo", "2"]["people"] == len(predictions)
    nobody = of["source", "ade20k"]
    assert nobody["people"] == 0 and nobody["mean_average_precision"] is None and nobody["interval"] == [None, None]


def test_streams_and_ratings_are_measured(evaluated: Path) -> None:
    metrics = _metrics(evaluated)
    predictions = read_predictions(evaluated / "eval" / "test" / "predictions.parquet")
    assert metrics["streams"]["face"]["people"] == predictions.has_face.sum() < len(predictions)
    assert metrics["streams"]["body"]["people"] == len(predictions)
    errors = np.abs(predictions.predicted_vad - predictions.vad)
    assert metrics["average_absolute_error"]["dominance"] == pytest.approx(np.nanmean(errors[:, 2]), abs=1e-5)
    assert metrics["average_absolute_error"]["people"]["dominance"] == len(predictions) // 2


def _table(run: Path, split: str) -> dict[str, dict[str, str]]:
    with (run / "eval" / split / "per_label.csv").open(encoding="utf-8", newline="") as stream:
        return {row["label"]: row for row in csv.DictReader(stream)}


@pytest.mark.usefixtures("plain_charts")
@pytest.mark.parametrize(
    ("split", "shown", "hidden"),
    [
        ("val", {"table 4-2: mter2": "46.53", "table 4-2: task2": "22.84"}, {"table 4-3: kosti"}),
        ("test", {"table 4-3: kosti": "27.85", "table 4-2: task2+task3": "30.42"}, {"table 4-2: mter2"}),
    ],
)
def test_published_results_stand_beside_the_same_people(
    evaluated: Path, tmp_path: Path, split: Any, shown: dict[str, str], hidden: set[str]
) -> None:
    run = tmp_path / split
    shutil.copytree(evaluated, run)
    run_evaluate(EvaluateConfig(run=run, split=split, draws=5))
    metrics, rows = _metrics(run, split), _table(run, split)
    assert metrics["data"]["split_method"] == "emotic" and metrics["data"]["n_evaluated"] == 12
    assert set(shown) <= set(metrics["published"]["shown"]) and not hidden & set(metrics["published"]["shown"])
    assert {name: rows["Affection"][name] for name in shown} == shown and not hidden & set(rows["Affection"])
    page = (run / "eval" / split / "evaluation.html").read_text(encoding="utf-8")
    assert ("37.45" in page) == (split == "val") and ("27.38" in page) == (split == "test")
    assert "12 of the " in page and "are missing" in page


@pytest.mark.usefixtures("plain_charts")
def test_stratified_split_has_no_published_results(manifest: Path, evaluated: Path, tmp_path: Path) -> None:
    card = json.loads(manifest.read_text(encoding="utf-8"))
    card["split"]["by"] = "stratified"
    other = manifest.with_name("stratified.json")
    other.write_text(json.dumps(card), encoding="utf-8")
    run = tmp_path / "run"
    shutil.copytree(evaluated, run)
    answer = CliRunner().invoke(main, ["evaluate", str(run), "--draws", "5", "--manifest", str(other)])
    assert "published results: none shown: the people are of a stratified split" in answer.output
    rows, metrics = _table(run, "test"), _metrics(run)
    page = (run / "eval" / "test" / "evaluation.html").read_text(encoding="utf-8")
    assert "None is shown: the people are of a stratified split" in page and "27.38" not in page
    assert list(rows) == [*CATEGORIES, "mean"]
    assert not any("table" in column for column in rows["mean"])
    assert metrics["published"]["shown"] == [] and "stratified split" in metrics["published"]["why_none"]
    assert metrics["data"]["split_method"] == "stratified" and metrics["data"]["n_people"] == 12
    assert rows["Anger"]["average_precision_percent"] == ""
    expected = 100 * _metrics(evaluated)["per_label"]["Affection"]["average_precision"]
    assert float(rows["Affection"]["average_precision_percent"]) == pytest.approx(expected, abs=0.006)


def test_every_metric_stands_beside_its_chance_level(manifest: Path, evaluated: Path) -> None:
    metrics = _metrics(evaluated)
    train = pd.read_parquet(manifest.parent / "train.parquet")
    chance = metrics["chance"]
    assert chance["train_people"] == len(train) and chance["mean_average_precision"] == metrics["mean_prevalence"]
    assert metrics["lift"] == pytest.approx(metrics["mean_average_precision"] - metrics["mean_prevalence"], abs=2e-6)
    assert chance["mean_vad_of_train"]["valence"] == pytest.approx(train["valence"].mean(), abs=1e-5)
    counts = np.stack(train["labels"]).sum(axis=0)
    for name in ("jaccard", "mean_f1", "micro_f1", "hamming_loss"):
        always = chance[name]["always"]
        assert set(always) <= {CATEGORIES[k] for k in LABELS} and 0 <= chance[name]["value"] <= 1
        frequencies = [counts[CATEGORIES.index(label)] for label in always]
        assert frequencies == sorted(frequencies, reverse=True)
    assert chance["mean_f1"]["always"] and len(chance["mean_f1"]["always"]) == len(LABELS)
    for name in ("root_mean_squared_error", "concordance_correlation"):
        assert metrics[name]["people"] == metrics["average_absolute_error"]["people"]
    assert metrics["root_mean_squared_error"]["valence"] >= metrics["average_absolute_error"]["valence"]
    assert abs(chance["concordance_correlation"]["valence"]) == 0
    assert metrics["break_even"]["jaccard"]["people"] > 0 and metrics["mean_roc_auc"] is not None
    label = metrics["per_label"][CATEGORIES[LABELS[0]]]
    assert label["lift"] == pytest.approx(label["average_precision"] - label["prevalence"], abs=2e-6)
    assert {"threshold", "predicted", "precision", "recall", "f1"} == set(label["break_even"])


@pytest.mark.usefixtures("plain_charts")
def test_people_who_are_alike_in_gender_and_age_are_a_group(tmp_path: Path) -> None:
    manifest = write_photos_and_tables(tmp_path, 12)
    path = manifest.parent / "test.parquet"
    table = pq.read_table(path)
    words = ["Male", "Female", None] * table.num_rows
    changed = {"gender": words[: table.num_rows], "age": ["Kid", *([None] * (table.num_rows - 1))]}
    for name, values in changed.items():
        table = table.set_column(table.schema.get_field_index(name), name, pa.array(values, pa.string()))
    pq.write_table(table, path)
    card = json.loads(manifest.read_text(encoding="utf-8"))
    card["splits"]["test"]["sha256"] = file_sha256(path)
    manifest.write_text(json.dumps(card), encoding="utf-8")
    run = write_finished_run(tmp_path / "task2", manifest, "task2")
    run_evaluate(EvaluateConfig(run=run, draws=5))
    of = {(one["by"], one["group"]): one["people"] for one in _metrics(run)["subgroups"]}
    n = table.num_rows
    assert [of["gender", word] for word in ("Male", "Female", "unknown")] == [-(-n // 3), -(-(n - 1) // 3), n // 3]
    assert [of["age", word] for word in ("Kid", "Teenager", "Adult", "unknown")] == [1, 0, 0, n - 1]


def test_single_annotators_leave_nobody_to_agree_with(evaluated: Path) -> None:
    annotators = _metrics(evaluated)["annotators"]
    assert annotators["people"] == 0 and annotators["jaccard"] is None
    assert annotators["reason"] == "12 people have one annotator, who has nobody to agree with"


@pytest.mark.usefixtures("plain_charts")
def test_a_dead_stream_and_rare_labels_are_said_everywhere(manifest: Path, tmp_path: Path) -> None:
    run = write_finished_run(tmp_path / "mter2", manifest)
    weights = read_weights(run / "best.safetensors")
    weights["stream.body.head.weight"].zero_()
    save_file(weights, run / "best.safetensors")
    notes = Watching()
    run_evaluate(EvaluateConfig(run=run, draws=5), notes)
    metrics = _metrics(run)
    outputs = metrics["outputs"]["streams"]
    assert outputs["body"] == {"is_same_for_everybody": True, "largest_range": 0.0, "mean_range": 0.0}
    assert not outputs["context"]["is_same_for_everybody"] and outputs["context"]["largest_range"] > 0.001
    dead = next(text for text in metrics["warnings"] if "stream" in text)
    assert "body" in dead and "the same for everybody" in dead
    rare = next(text for text in metrics["warnings"] if "fewer than 10 people" in text)
    assert "Anger (0)" in rare and metrics["rare_labels"]["Anger"] == 0
    page = (run / "eval" / "test" / "evaluation.html").read_text(encoding="utf-8")
    assert page.index("the same for everybody") < page.index('class="tiles"')
    assert any("the same for everybody" in note for note in notes.notes) and any(rare in note for note in notes.notes)


def test_a_dead_model_is_told_from_a_dead_stream() -> None:
    known = {"people": {"left_out": {}}, "rare_labels": {}}
    dead, alive = {"is_same_for_everybody": True}, {"is_same_for_everybody": False}
    streams = {"face": dead, "body": alive, "context": alive}
    assert list_warnings({**known, "outputs": {"fused": alive, "streams": streams}}) == [
        "the output of the face stream is the same for everybody: it does not look at its input"
    ]
    (said,) = list_warnings({**known, "outputs": {"fused": dead, "streams": {"body": alive}}})
    assert said.startswith("the output of the model is the same for everybody")
    assert list_warnings({**known, "outputs": {"fused": alive, "streams": {}}}) == []


@pytest.mark.usefixtures("plain_charts")
def test_page_says_what_the_training_started_from(manifest: Path, evaluated: Path, tmp_path: Path) -> None:
    assert _metrics(evaluated)["initial_weights"] is None
    page = (evaluated / "eval" / "test" / "evaluation.html").read_text(encoding="utf-8")
    assert "What the training started from is not known." in page
    run = write_finished_run(tmp_path / "task2+task3", manifest, "task2+task3")
    settings = json.loads((run / "run.json").read_text(encoding="utf-8"))
    settings |= {"pretrained": "auto", "started_from": [{"network": "body", "source": "public.pth", "sha256": "1f"}]}
    (run / "run.json").write_text(json.dumps(settings), encoding="utf-8")
    run_evaluate(EvaluateConfig(run=run, draws=5))
    assert _metrics(run)["initial_weights"] == {
        "pretrained": "auto",
        "streams": {"body": {"source": "public.pth", "sha256": "1f"}, "context": {"source": None, "sha256": None}},
    }
    page = (run / "eval" / "test" / "evaluation.html").read_text(encoding="utf-8")
    said = "The training started from pretrained weights: body from public.pth; randomly initialised: context."
    assert page.index(said) < page.index('class="tiles"')
    none = {"streams": {"body": {"source": None, "sha256": None}}}
    assert "randomly initialised weights, without pretrained ones: body" in describe_initial_weights(none)


def test_predictions_without_thresholds_are_measured_and_shown(manifest: Path, evaluated: Path, tmp_path: Path) -> None:
    predictions = read_predictions(evaluated / "eval" / "test" / "predictions.parquet")
    context = evaluation.EvaluationContext(
        model="another program",
        run="scores.npy",
        split="test",
        manifest=read_manifest(manifest),
        n_people=len(predictions),
        left_out={},
        trained_on=None,
        thresholds=None,
        bootstrap=Bootstrap(5),
    )
    metrics = evaluation.build_metrics(predictions, context)
    assert metrics["mean_average_precision"] == _metrics(evaluated)["mean_average_precision"]
    assert metrics["thresholds"] is None and metrics["mean_f1"] is None and metrics["jaccard"]["mean"] is None
    assert metrics["per_label"]["Affection"]["f1"] is None
    assert {path.name for path in evaluation.write_evaluation(tmp_path, metrics, predictions)} >= {"metrics.json"}
    page = (tmp_path / "evaluation.html").read_text(encoding="utf-8")
    assert "no thresholds were fitted" in page and 'id="thresholds"' not in page


def test_people_of_another_data_set_are_refused(manifest: Path) -> None:
    with pytest.raises(TableError, match=r"test\.parquet: 1 of 1 predicted people are not in it, such as nobody#0"):
        read_people_facts(read_manifest(manifest), "test", ["nobody#0"])
    facts = read_people_facts(read_manifest(manifest), "test", [])
    assert facts.annotator_votes.shape == (0, 26) and facts.gender.shape == (0,)


def test_page_is_whole_and_needs_nothing_else(evaluated: Path) -> None:
    page = (evaluated / "eval" / "test" / "evaluation.html").read_text(encoding="utf-8")
    assert "<script" not in page and not re.search(r"""(src|href)=["'](?!data:|#)""", page)
    mean = _metrics(evaluated)["mean_average_precision"]
    assert f"mter2 on test: mAP {100 * mean:.1f} %" in page
    assert page.count('class="undefined">undefined') >= len(CATEGORIES) - len(LABELS)
    assert page.count("data:image/svg+xml;base64,") == 2
    for name in ("average_precision", "precision_recall"):
        assert (evaluated / "eval" / "test" / f"{name}.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.usefixtures("plain_charts")
def test_current_evaluation_stays_as_it_is(evaluated: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = tmp_path / "run"
    shutil.copytree(evaluated, run)
    first = run_evaluate(EvaluateConfig(run=run, draws=50))  # another place, so the page is written anew
    before = _bytes(run)
    monkeypatch.setattr(evaluate_job, "build_metrics", _refuse)
    notes = Watching()
    assert run_evaluate(EvaluateConfig(run=run, draws=50), notes) == first
    assert _bytes(run) == before and "current; nothing to do" in notes.notes[0]


@pytest.mark.usefixtures("plain_charts")
def test_changed_style_writes_the_page_anew(evaluated: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = tmp_path / "run"
    shutil.copytree(evaluated, run)
    shutil.copytree(pages.TEMPLATES_DIR, tmp_path / "templates")
    monkeypatch.setattr(pages, "TEMPLATES_DIR", tmp_path / "templates")
    config = EvaluateConfig(run=run, draws=5)
    run_evaluate(config)
    style = tmp_path / "templates" / "results.css"
    style.write_text(style.read_text(encoding="utf-8") + "p { margin: 0; }", encoding="utf-8")
    notes = Watching()
    run_evaluate(config, notes)
    page = (run / "eval" / "test" / "evaluation.html").read_text(encoding="utf-8")
    assert "p { margin: 0; }" in page and not any("current" in note for note in notes.notes)


@pytest.mark.usefixtures("plain_charts")
def test_other_draws_do_not_run_the_network(evaluated: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = tmp_path / "run"
    shutil.copytree(evaluated, run)
    monkeypatch.setattr("emoface.mter.forward.forward_people", _refuse)
    run_evaluate(EvaluateConfig(run=run, draws=20))
    assert _metrics(run)["bootstrap"]["draws"] == 20
    assert _metrics(run)["mean_average_precision"] == _metrics(evaluated)["mean_average_precision"]


@pytest.mark.usefixtures("plain_charts")
def test_changed_weights_are_predicted_anew(manifest: Path, evaluated: Path, tmp_path: Path) -> None:
    run, other = tmp_path / "run", write_finished_run(tmp_path / "other", manifest, seed=5, predicts_vad=True)
    shutil.copytree(evaluated, run)
    shutil.copy(other / "best.safetensors", run / "best.safetensors")
    run_evaluate(EvaluateConfig(run=run, draws=5))
    ours, theirs = (read_predictions(path / "eval" / "test" / "predictions.parquet") for path in (run, evaluated))
    assert np.abs(ours.probabilities - theirs.probabilities).max() > 0.01


def test_broken_off_and_run_again_is_the_same(evaluated: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = tmp_path / "run"
    shutil.copytree(evaluated, run, ignore=shutil.ignore_patterns("eval"))
    config = EvaluateConfig(run=run, draws=10)
    with monkeypatch.context() as broken:
        broken.setattr(evaluation, "write_evaluation_page", _refuse)
        with pytest.raises(AssertionError):
            run_evaluate(config)
    assert not (run / "eval" / "test" / "records").exists()
    run_evaluate(config)
    once = _bytes(run)
    shutil.rmtree(run / "eval")
    run_evaluate(config)
    assert _bytes(run) == once


@pytest.mark.usefixtures("plain_charts")
def test_missing_photos_are_counted(tmp_path: Path) -> None:
    manifest = write_photos_and_tables(tmp_path, 12)
    run = write_finished_run(tmp_path / "task2", manifest, "task2")
    run_evaluate(EvaluateConfig(run=run, draws=5))
    assert _metrics(run)["people"]["left_out"]["image_missing"] == 0
    table = pd.read_parquet(manifest.parent / "test.parquet", columns=["image"])
    (tmp_path / "photos" / table["image"][0]).unlink()
    run_evaluate(EvaluateConfig(run=run, draws=5))
    people = _metrics(run)["people"]
    assert people["left_out"]["image_missing"] == 2 and people["evaluated"] == people["people"] - 2


@pytest.mark.usefixtures("plain_charts")
def test_face_alone_is_measured_on_people_with_a_face(manifest: Path, tmp_path: Path) -> None:
    run = write_finished_run(tmp_path / "task1", manifest, "task1")
    run_evaluate(EvaluateConfig(run=run, draws=5))
    people = _metrics(run)["people"]
    assert people["evaluated"] == people["with_face"] == people["people"] - people["left_out"]["no_face"]
    statuses = pd.read_parquet(manifest.parent / "test.parquet", columns=["face_status"])["face_status"]
    assert people["left_out"]["no_face"] == (statuses == "no_face").sum() > 0


@pytest.mark.usefixtures("plain_charts")
def test_people_of_the_training_are_pointed_out(evaluated: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(evaluated, run)
    run_evaluate(EvaluateConfig(run=run, split="train", draws=5))
    people = _metrics(run, "train")["people"]
    assert people["trained_on"] == people["evaluated"] > 0 and _metrics(run)["people"]["trained_on"] == 0
    page = (run / "eval" / "train" / "evaluation.html").read_text(encoding="utf-8")
    assert f"{people['trained_on']} of these people are among those" in page


@pytest.mark.usefixtures("plain_charts")
def test_changed_data_set_is_refused_unless_named(tmp_path: Path) -> None:
    manifest = write_photos_and_tables(tmp_path, 12)
    run = write_finished_run(tmp_path / "task2", manifest, "task2")
    manifest.write_text(manifest.read_text() + "\n")
    with pytest.raises(SettingsError, match=r"manifest\.json: sha256 is .*train again, or give .* --manifest"):
        run_evaluate(EvaluateConfig(run=run))
    notes = Watching()
    run_evaluate(EvaluateConfig(run=run, manifest=manifest, draws=5), notes)
    assert _metrics(run)["people"]["trained_on"] is None and not _metrics(run)["thresholds"]["is_own"]
    assert any("thresholds are fitted on val of" in note for note in notes.notes)


def test_errors_say_what_to_do(manifest: Path, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"split is 'tset'; did you mean 'test'\?"):
        EvaluateConfig(run=tmp_path, split="tset")
    with pytest.raises(SettingsError, match="draws is 0, expected 1 or more"):
        EvaluateConfig(run=tmp_path, draws=0)
    unfinished = write_finished_run(tmp_path / "unfinished", manifest, "task2", finished=False)
    with pytest.raises(SettingsError, match="unfinished after 2 epochs; go on with"):
        run_evaluate(EvaluateConfig(run=unfinished))
    with pytest.raises(TableError, match=r"predictions\.parquet: no such file"):
        read_predictions(tmp_path / "predictions.parquet")


def test_command(evaluated: Path, tmp_path: Path) -> None:
    answer = CliRunner().invoke(main, ["evaluate", str(evaluated), "--draws", "50"])
    assert answer.exit_code == 0, answer.output
    assert "mean average precision: 0." in answer.stdout and "evaluation.html" in answer.stdout
    answer = CliRunner().invoke(main, ["evaluate", str(tmp_path / "nowhere")])
    assert answer.exit_code == 1 and "is not a training run" in answer.stderr


@pytest.mark.usefixtures("plain_charts")
def test_a_result_under_a_protocol_is_stamped_or_not_written(manifest: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    shutil.copytree(manifest.parent, data, ignore=shutil.ignore_patterns("stream_cache"))
    run_split(SplitConfig(dir=data))
    run = write_finished_run(tmp_path / "task2", data / "manifest.json", "task2")
    page = run / "eval" / "test" / "evaluation.html"
    with pytest.raises(ProtocolError, match=r"split by stratified\); and that test has all of EMOTIC's people"):
        run_evaluate(EvaluateConfig(run=run, draws=5, protocol="emotic-test"))
    assert not page.parent.exists()

    run_evaluate(EvaluateConfig(run=run, draws=5))
    assert _metrics(run)["protocol"] is None and "No protocol was checked" in page.read_text(encoding="utf-8")
    result = CliRunner().invoke(main, ["evaluate", str(run), "--draws", "5", "--protocol", "stratified-test"])
    assert result.exit_code == 0, result.output
    stamp = _metrics(run)["protocol"]
    assert stamp["name"] == "stratified-test" and len(stamp["rules"]) == 10
    assert "Protocol stratified-test" in page.read_text(encoding="utf-8")


def test_a_model_that_cannot_use_everybody_breaks_a_protocol_before_results_are_written(
    manifest: Path, tmp_path: Path
) -> None:
    data = tmp_path / "data"
    shutil.copytree(manifest.parent, data, ignore=shutil.ignore_patterns("stream_cache"))
    run_split(SplitConfig(dir=data))
    run = write_finished_run(tmp_path / "task1", data / "manifest.json", "task1")
    with pytest.raises(
        ProtocolError, match=r"everybody of the split is evaluated \(\d+ people evaluated, \d+ left out"
    ):
        run_evaluate(EvaluateConfig(run=run, draws=5, protocol="stratified-test"))
    assert not (run / "eval" / "test" / "metrics.json").exists()
