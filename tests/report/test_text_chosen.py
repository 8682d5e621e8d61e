"""The learning rate of a prompt's answer is chosen by prompts of the other half."""

from typing import Any

import numpy as np
import pytest

from w2s_ray.report.text_arms import ModelPair, model_pairs
from w2s_ray.report.text_chosen import folds

IDS = [f"p{n:02}" for n in range(40)]
HALVES = dict(zip(sorted(IDS), folds(sorted(IDS)).tolist(), strict=True))


def pair(reward: Any, factors: tuple[float, ...] = (0.5, 1.0, 2.0), seeds: int = 2) -> ModelPair:
    """A pair whose only method has these rewards: ``reward(factor, prompt, seed)``."""
    rows, samples = [], []
    for seed in range(seeds):
        for factor in factors:
            key = f"{seed}-{factor}"
            axes = {"prompts": "p", "weak": "w", "strong": "s", "method": "weak_sft"}
            own = {"alpha": None, "learning_rate_factor": factor, "seed": seed, "key": key}
            rows.append({**axes, **own, "distinct_2": 0.5, "repeated_4grams": 0.0, "words": 2.0})
            for prompt in IDS:
                for split in ("test", "transfer"):
                    samples.append(
                        {
                            "key": key,
                            "split": split,
                            "prompt_id": prompt if split == "test" else f"t-{prompt}",
                            "family": None,
                            "text": f"at {factor}",
                            "words": 2,
                            "cut_off": 0,
                            "reward": reward(factor, prompt, seed),
                            "log_prob": -1.0,
                            "log_prob_reference": -2.0,
                            "outside_log_prob": None,
                        }
                    )
    return model_pairs(rows, samples)[0]


def test_each_half_has_the_answers_that_the_other_prefers() -> None:
    """Half 0 is best at 0.5 and half 1 at 2.0, so each gets what is worst for it."""
    best = {0: 0.5, 1: 2.0}
    of = pair(lambda factor, prompt, seed: float(factor == best[HALVES[prompt]]))
    (chosen,) = of.chosen
    assert chosen.chosen == (2.0, 0.5)
    arm = chosen.arm()
    assert arm is not None and arm.rewards.max() == 0.0
    for row in chosen.answers[0]:
        if row["split"] == "test":
            assert row["text"] == f"at {chosen.chosen[HALVES[row['prompt_id']]]}"


def test_a_rate_that_is_best_everywhere_is_chosen_and_the_method_is_then_that_setting() -> None:
    of = pair(lambda factor, prompt, seed: {0.5: 0.1, 1.0: 0.8, 2.0: 0.3}[factor])
    (chosen,), plain = of.chosen, of.settings[1]
    assert chosen.chosen == (1.0, 1.0)
    assert (chosen.rate("test"), chosen.rate("transfer")) == (
        plain.rate("test"),
        plain.rate("transfer"),
    )
    assert chosen.measured("words") == 2.0
    assert [of.label for of in of.shown] == [
        *(f"weak_sft lr×{factor}" for factor in ("0.5", "1", "2")),
        "weak_sft lr chosen",
    ]


def test_choosing_among_equal_rates_gains_nothing() -> None:
    """Without a difference the best of eight rates is above the truth, the chosen one is not."""
    best, chosen = [], []
    factors = tuple(float(2**n) for n in range(8))
    for run in range(30):
        rng = np.random.default_rng(run)
        of = pair(lambda factor, prompt, seed, rng=rng: float(rng.random() < 0.4), factors, 1)
        rates = [setting.rate("test") for setting in (*of.settings, *of.chosen)]
        means = [rate.estimate.mean for rate in rates if rate is not None]
        best.append(max(means[:-1]) - 0.4)
        chosen.append(means[-1] - 0.4)
    assert np.mean(best) > 0.06
    assert abs(np.mean(chosen)) < 3 * np.std(chosen) / len(chosen) ** 0.5


def test_one_rate_alone_is_no_choice() -> None:
    of = pair(lambda factor, prompt, seed: 0.5, (3.0,))
    assert [setting.label for setting in of.shown] == ["weak_sft"]
    assert of.chosen == of.settings
    assert of.chosen[0].measured("distinct_2") == pytest.approx(0.5)
