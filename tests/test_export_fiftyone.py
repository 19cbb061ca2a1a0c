"""The export for FiftyOne: boxes worked out by hand, turned photos, predictions, and FiftyOne itself where it runs."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from mter_data import PHOTO_WH, write_photos_and_tables
from PIL import Image

from emoface.cli import main
from emoface.datasets.manifest import read_manifest
from emoface.datasets.predictions import Predictions, predictions_path, write_predictions
from emoface.errors import SettingsError
from emoface.jobs.export_fiftyone import ExportFiftyoneConfig, run_export_fiftyone
from emoface.schema import CATEGORIES, SPLIT_SCHEMA
from emoface.storage.records import JobRecord, write_record
from emoface.storage.tables import read_table

N_PHOTOS = 8


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_photos_and_tables(tmp_path_factory.mktemp("fiftyone"), N_PHOTOS).parent


def _read(out: Path, name: str = "samples.json") -> Any:
    return json.loads((out / name).read_text(encoding="utf-8"))


def _write_scores(work: Path, run: Path) -> dict[str, list[float]]:
    """Predictions of the people of test; returns their probabilities by ``person_id``."""
    table = read_table(read_manifest(work / "manifest.json").split_path("test"), SPLIT_SCHEMA, "")
    n = len(table)
    probabilities = np.random.default_rng(0).random((n, 26)).astype(np.float32)
    nothing = np.full((n, 3), np.nan, np.float32)
    predictions = Predictions(
        index=table["index"].to_numpy(),
        person_ids=table["person_id"].to_pylist(),
        images=table["image"].to_pylist(),
        sources=np.array(["framesdb"] * n, object),
        people_in_photo=np.full(n, 2),
        has_face=np.zeros(n, bool),
        labels=np.zeros((n, 26), np.uint8),
        probabilities=probabilities,
        stream_probabilities={},
        vad=nothing,
        predicted_vad=nothing,
    )
    path = predictions_path(run, "test")
    path.parent.mkdir(parents=True)
    write_predictions(path, predictions, key="", left_out={})
    return dict(zip(predictions.person_ids, probabilities.tolist(), strict=True))


def test_people_faces_and_labels_of_every_photo(work: Path, tmp_path: Path) -> None:
    answer = CliRunner().invoke(main, ["export-fiftyone", str(work), "--out", str(tmp_path / "out")])
    assert answer.exit_code == 0, answer.stderr
    samples = _read(tmp_path / "out")["samples"]
    assert len(samples) == N_PHOTOS == len({one["_id"]["$oid"] for one in samples})
    photos = {Path(one["filepath"]).name: one for one in samples}
    first = photos["000.jpg"]
    assert Path(first["filepath"]).is_file() and first["tags"] == ["train"]
    people, faces = first["people"]["detections"], first["faces"]["detections"]
    width, height = PHOTO_WH
    assert people[0]["bounding_box"] == pytest.approx([10 / width, 10 / height, 70 / width, 105 / height], abs=1e-6)
    assert faces[0]["bounding_box"] == pytest.approx([30 / width, 15 / height, 24 / width, 24 / height], abs=1e-6)
    assert [one["index"] for one in people] == [one["index"] for one in faces] == [0, 1]
    assert faces[0]["confidence"] == pytest.approx(0.9) and people[0]["face_status"] == "found"
    assert "dominance" not in people[1] and people[0]["dominance"] == 4.0  # an undefined value has no entry
    assert set(people[0]["categories"]) <= set(CATEGORIES) and "Peace" not in people[0]["categories"]
    assert len(photos["001.jpg"]["faces"]["detections"]) == 1  # one of the two people has no face
    fields = {one["name"]: one for one in _read(tmp_path / "out", "metadata.json")["sample_fields"]}
    assert {"people", "faces"} <= fields.keys() and "predictions" not in fields


def test_predictions_of_a_run_stand_beside_the_truth(work: Path, tmp_path: Path) -> None:
    expected = _write_scores(work, tmp_path / "run")
    config = ExportFiftyoneConfig(dir=work, out=tmp_path / "out", run=tmp_path / "run")
    assert run_export_fiftyone(config).counts["predictions"] == len(expected) > 0
    samples = _read(tmp_path / "out")["samples"]
    found = {one["person_id"]: one for photo in samples for one in photo["predictions"]["detections"]}
    assert found.keys() == expected.keys()
    for person_id, probabilities in expected.items():
        one = found[person_id]
        assert one["label"] == CATEGORIES[int(np.argmax(probabilities))]
        assert one["confidence"] == pytest.approx(max(probabilities), abs=1e-6)
        assert one["categories"] == [n for n, p in zip(CATEGORIES, probabilities, strict=True) if p >= 0.5]
        assert list(one["probabilities"].values()) == pytest.approx(probabilities, abs=1e-6)
    assert run_export_fiftyone(config).outputs == run_export_fiftyone(config).outputs
    scored = tmp_path / "scored"  # of another program
    scored.mkdir()
    shutil.copy(predictions_path(tmp_path / "run", "test"), scored / "predictions.parquet")
    write_record(scored, JobRecord("score", {}, {}, {}, {}, info={"name": "theirs", "split": "test"}))
    assert run_export_fiftyone(config.replace(run=scored)).counts["predictions"] == len(expected)


def test_boxes_are_those_of_the_upright_photo(tmp_path: Path) -> None:
    """A photo that is stored on its side, as FiftyOne does not show it; the boxes of the table are of the file."""
    work = write_photos_and_tables(tmp_path, 4).parent
    path = tmp_path / "photos" / "framesdb" / "images" / "000.jpg"
    exif = Image.Exif()
    exif[0x0112] = 6  # a quarter turn clockwise
    with Image.open(path) as stored:
        stored.save(path, exif=exif)
    run_export_fiftyone(ExportFiftyoneConfig(dir=work, out=tmp_path / "out"))
    first = next(one for one in _read(tmp_path / "out")["samples"] if one["filepath"].endswith("000.jpg"))
    width, height = PHOTO_WH  # of the file; x, y become height - y, x in a photo of 120 x 200
    box = first["people"]["detections"][0]["bounding_box"]
    assert box == pytest.approx([(height - 115) / height, 10 / width, 105 / height, 70 / width], abs=1e-6)
    path.unlink()
    run_export_fiftyone(ExportFiftyoneConfig(dir=work, out=tmp_path / "out"))
    first = next(one for one in _read(tmp_path / "out")["samples"] if one["filepath"].endswith("000.jpg"))
    assert first["people"]["detections"][0]["bounding_box"][0] == pytest.approx(10 / width)


def test_folders_that_hold_something_else_are_refused(work: Path, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(SettingsError, match="holds other files than a data set for FiftyOne; choose an empty"):
        run_export_fiftyone(ExportFiftyoneConfig(dir=work, out=tmp_path))
    config = ExportFiftyoneConfig(dir=work, out=tmp_path / "out", run=tmp_path / "run")
    with pytest.raises(SettingsError, match="has no predictions; evaluate the run first with 'emoface evaluate"):
        run_export_fiftyone(config)


@pytest.mark.skipif("FIFTYONE_DATABASE_URI" not in os.environ, reason="needs FiftyOne with a database of its own")
def test_fiftyone_itself_opens_it(work: Path, tmp_path: Path) -> None:
    fiftyone = pytest.importorskip("fiftyone", reason="the package fiftyone is not installed")
    expected = _write_scores(work, tmp_path / "run")
    run_export_fiftyone(ExportFiftyoneConfig(dir=work, out=tmp_path / "out", run=tmp_path / "run"))
    opened = fiftyone.Dataset.from_dir(str(tmp_path / "out"), dataset_type=fiftyone.types.FiftyOneDataset)
    assert opened.count("people.detections") == 2 * N_PHOTOS
    assert opened.count("predictions.detections") == len(expected)
    likely = opened.filter_labels("predictions", fiftyone.ViewField("confidence") > 0.99)
    assert likely.count("predictions.detections") == sum(max(one) > 0.99 for one in expected.values())
    opened.delete()
