"""Rows of one file: JSON lines, CSV and Parquet, each row with the place it was found at."""

import csv
import gzip
import io
import json
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO

from pyarrow import fs, parquet

from w2s_ray.errors import InputError

RawRow = dict[str, Any]
Located = Iterator[tuple[str, RawRow]]


def format_of(path: str) -> str | None:
    """The suffix in ``FORMATS`` under which a file is read; None if it is not one of them."""
    name = path.lower()
    for packed in (".gz", ".zst"):
        name = name.removesuffix(packed)
    suffix = next((known for known in FORMATS if name.endswith(known)), None)
    return None if suffix == ".parquet" and name != path.lower() else suffix


def rows_of(name: str, filesystem: fs.FileSystem, path: str) -> Located:
    """The rows of a file whose ``format_of`` is known; ``name`` is what messages call it.

    Raises:
        InputError: a row that is not of the format; the line is named.
        OSError, EOFError, ArrowException: the file cannot be read, or ends too early.
    """
    suffix = format_of(path)
    if suffix == ".parquet":
        with filesystem.open_input_file(path) as file:
            yield from _parquet(name, file)
        return
    assert suffix is not None
    with filesystem.open_input_stream(path, compression=None) as raw:
        yield from FORMATS[suffix](name, _unpacked(path, raw))


def _unpacked(path: str, raw: Any) -> BinaryIO:
    # Arrow's own decompression takes a file that breaks off for a whole one.
    if path.lower().endswith(".gz"):
        return io.BufferedReader(gzip.GzipFile(fileobj=raw))
    if path.lower().endswith(".zst"):
        return io.BufferedReader(_zstd(raw))
    return io.BufferedReader(raw)


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
