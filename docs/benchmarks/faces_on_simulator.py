"""Evaluates the faces job on simulated photos, and computes the best possible mAP of each combination of streams.

    EMOFACE_WEIGHTS=FOLDER python docs/benchmarks/faces_on_simulator.py --out DIR [--images 1000] [--seed 1]

Simulates an EMOTIC data set, parses it, finds its faces, compares them with the ground truth, and prints Markdown
tables.
"""

from __future__ import annotations

import argparse
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray
from sklearn.metrics import average_precision_score

from emoface.jobs.faces import FacesConfig, run_faces
from emoface.jobs.parse import ParseConfig, run_parse
from emoface.jobs.simulate import SimulateConfig, run_simulate
from emoface.simulator.causes import Cause, draw_cause, draw_labels, draw_scene, label_probabilities
from emoface.vision.boxes import box_iou

MIN_IOU = 0.5
STREAMS = {
    "body": ("body",),
    "context": ("context",),
    "face": ("face",),
    "body + context": ("body", "context"),
    "face + body + context": ("face", "body", "context"),
}


@dataclass
class Score:
    """Counts of outcomes for the people of a simulation, see ``score_faces``.

    Attributes:
        visible: Number of people with a visible face, per outcome.
        hidden: Number of people with a hidden face, per reason and outcome.
        landmark_errors: Mean landmark distance of each own face, in shares of the face's height.
    """

    visible: Counter[str] = field(default_factory=Counter)
    hidden: dict[str, Counter[str]] = field(default_factory=dict)
    landmark_errors: list[float] = field(default_factory=list)

    @property
    def n_assigned(self) -> int:
        """Number of people who got a face."""
        return sum(
            counts[outcome] for counts in (self.visible, *self.hidden.values()) for outcome in ("own", "other", "none")
        )

    @property
    def n_wrong_person(self) -> int:
        """Number of people who got the face of another person."""
        return sum(counts["other"] for counts in (self.visible, *self.hidden.values()))


def score_faces(ground_truth_path: Path, faces_path: Path) -> Score:
    """Compares each person's row of ``faces.parquet`` with the ground truth.

    The true face that overlaps a person's face best decides the outcome: ``own`` face, face of an ``other`` person, or
    ``none`` if no true face overlaps it by ``MIN_IOU``. A person without a face is ``empty``. People of photos that
    cannot be read are left out.
    """
    truths_of: dict[str, list[dict]] = {}
    for truth in pq.read_table(ground_truth_path).to_pylist():
        truths_of.setdefault(truth["image"], []).append(truth)
    columns = ["person_id", "face_bbox", "landmarks", "face_status"]
    row_of = {row["person_id"]: row for row in pq.read_table(faces_path, columns=columns).to_pylist()}
    score = Score()
    for truths in truths_of.values():
        with_box = [truth for truth in truths if truth["face_bbox"] is not None]
        boxes = np.array([truth["face_bbox"] for truth in with_box], np.float32).reshape(-1, 4)
        for truth in truths:
            if not truth["annotated"] or row_of[truth["person_id"]]["face_status"].startswith("image_"):
                continue
            row = row_of[truth["person_id"]]
            counts = score.visible if truth["face_visible"] else score.hidden.setdefault(truth["hidden_by"], Counter())
            if row["face_bbox"] is None:
                counts["empty"] += 1
                continue
            iou = box_iou(np.array([row["face_bbox"]], np.float32), boxes)[0]
            best = int(np.argmax(iou)) if len(iou) else -1
            if best < 0 or iou[best] < MIN_IOU:
                counts["none"] += 1
            elif with_box[best]["face_bbox"] == truth["face_bbox"]:  # of this row or of another one of the same person
                counts["own"] += 1
                score.landmark_errors.append(_landmark_error(row["landmarks"], truth))
            else:
                counts["other"] += 1
    return score


def _landmark_error(landmarks: list[float], truth: dict) -> float:
    distances = np.hypot(*(np.array(landmarks) - truth["landmarks"]).reshape(5, 2).T)
    return float(distances.mean() / (truth["face_bbox"][3] - truth["face_bbox"][1]))


def best_possible_map(n_people: int, seed: int, hidden_share: float) -> dict[str, float]:
    """Computes the mAP of the true label probabilities given only some streams, an upper bound for every model.

    Args:
        n_people: Number of people to simulate.
        seed: Random seed.
        hidden_share: Share of people whose face stream contains no information, 0-1.

    Returns:
        Per combination of streams, the mAP in 0-1 over the 26 categories.
    """
    random = np.random.default_rng(seed)
    causes = [draw_cause(random, *draw_scene(random)) for _ in range(n_people)]
    labels = np.stack([draw_labels(random, label_probabilities(cause)) for cause in causes])
    is_hidden = random.random(n_people) < hidden_share
    best = {}
    for name, streams in STREAMS.items():
        without_face = tuple(stream for stream in streams if stream != "face")
        probabilities = _stack(causes, streams)
        probabilities[is_hidden] = _stack(
            [cause for cause, hidden in zip(causes, is_hidden, strict=True) if hidden], without_face
        )
        best[name] = float(np.mean([average_precision_score(labels[:, k], probabilities[:, k]) for k in range(26)]))
    return best


def _stack(causes: list[Cause], streams: tuple[str, ...]) -> NDArray[np.float64]:
    return np.stack([label_probabilities(cause, streams) for cause in causes])


def main() -> None:
    """Reads the options, runs the jobs and prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--detector", default="yolov5n-face")
    options = parser.parse_args()
    root, work = options.out / "simulated_emotic", options.out / "work"
    seconds = {}
    for name, job in {
        "simulate": lambda: run_simulate(SimulateConfig(out=root, images=options.images, seed=options.seed)),
        "parse": lambda: run_parse(ParseConfig(emotic_root=root, out=work)),
        "faces": lambda: run_faces(FacesConfig(dir=work, detector=options.detector)),
    }.items():
        start = time.perf_counter()
        job()
        seconds[name] = time.perf_counter() - start

    score = score_faces(root / "ground_truth.parquet", work / "faces.parquet")
    n_visible, n_hidden = score.visible.total(), sum(counts.total() for counts in score.hidden.values())
    n_false = sum(counts["own"] + counts["none"] for counts in score.hidden.values())
    print(
        f"{options.images} photos of seed {options.seed}: {n_visible} people with a visible face, {n_hidden} without\n"
    )
    print("| metric | people | share |\n|---|---:|---:|")
    for metric, n, n_of in (
        ("visible faces that were assigned to their own person", score.visible["own"], n_visible),
        ("assigned faces that are another person's", score.n_wrong_person, score.n_assigned),
        ("assigned faces that match no true face", score.visible["none"], score.n_assigned),
        ("hidden faces that were found", n_false, n_hidden),
    ):
        print(f"| {metric} | {n} of {n_of} | {n / n_of:.2%} |")
    for reason, counts in sorted(score.hidden.items()):
        outcomes = ", ".join(f"{name} {count}" for name, count in sorted(counts.items()))
        print(f"| hidden: {reason} | {counts.total()} | {outcomes} |")
    print(f"\nmean distance of landmarks from the true ones: {np.mean(score.landmark_errors):.1%} of the face's height")
    print(f"share of people without a visible face: {n_hidden / (n_visible + n_hidden):.1%}")
    print(", ".join(f"{name}: {value:.1f} s" for name, value in seconds.items()))

    print("\n| input streams | best possible mAP |\n|---|---:|")
    for name, value in best_possible_map(20_000, options.seed, n_hidden / (n_visible + n_hidden)).items():
        print(f"| {name} | {100 * value:.1f} |")


if __name__ == "__main__":
    main()
