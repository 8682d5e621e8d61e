"""The store on a local (or mounted) file system, where a rename is the commit.

Everything is written into a temporary sibling, flushed to the disk, and renamed into place. A
reader therefore sees the whole thing or nothing, whatever was killed when. A temporary name tells
its maker (``.tmp-<name>-<owner>-<random>``), so that what dead processes left can be swept.
"""

import errno
import json
import os
import shutil
import time
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from uuid import uuid4

from w2s_ray.errors import InputError
from w2s_ray.store import claims
from w2s_ray.store.owners import Owner, this_process

RECORD = "record.json"
TEMPORARY = ".tmp-"
SWEEP_AFTER_SECONDS = 86_400.0


class StoreError(InputError):
    """An artifact whose files are not what its record says; told with the folder to delete."""


class LocalPlace:
    """Folders below ``root``; created when first written. All paths are relative to ``root``."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._swept: set[str] = set()

    def artifacts(self) -> Iterator[str]:
        """``<kind>/<folder>`` of each complete artifact."""
        for kind in self._subfolders(self.root):
            for name in self._subfolders(kind):
                if _ends_well(f"{name}/{RECORD}"):
                    yield name[self._skip :]

    def find(self, keys: Collection[str]) -> dict[str, str]:
        """key -> ``<kind>/<folder>`` of the complete artifacts among ``keys``.

        One look at the names for all keys; of the files only the records of these are read.
        """
        found: dict[str, str] = {}
        for kind in self._subfolders(self.root):
            for name in os.listdir(kind):
                key = name.rpartition("-")[2]
                if key in keys and name[0] != "." and _complete(Path(kind, name)):
                    location = f"{kind[self._skip :]}/{name}"
                    found[key] = min(location, found.get(key, location))
        return found

    def workspace(self, folder: str, name: str) -> Path:
        """A new temporary folder in ``folder``; what dead processes left there goes first."""
        parent = self.root / folder
        parent.mkdir(parents=True, exist_ok=True)
        if folder not in self._swept:
            self._swept.add(folder)
            sweep(parent, self.root / "claims")
        path = parent / temporary_name(name)
        path.mkdir()
        return path

    def publish(self, workspace: Path, location: str, record: bytes) -> None:
        """Make the workspace the artifact at ``location``, unless a complete one is there."""
        final = self.root / location
        if _complete(final):
            return
        _flush_below(workspace)
        (workspace / RECORD).write_bytes(record)
        _flush(workspace / RECORD)
        _flush(workspace)
        while True:
            try:
                os.rename(workspace, final)
                break
            except OSError as error:
                if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                    raise
            if _complete(final):
                return
            self.discard(location)  # a copy that broke off, or its record did: it cannot be read
        _flush(final.parent)

    def discard(self, location: str) -> None:
        """Remove a folder from sight at once, then from the disk."""
        final = self.root / location
        away = final.with_name(temporary_name(final.name))
        with suppress(FileNotFoundError):
            os.rename(final, away)
            shutil.rmtree(away, ignore_errors=True)

    def folder(self, location: str) -> Path:
        """The artifact's files on this machine.

        Raises:
            StoreError: a file is missing or has not the size that the record says.
        """
        folder = self.root / location
        sizes = json.loads((folder / RECORD).read_bytes()).get("files", {})
        self._refuse_damage(folder, sizes, sizes)
        return folder

    def member(self, location: str, record: bytes, name: str) -> str:
        """Path of one of an artifact's files.

        Raises:
            StoreError: it is missing or has not the size that the record says.
        """
        self._refuse_damage(self.root / location, json.loads(record).get("files", {}), [name])
        return f"{location}/{name}"

    def listing(self, folder: str) -> list[str]:
        """Names of the files in a folder, sorted; none if there is no such folder."""
        try:
            names = os.listdir(self.root / folder)
        except FileNotFoundError:
            return []
        return sorted(name for name in names if not name.startswith("."))

    def read_all(self, paths: Sequence[str]) -> list[bytes]:
        """Contents of files.

        Raises:
            FileNotFoundError: one of them is not there.
        """
        return [(self.root / path).read_bytes() for path in paths]

    @contextmanager
    def writing(self, path: str) -> Iterator[Path]:
        """A local path to write to; it becomes ``path`` at the end, whole, replacing what was."""
        folder, _, name = path.rpartition("/")
        workspace = self.workspace(folder, name)
        try:
            yield workspace / name
            _flush(workspace / name)
            os.replace(workspace / name, self.root / path)
            _flush(self.root / folder)
        finally:
            shutil.rmtree(workspace, ignore_errors=True)

    def remove(self, path: str) -> None:
        """Remove a file if it is there."""
        (self.root / path).unlink(missing_ok=True)

    def claims(self, keys: Iterable[str]) -> AbstractContextManager[set[str]]:
        return claims.local_claims(self.root / "claims", keys)

    def _refuse_damage(self, folder: Path, sizes: Mapping[str, int], names: Iterable[str]) -> None:
        if found := damage(folder, {name: sizes[name] for name in names if name in sizes}):
            raise StoreError(
                f"{folder} is damaged: {found}; delete the folder {folder} and run again"
            )

    @property
    def _skip(self) -> int:
        return len(str(self.root)) + 1

    def _subfolders(self, folder: str | Path) -> list[str]:
        try:
            with os.scandir(folder) as entries:
                return [e.path for e in entries if e.name[0] != "." and e.is_dir()]
        except FileNotFoundError:
            return []


def temporary_name(name: str) -> str:
    """A name nobody else has, that readers pass over and ``sweep`` understands."""
    return f"{TEMPORARY}{name}-{this_process().token}-{uuid4().hex[:8]}"


def sweep(folder: Path, claims_folder: Path) -> None:
    """Remove temporary files that no living process can still be writing.

    On this machine: those whose maker is dead, and no others. Of other machines: those untouched
    for a day whose key nobody holds a claim on.
    """
    with os.scandir(folder) as entries:
        leftovers = [Path(e.path) for e in entries if e.name.startswith(TEMPORARY)]
    for path in leftovers:
        name, _, rest = path.name.removeprefix(TEMPORARY).rpartition("-")
        name, _, token = name.rpartition("-")
        owner = Owner.parse(token) if rest else None
        if owner is not None and owner.is_here:
            abandoned = owner.is_dead
        else:
            abandoned = _age_seconds(path) > SWEEP_AFTER_SECONDS and not claims.is_held(
                claims_folder, name
            )
        if abandoned:
            shutil.rmtree(path, ignore_errors=True)


def _age_seconds(path: Path) -> float:
    newest = 0.0
    for inner in (path, *path.rglob("*")):
        with suppress(OSError):
            newest = max(newest, inner.lstat().st_mtime)
    return time.time() - newest


def is_record(content: bytes) -> bool:
    """Whether a record can be read; one that was cut off or overwritten counts as none."""
    try:
        return isinstance(json.loads(content), dict)
    except ValueError:
        return False


def damage(folder: Path, sizes: Mapping[str, int]) -> str | None:
    """The first file that is missing or has another size (bytes), in words; None if all is well."""
    for name, expected in sizes.items():
        try:
            size = (folder / name).stat().st_size
        except (FileNotFoundError, NotADirectoryError):
            return f"{name} is missing"
        if size != expected:
            return f"{name} has {size} bytes, expected {expected}"
    return None


def _complete(folder: Path) -> bool:
    try:
        return is_record((folder / RECORD).read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        return False


def _ends_well(record: str) -> bool:
    """``_complete`` for a listing of thousands: a record as the store writes it is known by its
    last two bytes (an inner object ends within its line), any other is read."""
    try:
        descriptor = os.open(record, os.O_RDONLY)
    except (FileNotFoundError, NotADirectoryError):
        return False
    try:
        size = os.fstat(descriptor).st_size
        if os.pread(descriptor, 2, max(0, size - 2)) == b"\n}":
            return True
        return is_record(os.pread(descriptor, size, 0))
    finally:
        os.close(descriptor)


def _flush_below(folder: Path) -> None:
    """All files and folders below ``folder``, but not the folder itself."""
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                _flush_below(Path(entry.path))
            if not entry.is_symlink():
                _flush(entry.path)


def _flush(path: str | Path) -> None:
    """fsync of a file or a folder."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
