"""The command that trains: train."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import click

from emoface.cli.console import FILE, FOLDER, command, print_record, terminal_progress
from emoface.progress import SILENT

_RECIPE: tuple[tuple[str, Any, str], ...] = (
    ("epochs", int, "Rounds; warm-up and steps keep their share of them."),
    ("batch_size", int, "People per step, over all processes."),
    ("optimizer", click.Choice(["sgd", "adamw"]), "How weights are changed."),
    ("learning_rate", float, "After the warm-up."),
    ("momentum", float, "Of SGD."),
    ("weight_decay", float, "Of the optimizer."),
    ("warmup_epochs", float, "Rounds over which the rate grows."),
    ("schedule", click.Choice(["steps", "cosine"]), "How the rate falls."),
    ("clip_norm", float, "Largest norm of a gradient; 0 leaves it."),
    ("loss", click.Choice(["bce", "weighted_euclidean", "asymmetric"]), "Over the 26 labels."),
    ("stream_weight", float, "Of each stream's own head in the loss."),
    ("label_weights", click.Choice(["none", "kosti", "root"]), "Rare labels count more."),
    ("ohem_ratio", float, "Hardest absent labels per present one; 0 counts all."),
    ("dropout", float, "Before the last layer of the fusion."),
    ("ema_decay", float, "Of averaged weights; 0 averages nothing."),
    ("mirror_probability", float, "Of mirroring a person."),
    ("distort_probability", float, "Of changing a person's colours."),
    ("vad_weight", float, "Of valence, arousal and dominance in the loss."),
)


def _recipe_options(function: Any) -> Any:
    for name, kind, text in reversed(_RECIPE):
        flag = f"--{name.replace('_', '-')}"
        function = click.option(flag, type=kind, default=None, help=f"{text} Default: the preset's.")(function)
    return function


@command()
@click.option("--manifest", required=True, type=FILE, help="The data set's manifest.json.")
@click.option("--model", required=True, help="task1, task2, task3, task2+task3, mter1, mter2, kosti, caer-net-s...")
@click.option("--out", required=True, type=FOLDER, help="The run's folder; an unfinished run in it goes on.")
@click.option(
    "--preset",
    type=click.Choice(["thesis", "modern"]),
    default="thesis",
    show_default=True,
    help="thesis: section 4.4 to the letter, 120 rounds. modern: fewer rounds.",
)
@_recipe_options
@click.option(
    "--crop-shares", nargs=2, type=float, default=None, help="Smallest and largest crop of face and body, 0-1."
)
@click.option(
    "--context-crop-shares", nargs=2, type=float, default=None, help="Smallest and largest crop of the photo, 0-1."
)
@click.option("--predict-vad", "predicts_vad", is_flag=True, help="A second head: valence, arousal, dominance.")
@click.option("--freeze-norms", "freezes_norms", is_flag=True, help="BatchNorm keeps its statistics.")
@click.option("--seed", default=0, show_default=True, help="The same seed gives the same weights.")
@click.option(
    "--device",
    type=click.Choice(["auto", "cpu", "cuda"]),
    default="auto",
    show_default=True,
    help="Where the network runs.",
)
@click.option(
    "--precision", type=click.Choice(["32", "bf16"]), default="32", show_default=True, help="bf16 is mixed precision."
)
@click.option("--workers", type=int, default=None, help="Threads that read ahead.  [default: cores - 1, at most 8]")
@click.option(
    "--pretrained",
    type=click.Choice(["auto", "imagenet", "places365", "none"]),
    default="auto",
    show_default=True,
    help="auto: ImageNet where its files are on this machine, else none, and says which.",
)
@click.option("--init-face", type=FOLDER, default=None, help="Run of task1 whose face stream this one starts from.")
@click.option(
    "--balance",
    type=click.Choice(["auto", "none"]),
    default="auto",
    show_default=True,
    help="auto: by the manifest's sampling weights where it has some.",
)
@click.option("--cache", type=FOLDER, default=None, help="For decoded photos.  [default: stream_cache beside manifest]")
@click.option("--context-size", default=224, show_default=True, help="Side of the photo's input; 112 is faster.")
@click.option("--person-size", default=128, show_default=True, help="Side of face and body input; 64 is faster.")
@click.option("--shuffle-labels", is_flag=True, help="Deals labels out anew: a check that nothing leaks.")
def train(
    manifest: Path,
    model: str,
    out: Path,
    preset: str,
    seed: int,
    device: str,
    precision: str,
    workers: int | None,
    pretrained: str,
    init_face: Path | None,
    balance: str,
    cache: Path | None,
    context_size: int,
    person_size: int,
    shuffle_labels: bool,
    **told: Any,
) -> None:
    """Trains a model into OUT; resumes where OUT holds an unfinished run.

    Several GPUs: torchrun --nproc-per-node 4 -m emoface train ...

    \b
    Example:
      emoface train --manifest work/manifest.json --model task1 --out runs/task1
      emoface train --manifest work/manifest.json --model mter2 --out runs/mter2 --init-face runs/task1
      emoface train --manifest work/manifest.json --model mter2 --out runs/fast --preset modern --epochs 12
    """
    from emoface.jobs.train import TrainConfig, run_train

    config = TrainConfig(
        manifest=manifest,
        model=model,
        out=out,
        preset=preset,
        recipe={name: value for name, value in told.items() if value is not None and value is not False},
        seed=seed,
        device=device,
        precision=precision,
        workers=workers,
        pretrained=pretrained,
        init_face=init_face,
        balance=balance,
        cache=cache,
        context_size=context_size,
        person_size=person_size,
        shuffle_labels=shuffle_labels,
    )
    if int(os.environ.get("RANK", "0")):
        run_train(config, SILENT)
        return
    with terminal_progress() as progress:
        record = run_train(config, progress)
    print_record(record)
