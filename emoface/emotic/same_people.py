"""People who are annotated more than once.

EMOTIC lists 376 photos in train and again in val; 893 of val's people are people of train with the very same body box.
Boxes that are merely close are mostly two people: of 67 pairs in one photo whose boxes overlap by 0.7 to 0.97, 29 have
the same gender. So two rows are one person only where the boxes are equal, or nearly equal and gender and age agree.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from emoface.vision.boxes import box_iou

NEAR_IOU = 0.97
"""Boxes that overlap by this much or more are nearly equal."""


@dataclass(frozen=True)
class SamePeople:
    """Which rows of a table are a person that an earlier row is too.

    Attributes:
        first_row: (n,) row of the first annotation of the same person; the row itself where it is the first.
        is_near: (n,) whether the boxes of the two are nearly equal, not equal.
    """

    first_row: NDArray[np.int64]
    is_near: NDArray[np.bool_]


def find_same_people(
    images: Sequence[str],
    body_xyxy: NDArray[np.float32],
    genders: Sequence[str | None],
    ages: Sequence[str | None],
) -> SamePeople:
    """Finds the people who are annotated more than once.

    Two rows of one photo are the same person where their body boxes are equal; or where the boxes overlap by
    ``NEAR_IOU`` or more and neither gender nor age differs.

    Args:
        images: The photo of each row, n of them.
        body_xyxy: (n, 4) body boxes, nan where a person has none.
        genders: Of each row, None where it is not known.
        ages: Of each row, None where it is not known.

    Example:
        >>> boxes = np.array([[0, 0, 40, 90], [50, 0, 90, 90], [0, 0, 40, 90]], np.float32)
        >>> find_same_people(["a.jpg"] * 3, boxes, ["Male"] * 3, ["Kid", "Adult", "Adult"]).first_row.tolist()
        [0, 1, 0]
    """
    first_row = np.arange(len(images), dtype=np.int64)
    is_near = np.zeros(len(images), np.bool_)
    rows_of: dict[str, list[int]] = {}
    for row, image in enumerate(images):
        rows_of.setdefault(image, []).append(row)
    for rows in rows_of.values():
        if len(rows) == 1:
            continue
        iou = box_iou(body_xyxy[rows], body_xyxy[rows])
        for later in range(1, len(rows)):
            for earlier in range(later):
                row, other = rows[later], rows[earlier]
                is_equal = bool((body_xyxy[row] == body_xyxy[other]).all())
                agrees = all(words[row] is None or words[other] in (None, words[row]) for words in (genders, ages))
                if is_equal or (iou[later, earlier] >= NEAR_IOU and agrees):
                    first_row[row], is_near[row] = first_row[other], not is_equal
                    break
    return SamePeople(first_row, is_near)
