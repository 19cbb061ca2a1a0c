"""Photos that nobody has annotated: drawn people found by the embedded detector, filled in by hand; and face crops."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from test_person_detectors import RED, WH, _write_yolox

from emoface.cli import main
from emoface.errors import ImageError, SettingsError, TableError
from emoface.inference.faces import DetectorSettings, load_face_detector
from emoface.jobs.crop import CropConfig, run_crop
from emoface.jobs.export_coco import ExportCocoConfig, run_export_coco
from emoface.jobs.faces import FacesConfig, run_faces
from emoface.jobs.parse import ParseConfig, run_parse
from emoface.jobs.report import ReportConfig, run_report
from emoface.jobs.simulate import SimulateConfig, run_simulate
from emoface.jobs.split import SplitConfig, run_split
from emoface.schema import CROPS_SCHEMA, PEOPLE_SCHEMA, is_unlabelled
from emoface.storage.tables import open_table, read_table
from emoface.storage.weights import DEMONSTRATION_DETECTOR
from emoface.vision.crops import ALIGNED_LANDMARKS, crop_square, square_box
from emoface.vision.images import encode_jpeg, read_photo

N_PHOTOS = 3


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("photos")
    run_simulate(SimulateConfig(out=root / "drawn", images=N_PHOTOS, seed=5, varied=True))
    folder = root / "mine"
    folder.mkdir()
    for number, path in enumerate(sorted((root / "drawn").rglob("*.jpg"))):
        (folder / f"{number}.jpg").write_bytes(path.read_bytes())
    return folder


@pytest.fixture(scope="module")
def unlabelled(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("work")
    record = run_parse(ParseConfig(emotic_root=photos, people="from-faces", detector=DEMONSTRATION_DETECTOR, out=out))
    assert record.info["detector"] == DEMONSTRATION_DETECTOR and record.info["format"] == "from-faces"
    assert record.counts["people"] >= 2
    return out


def test_people_from_faces_have_bodies_and_no_labels(unlabelled: Path, photos: Path) -> None:
    with open_table(unlabelled / "people.parquet", PEOPLE_SCHEMA, "") as opened:
        assert opened.is_unlabelled
        rows = opened.read(["image", "image_wh", "body_bbox", "source"])
    table = pq.read_table(unlabelled / "people.parquet")
    assert table["labels"].null_count == table["categories"].null_count == len(rows) and is_unlabelled(table.schema)
    detector = load_face_detector(DetectorSettings(detector=DEMONSTRATION_DETECTOR))
    for image in set(rows["image"].to_pylist()):
        photo = read_photo(photos / image)
        found = detector.detect([photo])[0]
        faces = found.xyxy[(found.xyxy[:, 2:] - found.xyxy[:, :2]).min(axis=1) >= 10]
        bodies = np.array([row["body_bbox"] for row in rows.to_pylist() if row["image"] == image])
        assert len(bodies) == len(faces)
        middles = (faces[:, :2] + faces[:, 2:]) / 2
        for x, y in middles:
            assert ((bodies[:, :2] <= (x, y)) & ((x, y) <= bodies[:, 2:])).all(axis=1).any()


def test_each_person_gets_the_face_that_they_were_found_by(unlabelled: Path) -> None:
    run_faces(FacesConfig(dir=unlabelled, detector=DEMONSTRATION_DETECTOR))
    assert set(pq.read_table(unlabelled / "faces.parquet")["face_status"].to_pylist()) == {"found"}


def test_jobs_that_need_labels_say_what_to_do(unlabelled: Path) -> None:
    run_faces(FacesConfig(dir=unlabelled, detector=DEMONSTRATION_DETECTOR))
    message = r"people\.parquet: its people have no labels yet; annotate them: 'emoface export-coco DIR"
    with pytest.raises(TableError, match=message):
        run_split(SplitConfig(dir=unlabelled))
    with pytest.raises(TableError, match=message):
        run_report(ReportConfig(dir=unlabelled))


def test_labels_are_filled_in_and_read_back(unlabelled: Path, photos: Path, tmp_path: Path) -> None:
    path = tmp_path / "people.json"
    run_export_coco(ExportCocoConfig(dir=unlabelled, out=path))
    content = json.loads(path.read_text())
    assert all(one["attributes"] == {"labels": []} for one in content["annotations"])
    config = ParseConfig(emotic_root=photos, annotations=path, out=tmp_path / "empty")
    run_parse(config)
    assert pq.read_table(tmp_path / "empty" / "people.parquet")["labels"].null_count == len(content["annotations"])
    content["annotations"][0]["attributes"] = {"labels": ["Anger", "fear"]}
    path.write_text(json.dumps(content))
    run_parse(config.replace(out=tmp_path / "full"))
    rows: list[dict[str, Any]] = read_table(tmp_path / "full" / "people.parquet", PEOPLE_SCHEMA, "").to_pylist()
    before = pq.read_table(unlabelled / "people.parquet", columns=["body_bbox", "image"]).to_pylist()
    assert [{name: row[name] for name in ("body_bbox", "image")} for row in rows] == before
    assert rows[0]["categories"] == ["Anger", "Fear"] and all(row["categories"] == [] for row in rows[1:])


def test_people_from_a_detector_and_what_does_not_go_together(tmp_path: Path) -> None:
    photo = np.full((WH[1], WH[0], 3), 90, np.uint8)
    photo[24:32, 40:48] = RED
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/a.jpg").write_bytes(encode_jpeg(photo))
    (tmp_path / "mine/b.jpg").write_bytes(b"no photo")
    model = _write_yolox(tmp_path / "people.onnx", decoded=True)
    config = ParseConfig(
        emotic_root=tmp_path / "mine", people="from-detector", person_detector=str(model), out=tmp_path / "work"
    )
    record = run_parse(config)
    (row,) = pq.read_table(tmp_path / "work" / "people.parquet").to_pylist()
    x1, y1, x2, y2 = row["body_bbox"]
    assert x1 <= 44 <= x2 and y1 <= 28 <= y2 and record.info["detector"] == "people"
    assert record.counts["irregularities"] == {"photo_unreadable": 1}
    for changes, message in (
        ({"person_detector": None}, "--people from-detector and --person-detector go together"),
        ({"annotations": tmp_path}, "people are from-detector, which needs no annotations"),
    ):
        with pytest.raises(SettingsError, match=message):
            config.replace(**changes)


def test_crops_are_files_with_a_table(photos: Path, tmp_path: Path) -> None:
    config = CropConfig(images=(photos,), out=tmp_path, detector=DEMONSTRATION_DETECTOR)
    record = run_crop(config)
    rows = read_table(tmp_path / "crops.parquet", CROPS_SCHEMA, "").to_pylist()
    assert record.counts == {"photos": N_PHOTOS, "photos_left_out": 0, "faces": len(rows)} and len(rows) >= 2
    listed = pd.read_csv(tmp_path / "crops.csv")
    assert listed["file"].tolist() == [row["file"] for row in rows]
    np.testing.assert_allclose(listed[["x1", "y1", "x2", "y2"]], [row["face_bbox"] for row in rows], rtol=1e-6)
    for row in rows:
        photo, box = read_photo(Path(row["photo"])), np.array(row["face_bbox"], np.float32)
        expected = crop_square(photo, *square_box(box, 0.15))
        crop = read_photo(tmp_path / row["file"])
        assert crop.shape == expected.shape and np.abs(crop.astype(int) - expected).mean() < 5
    small = run_crop(config.replace(out=tmp_path / "small", size=32)).counts
    assert small["faces"] == len(rows)
    assert read_photo(tmp_path / "small" / rows[0]["file"]).shape == (32, 32, 3)


def test_aligned_crops_have_the_landmarks_at_the_template(photos: Path, tmp_path: Path) -> None:
    run_crop(CropConfig(images=(photos,), out=tmp_path, detector=DEMONSTRATION_DETECTOR, align=True))
    row = read_table(tmp_path / "crops.parquet", CROPS_SCHEMA, "").to_pylist()[0]
    crop, photo = read_photo(tmp_path / row["file"]), read_photo(Path(row["photo"]))
    assert crop.shape == (112, 112, 3)
    points = np.array(row["landmarks"]).reshape(5, 2)
    template = ALIGNED_LANDMARKS * 112
    design = np.concatenate([[[x, -y, 1, 0], [y, x, 0, 1]] for x, y in points])
    a, b, shift_x, shift_y = np.linalg.lstsq(design, template.ravel(), rcond=None)[0]
    nose = np.array([a * points[2, 0] - b * points[2, 1] + shift_x, b * points[2, 0] + a * points[2, 1] + shift_y])
    x, y = points[2].round().astype(int)
    u, v = nose.round().astype(int)
    patch, source = (
        crop[v - 2 : v + 3, u - 2 : u + 3].mean(axis=(0, 1)),
        photo[y - 1 : y + 2, x - 1 : x + 2].mean(axis=(0, 1)),
    )
    assert np.abs(patch - source).max() < 40


def test_cropping_goes_on_and_names_what_cannot_be_read(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, out = tmp_path / "mine", tmp_path / "out"
    folder.mkdir()
    for path in photos.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    config = CropConfig(images=(folder,), out=out, detector=DEMONSTRATION_DETECTOR)
    expected = run_crop(config)
    (folder / "broken.jpg").write_bytes(b"no photo")
    read: list[str] = []

    def note_and_read(place: Path) -> Any:
        read.append(place.name)
        return read_photo(place)

    monkeypatch.setattr("emoface.jobs.crop.read_photo_at", note_and_read)
    with pytest.raises(ImageError, match=r"1 of 4 photos could not be read: .*broken\.jpg"):
        run_crop(config)
    assert read == ["broken.jpg"]
    (folder / "broken.jpg").unlink()
    assert run_crop(config).counts == expected.counts and read == ["broken.jpg"]
    run_crop(config.replace(size=20))
    assert len(read) == 1 + N_PHOTOS


def test_command_crops_and_says_where(photos: Path, tmp_path: Path) -> None:
    words = ["crop", str(photos), "--out", str(tmp_path), "--detector", DEMONSTRATION_DETECTOR]
    answer = CliRunner().invoke(main, words)
    assert answer.exit_code == 0, answer.output
    assert f"faces: {tmp_path}" in answer.stdout and f"photos: {N_PHOTOS}" in answer.stdout
