"""Students on part of the rows: nested subsets, for learning curves."""

import numpy as np
from numpy.typing import NDArray


def first_rows(
    rows: NDArray[np.int64], hashes: NDArray[np.uint64], count: int | None
) -> NDArray[np.int64]:
    """The ``count`` rows with the lowest hashes, in the order of ``rows``; None: all.

    Rows of a smaller count are among those of a larger one.

    Args:
        rows: (n,) positions in a table, ascending.
        hashes: (N,) of all rows of the table, of no cell's seed: students of all seeds learn from
            one subset.

    Raises:
        ValueError: there are fewer rows.
    """
    if count is None or count == len(rows):
        return rows
    if count > len(rows):
        raise ValueError(
            f"train_rows: given {count}, expected at most {len(rows)}, the rows to learn from"
        )
    lowest = np.argsort(hashes[rows], kind="stable")[:count]
    subset: NDArray[np.int64] = np.sort(rows[lowest])
    return subset
