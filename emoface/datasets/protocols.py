"""Named protocols of evaluation: rules that a result must keep so that it can be compared with others.

``docs/protocol.md`` says what each rule is for. A protocol is checked against facts about the data set and the model,
so that a result is stamped only if every rule is kept.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from emoface.datasets.manifest import Manifest
from emoface.emotic.split_counts import emotic_people
from emoface.errors import ProtocolError
from emoface.schema import CATEGORIES

ProtocolName = Literal["emotic-test", "stratified-test"]
"""Names of the protocols."""

_RATIOS = {"train": 0.7, "val": 0.1, "test": 0.2}
_SEED = 0


@dataclass(frozen=True)
class EvaluationFacts:
    """What the rules of a protocol are about.

    Attributes:
        split: The evaluated split of the data set.
        n_evaluated: Number of people with a prediction.
        left_out: Number of people of the split without a prediction, by reason.
        epoch_chosen_on: The split on which the epoch of the weights was chosen; None if unknown.
        thresholds_fitted_on: The split on which the thresholds were fitted; None if there are none.
        is_own_data: Whether the model was trained on train of the same data set; None if unknown.
        n_trained_on: Number of evaluated people that the model was trained on; None if unknown.
        has_shuffled_labels: Whether the model was trained on shuffled labels.
        is_stated: Whether how the model was made is what its user states, because it is another program's.
    """

    split: str
    n_evaluated: int
    left_out: Mapping[str, int]
    epoch_chosen_on: str | None
    thresholds_fitted_on: str | None
    is_own_data: bool | None
    n_trained_on: int | None
    has_shuffled_labels: bool = False
    is_stated: bool = False


@dataclass(frozen=True)
class RuleResult:
    """One rule of a protocol and whether it is kept.

    Attributes:
        rule: What the rule requires.
        is_kept: Whether the evaluation keeps it.
        found: What was found.
    """

    rule: str
    is_kept: bool
    found: str


def check_protocol(name: ProtocolName, manifest: Manifest, facts: EvaluationFacts) -> list[RuleResult]:
    """Checks every rule of a protocol.

    Args:
        name: The protocol.
        manifest: The data set that is evaluated.
        facts: How the model was made and who was evaluated.

    Returns:
        One result per rule, in the order of ``docs/protocol.md``.
    """
    return [
        *(_check_emotic(manifest) if name == "emotic-test" else _check_stratified(manifest)),
        _check_leaks(manifest),
        RuleResult("the people of test are evaluated", facts.split == "test", f"evaluated on {facts.split}"),
        _check_everybody(manifest, facts),
        *_check_choices(facts),
        *_check_labels(manifest),
    ]


def stamp_protocol(name: ProtocolName | None, manifest: Manifest, facts: EvaluationFacts) -> dict[str, Any] | None:
    """Describes a protocol whose rules are all kept, for ``metrics.json``.

    Args:
        name: The protocol; None if none is to be followed.
        manifest: The data set that is evaluated.
        facts: How the model was made and who was evaluated.

    Returns:
        ``name``, and ``rules`` with ``rule`` and ``found`` each; None without a protocol.

    Raises:
        ProtocolError: A rule is broken; the message names every broken rule.
    """
    if name is None:
        return None
    results = check_protocol(name, manifest, facts)
    broken = [f"{one.rule} ({one.found})" for one in results if not one.is_kept]
    if broken:
        raise ProtocolError(
            f"{manifest.path}: protocol {name} requires that {'; and that '.join(broken)}; evaluate without "
            "--protocol, or see docs/protocol.md for how to keep the rules"
        )
    return {"name": name, "rules": [{"rule": one.rule, "found": one.found} for one in results]}


def _check_labels(manifest: Manifest) -> list[RuleResult]:
    """A protocol is one of EMOTIC's labels; of a data set with them there is nothing to say."""
    if manifest.label_names == CATEGORIES:
        return []
    return [RuleResult("the labels are EMOTIC's categories", False, f"{len(manifest.label_names)} labels of its own")]


def _check_emotic(manifest: Manifest) -> list[RuleResult]:
    by, n, expected = manifest.split["by"], manifest.splits["test"].rows, emotic_people("test")
    return [
        RuleResult("the data set has EMOTIC's own split (split --by emotic)", by == "emotic", f"split by {by}"),
        RuleResult(
            f"test has all of EMOTIC's people, {expected:,} or more",
            n >= expected,
            f"test has {n:,} people",
        ),
    ]


def _check_stratified(manifest: Manifest) -> list[RuleResult]:
    by, ratios, seed = (manifest.split[name] for name in ("by", "ratios", "seed"))
    labels = manifest.split["leaks"]["labels"]
    return [
        RuleResult(
            "the data set has a stratified split (split --by stratified)",
            by == "stratified",
            f"split by {by}",
        ),
        RuleResult(
            "the split has the default ratios 70/10/20 and seed 0",
            (ratios, seed) == (_RATIOS, _SEED),
            f"ratios {'/'.join(f'{100 * share:g}' for share in ratios.values())}, seed {seed}",
        ),
        RuleResult(
            "people annotated twice have the labels of evaluation (split --repeated-labels evaluation)",
            labels == "evaluation",
            f"labels of {labels}" if labels else "every row kept",
        ),
    ]


def _check_leaks(manifest: Manifest) -> RuleResult:
    leaks = manifest.split["leaks"]
    return RuleResult(
        "nobody of val or test is in train (split --leaks drop)",
        leaks["rule"] == "drop",
        f"leaks {leaks['rule']}, {leaks['rows_left_out']:,} rows left out",
    )


def _check_everybody(manifest: Manifest, facts: EvaluationFacts) -> RuleResult:
    missing = manifest.splits[facts.split].rows - facts.n_evaluated
    reasons = ", ".join(f"{count:,} {reason}" for reason, count in facts.left_out.items() if count)
    return RuleResult(
        "everybody of the split is evaluated",
        missing == 0,
        f"{facts.n_evaluated:,} people evaluated" + (f", {missing:,} left out: {reasons}" if missing else ""),
    )


def _check_choices(facts: EvaluationFacts) -> list[RuleResult]:
    epoch, thresholds, seen = facts.epoch_chosen_on, facts.thresholds_fitted_on, facts.n_trained_on
    stated = ", as its user states" if facts.is_stated else ""
    return [
        RuleResult(
            "the epoch is chosen on val",
            epoch == "val",
            f"chosen on {epoch}{stated}" if epoch else "chosen on unknown people",
        ),
        RuleResult(
            "thresholds are fitted on val, or there are none",
            thresholds in (None, "val"),
            f"fitted on {thresholds}" if thresholds else "no thresholds",
        ),
        RuleResult(
            "the model is trained on train of this data set, with its true labels",
            facts.is_own_data is True and not facts.has_shuffled_labels,
            "trained on shuffled labels" if facts.has_shuffled_labels else _describe_data(facts.is_own_data, stated),
        ),
        RuleResult(
            "none of the evaluated people was trained on",
            seen == 0,
            "unknown who was trained on" if seen is None else f"{seen:,} of them trained on{stated}",
        ),
    ]


def _describe_data(is_own: bool | None, stated: str) -> str:
    if is_own is None:
        return "unknown training data"
    return f"trained on it{stated}" if is_own else "trained on another data set"
