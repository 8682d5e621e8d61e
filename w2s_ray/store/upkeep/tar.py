"""Tar archives as streams of plain files: written from readers, read member by member.

Nothing is ever extracted by name. What is read may come from anybody: only plain files and the long
names of GNU tar are accepted, a name is a relative path of bounded length, and no more is in memory
than a block. Links, devices, folders and extended headers are refused.
"""

import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, NamedTuple, Protocol, cast

import pyarrow as pa

from w2s_ray.errors import InputError

PLAIN, ZSTD = ".tar", ".tar.zst"
BLOCK = tarfile.BLOCKSIZE
LONGEST_NAME = 4096  # bytes
_ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
_TYPES = {
    tarfile.LNKTYPE: "a hard link",
    tarfile.SYMTYPE: "a symbolic link",
    tarfile.CHRTYPE: "a device",
    tarfile.BLKTYPE: "a device",
    tarfile.DIRTYPE: "a folder",
    tarfile.FIFOTYPE: "a FIFO",
}


class Reader(Protocol):
    """What gives bytes; b"" at the end."""

    def read(self, size: int, /) -> bytes: ...


class ArchiveError(InputError):
    """An archive is not one that ``export`` writes."""


class Member(NamedTuple):
    """A file of an archive.

    Attributes:
        content: gives exactly ``size`` bytes; read it before the next member.
    """

    name: str
    size: int
    content: Reader


class Writer:
    """Writes members one after the other, the same bytes for the same members."""

    def __init__(self, tar: tarfile.TarFile) -> None:
        self._tar = tar

    def add(self, name: str, size: int, content: Reader) -> None:
        """Adds a file.

        Raises:
            OSError: There are fewer bytes than ``size``.
        """
        info = tarfile.TarInfo(name)
        info.size = size
        self._tar.addfile(info, cast(BinaryIO, content))


@contextmanager
def writing(path: Path, compressed: bool) -> Iterator[Writer]:
    """A new archive at ``path``."""
    with pa.OSFile(str(path), "wb") as file:
        target = pa.CompressedOutputStream(file, "zstd") if compressed else file
        # GNU's format has names and sizes of any length without extended headers.
        with (
            target,
            tarfile.open(fileobj=target, mode="w|", format=tarfile.GNU_FORMAT) as archive,
        ):
            yield Writer(archive)


@contextmanager
def reading(path: Path) -> Iterator[Iterator[Member]]:
    """The members of an archive, plain or compressed by zstd, whatever its name is.

    Raises:
        ArchiveError: It is no archive, or has other members than files.
        OSError: It cannot be read.
    """
    if not path.is_file():
        raise ArchiveError(f"{path}: there is no such file, expected an archive of export")
    with open(path, "rb") as start:
        is_zstd = start.read(len(_ZSTD_MAGIC)) == _ZSTD_MAGIC
    with pa.OSFile(str(path), "rb") as file:
        stream = pa.CompressedInputStream(file, "zstd") if is_zstd else file
        yield _members(_Source(path, cast(Reader, stream)))


class _Source:
    """The bytes of an archive; an end before its time is an ``ArchiveError``."""

    def __init__(self, path: Path, stream: Reader) -> None:
        self.path, self._stream = path, stream
        self.left = 0  # bytes of the present member that were not read

    def read(self, size: int, /) -> bytes:
        """At most ``size`` bytes of the present member."""
        chunk = self._some(min(size, self.left)) if self.left else b""
        self.left -= len(chunk)
        return chunk

    def exactly(self, size: int) -> bytes:
        """``size`` bytes, of whatever."""
        content = b""
        while len(content) < size:
            content += self._some(size - len(content))
        return content

    def skip(self, size: int) -> None:
        while size > 0:
            size -= len(self._some(min(size, 1 << 20)))

    def refused(self, reason: str) -> ArchiveError:
        return ArchiveError(f"{self.path}: {reason}, expected an archive of export")

    def _some(self, size: int) -> bytes:
        try:
            chunk = self._stream.read(size)
        except (OSError, pa.ArrowException) as error:
            raise self.refused(f"it cannot be read: {error}") from None
        if not chunk:
            raise self.refused("it ends too early")
        return chunk


def _members(source: _Source) -> Iterator[Member]:
    long_name: str | None = None
    while any(block := source.exactly(BLOCK)):
        try:
            info = tarfile.TarInfo.frombuf(block, "utf-8", "strict")
        except (tarfile.HeaderError, ValueError):
            raise source.refused("it is no tar archive, or damaged") from None
        padding = -info.size % BLOCK
        if info.type == tarfile.GNUTYPE_LONGNAME:
            if long_name is not None or not 0 < info.size <= LONGEST_NAME:
                raise source.refused(f"a name of {info.size} bytes")
            long_name = _text(source, source.exactly(info.size + padding)[: info.size])
            continue
        name, long_name = long_name or info.name, None
        if info.type not in (tarfile.REGTYPE, tarfile.AREGTYPE) or info.size < 0:
            what = _TYPES.get(info.type, f"of type {info.type!r}")
            raise source.refused(f"{name!r} is {what}")
        check_name(name, source)
        source.left = info.size
        yield Member(name, info.size, source)
        source.skip(source.left + padding)


def _text(source: _Source, content: bytes) -> str:
    try:
        return content.rstrip(b"\0").decode()
    except UnicodeDecodeError:
        raise source.refused("a name that is not UTF-8") from None


def check_name(name: str, source: "_Source") -> None:
    """Refuses a name that is no plain relative path.

    Raises:
        ArchiveError: It is absolute, leads upwards, or has characters that no file of a store has.
    """
    parts = name.split("/")
    if "\\" in name or not name.isprintable() or any(part in ("", ".", "..") for part in parts):
        raise source.refused(f"{name!r} is no path below a store")
