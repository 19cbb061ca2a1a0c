"""The committed cards: what they say must agree with itself and with the page they were copied from."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from emoface.schema import CATEGORIES, SOURCES
from emoface.storage.cards import read_card

TABLES = {
    "table_4_2": ("task2", "task2+task3", "mter1", "mter2"),
    "table_4_3": ("kosti", "caer-net", "affective-graph", "emoticon", "mter2"),
}
PACKAGED_WEIGHTS = Path(__file__).parents[1] / "emoface" / "weights_data"
COLUMNS = [(table, column) for table, columns in TABLES.items() for column in columns]


@pytest.mark.parametrize(("table", "column"), COLUMNS)
def test_average_precisions_average_to_the_printed_mean(table: str, column: str) -> None:
    card = read_card("thesis")[table]["columns"][column]
    values = card["average_precision"]
    assert tuple(values) == CATEGORIES
    assert all(0 < value < 100 for value in values.values())
    assert sum(values.values()) / len(values) == pytest.approx(card["mean_average_precision"], abs=0.02)


def test_thesis_card_has_these_columns_and_no_others() -> None:
    card = read_card("thesis")
    assert {name: tuple(table["columns"]) for name, table in card.items()} == TABLES
    ours = [card[table]["columns"]["mter2"] for table in TABLES]
    assert ours[0] == ours[1]


@pytest.mark.parametrize("table", TABLES)
def test_thesis_card_is_what_the_thesis_prints(shared_dir: Path, table: str) -> None:
    text = (shared_dir / "thesis.txt").read_text(encoding="utf-8")
    heading = f"<Table {table[-3]}-{table[-1]}>"
    lines = text[text.rindex(heading) :].splitlines()[2:]
    printed = [line.split("\t") for line in lines[: len(CATEGORIES) + 2]]
    columns = list(read_card("thesis")[table]["columns"].values())
    assert len(printed[0]) == len(columns) + 1 and printed[-1][0] == "mAP"
    for number, (name, row) in enumerate(zip(CATEGORIES, printed[1:-1], strict=True), 1):
        assert row[0] == f"{number}.{name}"
        assert [float(cell) for cell in row[1:]] == [column["average_precision"][name] for column in columns]
    assert [float(cell) for cell in printed[-1][1:]] == [column["mean_average_precision"] for column in columns]


def test_emotic_card_adds_up() -> None:
    card = read_card("emotic")
    assert (card["published"]["photos"], card["published"]["people"]) == (23571, 34320)
    assert card["published"]["categories"] == len(CATEGORIES)
    assert sum(card["published"]["split_shares"].values()) == pytest.approx(1)
    rows = card["circulating_rows"]
    assert rows["train"] + rows["val"] + rows["test"] == rows["people"]
    assert set(card["folders"]) == set(SOURCES)
    assert all(folder == f"{source}/images" for source, folder in card["folders"].items())


def test_weight_cards_name_what_can_be_checked() -> None:
    for name, card in read_card("weights")["weights"].items():
        assert {"network", "task", "licence", "format", "origin", "files"} <= card.keys(), name
        for one in card["files"]:
            assert re.fullmatch(r"[0-9a-f]{64}", one["sha256"]), name
            assert one["bytes"] > 0, name
            packaged = PACKAGED_WEIGHTS / one["file"]
            if "address" in one:
                assert re.match(r"https?://", one["address"]), name
            else:
                assert packaged.stat().st_size == one["bytes"], f"{name}: neither address nor packaged file"
