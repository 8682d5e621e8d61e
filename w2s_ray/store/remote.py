"""The store on an object store (any pyarrow file system): the record is the commit.

There is no rename, so an artifact's files go to a folder of their own, named by the digest of the
record to come, and the record is written last. Two drivers that race therefore never mix their
files: whichever record stands points to the files that belong to it. What an interrupted upload
leaves behind is never read; a lifecycle rule of the bucket can remove it.

Reading needs local files (tokenizers, safetensors), so an artifact is copied to a cache folder
when it is first asked for, and used from there as long as its record has not changed.
"""

import json
import os
import shutil
from collections.abc import Collection, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, suppress
from hashlib import sha256
from pathlib import Path

from pyarrow import fs

from w2s_ray.store import claims
from w2s_ray.store.local import RECORD, LocalPlace, damage, is_record

PARALLEL_REQUESTS = 16
_WITHOUT_FOLDERS = {"s3", "gcs", "abfs"}


class RemotePlace:
    """Objects below ``root`` of a file system; ``cache`` is a local folder, shared by processes."""

    def __init__(self, filesystem: fs.FileSystem, root: str, cache: Path) -> None:
        self.filesystem = filesystem
        self.root = root.rstrip("/")
        self._cache = LocalPlace(cache)

    def artifacts(self) -> Iterator[str]:
        """``<kind>/<folder>`` of each complete artifact, by one listing."""
        for path, size in self._files("", recursive=True):
            parts = path.split("/")
            if len(parts) == 3 and parts[2] == RECORD and size:
                yield f"{parts[0]}/{parts[1]}"

    def find(self, keys: Collection[str]) -> dict[str, str]:
        """key -> ``<kind>/<folder>`` of the complete artifacts among ``keys``."""
        names = (name for kind in self._subfolders("") for name in self._subfolders(kind))
        likely = [name for name in names if name.rpartition("-")[2] in keys]
        with ThreadPoolExecutor(PARALLEL_REQUESTS) as pool:
            complete = pool.map(self._complete, likely)
            found = sorted(name for name, whole in zip(likely, complete, strict=True) if whole)
        return {name.rpartition("-")[2]: name for name in reversed(found)}

    def workspace(self, folder: str, name: str) -> Path:
        """A new local folder to write in."""
        return self._cache.workspace(folder, name)

    def publish(self, workspace: Path, location: str, record: bytes) -> None:
        """Upload the workspace as the artifact at ``location``, unless one is there already."""
        if self._complete(location):
            return
        sources = [path for path in workspace.rglob("*") if path.is_file()]
        target = f"{location}/{_files_folder(record)}"
        with ThreadPoolExecutor(PARALLEL_REQUESTS) as pool:
            names = [f"{target}/{path.relative_to(workspace).as_posix()}" for path in sources]
            list(pool.map(self._upload, sources, names))
        self.write(f"{location}/{RECORD}", record)
        self._cache.discard(location)
        self._cache.publish(workspace, location, record)

    def folder(self, location: str) -> Path:
        """A local copy of the artifact's files; downloaded unless it is here already.

        Raises:
            FileNotFoundError: no such artifact.
            OSError: a file of it is missing or has not the size that the record says.
        """
        record = self.read_all([f"{location}/{RECORD}"])[0]
        sizes: dict[str, int] = json.loads(record)["files"]
        copy = self._cache.root / location
        with suppress(FileNotFoundError):
            if (copy / RECORD).read_bytes() == record and damage(copy, sizes) is None:
                return copy
            self._cache.discard(location)
        kind, _, name = location.partition("/")
        workspace = self._cache.workspace(kind, name)
        try:
            sources = [self.member(location, record, file) for file in sizes]
            with ThreadPoolExecutor(PARALLEL_REQUESTS) as pool:
                list(pool.map(self._download, sources, [workspace / file for file in sizes]))
            for file, size in sizes.items():
                if (workspace / file).stat().st_size != size:
                    raise OSError(f"{location}/{file}: not the {size} bytes that were stored")
            self._cache.publish(workspace, location, record)
        finally:
            shutil.rmtree(workspace, ignore_errors=True)
        return copy

    def member(self, location: str, record: bytes, name: str) -> str:
        """Path of one of an artifact's files."""
        return f"{location}/{_files_folder(record)}/{name}"

    def listing(self, folder: str) -> list[str]:
        """Names of the files in a folder, sorted; none if there is no such folder."""
        skip = len(folder) + 1
        return sorted(path[skip:] for path, _ in self._files(folder, recursive=False))

    def read_all(self, paths: Sequence[str]) -> list[bytes]:
        """Contents of files.

        Raises:
            FileNotFoundError: one of them is not there.
        """
        if len(paths) == 1:
            return [self._read(paths[0])]
        with ThreadPoolExecutor(PARALLEL_REQUESTS) as pool:
            return list(pool.map(self._read, paths))

    def write(self, path: str, content: bytes) -> None:
        """Replace a file by ``content``."""
        self._make_folder(path)
        with self.filesystem.open_output_stream(f"{self.root}/{path}") as target:
            target.write(content)

    @contextmanager
    def writing(self, path: str) -> Iterator[Path]:
        """A local path to write to; it is uploaded as ``path`` at the end."""
        folder, _, name = path.rpartition("/")
        workspace = self._cache.workspace(folder, name)
        try:
            yield workspace / name
            self._upload(workspace / name, path)
        finally:
            shutil.rmtree(workspace, ignore_errors=True)

    def remove(self, path: str) -> None:
        """Remove a file if it is there."""
        with suppress(FileNotFoundError):
            self.filesystem.delete_file(f"{self.root}/{path}")

    def discard(self, folder: str) -> None:
        """Remove a folder if it is there."""
        with suppress(FileNotFoundError):
            self.filesystem.delete_dir(f"{self.root}/{folder}")

    def claims(self, keys: Iterable[str]) -> AbstractContextManager[set[str]]:
        return claims.remote_claims(self, keys)

    def _upload(self, source: Path, path: str) -> None:
        self._make_folder(path)
        with (
            open(source, "rb") as content,
            self.filesystem.open_output_stream(f"{self.root}/{path}") as target,
        ):
            shutil.copyfileobj(content, target, 1 << 22)

    def _download(self, path: str, target: Path) -> None:
        target.parent.mkdir(parents=True, exist_ok=True)
        with (
            self.filesystem.open_input_stream(f"{self.root}/{path}") as content,
            open(target, "wb") as copy,
        ):
            shutil.copyfileobj(content, copy, 1 << 22)

    def _read(self, path: str) -> bytes:
        with self.filesystem.open_input_stream(f"{self.root}/{path}") as content:
            return bytes(content.read())

    def _make_folder(self, path: str) -> None:
        if self.filesystem.type_name not in _WITHOUT_FOLDERS:
            self.filesystem.create_dir(os.path.dirname(f"{self.root}/{path}"), recursive=True)

    def _complete(self, location: str) -> bool:
        try:
            return is_record(self._read(f"{location}/{RECORD}"))
        except FileNotFoundError:
            return False

    def _files(self, folder: str, *, recursive: bool) -> Iterator[tuple[str, int]]:
        """Path below the root, and size, of the files in a folder."""
        for info in self._entries(folder, recursive):
            if info.type == fs.FileType.File:
                yield self._below(info), info.size

    def _subfolders(self, folder: str) -> list[str]:
        entries = self._entries(folder, recursive=False)
        return [self._below(info) for info in entries if info.type == fs.FileType.Directory]

    def _entries(self, folder: str, recursive: bool) -> list[fs.FileInfo]:
        base = f"{self.root}/{folder}" if folder else self.root
        selector = fs.FileSelector(base, recursive=recursive, allow_not_found=True)
        try:
            entries: list[fs.FileInfo] = self.filesystem.get_file_info(selector)
        except NotADirectoryError:  # made between two looks of an fsspec file system
            entries = self.filesystem.get_file_info(selector)
        return entries

    def _below(self, info: fs.FileInfo) -> str:
        # Some file systems answer with a leading slash that the root was given without.
        path: str = info.path.strip("/")
        return path[len(self.root.strip("/")) + 1 :]


def _files_folder(record: bytes) -> str:
    return f"files-{sha256(record).hexdigest()[:16]}"
