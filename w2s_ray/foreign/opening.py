"""Opening foreign files: regular files alone, and of bounded size where they are read whole.

Opening a FIFO waits for a writer, a device may be endless, and a socket or folder gives an error
that names none of this. Each is refused in one line before anything is opened. A missing or
unreadable file is an ``OSError`` as ever, which the caller words.
"""

import os
import stat
from pathlib import Path
from typing import BinaryIO

from w2s_ray.errors import InputError
from w2s_ray.foreign.limits import exceeded, limit

_KINDS = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a FIFO (named pipe)"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)


def check_regular(path: Path | str) -> int:
    """The size of a regular file in bytes, for libraries that open files by path.

    Symbolic links are followed.

    Raises:
        InputError: the path is a folder, FIFO, socket or device.
        OSError: there is no such file, or its folder cannot be read.
    """
    return _checked(path, os.stat(path))


def open_regular(path: Path | str) -> BinaryIO:
    """A regular file, open for reading; never waits for a writer.

    Raises:
        InputError: the path is a folder, FIFO, socket or device.
        OSError: it cannot be opened.
    """
    check_regular(path)
    # What is opened may have been put there since: it is checked again, and does not block.
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    try:
        _checked(path, os.fstat(descriptor))
        return os.fdopen(descriptor, "rb")
    except BaseException:
        os.close(descriptor)
        raise


def read_bounded(path: Path | str, name: str) -> bytes:
    """The content of a regular file that is no longer than a limit.

    Args:
        path: of the file.
        name: of the limit, in bytes (``limits``).

    Raises:
        InputError: the file is not a regular one, or longer.
        OSError: it cannot be opened or read.
    """
    most = limit(name)
    with open_regular(path) as file:
        size = os.fstat(file.fileno()).st_size
        # The size may be wrong (files of the kernel say 0, others grow), so reading is bounded too.
        content = file.read(most + 1) if size <= most else b""
    if max(size, len(content)) > most:
        raise InputError(f"{path}: {exceeded(name, size if size > most else '')}")
    return content


def _checked(path: Path | str, status: os.stat_result) -> int:
    for is_kind, kind in _KINDS:
        if is_kind(status.st_mode):
            raise InputError(f"{path}: given {kind}, expected a regular file")
    return status.st_size
