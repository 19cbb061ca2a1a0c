"""The commands for training: train, features, probe."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from emoface.cli.console import run_job
from emoface.cli.options import job_command
from emoface.progress import SILENT

if TYPE_CHECKING:
    from emoface.jobs.features import FeaturesConfig
    from emoface.jobs.probe import ProbeConfig
    from emoface.jobs.train import TrainConfig


@job_command(
    config="emoface.jobs.train:TrainConfig",
    recipe="emoface.mter.recipe:Recipe",
    hidden=("decays_norms", "decay_epochs"),
    flags={"predicts_vad": "--predict-vad", "freezes_norms": "--freeze-norms"},
)
def train(config: TrainConfig) -> None:
    """Trains a model and writes the run to OUT; resumes an unfinished run in OUT.

    A finished run goes on with --extend-to, as more --epochs would change its schedule.

    On several GPUs: torchrun --nproc-per-node 4 -m emoface train ...

    \b
    Example:
      emoface train --manifest work/manifest.json --model task1 --out runs/task1
      emoface train --manifest work/manifest.json --model mter2 --out runs/mter2 --init-face runs/task1
      emoface train --manifest work/manifest.json --model mter2 --out runs/fast --preset modern --epochs 12 --patience 3
      emoface train --manifest work/manifest.json --model mter2 --out runs/timm --backbone context=timm:resnet50
    """
    from emoface.jobs.train import run_train
    from emoface.learning.launchers import find_processes

    if find_processes().rank:
        run_train(config, SILENT)
        return
    run_job(run_train, config)


@job_command(config="emoface.jobs.features:FeaturesConfig")
def features(config: FeaturesConfig) -> None:
    """Computes the features of a frozen backbone for all people of a data set, for 'emoface probe'.

    They are kept in stream_cache/features-KEY beside the manifest. An interrupted run continues.

    \b
    Example:
      emoface features --manifest work/manifest.json --backbone resnet18 --weights resnet18-f37072fd.pth
      emoface features --manifest work/manifest.json --backbone open_clip:ViT-B-32 --weights clip.safetensors
      emoface features --manifest work/manifest.json --backbone timm:vit_small_patch14_dinov2 --weights library
    """
    from emoface.jobs.features import run_features

    record = run_job(run_features, config)
    click.echo(f"features: {record.info['folder']}")


@job_command(config="emoface.jobs.probe:ProbeConfig")
def probe(config: ProbeConfig) -> None:
    """Fits a linear head on frozen features and writes the run to OUT, which evaluate and compare read.

    The strength of the regularisation is chosen on val by mAP.

    \b
    Example:
      emoface probe --manifest work/manifest.json --features work/stream_cache/features-KEY --out runs/probe
      emoface probe --manifest work/manifest.json --backbone resnet18 --weights resnet18.pth --out runs/probe
    """
    from emoface.jobs.probe import run_probe

    run_job(run_probe, config)
