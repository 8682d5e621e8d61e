"""What is done to a student's labels after noise: relabelling, a filter, weights of rows.

In this order, each on the rows and labels that the one before leaves (docs/losses.md §3).
"""

from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from w2s_ray.objectives.label_rows import (
    best_rows,
    confidence,
    confidence_weights,
    margin_to_prior,
    support,
)
from w2s_ray.order import hashes
from w2s_ray.plan.configs import Judge, LabelTreatment
from w2s_ray.steps.metrics import accuracy
from w2s_ray.steps.opinions import Opinions

Rows = NDArray[np.int64]
Labels = NDArray[np.float32]
States = Callable[[], NDArray[np.float32]]


class Treated(NamedTuple):
    """What a student learns from.

    Attributes:
        rows: (n,) positions in the table of the split, ascending.
        soft_labels: (n, K), in the order of ``rows``.
        weights: (n,) with mean 1; None: all 1.
        relabelled: rows whose top class was changed by relabelling; None: nothing was relabelled.
    """

    rows: Rows
    soft_labels: Labels
    weights: NDArray[np.float32] | None = None
    relabelled: int | None = None


class LabelSet(NamedTuple):
    """Labels before the treatment.

    Attributes:
        name: equal for equal labels, where the features' name is equal too.
        features: names features and rows.
        rows: (n,) positions in the table of the split, ascending.
        soft_labels: (n, K), in the order of ``rows``.
        states: gives the (N, m, H) features of the whole table, for the judges that read them.
    """

    name: tuple[Any, ...]
    features: tuple[Any, ...]
    rows: Rows
    soft_labels: Labels
    states: States


class Treatments:
    """Treats label sets of one table of rows; what judges say of a set is computed once.

    Args:
        row_ids: N of the table.
        per_row: texts a row, 2 for pairs.
    """

    def __init__(self, row_ids: Sequence[str], per_row: int) -> None:
        self._row_ids, self._per_row = row_ids, per_row
        self._opinions: dict[tuple[Any, ...], Opinions] = {}
        self._said: dict[tuple[Any, ...], Labels] = {}

    def __call__(self, labels: LabelSet, treatment: LabelTreatment) -> Treated:
        """Rows, labels and weights to learn from.

        Raises:
            ValueError: the filter leaves no row, or of texts only rows of one class.
        """
        treated = Treated(labels.rows, labels.soft_labels)
        if treatment.relabel != "none":
            new = self._opinion(labels, treatment.relabel, treatment.neighbours)
            changed = int((_tops(new) != _tops(labels.soft_labels)).any(axis=1).sum())
            treated = Treated(labels.rows, new, relabelled=changed)
            name = (*labels.name, treatment.relabel, treatment.neighbours)
            labels = labels._replace(name=name, soft_labels=new)
        if treatment.filter_by != "none":
            kept = best_rows(
                self._scores(labels, treatment), self._ties[labels.rows], treatment.keep
            )
            treated = treated._replace(
                rows=treated.rows[kept], soft_labels=labels.soft_labels[kept]
            )
            self._check_classes(treated.soft_labels, treatment)
        if treatment.example_weight == "confidence":
            treated = treated._replace(weights=confidence_weights(treated.soft_labels))
        return treated

    def _scores(self, labels: LabelSet, treatment: LabelTreatment) -> NDArray[np.float64]:
        """(n,) how good each label is by what the filter goes by."""
        own, by = labels.soft_labels, treatment.filter_by
        if by == "confidence":
            return confidence(own)
        if by == "margin_to_prior":
            # The order of a pair's answers is random, so its prior is exactly uniform.
            uniform = np.full(own.shape[1], 1.0 / own.shape[1])
            return margin_to_prior(own, uniform if self._per_row == 2 else own.mean(axis=0))
        assert by != "none"
        return support(own, self._opinion(labels, by, treatment.neighbours))

    def _opinion(self, labels: LabelSet, judge: Judge, neighbours: int) -> Labels:
        """(n, K) what a judge says of the labels."""
        name = (labels.name, labels.features, judge, neighbours if judge == "knn" else None)
        if name not in self._said:
            if labels.features not in self._opinions:
                states = labels.states()
                present = states if len(labels.rows) == len(states) else states[labels.rows]
                self._opinions[labels.features] = Opinions(present, self._folds[labels.rows])
            opinions = self._opinions[labels.features]
            self._said[name] = opinions(judge, labels.soft_labels, neighbours)
        return self._said[name]

    def _check_classes(self, kept: Labels, treatment: LabelTreatment) -> None:
        """Refuses labels of texts from which only one class can be learned."""
        if self._per_row == 1 and _tops(kept).any(axis=0).sum() == 1:
            raise ValueError(
                f"label_filter: the {len(kept)} rows that {treatment.filter_by} keeps at "
                f"{treatment.keep:g} all have one class on top; raise keep or filter by another"
            )

    @cached_property
    def _ties(self) -> NDArray[np.uint64]:
        return hashes(self._row_ids, "label_filter")

    @cached_property
    def _folds(self) -> NDArray[np.uint64]:
        return hashes(self._row_ids, "opinions")


def label_facts(soft_labels: Labels, labels: NDArray[np.int64]) -> dict[str, Any]:
    """Metrics of the labels that a student learned from.

    Args:
        soft_labels: (n, K), as learned.
        labels: (n,) true classes of these rows.
    """
    return {
        "trained_rows": len(labels),
        "learned_label_accuracy": accuracy(soft_labels, labels),
        "learned_label_confidence": float(confidence(soft_labels).mean()),
    }


def _tops(labels: Labels) -> NDArray[np.bool_]:
    """(n, K) which classes have a label's largest probability: several in a tie."""
    tops: NDArray[np.bool_] = labels == labels.max(axis=1, keepdims=True)
    return tops
