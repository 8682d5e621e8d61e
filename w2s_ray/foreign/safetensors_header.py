"""The header of a safetensors file: every statement of it checked against the file.

Such a file is 8 bytes with a length, so many bytes of JSON (name -> dtype, shape, place of the
data), and the data. What a header claims decides what is allocated and read, so nothing is taken
on trust: names are unique, sizes follow from shapes, and the places cover the data without overlap.
Format: https://github.com/huggingface/safetensors#format.
"""

import json
import struct
from math import prod
from pathlib import Path
from typing import Any, NamedTuple, TypeGuard

from w2s_ray.errors import InputError
from w2s_ray.foreign.limits import exceeded, limit
from w2s_ray.foreign.opening import open_regular

_BITS = {
    **dict.fromkeys(("BOOL", "U8", "I8", "F8_E5M2", "F8_E4M3", "F8_E8M0"), 8),
    **dict.fromkeys(("F8_E4M3FNUZ", "F8_E5M2FNUZ"), 8),
    **dict.fromkeys(("U16", "I16", "F16", "BF16"), 16),
    **dict.fromkeys(("U32", "I32", "F32"), 32),
    **dict.fromkeys(("U64", "I64", "F64", "C64"), 64),
    **dict.fromkeys(("F6_E2M3", "F6_E3M2"), 6),
    "F4": 4,
}
_METADATA = "__metadata__"


class StoredTensor(NamedTuple):
    """A tensor as a header describes it.

    Attributes:
        dtype: name in the format.
        shape: of the tensor.
        begin, end: its bytes among the data.
    """

    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int


def read_safetensors_header(file: Path) -> dict[str, StoredTensor]:
    """The tensors of a safetensors file, by name, in the order of the header.

    Raises:
        InputError: the header is damaged, or says something else than the file holds.
        OSError: the file cannot be read.
    """
    with open_regular(file) as opened:
        size = opened.seek(0, 2)
        opened.seek(0)
        beginning = opened.read(8)
        if len(beginning) < 8:
            raise _damaged(file, f"{size} bytes, expected at least 8")
        (length,) = struct.unpack("<Q", beginning)
        if length > size - 8:
            raise _damaged(file, f"a header of {length:,} bytes in a file of {size:,}")
        if length > limit("safetensors.header"):
            raise _damaged(file, f"its header: {exceeded('safetensors.header', length)}")
        content = opened.read(length)
    tensors = _tensors(file, content)
    _check_places(file, tensors, size - 8 - length)
    return tensors


def _tensors(file: Path, content: bytes) -> dict[str, StoredTensor]:
    try:
        header = json.loads(content, object_pairs_hook=_unique)
    except (ValueError, RecursionError) as error:
        reason = str(error) if isinstance(error, ValueError) else exceeded("json.depth")
        raise _damaged(file, f"its header is not JSON: {reason}") from error
    if not isinstance(header, dict):
        raise _damaged(file, "its header is no JSON object")
    header.pop(_METADATA, None)
    return {name: _tensor(file, name, entry) for name, entry in header.items()}


def _tensor(file: Path, name: str, entry: Any) -> StoredTensor:
    given = entry if isinstance(entry, dict) else {}
    dtype, shape = given.get("dtype"), given.get("shape")
    places = given.get("data_offsets")
    if not _are_sizes(shape) or not _are_sizes(places) or len(places) != 2:
        raise _damaged(file, f"{name}: expected a dtype, a shape and two data_offsets")
    if not isinstance(dtype, str) or dtype not in _BITS:
        raise _damaged(file, f"{name}: dtype {dtype!r}, expected one of {', '.join(_BITS)}")
    begin, end = places
    needed = -(-prod(shape) * _BITS[dtype] // 8)
    if end - begin != needed:
        raise _damaged(
            file, f"{name}: {end - begin:,} bytes, expected {needed:,} for {dtype} {shape}"
        )
    return StoredTensor(dtype, tuple(shape), begin, end)


def _are_sizes(values: Any) -> TypeGuard[list[int]]:
    """Whether a value is a list of whole numbers of at least 0."""
    return isinstance(values, list) and all(type(one) is int and one >= 0 for one in values)


def _check_places(file: Path, tensors: dict[str, StoredTensor], size: int) -> None:
    """Refuses tensors that overlap, leave holes, or do not end where the file does."""
    expected = 0
    for name, tensor in sorted(tensors.items(), key=lambda one: (one[1].begin, one[1].end)):
        if tensor.begin != expected:
            raise _damaged(
                file, f"{name} begins at byte {tensor.begin:,} of the data, expected {expected:,}"
            )
        expected = tensor.end
    if size < expected:
        raise InputError(
            f"model {file}: the file is cut off: {size:,} bytes of data, expected {expected:,}"
        )
    if size > expected:
        raise _damaged(file, f"{size:,} bytes of data, expected {expected:,}")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object whose names are all different."""
    unique: dict[str, Any] = {}
    for name, value in pairs:
        if name in unique:
            raise ValueError(f"the name {name!r} twice")
        unique[name] = value
    return unique


def _damaged(file: Path, what: str) -> InputError:
    return InputError(f"model {file}: the file is damaged: {what}")
