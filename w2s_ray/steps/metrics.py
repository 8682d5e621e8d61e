"""Scores of class probabilities on labelled rows (docs/losses.md §4 and §5): numpy, float64.

Shapes: ``probs`` (n, K), ``labels`` (n,) class indices. All are means over rows.
"""

import numpy as np
from numpy.typing import NDArray

Probs = NDArray[np.floating]
Labels = NDArray[np.int64]


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


def accuracy(probs: Probs, labels: Labels) -> float:
    """Share of rows whose most probable class is the true one.

    A tie at the top counts by its share: a model that cannot distinguish two answers scores ½.
    """
    top = probs == probs.max(axis=1, keepdims=True)
    return float((top[np.arange(len(labels)), labels] / top.sum(axis=1)).mean())


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
    correct = probs.argmax(axis=1) == labels
    bin_index = np.minimum((confidence * bins).astype(int), bins - 1)
    gaps = np.zeros(bins)
    np.add.at(gaps, bin_index, confidence - correct)
    return float(np.abs(gaps).sum() / len(labels))


def agreement(left: Probs, right: Probs) -> float:
    """Share of rows on which two models choose the same class."""
    return float((left.argmax(axis=1) == right.argmax(axis=1)).mean())


def divergence(left: Probs, right: Probs, clip: float) -> float:
    """Mean KL(left‖right) in nats, both clipped: misfit when one is weak and one the student."""
    p, q = clipped(left, clip), clipped(right, clip)
    return float((p * np.log(p / q)).sum(axis=1).mean())
