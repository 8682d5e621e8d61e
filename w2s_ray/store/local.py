"""A store on a local or mounted file system, where a rename is the commit.

Everything is written to a temporary sibling, flushed to disk, and renamed. Whichever process is
killed at whatever moment, a reader sees all of it or nothing. The name of a temporary folder
contains its owner (``.tmp-<name>-<owner>-<random>``), so that folders of dead processes can be
removed.
"""

import errno
import os
import shutil
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path

from pyarrow import NativeFile, fs

from w2s_ray.store import claims
from w2s_ray.store.backend import damaged
from w2s_ray.store.names import CLAIMS, RECORD, damaged_folder
from w2s_ray.store.records import (
    damage,
    ends_like_a_record,
    is_record,
    parse_record,
    recorded_files,
)
from w2s_ray.store.temporary import remove_abandoned, temporary_name


class LocalBackend:
    """A ``Backend`` whose root is a folder of this machine."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._cleaned: set[str] = set()  # folders that this process has rid of leftovers

    @property
    def uri(self) -> str:
        return str(self.root)

    def folders(self) -> Iterator[str]:
        for path in _subfolders(self.root):
            parent = os.path.basename(path)
            for name in _names(path):
                yield f"{parent}/{name}"

    def committed(self) -> Iterator[str]:
        skip = len(str(self.root)) + 1
        for parent in _subfolders(self.root):
            for folder in _subfolders(parent):
                if _has_record(folder, folder[skip:]):
                    yield folder[skip:]

    def workspace(self, folder: str, name: str) -> Path:
        parent = self.root / folder
        parent.mkdir(parents=True, exist_ok=True)
        if folder not in self._cleaned:
            self._cleaned.add(folder)
            remove_abandoned(parent, self.root / CLAIMS)
        path = parent / temporary_name(name)
        path.mkdir()
        return path

    def commit(self, workspace: Path, path: str, record: bytes) -> None:
        final = self.root / path
        if self._is_committed(path):
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
            if self._is_committed(path):
                return
            if (final / RECORD).is_file():
                with suppress(FileNotFoundError):
                    self.set_aside(path)
            else:  # an interrupted copy
                self.discard(path)
        _flush(final.parent)

    def local_copy(self, path: str, record: bytes) -> Path:
        folder = self.root / path
        if problem := damage(folder, recorded_files(parse_record(record, path))):
            raise damaged(self.uri, path, record, problem)
        return folder

    def file_in(self, path: str, record: bytes, name: str) -> str:
        return f"{path}/{name}"

    def set_aside(self, path: str) -> str:
        target = damaged_folder(path)
        (self.root / target).parent.mkdir(parents=True, exist_ok=True)
        os.rename(self.root / path, self.root / target)
        _flush((self.root / target).parent)
        _flush((self.root / path).parent)
        return target

    def discard(self, folder: str) -> None:
        final = self.root / folder
        hidden = final.with_name(temporary_name(final.name))
        with suppress(FileNotFoundError):
            os.rename(final, hidden)
            shutil.rmtree(hidden, ignore_errors=True)

    def listing(self, folder: str) -> list[str]:
        return sorted(_names(self.root / folder))

    def read(self, paths: Sequence[str]) -> list[bytes | None]:
        return [_read(self.root / path) for path in paths]

    def open_file(self, path: str) -> NativeFile:
        return fs.LocalFileSystem().open_input_file(str(self.root / path))

    def write(self, path: str, content: bytes) -> None:
        with self.writing(path) as target:
            target.write_bytes(content)

    @contextmanager
    def writing(self, path: str) -> Iterator[Path]:
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
        (self.root / path).unlink(missing_ok=True)

    def claims(self, names: Iterable[str]) -> AbstractContextManager[set[str]]:
        return claims.local_claims(self.root / CLAIMS, names)

    def claimed(self) -> set[str]:
        return {name.partition(".")[0] for name in _names(self.root / CLAIMS)}

    def _is_committed(self, path: str) -> bool:
        content = _read(self.root / path / RECORD)
        return content is not None and is_record(content, path)


def _names(folder: str | Path) -> list[str]:
    """The visible names in a folder; none if it does not exist."""
    try:
        return [name for name in os.listdir(folder) if name[0] != "."]
    except FileNotFoundError:
        return []


def _subfolders(folder: str | Path) -> list[str]:
    """The paths of the visible folders in a folder; none if it does not exist."""
    try:
        with os.scandir(folder) as entries:
            return [entry.path for entry in entries if entry.name[0] != "." and entry.is_dir()]
    except FileNotFoundError:
        return []


def _read(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        return None


def _has_record(folder: str, path: str) -> bool:
    """Whether ``path`` seems to be committed, for listings of thousands.

    Mostly reads the last two bytes only; other damage shows when the record is read.
    """
    try:
        descriptor = os.open(f"{folder}/{RECORD}", os.O_RDONLY)
    except (FileNotFoundError, NotADirectoryError):
        return False
    try:
        size = os.fstat(descriptor).st_size
        if ends_like_a_record(os.pread(descriptor, 2, max(0, size - 2))):
            return True
        return is_record(os.pread(descriptor, size, 0), path)  # perhaps of another program
    except IsADirectoryError:
        return False
    finally:
        os.close(descriptor)


def _flush_below(folder: Path) -> None:
    """Flush all files and folders below ``folder``, but not the folder itself."""
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                _flush_below(Path(entry.path))
            if not entry.is_symlink():
                _flush(entry.path)


def _flush(path: str | Path) -> None:
    """Flush a file or a folder to disk (fsync)."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
