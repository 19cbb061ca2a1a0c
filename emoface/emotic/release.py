"""Finds the annotations and photos of an EMOTIC download, and reads the annotations in either file format."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from emoface.datasets.photos import check_image_root
from emoface.emotic.annotations import PhotoAnnotation, is_most
from emoface.emotic.corrections import AGES, GENDERS, find_label, find_word
from emoface.emotic.csv_files import read_annotations_csv
from emoface.emotic.mat_files import read_annotations_mat
from emoface.errors import AnnotationsError, find_nearest
from emoface.schema import CATEGORIES, SOURCES, SPLITS
from emoface.storage.files import is_below
from emoface.storage.urls import Place
from emoface.vision.boxes import find_other_convention

MAT_NAMES = ("Annotations.mat", "CVPR17_Annotations.mat")
CSV_NAMES = tuple(f"{split}.csv" for split in SPLITS)
IMAGE_ROOT_NAMES = ("emotic", "cvpr_emotic")


@dataclass(frozen=True)
class AnnotationFiles:
    """The annotation files of one download.

    Attributes:
        mat_path: The MATLAB file; None if the annotations are CSV files.
        csv_paths: The CSV file of each split; empty if there is a MATLAB file.
        absent: Files that would have been read instead if they had existed.
    """

    mat_path: Path | None
    csv_paths: dict[str, Path]
    absent: tuple[Path, ...] = ()

    @property
    def paths(self) -> tuple[Path, ...]:
        """Every file that is read."""
        return tuple(self.csv_paths.values()) if self.mat_path is None else (self.mat_path,)


def find_annotations(emotic_root: Path, annotations: Path | None = None) -> AnnotationFiles:
    """Searches for annotations: the PAMI file first, then the CVPR 2017 file, then CSV files.

    Args:
        emotic_root: The folder of the download; its subfolder ``Annotations/`` is searched first.
        annotations: A file, or a folder to search instead. A CSV file belongs to the split that it is named after, and
            to train if it is not named after a split.

    Raises:
        AnnotationsError: There is no such folder, or no annotations were found in it; the message then lists every
            searched path. Or the file is of a format that is not read.
    """
    if annotations is not None and annotations.is_file():
        if annotations.suffix.lower() == ".csv":
            split = annotations.stem.lower()
            return AnnotationFiles(None, {split if split in SPLITS else "train": annotations})
        if annotations.suffix.lower() == ".json":
            raise AnnotationsError(
                f"{annotations}: a JSON file of a form that is not known; expected Annotations.mat or a CSV file, COCO "
                "JSON, or the JSON of Label Studio"
            )
        return AnnotationFiles(annotations, {})
    if annotations is not None and not annotations.is_dir():
        raise AnnotationsError(f"{annotations}: no such file or folder; name the annotations with --annotations")
    if annotations is None and not emotic_root.is_dir():
        raise AnnotationsError(f"{emotic_root}: {_describe_no_folder(emotic_root)}")
    folders = (emotic_root / "Annotations", emotic_root) if annotations is None else (annotations,)
    absent: list[Path] = []
    for path in (folder / name for name in MAT_NAMES for folder in folders):
        if path.is_file():
            return AnnotationFiles(path, {}, tuple(absent))
        absent.append(path)
    for folder in folders:
        paths = {split: folder / name for split, name in zip(SPLITS, CSV_NAMES, strict=True)}
        found = {split: path for split, path in paths.items() if path.is_file()}
        absent += [path for split, path in paths.items() if split not in found]
        if found:
            return AnnotationFiles(None, found, tuple(absent))
    raise AnnotationsError(
        f"{annotations or emotic_root}: no annotations; looked for {', '.join(map(str, absent))}; "
        "name the file or folder with --annotations"
    )


def _describe_no_folder(path: Path) -> str:
    """Says that a folder does not exist, and which folder beside it has a similar name."""
    if path.is_file():
        return "a file, expected the folder of the download; name a single annotation file with --annotations"
    parent = path.absolute().parent
    beside = sorted(one.name for one in parent.iterdir() if one.is_dir()) if parent.is_dir() else []
    nearest = find_nearest(path.name, beside)
    return "no such folder" + (f"; did you mean '{path.parent / nearest}'?" if nearest else "")


def find_image_root(emotic_root: Path, images: Place | None = None) -> Place:
    """Finds the image root: the folder that contains ``mscoco/images`` and the other collections.

    Args:
        emotic_root: The folder of the download.
        images: The image root itself, if it is not in the download; a folder, or its URL in an object store.

    Returns:
        The image root; ``EMOTIC_ROOT/emotic`` if there are no photos at all, which is not an error.

    Raises:
        SettingsError: ``images`` is not a folder.
        StoreError: ``images`` is in an object store, which does not answer or refuses to.
    """
    if images is not None:
        check_image_root(images)
        return images
    for name in IMAGE_ROOT_NAMES:
        if (emotic_root / name).is_dir():
            return emotic_root / name
    is_root = any((emotic_root / source).is_dir() for source in SOURCES)
    return emotic_root if is_root else emotic_root / IMAGE_ROOT_NAMES[0]


def read_annotations(files: AnnotationFiles, label_names: tuple[str, ...] = CATEGORIES) -> list[PhotoAnnotation]:
    """Reads annotations from either file format, as stored.

    Args:
        files: The annotation files.
        label_names: The labels of the data set.

    Raises:
        AnnotationsError: A file cannot be read, or no photo in it has a name.
    """
    if files.mat_path is None:
        photos = read_annotations_csv(files.csv_paths, label_names)
    else:
        photos = read_annotations_mat(files.mat_path)
    if photos and not any(photo.filename for photo in photos):
        raise AnnotationsError(
            f"{_names(files.paths)}: none of the {len(photos):,} photos has a filename; expected the layout of "
            "EMOTIC's Annotations.mat"
        )
    if climbing := next((photo.image for photo in photos if photo.filename and not is_below(photo.image)), None):
        raise AnnotationsError(
            f"{_names(files.paths)}: the photo {climbing!r} is outside the image root; expected one below it"
        )
    _check_boxes(files, photos)
    _check_words(files, photos, label_names)
    return photos


def _check_boxes(files: AnnotationFiles, photos: Sequence[PhotoAnnotation]) -> None:
    boxed = [
        (person.body_bbox, photo.image_wh or (math.nan, math.nan))
        for photo in photos
        for person in photo.people
        if len(person.body_bbox) == 4 and all(map(math.isfinite, person.body_bbox))
    ]
    boxes = np.array([box for box, _ in boxed], np.float64).reshape(-1, 4)
    found = find_other_convention(boxes, np.array([wh for _, wh in boxed], np.float64).reshape(-1, 2))
    if found is not None:
        first = ", ".join(f"{value:g}" for value in boxes[0])
        raise AnnotationsError(
            f"{_names(files.paths)}: most of the {len(boxes):,} boxes are {found}, such as [{first}]; expected x1, y1, "
            "x2, y2 in pixels of the photo: convert the boxes first"
        )


def _check_words(files: AnnotationFiles, photos: Sequence[PhotoAnnotation], label_names: tuple[str, ...]) -> None:
    """Refuses annotations in which most people have unknown labels, an unknown gender or an unknown age."""
    people = [person for photo in photos for person in photo.people]
    strange: dict[str, Sequence[str | tuple[str, ...]]] = {
        "labels": [
            one.categories
            for one in people
            if one.categories and not any(find_label(name, label_names) for name in one.categories)
        ],
        "a gender": [one.gender for one in people if one.gender and find_word(one.gender, GENDERS) is None],
        "an age": [one.age for one in people if one.age and find_word(one.age, AGES) is None],
    }
    expected = {
        "labels": f"some of the {len(label_names)} labels, such as {label_names[0]} or {label_names[-1]}",
        "a gender": f"{' or '.join(GENDERS)}, or nothing",
        "an age": f"{' or '.join(AGES)}, or nothing",
    }
    whose = "EMOTIC" if label_names == CATEGORIES else "the data set"
    for what, found in strange.items():
        if is_most(len(found), len(people)):
            first = found[0] if isinstance(found[0], str) else ", ".join(found[0])
            raise AnnotationsError(
                f"{_names(files.paths)}: {len(found):,} of {len(people):,} people have {what} unknown to {whose}, such "
                f"as '{first}'; expected {expected[what]}: translate the values"
            )


def _names(paths: Iterable[Path]) -> str:
    return ", ".join(map(str, paths))
