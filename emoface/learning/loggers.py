"""Where the curves of a training are shown: TensorBoard, Weights & Biases or MLflow, each with the same points.

``log.jsonl`` of a run has all of them too. Fabric has a logger for TensorBoard alone, and Lightning's would bring all
of Lightning along, so the packages ``wandb`` and ``mlflow`` are called directly.
"""

from __future__ import annotations

import importlib
import json
import os
import secrets
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

from emoface.errors import SettingsError, first_line
from emoface.progress import SILENT, Progress
from emoface.storage.files import naming_path, parse_json, read_text, write_text

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from torch.utils.tensorboard import SummaryWriter

LoggerName = Literal["tensorboard", "wandb", "mlflow"]
IDS_NAME = "loggers.json"
"""The file in a run's folder with its ids at Weights & Biases and MLflow, so that a resumed run goes on there."""
_PROJECT = "emoface"
"""Name of the project or experiment where the environment names none."""
_LONGEST_VALUE = 500
"""Characters of a setting's value that every MLflow server accepts."""
_PACKAGES: dict[LoggerName, str] = {"tensorboard": "torch.utils.tensorboard", "wandb": "wandb", "mlflow": "mlflow"}


@dataclass(frozen=True)
class LoggedRun:
    """The run whose points are logged.

    Attributes:
        folder: Folder of the run.
        settings: Its settings by name, as JSON values.
        first_step: The first step that is logged, from 1; later ones of an interrupted run are hidden where possible.
    """

    folder: Path
    settings: Mapping[str, Any]
    first_step: int = 1


class CurveLogger(Protocol):
    """Receives the points of each step."""

    def log(self, points: Mapping[str, float], step: int) -> None:
        """Adds one point to each of the named curves."""

    def close(self, is_finished: bool) -> None:
        """Ends the logging.

        Args:
            is_finished: Whether the training has ended without an error.
        """


def check_loggers(names: Sequence[LoggerName]) -> None:
    """Imports the packages of the loggers, so that a missing one is known before a training begins.

    Raises:
        ModuleNotFoundError: A package is not installed.
    """
    for name in names:
        importlib.import_module(_PACKAGES[name])


@contextmanager
def open_loggers(
    names: Sequence[LoggerName], run: LoggedRun, progress: Progress = SILENT
) -> Iterator[list[CurveLogger]]:
    """Opens the loggers of a run, and closes them after the block.

    Args:
        names: Names of the loggers, without repetition.
        run: The run.
        progress: Receives a note where points cannot be logged though the training goes on.

    Raises:
        ModuleNotFoundError: A package is not installed.
        SettingsError: A logger refuses to start.
        OSError: The curves cannot be written.
    """
    kinds: dict[LoggerName, Callable[[LoggedRun, Progress], CurveLogger]]
    kinds = {"tensorboard": _TensorBoard, "wandb": _WandB, "mlflow": _MLflow}
    loggers: list[CurveLogger] = []
    is_finished = False

    def close(logger: CurveLogger) -> None:
        logger.close(is_finished)

    with ExitStack() as stack:
        for name in names:
            logger = kinds[name](run, progress)
            loggers.append(logger)
            stack.callback(close, logger)
        yield loggers
        is_finished = True


class _TensorBoard:
    """Writes event files into the folder ``tensorboard`` of the run; those of an interrupted epoch are hidden."""

    def __init__(self, run: LoggedRun, progress: Progress) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._folder = run.folder / "tensorboard"
        self._writer: SummaryWriter | None = None
        if not _is_utf8(str(self._folder)):
            progress.note(
                f"{self._folder}: no curves are written, since TensorBoard needs a path in UTF-8; log.jsonl has them"
            )
            return
        with naming_path(self._folder):
            self._writer = SummaryWriter(str(self._folder), purge_step=run.first_step)

    def log(self, points: Mapping[str, float], step: int) -> None:
        if self._writer is not None:
            with naming_path(self._folder):
                for name, value in points.items():
                    self._writer.add_scalar(name, value, step)
                self._writer.flush()

    def close(self, is_finished: bool) -> None:
        if self._writer is not None:
            with naming_path(self._folder):
                self._writer.close()


class _WandB:
    """Sends points to Weights & Biases; ``WANDB_MODE=offline`` keeps them in the folder ``wandb`` of the run."""

    def __init__(self, run: LoggedRun, progress: Progress) -> None:
        import wandb

        run_id = _read_ids(run.folder).get("wandb") or secrets.token_hex(4)
        _write_id(run.folder, "wandb", run_id)
        try:
            self._run = wandb.init(
                project=os.environ.get("WANDB_PROJECT", _PROJECT),
                name=os.environ.get("WANDB_NAME", run.folder.name),
                id=run_id,
                resume="allow",
                dir=str(run.folder),
                config=dict(run.settings),
            )
        except wandb.errors.Error as error:
            raise SettingsError(
                f"--logger wandb: Weights & Biases does not start ({first_line(error)}); log in with 'wandb login', "
                "or set WANDB_MODE=offline to keep the points in the run's folder"
            ) from error

    def log(self, points: Mapping[str, float], step: int) -> None:
        self._run.log(dict(points), step=step)

    def close(self, is_finished: bool) -> None:
        self._run.finish(exit_code=0 if is_finished else 1)


class _MLflow:
    """Sends points to the MLflow server that ``MLFLOW_TRACKING_URI`` names.

    A server that does not answer during a training does not stop it.
    """

    def __init__(self, run: LoggedRun, progress: Progress) -> None:
        from mlflow import MlflowClient
        from mlflow.exceptions import MlflowException

        self._progress = progress
        known = _read_ids(run.folder).get("mlflow")
        try:
            self._client = MlflowClient()
            self._run_id = known or self._create_run(self._client, run)
            if known:
                self._client.update_run(known, status="RUNNING")
        except MlflowException as error:
            raise SettingsError(
                f"--logger mlflow: MLflow does not start ({first_line(error)}); set MLFLOW_TRACKING_URI to the "
                "address of your MLflow server, and remove the entry mlflow of "
                f"{run.folder / IDS_NAME} if its run was deleted there"
            ) from error

    @staticmethod
    def _create_run(client: MlflowClient, run: LoggedRun) -> str:
        from mlflow.entities import Param

        name = os.environ.get("MLFLOW_EXPERIMENT_NAME", _PROJECT)
        experiment = client.get_experiment_by_name(name)
        experiment_id = client.create_experiment(name) if experiment is None else experiment.experiment_id
        run_id = str(client.create_run(experiment_id, run_name=run.folder.name).info.run_id)
        _write_id(run.folder, "mlflow", run_id)
        values = [Param(key, str(value)[:_LONGEST_VALUE]) for key, value in run.settings.items()]
        for start in range(0, len(values), 100):
            client.log_batch(run_id, params=values[start : start + 100])
        return run_id

    def log(self, points: Mapping[str, float], step: int) -> None:
        from mlflow.entities import Metric
        from mlflow.exceptions import MlflowException

        now = int(1000 * time.time())
        try:
            self._client.log_batch(self._run_id, [Metric(name, value, now, step) for name, value in points.items()])
        except MlflowException as error:
            self._progress.note(f"MLflow did not take the points of epoch {step} ({first_line(error)})")

    def close(self, is_finished: bool) -> None:
        from mlflow.exceptions import MlflowException

        try:
            self._client.set_terminated(self._run_id, "FINISHED" if is_finished else "KILLED")
        except MlflowException as error:
            self._progress.note(f"MLflow was not told that the run has ended ({first_line(error)})")


def _read_ids(folder: Path) -> dict[str, str]:
    path = folder / IDS_NAME
    if not path.is_file():
        return {}
    try:
        ids = parse_json(read_text(path, SettingsError))
    except ValueError as error:
        raise SettingsError(f"{path}: not JSON ({error}); remove the file to log as a new run") from error
    if not isinstance(ids, dict) or not all(isinstance(value, str) for value in ids.values()):
        raise SettingsError(f"{path}: expected an object with an id for each logger; remove it to log as a new run")
    return ids


def _write_id(folder: Path, name: LoggerName, run_id: str) -> None:
    ids = _read_ids(folder) | {name: run_id}
    write_text(folder / IDS_NAME, json.dumps(ids, indent=2) + "\n")


def _is_utf8(text: str) -> bool:
    return not any("\ud800" <= character <= "\udfff" for character in text)
