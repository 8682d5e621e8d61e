"""The predictions table: one row per model and test example, for analyses that need single rows.

Confidence intervals, McNemar tests and calibration curves need the single predictions, not their
means. A model shared by many cells (weak, ceiling) is there once, as one row group
(``model_tables``).
"""

from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import Any

import pyarrow as pa

from w2s_ray.store.artifacts import Store
from w2s_ray.store.canonical import digest
from w2s_ray.store.clusters import Clusters, data_of_models
from w2s_ray.store.columns import MODEL_ROLES, PREDICTIONS, PREDICTIONS_SCHEMA_VERSION
from w2s_ray.store.model_tables import MakeRows, ModelTable, Source
from w2s_ray.store.names import STEP_LOGITS, TEST_PREDICTIONS, predictions_file
from w2s_ray.store.step_logits import step_probs


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
    models = {(role, cell["keys"][role]) for cell in cells for role in MODEL_ROLES}
    records = store.records(key for _, key in models)
    trainings = (record["config"].get("training", {}) for record in records.values())
    curves = any(training.get("evaluations", 1) > 1 for training in trainings)
    chosen = _chosen_steps(store, cells) if curves else {}
    sources = [
        _source(role, key, records[key], chosen)
        for role, key in sorted(models, key=lambda m: (MODEL_ROLES.index(m[0]), m[1]))
        if key in records
    ]
    return _table(study).update(store, sources, partial(_rows_of, store, cells, chosen))


def models_written(store: Store, study: str) -> list[list[str]] | None:
    """[role, key] of each model in the table, in the order of its row groups.

    None if there is no table, or one of another schema version or other columns, or a damaged one.
    """
    return _table(study).models(store)


def _table(study: str) -> ModelTable:
    return ModelTable(
        predictions_file(study),
        PREDICTIONS,
        PREDICTIONS_SCHEMA_VERSION,
        ("key", "model_role", "phenomenon"),
    )


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


def _source(role: str, key: str, record: Mapping[str, Any], chosen: Mapping[str, int]) -> Source:
    """A model's rows; a model whose chosen step changes has other rows."""
    source = Source.of(role, key, TEST_PREDICTIONS, record)
    if key not in chosen:
        return source
    return source._replace(record_digest=digest([source.record_digest, chosen[key]]))


def _rows_of(
    store: Store, cells: Sequence[Mapping[str, Any]], chosen: Mapping[str, int]
) -> MakeRows:
    clusters = Clusters(store, data_of_models(cells, MODEL_ROLES))
    opened = store.artifacts(chosen)

    def rows(source: Source, test: pa.Table) -> Sequence[pa.Array]:
        if source.key in chosen:
            probs = step_probs(opened(source.key).array(STEP_LOGITS), chosen[source.key])
            offsets = pa.array(range(0, probs.size + 1, probs.shape[1]), pa.int32())
            column = pa.ListArray.from_arrays(offsets, pa.array(probs.ravel()))
            test = test.set_column(test.column_names.index("probs"), "probs", column)
        return _rows(clusters, source, test)

    return rows


def _rows(clusters: Clusters, source: Source, test: pa.Table) -> Sequence[pa.Array]:
    """One model's columns; ``probs`` has K classes per row."""
    probs = test["probs"].combine_chunks().cast(pa.list_(pa.float64()))
    flat = probs.flatten()
    classes = len(flat) // max(1, len(probs))
    row_ids = test["row_id"].cast(pa.string())
    matched = clusters.of(source.key, row_ids)
    return [
        pa.repeat(source.key, len(probs)),
        pa.repeat(source.role, len(probs)),
        row_ids,
        test["label"].cast(pa.int64()),
        flat[1::2] if classes == 2 else pa.nulls(len(probs), pa.float64()),
        probs,
        matched.prompt_id,
        matched.phenomenon,
    ]
