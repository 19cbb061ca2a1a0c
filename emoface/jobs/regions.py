"""The regions job: finds region proposals of every photo; ``people.parquet`` to ``regions.parquet``.

Photos are processed in shards, see ``emoface.datasets.photo_arrays``, so an interrupted run continues.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from emoface.datasets.photo_arrays import PhotoArrays, PhotoBodies, list_bodies
from emoface.datasets.photos import PhotoFolder, UprightPhoto, check_photos
from emoface.inference.regions import FASTER_RCNN, N_FEATURES, load_region_provider, split_regions
from emoface.prefetch import in_batches
from emoface.progress import SILENT, Progress
from emoface.schema import PEOPLE_SCHEMA, REGIONS_SCHEMA, REGIONS_TABLE
from emoface.storage.files import atomic_path, file_sha256
from emoface.storage.locks import locked
from emoface.storage.records import JobRecord, code_fingerprint, finish_job
from emoface.storage.settings import File, Folder, FolderOrUrl, Settings
from emoface.storage.tables import open_bytes, read_table

_SHARDS_NAME = "regions_shards"
_REMEDY = "rebuild it with 'emoface parse EMOTIC_ROOT --out DIR'"
_ROWS_PER_GROUP = 500


class RegionsConfig(Settings):
    """Settings of the regions job."""

    dir: Folder
    """Folder with ``people.parquet``; ``regions.parquet`` is written to it."""
    provider: str = FASTER_RCNN
    """Name of the weights of torchvision's Faster R-CNN, which must be installed beside torch."""
    weights: File | None = None
    """A weight file of torchvision's fasterrcnn_resnet50_fpn, instead of looking the name up."""
    images: FolderOrUrl | None = None
    """Folder of the photos, or its URL, if they are no longer where parse found them."""
    allow_missing: bool = False
    """Go on although at least 95 % of the photos are missing."""


@locked("dir")
def run_regions(config: RegionsConfig, progress: Progress = SILENT) -> JobRecord:
    """Finds the region proposals of every photo.

    Args:
        config: Settings of the job.
        progress: Receives one step per photo.

    Returns:
        The job's record. The job writes ``regions.parquet``, one row per photo.

    Raises:
        TableError: ``people.parquet`` is missing or damaged.
        ImageError: All photos are missing, or nearly all, and ``allow_missing`` is not set. Nothing is replaced.
        WeightsError: The weights are missing or damaged.
        ModuleNotFoundError: torchvision is not installed.
    """
    people_path = config.dir / "people.parquet"
    people = read_table(people_path, PEOPLE_SCHEMA, _REMEDY, ["image", "image_wh", "body_bbox"])
    provider = load_region_provider(config.provider, config.weights)
    folder = PhotoFolder.of_data_set(config.dir, config.images)
    photos = list_bodies(people)
    inputs = {str(people_path): file_sha256(people_path), **folder.record_inputs(config.dir, config.images)}
    states = folder.read_states(photo.image for photo in photos)
    check_photos(folder.root, states, config.allow_missing)

    def compute(_: PhotoBodies, one: UprightPhoto) -> NDArray[np.float32]:
        return provider.find(one.pixels)

    key = [provider.sha256, [photo.image for photo in photos], code_fingerprint(__name__)]
    arrays = PhotoArrays.below(config.dir / _SHARDS_NAME, key, folder, compute, (N_FEATURES + 4,), np.float16)
    inputs |= arrays.complete_and_note("regions", photos, states, progress)
    path = config.dir / REGIONS_TABLE
    counts = _write_regions(path, arrays.read(photos), provider.name, provider.sha256)
    arrays.shards.remove_other_keys()
    return finish_job(
        "regions",
        config,
        config.dir,
        module=__name__,
        inputs=inputs,
        outputs=[path],
        counts={"photos": len(photos), **counts},
        info={"provider": provider.name, "provider_sha256": provider.sha256},
    )


def _write_regions(
    path: Path, results: Iterator[tuple[PhotoBodies, str, NDArray[Any]]], name: str, sha256: str
) -> dict[str, int]:
    """Writes ``regions.parquet``, some photos at a time; counts photos without regions, and regions."""
    counts = {"without_regions": 0, "regions": 0}
    with (
        atomic_path(path) as temporary,
        open_bytes(temporary, "wb") as sink,
        pq.ParquetWriter(sink, REGIONS_SCHEMA, compression="zstd") as writer,
    ):
        for batch in in_batches(results, _ROWS_PER_GROUP):
            rows = []
            for photo, _, regions in batch:
                boxes, features = split_regions(regions)
                rows.append(
                    {
                        "image": photo.image,
                        "boxes": boxes.ravel().tolist(),
                        "features": features.tobytes(),
                        "provider": name,
                        "provider_sha256": sha256,
                    }
                )
                counts["regions"] += len(regions)
                counts["without_regions"] += not len(regions)
            writer.write_table(pa.Table.from_pylist(rows, schema=REGIONS_SCHEMA))
    return counts
