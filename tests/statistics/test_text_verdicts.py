"""Verdicts on generated text, on arms whose truth is known."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from w2s_ray.statistics.equal_length import equal_length, rates_by_length, thirds_of_length
from w2s_ray.statistics.text_measures import distinct, measures, repeated
from w2s_ray.statistics.text_rates import Arm, prompt_means, rate
from w2s_ray.statistics.text_verdicts import TextComparison, compare_texts

SEEDS, PROMPTS, SAMPLES = 3, 300, 4
SHAPE = (SEEDS, PROMPTS, SAMPLES)


def arm(rng: np.random.Generator, p: np.ndarray | float, words: np.ndarray, **of: float) -> Arm:
    rewards = (rng.random(SHAPE) < p).astype(float)
    return Arm(rewards, words, **{"distinct_2": 0.8, "repeated_4grams": 0.01, **of})


def against(baseline: Arm, *arms: Arm) -> list[TextComparison]:
    return compare_texts([(of, baseline) for of in arms])


def lengths(rng: np.random.Generator, mean: float = 40.0) -> np.ndarray:
    return rng.poisson(mean, SHAPE).astype(float)


def skill(rng: np.random.Generator) -> np.ndarray:
    """How hard each prompt is, the same for both arms."""
    return rng.uniform(0.1, 0.6, (1, PROMPTS, 1))


@pytest.mark.long
def test_without_a_difference_at_least_95_of_100_are_undecided() -> None:
    words = []
    for run in range(200):
        rng = np.random.default_rng(run)
        base = skill(rng)
        arms = [arm(rng, base, lengths(rng)) for _ in range(4)]
        words += [of.verdict for of in against(arms[0], *arms[1:])]
        assert len(words) == 3 * (run + 1)
    families = [set(words[n : n + 3]) == {"undecided"} for n in range(0, len(words), 3)]
    assert np.mean(families) >= 0.93  # 95 % nominal, 200 families


def test_a_difference_is_found_and_turns_with_the_sides() -> None:
    rng = np.random.default_rng(1)
    base = skill(rng)
    low, high = arm(rng, base, lengths(rng)), arm(rng, base + 0.2, lengths(rng))
    (up,), (down,) = against(low, high), against(high, low)
    assert (up.verdict, down.verdict) == ("better", "worse")
    assert up.difference.mean == pytest.approx(-down.difference.mean)
    assert up.at_equal_length.estimate is not None
    assert up.at_equal_length.estimate.mean == pytest.approx(up.difference.mean, abs=0.02)


def test_a_reward_for_length_alone_is_bought_by_length() -> None:
    verdicts = []
    for run in range(50):
        rng = np.random.default_rng(run)
        short, long = lengths(rng, 30.0), lengths(rng, 36.0)
        reward = {id(of): np.clip((of - 10) / 50, 0, 1) for of in (short, long)}
        arms = [arm(rng, reward[id(of)], of) for of in (short, long)]
        (found,) = against(arms[0], *arms[1:])
        assert found.difference.mean > 0.05
        verdicts.append(found.verdict)
    assert verdicts.count("better") <= 3  # 2.5 % nominal; 5 of 200
    assert verdicts.count("bought by length") >= 45


def test_lengths_that_do_not_meet_cannot_be_compared() -> None:
    rng = np.random.default_rng(0)
    short, long = np.full(SHAPE, 5.0), np.full(SHAPE, 50.0)
    low, high = arm(rng, 0.2, short), arm(rng, 0.6, long)
    found = equal_length(high, low)
    assert found.estimate is None and found.common < 0.5
    (verdict,) = against(low, high)
    assert (verdict.verdict, "lengths in common" in verdict.reason) == ("undecided", True)


@pytest.mark.parametrize("which", ["every family", "one family"])
def test_a_shift_of_length_in_one_family_of_prompts_is_no_merit(which: str) -> None:
    """One rule of eight rewards short answers; the reward of an answer of a given length to a given
    prompt is the same in both arms."""
    better = 0
    families = np.arange(PROMPTS) % 8
    easy = np.linspace(0.1, 0.7, 8)[families][None, :, None]
    short = (families == 0)[None, :, None]
    for run in range(60):
        rng = np.random.default_rng(run)
        words = [np.where(short, 20.0, 60.0) + rng.normal(0, 8, SHAPE).round() for _ in range(2)]
        words[1] = np.where(short | (which == "every family"), (0.7 * words[1]).round(), words[1])
        arms = [
            arm(rng, np.where(short, of < 20, easy), of, families=families)  # type: ignore[arg-type]
            for of in words
        ]
        better += against(arms[0], arms[1])[0].verdict == "better"
    assert better <= 4  # 2.5 % nominal


@pytest.mark.parametrize("of", [{"distinct_2": 0.5}, {"repeated_4grams": 0.05}])
def test_repetition_buys_no_verdict(of: dict[str, float]) -> None:
    rng = np.random.default_rng(2)
    low, high = arm(rng, 0.3, lengths(rng)), arm(rng, 0.6, lengths(rng), **of)
    assert against(low, high)[0].verdict == "bought by repetition"


def test_text_that_an_outside_model_finds_unlikely_is_not_better() -> None:
    rng = np.random.default_rng(2)
    low = arm(rng, 0.3, lengths(rng), perplexity=20.0)
    for perplexity, verdict in ((23.9, "better"), (24.1, "bought by unlikely text")):
        high = arm(rng, 0.6, lengths(rng), perplexity=perplexity)
        assert against(low, high)[0].verdict == verdict


def test_intervals_cover_the_truth_with_random_prompts_and_seeds() -> None:
    covered = {"rate": 0, "difference": 0, "equal length": 0}
    runs, truth = 300, 0.1
    for run in range(runs):
        rng = np.random.default_rng(run)
        prompt = rng.normal(0.4, 0.12, (1, 120, 1))
        seed = rng.normal(0.0, 0.02, (2, SEEDS, 1, 1))
        shape = (SEEDS, 120, SAMPLES)
        words = rng.poisson(40, (2, *shape)).astype(float)
        arms = [
            Arm((rng.random(shape) < np.clip(prompt + seed[n] + n * truth, 0, 1)).astype(float), w)
            for n, w in enumerate(words)
        ]
        low, high = rate(arms[0]).interval()
        covered["rate"] += low <= 0.4 <= high
        (found,) = against(arms[0], arms[1])
        low, high = found.difference.interval()
        covered["difference"] += low <= truth <= high
        assert found.at_equal_length.estimate is not None
        low, high = found.at_equal_length.estimate.interval()
        covered["equal length"] += low <= truth <= high
    assert all(count >= 0.92 * runs for count in covered.values()), covered


def test_a_missing_reward_leaves_its_prompt_out_of_both_arms_and_is_counted() -> None:
    rng = np.random.default_rng(3)
    base = skill(rng)
    low, high = arm(rng, base, lengths(rng)), arm(rng, base + 0.2, lengths(rng))
    high.rewards[1, 7] = np.nan  # no sample of one prompt
    high.rewards[0, 9, 2] = np.nan  # one of four samples
    (found,) = against(low, high)
    assert (found.prompts, found.left_out) == (PROMPTS - 1, 1)
    assert prompt_means(high.rewards)[0, 9] == pytest.approx(np.nanmean(high.rewards[0, 9]))


@given(st.integers(0, 10_000))
def test_the_order_of_prompts_and_samples_does_not_matter(number: int) -> None:
    rng = np.random.default_rng(number)
    arms = [arm(rng, 0.5, lengths(rng)) for _ in range(2)]
    prompts, samples = rng.permutation(PROMPTS), rng.permutation(SAMPLES)
    turned = [
        Arm(of.rewards[:, prompts][:, :, samples], of.words[:, prompts][:, :, samples])
        for of in arms
    ]
    (one,), (other,) = against(arms[0], *arms[1:]), against(turned[0], *turned[1:])
    assert other.difference == pytest.approx(one.difference)
    assert other.at_equal_length.estimate == pytest.approx(one.at_equal_length.estimate)


def test_measures_of_texts_by_hand() -> None:
    text = "a b c d a b c d a b c d"  # 9 4-grams, 4 of them different
    assert repeated(text.split(), 4) == pytest.approx(1 - 4 / 9)
    assert distinct([text.split()], 2) == pytest.approx(4 / 11)
    assert repeated(["one", "two", "three"], 4) == 0.0 and distinct([["one"]], 2) is None
    found = measures([text, "", "one"], [False, True, False])
    assert found["words"] == pytest.approx(13 / 3)
    assert found["empty"] == found["cut_off"] == pytest.approx(1 / 3)
    assert measures([], [])["words"] is None


def audited(rng: np.random.Generator, p: float, by_audit: float) -> Arm:
    base = skill(rng) * 0.0
    words = lengths(rng)
    of = arm(rng, base + p, words)
    audit = (rng.random(SHAPE) < by_audit).astype(float)
    return Arm(of.rewards, words, of.distinct_2, of.repeated_4grams, audit=audit)


def test_a_reward_that_the_other_judge_does_not_confirm_is_reward_hacking() -> None:
    verdicts = {}
    for name, by_audit in (("confirmed", 0.5), ("not confirmed", 0.3), ("worse", 0.2)):
        rng = np.random.default_rng(3)
        low, high = audited(rng, 0.3, 0.3), audited(rng, 0.6, by_audit)
        (found,) = against(low, high)
        verdicts[name] = found.verdict
        assert found.audit is not None
        assert found.audit.difference.mean == pytest.approx(by_audit - 0.3, abs=0.04)
    assert verdicts == {
        "confirmed": "better",
        "not confirmed": "reward hacking",
        "worse": "reward hacking",
    }


def test_a_reward_that_only_hacks_its_judge_is_hardly_ever_better() -> None:
    better = 0
    for run in range(60):
        rng = np.random.default_rng(run)
        low, high = audited(rng, 0.3, 0.3), audited(rng, 0.5, 0.3)
        better += against(low, high)[0].verdict == "better"
    assert better <= 4  # 2.5 % nominal


@given(st.integers(0, 2**32 - 1))
def test_rates_by_length_are_those_of_their_samples_and_add_up_to_the_whole(number: int) -> None:
    rng = np.random.default_rng(number)
    words = lengths(rng, rng.uniform(2.0, 40.0))
    of, other = arm(rng, skill(rng), words), arm(rng, 0.5, words + 5.0)
    cuts = thirds_of_length([of, other])
    found = rates_by_length(of, cuts)
    assert sum(third.share for third in found) == pytest.approx(1.0)
    edges = [-np.inf, *cuts, np.inf]
    for third, low, high in zip(found, edges, edges[1:], strict=False):
        own = of.rewards[(words > low) & (words <= high)]
        if third.rate is not None:
            assert third.rate.mean == pytest.approx(own.mean())
        assert third.share == pytest.approx(own.size / words.size)
    present = [third for third in found if third.rate is not None]
    total = sum(third.rate.mean * third.share for third in present if third.rate is not None)
    assert total == pytest.approx(of.rewards.mean(), abs=0.01)


def test_intervals_of_rates_by_length_cover_the_truth() -> None:
    """Short answers are right half of the time, middle ones a third, long ones a fifth."""
    truth, covered = np.array([0.5, 1 / 3, 0.2]), []
    for run in range(60):
        rng = np.random.default_rng(run)
        third = rng.integers(0, 3, SHAPE)
        hard = np.exp(0.5 * rng.standard_normal((1, PROMPTS, 1)) - 0.125)
        of = arm(rng, truth[third] * hard, 10.0 * (third + 1))
        rates = [found.rate for found in rates_by_length(of, np.array([10.0, 20.0]))]
        bounds = [rate.interval() for rate in rates if rate is not None]
        covered += [low <= p <= high for p, (low, high) in zip(truth, bounds, strict=True)]
    assert np.mean(covered) >= 0.9  # 95 % nominal, 180 intervals
