"""Times the bootstrap of average precision for as many people as EMOTIC's test split has.

python docs/benchmarks/bootstrap.py
"""

from __future__ import annotations

import time

import numpy as np
from sklearn.metrics import average_precision_score

from emoface.metrics.multilabel import bootstrap_average_precision

N_PEOPLE, N_LABELS, N_RESAMPLES, N_SLOW = 7000, 26, 1000, 2


def main() -> None:
    rng = np.random.default_rng(0)
    labels = (rng.random((N_PEOPLE, N_LABELS)) < rng.uniform(0.01, 0.5, N_LABELS)).astype(np.uint8)
    scores = rng.normal(size=(N_PEOPLE, N_LABELS)) + labels

    start = time.process_time()
    resampled = bootstrap_average_precision(labels, scores, N_RESAMPLES)
    ours = time.process_time() - start
    print(f"{N_RESAMPLES} bootstrap resamples of {N_PEOPLE} people, {N_LABELS} labels: {ours:.1f} s of one core")

    start, rng = time.process_time(), np.random.default_rng(0)
    for row in resampled[:N_SLOW]:
        people = rng.integers(0, N_PEOPLE, N_PEOPLE)
        slow = [average_precision_score(labels[people, k], scores[people, k]) for k in range(N_LABELS)]
        assert np.allclose(row, slow, atol=1e-12)
    theirs = (time.process_time() - start) * N_RESAMPLES / N_SLOW
    print(f"scikit-learn, the same numbers: {theirs:.0f} s, extrapolated from {N_SLOW} resamples")


if __name__ == "__main__":
    main()
