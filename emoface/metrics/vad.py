"""Metrics of valence, arousal and dominance, each over the people whose true value is known.

A metric that is undefined is nan. Shapes are (n, d) for n people and d dimensions.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from emoface.metrics.multilabel import mean_of_defined
from emoface.vision.arrays import Float64Array


@dataclass(frozen=True)
class VadErrors:
    """Metrics of predicted valence, arousal and dominance, errors on their own scale (1-10).

    Attributes:
        errors: (3,) average absolute error of each dimension.
        root_mean_squared: (3,) root mean squared error of each dimension.
        concordance: (3,) concordance correlation coefficient of each dimension.
        n_people: (3,) number of people whose true value is known.
    """

    errors: Float64Array
    root_mean_squared: Float64Array
    concordance: Float64Array
    n_people: NDArray[np.int64]

    @property
    def mean(self) -> float:
        """The mean average absolute error over the dimensions where it is defined."""
        return mean_of_defined(self.errors)


def measure_vad(truth: ArrayLike, predicted: ArrayLike) -> VadErrors:
    """Computes all metrics of predicted valence, arousal and dominance.

    Args:
        truth: (n, d) true values, nan where unknown.
        predicted: (n, d) predicted values, on the same scale.
    """
    return VadErrors(
        errors=average_absolute_error(truth, predicted),
        root_mean_squared=root_mean_squared_error(truth, predicted),
        concordance=concordance_correlation(truth, predicted),
        n_people=np.isfinite(np.asarray(truth, np.float64)).sum(axis=0),
    )


def average_absolute_error(truth: ArrayLike, predicted: ArrayLike) -> Float64Array:
    """Computes the mean absolute error of each dimension over the people whose true value is known.

    Args:
        truth: (n, d) true values, nan where unknown.
        predicted: (n, d) predicted values, on the same scale.

    Returns:
        (d,), lower is better; nan where no true value is known.

    Example:
        >>> average_absolute_error([[1.0], [float("nan")], [4.0]], [[2.0], [9.0], [1.0]]).tolist()
        [2.0]
    """
    from sklearn.metrics import mean_absolute_error

    return _by_dimension(truth, predicted, mean_absolute_error)


def root_mean_squared_error(truth: ArrayLike, predicted: ArrayLike) -> Float64Array:
    """Computes the root of the mean squared error of each dimension over the people whose true value is known.

    Args:
        truth: (n, d) true values, nan where unknown.
        predicted: (n, d) predicted values, on the same scale.

    Returns:
        (d,), lower is better; nan where no true value is known.

    Example:
        >>> root_mean_squared_error([[1.0], [float("nan")], [4.0]], [[2.0], [9.0], [11.0]]).tolist()
        [5.0]
    """
    from sklearn.metrics import root_mean_squared_error as rmse

    return _by_dimension(truth, predicted, rmse)


def concordance_correlation(truth: ArrayLike, predicted: ArrayLike) -> Float64Array:
    """Computes the concordance correlation coefficient (CCC) of each dimension.

    It is 2 cov(t, p) / (var(t) + var(p) + (mean(t) - mean(p))^2) with variances that divide by n. A prediction that is
    the same for everybody has 0, whichever its value.

    Args:
        truth: (n, d) true values, nan where unknown.
        predicted: (n, d) predicted values, on the same scale.

    Returns:
        (d,), -1 to 1, higher is better; nan with fewer than two known values, and where true and predicted values are
        one and the same number.

    Example:
        >>> concordance_correlation([[1.0], [2.0], [3.0]], [[2.0], [3.0], [4.0]]).round(4).tolist()
        [0.5714]

    Source: Lin, "A Concordance Correlation Coefficient to Evaluate Reproducibility", 1989.
    """
    return _by_dimension(truth, predicted, _concordance)


def _concordance(truth: Float64Array, predicted: Float64Array) -> float:
    # Relative to the first person, so that a prediction that is the same for everybody is exactly 0 everywhere.
    from_first, predicted_from_first = truth - truth[0], predicted - predicted[0]
    covariance = np.mean(from_first * (predicted_from_first - predicted_from_first.mean()))
    spread = from_first.var() + predicted_from_first.var() + (truth.mean() - predicted.mean()) ** 2
    return float(2 * covariance / spread) if len(truth) > 1 and spread > 0 else float("nan")


def _by_dimension(
    truth: ArrayLike, predicted: ArrayLike, metric: Callable[[Float64Array, Float64Array], float]
) -> Float64Array:
    """Applies a metric to each dimension over the people whose true and predicted values are known."""
    true_values, values = np.asarray(truth, np.float64), np.asarray(predicted, np.float64)
    if true_values.ndim != 2 or true_values.shape != values.shape:
        raise ValueError(f"truth has shape {true_values.shape}, predicted {values.shape}, expected both (n, d)")
    known = np.isfinite(true_values) & np.isfinite(values)
    columns = zip(true_values.T, values.T, known.T, strict=True)
    return np.array([metric(one[k], other[k]) if k.any() else np.nan for one, other, k in columns], np.float64)
