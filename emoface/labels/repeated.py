"""People who are annotated more than once: which of their rows a split takes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


def choose_row_of_each(first_row: NDArray[np.int64], preference: NDArray[np.int64]) -> NDArray[np.int64]:
    """The row that stands for each person: of a person's rows the one of highest preference, the first of equals.

    Args:
        first_row: (n,) the first row of the same person; the row itself where it is the first or only one.
        preference: (n,) how much each row is preferred.

    Returns:
        (n,) for each row, the chosen row of its person.

    Example:
        >>> choose_row_of_each(np.array([0, 1, 0, 0]), np.array([0, 0, 2, 1])).tolist()
        [2, 1, 2, 2]
    """
    order = np.lexsort((np.arange(len(first_row)), -preference, first_row))
    persons, starts = np.unique(first_row[order], return_index=True)
    return np.asarray(order[starts][np.searchsorted(persons, first_row)], np.int64)


def find_leaks(first_row: NDArray[np.int64], split: Sequence[int] | NDArray[np.int64], train: int) -> NDArray[np.int64]:
    """People of train who are evaluated on too.

    Args:
        first_row: (n,) the first row of the same person.
        split: (n,) number of each row's split.
        train: Number of the split that is trained on.

    Returns:
        (n,) for each row of train, the row of the same person in another split; -1 where there is none, and for rows of
        other splits.

    Example:
        >>> find_leaks(np.array([0, 1, 0]), [0, 0, 1], train=0).tolist()
        [2, -1, -1]
    """
    splits = np.asarray(split)
    evaluated = choose_row_of_each(first_row, (splits != train).astype(np.int64))
    return np.where((splits == train) & (splits[evaluated] != train), evaluated, -1)


def count_split_pairs(first_row: NDArray[np.int64], splits: Sequence[str]) -> dict[str, int]:
    """Counts the rows whose person an earlier row describes too, by the splits of the two rows.

    Args:
        first_row: (n,) the first row of the same person; the row itself where it is the first or only one.
        splits: The split of each row, n names.

    Returns:
        Number of rows by pair of splits, such as ``train and val``; ``within a split`` where both rows are in one.

    Example:
        >>> count_split_pairs(np.array([0, 0, 0, 3]), ["train", "train", "val", "val"])
        {'train and val': 1, 'within a split': 1}
    """
    again = np.flatnonzero(first_row != np.arange(len(first_row))).tolist()
    named = ((splits[first_row[row]], splits[row]) for row in again)
    pairs = Counter("within a split" if one == other else f"{one} and {other}" for one, other in named)
    return dict(sorted(pairs.items()))
