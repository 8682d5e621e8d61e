"""Numbers that are not finite, said where they arise: what, of how many rows, and of which first.

Nothing that is not finite is stored as a feature, label, prediction or score. Checks are made of
what is computed, never of all weights, so they cost next to nothing.
"""

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray


def check_rows(
    values: NDArray[np.floating], what: str, row_ids: Iterable[str] | None = None
) -> None:
    """Refuses numbers of rows that are not finite.

    Args:
        values: (n, …).
        what: they are, for people, in the plural.
        row_ids: n of them, read only on an error; None: rows are named by position.

    Raises:
        FloatingPointError: a number is not finite.
    """
    if problem := rows_not_finite(values, what, row_ids):
        raise FloatingPointError(problem)


def rows_not_finite(
    values: NDArray[np.floating], what: str, row_ids: Iterable[str] | None = None
) -> str:
    """What ``check_rows`` would raise, or "" where all numbers are finite."""
    finite = np.isfinite(values)
    if finite.all():
        return ""
    bad = np.flatnonzero(~finite.reshape(len(values), -1).all(axis=1))
    first = int(bad[0])
    value = values[first][~finite[first]].ravel()[0]
    names: Sequence[str] = [] if row_ids is None else list(row_ids)
    row = names[first] if names else first
    return (
        f"{what} are not finite for {len(bad):,} of {len(values):,} rows, the first of them row "
        f"{row} ({value})"
    )
