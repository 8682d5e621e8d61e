"""Scores of answers that are no rewards: distance from the model before training, perplexity.

Means are over prompts and seeds: of each prompt and seed over its answers first.
"""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from math import exp
from statistics import fmean
from typing import Any

import numpy as np

from w2s_ray.report.page import Cell
from w2s_ray.statistics.decomposition import Array, Estimate, mean
from w2s_ray.statistics.text_rates import FEWEST

Row = Mapping[str, Any]
Rows = Sequence[Sequence[Row]]
"""The samples of each cell of a setting."""
Value = Callable[[Row], float | None]


def log_ratio(row: Row) -> float | None:
    """log π - log π_ref of an answer and its end; None where there is no reference."""
    if row["log_prob"] is None or row["log_prob_reference"] is None:
        return None
    ratio: float = row["log_prob"] - row["log_prob_reference"]
    return ratio


def nats_per_token(row: Row) -> float | None:
    """-log p of a text by its tokens under the outside model; None where it has none."""
    if row.get("outside_log_prob") is None:  # tables of before 2026-11-28 have no such column
        return None
    nats: float = -row["outside_log_prob"] / row["outside_tokens"]
    return nats


def distance(samples: Rows) -> Cell:
    """Mean log-ratio of an answer to the model before training, with its interval."""
    values = _per_prompt(samples, log_ratio)
    return Cell() if values is None else _cell(mean(values))


def distance_per_token(samples: Rows) -> Cell:
    """The log-ratio of all answers by all their tokens, their ends counted, with its interval.

    It is a ratio of two means, so its error is that of the linearised values.
    """

    def length(row: Row) -> float | None:
        return None if log_ratio(row) is None else row["tokens"] + 1 - row["cut_off"]

    ratios, lengths = _per_prompt(samples, log_ratio), _per_prompt(samples, length)
    if ratios is None or lengths is None or not lengths.mean():
        return Cell()
    rate = ratios.mean() / lengths.mean()
    return _cell(mean(rate + (ratios - rate * lengths) / lengths.mean()))


def perplexity(samples: Rows) -> Cell:
    """The geometric mean of the answers' perplexities, with its interval."""
    values = _per_prompt(samples, nats_per_token)
    if values is None:
        return Cell()
    found = mean(values)
    low, high = found.interval()
    return Cell(exp(found.mean), exp(low), exp(high))


def _cell(estimate: Estimate) -> Cell:
    return Cell(estimate.mean, *estimate.interval())


def _per_prompt(samples: Rows, value: Value) -> Array | None:
    """(S, n) mean of each prompt's answers, of the prompts that all seeds have; None without."""
    by_seed: list[dict[str, float]] = []
    for rows in samples:
        of_prompt: dict[str, list[float]] = defaultdict(list)
        for row in rows:
            if row["split"] == "test" and (found := value(row)) is not None:
                of_prompt[row["prompt_id"]].append(found)
        by_seed.append({name: fmean(values) for name, values in of_prompt.items()})
    shared = sorted(set.intersection(*map(set, by_seed))) if by_seed else []
    if len(shared) < FEWEST:
        return None
    return np.array([[of[name] for name in shared] for of in by_seed])
