"""The splits: shares of people and labels beside their targets, the steps to them, and people annotated again."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from emoface.auditing.data_set import DataSet, source_splits
from emoface.datasets.manifest import Manifest
from emoface.labels.repeated import count_split_pairs, find_leaks
from emoface.labels.statistics import label_counts, mean_imbalance_ratio
from emoface.labels.stratification import MIN_PEOPLE
from emoface.schema import SPLITS
from emoface.storage.cards import read_card
from emoface.storage.records import to_json_number, to_json_numbers
from emoface.storage.tables import vectors_to_array

_TRAIN = SPLITS.index("train")


def audit_split(data: DataSet) -> dict[str, Any]:
    """Shares of people and of every label in each split beside their targets, and the largest deviation.

    Shares and deviations are of the people before train is balanced, because a cap changes them on purpose; ``people``,
    ``photos`` and ``labels_with_nobody`` are of the splits as they are written.
    """
    described = {} if data.manifest is None else data.manifest.split
    targets = described.get("ratios") or read_card("emotic")["published"]["split_shares"]
    target = np.array([targets[name] for name in SPLITS])
    selected = _count_labels(data, data.selected_rows_of)
    written = _count_labels(data, data.rows_of)
    n_people = np.array([len(data.rows_of[name]) for name in SPLITS])
    n_selected = np.array([len(data.selected_rows_of[name]) for name in SPLITS])
    images = np.array(data.people["image"].to_pylist(), dtype=object)
    photos_of = [set(images[data.rows_of[name]]) for name in SPLITS]
    with np.errstate(invalid="ignore"):
        label_shares = selected / selected.sum(axis=0)
        people_shares = n_selected / n_selected.sum()
    present = data.indicator.any(axis=0)
    return {
        "is_own": data.manifest is not None,
        "by": described.get("by", "emotic"),
        "seed": described.get("seed"),
        "balance": None if data.manifest is None else data.manifest.balance,
        "targets": to_json_numbers(SPLITS, target),
        "people": to_json_numbers(SPLITS, n_people),
        "selected_people": to_json_numbers(SPLITS, n_selected),
        "selected_label_counts": to_json_numbers(data.label_names, selected.sum(axis=0)),
        "people_shares": to_json_numbers(SPLITS, people_shares),
        "photos": to_json_numbers(SPLITS, [len(photos) for photos in photos_of]),
        "photos_in_two_splits": sum(map(len, photos_of)) - len(set().union(*photos_of)),
        "empty_splits": [name for name, n in zip(SPLITS, n_people, strict=True) if not n],
        "label_counts": {
            name: to_json_numbers(SPLITS, column) for name, column in zip(data.label_names, written.T, strict=True)
        },
        "label_shares": {
            name: to_json_numbers(SPLITS, column) for name, column in zip(data.label_names, label_shares.T, strict=True)
        },
        "labels_with_nobody": {
            name: [data.label_names[k] for k in np.flatnonzero(present & (row == 0))]
            for name, row in zip(SPLITS, written, strict=True)
        },
        "largest_deviation": _find_largest_deviation(data.label_names, label_shares, target, selected.sum(axis=0)),
        "largest_share_difference": _find_largest_difference(data.label_names, written, n_people),
        "steps": _describe_steps(data),
    }


def _count_labels(data: DataSet, rows_of: Mapping[str, NDArray[np.int64]]) -> NDArray[np.int64]:
    """(3, n_labels) people of each split with each label."""
    return np.array([label_counts(data.indicator[rows_of[name]]) for name in SPLITS])


def _find_largest_deviation(
    label_names: tuple[str, ...],
    label_shares: NDArray[np.float64],
    target: NDArray[np.float64],
    totals: NDArray[np.int64],
) -> dict[str, Any] | None:
    """Of the labels with ``MIN_PEOPLE`` people or more, the share that is furthest from its target."""
    deviations = np.abs(label_shares - target[:, None])
    deviations[:, totals < MIN_PEOPLE] = np.nan
    if np.isnan(deviations).all():
        return None
    split, label = np.unravel_index(int(np.nanargmax(deviations)), deviations.shape)
    return {
        "label": label_names[label],
        "split": SPLITS[split],
        "share": to_json_number(label_shares[split, label]),
        "target": to_json_number(target[split]),
        "deviation": to_json_number(deviations[split, label]),
        "labels_judged": int((totals >= MIN_PEOPLE).sum()),
    }


def _find_largest_difference(
    label_names: tuple[str, ...], counts: NDArray[np.int64], n_people: NDArray[np.int64]
) -> dict[str, Any] | None:
    """The label whose share of people differs most between two splits that have people."""
    used = np.flatnonzero(n_people)
    if len(used) < 2:
        return None
    shares = counts[used] / n_people[used, None]
    label = int((shares.max(axis=0) - shares.min(axis=0)).argmax())
    high, low = int(shares[:, label].argmax()), int(shares[:, label].argmin())
    return {
        "label": label_names[label],
        "splits": [SPLITS[used[high]], SPLITS[used[low]]],
        "shares": [to_json_number(shares[high, label]), to_json_number(shares[low, label])],
        "difference": to_json_number(shares[high, label] - shares[low, label]),
    }


def _describe_steps(data: DataSet) -> list[dict[str, Any]] | None:
    """The labels at each step: all annotated people, those selected for train, and train after balancing.

    With sampling weights the last step has the shares that sampling leads to, and no counts.

    Returns:
        None where there are no splits of our own or train was not balanced.
    """
    if data.manifest is None or data.manifest.balance.get("rule", "none") == "none":
        return None
    selected = data.indicator[data.selected_rows_of["train"]]
    train = data.indicator[data.rows_of["train"]]
    if data.sampling_weights is None:
        balanced = _describe_step("balanced", train, data.label_names)
    else:
        shares = data.sampling_weights @ train / max(len(train), 1)
        balanced = _describe_step("balanced", train, data.label_names) | {
            "label_counts": None,
            "label_shares": to_json_numbers(data.label_names, shares),
            "mean_imbalance_ratio": to_json_number(_mean_ratio(shares)),
        }
    return [
        _describe_step("annotated", data.indicator, data.label_names),
        _describe_step("selected", selected, data.label_names),
        balanced,
    ]


def _describe_step(name: str, indicator: NDArray[np.uint8], label_names: tuple[str, ...]) -> dict[str, Any]:
    counts = label_counts(indicator)
    return {
        "step": name,
        "people": len(indicator),
        "label_counts": to_json_numbers(label_names, counts),
        "label_shares": to_json_numbers(label_names, counts / len(indicator) if len(indicator) else counts * np.nan),
        "mean_imbalance_ratio": to_json_number(mean_imbalance_ratio(indicator)),
    }


def _mean_ratio(shares: NDArray[np.float64]) -> float:
    """MeanIR of labels with these shares, see ``mean_imbalance_ratio``."""
    present = shares[shares > 0]
    return float((present.max() / present).mean()) if len(present) else float("nan")


def audit_annotated_again(data: DataSet) -> dict[str, Any]:
    """People with more than one row: in which splits, and what the split did about them or would do."""
    rows = np.arange(data.people.num_rows)
    again = np.flatnonzero(data.first_row != rows)
    boxes = vectors_to_array(data.people["body_bbox"], 4)
    own_rows = source_splits(data.people)
    return {
        "rows": len(again),
        "people": len(np.unique(data.first_row[again])),
        "nearly_equal_boxes": int((boxes[again] != boxes[data.first_row[again]]).any(axis=1).sum()),
        "by_source_splits": count_split_pairs(data.first_row, data.people["source_split"].to_pylist()),
        "source_splits": _count_also_in_train(data.first_row, own_rows),
        "split": None if data.manifest is None else _audit_leaks(data, data.manifest),
        "would_leave_out": {
            "stratified": len(again),
            "emotic": int((find_leaks(data.first_row, _number_splits(own_rows, len(rows)), _TRAIN) >= 0).sum()),
        },
    }


def _audit_leaks(data: DataSet, manifest: Manifest) -> dict[str, Any]:
    """What the split did about the people with more than one row, and who is still in two splits or twice in one."""
    described = manifest.split.get("leaks", {})
    n_twice = sum(len(rows) - len(np.unique(data.first_row[rows])) for rows in data.rows_of.values())
    return {
        "by": manifest.split["by"],
        **{key: described.get(key) for key in ("rule", "labels", "rows_left_out", "file")},
        "splits": _count_also_in_train(data.first_row, data.rows_of),
        "rows_again_in_their_split": n_twice,
    }


def _count_also_in_train(
    first_row: NDArray[np.int64], rows_of: Mapping[str, NDArray[np.int64]]
) -> dict[str, dict[str, Any]]:
    """For each split but train: its rows, and how many of them are people of train."""
    counts: dict[str, dict[str, Any]] = {}
    for name in SPLITS[:_TRAIN] + SPLITS[_TRAIN + 1 :]:
        rows = rows_of[name]
        n_in_train = int(np.isin(first_row[rows], first_row[rows_of["train"]]).sum())
        share = to_json_number(n_in_train / len(rows)) if len(rows) else None
        counts[name] = {"people": len(rows), "in_train": n_in_train, "share": share}
    return counts


def _number_splits(rows_of: Mapping[str, NDArray[np.int64]], n: int) -> NDArray[np.int64]:
    """(n,) position in ``SPLITS`` of each row's split; train for rows in none."""
    numbers = np.full(n, _TRAIN, np.int64)
    for number, name in enumerate(SPLITS):
        numbers[rows_of[name]] = number
    return numbers
