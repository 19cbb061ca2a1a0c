"""The predict job: the people of any photos and videos and their predicted apparent emotions, as drawings and JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import nullcontext, suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

import numpy as np
from pydantic import Field, model_validator

from emoface.datasets.manifest import Manifest, read_manifest
from emoface.datasets.people import find_annotated_people, read_annotated_photo
from emoface.errors import ImageError, NothingGivenError, SettingsError, TableError, name_first
from emoface.inference.array_providers import DepthWeights, ModelFiles, PoseWeights, RegionWeights
from emoface.inference.faces import Backend, DetectorOverride, WeightsOverride
from emoface.inference.person_detectors import PersonDetector, load_person_detector
from emoface.inference.tracking import Smoother, Tracker
from emoface.inference.videos import Frame, FrameStep, VideoSource, open_camera, open_video, write_video
from emoface.progress import SILENT, Progress
from emoface.reporting.drawing import (
    DrawnPerson,
    DrawnTrack,
    LabelBar,
    draw_people,
    draw_tracks,
    unique_stems,
    write_png,
)
from emoface.schema import DIMENSIONS
from emoface.storage.files import file_sha256, parse_json, read_text, write_text
from emoface.storage.json_lines import digest_key, is_of_photo, keep_lines, open_lines, photo_entries
from emoface.storage.locks import locked
from emoface.storage.media import Media, is_video, list_media
from emoface.storage.photo_stores import hash_photos, read_photo_at
from emoface.storage.records import JobRecord, finish_job
from emoface.storage.settings import Count, Device, File, FileOrUrl, Folder, FolderOrUrl, PathOrUrl, Settings, Share
from emoface.storage.urls import Place, find_below, name_of, resolve_place
from emoface.version import __version__
from emoface.vision.boxes import Box
from emoface.vision.crops import Photo
from emoface.vision.photo_names import describe_missing

if TYPE_CHECKING:
    from emoface.inference.predictor import PersonPrediction, Predictor

LINES_NAME = "predictions.jsonl"
_KEY_PATH = Path("records") / "predict_lines.json"
_MOST_NAMED = 20
"""Number of photos that an error names, of those that could not be processed; each of them has a note."""
_NOT_IN_LINES = (
    *("images", "out", "camera", "every", "fps", "track_iou", "track_age", "smooth_seconds"),
    *("pose_weights", "depth_weights", "region_weights"),  # the run says which files they are
)
"""Settings that do not change the result of a photo."""
_OF_ANNOTATIONS = ("person_id", "true_labels", "true_vad")
_TITLES = {
    "annotation": "annotated",
    "box": "box given",
    "face": "body estimated from face",
    "detector": "body detected",
}
"""Titles of the drawn people, by where their body box comes from."""


class PredictConfig(Settings):
    """Settings of the predict job."""

    run: Folder
    """Folder of the training run."""
    images: tuple[PathOrUrl, ...] = ()
    """Photos and videos whose people are predicted: files; folders, which stand for the photos in them and below;
    patterns such as 'photos/*.jpg'; photos also as URLs in an object store such as s3://bucket/photo.jpg."""
    camera: Annotated[int | None, Field(ge=0)] = None
    """Number of a camera of this machine, from 0, whose people are predicted until Ctrl-C is pressed."""
    out: Folder | None = None
    """Folder for the drawings and JSON files; by default ``predict`` in the run's folder."""
    boxes: tuple[Box, ...] = ()
    """A body box in the single given photo in pixels, x1,y1,x2,y2; repeat the option for each person."""
    boxes_file: File | None = None
    """A JSON file of body boxes: a list for one photo, or an object of lists by the photos' file names."""
    manifest: FileOrUrl | None = None
    """Manifest of a data set that contains the photos: its people, boxes and faces are used, and the true labels are
    drawn too."""
    image_root: FolderOrUrl | None = None
    """Folder of the data set's photos, or its URL, if they are no longer where the manifest says."""
    people: Literal["faces", "detector"] = "faces"
    """How people are found where no boxes are given: ``faces`` estimates a body box from each face, ``detector`` finds
    the body boxes with the person detector and assigns faces to them."""
    person_detector: str | None = None
    """The person detector: an .onnx file of YOLOX or RT-DETR, or the name of such weights."""
    person_conf_threshold: Share = 0.5
    """People whom the person detector gives a lower score than this are left out."""
    top: Count = 5
    """Number of most probable labels to draw for each person."""
    every: Count = 1
    """Of a video or camera, every how many frames one is processed."""
    fps: Annotated[float | None, Field(gt=0)] = None
    """Number of frames to process per second of a video or camera, in place of ``every``."""
    track_iou: Share = 0.3
    """Boxes of two frames that overlap (IoU) less than this are not the same person."""
    track_age: Annotated[int, Field(ge=0)] = 15
    """Number of processed frames that a person may be missing; after more, the person gets a new track number."""
    smooth_seconds: Annotated[float, Field(ge=0)] = 1.0
    """Length in seconds of the window over which the probabilities of a track are averaged; 0 averages nothing."""
    detector: DetectorOverride = None
    weights: WeightsOverride = None
    backend: Backend | None = None
    """Backend of the face detector; by default PyTorch where there is CUDA, else ONNX Runtime."""
    conf_threshold: Share | None = None
    """Faces with a lower score than this are dropped; by default the threshold of the run's data set."""
    pose_weights: PoseWeights = None
    depth_weights: DepthWeights = None
    region_weights: RegionWeights = None
    device: Device = "auto"
    """Device on which the network runs; ``auto`` takes CUDA where there is one."""

    @model_validator(mode="after")
    def _check_people(self) -> Self:
        if not self.images and self.camera is None:
            raise NothingGivenError("no images; give one or more photos, folders or videos, or the number of a camera")
        given = [name for name in ("boxes", "boxes_file", "manifest") if getattr(self, name)]
        if len(given) > 1:
            raise SettingsError(f"people are given by {' and '.join(given)}; expected one of them, or none")
        if self.boxes and len(self.images) > 1:
            raise SettingsError(f"boxes need exactly one photo, found {len(self.images)} photos; use a boxes file")
        if given and self.people == "detector":
            raise SettingsError(f"people are given by {given[0]} and found by a detector; expected one of them")
        if given and (self.camera is not None or any(map(is_video, self.images))):
            raise SettingsError(f"{given[0]} gives the people of photos, not of videos and cameras")
        if self.people == "detector" and self.person_detector is None:
            raise SettingsError("people is detector without a person_detector; give an .onnx file of YOLOX or RT-DETR")
        if self.person_detector is not None and self.people != "detector":
            raise SettingsError("person_detector is given, but people are found by faces; set people to detector")
        if self.fps is not None and self.every > 1:
            raise SettingsError("every and fps both choose frames; expected one of them")
        return self

    @property
    def folder(self) -> Path:
        """Folder of drawings and JSON files."""
        return self.out or self.run / "predict"

    @property
    def step(self) -> FrameStep:
        """Which frames of a video are processed."""
        return FrameStep(self.every, self.fps)


@dataclass
class _Results:
    """What the job has written and counted so far."""

    outputs: list[Path] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    photos_left_out: int = 0
    photos_kept: int = 0
    videos: int = 0
    frames: int = 0
    tracks: int = 0
    people: int = 0
    faces: int = 0


@dataclass(frozen=True)
class _Job:
    """The settings of the job and what it predicts with."""

    config: PredictConfig
    media: Media
    predictor: Predictor
    person_detector: PersonDetector | None
    manifest: Manifest | None
    boxes_of: Mapping[str, list[Box]] | None
    progress: Progress


@locked("folder")
def run_predict(config: PredictConfig, progress: Progress = SILENT) -> JobRecord:
    """Predicts the apparent emotions of the people of photos, videos and a camera.

    A photo that cannot be read, or whose people are unknown, does not stop the processing of the others.

    Args:
        config: Settings of the job.
        progress: Receives one step per photo, and per processed frame of a video.

    Returns:
        The job's record. ``OUT/`` holds a drawing and a JSON file per photo, named after it; of several photos also
        ``predictions.jsonl`` with a line per photo, which lets an interrupted job go on. Of each video there are a file
        with a line per processed frame, ``VIDEO.frames.jsonl``, and the annotated video, ``VIDEO.annotated.mp4``.

    Raises:
        ImageError: Some photos or videos could not be processed; the results of the others and the record are written.
        SettingsError: The folder is not a finished training run, the boxes cannot be read, or a folder has no photos.
        WeightsError: Weights of a detector, or of a model that provides what the run's model reads beside the photo,
            are not on this machine, or are others than expected.
    """
    from emoface.inference.predictor import load_predictor

    media = list_media(config.images, config.folder)
    job = _Job(
        config,
        media,
        boxes_of=_read_boxes(config, media),
        manifest=None if config.manifest is None else read_manifest(config.manifest, images=config.image_root),
        person_detector=None
        if config.person_detector is None
        else load_person_detector(config.person_detector, config.person_conf_threshold),
        predictor=load_predictor(
            config.run,
            config.device,
            files=ModelFiles(config.pose_weights, config.depth_weights, config.region_weights),
            detector=config.detector,
            weights=config.weights,
            backend=config.backend,
            conf_threshold=config.conf_threshold,
        ),
        progress=progress,
    )
    results = _Results()
    _predict_photos(job, unique_stems(media.photos), results)
    for path, stem in zip(media.videos, unique_stems(media.videos), strict=True):
        _predict_source(job, path, stem, results)
    if config.camera is not None:
        _predict_source(job, config.camera, _free_stem(config.folder, f"camera-{config.camera}"), results)
    record = finish_job(
        "predict",
        config,
        config.folder,
        module=__name__,
        inputs=hash_photos((job.predictor.run.weights_path, *media.photos, *media.videos)),
        outputs=results.outputs,
        counts=_count(media, results),
    )
    if results.failures:
        raise ImageError(_describe_failures(job, results))
    return record


def _count(media: Media, results: _Results) -> dict[str, int]:
    counts = {}
    if media.photos:
        counts = {
            "photos": len(media.photos) - results.photos_left_out,
            "photos_left_out": results.photos_left_out,
        }
    if results.photos_kept:
        counts["photos_done_before"] = results.photos_kept
    if results.videos:
        counts |= {"videos": results.videos, "frames": results.frames, "tracks": results.tracks}
    return {**counts, "people": results.people, "faces": results.faces}


def _describe_failures(job: _Job, results: _Results) -> str:
    media, failures = job.media, results.failures
    given = {"photos": len(media.photos), "videos": len(media.videos), "cameras": int(job.config.camera is not None)}
    n_given, kind = sum(given.values()), " and ".join(name for name, n in given.items() if n)
    named = name_first(failures, _MOST_NAMED)
    text = f"{len(failures)} of {n_given} {kind} could not be processed: {named}"
    n_processed = n_given - len(failures)
    return text + (f"; the other {n_processed} are in {job.config.folder}" if n_processed else "")


# Photos


def _predict_photos(job: _Job, stems: Sequence[str], results: _Results) -> None:
    """Predicts the photos; a line is written of each if there are several, or if a folder or pattern was given."""
    photos = job.media.photos
    if not photos:
        return
    job.progress.start("predict", len(photos))
    if len(photos) == 1 and photos == job.config.images:
        _predict_and_count(job, photos[0], stems[0], results)
        return
    path = job.config.folder / LINES_NAME
    done = _keep_done(job, dict(zip(stems, photos, strict=True)), results)
    with open_lines(path, adds=True) as write:
        for image, stem in zip(photos, stems, strict=True):
            if stem in done:
                job.progress.advance()
            elif (content := _predict_and_count(job, image, stem, results)) is not None:
                write({**content, "name": stem, **photo_entries(image)})
    results.outputs.append(path)


def _keep_done(job: _Job, photo_of: Mapping[str, Place], results: _Results) -> set[str]:
    """Keeps the lines of photos that an earlier job finished with the same settings; returns their file names."""
    folder = job.config.folder
    done: dict[str, None] = {}

    def is_done(line: dict[str, Any]) -> bool:
        stem, people = line.get("name"), line.get("people")
        if not isinstance(stem, str) or not isinstance(people, list) or stem in done or stem not in photo_of:
            return False
        if not is_of_photo(line, photo_of[stem]) or not all(path.is_file() for path in _photo_paths(folder, stem)):
            return False
        done[stem] = None
        results.outputs += _photo_paths(folder, stem)
        results.people += len(people)
        results.faces += sum(one.get("face_bbox") is not None for one in people)
        return True

    keep_lines(folder / LINES_NAME, folder / _KEY_PATH, _key_of(job), is_done)
    results.photos_kept = len(done)
    if done:
        job.progress.note(f"{len(done)} of {len(photo_of)} photos are finished already, with the same settings")
    return set(done)


def _key_of(job: _Job) -> str:
    """A digest of all that decides the result of a photo, but for the photo."""
    config = job.config
    manifest_path = None if job.manifest is None else job.manifest.path
    files = (job.predictor.run.weights_path, config.boxes_file, manifest_path, config.weights)
    key = {
        "version": __version__,
        "settings": {name: value for name, value in config.to_json().items() if name not in _NOT_IN_LINES},
        "faces": job.predictor.faces.to_json(),
        "files": [None if path is None else file_sha256(path) for path in files],
        "person_detector": None if job.person_detector is None else job.person_detector.sha256,
    }
    return digest_key(key)


def _predict_and_count(job: _Job, image: Place, stem: str, results: _Results) -> dict[str, Any] | None:
    """Predicts and writes one photo; returns the content of its JSON file, None if it could not be processed."""
    content = None
    try:
        photo, predictions = _predict_photo(job, image)
    except (ImageError, TableError, SettingsError) as error:
        results.failures.append(str(error))
        results.photos_left_out += 1
        job.progress.note(f"left out: {error}")
    else:
        content = _write_photo(job, image, stem, photo, predictions)
        results.outputs += _photo_paths(job.config.folder, stem)
        results.people += len(predictions)
        results.faces += sum(one.face_bbox is not None for one in predictions)
    job.progress.advance()
    return content


def _read_boxes(config: PredictConfig, media: Media) -> dict[str, list[Box]] | None:
    """Reads the body boxes by file name of the photo; None if the settings give no boxes."""
    n_photos = len(media.photos)
    if media.videos and (config.boxes or config.boxes_file or config.manifest):
        raise SettingsError(f"{media.videos[0]}: boxes and manifests give the people of photos, not of videos")
    if config.boxes:
        if n_photos != 1:
            raise SettingsError(f"boxes need exactly one photo, found {n_photos} photos; use a boxes file")
        return {name_of(media.photos[0]): list(config.boxes)}
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
    if isinstance(content, list) and n_photos == 1:
        content = {name_of(media.photos[0]): content}
    if not isinstance(content, dict):
        raise SettingsError(f"{path}: holds a {type(content).__name__} for {n_photos} photos; {expected}")
    for name, boxes in content.items():
        for box in boxes if isinstance(boxes, list) else [boxes]:
            is_box = isinstance(box, list) and len(box) == 4 and all(isinstance(v, int | float) for v in box)
            if not is_box:
                raise SettingsError(f"{path}: '{name}' holds {json.dumps(box)}; {expected}")
    return {name: [tuple(map(float, box)) for box in boxes] for name, boxes in content.items()}  # type: ignore[misc]


def _predict_photo(job: _Job, image: Place) -> tuple[Photo, list[PersonPrediction]]:
    if job.manifest is not None:
        return _predict_annotated(job.predictor, job.manifest, image)
    photo = read_photo_at(image)
    if job.boxes_of is None:
        return photo, _predict_found(job, photo)
    name = name_of(image)
    if name not in job.boxes_of:
        raise SettingsError(f"{job.config.boxes_file}: no boxes of '{name}', found {', '.join(sorted(job.boxes_of))}")
    try:
        return photo, job.predictor.predict(photo, np.array(job.boxes_of[name], np.float32).reshape(-1, 4))
    except SettingsError as error:
        raise SettingsError(f"{image}: {error}") from error


def _predict_found(job: _Job, photo: Photo) -> list[PersonPrediction]:
    """Predicts the people of a photo or frame, who are found as the settings say."""
    from emoface.inference.predictor import FROM_DETECTOR

    if job.person_detector is None:
        return job.predictor.predict(photo)
    found = job.person_detector.find(photo)
    return job.predictor.predict_people(photo, job.predictor.find_people(photo, found.xyxy, FROM_DETECTOR))


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


def _photo_paths(folder: Path, stem: str) -> tuple[Path, Path]:
    """The drawing and the JSON file of a photo."""
    return folder / f"{stem}.png", folder / f"{stem}.json"


def _write_photo(
    job: _Job, image: Place, stem: str, photo: Photo, predictions: Sequence[PersonPrediction]
) -> dict[str, Any]:
    drawing_path, json_path = _photo_paths(job.config.folder, stem)
    write_png(drawing_path, draw_people(photo, [to_drawn(one, job.config.top) for one in predictions]))
    run = job.predictor.run
    content: dict[str, Any] = {
        "emoface_version": __version__,
        "image": str(image),
        "image_wh": [photo.shape[1], photo.shape[0]],
        "model": run.model_name,
        "run": str(run.path),
        **({"other_inputs": job.predictor.other_inputs} if job.predictor.other_inputs else {}),
        "people": [{"number": k + 1, **asdict(one)} for k, one in enumerate(predictions)],
    }
    write_text(json_path, json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n")
    return content


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
    title = _TITLES[prediction.body_from]
    if prediction.face_bbox is None:
        title += ", no face"
    return DrawnPerson(title, prediction.body_bbox, prediction.face_bbox, bars, tuple(notes))


# Videos and cameras


@dataclass(frozen=True)
class _TrackedPerson:
    track: int
    prediction: PersonPrediction
    smoothed: dict[str, float] | None


def _predict_source(job: _Job, given: Path | int, stem: str, results: _Results) -> None:
    """Predicts the frames of a video or camera; one that cannot be read is a failure, as a photo is."""
    try:
        with open_video(given) if isinstance(given, Path) else open_camera(given) as source:
            _write_frames(job, source, stem, results)
            damage = source.find_damage()
    except ImageError as error:
        damage = str(error)
    if damage is not None:
        results.failures.append(damage)
        job.progress.note(damage)


def _write_frames(job: _Job, source: VideoSource, stem: str, results: _Results) -> None:
    """Writes a line per frame and the annotated video; Ctrl-C ends a camera, as the end of the file ends a video."""
    config = job.config
    job.progress.start(f"predict {source.name}", source.count_selected(config.step))
    if source.is_camera:
        job.progress.note(f"{source.name}: press Ctrl-C to stop")
    tracker, smoother = Tracker(config.track_iou, config.track_age), Smoother(config.smooth_seconds)
    lines_path, video_path = (config.folder / f"{stem}{end}" for end in (".frames.jsonl", ".annotated.mp4"))
    ended = suppress(KeyboardInterrupt) if source.is_camera else nullcontext()
    with open_lines(lines_path, adds=False) as write, write_video(video_path, source.written_fps(config.step)) as video:
        with ended:
            for frame in source.frames(config.step):
                people = _track(frame, _predict_found(job, frame.photo), tracker, smoother)
                write(_to_frame_line(frame, people))
                drawn = draw_tracks(frame.photo, [_to_drawn_track(one, config.top) for one in people])
                video.write(drawn, frame.seconds + 1 / video.fps if source.is_camera else None)
                results.frames += 1
                results.people += len(people)
                results.faces += sum(one.prediction.face_bbox is not None for one in people)
                job.progress.advance()
        if not video.n_frames:
            raise ImageError(f"{source.name}: stopped before its first frame was processed")
    results.outputs += [lines_path, video_path]
    results.videos += 1
    results.tracks += tracker.n_tracks


def _track(
    frame: Frame, predictions: Sequence[PersonPrediction], tracker: Tracker, smoother: Smoother
) -> list[_TrackedPerson]:
    """Finds the track of each person of the next frame, and smooths the probabilities."""
    boxes = np.array([one.body_bbox for one in predictions], np.float32).reshape(-1, 4)
    tracks = tracker.update(boxes)
    raw = {track: one.probabilities for track, one in zip(tracks, predictions, strict=True)}
    smoothed = smoother.update(frame.seconds, raw)
    return [_TrackedPerson(track, one, smoothed[track]) for track, one in zip(tracks, predictions, strict=True)]


def _to_frame_line(frame: Frame, people: Sequence[_TrackedPerson]) -> dict[str, Any]:
    return {
        "frame": frame.number,
        "seconds": round(frame.seconds, 6),
        "people": [
            {
                "track": one.track,
                **{name: value for name, value in asdict(one.prediction).items() if name not in _OF_ANNOTATIONS},
                "smoothed_probabilities": one.smoothed,
            }
            for one in people
        ],
    }


def _to_drawn_track(person: _TrackedPerson, top: int) -> DrawnTrack:
    """Converts a person of a frame for drawing: the labels that are most probable after smoothing."""
    ranked = replace(person.prediction, probabilities=person.smoothed).top(top)
    lines = tuple(f"{name} {100 * probability:.0f} %" for name, probability in ranked)
    return DrawnTrack(person.track, person.prediction.body_bbox, person.prediction.face_bbox, lines)


def _free_stem(folder: Path, stem: str) -> str:
    """A name of files that an earlier recording has not taken."""
    number, free = 2, stem
    while any(folder.glob(f"{free}.*")):
        number, free = number + 1, f"{stem}-{number}"
    return free
