"""Label noise for a student's weak labels: w -> 1/K + strength (w - 1/K) on some of the rows.

The noisy rows are those with the lowest hashes (``w2s_ray.order.hashes(row_ids, seed, "noise")``).
So the rows drawn at 10 % are among those drawn at 20 %, and file order changes nothing. Noise is
never applied to test labels, and the stored labels are not modified. All cases: docs/losses.md §3.
"""

from decimal import ROUND_HALF_UP, Decimal

import numpy as np
from numpy.typing import NDArray


def noisy_count(rows: int, ratio: float) -> int:
    """``ratio * rows`` rounded half up, in decimal arithmetic (0.29 of 50 rows is 15)."""
    return int((Decimal(repr(float(ratio))) * rows).to_integral_value(ROUND_HALF_UP))


def noisy_rows(hashes: NDArray[np.uint64], ratio: float) -> NDArray[np.int64]:
    """Indices of the rows with the lowest of (n,) hashes, that share of them."""
    return np.argsort(hashes, kind="stable")[: noisy_count(len(hashes), ratio)]


def apply_noise(
    soft_labels: NDArray[np.float32], hashes: NDArray[np.uint64], ratio: float, strength: float
) -> NDArray[np.float32]:
    """Apply noise to the rows with the lowest hashes; all other rows stay bit-identical.

    Args:
        soft_labels: (n, K) float32 probabilities.
        hashes: (n,) uint64, one per row.
        ratio: fraction of noisy rows, in [0, 1].
        strength: 1 keeps a label, 0 replaces it by 1/K, and -1 with K = 2 flips the preference and
            keeps its confidence. With K > 2, -1 swaps the top class's probability with that of
            another class drawn from the row's hash.

    Returns:
        The labels with noise, (n, K) float32.

    Raises:
        ValueError: an argument is out of range, or strength is between -1 and 0 with K > 2.
    """
    rows, classes = soft_labels.shape
    if hashes.shape != (rows,):
        raise ValueError(f"{rows} labels, but hashes of shape {hashes.shape}")
    if not 0.0 <= ratio <= 1.0:
        raise ValueError(f"noise ratio {ratio} is not in [0, 1]")
    if not -1.0 <= strength <= 1.0:
        raise ValueError(f"noise strength {strength} is not in [-1, 1]")
    if classes > 2 and -1.0 < strength < 0.0:
        raise ValueError(f"noise strength {strength} with {classes} classes: -1 or [0, 1] expected")
    noisy = noisy_rows(hashes, ratio)
    labels_nK = soft_labels.astype(np.float32)
    if classes > 2 and strength < 0.0:
        top = labels_nK[noisy].argmax(axis=1)
        # The low bits choose the class: the high bits chose the noisy rows and are all small here.
        offset = 1 + hashes[noisy] % np.uint64(classes - 1)
        other = (top + offset.astype(np.int64)) % classes
        labels_nK[noisy, top], labels_nK[noisy, other] = (
            labels_nK[noisy, other],
            labels_nK[noisy, top],
        )
    else:
        uniform = 1.0 / classes
        labels_nK[noisy] = uniform + strength * (labels_nK[noisy].astype(np.float64) - uniform)
    return labels_nK
