"""The best of several settings: excluded at most as often as promised, and no better for luck."""

import numpy as np
import pytest

from w2s_ray.statistics.held_out_choice import FOLDS, Choice, held_out_choice

SEEDS, PROMPTS = 3, 120
FOLD = np.arange(PROMPTS) % FOLDS


def experiment(run: int, means: list[float], *, against: float | None = None) -> Choice:
    """Rates of settings whose truth is known, on prompts that are more or less hard."""
    rng = np.random.default_rng(run)
    hard = rng.normal(0.0, 0.15, (1, PROMPTS))
    scores = [of + hard + rng.normal(0.0, 0.4, (SEEDS, PROMPTS)) for of in means]
    baseline = None if against is None else against + hard + rng.normal(0, 0.4, (SEEDS, PROMPTS))
    return held_out_choice(np.stack(scores), FOLD, baseline)


@pytest.mark.parametrize("means", [[0.4] * 5, [0.3, 0.38, 0.4, 0.38]])
def test_the_best_is_among_the_plausible_ones(means: list[float]) -> None:
    best = int(np.argmax(means))
    kept = sum(best in experiment(run, means).plausible for run in range(200))
    assert kept >= 0.95 * 200


def test_what_is_clearly_worse_is_excluded() -> None:
    found = experiment(0, [0.1, 0.5, 0.2])
    assert (found.best, found.plausible, found.chosen) == (1, (1,), (1, 1))


def test_being_chosen_makes_nothing_look_better() -> None:
    """Eight settings that are all as good as the baseline: the highest mean flatters, and what
    other prompts say of it does not."""
    flattered, held_out, covered = [], [], 0
    for run in range(200):
        found = experiment(run, [0.4] * 8, against=0.4)
        rng = np.random.default_rng(run)
        hard = rng.normal(0.0, 0.15, (1, PROMPTS))
        scores = [0.4 + hard + rng.normal(0.0, 0.4, (SEEDS, PROMPTS)) for _ in range(8)]
        flattered.append(scores[found.best].mean() - 0.4 - hard.mean())
        held_out.append(found.held_out.mean)
        low, high = found.held_out.interval()
        covered += low <= 0.0 <= high
    assert np.mean(flattered) > 0.02
    assert abs(np.mean(held_out)) < 3 * np.std(held_out) / 200**0.5
    assert covered >= 0.92 * 200


def test_the_difference_is_that_of_the_chosen_on_the_prompts_that_did_not_choose() -> None:
    rng = np.random.default_rng(1)
    scores, baseline = rng.random((2, 1, 6)), rng.random((1, 6))
    folds = np.array([0, 1, 1, 0, 1, 0])
    found = held_out_choice(scores, folds, baseline)
    expected = [scores[found.chosen[f], 0, n] - baseline[0, n] for n, f in enumerate(folds)]
    assert found.held_out.mean == pytest.approx(np.mean(expected))
    for fold in range(FOLDS):
        others = scores[:, 0, folds != fold].mean(axis=1)
        assert found.chosen[fold] == others.argmax()
