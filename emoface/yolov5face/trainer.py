"""The training loop of the detector: an epoch of steps, a measurement, and a folder that is kept up to date."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from emoface.datasets.face_labels import LabelledPhoto
from emoface.errors import SettingsError
from emoface.learning.checkpoints import load_checkpoint, save_checkpoint
from emoface.learning.ema import AveragedWeights, exponential_warmup
from emoface.metrics.detection import DetectionMetrics
from emoface.progress import SILENT, Progress
from emoface.storage.files import write_text
from emoface.yolov5face.batches import TrainingCrops
from emoface.yolov5face.detector import build_detector
from emoface.yolov5face.loading import save_network
from emoface.yolov5face.losses import LossWeights
from emoface.yolov5face.network import YoloV5Face
from emoface.yolov5face.training import evaluate_detector, train_one_epoch

BEST_NAME, LAST_NAME, LOG_NAME = "best.safetensors", "last.pt", "log.jsonl"
_VAL_CONF = 0.02


class DetectorTrainer:
    """Trains one detector, and keeps its run's folder up to date after every epoch.

    Args:
        network: With its first weights, on the device to train on.
        optimizer: Of the network's parameters.
        train: The crops to learn from.
        val: Labelled photos that pick the best epoch.
        run_dir: The run's folder.
        identity: Text that names all that decides the weights; a run goes on only with the same.
        loss_weights: Of the loss terms.
        ema_decay: Decay of the averaged weights, which are measured and kept.
        progress: Told of each photo.

    Attributes:
        averaged: The averaged network.
        lines: What ``log.jsonl`` says, one dictionary per finished epoch.
    """

    def __init__(
        self,
        network: YoloV5Face,
        optimizer: torch.optim.Optimizer,
        train: TrainingCrops,
        val: Sequence[LabelledPhoto],
        run_dir: Path,
        identity: str,
        *,
        loss_weights: LossWeights,
        ema_decay: float,
        progress: Progress = SILENT,
    ) -> None:
        self.averaged = AveragedWeights(network, exponential_warmup(ema_decay))
        self.lines: list[dict[str, Any]] = []
        self._network = network
        self._optimizer = optimizer
        self._train = train
        self._val = val
        self._run_dir = run_dir
        self._identity = identity
        self._loss_weights = loss_weights
        self._progress = progress

    def fit(self, n_epochs: int, learning_rates: Callable[[int], Iterable[float]]) -> None:
        """Trains the epochs that are still to be trained, and keeps the run after each.

        Args:
            n_epochs: How many the run has in all.
            learning_rates: Gives the learning rate of each step of an epoch, counted from 0.

        Raises:
            SettingsError: The folder holds a run of another identity.
            NonFiniteLossError: A loss is no number.
        """
        self.resume()
        for epoch in range(len(self.lines), n_epochs):
            self._progress.start(f"epoch {epoch + 1} of {n_epochs}", len(self._train.photos))
            losses = self.train_one_epoch(epoch, learning_rates(epoch))
            self._progress.start(f"measure {epoch + 1}", len(self._val))
            line = {"epoch": epoch + 1, **losses, **asdict(self.evaluate())}
            is_best = all(line["average_precision"] > one["average_precision"] for one in self.lines)
            self.lines.append(line)
            self.save(is_best)

    def train_one_epoch(self, epoch: int, learning_rates: Iterable[float]) -> dict[str, float]:
        """Goes through the photos once; the mean of each term of the loss, and of their sum ``loss``."""
        return train_one_epoch(
            self._network,
            self.averaged,
            self._optimizer,
            self._train.draw_batches(epoch),
            self._loss_weights,
            learning_rates,
            self._progress,
        )

    def evaluate(self) -> DetectionMetrics:
        """Measures the averaged network on the photos of val."""
        device = str(next(self._network.parameters()).device)
        detector = build_detector(self.averaged.model, conf_threshold=_VAL_CONF, device=device)
        return evaluate_detector(detector, self._val, self._progress)

    def save(self, is_best: bool) -> None:
        """Keeps the run as it is after an epoch: the best weights, what resuming needs, then the log.

        Args:
            is_best: The last epoch is the best one so far.
        """
        if is_best:
            save_network(self.averaged.model, self._run_dir / BEST_NAME)
        state = {
            "told": self._identity,
            "network": self._network.state_dict(),
            "averaged": self.averaged.model.state_dict(),
            "n_updates": self.averaged.n_updates,
            "optimizer": self._optimizer.state_dict(),
            "lines": self.lines,
        }
        save_checkpoint(self._run_dir / LAST_NAME, state)
        write_text(self._run_dir / LOG_NAME, "".join(json.dumps(line) + "\n" for line in self.lines))

    def resume(self) -> None:
        """Takes over the state that ``save`` kept; a run that kept none starts from the first weights.

        Raises:
            SettingsError: It is of another identity.
        """
        path = self._run_dir / LAST_NAME
        if not path.is_file():
            return
        state = load_checkpoint(path)
        if state["told"] != self._identity:
            raise SettingsError(
                f"{path}: a run of other settings, labels or first weights; choose another folder, or remove this one"
            )
        self._network.load_state_dict(state["network"])
        self.averaged.model.load_state_dict(state["averaged"])
        self.averaged.n_updates = state["n_updates"]
        self._optimizer.load_state_dict(state["optimizer"])
        self.lines = state["lines"]
