"""Artifacts: the output folder of a step, complete or absent, identified by the step's key.

``names`` documents the folders of a store, ``backend`` what is atomic and durable on a file system
and on an object store.
"""

import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa

from w2s_ray.store.artifact import Artifact
from w2s_ray.store.backend import StoreError
from w2s_ray.store.bundles import BundleDraft, bundle_key
from w2s_ray.store.drafts import Draft
from w2s_ray.store.failures import note_of, read_notes
from w2s_ray.store.file_digests import digest_of
from w2s_ray.store.files import StoreFiles
from w2s_ray.store.finished import Finder, members_of
from w2s_ray.store.identity import Identity
from w2s_ray.store.names import (
    FAILURES,
    RECORD,
    WITHOUT_STEPS,
    artifact_folder,
    bundle_folder,
    failure_file,
    is_bundle,
    key_of,
)
from w2s_ray.store.opening import open_backend
from w2s_ray.store.provenance import provenance
from w2s_ray.store.records import RECORD_SCHEMA, record_bytes, sizes_below

POLL_SECONDS = 0.5


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
        """key -> path of the folder that has it, of all artifacts, by one listing of the store.

        Opens no record but those of bundles: a damaged one may count (see ``checked``).

        Raises:
            InputError: The store cannot be read.
        """
        finished: dict[str, str] = {}
        bundles: list[str] = []
        with self.reading():
            for path in sorted(self.backend.committed()):
                if is_bundle(path):
                    bundles.append(path)
                else:
                    finished.setdefault(key_of(path), path)
        for path, keys in members_of(self, bundles).items():
            for key in keys:
                finished.setdefault(key, path)
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
        return Checked(Finder(self, keys, damages).finished(), damages)

    def has_bundles(self) -> bool:
        """Whether some steps, of whatever study, were committed as bundles."""
        with self.reading():
            return any(is_bundle(path) for path in self.backend.folders(WITHOUT_STEPS))

    def has(self, key: str) -> bool:
        """Whether the step is finished."""
        return bool(self.finished_among([key]))

    def record(self, key: str) -> dict[str, Any]:
        """The record of a finished step; its files are not touched.

        Raises:
            KeyError: The step is not finished.
        """
        return Finder(self, [key]).step(key).record

    def records(self, keys: Iterable[str]) -> dict[str, dict[str, Any]]:
        """Records of those of the steps that are finished, in the order of the keys.

        Raises:
            InputError: The store cannot be read.
            StoreError: A bundle is damaged.
        """
        return {key: step.record for key, step in Finder(self, keys).steps()}

    def artifact(self, key: str) -> Artifact:
        """A finished step. From an object store its files are downloaded, once per machine.

        Raises:
            KeyError: The step is not finished.
            StoreError: A file is missing or has another size than the record says; downloaded, also
                another digest.
        """
        return Finder(self, [key]).artifact(key)

    def artifacts(self, keys: Iterable[str]) -> Callable[[str], Artifact]:
        """A function that opens finished steps by key, as ``artifact``, each of them once.

        Names are listed once, now, for all keys together, which is much faster than one by one.

        Raises:
            InputError: The store cannot be read.
        """
        return cache(Finder(self, keys).artifact)

    def file_locations(self, keys: Iterable[str], name: str) -> dict[str, str]:
        """key -> path or URI of the file ``name``, of each finished step that has it for itself.

        Raises:
            InputError: The store cannot be read.
        """
        return {
            key: self.location(self.backend.file_in(step.path, step.content, step.named(name)))
            for key, step in Finder(self, keys).steps()
            if name in step.record["files"]
        }

    def contents(self, keys: Iterable[str], name: str) -> Iterator[bytes]:
        """The file ``name`` that each finished step has for itself, in the order of the keys, a few
        at a time. Nothing is downloaded but these files. Errors as of ``tables``."""
        return Finder(self, keys).contents(name)

    def tables(
        self, keys: Iterable[str], name: str, columns: Sequence[str] | None = None
    ) -> Iterator[pa.Table]:
        """The table ``name`` of each finished step, in the order of the keys, a few at a time.

        Args:
            columns: to be read, as far as the table has them; None: all.

        Raises:
            KeyError: A step is not finished.
            FileNotFoundError: An artifact has no such table.
            StoreError: A file is missing, or another than the record says.
        """
        return Finder(self, keys).tables(name, columns)

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
            self._commit(
                workspace,
                location,
                {
                    "schema": RECORD_SCHEMA,
                    "kind": step.kind,
                    "key": step.key,
                    "slug": step.slug,
                    "version": step.version,
                    "config": dict(step.config),
                    "inputs": dict(step.inputs),
                    "execution": dict(execution),
                    "metrics": draft.metrics,
                    "provenance": provenance(started, datetime.now(UTC)),
                },
            )
        finally:
            shutil.rmtree(workspace, ignore_errors=True)
        self.backend.remove(failure_file(step.key))

    @contextmanager
    def bundle(
        self, kind: str, name: str, *, started: datetime | None = None
    ) -> Iterator[BundleDraft]:
        """Make a bundle of steps of one kind: all are committed at the end, or nothing remains.

        Nothing is committed if no member was added. Failures noted for the members are cleared.

        Args:
            name: of the folder in which it is prepared; any key of a member will do.
            started: As of ``draft``.

        Raises:
            OSError: The disk is full, or may not be written.
        """
        started = started or datetime.now(UTC)
        workspace = self.backend.workspace(kind, name)
        try:
            draft = BundleDraft(workspace)
            yield draft
            if not draft.members:
                return
            ended = provenance(started, datetime.now(UTC))
            draft.write_shared(ended)
            keys = [member.identity.key for member in draft.members]
            key = bundle_key(keys)
            location = bundle_folder(kind, len(keys), key)
            record = {"schema": RECORD_SCHEMA, "kind": kind, "key": key, "members": keys}
            with self.waiting_claim(key):  # by which ``set_aside`` moves a damaged one
                self._commit(workspace, location, record | {"provenance": ended})
        finally:
            shutil.rmtree(workspace, ignore_errors=True)
        noted = set(self.listing(FAILURES))
        for path in map(failure_file, keys):
            if path.rpartition("/")[2] in noted:
                self.backend.remove(path)

    def _commit(self, workspace: Path, location: str, record: dict[str, Any]) -> None:
        """Commits a folder with its record, to which the files are added."""
        sizes = sizes_below(workspace)
        digests = {name: digest_of(workspace / name) for name in sizes}
        record |= {"files": sizes, "digests": digests}
        self.backend.commit(workspace, location, record_bytes(record))

    @contextmanager
    def waiting_claim(self, key: str) -> Iterator[None]:
        """Hold a key, once no other process does."""
        while True:
            with self.claim(key) as held:
                if held:
                    yield
                    return
            time.sleep(POLL_SECONDS)

    def set_aside(self, error: StoreError) -> str | None:
        """Move a damaged artifact below ``damaged/``: its step is unfinished from then on.

        Under the step's claim the record is compared with the one that was read, so an artifact
        that another process has made in the meantime stays.

        Returns:
            The new path or URI; None if there is nothing to move any more.
        """
        while self._is_there(error):
            with self.claim(key_of(error.path)) as held, suppress(FileNotFoundError):
                if held:
                    return self.location(self.backend.set_aside(error.path, error.record))
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
