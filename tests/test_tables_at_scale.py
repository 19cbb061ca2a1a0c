"""The benchmark of the table jobs: its generated files are a data set for every job that it measures."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import pyarrow.parquet as pq
import pytest
from scripts_of_docs import load_script


@pytest.fixture(scope="module")
def benchmark() -> ModuleType:
    return load_script("benchmarks/tables_at_scale.py")


def test_every_step_runs_on_the_files_of_those_before(
    benchmark: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(benchmark, "N_CROPS", 20)
    for step in benchmark.list_steps(tmp_path, 120, 2).values():
        step()
    data = tmp_path / "data"
    statuses = pq.read_table(data / "faces.parquet", columns=["face_status"])["face_status"].to_pylist()
    assert len(statuses) == 120 and 0.6 < statuses.count("found") / 120 < 0.9
    assert pq.read_table(tmp_path / "from_mat/people.parquet").num_rows == 120
    assert {"manifest.json", "report", "scores_test.parquet"} <= {path.name for path in data.iterdir()}
