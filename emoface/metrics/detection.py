"""Measures of a face detector: average precision, recall by face size, landmark error."""

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
        landmarks: (n, 5, 2) float32; nan where a face has none.
        ignored: (n,) faces that neither help nor hurt: too small, too blurred, not labelled well.
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
    """How the detections of one photo fared.

    Attributes:
        conf: (n,) scores, best first.
        outcome: (n,) ``TRUE``, ``FALSE`` or ``IGNORED``.
        face_index: (n,) the true face that a ``TRUE`` detection found, else ``UNMATCHED``.
        detection_index: (n,) which detection of the photo each is.
    """

    conf: NDArray[np.float32]
    outcome: NDArray[np.int8]
    face_index: NDArray[np.int64]
    detection_index: NDArray[np.int64]


def match_detections(found: Detections, truth: LabelledFaces, iou_threshold: float = 0.5) -> PhotoMatch:
    """Holds the detections of one photo against its true faces, best score first.

    A detection belongs to the true face that it overlaps most. The first one above the threshold is a true
    one, a second one a false one, and one on an ignored face counts nowhere.

    Args:
        found: What the detector found.
        truth: What is there.
        iou_threshold: Least intersection over union of a true detection.

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
    """Area under the precision-recall curve, precision made monotone from the right.

    Args:
        conf: (n,) scores of all detections of all photos; equal scores enter the curve together.
        is_true: (n,) which of them found a face.
        n_faces: How many faces there are to find.

    Returns:
        0-1, best 1; nan where there is no face to find.

    Example:
        >>> conf = np.array([0.9, 0.8, 0.7], np.float32)
        >>> round(average_precision(conf, np.array([True, False, True]), n_faces=2), 4)
        0.8333

    Source:
        Everingham et al., "The PASCAL VOC Challenge", 2010 (the all-point form); WIDER FACE reads the same
        curve at 1,000 thresholds, here every score is one.
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
class DetectionMeasures:
    """Measures over a set of photos.

    Attributes:
        average_precision: At the IoU threshold, 0-1; nan without faces.
        recall: Share of the faces that some detection found, 0-1; nan without faces.
        false_per_photo: Detections that found nothing, per photo.
        landmark_error: Mean distance of a landmark from its true place, in shares of the square root of the
            true box's area; nan where no found face has landmarks.
        n_faces: Faces that count.
    """

    average_precision: float
    recall: float
    false_per_photo: float
    landmark_error: float
    n_faces: int


def measure_detections(
    found: Sequence[Detections], truth: Sequence[LabelledFaces], iou_threshold: float = 0.5
) -> DetectionMeasures:
    """Average precision, recall, false detections and landmark error over a set of photos.

    Args:
        found: Per photo, what the detector found.
        truth: Per photo, what is there.
        iou_threshold: Least intersection over union of a true detection.

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
    return DetectionMeasures(
        average_precision=average_precision(conf[counted], is_true[counted], n_faces),
        recall=float(is_true.sum() / n_faces) if n_faces else float("nan"),
        false_per_photo=float((outcome == FALSE).sum() / len(matches)) if matches else float("nan"),
        landmark_error=float(error.mean()) if error.size else float("nan"),
        n_faces=n_faces,
    )


def _landmark_errors(found: Detections, truth: LabelledFaces, match: PhotoMatch) -> NDArray[np.float64]:
    """One error per found face that has landmarks."""
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
    """One photo with only the faces of a range of sizes left to count.

    Faces outside the range are ignored; so are detections outside it that overlap no true face, which would
    otherwise be false ones in every range.

    Args:
        found: What the detector found.
        truth: What is there.
        min_size: Least square root of the box area, pixels, inclusive.
        max_size: Largest, exclusive.
        iou_threshold: Overlap from which a detection belongs to a face.
    """
    true_size, found_size = np.sqrt(box_areas(truth.xyxy)), np.sqrt(box_areas(found.xyxy))
    ignored = truth.ignored | (true_size < min_size) | (true_size >= max_size)
    on_a_face = (
        (box_iou(found.xyxy, truth.xyxy) >= iou_threshold).any(axis=1) if len(truth) else np.zeros(len(found), np.bool_)
    )
    keep = on_a_face | ((found_size >= min_size) & (found_size < max_size))
    return found[keep], LabelledFaces(truth.xyxy, truth.landmarks, ignored)
