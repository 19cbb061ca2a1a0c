"""Shards: what is pending, what marks a shard as done, what is removed; keys that folders on disk already have."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from emoface.errors import TableError
from emoface.storage.shards import ShardFolder, Summary, SummaryModel, shards_key

SHARDS = [["a", "b"], ["c", "d"], ["e"]]


class _Items(SummaryModel):
    items: list[str]


class _Counting:
    """Adds up what it is told."""

    n = 0

    def start(self, description: str, total: int) -> None: ...

    def advance(self, n: int = 1) -> None:
        self.n += n

    def describe(self, text: str) -> None: ...

    def note(self, text: str) -> None: ...


def _is_whole(_number: int, shard: list[str], summary: Summary) -> bool:
    return bool(summary["items"] == shard)


def test_key_does_not_depend_on_the_order_of_settings_and_stays_what_it_was() -> None:
    assert shards_key([{"b": 1, "a": 0.5}, "x"]) == shards_key([{"a": 0.5, "b": 1}, "x"]) == "2f9f21fa3baa723a"
    assert shards_key([{"b": 1, "a": 0.5}, "y"]) != shards_key([{"b": 1, "a": 0.5}, "x"])


def test_shard_without_a_summary_or_with_one_that_does_not_agree_is_pending(tmp_path: Path) -> None:
    folder, progress = ShardFolder(tmp_path / "key", _Items), _Counting()
    assert folder.find_pending(SHARDS, _is_whole, progress) == [(0, ["a", "b"]), (1, ["c", "d"]), (2, ["e"])]
    folder.mark_done(0, '{"items": ["a", "b"]}\n')
    folder.mark_done(1, '{"items": ["c", "other"]}')
    assert folder.find_pending(SHARDS, _is_whole, progress) == [(1, ["c", "d"]), (2, ["e"])]
    assert progress.n == 2 and folder.summary_path(0).read_text() == '{"items": ["a", "b"]}\n'
    assert folder.read_summary(1) == {"items": ["c", "other"]}
    folder.unmark(0)
    folder.unmark(2)
    assert len(folder.find_pending(SHARDS, _is_whole)) == 3


@pytest.mark.parametrize(
    "content",
    [b"", b'{"items": ["a", ', b"[]", b"null", b'{"items": 3}', b"{}", b'{"items": [1]}', b"\xff\xfe", b"[" * 100_000],
)
def test_damaged_summary_means_not_finished(tmp_path: Path, content: bytes) -> None:
    folder = ShardFolder(tmp_path, _Items)
    folder.mark_done(0, '{"items": ["a", "b"]}')
    folder.summary_path(1).write_bytes(content)
    assert folder.find_pending(SHARDS, _is_whole) == [(1, ["c", "d"]), (2, ["e"])]
    with pytest.raises(TableError, match="not the summary of a shard") as error:
        folder.read_summary(1)
    assert str(error.value).startswith(str(folder.summary_path(1))) and "\n" not in str(error.value)


def test_no_shards_have_nothing_pending(tmp_path: Path) -> None:
    none: list[list[str]] = []
    assert ShardFolder(tmp_path, _Items).find_pending(none, _is_whole) == []


def test_files_are_named_by_number_and_ending(tmp_path: Path) -> None:
    folder = ShardFolder(tmp_path, _Items)
    assert folder.file_path(7, "face.npy") == tmp_path / "00007.face.npy"
    assert folder.summary_path(12345) == tmp_path / "12345.json"


@pytest.mark.parametrize(("endings", "left"), [((), [".00000-abcdefgh-4321.parquet"]), (("parquet",), [])])
def test_leftovers_go_and_finished_files_stay(tmp_path: Path, endings: tuple[str, ...], left: list[Any]) -> None:
    names = ["00000.json", "00000.parquet", ".00000-abcdefgh-4321.parquet", ".00000-abcdefgh-4321.json"]
    for name in names:
        (tmp_path / name).write_text("{}")
    ShardFolder(tmp_path, _Items).remove_leftovers(*endings)
    assert sorted(path.name for path in tmp_path.iterdir()) == [*left, "00000.json", "00000.parquet"]


def test_folders_of_other_keys_go_where_their_name_fits(tmp_path: Path) -> None:
    for name in ("train-1", "train-2", "val-1"):
        ShardFolder(tmp_path / name, _Items).mark_done(0, "{}")
    ShardFolder(tmp_path / "train-2", _Items).remove_other_keys("train-*")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["train-2", "val-1"]
    ShardFolder(tmp_path / "train-2", _Items).remove_other_keys()
    assert [path.name for path in tmp_path.iterdir()] == ["train-2"]
