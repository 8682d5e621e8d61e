"""What values of Arrow would take as plain ones, computed before any is made.

A dictionary, and a view, holds a text once for many rows; as Python values each row has its own.
So a table of a few kilobytes can become gigabytes. Sizes are sums over lengths here, and rows come
in slices of bounded size.
"""

from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import types

from w2s_ray.errors import InputError
from w2s_ray.foreign.decompression import Budget
from w2s_ray.foreign.limits import limit
from w2s_ray.foreign.lines import too_long

_ROW_BYTES = 64
"""Counted for each row beside its values, so that rows without values are bounded too."""


def spend(batch: pa.RecordBatch, where: str, budget: Budget) -> None:
    """Counts a batch as plain values; arguments and errors as of ``slices``."""
    budget.spend(batch.num_rows * _ROW_BYTES + _size_of(batch, where))


def slices(batch: pa.RecordBatch, where: str, before: int) -> Iterator[pa.RecordBatch]:
    """A batch in order, in parts whose plain values are no larger than one row may be.

    Args:
        batch: whose buffers are known to be valid.
        where: the file and what its rows are called; a number follows (``file: row 1``).
        before: rows of the file that come before these.

    Raises:
        InputError: a row is too large, or values are of a type whose size cannot be computed.
    """
    waiting = [(before, batch)]
    while waiting:
        start, part = waiting.pop()
        size = _size_of(part, where)
        if size <= limit("row.bytes"):
            yield part
        elif part.num_rows == 1:
            raise too_long(f"{where} {start + 1}", size)
        else:
            half = part.num_rows // 2
            waiting += [(start + half, part.slice(half)), (start, part.slice(0, half))]


def _size_of(batch: pa.RecordBatch, where: str) -> int:
    try:
        return sum(plain_bytes(column) for column in batch.columns)
    except NotImplementedError as error:
        file = where.removesuffix(": row")
        raise InputError(
            f"{file}: a column of type {error}, expected texts, numbers, lists or structs"
        ) from error


def plain_bytes(array: pa.Array) -> int:
    """Bytes of an array's values, each counted as often as it is in a row.

    Raises:
        NotImplementedError: the size of such values is not computed here; the text is their type.
    """
    kind = array.type
    if isinstance(array, pa.ExtensionArray):
        return plain_bytes(array.storage)
    if types.is_dictionary(kind):
        indices = array.indices.drop_null().to_numpy(zero_copy_only=False)
        lengths = _lengths(array.dictionary)
        if len(indices) and not 0 <= indices.min() <= indices.max() < len(lengths):
            raise pa.ArrowInvalid("an index beyond its dictionary")
        return int(lengths[indices].sum())
    if _is_text(kind):
        return int(_lengths(array).sum())
    if types.is_struct(kind):
        return sum(plain_bytes(field) for field in array.flatten())
    if types.is_map(kind):
        start, end = array.offsets[0].as_py(), array.offsets[-1].as_py()
        entries = [part.slice(start, end - start) for part in (array.keys, array.items)]
        return 8 * len(array) + sum(map(plain_bytes, entries))
    if types.is_list(kind) or types.is_large_list(kind):
        return 8 * len(array) + plain_bytes(array.flatten())
    if types.is_fixed_size_list(kind):
        return plain_bytes(array.flatten())
    if types.is_null(kind) or types.is_primitive(kind) or types.is_fixed_size_binary(kind):
        return len(array) * max(8, 0 if types.is_null(kind) else kind.bit_width // 8)
    if types.is_decimal(kind):
        return len(array) * 32
    raise NotImplementedError(str(kind))


def _is_text(kind: pa.DataType) -> bool:
    is_plain = types.is_string(kind) or types.is_large_string(kind) or types.is_binary(kind)
    return is_plain or types.is_large_binary(kind) or _is_view(kind)


def _is_view(kind: pa.DataType) -> bool:
    return bool(types.is_string_view(kind) or types.is_binary_view(kind))


def _lengths(values: pa.Array) -> "np.ndarray[tuple[int], np.dtype[np.int64]]":
    """(n,) int64: bytes of each value; 0 of a null."""
    if _is_view(values.type):  # for which Arrow has no function: a view begins with its length
        views = np.frombuffer(values.buffers()[1], np.int32).reshape(-1, 4)
        lengths = views[values.offset : values.offset + len(values), 0].astype(np.int64)
        valid = values.is_valid().to_numpy(zero_copy_only=False)
        return np.where(valid, lengths, 0)
    if _is_text(values.type):
        filled = pc.fill_null(pc.binary_length(values), 0)
        return np.asarray(filled.to_numpy(zero_copy_only=False)).astype(np.int64)
    if types.is_nested(values.type) or types.is_dictionary(values.type):
        raise NotImplementedError(f"dictionary of {values.type}")
    return np.full(len(values), 8, np.int64)
