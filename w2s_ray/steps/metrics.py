"""Scores of class probabilities on labelled rows (docs/losses.md §4 and §5): numpy, float64.

Shapes: ``probs`` (n, K), ``labels`` (n,) class indices. All are means over rows. A model whose most
probable classes are tied chooses each of them by an even share, here and in ``error_metrics``.
``probs`` in Fortran order are several times faster: there are few classes and many rows.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Probs = NDArray[np.floating]
Labels = NDArray[np.int64]
Shares = NDArray[np.float64]

SHARPEST = 1e3
"""Largest 1/T of a recalibration, in units of 1/(root mean square of the differences of logits): a
fold on which the model makes no error has no optimum."""


def softmax(logits: NDArray[np.floating]) -> NDArray[np.float64]:
    """(n, K) probabilities from logits."""
    shifted = np.exp(logits.astype(np.float64) - logits.max(axis=1, keepdims=True))
    normalised: NDArray[np.float64] = shifted / shifted.sum(axis=1, keepdims=True)
    return normalised


def clipped(probs: Probs, clip: float) -> NDArray[np.float64]:
    """Probabilities clipped to [clip, 1 − clip] and renormalised."""
    held = np.clip(probs.astype(np.float64), clip, 1.0 - clip)
    normalised: NDArray[np.float64] = held / held.sum(axis=1, keepdims=True)
    return normalised


def choices(probs: Probs) -> Shares:
    """(n, K) the share of each class in the model's choice: 1 for the top class, 1/2 in a tie."""
    top = probs == probs.max(axis=1, keepdims=True)
    shares: Shares = top / top.sum(axis=1, keepdims=True)
    return shares


def right(probs: Probs, labels: Labels) -> Shares:
    """(n,) the share of the true class in the model's choice: 1 right, 0 wrong."""
    shares: Shares = choices(probs)[np.arange(len(labels)), labels]
    return shares


def accuracy(probs: Probs, labels: Labels) -> float:
    """Share of rows whose most probable class is the true one.

    A tie at the top counts by its share: a model that cannot distinguish two answers scores ½.
    """
    return float(right(probs, labels).mean())


def auroc(probs: Probs, labels: Labels) -> float | None:
    """Area under the ROC curve; for K > 2 the mean of one class against the rest.

    None where a class has no positive or no negative row.
    """
    classes = [1] if probs.shape[1] == 2 else range(probs.shape[1])
    areas = []
    for c in classes:
        positive = labels == c
        hits, misses = int(positive.sum()), int((~positive).sum())
        if not hits or not misses:
            return None
        ranks = _mean_ranks(probs[:, c])
        areas.append((ranks[positive].sum() - hits * (hits + 1) / 2) / (hits * misses))
    return float(np.mean(areas))


def _mean_ranks(scores: NDArray[np.floating]) -> NDArray[np.float64]:
    """Ranks from 1; equal scores share their mean rank."""
    _, position, count = np.unique(scores, return_inverse=True, return_counts=True)
    mean: NDArray[np.float64] = np.cumsum(count) - (count - 1) / 2
    return mean[position]


def cross_entropy(probs: Probs, labels: Labels, clip: float) -> float:
    """L(F*, Q) with hard truth: mean −log q(true class), in nats, q clipped."""
    held = clipped(probs, clip)
    return float(-np.log(held[np.arange(len(labels)), labels]).mean())


def calibration_error(probs: Probs, labels: Labels, bins: int = 15) -> float:
    """Expected calibration error of the top class: bins of equal width, weighted by rows."""
    confidence = probs.max(axis=1)
    correct = right(probs, labels)
    bin_index = np.minimum((confidence * bins).astype(int), bins - 1)
    gaps = np.bincount(bin_index, weights=confidence - correct, minlength=bins)
    return float(np.abs(gaps).sum() / len(labels))


def brier(probs: Probs, labels: Labels) -> float:
    """Mean Σ (p − y)² over classes, 0 to 2 (Brier 1950): for K = 2 twice the squared error of p."""
    errors = probs.astype(np.float64)
    errors[np.arange(len(labels)), labels] -= 1.0
    return float((errors**2).sum(axis=1).mean())


def entropy(probs: Probs) -> float:
    """Mean entropy of the predictions in nats, 0 to log K."""
    logs = np.log(probs, where=probs > 0, out=np.zeros(probs.shape))
    return float(-(probs * logs).sum(axis=1).mean())


def confidence(probs: Probs) -> float:
    """Mean probability of the top class, 1/K to 1."""
    return float(probs.max(axis=1).mean())


def recalibrated_cross_entropy(
    probs: Probs, labels: Labels, folds: NDArray[np.bool_], clip: float
) -> float | None:
    """Cross-entropy after one temperature T (Guo et al. 2017), fitted on the other fold.

    A model trained at a small rate leaves all probabilities near 1/K, so its raw cross-entropy says
    little about what it knows.

    Args:
        folds: (n,) which of two folds a row belongs to; T of one is the optimum of the other.
        clip: as of ``cross_entropy``.

    Returns:
        Nats; None where a fold has no row.
    """
    if folds.all() or not folds.any():
        return None
    logs = np.log(np.maximum(probs.astype(np.float64), np.finfo(np.float64).tiny))
    of_fold, of_other = (best_sharpness(logs[fold], labels[fold]) for fold in (folds, ~folds))
    return cross_entropy(softmax(logs * np.where(folds, of_other, of_fold)[:, None]), labels, clip)


def best_sharpness(logs: NDArray[np.float64], labels: Labels) -> float:
    """The 1/T ≥ 0 that minimises the cross-entropy of softmax(logs / T), at most ``SHARPEST``.

    The cross-entropy is convex in 1/T; a Newton search within a bracket finds the root of its slope
    to a relative 1e-9. It is 0, all classes equal, for a model that is worse than chance.

    Args:
        logs: (n, K) logits or log-probabilities, finite.
    """
    rows = np.arange(len(labels))
    others = np.ones(logs.shape, dtype=np.bool_)
    others[rows, labels] = False
    # (K - 1, n) logits of the other classes relative to the true one.
    margins = np.ascontiguousarray(logs[others].reshape(len(rows), -1).T) - logs[rows, labels]
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


class _Slope(NamedTuple):
    """First and second derivative of a mean loss."""

    first: float
    second: float


def _slope(margins: NDArray[np.float64], sharpness: float) -> _Slope:
    """Of mean log(1 + Σ exp(sharpness · margins)), (K − 1, n), shifted against overflow."""
    scores = sharpness * margins
    shift = np.maximum(scores.max(axis=0), 0.0)
    weights = np.exp(scores - shift)
    weights /= weights.sum(axis=0) + np.exp(-shift)
    weighted = weights * margins
    mean = weighted.sum(axis=0)
    second = np.vdot(weighted, margins) - np.vdot(mean, mean)
    return _Slope(float(mean.sum()) / len(mean), float(second) / len(mean))


def divergence(left: Probs, right: Probs, clip: float) -> float:
    """Mean KL(left‖right) in nats, both clipped: misfit when one is weak and one the student."""
    p, q = clipped(left, clip), clipped(right, clip)
    return float((p * np.log(p / q)).sum(axis=1).mean())
