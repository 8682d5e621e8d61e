"""Which rows a student learns from, and how much each weighs: pure functions of its labels.

A score says how good a row's label is; a filter keeps the rows with the highest scores, ties by the
row's hash, so a smaller share is always a part of a larger one. Definitions: docs/losses.md §3.
"""

import numpy as np
from numpy.typing import NDArray

from w2s_ray.objectives.noise import noisy_count

SMALLEST = 1e-12
"""Labels closer than this to 0 or 1 count as this close: their log-odds stay finite."""

Labels = NDArray[np.float32]
Scores = NDArray[np.float64]

LEAST_WEIGHT = 1e-6


def confidence(labels: Labels) -> Scores:
    """(n,) each label's largest distance from 1/K; for K = 2 that is |w − ½|."""
    largest: Scores = np.abs(labels.astype(np.float64) - 1.0 / labels.shape[1]).max(axis=1)
    return largest


def margin_to_prior(labels: Labels, prior: NDArray[np.floating]) -> Scores:
    """(n,) how far a label moves the log-odds of some class above the prior's, in nats.

    For K = 2 this is |logit w − logit π|, in both directions.

    Args:
        labels: (n, K).
        prior: (K,) probabilities.
    """
    margins: Scores = (_log_odds(labels) - _log_odds(prior)).max(axis=1)
    return margins


def _log_odds(probs: NDArray[np.floating]) -> Scores:
    held = np.clip(probs.astype(np.float64), SMALLEST, 1.0 - SMALLEST)
    odds: Scores = np.log(held) - np.log1p(-held)
    return odds


def support(labels: Labels, opinion: NDArray[np.floating]) -> Scores:
    """(n,) probability that an opinion (n, K) gives to each label's top class, shared in a tie.

    Northcutt et al. 2021 call it self-confidence. A distance between label and opinion would not
    do: opinions made of noisy labels are close to uniform, so the labels that say least would be
    the closest.
    """
    top = labels == labels.max(axis=1, keepdims=True)
    supported: Scores = (top * opinion.astype(np.float64)).sum(axis=1) / top.sum(axis=1)
    return supported


def best_rows(scores: Scores, hashes: NDArray[np.uint64], keep: float) -> NDArray[np.int64]:
    """Positions of the ``keep · n`` rows (rounded half up) with the highest scores, ascending.

    Args:
        scores: (n,).
        hashes: (n,), one per row; among equal scores the lowest is kept first.
        keep: share of the rows, in (0, 1].

    Raises:
        ValueError: no row is kept.
    """
    count = noisy_count(len(scores), keep)
    if not count:
        raise ValueError(f"label_filter: {keep:g} of {len(scores)} rows is none; raise keep")
    return np.sort(np.lexsort((hashes, -scores))[:count])


def confidence_weights(labels: Labels) -> NDArray[np.float32]:
    """(n,) weights with mean 1, proportional to ``confidence``; for K = 2 to 2|w − ½|.

    Labels that are all uniform weigh 1 each, the limit of labels that are all equally confident. A
    uniform label among others weighs ``LEAST_WEIGHT`` before the mean is taken, not 0: a weight of
    0 marks the filler rows of a batch (``data.batches``).
    """
    raw = np.maximum(confidence(labels), LEAST_WEIGHT)
    mean = raw.mean()
    weights: NDArray[np.float32] = (raw / mean).astype(np.float32)
    return weights
