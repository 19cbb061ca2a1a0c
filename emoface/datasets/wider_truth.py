"""WIDER FACE's ground truth of its validation photos, in MATLAB files.

``wider_face_val.mat`` contains events, photos and boxes; ``wider_easy_val.mat``, ``wider_medium_val.mat`` and
``wider_hard_val.mat`` list the boxes that count in each setting. All other boxes are ignored in that setting.

Source: Yang et al., "WIDER FACE", 2016, ``eval_tools/ground_truth``.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from emoface.errors import AnnotationsError
from emoface.metrics.wider_face import SETTINGS, WiderTruth
from emoface.storage.matlab_files import read_matlab

_REMEDY = "it is in WIDER FACE's eval_tools/ground_truth, download it again"


def read_wider_truth(folder: Path) -> WiderTruth:
    """Reads the four files of ``eval_tools/ground_truth``.

    Args:
        folder: The folder that contains ``wider_face_val.mat`` and one ``wider_*_val.mat`` per setting.

    Raises:
        AnnotationsError: A file is missing, damaged or has another layout.
    """
    path = folder / "wider_face_val.mat"
    names = ("event_list", "file_list", "face_bbx_list")
    photos = read_matlab(path, _to_photos, AnnotationsError, _REMEDY, names)
    boxes = tuple(xywh for _, xywh in photos)
    counts = {}
    for name in SETTINGS:
        numbers = read_matlab(folder / f"wider_{name}_val.mat", _to_numbers, AnnotationsError, _REMEDY, ("gt_list",))
        counts[name] = _to_masks(folder, numbers, boxes)
    return WiderTruth(tuple(image for image, _ in photos), boxes, counts)


def _to_photos(variables: dict[str, Any]) -> list[tuple[str, NDArray[np.float64]]]:
    """The name and the boxes (n, 4) of each photo."""
    photos = []
    events = (variables[name].ravel() for name in ("event_list", "file_list", "face_bbx_list"))
    for event, names, boxes in zip(*events, strict=True):
        for name, xywh in zip(names.ravel(), boxes.ravel(), strict=True):
            photos.append((f"{_word(event)}/{_word(name)}", xywh.astype(np.float64).reshape(-1, 4)))
    return photos


def _to_numbers(variables: dict[str, Any]) -> list[NDArray[np.int64]]:
    """The numbers of the boxes that count in each photo, from 1."""
    return [numbers.ravel().astype(np.int64) for event in variables["gt_list"].ravel() for numbers in event.ravel()]


def _to_masks(
    folder: Path, numbers: Sequence[NDArray[np.int64]], boxes: Sequence[NDArray[np.float64]]
) -> tuple[NDArray[np.bool_], ...]:
    if len(numbers) != len(boxes):
        problem = f"{len(numbers)} and {len(boxes)} photos"
    elif wrong := next(_wrong_numbers(numbers, boxes), None):
        problem = wrong
    else:
        return tuple(np.isin(np.arange(1, len(xywh) + 1), kept) for kept, xywh in zip(numbers, boxes, strict=True))
    raise AnnotationsError(
        f"{folder}: its files do not belong together ({problem}); expected those of WIDER FACE's eval_tools"
    )


def _wrong_numbers(numbers: Sequence[NDArray[np.int64]], boxes: Sequence[NDArray[np.float64]]) -> Iterator[str]:
    for kept, xywh in zip(numbers, boxes, strict=True):
        if kept.size and not 1 <= kept.min() <= kept.max() <= len(xywh):
            yield f"box {kept.max() if kept.max() > len(xywh) else kept.min()} of {len(xywh)}"


def _word(cell: NDArray[Any]) -> str:
    return str(cell.ravel()[0])
