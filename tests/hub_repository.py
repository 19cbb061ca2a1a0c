"""A repository in the manner of deepcam-cn/yolov5-face, for the tests of the backend that runs its network."""

from __future__ import annotations

from pathlib import Path

# Like the reference it has top-level packages 'models' and 'utils', imports that the network does
# not need, side effects on import, entry points that build 80 classes, and one, 'custom', that takes an object.
_HUBCONF = """
import torch
from models.yolo import Model
from utils.general import set_logging

dependencies = ["torch"]
set_logging()


def yolov5s(pretrained=False, channels=3, classes=80, autoshape=True):
    raise RuntimeError("weights/yolov5s.pt does not exist")


def custom(path_or_model="model.pt", autoshape=True):
    given = torch.load(path_or_model) if isinstance(path_or_model, str) else path_or_model
    model = Model(given.yaml).to(next(given.parameters()).device)
    model.load_state_dict(given.float().state_dict())
    model.names = given.names
    return model.autoshape() if autoshape else model
"""
_YOLO = """
import sys
from pathlib import Path
sys.path.append("./")
from emoface.yolov5face import YoloV5Face
from emoface.yolov5face.architectures import find_architecture
from utils.general import check_file
import thop
from thop import clever_format


class Model(YoloV5Face):
    def __init__(self, cfg):
        super().__init__(find_architecture(Path(check_file(cfg)).read_text().strip()))
        try:
            thop.profile(self)
        except ImportError:
            pass  # no count of multiply-adds then

    def forward(self, x):
        heads = self.heads(x)
        return heads if self.training else (self.detect.decode(heads), heads)
"""
_GENERAL = """
import logging
import cv2
import torchvision
import seaborn as sns
from tqdm import tqdm

cv2.setNumThreads(0)


def set_logging():
    logging.basicConfig(level=logging.INFO)


def check_file(file):
    return file


def suppress(boxes):
    return torchvision.ops.nms(boxes)
"""


def write_repository(folder: Path) -> Path:
    """Writes the repository with three of the networks; returns its folder."""
    for file, text in {
        "hubconf.py": _HUBCONF,
        "models/__init__.py": "",
        "models/yolo.py": _YOLO,
        "utils/__init__.py": "",
        "utils/general.py": _GENERAL,
        "models/blazeface.yaml": "yolov5-blazeface",
        "models/blazeface_fpn.yaml": "yolov5-blazeface-fpn",
        "models/yolov5n-0.5.yaml": "yolov5n-0.5-face",
    }.items():
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        (folder / file).write_text(text)
    return folder
