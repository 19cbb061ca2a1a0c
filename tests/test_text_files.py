"""Text files in several encodings, names that are no UTF-8, and consoles that are not UTF-8."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from emoface.datasets.face_labels import read_face_labels
from emoface.datasets.manifest import read_manifest
from emoface.datasets.prediction_files import read_label_names
from emoface.emotic import read_annotations_csv
from emoface.errors import AnnotationsError, EmofaceError, PredictionsError
from emoface.pipeline.definition import _read_toml
from emoface.storage.array_files import read_arrays
from emoface.storage.files import read_text, stat_digest, write_text
from emoface.storage.records import JobRecord, read_record, write_record

WIDER = "caf\u00e9/a.jpg\r\n1\r\n10 20 30 40 0 0 0 0 0 0\r\n"
RETINA = "# caf\u00e9/a.jpg\n10 20 30 40\n"
PEOPLE = (
    "Index,Folder,Filename,Image Size,BBox,Categorical_Labels,Continuous_Labels,Gender,Age\r\n"
    '0,caf\u00e9,a.jpg,"[640, 480]","[1, 2, 30, 40]",[\'Peace\'],"[5, 5, 5]",Male,Adult\r\n'
)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
@pytest.mark.parametrize("text", [WIDER, RETINA])
def test_label_texts_are_read_in_every_unicode_encoding(tmp_path: Path, text: str, encoding: str) -> None:
    path = tmp_path / "label.txt"
    path.write_bytes(text.encode(encoding))
    photos = read_face_labels(path)
    assert [photo.path for photo in photos] == [tmp_path / "images/caf\u00e9/a.jpg"]
    assert photos[0].faces.xyxy.tolist() == [[10, 20, 40, 60]]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_csv_annotations_are_read_in_every_unicode_encoding(tmp_path: Path, encoding: str) -> None:
    path = tmp_path / "train.csv"
    path.write_bytes(PEOPLE.encode(encoding))
    (photo,) = read_annotations_csv({"train": path})
    assert photo.image == "caf\u00e9/a.jpg" and photo.people[0].body_bbox == (1, 2, 30, 40)
    table = tmp_path / "scores.csv"
    table.write_bytes("person_id,Anger\ncaf\u00e9#0,0.5\n".encode(encoding))
    assert read_arrays(table)["person_id"].tolist() == ["caf\u00e9#0"]


def _names(path: Path) -> Any:
    return read_label_names(path)


@pytest.mark.parametrize(
    ("read", "name", "text"),
    [
        (read_face_labels, "label.txt", WIDER),
        (lambda path: read_annotations_csv({"train": path}), "train.csv", PEOPLE),
        (read_arrays, "scores.csv", "person_id,caf\u00e9\n"),
        (read_arrays, "scores.json", '["caf\u00e9"]'),
        (_names, "labels.txt", "caf\u00e9"),
        (_read_toml, "p.toml", "caf\u00e9"),
        (read_manifest, "manifest.json", '{"caf\u00e9": 1}'),
    ],
)
def test_other_encodings_are_refused_in_one_line(
    tmp_path: Path, read: Callable[[Path], Any], name: str, text: str
) -> None:
    path = tmp_path / name
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(
        EmofaceError, match=rf"{name}: not a readable .*line \d is not UTF-8 text, byte 0xe9.*save the file as UTF-8"
    ):
        read(path)
    path.write_bytes(text.encode("utf-16-le"))
    with pytest.raises(EmofaceError, match="UTF-8"):
        read(path)


def test_the_line_and_the_file_are_named(tmp_path: Path) -> None:
    path = tmp_path / "label.txt"
    path.write_bytes("a\nb\n\u4e2d".encode("gbk"))
    with pytest.raises(AnnotationsError, match=r"label\.txt: not a readable text file \(line 3 is not UTF-8"):
        read_text(path, AnnotationsError)
    with pytest.raises(PredictionsError, match=r"none\.txt: no such file"):
        read_text(tmp_path / "none.txt", PredictionsError)


def test_names_that_are_no_utf8_are_recorded_and_read_back(tmp_path: Path) -> None:
    name = os.fsdecode(b"\xd5\xd5\xc6\xac")
    (tmp_path / name).write_bytes(b"x")
    record = JobRecord("parse", {}, {}, {}, {}, {"image_root": name})
    write_record(tmp_path, record)
    assert read_record(tmp_path, "parse") == record
    assert stat_digest(tmp_path, [name]) != stat_digest(tmp_path, ["missing"])
    write_text(tmp_path / "a.json", json.dumps(name, ensure_ascii=False))
    assert json.loads((tmp_path / "a.json").read_text()) == name


@pytest.mark.parametrize("encoding", ["cp1252", "ascii", "gbk", "cp950"])
def test_consoles_that_are_not_utf8_get_escapes(tmp_path: Path, encoding: str) -> None:
    command = [sys.executable, "-m", "emoface", "status", "emotic_face", "--set", "emotic_root=own \uc9c0\ub2e8"]
    environment = {**os.environ, "PYTHONIOENCODING": encoding, "PYTHONUTF8": "0"}
    done = subprocess.run(command, capture_output=True, env=environment, cwd=tmp_path, check=False)
    assert b"Traceback" not in done.stderr and done.returncode == 0, done.stderr
