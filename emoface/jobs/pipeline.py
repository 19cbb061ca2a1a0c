"""The pipeline job: runs the stages of a pipeline file in order, and only those that are out of date.

A stage is current when the record of its last run names the same settings and the same code, and every file that it
read or wrote still has the sha256 that the record gives. Nothing is told from times of change but photos, which are
too many to hash. Each stage's record is written last, so whatever stops a run, the stages before it stay current.
"""

from __future__ import annotations

import functools
import importlib
import json
import shutil
import tomllib
import types
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import MISSING, dataclass, fields
from pathlib import Path
from typing import Any, Protocol

from emoface.errors import SettingsError, did_you_mean
from emoface.pipeline.definition import Pipeline, StageTable, Text, read_pipeline
from emoface.progress import SILENT, Progress
from emoface.schema import PEOPLE_SCHEMA, SPLIT_SCHEMA
from emoface.storage.files import file_sha256
from emoface.storage.records import (
    ABSENT,
    PHOTOS,
    JobRecord,
    code_fingerprint,
    photo_inputs,
    read_record,
    record_path,
    to_settings,
)
from emoface.storage.settings import Settings
from emoface.storage.tables import read_table

CURRENT, STALE, UNFINISHED, NOT_RUN = "current", "stale", "unfinished", "missing"
"""The states of a stage: up to date; out of date; begun and not ended; never run."""


@dataclass(frozen=True)
class Job:
    """How a pipeline calls a job; nothing is imported before the stage is looked at.

    Attributes:
        module: Dotted name of the job's file.
        config: Name of its configuration class; the class's fields are what a stage may set.
        run: Name of its function, ``run(config, progress) -> JobRecord``.
        folder: The field or property of the configuration with the folder that holds the job's record.
        marks: What an unfinished run leaves in that folder.
        resumes_from: What in it an interrupted run goes on from; ``--rebuild`` removes it.
        photo_table: Name of its function that gives, from the configuration, the split table that names
            the photos it reads; None where that is ``people.parquet`` in the folder.
        is_kept: A finished run is worth too much to be replaced unasked: where it is stale, only ``--rebuild`` does.
    """

    module: str
    config: str
    run: str
    folder: str = "dir"
    marks: tuple[str, ...] = ()
    resumes_from: tuple[str, ...] = ()
    photo_table: str | None = None
    is_kept: bool = False


JOBS: dict[str, Job] = {
    "simulate": Job(
        "emoface.jobs.simulate", "SimulateConfig", "run_simulate", "out", ("simulation.json",), ("simulate_shards",)
    ),
    "parse": Job("emoface.jobs.parse", "ParseConfig", "run_parse", "out", ("people.parquet",)),
    "faces": Job("emoface.jobs.faces", "FacesConfig", "run_faces", "dir", ("faces_shards",), ("faces_shards",)),
    "split": Job("emoface.jobs.split", "SplitConfig", "run_split", "dir", ("train.parquet",)),
    "report": Job("emoface.jobs.report", "ReportConfig", "run_report", "dir", ("report",)),
    "train": Job(
        *("emoface.jobs.train", "TrainConfig", "run_train", "out", ("run.json",)),
        resumes_from=("run.json", "last.pt", "best.safetensors", "log.jsonl", "tensorboard"),
        is_kept=True,
    ),
    "evaluate": Job(
        *("emoface.jobs.evaluate", "EvaluateConfig", "run_evaluate", "out", ("metrics.json",)),
        resumes_from=("predictions.parquet",),
        photo_table="find_split_table",
    ),
    "compare": Job("emoface.jobs.compare", "CompareConfig", "run_compare", "folder", ("comparison.json",)),
}
"""The jobs that a stage can name. A job joins by one line here: its record must lie in ``FOLDER/records/JOB.json``."""


@dataclass(frozen=True)
class PipelineConfig:
    """What to run, or to look at.

    Attributes:
        pipeline: A file, or the bare name of one that comes with emoface.
        settings: Text by variable or by ``STAGE.FIELD``, in place of the file's.
        rebuild: Stages that run even where they are current, from the start.
        replaces_finished: Stale stages that are kept run too, as if they were named in ``rebuild``.
    """

    pipeline: str
    settings: Mapping[str, str]
    rebuild: tuple[str, ...] = ()
    replaces_finished: bool = False


@dataclass(frozen=True)
class Stage:
    """A stage whose settings were held against its job's configuration.

    Attributes:
        name: Unique in the pipeline.
        word: The job's word.
        job: How to call it.
        config: Its configuration; paths are absolute.
        out: The folder of its record.
    """

    name: str
    word: str
    job: Job
    config: Any
    out: Path


@dataclass(frozen=True)
class StageStatus:
    """Where a stage stands.

    Attributes:
        stage: Which.
        state: ``current``, ``stale``, ``unfinished`` or ``missing``.
        reasons: Why, in words; empty where it is current.
        record: Of its last run that ended.
    """

    stage: Stage
    state: str
    reasons: tuple[str, ...]
    record: JobRecord | None


class Watcher(Protocol):
    """Who is told how a pipeline run goes, stage by stage."""

    def skip(self, status: StageStatus) -> None:
        """The stage is current and is not run."""

    def begin(self, status: StageStatus) -> AbstractContextManager[Progress]:
        """The stage runs now; gives the progress to report to while it does."""

    def end(self, stage: Stage, record: JobRecord) -> None:
        """The stage has run."""


class SilentWatcher:
    """A watcher that nobody listens to."""

    def skip(self, status: StageStatus) -> None:
        """Does nothing."""

    def begin(self, status: StageStatus) -> AbstractContextManager[Progress]:
        """Gives a progress that nobody watches."""
        return nullcontext(SILENT)

    def end(self, stage: Stage, record: JobRecord) -> None:
        """Does nothing."""


def run_pipeline(config: PipelineConfig, watcher: Watcher | None = None) -> dict[str, JobRecord]:
    """Runs the stages that are not current, in the order of the file.

    Args:
        config: What to run.
        watcher: Told of every stage.

    Returns:
        The record of each stage by name.

    Raises:
        EmofaceError: The pipeline cannot be understood, before anything runs; or a stage failed, and those before
            it are current.
    """
    watcher = watcher or SilentWatcher()
    stages = read_stages(config)
    records = {}
    for stage in stages:
        status = check_stage(stage)
        is_stale_kept = stage.job.is_kept and status.state == STALE
        is_forced = stage.name in config.rebuild or (is_stale_kept and config.replaces_finished)
        if is_stale_kept and not is_forced:
            raise SettingsError(
                f"stage '{stage.name}': {stage.out} holds a finished run that is stale ({'; '.join(status.reasons)}); "
                f"replace it with --rebuild {stage.name}, or give the stage another '{stage.job.folder}'"
            )
        if status.record is not None and status.state == CURRENT and not is_forced:
            watcher.skip(status)
            records[stage.name] = status.record
            continue
        if is_forced:
            status = StageStatus(stage, status.state, ("to be rebuilt", *status.reasons), status.record)
            _forget(stage)
        run = getattr(importlib.import_module(stage.job.module), stage.job.run)
        with watcher.begin(status) as progress:
            records[stage.name] = run(stage.config, progress)
        watcher.end(stage, records[stage.name])
    return records


def check_pipeline(config: PipelineConfig) -> list[StageStatus]:
    """Looks at every stage without running any.

    A stage that reads what an earlier one is yet to write is stale too, for it may have to follow; if the files come
    out the same after all, the run leaves it be.

    Raises:
        EmofaceError: The pipeline cannot be understood, or a record is damaged.
    """
    seen: list[StageStatus] = []
    for stage in read_stages(config):
        status = check_stage(stage)
        if status.state == CURRENT and (names := _unsettled(status, seen)):
            status = StageStatus(stage, STALE, (f"reads what {' and '.join(names)} will write",), status.record)
        seen.append(status)
    return seen


def read_stages(config: PipelineConfig) -> list[Stage]:
    """Reads a pipeline and holds every stage against its job's configuration.

    Raises:
        SettingsError: A word is unknown, or a value is of the wrong type or refused by the job.
    """
    pipeline = read_pipeline(config.pipeline, config.settings)
    names = [table.name for table in pipeline.stages]
    for name in config.rebuild:
        if name not in names:
            raise SettingsError(f"--rebuild {name}: {pipeline.path} has no stage '{name}'{did_you_mean(name, names)}")
    stages = [_to_stage(pipeline, table) for table in pipeline.stages]
    taken: dict[tuple[str, Path], str] = {}
    for stage in stages:
        other = taken.setdefault((stage.word, stage.out), stage.name)
        if other != stage.name:
            raise SettingsError(
                f"{pipeline.path}: stages '{other}' and '{stage.name}' both run {stage.word} in {stage.out}; give one "
                f"another '{stage.job.folder}'"
            )
    return stages


def check_stage(stage: Stage) -> StageStatus:
    """Holds a stage against the record of its last run.

    Raises:
        TableError: The record or a table that it names is damaged.
    """
    record = read_record(stage.out, stage.word)
    if record is None:
        left = [name for name in stage.job.marks if (stage.out / name).exists()]
        if left:
            return StageStatus(stage, UNFINISHED, (f"{left[0]} is there, but no record of a run that ended",), None)
        return StageStatus(stage, NOT_RUN, (f"has not run in {stage.out}",), None)
    reasons = (
        *_changed_settings(stage, record),
        *_changed_inputs(stage, record),
        *_changed_outputs(stage, record),
        *(["code changed"] if record.code != code_fingerprint(stage.job.module) else []),
    )
    return StageStatus(stage, STALE if reasons else CURRENT, reasons, record)


def _changed_settings(stage: Stage, record: JobRecord) -> Iterator[str]:
    """What is set otherwise; the job's folder is where the record lies, whatever it was called then."""
    hints = typing.get_type_hints(type(stage.config))
    now = json.loads(json.dumps(to_settings(stage.config)))
    for name in [*now, *(name for name in record.settings if name not in now)]:
        if name == stage.job.folder:
            continue
        before, after = record.settings.get(name), now.get(name)
        before = _resolve(before, hints.get(name))
        if name not in record.settings:
            yield f"{name} is new, {_say(after)}"
        elif name not in now:
            yield f"{name} is no setting any more, was {_say(before)}"
        elif before != after:
            yield f"{name} was {_say(before)}, is {_say(after)}"


def _resolve(value: Any, hint: Any) -> Any:
    """A setting as a pipeline would have given it: its paths absolute."""
    if isinstance(value, str) and Path in _choices(hint):
        return str(Path(value).resolve())
    if isinstance(value, list) and Path in typing.get_args(hint):
        return [str(Path(part).resolve()) for part in value]
    return value


def _say(value: Any) -> str:
    return "none" if value is None else str(value)


def _changed_inputs(stage: Stage, record: JobRecord) -> list[str]:
    """What is not as it was read; photos are looked at only where the tables that name them are unchanged."""
    reasons = []
    photo_roots = {name: told for name, told in record.inputs.items() if told.startswith(PHOTOS)}
    for name, told in record.inputs.items():
        path = _locate(stage, record, name)
        if name in photo_roots:
            continue
        if told == ABSENT:
            reasons += [f"{path.name} is new"] if path.is_file() else []
        elif not path.is_file():
            reasons.append(f"{path} is gone")
        elif _sha256(path) != told:
            reasons.append(f"{path.name} changed")
    for name, told in ({} if reasons else photo_roots).items():
        root = _locate(stage, record, name)
        if told not in _find_photo_inputs(stage, root).values():
            reasons.append(f"photos below {root} changed")
    return reasons


def _changed_outputs(stage: Stage, record: JobRecord) -> Iterator[str]:
    for name, told in record.outputs.items():
        path = stage.out / name
        if not path.is_file():
            yield f"{name} is gone"
        elif _sha256(path) != told:
            yield f"{name} is not what {stage.word} wrote"


def _locate(stage: Stage, record: JobRecord, name: str) -> Path:
    """Where an input lies now; one inside the job's folder moved with it."""
    path = Path(name)
    folder = record.settings.get(stage.job.folder)
    return stage.out / path.relative_to(folder) if folder and path.is_relative_to(folder) else path.resolve()


def _find_photo_inputs(stage: Stage, image_root: Path) -> dict[str, str]:
    job, schema = stage.job, PEOPLE_SCHEMA
    path = stage.out / "people.parquet"
    if job.photo_table is not None:
        schema, path = SPLIT_SCHEMA, getattr(importlib.import_module(job.module), job.photo_table)(stage.config)
    if not path.is_file():
        return {}
    table = read_table(path, schema, f"run the stage that writes {path.name} again", ["image"])
    return photo_inputs(image_root, table["image"].to_pylist())


def _unsettled(status: StageStatus, before: Sequence[StageStatus]) -> list[str]:
    """The earlier stages that are to run and write what this one reads."""
    if status.record is None:
        return []
    inputs = {_locate(status.stage, status.record, name) for name in status.record.inputs}
    return [one.stage.name for one in before if one.state != CURRENT and _writes_any(one, inputs)]


def _writes_any(status: StageStatus, paths: set[Path]) -> bool:
    """Whether a stage wrote one of the files; of one that never ended, whether they lie in its folder."""
    out = status.stage.out
    if status.record is None:
        return any(path.is_relative_to(out) for path in paths)
    return not paths.isdisjoint((out / name).resolve() for name in status.record.outputs)


def _sha256(path: Path) -> str:
    found = path.stat()
    return _sha256_of(path, found.st_ino, found.st_size, found.st_mtime_ns)


@functools.lru_cache(maxsize=4096)
def _sha256_of(path: Path, *_: int) -> str:
    """A file is both one stage's output and another's input; one look at a pipeline reads it once."""
    return file_sha256(path)


def _forget(stage: Stage) -> None:
    record_path(stage.out, stage.word).unlink(missing_ok=True)
    for name in stage.job.resumes_from:
        path = stage.out / name
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def _to_stage(pipeline: Pipeline, table: StageTable) -> Stage:
    where = f"{pipeline.path}: stage '{table.name}'"
    if table.job not in JOBS:
        raise SettingsError(f"{where}: no job is called '{table.job}'{did_you_mean(table.job, JOBS)}")
    job = JOBS[table.job]
    config_class = getattr(importlib.import_module(job.module), job.config)
    hints = typing.get_type_hints(config_class)
    is_required = _config_fields(config_class)
    for key in table.values:
        if key not in is_required:
            raise SettingsError(f"{where}: {table.job} has no setting '{key}'{did_you_mean(key, is_required)}")
    for name in is_required:
        if is_required[name] and name not in table.values:
            raise SettingsError(f"{where}: {table.job} needs '{name}', and the stage does not set it")
    values = {key: _to_value(f"{where}: {key}", value, hints[key]) for key, value in table.values.items()}
    try:
        config = config_class(**values)
    except SettingsError as error:
        raise SettingsError(f"{where}: {error}") from error
    return Stage(table.name, table.job, job, config, getattr(config, job.folder))


def _config_fields(config_class: Any) -> dict[str, bool]:
    """The names of a configuration's settings, and whether a stage must set them."""
    if issubclass(config_class, Settings):
        return {name: field.is_required() for name, field in config_class.model_fields.items()}
    return {
        field.name: field.default is MISSING and field.default_factory is MISSING
        for field in fields(config_class)
        if field.init
    }


def _choices(hint: Any) -> tuple[Any, ...]:
    """The types of ``X | None``, of ``X`` alone otherwise."""
    return typing.get_args(hint) if typing.get_origin(hint) in (types.UnionType, typing.Union) else (hint,)


def _to_value(where: str, value: Any, hint: Any) -> Any:
    """A value of the file or the command line as its field wants it.

    Where a field may be None, empty text means None.

    Raises:
        SettingsError: It is of another type.
    """
    choices = _choices(hint)
    if value == "" and types.NoneType in choices:
        return None
    kind = next(choice for choice in choices if choice is not types.NoneType)
    if typing.get_origin(kind) is typing.Literal:
        kind = type(typing.get_args(kind)[0])
    if typing.get_origin(kind) in (tuple, list):
        return _to_sequence(where, value, kind)
    if typing.get_origin(kind) is Mapping:
        return _to_mapping(where, value)
    if kind not in _READERS:
        raise SettingsError(f"{where} cannot be set in a pipeline; leave it out")
    expected, accepted, read = _READERS[kind]
    try:
        if isinstance(value, Text | accepted) and not (isinstance(value, bool) and kind is not bool):
            return read(value)
        raise ValueError(value)
    except ValueError as error:
        raise SettingsError(f"{where} is {value!r}, expected {expected}") from error


def _to_sequence(where: str, value: Any, kind: Any) -> Any:
    """Lists are written as TOML lists or as text with ``/`` or ``,`` between the parts."""
    parts = typing.get_args(kind)
    if isinstance(value, str):
        value = [Text(part.strip()) for part in value.replace("/", ",").split(",")]
    if not isinstance(value, list):
        raise SettingsError(f"{where} is {value!r}, expected a list")
    is_open = len(parts) == 1 or (len(parts) == 2 and parts[1] is Ellipsis)
    if not is_open and len(value) != len(parts):
        raise SettingsError(f"{where} has {len(value)} values, expected {len(parts)}")
    part_types = [parts[0]] * len(value) if is_open else parts
    read = [_to_value(where, part, part_type) for part, part_type in zip(value, part_types, strict=True)]
    return tuple(read) if typing.get_origin(kind) is tuple else read


def _to_mapping(where: str, value: Any) -> dict[str, Any]:
    """A table whose values the job checks itself; bare text is a number, true or a list where it reads as one."""
    if not isinstance(value, dict):
        raise SettingsError(
            f"{where} is {value!r}, expected a table; one value of it is set as {where.split(': ')[-1]}.KEY"
        )
    return {key: _guess(part) if isinstance(part, Text) else part for key, part in value.items()}


def _guess(text: str) -> Any:
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return str(text)


def _to_bool(value: bool | str) -> bool:
    if isinstance(value, bool):
        return value
    if value not in ("true", "false"):
        raise ValueError(value)
    return value == "true"


def _to_path(value: str) -> Path:
    if not value:
        raise ValueError("a path needs a name")
    return Path(value).expanduser().resolve()


_READERS: dict[Any, tuple[str, Any, Callable[[Any], Any]]] = {
    str: ("text", str, str),
    int: ("a whole number", int, int),
    float: ("a number", int | float, float),
    bool: ("true or false", bool, _to_bool),
    Path: ("a path", str, _to_path),
}
"""By type of a field: what to call it, the TOML types that it takes, and how it is read."""
