"""Which rows calibrate a weak model: a tenth of the ground truth, which it then does not learn."""

import numpy as np
from numpy.typing import NDArray

from w2s_ray.objectives.noise import noisy_count

HELD_OUT = 0.1
"""Share of the ground-truth rows that calibrate a weak model and do not train it."""
FEWEST_ROWS = 10
"""With fewer ground-truth rows a tenth of them is less than one."""


def held_out(hashes: NDArray[np.uint64]) -> NDArray[np.int64]:
    """Positions of the rows that calibrate: a tenth, those with the lowest hashes, ascending.

    Raises:
        ValueError: there are fewer than ``FEWEST_ROWS`` rows.
    """
    if len(hashes) < FEWEST_ROWS:
        raise ValueError(
            f"training.weak.calibrate: {len(hashes)} ground-truth rows, expected at least "
            f"{FEWEST_ROWS}, since a tenth of them is held out"
        )
    return np.sort(np.argsort(hashes, kind="stable")[: noisy_count(len(hashes), HELD_OUT)])
