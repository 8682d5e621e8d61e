"""Test logits of the evaluated steps before the last, as a trained model's artifact holds them."""

from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray


def step_probs(file: Path | IO[bytes], index: int) -> NDArray[np.float64]:
    """(t, K) probabilities of the test rows at the evaluated step ``index`` (from 0).

    Args:
        file: (E - 1, t, K) float32 logits, or (E - 1, t) log-odds of two classes.

    Raises:
        ValueError: the file is damaged.
    """
    logits = np.load(file, mmap_mode="r" if isinstance(file, Path) else None, allow_pickle=False)
    step = np.asarray(logits[index], dtype=np.float64)
    if step.ndim == 1:
        step = np.stack([np.zeros_like(step), step], axis=1)
    shifted = np.exp(step - step.max(axis=1, keepdims=True))
    probs: NDArray[np.float64] = shifted / shifted.sum(axis=1, keepdims=True)
    return probs
