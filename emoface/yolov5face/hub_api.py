"""A face detector with the interface of ``torch.hub`` models: called with photos of any kind, it returns results.

The repository's ``hubconf.py`` defines one entry point per network; all of them call ``load_photo_detector``, which is
imported from ``emoface.yolov5face`` and needs neither ``torch.hub`` nor torch::

    detector = load_photo_detector("yolov5n-0.5-face")
    faces = detector(["party.jpg", "street.jpg"])
    for face in faces:
        print(face.name, face.xyxy, face.conf)
    faces.save("out")
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from emoface.errors import ImageError
from emoface.storage.files import write_bytes
from emoface.storage.weights import fetch_weights, find_weights, has_weights, read_cards
from emoface.vision.crops import Photo, align_face, crop_square, square_box
from emoface.vision.detections import Detections
from emoface.vision.images import convert_photo, encode_jpeg, read_photo
from emoface.yolov5face.detector import Detector, load_detector

if TYPE_CHECKING:
    import pandas

PhotoInput = str | os.PathLike[str] | NDArray[np.uint8] | Image.Image
LANDMARK_NAMES = ("left_eye", "right_eye", "nose", "mouth_left", "mouth_right")

_BOX_RGB = (255, 214, 0)
_LANDMARK_RGB = (0, 200, 255)


@dataclass(frozen=True, repr=False, eq=False)
class Face:
    """One face of a photo.

    Attributes:
        photo: (height, width, 3), RGB, 0-255; the whole photo.
        name: Name of the photo, see ``FaceResults``.
        photo_index: Number of the photo among those that the detector was called with, from 0.
        xyxy: (4,) box in pixels of the photo.
        landmarks: (5, 2) eyes, nose and corners of the mouth in pixels of the photo, in the order of
            ``LANDMARK_NAMES``.
        conf: Score, 0-1.
    """

    photo: Photo
    name: str
    photo_index: int
    xyxy: NDArray[np.float32]
    landmarks: NDArray[np.float32]
    conf: float

    def __repr__(self) -> str:
        box = ", ".join(f"{float(value):.0f}" for value in self.xyxy)
        return f"Face({self.name}: {box}; conf {self.conf:.2f})"

    def crop(self, margin: float = 0.15, align_side: int | None = None) -> Photo:
        """Crops the face, see ``FaceResults.crop``.

        Returns:
            (side, side, 3), RGB.
        """
        if align_side is not None:
            return align_face(self.photo, self.landmarks, align_side, margin)
        return crop_square(self.photo, *square_box(self.xyxy, margin))


@dataclass(frozen=True, repr=False, eq=False)
class FaceResults:
    """The faces of one or more photos. Iterating over it yields each ``Face``, and its length is the number of faces.

    Every attribute has one entry per photo.

    Attributes:
        names: File name without its suffix, else ``photo0``, ``photo1``...; all names are different.
        photos: Each (height, width, 3), RGB, 0-255.
        detections: Faces in pixels of the photo, by descending score.
    """

    names: tuple[str, ...]
    photos: tuple[Photo, ...]
    detections: tuple[Detections, ...]

    def __len__(self) -> int:
        return sum(len(faces) for faces in self.detections)

    def __iter__(self) -> Iterator[Face]:
        for number, (photo, name, faces) in enumerate(zip(self.photos, self.names, self.detections, strict=True)):
            for xyxy, landmarks, conf in zip(faces.xyxy, faces.landmarks, faces.conf, strict=True):
                yield Face(photo, name, number, xyxy, landmarks, float(conf))

    def __repr__(self) -> str:
        return f"FaceResults({len(self)} faces in {len(self.photos)} photos)"

    @property
    def xyxy(self) -> list[NDArray[np.float32]]:
        """Boxes of the faces: per photo (n, 4), in pixels."""
        return [faces.xyxy for faces in self.detections]

    @property
    def landmarks(self) -> list[NDArray[np.float32]]:
        """Landmarks of the faces: per photo (n, 5, 2), in pixels, in the order of ``LANDMARK_NAMES``."""
        return [faces.landmarks for faces in self.detections]

    @property
    def conf(self) -> list[NDArray[np.float32]]:
        """Scores of the faces: per photo (n,), 0-1."""
        return [faces.conf for faces in self.detections]

    def pandas(self) -> pandas.DataFrame:
        """Returns a table of all faces, one row each: photo, name, x1, y1, x2, y2, conf, x and y of each landmark."""
        import pandas

        landmark_columns = [f"{name}_{axis}" for name in LANDMARK_NAMES for axis in ("x", "y")]
        n_faces = [len(faces) for faces in self.detections]
        every = [Detections.empty(), *self.detections]
        numbers = np.concatenate(
            [np.column_stack((faces.xyxy, faces.conf, faces.landmarks.reshape(-1, 10))) for faces in every]
        )
        table = pandas.DataFrame(numbers, columns=["x1", "y1", "x2", "y2", "conf", *landmark_columns])
        table.insert(0, "photo", np.repeat(np.arange(len(self.photos)), n_faces))
        table.insert(1, "name", np.repeat(np.array(self.names, dtype=object), n_faces))
        return table

    def render(self) -> list[Photo]:
        """Draws boxes, scores and landmarks on copies of the photos."""
        return [_draw_faces(photo, faces) for photo, faces in zip(self.photos, self.detections, strict=True)]

    def save(self, out: str | os.PathLike[str] = "faces") -> list[Path]:
        """Writes the photos with boxes, scores and landmarks as ``OUT/NAME.jpg``.

        Returns:
            Paths of the files, in the order of the photos.
        """
        paths = [Path(out) / f"{name}.jpg" for name in self.names]
        for path, drawn in zip(paths, self.render(), strict=True):
            write_bytes(path, encode_jpeg(drawn))
        return paths

    def crop(self, margin: float = 0.15, align_side: int | None = None) -> list[Photo]:
        """Crops the faces.

        Args:
            margin: Share of the face's longer side that is added on every side.
            align_side: Side in pixels of aligned crops, which are rotated and scaled by the landmarks; None crops
                squares of the faces' own sizes without alignment.

        Returns:
            One crop (side, side, 3) for each face, in the order of iteration.
        """
        return [face.crop(margin, align_side) for face in self]


class PhotoDetector:
    """Finds the faces of photos given as paths, arrays or PIL images.

    Attributes:
        detector: The detector that finds the faces.
    """

    def __init__(self, detector: Detector) -> None:
        self.detector = detector

    def __call__(self, photos: PhotoInput | list[PhotoInput] | tuple[PhotoInput, ...]) -> FaceResults:
        """Finds the faces of one photo or several.

        Args:
            photos: One photo or several: a path, a PIL image, or a (height, width, 3) uint8 array, RGB. Photos from
                paths and PIL images are turned upright by their orientation; results are in pixels of the upright
                photo.

        Raises:
            ImageError: A file is missing, damaged or not a photo, an array has another shape or type, or a PIL image
                a mode without a defined white (I, F).
        """
        several = list(photos) if isinstance(photos, list | tuple) else [photos]
        arrays = [_to_photo(one, f"photo {number}") for number, one in enumerate(several)]
        names = _make_unique([_photo_name(one, f"photo{number}") for number, one in enumerate(several)])
        return FaceResults(names, tuple(arrays), tuple(self.detector.detect(arrays)))


def load_photo_detector(
    name: str, weights: str | os.PathLike[str] | None = None, fetch: bool = True, **settings: Any
) -> PhotoDetector:
    """Loads a face detector by the name of its weights, to be called with photos.

    Args:
        name: Name of the weights to look up; where ``weights`` is given, name of the network of that file.
        weights: A weight file of the network ``name``, in any known format; None looks the weights up by ``name``.
        fetch: Whether to download weights that are not on this machine, if their card has an address; the file must
            have the sha256 of the card.
        settings: Settings of ``load_detector``: backend, image_size, conf_threshold, iou_threshold, device, n_threads,
            hub_repo.

    Returns:
        A function from one photo or several to ``FaceResults``.

    Raises:
        WeightsError: The weights are not found, are damaged or belong to another network.
        SettingsError: A setting is unknown or out of its range.

    Example:
        >>> detector = load_photo_detector("emoface-yolov5n-0.5", image_size=320)  # the weights in the package
        >>> detector(np.full((40, 90, 3), 127, np.uint8))
        FaceResults(0 faces in 1 photos)
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
        return convert_photo(photo, name)
    if isinstance(photo, np.ndarray):
        if photo.dtype != np.uint8 or photo.ndim != 3 or photo.shape[2] != 3 or 0 in photo.shape:
            raise ImageError(
                f"{name}: an array of {photo.dtype} {photo.shape}, expected uint8 (height, width, 3), RGB; turn grey "
                "or BGR photos into RGB first"
            )
        return photo
    if isinstance(photo, str | os.PathLike):
        return read_photo(Path(photo))
    raise ImageError(f"{name}: {type(photo).__name__} is no photo, expected a path, a uint8 array or a PIL image")


def _photo_name(photo: PhotoInput, default: str) -> str:
    return Path(photo).stem if isinstance(photo, str | os.PathLike) else default


def _make_unique(names: list[str]) -> tuple[str, ...]:
    """Makes names unique: a repeated name gets the first free number, as in ``a``, ``a-2``, ``a-3``."""
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
