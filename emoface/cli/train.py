"""The command for training: train."""

from __future__ import annotations

from typing import TYPE_CHECKING

from emoface.cli.console import run_job
from emoface.cli.options import job_command
from emoface.progress import SILENT

if TYPE_CHECKING:
    from emoface.jobs.train import TrainConfig


@job_command(
    config="emoface.jobs.train:TrainConfig",
    recipe="emoface.mter.recipe:Recipe",
    hidden=("decays_norms", "decay_epochs"),
    flags={"predicts_vad": "--predict-vad", "freezes_norms": "--freeze-norms"},
)
def train(config: TrainConfig) -> None:
    """Trains a model and writes the run to OUT; resumes an unfinished run in OUT.

    On several GPUs: torchrun --nproc-per-node 4 -m emoface train ...

    \b
    Example:
      emoface train --manifest work/manifest.json --model task1 --out runs/task1
      emoface train --manifest work/manifest.json --model mter2 --out runs/mter2 --init-face runs/task1
      emoface train --manifest work/manifest.json --model mter2 --out runs/fast --preset modern --epochs 12
    """
    from emoface.jobs.train import run_train
    from emoface.learning.launchers import find_processes

    if find_processes().rank:
        run_train(config, SILENT)
        return
    run_job(run_train, config)
