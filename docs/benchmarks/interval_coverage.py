"""Measures how often bootstrap intervals of mAP hold the true value, on samples from a population whose mAP is known.

    python docs/benchmarks/interval_coverage.py [--samples 200] [--resamples 300]

The population has 150,000 photos of one to four people and 26 labels as rare and as frequent as EMOTIC's; people of
one photo share a part of their labels and scores. Each sample of 100, 400 or 1,600 photos gets four intervals of 95 %:
percentiles of resampled people, percentiles of resampled photos, bias-corrected percentiles of resampled photos, and
the basic interval of resampled photos, which emoface reports.
"""

from __future__ import annotations

import argparse

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm

from emoface.metrics.multilabel import (
    average_precision,
    basic_interval,
    bootstrap_average_precision,
    mean_average_precision,
    mean_over_labels,
)

N_LABELS = 26
ENDS = (0.025, 0.975)


def draw_people(rng: np.random.Generator, n_photos: int) -> tuple[NDArray, NDArray, NDArray]:
    """Labels (n, 26), scores (n, 26) and number of the photo (n,) of the people of new photos."""
    sizes = rng.choice([1, 2, 3, 4], n_photos, p=[0.5, 0.3, 0.12, 0.08])
    photo = np.repeat(np.arange(n_photos), sizes)
    shared = rng.normal(size=(n_photos, N_LABELS))[photo]
    own = rng.normal(size=(len(photo), N_LABELS))
    logits = np.linspace(-4, 0.2, N_LABELS) + 0.9 * shared + 0.6 * own
    labels = (rng.random(logits.shape) < 1 / (1 + np.exp(-logits))).astype(np.uint8)
    return labels, 0.5 * shared + 0.4 * own + rng.normal(size=logits.shape), photo


def bias_corrected(value: float, resampled: NDArray) -> NDArray:
    """Bias-corrected percentiles; the correction is limited, because often no resample is below the value."""
    n = len(resampled)
    share_below = np.clip(np.mean(resampled < value), 1 / (n + 1), n / (n + 1))
    return np.quantile(resampled, norm.cdf(2 * norm.ppf(share_below) + norm.ppf(ENDS)))


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=200)
    parser.add_argument("--resamples", type=int, default=300)
    options = parser.parse_args()
    labels, scores, _ = draw_people(np.random.default_rng(0), 150_000)
    truth = mean_average_precision(average_precision(labels, scores))
    print(f"true mAP {100 * truth:.2f}\n")
    print("| photos | mean of samples | percentiles, people | percentiles, photos | bias-corrected | basic | width |")
    print("|---:|---:|---:|---:|---:|---:|---:|")
    for n_photos in (100, 400, 1600):
        hits, values, widths = np.zeros(4), [], []
        for sample in range(options.samples):
            labels, scores, photo = draw_people(np.random.default_rng((n_photos, sample)), n_photos)
            value = mean_average_precision(average_precision(labels, scores))
            of_people, of_photos = (
                mean_over_labels(bootstrap_average_precision(labels, scores, options.resamples, sample, group))
                for group in (None, photo)
            )
            basic = basic_interval(value, of_photos)
            ends = (np.quantile(of_people, ENDS), np.quantile(of_photos, ENDS), bias_corrected(value, of_photos), basic)
            hits += [low <= truth <= high for low, high in ends]
            values.append(value)
            widths.append(basic[1] - basic[0])
        shares = " | ".join(f"{share:.0%}" for share in hits / options.samples)
        print(f"| {n_photos:,} | {100 * np.mean(values):.2f} | {shares} | {100 * np.mean(widths):.1f} |", flush=True)


if __name__ == "__main__":
    main()
