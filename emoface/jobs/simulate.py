"""The simulate job: draws a simulated EMOTIC with the folder layout of the real one, and writes its ground truth.

Photo k depends on the seed and k alone, so neither the number of processes nor an interruption changes a byte.
Photos are drawn in shards; a later run keeps the shards whose photos all exist.
"""

from __future__ import annotations

import functools
import io
import json
import shutil
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import cv2
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from PIL import Image
from pydantic import AfterValidator, Field

from emoface.emotic import PersonAnnotation, PhotoAnnotation, write_annotations_mat
from emoface.errors import SettingsError
from emoface.prefetch import count_usable_cpus, in_batches
from emoface.progress import SILENT, Progress
from emoface.schema import CATEGORIES, GROUND_TRUTH_SCHEMA, SIMULATION_NAME, SPLITS
from emoface.simulator import DrawnPerson, DrawnPhoto, draw_photo, draw_plan, label_probabilities
from emoface.simulator.causes import draw_dimensions, draw_labels
from emoface.simulator.variety import draw_varied_photo
from emoface.storage.files import parse_json, read_text, remove_leftovers, write_bytes, write_text
from emoface.storage.locks import locked
from emoface.storage.records import JobRecord, code_fingerprint, finish_job, record_path
from emoface.storage.settings import Count, Folder, Seed, Settings
from emoface.storage.shards import ShardFolder, Summary, SummaryModel, shards_key
from emoface.storage.tables import write_table
from emoface.vision.images import encode_jpeg
from emoface.worker_processes import run_in_processes

SOURCE_SHARES: dict[str, float] = {"mscoco": 0.613, "framesdb": 0.302, "emodb_small": 0.066, "ade20k": 0.019}
"""Share of people per source, counted on the 33,784 rows of EMOTIC that circulate as CSV."""

PERSON_IRREGULARITIES: dict[str, float] = {
    "swapped_box": 0.004,
    "box_beyond_photo": 0.01,
    "float_box": 0.02,
    "nan_dimension": 0.006,
    "odd_spelling": 0.004,
    "unknown_category": 0.002,
    "no_gender": 0.004,
}
PHOTO_IRREGULARITIES: dict[str, float] = {
    "no_people": 0.003,
    "wrong_image_size": 0.004,
    "exif_turned": 0.005,
    "photo_missing": 0.003,
    "photo_broken": 0.003,
    "listed_again": 0.023,
}
"""Share of people and of photos with each irregularity of the real release; a person or photo has at most one.

Only photos of train are listed again, in val, with the same people: 1.6 % of all photos.
"""

NEARNESS_NAME = "depth"
"""Folder of the true nearness of the photos' pixels, beside ``emotic``."""
NEARNESS_SIDE = 256
"""Longer side of these maps, pixels."""

_SPLIT_SHARES = (0.7, 0.1, 0.2)
_PHOTOS_PER_SHARD = 40
_MAX_TRIES = 6
_N_ANNOTATORS = {"train": 1, "val": 5, "test": 3}


class SimulateConfig(Settings):
    """Settings of the simulate job."""

    out: Folder
    """Folder to write to; it gets the layout of an EMOTIC root."""
    images: Count = 200
    """Number of photos to draw."""
    seed: Seed = 0
    """Random seed; the same seed gives the same bytes."""
    varied: bool = False
    """Draw photos for training a face detector: far more varied than EMOTIC, without irregularities."""


_Vad = Annotated[list[float | None], Field(min_length=3, max_length=3)]


class _DrawnPersonEntry(SummaryModel):
    body_bbox: list[float]
    annotator_categories: list[list[str]]
    annotator_vad: list[_Vad]
    categories: list[str]
    vad: _Vad
    gender: str | None
    age: str | None


class _DrawnPhotoEntry(SummaryModel):
    filename: str
    folder: str
    image_wh: Annotated[list[int], Field(min_length=2, max_length=2)]
    source_split: str
    database_name: str
    people: list[_DrawnPersonEntry]


def _check_truths(truths: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Checks that rows of ground truth have the columns of their table, with values of their types."""
    for truth in truths:
        if missing := [name for name in GROUND_TRUTH_SCHEMA.names if name not in truth]:
            raise ValueError(f"{missing[0]} is missing")
    try:
        table = pa.Table.from_pylist(truths, schema=GROUND_TRUTH_SCHEMA)
    except (pa.ArrowException, OverflowError) as error:
        raise ValueError(str(error)) from error
    for column in GROUND_TRUTH_SCHEMA:
        if not column.nullable and table[column.name].null_count:
            raise ValueError(f"{column.name} is null")
    return truths


class _DrawnShard(SummaryModel):
    """The summary of a shard: annotations, ground truth, the names of irregularities, and the photos' files."""

    photos: list[_DrawnPhotoEntry]
    truths: Annotated[list[dict[str, Any]], AfterValidator(_check_truths)]
    irregularities: dict[str, int]
    files: list[str]


@locked("out")
def run_simulate(config: SimulateConfig, progress: Progress = SILENT) -> JobRecord:
    """Draws photos of people, and writes their annotations and the ground truth.

    Args:
        config: Settings of the simulation.
        progress: Receives one step per photo.

    Returns:
        The job's record. ``OUT/emotic/`` holds the photos, ``OUT/Annotations/Annotations.mat`` the annotations with
        their irregularities, ``OUT/ground_truth.parquet`` the truth, and ``OUT/depth/`` the nearness of the photos'
        pixels.

    Raises:
        SettingsError: ``out`` holds files that are not a simulation.
    """
    code = code_fingerprint(__name__)
    folder = _prepare(config, code)
    record_path(config.out, "simulate").unlink(missing_ok=True)  # an unfinished simulation must not have a record
    shards = list(in_batches(range(config.images), _PHOTOS_PER_SHARD))

    def has_all_photos(_number: int, _shard: list[int], summary: Summary) -> bool:
        return all(
            (config.out / "emotic" / name).is_file() and nearness_path(config.out, name).is_file()
            for name in summary["files"]
        )

    progress.start("simulate", config.images)
    pending = folder.find_pending(shards, has_all_photos, progress)
    if pending:
        folder.remove_leftovers()
        for source in SOURCE_SHARES:
            remove_leftovers(config.out / "emotic" / source / "images" / "*.jpg")
            remove_leftovers(config.out / NEARNESS_NAME / source / "images" / "*.png")
        _draw_shards(config, folder, pending, progress)

    photos: list[PhotoAnnotation] = []
    truths: list[dict[str, Any]] = []
    counts: Counter[str] = Counter(dict.fromkeys((*PERSON_IRREGULARITIES, *PHOTO_IRREGULARITIES), 0))
    for number in range(len(shards)):
        summary = folder.read_summary(number)
        photos += [_to_annotation(photo) for photo in summary["photos"]]
        truths += summary["truths"]
        counts += Counter(summary["irregularities"])
    annotations_path = config.out / "Annotations" / "Annotations.mat"
    write_annotations_mat(annotations_path, photos)
    truth_path = config.out / "ground_truth.parquet"
    write_table(truth_path, pa.Table.from_pylist(truths, schema=GROUND_TRUTH_SCHEMA), GROUND_TRUTH_SCHEMA)
    return finish_job(
        "simulate",
        config,
        config.out,
        module=__name__,
        inputs={},
        outputs=[annotations_path, truth_path],
        counts=_count(photos, truths, counts),
        info={"image_root": str((config.out / "emotic").resolve())},
    )


def nearness_path(out: Path, image: str) -> Path:
    """Returns the path of the true nearness of a photo's pixels, an 8-bit PNG as ``emoface depth --maps`` reads it."""
    return out / NEARNESS_NAME / Path(image).with_suffix(".png")


def _encode_nearness(nearness: NDArray[np.uint8]) -> bytes:
    size = NEARNESS_SIDE / max(nearness.shape)
    scaled = cv2.resize(nearness, None, fx=size, fy=size, interpolation=cv2.INTER_AREA)
    is_encoded, png = cv2.imencode(".png", scaled)
    assert is_encoded
    return png.tobytes()


def _prepare(config: SimulateConfig, code: str) -> ShardFolder:
    """Opens the folder of finished shards; a simulation with other settings or older code is removed."""
    key = shards_key([config.images, config.seed, config.varied, code])
    marker, folder = config.out / SIMULATION_NAME, ShardFolder(config.out / "simulate_shards", _DrawnShard)
    if marker.is_file():
        if _read_key(marker) == key:
            return folder
        for older in (*(config.out / name for name in ("emotic", "Annotations", NEARNESS_NAME)), folder.path):
            if older.exists():
                shutil.rmtree(older)
        (config.out / "ground_truth.parquet").unlink(missing_ok=True)
    elif any((config.out / name).exists() for name in ("emotic", "Annotations", NEARNESS_NAME, "ground_truth.parquet")):
        raise SettingsError(
            f"{config.out}: holds an 'emotic' or 'Annotations' that no simulation wrote; choose an empty folder"
        )
    write_text(marker, json.dumps({"key": key, "images": config.images, "seed": config.seed}) + "\n")
    return folder


def _draw_shards(
    config: SimulateConfig, folder: ShardFolder, pending: list[tuple[int, list[int]]], progress: Progress
) -> None:
    n_processes = min(count_usable_cpus(), len(pending))
    draw = functools.partial(_draw_shard, config, folder)
    if n_processes <= 1:
        for shard in pending:
            progress.advance(draw(shard))
        return
    run_in_processes(draw, pending, n_processes, progress.advance)


def _read_key(marker: Path) -> str:
    """Reads the key of the simulation in a folder, whose files may be replaced only if a simulation wrote them."""
    try:
        content = parse_json(read_text(marker, SettingsError))
    except ValueError:
        content = None
    key = content.get("key") if isinstance(content, dict) else None
    if not isinstance(key, str):
        raise SettingsError(
            f"{marker}: not the description of a simulation, expected an object with its key; choose an empty folder, "
            "or remove the simulation there"
        )
    return key


def _draw_shard(config: SimulateConfig, folder: ShardFolder, shard: tuple[int, Sequence[int]]) -> int:
    """Draws the photos of one shard, then writes the shard's summary; returns the number of photos."""
    shard_number, numbers = shard
    folder.unmark(shard_number)
    photos, truths, files = [], [], []
    irregularities: Counter[str] = Counter()
    for number in numbers:
        rng = np.random.default_rng(np.random.SeedSequence((config.seed, number)))
        drawn = draw_varied_photo(rng) if config.varied else _draw_clear_photo(rng)
        listings, rows, names, jpeg = _annotate(rng, number, drawn, has_irregularities=not config.varied)
        photos += listings
        truths += rows
        irregularities.update(names)
        if jpeg is not None:
            file = f"{listings[0]['folder']}/{listings[0]['filename']}"
            write_bytes(config.out / "emotic" / file, jpeg)
            write_bytes(nearness_path(config.out, file), _encode_nearness(drawn.nearness))
            files.append(file)
    summary = {"photos": photos, "truths": truths, "irregularities": irregularities, "files": files}
    folder.mark_done(shard_number, json.dumps(summary))
    return len(numbers)


def _draw_clear_photo(rng: np.random.Generator) -> DrawnPhoto:
    """Draws photos until each face is clearly visible or clearly hidden; after ``_MAX_TRIES`` the last one is used."""
    for _ in range(_MAX_TRIES):
        drawn = draw_photo(rng, draw_plan(rng))
        annotated = [person for person in drawn.people if person.plan.is_annotated]
        if annotated and all(person.is_clear for person in drawn.people):
            break
    return drawn


def _annotate(
    rng: np.random.Generator, number: int, drawn: DrawnPhoto, has_irregularities: bool
) -> tuple[list[dict[str, Any]], list[dict[str, Any]], list[str], bytes | None]:
    """Annotates a drawn photo.

    Returns:
        The entries of the photo in the annotations; one row of ground truth per annotation or bystander; the names of
        the photo's irregularities; the JPEG bytes of the photo, None if the photo is to be missing.
    """
    source = str(rng.choice(list(SOURCE_SHARES), p=list(SOURCE_SHARES.values())))
    split = str(rng.choice(SPLITS, p=_SPLIT_SHARES))
    folder, filename = f"{source}/images", _file_name(rng, source, number)
    height, width = drawn.photo.shape[:2]
    of_photo = _pick_irregularity(rng, PHOTO_IRREGULARITIES if has_irregularities else {})
    if of_photo == "listed_again" and split != "train":
        of_photo = ""
    irregularities = [of_photo] if of_photo else []
    people: list[dict[str, Any]] = []
    truths: list[dict[str, Any]] = []
    for person in drawn.people:
        is_annotated = person.plan.is_annotated and of_photo != "no_people"
        truth = _to_truth(person, f"{folder}/{filename}")
        if is_annotated:
            truth |= {"person_id": f"{folder}/{filename}#{len(people)}", "annotated": True}
            of_person = _pick_irregularity(rng, PERSON_IRREGULARITIES if has_irregularities else {})
            if of_person == "box_beyond_photo" and min(_border_distances(person, (width, height))) > 0.1 * height:
                of_person = ""  # this person is too far from the border for a box beyond the photo
            irregularities += [of_person] if of_person else []
            people.append(_annotate_person(rng, person, (width, height), split, of_person))
        truths.append(truth)
    image_wh = (width + 37, height - 11) if of_photo == "wrong_image_size" else (width, height)
    photo = {
        "filename": filename,
        "folder": folder,
        "image_wh": image_wh,
        "source_split": split,
        "database_name": source,
        "people": people,
    }
    jpeg = _encode(rng, drawn, of_photo)
    if of_photo != "listed_again":
        return [photo], truths, irregularities, jpeg
    again = {**photo, "source_split": "val", "people": [_annotate_again(rng, person) for person in people]}
    repeated = [truth for truth in truths if truth["annotated"]]
    for number_again, truth in enumerate(repeated, len(people)):
        truths.append({**truth, "person_id": f"{folder}/{filename}#{number_again}"})
    return [photo, again], truths, irregularities, jpeg


def _annotate_again(rng: np.random.Generator, person: dict[str, Any]) -> dict[str, Any]:
    """Annotates a person of train once more, for val: the same box, and more annotators beside the one of train."""
    categories, vads = list(person["annotator_categories"]), list(person["annotator_vad"])
    for _ in range(_N_ANNOTATORS["val"] - 1):
        others = [name for name in CATEGORIES if rng.random() < 0.06]
        categories.append([name for name in categories[0] if rng.random() < 0.8] + others or categories[0])
        vads.append(np.clip(np.array(vads[0]) + rng.integers(-1, 2, 3), 1, 10).tolist())
    combined = [name for name in CATEGORIES if any(name in chosen for chosen in categories)]
    return {
        **person,
        "annotator_categories": categories,
        "annotator_vad": vads,
        "categories": combined,
        "vad": np.mean(vads, axis=0).tolist(),
    }


def _annotate_person(
    rng: np.random.Generator, person: DrawnPerson, image_wh: tuple[int, int], split: str, irregularity: str
) -> dict[str, Any]:
    """Annotates one person: the box is slightly inaccurate, and annotators differ in categories and dimensions."""
    probabilities = label_probabilities(person.plan.cause)
    labels = draw_labels(rng, probabilities)
    dimensions = np.array(draw_dimensions(rng, labels))
    categories, vads = [], []
    for _ in range(_N_ANNOTATORS[split]):
        chosen = labels.copy()
        if split != "train":
            chosen = (labels & (rng.random(26) < 0.8)) | (rng.random(26) < 0.04 * probabilities)
            chosen = chosen.astype(np.uint8) if chosen.any() else labels
        categories.append([CATEGORIES[k] for k in np.flatnonzero(chosen)])
        vads.append(np.clip(dimensions + rng.integers(-1, 2, 3) * (split != "train"), 1, 10).tolist())
    combined = [name for name in CATEGORIES if any(name in chosen for chosen in categories)]
    vad = np.mean(vads, axis=0).tolist()
    gender: str | None = person.plan.gender
    if irregularity == "nan_dimension":
        vad[1], vads[0][1] = float("nan"), float("nan")
    elif irregularity == "odd_spelling":
        combined[0] = categories[0][0] = combined[0].replace("/", " / ").lower() + " "
    elif irregularity == "unknown_category":
        combined.append("Boredom")
        categories[0].append("Boredom")
    elif irregularity == "no_gender":
        gender = None
    return {
        "body_bbox": _annotate_box(rng, person, image_wh, irregularity),
        "annotator_categories": categories,
        "annotator_vad": vads,
        "categories": combined,
        "vad": vad,
        "gender": gender,
        "age": person.plan.age,
    }


def _annotate_box(
    rng: np.random.Generator, person: DrawnPerson, image_wh: tuple[int, int], irregularity: str
) -> list[float]:
    x1, y1, x2, y2 = person.body_xyxy
    spread = 0.012 * np.array([x2 - x1, y2 - y1, x2 - x1, y2 - y1])
    limits = np.array([*image_wh, *image_wh])
    box = np.clip(np.array([x1, y1, x2, y2]) + rng.normal(0, spread), 0, limits)
    if irregularity == "box_beyond_photo":
        side = int(np.argmin(_border_distances(person, image_wh)))
        beyond = 3 + 0.02 * limits[side]
        box[side] = -beyond if side < 2 else limits[side] + beyond
    if irregularity != "float_box":
        box = np.round(box)
    if irregularity == "swapped_box":
        box = box[[2, 1, 0, 3]]
    return [float(value) for value in box]


def _border_distances(person: DrawnPerson, image_wh: tuple[int, int]) -> tuple[float, float, float, float]:
    """Distances in pixels of a body box from the left, upper, right and lower border of the photo."""
    x1, y1, x2, y2 = person.body_xyxy
    return x1, y1, image_wh[0] - x2, image_wh[1] - y2


def _to_truth(person: DrawnPerson, image: str) -> dict[str, Any]:
    cause = person.plan.cause
    return {
        "image": image,
        "person_id": None,
        "annotated": False,
        "body_bbox": list(person.body_xyxy),
        "face_bbox": None if person.face_xyxy is None else list(person.face_xyxy),
        "landmarks": None if person.landmarks is None else person.landmarks.ravel().tolist(),
        "points": np.round(person.points, 2).ravel().tolist(),
        "face_visible": not person.hidden_by,
        "hidden_by": person.hidden_by or None,
        "expression": cause.expression,
        "posture": cause.posture,
        "clothes": cause.clothes,
        "place": cause.place,
        "object": cause.object,
        "label_probabilities": label_probabilities(cause).tolist(),
    }


def _encode(rng: np.random.Generator, drawn: DrawnPhoto, irregularity: str) -> bytes | None:
    if irregularity == "photo_missing":
        return None
    quality = int(rng.integers(55, 97))
    if irregularity == "exif_turned":
        stream, exif = io.BytesIO(), Image.Exif()
        exif[0x0112] = 6  # orientation tag: stored turned 90 degrees to the left, viewers turn it back
        Image.fromarray(np.rot90(drawn.photo)).save(stream, "JPEG", quality=quality, exif=exif)
        return stream.getvalue()
    jpeg = encode_jpeg(drawn.photo, quality)
    return jpeg[: len(jpeg) // 2] if irregularity == "photo_broken" else jpeg


def _file_name(rng: np.random.Generator, source: str, number: int) -> str:
    """A file name in the style of the source; the photo's number makes it unique."""
    token = "".join("abcdefghijklmnopqrstuvwxyz"[k] for k in rng.integers(0, 26, 8))
    names = {
        "mscoco": f"COCO_sim_{number:012}.jpg",
        "framesdb": f"frame_{token}{number:06}.jpg",
        "emodb_small": f"{token}{number:06}.jpg",
        "ade20k": f"sim_{number:08}.jpg",
    }
    return names[source]


def _pick_irregularity(rng: np.random.Generator, shares: dict[str, float]) -> str:
    draw = float(rng.random())
    for name, share in shares.items():
        draw -= share
        if draw < 0:
            return name
    return ""


def _to_annotation(photo: dict[str, Any]) -> PhotoAnnotation:
    people = tuple(
        PersonAnnotation(
            body_bbox=tuple(person["body_bbox"]),
            annotator_categories=tuple(tuple(names) for names in person["annotator_categories"]),
            annotator_vad=tuple(tuple(vad) for vad in person["annotator_vad"]),
            categories=tuple(person["categories"]),
            vad=tuple(person["vad"]),
            gender=person["gender"],
            age=person["age"],
        )
        for person in photo["people"]
    )
    return PhotoAnnotation(
        filename=photo["filename"],
        folder=photo["folder"],
        image_wh=tuple(photo["image_wh"]),
        source_split=photo["source_split"],
        database_name=photo["database_name"],
        database_info={},
        people=people,
    )


def _count(photos: list[PhotoAnnotation], truths: list[dict[str, Any]], irregularities: Counter[str]) -> dict[str, Any]:
    hidden = Counter(truth["hidden_by"] for truth in truths if truth["annotated"] and truth["hidden_by"])
    return {
        "photos": len({photo.image for photo in photos}),
        "people": sum(len(photo.people) for photo in photos),
        "bystanders": sum(not truth["annotated"] for truth in truths),
        "visible_faces": sum(truth["face_visible"] for truth in truths if truth["annotated"]),
        "hidden_faces": dict(sorted(hidden.items())),
        "irregularities": {name: irregularities[name] for name in (*PERSON_IRREGULARITIES, *PHOTO_IRREGULARITIES)},
    }
