"""Recalibration of probabilities by one temperature T (Guo et al. 2017), fitted on other rows."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from w2s_ray.order import hashes

SHARPEST = 1e3
"""Largest 1/T of a recalibration, in units of 1/(root mean square of the differences of logits): a
fold on which the model makes no error has no optimum."""


def halves(row_ids: Sequence[str]) -> NDArray[np.bool_]:
    """(n,) which of two halves a row belongs to, drawn from its id: the same for all models."""
    drawn: NDArray[np.bool_] = hashes(row_ids, "recalibration") % 2 == 0
    return drawn


def recalibrated(
    probs: NDArray[np.floating], labels: NDArray[np.int64], folds: NDArray[np.bool_]
) -> NDArray[np.float64] | None:
    """(n, K) logits log p / T, where T of one fold is the optimum of the other.

    Args:
        probs: (n, K) probabilities.
        labels: (n,) true classes.
        folds: (n,) which of two folds a row belongs to.

    Returns:
        None where a fold has no row.
    """
    if folds.all() or not folds.any():
        return None
    logs = np.log(np.maximum(probs.astype(np.float64), np.finfo(np.float64).tiny))
    of_fold, of_other = (best_sharpness(logs[fold], labels[fold]) for fold in (folds, ~folds))
    logits: NDArray[np.float64] = logs * np.where(folds, of_other, of_fold)[:, None]
    return logits


def best_sharpness(logs: NDArray[np.float64], labels: NDArray[np.int64]) -> float:
    """The 1/T ≥ 0 that minimises the cross-entropy of softmax(logs / T), at most ``SHARPEST``.

    The cross-entropy is convex in 1/T; a Newton search within a bracket finds the root of its slope
    to a relative 1e-9. It is 0, all classes equal, for a model that is worse than chance.

    Args:
        logs: (n, K) logits or log-probabilities, finite.
    """
    margins = _margins(logs, labels)
    scale = float(np.sqrt(np.vdot(margins, margins) / margins.size))
    if scale == 0.0 or margins.sum() >= 0.0:  # the slope at 0, where all classes weigh 1/K
        return 0.0
    if margins.max() <= 0.0:
        return SHARPEST / scale
    margins /= scale
    low, high, sharpness = 0.0, SHARPEST, 1.0
    for _ in range(100):
        slope = _slope(margins, sharpness)
        low, high = (low, sharpness) if slope.first > 0.0 else (sharpness, high)
        step = slope.first / slope.second if slope.second > 0.0 else np.inf
        before, sharpness = sharpness, sharpness - step
        if not low <= sharpness <= high:
            sharpness = float(np.sqrt(low * high)) if low else high / 2.0
        if abs(sharpness - before) <= 1e-5 * sharpness:  # the next step would be its square
            break
    return sharpness / scale


def _margins(logs: NDArray[np.float64], labels: NDArray[np.int64]) -> NDArray[np.float64]:
    """(K - 1, n) logits of the other classes relative to the true one."""
    if logs.shape[1] == 2:  # several times faster
        first, second = logs[:, 0], logs[:, 1]
        return np.where(labels == 0, second - first, first - second)[None]
    rows = np.arange(len(labels))
    others = np.ones(logs.shape, dtype=np.bool_)
    others[rows, labels] = False
    margins: NDArray[np.float64] = logs[others].reshape(len(rows), -1).T - logs[rows, labels]
    return np.ascontiguousarray(margins)


class _Slope(NamedTuple):
    """First and second derivative of a mean loss."""

    first: float
    second: float


def _slope(margins: NDArray[np.float64], sharpness: float) -> _Slope:
    """Of mean log(1 + Σ exp(sharpness · margins)), (K − 1, n), shifted against overflow."""
    scores = sharpness * margins
    if len(margins) == 1:  # two classes: sums over the classes are the one entry
        return _slope_of_two(margins[0], scores[0])
    shift = np.maximum(scores.max(axis=0), 0.0)
    weights = np.exp(scores - shift)
    weights /= weights.sum(axis=0) + np.exp(-shift)
    weighted = weights * margins
    mean = weighted.sum(axis=0)
    second = np.vdot(weighted, margins) - np.vdot(mean, mean)
    return _Slope(float(mean.sum()) / len(mean), float(second) / len(mean))


def _slope_of_two(margins: NDArray[np.float64], scores: NDArray[np.float64]) -> _Slope:
    """The same of (n,) margins, bit for bit."""
    shift = np.maximum(scores, 0.0)
    weights = np.exp(scores - shift)
    weights /= weights + np.exp(-shift)
    weighted = weights * margins
    second = np.vdot(weighted, margins) - np.vdot(weighted, weighted)
    return _Slope(float(weighted.sum()) / len(weighted), float(second) / len(weighted))
