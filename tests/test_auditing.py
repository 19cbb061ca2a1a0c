"""The numbers of the audit: associations, agreement, photo checks, label errors and limits, by hand or by scipy."""

from __future__ import annotations

import json
import re
import sys
import types
from itertools import combinations
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from scipy.stats import binomtest, chi2_contingency, fisher_exact
from test_report import _read_audit, _read_page, _write_faces, _write_people

from emoface.auditing.limits import find_broken_limits, read_limits
from emoface.datasets.predictions import write_predictions
from emoface.errors import PredictionsError, SettingsError
from emoface.jobs.report import ReportConfig, run_report
from emoface.jobs.split import SplitConfig, run_split
from emoface.labels.association import associate, difference_interval, holm, wilson_interval
from emoface.metrics.agreement import krippendorff_alpha
from emoface.schema import CATEGORIES
from emoface.vision import photo_checks
from emoface.vision.images import encode_jpeg, read_photo, read_small_photo
from emoface.vision.photo_checks import brightness, find_near_duplicates, photo_hash, sharpness

# --- associations ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("yes", "n"), [(0, 10), (10, 10), (5, 10), (1, 10), (3, 7)])
def test_wilson_interval_is_scipys(yes: int, n: int) -> None:
    expected = binomtest(yes, n).proportion_ci(method="wilson")
    assert np.allclose(wilson_interval(yes, n), (expected.low, expected.high), atol=1e-12)


def test_intervals_of_nobody_are_undefined() -> None:
    assert np.isnan(wilson_interval([0], [0])).all()
    assert np.isnan(difference_interval([0], [0], [1], [2])).all()


def test_difference_interval_is_that_of_the_paper() -> None:
    """Newcombe 1998, table II, method 10: columns (a), 56/70 less 48/80, and (c), 6/7 less 2/7."""
    low, high = difference_interval([56, 6], [70, 7], [48, 2], [80, 7])
    assert np.allclose(low, [0.0524, 0.0582], atol=5e-5)
    assert np.allclose(high, [0.3339, 0.8062], atol=5e-5)


def test_association_uses_scipys_tests() -> None:
    """The first label: 30 of 40 with it and 20 of 60 without have a face; the second: 3 of 3 and 47 of 97."""
    labels, has_face = np.zeros((100, 3), int), np.zeros(100, int)
    labels[:40, 0], has_face[:30], has_face[40:60] = 1, 1, 1
    labels[:3, 1] = 1
    found = associate(labels, has_face)
    assert found.n_with.tolist() == [40, 3, 0] and found.n_without.tolist() == [60, 97, 100]
    assert found.difference[0] == pytest.approx(30 / 40 - 20 / 60)
    assert found.p_value[0] == pytest.approx(chi2_contingency([[30, 10], [20, 40]], correction=False).pvalue)
    assert found.p_value[1] == pytest.approx(fisher_exact([[3, 0], [47, 50]]).pvalue)
    assert np.isnan([found.share_with[2], found.difference[2], found.p_value[2]]).all()


def test_holm_by_hand() -> None:
    """Sorted 0.01, 0.02, 0.03, 0.04 times 4, 3, 2, 1 are 0.04, 0.06, 0.06, 0.04: none below the one before it."""
    assert holm([0.04, 0.01, 0.03, np.nan, 0.02]) == pytest.approx([0.06, 0.04, 0.06, np.nan, 0.06], nan_ok=True)
    assert holm([0.9, 0.8]).tolist() == [1, 1] and holm([]).tolist() == []


# --- agreement of annotators -----------------------------------------------------------------------------------------


def _slow_alpha(values: list[list[int]]) -> float:
    """1 - observed / expected disagreement over all pairs of values, within a person and of all persons."""
    used = [one for one in values if len(one) > 1]
    everything = [value for one in used for value in one]
    n = len(everything)
    observed = sum(sum(2 * (a != b) for a, b in combinations(one, 2)) / (len(one) - 1) for one in used) / n
    expected = sum(2 * (a != b) for a, b in combinations(everything, 2)) / (n * (n - 1))
    return 1 - observed / expected


def test_alpha_is_that_of_all_pairs() -> None:
    random = np.random.default_rng(3)
    values = [random.integers(0, 2, random.integers(1, 6)).tolist() for _ in range(30)]
    votes, n = np.array([[sum(one)] for one in values]), np.array([len(one) for one in values])
    assert krippendorff_alpha(votes, n)[0] == pytest.approx(_slow_alpha(values))


def test_alpha_of_full_agreement_of_one_value_and_of_nobody() -> None:
    votes = np.array([[3, 0, 0], [0, 0, 1], [3, 0, 2]])
    alpha = krippendorff_alpha(votes, np.array([3, 3, 3]))
    assert alpha[0] == 1 and np.isnan(alpha[1]) and alpha[2] < 1
    assert np.isnan(krippendorff_alpha(votes, np.array([1, 1, 0]))).all()


# --- photos ----------------------------------------------------------------------------------------------------------


def _draw(seed: int, wh: tuple[int, int] = (320, 200)) -> np.ndarray:
    """A photo of smooth random patches."""
    small = np.random.default_rng(seed).integers(0, 256, (6, 8, 3)).astype(np.uint8)
    return np.asarray(cv2.resize(small, wh, interpolation=cv2.INTER_CUBIC), np.uint8)


def test_hash_survives_scaling_and_compression_and_tells_photos_apart() -> None:
    photos = [_draw(1), cv2.resize(_draw(1), (160, 100)), _draw(2), _draw(3)]
    hashes = np.array([photo_hash(np.asarray(photo, np.uint8)) for photo in photos])
    pairs, bits = find_near_duplicates(hashes)
    assert pairs.tolist() == [[0, 1]] and bits[0] <= 4
    assert photo_hash(np.full((50, 80, 3), 90, np.uint8)) is None
    empty, none = find_near_duplicates(np.zeros((0, 16), np.uint8))
    assert empty.shape == (0, 2) and none.shape == (0,)


def test_near_duplicates_are_those_of_a_loop() -> None:
    hashes = np.random.default_rng(0).integers(0, 2, (60, 16)).astype(np.uint8)  # few bits, so that many are near
    pairs, bits = find_near_duplicates(hashes, 5)
    every = np.unpackbits(hashes, axis=1)
    expected = [(a, b) for a, b in combinations(range(60), 2) if (every[a] != every[b]).sum() <= 5]
    assert [tuple(pair) for pair in pairs.tolist()] == expected
    assert bits.tolist() == [(every[a] != every[b]).sum() for a, b in expected]


def test_near_duplicates_of_many_photos_are_all_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 5,000 random hashes each is copied with a known number of changed bits, in blocks of very few pairs."""
    monkeypatch.setattr(photo_checks, "_PAIRS_AT_ONCE", 100)
    random = np.random.default_rng(3)
    originals = random.integers(0, 256, (5_000, 16), np.uint8)
    n_changed = random.integers(0, 20, 5_000)
    ranks = random.random((5_000, 128)).argsort(axis=1)
    copies = originals ^ np.packbits(ranks < n_changed[:, None], axis=1)
    pairs, bits = find_near_duplicates(np.concatenate([originals, copies]))
    near = np.flatnonzero(n_changed <= 12)
    assert pairs.tolist() == [[k, k + 5_000] for k in near.tolist()]
    assert bits.tolist() == n_changed[near].tolist()


def test_blurred_and_dark_faces_measure_lower() -> None:
    face = np.random.default_rng(0).integers(0, 256, (80, 60, 3)).astype(np.uint8)
    assert sharpness(np.asarray(cv2.GaussianBlur(face, (9, 9), 3), np.uint8)) < sharpness(face) / 10
    assert brightness(face // 4) < brightness(face) / 3
    assert brightness(np.full((10, 20, 3), 200, np.uint8)) == 200


def test_small_photo_is_upright_and_no_smaller_than_asked(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    path.write_bytes(encode_jpeg(_draw(1, (640, 400))))
    small = read_small_photo(path, 50)
    assert 50 <= min(small.shape[:2]) < 200 and small.shape[1] / small.shape[0] == pytest.approx(1.6, rel=0.02)
    whole = cv2.resize(read_photo(path), small.shape[1::-1], interpolation=cv2.INTER_AREA)
    assert np.abs(whole.astype(int) - small).mean() < 3


# --- the audit -------------------------------------------------------------------------------------------------------

PEOPLE = [(f"mscoco/images/{k}.jpg", "train", ["Peace"] if k % 2 else ["Anger"], "found") for k in range(40)]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """40 people of one photo each: the 20 with Anger have no face, those with Peace have one."""
    ids = _write_people(tmp_path, PEOPLE)
    _write_faces(tmp_path, ids, ["found" if k % 2 else "no_face" for k in range(40)])
    return tmp_path


@pytest.mark.usefixtures("plain_charts")
def test_lost_faces_are_tested_for_each_label(folder: Path) -> None:
    run_report(ReportConfig(dir=folder))
    loss = _read_audit(folder)["face_loss"]
    anger = loss["labels"]["Anger"]
    assert (anger["with_label"], anger["face_share_with_label"], anger["face_share_without_label"]) == (20, 0, 1)
    assert (anger["difference"], anger["prevalence"], anger["prevalence_with_face"]) == (-1, 0.5, 0)
    assert loss["significant"] == ["Anger", "Peace"]
    assert loss["labels"]["Pain"]["p_value"] is None
    page = " ".join(_read_page(folder).split())
    assert "For 2 of 26 labels the share of people with a face differs" in page and "Anger (-100.0 points)" in page


@pytest.mark.usefixtures("plain_charts")
def test_cap_is_a_third_column_and_no_miss(folder: Path) -> None:
    run_split(SplitConfig(dir=folder, ratios=(0.8, 0.1, 0.1), balance="cap:2"))
    run_report(ReportConfig(dir=folder))
    split = _read_audit(folder)["split"]
    assert split["selected_people"] == {"train": 32, "val": 4, "test": 4}
    assert split["people"] == {"train": 4, "val": 4, "test": 4}
    assert split["people_shares"] == {"train": 0.8, "val": 0.1, "test": 0.1}
    assert [(step["step"], step["people"], step["label_counts"]["Anger"]) for step in split["steps"]] == [
        ("annotated", 40, 20),
        ("selected", 32, 16),
        ("balanced", 4, 2),
    ]
    page = " ".join(_read_page(folder).split())
    assert "left 28 people out of train; the shares in the first table are from before" in page
    assert "Labels at each step" in page


@pytest.mark.usefixtures("plain_charts")
def test_weights_show_the_shares_that_sampling_leads_to(folder: Path) -> None:
    ids = _write_people(folder, [(*PEOPLE[k][:2], ["Anger"] if k < 10 else ["Peace"], "found") for k in range(40)])
    _write_faces(folder, ids, ["found"] * 40)
    run_split(SplitConfig(dir=folder, by="emotic", balance="weights"))
    run_report(ReportConfig(dir=folder))
    _, selected, balanced = _read_audit(folder)["split"]["steps"]
    # Weights are 3 : 1 for 10 and 30 people, so both labels are sampled equally often.
    assert (selected["label_shares"]["Anger"], balanced["label_shares"]["Anger"]) == (0.25, 0.5)
    assert balanced["label_counts"] is None and balanced["mean_imbalance_ratio"] == 1


class _Notes:
    """Keeps what a job reports."""

    def __init__(self) -> None:
        self.notes: list[str] = []

    def start(self, description: str, total: int) -> None: ...
    def advance(self, n: int = 1) -> None: ...
    def describe(self, text: str) -> None: ...
    def note(self, text: str) -> None:
        self.notes.append(text)


@pytest.mark.usefixtures("plain_charts")
def test_empty_splits_and_labels_with_nobody_are_warned_of(folder: Path) -> None:
    notes = _Notes()
    run_split(SplitConfig(dir=folder, ratios=(0.9, 0, 0.1)), notes)
    assert notes.notes == ["Warning: val has 0 people; training can choose no epoch and evaluation no thresholds by it"]
    run_report(ReportConfig(dir=folder))
    split = _read_audit(folder)["split"]
    assert split["empty_splits"] == ["val"] and split["labels_with_nobody"]["val"] == ["Anger", "Peace"]
    assert "<b>val has 0 people.</b> Training can choose no epoch by it" in _read_page(folder)


@pytest.mark.usefixtures("plain_charts")
def test_page_without_any_face_has_no_dash_in_its_sentences(folder: Path) -> None:
    ids = _write_people(folder, PEOPLE)
    _write_faces(folder, ids, ["image_missing"] * 40)
    run_report(ReportConfig(dir=folder))
    page = " ".join(_read_page(folder).split())
    assert "40 of 40 photos of" in page and "are missing." in page
    assert "is the most frequent label, with 50% of people" in page
    sentences = re.findall(r"<(?:p|li)\b[^>]*>.*?</(?:p|li)>", page)
    assert len(sentences) > 20 and not [one for one in sentences if "–" in one]
    assert "Nobody has a face, so there is nothing to compare." in page


@pytest.mark.usefixtures("plain_charts")
def test_near_duplicates_across_splits_are_found_and_kept(folder: Path) -> None:
    root = folder / "photos" / "mscoco" / "images"
    root.mkdir(parents=True)
    for k, seed in ((0, 1), (1, 2), (2, 1), (3, 4)):
        (root / f"{k}.jpg").write_bytes(encode_jpeg(_draw(seed, (320 + k, 200))))
    (root / "4.jpg").write_bytes(b"no photo")
    people = [(*one[:1], "test" if k == 2 else "train", *one[2:]) for k, one in enumerate(PEOPLE)]
    _write_faces(folder, _write_people(folder, people), ["no_face"] * 40)
    run_report(ReportConfig(dir=folder))
    found = _read_audit(folder)["near_duplicates"]
    assert (found["photos"], found["photos_without_hash"], found["photos_missing"]) == (4, 1, 35)
    assert (found["pairs"], found["pairs_across_splits"]) == (1, 1)
    assert found["shown"][0]["images"] == ["mscoco/images/0.jpg", "mscoco/images/2.jpg"]
    assert found["shown"][0]["splits"] == [["train"], ["test"]]
    assert "<b>1 of them is in different splits</b>" in _read_page(folder)
    first = (folder / "report" / "photo_hashes.parquet").read_bytes()
    (root / "2.jpg").write_bytes(encode_jpeg(_draw(7)))  # only this one is read again
    run_report(ReportConfig(dir=folder))
    assert _read_audit(folder)["near_duplicates"]["pairs"] == 0
    assert (folder / "report" / "photo_hashes.parquet").read_bytes() != first


@pytest.mark.usefixtures("plain_charts")
def test_photo_checks_can_be_left_out(folder: Path) -> None:
    run_report(ReportConfig(dir=folder, photo_checks=False))
    audit = _read_audit(folder)
    assert (audit["near_duplicates"], audit["face_quality"]) == (None, None)
    assert "The photos were not checked" in _read_page(folder)


# --- label errors ----------------------------------------------------------------------------------------------------


def _write_predictions(folder: Path, person_ids: list[str]) -> Path:
    from emoface.datasets.predictions import Predictions

    n = len(person_ids)
    labels = np.zeros((n, 26), np.uint8)
    probabilities = np.full((n, 26), 0.1, np.float32)
    probabilities[::2, CATEGORIES.index("Anger")] = 0.9
    path = folder / "eval" / "test" / "predictions.parquet"
    path.parent.mkdir(parents=True, exist_ok=True)
    predictions = Predictions(
        index=np.arange(n),
        person_ids=person_ids,
        images=["a.jpg"] * n,
        sources=np.array([None] * n, dtype=object),
        people_in_photo=np.ones(n, np.int64),
        has_face=np.ones(n, bool),
        labels=labels,
        probabilities=probabilities,
        stream_probabilities={},
        vad=np.full((n, 3), np.nan, np.float32),
        predicted_vad=np.full((n, 3), np.nan, np.float32),
    )
    write_predictions(path, predictions, key="k", left_out={})
    return path


@pytest.mark.usefixtures("plain_charts")
def test_label_errors_without_cleanlab_say_how_to_install_it(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    _write_predictions(folder / "run", [f"{one[0]}#0" for one in PEOPLE])
    run_report(ReportConfig(dir=folder, run=folder / "run"))
    assert "pip install &#39;emoface[audit]&#39;" in _read_page(folder)


@pytest.mark.usefixtures("plain_charts")
def test_label_errors_are_named_with_their_people(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """cleanlab is replaced by a rule: a mark is wrong where the other value has a probability of 0.8 or more."""

    def find_label_issues(marked: Any, both: Any, **_: Any) -> np.ndarray:
        return np.flatnonzero(both[np.arange(len(marked)), 1 - marked] >= 0.8)

    module = types.ModuleType("cleanlab.filter")
    module.find_label_issues = find_label_issues  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "cleanlab", types.ModuleType("cleanlab"))
    monkeypatch.setitem(sys.modules, "cleanlab.filter", module)
    monkeypatch.setattr("importlib.util.find_spec", lambda _: object())
    ids = [f"{one[0]}#0" for one in PEOPLE]
    _write_faces(
        folder, _write_people(folder, [("mscoco/images/0.jpg", "train", ["Peace"], ""), *PEOPLE[1:]]), ["no_face"] * 40
    )
    path = _write_predictions(folder / "run", ids)
    run_report(ReportConfig(dir=folder, predictions=path))
    errors = _read_audit(folder)["label_errors"]
    # Person 0 has no Anger and is predicted 0.9. The 21 with Peace are predicted 0.1.
    assert errors["labels"]["Anger"] == {"marked": 0, "not_marked": 1}
    assert errors["labels"]["Peace"] == {"marked": 21, "not_marked": 0}
    assert errors["people"] == 40 and errors["people_with_issues"] == 21
    assert "Anger: not marked, predicted 90%" in _read_page(folder)


def test_predictions_of_other_people_or_no_run_are_refused(folder: Path) -> None:
    path = _write_predictions(folder / "run", ["x.jpg#0"])
    with pytest.raises(PredictionsError, match=r"predictions.parquet: x.jpg#0 is not in .*people.parquet; give predic"):
        run_report(ReportConfig(dir=folder, predictions=path))
    with pytest.raises(PredictionsError, match=r"no predictions of val or test; write them with 'emoface evaluate"):
        run_report(ReportConfig(dir=folder, run=folder))


# --- limits ----------------------------------------------------------------------------------------------------------


def _write_limits(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.usefixtures("plain_charts")
def test_broken_limits_are_named_and_kept_ones_are_not(folder: Path) -> None:
    text = """
    max_share_without_face = 0.4
    min_people_per_split = 5
    min_people_per_label = 3
    max_label_difference_points = 1
    max_missing_photos = 0
    max_share_uncertain = 0.5
    max_people_also_in_train = 0
    max_near_duplicates_across_splits = 0
    min_mean_alpha = 0.2
    """
    limits = _write_limits(folder / "limits.toml", text)
    record = run_report(ReportConfig(dir=folder, check=limits))
    broken = dict(one.split(": ", 1) for one in record.info["broken_limits"])
    assert list(broken) == [
        "max_share_without_face is 0.4",
        "min_people_per_split is 5",
        "min_people_per_label is 3",
        "max_label_difference_points is 1",
        "max_share_uncertain is 0.5",
        "max_near_duplicates_across_splits is 0",
        "min_mean_alpha is 0.2",
    ]
    assert broken["max_share_without_face is 0.4"] == "20 of 40 people have no face, a share of 0.5"
    assert broken["min_mean_alpha is 0.2"] == "unknown, because no person has two annotators whose choices are known"
    assert "max_share_without_face is 0.4" in _read_page(folder)
    kept = find_broken_limits(read_limits(_write_limits(limits, "max_share_without_face = 0.5")), _read_audit(folder))
    assert kept == []


@pytest.mark.usefixtures("plain_charts")
def test_report_command_exits_with_1_where_a_limit_is_broken(folder: Path) -> None:
    from click.testing import CliRunner

    from emoface.cli import main

    limits = _write_limits(folder / "limits.toml", "max_share_without_face = 0.4")
    result = CliRunner().invoke(main, ["report", str(folder), "--check", str(limits)])
    assert result.exit_code == 1
    assert "Broken limit: max_share_without_face is 0.4: 20 of 40 people have no face" in result.output
    _write_limits(limits, "max_share_without_face = 0.6")
    assert CliRunner().invoke(main, ["report", str(folder), "--check", str(limits)]).exit_code == 0


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "max_share_without_faces = 1",
            r"limits.toml: there is no setting 'max_share_without_faces'; did you mean",
        ),
        ("max_share_without_face = 30", r"limits.toml: max_share_without_face is 30, expected .*0.*1"),
        ("a = ", r"limits.toml: not TOML"),
    ],
)
def test_limits_that_cannot_be_read_are_refused(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        read_limits(_write_limits(tmp_path / "limits.toml", text))


def test_example_of_limits_in_the_docs_can_be_read() -> None:
    docs = Path(__file__).parents[1] / "docs"
    given = read_limits(docs / "limits.toml").to_json()
    assert all(value is not None for value in given.values())
    assert all(f"`{name}`" in (docs / "audit.md").read_text(encoding="utf-8") for name in given)
    assert json.dumps(given)
