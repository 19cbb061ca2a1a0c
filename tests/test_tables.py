"""Tables: the types of their columns, tables of earlier versions, and values that are not allowed.

``make test-light`` runs this file with the oldest versions of the packages that read and write tables.
"""

from __future__ import annotations

import base64
import re
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from emoface.datasets.people import find_first_rows
from emoface.errors import TableError
from emoface.schema import (
    CATEGORIES,
    FACES_SCHEMA,
    GROUND_TRUTH_SCHEMA,
    HUGGING_FACE_FEATURES,
    LIST_LENGTHS,
    PEOPLE_SCHEMA,
    PREDICTIONS_SCHEMA,
    SPLIT_SCHEMA,
)
from emoface.storage.tables import open_table, read_table, vectors_to_array, write_table

REPO = Path(__file__).parents[1]
EARLIER_FACE_BBOX = (
    "UEFSMRUAFWAVciwVEhUAFQYVBhwAAAAotS/9IDCBAQADAAAABc4BBQAAAAX//AMAAACAPwAAAEAAAPRBAAAgQgAAoEAAAMBAAADgQAAAAEEVBBlM"
    "NQAYBnNjaGVtYRUCADUCGAlmYWNlX2Jib3gVAhUGTDwAAAA1BBgEbGlzdBUCABUIJQIYB2VsZW1lbnQAFgYZHBkcJgAcFQgZJQYAGTgJZmFjZV9i"
    "Ym94BGxpc3QHZWxlbWVudBUMFhIWhgEWmAEmCEkcFQAVABUCADwpJgYMGUYCAAAQAAAAFoYBFgYmCBaYAQAZHBgMQVJST1c6c2NoZW1hGPgBLy8v"
    "Ly83QUFBQUFRQUFBQUFBQUtBQXdBQmdBRkFBZ0FDZ0FBQUFBQkJBQU1BQUFBQ0FBSUFBQUFCQUFJQUFBQUJBQUFBQUVBQUFBRUFBQUF5UC8vL3dB"
    "QUFSQVVBQUFBSkFBQUFBUUFBQUFCQUFBQU1BQUFBQWtBQUFCbVlXTmxYMkppYjNnQUJnQUlBQVFBQmdBQUFBUUFBQUFRQUJRQUNBQUdBQWNBREFB"
    "QUFCQUFFQUFBQUFBQUFRTVFBQUFBSEFBQUFBUUFBQUFBQUFBQUJBQUFBR2wwWlcwQUFBWUFDQUFHQUFZQUFBQUFBQUVBQUFBQUFBPT0AGCBwYXJx"
    "dWV0LWNwcC1hcnJvdyB2ZXJzaW9uIDI2LjAuMRkcHAAAAMoBAABQQVIx"
)
"""A parquet file in base64: the column face_bbox with ``BOXES`` as fixed-size lists, written by pyarrow 26.

Before 26, pyarrow can neither write nor read it.
"""

BOXES = [[1.0, 2.0, 30.5, 40.0], None, [5.0, 6.0, 7.0, 8.0]]


def _faces(**changes: Any) -> pa.Table:
    columns: dict[str, Any] = {
        "index": [0, 1, 2],
        "person_id": ["a.jpg#0", "a.jpg#1", "b.jpg#0"],
        "face": [{"bytes": b"x", "path": "a"}, None, {"bytes": b"y", "path": "b"}],
        "face_bbox": BOXES,
        "landmarks": [None if box is None else [*range(10)] for box in BOXES],
        "conf": [0.5, None, 0.75],
        "assignment_margin": [None, None, 0.5],
        "face_status": ["found", "no_face", "found"],
    }
    return pa.table(columns | changes, schema=FACES_SCHEMA)


def test_columns_that_can_be_null_are_variable_size_lists() -> None:
    schemas = (PEOPLE_SCHEMA, FACES_SCHEMA, SPLIT_SCHEMA, PREDICTIONS_SCHEMA, GROUND_TRUTH_SCHEMA)
    fields = [field for schema in schemas for field in schema]
    assert {field.name for field in fields if pa.types.is_fixed_size_list(field.type)} == {
        "image_wh",
        "labels",
        "probabilities",
        "label_probabilities",
    }
    assert {field.name for field in fields if field.name in LIST_LENGTHS} == set(LIST_LENGTHS)
    assert HUGGING_FACE_FEATURES["face_bbox"] == {
        "feature": {"dtype": "float32", "_type": "Value"},
        "_type": "Sequence",
    }
    assert HUGGING_FACE_FEATURES["labels"]["length"] == 26


def test_nulls_are_read_back_by_every_reader(tmp_path: Path) -> None:
    path = tmp_path / "faces.parquet"
    write_table(path, _faces(), FACES_SCHEMA)
    assert read_table(path, FACES_SCHEMA, "").equals(_faces())
    assert pq.read_table(path)["face_bbox"].to_pylist() == BOXES
    assert pd.read_parquet(path)["face_bbox"].isna().tolist() == [False, True, False]
    array = vectors_to_array(read_table(path, FACES_SCHEMA, "", ["face_bbox"])["face_bbox"], 4)
    assert np.array_equal(array, np.array([BOXES[0], [np.nan] * 4, BOXES[2]], np.float32), equal_nan=True)


def test_tables_of_earlier_versions_are_read_or_the_remedy_is_named(tmp_path: Path) -> None:
    path, schema = tmp_path / "faces.parquet", pa.schema([FACES_SCHEMA.field("face_bbox")])
    path.write_bytes(base64.b64decode(EARLIER_FACE_BBOX))
    assert pa.types.is_fixed_size_list(pq.read_schema(path).field("face_bbox").type)
    if int(pa.__version__.split(".")[0]) >= 26:
        assert read_table(path, schema, "").equals(_faces().select(["face_bbox"]))
        with open_table(path, schema, "") as opened:
            assert pa.concat_tables(opened.read_batches(2, ["face_bbox"]))["face_bbox"].to_pylist() == BOXES
    else:
        with pytest.raises(TableError, match=r"faces\.parquet: .*install pyarrow>=26, or run 'emoface faces'"):
            read_table(path, schema, "run 'emoface faces'")


def test_fixed_size_lists_without_nulls_are_read_by_every_version(tmp_path: Path) -> None:
    path, schema = tmp_path / "faces.parquet", pa.schema([FACES_SCHEMA.field("face_bbox")])
    boxes = [BOXES[0], BOXES[2]]
    pq.write_table(pa.table({"face_bbox": pa.array(boxes, pa.list_(pa.float32(), 4))}), path)
    read = read_table(path, schema, "")
    assert read.schema.equals(schema) and read["face_bbox"].to_pylist() == boxes


def test_rows_are_found_in_the_row_groups_that_hold_them(tmp_path: Path) -> None:
    path = tmp_path / "faces.parquet"
    write_table(path, _faces(), FACES_SCHEMA, row_group_size=1)
    with open_table(path, FACES_SCHEMA, "") as opened:
        assert opened.row_group_sizes == [1, 1, 1]
        rows = opened.read_where("index", [2, 1, 9], ["person_id", "face_bbox"]).to_pylist()
        assert rows == [
            {"person_id": "a.jpg#1", "face_bbox": None},
            {"person_id": "b.jpg#0", "face_bbox": [5.0, 6.0, 7.0, 8.0]},
        ]
        nobody = opened.read_where("person_id", ["nobody"], ["index", "face"])
        assert nobody.num_rows == 0 and nobody.column_names == ["index", "face"]


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"face_bbox": [[1, 2, 3], None, [1, 2, 3, 4]]}, "'face_bbox' has a list of 3 values, expected 4"),
        ({"face_bbox": [[1, 2, 3, np.inf], None, None]}, "'face_bbox' has the value inf, expected a finite number"),
        ({"face_bbox": [[1, 2, 3, np.nan], None, None]}, "'face_bbox' has the value nan, expected a finite number"),
        ({"face_bbox": [[1, 2, 3, None], None, None]}, "'face_bbox' has a null inside a list"),
        ({"index": [0, -1, 2]}, "'index' has the value -1, expected 0 to "),
        ({"face_status": ["found", "lost", "found"]}, "'face_status' has the value 'lost', expected one of found,"),
        ({"face_status": ["found", None, "found"]}, "'face_status' has 1 nulls"),
    ],
)
def test_values_that_are_not_allowed_are_named(tmp_path: Path, changes: dict[str, Any], fault: str) -> None:
    path = tmp_path / "faces.parquet"
    write_table(path, _faces(**changes), FACES_SCHEMA)
    with pytest.raises(TableError, match=re.escape(f"{path}: column {fault}")) as error:
        read_table(path, FACES_SCHEMA, "run 'emoface faces' again")
    assert str(error.value).endswith("; run 'emoface faces' again")


@pytest.mark.parametrize(
    "image",
    ["../b.jpg", "/etc/passwd", "a/../../b.jpg", "C:\\b.jpg", "C:b.jpg", "\\b.jpg", "a\\..\\..\\b.jpg", "a\0.jpg"],
)
def test_photos_stay_below_the_image_root(tmp_path: Path, image: str) -> None:
    path = tmp_path / "people.parquet"
    person = {"index": 0, "person_id": "x#0", "image": image, "categories": [CATEGORIES[0]]}
    write_table(path, pa.Table.from_pylist([person], schema=PEOPLE_SCHEMA), PEOPLE_SCHEMA)
    with pytest.raises(TableError, match="expected one below the image root"):
        read_table(path, PEOPLE_SCHEMA, "", ["image"])


def test_first_rows_are_rows_of_the_table() -> None:
    with pytest.raises(TableError, match="same_person_as is 5, but there are 2 rows"):
        find_first_rows(pa.table({"same_person_as": pa.array([None, 5], pa.int64())}))


def test_damaged_pages_are_named(tmp_path: Path) -> None:
    path = tmp_path / "faces.parquet"
    write_table(path, _faces(), FACES_SCHEMA)
    content = bytearray(path.read_bytes())
    content[4:60] = b"\xff" * 56
    path.write_bytes(content)
    with pytest.raises(TableError, match=r"(?s)faces\.parquet: cannot be read .*; do it again"):
        read_table(path, FACES_SCHEMA, "do it again")


def test_oldest_versions_are_those_that_the_package_allows() -> None:
    """The versions of ``make test-light`` are the lower bounds of pyproject.toml."""
    project = tomllib.loads((REPO / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    lines = [*project["dependencies"], *extras["heic"], *extras["dev"]]
    declared = dict(line.split(">=") for line in lines if ">=" in line)
    lines = (REPO / "constraints-oldest.txt").read_text().splitlines()
    tested = dict(line.split("==") for line in lines if line and not line.startswith("#"))

    def parts(version: str) -> list[int]:
        return [int(part) for part in version.split(".")]

    too_new = {name: v for name, v in tested.items() if parts(v)[: len(parts(declared[name]))] != parts(declared[name])}
    assert not too_new
    assert {line.split(">=")[0] for line in project["dependencies"]} <= set(tested)
