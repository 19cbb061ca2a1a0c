"""The input crops of each stream for each person, cropped and scaled once, in files that are mapped into memory.

Each photo is decoded only once. The cache contains a face and a body of 144 x 144 pixels per person and a context of
256 x 256 pixels per photo. These are somewhat larger than the 128 and 224 pixels of a network's input, so that random
crops are possible. The body is the content of the body box and the context is the whole photo; both are scaled to a
square without keeping their aspect ratio, as in Kosti et al. The thesis describes no other way to get 3 x 128 x 128 and
3 x 224 x 224, and scaling neither removes nor pads any pixels. The face is the crop in the tables, which is square.

The arrays are plain uint8. So the input of a network is exactly the result of ``crop_person``, and reading a person
takes a fifth of the time of decoding JPEGs; see ``docs/benchmarks/stream_cache.py``.

The cache of a split is in ``CACHE/SPLIT-DATASET-KEY/``, where the key is a hash of everything except the photos that
the content depends on. Each shard of 256 photos consists of three ``.npy`` files and a summary. If two processes need
the same cache, one waits until the other has filled it. A cache whose key has changed is removed unless a process still
reads it. Machines may share a cache by an object store, where the same shards are in ``URL/SPLIT-KEY/``; each has a
copy on its own disk, because the arrays are mapped into memory.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import cv2
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pydantic import Field

from emoface.datasets.manifest import Manifest
from emoface.datasets.photos import (
    CHANGED_DIGEST,
    IMAGE_MISSING,
    PhotoFolder,
    PhotoRows,
    check_photos,
    confirm_digest,
    group_photos,
    read_ahead,
)
from emoface.errors import ImageError, TableError
from emoface.prefetch import count_usable_cpus, in_batches, map_ahead
from emoface.progress import SILENT, Progress
from emoface.schema import SPLIT_SCHEMA, label_names_of
from emoface.storage.files import atomic_path
from emoface.storage.locks import FolderInUse, lock_folder
from emoface.storage.photo_stores import PhotoStates
from emoface.storage.records import code_fingerprint
from emoface.storage.shards import ShardCopies, ShardFolder, Summary, SummaryModel, shards_key
from emoface.storage.tables import open_table, read_table, vectors_to_array
from emoface.storage.urls import Place, to_portable
from emoface.vision.crops import Photo
from emoface.vision.images import decode_photo
from emoface.vision.orientation import Turn
from emoface.vision.threads import one_opencv_thread

CACHE_SIZES: dict[str, int] = {"face": 144, "body": 144, "context": 256}
"""Side of the stored square crop of each stream, pixels."""
_ENDINGS = {stream: f"{stream}.npy" for stream in CACHE_SIZES}

USABLE = "usable"
UNUSABLE_REASONS: dict[str, str] = {
    "image_missing": "the photo is not below the image root",
    "image_unreadable": "the photo is there but cannot be decoded",
    "no_body": "the body box is null, or nothing of it is inside the photo",
}
"""Why a person cannot be used as input of a network."""

_PHOTOS_PER_SHARD = 256
_FETCHING_THREADS = 4
_REMEDY = "rebuild it with 'emoface split DIR'"


@dataclass(frozen=True)
class PersonPixels:
    """The stored crops of one person.

    Attributes:
        face: (144, 144, 3) RGB, None where no face was found.
        body: (144, 144, 3) RGB, the content of the body box.
        context: (256, 256, 3) RGB, the whole photo.
        face_in_context: (4,) xyxy of the face as fractions of the photo's width and height; None without a face.
        body_in_context: (4,) xyxy of the body box as fractions of the photo's width and height.
    """

    face: Photo | None
    body: Photo
    context: Photo
    face_in_context: NDArray[np.float32] | None
    body_in_context: NDArray[np.float32]


@dataclass(frozen=True)
class UsablePeople:
    """The usable people of a split, in the order of its table.

    Attributes:
        index: (n,) ``index`` of each person.
        images: Path of each person's photo below the image root.
        labels: (n, 26) true labels, 0 or 1.
        vad: (n, 3) true valence, arousal, dominance, 1-10; nan where EMOTIC has none.
        has_face: (n,) whether the person's face was found.
        face_in_context: (n, 4) xyxy of the face as fractions of the photo's width and height; nan without a face.
        body_in_context: (n, 4) xyxy of the body box as fractions of the photo's width and height.
        turns: The way from the frame of each person's boxes to the upright photo.
    """

    index: NDArray[np.int64]
    images: list[str]
    labels: NDArray[np.uint8]
    vad: NDArray[np.float32]
    has_face: NDArray[np.bool_]
    face_in_context: NDArray[np.float32]
    body_in_context: NDArray[np.float32]
    turns: list[Turn]

    def __len__(self) -> int:
        return len(self.index)


def crop_person(
    photo: Photo, body_xyxy: NDArray[np.float32], face: Photo | None, face_xyxy: NDArray[np.float32] | None
) -> PersonPixels:
    """Crops the input of each stream for one person from a photo.

    Args:
        photo: (height, width, 3), RGB.
        body_xyxy: (4,) body box, original pixels.
        face: (side, side, 3) crop of the face; None without a face.
        face_xyxy: (4,) face box, original pixels; None without a face.

    Raises:
        ValueError: Nothing of the body box is inside the photo, or only one of crop and box of the face is given.

    Example:
        >>> photo = np.zeros((40, 60, 3), np.uint8)
        >>> crops = crop_person(photo, np.array([0, 0, 30, 40]), photo[:9, :9], np.array([15, 10, 24, 20]))
        >>> crops.body.shape, crops.context.shape, crops.face_in_context.tolist()
        ((144, 144, 3), (256, 256, 3), [0.25, 0.25, 0.4000000059604645, 0.5])
    """
    if (face is None) != (face_xyxy is None):
        raise ValueError("a face needs its crop and its box, both or neither")
    body = crop_box(photo, body_xyxy)
    if body is None:
        raise ValueError(f"nothing of the body box {list(body_xyxy)} is inside a photo of {photo.shape[1::-1]}")
    return PersonPixels(
        face=None if face is None else scale_square(face, CACHE_SIZES["face"]),
        body=scale_square(body, CACHE_SIZES["body"]),
        context=scale_square(photo, CACHE_SIZES["context"]),
        face_in_context=None if face_xyxy is None else to_photo_shares(face_xyxy, photo),
        body_in_context=to_photo_shares(body_xyxy, photo),
    )


def crop_box(photo: Photo, xyxy: NDArray[np.float32]) -> Photo | None:
    """Crops the pixels that a box touches; None if the box is not finite or touches no pixel."""
    if not np.isfinite(xyxy).all():
        return None
    height, width = photo.shape[:2]
    left, top = (max(0, int(np.floor(value))) for value in xyxy[:2])
    right, bottom = min(width, int(np.ceil(xyxy[2]))), min(height, int(np.ceil(xyxy[3])))
    return photo[top:bottom, left:right] if left < right and top < bottom else None


def scale_square(photo: Photo, size: int) -> Photo:
    """Scales a photo to a square; sides shrink by averaging and grow by linear interpolation.

    Args:
        photo: (height, width, 3).
        size: Side of the result, pixels.

    Returns:
        (size, size, 3).
    """
    height, width = photo.shape[:2]
    shrunk = (min(width, size), min(height, size))
    if shrunk != (width, height):
        photo = np.asarray(cv2.resize(photo, shrunk, interpolation=cv2.INTER_AREA), np.uint8)
    if shrunk != (size, size):
        photo = np.asarray(cv2.resize(photo, (size, size), interpolation=cv2.INTER_LINEAR), np.uint8)
    return photo


def to_photo_shares(xyxy: NDArray[np.float32], photo: Photo) -> NDArray[np.float32]:
    """Converts a box from pixels to fractions of its photo's width and height."""
    height, width = photo.shape[:2]
    return np.asarray(xyxy / np.array([width, height, width, height]), np.float32)


class _PackedTurn(SummaryModel):
    orientation: Annotated[int, Field(ge=1, le=8)]
    wh: Annotated[list[Annotated[int, Field(ge=1)]], Field(min_length=2, max_length=2)]


class _PackedPhoto(SummaryModel):
    turn: _PackedTurn | None
    statuses: list[str]


class _PackedShard(SummaryModel):
    """The summary of a shard: which photos it was made of, the sizes of its arrays, and the status of each person."""

    photo_digest: str
    n_bytes: dict[str, int]
    photos: list[_PackedPhoto]


class StreamCache:
    """The usable people of one split and their crops; several processes may read it at the same time.

    Attributes:
        people: The usable people.
        counts: Number of people of the split (``people``), of usable people (``usable``), and of people left out, by
            reason.
    """

    def __init__(
        self,
        folder: ShardFolder,
        people: UsablePeople,
        places: NDArray[np.int64],
        counts: dict[str, int],
        in_use: FolderInUse | None,
    ) -> None:
        self.people = people
        self.counts = counts
        self._folder = folder
        self._places = places
        self._arrays: dict[tuple[int, str], NDArray[np.uint8]] = {}
        self._in_use = in_use

    def __len__(self) -> int:
        return len(self.people)

    def read(self, position: int, stream: str) -> Photo | None:
        """Reads the crop of one person for one stream, as a read-only view of the mapped file.

        Args:
            position: 0 to n - 1, in the order of ``people``.
            stream: ``face``, ``body`` or ``context``.

        Returns:
            (side, side, 3), RGB; None if the person has no face.
        """
        shard, *places = (int(value) for value in self._places[position])
        place = places[list(CACHE_SIZES).index(stream)]
        return None if place < 0 else self._array(shard, stream)[place]

    def read_person(self, position: int) -> PersonPixels:
        """Reads all crops of one person, equal to the result of ``crop_person``."""
        face, body, context = (self.read(position, stream) for stream in CACHE_SIZES)
        assert body is not None and context is not None
        box = self.people.face_in_context[position] if face is not None else None
        return PersonPixels(face, body, context, box, self.people.body_in_context[position])

    def _array(self, shard: int, stream: str) -> NDArray[np.uint8]:
        if (shard, stream) not in self._arrays:
            self._arrays[shard, stream] = np.load(_array_path(self._folder, shard, stream), mmap_mode="r")
        return self._arrays[shard, stream]

    def __getstate__(self) -> dict[str, Any]:
        """Leaves out the mapped arrays and the lock: a copy in another process maps the files and locks the folder."""
        return {**self.__dict__, "_arrays": {}, "_in_use": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Locks the folder for the copy, which may outlive the original."""
        self.__dict__.update(state)
        self._in_use = FolderInUse(self._folder.path) if len(self.people) else None


@dataclass(frozen=True)
class _Table:
    """A split's table without the face crops."""

    path: Path
    index: NDArray[np.int64]
    person_ids: list[str]
    images: list[str]
    labels: NDArray[np.uint8]
    vad: NDArray[np.float32]
    image_wh: NDArray[np.float32]
    body_xyxy: NDArray[np.float32]
    face_xyxy: NDArray[np.float32]

    @property
    def has_face(self) -> NDArray[np.bool_]:
        """(n,) whether each person has a face box."""
        return np.asarray(np.isfinite(self.face_xyxy).all(axis=1), np.bool_)


@dataclass(frozen=True)
class _CroppedPhoto:
    """The crops of one photo: its turn upright, context, bodies and faces, and the status of each person."""

    turn: Turn | None
    context: Photo | None
    bodies: list[Photo]
    faces: list[Photo]
    statuses: list[str]


def default_cache_dir(manifest: Manifest) -> Path:
    """The folder of a data set's caches, ``stream_cache`` beside its manifest, unless another is given."""
    return manifest.path.parent / "stream_cache"


def find_cache_dir(manifest: Manifest, cache: Place | None) -> Path:
    """The folder of this machine with a data set's caches.

    Args:
        manifest: The data set.
        cache: Another folder than the default one; or the URL of a cache that several machines share, of which each has
            what it reads in the default folder.
    """
    return cache if isinstance(cache, Path) else default_cache_dir(manifest)


def open_stream_cache(
    manifest: Manifest,
    split: str,
    cache: Place | None = None,
    progress: Progress = SILENT,
    *,
    allow_missing: bool = False,
) -> StreamCache:
    """Opens a split's cache; shards that are missing or whose photos changed are written first, on all cores.

    Those that are in a shared cache are fetched instead, and those that it lacks are put there.

    Args:
        manifest: The data set.
        split: ``train``, ``val`` or ``test``.
        cache: Folder of all caches, or URL of a shared cache, see ``find_cache_dir``.
        progress: Receives one step per photo.
        allow_missing: Whether to go on if all photos are missing, or nearly all.

    Raises:
        ImageError: See ``check_photos``. Nothing is replaced.
        TableError: The split's table does not follow the schema, a face in it cannot be decoded, or none of its people
            is usable.
        StoreError: The photos or the shared cache are in an object store, which does not answer or refuses to.
    """
    table = _read_table(manifest.split_path(split))
    cache_dir, key = find_cache_dir(manifest, cache), _cache_key(manifest, split)
    dataset = f"{split}-{_name_data_set(manifest, cache_dir)}"
    folder = ShardFolder(cache_dir / f"{dataset}-{key}", _PackedShard)
    copies = ShardCopies(folder, f"{cache}/{split}-{key}", tuple(_ENDINGS.values())) if isinstance(cache, str) else None
    photos = group_photos(table.images, table.image_wh)
    shards = list(in_batches(photos, _PHOTOS_PER_SHARD))
    with lock_folder(cache_dir, progress, name=dataset):
        states = manifest.photos.read_states(photo.image for photo in photos)
        check_photos(manifest.photos.root, states, allow_missing)
        packing = _Packing(table, manifest.photos, states, folder, _FaceReader(table.path))
        packing.complete(split, shards, copies, progress)
        in_use = FolderInUse(folder.path) if shards else None
        folder.remove_other_keys(f"{dataset}-*", progress)
    return _gather(folder, shards, table, manifest, in_use)


def _name_data_set(manifest: Manifest, cache_dir: Path) -> str:
    """A name for a data set in a folder of caches, which stays the same if both are moved together."""
    return hashlib.sha256(os.fsencode(to_portable(manifest.path, cache_dir))).hexdigest()[:8]


def _cache_key(manifest: Manifest, split: str) -> str:
    """Computes a hash of everything except the photos that the content of the cache depends on."""
    parts = [manifest.splits[split].sha256, manifest.undecided_frame, CACHE_SIZES, code_fingerprint(__name__)]
    return shards_key(parts)


def _read_table(path: Path) -> _Table:
    columns = ["index", "person_id", "image", "image_wh", "body_bbox", "labels", "face_bbox"]
    columns += ["valence", "arousal", "dominance"]
    table = read_table(path, SPLIT_SCHEMA, _REMEDY, columns)
    labels = table["labels"].combine_chunks().flatten().to_numpy(zero_copy_only=False)
    vad = [table[name].to_numpy() for name in ("valence", "arousal", "dominance")]
    return _Table(
        path=path,
        index=table["index"].to_numpy(),
        person_ids=table["person_id"].to_pylist(),
        images=table["image"].to_pylist(),
        labels=labels.reshape(-1, len(label_names_of(table.schema))),
        vad=np.stack(vad, axis=1).astype(np.float32),
        image_wh=vectors_to_array(table["image_wh"], 2),
        body_xyxy=vectors_to_array(table["body_bbox"], 4),
        face_xyxy=vectors_to_array(table["face_bbox"], 4),
    )


class _FaceReader:
    """Reads face crops by row of a split's table, one row group at a time."""

    def __init__(self, path: Path) -> None:
        with open_table(path, SPLIT_SCHEMA, _REMEDY) as opened:
            sizes = opened.row_group_sizes
        self._path = path
        self._starts = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
        self._read_group = functools.lru_cache(maxsize=4)(self._read_group_uncached)

    def read(self, rows: NDArray[np.int64]) -> dict[int, bytes]:
        """Reads the encoded face crops of the given rows; rows without a face are left out."""
        crops: dict[int, bytes] = {}
        for row in rows.tolist():
            group = int(np.searchsorted(self._starts, row, side="right")) - 1
            data = self._read_group(group)[row - int(self._starts[group])].as_py()
            if data is not None:
                crops[row] = data
        return crops

    def _read_group_uncached(self, group: int) -> pa.Array:
        import pyarrow.compute as pc

        with open_table(self._path, SPLIT_SCHEMA, _REMEDY) as opened:
            faces = opened.read_row_group(group, ["face"])["face"].combine_chunks()
        return pc.struct_field(faces, "bytes")


class _Packing:
    """Crops the people of a split from their photos, one shard at a time."""

    def __init__(
        self, table: _Table, photos: PhotoFolder, states: PhotoStates, folder: ShardFolder, face_reader: _FaceReader
    ) -> None:
        self._table = table
        self._photos = photos
        self._states = states
        self._folder = folder
        self._face_reader = face_reader

    def is_current(self, number: int, shard: list[PhotoRows], summary: Summary) -> bool:
        """Whether a finished shard has all of its arrays and its photos are unchanged."""
        paths = [_array_path(self._folder, number, stream) for stream in CACHE_SIZES]
        return (
            all(path.is_file() for path in paths)
            and bool(summary["n_bytes"] == _array_sizes(self._folder, number))
            and self._is_of_photos(shard, summary)
            and _count_crops(shard, summary, self._table.has_face) == _array_lengths(self._folder, number)
        )

    def complete(
        self, split: str, shards: list[list[PhotoRows]], copies: ShardCopies | None, progress: Progress
    ) -> None:
        """Writes the shards that are not current; those of a shared cache are fetched, and those it lacks put there."""
        pending = self._folder.find_pending(shards, self.is_current)
        if copies is not None and pending:
            self._fetch_shards(split, pending, copies, progress)
            pending = self._folder.find_pending(shards, self.is_current)
        if pending:
            progress.start(f"pack {split}", sum(len(shard) for _, shard in pending))
            with one_opencv_thread(), ThreadPoolExecutor(count_usable_cpus()) as pool:
                for number, shard in pending:
                    self.write_shard(number, shard, pool, progress)
                    if copies is not None:
                        self._put_shard(number, copies)
        if copies is not None:
            for number in copies.find_missing(range(len(shards))):
                self._put_shard(number, copies)

    def _fetch_shards(
        self, split: str, pending: list[tuple[int, list[PhotoRows]]], copies: ShardCopies, progress: Progress
    ) -> None:
        """Fetches the shards that a shared cache has, as far as they are of the present photos."""
        progress.start(f"fetch {split}", sum(len(shard) for _, shard in pending))

        def fetch(one: tuple[int, list[PhotoRows]]) -> int:
            number, shard = one
            copies.fetch(number, functools.partial(self._is_of_photos, shard), progress)
            return len(shard)

        with ThreadPoolExecutor(_FETCHING_THREADS) as pool:
            for n_photos in pool.map(fetch, pending):
                progress.advance(n_photos)

    def _put_shard(self, number: int, copies: ShardCopies) -> None:
        """Puts a finished shard into a shared cache, unless its photos changed while they were read."""
        if self._folder.read_summary(number)["photo_digest"] != CHANGED_DIGEST:
            copies.put(number)

    def _is_of_photos(self, shard: list[PhotoRows], summary: Summary) -> bool:
        """Whether a summary is of the photos of a shard as they are now, and gives each person a status."""
        digest = self._states.digest(photo.image for photo in shard)
        return bool(summary["photo_digest"] == digest) and _has_statuses_of(shard, summary)

    def write_shard(self, number: int, shard: list[PhotoRows], pool: ThreadPoolExecutor, progress: Progress) -> None:
        """Writes one shard: its arrays first, its summary last."""
        digest = self._photos.digest_before(shard, self._states)
        crops = self._read_crops(shard)
        pixels: dict[str, list[Photo]] = {stream: [] for stream in CACHE_SIZES}
        described: list[dict[str, Any]] = []
        with read_ahead(self._photos, shard) as (photos, ahead):
            crop = functools.partial(self._crop_photo, photos, crops)
            for one in map_ahead(pool, crop, ahead, ahead=4 * count_usable_cpus()):
                turn = None if one.turn is None else {"orientation": one.turn.orientation, "wh": one.turn.stored_wh}
                described.append({"turn": turn, "statuses": one.statuses})
                pixels["context"] += [] if one.context is None else [one.context]
                pixels["body"] += one.bodies
                pixels["face"] += one.faces
                progress.advance()
        self._folder.unmark(number)
        for stream, size in CACHE_SIZES.items():
            with atomic_path(_array_path(self._folder, number, stream)) as temporary:
                np.save(temporary, np.array(pixels[stream], np.uint8).reshape(-1, size, size, 3))
        missing = [photo.image for photo, one in zip(shard, described, strict=True) if IMAGE_MISSING in one["statuses"]]
        digest = confirm_digest(digest, self._photos.root, shard, missing)
        summary = {"photo_digest": digest, "n_bytes": _array_sizes(self._folder, number), "photos": described}
        self._folder.mark_done(number, json.dumps(summary) + "\n")

    def _read_crops(self, shard: list[PhotoRows]) -> dict[int, bytes]:
        """Reads the encoded face crops of a shard's people, by row of the table."""
        rows = np.concatenate([photo.rows for photo in shard])
        crops = self._face_reader.read(rows)
        if wrong := sorted(crops.keys() ^ set(rows[self._table.has_face[rows]].tolist())):
            raise TableError(
                f"{self._table.path}: {self._table.person_ids[wrong[0]]} has only one of face and face_bbox, expected "
                "both or neither; rebuild the table with 'emoface faces' and 'emoface split'"
            )
        return crops

    def _crop_photo(self, photos: PhotoFolder, crops: dict[int, bytes], photo: PhotoRows) -> _CroppedPhoto:
        """Crops the people of one photo; if the photo cannot be read, the reason becomes the status of its people."""
        read = photos.try_read(photo.image, photo.image_wh)
        if read.photo is None:
            return _CroppedPhoto(None, None, [], [], [read.status] * len(photo.rows))
        pixels = read.photo.pixels
        body_xyxy = read.photo.turn.to_upright(self._table.body_xyxy[photo.rows])
        bodies, faces, statuses = [], [], []
        for row, body_box in zip(photo.rows.tolist(), body_xyxy, strict=True):
            body = crop_box(pixels, body_box)
            if body is None:
                statuses.append("no_body")
                continue
            bodies.append(scale_square(body, CACHE_SIZES["body"]))
            if row in crops:
                faces.append(scale_square(_decode_face(self._table, row, crops[row]), CACHE_SIZES["face"]))
            statuses.append(USABLE)
        context = scale_square(pixels, CACHE_SIZES["context"])
        return _CroppedPhoto(read.photo.turn, context, bodies, faces, statuses)


def _array_path(folder: ShardFolder, number: int, stream: str) -> Path:
    return folder.file_path(number, _ENDINGS[stream])


def _array_sizes(folder: ShardFolder, number: int) -> dict[str, int]:
    """Sizes of a shard's array files in bytes, by stream."""
    return {stream: _array_path(folder, number, stream).stat().st_size for stream in CACHE_SIZES}


def _array_lengths(folder: ShardFolder, number: int) -> dict[str, int]:
    """Numbers of crops in a shard's array files, by stream; -1 for a file that is not such an array."""
    lengths = {}
    for stream, side in CACHE_SIZES.items():
        try:
            array = np.load(_array_path(folder, number, stream), mmap_mode="r")
        except (ValueError, EOFError):
            array = np.zeros(0)
        is_crops = array.dtype == np.uint8 and array.shape[1:] == (side, side, 3)
        lengths[stream] = len(array) if is_crops else -1
    return lengths


def _has_statuses_of(shard: list[PhotoRows], summary: Summary) -> bool:
    """Whether a summary gives each person of a shard a status."""
    found = [len(photo["statuses"]) for photo in summary["photos"]]
    return found == [len(photo.rows) for photo in shard] and all(
        status == USABLE or status in UNUSABLE_REASONS for photo in summary["photos"] for status in photo["statuses"]
    )


def _count_crops(shard: list[PhotoRows], summary: Summary, has_face: NDArray[np.bool_]) -> dict[str, int]:
    """Counts the crops that the arrays of a shard must have, by stream."""
    statuses = [status for photo in summary["photos"] for status in photo["statuses"]]
    rows = np.concatenate([photo.rows for photo in shard])
    is_usable = np.array(statuses, dtype=object) == USABLE
    n_photos = sum(photo["turn"] is not None for photo in summary["photos"])
    return {"face": int(has_face[rows[is_usable]].sum()), "body": int(is_usable.sum()), "context": n_photos}


def _decode_face(table: _Table, row: int, data: bytes) -> Photo:
    try:
        return decode_photo(data, table.person_ids[row])
    except ImageError as error:
        raise TableError(f"{table.path}: face of {error}; rebuild it with 'emoface faces DIR --rebuild'") from error


def _gather(
    folder: ShardFolder,
    shards: list[list[PhotoRows]],
    table: _Table,
    manifest: Manifest,
    in_use: FolderInUse | None,
) -> StreamCache:
    """Combines the shards' summaries with the table; people who are not usable are left out and counted."""
    n_rows = len(table.index)
    places = np.full((n_rows, 1 + len(CACHE_SIZES)), -1, np.int64)
    face_in_context, body_in_context = (np.full((n_rows, 4), np.nan, np.float32) for _ in range(2))
    turns: list[Turn | None] = [None] * n_rows
    statuses = np.full(n_rows, USABLE, dtype=object)
    for number, shard in enumerate(shards):
        summary = folder.read_summary(number)
        for row, place, status in _shard_places(shard, summary, table.has_face):
            places[row], statuses[row] = (number, *place), status
        for photo, described in zip(shard, summary["photos"], strict=True):
            if described["turn"] is None:
                continue
            turn = Turn(described["turn"]["orientation"], tuple(described["turn"]["wh"]))
            face_in_context[photo.rows] = _upright_shares(table.face_xyxy[photo.rows], turn)
            body_in_context[photo.rows] = _upright_shares(table.body_xyxy[photo.rows], turn)
            for row in photo.rows.tolist():
                turns[row] = turn
    n_by_status = Counter(statuses.tolist())
    usable = np.flatnonzero(statuses == USABLE)
    if n_rows and not len(usable):
        raise TableError(
            f"{table.path}: none of its {n_rows} people can be used ("
            + ", ".join(f"{n_by_status[reason]} {reason}" for reason in UNUSABLE_REASONS if n_by_status[reason])
            + f"); expected their photos below '{manifest.image_root}', the image root in {manifest.path}"
        )
    people = UsablePeople(
        index=table.index[usable],
        images=[table.images[row] for row in usable],
        labels=table.labels[usable],
        vad=table.vad[usable],
        has_face=table.has_face[usable],
        face_in_context=face_in_context[usable],
        body_in_context=body_in_context[usable],
        turns=[turn for turn in (turns[row] for row in usable) if turn is not None],
    )
    counts = {"people": n_rows, **{name: n_by_status[name] for name in (USABLE, *UNUSABLE_REASONS)}}
    return StreamCache(folder, people, places[usable], counts, in_use)


def _shard_places(
    shard: list[PhotoRows], summary: Summary, has_face: NDArray[np.bool_]
) -> Iterator[tuple[int, tuple[int, int, int], str]]:
    """Yields each person's row, positions in the shard's three arrays (-1 for none), and status."""
    n_faces = n_bodies = n_photos = 0
    for photo, described in zip(shard, summary["photos"], strict=True):
        for row, status in zip(photo.rows.tolist(), described["statuses"], strict=True):
            if status != USABLE:
                yield row, (-1, -1, -1), status
                continue
            yield row, (n_faces if has_face[row] else -1, n_bodies, n_photos), status
            n_faces += int(has_face[row])
            n_bodies += 1
        n_photos += described["turn"] is not None


def _upright_shares(xyxy: NDArray[np.float32], turn: Turn) -> NDArray[np.float32]:
    """Boxes (n, 4) as fractions of the upright photo's width and height."""
    return np.asarray(turn.to_upright(xyxy) / np.array(turn.upright_wh * 2, np.float32), np.float32)
