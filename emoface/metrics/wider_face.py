"""WIDER FACE's own protocol: its ground truth in MATLAB files, and its easy, medium and hard average precision.

``wider_face_val.mat`` contains events, photos and boxes; ``wider_easy_val.mat``, ``wider_medium_val.mat`` and
``wider_hard_val.mat`` list the boxes that count in each setting. All other boxes are ignored in that setting.

Source: Yang et al., "WIDER FACE", 2016, ``eval_tools``. As in that code, the width and height of a box are the
difference of its corners plus 1; scores are scaled to 0-1 over all photos and the curve is read at 1,000 thresholds; a
photo without boxes or without detections adds its faces to the total, but no detections.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from emoface.errors import AnnotationsError
from emoface.vision.detections import Detections

SETTINGS = ("easy", "medium", "hard")

_N_THRESHOLDS = 1000
_MIN_IOU = 0.5


@dataclass(frozen=True)
class WiderTruth:
    """The ground truth of WIDER FACE's validation photos.

    Attributes:
        images: ``event/photo`` of each photo, without suffix.
        xywh: (n, 4) true boxes of each photo, pixels.
        counts: (n,) whether each box counts, by setting and photo.
    """

    images: tuple[str, ...]
    xywh: tuple[NDArray[np.float64], ...]
    counts: dict[str, tuple[NDArray[np.bool_], ...]]


def read_wider_truth(folder: Path) -> WiderTruth:
    """Reads the four files of ``eval_tools/ground_truth``.

    Args:
        folder: The folder that contains ``wider_face_val.mat`` and one ``wider_*_val.mat`` per setting.

    Raises:
        AnnotationsError: A file is missing, damaged or has another layout.
    """
    path = folder / "wider_face_val.mat"
    variables = _load(path, ("event_list", "file_list", "face_bbx_list"))
    kept = {name: _load(folder / f"wider_{name}_val.mat", ("gt_list",))["gt_list"] for name in SETTINGS}
    images: list[str] = []
    boxes: list[NDArray[np.float64]] = []
    counts: dict[str, list[NDArray[np.bool_]]] = {name: [] for name in SETTINGS}
    try:
        for event_index, event in enumerate(variables["event_list"].ravel()):
            for photo_index, photo in enumerate(variables["file_list"].ravel()[event_index].ravel()):
                xywh = variables["face_bbx_list"].ravel()[event_index].ravel()[photo_index]
                xywh = xywh.astype(np.float64).reshape(-1, 4)
                images.append(f"{_word(event)}/{_word(photo)}")
                boxes.append(xywh)
                for name in SETTINGS:
                    numbers = kept[name].ravel()[event_index].ravel()[photo_index].ravel().astype(int)  # from 1
                    mask = np.zeros(len(xywh), np.bool_)
                    mask[numbers - 1] = True
                    counts[name].append(mask)
    except (IndexError, ValueError, AttributeError) as error:
        raise AnnotationsError(
            f"{folder}: its files do not belong together ({error}); expected those of WIDER FACE's eval_tools"
        ) from error
    return WiderTruth(tuple(images), tuple(boxes), {name: tuple(masks) for name, masks in counts.items()})


def wider_average_precision(found: Sequence[Detections], truth: WiderTruth, setting: str) -> float:
    """Computes average precision as WIDER FACE's evaluation code does.

    Args:
        found: The detections of each photo of ``truth``.
        truth: The true faces.
        setting: ``easy``, ``medium`` or ``hard``.

    Returns:
        0-1, best 1; nan where no face counts.
    """
    n_faces = sum(int(mask.sum()) for mask in truth.counts[setting])
    if n_faces == 0:
        return float("nan")
    conf = _scale_scores([one.conf for one in found])
    thresholds = 1 - np.arange(1, _N_THRESHOLDS + 1) / _N_THRESHOLDS
    n_found, n_true = np.zeros(_N_THRESHOLDS), np.zeros(_N_THRESHOLDS)
    for one, score, xywh, counts in zip(found, conf, truth.xywh, truth.counts[setting], strict=True):
        if len(one) == 0 or len(xywh) == 0:
            continue
        order = np.argsort(-score, kind="stable")
        is_counted, is_true = _match(one.xyxy[order].astype(np.float64), xywh, counts)
        n_above = (score[order][None] >= thresholds[:, None]).sum(axis=1)
        n_found += np.append(0, np.cumsum(is_counted))[n_above]
        n_true += np.append(0, np.cumsum(is_true))[n_above]
    precision = np.divide(n_true, n_found, out=np.zeros(_N_THRESHOLDS), where=n_found > 0)
    recall = np.concatenate([[0.0], n_true / n_faces])
    highest = np.maximum.accumulate(precision[::-1])[::-1]
    return float(np.sum(np.diff(recall) * highest))


def _match(
    xyxy: NDArray[np.float64], xywh: NDArray[np.float64], counts: NDArray[np.bool_]
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Finds which detections of one photo, best first, count, and which are the first on a face that counts."""
    iou = _iou_of_whole_pixels(xyxy, xywh)
    is_counted, is_true = np.ones(len(xyxy), np.bool_), np.zeros(len(xyxy), np.bool_)
    taken = np.zeros(len(xywh), np.bool_)
    for place, nearest in enumerate(iou.argmax(axis=1)):
        if iou[place, nearest] < _MIN_IOU:
            continue
        if not counts[nearest]:
            is_counted[place] = False
        elif not taken[nearest]:
            taken[nearest] = is_true[place] = True
    return is_counted, is_true


def _iou_of_whole_pixels(xyxy: NDArray[np.float64], xywh: NDArray[np.float64]) -> NDArray[np.float64]:
    """Computes the (n, m) IoU of boxes whose corner pixels belong to the box."""
    true_xyxy = np.concatenate([xywh[:, :2], xywh[:, :2] + xywh[:, 2:]], axis=1)
    low = np.maximum(xyxy[:, None, :2], true_xyxy[None, :, :2])
    high = np.minimum(xyxy[:, None, 2:], true_xyxy[None, :, 2:])
    shared = np.clip(high - low + 1, 0, None).prod(axis=2)
    areas = [(box[:, 2:] - box[:, :2] + 1).prod(axis=1) for box in (xyxy, true_xyxy)]
    return np.asarray(shared / (areas[0][:, None] + areas[1][None] - shared))


def _scale_scores(conf: Sequence[NDArray[np.float32]]) -> list[NDArray[np.float64]]:
    """Scales the scores of all photos so that the lowest is 0 and the highest is 1."""
    whole = np.concatenate([np.zeros(0), *conf]).astype(np.float64)
    if whole.size == 0 or whole.max() == whole.min():
        return [np.ones(len(one)) for one in conf]
    low, span = whole.min(), whole.max() - whole.min()
    return [(one.astype(np.float64) - low) / span for one in conf]


def _load(path: Path, names: tuple[str, ...]) -> dict[str, Any]:
    import scipy.io
    from scipy.io.matlab import MatReadError

    if not path.is_file():
        raise AnnotationsError(f"{path}: no such file; it is in WIDER FACE's eval_tools/ground_truth")
    try:
        variables: dict[str, Any] = scipy.io.loadmat(str(path), variable_names=names)
    except (MatReadError, zlib.error, ValueError, TypeError, OSError) as error:
        raise AnnotationsError(f"{path}: is no MATLAB 5 file ({error}); download it again") from error
    missing = [name for name in names if name not in variables]
    if missing:
        raise AnnotationsError(f"{path}: has no {', '.join(missing)}; expected WIDER FACE's ground truth")
    return variables


def _word(cell: NDArray[Any]) -> str:
    return str(cell.ravel()[0])
