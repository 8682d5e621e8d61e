"""What theory says of a study's students, on the rows that each of them learned from.

It is made from the tables ``results`` and ``train_predictions`` alone. F* is the cell's ceiling:
for a last layer another last layer on the same features, and so in the student's class of
predictors, whatever rows and labels it was trained on. The statements speak of the risk against
that ceiling, not against the true labels (docs/theory.md).
"""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pyarrow import parquet

from w2s_ray.report.settings import Row
from w2s_ray.statistics.decomposition import group_indices
from w2s_ray.statistics.theory import (
    OUTSIDE,
    Identity,
    Outside,
    Slack,
    TrainingRows,
    forward_identity,
    gain_over_misfit,
    logit_rounding,
    reverse_slack,
)
from w2s_ray.store.artifacts import Store
from w2s_ray.store.axis_columns import AXES
from w2s_ray.store.names import train_predictions_file
from w2s_ray.store.results import read_results
from w2s_ray.store.tables import reading_table

IDENTITY, THEOREM_2 = "identity", "theorem 2"
STATEMENTS = {"forward_kl": IDENTITY, "forward_ce": IDENTITY, "reverse_kl": THEOREM_2}
"""The statement about the minimum of a loss; the minimum of forward CE is that of forward KL."""

_TEXT, _REAL, _INT = pa.string(), pa.float64(), pa.int64()
_NUMBERS = (
    "reversed_gain",
    "residual",
    "tolerance",
    "slack",
    "slack_low",
    "slack_high",
    "gain",
    "misfit_forward",
    "misfit_reverse",
    "ratio_forward",
    "ratio_reverse",
    "largest_ratio",
)
SCHEMA = pa.schema(
    [
        ("key", _TEXT),
        *((axis.name, axis.type) for axis in AXES),
        ("rows", _INT),
        ("statement", _TEXT),
        ("status", _TEXT),
        ("reason", _TEXT),
        *((name, _REAL) for name in _NUMBERS),
    ]
)


def theory_table(store: Store, study: str, results: Sequence[Row] | None = None) -> pa.Table:
    """One row per cell of ``results``, in its order.

    * ``statement`` is ``identity`` (of forward KL), ``theorem 2`` (of reverse KL) or null.
    * ``status`` is holds or fails for the identity; positive, negative or undecided, the sign of
      the slack, for Theorem 2, since a head's class is not convex; or ``outside the theorem`` with
      the ``reason``, and then no verdict.
    * ``reversed_gain`` is L(w, F*) − L(s, F*), ``residual`` by how much it differs from L(w, s),
      and ``tolerance`` what solver and float16 logits explain. Null outside of the identity.
    * ``slack`` is L(F*, w) − L(F*, s) − L(s, w), with its 95 % interval over rows, clustered by
      prompt. Null outside of Theorem 2.
    * ``gain`` L(F*, w) − L(F*, s), both misfits, the ratios |gain|/√misfit and their supremum
      ``largest_ratio`` are of w and s clipped to [γ, 1 − γ], for every student whose rows and
      ceiling's rows are in ``train_predictions``.

    L is the mean KL divergence in nats; ``rows`` are those that the student learned from.

    Args:
        results: the rows of ``results``; None: as its file has them.

    Raises:
        FileNotFoundError: the study has no results, or no ``train_predictions``.
        InputError: that table was changed since it was written.
    """
    cells = read_results(store, study).to_pylist() if results is None else results
    rows: dict[int, dict[str, Any]] = {}
    with reading_table(store, train_predictions_file(study)) as file:
        models = _Models(file)
        for index in sorted(range(len(cells)), key=lambda index: cells[index]["ceiling_key"] or ""):
            rows[index] = _row(cells[index], models)
    return pa.Table.from_pylist([rows[index] for index in range(len(cells))], SCHEMA)


def outside_reason(cell: dict[str, Any]) -> str | None:
    """Why no statement is about this cell of ``results``; None: one is.

    The statements are about a minimum of the mean loss over last layers, so whatever else shapes
    the student is outside of them.
    """
    if cell["control"]:
        return f"the control {cell['control']} stands in the student's place"
    if cell["trainable"] != "last_layer":
        return f"trainable {cell['trainable']}: the ceiling is not a head on the student's features"
    if cell["loss"] not in STATEMENTS:
        return f"loss {cell['loss']}: no statement about its minimum"
    if "converged" not in cell:
        return "results has no column converged: run the study again, which writes its tables anew"
    if cell["converged"] is None:
        return "trained by optimizer steps, not by an exact solver"
    if not cell["converged"]:
        return "the solver did not converge"
    if cell["label_clip"] is None:
        return "label_clip is not recorded"
    for name, none in (("anchor", 0.0), ("confidence_weight", 0.0), ("example_weight", "none")):
        if cell[name] != none:
            return f"{name} {cell[name]}: the minimum is of another objective"
    return None


class _Rows(NamedTuple):
    """A model's rows in ``train_predictions``.

    Attributes:
        row_ids: n.
        logits: (n, K).
        labels: (n, K) that a student learned from; None of a ceiling.
        groups: (n,) index of each row's prompt; None where no two rows share one.
    """

    row_ids: list[str]
    logits: NDArray[np.float16]
    labels: NDArray[np.float32] | None
    groups: NDArray[np.int64] | None


class _Read(NamedTuple):
    """A student and its ceiling on n rows.

    Attributes:
        student: its rows.
        labels: (n, K) that it learned from.
        ceiling_logits: (n, K).
    """

    student: _Rows
    labels: NDArray[np.float32]
    ceiling_logits: NDArray[np.float16]


class _Models:
    """Models of the table by key; the last ceiling that was read is kept."""

    def __init__(self, file: parquet.ParquetFile) -> None:
        self._file = file
        self._groups = dict(_row_groups(file))
        self._ceiling: tuple[str, _Rows, dict[str, int]] | None = None

    def of(self, key: str, ceiling_key: str | None) -> "_Read | str":
        """A student and its ceiling on the student's rows, or why there are none."""
        if key not in self._groups:
            return "the student's training rows are not in train_predictions"
        if ceiling_key is None or ceiling_key not in self._groups:
            return "the ceiling's answers to these rows are not in train_predictions"
        student = self._read(key)
        if student.labels is None or len(student.row_ids) < 2:
            return "fewer than two rows with labels"
        if self._ceiling is None or self._ceiling[0] != ceiling_key:
            read = self._read(ceiling_key)
            positions = {row_id: index for index, row_id in enumerate(read.row_ids)}
            self._ceiling = ceiling_key, read, positions
        _, ceiling, positions = self._ceiling
        if not positions.keys() >= set(student.row_ids):
            return "the ceiling has no answers to some of the student's rows"
        on_them = ceiling.logits[[positions[row_id] for row_id in student.row_ids]]
        return _Read(student, student.labels, on_them)

    def _read(self, key: str) -> _Rows:
        columns = ["row_id", "logits", "soft_label", "prompt_id"]
        table = self._file.read_row_group(self._groups[key], columns=columns)
        row_ids: list[str] = table["row_id"].to_pylist()
        prompts = [
            own or row for own, row in zip(table["prompt_id"].to_pylist(), row_ids, strict=True)
        ]
        labels = table["soft_label"]
        return _Rows(
            row_ids,
            _matrix(table["logits"]),
            None if labels.null_count else _matrix(labels),
            group_indices(prompts),
        )


def _row_groups(file: parquet.ParquetFile) -> Iterator[tuple[str, int]]:
    """Key and index of each row group; each holds one model's rows, and none is empty."""
    for index in range(file.num_row_groups):
        statistics = file.metadata.row_group(index).column(0).statistics
        if statistics is not None and statistics.has_min_max:
            yield statistics.min, index


def _matrix(column: pa.ChunkedArray) -> NDArray[Any]:
    flat = column.combine_chunks().flatten().to_numpy(zero_copy_only=False)
    matrix: NDArray[Any] = flat.reshape(len(column), -1)
    return matrix


def _row(cell: dict[str, Any], models: _Models) -> dict[str, Any]:
    row: dict[str, Any] = {"key": cell["key"], **{axis.name: cell[axis.name] for axis in AXES}}
    statement, clip = STATEMENTS.get(cell["loss"]), cell["label_clip"]
    row |= {"statement": statement, "status": OUTSIDE, "reason": outside_reason(cell)}
    if cell["status"] != "done":
        return row | {"reason": f"the cell is {cell['status']}"}
    read = models.of(cell["key"], cell["ceiling_key"])
    if isinstance(read, str):
        return row | {"reason": row["reason"] or read}
    student, labels, ceiling_logits = read
    rows = TrainingRows.of_logits(labels, student.logits, ceiling_logits)
    row["rows"] = len(labels)
    if clip is not None:
        row |= _ratios(rows, clip)
    if row["reason"] is not None:
        return row
    if statement == IDENTITY:
        rounding = logit_rounding(rows, student.logits, ceiling_logits)
        return row | _identity(forward_identity(rows, in_class=True, rounding=rounding))
    return row | _slack(reverse_slack(rows, clip, in_class=True, groups=student.groups))


def _ratios(rows: TrainingRows, label_clip: float) -> dict[str, Any]:
    forward = gain_over_misfit(rows, label_clip, "forward")
    reverse = gain_over_misfit(rows, label_clip, "reverse")
    return {
        "gain": forward.gain,
        "misfit_forward": forward.misfit,
        "misfit_reverse": reverse.misfit,
        "ratio_forward": forward.ratio,
        "ratio_reverse": reverse.ratio,
        "largest_ratio": forward.bound,
    }


def _identity(found: Identity | Outside) -> dict[str, Any]:
    if isinstance(found, Outside):
        return {"reason": found.reason}
    return {
        "status": found.status,
        "reversed_gain": found.gain,
        "residual": found.residual,
        "tolerance": found.tolerance,
    }


def _slack(found: Slack | Outside) -> dict[str, Any]:
    if isinstance(found, Outside):
        return {"reason": found.reason}
    return {
        "status": found.status,
        "slack": found.value,
        "slack_low": found.low,
        "slack_high": found.high,
    }
