"""A store on a local or mounted file system, where a rename is the commit.

Everything is written to a temporary sibling, flushed to disk, and renamed. Whichever process is
killed at whatever moment, a reader sees all of it or nothing. The name of a temporary folder
contains its owner (``.tmp-<name>-<owner>-<random>``), so that folders of dead processes can be
removed.
"""

import errno
import os
from collections.abc import Container, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path

from pyarrow import NativeFile

from w2s_ray.errors import SystemFault
from w2s_ray.store import claims
from w2s_ray.store.backend import damaged
from w2s_ray.store.names import CLAIMS, RECORD, WITH_FOLDERS, damaged_folder
from w2s_ray.store.owners import Holder
from w2s_ray.store.records import (
    damage,
    ends_like_a_record,
    is_record,
    parse_record,
    recorded_files,
)
from w2s_ray.store.system import SYSTEM, AnyPath, System
from w2s_ray.store.temporary import remove_abandoned, temporary_name

OCCUPIED = (errno.ENOTEMPTY, errno.EEXIST)  # of a rename to where a folder is


class LocalBackend:
    """A ``Backend`` whose root is a folder of this machine."""

    def __init__(self, root: Path, system: System = SYSTEM) -> None:
        self.root = root
        self._system = system
        self._cleaned: set[str] = set()  # folders that this process has rid of leftovers

    @property
    def uri(self) -> str:
        return str(self.root)

    def folders(self, without: Container[str] = ()) -> Iterator[str]:
        for path in self._subfolders(self._at()):
            parent = os.path.basename(path)
            for name in () if parent in without else self._names(path):
                yield f"{parent}/{name}"

    def committed(self) -> Iterator[str]:
        skip = len(str(self.root)) + 1
        for parent in self._subfolders(self._at()):
            for folder in self._subfolders(parent):
                if self._has_record(folder, folder[skip:]):
                    yield folder[skip:]

    def workspace(self, folder: str, name: str) -> Path:
        parent = self._at(folder)
        self._system.make_folders(parent)
        if folder not in self._cleaned:
            self._cleaned.add(folder)
            if folder:
                self._system.flush(os.path.dirname(parent))  # in case another process just made it
            remove_abandoned(parent, self._at(CLAIMS), self._system)
        path = f"{parent}/{temporary_name(name, self._system)}"
        self._system.make_folder(path)
        return Path(path)

    def commit(self, workspace: Path, path: str, record: bytes) -> None:
        final = self._at(path)
        if self._is_committed(path):
            self._system.flush(os.path.dirname(final))  # who committed it may be about to
            return
        self._flush_below(workspace)
        self._system.write(f"{workspace}/{RECORD}", record)
        self._system.flush(f"{workspace}/{RECORD}")
        self._system.flush(workspace)
        while True:
            try:
                self._system.rename(workspace, final)
                break
            except OSError as error:
                if error.errno not in OCCUPIED:
                    raise
            if self._is_committed(path) or self._takes_the_place(workspace, path):
                break
        self._system.flush(os.path.dirname(final))

    def _takes_the_place(self, workspace: Path, path: str) -> bool:
        """Puts a workspace where something is that is not committed; False if nothing is any more.

        Both change places at once, since whoever removes first what was damaged a moment ago may
        remove what another process has made of it since, and die before it puts its own there.
        """
        with suppress(FileNotFoundError):
            if self._system.exchange(workspace, self._at(path)):
                if self._is_damaged(f"{workspace}/{RECORD}", path):
                    self._move_aside(str(workspace), path)
                return True
            if self._read(f"{self._at(path)}/{RECORD}") is None:  # an interrupted copy
                self.discard(path)
            else:
                self._move_aside(self._at(path), path)
        return False

    def local_copy(self, path: str, record: bytes) -> Path:
        folder = self.root / path
        if problem := damage(folder, recorded_files(parse_record(record, path))):
            raise damaged(self.uri, path, record, problem)
        return folder

    def file_in(self, path: str, record: bytes, name: str) -> str:
        return f"{path}/{name}"

    def set_aside(self, path: str, record: bytes) -> str:
        if self._read(f"{self._at(path)}/{RECORD}") != record:
            raise FileNotFoundError(f"{path} is gone, or another")
        target = self._move_aside(self._at(path), path)
        if self._read(f"{self._at(target)}/{RECORD}") == record:
            return target
        # This process was stopped for longer than its lease after it looked: it has moved what
        # another has made in place of the damaged one, and puts that back.
        self._put_back(target, path)
        raise FileNotFoundError(f"{path} was made again")

    def _put_back(self, target: str, path: str) -> None:
        try:
            self._system.rename(self._at(target), self._at(path))
        except OSError as error:
            if error.errno in OCCUPIED:  # it was made once more, and stays as it is
                return
            raise SystemFault(
                f"store {self.uri}: {path} is whole, but lies in {target}, and cannot be put back: "
                f"{error.strerror}"
            ) from error
        self._system.flush(os.path.dirname(self._at(path)))
        self._system.flush(os.path.dirname(self._at(target)))

    def _move_aside(self, folder: str, path: str) -> str:
        """Moves a folder that was ``path`` below ``names.DAMAGED``; returns its new path."""
        target = damaged_folder(path, self._system.unique())
        parent = os.path.dirname(self._at(target))
        self._system.make_folders(parent)
        self._system.rename(folder, self._at(target))
        self._system.flush(parent)
        self._system.flush(os.path.dirname(folder))
        return target

    def remove_abandoned(self) -> None:
        folders = [self._at(), *self._subfolders(self._at())]
        for parent in WITH_FOLDERS:
            folders += self._subfolders(self._at(parent))
        for folder in folders:
            with suppress(FileNotFoundError):
                remove_abandoned(folder, self._at(CLAIMS), self._system)

    def discard(self, folder: str) -> None:
        parent, name = os.path.split(self._at(folder))
        hidden = f"{parent}/{temporary_name(name, self._system)}"
        with suppress(FileNotFoundError):
            self._system.rename(f"{parent}/{name}", hidden)
            self._system.remove_tree(hidden)

    def listing(self, folder: str) -> list[str]:
        return sorted(self._names(self._at(folder)))

    def read(self, paths: Sequence[str]) -> list[bytes | None]:
        return [self._read(self._at(path)) for path in paths]

    def open_file(self, path: str) -> NativeFile:
        return self._system.open_file(self._at(path))

    def write(self, path: str, content: bytes) -> None:
        with self.writing(path) as target:
            self._system.write(target, content)

    @contextmanager
    def writing(self, path: str) -> Iterator[Path]:
        folder, _, name = path.rpartition("/")
        workspace = self.workspace(folder, name)
        try:
            yield workspace / name
            self._system.flush(f"{workspace}/{name}")
            self._system.rename(f"{workspace}/{name}", self._at(path))
            self._system.flush(self._at(folder))
        finally:
            self._system.remove_tree(workspace)

    def remove(self, path: str) -> None:
        with suppress(FileNotFoundError):
            self._system.remove(self._at(path))

    def claims(self, names: Iterable[str]) -> AbstractContextManager[set[str]]:
        return claims.local_claims(self._at(CLAIMS), names, self._system)

    def holder(self, name: str) -> Holder | None:
        return claims.local_holder(self._at(CLAIMS), name, self._system)

    def claimed(self) -> set[str]:
        return {name.partition(".")[0] for name in self._names(self._at(CLAIMS))}

    def held(self) -> set[str]:
        return {
            name
            for name in sorted(self.claimed())
            if claims.is_held(self._at(CLAIMS), name, self._system)
        }

    def _at(self, path: str = "") -> str:
        """The full path of a file or folder, or of the root."""
        return f"{self.root}/{path}" if path else str(self.root)

    def _is_committed(self, path: str) -> bool:
        content = self._read(f"{self._at(path)}/{RECORD}")
        return content is not None and is_record(content, path)

    def _is_damaged(self, record: str, path: str) -> bool:
        """Whether there is a file that should be the record of ``path``, but is not."""
        content = self._read(record)
        return content is not None and not is_record(content, path)

    def _names(self, folder: AnyPath) -> list[str]:
        """The visible names in a folder; none if it does not exist."""
        try:
            return [e.name for e in self._system.entries(folder) if e.name[0] != "."]
        except FileNotFoundError:
            return []

    def _subfolders(self, folder: AnyPath) -> list[str]:
        """The paths of the visible folders in a folder; none if it does not exist."""
        try:
            entries = self._system.entries(folder)
        except FileNotFoundError:
            return []
        return [entry.path for entry in entries if entry.name[0] != "." and entry.is_dir()]

    def _read(self, path: AnyPath) -> bytes | None:
        try:
            return self._system.read(path)
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
            return None

    def _has_record(self, folder: str, path: str) -> bool:
        """Whether ``path`` seems to be committed, for listings of thousands.

        Mostly reads the last two bytes only; other damage shows when the record is read.
        """
        record = f"{folder}/{RECORD}"
        try:
            if ends_like_a_record(self._system.read_end(record, 2)):
                return True
            return is_record(self._system.read(record), path)  # perhaps of another program
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
            return False

    def _flush_below(self, folder: AnyPath) -> None:
        """Flush all files and folders below ``folder``, but not the folder itself."""
        for entry in self._system.entries(folder):
            if entry.is_dir(follow_symlinks=False):
                self._flush_below(entry.path)
            if not entry.is_symlink():
                self._system.flush(entry.path)
