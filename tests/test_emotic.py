"""Annotations of either form: what is read is what was written, whatever shape MATLAB gave it, and each rule."""

from __future__ import annotations

import csv
import dataclasses
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.io

from emoface.emotic import (
    PEOPLE_NOTES,
    PHOTO_NOTES,
    PersonAnnotation,
    PhotoAnnotation,
    correct_person,
    find_annotations,
    find_image_root,
    find_same_people,
    read_annotations,
    read_annotations_csv,
    read_annotations_mat,
    write_annotations_mat,
)
from emoface.errors import AnnotationsError, SettingsError
from emoface.schema import CATEGORIES, CATEGORY_INDEX, SPLITS

WH = (640, 400)
CSV_COLUMNS = (
    *("Index", "Folder", "Filename", "Image Size", "BBox"),
    *("Categorical_Labels", "Continuous_Labels", "Gender", "Age"),
)
ALICE = PersonAnnotation(
    body_bbox=(10, 20, 110, 320),
    annotator_categories=(("Anger", "Fear"),),
    annotator_vad=((3, 7, 5),),
    categories=("Anger", "Fear"),
    vad=(3, 7, 5),
    gender="Female",
    age="Adult",
)
BOB = PersonAnnotation(
    body_bbox=(200, 30.5, 300, 390),
    annotator_categories=(("Peace",), ("Peace", "Doubt/Confusion"), ("Esteem",)),
    annotator_vad=((5, 5, 5), (6, 5, 5), (7, 5, 5)),
    categories=("Doubt/Confusion", "Esteem", "Peace"),
    vad=(6, 5, 5),
    gender="Male",
    age="Kid",
)


def _photo(filename: str, split: str, *people: PersonAnnotation, folder: str = "mscoco/images") -> PhotoAnnotation:
    return PhotoAnnotation(filename, folder, WH, split, folder.split("/")[0], {}, people)


PHOTOS = [
    _photo("a.jpg", "train", ALICE, ALICE),
    _photo("empty.jpg", "train"),
    _photo("b.jpg", "val", BOB),
    _photo("c.jpg", "test", BOB, dataclasses.replace(BOB, gender=None, age=None), folder="ade20k/images"),
]


def _what(person: PersonAnnotation, image_wh: tuple[int, int] | None = WH) -> list[tuple[str, str, str]]:
    return [(note.what, note.before, note.after) for note in correct_person(person, "p", image_wh)[1]]


# --- Annotations.mat ------------------------------------------------------------------------------


def test_mat_comes_back_as_written(tmp_path: Path) -> None:
    path = tmp_path / "Annotations.mat"
    write_annotations_mat(path, PHOTOS)
    assert read_annotations_mat(path) == PHOTOS


@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.usefixtures("matlab_in_this_process")
def test_mat_of_no_photo_and_of_one_split_alone(tmp_path: Path, split: str) -> None:
    write_annotations_mat(tmp_path / "none.mat", [])
    assert read_annotations_mat(tmp_path / "none.mat") == []
    photos = [photo for photo in PHOTOS if photo.source_split == split]
    write_annotations_mat(tmp_path / "one.mat", photos)
    assert read_annotations_mat(tmp_path / "one.mat") == photos


def test_same_photos_give_the_same_bytes_whatever_the_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_annotations_mat(tmp_path / "a.mat", PHOTOS)
    monkeypatch.setattr("time.asctime", lambda *_: "Thu Jan  1 00:00:00 1970")
    write_annotations_mat(tmp_path / "b.mat", PHOTOS)
    assert (tmp_path / "a.mat").read_bytes() == (tmp_path / "b.mat").read_bytes()


def test_written_layout_is_the_released_one_by_position_too(tmp_path: Path) -> None:
    """The indices that the field's parsers use: ``mat2py.py`` of Tandon-A/emotic, which counts fields."""
    write_annotations_mat(tmp_path / "Annotations.mat", PHOTOS)
    mat = scipy.io.loadmat(tmp_path / "Annotations.mat")
    photo = mat["train"][0][0]
    assert (photo[0][0], photo[1][0]) == ("a.jpg", "mscoco/images")
    assert [int(photo[2][0][0][k][0][0]) for k in (0, 1)] == [640, 400]
    assert photo[3]["name"][0, 0][0] == "mscoco"
    train = photo[4][0][0]
    assert train[0].tolist() == [[10, 20, 110, 320]]
    assert [name[0] for name in train[1][0][0][0][0]] == ["Anger", "Fear"]
    assert [float(value[0][0]) for value in train[2][0][0]] == [3, 7, 5]
    assert (train[3][0], train[4][0]) == ("Female", "Adult")
    val = mat["val"][0][0][4][0][0]
    assert [[name[0] for name in one[0][0]] for one in val[1][0]] == [list(names) for names in BOB.annotator_categories]
    assert [name[0] for name in val[2][0]] == list(BOB.categories)
    assert [[float(value[0][0]) for value in one] for one in val[3][0]] == [list(vad) for vad in BOB.annotator_vad]
    assert [float(value[0][0]) for value in val[4][0][0]] == [6, 5, 5]
    assert (val[5][0], val[6][0]) == ("Male", "Kid")


def _rewrite(source: Path, target: Path, **options: Any) -> Any:
    """Reads a file as scipy gives it, and writes that again: scipy as an independent tool in between."""
    mat = scipy.io.loadmat(source, **options)
    scipy.io.savemat(target, {name: mat[name] for name in SPLITS})
    return mat


def _reverse_fields(value: Any) -> Any:
    """The same structs with their fields in the opposite order, all the way down."""
    if not isinstance(value, np.ndarray):
        return value
    if value.dtype.names:
        names = value.dtype.names[::-1]
        array = np.empty(value.shape, dtype=[(name, object) for name in names])
        for name in names:
            for place in np.ndindex(value.shape):
                array[name][place] = _reverse_fields(value[name][place])
        return array
    if value.dtype == object:
        array = np.empty(value.shape, dtype=object)
        for place in np.ndindex(value.shape):
            array[place] = _reverse_fields(value[place])
        return array
    return value


@pytest.mark.usefixtures("matlab_in_this_process")
def test_fields_are_read_by_name_in_whatever_order_they_stand(tmp_path: Path) -> None:
    write_annotations_mat(tmp_path / "a.mat", PHOTOS)
    mat = scipy.io.loadmat(tmp_path / "a.mat")
    scipy.io.savemat(tmp_path / "b.mat", {name: _reverse_fields(mat[name]) for name in SPLITS})
    assert scipy.io.loadmat(tmp_path / "b.mat")["train"].dtype.names[0] == "person"
    assert read_annotations_mat(tmp_path / "b.mat") == PHOTOS


@pytest.mark.usefixtures("matlab_in_this_process")
def test_squeezed_file_says_the_same_and_each_squeezed_cell_is_noted(tmp_path: Path) -> None:
    """Every one-element cell, struct array and vector as its bare element, and columns in place of rows."""
    write_annotations_mat(tmp_path / "a.mat", PHOTOS)
    _rewrite(tmp_path / "a.mat", tmp_path / "b.mat", squeeze_me=True)
    squeezed = read_annotations_mat(tmp_path / "b.mat")
    bare = [
        dataclasses.replace(photo, people=tuple(dataclasses.replace(one, squeezed=()) for one in photo.people))
        for photo in squeezed
    ]
    assert bare == PHOTOS
    of_bob = squeezed[2].people[0]
    assert of_bob.squeezed == ("annotations_categories",)  # two of his annotators gave one word
    assert _what(of_bob)[0][:2] == ("cell_squeezed", "annotations_categories")


@pytest.mark.usefixtures("matlab_in_this_process")
def test_columns_in_place_of_rows_say_the_same(tmp_path: Path) -> None:
    write_annotations_mat(tmp_path / "a.mat", PHOTOS)
    mat = scipy.io.loadmat(tmp_path / "a.mat")
    for name in SPLITS:
        for place in np.ndindex(mat[name].shape):
            people = mat[name]["person"][place]
            for person in np.ndindex(people.shape):
                people["body_bbox"][person] = people["body_bbox"][person].T
                people["annotations_categories"][person] = people["annotations_categories"][person].T
            mat[name]["person"][place] = people.T
        mat[name] = mat[name].T
    scipy.io.savemat(tmp_path / "b.mat", {name: mat[name] for name in SPLITS})
    assert read_annotations_mat(tmp_path / "b.mat") == PHOTOS


@pytest.mark.usefixtures("matlab_in_this_process")
def test_fields_that_are_missing_or_of_another_kind_count_as_absent(tmp_path: Path) -> None:
    """No annotation, a cell of words without its struct, an empty size, an infinite one, no person, no file name."""
    cell = np.array([["Fear", "Pain"]], dtype=object)
    person = {"body_bbox": "none", "annotations_categories": cell, "annotations_continuous": 5.0}
    photos = [
        {"filename": "a.jpg", "folder": "mscoco/images/", "image_size": np.zeros((0, 0)), "person": person},
        {"filename": "b.jpg", "folder": "mscoco\\images", "image_size": {"n_col": np.inf, "n_row": 4}, "person": 3.0},
        {"filename": np.zeros((0, 0)), "folder": "mscoco/images", "image_size": 7.0, "person": person},
    ]
    array = np.empty((1, 3), dtype=[(name, object) for name in photos[0]])
    for number, photo in enumerate(photos):
        array[0, number] = tuple(photo.values())
    empty = np.empty((1, 0), dtype=array.dtype)
    scipy.io.savemat(tmp_path / "a.mat", {"train": array, "val": empty, "test": np.zeros((0, 0))})
    first, second, third = read_annotations_mat(tmp_path / "a.mat")
    assert (first.image, first.image_wh, first.database_name) == ("mscoco/images/a.jpg", None, "")
    assert first.people[0].categories == ("Fear", "Pain") and first.people[0].body_bbox == ()
    assert first.people[0].gender is None and all(map(math.isnan, first.people[0].vad))
    assert (second.image, second.image_wh, second.people) == ("mscoco/images/b.jpg", None, ())
    assert third.filename == "" and len(third.people) == 1


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"<!DOCTYPE html><html>", r"starts with b'<!DOCTYPE html><', .* expected a MATLAB file .*; download it again"),
        (b"", r"starts with b'', .* expected a MATLAB file"),
        (b"\x89HDF\r\n\x1a\n" + bytes(600), r"MATLAB 7.3 \(HDF5\).*save it in MATLAB with '-v7'"),
        (b"MATLAB 7.3 MAT-file".ljust(512) + b"\x89HDF\r\n", r"MATLAB 7.3 \(HDF5\)"),
        (b"MATLAB 5.0 MAT-file".ljust(124) + b"\x00\x01IM", r"variables train, val, test are missing, found none"),
    ],
)
@pytest.mark.usefixtures("matlab_in_this_process")
def test_files_that_are_no_annotations_are_refused(tmp_path: Path, data: bytes, message: str) -> None:
    (tmp_path / "Annotations.mat").write_bytes(data)
    with pytest.raises(AnnotationsError, match=rf"Annotations\.mat: .*{message}"):
        read_annotations_mat(tmp_path / "Annotations.mat")


@pytest.mark.parametrize("share", [0.1, 0.3, 0.5, 0.7, 0.9, 0.99])
def test_cut_file_is_an_error_not_fewer_people(tmp_path: Path, share: float) -> None:
    path = tmp_path / "Annotations.mat"
    write_annotations_mat(path, PHOTOS)
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    with pytest.raises(AnnotationsError, match=r"Annotations\.mat: .*(cut off|missing|expected)"):
        read_annotations_mat(path)


def test_flipped_byte_in_a_compressed_file_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "Annotations.mat"
    write_annotations_mat(path, PHOTOS)
    data = bytearray(path.read_bytes())
    for place in range(200, len(data), len(data) // 5):
        broken = data.copy()
        broken[place] ^= 0x55
        path.write_bytes(broken)
        with pytest.raises(AnnotationsError, match=r"Annotations\.mat"):
            read_annotations_mat(path)


@pytest.mark.usefixtures("matlab_in_this_process")
def test_other_variables_are_refused_by_name(tmp_path: Path) -> None:
    scipy.io.savemat(tmp_path / "a.mat", {"train": np.zeros((2, 2)), "val": 1, "test": 2})
    with pytest.raises(AnnotationsError, match=r"variable train is an array of float64, expected structs"):
        read_annotations_mat(tmp_path / "a.mat")
    scipy.io.savemat(tmp_path / "b.mat", {"Annotations": 1})
    with pytest.raises(AnnotationsError, match="train, val, test are missing, found Annotations"):
        read_annotations_mat(tmp_path / "b.mat")


@pytest.mark.usefixtures("matlab_in_this_process")
def test_file_of_nameless_photos_is_another_layout(tmp_path: Path) -> None:
    array = np.empty((1, 2), dtype=[("name", object)])
    array["name"][0, :] = ["a.jpg", "b.jpg"]
    scipy.io.savemat(tmp_path / "Annotations.mat", dict.fromkeys(SPLITS, array))
    with pytest.raises(AnnotationsError, match=r"none of the 6 photos has a filename"):
        read_annotations(find_annotations(tmp_path))


# --- CSV ------------------------------------------------------------------------------------------


def _write_csv(path: Path, rows: list[tuple[Any, ...]]) -> Path:
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(CSV_COLUMNS)
        writer.writerows(rows)
    return path


def test_csv_rows_become_photos_in_their_order(tmp_path: Path) -> None:
    row = ("mscoco/images", "a.jpg", [640, 400], [10, 20, 110, 320], ["Anger", "Fear"], [3, 7, 5], "Female", "Adult")
    other = ("ade20k/images", "b.jpg", [640, 400], [1, 2, 3, 4], ["Peace"], ["nan", 5, 5], "Male", "Kid")
    nan_row = (*other[:5], "[nan, 5, 5]", *other[6:])
    rows = [(0, *row), (1, *row), (2, *nan_row), (3, *row)]
    photos = read_annotations_csv({"train": _write_csv(tmp_path / "train.csv", rows)})
    assert [(photo.image, len(photo.people)) for photo in photos] == [
        ("mscoco/images/a.jpg", 2),
        ("ade20k/images/b.jpg", 1),
        ("mscoco/images/a.jpg", 1),
    ]
    assert photos[0] == PHOTOS[0]
    vad = photos[1].people[0].vad
    assert math.isnan(vad[0]) and vad[1:] == (5, 5)


def test_csv_of_several_annotators_does_not_know_the_single_ones(tmp_path: Path) -> None:
    row = (
        0,
        "mscoco/images",
        "b.jpg",
        [640, 400],
        [200, 30.5, 300, 390],
        list(BOB.categories),
        [6, 5, 5],
        "Male",
        "Kid",
    )
    (photo,) = read_annotations_csv({"val": _write_csv(tmp_path / "val.csv", [row])})
    corrected, notes = correct_person(photo.people[0], "p", WH)
    known, _ = correct_person(BOB, "p", WH)
    assert (corrected.annotator_votes, corrected.n_annotators) == (None, None)
    assert dataclasses.replace(known, annotator_votes=None, n_annotators=None) == corrected
    assert [note.what for note in notes] == ["box_fractional"]


def test_csv_value_that_is_no_list_is_noted_and_the_row_stays(tmp_path: Path) -> None:
    row = (0, "mscoco/images", "a.jpg", "?", "[1, 2", "angry", "[a, b]", "", "Adult")
    (photo,) = read_annotations_csv({"train": _write_csv(tmp_path / "train.csv", [row])})
    assert photo.image_wh is None
    assert [what for what, *_ in _what(photo.people[0])] == [
        *["value_unreadable"] * 3,
        *("box_refused", "categories_missing", *["dimension_missing"] * 3, "gender_missing"),
    ]
    assert _what(photo.people[0])[0] == ("value_unreadable", "Categorical_Labels angry", "")


def test_csv_with_other_columns_or_bytes_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "train.csv"
    path.write_text("Index,Folder\n0,a\n", encoding="utf-8")
    with pytest.raises(
        AnnotationsError, match=r"train.csv: columns Filename, Image Size.* are missing, found Index, Fol"
    ):
        read_annotations_csv({"train": path})
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(AnnotationsError, match=r"train\.csv: not a readable CSV file"):
        read_annotations_csv({"train": path})


# --- corrections ----------------------------------------------------------------------------------


def _with(**changes: Any) -> PersonAnnotation:
    """Alice with changes; new words and dimensions are her one annotator's too."""
    if "categories" in changes:
        changes.setdefault("annotator_categories", (changes["categories"],))
    if "vad" in changes:
        changes.setdefault("annotator_vad", (changes["vad"],))
    return dataclasses.replace(ALICE, **changes)


NAN = math.nan
RULES: list[tuple[PersonAnnotation, dict[str, Any], list[tuple[str, str, str]]]] = [
    (ALICE, {"body_bbox": (10, 20, 110, 320), "categories": ("Anger", "Fear")}, []),
    (
        _with(body_bbox=(110, 320, 10, 20)),
        {"body_bbox": (10, 20, 110, 320)},
        [("box_corners_swapped", "110 320 10 20", "10 20 110 320")],
    ),
    (
        _with(body_bbox=(-5, -6, 700, 401)),
        {"body_bbox": (0, 0, 640, 400)},
        [("box_outside_photo", "-5 -6 700 401", "0 0 640 400")],
    ),
    (
        _with(body_bbox=(1.25, 2, 9.1, 8)),
        {"body_bbox": (1.25, 2, 9.1, 8)},
        [("box_fractional", "1.25 2 9.1 8", "1.25 2 9.1 8")],
    ),
    (_with(body_bbox=(500, 410, 600, 500)), {"body_bbox": None}, [("box_refused", "500 410 600 500", "")]),
    (_with(body_bbox=(5, 5, 5, 50)), {"body_bbox": None}, [("box_refused", "5 5 5 50", "")]),
    (_with(body_bbox=(1, 2, NAN, 4)), {"body_bbox": None}, [("box_refused", "1 2 nan 4", "")]),
    (_with(body_bbox=()), {"body_bbox": None}, [("box_refused", "", "")]),
    (
        _with(categories=("anger ", "Doubt / Confusion")),
        {"categories": ("Anger", "Doubt/Confusion")},
        [("category_spelling", "anger ", "Anger"), ("category_spelling", "Doubt / Confusion", "Doubt/Confusion")],
    ),
    (_with(categories=("Fear", "Boredom")), {"categories": ("Fear",)}, [("category_unknown", "Boredom", "")]),
    (_with(categories=("Fear", "Fear")), {"categories": ("Fear",)}, [("category_repeated", "Fear", "Fear")]),
    (_with(categories=()), {"categories": ()}, [("categories_missing", "", "")]),
    (_with(vad=(NAN, 7, 5)), {"vad": (None, 7, 5)}, [("dimension_missing", "valence nan", "")]),
    (
        _with(vad=(3, 0, 11)),
        {"vad": (3, None, None)},
        [
            ("dimension_out_of_range", "arousal 0", ""),
            ("dimension_out_of_range", "dominance 11", ""),
        ],
    ),
    (_with(gender=None, age=" "), {"gender": None, "age": None}, [("gender_missing", "", ""), ("age_missing", "", "")]),
    (
        _with(gender="female", age="KID"),
        {"gender": "Female", "age": "Kid"},
        [
            ("gender_spelling", "female", "Female"),
            ("age_spelling", "KID", "Kid"),
        ],
    ),
    (
        _with(gender="?", age="77"),
        {"gender": None, "age": None},
        [("gender_unknown", "?", ""), ("age_unknown", "77", "")],
    ),
    (
        dataclasses.replace(BOB, body_bbox=ALICE.body_bbox, categories=()),
        {"categories": ("Doubt/Confusion", "Esteem", "Peace")},
        [("categories_uncombined", "", "Doubt/Confusion Esteem Peace")],
    ),
    (
        dataclasses.replace(
            BOB, body_bbox=ALICE.body_bbox, vad=(NAN, NAN, NAN), annotator_vad=((2, 5, 5), (5, NAN, 5))
        ),
        {"vad": (3.5, 5, 5)},
        [("dimensions_uncombined", "", "3.5 5 5")],
    ),
    (
        _with(squeezed=("combined_categories",)),
        {},
        [("cell_squeezed", "combined_categories", "cell of combined_categories")],
    ),
    (_with(unreadable=("BBox x",)), {}, [("value_unreadable", "BBox x", "")]),
]


@pytest.mark.parametrize(("person", "expected", "notes"), RULES)
def test_each_rule_corrects_or_rejects_and_notes(
    person: PersonAnnotation, expected: dict[str, Any], notes: list[tuple[str, str, str]]
) -> None:
    corrected, _ = correct_person(person, "p", WH)
    assert {name: getattr(corrected, name) for name in expected} == expected
    assert [CATEGORIES[k] for k in np.flatnonzero(corrected.labels)] == list(corrected.categories)
    assert _what(person) == notes


def test_every_rule_about_people_is_tried_above() -> None:
    of_two_people = {"person_repeated", "person_nearly_repeated"}  # tried in test_parse.py
    assert {what for *_, notes in RULES for what, *_ in notes} == set(PEOPLE_NOTES) - of_two_people


@pytest.mark.parametrize(
    ("genders", "ages", "is_same"),
    [
        (("Male", "Male"), ("Adult", "Adult"), True),
        (("Male", None), ("Adult", "Adult"), True),
        (("Male", "Male"), (None, "Kid"), True),
        (("Male", "Female"), ("Adult", "Adult"), False),
        (("Male", "Male"), ("Teenager", "Adult"), False),
    ],
)
def test_nearly_equal_boxes_are_one_person_unless_gender_or_age_differs(
    genders: tuple[str | None, ...], ages: tuple[str | None, ...], is_same: bool
) -> None:
    """The boxes overlap by 98 %; a third box overlaps with the first by 96 %."""
    boxes = np.array([[0, 0, 40, 100], [0, 0, 40, 98], [0, 0, 40, 96]], np.float32)
    found = find_same_people(["a.jpg"] * 2, boxes[:2], genders, ages)
    assert found.first_row.tolist() == [0, 0 if is_same else 1] and found.is_near.tolist() == [False, is_same]
    assert find_same_people(["a.jpg"] * 2, boxes[[0, 2]], genders, ages).first_row.tolist() == [0, 1]
    assert find_same_people(["a.jpg", "b.jpg"], boxes[:2], genders, ages).first_row.tolist() == [0, 1]
    assert len(find_same_people([], np.empty((0, 4), np.float32), [], []).first_row) == 0


def test_votes_count_each_annotator_once() -> None:
    bob = dataclasses.replace(BOB, annotator_categories=(("Peace", "peace"), ("Peace", "Boredom"), ("Esteem",)))
    corrected, _ = correct_person(bob, "p", WH)
    assert corrected.annotator_votes is not None and corrected.n_annotators == 3
    votes = {CATEGORIES[k]: vote for k, vote in enumerate(corrected.annotator_votes) if vote}
    assert votes == {"Esteem": 1, "Peace": 2}


@pytest.mark.parametrize("name", CATEGORIES)
def test_every_category_is_known_in_every_case_and_spacing(name: str) -> None:
    for word in (name.upper(), name.lower(), f"  {name} ", name.replace("/", " / ")):
        corrected, _ = correct_person(_with(categories=(word,)), "p", WH)
        assert corrected.categories == (name,)
        assert corrected.labels[CATEGORY_INDEX[name]] == 1 and sum(corrected.labels) == 1


def test_correcting_what_is_corrected_changes_nothing() -> None:
    """The rules are idempotent: what they give is regular."""
    for person, *_ in RULES:
        once, _ = correct_person(person, "p", WH)
        again = dataclasses.replace(
            person,
            body_bbox=once.body_bbox or (),
            annotator_categories=(once.categories,),
            categories=once.categories,
            vad=tuple(NAN if value is None else value for value in once.vad),
            gender=once.gender,
            age=once.age,
        )
        twice, _ = correct_person(again, "p", WH)
        assert (twice.body_bbox, twice.categories, twice.vad, twice.gender, twice.age) == (
            *(once.body_bbox, once.categories, once.vad, once.gender, once.age),
        )


def test_without_a_size_boxes_are_not_clipped() -> None:
    corrected, notes = correct_person(_with(body_bbox=(-5, 4, 9000, 10)), "p", None)
    assert corrected.body_bbox == (-5, 4, 9000, 10) and not notes


# --- where things lie -----------------------------------------------------------------------------


def test_pami_is_taken_before_cvpr_and_before_csv(tmp_path: Path) -> None:
    inner = tmp_path / "Annotations"
    inner.mkdir()
    (tmp_path / "val.csv").touch()
    found = find_annotations(tmp_path)
    assert found.csv_paths == {"val": tmp_path / "val.csv"} and found.paths == (tmp_path / "val.csv",)
    assert inner / "Annotations.mat" in found.absent and tmp_path / "train.csv" in found.absent
    for path in (tmp_path / "CVPR17_Annotations.mat", inner / "CVPR17_Annotations.mat"):
        path.touch()
        assert find_annotations(tmp_path).mat_path == path
    for path in (tmp_path / "Annotations.mat", inner / "Annotations.mat"):
        path.touch()
        assert find_annotations(tmp_path).mat_path == path
    assert find_annotations(tmp_path).absent == ()


def test_named_file_or_folder_is_taken_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "Annotations.mat").touch()
    other = tmp_path / "other"
    other.mkdir()
    with pytest.raises(
        AnnotationsError, match=r"other: no annotations; looked for .*other/Annotations.mat, .*test.csv"
    ):
        find_annotations(tmp_path, other)
    with pytest.raises(AnnotationsError, match="nowhere: no such file or folder"):
        find_annotations(tmp_path, tmp_path / "nowhere")
    for name, split in (("Val.csv", "val"), ("people.csv", "train")):
        (other / name).touch()
        assert find_annotations(tmp_path, other / name).csv_paths == {split: other / name}
    (other / "mine.mat").touch()
    assert find_annotations(tmp_path, other / "mine.mat").mat_path == other / "mine.mat"


def test_image_root_is_found_beside_the_annotations(tmp_path: Path) -> None:
    assert find_image_root(tmp_path) == tmp_path / "emotic"
    (tmp_path / "ade20k").mkdir()
    assert find_image_root(tmp_path) == tmp_path
    for name in ("cvpr_emotic", "emotic"):
        (tmp_path / name).mkdir()
        assert find_image_root(tmp_path) == tmp_path / name
    assert find_image_root(tmp_path, tmp_path / "ade20k") == tmp_path / "ade20k"
    with pytest.raises(SettingsError, match="nowhere: no such folder, expected the one that holds mscoco/images"):
        find_image_root(tmp_path, tmp_path / "nowhere")


def test_rules_are_written_in_the_docs() -> None:
    text = (Path(__file__).parents[1] / "docs" / "method.md").read_text(encoding="utf-8")
    for what, rule in {**PEOPLE_NOTES, **PHOTO_NOTES}.items():
        assert f"| `{what}` | {rule} |" in text
