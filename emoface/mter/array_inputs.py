"""A model's inputs beside the photo streams, from people's points and boxes and the maps and regions of their photos.

The people are those of a split, see ``emoface.mter.person_arrays``, or those of any photo, see
``emoface.inference.array_providers``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from emoface.mter.inputs import (
    DEPTH,
    FACE_LANDMARKS,
    N_PEOPLE,
    N_REGION_FEATURES,
    N_REGIONS,
    PEOPLE,
    POSE,
    REGIONS,
    InputForm,
)
from emoface.schema import NEARNESS_SIDE
from emoface.vision.arrays import Float32Array
from emoface.vision.boxes import box_iou
from emoface.vision.whole_body import FACE_PART, mirror_points, to_body_25, to_box_shares

MAX_OVERLAP = 0.5
"""A region is no node of a person's graph if its IoU with the person's body box is larger."""


@dataclass(frozen=True)
class PhotoChanges:
    """What the augmentation does to the photos of b samples.

    Attributes:
        is_mirrored: (b,) bool.
        context_crops: (b, 3) int64: left, top and side of the crop of the stored context, pixels of 256.
    """

    is_mirrored: NDArray[np.bool_]
    context_crops: NDArray[np.int64]


@dataclass(frozen=True)
class PlacedPeople:
    """Where n people are in their photos.

    Attributes:
        images: Name of each person's photo; people of the same photo have the same name.
        widths: (n,) width of each person's photo, in heights of the photo.
        body_in_context: (n, 4) xyxy of the body box as fractions of the photo's width and height.
        face_in_context: (n, 4) xyxy of the face as fractions of the photo's width and height; nan without a face.
    """

    images: Sequence[str]
    widths: Float32Array
    body_in_context: Float32Array
    face_in_context: Float32Array

    def __len__(self) -> int:
        return len(self.images)


class DepthMaps:
    """The maps of depth of people's photos.

    Args:
        maps: (k, 256, 256), see ``schema.DEPTH_SCHEMA``.
        rows: Per person the position of the photo's map; -1 if the photo has none.
    """

    def __init__(self, maps: NDArray[np.uint8], rows: Sequence[int]) -> None:
        self._maps = maps
        self._rows = rows

    def of_person(self, position: int) -> NDArray[np.uint8] | None:
        """The map of a person's photo, (256, 256); None if the photo has none."""
        row = self._rows[position]
        return None if row < 0 else self._maps[row]


class ArrayInputs:
    """The array inputs of n people.

    Args:
        forms: The inputs of the model, see ``Mter.array_inputs``.
        people: Where the people are.
        points: (n, 133, 3) points of each person as shares of the photo, and their confidence; see
            ``to_photo_points``. None if no input is computed from points.
        maps: The maps of the people's photos; None if no input is computed from depth.
        regions: By image, boxes (k, 4) as shares of the photo and features (k, 1024), best first; None if no input is
            computed from regions.
    """

    def __init__(
        self,
        forms: Mapping[str, InputForm],
        people: PlacedPeople,
        *,
        points: Float32Array | None,
        maps: DepthMaps | None,
        regions: Mapping[str, tuple[Float32Array, NDArray[np.float16]]] | None,
    ) -> None:
        self.forms = dict(forms)
        self._people = people
        self._points = points
        self._maps = maps
        self._regions = regions
        self._places = _find_places(people, maps) if "people" in forms and maps is not None else None

    def load(
        self,
        positions: Sequence[int],
        sizes: Mapping[str, int],
        *,
        center_share: float = 1.0,
        changes: PhotoChanges | None = None,
    ) -> dict[str, NDArray[Any]]:
        """Loads the inputs of b people and their masks, by name.

        Args:
            positions: Positions of the people, 0 to n - 1.
            sizes: Side of each stream's input, pixels.
            center_share: Side of the central square of the context that the network sees, see ``ContextInput``.
            changes: The augmentation of the people's photos; None for evaluation.

        Returns:
            Per input (b, *shape) float32, and under the name of its mask (b, *presence_shape) bool.
        """
        rows = np.asarray(positions, np.int64)
        is_mirrored = np.zeros(len(rows), np.bool_) if changes is None else changes.is_mirrored
        loaded: dict[str, NDArray[Any]] = {}
        for name, form in self.forms.items():
            if name == "depth":
                values, is_present = self._load_depth(rows, sizes["context"], center_share, changes)
            elif name == "regions":
                values, is_present = self._load_regions(rows, is_mirrored)
            elif name == "people":
                values, is_present = self._load_places(rows, is_mirrored)
            else:
                values, is_present = self._load_points(name, rows, is_mirrored)
            loaded |= {name: values, form.presence: is_present}
        return loaded

    def _load_points(
        self, name: str, rows: NDArray[np.int64], is_mirrored: NDArray[np.bool_]
    ) -> tuple[Float32Array, NDArray[np.bool_]]:
        """Face points as shares of the face box, or the joints as shares of the body box."""
        assert self._points is not None
        points = self._points[rows]
        boxes = self._people.face_in_context[rows] if name == "face_landmarks" else self._people.body_in_context[rows]
        points[is_mirrored] = mirror_points(points[is_mirrored])
        mirrored_boxes = boxes[:, [2, 1, 0, 3]]
        mirrored_boxes[:, [0, 2]] = 1 - mirrored_boxes[:, [0, 2]]
        boxes = np.where(is_mirrored[:, None], mirrored_boxes, boxes)
        chosen = points[:, FACE_PART] if name == "face_landmarks" else to_body_25(points)
        shares = to_box_shares(chosen, boxes)
        is_present = np.asarray((shares[..., 2] > 0).any(axis=1), np.bool_)
        if name == "face_landmarks":
            return np.ascontiguousarray(shares[..., :2]).reshape(len(rows), *FACE_LANDMARKS.shape), is_present
        return np.ascontiguousarray(shares.transpose(0, 2, 1)).reshape(len(rows), *POSE.shape), is_present

    def _load_depth(
        self, rows: NDArray[np.int64], size: int, center_share: float, changes: PhotoChanges | None
    ) -> tuple[Float32Array, NDArray[np.bool_]]:
        """The maps of the photos, cropped, scaled and mirrored as the context is, 0-1."""
        assert self._maps is not None
        values, is_present = DEPTH.absent(len(rows), {"context": size})
        for number, row in enumerate(rows.tolist()):
            stored = self._maps.of_person(row)
            if stored is None:
                continue
            if changes is None:
                side = max(1, round(NEARNESS_SIDE * center_share))
                left = top = (NEARNESS_SIDE - side) // 2
            else:
                left, top, side = changes.context_crops[number].tolist()
            crop = stored[top : top + side, left : left + side]
            interpolation = cv2.INTER_AREA if side > size else cv2.INTER_LINEAR
            scaled = cv2.resize(crop, (size, size), interpolation=interpolation).astype(np.float32) / 255
            values[number, 0] = scaled[:, ::-1] if changes is not None and changes.is_mirrored[number] else scaled
            is_present[number] = True
        return values, is_present

    def _load_places(
        self, rows: NDArray[np.int64], is_mirrored: NDArray[np.bool_]
    ) -> tuple[Float32Array, NDArray[np.bool_]]:
        assert self._places is not None
        values, is_present = PEOPLE.absent(len(rows))
        for number, row in enumerate(rows.tolist()):
            places, width = self._places[row]
            values[number, : len(places)], is_present[number, : len(places)] = places, True
            if is_mirrored[number]:
                values[number, : len(places), 0] = width - values[number, : len(places), 0]
        return values, is_present

    def _load_regions(
        self, rows: NDArray[np.int64], is_mirrored: NDArray[np.bool_]
    ) -> tuple[Float32Array, NDArray[np.bool_]]:
        """The best regions of each photo that do not overlap the person too much."""
        assert self._regions is not None
        values, is_present = REGIONS.absent(len(rows))
        for number, row in enumerate(rows.tolist()):
            boxes, features = self._regions[self._people.images[row]]
            overlaps = box_iou(boxes, self._people.body_in_context[row][None])[:, 0]
            chosen = np.flatnonzero(overlaps <= MAX_OVERLAP)[:N_REGIONS]
            values[number, : len(chosen), :N_REGION_FEATURES] = features[chosen]
            values[number, : len(chosen), N_REGION_FEATURES:] = boxes[chosen]
            is_present[number, : len(chosen)] = True
            if is_mirrored[number]:
                x1, x2 = N_REGION_FEATURES, N_REGION_FEATURES + 2
                values[number, : len(chosen), [x1, x2]] = 1 - values[number, : len(chosen), [x2, x1]]
        return values, is_present


def to_photo_points(points: Float32Array, wh: NDArray[np.float32]) -> Float32Array:
    """Converts points from pixels of the upright photo to shares of it; x and y of points of confidence 0 become 0.

    Args:
        points: (..., 133, 3) x, y and confidence.
        wh: (2,) width and height of the photo, pixels.
    """
    shares = points.astype(np.float32, copy=True)
    shares[..., :2] = np.where(points[..., 2:] > 0, points[..., :2] / wh, 0)
    return shares


def _find_places(people: PlacedPeople, maps: DepthMaps) -> list[tuple[Float32Array, float]]:
    """Finds the places of the people of each person's photo, the person itself first, and the photo's width.

    Returns:
        Per person (k, 5) as ``inputs.PEOPLE`` describes them, at most ``N_PEOPLE``, the nearest in
        the photo first, and the width of the photo in heights of the photo.
    """
    boxes = people.body_in_context
    centres = (boxes[:, :2] + boxes[:, 2:]) / 2
    sides = boxes[:, 2:] - boxes[:, :2]
    widths = people.widths
    depths = np.array([_depth_of_box(maps.of_person(person), boxes[person]) for person in range(len(people))])
    values = np.column_stack([centres[:, 0] * widths, centres[:, 1], sides[:, 0] * widths, sides[:, 1], depths])
    of_image: dict[str, list[int]] = {}
    for person, image in enumerate(people.images):
        of_image.setdefault(image, []).append(person)
    places = []
    for person, image in enumerate(people.images):
        others = [other for other in of_image[image] if other != person]
        others.sort(key=lambda other: float(np.hypot(*(values[other, :2] - values[person, :2]))))
        chosen = [person, *others][:N_PEOPLE]
        places.append((values[chosen].astype(np.float32), float(widths[person])))
    return places


def _depth_of_box(nearness: NDArray[np.uint8] | None, box: Float32Array) -> float:
    """The mean nearness inside a box, 0-1; 0 without a map."""
    if nearness is None:
        return 0.0
    x1, y1, x2, y2 = np.clip(box, 0, 1) * NEARNESS_SIDE
    inside = nearness[int(y1) : max(int(np.ceil(y2)), int(y1) + 1), int(x1) : max(int(np.ceil(x2)), int(x1) + 1)]
    return float(inside.mean()) / 255 if inside.size else 0.0
