"""Fixtures for material that is not part of the project: real weights, photos and annotation rows."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

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
