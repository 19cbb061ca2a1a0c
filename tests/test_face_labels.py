"""Labelled photos: WIDER FACE's text, RetinaFace's text, the simulator's truth, and what is wrong with each."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import numpy as np
import pyarrow as pa
import pytest

from emoface.datasets.face_labels import label_file, read_face_labels, read_whole_photos
from emoface.errors import AnnotationsError, TableError
from emoface.jobs.simulate import SimulateConfig, run_simulate
from emoface.progress import Silent
from emoface.schema import GROUND_TRUTH_SCHEMA
from emoface.storage.tables import read_table, write_table
from emoface.vision.images import encode_jpeg

WIDER = """\
0--Parade/a.jpg
2
10 20 30 40 0 0 0 0 0 0
50 60 8 9 2 0 0 1 2 0
0--Parade/nobody.jpg
0
0 0 0 0 0 0 0 0 0 0
1--Handshaking/b.jpg
1
5 6 2 20 0 0 0 0 0 0
"""

RETINA = """\
# 0--Parade/a.jpg
10 20 30 40 11 21 0.0 31 22 0.0 20 30 0.0 12 41 0.0 32 42 1.0 0.9
50 60 8 9 -1 -1 -1 -1 -1 -1 -1 -1 -1 -1 -1 -1 -1 -1 -1 0.3
# 0--Parade/nobody.jpg
# 1--Handshaking/b.jpg
5 6 20 20
"""


def _write(folder: Path, text: str) -> Path:
    path = folder / "label.txt"
    path.write_text(text, encoding="utf-8")
    return path


def test_wider_text_gives_corners_and_ignores_invalid_and_tiny_faces(tmp_path: Path) -> None:
    a, nobody, b = read_face_labels(_write(tmp_path, WIDER))
    assert [one.path for one in (a, nobody, b)] == [
        tmp_path / "images" / name for name in ("0--Parade/a.jpg", "0--Parade/nobody.jpg", "1--Handshaking/b.jpg")
    ]
    assert a.faces.xyxy.tolist() == [[10, 20, 40, 60], [50, 60, 58, 69]]
    assert a.faces.ignored.tolist() == [False, True]
    assert np.isnan(a.faces.landmarks).all()
    assert len(nobody.faces) == 0 and nobody.faces.xyxy.shape == (0, 4)
    assert b.faces.ignored.tolist() == [True]  # 2 px wide


def test_wider_text_of_a_photo_without_faces_may_lack_the_row_of_zeros(tmp_path: Path) -> None:
    photos = read_face_labels(_write(tmp_path, WIDER.replace("0 0 0 0 0 0 0 0 0 0\n1--", "1--")))
    assert [len(one.faces) for one in photos] == [2, 0, 1]


def test_retinaface_text_gives_landmarks_where_a_face_has_them(tmp_path: Path) -> None:
    a, nobody, b = read_face_labels(_write(tmp_path, RETINA), tmp_path / "elsewhere")
    assert a.path == tmp_path / "elsewhere" / "0--Parade/a.jpg"
    assert a.faces.xyxy.tolist() == [[10, 20, 40, 60], [50, 60, 58, 69]]
    assert a.faces.landmarks[0].tolist() == [[11, 21], [31, 22], [20, 30], [12, 41], [32, 42]]
    assert np.isnan(a.faces.landmarks[1]).all() and np.isnan(b.faces.landmarks).all()
    assert len(nobody.faces) == 0


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("0--Parade/a.jpg\n2\n10 20 30 40 0 0 0 0 0 0\n", "cannot read the faces of '0--Parade/a.jpg'"),
        ("0--Parade/a.jpg\nmany\n", "cannot read the faces of '0--Parade/a.jpg'"),
        ("# a.jpg\n1 2 3\n", "line 2 has 3 numbers"),
        ("# a.jpg\n1 2 3 four\n", "line 2 is not a row of numbers"),
    ],
)
def test_a_bad_line_is_named(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(AnnotationsError, match=message):
        read_face_labels(_write(tmp_path, text))


def test_missing_source_and_folder_without_truth(tmp_path: Path) -> None:
    with pytest.raises(AnnotationsError, match="no such file or folder"):
        read_face_labels(tmp_path / "nothing.txt")
    with pytest.raises(TableError, match=r"ground_truth\.parquet"):
        read_face_labels(tmp_path)


def test_broken_and_missing_photos_are_left_out_and_counted(tmp_path: Path) -> None:
    labels = _write(tmp_path, WIDER)
    with pytest.raises(AnnotationsError, match="none of its 3 photos can be read"):
        read_whole_photos(labels)
    whole, cut = tmp_path / "images/0--Parade/a.jpg", tmp_path / "images/0--Parade/nobody.jpg"
    whole.parent.mkdir(parents=True)
    data = encode_jpeg(np.full((80, 120, 3), 128, np.uint8))
    whole.write_bytes(data)
    cut.write_bytes(data[: len(data) // 2])
    photos, n_left_out = read_whole_photos(labels)
    assert [one.path for one in photos] == [whole] and n_left_out == 2
    assert photos[0].read().shape == (80, 120, 3)


def test_damaged_photo_is_named_with_its_reason(tmp_path: Path) -> None:
    class Notes(Silent):
        texts: ClassVar[list[str]] = []

        def note(self, text: str) -> None:
            self.texts.append(text)

    labels = _write(tmp_path, WIDER)
    noise = np.random.default_rng(1).integers(0, 255, (80, 120, 3), dtype=np.uint8)
    data = bytearray(encode_jpeg(noise))
    whole, damaged = tmp_path / "images/0--Parade/a.jpg", tmp_path / "images/0--Parade/nobody.jpg"
    whole.parent.mkdir(parents=True)
    whole.write_bytes(data)
    data[len(data) // 2 : len(data) // 2 + 2000] = bytes(2000)  # zeroed in the middle; the end mark is there
    damaged.write_bytes(data)
    photos, n_left_out = read_whole_photos(labels, progress=Notes())
    assert [one.path for one in photos] == [whole] and n_left_out == 2
    assert len(Notes.texts) == 1 and f"{damaged}: a damaged photo (Corrupt JPEG data" in Notes.texts[0]


def test_varied_simulation_counts_visible_faces_and_keeps_photos_without_people(tmp_path: Path) -> None:
    run_simulate(SimulateConfig(out=tmp_path, images=40, seed=5, varied=True))
    photos, n_left_out = read_whole_photos(tmp_path)
    assert len(photos) == 40 and n_left_out == 0
    assert any(len(one.faces) == 0 for one in photos)
    rows = read_table(label_file(tmp_path), GROUND_TRUTH_SCHEMA, "").to_pylist()
    n_visible = sum(row["face_visible"] for row in rows)
    assert sum(int((~one.faces.ignored).sum()) for one in photos) == n_visible > 0
    for one in photos:
        seen = one.faces.xyxy[~one.faces.ignored]
        height, width = one.read().shape[:2]
        assert (seen >= 0).all() and (seen[:, 2] <= width).all() and (seen[:, 3] <= height).all()
        assert np.isfinite(one.faces.landmarks[~one.faces.ignored]).all()


@pytest.mark.parametrize("name", ["../a.jpg", "a/../../b.jpg", "/etc/passwd", "C:\\b.jpg", "..\\b.jpg", "\\b.jpg"])
@pytest.mark.parametrize("text", ["{}\n0\n", "# {}\n1 2 30 40\n"])
def test_photos_of_labels_stay_below_their_folder(tmp_path: Path, name: str, text: str) -> None:
    source = _write(tmp_path, text.format(name))
    with pytest.raises(AnnotationsError) as error:
        read_face_labels(source)
    expected = f"{source}: the photo {name!r} is outside the folder of the photos; expected one below"
    assert str(error.value) == f"{expected} '{tmp_path / 'images'}'"


def test_photos_of_a_simulation_stay_below_its_folder(tmp_path: Path) -> None:
    row = {"image": "../x.jpg", "annotated": True, "face_visible": True, "label_probabilities": [0.5] * 26}
    write_table(
        tmp_path / "ground_truth.parquet", pa.Table.from_pylist([row], GROUND_TRUTH_SCHEMA), GROUND_TRUTH_SCHEMA
    )
    with pytest.raises(TableError, match=r"ground_truth\.parquet: column 'image' has the path '\.\./x\.jpg', expected"):
        read_face_labels(tmp_path)
