"""Names of photos that only look the same, and names that are no UTF-8."""

from __future__ import annotations

import csv
import json
import os
import sys
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from command_process import run_commands
from watching import Watching

from emoface.emotic.csv_files import COLUMNS
from emoface.errors import ImageError
from emoface.jobs.parse import ParseConfig, run_parse
from emoface.storage import photo_stores
from emoface.vision.images import PhotoSize, encode_jpeg, read_photo, read_photo_size
from emoface.vision.photo_names import find_similar

COMPOSED, DECOMPOSED = (unicodedata.normalize(form, "Zoé") for form in ("NFC", "NFD"))


def _write(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(encode_jpeg(np.full((60, 60, 3), 90, np.uint8)))
    return path


def _write_own(root: Path, images: list[str]) -> Path:
    """Annotations of the photos, in a folder of one's own."""
    root.mkdir(parents=True, exist_ok=True)
    with (root / "train.csv").open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(COLUMNS)
        for image in images:
            folder, _, name = image.rpartition("/")
            writer.writerow([0, folder, name, "[60, 60]", "[0, 0, 50, 50]", "['Anger']", "[1, 2, 3]", "Male", "Adult"])
    return root / "train.csv"


@pytest.mark.parametrize(
    ("wanted", "there"),
    [
        ("a/B.jpg", "a/b.jpg"),
        ("a/b.jpg", "A/b.JPG"),
        (f"{COMPOSED}/a.jpg", f"{DECOMPOSED}/a.jpg"),
        (f"a/{DECOMPOSED}.jpg", f"a/{COMPOSED.upper()}.jpg"),
        ("STRASSE.jpg", "straße.jpg"),
    ],
)
def test_file_whose_name_looks_the_same_is_named_and_not_read(tmp_path: Path, wanted: str, there: str) -> None:
    if (tmp_path / "A").exists() or _write(tmp_path / there) != tmp_path / there or (tmp_path / wanted).exists():
        pytest.skip("the file system takes these names for the same")
    assert find_similar(tmp_path / wanted) == tmp_path / there
    expected = f"{tmp_path / wanted}: no such photo, only '{tmp_path / there}', in another case or Unicode form"
    with pytest.raises(ImageError) as error:
        read_photo(tmp_path / wanted)
    assert str(error.value) == expected
    annotations, notes = _write_own(tmp_path / "own", [wanted]), Watching()
    config = ParseConfig(emotic_root=tmp_path / "own", annotations=annotations, images=tmp_path, out=tmp_path / "out")
    record = run_parse(config.replace(allow_missing=True), notes)
    assert record.counts["photos_missing"] == 1
    assert any(f"the first is {wanted}: only {tmp_path / there} is there; rename" in line for line in notes.notes)
    with (tmp_path / "out/parse_notes.csv").open(newline="", encoding="utf-8") as stream:
        (note,) = (row for row in csv.DictReader(stream) if row["what"] == "photo_missing")
    assert note["person_id"] == wanted and note["before"] == f"only {tmp_path / there} is there"


def test_photo_that_vanishes_while_parse_reads_it_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = [f"{number}.jpg" for number in range(4)]
    paths = [_write(tmp_path / name) for name in names]

    def read_vanished(path: Path) -> PhotoSize:
        paths[2].unlink(missing_ok=True)
        return read_photo_size(path)

    monkeypatch.setattr(photo_stores, "read_photo_size", read_vanished)
    annotations = _write_own(tmp_path / "own", names)
    record = run_parse(
        ParseConfig(emotic_root=tmp_path / "own", annotations=annotations, images=tmp_path, out=tmp_path / "out")
    )
    assert (record.counts["photos_missing"], record.counts["photos_unreadable"]) == (1, 0)


def test_other_names_are_not_similar(tmp_path: Path) -> None:
    _write(tmp_path / "a" / "b.jpg")
    (tmp_path / "a" / "folder.jpg").mkdir()
    for wanted in ("a/c.jpg", "c/b.jpg", "a/FOLDER.jpg", "a/b.jpg/c"):
        assert find_similar(tmp_path / wanted) is None
    _write(tmp_path / "a" / "C.jpg")
    assert find_similar(tmp_path / "a" / "c.jpg") == tmp_path / "a" / "C.jpg"  # the list of the folder is read again


GBK = os.fsdecode("照片".encode("gbk"))
"""The name of a folder in an archive that was packed on a Chinese Windows."""


@pytest.mark.skipif(sys.platform != "linux", reason="names of bytes")
def test_every_job_runs_in_a_folder_whose_name_is_no_utf8(tmp_path: Path, weights_dir: Path) -> None:
    root = tmp_path / GBK
    names = [f"mscoco/images/{number}.jpg" for number in range(12)]
    for name in names:
        _write(root / "photos" / name)
    annotations = _write_own(root, names)
    work = root / "work"
    detector = ("--detector", "yolov5n-face", "--weights", weights_dir / "yolov5n-face.param", "--backend", "torch")
    run, scored = root / "run", root / "scored"
    photo = root / "photos" / names[0]
    train = ("train", "--manifest", work / "manifest.json", "--model", "task2", "--pretrained", "none", "--epochs", "1")
    small = ("--batch-size", "8", "--person-size", "32", "--context-size", "32", "--workers", "0", "--device", "cpu")
    calls: list[tuple[object, ...]] = [
        ("parse", root, "--annotations", annotations, "--images", root / "photos", "--out", work),
        ("faces", work, *detector),
        ("split", work),
        ("report", work),
        ("verify", work),
        ("parse", root, "--annotations", root / "gone.csv", "--out", work),
        (*train, *small, "--out", run),
        ("evaluate", run, "--draws", "5", "--device", "cpu"),
        ("export-predictions", run, "--out", root / "predictions.csv"),
        ("score", root / "predictions.csv", "--manifest", work / "manifest.json", "--out", scored, "--draws", "5"),
        ("compare", run, scored, "--out", root / "comparison", "--draws", "5"),
        ("explain", run, photo, "--boxes", "5,5,50,50", *detector[:4], "--out", root / "explain"),
        ("predict", run, photo, "--boxes", "5,5,50,50", *detector, "--out", root / "predict"),
        ("verify", run),
    ]
    for words, ended in zip(calls, run_commands(calls, cwd=tmp_path), strict=True):
        assert "Traceback" not in ended.stderr + ended.stdout, ended.stderr
        assert ended.returncode == (1 if root / "gone.csv" in words else 0), f"{words}: {ended.stderr}"
    manifest = json.loads((work / "manifest.json").read_text(encoding="utf-8"))
    assert manifest["image_root"] == "../photos"
