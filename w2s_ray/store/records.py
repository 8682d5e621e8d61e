"""Records as JSON: what a complete one is, how it is written, and files that differ from it."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from w2s_ray.store.canonical import canonical_json

RECORD_SCHEMA = 1


def json_bytes(value: Any) -> bytes:
    """The JSON text of a value, one line per entry of a dict.

    Readable, and five times as fast as ``json.dumps`` with ``indent``, which runs in Python.

    Raises:
        TypeError: JSON cannot hold the value (NaN included); the message names its path.
    """
    try:
        if isinstance(value, dict):
            entries = (
                f" {json.dumps(k)}: {json.dumps(v, allow_nan=False)}" for k, v in value.items()
            )
            return ("{\n" + ",\n".join(entries) + "\n}").encode()
        return json.dumps(value, allow_nan=False).encode()
    except (TypeError, ValueError):
        canonical_json(value)  # its message names the path of the offending value
        raise


def is_record(content: bytes) -> bool:
    """Whether a record can be read; a truncated or overwritten one counts as missing."""
    return parse_record(content) is not None


def parse_record(content: bytes) -> dict[str, Any] | None:
    """The record; None if it is damaged."""
    try:
        record = json.loads(content)
    except ValueError:
        return None
    return record if isinstance(record, dict) else None


def ends_like_a_record(tail: bytes) -> bool:
    """Whether a file with this tail (two bytes or more) is a whole record of ``json_bytes``.

    Only the outermost object closes on a line of its own, so a truncated record ends otherwise.
    """
    return tail.endswith(b"\n}")


def sizes_below(folder: Path) -> dict[str, int]:
    """Path -> size in bytes of all files below a folder, as a record lists them."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.stat().st_size for path in files}


def recorded_sizes(record: bytes) -> dict[str, int]:
    """Path -> size in bytes of the files that a record lists."""
    sizes: dict[str, int] = json.loads(record).get("files", {})
    return sizes


def damage(folder: Path, sizes: Mapping[str, int]) -> str | None:
    """The first file below ``folder`` that is missing or has another size; None if all agree."""
    for name, expected in sizes.items():
        try:
            size = (folder / name).stat().st_size
        except (FileNotFoundError, NotADirectoryError):
            return f"{name} is missing"
        if size != expected:
            return wrong_size(name, size, expected)
    return None


def wrong_size(name: str, size: int, expected: int) -> str:
    """The damage of a file whose size in bytes is not the recorded one."""
    return f"{name} has {size} bytes, expected {expected}"
