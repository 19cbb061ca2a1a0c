"""People of photos that nobody has annotated: found by their faces or by a detector of people, without labels."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np

from emoface.emotic import Note, PersonAnnotation, PhotoAnnotation
from emoface.errors import ImageError
from emoface.inference.faces import FaceSettings, load_face_detector, select_faces
from emoface.inference.person_detectors import load_person_detector
from emoface.progress import SILENT, Progress
from emoface.schema import DIMENSIONS
from emoface.storage.photo_stores import PhotoStore
from emoface.storage.weights import WeightsFile, find_weights
from emoface.vision.arrays import Float32Array
from emoface.vision.assignment import bodies_from_faces
from emoface.vision.crops import Photo

PeopleFrom = Literal["from-faces", "from-detector"]
_NO_VAD = (float("nan"),) * len(DIMENSIONS)


@dataclass(frozen=True)
class BodyFinder:
    """Finds the body boxes of a photo's people.

    Attributes:
        find: From a photo, (height, width, 3) RGB, to (n, 4) body boxes in its pixels, from left to right.
        weights: The weights of the detector.
    """

    find: Callable[[Photo], Float32Array]
    weights: WeightsFile


@dataclass
class UnboxedPeople:
    """The people found in photos.

    Attributes:
        photos: The photos with their people, whose boxes are those of the upright photos.
        notes: A note for each photo that cannot be read.
    """

    photos: list[PhotoAnnotation] = field(default_factory=list)
    notes: list[Note] = field(default_factory=list)


def body_finder_from_faces(settings: FaceSettings) -> BodyFinder:
    """Estimates a body box from each face that is not too small, as 'emoface predict' does.

    Raises:
        WeightsError: The detector's weights are missing or damaged.
    """
    weights = find_weights(settings.detector, settings.weights)
    detector = load_face_detector(settings, weights)

    def find(photo: Photo) -> Float32Array:
        image_wh = (photo.shape[1], photo.shape[0])
        return bodies_from_faces(select_faces(image_wh, detector.detect([photo])[0], settings).xyxy, image_wh)

    return BodyFinder(find, weights)


def body_finder_from_detector(name_or_path: str, conf_threshold: float) -> BodyFinder:
    """Finds body boxes by a detector of people, see ``load_person_detector``.

    Raises:
        WeightsError: The file is missing, damaged, or no detector of people.
    """
    detector = load_person_detector(name_or_path, conf_threshold)
    weights = find_weights(name_or_path, Path(name_or_path) if name_or_path.endswith(".onnx") else None)
    return BodyFinder(lambda photo: detector.find(photo).xyxy, weights)


def find_unboxed_people(
    store: PhotoStore, images: Sequence[str], finder: BodyFinder, progress: Progress = SILENT
) -> UnboxedPeople:
    """Finds the people of photos, without labels.

    Args:
        store: The photos.
        images: Paths of the photos below the store's root.
        finder: Finds the body boxes of a photo.
        progress: Receives one step per photo.

    Returns:
        One entry per photo that can be read, in the given order, also where nobody was found.
    """
    people = UnboxedPeople()
    progress.start("people", len(images))
    for image in images:
        try:
            photo, _ = store.read(image)
        except ImageError as error:
            reason = str(error).removeprefix(f"{store.place(image)}: ")
            people.notes.append(Note(image, "photo_unreadable", reason, ""))
        else:
            people.photos.append(_to_annotation(image, photo, finder.find(photo)))
        progress.advance()
    return people


def _to_annotation(image: str, photo: Photo, body_xyxy: Float32Array) -> PhotoAnnotation:
    folder, _, filename = image.rpartition("/")
    return PhotoAnnotation(
        filename=filename,
        folder=folder,
        image_wh=(photo.shape[1], photo.shape[0]),
        source_split="train",
        database_name=folder.split("/")[0],
        people=[
            PersonAnnotation(tuple(map(float, np.asarray(box))), (), (), (), _NO_VAD, None, None) for box in body_xyxy
        ],
    )
