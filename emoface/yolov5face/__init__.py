"""YOLOv5-Face: the published networks, readers and writers of their weight formats, training, and the detector.

Source: Qi et al., "YOLO5Face: Why Reinventing a Face Detector", 2021; structure of deepcam-cn/yolov5-face@84ef013.
"""

from emoface.yolov5face.architectures import ARCHITECTURES
from emoface.yolov5face.detector import BACKENDS, Detector, build_detector, load_detector
from emoface.yolov5face.loading import load_network, save_network
from emoface.yolov5face.network import YoloV5Face, build_network
from emoface.yolov5face.onnx_files import export_onnx

__all__ = [
    "ARCHITECTURES",
    "BACKENDS",
    "Detector",
    "YoloV5Face",
    "build_detector",
    "build_network",
    "export_onnx",
    "load_detector",
    "load_network",
    "save_network",
]
