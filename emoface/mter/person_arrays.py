"""A model's inputs beside the photo streams, read for the people of a split from tables beside the manifest.

``pose.parquet`` gives the points of face and body, ``depth.parquet`` the nearness of the photo and of its people,
``regions.parquet`` the regions of the photo.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.lib.format import open_memmap
from numpy.typing import NDArray

from emoface.datasets.manifest import Manifest
from emoface.datasets.stream_cache import UsablePeople
from emoface.errors import SettingsError, TableError
from emoface.mter.array_inputs import ArrayInputs, DepthMaps, PlacedPeople, to_photo_points
from emoface.mter.inputs import N_REGION_FEATURES, InputForm
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
from emoface.vision.whole_body import N_POINTS

TABLES_OF: dict[str, tuple[str, ...]] = {
    "face_landmarks": (POSE_TABLE,),
    "pose": (POSE_TABLE,),
    "depth": (DEPTH_TABLE,),
    "people": (DEPTH_TABLE,),
    "regions": (REGIONS_TABLE,),
}
"""The tables beside the manifest from which each input is read."""

_SCHEMAS = {POSE_TABLE: POSE_SCHEMA, DEPTH_TABLE: DEPTH_SCHEMA, REGIONS_TABLE: REGIONS_SCHEMA}
_REMEDIES = {table: f"run 'emoface {table.removesuffix('.parquet')} DIR' first" for table in _SCHEMAS}
_ROWS_AT_A_TIME = 500


class PersonArrays(ArrayInputs):
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
        needed = list_tables(forms)
        folder = manifest.path.parent
        super().__init__(
            forms,
            PlacedPeople(
                people.images,
                np.array([turn.upright_wh[0] / turn.upright_wh[1] for turn in people.turns], np.float32),
                people.body_in_context,
                people.face_in_context,
            ),
            points=_read_points(folder / POSE_TABLE, people) if POSE_TABLE in needed else None,
            maps=_open_maps(folder / DEPTH_TABLE, people, cache_dir) if DEPTH_TABLE in needed else None,
            regions=_read_regions(folder / REGIONS_TABLE, people) if REGIONS_TABLE in needed else None,
        )


def describe_array_tables(manifest: Manifest, forms: Mapping[str, InputForm]) -> dict[str, dict[str, Any]]:
    """Describes the tables that a model's array inputs are read from, for the settings of its run.

    Returns:
        Per table its ``sha256``, the names of its ``providers``, and ``provider_sha256``: by provider that has a file,
        the sha256 of that file.

    Raises:
        SettingsError: An input is read from no table.
        TableError: A table is missing or damaged.
    """
    described = {}
    for table in list_tables(forms):
        path = manifest.path.parent / table
        read = read_table(path, _SCHEMAS[table], _REMEDIES[table], ["provider", "provider_sha256"])
        pairs = read.group_by(["provider", "provider_sha256"]).aggregate([]).sort_by("provider_sha256").to_pylist()
        described[table] = {
            "sha256": cached_sha256(path),
            "providers": sorted({one["provider"] for one in pairs}),
            "provider_sha256": {
                one["provider"]: one["provider_sha256"] for one in pairs if one["provider_sha256"] is not None
            },
        }
    return described


def list_tables(forms: Mapping[str, InputForm]) -> list[str]:
    """Lists the tables that inputs are read from.

    Raises:
        SettingsError: An input is read from no table.
    """
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
        points[person, :, :2] = turn.points_to_upright(points[person, :, :2])
        points[person] = to_photo_points(points[person], np.array(turn.upright_wh, np.float32))
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


def _open_maps(path: Path, people: UsablePeople, cache_dir: Path) -> DepthMaps:
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
    return DepthMaps(np.load(decoded, mmap_mode="r"), rows)


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
