"""The statistics of a study against those of statsmodels, which computes them in other ways."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from statsmodels.formula.api import ols
from statsmodels.stats import contingency_tables
from statsmodels.stats.anova import anova_lm
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.power import TTestPower
from statsmodels.stats.proportion import proportion_confint
from statsmodels.stats.weightstats import ttost_paired

from w2s_ray.statistics.comparisons import equivalence, holm, mcnemar
from w2s_ray.statistics.decomposition import Components, Estimate, decompose, mean
from w2s_ray.statistics.power import smallest_difference
from w2s_ray.statistics.proportions import wilson


@pytest.mark.parametrize("count", [1, 7, 40])
def test_holm(count: int) -> None:
    """Few cases: multipletests takes 0.15 s. Holm's definition is held in ``test_comparisons``."""
    p_values = [float(p) for p in np.random.default_rng(count).beta(0.5, 2.0, count)]
    np.testing.assert_allclose(holm(p_values), multipletests(p_values, method="holm")[1])


@given(st.integers(0, 400), st.integers(1, 400))
def test_wilson(right: int, rows: int) -> None:
    assume(right <= rows)
    low, high = wilson(right / rows, rows)
    assert (low, high) == pytest.approx(proportion_confint(right, rows, method="wilson"), abs=1e-6)


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=60))
def test_mcnemar(pairs: list[tuple[bool, bool]]) -> None:
    first, second = np.array(pairs, dtype=np.float64).T
    table = [[int(((first == a) & (second == b)).sum()) for b in (1, 0)] for a in (1, 0)]
    ours = mcnemar(first, second)
    assert [ours.gained, ours.lost] == [table[0][1], table[1][0]]
    if ours.gained + ours.lost:
        theirs = contingency_tables.mcnemar(table, exact=True).pvalue
        assert ours.p_value == pytest.approx(theirs)


def test_two_one_sided_tests() -> None:
    rng = np.random.default_rng(0)
    first, second = rng.normal(0.7, 0.2, 250), rng.normal(0.7, 0.2, 250)
    ours = Estimate(*mean((first - second)[None])[:3])  # numbers, no scores of 0 and 1
    assert equivalence(ours, 0.03) == pytest.approx(ttost_paired(first, second, -0.03, 0.03)[0])


@given(st.integers(0, 2**32 - 1), st.integers(2, 5), st.integers(3, 30))
def test_mean_squares_of_rows_and_seeds(seed: int, seeds: int, rows: int) -> None:
    rng = np.random.default_rng(seed)
    y = rng.normal(size=(seeds, rows)) + rng.normal(size=rows) + rng.normal(size=(seeds, 1))
    table = pd.DataFrame(
        {
            "y": y.ravel(),
            "seed": np.repeat(np.arange(seeds), rows),
            "row": np.tile(np.arange(rows), seeds),
        }
    )
    squares = anova_lm(ols("y ~ C(row) + C(seed)", table).fit())["sum_sq"] / [
        rows - 1,
        seeds - 1,
        (rows - 1) * (seeds - 1),
    ]
    ours = decompose(y)
    got = [float(of.item()) for of in (ours.of_rows, ours.of_seeds, ours.of_rest)]
    np.testing.assert_allclose(got, squares.to_numpy(), rtol=1e-9)


@given(st.integers(0, 2**32 - 1))
def test_rows_of_one_prompt_are_a_cluster(seed: int) -> None:
    """With one seed the error is that of a regression on a constant, robust to clusters."""
    rng = np.random.default_rng(seed)
    groups = np.unique(rng.integers(0, 25, 80), return_inverse=True)[1]
    y = rng.normal(size=25)[groups] + rng.normal(size=80)
    theirs = ols("y ~ 1", pd.DataFrame({"y": y})).fit(
        cov_type="cluster", cov_kwds={"groups": groups}
    )
    ours = mean(y[None], groups)
    assert ours.mean == pytest.approx(theirs.params["Intercept"])
    assert ours.variance**0.5 == pytest.approx(theirs.bse["Intercept"])


@pytest.mark.parametrize("rows", [3, 30, 300, 4000])
def test_power_of_one_seed(rows: int) -> None:
    spread = 0.25
    ours = smallest_difference(Components(spread**2, 0.0, 0.0, has_seeds=False), rows, 1)
    exact = TTestPower().solve_power(nobs=rows, alpha=0.05, power=0.8) * spread
    assert ours == pytest.approx(exact, rel=1e-4)
