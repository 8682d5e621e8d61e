"""Reads of an object store whose answer was an error that did not fit.

pyarrow hands S3's client a buffer of the size that is asked for, and the client writes whatever
comes into it: also the text of an error, of some 300 bytes. Where fewer are asked for, that
overflows. "Gone" (404) and "slow down" (503) then both arrive as an internal failure, which the
client does not try again. Such a read is repeated here, once it is known that the object is there.
"""

import io
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import TypeVar

from pyarrow import NativeFile, PythonFile, fs

from w2s_ray.store.system import System

T = TypeVar("T")

PAUSES = (0.1, 0.2, 0.4, 0.8, 1.6, 3.2)  # seconds
_DID_NOT_FIT = "Failed to flush response stream"


def asked_again(read: Callable[[], T], system: System) -> T:
    """What ``read`` gives, which may fail in this way a few times; it must see what is gone."""
    for pause in PAUSES:
        try:
            return read()
        except OSError as error:
            if not _did_not_fit(error):
                raise
        system.sleep(pause)
    return read()


def patient_file(filesystem: fs.FileSystem, path: str, system: System) -> NativeFile:
    """An object that is open for reading at any place.

    Raises:
        FileNotFoundError: it does not exist; reading raises it too, where it is gone since.
    """
    return PythonFile(_Patient(filesystem, path, system), mode="r")


class _Patient(io.RawIOBase):
    """What pyarrow asks of a file in Python, each read asked again."""

    def __init__(self, filesystem: fs.FileSystem, path: str, system: System) -> None:
        self._filesystem, self._path, self._system = filesystem, path, system
        self._file = filesystem.open_input_file(path)

    def read(self, size: int | None = -1) -> bytes:
        wanted = None if size is None or size < 0 else size
        return asked_again(partial(self._read, self._file.tell(), wanted), self._system)

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        return int(self._file.seek(offset, whence))

    def tell(self) -> int:
        return int(self._file.tell())

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def close(self) -> None:
        if not self.closed:
            self._file.close()
        super().close()

    def _read(self, place: int, size: int | None) -> bytes:
        self._file.seek(place)
        try:
            return bytes(self._file.read(size))
        except OSError as error:
            if _did_not_fit(error) and self._is_gone():
                raise FileNotFoundError(self._path) from None
            raise

    def _is_gone(self) -> bool:
        with suppress(OSError):  # the server is too busy for this question too
            return bool(self._filesystem.get_file_info(self._path).type == fs.FileType.NotFound)
        return False


def _did_not_fit(error: OSError) -> bool:
    return _DID_NOT_FIT in str(error)
