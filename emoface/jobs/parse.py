"""The parse job: EMOTIC's annotations to ``people.parquet``, one row per annotated person, and ``parse_notes.csv``.

Every irregularity is mended or refused by a rule of ``emoface.emotic.mending``, noted, and counted; none stops the run.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa

from emoface.cards import read_card
from emoface.emotic import (
    MendedPerson,
    Note,
    PhotoAnnotation,
    mend_person,
    read_annotations_csv,
    read_annotations_mat,
)
from emoface.errors import AnnotationsError, ImageError
from emoface.files import file_sha256, write_text
from emoface.images import PhotoSize, needs_exif_turn, read_photo_size
from emoface.prefetch import map_ahead
from emoface.progress import SILENT, Progress
from emoface.records import (
    JobRecord,
    code_fingerprint,
    hash_outputs,
    photo_inputs,
    to_settings,
    write_record,
)
from emoface.schema import DIMENSIONS, PARSE_NOTE_COLUMNS, PEOPLE_SCHEMA, SOURCES, SPLITS
from emoface.tables import write_table

MAT_NAMES = ("Annotations.mat", "CVPR17_Annotations.mat")
"""The released annotation files, the newer one first."""

_THREADS = 8
_AHEAD = 256


@dataclass(frozen=True)
class ParseConfig:
    """What the parse job is told.

    Attributes:
        emotic_root: EMOTIC's folder: ``Annotations/Annotations.mat`` beside ``emotic/``, the image root.
        out: The folder for ``people.parquet``.
        annotations: The annotation file (``.mat``, or one ``.csv``), or a folder of ``train.csv``, ``val.csv`` and
            ``test.csv``, where it is elsewhere.
        images: The image root, where it is elsewhere.
    """

    emotic_root: Path
    out: Path
    annotations: Path | None = None
    images: Path | None = None


@dataclass(frozen=True)
class FoundSize:
    """What is known of a photo's size.

    Attributes:
        image_wh: In the frame of its boxes, pixels; None where nobody knows.
        state: ``found``, ``missing`` or ``unreadable``.
    """

    image_wh: tuple[int, int] | None
    state: str


def run_parse(config: ParseConfig, progress: Progress = SILENT) -> JobRecord:
    """Reads EMOTIC's annotations into one row per person.

    Args:
        config: What to read.
        progress: Told of each photo.

    Returns:
        The job's record; ``people.parquet`` and ``parse_notes.csv`` are written.

    Raises:
        AnnotationsError: There are no annotations, or they cannot be read.
    """
    files = find_annotations(config.emotic_root, config.annotations)
    image_root = find_image_root(config.emotic_root, config.images)
    photos = _read_annotations(files)
    progress.start("parse", len(photos))
    rows: list[dict[str, Any]] = []
    notes: list[Note] = []
    states: Counter[str] = Counter()
    n_of_photo: Counter[str] = Counter()
    for photo, size in zip(photos, _find_sizes(image_root, photos), strict=True):
        states[size.state] += photo.image not in n_of_photo
        notes += _photo_notes(photo, size, is_repeated=photo.image in n_of_photo)
        for person in photo.people:
            person_id = f"{photo.image}#{n_of_photo[photo.image]}"
            mended, person_notes = mend_person(person, person_id, size.image_wh)
            rows.append(_to_row(len(rows), person_id, photo, size, mended))
            notes += person_notes
            n_of_photo[photo.image] += 1
        n_of_photo.setdefault(photo.image, 0)
        progress.advance()

    people_path, notes_path = config.out / "people.parquet", config.out / "parse_notes.csv"
    write_table(people_path, pa.Table.from_pylist(rows, schema=PEOPLE_SCHEMA), PEOPLE_SCHEMA)
    _write_notes(notes_path, notes)
    record = JobRecord(
        job="parse",
        settings=to_settings(config),
        inputs={
            **{str(path): file_sha256(path) for path in files.values()},
            **photo_inputs(image_root, (row["image"] for row in rows)),
        },
        outputs=hash_outputs(config.out, [people_path, notes_path]),
        counts=_count(rows, photos, states, notes),
        info={
            "image_root": str(image_root.resolve()),
            "annotations": str((config.annotations or next(iter(files.values()))).resolve()),
        },
        code=code_fingerprint(__name__),
    )
    write_record(config.out, record)
    return record


def find_annotations(emotic_root: Path, annotations: Path | None = None) -> dict[str, Path]:
    """Finds the annotation files.

    Args:
        emotic_root: EMOTIC's folder.
        annotations: A file or folder to use instead.

    Returns:
        Under ``mat`` the one released file, or under ``train``, ``val`` and ``test`` the CSV file of each split.

    Raises:
        AnnotationsError: There is none; the message names every place that was looked at.
    """
    if annotations is not None and annotations.is_file():
        if annotations.suffix.lower() == ".csv":
            split = next((name for name in SPLITS if name in annotations.stem.lower()), None)
            if split is None:
                raise AnnotationsError(
                    f"{annotations}: cannot tell its split; name a CSV file train.csv, val.csv or test.csv, or give "
                    "their folder"
                )
            return {split: annotations}
        return {"mat": annotations}
    if annotations is not None and not annotations.is_dir():
        raise AnnotationsError(
            f"{annotations}: no such file or folder; --annotations names a .mat or .csv file or a folder"
        )
    folders = [annotations] if annotations is not None else [emotic_root / "Annotations", emotic_root]
    looked = []
    for folder in folders:
        for name in MAT_NAMES:
            looked.append(folder / name)
            if looked[-1].is_file():
                return {"mat": looked[-1]}
    for folder in folders:
        found = {split: folder / f"{split}.csv" for split in SPLITS if (folder / f"{split}.csv").is_file()}
        looked.append(folder / "train.csv")
        if found:
            return found
    raise AnnotationsError(
        f"{annotations or emotic_root}: no annotations; looked for {', '.join(map(str, looked))} (with val.csv, "
        "test.csv); say where they are with --annotations FILE_OR_FOLDER"
    )


def find_image_root(emotic_root: Path, images: Path | None = None) -> Path:
    """The folder below which ``mscoco/images/...`` lie; it may be absent, annotations can be read without photos.

    Args:
        emotic_root: EMOTIC's folder.
        images: A folder to use instead.

    Raises:
        AnnotationsError: ``images`` is given and is no folder.
    """
    if images is not None:
        if not images.is_dir():
            raise AnnotationsError(f"{images}: no such folder; --images names the one that holds mscoco/images")
        return images
    beside = emotic_root / "emotic"
    if not beside.is_dir() and any((emotic_root / source).is_dir() for source in SOURCES):
        return emotic_root
    return beside


def _read_annotations(files: dict[str, Path]) -> list[PhotoAnnotation]:
    photos = read_annotations_mat(files["mat"]) if "mat" in files else read_annotations_csv(files)
    if not any(photo.people for photo in photos):
        raise AnnotationsError(
            f"{', '.join(map(str, files.values()))}: nobody is annotated; expected at least one person"
        )
    return photos


def _find_sizes(image_root: Path, photos: Sequence[PhotoAnnotation]) -> Iterator[FoundSize]:
    """Reads the headers of the photos, on several threads, in order."""
    if not image_root.is_dir():
        for photo in photos:
            yield FoundSize(photo.image_wh, "missing")
        return
    with ThreadPoolExecutor(min(_THREADS, 2 * (os.cpu_count() or 1))) as pool:
        yield from map_ahead(pool, partial(_find_size, image_root), photos, _AHEAD)


def _find_size(image_root: Path, photo: PhotoAnnotation) -> FoundSize:
    path = image_root / photo.image
    if not path.is_file():
        return FoundSize(photo.image_wh, "missing")
    try:
        size = read_photo_size(path)
    except ImageError:
        return FoundSize(photo.image_wh, "unreadable")
    return FoundSize(_frame_wh(size, photo.image_wh), "found")


def _frame_wh(size: PhotoSize, annotated_wh: tuple[int, int] | None) -> tuple[int, int]:
    """The photo's own size, turned where the boxes are those of the turned photo."""
    if annotated_wh is not None and needs_exif_turn(size, annotated_wh):
        return size.oriented_wh
    return size.stored_wh


def _photo_notes(photo: PhotoAnnotation, size: FoundSize, *, is_repeated: bool) -> list[Note]:
    notes = []

    def note(what: str, before: object, after: object) -> None:
        notes.append(Note(photo.image, what, str(before), str(after)))

    if is_repeated:
        note("photo_repeated", f"again in {photo.source_split}", "its people are numbered on")
    if not photo.people:
        note("photo_without_people", "", "")
    if size.state == "unreadable":
        note("photo_unreadable", "", _size_text(photo.image_wh))
    if size.image_wh is None:
        note("image_size_missing", "", "")
    elif size.image_wh != photo.image_wh:
        note("image_size_differs", _size_text(photo.image_wh), _size_text(size.image_wh))
    if photo.folder.split("/")[0] not in SOURCES:
        note("source_unknown", photo.folder, photo.folder.split("/")[0])
    return notes


def _size_text(image_wh: tuple[int, int] | None) -> str:
    return "" if image_wh is None else f"{image_wh[0]}x{image_wh[1]}"


def _to_row(
    index: int, person_id: str, photo: PhotoAnnotation, size: FoundSize, person: MendedPerson
) -> dict[str, Any]:
    return {
        "index": index,
        "person_id": person_id,
        "image": photo.image,
        "source": photo.folder.split("/")[0],
        "source_split": photo.source_split,
        "image_wh": size.image_wh,
        "body_bbox": person.body_bbox,
        "categories": person.categories,
        "labels": person.labels,
        "annotator_votes": person.annotator_votes,
        "n_annotators": person.n_annotators,
        **dict(zip(DIMENSIONS, person.vad, strict=True)),
        "gender": person.gender,
        "age": person.age,
    }


def _write_notes(path: Path, notes: list[Note]) -> None:
    table = pd.DataFrame(
        [(note.person_id, note.what, note.before, note.after) for note in notes], columns=list(PARSE_NOTE_COLUMNS)
    )
    write_text(path, table.to_csv(index=False, lineterminator="\n"))


def _count(
    rows: list[dict[str, Any]], photos: list[PhotoAnnotation], states: Counter[str], notes: list[Note]
) -> dict[str, Any]:
    """What was found, beside what was published."""
    published = read_card("emotic")["published"]
    by_split, by_source = Counter(row["source_split"] for row in rows), Counter(row["source"] for row in rows)
    return {
        "people": len(rows),
        "people_published": published["people"],
        "photos": len({photo.image for photo in photos}),
        "photos_published": published["photos"],
        "people_by_split": {name: by_split[name] for name in SPLITS},
        "people_by_source": dict(sorted(by_source.items())),
        "photo_files": {name: states[name] for name in ("found", "missing", "unreadable")},
        "notes": dict(sorted(Counter(note.what for note in notes).items())),
    }
