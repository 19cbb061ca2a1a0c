"""Files of predictions that any program wrote: scores of the 26 labels, and what else they hold about the people.

A file says what it holds by the names of its arrays or columns. What a file without names cannot say (the order of the
labels, whether its rows are people or labels where there are 26 of each) is given as ``PredictionForm``. Whose row is
whose is found by ``prediction_people``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from emoface.datasets.predictions import PREDICTED_DIMENSIONS
from emoface.errors import PredictionsError, did_you_mean
from emoface.schema import CATEGORIES, DIMENSIONS
from emoface.storage.array_files import UNNAMED, NamedArrays, read_arrays
from emoface.storage.files import read_text
from emoface.vision.arrays import Float64Array

Layout = Literal["auto", "people-in-rows", "labels-in-rows"]
"""Which side of an array of 26 x 26 is the people; ``auto`` where one side alone is 26."""

KEYS = ("person_id", "index")
"""Names of the arrays that say whose row is whose; the first that a file has is used."""

SCORE_NAMES = ("probabilities", "logits", "scores", "predictions", "preds", "cat_preds", "y_pred", UNNAMED)
TRUTH_NAMES = ("labels", "cat_labels", "true_labels", "truth", "targets", "y_true", "gt")
VAD_NAMES = ("predicted_vad", "vad_preds", "cont_preds")
LABEL_NAMES = "label_names"

_LARGEST_UNIT = 1.0


@dataclass(frozen=True)
class PredictionForm:
    """What a file of predictions does not say itself.

    Attributes:
        array: Name of the array of scores; None if the names in the file make it plain.
        layout: Which side of the array is the people.
        label_names: The labels in the order of the array; None for the file's own ``label_names`` or, without them,
            the order of the data set, which is alphabetical for EMOTIC.
        data_labels: The labels of the data set, in their order.
    """

    array: str | None = None
    layout: Layout = "auto"
    label_names: tuple[str, ...] | None = None
    data_labels: tuple[str, ...] = CATEGORIES

    @property
    def n_labels(self) -> int:
        """Number of labels."""
        return len(self.data_labels)


PLAIN_FORM = PredictionForm()
"""The form of a file that says all of it itself."""


@dataclass(frozen=True)
class PredictionFile:
    """The content of a file of predictions, n rows.

    Attributes:
        path: The file.
        scores: (n, n_labels) logits or probabilities, in the order of the data set; a row may be nan throughout.
        person_ids: ``person_id`` of each row; None if the file has none.
        index: (n,) ``index`` of each row; None if the file has none.
        truth: (n, 26) true labels, 0 or 1; None if the file has none.
        vad: (n, 3) predicted valence, arousal, dominance; None if the file has none.
        unused: Names of the arrays that were not understood and are not used.
    """

    path: Path
    scores: Float64Array
    person_ids: list[str] | None = None
    index: NDArray[np.int64] | None = None
    truth: NDArray[np.uint8] | None = None
    vad: Float64Array | None = None
    unused: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.scores)

    @property
    def keys(self) -> tuple[str, Sequence[str] | NDArray[np.int64]]:
        """What the file names its people by, ``person_id`` or ``index``, and the n names; empty if it does not."""
        if self.person_ids is not None:
            return "person_id", self.person_ids
        return ("", []) if self.index is None else ("index", self.index)


def read_prediction_file(path: Path, form: PredictionForm = PLAIN_FORM) -> PredictionFile:
    """Reads a file of predictions, of any format of ``read_arrays``.

    The scores are 26 columns named by label (in any spelling of case and separators), or one array with a side of 26.

    Args:
        path: The file.
        form: What the file does not say itself.

    Raises:
        PredictionsError: The file cannot be read, has no scores of the 26 labels or more than one set of them, a score
            is infinite or a row is nan in part, or its arrays differ in length.
    """
    arrays = read_arrays(path)
    order = _order_of(path, arrays, form)
    score_names, scores = _find_scores(path, arrays, form, order)
    _check_finite(path, scores, form.data_labels)
    rest = {name: values for name, values in arrays.items() if name not in score_names}
    truth_names, truth = _find_truth(path, rest, form, order)
    vad_names, vad = _find_vad(path, rest, form.layout)
    person_ids, index = _read_keys(path, rest)
    for what, values in (("person_id", person_ids), ("index", index), ("true labels", truth), ("predicted VAD", vad)):
        if values is not None and len(values) != len(scores):
            raise PredictionsError(f"{path}: {len(values):,} {what} for {len(scores):,} rows of scores")
    used = {LABEL_NAMES, *KEYS, *truth_names, *vad_names}
    unused = tuple(name for name in rest if name not in used)
    return PredictionFile(path, scores, person_ids, index, truth, vad, unused)


def read_truth_file(path: Path, form: PredictionForm, file: PredictionFile) -> NDArray[np.uint8]:
    """Reads the true labels that a program wrote beside its predictions, (n, 26), 0 or 1.

    Args:
        path: The file, of any format of ``read_arrays``.
        form: The form of the predictions' own file; its ``array`` is not used.
        file: The predictions, whose rows it has.

    Raises:
        PredictionsError: The file has no array with a side of 26 or more than one, a value is not 0 or 1, or its rows
            are not those of the predictions.
    """
    arrays = read_arrays(path)
    by_label = _find_label_columns(path, arrays, form.data_labels)
    if by_label is not None:
        truth = _to_truth(path, np.stack([arrays[name] for name in by_label], axis=1))
    else:
        name = _only_array(path, arrays, form.n_labels, TRUTH_NAMES)
        values = to_people_in_rows(path, arrays[name], form.n_labels, form.layout)
        truth = _to_truth(path, values[:, _order_of(path, arrays, form)])
    _check_same_rows(path, arrays, len(truth), file)
    return truth


def read_vad_file(path: Path, layout: Layout, file: PredictionFile) -> Float64Array:
    """Reads predicted valence, arousal and dominance that a program wrote in a file of their own, (n, 3).

    Args:
        path: The file, of any format of ``read_arrays``: columns named by dimension, with or without ``predicted_``, or
            one array with a side of 3 in this order.
        layout: Which side of the array is the people; used if there are 3 people.
        file: The predictions, whose rows it has.

    Raises:
        PredictionsError: The file has no such array or more than one, or its rows are not those of the predictions.
    """
    arrays = read_arrays(path)
    columns = next(
        (names for names in (PREDICTED_DIMENSIONS, DIMENSIONS) if all(map(arrays.__contains__, names))), None
    )
    if columns is not None:
        vad = np.stack([arrays[name].astype(np.float64) for name in columns], axis=1)
    else:
        name = _only_array(path, arrays, len(DIMENSIONS), VAD_NAMES)
        vad = to_people_in_rows(path, arrays[name], len(DIMENSIONS), layout)
    _check_same_rows(path, arrays, len(vad), file)
    return vad


def _check_same_rows(path: Path, arrays: NamedArrays, n: int, file: PredictionFile) -> None:
    """Checks that a second file has as many rows as the predictions and, where both name them, the same people."""
    if n != len(file):
        raise PredictionsError(f"{path}: {n:,} people, expected the {len(file):,} of {file.path}")
    key, keys = file.keys
    if key and key in arrays and arrays[key].ravel().tolist() != np.asarray(keys).tolist():
        raise PredictionsError(f"{path}: its {key} are not those of {file.path} in the same order")


def check_vad_scale(path: Path, vad: Float64Array) -> None:
    """Checks that predicted ratings are on EMOTIC's scale of 1-10.

    Raises:
        PredictionsError: All are 1 or less, so they are on another scale; or one is infinite.
    """
    if np.isinf(vad).any():
        raise PredictionsError(f"{path}: {int(np.isinf(vad).sum())} predicted ratings are infinite")
    known = vad[np.isfinite(vad)]
    if len(known) and known.max() <= _LARGEST_UNIT:
        raise PredictionsError(
            f"{path}: predicted valence, arousal and dominance are {known.min():.3g} to {known.max():.3g}, expected "
            "EMOTIC's 1 to 10; give --vad-factor 10 if they were divided by 10"
        )


def read_label_names(path: Path) -> tuple[str, ...]:
    """Reads the order of the labels from a text file: 26 names, one per line or separated by commas.

    Raises:
        PredictionsError: The file cannot be read.
    """
    text = read_text(path, PredictionsError)
    names = (part.strip().strip("\"'") for part in re.split(r"[\n,]", text.strip().strip("[]")))
    return tuple(name for name in names if name)


def order_labels(path: Path, names: Sequence[str], data_labels: Sequence[str] = CATEGORIES) -> NDArray[np.int64]:
    """Finds the position of each of a data set's labels among other names of them.

    Args:
        path: The file that the names are from, for the error message.
        names: As many names, in any spelling of case and separators, such as ``Doubt_Confusion``.
        data_labels: The labels of the data set, in their order.

    Returns:
        (n_labels,) ``values[:, order]`` has the order of ``data_labels``.

    Raises:
        PredictionsError: A label is missing, is there twice or is unknown.
    """
    if len(names) != len(data_labels):
        whose = "EMOTIC's" if tuple(data_labels) == CATEGORIES else "the data set's"
        raise PredictionsError(f"{path}: {len(names)} label names, expected {whose} {len(data_labels)}")
    place_of = {_plain(name): place for place, name in enumerate(names)}
    missing = [name for name in data_labels if _plain(name) not in place_of]
    if missing:
        known = {_plain(name) for name in data_labels}
        unknown = [name for name in names if _plain(name) not in known]
        hint = did_you_mean(missing[0], unknown) if unknown else "; another name is there more than once"
        raise PredictionsError(f"{path}: no label is named '{missing[0]}'{hint}; expected {', '.join(data_labels)}")
    return np.array([place_of[_plain(name)] for name in data_labels], np.int64)


def to_people_in_rows(path: Path, array: NDArray[Any], width: int, layout: Layout) -> Float64Array:
    """Turns an array so that its rows are people.

    Args:
        path: The file that the array is from, for the error message.
        array: (n, width) or (width, n).
        width: Number of labels or dimensions.
        layout: Which side is the people; ``auto`` finds it by ``width``.

    Returns:
        (n, width) float64.

    Raises:
        PredictionsError: No side has ``width`` values, or both have and ``layout`` is ``auto``.
    """
    if array.ndim != 2 or width not in array.shape:
        shape = " x ".join(map(str, array.shape))
        raise PredictionsError(f"{path}: an array of {shape}, expected people x {width} or {width} x people")
    both = array.shape == (width, width)
    if both and layout == "auto":
        raise PredictionsError(
            f"{path}: an array of {width} x {width}, whose rows may be people or labels; give --layout people-in-rows "
            "or --layout labels-in-rows"
        )
    if layout == "auto":
        turned = array.shape[1] != width
    else:
        turned = layout == "labels-in-rows"
        if array.shape[0 if turned else 1] != width:
            shape = " x ".join(map(str, array.shape))
            raise PredictionsError(f"{path}: an array of {shape} does not have {layout.replace('-', ' ')}")
    return np.asarray(array.T if turned else array, np.float64)


def _plain(name: str) -> str:
    return re.sub(r"[\W_]", "", name.casefold())


def _is_2d(arrays: Mapping[str, NDArray[Any]], name: str) -> bool:
    return arrays[name].ndim == 2 and arrays[name].dtype.kind in "biuf"


def _order_of(path: Path, arrays: NamedArrays, form: PredictionForm) -> NDArray[np.int64]:
    if form.label_names is not None:
        return order_labels(path, form.label_names, form.data_labels)
    if LABEL_NAMES in arrays and arrays[LABEL_NAMES].dtype.kind == "U":
        return order_labels(path, [str(name) for name in arrays[LABEL_NAMES].ravel()], form.data_labels)
    return np.arange(form.n_labels)


def _find_label_columns(path: Path, arrays: NamedArrays, data_labels: Sequence[str]) -> list[str] | None:
    """Finds the columns named by label, in the order of the data set's labels; None if there is none."""
    wanted = {_plain(label) for label in data_labels}
    columns = [name for name, values in arrays.items() if values.ndim == 1 and name]
    named = [name for name in columns if _plain(name) in wanted]
    if not named:
        return None
    for name in named:
        if same := [other for other in named if other != name and _plain(other) == _plain(name)]:
            raise PredictionsError(f"{path}: '{name}' and '{same[0]}' are the same label; keep one of these columns")
    column_of = {_plain(name): name for name in named}
    if missing := [label for label in data_labels if _plain(label) not in column_of]:
        others = [name for name in columns if name not in named and name not in KEYS]
        hint = did_you_mean(missing[0], others) if others else ""
        raise PredictionsError(
            f"{path}: {len(named)} of the {len(data_labels)} labels have a column, '{missing[0]}' has none{hint}"
        )
    if text := [name for name in named if arrays[name].dtype.kind == "U" and len(arrays[name])]:
        raise PredictionsError(f"{path}: '{text[0]}' holds text such as '{arrays[text[0]][0]}', expected numbers")
    return [column_of[_plain(label)] for label in data_labels]


def _find_scores(
    path: Path, arrays: NamedArrays, form: PredictionForm, order: NDArray[np.int64]
) -> tuple[tuple[str, ...], Float64Array]:
    """Finds the scores, (n, 26), and the names of the arrays that hold them."""
    if form.array is None and (columns := _find_label_columns(path, arrays, form.data_labels)) is not None:
        return tuple(columns), np.stack([arrays[name].astype(np.float64) for name in columns], axis=1)
    name = _choose_array(path, arrays, form)
    return (name,), to_people_in_rows(path, arrays[name], form.n_labels, form.layout)[:, order]


def _find_truth(
    path: Path, arrays: NamedArrays, form: PredictionForm, order: NDArray[np.int64]
) -> tuple[tuple[str, ...], NDArray[np.uint8] | None]:
    """Finds the true labels, (n, 26), and the name of the array that holds them; None if there are none."""
    name = next((name for name in TRUTH_NAMES if name in arrays and _is_2d(arrays, name)), None)
    if name is None:
        return (), None
    return (name,), _to_truth(path, to_people_in_rows(path, arrays[name], form.n_labels, form.layout)[:, order])


def _choose_array(path: Path, arrays: NamedArrays, form: PredictionForm) -> str:
    wanted = form.array
    if wanted is not None:
        if wanted not in arrays:
            raise PredictionsError(f"{path}: no array is named '{wanted}'{did_you_mean(wanted, arrays)}")
        return wanted
    possible = {name: values for name, values in arrays.items() if name not in TRUTH_NAMES}
    return _only_array(path, possible, form.n_labels, SCORE_NAMES)


def _only_array(path: Path, arrays: NamedArrays, width: int, known: Sequence[str]) -> str:
    """Finds the one array with a side of ``width``; of several the one with a known name."""
    fitting = [name for name in arrays if _is_2d(arrays, name) and width in arrays[name].shape]
    named = [name for name in fitting if name in known]
    if len(fitting) == 1 or len(named) == 1:
        return (named or fitting)[0]
    shapes = ", ".join(f"'{name}' {' x '.join(map(str, values.shape))}" for name, values in arrays.items()) or "none"
    if not fitting:
        what = f"{width} columns named by label, or " if known is not VAD_NAMES else ""
        raise PredictionsError(
            f"{path}: expected {what}one array of numbers of people x {width} or {width} x people, found {shapes}"
        )
    raise PredictionsError(f"{path}: {len(fitting)} arrays may be the one to read ({shapes}); name one with --array")


def _read_keys(path: Path, arrays: NamedArrays) -> tuple[list[str] | None, NDArray[np.int64] | None]:
    for name in KEYS:
        if name not in arrays:
            continue
        values = arrays[name].ravel()
        if name == "person_id":
            if values.dtype.kind != "U":
                raise PredictionsError(f"{path}: person_id holds numbers, expected texts such as 'framesdb/a.jpg#0'")
            return [str(value) for value in values], None
        if values.dtype.kind not in "iuf" or not np.equal(np.mod(values, 1), 0).all():
            raise PredictionsError(f"{path}: index holds values that are not whole numbers; expected people.parquet's")
        return None, values.astype(np.int64)
    return None, None


def _find_vad(path: Path, arrays: NamedArrays, layout: Layout) -> tuple[tuple[str, ...], Float64Array | None]:
    found = tuple(name for name in PREDICTED_DIMENSIONS if name in arrays)
    if found:
        if missing := [name for name in PREDICTED_DIMENSIONS if name not in arrays]:
            raise PredictionsError(f"{path}: '{found[0]}' is there, but not '{missing[0]}'; expected all three or none")
        vad = np.stack([arrays[name].astype(np.float64) for name in found], axis=1)
        return found, None if np.isnan(vad).all() else vad
    name = next((name for name in VAD_NAMES if name in arrays), None)
    if name is None:
        return (), None
    return (name,), to_people_in_rows(path, arrays[name], len(DIMENSIONS), layout)


def _to_truth(path: Path, values: NDArray[Any]) -> NDArray[np.uint8]:
    wrong = (values != 0) & (values != 1)
    if wrong.any():
        raise PredictionsError(f"{path}: true labels hold {values[wrong][0]:g}, expected 0 and 1 only")
    return values.astype(np.uint8)


def _check_finite(path: Path, scores: Float64Array, data_labels: Sequence[str]) -> None:
    partly = np.isnan(scores).any(axis=1) & ~np.isnan(scores).all(axis=1)
    for wrong, what in ((np.isinf(scores).any(axis=1), "infinity"), (partly, "nan for some labels")):
        if wrong.any():
            row = int(np.argmax(wrong))
            bad = ~np.isfinite(scores[row])
            raise PredictionsError(
                f"{path}: {int(wrong.sum())} rows hold {what}, the first is row {row}, label "
                f"{data_labels[int(np.argmax(bad))]}; give each person a finite score of each label"
            )
