"""Training the detector for one epoch, restoring BatchNorms of folded weights, and evaluating the detector."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn

from emoface.datasets.face_labels import LabelledPhoto
from emoface.errors import EmofaceError
from emoface.learning.ema import AveragedWeights
from emoface.learning.optimizers import set_learning_rate
from emoface.metrics.detection import DetectionMetrics, measure_detections
from emoface.progress import Progress
from emoface.yolov5face.batches import PhotoBatch
from emoface.yolov5face.detector import Detector
from emoface.yolov5face.losses import LossWeights, detection_losses
from emoface.yolov5face.network import YoloV5Face


class NonFiniteLossError(EmofaceError):
    """A loss is infinite or not a number; training stops before the weights are updated with it."""


def has_folded_norms(network: nn.Module) -> bool:
    """Tells whether all BatchNorms only add a bias, as in weights read from ncnn, ONNX or other folded files."""
    norms = [one for one in network.modules() if isinstance(one, nn.BatchNorm2d)]
    return all(not one.running_mean.any() and bool((one.weight == 1).all()) for one in norms)  # type: ignore[union-attr]


@torch.no_grad()
def restore_norms(network: nn.Module, images: Iterable[Tensor]) -> None:
    """Sets the statistics of BatchNorms to those of their inputs, without a change of the network's output.

    In training mode, a BatchNorm that had been folded would start to normalise its input; this changes the outputs, and
    the network would lose what it had learned. Scale and shift are therefore set to undo the normalisation, so that
    training mode and evaluation mode give the same outputs.

    Args:
        network: Network in evaluation mode; changed in place.
        images: Batches (b, 3, h, w), RGB, 0-1, on the network's device.
    """
    norms = [one for one in network.modules() if isinstance(one, nn.BatchNorm2d)]
    sums = [torch.zeros(3, one.num_features, dtype=torch.float64, device=one.weight.device) for one in norms]

    def add(place: int, inputs: tuple[Tensor, ...]) -> None:
        values = inputs[0].double()
        count = torch.full_like(sums[place][0], values.numel() / values.shape[1])
        sums[place] += torch.stack((count, values.sum(dim=(0, 2, 3)), values.square().sum(dim=(0, 2, 3))))

    hooks = [
        norm.register_forward_pre_hook(lambda _, inputs, place=place: add(place, inputs))
        for place, norm in enumerate(norms)
    ]
    try:
        for batch in images:
            network(batch)
    finally:
        for hook in hooks:
            hook.remove()
    for norm, (count, total, squares) in zip(norms, sums, strict=True):
        assert norm.running_mean is not None and norm.running_var is not None
        mean = total / count
        var = (squares / count - mean.square()).clamp(min=norm.eps)
        scale = norm.weight / (norm.running_var + norm.eps).sqrt()
        norm.bias.add_(scale * (mean - norm.running_mean))
        norm.weight.copy_(scale * (var + norm.eps).sqrt())
        norm.running_mean.copy_(mean)
        norm.running_var.copy_(var)


def train_one_epoch(
    network: YoloV5Face,
    averaged: AveragedWeights[YoloV5Face],
    optimizer: torch.optim.Optimizer,
    batches: Iterable[PhotoBatch],
    weights: LossWeights,
    learning_rates: Iterable[float],
    progress: Progress,
) -> dict[str, float]:
    """Trains a network on every batch of one epoch.

    Args:
        network: Network to train, in any mode; it is in training mode afterwards.
        averaged: Averaged weights, updated after each step.
        optimizer: Optimizer of the network's parameters.
        batches: Batches of the epoch.
        weights: Weights of the loss terms.
        learning_rates: Learning rate of each step.
        progress: Receives one step per photo.

    Returns:
        Mean over the steps of each weighted loss term, and of their sum as ``loss``.

    Raises:
        NonFiniteLossError: A loss is infinite or not a number.
    """
    network.train()
    device = next(network.parameters()).device
    totals: defaultdict[str, float] = defaultdict(float)
    n_steps = 0
    for step, (batch, rate) in enumerate(zip(batches, learning_rates, strict=False)):
        set_learning_rate(optimizer, rate)
        with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):  # bfloat16 needs no scaler
            heads = network.heads(batch.images.to(device, memory_format=torch.channels_last))
        terms = detection_losses(network, heads, batch.to_targets(device), weights)
        loss = torch.stack(list(terms.values())).sum()
        if not torch.isfinite(loss):
            terms_text = ", ".join(f"{name} {value.item():.4g}" for name, value in terms.items())
            raise NonFiniteLossError(
                f"the loss is {loss.item()} at step {step} of this epoch ({terms_text}, learning rate {rate:.3g}); "
                "lower the learning rate and start again from the last checkpoint"
            )
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(network.parameters(), 10.0)
        optimizer.step()
        averaged.update(network)
        for name, value in {**terms, "loss": loss}.items():
            totals[name] += value.item()
        n_steps += 1
        progress.advance(len(batch.images))
    return {name: value / max(n_steps, 1) for name, value in totals.items()}


def evaluate_detector(detector: Detector, photos: Sequence[LabelledPhoto], progress: Progress) -> DetectionMetrics:
    """Computes the detection metrics of a detector on labelled photos, one photo at a time.

    Args:
        detector: Detector to evaluate; with a high ``conf_threshold`` the precision-recall curve would end early.
        photos: Photos with their true faces.
        progress: Receives one step per photo.
    """
    found = []
    for photo in photos:
        found += detector.detect([photo.read()])
        progress.advance()
    return measure_detections(found, [photo.faces for photo in photos])
