"""Measures how long commands take to start, beside an empty Python process and, where it is installed, torch's import.

    python docs/benchmarks/start_up.py [--starts 20]

The calls alternate, so that other load on the machine meets all of them. It prints the median and the least of the
elapsed times, and the median of the processor times, which depend less on other load.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import statistics
import subprocess
import sys
import time

COMMANDS = {
    "emoface --help": ["-m", "emoface", "--help"],
    "emoface parse --help": ["-m", "emoface", "parse", "--help"],
    "emoface train --help": ["-m", "emoface", "train", "--help"],
    "emoface status emotic_face": ["-m", "emoface", "status", "emotic_face", "--set", "emotic_root=EMOTIC"],
}
EMPTY = {"python -c pass": ["-c", "pass"]}
TORCH = {"python -c 'import torch'": ["-c", "import torch"]}


def start(arguments: list[str]) -> tuple[float, float]:
    """Runs Python once; returns the elapsed and the processor time in seconds."""
    before, began = os.times(), time.perf_counter()
    subprocess.run([sys.executable, *arguments], stdout=subprocess.DEVNULL, check=True)
    elapsed, after = time.perf_counter() - began, os.times()
    used = after.children_user + after.children_system - before.children_user - before.children_system
    return elapsed, used


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--starts", type=int, default=20)
    n_starts = parser.parse_args().starts
    calls = EMPTY | COMMANDS | (TORCH if importlib.util.find_spec("torch") else {})
    for arguments in calls.values():
        start(arguments)  # the first start reads the files from the disk
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in calls}
    for _ in range(n_starts):
        for name, arguments in calls.items():
            times[name].append(start(arguments))
    print("| call | median, s | least, s | processor time, s |\n|---|---:|---:|---:|")
    for name, pairs in times.items():
        elapsed, used = zip(*pairs, strict=True)
        print(f"| `{name}` | {statistics.median(elapsed):.2f} | {min(elapsed):.2f} | {statistics.median(used):.2f} |")


if __name__ == "__main__":
    main()
