"""The parse job: converts EMOTIC's annotations to ``people.parquet`` and lists irregularities in ``parse_notes.csv``.

A person whose box or labels cannot be used still has a row, with nulls or without labels. The rules for irregular
annotations are in ``emoface.emotic.corrections``.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
import pyarrow as pa
from pydantic import model_validator

from emoface.annotations import (
    FORM_NAMES,
    FORM_NOTES,
    Export,
    find_export,
    read_data_labels,
    read_export,
)
from emoface.datasets.people import find_first_rows
from emoface.datasets.photos import describe_missing_photos, is_nearly_all
from emoface.emotic import (
    PEOPLE_NOTES,
    PHOTO_NOTES,
    Note,
    PhotoAnnotation,
    correct_person,
    find_annotations,
    find_image_root,
    find_same_people,
    read_annotations,
)
from emoface.errors import AnnotationsError, ImageError, SettingsError
from emoface.inference.faces import DetectorSettings, FaceSettings
from emoface.inference.unboxed_photos import (
    body_finder_from_detector,
    body_finder_from_faces,
    find_unboxed_people,
)
from emoface.labels.repeated import count_split_pairs
from emoface.prefetch import count_usable_cpus, map_ahead
from emoface.progress import SILENT, Progress
from emoface.schema import (
    CATEGORIES,
    DIMENSIONS,
    PARSE_NOTE_COLUMNS,
    PEOPLE_SCHEMA,
    SOURCES,
    SPLITS,
    is_unlabelled,
    label_names_of,
    with_labels,
    without_labels,
)
from emoface.storage.cards import read_card
from emoface.storage.csv_files import csv_text
from emoface.storage.files import write_text
from emoface.storage.locks import locked
from emoface.storage.media import list_media
from emoface.storage.photo_stores import PhotoStore, open_store
from emoface.storage.records import JobRecord, finish_job, hash_inputs, photo_inputs, read_record, record_path
from emoface.storage.settings import File, Folder, FolderOrUrl, Settings, Share
from emoface.storage.tables import vectors_to_array, write_table
from emoface.storage.urls import Place, is_url, resolve_place, to_portable
from emoface.vision.orientation import NO_TURN, Frame, PhotoSize, find_usual_frame

_UNKNOWN_WH = (0, 0)
_ORDINARY = ("dimension_missing", "gender_missing", "age_missing", "box_fractional", "image_size_missing")
"""Notes that are left out for other programs' exports, which need not have these values, and have fractional boxes."""
_ROWS_PER_BLOCK = 10_000
_THREADS_PER_CORE = 4
"""More than one, because reading a photo's header mostly waits for the disk."""
_THREADS_OF_STORE = 32
_UNKNOWN_WORDS = {
    "category_unknown": "labels",
    "class_unknown": "boxes with classes",
    "gender_unknown": "genders",
    "age_unknown": "ages",
}
"""What the words of some notes are."""
_MOST_WORDS = 5
"""Number of unknown words that are shown."""


class ParseConfig(Settings):
    """Settings of the parse job."""

    emotic_root: Folder
    """The folder of the EMOTIC download: ``Annotations/Annotations.mat`` beside ``emotic/``; or the folder of an
    export of another program, see ``--format``."""
    out: Folder
    """Folder in which people.parquet is written."""
    annotations: Path | None = None
    """The annotation file (.mat, .csv, .json, .xml) or folder of files, if it is not in EMOTIC_ROOT."""
    format: Literal["auto", "emotic", "coco", "cvat", "label-studio", "yolo", "voc"] = "auto"
    """The program that the annotations are from: EMOTIC's own files, COCO JSON, 'CVAT for images 1.1' XML, the JSON of
    Label Studio, a YOLO folder, or a folder of Pascal VOC XML; auto tells it by their content."""
    labels: File | None = None
    """A text file with the label names of the data set, one a line; by default they are EMOTIC's 26 categories."""
    images: FolderOrUrl | None = None
    """The image root (the folder that contains mscoco/images and the others), if it is not in EMOTIC_ROOT; a folder, or
    a URL in an object store such as s3://bucket/emotic."""
    people: Literal["annotated", "from-faces", "from-detector"] = "annotated"
    """Where the people are from: the annotations; or, for a folder of photos that nobody has annotated, from their
    faces, each with an estimated body box, or from a person detector. Such people have no labels, which are to be
    filled in, see docs/your-own-photos.md."""
    detector: str = DetectorSettings.model_fields["detector"].default
    """Name of the face detector's weights, for --people from-faces."""
    weights: File | None = None
    """A weight file of the face detector, instead of looking the name up."""
    conf_threshold: Share = DetectorSettings.model_fields["conf_threshold"].default
    """Faces whose score is lower than this are dropped, for --people from-faces."""
    person_detector: str | None = None
    """The person detector, for --people from-detector: an .onnx file of YOLOX or RT-DETR, or the name of such
    weights."""
    person_conf_threshold: Share = 0.5
    """People whom the person detector gives a lower score than this are left out."""
    frame: Literal["auto", "stored", "upright"] = "auto"
    """Frame of the boxes of photos with an orientation (EXIF, XMP) whose annotated size does not tell it: stored is
    the pixels as they lie in the file, upright is the photo as viewers show it, auto is the frame that most other
    photos are annotated in, or stored where no size tells."""
    allow_missing: bool = False
    """Go on although the folder given with --images has none of the photos, or although people.parquet was made with
    the photos and at least 95 % of them are missing now."""

    @model_validator(mode="after")
    def _check_people(self) -> Self:
        if self.people != "annotated" and (self.annotations is not None or self.format != "auto"):
            raise SettingsError(
                f"people are {self.people}, which needs no annotations; leave out --annotations and --format"
            )
        if (self.people == "from-detector") != (self.person_detector is not None):
            raise SettingsError(
                f"people are {self.people} and person_detector is {self.person_detector}; --people from-detector and "
                "--person-detector go together"
            )
        return self


@locked("out")
def run_parse(config: ParseConfig, progress: Progress = SILENT) -> JobRecord:
    """Reads EMOTIC's annotations, corrects them by documented rules, and writes one row per person.

    Args:
        config: Settings of the job.
        progress: Receives one step per annotation file, then one per photo whose size is read.

    Returns:
        The job's record; ``people.parquet`` and ``parse_notes.csv`` are written.

    Raises:
        AnnotationsError: The annotations cannot be found or read, or no word in them is a label.
        SettingsError: The given image root is not a folder, or the file of label names cannot be used.
        ImageError: The given image root has none of the photos, or photos that an earlier run found are missing now,
            and ``allow_missing`` is not set. Nothing is replaced.
        StoreError: The photos are in an object store, which does not answer or refuses to.
    """
    label_names = CATEGORIES if config.labels is None else read_data_labels(config.labels)
    source = _read_source(config, label_names, progress)
    image_root = source.image_root
    headers = _read_headers(image_root, source.photos, progress)
    _check_missing(config, image_root, headers, progress)
    frame = config.frame if source.frame is None else source.frame
    if frame == "auto":
        frame = find_usual_frame(_find_frames(source.photos, headers))
    people = _collect_people(source, headers, frame)
    source.photos.clear()  # the largest part of the memory
    _note_unknown_words(people.notes, label_names, progress)
    table = _mark_same_people(people.to_table(), people.notes)
    if is_unlabelled(source.schema):
        progress.note(
            "nobody has labels yet; 'emoface export-coco' writes the boxes to fill them in, see docs/your-own-photos.md"
        )

    people_path, notes_path = config.out / "people.parquet", config.out / "parse_notes.csv"
    record_path(config.out, "parse").unlink(missing_ok=True)  # so that it never describes tables of two runs
    write_table(people_path, table, source.schema)
    rows = ((note.person_id, note.what, note.before, note.after) for note in people.notes)
    write_text(notes_path, csv_text(PARSE_NOTE_COLUMNS, rows))
    return finish_job(
        "parse",
        config,
        config.out,
        module=__name__,
        inputs={**hash_inputs(source.read_paths), **photo_inputs(image_root, headers)},
        outputs=[people_path, notes_path],
        counts=_count(source, table, people.notes, headers),
        info={
            "image_root": to_portable(image_root, config.out),
            "undecided_frame": frame,
            "annotations": to_portable(source.annotations, config.out),
            "format": source.form,
            "label_names": list(label_names),
            **source.info,
        },
    )


@dataclass(frozen=True)
class _Source:
    """The annotations as stored, and what is known about them.

    Attributes:
        photos: The photos with their people.
        image_root: The folder of the photos, or its URL.
        form: ``emotic`` or one of ``FORM_NAMES``.
        annotations: The file or folder that was read.
        read_paths: Every file that was read, or would have been if it had existed.
        schema: The schema of ``people.parquet``, with the labels of the data set.
        notes: Notes on what has no row.
        frame: Frame of the boxes, where it is known.
        info: What else the record says about the people.
    """

    photos: list[PhotoAnnotation]
    image_root: Place
    form: str
    annotations: Path
    read_paths: tuple[Path, ...]
    schema: pa.Schema
    notes: tuple[Note, ...] = ()
    frame: Frame | None = None
    info: Mapping[str, Any] = field(default_factory=dict)

    @property
    def is_emotic(self) -> bool:
        """Whether they are of EMOTIC's form and labels, so that they can be compared with what is published of it."""
        return self.form == "emotic" and label_names_of(self.schema) == CATEGORIES


def _read_source(config: ParseConfig, label_names: tuple[str, ...], progress: Progress) -> _Source:
    """Reads the annotations, in whichever form they are."""
    schema = with_labels(PEOPLE_SCHEMA, label_names)
    labels_path = () if config.labels is None else (config.labels,)
    if config.people != "annotated":
        return _find_people(config, schema, labels_path, progress)
    export = _find_export(config)
    if export is None:
        files = find_annotations(config.emotic_root, config.annotations)
        image_root = resolve_place(find_image_root(config.emotic_root, config.images))
        progress.start("annotations", len(files.paths))
        photos = read_annotations(files, label_names)
        progress.advance(len(files.paths))
        place = files.mat_path or files.paths[0].parent
        return _Source(photos, image_root, "emotic", place, (*files.absent, *files.paths, *labels_path), schema)
    images = None if config.images is None else find_image_root(config.emotic_root, config.images)
    progress.start("annotations", len(export.files))
    found = read_export(export, label_names, images)
    progress.advance(len(export.files))
    return _Source(
        photos=found.people.photos,
        image_root=resolve_place(found.image_root),
        form=export.form,
        annotations=export.path,
        read_paths=(*export.files, *labels_path),
        schema=without_labels(schema) if found.people.is_unlabelled else schema,
        notes=tuple(found.people.left_out),
    )


def _find_people(config: ParseConfig, schema: pa.Schema, labels_path: tuple[Path, ...], progress: Progress) -> _Source:
    """Finds the people of photos that nobody has annotated."""
    root = config.emotic_root if config.images is None else config.images
    if not isinstance(root, Path):
        raise SettingsError(f"{root}: the photos of an object store cannot be listed; copy them to a folder first")
    if not root.is_dir():
        raise SettingsError(f"{root}: no such folder, expected one of photos")
    images = [Path(path).relative_to(root).as_posix() for path in list_media([root], config.out).photos]
    if config.person_detector is not None:
        finder = body_finder_from_detector(config.person_detector, config.person_conf_threshold)
    else:
        settings = FaceSettings(detector=config.detector, weights=config.weights, conf_threshold=config.conf_threshold)
        finder = body_finder_from_faces(settings)
    found = find_unboxed_people(open_store(root), images, finder, progress)
    return _Source(
        photos=found.photos,
        image_root=resolve_place(root),
        form=config.people,
        annotations=root,
        read_paths=(finder.weights.path, *labels_path),
        schema=without_labels(schema),
        notes=tuple(found.notes),
        frame="upright",
        info={"detector": finder.weights.name, "weights_sha256": finder.weights.sha256},
    )


def _find_export(config: ParseConfig) -> Export | None:
    """Finds the export of another program; None if the annotations are EMOTIC's or there are none at all."""
    if config.format == "emotic":
        return None
    if config.format in FORM_NAMES:
        return find_export(config.annotations or config.emotic_root, config.format)
    try:
        files = find_annotations(config.emotic_root, config.annotations)
    except AnnotationsError:
        place = config.annotations or config.emotic_root
        return find_export(place) if place.exists() else None
    path = files.mat_path
    return None if path is None or path.suffix.lower() == ".mat" else find_export(path)


@dataclass(frozen=True)
class _Header:
    """The size in the header of one photo; if it cannot be read, the problem, and the reason in words."""

    size: PhotoSize | None
    problem: str = ""
    reason: str = ""


_MISSING = _Header(None, "photo_missing")


class _People:
    """The rows of ``people.parquet``, which are converted to Arrow in blocks to take less memory, and the notes.

    Attributes:
        n_rows: Number of rows so far.
        notes: The notes on irregularities.
    """

    def __init__(self, schema: pa.Schema) -> None:
        self.n_rows = 0
        self.notes: list[Note] = []
        self.label_names = label_names_of(schema)
        self._schema = schema
        self._waiting: list[dict[str, Any]] = []
        self._blocks: list[pa.Table] = []

    def add(self, row: dict[str, Any]) -> None:
        """Adds a row."""
        self.n_rows += 1
        unknown = dict.fromkeys(("labels", "categories")) if is_unlabelled(self._schema) else {}
        self._waiting.append(row | unknown)
        if len(self._waiting) >= _ROWS_PER_BLOCK:
            self._convert()

    def to_table(self) -> pa.Table:
        """All rows, as one table."""
        self._convert()
        return pa.concat_tables(self._blocks).combine_chunks()

    def _convert(self) -> None:
        self._blocks.append(pa.Table.from_pylist(self._waiting, schema=self._schema))
        self._waiting = []


def _read_headers(image_root: Place, photos: Sequence[PhotoAnnotation], progress: Progress) -> dict[str, _Header]:
    """Reads the header of every photo that has people, by ``image``."""
    images = list(dict.fromkeys(photo.image for photo in photos if photo.people and photo.filename))
    progress.start("photo sizes", len(images))
    store = open_store(image_root)
    if not store.is_folder():
        progress.advance(len(images))
        return dict.fromkeys(images, _MISSING)
    headers: dict[str, _Header] = {}
    n_threads = max(_THREADS_PER_CORE * count_usable_cpus(), _THREADS_OF_STORE if is_url(image_root) else 1)
    with ThreadPoolExecutor(n_threads) as pool:
        read = map_ahead(pool, lambda image: _read_header(store, image), images, 4 * n_threads)
        for image, header in zip(images, read, strict=True):
            headers[image] = header
            progress.advance()
    similar = [(image, headers[image]) for image in _list_missing(headers) if headers[image].reason]
    if similar:
        image, header = similar[0]
        progress.note(
            f"{len(similar):,} photos are missing under their names, but there in another case or Unicode form, the "
            f"first is {image}: {header.reason}; rename them, or write their names in the annotations as they are"
        )
    return headers


def _list_missing(headers: dict[str, _Header]) -> list[str]:
    return [image for image, header in headers.items() if header.problem == _MISSING.problem]


def _check_missing(config: ParseConfig, image_root: Place, headers: dict[str, _Header], progress: Progress) -> None:
    """Warns if all photos are missing, or nearly all: the rows alone are useful.

    It is an error if ``images`` names a folder that has none of them, or if the rows would replace some that were made
    with the photos.
    """
    missing = _list_missing(headers)
    if not (said := describe_missing_photos(image_root, missing, len(headers))):
        return
    where = "If the photos are elsewhere, name their folder with --images DIR"
    if not config.allow_missing:
        if config.images is not None and len(missing) == len(headers):
            raise ImageError(
                f"{said}; nothing was written. Expected the folder that the annotated paths start in; "
                "'--allow-missing' reads the annotations without the photos"
            )
        if _had_photos(config.out):
            raise ImageError(
                f"{said}, but {config.out / 'people.parquet'} was made with the photos; nothing was replaced. Mount "
                "the disk, or name the folder of the photos with '--images DIR' if they have moved; "
                "'--allow-missing' goes on without them"
            )
    progress.note(f"Warning: {said}; their annotated sizes are used. {where}")


def _had_photos(out: Path) -> bool:
    """Whether the last finished run in ``out`` found more than a few of its photos."""
    record = read_record(out, "parse")
    if record is None or not {"photos", "photos_missing"} <= record.counts.keys():
        return False
    n_photos, n_missing = (record.counts[name] for name in ("photos", "photos_missing"))
    return bool(n_photos) and not is_nearly_all(n_missing, n_photos)


def _note_unknown_words(notes: Sequence[Note], label_names: tuple[str, ...], progress: Progress) -> None:
    """Names the words that are no label of the data set, no gender or no age, and how many rows have them."""
    whose = "EMOTIC" if label_names == CATEGORIES else "the data set"
    for what, kind in _UNKNOWN_WORDS.items():
        rows_of: dict[str, set[str]] = {}
        for note in notes:
            if note.what == what:
                rows_of.setdefault(note.before, set()).add(note.person_id)
        if rows_of:
            shown = sorted(rows_of, key=lambda word: (-len(rows_of[word]), word))
            words = ", ".join(f"{word!r} ({len(rows_of[word]):,})" for word in shown[:_MOST_WORDS])
            others = f" and {len(shown) - _MOST_WORDS:,} other words" if len(shown) > _MOST_WORDS else ""
            n_rows = len(set().union(*rows_of.values()))
            noun = "photo" if what == "class_unknown" else "row"
            have = f"{noun} has" if n_rows == 1 else f"{noun}s have"
            progress.note(
                f"Warning: {n_rows:,} {have} {kind} unknown to {whose}: {words}{others}; they are left out, see "
                "parse_notes.csv"
            )


def _read_header(store: PhotoStore, image: str) -> _Header:
    """Reads the header of one photo; a photo that cannot be read gives a problem instead of an error."""
    try:
        return _Header(store.read_size(image))
    except ImageError as error:
        if not store.is_missing(image, error):
            return _Header(None, "photo_unreadable", str(error).removeprefix(f"{store.place(image)}: "))
    similar = store.find_similar(image)
    return _MISSING if similar is None else _Header(None, _MISSING.problem, f"only {similar} is there")


def _find_frames(photos: Sequence[PhotoAnnotation], headers: dict[str, _Header]) -> Iterator[Frame | None]:
    """Yields the frame of the boxes of each photo that has an orientation, once per photo."""
    first_listed: dict[str, PhotoAnnotation] = {}
    for photo in photos:
        if photo.people:
            first_listed.setdefault(photo.image, photo)
    for image, header in headers.items():
        if header.size is not None and header.size.orientation != NO_TURN:
            yield header.size.find_frame(first_listed[image].image_wh)


def _collect_people(source: _Source, headers: dict[str, _Header], frame: Frame) -> _People:
    """Applies the rules to every photo and person, in the order of the annotation file.

    Args:
        source: The annotations.
        headers: The header of each photo, by ``image``.
        frame: Frame of the boxes of photos whose size does not tell it.
    """
    people = _People(source.schema)
    people.notes += source.notes
    n_people_of: Counter[str] = Counter()
    wh_of: dict[str, tuple[int, int] | None] = {}
    clip_wh_of: dict[str, tuple[int, int] | None] = {}
    n_listed: Counter[str] = Counter()
    if all(header == _MISSING for header in headers.values()) and headers:
        people.notes.append(Note("", "photo_missing", f"all {len(headers)} photos", ""))
        headers = {}
    for photo in source.photos:
        n_listed[photo.source_split] += 1
        if not photo.filename:
            place = f"{photo.source_split}({n_listed[photo.source_split]})"
            people.notes.append(Note(place, "photo_unnamed", f"{len(photo.people)} people", ""))
        elif not photo.people:
            people.notes.append(Note(photo.image, "photo_without_people", "", ""))
        else:
            if photo.image in wh_of:
                people.notes.append(
                    Note(photo.image, "photo_repeated", photo.source_split, f"from #{n_people_of[photo.image]}")
                )
            else:
                header = headers.get(photo.image)
                wh_of[photo.image] = _choose_size(photo, header, frame, people.notes)
                is_doubtful = photo.is_size_doubtful and (header is None or header.size is None)
                if is_doubtful:
                    people.notes.append(Note(photo.image, "image_size_doubtful", "", _format_wh(photo.image_wh)))
                clip_wh_of[photo.image] = None if is_doubtful else wh_of[photo.image]
            collection = photo.database_name
            if source.form == "emotic":
                collection = _find_source(photo, people.notes)
            first = n_people_of[photo.image]
            _add_people(people, photo, collection, wh_of[photo.image], clip_wh_of[photo.image], first)
            n_people_of[photo.image] += len(photo.people)
    if source.form != "emotic":
        ordinary = (*_ORDINARY, "categories_missing") if is_unlabelled(source.schema) else _ORDINARY
        people.notes = [note for note in people.notes if note.what not in ordinary]
    return people


def _choose_size(
    photo: PhotoAnnotation, header: _Header | None, undecided_frame: Frame, notes: list[Note]
) -> tuple[int, int] | None:
    """Chooses the width and height of the frame of the photo's boxes, pixels; None if no size is known."""
    annotated = _format_wh(photo.image_wh)
    size = None if header is None else header.size
    frame = None if size is None else size.find_frame(photo.image_wh)
    chosen_wh = photo.image_wh if size is None else size.wh(frame or undecided_frame)
    if photo.image_wh is None:
        notes.append(Note(photo.image, "image_size_missing", "", _format_wh(chosen_wh)))
    if header is None:
        return photo.image_wh
    if size is None:
        notes.append(Note(photo.image, header.problem, header.reason, annotated))
        return photo.image_wh
    if frame == "upright":
        notes.append(Note(photo.image, "photo_turned", _format_wh(size.stored_wh), annotated))
    if photo.image_wh is not None and photo.image_wh != chosen_wh:
        notes.append(Note(photo.image, "image_size_differs", annotated, _format_wh(chosen_wh)))
    if frame is None:
        notes.append(Note(photo.image, "frame_unknown", f"orientation {size.orientation}", undecided_frame))
    return chosen_wh


def _find_source(photo: PhotoAnnotation, notes: list[Note]) -> str:
    source = photo.folder.split("/")[0] or photo.database_name
    if source not in SOURCES:
        notes.append(Note(photo.image, "source_unknown", photo.folder, source))
    return source


def _add_people(
    people: _People,
    photo: PhotoAnnotation,
    source: str,
    image_wh: tuple[int, int] | None,
    clip_wh: tuple[int, int] | None,
    first: int,
) -> None:
    """Adds a row for each person of one entry of a photo, numbered from ``first``; ``clip_wh`` clips boxes."""
    image = photo.image
    for number, person in enumerate(photo.people, start=first):
        person_id = f"{image}#{number}"
        corrected, notes = correct_person(person, person_id, clip_wh, people.label_names)
        people.notes += notes
        row = {
            "index": people.n_rows,
            "person_id": person_id,
            "image": image,
            "source": source,
            "source_split": photo.source_split,
            "image_wh": image_wh or _UNKNOWN_WH,
            "body_bbox": corrected.body_bbox,
            "categories": corrected.categories,
            "labels": corrected.labels,
            "annotator_votes": corrected.annotator_votes,
            "n_annotators": corrected.n_annotators,
            **dict(zip(DIMENSIONS, corrected.vad, strict=True)),
            "gender": corrected.gender,
            "age": corrected.age,
            "same_person_as": None,
        }
        people.add(row)


def _mark_same_people(table: pa.Table, notes: list[Note]) -> pa.Table:
    """Fills ``same_person_as`` and notes each person who is listed again."""
    images, genders, ages = (table[name].to_pylist() for name in ("image", "gender", "age"))
    same = find_same_people(images, vectors_to_array(table["body_bbox"], 4), genders, ages)
    is_first = same.first_row == np.arange(table.num_rows)
    for row in np.flatnonzero(~is_first).tolist():
        what = "person_nearly_repeated" if same.is_near[row] else "person_repeated"
        person_id, first_id = (table["person_id"][one].as_py() for one in (row, int(same.first_row[row])))
        notes.append(Note(person_id, what, "", first_id))
    field = PEOPLE_SCHEMA.field("same_person_as")
    return table.set_column(
        table.column_names.index(field.name), field, pa.array(same.first_row, field.type, mask=is_first)
    )


def _format_wh(image_wh: tuple[int, int] | None) -> str:
    return "" if image_wh is None else f"{image_wh[0]} {image_wh[1]}"


def _count_same_people(table: pa.Table) -> dict[str, int]:
    """Rows whose person an earlier row is too: how many, and in which splits the two are."""
    pairs = count_split_pairs(find_first_rows(table), table["source_split"].to_pylist())
    return {"rows": sum(pairs.values()), **pairs}


def _count(source: _Source, table: pa.Table, notes: Sequence[Note], headers: dict[str, _Header]) -> dict[str, Any]:
    splits = table["source_split"].to_pylist()
    by_split, by_source = Counter(splits), Counter(table["source"].to_pylist())
    photos_of_split = Counter(split for _, split in set(zip(table["image"].to_pylist(), splits, strict=True)))
    noted = Counter(note.what for note in notes)
    problems = Counter(header.problem for header in headers.values())
    published = read_card("emotic")["published"]
    sources = SOURCES if source.is_emotic else ()
    return {
        "people": table.num_rows,
        "photos": len(headers),
        **({"published": {name: published[name] for name in ("people", "photos")}} if source.is_emotic else {}),
        "people_by_split": {split: by_split[split] for split in SPLITS},
        "photos_by_split": {split: photos_of_split[split] for split in SPLITS},
        "people_by_source": {name: by_source[name] for name in [*sources, *sorted(set(by_source) - set(sources))]},
        "photos_missing": problems["photo_missing"],
        "photos_unreadable": problems["photo_unreadable"],
        "people_without_box": table["body_bbox"].null_count,
        "people_annotated_again": _count_same_people(table),
        "irregularities": {what: noted[what] for what in (*PHOTO_NOTES, *FORM_NOTES, *PEOPLE_NOTES) if noted[what]},
    }
