"""The train_detector job: trains or fine-tunes YOLOv5-Face on labelled photos.

The run is saved after every epoch. Sample k of epoch e depends only on the seed, e and k, so an interrupted and resumed
run trains on the same crops as an uninterrupted run, and on the CPU it ends with the same bytes.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from pydantic import Field, field_validator

from emoface.datasets.face_labels import label_file, read_whole_photos
from emoface.errors import SettingsError
from emoface.learning.schedules import step_factor
from emoface.progress import SILENT, Progress
from emoface.storage.files import file_sha256
from emoface.storage.locks import lock_folder
from emoface.storage.records import JobRecord, finish_job, to_settings
from emoface.storage.settings import Count, Folder, Seed, Settings, Share
from emoface.storage.weights import WeightsFile, find_weights

if TYPE_CHECKING:
    import torch

    from emoface.yolov5face import YoloV5Face
    from emoface.yolov5face.batches import TrainingCrops

_SIZE_STEP = 64
_N_STATISTICS_BATCHES = 16


class TrainDetectorConfig(Settings):
    """Settings of the train_detector job; optimizer and crops default to those of section 4.4 of the thesis."""

    train: tuple[Path, ...]
    """Labelled photos to train on: folders or label files, see ``face_labels.read_face_labels``."""
    val: Path
    """Labelled validation photos (a folder or a label file), which select the best epoch."""
    out: Folder
    """Folder of the run; an unfinished run in it is resumed."""
    network: str = "yolov5n-0.5-face"
    """Name of the network to train from randomly initialised weights."""
    weights: str | None = None
    """Weight file, or name of weights, to fine-tune instead of training from randomly initialised weights."""
    image_size: int = 320
    """Side of the training crops in pixels, a multiple of 64."""
    epochs: Count = 30
    """Number of epochs."""
    batch_size: Count = 16
    """Number of crops per training step."""
    learning_rate: Annotated[float, Field(gt=0)] = 0.02
    """Learning rate after the warm-up."""
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    """SGD momentum."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.0005
    """SGD weight decay."""
    warmup_steps: Annotated[int, Field(ge=0)] = 300
    """Number of steps of the warm-up, in which the learning rate grows linearly."""
    decay_at: tuple[Share, ...] = (0.7, 0.9)
    """Shares of the epochs at which the learning rate is divided by 10."""
    negatives_per_positive: Annotated[float, Field(gt=0)] = 300.0
    """Number of the hardest negative anchors that enter the objectness loss, per positive anchor."""
    ema_decay: Annotated[float, Field(ge=0, lt=1)] = 0.998
    """Decay of the exponential moving average of the weights; the averaged weights are evaluated and saved."""
    seed: Seed = 0
    """Random seed of the initial weights, the crops and their order; the same seed gives the same weights."""
    device: str | None = None
    """Device to train on: auto, cpu, cuda or cuda:1; by default CUDA if it is available, else the CPU."""

    @field_validator("image_size")
    @classmethod
    def _check_image_size(cls, value: int) -> int:
        if value < _SIZE_STEP or value % _SIZE_STEP:
            raise SettingsError(f"image_size is {value}, expected a positive multiple of {_SIZE_STEP}")
        return value


def run_train_detector(config: TrainDetectorConfig, progress: Progress = SILENT) -> JobRecord:
    """Trains a detector, or resumes an interrupted run.

    Args:
        config: Settings of the job.
        progress: Receives one step per photo.

    Returns:
        The job's record. ``OUT/best.safetensors`` contains the averaged weights of the epoch with the best average
        precision, ``OUT/log.jsonl`` one line per epoch, and ``OUT/last.pt`` the state from which the run is resumed.

    Raises:
        AnnotationsError: There are no labelled photos.
        SettingsError: ``out`` contains a run of other settings, or the device does not exist.
        LockedError: Another process is training in ``out``.
        NonFiniteLossError: A loss is infinite or not a number.
    """
    with lock_folder(config.out, progress, waits=False):
        return _train_or_resume(config, progress)


def _train_or_resume(config: TrainDetectorConfig, progress: Progress) -> JobRecord:
    from emoface.learning.devices import pick_device
    from emoface.learning.optimizers import build_optimizer
    from emoface.yolov5face.architectures import find_architecture
    from emoface.yolov5face.batches import TrainingCrops
    from emoface.yolov5face.losses import LossWeights
    from emoface.yolov5face.trainer import BEST_NAME, LOG_NAME, DetectorTrainer

    find_architecture(config.network)  # a wrong name is told before photos are read
    sources = [read_whole_photos(source, progress=progress) for source in config.train]
    photos = [photo for found, _ in sources for photo in found]
    val, n_val_out = read_whole_photos(config.val, progress=progress)
    inputs = {str(path): file_sha256(path) for path in map(label_file, (*config.train, config.val))}
    initial = _find_initial_weights(config)
    if initial is not None:
        inputs[str(initial.path)] = initial.sha256
    train = TrainingCrops(photos, config.image_size, config.batch_size, config.seed)
    network = _build_initial_network(config, initial, train, pick_device(config.device))
    trainer = DetectorTrainer(
        network,
        build_optimizer(
            network,
            learning_rate=config.learning_rate,
            weight_decay=config.weight_decay,
            momentum=config.momentum,
            nesterov=True,
        ),
        train,
        val,
        config.out,
        _identity(config, inputs),
        loss_weights=LossWeights(negatives_per_positive=config.negatives_per_positive),
        ema_decay=config.ema_decay,
        progress=progress,
    )
    trainer.fit(config.epochs, partial(_learning_rates, config, n_photos=len(photos)))
    best = max(trainer.lines, key=lambda line: line["average_precision"])
    return finish_job(
        "train_detector",
        config,
        config.out,
        module=__name__,
        inputs=inputs,
        outputs=[config.out / name for name in (BEST_NAME, LOG_NAME)],
        counts={
            "train_photos": len(photos),
            "val_photos": len(val),
            "photos_left_out": sum(n_out for _, n_out in sources) + n_val_out,
            "epochs": len(trainer.lines),
            "best_epoch": best["epoch"],
            "average_precision": best["average_precision"],
        },
        info={"network": network.name},
    )


def _find_initial_weights(config: TrainDetectorConfig) -> WeightsFile | None:
    """Finds the weights to fine-tune; None trains from randomly initialised weights."""
    if config.weights is None:
        return None
    path = Path(config.weights)
    return find_weights(path.stem, path) if path.is_file() else find_weights(config.weights)


def _build_initial_network(
    config: TrainDetectorConfig, initial: WeightsFile | None, train: TrainingCrops, device: torch.device
) -> YoloV5Face:
    """Builds the network from which training starts; BatchNorms of folded weights get statistics of training crops."""
    import torch

    from emoface.yolov5face import build_network, load_network
    from emoface.yolov5face.training import has_folded_norms, restore_norms

    torch.manual_seed(config.seed)
    network = build_network(config.network) if initial is None else load_network(initial.path, initial.network)
    network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    if has_folded_norms(network):
        batches = itertools.islice(train.iterate_batches(0, n_threads=1), _N_STATISTICS_BATCHES)
        restore_norms(network.eval(), (batch.images.to(device) for batch in batches))
    return network


def _learning_rates(config: TrainDetectorConfig, epoch: int, n_photos: int) -> Iterator[float]:
    """Yields the learning rate of each step of an epoch: linear warm-up, then divided by 10 at each ``decay_at``."""
    n_steps = -(-n_photos // config.batch_size)
    factor = step_factor(sum(epoch >= round(share * config.epochs) for share in config.decay_at))
    for step in range(epoch * n_steps, (epoch + 1) * n_steps):
        yield config.learning_rate * factor * min(1.0, (step + 1) / max(config.warmup_steps, 1))


def _identity(config: TrainDetectorConfig, inputs: dict[str, str]) -> str:
    """Describes as text everything that determines the weights, without the paths of the files and the device."""
    paths = ("out", "device", "train", "val", "weights")
    settings = {key: value for key, value in to_settings(config).items() if key not in paths}
    return json.dumps([settings, list(inputs.values())], sort_keys=True)
