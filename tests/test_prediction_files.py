"""Files of other programs' predictions: every form gives the same scores, and whose row is whose is never guessed."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import scipy.io
from mter_data import write_photos_and_tables

from emoface.datasets.manifest import Manifest, read_manifest
from emoface.datasets.prediction_export import WRITERS, write_prediction_file
from emoface.datasets.prediction_files import (
    PLAIN_FORM,
    PredictionFile,
    PredictionForm,
    check_vad_scale,
    order_labels,
    read_label_names,
    read_prediction_file,
    read_truth_file,
    read_vad_file,
    to_people_in_rows,
)
from emoface.datasets.prediction_people import check_truth, find_rows, match_rows, read_split_people
from emoface.datasets.predictions import Predictions
from emoface.errors import PredictionsError
from emoface.schema import CATEGORIES, PEOPLE_SCHEMA

N = 5
SCORES = np.random.default_rng(3).normal(size=(N, 26)).astype(np.float32)
IDS = [f"framesdb/images/größe {k}.jpg#0" for k in range(N)]
TRUTH = (SCORES > 1).astype(np.uint8)
VAD = np.linspace(1, 10, 3 * N).reshape(N, 3).astype(np.float32)
SPELLED = [name.replace("/", "_").upper() for name in CATEGORIES]


def _by_person(row: np.ndarray) -> dict[str, float]:
    return dict(zip(CATEGORIES, row.tolist(), strict=True))


def _write_json(content: Any) -> Callable[[Path], None]:
    return lambda path: path.write_text(json.dumps(content), encoding="utf-8") and None


WAYS: dict[str, tuple[str, Callable[[Path], object]]] = {
    "npy, people in rows": (".npy", lambda path: np.save(path, SCORES)),
    "npy, labels in rows": (".npy", lambda path: np.save(path, SCORES.T)),
    "npz": (".npz", lambda path: np.savez(path, logits=SCORES, labels=TRUTH, person_id=np.array(IDS))),
    "mat of one tensor": (".mat", lambda path: scipy.io.savemat(path, {"x": SCORES.astype(float)})),
    "mat, char matrix": (".mat", lambda path: scipy.io.savemat(path, {"scores": SCORES.T, "person_id": IDS})),
    "mat, cells": (".mat", lambda path: scipy.io.savemat(path, {"s": SCORES, "person_id": np.array(IDS, object)})),
    "csv by label": (".csv", lambda path: pd.DataFrame(SCORES, columns=SPELLED).assign(person_id=IDS).to_csv(path)),
    "csv without head": (".csv", lambda path: np.savetxt(path, SCORES, delimiter=",", fmt="%.9g")),
    "csv of pandas": (".csv", lambda path: pd.DataFrame(SCORES).to_csv(path)),
    "csv of pandas without row numbers": (".csv", lambda path: pd.DataFrame(SCORES).to_csv(path, index=False)),
    "tsv": (".tsv", lambda path: pd.DataFrame(SCORES, columns=CATEGORIES).to_csv(path, sep="\t")),
    "parquet by label": (".parquet", lambda path: pd.DataFrame(SCORES, columns=CATEGORIES).to_parquet(path)),
    "parquet of lists": (
        ".parquet",
        lambda path: pq.write_table(pa.table({"person_id": IDS, "probabilities": SCORES.tolist()}), path),
    ),
    "json rows": (".json", _write_json(SCORES.tolist())),
    "json columns": (".json", _write_json({"person_id": IDS, "scores": SCORES.tolist(), "about": "epoch 3"})),
    "json by label": (".json", _write_json({name: SCORES[:, k].tolist() for k, name in enumerate(CATEGORIES)})),
    "json people": (".json", _write_json([{"person_id": IDS[k], **_by_person(SCORES[k])} for k in range(N)])),
    "json people, nested": (
        ".json",
        _write_json([{"person_id": IDS[k], "probabilities": _by_person(SCORES[k])} for k in range(N)]),
    ),
    "json by person": (".json", _write_json({IDS[k]: SCORES[k].tolist() for k in range(N)})),
    "json by person and label": (".json", _write_json({IDS[k]: _by_person(SCORES[k]) for k in range(N)})),
}


@pytest.mark.parametrize("way", WAYS)
def test_every_form_gives_the_same_scores(way: str, tmp_path: Path) -> None:
    suffix, write = WAYS[way]
    path = tmp_path / f"predictions{suffix}"
    write(path)
    content = read_prediction_file(path)
    assert content.scores.astype(np.float32).tolist() == SCORES.tolist()
    assert content.person_ids in (None, IDS)
    if any(word in way for word in ("person", "people, ", "npz", "mat, ", "csv by")) and "in rows" not in way:
        assert content.person_ids == IDS


def _predictions(predicts_vad: bool = True) -> Predictions:
    return Predictions(
        index=np.arange(N),
        person_ids=IDS,
        images=[name.partition("#")[0] for name in IDS],
        sources=np.full(N, "framesdb", object),
        people_in_photo=np.ones(N, np.int64),
        has_face=np.ones(N, bool),
        labels=TRUTH,
        probabilities=SCORES,
        stream_probabilities={},
        vad=np.full((N, 3), np.nan, np.float32),
        predicted_vad=VAD if predicts_vad else np.full((N, 3), np.nan, np.float32),
    )


@pytest.mark.parametrize("suffix", WRITERS)
def test_exported_files_are_read_to_the_digit(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"out{suffix}"
    written = write_prediction_file(path, _predictions())
    content = read_prediction_file(path)
    assert content.scores.astype(np.float32).tolist() == SCORES.tolist() and content.unused == ()
    if suffix == ".npy":
        assert pd.read_csv(written[1])["person_id"].tolist() == IDS
    else:
        assert content.person_ids == IDS and written == [path]
        assert content.vad is not None and content.vad.astype(np.float32).tolist() == VAD.tolist()
    if suffix in (".npz", ".mat", ".json"):
        assert content.truth is not None and content.truth.tolist() == TRUTH.tolist()
    write_prediction_file(path, _predictions(predicts_vad=False))
    assert read_prediction_file(path).vad is None


def test_stated_label_order_is_used(tmp_path: Path) -> None:
    turned = list(reversed(CATEGORIES))
    np.save(tmp_path / "a.npy", SCORES[:, ::-1])
    for text in ("\n".join(turned), ", ".join(turned), json.dumps(turned)):
        (tmp_path / "labels.txt").write_text(text, encoding="utf-8")
        names = read_label_names(tmp_path / "labels.txt")
        content = read_prediction_file(tmp_path / "a.npy", PredictionForm(label_names=names))
        assert content.scores.tolist() == SCORES.tolist()
    np.savez(tmp_path / "a.npz", label_names=np.array(turned), preds=SCORES[:, ::-1], labels=TRUTH[:, ::-1])
    content = read_prediction_file(tmp_path / "a.npz")
    assert content.scores.tolist() == SCORES.tolist()
    assert content.truth is not None and content.truth.tolist() == TRUTH.tolist()


def test_label_names_are_checked() -> None:
    names = [name.replace("Doubt/Confusion", "doubt-confusion") for name in CATEGORIES]
    assert order_labels(Path("x"), names).tolist() == list(range(26))
    names[16] = "Hapiness"
    with pytest.raises(PredictionsError, match=r"no label is named 'Happiness'; did you mean 'Hapiness'\?"):
        order_labels(Path("x"), names)
    with pytest.raises(PredictionsError, match="no label is named 'Anger'; another name is there more than once"):
        order_labels(Path("x"), ["Affection", "Affection", *CATEGORIES[2:]])
    with pytest.raises(PredictionsError, match="25 label names, expected EMOTIC's 26"):
        order_labels(Path("x"), CATEGORIES[1:])


def test_square_arrays_need_a_word() -> None:
    square = np.arange(26 * 26).reshape(26, 26)
    with pytest.raises(
        PredictionsError, match="an array of 26 x 26, whose rows may be people or labels; give --layout"
    ):
        to_people_in_rows(Path("x"), square, 26, "auto")
    assert to_people_in_rows(Path("x"), square, 26, "people-in-rows").tolist() == square.tolist()
    assert to_people_in_rows(Path("x"), square, 26, "labels-in-rows").tolist() == square.T.tolist()
    with pytest.raises(PredictionsError, match="an array of 5 x 26 does not have labels in rows"):
        to_people_in_rows(Path("x"), SCORES, 26, "labels-in-rows")
    with pytest.raises(PredictionsError, match="an array of 5 x 25, expected people x 26 or 26 x people"):
        to_people_in_rows(Path("x"), SCORES[:, 1:], 26, "auto")
    assert to_people_in_rows(Path("x"), np.zeros((0, 26)), 26, "auto").shape == (0, 26)


def test_ratings(tmp_path: Path) -> None:
    np.save(tmp_path / "vad.npy", VAD.T / 10)
    file = PredictionFile(Path("p.npy"), SCORES.astype(float))
    assert 10 * read_vad_file(tmp_path / "vad.npy", "auto", file) == pytest.approx(VAD, rel=1e-6)
    pd.DataFrame(VAD, columns=["valence", "arousal", "dominance"]).to_csv(tmp_path / "vad.csv")
    assert read_vad_file(tmp_path / "vad.csv", "auto", file) == pytest.approx(VAD)
    with pytest.raises(PredictionsError, match=r"are 0\.1 to 1, expected EMOTIC's 1 to 10; give --vad-factor 10"):
        check_vad_scale(tmp_path / "vad.npy", VAD / 10)
    check_vad_scale(tmp_path / "vad.npy", VAD)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    def fails(name: str, pattern: str, content: bytes | None = None) -> None:
        if content is not None:
            (tmp_path / name).write_bytes(content)
        with pytest.raises(PredictionsError, match=pattern):
            read_prediction_file(tmp_path / name)

    fails("none.npy", "no such file")
    fails("a.pkl", r"ends in '\.pkl', expected one of \.npy", b"x")
    fails("a.npy", "is no NumPy file", b"x")
    np.save(tmp_path / "objects.npy", np.array([None], dtype=object), allow_pickle=True)
    fails("objects.npy", "holds Python objects")
    fails(
        "v73.mat",
        r"a MATLAB 7\.3 \(HDF5\) file, expected version 7 or older; save it in MATLAB with '-v7'",
        b" " * 512 + b"\x89HDF\r\n\x1a\n",
    )
    fails("a.mat", "starts with b'nothing at all'.*expected a MATLAB file", b"nothing at all")
    fails("a.json", "not JSON", b"{")
    fails("ragged.json", "the rows are not numbers in rows of equal length", b"[[1, 2], [1]]")
    fails("keys.json", "entry 1 has other keys than entry 0: 'Anger'", b'[{"Anger": 1}, {"Fear": 1}]')
    fails("a.parquet", "not a readable parquet file", b"x")
    fails("a.csv", "not a readable table", b"")
    fails("twice.csv", "the column 'Anger' is there more than once", b"Anger,Anger\n1,2\n")
    fails("b.csv", "expected 26 columns named by label, or one array", b"a,b\n1,2\n")


def test_scores_that_cannot_be_used(tmp_path: Path) -> None:
    def fails(pattern: str, form: PredictionForm = PLAIN_FORM, **arrays: Any) -> None:
        np.savez(tmp_path / "a.npz", **arrays)
        with pytest.raises(PredictionsError, match=pattern):
            read_prediction_file(tmp_path / "a.npz", form)

    nan, infinite = SCORES.copy(), SCORES.copy()
    nan[3, 1], infinite[2, 4] = np.nan, -np.inf
    fails("1 rows hold nan for some labels, the first is row 3, label Anger", preds=nan)
    fails("1 rows hold infinity, the first is row 2, label Aversion", preds=infinite)
    fails("2 arrays may be the one to read .*name one with --array", a=SCORES, b=SCORES)
    fails("no array is named 'c'; known: a, b", PredictionForm(array="c"), a=SCORES, b=SCORES)
    fails("4 person_id for 5 rows of scores", preds=SCORES, person_id=np.array(IDS[1:]))
    fails("true labels hold 2, expected 0 and 1 only", preds=SCORES, labels=2 * TRUTH)
    fails("index holds values that are not whole", preds=SCORES, index=np.arange(5) + 0.5)
    fails("'predicted_valence' is there, but not 'predicted_arousal'", preds=SCORES, predicted_valence=np.ones(5))
    np.savez(tmp_path / "a.npz", a=SCORES, b=SCORES + 1)
    assert read_prediction_file(tmp_path / "a.npz", PredictionForm(array="b")).scores.tolist() == (SCORES + 1).tolist()


def test_label_columns_are_all_or_none(tmp_path: Path) -> None:
    table = pd.DataFrame(SCORES, columns=CATEGORIES)
    table.rename(columns={"Happiness": "Hapiness"}).to_csv(tmp_path / "a.csv")
    with pytest.raises(
        PredictionsError, match="25 of the 26 labels have a column, 'Happiness' has none; did you mean 'Hap"
    ):
        read_prediction_file(tmp_path / "a.csv")
    table.astype({"Fear": str}).replace({"Fear": r"\."}, ",", regex=True).to_csv(tmp_path / "a.csv")
    with pytest.raises(PredictionsError, match=r"'Fear' holds text such as '-?\d,\d+', expected numbers"):
        read_prediction_file(tmp_path / "a.csv")
    table.assign(doubt_confusion=0.0).to_csv(tmp_path / "a.csv")
    with pytest.raises(PredictionsError, match="'Doubt/Confusion' and 'doubt_confusion' are the same label"):
        read_prediction_file(tmp_path / "a.csv")


def test_no_people_at_all(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.zeros((0, 26)))
    assert len(read_prediction_file(tmp_path / "a.npy")) == 0
    pd.DataFrame(columns=["person_id", *CATEGORIES]).to_csv(tmp_path / "a.csv", index=False)
    assert read_prediction_file(tmp_path / "a.csv").person_ids == []


# Whose row is whose.


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    return read_manifest(write_photos_and_tables(tmp_path_factory.mktemp("people"), 24))


def _file(manifest: Manifest, n: int | None = None, **parts: Any) -> PredictionFile:
    n = manifest.splits["test"].rows if n is None else n
    return PredictionFile(Path("p.npy"), np.zeros((n, 26)), **parts)


def test_people_of_the_split(manifest: Manifest) -> None:
    people = read_split_people(manifest, "test")
    table = pd.read_parquet(manifest.split_path("test"))
    assert people.person_ids == table["person_id"].tolist() and (people.people_in_photo == 2).all()
    assert people.has_face.tolist() == (table["face_status"] == "found").tolist()
    assert people.labels.tolist() == np.stack(table["labels"].tolist()).tolist()
    assert np.isnan(people.vad[:, 2]).sum() == len(people) / 2


def test_rows_by_id_by_index_by_list_and_by_order(manifest: Manifest, tmp_path: Path) -> None:
    people = read_split_people(manifest, "test")
    turned = list(reversed(people.person_ids))
    expected = people.index[::-1].tolist()
    assert find_rows(_file(manifest, person_ids=turned), manifest, "test").tolist() == expected
    assert find_rows(_file(manifest, index=people.index[::-1]), manifest, "test").tolist() == expected
    for name, text in (("a.txt", "\n".join(turned)), ("b.txt", "\n".join(map(str, expected)) + "\n")):
        (tmp_path / name).write_text(text, encoding="utf-8")
        assert find_rows(_file(manifest), manifest, "test", list_path=tmp_path / name).tolist() == expected
    pd.DataFrame({"person_id": turned}).to_csv(tmp_path / "c.csv", index=False)
    assert find_rows(_file(manifest), manifest, "test", list_path=tmp_path / "c.csv").tolist() == expected
    for order in ("manifest", "emotic"):
        assert find_rows(_file(manifest), manifest, "test", order=order).tolist() == people.index.tolist()
    matched = match_rows(Path("p"), np.array(expected), people, manifest, "test")
    assert (
        matched.people.tolist() == list(range(len(people))) and matched.rows.tolist() == list(range(len(people)))[::-1]
    )


def test_order_must_be_stated_once(manifest: Manifest) -> None:
    with pytest.raises(PredictionsError, match=r"p\.npy: does not name its people; give one of --people FILE"):
        find_rows(_file(manifest), manifest, "test")
    with pytest.raises(PredictionsError, match="two orders of its rows are given"):
        find_rows(_file(manifest), manifest, "test", order="manifest", list_path=Path("x"))
    with pytest.raises(PredictionsError, match="names its people by index; leave out --order"):
        find_rows(_file(manifest, index=np.arange(12)), manifest, "test", order="manifest")


def test_wrong_people_are_errors(manifest: Manifest, tmp_path: Path) -> None:
    ids = read_split_people(manifest, "test").person_ids
    with pytest.raises(PredictionsError, match=r"11 people, expected 12, those of test .* give the people of its rows"):
        find_rows(_file(manifest, 11), manifest, "test", order="manifest")
    with pytest.raises(PredictionsError, match=f"1 people are there more than once, the first is {ids[3]}"):
        find_rows(_file(manifest, person_ids=[*ids[:-1], ids[3]]), manifest, "test")
    with pytest.raises(PredictionsError, match=r"1 of 12 people are not in .* the first has the person_id 'x#0'"):
        find_rows(_file(manifest, person_ids=["x#0", *ids[1:]]), manifest, "test")
    (tmp_path / "a.txt").write_text(ids[0])
    with pytest.raises(PredictionsError, match=r"a\.txt: 1 people for the 12 rows of p\.npy"):
        find_rows(_file(manifest), manifest, "test", list_path=tmp_path / "a.txt")
    (tmp_path / "a.csv").write_text("name\nx\n")
    with pytest.raises(PredictionsError, match="expected a column 'person_id' or 'index', or Folder, Filename"):
        find_rows(_file(manifest), manifest, "test", list_path=tmp_path / "a.csv")
    val, test = read_split_people(manifest, "val"), read_split_people(manifest, "test")
    with pytest.raises(PredictionsError, match=r"12 of 12 people are in val of .*; expected people of test"):
        match_rows(Path("p"), val.index, test, manifest, "test")


def test_rows_that_the_split_left_out_are_counted(manifest: Manifest, tmp_path: Path) -> None:
    """EMOTIC's order has a 13th person of test, whom the split leaves out."""
    shutil.copytree(manifest.path.parent, tmp_path / "work")
    again = read_manifest(tmp_path / "work" / "manifest.json")
    table = pq.read_table(tmp_path / "work" / "people.parquet")
    last = table.slice(table.num_rows - 1).to_pylist()[0]
    extra = {**last, "index": table.num_rows, "person_id": "framesdb/images/again.jpg#0", "source_split": "test"}
    pq.write_table(
        pa.concat_tables([table, pa.Table.from_pylist([extra], schema=PEOPLE_SCHEMA)]), tmp_path / "work/people.parquet"
    )
    with pytest.raises(PredictionsError, match=r"13 people, expected 12, .* test in the order 'emotic' has"):
        find_rows(_file(again, 13), again, "test", order="manifest")
    index = find_rows(_file(again, 13), again, "test", order="emotic")
    matched = match_rows(Path("p"), index, read_split_people(again, "test"), again, "test")
    assert len(matched.rows) == 12 and matched.n_outside == 1


def test_people_by_the_boxes_of_a_csv(manifest: Manifest, tmp_path: Path) -> None:
    """The form of mat2py.py, in which one person of a photo may be missing."""
    table = pd.read_parquet(manifest.split_path("test"))
    rows = [
        {
            "Index": number,
            "Folder": "framesdb/images",
            "Filename": Path(one.image).name,
            "Image Size": "[200, 120]",
            "BBox": str([int(value) + 1 for value in one.body_bbox]),
            "Categorical_Labels": str(list(one.categories)),
            "Continuous_Labels": "[5, 5, 5]",
            "Gender": "Male",
            "Age": "Adult",
        }
        for number, one in enumerate(table.itertuples())
    ]
    kept = [k for k in range(12) if k not in (2, 7)]  # the first of one photo, the second of another
    pd.DataFrame([rows[k] for k in kept]).to_csv(tmp_path / "test.csv", index=False)
    found = find_rows(_file(manifest, 10), manifest, "test", list_path=tmp_path / "test.csv")
    assert found.tolist() == table["index"][kept].tolist()
    pd.DataFrame([{**rows[2], "BBox": "[0, 0, 3, 3]"}]).to_csv(tmp_path / "test.csv", index=False)
    with pytest.raises(PredictionsError, match=r"1 people of .*, but EMOTIC has 2 there and not all boxes fit"):
        find_rows(_file(manifest, 1), manifest, "test", list_path=tmp_path / "test.csv")
    pd.DataFrame([{**rows[2], "Filename": "none.jpg"}]).to_csv(tmp_path / "test.csv", index=False)
    with pytest.raises(PredictionsError, match=r"EMOTIC has nobody of test in framesdb/images/none\.jpg; give"):
        find_rows(_file(manifest, 1), manifest, "test", list_path=tmp_path / "test.csv")
    pd.DataFrame([rows[0], rows[2], rows[1]]).to_csv(tmp_path / "test.csv", index=False)
    with pytest.raises(PredictionsError, match="are not in consecutive rows"):
        find_rows(_file(manifest, 3), manifest, "test", list_path=tmp_path / "test.csv")


def test_true_labels_are_compared(manifest: Manifest, tmp_path: Path) -> None:
    people = read_split_people(manifest, "test")
    matched = match_rows(Path("p"), people.index, people, manifest, "test")
    check_truth(Path("t"), people.labels, people.index, people, matched)
    other = people.labels.copy()
    other[4] = 0
    other[4, [1, 2]] = 1
    with pytest.raises(
        PredictionsError, match=f"1 of 12 people .* the first is {people.person_ids[4]}: Anger, Annoyance, not"
    ):
        check_truth(Path("t"), other, people.index, people, matched)
    with pytest.raises(PredictionsError, match="true labels of 3 people for 12 predictions"):
        check_truth(Path("t"), other[:3], people.index, people, matched)
    scipy.io.savemat(tmp_path / "t.mat", {"cat_labels": people.labels.T})
    file = _file(manifest, person_ids=people.person_ids)
    assert read_truth_file(tmp_path / "t.mat", PLAIN_FORM, file).tolist() == people.labels.tolist()
    np.savez(tmp_path / "t.npz", labels=people.labels, person_id=np.array(people.person_ids[::-1]))
    with pytest.raises(PredictionsError, match=r"its person_id are not those of p\.npy in the same order"):
        read_truth_file(tmp_path / "t.npz", PLAIN_FORM, file)
    with pytest.raises(PredictionsError, match=r"t\.mat: 12 people, expected the 5 of p\.npy"):
        read_truth_file(tmp_path / "t.mat", PLAIN_FORM, _file(manifest, 5))
