"""The explain job: Grad-CAM maps of the evidence for a label in face, body and photo (figure 4-3)."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import model_validator

from emoface.datasets.manifest import read_manifest
from emoface.datasets.people import find_annotated_people, read_annotated_photo
from emoface.errors import ImageError, NothingGivenError, SettingsError, TableError, did_you_mean
from emoface.inference.array_providers import DepthWeights, ModelFiles, PoseWeights, RegionWeights
from emoface.inference.faces import DetectorOverride, WeightsOverride
from emoface.progress import SILENT, Progress
from emoface.reporting.drawing import draw_caption, draw_color_bar, draw_heat, unique_stems, write_png
from emoface.storage.files import write_text
from emoface.storage.locks import locked
from emoface.storage.photo_stores import hash_photos, read_photo_at
from emoface.storage.records import JobRecord, finish_job
from emoface.storage.settings import Count, Device, FileOrUrl, Folder, FolderOrUrl, Settings
from emoface.version import __version__
from emoface.vision.boxes import Box
from emoface.vision.crops import Photo, square_box

if TYPE_CHECKING:
    from emoface.inference.predictor import Person, Predictor


class ExplainConfig(Settings):
    """Settings of the explain job."""

    run: Folder
    """Folder of the training run."""
    images: tuple[FileOrUrl, ...] = ()
    """Photos whose people are explained; paths, or URLs in an object store such as s3://bucket/photo.jpg."""
    index: tuple[int, ...] = ()
    """The ``index`` of a person of the data set; repeat the option for each person."""
    person_id: tuple[str, ...] = ()
    """The ``person_id`` of a person of the data set; repeat the option for each person."""
    manifest: FileOrUrl | None = None
    """Manifest of the data set of these people; by default the one that the run was trained on."""
    image_root: FolderOrUrl | None = None
    """Folder of the data set's photos, or its URL, if they are no longer where the manifest says."""
    boxes: tuple[Box, ...] = ()
    """A body box in the single given photo in pixels, x1,y1,x2,y2; repeat the option for each person. Without boxes the
    people are found by their faces."""
    labels: tuple[str, ...] = ()
    """A label to explain; repeat the option for each label. Without labels each person's most probable ones are
    explained."""
    top: Count = 3
    """Number of most probable labels to explain for each person."""
    out: Folder | None = None
    """Folder for the drawings and JSON files; by default ``explain`` in the run's folder."""
    detector: DetectorOverride = None
    weights: WeightsOverride = None
    pose_weights: PoseWeights = None
    depth_weights: DepthWeights = None
    region_weights: RegionWeights = None
    device: Device = "auto"
    """Device on which the network runs; ``auto`` takes CUDA where there is one."""

    @model_validator(mode="after")
    def _check_people(self) -> Self:
        if not (self.images or self.index or self.person_id):
            raise NothingGivenError("no people to explain; give photos, an index or a person_id")
        if self.boxes and len(self.images) != 1:
            raise SettingsError(f"boxes need exactly one photo, found {len(self.images)} photos")
        return self

    @property
    def folder(self) -> Path:
        """Folder of drawings and JSON files."""
        return self.out or self.run / "explain"


@dataclass(frozen=True)
class _Case:
    """One person to explain, with the stem of the output file names, and the other people of the photo."""

    name: str
    image: str
    photo: Photo
    person: Person
    others: tuple[Person, ...]


@locked("folder")
def run_explain(config: ExplainConfig, progress: Progress = SILENT) -> JobRecord:
    """Draws Grad-CAM maps of people, for each stream and label.

    An unreadable photo does not stop the processing of the others.

    Args:
        config: Settings of the job.
        progress: Receives one step per photo and per person of the data set.

    Returns:
        The job's record. ``OUT/`` holds per person ``NAME_LABEL_STREAM.png`` and ``NAME.json`` with the maps.

    Raises:
        ImageError: Some photos could not be read; the results of the others and the record are written.
        SettingsError: The folder is not a finished training run, or a box is outside its photo; or the last feature map
            of a stream's network is not known.
        TableError: No person has the given index or person_id.
    """
    from emoface.inference.predictor import load_predictor

    files = ModelFiles(config.pose_weights, config.depth_weights, config.region_weights)
    predictor = load_predictor(config.run, config.device, files=files, detector=config.detector, weights=config.weights)
    predictor.model.last_maps()  # raises the error before any work is done
    for label in config.labels:
        if label not in predictor.run.label_names:
            raise SettingsError(f"no label is called '{label}'{did_you_mean(label, predictor.run.label_names)}")
    failures: list[str] = []
    outputs: list[Path] = []
    n_people = 0
    progress.start("explain", len(config.images) + len(config.index) + len(config.person_id))
    for case in _find_cases(config, predictor, failures, progress):
        outputs += _explain(config, predictor, case)
        n_people += 1
    record = finish_job(
        "explain",
        config,
        config.folder,
        module=__name__,
        inputs=hash_photos((predictor.run.weights_path, *config.images)),
        outputs=outputs,
        counts={"people": n_people, "photos_left_out": len(failures), "drawings": len(outputs) - n_people},
    )
    if failures:
        raise ImageError(
            f"{len(failures)} photos could not be read: {'; '.join(failures)}; "
            f"the results of the others are in {config.folder}"
        )
    return record


def stream_box(stream: str, person: Person, margin: float, image_wh: tuple[int, int], center_share: float = 1.0) -> Box:
    """Computes the part of a photo that is a stream's input for a person.

    Args:
        stream: ``face`` (the square crop with its margin), ``body`` (the box) or ``context`` (the photo).
        person: The person, who must have a face for the stream ``face``.
        margin: Margin of the face crop. A crop that was aligned by landmarks is rotated against this upright square.
        image_wh: Width and height of the photo.
        center_share: Share of the photo's width and height that the context stream sees, around the centre.

    Returns:
        xyxy, original pixels; a face's square may reach beyond the photo.
    """
    if stream == "context":
        width, height = image_wh
        rim = (1 - center_share) / 2
        return width * rim, height * rim, width * (1 - rim), height * (1 - rim)
    if stream == "body":
        x1, y1, x2, y2 = (float(value) for value in person.body_xyxy)
        return x1, y1, x2, y2
    if person.face_xyxy is None:
        raise ValueError("a person without a face has no input for the face stream")
    left, top, side = square_box(person.face_xyxy, margin)
    return float(left), float(top), float(left + side), float(top + side)


def _find_cases(
    config: ExplainConfig, predictor: Predictor, failures: list[str], progress: Progress
) -> Iterator[_Case]:
    from emoface.inference.predictor import from_annotation

    if config.index or config.person_id:
        images = config.image_root or (predictor.run.images if config.manifest is None else None)
        manifest = read_manifest(config.manifest or predictor.run.manifest_path, images=images)
        found = find_annotated_people(manifest, "index", config.index) if config.index else []
        found += find_annotated_people(manifest, "person_id", config.person_id) if config.person_id else []
        in_photos = find_annotated_people(manifest, "image", list(dict.fromkeys(one.image for one in found)))
        for annotated in {one.index: one for one in found}.values():
            others = [one for one in in_photos if one.image == annotated.image and one.index != annotated.index]
            try:
                photo, (upright, *upright_others) = read_annotated_photo(manifest, [annotated, *others])
                person = from_annotation(upright)
                if person is None:
                    raise TableError(f"{annotated.person_id}: no usable body box; choose another person")
            except ImageError as error:
                failures.append(str(error))
                progress.note(f"left out: {error}")
            else:
                beside = [one for one in map(from_annotation, upright_others) if one is not None]
                yield _Case(f"person-{annotated.index:06d}", annotated.image, photo, person, tuple(beside))
            progress.advance()
    for image, stem in zip(config.images, unique_stems(config.images), strict=True):
        try:
            photo = read_photo_at(image)
        except ImageError as error:
            failures.append(str(error))
            progress.note(f"left out: {error}")
        else:
            boxes = np.array(config.boxes, np.float32).reshape(-1, 4) if config.boxes else None
            people = predictor.find_people(photo, boxes)
            for k, person in enumerate(people):
                yield _Case(f"{stem}-{k + 1}", str(image), photo, person, (*people[:k], *people[k + 1 :]))
        progress.advance()


def _explain(config: ExplainConfig, predictor: Predictor, case: _Case) -> list[Path]:
    """Writes the drawings and the JSON file of one person."""
    (prediction,) = predictor.predict_people(case.photo, [case.person], case.others)
    labels = config.labels or tuple(name for name, _ in prediction.top(config.top))
    maps = predictor.explain(case.photo, case.person, labels, case.others)
    image_wh = (case.photo.shape[1], case.photo.shape[0])
    center_share = predictor.model.context_input.center_share
    boxes = {stream: stream_box(stream, case.person, predictor.faces.margin, image_wh, center_share) for stream in maps}
    paths = []
    for position, label in enumerate(labels):
        for stream, heats in maps.items():
            path = config.folder / f"{case.name}_{_slug(label)}_{stream}.png"
            probability = None if prediction.probabilities is None else prediction.probabilities[label]
            drawn = draw_heat(case.photo, heats[position], boxes[stream], float(heats[position].max()))
            caption = _caption(label, stream, probability, case.person.true_labels, float(heats[position].max()))
            outline = prediction.body_bbox if stream == "context" else boxes[stream]
            captioned = draw_caption(drawn, caption, [outline])
            scale = draw_color_bar(captioned.shape[1], "no evidence", "most evidence here")
            write_png(path, np.concatenate([captioned, scale]))
            paths.append(path)
    json_path = config.folder / f"{case.name}.json"
    content: dict[str, Any] = {
        "emoface_version": __version__,
        "image": case.image,
        "image_wh": list(image_wh),
        "model": predictor.run.model_name,
        **({"other_inputs": predictor.other_inputs} if predictor.other_inputs else {}),
        "person_id": case.person.person_id,
        "body_bbox": list(prediction.body_bbox),
        "face_bbox": None if prediction.face_bbox is None else list(prediction.face_bbox),
        "true_labels": None if case.person.true_labels is None else list(case.person.true_labels),
        "labels": {
            label: {
                "probability": None if prediction.probabilities is None else prediction.probabilities[label],
                "streams": _describe_maps(maps, boxes, position),
            }
            for position, label in enumerate(labels)
        },
    }
    write_text(json_path, json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False) + "\n")
    return [*paths, json_path]


def _describe_maps(
    maps: Mapping[str, NDArray[np.float32]], boxes: Mapping[str, Box], position: int
) -> dict[str, dict[str, Any]]:
    """Describes each stream's map: its values, the part of the photo that it covers, and its peak."""
    described = {}
    for stream, heats in maps.items():
        heat = heats[position]
        row, column = np.unravel_index(int(heat.argmax()), heat.shape)
        x1, y1, x2, y2 = boxes[stream]
        peak = [
            x1 + (column + 0.5) / heat.shape[1] * (x2 - x1),
            y1 + (row + 0.5) / heat.shape[0] * (y2 - y1),
        ]
        described[stream] = {
            "box": [round(value, 2) for value in boxes[stream]],
            "peak": [round(float(value), 2) for value in peak] if heat.max() > 0 else None,
            "map": [[float(f"{value:.5g}") for value in line] for line in heat],
        }
    return described


def _caption(
    label: str, stream: str, probability: float | None, true_labels: Sequence[str] | None, largest: float
) -> list[str]:
    first = f"{label}, {stream}" if probability is None else f"{label} {100 * probability:.0f} %, {stream}"
    lines = [first]
    if largest <= 0:
        lines.append("no evidence for this label here")
    if true_labels is not None:
        lines.append(f"true: {', '.join(true_labels) or 'no label'}")
    return lines


def _slug(label: str) -> str:
    return re.sub(r"[^a-z]+", "-", label.lower())
