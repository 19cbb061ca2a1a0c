"""emoface: build EMOTIC_Face from raw EMOTIC, audit its label balance, train and evaluate MTER."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from emoface.version import __version__ as __version__

if TYPE_CHECKING:
    from emoface.inference.predictor import Predictor


def load(run: str | Path, device: str = "auto", **faces: Any) -> Predictor:
    """Loads a trained run, to predict what the people of any photo feel.

    Args:
        run: The run's folder.
        device: ``auto``, ``cpu`` or ``cuda``.
        faces: Values of ``emoface.inference.faces.FaceSettings``, in place of those of the run's data set.

    Returns:
        An object whose ``predict(image)`` gives one ``PersonPrediction`` per person.

    Raises:
        SettingsError: The folder holds no finished run.
        WeightsError: Its weights cannot be read.

    Example:
        ``emoface.load("runs/mter2").predict("party.jpg")[0].top(3)``
    """
    from emoface.inference.predictor import load_predictor

    return load_predictor(run, device, **faces)
