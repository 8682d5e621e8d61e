"""Soft labels meet their rows by row id, never by position."""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray


def as_column(probs: NDArray[np.floating]) -> pa.ListArray:
    """(n, K) probabilities as a list column of float32, in which soft labels are stored."""
    offsets = pa.array(np.arange(0, probs.size + 1, probs.shape[1]), pa.int32())
    return pa.ListArray.from_arrays(offsets, pa.array(probs.astype(np.float32).ravel()))


def as_matrix(column: pa.ChunkedArray) -> NDArray[np.float32]:
    """A list column of equal lengths as (n, K) float32."""
    flat = column.combine_chunks().flatten().to_numpy(zero_copy_only=False)
    matrix: NDArray[np.float32] = flat.astype(np.float32).reshape(len(column), -1)
    return matrix


def positions(wanted: Sequence[str], present: Sequence[str]) -> NDArray[np.int64]:
    """Where each wanted row id stands among the present ones.

    Raises:
        ValueError: an id is wanted but absent, or present twice; the first few are named.
    """
    place = {row_id: position for position, row_id in enumerate(present)}
    if len(place) < len(present):
        raise ValueError(f"{len(present) - len(place)} row ids stand twice among {len(present)}")
    missing = [row_id for row_id in wanted if row_id not in place]
    if missing:
        raise ValueError(f"{len(missing)} of {len(wanted)} rows are missing, e.g. {missing[:3]}")
    return np.fromiter((place[row_id] for row_id in wanted), np.int64, len(wanted))


def join(rows: pa.Table, labels: pa.Table) -> pa.Table:
    """``rows`` with the column ``probs`` of ``labels``, matched by ``row_id``."""
    where = positions(rows["row_id"].to_pylist(), labels["row_id"].to_pylist())
    return rows.append_column("probs", labels["probs"].take(pa.array(where)))


def one_hot(rows: pa.Table, num_classes: int) -> pa.Table:
    """``rows`` with ``probs`` made of their own true labels."""
    return rows.append_column(
        "probs", as_column(np.eye(num_classes, dtype=np.float32)[rows["label"].to_numpy()])
    )
