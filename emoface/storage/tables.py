"""Parquet tables, checked against their schema when they are read and when they are written."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from emoface.errors import TableError
from emoface.storage.files import atomic_path


def check_table(path: Path, found: pa.Schema, expected: pa.Schema, remedy: str) -> None:
    """Checks a table's columns against a schema.

    Args:
        path: The file, for the error message.
        found: The schema of the file.
        expected: The columns that the file must have, by name and type; further columns are allowed.
        remedy: What the user can do if the check fails, such as ``"rebuild it with 'emoface faces DIR'"``.

    Raises:
        TableError: A column is missing or of another type.
    """
    for field in expected:
        position = found.get_field_index(field.name)
        if position < 0:
            raise TableError(
                f"{path}: column '{field.name}' ({field.type}) is missing, found {', '.join(found.names)}; {remedy}"
            )
        if found.field(position).type != field.type:
            raise TableError(
                f"{path}: column '{field.name}' is {found.field(position).type}, expected {field.type}; {remedy}"
            )


def open_table(path: Path, schema: pa.Schema, remedy: str) -> pq.ParquetFile:
    """Opens a parquet file whose columns follow ``schema``, without reading its rows.

    Args:
        path: The parquet file.
        schema: The columns that the file must have.
        remedy: What the user can do if the file is missing or wrong.

    Raises:
        TableError: The file is missing, is not a parquet file, or has other columns.
    """
    if not path.is_file():
        raise TableError(f"{path}: no such file; {remedy}")
    try:
        opened = pq.ParquetFile(path)
    except pa.ArrowInvalid as error:
        raise TableError(f"{path}: not a readable parquet file ({error}); {remedy}") from error
    check_table(path, opened.schema_arrow, schema, remedy)
    return opened


def read_table(path: Path, schema: pa.Schema, remedy: str, columns: list[str] | None = None) -> pa.Table:
    """Reads a parquet file whose columns follow ``schema``.

    Args:
        path: The parquet file.
        schema: The columns that the file must have.
        remedy: What the user can do if the file is missing or wrong.
        columns: The columns to read; None reads all.

    Raises:
        TableError: The file is missing, is not a parquet file, or has other columns.
    """
    with open_table(path, schema, remedy) as opened:
        return opened.read(columns=columns)


def write_table(path: Path, table: pa.Table, schema: pa.Schema, row_group_size: int | None = None) -> None:
    """Writes a table in one step, after a cast to ``schema``, which also contains the file's metadata.

    Args:
        path: The parquet file to write.
        table: The rows to write.
        schema: The columns and the metadata of the file.
        row_group_size: Rows per row group; None uses the default of pyarrow.
    """
    with atomic_path(path) as temporary:
        pq.write_table(
            table.cast(schema).replace_schema_metadata(schema.metadata),
            temporary,
            compression="zstd",
            row_group_size=row_group_size,
        )


def vectors_to_array(column: pa.ChunkedArray, length: int) -> NDArray[np.float32]:
    """Converts a column of lists to a matrix.

    Args:
        column: n lists, each of ``length`` numbers or null.
        length: Numbers per list.

    Returns:
        (n, length) float32; a null becomes a row of nan.
    """
    array = np.full((len(column), length), np.nan, dtype=np.float32)
    present = column.is_valid().to_numpy()
    values = column.drop_null().combine_chunks().flatten()
    array[present] = values.to_numpy(zero_copy_only=False).reshape(-1, length)
    return array
