"""Bundles: one committed folder with the artifacts of many steps of one kind.

Steps that are computed together (``plan.fusion``) are committed together: a file for all their
predictions, one for all their curves, one record. A study of 10,000 heads then has a hundred files
in place of 80,000, and a commit costs the disk one wait in place of five hundred. To its readers a
*member* is an artifact like any other: it has a key, a record, contents and files of its own.

A bundle lies at ``<kind>/@<members>-<key>``, where the key is the digest of its members' keys::

    record.json               the members' keys; size and digest of each file
    members.parquet           of each member: slug and version, config, inputs, execution, metrics
                              and provenance as JSON, and where its contents begin
    test.parquet, …           tables of all members, one after the other, with a column ``key``
    head.safetensors, …       tensors ``<key>/<name>``; of an array ``<key>``
    <key>/…                   files that a member has for itself, such as an export

A key may be in two bundles, if two runs have worked on one store and one has taken the other for
dead; both hold the same numbers, and the first by name is read.
"""

import json
import shutil
from collections.abc import Callable, Iterable, Mapping
from hashlib import sha256
from io import BytesIO
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple, cast

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from w2s_ray.contents import Content, Tensors, read_tensors, write_content
from w2s_ray.store.backend import StoreError
from w2s_ray.store.canonical import digest
from w2s_ray.store.drafts import MemberDraft
from w2s_ray.store.identity import Identity
from w2s_ray.store.names import MEMBERS
from w2s_ray.store.records import RecordedFile, damage, json_text, recorded_files

ROW_GROUP = 60_000  # rows; of the table of a bundle, a reader of one member decodes one or two
_JSON = ("config", "inputs", "execution", "metrics", "provenance", "contents")
_SCHEMA = pa.schema(
    [
        pa.field(name, pa.int64() if name == "version" else pa.string(), nullable=False)
        for name in ("kind", "key", "slug", "version", *_JSON)
    ]
)


class Member(NamedTuple):
    """One finished step of a bundle to be written: what its record holds, and its contents."""

    identity: Identity
    row: Mapping[str, Any]
    draft: MemberDraft

    @classmethod
    def of(cls, identity: Identity, execution: Mapping[str, Any], draft: MemberDraft) -> "Member":
        """The member, with its row of ``members.parquet``.

        Raises:
            TypeError: JSON cannot hold a metric (NaN included), or another part.
        """
        row = {
            "kind": identity.kind,
            "key": identity.key,
            "slug": identity.slug,
            "version": identity.version,
            "config": json_text(identity.config),
            "inputs": json_text(identity.inputs),
            "execution": json_text(execution),
            "metrics": json_text(draft.metrics),
        }
        return cls(identity, row, draft)


def bundle_key(keys: Iterable[str]) -> str:
    """The key of the bundle that has these members."""
    return digest(sorted(keys))


def member_keys(record: Mapping[str, Any]) -> list[str]:
    """The keys of a bundle's members; none if the record is that of a single artifact."""
    keys: list[str] = record.get("members", [])
    return keys


def is_whole(record: Mapping[str, Any]) -> bool:
    """Whether the record of a bundle lists the members that its key names."""
    keys = record.get("members")
    named = isinstance(keys, list) and all(isinstance(key, str) for key in keys)
    return named and "digest" in record and bundle_key(cast(list[str], keys)) == record["key"]


class Where(NamedTuple):
    """Where a content of a member lies.

    Attributes:
        file: of the bundle.
        start: the first row of a table; 0 of an array and of tensors.
        rows: number of rows of a table; None: it is no table.
    """

    file: str
    start: int
    rows: int | None


class BundleDraft:
    """A bundle in the making.

    Args:
        folder: an empty one.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.members: list[Member] = []

    def draft(self, key: str) -> MemberDraft:
        """The draft of one step; it is a member once it is added."""
        return MemberDraft(self._folder / key)

    def add(self, step: Identity, execution: Mapping[str, Any], draft: MemberDraft) -> None:
        """Make the draft a member.

        Raises:
            TypeError: JSON cannot hold a metric (NaN included), or another part.
        """
        self.members.append(Member.of(step, execution, draft))

    @staticmethod
    def drop(draft: MemberDraft) -> None:
        """Remove what a draft has written, which is no member."""
        shutil.rmtree(draft.own, ignore_errors=True)

    def write_shared(self, provenance: Mapping[str, Any]) -> None:
        """Writes the files that the members share, and ``members.parquet``."""
        shared, of_all = _SharedFiles(), json_text(dict(provenance))
        rows = []
        for member in self.members:
            contents = {
                name: shared.add(member.identity.key, name, content)
                for name, content in member.draft.contents.items()
            }
            own = {"provenance": of_all, "contents": json_text(contents)}
            rows.append({**member.row, **own})
        shared.write(self._folder)
        table = pa.Table.from_pylist(rows, _SCHEMA)
        pq.write_table(table, self._folder / MEMBERS, compression="zstd")


class _SharedFiles:
    """Contents of members, by the file that they share."""

    def __init__(self) -> None:
        self._tables: dict[str, dict[str, pa.Table]] = {}
        self._tensors: dict[str, dict[str, NDArray[np.generic]]] = {}
        self._rows: dict[str, int] = {}
        self._file_of: dict[tuple[str, pa.Schema | None], str] = {}

    def add(self, key: str, name: str, content: Content) -> Where:
        if "/" in name:
            raise ValueError(f"the content {name} of a member has a slash in its name")
        if isinstance(content, pa.Table):
            if "key" in content.column_names:
                raise ValueError(f"the table {name} of a member has a column key")
            file = self._file(name, content.schema)
            start = self._rows.get(file, 0)
            self._rows[file] = start + content.num_rows
            self._tables.setdefault(file, {})[key] = content
            return Where(file, start, content.num_rows)
        file = self._file(PurePosixPath(name).with_suffix(".safetensors").name, None)
        tensors = self._tensors.setdefault(file, {})
        if isinstance(content, np.ndarray):
            tensors[key] = np.asarray(content, order="C")
        else:
            tensors |= {f"{key}/{t}": np.asarray(v, order="C") for t, v in content.items()}
        return Where(file, 0, None)

    def write(self, folder: Path) -> None:
        for file, tables in self._tables.items():
            columns = pa.concat_tables(tables.values())
            indices = np.repeat(np.arange(len(tables)), [t.num_rows for t in tables.values()])
            keys = pa.DictionaryArray.from_arrays(indices, pa.array(list(tables), pa.string()))
            table = columns.add_column(0, "key", keys)
            repeated = [name for name in ("key", "row_id") if name in table.column_names]
            pq.write_table(
                table,
                folder / file,
                compression="zstd",
                use_dictionary=repeated,
                write_statistics=False,
                row_group_size=ROW_GROUP,
            )
        for file, tensors in self._tensors.items():
            write_content(folder / file, tensors)

    def _file(self, name: str, schema: pa.Schema | None) -> str:
        """The file for contents of this name; tables with other columns have one of their own."""
        if (name, schema) not in self._file_of:
            path, number = PurePosixPath(name), sum(other == name for other, _ in self._file_of)
            self._file_of[name, schema] = (
                f"{path.stem}-{number + 1}{path.suffix}" if number else name
            )
        return self._file_of[name, schema]


class Members:
    """The members of a bundle; their records are as those of single artifacts.

    They have three more entries: ``bundle``, the path, ``contents``, name → ``Where`` as a list,
    and as ``digest`` that of what the bundle says of the member.

    Args:
        content: of ``members.parquet``.
        record: of the bundle, which is committed at ``path``.
    """

    def __init__(self, content: bytes, record: Mapping[str, Any], path: str) -> None:
        self._table = pq.ParquetFile(BytesIO(content)).read(use_threads=False)
        self._positions = {key: n for n, key in enumerate(self._table["key"].to_pylist())}
        self._schema, self._path = record["schema"], path
        self._own: dict[str, dict[str, RecordedFile]] = {}
        for file, entry in recorded_files(record).items():
            key, is_own, name = file.partition("/")
            if is_own:
                self._own.setdefault(key, {})[name] = entry

    def record(self, key: str) -> dict[str, Any]:
        """The record of one member.

        Raises:
            KeyError: There is no such member.
        """
        (row,) = self._table.slice(self._positions[key], 1).to_pylist()
        files = self._own.get(key, {})
        return {
            "schema": self._schema,
            **{name: row[name] for name in ("kind", "key", "slug", "version")},
            **{name: json.loads(row[name]) for name in _JSON},
            "digest": sha256("\n".join(row[name] for name in _JSON).encode()).hexdigest(),
            "files": {name: entry.size for name, entry in files.items()},
            "digests": {name: entry.digest for name, entry in files.items()},
            "bundle": self._path,
        }


class Bundle:
    """An open bundle: a file is read when it is first asked for, of a table a few row groups.

    Args:
        folder: its files on this machine.
        record: of the bundle.
        error: the error for damage, from what differs.
    """

    def __init__(
        self, folder: Path, record: Mapping[str, Any], error: Callable[[str], StoreError]
    ) -> None:
        self.folder, self.error = folder, error
        self._files = recorded_files(record)
        self._tables: dict[str, _Rows] = {}
        self._tensors: dict[str, dict[str, dict[str, NDArray[np.generic]]]] = {}

    def table(self, member: Mapping[str, Any], name: str) -> pa.Table:
        """A table of the member with this record.

        Raises:
            StoreError: The file is damaged.
        """
        where = Where(*member["contents"][name])
        assert where.rows is not None
        if where.file not in self._tables:
            self._tables[where.file] = _Rows(self._file(where.file))
        return self._tables[where.file].read(where.start, where.rows)

    def array(self, member: Mapping[str, Any], name: str) -> NDArray[np.generic]:
        """An array of the member. Errors as of ``table``."""
        return self._read_tensors(member, name)[""]

    def tensors(self, member: Mapping[str, Any], name: str) -> Tensors:
        """Named tensors of the member. Errors as of ``table``."""
        return self._read_tensors(member, name)

    def _read_tensors(self, member: Mapping[str, Any], name: str) -> Tensors:
        file = Where(*member["contents"][name]).file
        if file not in self._tensors:
            by_key: dict[str, dict[str, NDArray[np.generic]]] = {}
            for tensor, values in read_tensors(self._file(file)).items():
                key, _, own = tensor.partition("/")
                by_key.setdefault(key, {})[own] = values
            self._tensors[file] = by_key
        return self._tensors[file][member["key"]]

    def _file(self, name: str) -> Path:
        if problem := damage(self.folder, {name: self._files[name]}, with_digests=True):
            raise self.error(problem)
        return self.folder / name


class _Rows:
    """Reads rows of a table whose members are asked for one after the other, mostly.

    The last two row groups stay in memory: a member may lie in two.
    """

    def __init__(self, path: Path) -> None:
        self._file = pq.ParquetFile(path)
        counts = [
            self._file.metadata.row_group(group).num_rows
            for group in range(self._file.num_row_groups)
        ]
        self._ends = np.cumsum(counts)
        self._groups: dict[int, pa.Table] = {}

    def read(self, start: int, rows: int) -> pa.Table:
        """So many rows from ``start`` on, without the column ``key``."""
        first = int(np.searchsorted(self._ends, start, "right"))
        last = int(np.searchsorted(self._ends, start + rows, "left"))
        groups = range(min(first, len(self._ends) - 1), min(last, len(self._ends) - 1) + 1)
        if not groups:
            return pa.Table.from_batches([], self._file.schema_arrow).drop(["key"])
        begin = int(self._ends[groups[0] - 1]) if groups[0] else 0
        tables = [self._group(group) for group in groups]
        return pa.concat_tables(tables).slice(start - begin, rows)

    def _group(self, group: int) -> pa.Table:
        if group not in self._groups:
            while len(self._groups) > 1:
                del self._groups[next(iter(self._groups))]
            read = self._file.read_row_group(group, use_threads=False)
            self._groups[group] = read.drop(["key"])
        return self._groups[group]
