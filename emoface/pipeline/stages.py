"""Stages of a pipeline: what job each calls, with what configuration, and whether its last run is current.

A stage is current when the record of its last run names the same settings and the same code, and every file that it
read or wrote still has the sha256 that the record gives. Nothing is told from times of change but photos, which are
too many to hash.
"""

from __future__ import annotations

import importlib
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from emoface.errors import SettingsError, did_you_mean
from emoface.pipeline.definition import Pipeline, StageTable
from emoface.pipeline.values import build_config, to_absolute
from emoface.schema import PEOPLE_SCHEMA, SPLIT_SCHEMA
from emoface.storage.records import (
    ABSENT,
    PHOTOS,
    JobRecord,
    cached_sha256,
    code_fingerprint,
    list_changes,
    photo_inputs,
    read_record,
    record_path,
    to_settings,
)
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


def to_stage(pipeline: Pipeline, table: StageTable) -> Stage:
    """Holds a stage of a file against its job's configuration.

    Args:
        pipeline: The file, for messages.
        table: The stage as the file says it.

    Raises:
        SettingsError: A word is unknown, or a value is of the wrong type or refused by the job.
    """
    where = f"{pipeline.path}: stage '{table.name}'"
    if table.job not in JOBS:
        raise SettingsError(f"{where}: no job is called '{table.job}'{did_you_mean(table.job, JOBS)}")
    job = JOBS[table.job]
    config_class = getattr(importlib.import_module(job.module), job.config)
    config = build_config(where, table.job, config_class, table.values)
    return Stage(table.name, table.job, job, config, getattr(config, job.folder))


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
    reasons = list_changes(
        _as_seen_from(stage, record),
        stage.out,
        _without_folder(stage, to_settings(stage.config)),
        _read_inputs(stage, record),
        code_fingerprint(stage.job.module),
    )
    return StageStatus(stage, STALE if reasons else CURRENT, tuple(reasons), record)


def _as_seen_from(stage: Stage, record: JobRecord) -> JobRecord:
    """The record as a pipeline would have it: paths absolute, those in the job's folder where the folder is now."""
    settings = {name: to_absolute(type(stage.config), name, value) for name, value in record.settings.items()}
    inputs = {str(_locate(stage, record, name)): told for name, told in record.inputs.items()}
    return replace(record, settings=_without_folder(stage, settings), inputs=inputs)


def _without_folder(stage: Stage, settings: dict[str, Any]) -> dict[str, Any]:
    """The job's folder is where the record lies, whatever it was called then."""
    return {name: value for name, value in settings.items() if name != stage.job.folder}


def _read_inputs(stage: Stage, record: JobRecord) -> dict[str, str]:
    """What is there now of a record's inputs; photos are looked at only where the tables that name them are unchanged.

    Returns:
        By located path, see ``JobRecord.inputs``.
    """
    told = {_locate(stage, record, name): value for name, value in record.inputs.items()}
    now = {
        path: value if value.startswith(PHOTOS) else cached_sha256(path) if path.is_file() else ABSENT
        for path, value in told.items()
    }
    if now == told:
        for root in (path for path, value in told.items() if value.startswith(PHOTOS)):
            now[root] = _digest_photos(stage, root)
    return {str(path): value for path, value in now.items()}


def _locate(stage: Stage, record: JobRecord, name: str) -> Path:
    """Where an input lies now; one inside the job's folder moved with it."""
    path = Path(name)
    folder = record.settings.get(stage.job.folder)
    return stage.out / path.relative_to(folder) if folder and path.is_relative_to(folder) else path.resolve()


def _digest_photos(stage: Stage, image_root: Path) -> str:
    """What the inputs would say of the photos now; ``ABSENT`` where the table that names them is."""
    job, schema = stage.job, PEOPLE_SCHEMA
    path = stage.out / "people.parquet"
    if job.photo_table is not None:
        schema, path = SPLIT_SCHEMA, getattr(importlib.import_module(job.module), job.photo_table)(stage.config)
    if not path.is_file():
        return ABSENT
    table = read_table(path, schema, f"run the stage that writes {path.name} again", ["image"])
    return photo_inputs(image_root, table["image"].to_pylist())[str(image_root)]


def find_unsettled(status: StageStatus, before: Sequence[StageStatus]) -> list[str]:
    """The earlier stages that are to run and write what this one reads.

    Args:
        status: Of the stage that reads.
        before: Of the stages that run before it.

    Returns:
        Their names.
    """
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


def forget_stage(stage: Stage) -> None:
    """Removes the record of a stage and what an interrupted run would go on from, so that it runs from the start."""
    record_path(stage.out, stage.word).unlink(missing_ok=True)
    for name in stage.job.resumes_from:
        path = stage.out / name
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
