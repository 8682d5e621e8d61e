"""Orders that depend on nothing but a seed, a name and the row ids.

Every draw over rows (epochs, splits, noise, which answer comes first) is a hash of the row's own
id. The order of a file, the number of workers and the library that reads the data therefore
cannot change a result, and the rows drawn at 10 % are a subset of those drawn at 20 %.
"""

from collections.abc import Sequence
from hashlib import blake2b

import numpy as np
from numpy.typing import NDArray


def hashes(row_ids: Sequence[str], *stream: int | str) -> NDArray[np.uint64]:
    """One uniform 64-bit number a row, (n,) uint64, from ``(stream, row_id)`` alone."""
    prefix = blake2b("\x1f".join(map(str, stream)).encode() + b"\x1e", digest_size=8)
    numbers = np.empty(len(row_ids), dtype=np.uint64)
    for position, row_id in enumerate(row_ids):
        state = prefix.copy()
        state.update(row_id.encode())
        numbers[position] = int.from_bytes(state.digest(), "little")
    return numbers


def order(row_ids: Sequence[str], *stream: int | str) -> NDArray[np.int64]:
    """A permutation of the rows, (n,) int64; ties (equal ids) fall by row id, then by position."""
    return np.lexsort((np.asarray(row_ids, dtype=np.str_), hashes(row_ids, *stream)))
