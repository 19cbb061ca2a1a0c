"""Kills ``emoface run`` at random moments with SIGKILL, runs it again, and compares every file with an unbroken run.

    python tests/kill_anywhere.py --times 100 --seed 0 --chain

The pipeline parses a simulated EMOTIC, finds faces, splits, reports, packs the photos, trains and evaluates a small
model. Each time it starts in an empty folder, is killed at a moment drawn evenly from the duration of the unbroken run,
and runs again until it ends; with ``--chain`` it is killed again and again until it ends, and then starts anew. Checked
right after the kill: every file under its final name is whole. Checked at the end: the same files with the same content
as the unbroken run, and no hidden file is left.

Not compared, because it holds times: ``seconds`` and ``images_per_second`` in each line of ``log.jsonl`` and in the
``lines`` of ``last.pt``; the sha256 of ``log.jsonl`` in ``records/train.json``; and the folder ``tensorboard``.
``last.pt`` is compared value by value, since torch does not write it with the same bytes twice.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import torch
from safetensors import safe_open

import emoface.inference.predictor
import emoface.jobs.demo
import emoface.jobs.evaluate
import emoface.jobs.parse
import emoface.jobs.report
import emoface.jobs.simulate
import emoface.mter.trainer  # noqa: F401  # all imports come before the forks, so that no time is spent on them later
from emoface.cli import main
from emoface.storage.files import file_sha256

PIPELINE = """
[settings]
out = "work"
emotic_root = "EMOTIC"
epochs = 2

[[stage]]
job = "parse"
emotic_root = "${emotic_root}"
out = "${out}"

[[stage]]
job = "faces"
dir = "${out}"
detector = "emoface-yolov5n-0.5"
image_size = 320
shard_size = 8

[[stage]]
job = "split"
dir = "${out}"
ratios = "40/30/30"

[[stage]]
job = "report"
dir = "${out}"

[[stage]]
job = "train"
manifest = "${out}/manifest.json"
model = "task2"
out = "${out}/run"
recipe = { epochs = "${epochs}", batch_size = 4 }
pretrained = "none"
context_size = 32
person_size = 32
workers = 0
device = "cpu"

[[stage]]
job = "evaluate"
run = "${out}/run"
draws = 20
device = "cpu"
"""
STAGES = ("parse", "faces", "split", "report", "train", "evaluate")
AFTER_THE_END = "after the end"
GROWING = ("log.jsonl", "last.pt", "best.safetensors", "thresholds.json", "README.md")
"""Files of an unfinished run that are whole, but not yet what they will be; its card shows an evaluation later."""
_CHAIN_SHARE = 0.7
"""A run that is killed again and again has less left to do each time, so its moments come earlier."""
TIMES = ("seconds", "images_per_second")


class Trial:
    """A folder with a simulated EMOTIC and a pipeline, whose output is always in the same place."""

    def __init__(self, folder: Path, images: int, epochs: int) -> None:
        self.folder = folder
        self.work = folder / "work"
        self.log = folder / "output.txt"
        self.epochs = epochs
        (folder / "pipeline.toml").write_text(PIPELINE, encoding="utf-8")
        self._check_end(self._start("simulate", "EMOTIC", "--images", str(images), "--seed", "3"))

    def run(self) -> float:
        """Runs the pipeline to its end; returns the duration in seconds."""
        started = time.monotonic()
        self._check_end(self._start_pipeline())
        return time.monotonic() - started

    def run_and_kill(self, seconds: float) -> str:
        """Runs the pipeline and kills it after a time; returns the stage that was killed."""
        process = self._start_pipeline()
        time.sleep(seconds)
        os.kill(process, signal.SIGKILL)
        _, status = os.waitpid(process, 0)
        if not os.WIFSIGNALED(status):
            assert os.waitstatus_to_exitcode(status) == 0, self.log.read_text(encoding="utf-8")
            return AFTER_THE_END
        return next((name for name in STAGES if not self._record(name).is_file()), AFTER_THE_END)

    def _record(self, stage: str) -> Path:
        folder = {"train": "run", "evaluate": "run/eval/test"}.get(stage, ".")
        return self.work / folder / "records" / f"{stage}.json"

    def _start_pipeline(self) -> int:
        return self._start("run", "pipeline.toml", "--set", f"epochs={self.epochs}")

    def _start(self, *arguments: str) -> int:
        """Starts a command in a forked process, whose modules are loaded already."""
        process = os.fork()
        if process:
            return process
        try:
            os.chdir(self.folder)
            output = os.open(self.log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            os.dup2(output, 1)
            os.dup2(output, 2)
            torch.set_num_threads(1)
            main(list(arguments), prog_name="emoface")
        except SystemExit as end:
            sys.stdout.flush()
            os._exit(int(end.code or 0))
        finally:
            os._exit(3)

    def _check_end(self, process: int) -> None:
        _, status = os.waitpid(process, 0)
        if os.waitstatus_to_exitcode(status):
            raise SystemExit(f"the command failed:\n{self.log.read_text(encoding='utf-8')}")


def list_files(folder: Path) -> dict[str, Path]:
    """All files below a folder by their relative path, without TensorBoard's, whose names and contents are times."""
    found = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}
    return {name: path for name, path in found.items() if "/tensorboard/" not in name}


def read_content(path: Path) -> Any:
    """The content of a file without times, in a form that ``==`` compares."""
    if path.name == "log.jsonl":
        return [_without_times(json.loads(line)) for line in path.read_text(encoding="utf-8").splitlines()]
    if path.name == "last.pt":
        state = torch.load(path, weights_only=True)
        return _to_plain({**state, "lines": [_without_times(line) for line in state["lines"]]})
    if path.parts[-2:] == ("records", "train.json"):
        record = json.loads(path.read_text(encoding="utf-8"))
        return {**record, "outputs": {name: sha for name, sha in record["outputs"].items() if name != "log.jsonl"}}
    return file_sha256(path)


def _without_times(line: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in line.items() if name not in TIMES}


def _to_plain(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return (str(value.dtype), tuple(value.shape), value.contiguous().numpy().tobytes())
    if isinstance(value, dict):
        return {name: _to_plain(one) for name, one in value.items()}
    return [_to_plain(one) for one in value] if isinstance(value, list | tuple) else value


def find_torn(work: Path, reference: dict[str, Any]) -> list[str]:
    """Names the files that a kill left half-written under their final name."""
    torn = []
    for name, path in list_files(work).items():
        if path.name.startswith("."):
            continue
        try:
            _open(path)
            content = read_content(path)
        except Exception as error:  # noqa: BLE001  # whatever a reader raises means that the file is not whole
            torn.append(f"{name}: {error}")
            continue
        if content != reference.get(name) and path.name not in GROWING:
            torn.append(f"{name}: is whole, but not what the unbroken run wrote")
    return torn


def _open(path: Path) -> None:
    match path.suffix:
        case ".parquet":
            pq.read_table(path)
        case ".json":
            json.loads(path.read_text(encoding="utf-8"))
        case ".npy":
            np.load(path)
        case ".safetensors":
            with safe_open(path, "np") as opened:
                list(opened.keys())


def list_differences(work: Path, reference: dict[str, Any]) -> list[str]:
    """Names the files that are missing, too many or other than those of the unbroken run."""
    found = list_files(work)
    lines = [f"{name}: missing" for name in reference if name not in found]
    lines += [f"{name}: left over" for name in found if name not in reference]
    both = [name for name in found if name in reference]
    return lines + [f"{name}: differs" for name in both if read_content(found[name]) != reference[name]]


def kill_anywhere(times: int, seed: int, images: int, epochs: int, chain: bool) -> list[str]:
    """Runs all trials; returns a line per fault."""
    faults: list[str] = []
    killed: Counter[str] = Counter()
    n_runs = 0
    rng = random.Random(seed)
    with tempfile.TemporaryDirectory(prefix="kill-anywhere-") as name:
        trial = Trial(Path(name).resolve(), images, epochs)
        duration = trial.run()
        reference = {path: read_content(file) for path, file in list_files(trial.work).items()}
        print(f"unbroken: {duration:.1f} s, {len(reference)} files, seed {seed}", flush=True)
        is_new, number = True, 0
        while number < times:
            if is_new:
                shutil.rmtree(trial.work)
            seconds = rng.uniform(0, _CHAIN_SHARE * duration if chain else duration)
            stage = trial.run_and_kill(seconds)
            was_killed = stage != AFTER_THE_END
            is_new = not chain or not was_killed
            number += was_killed
            killed[stage] += was_killed
            found = find_torn(trial.work, reference) if trial.work.is_dir() else []
            if is_new or number == times:
                trial.run()
                found += list_differences(trial.work, reference)
                n_runs += 1
            faults += [f"kill {number} in {stage} after {seconds:.2f} s: {line}" for line in found]
            print(f"kill {number} after {seconds:.2f} s, in {stage}: {len(found)} faults", flush=True)
    stages = ", ".join(f"{killed[stage]} in {stage}" for stage in STAGES)
    print(f"{times} kills of {n_runs} runs: {stages}; {len(faults)} faults")
    return faults


def _parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--times", type=int, default=100, help="Number of kills.")
    parser.add_argument("--seed", type=int, default=0, help="Seed of the moments.")
    parser.add_argument("--images", type=int, default=24, help="Number of simulated photos.")
    parser.add_argument("--epochs", type=int, default=2, help="Number of training epochs.")
    parser.add_argument("--chain", action="store_true", help="Kill one and the same run until it ends.")
    return parser.parse_args()


if __name__ == "__main__":
    found = kill_anywhere(**vars(_parse_arguments()))
    for line in found:
        print(line)
    sys.exit(1 if found else 0)
