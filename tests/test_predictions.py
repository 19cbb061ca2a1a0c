"""Predictions in memory and on disk."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from emoface.datasets.predictions import (
    Predictions,
    predictions_path,
    read_kept_predictions,
    read_predictions,
    write_predictions,
)
from emoface.errors import TableError


def _predictions(n: int = 3) -> Predictions:
    """Person 1 has no face; nobody has a dominance."""
    rng = np.random.default_rng(0)
    face = rng.random((n, 26), np.float32)
    face[1:2] = np.nan
    vad = np.full((n, 3), 4.0, np.float32)
    vad[:, 2] = np.nan
    return Predictions(
        index=np.arange(10, 10 + n),
        person_ids=[f"a.jpg#{k}" for k in range(n)],
        images=["a.jpg"] * n,
        sources=np.array([["framesdb", None][k % 2] for k in range(n)], object),
        people_in_photo=np.full(n, n),
        has_face=np.arange(n) != 1,
        labels=(rng.random((n, 26)) < 0.3).astype(np.uint8),
        probabilities=rng.random((n, 26), np.float32),
        stream_probabilities={"face": face},
        vad=vad,
        predicted_vad=np.full((n, 3), np.nan, np.float32),
    )


def _assert_same(ours: Predictions, theirs: Predictions) -> None:
    assert ours.stream_probabilities.keys() == theirs.stream_probabilities.keys()
    for one in dataclasses.fields(Predictions):
        np.testing.assert_array_equal(
            *(_plain(getattr(side, one.name)) for side in (ours, theirs)), err_msg=one.name, strict=True
        )


def _plain(value: Any) -> np.ndarray:
    return np.array(list(value.values())) if isinstance(value, dict) else np.asarray(value)


@pytest.mark.parametrize("n", [3, 1])
def test_file_gives_back_what_was_written(tmp_path: Path, n: int) -> None:
    path = tmp_path / "predictions.parquet"
    write_predictions(path, _predictions(n), key="abc", left_out={"no_face": 2})
    _assert_same(read_predictions(path), _predictions(n))
    kept = read_kept_predictions(path, "abc")
    assert kept is not None and kept[1] == {"no_face": 2}
    _assert_same(kept[0], _predictions(n))


def test_nobody_is_an_ordinary_file(tmp_path: Path) -> None:
    path = tmp_path / "predictions.parquet"
    write_predictions(path, _predictions(0), key="abc", left_out={})
    read = read_predictions(path)
    assert len(read) == 0 and read.labels.shape == (0, 26) and read.stream_probabilities == {}


def test_other_key_or_no_file_keeps_nothing(tmp_path: Path) -> None:
    path = tmp_path / "predictions.parquet"
    assert read_kept_predictions(path, "abc") is None
    write_predictions(path, _predictions(), key="abc", left_out={})
    assert read_kept_predictions(path, "abd") is None and read_kept_predictions(path, "ab") is None
    with pytest.raises(TableError, match=r"nowhere\.parquet: no such file; delete it and run 'emoface evaluate' again"):
        read_predictions(tmp_path / "nowhere.parquet")


def test_taken_rows_keep_together() -> None:
    all_three = _predictions()
    turned = all_three.take(np.array([2, 0]))
    assert turned.person_ids == ["a.jpg#2", "a.jpg#0"] and turned.index.tolist() == [12, 10]
    assert turned.stream_probabilities["face"].tolist() == all_three.stream_probabilities["face"][[2, 0]].tolist()
    _assert_same(all_three.take(all_three.has_face), all_three.take(np.array([0, 2])))
    assert len(all_three.take(np.zeros(3, bool))) == 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"probabilities": np.zeros((3, 25))}, r"probabilities has shape \(3, 25\), expected \(3, 26\) for 3 people"),
        ({"labels": np.zeros((2, 26))}, r"labels has shape \(2, 26\), expected \(3, 26\) for 3 people"),
        ({"has_face": np.zeros(2, bool)}, r"has_face has shape \(2,\), expected \(3,\) for 3 people"),
        ({"vad": np.zeros((3, 2))}, r"vad has shape \(3, 2\), expected \(3, 3\) for 3 people"),
        ({"images": ["a"]}, "1 images for 3 people, expected one for each"),
        ({"stream_probabilities": {"face": np.zeros((3, 3))}}, r"face_probabilities has shape \(3, 3\)"),
        ({"stream_probabilities": {"hand": np.zeros((3, 26))}}, "no stream is called 'hand', expected face, body"),
    ],
)
def test_wrong_shapes_are_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(_predictions(), **change)


def test_where_they_lie() -> None:
    assert predictions_path(Path("runs/a"), "val") == Path("runs/a/eval/val/predictions.parquet")
