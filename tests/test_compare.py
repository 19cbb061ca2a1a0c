"""The compare job: curves, precision per label, and differences whose value is known."""

from __future__ import annotations

import csv
import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from mter_data import LABELS, write_photos_and_tables
from plain_charts import without_drawing
from run_data import SIZES, write_finished_run

from emoface.cli import main
from emoface.datasets.predictions import Predictions, predictions_path, read_predictions, write_predictions
from emoface.errors import SettingsError, TableError
from emoface.jobs.compare import (
    CompareConfig,
    compare_pair,
    describe_difference,
    rank_runs,
    run_compare,
    short_names,
)
from emoface.jobs.evaluate import EvaluateConfig, run_evaluate
from emoface.metrics.evaluation import Bootstrap, measure_precision
from emoface.mter import build_model
from emoface.mter.cost import Latency, measure_cost, measure_latencies
from emoface.mter.runs import read_run
from emoface.pipeline.stages import CURRENT, JOBS, STALE, Stage, check_stage
from emoface.reporting import pages
from emoface.reporting.charts import write_training_curves
from emoface.schema import CATEGORIES


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two evaluated runs and one that nobody evaluated, with their comparison; to be read only."""
    torch.set_num_threads(1)
    root = tmp_path_factory.mktemp("compare")
    manifest = write_photos_and_tables(root, 24)
    for number, (name, model) in enumerate((("a", "task2"), ("b", "task2"), ("c", "task3"))):
        run = write_finished_run(root / name, manifest, model, seed=number, finished=name != "c")
        if name != "c":
            with without_drawing():
                run_evaluate(EvaluateConfig(run=run, draws=5))
    run_compare(CompareConfig(runs=(root / "a", root / "b", root / "c"), draws=40))
    return root


def _comparison(root: Path) -> dict[str, Any]:
    comparison: dict[str, Any] = json.loads((root / "comparison" / "comparison.json").read_text(encoding="utf-8"))
    return comparison


def test_runs_are_described(runs: Path) -> None:
    compared = _comparison(runs)["runs"]
    assert list(compared) == ["a", "b", "c"]
    metrics = json.loads((runs / "a" / "eval" / "test" / "metrics.json").read_text(encoding="utf-8"))
    assert compared["a"]["mean_average_precision"] == metrics["mean_average_precision"]
    assert compared["a"]["people"] == metrics["people"]["evaluated"]
    assert (compared["b"]["best_epoch"], compared["b"]["best_val_map"], compared["b"]["seconds"]) == (2, 0.26, 4.0)
    full, cost = measure_cost(build_model("task2")), measure_cost(build_model("task2"), SIZES)
    assert (compared["a"]["n_parameters"], compared["a"]["n_macs"]) == (cost.n_parameters, cost.n_macs)
    assert cost.n_parameters == full.n_parameters and cost.n_macs < full.n_macs / 10
    assert compared["c"]["mean_average_precision"] is None and not compared["c"]["is_finished"]


def test_rows_are_ordered_by_map_and_ranks_are_of_the_same_people(runs: Path) -> None:
    compared = _comparison(runs)["runs"]
    values = {name: run["mean_average_precision"] for name, run in compared.items()}
    best, worst = sorted("ab", key=lambda name: -values[name])  # equal ones keep their order
    expected = {best: 1, worst: 1 if values["a"] == values["b"] else 2, "c": None}
    assert {name: run["rank"] for name, run in compared.items()} == expected
    with (runs / "comparison" / "runs.csv").open(encoding="utf-8", newline="") as stream:
        rows = [(row["run"], row["rank"]) for row in csv.DictReader(stream)]
    assert rows == [(best, "1"), (worst, str(expected[worst])), ("c", "")]
    page = (runs / "comparison" / "comparison.html").read_text(encoding="utf-8")
    places = [page.index(f'class="run">{name} ') for name in (best, worst, "c")]
    assert places == sorted(places) and "without a rank" not in page and "Latency was not measured" in page


def _ranks(**given: Predictions) -> dict[str, int | None]:
    metrics = {
        name: measure_precision(one.labels, one.probabilities, one.photo, Bootstrap(2, 0))
        for name, one in given.items()
    }
    return rank_runs(metrics, given)


def test_ranks_are_among_the_people_whom_most_runs_share() -> None:
    truth = [1, 0, 1]
    good, bad = _one_label(truth, [0.9, 0.1, 0.8]), _one_label(truth, [0.1, 0.9, 0.2])
    turned, others = good.take(np.array([2, 0, 1])), _one_label(truth, [0.9, 0.1, 0.8], first=1)
    assert _ranks(a=others, b=bad, c=good, d=turned) == {"a": None, "b": 3, "c": 1, "d": 1}
    assert _ranks(a=others, b=bad) == {"a": None, "b": None}
    assert _ranks() == {}


def test_run_on_other_people_has_no_rank_and_latency_is_measured_where_a_network_can_be_built(
    runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("a", "b"):
        shutil.copytree(runs / name, tmp_path / name)
    shutil.copytree(runs / "a", tmp_path / "fewer")
    path = predictions_path(tmp_path / "fewer", "test")
    write_predictions(path, read_predictions(path).take(np.arange(5)), key="", left_out={})
    sizes: list[Any] = []

    def measured(models: list[Any], **settings: Any) -> tuple[Latency, ...]:
        sizes.extend(settings["sizes"])
        return measure_latencies(models, **settings)

    monkeypatch.setattr("emoface.mter.cost.measure_latencies", measured)
    monkeypatch.setattr("emoface.jobs.compare._LATENCY_RUNS", 2)
    with without_drawing():
        run_compare(CompareConfig(runs=(tmp_path / "fewer", tmp_path / "a", tmp_path / "b"), draws=5, latency="cpu"))
    comparison = _comparison(tmp_path)
    compared = comparison["runs"]
    assert compared["fewer"]["rank"] is None and {compared[name]["rank"] for name in "ab"} <= {1, 2}
    assert comparison["latency"] == {"device": "cpu", "threads": torch.get_num_threads(), "batch_size": 1, "runs": 2}
    assert sizes == [read_run(tmp_path / "a").stream_sizes] * 3 and sizes[0]["body"] == SIZES["body"]
    assert all(run["latency_ms"] > 0 for run in compared.values())
    page = (tmp_path / "comparison" / "comparison.html").read_text(encoding="utf-8")
    n_people = compared["a"]["people"]
    assert f"evaluated on the same {n_people} people. Evaluated on other people, and therefore without a rank:" in page
    assert "fewer (5)" in page and "Latency is the median of 2 passes of one person on cpu" in page


def test_difference_is_that_of_the_two_values(runs: Path) -> None:
    comparison = _comparison(runs)
    (pair,) = comparison["differences"]
    first, second = (comparison["runs"][name]["mean_average_precision"] for name in ("a", "b"))
    assert (pair["first"], pair["second"]) == ("a", "b")
    assert pair["difference"] == pytest.approx(second - first, abs=2e-6)
    assert pair["interval"][0] <= pair["interval"][1] and pair["people"] == comparison["runs"]["a"]["people"]


def test_tables_and_page(runs: Path) -> None:
    out = runs / "comparison"
    with (out / "runs.csv").open(encoding="utf-8", newline="") as stream:
        rows = {row["run"]: row for row in csv.DictReader(stream)}
    assert rows["c"]["mean_average_precision"] == "" and rows["c"]["n_parameters"] != ""
    with (out / "per_label.csv").open(encoding="utf-8", newline="") as stream:
        by_label = {row["label"]: row for row in csv.DictReader(stream)}
    assert list(by_label) == list(CATEGORIES) and set(by_label["Anger"]) == {"label", "a", "b", "a lift", "b lift"}
    assert by_label["Anger"]["a"] == "" and float(by_label[CATEGORIES[LABELS[0]]]["a"]) > 0
    page = (out / "comparison.html").read_text(encoding="utf-8")
    assert "<script" not in page and not re.search(r"""(src|href)=["'](?!data:)""", page)
    assert "no difference shown" in page and "% of" not in page and "Resamples above" not in page
    assert page.count("data:image/svg+xml;base64,") == 2 and "not evaluated" in page and "unfinished" in page


def test_curves_show_the_loss_of_the_answer_alone(tmp_path: Path, runs: Path) -> None:
    # Legends name the runs; the axis of a loss of 4 to 8 never comes near the streams' 99.
    svg = (runs / "comparison" / "training.svg").read_text(encoding="utf-8")
    texts = re.findall(r">([^<>\n]+)</text>", svg)
    assert {"a", "b", "c", "loss on train", "loss on val", "mAP on val", "epoch"} <= set(texts)
    assert max(float(text) for text in texts if re.fullmatch(r"\d+(\.\d+)?", text)) < 20
    write_training_curves(tmp_path / "empty", "nothing", {"loss": {"a": ([], [])}}, "round")
    assert (tmp_path / "empty.svg").is_file()


def _predictions(labels: np.ndarray, probabilities: np.ndarray, first: int = 0) -> Predictions:
    n = len(labels)
    return Predictions(
        index=np.arange(first, first + n),
        person_ids=[f"x#{first + k}" for k in range(n)],
        images=["x"] * n,
        sources=np.full(n, "framesdb", object),
        people_in_photo=np.full(n, n),
        has_face=np.ones(n, bool),
        labels=labels,
        probabilities=probabilities,
        stream_probabilities={},
        vad=np.full((n, 3), np.nan, np.float32),
        predicted_vad=np.full((n, 3), np.nan, np.float32),
    )


def _one_label(column: list[int], scores: list[float], first: int = 0) -> Predictions:
    labels, probabilities = np.zeros((len(column), 26), np.uint8), np.zeros((len(column), 26), np.float32)
    labels[:, 3], probabilities[:, 3] = column, scores
    return _predictions(labels, probabilities, first)


def test_same_answers_differ_by_nothing_in_every_draw(tmp_path: Path) -> None:
    config = CompareConfig(runs=(tmp_path / "a", tmp_path / "b"), draws=30)
    one = _one_label([1, 0, 1, 0, 0], [0.9, 0.8, 0.7, 0.2, 0.1])
    pair = compare_pair(config, "a", "b", one, one)
    assert pair is not None and (pair["difference"], pair["interval"], pair["share_above_zero"]) == (0, [0, 0], 0)


def test_better_answers_by_hand(tmp_path: Path) -> None:
    config = CompareConfig(runs=(tmp_path / "a", tmp_path / "b"), draws=200)
    truth = [1, 1, 1, 1, 0, 0, 0, 0]
    worse = _one_label(truth, [0.1, 0.1, 0.1, 0.1, 0.9, 0.9, 0.9, 0.9])  # all wrong first: AP 4/8
    better = _one_label(truth, [0.9, 0.9, 0.9, 0.9, 0.1, 0.1, 0.1, 0.1])  # AP 1
    pair = compare_pair(config, "a", "b", worse, better)
    assert pair is not None and pair["difference"] == 0.5 and pair["share_above_zero"] > 0.98
    assert describe_difference({**pair, "verdict": "first is better"}).startswith("a is better (+50.0, interval ")


def test_only_common_people_count_whatever_their_order(tmp_path: Path) -> None:
    config = CompareConfig(runs=(tmp_path / "a", tmp_path / "b"), draws=5)
    one = _one_label([1, 0, 1], [0.9, 0.8, 0.7])
    turned = one.take(np.array([2, 1, 0]))
    pair = compare_pair(config, "a", "b", one, turned)
    assert pair is not None and pair["difference"] == 0 and pair["people"] == 3
    pair = compare_pair(config, "a", "b", one, _one_label([0, 1, 1], [0.8, 0.7, 0.6], first=1))
    assert pair is not None and pair["people"] == 2
    assert compare_pair(config, "a", "b", one, _one_label([1], [0.5], first=9)) is None


def test_other_labels_are_refused(tmp_path: Path) -> None:
    config = CompareConfig(runs=(tmp_path / "a", tmp_path / "b"), draws=5)
    with pytest.raises(TableError, match="x#1 has other labels in a than in b; expected the same data set"):
        compare_pair(config, "a", "b", _one_label([1, 0], [0.5, 0.5]), _one_label([1, 1], [0.5, 0.5]))


def test_names_and_errors(tmp_path: Path) -> None:
    assert short_names([Path("x/mter2"), Path("y/mter2")]) == ["x/mter2", "y/mter2"]
    with pytest.raises(SettingsError, match="the same run twice"):
        short_names([Path("a"), Path("b/../a")])
    with pytest.raises(SettingsError, match="runs are 1, expected two or more"):
        CompareConfig(runs=(tmp_path,))
    answer = CliRunner().invoke(main, ["compare", str(tmp_path / "a"), str(tmp_path / "b")])
    assert answer.exit_code == 1 and "is not a training run" in answer.stderr


@pytest.mark.usefixtures("plain_charts")
def test_changed_style_or_later_evaluation_makes_stale(
    runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(pages.TEMPLATES_DIR, tmp_path / "templates")
    monkeypatch.setattr(pages, "TEMPLATES_DIR", tmp_path / "templates")
    shutil.copytree(runs / "a", tmp_path / "a")
    shutil.copytree(runs / "b", tmp_path / "b", ignore=shutil.ignore_patterns("eval"))
    config = CompareConfig(runs=(tmp_path / "a", tmp_path / "b"), draws=5)
    run_compare(config)
    stage = Stage("compare", "compare", JOBS["compare"], config, config.folder)
    assert check_stage(stage).state == CURRENT
    with (tmp_path / "templates" / "results.css").open("a") as stream:
        stream.write("p { margin: 0; }")
    status = check_stage(stage)
    assert (status.state, status.reasons) == (STALE, ("results.css changed",))
    run_compare(config)
    assert check_stage(stage).state == CURRENT
    shutil.copytree(runs / "b" / "eval", tmp_path / "b" / "eval")
    assert check_stage(stage).reasons == ("predictions.parquet is new",)


@pytest.mark.usefixtures("plain_charts")
def test_command(runs: Path, tmp_path: Path) -> None:
    words = ["compare", str(runs / "a"), str(runs / "b"), "--draws", "10", "--out", str(tmp_path / "out")]
    answer = CliRunner().invoke(main, words)
    assert answer.exit_code == 0, answer.output
    assert f"comparison: {tmp_path / 'out' / 'comparison.html'}" in answer.stdout
    assert re.search(r"b against a: (no difference shown|[ab] is better) \([+-]", answer.stdout)
    assert (tmp_path / "out" / "records" / "compare.json").is_file()
