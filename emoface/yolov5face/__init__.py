"""YOLOv5-Face: the published networks, readers and writers of their weight formats, training, and the detector.

The detector reads weights and runs them with ONNX Runtime without torch; networks of torch are imported on first use.

Source: Qi et al., "YOLO5Face: Why Reinventing a Face Detector", 2021; structure of deepcam-cn/yolov5-face@84ef013.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from emoface.yolov5face.architectures import ARCHITECTURES
from emoface.yolov5face.detector import BACKENDS, Detector, build_detector, load_detector
from emoface.yolov5face.network_weights import NetworkWeights
from emoface.yolov5face.weight_files import read_weights

if TYPE_CHECKING:
    from emoface.yolov5face.hub_api import Face, FaceResults, PhotoDetector, load_photo_detector
    from emoface.yolov5face.loading import export_onnx, load_network, save_network
    from emoface.yolov5face.network import YoloV5Face, build_network

__all__ = [
    "ARCHITECTURES",
    "BACKENDS",
    "Detector",
    "Face",
    "FaceResults",
    "NetworkWeights",
    "PhotoDetector",
    "YoloV5Face",
    "build_detector",
    "build_network",
    "export_onnx",
    "load_detector",
    "load_network",
    "load_photo_detector",
    "read_weights",
    "save_network",
]

_MODULE_OF = {
    **dict.fromkeys(("Face", "FaceResults", "PhotoDetector", "load_photo_detector"), "hub_api"),
    "YoloV5Face": "network",
    "build_network": "network",
    "export_onnx": "loading",
    "load_network": "loading",
    "save_network": "loading",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
    return getattr(importlib.import_module(f"{__name__}.{_MODULE_OF[name]}"), name)
