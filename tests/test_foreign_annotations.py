"""Annotations as other programs write them: printed lists, box conventions, paths; descriptions with wrong types."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from emoface.cli import main
from emoface.datasets.manifest import Manifest, SplitFile, read_manifest, write_manifest
from emoface.datasets.photos import PhotoFolder
from emoface.emotic import AnnotationFiles, PhotoAnnotation, read_annotations, read_annotations_csv
from emoface.emotic.annotations import to_folder
from emoface.emotic.corrections import correct_person
from emoface.emotic.csv_files import COLUMNS
from emoface.emotic.mat_files import write_annotations_mat
from emoface.errors import AnnotationsError, TableError
from emoface.schema import SPLITS
from emoface.storage.records import read_record
from emoface.vision.boxes import find_other_convention

ROW = {
    "Index": "0",
    "Folder": "mscoco/images",
    "Filename": "a.jpg",
    "Image Size": "[1280, 720]",
    "BBox": "[750, 42, 1110, 720]",
    "Categorical_Labels": "['Engagement', 'Happiness']",
    "Continuous_Labels": "[6, 4, 7]",
    "Gender": "Male",
    "Age": "Adult",
}


def _write(path: Path, *rows: dict[str, str]) -> Path:
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, COLUMNS)
        writer.writeheader()
        writer.writerows(ROW | row for row in rows)
    return path


def _read(path: Path) -> list[PhotoAnnotation]:
    return read_annotations(AnnotationFiles(None, {"train": path}))


@pytest.mark.parametrize("line_end", ["\n", "\r\n", "\r"])
def test_lines_may_end_in_any_way_and_fields_may_hold_line_ends(tmp_path: Path, line_end: str) -> None:
    path = tmp_path / "train.csv"
    rows = [ROW | {"Categorical_Labels": f"['Engagement'{line_end} 'Happiness']"}, ROW | {"Filename": "\u2028b.jpg"}]
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, COLUMNS, lineterminator=line_end)
        writer.writeheader()
        writer.writerows(rows)
    first, second = _read(path)
    assert first.people == second.people == _read(_write(tmp_path / "usual.csv", {}))[0].people
    assert (first.image, second.image) == ("mscoco/images/a.jpg", "mscoco/images/b.jpg")


@pytest.mark.parametrize(
    "box",
    [
        "[750 42 1110 720]",
        " [750 ,42.0, 1110.00,720] ",
        "[ 750.   42. 1110.  720.]",
        "[np.float64(750.0), np.float64(42.0), np.float64(1110.0), np.float64(720.0)]",
        "array([ 750.,   42., 1110.,  720.])",
        "array([750, 42, 1110, 720], dtype=int32)",
        "[7.50e+02 4.20e+01\n 1.11e+03 7.20e+02]",
        "750 42 1110 720",
        "750, 42.0, 1110, 720",
        "750;42;1110;720",
        "tensor([ 750.,   42., 1110.,  720.], dtype=torch.float64)",
        "list([750, 42, 1110, 720])",
    ],
)
def test_boxes_are_read_as_numpy_prints_them(tmp_path: Path, box: str) -> None:
    (photo,) = read_annotations_csv({"train": _write(tmp_path / "train.csv", {"BBox": box})})
    assert photo.people[0].body_bbox == (750, 42, 1110, 720) and not photo.people[0].unreadable


@pytest.mark.parametrize(
    "labels",
    [
        "['Engagement' 'Happiness']",
        "['Engagement'\n 'Happiness']",
        "[\"Engagement\" 'Happiness']",
        "array(['Engagement', 'Happiness'], dtype='<U10')",
        "[np.str_('Engagement'), np.str_('Happiness')]",
        "Engagement|Happiness",
        "Engagement | Happiness",
        "Engagement, Happiness",
        "Engagement;happiness",
        "Engagement Happiness",
        "'Engagement', 'Happiness'",
        "[Engagement, Happiness]",
        "{'Engagement', 'Happiness'}",
        "list(['Engagement', 'Happiness'])",
    ],
)
def test_labels_are_read_as_other_programs_print_them(tmp_path: Path, labels: str) -> None:
    (photo,) = read_annotations_csv({"train": _write(tmp_path / "train.csv", {"Categorical_Labels": labels})})
    person, _ = correct_person(photo.people[0], "p", None)
    assert person.categories == ("Engagement", "Happiness") and not photo.people[0].unreadable


@pytest.mark.parametrize("label", ["Anger", "'Anger'", "[Anger]"])
def test_a_single_label_needs_no_brackets(tmp_path: Path, label: str) -> None:
    (photo,) = read_annotations_csv({"train": _write(tmp_path / "train.csv", {"Categorical_Labels": label})})
    assert photo.people[0].categories == ("Anger",) and not photo.people[0].unreadable


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("Categorical_Labels", "['Engagement', 'Happ"),
        ("Categorical_Labels", "Peace of mind"),
        ("Categorical_Labels", "joy"),
        ("BBox", "750,5 42 1110 720"),
        ("BBox", "750, 42; 1110, 720"),
    ],
)
def test_what_is_not_unmistakable_is_not_read(tmp_path: Path, column: str, value: str) -> None:
    (photo,) = read_annotations_csv({"train": _write(tmp_path / "train.csv", {column: value})})
    assert photo.people[0].unreadable == (f"{column} {value}",)


@pytest.mark.parametrize(
    ("column", "value", "shown"),
    [
        ("BBox", "750/42/1110/720", "750/42/1110/720; expected [x1, y1, x2, y2]"),
        ("Categorical_Labels", "happy", "happy; expected a list of EMOTIC's categories"),
        ("Continuous_Labels", "6/4/7", "6/4/7; expected [valence, arousal, dominance]"),
    ],
)
def test_a_column_that_cannot_be_read_is_one_error(tmp_path: Path, column: str, value: str, shown: str) -> None:
    path = _write(tmp_path / "train.csv", *[{column: value}] * 6, *[{}] * 4)
    message = f"train.csv: 6 of 10 values of the column '{column}' cannot be read, such as {shown}"
    with pytest.raises(AnnotationsError, match=re.escape(message)):
        read_annotations_csv({"train": path})
    few = _write(tmp_path / "few.csv", {column: value}, *[{}] * 9)
    assert len(read_annotations_csv({"train": few})[0].people) == 10


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("Categorical_Labels", "['joy', 'Happyness']", "have labels unknown to EMOTIC, such as 'joy, Happyness'; exp"),
        ("Gender", "Mann", "have a gender unknown to EMOTIC, such as 'Mann'; expected Male or Female, or nothing"),
        ("Age", "33", "have an age unknown to EMOTIC, such as '33'; expected Kid or Teenager or Adult, or nothing"),
    ],
)
def test_a_column_of_unknown_words_is_one_error(tmp_path: Path, column: str, value: str, message: str) -> None:
    path = _write(tmp_path / "train.csv", *[{column: value}] * 6, *[{}] * 4)
    with pytest.raises(AnnotationsError, match=re.escape(f"train.csv: 6 of 10 people {message}")):
        _read(path)
    assert len(_read(_write(tmp_path / "few.csv", *[{column: value}] * 5, *[{}] * 5))[0].people) == 10


def test_unknown_words_are_named_on_the_console(tmp_path: Path) -> None:
    joy, odd = {"Categorical_Labels": "['joy', 'Peace']"}, {"Categorical_Labels": "['joy', 'calm']", "Gender": "Mann"}
    path = _write(tmp_path / "train.csv", joy, odd, *[{}] * 4)
    places = [str(tmp_path), "--annotations", str(path), "--out", str(tmp_path / "out")]
    answer = CliRunner().invoke(main, ["parse", *places])
    assert answer.exit_code == 0
    assert "Warning: 2 rows have labels unknown to EMOTIC: 'joy' (2), 'calm' (1); they are left out" in answer.stderr
    assert "Warning: 1 row has genders unknown to EMOTIC: 'Mann' (1); they are left out" in answer.stderr


@pytest.mark.parametrize(
    ("box", "found"),
    [
        ("[0.586, 0.058, 0.867, 1.0]", "relative numbers, 0 to 1"),
        ("[750, 42, 360, 600]", "x, y, width, height"),
        ("[930, 381, 660, 678]", "centre x, centre y, width, height"),
    ],
)
def test_boxes_of_another_convention_are_refused(tmp_path: Path, box: str, found: str) -> None:
    path = _write(tmp_path / "train.csv", *[{"BBox": box}] * 9, {})
    with pytest.raises(AnnotationsError, match=rf"train\.csv: most of the 10 boxes are {found}, such as .*expected x1"):
        _read(path)


def test_few_swapped_corners_are_no_convention(tmp_path: Path) -> None:
    path = _write(tmp_path / "train.csv", {"BBox": "[750, 42, 360, 600]"}, *[{}] * 9)
    assert len(_read(path)[0].people) == 10
    assert find_other_convention(np.zeros((0, 4)), np.zeros((0, 2))) is None
    assert find_other_convention(np.array([[8.0, 9, 2, 3]] * 5), np.full((5, 2), np.nan)) is None


@pytest.mark.parametrize(
    ("folder", "filename", "image"),
    [
        ("..", "a.jpg", "../a.jpg"),
        ("mscoco", "../../a.jpg", "mscoco/../../a.jpg"),
        ("mscoco\\..\\..", "a.jpg", "mscoco/../../a.jpg"),
        ("mscoco", "..\\..\\a.jpg", "mscoco/..\\..\\a.jpg"),
        ("", "/etc/passwd", "/etc/passwd"),
        ("", "\\\\server\\a.jpg", "\\\\server\\a.jpg"),
        ("C:\\Windows", "a.jpg", "C:/Windows/a.jpg"),
        ("", "C:a.jpg", "C:a.jpg"),
    ],
)
@pytest.mark.usefixtures("matlab_in_this_process")
def test_photos_outside_the_image_root_are_refused(tmp_path: Path, folder: str, filename: str, image: str) -> None:
    csv_path = _write(tmp_path / "train.csv", {"Folder": folder, "Filename": filename})
    mat_path = tmp_path / "Annotations.mat"
    write_annotations_mat(mat_path, [PhotoAnnotation(filename, to_folder(folder), (9, 9), "train", "")])
    for path, files in ((csv_path, {"train": csv_path}), (mat_path, {})):
        with pytest.raises(AnnotationsError) as error:
            read_annotations(AnnotationFiles(None if files else mat_path, files))
        assert str(error.value) == f"{path}: the photo {image!r} is outside the image root; expected one below it"


def test_names_that_only_look_like_ways_out_are_read(tmp_path: Path) -> None:
    rows = [{"Folder": "..a/b..", "Filename": name} for name in ("...jpg", "a:b.jpg", "c..jpg")]
    photos = _read(_write(tmp_path / "train.csv", *rows))
    assert [photo.image for photo in photos] == ["..a/b../...jpg", "..a/b../a:b.jpg", "..a/b../c..jpg"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"image_root": 5}, "image_root is 5, expected text"),
        ({"undecided_frame": "turned"}, "undecided_frame is 'turned', expected stored or upright"),
        ({"detector": []}, r"detector is \[\], expected an object"),
        ({"label_names": 3}, "label_names are 3, expected a list of names"),
        ({"label_names": ["a", "a"]}, "label_names are 2 names, 1 different, expected 2 or more"),
        ({"rows": "3"}, "rows of train is '3', expected a whole number"),
        ({"file": "../train.parquet"}, r"the file of train is '\.\./train\.parquet', expected one in the manifest's"),
        ({"file": "/etc/passwd"}, "the file of train is '/etc/passwd', expected one in the manifest's folder"),
        ({"file": "D:train.parquet"}, "the file of train is 'D:train.parquet', expected one in the manifest's folder"),
        ({"file": "a\\..\\..\\b"}, r"the file of train is 'a\\\\\.\.\\\\\.\.\\\\b', expected one in the manifest's"),
        (
            {"balance": {"file": "../w.parquet", "sha256": ""}},
            r"the file of balance is '\.\./w\.parquet', expected",
        ),
        ({"balance": {"file": 3, "sha256": ""}}, "the file of balance is 3, expected one in the manifest's folder"),
        ({"balance": {"file": "w.parquet"}}, "sha256 of balance is None, expected text"),
    ],
)
def test_wrong_types_and_paths_of_a_manifest_are_named(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    path = tmp_path / "manifest.json"
    splits = {name: SplitFile(f"{name}.parquet", 0, 0, 0, "", {}) for name in SPLITS}
    for described in splits.values():
        (tmp_path / described.file).touch()
    write_manifest(Manifest(path, splits, "photos", {}, {}, {}, {}))
    assert read_manifest(path).image_root == str(Path("photos").resolve())
    card = json.loads(path.read_text())
    for name, value in changes.items():
        (card if name in card else card["splits"]["train"])[name] = value
    path.write_text(json.dumps(card))
    with pytest.raises(TableError, match=f"manifest.json: {message}"):
        read_manifest(path)


@pytest.mark.parametrize("changes", [{"outputs": []}, {"inputs": {"a": 1}}, {"outputs": {"../a": "x"}}, {"info": None}])
def test_wrong_types_of_a_record_are_named(tmp_path: Path, changes: dict[str, Any]) -> None:
    card = {"job": "parse", "settings": {}, "inputs": {}, "outputs": {}, "counts": {}, "info": {}}
    (tmp_path / "records").mkdir()
    (tmp_path / "records/parse.json").write_text(json.dumps(card | changes))
    with pytest.raises(TableError, match=rf"parse\.json: not a job record \({next(iter(changes))}"):
        read_record(tmp_path, "parse")


@pytest.mark.parametrize("info", [{}, {"image_root": 5}, {"image_root": "a", "undecided_frame": 3}])
def test_photo_folder_of_a_record_is_checked(info: dict[str, Any]) -> None:
    with pytest.raises(TableError, match=r"records/parse\.json: image_root is .*; run 'emoface parse' again"):
        PhotoFolder.of_record(info, Path())
