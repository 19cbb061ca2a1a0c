"""A probe: a linear head, or a small perceptron, on the frozen features of any streams; importable without torch.

The features of the streams are concatenated and standardised by the mean and the standard deviation of train. A person
without a face has 0 in the columns of the face, which is the mean, and a column of its own says who has one.

The linear head is a logistic regression per label. It minimises the binary cross entropy, summed over the labels and
averaged over the people, plus ``strength / 2`` times the sum of the squared weights; biases are not regularised. In
scikit-learn's terms it is ``LogisticRegression(C=1 / (strength * n))``. The labels share one strength, which is the one
with the best mAP on val; of equal ones, the strongest.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from emoface.errors import TableError, WeightsError
from emoface.metrics.multilabel import average_precision, mean_average_precision
from emoface.mter.logistic import LogisticFit, cross_entropy, fit_logistic
from emoface.mter.names import STREAMS
from emoface.progress import SILENT, Progress
from emoface.storage.files import write_bytes
from emoface.vision.arrays import Float32Array, Float64Array

HeadKind = Literal["linear", "mlp"]
PROBE = "probe"
"""Name of the model in the description of a run."""

STRENGTHS = (10.0, 3.0, 1.0, 0.3, 0.1, 0.03, 0.01, 0.003, 0.001)
"""The strengths of the regularisation that are tried, unless others are given."""

_MLP_BATCH = 64
_MLP_LEARNING_RATE = 1e-3


@dataclass(frozen=True)
class FeatureScaler:
    """The way from the features of the streams to the columns of a head.

    Attributes:
        streams: The streams, in the order of the columns.
        means: Per stream (d,) mean of the features of train; of the face over the people with one.
        scales: Per stream (d,) standard deviation; 1 where it is 0.
        face_share: Share of the people of train who have a face; None if no column says who has one, because the face
            is the only stream or no stream.
    """

    streams: tuple[str, ...]
    means: dict[str, Float64Array]
    scales: dict[str, Float64Array]
    face_share: float | None

    @classmethod
    def fit(cls, features: Mapping[str, Float32Array], has_face: NDArray[np.bool_]) -> FeatureScaler:
        """Computes means and standard deviations.

        Args:
            features: Per stream (n, d) of the people of train.
            has_face: (n,) bool.

        Raises:
            ValueError: There are no people.
        """
        if not len(has_face):
            raise ValueError("no people to standardise the features by")
        streams = tuple(stream for stream in STREAMS if stream in features)
        means, scales = {}, {}
        for stream in streams:
            values = features[stream][has_face] if stream == "face" else features[stream]
            wide = np.asarray(values, np.float64)
            empty = np.zeros(wide.shape[1])
            means[stream] = wide.mean(axis=0) if len(wide) else empty
            deviation = wide.std(axis=0) if len(wide) else empty
            scales[stream] = np.where(deviation > 0, deviation, 1.0)
        is_told = "face" in streams and len(streams) > 1
        return cls(streams, means, scales, float(has_face.mean()) if is_told else None)

    @property
    def n_columns(self) -> int:
        """Number of columns."""
        return sum(len(mean) for mean in self.means.values()) + (self.face_share is not None)

    def face_column(self, has_face: NDArray[np.bool_]) -> Float64Array | None:
        """Computes the column that says who has a face, (n,), standardised; None if there is none."""
        if self.face_share is None:
            return None
        spread = np.sqrt(self.face_share * (1 - self.face_share))
        return np.asarray((has_face - self.face_share) / (spread if spread > 0 else 1.0), np.float64)

    def transform(self, features: Mapping[str, Float32Array], has_face: NDArray[np.bool_]) -> Float64Array:
        """Standardises the features of people.

        Args:
            features: Per stream (n, d).
            has_face: (n,) bool.

        Returns:
            (n, ``n_columns``): the streams, then the column that says who has a face.
        """
        columns = np.empty((len(has_face), self.n_columns))
        start = 0
        for stream in self.streams:
            end = start + len(self.means[stream])
            columns[:, start:end] = (features[stream] - self.means[stream]) / self.scales[stream]
            if stream == "face":
                columns[~has_face, start:end] = 0
            start = end
        if (told := self.face_column(has_face)) is not None:
            columns[:, -1] = told
        return columns


@dataclass(frozen=True)
class Head:
    """A linear head, or a perceptron with ReLU between its layers.

    Attributes:
        layers: Per layer the weights (inputs, outputs) and the biases (outputs,).
    """

    layers: tuple[tuple[Float64Array, Float64Array], ...]

    def logits(self, columns: Float64Array) -> Float64Array:
        """Computes the logits, (n, 26), from the columns of ``FeatureScaler.transform``."""
        values = columns
        for number, (weights, biases) in enumerate(self.layers):
            values = (np.maximum(values, 0) if number else values) @ weights + biases
        return values


@dataclass(frozen=True)
class Trial:
    """The head of one strength of the regularisation.

    Attributes:
        strength: The strength.
        train_loss: Binary cross entropy on train, summed over the labels and averaged over the people.
        val_map: Mean average precision on val, 0-1.
        n_iterations: Iterations of L-BFGS; None of a perceptron, which is fitted for a number of epochs.
        gradient: Length of the gradient at the end as a share of that at weights of 0; None of a perceptron.
        has_converged: Whether the gradient is within the tolerance; None of a perceptron.
    """

    strength: float
    train_loss: float
    val_map: float
    n_iterations: int | None = None
    gradient: float | None = None
    has_converged: bool | None = None


@dataclass(frozen=True)
class FittedProbe:
    """A head and what it was chosen from.

    Attributes:
        scaler: Standardises the features.
        head: The head with the best mAP on val.
        strength: The strength of its regularisation.
        trials: All strengths that were tried, the strongest first.
    """

    scaler: FeatureScaler
    head: Head
    strength: float
    trials: tuple[Trial, ...]

    @property
    def is_at_edge(self) -> bool:
        """Whether the chosen strength is the largest or the smallest of several."""
        return len(self.trials) > 1 and self.strength in (self.trials[0].strength, self.trials[-1].strength)

    @property
    def unconverged(self) -> tuple[Trial, ...]:
        """The strengths whose linear head is not the solution, because the iterations did not suffice."""
        return tuple(one for one in self.trials if one.has_converged is False)

    def probabilities(self, features: Mapping[str, Float32Array], has_face: NDArray[np.bool_]) -> Float32Array:
        """Computes the probabilities of the 26 labels, (n, 26)."""
        return predict_probabilities(self.scaler, self.head, features, has_face)


@dataclass(frozen=True)
class ProbePeople:
    """People to fit a probe on.

    Attributes:
        features: Per stream (n, d).
        has_face: (n,) bool.
        labels: (n, 26), 0 or 1.
    """

    features: dict[str, Float32Array]
    has_face: NDArray[np.bool_]
    labels: NDArray[np.uint8]


def predict_probabilities(
    scaler: FeatureScaler, head: Head, features: Mapping[str, Float32Array], has_face: NDArray[np.bool_]
) -> Float32Array:
    """Computes the probabilities of the 26 labels, (n, 26), from the features of people."""
    from scipy.special import expit

    return np.asarray(expit(head.logits(scaler.transform(features, has_face))), np.float32)


def fit_probe(
    train: ProbePeople,
    val: ProbePeople,
    *,
    strengths: Sequence[float] = STRENGTHS,
    kind: HeadKind = "linear",
    hidden: int = 256,
    epochs: int = 30,
    seed: int = 0,
    progress: Progress = SILENT,
) -> FittedProbe:
    """Fits a head for each strength of the regularisation and keeps the one with the best mAP on val.

    Args:
        train: People to fit on.
        val: People to choose the strength on.
        strengths: The strengths to try.
        kind: ``linear``, or ``mlp`` for a perceptron of one hidden layer, fitted by Adam.
        hidden: Width of the hidden layer.
        epochs: Epochs of the perceptron.
        seed: Seed of the perceptron's initial weights and order.
        progress: Receives one step per strength.

    Raises:
        TableError: Nobody of val has a label, so that no strength can be chosen.
    """
    scaler = FeatureScaler.fit(train.features, train.has_face)
    columns, val_columns = (scaler.transform(one.features, one.has_face) for one in (train, val))
    truth = train.labels.astype(np.float64)
    ordered = sorted(set(strengths), reverse=True)
    fits: Iterable[LogisticFit | Head]
    if kind == "linear":
        fits = fit_logistic(columns, truth, ordered)
    else:
        fits = (_fit_mlp(columns, train.labels, strength, hidden, epochs, seed) for strength in ordered)
    progress.start("probe", len(ordered))
    trials: list[Trial] = []
    best: Head | None = None
    for strength, fit in zip(ordered, fits, strict=True):
        head = fit if isinstance(fit, Head) else Head(((fit.weights, fit.biases),))
        val_map = mean_average_precision(average_precision(val.labels, head.logits(val_columns)))
        if np.isnan(val_map):
            raise TableError("nobody of val has a label, expected some to choose the strength of the regularisation by")
        if not trials or val_map > max(one.val_map for one in trials):
            best = head
        ending = () if isinstance(fit, Head) else (fit.n_iterations, fit.gradient, fit.has_converged)
        trials.append(Trial(strength, cross_entropy(head.logits(columns), truth), val_map, *ending))
        progress.advance()
    assert best is not None
    chosen = max(trials, key=lambda one: one.val_map)  # the first of equal ones, the strongest
    return FittedProbe(scaler, best, chosen.strength, tuple(trials))


def _fit_mlp(
    columns: Float64Array, labels: NDArray[np.uint8], strength: float, hidden: int, epochs: int, seed: int
) -> Head:
    """Fits a perceptron to the same objective as the linear head, for a fixed number of epochs."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.neural_network import MLPClassifier

    batch_size = min(_MLP_BATCH, len(columns))
    network = MLPClassifier(
        hidden_layer_sizes=(hidden,),
        alpha=strength * batch_size,  # scikit-learn divides it by the size of the batch
        batch_size=batch_size,
        learning_rate_init=_MLP_LEARNING_RATE,
        max_iter=epochs,
        n_iter_no_change=epochs,
        random_state=seed,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # the number of epochs is a setting
        network.fit(columns, labels)
    return Head(tuple(zip(network.coefs_, network.intercepts_, strict=True)))


def write_probe(path: Path, scaler: FeatureScaler, head: Head) -> None:
    """Writes a probe as safetensors, in one step."""
    from safetensors.numpy import save

    arrays = {f"scaler.{stream}.mean": scaler.means[stream] for stream in scaler.streams}
    arrays |= {f"scaler.{stream}.scale": scaler.scales[stream] for stream in scaler.streams}
    if scaler.face_share is not None:
        arrays["scaler.face_share"] = np.array([scaler.face_share])
    for number, (weights, biases) in enumerate(head.layers):
        arrays |= {f"layers.{number}.weight": weights, f"layers.{number}.bias": biases}
    write_bytes(path, save({name: np.ascontiguousarray(array, np.float64) for name, array in arrays.items()}))


def read_probe(path: Path) -> tuple[FeatureScaler, Head]:
    """Reads a probe that ``write_probe`` wrote.

    Raises:
        WeightsError: The file is missing, damaged, or not that of a probe.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load

    remedy = "run 'emoface probe' again"
    if not path.is_file():
        raise WeightsError(f"{path}: no such file; {remedy}")
    try:
        arrays = load(path.read_bytes())
    except SafetensorError as error:
        raise WeightsError(f"{path}: not a readable safetensors file ({error}); {remedy}") from error
    try:
        streams = tuple(stream for stream in STREAMS if f"scaler.{stream}.mean" in arrays)
        n_layers = sum(name.endswith(".weight") for name in arrays)
        share = arrays.get("scaler.face_share")
        scaler = FeatureScaler(
            streams,
            {stream: arrays[f"scaler.{stream}.mean"] for stream in streams},
            {stream: arrays[f"scaler.{stream}.scale"] for stream in streams},
            None if share is None else float(share[0]),
        )
        layers = tuple((arrays[f"layers.{k}.weight"], arrays[f"layers.{k}.bias"]) for k in range(n_layers))
    except LookupError as error:
        raise WeightsError(f"{path}: not the head of a probe (no {error}); {remedy}") from error
    if not layers or layers[0][0].shape[0] != scaler.n_columns:
        raise WeightsError(f"{path}: not the head of a probe, whose first layer has a weight per column; {remedy}")
    return scaler, Head(layers)
