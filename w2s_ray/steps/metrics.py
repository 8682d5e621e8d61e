"""Scores of class probabilities on labelled rows (docs/losses.md §4 and §5): numpy, float64.

Shapes: ``probs`` (n, K), ``labels`` (n,) class indices. All are means over rows. A model whose most
probable classes are tied chooses each of them by an even share, here and in ``error_metrics``.
``probs`` in Fortran order are several times faster: there are few classes and many rows.
"""

import numpy as np
from numpy.typing import NDArray

from w2s_ray.statistics.recalibration import recalibrated

Probs = NDArray[np.floating]
Labels = NDArray[np.int64]
Shares = NDArray[np.float64]


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
    if probs.shape[1] == 2:  # several times faster
        second = (probs[:, 1] > probs[:, 0]) + 0.5 * (probs[:, 1] == probs[:, 0])
        return np.stack([1.0 - second, second]).T
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
        hits, misses = np.sort(probs[positive, c]), np.sort(probs[~positive, c])
        if not len(hits) or not len(misses):
            return None
        # Pairs of a positive and a negative row that are in order, of which a tie is half a one.
        below = np.searchsorted(misses, hits, "left").sum()
        not_above = np.searchsorted(misses, hits, "right").sum()
        areas.append((below + not_above) / 2 / (len(hits) * len(misses)))
    return float(np.mean(areas))


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
    positive = probs > 0
    logs = (
        np.log(probs)
        if positive.all()
        else np.log(probs, where=positive, out=np.zeros(probs.shape))
    )
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
    logits = recalibrated(probs, labels, folds)
    return None if logits is None else cross_entropy(softmax(logits), labels, clip)


def divergence(left: Probs, right: Probs, clip: float) -> float:
    """Mean KL(left‖right) in nats, both clipped: misfit when one is weak and one the student."""
    p, q = clipped(left, clip), clipped(right, clip)
    return float((p * np.log(p / q)).sum(axis=1).mean())
