"""Export: one file with all that a study needs, which another store takes in (``intake``).

The members, in this order::

    archive.json                      schema, study, number of folders
    <kind>/<folder>/record.json       of each artifact or bundle, followed by the files it lists
    studies/<study>.json              the cells of the study
    plans/<study>.json                the keys of its steps
    results/<study>.parquet, …        its tables, for readers of the archive; stores make their own
"""

import os
from contextlib import suppress
from hashlib import sha256
from io import BytesIO
from pathlib import Path
from typing import NamedTuple

from pyarrow import NativeFile
from rich.console import Console

from w2s_ray.errors import InputError
from w2s_ray.store.addresses import shown
from w2s_ray.store.artifacts import Store
from w2s_ray.store.backend import damaged
from w2s_ray.store.names import RECORD, plan_file, study_file
from w2s_ray.store.records import RecordedFile, difference, json_bytes, recorded_files
from w2s_ray.store.tables import is_changed
from w2s_ray.store.upkeep.inventory import Folder, read_inventory, read_studies, with_inputs
from w2s_ray.store.upkeep.progress import ByteProgress
from w2s_ray.store.upkeep.tar import PLAIN, ZSTD, Writer, writing
from w2s_ray.store.upkeep.verify import TABLES

ARCHIVE = "archive.json"
ARCHIVE_SCHEMA = 1


class Exported(NamedTuple):
    """What an archive holds."""

    steps: int
    missing: int
    folders: int
    bytes: int


class _Hashed:
    """A file that is being read, with its digest and size so far."""

    def __init__(self, file: NativeFile, progress: ByteProgress) -> None:
        self._file, self._progress = file, progress
        self._digest, self._size = sha256(), 0

    def read(self, size: int, /) -> bytes:
        chunk: bytes = self._file.read(size)
        self._digest.update(chunk)
        self._size += len(chunk)
        self._progress.add(len(chunk))
        return chunk

    def read_so_far(self) -> RecordedFile:
        return RecordedFile(self._size, self._digest.hexdigest())


def export(store: Store, study: str, target: Path, console: Console) -> Exported:
    """Writes the archive; it appears when it is complete.

    Raises:
        InputError: No such study, a target that exists or has another suffix, damage.
        OSError: The archive cannot be written.
    """
    if not target.name.endswith((PLAIN, ZSTD)):
        raise InputError(
            f"FILE: given {target.name!r}, expected a name ending in {PLAIN} or {ZSTD}"
        )
    if target.exists():
        raise InputError(f"FILE: {target} exists, expected a new file")
    inventory, studies = read_inventory(store), read_studies(store)
    if study not in studies.named:
        known = ", ".join(studies.named) or "none"
        raise InputError(f"STUDY: given {study!r}, expected a study of this store ({known})")
    needed = with_inputs(store, studies.named[study].keys, inventory.keys)
    folders = [folder for folder in inventory.folders if not needed.isdisjoint(folder.keys)]
    total = sum(folder.bytes for folder in folders)
    partial = target.with_name(f".{target.name}.part")
    try:
        with (
            ByteProgress("export", total, console) as progress,
            writing(partial, target.name.endswith(ZSTD)) as writer,
        ):
            _write(store, study, folders, writer, progress)
        os.rename(partial, target)
    finally:
        partial.unlink(missing_ok=True)
    missing = len(needed - inventory.keys)
    return Exported(len(needed) - missing, missing, len(folders), target.stat().st_size)


def _write(
    store: Store, study: str, folders: list[Folder], writer: Writer, progress: ByteProgress
) -> None:
    head = {"schema": ARCHIVE_SCHEMA, "study": study, "folders": len(folders)}
    _add(writer, ARCHIVE, json_bytes(head))
    for folder in folders:
        _add(writer, f"{folder.path}/{RECORD}", folder.content)
        for name, expected in recorded_files(folder.record).items():
            problem = _add_file(store, folder, name, expected, writer, progress)
            if problem is not None:
                raise damaged(shown(store.uri), folder.path, folder.content, problem)
    for path in (study_file(study), plan_file(study)):
        (content,) = store.backend.read([path])
        if content is not None:
            _add(writer, path, content)
    _add_tables(store, study, writer)


def _add(writer: Writer, name: str, content: bytes) -> None:
    writer.add(name, len(content), BytesIO(content))


def _add_file(
    store: Store,
    folder: Folder,
    name: str,
    expected: RecordedFile,
    writer: Writer,
    progress: ByteProgress,
) -> str | None:
    """How the file differs from its record; None: it is in the archive."""
    path = store.backend.file_in(folder.path, folder.content, name)
    try:
        with store.open_file(path) as file:
            size = int(file.size())
            if size != expected.size:
                return difference(name, RecordedFile(size, None), expected)
            hashed = _Hashed(file, progress)
            writer.add(f"{folder.path}/{name}", size, hashed)
    except FileNotFoundError:
        return f"{name} is missing"
    return difference(name, hashed.read_so_far(), expected)


def _add_tables(store: Store, study: str, writer: Writer) -> None:
    """Adds the tables of a study that are as they were written."""
    for path in (file(study) for file in TABLES):
        with suppress(FileNotFoundError):
            if not is_changed(store, path):
                with store.open_file(path) as table:
                    writer.add(path, int(table.size()), table)
