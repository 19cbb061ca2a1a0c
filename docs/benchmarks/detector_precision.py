"""Compares the face detector in lower precision with float32: are its faces the same, and is it faster on this CPU?

    EMOFACE_WEIGHTS=FOLDER python docs/benchmarks/detector_precision.py FOLDER_OF_PHOTOS [--photos 200]

The measured photos are the first ones of the folder in a random order (seed 0); 100 further ones calibrate int8. Each
row is a way to run the same network on the same inputs, compared with ONNX Runtime in float32:

- bfloat16 and float16: weights and outputs of all layers are rounded to it, as on a CPU with such instructions or on a
  GPU; their time is not shown, because it is computed in float32 here;
- OpenVINO in float32, and int8 after NNCF's quantisation of all layers or with its preset for networks of this kind of
  activation (mixed), if 'pip install openvino nncf' has been called.

A face is the same where IoU is above 0.95 and the score is within 0.02. The time is the processor time of the
network on one thread, of one photo of the most frequent size, least of 30.
"""

from __future__ import annotations

import argparse
import copy
import random
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from emoface.errors import ImageError
from emoface.inference.faces import FaceSettings, find_detector_weights
from emoface.vision.arrays import Float32Array
from emoface.vision.boxes import box_iou
from emoface.vision.detections import Detections
from emoface.vision.images import read_photo
from emoface.vision.letterbox import Letterbox
from emoface.yolov5face.decoding import Thresholds, decode_photo
from emoface.yolov5face.detector import to_network_input
from emoface.yolov5face.engines import OnnxEngine
from emoface.yolov5face.folding import fold_batch_norms
from emoface.yolov5face.loading import to_network
from emoface.yolov5face.network_weights import NetworkWeights
from emoface.yolov5face.onnx_files import to_onnx
from emoface.yolov5face.weight_files import read_weights

SETTINGS = FaceSettings(backend="onnx")
N_CALIBRATION = 100
SAME_IOU, SAME_SCORE = 0.95, 0.02
Run = Callable[[Float32Array], list[Float32Array]]
"""Maps an image (1, 3, h, w) to the raw outputs of the heads, finest level first."""
Inputs = list[tuple[Letterbox, Float32Array]]


def read_inputs(folder: Path, n_photos: int, stride: int) -> tuple[Inputs, Inputs]:
    """The inputs of the measured photos and of those that calibrate."""
    paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in (".jpg", ".jpeg", ".png"))
    random.Random(0).shuffle(paths)
    inputs: Inputs = []
    for path in paths:
        if len(inputs) == n_photos + N_CALIBRATION:
            break
        try:
            photo = read_photo(path)
        except ImageError as error:
            print(f"left out: {error}")
            continue
        letterbox = Letterbox.fit((photo.shape[1], photo.shape[0]), SETTINGS.image_size, stride)
        inputs.append((letterbox, to_network_input([(letterbox, photo)])))
    return inputs[:n_photos], inputs[n_photos:]


def rounded(network: torch.nn.Module, dtype: torch.dtype) -> Run:
    """The network in float32, with its weights and the outputs of all its layers rounded to a precision.

    That is what hardware with such instructions computes, which adds products in float32. In torch on a CPU without
    them, the precision itself takes minutes for a few photos.
    """
    lower = copy.deepcopy(network)

    def to_precision(values: Any) -> Any:
        if isinstance(values, torch.Tensor):
            return values.to(dtype).float()
        return type(values)(map(to_precision, values))

    for parameter in lower.parameters():
        parameter.data = to_precision(parameter.data)
    for layer in lower.modules():
        layer.register_forward_hook(lambda layer, inputs, output: to_precision(output))

    @torch.inference_mode()
    def run(image: Float32Array) -> list[Float32Array]:
        raw_heads: Any = lower.raw_heads
        return [to_precision(head).numpy() for head in raw_heads(to_precision(torch.from_numpy(image)))]

    return run


def in_openvino(weights: NetworkWeights, calibration: Inputs) -> dict[str, Run]:
    """The network in OpenVINO on one thread, in float32 and quantised by NNCF in two ways; nothing if not installed."""
    try:
        import nncf
        import openvino
    except ImportError as error:
        print(f"without OpenVINO ({error}): pip install openvino nncf\n")
        return {}
    core = openvino.Core()
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "network.onnx"
        path.write_bytes(to_onnx(weights))
        models = {"OpenVINO, float32": core.read_model(path)}
        images = nncf.Dataset([image for _, image in calibration])
        for name, preset in (("all", "PERFORMANCE"), ("mixed", "MIXED")):
            chosen = nncf.QuantizationPreset[preset]
            models[f"OpenVINO, int8, {name}"] = nncf.quantize(
                core.read_model(path), images, preset=chosen, subset_size=len(calibration)
            )
    return {name: compile_model(core, model, weights) for name, model in models.items()}


def compile_model(core: Any, model: Any, weights: NetworkWeights) -> Run:
    """A model of OpenVINO on one thread; without the hint, float32 would become bfloat16 on CPUs that have it."""
    settings = {"INFERENCE_NUM_THREADS": 1, "PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32"}
    compiled = core.compile_model(model, "CPU", settings)
    outputs = [compiled.output(f"stride{level.stride}") for level in weights.levels]

    def run(image: Float32Array) -> list[Float32Array]:
        found = compiled({0: image})
        return [np.asarray(found[output], np.float32) for output in outputs]

    return run


def find_faces(run: Run, inputs: Inputs, weights: NetworkWeights) -> list[Detections]:
    """The faces of each photo."""
    thresholds = Thresholds(SETTINGS.conf_threshold, SETTINGS.iou_threshold)
    return [
        decode_photo([head[0] for head in run(image)], weights.levels, letterbox, thresholds)
        for letterbox, image in inputs
    ]


def compare(expected: Sequence[Detections], found: Sequence[Detections]) -> str:
    """The columns of a row: how many of the expected faces are the same, lost and new."""
    overlaps, differences, n_new = [], [], 0
    for one, other in zip(expected, found, strict=True):
        iou = box_iou(one.xyxy, other.xyxy) if len(other) else np.zeros((len(one), 1), np.float32)
        conf = other.conf if len(other) else np.zeros(1, np.float32)
        overlaps += iou.max(axis=1).tolist()
        differences += np.abs(one.conf - conf[iou.argmax(axis=1)]).tolist()
        n_new += int((iou.max(axis=0) < 0.5).sum()) if len(one) and len(other) else len(other)
    iou, difference = np.array(overlaps), np.array(differences)
    is_same = (iou > SAME_IOU) & (difference <= SAME_SCORE)
    return f"{is_same.mean():.1%} | {np.median(iou):.4f} | {np.median(difference):.4f} | {(iou < 0.5).sum()} | {n_new}"


def measure_seconds(run: Run, inputs: Inputs) -> float:
    """Least processor time of one photo of the most frequent size."""
    most = Counter(image.shape for _, image in inputs).most_common(1)[0][0]
    image = next(image for _, image in inputs if image.shape == most)
    times = []
    for _ in range(30):
        start = time.process_time()
        run(image)
        times.append(time.process_time() - start)
    return min(times)


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--photos", type=int, default=200)
    options = parser.parse_args()
    torch.set_num_threads(1)
    weights = read_weights(find_detector_weights(SETTINGS).path)
    inputs, calibration = read_inputs(options.folder, options.photos, max(weights.architecture.strides))
    network = fold_batch_norms(to_network(weights)).eval()
    reference = OnnxEngine(weights, 1).run
    timed = {"ONNX Runtime, float32": reference, **in_openvino(weights, calibration)}
    others = {"bfloat16": rounded(network, torch.bfloat16), "float16": rounded(network, torch.float16)}
    expected = find_faces(reference, inputs, weights)
    print(f"{len(inputs)} photos, {sum(map(len, expected))} faces; {len(calibration)} other photos for calibration\n")
    print("| | processor time, ms | same faces | median IoU | median difference of scores | lost | new |")
    print("|---|---:|---:|---:|---:|---:|---:|")
    for name, run in (timed | others).items():
        milliseconds = f"{1000 * measure_seconds(run, inputs):.1f}" if name in timed else "-"
        print(f"| {name} | {milliseconds} | {compare(expected, find_faces(run, inputs, weights))} |", flush=True)


if __name__ == "__main__":
    main()
