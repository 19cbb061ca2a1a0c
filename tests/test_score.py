"""The score job: the numbers of ``evaluate`` for our own predictions, and a stand-in of another program's script."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import scipy.io
import torch
from click.testing import CliRunner
from mter_data import LABELS, write_photos_and_tables
from plain_charts import without_drawing
from run_data import write_finished_run
from sklearn.metrics import average_precision_score
from watching import Watching

from emoface.cli import main
from emoface.datasets.prediction_export import WRITERS
from emoface.datasets.predictions import find_predictions, find_scored, read_predictions
from emoface.errors import PredictionsError, ProtocolError, SettingsError
from emoface.jobs.compare import CompareConfig, run_compare
from emoface.jobs.evaluate import EvaluateConfig, run_evaluate
from emoface.jobs.export_predictions import ExportPredictionsConfig, run_export_predictions
from emoface.jobs.score import ScoreConfig, run_score
from emoface.jobs.split import SplitConfig, run_split
from emoface.schema import CATEGORIES
from emoface.storage.records import read_record

DRAWS = 20
DIFFERS = {"model", "run", "weights_sha256", "predictions_sha256", "initial_weights", "streams", "outputs", "warnings"}
"""Keys of metrics.json that a file of predictions cannot have as the run has them."""


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.set_num_threads(1)
    return write_photos_and_tables(tmp_path_factory.mktemp("data"), 24)


@pytest.fixture(scope="module")
def run(manifest: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that was evaluated on val and test, to be read only."""
    path = write_finished_run(tmp_path_factory.mktemp("runs") / "mter2", manifest, predicts_vad=True)
    with without_drawing():
        for split in ("val", "test"):
            run_evaluate(EvaluateConfig(run=path, split=split, draws=DRAWS))
    return path


def _table(manifest: Path, split: str) -> pd.DataFrame:
    return pd.read_parquet(manifest.parent / f"{split}.parquet")


def _truth(manifest: Path, split: str = "test") -> np.ndarray:
    return np.stack(_table(manifest, split)["labels"].tolist())


def _metrics(folder: Path) -> dict[str, Any]:
    metrics: dict[str, Any] = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
    return metrics


def write_as_tandon(folder: Path, split: str, labels: np.ndarray, vad: np.ndarray, seed: int) -> np.ndarray:
    """Writes the four files of Tandon-A/emotic's test.py: labels in rows, people in columns, ratings of 1 to 10.

    Returns:
        (n, 26) the scores, which are logits.
    """
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=labels.shape) + labels
    arrays = {"cat_preds": logits, "cat_labels": labels, "cont_preds": np.full(vad.shape, 5.0), "cont_labels": vad}
    for name, values in arrays.items():
        scipy.io.savemat(folder / f"{split}_{name}.mat", {name: values.transpose()})
    return logits


@pytest.fixture(scope="module")
def tandon(manifest: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The results folder of the stand-in, in EMOTIC's order of people."""
    folder = tmp_path_factory.mktemp("results")
    people = pd.read_parquet(manifest.parent / "people.parquet")
    for number, split in enumerate(("val", "test")):
        rows = people[people["source_split"] == split]
        vad = rows[["valence", "arousal", "dominance"]].to_numpy(float)
        write_as_tandon(folder, split, np.stack(rows["labels"].tolist()), vad, number)
    return folder


def test_stand_in_of_tandons_script(manifest: Path, tandon: Path) -> None:
    config = ScoreConfig(
        file=tandon / "test_cat_preds.mat",
        manifest=manifest,
        order="emotic",
        truth=tandon / "test_cat_labels.mat",
        vad=tandon / "test_cont_preds.mat",
        val=tandon / "val_cat_preds.mat",
        name="tandon",
        draws=DRAWS,
    )
    record = run_score(config)
    metrics, truth = _metrics(tandon / "test_cat_preds"), _truth(manifest)
    scores = scipy.io.loadmat(tandon / "test_cat_preds.mat")["cat_preds"].T
    expected = [average_precision_score(truth[:, k], scores[:, k]) for k in LABELS]
    found = [metrics["per_label"][CATEGORIES[k]]["average_precision"] for k in LABELS]
    assert found == pytest.approx(expected, abs=1e-6)
    assert metrics["mean_average_precision"] == pytest.approx(np.mean(expected), abs=1e-6)
    assert metrics["model"] == "tandon" and metrics["run"] == str(tandon / "test_cat_preds.mat")
    errors = np.abs(5 - _table(manifest, "test")[["valence", "arousal", "dominance"]].to_numpy(float))
    assert metrics["average_absolute_error"]["valence"] == pytest.approx(errors[:, 0].mean(), abs=1e-5)
    assert metrics["average_absolute_error"]["dominance"] == pytest.approx(np.nanmean(errors[:, 2]), abs=1e-5)
    assert metrics["thresholds"]["people"] == len(_table(manifest, "val")) and metrics["mean_f1"] > 0
    assert metrics["people"] == {
        **{"people": len(truth), "evaluated": len(truth), "left_out": {"no_prediction": 0}, "trained_on": None},
        "with_face": int((_table(manifest, "test")["face_status"] == "found").sum()),
    }
    page = (tandon / "test_cat_preds" / "evaluation.html").read_text(encoding="utf-8")
    assert "tandon on test: mAP" in page and "predictions of another program" in page
    assert record.counts["mean_average_precision"] == metrics["mean_average_precision"]
    assert set(record.outputs) >= {"metrics.json", "predictions.parquet", "per_label.csv", "evaluation.html"}
    notes = Watching()
    assert run_score(config, notes) == record and "current; nothing to do" in notes.notes[0]


@pytest.mark.usefixtures("plain_charts")
@pytest.mark.parametrize("suffix", WRITERS)
def test_export_and_score_give_the_metrics_of_evaluate(suffix: str, manifest: Path, run: Path, tmp_path: Path) -> None:
    for split in ("val", "test"):
        run_export_predictions(ExportPredictionsConfig(run=run, split=split, out=tmp_path / f"{split}{suffix}"))
    lists = {}
    if suffix == ".npy":
        lists = {"people": tmp_path / "test.people.csv", "val_people": tmp_path / "val.people.csv"}
    files = {"file": tmp_path / f"test{suffix}", "val": tmp_path / f"val{suffix}"}
    run_score(ScoreConfig(**files, **lists, manifest=manifest, draws=DRAWS))
    ours, theirs = _metrics(run / "eval" / "test"), _metrics(tmp_path / "test")
    if suffix == ".npy":  # it holds no ratings
        of_ratings = {"average_absolute_error", "root_mean_squared_error", "concordance_correlation"}
        assert all(theirs.pop(name) is None and ours.pop(name) is not None for name in of_ratings)
    for name, value in (("trained_on", None), ("left_out", {"no_prediction": 0})):
        assert theirs["people"].pop(name) == value
        del ours["people"][name]
    assert ours.keys() == theirs.keys()
    assert {name: value for name, value in ours.items() if name not in DIFFERS} == {
        name: value for name, value in theirs.items() if name not in DIFFERS
    }
    assert ours["outputs"]["fused"] == theirs["outputs"]["fused"]


@pytest.mark.usefixtures("plain_charts")
def test_own_predictions_table_can_be_scored(manifest: Path, run: Path, tmp_path: Path) -> None:
    path = run / "eval" / "test" / "predictions.parquet"
    run_score(ScoreConfig(file=path, manifest=manifest, out=tmp_path / "out", draws=DRAWS))
    ours, theirs = _metrics(run / "eval" / "test"), _metrics(tmp_path / "out")
    for name in ("mean_average_precision", "interval", "average_absolute_error", "subgroups"):
        assert ours[name] == theirs[name]


@pytest.mark.usefixtures("plain_charts")
def test_without_val_there_are_no_metrics_at_thresholds(manifest: Path, tandon: Path, tmp_path: Path) -> None:
    config = ScoreConfig(
        file=tandon / "test_cat_preds.mat", manifest=manifest, order="emotic", out=tmp_path / "out", draws=DRAWS
    )
    notes = Watching()
    assert run_score(config, notes).counts["mean_f1"] == "undefined"
    metrics = _metrics(tmp_path / "out")
    assert metrics["thresholds"] is None and metrics["mean_f1"] is None and metrics["jaccard"]["mean"] is None
    assert metrics["per_label"][CATEGORIES[LABELS[0]]]["threshold"] is None
    assert any("no predictions of val are given" in note for note in notes.notes)
    assert "no predictions of val" in (tmp_path / "out" / "evaluation.html").read_text(encoding="utf-8")
    run_score(
        ScoreConfig(file=tandon / "val_cat_preds.mat", manifest=manifest, split="val", order="emotic", draws=DRAWS)
    )
    assert _metrics(tandon / "val_cat_preds")["mean_f1"] > 0  # val itself is what thresholds are fitted on


@pytest.mark.usefixtures("plain_charts")
def test_missing_people(manifest: Path, tmp_path: Path) -> None:
    table = _table(manifest, "test")
    scores = np.random.default_rng(0).random((len(table), 26))
    rows = pd.DataFrame(scores, columns=CATEGORIES).assign(person_id=table["person_id"])
    rows.loc[3, list(CATEGORIES)] = np.nan
    rows.drop(index=[7]).to_csv(tmp_path / "mine.csv", index=False)
    config = ScoreConfig(file=tmp_path / "mine.csv", manifest=manifest, draws=DRAWS)
    first = table["person_id"][3]
    with pytest.raises(PredictionsError, match=f"2 of 12 people of test have no prediction, the first is {first}"):
        run_score(config)
    assert not (tmp_path / "mine").exists()
    notes = Watching()
    run_score(config.replace(allow_missing=True), notes)
    metrics, kept = _metrics(tmp_path / "mine"), np.delete(np.arange(12), [3, 7])
    assert metrics["people"]["evaluated"] == 10 and metrics["people"]["left_out"] == {"no_prediction": 2}
    expected = [average_precision_score(_truth(manifest)[kept, k], scores[kept, k]) for k in LABELS]
    assert metrics["mean_average_precision"] == pytest.approx(np.mean(expected), abs=1e-6)
    assert "2 of 12 people have no prediction: these metrics are those of the other 10" in metrics["warnings"][0]
    assert any("2 of 12 people have no prediction" in note for note in notes.notes)
    assert "2 of 12 people have no prediction" in (tmp_path / "mine" / "evaluation.html").read_text(encoding="utf-8")
    rows.iloc[:0].to_csv(tmp_path / "none.csv", index=False)
    with pytest.raises(PredictionsError, match="nobody of test has a prediction"):
        run_score(config.replace(file=tmp_path / "none.csv", allow_missing=True))


@pytest.mark.usefixtures("plain_charts")
def test_what_looks_wrong_is_noted(manifest: Path, tmp_path: Path) -> None:
    scores = np.random.default_rng(0).random((12, 26))
    scores[-2:] = 0
    scores[0, 1], scores[1, 1] = 0.5, 0.5 + 1e-12
    np.savez(tmp_path / "a.npz", preds=scores, index=_table(manifest, "test")["index"], features=np.ones((12, 4)))
    notes = Watching()
    run_score(ScoreConfig(file=tmp_path / "a.npz", manifest=manifest, draws=DRAWS), notes)
    assert any("not used: features" in note for note in notes.notes)
    assert any("the scores of 2 rows are 0 throughout" in note for note in notes.notes)
    assert any("1 scores differ from others only beyond float32" in note for note in notes.notes), notes.notes


@pytest.mark.usefixtures("plain_charts")
def test_files_that_do_not_fit_together(manifest: Path, tandon: Path, tmp_path: Path) -> None:
    config = ScoreConfig(file=tandon / "test_cat_preds.mat", manifest=manifest, order="emotic", draws=DRAWS)
    out = config.replace(out=tmp_path / "out")
    with pytest.raises(PredictionsError, match=r"val_cat_labels\.mat: \d+ of 12 people have other true labels"):
        run_score(out.replace(truth=tandon / "val_cat_labels.mat"))
    scipy.io.savemat(tmp_path / "vad.mat", {"cont_preds": np.full((3, 12), 0.5)})
    with pytest.raises(PredictionsError, match=r"expected EMOTIC's 1 to 10; give --vad-factor 10"):
        run_score(out.replace(vad=tmp_path / "vad.mat"))
    run_score(out.replace(vad=tmp_path / "vad.mat", vad_factor=10))
    assert _metrics(tmp_path / "out")["average_absolute_error"]["arousal"] == 0  # everybody's is 5
    scipy.io.savemat(tmp_path / "vad.mat", {"cont_preds": np.full((3, 11), 5.0)})
    with pytest.raises(PredictionsError, match=r"vad\.mat: 11 people, expected the 12 of"):
        run_score(out.replace(vad=tmp_path / "vad.mat"))
    with pytest.raises(SettingsError, match="val is set, but the split is val itself"):
        config.replace(split="val", val=tandon / "val_cat_preds.mat")
    with pytest.raises(SettingsError, match="val_people is set, but val is not"):
        config.replace(val_people=tandon / "x.csv")
    with pytest.raises(PredictionsError, match="does not name its people; give one of --people FILE"):
        run_score(config.replace(order=None))


def test_scores_stand_beside_runs(manifest: Path, run: Path, tandon: Path, tmp_path: Path) -> None:
    shutil.copytree(run, tmp_path / "mter2")
    scored = tmp_path / "tandon"
    run_score(
        ScoreConfig(file=tandon / "test_cat_preds.mat", manifest=manifest, order="emotic", out=scored, draws=DRAWS)
    )
    assert find_scored(tmp_path / "mter2") is None
    run_compare(CompareConfig(runs=(tmp_path / "mter2", scored), draws=DRAWS))
    comparison = json.loads((tmp_path / "comparison" / "comparison.json").read_text(encoding="utf-8"))
    described = comparison["runs"]["tandon"]
    assert described["is_scored"] and not comparison["runs"]["mter2"]["is_scored"]
    assert all(described[name] is None for name in ("epochs", "best_val_map", "n_parameters", "n_macs", "seconds"))
    assert described["mean_average_precision"] == _metrics(scored)["mean_average_precision"]
    (pair,) = comparison["differences"]
    assert pair["people"] == 12 and pair["difference"] == pytest.approx(
        described["mean_average_precision"] - comparison["runs"]["mter2"]["mean_average_precision"], abs=2e-6
    )
    page = (tmp_path / "comparison" / "comparison.html").read_text(encoding="utf-8")
    assert "scored predictions" in page and page.count("data:image/svg+xml;base64,") == 2
    record = read_record(tmp_path / "comparison", "compare")
    assert record is not None and str(scored / "predictions.parquet") in record.inputs

    shutil.copytree(scored, tmp_path / "again")
    run_compare(CompareConfig(runs=(scored, tmp_path / "again"), draws=DRAWS, out=tmp_path / "scores"))
    page = (tmp_path / "scores" / "comparison.html").read_text(encoding="utf-8")
    assert not re.search('id="training"', page) and page.count("data:image/svg+xml;base64,") == 1
    notes = Watching()
    run_compare(CompareConfig(runs=(tmp_path / "mter2", scored), split="val", draws=DRAWS), notes)
    assert any("tandon: not evaluated on val; 'emoface score' adds" in note for note in notes.notes)


@pytest.mark.usefixtures("plain_charts")
def test_scored_predictions_can_be_exported(manifest: Path, tandon: Path, tmp_path: Path) -> None:
    scored = tmp_path / "scored"
    run_score(
        ScoreConfig(file=tandon / "test_cat_preds.mat", manifest=manifest, order="emotic", out=scored, draws=DRAWS)
    )
    run_export_predictions(ExportPredictionsConfig(run=scored, out=tmp_path / "a.npy"))
    stored = read_predictions(find_predictions(scored, "test"))
    assert np.load(tmp_path / "a.npy").tolist() == stored.probabilities.tolist()
    with pytest.raises(PredictionsError, match="predictions of test, expected val; give --split test"):
        find_predictions(scored, "val")
    with pytest.raises(PredictionsError, match=r"no such file; write it with 'emoface evaluate .* --split val'"):
        find_predictions(tmp_path, "val")
    with pytest.raises(SettingsError, match=r"a\.xlsx: expected a name that ends in one of \.npy"):
        ExportPredictionsConfig(run=scored, out=tmp_path / "a.xlsx")


def test_commands(manifest: Path, run: Path, tmp_path: Path) -> None:
    runner = CliRunner()
    answer = runner.invoke(main, ["export-predictions", str(run), "--out", str(tmp_path / "mine.json")])
    assert answer.exit_code == 0 and "people: 12" in answer.stdout, answer.output
    words = ["score", str(tmp_path / "mine.json"), "--manifest", str(manifest), "--draws", "5", "--name", "mine"]
    answer = runner.invoke(main, words)
    assert answer.exit_code == 0, answer.output
    assert f"evaluation: {tmp_path / 'mine' / 'evaluation.html'}" in answer.stdout
    answer = runner.invoke(main, ["score", str(tmp_path / "none.npy"), "--manifest", str(manifest)])
    assert answer.exit_code == 1 and "none.npy: no such file" in answer.stderr


@pytest.mark.usefixtures("plain_charts")
def test_a_protocol_takes_the_users_word_and_says_so(manifest: Path, run: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    shutil.copytree(manifest.parent, data, ignore=shutil.ignore_patterns("stream_cache"))
    run_split(SplitConfig(dir=data))
    truth = pd.read_parquet(data / "test.parquet")
    file = tmp_path / "scores.csv"
    scores = pd.DataFrame(np.random.default_rng(0).random((len(truth), len(CATEGORIES))), columns=list(CATEGORIES))
    scores.insert(0, "person_id", truth["person_id"])
    scores.to_csv(file, index=False)
    config = ScoreConfig(file=file, manifest=data / "manifest.json", protocol="stratified-test", draws=DRAWS)
    with pytest.raises(ProtocolError, match=r"chosen on unknown people.*unknown training.*unknown who"):
        run_score(config)
    assert not config.folder.exists()
    with pytest.raises(ProtocolError, match=r"requires that the epoch is chosen on val \(chosen on test, as its user"):
        run_score(config.replace(trained_on="train", epoch_chosen_on="test"))
    run_score(config.replace(trained_on="train", epoch_chosen_on="val"))
    stamp = _metrics(config.folder)["protocol"]
    found = [one["found"] for one in stamp["rules"]]
    assert "chosen on val, as its user states" in found and "no thresholds" in found
    page = (config.folder / "evaluation.html").read_text(encoding="utf-8")
    assert "how it was trained and selected is what its user states" in page
