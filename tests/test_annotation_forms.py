"""Exports of COCO, CVAT, Label Studio, YOLO and Pascal VOC: the same two people in each, and what cannot be read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from emoface.annotations import find_export, read_data_labels, read_export
from emoface.annotations.yolo import read_classes
from emoface.cli import main
from emoface.errors import AnnotationsError, SettingsError
from emoface.jobs.export_coco import ExportCocoConfig, run_export_coco
from emoface.jobs.parse import ParseConfig, run_parse
from emoface.schema import CATEGORIES, PEOPLE_SCHEMA
from emoface.storage.tables import read_table
from emoface.vision.images import encode_jpeg

WH = (200, 100)
ANNA, BEN = (10.0, 20.0, 60.0, 100.0), (100.0, 0.0, 150.0, 50.0)
LABELS = {"anna": ["Happiness", "Peace"], "ben": ["Anger"]}

COCO = {
    "images": [{"id": 7, "file_name": "val/a.jpg", "width": 200, "height": 100}],
    "categories": [{"id": 1, "name": "person"}, {"id": 2, "name": "anger"}, {"id": 3, "name": "dog"}],
    "annotations": [
        {
            "image_id": 7,
            "category_id": 1,
            "bbox": [10, 20, 50, 80],
            "attributes": {"Happiness": True, "mood": "peace", "Valence": "7.5", "age": "adult", "occluded": True},
        },
        {"image_id": 7, "category_id": 2, "bbox": [100, 0, 50, 50], "segmentation": [[1, 2]]},
        {"image_id": 7, "category_id": 3, "bbox": [0, 0, 5, 5]},
    ],
}
CROWD = {"image_id": 7, "category_id": 1, "bbox": [0, 0, 90, 90], "iscrowd": 1}
CVAT = """<?xml version="1.0" encoding="utf-8"?>
<annotations><version>1.1</version>
<image id="0" name="a.jpg" subset="val" width="200" height="100">
<box label="person" occluded="0" xtl="10.00" ytl="20.00" xbr="60.00" ybr="100.00">
<attribute name="Happiness">true</attribute><attribute name="Fear">false</attribute>
<attribute name="emotions">Peace, __undefined__</attribute>
<attribute name="valence">7.5</attribute><attribute name="gender">__undefined__</attribute>
<attribute name="age">adult</attribute></box>
<box label="Anger" xtl="100" ytl="0" xbr="150" ybr="50"></box>
<box label="dog" xtl="0" ytl="0" xbr="5" ybr="5"></box></image></annotations>"""
VOC = """<annotation><folder>JPEGImages</folder><filename>a.jpg</filename>
<size><width>200</width><height>100</height><depth>3</depth></size>
<object><name>person</name><pose>Frontal</pose><difficult>0</difficult>
<bndbox><xmin>10</xmin><ymin>20</ymin><xmax>60</xmax><ymax>100</ymax></bndbox>
<attributes><attribute><name>emotion</name><value>Happiness|Peace</value></attribute>
<attribute><name>valence</name><value>7.5</value></attribute></attributes><age>Adult</age></object>
<object><name>ANGER</name><pose>Left</pose>
<bndbox><xmin>100</xmin><ymin>0</ymin><xmax>150</xmax><ymax>50</ymax></bndbox></object>
<object><name>dog</name><bndbox><xmin>0</xmin><ymin>0</ymin><xmax>5</xmax><ymax>5</ymax></bndbox></object>
</annotation>"""


def _studio_box(key: str, name: str, x: float, y: float, w: float, h: float) -> dict[str, Any]:
    value = {"x": x, "y": y, "width": w, "height": h, "rotation": 0, "rectanglelabels": [name]}
    sizes = {"original_width": 200, "original_height": 100}
    return {"id": key, "type": "rectanglelabels", "from_name": "box", "value": value, **sizes}


STUDIO = [
    {
        "id": 1,
        "data": {"image": "/data/upload/3/0a1b2c3d-a.jpg"},
        "annotations": [
            {"was_cancelled": True, "result": []},
            {
                "result": [
                    _studio_box("p", "person", 5, 20, 25, 80),
                    {"id": "p", "type": "choices", "from_name": "mood", "value": {"choices": ["Happiness", "peace"]}},
                    {"id": "p", "type": "number", "from_name": "valence", "value": {"number": 7.5}},
                    {"id": "p", "type": "choices", "from_name": "age", "value": {"choices": ["Adult"]}},
                    _studio_box("q", "Anger", 50, 0, 25, 50),
                    _studio_box("d", "dog", 0, 0, 2.5, 5),
                ]
            },
        ],
    }
]


def _write_photo(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(encode_jpeg(np.full((WH[1], WH[0], 3), 120, np.uint8)))


def _write_export(root: Path, form: str) -> Path:
    """Writes the two people in one of the forms; returns the path to give as --annotations."""
    root.mkdir()
    if form == "yolo":
        _write_photo(root / "images/val/a.jpg")
        (root / "labels/val").mkdir(parents=True)
        (root / "data.yaml").write_text("path: .\nnames:\n  0: dog\n  1: 'Happiness'\n  2: Peace # calm\n  3: Anger\n")
        lines = ["1 0.175 0.6 0.25 0.8", "3 0.625 0.25 0.25 0.5", "2 0.175 0.6 0.25 0.8", "0 0.0125 0.025 0.025 0.05"]
        (root / "labels/val/a.txt").write_text("\n".join(lines) + "\n")
        return root
    _write_photo(root / {"coco": "images/val/a.jpg", "voc": "JPEGImages/val/a.jpg"}.get(form, "images/a.jpg"))
    path = root / {"coco": "people.json", "cvat": "people.xml", "label-studio": "val.json"}.get(form, "")
    if form == "voc":
        path = root / "Annotations"
        (path / "val").mkdir(parents=True)
        (path / "val/a.xml").write_text(VOC)
    else:
        path.write_text(CVAT if form == "cvat" else json.dumps(COCO if form == "coco" else STUDIO))
    return path


def _people(folder: Path) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = read_table(folder / "people.parquet", PEOPLE_SCHEMA, "").to_pylist()
    return rows


@pytest.mark.parametrize("is_named", [True, False])
@pytest.mark.parametrize("form", ["coco", "cvat", "label-studio", "yolo", "voc"])
def test_every_form_gives_the_same_people(tmp_path: Path, form: str, is_named: bool) -> None:
    path = _write_export(tmp_path / "in", form)
    out = tmp_path / "out"
    record = run_parse(ParseConfig(emotic_root=tmp_path / "in", annotations=path if is_named else None, out=out))
    assert record.info["format"] == form and record.info["label_names"] == list(CATEGORIES)
    anna, ben = _people(out)
    assert anna["categories"] == LABELS["anna"] and ben["categories"] == LABELS["ben"]
    np.testing.assert_allclose([anna["body_bbox"], ben["body_bbox"]], [ANNA, BEN], atol=1e-4)
    assert anna["image_wh"] == list(WH) and anna["source_split"] == "val" and anna["annotator_votes"] is None
    assert anna["image"].endswith("a.jpg") and record.counts["photos_missing"] == 0
    if form != "yolo":
        assert (anna["valence"], anna["arousal"], anna["gender"], anna["age"]) == (7.5, None, None, "Adult")
    noted = record.counts["irregularities"]
    assert noted["class_unknown"] == 1 and noted.get("category_unknown", 0) == 0
    assert f"{anna['image']},class_unknown,dog," in (out / "parse_notes.csv").read_text()


def test_coco_goes_round(tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    run_parse(ParseConfig(emotic_root=_write_export(tmp_path / "in", "coco").parent, out=first))
    record = run_export_coco(ExportCocoConfig(dir=first))
    assert record.counts["people"] == 2 and record.counts["people_without_box"] == 0
    images = tmp_path / "in" / "images"
    run_parse(ParseConfig(emotic_root=first, annotations=first / "people.json", images=images, out=second))
    assert pq.read_table(first / "people.parquet").equals(pq.read_table(second / "people.parquet"))


def test_coco_keeps_votes_fractions_and_leaves_out_people_without_a_box(tmp_path: Path) -> None:
    row = dict.fromkeys(PEOPLE_SCHEMA.names) | {
        **{"index": 0, "person_id": "a.jpg#0", "image": "a.jpg", "source": "mine", "source_split": "test"},
        **{"image_wh": [0, 0], "body_bbox": [0.1, 0.2, 33.3, 40.7], "categories": ["Anger", "Fear"], "n_annotators": 3},
        "labels": [int(name in ("Anger", "Fear")) for name in CATEGORIES],
        "annotator_votes": [{"Anger": 3, "Fear": 1}.get(name, 0) for name in CATEGORIES],
        **{"valence": 2.3, "gender": "Female"},
    }
    boxless = row | {"index": 1, "person_id": "a.jpg#1", "body_bbox": None}
    import pyarrow as pa

    from emoface.storage.tables import write_table

    first, second = tmp_path / "first", tmp_path / "second"
    write_table(first / "people.parquet", pa.Table.from_pylist([row, boxless], PEOPLE_SCHEMA), PEOPLE_SCHEMA)
    counts = run_export_coco(ExportCocoConfig(dir=first, out=tmp_path / "x.json")).counts
    assert (counts["people"], counts["people_without_box"]) == (1, 1)
    run_parse(ParseConfig(emotic_root=tmp_path, annotations=tmp_path / "x.json", out=second))
    assert _people(second) == _people(first)[:1]


def test_words_that_are_no_labels_are_named_with_their_number(tmp_path: Path) -> None:
    content = json.loads(json.dumps(COCO))
    content["annotations"][0]["attributes"] = {"mood": "joyful; Peace"}
    content["annotations"][1]["attributes"] = {"smiling": True, "note": "joyful"}
    content["annotations"].append(CROWD)
    (tmp_path / "people.json").write_text(json.dumps(content))
    answer = CliRunner().invoke(main, ["parse", str(tmp_path), "--out", str(tmp_path / "out")])
    assert answer.exit_code == 0, answer.output
    said = " ".join(answer.stderr.split())
    assert "2 rows have labels unknown to EMOTIC: 'joyful' (2), 'smiling' (1); they are left out" in said
    assert "1 photo has boxes with classes unknown to EMOTIC: 'dog' (1), 'person (crowd)' (1); they are" in said


def test_without_any_known_word_one_is_shown(tmp_path: Path) -> None:
    content = json.loads(json.dumps(COCO).replace("Happiness", "joy").replace("peace", "calm").replace("anger", "rage"))
    (tmp_path / "people.json").write_text(json.dumps(content))
    export = find_export(tmp_path)
    assert export is not None and export.form == "coco"
    with pytest.raises(
        AnnotationsError, match=r"people\.json: none of its words is a label, found 'calm' \(1\), 'dog'"
    ):
        read_export(export, CATEGORIES)
    people = read_export(export, ("Joy", "Rage", "Calm")).people.photos[0].people
    assert [person.categories for person in people] == [("joy", "calm"), ("rage",)]


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        (
            "a.json",
            '{"images": [{"id": 1}], "annotations": [], "categories": []}',
            "images.0.file_name is missing; exp",
        ),
        (
            "a.json",
            '{"images": [], "annotations": [{"image_id": 1, "category_id": 1}], "categories": []}',
            "image 1, wh",
        ),
        ("a.json", '{"images": ', "not JSON"),
        ("a.json", '[{"data": {"size": "x"}}]', "0.data has no path of a photo"),
        ("a.xml", "<annotations><track/></annotations>", "tracks of 'CVAT for video', expected <annotations> of"),
        ("a.xml", '<annotations><image name="a" width="x" height="1"/></annotations>', "width of <image> is 'x', exp"),
        ("a.xml", "<annotation><filename>a</filename><object/></annotation>", "an <object> has no <bndbox>"),
        ("a.xml", "<annotations><image>", "not XML"),
        ("a.xml", '<!DOCTYPE x [<!ENTITY a "b">]><annotations>&a;</annotations>', "has a document type (<!DOCTYPE x>"),
    ],
)
def test_a_file_that_cannot_be_read_is_named_with_what_was_expected(
    tmp_path: Path, name: str, text: str, message: str
) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(AnnotationsError) as error:
        run_parse(ParseConfig(emotic_root=tmp_path, out=tmp_path / "out"))
    assert str(error.value).startswith(f"{tmp_path / name}: ") and message in str(error.value)


def test_the_format_that_was_given_is_expected(tmp_path: Path) -> None:
    path = _write_export(tmp_path / "in", "coco")
    with pytest.raises(AnnotationsError, match=r"people\.json: found the form coco, expected cvat; known are COCO"):
        run_parse(ParseConfig(emotic_root=tmp_path, annotations=path, format="cvat", out=tmp_path / "out"))
    with pytest.raises(AnnotationsError, match="no such file or folder"):
        run_parse(ParseConfig(emotic_root=tmp_path, annotations=tmp_path / "no", format="voc", out=tmp_path / "out"))


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("9 0.5 0.5 1 1", "line 1 is of class 9, but there are only 4"),
        ("1 0.5 x", "line 1 is '1 0.5 x', expected cl"),
        ("1 0 0 1 0 1 1", "line 1 is '1 0 0 1 0 1 1', expected class x"),
    ],
)
def test_lines_of_yolo_are_checked(tmp_path: Path, line: str, message: str) -> None:
    root = _write_export(tmp_path / "in", "yolo")
    (root / "labels/val/a.txt").write_text(line)
    with pytest.raises(AnnotationsError, match=message):
        run_parse(ParseConfig(emotic_root=root, out=tmp_path / "out"))
    (root / "images/val/a.jpg").unlink()
    with pytest.raises(AnnotationsError, match=r"a\.txt: its photo is missing, looked for .*images/val/a\.jpg and"):
        run_parse(ParseConfig(emotic_root=root, out=tmp_path / "out"))


def test_yolo_may_be_named_by_its_file_of_classes(tmp_path: Path) -> None:
    root = _write_export(tmp_path / "in", "yolo")
    export = find_export(root / "data.yaml")
    assert export is not None and export == find_export(root) and export.path == root


def test_classes_of_yolo(tmp_path: Path) -> None:
    for name, text in (
        ("data.yaml", "nc: 2\nnames: [a b, 'c']"),
        ("data.yaml", "names:\n- a b\n- c"),
        ("classes.txt", "a b\nc\n"),
    ):
        (tmp_path / name).write_text(text)
        assert read_classes(tmp_path / name) == {0: "a b", 1: "c"}
    for text in ("nc: 2", "names: 3", "[a", "- a"):
        (tmp_path / "data.yaml").write_text(text)
        with pytest.raises(AnnotationsError, match=r"data\.yaml: no"):
            read_classes(tmp_path / "data.yaml")


def test_label_names_are_checked(tmp_path: Path) -> None:
    path = tmp_path / "labels.txt"
    path.write_text("\ufeffCalm\n\n Very tense \n", encoding="utf-8")
    assert read_data_labels(path) == ("Calm", "Very tense")
    for text, message in (
        ("Calm\n", "1 labels, expected 2 to 1000"),
        ("Calm\ncalm!\n", "'Calm' and 'calm!' are the same label"),
        ("Calm\n--\n", "the label '--' has no letter and no digit"),
    ):
        path.write_text(text)
        with pytest.raises(SettingsError, match=message):
            read_data_labels(path)
