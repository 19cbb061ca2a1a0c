"""Published results: their cards, what may stand beside ours, and the check of the people they were measured on."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from scripts_of_docs import load_script
from sklearn.metrics import average_precision_score

from emoface.datasets.manifest import Manifest, SplitFile
from emoface.emotic.split_counts import emotic_people
from emoface.errors import SettingsError
from emoface.reporting.published import (
    EvaluatedPeople,
    describe_comparison,
    find_comparable,
    read_published_results,
    summarize_published,
    to_published_result,
)
from emoface.schema import CATEGORIES, SPLITS
from emoface.storage.cards import read_card

OURS = EvaluatedPeople("emotic", None, "drop", None, "test", n_people=7203, n_evaluated=7203)
ON_VAL = ["table 4-2: task2", "table 4-2: mter1", "table 4-2: mter2"]
ON_TEST = ["table 4-2: task2+task3", "table 4-3: kosti", "table 4-3: affective-graph", "table 4-3: emoticon"]


@pytest.fixture(scope="module")
def checks() -> ModuleType:
    return load_script("benchmarks/published_columns.py")


def _entry(**changes: Any) -> dict[str, Any]:
    return {**read_card("published")["results"]["mbn"], **changes}


# --- the cards -------------------------------------------------------------------------------------------------------


def test_every_published_result_is_read_and_a_column_of_two_tables_once() -> None:
    results = {result.name: result for result in read_published_results()}
    assert [name for name in results if name.startswith("table")] == [
        *("table 4-2: task2", "table 4-2: task2+task3", "table 4-2: mter1", "table 4-2: mter2"),
        *("table 4-3: kosti", "table 4-3: caer-net", "table 4-3: affective-graph", "table 4-3: emoticon"),
    ]
    assert set(results) - set(read_card("published")["results"]) == {name for name in results if "table" in name}
    assert [name for name, result in results.items() if result.split == "val"] == ON_VAL
    assert results["table 4-3: caer-net"].split == "unknown"
    assert results["dsct"].epoch_chosen_on_evaluated_people == "yes"


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        (_entry(leak="none"), r"published.toml: result 'x': leak: Extra inputs are not permitted; mend the entry"),
        ({key: value for key, value in _entry().items() if key != "code"}, r"result 'x': code: Field required"),
        (_entry(split="dev"), r"result 'x': split: Input should be 'train', 'val', 'test' or 'unknown'"),
        (_entry(mean_average_precision=284.0), r"mean_average_precision: Input should be less than or equal to 100"),
        (_entry(split_known_by="unknown"), r"result 'x': split is 'test' but split_known_by is 'unknown'"),
        (_entry(average_precision={"Anger": 28.4}), r"average_precision is not of EMOTIC's 26 categories in order"),
        (
            _entry(average_precision=dict.fromkeys(CATEGORIES, 20.0)),
            r"the average precisions have the mean 20.00, but mean_average_precision is 28.4",
        ),
    ],
)
def test_bad_entries_are_refused(entry: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        to_published_result("published", "x", entry)


def test_card_with_an_unknown_table_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    cards = {"thesis": {"table_4_2": {"title": "a", "rows": {}}}, "published": {"results": {}}}
    monkeypatch.setattr("emoface.reporting.published.read_card", lambda name: cards[name])
    with pytest.raises(SettingsError, match=r"thesis.toml: table_4_2 has title, rows, expected columns and title"):
        read_published_results()


# --- what may stand beside ours --------------------------------------------------------------------------------------


def test_all_of_emotics_test_stands_beside_what_was_measured_on_test() -> None:
    found = find_comparable(read_published_results(), OURS)
    names = [result.name for result in found.results]
    assert names[:4] == ON_TEST and names[4:] == list(read_card("published")["results"])
    assert found.why_none == "" and not any("missing" in note for note in found.notes)
    assert any(note.startswith("Average precision is scikit-learn's here; kosti: 11-point") for note in found.notes)


def test_all_of_emotics_val_stands_beside_the_thesis_own_columns_and_says_what_leaks() -> None:
    ours = dataclasses.replace(OURS, split="val", n_people=3315, n_evaluated=3315)
    found = find_comparable(read_published_results(), ours)
    assert [result.name for result in found.results] == ON_VAL
    assert found.notes[0].startswith("893 people of EMOTIC's val are in EMOTIC's train too; this data set takes them")
    kept = find_comparable(read_published_results(), dataclasses.replace(ours, leaks="keep"))
    assert "this data set leaves them in train" in kept.notes[0]


def test_missing_people_are_counted() -> None:
    found = find_comparable(read_published_results(), dataclasses.replace(OURS, n_people=1262, n_evaluated=1260))
    assert len(found.results) > len(ON_TEST)
    assert found.notes[0] == (
        "1,260 of the 7,203 people of EMOTIC's test are evaluated here, 5,943 are missing: the published results are "
        "of other people too."
    )
    assert found.n_missing == 5943 and found.chance_level == pytest.approx(0.1698, abs=0.00005)
    assert summarize_published(found.to_json()).endswith("; 5,943 people of the split are missing here")
    more = find_comparable(read_published_results(), dataclasses.replace(OURS, n_people=7280, n_evaluated=7280))
    assert more.n_missing == 0
    assert more.notes[0].startswith("7,280 people are evaluated here") and "have 7,203" in more.notes[0]


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        (
            {"split_method": "stratified"},
            "the people are of a stratified split, .* \\(23.67 on val and 16.98 on test\\)",
        ),
        ({"split": "train", "n_evaluated": 22373}, "no published result was measured on EMOTIC's train"),
        ({"is_simulated": True}, "drawn by 'emoface simulate'"),
        ({"has_emotic_labels": False}, "the labels are those of the data set, and no published result is known"),
        ({"other_sources": ("holiday",)}, "people of holiday, which is no collection of EMOTIC"),
    ],
)
def test_other_people_stand_beside_nothing(changes: dict[str, Any], why: str) -> None:
    found = find_comparable(read_published_results(), dataclasses.replace(OURS, **changes))
    assert found.results == () and found.notes == ()
    assert re.search(why, found.why_none)
    assert summarize_published(found.to_json()) == f"none shown: {found.why_none}"


def _manifest(folder: Path, **split: Any) -> Manifest:
    files = {name: SplitFile(f"{name}.parquet", 40, 30, 20, "", {}) for name in SPLITS}
    return Manifest(
        path=folder / "manifest.json",
        splits=files,
        image_root=str(folder / "emotic"),
        annotations={"counts": {"people_by_source": {"mscoco": 100, "ade20k": 0}}},
        detector={},
        split={"by": "emotic", "ratios": {"train": 0.7, "val": 0.1, "test": 0.2}, **split},
        balance={},
    )


def test_manifest_is_described(tmp_path: Path) -> None:
    described = describe_comparison(_manifest(tmp_path, leaks={"rule": "keep", "labels": None}), "test", 39)
    assert described["data"] == {
        "split_method": "emotic",
        "ratios": None,
        "leaks": "keep",
        "repeated_labels": None,
        "split": "test",
        "n_people": 40,
        "n_evaluated": 39,
        "other_sources": [],
        "is_simulated": False,
        "has_emotic_labels": True,
    }
    assert described["published"]["shown"][:4] == ON_TEST and described["published"]["why_none"] is None
    stratified = _manifest(tmp_path, by="stratified", leaks={"rule": "drop", "labels": "train"})
    data = describe_comparison(stratified, "val", 40)["data"]
    assert data["ratios"] == {"train": 0.7, "val": 0.1, "test": 0.2} and data["repeated_labels"] == "train"
    (tmp_path / "simulation.json").write_text("{}", encoding="utf-8")
    assert describe_comparison(_manifest(tmp_path), "test", 40)["data"]["is_simulated"]


# --- the check -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "below", "correlation_with_val"),
    [
        ("table 4-2: task2", (2, 1), 0.998),
        ("table 4-2: task2+task3", (8, 0), 0.880),
        ("table 4-2: mter1", (0, 0), 0.938),
        ("table 4-2: mter2", (0, 0), 0.946),
        ("table 4-3: kosti", (8, 0), 0.884),
        ("table 4-3: caer-net", (11, 4), 0.911),
        ("table 4-3: affective-graph", (7, 0), 0.875),
        ("table 4-3: emoticon", (2, 0), 0.922),
    ],
)
def test_published_counts_give_the_table_of_the_docs(
    checks: ModuleType, name: str, below: tuple[int, int], correlation_with_val: float
) -> None:
    (result,) = (one for one in read_published_results() if one.name == name)
    values, splits = checks._values(result), checks.read_stored_labels()
    val, test = (checks.check_column(values, splits[split]) for split in ("val", "test"))
    assert (val.n_below_prevalence, test.n_below_prevalence) == below
    assert val.correlation == pytest.approx(correlation_with_val, abs=0.0005)
    assert (val.correlation > test.correlation) == (result.split in ("val", "unknown"))
    measured_on = {"val": val, "test": test}.get(result.split)
    assert (val.n_impossible > 0 and test.n_impossible > 0) if measured_on is None else measured_on.n_impossible == 0
    page = (Path(__file__).parents[1] / "docs" / "thesis-fidelity.md").read_text(encoding="utf-8")
    start = f"| {name.removeprefix('table ').replace(':', '')} | {result.mean_average_precision:.2f} |"
    (row,) = (line for line in page.splitlines() if line.startswith(start))
    assert f"| {below[0]} / {below[1]} | {val.n_impossible} / {test.n_impossible} |" in row
    assert f"| {val.correlation:.3f} / {test.correlation:.3f} |" in row


def test_task2_is_the_list_of_vals_prevalences(checks: ModuleType) -> None:
    (result,) = (one for one in read_published_results() if one.name == "table 4-2: task2")
    val = checks.check_column(checks._values(result), checks.read_stored_labels()["val"])
    assert val.furthest_label == "Affection" and val.furthest == pytest.approx(2.9, abs=0.01)


def test_column_is_compared_by_hand(checks: ModuleType) -> None:
    labels = checks.SplitLabels(10, np.array([5] * 25 + [8]))
    values = np.array([49.6, 49.4, 30.0] + [60.0] * 22 + [79.9])
    found = checks.check_column(values, labels)
    # Below 50 by more than 0.5: 49.4 and 30. The worst ranking of 5 in 10: (1/6 + 2/7 + 3/8 + 4/9 + 5/10) / 5 = 35.4 %.
    assert (found.n_below_prevalence, found.n_impossible) == (2, 1)
    assert (found.furthest_label, found.furthest) == (CATEGORIES[2], pytest.approx(20.0))


def test_worst_ranking_is_scikit_learns(checks: ModuleType) -> None:
    assert checks.lowest_average_precision(1, 2) == 0.5
    assert checks.lowest_average_precision(3, 3) == 1
    truth = np.repeat([0, 1], (1611, 5592))
    expected = average_precision_score(truth, np.arange(len(truth))[::-1])
    assert checks.lowest_average_precision(5592, 7203) == pytest.approx(expected)
    assert expected == pytest.approx(0.5686, abs=0.00005)  # Engagement on test; CAER-Net's column has 46.58


def test_binormal_model_is_what_samples_of_it_give(checks: ModuleType) -> None:
    assert checks.binormal_average_precision(0.0, 0.3) == pytest.approx(0.3, abs=1e-6)
    rng = np.random.default_rng(0)
    truth = np.arange(200_000) < 60_000
    sampled = average_precision_score(truth, rng.normal(size=len(truth)) + 1.2 * truth)
    assert checks.binormal_average_precision(1.2, 0.3) == pytest.approx(sampled, abs=0.005)
    assert checks.convert_average_precision(0.4, 0.2, 0.2) == pytest.approx(0.4, abs=1e-6)
    assert checks.convert_average_precision(0.2, 0.2, 0.7) == pytest.approx(0.7, abs=1e-6)
    assert np.isnan(checks.convert_average_precision(0.4658, 0.7763, 0.5))


def test_conversions_are_those_of_the_docs(checks: ModuleType) -> None:
    results = {result.name: checks._values(result) for result in read_published_results() if result.average_precision}
    splits = checks.read_stored_labels()
    pooled = checks.pool_labels(splits)
    assert 100 * pooled.prevalence.mean() == pytest.approx(11.12, abs=0.005)
    mter2, kosti = results["table 4-2: mter2"], results["table 4-3: kosti"]
    assert checks.convert_column(mter2, splits["val"], splits["test"]).mean() == pytest.approx(30.3, abs=0.05)
    assert checks.convert_column(mter2, splits["val"], pooled).mean() == pytest.approx(22.4, abs=0.05)
    assert checks.convert_column(kosti, splits["test"], pooled).mean() == pytest.approx(19.7, abs=0.05)


def test_stored_counts_are_those_of_the_rows(checks: ModuleType, shared_dir: Path, tmp_path: Path) -> None:
    if not (shared_dir / "emotic" / "val.csv").is_file():
        pytest.skip("no annotation rows of EMOTIC")
    for split in SPLITS:
        (tmp_path / f"{split}.csv").symlink_to((shared_dir / "emotic" / f"{split}.csv").resolve())
    counted, stored = checks.count_labels(tmp_path), checks.read_stored_labels()
    for split in SPLITS:
        assert counted[split].n_people == stored[split].n_people == emotic_people(split)
        assert counted[split].counts.tolist() == stored[split].counts.tolist()
