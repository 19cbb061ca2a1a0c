"""Arrays that are computed from each photo of a data set, in shards that an interrupted run continues.

A shard has one ``.npy`` file with the arrays of its photos one after the other, and a summary with the number of rows
of each photo. The content of a shard depends on its photos and on what the key of its folder was made of.
"""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import pyarrow as pa
from numpy.typing import DTypeLike, NDArray

from emoface.datasets.photos import (
    CHANGED_DIGEST,
    IMAGE_MISSING,
    PhotoFolder,
    PhotoRows,
    UprightPhoto,
    confirm_digest,
    group_photos,
    read_ahead,
)
from emoface.prefetch import ByteBudget, count_usable_cpus, in_batches, map_ahead
from emoface.progress import SILENT, Progress
from emoface.storage.files import atomic_path, file_sha256
from emoface.storage.photo_stores import PhotoStates
from emoface.storage.records import PHOTOS, state_inputs
from emoface.storage.shards import ShardFolder, Summary, SummaryModel, shards_key
from emoface.storage.tables import vectors_to_array
from emoface.vision.arrays import Float32Array
from emoface.vision.threads import one_opencv_thread

PHOTOS_PER_SHARD = 256
_BYTES_IN_FLIGHT = 256 * 2**20  # of decoded photos at the same time, unless a single photo has more


class ArraysSummary(SummaryModel):
    """The summary of a shard: digests of its photos and its file, the rows and the status of each photo."""

    photo_digest: str
    sha256: str
    n_rows: list[int]
    statuses: list[str]


@dataclass(frozen=True, slots=True)
class PhotoBodies(PhotoRows):
    """One photo with the body boxes of its people, (n, 4) in the frame of the annotations, nan where there is none."""

    body_xyxy: Float32Array


def list_bodies(people: pa.Table) -> list[PhotoBodies]:
    """Lists the photos of ``people.parquet`` in order of first appearance, each with the boxes of all its people.

    Args:
        people: Columns ``image``, ``image_wh`` and ``body_bbox``.
    """
    boxes = vectors_to_array(people["body_bbox"], 4)
    return [
        PhotoBodies(photo.image, photo.image_wh, photo.rows, boxes[photo.rows])
        for photo in group_photos(people["image"].to_pylist(), vectors_to_array(people["image_wh"], 2))
    ]


def digest_bodies(photos: Iterable[PhotoBodies]) -> str:
    """Computes a digest of the photos' names, the size of their frames, and the boxes."""
    digest = hashlib.sha256()
    for photo in photos:
        digest.update(f"{photo.image}\n{photo.image_wh}\n".encode("utf-8", "surrogateescape"))
        digest.update(photo.body_xyxy.tobytes())
    return digest.hexdigest()


@dataclass(frozen=True)
class PhotoArrays:
    """The arrays of all photos of a data set.

    Attributes:
        shards: The folder of the shards.
        photos: The folder of the photos.
        compute: Computes the rows of one photo, (k, *row_shape) for any k; several threads call it at the same time.
        row_shape: Shape of a row.
        dtype: Type of the values.
    """

    shards: ShardFolder
    photos: PhotoFolder
    compute: Callable[[PhotoBodies, UprightPhoto], NDArray[Any]]
    row_shape: tuple[int, ...]
    dtype: DTypeLike

    @classmethod
    def below(
        cls,
        parent: Path,
        key: Sequence[Any],
        photos: PhotoFolder,
        compute: Callable[[PhotoBodies, UprightPhoto], NDArray[Any]],
        row_shape: tuple[int, ...],
        dtype: DTypeLike,
    ) -> Self:
        """The arrays in the folder below ``parent`` that is named by the hash of ``key``, see ``shards_key``."""
        return cls(ShardFolder(parent / shards_key(key), ArraysSummary), photos, compute, row_shape, dtype)

    def complete_and_note(
        self, job: str, photos: Sequence[PhotoBodies], states: PhotoStates, progress: Progress
    ) -> dict[str, str]:
        """Computes what is missing, as ``complete`` does, for a job.

        Args:
            job: Name of the job, for the progress and for the note about photos that changed while they were read.
            photos: As for ``complete``.
            states: As for ``complete``.
            progress: Receives one step per photo.

        Returns:
            The photos as an input of the job, see ``JobRecord.inputs``.
        """
        root = self.photos.root
        inputs = state_inputs(root, states, (photo.image for photo in photos))
        progress.start(job, len(photos))
        if self.complete(photos, states, progress):
            return inputs
        progress.note(f"{root}: photos {CHANGED_DIGEST}; run 'emoface {job}' again for them")
        return {str(root): PHOTOS + CHANGED_DIGEST}

    def complete(self, photos: Sequence[PhotoBodies], states: PhotoStates, progress: Progress = SILENT) -> bool:
        """Computes the shards that are missing, that are damaged, or whose photos have changed.

        Args:
            photos: All photos of the data set, in order.
            states: The present states of the photos, see ``PhotoFolder.read_states``.
            progress: Receives one step per photo.

        Returns:
            Whether no photo changed while it was read; if one did, its shard is computed again by the next run.
        """
        shards = list(in_batches(photos, PHOTOS_PER_SHARD))
        self.shards.remove_leftovers("npy")
        pending = self.shards.find_pending(shards, functools.partial(self._is_current, states), progress)
        with one_opencv_thread(), ThreadPoolExecutor(count_usable_cpus()) as pool:
            for number, shard in pending:
                self._write_shard(number, shard, states, pool, progress)
        summaries = (self.shards.read_summary(number) for number in range(len(shards)))
        return all(summary["photo_digest"] != CHANGED_DIGEST for summary in summaries)

    def read(self, photos: Sequence[PhotoBodies]) -> Iterator[tuple[PhotoBodies, str, NDArray[Any]]]:
        """Reads the result of ``complete``: each photo, its status, and its rows.

        Args:
            photos: As for ``complete``.

        Returns:
            The status is empty, or ``image_missing`` or ``image_unreadable``; without a photo there are no rows.
        """
        for number, shard in enumerate(in_batches(photos, PHOTOS_PER_SHARD)):
            summary = self.shards.read_summary(number)
            rows = np.load(self.shards.file_path(number, "npy"), mmap_mode="r")
            ends = np.cumsum(summary["n_rows"])[:-1]
            yield from zip(shard, summary["statuses"], np.split(rows, ends), strict=True)

    def _is_current(self, states: PhotoStates, number: int, shard: list[PhotoBodies], summary: Summary) -> bool:
        digest = states.digest(photo.image for photo in shard)
        if summary["photo_digest"] != digest or len(summary["n_rows"]) != len(shard):
            return False
        return bool(summary["sha256"] == self.shards.hash_file(number, "npy"))

    def _write_shard(
        self, number: int, shard: list[PhotoBodies], states: PhotoStates, pool: ThreadPoolExecutor, progress: Progress
    ) -> None:
        """Writes a shard's rows first and its summary last."""
        digest = self.photos.digest_before(shard, states)
        budget = ByteBudget(_BYTES_IN_FLIGHT)
        rows: list[NDArray[Any]] = []
        statuses: list[str] = []
        with read_ahead(self.photos, shard) as (photos, ahead):
            compute = functools.partial(self._compute_held, budget, photos)
            for status, computed in map_ahead(pool, compute, ahead, 4 * count_usable_cpus()):
                rows.append(computed)
                statuses.append(status)
                progress.advance()
        self.shards.unmark(number)
        path = self.shards.file_path(number, "npy")
        with atomic_path(path) as temporary, temporary.open("wb") as file:
            np.save(file, np.concatenate(rows))
        missing = [photo.image for photo, status in zip(shard, statuses, strict=True) if status == IMAGE_MISSING]
        summary = {
            "photo_digest": confirm_digest(digest, self.photos.root, shard, missing),
            "sha256": file_sha256(path),
            "n_rows": [len(one) for one in rows],
            "statuses": statuses,
        }
        self.shards.mark_done(number, json.dumps(summary) + "\n")

    def _compute_held(self, budget: ByteBudget, photos: PhotoFolder, photo: PhotoBodies) -> tuple[str, NDArray[Any]]:
        with budget.hold(photos.count_bytes(photo.image)):
            one = photos.try_read(photo.image, photo.image_wh)
            if one.photo is None:
                return one.status, np.zeros((0, *self.row_shape), self.dtype)
            computed = np.asarray(self.compute(photo, one.photo), self.dtype)
        if computed.shape[1:] != self.row_shape:
            raise ValueError(f"{photo.image}: rows of {computed.shape[1:]} were computed, expected {self.row_shape}")
        return "", computed
