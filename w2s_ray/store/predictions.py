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
from w2s_ray.store.canonical import canonical_json
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
    that holds exactly these models already is left alone.

    Returns:
        The path or URI of the file.

    Raises:
        FileNotFoundError: an artifact has no ``test.parquet``.
    """
    finished = store.finished()
    wanted = {(role, cell["keys"][role]) for cell in cells for role in MODEL_ROLES}
    models = sorted(
        ([role, key] for role, key in wanted if key in finished),
        key=lambda model: (MODEL_ROLES.index(model[0]), model[1]),
    )
    name = f"predictions/{study}.parquet"
    if models_written(store, study) == models:
        return store.location(name)
    table_schema = schema(
        PREDICTIONS,
        schema_version=str(PREDICTIONS_SCHEMA_VERSION),
        models=canonical_json(models),
    )
    with (
        store.writing(name) as path,
        parquet.ParquetWriter(path, table_schema, compression="zstd") as writer,
    ):
        contents = store.contents((key for _, key in models), TEST_FILE)
        for (role, key), content in zip(models, contents, strict=True):
            table = _predictions(role, key, parquet.read_table(BytesIO(content)), table_schema)
            writer.write_table(table, row_group_size=max(1, table.num_rows))
    return store.location(name)


def models_written(store: Store, study: str) -> list[list[str]] | None:
    """[role, key] of each model in the table, which is the order of its row groups; None if none.

    A table of another schema version counts as none.
    """
    try:
        with store.open_file(f"predictions/{study}.parquet") as file:
            metadata = parquet.read_schema(file).metadata
    except FileNotFoundError:
        return None
    if metadata.get(b"schema_version") != str(PREDICTIONS_SCHEMA_VERSION).encode():
        return None
    models: list[list[str]] = json.loads(metadata[b"models"])
    return models


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
