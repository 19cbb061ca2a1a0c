"""Logistic regressions of many labels on the same columns, fitted together for several strengths of the regularisation.

L-BFGS on columns of a network's features needs hundreds of iterations: a few directions of the columns have a thousand
times the variance of the others. So the weights are first written in other coordinates, in which the curvature of the
objective is about 1 in every direction. The objective and its solution are the same; only the way there is shorter.
Importable without torch.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from emoface.vision.arrays import Float64Array

TOLERANCE = 1e-5
"""The fit ends where the length of the gradient is this share of its length at weights of 0."""
MAX_ITERATIONS = 1000

_N_DIRECTIONS = 300
"""Directions of most variance whose curvature is computed; the others count as one."""
_POWER_ITERATIONS = 2


@dataclass(frozen=True)
class LogisticFit:
    """The logistic regressions of one strength.

    Attributes:
        weights: (columns, labels).
        biases: (labels,).
        n_iterations: Iterations of L-BFGS.
        gradient: Length of the gradient at the end as a share of its length at weights of 0.
    """

    weights: Float64Array
    biases: Float64Array
    n_iterations: int
    gradient: float

    @property
    def has_converged(self) -> bool:
        """Whether the gradient is as small as ``TOLERANCE`` requires."""
        return self.gradient <= TOLERANCE


def cross_entropy(logits: Float64Array, truth: Float64Array) -> float:
    """Computes the binary cross entropy, summed over the labels and averaged over the people.

    Args:
        logits: (n, labels).
        truth: (n, labels), 0 or 1.

    Example:
        >>> round(cross_entropy(np.zeros((4, 2)), np.ones((4, 2))), 6)  # 2 log 2
        1.386294
    """
    return float((np.logaddexp(0, logits) - truth * logits).sum() / max(len(truth), 1))


def fit_logistic(columns: Float64Array, truth: Float64Array, strengths: Sequence[float]) -> Iterator[LogisticFit]:
    """Fits the logistic regressions of all labels, each strength from the weights of the one before.

    It minimises ``cross_entropy`` plus ``strength / 2`` times the sum of the squared weights; biases are not
    regularised.

    Args:
        columns: (n, columns) with a mean of 0.
        truth: (n, labels), 0 or 1.
        strengths: The strengths, above 0.
    """
    n_people, n_labels = truth.shape
    prevalence = (truth.sum(axis=0) + 0.5) / (n_people + 1)
    start = np.concatenate([np.zeros((columns.shape[1], n_labels)), np.log(prevalence / (1 - prevalence))[None]])
    directions = _Directions.of(columns)
    _, at_zero = _objective(columns, truth, start, 0.0)
    scale = float(np.linalg.norm(at_zero)) or 1.0
    for strength in strengths:
        fit = _fit(columns, truth, start, strength, directions, scale)
        start = np.concatenate([fit.weights, fit.biases[None]])
        yield fit


def _fit(
    columns: Float64Array,
    truth: Float64Array,
    start: Float64Array,
    strength: float,
    directions: _Directions,
    scale: float,
) -> LogisticFit:
    """Minimises the objective of one strength by L-BFGS in the coordinates of ``_Coordinates``."""
    from scipy.optimize import minimize

    coordinates = _Coordinates.at(columns, start, strength, directions)
    length = np.inf

    def scaled_objective(flat: Float64Array) -> tuple[float, Float64Array]:
        nonlocal length
        value, gradient = _objective(columns, truth, coordinates.to_parameters(flat.reshape(start.shape)), strength)
        length = float(np.linalg.norm(gradient)) / scale
        return value, coordinates.to_gradient(gradient).ravel()

    def end_if_flat(intermediate_result: Any) -> None:
        if length <= TOLERANCE:  # the last point that was evaluated is the one that was accepted
            raise StopIteration

    found = minimize(
        scaled_objective,
        coordinates.from_parameters(start).ravel(),
        jac=True,
        method="L-BFGS-B",
        callback=end_if_flat,
        options={"maxiter": MAX_ITERATIONS, "maxfun": 2 * MAX_ITERATIONS, "gtol": 0, "ftol": 0, "maxcor": 20},
    )
    parameters = coordinates.to_parameters(found.x.reshape(start.shape))
    _, gradient = _objective(columns, truth, parameters, strength)
    return LogisticFit(parameters[:-1], parameters[-1], int(found.nit), float(np.linalg.norm(gradient)) / scale)


def _objective(
    columns: Float64Array, truth: Float64Array, parameters: Float64Array, strength: float
) -> tuple[float, Float64Array]:
    """The objective and its gradient; the last row of ``parameters``, (columns + 1, labels), is the biases."""
    from scipy.special import expit

    weights, biases = parameters[:-1], parameters[-1]
    logits = columns @ weights + biases
    errors = (expit(logits) - truth) / max(len(truth), 1)
    gradient = np.concatenate([columns.T @ errors + strength * weights, errors.sum(axis=0)[None]])
    return cross_entropy(logits, truth) + strength / 2 * float((weights**2).sum()), gradient


@dataclass(frozen=True)
class _Directions:
    """The directions of the columns with the most variance.

    Attributes:
        vectors: (columns, k), orthonormal.
        variances: (k,) variance along each.
        other_variance: Mean variance along the other directions.
    """

    vectors: Float64Array
    variances: Float64Array
    other_variance: float

    @classmethod
    def of(cls, columns: Float64Array) -> _Directions:
        """Finds the directions; approximate ones serve as well, as they only choose the coordinates."""
        from sklearn.utils.extmath import randomized_svd

        n_people, n_columns = columns.shape
        n_directions = min(_N_DIRECTIONS, n_people, n_columns)
        _, singular, transposed = randomized_svd(
            columns, n_directions, n_iter=_POWER_ITERATIONS, random_state=0, flip_sign=False
        )
        variances = singular**2 / n_people
        rest = max(float((columns**2).sum()) / n_people - float(variances.sum()), 0.0)
        return cls(transposed.T, variances, rest / max(n_columns - n_directions, 1))


@dataclass(frozen=True)
class _Coordinates:
    """Coordinates in which the curvature of the objective is about 1.

    Parameters are ``scale * coordinates`` along each direction; the scale is one over the root of the curvature, which
    is the variance along the direction times the mean of p (1 - p), plus the strength.

    Attributes:
        vectors: See ``_Directions``.
        along: (k, labels) scale along each direction.
        other: (labels,) scale along the other directions.
        biases: (labels,) scale of the biases.
    """

    vectors: Float64Array
    along: Float64Array
    other: Float64Array
    biases: Float64Array

    @classmethod
    def at(
        cls, columns: Float64Array, parameters: Float64Array, strength: float, directions: _Directions
    ) -> _Coordinates:
        """Chooses the coordinates by the curvature at these parameters."""
        from scipy.special import expit

        probabilities = expit(columns @ parameters[:-1] + parameters[-1])
        mean = np.maximum((probabilities * (1 - probabilities)).mean(axis=0), np.finfo(np.float64).eps)
        return cls(
            directions.vectors,
            1 / np.sqrt(directions.variances[:, None] * mean + strength),
            1 / np.sqrt(directions.other_variance * mean + strength),
            1 / np.sqrt(mean),
        )

    def to_parameters(self, coordinates: Float64Array) -> Float64Array:
        """From coordinates to parameters, both (columns + 1, labels)."""
        return self._scale(coordinates, self.along, self.other, self.biases)

    def from_parameters(self, parameters: Float64Array) -> Float64Array:
        """From parameters to coordinates."""
        return self._scale(parameters, 1 / self.along, 1 / self.other, 1 / self.biases)

    def to_gradient(self, gradient: Float64Array) -> Float64Array:
        """From the gradient by the parameters to that by the coordinates; the scaling is its own transpose."""
        return self.to_parameters(gradient)

    def _scale(
        self, values: Float64Array, along: Float64Array, other: Float64Array, biases: Float64Array
    ) -> Float64Array:
        weights = values[:-1]
        moved = weights * other + self.vectors @ ((along - other) * (self.vectors.T @ weights))
        return np.concatenate([moved, (values[-1] * biases)[None]])
