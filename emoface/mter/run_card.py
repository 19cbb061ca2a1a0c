"""The model card of a run, ``RUN/README.md``, and the results of its evaluations, which exported models have too."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from emoface.datasets.predictions import predictions_path
from emoface.errors import SettingsError
from emoface.mter.exported import CARD_NAME, describe_model
from emoface.mter.runs import Run
from emoface.reporting.evaluation import METRICS_NAME, THRESHOLDS_NAME
from emoface.reporting.model_card import is_model_card, render_model_card, select_results
from emoface.schema import SPLITS
from emoface.storage.files import parse_json, read_text, write_text

_KEPT = ("split", "people", "is_own", "thresholds", "break_even_thresholds")
"""The values of the file of thresholds that a model keeps; it also has the path of the data set."""


def write_run_card(run: Run) -> None:
    """Writes the model card of a training run; a README that somebody wrote stays, and a probe has none.

    Args:
        run: The finished run.

    Raises:
        SettingsError: A file of its evaluations is damaged.
    """
    import torch

    from emoface.learning.initialisation import WithoutRandomParameters

    path = run.path / CARD_NAME
    if run.is_probe or (path.is_file() and not is_model_card(read_text(path, SettingsError))):
        return
    with torch.device("meta"), WithoutRandomParameters():
        model = run.build_model()
    facts = describe_model(run, model) | describe_results(run)
    names = {"weights_name": run.weights_name, "settings_name": run.settings_name}
    write_text(path, render_model_card(facts | names))


def describe_results(run: Run) -> dict[str, Any]:
    """Describes the evaluations of a run and its thresholds, without paths; those of an exported model stay as is."""
    if "evaluations" in run.settings:
        return {name: run.settings[name] for name in ("evaluations", "thresholds") if name in run.settings}
    evaluations = [select_results(one) for one in _read_evaluations(run)]
    path = run.path / "eval" / THRESHOLDS_NAME
    if not evaluations or not path.is_file():
        return {"evaluations": evaluations}
    fitted = _read_object(path)
    return {"evaluations": evaluations, "thresholds": {name: fitted[name] for name in _KEPT if name in fitted}}


def _read_evaluations(run: Run) -> list[dict[str, Any]]:
    """Reads the metrics of each split that was evaluated with these weights."""
    paths = [predictions_path(run.path, split).parent / METRICS_NAME for split in SPLITS]
    found = [_read_object(path) for path in paths if path.is_file()]
    return [metrics for metrics in found if metrics.get("weights_sha256") == run.weights_sha256]


def _read_object(path: Path) -> dict[str, Any]:
    try:
        content = parse_json(read_text(path, SettingsError))
    except ValueError as error:
        raise SettingsError(f"{path}: not JSON ({error}); evaluate the run again with 'emoface evaluate'") from error
    if not isinstance(content, dict):
        raise SettingsError(f"{path}: expected a JSON object; evaluate the run again with 'emoface evaluate'")
    return content
