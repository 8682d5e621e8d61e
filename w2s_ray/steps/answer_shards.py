"""Answers through a model, one shard after the other, each kept as soon as it is done."""

from collections.abc import Callable
from functools import partial

import numpy as np
from numpy.typing import NDArray

from w2s_ray.data.tokens import Tokens
from w2s_ray.steps.context import Context

ANSWERS = 256
"""Answers of a shard."""


def in_shards(
    tokens: Tokens, name: str, make: Callable[[Tokens], NDArray[np.float32]], context: Context
) -> NDArray[np.float32]:
    """What ``make`` gives for the rows of each shard, one after the other.

    Args:
        name: under which the shards are kept.
    """
    count = len(tokens.row_ids)
    parts = []
    for first in range(0, count, ANSWERS):
        done = min(first + ANSWERS, count)
        of_shard = partial(make, tokens.take(np.arange(first, done)))
        parts.append(context.keep(f"{name}-{first:06}-of-{ANSWERS}", of_shard))
        context.progress({"step": done, "steps": count, "unit": "answers"})
    return np.concatenate(parts)
