"""Checkpoints of a step that is being trained: in the store, hence there whatever machine is lost.

They lie in ``checkpoints/<key>/``: files ``<update>-<name>``, and ``<update>.json``, which is
written last and makes them a checkpoint. One that is not complete is passed over for the one before
it; the last two are kept, and all go when the step is committed.
"""

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pyarrow import NativeFile

from w2s_ray.store.artifacts import Store

KEPT = 2


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
        """Makes a checkpoint of files that are all there; older ones than the last two go.

        Args:
            content: JSON values.
            files: name -> bytes.
        """
        self.store.write_json(self._manifest(update), {"files": dict(files), "content": content})
        kept = sorted(self._updates())[-KEPT:]
        names = self.store.listing(self.folder)
        for name in sorted(names, key=lambda name: not name.endswith(".json")):  # manifests first
            if _update(name) < kept[0]:
                self.store.remove(f"{self.folder}/{name}")

    def latest(self) -> Checkpoint | None:
        """The newest that is complete; None if there is none."""
        for update in sorted(self._updates(), reverse=True):
            with suppress(FileNotFoundError, ValueError, KeyError, TypeError):  # cut off, damaged
                manifest = self.store.read_json(self._manifest(update))
                if all(self._size(update, n) == size for n, size in manifest["files"].items()):
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
            if name.endswith(".json"):
                yield _update(name)

    def _size(self, update: int, name: str) -> int:
        with self.open_file(update, name) as file:
            return int(file.size())

    def _manifest(self, update: int) -> str:
        return f"{self.folder}/{update:09}.json"

    def _path(self, update: int, name: str) -> str:
        return f"{self.folder}/{update:09}-{name}"


def _update(name: str) -> int:
    return int(name[:9])
