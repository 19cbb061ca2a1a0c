"""The predictor of a trained model, which ``emoface.load`` returns: from photos to people with their apparent emotions.

Torch is imported when a network of a run or of an exported folder is loaded, and not for one in an ONNX file.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

from emoface.datasets.people import AnnotatedPerson
from emoface.datasets.stream_cache import crop_person
from emoface.errors import SettingsError
from emoface.inference.array_providers import ArrayProviders, ModelFiles, PhotoPeople, load_array_providers
from emoface.inference.faces import (
    CroppedFace,
    FaceSettings,
    crop_all_faces,
    crop_assigned_faces,
    load_face_detector,
    read_face_settings,
)
from emoface.inference.model_sources import find_model
from emoface.mter.exported import read_context_input
from emoface.mter.inputs import describe_other_inputs
from emoface.mter.pixels import normalise_arrays, person_pixels
from emoface.mter.runs import Run
from emoface.schema import DIMENSIONS
from emoface.storage.photo_stores import read_photo_at
from emoface.storage.urls import to_place
from emoface.vision.assignment import bodies_from_faces
from emoface.vision.boxes import Box, box_areas, clip_boxes, find_other_convention
from emoface.vision.crops import Photo
from emoface.vision.images import decode_photo

if TYPE_CHECKING:
    from torch import Tensor

    from emoface.inference.onnx_models import OnnxModel
    from emoface.mter.base import Mter
    from emoface.yolov5face import Detector

FROM_ANNOTATION, FROM_BOX, FROM_FACE, FROM_DETECTOR = "annotation", "box", "face", "detector"
"""Where a body box comes from: the data set, the caller, an estimate from a detected face, or a detector of people."""


@dataclass(frozen=True)
class Person:
    """A person of a photo, ready for a model.

    Attributes:
        body_xyxy: (4,) original pixels, at least partly inside the photo.
        face_xyxy: (4,) original pixels; None without a face.
        face: The crop of the face, RGB; None without a face.
        body_from: ``annotation``, ``box``, ``face`` or ``detector``.
        person_id: ``person_id`` of an annotated person; else None.
        true_labels: True labels of an annotated person; else None.
        true_vad: True ratings of an annotated person by name, None where EMOTIC has none; None for other people.
        landmarks: (5, 2) landmarks of the face, original pixels; None without a face, or where they are not known.
        face_conf: Score of the face, 0-1; None without landmarks.
    """

    body_xyxy: NDArray[np.float32]
    face_xyxy: NDArray[np.float32] | None
    face: Photo | None
    body_from: str
    person_id: str | None = None
    true_labels: tuple[str, ...] | None = None
    true_vad: dict[str, float | None] | None = None
    landmarks: NDArray[np.float32] | None = None
    face_conf: float | None = None


@dataclass(frozen=True)
class PersonPrediction:
    """The prediction of a model for one person.

    Attributes:
        body_bbox: xyxy, original pixels.
        face_bbox: xyxy, original pixels; None without a face.
        body_from: ``annotation``, ``box``, ``face`` or ``detector``.
        probabilities: 0-1 by label, in EMOTIC's order; None for a person without a face if the face is the
            model's only input.
        valence: 1-10; None where the model has no head for it.
        arousal: 1-10; None where the model has no head for it.
        dominance: 1-10; None where the model has no head for it.
        person_id: ``person_id`` of an annotated person; else None.
        true_labels: True labels of an annotated person; else None.
        true_vad: True ratings of an annotated person by name; else None.
    """

    body_bbox: Box
    face_bbox: Box | None
    body_from: str
    probabilities: dict[str, float] | None
    valence: float | None = None
    arousal: float | None = None
    dominance: float | None = None
    person_id: str | None = None
    true_labels: tuple[str, ...] | None = None
    true_vad: dict[str, float | None] | None = None

    def top(self, n: int = 5) -> list[tuple[str, float]]:
        """The n most probable labels with their probabilities, best first; empty without probabilities."""
        ranked = sorted((self.probabilities or {}).items(), key=lambda item: -item[1])
        return ranked[:n]


class Predictor:
    """A trained model with a face detector, which is loaded on first use.

    Attributes:
        run: The training run, or the description of an exported model.
        faces: Settings of the face detector and the face crops.
    """

    def __init__(self, run: Run, model: Mter | None, faces: FaceSettings, arrays: ArrayProviders | None = None) -> None:
        self.run = run
        self._model = model
        self.faces = faces
        self._arrays = arrays

    @property
    def model(self) -> Mter:
        """The network, in evaluation mode.

        Raises:
            SettingsError: It is in an ONNX file, whose layers cannot be reached.
        """
        if self._model is None:
            raise SettingsError(
                f"{self.run.weights_path}: this needs the layers of the network, which an ONNX file does not give; "
                "take the run that it was exported from, or export that with --format folder"
            )
        return self._model

    @property
    def other_inputs(self) -> dict[str, str]:
        """What the model reads beside the photo and who provides it, see ``describe_other_inputs``."""
        return describe_other_inputs(self.run.model_name, self.run.recipe.region_source, self.run.array_tables)

    @cached_property
    def detector(self) -> Detector:
        """The face detector."""
        return load_face_detector(self.faces)

    def predict(self, image: str | Path | Photo, boxes: ArrayLike | None = None) -> list[PersonPrediction]:
        """Finds the people of a photo and predicts their apparent emotions.

        Args:
            image: A file or its URL in an object store, turned upright by its orientation; or (height, width, 3) uint8
                RGB.
            boxes: (n, 4) xyxy body boxes, pixels of the photo; None finds the people by their faces.

        Returns:
            One per box, in that order; or one per face, from left to right.

        Raises:
            ImageError: The file cannot be read.
            SettingsError: A box has no area inside the photo.
            WeightsError: The detector's weights are not on this machine.

        Example:
            ``emoface.load("runs/mter2").predict("party.jpg")[0].top(3)``
        """
        photo = read_photo_at(to_place(image)) if isinstance(image, str | Path) else _check_photo(image)
        bodies = None if boxes is None else np.asarray(boxes, np.float32).reshape(-1, 4)
        return self.predict_people(photo, self.find_people(photo, bodies))

    def find_people(
        self, photo: Photo, body_xyxy: NDArray[np.float32] | None = None, body_from: str = FROM_BOX
    ) -> list[Person]:
        """Finds the people of a photo with their faces, which are assigned to people as in the faces job.

        Args:
            photo: (height, width, 3), RGB.
            body_xyxy: (n, 4) body boxes; None estimates a body box from each face.
            body_from: Where the given body boxes come from.

        Raises:
            SettingsError: A box has no area inside the photo.
        """
        image_wh = (photo.shape[1], photo.shape[0])
        if body_xyxy is not None:
            _check_boxes(body_xyxy, image_wh)
            if not len(body_xyxy):
                return []
        found = self.detector.detect([photo])[0]
        if body_xyxy is None:
            faces = crop_all_faces(photo, found, self.faces)
            face_xyxy = np.array([face.xyxy for face in faces], np.float32).reshape(-1, 4)
            bodies = bodies_from_faces(face_xyxy, image_wh)
            return [_to_person(body, face, FROM_FACE) for body, face in zip(bodies, faces, strict=True)]
        bodies = clip_boxes(body_xyxy, image_wh)
        person_faces = crop_assigned_faces(photo, bodies, found, self.faces)
        return [_to_person(body, one.face, body_from) for body, one in zip(bodies, person_faces, strict=True)]

    def predict_people(
        self, photo: Photo, people: Sequence[Person], others: Sequence[Person] = ()
    ) -> list[PersonPrediction]:
        """Predicts the apparent emotions of people of a photo.

        Args:
            photo: (height, width, 3), RGB, in the frame of the people's boxes.
            people: The people, see ``find_people`` and ``from_annotation``.
            others: The other people of the photo, who are not predicted; ``emoticon`` reads where they are.

        Returns:
            One per person, in that order.
        """
        if not people:
            return []
        all_probabilities, vad = self._forward(photo, people, others)
        predictions = []
        for k, person in enumerate(people):
            probabilities = all_probabilities[k]
            rated = {} if vad is None or np.isnan(vad[k]).any() else _by_dimension(vad[k])
            predictions.append(
                PersonPrediction(
                    body_bbox=_to_tuple(person.body_xyxy),
                    face_bbox=None if person.face_xyxy is None else _to_tuple(person.face_xyxy),
                    body_from=person.body_from,
                    probabilities=None
                    if np.isnan(probabilities).any()
                    else {name: float(value) for name, value in zip(self.run.label_names, probabilities, strict=True)},
                    person_id=person.person_id,
                    true_labels=person.true_labels,
                    true_vad=person.true_vad,
                    **rated,
                )
            )
        return predictions

    def explain(
        self, photo: Photo, person: Person, labels: Sequence[str], others: Sequence[Person] = ()
    ) -> dict[str, NDArray[np.float32]]:
        """Computes Grad-CAM maps of one person, see ``mter.grad_cam``.

        Args:
            photo: (height, width, 3), RGB.
            person: The person to explain.
            labels: Names of k labels.
            others: The other people of the photo, see ``predict_people``.

        Returns:
            Per stream that ran, (k, h, w).
        """
        from emoface.mter.grad_cam import grad_cam

        inputs, has_face = self._to_batch(photo, [person], others)
        return grad_cam(self.model, inputs, has_face, [self.run.label_names.index(label) for label in labels])

    def _forward(
        self, photo: Photo, people: Sequence[Person], others: Sequence[Person]
    ) -> tuple[NDArray[np.float32], NDArray[np.float32] | None]:
        """Computes probabilities, (n, 26), and valence, arousal and dominance, (n, 3), of people of a photo."""
        from emoface.mter.forward import forward_batch

        outputs = forward_batch(self.model, *self._to_batch(photo, people, others))
        return outputs.probabilities, outputs.vad

    def _to_batch(
        self, photo: Photo, people: Sequence[Person], others: Sequence[Person]
    ) -> tuple[dict[str, Tensor], Tensor]:
        import torch

        from emoface.mter.dataset import to_stream_inputs

        parts = [
            to_stream_inputs(
                photo,
                person.body_xyxy,
                person.face,
                person.face_xyxy,
                streams=self.model.streams,
                sizes=self.run.stream_sizes,
                context_input=self.model.context_input,
            )
            for person in people
        ]
        device = next(self.model.parameters()).device
        inputs = {stream: torch.cat([one[stream] for one, _ in parts]).to(device) for stream in self.model.streams}
        if self._arrays is not None:
            share = self.model.context_input.center_share
            arrays = self._arrays.compute(photo, _place([*people, *others]), self.run.stream_sizes, share)
            inputs |= {name: torch.from_numpy(values[: len(people)]).to(device) for name, values in arrays.items()}
        return inputs, torch.cat([has_face for _, has_face in parts]).to(device)


class OnnxPredictor(Predictor):
    """A predictor whose network is an ONNX file, which runs on ONNX Runtime without torch."""

    def __init__(self, model: OnnxModel, faces: FaceSettings) -> None:
        super().__init__(model.run, None, faces)
        self._onnx = model
        self._streams = tuple(model.run.settings["streams"])
        self._context_input = read_context_input(model.run)

    def _forward(
        self, photo: Photo, people: Sequence[Person], others: Sequence[Person]
    ) -> tuple[NDArray[np.float32], NDArray[np.float32] | None]:
        pixels = [
            person_pixels(
                crop_person(photo, person.body_xyxy, person.face, person.face_xyxy),
                self._streams,
                self.run.stream_sizes,
                self._context_input,
            )
            for person in people
        ]
        inputs = {stream: normalise_arrays(np.stack([one[stream] for one in pixels])) for stream in self._streams}
        outputs = self._onnx.compute({**inputs, "has_face": np.array([person.face is not None for person in people])})
        return outputs["probabilities"], outputs.get("vad")


def load_predictor(
    run: str | Path,
    device: str = "auto",
    faces: FaceSettings | None = None,
    files: ModelFiles | None = None,
    **changes: object,
) -> Predictor:
    """Loads a predictor with the best weights of a finished run, or with an exported model.

    Args:
        run: A run or an exported model, see ``find_model``.
        device: ``auto``, ``cpu`` or ``cuda``.
        faces: Settings of the face detector and the face crops; None takes those of the run's data set.
        files: Files of the models whose results the model reads beside the photo; None looks them up.
        changes: Values of ``FaceSettings`` that replace single settings; None keeps a setting.

    Raises:
        SettingsError: It is neither a finished run nor an exported model; or its model reads more than photos, and is
            in an ONNX file, or what it reads has no provider for other photos, see ``load_array_providers``.
        WeightsError: The weights cannot be read, or a model that provides what it reads is not on this machine.
    """
    found = find_model(run, device)
    trained = found if isinstance(found, Run) else found.run
    faces = read_face_settings(trained.detector) if faces is None else faces
    faces = faces.replace(**{name: value for name, value in changes.items() if value is not None})
    if not isinstance(found, Run):
        _check_reads_photos(trained)
    arrays = load_array_providers(trained, files)
    if not isinstance(found, Run):
        return OnnxPredictor(found, faces)
    from emoface.learning.devices import pick_device

    return Predictor(trained, trained.load_model().to(pick_device(device)), faces, arrays)


def from_annotation(annotated: AnnotatedPerson) -> Person | None:
    """Converts an annotated person for a model; None where the person has no usable body box."""
    if annotated.body_xyxy is None:
        return None
    return Person(
        annotated.body_xyxy,
        annotated.face_xyxy,
        annotated.face,
        FROM_ANNOTATION,
        annotated.person_id,
        annotated.categories,
        annotated.vad,
        annotated.landmarks,
        annotated.face_conf,
    )


def _to_person(body_xyxy: NDArray[np.float32], face: CroppedFace | None, body_from: str) -> Person:
    """Builds a person whose face crop went through JPEG encoding, as in the data sets that models are trained on."""
    if face is None:
        return Person(body_xyxy, None, None, body_from)
    crop = decode_photo(face.jpeg, "face")
    return Person(body_xyxy, face.xyxy, crop, body_from, landmarks=face.landmarks, face_conf=face.conf)


def _place(people: Sequence[Person]) -> PhotoPeople:
    """The places of people, nan for what a person lacks."""

    def stack(values: list[NDArray[np.float32] | None], shape: tuple[int, ...]) -> NDArray[np.float32]:
        return np.stack([np.full(shape, np.nan, np.float32) if one is None else one for one in values])

    return PhotoPeople(
        np.stack([one.body_xyxy for one in people]),
        stack([one.face_xyxy for one in people], (4,)),
        stack([one.landmarks for one in people], (5, 2)),
        np.array([np.nan if one.face_conf is None else one.face_conf for one in people], np.float32),
    )


def _check_reads_photos(run: Run) -> None:
    """Checks that the model of an ONNX file reads photos alone."""
    if run.array_inputs:
        raise SettingsError(
            f"{run.weights_path}: {run.model_name} reads more than the photo ({', '.join(run.array_inputs)}), which is "
            "not computed for an ONNX file; take the run that it was exported from, or export that with --format folder"
        )


def _check_photo(photo: Photo) -> Photo:
    if photo.ndim != 3 or photo.shape[2] != 3 or photo.dtype != np.uint8 or not photo.size:
        raise ValueError(f"image is {photo.dtype} of shape {photo.shape}, expected uint8 of (height, width, 3), RGB")
    return photo


def _check_boxes(body_xyxy: NDArray[np.float32], image_wh: tuple[int, int]) -> None:
    is_finite = np.isfinite(body_xyxy).all(axis=1)
    found = find_other_convention(body_xyxy[is_finite], np.tile(np.array(image_wh, np.float32), (is_finite.sum(), 1)))
    if found is not None:
        raise SettingsError(
            f"the boxes are {found}, such as {','.join(f'{value:g}' for value in body_xyxy[is_finite][0])}; expected "
            f"x1,y1,x2,y2 in pixels of the photo of {image_wh[0]} x {image_wh[1]}: convert the boxes first"
        )
    for box in body_xyxy:
        if not np.isfinite(box).all() or box_areas(clip_boxes(box[None], image_wh))[0] <= 0:
            raise SettingsError(
                f"box {','.join(f'{value:g}' for value in box)} has no area inside the photo of {image_wh[0]} x "
                f"{image_wh[1]}; expected x1,y1,x2,y2 in its pixels, x1 < x2 and y1 < y2"
            )


def _by_dimension(vad: NDArray[np.float32]) -> Mapping[str, float]:
    return {name: float(value) for name, value in zip(DIMENSIONS, vad, strict=True)}


def _to_tuple(xyxy: NDArray[np.float32]) -> Box:
    x1, y1, x2, y2 = (float(value) for value in xyxy)
    return x1, y1, x2, y2
