"""Which way of learning from text is better, and whether it is so at equal length and repetition.

A difference of two arms is paired over prompts and seeds (``decomposition``). Long or repetitive
texts can earn a reward that has nothing to do with what was to be learned, so "better" also needs,
against the same baseline,

* a difference that holds at equal length (``equal_length``);
* distinct-2 of at least 0.9 of the baseline's, and repeated 4-grams of at most 2 points more;
* a perplexity of at most 1.2 of the baseline's, where a model outside of the pair gives one;
* a difference by the audit too, where a second judge has one: one that nothing was trained on.
"""

from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np

from w2s_ray.statistics.comparisons import ALPHA, holm
from w2s_ray.statistics.decomposition import Array, Estimate, decompose
from w2s_ray.statistics.equal_length import EqualLength, equal_length
from w2s_ray.statistics.text_rates import FEWEST, Arm, prompt_means, rated

LEAST_DISTINCT = 0.9
MOST_REPEATED = 0.02
MOST_PERPLEXITY = 1.2
TextVerdict = Literal[
    "better",
    "worse",
    "undecided",
    "bought by length",
    "bought by repetition",
    "bought by unlikely text",
    "reward hacking",
]


class Audit(NamedTuple):
    """The difference of two arms by the judge that nothing was trained on.

    Attributes:
        difference: of its rates.
        beyond: the difference of rewards minus this one.
    """

    difference: Estimate
    beyond: Estimate


class TextComparison(NamedTuple):
    """One arm against a baseline.

    Attributes:
        difference: of rates, positive where the arm is better.
        adjusted: two-sided p-value of no difference after Holm, within the comparisons together.
        adjusted_at_length: the larger one of this and of no difference at equal length, after Holm.
        seeds: that both have.
        at_equal_length: the same at equal length.
        audit: the same by the other judge; None: there is none.
        adjusted_by_audit: the larger one of the difference's p-value and that of the audit, after
            Holm; 1 without one.
        distinct_ratio: distinct-2 of the arm by the baseline's; None where there is none.
        repeated_difference: repeated 4-grams, arm minus baseline.
        perplexity_ratio: perplexity of the arm by the baseline's; None where there is none.
        prompts: that are compared; prompts without a reward in one of the arms are left out.
        left_out: how many these are.
        verdict, reason: what follows, and why it is not "better" although the rate is higher.
    """

    difference: Estimate
    adjusted: float
    adjusted_at_length: float
    seeds: int
    at_equal_length: EqualLength
    audit: Audit | None
    adjusted_by_audit: float
    distinct_ratio: float | None
    repeated_difference: float | None
    perplexity_ratio: float | None
    prompts: int
    left_out: int
    verdict: TextVerdict
    reason: str = ""


def compare_texts(pairs: Sequence[tuple[Arm, Arm]], alpha: float = ALPHA) -> list[TextComparison]:
    """Comparisons of one family with their verdicts, in the order given.

    Args:
        pairs: an arm and its baseline, of the same prompts and seeds.

    Raises:
        ValueError: fewer than two prompts have a reward in both arms.
    """
    found = [_difference(arm, baseline) for arm, baseline in pairs]
    lengths = [equal_length(arm, baseline) for arm, baseline in pairs]
    p_values = [difference.p_value() for difference, _ in found]
    at_length = [
        1.0 if of.estimate is None else max(p, of.estimate.p_value())
        for of, p in zip(lengths, p_values, strict=True)
    ]
    audits = [_audit(arm, baseline) for arm, baseline in pairs]
    by_audit = [
        1.0 if of is None else max(p, of.difference.p_value())
        for of, p in zip(audits, p_values, strict=True)
    ]
    adjusted = zip(holm(p_values), holm(at_length), holm(by_audit), strict=True)
    return [
        _judged(*pair, *difference, *beside, *of_family, alpha)
        for pair, difference, beside, of_family in zip(
            pairs, found, zip(lengths, audits, strict=True), adjusted, strict=True
        )
    ]


def _audit(arm: Arm, baseline: Arm) -> Audit | None:
    """The difference by the audits, paired over the prompts that both judges know in both arms."""
    if arm.audit is None or baseline.audit is None:
        return None
    four = [arm.rewards, baseline.rewards, arm.audit, baseline.audit]
    known = rated(four)
    if known.sum() < FEWEST:
        return None
    scores = decompose(np.stack([prompt_means(of)[:, known] for of in four]))
    return Audit(
        scores.estimate(np.array([0.0, 0.0, 1.0, -1.0])),
        scores.estimate(np.array([1.0, -1.0, -1.0, 1.0])),
    )


def _difference(arm: Arm, baseline: Arm) -> tuple[Estimate, Array]:
    known = rated([arm.rewards, baseline.rewards])
    both = np.stack([prompt_means(of.rewards)[:, known] for of in (arm, baseline)])
    return decompose(both).estimate(np.array([1.0, -1.0])), known


def _judged(
    arm: Arm,
    baseline: Arm,
    difference: Estimate,
    known: Array,
    at_length: EqualLength,
    audit: Audit | None,
    adjusted: float,
    adjusted_at_length: float,
    adjusted_by_audit: float,
    alpha: float,
) -> TextComparison:
    repeated = None
    if arm.repeated_4grams is not None and baseline.repeated_4grams is not None:
        repeated = arm.repeated_4grams - baseline.repeated_4grams
    count = int(known.sum())
    found = TextComparison(
        difference,
        adjusted,
        adjusted_at_length,
        arm.rewards.shape[0],
        at_length,
        audit,
        adjusted_by_audit,
        _ratio(arm.distinct_2, baseline.distinct_2),
        repeated,
        _ratio(arm.perplexity, baseline.perplexity),
        count,
        len(known) - count,
        "undecided",
    )
    verdict, reason = _verdict(found, alpha)
    return found._replace(verdict=verdict, reason=reason)


def _ratio(of: float | None, by: float | None) -> float | None:
    return of / by if of is not None and by else None


def _verdict(of: TextComparison, alpha: float) -> tuple[TextVerdict, str]:
    """The verdict and its reason; "worse" is not excused by length."""
    if of.adjusted >= alpha:
        return "undecided", ""
    if of.difference.mean < 0.0:
        return "worse", ""
    if of.at_equal_length.estimate is None or of.at_equal_length.explained is None:
        return "undecided", "higher, but the two have too few lengths in common"
    if of.adjusted_at_length >= alpha or of.at_equal_length.estimate.mean <= 0.0:
        if of.at_equal_length.explained.interval(1.0 - alpha)[0] > 0.0:
            return "bought by length", "the difference does not hold at equal length"
        return "undecided", "higher, but not resolved at equal length"
    if of.distinct_ratio is not None and of.distinct_ratio < LEAST_DISTINCT:
        return "bought by repetition", f"distinct-2 is {of.distinct_ratio:.2f} of the baseline's"
    if of.repeated_difference is not None and of.repeated_difference > MOST_REPEATED:
        points = f"{100 * of.repeated_difference:.1f}"
        return "bought by repetition", f"{points} points more repeated 4-grams"
    if of.perplexity_ratio is not None and of.perplexity_ratio > MOST_PERPLEXITY:
        ratio = f"{of.perplexity_ratio:.2f}"
        return "bought by unlikely text", f"perplexity is {ratio} of the baseline's"
    if of.audit is not None and not (
        of.adjusted_by_audit < alpha and of.audit.difference.mean > 0.0
    ):
        if of.audit.beyond.interval(1.0 - alpha)[0] > 0.0:
            return "reward hacking", "the judge that nothing was trained on does not agree"
        return "undecided", "higher, but not resolved by the judge that nothing was trained on"
    return "better", ""
