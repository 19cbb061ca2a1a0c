"""Stages of a pipeline file: the job that each calls, its configuration, and whether its last run is current.

A stage is current when the record of its last run holds the same settings and the same code fingerprint, and every
file that it read or wrote still has the recorded sha256. Only photos, which are too many to hash, are compared by size
and modification time.
"""

from __future__ import annotations

import importlib
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from emoface.errors import SettingsError, did_you_mean
from emoface.pipeline.definition import PipelineFile, StageTable
from emoface.pipeline.values import build_config, to_absolute
from emoface.schema import PEOPLE_SCHEMA, SPLIT_SCHEMA
from emoface.storage.records import (
    ABSENT,
    FACTS,
    PHOTOS,
    JobRecord,
    cached_sha256,
    code_fingerprint,
    list_changes,
    photo_inputs,
    present_facts,
    read_record,
    record_path,
    to_settings,
)
from emoface.storage.tables import read_table
from emoface.storage.urls import Place, is_url

CURRENT, STALE, UNFINISHED, NOT_RUN = "current", "stale", "unfinished", "missing"
"""The states of a stage: up to date; out of date; started but not finished; never run."""


@dataclass(frozen=True)
class Job:
    """How a stage calls a job; the job's module is imported only when a stage of a pipeline file uses it.

    Attributes:
        module: Dotted name of the job's module.
        config: Name of its configuration class, whose fields are the settings of a stage.
        run: Name of its function, ``run(config, progress) -> JobRecord``.
        folder: Field or property of the configuration that gives the folder of the job's record.
        marks: Files or folders in that folder that show that a run was started.
        resumes_from: Files or folders in it from which an interrupted run resumes; ``--rebuild`` removes them.
        reset: Name of the module's function that removes, for a configuration, what an interrupted run resumes from
            outside that folder; None if there is no such thing.
        photo_table: Name of the module's function that returns, for a configuration, the split table that lists the
            photos the job reads; None if ``people.parquet`` in the folder lists them.
        is_kept: Whether a stale finished run is replaced only with ``--rebuild``, because it took long to make
            (training).
    """

    module: str
    config: str
    run: str
    folder: str = "dir"
    marks: tuple[str, ...] = ()
    resumes_from: tuple[str, ...] = ()
    reset: str | None = None
    photo_table: str | None = None
    is_kept: bool = False


JOBS: dict[str, Job] = {
    "simulate": Job(
        "emoface.jobs.simulate", "SimulateConfig", "run_simulate", "out", ("simulation.json",), ("simulate_shards",)
    ),
    "parse": Job("emoface.jobs.parse", "ParseConfig", "run_parse", "out", ("people.parquet",)),
    "faces": Job(
        *("emoface.jobs.faces", "FacesConfig", "run_faces", "dir", ("faces_shards",), ("faces_shards",)),
        reset="remove_shards",
    ),
    "pose": Job("emoface.jobs.pose", "PoseConfig", "run_pose", "dir", ("pose_shards",), ("pose_shards",)),
    "depth": Job("emoface.jobs.depth", "DepthConfig", "run_depth", "dir", ("depth_shards",), ("depth_shards",)),
    "regions": Job(
        "emoface.jobs.regions", "RegionsConfig", "run_regions", "dir", ("regions_shards",), ("regions_shards",)
    ),
    "split": Job("emoface.jobs.split", "SplitConfig", "run_split", "dir", ("train.parquet",)),
    "report": Job("emoface.jobs.report", "ReportConfig", "run_report", "dir", ("report",)),
    "train": Job(
        *("emoface.jobs.train", "TrainConfig", "run_train", "out", ("run.json",)),
        resumes_from=("run.json", "last.pt", "best.safetensors", "log.jsonl", "tensorboard", "loggers.json"),
        is_kept=True,
    ),
    "probe": Job("emoface.jobs.probe", "ProbeConfig", "run_probe", "out", ("run.json",)),
    "evaluate": Job(
        *("emoface.jobs.evaluate", "EvaluateConfig", "run_evaluate", "out", ("metrics.json",)),
        resumes_from=("predictions.parquet",),
        photo_table="find_split_table",
    ),
    "compare": Job("emoface.jobs.compare", "CompareConfig", "run_compare", "folder", ("comparison.json",)),
}
"""The jobs that a stage can name. To add a job, add one entry; its record must be ``FOLDER/records/JOB.json``."""


@dataclass(frozen=True)
class Stage:
    """A stage whose settings were checked against its job's configuration.

    Attributes:
        name: Name of the stage, unique in the pipeline file.
        job_name: Name of the job, such as ``split``.
        job: How to call the job.
        config: Configuration of the job; its paths are absolute.
        out: Folder of the job's record.
        variables: See ``StageTable``.
    """

    name: str
    job_name: str
    job: Job
    config: Any
    out: Path
    variables: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class StageStatus:
    """The state of a stage.

    Attributes:
        stage: The stage.
        state: ``current``, ``stale``, ``unfinished`` or ``missing``.
        reasons: Why it has this state, as text; empty if it is current.
        record: Record of its last finished run; None if it never finished.
    """

    stage: Stage
    state: str
    reasons: tuple[str, ...]
    record: JobRecord | None


def to_stage(pipeline: PipelineFile, table: StageTable) -> Stage:
    """Checks a stage of a pipeline file against its job's configuration.

    Args:
        pipeline: The pipeline file; error messages name it.
        table: The stage as it is in the file.

    Raises:
        SettingsError: The job or a setting is unknown, or a value has the wrong type or is refused by the
            configuration.
    """
    where = f"{pipeline.path}: stage '{table.name}'"
    if table.job not in JOBS:
        raise SettingsError(f"{where}: no job is called '{table.job}'{did_you_mean(table.job, JOBS)}")
    job = JOBS[table.job]
    config_class = getattr(importlib.import_module(job.module), job.config)
    config = build_config(where, table.job, config_class, table.values)
    return Stage(table.name, table.job, job, config, getattr(config, job.folder), table.variables)


def check_stage(stage: Stage) -> StageStatus:
    """Compares a stage with the record of its last run.

    Raises:
        TableError: The record or a table that it names is damaged.
    """
    record = read_record(stage.out, stage.job_name)
    if record is None:
        left = [name for name in stage.job.marks if (stage.out / name).exists()]
        if left:
            return StageStatus(stage, UNFINISHED, (f"{left[0]} is there, but no record of a run that ended",), None)
        return StageStatus(stage, NOT_RUN, (f"has not run in {stage.out}",), None)
    reasons = list_changes(
        _with_absolute_paths(stage, record),
        stage.out,
        _without_folder(stage, to_settings(stage.config)),
        _read_inputs(stage, record),
        code_fingerprint(stage.job.module),
    )
    return StageStatus(stage, STALE if reasons else CURRENT, tuple(reasons), record)


def _with_absolute_paths(stage: Stage, record: JobRecord) -> JobRecord:
    """The record with absolute paths; paths inside the job's folder are those of the folder's present place."""
    settings = {name: to_absolute(type(stage.config), name, value) for name, value in record.settings.items()}
    inputs = {str(_locate(stage, record, name)): sha256 for name, sha256 in record.inputs.items()}
    return replace(record, settings=_without_folder(stage, settings), inputs=inputs)


def _without_folder(stage: Stage, settings: dict[str, Any]) -> dict[str, Any]:
    """The settings without the job's folder: the record is in it, even if it was renamed since the run."""
    return {name: value for name, value in settings.items() if name != stage.job.folder}


def _read_inputs(stage: Stage, record: JobRecord) -> dict[str, str]:
    """The present sha256 of a record's inputs; photos are checked only if the tables that list them are unchanged.

    Returns:
        Values as in ``JobRecord.inputs``, by the present path of the input.
    """
    recorded = {_locate(stage, record, name): value for name, value in record.inputs.items()}
    present = {
        place: value if value.startswith(PHOTOS) else _read_input(Path(place), value)
        for place, value in recorded.items()
    }
    if present == recorded:
        for root in (path for path, value in recorded.items() if value.startswith(PHOTOS)):
            present[root] = _digest_photos(stage, root)
    return {str(path): value for path, value in present.items()}


def _read_input(path: Path, recorded: str) -> str:
    """The present value of an input that is no folder of photos."""
    if recorded.startswith(FACTS):
        return present_facts(path, recorded)
    return cached_sha256(path) if path.is_file() else ABSENT


def _locate(stage: Stage, record: JobRecord, name: str) -> Place:
    """The present path of an input, or its URL; an input inside the job's folder moves with the folder."""
    if is_url(name):
        return name
    path = Path(name)
    folder = record.settings.get(stage.job.folder)
    return stage.out / path.relative_to(folder) if folder and path.is_relative_to(folder) else path.resolve()


def _digest_photos(stage: Stage, image_root: Place) -> str:
    """The photos' present digest, as in ``JobRecord.inputs``; ``ABSENT`` if the table that lists them is missing."""
    job, schema = stage.job, PEOPLE_SCHEMA
    path = stage.out / "people.parquet"
    if job.photo_table is not None:
        schema, path = SPLIT_SCHEMA, getattr(importlib.import_module(job.module), job.photo_table)(stage.config)
    if not path.is_file():
        return ABSENT
    table = read_table(path, schema, f"run the stage that writes {path.name} again", ["image"])
    return photo_inputs(image_root, table["image"].to_pylist())[str(image_root)]


def find_pending_writers(status: StageStatus, before: Sequence[StageStatus]) -> list[str]:
    """Finds the earlier stages that are not current and write a file that this stage reads.

    Args:
        status: Status of the stage that reads.
        before: Status of each stage that runs before it.

    Returns:
        Names of the stages found.
    """
    if status.record is None:
        return []
    inputs = {_locate(status.stage, status.record, name) for name in status.record.inputs}
    return [one.stage.name for one in before if one.state != CURRENT and _writes_any(one, inputs)]


def _writes_any(status: StageStatus, places: set[Place]) -> bool:
    """Whether a stage wrote one of the files; for a stage that never finished, whether one is in its folder."""
    out = status.stage.out
    paths = {place for place in places if isinstance(place, Path)}
    if status.record is None:
        return any(path.is_relative_to(out) for path in paths)
    written = [*(out / name for name in status.record.outputs), record_path(out, status.stage.job_name)]
    return not paths.isdisjoint(path.resolve() for path in written)


def reset_stage(stage: Stage) -> None:
    """Removes the record of a stage and the files from which an interrupted run resumes, so that it runs anew."""
    record_path(stage.out, stage.job_name).unlink(missing_ok=True)
    if stage.job.reset is not None:
        getattr(importlib.import_module(stage.job.module), stage.job.reset)(stage.config)
    for name in stage.job.resumes_from:
        path = stage.out / name
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
