"""The depth job: finds how near each part of every photo is; ``people.parquet`` to ``depth.parquet``.

Photos are processed in shards, see ``emoface.datasets.photo_arrays``, so an interrupted run continues.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Self

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from pydantic import model_validator

from emoface.datasets.photo_arrays import PhotoArrays, PhotoBodies, digest_bodies, list_bodies
from emoface.datasets.photos import PhotoFolder, UprightPhoto, check_photos
from emoface.errors import ImageError, SettingsError
from emoface.inference.depth import (
    BOXES,
    load_depth_provider,
    nearness_of_boxes,
    scale_map,
    to_nearness,
)
from emoface.prefetch import in_batches
from emoface.progress import SILENT, Progress
from emoface.schema import DEPTH_SCHEMA, DEPTH_TABLE, MAPS_FOLDER, NEARNESS_SIDE, PEOPLE_SCHEMA
from emoface.storage.files import atomic_path, file_sha256, stat_digest
from emoface.storage.locks import locked
from emoface.storage.records import JobRecord, code_fingerprint, finish_job
from emoface.storage.settings import File, Folder, FolderOrUrl, Settings
from emoface.storage.tables import open_bytes, read_table

_SHARDS_NAME = "depth_shards"
_REMEDY = "rebuild it with 'emoface parse EMOTIC_ROOT --out DIR'"
_ROWS_PER_GROUP = 1000


class DepthConfig(Settings):
    """Settings of the depth job."""

    dir: Folder
    """Folder with ``people.parquet``; ``depth.parquet`` is written to it."""
    provider: str = BOXES
    """What finds the depth: boxes draws every body box as near as it is high, nothing between them; any other is the
    name of the weights of a model."""
    weights: File | None = None
    """An ONNX file of a model of relative inverse depth, such as Depth-Anything-V2-Small or MiDaS-small."""
    maps: Folder | None = None
    """Folder of grey PNG images of 8 or 16 bits that something else wrote, larger is nearer: for the photo a/b.jpg the
    image a/b.png, upright, of any size. The folder depth of a simulation is one."""
    images: FolderOrUrl | None = None
    """Folder of the photos, or its URL, if they are no longer where parse found them."""
    allow_missing: bool = False
    """Go on although at least 95 % of the photos are missing."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.maps is not None and (self.provider != BOXES or self.weights is not None):
            raise SettingsError("maps is given together with a provider or with weights; give only one of them")
        return self


@locked("dir")
def run_depth(config: DepthConfig, progress: Progress = SILENT) -> JobRecord:
    """Finds the nearness of every photo's pixels.

    Args:
        config: Settings of the job.
        progress: Receives one step per photo.

    Returns:
        The job's record. The job writes ``depth.parquet``, one row per photo.

    Raises:
        TableError: ``people.parquet`` is missing or damaged.
        ImageError: An image of ``maps`` is missing or cannot be read; or all photos are missing, or nearly all, and
            ``allow_missing`` is not set. Nothing is replaced.
        WeightsError: The model is missing, damaged, or finds no depth.
    """
    people_path = config.dir / "people.parquet"
    people = read_table(people_path, PEOPLE_SCHEMA, _REMEDY, ["image", "image_wh", "body_bbox"])
    folder = PhotoFolder.of_data_set(config.dir, config.images)
    photos = list_bodies(people)
    inputs = {str(people_path): file_sha256(people_path), **folder.record_inputs(config.dir, config.images)}
    states = folder.read_states(photo.image for photo in photos)
    check_photos(folder.root, states, config.allow_missing)
    name, sha256, content, compute = _choose_provider(config, photos, set(states.missing))
    key = [content, folder.undecided_frame, digest_bodies(photos), code_fingerprint(__name__)]
    shape = (NEARNESS_SIDE, NEARNESS_SIDE)
    arrays = PhotoArrays.below(config.dir / _SHARDS_NAME, key, folder, compute, shape, np.uint8)
    inputs |= arrays.complete_and_note("depth", photos, states, progress)
    path = config.dir / DEPTH_TABLE
    n_known = _write_maps(path, arrays.read(photos), name, sha256)
    arrays.shards.remove_other_keys()
    return finish_job(
        "depth",
        config,
        config.dir,
        module=__name__,
        inputs=inputs,
        outputs=[path],
        counts={"photos": len(photos), "without_depth": len(photos) - n_known},
        info={"provider": name, "provider_sha256": sha256},
    )


def _choose_provider(
    config: DepthConfig, photos: list[PhotoBodies], missing_photos: set[str]
) -> tuple[str, str | None, str, Callable[[PhotoBodies, UprightPhoto], NDArray[Any]]]:
    """Chooses what finds the depth: its name, the sha256 of its model, what its result depends on, and the function."""
    if config.maps is not None:
        maps = config.maps
        names = [_map_name(photo) for photo in photos]
        wanted = [_map_name(photo) for photo in photos if photo.image not in missing_photos]
        if missing := [name for name in wanted if not (maps / name).is_file()]:
            raise ImageError(
                f"{maps / missing[0]}: no such image ({len(missing):,} of {len(wanted):,} are missing); '--maps' needs "
                "one for every photo"
            )
        return MAPS_FOLDER, None, stat_digest(maps, names), lambda photo, _: _read_map(maps / _map_name(photo))[None]
    if config.provider == BOXES and config.weights is None:
        return BOXES, None, BOXES, _draw_boxes
    provider = load_depth_provider(config.provider, config.weights)
    return provider.name, provider.sha256, provider.sha256, lambda _, one: to_nearness(provider.find(one.pixels))[None]


def _draw_boxes(photo: PhotoBodies, one: UprightPhoto) -> NDArray[np.uint8]:
    return nearness_of_boxes(one.turn.to_upright(photo.body_xyxy), one.turn.upright_wh)[None]


def _map_name(photo: PhotoBodies) -> str:
    return str(Path(photo.image).with_suffix(".png"))


def _read_map(path: Path) -> NDArray[np.uint8]:
    """Reads a grey image of 8 or 16 bits as (256, 256) uint8."""
    data = np.frombuffer(path.read_bytes(), np.uint8)
    pixels = cv2.imdecode(data, cv2.IMREAD_UNCHANGED) if len(data) else None
    if pixels is None or pixels.ndim != 2 or pixels.dtype not in (np.uint8, np.uint16):
        found = "cannot be decoded" if pixels is None else f"has shape {pixels.shape} and type {pixels.dtype}"
        raise ImageError(f"{path}: {found}, expected a grey image of 8 or 16 bits")
    return scale_map((pixels // 257).astype(np.uint8) if pixels.dtype == np.uint16 else np.asarray(pixels, np.uint8))


def _write_maps(
    path: Path, results: Iterator[tuple[PhotoBodies, str, NDArray[Any]]], name: str, sha256: str | None
) -> int:
    """Writes ``depth.parquet``, some photos at a time; returns the number of photos with a map."""
    n_known = 0
    with (
        atomic_path(path) as temporary,
        open_bytes(temporary, "wb") as sink,
        pq.ParquetWriter(sink, DEPTH_SCHEMA, compression="zstd") as writer,
    ):
        for batch in in_batches(results, _ROWS_PER_GROUP):
            rows = [
                {
                    "image": photo.image,
                    "nearness": None if status else {"bytes": _encode_png(maps[0]), "path": _map_name(photo)},
                    "provider": name,
                    "provider_sha256": sha256,
                }
                for photo, status, maps in batch
            ]
            n_known += sum(row["nearness"] is not None for row in rows)
            writer.write_table(pa.Table.from_pylist(rows, schema=DEPTH_SCHEMA))
    return n_known


def _encode_png(nearness: NDArray[np.uint8]) -> bytes:
    is_encoded, png = cv2.imencode(".png", nearness)
    assert is_encoded
    return png.tobytes()
