"""safetensors files written one tensor at a time, so that no process holds a whole model.

The heads of all files follow from names, dtypes and shapes alone; then every tensor goes to its
place as it comes. A file is byte for byte what ``safetensors.torch.save_file`` would write. Above
``shard_bytes`` a model is split over several files with an index, as transformers reads it.
"""

import json
import math
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

WEIGHTS = "model.safetensors"
INDEX = f"{WEIGHTS}.index.json"
SHARD_BYTES = 5_000_000_000
_CODES = {  # in the order in which a file holds them
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
"""dtype and shape of every tensor by name, in the order in which they come."""

Named = Iterable[tuple[str, Tensor]]


def write_weights(
    folder: Path, kinds: Kinds, tensors: Named, *, shard_bytes: int = SHARD_BYTES
) -> list[str]:
    """Writes a model for transformers into ``folder``; returns the names of its weight files.

    Args:
        kinds: of all tensors, in the order of ``tensors``.
        tensors: on any device; each is let go before the next is asked for.
        shard_bytes: most bytes of tensors in a file, unless one tensor alone is larger.

    Raises:
        ValueError: another name, dtype or shape than was said, one too few or too many.
        OSError: the disk is full, or something else is wrong with it.
    """
    shards = _shards(kinds, shard_bytes)
    count = len(shards)
    files = [WEIGHTS]
    if count > 1:
        files = [f"model-{place:05d}-of-{count:05d}.safetensors" for place in range(1, count + 1)]
    coming = iter(tensors)
    for file, shard in zip(files, shards, strict=True):
        _fill(folder / file, shard, coming)
    _expect_end(coming)
    if count > 1:
        index = {
            "metadata": {"total_size": sum(map(_size, kinds.values()))},
            "weight_map": {
                name: file
                for file, shard in zip(files, shards, strict=True)
                for name in sorted(shard)
            },
        }
        (folder / INDEX).write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")
    return files


def write_file(file: Path, kinds: Kinds, tensors: Named) -> None:
    """Writes one safetensors file; arguments and errors as for ``write_weights``."""
    coming = iter(tensors)
    _fill(file, kinds, coming)
    _expect_end(coming)


def _shards(kinds: Kinds, shard_bytes: int) -> list[dict[str, Kind]]:
    shards: list[dict[str, Kind]] = [{}]
    filled = 0
    for name, kind in kinds.items():
        if shards[-1] and filled + _size(kind) > shard_bytes:
            shards.append({})
            filled = 0
        shards[-1][name] = kind
        filled += _size(kind)
    return shards


def _fill(file: Path, kinds: Kinds, coming: Iterator[tuple[str, Tensor]]) -> None:
    head, places, size = _head(kinds)
    with file.open("wb") as opened:
        opened.write(head)
        opened.truncate(size)
        for expected, kind in kinds.items():
            name, tensor = next(coming, (None, torch.empty(0)))
            if name is None:
                raise ValueError(f"{file.name}: the weights end where {expected} was to come")
            if (name, tensor.dtype, tuple(tensor.shape)) != (expected, *kind):
                raise ValueError(
                    f"{file.name}: {name} {tensor.dtype} {tuple(tensor.shape)}, "
                    f"expected {expected} {kind[0]} {kind[1]}"
                )
            opened.seek(places[name])
            opened.write(_bytes(tensor))
            del tensor


def _expect_end(coming: Iterator[tuple[str, Tensor]]) -> None:
    for name, _ in coming:
        raise ValueError(f"weights: {name} was not to come")


def _head(kinds: Kinds) -> tuple[bytes, dict[str, int], int]:
    """The head of a file, where each tensor begins in it, and its size; all in bytes.

    Dtypes stand in the order of safetensors, wide ones first, so that all tensors are aligned;
    among equals the name decides.
    """
    described: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    starts: dict[str, int] = {}
    end = 0
    rank = {dtype: place for place, dtype in enumerate(_CODES)}
    for name in sorted(kinds, key=lambda name: (rank[kinds[name][0]], name)):
        dtype, shape = kinds[name]
        starts[name], end = end, end + _size(kinds[name])
        offsets = [starts[name], end]
        described[name] = {"dtype": _CODES[dtype], "shape": list(shape), "data_offsets": offsets}
    text = json.dumps(described, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    head = len(text).to_bytes(8, "little") + text
    return head, {name: len(head) + start for name, start in starts.items()}, len(head) + end


def _size(kind: Kind) -> int:
    dtype, shape = kind
    return dtype.itemsize * math.prod(shape)


def _bytes(tensor: Tensor) -> Any:
    """The numbers of a tensor as they lie in memory; a CPU tensor that is in one piece is not
    copied."""
    flat = tensor.detach().cpu().contiguous().view(-1)
    return flat.view(torch.uint8).numpy()
