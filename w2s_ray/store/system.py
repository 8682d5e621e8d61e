"""The operating system as the store uses it: files, the clock, and which processes are alive.

A method is one primitive operation, or a few whose order does not matter. Between any two of them
the process may be killed, the power may fail and other processes may act; what ``local``,
``object_store`` and ``claims`` promise must hold in every order. ``tests/testing/simulation`` has
another ``System``, in memory and with a virtual clock, that tries such orders by the million.
"""

import ctypes
import errno
import os
import shutil
import socket
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO, TypeVar
from uuid import uuid4

from pyarrow import NativeFile, fs

from w2s_ray.store.heartbeat import HEARTBEAT
from w2s_ray.store.owners import Owner, this_process

T = TypeVar("T")
AnyPath = str | Path

# Linux' call to exchange two names, which Python does not have; other systems have none.
_RENAMEAT2 = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
_WORKING_FOLDER, _EXCHANGE = -100, 2


class System:
    """The real one. It has no state, and can be pickled with the backend that uses it."""

    # Files and folders; ``OSError`` where the system refuses.

    def entries(self, folder: AnyPath) -> list[os.DirEntry[str]]:
        """What is in a folder, hidden files included."""
        with os.scandir(folder) as entries:
            return list(entries)

    def exists(self, path: AnyPath) -> bool:
        """Whether there is a file, a folder or a link."""
        return os.path.lexists(path)

    def read(self, path: AnyPath) -> bytes:
        """The content of a file."""
        with open(path, "rb") as file:
            return file.read()

    def read_end(self, path: AnyPath, size: int) -> bytes:
        """The last bytes of a file."""
        descriptor = os.open(path, os.O_RDONLY)
        try:
            return os.pread(descriptor, size, max(0, os.fstat(descriptor).st_size - size))
        finally:
            os.close(descriptor)

    def open_stream(self, path: AnyPath) -> BinaryIO:
        """A file, to be read from its beginning."""
        return open(path, "rb")

    def open_file(self, path: AnyPath) -> NativeFile:
        """A file for random access."""
        return fs.LocalFileSystem().open_input_file(str(path))

    def create(self, path: AnyPath, content: bytes) -> None:
        """Make a file that must not exist yet; it is empty for a moment.

        Raises:
            FileExistsError: It exists.
        """
        with open(path, "xb") as file:
            file.write(content)

    def write(self, path: AnyPath, content: bytes) -> None:
        """Write a file that nobody else reads yet."""
        with open(path, "wb") as file:
            file.write(content)

    def touch(self, path: AnyPath) -> None:
        """Date an existing file to now, by the clock of its file system."""
        os.utime(path)

    def changed(self, path: AnyPath) -> float:
        """When a file was last changed (Unix seconds)."""
        return os.lstat(path).st_mtime

    def age(self, path: AnyPath) -> float:
        """Seconds since a file was last changed, by the clock of its file system."""
        with tempfile.TemporaryFile(dir=os.path.dirname(path)) as probe:
            return os.fstat(probe.fileno()).st_mtime - os.stat(path).st_mtime

    def make_folder(self, path: AnyPath) -> None:
        """Make a folder that must not exist yet, in one that does."""
        os.mkdir(path)

    def rename(self, source: AnyPath, target: AnyPath) -> None:
        """Move a file or folder; a file replaces another, a folder an empty one."""
        os.replace(source, target)

    def exchange(self, one: AnyPath, other: AnyPath) -> bool:
        """Give two folders each other's names, at once; False where system or disk cannot.

        Raises:
            FileNotFoundError: One of them does not exist.
        """
        if _RENAMEAT2 is None:
            return False
        names = (_WORKING_FOLDER, os.fsencode(one), _WORKING_FOLDER, os.fsencode(other))
        if _RENAMEAT2(*names, _EXCHANGE) == 0:
            return True
        if ctypes.get_errno() == errno.ENOENT:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(one))
        return False

    def remove(self, path: AnyPath) -> None:
        """Remove a file."""
        os.unlink(path)

    def remove_tree(self, path: AnyPath) -> None:
        """Remove a folder and what is in it, as far as that is possible."""
        shutil.rmtree(path, ignore_errors=True)

    def flush(self, path: AnyPath) -> None:
        """Flush a file, or the names in a folder, to disk (fsync)."""
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    # Of several primitives

    def make_folders(self, path: AnyPath) -> None:
        """Make a folder and those above it that are missing, and flush the names of new ones."""
        try:
            self.make_folder(path)
        except FileExistsError:
            return
        except FileNotFoundError:
            self.make_folders(os.path.dirname(path) or ".")
            with suppress(FileExistsError):  # made by another process a moment ago
                self.make_folder(path)
        self.flush(os.path.dirname(path) or ".")

    def files_below(self, folder: AnyPath) -> Iterator[str]:
        """Paths of all files below a folder, or of what links lead to."""
        for entry in self.entries(folder):
            if entry.is_dir(follow_symlinks=False):
                yield from self.files_below(entry.path)
            elif entry.is_file():
                yield entry.path

    # Time

    def time(self) -> float:
        """Unix seconds, by the clock of this machine."""
        return time.time()

    def monotonic(self) -> float:
        """Seconds of a clock that nobody sets."""
        return time.monotonic()

    def sleep(self, seconds: float) -> None:
        """Do nothing for a time."""
        time.sleep(seconds)

    # Processes

    @property
    def host(self) -> str:
        """The name of this machine."""
        return socket.gethostname()

    def this_process(self) -> Owner:
        """The owner that is the running process."""
        return this_process()

    def owner(self, token: str) -> Owner | None:
        """The owner with this token; None if the text is something else."""
        return Owner.parse(token)

    def unique(self) -> str:
        """32 hex digits that no process has been given before."""
        return uuid4().hex

    def start_beating(self, name: str, beat: Callable[[], object]) -> None:
        """Call ``beat`` every few seconds from now on (``heartbeat``)."""
        HEARTBEAT.start(name, beat)

    def stop_beating(self, name: str) -> None:
        """After this no beat of ``name`` runs or is running."""
        HEARTBEAT.stop(name)

    def at_once(self, calls: Sequence[Callable[[], T]], threads: int) -> list[T]:
        """The results of calls that mostly wait, several of them at the same time."""
        if len(calls) < 2:
            return [call() for call in calls]
        with ThreadPoolExecutor(threads) as pool:
            return list(pool.map(_call, calls))


def _call(function: Callable[[], T]) -> T:
    return function()


SYSTEM = System()
