"""Checkpoints of a step that is being trained: in the store, hence there whatever machine is lost.

They lie in ``checkpoints/<key>/``: files ``<update>-<name>``, and ``<update>.json``, which is
written last and makes them a checkpoint. One that is not complete is passed over for the one before
it; the last two are kept, and all go when the step is committed. Files are known by size and by the
digest of their first bytes, so one that was cut off or never reached the disk counts as none.
"""

import re
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from pyarrow import NativeFile

from w2s_ray.store.artifacts import Store

KEPT = 2
HEAD_BYTES = 4096
_NAME = re.compile(r"\d{9}(\.json$|-)")


@dataclass(frozen=True)
class Checkpoint:
    """A complete one.

    Attributes:
        update: optimizer steps that it has behind it.
        content: what was given to ``Checkpoints.complete``.
        files: names of its files.
        place: its path or URI, for people.
    """

    update: int
    content: dict[str, Any]
    files: tuple[str, ...]
    place: str


@dataclass(frozen=True)
class Checkpoints:
    """Those of one step; can be pickled. Several processes may write files of one checkpoint."""

    store: Store
    key: str

    @property
    def folder(self) -> str:
        """Path of all of them in the store."""
        return f"checkpoints/{self.key}"

    def writing(self, update: int, name: str) -> AbstractContextManager[Path]:
        """A local path to write to, which becomes a file of the checkpoint, whole."""
        return self.store.writing(self._path(update, name))

    def complete(self, update: int, content: Mapping[str, Any], files: Mapping[str, int]) -> None:
        """Makes a checkpoint of files that are all there; of the others one stays, the last before.

        What lies behind ``update`` was passed over when the run was resumed: it goes too.

        Args:
            content: JSON values.
            files: name -> bytes.
        """
        described = {name: [size, self._head(update, name)] for name, size in files.items()}
        self.store.write_json(self._manifest(update), {"files": described, "content": content})
        with suppress(OSError):  # the checkpoint is good, whatever becomes of older ones
            kept = sorted(number for number in self._updates() if number <= update)[-KEPT:]
            names = [name for name in self.store.listing(self.folder) if _NAME.match(name)]
            for name in sorted(names, key=lambda name: not name.endswith(".json")):  # these first
                if int(name[:9]) not in kept:
                    self.store.remove(f"{self.folder}/{name}")

    def latest(self) -> Checkpoint | None:
        """The newest that is complete; None if there is none."""
        for update in sorted(self._updates(), reverse=True):
            with suppress(FileNotFoundError, ValueError, KeyError, TypeError):  # cut off, damaged
                manifest = self.store.read_json(self._manifest(update))
                if all(self._is(update, name, *file) for name, file in manifest["files"].items()):
                    place = self.store.location(self._manifest(update))
                    return Checkpoint(update, manifest["content"], (*manifest["files"],), place)
        return None

    def open_file(self, update: int, name: str) -> NativeFile:
        """A file of a checkpoint for random access."""
        return self.store.open_file(self._path(update, name))

    def discard(self) -> None:
        """Removes them all."""
        self.store.discard(self.folder)

    def _updates(self) -> Iterator[int]:
        for name in self.store.listing(self.folder):
            if _NAME.match(name) and name.endswith(".json"):
                yield int(name[:9])

    def _is(self, update: int, name: str, size: int, head: str) -> bool:
        with self.open_file(update, name) as file:
            return int(file.size()) == size and _digest(file) == head

    def _head(self, update: int, name: str) -> str:
        with self.open_file(update, name) as file:
            return _digest(file)

    def _manifest(self, update: int) -> str:
        return f"{self.folder}/{update:09}.json"

    def _path(self, update: int, name: str) -> str:
        return f"{self.folder}/{update:09}-{name}"


def _digest(file: NativeFile) -> str:
    return sha256(file.read(HEAD_BYTES)).hexdigest()[:16]
