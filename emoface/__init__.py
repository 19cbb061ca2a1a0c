"""emoface: build EMOTIC_Face from raw EMOTIC, audit its label balance, train and evaluate MTER."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from emoface.version import __version__ as __version__

if TYPE_CHECKING:
    from emoface.inference.predictor import Predictor


def load(run: str | Path, device: str = "auto", **faces: Any) -> Predictor:
    """Loads a trained model, to predict the emotions that the people of any photo seem to have.

    Args:
        run: The folder of a run; a folder or an ONNX file that ``emoface export`` wrote, the latter of which needs no
            torch; the file of weights in one of these folders; or ``OWNER/NAME`` on the Hugging Face Hub, from the
            local cache where it is there.
        device: ``auto``, ``cpu`` or ``cuda``.
        faces: Values of ``emoface.inference.faces.FaceSettings``, in place of those of the run's data set.

    Returns:
        An object whose ``predict(image)`` gives one ``PersonPrediction`` per person.

    Raises:
        SettingsError: There is neither a finished run nor an exported model.
        WeightsError: The weights cannot be read.

    Example:
        ``emoface.load("runs/mter2").predict("party.jpg")[0].top(3)``
    """
    from emoface.inference.predictor import load_predictor

    return load_predictor(run, device, **faces)
