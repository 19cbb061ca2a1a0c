"""Measures whether correlations between labels, or mirrored photos, help a small head on frozen features.

    python docs/benchmarks/label_structure.py --manifest MANIFEST --weights FILE [--backbone mobilenet_v2] [--cache DIR]

Computes the features of all squares, and of the mirror images of test in a folder of their own beside the others, where
they are not stored yet. Two heads are trained on them, a linear one and a perceptron, plainly (binary cross-entropy)
and in each of these ways:

- ``asymmetric``: the asymmetric loss (Ben-Baruch, Ridnik et al. 2021)
- ``smoothed``: targets moved towards P(label | the person's labels) of train
- ``asymmetric + smoothed``: both
- ``graph``: the weights of the last layer come from two graph convolutions over the labels (ML-GCN, Chen et al. 2019),
  with one-hot vectors of the labels in place of word vectors
- ``refined``: the plain head, to whose logits those of labels that occur together are added after training
- ``mirror, probabilities`` and ``mirror, features``: the plain head on photos and mirror images, averaged

Learning rate, weight decay, epoch and the settings of each way are those with the best mAP on val; only then is each
way measured once on test, against the plain head. The probabilities are averages over several seeds. As many ways are
compared, the last column has intervals with Bonferroni's correction, and only these decide. Prints Markdown.
"""

from __future__ import annotations

import argparse
import copy
import itertools
import json
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.decomposition import PCA
from torch import Tensor, nn
from torch.nn import functional

from emoface.datasets.manifest import Manifest, read_manifest
from emoface.datasets.stream_cache import UsablePeople, default_cache_dir
from emoface.metrics.evaluation import INTERVAL_LEVEL, Bootstrap, PrecisionDifference
from emoface.metrics.multilabel import average_precision, basic_interval, mean_average_precision, mean_over_labels
from emoface.mter.backbones import FrozenBackbone, load_backbone
from emoface.mter.features import FeatureFolder, complete_features, find_feature_folder
from emoface.mter.losses import asymmetric_terms
from emoface.mter.names import STREAMS
from emoface.mter.probe import FeatureScaler
from emoface.schema import SPLITS
from emoface.vision.arrays import Float32Array
from emoface.vision.crops import Photo

N_COMPONENTS = 256
"""Principal components of the standardised features that the heads get."""
HEADS = {"linear": 0, "perceptron": 64}
"""Heads by name, and the width of their hidden layer; 0 for none."""
HIDDEN_DROPOUT = 0.5
BATCH_SIZE = 256
GRAPH_WIDTH = 64
PRIOR_PEOPLE = 10.0
"""P(label j | label i) is estimated as if this many more people had label i, with label j as often as all people."""

LEARNING_RATES = (3e-4, 1e-3)
WEIGHT_DECAYS = (0.1, 10.0)
FOCUSES = ((0.0, 2.0, 0.0), (0.0, 4.0, 0.05), (1.0, 4.0, 0.05))
"""Settings of the asymmetric loss: ``gamma_pos``, ``gamma_neg`` and ``clip``."""
SMOOTHINGS = (0.2, 0.1, 0.4)
GRAPHS = ((0.1, 0.2), (0.3, 0.2), (0.3, 0.5))
"""Settings of the graph: smallest P(label j | label i) of an edge, and the share of a label's neighbours in its sum."""
REFINEMENTS = (0.0, 0.1, 0.25, 0.5, 1.0, 2.0)
"""Factors of what is added to the logits; with 0 they stay as they are."""


@dataclass(frozen=True)
class Part:
    """The people of one split.

    Attributes:
        columns: (n, d) principal components of their features.
        labels: (n, 26) float32, 0 or 1.
        photo: (n,) number of each person's photo.
    """

    columns: Tensor
    labels: Tensor
    photo: NDArray[np.int64]

    @property
    def indicator(self) -> NDArray[np.uint8]:
        """(n, 26) labels, 0 or 1."""
        return self.labels.numpy().astype(np.uint8)


@dataclass(frozen=True)
class Way:
    """How a head is trained.

    Attributes:
        learning_rate: Learning rate of AdamW.
        weight_decay: Its weight decay.
        focus: ``gamma_pos``, ``gamma_neg`` and ``clip`` of the asymmetric loss; None for binary cross-entropy.
        smoothing: How far the targets are moved, 0-1.
        graph: Smallest P(label j | label i) of an edge, and the share of the neighbours; None without a graph.
    """

    learning_rate: float = LEARNING_RATES[0]
    weight_decay: float = WEIGHT_DECAYS[0]
    focus: tuple[float, float, float] | None = None
    smoothing: float = 0.0
    graph: tuple[float, float] | None = None


PLAIN = "plain"
TRAINED: dict[str, tuple[Way, ...]] = {
    PLAIN: (Way(),),
    "asymmetric": tuple(Way(focus=focus) for focus in FOCUSES),
    "smoothed": tuple(Way(smoothing=weight) for weight in SMOOTHINGS),
    "asymmetric + smoothed": tuple(
        Way(focus=focus, smoothing=weight) for focus in FOCUSES[:2] for weight in SMOOTHINGS[:2]
    ),
    "graph": tuple(Way(graph=graph) for graph in GRAPHS),
}
"""By name, the settings that are tried; each learning rate and weight decay is tried with the first."""


@dataclass(frozen=True)
class Chosen:
    """The heads of all seeds with the settings and the epoch that are best on val.

    Attributes:
        way: The settings.
        epoch: The number of epochs.
        val_map: mAP on val of the probabilities averaged over the seeds, 0-1.
        heads: The heads.
    """

    way: Way
    epoch: int
    val_map: float
    heads: Heads


class MirrorEncoder:
    """A backbone that sees each square mirrored, left to right."""

    def __init__(self, backbone: FrozenBackbone) -> None:
        self._backbone = backbone

    def compute(self, photos: list[Photo]) -> Float32Array:
        """Computes the features of the mirror images of b squares, (b, n_features)."""
        return self._backbone.compute([np.ascontiguousarray(photo[:, ::-1]) for photo in photos])


class Heads(nn.Module):
    """Heads of several seeds, trained at once; they have no parameter in common. The last layer starts from 0.

    Args:
        n_columns: Width of the input.
        hidden: Width of the hidden layer; 0 for a linear head.
        biases: (26,) initial biases of the last layer.
        graph: (26, 26) weights of the labels j in the sum of label i, by row; None without graph convolutions.
        n_seeds: Number of seeds.
    """

    def __init__(self, n_columns: int, hidden: int, biases: Tensor, graph: Tensor | None, n_seeds: int) -> None:
        super().__init__()
        n_labels, width = len(biases), hidden or n_columns
        self.first = nn.Parameter(_draw(n_seeds, n_columns, hidden)) if hidden else None
        self.first_biases = nn.Parameter(torch.zeros(n_seeds, 1, hidden))
        self.biases = nn.Parameter(biases.repeat(n_seeds, 1, 1))
        self.embeddings = None if graph is None else nn.Parameter(_draw(n_seeds, n_labels, GRAPH_WIDTH))
        shape = (width, n_labels) if graph is None else (GRAPH_WIDTH, width)
        self.last = nn.Parameter(torch.zeros(n_seeds, *shape))
        self.graph = graph

    def forward(self, x: Tensor) -> Tensor:
        """Computes the logits, (n_seeds, b, 26), from (n_seeds, b, n_columns), or (b, n_columns) for all seeds."""
        if self.first is not None:
            x = functional.dropout((x @ self.first + self.first_biases).relu(), HIDDEN_DROPOUT, self.training)
        if self.graph is None or self.embeddings is None:
            return x @ self.last + self.biases
        labels = functional.leaky_relu(
            self.graph @ self.embeddings, 0.2
        )  # of one-hot vectors the product is the weight
        return x @ (self.graph @ labels @ self.last).transpose(1, 2) + self.biases

    def seed_probabilities(self, x: Tensor) -> Tensor:
        """Computes the probabilities of each seed's head, (n_seeds, n, 26)."""
        self.eval()
        with torch.inference_mode():
            return torch.sigmoid(self(x))

    def probabilities(self, x: Tensor) -> NDArray[np.float32]:
        """Computes the probabilities averaged over the seeds, (n, 26)."""
        return self.seed_probabilities(x).mean(dim=0).numpy()


def _draw(n_seeds: int, n_rows: int, n_columns: int) -> Tensor:
    return (2 * torch.rand(n_seeds, n_rows, n_columns) - 1) / math.sqrt(n_rows)


def conditional_shares(labels: Tensor) -> Tensor:
    """Estimates P(label j | label i) from the labels of n people, (26, 26) by row i, 1 on the diagonal."""
    counts, shares = labels.T @ labels, labels.mean(dim=0)
    estimated = (counts + PRIOR_PEOPLE * shares) / (counts.diagonal()[:, None] + PRIOR_PEOPLE)
    return estimated.fill_diagonal_(1)


def build_graph(shares: Tensor, smallest: float, neighbours: float) -> Tensor:
    """Builds the weights of the labels in a graph convolution, (26, 26), whose rows sum up to 1.

    Args:
        shares: (26, 26) P(label j | label i).
        smallest: Two labels are joined from this P on.
        neighbours: Share of the joined labels in the sum; the rest is the label itself.
    """
    edges = (shares >= smallest).float().fill_diagonal_(0)
    joined = edges / edges.sum(dim=1, keepdim=True).clamp(min=1)
    own = torch.where(edges.any(dim=1), 1 - neighbours, 1.0)
    return neighbours * joined + torch.diag(own)


def smooth_targets(labels: Tensor, shares: Tensor, weight: float) -> Tensor:
    """Moves targets towards the mean of P(label | one label of the person), (n, 26)."""
    expected = labels @ shares / labels.sum(dim=1, keepdim=True).clamp(min=1)
    return (1 - weight) * labels + weight * expected


def loss_terms(logits: Tensor, targets: Tensor, focus: tuple[float, float, float] | None) -> Tensor:
    """Computes the loss of each label for targets of 0-1; with a focus it is the asymmetric loss."""
    if focus is None:
        return functional.binary_cross_entropy_with_logits(logits, targets, reduction="none")
    settings = dict(zip(("gamma_pos", "gamma_neg", "clip"), focus, strict=True))
    present, absent = (asymmetric_terms(logits, torch.full_like(targets, value), **settings) for value in (1.0, 0.0))
    return targets * present + (1 - targets) * absent


def measure_map(labels: NDArray[np.uint8], probabilities: NDArray[np.float32]) -> float:
    """Computes the mean average precision, 0-1."""
    return mean_average_precision(average_precision(labels, probabilities))


def train_heads(way: Way, hidden: int, train: Part, val: Part, n_seeds: int, epochs: int) -> Chosen:
    """Trains the heads of all seeds and keeps the epoch with the best mAP on val."""
    torch.manual_seed(0)
    shares = conditional_shares(train.labels)
    prevalence = train.labels.mean(dim=0).clamp(1e-3, 1 - 1e-3)
    graph = None if way.graph is None else build_graph(shares, *way.graph)
    heads = Heads(train.columns.shape[1], hidden, prevalence.logit(), graph, n_seeds)
    biases = [heads.first_biases, heads.biases]
    weights = [one for one in heads.parameters() if all(one is not bias for bias in biases)]
    groups = [{"params": weights, "weight_decay": way.weight_decay}, {"params": biases, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, way.learning_rate, fused=True)
    targets = smooth_targets(train.labels, shares, way.smoothing)
    best: Chosen | None = None
    for epoch in range(1, epochs + 1):
        heads.train()
        order = torch.stack([torch.randperm(len(targets)) for _ in range(n_seeds)])
        for batch in order.split(BATCH_SIZE, dim=1):
            terms = loss_terms(heads(train.columns[batch]), targets[batch], way.focus)  # (n_seeds, b, 26)
            loss = terms.sum(dim=2).mean(dim=1).sum()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        val_map = measure_map(val.indicator, heads.probabilities(val.columns))
        if best is None or val_map > best.val_map:
            best = Chosen(way, epoch, val_map, copy.deepcopy(heads))
    assert best is not None
    return best


def choose_heads(ways: Sequence[Way], hidden: int, train: Part, val: Part, n_seeds: int, epochs: int) -> Chosen:
    """Tries learning rates and weight decays with the first settings; with the best of these, the other settings."""

    def train_with(way: Way, rate: float, decay: float) -> Chosen:
        tried = replace(way, learning_rate=rate, weight_decay=decay)
        return train_heads(tried, hidden, train, val, n_seeds, epochs)

    pairs = itertools.product(LEARNING_RATES, WEIGHT_DECAYS)
    first = max((train_with(ways[0], *pair) for pair in pairs), key=lambda one: one.val_map)
    others = [train_with(way, first.way.learning_rate, first.way.weight_decay) for way in ways[1:]]
    return max([first, *others], key=lambda one: one.val_map)


def refine(probabilities: Tensor, shares: Tensor, factor: float) -> NDArray[np.float32]:
    """Adds to each logit the mean of those of the other labels, weighted by P(label j | label i).

    Args:
        probabilities: (n_seeds, n, 26).
        shares: (26, 26) P(label j | label i).
        factor: Factor of what is added.

    Returns:
        (n, 26) probabilities, averaged over the seeds.
    """
    others = shares.clone().fill_diagonal_(0)
    logits = probabilities.logit(eps=1e-6)
    refined = logits + factor * logits @ (others / others.sum(dim=1, keepdim=True)).T
    return refined.sigmoid().mean(dim=0).numpy()


def read_parts(
    originals: FeatureFolder, mirrors: FeatureFolder, people: Mapping[str, UsablePeople]
) -> tuple[dict[str, Part], Tensor]:
    """Reads features, standardises them as a probe does, and reduces them to principal components of train.

    Returns:
        The people of each split, and (n, d) the components of the mirror images of test.
    """
    train = people["train"]
    scaler = FeatureScaler.fit(originals.read("train", STREAMS, train), train.has_face)

    def read(folder: FeatureFolder, split: str) -> NDArray[np.float32]:
        one = people[split]
        return scaler.transform(folder.read(split, STREAMS, one), one.has_face).astype(np.float32)

    reduction = PCA(N_COMPONENTS, svd_solver="randomized", random_state=0).fit(read(originals, "train"))
    scale = math.sqrt(reduction.explained_variance_.mean())

    def reduce(folder: FeatureFolder, split: str) -> Tensor:
        return torch.from_numpy(np.asarray(reduction.transform(read(folder, split)) / scale, np.float32))

    parts = {
        split: Part(
            reduce(originals, split),
            torch.from_numpy(one.labels.astype(np.float32)),
            np.unique(one.images, return_inverse=True)[1],
        )
        for split, one in people.items()
    }
    return parts, reduce(mirrors, "test")


def open_features(
    manifest: Manifest, backbone: FrozenBackbone, cache_dir: Path
) -> tuple[FeatureFolder, FeatureFolder, dict[str, UsablePeople]]:
    """Completes the features of the squares, and of the mirror images of test."""
    originals = find_feature_folder(manifest, backbone.facts, cache_dir)
    mirrors = FeatureFolder(cache_dir / f"{originals.path.name}-mirrored", originals.n_features)
    caches = complete_features(originals, manifest, SPLITS, STREAMS, lambda: backbone)
    complete_features(mirrors, manifest, ["test"], STREAMS, lambda: MirrorEncoder(backbone))
    return originals, mirrors, {split: cache.people for split, cache in caches.items()}


def predict_all(
    chosen: Mapping[str, Chosen], factor: float, shares: Tensor, columns: Tensor, mirrored: Tensor
) -> dict[str, NDArray[np.float32]]:
    """Computes the probabilities of test in each way, averaged over the seeds.

    Args:
        chosen: The trained heads.
        factor: Factor of the refinement.
        shares: (26, 26) P(label j | label i).
        columns: (n, d) principal components.
        mirrored: (n, d) those of the mirror images.
    """
    plain = chosen[PLAIN].heads
    both = np.stack([plain.probabilities(x) for x in (columns, mirrored)])
    return {
        **{name: one.heads.probabilities(columns) for name, one in chosen.items()},
        "refined": refine(plain.seed_probabilities(columns), shares, factor),
        "mirror, probabilities": both.mean(axis=0),
        "mirror, features": plain.probabilities((columns + mirrored) / 2),
    }


def print_choices(head: str, chosen: Mapping[str, Chosen], factor: float) -> None:
    """Prints what was chosen on val."""
    for name, one in chosen.items():
        way = one.way
        own = [f"gammas and clip {way.focus}"] if way.focus else []
        own += [f"smoothing {way.smoothing:g}"] if way.smoothing else []
        own += [f"graph {way.graph}"] if way.graph else []
        cells = (f"{way.learning_rate:g}", f"{way.weight_decay:g}", str(one.epoch), "; ".join(own) or "-")
        print(f"| {head} | {name} | {' | '.join(cells)} | {100 * one.val_map:.2f} |")
    print(f"| {head} | refined | as plain | | | factor {factor:g} | |")


def print_results(predicted: Mapping[str, Mapping[str, NDArray[np.float32]]], test: Part, n_resamples: int) -> None:
    """Prints mAP on test in each way, and the difference to the plain head."""
    n_compared = sum(len(one) - 1 for one in predicted.values())
    level = 1 - 0.05 / n_compared
    print(f"\n{n_compared} comparisons, {n_resamples:,} resamples of photos\n")
    print(f"| head | way | mAP on test | minus plain | 95 % interval | {100 * level:.2f} % interval | verdict |")
    print("|---|---|---:|---:|---|---|---|")
    for head, ways in predicted.items():
        maps = {name: measure_map(test.indicator, one) for name, one in ways.items()}
        resampled = {
            name: mean_over_labels(Bootstrap(n_resamples).resample(test.indicator, one, test.photo))
            for name, one in ways.items()
        }
        print(f"| {head} | {PLAIN} | {100 * maps[PLAIN]:.2f} | | | | |", flush=True)
        for name in (name for name in ways if name != PLAIN):
            value, differences = maps[name] - maps[PLAIN], resampled[name] - resampled[PLAIN]
            usual, corrected = (
                PrecisionDifference(value, basic_interval(value, differences, one), float((differences > 0).mean()))
                for one in (INTERVAL_LEVEL, level)
            )
            verdict = corrected.verdict.replace("second", "this").replace("first", "plain")
            cells = (f"{100 * maps[name]:.2f}", f"{100 * value:+.2f}", describe(usual), describe(corrected), verdict)
            print(f"| {head} | {name} | {' | '.join(cells)} |", flush=True)


def describe(difference: PrecisionDifference) -> str:
    """The interval of a difference as text, percentage points."""
    low, high = 100 * difference.interval
    return f"{low:+.2f} to {high:+.2f}"


def main() -> None:
    """Trains, chooses, measures, and prints the two tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--manifest", type=Path, required=True, help="the manifest.json of the data set")
    parser.add_argument("--backbone", default="mobilenet_v2", help="name of the frozen backbone")
    parser.add_argument("--weights", required=True, help="its weights: a file, library or random")
    parser.add_argument("--cache", type=Path, help="folder of the caches; by default stream_cache beside the manifest")
    parser.add_argument("--seeds", type=int, default=5, help="number of heads whose probabilities are averaged")
    parser.add_argument("--epochs", type=int, default=12, help="largest number of epochs")
    parser.add_argument("--resamples", type=int, default=4000)
    options = parser.parse_args()
    start = time.perf_counter()
    manifest = read_manifest(options.manifest)
    backbone = load_backbone(options.backbone, options.weights)
    cache_dir = options.cache or default_cache_dir(manifest)
    parts, mirrored = read_parts(*open_features(manifest, backbone, cache_dir))
    train, val, test = (parts[split] for split in SPLITS)
    shares = conditional_shares(train.labels)
    print(json.dumps({name: str(value) for name, value in vars(options).items()}), end="\n\n")
    print("| head | way | learning rate | weight decay | epochs | own settings | mAP on val |")
    print("|---|---|---:|---:|---:|---|---:|", flush=True)
    predicted = {}
    for head, hidden in HEADS.items():
        chosen = {
            name: choose_heads(ways, hidden, train, val, options.seeds, options.epochs)
            for name, ways in TRAINED.items()
        }
        on_val = chosen[PLAIN].heads.seed_probabilities(val.columns)
        factor = max(REFINEMENTS, key=lambda one: measure_map(val.indicator, refine(on_val, shares, one)))
        print_choices(head, chosen, factor)
        predicted[head] = predict_all(chosen, factor, shares, test.columns, mirrored)
    print_results(predicted, test, options.resamples)
    print(f"\n{(time.perf_counter() - start) / 60:.0f} minutes")


if __name__ == "__main__":
    main()
