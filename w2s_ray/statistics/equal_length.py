"""Rates of answers at equal length: a difference of two arms, and rates by thirds of length.

A difference is that of strata: within each family of prompts the samples of both arms are cut into
twentieths of their common lengths, the arms compared within each, and these weighted by
n₁n₂/(n₁ + n₂), n samples of each arm (Mantel and Haenszel 1959). Thirds would leave a difference of
length inside each, and parts of all prompts together would compare short answers to one family with
those to another. Thirds are shown beside it, for a reader to see where a method wins.

Letters: S seeds, n prompts, k samples of a prompt.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from w2s_ray.statistics.decomposition import Array, Estimate, decompose, mean
from w2s_ray.statistics.text_rates import FEWEST, Arm, prompt_means, rated

STRATA = 20
THIRDS = 3
LEAST_COMMON = 0.5


class EqualLength(NamedTuple):
    """The difference of two arms at equal length.

    Attributes:
        estimate: None where the arms have too few lengths in common.
        explained: what of the difference is gone at equal length; None likewise.
        common: share of all samples in strata that both arms have.
    """

    estimate: Estimate | None
    explained: Estimate | None
    common: float


def equal_length(arm: Arm, baseline: Arm) -> EqualLength:
    """The difference of rates if both arms had the lengths of all samples together.

    Of each arm the mean is Σ_t w_t m_t over strata t (twentieths of length within a family of
    prompts), w_t the common weights and m_t the arm's mean; its error is that of the linearised
    estimate, paired over prompts and seeds. A stratum that one arm has no sample in weighs nothing.
    """
    known = rated([arm.rewards, baseline.rewards])
    both = [(of.rewards[:, known], of.words[:, known].astype(np.float64)) for of in (arm, baseline)]
    families = np.zeros(len(known), dtype=np.int64) if arm.families is None else arm.families
    strata = _strata([words for _, words in both], [r for r, _ in both], families[known])
    size = int(families.max()) * STRATA + STRATA
    counts = [
        np.bincount(of[np.isfinite(rewards)], minlength=size)
        for of, (rewards, _) in zip(strata, both, strict=True)
    ]
    shares = (counts[0] + counts[1]) / (counts[0] + counts[1]).sum()
    common = (counts[0] > 0) & (counts[1] > 0)
    share = float(shares[common].sum())
    if share < LEAST_COMMON:
        return EqualLength(None, None, share)
    weights = np.divide(counts[0] * counts[1], counts[0] + counts[1], where=common, out=shares * 0)
    weights /= weights.sum()
    linear = [
        _linearised(rewards, stratum, weights)
        for (rewards, _), stratum in zip(both, strata, strict=True)
    ]
    plain = [prompt_means(rewards) for rewards, _ in both]
    scores = decompose(np.stack([*linear, *plain]))
    return EqualLength(
        scores.estimate(np.array([1.0, -1.0, 0.0, 0.0])),
        scores.estimate(np.array([-1.0, 1.0, 1.0, -1.0])),
        share,
    )


def _strata(
    words: Sequence[Array], rewards: Sequence[Array], families: NDArray[np.int64]
) -> list[NDArray[np.int64]]:
    """(S, n, k) number of each sample's stratum, for each arm."""
    found = [np.zeros(of.shape, dtype=np.int64) for of in words]
    for family in np.unique(families):
        own = families == family
        lengths = np.concatenate(
            [w[:, own][np.isfinite(r[:, own])] for w, r in zip(words, rewards, strict=True)]
        )
        cuts = np.quantile(lengths, [n / STRATA for n in range(1, STRATA)])
        for of, lengths_of_arm in zip(found, words, strict=True):
            of[:, own] = family * STRATA + np.searchsorted(cuts, lengths_of_arm[:, own])
    return found


def _linearised(rewards: Array, stratum: NDArray[np.int64], weights: Array) -> Array:
    """(S, n) values whose mean is the post-stratified mean, and whose spread is its error."""
    counted = np.isfinite(rewards)
    values = np.where(counted, rewards, 0.0)
    total = np.zeros(rewards.shape[:2])
    samples = counted.sum()
    centre = 0.0
    for number, weight in enumerate(weights):
        own = counted & (stratum == number)
        if weight == 0.0:
            continue
        of_stratum = values[own].mean()
        centre += weight * of_stratum
        # Mean over all samples of (r - m_t) / share_t is 0; as a sum over a prompt's samples.
        total += weight * np.where(own, values - of_stratum, 0.0).sum(axis=2) / own.sum() * samples
    cells = rewards.shape[0] * rewards.shape[1]
    linear: Array = centre + total * (cells / samples)
    return linear


class RateOfThird(NamedTuple):
    """A method's rate among answers of about one length.

    Attributes:
        rate: None with fewer than two prompts.
        share: of the method's answers that are in this third.
    """

    rate: Estimate | None
    share: float


def thirds_of_length(arms: Sequence[Arm]) -> Array:
    """(2,) lengths in words between the thirds of all answers of several arms together."""
    lengths = np.concatenate([of.words[np.isfinite(of.rewards)] for of in arms])
    cuts: Array = np.quantile(lengths, [n / THIRDS for n in range(1, THIRDS)])
    return cuts


def rates_by_length(arm: Arm, cuts: Array) -> list[RateOfThird]:
    """The rate within each third, of the samples in it: Σ rewards / their number.

    Its error is that of the linearised ratio, over prompts and seeds.

    Args:
        cuts: of ``thirds_of_length``; answers of a length that is a cut are in the lower third.
    """
    known = rated([arm.rewards])
    rewards, words = arm.rewards[:, known], arm.words[:, known]
    third = np.searchsorted(cuts, words)
    counted = np.isfinite(rewards)
    found = []
    for number, weights in enumerate(np.eye(THIRDS)):
        own = counted & (third == number)
        there = own.any(axis=(0, 2))
        rate = None
        if there.sum() >= FEWEST:
            rate = mean(_linearised(rewards[:, there], third[:, there], weights))
        found.append(RateOfThird(rate, float(own.sum() / max(1, counted.sum()))))
    return found
