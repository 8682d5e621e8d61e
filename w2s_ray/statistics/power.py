"""How many rows and seeds a difference needs, from measured variance components.

The power of a two-sided test at α of a true difference δ is that of a noncentral t: its tail above
t(1 − α/2, df) at the noncentrality δ / √V (the other tail is less than 0.001 of it). It is a
planning figure: the components are estimates themselves.
"""

from collections.abc import Callable
from functools import lru_cache

from scipy.special import nctdtrinc

from w2s_ray.statistics.decomposition import Components, t_quantile

MOST = 10**7  # rows or seeds; more is "never"


def smallest_difference(
    components: Components, rows: int, seeds: int, power: float = 0.8, alpha: float = 0.05
) -> float:
    """The smallest true difference that is found with this power."""
    variance = components.variance(rows, seeds)
    if variance == 0.0:
        return 0.0
    return float(_noncentrality(_df(components, rows, seeds), power, alpha) * variance**0.5)


@lru_cache(1 << 16)
def _noncentrality(df: float, power: float, alpha: float) -> float:
    """By how many standard errors a difference must be off 0 for this power."""
    return float(nctdtrinc(df, 1.0 - power, t_quantile(1.0 - alpha / 2.0, df)))


def seeds_needed(
    components: Components, difference: float, rows: int, power: float = 0.8, alpha: float = 0.05
) -> int | None:
    """The fewest seeds, at least 2, that find the difference with so many rows; None: none do."""
    return _fewest(
        lambda seeds: smallest_difference(components, rows, seeds, power, alpha), difference
    )


def rows_needed(
    components: Components, difference: float, seeds: int, power: float = 0.8, alpha: float = 0.05
) -> int | None:
    """The fewest rows, at least 2, that find the difference with so many seeds; None: none do."""
    return _fewest(
        lambda rows: smallest_difference(components, rows, seeds, power, alpha), difference
    )


def published_resolution(rows: int, discordant: float = 0.05, power: float = 0.8) -> float:
    """The smallest difference of two models of one seed that so many rows resolve.

    Args:
        discordant: share of the rows that the two decide differently.

    Returns:
        A fraction; 0.01 for 4,000 rows of which 5 % are discordant.
    """
    normal = t_quantile(0.975, float("inf")) + t_quantile(power, float("inf"))
    # The difference is so many standard errors, √((discordant − difference²) / rows) each.
    return float(normal * (discordant / (rows + normal**2)) ** 0.5)


def _fewest(resolved: Callable[[int], float], difference: float) -> int | None:
    """The smallest number from 2 to ``MOST`` whose resolved difference is small enough."""
    low, high = 1, 2
    while resolved(high) > difference:
        low, high = high, 2 * high
        if high > MOST:
            return None
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if resolved(middle) <= difference else (middle, high)
    return high


def _df(components: Components, rows: int, seeds: int) -> float:
    """Degrees of freedom as of ``Decomposition.estimate``, with expected mean squares."""
    if seeds == 1:
        return float(rows - 1)
    cells = rows * seeds
    of_rows = (seeds * components.rows + components.rest) / cells
    of_seeds = (rows * components.seeds + components.rest) / cells
    error = of_rows**2 / (rows - 1) + of_seeds**2 / (seeds - 1)
    return float(max(1.0, components.variance(rows, seeds) ** 2 / error))
