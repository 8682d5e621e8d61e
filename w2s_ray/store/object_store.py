"""A store on an object store, or any other pyarrow file system: the record is the commit.

There is no rename. The files of a committed folder therefore go to a subfolder of their own, named
by the digest of the record, and the record is written last. Two processes that commit the same
folder never mix their files: whichever record is there points to the files that belong to it. What
an interrupted upload leaves behind is never read; a lifecycle rule of the bucket can remove it.

Tokenizers and weights are read from local files, so a committed folder is downloaded to a cache
when it is first needed, and used from there as long as its record has not changed.
"""

import os
import shutil
from collections.abc import Container, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from functools import partial
from hashlib import sha256
from pathlib import Path

from pyarrow import NativeFile, fs

from w2s_ray.store.addresses import shown
from w2s_ray.store.asking_again import asked_again, patient_file
from w2s_ray.store.backend import damaged
from w2s_ray.store.local import LocalBackend
from w2s_ray.store.names import RECORD, damaged_folder
from w2s_ray.store.object_claims import (
    object_claimed,
    object_claims,
    object_held,
    object_holder,
)
from w2s_ray.store.owners import Holder
from w2s_ray.store.records import damage, is_record, parse_record, recorded_files
from w2s_ray.store.system import SYSTEM, System

PARALLEL_REQUESTS = 16
COPY_BYTES = 1 << 22
_WITHOUT_FOLDERS = {"s3", "gcs", "abfs"}


class ObjectStoreBackend:
    """A ``Backend`` below ``root`` of a pyarrow file system."""

    def __init__(
        self,
        filesystem: fs.FileSystem,
        root: str,
        *,
        cache: Path,
        uri: str = "",
        system: System = SYSTEM,
    ) -> None:
        """Connect to nothing yet; the first read or write does.

        Args:
            filesystem: Where the objects are.
            root: Path below which they lie.
            cache: Local folder for copies of committed folders; processes may share it.
            uri: Address of the root, for ``Backend.uri``; the default names type and root.
            system: This machine: the cache, the clock, and its processes.
        """
        self.filesystem = filesystem
        self.root = root.rstrip("/")
        self._uri = (uri or f"{filesystem.type_name}://{root}").rstrip("/")
        self._system = system
        self._cache = LocalBackend(cache, system)

    @property
    def uri(self) -> str:
        return self._uri

    def folders(self, without: Container[str] = ()) -> Iterator[str]:
        for parent in self._subfolders(""):
            if parent not in without:
                yield from self._subfolders(parent)

    def committed(self) -> Iterator[str]:
        for info in self._entries("", recursive=True):
            parts = self._path(info).split("/")
            if len(parts) == 3 and parts[2] == RECORD and info.size and parts[0][0] != ".":
                yield f"{parts[0]}/{parts[1]}"

    def workspace(self, folder: str, name: str) -> Path:
        return self._cache.workspace(folder, name)

    def commit(self, workspace: Path, path: str, record: bytes) -> None:
        (existing,) = self.read([f"{path}/{RECORD}"])
        if existing is not None and is_record(existing, path):
            return
        if existing is not None:  # damaged; overwritten below, as a deletion might arrive late
            self._copy_aside(path, existing)
        skip = len(str(workspace)) + 1
        uploads = [
            partial(self._upload, source, self.file_in(path, record, source[skip:]))
            for source in self._system.files_below(workspace)
        ]
        self._system.at_once(uploads, PARALLEL_REQUESTS)
        self.write(f"{path}/{RECORD}", record)
        self._cache.discard(path)
        self._cache.commit(workspace, path, record)

    def local_copy(self, path: str, record: bytes) -> Path:
        files = recorded_files(parse_record(record, path))
        copy = self._cache.root / path
        with suppress(FileNotFoundError):
            is_same = (copy / RECORD).read_bytes() == record
            if is_same and damage(copy, files, with_digests=True) is None:
                return copy
            self._cache.discard(path)
        parent, _, name = path.partition("/")
        workspace = self._cache.workspace(parent, name)
        try:
            downloads = [
                partial(self._download, self.file_in(path, record, file), workspace / file)
                for file in files
            ]
            self._system.at_once(downloads, PARALLEL_REQUESTS)
            if problem := damage(workspace, files, with_digests=True):
                raise damaged(shown(self.uri), path, record, problem)
            self._cache.commit(workspace, path, record)
        finally:
            self._system.remove_tree(workspace)
        return copy

    def file_in(self, path: str, record: bytes, name: str) -> str:
        return f"{path}/files-{sha256(record).hexdigest()[:16]}/{name}"

    def set_aside(self, path: str, record: bytes) -> str:
        target = self._copy_aside(path, record)
        if self.read([f"{path}/{RECORD}"]) != [record]:  # just before it is removed
            self.remove(f"{target}/{RECORD}")
            raise FileNotFoundError(f"{path} is gone, or another")
        self.remove(f"{path}/{RECORD}")
        return target

    def remove_abandoned(self) -> None:
        self._cache.remove_abandoned()

    def discard(self, folder: str) -> None:
        self._cache.discard(folder)
        with suppress(FileNotFoundError):
            self.filesystem.delete_dir(self._absolute(folder))

    def listing(self, folder: str) -> list[str]:
        names = (info.base_name for info in self._entries(folder, recursive=False))
        return sorted(name for name in names if name[0] != ".")

    def read(self, paths: Sequence[str]) -> list[bytes | None]:
        return self._system.at_once([partial(self._read, p) for p in paths], PARALLEL_REQUESTS)

    def open_file(self, path: str) -> NativeFile:
        return patient_file(self.filesystem, self._absolute(path), self._system)

    def write(self, path: str, content: bytes) -> None:
        self._make_parent(path)
        with self.filesystem.open_output_stream(self._absolute(path)) as target:
            target.write(content)

    @contextmanager
    def writing(self, path: str) -> Iterator[Path]:
        folder, _, name = path.rpartition("/")
        workspace = self._cache.workspace(folder, name)
        try:
            yield workspace / name
            self._upload(f"{workspace}/{name}", path)
        finally:
            self._system.remove_tree(workspace)

    def remove(self, path: str) -> None:
        with suppress(FileNotFoundError):
            self.filesystem.delete_file(self._absolute(path))

    def claims(self, names: Iterable[str]) -> AbstractContextManager[set[str]]:
        return object_claims(self, names, self._system)

    def holder(self, name: str) -> Holder | None:
        return object_holder(self, name, self._system)

    def claimed(self) -> set[str]:
        return object_claimed(self)

    def held(self) -> set[str]:
        return object_held(self, self._system)

    def _copy_aside(self, path: str, record: bytes) -> str:
        target = damaged_folder(path, self._system.unique())
        self.write(f"{target}/{RECORD}", record)
        return target

    def _read(self, path: str) -> bytes | None:
        def once() -> bytes | None:
            try:
                with self.filesystem.open_input_stream(self._absolute(path)) as content:
                    return bytes(content.read())
            except FileNotFoundError:
                return None

        return asked_again(once, self._system)

    def _upload(self, source: str, path: str) -> None:
        self._make_parent(path)
        with (
            self._system.open_stream(source) as content,
            self.filesystem.open_output_stream(self._absolute(path)) as target,
        ):
            shutil.copyfileobj(content, target, COPY_BYTES)

    def _download(self, path: str, target: Path) -> None:
        """Copy an object to a local file, if it exists."""
        target.parent.mkdir(parents=True, exist_ok=True)

        def once() -> None:
            with (
                suppress(FileNotFoundError),
                self.filesystem.open_input_stream(self._absolute(path)) as content,
                open(target, "wb") as copy,
            ):
                shutil.copyfileobj(content, copy, COPY_BYTES)

        asked_again(once, self._system)

    def _make_parent(self, path: str) -> None:
        if self.filesystem.type_name not in _WITHOUT_FOLDERS:
            self.filesystem.create_dir(os.path.dirname(self._absolute(path)), recursive=True)

    def _subfolders(self, folder: str) -> list[str]:
        return [
            self._path(info)
            for info in self._entries(folder, recursive=False)
            if info.type == fs.FileType.Directory and info.base_name[0] != "."
        ]

    def _entries(self, folder: str, *, recursive: bool) -> list[fs.FileInfo]:
        selector = fs.FileSelector(
            self._absolute(folder), recursive=recursive, allow_not_found=True
        )
        try:
            entries: list[fs.FileInfo] = self.filesystem.get_file_info(selector)
        except NotADirectoryError:  # an fsspec folder that was created during the listing
            entries = self.filesystem.get_file_info(selector)
        return entries

    def _absolute(self, path: str) -> str:
        return f"{self.root}/{path}" if path else self.root

    def _path(self, info: fs.FileInfo) -> str:
        """Path below the root."""
        # Some file systems return paths with a leading slash that the root does not have.
        path: str = info.path.strip("/")
        return path[len(self.root.strip("/")) + 1 :]
