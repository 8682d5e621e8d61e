"""Test logits of the evaluated steps before the last, as a trained model's artifact holds them."""

from typing import Any

import numpy as np
from numpy.typing import NDArray


def step_probs(logits: NDArray[Any], index: int) -> NDArray[np.float64]:
    """(t, K) probabilities of the test rows at the evaluated step ``index`` (from 0).

    Args:
        logits: (E - 1, t, K) float32, or (E - 1, t) log-odds of two classes.
    """
    step = np.asarray(logits[index], dtype=np.float64)
    if step.ndim == 1:
        step = np.stack([np.zeros_like(step), step], axis=1)
    shifted = np.exp(step - step.max(axis=1, keepdims=True))
    probs: NDArray[np.float64] = shifted / shifted.sum(axis=1, keepdims=True)
    return probs
