"""Kill points: a driver that ends itself, by SIGKILL, just before it changes the disk.

Python reports each change of a file or folder to audit hooks before it is made; ``fsync`` alone is
not among them. A *point* is named by the operation and by what it is done to, without keys and
random parts, so that one run gives the same names as another.
"""

import os
import re
import signal
import sys
from collections import Counter
from collections.abc import Callable
from typing import Any

CHANGES = {
    "os.link",
    "os.mkdir",
    "os.remove",
    "os.rename",
    "os.rmdir",
    "os.symlink",
    "os.truncate",
    "os.utime",
}
_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT
_NAMES = (
    (re.compile(r"\.tmp-[^/]+"), ".tmp"),
    (re.compile(r"\.probe-[^/]+"), ".probe"),
    (re.compile(r"@\d+-[0-9a-f]+"), "@"),
    (re.compile(r"[^/]*-?[0-9a-f]{16,}"), "KEY"),
    (re.compile(r"\d{9}"), "UPDATE"),
)


class Watch:
    """Counts the changes below a folder from now on.

    Args:
        root: the folder.
        then: takes the name of a point and how often it has been reached, before the change.
    """

    def __init__(self, root: str, then: Callable[[str, int], None]) -> None:
        self._root, self._then = root, then
        self._counts: Counter[str] = Counter()
        fsync = os.fsync

        def counted(descriptor: int) -> None:
            self._reach("fsync", os.readlink(f"/proc/self/fd/{descriptor}"))
            fsync(descriptor)

        os.fsync = counted  # type: ignore[assignment]
        sys.addaudithook(self._hear)

    def _hear(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open":
            path, _, flags = arguments
            if flags & _WRITES and not isinstance(path, int):
                self._reach("open", os.fsdecode(path))
        elif event in CHANGES:
            of_folder = arguments[-1] if isinstance(arguments[-1], int) else -1
            folder = os.readlink(f"/proc/self/fd/{of_folder}") + "/" if of_folder >= 0 else ""
            self._reach(event.partition(".")[2], folder + os.fsdecode(arguments[0]))

    def _reach(self, operation: str, path: str) -> None:
        if not path.startswith(self._root + "/"):
            return
        name = path[len(self._root) + 1 :]
        for pattern, short in _NAMES:
            name = pattern.sub(short, name)
        name = f"{operation} {name}"
        self._counts[name] += 1
        self._then(name, self._counts[name])


def kill_at(root: str, point: str, occurrence: int) -> None:
    """This process kills itself when it reaches the point for the n-th time (from 1)."""

    def then(name: str, count: int) -> None:
        if name == point and count == occurrence:
            os.kill(os.getpid(), signal.SIGKILL)

    Watch(root, then)


def write_points(root: str, path: str) -> None:
    """This process appends the name of each point that it reaches to a file."""
    log = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def then(name: str, count: int) -> None:
        os.write(log, f"{name}\n".encode())

    Watch(root, then)
