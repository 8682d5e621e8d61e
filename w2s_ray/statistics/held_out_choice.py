"""The best of several settings, chosen by some prompts and tested on others.

The highest of several means is too high for having been chosen, so what is chosen by the prompts of
one fold is scored on those of the other: such scores are those of one rule of choice, and their
mean has no bias. Which settings may be the best one is told by all prompts: setting i is excluded
where another is better at level α / (C - 1), one-sided; whatever the truth, the best of C is
excluded in at most α of experiments (Bonferroni).

Letters: C settings, S seeds, n prompts.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from w2s_ray.statistics.comparisons import ALPHA
from w2s_ray.statistics.decomposition import Array, Estimate, decompose, mean

FOLDS = 2


class Choice(NamedTuple):
    """What was chosen, by index.

    Attributes:
        best: the highest mean over all prompts, the first of equals.
        plausible: those that cannot be excluded as the best one.
        chosen: the best one by the prompts outside of each fold.
        held_out: mean of what was chosen on the prompts that did not choose it, minus the
            baseline's if there is one.
    """

    best: int
    plausible: tuple[int, ...]
    chosen: tuple[int, ...]
    held_out: Estimate


def held_out_choice(
    scores: Array,
    folds: NDArray[np.int64],
    baseline: Array | None = None,
    alpha: float = ALPHA,
) -> Choice:
    """Chooses one of several settings.

    Args:
        scores: (C, S, n).
        folds: (n,) from 0 to ``FOLDS`` - 1; each holds a prompt.
        baseline: (S, n) scores that the chosen ones are compared with.
    """
    means = scores.mean(axis=(1, 2))
    chosen = [int(scores[:, :, folds != n].mean(axis=(1, 2)).argmax()) for n in range(FOLDS)]
    held_out = scores[np.array(chosen)[folds], :, np.arange(len(folds))].T
    if baseline is not None:
        held_out = held_out - baseline
    return Choice(int(means.argmax()), _plausible(scores, alpha), tuple(chosen), mean(held_out))


def _plausible(scores: Array, alpha: float) -> tuple[int, ...]:
    """Those that no other one is better than, each at its part of ``alpha``."""
    count, of_all = len(scores), decompose(scores)
    kept = []
    for own in range(count):
        better = (of_all.estimate(_minus(count, other, own)) for other in range(count))
        one_sided = (of.p_value() / 2.0 for of in better if of.mean > 0.0)
        if min(one_sided, default=1.0) * (count - 1) >= alpha:
            kept.append(own)
    return tuple(kept)


def _minus(count: int, first: int, second: int) -> Array:
    weights = np.zeros(count)
    weights[first] += 1.0
    weights[second] -= 1.0
    return weights
