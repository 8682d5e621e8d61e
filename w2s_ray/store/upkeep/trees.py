"""Sizes and ages of files, also of those that a store does not list."""

import os
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from typing import NamedTuple

from pyarrow import fs

from w2s_ray.store.artifacts import Store
from w2s_ray.store.object_store import ObjectStoreBackend

_UNITS = ("bytes", "KiB", "MiB", "GiB", "TiB")


class Tree(NamedTuple):
    """A file, or all files below a folder.

    Attributes:
        changed: the newest time of change in Unix seconds; 0 if there is no file.
    """

    bytes: int = 0
    files: int = 0
    changed: float = 0.0

    @property
    def age_seconds(self) -> float:
        return time.time() - self.changed


def tree(store: Store, path: str) -> Tree:
    """What lies at a path of the store, hidden files included."""
    files = list(_remote(store, path) if _is_remote(store) else _local(f"{store.uri}/{path}"))
    changed = max((file.changed for file in files), default=0.0)
    return Tree(sum(file.bytes for file in files), len(files), changed)


def total(trees: Iterable[Tree]) -> int:
    """Size of all in bytes."""
    return sum(each.bytes for each in trees)


def size_text(count: int) -> str:
    """A size for people, such as ``3.2 GiB``."""
    size, unit = float(count), 0
    while size >= 1024 and unit < len(_UNITS) - 1:
        size, unit = size / 1024, unit + 1
    return f"{count:,} bytes" if unit == 0 else f"{size:,.1f} {_UNITS[unit]}"


def _is_remote(store: Store) -> bool:
    return isinstance(store.backend, ObjectStoreBackend)


def _local(path: str) -> Iterator[Tree]:
    with suppress(OSError):
        if not os.path.isdir(path):
            yield _of(os.lstat(path))
            return
        for folder, _, names in os.walk(path):
            for name in names:
                with suppress(OSError):  # removed since it was listed
                    yield _of(os.lstat(f"{folder}/{name}"))


def _of(status: os.stat_result) -> Tree:
    return Tree(status.st_size, 1, status.st_mtime)


def _remote(store: Store, path: str) -> Iterator[Tree]:
    backend = store.backend
    assert isinstance(backend, ObjectStoreBackend)
    absolute = f"{backend.root}/{path}"
    selector = fs.FileSelector(absolute, recursive=True, allow_not_found=True)
    infos = [backend.filesystem.get_file_info(absolute)]
    if not infos[0].is_file:
        infos = backend.filesystem.get_file_info(selector)
    for info in infos:
        if info.is_file:
            # Where a file system does not say when, now: a young file is not taken for abandoned.
            changed = time.time() if info.mtime is None else info.mtime.timestamp()
            yield Tree(info.size, 1, changed)
