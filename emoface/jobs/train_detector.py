"""The train_detector job: trains or fine-tunes YOLOv5-Face on labelled photos.

The run is kept after every epoch. Sample k of epoch e depends on the seed, e and k alone, so a run that is broken off
and resumed sees what an unbroken one would have seen, and on the CPU ends at the same bytes.
"""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from emoface.datasets.face_labels import LabelledPhoto, label_file, read_whole_photos
from emoface.errors import SettingsError
from emoface.metrics.detection import LabelledFaces
from emoface.prefetch import in_batches, map_ahead
from emoface.progress import SILENT, Progress
from emoface.storage.files import atomic_path, file_sha256, write_text
from emoface.storage.records import JobRecord, code_fingerprint, hash_outputs, to_settings, write_record
from emoface.storage.weights import WeightsFile, find_weights
from emoface.vision.augmentation import crop_faces_square, distort_colors, mirror_faces, paint_ignored
from emoface.vision.crops import Photo
from emoface.yolov5face import YoloV5Face, build_detector, build_network, load_network, save_network
from emoface.yolov5face.losses import LossWeights
from emoface.yolov5face.training import (
    AveragedWeights,
    Batch,
    evaluate_detector,
    has_folded_norms,
    restore_norms,
    train_one_epoch,
)

BEST_NAME, LAST_NAME, LOG_NAME = "best.safetensors", "last.pt", "log.jsonl"
_VAL_CONF = 0.02
_N_STATISTICS_BATCHES = 16


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
    negatives_per_positive: float = 300.0
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
        NonFiniteLossError: A loss is no number.
    """
    sources = [read_whole_photos(source) for source in config.train]
    train = [photo for photos, _ in sources for photo in photos]
    val, n_val_out = read_whole_photos(config.val)
    inputs = {str(path): file_sha256(path) for path in map(label_file, (*config.train, config.val))}
    first = _find_first_weights(config)
    if first is not None:
        inputs[str(first.path)] = first.sha256
    device = torch.device(config.device or ("cuda" if torch.cuda.is_available() else "cpu"))
    torch.manual_seed(config.seed)
    network = _first_network(config, first).to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    if has_folded_norms(network):
        restore_norms(network.eval(), _sample_images(config, train, device))
    optimizer = _build_optimizer(network, config)
    averaged = AveragedWeights(network, config.ema_decay)
    told = _told(config, inputs)
    lines = _resume(config.out / LAST_NAME, told, network, averaged, optimizer)
    loss_weights = LossWeights(negatives_per_positive=config.negatives_per_positive)
    log_path, best_path = config.out / LOG_NAME, config.out / BEST_NAME
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
        detector = build_detector(averaged.network, conf_threshold=_VAL_CONF, device=str(device))
        measures = evaluate_detector(detector, val, progress)
        line = {"epoch": epoch + 1, **losses, **asdict(measures)}
        if all(line["average_precision"] > one["average_precision"] for one in lines):
            save_network(averaged.network, best_path)
        lines.append(line)
        _save_state(config.out / LAST_NAME, told, network, averaged, optimizer, lines)
        write_text(log_path, "".join(json.dumps(one) + "\n" for one in lines))
    best = max(lines, key=lambda one: one["average_precision"])
    record = JobRecord(
        job="train_detector",
        settings=to_settings(config),
        inputs=inputs,
        outputs=hash_outputs(config.out, [best_path, log_path]),
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


def _find_first_weights(config: TrainDetectorConfig) -> WeightsFile | None:
    if config.weights is None:
        return None
    path = Path(config.weights)
    return find_weights(path.stem, path) if path.is_file() else find_weights(config.weights)


def _first_network(config: TrainDetectorConfig, first: WeightsFile | None) -> YoloV5Face:
    return build_network(config.network) if first is None else load_network(first.path, first.network)


def _build_optimizer(network: YoloV5Face, config: TrainDetectorConfig) -> torch.optim.Optimizer:
    """SGD; weights of convolutions decay, biases and BatchNorms do not."""
    decays = [value for value in network.parameters() if value.ndim > 1]
    stays = [value for value in network.parameters() if value.ndim <= 1]
    groups = [{"params": decays, "weight_decay": config.weight_decay}, {"params": stays, "weight_decay": 0.0}]
    return torch.optim.SGD(groups, lr=config.learning_rate, momentum=config.momentum, nesterov=True)


def _learning_rates(config: TrainDetectorConfig, epoch: int, n_photos: int) -> Iterator[float]:
    """One per step of an epoch: linear warm-up, then divided by 10 at each of ``decay_at``."""
    n_steps = -(-n_photos // config.batch_size)
    factor = 0.1 ** sum(epoch >= round(share * config.epochs) for share in config.decay_at)
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


def _sample_images(config: TrainDetectorConfig, photos: list[LabelledPhoto], device: torch.device) -> Iterator[Tensor]:
    """Batches like those of the first epoch, for statistics."""
    with ThreadPoolExecutor(1) as pool:
        for batch in itertools.islice(_draw_batches(config, photos, 0, pool), _N_STATISTICS_BATCHES):
            yield batch.images.to(device)


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
    return paint_ignored(photo, faces)


def _told(config: TrainDetectorConfig, inputs: dict[str, str]) -> str:
    """Everything that decides the weights, but not where files lie or on what the run is trained."""
    paths = ("out", "device", "train", "val", "weights")
    settings = {key: value for key, value in to_settings(config).items() if key not in paths}
    return json.dumps([settings, list(inputs.values())], sort_keys=True)


def _resume(
    path: Path, told: str, network: YoloV5Face, averaged: AveragedWeights, optimizer: torch.optim.Optimizer
) -> list[dict[str, Any]]:
    """Takes over the run that ``path`` holds, if it does; returns its log lines."""
    if not path.is_file():
        return []
    state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    if state["told"] != told:
        raise SettingsError(
            f"{path}: a run of other settings, labels or first weights; choose another folder, or remove this one"
        )
    network.load_state_dict(state["network"])
    averaged.network.load_state_dict(state["averaged"])
    averaged.n_updates = state["n_updates"]
    optimizer.load_state_dict(state["optimizer"])
    lines: list[dict[str, Any]] = state["lines"]
    return lines


def _save_state(
    path: Path,
    told: str,
    network: YoloV5Face,
    averaged: AveragedWeights,
    optimizer: torch.optim.Optimizer,
    lines: list[dict[str, Any]],
) -> None:
    state = {
        "told": told,
        "network": network.state_dict(),
        "averaged": averaged.network.state_dict(),
        "n_updates": averaged.n_updates,
        "optimizer": optimizer.state_dict(),
        "lines": lines,
    }
    with atomic_path(path) as temporary:
        torch.save(state, temporary)
