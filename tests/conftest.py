"""Fixtures for material that is not part of the project: real weights, photos and annotation rows."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from emoface.yolov5face import YoloV5Face

_REPO = Path(__file__).parents[1]


@pytest.fixture(scope="session")
def shared_dir() -> Path:
    """The folder with reference photos and EMOTIC's annotation rows, or a skip."""
    path = Path(os.environ.get("EMOFACE_SHARED", _REPO.parent / "shared"))
    if not path.is_dir():
        pytest.skip("no folder of reference material: set EMOFACE_SHARED to one with photos/, emotic/, weights/")
    return path


@pytest.fixture(scope="session")
def weights_dir() -> Path:
    """The folder with published YOLOv5-Face weights, or a skip."""
    for folder in os.environ.get("EMOFACE_WEIGHTS", "").split(os.pathsep):
        if folder and (Path(folder) / "yolov5n-face.param").is_file():
            return Path(folder).resolve()
    beside = _REPO.parent / "shared" / "weights"
    if (beside / "yolov5n-face.param").is_file():
        return beside
    pytest.skip("no real YOLOv5-Face weights: set EMOFACE_WEIGHTS to a folder with yolov5n-face.param and .bin")


@pytest.fixture(scope="session")
def random_network() -> Callable[..., YoloV5Face]:
    """Builds a YOLOv5-Face network in evaluation mode, whose heads react to the photo and no BatchNorm is identity."""
    import torch

    from emoface.yolov5face import build_network

    def build(name: str, seed: int = 0) -> YoloV5Face:
        generator = torch.Generator().manual_seed(seed)
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            network = build_network(name).eval()
        for module in network.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.weight.data.uniform_(0.5, 1.5, generator=generator)
                module.bias.data.normal_(0, 0.3, generator=generator)
                module.running_mean.normal_(0, 0.3, generator=generator)
                module.running_var.uniform_(0.2, 0.5, generator=generator)
        return network

    return build


@pytest.fixture
def plain_charts() -> Iterator[None]:
    """Charts are not drawn, see ``plain_charts.py``."""
    from plain_charts import without_drawing

    with without_drawing():
        yield
