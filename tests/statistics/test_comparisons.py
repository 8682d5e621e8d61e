"""Verdicts say no more than their tests: against scipy, and over simulated families."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from w2s_ray.statistics.comparisons import compare, equivalence, holm, mcnemar
from w2s_ray.statistics.decomposition import Components, Estimate, decompose, mean
from w2s_ray.statistics.power import (
    published_resolution,
    rows_needed,
    seeds_needed,
    smallest_difference,
)
from w2s_ray.statistics.summaries import robust

MARGIN = 0.01


@given(st.lists(st.floats(0.0, 1.0), min_size=1, max_size=12))
def test_holm_is_the_step_down_of_its_definition(p_values: list[float]) -> None:
    adjusted = holm(p_values)
    for threshold in (0.001, 0.01, 0.05, 0.2, 0.7):
        rejected = set()
        for rank, index in enumerate(np.argsort(p_values, kind="stable")):
            if p_values[index] * (len(p_values) - rank) > threshold:
                break
            rejected.add(int(index))
        assert {i for i, p in enumerate(adjusted) if p <= threshold} == rejected


def test_equivalence_is_two_one_sided_tests() -> None:
    y = np.random.default_rng(0).normal(0.002, 0.05, (1, 300))
    above = stats.ttest_1samp(y[0], -MARGIN, alternative="greater").pvalue
    below = stats.ttest_1samp(y[0], MARGIN, alternative="less").pvalue
    of_numbers = Estimate(*mean(y)[:3])  # no scores of 0 and 1, whose discordant rows are counted
    assert equivalence(of_numbers, MARGIN) == pytest.approx(max(above, below))
    assert equivalence(Estimate(0.02, 0.0, 10.0), MARGIN) == 1.0


def test_equal_answers_on_few_rows_show_no_equivalence() -> None:
    """No discordant row of n excludes a share of 0.01 with p = 0.99 ** n."""
    for rows in (60, 200, 500):
        same = mean(np.zeros((1, rows)))
        assert equivalence(same, MARGIN) == pytest.approx(0.99**rows)
    assert compare([mean(np.zeros((3, 60)))], MARGIN)[0].verdict == "undecided"
    assert compare([mean(np.zeros((3, 500)))], MARGIN)[0].verdict == "equivalent"


def test_few_rows_that_agree_by_chance_claim_no_more_than_a_sign_test() -> None:
    for rows in (2, 3, 5, 8):
        all_gained = mean(np.ones((2, rows)))
        assert all_gained.p_value() == pytest.approx(stats.binomtest(rows, rows).pvalue)
    rng, claims = np.random.default_rng(0), 0
    for _ in range(1000):
        of_prompt = rng.choice([-0.1, 0.1], 3)  # no true difference
        claims += mean(np.repeat(of_prompt, 10)[None], np.repeat(np.arange(3), 10)).p_value() < 0.05
    assert claims / 1000 <= 0.05


def difference(rng: np.random.Generator, rows: int, seeds: int, gap: float) -> np.ndarray:
    """(S, n) paired differences −1, 0, 1 with this mean, and seeds that differ by 0.3 points."""
    tilt = gap + rng.normal(0.0, 0.003, seeds)[:, None]
    drawn = rng.random((seeds, rows))
    return (drawn < 0.05 + tilt / 2).astype(float) - (drawn > 0.95 + tilt / 2).astype(float)


def test_twenty_equal_ways_are_rarely_called_different() -> None:
    rng, studies = np.random.default_rng(1), 200
    wrong = 0
    for _ in range(studies):
        family = [mean(difference(rng, 1000, 3, 0.0)) for _ in range(20)]
        verdicts = {comparison.verdict for comparison in compare(family, MARGIN)}
        wrong += bool(verdicts & {"better", "worse"})
    assert wrong / studies <= 0.05 + 0.025


def test_the_right_one_wins_as_often_as_power_says_and_the_wrong_one_hardly_ever() -> None:
    rng, rows, seeds = np.random.default_rng(2), 2000, 5
    components = decompose(difference(rng, 10**5, 200, 0.0)).components(np.ones(1))
    gap = smallest_difference(components, rows, seeds)
    verdicts = [
        compare([mean(difference(rng, rows, seeds, gap))], margin=gap / 10)[0].verdict
        for _ in range(500)
    ]
    assert 0.76 <= verdicts.count("better") / 500 <= 0.9
    assert verdicts.count("worse") <= 0.025 * 500
    assert seeds_needed(components, gap, rows) == seeds
    needed = rows_needed(components, gap, seeds)
    assert needed is not None and abs(needed - rows) <= 1
    # No number of rows finds what lies within the spread of three seeds.
    assert rows_needed(components, 0.001, 3) is None


def test_verdicts_are_words_for_their_tests() -> None:
    estimates = [
        Estimate(0.05, 1e-4, 50.0),
        Estimate(-0.05, 1e-4, 50.0),
        Estimate(0.0005, 1e-6, 50.0),
        Estimate(0.01, 1e-3, 50.0),
    ]
    found = compare(estimates, MARGIN)
    assert [of.verdict for of in found] == ["better", "worse", "equivalent", "undecided"]
    assert all(of.adjusted >= of.p_value for of in found)


def test_one_collapsed_seed_of_five_flips_no_verdict() -> None:
    rng = np.random.default_rng(3)
    for _ in range(50):
        y = difference(rng, 2000, 5, 0.0)
        y[0] -= 0.4  # the first way collapsed in one seed
        assert compare([mean(y)], MARGIN)[0].verdict == "undecided"
        good = difference(rng, 2000, 5, 0.03)
        good[0] -= 0.4
        assert compare([mean(good)], MARGIN)[0].verdict != "worse"
        assert robust([float(v) for v in good.mean(axis=1)]).median > 0.0


def test_mcnemar_is_exact_and_of_one_seed() -> None:
    first = np.array([1.0] * 30 + [0.0] * 12 + [1.0] * 50 + [0.5])
    second = np.array([0.0] * 30 + [1.0] * 12 + [1.0] * 50 + [0.0])
    found = mcnemar(first, second)
    assert (found.gained, found.lost) == (30, 12)
    assert found.p_value == pytest.approx(stats.binomtest(30, 42).pvalue)
    assert mcnemar(first, first).p_value == 1.0
    with pytest.raises(ValueError, match="one seed"):
        mcnemar(np.ones((2, 3)), np.ones((2, 3)))


def test_what_published_tables_could_resolve() -> None:
    """4,000 rows of which 5 % are discordant: about one point (``docs/protocol.md``, section 2)."""
    assert published_resolution(4000) == pytest.approx(0.0099, abs=1e-4)


@pytest.mark.parametrize("seeds", [2, 3, 5])
def test_power_holds_with_few_seeds_too(seeds: int) -> None:
    rng, rows, components = np.random.default_rng(seeds), 400, Components(0.04, 1e-4, 0.04, True)
    gap, found = smallest_difference(components, rows, seeds), 0
    for _ in range(1000):
        y = gap + rng.normal(0.0, 0.2, rows) + rng.normal(0.0, 0.01, (seeds, 1))
        found += mean(y + rng.normal(0.0, 0.2, (seeds, rows))).p_value() < 0.05
    assert 0.77 <= found / 1000 <= 0.86


@given(st.lists(st.floats(0.0, 1.0), min_size=1, max_size=25))
def test_the_interquartile_mean_is_a_trimmed_mean(values: list[float]) -> None:
    assert robust(values).interquartile_mean == pytest.approx(stats.trim_mean(values, 0.25))
    assert robust(values).median == pytest.approx(np.median(values))


def test_robust_summaries_ignore_one_collapsed_seed() -> None:
    assert robust([0.7, 0.71, 0.72, 0.73, 0.1]).median == 0.71
    assert robust([0.7, 0.71, 0.72, 0.73, 0.1]).interquartile_mean == pytest.approx(0.71, abs=0.01)
    with pytest.raises(ValueError, match="no value"):
        robust([])
