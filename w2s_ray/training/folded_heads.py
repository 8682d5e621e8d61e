"""Heads that read raw features: the scaling of their training folded in, and their logits."""

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

ROWS_PER_PRODUCT = 4096


class Folded(NamedTuple):
    """J heads on raw features.

    Attributes:
        weight: (J, outputs, H) float32.
        bias: (J, outputs) float32; None for pairs.
    """

    weight: Tensor
    bias: Tensor | None


def fold(weights: Tensor, mean: Tensor, scale: Tensor, per_row: int) -> Folded:
    """Folds the standardisation into heads on standardised features.

    Args:
        weights: (J, outputs, P), P = H or, with a bias in the last column, H + 1.
        mean, scale: (H,) of the standardisation.
        per_row: texts of a row; 2: of a pair the difference is read, in which the mean cancels.
    """
    wide, hidden_size = weights.double(), len(scale)
    folded = wide[:, :, :hidden_size] / scale.double()
    if per_row == 2:
        return Folded(folded.float(), None)
    bias = wide[:, :, hidden_size] - folded @ mean.double()
    return Folded(folded.float(), bias.float())


def head_inputs(features: NDArray[np.float32]) -> Tensor:
    """(n, H) float64 that heads read, from raw features (n, m, H); of a pair the difference."""
    x = torch.from_numpy(features).double()
    return x[:, 0] - x[:, 1] if features.shape[1] == 2 else x[:, 0]


def folded_logits(heads: Folded, features: NDArray[np.float32]) -> NDArray[np.float32]:
    """(J, n, K) float32 logits on raw features (n, m, H).

    In float64: raw features may be far from zero, where a head's terms cancel; and the float32
    logits then do not depend on how many heads a product was made for.
    """
    starts = range(0, len(features), ROWS_PER_PRODUCT)
    parts = (head_inputs(features[start : start + ROWS_PER_PRODUCT]) for start in starts)
    return np.concatenate([logits_on(heads, part) for part in parts], axis=1)


def logits_on(heads: Folded, inputs: Tensor) -> NDArray[np.float32]:
    """(J, n, K) float32 logits on ``head_inputs``."""
    count, outputs = heads.weight.shape[:2]
    weight = heads.weight.flatten(0, 1).double()
    scores = (weight @ inputs.T).view(count, outputs, -1)
    if heads.bias is not None:
        scores += heads.bias[:, :, None]
    logits = np.zeros((count, len(inputs), max(2, outputs)), dtype=np.float32)
    logits[:, :, -outputs:] = scores.transpose(1, 2).numpy()
    return logits
