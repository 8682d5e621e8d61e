"""Contrastive decoding where everything is known: bigram models in tables.

The aligned model has π_post ∝ π_ref exp((r + noise)/β). The reference has habits of its own, and
agrees with the reward more or less from world to world: a small α drops what it knows, a large one
keeps what it does wrong. The expected reward of every α follows from the tables; an experiment of
the size of a study, with answers drawn by the product's own functions, has to find the best α.
"""

from typing import NamedTuple

import numpy as np
import pytest
import torch

from w2s_ray.objectives.contrast import contrastive_scores, draw, tempered
from w2s_ray.statistics.text_rates import Arm, rate
from w2s_ray.statistics.text_verdicts import compare_texts

WORDS, LENGTH = 12, 4
SEEDS, PROMPTS, SAMPLES = 3, 100, 4
ALPHAS = (0.0, 0.25, 0.5, 0.75, 1.0)
RUNS = 200


class World(NamedTuple):
    """(V, V) logits by the word before, and rewards in [0, 1]."""

    reference: torch.Tensor
    aligned: torch.Tensor
    reward: torch.Tensor


def world(run: int, *, rewarded: bool = True) -> World:
    """A reference that agrees with the reward, or does not, and habits that have nothing to do with
    it; an aligned model with half of the reward, and noise."""
    draws = np.random.default_rng(run)
    shape = (WORDS, WORDS)
    wanted, habits, noise = (draws.normal(size=shape) for _ in range(3))
    reference = draws.uniform(-0.5, 1.5) * wanted + habits
    aligned = reference + (0.5 * wanted + 0.5 * noise if rewarded else 0.0)
    reward = 1 / (1 + np.exp(-1.5 * wanted))
    return World(*map(torch.from_numpy, (reference, aligned, reward)))


def scores(of: World, alpha: float) -> torch.Tensor:
    """(V, V) scores of the next word, without a head."""
    return contrastive_scores(of.aligned, of.reference, alpha=alpha, head=0.0)


def expected(of: World, alpha: float) -> float:
    """Mean reward of a text, exactly: the distribution of words is carried along."""
    step = torch.softmax(scores(of, alpha).double(), dim=1)
    now, total = torch.full((WORDS,), 1 / WORDS, dtype=torch.float64), 0.0
    for _ in range(LENGTH):
        total += float(now @ (step * of.reward).sum(dim=1))
        now = now @ step
    return total / LENGTH


def experiment(of: World, alpha: float, run: int) -> Arm:
    """Texts of a study's size, drawn by the product's functions; the first word is the prompt."""
    draws = np.random.default_rng((run, round(100 * alpha)))
    rows = SEEDS * PROMPTS * SAMPLES
    word = torch.arange(PROMPTS).remainder(WORDS).repeat_interleave(SAMPLES).repeat(SEEDS)
    table, total = tempered(scores(of, alpha), 1.0), torch.zeros(rows, dtype=torch.float64)
    for _ in range(LENGTH):
        following = draw(table[word], torch.from_numpy(draws.random(rows)))
        total += of.reward[word, following]
        word = following
    rewards = (total / LENGTH).numpy().reshape(SEEDS, PROMPTS, SAMPLES)
    return Arm(rewards, np.full(rewards.shape, float(LENGTH)), 0.5, 0.0)


@pytest.mark.long
def test_the_best_alpha_is_found_within_a_step_of_the_grid() -> None:
    found, inside = 0, set()
    for run in range(RUNS):
        of = world(run)
        truth = [expected(of, alpha) for alpha in ALPHAS]
        measured = [rate(experiment(of, alpha, run)).mean for alpha in ALPHAS]
        best = int(np.argmax(truth))
        inside.add(best)
        found += abs(int(np.argmax(measured)) - best) <= 1
        assert np.abs(np.subtract(truth, measured)).max() < 0.05
    assert found >= 0.9 * RUNS
    assert len(inside) > 1, "no α is always the best one"


def test_where_alignment_wanted_nothing_nothing_is_decided() -> None:
    """The aligned model is the reference, so the two α draw from nearly one distribution."""
    decided = 0
    for run in range(RUNS):
        of = world(run, rewarded=False)
        (one,) = compare_texts([(experiment(of, 0.999, run), experiment(of, 1.0, run))])
        decided += one.verdict != "undecided"
    assert decided <= 0.05 * RUNS


def coins(run: int, alpha: float) -> Arm:
    """An arm whose verdicts have nothing to do with its texts."""
    draws = np.random.default_rng((run, round(100 * alpha), 1))
    rewards = draws.integers(0, 2, (SEEDS, PROMPTS, SAMPLES)).astype(np.float64)
    return Arm(rewards, np.full(rewards.shape, float(LENGTH)), 0.5, 0.0)


def test_where_no_text_is_better_no_alpha_is() -> None:
    """Of four α compared with plain sampling, hardly ever does one win or lose."""
    decided = 0
    for run in range(RUNS):
        *arms, plain = (coins(run, alpha) for alpha in ALPHAS)
        compared = compare_texts([(arm, plain) for arm in arms])
        decided += any(one.verdict != "undecided" for one in compared)
    assert decided <= 0.05 * RUNS
