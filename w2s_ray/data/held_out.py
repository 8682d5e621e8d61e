"""Validation rows: those of the split ``weak`` that nothing is trained on."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from w2s_ray.order import order


def validation_order(row_ids: Sequence[str]) -> NDArray[np.int64]:
    """The order in which rows are held out: by the hashes of their ids.

    No seed enters, so the first rows are the same for all models of a data set, and fewer of them
    are a part of more.
    """
    return order(row_ids, "validation")


def without_validation(row_ids: Sequence[str], count: int) -> NDArray[np.int64]:
    """Positions, ascending, of the rows that remain when ``count`` are held out."""
    return np.sort(validation_order(row_ids)[count:])
