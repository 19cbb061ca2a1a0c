"""A model's inputs beside the photo streams, read for the people of a split from tables beside the manifest.

``pose.parquet`` gives the points of face and body, ``depth.parquet`` the nearness of the photo and of its people,
``regions.parquet`` the regions of the photo.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.lib.format import open_memmap
from numpy.typing import NDArray

from emoface.datasets.manifest import Manifest
from emoface.datasets.stream_cache import UsablePeople
from emoface.errors import SettingsError, TableError
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
from emoface.schema import (
    DEPTH_SCHEMA,
    DEPTH_TABLE,
    NEARNESS_SIDE,
    POSE_SCHEMA,
    POSE_TABLE,
    REGIONS_SCHEMA,
    REGIONS_TABLE,
)
from emoface.storage.files import atomic_path
from emoface.storage.locks import lock_folder
from emoface.storage.records import cached_sha256
from emoface.storage.tables import open_table, read_table, vectors_to_array
from emoface.vision.arrays import Float32Array
from emoface.vision.boxes import box_iou
from emoface.vision.whole_body import FACE_PART, N_POINTS, mirror_points, to_body_25, to_box_shares

TABLES_OF: dict[str, tuple[str, ...]] = {
    "face_landmarks": (POSE_TABLE,),
    "pose": (POSE_TABLE,),
    "depth": (DEPTH_TABLE,),
    "people": (DEPTH_TABLE,),
    "regions": (REGIONS_TABLE,),
}
"""The tables beside the manifest from which each input is read."""

MAX_OVERLAP = 0.5
"""A region is no node of a person's graph if its IoU with the person's body box is larger."""

_SCHEMAS = {POSE_TABLE: POSE_SCHEMA, DEPTH_TABLE: DEPTH_SCHEMA, REGIONS_TABLE: REGIONS_SCHEMA}
_REMEDIES = {table: f"run 'emoface {table.removesuffix('.parquet')} DIR' first" for table in _SCHEMAS}
_ROWS_AT_A_TIME = 500


@dataclass(frozen=True)
class PhotoChanges:
    """What the augmentation does to the photos of b samples.

    Attributes:
        is_mirrored: (b,) bool.
        context_crops: (b, 3) int64: left, top and side of the crop of the stored context, pixels of 256.
    """

    is_mirrored: NDArray[np.bool_]
    context_crops: NDArray[np.int64]


class PersonArrays:
    """The array inputs of the usable people of a split.

    Args:
        manifest: The data set, beside whose manifest the tables are.
        people: The usable people.
        forms: The inputs of the model, see ``Mter.array_inputs``.
        cache_dir: Folder for the decoded maps of ``depth.parquet``.

    Raises:
        SettingsError: An input is read from no table.
        TableError: A table is missing, damaged, or of other people.
    """

    def __init__(
        self, manifest: Manifest, people: UsablePeople, forms: Mapping[str, InputForm], cache_dir: Path
    ) -> None:
        needed = _list_tables(forms)
        self.forms = dict(forms)
        self._people = people
        folder = manifest.path.parent
        self._points = _read_points(folder / POSE_TABLE, people) if POSE_TABLE in needed else None
        self._maps = _open_maps(folder / DEPTH_TABLE, people, cache_dir) if DEPTH_TABLE in needed else None
        self._regions = _read_regions(folder / REGIONS_TABLE, people) if REGIONS_TABLE in needed else None
        self._places = _find_places(people, self._maps) if "people" in forms and self._maps is not None else None

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
            positions: Positions of the people in the split's usable people.
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


def describe_array_tables(manifest: Manifest, forms: Mapping[str, InputForm]) -> dict[str, dict[str, Any]]:
    """Describes the tables that a model's array inputs are read from: their sha256 and their providers.

    Raises:
        SettingsError: An input is read from no table.
        TableError: A table is missing or damaged.
    """
    described = {}
    for table in _list_tables(forms):
        path = manifest.path.parent / table
        providers = read_table(path, _SCHEMAS[table], _REMEDIES[table], ["provider"])["provider"].unique().to_pylist()
        described[table] = {"sha256": cached_sha256(path), "providers": sorted(providers)}
    return described


def _list_tables(forms: Mapping[str, InputForm]) -> list[str]:
    """Lists the tables that inputs are read from."""
    if unknown := [name for name in forms if name not in TABLES_OF]:
        raise SettingsError(
            f"the input '{unknown[0]}' ({forms[unknown[0]].meaning}) is in no table of a data set; choose another "
            "--model, or for affective-graph the built-in regions with '--region-source grid'"
        )
    return sorted({table for name in forms for table in TABLES_OF[name]})


def _read_points(path: Path, people: UsablePeople) -> Float32Array:
    """The points of the people as shares of the upright photo, (n, 133, 3), 0 for a person without points."""
    table = read_table(path, POSE_SCHEMA, _REMEDIES[POSE_TABLE], ["index", "points"])
    values = vectors_to_array(table["points"], 3 * N_POINTS).reshape(-1, N_POINTS, 3)
    row_of = {index: row for row, index in enumerate(table["index"].to_pylist())}
    try:
        rows = [row_of[index] for index in people.index.tolist()]
    except KeyError as error:
        raise TableError(f"{path}: lacks the person with index {error}; {_REMEDIES[POSE_TABLE]}") from error
    points = np.nan_to_num(values[rows])
    for person, turn in enumerate(people.turns):
        upright = turn.points_to_upright(points[person, :, :2]) / np.array(turn.upright_wh, np.float32)
        points[person, :, :2] = np.where(points[person, :, 2:] > 0, upright, 0)
    return points


def _read_regions(path: Path, people: UsablePeople) -> dict[str, tuple[Float32Array, NDArray[np.float16]]]:
    """The regions of the people's photos by image: boxes (k, 4) as shares of the photo, features (k, 1024)."""
    remedy = _REMEDIES[REGIONS_TABLE]
    wanted = set(people.images)
    regions = {}
    with open_table(path, REGIONS_SCHEMA, remedy) as opened:
        for batch in opened.read_batches(_ROWS_AT_A_TIME, ["image", "boxes", "features"]):
            for row in batch.to_pylist():
                if row["image"] not in wanted:
                    continue
                boxes = np.array(row["boxes"], np.float32).reshape(-1, 4)
                if len(row["features"]) != 2 * N_REGION_FEATURES * len(boxes):
                    raise TableError(
                        f"{path}: {row['image']} has {len(boxes)} boxes and {len(row['features'])} bytes of features, "
                        f"expected {2 * N_REGION_FEATURES} per box; {remedy}"
                    )
                features = np.frombuffer(row["features"], "<f2").reshape(-1, N_REGION_FEATURES)
                regions[row["image"]] = boxes, features
    if missing := [image for image in people.images if image not in regions]:
        raise TableError(f"{path}: lacks the photo {missing[0]}; {remedy}")
    return regions


class _DepthMaps:
    """The maps of the photos of a split's people, mapped from a file."""

    def __init__(self, maps: NDArray[np.uint8], rows: list[int]) -> None:
        self._maps = maps
        self._rows = rows

    def of_person(self, position: int) -> NDArray[np.uint8] | None:
        """The map of a person's photo, (256, 256); None if the photo has none."""
        row = self._rows[position]
        return None if row < 0 else self._maps[row]


def _open_maps(path: Path, people: UsablePeople, cache_dir: Path) -> _DepthMaps:
    """Decodes the maps of a table once into a file of the cache, which all splits and processes share."""
    table = read_table(path, DEPTH_SCHEMA, _REMEDIES[DEPTH_TABLE], ["image"])
    images = table["image"].to_pylist()
    row_of = {image: row for row, image in enumerate(images)}
    if missing := [image for image in people.images if image not in row_of]:
        raise TableError(f"{path}: lacks the photo {missing[0]}; {_REMEDIES[DEPTH_TABLE]}")
    name = f"depth-{cached_sha256(path)[:16]}"
    decoded, known = cache_dir / f"{name}.npy", cache_dir / f"{name}.known.npy"
    with lock_folder(cache_dir, name="depth"):
        if not known.is_file():  # it is written last
            _decode_maps(path, len(images), decoded, known)
    is_known = np.load(known)
    rows = [row_of[image] if is_known[row_of[image]] else -1 for image in people.images]
    return _DepthMaps(np.load(decoded, mmap_mode="r"), rows)


def _decode_maps(path: Path, n_photos: int, decoded: Path, known: Path) -> None:
    """Writes the maps of a table, (n, 256, 256) uint8, and which of them are known, (n,) bool."""
    is_known = np.zeros(n_photos, np.bool_)
    with atomic_path(decoded) as temporary, open_table(path, DEPTH_SCHEMA, _REMEDIES[DEPTH_TABLE]) as opened:
        maps = open_memmap(temporary, mode="w+", dtype=np.uint8, shape=(n_photos, NEARNESS_SIDE, NEARNESS_SIDE))
        row = 0
        for batch in opened.read_batches(_ROWS_AT_A_TIME, ["image", "nearness"]):
            for entry in batch.to_pylist():
                if entry["nearness"] is not None:
                    maps[row], is_known[row] = _decode_map(path, entry), True
                row += 1
        maps.flush()
        del maps
    with atomic_path(known) as temporary:
        np.save(temporary, is_known)


def _decode_map(path: Path, entry: Mapping[str, Any]) -> NDArray[np.uint8]:
    data = np.frombuffer(entry["nearness"]["bytes"] or b"", np.uint8)
    pixels = cv2.imdecode(data, cv2.IMREAD_GRAYSCALE) if len(data) else None
    if pixels is None or pixels.shape != (NEARNESS_SIDE, NEARNESS_SIDE):
        raise TableError(f"{path}: the map of {entry['image']} is no PNG of 256 x 256 pixels; {_REMEDIES[DEPTH_TABLE]}")
    return np.asarray(pixels, np.uint8)


def _find_places(people: UsablePeople, maps: _DepthMaps) -> list[tuple[Float32Array, float]]:
    """Finds the places of the people of each person's photo, the person itself first, and the photo's width.

    Returns:
        Per person (k, 5) as ``inputs.PEOPLE`` describes them, at most ``N_PEOPLE`` of the same split, the nearest in
        the photo first, and the width of the photo in heights of the photo.
    """
    boxes = people.body_in_context
    centres = (boxes[:, :2] + boxes[:, 2:]) / 2
    sides = boxes[:, 2:] - boxes[:, :2]
    widths = np.array([turn.upright_wh[0] / turn.upright_wh[1] for turn in people.turns], np.float32)
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
