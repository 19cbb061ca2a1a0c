"""How far annotators agree on each label: Krippendorff's alpha, where what single annotators chose is known."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from emoface.auditing.data_set import DataSet
from emoface.metrics.agreement import krippendorff_alpha
from emoface.metrics.multilabel import mean_of_defined
from emoface.storage.records import to_json_number, to_json_numbers
from emoface.storage.tables import vectors_to_array


def audit_agreement(data: DataSet) -> dict[str, Any]:
    """Computes alpha among the annotators of a person, and between the two rows of people who are annotated twice."""
    votes = vectors_to_array(data.people["annotator_votes"], len(data.label_names))
    n_annotators = np.nan_to_num(data.people["n_annotators"].to_numpy(zero_copy_only=False).astype(np.float64))
    has_votes = ~np.isnan(votes).any(axis=1)
    n_known = np.where(has_votes, n_annotators, 0).astype(np.int64)
    persons, number = np.unique(data.first_row, return_inverse=True)
    n_rows = np.bincount(number, minlength=len(persons))
    chosen = np.zeros((len(persons), len(data.label_names)), np.int64)
    np.add.at(chosen, number, data.indicator)
    return {
        "one_annotator": int((n_known == 1).sum()),
        "unknown_annotators": int((n_known == 0).sum()),
        "annotators": _describe(np.nan_to_num(votes).astype(np.int64), n_known, data.label_names),
        "annotated_again": _describe(chosen, n_rows, data.label_names),
    }


def _describe(votes: NDArray[np.int64], n: NDArray[np.int64], label_names: tuple[str, ...]) -> dict[str, Any]:
    """Alpha of each label; ``people`` is the number of people with two judgements or more."""
    alpha = krippendorff_alpha(votes, n)
    return {
        "people": int((n >= 2).sum()),
        "mean_alpha": to_json_number(mean_of_defined(alpha)),
        "alpha": to_json_numbers(label_names, alpha),
    }
