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
from w2s_ray.store.names import STEP_LOGITS, TEST_PREDICTIONS, predictions_file
from w2s_ray.store.step_logits import step_probs


class _Sources(NamedTuple):
    """What a table was made from."""

    models: list[list[str]]  # role and key of each
    record_digests: list[str]  # with the chosen step, where it is not the last


def write_predictions(store: Store, study: str, cells: Iterable[Mapping[str, Any]]) -> str:
    """Write ``predictions/<study>.parquet`` from the finished models of the cells.

    Each model's artifact holds ``test.parquet`` with columns row_id, label and probs. Where another
    step than the last is evaluated, the probabilities are that step's. Models are
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
    trainings = (record["config"].get("training", {}) for record in records.values())
    curves = any(training.get("evaluations", 1) > 1 for training in trainings)
    chosen = _chosen_steps(store, cells) if curves else {}
    models = sorted(
        ([role, key] for role, key in models_of_cells if key in records),
        key=lambda model: (MODEL_ROLES.index(model[0]), model[1]),
    )
    digests = [
        digest([records[key], chosen[key]] if key in chosen else records[key]) for _, key in models
    ]
    sources = _Sources(models, digests)
    if _written_from(store, study) != sources:
        clusters = Clusters(store, data_of_models(cells, MODEL_ROLES))
        _write(store, study, sources, clusters, chosen)
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


def _chosen_steps(store: Store, cells: Iterable[Mapping[str, Any]]) -> dict[str, int]:
    """Key of a model -> index of the step that its evaluation chose, where it is not the last."""
    evaluations = {
        cell["keys"][role]: cell["keys"].get(f"{role}_evaluate", "")
        for cell in cells
        for role in MODEL_ROLES
    }
    records = store.records(evaluations.values())
    chosen: dict[str, int] = {}
    for key, evaluation in evaluations.items():
        metrics = records.get(evaluation, {}).get("metrics", {})
        steps = metrics.get("evaluated_steps", [])
        if steps and metrics["step"] != steps[-1]:
            chosen[key] = steps.index(metrics["step"])
    return chosen


def _write(
    store: Store, study: str, sources: _Sources, clusters: Clusters, chosen: Mapping[str, int]
) -> None:
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
        earlier = store.contents((key for _, key in sources.models if key in chosen), STEP_LOGITS)
        for (role, key), content in zip(sources.models, contents, strict=True):
            test = parquet.ParquetFile(BytesIO(content)).read(use_threads=False)
            if key in chosen:
                probs = step_probs(BytesIO(next(earlier)), chosen[key])
                offsets = pa.array(range(0, probs.size + 1, probs.shape[1]), pa.int32())
                column = pa.ListArray.from_arrays(offsets, pa.array(probs.ravel()))
                test = test.set_column(test.column_names.index("probs"), "probs", column)
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
