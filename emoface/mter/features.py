"""Features of a frozen backbone for the people of a data set: computed once, kept as arrays beside the stream cache.

``CACHE/features-KEY/`` has ``train.body.npy`` and so on, (n, d) float32 with one row per usable person of the split, in
the order of ``train.index.npy``, the people's ``index``. The key is a hash of the backbone, its weights, the split
tables, the photos and the code. Rows of ``face`` are 0 for people without a face.

An array is computed in blocks, each of which is kept when it is finished, so an interrupted run continues; a finished
array is written in one step. People of one photo share its context, which is computed once. Importable without torch.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.lib.format import open_memmap
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from emoface.datasets.manifest import Manifest
from emoface.datasets.stream_cache import CACHE_SIZES, StreamCache, UsablePeople, open_stream_cache
from emoface.errors import SettingsError, TableError
from emoface.mter.names import STREAMS
from emoface.prefetch import in_batches
from emoface.progress import SILENT, Progress
from emoface.schema import SPLIT_SCHEMA, SPLITS
from emoface.storage.files import atomic_path
from emoface.storage.locks import lock_folder
from emoface.storage.records import code_fingerprint
from emoface.storage.shards import ShardFolder, Summary, SummaryModel, shards_key
from emoface.storage.tables import read_table
from emoface.storage.urls import Place
from emoface.vision.arrays import Float32Array
from emoface.vision.crops import Photo

FILE, LIBRARY, RANDOM = "file", "library", "random"
"""Where the weights of a backbone come from."""

BATCH_SIZE = 64
"""Squares in one forward pass, always the same, so that the features do not depend on a setting or an interruption."""
BLOCK_SIZE = 512
"""Squares in one block."""
_BLOCKS = "blocks"
_ENCODING_MODULE = "emoface.mter.backbones"
"""The module whose code, with what it imports, determines the features; it imports this one."""
_REMEDY = "rebuild it with 'emoface features'"


class BackboneFacts(BaseModel):
    """All that determines the features of a frozen backbone, as it is recorded.

    Attributes:
        name: Name of the backbone, such as ``timm:vit_base_patch16_224``.
        weights: ``file``, ``library`` or ``random``.
        path: Path of the file of weights; None for those of a library and random ones.
        sha256: sha256 of the file, or of the tensors where there is no file.
        seed: Seed of random weights; None for others.
        input_size: Side of its square input, pixels.
        mean: RGB, 0-1, subtracted from a photo.
        std: RGB, 0-1, the photo is divided by it after the subtraction.
        n_features: Width of the features.
        n_parameters: Number of its parameters.
        software: Name and version of the library that built the network.
        n_macs: Its MACs for one photo; None where an emoface that did not count them made the features.
    """

    model_config = ConfigDict(frozen=True, allow_inf_nan=False)

    name: str
    weights: str
    path: str | None
    sha256: str
    seed: int | None
    input_size: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    n_features: int
    n_parameters: int
    software: str
    n_macs: int | None = None

    @property
    def is_random(self) -> bool:
        """Whether nothing was learned by its weights."""
        return self.weights == RANDOM

    def describe(self) -> str:
        """Describes the backbone and its weights for pages and tables.

        Example:
            >>> facts = dict(path=None, sha256="", seed=0, input_size=8, mean=(0, 0, 0), std=(1, 1, 1), n_features=4,
            ...     n_parameters=9, software="")
            >>> BackboneFacts(name="resnet18", weights="random", **facts).describe()
            'resnet18, random weights'
        """
        if self.is_random:
            return f"{self.name}, random weights"
        return f"{self.name}, weights {Path(self.path).name if self.path else 'of the library'}"

    def identity(self) -> list[Any]:
        """What distinguishes its features from those of another backbone, as JSON values."""
        return [self.name, self.sha256, self.input_size, list(self.mean), list(self.std), self.n_features]


class Encoder(Protocol):
    """A function from squares to features; see ``backbones.FrozenBackbone``."""

    def compute(self, photos: list[Photo]) -> Float32Array:
        """Computes the features of squares, (b, n_features)."""


class _Block(SummaryModel):
    """The summary of a block: the sha256 of its array."""

    sha256: str


@dataclass(frozen=True)
class FeatureFolder:
    """The folder of the features of one backbone on one data set.

    Attributes:
        path: The folder.
        n_features: Width of the features.
    """

    path: Path
    n_features: int

    def array_path(self, split: str, stream: str) -> Path:
        """The path of the features of a stream."""
        return self.path / f"{split}.{stream}.npy"

    def index_path(self, split: str) -> Path:
        """The path of the people's ``index``."""
        return self.path / f"{split}.index.npy"

    def has(self, split: str, stream: str) -> bool:
        """Whether the features of a stream are finished."""
        return self.array_path(split, stream).is_file() and self.index_path(split).is_file()

    def find_crops(self, cache: Place | None) -> Place:
        """Where the crops are that the features are of: in a shared cache if ``cache`` is its URL, else beside them."""
        return cache if isinstance(cache, str) else self.path.parent

    def list_files(self) -> list[Path]:
        """Lists all finished arrays, by split, the ``index`` after the streams."""
        paths = [
            path
            for split in SPLITS
            for path in (*(self.array_path(split, stream) for stream in STREAMS), self.index_path(split))
        ]
        return [path for path in paths if path.is_file()]

    def read(self, split: str, streams: Sequence[str], people: UsablePeople) -> dict[str, Float32Array]:
        """Maps the features of streams into memory.

        Args:
            split: ``train``, ``val`` or ``test``.
            streams: Which streams.
            people: The usable people of the split, for which the features must be.

        Returns:
            Per stream (n, n_features), read-only.

        Raises:
            TableError: An array is missing, damaged, or of other people.
        """
        index = self._load(self.index_path(split), (len(people),))
        if not np.array_equal(index, people.index):
            raise TableError(f"{self.index_path(split)}: lists other people than {split} has now; {_REMEDY}")
        shape = (len(people), self.n_features)
        return {stream: self._load(self.array_path(split, stream), shape) for stream in streams}

    def _load(self, path: Path, shape: tuple[int, ...]) -> NDArray[Any]:
        if not path.is_file():
            raise TableError(f"{path}: no such file; {_REMEDY}")
        try:
            array = np.load(path, mmap_mode="r" if len(shape) > 1 and shape[0] else None)
        except (ValueError, EOFError, OSError) as error:
            raise TableError(f"{path}: not a readable NumPy file ({error}); delete it, then {_REMEDY}") from error
        if array.shape != shape:
            raise TableError(f"{path}: shape is {array.shape}, expected {shape}; delete it, then {_REMEDY}")
        return np.asarray(array)


def find_feature_folder(manifest: Manifest, facts: BackboneFacts, cache_dir: Path) -> FeatureFolder:
    """Finds the folder that the features of a backbone have for a data set as it is now.

    Args:
        manifest: The data set.
        facts: The backbone.
        cache_dir: Folder of all caches.

    Raises:
        TableError: A split's table is missing or damaged.
    """
    parts = [facts.identity(), manifest.undecided_frame, CACHE_SIZES, BATCH_SIZE, code_fingerprint(_ENCODING_MODULE)]
    for split, described in manifest.splits.items():
        table = read_table(manifest.split_path(split), SPLIT_SCHEMA, "rebuild it with 'emoface split DIR'", ["image"])
        images = list(dict.fromkeys(table["image"].to_pylist()))
        parts.append([split, described.sha256, manifest.photos.read_states(images).digest(images)])
    return FeatureFolder(cache_dir / f"features-{shards_key(parts)}", facts.n_features)


def complete_features(
    folder: FeatureFolder,
    manifest: Manifest,
    splits: Sequence[str],
    streams: Sequence[str],
    load: Callable[[], Encoder],
    *,
    cache: Place | None = None,
    allow_missing: bool = False,
    progress: Progress = SILENT,
) -> dict[str, StreamCache]:
    """Computes the features that are missing in a folder.

    Args:
        folder: The folder; its parent is the folder of all caches.
        manifest: The data set.
        splits: Which splits.
        streams: Which streams.
        load: Loads the backbone; called only if something is missing.
        cache: See ``FeatureFolder.find_crops``.
        allow_missing: See ``open_stream_cache``.
        progress: Receives one step per square.

    Returns:
        The stream cache of each split.

    Raises:
        ImageError, TableError: See ``open_stream_cache``.
    """
    place = folder.find_crops(cache)
    caches = {
        split: open_stream_cache(manifest, split, place, progress, allow_missing=allow_missing) for split in splits
    }
    with lock_folder(folder.path.parent, progress, name=folder.path.name):
        pending = [(split, stream) for split in splits for stream in streams if not folder.has(split, stream)]
        encoder = load() if pending else None
        for split, stream in pending:
            assert encoder is not None
            _compute_stream(folder, split, stream, caches[split], encoder, progress)
        shutil.rmtree(folder.path / _BLOCKS, ignore_errors=True)
    return caches


def _compute_stream(
    folder: FeatureFolder, split: str, stream: str, cache: StreamCache, encoder: Encoder, progress: Progress
) -> None:
    """Computes the array of one stream, block by block, and writes it in one step."""
    positions, row_of = _list_squares(cache.people, stream)
    blocks = ShardFolder(folder.path / _BLOCKS / f"{split}.{stream}", _Block)
    numbered = list(in_batches(positions.tolist(), BLOCK_SIZE))
    progress.start(f"features of {stream}, {split}", len(positions))
    for number, block in blocks.find_pending(numbered, lambda *one: _is_current(blocks, *one), progress):
        rows = [
            encoder.compute([_read_square(cache, position, stream) for position in batch])
            for batch in in_batches(block, BATCH_SIZE)
        ]
        blocks.unmark(number)
        with atomic_path(blocks.file_path(number, "npy")) as temporary:
            np.save(temporary, np.concatenate(rows))
        sha256 = blocks.hash_file(number, "npy")
        blocks.mark_done(number, f'{{"sha256": "{sha256}"}}\n')
        progress.advance(len(block))
    _join_blocks(folder.array_path(split, stream), blocks, len(numbered), row_of, folder.n_features)
    with atomic_path(folder.index_path(split)) as temporary:
        np.save(temporary, cache.people.index)
    blocks.remove()


def _join_blocks(path: Path, blocks: ShardFolder, n_blocks: int, row_of: NDArray[np.int64], n_features: int) -> None:
    """Writes the features of all people, 0 for those without a square, from the blocks of the squares."""
    with atomic_path(path) as temporary:
        if not len(row_of):
            np.save(temporary, np.zeros((0, n_features), np.float32))
            return
        array = open_memmap(temporary, mode="w+", dtype=np.float32, shape=(len(row_of), n_features))
        for number in range(n_blocks):
            values = np.load(blocks.file_path(number, "npy"))
            is_here = row_of // BLOCK_SIZE == number
            array[is_here] = values[row_of[is_here] % BLOCK_SIZE]
        array.flush()
        del array


def _is_current(blocks: ShardFolder, number: int, _block: list[int], summary: Summary) -> bool:
    return bool(summary["sha256"] == blocks.hash_file(number, "npy"))


def _list_squares(people: UsablePeople, stream: str) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Lists the different squares of a stream.

    Returns:
        (m,) the position of a person who has each square, and (n,) the number of each person's square, -1 for none.
    """
    if stream == "context":
        first_of: dict[str, int] = {}
        numbers = [first_of.setdefault(image, len(first_of)) for image in people.images]
        row_of = np.array(numbers, np.int64).reshape(-1)
        return np.unique(row_of, return_index=True)[1].astype(np.int64), row_of
    has_square = people.has_face if stream == "face" else np.ones_like(people.has_face)
    row_of = np.where(has_square, np.cumsum(has_square) - 1, -1).astype(np.int64)
    return np.flatnonzero(has_square).astype(np.int64), row_of


def _read_square(cache: StreamCache, position: int, stream: str) -> Photo:
    square = cache.read(position, stream)
    assert square is not None
    return square


def parse_streams(value: str | Sequence[str]) -> tuple[str, ...]:
    """Reads names of streams.

    Args:
        value: As a list, or as one text with commas between the names; ``all`` for all of them.

    Returns:
        The names in the order of ``STREAMS``.

    Raises:
        SettingsError: A name is unknown or given twice.

    Example:
        >>> parse_streams("context, body")
        ('body', 'context')
    """
    names = [name.strip() for name in value.split(",")] if isinstance(value, str) else list(value)
    if names == ["all"]:
        return STREAMS
    for name in names:
        if name not in STREAMS:
            raise SettingsError(f"no stream is called '{name}', expected {', '.join(STREAMS)} with commas between")
        if names.count(name) > 1:
            raise SettingsError(f"the stream '{name}' is given twice")
    if not names:
        raise SettingsError(f"no stream is given, expected some of {', '.join(STREAMS)}")
    return tuple(name for name in STREAMS if name in names)
