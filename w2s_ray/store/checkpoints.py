"""Checkpoints of a step in training. They are in the store, so they survive the loss of a machine.

They lie in ``checkpoints/<key>/``: files ``<update>-<name>``, and a manifest ``<update>.json``,
which is written last and makes them a checkpoint. A manifest lists size and digest of each file,
and has its own. A checkpoint whose manifest is damaged, or whose files have other sizes, is skipped
for the one before it; digests take a reading of the whole, so who resumes asks for them
(``is_whole``). The last two are kept, and all are removed when the step is committed.
"""

import json
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
from w2s_ray.store.records import check_digest, record_bytes

KEPT = 2
BLOCK_BYTES = 32 << 20  # that are asked of the store at once
_NAME = re.compile(r"\d{9}(\.json$|-)")


@dataclass(frozen=True)
class Checkpoint:
    """A complete checkpoint.

    Attributes:
        update: Number of optimizer steps that it contains.
        content: The JSON values given to ``Checkpoints.complete``.
        files: SHA-256 of each of its files, in hex, by name.
        location: Path or URI of its manifest, for people.
    """

    update: int
    content: dict[str, Any]
    files: Mapping[str, str]
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

    def complete(
        self, update: int, content: Mapping[str, Any], files: Mapping[str, tuple[int, str]]
    ) -> None:
        """Make a checkpoint of files that have all been written, and remove older ones.

        The checkpoint before it is kept. Later ones are removed as well: they were skipped as
        damaged when the run resumed.

        Args:
            update: Number of optimizer steps that it contains.
            content: JSON values to keep with it.
            files: Name -> size in bytes and SHA-256 in hex.
        """
        manifest = record_bytes({"files": files, "content": content})
        self.store.backend.write(self._manifest(update), manifest)
        with suppress(OSError):  # the new checkpoint is valid even if old ones cannot be removed
            kept = sorted(number for number in self._updates() if number <= update)[-KEPT:]
            names = [name for name in self.store.listing(self.folder) if _NAME.match(name)]
            for name in sorted(names, key=_manifests_first):
                if int(name[:9]) not in kept:
                    self.store.remove(f"{self.folder}/{name}")

    def latest(
        self, before: int | None = None, passed_over: list[str] | None = None
    ) -> Checkpoint | None:
        """The newest complete checkpoint; None if there is none.

        Args:
            before: Of those of fewer updates than this.
            passed_over: Takes a line on each newer one that is damaged.
        """
        for update in sorted(self._updates(), reverse=True):
            if before is not None and update >= before:
                continue
            try:
                return self._read(update)
            except (FileNotFoundError, ValueError, KeyError, TypeError) as error:
                if passed_over is not None:
                    location = self.store.location(self._manifest(update))
                    reason = str(error) or type(error).__name__
                    passed_over.append(f"checkpoint {location}: passed over: {reason}")
        return None

    def is_whole(self, checkpoint: Checkpoint, name: str) -> bool:
        """Whether a file of a checkpoint is the one that was written; it is read to its end."""
        digest = sha256()
        with self.open_file(checkpoint.update, name) as file:
            while block := file.read(BLOCK_BYTES):
                digest.update(block)
        return digest.hexdigest() == checkpoint.files[name]

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

    def _read(self, update: int) -> Checkpoint:
        """A checkpoint by its manifest.

        Raises:
            ValueError: The manifest is damaged, or a file has another size.
            FileNotFoundError, KeyError, TypeError: As well.
        """
        path = self._manifest(update)
        (content,) = self.store.backend.read([path])
        manifest = json.loads(content or b"")
        check_digest(content or b"", manifest)
        for name, (size, _) in manifest["files"].items():
            with self.open_file(update, name) as file:
                if file.size() != size:
                    raise ValueError(f"{name}: {file.size()} bytes of {size}")
        digests = {name: digest for name, (_, digest) in manifest["files"].items()}
        return Checkpoint(update, manifest["content"], digests, self.store.location(path))

    def _manifest(self, update: int) -> str:
        return f"{self.folder}/{update:09}.json"

    def _path(self, update: int, name: str) -> str:
        return f"{self.folder}/{update:09}-{name}"


def _manifests_first(name: str) -> bool:
    """Sort key: a checkpoint loses its manifest first, so a half-removed one is not complete."""
    return not name.endswith(".json")
