"""The training loop of the detector: trains an epoch, evaluates it, and saves the run after each epoch."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from emoface.datasets.face_labels import LabelledPhoto
from emoface.errors import SettingsError
from emoface.learning.checkpoints import load_checkpoint, loading_state, save_checkpoint
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
_STATE_KEYS = ("told", "network", "averaged", "n_updates", "optimizer", "lines")
_VAL_CONF = 0.02


class DetectorTrainer:
    """Trains one detector, and saves the run to its folder after every epoch.

    Args:
        network: Network with its initial weights, on the device to train on.
        optimizer: Optimizer of the network's parameters.
        train: Training crops.
        val: Labelled validation photos, which select the best epoch.
        run_dir: Folder of the run.
        identity: Text that describes everything that determines the weights; a run resumes only with the same identity.
        loss_weights: Weights of the loss terms.
        ema_decay: Decay of the exponential moving average of the weights; the averaged weights are evaluated and saved.
        progress: Receives one step per photo.

    Attributes:
        averaged: The network with the averaged weights.
        lines: Content of ``log.jsonl``, one dictionary per finished epoch.
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
        """Trains the remaining epochs, and saves the run after each epoch.

        Args:
            n_epochs: Total number of epochs of the run.
            learning_rates: Returns the learning rates of all steps of an epoch; epochs are counted from 0.

        Raises:
            SettingsError: The folder contains a run of another identity.
            NonFiniteLossError: A loss is infinite or not a number.
        """
        self.resume()
        for epoch in range(len(self.lines), n_epochs):
            self._progress.start(f"epoch {epoch + 1} of {n_epochs}", len(self._train.photos))
            losses = self.train_one_epoch(epoch, learning_rates(epoch))
            self._progress.start(f"evaluate epoch {epoch + 1}", len(self._val))
            line = {"epoch": epoch + 1, **losses, **asdict(self.evaluate())}
            is_best = all(line["average_precision"] > one["average_precision"] for one in self.lines)
            self.lines.append(line)
            self.save(is_best)

    def train_one_epoch(self, epoch: int, learning_rates: Iterable[float]) -> dict[str, float]:
        """Trains on every photo once; returns the mean of each loss term, and of their sum as ``loss``."""
        return train_one_epoch(
            self._network,
            self.averaged,
            self._optimizer,
            self._train.iterate_batches(epoch),
            self._loss_weights,
            learning_rates,
            self._progress,
        )

    def evaluate(self) -> DetectionMetrics:
        """Evaluates the averaged network on the validation photos."""
        device = str(next(self._network.parameters()).device)
        detector = build_detector(self.averaged.model, conf_threshold=_VAL_CONF, device=device)
        return evaluate_detector(detector, self._val, self._progress)

    def save(self, is_best: bool) -> None:
        """Saves the run after an epoch: first the best weights, then the state to resume from, then the log.

        Args:
            is_best: Whether the last epoch is the best one so far.
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
        """Loads the state that ``save`` wrote; without such a state, training starts from the initial weights.

        Raises:
            SettingsError: The saved run has another identity.
            WeightsError: The file is damaged.
        """
        path = self._run_dir / LAST_NAME
        if not path.is_file():
            return
        state = load_checkpoint(path, _STATE_KEYS)
        if state["told"] != self._identity:
            raise SettingsError(
                f"{path}: a run of other settings, labels or initial weights; choose another folder, or remove this one"
            )
        with loading_state(path):
            self._network.load_state_dict(state["network"])
            self.averaged.model.load_state_dict(state["averaged"])
            self.averaged.n_updates = int(state["n_updates"])
            self._optimizer.load_state_dict(state["optimizer"])
            self.lines = list(state["lines"])
