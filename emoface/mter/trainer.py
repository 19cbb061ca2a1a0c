"""The training loop of MTER: epochs of steps, validation after each, and a run folder that is kept up to date.

All random numbers are determined by the seed and the epoch, so a run that is interrupted between two epochs resumes
with the same result as an uninterrupted run. Several processes share every batch of a single process.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import dataclass, fields, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning_fabric import Fabric
from numpy.typing import NDArray
from torch import Tensor, nn

from emoface.errors import TrainingError
from emoface.learning.checkpoints import load_checkpoint, loading_state, save_checkpoint
from emoface.learning.ema import AveragedWeights, ratio_warmup
from emoface.learning.loggers import CurveLogger, LoggedRun, LoggerName, open_loggers
from emoface.learning.norms import NormWarmup
from emoface.learning.optimizers import build_optimizer, set_learning_rate
from emoface.learning.pending import PendingValues
from emoface.metrics.evaluation import measure_precision
from emoface.mter.augmentation import Augmentation
from emoface.mter.base import Mter, MterOutput, join_outputs
from emoface.mter.dataset import PeopleDataset, PersonBatch, iterate_batches, iterate_training_batches, move_ahead
from emoface.mter.epoch_log import (
    ValMetrics,
    describe_best,
    describe_line,
    score_line,
    to_line,
    to_points,
)
from emoface.mter.losses import BranchLosses, label_losses, weigh_batch_labels, weigh_labels
from emoface.mter.names import BATCH_WEIGHTINGS
from emoface.mter.recipe import Recipe, learning_rate
from emoface.mter.runs import BEST_NAME, LAST_NAME, LOG_NAME, EpochPlan, check_epochs, write_log
from emoface.mter.sampling import plan_batches, sample_epoch
from emoface.mter.vad import from_vad_unit
from emoface.mter.weight_files import write_weights
from emoface.progress import SILENT, Progress
from emoface.schema import CATEGORIES

_STATE_KEYS = ("model", "averaged", "n_updates", "optimizer", "lines")
"""The entries of ``last.pt``."""


@dataclass(frozen=True)
class SplitPeople:
    """The people of one split that a model is trained or evaluated on.

    Attributes:
        dataset: All usable people of the split, with the input streams of the model.
        positions: (n,) positions in ``dataset`` of the people that the model can use.
        sampling_weights: (n,) relative sampling weights; None samples each person once per epoch.
    """

    dataset: PeopleDataset
    positions: NDArray[np.int64]
    sampling_weights: NDArray[np.float64] | None = None

    def __len__(self) -> int:
        return len(self.positions)

    @property
    def has_all_faces(self) -> bool:
        """Whether the face of each person was found."""
        return bool(self.dataset.cache.people.has_face[self.positions].all())


@dataclass(frozen=True)
class _StepLosses:
    """The losses of one training step on their way to the CPU, and what an error has to say about the step."""

    names: tuple[str, ...]
    values: PendingValues
    people: Tensor
    epoch: int
    step: int
    rate: float

    def read(self) -> dict[str, float]:
        """Waits for the losses, and returns them by name.

        Raises:
            TrainingError: The sum of the losses is not finite.
        """
        values = dict(zip(self.names, self.values.read(), strict=True))
        if not math.isfinite(values["loss"]):
            raise TrainingError(_describe_failure(values, self))
        return values


class Trainer:
    """Trains one model, and updates the run folder after every epoch.

    Args:
        fabric: The processes, devices and precision to train with.
        model: The network with its initial weights; it is moved to the device.
        recipe: The training recipe.
        train: The people to train on.
        val: The people on whom the best epoch is selected.
        run_dir: Folder of the run, see ``emoface.mter.runs``.
        plan: How many epochs to train; None trains those of the recipe.
        seed: Seed of sample order, augmentation and dropout.
        workers: Number of threads that read ahead.
        loggers: Names of the loggers of the curves.
        logged_settings: The settings that the loggers show, by name.
        compiles: Whether ``torch.compile`` compiles the network for training; evaluation does not use it.
        label_names: The names of the labels, for the log.
        progress: Receives one step per person.

    Attributes:
        model: The network, not wrapped by Fabric.
        averaged: The moving average of its weights; None if the recipe averages nothing.
        plan: How many epochs it trains.
        lines: The lines of ``log.jsonl``, one dictionary per finished epoch.
    """

    def __init__(
        self,
        fabric: Fabric,
        model: Mter,
        recipe: Recipe,
        train: SplitPeople,
        val: SplitPeople,
        run_dir: Path,
        *,
        plan: EpochPlan | None = None,
        seed: int = 0,
        workers: int = 0,
        loggers: Sequence[LoggerName] = (),
        logged_settings: Mapping[str, Any] | None = None,
        compiles: bool = False,
        label_names: tuple[str, ...] = CATEGORIES,
        progress: Progress = SILENT,
    ) -> None:
        self.model = model.to(fabric.device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.averaged = AveragedWeights(model, ratio_warmup(recipe.ema_decay)) if recipe.ema_decay else None
        self.lines: list[dict[str, Any]] = []
        self._norm_warmup = None if recipe.freezes_norms else NormWarmup(model)
        self.train = train
        self.val = val
        self._fabric = fabric
        self._recipe = recipe
        self._run_dir = run_dir
        self.plan = plan or EpochPlan(recipe.epochs, recipe.patience)
        self._seed = seed
        self._workers = workers
        self._loggers = loggers
        self._logged_settings = logged_settings or {}
        self._pins_memory = fabric.device.type == "cuda"
        self._will_compile = compiles
        self._label_names = label_names
        self._progress = progress
        self._raw_optimizer = build_recipe_optimizer(model, recipe)
        self._wrapped_model, self._optimizer = fabric.setup(model, self._raw_optimizer)
        labels = train.dataset.cache.people.labels[train.positions]
        label_weights = weigh_labels(recipe.label_weights, labels, recipe.batch_size)
        self._loss = RecipeLoss(
            recipe, None if label_weights is None else torch.from_numpy(label_weights).to(fabric.device)
        )

    @property
    def kept_model(self) -> Mter:
        """The model that is evaluated and saved: with averaged weights if the recipe averages, else the network."""
        return self.model if self.averaged is None else self.averaged.model

    @property
    def n_steps(self) -> int:
        """Steps per epoch; an incomplete batch is left out."""
        return len(self.train) // self._recipe.batch_size

    def fit(self) -> None:
        """Trains the remaining epochs, and saves the run after each."""
        recipe, fabric, n_epochs = self._recipe, self._fabric, self.plan.epochs
        self.resume()
        with ExitStack() as opened:
            opened.enter_context(self._fastest_convolutions())
            loggers: list[CurveLogger] = []
            if fabric.is_global_zero:
                logged = LoggedRun(self._run_dir, self._logged_settings, len(self.lines) + 1)
                loggers = opened.enter_context(open_loggers(self._loggers, logged, self._progress))
                write_log(self._run_dir / LOG_NAME, self.lines)
            if self.lines:
                self._progress.note(f"{self._run_dir}: resuming after epoch {len(self.lines)} of {n_epochs}")
            n_people = self.n_steps * recipe.batch_size + len(self.val)
            self._progress.start(f"train {self.model.name}", (n_epochs - len(self.lines)) * n_people)
            for epoch in range(len(self.lines), n_epochs):
                if self._stops_early():
                    break
                line = self._run_epoch(epoch)
                is_best = all(score_line(line) > score_line(earlier) for earlier in self.lines)
                self.lines.append(line)
                if fabric.is_global_zero:
                    self.save(is_best)
                for logger in loggers:
                    logger.log(to_points(line), line["epoch"])
                self._progress.note(describe_line(line, n_epochs))
                fabric.barrier()

    def _stops_early(self) -> bool:
        stops = self.plan.stops_early([score_line(line) for line in self.lines])
        if stops:
            self._progress.note(
                f"stopped early after epoch {len(self.lines)} of {self.plan.epochs}: no higher mAP on val in "
                f"{self.plan.patience} epochs"
            )
        return stops

    def train_one_epoch(self, epoch: int) -> dict[str, float]:
        """Trains one epoch.

        Args:
            epoch: Index of the epoch, from 0.

        Returns:
            The mean of each term of the loss, and of their sum ``loss``, over all steps and processes.

        Raises:
            TrainingError: A loss is not finite.
        """
        fabric, recipe = self._fabric, self._recipe
        self._seed_torch(epoch)
        set_training_mode(self.model, recipe.freezes_norms)
        best_so_far = describe_best(self.lines)
        sums: dict[str, float] = {}
        for step, losses in enumerate(self._take_steps(epoch)):
            for name, value in losses.items():
                sums[name] = sums.get(name, 0.0) + value
            loss = sums["loss"] / (step + 1)
            self._progress.describe(f"epoch {epoch + 1} of {self.plan.epochs}, loss {loss:.4f}{best_so_far}")
            self._progress.advance(recipe.batch_size)
        self.model.eval()
        share_buffers(fabric, self.model)
        if self.averaged is not None:
            share_buffers(fabric, self.averaged.model)
        means = torch.tensor([value / self.n_steps for value in sums.values()], dtype=torch.float64)
        return dict(zip(sums, mean_over_processes(fabric, means).tolist(), strict=True))

    @torch.no_grad()
    def evaluate(self) -> ValMetrics:
        """Evaluates ``kept_model`` on the people of val, without augmentation.

        The processes share the work, and all of them get the result. The loss is computed over all people at once.
        """
        fabric, size, n = self._fabric, self._recipe.batch_size, len(self.val)
        per_process = -(-n // fabric.world_size)
        padded = np.resize(self.val.positions, per_process * fabric.world_size)
        own = padded[fabric.global_rank * per_process :][:per_process].tolist()
        plan = [own[start : start + size] for start in range(0, len(own), size)]
        outputs: list[MterOutput] = []
        truths: list[PersonBatch] = []
        batches = iterate_batches(self.val.dataset, plan, self._workers, pins_memory=self._pins_memory)
        for batch in move_ahead(batches, fabric.device):
            with fabric.autocast():
                # forward itself, as a call would use the code that is compiled for training
                outputs.append(self.kept_model.forward(batch.inputs, batch.has_face))
            truths.append(replace(batch, pixels={}, arrays={}))
            self._progress.advance(len(batch) * fabric.world_size)
        output, truth = _gather_outputs(fabric, outputs, n), _gather_truths(fabric, truths, n)
        losses = {name: value.item() for name, value in self._loss(output, truth).items()}
        precision = measure_precision(truth.labels.cpu().numpy(), output.logits.cpu().numpy())
        return ValMetrics(
            losses={"loss": sum(losses.values()), **losses},
            average_precision=precision.average_precision,
            mean_average_precision=precision.mean_average_precision,
            chance=precision.mean_prevalence,
            label_names=self._label_names,
            average_absolute_error=_vad_errors(output, truth),
        )

    def save(self, is_best: bool) -> None:
        """Saves the run after an epoch: first the best weights, then the state for resuming, then the log.

        Args:
            is_best: Whether the last epoch is the best one so far.
        """
        if is_best:
            write_weights(self._run_dir / BEST_NAME, self.kept_model)
        state = {
            "model": self.model.state_dict(),
            "averaged": None if self.averaged is None else self.averaged.model.state_dict(),
            "n_updates": 0 if self.averaged is None else self.averaged.n_updates,
            "optimizer": self._optimizer.state_dict(),
            "lines": self.lines,
        }
        save_checkpoint(self._run_dir / LAST_NAME, state)
        write_log(self._run_dir / LOG_NAME, self.lines)

    def resume(self) -> None:
        """Loads the state that ``save`` wrote; without one the run starts from the initial weights.

        Raises:
            WeightsError: The file is damaged, or of another training.
        """
        path = self._run_dir / LAST_NAME
        if not path.is_file():
            return
        state = load_checkpoint(path, _STATE_KEYS, self._fabric.device)
        with loading_state(path):
            self.model.load_state_dict(state["model"])
            self._raw_optimizer.load_state_dict(state["optimizer"])
            if self.averaged is not None:
                self.averaged.model.load_state_dict(state["averaged"])
                self.averaged.n_updates = int(state["n_updates"])
            self.lines = check_epochs(state["lines"])

    def _run_epoch(self, epoch: int) -> dict[str, Any]:
        """Trains and evaluates one epoch, and returns its line of the log."""
        start = time.perf_counter()
        losses = self.train_one_epoch(epoch)
        seconds = time.perf_counter() - start
        line = to_line(epoch, self._learning_rate(epoch, self.n_steps - 1), losses, self.evaluate())
        line["images_per_second"] = round(self.n_steps * self._recipe.batch_size / seconds, 2)
        line["seconds"] = round(time.perf_counter() - start, 2)
        return line

    def _take_steps(self, epoch: int) -> Iterator[dict[str, float]]:
        """Takes the steps of an epoch, and yields the losses of each after the next step has been started.

        So a GPU need not wait for the CPU to look at the losses. At most one step follows one whose loss is not finite,
        and nothing of that epoch is saved.
        """
        before: _StepLosses | None = None
        for step, batch in enumerate(move_ahead(self._read_training_batches(epoch), self._fabric.device)):
            present = self._take_step(batch, epoch, step)
            if before is not None:
                yield before.read()
            before = present
        if before is not None:
            yield before.read()

    def _take_step(self, batch: PersonBatch, epoch: int, step: int) -> _StepLosses:
        """Takes one optimizer step; returns the terms of the loss and their sum ``loss`` of this process alone."""
        fabric, optimizer, recipe = self._fabric, self._optimizer, self._recipe
        rate = self._learning_rate(epoch, step)
        set_learning_rate(optimizer, rate)
        if self._norm_warmup is not None:
            self._norm_warmup.set_momentum()
        self._compile_once_ready()
        loss = self._loss
        if recipe.label_weights in BATCH_WEIGHTINGS:
            counts = sum_over_processes(fabric, batch.labels.sum(dim=0))
            loss = replace(loss, label_weights=weigh_batch_labels(recipe.label_weights, counts, recipe.batch_size))
        losses = loss(self._wrapped_model(batch.inputs, batch.has_face), batch)
        total = torch.stack(list(losses.values())).sum()
        pending = PendingValues(torch.stack([total, *losses.values()]))
        optimizer.zero_grad()
        fabric.backward(total)
        if recipe.clip_norm:
            fabric.clip_gradients(self._wrapped_model, optimizer, max_norm=recipe.clip_norm, error_if_nonfinite=False)
        optimizer.step()
        if self.averaged is not None:
            self.averaged.update(self.model)
        return _StepLosses(("loss", *losses), pending, batch.index, epoch, step, rate)

    def _compile_once_ready(self) -> None:
        """Compiles the network in place, which leaves the names of its weights as they are.

        While the momentum of BatchNorm layers still changes with every step, each step would be compiled anew.
        """
        if self._will_compile and (self._norm_warmup is None or self._norm_warmup.is_finished):
            self.model.compile()
            self._will_compile = False

    def _fastest_convolutions(self) -> AbstractContextManager[None]:
        """Lets cuDNN try out which of its algorithms is fastest, where the sizes of all batches are the same.

        The face stream computes the people with a face only, whose number differs from batch to batch.
        """
        reads_all_faces = "face" not in self.model.streams or self.train.has_all_faces
        if self._fabric.device.type != "cuda" or not reads_all_faces:
            return nullcontext()
        cudnn = torch.backends.cudnn
        return cudnn.flags(
            enabled=cudnn.enabled, benchmark=True, deterministic=cudnn.deterministic, allow_tf32=cudnn.allow_tf32
        )

    def _learning_rate(self, epoch: int, step: int) -> float:
        return learning_rate(self._recipe, epoch, step, self.n_steps)

    def _read_training_batches(self, epoch: int) -> Iterator[PersonBatch]:
        """Reads this process's part of every batch of an epoch."""
        sampled = sample_epoch(self.train.positions, self.train.sampling_weights, self._seed, epoch)
        rank, n_processes = self._fabric.global_rank, self._fabric.world_size
        plan = plan_batches(sampled, epoch, self._recipe.batch_size, rank, n_processes)
        return iterate_training_batches(self.train.dataset, plan, self._workers, pins_memory=self._pins_memory)

    def _seed_torch(self, epoch: int) -> None:
        """Seeds torch by seed, epoch and process, which determine the dropout of an epoch."""
        sequence = np.random.SeedSequence((self._seed, epoch, self._fabric.global_rank))
        torch.manual_seed(int(sequence.generate_state(1, np.uint64)[0] >> 1))


@dataclass(frozen=True)
class RecipeLoss:
    """The loss of a recipe as a function of output and truth.

    Attributes:
        recipe: The recipe with the kind of loss and the weights of its terms.
        label_weights: (26,) weight of each label; None weighs all equally.
    """

    recipe: Recipe
    label_weights: Tensor | None

    def __call__(self, output: MterOutput, batch: PersonBatch) -> dict[str, Tensor]:
        """Computes the terms by name; their sum is the loss."""
        recipe = self.recipe
        return label_losses(
            output,
            batch.labels,
            kind=recipe.loss,
            is_linear=recipe.linear_outputs,
            labels_weight=recipe.labels_weight,
            stream_weight=recipe.stream_weight,
            label_weights=self.label_weights,
            ohem_ratio=recipe.ohem_ratio or None,
            has_face=batch.has_face.to(output.logits.device, non_blocking=True),
            vad_unit=batch.vad_unit if recipe.predicts_vad else None,
            vad_kind=recipe.vad_loss,
            vad_weight=recipe.vad_weight,
            branches=BranchLosses.of_recipe(recipe),
        )


def build_recipe_optimizer(model: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    """Builds the recipe's optimizer over all parameters of a model."""
    return build_optimizer(
        model,
        recipe.optimizer,
        learning_rate=recipe.learning_rate,
        weight_decay=recipe.weight_decay,
        momentum=recipe.momentum,
        decays_norms=recipe.decays_norms,
    )


def build_augmentation(recipe: Recipe) -> Augmentation:
    """Builds the augmentation settings of a recipe."""
    return Augmentation(**{part.name: getattr(recipe, part.name) for part in fields(Augmentation)})


def set_training_mode(model: nn.Module, freezes_norms: bool) -> None:
    """Sets training mode; frozen BatchNorm layers stay in evaluation mode."""
    model.train()
    if freezes_norms:
        for part in model.modules():
            if isinstance(part, nn.modules.batchnorm._BatchNorm):
                part.eval()


def mean_over_processes(fabric: Fabric, values: Tensor) -> Tensor:
    """Averages values over all processes; with one process returns the values themselves."""
    if fabric.world_size == 1:
        return values
    return torch.as_tensor(fabric.all_reduce(values.to(fabric.device), reduce_op="mean")).cpu()


def sum_over_processes(fabric: Fabric, values: Tensor) -> Tensor:
    """Sums values over all processes; with one process returns the values themselves."""
    if fabric.world_size == 1:
        return values
    return torch.as_tensor(fabric.all_reduce(values, reduce_op="sum"))


def share_buffers(fabric: Fabric, model: nn.Module) -> None:
    """Copies the BatchNorm statistics of the first process to the others, each of which has computed its own."""
    if fabric.world_size > 1:
        for buffer in model.buffers():
            torch.distributed.broadcast(buffer, src=0)


def _gather_outputs(fabric: Fabric, outputs: list[MterOutput], n: int) -> MterOutput:
    return join_outputs(outputs, partial(_gather, fabric, n))


def _gather_truths(fabric: Fabric, truths: list[PersonBatch], n: int) -> PersonBatch:
    gather = partial(_gather, fabric, n)
    return PersonBatch(
        pixels={},
        has_face=gather([one.has_face.to(fabric.device) for one in truths]),
        labels=gather([one.labels for one in truths]),
        vad=gather([one.vad for one in truths]),
        index=gather([one.index.to(fabric.device) for one in truths]),
        sizes=truths[0].sizes,
    )


def _gather(fabric: Fabric, n: int, parts: list[Tensor]) -> Tensor:
    """Gathers the rows of all processes, (n, ...), without padding; float32, so that half precision causes no ties."""
    rows = torch.cat([part.float() if part.is_floating_point() else part for part in parts])
    if fabric.world_size > 1:
        own = rows.cpu() if torch.distributed.get_backend() == "gloo" else rows  # Gloo gathers tensors of the CPU only
        parts = [torch.empty_like(own) for _ in range(fabric.world_size)]
        torch.distributed.all_gather(parts, own)
        rows = torch.cat(parts).to(rows.device)
    return rows[:n]


def _vad_errors(output: MterOutput, truth: PersonBatch) -> tuple[float, ...]:
    if output.vad_unit is None:
        return ()
    errors = (from_vad_unit(output.vad_unit) - truth.vad).abs()
    return tuple(errors.nanmean(dim=0).tolist())


def _describe_failure(values: dict[str, float], failed: _StepLosses) -> str:
    terms = ", ".join(f"{name} {value:g}" for name, value in values.items())
    people = " ".join(str(index) for index in failed.people.tolist())
    return (
        f"the loss is not finite in epoch {failed.epoch + 1}, step {failed.step + 1}: {terms}; learning rate "
        f"{failed.rate:g}; people by index: {people}; the weights before this epoch are kept; try a lower "
        "--learning-rate or --precision 32"
    )
