"""emoface: build EMOTIC_Face from raw EMOTIC, audit its label balance, train and evaluate MTER."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from emoface.version import __version__ as __version__

if TYPE_CHECKING:
    from emoface.inference.predictor import Predictor


def load(
    run: str | Path,
    device: str = "auto",
    *,
    pose_weights: str | Path | None = None,
    depth_weights: str | Path | None = None,
    region_weights: str | Path | None = None,
    **faces: Any,
) -> Predictor:
    """Loads a trained model, to predict the emotions that the people of any photo seem to have.

    Args:
        run: The folder of a run; a folder or an ONNX file that ``emoface export`` wrote, the latter of which needs no
            torch; the file of weights in one of these folders; or ``OWNER/NAME`` on the Hugging Face Hub, from the
            local cache where it is there.
        device: ``auto``, ``cpu`` or ``cuda``.
        pose_weights: File of the model that finds body points, for a run of ``emoticon`` that was trained with one;
            None looks its name up.
        depth_weights: The same of the model that finds depth.
        region_weights: The same of the model that finds regions, for ``affective-graph``.
        faces: Values of ``emoface.inference.faces.FaceSettings``, in place of those of the run's data set.

    Returns:
        An object whose ``predict(image)`` gives one ``PersonPrediction`` per person.

    Raises:
        SettingsError: There is neither a finished run nor an exported model; or the model reads more than photos, and
            other photos than those of its data set do not have it.
        WeightsError: The weights cannot be read, or a model that provides what it reads is not on this machine.

    Example:
        ``emoface.load("runs/mter2").predict("party.jpg")[0].top(3)``
    """
    from emoface.inference.array_providers import ModelFiles
    from emoface.inference.predictor import load_predictor

    given = (pose_weights, depth_weights, region_weights)
    files = ModelFiles(*(None if one is None else Path(one) for one in given))
    return load_predictor(run, device, files=files, **faces)
