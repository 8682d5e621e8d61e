"""``features`` whose processes go wrong: one dies over the weak rows, once; test rows are an error.

The step itself, which assembles the parts, is that of the product.
"""

import os
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from w2s_ray.data.tokens import Tokens
from w2s_ray.plan.kinds import KINDS
from w2s_ray.plan.step import Step
from w2s_ray.steps import features
from w2s_ray.steps.context import Context
from w2s_ray.steps.shards import Loaded, Sharded
from w2s_ray.store.artifact import Artifact

FRAGILE = replace(KINDS["features"], module=__name__)
DIED = "died"  # a file beside the store's folder `prepare`

run = features.run


def sharded(step: Step, inputs: Mapping[str, Artifact], context: Context) -> Sharded:
    shards = features.sharded(step, inputs, context)
    died = shards.rows.artifact.folder.parents[1] / DIED
    return replace(shards, load=partial(_load, died, shards.load))


def _load(died: Path, load: Callable[[Sharded], Loaded], shards: Sharded) -> Loaded:
    model = load(shards)

    def compute(tokens: Tokens, progress: Callable[[int], None]) -> NDArray[np.float32]:
        count = len(tokens.row_ids)
        if count == shards.rows.count("weak") and not died.exists():
            died.write_text(str(os.getpid()))
            os._exit(1)
        if count == shards.rows.count("test"):
            raise ValueError("no test rows today")
        return model.compute(tokens, progress)

    return model._replace(compute=compute)
