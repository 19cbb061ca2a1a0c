"""Named arrays from the file formats that other programs write: NumPy, MATLAB, CSV, parquet and JSON.

A file that holds one array without a name, such as ``.npy``, gives an array named ``UNNAMED``. Numbers become float64
(whole numbers int64 where the format tells them apart), text becomes text; values of any other kind are left out.
"""

from __future__ import annotations

import csv
import io
import struct
import tokenize
import zipfile
import zlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from emoface.errors import PredictionsError
from emoface.storage.csv_files import restore
from emoface.storage.files import parse_json, read_text
from emoface.storage.matlab_files import read_matlab
from emoface.storage.tables import open_bytes

if TYPE_CHECKING:
    import pandas as pd

UNNAMED = ""
"""Name of the array of a file that gives it none."""

NamedArrays = dict[str, NDArray[Any]]

_NUMPY_DAMAGE = (
    *(ValueError, TypeError, LookupError, AttributeError, EOFError, OSError, MemoryError, OverflowError, RuntimeError),
    *(SyntaxError, struct.error, tokenize.TokenError, zipfile.BadZipFile, zlib.error),
)
"""The errors that NumPy raises on a damaged file."""
_SEPARATORS = {".csv": ",", ".tsv": "\t"}


def read_arrays(path: Path) -> NamedArrays:
    """Reads all arrays of a file by name; the suffix gives the format.

    Args:
        path: A ``.npy``, ``.npz``, ``.mat`` (up to MATLAB v7), ``.csv``, ``.tsv``, ``.parquet`` or ``.json`` file. A
            table gives one (n,) array per column, and an (n, k) array for a column of lists of k numbers. A JSON file
            is a list of rows, a list of objects, one object of columns, or one object by person_id.

    Raises:
        PredictionsError: The file is missing, damaged, of another format, or its rows differ in length.
    """
    if not path.is_file():
        raise PredictionsError(f"{path}: no such file")
    suffix = path.suffix.lower()
    if suffix not in _READERS:
        raise PredictionsError(
            f"{path}: the name ends in '{path.suffix}', expected one of {', '.join(_READERS)}; save it in one of these"
        )
    return _READERS[suffix](path)


def _read_npy(path: Path) -> NamedArrays:
    array = _load_numpy(path)
    if not isinstance(array, np.ndarray):
        raise PredictionsError(f"{path}: an archive of several arrays; its name should end in .npz")
    if array.dtype.names:
        return _keep_known({name: array[name] for name in array.dtype.names})
    return _keep_known({UNNAMED: array})


def _read_npz(path: Path) -> NamedArrays:
    archive = _load_numpy(path)
    if isinstance(archive, np.ndarray):
        raise PredictionsError(f"{path}: a single array; its name should end in .npy")
    with archive:
        try:
            return _keep_known({name: archive[name] for name in archive.files})
        except _NUMPY_DAMAGE as error:
            raise PredictionsError(f"{path}: {_describe_numpy_error(error)}") from error


def _load_numpy(path: Path) -> Any:
    try:
        return np.load(path, allow_pickle=False)
    except _NUMPY_DAMAGE as error:
        raise PredictionsError(f"{path}: {_describe_numpy_error(error)}") from error


def _describe_numpy_error(error: Exception) -> str:
    if "pickle" in str(error):
        return "holds Python objects or is no NumPy file; save plain arrays of numbers or text with numpy.save or savez"
    return f"not a readable NumPy file ({error})"


def _read_mat(path: Path) -> NamedArrays:
    return read_matlab(path, _from_variables, PredictionsError, "save it again with '-v7'")


def _from_variables(variables: Mapping[str, Any]) -> NamedArrays:
    return _keep_known({name: _from_cells(value) for name, value in variables.items()})


def _from_cells(value: Any) -> Any:
    """Converts a cell array of texts to an array of texts; removes the spaces that pad the rows of a char matrix."""
    array = np.asarray(value)
    if array.dtype == object:
        parts = [np.ravel(part) for part in array.ravel()]
        if all(len(part) == 1 and part.dtype.kind == "U" for part in parts):
            array = np.array([str(part[0]) for part in parts])
    return np.char.rstrip(array) if array.dtype.kind == "U" else array


def _read_table(path: Path) -> NamedArrays:
    import pandas as pd

    separator = _SEPARATORS[path.suffix.lower()]
    text = read_text(path, PredictionsError, "table")
    try:
        heads = next(csv.reader(io.StringIO(text, newline=""), delimiter=separator), [])
        if repeated := sorted({name for name in heads if heads.count(name) > 1 and not _is_number(name)}):
            raise PredictionsError(f"{path}: the column '{repeated[0]}' is there more than once; keep one")
        if heads and all(map(_is_number, heads)) and not _are_counted(heads):
            return {UNNAMED: pd.read_csv(io.StringIO(text), sep=separator, header=None).to_numpy(np.float64)}
        table = pd.read_csv(io.StringIO(text), sep=separator, dtype={"person_id": str})
        if "person_id" in table:
            table["person_id"] = table["person_id"].map(restore, na_action="ignore")
        if _are_counted(heads):
            return {UNNAMED: table[[name for name in heads if name]].to_numpy(np.float64)}
    except (csv.Error, pd.errors.ParserError, pd.errors.EmptyDataError, ValueError) as error:
        raise PredictionsError(f"{path}: not a readable table ({error})") from error
    return _keep_known({str(name): _from_column(path, str(name), table[name]) for name in table.columns})


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _are_counted(heads: Sequence[str]) -> bool:
    """Whether the columns are named 0, 1, 2..., as pandas names those of an array, after its row number or without."""
    names = heads[1:] if heads and not heads[0] else heads
    return len(names) > 1 and list(names) == [str(number) for number in range(len(names))]


def _from_column(path: Path, name: str, column: pd.Series) -> NDArray[Any]:
    from pandas.api.types import is_numeric_dtype

    if is_numeric_dtype(column.dtype):
        return np.asarray(column.to_numpy())
    if name == "person_id" and column.isna().any():
        raise PredictionsError(f"{path}: {int(column.isna().sum())} rows have no {name}; give each row one")
    return np.array(column.fillna("").astype(str).tolist(), dtype=str)


def _read_parquet(path: Path) -> NamedArrays:
    try:
        with open_bytes(path) as source:
            table = pq.read_table(source)
    except pa.ArrowInvalid as error:
        raise PredictionsError(f"{path}: not a readable parquet file ({error})") from error
    arrays = {}
    for name in table.column_names:
        column = table[name].combine_chunks()
        kind = column.type
        if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
            if not (pa.types.is_integer(kind.value_type) or pa.types.is_floating(kind.value_type)):
                continue
            arrays[name] = _stack_lists(path, name, column.to_pylist())
        elif not pa.types.is_nested(kind) and not pa.types.is_binary(kind):
            arrays[name] = _from_column(path, name, column.to_pandas())
    return _keep_known(arrays)


def _stack_lists(path: Path, name: str, rows: Sequence[Sequence[Any] | None]) -> NDArray[np.float64]:
    """Stacks lists of equal length; a null becomes a row of nan."""
    lengths = {len(row) for row in rows if row is not None}
    if len(lengths) > 1:
        raise PredictionsError(f"{path}: the lists of '{name}' have {min(lengths)} to {max(lengths)} values each")
    width = lengths.pop() if lengths else 0
    stacked = np.full((len(rows), width), np.nan)
    for number, row in enumerate(rows):
        if row is not None:
            stacked[number] = row
    return stacked


def _read_json(path: Path) -> NamedArrays:
    try:
        content = parse_json(read_text(path, PredictionsError))
    except ValueError as error:
        raise PredictionsError(f"{path}: not JSON ({error})") from error
    if isinstance(content, dict) and content and all("#" in name for name in content):
        content = [
            {"person_id": name, **(row if isinstance(row, dict) else {UNNAMED: row})} for name, row in content.items()
        ]
    if isinstance(content, list) and content and all(isinstance(row, dict) for row in content):
        content = _to_columns(path, [_flatten(row) for row in content])
    if isinstance(content, list):
        content = {UNNAMED: content}
    if not isinstance(content, dict):
        raise PredictionsError(f"{path}: holds a {type(content).__name__}, expected a list of rows or an object")
    columns = {name: _to_array(path, name, values) for name, values in _flatten(content).items()}
    return _keep_known({name: values for name, values in columns.items() if values is not None})


def _flatten(row: Mapping[str, Any]) -> dict[str, Any]:
    """Puts the entries of inner objects, such as ``{"probabilities": {"Anger": 0.1}}``, beside the others."""
    flat: dict[str, Any] = {}
    for name, value in row.items():
        flat |= value if isinstance(value, dict) else {name: value}
    return flat


def _to_columns(path: Path, rows: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
    for number, row in enumerate(rows):
        if row.keys() != rows[0].keys():
            differing = sorted(row.keys() ^ rows[0].keys())[0]
            raise PredictionsError(
                f"{path}: entry {number} has other keys than entry 0: '{differing}' is in one of them only"
            )
    return {name: [row[name] for row in rows] for name in rows[0]}


def _to_array(path: Path, name: str, values: Any) -> NDArray[Any] | None:
    """Converts a JSON value; None for a value that is no array of numbers or text, such as a comment."""
    if not isinstance(values, list):
        return None
    if values and all(isinstance(value, str) for value in values):
        return np.array(values, dtype=str)
    if values and all(isinstance(value, int) for value in values):
        return np.array(values, dtype=np.int64)
    try:
        return np.array(values, dtype=np.float64)
    except (ValueError, TypeError) as error:
        where = f"'{name}'" if name else "the rows"
        raise PredictionsError(f"{path}: {where} are not numbers in rows of equal length ({error})") from error


def _keep_known(arrays: Mapping[str, Any]) -> NamedArrays:
    """Keeps arrays of numbers and of text."""
    known = {name: np.asarray(value) for name, value in arrays.items()}
    return {name: value for name, value in known.items() if value.dtype.kind in "biufU" and value.ndim > 0}


_READERS: dict[str, Callable[[Path], NamedArrays]] = {
    ".npy": _read_npy,
    ".npz": _read_npz,
    ".mat": _read_mat,
    ".csv": _read_table,
    ".tsv": _read_table,
    ".parquet": _read_parquet,
    ".json": _read_json,
}
