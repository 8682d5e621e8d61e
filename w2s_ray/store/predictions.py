"""The predictions table: one row for each test example and model, for whoever wants to recompute.

Intervals, McNemar tests and calibration curves need the single predictions, not their means. A
model that many cells share (weak, ceiling) is there once. Models are written one after the other,
each as one row group, so memory does not grow with the study, and a reader that filters by ``key``
touches only that model's rows.
"""

import json
from collections.abc import Iterable, Mapping
from io import BytesIO
from typing import Any

import pyarrow as pa
from pyarrow import parquet

from w2s_ray.store.artifacts import Store
from w2s_ray.store.canonical import canonical_json, digest
from w2s_ray.store.columns import (
    MODEL_ROLES,
    PREDICTIONS,
    PREDICTIONS_SCHEMA_VERSION,
    schema,
)

TEST_FILE = "test.parquet"


def write_predictions(store: Store, study: str, cells: Iterable[Mapping[str, Any]]) -> str:
    """Write ``predictions/<study>.parquet`` from the finished models of the cells.

    Each model's artifact holds ``test.parquet`` with columns row_id, label and probs. Models come
    in the order weak, student, ceiling, then by key; rows in the order of the artifact. A table
    that was made of exactly these artifacts already is left alone.

    Returns:
        The path or URI of the file.

    Raises:
        FileNotFoundError: an artifact has no ``test.parquet``.
        StoreError: an artifact's ``test.parquet`` is damaged.
    """
    wanted = {(role, cell["keys"][role]) for cell in cells for role in MODEL_ROLES}
    records = store.records(key for _, key in wanted)
    models = sorted(
        ([role, key] for role, key in wanted if key in records),
        key=lambda model: (MODEL_ROLES.index(model[0]), model[1]),
    )
    made_of = [digest(records[key]) for _, key in models]
    name = f"predictions/{study}.parquet"
    if _written(store, study) == (models, made_of):
        return store.location(name)
    table_schema = schema(
        PREDICTIONS,
        schema_version=str(PREDICTIONS_SCHEMA_VERSION),
        models=canonical_json(models),
        made_of=canonical_json(made_of),
    )
    with (
        store.writing(name) as path,
        parquet.ParquetWriter(
            # Dictionaries of what differs from row to row cost time and space.
            path,
            table_schema,
            compression="zstd",
            use_dictionary=["key", "model_role"],
        ) as writer,
    ):
        contents = store.contents((key for _, key in models), TEST_FILE)
        for (role, key), content in zip(models, contents, strict=True):
            test = parquet.ParquetFile(BytesIO(content)).read(use_threads=False)
            table = _predictions(role, key, test, table_schema)
            writer.write_table(table, row_group_size=max(1, table.num_rows))
    return store.location(name)


def models_written(store: Store, study: str) -> list[list[str]] | None:
    """[role, key] of each model in the table, which is the order of its row groups; None if none.

    A table of another schema version, or a damaged one, counts as none.
    """
    written = _written(store, study)
    return None if written is None else written[0]


def _written(store: Store, study: str) -> tuple[list[list[str]], list[str]] | None:
    """The models in the table, and the digests of the records of the artifacts it was made of."""
    try:
        with store.open_file(f"predictions/{study}.parquet") as file:
            metadata = parquet.read_schema(file).metadata or {}
        if metadata.get(b"schema_version") != str(PREDICTIONS_SCHEMA_VERSION).encode():
            return None
        return json.loads(metadata[b"models"]), json.loads(metadata[b"made_of"])
    except (OSError, ValueError, KeyError):  # not there, cut off, or of an older version
        return None


def _predictions(role: str, key: str, test: pa.Table, table_schema: pa.Schema) -> pa.Table:
    """One model's rows; probs of K classes per row."""
    probs = test["probs"].combine_chunks().cast(pa.list_(pa.float64()))
    flat = probs.flatten()
    classes = len(flat) // max(1, len(probs))
    prob = flat[1::2] if classes == 2 else pa.nulls(len(probs), pa.float64())
    return pa.Table.from_arrays(
        [
            pa.repeat(key, len(probs)),
            pa.repeat(role, len(probs)),
            test["row_id"].cast(pa.string()),
            test["label"].cast(pa.int64()),
            prob,
            probs,
        ],
        schema=table_schema,
    )
