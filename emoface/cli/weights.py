"""The commands for weight files: weights list, fetch, add and verify."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from emoface.cli.console import FILE, EmofaceGroup, print_pairs, print_rows, terminal_progress

if TYPE_CHECKING:
    from emoface.jobs.add_weights import WeightsTask


@click.group(cls=EmofaceGroup)
def weights() -> None:
    """Lists, downloads, adds and verifies weights of detectors and backbones.

    Weights of a name are looked for in the folders of EMOFACE_WEIGHTS, in the user's cache (EMOFACE_CACHE sets its
    folder), and in the package.

    \b
    Example:
      emoface weights list
      emoface weights fetch yolov5n-face
    """


@weights.command(name="list")
def list_command() -> None:
    """Lists all known weights with their task, licence, format, state, and location or source.

    \b
    Example:
      emoface weights list
    """
    from emoface.storage.weights import list_weights

    columns = ["name", "task", "licence", "format", "state", "where"]
    print_rows("weights", columns, [[row[column] for column in columns] for row in list_weights()])


@weights.command()
@click.argument("names", nargs=-1, required=True)
def fetch(names: tuple[str, ...]) -> None:
    """Downloads the weights NAMES into the cache; a file is kept only if it has the sha256 of its card.

    \b
    Example:
      emoface weights fetch yolov5n-face
      emoface weights fetch yolov5n-face yolov5n-0.5-face
    """
    from emoface.storage.weights import fetch_weights

    for name in names:
        with terminal_progress() as progress:
            found = fetch_weights(name, progress)
        print_pairs(name, {"file": found.path, "sha256": found.sha256})


@weights.command()
@click.argument("file", type=FILE)
@click.option("--name", help="Name of the weights in the cache; by default the name of the file without its suffix.")
@click.option(
    "--task",
    type=click.Choice(["detector", "pose", "depth", "regions", "people", "backbone"]),
    help="What a file without a card is for; by default the weights of a face detector, which are loaded first.",
)
def add(file: Path, name: str | None, task: WeightsTask | None) -> None:
    """Copies the weight FILE into the cache under a name, so that commands find it by this name.

    The file of a detector is loaded first, without running code of a checkpoint. It is rejected if its network is not
    the one on the card of this name.

    \b
    Example:
      emoface weights add yolov5s-face.pt
      emoface weights add Downloads/best.pt --name my-detector
      emoface weights add rtmw-l-256x192.onnx --name rtmw --task pose
    """
    from emoface.jobs.add_weights import AddWeightsConfig, run_add_weights

    record = run_add_weights(AddWeightsConfig(file=file, name=name or file.stem, task=task))
    print_pairs(record.settings["name"], record.counts)


@weights.command()
@click.argument("names", nargs=-1)
def verify(names: tuple[str, ...]) -> None:
    """Compares the weights on this machine with the sha256 of their cards; exits with 1 if any differs.

    \b
    Example:
      emoface weights verify
      emoface weights verify yolov5n-face
    """
    from emoface.errors import WeightsError
    from emoface.storage.weights import verify_weights

    rows = verify_weights(names)
    columns = ["name", "result", "sha256", "path"]
    print_rows("weights", columns, [[row[column] for column in columns] for row in rows])
    wrong = [row["path"] for row in rows if row["result"] in ("wrong", "half a pair")]
    if wrong:
        raise WeightsError(f"not what their cards say: {', '.join(wrong)}; remove them and fetch them again")
