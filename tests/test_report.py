"""The report job and its charts, on six people whose figures are worked out by hand."""

from __future__ import annotations

import base64
import csv
import json
import re
import runpy
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from emoface.datasets.photos import PhotoFolder
from emoface.errors import SettingsError, TableError
from emoface.jobs.report import ReportConfig, run_report
from emoface.jobs.split import SplitConfig, run_split
from emoface.reporting.charts import write_co_occurrence, write_label_histogram
from emoface.reporting.thumbnails import thumbnail_of_body
from emoface.schema import CATEGORIES, FACES_SCHEMA, PEOPLE_SCHEMA
from emoface.storage.records import JobRecord, read_record, write_record
from emoface.storage.tables import write_table

GREEN = (0, 200, 0)

# photo, EMOTIC's split, labels, face status; the second photo is taller than wide.
PEOPLE = [
    ("mscoco/images/a.jpg", "train", ["Engagement", "Happiness"], "found"),
    ("mscoco/images/a.jpg", "train", ["Engagement"], "no_face"),
    ("framesdb/images/b.jpg", "train", ["Engagement", "Anger"], "found"),
    ("framesdb/images/c.jpg", "val", ["Engagement", "Happiness"], "found"),
    ("ade20k/images/d.jpg", "test", [], "image_missing"),
    ("mscoco/images/e.jpg", "test", ["Happiness"], "other_person"),
]


def _write_people(
    out: Path, people: list[tuple[str, str, list[str], str]] = PEOPLE, same_as: dict[int, int] | None = None
) -> list[str]:
    """``same_as`` names, for some rows, the earlier row of the same person."""
    rows: list[dict[str, Any]] = []
    for index, (image, source_split, categories, _) in enumerate(people):
        labels = [int(name in categories) for name in CATEGORIES]
        number = sum(row["image"] == image for row in rows)
        rows.append(
            {
                "index": index,
                "person_id": f"{image}#{number}",
                "image": image,
                "source": image.split("/")[0],
                "source_split": source_split,
                "image_wh": [60, 90],
                "body_bbox": [10, 20, 40, 80],
                "categories": categories,
                "labels": labels,
                "annotator_votes": labels,
                "n_annotators": 1,
                "same_person_as": (same_as or {}).get(index),
            }
        )
    write_table(out / "people.parquet", pa.Table.from_pylist(rows, schema=PEOPLE_SCHEMA), PEOPLE_SCHEMA)
    info = {"image_root": str(out / "photos"), "annotations": {"path": "Annotations.mat", "sha256": "ab" * 32}}
    write_record(out, JobRecord("parse", {}, {}, {}, {}, info))
    return [row["person_id"] for row in rows]


def _write_faces(out: Path, person_ids: list[str], statuses: list[str], face: bytes | None = None) -> None:
    crop = face or cv2.imencode(".png", np.full((12, 12, 3), GREEN, np.uint8))[1].tobytes()
    rows = []
    for index, (person_id, status) in enumerate(zip(person_ids, statuses, strict=True)):
        row: dict[str, Any] = {"index": index, "person_id": person_id, "face_status": status}
        if status == "found":
            row |= {
                "face": {"bytes": crop, "path": f"{person_id}.jpg"},
                "face_bbox": [5, 5, 5 + 10 * (index + 1), 105],
                "landmarks": [6.0] * 10,
                "conf": 0.5 + index / 10,
                "assignment_margin": 5 - index,
            }
        rows.append(row)
    write_table(out / "faces.parquet", pa.Table.from_pylist(rows, schema=FACES_SCHEMA), FACES_SCHEMA, row_group_size=2)
    info = {"detector": "yolov5n-face", "weights_sha256": "cd" * 32, "conf_threshold": 0.5}
    write_record(out, JobRecord("faces", {}, {}, {}, {}, info))


def _write_folder(out: Path) -> None:
    """People, faces and one photo (of the person whose face is somebody else's); no splits, no notes."""
    person_ids = _write_people(out)
    _write_faces(out, person_ids, [person[3] for person in PEOPLE])
    photo_path = out / "photos" / "mscoco" / "images" / "e.jpg"
    photo_path.parent.mkdir(parents=True)
    cv2.imwrite(str(photo_path), np.full((90, 60, 3), GREEN, np.uint8))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    _write_folder(tmp_path / "work")
    return tmp_path / "work"


@pytest.fixture(scope="module")
def reported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same folder with its report, to be read only."""
    out = tmp_path_factory.mktemp("reported") / "work"
    _write_folder(out)
    run_report(ReportConfig(dir=out))
    return out


def _read_audit(folder: Path) -> dict[str, Any]:
    audit: dict[str, Any] = json.loads((folder / "report" / "audit.json").read_text(encoding="utf-8"))
    return audit


def _read_page(folder: Path) -> str:
    return (folder / "report" / "audit.html").read_text(encoding="utf-8")


def test_audit_measures_labels_before_and_after(reported: Path) -> None:
    before, after = (_read_audit(reported)["labels"][side] for side in ("before", "after"))
    # Engagement 4, Happiness 3, Anger 1 of six people; 3, 2, 1 of the three with a face.
    assert (before["people"], before["people_without_labels"]) == (6, 1)
    assert {name: count for name, count in before["label_counts"].items() if count} == {
        "Anger": 1,
        "Engagement": 4,
        "Happiness": 3,
    }
    assert before["label_cardinality"] == pytest.approx(8 / 6, abs=1e-6)
    assert before["label_density"] == pytest.approx(8 / 6 / 26, abs=1e-6)
    assert before["imbalance_ratios"]["Anger"] == 4
    assert before["imbalance_ratios"]["Pain"] is None
    assert before["mean_imbalance_ratio"] == pytest.approx((1 + 4 / 3 + 4) / 3, abs=1e-6)
    assert after["people"] == 3
    assert after["label_cardinality"] == 2
    assert after["mean_imbalance_ratio"] == pytest.approx((1 + 1.5 + 3) / 3, abs=1e-6)
    engagement, happiness = CATEGORIES.index("Engagement"), CATEGORIES.index("Happiness")
    assert before["co_occurrence"][engagement][happiness] == 2
    assert after["co_occurrence"][engagement][engagement] == 3


def test_audit_counts_empties_by_reason_source_and_split(reported: Path) -> None:
    faces = _read_audit(reported)["faces"]
    assert (faces["people"], faces["found"], faces["empty"], faces["empty_share"]) == (6, 3, 3, 0.5)
    assert faces["by_reason"] == {
        "no_face": 1,
        "other_person": 1,
        "too_small": 0,
        "image_missing": 1,
        "image_unreadable": 0,
    }
    assert faces["by_source"]["mscoco"]["empty"] == 2
    assert faces["by_source"]["emodb_small"] == {
        "people": 0,
        "found": 0,
        "empty": 0,
        "empty_share": None,
        "by_reason": dict.fromkeys(faces["by_reason"], 0),
    }
    assert {name: group["empty"] for name, group in faces["by_source_split"].items()} == {
        "train": 1,
        "val": 0,
        "test": 2,
    }
    # Faces are 10, 30 and 40 pixels wide and 100 high, scored 0.5, 0.7 and 0.8.
    assert [faces["shorter_side_quantiles"][share] for share in ("0", "0.5", "1")] == [10, 30, 40]
    assert faces["conf_quantiles"]["0.5"] == pytest.approx(0.7)


def test_histogram_tables_hold_both_data_sets_per_split(reported: Path) -> None:
    with (reported / "report" / "label_histogram.csv").open(encoding="utf-8") as stream:
        rows = {row["label"]: row for row in csv.DictReader(stream)}
    assert list(rows) == list(CATEGORIES)
    assert rows["Happiness"] == {"label": "Happiness", "EMOTIC": "3", "EMOTIC_Face": "2"}
    text = (reported / "report" / "label_histogram_test.csv").read_text(encoding="utf-8")
    assert "Happiness,1,0" in text
    for stem in ("label_histogram", "label_histogram_train", "label_histogram_val", "co_occurrence"):
        assert (reported / "report" / f"{stem}.png").read_bytes().startswith(b"\x89PNG")
        assert "</svg>" in (reported / "report" / f"{stem}.svg").read_text(encoding="utf-8")


def test_people_alone_are_enough_and_the_page_says_what_is_missing(tmp_path: Path) -> None:
    out = tmp_path / "work"
    _write_people(out)
    record = run_report(ReportConfig(dir=out))
    audit, page = _read_audit(out), _read_page(out)
    assert audit["faces"] is None
    assert audit["labels"]["after"] is None
    assert audit["parse_notes"] is None
    assert [gap["command"] for gap in audit["gaps"]] == [
        "emoface faces work",
        "emoface split work",
        "emoface parse EMOTIC_ROOT --out work",
    ]
    for gap in audit["gaps"]:
        assert f"<code>{gap['command']}</code>" in page
    assert record.counts["people"] == 6
    assert "faces" not in record.counts
    assert audit["split"]["is_own"] is False
    assert audit["split"]["people"] == {"train": 3, "val": 1, "test": 2}


def test_no_people_at_all(tmp_path: Path) -> None:
    _write_faces(tmp_path, _write_people(tmp_path, []), [])
    run_report(ReportConfig(dir=tmp_path))
    audit = _read_audit(tmp_path)
    assert audit["labels"]["before"]["label_cardinality"] is None
    assert audit["faces"]["empty_share"] is None
    assert audit["split"]["largest_deviation"] is None
    assert "There are no people" in _read_page(tmp_path)


@pytest.mark.usefixtures("plain_charts")
def test_splits_are_read_through_the_manifest_and_held_against_their_target(folder: Path) -> None:
    people = [(f"mscoco/images/{k}.jpg", "train", ["Engagement"], "found") for k in range(100)]
    _write_faces(folder, _write_people(folder, people), ["found"] * 100)
    run_split(SplitConfig(dir=folder, by="emotic"))
    run_report(ReportConfig(dir=folder))
    split = _read_audit(folder)["split"]
    assert split["is_own"] is True
    assert split["people_shares"] == {"train": 1, "val": 0, "test": 0}
    assert split["largest_deviation"] == {
        "labels_judged": 1,
        "label": "Engagement",
        "split": "train",
        "share": 1,
        "target": 0.7,
        "deviation": 0.3,
    }
    assert split["label_shares"]["Pain"] == {"train": None, "val": None, "test": None}


@pytest.mark.usefixtures("plain_charts")
def test_splits_of_older_faces_are_named_as_out_of_date(folder: Path) -> None:
    run_split(SplitConfig(dir=folder))
    run_report(ReportConfig(dir=folder))
    assert [gap["command"] for gap in _read_audit(folder)["gaps"]] == ["emoface parse EMOTIC_ROOT --out work"]
    _write_faces(folder, [row["person_id"] for row in _rows(folder)], ["found"] * 6)
    run_report(ReportConfig(dir=folder))
    assert "emoface split work" in [gap["command"] for gap in _read_audit(folder)["gaps"]]


def _rows(folder: Path) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = pq.read_table(folder / "people.parquet").to_pylist()
    return rows


@pytest.mark.usefixtures("plain_charts")
def test_parse_notes_are_counted_by_kind_and_the_first_are_shown(folder: Path) -> None:
    text = "person_id,what,before,after\na.jpg#0,clipped_box,-4,0\nb.jpg#1,clipped_box,-1,0\nc.jpg#0,<b>odd</b>,x,\n"
    (folder / "parse_notes.csv").write_text(text, encoding="utf-8")
    run_report(ReportConfig(dir=folder))
    assert _read_audit(folder)["parse_notes"] == {"notes": 3, "by_kind": {"clipped_box": 2, "<b>odd</b>": 1}}
    page = _read_page(folder)
    assert "a.jpg#0" in page
    assert "&lt;b&gt;odd&lt;/b&gt;" in page
    assert "<b>odd</b>" not in page


class _Addresses(HTMLParser):
    """Collects what a page points to, and pictures without a text."""

    def __init__(self) -> None:
        super().__init__()
        self.addresses: list[str] = []
        self.pictures: list[dict[str, str | None]] = []
        self.tags: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.addresses += [value or "" for name, value in attrs if name in ("src", "href", "srcset", "action")]
        if tag == "img":
            self.pictures.append(dict(attrs))


def test_page_needs_no_network_and_every_picture_has_a_text(reported: Path) -> None:
    page = _read_page(reported)
    parser = _Addresses()
    parser.feed(page)
    assert all(address.startswith(("#", "data:image/jpeg;base64,")) for address in parser.addresses)
    assert not re.search(r"url\(|@import", page)
    assert not {"script", "link", "iframe", "object"} & parser.tags
    # Three faces, the one empty whose photo is here, the faces again by sharpness and by brightness, and of each label.
    assert len(parser.pictures) == 3 + 1 + 2 * 3 + (3 + 2 + 1)
    assert all(picture.get("alt") for picture in parser.pictures)
    assert page.count('class="no-picture"') == 2 + 3  # two empties, and the bodies of the three faces
    assert page.count("photo not here") >= 2
    ids = set(re.findall(r'id="([^"]+)"', page))
    assert {address[1:] for address in parser.addresses if address.startswith("#")} <= ids


@pytest.mark.usefixtures("plain_charts")
def test_contact_sheet_shows_the_crop_and_survives_a_broken_one(folder: Path) -> None:
    person_ids = [row["person_id"] for row in _rows(folder)]
    _write_faces(folder, person_ids, [person[3] for person in PEOPLE], face=b"no picture")
    run_report(ReportConfig(dir=folder))
    assert _read_page(folder).count("the crop cannot be decoded") >= 3


# --- the least certain faces -----------------------------------------------------------------------------------------


@pytest.mark.usefixtures("plain_charts")
def test_margins_are_counted_and_the_smallest_are_shown_each_person_once(folder: Path) -> None:
    """Margins are 5, 4, 3, 2, 1, 0 by row; row 5 is the person of row 3."""
    _write_faces(folder, _write_people(folder, PEOPLE, {5: 3}), ["found", "found", "no_face", "found", *["found"] * 2])
    run_report(ReportConfig(dir=folder))
    margins = _read_audit(folder)["faces"]["assignment_margin"]
    assert margins["quantiles"]["0.5"] == 2 and margins["quantiles"]["1"] == 5
    assert [one["people"] for one in margins["histogram"]] == [1, 1, 1, 0, 1, 1]
    assert [(one["from"], one["to"]) for one in margins["histogram"]][-1] == (5, 6)
    assert [(one["index"], one["margin"]) for one in margins["least_certain"]] == [(4, 1), (3, 2), (1, 4), (0, 5)]
    page = _read_page(folder)
    assert "The 4 least certain faces" in page
    assert re.findall(r"<b>margin ([\d.]+)</b>", page) == ["1.00", "2.00", "4.00", "5.00"]


@pytest.mark.usefixtures("plain_charts")
def test_only_the_least_certain_faces_are_shown(tmp_path: Path) -> None:
    people = [(f"mscoco/images/{k}.jpg", "train", ["Engagement"], "found") for k in range(60)]
    _write_faces(tmp_path, _write_people(tmp_path, people), ["found"] * 60)
    run_report(ReportConfig(dir=tmp_path))
    margins = _read_audit(tmp_path)["faces"]["assignment_margin"]
    assert [one["index"] for one in margins["least_certain"]] == list(range(59, 59 - 24, -1))


def test_thumbnail_of_a_body_shows_the_face_box_even_outside_the_body(tmp_path: Path) -> None:
    """A photo of 60 x 90; the body is 10 to 40 and 20 to 80, the face 4 to 24 and 10 to 30."""
    cv2.imwrite(str(tmp_path / "a.png"), np.full((90, 60, 3), GREEN, np.uint8))
    person = {"image": "a.png", "image_wh": [60, 90], "body_bbox": [10, 20, 40, 80]}
    plain = _decode(thumbnail_of_body(person, PhotoFolder(tmp_path)))
    drawn = _decode(thumbnail_of_body(person, PhotoFolder(tmp_path), (4, 10, 24, 30)))
    assert plain.shape == (60, 30, 3) and drawn.shape == (70, 36, 3)
    is_green = (np.abs(drawn.astype(int) - GREEN) < 60).all(axis=2)
    assert is_green[40:].all() and is_green[6:14, 6:14].all()  # below the box, and inside it
    assert not is_green[5:15, 19:22].all(axis=1).any()  # its right side
    assert thumbnail_of_body(person, None, (4, 10, 24, 30)) == {"problem": "photo not here"}


def _decode(card: dict[str, str]) -> np.ndarray:
    data = np.frombuffer(base64.b64decode(card["picture"].partition(",")[2]), np.uint8)
    return np.asarray(cv2.imdecode(data, cv2.IMREAD_COLOR))


# --- people who are annotated more than once -------------------------------------------------------------------------

# Rows 3 and 4 (val and test) are the people of rows 0 and 2 (train); row 1 is the person of row 0 too.
SAME_AS = {1: 0, 3: 0, 4: 2}


@pytest.mark.usefixtures("plain_charts")
def test_people_annotated_again_are_counted_before_the_split(folder: Path) -> None:
    _write_people(folder, PEOPLE, SAME_AS)
    people = pq.read_table(folder / "people.parquet").to_pylist()
    people[4]["body_bbox"] = [10, 20, 40, 81]
    write_table(folder / "people.parquet", pa.Table.from_pylist(people, schema=PEOPLE_SCHEMA), PEOPLE_SCHEMA)
    run_report(ReportConfig(dir=folder))
    assert _read_audit(folder)["annotated_again"] == {
        "rows": 3,
        "people": 2,
        "nearly_equal_boxes": 1,
        "by_source_splits": {"train and test": 1, "train and val": 1, "within a split": 1},
        "source_splits": {
            "val": {"people": 1, "in_train": 1, "share": 1},
            "test": {"people": 2, "in_train": 1, "share": 0.5},
        },
        "split": None,
        "would_leave_out": {"stratified": 3, "emotic": 3},
    }
    page = " ".join(_read_page(folder).split())
    assert "the same body box or, in 1 of them, nearly the same box, gender and age" in page
    assert "will have each person once and leave 3 rows out; with <code>--by emotic</code> it will leave 3 rows" in page


@pytest.mark.usefixtures("plain_charts")
def test_people_of_val_and_test_left_in_train_are_warned_of(folder: Path) -> None:
    _write_people(folder, PEOPLE, SAME_AS)
    run_split(SplitConfig(dir=folder, by="emotic", leaks="keep"))
    run_report(ReportConfig(dir=folder))
    split = _read_audit(folder)["annotated_again"]["split"]
    assert (split["rule"], split["rows_left_out"], split["rows_again_in_their_split"]) == ("keep", 0, 1)
    assert {name: group["in_train"] for name, group in split["splits"].items()} == {"val": 1, "test": 1}
    page = " ".join(_read_page(folder).split())
    assert "Train contains people of val (1 of 1) and test (1 of 2)." in page
    assert 'class="warning"' in page and "<code>--leaks keep</code>; run <code>emoface split</code>" in page

    run_split(SplitConfig(dir=folder, by="emotic"))
    run_report(ReportConfig(dir=folder))
    split = _read_audit(folder)["annotated_again"]["split"]
    assert (split["by"], split["rule"], split["rows_left_out"]) == ("emotic", "drop", 3)
    assert {name: group["in_train"] for name, group in split["splits"].items()} == {"val": 0, "test": 0}
    page = " ".join(_read_page(folder).split())
    assert "left 3 rows of their people out of train; <code>left_out.csv</code> lists them" in page
    assert 'class="warning"' not in page


@pytest.mark.usefixtures("plain_charts")
@pytest.mark.parametrize(
    ("labels", "text"), [("evaluation", "labels of val or test, which"), ("train", "labels of the one annotator")]
)
def test_page_says_whose_labels_a_stratified_split_kept(folder: Path, labels: Any, text: str) -> None:
    _write_people(folder, PEOPLE, SAME_AS)
    run_split(SplitConfig(dir=folder, repeated_labels=labels))
    run_report(ReportConfig(dir=folder))
    page = " ".join(_read_page(folder).split())
    assert "it left 3 rows out and kept the row with the " + text in page


def test_data_set_without_repeated_people_says_so(reported: Path) -> None:
    assert "No person is annotated more than once." in _read_page(reported)
    assert _read_audit(reported)["annotated_again"]["rows"] == 0


@pytest.mark.usefixtures("plain_charts")
def test_same_seed_gives_the_same_bytes_and_another_seed_another_sheet(tmp_path: Path) -> None:
    people = [(f"mscoco/images/{k}.jpg", "train", ["Engagement"], "found") for k in range(60)]
    _write_faces(tmp_path, _write_people(tmp_path, people), ["found"] * 60)
    first = run_report(ReportConfig(dir=tmp_path))
    page = _read_page(tmp_path)
    assert run_report(ReportConfig(dir=tmp_path)) == first
    other = run_report(ReportConfig(dir=tmp_path, seed=1))
    assert _read_page(tmp_path) != page
    page_name = "report/audit.html"
    assert {name for name in first.outputs if first.outputs[name] != other.outputs[name]} == {page_name}
    assert read_record(tmp_path, "report") == other


def test_page_names_the_detector_and_its_weights(reported: Path) -> None:
    page = _read_page(reported)
    assert "yolov5n-face" in page
    assert "cd" * 32 in page


def test_faces_of_other_people_are_refused(folder: Path) -> None:
    _write_faces(folder, ["x#0", *[row["person_id"] for row in _rows(folder)][1:]], ["no_face"] * 6)
    with pytest.raises(TableError, match=r"faces.parquet: its 6 rows are not the 6 people.*emoface faces"):
        run_report(ReportConfig(dir=folder))


def test_missing_people_are_refused(tmp_path: Path) -> None:
    with pytest.raises(TableError, match=r"people.parquet: no such file.*emoface parse"):
        run_report(ReportConfig(dir=tmp_path))


def test_notes_with_other_columns_are_refused(folder: Path) -> None:
    (folder / "parse_notes.csv").write_text("a,b\n1,2\n", encoding="utf-8")
    with pytest.raises(TableError, match=r"parse_notes.csv: expected the columns person_id, what.*found a, b"):
        run_report(ReportConfig(dir=folder))


def test_negative_seed_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="seed is -1, expected 0 or more"):
        ReportConfig(dir=tmp_path, seed=-1)


def test_charts_of_nothing_and_same_bytes_twice(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_label_histogram(tmp_path / name, "People", ["x", "y"], {"none": [0, 0], "some": [3, 1]})
        write_co_occurrence(tmp_path / f"{name}2", "Together", ["x", "y"], {"all": np.full((2, 2), np.nan)})
    for suffix in (".png", ".svg", "2.png", "2.svg"):
        assert (tmp_path / f"a{suffix}").read_bytes() == (tmp_path / f"b{suffix}").read_bytes()
    assert ">some<" in (tmp_path / "a.svg").read_text(encoding="utf-8").replace("\n", "")


@pytest.mark.usefixtures("plain_charts")
def test_emotic_rows_show_the_thesis_figure(shared_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Figure 4-1: Engagement far ahead, then Anticipation and Happiness; a long tail below 1,000."""
    script = Path(__file__).parents[1] / "docs" / "benchmarks" / "audit_emotic.py"
    monkeypatch.setattr(sys, "argv", [str(script), str(shared_dir / "emotic"), "--out", str(tmp_path)])
    runpy.run_path(str(script), run_name="__main__")
    counts = _read_audit(tmp_path)["labels"]["before"]["label_counts"]
    order = sorted(counts, key=lambda name: -counts[name])
    assert order[:5] == ["Engagement", "Anticipation", "Happiness", "Excitement", "Confidence"]
    assert counts["Engagement"] > 1.8 * counts["Anticipation"]
    assert sum(count < 1000 for count in counts.values()) == 10
