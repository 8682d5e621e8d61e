"""Random draws over rows that depend only on a seed, a stream name and the row ids.

Every draw over rows (epoch order, splits, noise, which answer comes first) uses a hash of the row's
own id. File order, the number of workers and the library that reads the data therefore cannot
change a result, and the rows drawn at 10 % are a subset of those drawn at 20 %.
"""

from collections.abc import Sequence
from hashlib import blake2b

import numpy as np
from numpy.typing import NDArray


def hashes(row_ids: Sequence[str], *stream: int | str) -> NDArray[np.uint64]:
    """Hash each row id together with ``stream`` to a uniform 64-bit number.

    Args:
        row_ids: n ids.
        stream: what the draw is for, usually a seed and a name.

    Returns:
        (n,) uint64.
    """
    prefix = blake2b("\x1f".join(map(str, stream)).encode() + b"\x1e", digest_size=8)
    numbers = np.empty(len(row_ids), dtype=np.uint64)
    for position, row_id in enumerate(row_ids):
        state = prefix.copy()
        state.update(row_id.encode())
        numbers[position] = int.from_bytes(state.digest(), "little")
    return numbers


def order(row_ids: Sequence[str], *stream: int | str) -> NDArray[np.int64]:
    """The permutation that sorts the rows by their hashes, (n,) int64.

    Ties (equal ids) are broken by row id, then by position.
    """
    return np.lexsort((np.asarray(row_ids, dtype=np.str_), hashes(row_ids, *stream)))
