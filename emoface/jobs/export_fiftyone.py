"""The export-fiftyone job: writes a data set, and the predictions of a run for it, for FiftyOne."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from emoface.datasets.fiftyone_files import METADATA_NAME, SAMPLES_NAME, detection, sample, to_share_box, write_fiftyone
from emoface.datasets.manifest import MANIFEST_NAME, Manifest, read_manifest
from emoface.datasets.photos import PhotoFolder, PhotoRows, group_photos
from emoface.datasets.predictions import find_predictions, find_scored, predictions_path, read_predictions
from emoface.errors import ImageError, SettingsError
from emoface.prefetch import map_ahead
from emoface.progress import SILENT, Progress
from emoface.schema import DIMENSIONS, SPLIT_SCHEMA
from emoface.storage.records import JobRecord, code_fingerprint, hash_inputs, hash_outputs, to_settings
from emoface.storage.settings import Folder, Settings
from emoface.storage.tables import read_table
from emoface.storage.urls import is_url
from emoface.vision.orientation import NO_TURN, Turn

_COLUMNS = [
    *("index", "person_id", "image", "image_wh", "body_bbox", "categories", *DIMENSIONS),
    *("gender", "age", "face_bbox", "conf", "face_status"),
]
_REMEDY = "rebuild it with 'emoface split DIR'"
_N_THREADS = 8
_LIKELY = 0.5
"""Probability from which a label is listed among the predicted ones."""

Probabilities = dict[str, float]
"""The predicted probabilities of a person, by label."""


class ExportFiftyoneConfig(Settings):
    """Settings of the export-fiftyone job."""

    dir: Folder
    """Folder of the data set, with manifest.json."""
    out: Folder
    """Folder to write metadata.json and samples.json to; an empty or a new one, or one that was exported before."""
    run: Folder | None = None
    """Folder of an evaluated run, or of scored predictions, whose predictions are written too, for each split that was
    evaluated."""


def run_export_fiftyone(config: ExportFiftyoneConfig, progress: Progress = SILENT) -> JobRecord:
    """Writes the people, faces and labels of all splits, and predictions if a run is given.

    The photos are not copied; the files have their paths. Boxes are those of the upright photos, whose headers are
    read; a photo that is missing keeps the boxes of its annotations.

    Args:
        config: Settings of the job.
        progress: Receives one step per photo.

    Returns:
        The job's record; it is not written to disk, the two files are the only output.

    Raises:
        SettingsError: The run has no predictions, or the folder to write to holds something else.
        TableError: The manifest or a table is missing, or a table is not what the manifest says.
        PredictionsError: A file of predictions is damaged.
    """
    manifest = read_manifest(config.dir / MANIFEST_NAME, check_sha256=True)
    _check_folder(config.out)
    guesses = {} if config.run is None else _read_guesses(config.run, manifest)
    kinds = ["people", "faces", *(["predictions"] if guesses else [])]
    progress.start("photos", sum(one.photos for one in manifest.splits.values()))
    samples = _describe_photos(manifest, guesses, kinds, progress)
    written = write_fiftyone(config.out, config.dir.resolve().name, samples, kinds)
    return JobRecord(
        job="export-fiftyone",
        settings=to_settings(config),
        inputs=hash_inputs([manifest.path]),
        outputs=hash_outputs(config.out, written),
        counts={
            "people": sum(one.rows for one in manifest.splits.values()),
            "predictions": len(guesses),
            "written": str(config.out),
        },
        code=code_fingerprint(__name__),
    )


def _check_folder(out: Path) -> None:
    if out.is_dir() and any(path.name not in (METADATA_NAME, SAMPLES_NAME) for path in out.iterdir()):
        raise SettingsError(f"{out}: holds other files than a data set for FiftyOne; choose an empty or a new folder")


def _read_guesses(run: Path, manifest: Manifest) -> dict[str, Probabilities]:
    """Reads the predictions of every evaluated split, by ``person_id``."""
    if (scored := find_scored(run)) is not None:
        paths = [find_predictions(run, scored.split)]
    else:
        paths = [path for split in manifest.splits if (path := predictions_path(run, split)).is_file()]
    if not paths:
        raise SettingsError(f"{run}: has no predictions; evaluate the run first with 'emoface evaluate {run}'")
    guesses: dict[str, Probabilities] = {}
    for path in paths:
        predictions = read_predictions(path)
        for person_id, row in zip(predictions.person_ids, predictions.probabilities.tolist(), strict=True):
            named = zip(predictions.label_names, row, strict=True)
            guesses[person_id] = {name: round(value, 6) for name, value in named}
    return guesses


def _describe_photos(
    manifest: Manifest, guesses: Mapping[str, Probabilities], kinds: list[str], progress: Progress
) -> Iterator[dict[str, Any]]:
    """Describes each photo once, with the people of all splits."""
    rows = [
        {**row, "split": split}
        for split in manifest.splits
        for row in read_table(manifest.split_path(split), SPLIT_SCHEMA, _REMEDY, _COLUMNS).to_pylist()
    ]
    wh = np.array([row["image_wh"] for row in rows], np.float32).reshape(-1, 2)
    photos, folder = group_photos([row["image"] for row in rows], wh), manifest.photos
    with ThreadPoolExecutor(_N_THREADS) as pool:
        turns = map_ahead(pool, lambda photo: _find_turn(folder, photo), photos, 4 * _N_THREADS)
        for photo, turn in zip(photos, turns, strict=True):
            people = [rows[row] for row in photo.rows]
            tags = list(dict.fromkeys(person["split"] for person in people))
            yield sample(_photo_path(folder, photo.image), tags, _describe_boxes(people, turn, guesses, kinds))
            progress.advance()


def _photo_path(folder: PhotoFolder, image: str) -> str:
    place = str(folder.store.place(image))
    return place if is_url(place) else str(Path(place).absolute())


def _find_turn(folder: PhotoFolder, photo: PhotoRows) -> Turn:
    """The change from the frame of the boxes to the upright photo; none if the photo cannot be read."""
    try:
        size = folder.store.read_size(photo.image)
    except ImageError:
        return Turn(NO_TURN, photo.image_wh)
    return size.turn_from(size.find_frame(photo.image_wh) or folder.undecided_frame)


def _describe_boxes(
    people: list[dict[str, Any]], turn: Turn, guesses: Mapping[str, Probabilities], kinds: list[str]
) -> dict[str, list[dict[str, Any]]]:
    found: dict[str, list[dict[str, Any]]] = {kind: [] for kind in kinds}
    if 0 in turn.upright_wh:  # a missing photo whose annotations have no size either
        return found
    for person in people:
        index, person_id = person["index"], person["person_id"]
        if person["body_bbox"] is not None:
            box = _to_box(person["body_bbox"], turn)
            facts = {name: person[name] for name in (*DIMENSIONS, "gender", "age", "face_status", "split")}
            found["people"].append(
                detection("person", box, index, person_id=person_id, categories=person["categories"], **facts)
            )
            if person_id in guesses:
                found["predictions"].append(_describe_guess(guesses[person_id], box, index, person_id))
        if person["face_bbox"] is not None:
            box = _to_box(person["face_bbox"], turn)
            found["faces"].append(detection("face", box, index, person_id=person_id, confidence=person["conf"]))
    return found


def _describe_guess(guess: Probabilities, box: list[float], index: int, person_id: str) -> dict[str, Any]:
    label, confidence = max(guess.items(), key=lambda pair: pair[1])
    likely = [name for name, value in guess.items() if value >= _LIKELY]
    return detection(
        *(label, box, index),
        person_id=person_id,
        confidence=confidence,
        categories=likely,
        probabilities=guess,
    )


def _to_box(xyxy: list[float], turn: Turn) -> list[float]:
    upright = turn.to_upright(np.array([xyxy], np.float32))[0]
    return to_share_box(upright.tolist(), turn.upright_wh)
