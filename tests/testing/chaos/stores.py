"""What a store holds after an episode: its tables, its finished steps, what was left behind."""

import os
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import fs

from w2s_ray.store.artifacts import Store
from w2s_ray.store.bundles import member_keys
from w2s_ray.store.claims import STALE_SECONDS
from w2s_ray.store.names import (
    CHECKPOINTS,
    CLAIMS,
    DAMAGED,
    FAILURES,
    PARTS,
    RECORD,
    is_bundle,
    key_of,
)
from w2s_ray.store.records import parse_record

OF_RUN = (  # how it was computed
    "seconds",
    "tokens_per_second",
    "peak_memory_bytes",
    "code_commit",
    "code_dirty",
    "code_digest",
)
TABLES = ("results", "predictions", "train_predictions")
EMPTY = (CHECKPOINTS, DAMAGED, FAILURES, PARTS)  # after a run in which all went well

Tables = Mapping[str, pa.Table]


def tables(store: Store, study: str) -> Tables:
    """The tables of a study, without the columns of how it was run."""
    read = {}
    for name in TABLES:
        with store.open_file(f"{name}/{study}.parquet") as file:
            table = pq.read_table(pa.BufferReader(file.read()))
        read[name] = table.drop_columns([c for c in OF_RUN if c in table.column_names])
    return read


def finished_records(store: Store) -> dict[str, bytes]:
    """path -> content of the record, of all that is committed."""
    paths = sorted(store.backend.committed())
    contents = store.backend.read([f"{path}/{RECORD}" for path in paths])
    return {path: c for path, c in zip(paths, contents, strict=True) if c is not None}


def keys(path: str, record: bytes) -> list[str]:
    """The keys of the steps in a committed folder."""
    return member_keys(parse_record(record, path)) if is_bundle(path) else [key_of(path)]


def faults(store: Store, study: str, expected: Tables, before: Mapping[str, bytes]) -> list[str]:
    """What is wrong with a store after the last run of an episode; empty if nothing is.

    Args:
        expected: the tables of a run that nobody disturbed.
        before: records of what was finished at any time before that.
    """
    found = []
    for name, table in tables(store, study).items():
        lost = expected[name].num_rows - table.num_rows
        if lost or not table.equals(expected[name]):
            found.append(f"{name} differs ({lost} rows are missing)")
    after = finished_records(store)
    for path, record in before.items():
        if after.get(path) != record:
            found.append(f"{path} was finished and is not what it was")
    counts = Counter(key for path, record in after.items() for key in keys(path, record))
    found += [f"step {key} is there {n} times" for key, n in counts.items() if n > 1]
    return found


def let_unsigned_claims_expire(store: Store) -> None:
    """Lets the time pass after which a claim goes whose writer was killed before it had signed it.

    Only then is it known that nobody is just about to.
    """
    for path in (Path(store.uri) / CLAIMS).glob("*"):
        if not path.stat().st_size:
            os.utime(path, (path.stat().st_mtime - 2 * STALE_SECONDS,) * 2)


def leftovers(store: Store) -> Iterator[str]:
    """Files and folders that a store should not have when all is finished."""
    root = Path(store.uri)
    for key in store.claimed():  # files: an object store keeps the names of folders
        texts = [path.read_text() for path in (root / CLAIMS).glob(f"{key}.*")]
        yield f"{CLAIMS}/{key} {texts}"
    for folder in EMPTY:
        for name in store.listing(folder):
            yield f"{folder}/{name}"
    if root.is_dir():
        for path in root.rglob(".*"):
            if path.name.startswith((".tmp", ".probe")):
                yield path.relative_to(root).as_posix()
        return
    selector = fs.FileSelector(store.backend.root, recursive=True)  # type: ignore[attr-defined]
    for info in store.backend.filesystem.get_file_info(selector):  # type: ignore[attr-defined]
        if info.base_name.startswith((".tmp", ".probe")):
            yield info.path
