"""torch.hub both ways: our own entry points, and the reference repository's network as a backend."""

from __future__ import annotations

import importlib.util
import logging
import re
import sys
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.error import URLError

import cv2
import numpy as np
import pytest
import torch
from hub_repository import write_repository
from PIL import Image

from emoface.errors import ImageError, WeightsError
from emoface.vision.boxes import box_iou
from emoface.vision.images import read_photo
from emoface.yolov5face import ARCHITECTURES, YoloV5Face, build_detector, build_network, load_detector, save_network
from emoface.yolov5face.detector import Detector
from emoface.yolov5face.hub import HUB_REPO, _StandInModule, load_reference_network
from emoface.yolov5face.hub_api import FaceResults, PhotoDetector, load_photo_detector

REPO = Path(__file__).parents[1]
SMALL = "yolov5-blazeface"
BuildNetwork = Callable[..., YoloV5Face]


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    return write_repository(tmp_path / "yolov5-face")


# the reference repository as a backend


@pytest.mark.parametrize("name", [SMALL, "yolov5-blazeface-fpn", "yolov5n-0.5-face"])
def test_hub_backend_finds_what_torch_finds(repository: Path, random_network: BuildNetwork, name: str) -> None:
    network = random_network(name)
    settings: dict[str, Any] = {"image_size": 64, "conf_threshold": 0.001, "device": "cpu"}
    photo = np.random.default_rng(0).integers(0, 256, (61, 37, 3), dtype=np.uint8)
    hub = build_detector(network, backend="hub", hub_repo=str(repository), **settings)
    found = hub.detect([photo])[0]
    expected = build_detector(network, backend="torch", **settings).detect([photo])[0]
    assert hub.backend == "hub" and len(found) == len(expected) > 0
    np.testing.assert_allclose(found.xyxy, expected.xyxy, atol=1e-3)
    np.testing.assert_allclose(found.conf, expected.conf, atol=1e-5)


def test_hub_backend_finds_the_faces_of_real_photos(
    repository: Path, weights_dir: Path, shared_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EMOFACE_HUB_REPO", str(repository))
    path = weights_dir / "yolov5n-0.5-face.bin"
    photo = read_photo(shared_dir / "photos" / "zidane.jpg")
    hub = load_detector(path, backend="hub", device="cpu").detect([photo])[0]
    onnx = load_detector(path, backend="onnx").detect([photo])[0]
    assert len(hub) == len(onnx) == 2
    assert np.diagonal(box_iou(hub.xyxy, onnx.xyxy)).min() > 0.999


def test_importing_the_repository_leaves_no_trace(repository: Path, random_network: BuildNetwork) -> None:
    own = types.ModuleType("utils")
    sys.modules["utils"] = own
    before = (list(sys.path), list(sys.meta_path), cv2.getNumThreads(), logging.getLogger().level)
    handlers = list(logging.getLogger().handlers)
    try:
        load_reference_network(random_network(SMALL), str(repository))
        assert sys.modules["utils"] is own
        assert not {"models", "models.yolo", "utils.general", "hubconf"} & set(sys.modules)
        assert not [name for name, one in sys.modules.items() if isinstance(one, _StandInModule)]
        assert (list(sys.path), list(sys.meta_path), cv2.getNumThreads(), logging.getLogger().level) == before
        assert logging.getLogger().handlers == handlers
    finally:
        del sys.modules["utils"]


def test_a_missing_package_that_is_used_is_named(repository: Path, random_network: BuildNetwork) -> None:
    if importlib.util.find_spec("thop"):
        pytest.skip("thop is installed")
    yolo = repository / "models" / "yolo.py"
    yolo.write_text(yolo.read_text().replace("except ImportError", "except ZeroDivisionError"))
    with pytest.raises(WeightsError, match=r"ImportError: thop\.profile was called, but its package is not installed"):
        load_reference_network(random_network(SMALL), str(repository))


def test_packages_that_the_network_needs_are_not_stood_in_for(repository: Path, random_network: BuildNetwork) -> None:
    general = repository / "utils" / "general.py"
    general.write_text("import a_package_that_nobody_has\n" + general.read_text())
    with pytest.raises(WeightsError, match=r"No module named 'a_package_that_nobody_has'.*--backend auto"):
        load_reference_network(random_network(SMALL), str(repository))


def test_a_repository_of_another_structure_is_refused(repository: Path, random_network: BuildNetwork) -> None:
    with pytest.raises(WeightsError, match=r"yolov5n6\.yaml: no such file; .* has no network yolov5n6-face"):
        load_reference_network(random_network("yolov5n6-face"), str(repository))
    (repository / "models" / "yolov5n-0.5.yaml").write_text(SMALL)
    with pytest.raises(WeightsError, match=r"'custom' entry point failed .*Error"):
        load_reference_network(random_network("yolov5n-0.5-face"), str(repository))
    with pytest.raises(WeightsError, match="neither a folder nor OWNER/NAME"):
        load_reference_network(random_network(SMALL), str(repository / "nowhere"))


def test_the_pinned_commit_is_downloaded_once(
    repository: Path, random_network: BuildNetwork, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("EMOFACE_HUB_REPO", raising=False)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    asked: list[str] = []

    def no_network(repo: str, **_: object) -> list[str]:
        asked.append(repo)
        raise URLError("no route to host")

    monkeypatch.setattr(torch.hub, "list", no_network)
    with pytest.raises(WeightsError, match=r"cannot be downloaded through torch\.hub .*no route.*EMOFACE_HUB_REPO"):
        load_reference_network(random_network(SMALL))
    assert asked == [HUB_REPO]
    cached = tmp_path / "hub" / HUB_REPO.replace("/", "_").replace(":", "_")
    cached.parent.mkdir()
    repository.rename(cached)
    assert isinstance(load_reference_network(random_network(SMALL)), torch.nn.Module)
    assert asked == [HUB_REPO]


# our own entry points


@pytest.fixture
def weights_path(tmp_path: Path, random_network: BuildNetwork) -> Path:
    save_network(random_network(SMALL), tmp_path / "own.safetensors")
    return tmp_path / "own.safetensors"


def _entry_point(name: str) -> str:
    return name.replace("0.5", "05").replace("-", "_")


def test_there_is_an_entry_point_for_every_network_with_its_size() -> None:
    spec = importlib.util.spec_from_file_location("hubconf_of_emoface", REPO / "hubconf.py")
    assert spec is not None and spec.loader is not None
    hubconf = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(hubconf)
    public = {name for name, value in vars(hubconf).items() if callable(value) and not name.startswith("_")}
    assert public == {_entry_point(name) for name in ARCHITECTURES} | {"detector", "Any"}
    assert all(importlib.util.find_spec(name) for name in hubconf.dependencies)
    for name in ARCHITECTURES:
        with torch.device("meta"):
            millions = sum(parameter.numel() for parameter in build_network(name).parameters()) / 1e6
        stated = re.search(r"([0-9.]+) M parameters", getattr(hubconf, _entry_point(name)).__doc__)
        assert stated is not None
        decimals = len(stated[1].split(".")[1])
        assert float(stated[1]) == round(millions, decimals), name


def test_entry_points_load_weights_into_their_own_network(weights_path: Path) -> None:
    loaded = torch.hub.load(str(REPO), "yolov5_blazeface", source="local", weights=weights_path, conf_threshold=0.3)
    assert loaded.detector.name == SMALL and loaded.detector.thresholds.conf == 0.3
    with pytest.raises(WeightsError, match="of yolov5n-face"):
        torch.hub.load(str(REPO), "yolov5n_face", source="local", weights=weights_path)


def test_detector_loads_added_weights_by_name(weights_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EMOFACE_WEIGHTS", str(weights_path.parent))
    assert torch.hub.load(str(REPO), "detector", "own", source="local").detector.name == SMALL


def test_weights_are_fetched_only_where_they_are_missing_and_wanted(
    weights_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("EMOFACE_WEIGHTS", raising=False)
    monkeypatch.setenv("EMOFACE_CACHE", str(tmp_path / "cache"))
    asked: list[str] = []

    def fetch(name: str) -> None:
        asked.append(name)
        raise WeightsError("fetched")

    monkeypatch.setattr("emoface.yolov5face.hub_api.fetch_weights", fetch)
    with pytest.raises(WeightsError, match="run 'emoface weights fetch yolov5n-face'"):
        load_photo_detector("yolov5n-face", fetch=False)
    with pytest.raises(WeightsError, match="download by hand"):
        load_photo_detector("yolov5s-face")
    assert asked == []
    with pytest.raises(WeightsError, match="fetched"):
        load_photo_detector("yolov5n-face")
    assert asked == ["yolov5n-face"]
    (tmp_path / "cache" / "weights").mkdir(parents=True)
    (tmp_path / "cache" / "weights" / "yolov5-blazeface.safetensors").write_bytes(weights_path.read_bytes())
    assert load_photo_detector(SMALL).detector.name == SMALL
    assert asked == ["yolov5n-face"]


@pytest.fixture(scope="module")
def real_detector(weights_dir: Path) -> Iterator[PhotoDetector]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EMOFACE_WEIGHTS", str(weights_dir))
        yield torch.hub.load(str(REPO), "yolov5n_face", source="local")


@pytest.fixture(scope="module")
def results(real_detector: PhotoDetector, shared_dir: Path) -> FaceResults:
    zidane = shared_dir / "photos" / "zidane.jpg"
    blank = np.full((40, 90, 3), 127, np.uint8)
    return real_detector([zidane, blank, str(zidane), Image.open(shared_dir / "photos" / "bus.jpg")])


def test_photos_of_every_kind_give_the_same_faces(
    real_detector: PhotoDetector, shared_dir: Path, results: FaceResults
) -> None:
    path = shared_dir / "photos" / "zidane.jpg"
    alone = real_detector(path)
    assert len(alone) == 2 == len(alone.xyxy[0]) and repr(alone) == "FaceResults(2 faces in 1 photos)"
    for photo in (str(path), read_photo(path), Image.open(path)):
        found = real_detector(photo)
        # two JPEG decoders may differ by a step or two in a pixel
        assert np.diagonal(box_iou(found.xyxy[0], alone.xyxy[0])).min() > 0.99
    assert [len(faces) for faces in results.xyxy] == [2, 0, 2, 2]
    assert results.names == ("zidane", "photo1", "zidane-2", "photo3")


def test_results_as_a_table(results: FaceResults) -> None:
    table = results.pandas()
    assert len(table) == 6
    assert table["photo"].tolist() == [0, 0, 2, 2, 3, 3]
    assert table["name"].tolist() == ["zidane"] * 2 + ["zidane-2"] * 2 + ["photo3"] * 2
    np.testing.assert_allclose(table[["x1", "y1", "x2", "y2"]].to_numpy(), np.concatenate(results.xyxy))
    np.testing.assert_allclose(table[["nose_x", "nose_y"]].to_numpy(), np.concatenate(results.landmarks)[:, 2])
    inside = (table["x1"] < table["nose_x"]) & (table["nose_x"] < table["x2"])
    assert inside.all() and (table["left_eye_x"] < table["right_eye_x"]).all()


def test_a_table_of_no_faces_has_all_columns(weights_path: Path) -> None:
    detector = load_photo_detector(SMALL, weights_path, conf_threshold=1.0)
    table = detector(np.full((40, 90, 3), 127, np.uint8)).pandas()
    assert len(table) == 0 and list(table.columns[:7]) == ["photo", "name", "x1", "y1", "x2", "y2", "conf"]
    nothing = detector([])
    assert len(nothing) == 0 and len(nothing.pandas()) == 0 and nothing.crop() == []


def test_results_are_drawn_saved_and_cut(results: FaceResults, tmp_path: Path) -> None:
    drawn = results.render()
    assert [photo.shape for photo in drawn] == [photo.shape for photo in results.photos]
    changed = [(one != photo).any() for one, photo in zip(drawn, results.photos, strict=True)]
    assert changed == [True, False, True, True]
    x1, y1, x2, y2 = (round(float(value)) for value in results.xyxy[0][0])
    assert drawn[0][(y1 + y2) // 2, x1].tolist() == [255, 214, 0]
    paths = results.save(tmp_path / "out")
    assert [path.name for path in paths] == ["zidane.jpg", "photo1.jpg", "zidane-2.jpg", "photo3.jpg"]
    assert [read_photo(path).shape for path in paths] == [photo.shape for photo in results.photos]
    crops = results.crop(margin=0)
    assert len(crops) == len(results) == 6
    side = round(max(float(x2) - float(x1), float(results.xyxy[0][0][3] - results.xyxy[0][0][1])))
    assert crops[0].shape[0] == crops[0].shape[1] and abs(crops[0].shape[0] - side) <= 1
    assert results.crop(align_side=112)[5].shape == (112, 112, 3)


def test_results_are_iterated_by_face(results: FaceResults) -> None:
    faces = list(results)
    assert [face.photo_index for face in faces] == [0, 0, 2, 2, 3, 3]
    assert [face.name for face in faces] == [results.names[face.photo_index] for face in faces]
    np.testing.assert_array_equal([face.xyxy for face in faces], np.concatenate(results.xyxy))
    np.testing.assert_array_equal([face.landmarks for face in faces], np.concatenate(results.landmarks))
    assert [face.conf for face in faces] == np.concatenate(results.conf).tolist()
    for face, crop in zip(faces, results.crop(), strict=True):
        np.testing.assert_array_equal(face.crop(), crop)
    assert repr(results) == "FaceResults(6 faces in 4 photos)" and len(repr(faces[0])) < 80
    assert re.fullmatch(r"Face\(zidane: \d+, \d+, \d+, \d+; conf 0\.\d\d\)", repr(faces[0]))


def test_exif_orientation_is_applied_to_paths_and_pil_images(weights_path: Path, tmp_path: Path) -> None:
    image = Image.fromarray(np.zeros((40, 90, 3), np.uint8))
    exif = image.getexif()
    exif[0x0112] = 6
    image.save(tmp_path / "turned.jpg", exif=exif)
    detector = load_photo_detector(SMALL, weights_path, conf_threshold=1.0)
    shapes = [photo.shape for photo in detector([tmp_path / "turned.jpg", Image.open(tmp_path / "turned.jpg")]).photos]
    assert shapes == [(90, 40, 3)] * 2


def test_pil_images_of_any_mode_become_rgb(weights_path: Path) -> None:
    detector = load_photo_detector(SMALL, weights_path, conf_threshold=1.0)
    modes = [Image.new(mode, (30, 20)) for mode in ("L", "RGBA", "P", "CMYK", "1")]
    assert {photo.shape for photo in detector(modes).photos} == {(20, 30, 3)}


@pytest.mark.parametrize(
    ("photo", "message"),
    [
        (np.zeros((4, 6), np.uint8), r"photo 0: an array of uint8 \(4, 6\), expected uint8 \(height, width, 3\)"),
        (np.zeros((4, 6, 4), np.uint8), "photo 0: an array of uint8"),
        (np.zeros((4, 6, 3), np.float32), "photo 0: an array of float32"),
        (np.zeros((0, 6, 3), np.uint8), "photo 0: an array of uint8"),
        ("nowhere.jpg", r"nowhere\.jpg: no such photo"),
        (7, "photo 0: int is no photo"),
    ],
)
def test_what_is_no_photo_is_refused(weights_path: Path, photo: Any, message: str) -> None:
    detector = load_photo_detector(SMALL, weights_path)
    assert isinstance(detector.detector, Detector)
    with pytest.raises(ImageError, match=message):
        detector(photo)
