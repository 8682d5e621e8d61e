"""The results table: one row a cell, rebuilt from the store alone.

`studies/<study>.json` keeps which cells a study has and which steps answer each; every number comes
from the records of those steps. The table can be deleted at any time and comes back the same, row
for row and byte for byte (with one version of pyarrow).
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pyarrow as pa
from pyarrow import parquet

from w2s_ray.store.artifacts import Store
from w2s_ray.store.canonical import canonical_json
from w2s_ray.store.columns import AXES, MODEL_ROLES, RESULTS, RESULTS_SCHEMA_VERSION, schema

CELLS_SCHEMA = 1
_SORTED_BY = (*(column.name for column in AXES), "key")
_NOT_NEEDED = ("student", "student_evaluate", "ceiling", "ceiling_evaluate")

Cell = Mapping[str, Any]


def replaced_cells(store: Store, study: str, cells: Iterable[Cell]) -> int:
    """How many saved cells of this study's name would leave its tables, if all of them would.

    A grid may grow, shrink or move; but where no cell stays, either all settings have changed or
    another spec has the same name, and somebody may miss the tables that are replaced. The
    artifacts stay in any case.
    """
    try:
        saved = {cell["keys"]["student"] for cell in load_cells(store, study)}
    except (OSError, ValueError, KeyError, TypeError):  # none, or damaged
        return 0
    new = {cell["keys"]["student"] for cell in cells}
    return len(saved) if saved.isdisjoint(new) else 0


def save_cells(store: Store, study: str, cells: Iterable[Cell]) -> None:
    """Keep the cells of a study: each {"cell": {axis: value}, "keys": {role: step key}}."""
    store.write_json(
        f"studies/{study}.json", {"schema": CELLS_SCHEMA, "study": study, "cells": list(cells)}
    )


def load_cells(store: Store, study: str) -> list[dict[str, Any]]:
    """The cells kept by ``save_cells``.

    Raises:
        FileNotFoundError: the store knows no such study.
    """
    cells: list[dict[str, Any]] = store.read_json(f"studies/{study}.json")["cells"]
    return cells


def saved_studies(store: Store) -> list[str]:
    """Names of the studies whose cells the store keeps, sorted."""
    return [name.removesuffix(".json") for name in store.listing("studies")]


def results_table(store: Store, cells: Sequence[Cell]) -> pa.Table:
    """One row a cell, in the columns of ``columns.RESULTS``, sorted by axes and key."""
    used = ("student", "prepare", "label", *(f"{role}_evaluate" for role in MODEL_ROLES))
    records = store.records(cell["keys"][role] for role in used for cell in cells)
    failures = store.failures()
    rows = [_row(cell["cell"], cell["keys"], records, failures) for cell in cells]
    rows.sort(key=lambda row: [(row[name] is not None, row[name]) for name in _SORTED_BY])
    table_schema = schema(RESULTS, schema_version=str(RESULTS_SCHEMA_VERSION))
    return pa.Table.from_pylist(rows, table_schema)


def write_results(store: Store, study: str, cells: Sequence[Cell]) -> tuple[pa.Table, str]:
    """Write ``results/<study>.parquet``, whole or not at all.

    Returns:
        The table, and the path or URI of the file.
    """
    table = results_table(store, cells)
    name = f"results/{study}.parquet"
    with store.writing(name) as path:
        parquet.write_table(table, path, compression="zstd")
    return table, store.location(name)


def read_results(store: Store, study: str) -> pa.Table:
    """The table last written.

    Raises:
        FileNotFoundError: none was.
    """
    with store.open_file(f"results/{study}.parquet") as file:
        return parquet.ParquetFile(file).read()


def _row(
    cell: Mapping[str, Any],
    keys: Mapping[str, str],
    records: Mapping[str, Mapping[str, Any]],
    failures: Mapping[str, Mapping[str, Any]],
) -> dict[str, Any]:
    def metrics(role: str) -> Mapping[str, Any]:
        found: Mapping[str, Any] = records.get(keys[role], {}).get("metrics", {})
        return found

    status, error = _status(keys, records, failures)
    row: dict[str, Any] = {axis.name: cell.get(axis.name) for axis in AXES}
    row["loss_parameters"] = canonical_json(dict(cell.get("loss_parameters") or {}))
    row.update(key=keys["student"], status=status, error=error)
    for role in MODEL_ROLES:
        for score in ("accuracy", "auroc", "cross_entropy", "calibration_error"):
            row[f"{role}_{score}"] = metrics(f"{role}_evaluate").get(score)
    student, compared = metrics("student"), metrics("student_evaluate")
    for name in ("seconds", "tokens", "tokens_per_second", "peak_memory_bytes", "steps"):
        row[name] = student.get(name)
    record = records.get(keys["student"], {})
    code, execution = record.get("provenance", {}).get("code", {}), record.get("execution", {})
    row.update(
        test_rows=compared.get("rows"),
        shorter_answer_accuracy=metrics("prepare").get("report", {}).get("shorter_answer_accuracy"),
        pgr=_pgr(row["weak_accuracy"], row["student_accuracy"], row["ceiling_accuracy"]),
        gain=_difference(row["weak_cross_entropy"], row["student_cross_entropy"]),
        misfit_forward=compared.get("misfit_forward"),
        misfit_reverse=compared.get("misfit_reverse"),
        agreement=compared.get("agreement_with_weak"),
        weak_label_accuracy=metrics("label").get("accuracy"),
        weak_confidence=metrics("label").get("mean_confidence"),
        predicted_memory_bytes=execution.get("predicted_memory_bytes"),
        workers=student.get("workers"),
        final_loss=student.get("final_loss"),
        weak_key=keys["weak"],
        ceiling_key=keys["ceiling"],
        label_key=keys["label"],
        prepare_key=keys["prepare"],
        code_commit=code.get("commit"),
        code_dirty=code.get("dirty"),
        code_digest=code.get("digest"),
        schema_version=RESULTS_SCHEMA_VERSION,
    )
    return row


def _status(
    keys: Mapping[str, str],
    records: Mapping[str, Any],
    failures: Mapping[str, Mapping[str, Any]],
) -> tuple[str, str | None]:
    def failed(roles: Iterable[str]) -> str | None:
        """The first failure among the steps, named by role and key unless it is the cell's own."""
        for role in roles:
            if note := failures.get(keys.get(role, "")):
                own = "" if role == "student" else f"{role} {keys[role]}: "
                return f"{own}{note['error']}"
        return None

    if keys["student"] in records and keys["student_evaluate"] in records:
        return "done", failed(role for role in keys if role not in ("student", "student_evaluate"))
    if error := failed(("student", "student_evaluate")):
        return "failed", error
    if error := failed(role for role in keys if role not in _NOT_NEEDED):
        return "blocked", error
    return "pending", None


def _pgr(weak: float | None, student: float | None, ceiling: float | None) -> float | None:
    """(student - weak) / (ceiling - weak), Burns et al. 2023; None if unknown or no gap."""
    if weak is None or student is None or ceiling is None or ceiling == weak:
        return None
    return (student - weak) / (ceiling - weak)


def _difference(left: float | None, right: float | None) -> float | None:
    return None if left is None or right is None else left - right
