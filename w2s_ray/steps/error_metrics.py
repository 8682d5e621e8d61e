"""A student's errors against its teacher's (docs/losses.md §5): numpy, float64.

Shapes: ``student`` and ``weak`` (n, K) probabilities of the same rows, ``labels`` (n,) classes.
Rates are shares in [0, 1], and None where no row meets their condition. Ties count by their shares,
as in ``metrics``, as if each model broke its own ties at random.
"""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from w2s_ray.steps.metrics import Labels, Probs, Shares, choices

DECILES = 10
CONFIDENT_STUDENT = 0.9
"""Least probability of the student's class at a blind spot."""
UNSURE_WEAK = 0.6
"""Largest probability of the weak model's class at a blind spot."""


def agreement(left: Probs, right: Probs) -> float:
    """Share of rows on which two models choose the same class."""
    return float((choices(left) * choices(right)).sum(axis=1).mean())


class Errors(NamedTuple):
    """What two models do on each row, as shares (n,).

    Attributes:
        weak_wrong, student_wrong: 1 where the model's class is not the true one.
        both_same_wrong: 1 where both choose the same wrong class.
    """

    weak_wrong: Shares
    student_wrong: Shares
    both_same_wrong: Shares

    @classmethod
    def of(cls, student: Probs, weak: Probs, labels: Labels) -> "Errors":
        rows = np.arange(len(labels))
        chosen, by_weak = choices(student), choices(weak)
        right, weak_right = chosen[rows, labels], by_weak[rows, labels]
        same = (chosen * by_weak).sum(axis=1) - right * weak_right
        return cls(1.0 - weak_right, 1.0 - right, same)

    def rates(self) -> dict[str, float | None]:
        """Inheritance P(s = w | w wrong), correction P(s right | w wrong), new errors
        P(s wrong | w right)."""
        return self.rates_by(np.zeros(len(self.weak_wrong), dtype=np.int64), 1)[0]

    def rates_by(self, groups: NDArray[np.int64], count: int) -> list[dict[str, float | None]]:
        """The same of each of ``count`` groups of rows.

        Args:
            groups: (n,) the group of each row.
        """
        weak, student = self.weak_wrong, self.student_wrong
        shares = {
            "wrong": weak,
            "right": 1.0 - weak,
            "error_inheritance": self.both_same_wrong,
            "error_correction": weak * (1.0 - student),
            "new_errors": (1.0 - weak) * student,
        }
        sums = {n: np.bincount(groups, s, minlength=count).tolist() for n, s in shares.items()}
        among = {"error_inheritance": "wrong", "error_correction": "wrong", "new_errors": "right"}
        return [
            {name: _share(sums[name][g], sums[rows][g]) for name, rows in among.items()}
            for g in range(count)
        ]

    def phi(self) -> float | None:
        """Correlation of the two models' errors over rows, −1 to 1; None if one never varies."""
        weak, student = self.weak_wrong, self.student_wrong
        spread = float(weak.std() * student.std())
        if spread < 1e-12:
            return None
        return float(((weak - weak.mean()) * (student - student.mean())).mean()) / spread

    def kappa(self) -> float | None:
        """Cohen's κ (1960) of the two models' errors; None if chance alone gives agreement 1."""
        weak, student = self.weak_wrong, self.student_wrong
        observed = float((weak * student + (1.0 - weak) * (1.0 - student)).mean())
        a, b = float(weak.mean()), float(student.mean())
        expected = a * b + (1.0 - a) * (1.0 - b)
        return None if expected > 1.0 - 1e-12 else (observed - expected) / (1.0 - expected)


def _share(part: float, whole: float) -> float | None:
    return part / whole if whole > 1e-12 else None


class Deciles(NamedTuple):
    """Rows by the confidence of a model.

    Attributes:
        edges: 11 probabilities of the top class.
        of: (n,) the decile of each row, from 0.
    """

    edges: NDArray[np.float64]
    of: NDArray[np.int64]


def deciles(probs: Probs) -> Deciles:
    """The deciles of a model's confidence; rows of one confidence stay in one."""
    top = probs.max(axis=1)
    edges = np.quantile(top, np.linspace(0, 1, DECILES + 1))
    return Deciles(edges, np.searchsorted(edges[1:-1], top))


def by_weak_confidence(errors: Errors, weak: Deciles) -> list[dict[str, Any]]:
    """``Errors.rates`` by decile of the weak model's confidence, least confident first.

    Returns:
        For each decile that has rows: from, to (probabilities of the top class), rows, the rates.
        Rows of one confidence stay in one decile, so deciles may differ in size.
    """
    rates = errors.rates_by(weak.of, DECILES)
    rows = np.bincount(weak.of, minlength=DECILES).tolist()
    return [
        {"from": low, "to": high, "rows": count, **of_rows}
        for low, high, count, of_rows in zip(
            weak.edges[:-1].tolist(), weak.edges[1:].tolist(), rows, rates, strict=True
        )
        if count
    ]


def blind_spots(student: Probs, weak: Probs, errors: Errors) -> float:
    """P(s wrong, its confidence ≥ ``CONFIDENT_STUDENT``, the weak model's ≤ ``UNSURE_WEAK``)."""
    sure = student.max(axis=1) >= CONFIDENT_STUDENT
    unsure = weak.max(axis=1) <= UNSURE_WEAK
    return float((errors.student_wrong * (sure & unsure)).mean())
