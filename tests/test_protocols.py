"""Protocols of evaluation: every rule, kept and broken."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from emoface.datasets.manifest import Manifest, SplitFile
from emoface.datasets.protocols import EvaluationFacts, ProtocolName, check_protocol, stamp_protocol
from emoface.errors import ProtocolError

FACTS = EvaluationFacts(
    split="test",
    n_evaluated=7203,
    left_out={"image_missing": 0},
    epoch_chosen_on="val",
    thresholds_fitted_on="val",
    is_own_data=True,
    n_trained_on=0,
)

EMOTIC = {"by": "emotic", "ratios": {"train": 0.7, "val": 0.1, "test": 0.2}, "seed": 0}
STRATIFIED = {**EMOTIC, "by": "stratified"}


def manifest_with(split: dict[str, Any], n_test: int = 7203, **leaks: Any) -> Manifest:
    """A manifest whose splits have ``n_test`` people each."""
    file = SplitFile(file="x.parquet", rows=n_test, photos=n_test, faces=0, sha256="", label_counts={})
    labels = "evaluation" if split["by"] == "stratified" else None
    rules = {"rule": "drop", "labels": labels, "rows_left_out": 3, **leaks}
    return Manifest(
        path=Path("work/manifest.json"),
        splits=dict.fromkeys(("train", "val", "test"), file),
        image_root="",
        annotations={},
        detector={},
        split={**split, "leaks": rules},
        balance={},
    )


@pytest.mark.parametrize(("name", "split"), [("emotic-test", EMOTIC), ("stratified-test", STRATIFIED)])
def test_a_result_that_keeps_every_rule_is_stamped_with_what_was_found(
    name: ProtocolName, split: dict[str, Any]
) -> None:
    stamp = stamp_protocol(name, manifest_with(split), FACTS)
    assert stamp["name"] == name
    found = {one["rule"]: one["found"] for one in stamp["rules"]}
    assert len(found) == len(stamp["rules"]) >= 9
    assert found["everybody of the split is evaluated"] == "7,203 people evaluated"
    assert found["none of the evaluated people was trained on"] == "0 of them trained on"


@pytest.mark.parametrize(
    ("change", "broken"),
    [
        ({"split": "val"}, "the people of test are evaluated (evaluated on val)"),
        ({"n_evaluated": 7201, "left_out": {"no_face": 2}}, "7,201 people evaluated, 2 left out: 2 no_face"),
        ({"epoch_chosen_on": "test"}, "the epoch is chosen on val (chosen on test)"),
        ({"epoch_chosen_on": None}, "the epoch is chosen on val (chosen on unknown people)"),
        ({"thresholds_fitted_on": "test"}, "thresholds are fitted on val, or there are none (fitted on test)"),
        ({"is_own_data": False}, "(trained on another data set)"),
        ({"is_own_data": None}, "(unknown training data)"),
        ({"has_shuffled_labels": True}, "(trained on shuffled labels)"),
        ({"n_trained_on": 4}, "none of the evaluated people was trained on (4 of them trained on)"),
        ({"n_trained_on": None}, "(unknown who was trained on)"),
    ],
)
@pytest.mark.parametrize(("name", "split"), [("emotic-test", EMOTIC), ("stratified-test", STRATIFIED)])
def test_each_broken_rule_about_the_model_is_named(
    name: ProtocolName, split: dict[str, Any], change: dict[str, Any], broken: str
) -> None:
    facts = replace(FACTS, **change)
    assert sum(not one.is_kept for one in check_protocol(name, manifest_with(split), facts)) == 1
    with pytest.raises(ProtocolError) as caught:
        stamp_protocol(name, manifest_with(split), facts)
    assert broken in str(caught.value)
    assert str(caught.value).startswith(f"work/manifest.json: protocol {name} requires that ")


@pytest.mark.parametrize(
    ("name", "manifest", "broken"),
    [
        ("emotic-test", manifest_with(EMOTIC, rule="keep"), "nobody of val or test is in train"),
        ("stratified-test", manifest_with(STRATIFIED, rule="keep"), "nobody of val or test is in train"),
        ("emotic-test", manifest_with(STRATIFIED), "(split by stratified)"),
        ("stratified-test", manifest_with(STRATIFIED, labels="train"), "(labels of train)"),
        ("stratified-test", manifest_with({**STRATIFIED, "seed": 4}), "(ratios 70/10/20, seed 4)"),
        (
            "stratified-test",
            manifest_with({**STRATIFIED, "ratios": {"train": 0.6, "val": 0.2, "test": 0.2}}),
            "(ratios 60/20/20, seed 0)",
        ),
    ],
)
def test_each_broken_rule_about_the_data_set_is_named(name: ProtocolName, manifest: Manifest, broken: str) -> None:
    with pytest.raises(ProtocolError) as caught:
        stamp_protocol(name, manifest, FACTS)
    assert broken in str(caught.value)
    assert "; and that" not in str(caught.value)


def test_a_part_of_emotic_is_not_its_test_and_all_broken_rules_are_named() -> None:
    facts = replace(FACTS, n_evaluated=1229, epoch_chosen_on=None)
    with pytest.raises(ProtocolError) as caught:
        stamp_protocol("emotic-test", manifest_with(EMOTIC, n_test=1229), facts)
    assert "7,203 or more (test has 1,229 people); and that the epoch" in str(caught.value)
    assert stamp_protocol("stratified-test", manifest_with(STRATIFIED, n_test=1229), replace(FACTS, n_evaluated=1229))
