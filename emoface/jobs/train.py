"""The train job: trains a model on the data set of a manifest, or resumes an interrupted run.

A run is saved after every epoch. The random numbers of epoch e depend only on the seed and e, so a run that is
interrupted and resumed ends with the weights of an uninterrupted one: on the CPU they are identical to the byte.
Several processes (``torchrun``) share every batch of a single process. The loop is in ``emoface.mter.trainer``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import BeforeValidator, Field, model_validator

from emoface.datasets.manifest import Manifest, read_manifest
from emoface.datasets.stream_cache import (
    UNUSABLE_REASONS,
    USABLE,
    StreamCache,
    find_cache_dir,
    open_stream_cache,
)
from emoface.errors import SettingsError, TableError
from emoface.learning.launchers import end_with_launcher, find_processes
from emoface.learning.loggers import LoggerName, check_loggers
from emoface.mter.epoch_log import score_line
from emoface.mter.initial_weights import is_file_source, named_streams, parse_pretrained
from emoface.mter.inputs import model_array_inputs
from emoface.mter.names import ModelName, PresetName
from emoface.mter.recipe import PRESETS, Recipe, describe_presets, resolve_recipe
from emoface.mter.stream_backbones import backbone_names, parse_backbones
from emoface.prefetch import count_usable_cpus
from emoface.progress import SILENT, Progress
from emoface.schema import SAMPLING_WEIGHTS_SCHEMA
from emoface.storage.files import file_sha256
from emoface.storage.locks import lock_folder
from emoface.storage.records import JobRecord, finish_job, read_record
from emoface.storage.settings import Count, Device, FileOrUrl, Folder, FolderOrUrl, Seed, Settings, TextForm
from emoface.storage.tables import read_table
from emoface.storage.urls import resolve_place

if TYPE_CHECKING:
    from lightning_fabric import Fabric
    from lightning_fabric.strategies.ddp import DDPStrategy

    from emoface.mter.base import Mter
    from emoface.mter.person_arrays import PersonArrays
    from emoface.mter.pretrained import TakenWeights
    from emoface.mter.runs import EpochPlan
    from emoface.mter.stream_networks import StreamNetwork
    from emoface.mter.trainer import SplitPeople, Trainer

Precision = Literal["32", "bf16"]
Side = Annotated[int, Field(ge=32)]
"""Side of a network's square input, pixels."""

_FABRIC_PRECISIONS: dict[Precision, Any] = {"32": "32-true", "bf16": "bf16-mixed"}


class TrainConfig(Settings):
    """Settings of the train job."""

    manifest: FileOrUrl
    """The data set's manifest.json, or its URL in an object store, from where it is copied into the user's cache."""
    model: ModelName
    """Name of the model to train."""
    backbone: Annotated[tuple[str, ...], BeforeValidator(parse_backbones)] = ()
    """Network that takes the place of a stream's own, as STREAM=NAME; repeat the option for each stream. A name is
    resnet18, mobilenet_v2, timm:NAME, torchvision:NAME or open_clip:NAME (with the library's own weights
    open_clip:NAME@TAG). For the models task1 to mter2. Example: context=timm:resnet50"""
    out: Folder
    """Folder of the run; an unfinished run in it is resumed."""
    preset: PresetName = Field("thesis", description=f"Training recipe. {describe_presets()}.")
    recipe: Mapping[str, Any] = Field(default_factory=dict)
    """Values of ``Recipe`` that replace the preset's, by name."""
    seed: Seed = 0
    """Seed of initial weights, order and augmentation; the same seed gives the same weights."""
    device: Device = "auto"
    """Device on which the network runs; auto takes CUDA where there is one."""
    precision: Precision = "32"
    """Precision of the computation: 32 bits, or bf16 for mixed precision."""
    compile: bool = False
    """Compile the network with torch.compile, which pays on a GPU only: the first steps take minutes. It needs a C++
    compiler, and on a GPU Triton."""
    workers: Annotated[int, Field(ge=0)] | None = None
    """Number of threads that read ahead; by default one less than the cores, at most 8."""
    pretrained: Annotated[tuple[str, ...], BeforeValidator(parse_pretrained), TextForm("auto")] = ("auto",)
    """Weights that the streams start from, for all streams or as STREAM=SOURCE, separated by commas. A source is a
    file; imagenet; places365 (for the context; imagenet for face and body); none (randomly initialised); library, those
    that the library of --backbone provides; or auto, which is library for such a network, else imagenet, or what the
    preset says (places365 for the context of kosti and author, none for caer), downloaded if needed. Example:
    face=mine.pth,body=mine.pth,context=none"""
    init_face: Folder | None = None
    """Folder of a finished run whose face stream initialises that of the model; in the thesis a run of task1."""
    balance: Literal["auto", "none"] = "auto"
    """Sampling of people per epoch: auto samples by the manifest's sampling weights if it has any, none samples each
    person once."""
    images: FolderOrUrl | None = None
    """Folder of the photos, or its URL, if they are no longer where the manifest says."""
    allow_missing: bool = False
    """Go on although at least 95 % of the photos of a split are missing."""
    cache: FolderOrUrl | None = None
    """Folder of the cache of decoded photos, or the URL of one that several machines share; by default stream_cache
    beside the manifest."""
    context_size: Side | None = None
    """Side of the context stream's input in pixels; by default 224, with the preset caer 112, with the network of a
    library its own. 112 is four times as fast as 224 on a CPU."""
    person_size: Side | None = None
    """Side of the face and body streams' inputs in pixels; by default 128, with the preset caer 96, with the network of
    a library its own. 64 is three times as fast as 128 on a CPU."""
    logger: tuple[LoggerName, ...] = ("tensorboard",)
    """Where the curves of the training are shown, besides log.jsonl; may be given several times. tensorboard writes
    them into the run's folder; wandb sends them to Weights & Biases, and mlflow to the server that MLFLOW_TRACKING_URI
    names."""
    extend_to: Count | None = None
    """Number of epochs, those that are finished included, up to which the run in OUT goes on, also if it is finished or
    stopped early. Unlike --epochs it leaves the schedule as it is: epochs after those of the recipe are trained at the
    learning rate of the recipe's last step, and patience is counted anew."""
    shuffle_labels: bool = False
    """Shuffle the labels of train and of val among their people, as a check for leaks."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        resolve_recipe(self.preset, self.recipe)
        models = PRESETS[self.preset].models
        if self.model not in models:
            raise SettingsError(
                f"preset {self.preset} cannot train {self.model}, expected one of {', '.join(models)}; its settings "
                "change parts of the network that the others lack. Choose another --model or --preset"
            )
        return self

    @property
    def stream_sizes(self) -> dict[str, int]:
        """Side of the input of each stream with a network of ours, pixels: the given sizes, or those of the preset."""
        preset = PRESETS[self.preset]
        person, context = self.person_size or preset.person_size, self.context_size or preset.context_size
        return {"face": person, "body": person, "context": context}


def run_train(config: TrainConfig, progress: Progress = SILENT) -> JobRecord:
    """Trains a model, or resumes an interrupted run; a finished run does not change.

    Args:
        config: Settings of the job.
        progress: Receives one step per person.

    Returns:
        The job's record; the run's folder is as ``emoface.mter.runs`` describes it.

    Raises:
        LockedError: Another process is training in ``out``.
        SettingsError: ``out`` holds a run with other settings, or a setting does not fit the data.
        ImageError: The photos are missing, or nearly all, and ``allow_missing`` is not set.
        TableError: The data set does not match its manifest, or none of its people is usable.
        TrainingError: A loss is not finite.
        WeightsError: Weights to start from are missing or do not fit.
    """
    fabric = build_fabric(config.device, config.precision)
    if not fabric.is_global_zero:
        return _train_or_resume(config, fabric, SILENT)
    with lock_folder(config.out, progress, waits=False):  # the first process holds it for all of them
        return _train_or_resume(config, fabric, progress)


def _train_or_resume(config: TrainConfig, fabric: Fabric, progress: Progress) -> JobRecord:
    from emoface.mter.runs import RUN_NAME, read_run

    check_loggers(config.logger)
    manifest = read_manifest(config.manifest, check_sha256=True, images=config.images)
    recipe = resolve_recipe(config.preset, config.recipe)
    networks = _load_stream_networks(config, fabric)
    identity = _describe_identity(config, recipe, manifest, networks)
    if (config.out / RUN_NAME).is_file():
        _check_same_settings(config, identity)
        run, finished = read_run(config.out, needs_finished=False), read_record(config.out, "train")
        if finished is not None and (config.extend_to is None or config.extend_to <= len(run.log())):
            progress.note(f"{config.out}: this run is finished; nothing to do")
            return finished
        if finished is None:
            _check_extension(config, run.epoch_plan.epochs)
    else:
        _check_extension(config, recipe.epochs)
    trainer = _build_trainer(config, recipe, manifest, fabric, identity, networks, progress)
    trainer.fit()
    fabric.barrier()
    if fabric.is_global_zero:
        _finish(config, identity, trainer)
    fabric.barrier()
    record = read_record(config.out, "train")
    assert record is not None
    return record


def build_fabric(device: str, precision: Precision) -> Fabric:
    """Sets up one process, or joins all processes that ``torchrun`` or ``fabric run`` started.

    If ``torchrun`` has started more processes than the machine has GPUs, several of them share a GPU.

    Args:
        device: ``auto``, ``cpu`` or ``cuda``.
        precision: ``32``, or ``bf16`` for mixed precision.

    Raises:
        SettingsError: The device is CUDA and there is none, or the environment has variables of another launcher.
    """
    import torch
    from lightning_fabric import Fabric
    from lightning_fabric.plugins.environments.lightning import LightningEnvironment

    from emoface.learning.devices import pick_device

    processes = find_processes()
    end_with_launcher()
    kind = pick_device(device).type
    n_devices = processes.n_local
    among: dict[str, Any] = {}
    if processes.n_all > 1:
        among = {"strategy": "ddp", "num_nodes": processes.n_all // processes.n_local}
        if kind == "cuda" and (n_gpus := torch.cuda.device_count()) < processes.n_local:
            among["strategy"] = _share_gpus(processes.n_local, n_gpus)
            n_devices = n_gpus
    elif not processes.are_joined:  # without this Fabric takes over what batch systems leave in the environment
        among = {"plugins": LightningEnvironment()}
    fabric = Fabric(
        accelerator=kind,
        devices=n_devices,
        precision=_FABRIC_PRECISIONS[precision],
        **among,
    )
    if not processes.are_joined:
        fabric.launch()
    return fabric


def _share_gpus(n_processes: int, n_gpus: int) -> DDPStrategy:
    """Lets processes share the GPUs in turn. They exchange tensors by Gloo, as NCCL allows one process per GPU only."""
    import torch
    from lightning_fabric.strategies.ddp import DDPStrategy

    devices = [torch.device("cuda", rank % n_gpus) for rank in range(n_processes)]
    return DDPStrategy(parallel_devices=devices, process_group_backend="gloo")


def _load_stream_networks(config: TrainConfig, fabric: Fabric) -> dict[str, StreamNetwork]:
    """Builds the networks that take the place of streams' own; nothing without ``backbone``."""
    if not config.backbone:
        return {}
    from emoface.mter.stream_networks import load_stream_networks

    sides = {"face": config.person_size, "body": config.person_size, "context": config.context_size}
    names, sources = backbone_names(config.backbone), _list_sources(config)
    with fabric.rank_zero_first():
        return load_stream_networks(config.model, names, sources, sides=sides, seed=config.seed)


def _list_sources(config: TrainConfig) -> tuple[str, ...]:
    """The sources of initial weights; the face takes none where those of a run replace them."""
    is_replaced = config.init_face is not None and "face" not in named_streams(config.pretrained)
    return (*config.pretrained, "face=none") if is_replaced else config.pretrained


def _describe_identity(
    config: TrainConfig, recipe: Recipe, manifest: Manifest, networks: Mapping[str, StreamNetwork]
) -> dict[str, Any]:
    """Describes all that determines the weights, for ``run.json``; a run is resumed only if all of it is the same."""
    from emoface.mter.person_arrays import describe_array_tables
    from emoface.mter.runs import BEST_NAME, read_run

    inputs = model_array_inputs(config.model, depth_form=recipe.depth_form, region_source=recipe.region_source)
    face = None
    if config.init_face is not None:
        path = read_run(config.init_face).path / BEST_NAME
        face = {"path": str(path.resolve()), "sha256": file_sha256(path)}
    facts = {stream: one.facts for stream, one in networks.items()}
    library_sizes = {stream: one.input_size for stream, one in facts.items() if one.input_size is not None}
    return {
        "model": config.model,
        "manifest": {"path": str(resolve_place(config.manifest)), "sha256": file_sha256(manifest.path)},
        "detector": manifest.detector,
        "preset": config.preset,
        "recipe": recipe.to_json(),
        "seed": config.seed,
        "precision": config.precision,
        "compile": config.compile,
        "pretrained": _describe_sources(config.pretrained),
        "init_face": face,
        "balance": config.balance,
        "backbones": {stream: one.model_dump(mode="json") for stream, one in facts.items()},
        "stream_sizes": {**config.stream_sizes, **library_sizes},
        "label_names": list(manifest.label_names),
        "shuffle_labels": config.shuffle_labels,
        "array_tables": describe_array_tables(manifest, inputs),
    }


def _check_same_settings(config: TrainConfig, identity: Mapping[str, Any]) -> None:
    from emoface.mter.runs import read_run

    run = read_run(config.out, needs_finished=False)
    # a run of an earlier emoface lacks the later settings
    settings = {"compile": False, **run.settings, "recipe": run.recipe.to_json()}
    before, now = _flatten({name: settings.get(name) for name in identity}), _flatten(identity)
    names = [name for name in {**now, **before} if before.get(name) != now.get(name)]
    differ = [f"{name} was {before.get(name)!r}, now {now.get(name)!r}" for name in names]
    if differ:
        raise SettingsError(
            f"{config.out}: holds a run with other settings: {'; '.join(differ)}; use the same settings, or choose "
            "another --out"
        )


def _flatten(identity: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Turns ``{"recipe": {"epochs": 3}}`` into ``{"recipe.epochs": 3}``, without paths, whose content has a sha256."""
    flat: dict[str, Any] = {}
    for name, value in identity.items():
        if isinstance(value, Mapping):
            flat.update(_flatten(value, f"{prefix}{name}."))
        elif name != "path":
            flat[f"{prefix}{name}"] = value
    return flat


def _build_trainer(
    config: TrainConfig,
    recipe: Recipe,
    manifest: Manifest,
    fabric: Fabric,
    identity: dict[str, Any],
    networks: Mapping[str, StreamNetwork],
    progress: Progress,
) -> Trainer:
    """Opens the data, builds the initial weights and, for a new run, writes ``run.json``."""
    import torch

    from emoface.learning.compiling import check_compiler
    from emoface.mter.dataset import PeopleDataset
    from emoface.mter.runs import RUN_NAME, write_run
    from emoface.mter.trainer import SplitPeople, Trainer, build_augmentation

    if config.compile:
        check_compiler(fabric.device)
    caches = _open_caches(config, manifest, fabric, progress)
    torch.manual_seed(config.seed)
    model, taken = _build_initial_model(config, recipe, networks, len(manifest.label_names), progress)
    positions = {name: np.flatnonzero(model.select_people(cache.people.has_face)) for name, cache in caches.items()}
    arrays = _open_arrays(config, manifest, model, caches, fabric)
    sizes = identity["stream_sizes"]
    augmentation = build_augmentation(recipe)
    train = SplitPeople(
        PeopleDataset.of_model(
            caches["train"],
            model,
            sizes=sizes,
            augmentation=augmentation,
            seed=config.seed,
            arrays=arrays.get("train"),
        ),
        positions["train"],
        _read_sampling_weights(config, manifest, caches["train"], positions["train"]),
    )
    val = SplitPeople(
        PeopleDataset.of_model(caches["val"], model, sizes=sizes, arrays=arrays.get("val")), positions["val"]
    )
    _check_people(model, recipe, fabric, train, val, manifest)
    if fabric.is_global_zero and not (config.out / RUN_NAME).is_file():
        counts = {name: {**cache.counts, "seen": len(positions[name])} for name, cache in caches.items()}
        photos = {"images": None if config.images is None else str(resolve_place(config.images))}
        write_run(config.out, {**identity, **photos, "people": counts, "started_from": [asdict(one) for one in taken]})
    fabric.barrier()
    with fabric.rank_zero_first():
        plan = _plan_epochs(config)
    return Trainer(
        fabric,
        model,
        recipe,
        train,
        val,
        config.out,
        plan=plan,
        seed=config.seed,
        workers=_n_workers(config),
        loggers=list(dict.fromkeys(config.logger)),
        logged_settings=_flatten(identity),
        compiles=config.compile,
        label_names=manifest.label_names,
        progress=progress,
    )


def _plan_epochs(config: TrainConfig) -> EpochPlan:
    """How many epochs the run in ``out`` trains; extends the run if the settings say so."""
    from emoface.mter.runs import extend_run, read_run

    run = read_run(config.out, needs_finished=False)
    if config.extend_to is not None and (run.is_finished or config.extend_to != run.epoch_plan.epochs):
        run = extend_run(run, config.extend_to)
    return run.epoch_plan


def _check_extension(config: TrainConfig, n_epochs: int) -> None:
    if config.extend_to is not None and config.extend_to < n_epochs:
        raise SettingsError(
            f"{config.out}: extend_to is {config.extend_to}, but this run trains {n_epochs} epochs anyway; choose a "
            "larger number, or none"
        )


def _open_caches(config: TrainConfig, manifest: Manifest, fabric: Fabric, progress: Progress) -> dict[str, StreamCache]:
    """Opens the people of train and val, with shuffled labels if the settings say so."""
    from emoface.mter.sampling import shuffle_labels

    with fabric.rank_zero_first():
        caches = {
            name: open_stream_cache(manifest, name, config.cache, progress, allow_missing=config.allow_missing)
            for name in ("train", "val")
        }
    for name, cache in caches.items():
        if n_unusable := _count_unusable(cache):
            reasons = ", ".join(f"{cache.counts[reason]} {reason}" for reason in UNUSABLE_REASONS)
            progress.note(f"{name}: {n_unusable} of {cache.counts['people']} people cannot be used: {reasons}")
    if config.shuffle_labels:
        progress.note("labels are shuffled: this run can only reach chance level on the true labels")
        for cache in caches.values():
            cache.people = shuffle_labels(cache.people, config.seed)
    return caches


def _open_arrays(
    config: TrainConfig, manifest: Manifest, model: Mter, caches: Mapping[str, StreamCache], fabric: Fabric
) -> dict[str, PersonArrays]:
    """Opens the model's inputs beside the streams, by split; nothing for a model without such inputs."""
    from emoface.mter.person_arrays import PersonArrays

    if not model.array_inputs:
        return {}
    cache_dir = find_cache_dir(manifest, config.cache)
    with fabric.rank_zero_first():
        return {
            name: PersonArrays(manifest, cache.people, model.array_inputs, cache_dir) for name, cache in caches.items()
        }


def _build_initial_model(
    config: TrainConfig, recipe: Recipe, networks: Mapping[str, StreamNetwork], n_labels: int, progress: Progress
) -> tuple[Mter, list[TakenWeights]]:
    """Builds the network with its initial weights, and reports which pretrained weights it took."""
    from emoface.mter.networks import build_recipe_model
    from emoface.mter.pretrained import load_initial_weights, take_stream_weights
    from emoface.mter.runs import BEST_NAME
    from emoface.mter.weight_files import read_weights

    backbones = {stream: one.backbone for stream, one in networks.items()}
    model = build_recipe_model(config.model, recipe, n_labels, backbones)
    taken = [one.taken for one in networks.values() if one.taken is not None]
    sources = _list_sources(config) if "face" in model.streams else config.pretrained
    taken += load_initial_weights(model, sources, progress, auto_weights=PRESETS[config.preset].auto_weights)
    if config.init_face is not None:
        path = config.init_face / BEST_NAME
        face = {name: value for name, value in read_weights(path).items() if name.startswith("stream.face.")}
        taken += take_stream_weights(model, face, str(path))
    return model, taken


def _describe_sources(sources: Sequence[str]) -> str:
    """The sources of the initial weights as text, files by their sha256, so that a changed file is another setting."""
    parts = []
    for part in sources:
        stream, _, source = part.rpartition("=")
        is_here = is_file_source(source) and Path(source).is_file()
        parts.append(f"{stream}={file_sha256(Path(source))}".lstrip("=") if is_here else part)
    return ",".join(parts)


def _check_people(
    model: Mter, recipe: Recipe, fabric: Fabric, train: SplitPeople, val: SplitPeople, manifest: Manifest
) -> None:
    who = "people with a face" if model.reads_face_alone else "people"
    if len(train) < recipe.batch_size:
        raise SettingsError(
            f"{manifest.path}: {len(train)} {who} in train, expected a batch of {recipe.batch_size} or more; use a "
            "smaller --batch-size"
        )
    if not len(val):
        raise TableError(f"{manifest.path}: no {who} in val, expected some to pick the best epoch by")
    if recipe.batch_size % fabric.world_size:
        raise SettingsError(
            f"batch_size is {recipe.batch_size}, expected a multiple of the {fabric.world_size} processes that share it"
        )


def _read_sampling_weights(
    config: TrainConfig, manifest: Manifest, cache: StreamCache, positions: NDArray[np.int64]
) -> NDArray[np.float64] | None:
    """Reads the sampling weight of each person, (n,); None if each person is sampled once."""
    if config.balance == "none" or manifest.balance.get("rule") != "weights":
        return None
    path = manifest.path.parent / manifest.balance["file"]
    remedy = "rebuild it with 'emoface split DIR --balance weights'"
    table = read_table(path, SAMPLING_WEIGHTS_SCHEMA, remedy)
    if (found := file_sha256(path)) != manifest.balance["sha256"]:
        raise TableError(f"{path}: sha256 is {found}, {manifest.path} says {manifest.balance['sha256']}; {remedy}")
    weight_of = dict(zip(table["index"].to_pylist(), table["weight"].to_pylist(), strict=True))
    return np.array([weight_of[index] for index in cache.people.index[positions].tolist()])


def _n_workers(config: TrainConfig) -> int:
    if config.workers is not None:
        return config.workers
    return min(8, max(1, count_usable_cpus() // find_processes().n_local - 1))


def _finish(config: TrainConfig, identity: dict[str, Any], trainer: Trainer) -> None:
    from emoface.mter.run_card import write_run_card
    from emoface.mter.runs import BEST_NAME, LOG_NAME, read_run

    write_run_card(read_run(config.out, needs_finished=False))
    best = max(trainer.lines, key=score_line)
    finish_job(
        "train",
        config,
        config.out,
        module=__name__,
        inputs={source["path"]: source["sha256"] for source in (identity["manifest"], identity["init_face"]) if source},
        outputs=[config.out / name for name in (BEST_NAME, LOG_NAME)],
        counts={
            "train_people": len(trainer.train),
            "val_people": len(trainer.val),
            "train_left_out": _count_left_out(trainer.train),
            "val_left_out": _count_left_out(trainer.val),
            "epochs": len(trainer.lines),
            "stopped_early": len(trainer.lines) < trainer.plan.epochs,
            "best_epoch": best["epoch"],
            "val_map": best["val_map"],
            "val_loss": best["val_loss"],
        },
    )


def _count_left_out(people: SplitPeople) -> int:
    """Counts the people of a split that are unusable or that the model cannot use."""
    return len(people.dataset) - len(people) + _count_unusable(people.dataset.cache)


def _count_unusable(cache: StreamCache) -> int:
    return cache.counts["people"] - cache.counts[USABLE]
