"""Region proposals: the job that writes regions.parquet, and the regions that a person gets from it."""

from __future__ import annotations

import sys
import types
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from mter_data import PHOTO_WH, write_photos_and_tables
from numpy.typing import NDArray
from torch import Tensor, nn

from emoface.datasets.manifest import read_manifest
from emoface.datasets.stream_cache import default_cache_dir, open_stream_cache
from emoface.errors import TableError, WeightsError
from emoface.inference.regions import FasterRcnn
from emoface.jobs import regions as regions_job
from emoface.jobs.regions import RegionsConfig, run_regions
from emoface.jobs.train import TrainConfig, run_train
from emoface.mter.array_inputs import PhotoChanges
from emoface.mter.inputs import REGIONS
from emoface.mter.person_arrays import PersonArrays
from emoface.schema import REGIONS_SCHEMA
from emoface.vision.crops import Photo

SIZES = {"face": 32, "body": 32, "context": 64}


class DrawnRegions:
    """A provider whose first region is the left person's body box, followed by k strips of the photo."""

    name, sha256, n_strips = "drawn", "0" * 64, 12

    def __init__(self) -> None:
        self.n_photos = 0

    def find(self, photo: Photo) -> NDArray[np.float32]:
        self.n_photos += 1
        edges = np.linspace(0, 1, self.n_strips + 1)
        strips = [(left, 0, right, 1) for left, right in pairwise(edges)]
        boxes = np.array([(10 / 200, 10 / 120, 80 / 200, 115 / 120), *strips], np.float32)
        features = np.tile(np.arange(len(boxes), dtype=np.float32)[:, None], (1, 1024))
        return np.hstack([features, boxes])


@pytest.fixture
def provider(monkeypatch: pytest.MonkeyPatch) -> DrawnRegions:
    drawn = DrawnRegions()
    monkeypatch.setattr(regions_job, "load_region_provider", lambda *_: drawn)
    return drawn


def test_people_get_the_best_regions_that_do_not_show_themselves(tmp_path: Path, provider: DrawnRegions) -> None:
    manifest = read_manifest(write_photos_and_tables(tmp_path, 6))
    work = manifest.path.parent
    record = run_regions(RegionsConfig(dir=work))
    assert record.counts == {"photos": 6, "without_regions": 0, "regions": 6 * 13} and provider.n_photos == 6
    assert pq.read_schema(work / "regions.parquet").equals(REGIONS_SCHEMA)
    run_regions(RegionsConfig(dir=work))
    assert provider.n_photos == 6  # the shards are kept
    cache = open_stream_cache(manifest, "train")
    arrays = PersonArrays(manifest, cache.people, {"regions": REGIONS}, default_cache_dir(manifest))
    left, right = (int(np.flatnonzero(cache.people.index == index)[0]) for index in (0, 1))
    loaded = arrays.load([left, right], SIZES)
    assert loaded["has_region"].all()
    assert loaded["regions"][0, :, 0].tolist() == list(range(1, 11))  # without the box of the person itself
    assert loaded["regions"][1, :, 0].tolist() == list(range(10))
    np.testing.assert_allclose(loaded["regions"][0, 0, 1024:], [0, 0, 1 / 12, 1], atol=1e-3)
    changes = PhotoChanges(np.array([True]), np.array([[0, 0, 256]]))
    mirrored = arrays.load([left], SIZES, changes=changes)["regions"][0]
    np.testing.assert_allclose(mirrored[0, 1024:], [11 / 12, 0, 1, 1], atol=1e-3)
    assert mirrored[0, 0] == 1 and PHOTO_WH == (200, 120)


def test_affective_graph_trains_on_proposals(tmp_path: Path, provider: DrawnRegions) -> None:
    manifest = write_photos_and_tables(tmp_path / "data", 8)
    run_regions(RegionsConfig(dir=manifest.parent))
    config = TrainConfig(
        manifest=manifest,
        model="affective-graph",
        preset="affective-graph",
        recipe={"epochs": 1, "batch_size": 4},
        out=tmp_path / "run",
        device="cpu",
        person_size=64,
        pretrained="none",
    )
    assert run_train(config).counts["epochs"] == 1


def test_damaged_tables_are_named(tmp_path: Path, provider: DrawnRegions) -> None:
    manifest = read_manifest(write_photos_and_tables(tmp_path, 4))
    work = manifest.path.parent
    run_regions(RegionsConfig(dir=work))
    rows = pq.read_table(work / "regions.parquet").to_pylist()
    rows[0]["features"] = rows[0]["features"][:-2]
    pq.write_table(pa.Table.from_pylist(rows, schema=REGIONS_SCHEMA), work / "regions.parquet")
    cache = open_stream_cache(manifest, "train")
    with pytest.raises(
        TableError, match=r"regions\.parquet: .* has 13 boxes and 26622 bytes of features, expected 2048"
    ):
        PersonArrays(manifest, cache.people, {"regions": REGIONS}, default_cache_dir(manifest))


class Proposals(nn.Module):
    """300 boxes in pixels of the enlarged photo."""

    nms_thresh = 0.0

    def forward(self, images: Any, maps: dict[str, Tensor]) -> tuple[list[Tensor], dict[str, Tensor]]:
        assert self.nms_thresh == 0.7
        height, width = images.image_sizes[0]
        boxes = torch.tensor([[0.0, 0.0, width / 2, height]] * 300)
        boxes[1] = torch.tensor([width / 4, height / 2, width, height])
        return [boxes], {}


class FakeRcnn(nn.Module):
    """The parts of torchvision's Faster R-CNN that are used, with the same calls; torchvision is not needed."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))
        self.rpn = Proposals()
        self.roi_heads = types.SimpleNamespace(box_roi_pool=self._pool, box_head=lambda pooled: pooled)

    def transform(self, photos: list[Tensor]) -> tuple[Any, None]:
        assert photos[0].dtype == torch.float32 and float(photos[0].max()) <= 1
        size = (photos[0].shape[1] * 2, photos[0].shape[2] * 2)  # it enlarges photos to 800 pixels
        return types.SimpleNamespace(tensors=photos[0][None], image_sizes=[size]), None

    def backbone(self, tensors: Tensor) -> dict[str, Tensor]:
        return {"0": tensors}

    def _pool(self, maps: dict[str, Tensor], boxes: list[Tensor], sizes: list[tuple[int, int]]) -> Tensor:
        assert set(maps) == {"0"} and len(sizes) == 1
        return boxes[0][:, :1].expand(-1, 1024)


def test_faster_rcnn_gives_features_and_boxes_as_shares(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    detection = types.ModuleType("torchvision.models.detection")
    made: list[FakeRcnn] = []

    def build(weights: object, weights_backbone: object) -> FakeRcnn:
        assert weights is None and weights_backbone is None
        made.append(FakeRcnn())
        return made[-1]

    detection.fasterrcnn_resnet50_fpn = build  # type: ignore[attr-defined]
    for name in ("torchvision", "torchvision.models"):
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    monkeypatch.setitem(sys.modules, "torchvision.models.detection", detection)
    torch.save({"weight": torch.ones(1)}, tmp_path / "rcnn.pth")
    found = FasterRcnn(tmp_path / "rcnn.pth", "rcnn", "").find(np.full((60, 80, 3), 200, np.uint8))
    assert found.shape == (20, 1028) and made[0].weight.item() == 1
    assert found[0, 1024:].tolist() == [0, 0, 0.5, 1] and found[1, 1024:].tolist() == [0.25, 0.5, 1, 1]
    assert (found[1, :1024] == 40).all()  # a quarter of 160 pixels, before it became a share
    torch.save({"other": torch.ones(1)}, tmp_path / "other.pth")
    with pytest.raises(WeightsError, match=r"other\.pth: not the weights of torchvision's fasterrcnn_resnet50_fpn"):
        FasterRcnn(tmp_path / "other.pth", "rcnn", "")
