"""What a model's features say of labels: a probe and nearest neighbours, neither with a row's own.

An opinion on a row is made of the labels of other rows alone. Both are pure functions; rows are
first sorted by their hashes, so the order of the file changes nothing. The order of the answers of
a pair changes nothing either: of a pair the difference A − B is read, a probe has no bias then, and
a neighbour whose difference points the other way counts with its label turned round.
"""

from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

Judge = Literal["probe", "knn"]
Floats = NDArray[np.float64]

FOLDS = 5
PENALTY = 0.01
"""Ridge of the probe: PENALTY/2 times the mean squared logit that unit weights would give."""
MAX_ITERATIONS = 500
GRADIENT_TOLERANCE = 1e-6
ROWS_PER_PRODUCT = 512


class Opinions:
    """What the features of some rows say of any labels of these rows.

    Args:
        states: (n, m, H) features; m is 2 for pairs.
        hashes: (n,), one per row; they decide folds and ties.
    """

    def __init__(self, states: NDArray[np.float32], hashes: NDArray[np.uint64]) -> None:
        self._by_hash = np.argsort(hashes, kind="stable")
        self._is_pair = states.shape[1] == 2
        self._x = _standardised(states[self._by_hash])
        self._nearest: dict[int, _Neighbours] = {}

    def __call__(
        self, judge: Judge, labels: NDArray[np.float32], neighbours: int
    ) -> NDArray[np.float32]:
        """(n, K) what a judge says of each row's label, made without that label.

        Args:
            judge: probe (logistic regression on the other folds) or knn (mean label of the
                nearest).
            labels: (n, K).
            neighbours: k of knn; fewer where there are fewer other rows.

        Raises:
            ValueError: there are fewer than two rows.
        """
        if len(labels) < 2:
            raise ValueError(f"{judge} of labels: {len(labels)} rows, expected at least 2")
        own = labels[self._by_hash].astype(np.float64)
        if judge == "probe":
            said = _cross_fitted(self._x, own, self._is_pair)
        else:
            said = self._neighbours(min(neighbours, len(own) - 1)).mean_of(own)
        in_order = np.empty_like(labels)
        in_order[self._by_hash] = said
        return in_order

    def _neighbours(self, k: int) -> "_Neighbours":
        if k not in self._nearest:
            self._nearest[k] = _nearest(self._x, k, self._is_pair)
        return self._nearest[k]


def _standardised(states: NDArray[np.float32]) -> Floats:
    """(n, H) features with unit variance over all texts; of a pair the difference A − B.

    In blocks: features of a large model take gigabytes, and a copy in float64 twice as many.
    """
    mean = states.mean(axis=(0, 1), dtype=np.float64)
    starts = range(0, len(states), ROWS_PER_PRODUCT)
    blocks = [states[start : start + ROWS_PER_PRODUCT] for start in starts]
    squares = np.sum([((block - mean) ** 2).sum(axis=(0, 1)) for block in blocks], axis=0)
    scale = np.sqrt(squares / (len(states) * states.shape[1]))
    scale[scale < 1e-6] = 1.0
    x = np.empty((len(states), states.shape[2]))
    for start, block in zip(starts, blocks, strict=True):
        other = block[:, 1] if states.shape[1] == 2 else mean
        x[start : start + len(block)] = (block[:, 0].astype(np.float64) - other) / scale
    return x


def _cross_fitted(x: Floats, labels: Floats, is_pair: bool) -> Floats:
    """(n, K) probabilities of each row by a probe of the other folds; row i is in fold i mod 5."""
    said = np.empty_like(labels)
    fold_of = np.arange(len(x)) % FOLDS
    for fold in range(min(FOLDS, len(x))):
        inside = fold_of == fold
        weights = _fitted(x[~inside], labels[~inside], is_pair)
        said[inside] = _softmax(_logits(x[inside], weights, is_pair))
    return said


def _fitted(x: Floats, labels: Floats, is_pair: bool) -> Floats:
    """Weights of a logistic head with ridge: (1, H) for pairs, else (K, H + 1) with the bias last.

    The ridge is needed: features often outnumber rows, and hard labels may be separable.
    """
    from scipy.optimize import minimize  # a quarter of a second to import, and rarely needed

    outputs, width = (1, x.shape[1]) if is_pair else (labels.shape[1], x.shape[1] + 1)
    problem = _Problem(x, labels, is_pair, (outputs, width))
    result = minimize(
        problem.value_and_gradient,
        np.zeros(outputs * width),
        jac=True,
        method="L-BFGS-B",
        options={"maxiter": MAX_ITERATIONS, "ftol": 0.0, "gtol": GRADIENT_TOLERANCE},
    )
    weights: Floats = result.x.reshape(outputs, width)
    return weights


class _Problem:
    """The mean cross-entropy of a logistic head on rows x (n, H), with the ridge.

    Args:
        labels: (n, K).
        shape: of the weights.
    """

    def __init__(self, x: Floats, labels: Floats, is_pair: bool, shape: tuple[int, int]) -> None:
        self._x, self._labels, self._is_pair, self._shape = x, labels, is_pair, shape
        self._ridge = PENALTY * float((x**2).sum(axis=1).mean())

    def value_and_gradient(self, theta: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        """In nats, and by the flat weights."""
        weights, width = theta.reshape(self._shape), self._x.shape[1]
        logits = _logits(self._x, weights, self._is_pair)
        shifted = logits - logits.max(axis=1, keepdims=True)
        log_probs = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
        slopes = (np.exp(log_probs) - self._labels)[:, -self._shape[0] :] / len(self._x)
        held = weights[:, :width]
        gradient = np.zeros(self._shape)
        gradient[:, :width] = slopes.T @ self._x + self._ridge * held
        if not self._is_pair:
            gradient[:, width] = slopes.sum(axis=0)
        value = -(self._labels * log_probs).sum(axis=1).mean()
        return float(value + 0.5 * self._ridge * (held**2).sum()), gradient.ravel()


def _logits(x: Floats, weights: Floats, is_pair: bool) -> Floats:
    """(n, K); of a pair (0, z)."""
    if is_pair:
        margins = x @ weights[0]
        return np.stack([np.zeros_like(margins), margins], axis=1)
    logits: Floats = x @ weights[:, :-1].T + weights[:, -1]
    return logits


def _softmax(logits: Floats) -> Floats:
    shifted = np.exp(logits - logits.max(axis=1, keepdims=True))
    probs: Floats = shifted / shifted.sum(axis=1, keepdims=True)
    return probs


class _Neighbours(NamedTuple):
    """The nearest other rows of each row.

    Attributes:
        rows: (n, k) positions.
        signs: (n, k) 1; of pairs -1 where the difference points the other way, 0 if it has none.
    """

    rows: NDArray[np.int64]
    signs: Floats

    def mean_of(self, labels: Floats) -> Floats:
        """(n, K) mean label of the neighbours, turned round where the sign is -1."""
        uniform = 1.0 / labels.shape[1]
        votes = self.signs[:, :, None] * (labels[self.rows] - uniform)
        mean: Floats = uniform + votes.mean(axis=1)
        return mean


def _nearest(x: Floats, k: int, is_pair: bool) -> _Neighbours:
    """The k other rows with the highest cosine, ties in row order.

    Cosine and not Euclidean distance: the norm of a state, or of a difference of two, says more of
    the lengths of texts than of what they mean, and long ones would be nobody's neighbours.
    """
    norms = np.linalg.norm(x, axis=1, keepdims=True)
    unit = np.divide(x, norms, out=np.zeros_like(x), where=norms > 0.0)
    rows = np.empty((len(x), k), dtype=np.int64)
    signs = np.ones((len(x), k))
    for start in range(0, len(x), ROWS_PER_PRODUCT):
        cosines = unit[start : start + ROWS_PER_PRODUCT] @ unit.T
        block = slice(start, start + len(cosines))
        near = np.abs(cosines) if is_pair else cosines.copy()
        near[np.arange(len(near)), start + np.arange(len(near))] = -np.inf
        rows[block] = _largest(near, k).nonzero()[1].reshape(-1, k)
        if is_pair:
            signs[block] = np.sign(np.take_along_axis(cosines, rows[block], axis=1))
    return _Neighbours(rows, signs)


def _largest(values: Floats, k: int) -> NDArray[np.bool_]:
    """Which k entries of each row are the largest; among equal ones the first."""
    least = -np.partition(-values, k - 1, axis=1)[:, k - 1 : k]
    above = values > least
    tied = values == least
    room = k - above.sum(axis=1, keepdims=True)
    chosen: NDArray[np.bool_] = above | (tied & (np.cumsum(tied, axis=1) <= room))
    return chosen
