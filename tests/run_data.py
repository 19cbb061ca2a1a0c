"""Runs as the trainer leaves them, with weights that nobody trained, for the tests of what reads a run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from emoface.datasets.manifest import read_manifest
from emoface.mter import build_model
from emoface.mter.person_arrays import describe_array_tables
from emoface.mter.runs import BEST_NAME, LOG_NAME, write_run
from emoface.mter.weight_files import write_weights
from emoface.storage.files import file_sha256, write_text
from emoface.storage.records import JobRecord, write_record

SIZES = {"face": 32, "body": 32, "context": 64}


def write_finished_run(
    path: Path,
    manifest: Path,
    model: str = "mter2",
    *,
    seed: int = 0,
    predicts_vad: bool = False,
    finished: bool = True,
    reads_tables: bool = False,
    **recipe: Any,
) -> Path:
    """A run of two epochs; equal seeds give equal weights.

    With ``reads_tables`` it describes the tables of its inputs beside the photo streams, which must be there. Other
    settings of the recipe are those of the architecture.
    """
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = build_model(model, predicts_vad=predicts_vad, **recipe)
        for part in network.modules():
            if isinstance(part, torch.nn.Linear):
                torch.nn.init.normal_(part.weight, std=0.03)
    settings: dict[str, Any] = {
        "model": model,
        "manifest": {"path": str(manifest.resolve()), "sha256": file_sha256(manifest)},
        "detector": read_manifest(manifest).detector,
        "recipe": {"predicts_vad": predicts_vad, "loss": "bce", **recipe},
        "stream_sizes": SIZES,
        "shuffle_labels": False,
    }
    if reads_tables:
        settings["array_tables"] = describe_array_tables(read_manifest(manifest), network.array_inputs)
    write_run(path, settings)
    write_weights(path / BEST_NAME, network.eval())
    lines = [
        {
            "epoch": epoch,
            "train_losses": {"labels": 8.0 / epoch + seed, "labels_face": 99.0},
            "val_losses": {"labels": 9.0 / epoch + seed},
            "val_map": None if epoch == 1 else 0.25 + seed / 100,
            "seconds": 2.0,
        }
        for epoch in (1, 2)
    ]
    write_text(path / LOG_NAME, "".join(json.dumps(line) + "\n" for line in lines))
    if finished:
        write_record(path, JobRecord("train", settings, {}, {}, {}))
    return path
