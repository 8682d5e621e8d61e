"""Scores that are not finite, with the weights at fault where there are any."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from w2s_ray.finite import rows_not_finite


def check_scores(
    values: NDArray[np.floating], what: str, row_ids: Sequence[str], module: nn.Module
) -> None:
    """Refuses what a model makes of rows if it is not finite.

    The weights are read only then, so the check costs nothing where all is well.

    Args:
        values: (n, …).
        what: they are, in the plural.
        module: the model.

    Raises:
        FloatingPointError: a number is not finite; names the row, and the first such parameter.
    """
    if problem := rows_not_finite(values, what, row_ids):
        raise FloatingPointError(problem + weights_not_finite(module))


def weights_not_finite(module: nn.Module) -> str:
    """``; so are 3 numbers of its weights NAME`` for the first such parameter; "" for none."""
    for name, parameter in module.named_parameters():
        bad = int((~torch.isfinite(parameter.detach())).sum())
        if bad:
            numbers = "numbers" if bad > 1 else "number"
            return f"; so are {bad:,} {numbers} of the weights {name}"
    return ""
