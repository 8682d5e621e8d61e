"""The results table: one row per cell, made from the store alone.

``studies/<study>.json`` lists the cells of a study and the keys of their steps; every number comes
from the records of those steps. The table can be deleted at any time and is rebuilt the same, row
for row and byte for byte (with one version of pyarrow).
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from statistics import fmean
from typing import Any, NamedTuple

import pyarrow as pa
from pyarrow import parquet

from w2s_ray.store.artifacts import Store
from w2s_ray.store.axis_columns import AXES
from w2s_ray.store.canonical import canonical_json
from w2s_ray.store.chosen_cells import choose, scores_of
from w2s_ray.store.columns import (
    MODEL_ROLES,
    RESULTS,
    RESULTS_SCHEMA_VERSION,
    SCORES,
    schema,
)
from w2s_ray.store.names import STUDIES, results_file, study_file
from w2s_ray.store.tables import made_of, writing_table

CELLS_SCHEMA = 1
SOFT_LABELS_TASK = "soft_labels"
SORTED_BY = (*(column.name for column in AXES), "key")
OWN_STEPS = ("student", "student_evaluate")  # of a cell; it may share all others
_SCORED = ("weak", "student")
_STUDENT_NEEDS = ("prepare", "features", "weak_features", "weak", "label")
# Columns with the name of a metric of the student's evaluation.
OF_EVALUATION = (
    "misfit_forward",
    "misfit_reverse",
    "error_inheritance",
    "error_correction",
    "new_errors",
    "blind_spots",
    "error_phi",
    "error_kappa",
)
_UPSTREAM = ("member_", "link_")  # begin the roles of an ensemble's models and a chain's students
# Columns with the name of a metric of the student's step.
_OF_STUDENT = (
    "seconds",
    "tokens",
    "tokens_per_second",
    "peak_memory_bytes",
    "workers",
    "steps",
    "parameters",
    "trained_parameters",
    "flops",
    "final_loss",
    "converged",
    "flipped_rows",
    "flipped_restored",
    "flipped_memorised",
    "trained_rows",
    "relabelled_rows",
    "learned_label_accuracy",
    "learned_label_confidence",
)

Cell = Mapping[str, Any]
Records = Mapping[str, Mapping[str, Any]]
"""Records by key."""
Select = Mapping[str, Any]
"""The section ``select`` of a spec: {"over": [names], "by": rule}."""


def replaced_cells(store: Store, study: str, cells: Iterable[Cell]) -> int:
    """The number of saved cells of the study, if ``cells`` would replace all of them; else 0.

    A grid may grow, shrink or move. But if no cell remains, either all settings have changed or
    another spec has the same name, and the user may not want its tables replaced. The artifacts are
    kept in any case.
    """
    try:
        saved = {cell["keys"]["student"] for cell in load_cells(store, study)}
    except (OSError, ValueError, KeyError, TypeError):  # missing or damaged
        return 0
    new = {cell["keys"]["student"] for cell in cells}
    return len(saved) if saved.isdisjoint(new) else 0


def save_cells(
    store: Store,
    study: str,
    cells: Iterable[Cell],
    select: Select | None = None,
    task: str = SOFT_LABELS_TASK,
) -> None:
    """Store the cells of a study: each {"cell": {axis: value}, "keys": {role: step key}}.

    Args:
        select: the section ``select`` of the spec; None: there is none.
        task: of the spec.
    """
    chosen = {} if select is None else {"select": dict(select)}
    of_task = {} if task == SOFT_LABELS_TASK else {"task": task}
    head = {"schema": CELLS_SCHEMA, "study": study, **of_task, **chosen}
    store.write_json(study_file(study), {**head, "cells": list(cells)})


def load_cells(store: Store, study: str) -> list[dict[str, Any]]:
    """The cells stored by ``save_cells``.

    Raises:
        FileNotFoundError: The store has no such study.
    """
    cells: list[dict[str, Any]] = store.read_json(study_file(study))["cells"]
    return cells


def load_task(store: Store, study: str) -> str:
    """The task stored by ``save_cells``.

    Raises:
        FileNotFoundError: The store has no such study.
    """
    return str(store.read_json(study_file(study)).get("task", SOFT_LABELS_TASK))


def load_select(store: Store, study: str) -> dict[str, Any] | None:
    """The section ``select`` stored by ``save_cells``; None if there was none.

    Raises:
        FileNotFoundError: The store has no such study.
    """
    select: dict[str, Any] | None = store.read_json(study_file(study)).get("select")
    return select


def saved_studies(store: Store) -> list[str]:
    """Names of the studies whose cells are in the store, sorted."""
    return [name.removesuffix(".json") for name in store.listing(STUDIES)]


def results_table(
    store: Store,
    cells: Sequence[Cell],
    select: Select | None = None,
    records: Records | None = None,
) -> pa.Table:
    """One row per cell, in the columns of ``columns.RESULTS``, sorted by axes and key.

    Args:
        select: as for ``save_cells``.
        records: of all steps of the cells that are finished; None: they are read.
    """
    if records is None:
        records = store.records(_keys_read(cells))
    rows = result_rows(store, cells, select, records)
    rows.sort(key=lambda row: [(row[name] is not None, row[name]) for name in SORTED_BY])
    table_schema = schema(
        RESULTS,
        schema_version=str(RESULTS_SCHEMA_VERSION),
        made_of=made_of(records, _keys_read(cells)),
    )
    return pa.Table.from_pylist(rows, table_schema)


def result_rows(
    store: Store,
    cells: Sequence[Cell],
    select: Select | None = None,
    records: Records | None = None,
) -> list[dict[str, Any]]:
    """The rows of ``results_table``, in the order of the cells; arguments as there."""
    if records is None:
        records = store.records(_keys_read(cells))
    failures = store.failures()
    rows = [
        _row(cell["cell"], cell["keys"], records, failures) | _ood_means(cell, records)
        for cell in cells
    ]
    if select is not None:
        choose(rows, [cell["cell"] for cell in cells], select)
    for row in rows:
        scores = (row[f"{role}_accuracy"] for role in ("weak", "student", "ceiling"))
        row["pgr"] = recovered(*scores)
    return rows


def _keys_read(cells: Sequence[Cell]) -> list[str]:
    """The steps whose records hold what a row says."""
    evaluated = (*(f"{role}_evaluate" for role in MODEL_ROLES), "ceiling_against_weak")
    used = ("student", "prepare", "label", *evaluated)
    keys = [cell["keys"][role] for role in used for cell in cells]
    return keys + [key for cell in cells for key in _transfer_keys(cell)]


def write_results(
    store: Store,
    study: str,
    cells: Sequence[Cell],
    select: Select | None = None,
    *,
    unfinished: bool = False,
) -> tuple[pa.Table, str]:
    """Write ``results/<study>.parquet`` atomically.

    Args:
        select: as for ``save_cells``.
        unfinished: whether more is to come; the table's metadata then say so.

    Returns:
        The table, and the path or URI of the file.
    """
    table = results_table(store, cells, select)
    if unfinished:
        table = marked_unfinished(table)
    with writing_table(store, results_file(study)) as path:
        parquet.write_table(table, path, compression="zstd")
    return table, store.location(results_file(study))


def marked_unfinished(table: pa.Table) -> pa.Table:
    """The table with ``unfinished`` in its metadata."""
    return table.replace_schema_metadata({**table.schema.metadata, b"unfinished": b"true"})


def read_results(store: Store, study: str) -> pa.Table:
    """The table that was last written.

    Raises:
        FileNotFoundError: There is none.
    """
    with store.open_file(results_file(study)) as file:
        return parquet.ParquetFile(file).read()


def _row(
    cell: Mapping[str, Any],
    keys: Mapping[str, str],
    records: Mapping[str, Mapping[str, Any]],
    failures: Mapping[str, Mapping[str, Any]],
) -> dict[str, Any]:
    metrics = {role: records.get(key, {}).get("metrics", {}) for role, key in keys.items()}
    student, evaluated = metrics["student"], metrics["student_evaluate"]
    record = records.get(keys["student"], {})
    execution, code = record.get("execution", {}), record.get("provenance", {}).get("code", {})
    status, error = cell_status(keys, records, failures)
    row: dict[str, Any] = {axis.name: cell.get(axis.name) for axis in AXES}
    row["loss_parameters"] = canonical_json(dict(cell.get("loss_parameters") or {}))
    for role in MODEL_ROLES:
        for score in SCORES:
            row[f"{role}_{score.name}"] = metrics[f"{role}_evaluate"].get(score.name)
    for name in _OF_STUDENT:
        row[name] = student.get(name)
    for name in OF_EVALUATION:
        row[name] = evaluated.get(name)
    for name in ("error_phi", "error_kappa"):
        row[f"ceiling_{name}"] = metrics["ceiling_against_weak"].get(name)
    deciles = evaluated.get("by_weak_confidence")
    report = metrics["prepare"].get("report", {})
    names = report.get("classes")
    ceiling = metrics["ceiling_evaluate"]
    row |= scores_of(evaluated)
    row.update(
        ceiling_learning_rate=cell.get("learning_rate") if ceiling else None,
        ceiling_epochs=cell.get("epochs") if ceiling else None,
        ceiling_step=ceiling.get("step"),
        ceiling_scores=ceiling.get("validation"),
        evaluated_steps=evaluated.get("evaluated_steps"),
        key=keys["student"],
        status=status,
        error=error,
        test_rows=evaluated.get("rows"),
        classes=json.dumps(names, ensure_ascii=False) if names else None,
        shorter_answer_accuracy=report.get("shorter_answer_accuracy"),
        gain=difference(row["weak_cross_entropy"], row["student_cross_entropy"]),
        by_weak_confidence=None if deciles is None else json.dumps(deciles),
        agreement=evaluated.get("agreement_with_weak"),
        weak_label_accuracy=metrics["label"].get("accuracy"),
        weak_confidence=metrics["label"].get("mean_confidence"),
        calibration_temperature=metrics["label"].get("calibration_temperature"),
        predicted_memory_bytes=execution.get("predicted_memory_bytes"),
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


def _transfer_keys(cell: Cell) -> list[str]:
    """The steps with the scores of weak model and student on further test sets."""
    roles = ("weak_evaluate", "student_evaluate")
    return [keys[role] for keys in cell.get("tests", {}).values() for role in roles]


def _ood_means(cell: Cell, records: Mapping[str, Mapping[str, Any]]) -> dict[str, float | None]:
    """Means over the further test sets; null without any, or if one has no scores."""
    tests = cell.get("tests", {}).values()
    scores = [
        {role: records.get(keys[f"{role}_evaluate"], {}).get("metrics", {}) for role in _SCORED}
        for keys in tests
    ]
    gains = [
        difference(of["weak"].get("cross_entropy"), of["student"].get("cross_entropy"))
        for of in scores
    ]
    accuracies = [of["student"].get("accuracy") for of in scores]
    return {"ood_gain_mean": _mean(gains), "ood_accuracy_mean": _mean(accuracies)}


def _mean(values: Sequence[float | None]) -> float | None:
    present = [value for value in values if value is not None]
    return fmean(present) if present and len(present) == len(values) else None


class Status(NamedTuple):
    """One of ``columns.STATUSES``, and the error to show with it."""

    status: str
    error: str | None


def cell_status(
    keys: Mapping[str, str],
    records: Mapping[str, Any],
    failures: Mapping[str, Mapping[str, Any]],
) -> Status:
    """The status of a cell, from the keys of its own steps."""
    if all(keys[role] in records for role in OWN_STEPS):
        others = (role for role in keys if role not in OWN_STEPS)
        return Status("done", first_failure(others, keys, failures))
    if error := first_failure(OWN_STEPS, keys, failures):
        return Status("failed", error)
    upstream = (role for role in keys if role.startswith(_UPSTREAM))
    if error := first_failure((*_STUDENT_NEEDS, *upstream), keys, failures):
        return Status("blocked", error)
    return Status("pending", None)


def first_failure(
    roles: Iterable[str], keys: Mapping[str, str], failures: Mapping[str, Mapping[str, Any]]
) -> str | None:
    """The first error among the steps; with role and key, unless it is the student's own."""
    for role in roles:
        if note := failures.get(keys.get(role, "")):
            prefix = "" if role == "student" else f"{role} {keys[role]}: "
            return f"{prefix}{note['error']}"
    return None


def recovered(weak: float | None, student: float | None, ceiling: float | None) -> float | None:
    """(student - weak) / (ceiling - weak), Burns et al. 2023; None if undefined."""
    if weak is None or student is None or ceiling is None or ceiling == weak:
        return None
    return (student - weak) / (ceiling - weak)


def difference(left: float | None, right: float | None) -> float | None:
    """left - right; None if either is."""
    return None if left is None or right is None else left - right
