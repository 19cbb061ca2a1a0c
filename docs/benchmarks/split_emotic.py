"""Splits EMOTIC's real people in both ways and prints how close each split is to its target shares.

    emoface parse FOLDER --annotations FOLDER --out DIR
    python docs/benchmarks/split_emotic.py DIR/people.parquet

Prints a Markdown table per way of splitting: people, photos, and the label whose share is furthest from its target.
People who are annotated more than once are left out as the split job does it.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from emoface.datasets.people import find_first_rows
from emoface.labels.repeated import choose_row_of_each, find_leaks
from emoface.labels.stratification import MIN_PEOPLE, TOLERANCE, label_shares, stratify_people
from emoface.schema import CATEGORIES, N_CATEGORIES, PEOPLE_SCHEMA, SPLITS
from emoface.storage.tables import read_table

RATIOS = (0.7, 0.1, 0.2)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("people", type=Path)
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()
    columns = ["image", "source_split", "labels", "same_person_as"]
    table = read_table(options.people, PEOPLE_SCHEMA, "see above", columns)
    photo = np.unique(table["image"].to_pylist(), return_inverse=True)[1]
    indicator = table["labels"].combine_chunks().flatten().to_numpy().reshape(-1, N_CATEGORIES)
    own, first_row = (
        np.array([SPLITS.index(name) for name in table["source_split"].to_pylist()]),
        find_first_rows(table),
    )
    show("emotic, leaks kept", photo, indicator, own)
    kept = find_leaks(first_row, own, SPLITS.index("train")) < 0
    show("emotic", photo[kept], indicator[kept], own[kept])
    once = choose_row_of_each(first_row, own) == np.arange(len(own))
    for seed in range(options.seeds):
        start = time.perf_counter()
        split = stratify_people(photo[once], indicator[once], RATIOS, np.random.default_rng(seed))
        show(f"stratified, seed {seed}, {time.perf_counter() - start:.1f} s", photo[once], indicator[once], split)


def show(title: str, photo: NDArray[np.int64], indicator: NDArray[np.uint8], split: NDArray[np.int64]) -> None:
    shares = label_shares(indicator, split, len(SPLITS))
    off = np.abs(shares - np.array(RATIOS)[:, None])
    off[:, indicator.sum(axis=0) < MIN_PEOPLE] = 0
    n_photos = len(np.unique(photo))
    photos_of = [len(np.unique(photo[split == number])) for number in range(len(SPLITS))]
    n_twice, n_off = sum(photos_of) - n_photos, int((off > TOLERANCE).sum())
    print(f"\n{title}: {len(split):,} rows, {n_twice} photos in two splits, {n_off} label shares off by over 1 %\n")
    print("| split | people | photos | furthest label | its share |\n|---|---:|---:|---|---:|")
    for number, name in enumerate(SPLITS):
        worst = int(off[number].argmax())
        print(
            f"| {name} | {(split == number).mean():.3%} | {photos_of[number] / n_photos:.3%} "
            f"| {CATEGORIES[worst]} | {shares[number, worst]:.3%} |"
        )


if __name__ == "__main__":
    main()
