"""Rows of one file, each with its file and line; ``FORMATS`` has a row for each suffix."""

import csv
import io
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO

from pyarrow import fs, parquet

from w2s_ray.errors import InputError

RawRow = dict[str, Any]
LocatedRows = Iterator[tuple[str, RawRow]]
"""Rows with where they are: ``file:line``, or ``file: row n`` for Parquet."""

COMPRESSIONS = {".gz": "gzip", ".zst": "zstd"}


@dataclass(frozen=True)
class Format:
    """How the files of one suffix are read.

    Attributes:
        read: (name of the file in messages, its binary content) -> its rows.
        random_access: whether ``read`` seeks in the file instead of reading it as a stream; such
            a file cannot be compressed as a whole.
    """

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
        except ValueError as error:  # not JSON, or not UTF-8
            raise InputError(
                f"{name}:{number}: expected a JSON object per line: {error}"
            ) from error
        if not isinstance(row, dict):
            raise InputError(f"{name}:{number}: expected a JSON object, given {line[:40]!r}")
        yield f"{name}:{number}", row


def _csv(name: str, file: BinaryIO) -> LocatedRows:
    reader = csv.reader(io.TextIOWrapper(file, encoding="utf-8-sig", newline=""), strict=True)
    header: list[str] | None = None
    line = 1
    try:
        for cells in reader:
            where, line = f"{name}:{line}", reader.line_num + 1
            if header is None:
                header = cells
                if repeated := [cell for cell in header if cell and header.count(cell) > 1]:
                    raise InputError(f"{where}: column name '{repeated[0]}' twice, expected once")
            elif len(cells) == len(header):
                yield where, dict(zip(header, cells, strict=True))
            elif cells:
                raise InputError(f"{where}: {len(cells)} cells under {len(header)} column names")
    except (csv.Error, UnicodeDecodeError) as error:
        raise InputError(f"{name}:{line}: expected a row of CSV in UTF-8: {error}") from error


def _parquet(name: str, file: Any) -> LocatedRows:
    number = 0
    for batch in parquet.ParquetFile(file).iter_batches():
        for row in batch.to_pylist():
            number += 1
            yield f"{name}: row {number}", row


FORMATS: dict[str, Format] = {
    ".jsonl": Format(_json_lines),
    ".ndjson": Format(_json_lines),
    ".json": Format(_json_lines),
    ".csv": Format(_csv),
    ".parquet": Format(_parquet, random_access=True),
}
"""The formats by suffix; files of those that are read as a stream may be compressed."""
