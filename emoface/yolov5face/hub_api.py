"""A detector in the manner of ``torch.hub`` models: called with photos of any kind, it answers with results.

The repository's ``hubconf.py`` names one entry point per network; they all end in ``load_photo_detector``.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from emoface.errors import ImageError
from emoface.storage.files import write_bytes
from emoface.storage.weights import fetch_weights, find_weights, has_weights, read_cards
from emoface.vision.crops import Photo, align_face, crop_square, square_box
from emoface.vision.detections import Detections
from emoface.vision.images import encode_jpeg, read_photo
from emoface.yolov5face.detector import Detector, load_detector

if TYPE_CHECKING:
    import pandas

PhotoInput = str | os.PathLike[str] | NDArray[np.uint8] | Image.Image
LANDMARK_NAMES = ("left_eye", "right_eye", "nose", "mouth_left", "mouth_right")

_BOX_RGB = (255, 214, 0)
_LANDMARK_RGB = (0, 200, 255)


@dataclass(frozen=True)
class FaceResults:
    """The faces of some photos, one entry per photo everywhere.

    Attributes:
        names: A path's stem, else ``photo0``, ``photo1``...; no name twice.
        photos: Each (height, width, 3), RGB.
        detections: Faces in pixels of the photo, best first.
    """

    names: tuple[str, ...]
    photos: tuple[Photo, ...]
    detections: tuple[Detections, ...]

    def __len__(self) -> int:
        return len(self.photos)

    @property
    def xyxy(self) -> list[NDArray[np.float32]]:
        """Per photo (n, 4) boxes in pixels."""
        return [faces.xyxy for faces in self.detections]

    @property
    def landmarks(self) -> list[NDArray[np.float32]]:
        """Per photo (n, 5, 2) in pixels, in the order of ``LANDMARK_NAMES``."""
        return [faces.landmarks for faces in self.detections]

    @property
    def conf(self) -> list[NDArray[np.float32]]:
        """Per photo (n,) scores, 0-1."""
        return [faces.conf for faces in self.detections]

    def pandas(self) -> pandas.DataFrame:
        """One row per face of all photos: photo, name, x1, y1, x2, y2, conf, and x and y of each landmark."""
        import pandas

        landmark_columns = [f"{name}_{axis}" for name in LANDMARK_NAMES for axis in ("x", "y")]
        n_faces = [len(faces) for faces in self.detections]
        every = [Detections.empty(), *self.detections]
        numbers = np.concatenate(
            [np.column_stack((faces.xyxy, faces.conf, faces.landmarks.reshape(-1, 10))) for faces in every]
        )
        table = pandas.DataFrame(numbers, columns=["x1", "y1", "x2", "y2", "conf", *landmark_columns])
        table.insert(0, "photo", np.repeat(np.arange(len(self)), n_faces))
        table.insert(1, "name", np.repeat(np.array(self.names, dtype=object), n_faces))
        return table

    def render(self) -> list[Photo]:
        """Copies of the photos with boxes, scores and landmarks drawn in."""
        return [_draw_faces(photo, faces) for photo, faces in zip(self.photos, self.detections, strict=True)]

    def save(self, out: str | os.PathLike[str] = "faces") -> list[Path]:
        """Writes the drawn photos as ``OUT/NAME.jpg``.

        Returns:
            The files, in the photos' order.
        """
        paths = [Path(out) / f"{name}.jpg" for name in self.names]
        for path, drawn in zip(paths, self.render(), strict=True):
            write_bytes(path, encode_jpeg(drawn))
        return paths

    def crop(self, margin: float = 0.15, align_side: int | None = None) -> list[list[Photo]]:
        """Cuts the faces out, per photo in the order of the detections.

        Args:
            margin: Share of the face's longer side that is added on every side.
            align_side: Turns and scales each face by its landmarks to a square of this side; None cuts squares of
                the faces' own sizes.
        """
        return [
            [_cut_face(photo, faces, row, margin, align_side) for row in range(len(faces))]
            for photo, faces in zip(self.photos, self.detections, strict=True)
        ]


class PhotoDetector:
    """Finds the faces of photos given as paths, arrays or PIL images.

    Attributes:
        detector: What runs.
    """

    def __init__(self, detector: Detector) -> None:
        self.detector = detector

    def __call__(self, photos: PhotoInput | list[PhotoInput] | tuple[PhotoInput, ...]) -> FaceResults:
        """Finds faces.

        Args:
            photos: One photo or several: a path, a PIL image, or a (height, width, 3) uint8 array, RGB. Paths and
                PIL images are turned as their EXIF orientation says; pixels of the results are of the turned photo.

        Raises:
            ImageError: A file is missing or no photo, or an array is of another shape or type.
        """
        several = list(photos) if isinstance(photos, list | tuple) else [photos]
        arrays = [_to_photo(one, f"photo {number}") for number, one in enumerate(several)]
        names = _unique([_name_of(one, f"photo{number}") for number, one in enumerate(several)])
        return FaceResults(names, tuple(arrays), tuple(self.detector.detect(arrays)))


def load_photo_detector(
    name: str, weights: str | os.PathLike[str] | None = None, fetch: bool = True, **settings: Any
) -> PhotoDetector:
    """Loads a detector by the name of its weights.

    Args:
        name: Of a network, and of its weights where ``weights`` is None.
        weights: A weight file of that network, in any known format.
        fetch: Download weights that are not on this machine, where their card has an address; they must have the
            card's sha256.
        settings: As in ``load_detector``: backend, image_size, conf_threshold, iou_threshold, device, n_threads,
            hub_repo.

    Raises:
        WeightsError: The weights are nowhere, damaged or of another network.
        SettingsError: A setting is unknown or out of its range.
    """
    if weights is not None:
        return PhotoDetector(load_detector(Path(weights), network=name, **settings))
    card = read_cards().get(name)
    if fetch and card is not None and card.files and not has_weights(name):
        fetch_weights(name)
    found = find_weights(name)
    return PhotoDetector(load_detector(found.path, network=found.network, **settings))


def _to_photo(photo: PhotoInput, name: str) -> Photo:
    if isinstance(photo, Image.Image):
        return np.asarray(ImageOps.exif_transpose(photo).convert("RGB"), dtype=np.uint8)
    if isinstance(photo, np.ndarray):
        if photo.dtype != np.uint8 or photo.ndim != 3 or photo.shape[2] != 3 or 0 in photo.shape:
            raise ImageError(
                f"{name}: an array of {photo.dtype} {photo.shape}, expected uint8 (height, width, 3), RGB; turn grey "
                "or BGR photos into RGB first"
            )
        return photo
    if isinstance(photo, str | os.PathLike):
        return read_photo(Path(photo), apply_exif=True)
    raise ImageError(f"{name}: {type(photo).__name__} is no photo, expected a path, a uint8 array or a PIL image")


def _name_of(photo: PhotoInput, otherwise: str) -> str:
    return Path(photo).stem if isinstance(photo, str | os.PathLike) else otherwise


def _unique(names: list[str]) -> tuple[str, ...]:
    """Gives each repeated name the first free number: ``a``, ``a-2``, ``a-3``."""
    taken: list[str] = []
    for name in names:
        number, free = 1, name
        while free in taken:
            number += 1
            free = f"{name}-{number}"
        taken.append(free)
    return tuple(taken)


def _draw_faces(photo: Photo, faces: Detections) -> Photo:
    drawn = photo.copy()
    thickness = max(1, round(max(photo.shape[:2]) / 500))
    for xyxy, landmarks, conf in zip(faces.xyxy, faces.landmarks, faces.conf, strict=True):
        x1, y1, x2, y2 = (round(float(value)) for value in xyxy)
        cv2.rectangle(drawn, (x1, y1), (x2, y2), _BOX_RGB, thickness)
        cv2.putText(
            drawn, f"{conf:.2f}", (x1, max(12, y1 - 4)), cv2.FONT_HERSHEY_SIMPLEX, 0.4 * thickness, _BOX_RGB, thickness
        )
        for x, y in landmarks:
            cv2.circle(drawn, (round(float(x)), round(float(y))), thickness + 1, _LANDMARK_RGB, -1)
    return drawn


def _cut_face(photo: Photo, faces: Detections, row: int, margin: float, align_side: int | None) -> Photo:
    if align_side is not None:
        return align_face(photo, faces.landmarks[row], align_side, margin)
    return crop_square(photo, *square_box(faces.xyxy[row], margin))
