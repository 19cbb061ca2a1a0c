from __future__ import annotations

import io
import json
import subprocess
import sys
from pathlib import Path
from typing import Literal

import datasets
import duckdb
import numpy as np
import pandas as pd
import polars
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from emoface.datasets.manifest import read_manifest
from emoface.errors import SettingsError, TableError
from emoface.jobs import split as split_job
from emoface.jobs.split import SplitConfig, parse_cap, parse_ratios, run_split
from emoface.schema import CATEGORIES, FACES_SCHEMA, LEFT_OUT_COLUMNS, PEOPLE_SCHEMA, SPLIT_SCHEMA, SPLITS
from emoface.storage.files import file_sha256
from emoface.storage.records import JobRecord, read_record, write_record
from emoface.storage.tables import write_table

N_PEOPLE = 300


def _jpeg() -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (24, 20), (200, 60, 60)).save(stream, "JPEG")
    return stream.getvalue()


def _write_dataset(out: Path, n: int, seed: int = 0) -> None:
    """n people, about three in two photos, a third of them without a face."""
    random = np.random.default_rng(seed)
    indicator = (random.random((n, 26)) < np.geomspace(0.7, 0.03, 26)).astype(np.uint8)
    photos = np.sort(random.integers(0, max(2 * n // 3, 1), n))
    face = {"bytes": _jpeg(), "path": None}
    people, faces = [], []
    for index in range(n):
        image = f"framesdb/images/{photos[index]}.jpg"
        key = {"index": index, "person_id": f"{image}#{index}"}
        people.append(
            {
                **key,
                "image": image,
                "source": "framesdb",
                "source_split": SPLITS[photos[index] % 3],
                "image_wh": [640, 400],
                "body_bbox": [1.0, 2.0, 300.0, 390.0],
                "categories": [name for name, present in zip(CATEGORIES, indicator[index], strict=True) if present],
                "labels": indicator[index].tolist(),
                "annotator_votes": indicator[index].tolist(),
                "n_annotators": 1,
                "valence": 5.0,
            }
        )
        if index % 3:
            found = {"face": face, "face_bbox": [9.0] * 4, "landmarks": [1.0] * 10, "conf": 0.9}
            faces.append({**key, **found, "face_status": "found"})
        else:
            faces.append({**key, "face_status": "no_face"})
    write_table(out / "people.parquet", pa.Table.from_pylist(people, schema=PEOPLE_SCHEMA), PEOPLE_SCHEMA)
    write_table(out / "faces.parquet", pa.Table.from_pylist(faces, schema=FACES_SCHEMA), FACES_SCHEMA, 70)
    annotations = {"inputs": {"Annotations.mat": "ab" * 32}, "counts": {"people": n}}
    info = {"image_root": "photos", "annotations": "Annotations.mat"}
    write_record(out, JobRecord("parse", {}, outputs={}, info=info, **annotations))
    detector = {"detector": "yolov5n-face", "weights_sha256": "cd" * 32, "conf_threshold": 0.5}
    write_record(out, JobRecord("faces", {}, {}, {}, {}, info=detector))


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    _write_dataset(tmp_path / "work", N_PEOPLE)
    return tmp_path / "work"


def _read(out: Path) -> dict[str, pd.DataFrame]:
    return {name: pd.read_parquet(out / f"{name}.parquet") for name in SPLITS}


def _labels(rows: pd.DataFrame) -> np.ndarray:
    return np.array(rows["labels"].tolist()).reshape(-1, 26)


@pytest.mark.parametrize("by", ["stratified", "emotic"])
def test_every_person_is_in_one_split_and_every_photo_too(dataset: Path, by: str) -> None:
    record = run_split(SplitConfig(dir=dataset, by=by))
    tables = _read(dataset)
    people = pd.concat(tables.values())
    assert sorted(people["index"]) == list(range(N_PEOPLE))
    assert people.groupby("image")["split"].nunique().max() == 1
    assert record.counts["photos_in_two_splits"] == 0
    for name, rows in tables.items():
        assert rows["index"].is_monotonic_increasing and (rows["split"] == name).all()
        assert record.counts[name]["rows"] == len(rows)
        assert record.counts[name]["photos"] == rows["image"].nunique()
        assert record.counts[name]["faces"] == rows["face"].notna().sum() == (rows["face_status"] == "found").sum()
        if by == "emotic":
            assert (rows["source_split"] == name).all()


def test_stratified_split_meets_its_targets(dataset: Path) -> None:
    record = run_split(SplitConfig(dir=dataset, ratios=(0.6, 0.1, 0.3)))
    tables = _read(dataset)
    totals = sum(_labels(rows).sum(axis=0) for rows in tables.values())
    n_photos = sum(rows["image"].nunique() for rows in tables.values())
    for name, ratio in zip(SPLITS, (0.6, 0.1, 0.3), strict=True):
        assert abs(tables[name]["image"].nunique() - ratio * n_photos) < 1
        people = _labels(tables[name]).sum(axis=0)
        assert (np.abs(people - ratio * totals) <= np.maximum(0.01 * totals, 1))[totals >= 50].all()
    assert 0 < record.counts["largest_label_deviation"] <= 0.02


def test_rows_are_those_of_both_tables(dataset: Path) -> None:
    run_split(SplitConfig(dir=dataset))
    rows = pa.concat_tables([pq.read_table(dataset / f"{name}.parquet") for name in SPLITS]).sort_by("index")
    assert rows.schema.names == SPLIT_SCHEMA.names
    for name in ("people", "faces"):
        table = pq.read_table(dataset / f"{name}.parquet")
        assert rows.select(table.schema.names).to_pylist() == table.to_pylist()


def test_row_groups_are_full_whatever_the_batches_were(dataset: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(split_job, "_ROWS_PER_GROUP", 64)
    run_split(SplitConfig(dir=dataset))
    written = pq.ParquetFile(dataset / "train.parquet").metadata
    sizes = [written.row_group(number).num_rows for number in range(written.num_row_groups)]
    assert set(sizes[:-1]) == {64} and sum(sizes) == written.num_rows


def test_same_seed_gives_the_same_bytes_and_another_seed_another_split(dataset: Path) -> None:
    names = [*(f"{name}.parquet" for name in SPLITS), "manifest.json", "records/split.json"]
    run_split(SplitConfig(dir=dataset, seed=1))
    first = {name: file_sha256(dataset / name) for name in names}
    run_split(SplitConfig(dir=dataset, seed=1))
    assert {name: file_sha256(dataset / name) for name in names} == first
    run_split(SplitConfig(dir=dataset, seed=2))
    assert file_sha256(dataset / "train.parquet") != first["train.parquet"]


def test_manifest_holds_what_training_needs(dataset: Path) -> None:
    record = run_split(SplitConfig(dir=dataset, ratios=parse_ratios("60/10/30"), seed=4))
    manifest = read_manifest(dataset / "manifest.json", check_sha256=True)
    assert manifest.label_names == CATEGORIES
    assert manifest.image_root == str(dataset / "photos")
    assert json.loads((dataset / "manifest.json").read_text())["image_root"] == "photos"
    assert manifest.annotations["files"] == {"Annotations.mat": "ab" * 32}
    assert manifest.annotations["counts"] == {"people": N_PEOPLE}
    assert manifest.detector == {"name": "yolov5n-face", "weights_sha256": "cd" * 32, "conf_threshold": 0.5}
    assert manifest.split["by"] == "stratified" and manifest.split["seed"] == 4
    assert manifest.split["ratios"] == {"train": 0.6, "val": 0.1, "test": 0.3}
    assert manifest.balance == {"rule": "none"}
    for name, rows in _read(dataset).items():
        assert manifest.splits[name].rows == len(rows)
        assert list(manifest.splits[name].label_counts.values()) == _labels(rows).sum(axis=0).tolist()
        assert manifest.split_path(name) == dataset / f"{name}.parquet"
    assert record.outputs["train.parquet"] == manifest.splits["train"].sha256
    assert read_record(dataset, "split") == JobRecord(**json.loads((dataset / "records/split.json").read_text()))


def test_cap_leaves_people_out_of_train_only_and_lists_them(dataset: Path) -> None:
    run_split(SplitConfig(dir=dataset))
    before = _read(dataset)
    record = run_split(SplitConfig(dir=dataset, balance="cap:40"))
    after, capped = _read(dataset), pd.read_csv(dataset / "capped.csv")
    assert _labels(before["train"]).sum(axis=0).max() > 40 >= _labels(after["train"]).sum(axis=0).max()
    assert sorted([*after["train"]["index"], *capped["index"]]) == before["train"]["index"].tolist()
    assert list(capped.columns) == ["index", "person_id", "image"]
    assert record.counts["capped"] == len(capped) > 0 and "capped.csv" in record.outputs
    for name in ("val", "test"):
        assert after[name]["index"].tolist() == before[name]["index"].tolist()
    balance = read_manifest(dataset / "manifest.json").balance
    assert (balance["rule"], balance["limit"], balance["capped"]) == ("cap:40", 40, len(capped))
    run_split(SplitConfig(dir=dataset))
    assert not (dataset / "capped.csv").exists()


# --- people who are annotated more than once -------------------------------------------------------------------------

TRAIN_ROWS, VAL_ROWS, TEST_ROWS = range(30), range(30, 60), range(60, 90)


@pytest.fixture
def repeated(tmp_path: Path) -> Path:
    """90 rows: 30 each of train, val and test, one person a photo, but rows 30 to 39 are the people of rows 0 to 9.

    Rows 0 and 30 are joined by 60, a row of test; row 89 is the person of row 88. Rows of val have a label more.
    """
    out = tmp_path / "repeated"
    _write_dataset(out, 90)
    people = pq.read_table(out / "people.parquet").to_pylist()
    same_as = {**{30 + k: k for k in range(10)}, 60: 0, 89: 88}
    for row, person in enumerate(people):
        first = same_as.get(row, row)
        image = f"framesdb/images/{first}.jpg"
        person |= {"source_split": SPLITS[row // 30], "image": image, "person_id": f"{image}#{row}"}
        person["labels"] = [int(k == first % 5 or (k == 25 and row >= 30)) for k in range(26)]
        person["same_person_as"] = same_as.get(row)
    faces = pq.read_table(out / "faces.parquet").to_pylist()
    for person, face in zip(people, faces, strict=True):
        face["person_id"] = person["person_id"]
    write_table(out / "people.parquet", pa.Table.from_pylist(people, schema=PEOPLE_SCHEMA), PEOPLE_SCHEMA)
    write_table(out / "faces.parquet", pa.Table.from_pylist(faces, schema=FACES_SCHEMA), FACES_SCHEMA)
    return out


def _persons(rows: pd.DataFrame) -> list[int]:
    """The first row of each row's person."""
    return rows["same_person_as"].fillna(rows["index"]).astype(int).tolist()


def _left_out(out: Path) -> dict[int, int]:
    """``index`` of each row left out, and of the row kept in its place."""
    table = pd.read_csv(out / "left_out.csv")
    assert list(table.columns) == list(LEFT_OUT_COLUMNS)
    people = pd.read_parquet(out / "people.parquet").set_index("index")
    assert table["person_id"].tolist() == people.loc[table["index"], "person_id"].tolist()
    assert table["image"].tolist() == people.loc[table["index"], "image"].tolist()
    return dict(zip(table["index"].tolist(), table["kept_index"].tolist(), strict=True))


@pytest.mark.parametrize(("labels", "kept"), [("evaluation", {0: 60, 88: 88}), ("train", {0: 0, 88: 88})])
def test_stratified_split_has_each_person_once_with_the_labels_asked_for(
    repeated: Path, labels: Literal["evaluation", "train"], kept: dict[int, int]
) -> None:
    kept |= {k: 30 + k if labels == "evaluation" else k for k in range(1, 10)}
    record = run_split(SplitConfig(dir=repeated, repeated_labels=labels))
    rows = pd.concat(_read(repeated).values())
    assert len(rows) == 90 - 12
    assert sorted(_persons(rows)) == sorted(set(range(90)) - set(range(30, 40)) - {60, 89})
    index_of = dict(zip(_persons(rows), rows["index"], strict=True))
    assert {person: index_of[person] for person in kept} == kept
    first_ten = rows[[person < 10 for person in _persons(rows)]]
    assert (_labels(first_ten)[:, 25] == (labels == "evaluation")).all()
    expected = {row: kept[first] for first in kept for row in (first, first + 30) if row in range(60) and first < 10}
    expected |= {60: kept[0], 89: 88}
    assert _left_out(repeated) == {row: chosen for row, chosen in expected.items() if row != chosen}
    leaks = read_manifest(repeated / "manifest.json").split["leaks"]
    assert (leaks["rule"], leaks["labels"], leaks["rows_left_out"], leaks["file"]) == (
        "drop",
        labels,
        12,
        "left_out.csv",
    )
    assert leaks["rows_annotated_again"] == 12 and leaks["sha256"] == file_sha256(repeated / "left_out.csv")
    assert record.counts["rows_left_out"] == record.counts["rows_annotated_again"] == 12
    assert record.outputs["left_out.csv"] == leaks["sha256"]


def test_emotics_split_keeps_val_and_test_and_takes_their_people_out_of_train(repeated: Path) -> None:
    run_split(SplitConfig(dir=repeated, by="emotic"))
    tables = _read(repeated)
    assert tables["val"]["index"].tolist() == list(VAL_ROWS) and tables["test"]["index"].tolist() == list(TEST_ROWS)
    assert tables["train"]["index"].tolist() == list(TRAIN_ROWS)[10:]
    assert _left_out(repeated) == {k: 30 + k for k in range(10)}
    leaks = read_manifest(repeated / "manifest.json").split["leaks"]
    assert (leaks["rule"], leaks["labels"], leaks["rows_left_out"]) == ("drop", None, 10)


@pytest.mark.parametrize("by", ["stratified", "emotic"])
def test_kept_leaks_leave_every_row_in(repeated: Path, by: Literal["stratified", "emotic"]) -> None:
    run_split(SplitConfig(dir=repeated))
    run_split(SplitConfig(dir=repeated, by=by, leaks="keep"))
    assert sorted(pd.concat(_read(repeated).values())["index"]) == list(range(90))
    assert _left_out(repeated) == {}
    leaks = read_manifest(repeated / "manifest.json").split["leaks"]
    assert (leaks["rule"], leaks["labels"], leaks["rows_left_out"], leaks["rows_annotated_again"]) == (
        "keep",
        None,
        0,
        12,
    )


def test_cap_and_weights_count_no_row_that_is_left_out(repeated: Path) -> None:
    run_split(SplitConfig(dir=repeated, by="emotic", balance="cap:3"))
    train, capped = _read(repeated)["train"], pd.read_csv(repeated / "capped.csv")
    assert sorted([*train["index"], *capped["index"]]) == list(TRAIN_ROWS)[10:]
    assert _labels(train).sum(axis=0).max() == 3 and len(capped) == 5  # four people of each of five labels
    assert set(_left_out(repeated)) == set(range(10))
    run_split(SplitConfig(dir=repeated, by="emotic", balance="weights"))
    weights = pd.read_parquet(repeated / "sampling_weights.parquet")
    assert weights["index"].tolist() == _read(repeated)["train"]["index"].tolist() == list(TRAIN_ROWS)[10:]
    assert weights["weight"].mean() == pytest.approx(1)


def test_weights_are_of_the_people_of_train(dataset: Path) -> None:
    record = run_split(SplitConfig(dir=dataset, balance="weights"))
    train, weights = _read(dataset)["train"], pd.read_parquet(dataset / "sampling_weights.parquet")
    assert weights["index"].tolist() == train["index"].tolist()
    assert weights["weight"].mean() == pytest.approx(1) and weights["weight"].min() > 0
    labels = _labels(train)
    weighted = (labels * weights["weight"].to_numpy()[:, None]).sum(axis=0)
    counts = labels.sum(axis=0)
    assert weighted.max() / weighted.min() < counts.max() / counts.min()
    assert "sampling_weights.parquet" in record.outputs
    run_split(SplitConfig(dir=dataset))
    assert not (dataset / "sampling_weights.parquet").exists()


def test_hugging_face_shows_faces_and_knows_the_names(
    dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    run_split(SplitConfig(dir=dataset))
    files = {name: str(dataset / f"{name}.parquet") for name in SPLITS}
    plain = datasets.load_dataset("parquet", data_files=files, cache_dir=str(tmp_path / "plain"))
    rows = _read(dataset)["train"]
    assert isinstance(plain["train"].features["face"], datasets.Image)
    assert plain["train"].features["labels"].length == 26
    found = rows["face"].notna().to_numpy()
    shown = [row["face"] for row in plain["train"].select(range(20))]
    assert [face is not None for face in shown] == found[:20].tolist()
    assert next(face for face in shown if face).size == (24, 20)

    features = datasets.Features.from_dict(read_manifest(dataset / "manifest.json").features)
    named = datasets.load_dataset("parquet", data_files=files, features=features, cache_dir=str(tmp_path / "named"))[
        "train"
    ]
    label = named.features["categories"].feature
    assert label.names == list(CATEGORIES)
    assert [label.int2str(number) for number in named[3]["categories"]] == rows["categories"][3].tolist()
    assert isinstance(named.features["face"], datasets.Image)


def test_other_readers_open_the_tables(dataset: Path) -> None:
    run_split(SplitConfig(dir=dataset))
    path = dataset / "train.parquet"
    rows = _read(dataset)["train"]
    count = duckdb.sql(f"select count(*), sum(labels[12]), count(face.bytes) from '{path}'").fetchall()[0]
    assert count == (len(rows), _labels(rows)[:, 11].sum(), rows["face"].notna().sum())
    assert polars.read_parquet(path)["person_id"].to_list() == rows["person_id"].tolist()


def test_nobody_at_all_gives_empty_tables(tmp_path: Path) -> None:
    _write_dataset(tmp_path, 0)
    for balance in ("none", "cap:3", "weights"):
        record = run_split(SplitConfig(dir=tmp_path, balance=balance))
        assert [record.counts[name]["rows"] for name in SPLITS] == [0, 0, 0]
    assert read_manifest(tmp_path / "manifest.json", check_sha256=True).split["label_shares"]["Fear"] is None


def test_interrupted_run_leaves_no_manifest_of_other_tables(dataset: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run_split(SplitConfig(dir=dataset, seed=1))
    before = file_sha256(dataset / "train.parquet")

    def fail(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(split_job._SplitWriter, "add", fail)
        run_split(SplitConfig(dir=dataset, seed=2))
    assert file_sha256(dataset / "train.parquet") == before  # nothing was replaced, so the manifest still holds
    read_manifest(dataset / "manifest.json", check_sha256=True)
    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(split_job, "write_manifest", fail)
        run_split(SplitConfig(dir=dataset, seed=2))
    assert not (dataset / "manifest.json").exists() and read_record(dataset, "split") is None
    assert not list(dataset.glob(".*"))


def test_tables_that_do_not_match_are_refused(dataset: Path) -> None:
    faces = pq.read_table(dataset / "faces.parquet")
    write_table(dataset / "faces.parquet", faces.slice(1), FACES_SCHEMA)
    with pytest.raises(TableError, match=r"faces\.parquet: 299 rows, expected the 300 of people\.parquet; rebuild"):
        run_split(SplitConfig(dir=dataset))
    order = [*range(99), 100, 99, *range(101, N_PEOPLE)]
    write_table(dataset / "faces.parquet", faces.take(order), FACES_SCHEMA)
    with pytest.raises(TableError, match=r"faces\.parquet: row 99 is of .*#100, expected .*#99 as in people\.parquet"):
        run_split(SplitConfig(dir=dataset))


def test_missing_tables_and_records_are_named(tmp_path: Path) -> None:
    with pytest.raises(TableError, match=r"parse\.json: no such file; run 'emoface parse' first"):
        run_split(SplitConfig(dir=tmp_path))
    _write_dataset(tmp_path, 3)
    (tmp_path / "faces.parquet").unlink()
    with pytest.raises(TableError, match=r"faces\.parquet: no such file; rebuild it with 'emoface faces DIR'"):
        run_split(SplitConfig(dir=tmp_path))


def test_unknown_source_split_is_refused_only_where_it_is_needed(dataset: Path) -> None:
    people = pq.read_table(dataset / "people.parquet")
    position = people.schema.get_field_index("source_split")
    training = people.set_column(position, "source_split", pa.array(["training"] * N_PEOPLE))
    write_table(dataset / "people.parquet", training, PEOPLE_SCHEMA)
    with pytest.raises(TableError, match="source_split 'training' is none of train, val, test; use --by stratified"):
        run_split(SplitConfig(dir=dataset, by="emotic"))
    run_split(SplitConfig(dir=dataset))


@pytest.mark.parametrize("ratios", ["70/30", "70/10/10", "a/b/c", "", "-10/50/60", "0/50/50", "nan/0/1"])
def test_bad_ratios_are_refused(ratios: str) -> None:
    with pytest.raises(SettingsError, match=rf"ratios are '{ratios}', expected three shares of train, val and test"):
        parse_ratios(ratios)


def test_ratios_are_read_in_percent_and_as_shares(tmp_path: Path) -> None:
    assert parse_ratios("70/10/20") == parse_ratios("0.7/0.1/0.2") == parse_ratios([70, 10, 20]) == (0.7, 0.1, 0.2)
    assert SplitConfig(dir=tmp_path, ratios="80/10/10").ratios == (0.8, 0.1, 0.1)  # type: ignore[arg-type]


def test_bad_settings_are_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="by is 'stratifed'; did you mean 'stratified'"):
        SplitConfig(dir=tmp_path, by="stratifed")
    with pytest.raises(SettingsError, match="balance is 'weight'; did you mean 'weights'"):
        SplitConfig(dir=tmp_path, balance="weight")
    with pytest.raises(SettingsError, match="balance is 'cap:0', expected cap:N with N of 1 or more"):
        parse_cap("cap:0")
    with pytest.raises(SettingsError, match="seed is -1, expected 0 or more"):
        SplitConfig(dir=tmp_path, seed=-1)


def test_command_splits_and_prints_its_counts(dataset: Path) -> None:
    call = [sys.executable, "-m", "emoface", "split", str(dataset), "--ratios", "60/20/20"]
    answer = subprocess.run(call, capture_output=True, text=True)
    assert answer.returncode == 0, answer.stderr
    assert "photos in two splits: 0" in answer.stdout
    answer = subprocess.run([*call, "--balance", "cap"], capture_output=True, text=True)
    assert answer.returncode == 1
    assert "Error: balance is 'cap', expected cap:N" in answer.stderr
