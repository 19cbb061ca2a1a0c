"""People as inputs of a network: read from the stream cache, augmented as in section 4.4 of the thesis, batched.

The augmentation of sample k of epoch e depends only on the seed, e and k, and not on the number of workers or processes
or on the streams of the model.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from typing import NamedTuple

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from emoface.datasets.stream_cache import PersonPixels, StreamCache, crop_person
from emoface.mter.base import ContextInput, Mter
from emoface.mter.names import IMAGENET_MEAN, IMAGENET_STD, STREAM_SIZES, STREAMS, FaceFill
from emoface.mter.vad import to_vad_unit
from emoface.prefetch import map_ahead
from emoface.vision.augmentation import CROP_SHARES, distort_colors
from emoface.vision.crops import Photo

BLANK = tuple(round(255 * value) for value in IMAGENET_MEAN)
"""The usual colour of a blanked face: after normalisation as close to 0 as 8 bits allow."""
_FILLS: dict[FaceFill, tuple[int, ...]] = {"mean": BLANK, "black": (0, 0, 0)}

_AVERAGE_FROM = 2.0


@dataclass(frozen=True)
class Augmentation:
    """Settings of the data augmentation; the defaults are those of section 4.4 of the thesis.

    Attributes:
        crop_shares: Smallest and largest side of the random square crop of a face or a body, as a share of its side.
        context_crop_shares: The same for the whole photo, which the thesis does not crop.
        mirror_probability: Probability that all streams of a person are mirrored together.
        distort_probability: Probability that the colours of all streams of a person change, by the same amounts.
    """

    crop_shares: tuple[float, float] = CROP_SHARES
    context_crop_shares: tuple[float, float] = (1.0, 1.0)
    mirror_probability: float = 0.5
    distort_probability: float = 0.5


class SampleKey(NamedTuple):
    """Identifies a training sample: its epoch, its number in the epoch, and its person.

    Attributes:
        epoch: Index of the epoch, from 0.
        number: Index of the sample among all batches and processes of the epoch, from 0.
        position: Position of the person in the stream cache.
    """

    epoch: int
    number: int
    position: int


@dataclass(frozen=True)
class Sample:
    """One person, ready for batching; ``pixels`` are uint8 RGB (side, side, 3) per stream."""

    pixels: dict[str, Photo]
    has_face: bool
    labels: NDArray[np.uint8]
    vad: NDArray[np.float32]
    index: int


@dataclass(frozen=True)
class PersonBatch:
    """A batch of b people.

    Attributes:
        pixels: Per stream (b, side, side, 3) uint8, RGB; all 0 where a person has no face.
        has_face: (b,) bool.
        labels: (b, 26) float, 0 or 1.
        vad: (b, 3) valence, arousal, dominance, 1-10; nan where EMOTIC has none.
        index: (b,) int64, the people's ``index``.
    """

    pixels: dict[str, Tensor]
    has_face: Tensor
    labels: Tensor
    vad: Tensor
    index: Tensor

    def __len__(self) -> int:
        return len(self.index)

    @property
    def inputs(self) -> dict[str, Tensor]:
        """Per stream (b, 3, side, side), normalised; the inputs of ``Mter.forward``."""
        return {stream: normalise_pixels(pixels) for stream, pixels in self.pixels.items()}

    @property
    def vad_unit(self) -> Tensor:
        """(b, 3) ``vad`` scaled to 0-1, nan where EMOTIC has no rating."""
        return to_vad_unit(self.vad)

    def to(self, device: torch.device) -> PersonBatch:
        """The same people on another device."""
        return replace(
            self,
            pixels={stream: pixels.to(device, non_blocking=True) for stream, pixels in self.pixels.items()},
            has_face=self.has_face.to(device),
            labels=self.labels.to(device),
            vad=self.vad.to(device),
        )


def normalise_pixels(pixels: Tensor) -> Tensor:
    """Normalises pixels for the network.

    Args:
        pixels: (b, height, width, 3) uint8, RGB.

    Returns:
        (b, 3, height, width) float, (pixels / 255 - ``IMAGENET_MEAN``) / ``IMAGENET_STD``; channels last in memory.
    """
    mean = torch.tensor(IMAGENET_MEAN, device=pixels.device)
    std = torch.tensor(IMAGENET_STD, device=pixels.device)
    return ((pixels.float() / 255 - mean) / std).permute(0, 3, 1, 2)


class PeopleDataset:
    """The people of a stream cache as samples.

    ``dataset[position]`` is a sample without augmentation, for evaluation; ``dataset[SampleKey(...)]`` is augmented,
    for training.

    Args:
        cache: Pixels and labels of a split.
        streams: Streams to read.
        sizes: Side of each stream's input, pixels.
        augmentation: Settings of the augmentation; None takes the defaults.
        seed: Seed of the augmentation.
        context_input: How the photo becomes the input of the context stream; None takes the defaults.
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
    ) -> None:
        self.cache = cache
        self.streams = tuple(streams)
        self.sizes = dict(sizes)
        self.augmentation = augmentation or Augmentation()
        self.seed = seed
        self.context_input = context_input or ContextInput()

    @classmethod
    def of_model(
        cls,
        cache: StreamCache,
        model: Mter,
        *,
        sizes: Mapping[str, int] = STREAM_SIZES,
        augmentation: Augmentation | None = None,
        seed: int = 0,
    ) -> PeopleDataset:
        """The dataset with the streams and the context input of one model."""
        return cls(
            cache,
            model.streams,
            sizes=sizes,
            augmentation=augmentation,
            seed=seed,
            context_input=model.context_input,
        )

    def __len__(self) -> int:
        return len(self.cache)

    def __getitem__(self, which: int | SampleKey) -> Sample:
        position = which.position if isinstance(which, SampleKey) else which
        people = self.cache.people
        cached = {stream: self._read(position, stream) for stream in self.streams}
        present = {stream: pixels for stream, pixels in cached.items() if pixels is not None}
        if isinstance(which, SampleKey):
            present = augment_streams(present, self.augmentation, (self.seed, which.epoch, which.number), self.sizes)
        elif "context" in present:
            present["context"] = crop_center_square(present["context"], self.context_input.center_share)
        no_face = {"face": _no_face(self.sizes["face"])} if "face" in cached and cached["face"] is None else {}
        return Sample(
            pixels={**no_face, **{stream: fit_input(pixels, self.sizes[stream]) for stream, pixels in present.items()}},
            has_face=bool(people.has_face[position]),
            labels=people.labels[position],
            vad=people.vad[position],
            index=int(people.index[position]),
        )

    def _read(self, position: int, stream: str) -> Photo | None:
        pixels = self.cache.read(position, stream)
        if stream == "context" and self.context_input.masks_face and self.cache.people.has_face[position]:
            assert pixels is not None
            fill = _FILLS[self.context_input.face_fill]
            return blank_box(pixels, self.cache.people.face_in_context[position], fill)
        return pixels


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


def person_pixels(
    person: PersonPixels, streams: Sequence[str], sizes: Mapping[str, int], context_input: ContextInput
) -> dict[str, Photo]:
    """Scales a person's pixels to the input sizes of a network, without augmentation.

    Returns:
        Per stream (side, side, 3); black where there is no face.
    """
    context = person.context
    if context_input.masks_face and person.face_in_context is not None:
        context = blank_box(context, person.face_in_context, _FILLS[context_input.face_fill])
    context = crop_center_square(context, context_input.center_share)
    face = _no_face(sizes["face"]) if person.face is None else person.face
    pixels = {"face": face, "body": person.body, "context": context}
    return {stream: fit_input(pixels[stream], sizes[stream]) for stream in streams}


def augment_streams(
    stream_pixels: Mapping[str, Photo], augmentation: Augmentation, seed: tuple[int, ...], sizes: Mapping[str, int]
) -> dict[str, Photo]:
    """Augments a person's streams: each stream has its own random crop, all share mirroring and colour changes.

    Args:
        stream_pixels: Per stream (side, side, 3).
        augmentation: Settings of the augmentation.
        seed: Numbers that seed the random generators.
        sizes: Side of each stream's result, pixels.

    Returns:
        Per stream (size, size, 3).
    """
    rng = np.random.default_rng(seed)
    is_mirrored = rng.random() < augmentation.mirror_probability
    is_distorted = rng.random() < augmentation.distort_probability
    colors_seed = int(rng.integers(2**62))
    augmented = {}
    for stream, pixels in stream_pixels.items():
        shares = augmentation.context_crop_shares if stream == "context" else augmentation.crop_shares
        crop_rng = np.random.default_rng((*seed, 1 + STREAMS.index(stream)))
        pixels = fit_input(crop_random_square(crop_rng, pixels, shares), sizes[stream])
        if is_mirrored:
            pixels = np.ascontiguousarray(pixels[:, ::-1])
        if is_distorted:
            pixels = distort_colors(np.random.default_rng(colors_seed), pixels)
        augmented[stream] = pixels
    return augmented


def crop_random_square(rng: np.random.Generator, photo: Photo, shares: tuple[float, float]) -> Photo:
    """Crops a square of random size at a random place.

    Args:
        rng: Random generator of size and place.
        photo: (height, width, 3).
        shares: Smallest and largest side, as a share of the photo's shorter side.

    Returns:
        (side, side, 3), a view.
    """
    height, width = photo.shape[:2]
    side = max(1, round(min(height, width) * float(rng.uniform(*shares))))
    left, top = int(rng.integers(0, width - side + 1)), int(rng.integers(0, height - side + 1))
    return photo[top : top + side, left : left + side]


def crop_center_square(photo: Photo, share: float) -> Photo:
    """Crops the central square of a photo.

    Args:
        photo: (height, width, 3).
        share: Side of the square, as a share of the photo's shorter side.

    Returns:
        (side, side, 3), a view; the photo itself if it is square and the share is 1.

    Example:
        >>> crop_center_square(np.zeros((256, 256, 3), np.uint8), 0.875).shape
        (224, 224, 3)
    """
    height, width = photo.shape[:2]
    side = max(1, round(min(height, width) * share))
    left, top = (width - side) // 2, (height - side) // 2
    return photo[top : top + side, left : left + side]


def fit_input(photo: Photo, size: int) -> Photo:
    """Scales a square to the input size of a network.

    It averages pixels where the square shrinks to half or less, and else interpolates linearly, which is faster.

    Args:
        photo: (side, side, 3).
        size: Side of the result, pixels.
    """
    if photo.shape[0] == size:
        return np.ascontiguousarray(photo)
    interpolation = cv2.INTER_AREA if photo.shape[0] >= _AVERAGE_FROM * size else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(photo, (size, size), interpolation=interpolation), np.uint8)


def blank_box(photo: Photo, shares_xyxy: NDArray[np.float32], fill: tuple[int, ...] = BLANK) -> Photo:
    """Fills a box with one colour, in a copy of the photo.

    Args:
        photo: (height, width, 3).
        shares_xyxy: (4,) the box as shares of width and height, 0-1.
        fill: The colour, RGB.
    """
    height, width = photo.shape[:2]
    left, top, right, bottom = shares_xyxy * np.array([width, height, width, height])
    painted = photo.copy()
    rows, columns = slice(int(max(0, top)), int(np.ceil(bottom))), slice(int(max(0, left)), int(np.ceil(right)))
    painted[rows, columns] = fill
    return painted


def stack_samples(samples: Sequence[Sample]) -> PersonBatch:
    """Stacks samples into a batch."""
    streams = samples[0].pixels.keys()
    return PersonBatch(
        pixels={stream: torch.from_numpy(np.stack([one.pixels[stream] for one in samples])) for stream in streams},
        has_face=torch.tensor([one.has_face for one in samples]),
        labels=torch.from_numpy(np.stack([one.labels for one in samples])).float(),
        vad=torch.from_numpy(np.stack([one.vad for one in samples])),
        index=torch.tensor([one.index for one in samples]),
    )


def load_batch(dataset: PeopleDataset, which: Sequence[int | SampleKey]) -> PersonBatch:
    """Loads samples as one batch, in the given order."""
    return stack_samples([dataset[one] for one in which])


def iterate_batches(
    dataset: PeopleDataset, batches: Iterable[Sequence[int | SampleKey]], workers: int = 0
) -> Iterator[PersonBatch]:
    """Yields batches in order, read ahead by worker threads; OpenCV and numpy release Python's global lock.

    Args:
        dataset: The people.
        batches: The samples of each batch, by position or sample key.
        workers: Number of threads that read ahead; 0 reads in the calling thread.
    """
    load = partial(load_batch, dataset)
    if not workers:
        yield from map(load, batches)
        return
    with ThreadPoolExecutor(workers) as pool:
        yield from map_ahead(pool, load, batches, ahead=workers + 2)


def _no_face(size: int) -> Photo:
    return np.zeros((size, size, 3), np.uint8)
