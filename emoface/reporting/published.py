"""Published results, and which of them were measured on the same people as a result of ours.

Guessing is worth 23.67 on EMOTIC's val, 16.98 on its test and about 11 on a stratified split, because a label that
everybody gets the same score for has an average precision equal to its prevalence. Results on different people can
therefore not be compared, and a published result is shown only beside a result on the same people.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from emoface.datasets.manifest import Manifest
from emoface.emotic.split_counts import emotic_people, emotic_prevalence, emotic_val_in_train
from emoface.errors import SettingsError, StoreError
from emoface.schema import CATEGORIES, SIMULATION_NAME, SOURCES
from emoface.storage.cards import manifests_dir, read_card
from emoface.storage.photo_stores import open_store
from emoface.storage.records import hash_inputs, to_json_number
from emoface.storage.urls import Place, parent_of

_THESIS, _OTHERS = "thesis", "published"
_AP_DEFINITIONS = {
    "11-point": "11-point interpolated, which is 2 to 3.3 points higher for the same predictions",
    "unknown": "definition not said",
}
_MEAN_TOLERANCE = 0.02

Percent = Annotated[float, Field(ge=0, le=100)]


class PublishedResult(BaseModel):
    """One published result on EMOTIC; the fields are the keys of ``published.toml``."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False)

    name: str
    """The key of the result: ``table 4-2: mter2`` for a column of the thesis, else such as ``emotionclip``."""
    system: str
    """What was measured."""
    year: Annotated[int, Field(ge=2017)]
    """Year of the publication; EMOTIC is of 2017."""
    mean_average_precision: Percent
    """In percent."""
    average_precision: dict[str, Percent] | None = None
    """Average precision of each of the 26 categories, in percent; None where only the mean is published."""
    split: Literal["train", "val", "test", "unknown"]
    """The split of EMOTIC's own that it was measured on."""
    split_known_by: Literal["stated", "prevalence", "correlation", "unknown"]
    """How the split is known, see ``published.toml``."""
    people: Annotated[int, Field(ge=1)] | Literal["unknown"]
    """Number of people that it was measured on."""
    average_precision_definition: Literal["scikit-learn", "11-point", "unknown"]
    """How average precision was computed."""
    code: Literal["yes", "partly", "no", "unknown"]
    """Whether the code is public."""
    epoch_chosen_on_evaluated_people: Literal["yes", "no", "unknown"]
    """Whether the epoch was chosen on the people that the result is of."""
    source: Annotated[str, Field(min_length=1)]
    """Where it was read."""
    note: str
    """What else to know about it; may be empty."""

    @property
    def short_name(self) -> str:
        """The name without the table of the thesis."""
        return self.name.rpartition(": ")[2]

    @model_validator(mode="after")
    def _check(self) -> Self:
        if (self.split == "unknown") != (self.split_known_by == "unknown"):
            raise ValueError(f"split is '{self.split}' but split_known_by is '{self.split_known_by}'")
        if self.average_precision is not None:
            if tuple(self.average_precision) != CATEGORIES:
                raise ValueError(f"average_precision is not of EMOTIC's {len(CATEGORIES)} categories in order")
            mean = float(np.mean(list(self.average_precision.values())))
            if abs(mean - self.mean_average_precision) > _MEAN_TOLERANCE:
                raise ValueError(
                    f"the average precisions have the mean {mean:.2f}, but mean_average_precision is "
                    f"{self.mean_average_precision}"
                )
        return self


@dataclass(frozen=True)
class EvaluatedPeople:
    """The people that a result of ours was measured on, as ``metrics.json`` describes them.

    Attributes:
        split_method: ``emotic`` or ``stratified``.
        ratios: Target shares of train, val and test; None for EMOTIC's own split, which has no targets.
        leaks: Rule for people who are annotated twice, ``drop`` or ``keep``; None where the manifest does not say.
        repeated_labels: Whose labels a person who is annotated twice has, ``evaluation`` or ``train``; None where the
            setting has no effect.
        split: ``train``, ``val`` or ``test``.
        n_people: Number of people in the split.
        n_evaluated: Number of them with a prediction.
        other_sources: Names of the people's collections that are none of EMOTIC's.
        is_simulated: Whether the photos were drawn by ``emoface simulate``.
        has_emotic_labels: Whether the labels are EMOTIC's categories, and none of the data set's own.
    """

    split_method: str
    ratios: Mapping[str, float] | None
    leaks: str | None
    repeated_labels: str | None
    split: str
    n_people: int
    n_evaluated: int
    other_sources: tuple[str, ...] = ()
    is_simulated: bool = False
    has_emotic_labels: bool = True

    def to_json(self) -> dict[str, Any]:
        """The attributes as JSON values."""
        return {**asdict(self), "other_sources": list(self.other_sources)}


@dataclass(frozen=True)
class ComparableResults:
    """The published results that may stand beside a result of ours.

    Attributes:
        results: The results on the same people; empty if there are none.
        why_none: A sentence that says why there are none; empty if there are some.
        chance_level: Mean average precision of guessing on all people of the results' split, 0-1; None if there are no
            results.
        n_missing: Number of people of the results' split who are not evaluated here.
        notes: Sentences about what still differs; empty if there are no results.
    """

    results: tuple[PublishedResult, ...]
    why_none: str = ""
    chance_level: float | None = None
    n_missing: int = 0
    notes: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """``shown`` (names of the results), ``why_none`` (null if there are results) and the other attributes."""
        return {
            "shown": [result.name for result in self.results],
            "why_none": self.why_none or None,
            "chance_level": to_json_number(self.chance_level),
            "n_missing": self.n_missing,
            "notes": list(self.notes),
        }


def read_published_results() -> tuple[PublishedResult, ...]:
    """Reads the results of the thesis's tables and of others, in the order of their files.

    A column that both tables of the thesis print is read once.

    Raises:
        SettingsError: A card has an unknown or missing key or a bad value; the message names the card and the key.

    Example:
        >>> results = {result.name: result for result in read_published_results()}
        >>> results["table 4-2: mter2"].mean_average_precision, results["table 4-2: mter2"].split
        (37.45, 'val')
    """
    results: dict[str, PublishedResult] = {}
    for table, content in read_card(_THESIS).items():
        number = table.removeprefix("table_").replace("_", "-")
        for name, column in _subtable(_THESIS, table, content, "columns").items():
            result = to_published_result(_THESIS, f"table {number}: {name}", column)
            if all(result.model_copy(update={"name": other.name}) != other for other in results.values()):
                results[result.name] = result
    for name, entry in _subtable(_OTHERS, "the file", read_card(_OTHERS), "results").items():
        results[name] = to_published_result(_OTHERS, name, entry)
    return tuple(results.values())


def to_published_result(card: str, name: str, entry: Mapping[str, Any]) -> PublishedResult:
    """Checks one entry of a card of published results.

    Args:
        card: Name of the card, for the error message.
        name: Name of the result.
        entry: The entry's keys and values.

    Raises:
        SettingsError: A key is unknown or missing, or a value is none of those expected.
    """
    try:
        return PublishedResult.model_validate({**entry, "name": name})
    except ValidationError as error:
        fault = error.errors(include_url=False)[0]
        key = ".".join(str(part) for part in fault["loc"])
        message = fault["msg"].removeprefix("Value error, ")
        raise SettingsError(
            f"{_card_path(card)}: result '{name}': {key}{': ' if key else ''}{message}; mend the entry, "
            f"{_OTHERS}.toml explains the keys"
        ) from error


def hash_published_cards() -> dict[str, str]:
    """The sha256 of the cards of published results, by path, for the ``inputs`` of a job's record."""
    return hash_inputs(_card_path(name) for name in (_THESIS, _OTHERS, "emotic"))


def describe_evaluated_people(manifest: Manifest, split: str, n_evaluated: int) -> EvaluatedPeople:
    """Describes the people of a split from its manifest.

    Args:
        manifest: The data set.
        split: ``train``, ``val`` or ``test``.
        n_evaluated: Number of people of the split with a prediction.
    """
    method = manifest.split["by"]
    leaks = manifest.split.get("leaks", {})
    sources = manifest.annotations.get("counts", {}).get("people_by_source", {})
    return EvaluatedPeople(
        split_method=method,
        ratios=None if method == "emotic" else manifest.split["ratios"],
        leaks=leaks.get("rule"),
        repeated_labels=leaks.get("labels"),
        split=split,
        n_people=manifest.splits[split].rows,
        n_evaluated=n_evaluated,
        other_sources=tuple(name for name, count in sources.items() if count and name not in SOURCES),
        is_simulated=is_simulated(manifest.photos.root),
        has_emotic_labels=manifest.label_names == CATEGORIES,
    )


def is_simulated(image_root: Place) -> bool:
    """Whether the photos are drawings of ``simulate``, whose marker is beside the image root."""
    try:
        return open_store(parent_of(image_root)).has(SIMULATION_NAME)
    except StoreError:  # whose credentials are for the photos alone is not told what is beside them
        return False


def find_comparable(results: Iterable[PublishedResult], people: EvaluatedPeople) -> ComparableResults:
    """Finds the published results that were measured on the same people as a result of ours.

    These are people of the same one of EMOTIC's own splits. Some of them may be missing; a note then says how many.

    Args:
        results: The published results.
        people: The people that our result was measured on.

    Returns:
        The results, and what still differs; or no results, and the reason.

    Example:
        >>> ours = EvaluatedPeople("stratified", None, "drop", "evaluation", "test", 6577, 6577)
        >>> find_comparable(read_published_results(), ours).why_none[:52]
        'the people are of a stratified split, but all publis'
    """
    why_none = _why_none(people)
    shown = () if why_none else tuple(result for result in results if result.split == people.split)
    if not shown:
        return ComparableResults((), why_none or f"no published result was measured on EMOTIC's {people.split}")
    return ComparableResults(
        shown,
        chance_level=float(emotic_prevalence(people.split).mean()),
        n_missing=max(0, emotic_people(people.split) - people.n_evaluated),
        notes=tuple(_differences(shown, people)),
    )


def describe_comparison(manifest: Manifest, split: str, n_evaluated: int) -> dict[str, Any]:
    """Describes the evaluated people and the published results on the same people, for ``metrics.json``.

    Args:
        manifest: The data set.
        split: ``train``, ``val`` or ``test``.
        n_evaluated: Number of people of the split with a prediction.

    Returns:
        ``data``, see ``EvaluatedPeople``, and ``published``, see ``ComparableResults``.
    """
    people = describe_evaluated_people(manifest, split, n_evaluated)
    return {"data": people.to_json(), "published": find_comparable(read_published_results(), people).to_json()}


def summarize_published(published: Mapping[str, Any]) -> str:
    """Says in a phrase which published results stand beside ours, or why there are none.

    Args:
        published: The value of ``published`` in ``metrics.json``.

    Example:
        >>> summarize_published({"shown": ["a", "b"], "why_none": None, "n_missing": 3})
        '2 of the same split are on the page; 3 people of the split are missing here'
    """
    if not published["shown"]:
        return f"none shown: {published['why_none']}"
    missing = f"; {published['n_missing']:,} people of the split are missing here" if published["n_missing"] else ""
    return f"{len(published['shown'])} of the same split are on the page{missing}"


def choose_shown(published: Mapping[str, Any]) -> list[PublishedResult]:
    """Reads the results that ``metrics.json`` names in ``published.shown``.

    Args:
        published: The value of ``published`` in ``metrics.json``, see ``ComparableResults.to_json``.
    """
    return [result for result in read_published_results() if result.name in published["shown"]]


def _why_none(people: EvaluatedPeople) -> str:
    if not people.has_emotic_labels:
        return "the labels are those of the data set, and no published result is known for them"
    if people.is_simulated:
        return "the people are drawn by 'emoface simulate' and are not EMOTIC's"
    if people.other_sources:
        return f"the data set has people of {', '.join(people.other_sources)}, which is no collection of EMOTIC"
    if people.split_method != "emotic":
        chance = " and ".join(f"{100 * emotic_prevalence(split).mean():.2f} on {split}" for split in ("val", "test"))
        return (
            f"the people are of a {people.split_method} split, but all published results are of EMOTIC's own splits, "
            f"where guessing is worth another mAP ({chance}); 'emoface split DIR --by emotic' keeps EMOTIC's own"
        )
    return ""


def _differences(shown: Sequence[PublishedResult], people: EvaluatedPeople) -> list[str]:
    """Sentences about what differs between our result and the published ones of the same split."""
    own, total = f"EMOTIC's {people.split}", emotic_people(people.split)
    notes = []
    if people.n_evaluated < total:
        notes.append(
            f"{people.n_evaluated:,} of the {total:,} people of {own} are evaluated here, "
            f"{total - people.n_evaluated:,} are missing: the published results are of other people too."
        )
    elif people.n_evaluated > total:
        notes.append(
            f"{people.n_evaluated:,} people are evaluated here, and the rows of {own} that circulate as CSV, on which "
            f"many results were measured, have {total:,}."
        )
    if people.split == "val":
        kept = {"drop": "this data set takes them out of train", "keep": "this data set leaves them in train"}
        notes.append(
            f"{emotic_val_in_train():,} people of {own} are in EMOTIC's train too; "
            f"{kept.get(people.leaks or '', 'what this data set does about them is unknown')}, and the published "
            "systems were probably trained on them."
        )
    for definition, words in _AP_DEFINITIONS.items():
        names = [result.short_name for result in shown if result.average_precision_definition == definition]
        if names:
            notes.append(f"Average precision is scikit-learn's here; {', '.join(names)}: {words}.")
    return notes


def _subtable(card: str, where: str, content: Any, key: str) -> Mapping[str, Any]:
    known = {key} if card == _OTHERS else {key, "title"}
    if not isinstance(content, Mapping) or set(content) != known or not isinstance(content[key], Mapping):
        found = ", ".join(content) if isinstance(content, Mapping) else type(content).__name__
        raise SettingsError(
            f"{_card_path(card)}: {where} has {found}, expected {' and '.join(sorted(known))}; mend the file"
        )
    entries: Mapping[str, Any] = content[key]
    return entries


def _card_path(name: str) -> Path:
    return manifests_dir() / f"{name}.toml"
