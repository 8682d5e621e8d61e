"""Rows of Parquet and Arrow files, in slices of bounded size.

Dictionaries stay as they are until the size of the rows is known (``foreign.arrow_values``).
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from functools import partial
from typing import Any

import pyarrow as pa
from pyarrow import parquet

from w2s_ray.errors import InputError
from w2s_ray.foreign.arrow_values import slices, spend
from w2s_ray.foreign.decompression import Budget
from w2s_ray.foreign.rows import check_columns

_ROWS_AT_ONCE = 4096
_ROWS_OF_PREFIXES = 64
"""Rows at once where a text may be stored as the end of a long one before it."""

_DICTIONARY = {"RLE_DICTIONARY", "PLAIN_DICTIONARY"}
_PREFIXES = "DELTA_BYTE_ARRAY"


def parquet_rows(name: str, file: Any) -> Iterator[tuple[str, dict[str, Any]]]:
    """The rows of a Parquet file, each with ``file: row n``.

    Raises:
        InputError: the file is damaged, or a limit is exceeded.
        OSError, ArrowException: the file cannot be read.
    """
    whole = parquet.ParquetFile(file)
    columns = [whole.schema.column(number) for number in range(len(whole.schema))]
    _refuse_damaged_columns(file, columns)
    dictionaries, prefixes = _encoded(whole.metadata)
    paths = {column.path for column in columns}
    if not paths.issuperset(dictionaries):
        raise pa.ArrowInvalid("columns of row groups that the schema does not have")
    size = _ROWS_OF_PREFIXES if prefixes else _ROWS_AT_ONCE
    batches = partial(_parquet_batches, file, dictionaries, size)
    plain = whole.schema_arrow if dictionaries else None
    yield from _rows_of_batches(name, batches, file.size(), plain)


def arrow_rows(name: str, file: Any) -> Iterator[tuple[str, dict[str, Any]]]:
    """The rows of an Arrow IPC file or stream; places and errors as of ``parquet_rows``."""
    yield from _rows_of_batches(name, partial(_arrow_batches, file), file.size(), None)


def _parquet_batches(file: Any, dictionaries: list[str], size: int) -> Iterator[pa.RecordBatch]:
    """The rows from the first on, ``size`` at once, some columns as dictionaries.

    Each row group has dictionaries of its own, and Arrow cannot join those of nested columns.
    """
    file.seek(0)
    opened = parquet.ParquetFile(file, read_dictionary=dictionaries)
    for group in range(opened.num_row_groups):
        yield from opened.iter_batches(batch_size=size, row_groups=[group])


def _arrow_batches(file: Any) -> Iterator[pa.RecordBatch]:
    """The rows from the first on, as they are stored."""
    file.seek(0)
    is_stream = file.read(6) != b"ARROW1"
    file.seek(0)
    if is_stream:
        yield from _validated(pa.ipc.open_stream(file))
    else:
        reader = pa.ipc.open_file(file)
        yield from _validated(map(reader.get_batch, range(reader.num_record_batches)))


def _refuse_damaged_columns(file: Any, columns: list[parquet.ColumnSchema]) -> None:
    """Begins to read each column of each row group.

    Asked for the metadata of a column that are damaged, pyarrow 26.0.1 ends the process; reading
    raises. Texts are read as dictionaries, which a short file cannot swell; those that are stored
    by common prefixes cannot be, which is said after the metadata were read.
    """
    texts = [column.path for column in columns if column.physical_type == "BYTE_ARRAY"]
    opened = parquet.ParquetFile(file, read_dictionary=texts)
    for group in range(opened.num_row_groups):
        for column in columns:
            rows = opened.iter_batches(batch_size=1, row_groups=[group], columns=[column.path])
            try:
                next(rows, None)
            except OSError as error:
                if "Not yet implemented" not in str(error):
                    raise


def _encoded(metadata: parquet.FileMetaData) -> tuple[list[str], bool]:
    """Columns with dictionaries, by path; and whether others are stored by common prefixes."""
    with_dictionary, with_prefixes = set(), set()
    for group in range(metadata.num_row_groups):
        for number in range(metadata.num_columns):
            column = metadata.row_group(group).column(number)
            if column.physical_type == "BYTE_ARRAY":
                encodings = set(column.encodings)
                if encodings & _DICTIONARY:
                    with_dictionary.add(column.path_in_schema)
                if _PREFIXES in encodings:
                    with_prefixes.add(column.path_in_schema)
    return sorted(with_dictionary - with_prefixes), bool(with_prefixes)


def _validated(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """Batches whose offsets and texts are within their buffers, which IPC does not check."""
    for batch in batches:
        batch.validate(full=True)
        yield batch


def _rows_of_batches(
    name: str,
    batches: Callable[[], Iterator[pa.RecordBatch]],
    stored_bytes: int,
    plain: pa.Schema | None,
) -> Iterator[tuple[str, dict[str, Any]]]:
    """The rows of batches, which can be read again.

    Args:
        plain: the schema without the dictionaries that were kept for reading.
    """
    number, where = 0, f"{name}: row"
    try:
        if Budget(name, stored_bytes).is_checked_first:
            budget = Budget(name, stored_bytes)
            for batch in batches():
                spend(batch, where, budget)
        budget = Budget(name, stored_bytes)
        for batch in batches():
            if number == 0:
                _check_schema(batch.schema, name)
            spend(batch, where, budget)
            for part in slices(batch, where, number):
                for row in _plain(part, plain).to_pylist():
                    number += 1
                    yield f"{where} {number}", row
    except (ValueError, OverflowError, MemoryError) as error:
        if isinstance(error, InputError):
            raise
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        place = f"{where} {number + 1}" if number else name
        raise InputError(f"{place}: cannot be read: {reason}") from error


def _check_schema(schema: pa.Schema, name: str) -> None:
    check_columns(schema.names, name)
    for column, count in Counter(schema.names).items():
        if count > 1:
            raise InputError(f"{name}: column name '{column[:40]}' twice, expected once")


def _plain(part: pa.RecordBatch, schema: pa.Schema | None) -> pa.RecordBatch:
    """The rows with the file's own types, whose values Python reads faster."""
    if schema is not None:
        with suppress(pa.ArrowNotImplementedError):
            return part.cast(schema)
    return part
