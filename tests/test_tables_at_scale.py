"""The benchmark of the table jobs: its generated files are a data set for every job that it measures."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pyarrow.parquet as pq
import pytest


@pytest.fixture(scope="module")
def benchmark() -> ModuleType:
    path = Path(__file__).parents[1] / "docs/benchmarks/tables_at_scale.py"
    spec = importlib.util.spec_from_file_location("tables_at_scale", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


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
