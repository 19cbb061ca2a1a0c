"""The add_weights job: checks a weight file of the user by loading it, and copies it into the cache."""

from __future__ import annotations

from typing import Literal

from emoface.storage.records import JobRecord, code_fingerprint, to_settings
from emoface.storage.settings import File, Settings
from emoface.storage.weights import add_weights, check_addable, read_cards

WeightsTask = Literal["detector", "pose", "depth", "regions", "people", "backbone"]


class AddWeightsConfig(Settings):
    """Settings of the job that adds a weight file to the cache."""

    file: File
    """Weight file to add; for an ncnn pair, either of the two files."""
    name: str
    """Name under which commands find the weights."""
    task: WeightsTask | None = None
    """What a file without a card is for; None is a face detector, whose weights are loaded first."""


def run_add_weights(config: AddWeightsConfig) -> JobRecord:
    """Adds a weight file to the cache.

    The weights of a detector are loaded first, which checks them; no code of the file is run. A name without a card is
    taken to be that of a detector, unless the settings name another task. Other files are only checked against the
    sha256 of their card.

    Args:
        config: Settings of the job.

    Returns:
        The job's record; it is not written to disk, the file in the cache is the only output.

    Raises:
        WeightsError: The file is missing, damaged or unsafe, or belongs to another network than its card states.
    """
    check_addable(config.file, config.name)
    card = read_cards().get(config.name)
    counts: dict[str, object] = {}
    task = config.task or ("detector" if card is None else card.task)
    if task == "detector":
        from emoface.yolov5face import read_weights

        network = read_weights(config.file, None if card is None else card.network)
        counts["network"] = network.name
        counts["parameters"] = network.n_parameters
    added = add_weights(config.file, config.name)
    return JobRecord(
        job="add_weights",
        settings=to_settings(config),
        inputs={str(config.file): added.sha256},
        outputs={added.path.name: added.sha256},
        counts={**counts, "file": str(added.path), "sha256": added.sha256},
        code=code_fingerprint(__name__),
    )
