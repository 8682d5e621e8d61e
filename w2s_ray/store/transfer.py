"""The transfer table: one row per cell and further test set, made from the store alone.

Like ``results`` it can be deleted and is rebuilt byte for byte. A study without further test sets
has none.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa
from pyarrow import parquet

from w2s_ray.store.artifacts import Store
from w2s_ray.store.axis_columns import AXES
from w2s_ray.store.canonical import canonical_json
from w2s_ray.store.columns import MODEL_ROLES, SCORES, schema
from w2s_ray.store.names import transfer_file
from w2s_ray.store.results import (
    OF_EVALUATION,
    SORTED_BY,
    Cell,
    Select,
    Status,
    cell_status,
    difference,
    first_failure,
    recovered,
    result_rows,
)
from w2s_ray.store.tables import made_of, remove_table, writing_table
from w2s_ray.store.transfer_columns import CHOSEN, TRANSFER, TRANSFER_SCHEMA_VERSION

_OWN_STEPS = ("student_predict", "student_evaluate")
_STUDENT_NEEDS = ("test_set", "features", "weak_features", "weak_predict")


def transfer_table(store: Store, cells: Sequence[Cell], select: Select | None = None) -> pa.Table:
    """The rows in the columns of ``columns.TRANSFER``, sorted by axes, key and test set.

    Args:
        select: as for ``results.save_cells``.
    """
    tested = [cell for cell in cells if cell.get("tests")]
    used = ("test_set", "student_predict", *(f"{role}_evaluate" for role in MODEL_ROLES))
    keys = [of[role] for cell in tested for of in cell["tests"].values() for role in used]
    keys += [cell["keys"][role] for cell in tested for role in ("student", "student_evaluate")]
    records, failures = store.records(keys), store.failures()
    of_ceiling = {cell["keys"]["ceiling"]: cell["tests"] for cell in tested}
    rows = []
    for cell, result in zip(tested, result_rows(store, tested, select), strict=True):
        for name in cell["tests"]:
            ceiling = of_ceiling[result["ceiling_key"]][name]["ceiling_evaluate"]
            row = _row(cell, name, ceiling, records, failures)
            rows.append(row | {column.name: result.get(column.name) for column in CHOSEN})
    names = (*SORTED_BY, "test_set")
    rows.sort(key=lambda row: [(row[name] is not None, row[name]) for name in names])
    table_schema = schema(
        TRANSFER, schema_version=str(TRANSFER_SCHEMA_VERSION), made_of=made_of(records, keys)
    )
    return pa.Table.from_pylist(rows, table_schema)


def read_transfer(store: Store, study: str) -> pa.Table:
    """The table that was last written; without rows if there is none."""
    try:
        with store.open_file(transfer_file(study)) as file:
            return parquet.ParquetFile(file).read()
    except FileNotFoundError:
        return pa.Table.from_batches([], schema(TRANSFER))  # `empty_table` imports pandas


def write_transfer(
    store: Store, study: str, cells: Sequence[Cell], select: Select | None = None
) -> tuple[pa.Table, str | None]:
    """Write ``transfer/<study>.parquet`` atomically, or remove it if no cell has further test sets.

    Args:
        select: as for ``results.save_cells``.

    Returns:
        The table, and the path or URI of the file; None if there is none.
    """
    table = transfer_table(store, cells, select)
    if not table.num_rows:
        remove_table(store, transfer_file(study))
        return table, None
    with writing_table(store, transfer_file(study)) as path:
        parquet.write_table(table, path, compression="zstd")
    return table, store.location(transfer_file(study))


def _row(
    cell: Cell,
    name: str,
    ceiling: str,
    records: Mapping[str, Mapping[str, Any]],
    failures: Mapping[str, Mapping[str, Any]],
) -> dict[str, Any]:
    """One row, but for ``CHOSEN``; ``ceiling`` is the key of the chosen ceiling's scores."""
    values, keys = cell["cell"], {**cell["tests"][name], "ceiling_evaluate": ceiling}
    metrics = {role: records.get(key, {}).get("metrics", {}) for role, key in keys.items()}
    student = metrics["student_evaluate"]
    row: dict[str, Any] = {axis.name: values.get(axis.name) for axis in AXES}
    row["loss_parameters"] = canonical_json(dict(values.get("loss_parameters") or {}))
    for role in MODEL_ROLES:
        for score in SCORES:
            row[f"{role}_{score.name}"] = metrics[f"{role}_evaluate"].get(score.name)
    status, error = _status(cell, keys, records, failures)
    report = metrics["test_set"].get("report", {})
    row.update(
        key=cell["keys"]["student"],
        test_set=name,
        status=status,
        error=error,
        test_rows=student.get("rows"),
        trained_on_rows=report.get("trained_on", {}).get("rows"),
        pgr=recovered(row["weak_accuracy"], row["student_accuracy"], row["ceiling_accuracy"]),
        gain=difference(row["weak_cross_entropy"], row["student_cross_entropy"]),
        **{name: student.get(name) for name in OF_EVALUATION},
        agreement=student.get("agreement_with_weak"),
        weak_key=cell["keys"]["weak"],
        test_set_key=keys["test_set"],
        schema_version=TRANSFER_SCHEMA_VERSION,
    )
    return row


def _status(
    cell: Cell,
    keys: Mapping[str, str],
    records: Mapping[str, Any],
    failures: Mapping[str, Mapping[str, Any]],
) -> Status:
    if all(keys[role] in records for role in _OWN_STEPS):
        others = (role for role in keys if role not in _OWN_STEPS)
        return Status("done", first_failure(others, keys, failures))
    members = (role for role in keys if role.startswith("member_"))
    if error := first_failure((*_OWN_STEPS, *_STUDENT_NEEDS, *members), keys, failures):
        return Status("failed", error)
    own = cell_status(cell["keys"], records, failures)
    return Status("pending", None) if own.status == "done" else Status("blocked", own.error)
