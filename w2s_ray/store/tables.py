"""Files of tables, each with its digest beside it in the format of ``sha256sum``.

``results/hh.parquet`` has ``results/.hh.parquet.sha256``, which readers of the folder do not see. A
table that was edited, or has decayed, is written again from the artifacts and never believed.
"""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from hashlib import file_digest
from pathlib import Path
from typing import Any

from pyarrow import parquet

from w2s_ray.errors import InputError
from w2s_ray.store.artifacts import Store
from w2s_ray.store.canonical import digest
from w2s_ray.store.file_digests import digest_of


@contextmanager
def writing_table(store: Store, path: str) -> Iterator[Path]:
    """As ``Store.writing``, with a digest."""
    store.remove(_digest_file(path))  # a table without one is not judged
    with store.writing(path) as target:
        yield target
        line = f"{digest_of(target)}  {path.rpartition('/')[2]}\n"
    store.backend.write(_digest_file(path), line.encode())


def remove_table(store: Store, path: str) -> None:
    """Remove a table, if it exists, and its digest."""
    store.remove(path)
    store.remove(_digest_file(path))


def digest_in(store: Store, path: str) -> str | None:
    """The digest that is beside a table; None if there is none."""
    (content,) = store.backend.read([_digest_file(path)])
    return None if content is None else content.partition(b" ")[0].decode("ascii", "replace")


def is_changed(store: Store, path: str) -> bool:
    """Whether a table is another than was written; False if it has no digest to compare.

    Raises:
        FileNotFoundError: There is no such table.
    """
    expected = digest_in(store, path)
    with store.open_file(path) as file:
        return expected is not None and file_digest(file, "sha256").hexdigest() != expected


@contextmanager
def reading_table(store: Store, path: str) -> Iterator[parquet.ParquetFile]:
    """A table that is what was written.

    Raises:
        FileNotFoundError: There is no such table.
        InputError: It was changed since.
    """
    if is_changed(store, path):
        raise InputError(
            f"{store.location(path)} was changed after it was written; run the study again, which "
            "writes it anew without computing"
        )
    with store.open_file(path) as file:
        yield parquet.ParquetFile(file)


def made_of(records: Mapping[str, Mapping[str, Any]], keys: Iterable[str]) -> str:
    """The digest of the records of these steps, as far as they are finished."""
    read = {key: records[key] for key in keys if key in records}
    return digest({key: record.get("digest") or digest(record) for key, record in read.items()})


def _digest_file(path: str) -> str:
    folder, _, name = path.rpartition("/")
    return f"{folder}/.{name}.sha256"
