"""Names and texts of others that try to become code: in pages, in pictures and in spreadsheets."""

from __future__ import annotations

import csv
import io
import json
import xml.etree.ElementTree as ET
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from mter_data import write_photos_and_tables
from run_data import write_finished_run

from emoface.datasets.prediction_export import write_prediction_file
from emoface.datasets.prediction_files import read_prediction_file
from emoface.datasets.predictions import Predictions
from emoface.emotic.csv_files import COLUMNS
from emoface.jobs.compare import CompareConfig, run_compare
from emoface.jobs.evaluate import EvaluateConfig, run_evaluate
from emoface.jobs.faces import _write_empty_faces
from emoface.jobs.parse import ParseConfig, run_parse
from emoface.jobs.report import ReportConfig, run_report
from emoface.jobs.split import SplitConfig, run_split
from emoface.reporting import evaluation_page
from emoface.reporting.audit_page import write_audit_page
from emoface.reporting.charts import Bars, write_precision_bars, write_training_curves
from emoface.reporting.evaluation_page import write_evaluation_page
from emoface.reporting.published import read_published_results
from emoface.schema import CATEGORIES, FACES_SCHEMA
from emoface.storage.array_files import read_arrays
from emoface.storage.csv_files import csv_text, restore
from emoface.storage.records import JobRecord, write_record
from emoface.storage.tables import write_table
from emoface.vision.images import encode_jpeg

EVIL = "<script>alert(1)</script><img src=x onerror=alert(2)>\"'&"
EVIL_NAME = "_$<script>alert(1)<!--\"' onerror=x &amp;$"
"""The same in the name of a file, with what matplotlib reads as a formula and as a series to be hidden."""


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.set_num_threads(1)
    return write_photos_and_tables(tmp_path_factory.mktemp("data"), 24)


@pytest.fixture(scope="module")
def runs(manifest: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two evaluated runs with hostile names and their comparison; to be read only."""
    root = tmp_path_factory.mktemp("runs")
    paths = [write_finished_run(root / name, manifest, "task2", seed=n) for n, name in enumerate((EVIL_NAME, "=1+1"))]
    for path in paths:
        run_evaluate(EvaluateConfig(run=path, draws=5))
    run_compare(CompareConfig(runs=tuple(paths), out=root / "comparison", draws=5))
    return root


class _Structure(HTMLParser):
    """Collects the elements of a page with their attributes; of those that hold text, such as ``alt``, the names."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.elements: list[tuple[Any, ...]] = []
        self.text = ""
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        of_text = ("alt", "aria-label", "src")
        self.elements.append((tag, *((name, "" if name in of_text else value) for name, value in attrs)))

    def handle_decl(self, decl: str) -> None:
        self.elements.append(("!", decl))

    def handle_comment(self, data: str) -> None:
        self.elements.append(("!--", data))

    def handle_data(self, data: str) -> None:
        self.text += data


def _spoil(value: Any, text: str, keys: tuple[str, ...] = ()) -> Any:
    """Adds a text to every text of a JSON value, and to the keys of the objects with the given names."""
    if isinstance(value, dict):
        spoilt = {name: _spoil(one, text, keys) for name, one in value.items()}
        for name in keys:
            if isinstance(spoilt.get(name), dict):
                spoilt[name] = {f"{key}{text}": one for key, one in spoilt[name].items()}
        return spoilt
    if isinstance(value, list):
        return [_spoil(one, text, keys) for one in value]
    return f"{value}{text}" if isinstance(value, str) else value


def _check_same_elements(hostile: str, harmless: str, text: str = EVIL) -> None:
    """The hostile page has the elements and attributes of the harmless one, and shows the text."""
    found, expected = _Structure(hostile), _Structure(harmless)
    assert found.elements == expected.elements
    assert "script" not in [tag for tag, *_ in found.elements] and "<script" not in hostile
    assert text in found.text


def test_audit_page_escapes_every_text(manifest: Path, tmp_path: Path) -> None:
    run_report(ReportConfig(dir=manifest.parent))
    audit = json.loads((manifest.parent / "report" / "audit.json").read_text(encoding="utf-8"))
    audit["parse_notes"] = {"notes": 1, "by_kind": {"photo_missing": 1}}
    audit["gaps"] = [{"what": "A table is missing.", "command": "emoface parse"}]
    card = {"person_id": "a.jpg#0", "categories": ["Anger"], "margin": 1.0, "conf": 0.5, "reason": "no_face"}
    cards = {
        "faces": [card | {"problem": "photo not here"}],
        "empties": [card | {"picture": "data:image/jpeg;base64,"}],
    }
    photo = {"image": "a.jpg", "splits": ["train"], "different_bits": 1, "problem": "photo not here"}
    measured = card | {"value": 1.0, "problem": "the crop is missing"}
    sheets = {
        **cards,
        "uncertain": [card | {"problem": "photo cannot be read"}],
        **{"blurred": [measured], "dark": [measured], "duplicates": [[photo, photo]], "label_errors": []},
        "examples": {name: [card | {"problem": "photo not here"}] for name in audit["label_names"]},
    }
    notes = [{"person_id": "a.jpg#0", "what": "category_unknown", "before": "b", "after": "c"}]
    texts = {}
    keys = ("by_source", "by_source_split", "by_kind", "people_by_source", "source_splits")
    for name, text in (("hostile", EVIL), ("harmless", "x")):
        spoilt = _spoil(audit, text, keys)
        for part in ("label_names", "labels", "split"):  # these names are the product's own
            spoilt[part] = audit[part]
        path = tmp_path / f"{name}.html"
        write_audit_page(path, spoilt, _spoil(sheets, text), _spoil(notes, text))
        texts[name] = path.read_text(encoding="utf-8")
    _check_same_elements(texts["hostile"], texts["harmless"])
    shown = _Structure(texts["hostile"]).text
    for part in ("a.jpg#0", "category_unknown", "photo_missing", "framesdb", "A table is missing."):
        assert part + EVIL in shown


def test_evaluation_page_escapes_every_text(runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    metrics = json.loads((runs / "=1+1" / "eval" / "test" / "metrics.json").read_text(encoding="utf-8"))
    metrics["warnings"] = ["the labels were shuffled"]
    metrics["protocol"] = {"name": "stratified", "rules": [{"rule": "a rule", "found": "kept"}]}
    published = read_published_results()
    per_label = next(one for one in published if one.average_precision is not None)
    texts = {}
    for name, text in (("hostile", EVIL), ("harmless", "x")):
        spoilt = _spoil({key: value for key, value in metrics.items() if key != "published"}, text)
        spoilt["published"] = {**metrics["published"], "notes": [f"a note{text}"], "n_missing": 1, "chance_level": 0.1}
        of_published = ("name", "system", "source", "note", "code")
        changes = {key: f"{getattr(per_label, key)}{text}" for key in of_published}
        shown = [per_label.model_copy(update=changes)]
        monkeypatch.setattr(evaluation_page, "choose_shown", lambda _, shown=shown: shown)
        path = tmp_path / f"{name}.html"
        write_evaluation_page(path, spoilt, _charts(tmp_path))
        texts[name] = path.read_text(encoding="utf-8")
    _check_same_elements(texts["hostile"], texts["harmless"])
    shown_text = _Structure(texts["hostile"]).text
    for part in (metrics["model"], metrics["manifest"]["path"], "a note", "a rule", "shuffled", per_label.system):
        assert part + EVIL in shown_text


def _charts(folder: Path) -> list[Path]:
    paths = [folder / "average_precision.svg", folder / "precision_recall.svg"]
    for path in paths:
        path.write_text("<svg/>")
    return paths


def test_comparison_escapes_the_names_of_runs(runs: Path, manifest: Path, tmp_path: Path) -> None:
    """The names of the runs are those of their folders."""
    page = (runs / "comparison" / "comparison.html").read_text(encoding="utf-8")
    plain = [tmp_path / "a", tmp_path / "b"]
    for path, name in zip(plain, (EVIL_NAME, "=1+1"), strict=True):
        (runs / name).rename(path)
    try:
        run_compare(CompareConfig(runs=tuple(plain), out=tmp_path / "comparison", draws=5))
    finally:
        for path, name in zip(plain, (EVIL_NAME, "=1+1"), strict=True):
            path.rename(runs / name)
    harmless = (tmp_path / "comparison" / "comparison.html").read_text(encoding="utf-8")
    _check_same_elements(page, harmless, EVIL_NAME)
    for chart in ("training", "average_precision"):
        _check_svg(runs / "comparison" / f"{chart}.svg", EVIL_NAME, "=1+1")


def _check_svg(path: Path, *texts: str) -> None:
    """The picture is well-formed, has no script or foreign attribute, and shows the texts as they are."""
    root = ET.parse(path).getroot()
    tags = {part.tag.rpartition("}")[2] for part in root.iter()}
    assert not tags & {"script", "img", "foreignObject", "a"}
    assert not [name for part in root.iter() for name in part.attrib if name.lower().startswith("on")]
    shown = [part.text or "" for part in root.iter() if part.tag.endswith("}text")]
    for text in texts:
        assert any(text in one for one in shown), (text, shown)


@pytest.mark.parametrize("name", [EVIL, EVIL_NAME, "_hidden", "$\\frac{$", "a\x00\x1b[31m\udcb8b", "지단", "x\ny", ""])
@pytest.mark.filterwarnings("error")
def test_charts_show_any_name_as_it_is(tmp_path: Path, name: str) -> None:
    values = np.full(len(CATEGORIES), 0.5)
    bars = {series: Bars(values, values, values) for series in (name, "other")}
    write_precision_bars(tmp_path / "bars", name, CATEGORIES, bars)
    write_training_curves(tmp_path / "curves", name, {name: {name: ([1, 2], [3, 4])}}, "epoch")
    shown = "".join(sign if sign.isprintable() else "\ufffd" for sign in name)
    for path in (tmp_path / "bars.svg", tmp_path / "curves.svg"):
        _check_svg(path, shown)
        assert path.with_suffix(".png").stat().st_size > 1000


FORMULAS = ["=HYPERLINK(0)", "+1+cmd|' /C calc'!A0", "-2+3", "@SUM(1)", "\t=1", "\r=1", "\n=1", "＝1+1", "'=1", "''-x"]
PLAIN = ["a.jpg#0", "it's", "'quoted'", "", "x=1", "-5", "+1e-3", "-5 -6.5 700 401", "1.0"]


def test_no_cell_is_a_formula_and_every_text_comes_back() -> None:
    text = csv_text(["=head", "value"], [[one, -0.5] for one in [*FORMULAS, *PLAIN]] + [[None, None]])
    head, *rows, last = list(csv.reader(io.StringIO(text, newline="")))
    assert head == ["'=head", "value"] and last == ["", ""]
    assert [row[0] for row in rows[len(FORMULAS) :]] == PLAIN and {row[1] for row in rows} == {"-0.5"}
    assert all(row[0] == "'" + one for row, one in zip(rows, FORMULAS, strict=False))
    assert [restore(row[0]) for row in rows] == [*FORMULAS, *PLAIN]


def test_tables_of_every_job_have_no_formula_and_are_read_back(tmp_path: Path) -> None:
    """A photo whose name is a formula goes through parse, faces, split and report, and its predictions out and in."""
    names = [name for name in FORMULAS if not set("\t\r\n/") & set(name)]
    root, out = tmp_path / "own", tmp_path / "work"
    (root / "photos").mkdir(parents=True)
    rows = []
    for name in names:
        (root / "photos" / f"{name}.jpg").write_bytes(encode_jpeg(np.zeros((60, 60, 3), np.uint8)))
        row = [0, "", f"{name}.jpg", "[60, 60]", "[0, 0, 50, 50]", "['=cmd', 'Anger']", "[1, 2, 3]", "@x", "Adult"]
        rows += [row, [*row[:-2], "Male", "Adult"]]
    with (root / "train.csv").open("w", newline="", encoding="utf-8") as stream:
        csv.writer(stream).writerows([COLUMNS, *rows])
    run_parse(ParseConfig(emotic_root=root, annotations=root / "train.csv", images=root / "photos", out=out))
    person_ids = pq.read_table(out / "people.parquet")["person_id"].to_pylist()
    assert person_ids[0] == f"{names[0]}.jpg#0"
    faces = [{"index": n, "person_id": one, "face_status": "no_face"} for n, one in enumerate(person_ids)]
    people = pq.read_table(out / "people.parquet")
    write_record(out, JobRecord("faces", {}, {}, {}, {}, {"detector": "=x", "margin": 0.15}))
    write_table(out / "faces.parquet", pa.Table.from_pylist(faces, schema=FACES_SCHEMA), FACES_SCHEMA)
    _write_empty_faces(out, people)
    run_split(SplitConfig(dir=out, balance="cap:1"))
    run_report(ReportConfig(dir=out))
    predictions = Predictions(
        index=np.arange(len(person_ids)),
        person_ids=person_ids,
        images=people["image"].to_pylist(),
        sources=np.full(len(person_ids), None),
        people_in_photo=np.full(len(person_ids), 2),
        has_face=np.zeros(len(person_ids), bool),
        labels=np.zeros((len(person_ids), 26), np.uint8),
        probabilities=np.random.default_rng(0).random((len(person_ids), 26), np.float32),
        stream_probabilities={},
        vad=np.full((len(person_ids), 3), np.nan, np.float32),
        predicted_vad=np.full((len(person_ids), 3), np.nan, np.float32),
    )
    for suffix in (".csv", ".tsv", ".npy"):
        write_prediction_file(out / f"predictions{suffix}", predictions)
        if suffix != ".npy":
            read = read_prediction_file(out / f"predictions{suffix}")
            assert read.person_ids == person_ids and (read.scores.astype(np.float32) == predictions.probabilities).all()
    assert read_arrays(out / "predictions.people.csv")["person_id"].tolist() == person_ids
    tables = [*out.rglob("*.csv"), *out.rglob("*.tsv")]
    assert {path.name for path in tables} >= {"parse_notes.csv", "empty_faces.csv", "left_out.csv", "capped.csv"}
    for path in tables:
        with path.open(newline="", encoding="utf-8") as stream:
            cells = [
                cell for row in csv.reader(stream, delimiter="\t" if path.suffix == ".tsv" else ",") for cell in row
            ]
        assert not [cell for cell in cells if cell[:1] in tuple("=+-@\t\r＝")], path
    page = (out / "report" / "audit.html").read_text(encoding="utf-8")
    assert "<code>=HYPERLINK(0).jpg#0</code>" in page


def test_names_of_runs_are_no_formulas_in_the_tables_of_a_comparison(runs: Path) -> None:
    with (runs / "comparison" / "runs.csv").open(newline="", encoding="utf-8") as stream:
        assert [row["run"] for row in csv.DictReader(stream)] == [EVIL_NAME, "'=1+1"]
    with (runs / "comparison" / "per_label.csv").open(newline="", encoding="utf-8") as stream:
        assert next(csv.reader(stream)) == ["label", EVIL_NAME, "'=1+1", f"{EVIL_NAME} lift", "'=1+1 lift"]
