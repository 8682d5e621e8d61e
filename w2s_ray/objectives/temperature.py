"""The confidence of weak labels: w → softmax(log w / T), a pure function of stored labels.

For K = 2 this is logit(w) / T. Real fine-tuned weak models are far more confident than a linear
probe, and losses differ most where labels are confident (docs/losses.md §3), so a study can vary T.
"""

import numpy as np
from numpy.typing import NDArray


def at_temperature(soft_labels: NDArray[np.float32], temperature: float) -> NDArray[np.float32]:
    """Sharpen (T < 1) or flatten (T > 1) labels; no temperature changes which class is on top.

    Args:
        soft_labels: (n, K) float32 probabilities.
        temperature: T ≥ 0; 1 returns the labels themselves, and 0 hard labels, shared evenly
            between the classes of a tie.

    Returns:
        (n, K) float32 probabilities; computed in float64, without 0 · ∞ for labels of 0 or 1.

    Raises:
        ValueError: the temperature is negative or not finite.
    """
    if not 0.0 <= temperature < np.inf:
        raise ValueError(f"label temperature {temperature} is not in [0, inf)")
    if temperature == 1.0:
        return soft_labels
    top = soft_labels.max(axis=1, keepdims=True)
    if temperature == 0.0:
        weights = (soft_labels == top).astype(np.float64)
    else:
        weights = (soft_labels.astype(np.float64) / top) ** (1.0 / temperature)
    labels: NDArray[np.float32] = (weights / weights.sum(axis=1, keepdims=True)).astype(np.float32)
    return labels
