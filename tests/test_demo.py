"""The demo: which detector it takes, how it counts against the truth, and all of it end to end with real weights."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner, Result

from emoface.cli import main
from emoface.errors import SettingsError, WeightsError
from emoface.jobs.demo import DETECTOR, DemoConfig, choose_detector, compare_with_truth, run_demo
from emoface.jobs.pipeline import PipelineConfig, check_pipeline
from emoface.pipeline.stages import CURRENT
from emoface.schema import FACES_SCHEMA, GROUND_TRUTH_SCHEMA, SPLITS
from emoface.storage.weights import DEMONSTRATION_DETECTOR

TRUE_BOX = [100.0, 40.0, 140.0, 90.0]


def test_published_detector_is_taken_first_and_the_packaged_one_with_a_note() -> None:
    both = {DETECTOR: "EMOFACE_WEIGHTS", DEMONSTRATION_DETECTOR: "package"}
    assert choose_detector(both) == (DETECTOR, "")
    name, note = choose_detector(both | {DETECTOR: "absent"})
    assert name == DEMONSTRATION_DETECTOR
    assert "trained on drawn photos alone" in note and "emoface weights fetch yolov5n-face" in note


@pytest.mark.parametrize("states", [{}, {DETECTOR: "absent"}, {DETECTOR: "absent", DEMONSTRATION_DETECTOR: "absent"}])
def test_no_detector_says_what_is_missing_and_which_command_gets_it(states: dict[str, str]) -> None:
    with pytest.raises(WeightsError, match=r"needs a face detector, .* run 'emoface weights fetch yolov5n-face'"):
        choose_detector(states)


def _tables(people: list[tuple[str, list[float] | None, list[float] | None, bool]]) -> tuple[pa.Table, pa.Table]:
    """Status, found box, true box and whether the true face is visible, of each person."""
    faces: list[dict[str, Any]] = []
    truth: list[dict[str, Any]] = []
    for index, (status, found, true, visible) in enumerate(people):
        name = f"a.jpg#{index}"
        faces.append({"index": index, "person_id": name, "face_bbox": found, "face_status": status})
        truth.append(
            {"image": "a.jpg", "person_id": name, "annotated": True, "face_bbox": true, "face_visible": visible}
        )
    truth.append({"image": "a.jpg", "annotated": False, "face_bbox": TRUE_BOX, "face_visible": True})
    return pa.Table.from_pylist(faces, FACES_SCHEMA), pa.Table.from_pylist(truth, GROUND_TRUTH_SCHEMA)


def test_counts_against_the_truth_are_those_worked_out_by_hand() -> None:
    faces, truth = _tables(
        [
            ("found", [104, 45, 138, 88], TRUE_BOX, True),
            ("found", [98, 38, 142, 93], TRUE_BOX, True),
            ("found", [40, 45, 78, 88], TRUE_BOX, True),  # beside it
            ("found", [104, 95, 138, 150], TRUE_BOX, True),  # below it
            ("no_face", None, TRUE_BOX, True),
            ("found", [104, 45, 138, 88], TRUE_BOX, False),
            ("no_face", None, None, False),
            ("too_small", None, TRUE_BOX, False),
            ("image_missing", None, TRUE_BOX, True),
            ("image_unreadable", None, TRUE_BOX, True),
        ]
    )
    expected = {"visible_faces": 5, "hidden_faces": 3, "recall": 2 / 5, "wrong_faces": 2 / 5, "false_faces": 1 / 3}
    assert compare_with_truth(faces, truth) == expected
    turned = list(reversed(range(faces.num_rows)))
    assert compare_with_truth(faces.take(turned), truth) == expected


def test_no_people_give_no_shares() -> None:
    assert compare_with_truth(*_tables([])) == {
        "visible_faces": 0,
        "hidden_faces": 0,
        "recall": None,
        "wrong_faces": None,
        "false_faces": None,
    }


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"images": 19}, "images is 19, expected 20 or more"),
        ({"seed": -1}, "seed is -1, expected 0 or more"),
        ({"epochs": 0}, "epochs is 0, expected 1 or more"),
    ],
)
def test_bad_settings_are_named(settings: dict[str, int], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        DemoConfig(**settings)  # type: ignore[arg-type]


def _emoface(*words: str, weights: Path | None, cache: Path) -> Result:
    return CliRunner(env={"EMOFACE_WEIGHTS": str(weights or ""), "EMOFACE_CACHE": str(cache)}).invoke(main, words)


def test_command_without_any_weights_fails_before_it_draws(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("emoface.jobs.demo.list_weights", list)
    with pytest.raises(WeightsError, match="the demo needs a face detector"):
        run_demo(DemoConfig(out=tmp_path / "demo"))
    assert not (tmp_path / "demo").exists()


def test_demo_runs_end_to_end_and_again_at_once(weights_dir: Path, tmp_path: Path) -> None:
    out = tmp_path / "demo"
    words = ("demo", "--out", str(out), "--images", "24", "--seed", "3", "--epochs", "1")
    answer = _emoface(*words, weights=weights_dir, cache=tmp_path / "cache")
    assert answer.exit_code == 0, answer.stderr
    stages = ("simulate", "parse", "faces", "split", "report", "train", "evaluate")
    for stage in stages:
        assert f"{stage}: runs, missing: has not run in" in answer.stderr
        assert f"{stage}: done in" in answer.stderr
    audit = answer.stderr.index(f"audit: {out / 'report' / 'audit.html'}\n")
    assert audit < answer.stderr.index("train: runs")  # the page can be read during the training
    table, pairs = answer.stdout.split("detector: ")
    assert table.splitlines()[0] == "split\tpeople\tphotos\tfaces"
    rows = {row[0]: [int(cell) for cell in row[1:]] for row in (line.split("\t") for line in table.splitlines()[1:])}
    assert [sum(column) for column in zip(*(rows[name] for name in SPLITS), strict=True)] == rows["all"]
    evaluation = out / "run" / "eval" / "test" / "evaluation.html"
    assert answer.stdout.splitlines()[-2:] == [f"evaluation: {evaluation}", f"audit: {out / 'report' / 'audit.html'}"]
    assert re.search(r"visible faces found: \d+\.\d % of \d+\n", pairs)
    assert re.search(r"mean average precision: \d+\.\d\d % of \d+ people, 95 % interval \d", pairs)
    assert (out / "report" / "audit.html").is_file() and evaluation.is_file()

    record = json.loads((out / "records" / "demo.json").read_text())
    counts, people = record["counts"], pq.read_table(out / "people.parquet").num_rows
    assert counts["detector"] == DETECTOR
    assert counts["people"] == people == sum(counts[split]["rows"] for split in ("train", "val", "test"))
    assert counts["faces_found"] + sum(counts["empty"].values()) == people
    truth = counts["against_the_truth"]
    assert truth["visible_faces"] > truth["hidden_faces"] > 0
    metrics = json.loads((out / "run/eval/test/metrics.json").read_text())
    assert counts["evaluation"]["mean_average_precision"] == metrics["mean_average_precision"] > 0
    assert counts["training"]["epochs"] == 1 and metrics["model"] == "mter2" and metrics["people"]["trained_on"] == 0
    assert truth["recall"] > 0.9 and truth["wrong_faces"] < 0.05 and truth["false_faces"] < 0.1

    tables = {path.name: path.read_bytes() for path in out.glob("*.parquet")}
    times = {path: path.stat().st_mtime_ns for path in out.rglob("*.parquet")}
    again = _emoface(*words, weights=weights_dir, cache=tmp_path / "cache")
    assert again.exit_code == 0, again.stderr
    assert again.stderr.splitlines() == [f"{stage}: current" for stage in stages]
    assert again.stdout == answer.stdout
    assert {path: path.stat().st_mtime_ns for path in times} == times

    for name in tables:
        (out / name).unlink()
    settings = {"out": str(out), "images": "24", "seed": "3", "epochs": "1"}
    states = {one.stage.name: one.state for one in check_pipeline(PipelineConfig("demo", settings))}
    assert states["simulate"] == CURRENT and states["parse"] != CURRENT
    assert _emoface(*words, weights=weights_dir, cache=tmp_path / "cache").exit_code == 0
    assert {path.name: path.read_bytes() for path in out.glob("*.parquet")} == tables
