"""Rows of one file, each with its file and line; ``FORMATS`` has a row for each suffix."""

import csv
import io
import json
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO

import pyarrow as pa
from pyarrow import fs, parquet

from w2s_ray.data.counting import counted
from w2s_ray.data.json_arrays import rows_of_array
from w2s_ray.data.utf8 import ERRORS, checked_lines, not_utf8
from w2s_ray.errors import InputError

RawRow = dict[str, Any]
LocatedRows = Iterator[tuple[str, RawRow]]
"""Rows with where they are: ``file:line``, or ``file: row n`` for Parquet and Arrow."""

COMPRESSIONS = {".gz": "gzip", ".zst": "zstd"}

_LONGEST_CELL = sys.maxsize
"""Characters of a cell of CSV, instead of the 131,072 that Python allows by default."""


@dataclass(frozen=True)
class Format:
    """How the files of one suffix are read.

    Attributes:
        content: what such a file contains, for the documentation.
        read: (name of the file in messages, its binary content) -> its rows.
        random_access: whether ``read`` seeks in the file instead of reading it as a stream; such
            a file cannot be compressed as a whole.
    """

    content: str
    read: Callable[[str, Any], LocatedRows]
    random_access: bool = False


def format_of(path: str) -> str | None:
    """The suffix in ``FORMATS`` that determines how a file is read; None if it has none."""
    name = path.lower()
    for ending in COMPRESSIONS:
        name = name.removesuffix(ending)
    suffix = next((suffix for suffix in FORMATS if name.endswith(suffix)), None)
    compressed = name != path.lower()
    return None if suffix and FORMATS[suffix].random_access and compressed else suffix


def rows_of(name: str, filesystem: fs.FileSystem, path: str) -> LocatedRows:
    """Read the rows of a file for which ``format_of`` is not None.

    Args:
        name: of the file in messages.
        filesystem: where the file is.
        path: of the file in ``filesystem``.

    Raises:
        InputError: a row does not have the format; the message names its line.
        OSError, ArrowException: the file cannot be read or is truncated.
    """
    suffix = format_of(path)
    assert suffix is not None
    form = FORMATS[suffix]
    if form.random_access:
        with filesystem.open_input_file(path) as file:
            yield from form.read(name, file)
        return
    codecs = (codec for end, codec in COMPRESSIONS.items() if path.lower().endswith(end))
    with filesystem.open_input_stream(path, compression=next(codecs, None)) as stream:
        yield from form.read(name, io.BufferedReader(stream, 1 << 20))


def _json_lines(name: str, file: BinaryIO) -> LocatedRows:
    for number, line in enumerate(file, start=1):
        if number == 1:
            line = line.removeprefix(b"\xef\xbb\xbf")
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except UnicodeDecodeError as error:
            raise not_utf8(f"{name}:{number}", error) from error
        except (ValueError, RecursionError) as error:  # not JSON
            raise InputError(
                f"{name}:{number}: expected a JSON object per line: {_reason(error, line)}"
            ) from error
        if not isinstance(row, dict):
            hint = "; name a file with an array .json" if line.lstrip().startswith(b"[") else ""
            raise InputError(f"{name}:{number}: expected a JSON object, given {line[:40]!r}{hint}")
        yield f"{name}:{number}", row


def _reason(error: Exception, line: bytes) -> str:
    """What is wrong with a line, without the parser's count of lines."""
    if isinstance(error, json.JSONDecodeError):
        return f"{error.msg} at column {error.pos + 1} of {line.strip()[:40]!r}"
    return str(error)


def _json(name: str, file: io.BufferedReader) -> LocatedRows:
    beginning = file.peek(1).removeprefix(b"\xef\xbb\xbf").lstrip()
    if beginning.startswith(b"["):
        yield from rows_of_array(name, file)
        return
    if beginning.rstrip() == b"{" or beginning.startswith((b"{\n", b"{\r\n")):
        raise InputError(
            f"{name}:1: an object over several lines; expected an array of objects, or an object "
            "per line"
        )
    yield from _json_lines(name, file)


def _csv(name: str, file: BinaryIO) -> LocatedRows:
    csv.field_size_limit(max(csv.field_size_limit(), _LONGEST_CELL))
    text = io.TextIOWrapper(file, encoding="utf-8-sig", errors=ERRORS, newline="")
    reader = csv.reader(checked_lines(name, text), strict=True)
    header: list[str] | None = None
    line = 1
    try:
        for cells in reader:
            where, line = f"{name}:{line}", reader.line_num + 1
            if header is None:
                header = cells
                _check_header(header, where)
            elif len(cells) == len(header):
                yield where, dict(zip(header, cells, strict=True))
            elif cells:
                raise InputError(
                    f"{where}: {counted(len(cells), 'cell')} under "
                    f"{counted(len(header), 'column name')}"
                )
    except csv.Error as error:
        raise InputError(f"{name}:{line}: expected a row of CSV in UTF-8: {error}") from error


def _check_header(header: list[str], where: str) -> None:
    if repeated := [cell for cell in header if cell and header.count(cell) > 1]:
        raise InputError(f"{where}: column name '{repeated[0]}' twice, expected once")
    other = next((mark for mark in (";", "\t", "|") if mark in "".join(header)), None)
    if len(header) == 1 and other:
        raise InputError(
            f"{where}: one column named {header[0][:40]!r}; expected columns separated by commas, "
            f"not by {other!r}"
        )


def _parquet(name: str, file: Any) -> LocatedRows:
    yield from _rows_of_batches(name, parquet.ParquetFile(file).iter_batches())


def _arrow(name: str, file: Any) -> LocatedRows:
    is_stream = file.read(6) != b"ARROW1"
    file.seek(0)
    if is_stream:
        yield from _rows_of_batches(name, pa.ipc.open_stream(file))
    else:
        reader = pa.ipc.open_file(file)
        numbers = range(reader.num_record_batches)
        yield from _rows_of_batches(name, map(reader.get_batch, numbers))


def _rows_of_batches(name: str, batches: Iterable[pa.RecordBatch]) -> LocatedRows:
    number = 0
    for batch in batches:
        for row in batch.to_pylist():
            number += 1
            yield f"{name}: row {number}", row


FORMATS: dict[str, Format] = {
    ".jsonl": Format("a JSON object per line", _json_lines),
    ".ndjson": Format("a JSON object per line", _json_lines),
    ".json": Format("an array of JSON objects, or an object per line", _json),
    ".csv": Format("comma-separated cells under a line of column names, in UTF-8", _csv),
    ".parquet": Format("Parquet", _parquet, random_access=True),
    ".arrow": Format("an Arrow IPC stream or file", _arrow, random_access=True),
}
"""The formats by suffix; files of those that are read as a stream may be compressed."""
