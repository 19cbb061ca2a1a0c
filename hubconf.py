"""Entry points for ``torch.hub``: each loads one YOLOv5-Face detector, which is then called with photos.

    detector = torch.hub.load(".", "yolov5n_face", source="local")
    faces = detector("photo.jpg")
    for face in faces:
        print(face.xyxy, face.conf)

The settings of every entry point are ``weights`` (a weight file; None looks the weights up by the network's name, and
downloads the published file if there is one), ``fetch`` (False never downloads), ``backend`` (auto, onnx, torch, hub),
``image_size``, ``conf_threshold``, ``iou_threshold``, ``device``, ``n_threads`` and ``hub_repo``.
"""

from __future__ import annotations

from typing import Any

from emoface.yolov5face.hub_api import PhotoDetector as _PhotoDetector
from emoface.yolov5face.hub_api import load_photo_detector as _load_photo_detector

dependencies = [
    "cv2",
    "numpy",
    "onnx",
    "onnxruntime",
    "pandas",
    "PIL",
    "platformdirs",
    "pooch",
    "requests",
    "safetensors",
    "torch",
]


def detector(name: str, **settings: Any) -> _PhotoDetector:
    """Loads a detector by the name of its weights, as listed by ``emoface weights list``, added weights included."""
    return _load_photo_detector(name, **settings)


def yolov5n_05_face(**settings: Any) -> _PhotoDetector:
    """YOLOv5n-0.5-Face, 0.45 M parameters; the published weights are downloaded if they are missing."""
    return _load_photo_detector("yolov5n-0.5-face", **settings)


def yolov5n_face(**settings: Any) -> _PhotoDetector:
    """YOLOv5n-Face, 1.73 M parameters; the published weights are downloaded if they are missing."""
    return _load_photo_detector("yolov5n-face", **settings)


def yolov5s_face(**settings: Any) -> _PhotoDetector:
    """YOLOv5s-Face, 7.1 M parameters; needs ``weights``, or weights added as ``yolov5s-face``."""
    return _load_photo_detector("yolov5s-face", **settings)


def yolov5m_face(**settings: Any) -> _PhotoDetector:
    """YOLOv5m-Face, 21.1 M parameters; needs ``weights``, or weights added as ``yolov5m-face``."""
    return _load_photo_detector("yolov5m-face", **settings)


def yolov5l_face(**settings: Any) -> _PhotoDetector:
    """YOLOv5l-Face, 46.6 M parameters; needs ``weights``, or weights added as ``yolov5l-face``."""
    return _load_photo_detector("yolov5l-face", **settings)


def yolov5n6_face(**settings: Any) -> _PhotoDetector:
    """YOLOv5n6-Face, 2.5 M parameters, four heads; needs ``weights``, or weights added as ``yolov5n6-face``."""
    return _load_photo_detector("yolov5n6-face", **settings)


def yolov5s6_face(**settings: Any) -> _PhotoDetector:
    """YOLOv5s6-Face, 12.4 M parameters, four heads; needs ``weights``, or weights added as ``yolov5s6-face``."""
    return _load_photo_detector("yolov5s6-face", **settings)


def yolov5m6_face(**settings: Any) -> _PhotoDetector:
    """YOLOv5m6-Face, 35.5 M parameters, four heads; needs ``weights``, or weights added as ``yolov5m6-face``."""
    return _load_photo_detector("yolov5m6-face", **settings)


def yolov5l6_face(**settings: Any) -> _PhotoDetector:
    """YOLOv5l6-Face, 76.7 M parameters, four heads; needs ``weights``, or weights added as ``yolov5l6-face``."""
    return _load_photo_detector("yolov5l6-face", **settings)


def yolov5_blazeface(**settings: Any) -> _PhotoDetector:
    """YOLOv5-BlazeFace, 0.18 M parameters; the published weights are downloaded if they are missing."""
    return _load_photo_detector("yolov5-blazeface", **settings)


def yolov5_blazeface_fpn(**settings: Any) -> _PhotoDetector:
    """YOLOv5-BlazeFace with a feature pyramid, 0.18 M parameters; needs ``weights``."""
    return _load_photo_detector("yolov5-blazeface-fpn", **settings)
