"""The detector job: trains or fine-tunes YOLOv5-Face, and measures a detector on labelled photos.

Sample k of epoch e depends on the seed, e and k alone, so a run that is broken off and resumed sees what an unbroken
one would have seen.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from emoface.augmentation import crop_faces_square, distort_colors, mirror_faces
from emoface.crops import Photo
from emoface.detection_measures import DetectionMeasures, LabelledFaces, keep_sizes, measure_detections
from emoface.errors import AnnotationsError, SettingsError, TableError
from emoface.face_labels import LabelledPhoto, read_face_labels
from emoface.files import atomic_path, file_sha256, write_text
from emoface.images import is_whole_photo
from emoface.prefetch import in_batches, map_ahead
from emoface.progress import SILENT, Progress
from emoface.records import JobRecord, code_fingerprint, hash_outputs, read_record, to_settings, write_record
from emoface.weights import find_weights
from emoface.yolov5face import YoloV5Face, build_detector, build_network, load_detector, load_network, save_network
from emoface.yolov5face.losses import LossWeights
from emoface.yolov5face.training import AveragedWeights, Batch, evaluate_detector, train_one_epoch

EVALUATION_CONF = 0.02
FACE_SIZES: dict[str, tuple[float, float]] = {
    "under_16": (0, 16),
    "16_to_32": (16, 32),
    "32_to_96": (32, 96),
    "over_96": (96, math.inf),
}
"""Face sizes in pixels, square root of the box's area."""

_PAINT = 114


@dataclass(frozen=True)
class TrainDetectorConfig:
    """What training is told; the defaults of optimizer and crops are those of section 4.4 of the thesis.

    Attributes:
        train: One or more sources of labelled photos, see ``face_labels.read_face_labels``.
        val: Labelled photos that pick the best epoch.
        out: The run's folder.
        network: Which network; ignored where ``weights`` says it.
        weights: Starts from this file, or from weights of this name; None starts fresh.
        image_size: Side of the training crops, a multiple of 32.
        epochs: Rounds through the photos.
        batch_size: Crops per step.
        learning_rate: After the warm-up.
        momentum: Of SGD.
        weight_decay: Of SGD.
        warmup_steps: Steps over which the rate grows to ``learning_rate``.
        decay_at: Shares of the epochs at which the rate is divided by 10.
        negatives_per_positive: Hardest negatives that count per positive anchor.
        ema_decay: Of the averaged weights.
        seed: Decides first weights, crops, and order.
        device: ``cpu``, ``cuda``...; None picks CUDA where there is one.
    """

    train: tuple[Path, ...]
    val: Path
    out: Path
    network: str = "yolov5n-0.5-face"
    weights: str | None = None
    image_size: int = 320
    epochs: int = 30
    batch_size: int = 16
    learning_rate: float = 0.02
    momentum: float = 0.9
    weight_decay: float = 0.0005
    warmup_steps: int = 300
    decay_at: tuple[float, ...] = (0.7, 0.9)
    negatives_per_positive: float = 3.0
    ema_decay: float = 0.998
    seed: int = 0
    device: str | None = None

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size"):
            if getattr(self, name) < 1:
                raise SettingsError(f"{name} is {getattr(self, name)}, expected 1 or more")
        if self.image_size < 64 or self.image_size % 64:
            raise SettingsError(f"image_size is {self.image_size}, expected a positive multiple of 64")
        if self.learning_rate <= 0:
            raise SettingsError(f"learning_rate is {self.learning_rate}, expected more than 0")


@dataclass(frozen=True)
class EvaluateDetectorConfig:
    """What measuring a detector is told.

    Attributes:
        photos: Labelled photos.
        out: Folder for ``detector.json``.
        detector: Name of the detector's weights.
        weights: A weight file, instead of looking the name up.
        images: Folder of the photos, where it is not beside the labels.
        backend: As in the faces job.
        image_size: Longer side of the network's input.
        conf_threshold: For recall and false faces; average precision reads the whole curve.
        iou_threshold: Of non-maximum suppression.
        max_photos: Measure only the first so many; None measures all.
    """

    photos: Path
    out: Path
    detector: str = "yolov5n-face"
    weights: Path | None = None
    images: Path | None = None
    backend: str = "auto"
    image_size: int = 640
    conf_threshold: float = 0.5
    iou_threshold: float = 0.5
    max_photos: int | None = None


def run_train_detector(config: TrainDetectorConfig, progress: Progress = SILENT) -> JobRecord:
    """Trains a detector, or goes on with a run that was broken off.

    Args:
        config: What to do.
        progress: Told of each photo.

    Returns:
        The job's record. ``OUT/best.safetensors`` holds the averaged weights of the epoch with the best average
        precision, ``OUT/log.jsonl`` one line per epoch, ``OUT/last.pt`` what resuming needs.

    Raises:
        AnnotationsError: There are no labelled photos.
        SettingsError: ``out`` holds a run of other settings.
    """
    sources = [_need_photos(source) for source in config.train]
    train = [photo for photos, _ in sources for photo in photos]
    val, n_val_out = _need_photos(config.val)
    device = torch.device(config.device or ("cuda" if torch.cuda.is_available() else "cpu"))
    torch.manual_seed(config.seed)
    network = _first_network(config).to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizer = _build_optimizer(network, config)
    averaged = AveragedWeights(network, config.ema_decay)
    state = _resume(config, network, averaged, optimizer, device)
    loss_weights = LossWeights(negatives_per_positive=config.negatives_per_positive)
    log_path = config.out / "log.jsonl"
    lines = state["lines"]
    for epoch in range(len(lines), config.epochs):
        progress.start(f"epoch {epoch + 1} of {config.epochs}", len(train))
        with ThreadPoolExecutor(max(1, (os.cpu_count() or 2) - 1)) as pool:
            batches = _draw_batches(config, train, epoch, pool)
            losses = train_one_epoch(
                network,
                averaged,
                optimizer,
                batches,
                loss_weights,
                _learning_rates(config, epoch, len(train)),
                progress,
            )
        progress.start(f"measure {epoch + 1}", len(val))
        detector = build_detector(averaged.network, conf_threshold=EVALUATION_CONF, device=str(device))
        measures = evaluate_detector(detector, val, progress)
        line = {"epoch": epoch + 1, **losses, **asdict(measures)}
        if all(measures.average_precision > one["average_precision"] for one in lines):
            save_network(averaged.network, config.out / "best.safetensors")
        lines.append(line)
        _save_state(config, network, averaged, optimizer, lines)
        write_text(log_path, "".join(json.dumps(one) + "\n" for one in lines))
    best = max(lines, key=lambda one: one["average_precision"])
    record = JobRecord(
        job="detector-train",
        settings=to_settings(config),
        inputs={},
        outputs=hash_outputs(config.out, [config.out / "best.safetensors", log_path]),
        counts={
            "train_photos": len(train),
            "val_photos": len(val),
            "photos_left_out": sum(n_out for _, n_out in sources) + n_val_out,
            "epochs": len(lines),
            "best_epoch": best["epoch"],
            "average_precision": best["average_precision"],
        },
        info={"network": network.name},
        code=code_fingerprint(__name__),
    )
    write_record(config.out, record)
    return record


def run_evaluate_detector(config: EvaluateDetectorConfig, progress: Progress = SILENT) -> JobRecord:
    """Measures a detector on labelled photos.

    Args:
        config: What to measure.
        progress: Told of each photo.

    Returns:
        The job's record; ``OUT/detector.json`` holds average precision over all sizes and by size, and recall, false
        faces and landmark error at ``conf_threshold``.
    """
    photos, n_left_out = _need_photos(config.photos, config.images)
    photos = photos[: config.max_photos]
    weights = find_weights(config.detector, config.weights)
    detector = load_detector(
        weights.path,
        network=weights.network,
        backend=config.backend,
        image_size=config.image_size,
        conf_threshold=min(EVALUATION_CONF, config.conf_threshold),
        iou_threshold=config.iou_threshold,
    )
    progress.start("measure", len(photos))
    found = []
    for photo in photos:
        found += detector.detect([photo.read()])
        progress.advance()
    truth = [photo.faces for photo in photos]
    sure = [one[one.conf >= config.conf_threshold] for one in found]
    by_size = {}
    for name, (low, high) in FACE_SIZES.items():
        whole = [keep_sizes(f, t, low, high) for f, t in zip(found, truth, strict=True)]
        certain = [keep_sizes(f, t, low, high) for f, t in zip(sure, truth, strict=True)]
        by_size[name] = {
            "average_precision": _measure(whole).average_precision,
            "recall": _measure(certain).recall,
            "faces": _measure(certain).n_faces,
        }
    at_threshold = measure_detections(sure, truth)
    measures = {
        "photos": len(photos),
        "photos_left_out": n_left_out,
        "faces": at_threshold.n_faces,
        "average_precision": measure_detections(found, truth).average_precision,
        "conf_threshold": config.conf_threshold,
        "recall": at_threshold.recall,
        "false_faces_per_photo": at_threshold.false_per_photo,
        "landmark_error": at_threshold.landmark_error,
        "by_size": by_size,
    }
    path = config.out / "detector.json"
    write_text(path, json.dumps(_without_nan(measures), indent=2) + "\n")
    record = JobRecord(
        job="detector-evaluate",
        settings=to_settings(config),
        inputs={str(weights.path): weights.sha256},
        outputs={"detector.json": file_sha256(path)},
        counts=measures,
        info={"detector": weights.name, "weights_sha256": weights.sha256, "backend": detector.backend},
        code=code_fingerprint(__name__),
    )
    write_record(config.out, record)
    return record


def _measure(pairs: list[tuple[Any, LabelledFaces]]) -> DetectionMeasures:
    return measure_detections([found for found, _ in pairs], [truth for _, truth in pairs])


def _without_nan(value: Any) -> Any:
    """JSON has no nan: what is undefined becomes null."""
    if isinstance(value, dict):
        return {key: _without_nan(one) for key, one in value.items()}
    return None if isinstance(value, float) and math.isnan(value) else value


def _need_photos(source: Path, images: Path | None = None) -> tuple[list[LabelledPhoto], int]:
    """The labelled photos that can be read, and how many cannot."""
    photos = read_face_labels(source, images)
    with ThreadPoolExecutor() as pool:
        whole = list(pool.map(is_whole_photo, [photo.path for photo in photos]))
    readable = [photo for photo, is_whole in zip(photos, whole, strict=True) if is_whole]
    if not readable:
        first = f"{photos[0].path} is missing or broken" if photos else "it labels none"
        raise AnnotationsError(
            f"{source}: none of its {len(photos)} photos can be read ({first}); say where the photos are with --images"
        )
    return readable, len(photos) - len(readable)


def _first_network(config: TrainDetectorConfig) -> YoloV5Face:
    if config.weights is None:
        return build_network(config.network)
    path = Path(config.weights)
    return load_network(path if path.is_file() else find_weights(config.weights).path)


def _build_optimizer(network: YoloV5Face, config: TrainDetectorConfig) -> torch.optim.Optimizer:
    """SGD; weights of convolutions decay, biases and BatchNorms do not."""
    decays = [value for value in network.parameters() if value.ndim > 1]
    stays = [value for value in network.parameters() if value.ndim <= 1]
    groups = [{"params": decays, "weight_decay": config.weight_decay}, {"params": stays, "weight_decay": 0.0}]
    return torch.optim.SGD(groups, lr=config.learning_rate, momentum=config.momentum, nesterov=True)


def _learning_rates(config: TrainDetectorConfig, epoch: int, n_photos: int) -> Iterator[float]:
    """One per step of an epoch: linear warm-up, then divided by 10 at each of ``decay_at``."""
    n_steps = -(-n_photos // config.batch_size)
    factor = 0.1 ** sum(epoch >= share * config.epochs for share in config.decay_at)
    for step in range(epoch * n_steps, (epoch + 1) * n_steps):
        yield config.learning_rate * factor * min(1.0, (step + 1) / max(config.warmup_steps, 1))


def _draw_batches(
    config: TrainDetectorConfig, photos: list[LabelledPhoto], epoch: int, pool: ThreadPoolExecutor
) -> Iterator[Batch]:
    order = np.random.default_rng((config.seed, epoch)).permutation(len(photos)).tolist()
    draw = partial(_draw_sample, config, photos, epoch)
    samples = map_ahead(pool, draw, order, ahead=3 * config.batch_size)
    for batch in in_batches(samples, config.batch_size):
        pixels = np.stack([photo for photo, _ in batch]).transpose(0, 3, 1, 2)
        images = torch.from_numpy(np.ascontiguousarray(pixels)).float() / 255
        yield Batch(images, [faces for _, faces in batch])


def _draw_sample(
    config: TrainDetectorConfig, photos: list[LabelledPhoto], epoch: int, position: int
) -> tuple[Photo, LabelledFaces]:
    """A crop of one photo; mirrored and recoloured half of the time each."""
    rng = np.random.default_rng((config.seed, epoch, position))
    one = photos[position]
    photo, faces = crop_faces_square(rng, one.read(), one.faces, config.image_size)
    if rng.random() < 0.5:
        photo, faces = mirror_faces(photo, faces)
    if rng.random() < 0.5:
        photo = distort_colors(rng, photo)
    return _paint_ignored(photo, faces)


def _paint_ignored(photo: Photo, faces: LabelledFaces) -> tuple[Photo, LabelledFaces]:
    """Paints ignored faces grey, so that they are neither to be found nor wrong to find."""
    if not faces.ignored.any():
        return photo, faces
    photo = photo.copy()
    for x1, y1, x2, y2 in np.round(faces.xyxy[faces.ignored]).astype(int):
        photo[max(y1, 0) : y2 + 1, max(x1, 0) : x2 + 1] = _PAINT
    kept = ~faces.ignored
    return photo, LabelledFaces(faces.xyxy[kept], faces.landmarks[kept], faces.ignored[kept])


def _state_path(config: TrainDetectorConfig) -> Path:
    return config.out / "last.pt"


def _told(config: TrainDetectorConfig) -> str:
    """Everything that decides the weights, but not where they are trained."""
    settings = {
        key: value for key, value in to_settings(config).items() if key not in ("out", "device", "train", "val")
    }
    return json.dumps(settings, sort_keys=True)


def _resume(
    config: TrainDetectorConfig,
    network: YoloV5Face,
    averaged: AveragedWeights,
    optimizer: torch.optim.Optimizer,
    device: torch.device,
) -> dict[str, Any]:
    """Takes over an unfinished run, if ``out`` holds one."""
    path = _state_path(config)
    if not path.is_file():
        if read_record(config.out, "detector-train") is not None:
            raise TableError(f"{path}: missing though the run has a record; choose another folder")
        return {"lines": []}
    state: dict[str, Any] = torch.load(path, map_location=device, weights_only=True)
    if state["told"] != _told(config):
        raise SettingsError(f"{config.out}: holds a run of other settings; choose another folder, or remove it")
    network.load_state_dict(state["network"])
    averaged.network.load_state_dict(state["averaged"])
    averaged.n_updates = state["n_updates"]
    optimizer.load_state_dict(state["optimizer"])
    return state


def _save_state(
    config: TrainDetectorConfig,
    network: YoloV5Face,
    averaged: AveragedWeights,
    optimizer: torch.optim.Optimizer,
    lines: list[dict[str, Any]],
) -> None:
    state = {
        "told": _told(config),
        "network": network.state_dict(),
        "averaged": averaged.network.state_dict(),
        "n_updates": averaged.n_updates,
        "optimizer": optimizer.state_dict(),
        "lines": lines,
    }
    with atomic_path(_state_path(config)) as temporary:
        torch.save(state, temporary)
