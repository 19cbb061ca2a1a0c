"""The commands for trained models: evaluate, score, export, export-predictions, compare, predict, explain.

crop needs no model, but takes photos as predict does.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from emoface.cli.console import run_job, warn_of_demonstration
from emoface.cli.options import job_command

if TYPE_CHECKING:
    from pathlib import Path

    from emoface.jobs.compare import CompareConfig
    from emoface.jobs.crop import CropConfig
    from emoface.jobs.evaluate import EvaluateConfig
    from emoface.jobs.explain import ExplainConfig
    from emoface.jobs.export import ExportConfig
    from emoface.jobs.export_predictions import ExportPredictionsConfig
    from emoface.jobs.predict import PredictConfig
    from emoface.jobs.score import ScoreConfig
    from emoface.storage.records import JobRecord


@job_command(config="emoface.jobs.evaluate:EvaluateConfig", arguments=("run",))
def evaluate(config: EvaluateConfig) -> None:
    """Evaluates a trained model on a split: RUN/eval/SPLIT/evaluation.html, metrics.json.

    \b
    Example:
      emoface evaluate runs/mter2
      emoface evaluate runs/mter2 --split val --draws 2000
      emoface evaluate runs/mter2 --protocol emotic-test
    """
    from emoface.jobs.evaluate import run_evaluate

    _print_evaluation(run_job(run_evaluate, config), config.protocol, config.out)


@job_command(config="emoface.jobs.score:ScoreConfig", arguments=("file",))
def score(config: ScoreConfig) -> None:
    """Evaluates FILE, predictions of another program, as evaluate does those of a run: OUT/evaluation.html.

    FILE holds a score of each label for each person: columns named by label, or an array with a side of 26. It names
    its people by person_id or index, or their order is given with --people or --order.

    \b
    Example:
      emoface score predictions.csv --manifest work/manifest.json
      emoface score predictions.npz --manifest work/manifest.json --val predictions_val.npz
      emoface score results/test_cat_preds.mat --manifest work/manifest.json --order emotic --name tandon
    """
    from emoface.jobs.score import run_score

    _print_evaluation(run_job(run_score, config), config.protocol, config.folder)


@job_command(config="emoface.jobs.export:ExportConfig", arguments=("run",))
def export(config: ExportConfig) -> None:
    """Exports the trained model of RUN as an ONNX file, or as a folder with a model card.

    'emoface.load' in Python loads both. The ONNX file is only kept if ONNX Runtime computes the logits of torch.

    \b
    Example:
      emoface export runs/mter2 --format onnx --out mter2.onnx
      emoface export runs/mter2 --format folder --out mter2
    """
    from emoface.jobs.export import run_export

    run_job(run_export, config)


@job_command(config="emoface.jobs.export_predictions:ExportPredictionsConfig", arguments=("run",))
def export_predictions(config: ExportPredictionsConfig) -> None:
    """Writes the predictions of an evaluated RUN as one file for other programs.

    RUN is the folder of a run that was evaluated on the split, or of scored predictions. 'emoface score' reads each of
    the forms.

    \b
    Example:
      emoface export-predictions runs/mter2 --out mter2.csv
      emoface export-predictions runs/mter2 --split val --out mter2_val.mat
    """
    from emoface.jobs.export_predictions import run_export_predictions

    run_job(run_export_predictions, config)


@job_command(config="emoface.jobs.compare:CompareConfig", arguments=("runs",))
def compare(config: CompareConfig) -> None:
    """Compares RUNS: training curves, average precision, differences of mAP with intervals.

    A run may also be a folder that 'emoface score' wrote, which has no training curves and no cost.

    \b
    Example:
      emoface compare runs/task2 runs/mter2
      emoface compare runs/kosti runs/mter1 runs/mter2 --out runs/ablation
      emoface compare runs/mter2 scores/tandon
    """
    from emoface.jobs.compare import PAGE_NAME, run_compare

    run_job(run_compare, config)
    click.echo(f"comparison: {config.folder / PAGE_NAME}")


@job_command(config="emoface.jobs.predict:PredictConfig", arguments=("run", "images"), flags={"image_root": "--images"})
def predict(config: PredictConfig) -> None:
    """Finds the people of photos and videos and predicts their apparent emotions: OUT/PHOTO.png, OUT/PHOTO.json.

    IMAGES may be photos, folders of photos, patterns in quotes, and videos. Of several photos OUT/predictions.jsonl has
    a line each; of a video there are OUT/VIDEO.frames.jsonl and OUT/VIDEO.annotated.mp4.

    \b
    Example:
      emoface predict runs/mter2 party.jpg
      emoface predict runs/mter2 holiday 'more/*.jpg' --out results
      emoface predict runs/mter2 party.mp4 --fps 5
      emoface predict runs/mter2 --camera 0 --people detector --person-detector yolox_s.onnx
      emoface predict runs/mter2 party.jpg --boxes 10,20,200,400 --boxes 220,30,400,400
      emoface predict runs/mter2 EMOTIC/emotic/framesdb/images/a.jpg --manifest work/manifest.json
    """
    from emoface.jobs.predict import run_predict

    run_job(run_predict, config)
    click.echo(f"predictions: {config.folder}")


@job_command(config="emoface.jobs.crop:CropConfig", arguments=("images",))
def crop(config: CropConfig) -> None:
    """Crops every face of photos: OUT/faces/PHOTO_0.jpg, OUT/crops.csv, OUT/crops.parquet.

    IMAGES may be photos, folders of photos and patterns in quotes. No trained model is needed. An interrupted command
    goes on with the photos that it has not finished.

    \b
    Example:
      emoface crop photos --out crops
      emoface crop photos --out crops --align
    """
    from emoface.jobs.crop import run_crop

    warn_of_demonstration(config.detector, config.weights)
    run_job(run_crop, config)
    click.echo(f"faces: {config.out}")


@job_command(
    config="emoface.jobs.explain:ExplainConfig",
    arguments=("run", "images"),
    flags={"labels": "--label", "image_root": "--images"},
)
def explain(config: ExplainConfig) -> None:
    """Draws Grad-CAM maps on the photo, for each stream and label.

    \b
    Example:
      emoface explain runs/mter2 --index 120 --index 121
      emoface explain runs/mter2 party.jpg --label Happiness --label Peace
    """
    from emoface.jobs.explain import run_explain

    run_job(run_explain, config)
    click.echo(f"explanations: {config.folder}")


def _print_evaluation(record: JobRecord, protocol: str | None, out: Path) -> None:
    """Prints which protocol was kept, which published results can be compared, and where the page is."""
    from emoface.reporting.evaluation import PAGE_NAME
    from emoface.reporting.published import summarize_published

    if protocol is not None:
        click.echo(f"protocol: {protocol}, every rule is kept")
    click.echo(f"published results: {summarize_published(record.info['published'])}")
    click.echo(f"evaluation: {out / PAGE_NAME}")
