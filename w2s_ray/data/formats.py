"""Rows of one file, each with its file and line; ``FORMATS`` has a row for each suffix."""

import csv
import io
import json
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO

from pyarrow import fs

from w2s_ray.data.columnar import arrow_rows, parquet_rows
from w2s_ray.data.counting import counted
from w2s_ray.data.json_arrays import rows_of_array
from w2s_ray.data.utf8 import ERRORS, checked_lines, not_utf8
from w2s_ray.errors import InputError
from w2s_ray.foreign.decompression import Budget, BudgetedStream, check_unpacked
from w2s_ray.foreign.json_text import check_depth
from w2s_ray.foreign.limits import exceeded, limit
from w2s_ray.foreign.lines import RowLines, bounded_lines
from w2s_ray.foreign.rows import check_columns

RawRow = dict[str, Any]
LocatedRows = Iterator[tuple[str, RawRow]]
"""Rows with where they are: ``file:line``, or ``file: row n`` for Parquet and Arrow."""

COMPRESSIONS = {".gz": "gzip", ".zst": "zstd"}


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
        InputError: a row does not have the format; the message names its line. Or a limit of
            ``foreign.limits`` is exceeded.
        OSError, ArrowException: the file cannot be read or is truncated.
    """
    suffix = format_of(path)
    assert suffix is not None
    form = FORMATS[suffix]
    if form.random_access:
        with filesystem.open_input_file(path) as file:
            yield from form.read(name, file)
        return
    codec = next((codec for end, codec in COMPRESSIONS.items() if path.lower().endswith(end)), None)
    stored = filesystem.get_file_info(path).size if codec else None
    if codec and Budget(name, stored).is_checked_first:
        with filesystem.open_input_stream(path, compression=codec) as stream:
            check_unpacked(stream, Budget(name, stored))
    with filesystem.open_input_stream(path, compression=codec) as stream:
        if codec is not None:
            stream = BudgetedStream(stream, Budget(name, stored))
        yield from form.read(name, io.BufferedReader(stream, 1 << 20))


def _json_lines(name: str, file: BinaryIO) -> LocatedRows:
    deepest = limit("json.depth")
    for number, line in bounded_lines(name, file.readline):
        if number == 1:
            line = line.removeprefix(b"\xef\xbb\xbf")
            if not line.strip():
                continue
        try:
            row = json.loads(line)
        except UnicodeDecodeError as error:
            raise not_utf8(f"{name}:{number}", error) from error
        except RecursionError:
            raise InputError(
                f"{name}:{number}: expected a JSON object per line: {exceeded('json.depth')}"
            ) from None
        except ValueError as error:  # not JSON
            raise InputError(
                f"{name}:{number}: expected a JSON object per line: {_reason(error, line)}"
            ) from error
        if not isinstance(row, dict):
            hint = "; name a file with an array .json" if line.lstrip().startswith(b"[") else ""
            raise InputError(f"{name}:{number}: expected a JSON object, given {line[:40]!r}{hint}")
        if line.count(b"[") + line.count(b"{") > deepest:
            check_depth(row, f"{name}:{number}")
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
    csv.field_size_limit(max(csv.field_size_limit(), limit("row.bytes")))
    text = io.TextIOWrapper(file, encoding="utf-8-sig", errors=ERRORS, newline="")
    lines = RowLines(name, text.readline)
    reader = csv.reader(checked_lines(name, lines), strict=True)
    header: list[str] | None = None
    line, blank = 1, 0
    try:
        for cells in reader:
            lines.start_row()
            where, line = f"{name}:{line}", reader.line_num + 1
            blank = 0 if cells else blank + 1
            if blank > limit("blank.lines"):
                raise InputError(f"{where}: blank lines: {exceeded('blank.lines')}")
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
    check_columns(header, where)
    repeated = [cell for cell, count in Counter(header).items() if cell and count > 1]
    if repeated:
        raise InputError(f"{where}: column name '{repeated[0]}' twice, expected once")
    other = next((mark for mark in (";", "\t", "|") if mark in "".join(header)), None)
    if len(header) == 1 and other:
        raise InputError(
            f"{where}: one column named {header[0][:40]!r}; expected columns separated by commas, "
            f"not by {other!r}"
        )


FORMATS: dict[str, Format] = {
    ".jsonl": Format("a JSON object per line", _json_lines),
    ".ndjson": Format("a JSON object per line", _json_lines),
    ".json": Format("an array of JSON objects, or an object per line", _json),
    ".csv": Format("comma-separated cells under a line of column names, in UTF-8", _csv),
    ".parquet": Format("Parquet", parquet_rows, random_access=True),
    ".arrow": Format("an Arrow IPC stream or file", arrow_rows, random_access=True),
}
"""The formats by suffix; files of those that are read as a stream may be compressed."""
