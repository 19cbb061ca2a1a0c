"""The parse job: tables, notes, photo sizes and record, from both forms, and the command that runs it."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import math
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from click.testing import CliRunner
from PIL import Image

from emoface.cli import main
from emoface.emotic import (
    PHOTO_NOTES,
    PersonAnnotation,
    PhotoAnnotation,
    find_annotations,
    read_annotations,
    write_annotations_mat,
)
from emoface.errors import AnnotationsError, SettingsError
from emoface.jobs.parse import ParseConfig, run_parse
from emoface.schema import CATEGORIES, PARSE_NOTE_COLUMNS, PEOPLE_SCHEMA
from emoface.storage.records import read_record
from emoface.storage.tables import read_table

WH = (64, 48)
CSV_COLUMNS = (
    *("Index", "Folder", "Filename", "Image Size", "BBox"),
    *("Categorical_Labels", "Continuous_Labels", "Gender", "Age"),
)


def _person(*categories: str, body_bbox: tuple[float, ...] = (1, 2, 30, 40), annotators: int = 1) -> PersonAnnotation:
    return PersonAnnotation(
        body_bbox=body_bbox,
        annotator_categories=(categories,) * annotators,
        annotator_vad=((5, 6, 7),) * annotators,
        categories=categories,
        vad=(5, 6, 7),
        gender="Male",
        age="Adult",
    )


def _photo(image: str, split: str = "train", *people: PersonAnnotation, wh: Any = WH) -> PhotoAnnotation:
    folder, _, filename = image.rpartition("/")
    return PhotoAnnotation(filename, folder, wh, split, folder.split("/")[0], {}, people)


def _write_root(root: Path, photos: list[PhotoAnnotation]) -> Path:
    write_annotations_mat(root / "Annotations" / "Annotations.mat", photos)
    return root


def _write_jpeg(path: Path, wh: tuple[int, int], orientation: int = 1) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.new("RGB", wh).save(path, "JPEG", exif=exif)


def _parse(root: Path, out: Path, **options: Any) -> pd.DataFrame:
    run_parse(ParseConfig(emotic_root=root, out=out, **options))
    return _read_people(out).to_pandas()


def _read_people(out: Path) -> pa.Table:
    return read_table(out / "people.parquet", PEOPLE_SCHEMA, "")


def _notes(out: Path) -> list[tuple[str, ...]]:
    with (out / "parse_notes.csv").open(encoding="utf-8", newline="") as stream:
        rows = [tuple(row) for row in csv.reader(stream)]
    assert rows[0] == PARSE_NOTE_COLUMNS
    return rows[1:]


def test_one_row_per_person_in_the_order_of_the_file(tmp_path: Path) -> None:
    root = _write_root(
        tmp_path / "EMOTIC",
        [
            _photo("framesdb/images/t.jpg", "test", _person("Peace", annotators=3)),
            _photo("mscoco/images/a.jpg", "train", _person("Fear", "Anger"), _person("Pain", body_bbox=(0, 0, 9.5, 8))),
            _photo("ade20k/images/v.jpg", "val", _person("Esteem", annotators=5)),
        ],
    )
    people = _parse(root, tmp_path / "out")
    assert people["index"].tolist() == [0, 1, 2, 3]
    assert people["person_id"].tolist() == [
        *("mscoco/images/a.jpg#0", "mscoco/images/a.jpg#1", "ade20k/images/v.jpg#0", "framesdb/images/t.jpg#0"),
    ]
    assert people["source"].tolist() == ["mscoco", "mscoco", "ade20k", "framesdb"]
    assert people["source_split"].tolist() == ["train", "train", "val", "test"]
    assert [wh.tolist() for wh in people["image_wh"]] == [[64, 48]] * 4
    assert people["body_bbox"][1].tolist() == [0, 0, 9.5, 8]
    assert people["categories"][0].tolist() == ["Fear", "Anger"]
    assert [CATEGORIES[k] for k in np.flatnonzero(people["labels"][0])] == ["Anger", "Fear"]
    assert people["n_annotators"].tolist() == [1, 1, 5, 3]
    assert [int(votes.max()) for votes in people["annotator_votes"]] == [1, 1, 5, 3]
    assert people[["valence", "arousal", "dominance"]].values.tolist() == [[5, 6, 7]] * 4
    assert people["gender"].tolist() == ["Male"] * 4 and people["age"].tolist() == ["Adult"] * 4


def test_nobody_is_dropped_however_little_is_known(tmp_path: Path) -> None:
    """No box, no labels, no dimensions, no gender, no age, no size, no photo: a row of nulls with its notes."""
    nobody = PersonAnnotation((), (), (), (), (math.nan,) * 3, None, None)
    root = _write_root(tmp_path / "EMOTIC", [_photo("mscoco/images/a.jpg", "val", nobody, wh=None)])
    record = run_parse(ParseConfig(emotic_root=root, out=tmp_path / "out"))
    (row,) = _read_people(tmp_path / "out").to_pylist()
    assert row["image_wh"] == [0, 0] and row["categories"] == [] and row["labels"] == [0] * 26
    for name in ("body_bbox", "annotator_votes", "n_annotators", "valence", "arousal", "dominance", "gender", "age"):
        assert row[name] is None, name
    assert record.counts["people_without_box"] == 1
    assert Counter(what for _, what, *_ in _notes(tmp_path / "out")) == record.counts["irregularities"]


def test_ids_stay_unique_for_photos_listed_twice_and_in_two_splits(tmp_path: Path) -> None:
    one = _person("Peace")
    photos = [
        *(_photo("mscoco/images/a.jpg", "train", one, one), _photo("mscoco/images/b.jpg", "train", one)),
        *(_photo("mscoco/images/a.jpg", "train", one), _photo("mscoco/images/a.jpg", "test", one)),
    ]
    people = _parse(_write_root(tmp_path / "EMOTIC", photos), tmp_path / "out")
    assert [name.rpartition("/")[2] for name in people["person_id"]] == [
        "a.jpg#0",
        "a.jpg#1",
        "b.jpg#0",
        "a.jpg#2",
        "a.jpg#3",
    ]
    assert [note for note in _notes(tmp_path / "out") if note[1] == "photo_repeated"] == [
        ("mscoco/images/a.jpg", "photo_repeated", "train", "from #2"),
        ("mscoco/images/a.jpg", "photo_repeated", "test", "from #3"),
    ]
    record = read_record(tmp_path / "out", "parse")
    assert record is not None and record.counts["photos"] == 2
    assert record.counts["photos_by_split"] == {"train": 2, "val": 0, "test": 1}


NO_PHOTO = (
    "not a readable photo (starts with b'no photo', expected JPEG, PNG, WebP, AVIF, TIFF, BMP, GIF, JPEG 2000 or PNM)"
)


def test_photos_own_size_wins_and_every_photo_rule_is_noted(tmp_path: Path) -> None:
    """Non-square photos; the box reaches to the right of all of them, so the clip shows which size was taken."""
    wide = _person("Peace", body_bbox=(1, 2, 500, 40))
    photos = [
        _photo("mscoco/images/same.jpg", "train", wide),
        _photo("mscoco/images/other.jpg", "train", wide),
        _photo("mscoco/images/turned.jpg", "train", wide),
        _photo("mscoco/images/stored.jpg", "train", wide),
        _photo("mscoco/images/unsized.jpg", "train", wide, wh=None),
        _photo("mscoco/images/unsized_missing.jpg", "train", wide, wh=None),
        _photo("mscoco/images/broken.jpg", "train", wide),
        _photo("mscoco/images/missing.jpg", "train", wide),
        _photo("flickr/images/same.jpg", "train", wide),
        _photo("mscoco/images/nobody.jpg", "val"),
        _photo("mscoco/images/", "val", wide),
        _photo("mscoco/images/same.jpg", "test", wide),
    ]
    root = _write_root(tmp_path / "EMOTIC", photos)
    image_root = root / "emotic"
    for name, wh, orientation in (
        *(("mscoco/images/same.jpg", WH, 1), ("flickr/images/same.jpg", WH, 1), ("mscoco/images/stored.jpg", WH, 6)),
        *(("mscoco/images/other.jpg", (70, 45), 1), ("mscoco/images/turned.jpg", (48, 64), 6)),
        ("mscoco/images/unsized.jpg", (33, 44), 1),
    ):
        _write_jpeg(image_root / name, wh, orientation)
    (image_root / "mscoco/images/broken.jpg").write_bytes(b"no photo")
    people = _parse(root, tmp_path / "out").set_index("person_id")
    found = {
        name.removeprefix("mscoco/images/"): (*row["image_wh"].tolist(), int(row["body_bbox"][2]))
        for name, row in people.iterrows()
    }
    assert found == {
        "same.jpg#0": (64, 48, 64),
        "other.jpg#0": (70, 45, 70),
        "turned.jpg#0": (64, 48, 64),
        "stored.jpg#0": (64, 48, 64),
        "unsized.jpg#0": (33, 44, 33),
        "unsized_missing.jpg#0": (0, 0, 500),
        "broken.jpg#0": (64, 48, 64),
        "missing.jpg#0": (64, 48, 64),
        "flickr/images/same.jpg#0": (64, 48, 64),
        "same.jpg#1": (64, 48, 64),
    }
    notes = [note for note in _notes(tmp_path / "out") if note[1] != "box_outside_photo"]
    assert notes == [
        ("mscoco/images/other.jpg", "image_size_differs", "64 48", "70 45"),
        ("mscoco/images/turned.jpg", "photo_turned", "48 64", "64 48"),
        ("mscoco/images/unsized.jpg", "image_size_missing", "", "33 44"),
        ("mscoco/images/unsized_missing.jpg", "image_size_missing", "", ""),
        ("mscoco/images/unsized_missing.jpg", "photo_missing", "", ""),
        ("mscoco/images/broken.jpg", "photo_unreadable", NO_PHOTO, "64 48"),
        ("mscoco/images/missing.jpg", "photo_missing", "", "64 48"),
        ("flickr/images/same.jpg", "source_unknown", "flickr/images", "flickr"),
        ("mscoco/images/nobody.jpg", "photo_without_people", "", ""),
        ("val(2)", "photo_unnamed", "1 people", ""),
        ("mscoco/images/same.jpg", "photo_repeated", "test", "from #1"),
        ("mscoco/images/same.jpg#1", "person_repeated", "", "mscoco/images/same.jpg#0"),
    ]
    of_photos = {what for _, what, *_ in notes[:-1]}
    assert of_photos == set(PHOTO_NOTES) - {
        "image_size_doubtful",
        "frame_unknown",
    }  # see tests of CSV files and of frames


def test_without_any_photos_they_are_noted_once(tmp_path: Path) -> None:
    photos = [_photo(f"mscoco/images/{k}.jpg", "train", _person("Peace")) for k in range(3)]
    root = _write_root(tmp_path / "EMOTIC", photos)
    record = run_parse(ParseConfig(emotic_root=root, out=tmp_path / "out"))
    assert _notes(tmp_path / "out") == [("", "photo_missing", "all 3 photos", "")]
    assert record.counts["photos_missing"] == 3
    assert record.info["image_root"] == "../EMOTIC/emotic"


def test_no_people_at_all_is_an_empty_table(tmp_path: Path) -> None:
    people = _parse(_write_root(tmp_path / "EMOTIC", []), tmp_path / "out")
    assert len(people) == 0 and list(people) == PEOPLE_SCHEMA.names


def test_record_says_what_was_read_and_counted(tmp_path: Path) -> None:
    photos = [
        _photo("mscoco/images/a.jpg", "train", _person("Peace"), _person("Fear", body_bbox=(9, 9, 3, 3))),
        _photo("framesdb/images/b.jpg", "val", _person("Pain")),
    ]
    root = _write_root(tmp_path / "EMOTIC", photos)
    _write_jpeg(root / "emotic/mscoco/images/a.jpg", WH)
    written = run_parse(ParseConfig(emotic_root=root, out=tmp_path / "out"))
    assert read_record(tmp_path / "out", "parse") == written
    assert written.counts == {
        "people": 3,
        "photos": 2,
        "published": {"people": 34320, "photos": 23571},
        "people_by_split": {"train": 2, "val": 1, "test": 0},
        "photos_by_split": {"train": 1, "val": 1, "test": 0},
        "people_by_source": {"mscoco": 2, "ade20k": 0, "emodb_small": 0, "framesdb": 1},
        "photos_missing": 1,
        "photos_unreadable": 0,
        "people_without_box": 0,
        "people_annotated_again": {"rows": 0},
        "irregularities": {"photo_missing": 1, "box_corners_swapped": 1},
    }
    assert written.info == {
        "image_root": "../EMOTIC/emotic",
        "undecided_frame": "stored",
        "annotations": "../EMOTIC/Annotations/Annotations.mat",
        "format": "emotic",
        "label_names": list(CATEGORIES),
    }
    assert set(written.outputs) == {"people.parquet", "parse_notes.csv"}
    assert set(written.inputs) == {str((root / "emotic").resolve()), str(root / "Annotations" / "Annotations.mat")}


def test_second_run_writes_the_same_bytes_and_a_failed_one_leaves_the_first(tmp_path: Path) -> None:
    root = _write_root(tmp_path / "EMOTIC", [_photo("mscoco/images/a.jpg", "train", _person("Peace"))])
    files = ("people.parquet", "parse_notes.csv", "records/parse.json")
    _parse(root, tmp_path / "out")
    first = [(tmp_path / "out" / name).read_bytes() for name in files]
    _parse(root, tmp_path / "out")
    assert [(tmp_path / "out" / name).read_bytes() for name in files] == first
    (root / "Annotations" / "Annotations.mat").write_bytes(b"<html>")
    with pytest.raises(AnnotationsError):
        _parse(root, tmp_path / "out")
    assert [(tmp_path / "out" / name).read_bytes() for name in files] == first


def _write_csv_files(folder: Path, photos: list[PhotoAnnotation]) -> Path:
    """The CSV form of the same annotations, as its public converters write it."""
    folder.mkdir()
    for split in ("train", "val", "test"):
        stream = io.StringIO()
        writer = csv.writer(stream)
        writer.writerow(CSV_COLUMNS)
        people = [(photo, one) for photo in photos if photo.source_split == split for one in photo.people]
        for index, (photo, one) in enumerate(people):
            where = (index, photo.folder, photo.filename, list(photo.image_wh or ()), list(one.body_bbox))
            writer.writerow((*where, list(one.categories), list(one.vad), one.gender or "", one.age or ""))
        (folder / f"{split}.csv").write_text(stream.getvalue(), encoding="utf-8")
    return folder


def test_rows_are_the_same_however_many_are_converted_at_a_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    people = [_person("Peace", body_bbox=box) for box in ((1, 2, 30, 40), (5, 6, 30, 40), (), (1, 2, 30, 40))]
    root = _write_root(tmp_path, [_photo(f"mscoco/images/{k}.jpg", "train", *people) for k in range(3)])
    _parse(root, tmp_path / "whole")
    monkeypatch.setattr("emoface.jobs.parse._ROWS_PER_BLOCK", 5)
    rows = _parse(root, tmp_path / "blocks")
    assert rows["same_person_as"].fillna(-1).astype(int).tolist() == [-1, -1, -1, 0, -1, -1, -1, 4, -1, -1, -1, 8]
    whole, blocks = ((tmp_path / name / "people.parquet").read_bytes() for name in ("whole", "blocks"))
    assert blocks == whole


def test_both_forms_give_the_same_table_but_for_the_votes(tmp_path: Path) -> None:
    vad = (math.nan, 2, 12)
    odd = dataclasses.replace(
        _person("peace ", "Boredom", body_bbox=(30.5, -3, 2, 90)), vad=vad, annotator_vad=(vad,), gender=None, age="kid"
    )
    photos = [
        _photo("mscoco/images/a.jpg", "train", _person("Fear", "Anger"), odd),
        _photo("mscoco/images/b.jpg", "train", _person()),
        _photo("mscoco/images/a.jpg", "train", _person("Pain")),
        _photo("ade20k/images/v.jpg", "val", _person("Esteem", annotators=5), odd),
        _photo("mscoco/images/a.jpg", "test", _person("Peace", annotators=3), wh=(60, 40)),
    ]
    root = _write_root(tmp_path / "EMOTIC", photos)
    _parse(root, tmp_path / "mat")
    _parse(root, tmp_path / "csv", annotations=_write_csv_files(tmp_path / "rows", photos))
    from_mat, from_csv = _read_people(tmp_path / "mat"), _read_people(tmp_path / "csv")
    votes = ["annotator_votes", "n_annotators"]
    assert from_csv.drop_columns(votes).equals(from_mat.drop_columns(votes))
    assert from_csv.slice(0, 4).select(votes).equals(from_mat.slice(0, 4).select(votes))  # train
    assert [one["n_annotators"] for one in from_csv.to_pylist()] == [1, 1, 1, 1, None, None, None]
    assert _notes(tmp_path / "csv") == _notes(tmp_path / "mat")


def test_real_rows_written_as_mat_parse_to_the_table_of_their_csv_files(shared_dir: Path, tmp_path: Path) -> None:
    """The head of each real file; docs/benchmarks/parse_full_size.py does the same with all of them."""
    rows = tmp_path / "rows"
    rows.mkdir()
    for split in ("train", "val", "test"):
        with (shared_dir / "emotic" / f"{split}.csv").open(encoding="utf-8") as stream:
            (rows / f"{split}.csv").write_text("".join(line for line, _ in zip(stream, range(401), strict=False)))
    _write_root(tmp_path / "EMOTIC", read_annotations(find_annotations(rows)))
    _parse(rows, tmp_path / "csv")
    people = _parse(tmp_path / "EMOTIC", tmp_path / "mat")
    assert len(people) == 1200 and people["labels"].map(sum).min() >= 1
    from_mat, from_csv = _read_people(tmp_path / "mat"), _read_people(tmp_path / "csv")
    is_small = pc.equal(from_csv["source"], "emodb_small")  # its boxes are not clipped by the doubtful size of the CSV
    assert from_mat.filter(pc.invert(is_small)).equals(from_csv.filter(pc.invert(is_small)))
    assert from_mat.drop_columns("body_bbox").equals(from_csv.drop_columns("body_bbox"))
    assert pc.any(is_small).as_py()


# --- people who are annotated more than once -------------------------------------------------------------------------


def test_people_annotated_again_name_the_first_row_of_the_same_person(tmp_path: Path) -> None:
    exact, large, no_box = _person("Peace"), _person("Fear", body_bbox=(0, 0, 60, 40)), _person("Pain", body_bbox=())
    woman = dataclasses.replace(exact, gender="Female")
    near = dataclasses.replace(large, body_bbox=(0, 0, 60, 41))  # IoU with large 40 / 41 = 0.976
    near_woman = dataclasses.replace(large, body_bbox=(0, 0, 60, 39.5), gender="Female")  # 0.988 with large
    photos = [
        _photo("framesdb/images/a.jpg", "train", exact, large, no_box),
        _photo("framesdb/images/b.jpg", "train", exact),
        _photo("framesdb/images/a.jpg", "val", woman, near, no_box),
        _photo("framesdb/images/a.jpg", "test", exact, near_woman),
    ]
    root = _write_root(tmp_path / "EMOTIC", photos)
    record = run_parse(ParseConfig(emotic_root=root, out=tmp_path / "out"))
    same_as = _read_people(tmp_path / "out")["same_person_as"].to_pylist()
    assert same_as == [None, None, None, None, 0, 1, None, 0, None]
    a = "framesdb/images/a.jpg"
    assert [note for note in _notes(tmp_path / "out") if note[1].startswith("person_")] == [
        (f"{a}#3", "person_repeated", "", f"{a}#0"),
        (f"{a}#4", "person_nearly_repeated", "", f"{a}#1"),
        (f"{a}#6", "person_repeated", "", f"{a}#0"),
    ]
    assert record.counts["people_annotated_again"] == {"rows": 3, "train and test": 1, "train and val": 2}
    assert record.counts["irregularities"]["person_repeated"] == 2
    assert record.counts["irregularities"]["person_nearly_repeated"] == 1


# --- the sizes of emodb_small in CSV files ---------------------------------------------------------------------------


@pytest.mark.parametrize("has_photo", [True, False])
@pytest.mark.parametrize("has_other_photo", [True, False])
def test_size_of_emodb_small_in_a_csv_file_is_height_first_and_clips_no_box(
    tmp_path: Path, has_photo: bool, has_other_photo: bool
) -> None:
    """The photo is 64 wide and 48 high; the CSV file lists 48, 64."""
    beyond = _person("Peace", body_bbox=(1, 2, 70, 60))
    photos = [
        _photo("emodb_small/images/e.jpg", "train", beyond, wh=(48, 64)),
        _photo("mscoco/images/m.jpg", "train", beyond),
    ]
    rows = _write_csv_files(tmp_path / "rows", photos)
    (tmp_path / "photos").mkdir()
    if has_photo:
        _write_jpeg(tmp_path / "photos/emodb_small/images/e.jpg", WH)
    if has_other_photo:
        _write_jpeg(tmp_path / "photos/mscoco/images/m.jpg", WH)
    people = _parse(rows, tmp_path / "out", images=tmp_path / "photos", allow_missing=True)
    small, other = (people["body_bbox"][row].tolist() for row in range(2))
    assert people["image_wh"][0].tolist() == [64, 48]
    assert small == ([1, 2, 64, 48] if has_photo else [1, 2, 70, 60]) and other == [1, 2, 64, 48]
    doubtful = [note for note in _notes(tmp_path / "out") if note[1] == "image_size_doubtful"]
    assert doubtful == ([] if has_photo else [("emodb_small/images/e.jpg", "image_size_doubtful", "", "64 48")])


# --- the command -----------------------------------------------------------------------------------------------------


def test_command_parses_and_prints_its_counts(tmp_path: Path) -> None:
    root = _write_root(tmp_path / "EMOTIC", [_photo("mscoco/images/a.jpg", "train", _person("Peace"))])
    result = CliRunner().invoke(main, ["parse", str(root), "--out", str(tmp_path / "out")])
    assert result.exit_code == 0, result.output
    assert "people: 1\n" in result.stdout and "published: people: 34,320\n" in result.stdout
    said = "1 of 1 photos are missing, such as mscoco/images/a.jpg; their annotated sizes are used"
    assert f"Warning: {root / 'emotic'}: {said}" in result.stderr
    assert json.loads((tmp_path / "out/records/parse.json").read_text())["counts"]["people"] == 1


def test_command_takes_annotations_and_images_from_elsewhere(tmp_path: Path) -> None:
    photos = [_photo("mscoco/images/a.jpg", "train", _person("Peace"))]
    rows = _write_csv_files(tmp_path / "rows", photos)
    _write_jpeg(tmp_path / "photos/mscoco/images/a.jpg", (80, 70))
    (tmp_path / "EMOTIC").mkdir()
    options = ["--annotations", str(rows / "train.csv"), "--images", str(tmp_path / "photos")]
    result = CliRunner().invoke(main, ["parse", str(tmp_path / "EMOTIC"), "--out", str(tmp_path / "out"), *options])
    assert result.exit_code == 0, result.output
    assert _read_people(tmp_path / "out").to_pylist()[0]["image_wh"] == [80, 70]
    record = read_record(tmp_path / "out", "parse")
    assert record is not None and record.info["image_root"] == "../photos"


@pytest.mark.parametrize(
    ("prepare", "options", "message"),
    [
        (lambda root: None, [], "no annotations; looked for"),
        (
            lambda root: (root / "Annotations.mat").write_bytes(b"<html>"),
            [],
            "a MATLAB file of version 7 or older",
        ),
        (lambda root: None, ["--annotations", "nowhere.mat"], "nowhere.mat: no such file or folder"),
        (lambda root: _write_root(root, []), ["--images", "nowhere"], "nowhere: no such folder, expected the one"),
    ],
)
def test_command_says_what_is_wrong_in_one_line(tmp_path: Path, prepare: Any, options: list[str], message: str) -> None:
    root = tmp_path / "EMOTIC"
    root.mkdir()
    prepare(root)
    result = CliRunner().invoke(main, ["parse", str(root), "--out", str(tmp_path / "out"), *options])
    assert result.exit_code == 1
    errors = [line for line in result.stderr.splitlines() if line.startswith("Error: ")]
    assert len(errors) == 1 and message in errors[0]
    assert "Traceback" not in result.output and not (tmp_path / "out" / "people.parquet").exists()


def test_photos_that_are_nearly_all_missing_are_said_on_the_console(tmp_path: Path) -> None:
    photos = [_photo(f"mscoco/images/{number}.jpg", "train", _person("Peace")) for number in range(20)]
    root = _write_root(tmp_path / "EMOTIC", photos)
    _write_jpeg(root / "mscoco/images/7.jpg", (64, 48))
    result = CliRunner().invoke(main, ["parse", str(root), "--out", str(tmp_path / "out")])
    assert result.exit_code == 0 and "19 of 20 photos are missing, such as mscoco/images/0.jpg" in result.stderr
    _write_jpeg(root / "mscoco/images/8.jpg", (64, 48))
    result = CliRunner().invoke(main, ["parse", str(root), "--out", str(tmp_path / "out")])
    assert "such as" not in result.stderr


def test_command_without_out_is_bad_usage(tmp_path: Path) -> None:
    assert CliRunner().invoke(main, ["parse", str(tmp_path)]).exit_code == 2


def test_error_family(tmp_path: Path) -> None:
    root = _write_root(tmp_path / "EMOTIC", [])
    with pytest.raises(SettingsError, match="no such folder"):
        run_parse(ParseConfig(emotic_root=root, out=tmp_path / "out", images=tmp_path / "nowhere"))
