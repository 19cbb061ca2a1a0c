"""Where a data set comes from: counts beside the published ones, the jobs' records, the versions of packages."""

from __future__ import annotations

import platform
from typing import Any

import cv2
import numpy as np
import pyarrow as pa

from emoface.auditing.data_set import DataSet, source_splits
from emoface.schema import CATEGORIES, SPLITS
from emoface.storage.cards import read_card
from emoface.storage.records import ALL_INFO, read_record, to_json_number
from emoface.version import __version__

PROVENANCE = ("parse", "faces", "split")
"""Jobs whose records the audit shows."""
SHOWN_FACTS = ("version", "code", "inputs", ALL_INFO)
"""What it shows of each record."""


def compare_with_published(data: DataSet) -> dict[str, Any]:
    """Counts and shares published about EMOTIC beside those of this data set; none if its labels are of its own."""
    card = read_card("emotic")
    if not data.has_emotic_labels:
        return {"rows": [], "circulating_rows": None}
    own_rows = source_splits(data.people)
    n_people = data.people.num_rows
    found: dict[str, Any] = {
        "photos": len(set(data.people["image"].to_pylist())),
        "people": n_people,
        "categories": len(CATEGORIES),
    }
    rows = [
        {"what": what, "published": card["published"][what], "found": found[what], "unit": "count"} for what in found
    ]
    for name in SPLITS:
        share = len(own_rows[name]) / n_people if n_people else None
        published = card["published"]["split_shares"][name]
        rows.append(
            {"what": f"share of {name}", "published": published, "found": to_json_number(share), "unit": "share"}
        )
    return {"rows": rows, "circulating_rows": card["circulating_rows"]}


def describe_provenance(data: DataSet) -> dict[str, Any]:
    """Where the data come from: the records of parse, faces and split, and the versions of the packages used."""
    import matplotlib

    records = {job: read_record(data.dir, job) for job in PROVENANCE}
    return {
        **{
            job: {name: getattr(record, name) for name in SHOWN_FACTS}
            for job, record in records.items()
            if record is not None
        },
        "versions": {
            "emoface": __version__,
            "python": platform.python_version(),
            **{package.__name__: package.__version__ for package in (np, pa, cv2, matplotlib)},
        },
    }
