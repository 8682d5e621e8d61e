"""Bad data files: each is written by a function, and refused in a line with a given fragment.

Large ones are sparse, compressed or repeated, so that all of them are written within seconds.
"""

import gzip
import json
import os
import socket
import struct
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

MEBIBYTE = 1 << 20
ROW = b'{"chosen": "yes", "rejected": "no"}\n'
TEXT_ROW = b'{"text": "a", "label": "x"}\n'
NUMBERED = b"".join(b'{"text": "%d", "label": 3}\n' % number for number in range(9))
LONG = "x" * MEBIBYTE

Writer = Callable[[Path], object]


class BadData(NamedTuple):
    """A bad source of data.

    Attributes:
        name: of the file or folder that is the source.
        write: writes it at the path it is given.
        fragment: of the line that refuses it.
        kind: of the data set.
    """

    name: str
    write: Writer
    fragment: str
    kind: str = "preference"


def content(data: bytes) -> Writer:
    """Writes these bytes."""
    return lambda path: path.write_bytes(data)


def row(**fields: Any) -> Writer:
    """Writes one line of JSON after a good one."""
    return lambda path: path.write_bytes(ROW + json.dumps(fields).encode() + b"\n")


def text_row(**fields: Any) -> Writer:
    """Writes one line of JSON, a text and a label, after a good one."""
    given = {"text": "a", "label": "x", **fields}
    return lambda path: path.write_bytes(TEXT_ROW + json.dumps(given).encode() + b"\n")


def sparse(beginning: bytes, size: int) -> Writer:
    """Writes a beginning and zeros that need no disk."""

    def write(path: Path) -> None:
        path.write_bytes(beginning)
        os.truncate(path, size)

    return write


@cache
def _packed(block: bytes, codec: str) -> bytes:
    if codec == "gzip":
        return gzip.compress(block, mtime=0)
    return bytes(pa.compress(block, codec=codec, asbytes=True))


def bomb(block: bytes, times: int, codec: str = "gzip") -> Writer:
    """Writes a compressed file that becomes a block, so many times over."""
    return lambda path: path.write_bytes(_packed(block, codec) * times)


def table(columns: dict[str, Any], **how: Any) -> Writer:
    """Writes a Parquet file without the schema of Arrow, so that dictionaries become texts."""
    return lambda path: pq.write_table(pa.table(columns), path, store_schema=False, **how)


def repeated(value: Any, times: int) -> pa.Array:
    """One value for many rows, stored once."""
    indices = pa.array(np.zeros(times, np.int32))
    return pa.DictionaryArray.from_arrays(indices, pa.array([value]))


def arrow(*columns: tuple[str, pa.Array], stream: bool = False) -> Writer:
    """Writes an Arrow file."""

    def write(path: Path) -> None:
        batch = pa.RecordBatch.from_arrays([c for _, c in columns], [name for name, _ in columns])
        opened = pa.ipc.new_stream if stream else pa.ipc.new_file
        with opened(str(path), batch.schema) as writer:
            writer.write_batch(batch)

    return write


def damaged(write: Writer, change: Callable[[bytes], bytes]) -> Writer:
    """Writes a file and then other bytes in its place."""

    def write_damaged(path: Path) -> None:
        write(path)
        path.write_bytes(change(path.read_bytes()))

    return write_damaged


def folder(**files: Writer | bytes) -> Writer:
    """Writes a folder; ``__`` in a name stands for a dot."""

    def write(path: Path) -> None:
        path.mkdir()
        for name, how in files.items():
            file = path / name.replace("__", ".")
            (content(how) if isinstance(how, bytes) else how)(file)

    return write


def link(target: str) -> Writer:
    """Writes a symbolic link."""
    return lambda path: path.symlink_to(target)


def _socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as opened:
        where = os.getcwd()
        os.chdir(path.parent)  # the name of a socket is short
        try:
            opened.bind(path.name)
        finally:
            os.chdir(where)


def _views(times: int) -> pa.Array:
    """Many views of one long text."""
    view = struct.pack("<i4sii", MEBIBYTE, b"xxxx", 0, 0)
    buffers = [None, pa.py_buffer(view * times), pa.py_buffer(LONG.encode())]
    return pa.Array.from_buffers(pa.string_view(), times, buffers)


def _many(columns: int) -> bytes:
    return ",".join(f"c{number}" for number in range(columns)).encode()


def _wide(columns: int) -> bytes:
    return json.dumps({f"c{number}": 1 for number in range(columns)}).encode()


def _nested(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = [value]
    return value
