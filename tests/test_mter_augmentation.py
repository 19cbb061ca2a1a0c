"""Augmentation of training batches: OpenCV's scaling, the colours of the detector's training, and honest chances."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch
from mter_data import to_pixels
from numpy.typing import NDArray

from emoface.datasets.stream_cache import CACHE_SIZES
from emoface.mter.augmentation import (
    Augmentation,
    AugmentationParameters,
    augment_pixels,
    change_colors,
    crop_squares,
    draw_parameters,
    interpolation_taps,
    normalise_pixels,
)
from emoface.mter.names import IMAGENET_MEAN, IMAGENET_STD, STREAMS
from emoface.mter.pixels import BLANK, fit_input
from emoface.mter.sampling import SampleKey
from emoface.vision.augmentation import (
    BRIGHTNESSES,
    CONTRASTS,
    CROP_SHARES,
    GREY_PROBABILITY,
    SATURATIONS,
    TINTS,
    distort_colors,
)
from emoface.vision.crops import Photo

N = 4000
KEYS = [SampleKey(0, number, 0) for number in range(N)]


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def drawn() -> AugmentationParameters:
    """The parameters of 4,000 samples with the settings of the thesis."""
    return draw_parameters(KEYS, Augmentation(), seed=1)


def _photos(n: int, side: int, seed: int = 0) -> NDArray[np.uint8]:
    """Noise over a coarse pattern, in which wrong places and wrong weights show."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 200, (n, 9, 9, 3), dtype=np.uint8)
    photos = [cv2.resize(one, (side, side), interpolation=cv2.INTER_NEAREST) for one in coarse]
    return np.stack(photos) + rng.integers(0, 56, (n, side, side, 3), dtype=np.uint8)


# Scaling


@pytest.mark.parametrize("stored", [144, 256])
@pytest.mark.parametrize("size", [32, 61, 64, 72, 96, 112, 128, 144, 200, 224, 256])
def test_crops_are_those_of_opencv(stored: int, size: int) -> None:
    photos = _photos(6, stored)
    sides = [stored, round(0.3 * stored), min(size, stored), min(2 * size, stored), min(2 * size - 1, stored), 43]
    corners = [(0, 0), (stored - sides[1], 3), (0, stored - sides[2]), (0, 0), (0, 0), (11, stored - 43)]
    crops = torch.tensor([(*corner, side) for corner, side in zip(corners, sides, strict=True)])
    is_mirrored = torch.tensor([False, True, False, True, False, True])
    scaled = crop_squares(torch.from_numpy(photos), crops, is_mirrored, size).numpy()
    assert scaled.shape == (6, size, size, 3)
    for photo, (left, top), side, turned, found in zip(photos, corners, sides, is_mirrored, scaled, strict=True):
        expected = fit_input(photo[top : top + side, left : left + side], size)
        expected = expected[:, ::-1] if turned else expected
        assert np.abs(found - expected).max() <= 1
        if side == size:
            assert np.array_equal(found, expected)


@pytest.mark.parametrize(("side", "size"), [(256, 112), (144, 64), (144, 128), (43, 128), (1, 32), (100, 33), (9, 3)])
def test_taps_by_a_slow_reference(side: int, size: int) -> None:
    places, weights = interpolation_taps(torch.tensor([side]), size, max_side=256)
    matrix = np.zeros((size, side))
    np.add.at(matrix, (np.arange(size)[:, None], places[0].numpy()), weights[0].numpy())
    expected = np.zeros((size, side))
    for i in range(size):
        if side >= 2 * size:
            for j in range(side):
                expected[i, j] = max(0.0, min(j + 1, (i + 1) * side / size) - max(j, i * side / size)) * size / side
        else:
            centre = min(max((i + 0.5) * side / size - 0.5, 0), side - 1)
            for j in range(side):
                expected[i, j] = max(0.0, 1 - abs(centre - j))
    assert np.allclose(matrix, expected, atol=1e-6) and np.allclose(matrix.sum(axis=1), 1)


def test_no_people_are_no_pixels() -> None:
    parameters = draw_parameters([], Augmentation(), 0)
    augmented = augment_pixels(torch.zeros(0, 144, 144, 3, dtype=torch.uint8), parameters, "body", 64)
    assert augmented.shape == (0, 3, 64, 64)


# Colours


def _colors_of(seed: int) -> list[float]:
    """The changes that ``distort_colors`` draws from a generator."""
    rng = np.random.default_rng(seed)
    saturation = 0.0 if rng.random() < GREY_PROBABILITY else rng.uniform(*SATURATIONS)
    return [saturation, rng.uniform(*CONTRASTS), rng.uniform(*BRIGHTNESSES), *rng.uniform(*TINTS, 3)]


def _all_colors_of(seeds: range) -> torch.Tensor:
    return torch.tensor([_colors_of(seed) for seed in seeds], dtype=torch.float32)


def test_colors_change_as_in_the_training_of_the_detector() -> None:
    seeds = range(40)
    assert sum(_colors_of(seed)[0] == 0 for seed in seeds) > 2  # some become grey
    photos = _photos(len(seeds), 24)
    changed = change_colors(torch.from_numpy(photos).float(), _all_colors_of(seeds))
    for seed, photo, found in zip(seeds, photos, changed.numpy(), strict=True):
        expected = distort_colors(np.random.default_rng(seed), photo)  # which rounds down
        assert found.min() >= 0 and found.max() <= 255
        assert (found - expected).min() > -0.01 and (found - expected).max() < 1.01


def test_unchanged_colors_are_exactly_the_same() -> None:
    pixels = torch.from_numpy(_photos(3, 24)).float()
    assert torch.equal(change_colors(pixels, torch.tensor([[1.0, 1, 0, 1, 1, 1]] * 3)), pixels)


def test_normalising_is_mean_and_deviation_of_each_channel() -> None:
    pixels = torch.randint(0, 256, (2, 3, 5, 3), dtype=torch.uint8)
    normalised = normalise_pixels(pixels)
    assert normalised.shape == (2, 3, 3, 5) and normalised.is_contiguous(memory_format=torch.channels_last)
    for channel in range(3):
        expected = (pixels[..., channel].double() / 255 - IMAGENET_MEAN[channel]) / IMAGENET_STD[channel]
        assert torch.allclose(normalised[:, channel].double(), expected, atol=1e-6)
    assert normalise_pixels(torch.tensor(BLANK, dtype=torch.uint8).expand(1, 2, 2, 3)).abs().max() < 0.01


# Parameters


def test_streams_are_mirrored_and_recoloured_together() -> None:
    photo = _photos(1, 40)
    keys = [SampleKey(0, number, 0) for number in range(40)]
    whole = {"crop_shares": (1.0, 1.0), "context_crop_shares": (1.0, 1.0)}
    stored = dict.fromkeys(STREAMS, 40)

    def augment(**settings: float) -> list[NDArray[np.uint8]]:
        parameters = draw_parameters(keys, Augmentation(**whole, **settings), 0, stored)
        pixels = torch.from_numpy(photo).expand(40, -1, -1, -1)
        return [to_pixels(augment_pixels(pixels, parameters, stream, 40)) for stream in STREAMS]

    mirrored = augment(distort_probability=0.0)
    assert all(np.array_equal(one, mirrored[0]) for one in mirrored)
    is_turned = [np.array_equal(one, photo[0][:, ::-1]) for one in mirrored[0]]
    assert all(turned or np.array_equal(one, photo[0]) for turned, one in zip(is_turned, mirrored[0], strict=True))
    assert 0 < sum(is_turned) < 40
    colored = augment(mirror_probability=0.0)
    assert all(np.array_equal(one, colored[0]) for one in colored)
    assert 0 < sum(np.array_equal(one, photo[0]) for one in colored[0]) < 40


def test_half_are_mirrored_half_recoloured_and_an_eighth_of_these_grey(drawn: AugmentationParameters) -> None:
    def is_near(n: int, expected: float) -> bool:
        return bool(abs(n - N * expected) < 4 * np.sqrt(N * expected * (1 - expected)))

    is_changed = (drawn.colors != torch.tensor([1.0, 1, 0, 1, 1, 1])).any(dim=1)
    assert is_near(int(drawn.is_mirrored.sum()), 0.5) and is_near(int(is_changed.sum()), 0.5)
    assert is_near(int((drawn.is_mirrored & is_changed).sum()), 0.25)  # independent of each other
    assert is_near(int((drawn.colors[:, 0] == 0).sum()), 0.5 * GREY_PROBABILITY)
    none = draw_parameters(KEYS, Augmentation(mirror_probability=0, distort_probability=0), 1)
    assert not none.is_mirrored.any() and (none.colors == torch.tensor([1.0, 1, 0, 1, 1, 1])).all()


def test_colors_are_drawn_from_the_whole_of_their_ranges() -> None:
    colors = draw_parameters(KEYS, Augmentation(distort_probability=1), 1).colors.numpy()
    colored = colors[colors[:, 0] > 0, 0]
    for values, (low, high) in zip(
        [colored, *colors[:, 1:].T], [SATURATIONS, CONTRASTS, BRIGHTNESSES, TINTS, TINTS, TINTS], strict=True
    ):
        margin = 0.01 * (high - low)
        assert low - 1e-6 <= values.min() < low + margin and high - margin < values.max() <= high + 1e-6
        assert abs(values.mean() - (low + high) / 2) < 4 * (high - low) / np.sqrt(12 * len(values))
    assert np.abs(np.corrcoef(colors[:, 1:].T) - np.eye(5)).max() < 4 / np.sqrt(N)


def test_crops_are_inside_of_every_allowed_size_and_everywhere(drawn: AugmentationParameters) -> None:
    face, body, context = (drawn.crops[:, k].numpy() for k in range(3))
    assert (context == (0, 0, CACHE_SIZES["context"])).all()
    for crops in (face, body):
        left, top, side = crops.T
        stored = CACHE_SIZES["face"]
        assert side.min() == round(CROP_SHARES[0] * stored) == 43 and side.max() == stored
        assert crops.min() >= 0 and (left + side).max() == (top + side).max() == stored
        place = left[side < 60] / (stored - side[side < 60])
        assert place.min() == 0 and place.max() == 1 and abs(place.mean() - 0.5) < 0.05
    assert abs(np.corrcoef(face[:, 2], body[:, 2])[0, 1]) < 4 / np.sqrt(N)  # each stream has its own
    assert abs(np.corrcoef(face[:, 2], drawn.is_mirrored.numpy())[0, 1]) < 4 / np.sqrt(N)


def test_settings_of_one_part_do_not_change_what_is_drawn_for_another() -> None:
    keys = [SampleKey(3, number, 7) for number in range(50)]
    first = draw_parameters(keys, Augmentation(), 2)
    second = draw_parameters(keys, Augmentation(context_crop_shares=(0.5, 1), mirror_probability=0.1), 2)
    assert torch.equal(first.crops[:, :2], second.crops[:, :2]) and torch.equal(first.colors, second.colors)
    assert not torch.equal(first.crops[:, 2], second.crops[:, 2])


def test_crop_of_almost_nothing_has_a_pixel() -> None:
    photos: Photo = _photos(8, 20)
    parameters = draw_parameters(
        [SampleKey(0, k, 0) for k in range(8)], Augmentation((0.001, 0.01)), 0, dict.fromkeys(STREAMS, 20)
    )
    assert (parameters.crops[:, 0, 2] == 1).all()
    scaled = crop_squares(torch.from_numpy(photos), parameters.crops[:, 0], parameters.is_mirrored, 5)
    for photo, (left, top, _), found in zip(photos, parameters.crops[:, 0].tolist(), scaled.numpy(), strict=True):
        assert (found == photo[top, left]).all()
