"""Artifacts: a step's output folder, complete or absent, found by the step's key.

Layout below the root: ``<kind>/<slug>-<key>/`` holds an artifact's files and its ``record.json``;
beside them stand the folders of ``NOT_KINDS``. The slug is for people; only the key identifies. The
root may be a folder or any pyarrow file system; ``local`` and ``remote`` say how each commits.
"""

import json
import os
import re
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from hashlib import sha256
from itertools import islice
from pathlib import Path
from typing import Any
from uuid import uuid4

from pyarrow import ArrowException, NativeFile, fs

from w2s_ray.errors import InputError
from w2s_ray.store.addresses import shown
from w2s_ray.store.canonical import canonical_json
from w2s_ray.store.failures import note_of
from w2s_ray.store.identity import Identity
from w2s_ray.store.local import RECORD, LocalPlace, is_record
from w2s_ray.store.provenance import provenance
from w2s_ray.store.remote import RemotePlace

RECORD_SCHEMA = 1
NOT_KINDS = ("checkpoints", "claims", "failures", "parts", "predictions", "results", "studies")
FILES_AT_ONCE = 64


@dataclass(frozen=True, slots=True)
class Artifact:
    """A finished step: its files on this machine, and its record."""

    folder: Path
    record: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Draft:
    """An artifact in the making: write files below ``folder``, JSON values into ``metrics``."""

    folder: Path
    metrics: dict[str, Any] = field(default_factory=dict)


class Store:
    """All artifacts below one root. Holds no open files and can be pickled."""

    def __init__(
        self, filesystem: fs.FileSystem, root: str, *, cache: Path | None = None, uri: str = ""
    ) -> None:
        """A store at ``root`` of a pyarrow file system; nothing is created before it is needed.

        Args:
            cache: local folder for copies of remote artifacts; the default is
                ``$XDG_CACHE_HOME/w2s_ray`` (``~/.cache/w2s_ray``). Unused on a local file system.
        """
        self._place: LocalPlace | RemotePlace
        self._filesystem = filesystem
        if isinstance(filesystem, fs.LocalFileSystem):
            self.uri = os.path.abspath(root)
            self._root = self.uri
            self._place = LocalPlace(Path(self._root))
        else:
            self.uri = (uri or f"{filesystem.type_name}://{root}").rstrip("/")
            self._root = root.rstrip("/")
            if cache is None:
                home = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
                cache = Path(home) / "w2s_ray" / sha256(self.uri.encode()).hexdigest()[:16]
            self._place = RemotePlace(filesystem, root, cache)
        self._known: dict[str, str] = {}

    @classmethod
    def open(cls, uri: str | Path, *, cache: Path | None = None) -> "Store":
        """A store at a path, a ``file://`` URI, or any URI that pyarrow knows (``s3://…``).

        Raises:
            InputError: no address, a URI that pyarrow does not know, or a bucket that is not there.
        """
        address = str(uri)
        if address and "://" not in address:
            return cls(fs.LocalFileSystem(), os.path.abspath(os.path.expanduser(address)))
        reason = "it names no place"
        try:
            if address:
                filesystem, root = fs.FileSystem.from_uri(address)
                if root:
                    return cls(filesystem, root, cache=cache, uri=address)
        except (ArrowException, ValueError, OSError) as error:
            reason = str(error).replace(address, shown(address))
        raise InputError(
            f"store: {shown(address)!r}: expected a path or a file://, s3:// or gs:// URI "
            f"({reason})"
        )

    def probe(self) -> None:
        """Create the root, and write and remove a small file there.

        Raises:
            InputError: that is not possible.
        """
        name = f".probe-{uuid4().hex}"
        try:
            self.write_json(name, {})
            self._place.remove(name)
        except OSError as error:
            raise InputError(f"store {shown(self.uri)} cannot be written: {error}") from None

    def finished(self) -> dict[str, str]:
        """key -> ``<kind>/<slug>-<key>`` of every complete artifact, by one listing.

        Raises:
            InputError: the store cannot be read.
        """
        found: dict[str, str] = {}
        with self._reading():
            for location in self._place.artifacts():
                key = location.rpartition("-")[2]
                if key not in found or location < found[key]:
                    found[key] = location
        self._known = found
        return dict(found)

    def finished_among(self, keys: Iterable[str]) -> set[str]:
        """Those of the steps that are finished, by one fresh look for all of them."""
        found = self._place.find(frozenset(keys))
        self._known.update(found)
        return set(found)

    def has(self, key: str) -> bool:
        """Whether the step is finished, by a fresh look."""
        try:
            self.record(key)
        except KeyError:
            return False
        return True

    def record(self, key: str) -> dict[str, Any]:
        """The record of a finished step; its files are not touched.

        Raises:
            KeyError: the step is not finished.
        """
        record: dict[str, Any] = json.loads(self._record(key))
        return record

    def artifact(self, key: str) -> Artifact:
        """A finished step. From a remote store its files are downloaded, once.

        Raises:
            KeyError: the step is not finished.
            StoreError: a file is missing or has not the size that the record says.
        """
        record = self.record(key)
        return Artifact(self._place.folder(self._known[key]), record)

    def records(self, keys: Iterable[str]) -> dict[str, dict[str, Any]]:
        """Records of those of the steps that are finished, in the order of the keys.

        Raises:
            InputError: the store cannot be read.
        """
        finished = self.finished()
        records: dict[str, dict[str, Any]] = {}
        for group in _groups((key for key in dict.fromkeys(keys) if key in finished), 1024):
            with self._reading():
                contents = self._place.read_all([f"{finished[key]}/{RECORD}" for key in group])
            for key, content in zip(group, contents, strict=True):
                if is_record(content):
                    records[key] = json.loads(content)
        return records

    def contents(self, keys: Iterable[str], name: str) -> Iterator[bytes]:
        """The file ``name`` of each finished step, in the order of the keys, a few at a time.

        Raises:
            KeyError: a step is not finished.
            FileNotFoundError: an artifact has no such file.
            StoreError: the file is missing or has not the size that the record says.
        """
        for group in _groups(keys, FILES_AT_ONCE):
            records = [self._record(key) for key in group]
            yield from self._place.read_all(
                [
                    self._place.member(self._known[key], record, name)
                    for key, record in zip(group, records, strict=True)
                ]
            )

    @contextmanager
    def draft(
        self, step: Identity, execution: Mapping[str, Any], *, started: datetime | None = None
    ) -> Iterator[Draft]:
        """Make the artifact of ``step``: it is committed at the end, or nothing of it remains.

        If another driver has committed the same key in the meantime, its artifact stays and this
        one is dropped. A failure noted for the key is cleared.

        Args:
            execution: how the step is run, as JSON values.
            started: when the work began; None: now.

        Raises:
            TypeError: metrics (or another part of the record) that JSON cannot hold, NaN included.
            OSError: the disk is full, or may not be written.
        """
        location = f"{_safe(step.kind)}/{_safe(step.slug[:150])}-{_safe(step.key)}"
        if "-" in step.key or step.kind in NOT_KINDS:
            raise ValueError(f"no artifact can have the key {step.key!r} and kind {step.kind!r}")
        started = started or datetime.now(UTC)
        workspace = self._place.workspace(step.kind, step.key)
        try:
            draft = Draft(workspace)
            yield draft
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
                "files": _sizes(workspace),
                "provenance": provenance(started, datetime.now(UTC)),
            }
            self._place.publish(workspace, location, _json(record))
            self._known[step.key] = location
        finally:
            shutil.rmtree(workspace, ignore_errors=True)
        self._place.remove(f"failures/{step.key}.json")

    def record_failure(self, step: Identity, error: BaseException | str) -> None:
        """Note that a step failed, and why; a later commit of the key clears it."""
        note = {"key": step.key, "kind": step.kind, "slug": step.slug, **note_of(error)}
        self.write_json(f"failures/{_safe(step.key)}.json", note)

    def failures(self) -> dict[str, dict[str, Any]]:
        """key -> {key, kind, slug, error (one line), traceback, time}, of unfinished steps.

        A note that cannot be read counts as none.

        Raises:
            InputError: the store cannot be read.
        """
        found: dict[str, dict[str, Any]] = {}
        with self._reading():
            for name in self._place.listing("failures"):
                with suppress(FileNotFoundError, ValueError):  # cleared since the listing; damaged
                    note = self.read_json(f"failures/{name}")
                    if isinstance(note, dict) and note.keys() >= {"key", "error"}:
                        found[note["key"]] = note
        finished = self.finished() if found else {}
        return {key: note for key, note in found.items() if key not in finished}

    @contextmanager
    def claim(self, key: str) -> Iterator[bool]:
        """Hold a key while working on it; yields False if another process or host holds it.

        A claim only saves work (see ``claims``): look again at ``has`` once it is held.
        """
        with self.claims([key]) as held:
            yield bool(held)

    def claims(self, keys: Iterable[str]) -> AbstractContextManager[set[str]]:
        """Hold many keys, as ``claim`` does; yields those that are held."""
        return self._place.claims([_safe(key) for key in keys])

    def listing(self, folder: str) -> list[str]:
        """Names of the files in one of the store's plain folders, sorted."""
        return self._place.listing(folder)

    def writing(self, path: str) -> AbstractContextManager[Path]:
        """A local path to write to, which becomes ``path`` of the store at the end, whole."""
        return self._place.writing(path)

    def remove(self, path: str) -> None:
        """Remove a file, if it is there."""
        self._place.remove(path)

    def discard(self, folder: str) -> None:
        """Remove one of the store's plain folders, if it is there."""
        self._place.discard(folder)

    def location(self, path: str) -> str:
        """Path or URI of a file of the store, for people and other programs; without secrets."""
        return f"{shown(self.uri)}/{path}"

    def open_file(self, path: str) -> NativeFile:
        """A file of the store for random access.

        Raises:
            FileNotFoundError: there is no such file.
        """
        return self._filesystem.open_input_file(f"{self._root}/{path}")

    def write_json(self, path: str, value: Any) -> None:
        """Replace a small JSON file.

        Raises:
            TypeError: the value is not JSON.
        """
        content = _json(value)
        with self.writing(path) as target:
            target.write_bytes(content)

    def read_json(self, path: str) -> Any:
        """The value of a small JSON file.

        Raises:
            FileNotFoundError: there is no such file.
        """
        return json.loads(self._place.read_all([path])[0])

    def _record(self, key: str) -> bytes:
        for look in (self._known.get, lambda key: self._place.find({key}).get(key)):
            if (location := look(key)) is not None:
                try:
                    record = self._place.read_all([f"{location}/{RECORD}"])[0]
                except FileNotFoundError:
                    continue
                if is_record(record):
                    self._known[key] = location
                    return record
        raise KeyError(f"no finished step has the key {key!r}")

    @contextmanager
    def _reading(self) -> Iterator[None]:
        """An error of the file system becomes the user's, but not that a file is not there."""
        try:
            yield
        except FileNotFoundError:
            raise
        except OSError as error:
            raise InputError(f"store {shown(self.uri)} cannot be read: {error}") from None


def _safe(name: str) -> str:
    """A name that is one visible path component of the store.

    Raises:
        ValueError: it is not.
    """
    if not re.fullmatch(r"[A-Za-z0-9_+=@,][A-Za-z0-9._+=@,-]*", name):
        raise ValueError(f"{name!r} cannot be part of a file name")
    return name


def _groups(items: Iterable[str], size: int) -> Iterator[list[str]]:
    iterator = iter(items)
    while group := list(islice(iterator, size)):
        yield group


def _sizes(folder: Path) -> dict[str, int]:
    """Path -> bytes of the files below a folder."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.stat().st_size for path in files}


def _json(value: Any) -> bytes:
    """A line for each entry: readable, and five times as fast as ``indent``, which is Python."""
    try:
        if isinstance(value, dict):
            entries = (
                f" {json.dumps(k)}: {json.dumps(v, allow_nan=False)}" for k, v in value.items()
            )
            return ("{\n" + ",\n".join(entries) + "\n}").encode()
        return json.dumps(value, allow_nan=False).encode()
    except (TypeError, ValueError):
        canonical_json(value)  # names the path of what is wrong
        raise
