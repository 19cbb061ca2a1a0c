"""Photos in, faces out: the reference's faces, whatever the format, engine or batch."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from click.testing import CliRunner

from emoface.cli import main
from emoface.errors import SettingsError
from emoface.vision.boxes import box_iou
from emoface.vision.crops import Photo
from emoface.vision.detections import Detections
from emoface.vision.images import read_photo
from emoface.vision.letterbox import Letterbox
from emoface.yolov5face import Detector, YoloV5Face, build_detector, load_detector, load_network, save_network
from emoface.yolov5face.detector import to_network_input

NAMES = ("yolov5n-face", "yolov5n-0.5-face")


@pytest.fixture(scope="module")
def photos(shared_dir: Path) -> dict[str, Photo]:
    return {path.name: read_photo(path) for path in sorted((shared_dir / "photos").glob("*.jpg"))}


@pytest.fixture(scope="module")
def reference(shared_dir: Path) -> dict[str, Any]:
    return json.loads((shared_dir / "photos" / "reference.json").read_text())


@pytest.fixture(scope="module")
def detectors(weights_dir: Path) -> Callable[..., Detector]:
    """Detectors of the published weights, each built once."""
    built: dict[tuple[str, str], Detector] = {}

    def get(name: str, backend: str = "onnx") -> Detector:
        if (name, backend) not in built:
            built[name, backend] = load_detector(weights_dir / f"{name}.bin", backend=backend, device="cpu")
        return built[name, backend]

    return get


def _assert_same_faces(a: Detections, b: Detections, iou: float = 0.999, conf: float = 1e-3) -> None:
    """Same faces in the same order, but for order among scores that are equal within ``conf``."""
    assert len(a) == len(b)
    if len(a) == 0:
        return
    overlaps = box_iou(a.xyxy, b.xyxy)
    partner = overlaps.argmax(axis=1)
    assert sorted(partner.tolist()) == list(range(len(b))), "two faces share a partner"
    assert overlaps.max(axis=1).min() > iou
    assert np.abs(a.conf - b.conf[partner]).max() < conf
    assert np.abs(a.conf - b.conf).max() < conf


def _assert_agrees_with_reference(found: Detections, expected: list[dict[str, Any]]) -> None:
    assert len(found) == len(expected)
    wanted = Detections(
        np.array([face["face_bbox"] for face in expected], np.float32).reshape(-1, 4),
        np.array([face["landmarks"] for face in expected], np.float32).reshape(-1, 5, 2),
        np.array([face["conf"] for face in expected], np.float32),
    )
    _assert_same_faces(found, wanted, iou=0.95, conf=0.02)
    if len(found):
        partner = box_iou(found.xyxy, wanted.xyxy).argmax(axis=1)
        sides = wanted.xyxy[partner, 2] - wanted.xyxy[partner, 0]
        gaps = np.linalg.norm(found.landmarks - wanted.landmarks[partner], axis=2).max(axis=1)
        assert (gaps < 0.05 * sides).all()


# the reference


@pytest.mark.parametrize("backend", ["onnx", "torch"])
@pytest.mark.parametrize("name", NAMES)
def test_faces_are_those_of_the_reference_network(
    photos: dict[str, Photo], reference: dict[str, Any], detectors: Callable[..., Detector], name: str, backend: str
) -> None:
    assert set(reference) == set(photos)
    assert sum(len(found[name]) for found in reference.values()) > 10
    for file, photo in photos.items():
        _assert_agrees_with_reference(detectors(name, backend).detect([photo])[0], reference[file][name])


@pytest.mark.parametrize("suffix", [".safetensors", ".pt", ".onnx"])
@pytest.mark.parametrize("name", NAMES)
def test_faces_stay_the_same_after_saving_and_loading(
    photos: dict[str, Photo],
    weights_dir: Path,
    detectors: Callable[..., Detector],
    tmp_path: Path,
    name: str,
    suffix: str,
) -> None:
    path = tmp_path / f"weights{suffix}"
    save_network(load_network(weights_dir / f"{name}.bin"), path)
    again = load_detector(path, backend="onnx", device="cpu")
    assert again.name == name
    for photo in photos.values():
        found = again.detect([photo])[0]
        _assert_same_faces(found, detectors(name).detect([photo])[0])


def test_blazeface_finds_the_faces(
    photos: dict[str, Photo], reference: dict[str, Any], detectors: Callable[..., Detector]
) -> None:
    """A smaller network: of the reference's faces of 40 px and more it must find three in four, and few others."""
    n_large = n_found = n_other = 0
    for file, photo in photos.items():
        found = detectors("yolov5-blazeface").detect([photo])[0]
        boxes = np.array([face["face_bbox"] for face in reference[file]["yolov5n-face"]], np.float32).reshape(-1, 4)
        large = boxes[(boxes[:, 2:] - boxes[:, :2]).min(axis=1) >= 40]
        overlaps = box_iou(large, found.xyxy)
        n_large += len(large)
        n_found += int((overlaps.max(axis=1, initial=0) > 0.5).sum())
        n_other += int((box_iou(found.xyxy, boxes).max(axis=1, initial=0) < 0.3).sum())
    assert n_large > 5
    assert n_found >= 0.75 * n_large
    assert n_other <= 1


# engines


@pytest.mark.parametrize("name", NAMES)
def test_engines_find_the_same_faces_in_real_photos_and_their_parts(
    photos: dict[str, Photo], detectors: Callable[..., Detector], name: str
) -> None:
    generator = np.random.default_rng(4)
    n_faces = 0
    for photo in photos.values():
        height, width = photo.shape[:2]
        top, left = int(generator.integers(0, height // 3)), int(generator.integers(0, width // 3))
        for part in (photo, np.ascontiguousarray(photo[top:, left : left + width // 2])):
            onnx = detectors(name, "onnx").detect([part])[0]
            _assert_same_faces(onnx, detectors(name, "torch").detect([part])[0])
            n_faces += len(onnx)
    assert n_faces > 20


@pytest.mark.parametrize("name", ["yolov5s-face", "yolov5n6-face", "yolov5-blazeface-fpn"])
def test_engines_agree_on_noise_of_any_shape(random_network: Callable[..., YoloV5Face], name: str) -> None:
    """Thresholds near nothing, so that every cell of a random network is compared."""
    network = random_network(name)
    settings: dict[str, Any] = {"image_size": 128, "conf_threshold": 0.0, "iou_threshold": 1.0, "device": "cpu"}
    generator = np.random.default_rng(0)
    for wh in ((97, 61), (30, 130)):
        photo = generator.integers(0, 256, (wh[1], wh[0], 3), dtype=np.uint8)
        onnx = build_detector(network, backend="onnx", **settings).detect([photo])[0]
        torch = build_detector(network, backend="torch", **settings).detect([photo])[0]
        assert len(onnx) == len(torch) > 50
        # sorted by place, as scores of neighbours may differ by less than rounding
        a, b = (np.lexsort(faces.xyxy.round(1).T) for faces in (onnx, torch))
        np.testing.assert_allclose(np.sort(onnx.conf), np.sort(torch.conf), atol=1e-3)
        np.testing.assert_allclose(np.sort(onnx.xyxy[a], axis=0), np.sort(torch.xyxy[b], axis=0), atol=0.05)


@pytest.mark.parametrize("backend", ["onnx", "torch"])
def test_a_photos_faces_do_not_depend_on_its_neighbours(
    photos: dict[str, Photo], detectors: Callable[..., Detector], backend: str
) -> None:
    detector = detectors("yolov5n-0.5-face", backend)
    several = [*photos.values(), next(iter(photos.values()))[:, ::-1].copy()]
    alone = [detector.detect([photo])[0] for photo in several]
    for order in (range(len(several)), reversed(range(len(several)))):
        positions = list(order)
        together = detector.detect([several[k] for k in positions])
        for position, found in zip(positions, together, strict=True):
            assert found.xyxy.tobytes() == alone[position].xyxy.tobytes()
            assert found.conf.tobytes() == alone[position].conf.tobytes()


def test_batches_of_an_engine_go_back_to_their_photos(photos: dict[str, Photo], weights_dir: Path) -> None:
    """What CUDA does: photos of one network size run together."""
    detector = load_detector(weights_dir / "yolov5n-0.5-face.bin", backend="torch", device="cpu")
    first = photos["zidane.jpg"]
    several = [first, photos["bus.jpg"], first[:, ::-1].copy(), np.zeros_like(first), photos["1.jpg"]]
    alone = [detector.detect([photo])[0] for photo in several]
    detector._engine.max_batch = 3
    together = detector.detect(several)
    assert len(together[3]) == 0 and len(together[0]) == 2
    for a, b in zip(alone, together, strict=True):
        _assert_same_faces(a, b)


@pytest.mark.parametrize(("side", "n_halvings"), [(4001, 1), (5123, 2)])
@pytest.mark.parametrize("name", ["zidane.jpg", "bus.jpg"])
def test_large_photos_are_halved_first_and_have_the_same_faces(
    photos: dict[str, Photo],
    detectors: Callable[..., Detector],
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    side: int,
    n_halvings: int,
) -> None:
    height, width = photos[name].shape[:2]
    factor = side / max(width, height)  # to an odd number, so that halving leaves out a column or row
    large = np.asarray(cv2.resize(photos[name], None, fx=factor, fy=factor, interpolation=cv2.INTER_CUBIC), np.uint8)
    detector = detectors("yolov5n-face")
    found = detector.detect([large])[0]
    assert Letterbox.fit((large.shape[1], large.shape[0]), 640, 32).n_halvings == n_halvings
    monkeypatch.setattr(Letterbox, "n_halvings", 0)
    _assert_same_faces(found, detector.detect([large])[0], iou=0.98, conf=0.01)


def test_no_photos_and_tiny_photos(detectors: Callable[..., Detector]) -> None:
    detector = detectors("yolov5n-0.5-face")
    assert detector.detect([]) == []
    for wh in ((1, 1), (3, 700), (700, 3)):
        assert len(detector.detect([np.full((wh[1], wh[0], 3), 127, np.uint8)])[0]) == 0


def test_faces_lie_in_the_photo_and_move_with_it(photos: dict[str, Photo], detectors: Callable[..., Detector]) -> None:
    detector = detectors("yolov5n-face")
    photo = photos["zidane.jpg"]
    faces = detector.detect([photo])[0]
    height, width = photo.shape[:2]
    assert (faces.xyxy[:, :2] >= 0).all() and (faces.xyxy[:, 2:] <= (width, height)).all()
    assert (np.diff(faces.conf) <= 0).all()
    mirrored = detector.detect([photo[:, ::-1].copy()])[0]
    turned = faces.xyxy[:, [2, 1, 0, 3]] * (-1, 1, -1, 1) + np.array((width, 0, width, 0))
    assert box_iou(turned.astype(np.float32), mirrored.xyxy).max(axis=1).min() > 0.85


def test_thresholds_are_obeyed(photos: dict[str, Photo], weights_dir: Path) -> None:
    path = weights_dir / "yolov5n-face.bin"
    photo = photos["1.jpg"]
    few = load_detector(path, backend="onnx", device="cpu", conf_threshold=0.82).detect([photo])[0]
    many = load_detector(path, backend="onnx", device="cpu", conf_threshold=0.1).detect([photo])[0]
    assert 0 < len(few) < len(many)
    assert few.conf.min() >= 0.82 and many.conf.min() >= 0.1
    overlaps = box_iou(many.xyxy, many.xyxy) - np.eye(len(many), dtype=np.float32)
    assert overlaps.max() <= 0.5


def test_network_input_is_rgb_between_0_and_1() -> None:
    image = np.zeros((32, 64, 3), np.uint8)
    image[1, 2] = (255, 51, 0)
    letterbox = Letterbox.fit((64, 32), 64, 32)
    stacked = to_network_input([(letterbox, np.zeros_like(image)), (letterbox, image)])
    assert stacked.shape == (2, 3, 32, 64) and stacked.dtype == np.float32
    np.testing.assert_allclose(stacked[1, :, 1, 2], [1, 0.2, 0])
    assert stacked.sum() == pytest.approx(1.2)


# settings


def test_auto_is_onnx_without_cuda(random_network: Callable[..., YoloV5Face]) -> None:
    assert build_detector(random_network("yolov5-blazeface"), device="cpu").backend == "onnx"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"backend": "onxx"}, "backend is 'onxx'; did you mean 'onnx'"),
        ({"image_size": 600}, "image_size is 600, expected a positive multiple of 64"),
        ({"image_size": 0}, "image_size is 0"),
        ({"conf_threshold": 1.5}, "conf_threshold is 1.5, expected 0 to 1"),
        ({"iou_threshold": -0.1}, "iou_threshold is -0.1, expected 0 to 1"),
        ({"backend": "torch", "device": "cudda"}, "device is 'cudda', expected cpu, cuda or cuda:N"),
        ({"backend": "torch", "device": "cuda:99"}, "device is 'cuda:99', but torch sees"),
    ],
)
def test_settings_out_of_range_are_refused(
    random_network: Callable[..., YoloV5Face], settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(SettingsError, match=message):
        build_detector(random_network("yolov5n6-face"), **settings)


# export


@pytest.mark.parametrize("format", ["onnx", "safetensors", "pt"])
def test_export_writes_a_file_with_the_same_faces(
    photos: dict[str, Photo],
    weights_dir: Path,
    detectors: Callable[..., Detector],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    format: str,
) -> None:
    monkeypatch.setenv("EMOFACE_WEIGHTS", str(weights_dir))
    out = tmp_path / f"faces.{format}"
    answer = CliRunner().invoke(main, ["detector", "export", "yolov5n-0.5-face", "--format", format, "--out", str(out)])
    assert answer.exit_code == 0, answer.output
    assert "network: yolov5n-0.5-face" in answer.output and "parameters: 447,456" in answer.output
    photo = photos["bus.jpg"]
    found = load_detector(out, device="cpu").detect([photo])[0]
    _assert_same_faces(found, detectors("yolov5n-0.5-face").detect([photo])[0])


def test_exported_onnx_takes_any_batch_and_size(random_network: Callable[..., YoloV5Face], tmp_path: Path) -> None:
    import onnxruntime
    import torch

    network = random_network("yolov5n6-face")
    save_network(network, tmp_path / "source.pt")
    out = tmp_path / "faces.onnx"
    arguments = ["detector", "export", str(tmp_path / "source.pt"), "--out", str(out)]
    assert CliRunner().invoke(main, arguments).exit_code == 0
    session = onnxruntime.InferenceSession(out, providers=["CPUExecutionProvider"])
    assert session.get_modelmeta().custom_metadata_map["network"] == "yolov5n6-face"
    assert [one.name for one in session.get_outputs()] == ["stride8", "stride16", "stride32", "stride64"]
    for shape in ((1, 3, 64, 64), (3, 3, 128, 192), (2, 3, 320, 64)):
        images = torch.rand(shape)
        with torch.inference_mode():
            expected = network.raw_heads(images)
        for one, other in zip(session.run(None, {"images": images.numpy()}), expected, strict=True):
            np.testing.assert_allclose(one, other.numpy(), rtol=1e-3, atol=1e-3)


def test_export_refuses_what_cannot_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EMOFACE_CACHE", str(tmp_path))
    monkeypatch.delenv("EMOFACE_WEIGHTS", raising=False)

    def refused(*arguments: str) -> str:
        answer = CliRunner().invoke(main, ["detector", "export", *arguments])
        assert answer.exit_code == 1
        return answer.output

    assert "expected a name that ends in .onnx" in refused("yolov5n-face", "--out", str(tmp_path / "a.pt"))
    assert "no weights 'yolov5q-face'" in refused("yolov5q-face", "--out", str(tmp_path / "a.onnx"))
    assert list(tmp_path.iterdir()) == []
