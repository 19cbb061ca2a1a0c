"""People as a network's inputs: read from the stream cache, augmented as section 4.4 of the thesis, put into batches.

What is drawn for sample k of epoch e depends on the seed, e and k alone, whatever the number of workers or processes,
and whichever streams a model reads.
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
from emoface.mter.base import IMAGENET_MEAN, IMAGENET_STD, Mter
from emoface.mter.names import STREAM_SIZES, STREAMS
from emoface.mter.vad import to_vad_unit
from emoface.prefetch import map_ahead
from emoface.vision.augmentation import CROP_SHARES, distort_colors
from emoface.vision.crops import Photo

BLANK = tuple(round(255 * value) for value in IMAGENET_MEAN)
"""The colour of a blanked face: 0 after normalisation, as near as 8 bits allow."""

_AVERAGE_FROM = 2.0


@dataclass(frozen=True)
class Augmentation:
    """How training inputs are varied; the defaults are those of section 4.4.

    Attributes:
        crop_shares: Side of the random square that is cut out of a face and out of a body, in shares of its side.
        context_crop_shares: The same of the whole photo, which the thesis does not crop.
        mirror_probability: All streams of a person are mirrored, or none.
        distort_probability: All streams of a person change their colours, by the same amounts, or none.
    """

    crop_shares: tuple[float, float] = CROP_SHARES
    context_crop_shares: tuple[float, float] = (1.0, 1.0)
    mirror_probability: float = 0.5
    distort_probability: float = 0.5


class Draw(NamedTuple):
    """Which person is sample ``number`` of an epoch.

    Attributes:
        epoch: From 0.
        number: From 0, over all batches and processes of the epoch.
        position: In the stream cache.
    """

    epoch: int
    number: int
    position: int


@dataclass(frozen=True)
class Sample:
    """One person, ready to be stacked; pixels are uint8 RGB (side, side, 3) per stream."""

    pixels: dict[str, Photo]
    has_face: bool
    labels: NDArray[np.uint8]
    vad: NDArray[np.float32]
    index: int


@dataclass(frozen=True)
class PersonBatch:
    """b people.

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
        """Per stream (b, 3, side, side), normalised; what ``Mter.forward`` takes."""
        return {stream: normalise_pixels(pixels) for stream, pixels in self.pixels.items()}

    @property
    def vad_unit(self) -> Tensor:
        """(b, 3) ``vad`` as 0-1, nan where EMOTIC has none."""
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
    """Pixels as a network takes them.

    Args:
        pixels: (b, height, width, 3) uint8, RGB.

    Returns:
        (b, 3, height, width) float, minus ``IMAGENET_MEAN``, by ``IMAGENET_STD``; channels last in memory.
    """
    mean = torch.tensor(IMAGENET_MEAN, device=pixels.device)
    std = torch.tensor(IMAGENET_STD, device=pixels.device)
    return ((pixels.float() / 255 - mean) / std).permute(0, 3, 1, 2)


class PeopleDataset:
    """The people of a stream cache as samples.

    ``dataset[position]`` is a person as evaluation sees them, ``dataset[Draw(...)]`` as training does.

    Args:
        cache: Pixels and labels of a split.
        streams: What to read.
        sizes: Side of each stream's input.
        augmentation: How training inputs are varied.
        seed: Decides how.
        masks_face_in_context: Blank the person's face in the context.
    """

    def __init__(
        self,
        cache: StreamCache,
        streams: Sequence[str] = STREAMS,
        *,
        sizes: Mapping[str, int] = STREAM_SIZES,
        augmentation: Augmentation | None = None,
        seed: int = 0,
        masks_face_in_context: bool = False,
    ) -> None:
        self.cache = cache
        self.streams = tuple(streams)
        self.sizes = dict(sizes)
        self.augmentation = augmentation or Augmentation()
        self.seed = seed
        self.masks_face_in_context = masks_face_in_context

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
        """The people as one model reads them."""
        return cls(
            cache,
            model.streams,
            sizes=sizes,
            augmentation=augmentation,
            seed=seed,
            masks_face_in_context=model.masks_face_in_context,
        )

    def __len__(self) -> int:
        return len(self.cache)

    def __getitem__(self, which: int | Draw) -> Sample:
        position = which.position if isinstance(which, Draw) else which
        people = self.cache.people
        kept = {stream: self._read(position, stream) for stream in self.streams}
        seen = {stream: pixels for stream, pixels in kept.items() if pixels is not None}
        if isinstance(which, Draw):
            seen = augment_streams(seen, self.augmentation, (self.seed, which.epoch, which.number), self.sizes)
        no_face = {"face": _no_face(self.sizes["face"])} if "face" in kept and kept["face"] is None else {}
        return Sample(
            pixels={**no_face, **{stream: fit_input(pixels, self.sizes[stream]) for stream, pixels in seen.items()}},
            has_face=bool(people.has_face[position]),
            labels=people.labels[position],
            vad=people.vad[position],
            index=int(people.index[position]),
        )

    def _read(self, position: int, stream: str) -> Photo | None:
        pixels = self.cache.read(position, stream)
        if stream == "context" and self.masks_face_in_context and self.cache.people.has_face[position]:
            assert pixels is not None
            return blank_box(pixels, self.cache.people.face_in_context[position])
        return pixels


def to_stream_inputs(
    photo: Photo,
    body_xyxy: NDArray[np.float32],
    face: Photo | None = None,
    face_xyxy: NDArray[np.float32] | None = None,
    *,
    streams: Sequence[str] = STREAMS,
    sizes: Mapping[str, int] = STREAM_SIZES,
    masks_face_in_context: bool = False,
) -> tuple[dict[str, Tensor], Tensor]:
    """One person of any photo as a network's inputs: what evaluation would see of them, to the bit.

    Args:
        photo: (height, width, 3), RGB.
        body_xyxy: (4,) body box, original pixels.
        face: (side, side, 3) crop of the face, as the faces job cuts it; None without one.
        face_xyxy: (4,) face box, original pixels; None without one.
        streams: What the model reads.
        sizes: Side of each stream's input.
        masks_face_in_context: Blank the person's face in the context.

    Returns:
        Per stream (1, 3, side, side), normalised, and has_face, (1,) bool.
    """
    cut = crop_person(photo, body_xyxy, face, face_xyxy)
    pixels = person_pixels(cut, streams, sizes, masks_face_in_context)
    inputs = {stream: normalise_pixels(torch.from_numpy(one)[None]) for stream, one in pixels.items()}
    return inputs, torch.tensor([face is not None])


def person_pixels(
    cut: PersonPixels, streams: Sequence[str], sizes: Mapping[str, int], masks_face_in_context: bool
) -> dict[str, Photo]:
    """A person's pixels at the sides of a network's inputs, not varied.

    Returns:
        Per stream (side, side, 3); black where there is no face.
    """
    context = cut.context
    if masks_face_in_context and cut.face_in_context is not None:
        context = blank_box(context, cut.face_in_context)
    face = _no_face(sizes["face"]) if cut.face is None else cut.face
    kept = {"face": face, "body": cut.body, "context": context}
    return {stream: fit_input(kept[stream], sizes[stream]) for stream in streams}


def augment_streams(
    kept: Mapping[str, Photo], augmentation: Augmentation, seed: tuple[int, ...], sizes: Mapping[str, int]
) -> dict[str, Photo]:
    """Varies a person's streams: each cropped for itself, all mirrored and recoloured alike.

    Args:
        kept: Per stream (side, side, 3).
        augmentation: By how much.
        seed: Numbers that decide it.
        sizes: Side of each stream's result.

    Returns:
        Per stream (size, size, 3).
    """
    rng = np.random.default_rng(seed)
    is_mirrored = rng.random() < augmentation.mirror_probability
    is_distorted = rng.random() < augmentation.distort_probability
    colors_seed = int(rng.integers(2**62))
    varied = {}
    for stream, pixels in kept.items():
        shares = augmentation.context_crop_shares if stream == "context" else augmentation.crop_shares
        crop_rng = np.random.default_rng((*seed, 1 + STREAMS.index(stream)))
        pixels = fit_input(crop_random_square(crop_rng, pixels, shares), sizes[stream])
        if is_mirrored:
            pixels = np.ascontiguousarray(pixels[:, ::-1])
        if is_distorted:
            pixels = distort_colors(np.random.default_rng(colors_seed), pixels)
        varied[stream] = pixels
    return varied


def crop_random_square(rng: np.random.Generator, photo: Photo, shares: tuple[float, float]) -> Photo:
    """Cuts a square whose side is a random share of the photo's shorter side, at a random place.

    Args:
        rng: Decides side and place.
        photo: (height, width, 3).
        shares: Smallest and largest share.

    Returns:
        (side, side, 3), a view.
    """
    height, width = photo.shape[:2]
    side = max(1, round(min(height, width) * float(rng.uniform(*shares))))
    left, top = int(rng.integers(0, width - side + 1)), int(rng.integers(0, height - side + 1))
    return photo[top : top + side, left : left + side]


def fit_input(photo: Photo, size: int) -> Photo:
    """Scales a square to a network's input; by averaging only where it shrinks to half or less, which is slower.

    Args:
        photo: (side, side, 3).
        size: Side of the result.
    """
    if photo.shape[0] == size:
        return np.ascontiguousarray(photo)
    interpolation = cv2.INTER_AREA if photo.shape[0] >= _AVERAGE_FROM * size else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(photo, (size, size), interpolation=interpolation), np.uint8)


def blank_box(photo: Photo, shares_xyxy: NDArray[np.float32]) -> Photo:
    """Paints a box over, in a copy.

    Args:
        photo: (height, width, 3).
        shares_xyxy: (4,) the box in shares of width and height.
    """
    height, width = photo.shape[:2]
    left, top, right, bottom = shares_xyxy * np.array([width, height, width, height])
    painted = photo.copy()
    rows, columns = slice(int(max(0, top)), int(np.ceil(bottom))), slice(int(max(0, left)), int(np.ceil(right)))
    painted[rows, columns] = BLANK
    return painted


def stack_samples(samples: Sequence[Sample]) -> PersonBatch:
    """Samples as a batch."""
    streams = samples[0].pixels.keys()
    return PersonBatch(
        pixels={stream: torch.from_numpy(np.stack([one.pixels[stream] for one in samples])) for stream in streams},
        has_face=torch.tensor([one.has_face for one in samples]),
        labels=torch.from_numpy(np.stack([one.labels for one in samples])).float(),
        vad=torch.from_numpy(np.stack([one.vad for one in samples])),
        index=torch.tensor([one.index for one in samples]),
    )


def load_batch(dataset: PeopleDataset, which: Sequence[int | Draw]) -> PersonBatch:
    """The people asked for, in that order."""
    return stack_samples([dataset[one] for one in which])


def iterate_batches(
    dataset: PeopleDataset, batches: Iterable[Sequence[int | Draw]], workers: int = 0
) -> Iterator[PersonBatch]:
    """Batches in order, read ahead by worker threads; OpenCV and numpy do the work outside Python's lock.

    Args:
        dataset: The people.
        batches: Who is in each batch.
        workers: Threads that read; 0 reads in this one.
    """
    load = partial(load_batch, dataset)
    if not workers:
        yield from map(load, batches)
        return
    with ThreadPoolExecutor(workers) as pool:
        yield from map_ahead(pool, load, batches, ahead=workers + 2)


def _no_face(size: int) -> Photo:
    return np.zeros((size, size, 3), np.uint8)
