"""Writes safetensors files one tensor at a time, so that no process holds a whole model.

The headers of all files follow from names, dtypes and shapes alone; then every tensor is written at
its offset when it comes. A file is byte for byte what ``safetensors.torch.save_file`` would write.
Above ``shard_bytes`` a model is split over several files with an index, as transformers reads it.
"""

import json
import math
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from w2s_ray.catalog.digests import WEIGHTS, WEIGHTS_INDEX

SHARD_BYTES = 5_000_000_000
_CODES = {  # in the order of tensors in a file
    torch.int64: "I64",
    torch.float64: "F64",
    torch.float32: "F32",
    torch.int32: "I32",
    torch.bfloat16: "BF16",
    torch.float16: "F16",
    torch.uint8: "U8",
}

Kind = tuple[torch.dtype, tuple[int, ...]]
Kinds = Mapping[str, Kind]
"""dtype and shape of every tensor by name, in the order the tensors come in."""

Named = Iterable[tuple[str, Tensor]]


def write_weights(
    folder: Path, kinds: Kinds, tensors: Named, *, shard_bytes: int = SHARD_BYTES
) -> list[str]:
    """Writes a model for transformers into ``folder``; returns the names of its weight files.

    Args:
        kinds: of all tensors, in the order of ``tensors``.
        tensors: on any device; each is released before the next is requested.
        shard_bytes: most bytes of tensors in a file, unless one tensor alone is larger.

    Raises:
        ValueError: a name, dtype or shape differs from ``kinds``, or their number does.
        OSError: the disk is full, or cannot be written.
    """
    shards = _shards(kinds, shard_bytes)
    count = len(shards)
    files = [WEIGHTS]
    if count > 1:
        files = [f"model-{shard:05d}-of-{count:05d}.safetensors" for shard in range(1, count + 1)]
    stream = iter(tensors)
    for file, shard in zip(files, shards, strict=True):
        _fill(folder / file, shard, stream)
    _expect_end(stream)
    if count > 1:
        index = {
            "metadata": {"total_size": sum(map(_size, kinds.values()))},
            "weight_map": {
                name: file
                for file, shard in zip(files, shards, strict=True)
                for name in sorted(shard)
            },
        }
        (folder / WEIGHTS_INDEX).write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")
    return files


def write_file(file: Path, kinds: Kinds, tensors: Named) -> None:
    """Writes one safetensors file; arguments and errors as for ``write_weights``."""
    stream = iter(tensors)
    _fill(file, kinds, stream)
    _expect_end(stream)


def _shards(kinds: Kinds, shard_bytes: int) -> list[dict[str, Kind]]:
    """The tensors of each file."""
    shards: list[dict[str, Kind]] = [{}]
    filled = 0
    for name, kind in kinds.items():
        if shards[-1] and filled + _size(kind) > shard_bytes:
            shards.append({})
            filled = 0
        shards[-1][name] = kind
        filled += _size(kind)
    return shards


def _fill(file: Path, kinds: Kinds, stream: Iterator[tuple[str, Tensor]]) -> None:
    """Writes one file with the next tensors of ``stream``."""
    header = _header(kinds)
    with file.open("wb") as opened:
        opened.write(header.content)
        opened.truncate(header.file_bytes)
        for expected, kind in kinds.items():
            name, tensor = next(stream, (None, torch.empty(0)))
            if name is None:
                raise ValueError(f"{file.name}: the weights end, expected {expected}")
            if (name, tensor.dtype, tuple(tensor.shape)) != (expected, *kind):
                raise ValueError(
                    f"{file.name}: {name} {tensor.dtype} {tuple(tensor.shape)}, "
                    f"expected {expected} {kind[0]} {kind[1]}"
                )
            opened.seek(header.offsets[name])
            opened.write(_bytes(tensor))
            del tensor


def _expect_end(stream: Iterator[tuple[str, Tensor]]) -> None:
    for name, _ in stream:
        raise ValueError(f"weights: {name}, expected no more tensors")


class _Header(NamedTuple):
    """The start of a file, and the layout that it describes.

    Attributes:
        content: its bytes.
        offsets: of each tensor's first byte in the file.
        file_bytes: size of the whole file.
    """

    content: bytes
    offsets: dict[str, int]
    file_bytes: int


def _header(kinds: Kinds) -> _Header:
    """The header of a file with these tensors.

    They are sorted as safetensors sorts them: wide dtypes first, so that all tensors are aligned,
    then by name.
    """
    described: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    starts: dict[str, int] = {}
    end = 0
    rank = {dtype: position for position, dtype in enumerate(_CODES)}
    for name in sorted(kinds, key=lambda name: (rank[kinds[name][0]], name)):
        dtype, shape = kinds[name]
        starts[name], end = end, end + _size(kinds[name])
        offsets = [starts[name], end]
        described[name] = {"dtype": _CODES[dtype], "shape": list(shape), "data_offsets": offsets}
    text = json.dumps(described, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    content = len(text).to_bytes(8, "little") + text
    in_file = {name: len(content) + start for name, start in starts.items()}
    return _Header(content, in_file, len(content) + end)


def _size(kind: Kind) -> int:
    dtype, shape = kind
    return dtype.itemsize * math.prod(shape)


def _bytes(tensor: Tensor) -> Any:
    """The bytes of a tensor in row-major order; a contiguous CPU tensor is not copied."""
    flat = tensor.detach().cpu().contiguous().view(-1)
    return flat.view(torch.uint8).numpy()
