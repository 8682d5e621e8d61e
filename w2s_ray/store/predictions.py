"""The predictions table: one row per model and test example, for analyses that need single rows.

Confidence intervals, McNemar tests and calibration curves need the single predictions, not their
means. A model shared by many cells (weak, ceiling) is there once. Models are written one after the
other, each as one row group, so memory does not grow with the study, and a reader that filters by
``key`` reads only that model's rows.
"""

import json
from collections.abc import Iterable, Mapping
from io import BytesIO
from typing import Any, NamedTuple

import pyarrow as pa
from pyarrow import parquet

from w2s_ray.store.artifacts import Store
from w2s_ray.store.canonical import canonical_json, digest
from w2s_ray.store.clusters import Clusters, data_of_models
from w2s_ray.store.columns import (
    MODEL_ROLES,
    PREDICTIONS,
    PREDICTIONS_SCHEMA_VERSION,
    schema,
)
from w2s_ray.store.names import TEST_PREDICTIONS, predictions_file


class _Sources(NamedTuple):
    """What a table was made from."""

    models: list[list[str]]  # role and key of each
    record_digests: list[str]


def write_predictions(store: Store, study: str, cells: Iterable[Mapping[str, Any]]) -> str:
    """Write ``predictions/<study>.parquet`` from the finished models of the cells.

    Each model's artifact holds ``test.parquet`` with columns row_id, label and probs. Models are
    sorted by role (weak, student, ceiling), then by key; rows are in the order of the artifact. A
    table that was made from exactly these artifacts is not written again.

    Returns:
        The path or URI of the file.

    Raises:
        FileNotFoundError: An artifact has no ``test.parquet``.
        StoreError: An artifact's ``test.parquet`` is damaged.
    """
    cells = list(cells)
    models_of_cells = {(role, cell["keys"][role]) for cell in cells for role in MODEL_ROLES}
    records = store.records(key for _, key in models_of_cells)
    models = sorted(
        ([role, key] for role, key in models_of_cells if key in records),
        key=lambda model: (MODEL_ROLES.index(model[0]), model[1]),
    )
    sources = _Sources(models, [digest(records[key]) for _, key in models])
    if _written_from(store, study) != sources:
        clusters = Clusters(store, data_of_models(cells, MODEL_ROLES))
        _write(store, study, sources, clusters)
    return store.location(predictions_file(study))


def models_written(store: Store, study: str) -> list[list[str]] | None:
    """[role, key] of each model in the table, in the order of its row groups.

    None if there is no table, or one of another schema version or other columns, or a damaged one.
    """
    sources = _written_from(store, study)
    return None if sources is None else sources.models


def _written_from(store: Store, study: str) -> _Sources | None:
    """What the existing table was made from; None as in ``models_written``."""
    try:
        with store.open_file(predictions_file(study)) as file:
            found = parquet.read_schema(file)
        metadata = found.metadata or {}
        if found.names != [column.name for column in PREDICTIONS]:
            return None
        if metadata.get(b"schema_version") != str(PREDICTIONS_SCHEMA_VERSION).encode():
            return None
        return _Sources(json.loads(metadata[b"models"]), json.loads(metadata[b"made_of"]))
    except (OSError, ValueError, KeyError):  # missing, truncated, or of an older version
        return None


def _write(store: Store, study: str, sources: _Sources, clusters: Clusters) -> None:
    table_schema = schema(
        PREDICTIONS,
        schema_version=str(PREDICTIONS_SCHEMA_VERSION),
        models=canonical_json(sources.models),
        made_of=canonical_json(sources.record_digests),
    )
    with (
        store.writing(predictions_file(study)) as path,
        parquet.ParquetWriter(
            path,
            table_schema,
            compression="zstd",
            # Other columns differ from row to row: dictionaries would cost time and space.
            use_dictionary=["key", "model_role", "phenomenon"],
        ) as writer,
    ):
        contents = store.contents((key for _, key in sources.models), TEST_PREDICTIONS)
        for (role, key), content in zip(sources.models, contents, strict=True):
            test = parquet.ParquetFile(BytesIO(content)).read(use_threads=False)
            ids = clusters.of(key, test["row_id"].cast(pa.string()))
            table = _predictions(role, key, test, ids, table_schema)
            writer.write_table(table, row_group_size=max(1, table.num_rows))


def _predictions(
    role: str,
    key: str,
    test: pa.Table,
    clusters: tuple[pa.Array, pa.Array],
    table_schema: pa.Schema,
) -> pa.Table:
    """One model's rows; ``probs`` has K classes per row."""
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
            *clusters,
        ],
        schema=table_schema,
    )
