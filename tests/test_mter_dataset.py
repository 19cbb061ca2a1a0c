"""People as inputs: the same for evaluation and prediction, varied by seed alone, all streams alike."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from mter_data import write_photos_and_tables

from emoface.datasets.manifest import Manifest, read_manifest
from emoface.datasets.stream_cache import StreamCache, open_stream_cache
from emoface.mter.base import STREAMS, ContextInput
from emoface.mter.dataset import (
    BLANK,
    Augmentation,
    PeopleDataset,
    SampleKey,
    augment_streams,
    blank_box,
    crop_random_square,
    fit_input,
    iterate_batches,
    load_batch,
    normalise_pixels,
    to_stream_inputs,
)
from emoface.mter.names import IMAGENET_MEAN, IMAGENET_STD
from emoface.vision.images import decode_photo, read_photo

SIZES = {"face": 32, "body": 40, "context": 56}


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    return read_manifest(write_photos_and_tables(tmp_path_factory.mktemp("data"), 8))


@pytest.fixture(scope="module")
def cache(manifest: Manifest) -> StreamCache:
    return open_stream_cache(manifest, "train")


@pytest.mark.parametrize(
    "context_input", [ContextInput(), ContextInput(masks_face=True), ContextInput(True, "black", center_share=0.875)]
)
def test_any_photo_gives_what_evaluation_sees_to_the_bit(
    manifest: Manifest, cache: StreamCache, context_input: ContextInput
) -> None:
    dataset = PeopleDataset(cache, context_input=context_input)
    rows = pq.read_table(manifest.split_path("train")).to_pylist()
    for position, row in enumerate(rows):
        face = row["face"] and decode_photo(row["face"]["bytes"], "face")
        inputs, has_face = to_stream_inputs(
            read_photo(Path(manifest.image_root) / row["image"]),
            np.array(row["body_bbox"], np.float32),
            face,
            None if face is None else np.array(row["face_bbox"], np.float32),
            context_input=context_input,
        )
        batch = load_batch(dataset, [position])
        assert has_face.tolist() == batch.has_face.tolist() == [face is not None]
        assert inputs.keys() == batch.inputs.keys() == set(STREAMS)
        for stream in STREAMS:
            assert torch.equal(inputs[stream], batch.inputs[stream])
    assert inputs["face"].shape[2:] == (128, 128) and inputs["context"].shape[2:] == (224, 224)


def test_batch_is_labels_ratings_and_index_of_its_people(cache: StreamCache) -> None:
    batch = load_batch(PeopleDataset(cache, sizes=SIZES), [5, 0])
    assert batch.index.tolist() == cache.people.index[[5, 0]].tolist()
    assert batch.labels.tolist() == cache.people.labels[[5, 0]].tolist()
    assert batch.vad[1].tolist() in ([8, 5, 4], [3, 5, 4]) and batch.vad[0].isnan().tolist() == [False, False, True]
    assert batch.vad_unit[1, 1:].tolist() == pytest.approx([4 / 9, 3 / 9])
    assert {stream: tuple(pixels.shape) for stream, pixels in batch.inputs.items()} == {
        "face": (2, 3, 32, 32),
        "body": (2, 3, 40, 40),
        "context": (2, 3, 56, 56),
    }


def test_normalising_is_mean_and_deviation_of_each_channel() -> None:
    pixels = torch.randint(0, 256, (2, 3, 5, 3), dtype=torch.uint8)
    normalised = normalise_pixels(pixels)
    for channel in range(3):
        expected = (pixels[..., channel].double() / 255 - IMAGENET_MEAN[channel]) / IMAGENET_STD[channel]
        assert torch.allclose(normalised[:, channel].double(), expected, atol=1e-6)
    assert normalise_pixels(torch.tensor(BLANK, dtype=torch.uint8).expand(1, 2, 2, 3)).abs().max() < 0.01


def test_person_without_a_face_is_black_whatever_is_drawn(cache: StreamCache) -> None:
    position = int(np.argmin(cache.people.has_face))
    dataset = PeopleDataset(cache, sizes=SIZES, augmentation=Augmentation(distort_probability=1.0))
    for which in (position, SampleKey(0, 0, position)):
        sample = dataset[which]
        assert not sample.has_face and not sample.pixels["face"].any() and sample.pixels["body"].any()


def test_sample_depends_on_seed_epoch_and_number_alone(cache: StreamCache) -> None:
    dataset = PeopleDataset(cache, sizes=SIZES, seed=3)
    batches = [[SampleKey(2, 2 * k, k), SampleKey(2, 2 * k + 1, (5 * k) % len(cache))] for k in range(4)]
    whole = list(iterate_batches(dataset, batches))
    for workers in (1, 3):
        for one, other in zip(iterate_batches(dataset, batches, workers), whole, strict=True):
            assert one.index.tolist() == other.index.tolist()
            for stream in STREAMS:
                assert torch.equal(one.pixels[stream], other.pixels[stream])
    body_only = PeopleDataset(cache, ("body",), sizes=SIZES, seed=3)
    assert np.array_equal(body_only[SampleKey(2, 4, 2)].pixels["body"], whole[2].pixels["body"][0])
    same = dataset[SampleKey(2, 4, 2)].pixels["body"]
    for seed, key in ((4, SampleKey(2, 4, 2)), (3, SampleKey(1, 4, 2)), (3, SampleKey(2, 5, 2))):
        assert not np.array_equal(PeopleDataset(cache, sizes=SIZES, seed=seed)[key].pixels["body"], same)


def test_streams_are_mirrored_and_recoloured_together() -> None:
    rng = np.random.default_rng(0)
    photo = rng.integers(0, 256, (40, 40, 3), dtype=np.uint8)
    kept = dict.fromkeys(STREAMS, photo)
    sizes = dict.fromkeys(STREAMS, 40)
    whole = {"crop_shares": (1.0, 1.0), "context_crop_shares": (1.0, 1.0)}
    seen = set()
    for number in range(40):
        varied = augment_streams(kept, Augmentation(**whole, distort_probability=0.0), (0, 0, number), sizes)
        assert all(np.array_equal(varied[stream], varied["face"]) for stream in STREAMS)
        is_mirrored = np.array_equal(varied["face"], photo[:, ::-1])
        assert is_mirrored or np.array_equal(varied["face"], photo)
        seen.add(is_mirrored)
        colored = augment_streams(kept, Augmentation(**whole, mirror_probability=0.0), (0, 0, number), sizes)
        assert all(np.array_equal(colored[stream], colored["face"]) for stream in STREAMS)
    assert seen == {True, False}
    plain = Augmentation(**whole, distort_probability=0.0)
    faces = [augment_streams(kept, plain, (1, 0, number), sizes)["face"] for number in range(400)]
    n_mirrored = sum(not np.array_equal(face, photo) for face in faces)
    assert 160 < n_mirrored < 240  # 400 draws of one half: 200 +- 4 standard deviations


def test_random_square_is_square_inside_and_of_every_allowed_size() -> None:
    rows, columns = np.mgrid[0:30, 0:50]
    photo = np.stack([rows, columns, rows], axis=2).astype(np.uint8)
    sides, corners = [], []
    for k in range(500):
        square = crop_random_square(np.random.default_rng(k), photo, (0.3, 1.0))
        side = square.shape[0]
        assert square.shape == (side, side, 3)
        top, left = int(square[0, 0, 0]), int(square[0, 0, 1])
        assert np.array_equal(square, photo[top : top + side, left : left + side])
        sides.append(side)
        corners.append((top, left))
    assert min(sides) == 9 and max(sides) == 30  # 0.3 and 1 of the shorter side
    assert max(left for _, left in corners) > 35 and max(top for top, _ in corners) > 15


def test_context_is_not_cropped_in_the_recipe_of_the_thesis(cache: StreamCache) -> None:
    plain = Augmentation(mirror_probability=0.0, distort_probability=0.0)
    dataset = PeopleDataset(cache, augmentation=plain)
    for number in range(5):
        augmented = dataset[SampleKey(0, number, 1)].pixels
        assert np.array_equal(augmented["context"], dataset[1].pixels["context"])
        assert not np.array_equal(augmented["body"], dataset[1].pixels["body"])


def test_face_is_blanked_in_the_context_where_the_model_asks(cache: StreamCache) -> None:
    dataset = PeopleDataset(cache, ("context",), context_input=ContextInput(masks_face=True))
    plain = PeopleDataset(cache, ("context",))
    for position in range(len(cache)):
        masked, whole = dataset[position].pixels["context"], plain[position].pixels["context"]
        if not cache.people.has_face[position]:
            assert np.array_equal(masked, whole)
            continue
        left, top, right, bottom = (cache.people.face_in_context[position] * 224).tolist()
        inside = masked[int(top) + 1 : int(bottom), int(left) + 1 : int(right)]
        assert (inside == BLANK).all()
        outside = np.ones((224, 224), bool)
        outside[int(top) - 2 : int(bottom) + 3, int(left) - 2 : int(right) + 3] = False
        assert np.array_equal(masked[outside], whole[outside])


def test_blanking_by_hand_leaves_the_photo_as_it_was() -> None:
    photo = np.zeros((4, 10, 3), np.uint8)
    painted = blank_box(photo, np.array([0.15, 0.5, 0.35, 0.9], np.float32))
    assert (painted[2:4, 1:4] == BLANK).all() and painted.any(axis=2).sum() == 6 and not photo.any()
    assert (blank_box(photo, np.array([-1, -1, 2, 2], np.float32)) == BLANK).all()


def test_fitting_averages_where_it_shrinks_by_half() -> None:
    board = np.indices((8, 8)).sum(axis=0) % 2 * 200
    photo = np.repeat(board[..., None], 3, axis=2).astype(np.uint8)
    assert (fit_input(photo, 4) == 100).all()
    assert fit_input(photo, 8).tolist() == photo.tolist()
