"""Tables with the rows of many models, one model after the other, each as one row group.

Memory does not grow with the study, and a reader that filters by ``key`` reads only that model's
rows. A table says in its metadata what it was made from, and is written again only if that changes.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any, NamedTuple

import pyarrow as pa
from pyarrow import parquet

from w2s_ray.store.artifacts import Store
from w2s_ray.store.canonical import canonical_json, digest
from w2s_ray.store.column import Column
from w2s_ray.store.columns import schema
from w2s_ray.store.tables import is_changed, writing_table


class Source(NamedTuple):
    """One model of a table.

    Attributes:
        role, key: of the step that has the rows.
        file: of that step's artifact.
        record_digest: of its record: a step that was made anew may have other rows.
    """

    role: str
    key: str
    file: str
    record_digest: str

    @classmethod
    def of(cls, role: str, key: str, file: str, record: Mapping[str, Any]) -> "Source":
        return cls(role, key, file, record.get("digest") or digest(record))


MakeRows = Callable[[Source, pa.Table], Sequence[pa.Array]]


class ModelTable(NamedTuple):
    """A table with rows of many models.

    Attributes:
        path: below the root of the store.
        columns: what it has.
        version: of its schema.
        repeated: columns whose values repeat; of the others a dictionary would cost time and space.
    """

    path: str
    columns: tuple[Column, ...]
    version: int
    repeated: tuple[str, ...]

    def update(self, store: Store, sources: Sequence[Source], rows: Callable[[], MakeRows]) -> str:
        """Writes the table atomically, unless it was made from exactly these sources.

        Args:
            sources: in the order of their row groups.
            rows: gives a function from a source and its file to its columns; called if needed.

        Returns:
            The path or URI of the file.
        """
        made_of = [source.record_digest for source in sources]
        if self._made_of(store) != (_models(sources), made_of):
            self._write(store, sources, rows())
        return store.location(self.path)

    def models(self, store: Store) -> list[list[str]] | None:
        """[role, key] of each model in the table, in the order of its row groups.

        None if there is no table, or one of another schema version or other columns, or one that
        was changed since it was written.
        """
        made_of = self._made_of(store)
        return None if made_of is None else made_of[0]

    def _made_of(self, store: Store) -> tuple[list[list[str]], list[str]] | None:
        """Models and digests of records that the existing table was made of."""
        try:
            with store.open_file(self.path) as file:
                existing = parquet.read_schema(file)
            metadata = existing.metadata or {}
            if existing.names != [column.name for column in self.columns]:
                return None
            if metadata.get(b"schema_version") != str(self.version).encode():
                return None
            if is_changed(store, self.path):
                return None
            return json.loads(metadata[b"models"]), json.loads(metadata[b"made_of"])
        except (OSError, ValueError, KeyError):  # missing, truncated, or of an older version
            return None

    def _write(self, store: Store, sources: Sequence[Source], rows: MakeRows) -> None:
        table_schema = schema(
            self.columns,
            schema_version=str(self.version),
            models=canonical_json(_models(sources)),
            made_of=canonical_json([source.record_digest for source in sources]),
        )
        with (
            writing_table(store, self.path) as path,
            parquet.ParquetWriter(
                path,
                table_schema,
                compression="zstd",
                use_dictionary=list(self.repeated),
                write_statistics=["key"],
            ) as writer,
        ):
            for source, file in _tables(store, sources):
                table = pa.Table.from_arrays(list(rows(source, file)), schema=table_schema)
                writer.write_table(table, row_group_size=max(1, table.num_rows))


def _models(sources: Sequence[Source]) -> list[list[str]]:
    return [[source.role, source.key] for source in sources]


def _tables(store: Store, sources: Sequence[Source]) -> Iterator[tuple[Source, pa.Table]]:
    """Each source with its table, a few at a time."""
    for name, group in groupby(sources, lambda source: source.file):
        same_file = list(group)
        tables = store.tables((source.key for source in same_file), name)
        yield from zip(same_file, tables, strict=True)
