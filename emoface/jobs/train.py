"""The train job: trains a model on a data set's manifest, or goes on with a run that was broken off.

A run is kept after every epoch. What is drawn in epoch e depends on the seed and e alone, so a run that is broken off
and resumed ends at the weights of an unbroken one: on the CPU to the byte. Several processes (``torchrun``) share every
batch of one.
"""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning_fabric import Fabric
from numpy.typing import NDArray
from torch.utils.tensorboard import SummaryWriter

from emoface.datasets.manifest import Manifest, read_manifest
from emoface.datasets.stream_cache import UNUSABLE_REASONS, USABLE, StreamCache, open_stream_cache
from emoface.errors import SettingsError, TableError, WeightsError, did_you_mean
from emoface.mter.base import STREAM_SIZES, Mter
from emoface.mter.dataset import PeopleDataset, iterate_batches
from emoface.mter.networks import MODEL_NAMES, build_model
from emoface.mter.pretrained import PRETRAINED, TakenWeights, load_pretrained, take_stream_weights
from emoface.mter.runs import (
    BEST_NAME,
    LAST_NAME,
    LOG_NAME,
    RUN_NAME,
    read_run,
    read_weights,
    write_run,
    write_weights,
)
from emoface.mter.training import (
    PRESETS,
    AveragedWeights,
    LossTerms,
    Recipe,
    ValMeasures,
    build_optimizer,
    draw_epoch,
    learning_rate,
    measure_model,
    plan_batches,
    set_training_mode,
    share_buffers,
    shuffle_labels,
    train_one_epoch,
    weigh_labels,
)
from emoface.progress import SILENT, Progress
from emoface.schema import CATEGORIES, DIMENSIONS, SAMPLING_WEIGHTS_SCHEMA
from emoface.storage.files import atomic_path, file_sha256, write_text
from emoface.storage.records import JobRecord, finish_job, read_record
from emoface.storage.tables import read_table

DEVICES = ("auto", "cpu", "cuda")
PRECISIONS = {"32": "32-true", "bf16": "bf16-mixed"}
PRETRAINED_CHOICES = ("auto", *PRETRAINED, "none")
BALANCES = ("auto", "none")
_RECIPE_NAMES = tuple(part.name for part in fields(Recipe))


@dataclass(frozen=True)
class TrainConfig:
    """What training is told.

    Attributes:
        manifest: The data set's ``manifest.json``; nothing else of it needs to be said.
        model: One of ``MODEL_NAMES``.
        out: The run's folder.
        preset: ``thesis`` or ``modern``.
        recipe: Values of ``Recipe`` that replace the preset's, by name. Fewer ``epochs`` shorten warm-up and steps
            alike.
        seed: Decides first weights, order and augmentation.
        device: ``cpu``, ``cuda``, or ``auto`` for CUDA where there is one.
        precision: ``32``, or ``bf16`` for mixed precision.
        workers: Threads that read ahead; None is one less than the cores, at most 8.
        pretrained: ``imagenet``; ``places365`` for the context beside ImageNet for people; ``none``; or ``auto``,
            ImageNet where its files are on this machine, else none, which the run says.
        init_face: A run whose face stream the model's starts from: ``task1`` in the thesis.
        balance: ``auto`` draws by the manifest's sampling weights where it has some; ``none`` draws everybody once.
        cache: Where decoded photos are kept; None is ``stream_cache`` beside the manifest.
        context_size: Side of the context input; 224 in the thesis, 112 is four times as fast on a CPU.
        person_size: Side of the face and the body input; 128 in the thesis, 64 is three times as fast on a CPU.
        shuffle_labels: People of train and val get each other's labels, by the seed: a check that nothing leaks.
    """

    manifest: Path
    model: str
    out: Path
    preset: str = "thesis"
    recipe: Mapping[str, Any] = field(default_factory=dict)
    seed: int = 0
    device: str = "auto"
    precision: str = "32"
    workers: int | None = None
    pretrained: str = "auto"
    init_face: Path | None = None
    balance: str = "auto"
    cache: Path | None = None
    context_size: int = STREAM_SIZES["context"]
    person_size: int = STREAM_SIZES["face"]
    shuffle_labels: bool = False

    def __post_init__(self) -> None:
        known_of = {
            "model": MODEL_NAMES,
            "preset": PRESETS,
            "device": DEVICES,
            "precision": PRECISIONS,
            "pretrained": PRETRAINED_CHOICES,
            "balance": BALANCES,
        }
        for name, known in known_of.items():
            if getattr(self, name) not in known:
                raise SettingsError(f"{name} is '{getattr(self, name)}'{did_you_mean(getattr(self, name), known)}")
        if self.seed < 0:
            raise SettingsError(f"seed is {self.seed}, expected 0 or more")
        for name in ("context_size", "person_size"):
            if getattr(self, name) < 32:
                raise SettingsError(f"{name} is {getattr(self, name)}, expected 32 or more")
        if self.workers is not None and self.workers < 0:
            raise SettingsError(f"workers is {self.workers}, expected 0 or more")
        resolve_recipe(self.preset, self.recipe)


def resolve_recipe(preset: str, told: Mapping[str, Any]) -> Recipe:
    """A preset with some of its values replaced.

    Args:
        preset: ``thesis`` or ``modern``.
        told: Values by name; ``epochs`` shortens or stretches the schedule, unless its parts are told too.

    Raises:
        SettingsError: A name is unknown or a value out of range.

    Example:
        >>> resolve_recipe("thesis", {"epochs": 12, "loss": "asymmetric"}).warmup_epochs
        1.0
    """
    for name in told:
        if name not in _RECIPE_NAMES:
            raise SettingsError(f"a recipe has no '{name}'{did_you_mean(name, _RECIPE_NAMES)}")
    values = dict(told)
    base = PRESETS[preset]
    if isinstance(epochs := values.pop("epochs", None), int):
        if epochs < 1:
            raise SettingsError(f"epochs is {epochs}, expected 1 or more")
        base = base.over(epochs)
    if values.get("loss") == "weighted_euclidean":
        values.setdefault("label_weights", "kosti")
    return Recipe(**{**asdict(base), **values})


@dataclass
class Training:
    """What a run works with.

    Attributes:
        fabric: Where it runs.
        recipe: How.
        model: The network, not wrapped.
        wrapped: The network as Fabric runs it.
        optimizer: As Fabric runs it.
        averaged: Averaged weights, if the recipe averages.
        train: The people that are trained on.
        val: The people that pick the best epoch.
        train_positions: Those of train that the model can see.
        val_positions: Those of val.
        draw_weights: How often each of ``train_positions`` is drawn; None draws each once.
        terms: The loss.
        lines: One per finished epoch.
    """

    fabric: Fabric
    recipe: Recipe
    model: Mter
    wrapped: torch.nn.Module
    optimizer: torch.optim.Optimizer
    averaged: AveragedWeights | None
    train: PeopleDataset
    val: PeopleDataset
    train_positions: NDArray[np.int64]
    val_positions: NDArray[np.int64]
    draw_weights: NDArray[np.float64] | None
    terms: LossTerms
    lines: list[dict[str, Any]]

    @property
    def measured(self) -> Mter:
        """The weights that are measured and kept."""
        return self.model if self.averaged is None else self.averaged.model


def run_train(config: TrainConfig, progress: Progress = SILENT) -> JobRecord:
    """Trains a model, or goes on with a run that was broken off; a finished run stays as it is.

    Args:
        config: What to do.
        progress: Told of each person.

    Returns:
        The job's record; the run's folder is as ``emoface.mter.runs`` describes it.

    Raises:
        SettingsError: ``out`` holds a run of other settings, or a setting does not fit the data.
        TableError: The data set is not what its manifest says, or its photos are missing.
        TrainingError: A loss is not finite.
        WeightsError: Weights to start from are missing or do not fit.
    """
    manifest = read_manifest(config.manifest, check_sha256=True)
    recipe = resolve_recipe(config.preset, config.recipe)
    fabric = build_fabric(config.device, config.precision)
    if fabric.global_rank:
        progress = SILENT
    told = _told(config, recipe, manifest)
    if (config.out / RUN_NAME).is_file():
        _check_same(config.out, told)
        done = read_record(config.out, "train")
        if done is not None:
            progress.note(f"{config.out}: this run is finished; nothing to do")
            return done
    training = _prepare(config, recipe, manifest, fabric, told, progress)
    with ExitStack() as opened:
        writer = None
        if fabric.is_global_zero:
            first = len(training.lines)
            writer = opened.enter_context(SummaryWriter(str(config.out / "tensorboard"), purge_step=first + 1))
        _train(config, training, writer, progress)
    fabric.barrier()
    if fabric.is_global_zero:
        _finish(config, told, training)
    fabric.barrier()
    record = read_record(config.out, "train")
    assert record is not None
    return record


def build_fabric(device: str, precision: str) -> Fabric:
    """One process, or all those that ``torchrun`` or ``fabric run`` started.

    Args:
        device: ``auto``, ``cpu`` or ``cuda``.
        precision: One of ``PRECISIONS``.

    Raises:
        SettingsError: CUDA is asked for and not there.
    """
    if device == "cuda" and not torch.cuda.is_available():
        raise SettingsError("device is 'cuda', but this PyTorch finds no CUDA device; use --device cpu")
    accelerator = device if device != "auto" else "cuda" if torch.cuda.is_available() else "cpu"
    n_local, n_all = int(os.environ.get("LOCAL_WORLD_SIZE", "1")), int(os.environ.get("WORLD_SIZE", "1"))
    many: dict[str, Any] = {"strategy": "ddp", "num_nodes": n_all // n_local} if n_all > 1 else {}
    fabric = Fabric(accelerator=accelerator, devices=n_local, precision=PRECISIONS[precision], **many)  # type: ignore[arg-type]
    if os.environ.get("LT_CLI_USED") != "1":  # under 'fabric run' Fabric has joined the processes already
        fabric.launch()
    return fabric


def _told(config: TrainConfig, recipe: Recipe, manifest: Manifest) -> dict[str, Any]:
    """All that decides the weights, for ``run.json``; a run goes on only if all of it is the same."""
    face = None
    if config.init_face is not None:
        path = read_run(config.init_face).path / BEST_NAME
        face = {"path": str(path.resolve()), "sha256": file_sha256(path)}
    return {
        "model": config.model,
        "manifest": {"path": str(config.manifest.resolve()), "sha256": file_sha256(manifest.path)},
        "detector": manifest.detector,
        "preset": config.preset,
        "recipe": json.loads(json.dumps(asdict(recipe))),
        "seed": config.seed,
        "precision": config.precision,
        "pretrained": config.pretrained,
        "init_face": face,
        "balance": config.balance,
        "stream_sizes": {"face": config.person_size, "body": config.person_size, "context": config.context_size},
        "shuffle_labels": config.shuffle_labels,
    }


def _check_same(out: Path, told: Mapping[str, Any]) -> None:
    settings = read_run(out, needs_finished=False).settings
    before, now = _flatten({name: settings.get(name) for name in told}), _flatten(told)
    names = [name for name in {**now, **before} if before.get(name) != now.get(name)]
    differ = [f"{name} was {before.get(name)!r}, now {now.get(name)!r}" for name in names]
    if differ:
        raise SettingsError(
            f"{out}: holds a run of other settings: {'; '.join(differ)}; say the same again, or choose another --out"
        )


def _flatten(told: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """``{"recipe": {"epochs": 3}}`` as ``{"recipe.epochs": 3}``, without paths: their sha256 says what they hold."""
    flat: dict[str, Any] = {}
    for name, value in told.items():
        if isinstance(value, Mapping):
            flat.update(_flatten(value, f"{prefix}{name}."))
        elif name != "path":
            flat[f"{prefix}{name}"] = value
    return flat


def _prepare(
    config: TrainConfig,
    recipe: Recipe,
    manifest: Manifest,
    fabric: Fabric,
    told: dict[str, Any],
    progress: Progress,
) -> Training:
    with fabric.rank_zero_first():
        caches = {name: open_stream_cache(manifest, name, config.cache, progress) for name in ("train", "val")}
    for name, cache in caches.items():
        if _unusable(cache):
            reasons = ", ".join(f"{cache.counts[reason]} {reason}" for reason in UNUSABLE_REASONS)
            progress.note(f"{name}: {_unusable(cache)} of {cache.counts['people']} people cannot be shown: {reasons}")
    if config.shuffle_labels:
        progress.note("labels are shuffled: this run can learn nothing that holds for anybody")
        for cache in caches.values():
            cache.people = shuffle_labels(cache.people, config.seed)
    torch.manual_seed(config.seed)
    model, taken = _first_model(config, recipe, progress)
    positions = {name: _visible(model, cache) for name, cache in caches.items()}
    _check_people(config, recipe, fabric, positions, manifest)
    if fabric.is_global_zero and not (config.out / RUN_NAME).is_file():
        counts = {name: {**cache.counts, "seen": len(positions[name])} for name, cache in caches.items()}
        write_run(config.out, {**told, "people": counts, "started_from": [asdict(one) for one in taken]})
    fabric.barrier()
    model.to(fabric.device)
    model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    averaged = AveragedWeights(model, recipe.ema_decay) if recipe.ema_decay else None
    raw_optimizer = build_optimizer(model, recipe)
    wrapped, optimizer = fabric.setup(model, raw_optimizer)
    lines = _resume(config.out / LAST_NAME, model, averaged, raw_optimizer, fabric)
    sizes = told["stream_sizes"]
    label_weights = weigh_labels(recipe.label_weights, caches["train"].people.labels[positions["train"]])
    return Training(
        fabric=fabric,
        recipe=recipe,
        model=model,
        wrapped=wrapped,
        optimizer=optimizer,
        averaged=averaged,
        train=PeopleDataset.of_model(
            caches["train"], model, sizes=sizes, augmentation=recipe.augmentation, seed=config.seed
        ),
        val=PeopleDataset.of_model(caches["val"], model, sizes=sizes),
        train_positions=positions["train"],
        val_positions=positions["val"],
        draw_weights=_draw_weights(config, manifest, caches["train"], positions["train"]),
        terms=LossTerms(recipe, None if label_weights is None else torch.from_numpy(label_weights).to(fabric.device)),
        lines=lines,
    )


def _first_model(config: TrainConfig, recipe: Recipe, progress: Progress) -> tuple[Mter, list[TakenWeights]]:
    """The network that training starts from, and what it took from where."""
    model = build_model(config.model, predicts_vad=recipe.predicts_vad, dropout=recipe.dropout)
    taken: list[TakenWeights] = []
    if config.pretrained == "auto":
        state = {name: value.clone() for name, value in model.state_dict().items()}
        try:
            taken += load_pretrained(model, "imagenet")
        except (WeightsError, SettingsError) as error:
            model.load_state_dict(state)
            progress.note(f"starting from fresh weights: {error}")
    elif config.pretrained != "none":
        taken += load_pretrained(model, config.pretrained)
    if config.init_face is not None:
        path = config.init_face / BEST_NAME
        face = {name: value for name, value in read_weights(path).items() if name.startswith("stream.face.")}
        taken += take_stream_weights(model, face, str(path))
    return model, taken


def _visible(model: Mter, cache: StreamCache) -> NDArray[np.int64]:
    """The people that a model can see: a model of the face alone sees those with a face."""
    if model.streams == ("face",):
        return np.flatnonzero(cache.people.has_face)
    return np.arange(len(cache))


def _check_people(
    config: TrainConfig,
    recipe: Recipe,
    fabric: Fabric,
    positions: Mapping[str, NDArray[np.int64]],
    manifest: Manifest,
) -> None:
    who = "people with a face" if config.model == "task1" else "people"
    if len(positions["train"]) < recipe.batch_size:
        raise SettingsError(
            f"{manifest.path}: {len(positions['train'])} {who} in train, expected a batch of {recipe.batch_size} or "
            "more; use a smaller --batch-size"
        )
    if not len(positions["val"]):
        raise TableError(f"{manifest.path}: no {who} in val, expected some to pick the best epoch by")
    if recipe.batch_size % fabric.world_size:
        raise SettingsError(
            f"batch_size is {recipe.batch_size}, expected a multiple of the {fabric.world_size} processes that share it"
        )


def _draw_weights(
    config: TrainConfig, manifest: Manifest, cache: StreamCache, positions: NDArray[np.int64]
) -> NDArray[np.float64] | None:
    if config.balance == "none" or manifest.balance.get("rule") != "weights":
        return None
    path = manifest.path.parent / manifest.balance["file"]
    remedy = "rebuild it with 'emoface split DIR --balance weights'"
    table = read_table(path, SAMPLING_WEIGHTS_SCHEMA, remedy)
    if (found := file_sha256(path)) != manifest.balance["sha256"]:
        raise TableError(f"{path}: sha256 is {found}, {manifest.path} says {manifest.balance['sha256']}; {remedy}")
    weight_of = dict(zip(table["index"].to_pylist(), table["weight"].to_pylist(), strict=True))
    return np.array([weight_of[index] for index in cache.people.index[positions].tolist()])


def _resume(
    path: Path,
    model: Mter,
    averaged: AveragedWeights | None,
    optimizer: torch.optim.Optimizer,
    fabric: Fabric,
) -> list[dict[str, Any]]:
    """Takes over where a run was broken off; the lines of its finished epochs."""
    if not path.is_file():
        return []
    state: dict[str, Any] = torch.load(path, map_location=fabric.device, weights_only=True)
    model.load_state_dict(state["model"])
    optimizer.load_state_dict(state["optimizer"])
    if averaged is not None:
        averaged.model.load_state_dict(state["averaged"])
        averaged.n_updates = state["n_updates"]
    lines: list[dict[str, Any]] = state["lines"]
    return lines


def _train(config: TrainConfig, training: Training, writer: SummaryWriter | None, progress: Progress) -> None:
    recipe, fabric, lines = training.recipe, training.fabric, training.lines
    n_steps = len(training.train_positions) // recipe.batch_size
    per_epoch = n_steps * recipe.batch_size + len(training.val_positions)
    if lines:
        progress.note(f"{config.out}: going on after epoch {len(lines)} of {recipe.epochs}")
    progress.start(f"train {config.model}", (recipe.epochs - len(lines)) * per_epoch)
    if fabric.is_global_zero:
        _write_log(config.out, lines)
    for epoch in range(len(lines), recipe.epochs):
        start = time.perf_counter()
        losses, rate = _train_epoch(config, training, epoch, n_steps, progress)
        seconds = time.perf_counter() - start
        measures = measure_model(
            fabric,
            training.measured,
            training.val,
            training.val_positions,
            training.terms,
            _n_workers(config),
            progress,
        )
        line = _to_line(epoch, rate, losses, measures, n_steps * recipe.batch_size / seconds, start)
        is_best = all(_score(line) > _score(one) for one in lines)
        lines.append(line)
        if writer is not None:
            if is_best:
                write_weights(config.out / BEST_NAME, training.measured)
            _save_state(config.out / LAST_NAME, training)
            _write_log(config.out, lines)
            _write_tensorboard(writer, line)
        progress.note(_describe(line, recipe.epochs))
        fabric.barrier()


def _train_epoch(
    config: TrainConfig, training: Training, epoch: int, n_steps: int, progress: Progress
) -> tuple[dict[str, float], float]:
    recipe, fabric = training.recipe, training.fabric
    chance = np.random.SeedSequence((config.seed, epoch, fabric.global_rank))
    torch.manual_seed(int(chance.generate_state(1, np.uint64)[0] >> 1))
    drawn = draw_epoch(training.train_positions, training.draw_weights, config.seed, epoch)
    plan = plan_batches(drawn, epoch, recipe.batch_size, fabric.global_rank, fabric.world_size)
    rates = [learning_rate(recipe, epoch, step, n_steps) for step in range(n_steps)]
    set_training_mode(training.model, recipe.freezes_norms)
    losses = train_one_epoch(
        fabric,
        training.wrapped,
        training.optimizer,
        training.averaged,
        iterate_batches(training.train, plan, _n_workers(config)),
        rates,
        training.terms,
        epoch,
        progress,
        _say_best(training.lines),
    )
    training.model.eval()
    share_buffers(fabric, training.model)
    if training.averaged is not None:
        share_buffers(fabric, training.averaged.model)
    return losses, rates[-1]


def _n_workers(config: TrainConfig) -> int:
    if config.workers is not None:
        return config.workers
    n_local = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    return min(8, max(1, (os.cpu_count() or 1) // n_local - 1))


def _to_line(
    epoch: int, rate: float, losses: dict[str, float], measures: ValMeasures, images_per_second: float, start: float
) -> dict[str, Any]:
    """An epoch's line of ``log.jsonl``; what is undefined is null."""
    line: dict[str, Any] = {
        "epoch": epoch + 1,
        "learning_rate": rate,
        "train_loss": losses["loss"],
        "train_losses": {name: value for name, value in losses.items() if name != "loss"},
        "val_loss": measures.losses["loss"],
        "val_losses": {name: value for name, value in measures.losses.items() if name != "loss"},
        "val_map": _or_none(measures.mean_average_precision),
        "val_average_precision": dict(zip(CATEGORIES, map(_or_none, measures.average_precision.tolist()), strict=True)),
    }
    if measures.average_absolute_error:
        errors = map(_or_none, measures.average_absolute_error)
        line["val_average_absolute_error"] = dict(zip(DIMENSIONS, errors, strict=True))
    return {
        **line,
        "images_per_second": round(images_per_second, 2),
        "seconds": round(time.perf_counter() - start, 2),
    }


def _or_none(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _score(line: Mapping[str, Any]) -> float:
    """What the best epoch is picked by: mAP on val, or the loss where no label of val has a person."""
    found = line["val_map"]
    return -float(line["val_loss"]) if found is None else float(found)


def _describe(line: Mapping[str, Any], epochs: int) -> str:
    precision = "undefined" if line["val_map"] is None else f"{100 * line['val_map']:.2f}"
    return (
        f"epoch {line['epoch']}/{epochs}: loss {line['train_loss']:.4f}, val loss {line['val_loss']:.4f}, "
        f"val mAP {precision}, {line['images_per_second']:.1f} images/s"
    )


def _say_best(lines: list[dict[str, Any]]) -> str:
    reached = [line["val_map"] for line in lines if line["val_map"] is not None]
    return f", val mAP {100 * reached[-1]:.2f}, best {100 * max(reached):.2f}" if reached else ""


def _save_state(path: Path, training: Training) -> None:
    averaged = training.averaged
    state = {
        "model": training.model.state_dict(),
        "averaged": None if averaged is None else averaged.model.state_dict(),
        "n_updates": 0 if averaged is None else averaged.n_updates,
        "optimizer": training.optimizer.state_dict(),
        "lines": training.lines,
    }
    with atomic_path(path) as temporary:
        torch.save(state, temporary)


def _write_log(out: Path, lines: list[dict[str, Any]]) -> None:
    write_text(out / LOG_NAME, "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines))


def _write_tensorboard(writer: SummaryWriter, line: Mapping[str, Any]) -> None:
    epoch = line["epoch"]
    for side in ("train", "val"):
        writer.add_scalar(f"loss/{side}", line[f"{side}_loss"], epoch)
        for name, value in line[f"{side}_losses"].items():
            writer.add_scalar(f"loss_terms_{side}/{name}", value, epoch)
    if line["val_map"] is not None:
        writer.add_scalar("val/mean_average_precision", line["val_map"], epoch)
    for name, value in line["val_average_precision"].items():
        if value is not None:
            writer.add_scalar(f"val_average_precision/{name.replace('/', '_')}", value, epoch)
    for name, value in line.get("val_average_absolute_error", {}).items():
        if value is not None:
            writer.add_scalar(f"val_average_absolute_error/{name}", value, epoch)
    writer.add_scalar("learning_rate", line["learning_rate"], epoch)
    writer.add_scalar("images_per_second", line["images_per_second"], epoch)
    writer.flush()


def _finish(config: TrainConfig, told: dict[str, Any], training: Training) -> None:
    best = max(training.lines, key=_score)
    finish_job(
        "train",
        config,
        config.out,
        module=__name__,
        inputs={source["path"]: source["sha256"] for source in (told["manifest"], told["init_face"]) if source},
        outputs=[config.out / name for name in (BEST_NAME, LOG_NAME)],
        counts={
            "train_people": len(training.train_positions),
            "val_people": len(training.val_positions),
            "train_left_out": len(training.train) - len(training.train_positions) + _unusable(training.train.cache),
            "val_left_out": len(training.val) - len(training.val_positions) + _unusable(training.val.cache),
            "epochs": len(training.lines),
            "best_epoch": best["epoch"],
            "val_map": best["val_map"],
            "val_loss": best["val_loss"],
        },
    )


def _unusable(cache: StreamCache) -> int:
    return cache.counts["people"] - cache.counts[USABLE]
