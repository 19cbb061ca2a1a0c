"""Pipelines, settings, annotations, manifests and runs that nobody wrote: read, or refused with an error of emoface."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from json_damage import damage
from mter_data import write_photos_and_tables
from run_data import write_finished_run

from emoface.datasets.manifest import read_manifest
from emoface.emotic.csv_files import COLUMNS, read_annotations_csv
from emoface.errors import EmofaceError
from emoface.mter.runs import read_run
from emoface.pipeline.definition import parse_overrides, read_pipeline_file
from emoface.pipeline.stages import to_stage
from emoface.storage.csv_files import csv_text

_SLOW = settings(
    max_examples=300, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
_PIPELINE = """[settings]
emotic_root = "EMOTIC"
out = "work"

[[stage]]
job = "parse"
emotic_root = "${emotic_root}"
out = "${out}"

[[stage]]
job = "faces"
dir = "${out}"
margin = 0.15
"""
VALUES = [
    *("", "0", "-1", "1e400", "nan", "true", "[]", "[[1]]", "{}", "{a = 1}", '"x"', "'${out}'", "'${none}'", "'${'"),
    *("9" * 5000, "[" * 5000, "2020-01-01", "'\\0'", "'a/../b'", '"\\u0000"', "x" * 5000, "0x1f", "inf", "''"),
]
KEYS = [
    "out",
    "faces.margin",
    "faces.dir",
    "faces.shard_size",
    "parse.images",
    "faces",
    "x.y",
    "faces.margin.a",
    ".",
    "",
]


@_SLOW
@given(
    where=st.integers(0, len(_PIPELINE)),
    length=st.integers(0, 40),
    new=st.one_of(
        st.sampled_from(VALUES), st.text(max_size=8), st.just("\n[[stage]]\n"), st.just('\nname = "faces"\n')
    ),
)
def test_pipeline_files_are_read_or_refused(tmp_path: Path, where: int, length: int, new: str) -> None:
    path = tmp_path / "pipeline.toml"
    path.write_bytes((_PIPELINE[:where] + new + _PIPELINE[where + length :]).encode("utf-8", "surrogatepass"))
    _read_or_refuse(path, [])


@_SLOW
@given(key=st.one_of(st.sampled_from(KEYS), st.text(max_size=6)), value=st.one_of(st.sampled_from(VALUES), st.text()))
def test_values_of_the_command_line_are_read_or_refused(tmp_path: Path, key: str, value: str) -> None:
    path = tmp_path / "pipeline.toml"
    path.write_text(_PIPELINE)
    _read_or_refuse(path, [f"{key}={value}"])


def _read_or_refuse(path: Path, overrides: list[str]) -> None:
    try:
        file = read_pipeline_file(str(path), parse_overrides(overrides))
        for table in file.stages:
            to_stage(file, table)
    except EmofaceError as error:
        assert str(error)


_CELL = st.one_of(
    st.sampled_from(
        [
            "[0, 0, 50, 50]",
            "[]",
            "[nan, 1, 2, 3]",
            "[1e400]",
            "['Anger']",
            "[['Anger'], 3]",
            "nan",
            "-1",
            "9" * 400,
            "[" * 3000,
            "{}",
            "../a",
            "/etc",
            "\0",
            "=1+1",
            "Male",
            "__import__('os')",
            "[0 0 50 50]",
            "('a',)",
        ]
    ),
    st.text(max_size=10),
)


@_SLOW
@given(
    rows=st.lists(st.dictionaries(st.sampled_from(COLUMNS), _CELL, max_size=4), max_size=4),
    tail=st.binary(max_size=5),
)
def test_annotation_tables_are_read_or_refused(tmp_path: Path, rows: list[dict[str, str]], tail: bytes) -> None:
    good = ["0", "mscoco/images", "a.jpg", "[60, 60]", "[0, 0, 50, 50]", "['Anger']", "[1, 2, 3]", "Male", "Adult"]
    path = tmp_path / "train.csv"
    cells = [[row.get(name, value) for name, value in zip(COLUMNS, good, strict=True)] for row in rows]
    path.write_bytes(csv_text(COLUMNS, cells).encode("utf-8", "surrogatepass") + tail)
    try:
        photos = read_annotations_csv({"train": path})
    except EmofaceError as error:
        assert str(tmp_path) in str(error)
    else:
        assert sum(len(photo.people) for photo in photos) >= len(rows)  # paths are checked by parse


def test_changed_manifests_and_runs_are_read_or_refused(tmp_path: Path) -> None:
    manifest = write_photos_and_tables(tmp_path / "data", 8)
    run = write_finished_run(tmp_path / "run", manifest, "task2")
    n_refused = 0
    for path, read in ((manifest, lambda: read_manifest(manifest)), (run / "run.json", lambda: _use_run(run))):
        whole = path.read_bytes()
        for name, content in damage(whole.decode()):
            path.write_bytes(content)
            try:
                read()
            except EmofaceError as error:
                n_refused += 1
                assert "\n" not in str(error), name
        path.write_bytes(whole)
        read()
    assert n_refused > 100


def _use_run(run: Path) -> Any:
    found = read_run(run)
    return found.recipe, found.stream_sizes, found.manifest_path, found.model_name, found.describe_initial_weights()
