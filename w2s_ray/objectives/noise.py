"""Label noise for a student's weak labels: w -> 1/K + strength (w - 1/K) on some of the rows.

Which rows is a matter of their hashes alone (``w2s_ray.order.hashes(row_ids, seed, "noise")``):
the rows with the lowest hashes. So the rows drawn at 10 % are among those drawn at 20 %, and the
order of a file changes nothing. Test labels never come here, and stored labels are not touched.
All cases: docs/losses.md §3.
"""

from decimal import ROUND_HALF_UP, Decimal

import numpy as np
from numpy.typing import NDArray


def noisy_count(rows: int, ratio: float) -> int:
    """ratio * rows, rounded half up, with the ratio as it is written (0.29 of 50 rows is 15)."""
    return int((Decimal(repr(float(ratio))) * rows).to_integral_value(ROUND_HALF_UP))


def apply_noise(
    soft_labels: NDArray[np.float32], hashes: NDArray[np.uint64], ratio: float, strength: float
) -> NDArray[np.float32]:
    """The labels with noise, (n, K) float32; the other rows are bit-identical to the input.

    soft_labels: (n, K) float32 probabilities. hashes: (n,) uint64, one a row. ratio: the share of
    noisy rows, in [0, 1]. strength: 1 leaves a label as it is, 0 erases it to 1/K, and -1 with
    K = 2 flips the preference and keeps its confidence. With K > 2, -1 swaps the top class's
    probability with that of another class drawn from the row's hash.
    Raises ValueError outside of these, and for a strength between -1 and 0 with K > 2.
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
    noisy = np.argsort(hashes, kind="stable")[: noisy_count(rows, ratio)]
    labels = soft_labels.astype(np.float32)
    if classes > 2 and strength < 0.0:
        top = labels[noisy].argmax(axis=1)
        # Low bits choose the class: high ones decided which rows are noisy, and are all small here.
        away = 1 + hashes[noisy] % np.uint64(classes - 1)
        other = (top + away.astype(np.int64)) % classes
        labels[noisy, top], labels[noisy, other] = labels[noisy, other], labels[noisy, top]
    else:
        even = 1.0 / classes
        labels[noisy] = even + strength * (labels[noisy].astype(np.float64) - even)
    return labels
