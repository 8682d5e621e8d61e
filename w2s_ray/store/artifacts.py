"""Artifacts: the output folder of a step, complete or absent, identified by the step's key.

``names`` documents the folders of a store, ``backend`` what is atomic and durable on a file system
and on an object store.
"""

import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache, partial
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from w2s_ray.store.addresses import shown
from w2s_ray.store.backend import StoreError, damaged
from w2s_ray.store.failures import note_of, read_notes
from w2s_ray.store.file_digests import digest_of
from w2s_ray.store.files import StoreFiles
from w2s_ray.store.identity import Identity
from w2s_ray.store.names import RECORD, artifact_folder, failure_file, key_of
from w2s_ray.store.opening import open_backend
from w2s_ray.store.provenance import provenance
from w2s_ray.store.records import (
    RECORD_SCHEMA,
    damage,
    damage_of_content,
    parse_record,
    record_bytes,
    recorded_files,
    sizes_below,
)

FILES_AT_ONCE = 64
RECORDS_AT_ONCE = 1024
POLL_SECONDS = 0.5


@dataclass(frozen=True, slots=True)
class Artifact:
    """A finished step: its files on this machine, and its record.

    Attributes:
        folder: its files; ``file`` gives a single one, and is the way to read it.
        error: the error for damage of the artifact, from what differs.
    """

    folder: Path
    record: dict[str, Any]
    error: Callable[[str], StoreError]

    def has(self, name: str) -> bool:
        """Whether the artifact has a file of this name."""
        return name in self.record["files"]

    def file(self, name: str) -> Path:
        """The path of a file whose content is what it was when it was committed.

        Read at once: the digest is compared once per process, and again if the file changes.

        Raises:
            FileNotFoundError: The artifact has no such file.
            StoreError: The file is damaged.
        """
        recorded = recorded_files(self.record)
        if name not in recorded:
            raise FileNotFoundError(f"{self.folder} has no file {name}")
        if problem := damage(self.folder, {name: recorded[name]}, with_digests=True):
            raise self.error(problem)
        return self.folder / name


@dataclass(frozen=True, slots=True)
class Draft:
    """An artifact in the making: write files below ``folder``, JSON values into ``metrics``."""

    folder: Path
    metrics: dict[str, Any] = field(default_factory=dict)


class _Finished(NamedTuple):
    """A finished step: its folder in the store, its record as written, and parsed."""

    path: str
    content: bytes
    record: dict[str, Any]


class Checked(NamedTuple):
    """Keys of finished steps, and the error for each record that is damaged."""

    finished: set[str]
    damaged: list[StoreError]


class Store(StoreFiles):
    """The artifacts below one root, and the plain files of ``StoreFiles``.

    Nothing is cached between calls: every method reads the current state from the backend.
    """

    @classmethod
    def open(cls, uri: str | Path, *, cache: Path | None = None) -> "Store":
        """The store at a path, a ``file://`` URI, or any URI that pyarrow supports (``s3://…``).

        Nothing is created before the first write.

        Args:
            cache: Local folder for copies of remote artifacts (default: see ``opening``).

        Raises:
            InputError: An empty address, a URI that pyarrow does not support, or no such bucket.
        """
        return cls(open_backend(str(uri), cache=cache))

    def finished(self) -> dict[str, str]:
        """key -> ``<kind>/<slug>-<key>`` of all artifacts, by one listing of the whole store.

        Opens no record: a damaged one may count (see ``checked``).

        Raises:
            InputError: The store cannot be read.
        """
        finished: dict[str, str] = {}
        with self.reading():
            for path in self.backend.committed():
                key = key_of(path)
                finished[key] = min(path, finished.get(key, path))
        return finished

    def finished_among(self, keys: Iterable[str]) -> set[str]:
        """Which of the steps are finished, by one listing of names and their records.

        Raises:
            InputError: The store cannot be read.
        """
        return self.checked(keys).finished

    def checked(self, keys: Iterable[str]) -> Checked:
        """As ``finished_among``, with the records that are damaged.

        Raises:
            InputError: The store cannot be read.
        """
        damages: list[StoreError] = []
        return Checked({key for key, _ in self._finished_steps(keys, damages)}, damages)

    def has(self, key: str) -> bool:
        """Whether the step is finished."""
        return bool(self.finished_among([key]))

    def record(self, key: str) -> dict[str, Any]:
        """The record of a finished step; its files are not touched.

        Raises:
            KeyError: The step is not finished.
        """
        return self._finished_step(self._folders([key]), key).record

    def records(self, keys: Iterable[str]) -> dict[str, dict[str, Any]]:
        """Records of those of the steps that are finished, in the order of the keys.

        Raises:
            InputError: The store cannot be read.
        """
        return {key: step.record for key, step in self._finished_steps(keys)}

    def artifact(self, key: str) -> Artifact:
        """A finished step. From an object store its files are downloaded, once per machine.

        Raises:
            KeyError: The step is not finished.
            StoreError: A file is missing or has another size than the record says; downloaded, also
                another digest.
        """
        return self._artifact(self._folders([key]), key)

    def artifacts(self, keys: Iterable[str]) -> Callable[[str], Artifact]:
        """A function that opens finished steps by key, as ``artifact``, each of them once.

        Names are listed once, now, for all keys together, which is much faster than one by one.

        Raises:
            InputError: The store cannot be read.
        """
        return cache(partial(self._artifact, self._folders(keys)))

    def file_locations(self, keys: Iterable[str], name: str) -> dict[str, str]:
        """key -> path or URI of the file ``name``, of each finished step that has one.

        Raises:
            InputError: The store cannot be read.
        """
        return {
            key: self.location(self.backend.file_in(step.path, step.content, name))
            for key, step in self._finished_steps(keys)
            if name in step.record["files"]
        }

    def contents(self, keys: Iterable[str], name: str) -> Iterator[bytes]:
        """The file ``name`` of each finished step, in the order of the keys, a few at a time.

        Raises:
            KeyError: A step is not finished.
            FileNotFoundError: An artifact has no such file.
            StoreError: The file is missing, or another than the record says.
        """
        keys = list(keys)
        folders = self._folders(keys)
        for group in _groups(keys, FILES_AT_ONCE):
            finished = self._read_records(folders, dict.fromkeys(group))
            steps = [_required(finished, key) for key in group]
            paths = [self.backend.file_in(step.path, step.content, name) for step in steps]
            for step, content in zip(steps, self.backend.read(paths), strict=True):
                yield self._checked(step, name, content)

    @contextmanager
    def draft(
        self, step: Identity, execution: Mapping[str, Any], *, started: datetime | None = None
    ) -> Iterator[Draft]:
        """Make the artifact of ``step``: it is committed at the end, or nothing of it remains.

        If another process has committed the same key in the meantime, its artifact stays and this
        one is dropped. A failure noted for the key is cleared.

        Args:
            execution: How the step is run, as JSON values.
            started: When the work began; None means now.

        Raises:
            TypeError: Metrics (or another part of the record) that JSON cannot hold, NaN included.
            OSError: The disk is full, or may not be written.
        """
        location = artifact_folder(step.kind, step.slug, step.key)
        started = started or datetime.now(UTC)
        workspace = self.backend.workspace(step.kind, step.key)
        try:
            draft = Draft(workspace)
            yield draft
            sizes = sizes_below(workspace)
            record = {
                "schema": RECORD_SCHEMA,
                "kind": step.kind,
                "key": step.key,
                "slug": step.slug,
                "version": step.version,
                "config": dict(step.config),
                "inputs": dict(step.inputs),
                "execution": dict(execution),
                "metrics": draft.metrics,
                "files": sizes,
                "digests": {name: digest_of(workspace / name) for name in sizes},
                "provenance": provenance(started, datetime.now(UTC)),
            }
            self.backend.commit(workspace, location, record_bytes(record))
        finally:
            shutil.rmtree(workspace, ignore_errors=True)
        self.backend.remove(failure_file(step.key))

    def set_aside(self, error: StoreError) -> str | None:
        """Move a damaged artifact below ``damaged/``: its step is unfinished from then on.

        Under the step's claim the record is compared with the one that was read, so an artifact
        that another process has made in the meantime stays.

        Returns:
            The new path or URI; None if there is nothing to move any more.
        """
        while self._is_there(error):
            with self.claim(key_of(error.path)) as held, suppress(FileNotFoundError):
                if held and self._is_there(error):
                    return self.location(self.backend.set_aside(error.path))
            if not held:  # by another process that moves it, or works on the step
                time.sleep(POLL_SECONDS)
        return None

    def _is_there(self, error: StoreError) -> bool:
        """Whether the damaged artifact still is where it was read."""
        if not error.path:
            return False
        (record,) = self.backend.read([f"{error.path}/{RECORD}"])
        return record == error.record

    def record_failure(self, step: Identity, error: BaseException | str) -> None:
        """Note that a step failed, and why; a later commit of the key clears it."""
        note = {"key": step.key, "kind": step.kind, "slug": step.slug, **note_of(error)}
        self.write_json(failure_file(step.key), note)

    def failures(self) -> dict[str, dict[str, Any]]:
        """key -> {key, kind, slug, error (one line), traceback, time}, of unfinished steps.

        Damaged notes are ignored.

        Raises:
            InputError: The store cannot be read.
        """
        with self.reading():
            notes = read_notes(self)
        finished = self.finished_among(notes)
        return {key: note for key, note in notes.items() if key not in finished}

    def _folders(self, keys: Iterable[str]) -> dict[str, list[str]]:
        """key -> the folders named after it, sorted, by one listing of names.

        Several if the slug has changed or an earlier artifact is damaged; they may be incomplete.
        """
        folders: dict[str, list[str]] = {key: [] for key in keys}
        if folders:
            with self.reading():
                for path in self.backend.folders():
                    if (named := folders.get(key_of(path))) is not None:
                        named.append(path)
        return {key: sorted(named) for key, named in folders.items() if named}

    def _finished_steps(
        self, keys: Iterable[str], damages: list[StoreError] | None = None
    ) -> Iterator[tuple[str, _Finished]]:
        """Those of the steps that are finished, in the order of the keys."""
        folders = self._folders(keys)
        for group in _groups(folders, RECORDS_AT_ONCE):
            yield from self._read_records(folders, group, damages).items()

    def _finished_step(self, folders: Mapping[str, list[str]], key: str) -> _Finished:
        return _required(self._read_records(folders, [key]), key)

    def _read_records(
        self,
        folders: Mapping[str, list[str]],
        keys: Iterable[str],
        damages: list[StoreError] | None = None,
    ) -> dict[str, _Finished]:
        """Those of the steps that have a whole record in one of their folders.

        Args:
            damages: takes an error for each damaged record.
        """
        paths = [path for key in keys for path in folders.get(key, ())]
        with self.reading():
            contents = self.backend.read([f"{path}/{RECORD}" for path in paths])
        finished: dict[str, _Finished] = {}
        for path, content in zip(paths, contents, strict=True):
            if content is None:
                continue
            try:
                finished.setdefault(
                    key_of(path), _Finished(path, content, parse_record(content, path))
                )
            except ValueError as error:
                if damages is not None:
                    damages.append(self._damaged(path, content, f"{RECORD} is {error}"))
        return finished

    def _artifact(self, folders: Mapping[str, list[str]], key: str) -> Artifact:
        step = self._finished_step(folders, key)
        folder = self.backend.local_copy(step.path, step.content)
        return Artifact(folder, step.record, partial(self._damaged, step.path, step.content))

    def _damaged(self, path: str, content: bytes, problem: str) -> StoreError:
        return damaged(shown(self.uri), path, content, problem)

    def _checked(self, step: _Finished, name: str, content: bytes | None) -> bytes:
        """The content of an artifact's file, if it is what the record says."""
        expected = recorded_files(step.record).get(name)
        if expected is None:
            raise FileNotFoundError(f"{self.location(step.path)} has no file {name}")
        if content is None:
            raise self._damaged(step.path, step.content, f"{name} is missing")
        if problem := damage_of_content(name, content, expected):
            raise self._damaged(step.path, step.content, problem)
        return content


def _required(finished: Mapping[str, _Finished], key: str) -> _Finished:
    if key not in finished:
        raise KeyError(f"no finished step has the key {key!r}")
    return finished[key]


def _groups(items: Iterable[str], size: int) -> Iterator[list[str]]:
    iterator = iter(items)
    while group := list(islice(iterator, size)):
        yield group
