"""Fieller's interval of the performance gap recovered."""

import numpy as np
import pytest

from w2s_ray.statistics.decomposition import decompose
from w2s_ray.statistics.recovered_gap import GAIN, GAP, recovered_gap


def study(
    rng: np.random.Generator, rows: int, seeds: int, accuracies: tuple[float, float, float]
) -> np.ndarray:
    """(3, S, n) scores of weak model, student and ceiling on rows of different difficulty."""
    difficulty = rng.uniform(0.0, 1.0, rows) * 0.5 + rng.uniform(0.0, 1.0, (3, seeds, rows)) * 0.5
    thresholds = [_quantile(accuracy) for accuracy in accuracies]
    return (difficulty < np.array(thresholds)[:, None, None]).astype(float)


def _quantile(accuracy: float) -> float:
    """Of the mean of two uniform numbers, for accuracies of a half and above."""
    return 1.0 - float(np.sqrt((1.0 - accuracy) / 2.0))


@pytest.mark.parametrize(("seeds", "ceiling"), [(3, 0.744), (5, 0.732)])
def test_it_covers_where_the_gap_is_four_standard_errors(seeds: int, ceiling: float) -> None:
    """500 studies. Where three seeds happen to differ, four errors do not resolve a gap."""
    rng, covered, resolved, errors = np.random.default_rng(1), 0, 0, []
    for _ in range(500):
        scores = decompose(study(rng, 1000, seeds, (0.70, 0.72, ceiling)))
        found = recovered_gap(scores)
        errors.append((ceiling - 0.70) / scores.estimate(GAP).variance ** 0.5)
        if found.low is None or found.high is None:
            continue
        resolved += 1
        covered += found.low <= 0.02 / (ceiling - 0.70) <= found.high
    assert 3.7 < np.mean(errors) < 4.3
    assert resolved > 250
    assert 0.93 - 0.02 <= covered / resolved <= 0.98 + 0.015


def test_an_unresolved_gap_has_a_share_but_no_interval() -> None:
    found = recovered_gap(decompose(study(np.random.default_rng(2), 200, 2, (0.7, 0.7, 0.701))))
    assert not found.is_resolved and found.low is found.high is None
    assert found.gap_low <= 0.0 <= found.gap_high


def test_no_gap_at_all_has_no_share() -> None:
    y = np.zeros((3, 2, 10))
    assert recovered_gap(decompose(y)).value is None


@pytest.mark.parametrize("seeds", [1, 4])
def test_the_share_is_never_clipped_and_its_interval_holds_it(seeds: int) -> None:
    rng = np.random.default_rng(3)
    for accuracies in ((0.6, 0.5, 0.9), (0.6, 0.95, 0.9), (0.9, 0.95, 0.6)):
        y = study(rng, 2000, seeds, accuracies)
        found = recovered_gap(decompose(y))
        weak, student, ceiling = y.mean(axis=(1, 2))
        assert found.value == pytest.approx((student - weak) / (ceiling - weak))
        assert found.low is not None and found.high is not None
        assert found.low < found.value < found.high
        assert not 0.0 <= found.value <= 1.0


def test_with_a_sure_gap_it_is_the_interval_of_the_gain_over_the_gap() -> None:
    rng = np.random.default_rng(4)
    weak, ceiling = np.zeros((1, 500)), np.ones((1, 500))
    student = (rng.random((1, 500)) < 0.3).astype(float)
    found = recovered_gap(decompose(np.stack([weak, student, ceiling])))
    low, high = decompose(student).estimate(np.ones(1)).interval()
    assert (found.low, found.high) == pytest.approx((low, high))


@pytest.mark.parametrize("seeds", [2, 5])
def test_its_ends_are_the_shares_that_a_test_at_its_level_just_rejects(seeds: int) -> None:
    rng = np.random.default_rng(5)
    for level in (0.9, 0.95):
        scores = decompose(study(rng, 2000, seeds, (0.6, 0.7, 0.9)))
        found = recovered_gap(scores, level)
        for end in (found.low, found.high):
            assert end is not None
            assert scores.estimate(GAIN - end * GAP).p_value() == pytest.approx(1 - level, rel=1e-6)


def test_students_that_differ_between_two_seeds_do_not_unmake_a_gap_that_is_resolved() -> None:
    """Of a student at 45 % and one at 95 % nothing is known, but the gap of 35 points is."""
    rng = np.random.default_rng(6)
    y = study(rng, 240, 2, (0.55, 0.7, 0.9))
    y[1] = rng.random((2, 240)) < np.array([[0.45], [0.95]])
    scores = decompose(y)
    found = recovered_gap(scores)
    assert found.gap_low > 0.0
    assert found.low is not None and found.high is not None
    assert found.low < -2.0 and found.high > 3.0


@pytest.mark.parametrize("seeds", [1, 2, 3])
def test_the_share_has_an_interval_where_that_of_the_gap_does_not_hold_0(seeds: int) -> None:
    rng, resolved = np.random.default_rng(7), 0
    for _ in range(60):
        found = recovered_gap(decompose(study(rng, 200, seeds, (0.7, 0.72, 0.76))))
        assert found.is_resolved == (not found.gap_low <= 0.0 <= found.gap_high)
        resolved += found.is_resolved
    assert 0 < resolved < 60
