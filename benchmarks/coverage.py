"""How often the intervals of ``w2s_ray.statistics`` hold the truth, in simulated studies.

    python benchmarks/coverage.py [STUDIES]

Rows differ in difficulty and seeds shift all of them; nominal 95 %. The table is in
``docs/report.md``.
"""

import sys

import numpy as np
from scipy import stats

from w2s_ray.statistics.decomposition import decompose, mean
from w2s_ray.statistics.recovered_gap import recovered_gap

ACCURACY, ROWS = 0.8, 1000


def accuracies(rng: np.random.Generator, rows: int, seeds: int, seed_sd: float) -> np.ndarray:
    """(S, n) right or wrong; ``seed_sd`` is the spread of a seed's true accuracy."""
    slope = stats.norm.pdf(stats.norm.ppf(ACCURACY)) / np.sqrt(2.0)
    threshold = stats.norm.ppf(ACCURACY) * np.sqrt(2.0)
    shift = rng.normal(0.0, seed_sd / slope, seeds)[:, None]
    difficulty = rng.normal(size=rows)
    return (difficulty + rng.normal(size=(seeds, rows)) < threshold + shift).astype(float)


def truth(seed_sd: float) -> float:
    """The accuracy over all rows and seeds."""
    slope = stats.norm.pdf(stats.norm.ppf(ACCURACY)) / np.sqrt(2.0)
    threshold = stats.norm.ppf(ACCURACY) * np.sqrt(2.0)
    return float(stats.norm.cdf(threshold / np.sqrt(2.0 + (seed_sd / slope) ** 2)))


def coverage(studies: int, seeds: int, seed_sd: float) -> tuple[float, float]:
    """Shares of studies whose interval holds the truth: ours, and a t interval over the seeds."""
    rng = np.random.default_rng([seeds, round(1000 * seed_sd)])
    ours = by_seeds = 0
    for _ in range(studies):
        y = accuracies(rng, ROWS, seeds, seed_sd)
        low, high = mean(y).interval()
        ours += low <= truth(seed_sd) <= high
        of_seeds = y.mean(axis=1)
        half = stats.t.ppf(0.975, seeds - 1) * of_seeds.std(ddof=1) / np.sqrt(seeds)
        by_seeds += abs(of_seeds.mean() - truth(seed_sd)) <= half
    return ours / studies, by_seeds / studies


def gap_coverage(studies: int, seeds: int) -> tuple[float, float]:
    """Shares of gaps that are resolved, and of these whose interval holds the share recovered."""
    rng, resolved, covered = np.random.default_rng(seeds), 0, 0
    thresholds = [1.0 - np.sqrt((1.0 - of) / 2.0) for of in (0.70, 0.72, 0.75)]
    for _ in range(studies):
        drawn = 0.5 * rng.uniform(size=ROWS) + 0.5 * rng.uniform(size=(3, seeds, ROWS))
        y = (drawn < np.array(thresholds)[:, None, None]).astype(float)
        found = recovered_gap(decompose(y))
        if found.low is not None and found.high is not None:
            resolved += 1
            covered += found.low <= 0.4 <= found.high
    return resolved / studies, covered / max(resolved, 1)


if __name__ == "__main__":
    studies = int(sys.argv[1]) if len(sys.argv) > 1 else 2000
    print(f"{studies} studies of {ROWS} rows, in %: rows × seeds / t over the seeds alone")
    print("seed sd, points", *(f"S = {seeds}" for seeds in (2, 3, 5, 10, 20)), sep=" | ")
    for seed_sd in (0.0, 0.01, 0.02, 0.05):
        found = (coverage(studies, seeds, seed_sd) for seeds in (2, 3, 5, 10, 20))
        cells = (f"{100 * ours:.1f} / {100 * by_seeds:.1f}" for ours, by_seeds in found)
        print(f"{100 * seed_sd:g}", *cells, sep=" | ")
    for seeds in (2, 3, 5, 10):
        resolved, covered = gap_coverage(studies, seeds)
        print(
            f"gap 5 points, S = {seeds}: resolved {100 * resolved:.1f}, covered {100 * covered:.1f}"
        )
