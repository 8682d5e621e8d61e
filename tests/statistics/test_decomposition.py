"""Intervals over rows and seeds: against scipy where it has them, by simulation elsewhere."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import stats

from w2s_ray.statistics.decomposition import (
    Components,
    decompose,
    group_indices,
    mean,
)
from w2s_ray.statistics.proportions import proportion_interval, wilson

scores = arrays(
    np.float64,
    st.tuples(st.integers(1, 5), st.integers(2, 12)),
    elements=st.sampled_from([0.0, 0.5, 1.0]),
)


def simulated(
    rng: np.random.Generator, rows: int, seeds: int, seed_sd: float, accuracy: float = 0.8
) -> np.ndarray:
    """(S, n) right or wrong: rows differ in difficulty, seeds shift all of them."""
    difficulty = rng.normal(0.0, 1.0, rows)
    slope = stats.norm.pdf(stats.norm.ppf(accuracy)) / np.sqrt(2.0)
    shift = rng.normal(0.0, seed_sd / slope / np.sqrt(2.0), seeds)[:, None]
    threshold = stats.norm.ppf(accuracy) * np.sqrt(2.0)
    return (difficulty + rng.normal(0.0, 1.0, (seeds, rows)) < threshold + shift).astype(float)


def expected_accuracy(seed_sd: float, accuracy: float = 0.8) -> float:
    slope = stats.norm.pdf(stats.norm.ppf(accuracy)) / np.sqrt(2.0)
    spread = np.sqrt(2.0 + (seed_sd / slope / np.sqrt(2.0)) ** 2)
    return float(stats.norm.cdf(stats.norm.ppf(accuracy) * np.sqrt(2.0) / spread))


def by_definition(y: np.ndarray) -> tuple[float, float]:
    """V and df of the formulas in ``decomposition``, with loops."""
    seeds, rows = y.shape
    grand = y.mean()
    of_rows = seeds * sum((y[:, i].mean() - grand) ** 2 for i in range(rows)) / (rows - 1)
    if seeds == 1:
        return of_rows / rows, rows - 1
    of_seeds = rows * sum((y[s].mean() - grand) ** 2 for s in range(seeds)) / (seeds - 1)
    rest = sum(
        (y[s, i] - y[:, i].mean() - y[s].mean() + grand) ** 2
        for s in range(seeds)
        for i in range(rows)
    ) / ((rows - 1) * (seeds - 1))
    variance = (of_rows + max(of_seeds - rest, 0.0)) / (rows * seeds)
    error = (of_rows / (rows * seeds)) ** 2 / (rows - 1)
    error += (of_seeds / (rows * seeds)) ** 2 / (seeds - 1)
    return variance, max(1.0, variance**2 / error) if variance else rows - 1


@given(scores)
def test_mean_squares_are_those_of_the_definition(y: np.ndarray) -> None:
    estimate = mean(y)
    variance, df = by_definition(y)
    assert estimate.mean == pytest.approx(y.mean())
    assert estimate.variance == pytest.approx(variance, abs=1e-12)
    if variance > 1e-9:
        assert estimate.df == pytest.approx(df, rel=1e-6)


@given(scores)
def test_groups_of_one_row_change_nothing(y: np.ndarray) -> None:
    alone = np.random.default_rng(0).permutation(y.shape[1])
    assert mean(y, alone).variance == pytest.approx(mean(y).variance, abs=1e-12)
    assert group_indices([str(n) for n in alone]) is None


@given(scores, st.integers(2, 4))
def test_rows_that_are_copies_count_once(y: np.ndarray, copies: int) -> None:
    """Copies grouped by their prompt are the rows themselves."""
    groups = np.repeat(np.arange(y.shape[1]), copies)
    copied = np.repeat(y, copies, axis=1)
    grouped, once = mean(copied, groups), mean(y)
    assert grouped.mean == pytest.approx(once.mean)
    assert grouped.variance == pytest.approx(once.variance, abs=1e-12)


def test_one_seed_is_the_t_interval_over_rows() -> None:
    y = np.random.default_rng(1).random((1, 40))
    expected = stats.ttest_1samp(y[0], 0.0).confidence_interval(0.95)
    assert mean(y).interval() == pytest.approx((expected.low, expected.high))
    assert mean(y).p_value(0.4) == pytest.approx(stats.ttest_1samp(y[0], 0.4).pvalue)


def test_seeds_that_are_all_that_varies_give_the_t_interval_over_seeds() -> None:
    of_seed = np.array([0.70, 0.72, 0.75, 0.71, 0.69])
    y = np.tile(of_seed[:, None], 30)
    expected = stats.ttest_1samp(of_seed, 0.0).confidence_interval(0.95)
    assert mean(y).interval() == pytest.approx((expected.low, expected.high))


def test_a_paired_difference_is_the_difference_of_two_scores() -> None:
    rng = np.random.default_rng(2)
    a, b = rng.random((2, 3, 50))
    both = decompose(np.stack([a, b])).estimate(np.array([1.0, -1.0]))
    assert both == pytest.approx(mean(a - b))


def test_components_give_the_variance_again_where_seeds_matter() -> None:
    y = simulated(np.random.default_rng(3), 500, 6, 0.05)
    of = decompose(y)
    components = of.components(np.ones(1))
    assert components.variance(500, 6) == pytest.approx(of.estimate(np.ones(1)).variance)
    assert isinstance(components, Components) and components.has_seeds


def test_a_missing_score_is_refused() -> None:
    with pytest.raises(ValueError, match="missing"):
        mean(np.array([[1.0, np.nan]]))


@pytest.mark.long
@pytest.mark.parametrize("seed_sd", [0.0, 0.01, 0.02, 0.05])
@pytest.mark.parametrize(("rows", "seeds"), [(300, 3), (300, 5), (1000, 10), (4000, 5)])
def test_intervals_cover(rows: int, seeds: int, seed_sd: float) -> None:
    """Nominal 95 %, of 500 studies each; one standard error of the share is 1 point."""
    rng = np.random.default_rng([rows, seeds, int(1000 * seed_sd)])
    truth = expected_accuracy(seed_sd)
    studies = 500
    covered = 0
    for _ in range(studies):
        low, high = mean(simulated(rng, rows, seeds, seed_sd)).interval()
        covered += low <= truth <= high
    assert 0.93 - 0.02 <= covered / studies <= 0.975 + 0.015


@pytest.mark.parametrize(("p", "rows"), [(0.5, 20), (0.98, 50), (0.995, 400), (0.9, 120)])
def test_wilson_is_that_of_scipy_and_covers_where_rows_are_few(p: float, rows: int) -> None:
    rng = np.random.default_rng(rows)
    right = round(p * rows)
    expected = stats.binomtest(right, rows).proportion_ci(method="wilson")
    assert wilson(right / rows, rows) == pytest.approx((expected.low, expected.high), abs=1e-6)
    covered, by_t = 0, 0
    for _ in range(1000):
        y = (rng.random((1, rows)) < p).astype(float)
        estimate = mean(y)
        low, high, method = proportion_interval(estimate)
        assert 0.0 <= low <= y.mean() <= high <= 1.0
        covered += low <= p <= high
        by_t += estimate.interval()[0] <= p <= estimate.interval()[1]
        assert method == "wilson" or rows >= 200
    assert covered / 1000 > 0.93
    assert by_t < covered or p < 0.95  # near an end the other one does not cover


@pytest.mark.parametrize(("prompts", "each", "p"), [(20, 50, 0.95), (200, 10, 0.99), (20, 20, 0.5)])
def test_rows_of_one_prompt_are_one_row_for_wilson(prompts: int, each: int, p: float) -> None:
    """All rows of a prompt are right or wrong together."""
    rng, covered = np.random.default_rng(prompts), 0
    groups = np.repeat(np.arange(prompts), each)
    for _ in range(1000):
        y = (rng.random(prompts) < p).astype(float)[groups]
        low, high, _ = proportion_interval(mean(y[None], groups))
        covered += low <= p <= high
    assert covered / 1000 > 0.93
    all_right = mean(np.ones((1, len(groups))), groups)
    assert proportion_interval(all_right) == proportion_interval(mean(np.ones((1, prompts))))


@pytest.mark.parametrize("sizes", [[5] * 19 + [50], [1] * 199 + [199]])
def test_one_large_group_has_few_degrees_of_freedom(sizes: list[int]) -> None:
    """Coverage was 91 and 51 % with those of the number of groups."""
    rng, covered = np.random.default_rng(0), 0
    groups = np.repeat(np.arange(len(sizes)), sizes)
    for _ in range(1000):
        of_group = rng.beta(2.8, 1.2, len(sizes))
        y = (rng.random((1, len(groups))) < of_group[groups]).astype(float)
        low, high = mean(y, groups).interval()
        covered += low <= 0.7 <= high
    assert covered / 1000 > 0.92


@pytest.mark.parametrize(("weak_sd", "seed_sd"), [(0.01, 0.03), (0.0, 0.0), (0.03, 0.01)])
def test_seeds_crossed_with_weak_models_are_in_the_interval(weak_sd: float, seed_sd: float) -> None:
    """Without the crossed factor the first of these covers in 86 %."""
    rng, covered = np.random.default_rng(0), 0
    for _ in range(300):
        weak, seeds = rng.normal(0.0, weak_sd, (5, 1, 1)), rng.normal(0.0, seed_sd, (1, 5, 1))
        y = 0.7 + weak + seeds + rng.normal(0.0, 0.3, 400) + rng.normal(0.0, 0.35, (5, 5, 400))
        low, high = decompose(y.mean(axis=1), y.mean(axis=0)).estimate(np.ones(1)).interval()
        covered += low <= 0.7 <= high
    assert covered / 300 > 0.91


@given(scores)
def test_a_crossed_factor_of_one_seed_adds_nothing(y: np.ndarray) -> None:
    plain = decompose(y).estimate(np.ones(1))
    assert decompose(y, y.mean(axis=0, keepdims=True)).estimate(np.ones(1)) == plain


def test_many_rows_far_from_an_end_have_the_t_interval() -> None:
    y = simulated(np.random.default_rng(5), 1000, 3, 0.01)
    assert proportion_interval(mean(y)) == (*mean(y).interval(), "t")


def test_the_interval_of_an_accuracy_is_cut_where_accuracies_end() -> None:
    """Two seeds that differ much have a t interval of many times the range."""
    y = np.random.default_rng(3).random((2, 500)) < np.array([[0.4], [0.9]])
    estimate = mean(y.astype(float))
    assert estimate.interval()[0] < 0.0 and estimate.interval()[1] > 1.0
    assert proportion_interval(estimate) == (0.0, 1.0, "t")
