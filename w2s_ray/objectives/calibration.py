"""One temperature for a classifier, fitted by its log-likelihood on rows that it did not learn.

Guo et al. 2017: p = softmax(logits / T). The mean negative log-likelihood is convex in 1/T, so its
minimum is where the derivative changes sign, which bisection finds.
"""

import numpy as np
from numpy.typing import NDArray

from w2s_ray.objectives.noise import noisy_count

HELD_OUT = 0.1
"""Share of the ground-truth rows that calibrate a weak model and do not train it."""
FEWEST_ROWS = 10
"""With fewer ground-truth rows a tenth of them is less than one."""
HOTTEST = 20.0
"""T is in [1/20, 20]; a model that is never wrong, or no better than chance, has no best one."""
BISECTIONS = 60


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


def fitted_temperature(logits: NDArray[np.floating], labels: NDArray[np.int64]) -> float:
    """The T in [1/20, 20] under which softmax(logits / T) is likeliest.

    Args:
        logits: (n, K).
        labels: (n,) true classes.
    """
    z = logits.astype(np.float64)
    true = z[np.arange(len(z)), labels]
    low, high = -np.log(HOTTEST), np.log(HOTTEST)  # of log 1/T
    for _ in range(BISECTIONS):
        middle = (low + high) / 2.0
        scaled = z * np.exp(middle)
        probs = np.exp(scaled - scaled.max(axis=1, keepdims=True))
        probs /= probs.sum(axis=1, keepdims=True)
        slope = ((probs * z).sum(axis=1) - true).mean()
        low, high = (low, middle) if slope > 0.0 else (middle, high)
    return float(np.exp(-(low + high) / 2.0))
