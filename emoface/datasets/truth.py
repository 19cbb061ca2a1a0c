"""What the split tables know of people beyond their labels: gender, age, annotators, and the truth of train."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from emoface.datasets.manifest import Manifest
from emoface.errors import TableError
from emoface.schema import DIMENSIONS, SPLIT_SCHEMA
from emoface.storage.tables import read_table, vectors_to_array

_REMEDY = "rebuild it with 'emoface split DIR'"


@dataclass(frozen=True)
class TrainTruth:
    """The truth of the m people of train, from which chance levels are computed.

    Attributes:
        labels: (m, 26) true labels, 0 or 1.
        vad: (m, 3) true valence, arousal and dominance, 1-10, nan where EMOTIC has none.
    """

    labels: NDArray[np.uint8]
    vad: NDArray[np.float32]


@dataclass(frozen=True)
class PeopleFacts:
    """Facts of n people of a split that no prediction needs, but groups and the annotators' agreement do.

    Attributes:
        gender: (n,) EMOTIC's word, None where unknown.
        age: (n,) EMOTIC's word, None where unknown.
        annotator_votes: (n, 26) number of annotators who chose each label; 0 where ``n_annotators`` is 0.
        n_annotators: (n,) number of annotators; 0 where what single annotators chose is unknown.
    """

    gender: NDArray[np.object_]
    age: NDArray[np.object_]
    annotator_votes: NDArray[np.int64]
    n_annotators: NDArray[np.int64]


def read_train_truth(manifest: Manifest) -> TrainTruth:
    """Reads labels and ratings of all people of a data set's train split.

    Raises:
        TableError: The table of train is missing or has other columns.
    """
    table = read_table(manifest.split_path("train"), SPLIT_SCHEMA, _REMEDY, ["labels", *DIMENSIONS])
    return TrainTruth(
        labels=vectors_to_array(table["labels"], len(manifest.label_names)).astype(np.uint8),
        vad=np.stack([_to_floats(table[name]) for name in DIMENSIONS], axis=1),
    )


def read_people_facts(manifest: Manifest, split: str, person_ids: Sequence[str]) -> PeopleFacts:
    """Reads the facts of people of a split.

    Args:
        manifest: The data set.
        split: ``train``, ``val`` or ``test``.
        person_ids: The people, in the order of the result.

    Raises:
        TableError: The table of the split is missing or has other columns, or lacks one of the people.
    """
    path = manifest.split_path(split)
    columns = ["person_id", "gender", "age", "annotator_votes", "n_annotators"]
    table = read_table(path, SPLIT_SCHEMA, _REMEDY, columns)
    row_of = {person_id: row for row, person_id in enumerate(table["person_id"].to_pylist())}
    unknown = [person_id for person_id in person_ids if person_id not in row_of]
    if unknown:
        raise TableError(
            f"{path}: {len(unknown)} of {len(person_ids)} predicted people are not in it, such as {unknown[0]}; "
            "expected people of this split: give the manifest of the data set that was predicted"
        )
    chosen = table.take(pa.array([row_of[person_id] for person_id in person_ids], pa.int64()))
    votes = vectors_to_array(chosen["annotator_votes"], len(manifest.label_names))
    has_votes = np.asarray(np.isfinite(votes).all(axis=1), np.bool_)
    n_annotators = _to_floats(chosen["n_annotators"])
    return PeopleFacts(
        gender=np.array(chosen["gender"].to_pylist(), dtype=object),
        age=np.array(chosen["age"].to_pylist(), dtype=object),
        annotator_votes=np.where(has_votes[:, None], votes, 0).astype(np.int64),
        n_annotators=np.where(has_votes & np.isfinite(n_annotators), n_annotators, 0).astype(np.int64),
    )


def _to_floats(column: pa.ChunkedArray) -> NDArray[np.float32]:
    values: NDArray[np.float32] = column.cast(pa.float32()).to_numpy().astype(np.float32)
    return values
