"""Limits that a data set has to keep, read from a TOML file, and the check of an audit against them."""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from emoface.errors import SettingsError
from emoface.schema import SPLITS
from emoface.storage.files import read_text
from emoface.storage.settings import Settings, Share

NotNegative = Annotated[int, Field(ge=0)]


class Limits(Settings):
    """Limits of an audit; one that is not given is not checked."""

    max_share_without_face: Share | None = None
    """Largest share of people without a face, 0 to 1."""
    min_people_per_split: NotNegative | None = None
    """Smallest number of people in each split."""
    min_people_per_label: NotNegative | None = None
    """Smallest number of people with each label in each split."""
    max_label_difference_points: Annotated[float, Field(ge=0, le=100)] | None = None
    """Largest difference between two splits in the share of people with a label, percentage points."""
    max_missing_photos: NotNegative | None = None
    """Largest number of photos that are missing."""
    max_share_uncertain: Share | None = None
    """Largest share of faces whose assignment margin is below 1, 0 to 1."""
    max_people_also_in_train: NotNegative | None = None
    """Largest number of people of val and test who are people of train too."""
    max_near_duplicates_across_splits: NotNegative | None = None
    """Largest number of pairs of near-duplicate photos in different splits."""
    min_mean_alpha: Annotated[float, Field(ge=-1, le=1)] | None = None
    """Smallest mean over the labels of Krippendorff's alpha among annotators."""


def read_limits(path: Path) -> Limits:
    """Reads limits from a TOML file.

    Raises:
        SettingsError: The file is missing or not TOML, or a limit is unknown or has a wrong value.
    """
    try:
        document = tomllib.loads(read_text(path, SettingsError))
    except tomllib.TOMLDecodeError as error:
        raise SettingsError(f"{path}: not TOML ({error})") from error
    try:
        return Limits(**document)
    except SettingsError as error:
        raise SettingsError(f"{path}: {error}") from error


def find_broken_limits(limits: Limits, audit: Mapping[str, Any]) -> list[str]:
    """Lists the limits that an audit breaks, one phrase each: the limit, and what was found.

    A limit on something that is not known, such as faces before they were detected, is broken: a check that could not
    be made must not look like one that was passed.

    Args:
        limits: The limits.
        audit: The content of ``audit.json``.
    """
    given = {name: value for name, value in limits.to_json().items() if value is not None}
    return [
        f"{name} is {limit:g}: {problem}" for name, limit in given.items() for problem in _CHECKS[name](limit, audit)
    ]


def _check_share_without_face(limit: float, audit: Mapping[str, Any]) -> list[str]:
    faces = audit["faces"]
    if faces is None or faces["empty_share"] is None:
        return ["unknown, because no faces were looked for"]
    share = faces["empty_share"]
    found = f"{faces['empty']:,} of {faces['people']:,} people have no face, a share of {share:.4g}"
    return [found] if share > limit else []


def _check_people_per_split(limit: float, audit: Mapping[str, Any]) -> list[str]:
    return [f"{name} has {n:,} people" for name, n in audit["split"]["people"].items() if n < limit]


def _check_people_per_label(limit: float, audit: Mapping[str, Any]) -> list[str]:
    counts = audit["split"]["label_counts"]
    problems = []
    for split in SPLITS:
        few = [f"{name} {counts[name][split]:,}" for name in counts if counts[name][split] < limit]
        if few:
            problems.append(f"{split} has fewer people of {', '.join(few)}")
    return problems


def _check_label_difference(limit: float, audit: Mapping[str, Any]) -> list[str]:
    worst = audit["split"]["largest_share_difference"]
    if worst is None:
        return ["unknown, because fewer than two splits have people"]
    points = 100 * worst["difference"]
    first, second = (
        f"{100 * share:.2f} % of {name}" for share, name in zip(worst["shares"], worst["splits"], strict=True)
    )
    return [f"{worst['label']} differs by {points:.2f} points, {first} and {second}"] if points > limit else []


def _check_missing_photos(limit: float, audit: Mapping[str, Any]) -> list[str]:
    n_missing = audit["people"]["photos_missing"]
    if n_missing is None:
        return ["unknown, because no photos were looked for"]
    return [f"{n_missing:,} of {audit['people']['photos']:,} photos are missing"] if n_missing > limit else []


def _check_uncertain(limit: float, audit: Mapping[str, Any]) -> list[str]:
    margins = None if audit["faces"] is None else audit["faces"]["assignment_margin"]
    if margins is None or margins["uncertain_share"] is None:
        return ["unknown, because there are no faces"]
    share = margins["uncertain_share"]
    return [f"{margins['uncertain']:,} faces are uncertain, a share of {share:.4g}"] if share > limit else []


def _check_people_in_train(limit: float, audit: Mapping[str, Any]) -> list[str]:
    again = audit["annotated_again"]
    groups = again["source_splits"] if again["split"] is None else again["split"]["splits"]
    n = sum(group["in_train"] for group in groups.values())
    return [f"{n:,} people of val and test are in train too"] if n > limit else []


def _check_near_duplicates(limit: float, audit: Mapping[str, Any]) -> list[str]:
    found = audit["near_duplicates"]
    if found is None:
        return ["unknown, because no photos were compared"]
    n = found["pairs_across_splits"]
    return [f"{n:,} pairs of near-duplicate photos are in different splits"] if n > limit else []


def _check_alpha(limit: float, audit: Mapping[str, Any]) -> list[str]:
    alpha = audit["agreement"]["annotators"]["mean_alpha"]
    if alpha is None:
        return ["unknown, because no person has two annotators whose choices are known"]
    return [f"the mean alpha is {alpha:.3f}"] if alpha < limit else []


_CHECKS: dict[str, Callable[[float, Mapping[str, Any]], list[str]]] = {
    "max_share_without_face": _check_share_without_face,
    "min_people_per_split": _check_people_per_split,
    "min_people_per_label": _check_people_per_label,
    "max_label_difference_points": _check_label_difference,
    "max_missing_photos": _check_missing_photos,
    "max_share_uncertain": _check_uncertain,
    "max_people_also_in_train": _check_people_in_train,
    "max_near_duplicates_across_splits": _check_near_duplicates,
    "min_mean_alpha": _check_alpha,
}
