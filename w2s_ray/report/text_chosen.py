"""A method at the best of its learning rates, which prompts choose that are not scored by it.

No headline is from one learning rate, and the best of several on the test prompts flatters. So the
rate is chosen by one half of the test prompts and scored on the other, both ways round: a method's
answer to a prompt is that of the model whose rate the other half prefers. Transfer prompts choose
nothing, and have the answers of the rate that all test prompts prefer.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from w2s_ray.order import hashes
from w2s_ray.report.text_scores import Row
from w2s_ray.report.text_setting import TextSetting
from w2s_ray.statistics.held_out_choice import FOLDS, Choice, held_out_choice
from w2s_ray.statistics.text_measures import measures
from w2s_ray.statistics.text_rates import FEWEST, prompt_means, rated


class Halves(NamedTuple):
    """Which settings are best, by halves of the prompts that all of them have in all seeds."""

    choice: Choice
    seeds: list[int]


def folds(prompt_ids: Sequence[str]) -> NDArray[np.int64]:
    """(n,) the half that each prompt is in, by its hash; they are equally large, but for one."""
    halves = np.empty(len(prompt_ids), dtype=np.int64)
    halves[hashes(prompt_ids, "halves").argsort()] = np.arange(len(prompt_ids)) % FOLDS
    return halves


def choose(settings: Sequence[TextSetting], baseline: TextSetting | None = None) -> Halves | None:
    """The best of several settings, compared with a baseline; None where there is too little."""
    everyone = [*settings, *([] if baseline is None else [baseline])]
    seeds = sorted(set.intersection(*(set(of.seeds) for of in everyone)))
    arms = [of.arm("test", seeds) for of in everyone]
    rewards = [arm.rewards for arm in arms if arm is not None]
    if not seeds or len(rewards) < len(everyone):
        return None
    known = rated(rewards)
    halves = folds(settings[0].prompt_ids["test"])[known]
    if min(np.bincount(halves, minlength=FOLDS)) < FEWEST:
        return None
    scores = [prompt_means(of)[:, known] for of in rewards]
    against = None if baseline is None else scores.pop()
    return Halves(held_out_choice(np.stack(scores), halves, against), seeds)


def at_chosen_rate(settings: Sequence[TextSetting]) -> TextSetting:
    """One method and α with several learning rates, each prompt answered at the chosen one.

    Where prompts are too few to choose, the setting whose factor is nearest to 1.
    """
    found = choose(settings)
    if found is None:
        return min(settings, key=lambda of: abs(np.log(of.factor or 1.0)))
    halves = dict(
        zip(
            settings[0].prompt_ids["test"],
            folds(settings[0].prompt_ids["test"]).tolist(),
            strict=True,
        )
    )
    rows: list[Row] = []
    samples: dict[str, list[Row]] = {}
    for seed in found.seeds:
        row, answers = _of_seed(settings, found.choice, halves, seed)
        rows.append(row)
        samples[row["key"]] = answers
    chosen = tuple(settings[n].factor or 1.0 for n in found.choice.chosen)
    best = settings[found.choice.best]
    return TextSetting(best.method, best.alpha, rows, samples, best.prompt_ids, chosen=chosen)


def _of_seed(
    settings: Sequence[TextSetting], choice: Choice, halves: Mapping[str, int], seed: int
) -> tuple[Row, list[Row]]:
    """A row of results with measures of its own, and the answers that these are of."""
    rows = [next(row for row in of.rows if row["seed"] == seed) for of in settings]
    answers = [
        sample
        for number, (setting, row) in enumerate(zip(settings, rows, strict=True))
        for sample in setting.samples[row["key"]]
        if number
        == (
            choice.chosen[halves[sample["prompt_id"]]] if sample["split"] == "test" else choice.best
        )
    ]
    texts = [of for of in answers if of["split"] == "test" and of["text"] is not None]
    measured = measures([of["text"] for of in texts], [bool(of["cut_off"]) for of in texts])
    key = "+".join(dict.fromkeys(row["key"] for row in rows))
    return {**rows[choice.best], **measured, "key": key}, answers
