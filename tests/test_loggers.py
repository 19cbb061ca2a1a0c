"""Loggers of curves: what each receives, a resumed run, errors; the services themselves where installed."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from click.testing import CliRunner
from mter_data import write_photos_and_tables

from emoface.cli import main
from emoface.errors import SettingsError, describe_missing_package
from emoface.jobs.train import TrainConfig, run_train
from emoface.learning.loggers import LoggedRun, LoggerName, open_loggers
from emoface.mter.epoch_log import to_points
from emoface.mter.runs import read_run
from emoface.progress import Silent

LINE = {
    "epoch": 2,
    "learning_rate": 0.001,
    "train_loss": 3.0,
    "train_losses": {"labels": 3.0},
    "val_loss": 4.0,
    "val_losses": {"labels": 4.0},
    "val_map": 0.25,
    "val_chance": 0.125,
    "val_average_precision": {"Doubt/Confusion": 0.5, "Fear": None},
    "val_average_absolute_error": {"valence": 1.5, "dominance": None},
    "images_per_second": 9.0,
}
POINTS = {
    "loss/train": 3.0,
    "loss_terms_train/labels": 3.0,
    "loss/val": 4.0,
    "loss_terms_val/labels": 4.0,
    "val/mean_average_precision": 0.25,
    "val/chance_level": 0.125,
    "val_average_precision/Doubt_Confusion": 0.5,
    "val_average_absolute_error/valence": 1.5,
    "learning_rate": 0.001,
    "images_per_second": 9.0,
}


def test_undefined_values_have_no_point() -> None:
    assert to_points(LINE) == POINTS
    without = {**LINE, "val_map": None, "val_chance": None}
    assert POINTS.keys() - to_points(without).keys() == {"val/mean_average_precision", "val/chance_level"}


class _StandIns:
    """Modules in place of wandb and mlflow, which write down the calls."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.calls: list[tuple[str, Any]] = []
        self.refusal: Exception | None = None
        self._install(patch, "wandb", init=self._init, errors=SimpleNamespace(Error=ConnectionError))
        self._install(patch, "mlflow", MlflowClient=lambda: self)
        self._install(patch, "mlflow.exceptions", MlflowException=ConnectionError)
        self._install(patch, "mlflow.entities", Metric=lambda *values: values, Param=lambda *values: values)

    @staticmethod
    def _install(patch: pytest.MonkeyPatch, name: str, **content: Any) -> None:
        module = ModuleType(name)
        module.__dict__.update(content)
        patch.setitem(sys.modules, name, module)

    def _note(self, name: str, content: Any) -> None:
        if self.refusal is not None:
            raise self.refusal
        self.calls.append((name, content))

    def _init(self, **settings: Any) -> Any:
        self._note("init", settings)
        return SimpleNamespace(
            log=lambda points, step: self._note("log", (points, step)),
            finish=lambda exit_code: self._note("finish", exit_code),
        )

    def get_experiment_by_name(self, name: str) -> None:
        self._note("experiment", name)

    def create_experiment(self, name: str) -> str:
        return f"id of {name}"

    def create_run(self, experiment_id: str, run_name: str) -> Any:
        self._note("create", (experiment_id, run_name))
        return SimpleNamespace(info=SimpleNamespace(run_id="r1"))

    def update_run(self, run_id: str, status: str) -> None:
        self._note("update", (run_id, status))

    def log_batch(self, run_id: str, metrics: Any = (), params: Any = ()) -> None:
        self._note("batch", (run_id, [(name, value, step) for name, value, _, step in metrics], list(params)))

    def set_terminated(self, run_id: str, status: str) -> None:
        self._note("end", (run_id, status))

    def take(self, name: str) -> list[Any]:
        found = [content for called, content in self.calls if called == name]
        self.calls = [one for one in self.calls if one[0] != name]
        return found


@pytest.fixture
def stand_ins(monkeypatch: pytest.MonkeyPatch) -> _StandIns:
    for name in ("WANDB_PROJECT", "WANDB_NAME", "MLFLOW_EXPERIMENT_NAME"):
        monkeypatch.delenv(name, raising=False)
    return _StandIns(monkeypatch)


class _Listening(Silent):
    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)


def _log(name: LoggerName, run: LoggedRun, progress: Silent) -> None:
    with open_loggers([name], run, progress) as (logger,):
        logger.log({"loss/train": 3.0}, run.first_step)


def test_wandb_gets_settings_and_points_and_a_resumed_run_goes_on_there(stand_ins: _StandIns, tmp_path: Path) -> None:
    run = LoggedRun(tmp_path, {"recipe.epochs": 3})
    _log("wandb", run, _Listening())
    (opened,) = stand_ins.take("init")
    assert opened["config"] == {"recipe.epochs": 3} and opened["resume"] == "allow" and opened["dir"] == str(tmp_path)
    assert (opened["project"], opened["name"]) == ("emoface", tmp_path.name)
    assert stand_ins.take("log") == [({"loss/train": 3.0}, 1)] and stand_ins.take("finish") == [0]
    assert json.loads((tmp_path / "loggers.json").read_text()) == {"wandb": opened["id"]}
    with pytest.raises(KeyboardInterrupt), open_loggers(["wandb"], run):
        raise KeyboardInterrupt
    assert stand_ins.take("init")[0]["id"] == opened["id"] and stand_ins.take("finish") == [1]


def test_mlflow_gets_settings_and_points_and_a_resumed_run_goes_on_there(stand_ins: _StandIns, tmp_path: Path) -> None:
    settings = {f"setting{number}": number for number in range(150)} | {"long": "x" * 900}
    _log("mlflow", LoggedRun(tmp_path, settings), _Listening())
    assert stand_ins.take("create") == [("id of emoface", tmp_path.name)]
    first, second, points = stand_ins.take("batch")
    assert [*first[2], *second[2]] == [(name, str(value)[:500]) for name, value in settings.items()]
    assert len(first[2]) == 100 and points == ("r1", [("loss/train", 3.0, 1)], [])
    assert stand_ins.take("end") == [("r1", "FINISHED")]
    _log("mlflow", LoggedRun(tmp_path, settings, first_step=2), _Listening())
    assert not stand_ins.take("create") and stand_ins.take("update") == [("r1", "RUNNING")]
    assert stand_ins.take("batch") == [("r1", [("loss/train", 3.0, 2)], [])]


def test_server_that_is_gone_stops_no_training_that_has_begun(stand_ins: _StandIns, tmp_path: Path) -> None:
    progress = _Listening()
    with open_loggers(["mlflow"], LoggedRun(tmp_path, {}), progress) as (logger,):
        stand_ins.refusal = ConnectionError("connection refused\nat ...")
        logger.log({"loss/train": 3.0}, 4)
    assert progress.notes == [
        "MLflow did not take the points of epoch 4 (connection refused)",
        "MLflow was not told that the run has ended (connection refused)",
    ]
    stand_ins.refusal = ConnectionError("no API key")
    with pytest.raises(
        SettingsError, match=r"Weights & Biases does not start \(no API key\); log in with 'wandb login'"
    ):
        _log("wandb", LoggedRun(tmp_path, {}), progress)
    with pytest.raises(SettingsError, match=r"MLflow does not start \(no API key\); set MLFLOW_TRACKING_URI"):
        _log("mlflow", LoggedRun(tmp_path, {}), progress)


@pytest.mark.parametrize("content", ["[1]", '{"wandb": 3}', "{"])
def test_damaged_ids_are_named(stand_ins: _StandIns, tmp_path: Path, content: str) -> None:
    (tmp_path / "loggers.json").write_text(content)
    with pytest.raises(SettingsError, match=r"loggers\.json: .*remove"):
        _log("wandb", LoggedRun(tmp_path, {}), _Listening())


@pytest.mark.parametrize("name", ["wandb", "mlflow"])
def test_missing_package_is_one_line_before_anything_is_written(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, name, None)
    words = ["train", "--manifest", "none.json", "--model", "task2", "--out", str(tmp_path / "run"), "--logger", name]
    answer = CliRunner().invoke(main, words)
    assert answer.exit_code == 1
    assert answer.stderr.splitlines()[-1] == (
        f"Error: this needs the package {name}, which is not installed; install it with pip install 'emoface[{name}]'"
    )
    assert list((tmp_path / "run").glob("[!.]*")) == []
    assert describe_missing_package(ModuleNotFoundError(name=name)) is not None


def _train(tmp_path: Path, names: tuple[str, ...]) -> Path:
    """Trains two epochs, the second of them as an extension; returns the run."""
    torch.set_num_threads(1)
    manifest = write_photos_and_tables(tmp_path, 12)
    settings: dict[str, Any] = {"recipe": {"epochs": 1, "batch_size": 8}, "pretrained": "none", "workers": 0}
    sizes = {"person_size": 32, "context_size": 32}
    out = tmp_path / "run"
    config = TrainConfig(manifest=manifest, model="task2", out=out, logger=names, device="cpu", **settings, **sizes)
    run_train(config)
    run_train(config.replace(extend_to=2))
    return out


def test_run_logs_its_epochs_and_no_path_of_the_machine(stand_ins: _StandIns, tmp_path: Path) -> None:
    out = _train(tmp_path, ("wandb", "mlflow"))
    lines = read_run(out).log()
    assert stand_ins.take("log") == [(to_points(line), line["epoch"]) for line in lines] and len(lines) == 2
    points = [batch[1] for batch in stand_ins.take("batch") if batch[1]]
    assert points == [[(*one, line["epoch"]) for one in to_points(line).items()] for line in lines]
    shown = [one["config"] for one in stand_ins.take("init")]
    assert shown[0]["recipe.batch_size"] == 8 and str(tmp_path) not in json.dumps(shown)
    assert not (out / "tensorboard").exists()


def test_wandb_itself_keeps_the_curves_offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("wandb", reason="the package wandb is not installed: emoface[wandb]")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    out = _train(tmp_path, ("wandb",))
    run_id = json.loads((out / "loggers.json").read_text())["wandb"]
    files = sorted((out / "wandb").glob(f"offline-run-*-{run_id}/run-{run_id}.wandb"))
    assert files and any(b"loss/train" in path.read_bytes() for path in files)


def test_mlflow_itself_keeps_the_curves_of_one_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mlflow = pytest.importorskip("mlflow", reason="the package mlflow is not installed: emoface[mlflow]")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", (tmp_path / "mlruns").as_uri())
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    out = _train(tmp_path, ("mlflow",))
    client = mlflow.MlflowClient()
    experiment = client.get_experiment_by_name("emoface")
    (run,) = client.search_runs([experiment.experiment_id])
    history = client.get_metric_history(run.info.run_id, "loss/val")
    expected = [(line["epoch"], pytest.approx(line["val_loss"])) for line in read_run(out).log()]
    assert [(one.step, one.value) for one in history] == expected
    assert run.info.status == "FINISHED" and run.data.params["recipe.batch_size"] == "8"
