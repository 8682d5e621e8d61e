"""Which α of contrastive decoding is best, and whether prompts that did not choose it agree."""

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from w2s_ray.order import hashes
from w2s_ray.report.page import Axis, Block, Figure, Line, Text
from w2s_ray.report.text_arms import ModelPair, TextSetting
from w2s_ray.report.text_queries import rates_query
from w2s_ray.statistics.held_out_choice import FOLDS, Choice, held_out_choice
from w2s_ray.statistics.text_verdicts import prompt_means, rated

_FEWEST = 4  # prompts that choose and test: two of each fold


def alpha_blocks(pair: ModelPair, files: tuple[str, str]) -> Iterator[Block]:
    """The curve over α and the best one, of each method that has several."""
    several = [own for own in _by_method(pair).values() if len(own) > 1]
    if not several:
        return
    yield _curve(pair, several, files)
    for settings in several:
        if (sentence := best_alpha(pair, settings)) is not None:
            yield Text(sentence)


def _by_method(pair: ModelPair) -> dict[str, list[TextSetting]]:
    found: dict[str, list[TextSetting]] = {}
    for setting in pair.settings:
        if setting.alpha is not None:
            found.setdefault(setting.method, []).append(setting)
    return found


def _curve(
    pair: ModelPair, several: Sequence[Sequence[TextSetting]], files: tuple[str, str]
) -> Figure:
    lines = []
    for settings in several:
        cells = [setting.rate_cell("test") for setting in settings]
        lines.append(
            Line(
                settings[0].method,
                [setting.alpha or 0.0 for setting in settings],
                [cell.value for cell in cells],
                [cell.low for cell in cells],
                [cell.high for cell in cells],
            )
        )
    return Figure(
        f"alpha-{pair.slug}",
        f"{pair.name}: rate by α, on test prompts: an α chosen here is not confirmed by them.",
        "lines",
        Axis("α"),
        Axis("rate", kind="percent"),
        tuple(lines),
        "Rate against α, one line for each method, with 95 % intervals.",
        rates_query(*files),
    )


def best_alpha(pair: ModelPair, settings: Sequence[TextSetting]) -> str | None:
    """A sentence on the best α of one method; None where prompts or seeds are too few.

    The baseline is the pair's own, over the prompts and seeds that all have.
    """
    found = _choice(settings, pair.baseline)
    if found is None:
        return None
    alphas, choice = [setting.alpha or 0.0 for setting in settings], found
    low, high = choice.held_out.interval()
    numbers = f"{100 * choice.held_out.mean:+.1f} points, {100 * low:+.1f} to {100 * high:+.1f}"
    assert pair.baseline is not None
    return (
        f"{pair.name}, {settings[0].method}: α = {alphas[choice.best]:g} has the highest rate, "
        f"chosen on the test prompts; {_set(alphas, choice)}. Chosen on one half of the prompts "
        f"and tested on the other (α = {_listed(alphas[n] for n in choice.chosen)}), it is "
        f"{numbers}, from {pair.baseline.label}."
    )


def _set(alphas: Sequence[float], choice: Choice) -> str:
    if len(choice.plausible) == 1:
        return "every other one is worse (95 %)"
    return f"the best one may be {_listed(alphas[n] for n in choice.plausible)} (95 %)"


def _listed(values: Iterator[float]) -> str:
    *first, last = dict.fromkeys(f"{value:g}" for value in values)
    return f"{', '.join(first)} or {last}" if first else last


def _choice(settings: Sequence[TextSetting], baseline: TextSetting | None) -> Choice | None:
    if baseline is None:
        return None
    everyone = [*settings, baseline]
    seeds = sorted(set.intersection(*(set(of.seeds) for of in everyone)))
    arms = [of.arm("test", seeds) for of in everyone]
    rewards = [arm.rewards for arm in arms if arm is not None]
    if not seeds or len(rewards) < len(everyone):
        return None
    known = rated(rewards)
    folds = _folds(np.array(baseline.prompt_ids["test"])[known].tolist())
    if len(folds) < _FEWEST:
        return None
    *own, against = (prompt_means(of)[:, known] for of in rewards)
    return held_out_choice(np.stack(own), folds, against)


def _folds(prompt_ids: Sequence[str]) -> NDArray[np.int64]:
    """(n,) the fold of each prompt: equally many of each, by their hashes."""
    folds = np.empty(len(prompt_ids), dtype=np.int64)
    folds[hashes(prompt_ids, "alpha").argsort()] = np.arange(len(prompt_ids)) % FOLDS
    return folds
