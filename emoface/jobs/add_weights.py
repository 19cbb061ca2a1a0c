"""The add job: a weight file of the user's is read, so that it is known to be whole, and copied into the cache."""

from __future__ import annotations

from emoface.storage.records import JobRecord, code_fingerprint, to_settings
from emoface.storage.settings import File, Settings
from emoface.storage.weights import add_weights, check_addable, read_cards


class AddWeightsConfig(Settings):
    """Settings of the job that adds a weight file to the cache."""

    file: File
    """The weight file; of an ncnn pair either of the two."""
    name: str
    """The name under which commands will find the weights."""


def run_add_weights(config: AddWeightsConfig) -> JobRecord:
    """Adds a file of weights; a detector's is loaded first, in its own format, without running code of it.

    A name without a card is a detector's. A backbone's file is held against its card's sha256 alone.

    Returns:
        The job's record; it is not kept, the file in the cache is all there is.

    Raises:
        WeightsError: The file is missing, damaged, unsafe, or of another network than its card says.
    """
    check_addable(config.file, config.name)
    card = read_cards().get(config.name)
    counts: dict[str, object] = {}
    if card is None or card.task == "detector":
        from emoface.yolov5face import load_network

        network = load_network(config.file, None if card is None else card.network)
        counts["network"] = network.name
        counts["parameters"] = sum(parameter.numel() for parameter in network.parameters())
    added = add_weights(config.file, config.name)
    return JobRecord(
        job="add_weights",
        settings=to_settings(config),
        inputs={str(config.file): added.sha256},
        outputs={added.path.name: added.sha256},
        counts={**counts, "file": str(added.path), "sha256": added.sha256},
        code=code_fingerprint(__name__),
    )
