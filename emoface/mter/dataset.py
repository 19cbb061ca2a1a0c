"""People as inputs of a network: read from the stream cache and batched.

For evaluation a person's squares are scaled to the inputs of the network here, on the CPU. A training batch contains
the squares as they are stored, with the random parameters of the augmentation, which runs on the device of the network;
see ``emoface.mter.augmentation``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from emoface.datasets.stream_cache import CACHE_SIZES, StreamCache, crop_person
from emoface.mter.array_inputs import PhotoChanges
from emoface.mter.augmentation import (
    Augmentation,
    AugmentationParameters,
    augment_pixels,
    draw_parameters,
    normalise_pixels,
)
from emoface.mter.base import Mter
from emoface.mter.inputs import ContextInput
from emoface.mter.names import STREAM_SIZES, STREAMS
from emoface.mter.person_arrays import PersonArrays
from emoface.mter.pixels import (
    FILLS,
    black_square,
    blank_box,
    crop_center_square,
    fit_input,
    paint_box,
    person_pixels,
)
from emoface.mter.sampling import SampleKey
from emoface.mter.vad import to_vad_unit
from emoface.prefetch import map_ahead
from emoface.vision.crops import Photo

T = TypeVar("T")


@dataclass(frozen=True)
class PersonBatch:
    """A batch of b people.

    Attributes:
        pixels: Per stream (b, side, side, 3) uint8, RGB; all 0 where a person has no face. For training these are the
            stored squares, for evaluation they have the size of the network's input.
        has_face: (b,) bool, always on the CPU: the networks compute features of the rows with a face only, and would
            have to wait for a GPU to know which these are.
        labels: (b, 26) float, 0 or 1.
        vad: (b, 3) valence, arousal, dominance, 1-10; nan where EMOTIC has none.
        index: (b,) int64, the people's ``index``, always on the CPU.
        sizes: Side of each stream's input, pixels.
        arrays: The inputs of the model beside the streams and their masks, by name, see ``Mter.array_inputs``.
        augmentation: Random parameters of the augmentation of a training batch; None for evaluation.
    """

    pixels: dict[str, Tensor]
    has_face: Tensor
    labels: Tensor
    vad: Tensor
    index: Tensor
    sizes: Mapping[str, int]
    arrays: dict[str, Tensor] = field(default_factory=dict)
    augmentation: AugmentationParameters | None = None

    def __len__(self) -> int:
        return len(self.index)

    @property
    def inputs(self) -> dict[str, Tensor]:
        """Per stream (b, 3, side, side), augmented and normalised, and ``arrays``; the inputs of ``Mter.forward``.

        The face of a person without one is arbitrary, as ``Mter.forward`` ignores it.
        """
        if self.augmentation is None:
            return {stream: normalise_pixels(pixels) for stream, pixels in self.pixels.items()} | self.arrays
        return {
            stream: augment_pixels(pixels, self.augmentation, stream, self.sizes[stream])
            for stream, pixels in self.pixels.items()
        } | self.arrays

    @property
    def vad_unit(self) -> Tensor:
        """(b, 3) ``vad`` scaled to 0-1, nan where EMOTIC has no rating."""
        return to_vad_unit(self.vad)

    def to(self, device: torch.device) -> PersonBatch:
        """The same people on another device, except ``has_face`` and ``index``; from pinned memory without waiting."""
        return replace(
            self,
            pixels={stream: pixels.to(device, non_blocking=True) for stream, pixels in self.pixels.items()},
            labels=self.labels.to(device, non_blocking=True),
            vad=self.vad.to(device, non_blocking=True),
            arrays={name: values.to(device, non_blocking=True) for name, values in self.arrays.items()},
            augmentation=None if self.augmentation is None else self.augmentation.to(device),
        )

    def tensors(self) -> list[Tensor]:
        """The tensors that ``to`` moves."""
        drawn = self.augmentation
        parameters = [] if drawn is None else [drawn.crops, drawn.is_mirrored, drawn.colors]
        return [*self.pixels.values(), *self.arrays.values(), self.labels, self.vad, *parameters]


class PeopleDataset:
    """The people of a stream cache as inputs of a network.

    ``dataset[position]`` is the input of each stream without augmentation, for evaluation: uint8 RGB (side, side, 3),
    black where the person has no face. ``load_training_batch`` loads batches for training.

    Args:
        cache: Pixels and labels of a split.
        streams: Streams to read.
        sizes: Side of each stream's input, pixels.
        augmentation: Settings of the augmentation; None takes the defaults.
        seed: Seed of the augmentation.
        context_input: How the photo becomes the input of the context stream; None takes the defaults.
        arrays: The model's inputs beside the streams; None if it has none.
    """

    def __init__(
        self,
        cache: StreamCache,
        streams: Sequence[str] = STREAMS,
        *,
        sizes: Mapping[str, int] = STREAM_SIZES,
        augmentation: Augmentation | None = None,
        seed: int = 0,
        context_input: ContextInput | None = None,
        arrays: PersonArrays | None = None,
    ) -> None:
        self.cache = cache
        self.streams = tuple(streams)
        self.sizes = dict(sizes)
        self.augmentation = augmentation or Augmentation()
        self.seed = seed
        self.context_input = context_input or ContextInput()
        self.arrays = arrays

    @classmethod
    def of_model(
        cls,
        cache: StreamCache,
        model: Mter,
        *,
        sizes: Mapping[str, int] = STREAM_SIZES,
        augmentation: Augmentation | None = None,
        seed: int = 0,
        arrays: PersonArrays | None = None,
    ) -> PeopleDataset:
        """The dataset with the streams and the context input of one model; ``arrays`` if it has array inputs."""
        return cls(
            cache,
            model.streams,
            sizes=sizes,
            augmentation=augmentation,
            seed=seed,
            context_input=model.context_input,
            arrays=arrays,
        )

    def __len__(self) -> int:
        return len(self.cache)

    def __getitem__(self, position: int) -> dict[str, Photo]:
        cached = {stream: self._read(position, stream) for stream in self.streams}
        present = {stream: pixels for stream, pixels in cached.items() if pixels is not None}
        if "context" in present:
            present["context"] = crop_center_square(present["context"], self.context_input.center_share)
        no_face = {"face": black_square(self.sizes["face"])} if "face" in cached and cached["face"] is None else {}
        return {**no_face, **{stream: fit_input(pixels, self.sizes[stream]) for stream, pixels in present.items()}}

    def copy_stored(self, position: int, stream: str, target: Photo) -> None:
        """Copies the stored square of one person; face and body are blanked in the context if the model asks.

        Args:
            position: 0 to n - 1.
            stream: Stream to read.
            target: (side, side, 3) uint8 of the size of ``CACHE_SIZES``, which is overwritten; with 0 without a face.
        """
        stored = self.cache.read(position, stream)
        target[...] = 0 if stored is None else stored
        for shares_xyxy, fill in self._blanked_boxes(position, stream):
            paint_box(target, shares_xyxy, fill)

    def _read(self, position: int, stream: str) -> Photo | None:
        pixels = self.cache.read(position, stream)
        for shares_xyxy, fill in self._blanked_boxes(position, stream):
            assert pixels is not None
            pixels = blank_box(pixels, shares_xyxy, fill)
        return pixels

    def _blanked_boxes(self, position: int, stream: str) -> Iterator[tuple[NDArray[np.float32], tuple[int, ...]]]:
        """The boxes of a person that are blanked in a stream, as shares of the photo, with their colours."""
        people = self.cache.people
        if stream == "context" and self.context_input.masks_body:
            yield people.body_in_context[position], FILLS[self.context_input.body_fill]
        if stream == "context" and self.context_input.masks_face and people.has_face[position]:
            yield people.face_in_context[position], FILLS[self.context_input.face_fill]


def to_stream_inputs(
    photo: Photo,
    body_xyxy: NDArray[np.float32],
    face: Photo | None = None,
    face_xyxy: NDArray[np.float32] | None = None,
    *,
    streams: Sequence[str] = STREAMS,
    sizes: Mapping[str, int] = STREAM_SIZES,
    context_input: ContextInput | None = None,
) -> tuple[dict[str, Tensor], Tensor]:
    """Builds the inputs of a network for one person of any photo, bit for bit those of an evaluation.

    Args:
        photo: (height, width, 3), RGB.
        body_xyxy: (4,) body box, original pixels.
        face: (side, side, 3) crop of the face, made as by the faces job; None without one.
        face_xyxy: (4,) face box, original pixels; None without one.
        streams: Input streams of the model.
        sizes: Side of each stream's input, pixels.
        context_input: How the photo becomes the input of the context stream; None takes the defaults.

    Returns:
        Per stream (1, 3, side, side), normalised, and has_face, (1,) bool.
    """
    person = crop_person(photo, body_xyxy, face, face_xyxy)
    pixels = person_pixels(person, streams, sizes, context_input or ContextInput())
    inputs = {stream: normalise_pixels(torch.from_numpy(one)[None]) for stream, one in pixels.items()}
    return inputs, torch.tensor([face is not None])


def load_batch(dataset: PeopleDataset, positions: Sequence[int], *, pins_memory: bool = False) -> PersonBatch:
    """Loads people as one batch without augmentation, for evaluation.

    Args:
        dataset: The people.
        positions: The people of the batch, in order.
        pins_memory: Whether the batch is in page-locked memory, from which a GPU reads while the CPU goes on.
    """
    inputs = [dataset[position] for position in positions]
    pixels = {}
    for stream in dataset.streams:
        side = dataset.sizes[stream]
        pixels[stream] = torch.empty((len(inputs), side, side, 3), dtype=torch.uint8, pin_memory=pins_memory)
        for target, one in zip(pixels[stream].numpy(), inputs, strict=True):
            target[...] = one[stream]
    arrays = {}
    if dataset.arrays is not None:
        share = dataset.context_input.center_share
        arrays = dataset.arrays.load(positions, dataset.sizes, center_share=share)
    return _build_batch(dataset, positions, pixels, arrays, pins_memory)


def load_training_batch(dataset: PeopleDataset, keys: Sequence[SampleKey], *, pins_memory: bool = False) -> PersonBatch:
    """Loads samples as one batch that is augmented when its ``inputs`` are taken.

    Args:
        dataset: The people.
        keys: The samples, in order.
        pins_memory: As in ``load_batch``.
    """
    positions = [key.position for key in keys]
    pixels = {}
    for stream in dataset.streams:
        side = CACHE_SIZES[stream]
        pixels[stream] = torch.empty((len(keys), side, side, 3), dtype=torch.uint8, pin_memory=pins_memory)
        for position, target in zip(positions, pixels[stream].numpy(), strict=True):
            dataset.copy_stored(position, stream, target)
    parameters = draw_parameters(keys, dataset.augmentation, dataset.seed, pins_memory=pins_memory)
    arrays = {}
    if dataset.arrays is not None:
        crops = parameters.crops[:, STREAMS.index("context")].numpy()
        changes = PhotoChanges(parameters.is_mirrored.numpy(), crops)
        arrays = dataset.arrays.load(positions, dataset.sizes, changes=changes)
    return _build_batch(dataset, positions, pixels, arrays, pins_memory, parameters)


def _build_batch(
    dataset: PeopleDataset,
    positions: Sequence[int],
    pixels: dict[str, Tensor],
    arrays: Mapping[str, NDArray[Any]],
    pins_memory: bool,
    augmentation: AugmentationParameters | None = None,
) -> PersonBatch:
    people = dataset.cache.people
    rows = np.asarray(positions, np.int64)
    labels, vad = torch.from_numpy(people.labels[rows]).float(), torch.from_numpy(people.vad[rows])
    tensors = {name: torch.from_numpy(values) for name, values in arrays.items()}
    return PersonBatch(
        pixels=pixels,
        has_face=torch.from_numpy(people.has_face[rows]),
        labels=labels.pin_memory() if pins_memory else labels,
        vad=vad.pin_memory() if pins_memory else vad,
        index=torch.from_numpy(people.index[rows]),
        sizes=dataset.sizes,
        arrays={name: one.pin_memory() if pins_memory else one for name, one in tensors.items()},
        augmentation=augmentation,
    )


def iterate_batches(
    dataset: PeopleDataset, batches: Iterable[Sequence[int]], workers: int = 0, *, pins_memory: bool = False
) -> Iterator[PersonBatch]:
    """Yields batches for evaluation in order, read ahead by worker threads; OpenCV and numpy release the global lock.

    Args:
        dataset: The people.
        batches: The positions of the people of each batch.
        workers: Number of threads that read ahead; 0 reads in the calling thread.
        pins_memory: As in ``load_batch``.
    """
    return _read_ahead(partial(load_batch, dataset, pins_memory=pins_memory), batches, workers)


def iterate_training_batches(
    dataset: PeopleDataset, batches: Iterable[Sequence[SampleKey]], workers: int = 0, *, pins_memory: bool = False
) -> Iterator[PersonBatch]:
    """Yields batches for training in order, read ahead by worker threads; with arguments as ``iterate_batches``."""
    return _read_ahead(partial(load_training_batch, dataset, pins_memory=pins_memory), batches, workers)


def _read_ahead(load: Callable[[T], PersonBatch], batches: Iterable[T], workers: int) -> Iterator[PersonBatch]:
    if not workers:
        yield from map(load, batches)
        return
    with ThreadPoolExecutor(workers) as pool:
        yield from map_ahead(pool, load, batches, ahead=workers + 2)


def move_ahead(batches: Iterable[PersonBatch], device: torch.device) -> Iterator[PersonBatch]:
    """Yields batches on a device, in order; to a GPU the next batch is copied while it computes on the present one.

    Args:
        batches: Batches on the CPU; those for a GPU in pinned memory, or the CPU waits for each copy.
        device: The device to compute on.
    """
    if device.type != "cuda":
        yield from (batch.to(device) for batch in batches)
        return
    copying = torch.cuda.Stream(device)
    waiting: tuple[PersonBatch, torch.cuda.Event] | None = None
    for batch in batches:
        before = waiting
        with torch.cuda.stream(copying):
            waiting = batch.to(device), copying.record_event()
        if before is not None:
            yield _use_after(*before, torch.cuda.current_stream(device))
    if waiting is not None:
        yield _use_after(*waiting, torch.cuda.current_stream(device))


def _use_after(batch: PersonBatch, arrived: torch.cuda.Event, stream: torch.cuda.Stream) -> PersonBatch:
    """Makes a stream wait until a batch is copied, and keeps the batch's memory until the stream has used it."""
    stream.wait_event(arrived)
    for tensor in batch.tensors():
        tensor.record_stream(stream)
    return batch
