"""Compares training speed with default and with passive waiting of OpenMP's threads, alone and beside a busy process.

    python docs/benchmarks/waiting.py [--steps 20]

Each measurement is a process of its own, because OpenMP reads ``OMP_WAIT_POLICY`` once. It trains MTER's body network
on random pixels, batches of 16 at 128 pixels, with as many threads as the process may use, and prints people per second
and the last loss; the loss must be the same in all four.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time

POLICIES = {"default": None, "passive": "PASSIVE"}
"""Values of ``OMP_WAIT_POLICY``; with None it is not set, and threads wait actively for some milliseconds."""


def train(n_steps: int) -> dict[str, float]:
    """Trains for some steps; the first three are not timed."""
    import torch

    from emoface.mter.networks import build_model

    torch.manual_seed(0)
    model = build_model("task2").train()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.001, momentum=0.9)
    images, labels = torch.rand(16, 3, 128, 128), (torch.rand(16, 26) < 0.1).float()
    start = time.perf_counter()
    for step in range(n_steps + 3):
        if step == 3:
            start = time.perf_counter()
        logits = model({"body": images}, torch.ones(16, dtype=torch.bool)).logits
        loss = torch.nn.functional.binary_cross_entropy_with_logits(logits, labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return {"people_per_second": 16 * n_steps / (time.perf_counter() - start), "loss": loss.item()}


def measure(policy: str | None, n_steps: int, has_neighbour: bool) -> dict[str, float]:
    """Trains in a new process, with or without a process beside it that keeps one core busy."""
    neighbour = subprocess.Popen([sys.executable, "-c", "while True: pass"]) if has_neighbour else None
    try:
        command = [sys.executable, __file__, "--steps", str(n_steps), "--train"]
        environment = {name: value for name, value in os.environ.items() if name != "OMP_WAIT_POLICY"}
        if policy is not None:
            environment["OMP_WAIT_POLICY"] = policy
        output = subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout
    finally:
        if neighbour is not None:
            neighbour.kill()
            neighbour.wait()
    result: dict[str, float] = json.loads(output)
    return result


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--train", action="store_true", help="Train in this process and print the result as JSON.")
    options = parser.parse_args()
    if options.train:
        print(json.dumps(train(options.steps)))
        return
    print("| waiting | people/s alone | people/s beside a busy process | loss |\n|---|---:|---:|---:|")
    for name, policy in POLICIES.items():
        alone, beside = (measure(policy, options.steps, has_neighbour) for has_neighbour in (False, True))
        print(
            f"| {name} | {alone['people_per_second']:.1f} | {beside['people_per_second']:.1f} | "
            f"{alone['loss']:.6f}, {beside['loss']:.6f} |"
        )


if __name__ == "__main__":
    main()
