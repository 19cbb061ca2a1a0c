"""Finding faces: the settings of detector and crops, the detector itself, and the face of each person.

The faces job crops the faces of a data set with these functions, and prediction crops those of any photo, so a model
gets the same crops in both. Torch is imported when a detector is loaded and not before.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from emoface.schema import FACE_FOUND
from emoface.storage.settings import Count, File, Settings, Share
from emoface.storage.weights import WeightsFile, find_weights
from emoface.vision.assignment import DEFAULT_HEAD_PRIOR, UNASSIGNED, HeadPrior, assign_faces
from emoface.vision.boxes import clip_boxes
from emoface.vision.crops import Photo, crop_face
from emoface.vision.detections import Detections
from emoface.vision.images import encode_jpeg

if TYPE_CHECKING:
    from emoface.yolov5face import Detector

Backend = Literal["auto", "onnx", "torch", "hub"]
DetectorOverride = Annotated[
    str | None,
    Field(description="Name of the face detector's weights; without it the detector of the run's data set."),
]
WeightsOverride = Annotated[
    File | None, Field(description="A weight file of the face detector, instead of looking the name up.")
]
"""Detector options of a job on a trained run, which replace the settings of the run's data set."""


class DetectorSettings(Settings):
    """Settings of the face detector."""

    detector: str = "yolov5n-face"
    """Name of the face detector's weights."""
    weights: File | None = None
    """A weight file of the face detector, instead of looking the name up."""
    backend: Backend = "auto"
    """What runs the detector: ``onnx`` is ONNX Runtime on the CPU, ``torch`` is PyTorch, ``hub`` is PyTorch with the
    network of deepcam-cn/yolov5-face, from GitHub or from the clone that EMOFACE_HUB_REPO names; ``auto`` takes torch
    where there is CUDA, else onnx."""
    conf_threshold: Share = 0.5
    """Faces whose score is lower than this are dropped."""
    iou_threshold: Share = 0.5
    """Non-maximum suppression drops a face whose overlap (IoU) with a better one is larger than this."""
    image_size: Count = 640
    """Longer side of the detector's input in pixels, a multiple of 32 (of 64 for networks with a P6 level)."""


class FaceSettings(DetectorSettings):
    """Settings of the face detector and the face crops; a model should get crops like those that it was trained on."""

    margin: Annotated[float, Field(ge=0)] = 0.15
    """Margin around the face on every side of the crop, as a share of the face's longer side."""
    align: bool = False
    """Turn and scale the crops by the five landmarks."""
    min_face_size: Annotated[float, Field(ge=0)] = 10.0
    """A face whose shorter side is below this many pixels of the photo is too small and is not used."""


_RECORDED = tuple(name for name in FaceSettings.model_fields if name not in ("detector", "weights"))
"""The settings that a data set records under their own names; of the detector it records name and sha256."""


def describe_faces(settings: FaceSettings, weights: WeightsFile) -> dict[str, Any]:
    """Describes how the faces of a data set were found and cropped, for its record and its manifest.

    Args:
        settings: Settings of detector and crops.
        weights: The weights that the detector was loaded from.
    """
    recorded = {name: getattr(settings, name) for name in _RECORDED}
    return {"detector": weights.name, "weights_sha256": weights.sha256, **recorded}


def read_face_settings(described: Mapping[str, Any]) -> FaceSettings:
    """Reads the face settings in the description of a manifest or a training run; missing ones take their defaults.

    The backend is not read: a data set whose faces were found on one machine is used on others.

    Args:
        described: See ``Manifest.detector``.

    Raises:
        SettingsError: A value is out of its range.
    """
    settings = {name: described[name] for name in _RECORDED if name in described and name != "backend"}
    if "name" in described:
        settings["detector"] = described["name"]
    return FaceSettings(**settings)


def find_detector_weights(settings: DetectorSettings) -> WeightsFile:
    """Finds the weights that the settings name.

    Raises:
        WeightsError: The weights are missing or damaged.
    """
    return find_weights(settings.detector, settings.weights)


def load_face_detector(
    settings: DetectorSettings, weights: WeightsFile | None = None, n_threads: int | None = None
) -> Detector:
    """Loads the detector that the settings describe.

    Args:
        settings: Settings of the detector.
        weights: Weights of the detector, if they were found before; None looks for them.
        n_threads: Threads of ONNX Runtime for one photo; None is one per CPU that this process may use, which is the
            fastest for single photos. For many photos it is faster to find the faces of several at once, one thread
            for each.

    Raises:
        WeightsError: The weights are missing or cannot be read.
        SettingsError: The detector cannot run as the settings say.
    """
    from emoface.yolov5face import load_detector

    weights = weights or find_detector_weights(settings)
    return load_detector(
        weights.path,
        network=weights.network,
        backend=settings.backend,
        image_size=settings.image_size,
        conf_threshold=settings.conf_threshold,
        iou_threshold=settings.iou_threshold,
        n_threads=n_threads,
    )


@dataclass(frozen=True)
class AssignedFaces:
    """The faces of one photo, and which of them each person has.

    Attributes:
        found: The detector's faces, clipped to the photo.
        statuses: Of each of the n rows: ``found``, ``no_face``, ``other_person`` or ``too_small``.
        face_index: (n,) position of the face in ``found``, ``UNASSIGNED`` unless the status is ``found``.
        margin: (n,) ``FaceAssignment.margin``, nan unless the status is ``found``.
    """

    found: Detections
    statuses: list[str]
    face_index: NDArray[np.int64]
    margin: NDArray[np.float64]


@dataclass(frozen=True)
class CroppedFace:
    """One face of a photo with its crop.

    Attributes:
        xyxy: (4,) box in pixels of the photo, clipped to the photo.
        landmarks: (5, 2), pixels of the photo.
        conf: Detector score, 0-1.
        jpeg: The crop as encoded JPEG.
    """

    xyxy: NDArray[np.float32]
    landmarks: NDArray[np.float32]
    conf: float
    jpeg: bytes


@dataclass(frozen=True)
class PersonFace:
    """A person's face, or the reason why there is none.

    Attributes:
        status: ``found``, ``no_face``, ``other_person`` or ``too_small``.
        face: None unless the status is ``found``.
        margin: ``FaceAssignment.margin`` of the face; None unless the status is ``found``.
    """

    status: str
    face: CroppedFace | None = None
    margin: float | None = None


def assign_detections(
    image_wh: tuple[int, int],
    body_xyxy: NDArray[np.float32],
    found: Detections,
    settings: FaceSettings,
    first_row: NDArray[np.int64] | None = None,
    prior: HeadPrior = DEFAULT_HEAD_PRIOR,
) -> AssignedFaces:
    """Assigns the faces of a photo to its people, and leaves out faces that are too small.

    Args:
        image_wh: Width and height of the photo, in the frame of the boxes.
        body_xyxy: (n, 4) the people's body boxes; a row of nan is a person without one.
        found: The detector's faces in the photo.
        settings: Smallest size of a face.
        first_row: (n,) the first row of the same person, where people are listed more than once: all rows of a person
            get the same face or the same status. None if each row is another person.
        prior: Where a face should be, and the price of having none.
    """
    found = Detections(clip_boxes(found.xyxy, image_wh), found.landmarks, found.conf)
    is_large = _are_large(found, settings)
    rows = np.arange(len(body_xyxy)) if first_row is None else first_row
    first_rows, person = np.unique(rows, return_inverse=True)
    assigned = assign_faces(body_xyxy[first_rows], found.xyxy, prior).take(person)
    statuses = []
    for chosen, is_lost in zip(assigned.face_index, assigned.lost_to_other, strict=True):
        if chosen == UNASSIGNED:
            statuses.append("other_person" if is_lost else "no_face")
        else:
            statuses.append(FACE_FOUND if is_large[chosen] else "too_small")
    has_face = np.array([status == FACE_FOUND for status in statuses], np.bool_)
    return AssignedFaces(
        found,
        statuses,
        np.where(has_face, assigned.face_index, UNASSIGNED),
        np.where(has_face, assigned.margin, np.nan),
    )


def crop_assigned_faces(
    photo: Photo,
    body_xyxy: NDArray[np.float32],
    found: Detections,
    settings: FaceSettings,
    first_row: NDArray[np.int64] | None = None,
) -> list[PersonFace]:
    """Assigns the faces of a photo to its people and crops them.

    Args:
        photo: (height, width, 3), RGB, in the frame of the boxes.
        body_xyxy: (n, 4) the people's body boxes; a row of nan is a person without one.
        found: The detector's faces in the photo.
        settings: Smallest size of a face, and settings of the crops.
        first_row: (n,) the first row of the same person, where people are listed more than once: all rows of a person
            get the same face or the same status. None if each row is another person.

    Returns:
        One per row, in that order.
    """
    height, width = photo.shape[:2]
    assigned = assign_detections((width, height), body_xyxy, found, settings, first_row)
    people = []
    for status, chosen, margin in zip(assigned.statuses, assigned.face_index, assigned.margin, strict=True):
        if status == FACE_FOUND:
            crop = _crop_face(photo, assigned.found, int(chosen), settings)
            people.append(PersonFace(status, crop, float(margin)))
        else:
            people.append(PersonFace(status))
    return people


def crop_all_faces(photo: Photo, found: Detections, settings: FaceSettings) -> list[CroppedFace]:
    """Crops every face of a photo that is not too small, from left to right.

    Args:
        photo: (height, width, 3), RGB.
        found: The detector's faces in the photo.
        settings: Smallest size of a face, and settings of the crops.
    """
    found = select_faces((photo.shape[1], photo.shape[0]), found, settings)
    return [_crop_face(photo, found, k, settings) for k in range(len(found))]


def select_faces(image_wh: tuple[int, int], found: Detections, settings: FaceSettings) -> Detections:
    """Selects the faces of a photo that are not too small, clipped to the photo and from left to right.

    Args:
        image_wh: Width and height of the photo, pixels.
        found: The detector's faces in the photo.
        settings: Smallest size of a face.
    """
    found = Detections(clip_boxes(found.xyxy, image_wh), found.landmarks, found.conf)
    found = found[_are_large(found, settings)]
    return found[np.argsort(found.xyxy[:, 0], kind="stable")]


def _are_large(found: Detections, settings: FaceSettings) -> NDArray[np.bool_]:
    """Whether the shorter side of each face has at least ``min_face_size`` pixels, (n,)."""
    shorter_sides = (found.xyxy[:, 2:] - found.xyxy[:, :2]).min(axis=1)
    return np.asarray(shorter_sides >= settings.min_face_size, np.bool_)


def _crop_face(photo: Photo, found: Detections, k: int, settings: FaceSettings) -> CroppedFace:
    crop = crop_face(photo, found.xyxy[k], found.landmarks[k], margin=settings.margin, align=settings.align)
    return CroppedFace(found.xyxy[k], found.landmarks[k], float(found.conf[k]), encode_jpeg(crop))
