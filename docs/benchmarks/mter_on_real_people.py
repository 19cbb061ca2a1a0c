"""Trains the systems of the thesis on real EMOTIC with the same search for each, and measures them on test.

    python docs/benchmarks/mter_on_real_people.py --emotic EMOTIC --out DIR [--rates 1e-4 3e-4 1e-3] [--epochs 5]

Builds the data set by ``emoface run emotic_face``, or takes a finished one by ``--manifest``. Each system is trained
with each learning rate; the run with the best mAP on val is the system's, and it alone is evaluated on test. Prints
Markdown. If it is interrupted, call it again: it resumes.

Source: the systems of table 4-2 of the thesis, and Kosti's of table 4-3.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mter_on_simulator import emoface, read_metrics, read_test_predictions

from emoface.datasets.predictions import Predictions
from emoface.jobs.compare import CompareConfig, compare_pair
from emoface.mter.epoch_log import score_line
from emoface.mter.networks import build_model
from emoface.mter.resnet import ResNet18
from emoface.mter.runs import Run, read_run

SYSTEMS = ("task1", "task2", "task2+task3", "mter1", "mter2", "kosti")
"""The systems in the order of the table."""

FACE_ALONE = "task1"
"""The system that predicts people with a face alone, so that it cannot follow a protocol."""

STARTS_FROM_FACE = ("mter1", "mter2")
"""The systems whose face stream starts from that of the best run of task1."""

PAIRS = (
    ("task2", "task2+task3"),
    ("task2+task3", "mter2"),
    ("task2", "mter1"),
    ("mter1", "mter2"),
    ("kosti", "mter1"),
    ("kosti", "mter2"),
)
"""Pairs whose difference a claim of the thesis is about: the second should be better."""

PARTS = {"all": None, "with a face": True, "without": False}
"""Groups of people whose differences are printed, by whether they have a face."""


@dataclass(frozen=True)
class Search:
    """The settings that are the same for all systems.

    Attributes:
        manifest: The data set's manifest.
        out: Folder of all runs.
        rates: Learning rates, as text.
        options: Options of ``emoface train`` for every run.
        mobilenet: Source of the weights of MobileNetV2.
        resnet: Source of the weights of ResNet18.
    """

    manifest: Path
    out: Path
    rates: tuple[str, ...]
    options: tuple[str, ...]
    mobilenet: str
    resnet: str

    def runs(self, system: str) -> dict[str, Path]:
        """The folder of each run of a system, by learning rate."""
        return {rate: self.out / f"{system}-{rate}" for rate in self.rates}

    def sources(self, system: str) -> str:
        """The value of ``--pretrained`` for a system."""
        backbones = build_model(system).backbones()
        networks = {stream: isinstance(backbone, ResNet18) for stream, backbone in backbones.items()}
        return ",".join(
            f"{name}={self.resnet if is_resnet else self.mobilenet}" for name, is_resnet in networks.items()
        )


def best_run(runs: Sequence[Path]) -> Run:
    """Reads the finished run whose best mAP on val is the highest."""
    return max((read_run(path) for path in runs), key=lambda run: score_line(best_line(run)))


def best_line(run: Run) -> dict[str, Any]:
    """The log's line of the epoch with the best mAP on val."""
    return max(run.log(), key=score_line)


def train_all(search: Search, at_once: int) -> dict[str, Run]:
    """Trains every system with every learning rate; returns each system's best run on val, evaluated on test."""
    begun: dict[str, list[Future[None]]] = {}

    def train(system: str, rate: str, run: Path) -> None:
        initial = []
        if system in STARTS_FROM_FACE:
            for future in begun[FACE_ALONE]:
                future.result()
            initial = ["--init-face", best_run([*search.runs(FACE_ALONE).values()]).path]
        words = ("--manifest", search.manifest, "--model", system, "--out", run, "--learning-rate", rate)
        emoface("train", *words, "--pretrained", search.sources(system), *search.options, *initial)

    with ThreadPoolExecutor(at_once) as pool:
        for system in SYSTEMS:
            begun[system] = [pool.submit(train, system, rate, run) for rate, run in search.runs(system).items()]
        for future in (one for futures in begun.values() for one in futures):
            future.result()
    chosen = {system: best_run([*search.runs(system).values()]) for system in SYSTEMS}
    for system, run in chosen.items():
        emoface("evaluate", run.path, *([] if system == FACE_ALONE else ["--protocol", "stratified-test"]))
    return chosen


def print_search(search: Search) -> None:
    """Prints the best mAP on val of every run, and the epoch."""
    print(f"| best mAP on val (epoch) | {' | '.join(search.rates)} |\n|---|{'---:|' * len(search.rates)}")
    for system in SYSTEMS:
        lines = [best_line(read_run(run)) for run in search.runs(system).values()]
        cells = [f"{100 * one['val_map']:.2f} ({one['epoch']})" for one in lines]
        print(f"| {system} | {' | '.join(cells)} |")


def print_results(chosen: dict[str, Run]) -> None:
    """Prints mAP on test with its interval and the chance level, for all people and by face."""
    print("\n| system | learning rate | people | mAP on test | 95 % interval | chance | with a face | without |")
    print("|---|---:|---:|---:|---|---:|---|---|")
    for system, run in chosen.items():
        metrics = read_metrics(run.path)
        groups = {one["group"]: one for one in metrics["subgroups"] if one["by"] == "face"}
        parts = [describe_group(one) for one in groups.values()]
        low, high = metrics["interval"]
        print(
            f"| {system} | {run.settings['recipe']['learning_rate']:g} | {metrics['people']['evaluated']:,} "
            f"| {100 * metrics['mean_average_precision']:.2f} | {100 * low:.2f} - {100 * high:.2f} "
            f"| {100 * metrics['mean_prevalence']:.2f} | {' | '.join(parts)} |"
        )


def describe_group(group: dict[str, Any]) -> str:
    """A group's mAP and chance level as text."""
    if group["mean_average_precision"] is None:
        return "-"
    return f"{100 * group['mean_average_precision']:.2f} (chance {100 * group['mean_prevalence']:.2f})"


def print_differences(chosen: dict[str, Run], n_resamples: int) -> None:
    """Prints the differences of mAP of the pairs, with paired intervals, for all people and by face."""
    predictions = {system: read_test_predictions(run.path) for system, run in chosen.items()}
    config = CompareConfig(runs=tuple(run.path for run in chosen.values()), draws=n_resamples)
    print(f"\n| difference of mAP (95 % interval) | {' | '.join(PARTS)} |\n|---|{'---|' * len(PARTS)}")
    for first, second in PAIRS:
        cells = []
        for has_face in PARTS.values():
            sides = [_take_part(predictions[name], has_face) for name in (first, second)]
            pair = compare_pair(config, first, second, *sides)
            assert pair is not None
            low, high = pair["interval"]
            cells.append(f"{100 * pair['difference']:+.2f} ({100 * low:+.2f} to {100 * high:+.2f})")
        print(f"| {second} - {first} | {' | '.join(cells)} |")


def _take_part(predictions: Predictions, has_face: bool | None) -> Predictions:
    return predictions if has_face is None else predictions.take(predictions.has_face == has_face)


def build_data(emotic: Path, out: Path) -> Path:
    """Builds EMOTIC_Face with the default settings; returns the path of its manifest."""
    emoface("run", "emotic_face", "--set", f"emotic_root={emotic}", "--set", f"out={out / 'data'}")
    return out / "data" / "manifest.json"


def main() -> None:
    """Trains, and prints the three tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    data = parser.add_mutually_exclusive_group(required=True)
    data.add_argument("--emotic", type=Path, help="EMOTIC's folder, as the authors release it")
    data.add_argument("--manifest", type=Path, help="the manifest.json of a finished data set")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--mobilenet", default="imagenet", help="weights that MobileNetV2 starts from")
    parser.add_argument("--resnet", default="imagenet", help="weights that ResNet18 starts from; none for random ones")
    parser.add_argument("--rates", nargs="+", default=["1e-4", "3e-4", "1e-3"], help="learning rates to try")
    parser.add_argument("--epochs", default="5")
    parser.add_argument("--person-size", default="64", help="side of face and body, pixels; the thesis has 128")
    parser.add_argument("--context-size", default="96", help="side of the photo, pixels; the thesis has 224")
    parser.add_argument("--seed", default="0")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--at-once", type=int, default=2, help="number of runs that train at the same time")
    parser.add_argument("--resamples", type=int, default=1000)
    options = parser.parse_args()
    start = time.perf_counter()
    sizes = ("--person-size", options.person_size, "--context-size", options.context_size)
    common = ("--preset", "modern", "--epochs", options.epochs, "--seed", options.seed, "--device", options.device)
    search = Search(
        manifest=options.manifest or build_data(options.emotic, options.out),
        out=options.out / "runs",
        rates=tuple(options.rates),
        options=(*common, *sizes, "--workers", "1"),
        mobilenet=options.mobilenet,
        resnet=options.resnet,
    )
    chosen = train_all(search, options.at_once)
    print(json.dumps({name: str(value) for name, value in vars(options).items()}), end="\n\n")
    print_search(search)
    print_results(chosen)
    print_differences(chosen, options.resamples)
    print(f"\n{(time.perf_counter() - start) / 60:.0f} minutes")


if __name__ == "__main__":
    main()
