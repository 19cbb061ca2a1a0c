"""Gender and age, each alone, and what losing the people without a face does to each label."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from emoface.auditing.data_set import DataSet
from emoface.labels.association import LEVEL, Association, associate, holm, wilson_interval
from emoface.storage.records import to_json_number, to_json_numbers

GROUPINGS = ("gender", "age")
UNKNOWN = "unknown"
SIGNIFICANCE = 0.05


def audit_groups(data: DataSet) -> dict[str, Any]:
    """Compares the people of each gender and each age with all other people whose gender or age is known.

    Each person counts once, by the first of their rows.
    """
    return {by: _audit_grouping(data, by) for by in GROUPINGS}


def _audit_grouping(data: DataSet, by: str) -> dict[str, Any]:
    once = data.once
    words = np.array([word or UNKNOWN for word in data.people[by].to_pylist()], dtype=object)[once]
    has_face = None if data.has_face is None else data.has_face[once]
    known = sorted(set(words) - {UNKNOWN}, key=lambda word: (-int((words == word).sum()), word))
    return {
        "groups": {
            word: _describe_group(words == word, has_face) for word in [*known, UNKNOWN] if (words == word).any()
        },
        "face_difference": None if has_face is None else _compare_faces(words, known, has_face),
        "labels": _compare_labels(words, known, data.indicator[once], data.label_names),
    }


def _describe_group(is_member: NDArray[np.bool_], has_face: NDArray[np.bool_] | None) -> dict[str, Any]:
    n_people = int(is_member.sum())
    if has_face is None:
        return {"people": n_people, "with_face": None, "face_share": None, "interval": [None, None]}
    n_faces = int((is_member & has_face).sum())
    low, high = wilson_interval(n_faces, n_people)
    return {
        "people": n_people,
        "with_face": n_faces,
        "face_share": to_json_number(n_faces / n_people),
        "interval": [to_json_number(low), to_json_number(high)],
    }


def _compared(known: list[str]) -> list[str]:
    """The groups that are compared with all others: of two groups only the smaller, because the other is its mirror."""
    return known[1:] if len(known) == 2 else known if len(known) > 2 else []


def _compare_faces(words: NDArray[np.object_], known: list[str], has_face: NDArray[np.bool_]) -> dict[str, Any]:
    kept = words != UNKNOWN
    return {
        word: _difference_to_json(associate((words[kept] == word)[:, None], has_face[kept]), 0)
        for word in _compared(known)
    }


def _compare_labels(
    words: NDArray[np.object_], known: list[str], indicator: NDArray[np.uint8], label_names: tuple[str, ...]
) -> dict[str, Any]:
    """Per group, the share of its people with each label, less that of all other people of known group."""
    kept = words != UNKNOWN
    shares = {}
    for word in known:
        members = indicator[words == word]
        shares[word] = to_json_numbers(label_names, members.mean(axis=0))
    differences = {}
    for word in _compared(known):
        found = [associate((words[kept] == word)[:, None], column) for column in indicator[kept].T]
        corrected = holm([one.p_value[0] for one in found])
        differences[word] = {
            name: {**_difference_to_json(one, 0), "corrected_p_value": to_json_number(p_value)}
            for name, one, p_value in zip(label_names, found, corrected, strict=True)
        }
    return {"shares": shares, "differences": differences}


def _difference_to_json(found: Association, k: int) -> dict[str, Any]:
    return {
        "difference": to_json_number(found.difference[k]),
        "interval": [to_json_number(found.low[k]), to_json_number(found.high[k])],
        "p_value": to_json_number(found.p_value[k]),
    }


def audit_face_loss(data: DataSet) -> dict[str, Any] | None:
    """Tests for each label whether people with it have a face more or less often than people without it.

    Each person counts once, by the first of their rows. The p-values are corrected for the number of labels by Holm's
    method. ``prevalence_change`` is the share of people with the label among those with a face, less that among all.

    Returns:
        None before the faces were detected.
    """
    if data.has_face is None:
        return None
    indicator, has_face = data.indicator[data.once], data.has_face[data.once]
    found = associate(indicator, has_face)
    corrected = holm(found.p_value)
    before = _mean_of_rows(indicator)
    after = _mean_of_rows(indicator[has_face])
    labels: Mapping[str, dict[str, Any]] = {
        name: {
            "with_label": int(found.n_with[k]),
            "face_share_with_label": to_json_number(found.share_with[k]),
            "face_share_without_label": to_json_number(found.share_without[k]),
            **_difference_to_json(found, k),
            "corrected_p_value": to_json_number(corrected[k]),
            "is_significant": bool(corrected[k] < SIGNIFICANCE),
            "prevalence": to_json_number(before[k]),
            "prevalence_with_face": to_json_number(after[k]),
            "prevalence_change": to_json_number(after[k] - before[k]),
        }
        for k, name in enumerate(data.label_names)
    }
    return {
        "people": len(indicator),
        "with_face": int(has_face.sum()),
        "correction": "Holm",
        "significance": SIGNIFICANCE,
        "level": LEVEL,
        "significant": [name for name, one in labels.items() if one["is_significant"]],
        "labels": labels,
    }


def _mean_of_rows(indicator: NDArray[np.uint8]) -> NDArray[np.float64]:
    return indicator.mean(axis=0) if len(indicator) else np.full(indicator.shape[1], np.nan)
