"""Verification: every file of every artifact against the digest in its record; reads only.

On an object store objects are read as streams, and no copy is kept. Files are hashed by several
threads, since hashing and reading let other threads run.
"""

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from hashlib import sha256
from typing import NamedTuple

from rich.console import Console

from w2s_ray.store.addresses import shown
from w2s_ray.store.artifacts import Store
from w2s_ray.store.backend import DAMAGED, StoreError, damaged
from w2s_ray.store.names import (
    predictions_file,
    results_file,
    train_predictions_file,
    transfer_file,
)
from w2s_ray.store.object_store import PARALLEL_REQUESTS
from w2s_ray.store.records import RecordedFile, difference, recorded_files
from w2s_ray.store.tables import is_changed
from w2s_ray.store.upkeep.inventory import Folder, Inventory, read_inventory, read_studies
from w2s_ray.store.upkeep.progress import ByteProgress

CHUNK_BYTES = 1 << 22
TABLES = (results_file, transfer_file, predictions_file, train_predictions_file)


class Damage(NamedTuple):
    """Something that is not what it was when it was written.

    Attributes:
        line: for people: where, and how it differs.
        error: by which the artifact can be set aside; None: it is no artifact, or its files could
            not be read, which may be the fault of the system.
        keys: of the steps that were there, as far as the record can be read.
    """

    line: str
    error: StoreError | None = None
    keys: tuple[str, ...] = ()


class Verified(NamedTuple):
    """What was read: numbers of steps, files and bytes, and what is damaged."""

    steps: int
    files: int
    bytes: int
    damaged: list[Damage]


class _File(NamedTuple):
    folder: Folder
    name: str
    expected: RecordedFile


class _Problem(NamedTuple):
    """How a file differs; ``is_certain``: it was read."""

    text: str
    is_certain: bool = True


def verify(store: Store, console: Console) -> Verified:
    """Reads the whole store.

    Raises:
        InputError: The store cannot be read.
    """
    inventory = read_inventory(store)
    files = [
        _File(folder, name, expected)
        for folder in inventory.folders
        for name, expected in recorded_files(folder.record).items()
    ]
    total = sum(file.expected.size for file in files)
    found = [*_damaged_records(inventory)]
    with ByteProgress("verify", total, console) as progress:
        found += _damaged_artifacts(store, files, progress)
    found += _damaged_tables(store)
    return Verified(len(inventory.keys), len(files), total, found)


def _damaged_records(inventory: Inventory) -> Iterator[Damage]:
    for error in inventory.damaged:
        yield Damage(_line(error), error)


def _damaged_artifacts(
    store: Store, files: list[_File], progress: ByteProgress
) -> Iterator[Damage]:
    """One for each folder that has damaged files, which names the first of them."""
    seen: set[str] = set()
    with ThreadPoolExecutor(max(PARALLEL_REQUESTS, os.cpu_count() or 1)) as pool:
        problems = pool.map(partial(_problem, store, progress), files)
        for file, problem in zip(files, problems, strict=True):
            folder = file.folder
            if problem is None or folder.path in seen:
                continue
            seen.add(folder.path)
            error = damaged(shown(store.uri), folder.path, folder.content, problem.text)
            yield Damage(_line(error), error if problem.is_certain else None, folder.keys)


def _problem(store: Store, progress: ByteProgress, file: _File) -> _Problem | None:
    path = store.backend.file_in(file.folder.path, file.folder.content, file.name)
    hashed, size = sha256(), 0
    try:
        with store.open_file(path) as content:
            while chunk := content.read(CHUNK_BYTES):
                hashed.update(chunk)
                size += len(chunk)
                progress.add(len(chunk))
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        return _Problem(f"{file.name} is missing")
    except OSError as error:
        return _Problem(f"{file.name} cannot be read: {error}", is_certain=_is_folder(store, path))
    read = RecordedFile(size, hashed.hexdigest())
    problem = difference(file.name, read, file.expected)
    return None if problem is None else _Problem(problem)


def _is_folder(store: Store, path: str) -> bool:
    """Whether a folder is where a file should be, which pyarrow does not say."""
    return os.path.isdir(f"{store.uri}/{path}")


def _damaged_tables(store: Store) -> Iterator[Damage]:
    studies = read_studies(store)
    for line in studies.unreadable:
        yield Damage(f"{line}; the next run of the study writes it anew")
    for study in studies.named:
        for file in TABLES:
            path = file(study)
            try:
                changed = is_changed(store, path)
            except FileNotFoundError:
                continue
            except OSError as error:
                yield Damage(f"{store.location(path)}{DAMAGED}it cannot be read: {error}")
                continue
            if changed:
                yield Damage(
                    f"{store.location(path)}{DAMAGED}it was changed after it was written; the next "
                    f"run of study {study} writes it anew"
                )


def _line(error: StoreError) -> str:
    """The message without what a run would do about it."""
    return str(error).rpartition("; running its study")[0] or str(error)
