"""Paired comparisons with a baseline, and verdicts that are never stronger than their tests.

A comparison is the difference of two ways of learning on the same rows and seeds. Within a family
the p-values of differences, and those of equivalence, are adjusted by Holm's method (1979), which
holds the probability of any wrong claim in the family at α. The verdict is then:

* *better* or *worse*: the adjusted p-value of the difference is below α;
* *equivalent*: two one-sided tests (TOST, Schuirmann 1987) put the difference inside the margin;
* *undecided*: neither.
"""

from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
from scipy.special import bdtr  # scipy.stats takes a second to import

from w2s_ray.statistics.decomposition import Array, Estimate, t_tail

ALPHA = 0.05
FEW_DISCORDANT = 10  # rows that two ways decide differently; the fewer, the less a variance says
Verdict = Literal["better", "worse", "equivalent", "undecided"]


class Comparison(NamedTuple):
    """One difference of a family, with its tests.

    Attributes:
        estimate: of the difference, positive where the first is better.
        p_value: two-sided, of no difference.
        adjusted: the same after Holm.
        equivalence: the larger of the two one-sided p-values, after Holm.
        verdict: what follows.
    """

    estimate: Estimate
    p_value: float
    adjusted: float
    equivalence: float
    verdict: Verdict


def compare(
    differences: Sequence[Estimate],
    margin: float,
    alpha: float = ALPHA,
    exact: Sequence[float | None] | None = None,
) -> list[Comparison]:
    """Tests and verdicts of one family of differences.

    Args:
        margin: difference below which two ways are the same in practice, in the unit of the scores.
        exact: p-values of no difference to take in place of those of Student's t, as of
            ``mcnemar`` for one seed; None: there is none.
    """
    given = [None] * len(differences) if exact is None else exact
    p_values = [
        difference.p_value() if p_value is None else p_value
        for difference, p_value in zip(differences, given, strict=True)
    ]
    adjusted = holm(p_values)
    equivalences = holm([equivalence(difference, margin) for difference in differences])
    together = zip(differences, p_values, adjusted, equivalences, strict=True)
    return [
        Comparison(estimate, p, corrected, same, _verdict(estimate, corrected, same, alpha))
        for estimate, p, corrected, same in together
    ]


def _verdict(estimate: Estimate, adjusted: float, same: float, alpha: float) -> Verdict:
    if adjusted < alpha:
        return "better" if estimate.mean > 0.0 else "worse"
    return "equivalent" if same < alpha else "undecided"


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjusted p-values of a family (Holm 1979), in the order given."""
    order = np.argsort(p_values, kind="stable")
    factors = len(p_values) - np.arange(len(p_values))
    raised = np.maximum.accumulate(np.asarray(p_values, dtype=np.float64)[order] * factors)
    adjusted = np.empty(len(p_values))
    adjusted[order] = np.minimum(raised, 1.0)
    return [float(value) for value in adjusted]


def equivalence(difference: Estimate, margin: float) -> float:
    """The larger p-value of the two one-sided tests that the difference is inside ±margin.

    Where two ways differ on very few rows, or on none, their variance says little: then it is no
    less than the probability of so few discordant rows if a share ``margin`` of all were
    discordant, which a difference of ``margin`` takes at least (scores are in [0, 1]). No
    discordant row of 60 does not exclude a point.
    """
    if abs(difference.mean) >= margin:
        return 1.0
    p_value = 0.0
    if difference.variance > 0.0:
        distance = (margin - abs(difference.mean)) / difference.variance**0.5
        p_value = t_tail(distance, difference.df)
    rows = difference.groups
    discordant = difference.variance * rows * rows
    if not rows or discordant > FEW_DISCORDANT:
        return p_value
    return max(p_value, float(bdtr(round(discordant), rows, margin)))


class Discordant(NamedTuple):
    """McNemar's exact test of two models of one seed.

    Attributes:
        gained: rows that only the first model has right.
        lost: rows that only the second has right.
        p_value: two-sided, exact.
    """

    gained: int
    lost: int
    p_value: float


def mcnemar(first: Array, second: Array) -> Discordant:
    """Compares two models on the same rows.

    For one seed only: pooled over seeds, one row's answers would count as independent rows. Rows
    with a tie (a score of ½) are left out, being right and wrong at once.

    Args:
        first, second: (n,) scores 0, ½ or 1 of the rows.

    Raises:
        ValueError: they are not of one seed.
    """
    if first.ndim != 1 or first.shape != second.shape:
        raise ValueError(
            "McNemar's test is of two models of one seed: expected (n,) scores of both"
        )
    gained = int(((first == 1.0) & (second == 0.0)).sum())
    lost = int(((first == 0.0) & (second == 1.0)).sum())
    p_value = min(1.0, 2.0 * float(bdtr(min(gained, lost), gained + lost, 0.5)))
    return Discordant(gained, lost, p_value)
