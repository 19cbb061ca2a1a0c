"""Metrics of a face detector: average precision, recall by face size, landmark error."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from emoface.vision.boxes import box_areas, box_iou
from emoface.vision.detections import Detections

FALSE, TRUE, IGNORED = 0, 1, -1
UNMATCHED = -1


@dataclass(frozen=True)
class LabelledFaces:
    """The true faces of one photo, in original-image pixels.

    Attributes:
        xyxy: (n, 4) float32 boxes.
        landmarks: (n, 5, 2) float32 landmarks; nan where a face has none.
        ignored: (n,) True for faces that do not count, whether found or not: too small, too blurred, not labelled well.
    """

    xyxy: NDArray[np.float32]
    landmarks: NDArray[np.float32]
    ignored: NDArray[np.bool_]

    def __post_init__(self) -> None:
        n = len(self.xyxy)
        for name, want in (("xyxy", (n, 4)), ("landmarks", (n, 5, 2)), ("ignored", (n,))):
            found = getattr(self, name).shape
            if found != want:
                raise ValueError(f"LabelledFaces.{name} has shape {found}, expected {want}")

    def __len__(self) -> int:
        return len(self.xyxy)


@dataclass(frozen=True)
class PhotoMatch:
    """The detections of one photo matched with its true faces.

    Attributes:
        conf: (n,) scores in descending order.
        outcome: (n,) ``TRUE``, ``FALSE`` or ``IGNORED``.
        face_index: (n,) index of the true face that a ``TRUE`` detection found, else ``UNMATCHED``.
        detection_index: (n,) index of each entry among the detections of the photo.
    """

    conf: NDArray[np.float32]
    outcome: NDArray[np.int8]
    face_index: NDArray[np.int64]
    detection_index: NDArray[np.int64]


def match_detections(found: Detections, truth: LabelledFaces, iou_threshold: float = 0.5) -> PhotoMatch:
    """Matches the detections of one photo with its true faces, in descending order of score.

    A detection belongs to the true face that it overlaps most. The first detection of a face above the threshold is
    a true positive, each further one a false positive, and a detection of an ignored face is not counted.

    Args:
        found: The detections.
        truth: The true faces.
        iou_threshold: Smallest intersection over union (IoU) of a true positive.

    Source:
        WIDER FACE's evaluation (Yang et al. 2016), ``eval_tools/image_evaluation.m``.
    """
    order = np.argsort(-found.conf, kind="stable")
    outcome = np.zeros(len(found), dtype=np.int8)
    face_index = np.full(len(found), UNMATCHED, dtype=np.int64)
    if len(truth) and len(found):
        iou = box_iou(found.xyxy[order], truth.xyxy)
        taken = np.zeros(len(truth), dtype=np.bool_)
        for place, nearest in enumerate(iou.argmax(axis=1)):
            if iou[place, nearest] < iou_threshold:
                continue
            if truth.ignored[nearest]:
                outcome[place] = IGNORED
            elif not taken[nearest]:
                taken[nearest] = True
                outcome[place], face_index[place] = TRUE, nearest
    return PhotoMatch(found.conf[order], outcome, face_index, order)


def average_precision(conf: NDArray[np.float32], is_true: NDArray[np.bool_], n_faces: int) -> float:
    """Computes the area under the precision-recall curve, with precision made monotone from the right.

    Args:
        conf: (n,) scores of all detections of all photos; equal scores enter the curve together.
        is_true: (n,) whether each detection found a face.
        n_faces: Number of true faces that count.

    Returns:
        0-1, best 1; nan where no true face counts.

    Example:
        >>> conf = np.array([0.9, 0.8, 0.7], np.float32)
        >>> round(average_precision(conf, np.array([True, False, True]), n_faces=2), 4)
        0.8333

    Source:
        Everingham et al., "The PASCAL VOC Challenge", 2010 (the all-point form). WIDER FACE reads the same
        curve at 1,000 thresholds; here every score is a threshold.
    """
    if n_faces == 0:
        return float("nan")
    order = np.argsort(-conf, kind="stable")
    last_of_score = np.append(np.diff(conf[order]) != 0, True)[: len(order)]
    n_true = np.cumsum(is_true[order])[last_of_score]
    n_found = np.arange(1, len(order) + 1)[last_of_score]
    recall = np.concatenate([[0.0], n_true / n_faces])
    precision = np.maximum.accumulate((n_true / n_found)[::-1])[::-1]
    return float(np.sum(np.diff(recall) * precision))


@dataclass(frozen=True)
class DetectionMetrics:
    """Metrics of a detector on a set of photos.

    Attributes:
        average_precision: Average precision at the IoU threshold, 0-1; nan without faces.
        recall: Share of the true faces that were found, 0-1; nan without faces.
        false_per_photo: Number of false positives per photo.
        landmark_error: Mean distance between detected and true landmarks, divided by the square root of the true
            box's area; nan where no found face has landmarks.
        n_faces: Number of true faces that count.
    """

    average_precision: float
    recall: float
    false_per_photo: float
    landmark_error: float
    n_faces: int


def measure_detections(
    found: Sequence[Detections], truth: Sequence[LabelledFaces], iou_threshold: float = 0.5
) -> DetectionMetrics:
    """Computes average precision, recall, false positives per photo and landmark error on a set of photos.

    Args:
        found: The detections of each photo.
        truth: The true faces of each photo.
        iou_threshold: Smallest intersection over union (IoU) of a true positive.

    Raises:
        ValueError: The two sequences differ in length.
    """
    matches = [match_detections(f, t, iou_threshold) for f, t in zip(found, truth, strict=True)]
    n_faces = sum(int((~one.ignored).sum()) for one in truth)
    conf = np.concatenate([np.zeros(0, np.float32), *(match.conf for match in matches)])
    outcome = np.concatenate([np.zeros(0, np.int8), *(match.outcome for match in matches)])
    counted = outcome != IGNORED
    is_true = outcome == TRUE
    errors = [_landmark_errors(f, t, m) for f, t, m in zip(found, truth, matches, strict=True)]
    error = np.concatenate([np.zeros(0), *errors])
    return DetectionMetrics(
        average_precision=average_precision(conf[counted], is_true[counted], n_faces),
        recall=float(is_true.sum() / n_faces) if n_faces else float("nan"),
        false_per_photo=float((outcome == FALSE).sum() / len(matches)) if matches else float("nan"),
        landmark_error=float(error.mean()) if error.size else float("nan"),
        n_faces=n_faces,
    )


def _landmark_errors(found: Detections, truth: LabelledFaces, match: PhotoMatch) -> NDArray[np.float64]:
    """Computes the mean landmark error of each found face that has true landmarks."""
    hit = match.outcome == TRUE
    faces = match.face_index[hit]
    distance = np.linalg.norm(
        found.landmarks[match.detection_index[hit]].astype(np.float64) - truth.landmarks[faces], axis=2
    ).mean(axis=1)
    error = distance / np.sqrt(np.maximum(box_areas(truth.xyxy[faces]), 1e-9))
    return np.asarray(error[np.isfinite(error)])


def keep_sizes(
    found: Detections, truth: LabelledFaces, min_size: float, max_size: float, iou_threshold: float = 0.5
) -> tuple[Detections, LabelledFaces]:
    """Restricts one photo to the faces in a range of sizes.

    True faces outside the range are marked as ignored. Detections outside the range that overlap no true face are
    removed, because they would otherwise be false positives in every range.

    Args:
        found: The detections.
        truth: The true faces.
        min_size: Smallest square root of the box area, pixels, inclusive.
        max_size: Largest square root of the box area, pixels, exclusive.
        iou_threshold: Smallest IoU with which a detection belongs to a face.

    Returns:
        The detections that remain, and all true faces with those outside the range ignored.
    """
    true_size, found_size = np.sqrt(box_areas(truth.xyxy)), np.sqrt(box_areas(found.xyxy))
    ignored = truth.ignored | (true_size < min_size) | (true_size >= max_size)
    on_a_face = (
        (box_iou(found.xyxy, truth.xyxy) >= iou_threshold).any(axis=1) if len(truth) else np.zeros(len(found), np.bool_)
    )
    keep = on_a_face | ((found_size >= min_size) & (found_size < max_size))
    return found[keep], LabelledFaces(truth.xyxy, truth.landmarks, ignored)
