"""Parse and faces on real photos of EMOTIC; faces labelled by eye are the reference for the assignment."""

from __future__ import annotations

import csv
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from emoface.jobs.faces import FacesConfig, run_faces
from emoface.jobs.parse import ParseConfig, run_parse
from emoface.storage.records import JobRecord
from emoface.vision.boxes import box_iou

CSV_NAMES = ("train.csv", "val.csv", "test.csv")


@pytest.fixture(scope="module")
def emotic_dir(shared_dir: Path) -> Path:
    """The folder with real photos of EMOTIC, their annotation rows and the labelled faces, or a skip."""
    path = shared_dir / "emotic"
    needed = ("face_truth.json", "photos500/train.csv", "photos500/emotic", "photos_full/train.csv")
    missing = [name for name in needed if not (path / name).exists()]
    if missing:
        pytest.skip(f"no real photos of EMOTIC: {path} lacks {', '.join(missing)}")
    return path


@dataclass(frozen=True)
class Parsed:
    """A parsed data set: the record of the job, and the rows of ``people.parquet``."""

    record: JobRecord
    people: list[dict[str, Any]]


def _parse(annotations: Path, images: Path, out: Path) -> Parsed:
    record = run_parse(ParseConfig(emotic_root=annotations, annotations=annotations, images=images, out=out))
    return Parsed(record, pq.read_table(out / "people.parquet").to_pylist())


# --- parse -----------------------------------------------------------------------------------------------------------


def test_parse_finds_the_people_who_are_annotated_twice(emotic_dir: Path, tmp_path: Path) -> None:
    root = emotic_dir / "photos500"
    parsed = _parse(root, root / "emotic", tmp_path)
    counts = parsed.record.counts
    assert (counts["people"], counts["photos"], counts["photos_missing"]) == (6787, 3130, 0)
    assert counts["people_by_split"] == {"train": 4856, "val": 669, "test": 1262}
    assert counts["irregularities"] == {"photo_repeated": 264, "person_repeated": 642}
    repeated = [row for row in parsed.people if row["same_person_as"] is not None]
    assert len(repeated) == 642
    assert all(row["image"] == parsed.people[row["same_person_as"]]["image"] for row in repeated)


def test_parse_reads_sizes_that_the_rows_list_as_height_and_width(emotic_dir: Path, tmp_path: Path) -> None:
    """The CSV files list [height, width] for emodb_small and [width, height] for the other collections."""
    root = emotic_dir / "photos_full"
    parsed = _parse(root, root / "emotic", tmp_path)
    assert len(parsed.people) == 86 and parsed.record.counts["people_by_source"]["emodb_small"] == 5
    assert set(parsed.record.counts["irregularities"]) == {"photo_repeated", "person_repeated"}
    listed = {}
    for name in CSV_NAMES:
        with (root / name).open(encoding="utf-8", newline="") as stream:
            listed |= {f"{row['Folder']}/{row['Filename']}": row["Image Size"] for row in csv.DictReader(stream)}
    for row in parsed.people:
        with Image.open(root / "emotic" / row["image"]) as photo:
            assert row["image_wh"] == list(photo.size)
        is_transposed = row["source"] == "emodb_small"
        assert json.loads(listed[row["image"]]) == row["image_wh"][:: -1 if is_transposed else 1]


# --- faces -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class FoundFaces:
    """People and faces of the labelled photos: rows of both tables, in the same order, and the labels that are sure."""

    people: list[dict[str, Any]]
    faces: list[dict[str, Any]]
    labels: list[dict[str, Any]]


@pytest.fixture(scope="module")
def found(emotic_dir: Path, weights_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> FoundFaces:
    """The faces that the real detector finds for all people of the labelled photos."""
    labels = json.loads((emotic_dir / "face_truth.json").read_text(encoding="utf-8"))
    chosen = {label["filename"] for label in labels if label["face"] != "unsure"}
    rows, out = tmp_path_factory.mktemp("rows"), tmp_path_factory.mktemp("work")
    for name in CSV_NAMES:
        with (emotic_dir / "photos500" / name).open(encoding="utf-8", newline="") as stream:
            reader = csv.DictReader(stream)
            kept = [row for row in reader if row["Filename"] in chosen]
        with (rows / name).open("w", encoding="utf-8", newline="") as stream:
            writer = csv.DictWriter(stream, reader.fieldnames or [])
            writer.writeheader()
            writer.writerows(kept)
    people = _parse(rows, emotic_dir / "photos500" / "emotic", out).people
    run_faces(FacesConfig(dir=out, weights=weights_dir / "yolov5n-face.param"))
    faces = pq.read_table(out / "faces.parquet").to_pylist()
    return FoundFaces(people, faces, [label for label in labels if label["face"] != "unsure"])


def test_labelled_people_get_their_own_faces(found: FoundFaces) -> None:
    """At least 95 % of the faces of 10 px and more go to their own person; at most 3 % of the given faces are wrong.

    The weights of the assignment were fitted on these people. ``docs/benchmarks/head_prior.py`` cross-validates them.
    """
    own = wrong = own_large = n_large = 0
    for label in found.labels:
        face_xyxy = _face_of(label, found)
        true_xyxy = label["faces"][label["face"]] if isinstance(label["face"], int) else None
        is_large = true_xyxy is not None and min(true_xyxy[2] - true_xyxy[0], true_xyxy[3] - true_xyxy[1]) >= 10
        is_own = face_xyxy is not None and true_xyxy is not None and _overlap(face_xyxy, true_xyxy) > 0.5
        own += is_own
        wrong += face_xyxy is not None and not is_own
        own_large += is_own and is_large
        n_large += is_large
    assert n_large > 200 and own_large >= 0.95 * n_large
    assert wrong <= 0.03 * (own + wrong)


def _face_of(label: dict[str, Any], found: FoundFaces) -> list[float] | None:
    """The face that was given to a labelled person."""
    distances = {
        row: float(np.abs(np.subtract(person["body_bbox"], label["bbox"])).max())
        for row, person in enumerate(found.people)
        if person["image"].endswith(f"/{label['filename']}")
    }
    nearest = min(distances, key=distances.__getitem__)
    assert distances[nearest] <= 2
    face_xyxy: list[float] | None = found.faces[nearest]["face_bbox"]
    return face_xyxy


def _overlap(first_xyxy: list[float], second_xyxy: list[float]) -> float:
    return float(box_iou(np.array([first_xyxy], np.float32), np.array([second_xyxy], np.float32))[0, 0])


def test_both_rows_of_a_repeated_person_have_the_same_face(found: FoundFaces) -> None:
    repeated = [
        (row, person["same_person_as"])
        for row, person in enumerate(found.people)
        if person["same_person_as"] is not None
    ]
    assert len(repeated) > 50
    columns = ("face", "face_bbox", "landmarks", "conf", "assignment_margin", "face_status")
    for row, first in repeated:
        one, other = ({name: found.faces[k][name] for name in columns} for k in (row, first))
        for face in (one, other):
            face["face"] = face["face"] and face["face"]["bytes"]
        assert one == other
    assert sum(found.faces[row]["face_status"] == "found" for row, _ in repeated) > 25


def test_no_face_is_given_to_two_people(found: FoundFaces) -> None:
    given = [
        (person["image"], *face["face_bbox"])
        for person, face in zip(found.people, found.faces, strict=True)
        if face["face_bbox"] is not None and person["same_person_as"] is None
    ]
    assert len(given) == len(set(given)) > 100
