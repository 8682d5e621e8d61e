"""Wilson's interval of a proportion, for few rows or a proportion near 0 or 1."""

from typing import NamedTuple

from w2s_ray.statistics.decomposition import Estimate, t_quantile

FEW_ROWS = 200
FEW_ERRORS = 3  # rows on the rarer side below which a t interval does not cover


class Interval(NamedTuple):
    """A two-sided interval, and how it was made: ``t`` or ``wilson``."""

    low: float
    high: float
    method: str


def proportion_interval(estimate: Estimate, level: float = 0.95) -> Interval:
    """The interval of an accuracy: of Student's t, or Wilson's where that would not cover.

    Wilson's is of the number of rows that has the estimate's variance, p(1 − p)/V, at most that of
    independent ones: rows of one prompt may all be right or wrong together. So it is as wide as
    seeds and groups of rows make it. That of two seeds that differ may reach beyond 0 or 1, and is
    cut there.

    Args:
        estimate: of scores in [0, 1], with its number of independent rows.
    """
    p, rows = min(max(estimate.mean, 0.0), 1.0), estimate.groups
    near_an_end = min(p, 1.0 - p) * rows <= FEW_ERRORS
    if rows >= FEW_ROWS and not near_an_end:
        low, high = estimate.interval(level)
        return Interval(max(0.0, low), min(high, 1.0), "t")
    spread = p * (1.0 - p)
    effective = float(rows)
    if estimate.variance > 0.0 and spread > 0.0:
        effective = min(effective, spread / estimate.variance)
    quantile = t_quantile(0.5 + level / 2.0, estimate.df)
    low, high = wilson(p, effective, quantile)
    return Interval(low, high, "wilson")


def wilson(p: float, rows: float, quantile: float = 1.959964) -> tuple[float, float]:
    """Wilson's score interval (1927) of a proportion p of so many rows, inside [0, 1]."""
    square = quantile * quantile / rows
    middle = p + square / 2.0
    half = quantile * (p * (1.0 - p) / rows + square / (4.0 * rows)) ** 0.5
    low, high = (middle - half) / (1.0 + square), (middle + half) / (1.0 + square)
    return (0.0 if p == 0.0 else low), (1.0 if p == 1.0 else high)
