"""Several weak models as one: their class probabilities for the same rows, combined.

* ``mean``: the arithmetic mean.
* ``product``: the geometric mean, normalised.
* ``learned``: the weighted geometric mean, normalised; the weights come from the models' agreement
  on the rows to be labelled, without any truth.

The weights are those of the one-coin model of Dawid & Skene 1979: a model is right with probability
a, the same for all classes, wrong classes are equally probable, and errors are independent given
the class. Then a vote adds log(a (K - 1) / (1 - a)) to the log-probability of its class, so these
weights belong to log-probabilities. They are scaled to the sum 1: labels that agree are no more
confident than the models are, as errors of models trained on the same rows are never independent.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Probs = NDArray[np.floating]

SMALLEST = float(np.finfo(np.float32).tiny)  # of stored labels; a lower probability counts as this
MAX_ITERATIONS = 1000
TOLERANCE = 1e-10  # largest change of an accuracy at the end


class Members(NamedTuple):
    """How much each of m models counts.

    Attributes:
        weights: (m,) with sum 1, none below 0.
        accuracies: (m,) estimated from the agreement; None where nothing was estimated.
    """

    weights: NDArray[np.float64]
    accuracies: NDArray[np.float64] | None = None


def members(probs_mnK: Probs, combine: str) -> Members:
    """The weights of m models from their labels of n rows, for ``mean``, ``product``, ``learned``.

    Learned weights of models at or below chance are 0; if all are, each model counts alike.

    Raises:
        ValueError: fewer than three models for ``learned``.
    """
    models, _, classes = probs_mnK.shape
    alike = np.full(models, 1.0 / models)
    if combine != "learned":
        return Members(alike)
    accuracies = estimated_accuracies(votes(probs_mnK))
    log_odds = np.log(accuracies * (classes - 1) / (1.0 - accuracies)).clip(min=0.0)
    total = log_odds.sum()
    return Members(log_odds / total if total > 0.0 else alike, accuracies)


def combined(probs_mnK: Probs, combine: str, weights: NDArray[np.float64]) -> NDArray[np.float64]:
    """(n, K) probabilities of the ensemble from (m, n, K) of its models.

    A tie of all models stays a tie.
    """
    probs = probs_mnK.astype(np.float64)
    if combine == "mean":
        mixed = np.tensordot(weights, probs, axes=1)
    else:
        logs = np.tensordot(weights, np.log(probs.clip(min=SMALLEST)), axes=1)
        mixed = np.exp(logs - logs.max(axis=1, keepdims=True))
    normalised: NDArray[np.float64] = mixed / mixed.sum(axis=1, keepdims=True)
    return normalised


def votes(probs_mnK: Probs) -> NDArray[np.float64]:
    """(m, n, K) the most probable class of each model and row; classes of a tie share the vote."""
    top = probs_mnK == probs_mnK.max(axis=2, keepdims=True)
    shared: NDArray[np.float64] = top / top.sum(axis=2, keepdims=True)
    return shared


def estimated_accuracies(votes_mnK: NDArray[np.float64]) -> NDArray[np.float64]:
    """(m,) each model's accuracy by the one-coin model, by expectation maximisation.

    The prior of the classes is uniform. It begins at the share of votes of each class, so of the
    solutions that mirror each other it is the one in which the majority is right more often than
    not. Accuracies stay 1/(2n) away from 0 and 1: n rows resolve no more.

    Raises:
        ValueError: fewer than three models: any accuracies with the same product would explain the
            agreement of two.
    """
    models, rows, classes = votes_mnK.shape
    if models < 3:
        raise ValueError(f"weights of {models} models cannot be learned: 3 or more expected")
    least = 0.5 / rows
    posterior = votes_mnK.mean(axis=0)
    accuracies = np.full(models, np.nan)
    for _ in range(MAX_ITERATIONS):
        before, right = accuracies, (votes_mnK * posterior).sum(axis=2).mean(axis=1)
        accuracies = right.clip(least, 1.0 - least)
        if np.abs(accuracies - before).max() < TOLERANCE:
            break
        log_odds = np.log(accuracies * (classes - 1) / (1.0 - accuracies))
        logs = np.tensordot(log_odds, votes_mnK, axes=1)
        posterior = np.exp(logs - logs.max(axis=1, keepdims=True))
        posterior /= posterior.sum(axis=1, keepdims=True)
    return accuracies
