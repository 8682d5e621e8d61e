"""The variance of a mean over test rows and seeds, from a two-way decomposition.

All seeds share their test rows, so a mean over both has three sources of error: which rows were
drawn, which seeds, and their interaction. With mean squares MS_I of rows, MS_S of seeds and MS_E of
the remainder (ddof 1; n rows, S seeds)::

    V = [MS_I + max(MS_S − MS_E, 0)] / (n S)
    df = V² / [(MS_I / (n S))² / (n − 1) + (MS_S / (n S))² / (S − 1)],  at least 1

and ȳ ± t(df) √V is the interval (Satterthwaite 1946). Where rows come in groups, n is the number of
groups, but in n − 1 that of equal groups which would know as much of their spread: (Σ m)² / Σ m²
for m rows each (Kish 1965), since one large group may be most of it. A t interval over the seeds
alone holds for new seeds on the same rows; one over the rows alone for new rows and these seeds.

Where a second factor is crossed with the seeds (weak models' seeds with those of their students),
V has its term max(MS − MS_E, 0) / (n S) too, from the scores averaged over the first factor, and df
its part. What both factors do together is counted twice, on the safe side.

Letters: n rows, S seeds, G groups of rows, C components (several scores of the same rows).
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri, stdtr, stdtrit

Array = NDArray[np.float64]


class Estimate(NamedTuple):
    """A mean with its error.

    Attributes:
        mean: the estimate.
        variance: of the estimate, V above.
        df: degrees of freedom of the variance.
        groups: number of independent rows that it rests on, rounded down; 0: not known.
    """

    mean: float
    variance: float
    df: float
    groups: int = 0

    def interval(self, level: float = 0.95) -> tuple[float, float]:
        """The two-sided t interval."""
        half = t_quantile(0.5 + level / 2.0, self.df) * self.variance**0.5
        return self.mean - half, self.mean + half

    def p_value(self, null: float = 0.0) -> float:
        """Two-sided, of the hypothesis that the mean is ``null``.

        No less than a sign test of so many independent rows can give: few rows that agree by
        chance have no variance at all.
        """
        least = 2.0 ** (1 - self.groups) if self.groups else 0.0
        if self.variance == 0.0:
            return 1.0 if self.mean == null else least
        return max(least, 2.0 * t_tail(abs(self.mean - null) / self.variance**0.5, self.df))


@dataclass(frozen=True)
class Decomposition:
    """Mean squares and products of C scores of the same rows and seeds.

    Attributes:
        means: (C,) over rows and seeds.
        of_rows, of_seeds, of_rest: (C, C) mean squares and products MS_I, MS_S, MS_E; those of
            seeds and of the remainder are 0 with one seed.
        rows: n, or the number of groups where rows are grouped.
        seeds: S.
        independent: n, or the number of equal groups that would be worth as much.
        crossed: the same scores by a factor that is crossed with the seeds, averaged over these.
    """

    means: Array
    of_rows: Array
    of_seeds: Array
    of_rest: Array
    rows: int
    seeds: int
    independent: float
    crossed: "Decomposition | None" = None

    def estimate(self, weights: Array) -> Estimate:
        """The linear combination of the scores with these (C,) weights."""
        variance, df = self.errors(weights[None])
        mean = float(self.means @ weights)
        return Estimate(mean, float(variance[0]), float(df[0]), int(self.independent))

    def errors(self, weights: Array) -> tuple[Array, Array]:
        """(m,) variances and degrees of freedom of the combinations with these (m, C) weights."""
        rows, seeds, rest = (_forms(of, weights) for of in self._squares)
        cells = self.rows * self.seeds
        variance = (rows + np.maximum(seeds - rest, 0.0)) / cells
        fewest = max(self.independent - 1.0, 1.0)
        error = (rows / cells) ** 2 / fewest
        if self.seeds > 1:
            error += (seeds / cells) ** 2 / (self.seeds - 1)
        if self.crossed is not None and self.crossed.seeds > 1:
            _, others, left = (_forms(of, weights) for of in self.crossed._squares)
            of_others = self.crossed.rows * self.crossed.seeds
            variance += np.maximum(others - left, 0.0) / of_others
            error += (others / of_others) ** 2 / (self.crossed.seeds - 1)
        known = (error > 0.0) & (variance > 0.0)
        df = np.maximum(1.0, variance**2 / np.where(known, error, 1.0))
        return variance, np.where(known, df, fewest)

    def components(self, weights: Array) -> "Components":
        """The variances of rows, seeds and their interaction of a linear combination."""
        rows, seeds, rest = (float(_forms(of, weights[None])[0]) for of in self._squares)
        return Components(
            rows=max(0.0, (rows - rest) / self.seeds),
            seeds=max(0.0, (seeds - rest) / self.rows),
            rest=rest,
            has_seeds=self.seeds > 1 and self.crossed is None,
        )

    @property
    def _squares(self) -> tuple[Array, Array, Array]:
        return self.of_rows, self.of_seeds, self.of_rest


class Components(NamedTuple):
    """Variance components of one score: a row's, a seed's, and what is left of a single answer.

    With one seed ``rows`` holds all of a row's variance, and nothing is known of seeds; where two
    factors are crossed one number of seeds says too little.
    """

    rows: float
    seeds: float
    rest: float
    has_seeds: bool

    def variance(self, rows: float, seeds: float) -> float:
        """Of a mean over so many rows and seeds."""
        return self.rows / rows + self.seeds / seeds + self.rest / (rows * seeds)


def decompose(
    scores: Array, crossed: Array | None = None, *, groups: NDArray[np.int64] | None = None
) -> Decomposition:
    """The decomposition of scores of the same rows in all seeds.

    Args:
        scores: (C, S, n), or (S, n) for one score. A score that is the same in all seeds (one
            shared weak model, say) is repeated.
        crossed: (C, S', n) or (S', n), the scores averaged over the seeds, by a factor that is
            crossed with them.
        groups: (n,) index 0 … G − 1 of each row's group, as of ``group_indices``; rows of one group
            (of one prompt) are not independent. They are first added up, each group weighing as
            much as it has rows (the linearised ratio estimate). None: every row is its own.

    Raises:
        ValueError: fewer than two rows or groups; or a score is missing.
    """
    other = None if crossed is None else decompose(crossed, groups=groups)
    y = np.asarray(scores, dtype=np.float64)
    y = y[None] if y.ndim == 2 else y
    if not np.isfinite(y).all():
        raise ValueError("a score is missing or not finite")
    means = y.mean(axis=(1, 2))
    centred = y - means[:, None, None]
    independent = float(y.shape[2])
    if groups is not None:
        centred = _summed(centred, groups)
        independent = len(groups) ** 2 / float(np.square(np.bincount(groups)).sum())
    seeds, rows = centred.shape[1:]
    if rows < 2:
        raise ValueError(f"{rows} independent row, expected at least 2")
    by_row, by_seed = centred.mean(axis=1), centred.mean(axis=2)
    of_rows = seeds * (by_row @ by_row.T) / (rows - 1)
    if seeds == 1:
        none = np.zeros_like(of_rows)
        return Decomposition(means, of_rows, none, none, rows, seeds, independent, other)
    of_seeds = rows * (by_seed @ by_seed.T) / (seeds - 1)
    flat = centred.reshape(len(centred), -1)
    rest = flat @ flat.T - (rows - 1) * of_rows - (seeds - 1) * of_seeds
    of_rest = rest / ((rows - 1) * (seeds - 1))
    return Decomposition(means, of_rows, of_seeds, of_rest, rows, seeds, independent, other)


def mean(scores: Array, groups: NDArray[np.int64] | None = None) -> Estimate:
    """The mean of (S, n) scores over rows and seeds; arguments as of ``decompose``."""
    return decompose(scores, groups=groups).estimate(np.ones(1))


def group_indices(names: list[str]) -> NDArray[np.int64] | None:
    """(n,) the index of each row's group; None where no two rows share one."""
    index = {name: position for position, name in enumerate(dict.fromkeys(names))}
    if len(index) == len(names):
        return None
    return np.array([index[name] for name in names], dtype=np.int64)


def t_quantile(probability: float, df: float) -> float:
    """Of Student's distribution; of the normal one with infinitely many degrees of freedom."""
    return float(ndtri(probability) if df == float("inf") else stdtrit(df, probability))


def t_tail(distance: float, df: float) -> float:
    """Probability of more than this distance above the middle of Student's distribution."""
    return float(stdtr(df, -distance))


def _forms(of: Array, weights: Array) -> Array:
    """(m,) values of the quadratic form of a (C, C) matrix at (m, C) weights."""
    forms: Array = np.einsum("mc,cd,md->m", weights, of, weights)
    return forms


def _summed(centred: Array, groups: NDArray[np.int64]) -> Array:
    """(C, S, G) sums of each group's scores over the mean size of a group, so that means stay."""
    sizes = np.bincount(groups)
    order = np.argsort(groups, kind="stable")
    starts = np.concatenate([[0], np.cumsum(sizes)[:-1]])
    sums: Array = np.add.reduceat(centred[:, :, order], starts, axis=2)
    return sums * (len(sizes) / len(groups))
