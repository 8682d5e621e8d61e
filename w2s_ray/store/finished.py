"""Finds finished steps: which folder or which bundle has a key, and its record.

One listing of names finds the folders that are named after a key, and the bundles. Which members a
bundle has is read once per process: its name is the digest of their keys, so with other members it
would have another name.
"""

from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import partial
from hashlib import sha256
from io import BytesIO
from itertools import islice
from typing import Any, NamedTuple

import pyarrow as pa
from pyarrow import parquet

from w2s_ray.store.addresses import shown
from w2s_ray.store.artifact import Artifact
from w2s_ray.store.backend import StoreError, damaged
from w2s_ray.store.bundles import Bundle, Members, is_whole
from w2s_ray.store.files import StoreFiles
from w2s_ray.store.names import DAMAGED, MEMBERS, RECORD, WITHOUT_STEPS, is_bundle, key_of
from w2s_ray.store.records import damage_of_content, parse_record, recorded_files

RECORDS_AT_ONCE = 1024
FILES_AT_ONCE = 64
OPEN_BUNDLES = 32  # at a time; of each a few row groups and the table of members are in memory


class _Members(NamedTuple):
    """The keys of a bundle's members, and the digest of its record."""

    keys: tuple[str, ...]
    digest: str


_members_of: dict[tuple[str, str], _Members] = {}  # by root and path of a bundle


class Finished(NamedTuple):
    """A finished step.

    Attributes:
        path: of the committed folder that has it, its own or that of its bundle.
        content: of the record there.
        record: of the step.
    """

    path: str
    content: bytes
    record: dict[str, Any]

    @property
    def is_member(self) -> bool:
        return "bundle" in self.record

    def named(self, file: str) -> str:
        """The path, below the folder, of a file that the step has for itself."""
        return f"{self.record['key']}/{file}" if self.is_member else file


class _OpenBundle(NamedTuple):
    """A bundle of which records were read.

    Attributes:
        members: their records.
        shared: reads their contents; None until they are asked for.
    """

    committed: Finished
    members: Members
    shared: Bundle | None = None


class Finder:
    """The finished steps among some keys, as they are when it is made.

    Args:
        store: where they may be.
        keys: those of the steps.
        damages: takes an error for each record that is damaged.

    Raises:
        InputError: The store cannot be read.
    """

    def __init__(
        self, store: StoreFiles, keys: Iterable[str], damages: list[StoreError] | None = None
    ) -> None:
        self._store, self._damages = store, damages
        self._keys = dict.fromkeys(keys)
        # Several folders if the slug has changed or an earlier artifact is damaged; they may be
        # incomplete.
        self._folders: dict[str, list[str]] = {}
        self._bundle_of: dict[str, str] = {}
        self._wanted: dict[str, list[str]] = {}
        self._open: OrderedDict[str, _OpenBundle] = OrderedDict()
        if self._keys:
            self._list()

    def _list(self) -> None:
        bundles, set_aside = [], set()
        with self._store.reading():
            for path in sorted(self._store.backend.folders(WITHOUT_STEPS)):
                if is_bundle(path):
                    bundles.append(path)
                elif path.startswith(f"{DAMAGED}/"):
                    set_aside.add(path.partition("/")[2])
                elif (key := key_of(path)) in self._keys:
                    self._folders.setdefault(key, []).append(path)
        # On an object store the folder of a bundle that was set aside is still listed.
        for path in bundles:
            if path.partition("/")[0] in set_aside:
                _members_of.pop((self._store.uri, path), None)
        for path, members in members_of(self._store, bundles, self._damages).items():
            for key in members:
                if key in self._keys and key not in self._bundle_of:
                    self._bundle_of[key] = path
                    self._wanted.setdefault(path, []).append(key)

    def finished(self) -> set[str]:
        """The keys of those that are finished; records of members are not read."""
        singles = self._singles(self._folders)
        return self._bundle_of.keys() | singles.keys()

    def digests(self) -> list[str]:
        """Equal if and only if the same steps are finished with the same records."""
        singles = self._singles(self._folders)
        digests = {step.path: sha256(step.content).hexdigest() for step in singles.values()}
        digests |= {path: _members_of[self._store.uri, path].digest for path in self._wanted}
        return [f"{path} {digest}" for path, digest in sorted(digests.items())]

    def steps(self) -> Iterator[tuple[str, Finished]]:
        """Those that are finished, in the order of the keys."""
        members: dict[str, Finished] = {}
        for path, keys in self._wanted.items():
            with suppress(FileNotFoundError):  # set aside since it was listed
                members |= {key: self._member(path, key) for key in keys}
        for group in groups(self._keys, RECORDS_AT_ONCE):
            singles = self._singles(group)
            for key in group:
                if (step := singles.get(key) or members.get(key)) is not None:
                    yield key, step

    def step(self, key: str) -> Finished:
        """One that is finished.

        Raises:
            KeyError: It is not.
            StoreError: The table of its bundle's members is damaged.
        """
        if (single := self._singles([key]).get(key)) is not None:
            return single
        try:
            return self._member(self._bundle_of[key], key)
        except (KeyError, FileNotFoundError):
            raise KeyError(f"no finished step has the key {key!r}") from None

    def _member(self, path: str, key: str) -> Finished:
        bundle = self._bundle(path)
        return bundle.committed._replace(record=bundle.members.record(key))

    def artifact(self, key: str) -> Artifact:
        """As ``Store.artifact``."""
        step = self.step(key)
        if step.is_member:
            folder = self._shared(step.path).folder / key
            bundle = partial(self._shared, step.path)
            return Artifact(folder, step.record, self._error(step), bundle)
        folder = self._store.backend.local_copy(step.path, step.content)
        return Artifact(folder, step.record, self._error(step))

    def tables(self, name: str, columns: Sequence[str] | None = None) -> Iterator[pa.Table]:
        """The table ``name`` of each step, in the order of the keys, a few at a time.

        Args:
            columns: to be read, as far as the table has them; None: all.

        Raises:
            KeyError: A step is not finished.
            FileNotFoundError: An artifact has no such table.
            StoreError: A file is missing, or another than the record says.
        """
        for group in groups(self._keys, FILES_AT_ONCE):
            steps = self._singles(group)
            contents = self._contents(steps, name)
            for key in group:
                if key in steps:
                    yield _table(contents[key], columns)
                else:
                    yield _selected(self.artifact(key).table(name), columns)

    def contents(self, name: str) -> Iterator[bytes]:
        """The file ``name`` that each step has for itself; order and errors as of ``tables``."""
        for group in groups(self._keys, FILES_AT_ONCE):
            yield from self._contents({key: self.step(key) for key in group}, name).values()

    def _contents(self, steps: Mapping[str, Finished], name: str) -> dict[str, bytes]:
        """The file ``name`` that steps have for themselves, without a copy of their folders."""
        backend = self._store.backend
        paths = [backend.file_in(s.path, s.content, s.named(name)) for s in steps.values()]
        contents = backend.read(paths)
        return {
            key: self._checked(step, name, content)
            for (key, step), content in zip(steps.items(), contents, strict=True)
        }

    def _singles(self, keys: Iterable[str]) -> dict[str, Finished]:
        """Those of the steps that have a whole record in a folder of their own."""
        paths = [path for key in keys for path in self._folders.get(key, ())]
        finished: dict[str, Finished] = {}
        for step in read_records(self._store, paths, self._damages):
            finished.setdefault(key_of(step.path), step)
        return finished

    def _bundle(self, path: str) -> _OpenBundle:
        """A bundle and its wanted members; a few are kept."""
        if path not in self._open:
            self._open[path] = self._read_bundle(path)
            if len(self._open) > OPEN_BUNDLES:
                self._open.popitem(last=False)
        self._open.move_to_end(path)
        return self._open[path]

    def _read_bundle(self, path: str) -> _OpenBundle:
        committed = next(read_records(self._store, [path], None), None)
        if committed is None:
            raise FileNotFoundError(f"there is no bundle {path} any more")
        location = self._store.backend.file_in(path, committed.content, MEMBERS)
        with self._store.reading():
            (content,) = self._store.backend.read([location])
        table = self._checked(committed, MEMBERS, content)
        return _OpenBundle(committed, Members(table, committed.record, path))

    def _shared(self, path: str) -> Bundle:
        """Reads the contents of a bundle's members."""
        bundle = self._bundle(path)
        if bundle.shared is not None:
            return bundle.shared
        step = bundle.committed
        folder = self._store.backend.local_copy(path, step.content)
        shared = Bundle(folder, step.record, self._error(step))
        self._open[path] = bundle._replace(shared=shared)
        return shared

    def _checked(self, step: Finished, name: str, content: bytes | None) -> bytes:
        """The content of a folder's file, if it is what the record there says."""
        expected = recorded_files(step.record).get(name)
        if expected is None:
            raise FileNotFoundError(f"{self._store.location(step.path)} has no file {name}")
        problem = f"{name} is missing"
        if content is not None:
            problem = damage_of_content(name, content, expected) or ""
        if content is None or problem:
            raise self._error(step)(problem)
        return content

    def _error(self, step: Finished) -> "partial[StoreError]":
        return partial(damaged, shown(self._store.uri), step.path, step.content)


def members_of(
    store: StoreFiles, paths: Iterable[str], damages: list[StoreError] | None = None
) -> dict[str, Sequence[str]]:
    """The keys of the members of those bundles that are whole, by path.

    Args:
        damages: takes an error for each that is damaged.
    """
    members: dict[str, Sequence[str]] = {}
    new = []
    for path in paths:
        if (known := _members_of.get((store.uri, path))) is None:
            new.append(path)
        else:
            members[path] = known.keys
    for bundle in read_records(store, new, damages):
        if is_whole(bundle.record):
            members[bundle.path] = keys = tuple(bundle.record["members"])
            _members_of[store.uri, bundle.path] = _Members(keys, bundle.record["digest"])
        elif damages is not None:
            problem = f"{RECORD} lists other members than its key names"
            damages.append(damaged(shown(store.uri), bundle.path, bundle.content, problem))
    return dict(sorted(members.items()))


def read_records(
    store: StoreFiles, paths: Sequence[str], damages: list[StoreError] | None
) -> Iterator[Finished]:
    """The folders that have a whole record; one that is damaged goes to ``damages``."""
    with store.reading():
        contents = store.backend.read([f"{path}/{RECORD}" for path in paths])
    for path, content in zip(paths, contents, strict=True):
        if content is None:
            continue
        try:
            yield Finished(path, content, parse_record(content, path))
        except ValueError as error:
            if damages is not None:
                problem = f"{RECORD} is {error}"
                damages.append(damaged(shown(store.uri), path, content, problem))


def _table(content: bytes, columns: Sequence[str] | None) -> pa.Table:
    file = parquet.ParquetFile(BytesIO(content))
    present = file.schema_arrow.names
    wanted = None if columns is None else [name for name in columns if name in present]
    return file.read(wanted, use_threads=False)


def _selected(table: pa.Table, columns: Sequence[str] | None) -> pa.Table:
    if columns is None:
        return table
    return table.select([name for name in columns if name in table.column_names])


def groups(items: Iterable[str], size: int) -> Iterator[list[str]]:
    iterator = iter(items)
    while group := list(islice(iterator, size)):
        yield group
