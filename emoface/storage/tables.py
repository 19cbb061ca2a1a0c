"""Parquet tables, checked against their schema when they are read and when they are written."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from emoface.errors import TableError
from emoface.schema import (
    CATEGORIES,
    FINITE,
    LIST_LENGTHS,
    NEVER_NULL,
    VALUE_RANGES,
    is_unlabelled,
    label_names_of,
    list_length,
    value_choices,
    with_labels,
    without_labels,
)
from emoface.storage.files import OUTSIDE_PATTERN, atomic_path
from emoface.storage.urls import Place

_READS_FIXED_LISTS_WITH_NULLS = 26
"""The first version of pyarrow that reads fixed-size lists with nulls from parquet."""


_LABEL_COLUMNS = frozenset(("labels", "categories"))
_LABELLING = (
    "annotate them: 'emoface export-coco DIR --out people.json', fill in the labels, then 'emoface parse PHOTOS "
    "--annotations people.json --out DIR'; see docs/your-own-photos.md"
)


def open_bytes(path: Path, mode: Literal["rb", "wb"] = "rb") -> pa.NativeFile:
    """Opens a file for pyarrow, which by itself refuses paths that are no UTF-8."""
    return pa.OSFile(os.fsencode(path), mode)


def check_table(path: Place, found: pa.Schema, expected: pa.Schema, remedy: str) -> None:
    """Checks a table's columns against a schema.

    A column that can be null may also consist of fixed-size lists, as earlier versions of emoface wrote it.

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
        kind = found.field(position).type
        if kind != field.type and not _is_earlier_type(field, kind, label_names_of(expected)):
            raise TableError(f"{path}: column '{field.name}' is {kind}, expected {field.type}; {remedy}")


def _is_earlier_type(field: pa.Field, found: pa.DataType, label_names: tuple[str, ...]) -> bool:
    """Whether earlier versions of emoface wrote a column that can be null with this type."""
    length = list_length(field.name, label_names)
    return length is not None and bool(found == pa.list_(field.type.value_type, length))


class TableFile:
    """An open parquet file whose columns follow a schema; everything that is read from it has been checked.

    Attributes:
        path: Path or URL of the file.
        row_group_sizes: Number of rows of each row group.
        label_names: The names of the table's labels, EMOTIC's categories if it has no others.
        is_unlabelled: Whether nobody has annotated its people yet; their labels cannot be read then.
    """

    def __init__(self, path: Place, opened: pq.ParquetFile, schema: pa.Schema, remedy: str) -> None:
        self.path = path
        self.row_group_sizes = [opened.metadata.row_group(n).num_rows for n in range(opened.num_row_groups)]
        self.label_names = label_names_of(schema)
        self.is_unlabelled = is_unlabelled(schema)
        self._opened = opened
        self._schema = schema
        self._remedy = remedy

    def __enter__(self) -> TableFile:
        return self

    def __exit__(self, *_: object) -> None:
        self._opened.close(force=True)

    def read(self, columns: list[str] | None = None) -> pa.Table:
        """Reads all rows.

        Args:
            columns: The columns to read; None reads all.

        Raises:
            TableError: The file is damaged, or a value is not allowed in its column.
        """
        with self._naming_the_file():
            return self._check(self._opened.read(columns=columns))

    def read_row_group(self, number: int, columns: list[str]) -> pa.Table:
        """Reads the rows of one row group, see ``read``."""
        with self._naming_the_file():
            return self._check(self._opened.read_row_group(number, columns=columns))

    def read_batches(self, n_rows: int, columns: list[str]) -> Iterator[pa.Table]:
        """Reads all rows, at most ``n_rows`` at a time, see ``read``."""
        with self._naming_the_file():
            for batch in self._opened.iter_batches(batch_size=n_rows, columns=columns):
                yield self._check(pa.Table.from_batches([batch]))

    def read_where(self, column: str, values: Sequence[Any], columns: list[str]) -> pa.Table:
        """Reads the rows whose ``column`` is one of ``values``; only row groups that contain one are read whole."""
        import pyarrow.compute as pc

        kind = self._schema.field(column).type
        parts = []
        for number in range(len(self.row_group_sizes)):
            keys = self.read_row_group(number, [column])[column]
            is_wanted = pc.is_in(keys, pa.array(values, kind))
            if pc.any(is_wanted).as_py():
                parts.append(self.read_row_group(number, columns).filter(is_wanted))
        chosen = pa.schema([self._schema.field(name) for name in columns])
        return pa.concat_tables(part.cast(chosen) for part in parts) if parts else chosen.empty_table()

    @contextmanager
    def _naming_the_file(self) -> Iterator[None]:
        try:
            yield
        except (pa.ArrowException, OSError) as error:
            if isinstance(error, OSError) and error.errno is not None:
                raise
            raise TableError(f"{self.path}: cannot be read ({error}); {self._find_remedy()}") from error

    def _find_remedy(self) -> str:
        fixed = [
            field.name
            for field in self._opened.schema_arrow
            if field.name in LIST_LENGTHS and pa.types.is_fixed_size_list(field.type)
        ]
        if not fixed or int(pa.__version__.split(".")[0]) >= _READS_FIXED_LISTS_WITH_NULLS:
            return self._remedy
        return (
            f"an earlier version of emoface wrote {', '.join(fixed)} as fixed-size lists, which pyarrow "
            f"{pa.__version__} cannot read; install pyarrow>={_READS_FIXED_LISTS_WITH_NULLS}, or {self._remedy}"
        )

    def _check(self, table: pa.Table) -> pa.Table:
        """Checks the values of every column of the schema and converts the types of earlier versions."""
        if self.is_unlabelled and not _LABEL_COLUMNS.isdisjoint(table.column_names):
            raise TableError(f"{self.path}: its people have no labels yet; {_LABELLING}")
        for position, name in enumerate(table.column_names):
            if name not in self._schema.names:
                continue
            field, column = self._schema.field(name), table[name]
            if column.type != field.type:
                column = column.cast(field.type)
                table = table.set_column(position, field, column)
            if fault := find_fault(field, column, self.label_names):
                raise TableError(f"{self.path}: column '{name}' {fault}; {self._remedy}")
        return table


def find_fault(field: pa.Field, column: pa.ChunkedArray, label_names: tuple[str, ...] = CATEGORIES) -> str | None:
    """Finds a value that is not allowed in a column: a null, a list of another length, a number out of range.

    Args:
        field: The column in its schema; a column without a rule may hold anything.
        column: The values.
        label_names: The names of the table's labels.

    Returns:
        A phrase such as ``"has 2 nulls"``; None if every value is allowed.

    Example:
        >>> find_fault(pa.field("labels", pa.list_(pa.uint8())), pa.chunked_array([pa.array([[0, 1], [0, 3]])]))
        'has the value 3, expected 0 to 1'
        >>> find_fault(pa.field("image", pa.string()), pa.chunked_array([["a/b.jpg", "../c.jpg"]]))
        "has the path '../c.jpg', expected one below the image root, without '..'"
    """
    import pyarrow.compute as pc

    name = field.name
    if column.null_count and (name in NEVER_NULL or not field.nullable):
        return f"has {column.null_count} nulls"
    length, choices = list_length(name, label_names), value_choices(name, label_names)
    if name != "image" and length is None and name not in VALUE_RANGES and choices is None:
        return None
    values = column.drop_null().combine_chunks()
    if length is not None:
        lengths = pc.list_value_length(values).to_numpy(zero_copy_only=False)
        wrong = lengths[lengths != length]
        if len(wrong):
            return f"has a list of {wrong[0]} values, expected {length}"
    if pa.types.is_list(values.type) or pa.types.is_fixed_size_list(values.type):
        values = values.flatten()
        if values.null_count:
            return "has a null inside a list"
    if name in VALUE_RANGES:
        least, most = VALUE_RANGES[name]
        numbers = values.to_numpy(zero_copy_only=False)
        outside = numbers[~((numbers >= least) & (numbers <= most))]
        if len(outside):
            expected = "a finite number" if (least, most) == FINITE else f"{least:g} to {most:g}"
            return f"has the value {outside[0]:g}, expected {expected}"
    if choices is not None and pa.types.is_string(values.type):
        unknown = values.filter(pc.invert(pc.is_in(values, pa.array(choices))))
        if len(unknown):
            return f"has the value {unknown[0].as_py()!r}, expected one of {', '.join(choices)}"
    if name == "image":
        climbing = values.filter(pc.match_substring_regex(values, OUTSIDE_PATTERN))
        if len(climbing):
            return f"has the path {climbing[0].as_py()!r}, expected one below the image root, without '..'"
    return None


def open_table(path: Path, schema: pa.Schema, remedy: str) -> TableFile:
    """Opens a parquet file whose columns follow ``schema``, without reading its rows.

    The table may have labels of its own, see ``schema.with_labels``.

    Args:
        path: The parquet file.
        schema: The columns that the file must have.
        remedy: What the user can do if the file is missing or wrong.

    Raises:
        TableError: The file is missing, is not a parquet file, or has other columns.
    """
    if not path.is_file():
        raise TableError(f"{path}: no such file; {remedy}")
    return _open_parquet(open_bytes(path), path, schema, remedy)


def _open_parquet(source: pa.NativeFile, place: Place, schema: pa.Schema, remedy: str) -> TableFile:
    """Opens an open parquet file; ``place`` is its path or URL."""
    try:
        opened = pq.ParquetFile(source)
        found = opened.schema_arrow
    except (pa.ArrowException, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise TableError(f"{place}: not a readable parquet file ({error}); {remedy}") from error
    try:
        schema = with_labels(schema, label_names_of(found))
        schema = without_labels(schema) if is_unlabelled(found) else schema
    except ValueError as error:
        raise TableError(f"{place}: {error}; {remedy}") from error
    check_table(place, found, schema, remedy)
    return TableFile(place, opened, schema, remedy)


def read_table(path: Path, schema: pa.Schema, remedy: str, columns: list[str] | None = None) -> pa.Table:
    """Reads a parquet file whose columns follow ``schema``.

    Args:
        path: The parquet file.
        schema: The columns that the file must have.
        remedy: What the user can do if the file is missing or wrong.
        columns: The columns to read; None reads all.

    Raises:
        TableError: The file is missing, is not a parquet file, has other columns, or a value is not allowed.
    """
    with open_table(path, schema, remedy) as opened:
        return opened.read(columns)


def write_table(path: Path, table: pa.Table, schema: pa.Schema, row_group_size: int | None = None) -> None:
    """Writes a table in one step, after a cast to ``schema``, which also contains the file's metadata.

    Args:
        path: The parquet file to write.
        table: The rows to write.
        schema: The columns and the metadata of the file.
        row_group_size: Rows per row group; None uses the default of pyarrow.
    """
    with atomic_path(path) as temporary, open_bytes(temporary, "wb") as sink:
        _write_parquet(table, sink, schema, row_group_size)


def _write_parquet(table: pa.Table, sink: pa.NativeFile, schema: pa.Schema, row_group_size: int | None) -> None:
    pq.write_table(
        table.cast(schema).replace_schema_metadata(schema.metadata),
        sink,
        compression="zstd",
        row_group_size=row_group_size,
    )


def table_to_bytes(table: pa.Table, schema: pa.Schema) -> bytes:
    """Converts a table to the bytes of the file that ``write_table`` writes."""
    sink = pa.BufferOutputStream()
    _write_parquet(table, sink, schema, None)
    data: bytes = sink.getvalue().to_pybytes()
    return data


def bytes_to_table(data: bytes, place: str, schema: pa.Schema, remedy: str) -> pa.Table:
    """Reads the bytes of a parquet file whose columns follow ``schema``, see ``read_table``.

    Args:
        data: The bytes.
        place: The path or URL of the file, for messages.
        schema: The columns that the file must have.
        remedy: What the user can do if it is wrong.

    Raises:
        TableError: It is not a parquet file, has other columns, or a value is not allowed.
    """
    with _open_parquet(pa.BufferReader(data), place, schema, remedy) as opened:
        return opened.read()


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
