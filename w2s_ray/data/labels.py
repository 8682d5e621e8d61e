"""Soft labels: (n, K) float32 arrays, and the parquet file that stores them.

From the file to the loss they are one numpy array called ``soft_labels``. Arrow holds them only in
the file, as the column ``probs``, and in the blocks of Ray Data (``data.stream``). They are matched
to their rows by row id, never by position.
"""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from w2s_ray.finite import check_rows


def labels_table(row_ids: pa.ChunkedArray, soft_labels: NDArray[np.floating]) -> pa.Table:
    """Columns row_id and probs (lists of K float32) of n rows.

    Args:
        soft_labels: (n, K), in the order of ``row_ids``.

    Raises:
        FloatingPointError: a label is not finite.
    """
    check_rows(soft_labels, "soft labels", map(str, row_ids))
    probs = probs_column(soft_labels.astype(np.float32))
    return pa.table({"row_id": row_ids, "probs": probs})


def probs_column(probs: NDArray[np.floating]) -> pa.ListArray:
    """(n, K) probabilities as lists of K numbers of their type.

    Raises:
        FloatingPointError: a probability is not finite.
    """
    check_rows(probs, "class probabilities")
    offsets = pa.array(np.arange(0, probs.size + 1, probs.shape[1]), pa.int32())
    return pa.ListArray.from_arrays(offsets, pa.array(probs.ravel()))


def soft_labels_of(table: pa.Table, row_ids: Sequence[str]) -> NDArray[np.float32]:
    """(n, K) float32 soft labels of the rows ``row_ids``, in their order.

    Args:
        table: as ``labels_table`` makes it.

    Raises:
        ValueError: the table has no label for a row, or has a row id twice.
        FloatingPointError: a label is not finite.
    """
    where = positions(row_ids, table["row_id"].to_pylist())
    flat = table["probs"].combine_chunks().flatten().to_numpy(zero_copy_only=False)
    soft_labels: NDArray[np.float32] = flat.astype(np.float32).reshape(table.num_rows, -1)[where]
    check_rows(soft_labels, "the stored soft labels", row_ids)
    return soft_labels


def one_hot(labels: NDArray[np.int64], num_classes: int) -> NDArray[np.float32]:
    """(n, K) float32 soft labels that put all probability on the true class of each row."""
    soft_labels: NDArray[np.float32] = np.eye(num_classes, dtype=np.float32)[labels]
    return soft_labels


def positions(wanted: Sequence[str], present: Sequence[str]) -> NDArray[np.int64]:
    """The index of each wanted row id among the present ones.

    Raises:
        ValueError: a wanted id is absent (the first few are named), or an id is present twice.
    """
    index_of = {row_id: index for index, row_id in enumerate(present)}
    if len(index_of) < len(present):
        raise ValueError(f"{len(present) - len(index_of)} row ids occur twice among {len(present)}")
    missing = [row_id for row_id in wanted if row_id not in index_of]
    if missing:
        raise ValueError(f"{len(missing)} of {len(wanted)} rows are missing, e.g. {missing[:3]}")
    return np.fromiter((index_of[row_id] for row_id in wanted), np.int64, len(wanted))
