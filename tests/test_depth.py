"""Nearness of photos: the providers, and the job that writes depth.parquet."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from stand_in_models import write_depth

from emoface.errors import ImageError, SettingsError, WeightsError
from emoface.inference.depth import load_depth_provider, nearness_of_boxes, to_nearness
from emoface.jobs.depth import DepthConfig, run_depth
from emoface.jobs.parse import ParseConfig, run_parse
from emoface.jobs.simulate import SimulateConfig, run_simulate
from emoface.schema import DEPTH_SCHEMA


@pytest.mark.parametrize("height", [64, "height"])
def test_a_model_finds_bright_parts_near_if_that_is_what_it_computes(tmp_path: Path, height: int | str) -> None:
    write_depth(tmp_path / "depth.onnx", height)
    provider = load_depth_provider("depth", tmp_path / "depth.onnx")
    photo = np.zeros((90, 160, 3), np.uint8)
    photo[:, 80:] = 200
    inverse = provider.find(photo)
    assert inverse.shape == ((64, 64) if height == 64 else (518, 518))
    assert inverse.mean(axis=0)[-1] - inverse.mean(axis=0)[0] == pytest.approx(
        200 / 255 * (1 / 0.229 + 1 / 0.224 + 1 / 0.225), rel=1e-3
    )
    nearness = to_nearness(inverse)
    assert nearness.shape == (256, 256) and nearness[:, :120].max() <= 30 and nearness[:, 136:].min() >= 225


def test_nearer_boxes_cover_farther_ones_and_people_without_a_box_are_left_out() -> None:
    boxes = np.array([[0, 0, 40, 40], [np.nan] * 4, [20, 10, 60, 110], [-5, 90, 10, 300]], np.float32)
    nearness = nearness_of_boxes(boxes, (100, 200))
    assert nearness[0, 0] == round(255 * 40 / 200) and nearness[30, 80] == round(255 * 100 / 200)
    assert nearness[-1, 0] == 255 and nearness[-1, -1] == 0
    assert not nearness_of_boxes(np.zeros((0, 4), np.float32), (10, 10)).any()
    assert not to_nearness(np.full((3, 3), 7.0, np.float32)).any()


def test_files_that_are_no_model_of_depth_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.onnx").write_bytes(b"not a model")
    with pytest.raises(WeightsError, match=r"a\.onnx: not a readable ONNX model"):
        load_depth_provider("a", tmp_path / "a.onnx")
    write_depth(tmp_path / "b.onnx", channels=1)
    with pytest.raises(WeightsError, match=r"b\.onnx: input \[1, 1, 64, 64\]"):
        load_depth_provider("b", tmp_path / "b.onnx")
    (tmp_path / "c.pt").write_bytes(b"")
    with pytest.raises(WeightsError, match=r"c\.pt: type '\.pt' holds no model of depth"):
        load_depth_provider("c", tmp_path / "c.pt")
    with pytest.raises(SettingsError, match="maps is given together"):
        DepthConfig(dir=tmp_path, maps=tmp_path, provider="x")


@pytest.fixture(scope="module")
def parsed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A parsed simulation: its root and the folder of its tables."""
    folder = tmp_path_factory.mktemp("depth")
    root = folder / "EMOTIC"
    run_simulate(SimulateConfig(out=root, images=9, seed=5))
    run_parse(ParseConfig(emotic_root=root, out=folder / "work"))
    return root, folder / "work"


def _maps(work: Path) -> dict[str, Any]:
    table = pq.read_table(work / "depth.parquet")
    assert table.schema.equals(DEPTH_SCHEMA)
    return {
        row["image"]: None
        if row["nearness"] is None
        else cv2.imdecode(np.frombuffer(row["nearness"]["bytes"], np.uint8), cv2.IMREAD_UNCHANGED)
        for row in table.to_pylist()
    }


def test_maps_of_a_folder_and_of_boxes_agree_on_where_people_are(parsed: tuple[Path, Path]) -> None:
    root, work = parsed
    record = run_depth(DepthConfig(dir=work, maps=root / "depth"))
    true = _maps(work)
    people = pq.read_table(work / "people.parquet", columns=["image"])["image"].to_pylist()
    assert list(true) == list(dict.fromkeys(people)) and record.info["provider"] == "maps folder"
    run_depth(DepthConfig(dir=work))
    boxes = _maps(work)
    above_horizon = slice(0, 110)
    n_agreeing = 0
    for image, nearness in true.items():
        inside = boxes[image][above_horizon] > 0
        if nearness is not None and inside.any() and not inside.all():
            part = nearness[above_horizon]
            n_agreeing += int(part[inside].mean() > 3 * part[~inside].mean())
    assert n_agreeing >= 6


def test_a_missing_photo_has_no_map_and_a_missing_or_wrong_map_is_named(
    parsed: tuple[Path, Path], tmp_path: Path
) -> None:
    root, work = parsed
    maps = tmp_path / "maps"
    for path in (root / "depth").rglob("*.png"):
        target = maps / path.relative_to(root / "depth")
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(path.read_bytes())
    first = next(maps.rglob("*.png"))
    data = first.read_bytes()
    cv2.imwrite(str(first), np.zeros((8, 8, 3), np.uint8))
    with pytest.raises(ImageError, match=r"\.png: has shape \(8, 8, 3\) and type uint8, expected a grey image"):
        run_depth(DepthConfig(dir=work, maps=maps))
    first.unlink()
    with pytest.raises(ImageError, match=r"no such image \(1 of \d are missing\)"):
        run_depth(DepthConfig(dir=work, maps=maps))
    first.write_bytes(data)
    deep = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED).astype(np.uint16) * 257
    cv2.imwrite(str(first), deep)  # 16 bits
    photo = next((root / "emotic").rglob(f"{first.stem}.jpg"))
    others = [path for path in (root / "emotic").rglob("*.jpg") if path != photo]
    kept = others[0].read_bytes()
    others[0].unlink()
    (maps / others[0].relative_to(root / "emotic")).with_suffix(".png").unlink()  # a missing photo needs no map
    try:
        record = run_depth(DepthConfig(dir=work, maps=maps))
    finally:
        others[0].write_bytes(kept)
    missing = {image for image, nearness in _maps(work).items() if nearness is None}
    assert str(others[0].relative_to(root / "emotic")) in missing and record.counts["without_depth"] == len(missing)
    run_depth(DepthConfig(dir=work, maps=root / "depth"))
    image = str(photo.relative_to(root / "emotic"))
    assert isinstance(pq.read_table(work / "depth.parquet"), pa.Table) and _maps(work)[image] is not None
