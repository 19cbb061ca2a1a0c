"""People as inputs: the same for evaluation and prediction, and in training varied by the seed alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from mter_data import write_photos_and_tables

from emoface.datasets.manifest import Manifest, read_manifest
from emoface.datasets.stream_cache import StreamCache, open_stream_cache
from emoface.mter.augmentation import Augmentation
from emoface.mter.base import STREAMS, ContextInput
from emoface.mter.dataset import (
    PeopleDataset,
    iterate_batches,
    iterate_training_batches,
    load_batch,
    load_training_batch,
    to_stream_inputs,
)
from emoface.mter.pixels import BLANK, blank_box, fit_input
from emoface.mter.sampling import SampleKey
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


def test_person_without_a_face_is_black(cache: StreamCache) -> None:
    position = int(np.argmin(cache.people.has_face))
    dataset = PeopleDataset(cache, sizes=SIZES)
    for batch in (load_batch(dataset, [position]), load_training_batch(dataset, [SampleKey(0, 0, position)])):
        assert not batch.has_face and not batch.pixels["face"].any() and batch.pixels["body"].any()


def test_sample_depends_on_seed_epoch_and_number_alone(cache: StreamCache) -> None:
    dataset = PeopleDataset(cache, sizes=SIZES, seed=3)
    batches = [[SampleKey(2, 2 * k, k), SampleKey(2, 2 * k + 1, (5 * k) % len(cache))] for k in range(4)]
    whole = list(iterate_training_batches(dataset, batches))
    for workers in (1, 3):
        for one, other in zip(iterate_training_batches(dataset, batches, workers), whole, strict=True):
            assert one.index.tolist() == other.index.tolist()
            for stream in STREAMS:
                assert torch.equal(one.inputs[stream], other.inputs[stream])

    def body(dataset: PeopleDataset, key: SampleKey) -> torch.Tensor:
        return load_training_batch(dataset, [key]).inputs["body"]

    same = whole[2].inputs["body"][:1]
    assert torch.equal(body(dataset, SampleKey(2, 4, 2)), same)  # in a batch of its own, as of another process
    body_only = PeopleDataset(cache, ("body",), sizes=SIZES, seed=3)
    assert torch.equal(body(body_only, SampleKey(2, 4, 2)), same)
    for seed, key in ((4, SampleKey(2, 4, 2)), (3, SampleKey(1, 4, 2)), (3, SampleKey(2, 5, 2))):
        assert not torch.equal(body(PeopleDataset(cache, sizes=SIZES, seed=seed), key), same)


def test_batches_of_evaluation_do_not_depend_on_workers(cache: StreamCache) -> None:
    dataset = PeopleDataset(cache, sizes=SIZES)
    batches = [[0, 3], [2], [], [1, 4]]
    for one, other in zip(iterate_batches(dataset, batches, 2), iterate_batches(dataset, batches), strict=True):
        assert one.index.tolist() == other.index.tolist()
        assert all(torch.equal(one.inputs[stream], other.inputs[stream]) for stream in STREAMS)


def test_training_without_augmentation_is_evaluation(cache: StreamCache) -> None:
    plain = Augmentation((1.0, 1.0), mirror_probability=0.0, distort_probability=0.0)
    form = ContextInput(masks_face=True)
    for sizes in (SIZES, {"face": 128, "body": 96, "context": 224}, {"face": 144, "body": 72, "context": 128}):
        dataset = PeopleDataset(cache, sizes=sizes, augmentation=plain, context_input=form)
        evaluated = load_batch(dataset, range(len(cache)))
        trained = load_training_batch(dataset, [SampleKey(0, k, k) for k in range(len(cache))])
        for stream in STREAMS:
            difference = (trained.inputs[stream] - evaluated.inputs[stream]).abs().max()
            assert difference <= 1.01 / 255 / 0.224  # one step of 0-255, divided by the smallest deviation


def test_context_is_not_cropped_in_the_recipe_of_the_thesis(cache: StreamCache) -> None:
    plain = Augmentation(mirror_probability=0.0, distort_probability=0.0)
    dataset = PeopleDataset(cache, sizes={"face": 144, "body": 144, "context": 256}, augmentation=plain)
    evaluated = load_batch(dataset, [1]).inputs
    for number in range(5):
        augmented = load_training_batch(dataset, [SampleKey(0, number, 1)]).inputs
        assert torch.equal(augmented["context"], evaluated["context"])
        assert not torch.equal(augmented["body"], evaluated["body"])


def test_face_is_blanked_in_the_context_where_the_model_asks(cache: StreamCache) -> None:
    dataset = PeopleDataset(cache, ("context",), context_input=ContextInput(masks_face=True))
    plain = PeopleDataset(cache, ("context",))
    for position in range(len(cache)):
        masked, whole = dataset[position]["context"], plain[position]["context"]
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
