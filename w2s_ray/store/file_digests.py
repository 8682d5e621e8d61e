"""Digests of files, by streaming; a file that has not changed is read once per process.

A file counts as unchanged while path, size, time of change and inode stay the same. Once per
process rather than once per host: a mark on a disk would hide what decays behind it, and hashing
costs about a tenth of a second per 100 MB.
"""

import os
import time
from hashlib import file_digest
from pathlib import Path
from typing import NamedTuple

# A file that changed so recently may change again without another time of change.
_SETTLED_NS = 2_000_000_000


class _State(NamedTuple):
    """A file at some moment."""

    path: str
    size: int
    changed_ns: int
    inode: int


_verified: dict[_State, str] = {}


def digest_of(path: str | Path) -> str:
    """The SHA-256 of a file in hex; the file is never whole in memory."""
    with open(path, "rb") as file:
        return file_digest(file, "sha256").hexdigest()


def is_unchanged(path: Path, digest: str | None) -> bool:
    """Whether a file has this digest; True where none was recorded (None)."""
    if digest is None:
        return True
    status = os.stat(path)
    state = _State(os.path.abspath(path), status.st_size, status.st_mtime_ns, status.st_ino)
    if _verified.get(state) == digest:
        return True
    if digest_of(path) != digest:
        return False
    if time.time_ns() - status.st_mtime_ns > _SETTLED_NS:
        _verified[state] = digest
    return True
