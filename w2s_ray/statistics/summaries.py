"""Summaries of seeds or pairs that one collapsed value does not move."""

from collections.abc import Sequence
from statistics import fmean, median
from typing import NamedTuple


class Robust(NamedTuple):
    """Median and interquartile mean (the mean of the middle half; Agarwal et al. 2021)."""

    median: float
    interquartile_mean: float


def robust(values: Sequence[float]) -> Robust:
    """Both, of at least one value; a quarter of them, rounded down, is cut off at each end.

    Raises:
        ValueError: there is none.
    """
    if not len(values):
        raise ValueError("no value to summarise")
    cut = len(values) // 4
    middle = sorted(values)[cut : len(values) - cut]
    return Robust(float(median(values)), fmean(middle))
