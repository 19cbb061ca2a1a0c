"""The card of a data set: what it says of whose photos, its metadata, and its description in the Croissant format."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner
from mter_data import write_photos_and_tables

from emoface.cli import main
from emoface.datasets.manifest import Manifest, read_manifest
from emoface.emotic.split_counts import emotic_people
from emoface.errors import SettingsError, TableError
from emoface.jobs.card import CardConfig, run_card
from emoface.reporting.data_card import DataCard, is_whole_emotic, render_data_card
from emoface.schema import SIMULATION_NAME, SPLIT_SCHEMA, SPLITS


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set with its card; to be read only."""
    root = tmp_path_factory.mktemp("card")
    work = write_photos_and_tables(root, 8).parent
    answer = CliRunner().invoke(main, ["card", str(work), "--name", "Coloured squares"])
    assert answer.exit_code == 0, answer.stderr
    return work


def _metadata(text: str) -> dict[str, object]:
    start, header, _ = text.split("---\n", 2)
    assert start == ""
    return dict(yaml.safe_load(header))


def _with_counts(manifest: Manifest, **counts: object) -> Manifest:
    return dataclasses.replace(manifest, annotations={"files": {"/home/me/train.csv": "ab12"}, "counts": counts})


def test_card_has_metadata_with_which_datasets_finds_the_splits(work: Path, tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    metadata = _metadata((work / "README.md").read_text(encoding="utf-8"))
    assert metadata["pretty_name"] == "Coloured squares" and metadata["license"] == "other"
    assert metadata["size_categories"] == ["n<1K"] and metadata["task_categories"] == ["image-classification"]
    loaded = datasets.load_dataset(str(work), cache_dir=str(tmp_path))
    rows = {name: one.rows for name, one in read_manifest(work / "manifest.json").splits.items()}
    assert {name: len(split) for name, split in loaded.items()} == rows and sum(rows.values()) == 16


def test_card_of_ones_own_photos_speaks_of_them(work: Path) -> None:
    text = (work / "README.md").read_text(encoding="utf-8")
    assert "16 people in photos" in text and "**The photos are not included**" in text
    manifest = read_manifest(work / "manifest.json")
    train = manifest.splits["train"]
    assert f"| train | {train.rows} | {train.photos} | {train.faces} | `train.parquet` |" in text
    assert f"no face was found for {train.rows - train.faces} of {train.rows} people" in text
    assert "Where the photos are from and who annotated them is not recorded" in text
    assert "Kosti" not in text and "MSCOCO" not in text and "The manifest does not record a licence. If it is a" in text
    assert "Labels that nobody has: Anger," in text and "faces were found by `drawn`" in text
    assert str(work) not in text


def test_drawings_and_the_whole_of_emotic_are_called_so(work: Path, tmp_path: Path) -> None:
    shutil.copytree(work, tmp_path / "work")
    manifest = read_manifest(tmp_path / "work" / "manifest.json")
    whole = {split: emotic_people(split) for split in SPLITS}
    emotic = _with_counts(manifest, people_by_split=whole, people_by_source={"mscoco": 9, "framesdb": 0})
    text = render_data_card(emotic, DataCard("EMOTIC", license="cc-by-4.0"))
    assert "have all people of EMOTIC (Kosti et al. 2019" in text and "may not be passed on" in text
    assert "`cc-by-4.0`, as whoever wrote this card has stated" in text
    assert "- `train.csv`, sha256 `ab12`" in text and "/home/me" not in text and "mscoco 9." in text
    assert not is_whole_emotic(_with_counts(manifest, people_by_split={**whole, "val": 3}))
    assert not is_whole_emotic(_with_counts(manifest, people_by_split=whole, people_by_source={"mine": 9}))

    drawn = dataclasses.replace(emotic, image_root=str(tmp_path / "sim" / "emotic"))
    (tmp_path / "sim" / "emotic").mkdir(parents=True)
    (tmp_path / "sim" / SIMULATION_NAME).write_text("{}")
    text = render_data_card(drawn, DataCard("drawings"))
    assert "The photos are drawings of `emoface simulate`" in text and "Kosti" not in text


def test_croissant_describes_every_column_of_every_split(work: Path) -> None:
    described = json.loads((work / "croissant.json").read_text(encoding="utf-8"))
    manifest = read_manifest(work / "manifest.json")
    files = {one["@id"]: one["sha256"] for one in described["distribution"]}
    assert files == {one.file: one.sha256 for one in manifest.splits.values()}
    splits, *others = described["recordSet"]
    assert splits["data"] == [{"splits/name": split} for split in SPLITS]
    for split, record_set in zip(SPLITS, others, strict=True):
        assert [one["@id"] for one in record_set["field"]] == [f"{split}/{name}" for name in SPLIT_SCHEMA.names]
        shapes = {one["name"]: one["arrayShape"] for one in record_set["field"] if one.get("isArray")}
        assert shapes == {
            **{"image_wh": "2", "body_bbox": "4", "face_bbox": "4", "landmarks": "10", "categories": "-1"},
            **dict.fromkeys(("labels", "annotator_votes"), "26"),
        }


def test_mlcroissant_reads_what_is_described(work: Path) -> None:
    croissant = pytest.importorskip("mlcroissant", reason="the package mlcroissant is not installed")
    described = croissant.Dataset(str(work / "croissant.json"))
    assert not described.metadata.ctx.issues.errors
    for split, one in read_manifest(work / "manifest.json").splits.items():
        records = list(described.records(split))
        assert len(records) == one.rows
        assert sum(record[f"{split}/face"] is not None for record in records) == one.faces


def test_readme_that_somebody_wrote_is_kept(work: Path, tmp_path: Path) -> None:
    shutil.copytree(work, tmp_path / "work")
    run_card(CardConfig(dir=tmp_path / "work"))  # a card by emoface is replaced
    assert '"work"' in (tmp_path / "work" / "README.md").read_text()
    (tmp_path / "work" / "README.md").write_text("my notes")
    with pytest.raises(SettingsError, match=r"README\.md: was not written by emoface and is not replaced; rename it"):
        run_card(CardConfig(dir=tmp_path / "work"))
    with pytest.raises(TableError, match=r"manifest\.json: no such file; write it with 'emoface split DIR'"):
        run_card(CardConfig(dir=tmp_path))
