"""The demo job: runs the pipeline file ``demo.toml`` on simulated photos and compares the faces with the truth."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import pyarrow as pa
from pydantic import Field

from emoface.errors import WeightsError
from emoface.jobs.pipeline import PipelineConfig, StageObserver, run_pipeline
from emoface.schema import EMPTY_FACE_REASONS, FACE_FOUND, FACES_SCHEMA, GROUND_TRUTH_SCHEMA, SPLITS
from emoface.storage.cards import pipelines_dir
from emoface.storage.locks import lock_folder
from emoface.storage.records import JobRecord, finish_job, hash_inputs, to_settings
from emoface.storage.settings import Count, Folder, Seed, Settings
from emoface.storage.tables import read_table, vectors_to_array
from emoface.storage.weights import DEMONSTRATION_DETECTOR, list_weights

if TYPE_CHECKING:
    import pandas as pd

DETECTOR = "yolov5n-face"
"""The published detector that the demo uses if its weights are on this machine."""

PAGES = {"report": ("audit", "report/audit.html"), "evaluate": ("evaluation", "run/eval/test/evaluation.html")}
"""Name and path of the page that a stage writes to the demo's folder, by stage, in the order of the pipeline."""

_MIN_IMAGES = 20
"""With fewer photos there may be too few people for one training batch."""

_WITHOUT_PHOTO = ("image_missing", "image_unreadable")
_REMEDY = "run 'emoface demo' again"


class DemoConfig(Settings):
    """Settings of the demo."""

    out: Folder = Path("demo-out")
    """Folder for the simulated photos, the data set built from them, and the training run."""
    images: Annotated[int, Field(ge=_MIN_IMAGES)] = 400
    """Number of photos to draw."""
    seed: Seed = 0
    """Random seed; the same seed gives the same photos, tables and weights."""
    epochs: Count = 16
    """Number of training epochs."""


def run_demo(config: DemoConfig, observer: StageObserver | None = None) -> JobRecord:
    """Draws a simulated EMOTIC, builds EMOTIC_Face from it, trains and evaluates mter2, and checks the faces found.

    A finished training run in ``out`` with other settings or older code is replaced.

    Args:
        config: Output folder, number of photos and epochs, seed.
        observer: Receives a call per stage; None for no reports.

    Returns:
        The job's record: counts of the data set, training and evaluation results, and the comparison of the faces
        found with the faces drawn.

    Raises:
        WeightsError: No face detector's weights are on this machine.
        ModuleNotFoundError: torch, which the last stages need, is not installed.
    """
    if find_spec("torch") is None:
        raise ModuleNotFoundError("No module named 'torch'", name="torch")
    detector, note = choose_detector({row["name"]: row["state"] for row in list_weights()})
    overrides = {name: str(value) for name, value in to_settings(config).items()} | {"detector": detector}
    pipeline = PipelineConfig(str(pipelines_dir() / "demo.toml"), overrides, replaces_finished=True)
    with lock_folder(config.out):
        return _summarize(config, detector, note, run_pipeline(pipeline, observer))


def _summarize(config: DemoConfig, detector: str, note: str, stages: Mapping[str, JobRecord]) -> JobRecord:
    """Writes the record of the demo from those of its stages."""
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
        info={**dict(PAGES.values()), "detector_note": note},
    )


def choose_detector(states: Mapping[str, str]) -> tuple[str, str]:
    """Chooses the published detector if its weights are on this machine, else the package's own.

    Args:
        states: Place where each known weight file was found (such as ``cache``), or ``absent``, by name.

    Returns:
        The detector's name, and a note for the user about its limits (empty for the published detector).

    Raises:
        WeightsError: Neither detector's weights were found.

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
    """Compares the faces that were found with the faces that were drawn.

    A face is correct if its centre is inside the true face box of the person it was assigned to. People whose photo is
    missing or unreadable are excluded, because no detector could find their faces.

    Args:
        faces: ``person_id``, ``face_bbox`` and ``face_status`` of ``faces.parquet``.
        truth: ``person_id``, ``face_bbox`` and ``face_visible`` of ``ground_truth.parquet``.

    Returns:
        The counts ``visible_faces`` and ``hidden_faces``; ``recall`` and ``wrong_faces`` (assigned to the wrong
        person) as shares of the visible faces; ``false_faces`` as a share of the hidden faces. A share is None if
        there are no such faces.
    """
    found = _to_frame(faces, ["face_status"])
    drawn = _to_frame(truth, ["face_visible"])
    both = found.merge(drawn.dropna(subset=["person_id"]), on="person_id", suffixes=("", "_true"))
    both = both[~both["face_status"].isin(_WITHOUT_PHOTO)]
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
    """Collects the main results of the stages."""
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
