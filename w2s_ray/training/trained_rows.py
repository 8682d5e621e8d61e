"""A model's predictions of the rows that students learn from, with the labels that a student saw.

They are stored as float16 (``half_logits``). Scores of them are computed from
what is stored, so that both agree.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from w2s_ray.finite import check_rows
from w2s_ray.half_logits import as_lists


class Noised(NamedTuple):
    """A student's labels of n rows before and after noise.

    Attributes:
        before, after: (n, K) float32.
        noisy: (n,) whether noise was applied to a row.
    """

    before: NDArray[np.float32]
    after: NDArray[np.float32]
    noisy: NDArray[np.bool_]

    def take(self, rows: NDArray[np.int64]) -> "Noised":
        return Noised(self.before[rows], self.after[rows], self.noisy[rows])


@dataclass(frozen=True)
class TrainedRows:
    """The rows that a model scores when it is trained: those that students learn from.

    Attributes:
        rows: n rows; with columns prompt and answers where they have to be tokenised.
        soft_labels: (n, K) float32 that the model learned from; None for a ceiling, which did not
            learn from these rows.
        noised: None where no label is noisy.
    """

    rows: pa.Table
    soft_labels: NDArray[np.float32] | None = None
    noised: Noised | None = None

    def take(self, rows: NDArray[np.int64]) -> "TrainedRows":
        """Those at the indices ``rows``."""
        if len(rows) == self.rows.num_rows:
            return self
        return TrainedRows(
            self.rows.take(rows),
            None if self.soft_labels is None else self.soft_labels[rows],
            None if self.noised is None else self.noised.take(rows),
        )


class ScoredRows(NamedTuple):
    """What a model makes of those rows.

    Attributes:
        table: row_id, logits (K float16), and of a student soft_label (K float32) and noisy.
        metrics: for the step's record, as of ``flips``; none of a ceiling.
    """

    table: pa.Table
    metrics: dict[str, Any]


def scored_rows(trained: TrainedRows, logits: NDArray[np.float16]) -> ScoredRows:
    """Rows and metrics from (n, K) logits, as of ``relative``.

    Raises:
        FloatingPointError: a logit is not finite.
    """
    check_rows(logits, "the trained model's logits", map(str, trained.rows["row_id"]))
    columns: dict[str, Any] = {"row_id": trained.rows["row_id"], "logits": as_lists(logits)}
    labels, noised = trained.soft_labels, trained.noised
    if labels is not None:
        noisy = np.zeros(len(labels), dtype=np.bool_) if noised is None else noised.noisy
        columns |= {"soft_label": as_lists(labels), "noisy": noisy}
    return ScoredRows(pa.table(columns), {} if labels is None else flips(noised, logits))


def flips(noised: Noised | None, logits: NDArray[np.floating]) -> dict[str, Any]:
    """What a student makes of the labels whose class noise has changed.

    Args:
        logits: (n, K) of the student.

    Returns:
        flipped_rows: how many there are. flipped_restored: share of them for which the student
        predicts the class before noise; flipped_memorised: the class after noise. Ties count by
        their shares; both are None where no label is flipped.
    """
    none: dict[str, Any] = {"flipped_restored": None, "flipped_memorised": None}
    if noised is None:
        return {"flipped_rows": 0, **none}
    before, after = noised.before.argmax(axis=1), noised.after.argmax(axis=1)
    tied = _tops(noised.after).sum(axis=1) > 1  # a label of 1/K has no class
    rows = np.flatnonzero((before != after) & ~tied)
    if not len(rows):
        return {"flipped_rows": 0, **none}
    tops = _tops(logits[rows])
    shares = tops / tops.sum(axis=1, keepdims=True)
    each = np.arange(len(rows))
    return {
        "flipped_rows": len(rows),
        "flipped_restored": float(shares[each, before[rows]].mean()),
        "flipped_memorised": float(shares[each, after[rows]].mean()),
    }


def _tops(values: NDArray[np.floating]) -> NDArray[np.bool_]:
    top: NDArray[np.bool_] = values == values.max(axis=1, keepdims=True)
    return top
