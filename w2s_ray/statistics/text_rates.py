"""What a way of learning from text gives: a reward for each sample, and the rate of a method.

An ``Arm`` has a reward for each of k samples to each of n prompts in each of S seeds.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from w2s_ray.statistics.decomposition import Array, Estimate, mean

FEWEST = 2
"""Prompts that a rate or a difference is of."""


@dataclass(frozen=True)
class Arm:
    """What one method gives.

    Attributes:
        rewards: (S, n, k) from 0 to 1; NaN where there is none (a check that failed).
        words: (S, n, k) lengths of the answers.
        distinct_2, repeated_4grams, perplexity: of all answers; None where there is nothing to
            measure, or nothing to measure with.
        families: (n,) number of each prompt's family, from 0; None: all are of one.
        audit: (S, n, k) rewards by a judge that nothing was trained on; None: there is none.
    """

    rewards: Array
    words: Array
    distinct_2: float | None = None
    repeated_4grams: float | None = None
    perplexity: float | None = None
    families: NDArray[np.int64] | None = None
    audit: Array | None = None


def prompt_means(rewards: Array) -> Array:
    """(S, n) mean reward of each prompt and seed; NaN where no sample has one."""
    counted = np.isfinite(rewards)
    sums = np.where(counted, rewards, 0.0).sum(axis=2)
    means: Array = np.divide(
        sums, counted.sum(axis=2), out=np.full(sums.shape, np.nan), where=counted.any(axis=2)
    )
    return means


def rated(arms: Sequence[Array]) -> Array:
    """(n,) bool: the prompts that have a reward in every arm and seed."""
    known: Array = np.all([np.isfinite(prompt_means(of)).all(axis=0) for of in arms], axis=0)
    return known


def rate(arm: Arm) -> Estimate:
    """The mean reward over prompts and seeds.

    Raises:
        ValueError: fewer than two prompts have a reward in every seed.
    """
    return mean(prompt_means(arm.rewards)[:, rated([arm.rewards])])
