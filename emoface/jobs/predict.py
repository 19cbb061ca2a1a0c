"""The predict job: the people of any photos and their predicted emotions, as drawings and JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Self

import numpy as np
from pydantic import Field, model_validator

from emoface.datasets.manifest import Manifest, read_manifest
from emoface.datasets.people import find_annotated_people, read_annotated_photo
from emoface.errors import ImageError, SettingsError, TableError
from emoface.inference.faces import Backend, DetectorOverride, WeightsOverride
from emoface.progress import SILENT, Progress
from emoface.reporting.drawing import DrawnPerson, LabelBar, draw_people, unique_stems, write_png
from emoface.schema import DIMENSIONS, N_CATEGORIES
from emoface.storage.files import parse_json, read_text, write_text
from emoface.storage.locks import locked
from emoface.storage.photo_stores import hash_photos, read_photo_at
from emoface.storage.records import JobRecord, finish_job
from emoface.storage.settings import Device, File, FileOrUrl, Folder, Settings, Share
from emoface.storage.urls import Place, find_below, name_of, resolve_place
from emoface.version import __version__
from emoface.vision.boxes import Box
from emoface.vision.crops import Photo
from emoface.vision.photo_names import describe_missing

if TYPE_CHECKING:
    from emoface.inference.predictor import PersonPrediction, Predictor


class PredictConfig(Settings):
    """Settings of the predict job."""

    run: Folder
    """Folder of the training run."""
    images: tuple[FileOrUrl, ...]
    """Photos whose people are predicted; paths, or URLs in an object store such as s3://bucket/photo.jpg."""
    out: Folder | None = None
    """Folder for the drawings and JSON files; by default ``predict`` in the run's folder."""
    boxes: tuple[Box, ...] = ()
    """A body box in the single given photo in pixels, x1,y1,x2,y2; repeat the option for each person."""
    boxes_file: File | None = None
    """A JSON file of body boxes: a list for one photo, or an object of lists by the photos' file names."""
    manifest: File | None = None
    """Manifest of a data set that contains the photos: its people, boxes and faces are used, and the true labels are
    drawn too."""
    top: Annotated[int, Field(ge=1, le=N_CATEGORIES)] = 5
    """Number of most probable labels to draw for each person."""
    detector: DetectorOverride = None
    weights: WeightsOverride = None
    backend: Backend | None = None
    """Backend of the face detector; by default PyTorch where there is CUDA, else ONNX Runtime."""
    conf_threshold: Share | None = None
    """Faces with a lower score than this are dropped; by default the threshold of the run's data set."""
    device: Device = "auto"
    """Device on which the network runs; ``auto`` takes CUDA where there is one."""

    @model_validator(mode="after")
    def _check_people(self) -> Self:
        if not self.images:
            raise SettingsError("no images; give one or more photos")
        given = [name for name in ("boxes", "boxes_file", "manifest") if getattr(self, name)]
        if len(given) > 1:
            raise SettingsError(f"people are given by {' and '.join(given)}; expected one of them, or none")
        if self.boxes and len(self.images) > 1:
            raise SettingsError(f"boxes need exactly one photo, found {len(self.images)} photos; use a boxes file")
        return self

    @property
    def folder(self) -> Path:
        """Folder of drawings and JSON files."""
        return self.out or self.run / "predict"


@locked("folder")
def run_predict(config: PredictConfig, progress: Progress = SILENT) -> JobRecord:
    """Predicts the emotions of the people of photos.

    A photo that cannot be read, or whose people are unknown, does not stop the processing of the others.

    Args:
        config: Settings of the job.
        progress: Receives one step per photo.

    Returns:
        The job's record. ``OUT/`` holds a drawing and a JSON file per photo, named after it.

    Raises:
        ImageError: Some photos could not be processed; the results of the others and the record are written.
        SettingsError: The folder is not a finished training run, or the boxes cannot be read.
        WeightsError: Faces must be detected and the detector's weights are not on this machine.
    """
    from emoface.inference.predictor import load_predictor

    boxes_of = _read_boxes(config)
    manifest = None if config.manifest is None else read_manifest(config.manifest)
    predictor = load_predictor(
        config.run,
        config.device,
        detector=config.detector,
        weights=config.weights,
        backend=config.backend,
        conf_threshold=config.conf_threshold,
    )
    progress.start("predict", len(config.images))
    outputs: list[Path] = []
    failures: list[str] = []
    n_people = n_faces = 0
    for image, stem in zip(config.images, unique_stems(config.images), strict=True):
        try:
            photo, predictions = _predict_photo(config, predictor, manifest, boxes_of, image)
        except (ImageError, TableError, SettingsError) as error:
            failures.append(str(error))
            progress.note(f"left out: {error}")
        else:
            outputs += _write_photo(config, predictor, image, stem, photo, predictions)
            n_people += len(predictions)
            n_faces += sum(one.face_bbox is not None for one in predictions)
        progress.advance()
    record = finish_job(
        "predict",
        config,
        config.folder,
        module=__name__,
        inputs=hash_photos((predictor.run.weights_path, *config.images)),
        outputs=outputs,
        counts={
            "photos": len(config.images) - len(failures),
            "photos_left_out": len(failures),
            "people": n_people,
            "faces": n_faces,
        },
    )
    if failures:
        n_processed = len(config.images) - len(failures)
        raise ImageError(
            f"{len(failures)} of {len(config.images)} photos could not be processed: {'; '.join(failures)}"
            + (f"; the other {n_processed} are in {config.folder}" if n_processed else "")
        )
    return record


def _read_boxes(config: PredictConfig) -> dict[str, list[Box]] | None:
    """Reads the body boxes by file name of the photo; None if the settings give no boxes."""
    if config.boxes:
        return {name_of(config.images[0]): list(config.boxes)}
    path = config.boxes_file
    if path is None:
        return None
    expected = "expected a list of [x1, y1, x2, y2] for one photo, or an object of such lists by file name"
    if not path.is_file():
        raise SettingsError(f"{path}: no such file; {expected}")
    try:
        content = parse_json(read_text(path, SettingsError))
    except ValueError as error:
        raise SettingsError(f"{path}: not JSON ({error}); {expected}") from error
    if isinstance(content, list) and len(config.images) == 1:
        content = {name_of(config.images[0]): content}
    if not isinstance(content, dict):
        raise SettingsError(f"{path}: holds a {type(content).__name__} for {len(config.images)} photos; {expected}")
    for name, boxes in content.items():
        for box in boxes if isinstance(boxes, list) else [boxes]:
            is_box = isinstance(box, list) and len(box) == 4 and all(isinstance(v, int | float) for v in box)
            if not is_box:
                raise SettingsError(f"{path}: '{name}' holds {json.dumps(box)}; {expected}")
    return {name: [tuple(map(float, box)) for box in boxes] for name, boxes in content.items()}  # type: ignore[misc]


def _predict_photo(
    config: PredictConfig,
    predictor: Predictor,
    manifest: Manifest | None,
    boxes_of: Mapping[str, list[Box]] | None,
    image: Place,
) -> tuple[Photo, list[PersonPrediction]]:
    if manifest is not None:
        return _predict_annotated(predictor, manifest, image)
    photo = read_photo_at(image)
    if boxes_of is None:
        return photo, predictor.predict(photo)
    name = name_of(image)
    if name not in boxes_of:
        raise SettingsError(f"{config.boxes_file}: no boxes of '{name}', found {', '.join(sorted(boxes_of))}")
    try:
        return photo, predictor.predict(photo, np.array(boxes_of[name], np.float32).reshape(-1, 4))
    except SettingsError as error:
        raise SettingsError(f"{image}: {error}") from error


def _predict_annotated(predictor: Predictor, manifest: Manifest, image: Place) -> tuple[Photo, list[PersonPrediction]]:
    """Predicts the data set's people in this photo, with the same inputs as in an evaluation."""
    from emoface.inference.predictor import from_annotation

    root = resolve_place(manifest.photos.root)
    if isinstance(image, Path) and not image.is_file():
        raise ImageError(f"{image}: {describe_missing(image)}")
    if (below := find_below(image, root)) is None:
        raise TableError(f"{image}: not below '{root}', the image root of {manifest.path}")
    annotated = find_annotated_people(manifest, "image", [below])
    photo, annotated = read_annotated_photo(manifest, annotated)
    people = [person for one in annotated if (person := from_annotation(one)) is not None]
    return photo, predictor.predict_people(photo, people)


def _write_photo(
    config: PredictConfig,
    predictor: Predictor,
    image: Place,
    stem: str,
    photo: Photo,
    predictions: Sequence[PersonPrediction],
) -> list[Path]:
    drawing_path, json_path = config.folder / f"{stem}.png", config.folder / f"{stem}.json"
    write_png(drawing_path, draw_people(photo, [to_drawn(one, config.top) for one in predictions]))
    content: dict[str, Any] = {
        "emoface_version": __version__,
        "image": str(image),
        "image_wh": [photo.shape[1], photo.shape[0]],
        "model": predictor.run.model_name,
        "run": str(predictor.run.path),
        "people": [{"number": k + 1, **asdict(one)} for k, one in enumerate(predictions)],
    }
    write_text(json_path, json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n")
    return [drawing_path, json_path]


def to_drawn(prediction: PersonPrediction, top: int) -> DrawnPerson:
    """Converts a prediction for drawing: the most probable labels, the ratings, and the truth where it is known."""
    true = prediction.true_labels
    bars = tuple(
        LabelBar(name, probability, None if true is None else name in true) for name, probability in prediction.top(top)
    )
    notes = []
    if prediction.probabilities is None:
        notes.append("no face, which is this model's only input")
    ratings = {name: getattr(prediction, name) for name in DIMENSIONS}
    if ratings["valence"] is not None:
        notes.append(", ".join(f"{name} {value:.1f}" for name, value in ratings.items()))
    if true is not None:
        notes.append(f"true: {', '.join(true) or 'no label'}")
    known = {name: value for name, value in (prediction.true_vad or {}).items() if value is not None}
    if known:
        notes.append("true: " + ", ".join(f"{name} {value:g}" for name, value in known.items()))
    title = {"annotation": "annotated", "box": "box given", "face": "body estimated from face"}[prediction.body_from]
    if prediction.face_bbox is None:
        title += ", no face"
    return DrawnPerson(title, prediction.body_bbox, prediction.face_bbox, bars, tuple(notes))
