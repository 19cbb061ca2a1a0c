"""Checks MTER on simulated people: more streams give a higher mAP, and shuffled labels give the chance level.

    python docs/benchmarks/mter_on_simulator.py --out DIR [--epochs 12] [--at-once 2]

Draws 2,600 photos of about 4,000 people, finds their faces with the package's own detector, trains and evaluates eight
runs, one thread each, and compares them. emoticon reads the true points and depth of the simulation, affective-graph
the cells of a grid. Prints Markdown, and ends with exit code 1 if a claim does not hold. If it is interrupted, call it
again: it resumes.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from emoface.datasets.predictions import Predictions, predictions_path, read_predictions
from emoface.jobs.compare import CompareConfig, compare_pair
from emoface.jobs.simulate import NEARNESS_NAME
from emoface.metrics.multilabel import average_precision, mean_average_precision
from emoface.mter.runs import read_run
from emoface.storage.weights import DEMONSTRATION_DETECTOR

COMMON = (
    *("--preset", "modern", "--pretrained", "none", "--device", "cpu"),
    *("--learning-rate", "0.002", "--distort-probability", "0", "--person-size", "64", "--context-size", "96"),
)
RUNS: dict[str, tuple[str, ...]] = {
    "task1": ("task1",),
    "task2": ("task2",),
    "mter2": ("mter2", "--init-face", "task1"),
    "task2+task3": ("task2+task3",),
    "kosti": ("kosti",),
    "mter2-shuffled": ("mter2", "--shuffle-labels"),
    "affective-graph": ("affective-graph", "--region-source", "grid"),
    "emoticon": (*("emoticon", "--loss", "soft_margin", "--multiplicative-weight", "1", "--attention-weight", "1"),),
}
"""Model and own options of each run, in the order in which the runs start; mter2 waits for task1."""

MORE_AND_MORE = ("task2", "task2+task3", "mter2")
"""Runs with more and more streams."""

BASELINE = "kosti"
"""The model that the thesis calls the baseline."""

EPOCHS_FACTOR = {"task1": 4 / 3, "mter2-shuffled": 0.5}
"""Factor for the number of epochs, for runs that train longer or shorter than the others."""

WITH_ARRAYS = ("affective-graph", "emoticon")
"""Runs of models that read more than the photo."""

MIN_PEOPLE = 50
N_RESAMPLES = 1000


def emoface(*words: object) -> None:
    """Runs an emoface command on one thread."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    subprocess.run([sys.executable, "-m", "emoface", *map(str, words)], env=environment, check=True)


def build_data(out: Path, n_images: int, seed: int) -> Path:
    """Builds a simulated EMOTIC_Face if it does not exist; returns the path of its manifest."""
    if not (out / "data" / "manifest.json").is_file():
        emoface("simulate", out / "EMOTIC", "--images", n_images, "--seed", seed)
        emoface("parse", out / "EMOTIC", "--out", out / "data")
        emoface("faces", out / "data", "--detector", DEMONSTRATION_DETECTOR, "--margin", 0)
        emoface("split", out / "data")
    emoface("pose", out / "data", "--points", out / "EMOTIC/ground_truth.parquet")
    emoface("depth", out / "data", "--maps", out / "EMOTIC" / NEARNESS_NAME)
    return out / "data" / "manifest.json"


def train_all(manifest: Path, runs: Path, epochs: int, at_once: int) -> None:
    """Trains and evaluates all runs, ``at_once`` at the same time."""
    begun: dict[str, Future[None]] = {}

    def train(name: str) -> None:
        model, *options = RUNS[name]
        if "--init-face" in options:
            begun["task1"].result()
            options[-1] = str(runs / options[-1])
        n_epochs = max(1, round(EPOCHS_FACTOR.get(name, 1) * epochs))
        words = ("--manifest", manifest, "--model", model, "--out", runs / name, "--epochs", n_epochs)
        emoface("train", *words, *COMMON, *options)
        emoface("evaluate", runs / name)

    with ThreadPoolExecutor(at_once) as pool:
        for name in RUNS:
            begun[name] = pool.submit(train, name)
        for future in begun.values():
            future.result()
    emoface("compare", *(runs / name for name in (BASELINE, *MORE_AND_MORE, *WITH_ARRAYS)))


def read_metrics(run: Path) -> dict[str, Any]:
    """Reads ``metrics.json`` of a run's test split."""
    return json.loads((run / "eval/test/metrics.json").read_text(encoding="utf-8"))


def read_test_predictions(run: Path) -> Predictions:
    """Reads a run's predictions for the test people."""
    return read_predictions(predictions_path(run, "test"))


def chance_interval(predictions: Predictions) -> tuple[float, float]:
    """The interval with 95 % of the mAPs when the same predictions are shuffled among the people."""
    rng = np.random.default_rng(0)
    labels, scores = predictions.labels, predictions.probabilities
    shuffled = [
        mean_average_precision(average_precision(labels, scores[rng.permutation(len(scores))]))
        for _ in range(N_RESAMPLES)
    ]
    low, high = np.quantile(shuffled, (0.025, 0.975))
    return float(low), float(high)


def compare_without_face(runs: Path, first: str, second: str) -> dict[str, Any]:
    """Compares two runs on the people without a face, see ``compare_pair``."""
    predictions = [read_test_predictions(runs / name) for name in (first, second)]
    without_face = [one.take(~one.has_face) for one in predictions]
    config = CompareConfig(runs=(runs / first, runs / second), draws=N_RESAMPLES)
    pair = compare_pair(config, first, second, *without_face)
    assert pair is not None
    return pair


def check_claims(runs: Path) -> Iterator[tuple[bool, str]]:
    """Yields for each claim whether it holds, and the result as text."""
    metrics = {name: read_metrics(runs / name) for name in RUNS}
    value = {name: 100 * one["mean_average_precision"] for name, one in metrics.items()}
    found = " < ".join(f"{name} {value[name]:.2f}" for name in MORE_AND_MORE)
    body, two, three = (value[name] for name in MORE_AND_MORE)
    yield body < two < three, f"more streams, higher mAP: {found}"

    low, high = 100 * metrics["mter2"]["interval"][0], 100 * metrics["task2"]["interval"][1]
    yield low > high, f"intervals of mter2 (from {low:.2f}) and task2 (to {high:.2f}) do not overlap"

    for run in ("mter2", *WITH_ARRAYS):
        per_label = {name: one for name, one in metrics[run]["per_label"].items() if one["people"] >= MIN_PEOPLE}
        below = [name for name, one in per_label.items() if one["average_precision"] <= one["prevalence"]]
        names = ", ".join(below) or "none below"
        yield (
            not below,
            f"{run} is above prevalence on each of {len(per_label)} labels with {MIN_PEOPLE} people: {names}",
        )

    low, high = 100 * metrics["emoticon"]["interval"][0], 100 * metrics["task2+task3"]["interval"][1]
    yield low > high, f"intervals of emoticon (from {low:.2f}) and task2+task3 (to {high:.2f}) do not overlap"

    ends = chance_interval(read_test_predictions(runs / "mter2-shuffled"))
    yield (
        100 * ends[0] <= value["mter2-shuffled"] <= 100 * ends[1],
        f"shuffled labels give the chance level: mAP {value['mter2-shuffled']:.2f}, 95 % of shuffled predictions are "
        f"between {100 * ends[0]:.2f} and {100 * ends[1]:.2f}, prevalence "
        f"{100 * metrics['mter2-shuffled']['mean_prevalence']:.2f}",
    )

    pair = compare_without_face(runs, "task2+task3", "mter2")
    least, most = pair["interval"]
    yield (
        most >= 0,
        f"on {pair['people']} people without a face mter2 is no worse than task2+task3: "
        f"{100 * pair['difference']:+.2f} mAP, paired interval {100 * least:+.2f} to {100 * most:+.2f}",
    )


def print_tables(runs: Path) -> None:
    """Prints results and loss curves as Markdown tables."""
    print("| run | epochs | minutes of training | mAP on test | 95 % interval | with a face | without |")
    print("|---|---:|---:|---:|---|---:|---:|")
    logs = {}
    for name in RUNS:
        metrics = read_metrics(runs / name)
        logs[name] = read_run(runs / name).log()
        groups = {one["group"]: one["mean_average_precision"] for one in metrics["subgroups"] if one["by"] == "face"}
        parts = ["-" if value is None else f"{100 * value:.2f}" for value in groups.values()]
        low, high = metrics["interval"]
        print(
            f"| {name} | {len(logs[name])} | {sum(line['seconds'] for line in logs[name]) / 60:.1f} "
            f"| {100 * metrics['mean_average_precision']:.2f} | {100 * low:.2f} - {100 * high:.2f} "
            f"| {' | '.join(parts)} |"
        )
    shown = (BASELINE, *MORE_AND_MORE, *WITH_ARRAYS)
    print(f"\n| epoch | {' | '.join(f'{name}: loss on train, val' for name in shown)} |")
    print(f"|---:|{'---|' * len(shown)}")
    for number in range(max(len(logs[name]) for name in shown)):
        cells = [
            f"{logs[name][number]['train_losses']['labels']:.2f}, {logs[name][number]['val_losses']['labels']:.2f}"
            for name in shown
        ]
        print(f"| {number + 1} | {' | '.join(cells)} |")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--images", type=int, default=2600)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument(
        "--at-once", type=int, default=2, help="number of runs that train at the same time, on one core each"
    )
    options = parser.parse_args()
    start = time.perf_counter()
    manifest = build_data(options.out, options.images, options.seed)
    train_all(manifest, options.out / "runs", options.epochs, options.at_once)
    print_tables(options.out / "runs")
    print(f"\n{(time.perf_counter() - start) / 60:.0f} minutes\n")
    claims = list(check_claims(options.out / "runs"))
    for holds, text in claims:
        print(f"- {'holds' if holds else 'DOES NOT HOLD'}: {text}")
    return 0 if all(holds for holds, _ in claims) else 1


if __name__ == "__main__":
    sys.exit(main())
