"""Summaries of seeds or pairs that one collapsed value does not move."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy.stats import trim_mean


class Robust(NamedTuple):
    """Median and interquartile mean (the mean of the middle half; Agarwal et al. 2021)."""

    median: float
    interquartile_mean: float


def robust(values: Sequence[float]) -> Robust:
    """Both, of at least one value.

    Raises:
        ValueError: there is none.
    """
    if not len(values):
        raise ValueError("no value to summarise")
    return Robust(float(np.median(values)), float(trim_mean(values, 0.25)))
