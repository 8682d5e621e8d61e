"""Fieller's interval of the performance gap recovered, (student − weak) / (ceiling − weak).

A ratio has no mean and no variance to speak of where its denominator may be 0; Fieller (1954)
inverts a test in its place: θ is in the interval if the difference
d(θ) = (student − weak) − θ (ceiling − weak) is within t(df) √V(d(θ)) of 0, with V of
``decomposition``. V is the larger of two quadratics in θ (with and without the seeds' part), so the
interval is the union of two, each between the roots of a quadratic.
"""

from typing import NamedTuple

import numpy as np

from w2s_ray.statistics.decomposition import Array, Decomposition, t_quantile

GAP = np.array([-1.0, 0.0, 1.0])  # ceiling − weak, of the scores (weak, student, ceiling)
GAIN = np.array([-1.0, 1.0, 0.0])  # student − weak


class Recovered(NamedTuple):
    """The share of the gap that was recovered; never clipped.

    Attributes:
        value: the ratio of the means; None where the gap is 0.
        low, high: the interval; None where the gap is not resolved: its own interval has 0 in it,
            and any share at all would be as good.
        gap: ceiling − weak.
        gap_low, gap_high: its interval.
    """

    value: float | None
    low: float | None
    high: float | None
    gap: float
    gap_low: float
    gap_high: float

    @property
    def is_resolved(self) -> bool:
        """Whether the gap is, and with it the ratio."""
        return self.low is not None


def recovered_gap(scores: Decomposition, level: float = 0.95) -> Recovered:
    """The performance gap recovered.

    Args:
        scores: of weak model, student and ceiling, in this order.
    """
    gap, gain = scores.estimate(GAP), scores.estimate(GAIN)
    gap_low, gap_high = gap.interval(level)
    value = gain.mean / gap.mean if gap.mean else None
    unresolved = Recovered(value, None, None, gap.mean, gap_low, gap_high)
    if value is None or gap_low <= 0.0 <= gap_high:
        return unresolved
    df = scores.estimate(GAIN - value * GAP).df
    square = t_quantile(0.5 + level / 2.0, df) ** 2
    cells = scores.rows * scores.seeds
    ends: list[float] = []
    forms = [scores.of_rows, scores.of_rows + scores.of_seeds - scores.of_rest]
    if (crossed := scores.crossed) is not None:
        share = cells / (crossed.rows * crossed.seeds)
        forms += [of + share * (crossed.of_seeds - crossed.of_rest) for of in forms]
    for of in forms:
        roots = _roots(gain.mean, gap.mean, of * (square / cells))
        if roots is None:
            return unresolved
        ends += roots
    return Recovered(value, min(ends), max(ends), gap.mean, gap_low, gap_high)


def _roots(gain: float, gap: float, of: Array) -> tuple[float, float] | None:
    """Where (gain − θ gap)² = t² V(θ); None where the set between them is not bounded."""
    a = gap * gap - float(GAP @ of @ GAP)
    b = gain * gap - float(GAIN @ of @ GAP)
    c = gain * gain - float(GAIN @ of @ GAIN)
    if a <= 0.0:
        return None
    root = max(b * b - a * c, 0.0) ** 0.5  # 0 only by rounding: the ratio itself is inside
    return (b - root) / a, (b + root) / a
