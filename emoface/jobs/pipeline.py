"""The pipeline job: runs the stages of a pipeline file in order, and only those that are out of date.

When a stage is current is said in ``emoface.pipeline.stages``. Each stage's record is written last, so whatever stops a
run, the stages before it stay current.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from emoface.errors import SettingsError, did_you_mean
from emoface.pipeline.definition import read_pipeline
from emoface.pipeline.stages import (
    CURRENT,
    STALE,
    Stage,
    StageStatus,
    check_stage,
    find_unsettled,
    forget_stage,
    to_stage,
)
from emoface.progress import SILENT, Progress
from emoface.storage.records import JobRecord


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
            forget_stage(stage)
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
        if status.state == CURRENT and (names := find_unsettled(status, seen)):
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
    stages = [to_stage(pipeline, table) for table in pipeline.stages]
    taken: dict[tuple[str, Path], str] = {}
    for stage in stages:
        other = taken.setdefault((stage.word, stage.out), stage.name)
        if other != stage.name:
            raise SettingsError(
                f"{pipeline.path}: stages '{other}' and '{stage.name}' both run {stage.word} in {stage.out}; give one "
                f"another '{stage.job.folder}'"
            )
    return stages
