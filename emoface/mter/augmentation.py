"""Data augmentation of training batches, as in section 4.4 of the thesis: random crops, mirroring and colours.

The random parameters of a sample are drawn on the CPU and depend only on the seed, its epoch and its number, not on the
number of workers or processes or on the streams of the model. What changes the pixels runs in torch on a whole batch,
on the device of the network, and has no loop over people.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from emoface.datasets.stream_cache import CACHE_SIZES
from emoface.mter.names import IMAGENET_MEAN, IMAGENET_STD, STREAMS
from emoface.mter.pixels import AVERAGE_FROM
from emoface.mter.sampling import SampleKey
from emoface.vision.augmentation import (
    BRIGHTNESSES,
    CONTRASTS,
    CROP_SHARES,
    GREY_PROBABILITY,
    GREY_WEIGHTS,
    SATURATIONS,
    TINTS,
)

_N_TAPS_LINEAR = 2
_N_COMMON = 9
"""Random numbers of a sample that its streams share: 2 choices, and 7 for the colours."""
_N_PER_CROP = 3


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

    def shares(self, stream: str) -> tuple[float, float]:
        """Smallest and largest side of the crop of a stream, as a share of the side of the stored square."""
        return self.context_crop_shares if stream == "context" else self.crop_shares


@dataclass(frozen=True)
class AugmentationParameters:
    """The random parameters of b samples.

    Attributes:
        crops: (b, 3, 3) int64: left, top and side of the crop of each of ``STREAMS``, in pixels of the stored square.
        is_mirrored: (b,) bool.
        colors: (b, 6) float: saturation, contrast, brightness, and the factors of red, green and blue, as in
            ``vision.augmentation.distort_colors``; 1, 1, 0, 1, 1, 1 where the colours do not change.
    """

    crops: Tensor
    is_mirrored: Tensor
    colors: Tensor

    def to(self, device: torch.device) -> AugmentationParameters:
        """The same parameters on another device."""
        return replace(
            self,
            crops=self.crops.to(device, non_blocking=True),
            is_mirrored=self.is_mirrored.to(device, non_blocking=True),
            colors=self.colors.to(device, non_blocking=True),
        )


def draw_parameters(
    keys: Sequence[SampleKey],
    augmentation: Augmentation,
    seed: int,
    stored_sizes: Mapping[str, int] = CACHE_SIZES,
    *,
    pins_memory: bool = False,
) -> AugmentationParameters:
    """Draws the random parameters of samples, each from its own random generator.

    Args:
        keys: The b samples.
        augmentation: Settings of the augmentation.
        seed: Seed of the run.
        stored_sizes: Side of the stored square of each stream, pixels.
        pins_memory: Whether the result is in page-locked memory, from which a GPU reads while the CPU goes on.
    """
    n_numbers = _N_COMMON + _N_PER_CROP * len(STREAMS)
    drawn = [np.random.default_rng((seed, key.epoch, key.number)).random(n_numbers) for key in keys]
    numbers = np.array(drawn).reshape(-1, n_numbers)  # 0-1, always all of them, so that none depends on the settings
    crops = [
        _to_crops(numbers[:, start : start + _N_PER_CROP], stored_sizes[stream], augmentation.shares(stream))
        for start, stream in zip(range(_N_COMMON, n_numbers, _N_PER_CROP), STREAMS, strict=True)
    ]
    colors = _to_colors(numbers[:, 2:_N_COMMON])
    colors[numbers[:, 1] >= augmentation.distort_probability] = (1, 1, 0, 1, 1, 1)
    arrays = (np.stack(crops, axis=1), numbers[:, 0] < augmentation.mirror_probability, colors)
    tensors = [torch.from_numpy(array) for array in arrays]
    return AugmentationParameters(*(one.pin_memory() if pins_memory else one for one in tensors))


def _to_crops(numbers: NDArray[np.float64], stored: int, shares: tuple[float, float]) -> NDArray[np.int64]:
    """Turns random numbers, (b, 3), into left, top and side of square crops; all places are equally likely."""
    low, high = shares
    side = np.maximum(1, np.rint(stored * (low + (high - low) * numbers[:, 0])))
    corners = np.floor(numbers[:, 1:] * (stored - side + 1)[:, None])
    return np.column_stack([corners, side]).astype(np.int64)


def _to_colors(numbers: NDArray[np.float64]) -> NDArray[np.float32]:
    """Turns random numbers, (b, 7), into changes of the colours, (b, 6)."""
    low, high = np.array([SATURATIONS, CONTRASTS, BRIGHTNESSES, TINTS, TINTS, TINTS]).T
    colors = low + (high - low) * numbers[:, 1:]
    colors[numbers[:, 0] < GREY_PROBABILITY, 0] = 0
    return np.asarray(colors, np.float32)


def augment_pixels(pixels: Tensor, parameters: AugmentationParameters, stream: str, size: int) -> Tensor:
    """Crops, scales, mirrors and recolours the stored squares of a stream, and normalises them for the network.

    Args:
        pixels: (b, side, side, 3) uint8, RGB, the stored squares.
        parameters: Parameters of the b samples, on the same device.
        stream: One of ``STREAMS``.
        size: Side of the result, pixels.

    Returns:
        (b, 3, size, size) float, channels last in memory.
    """
    scaled = crop_squares(pixels, parameters.crops[:, STREAMS.index(stream)], parameters.is_mirrored, size)
    return normalise_pixels(change_colors(scaled, parameters.colors))


def crop_squares(pixels: Tensor, crops: Tensor, is_mirrored: Tensor, size: int) -> Tensor:
    """Crops a square of each photo, scales it as ``fit_input`` does, and mirrors some of them.

    Rows and columns are scaled one after the other. Each row of the result is the weighted sum of a few rows of the
    photo, of 2 where it is interpolated. Products with whole interpolation matrices take up to twice as long on a CPU.

    Args:
        pixels: (b, side, side, 3) uint8.
        crops: (b, 3) int64: left, top and side of each crop, pixels.
        is_mirrored: (b,) bool.
        size: Side of the result, pixels.

    Returns:
        (b, size, size, 3) float, 0-255, not rounded; colours are contiguous in memory.
    """
    b, side = pixels.shape[:2]
    left, top = crops[:, 0, None, None], crops[:, 1, None, None]
    places, weights = interpolation_taps(crops[:, 2], size, max_side=side)
    rows = _mix_rows(pixels, places + top, weights).view(b, size, side, 3).transpose(1, 2).contiguous()
    turned = is_mirrored[:, None, None]
    places = torch.where(turned, places.flip(1), places) + left
    columns = _mix_rows(rows, places, torch.where(turned, weights.flip(1), weights))
    return columns.view(b, size, size, 3).transpose(1, 2).contiguous()


def interpolation_taps(sides: Tensor, size: int, max_side: int) -> tuple[Tensor, Tensor]:
    """Computes from which pixels of a line each pixel of a scaled line is mixed, by OpenCV's rules.

    Lines that shrink to half or less are averaged, as by ``INTER_AREA``; each pixel of the result covers
    ``side / size`` pixels of the line. The others are interpolated between two pixels, as by ``INTER_LINEAR``.

    Args:
        sides: (b,) int64, pixels of each line.
        size: Number of pixels of the result.
        max_side: Largest possible number of pixels of a line, which determines how many are mixed.

    Returns:
        Places, (b, size, n_taps) int64, 0 to ``side - 1``, and weights, (b, size, n_taps) float, with sums of 1.

    Example:
        >>> places, weights = interpolation_taps(torch.tensor([4]), 2, max_side=4)
        >>> places.tolist(), weights.tolist()
        ([[[0, 1, 2], [2, 3, 3]]], [[[0.5, 0.5, 0.0], [0.5, 0.5, 0.0]]])
    """
    n_taps = math.ceil(max_side / size) + 1 if max_side >= AVERAGE_FROM * size else _N_TAPS_LINEAR
    side = sides.double()[:, None, None]
    scale = side / size
    number = torch.arange(size, device=sides.device, dtype=torch.float64)[:, None]
    is_averaged = side >= AVERAGE_FROM * size
    centre = ((number + 0.5) * scale - 0.5).clamp(min=0).minimum(side - 1)
    start = number * scale
    taps = torch.arange(n_taps, device=sides.device, dtype=torch.float64)
    places = torch.where(is_averaged, start, centre).floor() + taps  # (b, size, n_taps)
    overlap = (places + 1).minimum(start + scale) - places.maximum(start)
    weights = torch.where(is_averaged, overlap / scale, 1 - (centre - places).abs()).clamp(min=0)
    return places.minimum(side - 1).long(), weights.float()


def _mix_rows(photos: Tensor, places: Tensor, weights: Tensor) -> Tensor:
    """Computes weighted sums of rows.

    Args:
        photos: (b, n, ...), contiguous.
        places: (b, m, n_taps) int64.
        weights: (b, m, n_taps) float.

    Returns:
        (b, m, the other dimensions as one) float.
    """
    b, n = photos.shape[:2]
    m = places.shape[1]
    rows = photos.flatten(0, 1).flatten(1)
    places = places + n * torch.arange(b, device=places.device)[:, None, None]
    mixed = torch.zeros(b, m, rows.shape[1], device=photos.device)
    for tap in range(places.shape[2]):
        chosen = rows.index_select(0, places[:, :, tap].flatten()).view_as(mixed)
        mixed.addcmul_(chosen.float(), weights[:, :, tap, None])
    return mixed


def change_colors(pixels: Tensor, colors: Tensor) -> Tensor:
    """Changes the colours of each photo, as ``vision.augmentation.distort_colors`` does.

    All changes are linear, so they are one product of each pixel with a matrix of 3 x 3, and a shift.

    Args:
        pixels: (b, height, width, 3) float, RGB, 0-255.
        colors: (b, 6) as in ``AugmentationParameters``.

    Returns:
        (b, height, width, 3) float, 0-255.
    """
    flat = pixels.flatten(1, 2)
    saturation, contrast, brightness = (column[:, None] for column in colors[:, :3].T)  # (b, 1)
    tint = colors[:, 3:]  # (b, 3)
    constants = _constants(pixels.device)
    mean = flat.mean(dim=1)
    grey = (mean * constants.grey_weights).sum(dim=1, keepdim=True)
    mean_level = saturation * mean.mean(dim=1, keepdim=True) + (1 - saturation) * grey
    shift = tint * ((1 - contrast) * mean_level + brightness)
    desaturated = constants.grey_weights[:, None].expand(3, 3)  # from RGB (row) to each of RGB (column)
    saturated = saturation[:, None] * constants.identity + (1 - saturation[:, None]) * desaturated
    matrix = saturated * (contrast * tint)[:, None]
    return torch.baddbmm(shift[:, None], flat, matrix).clamp_(0, 255).view_as(pixels)


def normalise_pixels(pixels: Tensor) -> Tensor:
    """Normalises pixels for the network.

    Args:
        pixels: (b, height, width, 3) uint8 or float, RGB, 0-255.

    Returns:
        (b, 3, height, width) float, (pixels / 255 - ``IMAGENET_MEAN``) / ``IMAGENET_STD``; channels last in memory.
    """
    constants = _constants(pixels.device)
    return ((pixels.float() / 255 - constants.mean) / constants.std).permute(0, 3, 1, 2)


@dataclass(frozen=True)
class _Constants:
    """Constants on one device: to make them there anew would wait for the GPU each time."""

    mean: Tensor
    std: Tensor
    grey_weights: Tensor
    identity: Tensor


@cache
def _constants(device: torch.device) -> _Constants:
    with torch.inference_mode(False):
        return _Constants(
            mean=torch.tensor(IMAGENET_MEAN, device=device),
            std=torch.tensor(IMAGENET_STD, device=device),
            grey_weights=torch.tensor(GREY_WEIGHTS, device=device),
            identity=torch.eye(3, device=device),
        )
