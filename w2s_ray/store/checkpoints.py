"""Checkpoints of a step in training. They are in the store, so they survive the loss of a machine.

They lie in ``checkpoints/<key>/``: files ``<update>-<name>``, and a manifest ``<update>.json``,
which is written last and makes them a checkpoint. A manifest lists each file's size and the digest
of its first bytes, so that truncated files and files that never reached the disk are noticed; an
incomplete checkpoint is skipped for the one before it. The last two are kept, and all are removed
when the step is committed.
"""

import re
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from pyarrow import NativeFile

from w2s_ray.store.files import StoreFiles
from w2s_ray.store.names import CHECKPOINTS

KEPT = 2
HEAD_BYTES = 4096
_NAME = re.compile(r"\d{9}(\.json$|-)")


@dataclass(frozen=True)
class Checkpoint:
    """A complete checkpoint.

    Attributes:
        update: Number of optimizer steps that it contains.
        content: The JSON values given to ``Checkpoints.complete``.
        files: Names of its files.
        location: Path or URI of its manifest, for people.
    """

    update: int
    content: dict[str, Any]
    files: tuple[str, ...]
    location: str


@dataclass(frozen=True)
class Checkpoints:
    """The checkpoints of the step with one key.

    Can be pickled. Several processes may write files of one checkpoint.
    """

    store: StoreFiles
    key: str

    @property
    def folder(self) -> str:
        """Path of the folder of all checkpoints of the step, in the store."""
        return f"{CHECKPOINTS}/{self.key}"

    def writing(self, update: int, name: str) -> AbstractContextManager[Path]:
        """A local path to write to; at the end of the block it is a file of the checkpoint."""
        return self.store.writing(self._path(update, name))

    def complete(self, update: int, content: Mapping[str, Any], files: Mapping[str, int]) -> None:
        """Make a checkpoint of files that have all been written, and remove older ones.

        The checkpoint before it is kept. Later ones are removed as well: they were skipped as
        damaged when the run resumed.

        Args:
            update: Number of optimizer steps that it contains.
            content: JSON values to keep with it.
            files: Name -> size in bytes.
        """
        described = {name: [size, self._head(update, name)] for name, size in files.items()}
        self.store.write_json(self._manifest(update), {"files": described, "content": content})
        with suppress(OSError):  # the new checkpoint is valid even if old ones cannot be removed
            kept = sorted(number for number in self._updates() if number <= update)[-KEPT:]
            names = [name for name in self.store.listing(self.folder) if _NAME.match(name)]
            for name in sorted(names, key=_manifests_first):
                if int(name[:9]) not in kept:
                    self.store.remove(f"{self.folder}/{name}")

    def latest(self) -> Checkpoint | None:
        """The newest complete checkpoint; None if there is none."""
        for update in sorted(self._updates(), reverse=True):
            path = self._manifest(update)
            with suppress(FileNotFoundError, ValueError, KeyError, TypeError):  # damaged
                manifest = self.store.read_json(path)
                files = manifest["files"]
                if all(self._is_intact(update, name, *file) for name, file in files.items()):
                    location = self.store.location(path)
                    return Checkpoint(update, manifest["content"], tuple(files), location)
        return None

    def open_file(self, update: int, name: str) -> NativeFile:
        """A file of a checkpoint for random access."""
        return self.store.open_file(self._path(update, name))

    def discard(self) -> None:
        """Remove all of them."""
        self.store.discard(self.folder)

    def _updates(self) -> Iterator[int]:
        """The updates that have a manifest."""
        for name in self.store.listing(self.folder):
            if _NAME.match(name) and name.endswith(".json"):
                yield int(name[:9])

    def _is_intact(self, update: int, name: str, size: int, head: str) -> bool:
        with self.open_file(update, name) as file:
            return int(file.size()) == size and _head_digest(file) == head

    def _head(self, update: int, name: str) -> str:
        with self.open_file(update, name) as file:
            return _head_digest(file)

    def _manifest(self, update: int) -> str:
        return f"{self.folder}/{update:09}.json"

    def _path(self, update: int, name: str) -> str:
        return f"{self.folder}/{update:09}-{name}"


def _manifests_first(name: str) -> bool:
    """Sort key: a checkpoint loses its manifest first, so a half-removed one is not complete."""
    return not name.endswith(".json")


def _head_digest(file: NativeFile) -> str:
    return sha256(file.read(HEAD_BYTES)).hexdigest()[:16]
