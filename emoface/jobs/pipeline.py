"""The pipeline job: runs the stages of a pipeline file in order, and only those that are out of date.

``emoface.pipeline.stages`` defines when a stage is current. Each stage writes its record last, so if a run is
interrupted, the stages that had finished stay current.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from emoface.errors import EmofaceError, SettingsError, did_you_mean
from emoface.pipeline.definition import read_pipeline_file
from emoface.pipeline.messages import StageProgress, to_pipeline_words
from emoface.pipeline.stages import (
    CURRENT,
    STALE,
    Stage,
    StageStatus,
    check_stage,
    find_pending_writers,
    reset_stage,
    to_stage,
)
from emoface.progress import SILENT, Progress, Silent
from emoface.storage.locks import lock_folder
from emoface.storage.records import JobRecord


@dataclass(frozen=True)
class PipelineConfig:
    """Which pipeline file to run or to check, and with which settings.

    Attributes:
        pipeline: Path of a pipeline file, or the bare name of one that comes with emoface.
        settings: Values given as text, by variable or by ``STAGE.FIELD``; they replace those of the file.
        rebuild: Names of stages to run from the start, even if they are current.
        replaces_finished: Whether to replace stale finished runs of jobs with ``is_kept`` (training), as if their
            stages were named in ``rebuild``.
    """

    pipeline: str
    settings: Mapping[str, str]
    rebuild: tuple[str, ...] = ()
    replaces_finished: bool = False


class StageObserver(Protocol):
    """Receives one call when a stage is skipped, starts or finishes."""

    def note(self, text: str) -> None:
        """Called with the reason if a stage waits for another process."""

    def skip(self, status: StageStatus) -> None:
        """Called for a stage that is current and does not run."""

    def begin(self, status: StageStatus) -> AbstractContextManager[Progress]:
        """Called before a stage runs; returns the progress that the stage's job reports to."""

    def end(self, stage: Stage, record: JobRecord) -> None:
        """Called after a stage has run."""


class SilentObserver:
    """An observer that ignores every call."""

    def note(self, text: str) -> None:
        """Does nothing."""

    def skip(self, status: StageStatus) -> None:
        """Does nothing."""

    def begin(self, status: StageStatus) -> AbstractContextManager[Progress]:
        """Returns a progress that shows nothing."""
        return nullcontext(SILENT)

    def end(self, stage: Stage, record: JobRecord) -> None:
        """Does nothing."""


def run_pipeline(config: PipelineConfig, observer: StageObserver | None = None) -> dict[str, JobRecord]:
    """Runs the stages that are not current, in the order of the file.

    The folder of a stage is locked from the first stage in it to the last one.

    Args:
        config: The pipeline file and its settings.
        observer: Receives a call per stage; None for no reports.

    Returns:
        The record of each stage, by the stage's name.

    Raises:
        EmofaceError: The pipeline file has an error (raised before any stage runs), or a stage failed (the stages
            before it are then current).
        LockedError: Another process is training in the folder of a stage.
    """
    observer = observer or SilentObserver()
    stages = read_stages(config)
    last_in = {stage.out: number for number, stage in enumerate(stages)}
    held: dict[Path, ExitStack] = {}
    records = {}
    with ExitStack() as all_held:
        for number, stage in enumerate(stages):
            if stage.out not in held:
                held[stage.out] = all_held.enter_context(ExitStack())
                held[stage.out].enter_context(lock_folder(stage.out, _NotesTo(observer), waits=not stage.job.is_kept))
            records[stage.name] = _run_stage(config, stage, observer)
            if last_in[stage.out] == number:
                held[stage.out].close()
    return records


class _NotesTo(Silent):
    """A progress that reports only notes, to an observer."""

    def __init__(self, observer: StageObserver) -> None:
        self.note = observer.note  # type: ignore[method-assign]


def _run_stage(config: PipelineConfig, stage: Stage, observer: StageObserver) -> JobRecord:
    """Runs a stage unless it is current, and returns its record."""
    status = check_stage(stage)
    is_stale_kept = stage.job.is_kept and status.state == STALE
    is_forced = stage.name in config.rebuild or (is_stale_kept and config.replaces_finished)
    if is_stale_kept and not is_forced:
        raise SettingsError(
            f"stage '{stage.name}': {stage.out} holds a finished run that is stale ({'; '.join(status.reasons)}); "
            f"replace it with --rebuild {stage.name}, or give the stage another '{stage.job.folder}'"
        )
    if status.record is not None and status.state == CURRENT and not is_forced:
        observer.skip(status)
        return status.record
    if is_forced:
        status = StageStatus(stage, status.state, ("to be rebuilt", *status.reasons), status.record)
        reset_stage(stage)
    run = getattr(importlib.import_module(stage.job.module), stage.job.run)
    with observer.begin(status) as progress:
        try:
            record: JobRecord = run(stage.config, StageProgress(progress, stage))
        except EmofaceError as error:
            error.args = (to_pipeline_words(str(error), stage),)
            raise
    observer.end(stage, record)
    return record


def check_pipeline(config: PipelineConfig) -> list[StageStatus]:
    """Finds the state of every stage without running any.

    A stage that reads a file which an earlier stage has yet to write counts as stale too. ``run_pipeline`` still skips
    it if the earlier stage then writes the same bytes as before.

    Raises:
        EmofaceError: The pipeline file has an error, or a record is damaged.
    """
    statuses: list[StageStatus] = []
    for stage in read_stages(config):
        status = check_stage(stage)
        if status.state == CURRENT and (names := find_pending_writers(status, statuses)):
            status = StageStatus(stage, STALE, (f"reads what {' and '.join(names)} will write",), status.record)
        statuses.append(status)
    return statuses


def read_stages(config: PipelineConfig) -> list[Stage]:
    """Reads a pipeline file and checks every stage against its job's configuration.

    Raises:
        SettingsError: A job, stage or setting is unknown, a value has the wrong type or is refused by the
            configuration, or two stages run the same job in the same folder.
    """
    pipeline = read_pipeline_file(config.pipeline, config.settings)
    names = [table.name for table in pipeline.stages]
    for name in config.rebuild:
        if name not in names:
            raise SettingsError(f"--rebuild {name}: {pipeline.path} has no stage '{name}'{did_you_mean(name, names)}")
    stages = [to_stage(pipeline, table) for table in pipeline.stages]
    taken: dict[tuple[str, Path], str] = {}
    for stage in stages:
        other = taken.setdefault((stage.job_name, stage.out), stage.name)
        if other != stage.name:
            raise SettingsError(
                f"{pipeline.path}: stages '{other}' and '{stage.name}' both run {stage.job_name} in {stage.out}; give "
                f"one another '{stage.job.folder}'"
            )
    return stages
