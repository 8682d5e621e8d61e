"""Rows of one file: JSON lines, CSV and Parquet, each row with the place it was found at."""

import csv
import io
import json
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO

from pyarrow import fs, parquet

from w2s_ray.errors import InputError

RawRow = dict[str, Any]
Located = Iterator[tuple[str, RawRow]]

PACKED = {".gz": "gzip", ".zst": "zstd"}


def format_of(path: str) -> str | None:
    """The suffix in ``FORMATS`` under which a file is read; None if it is not one of them."""
    name = path.lower()
    for packed in PACKED:
        name = name.removesuffix(packed)
    suffix = next((known for known in FORMATS if name.endswith(known)), None)
    return None if suffix == ".parquet" and name != path.lower() else suffix


def rows_of(name: str, filesystem: fs.FileSystem, path: str) -> Located:
    """The rows of a file whose ``format_of`` is known; ``name`` is what messages call it.

    Raises:
        InputError: a row that is not of the format; the line is named.
        OSError, ArrowException: the file cannot be read, or ends too early.
    """
    suffix = format_of(path)
    if suffix == ".parquet":  # read by parts, not as a stream
        with filesystem.open_input_file(path) as file:
            yield from _parquet(name, file)
        return
    assert suffix is not None
    packed = next((kind for end, kind in PACKED.items() if path.lower().endswith(end)), None)
    with filesystem.open_input_stream(path, compression=packed) as stream:
        yield from FORMATS[suffix](name, io.BufferedReader(stream, 1 << 20))


def _json_lines(name: str, file: BinaryIO) -> Located:
    for number, line in enumerate(file, start=1):
        if number == 1:
            line = line.removeprefix(b"\xef\xbb\xbf")
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as error:  # not JSON, or not UTF-8
            raise InputError(f"{name}:{number}: expected a JSON object a line: {error}") from error
        if not isinstance(row, dict):
            raise InputError(f"{name}:{number}: expected a JSON object, found {line[:40]!r}")
        yield f"{name}:{number}", row


def _csv(name: str, file: BinaryIO) -> Located:
    reader = csv.reader(io.TextIOWrapper(file, encoding="utf-8-sig", newline=""), strict=True)
    header: list[str] | None = None
    line = 1
    try:
        for cells in reader:
            where, line = f"{name}:{line}", reader.line_num + 1
            if header is None:
                header = cells
                if twice := [cell for cell in header if cell and header.count(cell) > 1]:
                    raise InputError(f"{where}: column name '{twice[0]}' twice, expected it once")
            elif len(cells) == len(header):
                yield where, dict(zip(header, cells, strict=True))
            elif cells:
                raise InputError(f"{where}: {len(cells)} cells under {len(header)} column names")
    except (csv.Error, UnicodeDecodeError) as error:
        raise InputError(f"{name}:{line}: expected a row of CSV in UTF-8: {error}") from error


def _parquet(name: str, file: Any) -> Located:
    number = 0
    for batch in parquet.ParquetFile(file).iter_batches():
        for row in batch.to_pylist():
            number += 1
            yield f"{name}: row {number}", row


FORMATS: dict[str, Callable[[str, Any], Located]] = {
    ".jsonl": _json_lines,
    ".ndjson": _json_lines,
    ".json": _json_lines,
    ".csv": _csv,
    ".parquet": _parquet,
}
"""How a file of each suffix is read; .jsonl, .ndjson, .json and .csv may be compressed."""
