"""Fieller's interval of the performance gap recovered, (student − weak) / (ceiling − weak).

A ratio has no mean and no variance to speak of where its denominator may be 0; Fieller (1954)
inverts a test in its place: θ is in the interval if the difference
d(θ) = (student − weak) − θ (ceiling − weak) is within t(df) √V(d(θ)) of 0, with V and df of
``decomposition``. df is that of each θ, as V is. Where students of few seeds differ much, it is low
near their own share and that of the gap far from it: so the interval has ends where the gap's own
interval does not hold 0.
"""

from typing import NamedTuple

import numpy as np
from scipy.special import stdtrit

from w2s_ray.statistics.decomposition import Array, Decomposition

GAP = np.array([-1.0, 0.0, 1.0])  # ceiling − weak, of the scores (weak, student, ceiling)
GAIN = np.array([-1.0, 1.0, 0.0])  # student − weak

_POINTS, _ROUNDS = 33, 7  # of the search for an end: a part in 1e10 of a right angle


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
    low, high = (_end(scores, value, side, level) for side in (-1.0, 1.0))
    return Recovered(value, low, high, gap.mean, gap_low, gap_high)


def _end(scores: Decomposition, value: float, side: float, level: float) -> float:
    """The last share on a side of the estimate, -1 or 1, that the test does not reject."""
    gain, gap = float(scores.means @ GAIN), float(scores.means @ GAP)
    scale = float(scores.errors((GAIN - value * GAP)[None])[0][0]) ** 0.5 / abs(gap)

    def shares(angles: Array) -> Array:
        """From the estimate (0) to infinity (π/2), finest near the estimate."""
        of: Array = value + side * scale * np.tan(angles)
        return of

    inside, outside = 0.0, np.pi / 2.0
    for _ in range(_ROUNDS):
        angles = np.linspace(inside, outside, _POINTS)
        of = shares(angles)
        variance, df = scores.errors(GAIN - of[:, None] * GAP)
        rejected = np.abs(gain - of * gap) > stdtrit(df, 0.5 + level / 2.0) * variance**0.5
        last = min(int(np.flatnonzero(~rejected).max(initial=0)), _POINTS - 2)
        inside, outside = angles[last], angles[last + 1]
    return float(shares(np.array(inside)))
