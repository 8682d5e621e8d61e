"""Predictions of the rows that students learned from: one row per model and training example.

What a student makes of the labels it saw, beside weak model and ceiling: theory speaks of these
rows, and so do the shares of noisy labels that are restored or memorised. A student has the rows
that it learned from, weak model and ceiling all rows of the split. Models without such predictions
(trained with ``execution.train_predictions: false``, or before there were any) are left out.
"""

from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import Any

import pyarrow as pa

from w2s_ray.half_logits import as_lists, of_probabilities
from w2s_ray.store.artifacts import Store
from w2s_ray.store.clusters import Clusters, data_of_models
from w2s_ray.store.columns import MODEL_ROLES
from w2s_ray.store.model_tables import MakeRows, ModelTable, Source
from w2s_ray.store.names import (
    PREPARED_WEAK,
    SOFT_LABELS,
    TRAINED_ROWS,
    train_predictions_file,
)
from w2s_ray.store.records import holds
from w2s_ray.store.train_columns import TRAIN_PREDICTIONS, TRAIN_PREDICTIONS_SCHEMA_VERSION

_STEPS = {"weak": "label", "student": "student", "ceiling": "ceiling"}
"""The step of a cell whose artifact has the predictions, by the role of the model."""


def write_train_predictions(store: Store, study: str, cells: Iterable[Mapping[str, Any]]) -> str:
    """Write ``train_predictions/<study>.parquet`` from the finished models of the cells.

    Models are sorted by role (weak, student, ceiling), then by key. A table that was made from
    exactly these artifacts is not written again.

    Returns:
        The path or URI of the file.

    Raises:
        StoreError: A file of an artifact is damaged.
    """
    cells = list(cells)
    models = {(role, cell["keys"][step]) for cell in cells for role, step in _STEPS.items()}
    records = store.records(key for _, key in models)
    sources = []
    for role, key in sorted(models, key=lambda m: (MODEL_ROLES.index(m[0]), m[1])):
        file = SOFT_LABELS if role == "weak" else TRAINED_ROWS
        if key in records and holds(records[key], file):
            sources.append(Source.of(role, key, file, records[key]))
    table = ModelTable(
        train_predictions_file(study),
        TRAIN_PREDICTIONS,
        TRAIN_PREDICTIONS_SCHEMA_VERSION,
        ("key", "model_role", "noisy", "phenomenon"),
    )
    return table.update(store, sources, partial(_rows_of, store, cells))


def _rows_of(store: Store, cells: Sequence[Mapping[str, Any]]) -> MakeRows:
    data_of = data_of_models(cells, tuple(_STEPS.values()))
    return partial(_rows, Clusters(store, data_of, PREPARED_WEAK))


def _rows(clusters: Clusters, source: Source, file: pa.Table) -> Sequence[pa.Array]:
    """One model's columns."""
    rows = file.num_rows
    row_ids = file["row_id"].cast(pa.string())
    matched = clusters.of(source.key, row_ids)
    if source.role == "weak":
        flat = file["probs"].combine_chunks().flatten().to_numpy(zero_copy_only=False)
        logits = as_lists(of_probabilities(flat.reshape(rows, -1))) if rows else None
    else:
        logits = file["logits"].combine_chunks()
    has_labels = "soft_label" in file.column_names
    soft_labels = pa.list_(pa.float32())
    return [
        pa.repeat(source.key, rows),
        pa.repeat(source.role, rows),
        row_ids,
        matched.label,
        pa.array([], pa.list_(pa.float16())) if logits is None else logits,
        file["soft_label"].combine_chunks() if has_labels else pa.nulls(rows, soft_labels),
        file["noisy"].combine_chunks() if has_labels else pa.nulls(rows, pa.bool_()),
        matched.prompt_id,
        matched.phenomenon,
    ]
