"""Fixtures for material that is not part of the project: real weights, photos and annotation rows."""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from emoface.yolov5face import YoloV5Face

_REPO = Path(__file__).parents[1]
_LONGEST = ("ray", "train", "kill_anywhere", "evaluate", "docs", "full_disk", "detector_training", "score", "report")
"""The test files that take longest, without ``test_``. They come first, so that no process of several has one of them
left at the end."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Puts the tests of the longest files first; the order within a file stays."""
    rank = {f"test_{name}": number for number, name in enumerate(_LONGEST)}
    items.sort(key=lambda item: rank.get(item.path.stem, len(rank)))


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


@pytest.fixture
def matlab_in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """MATLAB files are read in this process, for tests of their content; ``test_matlab_files.py`` tests the child."""
    from emoface.storage import matlab_files

    def ask(path: Path, request: dict[str, Any], seconds: float, error: type[Exception]) -> tuple[str, Any]:
        answer: tuple[str, Any] = matlab_files._read(**pickle.loads(pickle.dumps(request)))
        return answer

    monkeypatch.setattr(matlab_files, "_ask_child", ask)
    monkeypatch.setattr(matlab_files, "_limit_memory", lambda n_bytes: None)
