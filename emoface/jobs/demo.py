"""The demo job: the pipeline ``demo.toml`` on photos that emoface draws, and its results held against the truth."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pandas as pd
import pyarrow as pa
from pydantic import Field

from emoface.errors import WeightsError
from emoface.jobs.pipeline import PipelineConfig, Watcher, run_pipeline
from emoface.schema import EMPTY_FACE_REASONS, FACE_FOUND, FACES_SCHEMA, GROUND_TRUTH_SCHEMA, SPLITS
from emoface.storage.cards import pipelines_dir
from emoface.storage.records import JobRecord, finish_job, hash_inputs, to_settings
from emoface.storage.settings import Count, Folder, Seed, Settings
from emoface.storage.tables import read_table, vectors_to_array
from emoface.storage.weights import DEMONSTRATION_DETECTOR, list_weights

DETECTOR = "yolov5n-face"
"""The published detector that the demo uses where it is found."""

_LEAST_IMAGES = 20
"""With fewer there may not be a batch of people to train on."""

_UNSEEN = ("image_missing", "image_unreadable")
_REMEDY = "run 'emoface demo' again"


class DemoConfig(Settings):
    """Settings of the demo."""

    out: Folder = Path("demo-out")
    """Folder for the simulated photos, all that is built from them, and the training run."""
    images: Annotated[int, Field(ge=_LEAST_IMAGES)] = 400
    """Number of photos to draw."""
    seed: Seed = 0
    """The same seed gives the same photos, tables and weights."""
    epochs: Count = 16
    """Number of training epochs."""


def run_demo(config: DemoConfig, watcher: Watcher | None = None) -> JobRecord:
    """Draws a simulated EMOTIC, builds EMOTIC_Face from it, trains mter2, and says how well that went.

    A finished run of other settings, or of older code, in ``out`` is replaced.

    Args:
        config: Where to, and how much.
        watcher: Told of every stage.

    Returns:
        The job's record: what was built, and how it agrees with what was drawn.

    Raises:
        WeightsError: No face detector's weights are on this machine.
    """
    detector, note = choose_detector({row["name"]: row["state"] for row in list_weights()})
    overrides = {name: str(value) for name, value in to_settings(config).items()} | {"detector": detector}
    pipeline = PipelineConfig(str(pipelines_dir() / "demo.toml"), overrides, replaces_finished=True)
    stages = run_pipeline(pipeline, watcher)
    truth_path, faces_path = config.out / "EMOTIC" / "ground_truth.parquet", config.out / "faces.parquet"
    truth = read_table(truth_path, GROUND_TRUTH_SCHEMA, _REMEDY, ["person_id", "face_bbox", "face_visible"])
    faces = read_table(faces_path, FACES_SCHEMA, _REMEDY, ["person_id", "face_bbox", "face_status"])
    return finish_job(
        "demo",
        config,
        config.out,
        module=__name__,
        inputs=hash_inputs([truth_path, faces_path]),
        outputs=[],
        counts=_count(detector, stages) | {"against_the_truth": compare_with_truth(faces, truth)},
        info={
            "audit": "report/audit.html",
            "evaluation": "run/eval/test/evaluation.html",
            "detector_note": note,
        },
    )


def choose_detector(states: Mapping[str, str]) -> tuple[str, str]:
    """The published detector where it is on this machine, else the package's own.

    Args:
        states: Where each known name of weights was found, or ``absent``.

    Returns:
        Its name, and what the user must know of it (empty where there is nothing).

    Raises:
        WeightsError: Neither is there.

    Example:
        >>> choose_detector({"yolov5n-face": "cache", "emoface-yolov5n-0.5": "package"})
        ('yolov5n-face', '')
    """
    if states.get(DETECTOR, "absent") != "absent":
        return DETECTOR, ""
    if states.get(DEMONSTRATION_DETECTOR, "absent") != "absent":
        note = (
            f"found with {DEMONSTRATION_DETECTOR}, the demonstration detector: it was trained on drawn photos alone. "
            f"For real photos get a published one with 'emoface weights fetch {DETECTOR}'"
        )
        return DEMONSTRATION_DETECTOR, note
    raise WeightsError(
        f"the demo needs a face detector, and neither {DETECTOR} nor {DEMONSTRATION_DETECTOR} is in EMOFACE_WEIGHTS, "
        f"in the cache or in the package; run 'emoface weights fetch {DETECTOR}', or name a folder that holds "
        f"{DETECTOR}.param and .bin in EMOFACE_WEIGHTS"
    )


def compare_with_truth(faces: pa.Table, truth: pa.Table) -> dict[str, Any]:
    """How the faces that were found agree with the faces that were drawn.

    A face is right where its centre lies inside the true face of the person who got it. People whose photo is missing
    or broken are left out: nobody could find their faces.

    Args:
        faces: ``person_id``, ``face_bbox`` and ``face_status`` of ``faces.parquet``.
        truth: ``person_id``, ``face_bbox`` and ``face_visible`` of ``ground_truth.parquet``.

    Returns:
        Counts, and as shares of the visible faces ``recall`` and ``wrong_faces``, and of the hidden ones
        ``false_faces``; None where there are none.
    """
    found = _to_frame(faces, ["face_status"])
    drawn = _to_frame(truth, ["face_visible"])
    both = found.merge(drawn.dropna(subset=["person_id"]), on="person_id", suffixes=("", "_true"))
    both = both[~both["face_status"].isin(_UNSEEN)]
    is_found, is_visible = both["face_status"] == FACE_FOUND, both["face_visible"].astype(bool)
    is_right = is_found & is_visible
    for low, high in (("x1", "x2"), ("y1", "y2")):
        centre = (both[low] + both[high]) / 2
        is_right &= centre.between(both[f"{low}_true"], both[f"{high}_true"])
    n_visible, n_hidden = int(is_visible.sum()), int((~is_visible).sum())
    return {
        "visible_faces": n_visible,
        "hidden_faces": n_hidden,
        "recall": int(is_right.sum()) / n_visible if n_visible else None,
        "wrong_faces": int((is_found & is_visible & ~is_right).sum()) / n_visible if n_visible else None,
        "false_faces": int((is_found & ~is_visible).sum()) / n_hidden if n_hidden else None,
    }


def _to_frame(table: pa.Table, columns: list[str]) -> pd.DataFrame:
    frame: pd.DataFrame = table.select(["person_id", *columns]).to_pandas()
    boxes = vectors_to_array(table["face_bbox"], 4).astype(np.float64)
    return frame.assign(**dict(zip(("x1", "y1", "x2", "y2"), boxes.T, strict=True)))


def _count(detector: str, stages: Mapping[str, JobRecord]) -> dict[str, Any]:
    """The results of the stages that a reader looks for first."""
    faces, split, report, train, evaluate = (
        stages[name].counts for name in ("faces", "split", "report", "train", "evaluate")
    )
    status = faces["face_status"]
    return {
        "detector": detector,
        "photos": faces["photos"],
        "people": faces["people"],
        "faces_found": status[FACE_FOUND],
        "empty": {reason: status[reason] for reason in EMPTY_FACE_REASONS if status[reason]},
        **{name: split[name] for name in SPLITS},
        "largest_label_deviation": split["largest_label_deviation"],
        "mean_imbalance_ratio": {
            name: report[name]["mean_imbalance_ratio"] for name in report if isinstance(report[name], Mapping)
        },
        "training": train,
        "evaluation": evaluate,
    }
