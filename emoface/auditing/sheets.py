"""The people whose pictures the audit page shows: random ones, examples of each label, and those to look at first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from emoface.auditing.data_set import DataSet, read_crops
from emoface.reporting.thumbnails import thumbnail_of_body, thumbnail_of_face, thumbnail_of_photo
from emoface.schema import EMPTY_FACE_REASONS

_N_FACES, _N_PER_REASON, _N_PER_LABEL = 24, 6, 4
_SMALL, _MEDIUM = 80, 128
"""Longest side of the many small thumbnails and of the others, pixels: the page stays below 3 MB."""

Card = dict[str, Any]
"""A person's caption with a ``picture``, or with the ``problem`` for which there is none."""


def draw_sheets(data: DataSet, audit: Mapping[str, Any], random: np.random.Generator) -> dict[str, Any]:
    """Makes the cards of all contact sheets.

    Args:
        data: The data set.
        audit: The content of ``audit.json``, which names the people to look at first.
        random: Chooses the random people.

    Returns:
        Cards by sheet: ``faces``, ``empties``, ``uncertain``, ``blurred``, ``dark``, ``label_errors``; ``duplicates``
        has pairs of cards, and ``examples`` cards by label.
    """
    quality, errors = audit["face_quality"], audit["label_errors"]
    duplicates = audit["near_duplicates"]
    return {
        **_draw_face_sheets(data, random),
        "uncertain": [] if audit["faces"] is None else _draw_uncertain(data, audit["faces"]),
        "blurred": [] if quality is None else _draw_measured(data, quality["most_blurred"]),
        "dark": [] if quality is None else _draw_measured(data, quality["darkest"]),
        "duplicates": [] if duplicates is None else [_draw_pair(data, row) for row in duplicates["shown"]],
        "label_errors": [
            {**_caption(data, one["index"]), **one, **_body(data, one["index"])}
            for one in ((errors or {}).get("shown") or [])
        ],
    }


def _draw_face_sheets(data: DataSet, random: np.random.Generator) -> dict[str, Any]:
    """Random people with a face, random people of each reason for having none, and examples of each label."""
    if data.faces is None or data.has_face is None:
        return {"faces": [], "empties": [], "examples": _draw_bodies_by_label(data, random)}
    statuses = np.array(data.faces["face_status"].to_pylist(), dtype=object)
    face_rows = _choose(np.flatnonzero(data.has_face), _N_FACES, random)
    empty_rows = [
        row
        for reason in EMPTY_FACE_REASONS
        for row in _choose(np.flatnonzero(statuses == reason), _N_PER_REASON, random).tolist()
    ]
    return {
        "faces": [
            {**_caption(data, row), "conf": data.faces["conf"][row].as_py(), **thumbnail_of_face(face, _MEDIUM)}
            for row, face in zip(face_rows.tolist(), read_crops(data.dir, face_rows), strict=True)
        ],
        "empties": [{**_caption(data, row), "reason": statuses[row], **_body(data, row)} for row in empty_rows],
        "examples": _draw_faces_by_label(data, data.has_face, random),
    }


def _choose(rows: NDArray[np.int64], n: int, random: np.random.Generator) -> NDArray[np.int64]:
    return np.sort(random.choice(rows, min(n, len(rows)), replace=False))


def _draw_faces_by_label(
    data: DataSet, has_face: NDArray[np.bool_], random: np.random.Generator
) -> dict[str, list[Card]]:
    """A few faces of each label; no person is shown twice under one label."""
    is_shown = has_face & np.isin(np.arange(len(has_face)), data.once)
    rows_of = {
        name: _choose(np.flatnonzero(is_shown & (column > 0)), _N_PER_LABEL, random)
        for name, column in zip(data.label_names, data.indicator.T, strict=True)
    }
    rows = np.unique(np.concatenate(list(rows_of.values())))
    crops = zip(rows.tolist(), read_crops(data.dir, rows), strict=True)
    cards = {row: {**_caption(data, row), **thumbnail_of_face(face, _SMALL)} for row, face in crops}
    return {name: [cards[row] for row in chosen.tolist()] for name, chosen in rows_of.items()}


def _draw_bodies_by_label(data: DataSet, random: np.random.Generator) -> dict[str, list[Card]]:
    """A few bodies of each label, before faces are detected; none where no photo is here."""
    examples: dict[str, list[Card]] = {name: [] for name in data.label_names}
    if data.photos is None or data.n_missing_photos == len(data.images):
        return examples
    for name, column in zip(data.label_names, data.indicator.T, strict=True):
        chosen = _choose(np.intersect1d(np.flatnonzero(column), data.once), _N_PER_LABEL, random)
        examples[name] = [{**_caption(data, row), **_body(data, row, _SMALL)} for row in chosen.tolist()]
    return examples


def _draw_uncertain(data: DataSet, faces: Mapping[str, Any]) -> list[Card]:
    return [
        {**_caption(data, one["index"]), "margin": one["margin"], **_body(data, one["index"])}
        for one in faces["assignment_margin"]["least_certain"]
    ]


def _draw_measured(data: DataSet, ranked: Sequence[Mapping[str, Any]]) -> list[Card]:
    value_of = {one["index"]: one["value"] for one in ranked}
    rows = np.array(sorted(value_of), np.int64)
    crops = zip(rows.tolist(), read_crops(data.dir, rows), strict=True)
    cards = {row: {**_caption(data, row), **thumbnail_of_face(face, _MEDIUM)} for row, face in crops}
    return [{**cards[row], "value": value} for row, value in value_of.items()]


def _draw_pair(data: DataSet, row: Mapping[str, Any]) -> list[Card]:
    return [
        {
            "image": image,
            "splits": splits,
            "different_bits": row["different_bits"],
            **thumbnail_of_photo(image, data.photos, _MEDIUM),
        }
        for image, splits in zip(row["images"], row["splits"], strict=True)
    ]


def _body(data: DataSet, row: int, side: int = _MEDIUM) -> dict[str, str]:
    """Thumbnail of a person's body, with the face outlined if there is one."""
    person = data.people.slice(row, 1).to_pylist()[0]
    face = None if data.faces is None else data.faces["face_bbox"][row].as_py()
    return thumbnail_of_body(person, data.photos, face, side)


def _caption(data: DataSet, row: int) -> dict[str, Any]:
    person = data.people.slice(row, 1).to_pylist()[0]
    return {name: person[name] for name in ("person_id", "categories", "source_split")}
