"""Logits as float16, for tables of many models: relative to the largest of their row.

The largest is 0 and the others are below it. A difference of two logits is right to a relative
2^-11 (1 in 2,048), none is above 65,504, and one below 3e-8 is 0, a tie.
"""

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

LARGEST = 65504.0
"""Largest finite float16."""


def relative(logits: NDArray[np.floating]) -> NDArray[np.float16]:
    """(..., K) logits minus the largest of their row."""
    differences = np.maximum(logits - logits.max(axis=-1, keepdims=True), -LARGEST)
    halves: NDArray[np.float16] = differences.astype(np.float16)
    return halves


def of_probabilities(probs: NDArray[np.floating]) -> NDArray[np.float16]:
    """The same of (..., K) probabilities, of which some may be 0."""
    tiny = np.finfo(np.float64).tiny
    return relative(np.log(np.maximum(probs.astype(np.float64), tiny)))


def as_lists(values: NDArray[np.floating]) -> pa.ListArray:
    """(n, K) as a column of n lists."""
    offsets = pa.array(np.arange(0, values.size + 1, values.shape[1]), pa.int32())
    return pa.ListArray.from_arrays(offsets, pa.array(np.ascontiguousarray(values).ravel()))
